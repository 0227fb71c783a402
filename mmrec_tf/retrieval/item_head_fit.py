"""How much the head counts beside the towers, by the length of the history: fitted to valid."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.config import ItemHeadConfig
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import RunError
from mmrec_tf.evaluation.evaluate import relevant_items
from mmrec_tf.evaluation.metrics import retrieval_metrics, top_k
from mmrec_tf.retrieval.item_head import LENGTHS, ItemHead

# Fewer users of valid than these fit no weight of their own.
FEWEST = 100
# Weights that are tried, relative to how much more towers' scores differ than the head's: first
# these, then what lies between the best and its neighbors.
COARSE = tuple(2.0**power for power in range(-6, 7))
FINE = (2.0**-0.5, 2.0**0.5)


class Scored(NamedTuple):
    """Scores of all items for some users.

    Attributes:
      block: slice, which users.
      towers: <float32>[user, item].
      head: likewise, of the head; None without one.
      met: pairs that are known, as (row, item), each <int>[pair].
    """

    block: slice
    towers: np.ndarray
    head: np.ndarray | None
    met: tuple[np.ndarray, np.ndarray]

    @property
    def of_head(self) -> np.ndarray:
        """<float32>[user, item], zeros without a head."""
        return np.zeros_like(self.towers) if self.head is None else self.head

    def total(self) -> np.ndarray:
        """The sum, in place of `towers`."""
        return self.towers if self.head is None else np.add(self.towers, self.head, self.towers)


class Bucket(NamedTuple):
    """Users whose histories are about as long.

    Attributes:
      least: int, how many items the shortest history has.
      users: int, of valid.
      weight: float, of the head; 0 for none.
      without, with_head: the metric on valid of the towers alone, and of both.
    """

    least: int
    users: int
    weight: float
    without: float
    with_head: float


class ItemHeadFit(NamedTuple):
    """What was found when a head was fitted.

    Attributes:
      kind: str, `item_head.kind`.
      monitor: str, the metric.
      buckets: Buckets, shortest histories first.
      without, with_head: the metric over all users of valid.
      num_linked: int, items that have neighbors.
      neighborhood: int, `item_head.neighborhood`; above 0 the fit is an approximation.
      left_out: int, items that were met too rarely to be fitted.
    """

    kind: str
    monitor: str
    buckets: tuple[Bucket, ...]
    without: float
    with_head: float
    num_linked: int
    neighborhood: int
    left_out: int

    @property
    def used(self) -> bool:
        """Whether any weight is above 0."""
        return any(bucket.weight > 0 for bucket in self.buckets)

    def scale(self) -> np.ndarray:
        """<float32>[len(LENGTHS)], for `ItemHead.scale`."""
        starts = [bucket.least for bucket in self.buckets]
        place = np.maximum(np.searchsorted(starts, LENGTHS, side="right") - 1, 0)
        return np.array([self.buckets[at].weight for at in place], np.float32)

    def __str__(self) -> str:
        if not self.used:
            return (
                f"item head ({self.kind}): no weight beats the towers alone on valid "
                f"({self.monitor} {self.without:.4f}), so it is left out."
            )
        weights = ", ".join(f"{bucket.weight:.3g} from {bucket.least}" for bucket in self.buckets)
        return (
            f"item head ({self.kind}): {self.monitor} on valid {self.without:.4f} -> "
            f"{self.with_head:.4f}; weights by items in the history: {weights}."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, lists and scalars."""
        found = self._asdict()
        found["buckets"] = [bucket._asdict() for bucket in self.buckets]
        return json.loads(json.dumps(found))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ItemHeadFit":
        """Reads what `to_json` wrote.

        Raises:
          RunError: for anything else.
        """
        try:
            buckets = tuple(Bucket(**bucket) for bucket in value["buckets"])
            found = cls(**{**value, "buckets": buckets})
            weights = [float(bucket.weight) for bucket in buckets]
            whole = len(weights) > 0 and all(0 <= weight < np.inf for weight in weights)
            starts = [bucket.least for bucket in buckets]
            whole = whole and starts == sorted(set(starts)) and set(starts) <= set(LENGTHS)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"item head: wanted its kind and buckets; {error}. Train again."
            ) from error
        if not whole:
            raise RunError(
                "item head: wanted finite weights of at least 0, by rising lengths of history; got "
                f"{weights} from {starts}. Train again."
            )
        return found


