"""Does a servable see and hear what training did, when it is sent files as people have them?

    python -m benchmarks.media_skew [--json PATH]

Makes one file of each kind, prepares it as `python -m data.prepare` does, and compares what an
encoder reads of the result, as training does, with what it reads of the file itself, as a servable
does when the client sends bytes as they are. Prints a Markdown table; ends with status 1 if a kind
is neither read alike nor flagged. It takes seconds.
"""

import argparse
import functools
import io
import pathlib
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import PIL.Image
import soundfile

import mmrec_tf  # noqa: F401  # isort: skip  (chooses Keras 2 before TensorFlow is imported)
import tensorflow as tf

from benchmarks.facts import facts
from mmrec_tf.encoders.audio import mel_cnn
from mmrec_tf.encoders.decoding import decode_readable, decode_rows
from mmrec_tf.encoders.image.reading import read_picture
from mmrec_tf.errors import MediaError
from mmrec_tf.media import audio, image
from mmrec_tf.records.files import write_json

EQUAL, ABSENT, FLAGGED, SKEW = "equal", "absent in both", "flagged", "SKEW"
# On average: levels of 255, for JPEG rounds; and steps of a spectrogram's 0..1.
TOLERANCE = {"image": 4.0, "audio": 0.02}
_RATE_HZ = 16000
_SIZE = 64


def pixels(height: int = 90, width: int = 120, channels: int = 3) -> np.ndarray:
    """A smooth picture, of another color in each corner, so that it shows when it is turned."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [x, y, (1 - x) * y, 0.1 + 0.9 * x][:channels]
    return (np.stack(planes, axis=-1) * 255).astype(np.uint8)


def _saved(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _turned(orientation: int, kind: str = "JPEG", byte_order: str = "<") -> bytes:
    picture = PIL.Image.fromarray(pixels())
    exif = picture.getexif()
    exif.endian = byte_order
    exif[0x0112] = orientation
    return _saved(picture, kind, exif=exif.tobytes())


def _chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb() -> bytes:
    """57 bytes that claim a text of a gigabyte."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"tEXt", bytes(12), 10**9)


