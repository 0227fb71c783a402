import cv2
import numpy as np
import pytest
import tensorflow as tf
from support import tiny_models

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders import image
from mmrec_tf.encoders.graphs import foreign_ops, freeze
from mmrec_tf.encoders.image.descriptors import color_histograms, hog
from mmrec_tf.errors import ConfigError


def build(**settings):
    return image.build_encoder(ImageConfig(**settings), None)


def pixels(seed, size=32):
    drawn = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_CUBIC)


PIXELS = tf.constant(np.stack([pixels(0), pixels(1)]))


# Descriptors


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_oriented_gradients_are_opencvs(seed):
    picture = pixels(seed, 64)
    reference = cv2.HOGDescriptor((64, 64), (16, 16), (8, 8), (8, 8), 9)
    # Blue first; its blocks come column by column.
    want = reference.compute(picture[..., ::-1].copy()).reshape(7, 7, 36).transpose(1, 0, 2)
    (got,) = hog(tf.constant(picture[None], tf.float32)).numpy()
    # OpenCV's arctangent is an approximation.
    np.testing.assert_allclose(got, want, atol=5e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_histograms_of_colors_are_opencvs(seed):
    picture = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    colors = cv2.cvtColor((picture / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    # Its bins end before their upper limit, where values of 1 lie.
    colors = np.minimum(colors, np.array([360 - 1e-3, 1 - 1e-6, 1 - 1e-6], np.float32))
    want = cv2.calcHist([colors], [0, 1, 2], None, [4, 4, 4], [0, 360, 0, 1, 0, 1]).ravel()
    (got,) = color_histograms(tf.constant(picture[None], tf.float32), bins=4).numpy()
    np.testing.assert_allclose(got, want / 32**2, atol=1e-6)


def test_descriptors_see_colors_and_where_they_are():
    red_above = np.zeros([32, 32, 3], np.uint8)
    red_above[:16, :, 0] = 255
    both = tf.constant(np.stack([red_above, red_above[::-1]]))
    whole, parts = (build(family="descriptors", size=32, bins=2, grid=n) for n in (1, 2))
    one, other = whole(both).numpy()[:, :8]
    np.testing.assert_allclose(one, other)
    one, other = parts(both).numpy()[:, :32]
    assert np.abs(one - other).max() > 0.1
    vectors = parts(PIXELS).numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :32], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 32:], axis=1), 1, rtol=1e-5)


# Keras models


def test_a_layer_is_taken_and_scaled_as_asked(tmp_path):
    path = tiny_models.keras_model(tmp_path / "net.h5")
    network = tf.keras.models.load_model(path, compile=False)
    first = tf.keras.Model(network.input, network.layers[0].output)
    floats = tf.cast(PIXELS, tf.float32)
    for scaling, given in (("unit", floats / 255), ("symmetric", floats / 127.5 - 1)):
        encoder = build(
            family="keras_model",
            model=path,
            size=32,
            layer=network.layers[0].name,
            scaling=scaling,
            pooling="max",
        )
        np.testing.assert_allclose(
            encoder(PIXELS), tf.reduce_max(first(given), [1, 2]), rtol=1e-5, atol=1e-6
        )


def test_a_model_of_keras_3_is_read_as_a_graph(tmp_path):
    import keras

    network = keras.Sequential(
        [keras.Input([32, 32, 3]), keras.layers.Conv2D(8, 3), keras.layers.ReLU()]
    )
    network.save(tmp_path / "net.keras")
    settings = {"family": "keras_model", "model": str(tmp_path / "net.keras"), "size": 32}
    encoder = build(**settings)
    want = tf.reduce_mean(network(tf.cast(PIXELS, tf.float32)), [1, 2])
    np.testing.assert_allclose(encoder(PIXELS), want, rtol=1e-4, atol=1e-4)
    assert not encoder.not_exported
    copy = image.build_encoder(ImageConfig(**settings), None, assets=encoder.assets())
    copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(copy(PIXELS), encoder(PIXELS))
    assert copy.fingerprint() == encoder.fingerprint()
    with pytest.raises(ConfigError, match="image.trainable_layers: wanted 0.*Keras 3"):
        build(**settings, trainable_layers=-1)


