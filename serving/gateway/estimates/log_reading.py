"""The log -> draws of the exploration slot, and rewards of users by arm."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import ConfigError
from serving.gateway.estimates.estimators import Draws, Floats
from serving.gateway.estimates.reward_model import features_of, fit, predict
from serving.gateway.lists.exploration import propensities
from serving.gateway.store.records import LIKING, ShownList
from serving.gateway.store.store import Store

_BLOCK = 1000


class Policy(NamedTuple):
    """How the slot would be drawn: e / n + (1 - e) softmax(score / t)."""

    exploration: float
    temperature: float


class Log(NamedTuple):
    """What was shown, and the items of each list that were liked."""

    lists: list[ShownList]
    liked: dict[str, set[str]]


async def read_log(store: Store, *, since: int = 0) -> Log:
    """Reads lists, and likes that name them; the same item of a list counts once.

    Args:
      store: Store, open.
      since: lists made before are left out, in milliseconds since 1970 UTC.
    """
    lists, after = list[ShownList](), 0
    while block := await store.lists(after, _BLOCK):
        lists += [shown for shown in block if shown.time >= since]
        after = block[-1].sequence
    liked: dict[str, set[str]] = defaultdict(set)
    last, after = await store.last_sequence(), 0
    while events := await store.events(after, last, _BLOCK):
        for event in events:
            if event.list and event.type in LIKING:
                liked[event.list].add(event.item)
        after = events[-1].sequence
    return Log(lists, liked)


def draws_of(log: Log, policy: Policy) -> Draws:
    """Draws of the exploration slot that people were shown, beside what a policy would draw.

    The reward model is fitted on one half of the draws and used on the other, in turn, so that it
    does not know what it predicts (cross-fitting; Chernozhukov et al., 2018).

    Raises:
      ConfigError: where there are fewer than four such draws.
    """
    rows = []
    for shown in log.lists:
        for one in shown.items[: shown.answered]:
            if one.propensity is not None and shown.pool:
                rows.append((shown, one))
    if len(rows) < 4:
        raise ConfigError(
            f"wanted draws of the exploration slot in the log; got {len(rows)}. Serve with "
            "--exploration above 0, and lists of at least four items."
        )
    reward = np.array([float(one.item in log.liked.get(s.id, ())) for s, one in rows])
    logged = np.array([one.propensity for _, one in rows], np.float64)
    # All pools end to end, and where each begins.
    sizes = np.array([len(shown.pool) for shown, _ in rows])
    starts = np.cumsum(sizes) - sizes
    inside = [[c.item for c in shown.pool].index(one.item) for shown, one in rows]
    drawn = starts + np.array(inside)
    score = np.array([c.score for shown, _ in rows for c in shown.pool])
    features = features_of(score, np.array([c.fresh for shown, _ in rows for c in shown.pool]))
    chance = np.concatenate(
        [
            propensities(
                score[start : start + size].tolist(),
                exploration=policy.exploration,
                temperature=policy.temperature,
            )
            for start, size in zip(starts, sizes, strict=True)
        ]
    )
    half = np.arange(len(rows)) % 2
    told = np.zeros(len(score))
    for part in (0, 1):
        others = half != part
        mine = np.repeat(half == part, sizes)
        told[mine] = predict(features[mine], fit(features[drawn[others]], reward[others]))
    expected = np.add.reduceat(chance * told, starts)
    return Draws(reward, logged, chance[drawn], told[drawn], expected)


def rewards_by_arm(log: Log) -> dict[str, Floats]:
    """For each arm, likes per list of each of its users, <float64>[user]; strangers without an id
    are left out, as they share one."""
    likes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for shown in log.lists:
        if shown.user and shown.version:
            count = sum(
                one.item in log.liked.get(shown.id, ()) for one in shown.items[: shown.answered]
            )
            likes[shown.arm, shown.user].append(count)
    arms: dict[str, list[float]] = defaultdict(list)
    for (arm, _), counts in sorted(likes.items()):
        arms[arm].append(float(np.mean(counts)))
    return {arm: np.array(values) for arm, values in arms.items()}
