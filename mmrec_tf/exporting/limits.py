"""How large a request to a servable may be, checked inside its graph."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf


class Limits(NamedTuple):
    """How large one request may be; fixed when a model is exported.

    Attributes:
      rows: users or items.
      width: entries of one of its lists.
      values: of one kind of content that one item brings, such as pictures.
    """

    rows: int = 1024
    width: int = 1024
    values: int = 16


def check_limits(
    limits: Limits, inputs: Mapping[str, tf.Tensor], *, content: Sequence[str] = ()
) -> list[tf.Tensor]:
    """The inputs, if they are not too large and have as many rows each.

    A server would otherwise run out of memory on one request, or spread a single row over all
    others.

    Args:
      limits: Limits.
      inputs: by name, [batch, ...].
      content: the names of those that are content.

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
        if name in content:
            width = tf.shape(value)[1]
            said = [f"{name}: wanted at most {limits.values} values of an item; got", width]
            checks.append(tf.debugging.Assert(width <= limits.values + 1, said))
        elif (value.dtype == tf.string and value.shape.rank == 2) or name == "embedding":
            width = tf.shape(value)[1]
            said = [f"{name}: wanted lists of at most {limits.width} entries; got", width]
            checks.append(tf.debugging.Assert(width <= limits.width, said))
    if "embedding" in inputs:
        # Of new items each has as many, and lists no longer than others.
        new = tf.shape(inputs["embedding"])[1]
        for name, value in inputs.items():
            if value.shape.rank is not None and value.shape.rank > 2:
                size = tf.shape(value)[1]
                said = [f"{name}: wanted as many items as embedding has,", new, "; got", size]
                checks.append(tf.debugging.Assert(tf.equal(size, new), said))
            if value.dtype == tf.string and value.shape.rank == 3:
                width = tf.shape(value)[2]
                said = [f"{name}: wanted lists of at most {limits.width} entries; got", width]
                checks.append(tf.debugging.Assert(width <= limits.width, said))
    with tf.control_dependencies(checks):
        return [tf.identity(value) for value in inputs.values()]
