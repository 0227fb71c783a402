"""What is absent counts for nothing: softmax and vectors under a mask."""

import tensorflow as tf


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis among the entries that `mask` allows.

    Args:
      logits: <float32>[..., n].
      mask: <bool>[..., n].

    Returns:
      <float32>[..., n]; each row sums to 1, or is all zeros where the mask allows nothing.
    """
    logits = tf.where(mask, logits, tf.constant(-1e9, logits.dtype))
    weights = tf.nn.softmax(logits, axis=-1)
    return tf.where(mask, weights, tf.zeros_like(weights))


def blank(modalities: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """[batch, modality, dim] with zeros in place of what is not present, whatever stood there."""
    return tf.where(present[:, :, None], modalities, tf.zeros_like(modalities))
