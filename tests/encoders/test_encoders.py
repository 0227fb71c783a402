"""A grid: the encoder of each modality keeps each promise of `mmrec_tf.encoders.encoder`."""

import dataclasses
import inspect
import io
import types
import wave

import cv2
import numpy as np
import pytest
import tensorflow as tf
from support import tiny_models, tiny_pictures
from support.saved_encoders import Exported, saved_operations

from mmrec_tf.config import FAMILIES, AudioConfig, Config, ImageConfig, TextConfig, VideoConfig
from mmrec_tf.encoders import MODALITIES
from mmrec_tf.encoders.cache import build_encoders
from mmrec_tf.encoders.encoder import SharedEncoder, count_weights
from mmrec_tf.encoders.video import frames
from mmrec_tf.exporting.allowed_ops import ALLOWED
from mmrec_tf.runs.run import load_weights, save_weights
from mmrec_tf.schema import MODALITY_KINDS, ModalitySpec

TEXTS = ["a small gray bird", "Großer Specht; drums on trees!", "the café sparrow sings", ""]
CONFIGS = {
    "text": TextConfig(
        weights="random",
        max_tokens=12,
        vocabulary_size=80,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
    ),
    "image": ImageConfig(architecture="MobileNet", weights="random", size=32),
    "audio": AudioConfig(clip_seconds=0.25, num_mels=32, filters=(8, 16), trainable_layers=0),
    "gru": AudioConfig(
        clip_seconds=0.25, num_mels=32, filters=(8, 16), trainable_layers=0, gru_units=6
    ),
    # Its frames are read as the section "image" says.
    "video": VideoConfig(num_frames=3),
    "vector": None,
    "lstm": AudioConfig(
        family="recurrent",
        clip_seconds=0.25,
        num_mels=32,
        features="mfcc",
        num_mfcc=6,
        cell="lstm",
        units=7,
        trainable_layers=0,
    ),
    "saved_model": AudioConfig(family="saved_model", model="FOLDER", clip_seconds=0.25),
    "whisper": AudioConfig(
        family="transformers", weights="FOLDER", clip_seconds=0.25, trainable_layers=0
    ),
    "keras_model": ImageConfig(family="keras_model", model="FILE", size=32, scaling="unit"),
    "vit": ImageConfig(family="transformers", weights="FOLDER", size=32),
    "descriptors": ImageConfig(family="descriptors", size=32, bins=2),
    "word_vectors": TextConfig(family="word_vectors", vectors="FILE", max_tokens=6),
    "tfidf": TextConfig(family="tfidf", components=0, min_items=1, max_tokens=6),
    "lsa": TextConfig(family="tfidf", components=2, min_items=1, max_tokens=6),
    "bag_of_words": TextConfig(family="bag_of_words", components=0, min_items=1, max_tokens=6),
}
KINDS = {
    **{name: name for name in MODALITY_KINDS},
    **dict.fromkeys(("gru", "lstm", "saved_model", "whisper"), "audio"),
    **dict.fromkeys(("keras_model", "vit", "descriptors"), "image"),
    **dict.fromkeys(("word_vectors", "tfidf", "lsa", "bag_of_words"), "text"),
}
# Another of the same form is tried with each run.
SLOW = {
    *("tfidf", "lsa", "bag_of_words"),
    *("keras_model", "vit", "descriptors"),
    *("gru", "lstm", "saved_model", "whisper"),
}
# Whose augmentation is tried there.
SAME_AS = {"keras_model": "image"}
# Paths of those that are files, once `files_of` has made them.
FILES = {}
# All that there is, strong enough that no row stays as it is.
AUGMENTATION = {
    "text": {"word_dropout": 0.7, "synonyms": '{"a": ["s", "b"]}', "synonym_share": 1.0},
    "image": {"flip": True, "crop": 0.6, "color": 0.3, "blur": 1.5},
    "vit": {"flip": True, "crop": 0.6, "color": 0.3, "blur": 1.5},
    "audio": {"noise_db": -10.0, "shift_seconds": 0.1},
    "gru": {"noise_db": -10.0, "shift_seconds": 0.1},
    "lstm": {"noise_db": -10.0, "shift_seconds": 0.1},
}
OUTPUT_DIMS = {
    **{"text": 16, "image": 1024, "audio": 16, "gru": 6, "vector": 5, "video": tiny_pictures.DIM},
    # Thirteen words, without the marks of punctuation.
    **{"lstm": 7, "saved_model": 4, "whisper": 8},
    # 2 * 2 parts with 2 ** 3 colors and 4 * 9 directions.
    **{"keras_model": 5, "vit": 8, "descriptors": 176},
    **{"word_vectors": 3, "tfidf": 13, "lsa": 2, "bag_of_words": 13},
}
WORDS = "a small bird the sings gray Specht drums trees".split()


