"""Heads for labels: their loss by hand, what they leave alone, and what they say when served."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import build_retrieval

from mmrec_tf.config import Config, LabelsConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.reporting import tables
from mmrec_tf.reporting.sections import labels as labels_section
from mmrec_tf.runs.labels import foretell, report_labels, require_heads, tag_items
from mmrec_tf.schema import FeatureSpec, Schema
from mmrec_tf.towers.labels import LabelHeads, label_names

SCHEMA = Schema(
    1,
    1,
    item_features={
        "kind": FeatureSpec("categorical", vocabulary=("a", "b", "c"), oov_buckets=2),
        "tags": FeatureSpec("categorical", vocabulary=("x", "y"), width=2),
        "price": FeatureSpec("numeric"),
    },
)


def heads(hidden=0):
    config = LabelsConfig(softmax=("kind",), sigmoid=("tags",), hidden=hidden)
    made = LabelHeads.from_experiment(config, SCHEMA, 2)
    if not hidden:
        made.heads["kind"].set_weights([np.array([[0, 1, 2], [1, 0, 0]], np.float32), np.zeros(3)])
        made.heads["tags"].set_weights([np.array([[1, 0], [0, 2]], np.float32), np.zeros(2)])
    return made


# Of kind: "b", out of vocabulary, none. Of tags: both, "y", none.
FEATURES = {
    "kind": tf.constant([[4], [2], [0]]),
    "tags": tf.constant([[2, 3], [3, 0], [0, 0]]),
}


def test_the_loss_by_hand():
    embedding = tf.constant([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    # Of kind one item is known: logits 0, 1, 2 for the second.
    kind = np.log(np.exp([0, 1, 2]).sum()) - 1
    # Of tags two: logits (1, 0) both true, and (0, 2), the second true.
    sigmoid = [np.log1p(np.exp(-1)), np.log(2), np.log(2), np.log1p(np.exp(-2))]
    tags = (np.mean(sigmoid[:2]) + np.mean(sigmoid[2:])) / 2
    assert float(heads().loss(embedding, FEATURES)) == pytest.approx(kind + tags, rel=1e-5)
    nothing = {name: tf.zeros_like(value) for name, value in FEATURES.items()}
    assert float(heads().loss(embedding, nothing)) == 0


def test_probabilities_and_their_names():
    made = heads()
    found = made.probabilities(tf.constant([[1.0, 0.0]]))
    np.testing.assert_allclose(tf.reduce_sum(found["kind"], axis=1), [1], rtol=1e-6)
    np.testing.assert_allclose(found["tags"], [[1 / (1 + np.exp(-1)), 0.5]], rtol=1e-6)
    want = ["kind=a", "kind=b", "kind=c", "tags=x", "tags=y"]
    assert label_names(SCHEMA.item_features, made.forms) == want
    copy = LabelHeads.from_config(made.get_config())
    copy.set_weights(made.get_weights())
    np.testing.assert_array_equal(copy(tf.ones([1, 2]))["kind"], made(tf.ones([1, 2]))["kind"])
    assert len(heads(hidden=4).trainable_weights) == 6


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"softmax": ("price",)}, r"labels.softmax: .*\(kind, tags\); got 'price'"),
        ({"sigmoid": ("none",)}, "labels.sigmoid: wanted categorical"),
    ],
)
def test_labels_that_are_no_categories_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        LabelHeads.from_experiment(LabelsConfig(**settings), SCHEMA, 2)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="each feature once"):
        LabelsConfig(softmax=("a",), sigmoid=("a",))
    with pytest.raises(ConfigError, match="labels.weight: wanted 0.1 while labels.softmax"):
        Config().override({"labels.weight": 0.5})
    labeled = Config().override({"labels.softmax": ["a"]})
    assert labeled.id_only().labels == LabelsConfig()


@pytest.fixture(scope="module")
def model(dataset):
    return build_retrieval(dataset, labels__sigmoid=["genre"], labels__weight=0.5)


def test_what_is_foretold_is_not_read_and_counts_in_the_loss(dataset, model):
    assert set(model.item_tower.features.sizes) == {"price"}
    batch = next(iter(dataset.batches("train", 16, user=model.config.user)))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch)
    content = model.embed_items(batch["item"], content_only=True).embedding
    features = {"genre": tf.gather(model.tables["item_features"]["genre"], batch["item"])}
    of_labels = model.label_heads.loss(content, features)
    assert float(model.label_tracker.result()) == pytest.approx(float(of_labels), rel=1e-5)
    model.label_tracker.reset_state()
    heads, model.label_heads = model.label_heads, None
    without = model.compute_loss(batch)
    model.label_heads = heads
    assert float(loss - without) == pytest.approx(0.5 * float(of_labels), rel=1e-3)
    weights = model.label_heads.trainable_weights
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(loss, weights))
    assert model.parameter_counts()["label_heads"] == (8 + 1) * 2


def test_the_servable_says_what_python_says(dataset, model):
    servable = EncoderServable(model, dataset.catalog.item_id, k=5)
    foretold, present = foretell(model)
    vectors = dataset.catalog.content["vector"][:, None]
    got = servable.tag(tf.constant(vectors))
    assert got["label"].numpy()[0].tolist() == [b"genre=night", b"genre=day"]
    want = np.where(present[:, None], foretold["genre"], -1)
    # An asked-for item has no side features, so those without a price are compared.
    bare = dataset.catalog.features["price"][:, 1] == 0
    np.testing.assert_allclose(got["probability"].numpy()[bare], want[bare], atol=1e-5)
    assert (got["probability"].numpy()[~present] == -1).all() and not present.all()
    examples = servable.examples_from(
        {"vector": dataset.catalog.content["vector"]}, dataset.catalog.present[:, 3:]
    )
    assert [example.signature for example in examples] == ["embed_item", "search", "tag"]


def test_tags_and_report_of_a_run(dataset, model, capsys):
    class Run:
        directory, retrieval = "run", model

    Run.dataset = dataset
    found = tag_items(Run, ["i1", f"i{small_world.BARE}"])
    assert set(found["i1"]) == {"genre=night", "genre=day"} and found[f"i{small_world.BARE}"] == {}
    with pytest.raises(ConfigError, match="got 'i99'"):
        tag_items(Run, ["i99"])
    tables.print_tags(found, k=1, as_json=False)
    assert capsys.readouterr().out.splitlines()[0].startswith("i1\t1\tgenre=")
    report = json.loads(json.dumps(report_labels(model)))["genre"]
    met = dataset.catalog.train_count > 0
    known = (dataset.catalog.features["genre"] > 1).any(axis=1) & dataset.catalog.present[:, 3]
    assert report["train"]["items"] == int((met & known).sum())
    assert report["new"]["items"] == int((~met & known).sum()) > 0
    tables.print_labels("run", {"genre": report})
    assert "items that train never met: macro F1" in capsys.readouterr().out
    text = labels_section.section(types.SimpleNamespace(run=Run)).body
    assert "items that train never met" in text and "macro F1" in text and "night" in text
    Run.retrieval = build_retrieval(dataset)
    assert "no label" in labels_section.section(types.SimpleNamespace(run=Run)).body
    with pytest.raises(ConfigError, match="trained with labels; it has none"):
        require_heads(Run)
