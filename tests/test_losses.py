"""Masks and the full softmax: the effect on the probability that is meant to move."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.losses import batch_history_mask, full_softmax_loss, history_mask

HISTORY = tf.constant([[2, 0, -1], [1, -1, -1], [-1, -1, -1], [3, 3, 1]])
ITEM = tf.constant([1, 1, 0, 3])


def test_history_mask_leaves_out_what_the_user_knows_and_keeps_the_positive():
    mask = history_mask(HISTORY, ITEM, num_items=5).numpy().astype(int).tolist()
    assert mask == [
        [0, 1, 0, 1, 1],  # Knows 2 and 0.
        [1, 1, 1, 1, 1],  # Knows 1, which is the positive.
        [1, 1, 1, 1, 1],  # Knows nothing; padding is no item.
        [1, 0, 1, 1, 1],  # Knows 1, and 3 twice, which is the positive.
    ]


def test_batch_history_mask_is_the_same_on_the_items_of_a_batch():
    mask = batch_history_mask(HISTORY, ITEM).numpy()
    everything = history_mask(HISTORY, ITEM, num_items=5).numpy()
    want = np.take(everything, ITEM, axis=1)
    # Another row with the same positive is an accidental hit and no matter of the history.
    assert mask.astype(int).tolist() == [
        [1, 1, 0, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 1],
        [0, 0, 1, 1],
    ]
    differs = np.argwhere(mask != want).tolist()
    assert differs == [[1, 0]]


def test_no_history_at_all():
    empty = tf.zeros([4, 0], tf.int32)
    assert history_mask(empty, ITEM, num_items=5).numpy().all()
    assert batch_history_mask(empty, ITEM).numpy().all()


def test_full_softmax_by_hand():
    logits = tf.math.log([[1.0, 2.0, 3.0, 4.0]])
    assert full_softmax_loss(logits, [1]).numpy() == pytest.approx(-np.log(2 / 10))
    allowed = tf.constant([[True, True, False, True]])
    loss = full_softmax_loss(logits, [1], allowed=allowed).numpy()
    assert loss == pytest.approx(-np.log(2 / 7))


def test_a_masked_item_is_not_pushed_away():
    logits = tf.Variable([[0.1, 0.2, 9.0]])
    allowed = tf.constant([[True, True, False]])
    with tf.GradientTape() as tape:
        loss = full_softmax_loss(logits, [0], allowed=allowed)
    gradient = tape.gradient(loss, logits).numpy()[0]
    assert gradient[2] == 0 and gradient[1] > 0.4 and gradient[0] < -0.4
