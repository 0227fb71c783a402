"""All items with their content: in memory where it fits, else read from the shards when asked."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf import records
from mmrec_tf.dataset.column_cache import Arrays, ColumnCache
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema


class Content:
    """One modality of all items, each with any number of values.

    Args:
      name: of the modality.
      spec: the form of its values.
      present: <bool>[item], which items have it.
    """

    def __init__(self, name: str, spec: ModalitySpec, *, present: np.ndarray):
        self.name = name
        self.spec = spec
        self.present = present

    def __len__(self) -> int:
        return len(self.present)

    def items(self, wanted: np.ndarray) -> Iterator[tuple[int, Sequence[bytes | np.ndarray]]]:
        """Items with their values, in the same order each time.

        Args:
          wanted: <bool>[item], which of those that have the modality.
        """
        raise NotImplementedError

    def batches(
        self, batch_size: int, *, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reads the items that have the modality, in the same order each time.

        Args:
          batch_size: at most so many values at a time, but for what is left of the last item: all
            values of an item are in one batch.
          rows: <bool>[item], the items that are asked for; None for all. Shards without any of
            them are not read.

        Yields:
          numbers of items <int64>[value], an item with several values as many times in a row; and
          the values, object[value] of bytes or <float32>[value, dim].

        Raises:
          DatasetError: naming the shard and the record that cannot be read.
        """
        numbers: list[int] = []
        values: list[bytes | np.ndarray] = []
        for number, some in self.items(self.present if rows is None else self.present & rows):
            numbers += [number] * len(some)
            values += some
            if len(numbers) >= batch_size:
                yield np.array(numbers), self._column(values)
                numbers, values = [], []
        if numbers:
            yield np.array(numbers), self._column(values)

    def present_values(self, rows: np.ndarray | None = None) -> Iterator[bytes | np.ndarray]:
        """All values of the items that have the modality, or of those among `rows` <bool>[item]."""
        for _, values in self.batches(1024, rows=rows):
            yield from values

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The first values of a few items, blank where absent: what a request of one value holds.

        On disk, each item's whole shard is read.

        Args:
          rows: <int>[n], numbers of items.

        Returns:
          object[n] of bytes or <float32>[n, dim].
        """
        rows = np.asarray(rows, np.int64)
        found = empty_content(self.spec, len(rows))
        asked = np.zeros([len(self)], bool)
        asked[rows] = True
        for number, values in self.items(self.present & asked):
            for place in np.flatnonzero(rows == number):
                found[place] = values[0]
        return found

    def _column(self, values: Sequence[bytes | np.ndarray]) -> np.ndarray:
        column = empty_content(self.spec, len(values))
        for row, value in enumerate(values):
            column[row] = value
        return column


class ContentOnDisk(Content):
    """One modality of all items, left on disk.

    Args:
      directory: the dataset directory.
      schema: its schema.
      name: of the modality.
      present: <bool>[item], which items have it.
      shard: <int>[item], the item shard that each item stands in.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        schema: Schema,
        name: str,
        *,
        present: np.ndarray,
        shard: np.ndarray,
    ):
        super().__init__(name, schema.modalities[name], present=present)
        self._directory = directory
        self._schema = schema
        self._shard = shard

    def items(self, wanted: np.ndarray) -> Iterator[tuple[int, Sequence[bytes | np.ndarray]]]:
        """Reads the shards that hold any of the items, one after the other."""
        shards = np.unique(self._shard[wanted]).tolist()
        for item in records.read_items(self._directory, self._schema, only=shards):
            if wanted[item.number]:
                yield item.number, _raw(item.content[self.name])


class ContentLists(Content):
    """One modality of all items in memory, of which some have several values.

    Args:
      name: of the modality.
      spec: the form of its values.
      values: object[value] of bytes or <float32>[value, dim], one item after the other.
      count: <int64>[item], how many values each item has.
    """

    def __init__(self, name: str, spec: ModalitySpec, *, values: np.ndarray, count: np.ndarray):
        super().__init__(name, spec, present=count > 0)
        self.values = values
        self.count = count
        self._start = np.cumsum(count) - count

    def items(self, wanted: np.ndarray) -> Iterator[tuple[int, Sequence[bytes | np.ndarray]]]:
        """The items by their numbers."""
        for number in np.flatnonzero(wanted).tolist():
            start = self._start[number]
            yield number, _raw(self.values[start : start + self.count[number]])


