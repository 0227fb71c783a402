"""`train`: seed, callbacks and Keras' `fit` in one call, for either stage."""

import pathlib
import sys
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError
from mmrec_tf.training.callbacks import Backup, HistoryRows, Progress, Validation
from mmrec_tf.training.stage import Stage


def train(
    model: Stage,
    dataset: Dataset,
    *,
    directory: str | pathlib.Path | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    measure_start: bool | None = None,
    epochs: int | None = None,
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
        that the same call goes on after a kill; None for nowhere. It ends with the figures that it
        would have had without the kill: what is drawn at random follows from the seed and the
        step. Where something does not, a line on stderr says so.
      callbacks: further Keras callbacks.
      measure_start: whether the weights before the first epoch count as the best until an epoch is
        better; None for what the model says.
      epochs: after how many epochs, those of earlier calls with the same `directory` among them, to
        stop for now; None for all that the config asks for. A later call with more goes on, and
        ends where one call would have: schedules are those of the config's epochs throughout.

    Returns:
      Keras' History: by name one value an epoch; "valid_ndcg@10" or whatever
      `training.monitor` asks for among them. Of a retrieval model these are of the towers; the
      head that `item_head` asks for is fitted when they are trained.

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
    model.compile()
    batches, done = model.batches("train"), 0
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        # Last, so that whatever stops training has said so. It is kept when training ends: until
        # the caller has saved the model, a kill may still come.
        backup = Backup(directory)
        watched += [HistoryRows(directory / "history.csv"), backup]
        done = backup.epochs_done(model)
        if done:
            for part in model.not_repeated():
                tqdm.write(f"{model.stage}: after the interruption, {part}", file=sys.stderr)
    for _ in range(done):
        iter(batches)  # each pass has an order of its own, the next one that of the next epoch
    history = model.fit(
        batches,
        initial_epoch=done,
        epochs=model.epochs if epochs is None else min(epochs, model.epochs),
        callbacks=watched,
        verbose=0,
    )
    model.finish()
    return history


def raise_for_empty(dataset: Dataset) -> None:
    """Raises DatasetError unless there is something to train on and to measure with."""
    for split in ("train", "valid"):
        if not len(dataset.interactions(split).user):
            raise DatasetError(
                f"{dataset.directory}: training wants interactions in the train and the valid "
                f"split; {split} has none. Prepare the dataset with a split that has them."
            )
