"""How good a ranking is, in NumPy alone: metrics of retrieval at a cut-off, metrics of ranking,
what is recommended beside accuracy, and whether a difference is more than chance.

top = top_k(scores, 20, exclude=(seen_rows, seen_columns))
per_user = retrieval_metrics(top, relevant, ks=(10, 20))
mean_metrics(per_user)  # {"recall@10": 0.31, ...}
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import RunError

# Numbers drawn, and rows of vectors compared, at a time: some tens of megabytes.
RESAMPLED = 4_000_000
COMPARED = 4096

Relevant = Sequence[np.ndarray] | tuple[np.ndarray, np.ndarray]


class Difference(NamedTuple):
    """How far two rankings are apart: a mean over users, and the bounds of its interval."""

    mean: float
    low: float
    high: float


class ItemVectors(NamedTuple):
    """What items are compared by.

    Attributes:
      values: by modality, <float32>[item, dim].
      present: <bool>[item, modality], columns in the order of `values`.
    """

    values: Mapping[str, np.ndarray]
    present: np.ndarray

    def similarity(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How alike items are: the cosine of their vectors, the mean over what both have.

        Args:
          items: <int>[..., n] numbers of items.

        Returns:
          <float32>[..., n, n], 0 where two items share no modality; and whether they share one,
          <bool>[..., n, n].
        """
        cosine = np.zeros([*items.shape, items.shape[-1]], np.float32)
        shared = np.zeros(cosine.shape, np.float32)
        for values, present in zip(self.values.values(), self.present.T, strict=True):
            rows = np.asarray(values[items], np.float32) * present[items][..., None]
            # The zeros of an item without the modality, or of an all-black picture, stay zeros.
            rows /= np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
            cosine += rows @ rows.swapaxes(-1, -2)
            has = present[items].astype(np.float32)
            shared += has[..., :, None] * has[..., None, :]
        cosine /= np.maximum(shared, 1)
        return cosine, shared > 0


