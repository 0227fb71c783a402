"""Lists of recommended items: the first k, and how much of what a user chose is among them."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmrec_tf.errors import RunError

Relevant = Sequence[np.ndarray] | tuple[np.ndarray, np.ndarray]


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
    """Recall, precision, NDCG, MAP, MRR and hit rate of each user at each cut-off.

    With `hits` the relevant items among a user's first k, and `rank` counted from 1:

    - `recall@k` = hits / number of relevant items;
    - `precision@k` = hits / k, also where the catalog holds fewer than k;
    - `ndcg@k` = DCG / ideal DCG with gains of 0 and 1: the sum of 1 / log2(rank + 1) over the
      hits, divided by the same sum over ranks 1 to min(number of relevant items, k)
      (Järvelin and Kekäläinen 2002, with the discount of Burges et al. 2005);
    - `map@k` = the sum of precision@rank over the ranks of the hits, divided by
      min(number of relevant items, k), so that a perfect list has 1 (average precision, Manning et
      al. 2008, section 8.4, cut off at k; its mean over users is MAP);
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
    # The precision at each hit's rank; 0 elsewhere.
    precision = hits * np.cumsum(hits, axis=1) / np.arange(1, k_max + 1)

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
        metrics[f"map@{k}"] = precision[:, :k].sum(axis=1) / np.minimum(num_relevant, k)
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
