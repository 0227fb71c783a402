"""Two samples of vectors, and how probable their difference is by chance: permutation tests.

Under the hypothesis that both come from one source it is chance which row is of which sample. So
the labels are dealt out anew many times, and p is the share of the deals, the true one among them,
whose difference is at least as large (Good 2005; Phipson and Smyth 2010 for the one that is added).
"""

from typing import NamedTuple

import numpy as np

NUM_DEALS = 4999
# Rows of a kernel of all rows with all that are compared at most, of both samples together.
MOST_ROWS = 800
# Beyond, rows are projected to their main directions, which chance does not depend on.
_MOST_DIM = 24


class Found(NamedTuple):
    """A difference.

    Attributes:
      value: float, its size.
      p: float, by chance.
    """

    value: float
    p: float


def deals(first: int, second: int, rng: np.random.Generator) -> np.ndarray:
    """Labels dealt out anew, the true ones first: <bool>[1 + NUM_DEALS, row], True for a row of
    the first sample."""
    total = first + second
    label = np.zeros([1 + NUM_DEALS, total], bool)
    order = np.argsort(rng.random([NUM_DEALS, total], np.float32), axis=1)
    label[1:] = order < first
    label[0, :first] = True
    return label


def p_value(values: np.ndarray) -> Found:
    """The first of the values, and the share of all that are at least as large."""
    values = np.asarray(values, np.float64)
    # Rounding makes equal ones differ.
    slack = 1e-9 * max(float(np.abs(values).max(initial=0.0)), 1e-12)
    return Found(float(values[0]), float((values >= values[0] - slack).mean()))


def whiten(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Both samples, one after the other, around their common mean, of common spread 1, and in
    their main directions where they have many: <float64>[row, at most 24]."""
    both = np.concatenate([first, second]).astype(np.float64)
    both -= both.mean(axis=0)
    if both.shape[1] > _MOST_DIM:
        _, _, directions = np.linalg.svd(both, full_matrices=False)
        both = both @ directions[:_MOST_DIM].T
    spread = np.sqrt(np.square(both).sum(axis=1).mean())
    return both / max(float(spread), 1e-12)


def mean_shift(both: np.ndarray, label: np.ndarray) -> Found:
    """The distance of the means, as a share of the spread of all.

    Args:
      both: as `whiten` returns it.
      label: as `deals` returns it.
    """
    share = _weights(label)
    return p_value(np.linalg.norm(share @ both, axis=1))


def covariance_shift(both: np.ndarray, label: np.ndarray) -> Found:
    """The distance of the covariances (Frobenius norm), as a share of the norm of that of all.

    Each around the common mean, so that deals are one product of matrices; a shift of the mean is
    in it, too.
    """
    row, column = np.triu_indices(both.shape[1])
    # What stands on both sides of the diagonal counts twice.
    products = both[:, row] * both[:, column] * np.where(row == column, 1.0, np.sqrt(2.0))
    whole = np.linalg.norm(products.mean(axis=0))
    return p_value(np.linalg.norm(_weights(label) @ products, axis=1) / max(float(whole), 1e-12))


def kernel(both: np.ndarray) -> np.ndarray:
    """A Gaussian kernel of all rows with all, of the median distance: <float64>[row, row]."""
    square = np.square(both).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None, :] - 2.0 * both @ both.T, 0.0)
    median = np.median(distance[np.triu_indices(len(both), 1)])
    return np.exp(-distance / max(float(median), 1e-12))


def discrepancy(kernel: np.ndarray, label: np.ndarray) -> Found:
    """The maximum mean discrepancy, squared, without bias (Gretton et al. 2012, eq. 3).

    Args:
      kernel: <float>[row, row], of all rows of both samples.
      label: as `deals` returns it.
    """
    off = np.asarray(kernel - np.diag(np.diag(kernel)), np.float32)
    first = label.astype(np.float32)
    m, n = float(label[0].sum()), float((~label[0]).sum())
    # What the second sample adds follows from what all rows add, which saves two products.
    of_all = first @ off.sum(axis=1)
    within = np.einsum("dr,dr->d", first @ off, first)
    rest = float(off.sum()) - 2.0 * of_all + within
    # Products with oneself are left out within a sample, and are none between two.
    values = within / (m * (m - 1)) + rest / (n * (n - 1)) - 2.0 * (of_all - within) / (m * n)
    return p_value(values)


def difference(values: np.ndarray, label: np.ndarray) -> Found:
    """The absolute difference of the means of single numbers, <float>[row]."""
    return p_value(np.abs(_weights(label) @ np.asarray(values, np.float64)))


def total_variation(count: np.ndarray, label: np.ndarray) -> Found:
    """Half the sum of the absolute differences of shares: 0 for equal ones, 1 for disjoint.

    Args:
      count: <float>[row, kind], how often each row, a user, met each kind.
      label: as `deals` returns it.
    """
    count = np.asarray(count, np.float32)
    first = label.astype(np.float32) @ count
    second = count.sum(axis=0)[None] - first
    first /= np.maximum(first.sum(axis=1, keepdims=True), 1e-12)
    second /= np.maximum(second.sum(axis=1, keepdims=True), 1e-12)
    return p_value(np.abs(first - second).sum(axis=1) / 2)


def _weights(label: np.ndarray) -> np.ndarray:
    """What a row counts in the mean of the first sample minus that of the second."""
    first = label / label[0].sum()
    return first - ~label / (~label[0]).sum()
