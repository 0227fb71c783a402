"""Seed, callbacks and Keras `fit`, for the retrieval and the ranking model alike."""

import csv
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config, TrainingConfig, require_effect
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError, RunError
from mmrec_tf.evaluation.evaluate import evaluate, rank_items
from mmrec_tf.evaluation.funnel import evaluate_ranking, fit_calibration, ranking_metric
from mmrec_tf.evaluation.modality_gap import diagnose
from mmrec_tf.ranking import RankingModel
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.records.manifest import write_json
from mmrec_tf.retrieval.memory_estimate import estimate
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run, load_run, load_weights, save_weights
from mmrec_tf.runs.warm_start import carry_weights, check_start
from mmrec_tf.training.optimizer import build_optimizer

VALID_KS = (10, 20)
# Of so many of the highest items of a user, mined negatives are drawn.
MINED = 100


class Validation(tf.keras.callbacks.Callback):
    """Measures the model on the valid split after each epoch, keeps the best weights and stops
    when they have not got better for `patience` epochs.

    Args:
      dataset: Dataset.
      monitor: str such as "ndcg@10".
      patience: int. 0 never stops.
      directory: where the best weights so far survive a kill; None keeps them in memory only.
      measure_start: whether the weights before the first epoch may be the best.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        monitor: str,
        patience: int,
        directory: pathlib.Path | None = None,
        measure_start: bool = False,
    ):
        super().__init__()
        self.dataset = dataset
        self.monitor = monitor
        self.patience = patience
        self.directory = directory
        self.measure_start = measure_start
        self.best, self.best_epoch = -np.inf, -1
        self.recommender: Recommender | None = None
        self.weights: list[np.ndarray] | None = None

    def measure(self) -> float:
        """The monitored metric of the model as it is."""
        model, min_rating = self.model, None
        if isinstance(model, RankingModel):
            min_rating = model.config.ranking.click_rating
            # Once, as it embeds the catalog, which ranking does not change.
            self.recommender = self.recommender or Recommender(model.retrieval, model, self.dataset)
            model = self.recommender
        metric, _, k = self.monitor.partition("@")
        if not k:
            return ranking_metric(model, self.dataset, metric)
        figures = evaluate(model, self.dataset, split="valid", ks=[int(k)], min_rating=min_rating)
        return figures[self.monitor]

    def on_train_begin(self, logs=None):
        state = self.directory / "best.json" if self.directory else None
        if state is not None and state.exists():
            facts = json.loads(state.read_text(encoding="utf-8"))
            self.best, self.best_epoch = facts["best"], facts["epoch"]
            # The best weights are kept, not trained on: where to go on from is the backup's say.
            current = self.model.get_weights()
            load_weights(self.directory / facts["folder"], model=self.model)
            self.weights = self.model.get_weights()
            self.model.set_weights(current)
        elif self.measure_start:
            self._keep(self.measure(), -1)

    def on_epoch_end(self, epoch, logs=None):
        value = self.measure()
        if logs is not None:
            logs[f"valid_{self.monitor}"] = value
        if value > self.best:
            self._keep(value, epoch)
        elif self.patience and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights(self.weights)

    def _keep(self, value: float, epoch: int) -> None:
        self.best, self.best_epoch = value, epoch
        self.weights = self.model.get_weights()
        if self.directory is not None:
            # A folder of its own each time, so that a kill at any moment leaves one that is whole.
            folder = f"best-{epoch}"
            save_weights(self.directory / folder, model=self.model)
            facts = {"best": value, "epoch": epoch, "folder": folder}
            write_json(self.directory / "best.json", facts)
            for old in self.directory.glob("best-*"):
                if old.name != folder:
                    shutil.rmtree(old)


class Mining(tf.keras.callbacks.Callback):
    """Finds, every few epochs, the items that the model ranks highest for each user and that are
    not among the user's train items: the negatives of `retrieval.num_mined_negatives`.

    Args:
      dataset: Dataset.
    """

    def __init__(self, dataset: Dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch, logs=None):
        model, settings = self.model, self.model.config.retrieval
        if model.state.mined is not None and epoch % settings.mining_epochs:
            return
        users = np.arange(self.dataset.schema.num_users)
        k = max(MINED, settings.num_mined_negatives)
        mined = rank_items(model, self.dataset, users, k=k)
        if model.state.mined is None:
            # A variable, as the step is traced once.
            model.state.mined = tf.Variable(mined, trainable=False)
        else:
            model.state.mined.assign(mined)


class HistoryRows(tf.keras.callbacks.Callback):
    """Writes each epoch to a CSV file when it ends, so that a kill loses none.

    Args:
      path: the file; rows of earlier epochs, from before a kill, stay.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        rows = {}
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
        rows[epoch] = {"epoch": epoch, **(logs or {})}
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[epoch]))
            writer.writeheader()
            writer.writerows(rows[number] for number in sorted(rows))
        os.replace(aside, self.path)


