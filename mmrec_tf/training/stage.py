"""The contract of both stages: made whole from a config and a dataset, then plain Keras."""

import dataclasses
import os
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tqdm import tqdm

from mmrec_tf.config import Config, RetrievalConfig
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders.encoder import count_weights
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.evaluate import evaluate
from mmrec_tf.training.optimizer import build_optimizer
from mmrec_tf.training.step import apply_step

# What Keras' `compile` takes and these models would not read.
MOOT = ("loss", "metrics", "loss_weights", "weighted_metrics")


class Stage(tfrs.Model):
    """What `RetrievalModel` and `RankingModel` share.

    A stage is whole when it is made: it has its weights, and knows the catalog and the users of
    its dataset. From then on it is a Keras model: `compile`, `fit`, `evaluate`, `predict`,
    `summary`, `save_weights`, `load_weights` and callbacks do what they do for any other, also
    inside `strategy.scope()`.

    Weights are drawn by `training.seed`: the same config and dataset make the same model. The
    constructor sets the random state of Python, NumPy and TensorFlow for that, as
    `tf.keras.utils.set_random_seed` does.

    A child class sets `stage` and writes `compute_loss`, `call`, `batches`, `embed` and
    `rank_items`.

    Args:
      config: Config.
      dataset: Dataset, whose catalog, users and train split the model holds.

    Attributes:
      stage: str, "retrieval" or "ranking".
      config: Config.
      schema: Schema of the dataset.
      state: what is no weight: the dataset, encoders that do not train, tables.
    """

    stage = ""
    # Keras' BackupAndRestore deletes this attribute of an instance when training ends, and a later
    # `fit` would miss it.
    _training_state = None

    def __init__(self, config: Config, dataset: Dataset, **kwargs: Any):
        tf.keras.utils.set_random_seed(config.training.seed)
        super().__init__(**kwargs)
        # Metrics are those of all replicas already; Keras would add up what its workers have.
        self.distribute_reduction_method = "first"
        self.config = config
        self.schema = dataset.schema
        # Keras tracks layers in attributes and containers. A namespace hides what does not belong
        # into every epoch's checkpoint.
        self.state = types.SimpleNamespace(dataset=dataset)

    @property
    def dataset(self) -> Dataset:
        """The dataset that the model was made from."""
        return self.state.dataset

    @property
    def epochs(self) -> int:
        """How many epochs the config asks for."""
        return self.config.training.epochs

    @property
    def monitor(self) -> str:
        """What the config wants to be best on the valid split, such as "ndcg@10"."""
        return self.config.training.monitor

    @property
    def measure_start(self) -> bool:
        """Whether the weights before the first epoch may be the best: whether the model ranks
        before it is trained."""
        return False

    # Plain Keras

    def compile(
        self, optimizer: Any = None, *, jit_compile: bool | None = None, **kwargs: Any
    ) -> None:
        """Keras' `compile`.

        Args:
          optimizer: any Keras optimizer, or its name; None for the config's, see
            `mmrec_tf.training.optimizer.build_optimizer`. A schedule of the config counts the
            updates of `epochs` epochs of `batches("train")`.
          jit_compile: None for `training.jit_compile`.
          **kwargs: as of `tf.keras.Model.compile`; `steps_per_execution` is the config's unless it
            is given.

        Raises:
          ConfigError: for a loss or metrics, which a subclass brings along, not `compile`.
        """
        moot = [name for name in MOOT if kwargs.get(name)]
        if moot:
            raise ConfigError(
                f"compile: wanted no {', '.join(moot)}, which this model would not read: the loss "
                "is its `compute_loss`. Override that, give the subclass a tf.keras.metrics.Metric "
                "as an attribute, or measure in a callback."
            )
        training = self.config.training
        if optimizer is None:
            optimizer = self.default_optimizer()
        else:
            optimizer = tf.keras.optimizers.get(optimizer)
            scaled = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
            if training.mixed_precision and not scaled:
                optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
        if jit_compile is None:
            jit_compile = training.jit_compile
        kwargs.setdefault("steps_per_execution", training.steps_per_execution)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def default_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer that the config asks for."""
        return build_optimizer(self.config.training)

    def fit(
        self,
        x: Any = None,
        *args: Any,
        callbacks: Sequence[tf.keras.callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> tf.keras.callbacks.History:
        """Keras' `fit`, on `batches("train")` or any tf.data.Dataset of such batches.

        Args:
          x: batches with the entries of `batches("train").element_spec`; None for these.
          callbacks: Keras callbacks; those that the config needs, such as mining, are added.
          **kwargs: as of `tf.keras.Model.fit`.
        """
        for remark in self.remarks():
            tqdm.write(f"{self.stage}: {remark}", file=sys.stderr)
        given = list(callbacks or ())
        kinds = {type(callback) for callback in given}
        needed = [callback for callback in self.callbacks() if type(callback) not in kinds]
        batches = self.batches("train") if x is None else x
        build = getattr(self.optimizer, "build", None)
        if build is not None and not self.extended:
            # A step that makes its optimizer's moments is traced a second time, without that.
            with self.distribute_strategy.scope():
                build(self.trainable_variables)
        return super().fit(batches, *args, callbacks=[*needed, *given], **kwargs)

    def evaluate(
        self,
        x: Any = None,
        *args: Any,
        split: str = "test",
        ks: Iterable[int] = (10, 20),
        history: str = "train",
        **kwargs: Any,
    ) -> Any:
        """How good the model is: ranking metrics of a dataset, or the losses of batches.

        Args:
          x: Dataset, or None for the model's own: ranks every item for each user of `split`, see
            `mmrec_tf.evaluate`. Batches as `fit` takes them: Keras' `evaluate`.
          split: "valid" or "test".
          ks: cut-offs.
          history: what is known of users, "train" or, on test, "train+valid".
          **kwargs: as of `tf.keras.Model.evaluate`, with batches.

        Returns:
          By name such as "recall@10" the mean over users; with batches what Keras returns.
        """
        if x is None or isinstance(x, Dataset):
            return evaluate(self, x or self.dataset, split=split, ks=ks, history=history)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, k: int | None = None, **kwargs: Any) -> np.ndarray:
        """What the model makes of users, or of batches.

        Args:
          x: users, as ids (str) or as numbers <int>[n]; or batches as `fit` takes them, for what
            `call` makes of them.
          k: with users, how many items to rank; None for their embeddings.
          **kwargs: as of `tf.keras.Model.predict`, with batches.

        Returns:
          With users, their embeddings <float32>[n, dim], with several interests <float32>[n,
          interest, dim]; under `k` the numbers of items
          <int32>[n, k], best first, none of them among the user's train items; padded on the right
          with -1. With batches, what Keras returns.

        Raises:
          ConfigError: for an id that the dataset does not have, or `k` below 1.
        """
        if isinstance(x, (tf.data.Dataset, Mapping)):
            if k is not None:
                raise ConfigError("predict: k goes with users, not with batches. Leave it out.")
            return super().predict(x, *args, **kwargs)
        users = self._numbers(x)
        if k is None:
            return self.embed(users)
        if k < 1:
            raise ConfigError(f"k: wanted 1 or more; got {k}.")
        return self.rank_items(self.dataset, users, k=k)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `summary`, and a line on the weights that no checkpoint of this model holds."""
        super().summary(*args, **kwargs)
        frozen = count_weights(self.frozen_layers())
        if any(frozen.values()):
            said = ", ".join(f"{name} {count:,}" for name, count in frozen.items())
            (kwargs.get("print_fn") or print)(f"Frozen, beside the weights above: {said}")

    def save(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Refuses: a model alone knows no ids, and a whole SavedModel is `mmrec_tf.export`'s.

        Raises:
          ConfigError: always, naming `save_weights` and `export`.
        """
        raise ConfigError(
            f"save: wanted save_weights({str(filepath)!r}), or mmrec_tf.export(recommender, ...) "
            "for a SavedModel that answers by id. With ModelCheckpoint, set save_weights_only=True."
        )

    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """One step, see `apply_step`."""
        if self.needs_autograph:
            return apply_step(self, inputs)
        return tf.autograph.experimental.do_not_convert(apply_step)(self, inputs)

    def test_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """The losses of one batch without training."""
        loss = self.compute_loss
        if not self.needs_autograph:
            loss = tf.autograph.experimental.do_not_convert(loss)
        loss(inputs, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def extended(self) -> bool:
        """Whether this is a subclass from elsewhere, whose first step may make weights and whose
        steps may branch on tensors in Python."""
        return not type(self).__module__.startswith("mmrec_tf.")

    @property
    def needs_autograph(self) -> bool:
        """Whether steps are converted by AutoGraph, which rewrites the source of all that is called
        and so takes half of the time until the first one. This package's own branch by `tf.cond`.
        """
        return self.extended

    # What a child class writes

    def batches(
        self, split: str = "train", *, batch_size: int | None = None, seed: int | None = None
    ) -> tf.data.Dataset:
        """A split as this model learns from it.

        Args:
          split: "train", shuffled; "valid" or "test", in order.
          batch_size: of one update; None for `training.batch_size` times
            `training.accumulation_steps`.
          seed: of the order; None for `training.seed`.
        """
        raise NotImplementedError

    def embed(self, users: np.ndarray) -> np.ndarray:
        """The embeddings of users, <int>[n] -> <float32>[n, dim]."""
        raise NotImplementedError

    def rank_items(
        self, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
    ) -> np.ndarray:
        """As `mmrec_tf.evaluation.evaluate.Ranker` has it."""
        raise NotImplementedError

    def measure(self, dataset: Dataset, monitor: str) -> float:
        """One metric of the model on the valid split; higher is better."""
        _, _, k = monitor.partition("@")
        return evaluate(self, dataset, split="valid", ks=[int(k)])[monitor]

    def finish(self) -> None:
        """Fits what is fitted when the epochs are done; most models have nothing such."""

    def callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """What `fit` must call for the config to hold."""
        return []

    def frozen_layers(self) -> dict[str, tf.keras.layers.Layer]:
        """Layers that do not train and that no checkpoint of this model holds, by name."""
        return {}

    def memory_estimate(self) -> str | None:
        """What training holds in memory, in a line; None where nobody has counted."""
        return None

    def remarks(self) -> list[str]:
        """What whoever trains this should know first, a line each."""
        return []

    def not_repeated(self) -> list[str]:
        """What training that goes on after a kill does otherwise than without, a sentence each."""
        if not self.config.training.data_service:
            return []
        return ["batches come in the order in which the workers of the data service finish them."]

    # Helpers

    def _split_batches(
        self,
        split: str,
        batch_size: int | None,
        seed: int | None,
        *,
        as_served: bool = False,
        **options: Any,
    ) -> tf.data.Dataset:
        """As `batches`; `as_served` takes each example once, as the next item after the history
        that is read when it is recommended, whatever retrieval learns from."""
        training, retrieval, user = self.config.training, self.config.retrieval, self.config.user
        if as_served:
            retrieval = dataclasses.replace(
                retrieval, item_balance=0.0, next_items=1, fading=RetrievalConfig.fading
            )
            user = dataclasses.replace(user, training_window=0)
        train = split == "train"
        return self.dataset.batches(
            split,
            batch_size or training.batch_size * training.accumulation_steps,
            user=user,
            retrieval=retrieval,
            shuffle=train,
            seed=training.seed if seed is None else seed,
            data_service=training.data_service if train else "",
            **options,
        )

    def _numbers(self, users: Any) -> np.ndarray:
        """Users by id or by number -> <int64>[n]."""
        given = np.asarray(users)
        if given.ndim != 1:
            raise ConfigError(f"predict: wanted users as [n]; got shape {list(given.shape)}.")
        if given.dtype.kind in "iu":
            outside = given[(given < 0) | (given >= self.schema.num_users)]
            if len(outside):
                raise ConfigError(
                    f"predict: wanted numbers of users from 0 to {self.schema.num_users - 1}; got "
                    f"{outside[0]}."
                )
            return given.astype(np.int64)
        number = {name: row for row, name in enumerate(self.dataset.users.user_id)}
        unknown = [name for name in given.tolist() if name not in number]
        if unknown:
            raise ConfigError(
                f"predict: wanted ids of users of {self.dataset.directory}; got {len(unknown)} "
                f"that are none, such as {unknown[0]!r}. A Recommender answers unknown users."
            )
        return np.array([number[name] for name in given.tolist()], np.int64)
