"""Several runs on one dataset, side by side: who is better, and by more than chance."""

import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.evaluate import Ranker, relevant_items, require_history
from mmrec_tf.evaluation.metrics import (
    holm,
    mean_metrics,
    paired_bootstrap,
    paired_p_value,
    retrieval_metrics,
)
from mmrec_tf.runs.run import Run

# Of these the differences are told, at each cut-off; of each run all metrics.
COMPARED = ("recall", "ndcg")
# What is called significant, after the correction.
LEVEL = 0.05


def compare_runs(
    runs: Sequence[Run],
    *,
    split: str = "valid",
    ks: Iterable[int] = (10, 20),
    stage: str = "recommender",
    history: str = "train",
) -> dict[str, Any]:
    """Ranks every item for every user of a split by each run, and compares them user by user.

    Args:
      runs: two or more, trained on the same dataset.
      split: "valid" or "test".
      ks: cut-offs.
      stage: "recommender" for what people are shown, after ranking where a run has it; or
        "retrieval".
      history: as for `mmrec_tf.runs.evaluate.evaluate_run`.

    Returns:
      dict of

      - "split", "history", "stage", "dataset", and "users", the number of users;
      - "runs": by name, the run's "directory" and its metrics; a name is the folder's where no
        other has it, else the path;
      - "settings": by name, the settings in which the configs differ: by path the value;
      - "differences": for each pair of runs and each metric of `COMPARED`, "run", "other",
        "metric", "mean" of run minus other, "low" and "high" of its 95 % interval, "p" (see
        `paired_p_value`), "p_holm", corrected over all of the list (`holm`), and "significant",
        whether that is below 0.05.

    Raises:
      ConfigError: for fewer than two runs, the same run twice, runs of different datasets, an
        unknown stage, or a history that holds the split.
      DatasetError: for a split without interactions.
    """
    require_history(split, history)
    if stage not in ("retrieval", "recommender"):
        raise ConfigError(f"stage: wanted retrieval or recommender; got {stage!r}.")
    names = _names(runs)
    first = runs[0]
    for name, run in zip(names, runs, strict=True):
        if run.facts["dataset_hash"] != first.facts["dataset_hash"]:
            raise ConfigError(
                "compare: wanted runs of one dataset, as figures of two say nothing of the "
                f"models; {names[0]} was trained on {first.facts['dataset']}, {name} on another: "
                f"{run.facts['dataset']}. Train both on the same dataset directory."
            )
    ks = sorted(set(ks))
    dataset = first.dataset
    users, relevant = relevant_items(dataset, split)
    per_user: dict[str, dict[str, np.ndarray]] = {}
    for name, run in zip(names, runs, strict=True):
        # Opened once: all have the same.
        run.share_dataset(dataset)
        stays = run.loaded
        ranker: Ranker = run.retrieval
        if stage == "recommender":
            ranker = run.recommender(history=history)
        top = ranker.rank_items(dataset, users, k=ks[-1], history=history)
        per_user[name] = retrieval_metrics(top, relevant, ks=ks)
        # One after the other: all models at a time may not fit.
        del ranker
        if not stays:
            run.unload()
    metrics = [f"{metric}@{k}" for k in ks for metric in COMPARED]
    return {
        "split": split,
        "history": history,
        "stage": stage,
        "dataset": str(dataset.directory),
        "users": len(users),
        "runs": {
            name: {"directory": str(run.directory), **mean_metrics(per_user[name])}
            for name, run in zip(names, runs, strict=True)
        },
        "settings": _settings(dict(zip(names, runs, strict=True))),
        "differences": _differences(per_user, metrics),
    }


def _differences(
    per_user: dict[str, dict[str, np.ndarray]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Each pair by each metric, corrected together."""
    found: list[dict[str, Any]] = []
    for run, other in itertools.combinations(per_user, 2):
        for metric in metrics:
            a, b = per_user[run][metric], per_user[other][metric]
            mean, low, high = paired_bootstrap(a, b)
            pair = {"run": run, "other": other, "metric": metric}
            found.append(
                {**pair, "mean": mean, "low": low, "high": high, "p": paired_p_value(a, b)}
            )
    for entry, raised in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry |= {"p_holm": raised, "significant": raised < LEVEL}
    return found


def _names(runs: Sequence[Run]) -> list[str]:
    """What runs are called: by their folders, unless two have the same name."""
    if len(runs) < 2:
        raise ConfigError(f"compare: wanted two or more runs; got {len(runs)}.")
    paths = [run.directory.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"compare: wanted different runs; got {path} twice.")
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [_path(run.directory) for run in runs]


def _path(directory: pathlib.Path) -> str:
    return directory.as_posix()


def _settings(runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    """By run, the settings that are not the same in all."""
    flat = {name: _flat(run.config.to_json()) for name, run in runs.items()}
    paths = sorted(set().union(*flat.values()))
    different = [
        path for path in paths if len({repr(settings.get(path)) for settings in flat.values()}) > 1
    ]
    return {
        name: {path: settings.get(path) for path in different} for name, settings in flat.items()
    }


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{above}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found
