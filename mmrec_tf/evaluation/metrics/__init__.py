"""How good a ranking is, in NumPy alone.

top = top_k(scores, 20, exclude=(seen_rows, seen_columns))
per_user = retrieval_metrics(top, relevant, ks=(10, 20))
mean_metrics(per_user)  # {"recall@10": 0.31, ...}

`lists` measures what is recommended against what users chose, `beyond_accuracy` what else can be
said of it, `predictions` single examples, and `bootstrap` whether a difference is more than chance.
"""

from mmrec_tf.evaluation.metrics.beyond_accuracy import (
    ItemVectors,
    coverage,
    diversity,
    gini,
    novelty,
)
from mmrec_tf.evaluation.metrics.bootstrap import (
    Difference,
    holm,
    paired_bootstrap,
    paired_p_value,
)
from mmrec_tf.evaluation.metrics.lists import mean_metrics, retrieval_metrics, top_k
from mmrec_tf.evaluation.metrics.predictions import (
    auc,
    best_threshold,
    expected_calibration_error,
    gauc,
    log_loss,
    num_mixed,
    rmse,
    threshold_metrics,
)

__all__ = [
    "Difference",
    "ItemVectors",
    "auc",
    "best_threshold",
    "coverage",
    "diversity",
    "expected_calibration_error",
    "gauc",
    "gini",
    "holm",
    "log_loss",
    "mean_metrics",
    "novelty",
    "num_mixed",
    "paired_bootstrap",
    "paired_p_value",
    "retrieval_metrics",
    "rmse",
    "threshold_metrics",
    "top_k",
]
