"""Candidates with scores -> the list that is shown, in TensorFlow's core ops."""

import tensorflow as tf

from mmrec_tf.schema import LOWEST_SCORE


def diversify(score: tf.Tensor, vectors: tf.Tensor, strength: tf.Tensor, k: int) -> tf.Tensor:
    """Picks one candidate after the other, by score and by unlikeness to those before (maximal
    marginal relevance, Carbonell and Goldstein 1998, with lambda = 1 - strength):

        (1 - strength) * relevance - strength * (highest dot product with those before)

    where relevance is the score, brought to 0 to 1 within the row.

    Args:
      score: <float32>[batch, candidate], from high to low; `LOWEST_SCORE` for what must not be
        picked.
      vectors: <float32>[batch, candidate, dim], unit vectors.
      strength: <float32>[batch], 0 to 1; 0 keeps the order of scores.
      k: int. How many are picked, at most `candidate`.

    Returns:
      <int32>[batch, k], places of candidates in the order in which they are picked; of equals the
      first one, and what must not be picked last.
    """
    real = score > LOWEST_SCORE
    high = tf.reduce_max(tf.where(real, score, LOWEST_SCORE), axis=1, keepdims=True)
    low = tf.reduce_min(tf.where(real, score, high), axis=1, keepdims=True)
    relevance = tf.math.divide_no_nan(score - low, high - low)
    relevance *= 1.0 - strength[:, None]
    batch = tf.shape(score)[0]

    def pick(
        step: tf.Tensor, likeness: tf.Tensor, left: tf.Tensor, picked: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        # Before anything is picked nothing is alike.
        alike = tf.where(step > 0, likeness, tf.zeros_like(likeness))
        value = relevance - strength[:, None] * alike
        # All that must not be picked, in its order, comes behind all that may.
        value = tf.where(real, value, LOWEST_SCORE)
        best = tf.argmax(tf.where(left, value, 2 * LOWEST_SCORE), axis=1, output_type=tf.int32)
        chosen = tf.gather(vectors, best, batch_dims=1)
        # Not a product of matrices: candidates that are the same are as like to the bit.
        near = tf.reduce_sum(chosen[:, None, :] * vectors, axis=2)
        likeness = tf.maximum(likeness, near)
        left &= tf.range(tf.shape(score)[1])[None, :] != best[:, None]
        return step + 1, likeness, left, picked.write(step, best)

    start = (
        tf.constant(0),
        tf.fill(tf.shape(score), -1.0),
        tf.ones_like(real),
        tf.TensorArray(tf.int32, size=k, element_shape=[None]),
    )
    picked = tf.while_loop(lambda step, *_: step < k, pick, start, maximum_iterations=k)[3]
    return (
        tf.ensure_shape(tf.transpose(picked.stack()), [None, k])
        if k
        else tf.zeros([batch, 0], tf.int32)
    )
