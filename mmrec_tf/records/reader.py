"""Items and users, one record each: read back, checking what the records promise."""

import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import AGAIN, read_manifest
from mmrec_tf.records.shards import read_batches, shards
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema

if TYPE_CHECKING:
    import tensorflow as tf

# Records that are held at a time, of each shard that is read: items carry pictures and sounds of up
# to a megabyte, or next to nothing.
_BATCH = 1024
_BATCH_BYTES = 2 << 20


class Item(NamedTuple):
    """One item.

    Attributes:
      number: 0 to the number of items - 1.
      item_id: unique.
      content: by modality that the item has, its values in order: a list of str for text, of bytes
        for image and audio, <float32>[value, dim] for vectors.
      features: by name: <int64>[value] for a categorical one (numbered as `FeatureSpec` says;
        empty where missing), a float for a numeric one (left out where missing).
      shard: the number of the shard that it stands in.
    """

    number: int
    item_id: str
    content: dict[str, list[str] | list[bytes] | np.ndarray]
    features: dict[str, np.ndarray | float]
    shard: int


class User(NamedTuple):
    """One user; `features` as for `Item`, `profile` None where there is none."""

    user_id: str
    profile: str | None
    features: dict[str, np.ndarray | float]


def read_items(
    directory: str | pathlib.Path,
    schema: Schema,
    *,
    only: Collection[int] | None = None,
    num_parallel: int = 1,
    deterministic: bool = True,
) -> Iterator[Item]:
    """Reads the items, a few at a time; shard after shard, so by no means in order of numbers.

    Args:
      directory: a dataset directory.
      schema: its schema.
      only: the numbers of the shards to read; None for all.
      num_parallel: how many shards are read side by side, a few items of each in turn.
      deterministic: whether items come in the same order each time; False takes those that are
        there first, which matters with `num_parallel` above 1 only.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    found = np.zeros([schema.num_items], bool)
    for chunk in read_chunks(
        directory,
        "items",
        schema.num_items,
        only=only,
        num_parallel=num_parallel,
        deterministic=deterministic,
    ):
        for where, example in chunk.examples():
            item = parse_item(example, where, schema=schema, found=found)
            yield item._replace(shard=chunk.shard)


def read_users(directory: str | pathlib.Path, schema: Schema) -> Iterator[User]:
    """Reads the users in order.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    for chunk in read_chunks(directory, "users", schema.num_users):
        for where, example in chunk.examples():
            yield parse_user(example, where, schema=schema)


def parse_item(
    example: "tf.train.Example", where: str, *, schema: Schema, found: np.ndarray
) -> Item:
    """One record as an item of shard 0.

    Args:
      example: the record.
      where: the words that say where it stands.
      schema: of the dataset.
      found: <bool>[item], the items that were read before; this one is added.

    Raises:
      DatasetError: when it does not fit the schema.
    """
    number = example.features.feature["item"].int64_list.value
    if len(number) != 1 or not 0 <= number[0] < schema.num_items or found[number[0]]:
        raise DatasetError(
            f"{where} wanted a number of its own from 0 to {schema.num_items - 1}; got "
            f"{list(number)}. {AGAIN}"
        )
    found[number[0]] = True
    return Item(
        number=number[0],
        item_id=_required(example, "item_id", where).decode("utf-8"),
        content=_content(example, schema, where),
        features=_features(example, schema.item_features, where),
        shard=0,
    )


def parse_user(example: "tf.train.Example", where: str, *, schema: Schema) -> User:
    """One record as a user; raises DatasetError when it does not fit the schema."""
    profile = example.features.feature["profile"].bytes_list.value
    return User(
        user_id=_required(example, "user_id", where).decode("utf-8"),
        profile=profile[0].decode("utf-8") if profile else None,
        features=_features(example, schema.user_features, where),
    )


class Chunk(NamedTuple):
    """Records of one shard, one after the other.

    Attributes:
      path: of the shard.
      shard: its number.
      start: how many of its records stand before these.
      total: how many it has.
      records: serialized.
    """

    path: pathlib.Path
    shard: int
    start: int
    total: int
    records: list[bytes]

    def examples(self) -> Iterator[tuple[str, "tf.train.Example"]]:
        """The records parsed, each with the words that say where it stands."""
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        for number, record in enumerate(self.records, self.start + 1):
            where = f"{self.path}: record {number} of {self.total}"
            try:
                yield where, tf.train.Example.FromString(record)
            except DecodeError as error:
                raise DatasetError(f"{where} is not a tf.train.Example. {AGAIN}") from error


