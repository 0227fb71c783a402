"""What is recommended, beside whether it is right."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# Rows of vectors compared at a time: some tens of megabytes.
COMPARED = 4096


class ItemVectors(NamedTuple):
    """What items are compared by.

    Attributes:
      values: by modality, <float32>[item, dim].
      present: <bool>[item, modality], columns in the order of `values`.
    """

    values: Mapping[str, np.ndarray]
    present: np.ndarray

    def similarity(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How alike items are: the cosine of their vectors, the mean over what both have.

        Args:
          items: <int>[..., n] numbers of items.

        Returns:
          <float32>[..., n, n], 0 where two items share no modality; and whether they share one,
          <bool>[..., n, n].
        """
        cosine = np.zeros([*items.shape, items.shape[-1]], np.float32)
        shared = np.zeros(cosine.shape, np.float32)
        for values, present in zip(self.values.values(), self.present.T, strict=True):
            rows = np.asarray(values[items], np.float32) * present[items][..., None]
            # The zeros of an item without the modality, or of an all-black picture, stay zeros.
            rows /= np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
            cosine += rows @ rows.swapaxes(-1, -2)
            has = present[items].astype(np.float32)
            shared += has[..., :, None] * has[..., None, :]
        cosine /= np.maximum(shared, 1)
        return cosine, shared > 0


def coverage(top: np.ndarray, *, num_items: int) -> float:
    """The share of the catalog that is recommended to anyone.

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      num_items: of the catalog.
    """
    return float((_exposure(top, num_items) > 0).mean())


def gini(top: np.ndarray, *, num_items: int) -> float:
    """How unequally items are recommended (Gini 1912): 0 all equally often, toward 1 a single one.

    With x the number of recommendations of each of n items in ascending order, it is the sum of
    (2 i - n - 1) x_i over i from 1, divided by n times the sum of x; 0 where x is 0 throughout.

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      num_items: of the catalog.
    """
    exposure = np.sort(_exposure(top, num_items))
    rank = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((rank * exposure).sum() / max(num_items * exposure.sum(), 1))


def novelty(top: np.ndarray, *, probability: np.ndarray) -> float:
    """The mean self-information of what is recommended, in bits (Castells et al. 2015).

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      probability: <float>[item], share of the train interactions, above 0.

    Returns:
      The mean of -log2(probability) over all places; 0 where nothing is recommended.
    """
    items = top[top >= 0]
    return float(-np.log2(probability[items].astype(np.float64)).mean()) if len(items) else 0.0


def diversity(top: np.ndarray, *, vectors: ItemVectors) -> float | None:
    """How different a user's items are: the mean of 1 - cosine over pairs (Ziegler et al. 2005).

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      vectors: ItemVectors; pairs that share no modality do not count.

    Returns:
      The mean over pairs, then over users with a pair; None where nobody has one.
    """
    block = max(COMPARED // max(top.shape[1], 1), 1)
    means = []
    for start in range(0, len(top), block):
        some = top[start : start + block]
        cosine, comparable = vectors.similarity(np.maximum(some, 0))
        known = some >= 0
        comparable &= known[:, :, None] & known[:, None, :] & ~np.eye(some.shape[1], dtype=bool)
        count = comparable.sum(axis=(1, 2))
        total = ((1 - cosine) * comparable).sum(axis=(1, 2), dtype=np.float64)
        means.append(total[count > 0] / count[count > 0])
    found = np.concatenate(means) if means else np.zeros(0)
    return float(found.mean()) if len(found) else None


def _exposure(top: np.ndarray, num_items: int) -> np.ndarray:
    """<int64>[item]: how often each item is recommended."""
    return np.bincount(top[top >= 0], minlength=num_items)
