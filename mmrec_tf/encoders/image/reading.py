"""Bytes of a JPEG or PNG to a square of pixels in the graph, as `mmrec_tf.media.image` makes them:
turned upright as EXIF says, and laid over white where they are transparent."""

from typing import NamedTuple

import tensorflow as tf

# In a graph, where a server's memory is at stake; `mmrec_tf.media.image.prepare` takes more.
MAX_BYTES = 16 * 2**20
MAX_PIXELS = 2**24
# A decoder makes room for what a chunk claims, and takes its time over compressed texts.
_MAX_CHUNKS = 4096
_MAX_TEXTS = 8
_MAX_SEGMENTS = 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_BYTES = 2**16
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4


class _Head(NamedTuple):
    """What stands in a file beside its pixels.

    Attributes:
      start: <int32>[], where Exif's data lies.
      size: <int32>[], 0 where there is none.
      transparent: <bool>[], whether pixels may be.
    """

    start: tf.Tensor
    size: tf.Tensor
    transparent: tf.Tensor


def read_picture(data: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes one picture, stretched to a square (bilinear, antialiased).

    Args:
      data: <string>[], bytes of a JPEG or PNG.
      size: of a side, in pixels.

    Returns:
      <uint8>[size, size, 3], red first.

    Raises:
      tf.errors.InvalidArgumentError: for what is neither, damaged, or too large.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, len(_PNG)), _PNG)
    checks = [
        tf.debugging.Assert(
            tf.strings.length(data) <= MAX_BYTES, [f"wanted at most {MAX_BYTES} bytes"]
        ),
        tf.debugging.Assert(tf.io.is_jpeg(data) | is_png, ["wanted the bytes of a JPEG or PNG"]),
    ]
    with tf.control_dependencies(checks):
        head = _Head(*tf.cond(is_png, lambda: _walk_png(data), lambda: _walk_jpeg(data)))
        height, width = tf.unstack(
            tf.cond(
                is_png,
                lambda: _png_shape(data),
                lambda: tf.io.extract_jpeg_shape(data, tf.int64)[:2],
            ),
            2,
        )
    # Each side first, as the product of two such numbers could overflow.
    fits = (height <= MAX_PIXELS) & (width <= MAX_PIXELS) & (height * width <= MAX_PIXELS)
    said = [f"wanted at most {MAX_PIXELS} pixels; got", height, width]
    # A few bytes may claim any size, so all headers are read before memory is asked for.
    with tf.control_dependencies([tf.debugging.Assert(fits, said)]):
        # Of a few bits or a palette, decode_png's fourth channel means nothing where there is none.
        pixels = tf.cond(
            head.transparent,
            lambda: _over_white(tf.io.decode_png(data, channels=4)),
            lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
        )
    pixels.set_shape([None, None, 3])
    pixels = tf.image.resize(pixels, [size, size], method="bilinear", antialias=True)
    pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)
    return tf.ensure_shape(_turn(pixels, _orientation(data, head)), [size, size, 3])


def _number(data: tf.Tensor, at: tf.Tensor, num_bytes: int) -> tf.Tensor:
    """A number of the file, most significant byte first, <int64>[]; 0 beyond the end."""
    found = tf.io.decode_raw(tf.strings.substr(data, at, num_bytes), tf.uint8, fixed_length=8)
    places = [256 ** (num_bytes - 1 - place) for place in range(num_bytes)]
    return tf.reduce_sum(tf.cast(found[:num_bytes], tf.int64) * tf.constant(places, tf.int64))


def _png_shape(data: tf.Tensor) -> tf.Tensor:
    """Height and width, <int64>[2] (PNG specification, 11.2.2)."""
    return tf.stack([_number(data, 20, 4), _number(data, 16, 4)])


