"""Negatives from a part of the catalog are those that the whole catalog would have given."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.ranking import mining
from mmrec_tf.ranking.mining import part_stride, search_part

# Of one query of 1, an item's score is its vector: the item of rank r is `ORDER[r]`.
NUM_ITEMS, STRIDE, K = 1003, 8, 5
ORDER = np.random.default_rng(0).permutation(NUM_ITEMS)
VECTORS = np.zeros([NUM_ITEMS, 1], np.float32)
VECTORS[ORDER, 0] = -np.arange(NUM_ITEMS)


def found_often(times, exclude=(-1,)):
    """How often each rank is found."""
    search = tf.function(
        lambda: search_part(
            tf.constant(VECTORS),
            tf.ones([1, 1]),
            tf.constant([exclude], tf.int32),
            stride=STRIDE,
            k=K,
        )
    )
    items = np.stack([search().numpy()[0] for _ in range(times)])
    assert all(len(set(row)) == K for row in items.tolist())
    rank = np.argsort(ORDER)[items]
    assert (np.diff(rank, axis=1) > 0).all()
    return np.bincount(rank.ravel(), minlength=NUM_ITEMS) / times


def test_the_best_are_found_alike_often_and_the_rest_hardly_ever():
    often = found_often(2000)
    # A rank is in the part one time in eight, and among its best five unless five better ones are:
    # for the 20th with the probability 0.95, for the 40th with 0.53, for the 100th with 0.003.
    np.testing.assert_allclose(often[:10].mean(), 1 / STRIDE, rtol=0.1)
    assert 0.08 < often[10:20].mean() < 0.14
    assert 0.03 < often[35:45].mean() < 0.1
    assert often[100:].sum() < 0.05
    assert often.sum() == pytest.approx(K)


def test_what_is_excluded_is_not_found():
    exclude = [int(item) for item in ORDER[:30:2]]
    often = found_often(300, exclude=[*exclude, -1, -1])
    assert not often[0:30:2].any() and often[1:30:2].all()


def test_an_item_0_is_not_taken_for_padding():
    vectors = VECTORS.copy()
    vectors[0, 0] = 1.0
    options = {"stride": STRIDE, "k": 1}
    inputs = tf.constant(vectors), tf.ones([1, 1])
    found = [int(search_part(*inputs, tf.constant([[-1]]), **options)[0, 0]) for _ in range(60)]
    assert 0 in found
    found = [int(search_part(*inputs, tf.constant([[0]]), **options)[0, 0]) for _ in range(60)]
    assert 0 not in found


def test_a_step_that_is_done_again_finds_the_same():
    inputs = tf.constant(VECTORS), tf.ones([1, 1]), tf.constant([[-1]])

    def step(number):
        with draws.of_step(3, tf.constant(number, tf.int64)):
            return search_part(*inputs, stride=STRIDE, k=K).numpy().tolist()

    assert step(7) == step(7)
    assert step(7) != step(8)


def test_a_small_catalog_is_searched_whole_and_a_part_is_never_small():
    assert part_stride(2 * mining.SMALLEST_PART - 1, 100, 6) == 1
    assert part_stride(100_000, 100, 6) == 12
    # More would leave fewer than six of the best hundred in it.
    assert part_stride(10_000_000, 100, 6) == 16
    assert part_stride(10_000_000, 3, 3) == 1
