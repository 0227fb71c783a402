"""The list that is shown: scores against likeness, against a plain loop."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.recommender.diversity import diversify
from mmrec_tf.schema import LOWEST_SCORE


def by_loop(score, vectors, strength, k):
    """Maximal marginal relevance of one row, word for word."""
    real = [c for c in range(len(score)) if score[c] > LOWEST_SCORE]
    low, high = min(score[real]), max(score[real])
    relevance = {c: (score[c] - low) / (high - low) if high > low else 0.0 for c in real}
    picked = []
    while len(picked) < min(k, len(real)):
        values = {
            c: (1 - strength) * relevance[c]
            - strength * max((vectors[c] @ vectors[p] for p in picked), default=0.0)
            for c in real
            if c not in picked
        }
        picked.append(max(values, key=lambda c: (values[c], -c)))
    return picked


def draw(rows=6, candidates=12, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    score = -np.sort(-rng.normal(size=(rows, candidates)), axis=1).astype(np.float32)
    vectors = rng.normal(size=(rows, candidates, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return score, vectors


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("graph", [False, True])
def test_it_is_maximal_marginal_relevance(strength, graph):
    score, vectors = draw()
    score[2, 9:] = LOWEST_SCORE
    function = tf.function(diversify) if graph else diversify
    got = function(score, vectors, tf.fill([6], strength), 8).numpy()
    for row in range(6):
        want = by_loop(score[row], vectors[row], strength, 8)
        assert got[row, : len(want)].tolist() == want


def test_without_strength_the_order_stays_and_rows_stand_alone():
    score, vectors = draw()
    mixed = diversify(score, vectors, tf.constant([0.0, 0.9] * 3), 12).numpy()
    for row in (0, 2, 4):
        assert mixed[row].tolist() == list(range(12))
    alone = diversify(score[1:2], vectors[1:2], tf.constant([0.9]), 12).numpy()
    assert mixed[1].tolist() == alone[0].tolist() != list(range(12))


def test_twins_of_the_first_come_last_under_full_strength():
    score = np.array([[4.0, 3.0, 2.0, 1.0]], np.float32)
    vectors = np.array([[[1, 0], [1, 0], [0, 1], [-1, 0]]], np.float32)
    assert diversify(score, vectors, tf.constant([1.0]), 4).numpy().tolist() == [[0, 3, 2, 1]]


def test_equal_scores_keep_their_places_and_what_must_not_be_shown_stands_behind():
    score = np.array([[1.0, 1.0, 1.0, LOWEST_SCORE, LOWEST_SCORE]], np.float32)
    vectors = np.tile(np.array([[1.0, 0.0]], np.float32), (1, 5, 1))
    for strength in (0.0, 0.5, 1.0):
        got = diversify(score, vectors, tf.constant([strength]), 5).numpy().tolist()
        assert got == [[0, 1, 2, 3, 4]]
    nothing = np.full([1, 3], LOWEST_SCORE, np.float32)
    assert diversify(nothing, vectors[:, :3], tf.constant([0.5]), 3).numpy().tolist() == [[0, 1, 2]]


def test_an_empty_batch_and_none_to_pick():
    score, vectors = draw()
    assert diversify(score[:0], vectors[:0], tf.zeros([0]), 3).shape == (0, 3)
    assert diversify(score, vectors, tf.zeros([6]), 0).shape == (6, 0)
