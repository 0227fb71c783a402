"""What the item tower reads of items of the catalog."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from mmrec_tf.encoders.stored import known_encoder
from mmrec_tf.retrieval.catalog_tables import gather


class Catalogued(Protocol):
    """What is asked of a retrieval model."""

    modalities: tuple[str, ...]

    @property
    def tables(self) -> dict:
        """As `build_tables` makes them."""

    @property
    def encoders(self) -> Mapping:
        """By modality."""


def item_inputs(
    model: Catalogued, item: tf.Tensor, *, training: bool = False, content_only: bool = False
) -> Mapping[str, Any]:
    """Items with their content through the encoders, as `ItemTower.call` takes them.

    Args:
      model: RetrievalModel.
      item: <int32>[batch], numbers of items. Those without a train interaction have the id -1, as
        their row was never trained.
      training: whether encoders that train drop and change what they read.
      content_only: gives every item the id -1.

    Returns:
      dict of "item", "present", "encoded" and "features".
    """
    tables = model.tables
    warm = tf.gather(tables["warm"], item) & (not content_only)
    encoded = {}
    for name in model.modalities:
        value = gather(tables["content"][name], item)
        encoded[name] = known_encoder(model.encoders, name).from_stored(value, training=training)
    return {
        "item": tf.where(warm, item, -1),
        "present": tf.gather(tables["present"], item),
        "encoded": encoded,
        "features": {n: tf.gather(v, item) for n, v in tables["item_features"].items()},
    }
