"""Sounds: mono 16-bit WAV bytes on disk, a log-mel spectrogram in the graph, a CNN on top."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio.clips import (
    SpectrogramEncoder,
    load_weights,
    spectrogram_settings,
)
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "nothing; it trains"


class Encoder(SpectrogramEncoder):
    """A log-mel spectrogram through a small convolutional network.

    Each block is convolution, group normalization (`GroupNorm`; independent of the batch),
    ReLU and 2 x 2 max pooling. A second channel holds each band's height from -1 to 1 (Liu et al.
    2018, CoordConv): without it the average over frequency at the end would forget pitch. The
    blocks' output is averaged over frequency and time or, with `gru_units`, read by a GRU along
    time (Cho et al. 2014).

    Args:
      filters: output channels of each block.
      gru_units: 0 for the average.
      kwargs: as of `SpectrogramEncoder`; of its `trainable_layers` the GRU is one.
    """

    version = 2  # the loudest part, and channels that cancel each other out

    def __init__(
        self, *, filters: Sequence[int] = (16, 32, 64), gru_units: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.gru_units = gru_units
        blocks = [_block(units, f"block_{i}") for i, units in enumerate(self.filters)]
        reader = _time_reader(gru_units) if gru_units else None
        spectrogram = tf.keras.Input([self.num_frames, self.num_mels, 2])
        x = spectrogram
        for block in blocks:
            x = block(x)
        x = reader(x) if reader else tf.keras.layers.GlobalAveragePooling2D()(x)
        self.network = tf.keras.Model(spectrogram, x, name="network")
        self._freeze([*blocks, reader] if reader else blocks)

    @property
    def output_dim(self) -> int:
        return self.gru_units or self.filters[-1]

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, frame, mel] to <float32>[batch, output_dim]."""
        if content.shape[0] == 0:
            # Run eagerly, TensorFlow 2.17's convolutions and `tf.map_fn` lose the shape of no rows.
            return tf.zeros([0, self.output_dim])
        spectrogram = content
        if self._training(training):
            spectrogram = self._augment(spectrogram)
        height = tf.zeros_like(spectrogram) + tf.linspace(-1.0, 1.0, self.num_mels)
        image = tf.stack([spectrogram, height], axis=-1)
        return tf.cast(self.network(image, training=self._training(training)), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": list(self.filters),
            "gru_units": self.gru_units,
        }


def build_encoder(
    config: AudioConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one sound modality.

    Args:
      config: the part `audio` of a `Config`. `config.weights` is a file written by
        `encoder.network.save_weights`.
      spec: the modality's entry in the schema.
      values: unused; nothing is learned from the catalog when the encoder is made.
      assets: what `Encoder.assets` returned ({} too): `config.weights` is then not read, and
        weights are to be loaded afterwards.

    Raises:
      ConfigError: when `config.weights` cannot be read or does not fit.
    """
    encoder = Encoder(
        filters=config.filters,
        gru_units=config.gru_units,
        **spectrogram_settings(config),
    )
    if assets is None:
        load_weights(encoder.network, config.weights, "audio.filters and audio.gru_units")
    return encoder


class GroupNorm(tf.keras.layers.Layer):
    """Group normalization (Wu and He 2018, eq. 1 to 6) with a scale and an offset a channel.

    `tf.keras.layers.GroupNormalization` fails in a graph on a batch of no rows, which TensorFlow
    Serving passes on.

    Args:
      groups: of channels; divides their number.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight("gamma", [input_shape[-1]], initializer="ones")
        self.beta = self.add_weight("beta", [input_shape[-1]], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[batch, height, width, channel] to the same."""
        _, height, width, channels = inputs.shape
        grouped = tf.reshape(inputs, [-1, height * width, self.groups, channels // self.groups])
        # Half precision cannot hold sums of squares over a picture.
        mean, variance = tf.nn.moments(tf.cast(grouped, tf.float32), axes=[1, 3], keepdims=True)
        normal = (tf.cast(grouped, tf.float32) - mean) * tf.math.rsqrt(variance + 1e-3)
        normal = tf.reshape(normal, [-1, height, width, channels])
        return tf.cast(normal * tf.cast(self.gamma, tf.float32), inputs.dtype) + tf.cast(
            self.beta, inputs.dtype
        )


def _block(filters: int, name: str) -> tf.keras.Sequential:
    return tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            GroupNorm(math.gcd(filters, 8)),
            tf.keras.layers.ReLU(),
            tf.keras.layers.MaxPool2D(padding="same"),
        ],
        name=name,
    )


def _time_reader(units: int) -> tf.keras.Sequential:
    return tf.keras.Sequential(
        [
            # Each step sees all its bands and channels.
            tf.keras.layers.TimeDistributed(tf.keras.layers.Flatten()),
            # `GRU` would put a cuDNN operation into the export, which XLA cannot compile.
            tf.keras.layers.RNN(tf.keras.layers.GRUCell(units)),
        ],
        name="gru",
    )
