"""Drift between a dataset and another, or a log of requests; by the eyes of a run where one is
named."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmrec_tf.dataset.directory import Dataset, open_dataset
from mmrec_tf.encoders.cache import encode
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.drift import Thresholds, Traffic, measure, read_requests, traffic_of
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.runs.run import Run

# Users whose first item is scored.
_MOST_SCORED = 400
_BATCH = 100


def measure_drift(
    reference: str | pathlib.Path,
    new: str | pathlib.Path,
    *,
    run: Run | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:
    """Compares what a model was trained on with what comes in.

    Args:
      reference: a dataset directory.
      new: another one, or a log of requests, `.jsonl` (see `read_requests`).
      run: Run, whose encoders make vectors of content, and whose recommender scores; None for
        numbers that need no model, and no scores.
      thresholds: Thresholds; None for those that are usual.

    Returns:
      What `mmrec_tf.evaluation.drift.measure` returns.

    Raises:
      ConfigError: for a run whose modalities neither dataset has.
      DatasetError: for a dataset or a log that cannot be read, or holds too little.
    """
    old = open_dataset(reference)
    first = traffic_of(old, encode=_encoder(run, old))
    path = pathlib.Path(new)
    if path.is_dir():
        dataset = open_dataset(path)
        second = traffic_of(dataset, encode=_encoder(run, dataset))
    else:
        second = read_requests(path)
    if run is not None:
        recommender = run.recommender(history="train")
        first = first._replace(scores=_scores(recommender, first))
        if second.scores is None:
            second = second._replace(scores=_scores(recommender, second))
        first, second = (_only(part, run) for part in (first, second))
    return measure(first, second, thresholds=thresholds)


def _encoder(run: Run | None, dataset: Dataset) -> Callable[[str], np.ndarray] | None:
    """From a modality's name to the vectors that the run's encoder makes of a dataset's items."""
    if run is None:
        return None
    encoders = run.retrieval.encoders
    lacking = [n for n in run.retrieval.modalities if n not in dataset.schema.modalities]
    if lacking:
        raise ConfigError(
            f"--run: wanted a run whose modalities {dataset.directory} has; it lacks "
            f"{', '.join(lacking)}. Leave --run out to compare what both have."
        )

    def vectors(name: str) -> np.ndarray:
        if name not in run.retrieval.modalities:
            return np.zeros([dataset.schema.num_items, 1], np.float32)
        content = dataset.catalog.content[name]
        return np.asarray(encode(encoders[name], content, name=name, cache=None), np.float32)

    return vectors


def _only(traffic: Traffic, run: Run) -> Traffic:
    """Without modalities that the run does not read."""
    kept = {n: v for n, v in traffic.vectors.items() if n in run.retrieval.modalities}
    return traffic._replace(vectors=kept)


def _scores(recommender: Recommender, traffic: Traffic) -> np.ndarray:
    """What the first item that each of some users would be shown scores, <float64>[user]."""
    histories = [list(met) for met in traffic.met if met][:_MOST_SCORED]
    found = []
    for start in range(0, len(histories), _BATCH):
        some = histories[start : start + _BATCH]
        answer = recommender.recommend([""] * len(some), history=some, k=1)
        found.append(answer.score[:, 0])
    return np.concatenate(found).astype(np.float64) if found else np.zeros([0])
