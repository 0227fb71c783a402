"""Where negatives come from: estimates against counts, and the correction by its effect."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.retrieval.losses import bpr_loss, full_softmax_loss, sampled_softmax_loss
from mmrec_tf.retrieval.negatives import (
    FrequencyEstimator,
    ItemMemory,
    draw_columns,
    log_expected,
)
from mmrec_tf.training.step import gather_replicas

# A handful of users with tastes of their own over items of which few are popular.
NUM_USERS, NUM_ITEMS, BATCH, STEPS = 4, 40, 64, 300
_rng = np.random.default_rng(0)
_taste = _rng.normal(size=(NUM_USERS, NUM_ITEMS)) - 1.2 * np.log(np.arange(1, NUM_ITEMS + 1))
TASTE = np.exp(_taste) / np.exp(_taste).sum(axis=1, keepdims=True)
POPULARITY = TASTE.mean(axis=0)
USERS = _rng.integers(0, NUM_USERS, [STEPS, BATCH]).astype(np.int32)
ITEMS = (TASTE.cumsum(axis=1)[USERS] < _rng.random([STEPS, BATCH, 1])).sum(axis=2).astype(np.int32)


# The streaming estimate


def gaps(batches, item, rate):
    """The average gap of one item, occurrence by occurrence; None where it never came."""
    now, last, average, count = 0, 0, 0.0, 0
    for batch in batches:
        now += len(batch)
        times = int((np.asarray(batch) == item).sum())
        for _ in range(times):
            count += 1
            average += max(1 / count, rate) * ((now - last) / times - average)
        last = now if times else last
    return average if count else None


def estimate(batches, num_items, *, rate=0.01, compiled=False):
    frequency = FrequencyEstimator(num_items, rate=rate)
    update = tf.function(frequency.update, jit_compile=compiled, reduce_retracing=not compiled)
    for batch in batches:
        update(tf.constant(batch, tf.int32))
    return frequency


def test_estimates_by_hand():
    # Item 0 comes at 2 examples, then after 4 more; item 1 twice among the first 2 and once then;
    # item 2 only at the end, three times in four examples; item 3 never.
    frequency = estimate([[0, 1, 1], [0, 1, 2, 2, 2]], 4)
    np.testing.assert_allclose(frequency.gap.numpy(), [(3 + 5) / 2, (1.5 + 1.5 + 5) / 3, 8 / 3, 0])
    got = frequency(tf.constant([2, 0, 0, 3, 1]))
    np.testing.assert_allclose(got, [3 / 8, 1 / 4, 1 / 4, 1 / 9, 3 / 8], rtol=1e-6)
    assert frequency.count.numpy().tolist() == [2, 3, 3, 0]
    assert frequency(tf.zeros([0], tf.int32)).shape == (0,)


@pytest.mark.parametrize("rate", [1e-4, 0.9])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_batch_at_once_is_its_occurrences_one_by_one(rate, compiled):
    batches = ITEMS[:12, :16]
    frequency = estimate(batches, NUM_ITEMS, rate=rate, compiled=compiled)
    want = [gaps(batches, item, rate) or 0 for item in range(NUM_ITEMS)]
    np.testing.assert_allclose(frequency.gap, want, rtol=1e-4)


@pytest.mark.parametrize("rate, near", [(0.01, 0.1), (0.001, 0.02)])
def test_streaming_estimates_come_to_the_counts(rate, near):
    frequency = estimate(ITEMS, NUM_ITEMS, rate=rate)
    share = np.bincount(ITEMS.ravel(), minlength=NUM_ITEMS) / ITEMS.size
    # The first items stand in every batch, and are told apart all the same.
    assert share[0] * BATCH > 10 and share[0] > 1.5 * share[1]
    off = np.abs(np.log(frequency(tf.range(NUM_ITEMS)) / share))
    assert np.average(off, weights=share) < near and off.max() < 5 * near


def test_the_estimate_follows_what_changes():
    rng = np.random.default_rng(1)
    before, after = [rng.choice(3, [200, 20], p=p) for p in ([0.8, 0.1, 0.1], [0.1, 0.1, 0.8])]
    frequency = estimate([*before, *after], 3)
    assert frequency([0]).numpy() == pytest.approx(0.1, rel=0.3)
    assert frequency([2]).numpy() == pytest.approx(0.8, rel=0.3)


def test_no_examples_and_an_empty_batch():
    frequency = FrequencyEstimator(3)
    assert frequency([0, 2]).numpy().tolist() == [1, 1]
    frequency.update(tf.zeros([0], tf.int32))
    assert frequency([0, 2]).numpy().tolist() == [1, 1]
    frequency.update(tf.constant([1, 1]))
    assert frequency([0, 1]).numpy() == pytest.approx([1 / 3, 1])


# The memory


@pytest.mark.parametrize("compiled", [False, True])
def test_the_newest_stand_in_front_and_the_oldest_leave(compiled):
    memory = ItemMemory(4, 2)
    write = tf.function(memory.write, jit_compile=compiled)
    kept = [memory.read()[0].numpy().tolist()]
    for item in ([7, 3], [5], [], [3, 1], [2, 4, 6, 8, 0]):
        number = tf.constant(item, tf.int32)
        write(number, tf.stack([tf.cast(number, tf.float32), tf.ones(len(item))], axis=1))
        kept.append(memory.read()[0].numpy().tolist())
        vectors = memory.read()[1].numpy()
        there = np.array(kept[-1]) >= 0
        assert vectors[there, 0].tolist() == [n for n in kept[-1] if n >= 0]
        assert (vectors[:, 1] == there).all()
    assert kept == [
        [-1, -1, -1, -1],
        [7, 3, -1, -1],
        [5, 7, 3, -1],
        [5, 7, 3, -1],
        [3, 1, 5, 7],
        [2, 4, 6, 8],
    ]


def test_no_gradient_reaches_back_into_the_memory():
    memory, vectors = ItemMemory(2, 3), tf.Variable(tf.ones([2, 3]))
    with tf.GradientTape() as tape:
        memory.write(tf.constant([0, 1]), vectors)
        loss = tf.reduce_sum(tf.square(memory.read()[1]))
    assert loss.numpy() == 6 and tape.gradient(loss, vectors) is None
    assert not memory.trainable_variables


class Holder(tf.keras.Model):
    """A model that has an estimate and a memory, as the retrieval model does."""

    def __init__(self):
        super().__init__()
        self.frequency, self.memory = FrequencyEstimator(5), ItemMemory(3, 2)


def test_a_checkpoint_and_the_weights_hold_the_state(tmp_path):
    model, read, given = Holder(), Holder(), Holder()
    model.frequency.update(tf.constant([4, 4, 1]))
    model.memory.write(tf.constant([4, 1]), tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    model.save_weights(str(tmp_path / "weights"))
    read.load_weights(str(tmp_path / "weights")).assert_consumed()
    given.set_weights(model.get_weights())
    assert len(model.get_weights()) == 6 and not model.trainable_variables
    for copy in (read, given):
        copy.frequency.update(tf.constant([1]))
        assert copy.frequency([1, 4]).numpy() == pytest.approx([2 / 4, 2 / 3])
        assert copy.memory.read()[0].numpy().tolist() == [4, 1, -1]
        assert copy.memory.read()[1].numpy().tolist() == [[1, 2], [3, 4], [0, 0]]


def test_half_precision_leaves_the_state_as_it_is():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        frequency, memory = FrequencyEstimator(5), ItemMemory(3, 2)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    frequency.update(tf.zeros([100_000], tf.int32))
    frequency.update(tf.constant([1]))
    # Beyond the range of half precision.
    assert frequency([1]).numpy() == pytest.approx(1 / 100_001)
    assert memory.read()[1].dtype == tf.float32


# Draws


@pytest.mark.parametrize("compiled", [False, True])
def test_columns_are_drawn_evenly_and_each_once(compiled):
    table = tf.constant([[10, 11, 12, 13], [20, 21, -1, -1], [30, 31, 32, 33]])
    row = tf.constant([2, 0, 1, -1, 0])
    draw = tf.function(lambda: draw_columns(table, row, 3), jit_compile=compiled)
    drawn = np.stack([draw().numpy() for _ in range(400)])
    assert drawn.shape == (400, 5, 3)
    for place, entries in enumerate([[30, 31, 32, 33], [10, 11, 12, 13], [20, 21, -1, -1]]):
        share = [(drawn[:, place] == entry).sum() / 400 for entry in entries]
        times = 1 + (np.array(entries) < 0)
        assert share == pytest.approx(0.75 * times, abs=0.1)
    assert (drawn[:, 3] == -1).all()
    numbers = np.sort(drawn[:, [0, 1, 4]], axis=2)
    assert (np.diff(numbers, axis=2) > 0).all()
    # Two rows of one user are drawn apart.
    assert (numbers[:, 1] != numbers[:, 2]).any()


def test_all_columns_and_none():
    table, row = tf.constant([[5, 7, 9]]), tf.constant([0, 0])
    assert np.sort(draw_columns(table, row, 3)).tolist() == [[5, 7, 9]] * 2
    assert draw_columns(table, row, 0).shape == (2, 0)
    assert draw_columns(table, tf.zeros([0], tf.int32), 2).shape == (0, 2)


# The correction


def test_expected_by_hand():
    got = log_expected(tf.constant([0.5, 0.0]), num_drawn=6, num_uniform=4, num_items=8)
    assert np.exp(got) == pytest.approx([3.5, 0.5])
    got = log_expected(tf.constant([0.5, 0.25]), num_drawn=6, num_uniform=0, num_items=8)
    assert np.exp(got) == pytest.approx([3, 1.5])


@pytest.mark.parametrize("num_drawn, num_uniform", [(32, 0), (32, 16), (4, 60)])
def test_the_pool_holds_what_is_expected(num_drawn, num_uniform):
    """So a sum over the pool, each item divided by that, is the sum over the catalog: the softmax
    over the pool has the denominator of the full one."""
    rng = np.random.default_rng(2)
    pools = 4000
    drawn = rng.choice(NUM_ITEMS, [pools, num_drawn], p=POPULARITY)
    uniform = rng.integers(0, NUM_ITEMS, [pools, num_uniform])
    pool = np.concatenate([drawn, uniform], axis=1)
    probability = tf.constant(POPULARITY, tf.float32)
    size = {"num_drawn": num_drawn, "num_uniform": num_uniform, "num_items": NUM_ITEMS}
    expected = np.exp(log_expected(probability, **size))
    count = np.bincount(pool.ravel(), minlength=NUM_ITEMS) / pools
    assert count == pytest.approx(expected, rel=0.15)
    for score in TASTE:
        total = (score / expected)[pool].sum(axis=1).mean()
        assert total == pytest.approx(score.sum(), rel=0.05)


def fit(loss, *, sign=1.0, streaming=False, num_uniform=0):
    """Scores of users for items after training, as log-probabilities <float64>[user, item].

    The negatives are the batch's items, others' choice of the positive among them, and some of
    the catalog; the sign is that of the correction, loss None is the full softmax.
    """
    tf.random.set_seed(0)
    user, item = (tf.Variable(0.3 * tf.random.normal([n, 6])) for n in (NUM_USERS, NUM_ITEMS))
    bias = tf.Variable(tf.zeros([NUM_ITEMS]))
    weights = [user, item, bias]
    rate = tf.keras.optimizers.schedules.PolynomialDecay(0.1, STEPS, 0.003)
    optimizer = tf.keras.optimizers.Adam(rate)
    frequency = FrequencyEstimator(NUM_ITEMS)
    counts = tf.constant(POPULARITY, tf.float32)
    own = tf.eye(BATCH, BATCH + num_uniform, dtype=tf.bool)

    @tf.function
    def step(u, i):
        frequency.update(i)
        drawn = tf.random.uniform([num_uniform], maxval=NUM_ITEMS, dtype=tf.int32)
        pool = tf.concat([i, drawn], axis=0)
        probability = frequency(pool) if streaming else tf.gather(counts, pool)
        expected = log_expected(
            probability, num_drawn=BATCH, num_uniform=num_uniform, num_items=NUM_ITEMS
        )
        with tf.GradientTape() as tape:
            logits = tf.matmul(tf.gather(user, u), item, transpose_b=True) + bias
            if loss is None:
                losses = full_softmax_loss(logits, i)
            else:
                logits = tf.gather(logits, pool, axis=1) - sign * expected
                losses = loss(tf.linalg.diag_part(logits[:, :BATCH]), logits, allowed=~own)
            mean = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(mean, weights), weights, strict=True))

    for u, i in zip(USERS, ITEMS, strict=True):
        step(tf.constant(u), tf.constant(i))
    score = (user.numpy() @ item.numpy().T + bias.numpy()).astype(np.float64)
    return score - np.log(np.exp(score).sum(axis=1, keepdims=True))


def divergence(score):
    """From the users' taste, the mean over users; 0 for the same."""
    return (TASTE * (np.log(TASTE) - score)).sum(axis=1).mean()