class Catalog(NamedTuple):
    """All items with their content.

    Attributes:
      item_id: object[item] of str.
      content: by modality, object[item] of bytes (empty where absent) or <float32>[item, dim]
        (zeros where absent); `ContentLists` where items have several values, `ContentOnDisk` where
        it does not fit into memory.
      present: <bool>[item, modality], columns in the schema's order.
      features: by name, <int32>[item, width] (0: none, 1: out of vocabulary) or <float32>[item, 2]
        (value, 1 where known).
      train_count: <int64>[item], interactions in the train split.
      log_frequency: <float32>[item], log(count + 1) less the log of the mean of count + 1.
      probability: <float32>[item], share of the train interactions; an unseen item counts as one.
      content_sha256: by modality, one hash of all items' contents.
    """

    item_id: np.ndarray
    content: Mapping[str, np.ndarray | Content]
    present: np.ndarray
    features: dict[str, np.ndarray]
    train_count: np.ndarray
    log_frequency: np.ndarray
    probability: np.ndarray
    content_sha256: Mapping[str, str]


def read_catalog(
    directory: pathlib.Path,
    schema: Schema,
    *,
    train_item: np.ndarray,
    content_sha256: Mapping[str, str],
    in_memory: bool,
    cache: ColumnCache,
) -> Catalog:
    """Reads all items once.

    Args:
      directory: a dataset directory.
      schema: its schema.
      train_item: <int>[interaction], the items of the train split.
      content_sha256: by modality, as the manifest says.
      in_memory: whether to keep the content, or to leave it on disk.
      cache: of the directory's columns.

    Raises:
      DatasetError: naming the shard and the record that cannot be read.
    """
    arrays = cache.read(
        "items" if in_memory else "items_without_content",
        "items",
        lambda: _read_items(directory, schema, in_memory=in_memory),
    )
    present = arrays["present"]
    content: dict[str, np.ndarray | Content] = {}
    for column, (name, spec) in enumerate(schema.modalities.items()):
        if not in_memory:
            content[name] = ContentOnDisk(
                directory, schema, name, present=present[:, column], shard=arrays["shard"]
            )
        elif spec.max_values == 1:
            content[name] = arrays[f"content/{name}"]
        else:
            content[name] = ContentLists(
                name, spec, values=arrays[f"content/{name}"], count=arrays[f"count/{name}"]
            )
    count = np.bincount(train_item, minlength=schema.num_items)
    return Catalog(
        item_id=decode_ids(arrays["id"]),
        content=content,
        present=present,
        features={name: arrays[f"feature/{name}"] for name in schema.item_features},
        train_count=count,
        log_frequency=relative_log_frequency(count),
        probability=draw_probability(count),
        content_sha256=content_sha256,
    )


def _read_items(directory: pathlib.Path, schema: Schema, *, in_memory: bool) -> Arrays:
    """The records of all items as columns, one row an item."""
    item_id = np.empty(schema.num_items, object)
    present = np.zeros([schema.num_items, len(schema.modalities)], bool)
    features = empty_features(schema.item_features, schema.num_items)
    shard = np.zeros([schema.num_items], np.int32)
    kept: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
        name: [] for name in schema.modalities if in_memory
    }
    # Each item has its place, so they may come in any order.
    for part in records.read_item_columns(directory, schema):
        item_id[part.number] = part.id
        shard[part.number] = part.shard
        fill_features(features, schema.item_features, part)
        for column, (name, spec) in enumerate(schema.modalities.items()):
            count, values = part.column[name]
            if spec.kind == "vector":
                count, values = count // spec.dim, values.reshape(-1, spec.dim)
            present[part.number, column] = count > 0
            if in_memory:
                kept[name].append((part.number, count, values))
    arrays = {"id": encode_ids(item_id), "present": present, "shard": shard}
    arrays |= {f"feature/{name}": values for name, values in features.items()}
    for name, parts in kept.items():
        arrays |= _place(name, schema.modalities[name], parts, num_items=schema.num_items)
        parts.clear()
    return arrays


