"""What of a catalog is held in memory, what stays on disk, and how much either comes to."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.encoders.cache import encoded_bytes
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import FeatureSpec


def fitting(sizes: Mapping[str, int], limit: int) -> set[str]:
    """The names of what fits, each in its turn into what those before it have left.

    Args:
      sizes: by name, in bytes.
      limit: in bytes.
    """
    found = set()
    for name, size in sizes.items():
        if size <= limit:
            found.add(name)
            limit -= size
    return found


def held_content(config: Config, sizes: Mapping[str, int]) -> set[str]:
    """The modalities whose tables `training.catalog_memory_mb` has room for.

    Args:
      config: Config.
      sizes: of the tables by modality, in bytes.

    Raises:
      ConfigError: when there is no room for one and the config cannot do without.
    """
    room = config.training.catalog_memory_mb
    held = fitting(sizes, room << 20)
    for name in sizes.keys() - held:
        if config.training.jit_compile:
            reason = "Python reads a table on disk, which training.jit_compile cannot compile"
            choice = "set training.jit_compile to false"
        elif config.retrieval.softmax == "full":
            reason = 'retrieval.softmax "full" reads all of it in each step'
            choice = 'set retrieval.softmax to "batch"'
        else:
            continue
        raise ConfigError(
            f"training.catalog_memory_mb: wanted room for all content; that of {name} takes "
            f"{_mebibytes(sizes[name])} of {room} MiB, and {reason}. Raise it to at least "
            f"{_mebibytes(sum(sizes.values()))}, or {choice}."
        )
    return held


def gather(table, rows):
    """Rows of a table, wherever it is.

    Args:
      table: a tensor or a variable, [row, ...]; or an array, which stays on the host, and on disk
        if it is mapped: rows are then fetched by Python, which no exported graph may hold and XLA
        cannot compile.
      rows: <int>[batch].

    Returns:
      [batch, ...].
    """
    if not isinstance(table, np.ndarray):
        return tf.gather(table, rows)
    array = np.asarray(table)  # Without the overhead of np.memmap, and without a copy.
    found = tf.numpy_function(lambda rows: array[rows], [rows], array.dtype, stateful=False)
    return tf.ensure_shape(found, [*rows.shape, *array.shape[1:]])


class Estimate(NamedTuple):
    """Sizes by part, in bytes: of what training holds in memory, and of what it leaves on disk."""

    memory: dict[str, int]
    disk: dict[str, int]

    def __str__(self) -> str:
        text = f"memory: about {_readable(sum(self.memory.values()))} ({_listed(self.memory)})"
        return f"{text}; on disk: {_listed(self.disk)}" if self.disk else text


def estimate(model, dataset) -> Estimate:
    """What training a retrieval model takes, but for the steps themselves.

    Args:
      model: RetrievalModel with encoders and weights; it need not have seen the catalog.
      dataset: Dataset.

    Returns:
      Estimate. In memory: "interactions" of the train and the valid split, as read and as batches
      are made of them; "raw content"; each modality's table, by its name; "items" and "users", all
      else that is known of them; "encoders" that are frozen; "weights"; "optimizer", two moments a
      trained weight. On disk: tables above `training.catalog_memory_mb`.
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
    # By identity, as two modalities may share an encoder.
    frozen = {id(w): w for e in encoders.values() if e.frozen for w in e.weights}.values()
    memory = {
        "interactions": interactions,
        "raw content": dataset.item_bytes if dataset.content_in_memory else 0,
        **{name: tables[name] for name in tables if name in held},
        "items": schema.num_items * item,
        "users": users,
        "encoders": _weight_bytes(frozen),
        "weights": _weight_bytes(model.weights),
        "optimizer": 2 * _weight_bytes(model.trainable_weights),
    }
    return Estimate(memory, {name: tables[name] for name in tables if name not in held})


def _feature_bytes(specs: Mapping[str, FeatureSpec]) -> int:
    """Of one row of `Catalog.features`."""
    return sum(4 * (spec.width if spec.kind == "categorical" else 2) for spec in specs.values())


def _weight_bytes(weights) -> int:
    return sum(weight.shape.num_elements() * weight.dtype.size for weight in weights)


def _mebibytes(size: int) -> int:
    return -(-size // 2**20)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_readable(size)}" for name, size in sizes.items() if size)


def _readable(size: float) -> str:
    units = ["B", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.3g} {units[0]}"
