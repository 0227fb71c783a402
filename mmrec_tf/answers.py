"""What a recommender is asked, and what it answers: lists of ids to tensors, tensors to ids."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError

_LISTS = ("history", "exclude", "allow", "deny")
RECOMMEND_INPUTS = [
    tf.TensorSpec([None], tf.string, name="user_id"),
    *(tf.TensorSpec([None, None], tf.string, name=name) for name in _LISTS),
    tf.TensorSpec([None], tf.int64, name="time"),
]


class Recommendations(NamedTuple):
    """What to show.

    Attributes:
      item_id: object[batch, k] of str, in the order to show them; "" behind the last one where
        fewer are left.
      score: <float32>[batch, k], what ordered them, higher is better; comparable within a row. It
        falls along the row unless the config diversifies.
      probability: <float32>[batch, k], of a click, calibrated; 0 for none.
      modality: object[batch, k] of str, the modality that drew user and item together most; ""
        where the item has none, or nothing is known of the user.
      history_item: object[batch, k] of str, the item of the history that weighed most; "" without
        a history.
    """

    item_id: np.ndarray
    score: np.ndarray
    probability: np.ndarray
    modality: np.ndarray
    history_item: np.ndarray


class SimilarItems(NamedTuple):
    """Items near to others.

    Attributes:
      item_id: object[batch, k] of str, the most alike first; "" for none.
      score: <float32>[batch, k], the cosine of their embeddings.
    """

    item_id: np.ndarray
    score: np.ndarray


def require_k(k: int) -> None:
    """Refuses a k below 1."""
    if k < 1:
        raise ConfigError(f"k: wanted at least 1; got {k}.")


def padded(name: str, rows: Sequence[Sequence[str]] | None, num_users: int) -> tf.Tensor:
    """<string>[user, any]."""
    if rows is not None and len(rows) != num_users:
        raise ConfigError(f"{name}: wanted one for each of {num_users} users; got {len(rows)}.")
    lists = [[] for _ in range(num_users)] if rows is None else [list(row) for row in rows]
    widest = max((len(row) for row in lists), default=0)
    filled = [row + [""] * (widest - len(row)) for row in lists]
    return tf.constant(filled, tf.string, shape=[num_users, widest])


def decoded(value: tf.Tensor) -> np.ndarray:
    """A tensor as NumPy has it, of text as str."""
    if value.dtype != tf.string:
        return value.numpy()
    cells = [[cell.decode() for cell in row] for row in value.numpy()]
    return np.array(cells, object).reshape(value.shape)