def _walk_png(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The parts of `_Head`; fails for chunks that do not fit into the file."""
    size = tf.strings.length(data)

    def go_on(at: tf.Tensor, count: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at >= 0) & (at + 12 <= size) & (count < _MAX_CHUNKS)

    def step(at: tf.Tensor, count: tf.Tensor, texts: tf.Tensor, *exif: tf.Tensor) -> tuple:
        length, kind = _number(data, at, 4), tf.strings.substr(data, at + 4, 4)
        fits = tf.cast(at, tf.int64) + 12 + length <= tf.cast(size, tf.int64)
        length = tf.where(fits, tf.cast(length, tf.int32), 0)
        here = tf.equal(kind, b"eXIf") & fits
        # -1 at a chunk that does not fit, -2 at the end.
        after = tf.where(tf.equal(kind, b"IEND"), -2, at + 12 + length)
        return (
            tf.where(fits, after, -1),
            count + 1,
            texts + tf.cast(tf.equal(kind, b"zTXt") | tf.equal(kind, b"iTXt"), tf.int32),
            tf.where(here, at + 8, exif[0]),
            tf.where(here, length, exif[1]),
            exif[2] | tf.equal(kind, b"tRNS"),
        )

    # The type of color has a bit that says whether there is a fourth, or second, channel.
    alpha = tf.bitwise.bitwise_and(_number(data, 25, 1), 4) > 0
    start = (tf.constant(len(_PNG)), *(tf.constant(0) for _ in range(4)), alpha)
    end, _, texts, *head = tf.while_loop(go_on, step, start)
    checks = [
        tf.debugging.Assert(tf.equal(end, -2), ["wanted a PNG with all its chunks up to IEND"]),
        tf.debugging.Assert(
            texts <= _MAX_TEXTS, [f"wanted at most {_MAX_TEXTS} texts; got", texts]
        ),
    ]
    with tf.control_dependencies(checks):
        return tuple(map(tf.identity, head))


def _walk_jpeg(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The parts of `_Head`, of the first segment of Exif."""
    size = tf.strings.length(data)

    def go_on(at: tf.Tensor, count: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at >= 0) & (at + 4 <= size) & (count < _MAX_SEGMENTS)

    def step(at: tf.Tensor, count: tf.Tensor, *_: tf.Tensor) -> tuple:
        marker = tf.cast(_number(data, at, 2), tf.int32)
        length = tf.cast(_number(data, at + 2, 2), tf.int32)
        here = tf.equal(marker, 0xFFE1) & tf.equal(
            tf.strings.substr(data, at + 4, tf.minimum(size - at - 4, 6)), b"Exif\0\0"
        )
        # Behind the start of the scan, or what is no marker, no segment follows.
        last = here | tf.equal(marker, 0xFFDA) | (marker < 0xFF00)
        after = tf.where(tf.equal(marker, 0xFFFF), at + 1, at + 2 + length)
        found = tf.where(here, tf.clip_by_value(length - 8, 0, size - at - 10), 0)
        return tf.where(last, -1, after), count + 1, at + 10, found

    start = (tf.constant(2), *(tf.constant(0) for _ in range(3)))
    _, _, at, length = tf.while_loop(go_on, step, start)
    return at, length, tf.constant(False)


def _orientation(data: tf.Tensor, head: _Head) -> tf.Tensor:
    """Exif's orientation <int32>[], 1 to 8; 1, upright, where there is none or it is damaged."""
    held = tf.strings.substr(data, head.start, tf.minimum(head.size, _EXIF_BYTES))
    few = tf.io.decode_raw(held, tf.uint8)
    known = tf.equal(tf.strings.substr(held, 0, 4), b"MM\0*")
    big = known
    known |= tf.equal(tf.strings.substr(held, 0, 4), b"II*\0")
    # Zeros behind it stand for what is cut off.
    numbers = tf.pad(tf.cast(few, tf.int64), [[0, 16]])

    def number(part: tf.Tensor) -> tf.Tensor:
        """<int64>[..., byte] in the order that the header names."""
        part = tf.where(big, part, tf.reverse(part, [-1]))
        places = [256 ** (part.shape[-1] - 1 - place) for place in range(part.shape[-1])]
        return tf.reduce_sum(part * tf.constant(places, tf.int64), axis=-1)

    size = tf.size(few, tf.int64)
    at = tf.minimum(number(tf.ensure_shape(numbers[4:8], [4])), size)
    count = number(tf.ensure_shape(numbers[at : at + 2], [2]))
    whole = tf.clip_by_value((size - at - 2) // 12, 0, count)
    entries = tf.reshape(numbers[at + 2 : at + 2 + 12 * whole], [-1, 12])
    kind, amount = number(entries[:, 2:4]), number(entries[:, 4:8])
    value = tf.where(tf.equal(kind, _SHORT), number(entries[:, 8:10]), number(entries[:, 8:12]))
    sound = (tf.equal(kind, _SHORT) | tf.equal(kind, _LONG)) & tf.equal(amount, 1)
    value = tf.where(sound & (value >= 1) & (value <= 8), value, 1)
    # Of an entry that stands there twice the last one counts.
    found = tf.boolean_mask(value, tf.equal(number(entries[:, :2]), _ORIENTATION))
    last = tf.concat([tf.ones([1], tf.int64), found], axis=0)[-1]
    return tf.where(known, tf.cast(last, tf.int32), 1)


def _over_white(pixels: tf.Tensor) -> tf.Tensor:
    """<uint8>[height, width, 4] to <uint8>[height, width, 3]."""

    def lay() -> tf.Tensor:
        # 16 bits hold the sum of both products, and take half the memory of floats.
        color, alpha = tf.cast(pixels[:, :, :3], tf.uint16), tf.cast(pixels[:, :, 3:], tf.uint16)
        white = tf.constant(255, tf.uint16)
        return tf.cast((color * alpha + white * (white - alpha) + 127) // white, tf.uint8)

    opaque = tf.reduce_all(tf.equal(pixels[:, :, 3], 255))
    return tf.cond(opaque, lambda: pixels[:, :, :3], lay)


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Upright, by what Exif says of row 0 and column 0 (Exif 2.3, tag 0x0112); of a square."""

    def among(*numbers: int) -> tf.Tensor:
        return tf.reduce_any(tf.equal(orientation, numbers))

    pixels = tf.where(orientation >= 5, tf.transpose(pixels, [1, 0, 2]), pixels)
    pixels = tf.where(among(2, 3, 6, 7), tf.reverse(pixels, [1]), pixels)
    return tf.where(among(3, 4, 7, 8), tf.reverse(pixels, [0]), pixels)