def top_k(
    scores: np.ndarray, k: int, *, exclude: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """The k best items of each user, best first; of equal scores the lower item number first.

    Args:
      scores: <float32>[user, item]; an item at minus infinity is never returned.
      k: how many items; may exceed the catalog.
      exclude: (rows, columns), each <int>[pair]: pairs that must not be returned.

    Returns:
      <int32>[user, k] item numbers; -1 behind the last one where fewer than k remain.

    Raises:
      RunError: for a score that is not a number, the mark of a model that diverged.
      ValueError: for scores of another rank, or k below 1.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores: wanted [user, item]; got shape {scores.shape}.")
    if k < 1:
        raise ValueError(f"k: wanted at least 1; got {k}.")
    num_users, num_items = scores.shape
    top = np.full((num_users, k), -1, np.int32)
    if not scores.size:
        return top
    diverged = False
    if exclude is not None:
        # An excluded score tells of it too.
        diverged = np.isnan(scores[exclude]).any()
        scores = scores.copy()
        scores[exclude] = -np.inf
    # Item n is in group n modulo their number: so many that there are about as many items in k
    # groups as there are groups, and either is a small part of all items.
    num_groups = min(num_items, math.isqrt(k * num_items) + 1)
    whole = num_items - num_items % num_groups
    inner = scores[:, :whole].reshape(num_users, -1, num_groups)
    rest = scores[:, whole:]
    # A pass at the speed of memory, where selecting among all items takes ten times as long.
    best = inner.max(axis=1)
    np.maximum(best[:, : rest.shape[1]], rest, out=best[:, : rest.shape[1]])
    if diverged or np.isnan(best).any():
        raise RunError(
            "scores: wanted numbers; got NaN, so the model diverged. "
            "Lower training.learning_rate, or set training.clip_norm."
        )
    # k groups reach the k-th highest of their bests, so k items do: none below it is among the k.
    bound = np.full(num_users, -np.inf, best.dtype)
    if k < num_groups:
        bound = np.partition(best, num_groups - k, axis=1)[:, num_groups - k]
    rows, groups = np.nonzero((best >= bound[:, None]) & (best > -np.inf))
    values = np.full((len(rows), inner.shape[1] + 1), -np.inf, best.dtype)
    values[:, :-1] = inner[rows, :, groups]
    longer = groups < rest.shape[1]
    values[longer, -1] = rest[rows[longer], groups[longer]]
    at, place = np.nonzero((values >= bound[rows][:, None]) & (values > -np.inf))
    rows, columns, values = rows[at], groups[at] + place * num_groups, values[at, place]
    order = np.lexsort((columns, -values, rows))
    rows, columns = rows[order], columns[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = ranks < k
    top[rows[kept], ranks[kept]] = columns[kept]
    return top


def retrieval_metrics(
    top: np.ndarray, relevant: Relevant, *, ks: Iterable[int]
) -> dict[str, np.ndarray]:
    """Recall, precision, NDCG, MRR and hit rate of each user at each cut-off.

    With `hits` the relevant items among a user's first k, and `rank` counted from 1:

    - `recall@k` = hits / number of relevant items;
    - `precision@k` = hits / k, also where the catalog holds fewer than k;
    - `ndcg@k` = DCG / ideal DCG with gains of 0 and 1: the sum of 1 / log2(rank + 1) over the
      hits, divided by the same sum over ranks 1 to min(number of relevant items, k)
      (Järvelin and Kekäläinen 2002, with the discount of Burges et al. 2005);
    - `mrr@k` = 1 / rank of the first hit, 0 without one (Voorhees 1999);
    - `hit_rate@k` = 1 where there is a hit, else 0.

    Args:
      top: <int>[user, k_max] item numbers, best first, each at most once; -1 for none.
      relevant: the items that each user did choose, at least one a user: a list with one
        <int>[item] a user, or a tuple (offsets <int>[user + 1], items <int>[pair]) in which
        user u has `items[offsets[u]:offsets[u + 1]]`. An item named twice counts once.
      ks: cut-offs, each at most k_max.

    Returns:
      By name such as "recall@10": <float64>[user].

    Raises:
      ValueError: for a user without a relevant item, a cut-off beyond `top`, or sizes that differ.
    """
    top = np.asarray(top)
    if top.ndim != 2:
        raise ValueError(f"top: wanted [user, k]; got shape {top.shape}.")
    num_users, k_max = top.shape
    users, items = _pairs(relevant, num_users)
    hits = _hits(top, users, items)
    num_relevant = np.bincount(users, minlength=num_users)
    discounts = 1.0 / np.log2(np.arange(2, k_max + 2))
    ideal = np.cumsum(discounts)

    metrics: dict[str, np.ndarray] = {}
    for k in ks:
        if not 1 <= k <= k_max:
            raise ValueError(f"ks: wanted 1 to {k_max}, the columns of top; got {k}.")
        first = hits[:, :k]
        num_hits = first.sum(axis=1)
        hit = num_hits > 0
        metrics[f"recall@{k}"] = num_hits / num_relevant
        metrics[f"precision@{k}"] = num_hits / k
        metrics[f"ndcg@{k}"] = first @ discounts[:k] / ideal[np.minimum(num_relevant, k) - 1]
        metrics[f"mrr@{k}"] = np.where(hit, 1.0 / (1 + first.argmax(axis=1)), 0.0)
        metrics[f"hit_rate@{k}"] = hit.astype(np.float64)
    return metrics


def mean_metrics(per_user: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric over users, every user with the same weight.

    Raises:
      ValueError: where there are no users.
    """
    for name, values in per_user.items():
        if len(values) == 0:
            raise ValueError(f"{name}: wanted at least one user; got none.")
    return {name: float(np.mean(values)) for name, values in per_user.items()}


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


def coverage(top: np.ndarray, *, num_items: int) -> float:
    """The share of the catalog that is recommended to anyone.

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      num_items: of the catalog.
    """
    return float((_exposure(top, num_items) > 0).mean())


def gini(top: np.ndarray, *, num_items: int) -> float:
    """How unequally items are recommended (Gini 1912): 0 all equally often, toward 1 a single one.

    With x the number of recommendations of each of n items in ascending order, it is the sum of
    (2 i - n - 1) x_i over i from 1, divided by n times the sum of x; 0 where x is 0 throughout.

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      num_items: of the catalog.
    """
    exposure = np.sort(_exposure(top, num_items))
    rank = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((rank * exposure).sum() / max(num_items * exposure.sum(), 1))


def novelty(top: np.ndarray, *, probability: np.ndarray) -> float:
    """The mean self-information of what is recommended, in bits (Castells et al. 2015).

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      probability: <float>[item], share of the train interactions, above 0.

    Returns:
      The mean of -log2(probability) over all places; 0 where nothing is recommended.
    """
    items = top[top >= 0]
    return float(-np.log2(probability[items].astype(np.float64)).mean()) if len(items) else 0.0


def diversity(top: np.ndarray, *, vectors: ItemVectors) -> float | None:
    """How different a user's items are: the mean of 1 - cosine over pairs (Ziegler et al. 2005).

    Args:
      top: <int>[user, k] item numbers; -1 for none.
      vectors: ItemVectors; pairs that share no modality do not count.

    Returns:
      The mean over pairs, then over users with a pair; None where nobody has one.
    """
    block = max(COMPARED // max(top.shape[1], 1), 1)
    means = []
    for start in range(0, len(top), block):
        some = top[start : start + block]
        cosine, comparable = vectors.similarity(np.maximum(some, 0))
        known = some >= 0
        comparable &= known[:, :, None] & known[:, None, :] & ~np.eye(some.shape[1], dtype=bool)
        count = comparable.sum(axis=(1, 2))
        total = ((1 - cosine) * comparable).sum(axis=(1, 2), dtype=np.float64)
        means.append(total[count > 0] / count[count > 0])
    found = np.concatenate(means) if means else np.zeros(0)
    return float(found.mean()) if len(found) else None


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half.

    Computed from ranks (Mann and Whitney 1947; Hanley and McNeil 1982).

    Args:
      labels: <bool or 0/1>[example].
      scores: <float>[example], any scale.

    Raises:
      ValueError: unless there are both a positive and a negative.
    """
    areas, _ = _group_auc(labels, scores, np.zeros(len(labels), np.int64))
    if len(areas) == 0:
        raise ValueError("labels: wanted both a positive and a negative.")
    return float(areas[0])


def gauc(labels: np.ndarray, scores: np.ndarray, *, groups: np.ndarray) -> float:
    """AUC within each group, mostly a user, averaged with the group's number of examples.

    Equation 7 of Zhou et al. 2018 (Deep Interest Network). Groups of one class say nothing about
    order and are left out.

    Args:
      labels: <bool or 0/1>[example].
      scores: <float>[example], any scale.
      groups: <int>[example].

    Raises:
      ValueError: unless some group has both a positive and a negative.
    """
    areas, sizes = _group_auc(labels, scores, groups)
    if len(areas) == 0:
        raise ValueError("groups: wanted one with both a positive and a negative.")
    return float(np.average(areas, weights=sizes))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean negative log likelihood of 0/1 labels, in nats.

    Args:
      labels: <bool or 0/1>[example].
      probabilities: <float>[example] of label 1; kept 1e-7 away from 0 and 1, so that one sure
        mistake does not make the mean infinite.
    """
    labels = np.asarray(labels, np.float64)
    sure = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(labels * np.log(sure) + (1 - labels) * np.log1p(-sure)))


def rmse(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The root of the mean squared difference, both <float>[example]."""
    difference = np.asarray(labels, np.float64) - np.asarray(predictions, np.float64)
    return float(np.sqrt(np.mean(difference**2)))


def _exposure(top: np.ndarray, num_items: int) -> np.ndarray:
    """<int64>[item]: how often each item is recommended."""
    return np.bincount(top[top >= 0], minlength=num_items)


def _pairs(relevant: Relevant, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (user, item) pairs as two <int64>[pair], sorted by user, then item."""
    if isinstance(relevant, tuple):
        offsets, items = (np.asarray(part, np.int64) for part in relevant)
        sizes = np.diff(offsets)
        if len(offsets) != num_users + 1 or offsets[0] != 0 or offsets[-1] != len(items):
            raise ValueError(
                f"relevant: wanted {num_users + 1} offsets from 0 to {len(items)}; "
                f"got {len(offsets)} from {offsets[:1]} to {offsets[-1:]}."
            )
    else:
        if len(relevant) != num_users:
            raise ValueError(f"relevant: wanted {num_users} users as in top; got {len(relevant)}.")
        sizes = np.array([len(part) for part in relevant], np.int64)
        items = np.concatenate([np.asarray(part, np.int64) for part in relevant] or [sizes])
    if (sizes < 1).any():
        user = int(np.argmax(sizes < 1))
        raise ValueError(f"relevant: wanted at least one item a user; user {user} has none.")
    if len(items) and items.min() < 0:
        raise ValueError(f"relevant: wanted item numbers from 0; got {items.min()}.")
    users = np.repeat(np.arange(num_users), sizes)
    order = np.lexsort((items, users))
    users, items = users[order], items[order]
    again = (np.diff(users, prepend=-1) == 0) & (np.diff(items, prepend=-1) == 0)
    return users[~again], items[~again]


def _hits(top: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """<bool>[user, k]: whether that entry of `top` is among the user's pairs."""
    width = max(int(items.max(initial=-1)), int(top.max(initial=-1))) + 1
    known = users * width + items
    asked = np.arange(len(top))[:, None] * width + top.astype(np.int64)
    at = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
    # Without the second condition, -1 of user u would be read as the last item of user u - 1.
    return (known[at] == asked) & (top >= 0) if len(known) else np.zeros(top.shape, bool)


def _group_auc(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC <float64>[group] and number of examples <int64>[group], groups of one class left out."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
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