def favor(score):
    """How much popular items are ranked over what users make of them: the slope of what is too
    much over the log of popularity; 0 where popular items have their due."""
    excess = score - np.log(TASTE)
    return np.mean([np.polyfit(np.log(POPULARITY), r, 1, w=np.sqrt(POPULARITY))[0] for r in excess])


@pytest.fixture(scope="module")
def full():
    return fit(None)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": sampled_softmax_loss},
        {"loss": sampled_softmax_loss, "streaming": True},
        {"loss": sampled_softmax_loss, "num_uniform": 32},
        {"loss": bpr_loss},
    ],
)
def test_corrected_scores_are_the_taste_of_users(settings, full):
    score = fit(**settings)
    assert divergence(full) < 0.02 and divergence(score) < 0.02
    assert favor(score) == pytest.approx(0, abs=0.05)
    for one, other, taste in zip(score, full, TASTE, strict=True):
        best = np.argsort(-taste)[:10]
        assert np.corrcoef(one[best], other[best])[0, 1] > 0.95


@pytest.mark.parametrize("loss", [sampled_softmax_loss, bpr_loss])
def test_without_it_popular_items_fall_behind_and_with_the_wrong_sign_further(loss):
    """What is learned is taste over popularity to the power of 1, or of 2."""
    none, wrong = fit(loss, sign=0.0), fit(loss, sign=-1.0)
    assert favor(none) == pytest.approx(-1, abs=0.1)
    assert favor(wrong) == pytest.approx(-2, abs=0.2)
    assert divergence(none) > 0.5 and divergence(wrong) > 2


# Replicas


def test_of_one_replica_values_stay_as_they_are():
    values = tf.ones([2, 3]), tf.constant([1, 2])
    assert gather_replicas(*values) == values
