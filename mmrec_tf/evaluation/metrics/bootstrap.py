"""Whether a difference is more than chance."""

from typing import NamedTuple

import numpy as np

# Numbers drawn at a time: some tens of megabytes.
RESAMPLED = 4_000_000


class Difference(NamedTuple):
    """How far two rankings are apart: a mean over users, and the bounds of its interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    *,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The mean of a - b over users and its percentile interval (Efron and Tibshirani 1993, ch. 13).

    Users are drawn with replacement, as many as there are, and each brings its difference along:
    what makes a user hard for both rankings cancels out.

    Args:
      a: <float>[user], a metric of one ranking.
      b: <float>[user], the same of the other, users in the same order.
      num_resamples: how often users are drawn.
      confidence: share of the resamples that lie in the interval.
      seed: of the draws; the same users and the same seed give the same interval.

    Raises:
      ValueError: without users, for users that do not match, or for settings out of range.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"a, b: wanted one value a user of both; got {a.shape} and {b.shape}.")
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "num_resamples, confidence: wanted at least 1, and above 0 up to 1 (exclusive); "
            f"got {num_resamples} and {confidence}."
        )
    # Users with the same difference are exchangeable: how many of each are drawn is all that
    # matters, and most metrics take few values.
    values, count = np.unique(a - b, return_counts=True)
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    block = max(RESAMPLED // len(values), 1)
    for start in range(0, num_resamples, block):
        some = means[start : start + block]
        some[:] = rng.multinomial(len(a), count / len(a), size=len(some)) @ values / len(a)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(np.mean(a - b)), float(low), float(high))
