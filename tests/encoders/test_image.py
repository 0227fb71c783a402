import importlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders.image import applications as image
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

SPEC = ModalitySpec("image")


def picture(height=60, width=90):
    """A smooth picture, so that JPEG keeps it almost as it is."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (np.stack([x, y, (x + y) / 2], axis=-1) * 255).astype(np.uint8)


def encoded(pixels, suffix=".jpg") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def test_preprocess_stretches_to_a_square():
    encoder = image.build_encoder(
        ImageConfig(architecture="MobileNet", weights="random", size=32), SPEC
    )
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

    def offline(architecture, size, *, weights, **settings):
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://...")  # as Keras does
        return plain(architecture, size, weights=weights, **settings)

    monkeypatch.setattr(image, "_network", offline)
    config = ImageConfig(architecture="MobileNet", size=32, weights="imagenet")
    with pytest.raises(ConfigError, match="URL fetch failure.*needs a connection once.*'random'"):
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
