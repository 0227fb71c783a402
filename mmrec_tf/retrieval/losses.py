"""Retrieval losses, and the masks that go with them."""

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.schema import LOWEST_SCORE


def history_mask(history: tf.Tensor, item: tf.Tensor, *, num_items: int) -> tf.Tensor:
    """Which items may stand as negatives: all but the user's other known ones.

    Args:
      history: <int32>[batch, step], -1 for padding.
      item: <int32>[batch], the positives; they stay in even where the history names them.
      num_items: int.

    Returns:
      <bool>[batch, num_items].
    """
    # Padding goes to one more column, which is cut off again.
    known = _marked(tf.where(history >= 0, history, num_items), num_items + 1)[:, :num_items]
    return ~known | tf.equal(tf.range(num_items)[None, :], item[:, None])


def _marked(columns: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Which columns each row names, <int32>[batch, any] -> <bool>[batch, width]."""
    shape = tf.shape(columns)
    row = tf.broadcast_to(tf.range(shape[0])[:, None], shape)
    # Counted, as TensorFlow scatters no bools on a GPU; in numbers of two bytes, which hold more
    # than any history does.
    count = tf.scatter_nd(
        tf.stack([row, columns], axis=-1), tf.ones(shape, tf.int16), [shape[0], width]
    )
    return tf.cast(count, tf.bool)


def named_in(history: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    """Whether a history names an item.

    Args:
      history: <int32>[batch, step], -1 for padding.
      item: <int32>[n] for the same items in each row, or <int32>[batch, n].

    Returns:
      <bool>[batch, n]; never for an item below 0.
    """
    if item.shape.rank == 1:
        item = item[None, :]
    known = tf.reduce_any(tf.equal(history[:, :, None], item[:, None, :]), axis=1)
    return known & (item >= 0)


def batch_history_mask(history: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    """`history_mask` for in-batch negatives: which of the batch's items a row may compare with.

    Args:
      history: <int32>[batch, step], -1 for padding.
      item: <int32>[batch].

    Returns:
      <bool>[batch, batch]; the diagonal is always True.
    """
    return ~named_in(history, item) | tf.eye(tf.shape(item)[0], dtype=tf.bool)


def full_softmax_loss(
    logits: tf.Tensor,
    item: tf.Tensor,
    *,
    allowed: tf.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Cross-entropy of each row's positive against the whole catalog.

    Args:
      logits: <float32>[batch, num_items].
      item: <int32>[batch].
      allowed: <bool>[batch, num_items], True at the positive; None for all.
      label_smoothing: share of the target that is spread evenly over the allowed items (Szegedy
        et al. 2016).

    Returns:
      <float32>[batch].
    """
    if allowed is not None:
        logits = tf.where(allowed, logits, tf.constant(LOWEST_SCORE, logits.dtype))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=item, logits=logits)
    if not label_smoothing:
        return losses
    everywhere = tf.reduce_logsumexp(logits, axis=1) - _mean(logits, allowed)
    return (1.0 - label_smoothing) * losses + label_smoothing * everywhere


def batch_softmax_loss(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    item: tf.Tensor,
    *,
    probability: tf.Tensor | None = None,
    history: tf.Tensor | None = None,
    remove_hits: bool = True,
) -> tf.Tensor:
    """Cross-entropy of each row's positive against the items of the batch's other rows.

    Each distinct item is scored once: n copies of one are that item with log n added to its logit.

    Args:
      queries: <float32>[batch, dim].
      candidates: <float32>[batch, dim], of the rows' items; equal for equal items.
      item: <int32>[batch], the positives.
      probability: <float32>[batch], how likely each positive is drawn, whose log is subtracted
        from its logit (logQ, Yi et al. 2019, eq. 5); None for no correction.
      history: <int32>[batch, step], -1 for padding: what is no negative of a row; None for none.
      remove_hits: whether other rows' copies of a row's positive are left out of its negatives.

    Returns:
      <float32>[batch].
    """
    distinct, column, copies = tf.unique_with_counts(item)
    width, row = tf.size(distinct), tf.range(tf.size(item))
    first = tf.math.unsorted_segment_min(row, column, width)
    log_copies = tf.math.log(tf.cast(copies, queries.dtype))
    bias = log_copies
    if probability is not None:
        bias -= tf.math.log(tf.gather(probability, first))
    logits = tf.matmul(queries, tf.gather(candidates, first), transpose_b=True) + bias
    if history is not None:
        hidden = _columns_of(history, distinct)
        hidden = tf.where(hidden == column[:, None], width, hidden)
        known = _marked(hidden, width + 1)[:, :width]
        logits = tf.where(known, LOWEST_SCORE, logits)
    others = tf.gather(log_copies, column)
    if remove_hits:
        logits = tf.tensor_scatter_nd_sub(logits, tf.stack([row, column], axis=1), others)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=column, logits=logits)
    return losses if remove_hits else losses + others


