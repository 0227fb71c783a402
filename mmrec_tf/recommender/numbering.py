"""Ids to numbers and back, in a graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class Numbering(tf.Module):
    """A table from ids to their numbers.

    The table is filled from a variable: who loads an export restores variables first, and fills
    tables then. As constants, ids would stand in the graph, and protobuf reads no more than 2 GB
    of it.

    Args:
      ids: object[n] of str.

    Attributes:
      ids: tf.Variable <string>[n + 1], by number, and "" at the end.
    """

    def __init__(self, ids: np.ndarray | Sequence[str]):
        super().__init__(name="numbering")
        # A table cannot be empty.
        self.ids = tf.Variable([*ids, ""], trainable=False, name="ids", dtype=tf.string)
        self.table = tf.lookup.StaticHashTable(_FromVariable(self.ids), default_value=-1)

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """<string>[...] -> <int32>[...], -1 for an unknown id and for ""."""
        return self.table.lookup(ids)


class _FromVariable(tf.lookup.KeyValueTensorInitializer):
    """Reads the keys of a table when it is filled."""

    def __init__(self, ids: tf.Variable):
        # What it would fill a table with itself: constants.
        super().__init__([""], [-1], key_dtype=tf.string, value_dtype=tf.int32)
        self.ids = ids

    def initialize(self, table: tf.lookup.StaticHashTable) -> tf.Operation:
        """Adds all ids to a table."""
        ids = tf.convert_to_tensor(self.ids)
        number = tf.range(tf.size(ids))
        return tf.raw_ops.LookupTableImportV2(
            table_handle=table.resource_handle,
            keys=ids,
            values=tf.where(number < tf.size(ids) - 1, number, -1),
        )
