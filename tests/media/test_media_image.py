import io
import os
import pickle
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from mmrec_tf.errors import MediaError
from mmrec_tf.media import image

BOTH = f"opencv {cv2.__version__}, pillow {PIL.__version__}"


def picture(height=60, width=90, channels=3, dtype=np.uint8):
    """A smooth picture, so that JPEG keeps it almost as it is."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [x, y, (x + y) / 2, 0.25 + 0.5 * x][:channels]
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (np.stack(planes, axis=-1) * white).astype(dtype)


def encoded(pixels, suffix=".jpg", *parameters) -> bytes:
    return cv2.imencode(suffix, pixels, list(parameters))[1].tobytes()


def saved(pixels, mode, kind, **options) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """What the graph's decoder sees, red first."""
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def prepared(data: bytes, **options) -> np.ndarray:
    """The same of a picture that was prepared, as integers that can be subtracted."""
    return decoded(image.prepare(data, **options)).astype(int)


def refusal(data: bytes) -> MediaError:
    with pytest.raises(MediaError) as caught:
        image.prepare(data)
    return caught.value


def test_plain_jpeg_goes_through_unchanged():
    plain = encoded(picture())
    for data in (
        plain,
        encoded(picture(320, 320)),
        encoded(picture(channels=1)),
        saved(picture(), "RGB", "JPEG"),
        saved(picture(), "RGB", "JPEG", restart_marker_rows=1),
        plain + b"something behind its end",
        plain[:2] + b"\xff" + plain[2:],  # markers may be filled up
    ):
        assert image.prepare(data) == data
    assert image.prepare(encoded(picture(321, 10))) != encoded(picture(321, 10))


FORMS = {
    "progressive": saved(picture(), "RGB", "JPEG", progressive=True),
    "png": saved(picture(), "RGB", "PNG"),
    "webp": saved(picture(), "RGB", "WEBP", lossless=True),
    "bmp": saved(picture(), "RGB", "BMP"),
    "dib": saved(picture(), "RGB", "DIB"),
    "tiff": saved(picture(), "RGB", "TIFF"),
    "tiff-lzw": saved(picture(), "RGB", "TIFF", compression="tiff_lzw"),
    "ppm": saved(picture(), "RGB", "PPM"),
    "avif": saved(picture(), "RGB", "AVIF", quality=95),
    "jpeg-2000": saved(picture(), "RGB", "JPEG2000"),
    "pcx": saved(picture(), "RGB", "PCX"),
    "sgi": saved(picture(), "RGB", "SGI"),
    "qoi": saved(picture(), "RGB", "QOI"),
    "pfm": encoded(picture(dtype=np.float32)[:, :, ::-1], ".pfm"),
    "hdr": encoded(picture(dtype=np.float32)[:, :, ::-1], ".hdr"),
    "float-tiff": encoded(
        picture(dtype=np.float32)[:, :, ::-1], ".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 1
    ),
    "double-tiff": encoded(picture(dtype=np.float64)[:, :, ::-1], ".tiff"),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_become_jpeg_that_looks_the_same(form):
    data = image.prepare(FORMS[form])
    assert data[:3] == b"\xff\xd8\xff"
    assert image.prepare(data) == data
    assert np.abs(decoded(data).astype(int) - picture()).mean() < 3


def test_icons():
    data = saved(picture(64, 64), "RGBA", "ICO", sizes=[(16, 16), (64, 64)])
    assert np.abs(prepared(data) - picture(64, 64)).mean() < 3


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_of_os2(bits):
    """Three bytes a color, where Windows has four."""
    palette = np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8)
    colors = np.arange(32).reshape(4, 8) % 2**bits
    flat = np.unpackbits(colors.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    rows = np.packbits(flat.reshape(4, -1), axis=1)
    rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 4)]).tobytes()
    info = struct.pack("<IHHHH", 12, 8, 4, 1, bits) + palette.tobytes()
    header = struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info))
    got = prepared(b"BM" + header + info + rows)
    want = palette[colors][::-1, :, ::-1].astype(int)
    # JPEG halves the colors' resolution; brightness stays.
    assert np.abs(got.mean(axis=2) - want.mean(axis=2)).mean() < 40
    assert np.abs(got.mean(axis=(0, 1)) - want.mean(axis=(0, 1))).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_palettes_and_black_and_white(kind):
    assert np.abs(prepared(saved(picture(), "P", kind)) - picture()).mean() < 30
    checkers = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 255
    got = prepared(saved(checkers, "1", kind))
    assert np.abs(got - checkers[:, :, np.newaxis]).mean() < 5


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_colors_of_cmyk(kind):
    data = saved(picture(), "CMYK", kind, **({"quality": 95} if kind == "JPEG" else {}))
    want = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(prepared(data) - want).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "ICO", "JPEG2000"])
