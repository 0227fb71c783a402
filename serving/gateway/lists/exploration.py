"""One place of a list is drawn, with probabilities that are known and logged."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.gateway.store.records import Candidate, Shown

MOST_POOL = 50
PLACE = 9  # of each list; the last one of a shorter list
SHORTEST = 4  # a shorter list has no such place


def propensities(
    scores: Sequence[float], *, exploration: float, temperature: float
) -> NDArray[np.float64]:
    """With which probability each candidate is drawn: e / n + (1 - e) softmax(score / t).

    Args:
      scores: of the candidates, at least one.
      exploration: e, the share of uniform draws.
      temperature: t.

    Returns:
      <float64>[candidate], which sum to 1.
    """
    logits = np.asarray(scores, np.float64) / temperature
    weights = np.exp(logits - logits.max())
    uniform = exploration / len(logits)
    result: NDArray[np.float64] = uniform + (1 - exploration) * weights / weights.sum()
    return result


def pool_of(rest: Sequence[Shown], fresh: Sequence[Shown], shown: Mapping[str, int]) -> list[Shown]:
    """What may be drawn: fresh items and, of the others, those that were shown least.

    Args:
      rest: what the model would show further down.
      fresh: fresh items that did not make it.
      shown: how often each item was shown.

    Returns:
      At most `MOST_POOL`, by id.
    """
    known = {one.item: one for one in [*rest, *fresh] if one.score is not None}
    newest = {one.item for one in fresh}
    rarest = sorted(
        known.values(),
        key=lambda one: (one.item not in newest, shown.get(one.item, 0), -(one.score or 0)),
    )
    return sorted(rarest[:MOST_POOL], key=lambda one: one.item)


def draw(
    pool: Sequence[Shown],
    fresh: frozenset[str],
    *,
    exploration: float,
    temperature: float,
    rng: random.Random,
) -> tuple[Shown, float, list[Candidate]]:
    """Draws one; returns it, its propensity, and the pool as it is logged."""
    chances = propensities(
        [one.score or 0.0 for one in pool], exploration=exploration, temperature=temperature
    ).tolist()
    place = rng.choices(range(len(pool)), weights=chances)[0]
    logged = [
        Candidate(item=one.item, score=one.score or 0.0, propensity=chance, fresh=one.item in fresh)
        for one, chance in zip(pool, chances, strict=True)
    ]
    return pool[place], chances[place], logged
