import importlib
import io

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.modalities import image
from mmrec_tf.schema import ModalitySpec

SPEC = ModalitySpec("image")


def picture(height=60, width=90, channels=3, dtype=np.uint8):
    """A smooth picture, so that JPEG keeps it almost as it is."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [x, y, (x + y) / 2, 0.25 + 0.5 * x][:channels]
    pixels = np.stack(planes, axis=-1) * np.iinfo(dtype).max
    return pixels.astype(dtype)


def encoded(pixels, suffix=".jpg", *parameters) -> bytes:
    return cv2.imencode(suffix, pixels, list(parameters))[1].tobytes()


def saved(pixels, mode, kind, **options) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """What the graph's decoder sees, red first."""
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def test_plain_jpeg_goes_through_unchanged():
    for data in (
        encoded(picture()),
        encoded(picture(320, 320)),
        encoded(picture(channels=1)),
        saved(picture(), "RGB", "JPEG"),
    ):
        assert image.prepare(data) == data


@pytest.mark.parametrize(
    "data",
    [
        saved(picture(), "RGB", "JPEG", progressive=True),
        saved(picture(), "RGB", "PNG"),
        saved(picture(), "RGB", "WEBP", lossless=True),
        saved(picture(), "RGB", "BMP"),
        saved(picture(), "RGB", "TIFF"),
        encoded(picture()[:, :, ::-1], ".ppm"),
    ],
    ids=["progressive", "png", "webp", "bmp", "tiff", "ppm"],
)
def test_other_forms_become_jpeg_that_looks_the_same(data):
    prepared = image.prepare(data)
    assert prepared[:3] == b"\xff\xd8\xff"
    assert image.prepare(prepared) == prepared
    assert np.abs(decoded(prepared).astype(int) - picture()).mean() < 3


def test_colors_of_cmyk():
    data = saved(picture(), "CMYK", "JPEG", quality=95)
    want = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decoded(image.prepare(data)) - want).mean() < 4


def test_transparent_lies_on_white():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, :20] = [0, 0, 255, 255]  # opaque red, blue first
    pixels[:20, 20:, 3] = 128
    got = decoded(image.prepare(encoded(pixels, ".png")))
    assert np.abs(got[10, 10].astype(int) - [255, 0, 0]).max() < 20
    assert np.abs(got[10, 30].astype(int) - 127).max() < 20
    assert got[30, 30].min() > 235


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_brightness(channels):
    pixels = picture(channels=channels, dtype=np.uint16)
    if channels == 4:
        pixels[:, :, 3] = 65535
    got = decoded(image.prepare(encoded(pixels, ".png"))).astype(int)
    want = np.broadcast_to(pixels[:, :, :3] // 257, (60, 90, 3))[:, :, ::-1]
    assert np.abs(got - want).mean() < 3


def test_gif_shows_its_first_frame():
    frames = [PIL.Image.fromarray(picture()).convert("P"), PIL.Image.new("P", (90, 60))]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(decoded(image.prepare(out.getvalue())).astype(int) - picture()).mean() < 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    source = PIL.Image.fromarray(picture())
    exif = source.getexif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    source.save(out, "JPEG", exif=exif, quality=95)
    prepared = image.prepare(out.getvalue())
    assert (prepared == out.getvalue()) == (orientation == 1)
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(out.getvalue())))
    want = np.asarray(upright).astype(int)
    got = decoded(prepared)
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < 3


@pytest.mark.parametrize(
    "height, width, want", [(800, 400, (320, 160)), (1000, 2, (320, 1)), (100, 321, (100, 320))]
)
def test_longest_side(height, width, want):
    assert decoded(image.prepare(encoded(picture(height, width)))).shape[:2] == want


def test_shrinking_averages():
    checkers = np.kron(np.indices((400, 400)).sum(0) % 2, np.ones((1, 1))).astype(np.uint8) * 255
    small = decoded(image.prepare(encoded(checkers, ".png"), max_side=100))
    assert np.abs(small.astype(int) - 127).max() < 5


