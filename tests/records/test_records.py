import csv
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import mmrec_tf as mm
from mmrec_tf import records
from mmrec_tf.records import writer as writer_module
from mmrec_tf.records.files import write_sealed
from mmrec_tf.records.record_proto import bytes_feature, integers_feature, serialize
from mmrec_tf.schema import SPLITS, FeatureSpec, ModalitySpec, Schema

SCHEMA = Schema(
    num_users=3,
    num_items=2,
    modalities={
        "text": ModalitySpec(kind="text"),
        "image": ModalitySpec(kind="image"),
        "vector": ModalitySpec(kind="vector", dim=3),
    },
    item_features={
        "genre": FeatureSpec(kind="categorical", vocabulary=("a", "b"), width=2),
        "year": FeatureSpec(kind="numeric", mean=2000, std=10),
    },
    profile=True,
    ratings=True,
)
VECTOR = np.array([0.5, -1, 2], np.float32)


def fill(writer: records.DatasetWriter) -> None:
    writer.write_item(
        "i0",
        content={"text": "Zaunkönig 鳥", "image": b"\xff\xd8\x00", "vector": VECTOR},
        features={"genre": [2, 3], "year": -0.5},
    )
    writer.write_item("i1", features={"genre": [], "year": None})
    writer.write_user("u0", profile="likes wrens")
    writer.write_user("u1")
    writer.write_user("u2")
    writer.write_interactions(
        "train", 0, item=[1, 0], timestamp=[5, 9], rating=[1, 2.5], weight=[1, 1]
    )
    writer.write_interactions("train", 2, item=[0], timestamp=[7], rating=[4], weight=[0.5])
    writer.write_interactions("valid", 2, item=[1], timestamp=[8], rating=[3])


def write(directory: pathlib.Path, **options) -> dict:
    with records.DatasetWriter(directory, **options) as writer:
        fill(writer)
        return writer.finish(SCHEMA, source={"name": "test"}, split_rule="given")


def write_numbered(directory: pathlib.Path, number: int, **options) -> Schema:
    """Items i0, i1, ... with a text each, one user who met them all, one interaction a record."""
    schema = Schema(
        num_users=number, num_items=number, modalities={"text": ModalitySpec(kind="text")}
    )
    with records.DatasetWriter(directory, **options) as writer:
        for i in range(number):
            writer.write_item(f"i{i}", content={"text": f"item number {i}"})
            writer.write_user(f"u{i}")
            writer.write_interactions("train", i, item=[i], timestamp=[i])
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    return schema


def shard(directory: pathlib.Path, folder: str) -> pathlib.Path:
    (path,) = (directory / folder).iterdir()
    return path


def rows(interactions: records.Interactions) -> list[tuple]:
    """User, item, timestamp, rating and weight."""
    return list(zip(*(column.tolist() for column in interactions[:5]), strict=True))


def test_what_is_written_is_read(tmp_path):
    manifest = write(tmp_path / "d")
    schema = records.read_schema(tmp_path / "d")
    assert schema == SCHEMA

    full, empty = records.read_items(tmp_path / "d", schema)
    assert (full.item_id, empty.item_id) == ("i0", "i1")
    assert full.content["text"] == ["Zaunkönig 鳥"]
    assert full.content["image"] == [b"\xff\xd8\x00"]
    np.testing.assert_array_equal(full.content["vector"], [VECTOR])
    np.testing.assert_array_equal(full.features["genre"], [2, 3])
    assert full.features["year"] == -0.5
    assert empty.content == {}
    assert empty.features["genre"].tolist() == [] and "year" not in empty.features

    users = list(records.read_users(tmp_path / "d", schema))
    assert [(user.user_id, user.profile) for user in users] == [
        ("u0", "likes wrens"),
        ("u1", None),
        ("u2", None),
    ]
    assert rows(records.read_interactions(tmp_path / "d", schema, "train")) == [
        (0, 1, 5, 1.0, 1.0),
        (0, 0, 9, 2.5, 1.0),
        (2, 0, 7, 4.0, 0.5),
    ]
    assert rows(records.read_interactions(tmp_path / "d", schema, "valid")) == [(2, 1, 8, 3, 1)]
    assert rows(records.read_interactions(tmp_path / "d", schema, "test")) == []

    assert records.verify(tmp_path / "d", full=True) == manifest
    assert manifest["counts"] == {
        "users": 3,
        "items": 2,
        "interactions": {"train": 3, "valid": 1, "test": 0},
        "present": {"text": 1, "image": 1, "vector": 1},
        "several_values": {"text": 0, "image": 0, "vector": 0},
        "values_left_out": {},
        "repeated_content": {"text": 0, "image": 0, "vector": 0},
        "duplicates": {},
        "dropped": {},
        "skipped_rows": {},
    }