def _place(
    name: str,
    spec: ModalitySpec,
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    num_items: int,
) -> Arrays:
    """One modality in the order of the items.

    Args:
      parts: numbers of items <int64>[n], how many values each has <int64>[n], and the values.

    Returns:
      "content/NAME": one value an item, blank where absent; or, where items may have several, all
      values one after the other, and "count/NAME" <int64>[item].
    """
    count = np.zeros([num_items], np.int64)
    for numbers, some, _ in parts:
        count[numbers] = some
    single = spec.max_values == 1
    start = np.arange(num_items) if single else np.cumsum(count) - count
    placed = empty_content(spec, num_items if single else int(count.sum()))
    for numbers, some, values in parts:
        within = np.arange(len(values)) - np.repeat(np.cumsum(some) - some, some)
        placed[np.repeat(start[numbers], some) + within] = values
    return {f"content/{name}": placed} | ({} if single else {f"count/{name}": count})


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """Ids object[n] of str -> object[n] of bytes, as columns hold them."""
    encoded = np.empty(len(ids), object)
    encoded[:] = [name.encode() for name in ids.tolist()]
    return encoded


def decode_ids(ids: np.ndarray) -> np.ndarray:
    """The inverse of `encode_ids`."""
    decoded = np.empty(len(ids), object)
    decoded[:] = [name.decode() for name in ids.tolist()]
    return decoded


def relative_log_frequency(count: np.ndarray) -> np.ndarray:
    """log(count + 1) less the log of the mean of count + 1, <float32>[item]."""
    return (np.log(count + 1.0) - np.log(np.mean(count + 1.0))).astype(np.float32)


def draw_probability(count: np.ndarray, *, balance: float = 0.0) -> np.ndarray:
    """How probable each item is as an example's item.

    Args:
      count: <int64>[item], train interactions; an unseen item counts as one, so that the
        logarithm is finite.
      balance: 0 draws examples as they are, 1 all items equally often: an item's examples are
        drawn with probability proportional to count ** -balance.

    Returns:
      <float32>[item], proportional to count ** (1 - balance).
    """
    share = np.maximum(count, 1) ** (1.0 - balance)
    return (share / share.sum()).astype(np.float32)


def empty_content(spec: ModalitySpec, rows: int) -> np.ndarray:
    """Content of items that lack it, as in `Catalog.content`."""
    if spec.kind == "vector":
        return np.zeros([rows, spec.dim], np.float32)
    return np.full(rows, b"", object)


def empty_features(specs: Mapping[str, FeatureSpec], rows: int) -> dict[str, np.ndarray]:
    """Side features of unknown values, as in `Catalog.features`."""
    return {
        name: np.zeros([rows, spec.width], np.int32)
        if spec.kind == "categorical"
        else np.zeros([rows, 2], np.float32)
        for name, spec in specs.items()
    }


def fill_features(
    features: dict[str, np.ndarray], specs: Mapping[str, FeatureSpec], part: records.Columns
) -> None:
    """Writes what some records say into their rows of `empty_features`."""
    for name, spec in specs.items():
        count, values = part.column[f"feature/{name}"]
        if spec.kind == "categorical":
            within = np.arange(len(values)) - np.repeat(np.cumsum(count) - count, count)
            features[name][np.repeat(part.number, count), within] = values
        else:
            known = count > 0
            features[name][part.number[known], 0] = values[(np.cumsum(count) - count)[known]]
            features[name][part.number[known], 1] = 1.0


def _raw(values: Iterable[Any]) -> list[bytes | np.ndarray]:
    """Distinct values in order: what an item has twice says nothing more."""
    found: dict[bytes, bytes | np.ndarray] = {}
    for value in values:
        raw = value.encode() if isinstance(value, str) else value
        found.setdefault(raw if isinstance(raw, bytes) else raw.tobytes(), raw)
    return list(found.values())
