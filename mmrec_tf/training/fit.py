"""`train`: seed, callbacks and Keras' `fit` in one call, for either stage."""

import pathlib
import sys
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.training.callbacks import HistoryRows, Progress, Validation
from mmrec_tf.training.stage import Stage


def train(
    model: Stage,
    dataset: Dataset,
    *,
    directory: str | pathlib.Path | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    measure_start: bool | None = None,
) -> tf.keras.callbacks.History:
    """Fits a model on the train split as its config says, and leaves it with the weights that were
    best on the valid split.

    On several devices, make the model and call this inside `with strategy.scope():` of one
    `tf.distribute.MirroredStrategy`, or, in each of several processes, of one
    `tf.distribute.MultiWorkerMirroredStrategy`. A batch of `training.batch_size` is then that of
    all replicas together, and they compare with each other's items, so that the retrieval loss is
    that of one device; contrastive alignment compares within each replica. Of several workers, only
    the chief writes to `directory`, which all must see.

    Args:
      model: RetrievalModel or RankingModel, made from `dataset`.
      dataset: Dataset, whose valid split is measured.
      directory: where epoch, weights, optimizer and `history.csv` are kept after each epoch, so
        that the same call goes on after a kill; None for nowhere.
      callbacks: further Keras callbacks.
      measure_start: whether the weights before the first epoch count as the best until an epoch is
        better; None for what the model says.

    Returns:
      Keras' History: by name one value an epoch; "valid_ndcg@10" or whatever
      `training.monitor` asks for among them.

    Raises:
      ConfigError: when no data service answers, or the warm-up is longer than the training.
      DatasetError: for a dataset with an empty train or valid split.
    """
    raise_for_empty(dataset)
    training = model.config.training
    directory = pathlib.Path(directory) if directory is not None else None
    tf.keras.utils.set_random_seed(training.seed)
    estimate = model.memory_estimate()
    if estimate:
        tqdm.write(f"{model.stage}: {estimate}", file=sys.stderr)
    validation = Validation(dataset, directory=directory, measure_start=measure_start)
    watched: list[tf.keras.callbacks.Callback] = [validation, Progress(model.stage), *callbacks]
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        watched.append(HistoryRows(directory / "history.csv"))
        # Kept when training ends: until the caller has saved the model, a kill may still come.
        backup = str(directory / "backup")
        watched.append(tf.keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False))
    model.compile()
    return model.fit(epochs=model.epochs, callbacks=watched, verbose=0)


def raise_for_empty(dataset: Dataset) -> None:
    """Raises DatasetError unless there is something to train on and to measure with."""
    for split in ("train", "valid"):
        if not len(dataset.interactions(split).user):
            raise DatasetError(
                f"{dataset.directory}: training wants interactions in the train and the valid "
                f"split; {split} has none. Prepare the dataset with a split that has them."
            )
