"""Bytes of a WAV file to a clip of one length in the graph, by the rules of `mmrec_tf.media.audio`:
channels are mixed alike, and of a longer sound the loudest part is heard."""

import tensorflow as tf

from mmrec_tf.encoders.audio.spectrogram import resample
from mmrec_tf.media.audio import MAX_SECONDS, MIN_SECONDS, OPPOSITE, QUIET
from mmrec_tf.media.audio_files import BLOCKS_PER_SECOND, MAX_RATE_HZ

# In a graph, where a server's memory is at stake; `mmrec_tf.media.audio.prepare` takes more.
MAX_BYTES = 16 * 2**20
_MAX_CHUNKS = 4096
# What `tf.audio.decode_wav` passes over before the format.
_PASSED_OVER = (b"JUNK", b"bext", b"iXML", b"qlty", b"mext", b"levl", b"link", b"axml")
_PCM, _BITS = 1, 16


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
    # Where the decoder fails, TensorFlow logs a line with bytes of the file: a server's log would
    # grow with what anyone sends.
    whole = tf.debugging.Assert(_is_wav(data), ["wanted the bytes of a 16-bit PCM WAV file"])
    with tf.control_dependencies([few, whole]):
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


def _is_wav(data: tf.Tensor) -> tf.Tensor:
    """Whether `tf.audio.decode_wav` reads it, <bool>[]: by its chunks, without its samples."""
    size = tf.cast(tf.strings.length(data), tf.int64)

    def text(at: tf.Tensor | int) -> tf.Tensor:
        return tf.strings.substr(data, tf.minimum(tf.cast(at, tf.int64), size), 4)

    def number(at: tf.Tensor, num_bytes: int) -> tf.Tensor:
        """The least significant byte first, <int64>[]; what lies beyond the end is 0."""
        found = tf.strings.substr(data, tf.minimum(at, size), num_bytes)
        found = tf.io.decode_raw(found, tf.uint8, fixed_length=4)[:num_bytes]
        places = tf.constant([256**place for place in range(num_bytes)], tf.int64)
        return tf.reduce_sum(tf.cast(found, tf.int64) * places)

    def go_on(
        at: tf.Tensor, count: tf.Tensor, good: tf.Tensor, frame: tf.Tensor, _: tf.Tensor
    ) -> tf.Tensor:
        return good & ((frame == 0) | (at < size)) & (count < _MAX_CHUNKS)

    def step(
        at: tf.Tensor, count: tf.Tensor, good: tf.Tensor, frame: tf.Tensor, heard: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        kind, length, here = text(at), number(at + 4, 4), at + 8
        # The chunk of the format: code, channels, rate, bytes a second and a frame, bits.
        width = number(here + 12, 2)
        known = (
            ((length == 16) | (length == 18))
            & (here + 16 <= size)
            & (number(here, 2) == _PCM)
            & (number(here + 14, 2) == _BITS)
            & (width > 0)
            & (width == number(here + 2, 2) * _BITS // 8)
            & (number(here + 8, 4) == width * number(here + 4, 4))
        )
        is_format = tf.equal(kind, b"fmt ")
        passed = tf.reduce_any(tf.equal(kind, _PASSED_OVER)) & (here + length <= size)
        before = frame == 0
        # Whole frames are read of it, wherever it ends.
        is_data = tf.equal(kind, b"data")
        samples = length // tf.maximum(frame, 1) * frame
        sound = ~is_data | (~heard & (here + samples <= size))
        fits = (here <= size) & tf.where(
            before, tf.where(is_format, known, passed), sound & (length < 2**31)
        )
        return (
            here + tf.where(~before & is_data, samples, length),
            count + 1,
            fits,
            tf.where(before & is_format, width, frame),
            heard | (~before & is_data),
        )

    riff = tf.equal(text(0), b"RIFF") & tf.equal(text(8), b"WAVE")
    zero = tf.constant(0, tf.int64)
    start = (tf.constant(12, tf.int64), tf.constant(0), riff, zero, tf.constant(False))
    at, count, good, _, heard = tf.while_loop(go_on, step, start)
    # What follows so many is padding, each eight zeros of which are a chunk; the decoder tells.
    return good & heard & ((at >= size) | (count >= _MAX_CHUNKS))


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
