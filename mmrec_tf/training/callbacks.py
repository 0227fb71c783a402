"""Keras callbacks of this package: `Validation`, `Backup`, `Mining`, `HistoryRefresh`,
`HistoryRows` and `Progress`."""

import csv
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.records.files import replace_file
from mmrec_tf.records.progress import show_progress
from mmrec_tf.training.checkpoints import is_chief, keep_state, kept_state, load_weights
from mmrec_tf.training.stage import Stage
from mmrec_tf.training.weight_average import WeightAverage

# Of so many of the highest items of a user, mined negatives are drawn.
MINED = 100


class Validation(tf.keras.callbacks.Callback):
    """Measures the model on the valid split after each epoch, keeps the best weights and stops
    when they have not got better for `patience` epochs.

    What was measured is in the epoch's logs as "valid_ndcg@10" or the like, for the callbacks
    after this one; the model is left with the best weights. Under `training.average_epochs` n above
    1 it measures, and keeps, the mean of the weights after the last n epochs, while training goes
    on with its own.

    Args:
      dataset: Dataset.
      monitor: str such as "ndcg@10"; None for what the model's config says.
      patience: int. 0 never stops; None for what the model's config says.
      directory: where the best weights so far survive a kill; None keeps them in memory only.
      measure_start: whether the weights before the first epoch may be the best; None for what the
        model says.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        monitor: str | None = None,
        patience: int | None = None,
        directory: pathlib.Path | None = None,
        measure_start: bool | None = None,
    ):
        super().__init__()
        self.dataset = dataset
        self.monitor = monitor
        self.patience = patience
        self.directory = directory
        self.measure_start = measure_start
        self.best, self.best_epoch = -np.inf, -1
        self.weights: list[np.ndarray] | None = None
        self.average: WeightAverage | None = None

    def set_model(self, model: Stage) -> None:
        """Takes from the model's config what was not given."""
        super().set_model(model)
        self.monitor = self.monitor or model.monitor
        if self.patience is None:
            self.patience = model.config.training.patience
        if self.measure_start is None:
            self.measure_start = model.measure_start

    def measure(self) -> float:
        """The monitored metric of the model as it is."""
        return self.model.measure(self.dataset, self.monitor)

    def on_train_begin(self, logs: dict | None = None) -> None:
        epochs = self.model.config.training.average_epochs
        self.average = WeightAverage(self.model, epochs, self.directory)
        facts = kept_state(self.directory, "best") if self.directory else None
        if self.directory is not None and facts is not None:
            self.best, self.best_epoch = facts["best"], facts["epoch"]
            # The best weights are kept, not trained on: where to go on from is the backup's say.
            current = self.model.get_weights()
            load_weights(self.directory / facts["folder"], model=self.model)
            self.weights = self.model.get_weights()
            self.model.set_weights(current)
        elif self.measure_start:
            self._keep(self.measure(), -1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert self.average is not None
        self.average.add(epoch)
        with self.average.applied():
            value = self.measure()
            better = value > self.best
            if better:
                self._keep(value, epoch)
        if logs is not None:
            logs[f"valid_{self.monitor}"] = value
        if not better and self.patience and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.weights is not None:
            self.model.set_weights(self.weights)

    def _keep(self, value: float, epoch: int) -> None:
        self.best, self.best_epoch = value, epoch
        self.weights = self.model.get_weights()
        if self.directory is not None:
            keep_state(self.directory, "best", epoch, {"best": value}, model=self.model)


class Backup(tf.keras.callbacks.Callback):
    """Keeps after each epoch all that the next one depends on: weights, optimizer, what was mined,
    and whether training is over; puts it back as training begins. It stands last, behind those
    that may stop training or read other weights.

    Args:
      directory: where it is kept. Each epoch takes the place of the one before.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__()
        self.directory = directory
        self.facts = kept_state(directory, "backup")

    def epochs_done(self, model: Stage) -> int:
        """How many epochs are done; all of them where training had stopped early."""
        if self.facts is None:
            return 0
        return model.epochs if self.facts["stopped"] else self.facts["epoch"] + 1

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.facts is None:
            return
        model = self.model
        parts: dict[str, Any] = {"model": model}
        if self.facts["mined"]:
            start = tf.zeros(self.facts["mined"], tf.int32)
            model.state.mined = tf.Variable(start, trainable=False)
            parts["mined"] = model.state.mined
        load_weights(self.directory / self.facts["folder"], **parts)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        mined = getattr(self.model.state, "mined", None)
        facts = {
            "stopped": bool(self.model.stop_training),
            "mined": None if mined is None else mined.shape.as_list(),
        }
        parts = {} if mined is None else {"mined": mined}
        keep_state(self.directory, "backup", epoch, facts, model=self.model, **parts)


class Mining(tf.keras.callbacks.Callback):
    """Finds, every few epochs, the items that the model ranks highest for each user and that are
    not among the user's train items: the negatives of `retrieval.num_mined_negatives`.

    Args:
      dataset: Dataset.
    """

    def __init__(self, dataset: Dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        model, settings = self.model, self.model.config.retrieval
        if model.state.mined is not None and epoch % settings.mining_epochs:
            return
        users = np.arange(self.dataset.schema.num_users)
        k = max(MINED, settings.num_mined_negatives)
        mined = model.rank_items(self.dataset, users, k=k)
        if model.state.mined is None:
            # A variable, as the step is traced once.
            model.state.mined = tf.Variable(mined, trainable=False)
        else:
            model.state.mined.assign(mined)


class HistoryRefresh(tf.keras.callbacks.Callback):
    """Embeds the catalog anew for `user.history_embedding` cached: as an epoch begins, whatever a
    kill had left, and within it every `user.refresh_steps` steps."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.model.refresh_histories()
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        every = self.model.config.user.refresh_steps
        # Keras may take several steps before it says so.
        if every and (batch + 1) // every > self.steps:
            self.steps = (batch + 1) // every
            self.model.refresh_histories()


class HistoryRows(tf.keras.callbacks.Callback):
    """Writes each epoch to a CSV file when it ends, so that a kill loses none.

    Args:
      path: the file; rows of earlier epochs, from before a kill, stay.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not is_chief():
            return
        rows = {}
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
        rows[epoch] = {"epoch": epoch, **(logs or {})}
        with (
            replace_file(self.path) as aside,
            aside.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[epoch]))
            writer.writeheader()
            writer.writerows(rows[number] for number in sorted(rows))


class Progress(tf.keras.callbacks.Callback):
    """A bar on stderr for each epoch, so that stdout stays free for results."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        desc = f"{self.name} epoch {epoch + 1}/{self.params['epochs']}"
        self.done = 0
        self.bar = show_progress(total=self.params["steps"], desc=desc, unit="batch")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # Keras may take several steps before it says so.
        self.bar.update(batch + 1 - self.done)
        self.done = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in (logs or {}).items()})
        self.bar.close()
