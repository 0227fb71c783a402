"""Pictures of any kind -> JPEG bytes for the graph, on the host, once."""

import io
import os
import struct
import warnings
from typing import Any

import numpy as np
import PIL.Image

from mmrec_tf.errors import MediaError
from mmrec_tf.media.image_files import (
    JPEG,
    JPEG_2000,
    ORIENTATION,
    PNG,
    TIFF,
    exif_orientation,
    is_cut_off,
    is_one_baseline_scan,
    is_whole_plain_tiff,
    without_texts,
)

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
JPEG_QUALITY = 95

# What Pillow may open: nothing that starts another program, as its reader of PostScript does, and
# nothing without a signature, for which any bytes would do.
_FORMATS = (
    *("AVIF", "BMP", "CUR", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM"),
    *("PSD", "QOI", "SGI", "TIFF", "WEBP"),
)
# OpenCV 4.11 needs twice the memory for these, multiplies a TIFF's transparency in twice, and does
# not know PNG's transparent color. Of damaged ones it makes a picture of whatever memory holds, or
# ends the process.
_PILLOW_ONLY = ("JPEG2000", "PNG", "TIFF")
_FAX = ("tiff_ccitt", "group3", "group4")  # Pillow fills what is damaged with what memory holds
_OS2_HEADER_BYTES = 12
_SPARE = 2  # a decoder that shrinks leaves this much, so that the last step still averages


def prepare(data: bytes, *, max_side: int = 320) -> bytes:
    """Makes any picture that OpenCV or Pillow reads into JPEG bytes for the graph.

    A baseline gray or RGB JPEG in one scan, without EXIF rotation and within `max_side`, goes
    through unchanged, so that preparation and serving see the same bytes. Everything else is
    decoded, turned upright, laid over white where it is transparent, reduced to 8 bits, shrunk so
    that the longest side is at most `max_side` pixels, and written as JPEG of quality 95. Of an
    animation the first frame is taken, of an icon the largest picture.

    Args:
      data: the bytes of a file.
      max_side: the longest side allowed, in pixels.

    Returns:
      JPEG bytes that `tf.io.decode_image` reads.

    Raises:
      MediaError: with a short reason when the bytes are empty, too large, damaged, cut off or
        not a picture.
    """
    if not data:
        raise MediaError("empty file")
    if len(data) > MAX_BYTES:
        raise MediaError(f"too many bytes ({len(data):,}; at most {MAX_BYTES:,})")
    if is_cut_off(data):
        raise MediaError("damaged or cut off")
    with warnings.catch_warnings():
        # Pillow warns of every oddity that it knows how to live with.
        warnings.simplefilter("ignore")
        picture = _open(data)
        if picture is not None and _may_stay(picture, data, max_side):
            return data
        return _encode(_decode(data, picture, max_side))


def encode(pixels: np.ndarray, *, max_side: int) -> bytes:
    """Writes pixels as `prepare` writes a picture's.

    Args:
      pixels: <number>[height, width, 1, 3 or 4], blue first; may be overwritten.
      max_side: the longest side allowed, in pixels.

    Returns:
      JPEG bytes.
    """
    return _encode(_fit(pixels, max_side))


def _open(data: bytes) -> PIL.Image.Image | None:
    """The picture with nothing but its header read; None where Pillow does not know it."""
    try:
        picture = PIL.Image.open(io.BytesIO(without_texts(data)), formats=_FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise MediaError(f"too many pixels (at most {MAX_PIXELS:,})") from error
    except Exception:  # damaged headers raise anything: ValueError, SyntaxError, struct.error, ...
        return None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise MediaError(f"too many pixels ({width} x {height}; at most {MAX_PIXELS:,})")
    return picture


def _may_stay(picture: PIL.Image.Image, data: bytes, max_side: int) -> bool:
    """Whether the graph can have these very bytes."""
    if (
        picture.format not in ("JPEG", "MPO")
        or picture.mode not in ("L", "RGB")
        or max(picture.size) > max_side
        or _orientation(picture) != 1
        or not is_one_baseline_scan(data)
    ):
        return False
    try:
        picture.load()
    except Exception:  # OSError, SyntaxError, ...
        return False
    return True


def _orientation(picture: PIL.Image.Image) -> int:
    """Exif's orientation, 1 to 8; 1, upright, where there is none or it is damaged.

    That of XMP, which Pillow would take for want of Exif's, shows in no browser.
    """
    if picture.format != "TIFF":
        return exif_orientation(picture.info.get("exif", b""))
    orientation = picture.getexif().get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _decode(data: bytes, picture: PIL.Image.Image | None, max_side: int) -> np.ndarray:
    """<uint8>[height, width, 1 or 3], blue first as OpenCV has it, upright and small enough."""
    tried: list[str] = []
    try:
        for decoder in _decoders(data, picture):
            if decoder == "opencv":
                tried.append(f"opencv {_opencv().__version__}")
                pixels = _decode_with_opencv(data, picture, max_side)
            else:
                tried.append(f"pillow {PIL.__version__}")
                pixels = _decode_with_pillow(picture, max_side)
            if pixels is not None:
                return pixels
        known = picture is not None or data.startswith((PNG, *JPEG_2000))
        raise MediaError("damaged or cut off" if known else "not a picture")
    except MediaError as error:
        error.decoder = ", ".join(tried)
        raise


def _decoders(data: bytes, picture: PIL.Image.Image | None) -> tuple[str, ...]:
    """What may decode a picture, the first choice first."""
    if picture is not None and picture.format in _PILLOW_ONLY:
        if picture.info.get("compression") in _FAX:
            raise MediaError("fax in a TIFF (its damage cannot be seen; save it as PNG)")
        return ("pillow",)
    if data.startswith((PNG, *JPEG_2000)):
        return ()
    if data.startswith(TIFF) and not is_whole_plain_tiff(data):
        raise MediaError("TIFF of an unknown form (damaged, or compressed floats; save it as PNG)")
    if data.startswith(b"BM") and data[14:18] == struct.pack("<I", _OS2_HEADER_BYTES):
        return ("pillow", "opencv")  # OpenCV 4.11 takes the palette's three bytes for four
    return ("opencv", "pillow")


def _opencv() -> Any:
    # OpenCV reads both once, when it is loaded.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    return cv2


def _decode_with_opencv(
    data: bytes, picture: PIL.Image.Image | None, max_side: int
) -> np.ndarray | None:
    cv2 = _opencv()
    mode = cv2.IMREAD_UNCHANGED  # no other keeps transparency
    if data.startswith(JPEG):
        mode = _reduction(picture, max_side) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        return None
    if pixels is None or pixels.size == 0:
        return None
    pixels = _fit(pixels, max_side)
    if picture is None or picture.format == "TIFF":  # OpenCV turns TIFF upright by itself
        return pixels
    return _turn(pixels, _orientation(picture))


def _reduction(picture: PIL.Image.Image | None, max_side: int) -> int:
    """The mode in which OpenCV reads a JPEG smaller than it is, where that is large enough."""
    cv2 = _opencv()
    side = 0 if picture is None else max(picture.size)
    for divisor, mode in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if side >= divisor * _SPARE * max_side:
            return mode
    return cv2.IMREAD_COLOR


def _decode_with_pillow(picture: PIL.Image.Image | None, max_side: int) -> np.ndarray | None:
    # OpenCV reads run lengths that are sound; of others Pillow makes noise.
    if picture is None or picture.format == "BMP" and picture.info["compression"] in (1, 2):
        return None
    try:
        pixels = _pixels(picture, max_side)
    except Exception:  # OSError, SyntaxError, EOFError, ValueError, ...
        return None
    return _turn(_fit(pixels, max_side), _orientation(picture))[:, :, ::-1]


def _pixels(picture: PIL.Image.Image, max_side: int) -> np.ndarray:
    """<number>[height, width] or [height, width, 3 or 4], red first; of a large picture fewer."""
    picture.load()
    if picture.mode.startswith("I;16"):
        pixels = np.array(picture).astype(np.uint16)
        if "transparency" in picture.info:
            pixels[pixels == picture.info["transparency"]] = np.iinfo(np.uint16).max
        return pixels
    mode = {"1": "L", "L": "L", "I": "I", "F": "F"}.get(picture.mode, "RGB")
    if picture.has_transparency_data:
        mode = "RGBA"
    shown = picture if picture.mode == mode else picture.convert(mode)
    # An array is a copy, so a large picture is made smaller before.
    divisor = max(picture.size) // (_SPARE * max_side)
    return np.array(shown.reduce(divisor) if divisor > 1 else shown)


def _fit(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """Any depth, gray or transparent, to <uint8>[height, width, 1 or 3] of at most `max_side`.

    The array may be very large, so it is overwritten, and copied only once it is small.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    height, width, channels = pixels.shape
    if channels not in (1, 3, 4):
        raise MediaError(f"{channels} channels; 1, 3 or 4 are known")
    if pixels.dtype.kind == "f":
        white = 1
    elif pixels.dtype in (np.uint8, np.uint16):
        white = np.iinfo(pixels.dtype).max
    else:
        raise MediaError(f"pixels of type {pixels.dtype} cannot be shown")
    if white == 1 or channels == 4:
        rows = max(1, 2**20 // width)
        for top in range(0, height, rows):
            _lay_over_white(pixels[top : top + rows], white)
    scale = max_side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        cv2 = _opencv()
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        pixels = pixels.reshape(size[1], size[0], channels)  # OpenCV drops a single channel
    pixels = pixels[:, :, :3]
    if white == 255:
        return pixels
    return np.rint(pixels * (255 / white)).astype(np.uint8)


def _lay_over_white(pixels: np.ndarray, white: int) -> None:
    """Does so in place; fractions are brought into 0..1."""
    if white == 1:
        if not np.isfinite(pixels).all():
            raise MediaError("pixels that are not finite")
        np.clip(pixels, 0, 1, out=pixels)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3] / np.float32(white)
        rest = (1 - alpha) * white
        if white > 1:
            rest += 0.5  # for whole numbers are cut, not rounded
        for channel in range(3):
            pixels[:, :, channel] = pixels[:, :, channel] * alpha + rest


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, by what Exif says of row 0 and column 0 (Exif 2.3, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _encode(pixels: np.ndarray) -> bytes:
    cv2 = _opencv()
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    written, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels), quality)
    if not written:
        raise MediaError("could not be written as JPEG")
    return data.tobytes()
