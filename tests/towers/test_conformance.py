"""A grid: every layer keeps every promise. A new layer is one line of `CASES`.

The encoders of the modalities have a grid of their own in `test_modalities`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import mmrec_tf
from mmrec_tf.dataset.draws import Dropout
from mmrec_tf.encoders.pooling import AttentionPool, OrderedPool
from mmrec_tf.ranking.feature_interaction import (
    BilinearProduct,
    Cross,
    DotInteraction,
    FactorizationMachine,
    Flattened,
    TargetAttention,
)
from mmrec_tf.ranking.multitask import PLE, MMoE, SharedBottom, UncertaintyWeights
from mmrec_tf.ranking.pair_features import PairFeatures
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.towers import IdEmbedding, ItemTower, SelfAttention, SideFeatures, UserTower
from mmrec_tf.towers.alignment import Alignment, TranslationLoss
from mmrec_tf.towers.fusion import (
    Attention,
    Bilinear,
    Concat,
    Gated,
    Mean,
    Recurrent,
    Transformer,
    Weighted,
)
from mmrec_tf.towers.labels import LabelHeads
from mmrec_tf.towers.missing import MissingModality

ROWS, DIM, STEPS = 5, 4, 3
SIZES = {"genre": 5, "price": 0}


class Case(NamedTuple):
    """A layer, what it is called with, and what else is known of it.

    `loss` is a loss that reaches the weights which do not act on the output. `unreached` are ends
    of names of weights that no gradient can reach. `half` is the dtype of the output under half
    precision; `exact` says that half precision changes nothing.
    """

    layer: type[tf.keras.layers.Layer]
    settings: dict
    inputs: Callable[[np.random.Generator], tuple]
    loss: Callable | None = None
    unreached: tuple[str, ...] = ()
    half: str = "float32"
    exact: bool = False


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def fusion_inputs(rng):
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    return normal(rng, ROWS, 3, DIM), present


def missing_inputs(rng):
    """Some of what is present is not used; of the last row nothing is."""
    modalities, present = fusion_inputs(rng)
    used = present & np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]], bool)
    return modalities, present, used


def triple_inputs(rng):
    return normal(rng, ROWS, DIM), np.array([0, 1, 1, 0, 1], np.int32), normal(rng, ROWS, DIM)


def alignment_inputs(rng):
    return [normal(rng, ROWS, 6), normal(rng, ROWS, 2)], fusion_inputs(rng)[1][:, :2]


def feature_inputs(rng):
    """Two categories a row, one, none; a number known and not."""
    genre = np.array([[2, 3], [4, 0], [0, 0], [1, 0], [3, 2]], np.int32)
    known = np.array([1, 0, 1, 1, 0], np.float32)
    return {"genre": genre, "price": np.stack([normal(rng, ROWS), known], axis=1)}


def item_inputs(rng):
    (text, image), present = alignment_inputs(rng)
    return {
        "item": np.array([0, 3, -1, -1, 3], np.int32),
        "present": present,
        "encoded": {"text": text, "image": image},
        "features": feature_inputs(rng),
    }


def user_inputs(rng):
    return {
        "user": np.array([0, 3, -1, -1, 3], np.int32),
        "history": normal(rng, ROWS, STEPS, DIM),
        "known": np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]], bool),
        # In seconds; not known of the last history.
        "gap": np.array([[9, 5, 0], [70, 0, -1], [4, 2, 0], [-1] * 3, [-1] * 3], np.float32),
        "profile": normal(rng, ROWS, 6) * np.array([[1], [0], [1], [0], [1]], np.float32),
        "features": feature_inputs(rng),
    }


def history_inputs(rng):
    known = user_inputs(rng)["known"]
    # The last step of a row without one is known here, as such a row is of no meaning.
    known[3, 2] = True
    return normal(rng, ROWS, STEPS, DIM), known


def pool_inputs(rng):
    """Of the last row no value counts."""
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]], bool)
    return normal(rng, ROWS, STEPS, DIM), present


def label_inputs(rng):
    return (normal(rng, ROWS, DIM),)


LABELS = {
    "forms": {"genre": "softmax", "tags": "sigmoid"},
    "sizes": {"genre": 3, "tags": 2},
    "buckets": {"genre": 2, "tags": 2},
    "dim": DIM,
}


def past_inputs(rng):
    """Items of histories: a gap, one that comes twice, none at all."""
    return (np.array([[0, 5, 2], [3, -1, 1], [4, 4, 2], [-1, -1, -1], [1, 0, -1]], np.int32),)


def pair_inputs(rng):
    """Fields and numbers."""
    return ((normal(rng, ROWS, 3, DIM), normal(rng, ROWS, 2)),)


def target_inputs(rng):
    """Candidates, a history that lacks steps or all of them, and which are known."""
    made = user_inputs(rng)
    return ((normal(rng, ROWS, 2, DIM), made["history"], made["known"]),)


def request_inputs(rng):
    """Two candidates a row; of the last two rows the time is not known."""
    made, pairs = user_inputs(rng), (ROWS, 2)
    genre = np.array([[2, 3], [4, 0], [0, 0], [1, 0], [3, 2]], np.int32)
    price = np.stack([normal(rng, *pairs), np.ones(pairs, np.float32)], axis=2)
    return (
        {
            "user": normal(rng, ROWS, DIM),
            "item": normal(rng, *pairs, DIM),
            "numbers": normal(rng, *pairs, 2),
            "modalities": normal(rng, *pairs, 3, DIM),
            "present": rng.random([*pairs, 3]) < 0.7,
            "weights": normal(rng, *pairs, 3),
            "item_features": {"genre": np.stack([genre, genre[::-1]], axis=1), "price": price},
            "user_features": made["features"],
            "history": made["history"],
            "known": made["known"],
            "time": np.array([7200, 10**9, 90000, 0, 0], np.int64),
        },
    )


def every_output(layer, outputs, inputs):
    return tf.add_n([tf.reduce_sum(tf.sin(part)) for part in outputs])


def alignment_loss(layer, outputs, inputs):
    return layer.loss(outputs[0], inputs[1])


def translation_loss(layer, outputs, inputs):
    """Over nodes: five items, and two other entities behind them."""
    nodes = np.array([[0, 1, 2, 5, 6], [6, 5, 3, 4, 0], [5, 6, 4, 2, 1]], np.int32)
    return layer.loss(inputs[0], ROWS, nodes[0], inputs[1], *nodes[1:])


def tower_loss(layer, outputs, inputs):
    return layer.alignment.loss(outputs[1], outputs[2])


def fusion(layer, *unreached):
    return Case(layer, {}, fusion_inputs, unreached=unreached, half="float16")


def missing(kind):
    return Case(MissingModality, {"kind": kind}, missing_inputs, half="float16")


def interaction(layer, **settings):
    return Case(layer, settings, pair_inputs, loss=every_output, exact=True)


def experts(layer, **settings):
    return Case(
        layer,
        {"num_tasks": 2, "dropout": 0.5, **settings},
        lambda rng: (normal(rng, ROWS, DIM),),
        loss=every_output,
        exact=True,
    )


def item(**settings):
    return Case(
        ItemTower,
        {"modalities": ("text", "image"), "num_items": 4, "dim": DIM, **settings},
        lambda rng: (item_inputs(rng),),
        loss=tower_loss if settings.get("modalities", True) else None,
    )


def user(*unreached, **settings):
    return Case(
        UserTower,
        {"num_users": 4, "dim": DIM, **settings},
        lambda rng: (user_inputs(rng),),
        unreached=unreached,
    )


CASES = {
    "dropout": Case(
        Dropout,
        {"rate": 0.5},
        lambda rng: (rng.normal(size=(ROWS, DIM)).astype(np.float32),),
        half="float16",
    ),
    "mean": fusion(Mean),
    "weighted": fusion(Weighted),
    "gated": fusion(Gated),
    "attention": fusion(Attention),
    "concat": fusion(Concat),
    # What a query adds to all scores alike, a softmax takes out again.
    "transformer": fusion(Transformer, "key/bias:0"),
    "recurrent": fusion(Recurrent),
    "bilinear": fusion(Bilinear),
    "missing_skip": missing("skip"),
    "missing_token": missing("token"),
    "missing_mean": missing("mean"),
    "missing_mapped": missing("mapped"),
    "alignment": Case(Alignment, {"dim": DIM}, alignment_inputs, alignment_loss),
    "alignment_hidden": Case(
        Alignment, {"dim": DIM, "hidden": 5, "temperature": 0.5}, alignment_inputs, alignment_loss
    ),
    "alignment_none": Case(Alignment, {"dim": DIM, "kinds": ()}, alignment_inputs),
    "alignment_ridge": Case(
        Alignment, {"dim": DIM, "kinds": ("ridge",), "l2": 0.5}, alignment_inputs
    ),
    "alignment_graph": Case(
        Alignment, {"dim": DIM, "kinds": ("graph",), "trainable_maps": False}, alignment_inputs
    ),
    "alignment_several": Case(
        Alignment,
        {"dim": DIM, "kinds": ("contrastive", "graph", "cca")},
        alignment_inputs,
        alignment_loss,
    ),
    "translation": Case(
        TranslationLoss,
        {"num_entities": 2, "num_relations": 2, "dim": DIM, "margin": 9.0},
        triple_inputs,
        translation_loss,
        exact=True,
    ),
    "ids": Case(
        IdEmbedding,
        {"num_ids": 4, "dim": DIM},
        lambda rng: (np.array([0, 3, -1, 2, 3], np.int32),),
        half="float16",
    ),
    "features": Case(
        SideFeatures,
        {"sizes": SIZES, "dim": DIM},
        lambda rng: (feature_inputs(rng),),
        half="float16",
    ),
    "self_attention": Case(
        SelfAttention,
        {"num_layers": 2, "num_heads": 2, "num_steps": STEPS, "dropout": 0.5},
        history_inputs,
        # As in a transformer's fusion.
        unreached=("key/bias:0",),
        half="float16",
    ),
    "pool_attention": Case(
        AttentionPool, {"dim": DIM, "units": 3}, pool_inputs, loss=every_output, exact=True
    ),
    "pool_gru": Case(
        OrderedPool,
        {"kind": "gru", "dim": DIM, "steps": STEPS, "units": 2},
        lambda rng: pool_inputs(rng)[:1],
        exact=True,
    ),
    "pool_transformer": Case(
        OrderedPool,
        {"kind": "transformer", "dim": DIM, "steps": STEPS, "units": 4, "num_heads": 2},
        lambda rng: pool_inputs(rng)[:1],
        # As in a transformer's fusion.
        unreached=("key/bias:0",),
        exact=True,
    ),
    "labels": Case(LabelHeads, LABELS, label_inputs, loss=every_output, exact=True),
    "labels_hidden": Case(
        LabelHeads, {**LABELS, "hidden": 6}, label_inputs, loss=every_output, exact=True
    ),
    "item": item(),
    "item_mean": item(fusion="mean", id_dropout=0.5, modality_dropout=0.5, dropout=0.5),
    "item_content": item(num_items=0, fusion="attention", alignment={"hidden": 5}),
    "item_several": item(alignment={"kinds": ("ridge", "contrastive")}, missing="mapped"),
    "item_ids": item(modalities=()),
    "item_features": item(fusion="weighted", feature_sizes=SIZES),
    # Without a history, only the bias of the projection does anything.
    "user_none": user("project/kernel:0", history="none"),
    "user_mean": user(history="mean", dropout=0.5, id_dropout=0.5),
    "user_gru": user(history="gru", num_users=0),
    "user_attention": user(history="attention"),
    "user_interests": user(
        history="attention", interests=3, hidden=5, profile=True, feature_sizes=SIZES
    ),
    "user_self_attention": user(
        "key/bias:0", history="self_attention", num_heads=2, num_steps=STEPS, time_gaps=True
    ),
    "user_everything": user(history="mean", hidden=5, profile=True, feature_sizes=SIZES),
    "interaction_dcn": interaction(Cross, num_cross_layers=2),
    "interaction_dcn_low_rank": interaction(Cross, num_cross_layers=1, projection_dim=2),
    "interaction_dlrm": interaction(DotInteraction),
    "interaction_deepfm": interaction(FactorizationMachine),
    "interaction_mlp": interaction(Flattened),
    "interaction_bilinear": interaction(BilinearProduct),
    "target_attention": Case(TargetAttention, {"hidden": 5}, target_inputs, exact=True),
    "target_attention_sum": Case(
        TargetAttention, {"hidden": 5, "normalize": False}, target_inputs, exact=True
    ),
    "pairs": Case(PairFeatures, {"dim": DIM}, request_inputs, loss=every_output, exact=True),
    "pairs_interests": Case(
        PairFeatures,
        {"dim": DIM},
        lambda rng: ({**request_inputs(rng)[0], "user": normal(rng, ROWS, 2, DIM)},),
        loss=every_output,
        exact=True,
    ),
    "pairs_everything": Case(
        PairFeatures,
        {
            "dim": DIM,
            "item_sizes": SIZES,
            "user_sizes": SIZES,
            "attention": True,
            "context": ("hour", "weekday"),
            "context_dropout": 0.5,
        },
        request_inputs,
        loss=every_output,
        exact=True,
    ),
    "shared_bottom": experts(SharedBottom, hidden=(5, 3)),
    "shared_bottom_none": experts(SharedBottom, hidden=()),
    "mmoe": experts(MMoE, hidden=(5, 3), num_experts=3),
    "ple": experts(PLE, hidden=(5, 3), num_experts=2, num_shared=1),
    "item_head": Case(ItemHead, {"num_items": 6, "num_neighbors": 2}, past_inputs, exact=True),
    "item_head_decay": Case(
        ItemHead,
        {"num_items": 6, "num_neighbors": 3, "decay": 2.0, "history_length": 2},
        past_inputs,
        exact=True,
    ),
    "uncertainty": Case(
        UncertaintyWeights,
        {"kinds": ("binary", "regression")},
        lambda rng: ([normal(rng, ROWS), normal(rng, ROWS)],),
        exact=True,
    ),
}


def build(case, **changes):
    """The layer with weights drawn anew: zeros would let half of it go unseen."""
    layer = case.layer(**{**case.settings, **changes})
    layer(*tensors(case.inputs(np.random.default_rng(0))))
    rng = np.random.default_rng(1)
    drawn = [0.5 * normal(rng, *value.shape) for value in layer.get_weights()]
    # Of whole numbers, which name rows, any that are not all the same.
    layer.set_weights(
        [
            value if old.dtype == np.float32 else np.round(4 * value).astype(old.dtype)
            for value, old in zip(drawn, layer.get_weights(), strict=True)
        ]
    )
    return layer


def tensors(inputs):
    return tf.nest.map_structure(tf.constant, inputs)


def rows(inputs, part):
    return tf.nest.map_structure(lambda value: value[part], inputs)


def outputs_of(layer, inputs):
    return [np.asarray(part) for part in tf.nest.flatten(layer(*tensors(inputs)))]


def function(layer, inputs, **options):
    """The layer as a graph over flat inputs whose number of rows is free; answers by place."""
    specs = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in tf.nest.flatten(inputs)]

    def call(*flat):
        outputs = layer(*tf.nest.pack_sequence_as(inputs, flat))
        return {str(i): part for i, part in enumerate(tf.nest.flatten(outputs))}

    return tf.function(call, input_signature=specs, **options)


def answer(graph, inputs):
    outputs = graph(*tensors(tf.nest.flatten(inputs)))
    return [outputs[str(i)].numpy() for i in range(len(outputs))]


def assert_equal(got, want, *, tolerance=1e-5):
    assert len(got) == len(want) > 0
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        if other.dtype == bool:
            np.testing.assert_array_equal(one, other)
        else:
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def layer(case):
    """For reading only: all tests share it."""
    return build(case)


@pytest.fixture(scope="module")
def inputs(case):
    return case.inputs(np.random.default_rng(2))


@pytest.fixture(scope="module")
def graph(layer, inputs):
    return function(layer, inputs)


def test_every_layer_has_a_case():
    for module in pkgutil.walk_packages(mmrec_tf.__path__, "mmrec_tf."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind):
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    layers = {
        kind
        for kind in below(tf.keras.layers.Layer)
        if kind.__module__.startswith("mmrec_tf.")
        and not kind.__module__.startswith("mmrec_tf.encoders.")
        and not issubclass(kind, tf.keras.Model)
    }
    assert layers - {case.layer for case in CASES.values()} == set()


def test_every_setting_is_in_the_config(case):
    of_keras = {*inspect.signature(tf.keras.layers.Layer.__init__).parameters, "kwargs", "args"}
    names = set(inspect.signature(case.layer.__init__).parameters) - of_keras
    assert names <= set(case.layer(**case.settings).get_config())


def test_config_and_weights_make_a_copy(layer, inputs):
    copy = type(layer).from_config(layer.get_config())
    outputs_of(copy, inputs)
    copy.set_weights(layer.get_weights())
    assert_equal(outputs_of(copy, inputs), outputs_of(layer, inputs), tolerance=0)


def test_a_copy_is_made_by_keras_from_json(layer, inputs):
    config = tf.keras.saving.serialize_keras_object(layer)
    copy = tf.keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()


def test_graph_equals_eager(layer, inputs, graph):
    assert_equal(answer(graph, inputs), outputs_of(layer, inputs))


def test_any_batch_size_and_rows_stand_alone(layer, inputs, graph):
    for size in (0, 1, 3):
        part = slice(ROWS - size, ROWS)
        want = [value[part] for value in outputs_of(layer, inputs)]
        assert_equal(outputs_of(layer, rows(inputs, part)), want)
        assert_equal(answer(graph, rows(inputs, part)), want)


def test_half_precision_is_finite_and_close(case, layer, inputs):
    half = build(case, dtype="mixed_float16")
    got, want = outputs_of(half, inputs), outputs_of(layer, inputs)
    floats = [weight for weight in half.weights if weight.dtype.is_floating]
    assert all(weight.dtype == tf.float32 for weight in floats)
    assert got[0].dtype == case.half
    assert all(part.dtype in (np.float32, bool) for part in got[1:])
    assert_equal(got, want, tolerance=0.02)
    same = all(np.array_equal(one, other) for one, other in zip(got, want, strict=True))
    assert same == case.exact


@pytest.mark.parametrize("half", [False, True])
def test_gradient_reaches_every_weight(case, inputs, half):
    layer = build(case, **({"dtype": "mixed_float16"} if half else {}))
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(layer(*tensors(inputs)))
        direction = normal(np.random.default_rng(3), *outputs[0].shape)
        loss = tf.reduce_sum(tf.cast(outputs[0], tf.float32) * direction)
        if case.loss is not None:
            loss += case.loss(layer, outputs, inputs)
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(loss, layer.trainable_weights), strict=True
    ):
        if weight.name.endswith(case.unreached or "/nothing"):
            continue
        assert gradient is not None, weight.name
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all(), weight.name
        assert np.abs(gradient).max() > 0, weight.name


def test_saved_model_agrees(layer, inputs, graph, tmp_path):
    module = tf.Module()
    # The weights and not the layer, as in an export: Keras would save a graph of its own.
    module.weights = layer.weights
    module.call = graph
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for part in (slice(0, ROWS), slice(1, 2)):
        want = [value[part] for value in outputs_of(layer, inputs)]
        assert_equal(answer(loaded.call, rows(inputs, part)), want)


def test_compiled_by_xla_equals_plain(layer, inputs):
    compiled = function(layer, inputs, jit_compile=True)
    assert_equal(answer(compiled, inputs), outputs_of(layer, inputs))
