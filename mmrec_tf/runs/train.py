"""Trains both stages into a run directory."""

import pathlib
import shutil
import sys
import warnings
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config, require_effect
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import MmrecError, RunError
from mmrec_tf.evaluation.evaluate import evaluate
from mmrec_tf.evaluation.modality_gap import collapsed, diagnose
from mmrec_tf.ranking.model import RankingModel, require_labels
from mmrec_tf.recommender.funnel import evaluate_ranking, fit_calibration
from mmrec_tf.records.files import SEAL, hold_folder, read_sealed, write_sealed
from mmrec_tf.retrieval.content_encoders import make_encoders
from mmrec_tf.retrieval.item_similarity import require_item_head
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.labels import report_labels
from mmrec_tf.runs.run import Run, load_run
from mmrec_tf.runs.warm_start import carry_weights, check_start
from mmrec_tf.training.checkpoints import kept_state
from mmrec_tf.training.devices import describe_devices
from mmrec_tf.training.fit import raise_for_empty, train
from mmrec_tf.training.tracking import Callbacks

VALID_KS = (10, 20)


def train_run(
    dataset: Dataset,
    config: Config,
    directory: str | pathlib.Path,
    *,
    twin: bool = False,
    start: Run | str | pathlib.Path | None = None,
    callbacks: Callbacks = lambda stage: [],
) -> Run:
    """Trains both stages into a run directory; the same call goes on after a kill, and ends with
    the same figures (`mmrec_tf.training.fit.train`). Only one process at a time may do so.

    Args:
      dataset: Dataset.
      config: Config.
      directory: a new folder, or that of the same experiment, unfinished.
      twin: also trains the id-only twin, in the folder `twin` of the run.
      start: a finished run, or its path, whose weights both stages, and the twin, go on from, on
        a dataset that may have other items, users and interactions; None for new models.
      callbacks: from a stage's name to further Keras callbacks, such as
        `mmrec_tf.training.tracking.tracking` makes; those of the twin are its own.

    Returns:
      Run, finished.

    Raises:
      ConfigError: for a modality that the dataset lacks, or a config that `start` cannot go on
        with.
      RunError: when something else stands in the folder, or another process trains there; when
        `start` is not finished, has no twin to go on from, or has lost its dataset.
    """
    raise_for_empty(dataset)
    # Refuses what cannot be before anything is written.
    dataset.schema.select(config.modalities)
    if start is not None:
        start = start if isinstance(start, Run) else load_run(start)
        check_start(start, config, dataset.schema)
        if twin and start.twin is None:
            raise RunError(f"{start.directory}: has no twin to go on from. Train without the twin.")
    require_effect(config, dataset.schema)
    require_item_head(config, dataset)
    below = config.retrieval.disliked_below
    dataset.require_rated(below, setting="retrieval.disliked_below")
    if config.ranking.epochs:
        require_labels(config, dataset)
    directory = pathlib.Path(directory)
    with hold_folder(directory, RunError, "trains"):
        return _train(dataset, config, directory, twin=twin, start=start, callbacks=callbacks)


def _train(
    dataset: Dataset,
    config: Config,
    directory: pathlib.Path,
    *,
    twin: bool,
    start: Run | None,
    callbacks: Callbacks,
) -> Run:
    """`train_run`, once it is known that it may."""
    new = not (directory / "run.json").exists()
    run = Run.create(directory, config, dataset, start=start)
    try:
        return _train_stages(run, dataset, config, twin=twin, start=start, callbacks=callbacks)
    except MmrecError:
        if new:
            run.withdraw()
        raise


