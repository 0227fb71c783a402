"""The optimizer and its learning rates."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.config import TrainingConfig
from mmrec_tf.errors import ConfigError


class WarmupDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a line, then falls to 0 or stays.

    Args:
      learning_rate: float. The highest.
      warmup_steps: int. The update of that number is the first with the full rate.
      decay: "linear", "cosine" (Loshchilov and Hutter 2017, one period) or "none".
      steps: int. Updates of the whole training; the one after the last would have a rate of 0.
        Without a decay it means nothing.
    """

    def __init__(self, learning_rate: float, *, warmup_steps: int, decay: str, steps: int):
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.steps = steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """<int64>[], updates so far -> <float32>[]."""
        step = tf.cast(step, tf.float32)
        share = tf.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        if self.decay != "none":
            left = (self.steps - step) / max(self.steps - self.warmup_steps, 1)
            left = tf.clip_by_value(left, 0.0, 1.0)
            if self.decay == "cosine":
                left = (1 - tf.cos(math.pi * left)) / 2
            share *= left
        return self.learning_rate * share

    def get_config(self) -> dict[str, Any]:
        names = ("learning_rate", "warmup_steps", "decay", "steps")
        return {name: getattr(self, name) for name in names}


class AdamW(tf.keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) whose step takes as long for a table of any height.

    Where a gradient is `tf.IndexedSlices`, as that of an embedding table under sampled softmax,
    moments, decay and value of the rows that it names are updated, and those of no other: a row
    that no example met neither decays nor moves on with its momentum (LazyAdam). Gradients of one
    row are summed first. A row whose gradient is all zeros has not been met: unknown ids and
    padding stand on row 0. Other gradients are applied as in AdamW.

    Args:
      factors: pairs of a variable and the share of the learning rate that it takes, decay too.
      **kwargs: as of `tf.keras.optimizers.AdamW`.
    """

    def __init__(self, *, factors: Sequence[tuple[tf.Variable, float]] = (), **kwargs: Any) -> None:
        # Compiled apart, an update would be compiled anew for each number of rows.
        super().__init__(**{"jit_compile": False, **kwargs})
        self._factors = self._no_dependency(
            {self._var_key(variable): factor for variable, factor in factors}
        )

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Decays and updates one variable, or the rows of it that `gradient` names."""
        key, dtype = self._var_key(variable), variable.dtype
        m, v = (moments[self._index_dict[key]] for moments in (self._momentums, self._velocities))
        step = tf.cast(self.iterations + 1, dtype)
        rate = tf.cast(self.learning_rate, dtype) * self._factors.get(key, 1.0)
        power_1, power_2 = (tf.pow(tf.cast(b, dtype), step) for b in (self.beta_1, self.beta_2))
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        decay = rate * tf.cast(self.weight_decay if self._use_weight_decay(variable) else 0, dtype)
        if not isinstance(gradient, tf.IndexedSlices):
            m.assign_add((gradient - m) * (1 - self.beta_1))
            v.assign_add((tf.square(gradient) - v) * (1 - self.beta_2))
            variable.assign_sub(variable * decay + m * alpha / (tf.sqrt(v) + self.epsilon))
            return
        rows, values = gradient.indices, gradient.values
        axes = list(range(1, values.shape.rank))
        met = tf.cast(tf.reduce_any(values != 0, axis=axes, keepdims=True), dtype)
        old_m, old_v, old = (tf.gather(table, rows) for table in (m, v, variable))
        add_m = met * (values - old_m) * (1 - self.beta_1)
        add_v = met * (tf.square(values) - old_v) * (1 - self.beta_2)
        change = old * decay + (old_m + add_m) * alpha / (tf.sqrt(old_v + add_v) + self.epsilon)
        for table, add in ((m, add_m), (v, add_v), (variable, -met * change)):
            table.scatter_add(tf.IndexedSlices(add, rows))

    # Keras calls these three before `update_step`.

    def _clip_gradients(
        self, grads: Sequence[tf.Tensor | tf.IndexedSlices]
    ) -> list[tf.Tensor | tf.IndexedSlices]:
        """Sums the gradients of each row first: it is that sum's length that counts."""
        return super()._clip_gradients([sum_rows(gradient) for gradient in grads])

    def _deduplicate_sparse_grad(
        self, grads: Sequence[tf.Tensor | tf.IndexedSlices]
    ) -> Sequence[tf.Tensor | tf.IndexedSlices]:
        """Nothing: `_clip_gradients` has done it."""
        return grads

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        """Nothing: `update_step` decays the rows that it updates."""


def sum_rows(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    """Adds up the slices of each row. Shapes follow from shapes alone, as XLA needs it.

    Args:
      gradient: tf.IndexedSlices of n slices; anything else is returned as it is.

    Returns:
      tf.IndexedSlices of n slices: one for each row that occurs, and zeros for row 0 behind.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    size = tf.size(gradient.indices)
    _, place = tf.unique(gradient.indices)
    rows = tf.math.unsorted_segment_max(gradient.indices, place, size)
    values = tf.math.unsorted_segment_sum(gradient.values, place, size)
    return tf.IndexedSlices(values, tf.maximum(rows, 0), gradient.dense_shape)


def build_optimizer(
    training: TrainingConfig,
    *,
    learning_rate: float | None = None,
    steps: int | None = None,
    encoder_variables: Sequence[tf.Variable] = (),
) -> tf.keras.optimizers.Optimizer:
    """AdamW as the config says, with loss scaling under mixed precision.

    Args:
      training: TrainingConfig.
      learning_rate: a constant one, in place of `training`'s rate, warm-up and decay.
      steps: updates of the whole training, which a decay has to know.
      encoder_variables: those that take `training.encoder_learning_rate_factor` of the rate.

    Raises:
      ConfigError: when the warm-up takes all of the training, or more.
    """
    rate: float | WarmupDecay = training.learning_rate if learning_rate is None else learning_rate
    if learning_rate is None and (training.warmup_steps or training.decay != "none"):
        if steps is None:
            raise ConfigError(
                "training.warmup_steps, training.decay: wanted build_optimizer(steps=...), the "
                "number of updates of the whole training, with these settings; got None."
            )
        if training.warmup_steps >= steps:
            raise ConfigError(
                f"training.warmup_steps: wanted fewer than the {steps} updates of the whole "
                f"training; got {training.warmup_steps}. Lower it, or raise training.epochs."
            )
        rate = WarmupDecay(
            training.learning_rate,
            warmup_steps=training.warmup_steps,
            decay=training.decay,
            steps=steps,
        )
    optimizer = AdamW(
        learning_rate=rate,
        weight_decay=training.weight_decay,
        global_clipnorm=training.clip_norm or None,
        factors=[(v, training.encoder_learning_rate_factor) for v in encoder_variables],
    )
    if training.mixed_precision:
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
