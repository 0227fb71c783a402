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
_TREES = 100
_REPEATS = 10


class Importance(NamedTuple):
    """What shuffling a setting costs the forest.

    Attributes:
      setting: its path.
      mean: by how much R squared falls.
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
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    done = [row for row in rows if row.score is not None]
    scores = np.array([row.score for row in done], float)
    if len(done) < FEWEST or np.ptp(scores) == 0:
        return None
    columns = {name: _column([row.settings.get(name) for row in done]) for name in settings}
    varied = {name: pair for name, pair in columns.items() if np.ptp(pair[0]) > 0}
    if not varied:
        return None
    features = np.stack([values for values, _ in varied.values()], axis=1)
    words = [place for place, (_, numbers) in enumerate(varied.values()) if not numbers]
    # One column a word within the pipeline, so that those of one setting are shuffled together.
    coded = ColumnTransformer([("words", OneHotEncoder(), words)], remainder="passthrough")
    trees = RandomForestRegressor(
        _TREES, min_samples_leaf=2, oob_score=True, random_state=seed, n_jobs=1
    )
    forest = make_pipeline(coded, trees).fit(features, scores)
    found = permutation_importance(
        forest, features, scores, n_repeats=_REPEATS, random_state=seed, n_jobs=1
    )
    told = [
        Importance(name, float(mean), float(spread))
        for name, mean, spread in zip(
            varied, found.importances_mean, found.importances_std, strict=True
        )
    ]
    told.sort(key=lambda entry: -entry.mean)
    return Forest(tuple(told), float(trees.oob_score_))


def _column(values: Sequence[Any]) -> tuple[Array, bool]:
    """A setting over trials as <float64>[trial], and whether that is of numbers: those stand on a
    scale from 0 to 1, what was not active at -1; of words each has a number."""
    known = [value for value in values if value is not None]
    if not known:
        return np.zeros([len(values)]), True
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        return scaled(values), True
    words = sorted({_word(value) for value in known})
    return np.array([-1.0 if v is None else float(words.index(_word(v))) for v in values]), False


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
