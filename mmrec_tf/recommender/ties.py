"""Scores of candidates that are the same item twice, in all but their id."""

import tensorflow as tf

# What rounding may do to a score, beside its size.
NEAR = 1e-5


def even_out(score: tf.Tensor, alike: tf.Tensor) -> tf.Tensor:
    """Gives neighbors that are alike one score, where theirs differ by rounding alone.

    A network's last bits depend on where in a batch a candidate stands, so that the order of equal
    ones would change with its company. With one score the first comes first, which retrieval has
    put in the order of the catalog. Those that ranking tells apart, by a side feature, keep theirs.

    Args:
      score: <float32>[batch, candidate].
      alike: <int32>[batch, candidate], equal for candidates with the same vector.

    Returns:
      <float32>[batch, candidate].
    """
    begins = tf.concat([tf.ones_like(alike[:, :1], tf.bool), alike[:, 1:] != alike[:, :-1]], axis=1)
    begins = tf.reshape(begins, [-1])
    group = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    first = tf.gather(tf.where(begins)[:, 0], group)
    other = tf.reshape(tf.gather(tf.reshape(score, [-1]), first), tf.shape(score))
    near = tf.abs(score - other) <= NEAR * (1.0 + tf.abs(other))
    return tf.where(near, other, score)