def test_transparent_lies_on_white(kind):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = [255, 0, 0, 255]
    pixels[:32, 32:, 3] = 128
    lossless = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(64, 64)]}}
    got = prepared(saved(pixels, "RGBA", kind, **lossless.get(kind, {})))
    assert np.abs(got[16, 16] - [255, 0, 0]).max() < 20
    assert np.abs(got[16, 48] - 127).max() < 20
    assert got[48, 48].min() > 235


@pytest.mark.parametrize("mode", ["LA", "PA"])
def test_transparent_gray_and_palette(mode):
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[:, 30:, 3] = 255
    for kind in ("PNG", "TIFF"):
        if (mode, kind) == ("PA", "PNG"):
            data = saved(pixels[:, :, 3], "P", kind, transparency=0)
            want = 255
        else:
            data, want = saved(pixels, mode, kind), 0
        got = prepared(data)
        assert got[30, 10].min() > 250
        assert np.abs(got[30, 50] - want).max() < 5


@pytest.mark.parametrize("mode, key", [("L", 0), ("RGB", (0, 0, 0)), ("1", 0), ("I;16", 0)])
def test_a_color_that_means_transparent(mode, key):
    pixels = np.zeros((60, 60), np.uint16 if mode == "I;16" else np.uint8)
    pixels[:, 30:] = 100
    source = PIL.Image.fromarray(pixels)
    out = io.BytesIO()
    (source if mode == "I;16" else source.convert(mode)).save(out, "PNG", transparency=key)
    assert prepared(out.getvalue())[30, 10].min() > 250


def test_transparent_gif():
    pixels = np.zeros((60, 60), np.uint8)
    pixels[:, 30:] = 1
    source = PIL.Image.fromarray(pixels, "P")
    source.putpalette([0, 0, 0, 255, 0, 0])
    out = io.BytesIO()
    source.save(out, "GIF", transparency=0)
    got = prepared(out.getvalue())
    assert got[30, 10].min() > 250
    assert np.abs(got[30, 50] - [255, 0, 0]).max() < 20


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_brightness(channels, suffix):
    pixels = picture(channels=channels, dtype=np.uint16)
    if channels == 4:
        pixels[:, :, 3] = 65535
    want = np.broadcast_to(pixels[:, :, :3] // 257, (60, 90, 3))[:, :, ::-1]
    assert np.abs(prepared(encoded(pixels, suffix)) - want).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_many(kind):
    first = PIL.Image.fromarray(picture())
    out = io.BytesIO()
    first.save(out, kind, save_all=True, append_images=[PIL.Image.new("RGB", (90, 60))])
    assert np.abs(prepared(out.getvalue()) - picture()).mean() < 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, kind):
    source = PIL.Image.fromarray(picture())
    exif = source.getexif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    source.save(out, kind, exif=exif, **({"quality": 95} if kind != "TIFF" else {}))
    data = image.prepare(out.getvalue())
    assert (data == out.getvalue()) == (orientation == 1 and kind == "JPEG")
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(out.getvalue())))
    got, want = decoded(data).astype(int), np.asarray(upright).astype(int)
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < 3


