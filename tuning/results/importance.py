"""How much each setting matters: a random forest fitted to the trials, one setting shuffled at a
time (permutation importance; Breiman 2001, section 10)."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tuning.results.table import Row

Array = np.ndarray[Any, Any]
# With fewer trials a forest would say what chance says.
FEWEST = 8
_TREES = 200
_REPEATS = 20


class Importance(NamedTuple):
    """What shuffling a setting costs the forest.

    Attributes:
      setting: its path.
      mean: by how much R squared falls on trials that a tree has not seen, as they are shuffled.
      spread: its standard deviation over shuffles.
    """

    setting: str
    mean: float
    spread: float


class Forest(NamedTuple):
    """Importances, the largest first, and how much of the scores' variance the forest explains in
    trials that it was not fitted to (out of bag); below 0 it explains nothing."""

    settings: tuple[Importance, ...]
    explained: float


def importances(rows: Sequence[Row], settings: Sequence[str], *, seed: int = 0) -> Forest | None:
    """The importance of each setting, of the completed trials.

    Args:
      rows: trials.
      settings: what was varied.
      seed: of the forest.

    Returns:
      Forest; None of fewer than 8 completed trials, or where all scores are equal.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    done = [row for row in rows if row.score is not None]
    scores = np.array([row.score for row in done], float)
    if len(done) < FEWEST or np.ptp(scores) == 0:
        return None
    features, owner = _features(done, settings)
    forest = RandomForestRegressor(
        _TREES, min_samples_leaf=2, oob_score=True, bootstrap=True, random_state=seed, n_jobs=1
    )
    forest.fit(features, scores)
    found = []
    rng = np.random.default_rng(seed)
    for number, name in enumerate(settings):
        columns = np.flatnonzero(owner == number)
        if not len(columns) or not np.ptp(features[:, columns], axis=0).any():
            continue
        if len(columns) == 1:
            result = permutation_importance(
                forest, features, scores, n_repeats=_REPEATS, random_state=seed, n_jobs=1
            )
            drops = result.importances[columns[0]]
        else:
            drops = _shuffled(forest, features, scores, columns, rng)
        found.append(Importance(name, float(drops.mean()), float(drops.std())))
    found.sort(key=lambda entry: -entry.mean)
    return Forest(tuple(found), float(forest.oob_score_))


def _shuffled(forest: Any, features: Array, scores: Array, columns: Array, rng: Any) -> Array:
    """Permutation importance of several columns together, as those of one choice are."""
    whole = forest.score(features, scores)
    drops = []
    for _ in range(_REPEATS):
        moved = features.copy()
        moved[:, columns] = features[rng.permutation(len(features))][:, columns]
        drops.append(whole - forest.score(moved, scores))
    return np.array(drops)


def _features(rows: Sequence[Row], settings: Sequence[str]) -> tuple[Array, Array]:
    """Trials as numbers, <float64>[trial, feature], and whose feature it is, <int>[feature].

    A number stands as it is, on a logarithmic scale where it spans a factor of ten; one of several
    words is one column a word. What was not active lies apart, at -1 of a scale from 0 to 1.
    """
    columns, owner = [], []
    for number, name in enumerate(settings):
        values = [row.settings.get(name) for row in rows]
        known = [value for value in values if value is not None]
        if not known:
            continue
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
            columns.append(scaled(values))
            owner.append(number)
            continue
        for word in sorted({_word(value) for value in known}):
            columns.append(np.array([float(v is not None and _word(v) == word) for v in values]))
            owner.append(number)
    return np.stack(columns, axis=1), np.array(owner)


def scaled(values: Sequence[Any]) -> Array:
    """Numbers on a scale from 0 to 1, logarithmic where they span a factor of ten; -1 for None."""
    known = np.array([v for v in values if v is not None], float)
    low, high = known.min(), known.max()
    log = low > 0 and high >= 10 * low
    place = np.log if log else np.asarray
    span = float(place(high) - place(low)) or 1.0
    return np.array(
        [-1.0 if v is None else float(place(float(v)) - place(low)) / span for v in values]
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
