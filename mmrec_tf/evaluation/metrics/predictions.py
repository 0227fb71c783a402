"""Predictions of single examples: whether a user chose an item, or how it was rated."""

import numpy as np

from mmrec_tf.errors import RunError


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half.

    Computed from ranks (Mann and Whitney 1947; Hanley and McNeil 1982).

    Args:
      labels: <bool or 0/1>[example].
      scores: <float>[example], any scale.

    Raises:
      RunError: for a score that is not finite.
      ValueError: unless there are both a positive and a negative.
    """
    areas, _ = _group_auc(labels, scores, np.zeros(len(labels), np.int64))
    if len(areas) == 0:
        raise ValueError("labels: wanted both a positive and a negative.")
    return float(areas[0])


def gauc(labels: np.ndarray, scores: np.ndarray, *, groups: np.ndarray) -> float:
    """AUC within each group, mostly a user, averaged with the group's number of examples.

    Equation 7 of Zhou et al. 2018 (Deep Interest Network). Groups of one class say nothing about
    order and are left out; `num_mixed` tells how many are not.

    Args:
      labels: <bool or 0/1>[example].
      scores: <float>[example], any scale.
      groups: <int>[example].

    Raises:
      RunError: for a score that is not finite.
      ValueError: unless some group has both a positive and a negative.
    """
    areas, sizes = _group_auc(labels, scores, groups)
    if len(areas) == 0:
        raise ValueError("groups: wanted one with both a positive and a negative.")
    return float(np.average(areas, weights=sizes))


def num_mixed(labels: np.ndarray, *, groups: np.ndarray) -> int:
    """How many groups have both a positive and a negative, so that `gauc` counts them.

    Args:
      labels: <bool or 0/1>[example].
      groups: <int>[example].
    """
    return len(_group_auc(labels, np.zeros(len(labels)), groups)[0])


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean negative log likelihood of 0/1 labels, in nats.

    Args:
      labels: <bool or 0/1>[example].
      probabilities: <float>[example] of label 1; kept 1e-7 away from 0 and 1, so that one sure
        mistake does not make the mean infinite.

    Raises:
      RunError: for a probability that is not finite.
      ValueError: without examples, or for values out of range.
    """
    labels, probabilities = _checked(labels, probabilities)
    sure = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return float(-np.mean(labels * np.log(sure) + (1 - labels) * np.log1p(-sure)))


