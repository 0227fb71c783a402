"""What both towers are made of: rows of ids, side features, time gaps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.schema import FeatureSpec

# Gaps from a second to 68 years, each number twice as long as the one before.
NUM_GAPS = 32


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Rows scaled to unit length; a row of zeros stays finite.

    Args:
      vectors: [..., dim].

    Returns:
      <float32>[..., dim].
    """
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1, epsilon=1e-8)


def keep(shape: tf.Tensor, rate: float, training: bool) -> tf.Tensor:
    """<bool>[shape]: False for a random share `rate` while training, else True."""
    if not training or rate == 0.0:
        return tf.ones(shape, tf.bool)
    return draws.uniform(shape) >= rate


def gap_number(seconds: tf.Tensor) -> tf.Tensor:
    """The number of a time gap: 0 for less than a second, one more for each doubling.

    Args:
      seconds: <float32>[...], below 0 where the gap is not known.

    Returns:
      <int32>[...], 0 to `NUM_GAPS` - 1; -1 where the gap is not known.
    """
    doublings = tf.math.log1p(tf.maximum(seconds, 0.0)) / np.log(2.0)
    number = tf.minimum(tf.cast(doublings, tf.int32), NUM_GAPS - 1)
    return tf.where(seconds >= 0, number, -1)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class IdEmbedding(tf.keras.layers.Layer):
    """A learned row for each known id, zeros for an unknown one (-1).

    Args:
      num_ids: int. Ids are numbered 0 to num_ids - 1.
      dim: int. Width of a row.
    """

    def __init__(self, num_ids: int, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_ids = num_ids
        self.dim = dim

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_ids": self.num_ids, "dim": self.dim}

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(
            name="table",
            shape=[max(self.num_ids, 1), self.dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5 * 0.1),
        )
        super().build(input_shape)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """<int32>[...] -> <float32>[..., dim]."""
        rows = tf.gather(self.table, tf.maximum(ids, 0))
        return tf.where((ids >= 0)[..., None], rows, tf.zeros_like(rows))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class SideFeatures(tf.keras.layers.Layer):
    """Categorical and numeric side features summed into one vector.

    Args:
      sizes: name -> number of category rows (`FeatureSpec.num_categories`), 0
        for a numeric feature.
      dim: int. Width of the vector.
    """

    def __init__(self, sizes: Mapping[str, int], dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = dict(sizes)
        self.dim = dim

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sizes": self.sizes, "dim": self.dim}

    @staticmethod
    def sizes_of(features: Mapping[str, FeatureSpec]) -> dict[str, int]:
        """The `sizes` argument for a schema's features."""
        return {
            name: spec.num_categories if spec.kind == "categorical" else 0
            for name, spec in features.items()
        }

    def build(self, input_shape: Any) -> None:
        self.tables = {
            name: self.add_weight(
                name=name,
                shape=[max(size, 1), self.dim],
                initializer=tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5 * 0.1),
            )
            for name, size in self.sizes.items()
        }
        super().build(input_shape)

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Sums the features' vectors.

        Args:
          features: by name, <int32>[batch, width] for a category (0: none, 1: out of
            vocabulary), <float32>[batch, 2] for a number (value, 1 where it is known).

        Returns:
          <float32>[batch, dim].
        """
        total = 0.0
        for name, size in self.sizes.items():
            table, value = self.tables[name], features[name]
            if size:
                rows = tf.gather(table, value)
                known = tf.cast(value > 0, rows.dtype)[..., None]
                total += tf.math.divide_no_nan(
                    tf.reduce_sum(rows * known, axis=1), tf.reduce_sum(known, axis=1)
                )
            else:
                total += tf.cast(value[:, :1] * value[:, 1:], self.compute_dtype) * table
        return total