def jpeg(seed: int, height: int = 40, width: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def wav(seed: int, rate_hz: int = 16000, channels: int = 1) -> bytes:
    rng = np.random.default_rng(seed)
    time = np.arange(round(0.2 * rate_hz)) / rate_hz
    tone = 0.4 * np.sin(2 * np.pi * rng.uniform(300, 3000) * time) + 0.01 * rng.normal(
        size=time.size
    )
    pcm = np.repeat((tone * 32767).astype("<i2")[:, None], channels, axis=1)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm.tobytes())
    return out.getvalue()


RAW = {
    "text": tf.constant(TEXTS),
    "image": tf.constant([jpeg(0), jpeg(1, 90, 31), jpeg(2), b""]),
    "audio": tf.constant([wav(0), wav(1, 44100, channels=2), wav(2, 8000), b""]),
    "vector": tf.constant(np.random.default_rng(0).normal(2, 3, (4, 5)) * [[1], [1], [1], [0]]),
}
# Of as many frames, of more and of fewer than are read.
RAW["video"] = tf.constant(
    [b"".join(jpeg(seed, 20, 24) for seed in some) for some in ([4, 5, 6], range(7, 12), [12], [])]
)
RAW |= {name: RAW[kind] for name, kind in KINDS.items() if name not in RAW}
RAW["vector"] = tf.cast(RAW["vector"], tf.float32)


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """Where `files_of` puts what configs name by its path."""
    FILES.clear()
    FILES["folder"] = tmp_path_factory.mktemp("files")


def files_of(name):
    """Settings that name files, which are made when they are first asked for."""
    if name in FILES:
        return FILES[name]
    folder = FILES["folder"]
    tf.keras.utils.set_random_seed(0)
    made = {}
    if name == "word_vectors":
        rng = np.random.default_rng(0)
        lines = [" ".join([word, *map(str, rng.normal(size=3))]) for word in WORDS]
        (folder / "words.txt").write_text("\n".join(lines))
        made = {"vectors": str(folder / "words.txt")}
    elif name == "keras_model":
        made = {"model": tiny_models.keras_model(folder / "tiny.keras")}
    elif name == "saved_model":
        made = {"model": tiny_models.saved_sound(folder / "sound")}
    elif name == "whisper":
        made = {"weights": tiny_models.speech(folder / "whisper", "whisper")}
    elif name == "vit":
        made = {"weights": tiny_models.vision(folder / "vit", "vit")}
    FILES[name] = made
    return made


def build(name: str, *, assets=None, **changes):
    config, kind = CONFIGS[name], KINDS[name]
    if changes := {**files_of(name), **changes}:
        config = dataclasses.replace(config, **changes)
    values = RAW[name].numpy() if kind in ("text", "vector") and assets is None else None
    spec = ModalitySpec(kind, dim=5 if name == "vector" else 0)
    more = {"train_values": values} if kind == "text" else {}
    if name == "video":
        more["image"] = CONFIGS["image"]
    return MODALITIES[kind].build_encoder(config, spec, values=values, assets=assets, **more)


@pytest.fixture(scope="module", autouse=True)
def tiny_frames():
    """How frames are read is tried with pictures; here a network that is made at once will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "pictures", tiny_pictures)
        yield


def each(*names):
    """Parameters, of which some are tried with the slow tests only."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


