"""Vectors of items -> the top k for a query, in TensorFlow's core ops."""

import tensorflow as tf

# Finite, as an answer must be one that JSON can carry.
LOWEST = -1e9


class ExactIndex(tf.Module):
    """Compares a query with every item.

    Args:
      vectors: <float32>[item, dim].
    """

    def __init__(self, vectors, name=None):
        super().__init__(name=name)
        self.vectors = tf.Variable(vectors, trainable=False, name="vectors", dtype=tf.float32)

    def search(self, queries, k: int, *, exclude=None, allowed=None):
        """The items with the highest dot product.

        Args:
          queries: <float32>[batch, dim].
          k: int. Cut to the number of items.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          allowed: <bool>[batch or 1, item], items that may be found; None for all.

        Returns:
          Scores <float32>[batch, k] from high to low and items <int32>[batch, k]; of equal scores
          the lower item number comes first. What must not be found and comes up all the same,
          because nothing else is left, has the score `LOWEST`.
        """
        num_items = self.vectors.shape[0]
        scores = tf.matmul(queries, self.vectors, transpose_b=True)
        if exclude is not None:
            shape = tf.shape(exclude)
            row = tf.broadcast_to(tf.range(shape[0])[:, None], shape)
            # Padding goes to one more column, which is cut off again.
            column = tf.where(exclude >= 0, exclude, num_items)
            excluded = tf.scatter_nd(
                tf.stack([row, column], axis=-1), tf.ones(shape), [shape[0], num_items + 1]
            )[:, :num_items]
            scores = tf.where(excluded > 0, LOWEST, scores)
        if allowed is not None:
            scores = tf.where(allowed, scores, LOWEST)
        return tf.math.top_k(scores, k=min(k, num_items))
