"""The head beside the towers: by hand, in both of a recommender's indexes, on disk and exported."""

import json

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import Recommender, load_run, open_dataset
from mmrec_tf.config import Config
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.evaluation.evaluate import evaluate
from mmrec_tf.exporting.allowed_ops import other_ops
from mmrec_tf.exporting.servables import RecommenderServable
from mmrec_tf.retrieval.index import IvfIndex
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_head_fit import FEWEST, ItemHeadFit, choose_weights
from mmrec_tf.runs.train import train_run
from mmrec_tf.runs.warm_start import reembed

QUICK = {**small_world.VECTORS, "item_head__kind": "ease", "item_head__num_neighbors": 5}


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    return open_dataset(small_world.write(tmp_path_factory.mktemp("data") / "world", ordered=True))


def made(neighbors, values, **settings):
    head = ItemHead(len(neighbors), len(neighbors[0]), **settings)
    head.neighbors.assign(neighbors)
    head.values.assign(values)
    return head


def by_hand(**settings):
    """0 leads to 1 and 2, 1 to 3, 2 to 3 and 0; 3 to nothing."""
    neighbors = [[1, 2], [3, -1], [3, 0], [-1, -1]]
    return made(neighbors, [[0.5, 0.25], [1.0, 0.0], [-2.0, 4.0], [0.0, 0.0]], **settings)


# The layer


def test_neighbors_of_a_history_are_summed():
    found = by_hand()(tf.constant([[0, 1, 2], [1, -1, -1], [-1, 0, 3], [-1, -1, -1]]))
    want = [[4, 0.5, 0.25, 1 - 2], [0, 0, 0, 1], [0, 0.5, 0.25, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, want)


def test_older_items_count_less():
    found = by_hand(decay=2.0)(tf.constant([[0, -1, 1, 2], [2, 1, 0, -1]]))
    one, two = np.exp(-1 / 2), np.exp(-2 / 2)
    # Padding is no age: 0 lies two items back, 1 one.
    np.testing.assert_allclose(found[0], [4, 0.5 * two, 0.25 * two, one - 2], rtol=1e-6)
    np.testing.assert_allclose(found[1], [4 * two, 0.5, 0.25, one - 2 * two], rtol=1e-6)


def test_the_latest_items_alone_are_read():
    found = by_hand(history_length=1)(tf.constant([[0, 1, -1], [1, 0, -1]]))
    np.testing.assert_allclose(found, [[0, 0, 0, 1], [0, 0.5, 0.25, 0]])


def test_an_item_that_comes_twice_counts_once_where_it_first_stands():
    twice, once = tf.constant([[0, 2, 0, 0]]), tf.constant([[0, 2, -1, -1]])
    head = by_hand(decay=2.0)
    np.testing.assert_array_equal(head(twice), head(once))
    item = tf.constant([[0, 1]])
    np.testing.assert_array_equal(head.reasons(twice, item), head.reasons(once, item))


def test_weights_go_by_the_length_of_the_history():
    head = by_hand()
    # Of 1 or 2 items, of 3 to 5, and so on.
    head.scale.assign([2.0, 10.0, *[0.0] * 6])
    found = head(tf.constant([[1, -1, -1], [1, 3, -1], [1, 3, 0]]))
    np.testing.assert_allclose(found[:, 3], [2, 2, 10])


def test_some_items_score_what_all_do_to_the_last_bit():
    rng = np.random.default_rng(0)
    neighbors = rng.integers(-1, 20, (20, 6))
    head = made(neighbors, rng.normal(size=(20, 6)), decay=3.0)
    past = tf.constant(rng.integers(-1, 20, (7, 9)), tf.int32)
    item = tf.constant(rng.integers(0, 20, (7, 4)), tf.int32)
    some = head.score_items(past, item)
    np.testing.assert_array_equal(some, tf.gather(head(past), item, batch_dims=1))


def test_the_reason_is_what_adds_most():
    head = by_hand()
    reasons = head.reasons(tf.constant([[2, 0, 1], [-1, -1, -1]]), tf.constant([[0, 1, 3]] * 2))
    # Of 3, item 2 takes away and 1 adds; 1 and 0 have one cause each.
    np.testing.assert_array_equal(reasons, [[2, 0, 1], [-1, -1, -1]])
    head.scale.assign(np.zeros(8))
    found = head.reasons(tf.constant([[2, 0, 1]]), tf.constant([[0]]))
    np.testing.assert_array_equal(found, [[-1]])
    # And nobody at all has met anything.
    none = tf.zeros([1, 0], tf.int32)
    np.testing.assert_array_equal(head.reasons(none, tf.constant([[0]])), [[-1]])
    np.testing.assert_array_equal(head(none), np.zeros([1, 4]))


# Its weights


def test_each_length_of_history_has_the_weight_that_is_best_there():
    num_past = np.repeat([1, 4, 30], FEWEST)

    def measure(weights):
        wanted = np.repeat([0.0, 2.0, 8.0], FEWEST)
        return np.stack([-np.abs(wanted - weight) for weight in weights])

    buckets = choose_weights(measure, num_past, ratio=1.0)
    assert [(b.least, b.users, b.weight) for b in buckets] == [
        (1, FEWEST, 0.0),
        (3, FEWEST, 2.0),
        (6, FEWEST, 8.0),
    ]
    assert all(bucket.with_head >= bucket.without for bucket in buckets)


def test_few_users_share_a_weight():
    num_past = np.repeat([1, 4, 30], [FEWEST, FEWEST - 1, 1])
    buckets = choose_weights(lambda w: np.zeros([len(w), len(num_past)]), num_past, ratio=1.0)
    assert [(bucket.least, bucket.users) for bucket in buckets] == [(1, FEWEST), (3, FEWEST)]
    # Where all are as good, none.
    assert [bucket.weight for bucket in buckets] == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["ease", "slist", "content"])
