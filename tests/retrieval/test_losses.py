"""Losses and masks: the effect on the probability that is meant to move, and NumPy beside."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.retrieval.losses import (
    batch_history_mask,
    batch_softmax_loss,
    bpr_loss,
    full_softmax_loss,
    gbce_loss,
    history_mask,
    named_in,
    perturb,
    positive_power,
    sampled_softmax_loss,
    with_noise,
)

HISTORY = tf.constant([[2, 0, -1], [1, -1, -1], [-1, -1, -1], [3, 3, 1]])
ITEM = tf.constant([1, 1, 0, 3])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def some(*shape, seed=1):
    """A mask; the first row allows nothing, the second one thing, the third everything."""
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[0], mask[1], mask[2] = False, np.arange(shape[1]) == 2, True
    return mask


# Masks


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
    assert not named_in(empty, ITEM).numpy().any()


def test_a_history_names_its_items_and_never_padding():
    shared = tf.constant([2, -1, 1, 3])
    assert named_in(HISTORY, shared).numpy().astype(int).tolist() == [
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 1],
    ]
    own = tf.constant([[0, -1], [0, 1], [-1, 0], [3, 1]])
    assert named_in(HISTORY, own).numpy().astype(int).tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]
    assert named_in(HISTORY, tf.zeros([0], tf.int32)).shape == (4, 0)


# The softmax over all


def smoothed(logits, target, allowed, share):
    """Cross-entropy of one row against the target distribution, written out."""
    places = np.flatnonzero(allowed)
    wanted = np.full(len(places), share / len(places))
    wanted[places == target] += 1 - share
    log_probability = logits[places] - np.log(np.exp(logits[places].astype(np.float64)).sum())
    return -(wanted * log_probability).sum()


def test_full_softmax_by_hand():
    logits = tf.math.log([[1.0, 2.0, 3.0, 4.0]])
    assert full_softmax_loss(logits, [1]).numpy() == pytest.approx(-np.log(2 / 10))
    allowed = tf.constant([[True, True, False, True]])
    loss = full_softmax_loss(logits, [1], allowed=allowed).numpy()
    assert loss == pytest.approx(-np.log(2 / 7))
    # A tenth of the target is spread over 1/7, 2/7 and 4/7.
    loss = full_softmax_loss(logits, [1], allowed=allowed, label_smoothing=0.1).numpy()
    want = -0.9 * np.log(2 / 7) - 0.1 * np.log(8 / 343) / 3
    assert loss == pytest.approx(want)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("compiled", [False, True])
def test_full_softmax_is_the_cross_entropy_written_out(masked, share, compiled):
    logits, item = 3 * normal(5, 7), np.array([0, 2, 3, 6, 2])
    allowed = (some(5, 7) | (np.arange(7) == item[:, None])) if masked else np.ones([5, 7], bool)
    loss = tf.function(full_softmax_loss, jit_compile=compiled)
    got = loss(logits, item, allowed=allowed if masked else None, label_smoothing=share)
    want = [smoothed(*row, share) for row in zip(logits, item, allowed, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_masked_item_is_not_pushed_away_nor_drawn_near():
    for share in (0.0, 0.1):
        logits = tf.Variable([[0.1, 0.2, 9.0]])
        allowed = tf.constant([[True, True, False]])
        with tf.GradientTape() as tape:
            loss = full_softmax_loss(logits, [0], allowed=allowed, label_smoothing=share)
        gradient = tape.gradient(loss, logits).numpy()[0]
        assert gradient[2] == 0 and gradient[1] > 0.4 and gradient[0] < -0.4


# The softmax over some


def columns(negative, allowed, num_hard):
    """The negatives of one row that count."""
    kept = np.sort(negative[allowed])
    return kept[len(kept) - num_hard :] if 0 < num_hard < len(kept) else kept


SAMPLED = [(False, 0, 0.0), (True, 0, 0.0), (True, 2, 0.0), (True, 2, 0.3), (False, 99, 0.3)]


@pytest.mark.parametrize("masked, hard, share", SAMPLED)
@pytest.mark.parametrize("compiled", [False, True])
def test_sampled_softmax_is_the_cross_entropy_written_out(masked, hard, share, compiled):
    positive, negative = 3 * normal(6), 3 * normal(6, 8, seed=2)
    allowed = some(6, 8) if masked else np.ones([6, 8], bool)
    loss = tf.function(sampled_softmax_loss, jit_compile=compiled)
    got = loss(
        positive,
        negative,
        allowed=allowed if masked else None,
        num_hard=hard,
        label_smoothing=share,
    )
    want = []
    for row in range(6):
        logits = np.append(positive[row], columns(negative[row], allowed[row], hard))
        want.append(smoothed(logits, 0, np.ones(len(logits), bool), share))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert not masked or got[0] == 0


def test_against_all_others_it_is_the_full_softmax():
    logits, item = normal(4, 6), np.array([5, 0, 2, 2])
    others = np.array([np.delete(row, i) for row, i in zip(logits, item, strict=True)])
    for share in (0.0, 0.2):
        got = sampled_softmax_loss(logits[range(4), item], others, label_smoothing=share)
        want = full_softmax_loss(logits, item, label_smoothing=share)
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("loss", [sampled_softmax_loss, bpr_loss])
def test_only_what_is_allowed_and_hard_is_pushed_away(loss):
    positive, negative = tf.Variable([0.5, 0.5]), tf.Variable([[1.0, 3.0, 2.0, 9.0], [5.0] * 4])
    allowed = tf.constant([[True, True, True, False], [False] * 4])
    with tf.GradientTape() as tape:
        losses = loss(positive, negative, allowed=allowed, num_hard=2)
    pulled, pushed = (value.numpy() for value in tape.gradient(losses, [positive, negative]))
    assert (pushed[0] > 0.01).tolist() == [False, True, True, False]
    assert pushed[0, 0] == pushed[0, 3] == 0 and pulled[0] < -0.1
    assert losses[1] == 0 and pulled[1] == 0 and not pushed[1].any()


@pytest.mark.parametrize("loss", [sampled_softmax_loss, bpr_loss])
@pytest.mark.parametrize("hard", [0, 3])
def test_no_columns_and_no_rows(loss, hard):
    assert loss(tf.zeros([3]), tf.zeros([3, 0]), num_hard=hard).numpy().tolist() == [0, 0, 0]
    assert loss(tf.zeros([0]), tf.zeros([0, 4]), num_hard=hard).shape == (0,)


@pytest.mark.parametrize("loss", [sampled_softmax_loss, bpr_loss])
def test_far_apart_it_stays_finite(loss):
    positive, negative = tf.Variable([500.0, -500.0]), tf.Variable([[-500.0] * 2, [500.0] * 2])
    with tf.GradientTape() as tape:
        losses = loss(positive, negative)
    assert losses[0].numpy() == 0 and losses[1].numpy() == pytest.approx(1000, rel=0.01)
    assert all(np.isfinite(part).all() for part in tape.gradient(losses, [positive, negative]))


@pytest.mark.parametrize("probability", [None, np.array([0.3, 0.05, 0.3, 0.2, 0.01, 0.05, 0.3])])
@pytest.mark.parametrize("hits", [False, True])
@pytest.mark.parametrize("hard", [0, 2])
def test_on_a_batch_it_is_the_task_of_tensorflow_recommenders(probability, hits, hard):
    """Items 4 and 7 stand twice; losses, weighted, and gradients."""
    queries, candidates = tf.Variable(normal(7, 3)), tf.Variable(normal(7, 3, seed=1))
    item, weight = tf.constant([4, 9, 7, 2, 0, 7, 4]), np.linspace(0, 2, 7, dtype=np.float32)
    known = batch_history_mask(tf.constant([[9, 7]] * 2 + [[-1, -1]] * 3 + [[2, 0]] * 2), item)
    task = tfrs.tasks.Retrieval(
        loss=tf.keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction=tf.keras.losses.Reduction.NONE
        ),
        num_hard_negatives=hard or None,
        remove_accidental_hits=hits,
    )
    with tf.GradientTape(persistent=True) as tape:
        want = task(
            queries,
            candidates,
            sample_weight=weight,
            candidate_sampling_probability=None
            if probability is None
            else tf.constant(probability, tf.float32),
            candidate_ids=item,
            score_mask=known,
            compute_metrics=False,
        )
        logits = tf.matmul(queries, candidates, transpose_b=True)
        if probability is not None:
            logits -= np.log(probability).astype(np.float32)
        allowed = known & ~tf.eye(7, dtype=tf.bool)
        if hits:
            allowed &= item[None, :] != item[:, None]
        got = weight * sampled_softmax_loss(
            tf.linalg.diag_part(logits), logits, allowed=allowed, num_hard=hard
        )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for variable in (queries, candidates):
        one, other = tape.gradient(got, variable), tape.gradient(want, variable)
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("probability", [None, np.array([0.3, 0.05, 0.3, 0.2, 0.01])])
@pytest.mark.parametrize("hits", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_each_distinct_item_scored_once_is_the_task_too(probability, hits, masked):
    """Items 4 and 7 stand twice, and 4 is what others know; losses and gradients."""
    item = tf.constant([4, 9, 7, 2, 0, 7, 4])
    place = tf.constant([0, 1, 2, 3, 4, 2, 0])
    history = tf.constant([[9, 7]] * 2 + [[-1, -1]] * 2 + [[4, 4]] + [[2, 4]] + [[0, -1]])
    queries, table = tf.Variable(normal(7, 3)), tf.Variable(normal(5, 3, seed=1))
    share = None
    if probability is not None:
        share = tf.gather(tf.constant(probability, tf.float32), place)
    task = tfrs.tasks.Retrieval(
        loss=tf.keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction=tf.keras.losses.Reduction.NONE
        ),
        remove_accidental_hits=hits,
    )
    with tf.GradientTape(persistent=True) as tape:
        candidates = tf.gather(table, place)
        want = task(
            queries,
            candidates,
            candidate_sampling_probability=share,
            candidate_ids=item,
            score_mask=batch_history_mask(history, item) if masked else None,
            compute_metrics=False,
        )
        got = batch_softmax_loss(
            queries,
            candidates,
            item,
            probability=share,
            history=history if masked else None,
            remove_hits=hits,
        )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for variable in (queries, table):
        one, other = (tf.convert_to_tensor(tape.gradient(x, variable)) for x in (got, want))
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_batch_of_one_item():
    same = tf.ones([3, 2])
    item = tf.constant([5, 5, 5])
    assert batch_softmax_loss(same, same, item).numpy() == pytest.approx([0, 0, 0], abs=1e-6)
    losses = batch_softmax_loss(same, same, item, remove_hits=False).numpy()
    assert losses == pytest.approx([np.log(3)] * 3)


# Pairs


def test_bpr_by_hand():
    # Differences of 0 and of log 3: -log(1/2) and -log(3/4).
    loss = bpr_loss(tf.math.log([3.0]), tf.math.log([[3.0, 1.0]])).numpy()
    assert loss == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


@pytest.mark.parametrize("masked, hard", [(False, 0), (True, 0), (True, 2), (False, 99)])
@pytest.mark.parametrize("compiled", [False, True])
def test_bpr_is_the_mean_over_pairs_written_out(masked, hard, compiled):
    positive, negative = 3 * normal(6), 3 * normal(6, 8, seed=2)
    allowed = some(6, 8) if masked else np.ones([6, 8], bool)
    loss = tf.function(bpr_loss, jit_compile=compiled)
    got = loss(positive, negative, allowed=allowed if masked else None, num_hard=hard)
    want = []
    for row in range(6):
        apart = positive[row] - columns(negative[row], allowed[row], hard).astype(np.float64)
        want.append(-np.log(1 / (1 + np.exp(-apart))).mean() if len(apart) else 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


# Noise


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16])
def test_noise_is_as_long_as_it_says_on_a_unit_vector(dtype):
    noisy = with_noise(tf.zeros([2000, 16], dtype), 0.5)
    assert noisy.dtype == dtype
    noise = noisy.numpy().astype(np.float64)
    assert np.sqrt(np.square(noise).sum(axis=1).mean()) == pytest.approx(0.5, rel=0.02)
    assert noise.std(axis=0) == pytest.approx(0.5 / 4, rel=0.1)
    assert np.abs(noise.mean(axis=0)).max() < 0.02
    vectors = tf.constant(normal(3, 4))
    np.testing.assert_array_equal(with_noise(vectors, 0.0), vectors)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_perturbation_by_hand(compiled):
    move = tf.function(perturb, jit_compile=compiled)
    vectors = tf.constant([[1.0, 1.0], [2.0, 2.0]])
    moved = move(vectors, tf.constant([[3.0, -4.0], [0.0, 0.0]]), 0.5)
    np.testing.assert_allclose(moved, [[1.3, 0.6], [2.0, 2.0]], rtol=1e-6)
    assert move(tf.zeros([0, 2]), tf.zeros([0, 2]), 0.5).shape == (0, 2)


def test_no_direction_of_that_length_is_worse():
    """To first order; the loss is that of a softmax, of which every row has one of its own."""
    vectors, rows, item = tf.constant(normal(5, 4)), tf.constant(normal(6, 4, seed=1)), [3, 0, 5]
    radius = 1e-2

    def loss(x):
        return full_softmax_loss(tf.matmul(x[:3], rows, transpose_b=True), item)

    with tf.GradientTape() as tape:
        tape.watch(vectors)
        losses = loss(vectors)
    gradient = tape.gradient(losses, vectors)
    worst = loss(perturb(vectors, gradient, radius)).numpy()
    for seed in range(50):
        step = normal(5, 4, seed=seed)
        step *= radius / np.linalg.norm(step, axis=1, keepdims=True)
        assert (loss(vectors + step).numpy() <= worst + 1e-5).all()
    np.testing.assert_allclose(worst - losses, radius * np.linalg.norm(gradient, axis=1)[:3], 0.05)
    # What no loss depends on stays where it is.
    np.testing.assert_array_equal(perturb(vectors, gradient, radius)[3:], vectors[3:])


def test_no_gradient_flows_through_the_direction():
    vectors, gradient = tf.Variable(normal(3, 4)), tf.Variable(normal(3, 4, seed=1))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(perturb(vectors, gradient, 0.5))
    through, beside = tape.gradient(total, [vectors, gradient])
    np.testing.assert_array_equal(through, np.ones([3, 4]))
    assert beside is None


def test_masks_scatter_nothing_that_a_gpu_cannot():
    history, item = tf.constant([[1, 2, -1], [0, 0, 0]]), tf.constant([0, 1])
    vectors = tf.ones([2, 3])

    @tf.function
    def masks():
        loss = batch_softmax_loss(
            vectors, vectors, item, probability=None, history=history, remove_hits=True
        )
        return loss, history_mask(history, item, num_items=4)

    graph = masks.get_concrete_function().graph
    kinds = {op.type: op.get_attr("T") for op in graph.get_operations() if "Scatter" in op.type}
    # TensorFlow has these for bools and for int32 on a CPU alone.
    assert "ScatterNd" in kinds and not {tf.bool, tf.int32} & set(kinds.values())


# Generalized binary cross-entropy


def test_gbce_by_hand():
    positive, negative = tf.constant([0.0, 2.0]), tf.constant([[0.0, 1.0, 99.0], [-3.0, 0.0, 0.0]])
    weight = tf.constant([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    log = np.log
    # -log sigmoid(0) = log 2, -log(1 - sigmoid(1)) = log(1 + e).
    want = [(0.5 * log(2) + log(2) + 2 * log(1 + np.e)) / 4, 0.5 * log(1 + np.exp(-2))]
    np.testing.assert_allclose(gbce_loss(positive, negative, weight=weight, power=0.5), want, 1e-5)


def test_the_power_of_a_positive_goes_from_one_to_the_share_that_is_drawn():
    assert positive_power(10, 101, 0.0) == pytest.approx(1.0)
    assert positive_power(10, 101, 1.0) == pytest.approx(0.1)
    assert positive_power(10, 101, 0.5) == pytest.approx(0.55)
    assert positive_power(500, 101, 0.7) == pytest.approx(1.0)


@pytest.mark.parametrize(("calibration", "right"), [(1.0, True), (0.0, False)])
def test_calibrated_probabilities_are_those_among_all_items(calibration, right):
    """One user, ten items, chosen as often as `share` says, three of the others drawn evenly."""
    share = np.array([0.3, 0.2, 0.14, 0.1, 0.08, 0.06, 0.05, 0.04, 0.02, 0.01])
    power = positive_power(3, 10, calibration)
    # Expected weight of each item as a negative: it is drawn where another is the positive.
    drawn = (1 - share) * 3 / 9
    logits = tf.Variable(tf.zeros([10]))
    optimizer = tf.keras.optimizers.Adam(0.1)
    for _ in range(400):
        with tf.GradientTape() as tape:
            against = tf.reduce_sum(drawn * tf.nn.softplus(logits))
            ways = tf.fill([10, 1], 0.0)
            each = gbce_loss(logits, ways, weight=tf.zeros_like(ways), power=power)
            loss = tf.reduce_sum(share * each) + against
        optimizer.apply_gradients([(tape.gradient(loss, logits), logits)])
    got = tf.sigmoid(logits).numpy()
    assert np.allclose(got, share, atol=0.01) == right
    assert (got - share).min() > -0.01
