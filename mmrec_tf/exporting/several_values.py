"""Content as lists, `[batch, value]`: several pictures of an item, or the frames of a clip."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.catalog import Content
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.several import SeveralValues
from mmrec_tf.encoders.video.frames import Encoder as FramesEncoder
from mmrec_tf.media.video import split_frames
from mmrec_tf.schema import ModalitySpec


class Encoded(NamedTuple):
    """One modality of a batch, through its encoder.

    Attributes:
      vector: <float32>[batch, features], over what could be read; zeros for nothing.
      present: <bool>[batch], whether anything could be read.
      unreadable: <bool>[batch], whether anything came that could not be.
      heaviest: <int32>[batch], the place in its row of the value that weighed most; -1 for none,
        and where all that could be read count alike.
    """

    vector: tf.Tensor
    present: tf.Tensor
    unreadable: tf.Tensor
    heaviest: tf.Tensor


def values_spec(name: str, spec: ModalitySpec) -> tf.TensorSpec:
    """The input of one modality: <string>[batch, value], or <float32>[batch, value, dim] of
    ready-made vectors."""
    if spec.kind == "vector":
        return tf.TensorSpec([None, None, spec.dim], tf.float32, name=name)
    return tf.TensorSpec([None, None], tf.string, name=name)


def encode_values(encoder: ModalityEncoder, values: tf.Tensor, *, block: int) -> Encoded:
    """What training reads of an item, of each row: the vectors of its distinct values, pooled; or
    a clip of its frames, all that there are and in their order.

    A server that batches requests fills short lists up with the first element of a request's
    tensor, and clients lead each list with an empty one: empty means absent, and what stands there
    twice counts once.

    Args:
      encoder: of the modality.
      values: as `values_spec` says.
      block: so many values go through the encoder at a time, which bounds its memory.
    """
    if isinstance(encoder, FramesEncoder):
        return _encode_clips(encoder, values, block=block)
    batch = tf.shape(values)[0]
    place = tf.where(_first_of_its_kind(values))
    if isinstance(encoder, SeveralValues):
        return _encode_attended(encoder, values, place, block=block)
    row, flat = tf.cast(place[:, 0], tf.int32), tf.gather_nd(values, place)
    number = tf.shape(flat)[0]

    def step(
        start: tf.Tensor, total: tf.Tensor, count: tf.Tensor, bad: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        rows = row[start : start + block]
        content, unreadable = encoder.preprocess_readable(flat[start : start + block])
        vectors = tf.where(unreadable[:, None], 0.0, encoder(content, training=False))
        return (
            start + block,
            total + tf.math.unsorted_segment_sum(vectors, rows, batch),
            count + tf.math.unsorted_segment_sum(tf.cast(~unreadable, tf.float32), rows, batch),
            bad + tf.math.unsorted_segment_sum(tf.cast(unreadable, tf.float32), rows, batch),
        )

    nothing = tf.zeros([batch])
    _, total, count, bad = tf.while_loop(
        lambda start, *_: start < number,
        step,
        [tf.constant(0), tf.zeros([batch, encoder.output_dim]), nothing, nothing],
        shape_invariants=[
            tf.TensorShape([]),
            tf.TensorShape([None, encoder.output_dim]),
            *[tf.TensorShape([None])] * 2,
        ],
        parallel_iterations=1,
    )
    alike = tf.fill([batch], -1)
    return Encoded(total / tf.maximum(count, 1)[:, None], count > 0, bad > 0, alike)


def _encode_attended(
    encoder: SeveralValues, values: tf.Tensor, place: tf.Tensor, *, block: int
) -> Encoded:
    """As `encode_values`, of values <int64>[value, 2] that count by what attention says."""
    flat, shape = tf.gather_nd(values, place), tf.shape(values)[:2]
    vectors, bad = _in_blocks(encoder, encoder.preprocess_readable, flat, block=block)
    place = tf.cast(place, tf.int32)
    table = tf.scatter_nd(place, vectors, tf.concat([shape, [encoder.output_dim]], axis=0))
    table = tf.ensure_shape(table, [None, None, encoder.output_dim])
    read = tf.scatter_nd(place, tf.cast(~bad, tf.int32), shape) > 0
    unreadable = tf.scatter_nd(place, tf.cast(bad, tf.int32), shape) > 0
    vector, weights = encoder.pool(table, read)
    present = tf.reduce_any(read, axis=1)
    # A list of no values has none that weighs most, and argmax takes none of these.
    padded = tf.pad(tf.where(read, weights, -1.0), [[0, 0], [0, 1]], constant_values=-1.0)
    heaviest = tf.argmax(padded, axis=1, output_type=tf.int32)
    return Encoded(
        vector, present, tf.reduce_any(unreadable, axis=1), tf.where(present, heaviest, -1)
    )


def _encode_clips(encoder: FramesEncoder, values: tf.Tensor, *, block: int) -> Encoded:
    """As `encode_values`, of rows each of which is a clip."""
    batch = tf.shape(values)[0]
    clips = max(1, block // encoder.num_frames)
    vectors, bad = _in_blocks(encoder, encoder.preprocess_frames, values, block=clips)
    present = tf.reduce_any(tf.strings.length(values) > 0, axis=1) & ~bad
    vector = tf.where(present[:, None], vectors, 0.0)
    return Encoded(vector, present, bad, tf.fill([batch], -1))


def _in_blocks(
    encoder: ModalityEncoder,
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    rows: tf.Tensor,
    *,
    block: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows of raw content through an encoder, so many at a time: vectors <float32>[row, features],
    and which could not be read, <bool>[row].

    Args:
      encoder: ModalityEncoder.
      read: rows to their preprocessed content and which of them could not be read.
      rows: [row, ...], as `read` takes them.
      block: rows at a time.
    """
    number = tf.shape(rows)[0]

    def step(start: tf.Tensor, vectors: tf.Tensor, bad: tf.Tensor) -> tuple[tf.Tensor, ...]:
        content, unreadable = read(rows[start : start + block])
        found = encoder(content, training=False)
        return (
            start + block,
            tf.concat([vectors, found], axis=0),
            tf.concat([bad, unreadable], axis=0),
        )

    _, vectors, bad = tf.while_loop(
        lambda start, *_: start < number,
        step,
        [tf.constant(0), tf.zeros([0, encoder.output_dim]), tf.zeros([0], tf.bool)],
        shape_invariants=[
            tf.TensorShape([]),
            tf.TensorShape([None, encoder.output_dim]),
            tf.TensorShape([None]),
        ],
        parallel_iterations=1,
    )
    return vectors, bad