def _columns_of(values: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    """Where each of `values` stands in `names`, which are distinct; their number for nowhere."""
    order = tf.argsort(names)
    ordered = tf.gather(names, order)
    place = tf.searchsorted(ordered, tf.reshape(values, [-1]))
    place = tf.reshape(tf.minimum(place, tf.size(names) - 1), tf.shape(values))
    found = tf.equal(tf.gather(ordered, place), values)
    return tf.where(found, tf.gather(order, place), tf.size(names))


def sampled_softmax_loss(
    positive: tf.Tensor,
    negative: tf.Tensor,
    *,
    allowed: tf.Tensor | None = None,
    num_hard: int = 0,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Cross-entropy of each row's positive against negatives of its own.

    Args:
      positive: <float32>[batch], logits, corrected for sampling where that is asked for.
      negative: <float32>[batch, n], as are these.
      allowed: <bool>[batch, n], which negatives count; None for all.
      num_hard: only so many of the highest negatives count; 0 for all.
      label_smoothing: as in `full_softmax_loss`.

    Returns:
      <float32>[batch]; 0 for a row without a negative.
    """
    negative, allowed = _hardest(negative, allowed, num_hard)
    logits = tf.concat([positive[:, None], negative], axis=1)
    allowed = tf.pad(allowed, [[0, 0], [1, 0]], constant_values=True)
    first = tf.zeros_like(positive, tf.int32)
    return full_softmax_loss(logits, first, allowed=allowed, label_smoothing=label_smoothing)


def bpr_loss(
    positive: tf.Tensor, negative: tf.Tensor, *, allowed: tf.Tensor | None = None, num_hard: int = 0
) -> tf.Tensor:
    """Bayesian personalized ranking (Rendle et al. 2009, section 4.1): the mean over negatives of
    -log sigmoid(positive - negative).

    Negatives that are not drawn evenly ask for the correction of a softmax. Where a user's
    positives come as p and negatives as q, the loss is least where the two logits differ by
    log p / q of the one less that of the other: logits that are lowered by log q come to log p.

    Args:
      positive, negative, allowed, num_hard: as in `sampled_softmax_loss`.

    Returns:
      <float32>[batch]; 0 for a row without a negative.
    """
    negative, allowed = _hardest(negative, allowed, num_hard)
    losses = tf.nn.softplus(tf.where(allowed, negative - positive[:, None], 0.0))
    return tf.math.divide_no_nan(
        tf.reduce_sum(tf.where(allowed, losses, 0.0), axis=1),
        tf.reduce_sum(tf.cast(allowed, tf.float32), axis=1),
    )


def positive_power(num_drawn: int, num_items: int, calibration: float) -> float:
    """beta of gBCE: with alpha, the share of the other items that are drawn, and t, the
    calibration, alpha * (t * (1 - 1 / alpha) + 1 / alpha) (Petrov and Macdonald 2023, section 5.2):
    1 at t = 0, alpha at t = 1.

    Args:
      num_drawn: negatives of a positive.
      num_items: of the catalog, at least two.
      calibration: 0 to 1.
    """
    alpha = min(num_drawn / max(num_items - 1, 1), 1.0)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def gbce_loss(
    positive: tf.Tensor, negative: tf.Tensor, *, weight: tf.Tensor, power: float
) -> tf.Tensor:
    """Generalized binary cross-entropy (Petrov and Macdonald 2023, section 5.1): the mean over the
    positive and its negatives of -log sigmoid(positive) ** power and -log(1 - sigmoid(negative)).

    Where negatives are a few of many items, plain cross-entropy (power 1) takes a positive for more
    probable than it is among all of them, and tells the best items apart poorly.

    Args:
      positive: <float32>[batch], logits.
      negative: <float32>[batch, n].
      weight: <float32>[batch, n], how much each counts; 0 for not at all.
      power: see `positive_power`.

    Returns:
      <float32>[batch].
    """
    counts = weight > 0
    against = tf.where(counts, weight * tf.nn.softplus(tf.where(counts, negative, 0.0)), 0.0)
    total = power * tf.nn.softplus(-positive) + tf.reduce_sum(against, axis=1)
    return total / (1.0 + tf.reduce_sum(weight, axis=1))


def with_noise(vectors: tf.Tensor, deviation: float) -> tf.Tensor:
    """Vectors with Gaussian noise on each coordinate, of a standard deviation of `deviation` /
    sqrt(dim): relative to a coordinate of a unit vector."""
    scale = deviation * vectors.shape[-1] ** -0.5
    return vectors + draws.normal(tf.shape(vectors), stddev=scale, dtype=vectors.dtype)


def perturb(vectors: tf.Tensor, gradient: tf.Tensor, radius: float) -> tf.Tensor:
    """Moves each row as far as `radius` where a loss grows fastest (He et al. 2018).

    Args:
      vectors: <float32>[row, dim].
      gradient: <float32>[row, dim], of the loss; a row of zeros stays where it is.
      radius: float.

    Returns:
      <float32>[row, dim]; no gradient flows through the direction.
    """
    gradient = tf.stop_gradient(gradient)
    length = tf.norm(gradient, axis=-1, keepdims=True)
    return vectors + radius * tf.math.divide_no_nan(gradient, length)


def _hardest(
    negative: tf.Tensor, allowed: tf.Tensor | None, count: int
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The `count` highest of each row's allowed negatives, all for 0, with what is allowed."""
    if allowed is None:
        allowed = tf.ones_like(negative, tf.bool)
    if not count:
        return negative, allowed
    masked = tf.where(allowed, negative, LOWEST_SCORE)
    _, place = tf.math.top_k(masked, k=tf.minimum(count, tf.shape(negative)[1]))
    return tf.gather(negative, place, batch_dims=1), tf.gather(allowed, place, batch_dims=1)


def _mean(logits: tf.Tensor, allowed: tf.Tensor | None) -> tf.Tensor:
    if allowed is None:
        return tf.reduce_mean(logits, axis=1)
    total = tf.reduce_sum(tf.where(allowed, logits, 0.0), axis=1)
    return total / tf.reduce_sum(tf.cast(allowed, tf.float32), axis=1)
