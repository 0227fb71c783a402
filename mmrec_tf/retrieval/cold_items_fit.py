"""How far cold items are pulled and what is added to their score: fitted by a simulated cold start.

A share of the warm items is made cold: the catalog is embedded without their ids, the graph and the
popularity without their interactions, histories without them. Whoever met them in train should then
find them, and still find the rest: of every user about the same share of the other train
interactions is taken out of the history and asked for, too.

An offset that is judged by what is hidden alone has no end, and one that is judged by all that is
asked for gives new items no place, as the known ones fill a list well. So for each pull the offset
is the highest one that gives hidden items no more of the first k places than `exposure` times their
share of the train interactions (calibrated lists, Steck 2018); and of the pulls that one counts
with which most of what is hidden is found.

Nothing is trained on the way, and neither valid nor test is read. As the towers have trained on
what is asked for, the recall is higher than on anything new; it is there to be compared with
itself.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import RunError

# Pulls that are tried.
PULLS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Offsets that are tried lie so far apart, relative to the standard deviation of a user's scores,
# and reach so far beyond what lies between the best of the hidden and the best of the others.
STEP, REACH = 0.0625, 4.0
# Users whose lists are looked at.
MOST_USERS = 2000


class Found(NamedTuple):
    """What lists hold in the simulation.

    Attributes:
      hidden: recall of the items that were made cold, the mean over users who met some.
      others: likewise of other items.
      shown: the share of the places that hidden items take.
    """

    hidden: float
    others: float
    shown: float


class ColdItemsFit(NamedTuple):
    """What the simulated cold start found.

    Attributes:
      num_neighbors: `cold_items.num_neighbors`.
      pull: 0 to 1, how far a cold item's vector goes toward its neighbors.
      offset: what is added to its score.
      monitor: the metric, such as "recall@10".
      num_hidden: warm items that were made cold.
      num_warm: those that were left, and could be neighbors.
      users: whose lists were looked at.
      wanted: the share of train interactions that are with hidden items.
      without, with_fit: Found, without pull and offset and with both.
    """

    num_neighbors: int
    pull: float
    offset: float
    monitor: str
    num_hidden: int
    num_warm: int
    users: int
    wanted: float
    without: Found
    with_fit: Found

    @property
    def used(self) -> bool:
        """Whether it changes anything."""
        return self.pull > 0 or self.offset != 0

    def __str__(self) -> str:
        start = f"cold items ({self.num_hidden} of {self.num_hidden + self.num_warm} warm items"
        if not self.users:
            return (
                f"{start} were hidden): left where content alone places them, as no user with a "
                "history met one of these."
            )
        hidden, others, shown = (
            f"{before:.4f} -> {after:.4f}"
            for before, after in zip(self.without, self.with_fit, strict=True)
        )
        return (
            f"{start} hidden, {self.users} users): pull {self.pull:g} toward {self.num_neighbors} "
            f"neighbors, offset {self.offset:+.3g}. In the simulation {self.monitor} of hidden "
            f"items {hidden}, of others {others}; hidden ones take {shown} of the places, and are "
            f"{self.wanted:.4f} of the interactions."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, lists and scalars."""
        found = self._asdict()
        found |= {name: getattr(self, name)._asdict() for name in ("without", "with_fit")}
        return json.loads(json.dumps(found))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ColdItemsFit":
        """Reads what `to_json` wrote.

        Raises:
          RunError: for anything else.
        """
        try:
            founds = {name: Found(**value[name]) for name in ("without", "with_fit")}
            found = cls(**{**value, **founds})
            whole = 0 <= found.pull <= 1 and np.isfinite(found.offset) and found.num_neighbors >= 1
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"cold items: wanted a fit; {error}. Train again.") from error
        if not whole:
            raise RunError(
                "cold items: wanted a pull of 0 to 1, a finite offset and 1 or more neighbors; got "
                f"{found.pull}, {found.offset} and {found.num_neighbors}. Train again."
            )
        return found


class Simulation(NamedTuple):
    """What is hidden, and who is asked.

    Attributes:
      hidden: <bool>[item], the warm items that are made cold.
      histories: Histories without them, and without the other interactions that are asked for.
      users: <int>[user], of whom something is asked and something is left.
      offset: <int64>[user + 1]; `users[n]` should find `wanted[offset[n]:offset[n + 1]]`.
      wanted: <int32>[interaction].
      share: of all interactions of `users`, those with hidden items.
    """

    hidden: np.ndarray
    histories: Histories
    users: np.ndarray
    offset: np.ndarray
    wanted: np.ndarray
    share: float