def _first_of_its_kind(values: tf.Tensor) -> tf.Tensor:
    """<bool>[batch, value]: neither empty nor equal to an earlier value of its row."""
    if values.dtype == tf.string:
        given, equal = tf.strings.length(values) > 0, tf.equal(values[:, :, None], values[:, None])
    else:
        given = tf.reduce_any(values != 0, axis=-1)
        equal = tf.reduce_all(tf.equal(values[:, :, None], values[:, None]), axis=-1)
    width = tf.shape(values)[1]
    earlier = tf.range(width)[None, :] < tf.range(width)[:, None]
    return given & ~tf.reduce_any(equal & earlier, axis=2)


def rows_of_values(
    content: np.ndarray | Content, rows: Sequence[int] | np.ndarray, *, kind: str = ""
) -> list[list[bytes | np.ndarray]]:
    """The values of some items of the catalog as a request brings them, none for those without.

    Args:
      content: of one modality.
      rows: numbers of items.
      kind: of the modality; of "video" a value is a clip, which becomes a list of its frames.
    """
    if kind == "video":
        return [
            [f for clip in clips for f in split_frames(bytes(clip))]
            for clips in rows_of_values(content, rows)
        ]
    if isinstance(content, Content):
        asked = np.zeros([len(content)], bool)
        asked[np.asarray(rows, np.int64)] = True
        found = dict(content.items(content.present & asked))
        return [list(found.get(int(row), [])) for row in rows]
    if content.dtype == object:
        return [[content[row]] if content[row] else [] for row in rows]
    return [[content[row]] if content[row].any() else [] for row in rows]


def table_of_values(
    spec: tf.TensorSpec, rows: Sequence[Sequence[bytes | np.ndarray]]
) -> np.ndarray:
    """Lists as one input, each row led by an empty value as clients send it.

    Returns:
      object[batch, value] of bytes or <float32>[batch, value, dim].
    """
    width = 1 + max(map(len, rows), default=0)
    if spec.dtype == tf.string:
        table = np.full([len(rows), width], b"", object)
    else:
        table = np.zeros([len(rows), width, spec.shape[-1]], np.float32)
    for place, values in enumerate(rows):
        for column, value in enumerate(values, 1):
            table[place, column] = value
    return table
