"""What all families of sounds share: WAV bytes to one clip, or to its spectrogram."""

import functools
import pathlib
from typing import Any

import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio.augmentation import add_noise, hide_bands, shift
from mmrec_tf.encoders.audio.reading import read_sound
from mmrec_tf.encoders.audio.spectrogram import TOP_DB, log_mel
from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.errors import ConfigError


class ClipEncoder(ModalityEncoder):
    """Sounds as clips of one length; a family says in `of_clip` what is kept of them, and in `call`
    what becomes of that.

    Args:
      sample_rate_hz: the rate that sounds are brought to.
      clip_seconds: of longer sounds the loudest part of this length is heard, to a tenth of a
        second; shorter ones are padded with zeros.
      trainable_layers: as of `ModalityEncoder`.
    """

    def __init__(
        self,
        *,
        sample_rate_hz: int = 16000,
        clip_seconds: float = 3.0,
        trainable_layers: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.sample_rate_hz = sample_rate_hz
        self.clip_seconds = clip_seconds
        self.num_samples = round(clip_seconds * sample_rate_hz)

    def of_clip(self, clip: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, sample] to content as `content_spec` says; the clip itself here."""
        return tf.ensure_shape(clip, self.content_spec().shape)

    def content_spec(self) -> tf.TensorSpec:
        """<float32>[batch, sample]."""
        return tf.TensorSpec([None, self.num_samples], tf.float32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """16-bit PCM WAV bytes, any rate and number of channels, to what `of_clip` keeps.

        Args:
          raw: <string>[batch]; "" where the item lacks the modality.

        Returns:
          As of `content_spec`; zeros for "".
        """
        return self.of_clip(self.read_clip(raw))

    def preprocess_readable(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Silence says nothing, and its spectrogram is that of no sound at all.
        decode = functools.partial(self._decode, audible=True)
        clip, unreadable = decode_readable(decode, raw, self._row())
        return self.of_clip(clip), unreadable

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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sample_rate_hz": self.sample_rate_hz,
            "clip_seconds": self.clip_seconds,
        }


class SpectrogramEncoder(ClipEncoder):
    """Sounds as log-mel spectrograms, changed at random in training.

    Args:
      sample_rate_hz, clip_seconds: as of `ClipEncoder`.
      num_mels: bands up to `fmax_hz`.
      fft_length: samples of a window.
      hop_length: samples from one window to the next.
      fmax_hz: upper end of the highest band.
      mask_bins: widest band of frequencies hidden in training (SpecAugment, Park et al. 2019).
      mask_frames: longest stretch of frames hidden in training.
      noise_db: loudest noise added in training, see `add_noise`; -80, the floor, for none.
      shift_seconds: farthest move of a clip in training.
      trainable_layers: as of `ModalityEncoder`.
    """

    # The two masks count as ordinary settings: they are on by default, and vectors cached under
    # their fingerprint stay valid.
    augmentation = ("noise_db", "shift_seconds")

    def __init__(
        self,
        *,
        num_mels: int = 128,
        fft_length: int = 1024,
        hop_length: int = 256,
        fmax_hz: float = 8000.0,
        mask_bins: int = 8,
        mask_frames: int = 8,
        noise_db: float = -TOP_DB,
        shift_seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_mels = num_mels
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.fmax_hz = fmax_hz
        self.mask_bins = mask_bins
        self.mask_frames = mask_frames
        self.noise_db = noise_db
        self.shift_seconds = shift_seconds
        self.num_frames = 1 + self.num_samples // hop_length

    def content_spec(self) -> tf.TensorSpec:
        """<float32>[batch, frame, mel]."""
        return tf.TensorSpec([None, self.num_frames, self.num_mels], tf.float32)

    def of_clip(self, clip: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, sample] to <float32>[batch, frame, mel] as of `log_mel`: here rather
        than in `call`, so that training computes it once."""
        spectrogram = log_mel(
            clip,
            sample_rate_hz=self.sample_rate_hz,
            num_mels=self.num_mels,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            fmax_hz=self.fmax_hz,
        )
        return tf.ensure_shape(spectrogram, self.content_spec().shape)

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
            "num_mels": self.num_mels,
            "fft_length": self.fft_length,
            "hop_length": self.hop_length,
            "fmax_hz": self.fmax_hz,
            "mask_bins": self.mask_bins,
            "mask_frames": self.mask_frames,
            "noise_db": self.noise_db,
            "shift_seconds": self.shift_seconds,
        }


def spectrogram_settings(config: AudioConfig) -> dict[str, Any]:
    """The arguments of `SpectrogramEncoder` that a config gives, by the same names."""
    names = (
        *("sample_rate_hz", "clip_seconds", "num_mels", "fft_length", "hop_length", "fmax_hz"),
        *("mask_bins", "mask_frames", "noise_db", "shift_seconds", "trainable_layers"),
    )
    return {name: getattr(config, name) for name in names}


def load_weights(network: tf.keras.Model, weights: str, shaped_by: str) -> None:
    """Reads a weights file into a network; "random" leaves it as it is.

    Args:
      network: whose `save_weights` wrote the file.
      weights: the setting `audio.weights`.
      shaped_by: the settings that have to be the same, for messages.

    Raises:
      ConfigError: when the file cannot be read or does not fit.
    """
    if weights == "random":
        return
    path = pathlib.Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"audio.weights: wanted 'random' or the path of a weights file; there is no file "
            f"{path}."
        )
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"audio.weights: could not load {path} into this network ({reason}). Give a file "
            f"saved from an encoder with the same {shaped_by}."
        ) from error


def mean_of_sound(frames: tf.Tensor, clip: tf.Tensor) -> tf.Tensor:
    """The mean over the frames that begin before a clip's sound ends; of silence the first frame.

    Args:
      frames: <float32>[batch, frame, features], spread evenly over the clip.
      clip: <float32>[batch, sample], zeros behind the sound.

    Returns:
      <float32>[batch, features].
    """
    count, samples = tf.shape(frames)[1], tf.shape(clip)[1]
    end = tf.reduce_max(tf.where(clip != 0, tf.range(samples), 0), axis=1)
    start = tf.range(count) * (samples // tf.maximum(count, 1))
    heard = tf.cast(start[tf.newaxis] <= end[:, tf.newaxis], frames.dtype)[:, :, tf.newaxis]
    return tf.reduce_sum(frames * heard, axis=1) / tf.reduce_sum(heard, axis=1)
