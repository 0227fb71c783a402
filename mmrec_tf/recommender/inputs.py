"""What a recommender is asked: lists of ids to tensors."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.outputs import to_str

_LISTS = ("history", "exclude", "allow", "deny")
RECOMMEND_INPUTS = [
    tf.TensorSpec([None], tf.string, name="user_id"),
    *(tf.TensorSpec([None, None], tf.string, name=name) for name in _LISTS),
    tf.TensorSpec([None], tf.int64, name="time"),
    tf.TensorSpec([None], tf.string, name="profile"),
    tf.TensorSpec([None, None], tf.string, name="features"),
]


def require_k(k: int) -> None:
    """Refuses a k below 1."""
    if k < 1:
        raise ConfigError(f"k: wanted at least 1; got {k}.")


def split_ids(listed: str) -> list[str]:
    """What a user typed, "i3, i4" -> ["i3", "i4"]: blanks around an id are none of it."""
    return [part.strip() for part in listed.split(",") if part.strip()]


def pad_lists(name: str, rows: Sequence[Sequence[str]] | None, num_users: int) -> tf.Tensor:
    """<string>[user, any]."""
    if rows is not None and len(rows) != num_users:
        raise ConfigError(f"{name}: wanted one for each of {num_users} users; got {len(rows)}.")
    lists = [[] for _ in range(num_users)] if rows is None else [list(row) for row in rows]
    widest = max((len(row) for row in lists), default=0)
    filled = [row + [""] * (widest - len(row)) for row in lists]
    return tf.constant(filled, tf.string, shape=[num_users, widest])


def to_array(value: tf.Tensor) -> np.ndarray:
    """A tensor as NumPy has it, of text as str."""
    if value.dtype != tf.string:
        return value.numpy()
    return to_str(value.numpy())