def test_valid_is_never_worse_and_what_was_found_holds(ordered, kind):
    model = small_world.build_retrieval(ordered, **{**QUICK, "item_head__kind": kind})
    alone = evaluate(model, ordered, split="valid", ks=[10])["ndcg@10"]
    fit = model.fit_item_head()
    both = evaluate(model, ordered, split="valid", ks=[10])["ndcg@10"]
    assert fit.without == pytest.approx(alone, abs=1e-12)
    assert fit.with_head == pytest.approx(both, abs=1e-12)
    # The towers are random, and the world is not.
    assert both > alone + 0.05
    assert ItemHeadFit.from_json(json.loads(json.dumps(fit.to_json()))) == fit
    assert str(fit).startswith(f"item head ({kind}): ndcg@10 on valid {alone:.4f} -> {both:.4f};")


def test_a_head_of_no_use_is_left_out(ordered, monkeypatch):
    model = small_world.build_retrieval(ordered, **QUICK)
    users = np.arange(small_world.NUM_USERS)
    alone = model.rank_items(ordered, users, k=5)
    worst = model.make_item_head()
    # Whatever was met leads to items that are of another cluster.
    shape = worst.neighbors.shape
    worst.neighbors.assign((np.arange(shape[0])[:, None] + 1 + 3 * np.arange(shape[1])) % 24)
    worst.values.assign(np.ones(shape))
    monkeypatch.setattr(model, "make_item_head", lambda: worst)
    fit = model.fit_item_head()
    assert not fit.used and fit.with_head == fit.without and model.item_head is None
    assert "no weight beats the towers alone on valid (ndcg@10" in str(fit)
    np.testing.assert_array_equal(model.rank_items(ordered, users, k=5), alone)


def test_another_history_is_summed_over(ordered):
    model = small_world.build_retrieval(ordered, **QUICK)
    model.fit_item_head()
    seen = ordered.histories(history="train+valid")
    top = model.rank_items(ordered, np.arange(9), k=5, history="train+valid")
    recommender = Recommender(model, None, ordered, history="all")
    np.testing.assert_array_equal(
        recommender.rank_items(ordered, np.arange(9), k=5, history="train+valid"), top
    )
    for user, row in enumerate(top):
        assert not set(row) & set(seen.of(user))


# Candidates


@pytest.fixture(scope="module")
def recommender(ordered):
    """Both stages' worth of a head that is strong: whoever met 0 is led to 25 alone."""
    model = small_world.build_retrieval(ordered, **QUICK)
    neighbors = np.full([small_world.NUM_ITEMS, 5], -1)
    neighbors[0, 0] = 25
    neighbors[3, :2] = 25, 24
    values = np.zeros(neighbors.shape)
    values[0, 0], values[3, :2] = 1.0, (2.0, 9.0)
    head = made(neighbors, values)
    head.scale.assign([50.0] * 8)
    model.set_item_head(head, None)
    return Recommender(model, None, ordered, history="train")