def png_claiming(width, height) -> bytes:
    data = bytearray(encoded(picture(), ".png"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not a picture"),
        (bytes(range(256)) * 8, "not a picture"),
        (b"\xff\xd8\xff", "not a picture"),
        (encoded(picture(), ".png")[:-40], "damaged or cut off"),
        (saved(picture(), "RGB", "GIF")[:-400], "damaged or cut off"),
        (png_claiming(100_000, 100_000), "too many pixels"),
        (png_claiming(0, 5), "no pixels"),
    ],
)
def test_what_is_no_picture(data, reason):
    with pytest.raises(MediaError, match=reason):
        image.prepare(data)


@pytest.mark.parametrize("progressive", [False, True])
def test_cut_jpeg_is_refused_wherever_it_is_cut(progressive):
    data = saved(picture(), "RGB", "JPEG", progressive=progressive)
    for end in [*range(1, len(data) - 40, 97), *range(len(data) - 40, len(data))]:
        with pytest.raises(MediaError):
            image.prepare(data[:end])


def test_damaged_jpeg_is_refused_or_decodes_in_the_graph():
    rng = np.random.default_rng(0)
    data = encoded(picture())
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(2, len(data), 3):
            damaged[at] = rng.integers(256)
        try:
            prepared = image.prepare(bytes(damaged))
        except MediaError:
            continue
        assert decoded(prepared).ndim == 3


def test_odd_media(shared):
    folder = shared / "data" / "odd_media" / "image"
    if not folder.is_dir():
        pytest.skip("needs shared/data/odd_media, which is not here")
    refused = set()
    for path in sorted(folder.iterdir()):
        try:
            assert decoded(image.prepare(path.read_bytes())).shape[2] == 3
        except MediaError:
            refused.add(path.name.split("_")[0])
    # Empty, truncated, corrupt or claiming absurd sizes; and AVIF and ICO, which OpenCV's wheels
    # do not read.
    assert refused == set("004 025 027 034 039 040 042 049 050 055 057 135 137".split())


