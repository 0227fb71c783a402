"""Linear maps from a modality's features to a target space, solved for in float64.

All of them need the means and covariances only, which one pass over the items for each gathers in
blocks; features may lie in a mapped file.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import RunError

BLOCK = 4096
# Directions with less than this share of the largest variance are rounding.
SMALLEST_VARIANCE = 1e-10
# Penalties to choose among: from next to none to more than the variance of all features together.
PENALTIES = 10.0 ** np.linspace(-4, 4, 33)


class Moments(NamedTuple):
    """Means and covariances of features and target over `num_items` items, <float64>.

    Attributes:
      num_items: int.
      feature_mean: [f].
      target_mean: [dim].
      feature: [f, f], covariance of the features, divided by `num_items`.
      cross: [f, dim], covariance of the features with the target.
      target: [dim, dim].
    """

    num_items: int
    feature_mean: np.ndarray
    target_mean: np.ndarray
    feature: np.ndarray
    cross: np.ndarray
    target: np.ndarray


def moments(features: np.ndarray, target: np.ndarray, rows: np.ndarray) -> Moments:
    """The moments of some items.

    Args:
      features: <float32>[item, f].
      target: <float32>[item, dim].
      rows: <int>[n], numbers of the items that count, at least one.

    Raises:
      RunError: for a value that is not finite.
    """
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]

    def read(values: np.ndarray, block: np.ndarray) -> np.ndarray:
        part = np.asarray(values[block], np.float64)
        if not np.isfinite(part).all():
            bad = block[~np.isfinite(part).all(axis=1)][0]
            raise RunError(
                f"alignment: wanted finite numbers to fit a projection; got others for item "
                f"number {bad}. Check what its content is and what encoded it."
            )
        return part

    feature_mean = sum(read(features, block).sum(axis=0) for block in blocks) / len(rows)
    target_mean = sum(read(target, block).sum(axis=0) for block in blocks) / len(rows)
    width, dim = features.shape[1], target.shape[1]
    feature, cross = np.zeros([width, width]), np.zeros([width, dim])
    of_target = np.zeros([dim, dim])
    for block in blocks:
        x, y = read(features, block) - feature_mean, read(target, block) - target_mean
        feature += x.T @ x
        cross += x.T @ y
        of_target += y.T @ y
    n = len(rows)
    return Moments(n, feature_mean, target_mean, feature / n, cross / n, of_target / n)


def ridge(moments: Moments, *, l2: float) -> np.ndarray:
    """The kernel of ridge regression of the target on the features (Hoerl and Kennard 1970).

    With features standardized to variance 1, W minimizes mean |y - x W|^2 + l2 |W|^2. So `l2` is in
    units of a feature's variance: at 1, a feature that stands alone keeps half of its coefficient.
    Fewer items than features, with l2 0, give the solution of least length.

    Args:
      moments: Moments.
      l2: float, at least 0.

    Returns:
      <float64>[f, dim], for features as they are; zeros for a feature that is the same everywhere.
    """
    scale = _scale(moments)
    correlation = moments.feature / scale[:, None] / scale
    standard = _power(correlation, -1, l2) @ (moments.cross / scale[:, None])
    return standard / scale[:, None]


def cross_validated_l2(moments: Moments) -> tuple[float, float]:
    """The penalty of `ridge` with the least error by generalized cross-validation (Golub, Heath and
    Wahba 1979, eq. 1.4): what leaving out one item after the other would show, had each the same
    influence. Only the items of `moments` are looked at.

    Args:
      moments: Moments.

    Returns:
      The penalty, of `PENALTIES`, the largest of equally good ones; and the share of the target's
      variance that the features then explain of an item that was left out: 0 where they do no
      better than the mean.
    """
    scale = _scale(moments)
    variance, directions = np.linalg.eigh(moments.feature / scale[:, None] / scale)
    real = variance > SMALLEST_VARIANCE * variance.max(initial=0.0)
    along = np.square(directions.T @ (moments.cross / scale[:, None])).sum(axis=1)[real]
    kept = variance[real] / (variance[real] + PENALTIES[:, None])
    total = np.trace(moments.target)
    residual = total - (along / variance[real] * kept * (2 - kept)).sum(axis=1)
    # The mean takes one degree of freedom.
    free = 1 - (1 + kept.sum(axis=1)) / moments.num_items
    error = np.full_like(free, np.inf)
    np.divide(np.maximum(residual, 0.0), free**2, out=error, where=free > 0)
    best = len(error) - 1 - int(np.argmin(error[::-1]))
    of_mean = total / (1 - 1 / moments.num_items) ** 2
    explained = 1 - error[best] / of_mean if of_mean > 0 else 0.0
    return float(PENALTIES[best]), max(float(explained), 0.0)


def principal_components(moments: Moments, dim: int) -> np.ndarray:
    """The kernel that turns features into their first principal components (Pearson 1901), so that
    distances among centered features stay as well as they can.

    Args:
      moments: Moments, of which those of the features are read.
      dim: int, how many components.

    Returns:
      <float64>[f, dim], semi-orthogonal; columns of zeros beyond the features' number.
    """
    vectors = np.linalg.eigh(moments.feature)[1][:, ::-1][:, :dim]
    return np.pad(vectors, [(0, 0), (0, dim - vectors.shape[1])])


def cca(moments: Moments, *, l2: float) -> np.ndarray:
    """The kernel that predicts the target through canonical variates (Hotelling 1936).

    Features, standardized and with `l2` added to their variance (the canonical ridge, Vinod 1976),
    and target are turned into pairs of variates, each pair as correlated as can be and with
    nothing in common with the others. Each feature variate predicts its partner, and the partners
    are turned back into the target's space, where all modalities can be compared.

    A pair of correlation c counts c^2 / (c^2 + (1 - c^2) * share), where the share is the
    effective number of features for each item (Breiman and Friedman 1997): chance alone correlates
    some variates where items are few. Without that factor the kernel would be that of `ridge`,
    which it approaches with more items.

    Args:
      moments: Moments.
      l2: float, at least 0, in units of a feature's variance.

    Returns:
      <float64>[f, dim], for features as they are.
    """
    scale = _scale(moments)
    correlation = moments.feature / scale[:, None] / scale
    whiten = _power(correlation, -0.5, l2)
    whiten_target = _power(moments.target, -0.5)
    among = whiten @ (moments.cross / scale[:, None]) @ whiten_target
    left, canonical, right = np.linalg.svd(among, full_matrices=False)
    share = np.sum(whiten @ whiten * correlation) / moments.num_items
    square = canonical**2
    doubtful = np.maximum(1 - square, 0) * share
    # A correlation of 0 with nothing to doubt counts nothing.
    counts = square / np.maximum(square + doubtful, np.finfo(np.float64).tiny)
    standard = whiten @ (left * canonical * counts) @ right @ _power(moments.target, 0.5)
    return standard / scale[:, None]


def procrustes(moments: Moments, *, l2: float) -> np.ndarray:
    """The rotation of the centered features that brings them nearest to the target (Schönemann
    1966), times the one scale that fits best (Schönemann and Carroll 1970).

    Where the widths differ, the kernel over its scale is semi-orthogonal: its rows are, or its
    columns are, orthonormal. The features' units are kept, as a rotation keeps distances.
    Directions of which the items say nothing, as there are where they are fewer than the smaller
    width, are completed to a rotation in an arbitrary way.

    Args:
      moments: Moments.
      l2: unused; a rotation has nothing to shrink.

    Returns:
      <float64>[f, dim]; zeros where the features are the same everywhere.
    """
    left, singular, right = np.linalg.svd(moments.cross, full_matrices=False)
    rotation = left @ right
    variance = np.sum(moments.feature @ rotation * rotation)
    return rotation * (singular.sum() / variance if variance > 0 else 0.0)


CLOSED_FORMS: dict[str, Callable[..., np.ndarray]] = {
    "ridge": ridge,
    "cca": cca,
    "procrustes": procrustes,
}


def _scale(moments: Moments) -> np.ndarray:
    """<float64>[f]: standard deviations; infinite, which makes a coefficient 0, for a feature that
    varies by no more than float32 rounds."""
    deviation = np.sqrt(np.diag(moments.feature))
    return np.where(deviation > 1e-6 * np.abs(moments.feature_mean), deviation, np.inf)


def _power(matrix: np.ndarray, power: float, l2: float = 0.0) -> np.ndarray:
    """A power of a symmetric matrix with no negative eigenvalues, plus `l2` on its diagonal.
    Directions without variance stay without: a pseudo-inverse at -1."""
    values, vectors = np.linalg.eigh(matrix)
    real = values > SMALLEST_VARIANCE * values.max(initial=0.0)
    raised = np.where(real, np.where(real, values + l2, 1.0) ** power, 0.0)
    return (vectors * raised) @ vectors.T
