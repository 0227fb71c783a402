"""An index that finds enough of what an exact one would, measured before it counts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.retrieval.index.exact import ExactIndex
from mmrec_tf.retrieval.index.ivf import IvfIndex
from mmrec_tf.schema import LOWEST_SCORE

# Below so many items an exact index answers soon enough, see docs/item_index.md.
FEW = 200_000
KINDS = ("auto", "exact", "ivf", "ivf_int8", "ivf_pq")
# Queries asked at a time.
BLOCK = 64


def build_index(
    vectors: np.ndarray,
    queries: np.ndarray,
    *,
    kind: str = "auto",
    k: int,
    min_recall: float = 0.95,
    available: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[ExactIndex, dict[str, Any]]:
    """The index of a catalog, reading as few lists as the wanted recall takes.

    Half of the queries choose the number of lists, by a recall that is above what is wanted by two
    standard errors; the other half measure it. Lists are learned from both.

    Args:
      vectors: <float32>[item, dim].
      queries: <float32>[any, dim], such as those of real users. "exact" needs none.
      kind: "exact", "ivf", "ivf_int8" or "ivf_pq", see `IvfIndex`; "auto" for "exact" below
        `FEW` items and "ivf" above.
      k: int, how many items will be asked for.
      min_recall: 0 to 1, the least share of the k best items that has to be found.
      available: <bool>[item], False for what will not be shown; None for all.
      seed: int.

    Returns:
      The index, and what is known of it: numbers and strings that JSON can carry.

    Raises:
      ConfigError: for an unknown kind, or an inverted index without two queries.
      ExportError: when the index finds less than `min_recall`.
    """
    vectors, queries = np.asarray(vectors, np.float32), np.asarray(queries, np.float32)
    if kind not in KINDS:
        raise ConfigError(f"index: wanted one of {', '.join(KINDS)}; got {kind!r}.")
    if k < 1 or not 0 < min_recall <= 1:
        raise ConfigError(
            f"index: wanted a k of at least 1 and a recall above 0, up to 1; got {k}, {min_recall}."
        )
    if kind == "auto":
        kind = "exact" if len(vectors) < FEW else "ivf"
    facts = {"kind": kind, "items": len(vectors), "dim": vectors.shape[1], "k": k}
    size = {"vectors": 4.0 * vectors.shape[1], "lists": 0.0}
    if kind == "exact":
        return ExactIndex(vectors, name="index"), {**facts, "bytes_an_item": size}
    if len(queries) < 2:
        raise ConfigError(
            f"index: wanted sample queries, by which the recall of {kind!r} is measured; got "
            f"{len(queries)}. Bring users with a history, or choose the index exact."
        )
    index = IvfIndex(vectors, queries, kind=kind, seed=seed, name="index")
    allowed = None if available is None else tf.constant(available, tf.bool)[None, :]
    # As the recommender traces them, without AutoGraph.
    search, exact = (
        tf.function(lambda some, find=find: find(some, k, allowed=allowed)[0], autograph=False)
        for find in (index.search, index.exact_search)
    )
    best = _ask(exact, queries)

    def recalls(probes: int, half: slice) -> np.ndarray:
        index.num_probes.assign(probes)
        return recall(_ask(search, queries[half]), best[half])

    chosen, held = slice(0, None, 2), slice(1, None, 2)
    index.num_probes.assign(_fewest(lambda n: recalls(n, chosen), index.num_lists, min_recall))
    probes = int(index.num_probes)
    reached = float(recalls(probes, held).mean())
    if reached < min_recall:
        raise ExportError(
            f"index {kind}: wanted a recall@{k} of at least {min_recall:g}; got {reached:.4f} from "
            f"{probes} of {index.num_lists} lists. Choose the index exact, one that keeps more of "
            "each item (ivf_pq, ivf_int8, ivf), or a lower recall."
        )
    held_bytes = sum(v.dtype.size * v.shape.num_elements() for v in index.variables)
    size["lists"] = round(held_bytes / len(vectors) - size["vectors"], 1)
    return index, {
        **facts,
        "lists": index.num_lists,
        "probes": probes,
        "widest_list": index.widest,
        "recall": round(reached, 4),
        "min_recall": min_recall,
        "queries": len(queries),
        "bytes_an_item": size,
    }


def recall(found: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The share of the best scores that was found, <float64>[query]; 1 where there are none.

    By score, as of items that score alike any will do.

    Args:
      found: <float32>[query, k], from high to low; `LOWEST_SCORE` for none.
      best: <float32>[query, k], the same of an exact index.
    """
    count = (best > LOWEST_SCORE).sum(axis=1)
    least = np.take_along_axis(best, np.maximum(count - 1, 0)[:, None], axis=1)
    # The same product, summed up in another order.
    least = least - 1e-5 * np.abs(best).max(
        axis=1, where=best > LOWEST_SCORE, initial=0, keepdims=True
    )
    hit = ((found > LOWEST_SCORE) & (found >= least)).sum(axis=1)
    return np.where(count, np.minimum(hit, count) / np.maximum(count, 1), 1.0)


def _ask(search: Callable[[tf.Tensor], tf.Tensor], queries: np.ndarray) -> np.ndarray:
    blocks = [queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK)]
    return np.concatenate([search(tf.constant(some)).numpy() for some in blocks])


def _fewest(recalls: Callable[[int], np.ndarray], num_lists: int, min_recall: float) -> int:
    """The fewest lists that give the recall, all of them if none do."""

    def enough(probes: int) -> bool:
        values = recalls(probes)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return values.mean() - 2 * error >= min_recall

    low, high = 0, 1
    while not enough(high):
        if high == num_lists:
            return high
        low, high = high, min(2 * high, num_lists)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
