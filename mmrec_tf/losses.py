"""Retrieval losses and the masks that go with them."""

import tensorflow as tf


def history_mask(history, item, *, num_items: int):
    """Which items may stand as negatives: all but the user's other known ones.

    Args:
      history: <int32>[batch, step], -1 for padding.
      item: <int32>[batch], the positives; they stay in even where the history names them.
      num_items: int.

    Returns:
      <bool>[batch, num_items].
    """
    batch, steps = tf.shape(history)[0], tf.shape(history)[1]
    # Padding is scattered to one more column, which is cut off again.
    column = tf.where(history >= 0, history, num_items)
    row = tf.broadcast_to(tf.range(batch)[:, None], [batch, steps])
    allowed = tf.tensor_scatter_nd_update(
        tf.ones([batch, num_items + 1], tf.bool),
        tf.stack([row, column], axis=-1),
        tf.zeros([batch, steps], tf.bool),
    )[:, :num_items]
    return allowed | tf.equal(tf.range(num_items)[None, :], item[:, None])


def batch_history_mask(history, item):
    """`history_mask` for in-batch negatives: which of the batch's items a row may compare with.

    Args:
      history: <int32>[batch, step], -1 for padding.
      item: <int32>[batch].

    Returns:
      <bool>[batch, batch]; the diagonal is always True.
    """
    known = tf.reduce_any(tf.equal(history[:, :, None], item[None, None, :]), axis=1)
    return ~known | tf.eye(tf.shape(item)[0], dtype=tf.bool)


def full_softmax_loss(logits, item, *, allowed=None):
    """Cross-entropy of each row's positive against the whole catalog.

    Args:
      logits: <float32>[batch, num_items].
      item: <int32>[batch].
      allowed: <bool>[batch, num_items], True at the positive; None for all.

    Returns:
      <float32>[batch].
    """
    if allowed is not None:
        logits = tf.where(allowed, logits, tf.constant(-1e9, logits.dtype))
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=item, logits=logits)
