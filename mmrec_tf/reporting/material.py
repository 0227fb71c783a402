"""What the sections of a report are made of, found out once."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import MmrecError
from mmrec_tf.evaluation.baselines import BASELINES
from mmrec_tf.evaluation.evaluate import rank_by_popularity, relevant_items
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.records.inspection import inspect_dataset
from mmrec_tf.reporting.showcase import Categories, Showcase
from mmrec_tf.runs.evaluate import evaluate_run
from mmrec_tf.runs.run import Run
from mmrec_tf.towers.item import TowerOutput

# What is compared, as people call it.
NAMES = {
    "model": "this run",
    "id_only": "its id-only twin",
    "popularity": "most popular",
    "item_knn": "item-kNN",
    "content_knn": "item-kNN on content",
    "ease": "EASE",
    "ials": "iALS",
    "bpr": "BPR",
}
KS = (10, 20)
# Baselines that compare all items with all are computed up to so many items, so that a report
# takes less than a minute.
MOST_ITEMS = 5000
QUICK_BASELINES = ("item_knn", "content_knn", "ease")


class Material(NamedTuple):
    """What is known of a run.

    Attributes:
      run: Run.
      dataset: Dataset.
      split: which one is measured.
      stage: what is measured, "retrieval" or "recommender", what people are shown.
      recommender: Recommender that knows train.
      tower: TowerOutput of the catalog, as NumPy arrays.
      evaluation: what `mmrec_tf.runs.evaluate.evaluate_run` returned; None where nothing could be
        measured.
      why: why not.
      baselines_left_out: why there are no more baselines; "" where there are all.
      users: <int64>[user], those of the split.
      relevant: as `relevant_items` returns it.
      tops: by name, <int32>[user, k], what is recommended.
      inspection: what `inspect_dataset` returned.
      showcase: Showcase.
      categories: Categories.
      group: the side feature by which items are grouped; None to choose one.
    """

    run: Run
    dataset: Dataset
    split: str
    stage: str
    recommender: Recommender
    tower: TowerOutput
    evaluation: dict[str, Any] | None
    why: str
    baselines_left_out: str
    users: np.ndarray
    relevant: tuple[np.ndarray, np.ndarray]
    tops: dict[str, np.ndarray]
    inspection: dict[str, Any]
    showcase: Showcase
    categories: Categories
    group: str | None = None


def gather(
    run: Run, *, split: str, baselines: Sequence[str] | None = None, group: str | None = None
) -> Material:
    """Measures a run, and looks through its dataset.

    Args:
      run: Run.
      split: "valid" or "test".
      baselines: names, as for `evaluate_run`; None for those that are quick on a catalog of this
        size.
      group: the side feature by which items are grouped; None to choose one.
    """
    dataset = run.dataset
    stage = "recommender" if run.ranks else "retrieval"
    left_out = ""
    if baselines is None:
        baselines, left_out = _quick_baselines(run)
    recommender = run.recommender(history="train")
    evaluation, why, tops = None, "", {}
    users, relevant = np.zeros([0], np.int64), (np.zeros([1], np.int64), np.zeros([0], np.int32))
    try:
        users, relevant = relevant_items(dataset, split)
        evaluation = evaluate_run(
            run, split=split, ks=KS, stage=stage, baselines=baselines, slices=True
        )
        ranker = recommender if stage == "recommender" else run.retrieval
        tops["this run"] = ranker.rank_items(dataset, users, k=KS[0], history="train")
        tops["most popular"] = rank_by_popularity(dataset, users, k=KS[0])
    except MmrecError as error:
        why = str(error)
        tqdm.write(f"report: {why}", file=sys.stderr)
    return Material(
        run=run,
        dataset=dataset,
        split=split,
        stage=stage,
        recommender=recommender,
        tower=run.retrieval.embed_catalog(),
        evaluation=evaluation,
        why=why,
        baselines_left_out=left_out,
        users=users,
        relevant=relevant,
        tops=tops,
        inspection=inspect_dataset(dataset.directory),
        showcase=Showcase(dataset),
        categories=Categories(dataset),
        group=group,
    )


def _quick_baselines(run: Run) -> tuple[list[str], str]:
    """Baselines that do not keep a report waiting, and why there are no more."""
    if run.dataset.schema.num_items > MOST_ITEMS:
        return [], (
            f"all baselines but popularity: above {MOST_ITEMS:,} items they take minutes; "
            "--baselines measures them."
        )
    model = run.retrieval
    frozen = any(model.encoders[name].frozen for name in model.modalities)
    kept = [name for name in QUICK_BASELINES if frozen or name != "content_knn"]
    slow = ", ".join(sorted(set(BASELINES) - {"popularity", *QUICK_BASELINES}))
    why = f"{slow}, which take longer; --baselines measures them."
    return kept, why if frozen else f"{why} content_knn, as no frozen encoder reads any content."
