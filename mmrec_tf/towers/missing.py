"""What stands in for a modality that an item lacks: copied from other items before training, in
NumPy, or put there by a layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import sparse

from mmrec_tf.config import MISSING
from mmrec_tf.errors import ConfigError
from mmrec_tf.towers.masking import blank

# Similarities held at a time: 64 MiB for each of a few arrays.
MAX_CELLS = 2**24


def fill_nearest(
    encoded: Sequence[np.ndarray], present: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Copies an absent modality from the nearest item that has it.

    Nearest is the item of highest cosine, averaged over the modalities that both items have; of
    equal ones the lower number. An item that has nothing in common with any item that has the
    modality stays without. Only what was there before is compared and copied.

    Time grows with the number of incomplete items times that of all; memory does not.

    Args:
      encoded: one <float32>[item, f] per modality.
      present: <bool>[item, modality].

    Returns:
      The arrays, new ones where something was filled in, and what is present now,
      <bool>[item, modality].
    """
    present = np.asarray(present, bool)
    inverse = [_inverse_length(values, present[:, m]) for m, values in enumerate(encoded)]
    source = np.full(present.shape, -1, np.int64)
    asking = np.flatnonzero(present.any(axis=1) & ~present.all(axis=1))
    size = max(1, MAX_CELLS // max(len(present), 1))
    for start in range(0, len(asking), size):
        rows = asking[start : start + size]
        total = np.zeros([len(rows), len(present)], np.float32)
        shared = np.zeros_like(total)
        for m, values in enumerate(encoded):
            mine = np.flatnonzero(present[rows, m])
            # With all rows, as a choice of them would copy the table; absent ones are left out.
            cosine = (values[rows[mine]] * inverse[m][rows[mine], None]) @ np.asarray(values).T
            total[mine] += np.where(present[:, m], cosine * inverse[m], 0.0)
            shared[mine] += present[:, m]
        similarity = np.divide(total, shared, out=np.full_like(total, -np.inf), where=shared > 0)
        for m in range(len(encoded)):
            lacking = np.flatnonzero(~present[rows, m])
            among = np.where(present[:, m], similarity[lacking], -np.inf)
            nearest = among.argmax(axis=1)
            found = among[np.arange(len(lacking)), nearest] > -np.inf
            source[rows[lacking[found]], m] = nearest[found]
    filled = []
    for m, values in enumerate(encoded):
        rows = np.flatnonzero(source[:, m] >= 0)
        filled.append(_with_rows(values, rows, values[source[rows, m]]))
    return filled, present | (source >= 0)


def fill_from_neighbors(
    encoded: Sequence[np.ndarray],
    present: np.ndarray,
    head: np.ndarray,
    tail: np.ndarray,
    num_items: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Fills an absent modality with the mean of an item's neighbors in the knowledge graph.

    Neighbors are the items that a triple links with the item, in either direction; where none of
    them has the modality, the items that share an entity with it, each as often as entities are
    shared. An item without such a neighbor stays without. Only what was there before is averaged.

    Args:
      encoded: one <float32>[item, f] per modality.
      present: <bool>[item, modality].
      head: <int32>[triple], nodes: items below `num_items`, then other entities, as in
        `mmrec_tf.records.Triples`.
      tail: <int32>[triple], nodes.
      num_items: int.

    Returns:
      The arrays, new ones where something was filled in, and what is present now,
      <bool>[item, modality].
    """
    present = np.asarray(present, bool)
    # A link that stands twice, or with two relations, is one link.
    ends = np.concatenate([np.stack([head, tail], 1), np.stack([tail, head], 1)])
    ends = np.unique(ends[ends[:, 0] < num_items].astype(np.int64), axis=0)
    in_graph = np.zeros([num_items], bool)
    in_graph[ends[:, 0]] = True
    to_item = ends[:, 1] < num_items
    num_entities = int(ends[:, 1].max(initial=num_items)) + 1 - num_items
    link = _links(ends[to_item], [num_items, num_items])
    share = _links(ends[~to_item] - [0, num_items], [num_items, num_entities])
    filled, now = [], present.copy()
    for m, values in enumerate(encoded):
        donors = np.flatnonzero(present[:, m] & in_graph)
        asking = np.flatnonzero(~present[:, m] & in_graph)
        given = values[donors]
        direct = link[asking][:, donors]
        sums, counts = direct @ given, direct.sum(axis=1)
        # By way of the entities, since items by items may be many.
        of_entity = share[donors].T
        other = np.flatnonzero(counts == 0)
        sums[other] = share[asking[other]] @ (of_entity @ given)
        counts[other] = share[asking[other]] @ of_entity.sum(axis=1)
        found = counts > 0
        filled.append(_with_rows(values, asking[found], sums[found] / counts[found, None]))
        now[asking[found], m] = True
    return filled, now


def _links(ends: np.ndarray, shape: list[int]) -> sparse.csr_array:
    ones = np.ones([len(ends)], np.float32)
    return sparse.csr_array((ones, (ends[:, 0], ends[:, 1])), shape=shape)


def _inverse_length(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """<float32>[item]: 1 / length of a row; 0 for a row that is absent or zeros."""
    inverse = np.zeros([len(values)], np.float32)
    rows = np.flatnonzero(present)
    length = np.linalg.norm(values[rows], axis=1)
    inverse[rows] = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return inverse


def _with_rows(values: np.ndarray, rows: np.ndarray, filling: np.ndarray) -> np.ndarray:
    """A copy with some rows replaced; the array itself where there are none."""
    if not len(rows):
        return values
    copy = np.array(values)
    copy[rows] = filling
    return copy


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class MissingModality(tf.keras.layers.Layer):
    """What fusion sees in place of a modality that an item lacks.

    Args:
      kind: str. "skip": nothing. "token": a learned vector for each modality. "mean": the moving
        mean of the vectors of the items that have it, updated in training as in
        `tf.keras.layers.BatchNormalization`. "nearest" and "mapped": nothing, as what could be
        filled was filled by `fill_nearest` or `fill_mapped` before.

    Raises:
      ConfigError: for an unknown kind.
    """

    momentum = 0.99

    def __init__(self, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kind not in MISSING:
            raise ConfigError(f"missing: wanted one of {', '.join(MISSING)}; got {kind!r}.")
        self.kind = kind

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}

    def build(self, input_shape: Any) -> None:
        if self.kind == "token":
            # As long as the unit vectors that it stands among.
            self.token = self.add_weight(
                name="token",
                shape=input_shape[1:],
                initializer=tf.keras.initializers.RandomNormal(stddev=input_shape[2] ** -0.5),
            )
        if self.kind == "mean":
            self.mean = self.add_weight(
                name="mean",
                shape=input_shape[1:],
                initializer="zeros",
                dtype=tf.float32,
                trainable=False,
                experimental_autocast=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
        super().build(input_shape)

    def call(
        self, modalities: tf.Tensor, present: tf.Tensor, used: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Puts a stand-in where a modality is not used.

        Args:
          modalities: <float32>[batch, modality, dim].
          present: <bool>[batch, modality], what the items have; "mean" is the mean of these.
          used: <bool>[batch, modality], what of that modality dropout left. What it hid gets a
            stand-in too.
          training: whether the moving mean moves.

        Returns:
          The modalities <float32>[batch, modality, dim] and which of them fusion may use,
          <bool>[batch, modality]: `used`, or all of those of an item that has any. An item of
          which nothing is used stays with nothing.
        """
        if self.kind == "mean":
            if training:
                self._move(tf.cast(blank(modalities, present), tf.float32), present)
            stand_in = self.mean
        elif self.kind == "token":
            stand_in = self.token
        else:
            return modalities, used
        filled = tf.where(used[:, :, None], modalities, tf.cast(stand_in, modalities.dtype))
        usable = tf.reduce_any(used, axis=1, keepdims=True) | tf.zeros_like(used)
        return filled, usable

    def _move(self, modalities: tf.Tensor, present: tf.Tensor) -> None:
        count = tf.reduce_sum(tf.cast(present, tf.float32), axis=0)[:, None]
        mean = tf.math.divide_no_nan(tf.reduce_sum(modalities, axis=0), count)
        # A modality that nobody in the batch has keeps its mean.
        step = tf.where(count > 0, 1.0 - self.momentum, 0.0)
        self.mean.assign_add(step * (mean - self.mean))