NO_GRAPH = records.Triples(*[np.zeros([0], np.int32)] * 3, *[np.zeros([0], object)] * 2)
# Items are nodes 0 and 1, "maker" and "Zaunkönig" 2 and 3.
GRAPH = records.Triples(
    head=np.array([3, 0, 1, 0, 0], np.int32),
    relation=np.array([0, 1, 0, 0, 0], np.int32),
    tail=np.array([2, 2, 2, 3, 1], np.int32),
    entity_id=np.array(["maker", "Zaunkönig"], object),
    relation_id=np.array(["part_of", "made_by"], object),
)


def write_graph(directory: pathlib.Path, triples=GRAPH, **counts) -> dict:
    settings = {"num_items": 2, "num_entities": 2, "num_relations": 2, **counts}
    with records.DatasetWriter(directory) as writer:
        for i in range(2):
            writer.write_item(f"i{i}")
        writer.write_triples(triples)
        schema = Schema(num_users=0, **settings)
        return writer.finish(schema, source={"name": "test"}, split_rule="given")


def test_a_graph_that_is_written_is_read(tmp_path):
    manifest = write_graph(tmp_path / "d")
    found = records.read_triples(tmp_path / "d", records.read_schema(tmp_path / "d"))
    rows = list(zip(*(column.tolist() for column in found[:3]), strict=True))
    assert rows == [(0, 0, 1), (0, 0, 3), (0, 1, 2), (1, 0, 2), (3, 0, 2)]
    assert {column.dtype for column in found[:3]} == {np.dtype(np.int32)}
    assert found.entity_id.tolist() == ["maker", "Zaunkönig"]
    assert found.relation_id.tolist() == ["part_of", "made_by"]
    counts = {name: manifest["counts"][name] for name in ("triples", "entities", "relations")}
    assert counts == {"triples": 5, "entities": 2, "relations": 2}
    name = "graph/triples/part-00000-of-00001.tfrecord"
    assert manifest["files"][name]["records"] == 3  # one a head
    assert records.verify(tmp_path / "d", full=True) == manifest


def test_the_order_of_triples_changes_no_byte(tmp_path):
    turned = GRAPH._replace(**{n: getattr(GRAPH, n)[::-1] for n in ("head", "relation", "tail")})
    assert write_graph(tmp_path / "one") == write_graph(tmp_path / "other", turned)


def test_an_empty_graph_is_a_graph(tmp_path):
    manifest = write_graph(tmp_path / "d", NO_GRAPH, num_entities=0, num_relations=0)
    assert manifest["counts"]["triples"] == 0
    assert len([name for name in manifest["files"] if name.startswith("graph/")]) == 3
    found = records.read_triples(tmp_path / "d", records.read_schema(tmp_path / "d"))
    assert [len(column) for column in found] == [0] * 5
    # One item only, and so no entities.
    alone = GRAPH._replace(
        **{name: np.zeros([1], np.int32) for name in ("head", "relation", "tail")},
        entity_id=np.zeros([0], object),
        relation_id=np.array(["like"], object),
    )
    write_graph(tmp_path / "e", alone, num_entities=0, num_relations=1)
    found = records.read_triples(tmp_path / "e", records.read_schema(tmp_path / "e"))
    assert [column.tolist() for column in found] == [[0], [0], [0], [], ["like"]]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_entities": 3}, "wanted the schema's 3 entities; 2 were written"),
        ({"num_relations": 1}, "wanted the schema's 1 relations; 2 were written"),
    ],
)
def test_a_graph_that_does_not_fit_the_schema_is_not_written(tmp_path, counts, message):
    with pytest.raises(mm.DatasetError, match=message):
        write_graph(tmp_path / "d", **counts)
    assert not (tmp_path / "d").exists()