def threshold_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float = 0.5
) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of calling an example positive from a probability on.

    With `hits` the positives that are called so:

    - `accuracy` = the share of examples that are called what they are;
    - `precision` = hits / examples called positive, 0 where none is;
    - `recall` = hits / positives, 0 where there is none;
    - `f1` = 2 hits / (examples called positive + positives), the harmonic mean of these two
      (van Rijsbergen 1979); 0 where there is neither.

    Args:
      labels: <bool or 0/1>[example].
      probabilities: <float>[example] of label 1.
      threshold: the least probability that is called positive.

    Raises:
      RunError: for a probability that is not finite.
      ValueError: without examples, or for values out of range.
    """
    labels, probabilities = _checked(labels, probabilities)
    called = probabilities >= threshold
    hits, num_called, num_positive = labels[called].sum(), called.sum(), labels.sum()
    return {
        "accuracy": float(np.mean(called == labels)),
        "precision": float(hits / max(num_called, 1)),
        "recall": float(hits / max(num_positive, 1)),
        "f1": float(2 * hits / max(num_called + num_positive, 1)),
    }


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the highest F1, of the probabilities that occur; of equal ones the lowest.

    Args:
      labels: <bool or 0/1>[example].
      probabilities: <float>[example] of label 1.

    Returns:
      What `threshold_metrics` takes: from this probability on an example is called positive.

    Raises:
      RunError: for a probability that is not finite.
      ValueError: without a positive, as every F1 is 0 then, or for values out of range.
    """
    labels, probabilities = _checked(labels, probabilities)
    if not labels.any():
        raise ValueError("labels: wanted at least one positive; got none.")
    thresholds, place = np.unique(probabilities, return_inverse=True)
    # From each threshold on: the sums of what stands there and above.
    num_called = np.cumsum(np.bincount(place)[::-1])[::-1]
    hits = np.cumsum(np.bincount(place, weights=labels)[::-1])[::-1]
    return float(thresholds[np.argmax(2 * hits / (num_called + labels.sum()))])


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 15, equal_mass: bool = False
) -> float:
    """How far probabilities are from the frequencies that they promise (ECE).

    Examples are put into bins by their probability. The error is the distance of a bin's mean
    probability from its share of positives, averaged over bins by their number of examples
    (Guo et al. 2017, equations 2 and 3, for the probability of label 1 in place of that of the
    likelier class).

    Args:
      labels: <bool or 0/1>[example].
      probabilities: <float>[example] of label 1.
      bins: how many there are.
      equal_mass: bins of equally many examples (Nguyen and O'Connor 2015), which tell
        probabilities apart that crowd in a corner, as those of clicks do near 0; equal ones share
        a bin. Otherwise bins are equally wide, with their upper end.

    Returns:
      0 for perfect calibration, up to 1.

    Raises:
      RunError: for a probability that is not finite.
      ValueError: without examples, or for values out of range.
    """
    labels, probabilities = _checked(labels, probabilities)
    if bins < 1:
        raise ValueError(f"bins: wanted at least 1; got {bins}.")
    if equal_mass:
        # By the middle of the places that equal probabilities take up in order, counted twice.
        ordered = np.sort(probabilities)
        twice = np.searchsorted(ordered, probabilities) + np.searchsorted(
            ordered, probabilities, side="right"
        )
        place = twice * bins // (2 * len(labels))
    else:
        place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    return float(np.abs(np.bincount(place, weights=probabilities - labels)).sum() / len(labels))


def rmse(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The root of the mean squared difference.

    Args:
      labels: <float>[example].
      predictions: <float>[example].

    Raises:
      RunError: for a prediction that is not finite.
      ValueError: without examples.
    """
    labels, predictions = _paired(labels, predictions)
    return float(np.sqrt(np.mean((labels - predictions) ** 2)))


def _paired(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as <float64>[example], of which there is at least one."""
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            "labels, predictions: wanted one of each for every example, and at least one; "
            f"got {labels.shape} and {predictions.shape}."
        )
    if not np.isfinite(predictions).all():
        at = int(np.argmin(np.isfinite(predictions)))
        raise RunError(
            f"predictions: wanted finite numbers; got {predictions[at]}, so the model diverged. "
            "Lower training.learning_rate, or set training.clip_norm."
        )
    return labels, predictions


def _binary(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_paired`, with labels of 0 and 1."""
    labels, scores = _paired(labels, scores)
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError(f"labels: wanted 0 or 1; got {labels.min():g} to {labels.max():g}.")
    return labels, scores


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_binary`, with probabilities."""
    labels, probabilities = _binary(labels, probabilities)
    low, high = probabilities.min(), probabilities.max()
    if low < 0 or high > 1:
        raise ValueError(f"probabilities: wanted 0 to 1; got {low:g} to {high:g}.")
    return labels, probabilities


def _group_auc(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC <float64>[group] and number of examples <int64>[group], groups of one class left out."""
    labels, scores = _binary(labels, scores)
    groups = np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.lexsort((scores, groups))
    labels, scores, groups = labels[order], scores[order], groups[order]

    # Equal scores of one group share the mean of the ranks that they take up.
    starts = (np.diff(groups, prepend=-1) != 0) | (np.diff(scores, prepend=np.nan) != 0)
    run = np.cumsum(starts) - 1
    lengths = np.bincount(run)
    last = np.cumsum(lengths)
    ranks = (last - (lengths - 1) / 2)[run] - np.searchsorted(groups, groups)

    sizes = np.bincount(groups)
    positives = np.bincount(groups, weights=labels)
    negatives = sizes - positives
    mixed = (positives > 0) & (negatives > 0)
    wins = np.bincount(groups, weights=ranks * labels) - positives * (positives + 1) / 2
    return wins[mixed] / (positives * negatives)[mixed], sizes[mixed]