def simulate(liked: Histories, may: np.ndarray, *, share: float, seed: int) -> Simulation:
    """Draws the items to hide and the interactions to ask for.

    Args:
      liked: Histories of train.
      may: <bool>[item], warm items with content.
      share: of the items, and of the other interactions.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    warm = np.flatnonzero(may)
    # One at least, where two are left, one to be found beside it and one to be near to.
    num = min(max(round(len(warm) * share), 1), max(len(warm) - 2, 0))
    hidden = np.zeros(len(may), bool)
    hidden[rng.choice(warm, num, replace=False)] = True
    of_hidden = hidden[liked.item]
    asked = of_hidden | (rng.random(len(liked.item)) < share)
    user = np.repeat(np.arange(len(liked.offset) - 1), np.diff(liked.offset))
    num_users = len(liked.offset) - 1
    kept = np.bincount(user[~asked], minlength=num_users)
    users = np.flatnonzero((np.bincount(user[asked], minlength=num_users) > 0) & (kept > 0))
    if len(users) > MOST_USERS:
        users = np.sort(rng.choice(users, MOST_USERS, replace=False))
    if not of_hidden[np.isin(user, users)].any():
        users = users[:0]
    theirs = np.isin(user, users)
    mine = asked & theirs
    wanted = np.bincount(user[mine], minlength=num_users)[users]
    return Simulation(
        hidden,
        Histories(
            liked.item[~asked],
            np.concatenate([[0], np.cumsum(kept)]),
            None if liked.time is None else liked.time[~asked],
        ),
        users,
        np.concatenate([[0], np.cumsum(wanted)]),
        liked.item[mine],
        float(of_hidden[theirs].mean()) if theirs.any() else 0.0,
    )


class Lists(NamedTuple):
    """Scores of some users, of the simulated catalog.

    Attributes:
      first: place of the first one among `Simulation.users`.
      warm: <float32>[user, warm], of the items that stayed warm, in their order; minus infinity
        for what a user is known to have met.
      hidden: by pull, <float32>[user, hidden], of those that were hidden, without an offset.
    """

    first: int
    warm: np.ndarray
    hidden: list[np.ndarray]


class Counted(NamedTuple):
    """What lists hold, by pull and offset.

    Attributes:
      hits: <bool>[pull, offset, wanted], which of the wanted items are among the first k.
      shown: <int64>[pull, offset], places of the first k that hidden items take.
    """

    hits: np.ndarray
    shown: np.ndarray


def count(
    lists: Lists, drawn: Simulation, offsets: np.ndarray, warm: np.ndarray, *, k: int
) -> Counted:
    """Counts what is among the first k of some lists under each pull and offset.

    Args:
      lists: Lists.
      drawn: Simulation.
      offsets: <float>[offset].
      warm: <int>[warm], numbers of the items of `Lists.warm`.
      k: cut-off.
    """
    hidden = np.flatnonzero(drawn.hidden)
    place = np.full(len(drawn.hidden), -1)
    place[warm], place[hidden] = np.arange(len(warm)), np.arange(len(hidden))
    shown = np.zeros([len(lists.hidden), len(offsets)], np.int64)
    parts = []
    for row in range(len(lists.warm)):
        user = lists.first + row
        wanted = drawn.wanted[drawn.offset[user] : drawn.offset[user + 1]]
        cold = drawn.hidden[wanted]
        ordered = np.sort(lists.warm[row])
        own = lists.warm[row, place[wanted[~cold]]]
        above = _higher(ordered, own)
        found = np.empty([len(lists.hidden), len(offsets), len(wanted)], bool)
        for pull, scores in enumerate(lists.hidden):
            by_score = np.sort(scores[row])
            asked = scores[row, place[wanted[cold]]]
            passed = _higher(ordered, asked[None, :] + offsets[:, None])
            found[pull][:, cold] = _higher(by_score, asked) + passed < k
            passed = _higher(by_score, own[None, :] - offsets[:, None])
            found[pull][:, ~cold] = above + passed < k
            best = by_score[::-1][:k]
            passed = _higher(ordered, best[None, :] + offsets[:, None])
            shown[pull] += (np.arange(len(best)) + passed < k).sum(axis=1)
        parts.append(found)
    return Counted(np.concatenate(parts, axis=2), shown)


def _higher(ordered: np.ndarray, score: np.ndarray) -> np.ndarray:
    """How many of some scores, lowest first, are higher than each of others."""
    return len(ordered) - np.searchsorted(ordered, score, side="right")


def recalls(hits: np.ndarray, drawn: Simulation) -> np.ndarray:
    """Recall of hidden items and of others, the mean over users who want some.

    Args:
      hits: <bool>[pull, offset, wanted].
      drawn: Simulation.

    Returns:
      <float64>[2, pull, offset]; 0 where nobody wants any.
    """
    cold = drawn.hidden[drawn.wanted]
    values = []
    for which in (cold, ~cold):
        num = np.add.reduceat(which.astype(np.float64), drawn.offset[:-1])
        found = np.add.reduceat((hits & which).astype(np.float64), drawn.offset[:-1], axis=-1)
        some = num > 0
        rate = found[..., some] / num[some]
        values.append(rate.mean(axis=-1) if some.any() else np.zeros(hits.shape[:-1]))
    return np.stack(values)


def pulls_to_try(pull: float | None) -> tuple[float, ...]:
    """None first, which the others are compared with; then those that may be chosen: all, or the
    one that is asked for."""
    return PULLS if pull is None else (0.0, pull)


def offsets_to_try(lists: Lists) -> np.ndarray:
    """<float64>[offset], 0 among them: from what moves hidden items to the end of the lists to what
    moves them to their front."""
    known = np.isfinite(lists.warm)
    if not known.any():
        return np.zeros(1)
    warm = np.where(known, lists.warm, np.nan).astype(np.float64)
    deviation = float(np.nanmean(np.nanstd(warm, axis=1)))
    if not deviation > 0:
        return np.zeros(1)
    # What popularity may put between them.
    gap = float(np.mean(np.nanmax(warm, axis=1) - lists.hidden[0].max(axis=1)))
    furthest = round((abs(gap) / deviation + REACH) / STEP)
    return STEP * deviation * np.arange(-furthest, furthest + 1)


def choose(found: np.ndarray, offsets: np.ndarray, *, most: float) -> tuple[int, int]:
    """The pull and the offset, by place.

    Args:
      found: <float64>[3, pull, offset], as of `Found`.
      offsets: <float64>[offset], rising.
      most: the share of the places that hidden items may take.

    Returns:
      Of each pull the highest offset at which they take no more, the lowest where they always do;
      of these pairs the one with the highest recall of hidden items, of equal ones that with the
      lowest pull.
    """
    # Rising with the offset.
    fits = (found[2] <= most).sum(axis=1)
    at = np.maximum(fits - 1, 0)
    pull = int(np.argmax(found[0, np.arange(len(at)), at]))
    return pull, int(at[pull])


def fit(
    drawn: Simulation,
    lists: Iterable[Lists],
    *,
    warm: np.ndarray,
    k: int,
    num_neighbors: int,
    exposure: float,
    fixed: float | None = None,
) -> ColdItemsFit:
    """Finds pull and offset.

    Args:
      drawn: Simulation.
      lists: of all its users, in their order; none where it has none.
      warm: <int>[warm], numbers of the items of `Lists.warm`.
      k: cut-off.
      num_neighbors: as of `ColdItemsFit`.
      exposure: of the share of the interactions, so many times as large a share of the places.
      fixed: the pull, of which the offset alone is found; None to find both.
    """
    pulls, first = pulls_to_try(fixed), 0 if fixed is None else 1
    offsets = np.zeros(1)
    parts: list[Counted] = []
    for part in lists:
        if not parts:
            offsets = offsets_to_try(part)
        parts.append(count(part, drawn, offsets, warm, k=k))
    pull, offset = 0.0, 0.0
    without = with_fit = Found(0.0, 0.0, 0.0)
    if parts:
        hits = np.concatenate([part.hits for part in parts], axis=2)
        places = len(drawn.users) * min(k, len(warm) + int(drawn.hidden.sum()))
        shown = np.sum([part.shown for part in parts], axis=0) / places
        found = np.concatenate([recalls(hits, drawn), shown[None]])
        chosen, last = choose(found[:, first:], offsets, most=exposure * drawn.share)
        at = chosen + first, last
        pull, offset = pulls[at[0]], float(offsets[at[1]])
        start = int(np.flatnonzero(offsets == 0)[0])
        without = Found(*found[:, 0, start].tolist())
        with_fit = Found(*found[:, at[0], at[1]].tolist())
    return ColdItemsFit(
        num_neighbors=num_neighbors,
        pull=pull,
        offset=offset,
        monitor=f"recall@{k}",
        num_hidden=int(drawn.hidden.sum()),
        num_warm=len(warm),
        users=len(drawn.users),
        wanted=drawn.share,
        without=without,
        with_fit=with_fit,
    )