def graph_fault(
    tmp_path, monkeypatch, *, replaced: dict | None = None, records_=None
) -> pytest.ExceptionInfo:
    """What reading says of a graph that was written otherwise than by the writer."""
    if records_ is not None:
        made = [("graph/entities", {"entity_id": b}) for b in ("maker", "bird")]
        made += [("graph/relations", {"relation_id": b}) for b in ("part_of", "made_by")]
        made += [("graph/triples", parts) for parts in records_]

        def feature(value):
            return bytes_feature(value) if isinstance(value, str) else integers_feature(value)

        lines = [(f, serialize({n: feature(v) for n, v in parts.items()})) for f, parts in made]
        monkeypatch.setattr(writer_module, "triple_records", lambda _: iter(lines))
    write_graph(tmp_path / "d", GRAPH._replace(**(replaced or {})))
    with pytest.raises(mm.DatasetError) as error:
        records.read_triples(tmp_path / "d", records.read_schema(tmp_path / "d"))
    return error


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"tail": np.array([2, 2, 2, 4, 1])}, "name a node beyond the schema's 4"),
        ({"head": np.array([4, 0, 1, 0, 0])}, "name a node beyond the schema's 4"),
        ({"tail": np.array([2, 2, 2, -1, 1])}, "name a node beyond the schema's 4"),
        ({"relation": np.array([0, 2, 0, 0, 0])}, "name a relation beyond the schema's 2"),
    ],
)
def test_triples_of_unknown_nodes_are_refused(tmp_path, monkeypatch, replaced, message):
    error = graph_fault(tmp_path, monkeypatch, replaced=replaced)
    error.match(rf"graph/triples/part-00000-of-00001.tfrecord: records 1 to 3 of 3 {message}")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"head": [1], "relation": [0], "tail": [0]}] * 2, "are out of order"),
        ([{"head": [1], "relation": [0, 1], "tail": [0]}], "a tail for each relation"),
        ([{"relation": [0], "tail": [0]}], "wanted one head"),
        ([{"head": "one", "relation": [0], "tail": [0]}], "is no record of graph/triples"),
    ],
)
def test_records_that_are_no_triples_are_refused(tmp_path, monkeypatch, parts, message):
    graph_fault(tmp_path, monkeypatch, records_=parts).match(message)


def test_a_damaged_graph_is_named(tmp_path):
    write_graph(tmp_path / "d")
    schema = records.read_schema(tmp_path / "d")
    path = shard(tmp_path / "d", "graph/entities")
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(mm.DatasetError, match=f"{path}: ends early at record 2 of 2"):
        records.read_triples(tmp_path / "d", schema)
    path.write_bytes(data)
    shard(tmp_path / "d", "graph/triples").unlink()
    with pytest.raises(mm.DatasetError, match="part-00000-of-00001.tfrecord: missing"):
        records.read_triples(tmp_path / "d", schema)


def test_columns_have_the_promised_types(tmp_path):
    write(tmp_path / "d")
    for split in SPLITS:  # an empty one, too
        interactions = records.read_interactions(tmp_path / "d", SCHEMA, split)
        assert [column.dtype for column in interactions] == [
            np.int32,
            np.int32,
            np.int64,
            np.float32,
            np.float32,
            bool,
            np.int32,
        ]
        assert interactions.events.shape == (len(interactions.user), 0)


TYPED = dataclasses.replace(SCHEMA, events=("view", "cart", "buy"), num_positions=4)


def write_typed(directory: pathlib.Path, schema: Schema = TYPED, **columns) -> None:
    """Two interactions of user 0 and one of user 2, all in train."""
    events = [[True, False, False], [False, True, True], [False] * 3]
    columns = {"events": events, "position": [3, -1, 0], **columns}
    with records.DatasetWriter(directory) as writer:
        for i in range(2):
            writer.write_item(f"i{i}")
        for i in range(3):
            writer.write_user(f"u{i}")
        for user, part, items in ((0, slice(0, 2), [1, 0]), (2, slice(2, 3), [0])):
            some = {name: values and values[part] for name, values in columns.items()}
            writer.write_interactions("train", user, item=items, timestamp=items, **some)
        writer.finish(schema, source={"name": "test"}, split_rule="given")


def test_types_and_positions_that_are_written_are_read(tmp_path):
    write_typed(tmp_path / "d")
    schema = records.read_schema(tmp_path / "d")
    assert schema == TYPED
    train = records.read_interactions(tmp_path / "d", schema, "train")
    assert train.events.tolist() == [[True, False, False], [False, True, True], [False] * 3]
    assert train.position.tolist() == [3, -1, 0]
    for split in SPLITS:  # an empty one, too
        found = records.read_interactions(tmp_path / "d", schema, split)
        assert (found.events.dtype, found.position.dtype) == (bool, np.int32)
        assert found.events.shape == (len(found.user), 3)


