"""Items with the same vector, such as those of equal content, which a shop may have many of."""

import numpy as np
from scipy import sparse

# Vectors are the same where each column differs by less than about this share of its largest value:
# one item's content goes through an encoder in another batch than the next one's.
NEAR = 2.0**-20


def first_alike(vectors: np.ndarray) -> np.ndarray | None:
    """The first item with each item's vector.

    Whoever scores this one in its place gives items that are the same a score that is equal to the
    last bit, wherever they stand in a product of matrices; so of these the lower number comes
    first, in a batch of any size.

    Args:
      vectors: <float32>[item, dim].

    Returns:
      <int32>[item], numbers of items; None where all vectors differ.
    """
    if len(vectors) < 2 or not np.isfinite(vectors).all():
        return None
    reach = NEAR * np.abs(vectors).max(axis=0)
    rng, edges = np.random.default_rng(0), []
    # Same ones stand side by side on any line; on two, others hardly come between them twice.
    for _ in range(2):
        line = vectors @ rng.normal(size=vectors.shape[1])
        order = np.argsort(line, kind="stable")
        before, after = order[:-1], order[1:]
        # Column by column, as those that differ do so in the first.
        for column, near in zip(vectors.T, reach, strict=True):
            same = np.abs(column[after] - column[before]) <= near
            before, after = before[same], after[same]
        edges.append(np.stack([before, after]))
    before, after = np.concatenate(edges, axis=1)
    if not len(before):
        return None
    count = len(vectors)
    graph = sparse.coo_array((np.ones(len(before), bool), (before, after)), (count, count))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    _, start, place = np.unique(group, return_index=True, return_inverse=True)
    first = start[place]
    # A chain of near ones may lead far away.
    first = np.where(
        (np.abs(vectors - vectors[first]) <= 4 * reach).all(axis=1), first, np.arange(count)
    )
    return first.astype(np.int32)
