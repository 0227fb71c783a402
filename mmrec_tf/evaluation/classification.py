"""How well categories are foretold: precision, recall and F1 by class, and their confusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Beyond so many classes no one reads who is taken for whom.
MOST_CONFUSED = 30
THRESHOLD = 0.5


def chosen(probability: np.ndarray, *, single: bool) -> np.ndarray:
    """Which classes are foretold: the most probable one, or all that are at least as probable as
    not.

    Args:
      probability: <float>[item, class].
      single: whether an item is of one class.

    Returns:
      <bool>[item, class].
    """
    if not single:
        return probability >= THRESHOLD
    best = np.zeros(probability.shape, bool)
    best[np.arange(len(best)), probability.argmax(axis=1)] = True
    return best


def class_report(
    truth: np.ndarray, probability: np.ndarray, names: Sequence[str], *, single: bool
) -> dict[str, Any]:
    """Figures of some items whose classes are known.

    Args:
      truth: <bool>[item, class]; items without any are left out.
      probability: <float>[item, class].
      names: of the classes.
      single: whether an item is of one class, so that the most probable one is foretold.

    Returns:
      dict of "items", how many; "classes": by name "precision" (of what is foretold the share that
      is true), "recall" (of what is true the share that is foretold), "f1" (their harmonic mean)
      and "items", each 0 where there is nothing to divide by; "macro_f1", the mean over the classes
      that any item has; "micro_f1", of all decisions together; "accuracy", the share of items of
      which all classes are right; and, of single classes up to 30, "confusion", by true class how
      many items are taken for which.
    """
    known = truth.any(axis=1)
    truth, probability = truth[known], probability[known]
    found = chosen(probability, single=single)
    hits, said, there = (table.sum(axis=0) for table in (found & truth, found, truth))
    precision, recall = _share(hits, said), _share(hits, there)
    f1 = _share(2 * hits, said + there)
    report: dict[str, Any] = {
        "items": int(known.sum()),
        "classes": {
            name: {
                "precision": float(precision[n]),
                "recall": float(recall[n]),
                "f1": float(f1[n]),
                "items": int(there[n]),
            }
            for n, name in enumerate(names)
        },
        "macro_f1": float(f1[there > 0].mean()) if there.any() else 0.0,
        "micro_f1": float(_share(2 * hits.sum(), said.sum() + there.sum())),
        "accuracy": float((found == truth).all(axis=1).mean()) if known.any() else 0.0,
    }
    if single and len(names) <= MOST_CONFUSED:
        table = truth.astype(np.int64).T @ found.astype(np.int64)
        report["confusion"] = {
            name: dict(zip(names, table[n].tolist(), strict=True)) for n, name in enumerate(names)
        }
    return report


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
