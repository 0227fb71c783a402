"""Spectrograms changed at random, each in its own way, while an encoder trains."""

import math

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.encoders.audio.spectrogram import TOP_DB


def shift(spectrogram: tf.Tensor, most_frames: int) -> tf.Tensor:
    """Moves each clip in time by up to `most_frames` in either direction; silence moves in.

    Args:
      spectrogram: <float32>[batch, frame, mel], 0 being silence.
      most_frames: the farthest move.

    Returns:
      The same shape.
    """
    frames = spectrogram.shape[1]
    by = draws.uniform([tf.shape(spectrogram)[0], 1], -most_frames, most_frames + 1, dtype=tf.int32)
    source = tf.range(frames) - by
    moved = tf.gather(spectrogram, tf.clip_by_value(source, 0, frames - 1), batch_dims=1)
    inside = (source >= 0) & (source < frames)
    return tf.where(inside[:, :, tf.newaxis], moved, 0.0)


def add_noise(spectrogram: tf.Tensor, loudest_db: float, *, top_db: float = TOP_DB) -> tf.Tensor:
    """Adds white noise to each clip, at a level of its own between the floor and `loudest_db`.

    Sound and noise are independent, so their powers add up: the expectation of |s + n|^2 is
    |s|^2 + |n|^2. White noise is equally strong in all bands, which have unit area
    (`mel_weights`). That expectation is what is added, without the noise's own flicker.

    Args:
      spectrogram: <float32>[batch, frame, mel] as of `log_mel`.
      loudest_db: the loudest noise, in decibels relative to the clip's own peak.
      top_db: how far below the peak the floor lies, in decibels.

    Returns:
      The same shape, relative to the peak of sound and noise together, in 0..1.
    """
    level = draws.uniform([tf.shape(spectrogram)[0], 1, 1], -top_db, loudest_db)
    noise = 10 ** (level / 10)
    power = 10 ** ((spectrogram - 1) * top_db / 10)
    decibels = 10 / math.log(10) * tf.math.log((power + noise) / (1 + noise))
    return tf.clip_by_value(decibels / top_db + 1, 0, 1)


def hide_bands(spectrogram: tf.Tensor, *, bins: int, frames: int) -> tf.Tensor:
    """Hides one band of frequencies and one stretch of frames, drawn for each clip anew.

    Args:
      spectrogram: <float32>[batch, frame, mel], 0 being silence.
      bins: widest band hidden.
      frames: longest stretch hidden.
    """
    # A mask must leave something, and tensorflow-io draws widths below its argument.
    bins = min(bins, spectrogram.shape[2] - 1)
    frames = min(frames, spectrogram.shape[1] - 1)
    if bins < 1 and frames < 1:
        return spectrogram
    # Its masks are plain TensorFlow; imported here, so that inference never needs the package.
    import tensorflow_io as tfio

    def hide(clip: tf.Tensor) -> tf.Tensor:
        if bins > 0:
            clip = tfio.audio.freq_mask(clip, bins + 1)
        if frames > 0:
            clip = tfio.audio.time_mask(clip, frames + 1)
        return clip

    # One clip after the other: iterations at the same time would share out their draws by chance.
    return tf.map_fn(hide, spectrogram, parallel_iterations=1)
