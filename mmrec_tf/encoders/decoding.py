"""Bytes of one row after the other to tensors: all of them, or those that can be read."""

from collections.abc import Callable

import tensorflow as tf

Decode = Callable[[tf.Tensor], tf.Tensor]


def decode_rows(decode: Decode, raw: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Decodes content that is known to be whole, as that of a dataset is.

    Args:
      decode: from bytes <string>[], never "", to one row.
      raw: <string>[batch]; "" for none.
      spec: of one row.

    Returns:
      [batch, ...]; zeros for "".

    Raises:
      tf.errors.InvalidArgumentError: for bytes that cannot be decoded.
    """

    def one(data: tf.Tensor) -> tf.Tensor:
        nothing = tf.equal(tf.strings.length(data), 0)
        row = tf.cond(nothing, lambda: tf.zeros(spec.shape, spec.dtype), lambda: decode(data))
        return tf.ensure_shape(row, spec.shape)

    return tf.map_fn(one, raw, fn_output_signature=spec)


def decode_readable(
    decode: Decode, raw: tf.Tensor, spec: tf.TensorSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes content that may be anything: a row that fails is one without content.

    An op that fails ends the whole run of a graph, and no op asks beforehand whether bytes can be
    decoded. A dataset within the graph can pass over what fails.

    Args:
      decode: as in `decode_rows`.
      raw: <string>[batch]; "" for none.
      spec: of one row.

    Returns:
      [batch, ...], zeros for "" and for what cannot be decoded; and <bool>[batch], True for the
      latter.
    """
    size = tf.size(raw, tf.int64)
    given = tf.where(tf.strings.length(raw) > 0)[:, 0]
    rows = tf.data.Dataset.from_tensor_slices((given, tf.gather(raw, given)))

    # Nothing of it branches on tensors in Python, and AutoGraph would rewrite all that is called.
    @tf.autograph.experimental.do_not_convert
    def one(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return row, tf.ensure_shape(decode(data), spec.shape)

    decoded = rows.map(one)
    # One extra row after the batch, so that there is always one to make a batch of.
    spare = tf.data.Dataset.from_tensors((size, tf.zeros(spec.shape, spec.dtype)))
    found = decoded.ignore_errors().concatenate(spare).batch(size + 1)
    row, value = found.get_single_element()
    shape = tf.stack([size + 1, *spec.shape.as_list()])
    content = tf.scatter_nd(row[:, tf.newaxis], value, shape)[:-1]
    whole = tf.scatter_nd(row[:, tf.newaxis], tf.ones_like(row), [size + 1])[:-1] > 0
    content = tf.ensure_shape(content, [None, *spec.shape])
    return content, (tf.strings.length(raw) > 0) & ~whole
