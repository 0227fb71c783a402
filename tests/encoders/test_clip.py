import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import transformers
from support import small_world, tiny_models

import mmrec_tf
from mmrec_tf.config import Config
from mmrec_tf.encoders.cache import build_encoders
from mmrec_tf.encoders.encoder import Face
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.allowed_ops import other_ops
from mmrec_tf.runs.train import train_run
from mmrec_tf.schema import ModalitySpec

TEXTS = [
    "A small  gray bird",
    "the bird's trees; 2 birds sing!",
    "",
    "Café größer 鳥 🐦 drums " * 9,
]
SPECS = {"title": ModalitySpec("text"), "cover": ModalitySpec("image")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tf.keras.utils.set_random_seed(0)
    return tiny_models.clip(tmp_path_factory.mktemp("clip"))


def settings(folder, **more):
    both = {f"{kind}.{name}": value for kind in ("text", "image") for name, value in more.items()}
    return {
        "text.family": "clip",
        "image.family": "clip",
        "text.weights": folder,
        "image.weights": folder,
        "text.max_tokens": 20,
        "image.size": 32,
        **both,
    }


def build(folder, *, assets=None, changed=None, **more):
    config = Config().override({**settings(folder, **more), **(changed or {})})
    return build_encoders(config, SPECS, dict.fromkeys(SPECS, ()), assets=assets)


@pytest.fixture(scope="module")
def faces(folder):
    return build(folder)


def jpegs():
    drawn = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return tf.constant([cv2.imencode(".png", one)[1].tobytes() for one in drawn])


def test_byte_pairs_are_those_of_the_library(faces, folder):
    backend = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    backend.enable_truncation(20)
    want = [found.ids for found in backend.encode_batch(TEXTS)]
    ids = faces["title"].preprocess(tf.constant(TEXTS)).numpy()
    for row, found in zip(ids, want, strict=True):
        np.testing.assert_array_equal(row[: len(found)], found)
        assert set(row[len(found) :]) <= {found[-1]}
    assert faces["title"].preprocess(tf.constant([], tf.string)).shape == (0, 20)


def test_both_kinds_are_read_as_by_the_library(faces, folder):
    model = transformers.TFCLIPModel.from_pretrained(folder)
    title, cover = faces["title"], faces["cover"]
    assert isinstance(title, Face) and title.shared is cover.shared and title.frozen
    content = title.preprocess(tf.constant(TEXTS))
    pixels = cover.preprocess(jpegs())
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    scaled = tf.transpose((tf.cast(pixels, tf.float32) / 255 - mean) / std, [0, 3, 1, 2])
    for face, given, want in (
        (title, content, model.get_text_features(input_ids=content)),
        (cover, pixels, model.get_image_features(pixel_values=scaled)),
    ):
        want = tf.math.l2_normalize(want, axis=1)
        np.testing.assert_allclose(face(given), want, rtol=1e-4, atol=1e-5)
        assert face(given[:0]).shape == (0, 6) and face.output_dim == 6
    with pytest.raises(tf.errors.InvalidArgumentError):
        cover.preprocess(tf.constant(["no picture"]))
    assert cover.preprocess_readable(tf.constant(["no picture", ""]))[1].numpy().tolist() == [
        True,
        False,
    ]


def test_both_faces_are_made_again_of_what_a_run_keeps(faces):
    again = build("gone", assets={name: face.assets() for name, face in faces.items()})
    again["title"].shared.set_weights(faces["title"].shared.get_weights())
    for name, face in faces.items():
        assert again[name].fingerprint() == face.fingerprint()
    assert faces["title"].fingerprint() != faces["cover"].fingerprint()


@pytest.mark.slow
def test_both_halves_are_exported_in_core_operations(faces, tmp_path):
    title, cover = faces["title"], faces["cover"]

    class Model(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.string)]
        )
        def call(self, text, picture):
            return title(title.preprocess(text)), cover(cover.preprocess_readable(picture)[0])

    module = Model()
    module.weights = title.shared.weights
    tf.saved_model.save(module, str(tmp_path))
    assert not other_ops(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    got = loaded.call(tf.constant(TEXTS), jpegs())
    want = title(title.preprocess(tf.constant(TEXTS))), cover(cover.preprocess(jpegs()))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, -1])
def test_both_halves_train(folder, layers):
    faces = build(folder, trainable_layers=layers)
    shared = faces["title"].shared
    with tf.GradientTape() as tape:
        title, cover = faces["title"], faces["cover"]
        loss = tf.reduce_sum(title(title.preprocess(tf.constant(TEXTS)), training=True) ** 3)
        loss += tf.reduce_sum(cover(cover.preprocess(jpegs()), training=True) ** 3)
    gradients = tape.gradient(loss, shared.trainable_weights)
    assert gradients and all(gradient is not None for gradient in gradients)
    assert (len(gradients) == len(shared.weights) - 1) == (layers < 0)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [0, 1])
def test_from_training_to_a_search_by_words(dataset, tmp_path, layers):
    """The run and the export keep what they need: the folder of the weights may go."""
    weights = tiny_models.clip(tmp_path / "clip")
    both = settings(weights, trainable_layers=layers)
    config = small_world.config(**{name.replace(".", "__"): value for name, value in both.items()})
    train_run(dataset, config, tmp_path / "run")
    shutil.rmtree(weights)
    run = mmrec_tf.load_run(tmp_path / "run")
    # The export is asked in a process of its own, and compared with what Python answers.
    mmrec_tf.export(run.recommender(), tmp_path / "export", version=1, k=5)
    folder = tmp_path / "export/encoder/1"
    assert not other_ops(folder)
    search = tf.saved_model.load(str(folder)).signatures["search"]
    item = dataset.catalog.content["text"][1].decode()
    asked = {
        name: tf.constant([[""]] if spec.dtype == tf.string else np.zeros([1, 1, 6], np.float32))
        for name, spec in search.structured_input_signature[1].items()
    }
    found = search(**asked | {"text": tf.constant([[item]])})
    assert found["item_id"].shape == (1, 5) and np.isfinite(found["score"]).all()
    # Texts and pictures fall into one space before any alignment: both have the same length.
    dims = {run.retrieval.encoders[kind].output_dim for kind in ("text", "image")}
    assert dims == {6}


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(ConfigError, match="image.trainable_layers: wanted 0 as text.trainable"):
        build(folder, changed={"image.trainable_layers": 1})
    with pytest.raises(ConfigError, match="image.size: wanted 32"):
        build(folder, changed={"image.size": 64})
    with pytest.raises(ConfigError, match="text.max_tokens: this CLIP has 20 positions"):
        build(folder, changed={"text.max_tokens": 30})
    with pytest.raises(ConfigError, match="text.weights: wanted a hub id .* CLIP"):
        Config().override({"text.family": "clip"})
