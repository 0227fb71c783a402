"""Off-policy estimates from draws with known probabilities, and their intervals."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Below so many draws' worth of information an interval means nothing.
LEAST_EFFECTIVE = 100.0
_Z = 1.959964  # two-sided 95 %


class Draws(NamedTuple):
    """Logged draws of one slot, and what a policy in question would have drawn.

    Attributes:
      reward: <float64>[draw], such as 1 for a click.
      logged: <float64>[draw], the probability of what was drawn, under the policy that drew.
      target: <float64>[draw], the same under the policy in question.
      predicted: <float64>[draw], the reward that a model predicts of what was drawn.
      expected: <float64>[draw], the same of what the policy in question would draw: the mean over
        the pool under its probabilities.
    """

    reward: Floats
    logged: Floats
    target: Floats
    predicted: Floats
    expected: Floats


class Estimate(NamedTuple):
    """A mean reward with its 95 % interval, by the normal approximation."""

    name: str
    mean: float
    low: float
    high: float


def weights(draws: Draws) -> Floats:
    """Importance weights: target over logged."""
    return draws.target / draws.logged


def effective(weight: Floats) -> float:
    """The effective sample size of weights: (sum w)^2 / sum w^2 (Kish, 1965)."""
    square = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / square if square else 0.0


def ips(draws: Draws) -> Estimate:
    """Inverse propensity scoring (Horvitz and Thompson, 1952): mean of w r."""
    return _mean("ips", weights(draws) * draws.reward)


def snips(draws: Draws) -> Estimate:
    """Self-normalized (Swaminathan and Joachims, 2015): sum w r / sum w; the interval by the delta
    method."""
    weight = weights(draws)
    total = float(weight.sum())
    mean = float(np.sum(weight * draws.reward)) / total
    error = math.sqrt(float(np.sum((weight * (draws.reward - mean)) ** 2))) / total
    return Estimate("snips", mean, mean - _Z * error, mean + _Z * error)


def doubly_robust(draws: Draws) -> Estimate:
    """Doubly robust (Dudik, Langford and Li, 2011): what the model expects, and where it erred on
    what was drawn, weighted; right if either the model or the probabilities are."""
    residual = weights(draws) * (draws.reward - draws.predicted)
    return _mean("doubly robust", draws.expected + residual)


def _mean(name: str, values: Floats) -> Estimate:
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(name, mean, mean - _Z * error, mean + _Z * error)


class Comparison(NamedTuple):
    """Two arms of users.

    Attributes:
      name: of the arm compared with the first.
      difference, low, high: of the mean reward of a user, with its 95 % interval (Welch).
    """

    name: str
    difference: float
    low: float
    high: float


def compare(name: str, control: Floats, treated: Floats) -> Comparison:
    """The difference of means of two arms; each value is one user's, as users were dealt.

    Args:
      name: of the treated arm.
      control, treated: <float64>[user], at least two each.
    """
    difference = float(treated.mean() - control.mean())
    variance = treated.var(ddof=1) / len(treated) + control.var(ddof=1) / len(control)
    error = math.sqrt(float(variance))
    return Comparison(name, difference, difference - _Z * error, difference + _Z * error)


def sample_ratio(counts: Floats, shares: Floats) -> float:
    """The p-value of Pearson's test that users were dealt as they should be.

    A tiny one says that something other than the dealing chose the users, so that no comparison of
    the arms means anything (Fabijan et al., 2019: sample ratio mismatch).

    Args:
      counts: <float64>[arm], users seen.
      shares: <float64>[arm], as they were set.
    """
    from scipy import stats

    wanted = counts.sum() * shares / shares.sum()
    statistic = float(np.sum((counts - wanted) ** 2 / wanted))
    return float(stats.chi2.sf(statistic, len(counts) - 1))
