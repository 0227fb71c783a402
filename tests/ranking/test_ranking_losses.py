"""Losses of a list of candidates: by hand, NumPy beside, and what padding must not do."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from mmrec_tf.ranking.losses import (
    binary_loss,
    listwise_softmax_loss,
    pairwise_logistic_loss,
    squared_loss,
)
from mmrec_tf.retrieval.losses import bpr_loss, sampled_softmax_loss

LOSSES = [listwise_softmax_loss, pairwise_logistic_loss, binary_loss, squared_loss]


def focal(logits, labels, weights):
    return binary_loss(logits, labels, weights, positive_weight=3.0, focal_gamma=0.5)


@pytest.fixture
def lists():
    """Rows with several positives, one, none; of positives alone, of one candidate, of none."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=[7, 5])
    labels = [[1, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [1] * 5, [1, 0, 0, 0, 0], [1] * 5, [0] * 5]
    weights = rng.uniform(0.5, 2, size=[7, 5])
    weights[0, 4] = weights[1, 0] = weights[2, 1] = 0
    weights[4, 1:] = weights[5] = 0
    return [np.array(value, np.float32) for value in (logits, labels, weights)]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def listwise(logits, labels, weights):
    probability = np.exp(logits) / np.exp(logits).sum()
    return -np.log(probability[labels > 0]).mean() if (labels > 0).any() else 0


def pairwise(logits, labels, weights):
    pairs = [
        -np.log(sigmoid(one - other))
        for one in logits[labels > 0].astype(np.float64)
        for other in logits[labels == 0]
    ]
    return np.mean(pairs) if pairs else 0


def binary(logits, labels, weights, positive_weight=1, gamma=0):
    p = np.where(labels > 0, sigmoid(logits), 1 - sigmoid(logits))
    costs = np.where(labels > 0, positive_weight, 1) * (1 - p) ** gamma * -np.log(p)
    return np.average(costs, weights=weights)


def squared(logits, labels, weights):
    return np.average((logits - labels) ** 2, weights=weights)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "loss, reference",
    [
        (listwise_softmax_loss, listwise),
        (pairwise_logistic_loss, pairwise),
        (binary_loss, binary),
        (focal, lambda *row: binary(*row, positive_weight=3, gamma=0.5)),
        (squared_loss, squared),
    ],
)
def test_it_is_the_loss_written_out(lists, loss, reference, compiled):
    got = tf.function(loss, jit_compile=compiled)(*lists)
    want = []
    for logits, labels, weights in zip(*lists, strict=True):
        known = weights > 0
        row = reference(logits[known], labels[known], weights[known]) if known.any() else 0
        want.append(row)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_by_hand():
    # Probabilities 1/8, 2/8 and 5/8; the target is half the first, half the third.
    logits, labels = tf.math.log([[1.0, 2.0, 5.0]]), tf.constant([[1.0, 0.0, 1.0]])
    ones = tf.ones([1, 3])
    loss = listwise_softmax_loss(logits, labels, ones).numpy()
    assert loss == pytest.approx([(np.log(8) + np.log(8 / 5)) / 2])
    # 1/3 for the first above the second, 5/7 for the third above it.
    loss = pairwise_logistic_loss(logits, labels, ones).numpy()
    assert loss == pytest.approx([(np.log(3) + np.log(7 / 5)) / 2])
    # Odds of 1 and 5 for what is positive, of 2 for what is not.
    each = np.log([2, 3, 6 / 5])
    assert binary_loss(logits, labels, ones).numpy() == pytest.approx([each.mean()])
    loss = binary_loss(logits, labels, tf.constant([[1.0, 3.0, 0.0]])).numpy()
    assert loss == pytest.approx([(each[0] + 3 * each[1]) / 4])
    loss = binary_loss(logits, labels, ones, positive_weight=4.0, focal_gamma=2.0).numpy()
    faded = each * [1 / 4, 4 / 9, 1 / 36] * [4, 1, 4]
    assert loss == pytest.approx([faded.mean()])
    stars = tf.constant([[4.0, 1.0, 3.0]]), tf.constant([[5.0, 3.0, 0.0]])
    assert squared_loss(*stars, tf.constant([[1.0, 1.0, 0.0]])).numpy() == pytest.approx([2.5])


@pytest.mark.parametrize(
    "loss, other",
    [(listwise_softmax_loss, sampled_softmax_loss), (pairwise_logistic_loss, bpr_loss)],
)
def test_with_one_positive_it_is_the_loss_of_retrieval(lists, loss, other):
    logits, _, weights = lists
    labels = np.eye(5, dtype=np.float32)[np.zeros(7, int)]
    weights[:, 0] = 1
    want = other(logits[:, 0], logits[:, 1:], allowed=tf.constant(weights[:, 1:] > 0))
    np.testing.assert_allclose(loss(logits, labels, weights), want, rtol=1e-5, atol=1e-6)