@pytest.fixture(scope="module", params=each(*CONFIGS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(name):
    """Frozen, and for reading only: all tests share it."""
    tf.keras.utils.set_random_seed(1)
    encoder = build(name)
    if name == "image":
        settle(encoder)
    return encoder


def settle(encoder):
    """Takes batch statistics once: without, random weights shrink pictures to 1e-20."""
    for layer in encoder.network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.trainable, layer.momentum = True, 0.0
    encoder.network(tf.random.stateless_uniform([8, 32, 32, 3], [0, 0], -1, 1), training=True)
    encoder.network.trainable = False


def encode(encoder, raw):
    return encoder(encoder.preprocess(raw)).numpy()


def assert_close(got, want, *, share=1e-4):
    """Each number to within a share of the largest."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    if want.size:
        assert np.abs(got - want).max() <= share * np.abs(want).max()


def test_every_kind_has_a_module():
    assert tuple(MODALITIES) == MODALITY_KINDS


def test_content_follows_its_spec(name, encoder):
    content = encoder.preprocess(RAW[name])
    spec = encoder.content_spec()
    assert spec.shape[0] is None
    assert spec.is_compatible_with(content)
    assert tf.function(encoder.preprocess)(RAW[name]).dtype == spec.dtype


def test_vectors_are_float32_of_the_length_promised(name, encoder):
    vectors = encoder(encoder.preprocess(RAW[name]))
    assert vectors.dtype == tf.float32
    assert vectors.shape == (4, encoder.output_dim)
    assert encoder.output_dim == OUTPUT_DIMS[name]
    assert np.ptp(vectors[:3], axis=0).max() > 1e-3, "three different rows look alike"


def test_training_pipeline_equals_export(name, encoder, tmp_path):
    raw = RAW[name]
    want = encode(encoder, raw)
    batches = tf.data.Dataset.from_tensor_slices(raw).batch(3).map(encoder.preprocess)
    in_training = np.concatenate([encoder(content).numpy() for content in batches])
    assert_close(in_training, want)

    tf.saved_model.save(Exported(encoder, raw), str(tmp_path))
    reloaded = tf.saved_model.load(str(tmp_path))
    assert_close(reloaded.embed(raw), want)
    foreign = [op for op in saved_operations(tmp_path) if "PyFunc" in op or op.startswith("IO>")]
    assert not foreign
    assert saved_operations(tmp_path) - ALLOWED - {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} <= {
        "ShardedFilename"
    }
    if name != "text":
        assert not [op for op in saved_operations(tmp_path) if ">" in op], "core operations only"


@pytest.mark.parametrize("name", ["text", "audio"])
def test_export_of_a_trained_encoder_draws_nothing_at_random(name, tmp_path):
    encoder = build(name, trainable_layers=-1)
    content = encoder.preprocess(RAW[name])
    assert np.ptp([encoder(content, training=True) for _ in range(2)], axis=0).max() > 0
    tf.saved_model.save(Exported(encoder, RAW[name]), str(tmp_path))
    assert not [op for op in saved_operations(tmp_path) if "Random" in op]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_any_batch_size_and_rows_stand_alone(name, encoder, size):
    raw = RAW[name]
    want = encode(encoder, raw)[1 : 1 + size]
    got = tf.function(lambda x: encoder(encoder.preprocess(x)))(raw[1 : 1 + size]).numpy()
    assert got.shape == (size, encoder.output_dim)
    assert_close(got, want)


def test_absent_rows_are_finite(name, encoder):
    spec = encoder.content_spec()
    zeros = tf.zeros([2, *spec.shape[1:]], spec.dtype)
    assert np.isfinite(encoder(zeros)).all()
    assert np.isfinite(encode(encoder, RAW[name])[3]).all()


def test_config_and_weights_make_a_copy(name, encoder):
    copy = type(encoder).from_config(encoder.get_config())
    copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(encode(copy, RAW[name]), encode(encoder, RAW[name]))
    assert copy.fingerprint() == encoder.fingerprint()


def test_assets_and_checkpoint_make_a_copy(name, encoder, tmp_path):
    assert all(isinstance(text, str) for text in encoder.assets().values())
    tf.train.Checkpoint(encoder=encoder).write(str(tmp_path / "weights"))
    copy = build(name, assets=encoder.assets())
    tf.train.Checkpoint(encoder=copy).read(str(tmp_path / "weights")).assert_consumed()
    np.testing.assert_array_equal(encode(copy, RAW[name]), encode(encoder, RAW[name]))
    assert copy.fingerprint() == encoder.fingerprint()


def test_no_rows_in_a_graph(name, encoder):
    """A server passes an empty batch on; shapes are free in a graph alone, not in eager runs."""
    spec = tf.TensorSpec([None, *RAW[name].shape[1:]], RAW[name].dtype)
    graph = tf.function(lambda raw: encoder(encoder.preprocess(raw)), input_signature=[spec])
    assert graph(RAW[name][:0]).shape == (0, encoder.output_dim)


def test_fingerprint_follows_weights(name, encoder):
    copy = type(encoder).from_config(encoder.get_config())
    values = encoder.get_weights()
    if not values:
        return  # It has none to follow.
    values[-1] = values[-1] + 1e-3
    copy.set_weights(values)
    assert copy.fingerprint() != encoder.fingerprint()


@pytest.mark.parametrize(
    "name, setting",
    [
        ("text", {"max_tokens": 11}),
        ("text", {"pooling": "cls"}),
        ("audio", {"fmax_hz": 7000.0}),
        ("audio", {"clip_seconds": 0.3}),
        ("image", {"size": 33}),
        ("video", {"num_frames": 4}),
    ],
)
def test_fingerprint_follows_settings(name, setting):
    one = build(name)
    other = type(one).from_config({**one.get_config(), **setting})
    other.set_weights(one.get_weights())
    assert other.fingerprint() != one.fingerprint()


def test_frozen_encoder_trains_nothing_and_ignores_training(name, encoder):
    assert encoder.frozen
    assert not encoder.trainable_weights
    content = encoder.preprocess(RAW[name])
    before = encoder.get_weights()
    np.testing.assert_array_equal(encoder(content, training=True), encoder(content))
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def gradients(encoder, raw):
    content = encoder.preprocess(raw)
    with tf.GradientTape() as tape:
        vectors = encoder(content, training=True)
        loss = tf.reduce_sum(vectors * tf.random.stateless_normal(vectors.shape, [0, 1]))
    return tape.gradient(loss, encoder.trainable_weights)


@pytest.mark.parametrize(
    "name", each("text", "image", "audio", "gru", "video", "keras_model", "vit", "lstm", "whisper")
)
def test_gradient_reaches_every_weight_when_all_train(name):
    encoder = build(name, trainable_layers=-1)
    assert not encoder.frozen
    for weight, gradient in zip(
        encoder.trainable_weights, gradients(encoder, RAW[name]), strict=True
    ):
        assert gradient is not None, weight.name
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), weight.name
        # Softmax does not notice a constant added to all of its logits.
        if "/key/bias" not in weight.name:
            assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.name


@pytest.mark.parametrize(
    "name, one, two",
    [
        # A BERT block has 16 weights, a convolutional block 3, a GRU 3.
        ("text", 16, 32),
        ("audio", 3, 6),
        ("gru", 3, 6),
        # The last two layers of MobileNet with weights: batch normalization, convolution.
        ("image", 2, 3),
        ("video", 2, 4),
        pytest.param("keras_model", 2, 4, marks=pytest.mark.slow),
        # A block, and the normalization above it.
        pytest.param("vit", 18, 34, marks=pytest.mark.slow),
        pytest.param("lstm", 5, 5, marks=pytest.mark.slow),
        pytest.param("whisper", 17, 32, marks=pytest.mark.slow),
    ],
)
def test_last_n_train(name, one, two):
    for layers, count in [(1, one), (2, two)]:
        encoder = build(name, trainable_layers=layers)
        assert len(encoder.trainable_weights) == count
        assert all(gradient is not None for gradient in gradients(encoder, RAW[name]))


@pytest.mark.parametrize("name", ["text", "image", "audio", "gru"])
def test_frozen_layers_stay_as_they_are_while_others_train(name):
    """Batch statistics too, but for those of a normalization that trains."""
    encoder = build(name, trainable_layers=1)
    leaves = [
        part
        for part in encoder.submodules
        if isinstance(part, tf.keras.layers.Layer) and part.trainable_weights
        if not any(isinstance(below, tf.keras.layers.Layer) for below in part.submodules)
    ]
    free = {id(weight) for leaf in leaves for weight in leaf.weights}
    assert {id(weight) for weight in encoder.trainable_weights} <= free
    weights, before = list(encoder.weights), encoder.get_weights()
    optimizer = tf.keras.optimizers.AdamW(0.1, weight_decay=0.1)
    found = gradients(encoder, RAW[name])
    optimizer.apply_gradients(zip(found, encoder.trainable_weights, strict=True))
    for weight, old in zip(weights, before, strict=True):
        assert id(weight) in free or np.array_equal(weight, old), weight.name
    for weight, old in zip(weights, before, strict=True):
        if "bias" not in weight.name:
            assert id(weight) not in free or np.abs(weight - old).max() > 0, weight.name


def test_half_precision_is_finite_and_close(name, encoder):
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = type(encoder).from_config({**encoder.get_config(), "dtype": "mixed_float16"})
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    half.set_weights(encoder.get_weights())
    assert all(weight.dtype == tf.float32 for weight in half.weights)
    got, want = half(half.preprocess(RAW[name])), encode(encoder, RAW[name])
    assert got.dtype == tf.float32
    assert np.isfinite(got).all()
    # As a whole: through many layers of random weights one number in a thousand is off by more.
    assert np.linalg.norm(got - want) <= 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize(
    "name", each("text", "audio", "gru", "vector", "word_vectors", "tfidf", "lsa"), indirect=True
)
def test_compiled_by_xla_equals_plain(name, encoder):
    content = encoder.preprocess(RAW[name])
    compiled = tf.function(lambda x: encoder(x), jit_compile=True)(content)
    assert_close(compiled, encoder(content), share=1e-3)


@pytest.fixture(scope="module", params=each(*AUGMENTATION))
def augmented(request):
    """A kind, and its encoder with augmentation, trained in whole; for reading only."""
    tf.keras.utils.set_random_seed(1)
    name = request.param
    return name, with_augmentation(build(name, trainable_layers=-1), name)


def with_augmentation(encoder, name, **changes):
    copy = type(encoder).from_config({**encoder.get_config(), **AUGMENTATION[name], **changes})
    copy.set_weights(encoder.get_weights())
    return copy


def test_every_setting_is_in_the_config(name, encoder):
    of_keras = {*inspect.signature(tf.keras.layers.Layer.__init__).parameters, "kwargs", "args"}
    makers = [vars(base).get("__init__") for base in type(encoder).__mro__]
    names = {
        name
        for make in makers
        if getattr(make, "__module__", "").startswith("mmrec_tf")
        for name in inspect.signature(make).parameters
    }
    names -= {*of_keras, "self"}
    if not encoder.augmentation:
        # What it shares with those that train has no effect on it.
        names -= {"trainable_layers", "flip", "crop", "color", "blur"}
    assert names <= set(encoder.get_config())
    assert set(encoder.augmentation) <= names
    assert set(encoder.augmentation) == set(AUGMENTATION.get(SAME_AS.get(name, name), ()))


def test_augmentation_survives_the_config_and_is_not_in_the_fingerprint(augmented):
    name, encoder = augmented
    copy = type(encoder).from_config(encoder.get_config())
    assert {key: copy.get_config()[key] for key in AUGMENTATION[name]} == AUGMENTATION[name]
    off = build(name, trainable_layers=-1)
    off.set_weights(encoder.get_weights())
    assert off.fingerprint() == encoder.fingerprint()


def test_augmentation_acts_in_training_alone(augmented):
    name, encoder = augmented
    content = encoder.preprocess(RAW[name])
    off = build(name, trainable_layers=-1)
    off.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(encoder(content), off(content))
    changed = encoder._augment(floats_of(content))
    assert changed.shape == content.shape
    assert np.isfinite(changed).all()
    assert all((changed[row].numpy() != content[row].numpy()).any() for row in range(3))
    frozen = type(encoder).from_config({**encoder.get_config(), "trainable_layers": 0})
    np.testing.assert_array_equal(frozen(content, training=True), frozen(content))


def floats_of(content):
    return tf.cast(content, tf.float32) if content.dtype == tf.uint8 else content


def test_each_row_is_augmented_in_its_own_way(augmented):
    name, encoder = augmented
    content = tf.repeat(encoder.preprocess(RAW[name])[:3], 16, axis=0)
    changed = encoder._augment(floats_of(content))
    assert len({row.tobytes() for row in changed.numpy()}) > 12


def in_training(encoder, content, **options):
    """A graph that takes any number of rows, its draws those of seed 3."""
    tf.keras.utils.set_random_seed(3)
    spec = tf.TensorSpec([None, *content.shape[1:]], content.dtype)
    return tf.function(lambda x: encoder(x, training=True), input_signature=[spec], **options)


def test_augmentation_takes_any_batch_size(augmented):
    name, encoder = augmented
    content = encoder.preprocess(RAW[name])
    graph = in_training(encoder, content)
    for size in (0, 1, 4):
        for vectors in (graph(content[:size]), encoder(content[:size], training=True)):
            assert vectors.shape == (size, encoder.output_dim)
            assert np.isfinite(vectors).all()


def test_augmentation_follows_the_seed(augmented):
    name, encoder = augmented
    content = encoder.preprocess(RAW[name])
    one, two = (in_training(encoder, content) for _ in range(2))
    first = one(content)
    assert np.ptp([first, one(content)], axis=0).max() > 0
    tf.keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(two(content), first)
    eager = []
    for _ in range(2):
        tf.keras.utils.set_random_seed(3)
        eager.append(encoder(content, training=True))
    np.testing.assert_array_equal(*eager)


def test_augmentation_compiled_by_xla(augmented):
    name, encoder = augmented
    content = encoder.preprocess(RAW[name])
    vectors = in_training(encoder, content, jit_compile=True)(content)
    assert vectors.shape == (4, encoder.output_dim)
    assert np.isfinite(vectors).all()


def test_augmentation_in_half_precision_trains(augmented):
    name, encoder = augmented
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = with_augmentation(encoder, name, dtype="mixed_float16")
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for layers in (encoder, half):
        values = [tf.convert_to_tensor(gradient) for gradient in gradients(layers, RAW[name])]
        assert all(np.isfinite(value).all() for value in values)
        assert sum(np.abs(value).max() > 0 for value in values) > 0.9 * len(values)


# Families


def test_the_grid_runs_every_family_of_every_kind():
    tried = {(KINDS[name], config.family) for name, config in CONFIGS.items() if config}
    known = {kind: getattr(MODALITIES[kind], "FAMILIES", {}) for kind in MODALITIES}
    # Faces of one encoder are tried in test_clip.py.
    assert tried == {
        (kind, name)
        for kind, families in known.items()
        for name, family in families.items()
        if not hasattr(family, "build_shared")
    }
    # The config knows the same ones.
    assert {kind: set(families) for kind, families in known.items() if families} == {
        kind: set(families) for kind, families in FAMILIES.items()
    }


class Lengths(SharedEncoder):
    """How long texts and pictures are in bytes, through one dense layer for both."""

    def __init__(self, **kwargs):
        super().__init__(trainable_layers=-1, **kwargs)
        self.dense = tf.keras.layers.Dense(3, name="dense")
        self.dense.build([None, 2])

    def output_dim(self, kind):
        return 3

    def content_spec(self, kind):
        return tf.TensorSpec([None, 2], tf.float32)

    def preprocess(self, raw, kind):
        length = tf.cast(tf.strings.length(raw), tf.float32)
        return tf.stack([length, tf.fill(tf.shape(length), float(kind == "text"))], axis=1)

    def encode(self, content, kind, *, training=False):
        return self.dense(content)


def test_one_encoder_may_read_two_kinds(monkeypatch, tmp_path):
    family = types.ModuleType("lengths")
    family.build_shared = lambda config, *, assets: Lengths()
    config = Config()
    for kind, name in (("text", "bert"), ("image", "applications")):
        monkeypatch.setitem(MODALITIES[kind].FAMILIES, name, family)
    specs = {"title": ModalitySpec("text"), "cover": ModalitySpec("image")}

    def made():
        return build_encoders(config, specs, {"title": [], "cover": []})

    faces = made()
    title, cover = faces["title"], faces["cover"]
    assert title.shared is cover.shared
    assert title.fingerprint() != cover.fingerprint()
    # 2 * 3 weights and 3 offsets, once.
    assert count_weights(faces) == {"title": 9, "cover": 0}
    raw = tf.constant(["abc", ""])
    np.testing.assert_array_equal(title.preprocess(raw), [[3, 1], [0, 1]])
    np.testing.assert_array_equal(cover.preprocess(raw), [[3, 0], [0, 0]])
    # Trained through one face, the other has the same weights; so it has after saving.
    model = tf.keras.layers.Layer()
    model.encoders = faces
    assert len(model.trainable_weights) == 2
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(title(title.preprocess(raw)))
    weights = model.trainable_weights
    for gradient, weight in zip(tape.gradient(loss, weights), weights, strict=True):
        weight.assign_sub(gradient)
    save_weights(tmp_path / "encoders", **faces)
    again = made()
    load_weights(tmp_path / "encoders", **again)
    np.testing.assert_array_equal(again["cover"](tf.eye(2)), title(tf.eye(2)))
    assert again["cover"].shared is again["title"].shared
