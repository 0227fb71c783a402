"""Where items without train interactions stand: pulled toward warm ones of alike content, and with
an offset on their score.

Content alone places such an item where the tower maps it, near to what it looks like; ids place the
items that users met where users want them. What lies between the two an item of alike content has
learned already (DropoutNet, Volkovs et al. 2017; Heater, Zhu et al. 2020; CLCRec, Wei et al. 2021),
so a cold item's vector c becomes

    unit((1 - pull) * c + pull * unit(sum over j of w_j * v_j))

with v_j the vectors of the warm items whose content vectors are nearest to c. The weights are those
of a triangular kernel whose width is the distance to the next item after them (Hechenbichler and
Schliep 2004): w_j = c . c_j - c . c_next, scaled to a sum of 1, so that none jumps where two items
are about as far away. `mmrec_tf.retrieval.cold_items_fit` finds pull and offset.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from mmrec_tf.towers import unit

# Similarities held at a time: 64 MiB.
MAX_CELLS = 2**24
# Of neighbors that are all as near as the next item, each counts alike.
_LEAST = 1e-6


def nearest(own: tf.Tensor, warm: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The warm items nearest to others by content.

    Args:
      own: <float32>[batch, dim], unit vectors.
      warm: <float32>[warm, dim], likewise; one at least.
      count: how many, cut to the number of warm items.

    Returns:
      Their rows <int32>[batch, count] and weights <float32>[batch, count], which sum to 1.
    """
    num_warm = int(warm.shape[0])
    count = min(count, num_warm)
    similarity = tf.matmul(own, warm, transpose_b=True)
    value, row = tf.math.top_k(similarity, k=min(count + 1, num_warm))
    # Without a next item all count, up to the least cosine there is.
    bound = value[:, count:] if count < num_warm else -1.0
    weight = tf.maximum(value[:, :count] - bound, 0.0) + _LEAST
    return row[:, :count], weight / tf.reduce_sum(weight, axis=1, keepdims=True)


def pulled(own: tf.Tensor, vectors: tf.Tensor, weight: tf.Tensor, pull: float) -> tf.Tensor:
    """Vectors pulled toward those of their neighbors.

    Args:
      own: <float32>[batch, dim].
      vectors: <float32>[batch, neighbor, dim].
      weight: <float32>[batch, neighbor].
      pull: 0 to 1.

    Returns:
      <float32>[batch, dim], unit vectors.
    """
    mean = unit(tf.einsum("bn,bnd->bd", weight, vectors))
    return unit((1.0 - pull) * own + pull * mean)


def pulled_parts(own: np.ndarray, parts: np.ndarray, weight: np.ndarray, pull: float) -> np.ndarray:
    """The same of what vectors are sums of: what reaches an item from its neighbors counts for the
    part that it is of.

    Args:
      own: <float>[batch, part, dim], whose sums over parts are unit vectors.
      parts: <float>[batch, neighbor, part, dim].
      weight, pull: as of `pulled`.

    Returns:
      <float64>[batch, part, dim], which sum to what `pulled` makes of the sums.
    """
    mean = np.einsum("bn,bnpd->bpd", weight.astype(np.float64), parts.astype(np.float64))
    mixed = (1.0 - pull) * own.astype(np.float64) + pull * unit_parts(mean)
    return unit_parts(mixed)


def unit_parts(parts: np.ndarray) -> np.ndarray:
    """Parts <float64>[batch, part, dim], scaled so that their sums are unit vectors, as `unit`
    makes them."""
    square = np.square(parts.sum(axis=1)).sum(axis=-1)
    return parts / np.sqrt(np.maximum(square, 1e-8))[:, None, None]


def blended(own: np.ndarray, placed: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Vectors between where items stand by their own interactions and where they would without.

    Args:
      own: <float>[batch, dim], unit vectors; or their parts [batch, part, dim].
      placed: likewise.
      confidence: <float32>[batch], 0 for `placed` to 1 for `own`.

    Returns:
      As `own`, whose sums over parts are unit vectors; `placed` itself where confidence is 0.
    """
    share = confidence.reshape([-1] + [1] * (own.ndim - 1))
    mixed = share * own.astype(np.float64) + (1.0 - share) * placed.astype(np.float64)
    whole = unit_parts(mixed if own.ndim == 3 else mixed[:, None])
    mixed = whole if own.ndim == 3 else whole[:, 0]
    return np.where(share > 0, mixed, placed).astype(placed.dtype)


def near_items(
    content: np.ndarray, items: np.ndarray, among: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`nearest` of items of a catalog, in blocks.

    Args:
      content: <float32>[item, dim], where content alone places each, unit vectors.
      items: <int>[some], numbers of items.
      among: <int>[warm], numbers of those that may be neighbors; one at least.
      count: how many.

    Yields:
      Some of `items`, <int>[batch]; numbers of their neighbors <int>[batch, count]; and weights
      <float32>[batch, count].
    """
    warm = tf.constant(content[among])
    size = max(1, MAX_CELLS // len(among))
    for start in range(0, len(items), size):
        some = items[start : start + size]
        row, weight = nearest(tf.constant(content[some]), warm, count)
        yield some, among[row.numpy()], weight.numpy()


def place(
    vectors: np.ndarray,
    content: np.ndarray,
    items: np.ndarray,
    among: np.ndarray,
    *,
    num_neighbors: int,
    pull: float,
) -> np.ndarray:
    """Where items of a catalog belong.

    Args:
      vectors: <float32>[item, dim], the embeddings of all.
      content, items, among: as of `near_items`.
      num_neighbors: how many.
      pull: 0 to 1.

    Returns:
      <float32>[some, dim], of `items`.
    """
    parts = [
        pulled(tf.constant(content[some]), tf.constant(vectors[near]), tf.constant(weight), pull)
        for some, near, weight in near_items(content, items, among, num_neighbors)
    ]
    return np.concatenate(parts) if parts else np.zeros([0, content.shape[1]], np.float32)
