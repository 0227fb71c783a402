"""What a recommender is asked: lists of ids to tensors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.outputs import to_str

_LISTS = ("history", "exclude", "allow", "deny")
RECOMMEND_INPUTS = [
    tf.TensorSpec([None], tf.string, name="user_id"),
    *(tf.TensorSpec([None, None], tf.string, name=name) for name in _LISTS),
    tf.TensorSpec([None], tf.int64, name="time"),
]


class Limits(NamedTuple):
    """How large one request may be; fixed when a model is exported.

    Attributes:
      rows: users or items.
      width: entries of one of its lists.
    """

    rows: int = 1024
    width: int = 1024


def within(limits: Limits, inputs: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """The inputs, if they are not too large and have as many rows each.

    A server would otherwise run out of memory on one request, or spread a single row over all
    others.

    Args:
      limits: Limits.
      inputs: by name, [batch, ...].

    Raises:
      tf.errors.InvalidArgumentError: naming the input, what was wanted and what came.
    """
    first, rows = next((name, tf.shape(value)[0]) for name, value in inputs.items())
    checks = [
        tf.debugging.Assert(
            rows <= limits.rows,
            [f"{first}: wanted at most {limits.rows} rows in a request; got", rows],
        )
    ]
    for name, value in inputs.items():
        size = tf.shape(value)[0]
        said = [f"{name}: wanted as many rows as {first} has,", rows, "; got", size]
        checks.append(tf.debugging.Assert(tf.equal(size, rows), said))
        if value.dtype == tf.string and value.shape.rank == 2:
            width = tf.shape(value)[1]
            said = [f"{name}: wanted lists of at most {limits.width} entries; got", width]
            checks.append(tf.debugging.Assert(width <= limits.width, said))
    with tf.control_dependencies(checks):
        return [tf.identity(value) for value in inputs.values()]


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
    return to_str(value.numpy())