def _train_stages(
    run: Run,
    dataset: Dataset,
    config: Config,
    *,
    twin: bool,
    start: Run | None,
    callbacks: Callbacks,
) -> Run:
    """Makes and trains what is not there yet, and measures it."""
    run_twin = None
    # Once for a run and its twin, which is trained first.
    said = False
    if twin:
        path = run.directory / "twin"
        done = (path / "run.json").exists() and Run(path, dataset=dataset.directory).finished
        run_twin = (
            Run(path, dataset=dataset.directory)
            if done
            else train_run(dataset, config.id_only(), path, start=start and start.twin)
        )
        said = not done
        run_twin._dataset = dataset
    if not said:
        print(describe_devices(tf.distribute.get_strategy(), config.training), file=sys.stderr)
    progress = run.directory / "progress"
    if not (run.directory / "weights/retrieval").exists():
        tf.keras.utils.set_random_seed(config.training.seed)
        # After a kill a random or a pretrained encoder must be the one from before.
        source = run if (run.directory / "weights/encoders").exists() else start
        if source is None:
            encoders = make_encoders(config, dataset)
        else:
            encoders = source.load_encoders(dataset)
        if source is not run:
            run.save_encoders(encoders)
        retrieval = RetrievalModel(config, dataset, encoders=encoders)
        if start is not None:
            carry_weights(retrieval, start, dataset)
        before = progress / "retrieval/diagnostics.json"
        if not before.exists():
            before.parent.mkdir(parents=True, exist_ok=True)
            figures = modality_diagnostics(retrieval)
            for name in collapsed(figures.get("encoded", {})):
                warnings.warn(
                    f"{name}: the encoder gives all items the same vector, which tells none from "
                    f"another. Leave {name} out of the config's modalities, or look at its content "
                    "and at the encoder's weights.",
                    stacklevel=2,
                )
            write_sealed(before, figures)
        train(
            retrieval,
            dataset,
            directory=progress / "retrieval",
            callbacks=callbacks("retrieval"),
            # Weights that go on from a run are what training has to beat.
            measure_start=start is not None,
        )
        shutil.copy(progress / "retrieval/history.csv", run.directory / "history.csv")
        # First, as the weights say that retrieval is done.
        run.save_item_head(retrieval)
        run.save_cold_items(retrieval)
        run.save_retrieval(retrieval)
    untrained = progress / "retrieval/diagnostics.json"
    metrics: dict[str, Any] = {
        "history": "train",
        "valid": {"retrieval": evaluate(run.retrieval, dataset, split="valid", ks=VALID_KS)},
        "parameters": run.retrieval.parameter_counts(),
        "modalities": {
            "before": _read_figures(untrained),
            "after": modality_diagnostics(run.retrieval),
        },
    }
    facts = {name: encoder.facts() for name, encoder in run.retrieval.encoders.items()}
    if found := {name: fact for name, fact in facts.items() if fact}:
        metrics["encoders"] = found
    if run.retrieval.label_heads is not None:
        metrics["labels"] = report_labels(run.retrieval)
    if run.item_head_fit is not None:
        metrics["item_head"] = run.item_head_fit.to_json()
    if run.cold_items_fit is not None:
        metrics["cold_items"] = run.cold_items_fit.to_json()
    if config.ranking.epochs:
        if run.ranking is None:
            ranking = RankingModel(config, dataset, retrieval=run.retrieval)
            if start is not None and start.ranks:
                carry_weights(ranking, start, dataset)
            logged = callbacks("ranking")
            train(ranking, dataset, directory=progress / "ranking", callbacks=logged)
            shutil.copy(progress / "ranking/history.csv", run.directory / "ranking_history.csv")
            served = not _learned_nothing(ranking, progress / "ranking", start)
            run.save_ranking(ranking, served=served)
        metrics["ranking_served"] = run.serves_ranking
    recommender = run.recommender(history="train")
    # Of the logits as they are; a run that was killed here has an old one.
    recommender.calibrate(fit_calibration(recommender, dataset))
    run.save_calibration(recommender.calibration)
    metrics["ranking"] = evaluate_ranking(recommender, dataset, split="valid", ks=VALID_KS)
    if config.ranking.epochs:
        metrics["valid"]["recommender"] = evaluate(recommender, dataset, split="valid", ks=VALID_KS)
    if run_twin is not None:
        metrics["valid"]["id_only"] = evaluate(
            run_twin.retrieval, dataset, split="valid", ks=VALID_KS
        )
    metrics["valid"]["popularity"] = evaluate(None, dataset, split="valid", ks=VALID_KS)
    run.finish(metrics)
    shutil.rmtree(progress, ignore_errors=True)
    return run


def _learned_nothing(ranking: RankingModel, progress: pathlib.Path, start: Run | None) -> bool:
    """Whether training kept retrieval's own order, so that lists are the same without ranking, and
    faster; then a line says so."""
    best = kept_state(progress, "best")
    if best is None or best["epoch"] >= 0 or (start is not None and start.ranks):
        return False
    settings = ranking.config.ranking
    # What an untrained model of single probabilities says beside the order is their level, which
    # calibration makes up for.
    leveled = settings.loss != "binary" or settings.calibration != "none"
    without = settings.serve == "auto" and leveled
    served = (
        "It is served without ranking; ranking.serve always would serve it with."
        if without
        else "ranking.epochs 0 serves the same lists faster."
    )
    tqdm.write(
        "ranking: no epoch beats retrieval's own order on valid "
        f"({ranking.monitor} {best['best']:.4f}), so that order is kept. {served}",
        file=sys.stderr,
    )
    return without


def _read_figures(path: pathlib.Path) -> dict[str, Any]:
    """What `modality_diagnostics` had found before training."""
    try:
        figures = read_sealed(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: wanted the figures from before training; {error}. Delete the run to train "
            "anew."
        ) from error
    return {name: figure for name, figure in figures.items() if name != SEAL}


def modality_diagnostics(model: RetrievalModel) -> dict[str, dict[str, Any]]:
    """`mmrec_tf.evaluation.modality_gap.diagnose` of a catalog's modalities, as they leave the
    encoders ("encoded") and as alignment projects them ("aligned"); {} without modalities.

    Where projections were fitted since the model was made, "fitted" says by modality to how many
    items and with which penalty; where missing modalities are mapped, "maps" says it by pair, with
    the share of the variance that is explained."""
    names = model.modalities
    if not names:
        return {}
    present = model.tables["present"].numpy()
    more = {}
    if model.state.fits:
        more["fitted"] = {name: fit._asdict() for name, fit in model.state.fits.items()}
    if "maps" in model.tables:
        more["maps"] = {
            f"{names[found.source]}-{names[found.target]}": {
                "num_items": found.num_items,
                "l2": found.l2,
                "explained": found.explained,
            }
            for found in model.tables["maps"]
        }
    return {
        **more,
        "encoded": diagnose([model.encode_catalog(name) for name in names], present, names),
        "aligned": diagnose(model.embed_catalog().modalities, present, names),
    }