@pytest.mark.parametrize(
    "height, width, want", [(800, 400, (320, 160)), (1000, 2, (320, 1)), (100, 321, (100, 320))]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_longest_side(height, width, want, suffix):
    assert prepared(encoded(picture(height, width), suffix)).shape[:2] == want


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_shrinking_averages(suffix):
    checkers = np.kron(np.indices((400, 400)).sum(0) % 2, np.ones((1, 1))).astype(np.uint8) * 255
    small = prepared(encoded(checkers, suffix), max_side=100)
    assert np.abs(small - 127).max() < 5


def test_a_large_jpeg_is_read_smaller_than_it_is(monkeypatch):
    modes = []
    plain = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, mode: modes.append(mode) or plain(data, mode))
    for side, divisor in [(5120, 8), (5100, 4), (1280, 2), (1270, 1)]:
        source = PIL.Image.fromarray(picture(side // 5, side))
        exif = source.getexif()
        exif[0x0112] = 6
        out = io.BytesIO()
        source.save(out, "JPEG", exif=exif)
        got = prepared(out.getvalue())
        want = np.rot90(picture(64, 320), -1)
        assert got.shape == want.shape
        assert np.abs(got - want).mean() < 3
        assert plain(np.frombuffer(out.getvalue(), np.uint8), modes[-1]).shape[1] == side // divisor


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, color=2, rows=b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    "data, reason, decoder",
    [
        (b"", "empty file", ""),
        (b"<html>404</html>", "not a picture", BOTH),
        (bytes(range(256)) * 8, "not a picture", BOTH),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture", BOTH),
        (b"\xff\xd8\xff", "not a picture", BOTH),
        (encoded(picture())[:-40], "damaged or cut off", BOTH),
        (encoded(picture(), ".png")[:-40], "damaged or cut off", ""),
        (saved(picture(), "RGB", "GIF")[:-400], "damaged or cut off", BOTH),
        (png(100_000, 100_000), "too many pixels (at most 64,000,000)", ""),
        (png(10_000, 6_401), "too many pixels (10000 x 6401; at most 64,000,000)", ""),
        (
            b"GIF89a\xff\xff\xff\xff" + saved(picture(), "RGB", "GIF")[10:],
            "too many pixels (at most 64,000,000)",
            "",
        ),
        (png(0, 5), "damaged or cut off", ""),
        (
            saved(np.full((9, 9), np.nan, np.float32), "F", "TIFF"),
            "pixels that are not finite",
            f"pillow {PIL.__version__}",
        ),
        (
            saved(np.ones((9, 9), np.int32), "I", "TIFF"),
            "pixels of type int32 cannot be shown",
            f"pillow {PIL.__version__}",
        ),
    ],
)
def test_what_is_no_picture(data, reason, decoder):
    error = refusal(data)
    assert (str(error), error.decoder) == (reason, decoder)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as it comes from another process
    assert (str(copy), copy.decoder) == (reason, decoder)


def test_too_many_bytes(monkeypatch):
    monkeypatch.setattr(image, "MAX_BYTES", 1000)
    assert str(refusal(bytes(1001))) == "too many bytes (1,001; at most 1,000)"


@pytest.mark.parametrize("form", FORMS)
def test_cut_off_is_refused_wherever_it_is_cut(form):
    """Unless nothing is missing but what follows the last pixel."""
    data = FORMS[form]
    whole = decoded(image.prepare(data))
    for end in [*range(1, len(data) - 40, 97), *range(len(data) - 40, len(data))]:
        try:
            got = image.prepare(data[:end])
        except MediaError:
            continue
        assert form in ("bmp", "dib", "qoi") and len(data) - end <= 8
        np.testing.assert_array_equal(decoded(got), whole)


def test_cut_baseline_jpeg_is_refused_wherever_it_is_cut():
    for data in (encoded(picture()), encoded(picture(channels=1))):
        for end in range(1, len(data)):
            refusal(data[:end])


def damaged(data: bytes, rng, *, header: int = 0) -> bytes:
    """The data with a few other bytes, in every second case among the first ones."""
    out = bytearray(data)
    end = header if header and rng.random() < 0.5 else len(data)
    for at in rng.integers(2, end, rng.integers(1, 5)):
        out[at] = rng.integers(256)
    return bytes(out)


def test_damaged_jpeg_is_refused_or_decodes_in_the_graph():
    rng = np.random.default_rng(0)
    noise = np.clip(picture() + rng.normal(0, 30, (60, 90, 3)), 0, 255).astype(np.uint8)
    seen = {"same": 0, "new": 0, "refused": 0}
    for source in (encoded(picture()), encoded(noise), saved(noise, "L", "JPEG", optimize=True)):
        for _ in range(1000):
            data = damaged(source, rng, header=620)
            try:
                got = image.prepare(data)
            except MediaError:
                seen["refused"] += 1
                continue
            assert decoded(got).ndim == 3
            seen["same" if got == data else "new"] += 1
    assert min(seen.values()) > 100


def test_a_jpeg_whose_scan_does_not_end_at_the_end_marker_is_written_anew():
    """Pillow and OpenCV show it whole; the graph's decoder would look for the end and refuse."""
    data = encoded(picture())
    for end in (b"\xff\xe1", b"\xff\xe1\x7f\xff\xff\xd9"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decoded(data[:-2] + end)
        got = image.prepare(data[:-2] + end)
        assert got[-2:] == b"\xff\xd9"
        assert np.abs(decoded(got).astype(int) - decoded(data)).mean() < 3


@pytest.mark.parametrize("form", FORMS)
def test_damage_raises_nothing_else(form):
    rng = np.random.default_rng(0)
    for _ in range(150):
        try:
            assert image.prepare(damaged(FORMS[form], rng, header=200))[:2] == b"\xff\xd8"
        except MediaError as error:
            assert 0 < len(str(error)) < 100


@pytest.mark.parametrize(
    "data, reason",
    [
        (encoded(picture(dtype=np.float32), ".tiff"), "TIFF of an unknown form ("),
        (saved(picture(), "1", "TIFF", compression="group4"), "fax in a TIFF ("),
        (saved(picture(), "1", "TIFF", compression="group3"), "fax in a TIFF ("),
        (saved(picture(), "RGB", "TIFF", compression="tiff_lzw")[:-200], "TIFF of"),
        (FORMS["double-tiff"][:-100], "TIFF of an unknown form ("),
        (FORMS["png"].replace(b"IHDR", b"IHDX"), "damaged or cut off"),
    ],
)
def test_nothing_is_decoded_that_may_leave_memory_in_a_picture(data, reason):
    """By a second decoder that is less strict, or by one that passes over what is missing."""
    assert str(refusal(data)).startswith(reason)


def test_long_texts_in_a_png_cost_nothing():
    """Pillow refuses the whole picture for one."""
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(3_000_000)))
    data = FORMS["png"]
    got = image.prepare(data[:33] + text + data[33:])
    assert got == image.prepare(data) == image.prepare(data[:-12] + text + data[-12:])