def test_the_last_of_62_types(tmp_path):
    schema = dataclasses.replace(TYPED, events=tuple(f"e{n}" for n in range(62)))
    events = np.stack([np.arange(62) == 61, np.arange(62) == 0, np.ones(62, bool)])
    write_typed(tmp_path / "d", schema, events=events.tolist())
    found = records.read_interactions(tmp_path / "d", schema, "train").events
    np.testing.assert_array_equal(found, events)


def test_a_record_as_it_lies_on_disk(tmp_path):
    write_typed(tmp_path / "d", position=[3, -1, -1])
    made = tf.data.TFRecordDataset(str(shard(tmp_path / "d", "interactions/train")))
    found = [tf.train.Example.FromString(r.numpy()).features.feature for r in made]
    assert list(found[0]["events"].int64_list.value) == [0b001, 0b110]
    assert list(found[0]["position"].int64_list.value) == [3, -1]
    # Left out where all are unknown.
    assert set(found[1]) == {"user", "item", "timestamp", "events"}
    train = records.read_interactions(tmp_path / "d", TYPED, "train")
    assert train.position.tolist() == [3, -1, -1]


def test_what_was_read_can_be_written(tmp_path):
    """As it is, whether there are types and positions or not."""
    for name, fill_in in (("plain", write), ("typed", write_typed)):
        fill_in(tmp_path / name)
        schema = records.read_schema(tmp_path / name)
        train = records.read_interactions(tmp_path / name, schema, "train")
        with records.DatasetWriter(tmp_path / f"{name} again") as writer:
            for user in np.unique(train.user).tolist():
                own = {n: c[train.user == user] for n, c in train._asdict().items() if n != "user"}
                writer.write_interactions("train", user, **own)
            for i in range(3):
                writer.write_user(f"u{i}")
            for i in range(2):
                writer.write_item(f"i{i}")
            writer.finish(schema, source={"name": "test"}, split_rule="given")
        again = records.read_interactions(tmp_path / f"{name} again", schema, "train")
        for column, twin in zip(train, again, strict=True):
            np.testing.assert_array_equal(column, twin)


def test_where_the_schema_has_neither_there_is_none(tmp_path):
    write(tmp_path / "d")
    train = records.read_interactions(tmp_path / "d", SCHEMA, "train")
    assert train.events.shape == (3, 0) and train.position.tolist() == [-1, -1, -1]
    (record,) = tf.data.TFRecordDataset(str(shard(tmp_path / "d", "interactions/valid")))
    names = tf.train.Example.FromString(record.numpy()).features.feature.keys()
    assert names == {"user", "item", "timestamp", "rating"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"events": None}, "record 1 has another number of masks of events than of items"),
        (
            {"events": [[0] * 4, [0] * 4, [0, 0, 0, 1]]},
            "names a type of event beyond the schema's 3",
        ),
        ({"position": [0, 4, 0]}, "record 1 names a position beyond the schema's 4"),
        ({"position": [0, 0, -2]}, "record 2 names a position beyond the schema's 4"),
    ],
)
def test_types_and_positions_that_do_not_fit_are_refused(tmp_path, columns, message):
    write_typed(tmp_path / "d", **columns)
    with pytest.raises(mm.DatasetError, match=f"{message}. Write the dataset again"):
        records.read_interactions(tmp_path / "d", TYPED, "train")


def test_nothing_at_all_is_a_dataset(tmp_path):
    write_numbered(tmp_path / "d", 0)
    schema = records.read_schema(tmp_path / "d")
    records.verify(tmp_path / "d", full=True)
    assert list(records.read_items(tmp_path / "d", schema)) == []
    assert list(records.read_users(tmp_path / "d", schema)) == []
    assert rows(records.read_interactions(tmp_path / "d", schema, "train")) == []


def test_same_input_same_bytes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_other_content_other_hash(tmp_path):
    one, two = (write_numbered(tmp_path / str(n), n) for n in (1, 2))
    assert one != two
    hashes = {records.read_manifest(tmp_path / str(n))["sha256"] for n in (1, 2)}
    assert len(hashes) == 2


def test_shards_are_bounded_and_read_in_order(tmp_path):
    schema = write_numbered(tmp_path / "d", 50, shard_bytes=500)
    names = sorted(path.name for path in (tmp_path / "d" / "items").iterdir())
    assert len(names) > 3
    assert names[0] == f"items-00000-of-{len(names):05d}.tfrecord"
    files = records.read_manifest(tmp_path / "d")["files"]
    assert sum(files[f"items/{name}"]["records"] for name in names) == 50
    assert all((tmp_path / "d" / "items" / name).stat().st_size < 500 + 16 * 50 for name in names)
    items = records.read_items(tmp_path / "d", schema)
    assert [item.item_id for item in items] == [f"i{i}" for i in range(50)]
    train = records.read_interactions(tmp_path / "d", schema, "train")
    np.testing.assert_array_equal(train.user, np.arange(50))


