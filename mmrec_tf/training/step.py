"""One training step, on one device or on several."""

from collections.abc import Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.dataset import draws


def apply_step(model: tfrs.Model, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
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
    training = model.config.training
    for number, (part, share) in enumerate(_parts(inputs, training.accumulation_steps)):
        # One after the other: by itself the graph would go through all of them at once.
        with (
            tf.control_dependencies(tf.nest.flatten(total, expand_composites=True)),
            draws.of_step(training.seed, tf.convert_to_tensor(optimizer.iterations), number),
        ):
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


def _parts(inputs: Mapping[str, tf.Tensor], count: int) -> list[tuple]:
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


def _add(
    one: tf.Tensor | tf.IndexedSlices, other: tf.Tensor | tf.IndexedSlices
) -> tf.Tensor | tf.IndexedSlices:
    """The sum of two gradients of one variable; slices stay slices."""
    if isinstance(one, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.concat([one.values, other.values], axis=0),
            tf.concat([one.indices, other.indices], axis=0),
            one.dense_shape,
        )
    return one + other


def gather_replicas(*values: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Values of all replicas behind one another, in the order of the replicas, with gradients.

    Args:
      values: [batch, ...] each, where batch may differ among the replicas.

    Returns:
      The values [all batches, ...]; as they are where there is one replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    # TensorFlow gathers to the device that what it is given is on, here and in the gradient. Where
    # a worker has one replica, that runs outside any device's scope.
    devices = tf.distribute.get_strategy().extended.worker_devices
    with tf.device(devices[0] if len(devices) == 1 else None):
        return tuple(context.all_gather(tf.identity(value), axis=0) for value in values)


def mean_over_replicas(values: tf.Tensor) -> tf.Tensor:
    """The mean of one value an example, so scaled that the mean of what the replicas get is the
    mean over the examples of all, though one may have fewer than another, or none.

    Args:
      values: <float32>[batch], where batch may differ among the replicas.

    Returns:
      <float32>[].
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.reduce_mean(values)
    size = context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.cast(tf.size(values), tf.float32))
    return tf.reduce_sum(values) / size
