"""Linear maps from one modality's encoded vectors to another's, which say what a missing one would
be like (Lazaridou et al. 2014): fitted and applied in NumPy, and applied in a graph."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.towers.alignment.closed_form import cross_validated_l2, moments, ridge


class ModalityMap(NamedTuple):
    """A map between two modalities.

    Attributes:
      source, target: numbers of the modalities.
      kernel: <float32>[f of source, f of target].
      bias: <float32>[f of target].
      num_items: how many items it was fitted to.
      l2: the penalty that was chosen, in units of a feature's variance.
      explained: the share of the target's variance that it explains of an item that it was not
        fitted to, by generalized cross-validation.
    """

    source: int
    target: int
    kernel: np.ndarray
    bias: np.ndarray
    num_items: int
    l2: float
    explained: float


def fit_maps(
    encoded: Sequence[np.ndarray], present: np.ndarray, known: np.ndarray
) -> list[ModalityMap]:
    """Ridge regression of each modality on each other one, over the items that have both, with the
    penalty of `cross_validated_l2`.

    Args:
      encoded: one <float32>[item, f] per modality.
      present: <bool>[item, modality].
      known: <bool>[item], which items may be fitted to: those with train interactions.

    Returns:
      The maps, best first by what they explain. A pair that fewer than two items have, or where the
      one modality says nothing about the other, has none.

    Raises:
      RunError: for a vector that is not finite.
    """
    maps = []
    for source, target in np.ndindex(len(encoded), len(encoded)):
        rows = np.flatnonzero(present[:, source] & present[:, target] & known)
        if source == target or len(rows) < 2:
            continue
        of_rows = moments(encoded[source], encoded[target], rows)
        l2, explained = cross_validated_l2(of_rows)
        if explained <= 0:
            continue
        kernel = ridge(of_rows, l2=l2)
        bias = of_rows.target_mean - of_rows.feature_mean @ kernel
        kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
        maps.append(ModalityMap(source, target, kernel, bias, len(rows), l2, explained))
    return sorted(maps, key=lambda found: -found.explained)


def fill_mapped(
    encoded: Sequence[np.ndarray], present: np.ndarray, maps: Sequence[ModalityMap]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Fills an absent modality by the best map from one that the item has.

    Only what was there before is mapped. An item that has no modality with a map stays without.

    Args:
      encoded: one <float32>[item, f] per modality.
      present: <bool>[item, modality].
      maps: as `fit_maps` returns them.

    Returns:
      The arrays, new ones where something was filled in, and what is present now,
      <bool>[item, modality].
    """
    filled, now = list(encoded), present.copy()
    for found in maps:
        rows = np.flatnonzero(present[:, found.source] & ~now[:, found.target])
        if not len(rows):
            continue
        if filled[found.target] is encoded[found.target]:
            filled[found.target] = np.array(encoded[found.target])
        filled[found.target][rows] = encoded[found.source][rows] @ found.kernel + found.bias
        now[rows, found.target] = True
    return filled, now


class GraphMaps(tf.Module):
    """`fill_mapped` in a graph.

    Args:
      maps: as `fit_maps` returns them.
    """

    def __init__(self, maps: Sequence[ModalityMap]) -> None:
        super().__init__(name="modality_maps")
        self.pairs = [(found.source, found.target) for found in maps]
        # Variables, as constants would swell the graph.
        self.weights = [
            (tf.Variable(found.kernel, trainable=False), tf.Variable(found.bias, trainable=False))
            for found in maps
        ]

    def __call__(
        self, encoded: Sequence[tf.Tensor], present: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Fills one <float32>[batch, f] per modality, and <bool>[batch, modality]."""
        filled, now = list(encoded), tf.unstack(present, axis=1)
        for (source, target), (kernel, bias) in zip(self.pairs, self.weights, strict=True):
            rows = present[:, source] & ~now[target]
            mapped = tf.matmul(encoded[source], kernel) + bias
            filled[target] = tf.where(rows[:, None], mapped, filled[target])
            now[target] |= rows
        return filled, tf.stack(now, axis=1)
