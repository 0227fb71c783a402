"""Whether a difference is more than chance."""

from collections.abc import Sequence
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
    means = _resampled_means(a - b, num_resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(np.mean(a - b)), float(low), float(high))


def paired_p_value(
    a: np.ndarray, b: np.ndarray, *, num_resamples: int = 10_000, seed: int = 0
) -> float:
    """How probable a mean as far from 0 would be if two rankings were equally good, two-sided.

    A paired bootstrap of the differences less their mean, which is what they would be like if
    there were none (Efron and Tibshirani 1993, algorithm 16.2, for the mean).

    Args:
      a, b, seed: as for `paired_bootstrap`.
      num_resamples: how often users are drawn; no p-value is below 1 / (num_resamples + 1).

    Raises:
      ValueError: as `paired_bootstrap`.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if difference.ndim != 1 or not len(difference) or num_resamples < 1:
        raise ValueError(f"a, b: wanted one value a user of both; got {difference.shape}.")
    mean = difference.mean()
    means = _resampled_means(difference - mean, num_resamples, seed)
    # Rounding must not make a mean of 0 a rare one.
    as_far = (np.abs(means) >= abs(mean) * (1 - 1e-9) - 1e-15).sum()
    return float((as_far + 1) / (num_resamples + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, raised so that they may be read together.

    The i-th smallest of m is multiplied by m - i + 1, and is no lower than those before it (Holm
    1979): below 0.05 all together are false with a probability of at most 0.05.

    Args:
      p_values: one a comparison, 0 to 1.

    Returns:
      In the same order, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    raised, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        raised[place] = highest
    return raised


def _resampled_means(difference: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """The means <float64>[num_resamples] of users drawn with replacement."""
    # Users with the same difference are exchangeable: how many of each are drawn is all that
    # matters, and most metrics take few values.
    values, count = np.unique(difference, return_counts=True)
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    block = max(RESAMPLED // len(values), 1)
    for start in range(0, num_resamples, block):
        some = means[start : start + block]
        some[:] = (
            rng.multinomial(len(difference), count / len(difference), size=len(some))
            @ values
            / len(difference)
        )
    return means
