"""A BERT with a few new weights: as it was before training, and trained in those alone."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.saved_encoders import SPEC, TEXTS, Exported, save_model, saved_operations

import mmrec_tf
from mmrec_tf.config import Config, TextConfig
from mmrec_tf.encoders.adapters import Bottleneck, LowRank
from mmrec_tf.encoders.text import bert as text
from mmrec_tf.errors import ConfigError
from mmrec_tf.runs.train import train_run

HIDDEN, INNER, RANK = 8, 32, 3
# New weights of one block: two updates A and B; two bottlenecks with biases.
NUM_WEIGHTS = {"lora": 4, "adapter": 8}
NUM_PARAMETERS = {"lora": 2 * 2 * HIDDEN * RANK, "adapter": 2 * (2 * HIDDEN * RANK + RANK + HIDDEN)}


@pytest.fixture(scope="module")
def plain():
    """BERT as someone trained it; for reading only."""
    tf.keras.utils.set_random_seed(1)
    config = TextConfig(
        weights="random",
        max_tokens=8,
        vocabulary_size=60,
        hidden_size=HIDDEN,
        num_layers=2,
        num_heads=2,
    )
    return text.build_encoder(config, SPEC, values=TEXTS)


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    return save_model(plain, tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["lora", "adapter"])
def kind(request):
    return request.param


@pytest.fixture
def adapt(folder, kind):
    def build(layers=-1, *, assets=None, **settings):
        config = TextConfig(
            weights=str(folder),
            max_tokens=8,
            trainable_layers=layers,
            **{"adaptation": kind, "adaptation_rank": RANK, **settings},
        )
        return text.build_encoder(config, SPEC, assets=assets)

    return build


def content(encoder):
    return encoder.preprocess(tf.constant([*TEXTS[:3], ""]))


def step(encoder):
    """Trains all that can be, far enough to see. Dropout is on, and so are decay and momentum."""
    optimizer = tf.keras.optimizers.AdamW(0.1, weight_decay=0.1)
    for _ in range(2):
        with tf.GradientTape() as tape:
            vectors = encoder(content(encoder), training=True)
            loss = tf.reduce_sum(vectors * tf.random.stateless_normal(vectors.shape, [0, 1]))
        weights = encoder.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))


def named(encoder):
    return {id(weight): weight.numpy() for weight in encoder.weights}


def test_the_layers_by_hand(kind):
    rng = np.random.default_rng(0)
    dense = tf.keras.layers.Dense(5, name="query")
    dense.build([None, None, 4])
    layer = {"lora": LowRank, "adapter": Bottleneck}[kind](dense, 2)
    x = rng.normal(size=(3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(layer(x), dense(x))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    h = x @ dense.kernel.numpy() + dense.bias.numpy()
    down, up = layer.down.kernel.numpy(), layer.up.kernel.numpy()
    if kind == "lora":
        want = h + x @ down @ up
    else:
        z = h @ down + layer.down.bias.numpy()
        gelu = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
        want = h + gelu @ up + layer.up.bias.numpy()
    np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-4)
    assert layer.name == "query"


@pytest.mark.parametrize("layers", [1, 2, 5, -1])
def test_before_training_it_is_the_pretrained_encoder(plain, kind, adapt, layers):
    encoder = adapt(layers)
    np.testing.assert_array_equal(encoder(content(encoder)), plain(content(plain)))
    blocks = 1 if layers == 1 else 2
    assert len(encoder.trainable_weights) == blocks * NUM_WEIGHTS[kind]
    trained = sum(int(np.prod(weight.shape)) for weight in encoder.trainable_weights)
    assert trained == blocks * NUM_PARAMETERS[kind]
    assert encoder.count_params() == plain.count_params() + trained
    assert not encoder.frozen


@pytest.mark.parametrize("layers", [1, -1])
def test_pretrained_weights_find_their_place_however_many_train(plain, adapt, layers):
    """The order of weights depends on which of them train."""
    encoder = adapt(layers, adaptation="full")
    np.testing.assert_array_equal(encoder(content(encoder)), plain(content(plain)))


@pytest.mark.parametrize("layers", [1, -1])
def test_only_the_new_weights_of_the_last_blocks_train(kind, adapt, layers):
    encoder = adapt(layers)
    before, vectors = named(encoder), encoder(content(encoder))
    trained = {id(weight) for weight in encoder.trainable_weights}
    step(encoder)
    for key, value in named(encoder).items():
        changed = np.abs(value - before[key]).max()
        assert changed > 1e-3 if key in trained else changed == 0
    assert np.abs(encoder(content(encoder)) - vectors).max() > 1e-3
    blocks = encoder.bert.bert.encoder.layer
    last = {id(weight) for weight in (blocks[1].weights if layers == 1 else encoder.weights)}
    assert trained <= last


def test_frozen_blocks_stay_as_they_are(adapt):
    encoder = adapt(1, adaptation="full")
    before = named(encoder)
    step(encoder)
    main = encoder.bert.bert
    for weight in (*main.embeddings.weights, *main.encoder.layer[0].weights):
        np.testing.assert_array_equal(weight, before[id(weight)])
    for weight in main.encoder.layer[1].weights:
        # Softmax does not notice a constant added to all of its logits.
        assert "/key/bias" in weight.name or np.abs(weight - before[id(weight)]).max() > 1e-3


def test_all_new_weights_are_drawn_or_zero(kind, adapt):
    encoder = adapt()
    for block in encoder.bert.bert.encoder.layer:
        attention = block.attention
        layers = {
            "lora": [attention.self_attention.query, attention.self_attention.value],
            "adapter": [attention.dense_output.dense, block.bert_output.dense],
        }[kind]
        for layer in layers:
            assert np.abs(layer.down.kernel).max() > 0
            assert np.abs(layer.up.kernel).max() == 0
    one, other = layers
    # 1 / sqrt(fan in) in LoRA's own code.
    if kind == "lora":
        assert 0.5 * HIDDEN**-0.5 < np.abs(one.down.kernel).max() <= HIDDEN**-0.5
        assert np.abs(one.down.kernel - other.down.kernel).max() > 0.01


def test_copies_are_the_same(adapt, tmp_path):
    encoder = adapt(1)
    untrained = encoder.fingerprint()
    step(encoder)
    assert encoder.fingerprint() != untrained
    tf.train.Checkpoint(text=encoder).write(str(tmp_path / "weights"))
    again = adapt(1, assets=encoder.assets())
    tf.train.Checkpoint(text=again).read(str(tmp_path / "weights")).assert_consumed()
    copy = text.Encoder.from_config(encoder.get_config())
    copy.set_weights(encoder.get_weights())
    for other in (again, copy):
        np.testing.assert_array_equal(other(content(other)), encoder(content(encoder)))
        assert other.fingerprint() == encoder.fingerprint()
        assert len(other.trainable_weights) == len(encoder.trainable_weights)


@pytest.mark.slow
def test_other_ways_to_compute_it(kind, adapt, tmp_path):
    encoder = adapt()
    step(encoder)
    raw = tf.constant([*TEXTS[:3], ""])
    want = encoder(content(encoder))
    compiled = tf.function(lambda ids: encoder(ids), jit_compile=True)(content(encoder))
    np.testing.assert_allclose(compiled, want, atol=1e-4)
    tf.saved_model.save(Exported(encoder, raw), str(tmp_path))
    reloaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(reloaded.embed(raw), want, atol=1e-5)
    assert not [op for op in saved_operations(tmp_path) if "PyFunc" in op or op.startswith("IO>")]
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        half = text.Encoder.from_config({**encoder.get_config(), "dtype": "mixed_float16"})
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    half.set_weights(encoder.get_weights())
    assert all(weight.dtype == tf.float32 for weight in half.weights)
    np.testing.assert_allclose(half(content(half)), want, atol=0.1)


@pytest.mark.slow
def test_a_run_goes_from_training_to_the_export(dataset, tmp_path):
    config = small_world.config(
        modalities=["text"],
        user__profile=False,
        text__trainable_layers=1,
        text__adaptation="lora",
        text__adaptation_rank=2,
        ranking__epochs=0,
        training__epochs=1,
    )
    run = train_run(dataset, config, tmp_path / "run")
    loaded = mmrec_tf.load_run(tmp_path / "run")
    trained = run.retrieval.encoders["text"]
    assert len(trained.trainable_weights) == NUM_WEIGHTS["lora"]
    assert all(np.abs(weight).max() > 0 for weight in trained.trainable_weights)
    assert loaded.retrieval.encoders["text"].fingerprint() == trained.fingerprint()
    want = run.retrieval.embed_catalog().embedding
    np.testing.assert_allclose(loaded.retrieval.embed_catalog().embedding, want, atol=1e-6)
    # What `export` writes is compared with Python's answers before it counts.
    mmrec_tf.export(loaded.recommender(), tmp_path / "export", version=1, k=5)
    model = tf.saved_model.load(str(tmp_path / "export/recommender/1"))
    users, history = ["", ""], [[small_world.item_id(3)], [small_world.item_id(4)]]
    nothing = {name: tf.fill([len(users), 0], "") for name in ("exclude", "allow", "deny")}
    nothing["time"] = tf.zeros([len(users)], tf.int64)
    answer = model.signatures["recommend"](
        user_id=tf.constant(users), history=tf.constant(history), **nothing
    )
    python = run.recommender().recommend(users, history=history, k=5)
    np.testing.assert_allclose(answer["score"], python.score, atol=1e-4)


def test_nothing_to_adapt_is_refused():
    with pytest.raises(ConfigError, match="text.adaptation: .* text.trainable_layers is 0"):
        Config(text=TextConfig(adaptation="lora"))
    frozen = TextConfig(adaptation="lora", trainable_layers=2).frozen()
    assert (frozen.adaptation, frozen.frozen()) == ("full", frozen)
    with pytest.raises(ConfigError, match="full, lora, adapter"):
        Config().override({"text.adaptation": "lora4"})
    with pytest.raises(ConfigError, match="at least 1"):
        dataclasses.replace(TextConfig(), adaptation_rank=0)
