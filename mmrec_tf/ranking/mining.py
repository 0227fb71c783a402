"""What retrieval ranks highest, found in a part of the catalog, for negatives."""

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.retrieval.index.interests import score_all
from mmrec_tf.schema import LOWEST_SCORE

# A part has about so many items or more: a smaller catalog is searched whole.
SMALLEST_PART = 8192


def part_stride(num_items: int, num_candidates: int, num_found: int) -> int:
    """One of how many items a step looks at, so that the part holds at least `SMALLEST_PART` of
    the catalog's items, and on average `num_found` of the best `num_candidates`; 1 for all."""
    return max(1, min(num_candidates // num_found, num_items // SMALLEST_PART))


def search_part(
    vectors: tf.Tensor,
    queries: tf.Tensor,
    exclude: tf.Tensor,
    *,
    stride: int,
    k: int,
) -> tf.Tensor:
    """The best k of a part of the catalog that is drawn anew each time: of `stride` items that lie
    side by side one, so that each is in the part with the probability 1 / stride.

    Looking at every item for each example costs more than all else of a step, and only a few of
    what is found are drawn. The best k of a part are about as good a draw from the best k * stride
    of the catalog: each of these is among them with a probability of about 1 / stride, which falls
    off around that rank rather than at it.

    Args:
      vectors: <float32>[item, dim].
      queries: <float32>[batch, dim] or <float32>[batch, interest, dim].
      exclude: <int32>[batch, any], items that must not be found while others are left; -1 for none.
      stride: int.
      k: int, at most the size of the part.

    Returns:
      <int32>[batch, k], numbers of items, best first.
    """
    num_items = vectors.shape[0]
    size = -(-num_items // stride)
    # Numbers of a few bits: floats hold them, and are gathered on any device.
    place = tf.floor(draws.uniform([size]) * stride)
    items = tf.range(size) * stride + tf.cast(place, tf.int32)
    # The last of the blocks may be cut short by the end of the catalog.
    inside = items < num_items
    items = tf.minimum(items, num_items - 1)
    scores = score_all(queries, tf.gather(vectors, items))
    scores = tf.where(inside, scores, LOWEST_SCORE)
    block = tf.maximum(exclude, 0) // stride
    of_block = tf.cast(tf.maximum(exclude, 0) - block * stride, tf.float32)
    hidden = (exclude >= 0) & tf.equal(tf.gather(place, block), of_block)
    row = tf.broadcast_to(tf.range(tf.shape(exclude)[0])[:, None], tf.shape(exclude))
    # The least of a score and the highest number there is, is the score.
    scores = tf.tensor_scatter_nd_min(
        scores,
        tf.stack([row, block], axis=-1),
        tf.where(hidden, LOWEST_SCORE, scores.dtype.max),
    )
    return tf.gather(items, tf.math.top_k(scores, k).indices)
