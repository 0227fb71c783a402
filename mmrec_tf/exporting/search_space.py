"""The space in which content of any modality is searched for by content of any other."""

import numpy as np
import tensorflow as tf

from mmrec_tf.towers import TowerOutput

# Unit vectors that differ by less than this from their mean differ by little more than rounding: as
# long as any other, they would point anywhere, and elsewhere in another batch.
LEAST = 0.01
# Likewise what is left of an item's modalities when they are summed up.
LEAST_SUM = 0.1


class SearchSpace(tf.Module):
    """Where content of any modality lies beside that of any other.

    Alignment brings an item's modalities near each other, but leaves each of them in a region of
    its own (the modality gap, Liang et al. 2022), so that words would find words and no sound.
    Here each modality is centered on its mean over the catalog first; an item, or a request, lies
    at the mean of what it has. What hardly differs from the mean stays short, and so finds nothing
    with a high score.

    Args:
      catalog: TowerOutput of all items.
    """

    def __init__(self, catalog: TowerOutput):
        super().__init__(name="search_space")
        here = np.asarray(catalog.present, np.float32)[:, :, None]
        aligned = tf.math.l2_normalize(tf.cast(catalog.modalities, tf.float32), axis=2).numpy()
        mean = (aligned * here).sum(axis=0) / np.maximum(here.sum(axis=0), 1)
        self.mean = tf.Variable(mean, trainable=False, name="mean")

    def __call__(self, output: TowerOutput) -> tf.Tensor:
        """<float32>[batch, dim], of unit length, or shorter where there is little to tell; zeros
        where no modality is there."""
        aligned = tf.math.l2_normalize(tf.cast(output.modalities, tf.float32), axis=2)
        centered = tf.math.l2_normalize(aligned - self.mean, axis=2, epsilon=LEAST**2)
        here = tf.cast(output.present, tf.float32)[:, :, None]
        total = tf.reduce_sum(centered * here, axis=1)
        return tf.math.l2_normalize(total, axis=1, epsilon=LEAST_SUM**2)
