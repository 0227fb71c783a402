"""Waveforms to log-mel spectrograms in the graph."""

import functools
import math

import numpy as np
import tensorflow as tf

# From a clip's peak, 1 in its spectrogram, down to the floor, 0.
TOP_DB = 80.0


def mel_spectrogram(
    waveform: tf.Tensor,
    *,
    sample_rate_hz: int,
    num_mels: int = 128,
    fft_length: int = 1024,
    hop_length: int = 256,
    fmax_hz: float = 8000.0,
) -> tf.Tensor:
    """The power in mel bands, equal to `librosa.feature.melspectrogram` with its defaults.

    Those are a periodic Hann window, frames centered with zeros beyond both ends, and Slaney's
    bands (`mel_weights`).

    Args:
      waveform: <float32>[batch, sample].

    Returns:
      <float32>[batch, frame, mel], with 1 + samples // hop_length frames.
    """
    half = fft_length // 2
    padded = tf.pad(waveform, [[0, 0], [half, half]])
    spectrum = tf.signal.stft(padded, fft_length, hop_length, fft_length=fft_length)
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    weights = mel_weights(sample_rate_hz, num_mels, fft_length, fmax_hz)
    return tf.tensordot(power, tf.constant(weights), 1)


def log_mel(
    waveform: tf.Tensor,
    *,
    sample_rate_hz: int,
    num_mels: int = 128,
    fft_length: int = 1024,
    hop_length: int = 256,
    fmax_hz: float = 8000.0,
    top_db: float = TOP_DB,
) -> tf.Tensor:
    """`mel_spectrogram` in decibels below the clip's own peak, scaled to 0..1.

    As `librosa.power_to_db(power, ref=np.max, top_db=80) / 80 + 1`, but zeros for a silent clip.

    Args:
      waveform: <float32>[batch, sample].
      top_db: how far below the peak 0 lies, in decibels.

    Returns:
      <float32>[batch, frame, mel].
    """
    power = mel_spectrogram(
        waveform,
        sample_rate_hz=sample_rate_hz,
        num_mels=num_mels,
        fft_length=fft_length,
        hop_length=hop_length,
        fmax_hz=fmax_hz,
    )
    floor = 1e-10
    peak = tf.reduce_max(power, axis=[1, 2], keepdims=True)
    ratio = tf.maximum(power, floor) / tf.maximum(peak, floor)
    decibels = 10 / math.log(10) * tf.math.log(ratio)
    return tf.where(peak > floor, tf.maximum(decibels / top_db + 1, 0), 0)


def mfcc(spectrogram: tf.Tensor, num_mfcc: int, *, top_db: float = TOP_DB) -> tf.Tensor:
    """Mel-frequency cepstral coefficients (Davis and Mermelstein 1980): the orthonormal cosine
    transform of the bands' decibels.

    Equal to `librosa.feature.mfcc(S=librosa.power_to_db(power, ref=np.max), n_mfcc=num_mfcc)`.

    Args:
      spectrogram: <float32>[batch, frame, mel] as of `log_mel`.
      num_mfcc: how many are kept, the slowest first.

    Returns:
      <float32>[batch, frame, num_mfcc].
    """
    num_mels = spectrogram.shape[-1]
    place = np.arange(num_mels)[:, np.newaxis]
    basis = np.cos(np.pi * (2 * place + 1) * np.arange(num_mfcc) / (2 * num_mels))
    basis *= np.where(np.arange(num_mfcc) == 0, math.sqrt(1 / num_mels), math.sqrt(2 / num_mels))
    return tf.tensordot((spectrogram - 1) * top_db, tf.constant(basis, tf.float32), 1)


@functools.cache
def mel_weights(sample_rate_hz: int, num_mels: int, fft_length: int, fmax_hz: float) -> np.ndarray:
    """Triangular bands, equally spaced on Slaney's mel scale, each of unit area.

    The scale is linear up to 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for each
    factor of 6.4); from Slaney's Auditory Toolbox (1998), as in `librosa.filters.mel`.

    Returns:
      <float32>[bin, mel], where bin counts 1 + fft_length // 2 frequencies up to the half rate.
    """
    linear, corner, step = 200 / 3, 1000.0, math.log(6.4) / 27

    def to_mel(hz: float) -> float:
        return hz / linear if hz < corner else corner / linear + math.log(hz / corner) / step

    mels = np.linspace(0, to_mel(fmax_hz), num_mels + 2)
    edges = np.where(
        mels < corner / linear, mels * linear, corner * np.exp(step * (mels - corner / linear))
    )
    bins = np.linspace(0, sample_rate_hz / 2, 1 + fft_length // 2)[:, np.newaxis]
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - low) / (center - low)
    falling = (high - bins) / (high - center)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)).astype(np.float32)


def resample(waveform: tf.Tensor, rate_hz: tf.Tensor, sample_rate_hz: int) -> tf.Tensor:
    """Changes the rate by cutting or extending the spectrum, an ideal low-pass filter.

    Args:
      waveform: <float32>[sample] at `rate_hz`.
      rate_hz: <int32>[].
      sample_rate_hz: the rate wanted.

    Returns:
      <float32>[sample'] at `sample_rate_hz`, as long as the sound.
    """
    # Whole seconds have whole numbers of samples at both rates, so nothing drifts, and a spare
    # second keeps the end from ringing into the beginning.
    samples = tf.shape(waveform)[0]
    seconds = (samples + rate_hz - 1) // rate_hz + 1
    spectrum = tf.signal.rfft(tf.pad(waveform, [[0, seconds * rate_hz - samples]]))
    length = seconds * sample_rate_hz
    bins = tf.minimum(tf.shape(spectrum)[0], length // 2 + 1)
    spectrum = tf.pad(spectrum[:bins], [[0, length // 2 + 1 - bins]])
    ratio = sample_rate_hz / tf.cast(rate_hz, tf.float64)
    end = tf.cast(tf.math.ceil(tf.cast(samples, tf.float64) * ratio), tf.int32)
    return (tf.signal.irfft(spectrum, [length]) * tf.cast(ratio, tf.float32))[:end]
