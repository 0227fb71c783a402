"""The closed forms against the plain sums that they stand for."""

import dataclasses

import numpy as np
import pytest
from support import tiny_dataset

from mmrec_tf.config import Config, ItemHeadConfig
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval.item_similarity import _fitted_items, fit_neighbors, strongest

TRAIN = [[0, 1, 2, 3], [1, 3, 4], [2, 0], [4, 3, 2, 1, 0], [3], [0, 2, 5]]
NUM_ITEMS = 6
EASE = {"item_head.kind": "ease", "item_head.l2": 2.0}
SLIST = {
    "item_head.kind": "slist",
    "item_head.l2": 2.0,
    "item_head.whole_share": 0.3,
    "item_head.history_decay": 1.5,
    "item_head.target_decay": 0.8,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "tiny"
    valid = [[5], [0], [1], [5], [0], [1]]
    return tiny_dataset.write(folder, train=TRAIN, valid=valid, ordered=True, num_items=NUM_ITEMS)


def dense(neighbors):
    found = np.zeros([NUM_ITEMS, NUM_ITEMS])
    for row, (items, weights) in enumerate(zip(*neighbors, strict=True)):
        for item, weight in zip(items, weights, strict=True):
            if item >= 0:
                found[row, item] = weight
            else:
                assert weight == 0
    return found


def fitted(dataset, **settings):
    return dense(fit_neighbors(Config(modalities=()).override(settings), dataset))


def ridge(gram, target, l2):
    """Each column for itself: least squares on all other items."""
    weights = np.zeros_like(gram)
    for j in range(len(gram)):
        rest = np.delete(np.arange(len(gram)), j)
        inner = gram[np.ix_(rest, rest)] + l2 * np.eye(len(rest))
        weights[rest, j] = np.linalg.solve(inner, target[rest, j])
    return weights


def met():
    users = np.zeros([len(TRAIN), NUM_ITEMS])
    for user, items in enumerate(TRAIN):
        users[user, items] = 1
    return users


def test_ease_foretells_each_item_from_all_others(dataset):
    gram = met().T @ met()
    np.testing.assert_allclose(fitted(dataset, **EASE), ridge(gram, gram, 2.0), atol=1e-6)


def cuts():
    """Past and future of every history at every place, as matrices."""
    past, future = [], []
    for items in TRAIN:
        for cut in range(1, len(items)):
            row, after = np.zeros([2, NUM_ITEMS])
            for place, item in enumerate(items):
                if place < cut:
                    row[item] = np.exp(-(cut - 1 - place) / 1.5)
                else:
                    after[item] = np.exp(-(place - cut) / 0.8)
            past.append(row)
            future.append(after)
    return np.array(past), np.array(future)


def test_slist_foretells_what_comes_later_from_what_was_before(dataset):
    past, future = cuts()
    whole = met().T @ met()
    gram, target = (0.3 * whole + 0.7 * past.T @ other for other in (past, future))
    want = ridge(gram, target, 2.0)
    np.testing.assert_allclose(fitted(dataset, **SLIST), want, atol=1e-6)
    # What comes first matters.
    assert not np.allclose(want, want.T, atol=1e-2)


def test_without_cut_histories_slist_is_ease(dataset):
    settings = {
        "item_head.kind": "slist",
        "item_head.l2": 2.0,
        "item_head.whole_share": 1.0,
        "item_head.history_decay": 1.5,
    }
    np.testing.assert_allclose(fitted(dataset, **settings), fitted(dataset, **EASE), atol=1e-6)


@pytest.mark.parametrize("kind", [EASE, SLIST], ids=["ease", "slist"])
def test_a_neighborhood_of_all_items_is_the_whole_fit(dataset, kind):
    """But for pairs that nobody met together, which are no neighbors."""
    near = fitted(dataset, **kind, **{"item_head.neighborhood": NUM_ITEMS})
    for j in range(NUM_ITEMS):
        together = [row for row in np.flatnonzero(near[:, j]) if row != j]
        assert len(together) > 0
    least = fitted(dataset, **kind, **{"item_head.neighborhood": 1})
    assert ((least != 0).sum(axis=0) <= 1).all()
    if kind is EASE:
        # All users of a world in which every pair was met.
        gram = met().T @ met()
        full = ridge(gram, gram, 2.0)
        column = next(j for j in range(NUM_ITEMS) if (gram[:, j] > 0).all())
        np.testing.assert_allclose(near[:, column], full[:, column], atol=1e-6)


def test_the_strongest_of_each_row_stay():
    matrix = np.array([[0, 3, -4, 1], [0, 0, 0, 2], [0, 0, 0, 0], [5, -5, 1, 0]], np.float32)
    found = strongest(matrix, 2)
    np.testing.assert_array_equal(found.item, [[2, 1], [3, -1], [-1, -1], [0, 1]])
    np.testing.assert_array_equal(found.weight, [[-4, 3], [2, 0], [0, 0], [5, -5]])


def test_fewer_neighbors_are_the_strongest_of_all(dataset):
    whole = fitted(dataset, **EASE)
    for row, few in zip(
        whole, fitted(dataset, **EASE, **{"item_head.num_neighbors": 2}), strict=True
    ):
        kept = np.sort(np.argsort(-np.abs(row), kind="stable")[:2])
        np.testing.assert_array_equal(np.flatnonzero(few), kept)
        np.testing.assert_allclose(few[kept], row[kept], rtol=1e-6)


def test_rare_items_are_left_out(dataset):
    found = fitted(dataset, **EASE, **{"item_head.min_count": 2})
    # Item 5 was met once.
    assert not found[5].any() and not found[:, 5].any()
    gram = (met().T @ met())[:5, :5]
    np.testing.assert_allclose(found[:5, :5], ridge(gram, gram, 2.0), atol=1e-6)


def test_what_does_not_fit_is_refused_with_numbers():
    """Of a thousand items number n was met n times; 512 squared times 4 bytes are a mebibyte."""
    settings = ItemHeadConfig(kind="ease", memory_mb=1)
    items = np.repeat(np.arange(1000), np.arange(1000))
    liked = Histories(items, np.array([0, len(items)]), None)
    with pytest.raises(ConfigError) as raised:
        _fitted_items(settings, liked, 1000)
    assert str(raised.value) == (
        "item_head.memory_mb: wanted 4 or more, for a matrix of 999 items against each other in "
        "single precision; got 1, which hold 512 items. Set item_head.min_count to 488, which "
        "leaves the rarer ones out; or set item_head.neighborhood to some hundreds, which fits "
        "each item to those alone that it was met with most often."
    )
    fewer = dataclasses.replace(settings, min_count=488)
    assert len(_fitted_items(fewer, liked, 1000)) == 512
    local = dataclasses.replace(settings, neighborhood=50)
    assert len(_fitted_items(local, liked, 1000)) == 999


def test_items_that_nobody_meets_often_enough_are_refused(dataset):
    config = Config(modalities=()).override({**EASE, "item_head.min_count": 9})
    with pytest.raises(ConfigError, match="item_head.min_count: wanted at most 4, .* got 9"):
        fit_neighbors(config, dataset)


def test_histories_without_an_order_have_no_slist(tmp_path):
    plain = tiny_dataset.write(tmp_path / "plain", train=TRAIN, valid=[[5]] * 6)
    with pytest.raises(ConfigError, match='no order; got "slist". Prepare the dataset with times'):
        fit_neighbors(Config(modalities=()).override(SLIST), plain)
