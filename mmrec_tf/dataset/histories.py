"""What each user did, oldest first: in NumPy, in a tf.data pipeline and in a graph."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Padding is older than anything, so that it is never the newest.
_OLDEST = np.iinfo(np.int64).min


class History(NamedTuple):
    """Some items of each user, with how long ago they were.

    Attributes:
      item: <int32>[batch, step], oldest first, padded on the right with -1.
      gap: <float32>[batch, step], seconds from that item to the newest one in the row, so 0 for
        the newest; -1 for padding and where times are unknown.
      known: <bool>[batch, step], False for padding.
    """

    item: Any
    gap: Any
    known: Any


class HistoryTable(NamedTuple):
    """All items of all users as tensors or variables, with one entry of padding at the end.

    Attributes:
      item: <int32>[pair + 1], one user after the other; -1 at the end.
      offset: <int64>[user + 1]; user u has `item[offset[u]:offset[u + 1]]`.
      time: <int64>[pair + 1], seconds since 1970 UTC; None where times are unknown.
    """

    item: Any
    offset: Any
    time: Any

    @classmethod
    def constant(cls, histories: "Histories") -> "HistoryTable":
        """The table as constants."""
        return cls(*(None if part is None else tf.constant(part) for part in histories.padded()))

    def bounds(self, user: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where the items of users <int>[batch] begin and end, each <int64>[batch]."""
        return tf.gather(self.offset, user), tf.gather(self.offset, user + 1)

    def last(self, start: tf.Tensor, end: tf.Tensor, length: int | tf.Tensor) -> History:
        """The last `length` items of those from `start` up to `end`, each <int64>[batch]."""
        length = tf.cast(length, tf.int64)
        start = tf.maximum(start, end - length)
        row = start[:, None] + tf.range(length)[None, :]
        return self.read(row, row < end[:, None])

    def read(self, row: tf.Tensor, known: tf.Tensor) -> History:
        """The items at places <int64>[batch, step], read where `known` <bool>[batch, step]."""
        row = tf.where(known, row, tf.cast(tf.shape(self.item)[0] - 1, tf.int64))
        item = tf.gather(self.item, row)
        if self.time is None:
            return History(item, tf.fill(tf.shape(row), -1.0), known)
        time = tf.gather(self.time, row)
        newest = tf.reduce_max(time, axis=1, keepdims=True)
        return History(item, tf.where(known, tf.cast(newest - time, tf.float32), -1.0), known)


class Histories(NamedTuple):
    """Each user's items, oldest first, one user after the other.

    Attributes:
      item: <int32>[pair].
      offset: <int64>[user + 1]; user u has `item[offset[u]:offset[u + 1]]`.
      time: <int64>[pair], seconds since 1970 UTC; None where times are unknown.
    """

    item: np.ndarray
    offset: np.ndarray
    time: np.ndarray | None

    def padded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The parts of a `HistoryTable`."""
        time = None if self.time is None else np.append(self.time, _OLDEST)
        return np.append(self.item, np.int32(-1)), self.offset, time

    def read(self, users: np.ndarray, length: int) -> History:
        """The most recent items of some users.

        Args:
          users: <int>[n].
          length: at most so many items each.

        Returns:
          History of NumPy arrays.
        """
        # As in a graph, but on the CPU: a table of all users is nothing to copy to a device.
        with tf.device("CPU"):
            table = HistoryTable.constant(self)
            start, end = table.bounds(tf.constant(users, tf.int64))
            return History(*(part.numpy() for part in table.last(start, end, length)))

    def last(self, users: np.ndarray, length: int) -> np.ndarray:
        """The items of `read` alone, <int32>[n, length]."""
        return self.read(users, length).item

    def gaps(self, users: np.ndarray, length: int) -> np.ndarray:
        """The gaps of `read` alone, <float32>[n, length]."""
        return self.read(users, length).gap

    def of(self, user: int) -> np.ndarray:
        """All items of one user, <int32>[pair]."""
        return self.item[self.offset[user] : self.offset[user + 1]]

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All items of some users as (row in `users`, item), each <int>[pair]."""
        count = self.offset[users + 1] - self.offset[users]
        row = np.repeat(np.arange(len(users)), count)
        at = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.item[self.offset[users][row] + at]


class StoredHistories(tf.Module):
    """Each user's items as variables: what an exported graph and a training step look up.

    Args:
      histories: Histories.
      times: whether `read` gives the gaps.
    """

    def __init__(self, histories: Histories, *, times: bool):
        super().__init__()
        fixed = {"trainable": False}
        item, offset, time = histories.padded()
        self.item = tf.Variable(item, name="item", **fixed)
        # One more user, with nothing, stands for all unknown ones.
        offset = np.append(offset, offset[-1])
        self.offset = tf.Variable(offset, name="offset", **fixed)
        self.time = None
        if times and time is not None:
            self.time = tf.Variable(time, name="time", **fixed)

    def read(self, user: tf.Tensor, *, length: int | None = None) -> History:
        """Items of users.

        Args:
          user: <int32>[batch], -1 for an unknown user.
          length: only the last so many; None for all.

        Returns:
          History, whose gaps are -1 unless `times` was asked for.
        """
        table = HistoryTable(self.item, self.offset, self.time)
        start, end = table.bounds(tf.where(user >= 0, user, self.offset.shape[0] - 2))
        if length is None:
            length = tf.reduce_max(tf.concat([end - start, [0]], axis=0))
        return table.last(start, end, length)


def drop_repeats(numbers: tf.Tensor, *, blank: int) -> tf.Tensor:
    """Leaves each number of a row once, where it first stands.

    A server that batches requests of different lengths fills the short ones up with their first
    element.

    Args:
      numbers: <int32>[batch, any].
      blank: what takes the place of the others.
    """
    width = tf.shape(numbers)[1]
    order = tf.argsort(numbers, axis=1, stable=True)
    ordered = tf.gather(numbers, order, batch_dims=1)
    repeated = tf.pad(ordered[:, 1:] == ordered[:, :-1], [[0, 0], [1, 0]])[:, :width]
    repeated = tf.gather(repeated, tf.argsort(order, axis=1), batch_dims=1)
    return tf.where(repeated, blank, numbers)
