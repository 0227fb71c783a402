"""Items and users as columns: TensorFlow parses thousands of records at a time."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.records.reader import Chunk, parse_item, parse_user, read_chunks
from mmrec_tf.schema import FeatureSpec, Schema

# So much is parsed at a time: enough that what a call costs is nothing beside it.
_MOST_RECORDS = 4096
_MOST_BYTES = 2 << 20
# Shards that are read side by side.
_NUM_PARALLEL = 8


class Column(NamedTuple):
    """What some records hold under one name.

    Attributes:
      lengths: <int64>[record], how many values each has; 0 where it has none.
      values: [value], one record after the other: object of bytes, <float32> or <int64>. A vector
        is as many values as it has numbers.
    """

    lengths: np.ndarray
    values: np.ndarray


class Columns(NamedTuple):
    """Some items or users.

    Attributes:
      number: <int64>[record], the numbers of the items or users.
      shard: <int64>[record], the numbers of the shards that they stand in.
      id: object[record] of str.
      column: by name: modalities or `profile`, and side features as "feature/NAME".
    """

    number: np.ndarray
    shard: np.ndarray
    id: np.ndarray
    column: dict[str, Column]


def read_item_columns(directory: str | pathlib.Path, schema: Schema) -> Iterator[Columns]:
    """Reads the items in no order, some thousands at a time.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    vectors = {name for name, spec in schema.modalities.items() if spec.kind == "vector"}
    names: dict[str, type] = {
        name: np.float32 if name in vectors else np.bytes_ for name in schema.modalities
    }
    names |= _feature_types(schema.item_features)
    found = np.zeros([schema.num_items], bool)
    for chunks in _gathered(
        read_chunks(
            directory, "items", schema.num_items, num_parallel=_NUM_PARALLEL, deterministic=False
        )
    ):
        parsed = _parse(chunks, {"item": np.int64, "item_id": np.bytes_, **names})
        if parsed is None or not _sound_items(parsed, schema, found):
            items = [
                parse_item(example, where, schema=schema, found=found)
                for chunk in chunks
                for where, example in chunk.examples()
            ]
            parsed = {
                "item": _join([[item.number] for item in items], np.int64),
                "item_id": _join([[item.item_id.encode()] for item in items], np.bytes_),
                **_features([item.features for item in items], schema.item_features),
            }
            for name in schema.modalities:
                lists = [_bytes(item.content.get(name, ())) for item in items]
                parsed[name] = _join(lists, names[name])
        number = parsed.pop("item").values
        found[number] = True
        yield Columns(number, _shards(chunks), _decoded(parsed.pop("item_id")), parsed)


def read_user_columns(directory: str | pathlib.Path, schema: Schema) -> Iterator[Columns]:
    """Reads the users in order, some thousands at a time.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    names: dict[str, type] = {"profile": np.bytes_, **_feature_types(schema.user_features)}
    start = 0
    for chunks in _gathered(read_chunks(directory, "users", schema.num_users)):
        parsed = _parse(chunks, {"user_id": np.bytes_, **names})
        sound = parsed is not None and (parsed["user_id"].lengths == 1).all()
        if parsed is None or not sound or not _sound_features(parsed, schema.user_features):
            users = [
                parse_user(example, where, schema=schema)
                for chunk in chunks
                for where, example in chunk.examples()
            ]
            profiles = [[] if user.profile is None else [user.profile] for user in users]
            parsed = {
                "user_id": _join([[user.user_id.encode()] for user in users], np.bytes_),
                "profile": _join([_bytes(profile) for profile in profiles], np.bytes_),
                **_features([user.features for user in users], schema.user_features),
            }
        ids = _decoded(parsed.pop("user_id"))
        number = np.arange(start, start + len(ids))
        start += len(ids)
        yield Columns(number, _shards(chunks), ids, parsed)


def _gathered(chunks: Iterator[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks of several shards, as many as are parsed at a time."""
    held: list[Chunk] = []
    records = size = 0
    for chunk in chunks:
        held.append(chunk)
        records += len(chunk.records)
        size += sum(map(len, chunk.records))
        if records >= _MOST_RECORDS or size >= _MOST_BYTES:
            yield held
            held, records, size = [], 0, 0
    if held:
        yield held


