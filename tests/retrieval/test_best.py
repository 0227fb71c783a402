"""The best of many scores are those of one sort, in the same order."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.exporting.allowed_ops import ALLOWED
from mmrec_tf.retrieval.index.best import FEWEST, best_k
from mmrec_tf.schema import LOWEST_SCORE


@pytest.mark.parametrize("num", [FEWEST, FEWEST + 1, 50_001])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_places_are_those_of_top_k_ties_included(num, k):
    rng = np.random.default_rng(num + k)
    scores = rng.normal(size=(6, num)).astype(np.float32)
    scores[1] = np.round(scores[1], 1)
    scores[2] = 0
    scores[3] = LOWEST_SCORE
    scores[3, rng.integers(num, size=k // 2)] = 1
    scores[4] = np.sort(scores[4])
    scores[5, :200] = 9
    search = tf.function(lambda x: best_k(x, k), input_signature=[tf.TensorSpec([None, num])])
    values, places = search(scores)
    want = tf.math.top_k(scores, k)
    np.testing.assert_array_equal(places, want.indices)
    np.testing.assert_array_equal(values, want.values)
    ops = {op.type for op in search.get_concrete_function().graph.get_operations()}
    assert "Max" in ops and ops <= ALLOWED


def test_few_scores_take_one_sort():
    search = tf.function(lambda x: best_k(x, 5), input_signature=[tf.TensorSpec([None, 100])])
    ops = [op.type for op in search.get_concrete_function().graph.get_operations()]
    assert ops.count("TopKV2") == 1