def narrow(recommender):
    """With an index that reads one list of many."""
    index = recommender.index
    queries = np.random.default_rng(0).normal(size=(64, index.vectors.shape[1]))
    return recommender.with_index(
        IvfIndex(index.vectors.numpy(), queries, num_lists=12, num_probes=1)
    )


@pytest.mark.slow
def test_what_the_head_alone_finds_is_recommended(recommender):
    there = narrow(recommender)
    strangers = ["stranger"] * 2
    history = [["i0", "i1"], ["i1", "i2"]]
    found = there.recommend(strangers, history=history, k=3)
    assert found.item_id[0, 0] == "i25" and found.history_item[0, 0] == "i0"
    assert "i25" not in found.item_id[1]
    # Nothing but the head leads there: the list that is read does not hold it.
    plain = there.retriever.retrieval.item_head
    there.retriever.retrieval.state.item_head = None
    try:
        without = narrow(recommender).recommend(strangers, history=history, k=3)
    finally:
        there.retriever.retrieval.state.item_head = plain
    assert "i25" not in without.item_id[0]
    # And the score is the sum, as of an index that looks at every item.
    exact = recommender.recommend(strangers, history=history, k=3)
    assert exact.item_id[0, 0] == "i25"
    np.testing.assert_allclose(exact.score[0, 0], found.score[0, 0], rtol=1e-5)


def test_the_head_brings_nothing_that_must_not_be_shown(recommender):
    asked = {"history": [["i3", "i1"]], "k": 4}
    for way in (recommender, narrow(recommender)):
        first = way.recommend(["stranger"], **asked)
        assert list(first.item_id[0, :2]) == ["i24", "i25"]
        assert list(first.history_item[0, :2]) == ["i3", "i3"]
        excluded = way.recommend(["stranger"], exclude=[["i24"]], **asked)
        assert excluded.item_id[0, 0] == "i25" and "i24" not in excluded.item_id[0]
        met = way.recommend(["stranger"], history=[["i3", "i24"]], k=4)
        assert "i24" not in met.item_id[0]


