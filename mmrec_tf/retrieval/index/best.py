"""The best of many scores."""

import numpy as np
import tensorflow as tf

# Fewer scores are sorted out sooner by one `top_k`.
FEWEST = 1 << 15


def best_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.math.top_k`, of a row of many scores in less time.

    A row is taken in blocks. Its best k scores lie in the k blocks with the highest maxima: outside
    of them is a score only after k others that are higher, or equal and further left.

    Args:
      scores: <float32>[batch, n], n known, none of them NaN.
      k: int, at most n.

    Returns:
      Values <float32>[batch, k], from high to low, and places <int32>[batch, k]; of equal values
      the lower place comes first.
    """
    num = scores.shape[1]
    # So many columns a block leave the fewest maxima and scores to look at.
    width = round((num / max(k, 1)) ** 0.5)
    if num < FEWEST or num < 16 * k:
        return tuple(tf.math.top_k(scores, k))
    count = -(-num // width)
    missing = [[0, 0], [0, count * width - num]]
    blocks = tf.reshape(
        tf.pad(scores, missing, constant_values=-np.inf), [tf.shape(scores)[0], count, width]
    )
    _, chosen = tf.math.top_k(tf.reduce_max(blocks, axis=2), k)
    # From left to right, as of equal scores `top_k` takes the first.
    chosen = tf.sort(chosen, axis=1)
    found = tf.reshape(tf.gather(blocks, chosen, batch_dims=1), [-1, k * width])
    values, place = tf.math.top_k(found, k)
    return values, tf.gather(chosen, place // width, batch_dims=1) * width + place % width