@pytest.mark.parametrize("cut", [1, 40])
def test_a_truncated_shard_is_named_with_its_record(tmp_path, cut):
    schema = write_numbered(tmp_path / "d", 125)
    path = shard(tmp_path / "d", "items")
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    wanted = re.escape(f"{path}: ends early at record 125 of 125. Write the dataset again with")
    with pytest.raises(mm.DatasetError, match=wanted):
        list(records.read_items(tmp_path / "d", schema))
    with pytest.raises(mm.DatasetError, match=rf"{path}: holds {len(data) - cut} bytes"):
        records.verify(tmp_path / "d")


def test_a_shard_cut_between_records_ends_early_too(tmp_path):
    schema = write_numbered(tmp_path / "d", 3)
    path = shard(tmp_path / "d", "users")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3 * 2])
    with pytest.raises(mm.DatasetError, match=r"ends early at record 3 of 3"):
        list(records.read_users(tmp_path / "d", schema))


@pytest.mark.parametrize("folder", ["items", "interactions/train"])
def test_an_altered_shard_is_named_with_its_record(tmp_path, folder):
    schema = write_numbered(tmp_path / "d", 10)
    path = shard(tmp_path / "d", folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # in record 5 or 6 of 10
    path.write_bytes(data)
    with pytest.raises(mm.DatasetError, match=r"damaged at record [56] of 10 \(its checksum"):
        list(records.read_items(tmp_path / "d", schema))
        records.read_interactions(tmp_path / "d", schema, "train")
    records.verify(tmp_path / "d")  # the size is right
    with pytest.raises(mm.DatasetError, match=f"{path}: its content is not what was written"):
        records.verify(tmp_path / "d", full=True)


def test_bytes_behind_the_last_record_are_seen(tmp_path):
    schema = write_numbered(tmp_path / "d", 3)
    path = shard(tmp_path / "d", "items")
    path.write_bytes(path.read_bytes() + b"abc")
    with pytest.raises(mm.DatasetError, match="the manifest says"):
        list(records.read_items(tmp_path / "d", schema))


def test_a_record_too_many_is_seen(tmp_path):
    schema = write_numbered(tmp_path / "d", 3)
    path = shard(tmp_path / "d", "items")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(mm.DatasetError, match="more than the manifest's 3 records"):
        list(records.read_items(tmp_path / "d", schema))


def test_a_missing_shard_is_named(tmp_path):
    schema = write_numbered(tmp_path / "d", 3)
    path = shard(tmp_path / "d", "users")
    path.unlink()
    with pytest.raises(mm.DatasetError, match=f"{path}: missing"):
        list(records.read_users(tmp_path / "d", schema))
    with pytest.raises(mm.DatasetError, match=f"{path}: missing"):
        records.verify(tmp_path / "d")


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        ({"user": [0], "item": [2], "timestamp": [0]}, "record 1 names an item beyond"),
        ({"user": [3], "item": [0], "timestamp": [0]}, "record 1 names a user beyond"),
        ({"user": [], "item": [0], "timestamp": [0]}, "record 1 names no user"),
        ({"user": [1], "item": [0, 1], "timestamp": [0]}, "another number of timestamps"),
        ({"user": [1], "item": [0], "timestamp": [0], "weight": [1.0, 2.0]}, "number of weights"),
        ({"user": [1], "item": [b"0"], "timestamp": [0]}, "is not an interaction record"),
    ],
)
def test_interactions_that_do_not_fit_are_refused(tmp_path, interactions, message):
    write(tmp_path / "d")
    kinds = {int: ("int64_list", tf.train.Int64List), float: ("float_list", tf.train.FloatList)}
    parts = {}
    for name, values in interactions.items():
        kind = type(values[0]) if values else int
        field, make = kinds.get(kind, ("bytes_list", tf.train.BytesList))
        parts[name] = tf.train.Feature(**{field: make(value=values)})
    replace(tmp_path / "d", "interactions/train", parts)
    with pytest.raises(mm.DatasetError, match=message):
        records.read_interactions(tmp_path / "d", SCHEMA, "train")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "record 1 of 1 has no item_id"),
        ({"vector": tf.train.Feature(float_list=tf.train.FloatList(value=[1]))}, "wanted 3 num"),
        ({"text": tf.train.Feature(float_list=tf.train.FloatList(value=[1]))}, "no content of"),
        (
            {"feature/genre": tf.train.Feature(int64_list=tf.train.Int64List(value=[4]))},
            "feature genre wanted at most 2 numbers from 1 to 3",
        ),
    ],
)
def test_items_that_do_not_fit_are_refused(tmp_path, parts, message):
    write(tmp_path / "d")
    name = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"i0"]))
    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
    named = {"item_id": name, **parts} if parts else {}
    replace(tmp_path / "d", "items", {"item": number, **named})
    with pytest.raises(mm.DatasetError, match=message):
        list(records.read_items(tmp_path / "d", SCHEMA))


