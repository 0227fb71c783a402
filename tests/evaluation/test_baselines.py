"""Baselines: each against its definition, and against what was measured elsewhere."""

import csv
import gzip
import sys

import numpy as np
import pytest
from support.small_world import NUM_ITEMS, NUM_USERS
from support.tiny_dataset import write

from mmrec_tf import open_dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation import baselines
from mmrec_tf.evaluation.baselines import BASELINES, baseline_names, history_matrix, rank_by
from mmrec_tf.evaluation.metrics import ItemVectors, retrieval_metrics
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import Schema

EVERYONE = np.arange(NUM_USERS)
IMPLICIT = ("ials", "bpr")


def matrix(dataset):
    """The train split, one pair at a time."""
    train = np.zeros([dataset.schema.num_users, dataset.schema.num_items])
    data = dataset.interactions("train")
    for user, item in zip(data.user, data.item, strict=True):
        train[user, item] = 1
    return train


def some_vectors(dataset, *, seed=0):
    """Two modalities, either of which some items lack."""
    rng = np.random.default_rng(seed)
    num_items = dataset.schema.num_items
    values = {n: rng.normal(size=[num_items, 4]).astype(np.float32) for n in ("text", "image")}
    return ItemVectors(values, rng.random([num_items, 2]) < 0.7)


def test_the_matrix_holds_zeros_and_ones(dataset):
    found = history_matrix(dataset, "train")
    np.testing.assert_array_equal(found.toarray(), matrix(dataset))
    assert found.dtype == np.float32


def test_a_pair_that_is_named_twice_counts_once(tmp_path):
    dataset = write(tmp_path / "d", train=[[0, 1, 0]], valid=[[2]], num_items=3)
    assert history_matrix(dataset, "train").toarray().tolist() == [[1, 1, 0]]


def test_the_most_popular(dataset):
    score = BASELINES["popularity"](dataset, None)
    np.testing.assert_array_equal(score(np.array([5, 0])), [dataset.catalog.train_count] * 2)


def test_item_knn_by_hand(tmp_path):
    """Items 0 and 1 share both users, 2 has one of them, 3 nobody."""
    dataset = write(tmp_path / "d", train=[[0, 1, 2], [1, 0], []], valid=[[3]], num_items=4)
    scores = BASELINES["item_knn"](dataset, None)(np.arange(3))
    one, half = 1.0, 1 / np.sqrt(2)
    np.testing.assert_allclose(
        scores, [[one + half, one + half, 2 * half, 0], [one, one, 2 * half, 0], [0] * 4], rtol=1e-6
    )


def test_what_is_known_of_users_may_be_more_than_what_is_fitted_to(tmp_path):
    """As above, and in valid one user met 2 and the one without train met 0."""
    dataset = write(
        tmp_path / "d", train=[[0, 1, 2], [1, 0], []], valid=[[], [2], [0]], num_items=4
    )
    known = {"history": "train+valid"}
    scores = BASELINES["item_knn"](dataset, None, **known)(np.arange(3))
    one, half = 1.0, 1 / np.sqrt(2)
    both = [one + half, one + half, 2 * half, 0]
    np.testing.assert_allclose(scores, [both, both, [0, one, half, 0]], rtol=1e-6)
    popular = BASELINES["popularity"](dataset, None, **known)
    assert popular(np.arange(1)).tolist() == [[3, 2, 2, 0]]
    assert rank_by(popular, dataset, np.arange(3), k=3, **known).tolist() == [
        [3, -1, -1],
        [3, -1, -1],
        [1, 2, 3],
    ]


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_takes_what_is_known(dataset, name):
    if name in IMPLICIT:
        pytest.importorskip("implicit")
    plain, known = (
        BASELINES[name](dataset, some_vectors(dataset), history=history)(EVERYONE)
        for history in ("train", "train+valid")
    )
    assert np.isfinite(known).all() and known.shape == plain.shape
    # What BPR has learned of a user is of train.
    assert (known != plain).any() == (name != "bpr")