def read_chunks(
    directory: str | pathlib.Path,
    folder: str,
    number: int,
    *,
    only: Collection[int] | None = None,
    num_parallel: int = 1,
    deterministic: bool = True,
) -> Iterator[Chunk]:
    """Reads a folder's records, some at a time; the arguments as in `read_items`.

    Raises:
      DatasetError: naming the shard and the record that cannot be read, or when there are not
        `number` of them.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    names = shards(directory, manifest, folder)
    files = {
        shard: (directory / name, manifest["files"][name])
        for shard, name in enumerate(names)
        if only is None or shard in only
    }
    count = dict.fromkeys(files, 0)
    size = sum(entry["bytes"] for _, entry in files.values())
    mean = size // max(1, sum(entry["records"] for _, entry in files.values()))
    batch = max(1, min(_BATCH, _BATCH_BYTES // max(1, mean)))
    if num_parallel > 1:
        chunks = _side_by_side(files, batch, num_parallel, deterministic)
    else:
        chunks = _one_by_one(files, batch)
    for shard, records in chunks:
        path, entry = files[shard]
        yield Chunk(path, shard, count[shard], entry["records"], records)
        count[shard] += len(records)
    total = sum(count.values())
    if only is None and total != number:
        raise DatasetError(
            f"{directory / folder}: wanted the schema's {number} records; got {total}. {AGAIN}"
        )


def _one_by_one(files: Mapping[int, Any], batch: int) -> Iterator[tuple[int, list[bytes]]]:
    """Reads shards (a path and the manifest's entry, by number) one after the other."""
    for shard, (path, entry) in files.items():
        for records in read_batches(
            path, records=entry["records"], size=entry["bytes"], batch=batch
        ):
            yield shard, records


def _side_by_side(
    files: Mapping[int, Any], batch: int, num_parallel: int, deterministic: bool
) -> Iterator[tuple[int, list[bytes]]]:
    """`_one_by_one`, but for the order: several shards at a time."""
    import tensorflow as tf

    numbers = np.array(list(files), np.int64)
    paths = tf.constant([str(path) for path, _ in files.values()], tf.string)

    def read(shard: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(path).batch(batch).map(lambda records: (shard, records))

    chunks = tf.data.Dataset.from_tensor_slices((numbers, paths)).interleave(
        read,
        cycle_length=num_parallel,
        num_parallel_calls=num_parallel,
        deterministic=deterministic,
    )
    left = {shard: entry["records"] for shard, (_, entry) in files.items()}
    failure = None
    try:
        for shard, records in chunks.as_numpy_iterator():
            left[shard] -= len(records)
            if left[shard] < 0:
                break
            yield int(shard), records.tolist()
    except tf.errors.OpError as error:
        failure = error
    # TensorFlow's error names no file here: what is not whole is read once more, to say where.
    for shard, (path, entry) in files.items():
        if left[shard] or not path.is_file() or path.stat().st_size != entry["bytes"]:
            for _ in _one_by_one({shard: (path, entry)}, batch):
                pass
    if failure:
        raise DatasetError(f"{path.parent}: cannot be read; {failure.message}. {AGAIN}")


def _required(example: "tf.train.Example", name: str, where: str) -> bytes:
    value = example.features.feature[name].bytes_list.value
    if len(value) != 1:
        raise DatasetError(f"{where} has no {name}. {AGAIN}")
    return value[0]


def _content(example: "tf.train.Example", schema: Schema, where: str) -> dict[str, Any]:
    features = example.features.feature
    return {
        name: _values(features[name], spec, f"{where}: {name}")
        for name, spec in schema.modalities.items()
        if name in features
    }


def _values(
    feature: "tf.train.Feature", spec: ModalitySpec, where: str
) -> list[str] | list[bytes] | np.ndarray:
    data = list(feature.bytes_list.value)
    count = len(data)
    if spec.kind == "vector":
        numbers = np.asarray(feature.float_list.value, np.float32)
        count, rest = divmod(len(numbers), spec.dim)
        if rest or not count:
            several = " or a multiple of it" * (spec.max_values > 1)
            raise DatasetError(
                f"{where} wanted {spec.dim} numbers{several}, as in the schema; got "
                f"{len(numbers)}. {AGAIN}"
            )
    if not count:
        raise DatasetError(f"{where} holds no content of kind {spec.kind}. {AGAIN}")
    if count > spec.max_values:
        raise DatasetError(
            f"{where} wanted at most {spec.max_values} values, as in the schema; got {count}. "
            f"{AGAIN}"
        )
    if spec.kind == "vector":
        return numbers.reshape(count, spec.dim)
    return [value.decode("utf-8") for value in data] if spec.kind == "text" else data


def _features(
    example: "tf.train.Example", specs: Mapping[str, FeatureSpec], where: str
) -> dict[str, np.ndarray | float]:
    found: dict[str, np.ndarray | float] = {}
    for name, spec in specs.items():
        feature = example.features.feature[f"feature/{name}"]
        if spec.kind == "categorical":
            values = np.asarray(feature.int64_list.value, np.int64)
            _check_categories(values, spec, f"{where}: feature {name}")
            found[name] = values
        elif feature.float_list.value:
            found[name] = float(feature.float_list.value[0])
    return found


def _check_categories(values: np.ndarray, spec: FeatureSpec, where: str) -> None:
    most = spec.num_categories - 1
    if len(values) > spec.width or np.any((values < 1) | (values > most)):
        raise DatasetError(
            f"{where} wanted at most {spec.width} numbers from 1 to {most}, as in the schema; "
            f"got {values.tolist()}. {AGAIN}"
        )
