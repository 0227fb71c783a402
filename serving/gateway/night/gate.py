"""`python -m serving.gateway gate`: may a run that was trained tonight be tried on people?"""

import argparse
import json
import os
import pathlib
from typing import Any

from mmrec_tf.records.files import write_json


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway gate",
        description="Ranks the items of the candidate's dataset for the users of its split, by the "
        "candidate and by the run that is served, whose weights follow the ids of that dataset. "
        "The candidate passes unless it is worse: unless the whole 95 % interval of the difference "
        "lies below -TOLERANCE.",
    )
    made.add_argument("candidate", metavar="RUN", help="trained tonight")
    made.add_argument("--incumbent", required=True, metavar="RUN", help="served until now")
    made.add_argument("--split", choices=("valid", "test"), default="test", help="(%(default)s)")
    made.add_argument("--k", type=int, default=10, help="of recall and NDCG (%(default)s)")
    made.add_argument(
        "--tolerance", type=float, default=0.0, help="of NDCG, that much worse passes (%(default)s)"
    )
    made.add_argument("--out", metavar="FILE", help="writes the figures as JSON, too")
    return made


def run(options: argparse.Namespace) -> int:
    """Prints the figures; returns 0 for a candidate that passes, 3 for one that does not."""
    # Before TensorFlow is imported, whose start-up notes are of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from mmrec_tf.runs.run import load_run

    told = judge(
        load_run(options.candidate),
        load_run(options.incumbent),
        split=options.split,
        k=options.k,
        tolerance=options.tolerance,
    )
    if options.out is not None:
        write_json(pathlib.Path(options.out), told)
    print(json.dumps(told))
    return 0 if told["passed"] else 3


def judge(
    candidate: Any, incumbent: Any, *, split: str = "test", k: int = 10, tolerance: float = 0.0
) -> dict[str, Any]:
    """Compares two runs on the candidate's dataset, after ranking, user by user.

    Neither has seen the split: the candidate was trained on what came before it, the incumbent
    on a log that ended earlier.

    Args:
      candidate: Run.
      incumbent: Run, of the same or an earlier dataset.
      split: of the candidate's dataset.
      k: cut-off.
      tolerance: how much worse, in NDCG, the whole interval has to be for a refusal.

    Returns:
      "users", by metric the "candidate", the "incumbent" and the "difference" `[mean, low, high]`
      (`paired_bootstrap`), and whether it "passed".

    Raises:
      DatasetError: for a split without interactions.
      ConfigError: when the incumbent's weights do not fit the dataset.
    """
    from mmrec_tf.evaluation.evaluate import relevant_items
    from mmrec_tf.evaluation.metrics import paired_bootstrap, retrieval_metrics
    from mmrec_tf.runs.warm_start import reembed

    dataset = candidate.dataset
    users, relevant = relevant_items(dataset, split)
    tops = {
        "candidate": candidate.recommender(history="train").rank_items(dataset, users, k=k),
        "incumbent": reembed(incumbent, dataset, history="train")[0].rank_items(
            dataset, users, k=k
        ),
    }
    figures = {name: retrieval_metrics(top, relevant, ks=[k]) for name, top in tops.items()}
    told: dict[str, Any] = {"split": split, "users": len(users), "tolerance": tolerance}
    for metric in (f"recall@{k}", f"ndcg@{k}"):
        both = {name: values[metric] for name, values in figures.items()}
        told[metric] = {
            **{name: float(values.mean()) for name, values in both.items()},
            "difference": list(paired_bootstrap(both["candidate"], both["incumbent"])),
        }
    told["passed"] = bool(told[f"ndcg@{k}"]["difference"][2] >= -tolerance)
    return told