def test_the_cross_entropy_is_that_of_others(lists):
    logits, labels, weights = (part[:4] for part in lists)
    got = binary_loss(logits, labels, weights).numpy()
    for row in range(4):
        p = sigmoid(logits[row])
        want = log_loss(labels[row], p, sample_weight=weights[row], labels=[0, 1])
        assert got[row] == pytest.approx(want, rel=1e-5)
    ones = tf.ones_like(logits)
    got = binary_loss(logits, labels, ones, positive_weight=2.5)
    want = tf.nn.weighted_cross_entropy_with_logits(labels, logits, 2.5)
    np.testing.assert_allclose(got, tf.reduce_mean(want, axis=1), rtol=1e-5)
    got = binary_loss(logits, labels, ones, focal_gamma=2.0)
    want = tf.keras.losses.binary_focal_crossentropy(labels, logits, gamma=2.0, from_logits=True)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("loss", [*LOSSES, focal])
def test_gradients_are_those_of_small_steps(lists, loss):
    logits, labels, weights = (tf.constant(part) for part in lists)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(loss(logits, labels, weights))
    gradient = tape.gradient(total, logits).numpy()
    step = 1e-2
    for column in range(5):
        move = step * np.eye(5, dtype=np.float32)[column]
        after, before = (loss(logits + way * move, labels, weights).numpy() for way in (1, -1))
        np.testing.assert_allclose(gradient[:, column], (after - before) / 2 / step, atol=2e-3)


@pytest.mark.parametrize("loss", [*LOSSES, focal])
@pytest.mark.parametrize("filling", [np.nan, np.inf, -1e30])
def test_padding_is_not_read(lists, loss, filling):
    def found(logits, labels):
        logits = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss(logits, labels, lists[2])
        return losses.numpy(), tape.gradient(losses, logits).numpy()

    losses, gradient = found(*lists[:2])
    padding = lists[2] == 0
    logits, labels = (np.where(padding, np.float32(filling), part) for part in lists[:2])
    for got, want in zip(found(logits, labels), (losses, gradient), strict=True):
        np.testing.assert_array_equal(got, want)
    assert not gradient[padding].any() and losses[5] == 0


@pytest.mark.parametrize("loss", [listwise_softmax_loss, pairwise_logistic_loss])
def test_an_order_that_cannot_be_wrong_costs_nothing(lists, loss):
    """Without a positive, without a negative, with one candidate, with none."""
    logits = tf.constant(lists[0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(logits, *lists[1:])
    gradient = tape.gradient(losses, logits).numpy()
    free = [2, 4, 5, 6] + [3] * (loss is pairwise_logistic_loss)
    assert not losses.numpy()[free].any() and not gradient[free].any()
    assert (np.abs(gradient[:2]).max(axis=1) > 0.05).all()
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("loss", [listwise_softmax_loss, pairwise_logistic_loss])
def test_only_differences_matter_to_an_order(lists, loss):
    logits, labels, weights = lists
    level = np.linspace(-20, 20, 7, dtype=np.float32)[:, None]
    got = loss(logits + level, labels, weights)
    np.testing.assert_allclose(got, loss(logits, labels, weights), atol=1e-4)
    # Nor do weights, as long as they are not 0.
    np.testing.assert_array_equal(
        loss(logits, labels, weights), loss(logits, labels, np.sign(weights))
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_far_out_it_stays_finite(gamma):
    def focused(logits, labels, weights):
        return binary_loss(logits, labels, weights, focal_gamma=gamma)

    logits = tf.Variable([[500.0, -500.0], [-500.0, 500.0]])
    labels, weights = tf.constant([[1.0, 0.0]] * 2), tf.ones([2, 2])
    for loss, wrong in (
        (listwise_softmax_loss, 1000),
        (pairwise_logistic_loss, 1000),
        (focused, 500),
    ):
        with tf.GradientTape() as tape:
            losses = loss(logits, labels, weights)
        gradient = tape.gradient(losses, logits).numpy()
        assert losses.numpy() == pytest.approx([0, wrong])
        assert np.isfinite(gradient).all() and not gradient[0].any()
        assert gradient[1, 0] < -0.4 and gradient[1, 1] > 0.4


def test_what_is_easy_fades():
    """Of a negative at p = 0.1 a tenth is left, of one at p = 0.9 nine tenths."""
    logits = tf.math.log([[1 / 9], [9.0]])
    zeros, ones = tf.zeros([2, 1]), tf.ones([2, 1])
    plain = binary_loss(logits, zeros, ones).numpy()
    faded = binary_loss(logits, zeros, ones, focal_gamma=1.0).numpy()
    assert faded / plain == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize("loss", [*LOSSES, focal])
def test_no_rows_and_no_candidates(loss):
    assert loss(*[tf.zeros([0, 4])] * 3).shape == (0,)
    assert loss(*[tf.zeros([3, 0])] * 3).numpy().tolist() == [0, 0, 0]