def test_ease_is_a_ridge_regression_of_each_item_on_all_others(dataset):
    train = matrix(dataset)
    want = np.zeros_like(train)
    for item in range(NUM_ITEMS):
        others = np.delete(train, item, axis=1)
        gram = others.T @ others + 50 * np.eye(NUM_ITEMS - 1)
        want[:, item] = others @ np.linalg.solve(gram, others.T @ train[:, item])
    got = BASELINES["ease"](dataset, None)(EVERYONE)
    assert got.dtype == np.float32 and np.abs(want).max() > 0.05
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_content_knn_sums_what_is_alike(dataset):
    vectors, train = some_vectors(dataset), matrix(dataset)
    cosine, _ = vectors.similarity(np.arange(NUM_ITEMS))
    got = BASELINES["content_knn"](dataset, vectors)(EVERYONE)
    for user in (0, 7, 39):
        for item in (0, 13, 28):
            met = [other for other in np.flatnonzero(train[user]) if other != item]
            assert got[user, item] == pytest.approx(cosine[item, met].sum(), abs=1e-5)
    # An item that nobody has met is reached all the same.
    assert (dataset.catalog.train_count[28] == 0) and got[:, 28].any()


def test_content_knn_needs_content(dataset):
    with pytest.raises(ConfigError, match="content_knn: wanted vectors of frozen encoders"):
        BASELINES["content_knn"](dataset, None)


@pytest.mark.parametrize("block, scores", [(7, 1 << 25), (1024, 3 * NUM_ITEMS), (1024, 1)])
def test_blocks_of_users_make_no_difference(dataset, monkeypatch, block, scores):
    score = BASELINES["ease"](dataset, None)
    whole = rank_by(score, dataset, EVERYONE, k=5)
    monkeypatch.setattr(baselines, "BLOCK", block)
    monkeypatch.setattr(baselines, "SCORES", scores)
    np.testing.assert_array_equal(rank_by(score, dataset, EVERYONE, k=5), whole)
    some = np.array([9, 3, 38])
    np.testing.assert_array_equal(rank_by(score, dataset, some, k=5), whole[some])


@pytest.mark.parametrize("name", ["item_knn", "content_knn", "ease"])
def test_a_large_catalog_is_refused(dataset, monkeypatch, name):
    monkeypatch.setattr(baselines, "MAX_ITEMS", NUM_ITEMS - 1)
    with pytest.raises(ConfigError, match=f"{name}: wanted at most 29 items.*got 30"):
        BASELINES[name](dataset, some_vectors(dataset))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_scores_all_items_for_any_users(dataset, name):
    if name in IMPLICIT:
        pytest.importorskip("implicit")
    score = BASELINES[name](dataset, some_vectors(dataset))
    whole = score(EVERYONE)
    assert whole.shape == (NUM_USERS, NUM_ITEMS) and whole.dtype == np.float32
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(score(np.array([8, 39, 8])), whole[[8, 39, 8]], atol=1e-6)
    assert score(EVERYONE[:0]).shape == (0, NUM_ITEMS)
    top = rank_by(score, dataset, EVERYONE, k=NUM_ITEMS)
    train = matrix(dataset)
    for user in EVERYONE:
        met = int(train[user].sum())
        assert not train[user, top[user, : NUM_ITEMS - met]].any()
        assert (top[user, NUM_ITEMS - met :] == -1).all()


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """300 users of three clusters, who meet six of their own ten items, and one in valid."""
    rng = np.random.default_rng(0)
    met = [rng.permutation(np.arange(user % 3, 30, 3)).tolist() for user in range(300)]
    train, valid = [items[:6] for items in met], [items[6:7] for items in met]
    return write(tmp_path_factory.mktemp("c") / "d", train=train, valid=valid, num_items=30)