def pictures() -> Iterator[tuple[str, bytes]]:
    """A file of each kind, with its name."""
    plain = PIL.Image.fromarray(pixels())
    clear = PIL.Image.fromarray(pixels(channels=4), "RGBA")
    holes = pixels(channels=4)
    holes[20:50, 40:90, 3] = 0
    yield "JPEG", _saved(plain, "JPEG", quality=95)
    yield "JPEG of 1,600 x 1,200", _saved(PIL.Image.fromarray(pixels(1200, 1600)), "JPEG")
    yield "progressive JPEG", _saved(plain, "JPEG", quality=95, progressive=True)
    yield "gray JPEG", _saved(plain.convert("L"), "JPEG", quality=95)
    yield "CMYK JPEG", _saved(plain.convert("CMYK"), "JPEG", quality=95)
    for orientation in range(2, 9):
        yield f"JPEG with EXIF's orientation {orientation}", _turned(orientation)
    yield "JPEG with orientation 6, most significant byte first", _turned(6, byte_order=">")
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    jpeg = _saved(plain, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    yield "JPEG with an orientation in XMP alone", jpeg[:2] + segment + jpeg[2:]
    yield "PNG", _saved(plain, "PNG")
    yield "PNG with orientation 6", _turned(6, "PNG")
    yield "half transparent PNG", _saved(clear, "PNG")
    yield (
        "half transparent PNG of 1,600 x 1,200",
        _saved(PIL.Image.fromarray(pixels(1200, 1600, 4), "RGBA"), "PNG"),
    )
    yield "PNG with a hole", _saved(PIL.Image.fromarray(holes, "RGBA"), "PNG")
    yield "gray transparent PNG", _saved(clear.convert("LA"), "PNG")
    palette = plain.quantize(16)
    yield "palette PNG", _saved(palette, "PNG")
    yield "palette PNG with a clear color", _saved(palette, "PNG", transparency=3)
    white = PIL.Image.new("RGB", (60, 60), (9, 9, 9))
    yield "PNG with a color that means clear", _saved(white, "PNG", transparency=(9, 9, 9))
    yield "PNG of 16 bits", cv2.imencode(".png", pixels().astype(np.uint16) * 257)[1].tobytes()
    yield "PNG of 1 bit", _saved(plain.convert("1", dither=0), "PNG")
    yield "clear PNG of 1 bit", _saved(plain.convert("1", dither=0), "PNG", transparency=0)
    yield "PNG that claims a gigabyte", _png_bomb()
    yield "PNG that is cut off", _saved(plain, "PNG")[:-40]
    yield "JPEG that is cut off", jpeg[: len(jpeg) // 2]
    for kind in ("WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        yield kind, _saved(plain, kind)


def tone(hz: float, seconds: float, *, peak: float = 0.5, rate_hz: int = _RATE_HZ) -> np.ndarray:
    """<float32>[sample] of a sine."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def _written(
    samples: np.ndarray, rate_hz: int = _RATE_HZ, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=kind, subtype=subtype)
    return out.getvalue()


def sounds() -> Iterator[tuple[str, bytes]]:
    """A file of each kind, with its name."""
    call = np.concatenate([tone(500, 1), tone(2000, 1, peak=0.2)])
    yield "WAV", _written(call)
    yield "WAV in stereo", _written(np.stack([call, 0.3 * call], axis=1))
    yield "WAV of opposite phases", _written(np.stack([call, -call], axis=1))
    yield "WAV at 44.1 kHz", _written(tone(700, 2, rate_hz=44100), 44100)
    yield "WAV at 8 kHz", _written(tone(700, 2, rate_hz=8000), 8000)
    yield "WAV of a constant", _written(np.full(32000, 0.5))
    yield "WAV of silence", _written(np.zeros(32000))
    yield "WAV of 5 ms", _written(tone(500, 0.005))
    quiet = np.zeros(4 * _RATE_HZ, np.float32)
    yield "WAV that begins with 4 s of silence", _written(np.concatenate([quiet, call]))
    long = np.concatenate([tone(300, 15, peak=0.05), call, tone(300, 15, peak=0.05)])
    yield "WAV of 32 s, loudest in the middle", _written(long)
    # Its loudest 3 s are not in its loudest 10 s.
    steady = np.concatenate([tone(900, 10, peak=0.4), quiet, quiet, quiet, tone(300, 3, peak=0.6)])
    yield "WAV of 25 s with a short loud part", _written(steady)
    yield "WAV with a constant below it", _written(0.4 * call + 0.5)
    yield "WAV that is cut off", _written(call)[:40000]
    for subtype in ("PCM_24", "FLOAT", "PCM_U8"):
        yield f"WAV, {subtype}", _written(call, subtype=subtype)
    glitch = call.copy()
    glitch[999] = 1e6
    yield "WAV with a glitch", _written(glitch, subtype="FLOAT")
    for kind in ("FLAC", "OGG", "MP3"):
        subtype = {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}[kind]
        yield kind, _written(call, kind=kind, subtype=subtype)


def measure() -> list[dict[str, Any]]:
    """A row a kind: `kind`, `what` it is, the mean `difference`, and the `verdict`."""
    ears = mel_cnn.Encoder(num_mels=32, filters=(4,))
    spec = tf.TensorSpec([_SIZE, _SIZE, 3], tf.uint8)
    see = functools.partial(read_picture, size=_SIZE)
    return [
        *_rows(
            "image",
            pictures(),
            image.prepare,
            lambda raw: decode_rows(see, raw, spec),
            lambda raw: decode_readable(see, raw, spec),
        ),
        *_rows("audio", sounds(), audio.prepare, ears.preprocess, ears.preprocess_readable),
    ]


def _rows(
    kind: str,
    cases: Iterator[tuple[str, bytes]],
    prepare: Callable[[bytes], bytes],
    train: Callable[[tf.Tensor], tf.Tensor],
    serve: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> Iterator[dict[str, Any]]:
    names, files = zip(*cases, strict=True)
    prepared = []
    for data in files:
        try:
            prepared.append(prepare(data))
        except MediaError:
            prepared.append(b"")
    trained = tf.function(train)(tf.constant(prepared)).numpy().astype(np.float32)
    served, unreadable = tf.function(serve)(tf.constant(files))
    apart = np.abs(trained - served.numpy().astype(np.float32)).reshape(len(files), -1).mean(axis=1)
    for row, flagged in enumerate(unreadable.numpy().tolist()):
        difference, verdict = None, FLAGGED if flagged else SKEW
        if flagged and not prepared[row]:
            verdict = ABSENT
        elif not flagged and prepared[row]:
            difference = float(apart[row])
            verdict = EQUAL if difference <= TOLERANCE[kind] else SKEW
        yield {"kind": kind, "what": names[row], "difference": difference, "verdict": verdict}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| kind | file | difference | served as trained? |", "| --- | --- | --- | --- |"]
    for row in rows:
        apart = "" if row["difference"] is None else f"{row['difference']:.3g}"
        lines.append(f"| {row['kind']} | {row['what']} | {apart} | {row['verdict']} |")
    return "\n".join(lines)


def main() -> int:
    """Prints the table, and writes it where that is asked for; 1 where there is any skew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="PATH", help="where to write it all")
    parsed = parser.parse_args()
    rows = measure()
    print(table(rows))
    if parsed.json:
        head = facts(
            "does a servable read files as training does?",
            command="python -m benchmarks.media_skew --json PATH",
        )
        write_json(parsed.json, {**head, "tolerance": TOLERANCE, "rows": rows})
    return 1 if any(row["verdict"] == SKEW for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