def choose_weights(
    measure: Callable[[Sequence[float]], np.ndarray], num_past: np.ndarray, ratio: float
) -> list[Bucket]:
    """The weight of the head for histories of each length that is best on valid.

    As the mean over users is one over buckets of users, no choice makes the whole worse than the
    towers alone are: of those is a weight of 0, which wins where none is better.

    Args:
      measure: the metric of each user <float64>[weight, user] under some weights.
      num_past: <int>[user], items in the history.
      ratio: how much more the towers' scores differ than the head's.

    Returns:
      Buckets, shortest histories first.
    """
    place = _buckets(num_past)
    starts = np.unique(place)
    weights = [0.0, *(ratio * factor for factor in COARSE if ratio > 0)]
    values = measure(weights)

    def best() -> list[int]:
        means = [values[:, place == start].mean(axis=1) for start in starts]
        # Of equal ones the lower weight.
        order = np.argsort(weights, kind="stable")
        return [int(order[np.argmax(mean[order])]) for mean in means]

    near = {weights[at] * factor for at in best() if weights[at] > 0 for factor in FINE}
    near -= set(weights)
    if near:
        more = sorted(near)
        weights, values = weights + more, np.concatenate([values, measure(more)])
    return [
        Bucket(
            least=int(start),
            users=int((place == start).sum()),
            weight=float(np.float32(weights[at])),
            without=float(values[0, place == start].mean()),
            with_head=float(values[at, place == start].mean()),
        )
        for start, at in zip(starts, best(), strict=True)
    ]


def _buckets(num_past: np.ndarray) -> np.ndarray:
    """Where each user's bucket begins, <int64>[user]: `LENGTHS`, or fewer, so that each bucket has
    `FEWEST` users if all together do."""
    at = np.maximum(np.searchsorted(LENGTHS, num_past, side="right") - 1, 0)
    count = np.bincount(at, minlength=len(LENGTHS))
    kept = [0]
    for bucket in range(1, len(LENGTHS)):
        # The one before is full, and so is what begins here.
        if count[kept[-1] : bucket].sum() >= FEWEST and count[bucket:].sum() >= FEWEST:
            kept.append(bucket)
    place = np.searchsorted(kept, at, side="right") - 1
    return np.array(LENGTHS)[np.array(kept)[place]]


def spread_ratio(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """How much more one score differs between items than another, both <float32>[user, item]: the
    ratio of their mean standard deviations over items; 0 where the second never does."""
    sums = np.zeros(2)
    for first, second in parts:
        moves = second.std(axis=1) > 0
        sums += [first[moves].std(axis=1).sum(), second[moves].std(axis=1).sum()]
    return float(sums[0] / sums[1]) if sums[1] > 0 else 0.0


def fit_weights(
    head: ItemHead,
    dataset: Dataset,
    scored: Callable[[np.ndarray], Iterator[Scored]],
    *,
    liked: Histories,
    settings: ItemHeadConfig,
    monitor: str,
) -> ItemHeadFit:
    """Fits the head's weights to valid.

    Args:
      head: of weight 1.
      dataset: Dataset.
      scored: users <int>[n] to the towers' and the head's scores of all items, in blocks.
      liked: what histories hold.
      settings: ItemHeadConfig, which `head` was made by.
      monitor: the metric, such as "ndcg@10".

    Raises:
      DatasetError: where valid is empty.
    """
    k = int(monitor.partition("@")[2])
    users, (offset, relevant) = relevant_items(dataset, "valid")
    sizes = np.diff(offset)

    def measure(weights: Sequence[float]) -> np.ndarray:
        found: list[list[np.ndarray]] = [[] for _ in weights]
        for part in scored(users):
            first, last = offset[part.block.start], offset[part.block.stop]
            within = np.concatenate([[0], np.cumsum(sizes[part.block])])
            some = (within, relevant[first:last])
            for values, weight in zip(found, weights, strict=True):
                # As `ItemHead` itself rounds.
                total = part.towers + np.float32(weight) * part.of_head
                top = top_k(total, k, exclude=part.met)
                values.append(retrieval_metrics(top, some, ks=[k])[monitor])
        return np.stack([np.concatenate(values) for values in found])

    ratio = spread_ratio((part.towers, part.of_head) for part in scored(users))
    num_past = np.array([len(np.unique(liked.of(user))) for user in users])
    buckets = choose_weights(measure, num_past, ratio)
    share = np.array([bucket.users for bucket in buckets]) / len(users)
    left_out = 0
    if settings.kind != "content":
        count = np.bincount(liked.item, minlength=dataset.schema.num_items)
        left_out = int((count < settings.min_count).sum())
    return ItemHeadFit(
        kind=settings.kind,
        monitor=monitor,
        buckets=tuple(buckets),
        without=float(share @ [bucket.without for bucket in buckets]),
        with_head=float(share @ [bucket.with_head for bucket in buckets]),
        num_linked=int((head.neighbors.numpy() >= 0).any(axis=1).sum()),
        neighborhood=settings.neighborhood,
        left_out=left_out,
    )
