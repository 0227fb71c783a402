"""A small model of clicks for the doubly robust estimate."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RIDGE = 1.0
_STEPS = 25


def features_of(score: Floats, fresh: NDArray[np.bool_]) -> Floats:
    """<float64>[row, 4]: a constant, the score, its square, and whether the item is fresh."""
    return np.stack([np.ones_like(score), score, score**2, fresh.astype(np.float64)], axis=-1)


def fit(features: Floats, reward: Floats) -> Floats:
    """The weights of a logistic regression with a ridge, by Newton's method.

    Args:
      features: <float64>[row, feature], the first of them constant.
      reward: <float64>[row], 0 to 1.

    Returns:
      <float64>[feature].
    """
    weight = np.zeros(features.shape[1])
    ridge = np.full(features.shape[1], _RIDGE)
    ridge[0] = 1e-6  # The level is not shrunk.
    for _ in range(_STEPS):
        chance = predict(features, weight)
        slope = features.T @ (reward - chance) - ridge * weight
        curve = (features * (chance * (1 - chance))[:, None]).T @ features + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        weight = weight + step
        if np.abs(step).max() < 1e-8:
            break
    return weight


def predict(features: Floats, weight: Floats) -> Floats:
    """<float64>[row], the chance of a click."""
    result: Floats = 1 / (1 + np.exp(-np.clip(features @ weight, -30, 30)))
    return result
