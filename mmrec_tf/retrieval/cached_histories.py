"""Histories whose items are read from a table that is refreshed now and then."""

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.errors import RunError

# So many items of each history are embedded in the step, with gradients, where all else is read
# from the table; none by encoders that train, where each costs more than all the rest.
NUM_READ = 3


def read_cached(
    table: tf.Variable | None, history: tf.Tensor, ids: tf.Tensor, embedding: tf.Tensor
) -> tf.Tensor:
    """Embeddings of histories' items: of those that the step embeds anyway as they are now,
    with gradients, of all others as they were at the last refresh.

    Args:
      table: <float32>[item, dim], the catalog at the last refresh; None before the first.
      history: <int32>[batch, step], below 0 for none.
      ids: <int32>[row], the items that the step embeds.
      embedding: <float32>[row, dim], theirs.

    Returns:
      <float32>[batch, step, dim].
    """
    if table is None:
        raise RunError(
            "user.history_embedding cached: the catalog was not embedded yet. Train with "
            "mmrec_tf.train or the model's `fit`, or call `refresh_histories` first."
        )
    item = tf.maximum(history, 0)
    order = tf.argsort(ids)
    # A row one too far stands for no item; which one it is does not tell.
    place = tf.searchsorted(tf.gather(ids, order), tf.reshape(item, [-1]))
    row = tf.gather(order, tf.minimum(place, tf.size(ids) - 1))
    now = tf.equal(tf.gather(ids, row), tf.reshape(item, [-1]))
    row, now = (tf.reshape(part, tf.shape(item)) for part in (row, now))
    then = tf.gather(table, item)
    return tf.where(now[..., None], tf.gather(embedding, row), tf.cast(then, embedding.dtype))


def draw_known(history: tf.Tensor, count: int) -> tf.Tensor:
    """Some items of each history, any of them repeatedly: <int32>[batch, step], padded on the right
    -> <int32>[batch, count]; of no meaning for a history without any."""
    if not count:
        return history[:, :0]
    known = tf.reduce_sum(tf.cast(history >= 0, tf.float32), axis=1, keepdims=True)
    place = tf.floor(draws.uniform([tf.shape(history)[0], count]) * known)
    return tf.gather(history, tf.cast(place, tf.int32), batch_dims=1)