def _parse(chunks: Sequence[Chunk], types: Mapping[str, type]) -> dict[str, Column] | None:
    """What records hold, by name; None where one of them is not of that form."""
    import tensorflow as tf

    dtypes: dict[type, tf.DType] = {
        np.int64: tf.int64,
        np.float32: tf.float32,
        np.bytes_: tf.string,
    }
    spec = {
        name: tf.io.RaggedFeature(dtypes[dtype], row_splits_dtype=tf.int64)
        for name, dtype in types.items()
    }
    records = [record for chunk in chunks for record in chunk.records]
    try:
        with tf.device("CPU"):
            parsed = tf.io.parse_example(tf.constant(records, tf.string), spec)
    except tf.errors.InvalidArgumentError:
        return None
    return {
        name: Column(parsed[name].row_lengths().numpy(), parsed[name].flat_values.numpy())
        for name in types
    }


def _sound_items(parsed: Mapping[str, Column], schema: Schema, found: np.ndarray) -> bool:
    """Whether all records hold what they promise; which does not, and why, is asked afterwards."""
    count, number = parsed["item"]
    if (count != 1).any() or (parsed["item_id"].lengths != 1).any():
        return False
    if ((number < 0) | (number >= schema.num_items)).any() or found[number].any():
        return False
    if len(np.unique(number)) != len(number):
        return False
    for name, spec in schema.modalities.items():
        length = spec.dim if spec.kind == "vector" else 1
        count, rest = np.divmod(parsed[name].lengths, length)
        if rest.any() or (count > spec.max_values).any():
            return False
    return _sound_features(parsed, schema.item_features)


def _sound_features(parsed: Mapping[str, Column], specs: Mapping[str, FeatureSpec]) -> bool:
    for name, spec in specs.items():
        if spec.kind == "categorical":
            count, values = parsed[f"feature/{name}"]
            if (count > spec.width).any() or (values < 1).any():
                return False
            if (values >= spec.num_categories).any():
                return False
    return True


def _feature_types(specs: Mapping[str, FeatureSpec]) -> dict[str, type]:
    return {
        f"feature/{name}": np.int64 if spec.kind == "categorical" else np.float32
        for name, spec in specs.items()
    }


def _features(
    features: Sequence[Mapping[str, Any]], specs: Mapping[str, FeatureSpec]
) -> dict[str, Column]:
    types = _feature_types(specs)
    return {
        f"feature/{name}": _join(
            [np.atleast_1d(values.get(name, ())) for values in features], types[f"feature/{name}"]
        )
        for name in specs
    }


def _join(lists: Sequence[Any], dtype: type) -> Column:
    """The column of records with these values."""
    count = np.fromiter(map(len, lists), np.int64, len(lists))
    if dtype is np.bytes_:
        values = np.empty(int(count.sum()), object)
        values[:] = list(itertools.chain.from_iterable(lists))
        return Column(count, values)
    # A list of vectors is as long as its vectors together.
    flat = [np.ravel(each) for each in lists]
    count = np.fromiter(map(len, flat), np.int64, len(flat))
    return Column(count, np.concatenate([np.zeros([0]), *flat]).astype(dtype))


def _bytes(values: Any) -> Any:
    return [value.encode() if isinstance(value, str) else value for value in values]


def _decoded(column: Column) -> np.ndarray:
    ids = np.empty(len(column.values), object)
    ids[:] = [value.decode("utf-8") for value in column.values]
    return ids


def _shards(chunks: Sequence[Chunk]) -> np.ndarray:
    return np.repeat([chunk.shard for chunk in chunks], [len(chunk.records) for chunk in chunks])
