"""Random numbers that follow from the seed and the number of a training step.

TensorFlow's random operations keep their state in the process, where no checkpoint finds it. Within
`of_step` each draw follows from the step's number, which is in the optimizer's checkpoint, so that
training goes on after a kill as if there had been none. Anywhere else draws are TensorFlow's own.
"""

import contextlib
import contextvars
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf


class _Step(NamedTuple):
    seed: int
    part: int
    number: tf.Tensor
    counter: Iterator[int]


_STEP: contextvars.ContextVar[_Step | None] = contextvars.ContextVar("step", default=None)


@contextlib.contextmanager
def of_step(seed: int, number: tf.Tensor, part: int = 0) -> Iterator[None]:
    """Draws made in the block follow from these, and from how many were made before.

    Args:
      seed: of the training.
      number: <int64>[], updates so far.
      part: of the step, where it goes through its examples in parts.
    """
    token = _STEP.set(_Step(seed, part, number, itertools.count()))
    try:
        yield
    finally:
        _STEP.reset(token)


def uniform(
    shape: Any, minval: Any = 0, maxval: Any = None, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """As `tf.random.uniform`."""
    seed = _next_seed()
    if seed is None:
        return tf.random.uniform(shape, minval, maxval, dtype)
    return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


def normal(shape: Any, *, stddev: Any = 1.0, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """As `tf.random.normal`, of mean 0."""
    seed = _next_seed()
    if seed is None:
        return tf.random.normal(shape, stddev=stddev, dtype=dtype)
    return tf.random.stateless_normal(shape, seed, stddev=stddev, dtype=dtype)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Dropout(tf.keras.layers.Dropout):
    """Keras' Dropout (Srivastava et al. 2014), whose draws are those of this module."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Units set to zero at random in training, the others scaled up."""
        if not training or not self.rate:
            return tf.identity(inputs)
        kept = uniform(tf.shape(inputs)) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))


def _next_seed() -> tf.Tensor | None:
    """<int64>[2], another one for each draw of a step; None outside of a step."""
    step = _STEP.get()
    if step is None:
        return None
    text = repr((step.seed, step.part, next(step.counter)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    place = tf.constant(int.from_bytes(digest, "big", signed=True), tf.int64)
    seed = tf.stack([place, tf.cast(step.number, tf.int64)])
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)