def replace(directory: pathlib.Path, folder: str, parts: dict) -> None:
    """Replaces a folder's records by one of these parts, and has the manifest agree."""
    path = shard(directory, folder)
    with tf.io.TFRecordWriter(str(path)) as writer:
        example = tf.train.Example(features=tf.train.Features(feature=parts))
        writer.write(example.SerializeToString())
    manifest = records.read_manifest(directory)
    entry = manifest["files"][str(path.relative_to(directory))]
    entry.update(bytes=path.stat().st_size, records=1)
    write_sealed(directory / "manifest.json", manifest)


def test_an_unknown_split_is_refused(tmp_path):
    write(tmp_path / "d")
    with pytest.raises(mm.DatasetError, match="wanted one of train, valid, test; got 'val'"):
        records.read_interactions(tmp_path / "d", SCHEMA, "val")


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(mm.DatasetError, match="wanted a dataset directory; manifest.json"):
        records.read_manifest(tmp_path / "missing")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(mm.DatasetError, match="wanted JSON"):
        records.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(mm.DatasetError, match="wanted a dataset of format 3; got format 1"):
        records.read_manifest(tmp_path)
    (tmp_path / "schema.json").write_text('{"num_users": 1}')
    with pytest.raises(mm.DatasetError, match="schema.json: schema: wanted the fields"):
        records.read_schema(tmp_path)


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError), records.DatasetWriter(tmp_path / "d") as writer:
        fill(writer)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_finish_leaves_nothing_behind(tmp_path):
    with records.DatasetWriter(tmp_path / "d") as writer:
        fill(writer)
        assert not (tmp_path / "d").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_does_not_fit_is_refused(tmp_path):
    with (
        pytest.raises(mm.DatasetError, match="wanted the schema's 2 items; 0 were written"),
        records.DatasetWriter(tmp_path / "d") as writer,
    ):
        writer.finish(SCHEMA, source={"name": "test"}, split_rule="given")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_replaced_only_when_asked(tmp_path):
    write_numbered(tmp_path / "d", 1)
    with pytest.raises(mm.DatasetError, match="a dataset stands there already"):
        write(tmp_path / "d")
    assert records.read_schema(tmp_path / "d").num_items == 1
    write(tmp_path / "d", overwrite=True)
    assert records.read_schema(tmp_path / "d") == SCHEMA
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_failed_overwrite_keeps_the_old_dataset(tmp_path):
    write_numbered(tmp_path / "d", 1)
    with pytest.raises(KeyError), records.DatasetWriter(tmp_path / "d", overwrite=True) as writer:
        fill(writer)
        raise KeyError
    records.verify(tmp_path / "d", full=True)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("ten years")
    with pytest.raises(mm.DatasetError, match="holds something else"):
        write(tmp_path / "d", overwrite=True)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["thesis.txt"]
    with pytest.raises(mm.DatasetError, match="it is a file"):
        write(tmp_path / "d" / "thesis.txt", overwrite=True)
    with pytest.raises(mm.DatasetError, match="cannot be written"):
        write(tmp_path / "d" / "thesis.txt" / "e")


def test_an_empty_directory_or_a_link_to_one_will_do(tmp_path):
    (tmp_path / "d").mkdir()
    os.symlink(tmp_path / "d", tmp_path / "link")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    records.verify(tmp_path / "d", full=True)


def test_a_dataset_of_another_format_may_be_replaced(tmp_path):
    write(tmp_path / "d")
    manifest = records.read_manifest(tmp_path / "d")
    write_sealed(tmp_path / "d" / "manifest.json", manifest | {"format": 0})
    write(tmp_path / "d", overwrite=True)
    records.verify(tmp_path / "d", full=True)


