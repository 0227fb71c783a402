"""Interactions as they come, made distinct and told apart into train, valid and test."""

from typing import NamedTuple

import numpy as np

from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import SPLITS

SPLIT_RULES = ("given", "leave-last-out")
_TRAIN, _VALID, _TEST = range(3)


class Events(NamedTuple):
    """Interactions in the order of the source.

    Attributes:
      user: <int32>[interaction], users by number.
      item: <int32>[interaction], items by number.
      timestamp: <int64>[interaction], seconds since 1970 UTC; 0 where the source has none.
      rating: <float32>[interaction], or None where the source has none.
      weight: <float32>[interaction], or None where the source has none.
      split: <int8>[interaction], position in `mmrec_tf.schema.SPLITS`.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray | None
    weight: np.ndarray | None
    split: np.ndarray

    def take(self, index: np.ndarray) -> "Events":
        """The interactions at `index <int64>[interaction]`."""
        return Events(
            user=self.user[index],
            item=self.item[index],
            timestamp=self.timestamp[index],
            rating=None if self.rating is None else self.rating[index],
            weight=None if self.weight is None else self.weight[index],
            split=self.split[index],
        )


def drop_duplicates(events: Events) -> Events:
    """Keeps the earliest interaction of each user with each item.

    Of two at the same time the one of the earlier split stays, then the one of the earlier row.

    Returns:
      The rest, in the order of the source.
    """
    # lexsort is stable: rows that tie in all keys keep their order.
    order = np.lexsort((events.split, events.timestamp, events.item, events.user))
    user, item = events.user[order], events.item[order]
    first = np.ones(len(order), bool)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    return events.take(np.sort(order[first]))


def leave_last_out(events: Events) -> Events:
    """Splits by time: of each user with at least three interactions the last is test, the one
    before it valid, and the rest train; all of a shorter history is train."""
    order = np.lexsort((events.timestamp, events.user))
    _, start, count = np.unique(events.user[order], return_index=True, return_counts=True)
    last = (start + count - 1)[count >= 3]
    split = np.full(len(order), _TRAIN, np.int8)
    split[order[last]] = _TEST
    split[order[last - 1]] = _VALID
    return events._replace(split=split)


def follows_time(events: Events) -> bool:
    """Whether every user's valid and test interactions lie at or after all those in train.

    False where there are no times, or no user has both.
    """
    if not len(events.user) or not events.timestamp.any():
        return False
    num_users = int(events.user.max()) + 1
    train = events.split == _TRAIN
    most = np.iinfo(np.int64)
    latest = np.full(num_users, most.min)
    np.maximum.at(latest, events.user[train], events.timestamp[train])
    earliest = np.full(num_users, most.max)
    np.minimum.at(earliest, events.user[~train], events.timestamp[~train])
    both = (latest > most.min) & (earliest < most.max)
    return bool(both.any() and (earliest >= latest)[both].all())


def write(writer: DatasetWriter, events: Events) -> None:
    """Writes distinct interactions to a dataset: by user, oldest first, ties as in the source."""
    order = np.lexsort((events.timestamp, events.user, events.split))
    events = events.take(order)
    edges = np.flatnonzero((np.diff(events.user) != 0) | (np.diff(events.split) != 0)) + 1
    starts = np.concatenate([[0], edges]) if len(events.user) else edges
    ends = np.concatenate([edges, [len(events.user)]])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        part = slice(start, end)
        writer.write_interactions(
            SPLITS[events.split[start]],
            int(events.user[start]),
            item=events.item[part],
            timestamp=events.timestamp[part],
            rating=None if events.rating is None else events.rating[part],
            weight=None if events.weight is None else events.weight[part],
        )