@pytest.mark.parametrize("name", ["item_knn", "ease", *IMPLICIT])
def test_interactions_show_the_clusters(clusters, name):
    """Which popularity cannot know: it finds those that are left of a cluster by chance."""
    if name in IMPLICIT:
        pytest.importorskip("implicit")
    users = np.arange(300)

    def own(name):
        top = rank_by(BASELINES[name](clusters, None), clusters, users, k=3)
        return (top % 3 == users[:, None] % 3).mean()

    assert own(name) > 0.95 and own("popularity") < 0.4


@pytest.mark.parametrize("name", IMPLICIT)
def test_the_same_call_gives_the_same_scores(dataset, name):
    pytest.importorskip("implicit")
    first, second = (BASELINES[name](dataset, None)(EVERYONE) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_valid_split_chooses(dataset):
    """Of three, the one that ranks its items first; of equals the first."""

    class Model:
        def __init__(self, place):
            self.item_factors = np.eye(NUM_ITEMS, dtype=np.float32)
            self.place = place

        def fit(self, train, show_progress):
            self.user_factors = np.zeros([NUM_USERS, NUM_ITEMS], np.float32)
            data = dataset.interactions("valid")
            self.user_factors[data.user, data.item] = self.place

    assert baselines._best(dataset, map(Model, (-1, 1, 2))).place == 1


def test_without_a_valid_split_the_first_is_taken(tmp_path):
    pytest.importorskip("implicit")
    dataset = write(tmp_path / "d", valid=[[]] * 4)
    assert BASELINES["ials"](dataset, None)(np.arange(4)).shape == (4, 6)


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_is_an_extra(dataset, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=rf'{name}: .*pip install "mmrec_tf\[baselines\]"'):
        BASELINES[name](dataset, None)


def test_names():
    assert baseline_names(["ease", "item_knn", "ease"]) == ["ease", "item_knn"]
    assert baseline_names(["bpr", "all"]) == ["bpr", *(n for n in BASELINES if n != "bpr")]
    assert baseline_names([]) == []
    with pytest.raises(ConfigError, match="unknown baseline 'iasl'; did you mean 'ials'"):
        baseline_names(["iasl"])
    with pytest.raises(ConfigError, match="unknown baseline ''; known: popularity, item_knn"):
        baseline_names([""])


def test_ease_on_birds(shared, tmp_path):
    """As measured by another implementation, on the split that the data come with."""
    path = shared / "data/birds/interactions.csv.gz"
    if not path.exists():
        pytest.skip("needs data/birds in shared/")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits = {"train": "train", "val": "valid", "valid": "valid", "test": "test"}
    users = sorted({row["user"] for row in rows})
    places = {user: n for n, user in enumerate(users)}
    items = sorted({row["item"] for row in rows})
    with DatasetWriter(tmp_path / "d") as writer:
        for item in items:
            writer.write_item(item)
        for user in users:
            writer.write_user(user)
        number = {item: n for n, item in enumerate(items)}
        chosen: dict = {}
        for row in rows:
            key = (splits[row["split"]], row["user"])
            chosen.setdefault(key, []).append(number[row["item"]])
        for (split, user), numbers in sorted(chosen.items()):
            at = list(range(len(numbers)))
            writer.write_interactions(split, places[user], item=numbers, timestamp=at)
        schema = Schema(num_users=len(users), num_items=len(items))
        writer.finish(schema, source={"name": "birds"}, split_rule="given")
    dataset = open_dataset(tmp_path / "d")
    test = dataset.interactions("test")
    asked, count = np.unique(test.user, return_counts=True)
    top = rank_by(BASELINES["ease"](dataset, None), dataset, asked, k=10)
    relevant = (np.concatenate([[0], np.cumsum(count)]), test.item)
    recall = retrieval_metrics(top, relevant, ks=[10])["recall@10"]
    assert len(asked) == 7915 and recall.mean() == pytest.approx(0.6418, abs=5e-5)
