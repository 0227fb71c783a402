"""Records read in Python alone, for who wants to look and not to wait for TensorFlow.

The same checks as in `mmrec_tf.records.reader`, one record at a time: slower for a million users,
and five seconds faster for what people look at.
"""

import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import AGAIN, read_manifest
from mmrec_tf.records.reader import Item, User, parse_item, parse_user
from mmrec_tf.records.record_proto import parse
from mmrec_tf.records.shards import masked_crc, shards
from mmrec_tf.schema import Schema

# The length of a record and its checksum, and the checksum behind the record.
_HEAD, _TAIL = 12, 4


def read_examples(directory: pathlib.Path, folder: str) -> Iterator[tuple[str, Any]]:
    """The records of one folder of a dataset directory, in order.

    Args:
      directory: a dataset directory.
      folder: such as "items".

    Yields:
      The words that say where a record stands, and the record, a `tf.train.Example` in all but
      its class.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    manifest = read_manifest(directory)
    for name in shards(directory, manifest, folder):
        path, total = directory / name, manifest["files"][name]["records"]
        count = 0
        for record in _read_shard(path, total):
            count += 1
            where = f"{path}: record {count} of {total}"
            try:
                yield where, parse(record)
            except ValueError as error:
                raise DatasetError(f"{where} is not a tf.train.Example. {AGAIN}") from error
        if count != total:
            raise DatasetError(f"{path}: holds {count} of the manifest's {total} records. {AGAIN}")


def read_items(directory: pathlib.Path, schema: Schema) -> Iterator[Item]:
    """All items, as `mmrec_tf.records.read_items` gives them; shard 0 for all."""
    found = np.zeros([schema.num_items], bool)
    for where, example in read_examples(directory, "items"):
        yield parse_item(example, where, schema=schema, found=found)


def read_users(directory: pathlib.Path, schema: Schema) -> Iterator[User]:
    """All users in order, as `mmrec_tf.records.read_users` gives them."""
    for where, example in read_examples(directory, "users"):
        yield parse_user(example, where, schema=schema)


def read_pairs(
    directory: pathlib.Path, schema: Schema, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who met what when: users <int64>[n], items <int64>[n] and seconds since 1970 <int64>[n].

    Raises:
      DatasetError: naming the record that cannot be read, or names an unknown user or item.
    """
    users, items, times = [], [], []
    for where, example in read_examples(directory, f"interactions/{split}"):
        feature = example.features.feature
        user = feature["user"].int64_list.value
        item = feature["item"].int64_list.value
        time = feature["timestamp"].int64_list.value
        known = len(user) == 1 and 0 <= user[0] < schema.num_users and len(item) == len(time)
        if not known or (len(item) and not 0 <= min(item) <= max(item) < schema.num_items):
            raise DatasetError(f"{where} names a user or an item that is not there. {AGAIN}")
        users.append(np.full(len(item), user[0], np.int64))
        items.append(np.array(item, np.int64))
        times.append(np.array(time, np.int64))
    none = np.zeros([0], np.int64)
    return (
        np.concatenate([none, *users]),
        np.concatenate([none, *items]),
        np.concatenate([none, *times]),
    )


def _read_shard(path: pathlib.Path, total: int) -> Iterator[bytes]:
    """The records of one file, as TensorFlow's `record_writer.cc` frames them."""
    if not path.is_file():
        raise DatasetError(f"{path}: missing, though the manifest lists it. {AGAIN}")
    with path.open("rb") as file:
        number = 0
        while head := file.read(_HEAD):
            number += 1
            length = head[:8]
            size = struct.unpack("<Q", length)[0] if len(head) == _HEAD else 0
            if len(head) < _HEAD or masked_crc(length) != head[8:]:
                raise DatasetError(_damage(path, number, total))
            record, tail = file.read(size), file.read(_TAIL)
            if len(record) < size or masked_crc(record) != tail:
                raise DatasetError(_damage(path, number, total))
            yield record


def _damage(path: pathlib.Path, number: int, total: int) -> str:
    return f"{path}: damaged at record {number} of {total} (its checksum does not fit). {AGAIN}"
