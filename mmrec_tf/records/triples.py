"""The knowledge graph of a dataset: which items and other entities stand in which relation."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import AGAIN, read_manifest
from mmrec_tf.records.record_proto import bytes_feature, integers_feature, serialize
from mmrec_tf.records.shards import read_batches, shards
from mmrec_tf.schema import Schema

# The folders of a dataset directory, and how the shards in them are named.
FOLDERS = {"graph/entities": "entities", "graph/relations": "relations", "graph/triples": "part"}
_BATCH = 1024


class Triples(NamedTuple):
    """A knowledge graph: the head of each triple stands in a relation to its tail.

    Heads and tails are nodes by number: the items as everywhere, 0 to the number of items - 1, then
    the entities that are no items, in the order of `entity_id`.

    Attributes:
      head: <int32>[triple], nodes.
      relation: <int32>[triple], places in `relation_id`.
      tail: <int32>[triple], nodes.
      entity_id: object[entity] of str.
      relation_id: object[relation] of str.
    """

    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    entity_id: np.ndarray
    relation_id: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, for the manifest."""
        return {
            "triples": len(self.head),
            "entities": len(self.entity_id),
            "relations": len(self.relation_id),
        }


def triple_records(triples: Triples) -> Iterator[tuple[str, bytes]]:
    """All records of a knowledge graph, each with the folder that it belongs into.

    Triples are sorted by head, then relation, then tail; one record holds those of one head.
    """
    for name in triples.entity_id:
        yield "graph/entities", serialize({"entity_id": bytes_feature(name)})
    for name in triples.relation_id:
        yield "graph/relations", serialize({"relation_id": bytes_feature(name)})
    order = np.lexsort((triples.tail, triples.relation, triples.head))
    head, relation, tail = (column[order] for column in triples[:3])
    edges = np.flatnonzero(np.diff(head, prepend=-1, append=np.iinfo(np.int32).max))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        parts = {
            "head": integers_feature(head[start : start + 1]),
            "relation": integers_feature(relation[start:end]),
            "tail": integers_feature(tail[start:end]),
        }
        yield "graph/triples", serialize(parts)


def read_triples(directory: str | pathlib.Path, schema: Schema) -> Triples:
    """Reads the knowledge graph.

    Args:
      directory: a dataset directory.
      schema: its schema.

    Returns:
      `Triples` by head, then relation, then tail; empty where the dataset has none.

    Raises:
      DatasetError: naming the shard that cannot be read or that names an unknown node or relation.
    """
    if not schema.num_relations:
        return Triples(*(np.zeros([0], np.int32),) * 3, *(np.zeros([0], object),) * 2)
    import tensorflow as tf

    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    spec = {
        name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
        for name in ("head", "relation", "tail")
    }
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros([0], np.int64),) * 3]
    last = -1
    for where, parsed in _parse_folder(directory, manifest, "graph/triples", spec):
        part, last = _checked(parsed, schema, where, last)
        parts.append(part)
    head, relation, tail = map(np.concatenate, zip(*parts, strict=True))
    return Triples(
        head.astype(np.int32),
        relation.astype(np.int32),
        tail.astype(np.int32),
        _names(directory, manifest, "entities", "entity_id", number=schema.num_entities),
        _names(directory, manifest, "relations", "relation_id", number=schema.num_relations),
    )


def _checked(
    parsed: Mapping[str, Any], schema: Schema, where: str, last: int
) -> tuple[tuple[np.ndarray, ...], int]:
    """The columns of some records, and the last head."""
    length = {name: value.row_lengths().numpy() for name, value in parsed.items()}
    head, relation, tail = (parsed[n].flat_values.numpy() for n in ("head", "relation", "tail"))
    if (length["head"] != 1).any() or (length["relation"] != length["tail"]).any():
        raise DatasetError(f"{where} wanted one head, and a tail for each relation. {AGAIN}")
    if (np.diff(head, prepend=last) <= 0).any():
        raise DatasetError(f"{where} are out of order: heads must ascend. {AGAIN}")
    num_nodes = schema.num_items + schema.num_entities
    for name, value, number in (
        ("node", head, num_nodes),
        ("node", tail, num_nodes),
        ("relation", relation, schema.num_relations),
    ):
        if ((value < 0) | (value >= number)).any():
            raise DatasetError(f"{where} name a {name} beyond the schema's {number}. {AGAIN}")
    return (np.repeat(head, length["tail"]), relation, tail), int(head[-1])


def _names(
    directory: pathlib.Path, manifest: Mapping[str, Any], what: str, feature: str, *, number: int
) -> np.ndarray:
    """object[number] of str, one a record."""
    import tensorflow as tf

    found: list[str] = []
    spec = {feature: tf.io.FixedLenFeature([], tf.string)}
    for _, parsed in _parse_folder(directory, manifest, f"graph/{what}", spec):
        found += [name.decode("utf-8") for name in parsed[feature].numpy().tolist()]
    if len(found) != number:
        raise DatasetError(
            f"{directory / 'graph' / what}: wanted the schema's {number} records; got "
            f"{len(found)}. {AGAIN}"
        )
    return np.array(found, object)


def _parse_folder(
    directory: pathlib.Path, manifest: Mapping[str, Any], folder: str, spec: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A folder's records, parsed some at a time, each with the words that say where they stand."""
    import tensorflow as tf

    for name in shards(directory, manifest, folder):
        entry, first = manifest["files"][name], 1
        for records in read_batches(
            directory / name, records=entry["records"], size=entry["bytes"], batch=_BATCH
        ):
            last = first + len(records) - 1
            where = f"{directory / name}: records {first} to {last} of {entry['records']}"
            try:
                with tf.device("CPU"):
                    parsed = tf.io.parse_example(tf.constant(records), spec)
            except tf.errors.InvalidArgumentError as error:
                raise DatasetError(
                    f"{where}: one of them is no record of {folder}. {AGAIN}"
                ) from error
            yield where, parsed
            first = last + 1
