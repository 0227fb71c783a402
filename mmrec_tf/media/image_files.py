"""What a picture's file says of itself, told from its bytes before a decoder has them."""

import io
import re
import struct

import PIL.TiffImagePlugin

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
JPEG_2000 = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 0x0112
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_NOT_ENTROPY_CODED = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Tags of TIFF (TIFF 6.0, section 8), and kinds of their values.
_WIDTH, _HEIGHT, _DEPTHS, _COMPRESSION, _PLANES = 256, 257, 258, 259, 284
_STRIP_STARTS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_SHORT, _LONG = 3, 4


def is_cut_off(data: bytes) -> bool:
    """Whether a PNG or a JPEG 2000 lacks its end.

    The decoders do not always tell: OpenCV 4.11 takes gigabytes when the length of a PNG's chunk
    is damaged, and crashes on some JPEG 2000; Pillow makes up a picture from JPEG 2000's header.
    """
    if data.startswith(PNG):
        at = len(PNG)
        while at + 12 <= len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            at += 12 + length
            if kind == b"IEND":
                return at > len(data)
        return True
    # No coded data holds this marker (ISO/IEC 15444-1, annex A.4).
    return data.startswith(JPEG_2000) and b"\xff\xd9" not in data


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts, of which Pillow refuses long ones together with the picture."""
    if not data.startswith(PNG):
        return data
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in _PNG_TEXTS:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def is_one_baseline_scan(jpeg: bytes) -> bool:
    """Whether nothing stands between the scan and the end marker.

    Pillow forgives it, but the graph's decoder reads on to the end marker.
    """
    at = len(JPEG)
    while at + 4 <= len(jpeg):
        marker, length = struct.unpack(">HH", jpeg[at : at + 4])
        if marker >> 8 != 0xFF or 0xFFC1 <= marker <= 0xFFCF and marker != 0xFFC4:
            return False
        at += 1 if marker == 0xFFFF else 2 + length
        if marker == 0xFFDA:
            end = _NOT_ENTROPY_CODED.search(jpeg, at)
            return end is not None and end[0] == b"\xff\xd9"
    return False


def is_whole_plain_tiff(data: bytes) -> bool:
    """Whether a TIFF that Pillow does not know, such as one of doubles, is stored as it is and
    whole, so that OpenCV leaves no pixel unwritten."""
    try:
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        width, height, depths = tags[_WIDTH], tags[_HEIGHT], tags[_DEPTHS]
        starts, counts = tags[_STRIP_STARTS], tags[_STRIP_BYTES]
        row_bytes = width * sum(depths) // 8
        rows = min(tags.get(_ROWS_PER_STRIP, height), height)
        wanted = [row_bytes * min(rows, height - top) for top in range(0, height, rows)]
        return (
            tags.get(_COMPRESSION, 1) == 1
            and tags.get(_PLANES, 1) == 1
            and list(counts) == wanted
            and all(start + count <= len(data) for start, count in zip(starts, counts, strict=True))
        )
    except Exception:  # damaged tags raise anything
        return False


def exif_orientation(exif: bytes) -> int:
    """The orientation in Exif's data, 1 to 8; 1, upright, where there is none or it is damaged.

    By the rule of `mmrec_tf.encoders.image.reading`: no entry is looked at but its own.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    size, padded = len(exif), exif + bytes(16)
    at = min(struct.unpack(f"{order}I", padded[4:8])[0], size)
    (count,) = struct.unpack(f"{order}H", padded[at : at + 2])
    found = 1
    for number in range(min(count, max(0, size - at - 2) // 12)):
        entry = padded[at + 2 + 12 * number :][:12]
        tag, kind, amount = struct.unpack(f"{order}HHI", entry[:8])
        if tag == ORIENTATION:
            form = {_SHORT: "H", _LONG: "I"}.get(kind)
            value = struct.unpack_from(f"{order}{form}", entry, 8)[0] if form else 1
            found = value if amount == 1 and 1 <= value <= 8 else 1
    return found
