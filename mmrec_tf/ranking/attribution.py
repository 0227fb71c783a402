"""What ranking's score of a candidate owes to each thing that it reads: integrated gradients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.recommender.ranked import Request

RETRIEVAL = "retrieval score"
# Completeness that is asked for, as a share of what is to be explained.
TOLERANCE = 0.01
_STEPS = (32, 128, 512, 2048)


class RankingAttribution(NamedTuple):
    """What a score of the ranking model is made of.

    Attributes:
      score: float, the model's.
      baseline: float, its score of a pair of which nothing is known: of zeros.
      values: by name what each adds; "retrieval score", "popularity", "user", "item" (its
        embedding), each modality, "item features", "user features", "history", "hour" and
        "weekday", those that the model reads. They sum to `score - baseline` but for `error`.
      history: <float64>[step], what is "history" by item, by target attention; none without it.
      steps: int, points of the path that it took.
      error: float, what the sum lacks.
    """

    score: float
    baseline: float
    values: dict[str, float]
    history: np.ndarray
    steps: int
    error: float


def integrated_gradients(
    model: RankingModel, request: Request, item: int, retrieved: float, *, items: dict | None = None
) -> RankingAttribution:
    """Integrated gradients (Sundararajan et al. 2017, eq. 1) of a score.

    They are taken on the path from zeros to the fields and numbers that the network reads, with
    the retrieval score, which also adds on its own, among them. Gauss-Legendre points stand for the
    integral; there are more of them until the sum is complete within `TOLERANCE`.

    Args:
      model: RankingModel.
      request: Request of one user.
      item: number of the candidate.
      retrieved: the retrieval model's score of it.
      items: as for `RankingModel.rank`; None for the model's own.

    Raises:
      RunError: where no number of points makes the sum complete.
    """
    number, score = tf.constant([[item]], tf.int32), tf.constant([[retrieved]], tf.float32)
    fields, dense, attention = model.gather_pairs(request, number, items or model.items, score)
    whole = [tf.cast(part, tf.float32) for part in (fields[0], dense[0], score[0][:, None])]

    def judge(parts: list[tf.Tensor]) -> tf.Tensor:
        """<float32>[point], of parts [point, ...] of as many candidates of one user."""
        one_user = [part[None] for part in parts]
        return model.score_pairs(one_user[0], one_user[1], one_user[2][..., 0]).score[0]

    first = float(judge(whole)[0])
    baseline = float(judge([tf.zeros_like(part) for part in whole])[0])
    wanted = first - baseline
    found: list[np.ndarray] = []
    error, steps = np.inf, 0
    for steps in _STEPS:
        found = _integral(judge, whole, steps)
        error = wanted - float(sum(part.sum() for part in found))
        if abs(error) <= 0.5 * TOLERANCE * max(abs(wanted), 1e-3):
            break
    else:
        if abs(error) > TOLERANCE * max(abs(wanted), 1e-3):
            raise RunError(
                f"integrated gradients: wanted a sum within {TOLERANCE:.0%} of {wanted:.4f}; "
                f"{steps} points leave {error:+.4f}. The network bends more often than that: "
                "train it with a lower learning rate, or explain retrieval alone."
            )
    names, numbers = model.pairs.labels(model.retrieval.modalities)
    values = {RETRIEVAL: float(found[2].sum())}
    for name, value in zip(names, found[0][0].sum(axis=-1).tolist(), strict=True):
        values[name] = values.get(name, 0.0) + value
    for name, value in zip(numbers, found[1][0].tolist(), strict=True):
        values[name] = values.get(name, 0.0) + value
    history = np.zeros([0])
    if "history" in names:
        history = values["history"] * np.asarray(attention, np.float64)[0, 0]
    return RankingAttribution(first, baseline, values, history, steps, error)


def _integral(
    judge: Callable[[list[tf.Tensor]], tf.Tensor], whole: list[tf.Tensor], steps: int
) -> list[np.ndarray]:
    """What each entry adds, in the shapes of `whole`."""
    place, weight = np.polynomial.legendre.leggauss(steps)
    place, weight = (place + 1) / 2, weight / 2
    sums = [np.zeros(part.shape) for part in whole]
    for start in range(0, steps, 256):
        some = slice(start, start + 256)
        scale = [
            tf.constant(place[some].reshape([-1] + [1] * (part.shape.rank - 1)), tf.float32)
            for part in whole
        ]
        points = [s * part for s, part in zip(scale, whole, strict=True)]
        with tf.GradientTape() as tape:
            tape.watch(points)
            total = judge(points)
        gradients = tape.gradient(total, points, unconnected_gradients="zero")
        for row, gradient in enumerate(gradients):
            sums[row] += np.einsum("p,p...->...", weight[some], np.asarray(gradient, np.float64))
    return [total * np.asarray(part, np.float64) for total, part in zip(sums, whole, strict=True)]