DETERMINISM = """
import hashlib, pathlib, sys
from mmrec_tf.errors import MediaError
from mmrec_tf.media import image

for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, hashlib.sha256(image.prepare(path.read_bytes())).hexdigest())
    except MediaError as error:
        print(path.name, error)
"""


def test_damage_gives_the_same_whatever_memory_holds(tmp_path):
    """Glibc fills what is asked for and what is given back with a byte of one's choice."""
    rng = np.random.default_rng(0)
    forms = {name: FORMS[name] for name in FORMS if "tiff" in name or name in ("bmp", "png")}
    forms["deep-png"] = encoded(picture(dtype=np.uint16), ".png")
    for kind in ("group4", "packbits", "jpeg", "tiff_adobe_deflate"):
        forms[kind] = saved(picture(), "1" if kind == "group4" else "RGB", "TIFF", compression=kind)
    for name, data in forms.items():
        for trial in range(30):
            written(tmp_path / f"{name}-{trial:02d}", damaged(data, rng, header=200))
    fills = [run(DETERMINISM, str(tmp_path), MALLOC_PERTURB_=fill) for fill in ("85", "170")]
    assert [done.returncode for done in fills] == [0, 0], fills[0].stderr[-500:]
    one, other = (done.stdout.splitlines() for done in fills)
    assert len(one) == len(forms) * 30 and one == other


