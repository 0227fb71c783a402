"""Every item compared with every query."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.retrieval.index.alike import first_alike
from mmrec_tf.retrieval.index.best import best_k
from mmrec_tf.retrieval.index.interests import score_all
from mmrec_tf.schema import LOWEST_SCORE

# Scores held at a time: 128 MiB for each of a few arrays.
MAX_SCORES = 1 << 25


class Added(NamedTuple):
    """What a query's score has beside the dot product.

    Attributes:
      score: from rows of `past` to <float32>[batch, item].
      past: [batch, ...], a row a query.
    """

    score: Callable[[tf.Tensor], tf.Tensor]
    past: tf.Tensor


class ExactIndex(tf.Module):
    """Compares a query with every item.

    Args:
      vectors: <float32>[item, dim].
    """

    def __init__(self, vectors: tf.Tensor | np.ndarray, name: str | None = None) -> None:
        super().__init__(name=name)
        self.vectors = tf.Variable(vectors, trainable=False, name="vectors", dtype=tf.float32)
        first = first_alike(np.asarray(vectors, np.float32))
        self.first = None if first is None else tf.Variable(first, trainable=False, name="first")

    def gather(self, item: tf.Tensor) -> tf.Tensor:
        """The vectors <float32>[..., dim] of items <int32>[...]."""
        return gather_rows(self.vectors, item)

    @property
    def exact(self) -> bool:
        """Whether `search` looks at every item, as `exact_search` does."""
        return True

    def search(
        self,
        queries: tf.Tensor,
        k: int,
        *,
        exclude: tf.Tensor | None = None,
        allowed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `exact_search`, by the dot product alone."""
        return self.exact_search(queries, k, exclude=exclude, allowed=allowed)

    def exact_search(
        self,
        queries: tf.Tensor,
        k: int,
        *,
        exclude: tf.Tensor | None = None,
        allowed: tf.Tensor | None = None,
        added: Added | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The items with the highest score.

        Args:
          queries: <float32>[batch, dim], or <float32>[batch, interest, dim], of which the highest
            product counts.
          k: int. Cut to the number of items.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          allowed: <bool>[batch or 1, item], items that may be found; None for all.
          added: what a score has beside the dot product; None for nothing.

        Returns:
          Scores <float32>[batch, k] from high to low and items <int32>[batch, k]; of equal scores,
          which items with the same vector have, the lower item number comes first. What must not be
          found and comes up all the same, because nothing else is left, has the score
          `LOWEST_SCORE`.
        """
        each = 1 if queries.shape.rank == 2 else queries.shape[1]
        rows = max(1, MAX_SCORES // (each * self.vectors.shape[0]))
        inputs = [queries, exclude, allowed, None if added is None else added.past]
        more = None if added is None else added.score
        if queries.shape[0] is not None and queries.shape[0] <= rows:
            return self._compare(*inputs, k=k, more=more)
        return tf.cond(
            tf.shape(queries)[0] <= rows,
            lambda: self._compare(*inputs, k=k, more=more),
            lambda: self._compare_blocks(inputs, k, rows, more),
        )

    def _compare_blocks(
        self, inputs: Sequence[tf.Tensor | None], k: int, rows: int, more: Callable | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`_compare` of so many rows at a time: a large batch would fill memory."""
        batch, k = tf.shape(inputs[0])[0], min(k, self.vectors.shape[0])

        def block(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            row = start + tf.range(rows)
            # The last block is filled up with the last row.
            part = [
                None
                if values is None
                else tf.gather(values, tf.minimum(row, tf.shape(values)[0] - 1))
                for values in inputs
            ]
            return tuple(self._compare(*part, k=k, more=more))

        specs = (tf.TensorSpec([rows, k], tf.float32), tf.TensorSpec([rows, k], tf.int32))
        found = tf.map_fn(
            block, tf.range(0, batch, rows), parallel_iterations=1, fn_output_signature=specs
        )
        scores, items = [tf.reshape(part, [-1, k])[:batch] for part in found]
        return scores, items

    def _compare(
        self,
        queries: tf.Tensor,
        exclude: tf.Tensor | None,
        allowed: tf.Tensor | None,
        past: tf.Tensor | None,
        *,
        k: int,
        more: Callable[[tf.Tensor], tf.Tensor] | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        num_items = self.vectors.shape[0]
        scores = score_all(queries, self.vectors)
        if self.first is not None:
            scores = tf.gather(scores, tf.convert_to_tensor(self.first), axis=1)
        if more is not None:
            scores += more(past)
        if exclude is not None:
            shape = tf.shape(exclude)
            row = tf.broadcast_to(tf.range(shape[0])[:, None], shape)
            # Padding goes to one more column, which is cut off again.
            column = tf.where(exclude >= 0, exclude, num_items)
            excluded = tf.scatter_nd(
                tf.stack([row, column], axis=-1), tf.ones(shape), [shape[0], num_items + 1]
            )[:, :num_items]
            scores = tf.where(excluded > 0, LOWEST_SCORE, scores)
        if allowed is not None:
            scores = tf.where(allowed, scores, LOWEST_SCORE)
        return best_k(scores, min(k, num_items))


def gather_rows(table: tf.Tensor | tf.Variable, row: tf.Tensor) -> tf.Tensor:
    """`tf.gather` for a table that is also multiplied as a whole.

    `tf.gather` of a variable reads it sparsely, which puts the variable into copy-on-read mode for
    good: every product of matrices then copies the whole table first.

    Args:
      table: [row, ...].
      row: <int32>[...].
    """
    return tf.gather(tf.convert_to_tensor(table), row)


def best_of(
    vectors: tf.Tensor,
    query: tf.Tensor,
    items: tf.Tensor,
    exclude: tf.Tensor,
    *,
    k: int,
    first: tf.Tensor | None = None,
    added: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best k of some items for one query, by exact scores.

    Args:
      vectors: <float32>[item, dim].
      query: <float32>[dim], or <float32>[interest, dim], of which the highest product counts.
      items: <int32>[any], each once; -1 for none.
      exclude: <int32>[any], items that must not be found; -1 for none.
      k: int.
      first: <int32>[item], see `first_alike`; None where all vectors differ.
      added: <float32>[item], what a score has beside the dot product; None for nothing.

    Returns:
      Scores <float32>[k] and items <int32>[k], as `ExactIndex.search` orders them; behind the last
      one any item with the score `LOWEST_SCORE`.
    """
    # In the order of their numbers, as of equal scores `top_k` takes the first.
    items = tf.sort(items)
    # Not a product of matrices, so that equal vectors have scores equal to the last bit.
    rows = tf.maximum(items, 0)
    rows = rows if first is None else gather_rows(first, rows)
    found = gather_rows(vectors, rows)
    if query.shape.rank == 1:
        scores = tf.reduce_sum(found * query, axis=1)
    else:
        scores = tf.reduce_max(tf.reduce_sum(found[:, None] * query[None], axis=2), axis=1)
    if added is not None:
        scores += tf.gather(added, tf.maximum(items, 0))
    hidden = (items < 0) | tf.reduce_any(items[:, None] == exclude[None, :], axis=1)
    missing = [[0, tf.maximum(k - tf.size(items), 0)]]
    scores = tf.pad(tf.where(hidden, LOWEST_SCORE, scores), missing, constant_values=LOWEST_SCORE)
    scores, place = tf.math.top_k(scores, k)
    return scores, tf.gather(tf.pad(tf.maximum(items, 0), missing), place)


def require_one_row(allowed: tf.Tensor | None) -> None:
    """Refuses an `allowed` that differs between queries, <bool>[1, item] or None.

    Raises:
      ValueError: for any other.
    """
    if allowed is not None and allowed.shape[0] != 1:
        raise ValueError(
            f"allowed: wanted one row for all queries; got the shape {allowed.shape}. Ask "
            "exact_search for what differs between queries."
        )
