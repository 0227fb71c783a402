"""What a recommender answers, on both sides of a server."""

from typing import NamedTuple

import numpy as np


class Recommendations(NamedTuple):
    """What to show.

    Attributes:
      item_id: object[batch, k] of str, in the order to show them; "" behind the last one where
        fewer are left.
      score: <float32>[batch, k], what ordered them, higher is better; comparable within a row. It
        falls along the row unless the config diversifies; -1e9 for none.
      probability: <float32>[batch, k], of a click, calibrated; 0 for none.
      modality: object[batch, k] of str, the modality that adds the most to the match of user and
        item, if it adds more than the item's id; "" where none does, and where nothing is known of
        the user.
      history_item: object[batch, k] of str, the item of the history that weighed most; "" without
        a history.
      heaviest: <int32>[batch, k], of several values that the item has of that modality, such as the
        pictures of a gallery, the place of the one that counts most among the distinct ones, from
        0; -1 where no modality is named, or its values count alike. None where all do
        (`item.values_pooling`).
    """

    item_id: np.ndarray
    score: np.ndarray
    probability: np.ndarray
    modality: np.ndarray
    history_item: np.ndarray
    heaviest: np.ndarray | None = None


class SimilarItems(NamedTuple):
    """Items near to others.

    Attributes:
      item_id: object[batch, k] of str, the most alike first; "" for none.
      score: <float32>[batch, k], the cosine of their embeddings; -1e9 for none.
    """

    item_id: np.ndarray
    score: np.ndarray


def to_str(array: np.ndarray) -> np.ndarray:
    """Bytes to str, in an array of any shape; bytes that are not UTF-8 come through a file name's
    way (PEP 383)."""
    decoded = np.empty(array.size, dtype=object)
    # Lists are passed through several times as fast as arrays.
    decoded[:] = [value.decode("utf-8", "surrogateescape") for value in array.ravel().tolist()]
    return decoded.reshape(array.shape)
