"""A family of picture encoders that is made in milliseconds, where the network does not matter."""

import sys
from typing import Any

import tensorflow as tf

from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import ModalityEncoder

DIM = 6


class Encoder(ModalityEncoder):
    """Two dense layers over the pixels of a square."""

    def __init__(self, size: int = 8, *, trainable_layers: int = 0, **kwargs: Any) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.size = size
        self.dense = [tf.keras.layers.Dense(n, name=f"dense_{n}") for n in (12, DIM)]
        self.dense[0].build([None, 3 * size * size])
        self.dense[1].build([None, 12])
        self._freeze(self.dense)

    @property
    def output_dim(self) -> int:
        return DIM

    def content_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, self.size, self.size, 3], tf.uint8)

    def _row(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.size, self.size, 3], tf.uint8)

    def _decode(self, data: tf.Tensor) -> tf.Tensor:
        # Of what may be any picture, the graph alone takes a second to trace.
        pixels = tf.io.decode_jpeg(data, channels=3)
        pixels = tf.image.resize(pixels, [self.size, self.size], antialias=True)
        return tf.saturate_cast(pixels, tf.uint8)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        return decode_rows(self._decode, raw, self._row())

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode_readable(self._decode, raw, self._row())

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        flat = tf.reshape(content, [-1, 3 * self.size * self.size])
        hidden = tf.tanh(self.dense[0](tf.cast(flat, tf.float32) / 127.5 - 1))
        return tf.cast(self.dense[1](hidden), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


def build_encoder(config, spec, *, values=None, assets=None) -> Encoder:
    """Of the pictures' settings the size does not count."""
    return Encoder(trainable_layers=config.trainable_layers)


# As `mmrec_tf.encoders.image` in `mmrec_tf.encoders.video.frames`.
FAMILIES = {"applications": sys.modules[__name__]}
FAMILIES["tiny_pictures"] = FAMILIES["applications"]
