"""What each modality is worth: taken away from a trained model, or left out of training."""

import contextlib
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.evaluation.evaluate import evaluate_users
from mmrec_tf.evaluation.metrics import Difference, paired_bootstrap
from mmrec_tf.records.files import write_json
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run, load_run
from mmrec_tf.runs.train import train_run

REMOVED = (0.0, 0.25, 0.5, 0.75, 1.0)
SEED = 0


def ablate_run(
    run: Run,
    *,
    split: str = "valid",
    out: str | pathlib.Path | None = None,
    retrain: bool = False,
) -> dict:
    """Measures the retrieval model of a run without its modalities, one way after another.

    The metric is the one that training watched (`training.monitor`). Each figure stands beside the
    whole model's by a paired bootstrap over users (`mmrec_tf.evaluation.metrics.paired_bootstrap`).

    Args:
      run: Run, of a model with modalities.
      split: "valid" or "test".
      out: folder for `ablation.json`, and for the runs of `retrain`.
      retrain: whether to train anew: with each modality alone, without each one, and the id-only
        twin where the run has none. Runs that `out` holds already are not trained again.

    Returns:
      dict of

      - "split", "history" (always train), "metric", "users" and "model", the figure of the whole
        model;
      - "knock_outs", by modality: "absent", as if no item had it; "shuffled", items have each
        other's; "noise", normal with the mean and the deviation of each dimension;
      - "missing", a list: what is left when "removed", a share of all items' modalities, is absent;
      - "retrained", by name, such as "image alone", "without image" and "id_only"; or None;
      - "verdicts", by modality: whether it helps, by how much the whole model is better than the
        one trained without it, or, unless `retrain`, than itself with the modality absent.

      A figure is a dict of "value", and "difference", "low" and "high" of it minus the model's.

    Raises:
      ConfigError: for `retrain` without `out`.
      RunError: for a model that knows ids alone, or when something else stands in `out`.
      DatasetError: for a split without interactions.
    """
    if retrain and out is None:
        raise ConfigError("--retrain: wanted a folder for the runs; name one with --out.")
    if out is not None:
        pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    model, dataset = run.retrieval, run.dataset
    if not model.modalities:
        raise RunError(
            f"{run.directory}: wanted a model with modalities to take away; this one knows ids "
            "alone. Name another run."
        )
    metric = run.config.training.monitor
    if model.item_head is not None and run.config.item_head.kind == "content":
        tqdm.write(
            "ablate: what is taken from the towers stays in the item head, which compares content; "
            "--retrain measures both without.",
            file=sys.stderr,
        )

    def measure(judged: RetrievalModel) -> np.ndarray:
        k = int(metric.partition("@")[2])
        return evaluate_users(judged, dataset, split=split, ks=[k])[metric]

    content = {name: model.encode_catalog(name) for name in model.modalities}
    present = np.asarray(model.tables["present"])
    # Measured as the others are, so that nothing but the content differs.
    with replaced(model, content, present):
        whole = measure(model)

    def changed(content: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, float]:
        with replaced(model, content, present):
            return _figure(measure(model), whole)

    knock_outs = {
        name: {
            how: changed(*knock_out(content, present, name, how=how))
            for how in ("absent", "shuffled", "noise")
        }
        for name in model.modalities
    }
    # The same numbers for all shares: what is removed once stays removed.
    drawn = np.random.default_rng(SEED).random(present.shape)
    missing = [
        {"removed": share, **changed(content, present & (drawn >= share))} for share in REMOVED
    ]
    retrained = None
    if retrain:
        retrained = {
            name: _figure(measure(part.retrieval), whole)
            for name, part in _retrained(run, pathlib.Path(out or "."))
        }
    without = {
        name: knock_outs[name]["absent"] if retrained is None else retrained[f"without {name}"]
        for name in model.modalities
    }
    result = {
        "split": split,
        "history": "train",
        "metric": metric,
        "users": len(whole),
        "model": float(whole.mean()),
        "knock_outs": knock_outs,
        "missing": missing,
        "retrained": retrained,
        "verdicts": {name: verdict(figure) for name, figure in without.items()},
    }
    if out is not None:
        write_json(pathlib.Path(out) / "ablation.json", result)
    return result


