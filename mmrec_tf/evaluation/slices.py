"""Groups of items, and how well each of them is recommended."""

from collections.abc import Iterable

import numpy as np

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.evaluation.metrics import mean_metrics, retrieval_metrics

# Of warm items, by how often train met them: up to so many times, and more.
COUNTS = (5, 20)


def item_slices(dataset: Dataset) -> dict[str, np.ndarray]:
    """Groups of items by how often train met them, by what content they have, and by both.

    Returns:
      By name, <bool>[item]. "warm" has train interactions, "cold" has none; "tail", "middle" and
      "head" are the thirds of the warm items by number of train interactions, equal numbers on
      the same side; "met 1 to 5 times", "met 6 to 20 times" and "met more than 20 times" go by
      the number itself. "no content", "some content" and "all content" say how many of the
      dataset's modalities an item has, "with text" and "without text" and so on whether it has
      that one. "cold, with text" is in both.
    """
    count, present = dataset.catalog.train_count, dataset.catalog.present
    warm = count > 0
    low, high = np.quantile(count[warm], [1 / 3, 2 / 3]) if warm.any() else (0, 0)
    popularity = {
        "cold": ~warm,
        "tail": warm & (count <= low),
        "middle": (count > low) & (count <= high),
        "head": warm & (count > high),
    }
    bounds = [0, *COUNTS]
    met = {
        f"met {low + 1} to {high} times": (count > low) & (count <= high)
        for low, high in zip(bounds, COUNTS, strict=False)
    }
    met[f"met more than {COUNTS[-1]} times"] = count > COUNTS[-1]
    content = {}
    if present.shape[1]:
        some, every = present.any(axis=1), present.all(axis=1)
        content = {"no content": ~some, "some content": some & ~every, "all content": every}
    for name, has in zip(dataset.schema.modalities, present.T, strict=True):
        content |= {f"with {name}": has, f"without {name}": ~has}
    both = {f"{p}, {c}": popularity[p] & content[c] for p in popularity for c in content}
    return {"warm": warm, **popularity, **met, **content, **both}


def slice_metrics(
    top: np.ndarray, relevant: tuple[np.ndarray, np.ndarray], members: np.ndarray, ks: Iterable[int]
) -> dict[str, float]:
    """The metrics of a ranking as if only some items had been relevant.

    Args:
      top: <int32>[user, k] of all items, as `rank_items` returns it.
      relevant: as `relevant_items` returns it.
      members: <bool>[item], the slice.
      ks: cut-offs.

    Returns:
      "users", the number of users with a relevant item in the slice, and the mean over these of
      each metric; without metrics where there are none.
    """
    offset, items = relevant
    row = np.repeat(np.arange(len(top)), np.diff(offset))[members[items]]
    kept, count = np.unique(row, return_counts=True)
    inside = (np.concatenate([[0], np.cumsum(count)]), items[members[items]])
    if not len(kept):
        return {"users": 0}
    return {"users": len(kept), **mean_metrics(retrieval_metrics(top[kept], inside, ks=ks))}