def test_run_lengths():
    """Those that OpenCV refuses run over the ends of lines; Pillow would make noise of them."""

    def bmp(runs):
        palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
        info = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(runs), 0, 0, 256, 0)
        start = 54 + len(palette)
        header = struct.pack("<IHHI", start + len(runs), 0, 0, start)
        return b"BM" + header + info + palette + runs

    rows = b"".join(bytes([8, value, 0, 0]) for value in (10, 20, 30, 40))
    want = np.repeat([[40], [30], [20], [10]], 8, axis=1)
    assert np.abs(prepared(bmp(rows + b"\0\1"))[:, :, 0] - want).max() < 8
    assert str(refusal(bmp(bytes([20, 10, 0, 0]) * 4 + b"\0\1"))) == "damaged or cut off"


def run(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Another process, which this one's imports do not help."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def test_huge_picture_takes_little_memory(tmp_path):
    """64 megapixels of 16-bit RGBA are 512 MB by themselves."""
    row = zlib.compressobj(1)
    rows = b"".join(row.compress(b"\0" + bytes(8 * 8000)) for _ in range(8000)) + row.flush()
    (tmp_path / "huge.png").write_bytes(png(8000, 8000, 16, 6, rows))
    done = run(
        """
import pathlib, resource, sys
from mmrec_tf.media import image

data = pathlib.Path(sys.argv[1]).read_bytes()
image.prepare(pathlib.Path(sys.argv[2]).read_bytes())  # loads what is needed
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 600 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(len(image.prepare(data)))
""",
        str(tmp_path / "huge.png"),
        str(written(tmp_path / "small.png", encoded(picture(700, 700), ".png"))),
    )
    assert done.returncode == 0 and int(done.stdout) > 500, done.stderr


def test_bad_files_print_nothing(tmp_path):
    done = run(
        """
import pathlib, sys
from mmrec_tf.errors import MediaError
from mmrec_tf.media import image

for path in sys.argv[1:]:
    try:
        image.prepare(pathlib.Path(path).read_bytes())
    except MediaError:
        continue
    raise SystemExit(f"{path} was accepted")
""",
        str(written(tmp_path / "html", b"<html>404</html>")),
        str(written(tmp_path / "cut.bmp", FORMS["bmp"][:300])),
        str(written(tmp_path / "cut.webp", FORMS["webp"][:300])),
        str(written(tmp_path / "cut.tiff", FORMS["tiff"][:300])),
        str(written(tmp_path / "damaged.png", FORMS["png"].replace(b"IDAT", b"IDXT"))),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def written(path, data):
    path.write_bytes(data)
    return path


def test_preparing_imports_no_tensorflow():
    done = run(
        """
import io, sys, wave
import cv2, numpy
from mmrec_tf.media import audio, image, text

image.prepare(cv2.imencode(".png", numpy.zeros((400, 400, 4), numpy.uint8))[1].tobytes())
image.prepare(cv2.imencode(".jpg", numpy.zeros((40, 40, 3), numpy.uint8))[1].tobytes())
out = io.BytesIO()
with wave.open(out, "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(numpy.arange(8000, dtype="<i2").tobytes())
audio.prepare(out.getvalue())
text.prepare("<b>bird</b>")
assert "tensorflow" not in sys.modules
"""
    )
    assert done.returncode == 0, done.stderr


def test_odd_media(shared):
    folder = shared / "data" / "odd_media" / "image"
    if not folder.is_dir():
        pytest.skip("needs shared/data/odd_media, which is not here")
    refused = {}
    for path in sorted(folder.iterdir()):
        try:
            assert decoded(image.prepare(path.read_bytes())).shape[2] == 3
        except MediaError as error:
            refused[path.name] = str(error)
    assert refused == {
        "004_truncated_jpeg.jpg": "damaged or cut off",
        "025_broken.png": "damaged or cut off",
        "027_truncated_image.png": "damaged or cut off",
        "034_syntax_num_frames_zero.png": "damaged or cut off",  # and without a picture in it
        "040_decompression_bomb.gif": "too many pixels (at most 64,000,000)",
        "049_badwidth.bmp": "too many pixels (at most 64,000,000)",
        "050_badrle.bmp": "damaged or cut off",  # Pillow makes noise of it
        "135_empty.jpg": "empty file",
        "137_html_named.jpg": "not a picture",
    }
