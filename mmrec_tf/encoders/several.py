"""An item's several values of a kind, pooled by attention: a layer around a frozen encoder."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.pooling import AttentionPool


class SeveralValues(ModalityEncoder):
    """What a frozen encoder makes of each of an item's values, pooled by attention that trains.

    Stored are the vectors of the values, at most `most` an item, so that an epoch runs no encoder;
    a column behind them says which are there.

    Args:
      encoder: ModalityEncoder, frozen.
      most: values of an item.
    """

    def __init__(self, encoder: ModalityEncoder, most: int, **kwargs: Any) -> None:
        super().__init__(trainable_layers=-1, **kwargs)
        self.encoder = encoder
        self.most = most
        encoder.trainable = False
        self.pooling = AttentionPool(encoder.output_dim, name="pooling", dtype="float32")

    @property
    def frozen(self) -> bool:
        return False

    @property
    def stores_vectors(self) -> bool:
        return True

    @property
    def output_dim(self) -> int:
        return self.encoder.output_dim

    @property
    def stored_spec(self) -> tf.TensorSpec:
        """<float32>[batch, value, dim + 1]."""
        return tf.TensorSpec([None, self.most, self.output_dim + 1], tf.float32)

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        return []

    def content_spec(self) -> tf.TensorSpec:
        """As of the encoder, of one value."""
        return self.encoder.content_spec()

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """As of the encoder, of one value a row."""
        return self.encoder.preprocess(raw)

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.encoder.preprocess_readable(raw)

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Content of items with one value each to <float32>[batch, output_dim]."""
        return self.encoder(content, training=False)

    def to_stored(self, content: tf.Tensor) -> tf.Tensor:
        """Content of single values to <float32>[value, dim]; `group_values` joins them."""
        return self.encoder(content, training=False)

    def group_values(self, stored: np.ndarray, start: np.ndarray) -> np.ndarray:
        count = np.diff(start, append=len(stored))
        row = np.repeat(np.arange(len(start)), count)
        place = np.arange(len(stored)) - np.repeat(start, count)
        grouped = np.zeros([len(start), self.most, self.output_dim + 1], np.float32)
        grouped[row, place, :-1] = stored
        grouped[row, place, -1] = 1
        return grouped

    def from_stored(self, stored: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        return self.pool(stored[..., :-1], stored[..., -1] > 0)[0]

    def weigh(self, stored: tf.Tensor) -> tf.Tensor:
        """How much each value counts, <float32>[batch, value]."""
        return self.pool(stored[..., :-1], stored[..., -1] > 0)[1]

    def pool(self, vectors: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Pools values that went through the encoder; see `AttentionPool.call`."""
        return self.pooling(vectors, present)

    def assets(self) -> dict[str, str]:
        return self.encoder.assets()

    def stored_fingerprint(self) -> str:
        return hashlib.sha256(
            f"{self.encoder.fingerprint()} values {self.most}".encode()
        ).hexdigest()

    def get_config(self) -> dict[str, Any]:
        # Vectors of one encoder must not be taken for those of another.
        inner = {k: v for k, v in self.encoder.get_config().items() if k not in ("name", "dtype")}
        return {**super().get_config(), "encoder": inner, "most": self.most}