def test_preprocess_stretches_to_a_square():
    encoder = image.build_encoder(ImageConfig(architecture="MobileNet", size=32), SPEC)
    raw = tf.constant([encoded(picture(64, 128)), encoded(picture(100, 50), ".png"), b""])
    got = encoder.preprocess(raw).numpy()
    want = cv2.resize(picture(), (32, 32), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    assert np.abs(got[0].astype(int) - want).mean() < 3
    assert np.abs(got[1].astype(int) - want).mean() < 3
    assert not got[2].any()


def test_each_architecture_gets_its_own_scaling():
    seen = {}
    pixels = tf.constant(picture(32, 32)[np.newaxis])
    for name in ("ResNet50", "MobileNetV2", "EfficientNetB0"):
        module = importlib.import_module(image._application(name).__module__)
        seen[name] = module.preprocess_input(tf.cast(pixels, tf.float32)).numpy()
    assert seen["ResNet50"].min() < -100
    assert seen["MobileNetV2"].min() >= -1 and seen["MobileNetV2"].max() <= 1
    assert seen["EfficientNetB0"].max() > 200


def test_unknown_architecture_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ResNet50'"):
        image.build_encoder(ImageConfig(architecture="resnet50"), SPEC)
    with pytest.raises(ConfigError, match="image.size: InceptionV3 cannot take 32"):
        image.build_encoder(ImageConfig(architecture="InceptionV3", size=32), SPEC)


def test_weights_that_cannot_be_used(tmp_path):
    config = ImageConfig(architecture="MobileNet", size=32, weights=str(tmp_path / "no.h5"))
    with pytest.raises(ConfigError, match="there is no file"):
        image.build_encoder(config, SPEC)
    (tmp_path / "no.h5").write_bytes(b"not HDF5")
    with pytest.raises(ConfigError, match="could not load"):
        image.build_encoder(config, SPEC)
    other = image.Encoder("MobileNetV3Small", 32)
    other.network.save_weights(tmp_path / "no.h5")
    with pytest.raises(ConfigError, match="could not load"):
        image.build_encoder(config, SPEC)


def test_download_that_fails(monkeypatch):
    plain = image._network

    def offline(architecture, size, *, weights):
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://...")  # as Keras does
        return plain(architecture, size, weights=weights)

    monkeypatch.setattr(image, "_network", offline)
    config = ImageConfig(architecture="MobileNet", size=32, weights="imagenet")
    with pytest.raises(ConfigError, match="URL fetch failure.*needs a connection once"):
        image.build_encoder(config, SPEC)
    image.build_encoder(config, SPEC, assets={})


def test_weights_file_round_trip(tmp_path):
    one = image.Encoder("MobileNet", 32)
    path = tmp_path / "weights.h5"
    one.network.save_weights(path)
    config = ImageConfig(architecture="MobileNet", size=32, weights=str(path))
    assert image.build_encoder(config, SPEC).fingerprint() == one.fingerprint()
    path.unlink()
    assert image.build_encoder(config, SPEC, assets={}).fingerprint() != one.fingerprint()


def test_batch_normalization_moves_only_where_it_trains():
    config = ImageConfig(architecture="MobileNet", size=32)
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    # The last layer of MobileNet with weights is one of its 27 batch normalizations.
    for layers, moves in [(0, 0), (1, 1), (-1, 27)]:
        encoder = image.Encoder(config.architecture, config.size, trainable_layers=layers)
        norms = [x for x in encoder.network.layers if "BatchNorm" in type(x).__name__]
        before = [layer.moving_mean.numpy() for layer in norms]
        encoder(pixels, training=True)
        moved = sum(
            not np.array_equal(old, layer.moving_mean)
            for old, layer in zip(before, norms, strict=True)
        )
        assert moved == moves


@pytest.mark.slow
def test_imagenet_weights_of_mobilenet_v2(shared):
    path = shared / "weights" / "image" / "mobilenet_v2_imagenet_notop.h5"
    photos = sorted((shared / "data" / "birds" / "images").glob("*.jpg"))[:3]
    if not path.is_file() or not photos:
        pytest.skip("needs shared/weights/image and shared/data/birds, which are not here")
    config = ImageConfig(architecture="MobileNetV2", weights=str(path))
    encoder = image.build_encoder(config, SPEC)
    raw = []
    for photo in photos:
        pixels = cv2.imread(str(photo))
        darker = cv2.convertScaleAbs(pixels[:, ::-1], alpha=0.8)
        raw += [encoded(pixels), encoded(darker)]
    vectors = tf.math.l2_normalize(encoder(encoder.preprocess(tf.constant(raw))), axis=1)
    similar = tf.matmul(vectors, vectors, transpose_b=True).numpy()
    same = [similar[i, i + 1] for i in (0, 2, 4)]
    other = [similar[i, j] for i in (0, 2, 4) for j in (0, 2, 4) if i < j]
    assert min(same) > 0.8 > max(other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetB0", "ConvNeXtTiny", "DenseNet121"])
def test_large_architectures_reload_from_a_checkpoint(name, tmp_path):
    one = image.Encoder(name, 64, imagenet=True)
    one.set_weights([value + 0.01 * (i % 3) for i, value in enumerate(one.get_weights())])
    tf.train.Checkpoint(tower=one).write(str(tmp_path / "weights"))
    other = image.Encoder(name, 64, imagenet=True)
    tf.train.Checkpoint(tower=other).read(str(tmp_path / "weights")).assert_consumed()
    pixels = tf.constant(picture(64, 64)[np.newaxis])
    np.testing.assert_allclose(other(pixels), one(pixels), rtol=1e-5)
    assert np.isfinite(one(pixels)).all()


@pytest.mark.slow
def test_efficientnet_scales_as_keras_does_for_imagenet():
    encoder = image.Encoder("EfficientNetB0", 32, imagenet=True)
    layer = next(x for x in encoder.network.layers if type(x).__name__ == "Normalization")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    layer.set_weights([mean, std, np.array(0)])
    first = tf.keras.Model(encoder.network.inputs, layer.output)
    pixels = picture(32, 32)[np.newaxis].astype(np.float32)
    # tf_keras/src/applications/efficientnet.py: Rescaling, Normalization, Rescaling.
    want = (pixels / 255 - mean) / np.sqrt(std) / np.sqrt(std)
    np.testing.assert_allclose(first(image._efficientnet_scale(pixels, layer)), want, atol=1e-5)
