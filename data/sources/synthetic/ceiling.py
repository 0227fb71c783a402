"""The best that any recommender can reach in a world whose truth is known."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.evaluation.metrics import auc, log_loss

KS = (5, 10, 20, 50)


class Block(NamedTuple):
    """Some users of a world.

    Attributes:
      score: <float64>[user, item], what to rank by.
      known: <bool>[user, item], the train items, left out of the ranking.
      relevant: <bool>[user, item], the items to be found.
    """

    score: NDArray[Any]
    known: NDArray[Any]
    relevant: NDArray[Any]


class Outcomes(NamedTuple):
    """What came of some interactions.

    Attributes:
      liked: <bool>[interaction].
      probability: <float64>[interaction], how probable that was, above 0 and below 1.
    """

    liked: NDArray[Any]
    probability: NDArray[Any]


def measure(blocks: Iterable[Block], ks: Sequence[int] = KS) -> dict[str, float]:
    """Ranks every item for every user and averages over the users with anything to find.

    Recall@k is the share of a user's relevant items among the first k; NDCG@k has binary gains
    and the ideal order of min(k, relevant) items. Ties go to the lower item number.

    Returns:
      `users`, and `recall@k` and `ndcg@k` for each k.
    """
    sums = {f"{metric}@{k}": 0.0 for k in ks for metric in ("recall", "ndcg")}
    users = 0
    for block in blocks:
        some = block.relevant.any(axis=1)
        score = np.where(block.known, -np.inf, block.score)[some]
        relevant = block.relevant[some]
        users += len(score)
        first = np.argsort(-score, axis=1, kind="stable")[:, : max(ks)]
        hit = np.take_along_axis(relevant, first, axis=1)
        discount = 1 / np.log2(np.arange(max(ks, default=0)) + 2)
        number = relevant.sum(axis=1)
        for k in ks:
            ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(number, k)]
            found = hit[:, :k]
            sums[f"recall@{k}"] += float((found.sum(axis=1) / number).sum())
            sums[f"ndcg@{k}"] += float(((found @ discount[: found.shape[1]]) / ideal).sum())
    means = {name: value / max(users, 1) for name, value in sums.items()}
    return {"users": users, **means}


def tell_apart(outcomes: Outcomes) -> dict[str, float]:
    """How well the probabilities tell what is liked from what is not.

    AUC is how often of one that is liked and one that is not, drawn at random, the former has the
    higher probability; a tie counts half (Hanley and McNeil 1982). The logarithmic loss is the
    mean of -log of the probability of what came, in nats.

    Returns:
      `auc`, left out where all are liked or none is, and `log_loss`; nothing of no interactions.
    """
    liked, probability = outcomes
    if not len(liked):
        return {}
    found = {"log_loss": log_loss(liked, probability)}
    if liked.all() or not liked.any():
        return found
    return {"auc": auc(liked, probability), **found}