def test_models_that_cannot_be_used(tmp_path):
    settings = {"family": "keras_model", "size": 32}
    path = tiny_models.keras_model(tmp_path / "net.keras")
    with pytest.raises(ConfigError, match="there is no file gone.keras"):
        build(**settings, model="gone.keras")
    with pytest.raises(ConfigError, match="has no layer 'conv'; did you mean 'conv2d"):
        build(**settings, model=path, layer="conv")
    with pytest.raises(ConfigError, match=r"image.size: wanted the size .* got 64"):
        build(family="keras_model", size=64, model=path)
    (tmp_path / "bad.keras").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="cannot be read"):
        build(**settings, model=str(tmp_path / "bad.keras"))
    code = tf.keras.Sequential([tf.keras.Input([32, 32, 3]), tf.keras.layers.Lambda(lambda x: x)])
    for name in ("code.h5", "code.keras"):
        code.save(tmp_path / name)
        with pytest.raises(ConfigError, match="a Lambda layer, which holds code"):
            build(**settings, model=str(tmp_path / name))


def test_ops_that_do_more_than_compute_are_named():
    def reads(x):
        return x + tf.cast(tf.strings.length(tf.io.read_file("secret")), tf.float32)

    spec = tf.TensorSpec([None], tf.float32)
    for function, ops in ((reads, ["ReadFile"]), (lambda x: tf.math.sin(x) ** 2, [])):
        found = freeze(tf.function(function, input_signature=[spec]).get_concrete_function())
        assert foreign_ops(found.graph) == ops


@pytest.mark.slow
def test_real_pictures_by_a_keras_model(shared):
    path = shared / "weights/image/efficientnet_lite0_imagenet.keras"
    if not path.is_file():
        pytest.skip("needs EfficientNet-Lite0 under shared/weights/image")
    encoder = build(family="keras_model", model=str(path), layer="avg_pool")
    pictures = tf.constant(np.stack([pixels(0, 224), pixels(0, 224)[:, ::-1], pixels(1, 224)]))
    vectors = tf.math.l2_normalize(encoder(pictures), axis=1)
    assert vectors.shape == (3, 1280)
    assert tf.reduce_sum(vectors[0] * vectors[1]) > tf.reduce_sum(vectors[0] * vectors[2])


# Models of the transformers library


@pytest.mark.slow
@pytest.mark.parametrize("model_type, dim", [("swin", 16), ("convnext", 8)])
def test_vision_models(tmp_path, model_type, dim):
    folder = tiny_models.vision(tmp_path / model_type, model_type)
    settings = {"family": "transformers", "weights": folder, "size": 32}
    encoder = build(**settings)
    vectors = encoder(PIXELS)
    assert vectors.shape == (2, dim)
    copy = image.build_encoder(ImageConfig(**settings), None, assets=encoder.assets())
    copy.set_weights(encoder.get_weights())
    np.testing.assert_allclose(copy(PIXELS), vectors, rtol=1e-5, atol=1e-6)
    trained = build(**settings, trainable_layers=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(trained(PIXELS, training=True) ** 2)
    weights = trained.trainable_weights
    assert 0 < len(weights) < len(trained.weights)
    assert all(gradient is not None for gradient in tape.gradient(loss, weights))
    with pytest.raises(ConfigError, match="image.pooling: wanted mean or max"):
        build(**settings, pooling="cls")


def test_a_vision_transformer_is_pooled_and_scaled_as_asked(tmp_path):
    import transformers

    folder = tiny_models.vision(tmp_path / "vit", "vit")
    model = transformers.TFViTModel.from_pretrained(folder)
    states = model(
        tf.transpose(tf.cast(PIXELS, tf.float32) / 127.5 - 1, [0, 3, 1, 2])
    ).last_hidden_state
    settings = {"family": "transformers", "weights": folder, "size": 32}
    for pooling, want in (
        ("cls", states[:, 0]),
        ("mean", tf.reduce_mean(states[:, 1:], 1)),
        ("max", tf.reduce_max(states[:, 1:], 1)),
    ):
        got = build(**settings, pooling=pooling)(PIXELS)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="image.size: wanted 32, .* got 64"):
        build(**{**settings, "size": 64})
    with pytest.raises(ConfigError, match="wanted a folder with a model"):
        build(**{**settings, "weights": "./nowhere"})
