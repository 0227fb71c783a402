"""Interactions in the order of the source, made distinct and split into train, valid, test."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import SPLITS

_TRAIN, _VALID, _TEST = range(3)
_NEVER = np.iinfo(np.int64).max


class Events(NamedTuple):
    """Interactions in the order of the source.

    Attributes:
      user: <int32>[interaction], users by number.
      item: <int32>[interaction], items by number.
      timestamp: <int64>[interaction], whole seconds since 1970 UTC; 0 where the source has none.
      rating: <float32>[interaction], or None where the source has none.
      weight: <float32>[interaction], or None where the source has none.
      split: <int8>[interaction], position in `mmrec_tf.schema.SPLITS`.
      event_weight: <float32>[interaction], what an interaction of this type counts for, 0 to drop
        it; None where types make no difference.
      events: <bool>[interaction, event], of which types it was, of those that count; None where
        types are not read.
      position: <int32>[interaction], in the list that the item was shown in, -1 where unknown;
        None where the source has none.
      fraction: <int32>[interaction], microseconds after `timestamp`; None where all are 0.
    """

    user: NDArray[Any]
    item: NDArray[Any]
    timestamp: NDArray[Any]
    rating: NDArray[Any] | None
    weight: NDArray[Any] | None
    split: NDArray[Any]
    event_weight: NDArray[Any] | None = None
    events: NDArray[Any] | None = None
    position: NDArray[Any] | None = None
    fraction: NDArray[Any] | None = None

    def take(self, index: NDArray[Any]) -> "Events":
        """The interactions at `index <int64>[interaction]`, or where a mask <bool> is True."""
        return Events(
            user=self.user[index],
            item=self.item[index],
            timestamp=self.timestamp[index],
            rating=None if self.rating is None else self.rating[index],
            weight=None if self.weight is None else self.weight[index],
            split=self.split[index],
            event_weight=None if self.event_weight is None else self.event_weight[index],
            events=None if self.events is None else self.events[index],
            position=None if self.position is None else self.position[index],
            fraction=None if self.fraction is None else self.fraction[index],
        )

    @property
    def moment(self) -> NDArray[Any]:
        """<int64>[interaction], what tells earlier from later: microseconds since 1970 where
        interactions have fractions of a second, else seconds."""
        if self.fraction is None:
            return self.timestamp
        moment: NDArray[Any] = self.timestamp * 1_000_000 + self.fraction
        return moment

    @property
    def weights(self) -> NDArray[Any]:
        """<float32>[interaction], 1 where the source has none."""
        return np.ones(len(self.user), np.float32) if self.weight is None else self.weight


def drop_duplicates(events: Events) -> Events:
    """Keeps the earliest interaction of each user with each item.

    Of two at the same time the one of the earlier split stays, then the one of the earlier row.

    Returns:
      The rest, in the order of the source.
    """
    pair = _pair(events)
    # lexsort is stable: rows that tie in all keys keep their order.
    order = np.lexsort((events.split, events.moment, pair))
    pair = pair[order]
    first = np.ones(len(order), bool)
    first[1:] = pair[1:] != pair[:-1]
    return events.take(np.sort(order[first]))


def merge(distinct: Events, events: Events, *, begun: NDArray[Any]) -> Events:
    """Gives each distinct interaction the largest weight and all types of those it was made of.

    Events that came when a later split had begun do not count: a purchase after the end of train
    must not weigh what was merely seen in train, nor be told of it.

    Args:
      distinct: some of `events`, with the splits that they are in.
      events: all of them.
      begun: <int8>[event], the last split that had begun by then; see `begun`.

    Returns:
      `distinct`, all else as it was.
    """
    # Both sorted, because a search for neighbors one after the other stays within the cache.
    one, row = np.argsort(_pair(distinct)), np.argsort(_pair(events))
    pair, wanted = _pair(distinct)[one], _pair(events)[row]
    at = np.searchsorted(pair, wanted).clip(max=len(pair) - 1)
    # Not all pairs are left, as interactions may have been dropped since.
    known = pair[at] == wanted
    one, row = one[at[known]], row[known]
    counts = begun[row] <= distinct.split[one]
    one, row = one[counts], row[counts]
    weight = distinct.weights.copy()
    np.maximum.at(weight, one, events.weights[row])
    if distinct.events is None or events.events is None:
        return distinct._replace(weight=weight)
    types = distinct.events.copy()
    at, event = np.nonzero(events.events[row])
    types[one[at], event] = True
    return distinct._replace(weight=weight, events=types)


def k_core(user: NDArray[Any], item: NDArray[Any], k: int) -> NDArray[Any]:
    """Thins interactions until every user and every item that is left has at least `k` of them.

    Args:
      user: <int32>[interaction], users by number.
      item: <int32>[interaction], items by number; no pair stands twice.
      k: 1 or more.

    Returns:
      <int64>[kept], the positions of those that stay, ascending; possibly none.
    """
    kept = np.arange(len(user))
    while len(kept):
        enough = (np.bincount(user) >= k)[user] & (np.bincount(item) >= k)[item]
        if enough.all():
            break
        # Without one that goes, another may have too few.
        kept, user, item = kept[enough], user[enough], item[enough]
    return kept


def at_random(
    events: Events,
    *,
    valid_share: float,
    test_share: float,
    seed: int,
    users: Iterable[str],
    items: Iterable[str],
) -> Events:
    """Splits each user's interactions at random.

    Of a user's n interactions n * share, rounded up or down by a draw of the user's own, so that
    the shares hold over all users however little each of them did. At least one stays in train; of
    a single one that is all. The draws are hashes of the seed and the ids, so that neither the
    order of rows nor other users matter.

    Args:
      events: distinct interactions.
      valid_share: 0 or more; with `test_share` less than 1.
      test_share: 0 or more.
      seed: gives another split each.
      users: ids in the order of the numbers.
      items: ids in the order of the numbers.
    """
    user_hash = _hashes(users, b"user", seed)
    draw = _scatter(user_hash[events.user] ^ _hashes(items, b"item", seed)[events.item])
    order = np.lexsort((draw, events.user))
    count = np.bincount(events.user, minlength=len(user_hash))
    user = events.user[order]
    rank = np.arange(len(order)) - (np.cumsum(count) - count)[user]
    # Systematic sampling: points 1 / n apart, the first one anywhere in the first n-th.
    start = (user_hash >> np.uint64(11)) * 2.0**-53
    point = (rank + start[user]) / count[user]
    split = np.full(len(order), _TRAIN, np.int8)
    split[order[point < valid_share + test_share]] = _VALID
    split[order[point < test_share]] = _TEST
    split[order[rank == count[user] - 1]] = _TRAIN
    return events._replace(split=split)


def cold_items(
    events: Events,
    *,
    valid_share: float,
    test_share: float,
    shots: int,
    seed: int,
    users: Iterable[str],
    items: Iterable[str],
) -> Events:
    """Holds some items out, with all of their interactions but `shots`: what is new in the catalog.

    Of n items with interactions round(n * share) are drawn for each of valid and test, one at least
    where its share is above 0 and another item is left for train. Of a drawn item the earliest
    `shots` interactions stay in train; where times tie, a draw decides. All draws are hashes of the
    seed and the ids, so that the order of rows does not matter.

    Args:
      events: distinct interactions.
      valid_share: of the items, 0 or more; with `test_share` less than 1.
      test_share: likewise.
      shots: 0 or more; 0 leaves drawn items without any train interaction.
      seed: gives other items each.
      users: ids in the order of the numbers.
      items: ids in the order of the numbers.
    """
    item_hash = _hashes(items, b"item", seed)
    asked, row = np.unique(events.item, return_inverse=True)
    # Scattered again: alone, the hash decides in `at_random`, and the draws are not to be the same.
    drawn = np.argsort(_scatter(item_hash[asked] ^ np.uint64(1)), kind="stable")
    split_of = np.full(len(asked), _TRAIN, np.int8)
    start = 0
    for held_out, share in ((_TEST, test_share), (_VALID, valid_share)):
        wanted = max(round(len(asked) * share), int(share > 0))
        wanted = min(wanted, len(asked) - 1 - start)
        split_of[drawn[start : start + wanted]] = held_out
        start += wanted
    split = split_of[row]
    if shots:
        draw = _scatter(_hashes(users, b"user", seed)[events.user] ^ item_hash[events.item])
        order = np.lexsort((draw, events.moment, row))
        count = np.bincount(row)
        rank = np.arange(len(order)) - (np.cumsum(count) - count)[row[order]]
        split[order[rank < shots]] = _TRAIN
    return events._replace(split=split)


def time_borders(
    timestamp: NDArray[Any], *, valid_share: float, test_share: float
) -> tuple[int, int]:
    """The moments at which valid and test begin, so that they get their shares of interactions.

    Interactions of the same second are not torn apart: all go to the later split, which then gets
    more than its share.

    Args:
      timestamp: <int64>[interaction], in seconds; at least one.
      valid_share: 0 or more; with `test_share` less than 1.
      test_share: 0 or more.

    Returns:
      The first second of valid and that of test.
    """
    # Of no interactions a split begins after the last.
    times = np.append(np.sort(timestamp), _NEVER)
    num_test = round(len(timestamp) * test_share)
    num_valid = round(len(timestamp) * (valid_share + test_share)) - num_test
    test = len(timestamp) - num_test
    return int(times[test - num_valid]), int(times[test])


def by_time(events: Events, borders: tuple[int, int]) -> Events:
    """Splits at the first second of valid and that of test."""
    return events._replace(split=begun(events.timestamp, np.asarray(borders)))


def begun(timestamp: NDArray[Any], borders: NDArray[Any]) -> NDArray[Any]:
    """The last split that had begun by each of some moments.

    Args:
      timestamp: <int64>[moment], in any unit.
      borders: <int64>[2] or [moment, 2], in the same, when valid begins and when test, which is no
        earlier.

    Returns:
      <int8>[moment], position in `mmrec_tf.schema.SPLITS`.
    """
    valid, test = timestamp >= borders[..., 0], timestamp >= borders[..., 1]
    return valid.astype(np.int8) + test


def leave_last_out(events: Events) -> Events:
    """Splits by time: of each user with at least three interactions the last is test, the one
    before it valid, and the rest train; all of a shorter history is train."""
    order, last = _last(events)
    split = np.full(len(order), _TRAIN, np.int8)
    split[order[last]] = _TEST
    split[order[last - 1]] = _VALID
    return events._replace(split=split)


def undecided(events: Events) -> tuple[int, int]:
    """How many users' last two interactions no time tells from the others, so that the order of
    rows does; and of how many users `leave_last_out` holds them out."""
    order, last = _last(events)
    moment = events.moment[order]
    tied = (moment[last] == moment[last - 1]) | (moment[last - 1] == moment[last - 2])
    return int(tied.sum()), len(last)


def _last(events: Events) -> tuple[NDArray[Any], NDArray[Any]]:
    """The order by user and time, and in it the last of each user with three or more."""
    order = np.lexsort((events.moment, events.user))
    _, start, count = np.unique(events.user[order], return_index=True, return_counts=True)
    return order, (start + count - 1)[count >= 3]


def last_borders(events: Events, *, num_users: int) -> NDArray[Any]:
    """When valid and test begin for each user after `leave_last_out`.

    Returns:
      <int64>[user, 2], as `Events.moment`; beyond all times for a user who has neither.
    """
    borders = np.full([num_users, 2], _NEVER)
    for column, split in enumerate((_VALID, _TEST)):
        held_out = events.split == split
        borders[events.user[held_out], column] = events.moment[held_out]
    return borders


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
    np.maximum.at(latest, events.user[train], events.moment[train])
    earliest = np.full(num_users, most.max)
    np.minimum.at(earliest, events.user[~train], events.moment[~train])
    both = (latest > most.min) & (earliest < most.max)
    return bool(both.any() and (earliest >= latest)[both].all())


def renumber(
    numbers: NDArray[Any], num_ids: int, *, num_listed: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers users or items anew, without those that have no interaction.

    Args:
      numbers: <int32>[interaction], from 0 to num_ids - 1.
      num_ids: how many there are.
      num_listed: so many of the first stay in any case; None for all.

    Returns:
      <bool>[id], who stays; <int32>[interaction], the new numbers, which keep the old order.
    """
    stays = np.bincount(numbers, minlength=num_ids) > 0
    stays[:num_listed] = True
    return stays, (np.cumsum(stays) - 1).astype(np.int32)[numbers]


def write(writer: DatasetWriter, events: Events) -> None:
    """Writes distinct interactions to a dataset: by user, oldest first, ties as in the source."""
    events = events.take(np.lexsort((events.moment, events.user, events.split)))
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
            events=None if events.events is None else events.events[part],
            position=None if events.position is None else events.position[part],
        )


def _pair(events: Events) -> NDArray[np.int64]:
    """One number for each pair of a user and an item, <int64>[interaction]."""
    pair: NDArray[np.int64] = events.user.astype(np.int64) << 32 | events.item
    return pair


def _hashes(ids: Iterable[str], kind: bytes, seed: int) -> NDArray[np.uint64]:
    """<uint64>[id]; the same on every machine and in every run."""
    salt = str(seed).encode()
    digests = [
        hashlib.blake2b(name.encode(), digest_size=8, key=salt, person=kind).digest()
        for name in ids
    ]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _scatter(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatters <uint64>[n]: the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