class Progress(tf.keras.callbacks.Callback):
    """A bar on stderr for each epoch, so that stdout stays free for results."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.bar: tqdm | None = None

    def on_epoch_begin(self, epoch, logs=None):
        desc = f"{self.name} epoch {epoch + 1}/{self.params['epochs']}"
        self.bar = tqdm(total=self.params["steps"], desc=desc, unit="batch", disable=None)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in (logs or {}).items()})
        self.bar.close()


def train(
    model: RetrievalModel | RankingModel,
    dataset: Dataset,
    training: TrainingConfig | None = None,
    *,
    directory: str | pathlib.Path | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    start: Run | None = None,
) -> tf.keras.callbacks.History:
    """Fits a model on the train split and leaves it with the weights that were best on valid.

    What a retrieval model will hold in memory is estimated in a line on stderr before it takes in
    the catalog.

    On several devices, make the model and call this inside `with strategy.scope():` of one
    `tf.distribute.MirroredStrategy`. A batch of `training.batch_size` is then that of all replicas
    together, and they compare with each other's items, so that the retrieval loss is that of one
    device; contrastive alignment compares within each replica.

    Args:
      model: RetrievalModel; or RankingModel, whose retrieval model is trained already. One that
        has not seen a catalog takes in the dataset's.
      dataset: Dataset.
      training: TrainingConfig; None for that of the model's config.
      directory: where epoch, weights, optimizer and `history.csv` are kept after each epoch, so
        that the same call goes on after a kill; None for nowhere.
      callbacks: further Keras callbacks.
      start: a finished run whose weights training goes on from, see
        `mmrec_tf.runs.warm_start.carry_weights`; its own count as the best until an epoch is
        better.

    Returns:
      Keras' History: by name one value an epoch; "valid_ndcg@10" or whatever
      `training.monitor` asks for among them.

    Raises:
      ConfigError: when content does not fit into memory and the config cannot do without, when
        no data service answers, when the weights of `start` do not fit, or when the warm-up is
        longer than the training.
    """
    training = training or model.config.training
    directory = pathlib.Path(directory) if directory is not None else None
    tf.keras.utils.set_random_seed(training.seed)
    if isinstance(model, RankingModel):
        name, epochs = "ranking", model.config.ranking.epochs
        monitor = model.config.ranking.monitor or training.monitor
        new = model.state.items is None
        if new:
            model.adapt(dataset)
    else:
        name, epochs, monitor = "retrieval", training.epochs, training.monitor
        if not model.encoders and start is not None:
            start.load_encoders(model, dataset)
        elif not model.encoders:
            model.make_encoders(dataset)
    # Anew, as encoders that are made here may have drawn numbers and those of a run did not.
    tf.keras.utils.set_random_seed(training.seed)
    model.build_weights()
    if isinstance(model, RetrievalModel):
        tqdm.write(f"{name}: {estimate(model, dataset)}", file=sys.stderr)
        if model.state.tables is None:
            model.adapt(dataset, cache=dataset.cache)
            model.initialize(dataset)
    elif new:
        model.initialize(dataset)
    if start is not None:
        carry_weights(model, start, dataset)
    validation = Validation(
        dataset,
        monitor=monitor,
        patience=training.patience,
        directory=directory,
        # What training has to beat: an untrained ranking model keeps retrieval's order.
        measure_start=isinstance(model, RankingModel) or start is not None,
    )
    watched: list[tf.keras.callbacks.Callback] = [validation, Progress(name), *callbacks]
    if isinstance(model, RetrievalModel) and model.config.retrieval.num_mined_negatives:
        watched.append(Mining(dataset))
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        before = directory / "diagnostics.json"
        if isinstance(model, RetrievalModel) and not before.exists():
            write_json(before, modality_diagnostics(model))
        watched.append(HistoryRows(directory / "history.csv"))
        # Kept when training ends: until the caller has saved the model, a kill may still come.
        backup = str(directory / "backup")
        watched.append(tf.keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False))
    size = training.batch_size * model.config.training.accumulation_steps
    if isinstance(model, RankingModel):
        batches = model.batches(
            dataset, size, seed=training.seed, data_service=training.data_service
        )
    else:
        batches = dataset.batches(
            "train",
            size,
            user=model.config.user,
            retrieval=model.config.retrieval,
            shuffle=True,
            seed=training.seed,
            data_service=training.data_service,
        )
    if isinstance(model, RankingModel):
        # Its rate stays as it is: few epochs of a small network that starts from zeros.
        optimizer = build_optimizer(training, learning_rate=model.config.ranking.learning_rate)
    else:
        encoders = model.trained_encoders.values()
        optimizer = build_optimizer(
            training,
            steps=len(batches) * epochs,
            encoder_variables=[weight for e in encoders for weight in e.trainable_variables],
        )
    model.compile(optimizer=optimizer, jit_compile=training.jit_compile)
    return model.fit(batches, epochs=epochs, callbacks=watched, verbose=0)


def train_run(
    dataset: Dataset,
    config: Config,
    directory: str | pathlib.Path,
    *,
    twin: bool = False,
    start: Run | str | pathlib.Path | None = None,
) -> Run:
    """Trains both stages into a run directory; the same call goes on after a kill.

    Args:
      dataset: Dataset.
      config: Config.
      directory: a new folder, or that of the same experiment, unfinished.
      twin: also trains the id-only twin, in the folder `twin` of the run.
      start: a finished run, or its path, whose weights both stages, and the twin, go on from, on
        a dataset that may have other items, users and interactions; None for new models.

    Returns:
      Run, finished.

    Raises:
      ConfigError: for a modality that the dataset lacks, or a config that `start` cannot go on
        with.
      RunError: when something else stands in the folder, or when `start` is not finished, has no
        twin to go on from, or has lost its dataset.
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
    run = Run.create(directory, config, dataset, start=start)
    run_twin = None
    if twin:
        path = run.directory / "twin"
        done = (path / "run.json").exists() and Run(path, dataset=dataset.directory).finished
        run_twin = (
            Run(path, dataset=dataset.directory)
            if done
            else train_run(dataset, config.id_only(), path, start=start and start.twin)
        )
        run_twin._dataset = dataset
    progress = run.directory / "progress"
    if not (run.directory / "weights/retrieval").exists():
        tf.keras.utils.set_random_seed(config.training.seed)
        retrieval = RetrievalModel(config, dataset.schema)
        if (run.directory / "weights/encoders").exists():
            # Went on after a kill: a random or a pretrained encoder must be the one from before.
            run.load_encoders(retrieval)
        else:
            if start is None:
                retrieval.make_encoders(dataset)
            else:
                start.load_encoders(retrieval, dataset)
            run.save_encoders(retrieval)
        train(retrieval, dataset, config.training, directory=progress / "retrieval", start=start)
        shutil.copy(progress / "retrieval/history.csv", run.directory / "history.csv")
        run.save_retrieval(retrieval)
    untrained = progress / "retrieval/diagnostics.json"
    metrics: dict[str, dict] = {
        "valid": {"retrieval": evaluate(run.retrieval, dataset, split="valid", ks=VALID_KS)},
        "parameters": run.retrieval.parameter_counts(),
        "modalities": {
            "before": json.loads(untrained.read_text(encoding="utf-8")),
            "after": modality_diagnostics(run.retrieval),
        },
    }
    if config.ranking.epochs:
        if run.ranking is None:
            ranking = RankingModel(config, run.retrieval)
            before = start if start is not None and start.ranks else None
            train(ranking, dataset, config.training, directory=progress / "ranking", start=before)
            shutil.copy(progress / "ranking/history.csv", run.directory / "ranking_history.csv")
            run.save_ranking(ranking)
    recommender = run.recommender()
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


def modality_diagnostics(model: RetrievalModel) -> dict[str, dict[str, float]]:
    """`mmrec_tf.evaluation.modality_gap.diagnose` of a catalog's modalities, as they leave the
    encoders ("encoded") and as alignment projects them ("aligned"); {} without modalities."""
    names = model.modalities
    if not names:
        return {}
    present = model.tables["present"].numpy()
    return {
        "encoded": diagnose([model.encode_catalog(name) for name in names], present, names),
        "aligned": diagnose(model.embed_catalog().modalities, present, names),
    }


def raise_for_empty(dataset: Dataset) -> None:
    """Raises DatasetError unless there is something to train on and to measure with."""
    for split in ("train", "valid"):
        if not len(dataset.interactions(split).user):
            raise DatasetError(
                f"{dataset.directory}: training wants interactions in the train and the valid "
                f"split; {split} has none. Prepare the dataset with a split that has them."
            )
