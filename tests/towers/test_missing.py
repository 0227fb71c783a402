"""Modalities taken from other items: whose, and when nobody's."""

import numpy as np
import pytest

from mmrec_tf.towers import missing as imputation
from mmrec_tf.towers.missing import fill_from_neighbors, fill_nearest


def world(rows=40, seed=0, share=0.6):
    rng = np.random.default_rng(seed)
    encoded = [rng.normal(size=[rows, width]).astype(np.float32) for width in (5, 3, 4)]
    present = rng.random([rows, 3]) < share
    for m, values in enumerate(encoded):
        values[~present[:, m]] = 0
    return encoded, present


def nearest_by_loops(encoded, present):
    filled, now = [values.copy() for values in encoded], present.copy()
    for i, m in zip(*np.nonzero(~present), strict=True):
        best, source = -np.inf, None
        for j in np.flatnonzero(present[:, m]):
            both = [s for s in range(present.shape[1]) if present[i, s] and present[j, s]]
            pairs = [(encoded[s][i], encoded[s][j]) for s in both]
            cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]
            if both and np.mean(cosines) > best:
                best, source = np.mean(cosines), j
        if source is not None:
            filled[m][i], now[i, m] = encoded[m][source], True
    return filled, now


def assert_same(got, want):
    np.testing.assert_array_equal(got[1], want[1])
    for one, other in zip(got[0], want[0], strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 150, 2**24])
def test_nearest_is_that_of_plain_loops_in_blocks_of_any_size(cells, monkeypatch):
    monkeypatch.setattr(imputation, "MAX_CELLS", cells)
    encoded, present = world()
    want = nearest_by_loops(encoded, present)
    assert (want[1].sum() > present.sum() + 30) and not want[1].all()
    assert_same(fill_nearest(encoded, present), want)


def test_nearest_by_hand():
    """Item 3 has text only, at 10 degrees: items 0 (no image), 1 (at 40) and 2 (at 200)."""
    angles = np.radians([12, 40, 200, 10])
    text = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * [[9], [1], [5], [2]]
    image = np.array([[0], [1], [2], [0]], np.float32)
    present = np.array([[1, 0], [1, 1], [1, 1], [1, 0]], bool)
    (same, filled), now = fill_nearest([text, image], present)
    np.testing.assert_array_equal(filled, [[1], [1], [2], [1]])
    assert now.all() and same is text
    np.testing.assert_array_equal(image, [[0], [1], [2], [0]])
    assert not present.all()


def test_of_equally_near_items_the_lower_number_is_taken():
    text = np.ones([4, 2], np.float32)
    image = np.array([[0], [3], [4], [5]], np.float32)
    present = np.array([[1, 0], [1, 1], [1, 1], [1, 1]], bool)
    assert fill_nearest([text, image], present)[0][1][0] == 3


def test_what_was_filled_is_not_copied_on():
    """Item 0 has text, 1 text and image, 2 image and audio: audio is not handed on to item 0."""
    encoded = [np.ones([3, 2], np.float32) for _ in range(3)]
    present = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
    now = fill_nearest(encoded, present)[1]
    np.testing.assert_array_equal(now, [[1, 1, 0], [1, 1, 1], [1, 1, 1]])


def test_what_stands_in_an_absent_row_does_not_matter():
    encoded, present = world()
    want = fill_nearest(encoded, present)
    now = want[1]
    dirty = [np.where(present[:, [m]], v, np.nan) for m, v in enumerate(encoded)]
    got = fill_nearest([v.astype(np.float32) for v in dirty], present)
    np.testing.assert_array_equal(got[1], now)
    for m in range(3):
        np.testing.assert_array_equal(got[0][m][now[:, m]], want[0][m][now[:, m]])


def test_rows_of_zeros_are_finite():
    encoded, present = world()
    encoded[0][:] = 0
    filled, _ = fill_nearest(encoded, present)
    assert all(np.isfinite(values).all() for values in filled)


NONE = np.zeros([0], np.int32)


def fill_without_a_graph(encoded, present):
    return fill_from_neighbors(encoded, present, NONE, NONE, len(present))


@pytest.mark.parametrize("fill", [fill_nearest, fill_without_a_graph])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_nothing_to_take_from(fill, rows):
    encoded = [np.zeros([rows, 2], np.float32), np.zeros([rows, 3], np.float32)]
    for present in (np.zeros([rows, 2], bool), np.ones([rows, 1], bool) & [True, False]):
        filled, now = fill(encoded, present)
        assert all(one is other for one, other in zip(filled, encoded, strict=True))
        np.testing.assert_array_equal(now, present)


def neighbors_by_loops(encoded, present, head, tail, num_items):
    filled, now = [values.copy() for values in encoded], present.copy()
    around = {node: set() for node in range(num_items)}
    for a, b in zip(head, tail, strict=True):
        around.setdefault(int(a), set()).add(int(b))
        around.setdefault(int(b), set()).add(int(a))
    for i, m in zip(*np.nonzero(~present), strict=True):
        near = [j for j in around[i] if j < num_items and present[j, m]]
        if not near:
            entities = [node for node in around[i] if node >= num_items]
            near = [j for e in entities for j in around[e] if j < num_items and present[j, m]]
        if near:
            filled[m][i], now[i, m] = encoded[m][near].mean(axis=0), True
    return filled, now


@pytest.mark.parametrize("seed", range(3))
def test_neighbors_are_those_of_plain_loops(seed):
    """40 items and 10 entities; triples of all four kinds of ends, some of them twice."""
    encoded, present = world(seed=seed, share=0.4)
    head, tail = np.random.default_rng(seed).integers(0, 50, [2, 40]).astype(np.int32)
    head, tail = np.append(head, head[:9]), np.append(tail, tail[:9])
    want = neighbors_by_loops(encoded, present, head, tail, 40)
    assert (want[1].sum() > present.sum() + 5) and not want[1].all()
    assert_same(fill_from_neighbors(encoded, present, head, tail, 40), want)


def test_neighbors_by_hand():
    """Item 0 is linked with 1 twice and with 2; items 3, 1 and 2 share entity 5, 3 and 2 also 6.
    Item 4 is linked with item 3 alone, which has nothing."""
    values = np.array([[9], [1], [4], [9], [9]], np.float32)
    present = np.array([[0], [1], [1], [0], [0]], bool)
    head = np.array([0, 1, 0, 3, 1, 2, 3, 6, 4])
    tail = np.array([1, 0, 2, 5, 5, 5, 6, 2, 3])
    (filled,), now = fill_from_neighbors([values], present, head, tail, 5)
    np.testing.assert_allclose(filled[:, 0], [2.5, 1, 4, 3, 9])
    np.testing.assert_array_equal(now[:, 0], [True, True, True, True, False])
    assert values[0, 0] == 9
