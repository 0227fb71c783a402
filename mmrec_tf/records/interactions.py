"""Who met what, one record a user: read back, checking what the records promise."""

import pathlib
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import AGAIN, read_manifest
from mmrec_tf.records.shards import read_batches, shards
from mmrec_tf.schema import SPLITS, Schema

_BATCH = 1024
# What an interaction record holds, as a fault names it.
_MANY = {
    "timestamp": "timestamps",
    "rating": "ratings",
    "weight": "weights",
    "events": "masks of events",
    "position": "positions",
}


class Interactions(NamedTuple):
    """The interactions of one split, sorted by user, then oldest first.

    Attributes:
      user: <int32>[interaction], users by number.
      item: <int32>[interaction], items by number.
      timestamp: <int64>[interaction], seconds since 1970 UTC; 0 where the source has none.
      rating: <float32>[interaction]; 1 where the source has none.
      weight: <float32>[interaction]; 1 where the source has none.
      events: <bool>[interaction, event], of which types it was, in the order of the schema's
        `events`.
      position: <int32>[interaction], in the list that the item was shown in; -1 where unknown.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    weight: np.ndarray
    events: np.ndarray
    position: np.ndarray


def read_interactions(directory: str | pathlib.Path, schema: Schema, split: str) -> Interactions:
    """Reads one split.

    Args:
      directory: a dataset directory.
      schema: its schema.
      split: one of `mmrec_tf.schema.SPLITS`.

    Returns:
      `Interactions`, possibly empty.

    Raises:
      DatasetError: naming the shard that cannot be read or that names an unknown user or item.
    """
    if split not in SPLITS:
        raise DatasetError(f"split: wanted one of {', '.join(SPLITS)}; got {split!r}.")
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    parts = [_nothing(schema)]
    last = -1
    for name in shards(directory, manifest, f"interactions/{split}"):
        entry = manifest["files"][name]
        path, at = directory / name, 1
        for records in read_batches(
            path, records=entry["records"], size=entry["bytes"], batch=_BATCH
        ):
            part, last = _parse_interactions(records, schema, f"{path}: record {{}}", at, last)
            parts.append(part)
            at += len(records)
    return Interactions(*map(np.concatenate, zip(*parts, strict=True)))


def _nothing(schema: Schema) -> Interactions:
    return Interactions(
        user=np.zeros([0], np.int32),
        item=np.zeros([0], np.int32),
        timestamp=np.zeros([0], np.int64),
        rating=np.zeros([0], np.float32),
        weight=np.zeros([0], np.float32),
        events=np.zeros([0, len(schema.events)], bool),
        position=np.zeros([0], np.int32),
    )


def _parse_interactions(
    records: list[bytes], schema: Schema, where: str, at: int, last: int
) -> tuple[Interactions, int]:
    """Parses a batch of interaction records with TensorFlow's own parser.

    Returns:
      The interactions, and the last user.
    """
    import tensorflow as tf

    def ragged(dtype: tf.DType) -> tf.io.RaggedFeature:
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)

    always = ("timestamp", "events") if schema.events else ("timestamp",)
    spec = {name: ragged(tf.int64) for name in ("user", "item", "position", *always)}
    spec |= {name: ragged(tf.float32) for name in ("rating", "weight")}
    try:
        with tf.device("CPU"):
            parsed = tf.io.parse_example(tf.constant(records), spec)
    except tf.errors.InvalidArgumentError as error:
        raise DatasetError(
            f"{where.format(at)} or one of the {len(records) - 1} after it is not an interaction "
            f"record. {AGAIN}"
        ) from error
    length = {name: parsed[name].row_lengths().numpy() for name in spec}
    value = {name: parsed[name].flat_values.numpy() for name in spec}

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            record = where.format(at + int(np.argmax(wrong)))
            raise DatasetError(f"{record} {what}. {AGAIN}")

    refuse(length["user"] != 1, "names no user")
    user, count = value["user"], length["item"]
    refuse(np.diff(user, prepend=last) <= 0, "is out of order: users must ascend")
    refuse(user >= schema.num_users, f"names a user beyond the schema's {schema.num_users}")
    for name in always:
        refuse(length[name] != count, f"has another number of {_MANY[name]} than of items")
    for name in ("rating", "weight", "position"):
        refuse(
            (length[name] != count) & (length[name] != 0),
            f"has another number of {_MANY[name]} than of items",
        )
    row = np.repeat(np.arange(len(records)), count)

    def check(name: str, least: int, number: int, what: str) -> None:
        beyond = (value[name] < least) | (value[name] >= number)
        refuse(np.bincount(row[beyond], minlength=len(records)) > 0, f"names {what}")

    check("item", 0, schema.num_items, f"an item beyond the schema's {schema.num_items}")
    events = np.zeros([len(row), len(schema.events)], bool)
    if schema.events:
        number = len(schema.events)
        check("events", 0, 1 << number, f"a type of event beyond the schema's {number}")
        events = (value["events"][:, None] >> np.arange(number) & 1).astype(bool)

    def column(name: str, default: int, dtype: type) -> np.ndarray:
        full: np.ndarray = np.full([len(row)], default, dtype)
        full[np.repeat(length[name] > 0, count)] = value[name]
        return full

    value["position"] = column("position", -1, np.int64)
    number = schema.num_positions
    check("position", -1, number, f"a position beyond the schema's {number}")
    part = Interactions(
        user=user[row].astype(np.int32),
        item=value["item"].astype(np.int32),
        timestamp=value["timestamp"],
        rating=column("rating", 1, np.float32),
        weight=column("weight", 1, np.float32),
        events=events,
        position=value["position"].astype(np.int32),
    )
    return part, int(user[-1])
