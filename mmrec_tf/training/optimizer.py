"""The optimizer, its learning rates, and one training step."""

import math
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs

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

    def __call__(self, step):
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

    def get_config(self) -> dict:
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

    def __init__(self, *, factors: Sequence[tuple[tf.Variable, float]] = (), **kwargs):
        # Compiled apart, an update would be compiled anew for each number of rows.
        super().__init__(**{"jit_compile": False, **kwargs})
        self._factors = self._no_dependency(
            {self._var_key(variable): factor for variable, factor in factors}
        )

    def update_step(self, gradient, variable):
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

    def _clip_gradients(self, grads):
        """Sums the gradients of each row first: it is that sum's length that counts."""
        return super()._clip_gradients([sum_rows(gradient) for gradient in grads])

    def _deduplicate_sparse_grad(self, grads):
        """Nothing: `_clip_gradients` has done it."""
        return grads

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` decays the rows that it updates."""


def sum_rows(gradient):
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
):
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


def apply_step(model: tfrs.Model, inputs) -> dict:
    """One training step of a model with `compute_loss`; unlike `tfrs.Model.train_step` it scales
    the loss for mixed precision and for the number of replicas, over which gradients are summed.

    With `training.accumulation_steps` n, `inputs` are n batches in one. They are taken apart and
    gone through one after the other, so that activations of one are held at a time, and make one
    update, in which each example counts the same. The batches are of equal size: those of an
    epoch's last update are smaller, not fewer.

    Args:
      model: a compiled tfrs.Model with a `config`.
      inputs: a batch; each tensor has one row an example.

    Returns:
      The model's metrics by name.
    """
    optimizer = model.optimizer
    scaled = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    total: list = []
    for part, share in _parts(inputs, model.config.training.accumulation_steps):
        # One after the other: by itself the graph would go through all of them at once.
        with tf.control_dependencies(tf.nest.flatten(total, expand_composites=True)):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(part, training=True)
                loss += tf.add_n(model.losses) if model.losses else 0.0
                loss *= share / tf.distribute.get_strategy().num_replicas_in_sync
                target = optimizer.get_scaled_loss(loss) if scaled else loss
            variables = model.trainable_variables
            found = tape.gradient(target, variables)
        # A part that this config leaves out of the loss has no gradient.
        known = [(g, v) for g, v in zip(found, variables, strict=True) if g is not None]
        gradients = [gradient for gradient, _ in known]
        total = list(map(_add, total, gradients)) if total else gradients
    if scaled:
        total = optimizer.get_unscaled_gradients(total)
    optimizer.apply_gradients([(g, v) for g, (_, v) in zip(total, known, strict=True)])
    return {metric.name: metric.result() for metric in model.metrics}


def _parts(inputs, count: int) -> list[tuple]:
    """Batches of equal size, and the share that each has of the examples."""
    if count == 1:
        return [(inputs, 1.0)]
    parts = []
    size = tf.shape(tf.nest.flatten(inputs)[0])[0]
    for i in range(count):
        start, stop = size * i // count, size * (i + 1) // count
        # A replica may be left without any example.
        share = tf.math.divide_no_nan(tf.cast(stop - start, tf.float32), tf.cast(size, tf.float32))
        # Where there are fewer examples than batches, one in a batch of none counts for nothing.
        rows = slice(start, tf.maximum(stop, start + 1))
        part = tf.nest.map_structure(lambda value, rows=rows: value[rows], inputs)
        parts.append((part, share))
    return parts


def _add(one, other):
    """The sum of two gradients of one variable; slices stay slices."""
    if isinstance(one, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.concat([one.values, other.values], axis=0),
            tf.concat([one.indices, other.indices], axis=0),
            one.dense_shape,
        )
    return one + other
