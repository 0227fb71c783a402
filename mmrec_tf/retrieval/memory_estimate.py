"""How much memory training takes, and what it leaves on disk."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders.cache import encoded_bytes
from mmrec_tf.retrieval.catalog_tables import fitting
from mmrec_tf.schema import FeatureSpec


class Estimate(NamedTuple):
    """Sizes by part, in bytes: of what training holds in memory, and of what it leaves on disk."""

    memory: dict[str, int]
    disk: dict[str, int]

    def __str__(self) -> str:
        text = f"memory: about {_readable(sum(self.memory.values()))} ({_listed(self.memory)})"
        return f"{text}; on disk: {_listed(self.disk)}" if self.disk else text


def estimate(model: tf.keras.Model, dataset: Dataset) -> Estimate:
    """What training a retrieval model takes, but for the steps themselves.

    Args:
      model: RetrievalModel with encoders and weights; it need not have seen the catalog.
      dataset: Dataset.

    Returns:
      Estimate. In memory: "interactions" of the train and the valid split, as read and as batches
      are made of them; "raw content"; each modality's table, by its name; "items" and "users", all
      else that is known of them; "histories", the table of `user.history_embedding` cached;
      "encoders" that are frozen; "weights"; "optimizer", two moments a
      trained weight; "averages", the trained weights after the epochs that are averaged. On disk:
      tables above `training.catalog_memory_mb`.
    """
    schema, encoders = model.schema, model.encoders
    train, valid = (len(dataset.interactions(split).user) for split in ("train", "valid"))
    # Five numbers of 4 bytes, a time of 8 and the events; of batches' examples a place of 8, too.
    row = 28 + len(schema.events)
    interactions = row * (train + valid) + (row + 8) * train
    interactions += 12 * (train + 1) + 8 * (schema.num_users + 1)
    tables = {name: encoded_bytes(encoders[name], schema.num_items) for name in model.modalities}
    held = fitting(tables, model.config.training.catalog_memory_mb << 20)
    # Two numbers of 4 bytes, and whether train knows the item.
    item = 9 + len(model.modalities) + _feature_bytes(schema.item_features)
    users = schema.num_users * _feature_bytes(schema.user_features)
    if model.user_tower.profile is not None:
        users += encoded_bytes(encoders["profile"], schema.num_users)
    averaged, trained = model.config.training.average_epochs, _weight_bytes(model.trainable_weights)
    # By identity, as two modalities may share an encoder.
    frozen = {id(w): w for e in encoders.values() if e.frozen for w in e.weights}.values()
    memory = {
        "interactions": interactions,
        "raw content": dataset.item_bytes if dataset.content_in_memory else 0,
        **{name: tables[name] for name in tables if name in held},
        "items": schema.num_items * item,
        "users": users,
        "histories": 4 * schema.num_items * model.config.dim if model.caches_histories else 0,
        "encoders": _weight_bytes(frozen),
        "weights": _weight_bytes(model.weights),
        "optimizer": 2 * trained,
        "averages": averaged * trained if averaged > 1 else 0,
    }
    return Estimate(memory, {name: tables[name] for name in tables if name not in held})


def _feature_bytes(specs: Mapping[str, FeatureSpec]) -> int:
    """Of one row of `Catalog.features`."""
    return sum(4 * (spec.width if spec.kind == "categorical" else 2) for spec in specs.values())


def _weight_bytes(weights: Iterable[tf.Variable]) -> int:
    return sum(weight.shape.num_elements() * weight.dtype.size for weight in weights)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_readable(size)}" for name, size in sizes.items() if size)


def _readable(size: float) -> str:
    units = ["B", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.3g} {units[0]}"
