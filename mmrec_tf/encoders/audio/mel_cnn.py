"""Sounds: mono 16-bit WAV bytes on disk, a log-mel spectrogram in the graph, a CNN on top."""

import functools
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio.augmentation import add_noise, hide_bands, shift
from mmrec_tf.encoders.audio.reading import read_sound
from mmrec_tf.encoders.audio.spectrogram import TOP_DB, log_mel
from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec


class Encoder(ModalityEncoder):
    """A log-mel spectrogram through a small convolutional network.

    Each block is convolution, group normalization (`GroupNorm`; independent of the batch),
    ReLU and 2 x 2 max pooling. A second channel holds each band's height from -1 to 1 (Liu et al.
    2018, CoordConv): without it the average over frequency at the end would forget pitch. The
    blocks' output is averaged over frequency and time or, with `gru_units`, read by a GRU along
    time (Cho et al. 2014).

    Args:
      sample_rate_hz: the rate that sounds are brought to.
      clip_seconds: of longer sounds the loudest part of this length is heard, to a tenth of a
        second; shorter ones are padded with zeros.
      num_mels: bands up to `fmax_hz`.
      fft_length: samples of a window.
      hop_length: samples from one window to the next.
      fmax_hz: upper end of the highest band.
      filters: output channels of each block.
      gru_units: 0 for the average.
      mask_bins: widest band of frequencies hidden in training (SpecAugment, Park et al. 2019).
      mask_frames: longest stretch of frames hidden in training.
      noise_db: loudest noise added in training, see `add_noise`; -80, the floor, for none.
      shift_seconds: farthest move of a clip in training.
      trainable_layers: 0 keeps the encoder frozen, n trains the last n blocks (the GRU is one),
        -1 trains all.
    """

    # The two masks count as ordinary settings: they are on by default, and vectors cached under
    # their fingerprint stay valid.
    augmentation = ("noise_db", "shift_seconds")
    version = 2  # the loudest part, and channels that cancel each other out

    def __init__(
        self,
        *,
        sample_rate_hz: int = 16000,
        clip_seconds: float = 3.0,
        num_mels: int = 128,
        fft_length: int = 1024,
        hop_length: int = 256,
        fmax_hz: float = 8000.0,
        filters: Sequence[int] = (16, 32, 64),
        gru_units: int = 0,
        mask_bins: int = 8,
        mask_frames: int = 8,
        noise_db: float = -TOP_DB,
        shift_seconds: float = 0.0,
        trainable_layers: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.sample_rate_hz = sample_rate_hz
        self.clip_seconds = clip_seconds
        self.num_mels = num_mels
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.fmax_hz = fmax_hz
        self.filters = tuple(filters)
        self.gru_units = gru_units
        self.mask_bins = mask_bins
        self.mask_frames = mask_frames
        self.noise_db = noise_db
        self.shift_seconds = shift_seconds
        self.num_samples = round(clip_seconds * sample_rate_hz)
        blocks = [_block(units, f"block_{i}") for i, units in enumerate(self.filters)]
        reader = _time_reader(gru_units) if gru_units else None
        self.num_frames = 1 + self.num_samples // hop_length
        spectrogram = tf.keras.Input([self.num_frames, num_mels, 2])
        x = spectrogram
        for block in blocks:
            x = block(x)
        x = reader(x) if reader else tf.keras.layers.GlobalAveragePooling2D()(x)
        self.network = tf.keras.Model(spectrogram, x, name="network")
        self._freeze([*blocks, reader] if reader else blocks)

    @property
    def output_dim(self) -> int:
        return self.gru_units or self.filters[-1]

    def content_spec(self) -> tf.TensorSpec:
        """<float32>[batch, frame, mel]."""
        return tf.TensorSpec([None, self.num_frames, self.num_mels], tf.float32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """16-bit PCM WAV bytes, any rate and number of channels, to one log-mel spectrogram.

        The spectrogram is made here rather than in `call`, so that training computes it once.

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          <float32>[batch, frame, mel] as of `log_mel`; zeros for "".
        """
        return self._spectrogram(self.read_clip(raw))

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Silence says nothing, and its spectrogram is that of no sound at all.
        decode = functools.partial(self._decode, audible=True)
        clip, unreadable = decode_readable(decode, raw, self._row())
        return self._spectrogram(clip), unreadable

    def read_clip(self, raw: tf.Tensor) -> tf.Tensor:
        """16-bit PCM WAV bytes to one clip.

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          <float32>[batch, sample] in -1..1 at `sample_rate_hz`; zeros for "" and after the sound.

        Raises:
          tf.errors.InvalidArgumentError: for anything else.
        """
        return decode_rows(self._decode, raw, self._row())

    def _row(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.num_samples], tf.float32)

    def _decode(self, data: tf.Tensor, *, audible: bool = False) -> tf.Tensor:
        """<string>[] to <float32>[sample]."""
        return read_sound(
            data,
            sample_rate_hz=self.sample_rate_hz,
            num_samples=self.num_samples,
            audible=audible,
        )

    def _spectrogram(self, clip: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, sample] to <float32>[batch, frame, mel]."""
        spectrogram = log_mel(
            clip,
            sample_rate_hz=self.sample_rate_hz,
            num_mels=self.num_mels,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            fmax_hz=self.fmax_hz,
        )
        return tf.ensure_shape(spectrogram, self.content_spec().shape)

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

    def _augment(self, spectrogram: tf.Tensor) -> tf.Tensor:
        # What is off adds no operation, as each operation changes the seeds of those after it.
        if self.shift_seconds > 0:
            # Never farther than asked; the small number makes up for rounding.
            hops = self.shift_seconds * self.sample_rate_hz / self.hop_length
            spectrogram = shift(spectrogram, int(hops + 1e-6))
        if self.noise_db > -TOP_DB:
            spectrogram = add_noise(spectrogram, self.noise_db)
        return hide_bands(spectrogram, bins=self.mask_bins, frames=self.mask_frames)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sample_rate_hz": self.sample_rate_hz,
            "clip_seconds": self.clip_seconds,
            "num_mels": self.num_mels,
            "fft_length": self.fft_length,
            "hop_length": self.hop_length,
            "fmax_hz": self.fmax_hz,
            "filters": list(self.filters),
            "gru_units": self.gru_units,
            "mask_bins": self.mask_bins,
            "mask_frames": self.mask_frames,
            "noise_db": self.noise_db,
            "shift_seconds": self.shift_seconds,
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
        sample_rate_hz=config.sample_rate_hz,
        clip_seconds=config.clip_seconds,
        num_mels=config.num_mels,
        fft_length=config.fft_length,
        hop_length=config.hop_length,
        fmax_hz=config.fmax_hz,
        filters=config.filters,
        gru_units=config.gru_units,
        mask_bins=config.mask_bins,
        mask_frames=config.mask_frames,
        noise_db=config.noise_db,
        shift_seconds=config.shift_seconds,
        trainable_layers=config.trainable_layers,
    )
    if assets is not None or config.weights == "random":
        return encoder
    path = pathlib.Path(config.weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"audio.weights: wanted 'random' or the path of a weights file; there is no file "
            f"{path}."
        )
    try:
        encoder.network.load_weights(path)
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"audio.weights: could not load {path} into this network ({reason}). Give a file "
            "saved from an encoder with the same audio.filters and audio.gru_units."
        ) from error
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
