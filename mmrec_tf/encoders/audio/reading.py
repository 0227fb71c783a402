"""Bytes of a WAV file to a clip of one length in the graph, by the rules of `mmrec_tf.media.audio`:
channels are mixed alike, and of a longer sound the loudest part is heard."""

import tensorflow as tf

from mmrec_tf.encoders.audio.spectrogram import resample
from mmrec_tf.media.audio import (
    BLOCKS_PER_SECOND,
    MAX_RATE_HZ,
    MAX_SECONDS,
    MIN_SECONDS,
    OPPOSITE,
    QUIET,
)

# In a graph, where a server's memory is at stake; `mmrec_tf.media.audio.prepare` takes more.
MAX_BYTES = 16 * 2**20


def read_sound(
    data: tf.Tensor, *, sample_rate_hz: int, num_samples: int, audible: bool = False
) -> tf.Tensor:
    """Decodes the loudest part of one sound.

    Args:
      data: <string>[], bytes of a 16-bit PCM WAV file, at any rate and with any channels.
      sample_rate_hz: the rate wanted.
      num_samples: the length wanted.
      audible: whether to fail for a sound that preparation refuses, as too short or silent.

    Returns:
      <float32>[num_samples] in -1..1, with zeros behind a shorter sound.

    Raises:
      tf.errors.InvalidArgumentError: for anything else.
    """
    few = tf.debugging.Assert(
        tf.strings.length(data) <= MAX_BYTES, [f"wanted at most {MAX_BYTES} bytes"]
    )
    with tf.control_dependencies([few]):
        channels, rate_hz = tf.audio.decode_wav(data)
    # A header may claim any rate; beyond these no sound is recorded.
    rate_hz = tf.clip_by_value(rate_hz, 1000, MAX_RATE_HZ)
    waveform = _mix(channels)
    if audible:
        apart = tf.reduce_max(waveform) - tf.reduce_min(waveform)
        length = tf.cast(tf.shape(waveform)[0], tf.float32)
        long = length >= MIN_SECONDS * tf.cast(rate_hz, tf.float32)
        checks = [
            tf.debugging.Assert(long, [f"wanted at least {MIN_SECONDS} s"]),
            tf.debugging.Assert(apart >= QUIET, ["wanted a sound; got silence"]),
        ]
        with tf.control_dependencies(checks):
            waveform = tf.identity(waveform)
    # What preparation keeps of it, at the file's rate as there; and what of that is heard.
    kept = tf.cast(tf.round(MAX_SECONDS * tf.cast(rate_hz, tf.float32)), tf.int32)
    wanted = tf.cast(
        tf.math.ceil(num_samples / sample_rate_hz * tf.cast(rate_hz, tf.float32)), tf.int32
    )
    waveform = _loudest(waveform, rate_hz, tf.maximum(kept, wanted))
    waveform = tf.cond(
        tf.equal(rate_hz, sample_rate_hz),
        lambda: waveform,
        lambda: resample(waveform, rate_hz, sample_rate_hz),
    )
    clip = _loudest(waveform, tf.constant(sample_rate_hz), tf.constant(num_samples))
    return tf.pad(clip, [[0, num_samples - tf.shape(clip)[0]]])


def _mix(channels: tf.Tensor) -> tf.Tensor:
    """<float32>[sample, channel] to <float32>[sample]: the mean of the channels, or the loudest
    where they cancel each other out."""
    mean = tf.reduce_mean(channels, axis=1)
    powers = tf.math.reduce_variance(channels, axis=0)
    opposite = tf.math.reduce_variance(mean) < OPPOSITE * tf.reduce_mean(powers)
    return tf.where(opposite, tf.gather(channels, tf.argmax(powers), axis=1), mean)


def _loudest(waveform: tf.Tensor, rate_hz: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """The earliest part with the most energy, to a tenth of a second.

    Args:
      waveform: <float32>[sample].
      rate_hz: <int32>[].
      wanted: <int32>[], samples of the part.

    Returns:
      <float32>[sample], all of a sound that is no longer.
    """
    samples = tf.shape(waveform)[0]

    def part() -> tf.Tensor:
        block = rate_hz // BLOCKS_PER_SECOND
        padded = tf.pad(tf.cast(waveform, tf.float64), [[0, -samples % block]])
        blocks = tf.reshape(padded, [-1, block])
        # The last one may be shorter; what is constant in a block is no sound.
        length = tf.clip_by_value(samples - block * tf.range(tf.shape(blocks)[0]), 0, block)
        total = tf.reduce_sum(blocks, axis=1)
        energy = tf.reduce_sum(blocks**2, axis=1) - total**2 / tf.cast(length, tf.float64)
        until = tf.concat([tf.zeros([1], tf.float64), tf.cumsum(energy)], axis=0)
        count = tf.maximum(1, tf.cast(tf.round(wanted / block), tf.int32))
        energies = until[count:] - until[:-count]
        # Sums of the same numbers differ in their last digits.
        most = energies >= tf.reduce_max(energies) * (1 - 1e-9)
        first = tf.argmax(tf.cast(most, tf.int32), output_type=tf.int32)
        start = tf.minimum(first * block, samples - wanted)
        return waveform[start : start + wanted]

    return tf.cond(samples > wanted, part, lambda: waveform)
