"""A user with several vectors: an item is scored by the one that it is nearest to.

With queries q_1 .. q_n of one user, the score of an item v is max over i of q_i . v (Cen et al.
2020, section 3.3; Li et al. 2019, section 4.7). Functions take a user's queries as one vector,
`<float32>[batch, dim]`, or as several, `<float32>[batch, interest, dim]`.
"""

import tensorflow as tf


def score_all(queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Scores of all items.

    Args:
      queries: <float32>[batch, dim] or <float32>[batch, interest, dim].
      vectors: <float32>[item, dim].

    Returns:
      <float32>[batch, item].
    """
    if queries.shape.rank == 2:
        return tf.matmul(queries, vectors, transpose_b=True)
    flat = tf.reshape(queries, [-1, queries.shape[2]])
    scores = tf.matmul(flat, vectors, transpose_b=True)
    return tf.reduce_max(tf.reshape(scores, [-1, queries.shape[1], vectors.shape[0]]), axis=1)


def score_rows(queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Scores of each row's own items.

    Args:
      queries: <float32>[batch, dim] or <float32>[batch, interest, dim].
      vectors: <float32>[batch, candidate, dim].

    Returns:
      <float32>[batch, candidate].
    """
    if queries.shape.rank == 2:
        return tf.einsum("bd,bcd->bc", queries, vectors)
    return tf.reduce_max(tf.einsum("bid,bcd->bci", queries, vectors), axis=2)


def nearest_interest(queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Which of a user's vectors each item is scored by; of equal ones the first.

    Args:
      queries: <float32>[batch, interest, dim].
      vectors: <float32>[batch, candidate, dim].

    Returns:
      <int32>[batch, candidate].
    """
    scores = tf.einsum("bid,bcd->bci", queries, vectors)
    return tf.argmax(scores, axis=2, output_type=tf.int32)


def one_an_item(queries: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """The vector that each item is scored by.

    Args:
      queries: <float32>[batch, interest, dim].
      vectors: <float32>[batch, candidate, dim].

    Returns:
      <float32>[batch, candidate, dim].
    """
    return tf.gather(queries, nearest_interest(queries, vectors), batch_dims=1)