def test_quarantine_is_written_and_summed_up(tmp_path):
    with records.DatasetWriter(tmp_path / "d") as writer:
        for item, reason in (("i0", "too short (1 samples)"), ("i1", "too short\n(2 samples)")):
            row = records.Quarantined(item, "audio", "a, b.wav", reason, "soundfile")
            writer.write_item(item, quarantined=[row])
        schema = Schema(num_users=0, num_items=2)
        manifest = writer.finish(schema, source={"name": "test"}, split_rule="given")
    with (tmp_path / "d" / "quarantine.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["item", "modality", "file", "reason", "decoder"],
            ["i0", "audio", "a, b.wav", "too short (1 samples)", "soundfile"],
            ["i1", "audio", "a, b.wav", "too short (2 samples)", "soundfile"],
        ]
    assert manifest["quarantine"] == {"audio": {"too short": 2}}
    assert "quarantine.csv" in manifest["files"]


def test_repeated_contents_are_counted_and_the_hash_follows_the_content(tmp_path):
    schema = Schema(num_users=0, num_items=3, modalities={"text": ModalitySpec("text")})

    def manifest(name, *texts):
        with records.DatasetWriter(tmp_path / name) as writer:
            for number, text in enumerate(texts):
                writer.write_item(f"i{number}", content={"text": text} if text else {})
            return writer.finish(schema, source={"name": "test"}, split_rule="given")

    first = manifest("a", "wren", "owl", "wren")
    assert first["counts"]["repeated_content"] == {"text": 1}
    assert first["content"] == manifest("b", "wren", "owl", "wren")["content"]
    for other in (["wren", "wren", "owl"], ["wren", "owl", ""], ["", "wren", "owl"]):
        assert first["content"] != manifest("-".join(other), *other)["content"]


def item_shards(directory, *, number, texts):
    """Writes the shard `number` of two into what a writer for the same job left."""
    from mmrec_tf.records.items import write_shard

    items = [records.PreparedItem(i, f"i{i}", {"text": text}) for i, text in texts.items()]
    partial = directory.with_name(directory.name + ".partial")
    write_shard(partial / "items", partial / "work/reports", items, number=number, count=2)


def finish_shards(writer):
    writer.add_item_shards(2)
    schema = Schema(num_users=0, num_items=3, modalities={"text": ModalitySpec("text")})
    return writer.finish(schema, source={"name": "test"}, split_rule="given")