def verdict(figure: Mapping[str, float]) -> str:
    """What a modality is worth, in words, from the figure of the model without it.

    Returns:
      "helps", "hurts" where the model is better without, or "no measurable effect" where 0 lies
      within the interval; and what the modality adds, with the bounds of the interval.
    """
    # What is lost without it is what it adds: the signs turn, and the bounds change places.
    adds = Difference(*(0.0 - figure[name] for name in ("difference", "high", "low")))
    word = "helps" if adds.low > 0 else "hurts" if adds.high < 0 else "no measurable effect"
    return f"{word} ({adds.mean:+.4f}, {adds.low:.4f} to {adds.high:.4f})"


@contextlib.contextmanager
def replaced(
    model: RetrievalModel, content: Mapping[str, np.ndarray], present: np.ndarray
) -> Iterator[None]:
    """The model knows other content while the context lasts, and its own again behind it.

    Args:
      model: RetrievalModel with a catalog.
      content: by modality, <float32>[item, dim], what its encoder is to have made.
      present: <bool>[item, modality], in the order of `model.modalities`.
    """
    tables, encoders = model.tables, model.encoders
    # Vectors stand for the encoder's output, so no encoder reads them once more.
    done = types.SimpleNamespace(
        frozen=True, stores_vectors=True, from_stored=lambda vectors, training=False: vectors
    )
    model.state.encoders = {**encoders, **dict.fromkeys(content, done)}
    model.state.tables = {
        **tables,
        "content": {**tables["content"], **content},
        "present": tf.constant(present),
    }
    try:
        yield
    finally:
        model.state.tables, model.state.encoders = tables, encoders


def knock_out(
    content: Mapping[str, np.ndarray], present: np.ndarray, name: str, *, how: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Content in which one modality says nothing any more.

    Args:
      content: by modality, <float32>[item, dim].
      present: <bool>[item, modality].
      name: the modality.
      how: "absent", "shuffled" or "noise".

    Returns:
      Content and presence, both copies where they differ.
    """
    column = list(content).index(name)
    items = np.flatnonzero(present[:, column])
    rng = np.random.default_rng(SEED)
    if how == "absent":
        left = present.copy()
        left[:, column] = False
        return dict(content), left
    values = np.array(content[name])
    if how == "shuffled":
        # Each item takes that of the one before it in a random order, so that none keeps its own.
        order = rng.permutation(items)
        values[order] = values[np.roll(order, 1)]
    elif len(items):
        mean, deviation = values[items].mean(axis=0), values[items].std(axis=0)
        values[items] = rng.normal(mean, deviation, values[items].shape)
    return {**content, name: values}, present


def trained_run(
    dataset: Dataset, config: Config, directory: pathlib.Path, *, twin: bool = False
) -> Run:
    """The finished run of that experiment in that folder; trained first unless it is there.

    Args: as for `mmrec_tf.runs.train.train_run`.

    Raises:
      RunError: when another one, or something else, stands there.
    """
    if not (directory / "run.json").exists() or not Run(directory).finished:
        return train_run(dataset, config, directory, twin=twin)
    run = load_run(directory, dataset=dataset.directory)
    if run.config != config or run.facts["dataset_hash"] != dataset.hash:
        raise RunError(
            f"{directory}: a run of another config or dataset stands there. Choose another --out, "
            "or delete it."
        )
    return run


def _retrained(run: Run, out: pathlib.Path) -> Iterator[tuple[str, Run]]:
    """Runs with fewer modalities, by name; those with the same are one run, in one folder."""
    names = run.retrieval.modalities
    chosen: dict[str, tuple[str, ...]]
    chosen = {f"{name} alone": (name,) for name in names if len(names) > 1}
    chosen |= {f"without {name}": tuple(n for n in names if n != name) for name in names}
    for name, modalities in chosen.items():
        fewer = {"modalities": list(modalities), "ranking.epochs": 0}
        config = run.config.override(fewer, schema=run.schema)
        yield name, trained_run(run.dataset, config, out / ("-".join(modalities) or "none"))
    twin = run.config.id_only().override({"ranking.epochs": 0})
    yield "id_only", run.twin or trained_run(run.dataset, twin, out / "id_only")


def _figure(values: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    difference = paired_bootstrap(values, whole)
    return {
        "value": float(values.mean()),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
    }