def test_whoever_met_nothing_has_no_score_of_the_head(recommender):
    found = recommender.recommend(["stranger"], k=3)
    plain = recommender.with_history("train")
    head = plain.retrieval.item_head
    plain.retrieval.state.item_head = None
    try:
        without = Recommender(plain.retrieval, None, plain.dataset, history="train").recommend(
            ["stranger"], k=3
        )
    finally:
        plain.retrieval.state.item_head = head
    for one, other in zip(found, without, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_scores_of_named_items_are_those_of_recommended_ones(recommender):
    users = ["u1", "u4", "u7"]
    shown = recommender.recommend([small_world.user_id(int(u[1:])) for u in users], k=3)
    inputs = [
        tf.constant([small_world.user_id(int(u[1:])) for u in users]),
        tf.fill([3, 0], ""),
        tf.constant(shown.item_id.astype(str)),
        tf.zeros([3], tf.int64),
        tf.fill([3], ""),
        tf.fill([3, 0], ""),
    ]
    np.testing.assert_allclose(recommender.rank_ids(*inputs)["score"], shown.score, rtol=1e-5)


@pytest.mark.parametrize("index", ["ivf", pytest.param("exact", marks=pytest.mark.slow)])
def test_an_export_gives_the_same_to_the_last_bit(recommender, index, tmp_path):
    asked = recommender if index == "exact" else narrow(recommender)
    servable = RecommenderServable(asked, k=4)
    tf.saved_model.save(servable, str(tmp_path), signatures=servable.signatures)
    assert other_ops(tmp_path) == []
    loaded = tf.saved_model.load(str(tmp_path)).signatures["recommend"]
    history = [["i0", "i1"], ["i3", "i3"], ["", ""]]
    users = ["stranger", "u1", "u4"]
    want = asked.recommend(users, history=history, k=4)
    blank = tf.fill([3, 1], "")
    got = loaded(
        user_id=tf.constant(users),
        history=tf.constant(history),
        exclude=blank,
        allow=blank,
        deny=blank,
        time=tf.zeros([3], tf.int64),
        profile=tf.fill([3], ""),
        features=blank,
    )
    assert [name.decode() for name in got["item_id"].numpy()[0]] == list(want.item_id[0])
    np.testing.assert_array_equal(got["score"], want.score)
    names = np.vectorize(bytes.decode)(got["history_item"].numpy())
    np.testing.assert_array_equal(names, want.history_item.astype(str))


# Runs


@pytest.fixture(scope="module")
def trained(ordered, tmp_path_factory):
    config = small_world.config(
        **{**QUICK, "training__epochs": 1, "ranking__epochs": 1, "item_head__l2": 5.0}
    )
    return train_run(ordered, config, tmp_path_factory.mktemp("runs") / "run")


def test_a_run_keeps_its_head(trained, ordered):
    loaded = load_run(trained.directory)
    fit = trained.item_head_fit
    assert loaded.item_head_fit == fit and fit.used
    assert trained.metrics["item_head"] == fit.to_json()
    valid = trained.metrics["valid"]["retrieval"]["ndcg@10"]
    assert fit.with_head == pytest.approx(valid) and fit.with_head > fit.without
    assert "item_head.json" in loaded.facts["files"]
    users = np.arange(small_world.NUM_USERS)
    for part in ("retrieval", "ranking"):
        np.testing.assert_array_equal(
            getattr(loaded, part).rank_items(ordered, users, k=5),
            getattr(trained, part).rank_items(ordered, users, k=5),
        )


def test_a_damaged_file_is_refused(trained):
    for change in ({"buckets": []}, {"kind": 1, "more": 2}):
        with pytest.raises(RunError, match="item head: wanted"):
            ItemHeadFit.from_json({**trained.item_head_fit.to_json(), **change})


def test_other_items_keep_their_neighbors_by_id(trained, tmp_path):
    """Written anew with another order of the items would be the same dataset; with other
    interactions and content the ids are what is left."""
    other = open_dataset(small_world.write(tmp_path / "other", ordered=True, seed=1))
    served, _ = reembed(trained, other)
    old, new = trained.retrieval.item_head, served.retrieval.item_head
    number = {name: row for row, name in enumerate(other.catalog.item_id)}
    for row, name in enumerate(trained.dataset.catalog.item_id):
        there = old.neighbors.numpy()[row]
        names = [trained.dataset.catalog.item_id[item] for item in there if item >= 0]
        here = new.neighbors.numpy()[number[name]]
        assert [other.catalog.item_id[item] for item in here if item >= 0] == names
    np.testing.assert_array_equal(old.scale, new.scale)


def test_the_twin_has_no_head_of_content():
    assert Config().override({"item_head.kind": "content"}).id_only().item_head.kind == "none"
    assert Config().override({"item_head.kind": "ease"}).id_only().item_head.kind == "ease"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item_head.kind": "knn"}, "item_head.kind: wanted one of none, ease, slist, content"),
        ({"item_head.l2": 5}, 'item_head.l2: wanted 100.0 while item_head.kind is "none"'),
        ({"item_head.kind": "content", "item_head.l2": 5}, "item_head.l2"),
        ({"item_head.kind": "ease", "item_head.history_decay": 2}, "item_head.history_decay"),
        (
            {"item_head.kind": "slist", "item_head.whole_share": 1, "item_head.target_decay": 2},
            "item_head.target_decay",
        ),
        ({"item_head.kind": "ease", "item_head.l2": 0}, "item_head.l2: wanted above 0"),
        ({"modalities": [], "item_head.kind": "content"}, 'item_head.kind: wanted "none" while'),
        ({"item_head.kind": "ease", "item_head.num_neighbors": 0}, "item_head.num_neighbors"),
    ],
)
def test_settings_without_an_effect_are_refused(settings, message):
    with pytest.raises(ConfigError) as raised:
        Config().override(settings)
    assert message in str(raised.value)


def test_content_that_is_trained_has_no_head(dataset):
    config = small_world.config(
        modalities=["text"], text__trainable_layers=-1, item_head__kind="content"
    )
    with pytest.raises(ConfigError, match="encoder is frozen.* Set trainable_layers of one to 0"):
        train_run(dataset, config, "/nowhere")
