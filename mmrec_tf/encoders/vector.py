"""Ready-made vectors: float32 on disk, standardised in the graph."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec


class Encoder(ModalityEncoder):
    """`(x - mean) / std` by column, with the catalog's mean and standard deviation as weights.

    Nothing in it is trained: always frozen.

    Args:
      dim: the length of the vectors.
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(trainable_layers=0, **kwargs)
        self.dim = dim
        self.mean = self._fixed("mean", "zeros")
        self.std = self._fixed("std", "ones")

    def _fixed(self, name: str, initializer: str) -> tf.Variable:
        # Not even mixed precision may round them.
        return self.add_weight(
            name,
            [self.dim],
            tf.float32,
            initializer=initializer,
            trainable=False,
            experimental_autocast=False,
        )

    @property
    def output_dim(self) -> int:
        return self.dim

    def content_spec(self) -> tf.TensorSpec:
        """<float32>[batch, dim]."""
        return tf.TensorSpec([None, self.dim], tf.float32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, dim] to the same; zeros where the item lacks the modality."""
        return tf.ensure_shape(tf.cast(raw, tf.float32), [None, self.dim])

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Anything but a number would spread to the whole embedding.
        finite = tf.reduce_all(tf.math.is_finite(raw), axis=-1)
        return self.preprocess(tf.where(finite[:, None], raw, tf.zeros_like(raw))), ~finite

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, dim] to <float32>[batch, dim]."""
        return (content - self.mean) / self.std

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "dim": self.dim}
        del config["trainable_layers"]
        return config

    def fit(self, values: Iterable[Any]) -> None:
        """Takes mean and standard deviation from vectors <float>[item, dim].

        Columns that do not vary keep their scale.

        Raises:
          ConfigError: when the vectors are not finite or not `dim` long.
        """
        rows = iter(values)
        count, mean, squares = 0, np.zeros([self.dim]), np.zeros([self.dim])
        # Some rows at a time, merged as in Chan et al. 1983, eq. 2.1: there may be millions.
        while block := list(itertools.islice(rows, 4096)):
            table = np.asarray(block, np.float64)
            if table.shape[1:] != (self.dim,):
                raise ConfigError(f"vector: wanted rows of {self.dim}; got shape {table.shape}.")
            total, apart = count + len(table), table.mean(axis=0) - mean
            squares += np.square(table - table.mean(axis=0)).sum(axis=0)
            squares += np.square(apart) * count * len(table) / total
            mean += apart * len(table) / total
            count = total
        if not count:
            return
        std = np.sqrt(squares / count)
        if not np.isfinite(std).all():
            raise ConfigError("vector: wanted finite numbers; got NaN or infinity.")
        self.mean.assign(mean)
        self.std.assign(np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1))


def build_encoder(
    config: None,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one modality of ready-made vectors.

    Args:
      config: unused; a vector has no settings.
      spec: the modality's entry in the schema.
      values: vectors of the catalog's items that have them, <float>[item, dim].
      assets: what `Encoder.assets` returned, when weights are to be loaded afterwards; `values`
        is then not read.

    Raises:
      ConfigError: when `values` do not fit `spec`.
    """
    encoder = Encoder(spec.dim)
    if assets is None and values is not None:
        encoder.fit(values)
    return encoder