def test_shards_written_elsewhere_outlive_a_kill(tmp_path):
    def start(name):
        return records.DatasetWriter(tmp_path / name, job={"a": 1})

    with start("whole") as writer:
        item_shards(tmp_path / "whole", number=0, texts={1: "owl"})
        item_shards(tmp_path / "whole", number=1, texts={0: "wren", 2: "gull"})
        whole = finish_shards(writer)
    with start("d"):
        item_shards(tmp_path / "d", number=0, texts={1: "owl"})
    (tmp_path / "d.partial/items/.items-00001-of-00002.tfrecord.77").write_bytes(b"half")
    with start("d") as writer:
        assert len(list(writer.reports.iterdir())) == 1
        item_shards(tmp_path / "d", number=1, texts={0: "wren", 2: "gull"})
        assert finish_shards(writer) == whole
    found = records.read_items(tmp_path / "d", records.read_schema(tmp_path / "d"))
    texts = {item.number: item.content["text"] for item in found}
    assert texts == {0: ["wren"], 1: ["owl"], 2: ["gull"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "whole"]
    assert not list((tmp_path / "d").rglob(".*"))


@pytest.mark.parametrize("job", [None, {"a": 2}])
def test_another_job_starts_anew(tmp_path, job):
    with records.DatasetWriter(tmp_path / "d", job={"a": 1}):
        item_shards(tmp_path / "d", number=0, texts={1: "owl"})
    with records.DatasetWriter(tmp_path / "d", job=job) as writer:
        assert not list(writer.reports.iterdir()) and not list(writer.items.iterdir())


def test_only_one_process_may_write(tmp_path):
    with records.DatasetWriter(tmp_path / "d"):
        with pytest.raises(mm.DatasetError, match="another process writes there now"):
            records.DatasetWriter(tmp_path / "d")
    write(tmp_path / "d")


def test_what_is_not_left_by_a_writing_is_not_touched(tmp_path):
    (tmp_path / "d.partial").mkdir()
    (tmp_path / "d.partial/thesis.txt").write_text("years of work")
    for _ in range(2):  # the lock is let go, too
        with pytest.raises(mm.DatasetError, match="it holds something else"):
            records.DatasetWriter(tmp_path / "d")
    assert (tmp_path / "d.partial/thesis.txt").exists()


def test_writing_needs_no_tensorflow(tmp_path):
    code = (
        "import sys; import numpy as np; from mmrec_tf.schema import Schema\n"
        "from mmrec_tf.records import DatasetWriter, Triples\n"
        "with DatasetWriter(sys.argv[1]) as writer:\n"
        "    writer.write_item('i', content={'text': 'a'}); writer.write_user('u')\n"
        "    writer.write_interactions('train', 0, item=[0], timestamp=[0])\n"
        "    zero = np.zeros(1, int)\n"
        "    writer.write_triples(Triples(zero, zero, zero, [], ['like']))\n"
        "    schema = Schema(1, 1, num_relations=1)\n"
        "    writer.finish(schema, source={}, split_rule='given')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "d"], check=True)


# Several values of a modality


GALLERY = Schema(
    num_users=0,
    num_items=3,
    modalities={
        "text": ModalitySpec("text", max_values=2),
        "image": ModalitySpec("image", max_values=3),
        "vector": ModalitySpec("vector", dim=2, max_values=2),
    },
)


def write_gallery(directory: pathlib.Path, schema: Schema = GALLERY, **content) -> dict:
    """Three items: the one with this content, one with one of each, one with nothing."""
    with records.DatasetWriter(directory) as writer:
        writer.write_item("i0", content=content)
        writer.write_item("i1", content={"text": ["owl"], "image": b"4", "vector": VECTOR[:2]})
        writer.write_item("i2", content={"text": []})
        return writer.finish(schema, source={"name": "test"}, split_rule="given")


def test_several_values_are_read_in_their_order(tmp_path):
    vectors = [VECTOR[:2], VECTOR[1:]]
    content = {"text": ["wren", "bird"], "image": [b"3", b"1", b"2"], "vector": vectors}
    manifest = write_gallery(tmp_path / "d", **content)
    schema = records.read_schema(tmp_path / "d")
    assert {name: spec.max_values for name, spec in schema.modalities.items()} == {
        "text": 2,
        "image": 3,
        "vector": 2,
    }
    first, second, third = records.read_items(tmp_path / "d", schema)
    assert first.content["text"] == ["wren", "bird"]
    assert first.content["image"] == [b"3", b"1", b"2"]
    np.testing.assert_array_equal(first.content["vector"], [[0.5, -1], [-1, 2]])
    assert second.content["text"] == ["owl"] and second.content["vector"].shape == (1, 2)
    assert third.content == {}
    assert manifest["counts"]["several_values"] == {"text": 1, "image": 1, "vector": 1}
    assert manifest["counts"]["present"] == {"text": 2, "image": 2, "vector": 2}
    # The same values in another order, or as one, are another content.
    one = write_gallery(tmp_path / "e", **content | {"image": [b"1", b"3", b"2"]})
    other = write_gallery(tmp_path / "f", **content | {"image": [b"312"]})
    hashes = {m["content"]["image"] for m in (manifest, one, other)}
    assert len(hashes) == 3 and manifest["content"]["text"] == one["content"]["text"]


def test_more_values_than_the_schema_says_are_refused(tmp_path):
    with pytest.raises(mm.DatasetError, match="max_values of text, 2; an item with 3 was written"):
        write_gallery(tmp_path / "d", text=["a", "b", "c"])
    write_gallery(tmp_path / "d", text=["a", "b"], vector=[VECTOR[:2]] * 2)
    for name, message in (
        ("text", "item 'i0'|record 1 of 3: text wanted at most 1 values, as in the schema; got 2"),
        ("vector", "record 1 of 3: vector wanted at most 1 values, as in the schema; got 2"),
    ):
        spec = dataclasses.replace(GALLERY.modalities[name], max_values=1)
        narrow = dataclasses.replace(GALLERY, modalities={name: spec})
        with pytest.raises(mm.DatasetError, match=message):
            list(records.read_items(tmp_path / "d", narrow))
    with pytest.raises(
        mm.DatasetError, match=r"'i0': vector: wanted vectors of one length; got \[2, 3"
    ):
        write_gallery(tmp_path / "e", vector=[VECTOR[:2], VECTOR])


def test_a_dataset_of_the_format_before_names_the_upgrade(tmp_path):
    write(tmp_path / "d")
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    write_sealed(tmp_path / "d" / "manifest.json", manifest | {"format": 2})
    message = (
        r'wanted a dataset of format 3; got format 2\. Prepare it again .*"python -m data\.prepare"'
    )
    with pytest.raises(mm.DatasetError, match=message):
        mm.open_dataset(tmp_path / "d")
