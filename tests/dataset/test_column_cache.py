"""Columns that are kept beside the records of a large dataset, and read in their stead."""

import json
import shutil

import numpy as np
import pytest
from support import small_world

from mmrec_tf import DatasetError, open_dataset, records
from mmrec_tf.dataset import column_cache
from mmrec_tf.records.files import write_sealed
from mmrec_tf.schema import SPLITS, ModalitySpec, Schema

PARTS = {"items", "users", *(f"interactions_{split}" for split in SPLITS)}


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """As if the small world were large."""
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 1)


@pytest.fixture
def folder(tmp_path):
    """The small world."""
    small_world.write(tmp_path / "d")
    return tmp_path / "d"


def opened(folder, **options):
    """A dataset of which everything has been read."""
    dataset = open_dataset(folder, **options)
    for split in SPLITS:
        dataset.interactions(split)
    return dataset


def contents(dataset):
    """All that was read, by name."""
    found = {
        **{f"features/{name}": value for name, value in dataset.catalog.features.items()},
        **{f"user features/{name}": value for name, value in dataset.users.features.items()},
        "users": dataset.users.user_id,
        "profiles": dataset.users.profile,
    }
    for name in ("item_id", "present", "train_count", "log_frequency", "probability"):
        found[name] = getattr(dataset.catalog, name)
    for name, value in dataset.catalog.content.items():
        if isinstance(value, np.ndarray):
            found[f"content/{name}"] = value
        else:
            numbers, values = zip(*value.batches(7), strict=True)
            found |= {f"numbers/{name}": np.concatenate(numbers)}
            found |= {f"content/{name}": np.concatenate(values)}
    for split in SPLITS:
        columns = dataset.interactions(split)._asdict().items()
        found |= {f"{split}/{name}": value for name, value in columns}
    return found


def check_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def kept(folder):
    return {path.name for path in (folder / "cache" / "columns").iterdir()}


def refuse_records(monkeypatch):
    """From here on, asking for records is an error."""

    def refuse(*arguments, **options):
        raise AssertionError("records were read")

    for name in ("read_item_columns", "read_user_columns", "read_interactions"):
        monkeypatch.setattr(records, name, refuse)


def test_the_second_opening_reads_no_records(folder, monkeypatch, capsys):
    first = contents(opened(folder))
    assert kept(folder) == PARTS
    refuse_records(monkeypatch)
    check_same(contents(opened(folder)), first)
    assert not capsys.readouterr().err


def test_content_that_is_left_on_disk_is_not_kept(folder, monkeypatch):
    first = contents(opened(folder, content_memory_mb=0))
    assert kept(folder) == PARTS - {"items"} | {"items_without_content"}
    refuse_records(monkeypatch)
    check_same(contents(opened(folder, content_memory_mb=0)), first)
    with pytest.raises(AssertionError, match="records were read"):
        opened(folder)


def test_galleries_are_kept_too(tmp_path, monkeypatch):
    """Some items with several values, some with none, in an order that is not that of records."""
    galleries = [[b"a", b"bc"], [], [b"d"], [b"", b"\0e", b"f"], []]
    rows = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) for n in (0, 2, 1, 0, 3)]
    modalities = {
        "image": ModalitySpec("image", max_values=3),
        "vector": ModalitySpec("vector", dim=2, max_values=3),
    }
    with records.DatasetWriter(tmp_path / "d", shard_bytes=30) as writer:
        for item, (images, vectors) in enumerate(zip(galleries, rows, strict=True)):
            content = {"image": images, "vector": list(vectors)}
            writer.write_item(f"i{item}", content=content)
        schema = Schema(num_users=0, num_items=5, modalities=modalities)
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    first, again = opened(tmp_path / "d"), opened(tmp_path / "d")
    check_same(contents(again), contents(first))
    for dataset in (first, again):
        image, vector = (dataset.catalog.content[name] for name in modalities)
        assert image.count.tolist() == [2, 0, 1, 3, 0] and vector.count.tolist() == [0, 2, 1, 0, 3]
        assert image.values.tolist() == [b"a", b"bc", b"d", b"", b"\0e", b"f"]
        np.testing.assert_array_equal(vector.values, np.concatenate(rows))
        assert dataset.catalog.present.tolist() == [
            [bool(image), len(vector) > 0] for image, vector in zip(galleries, rows, strict=True)
        ]


def test_small_datasets_keep_none(folder, monkeypatch):
    monkeypatch.undo()
    opened(folder)
    assert not (folder / "cache").exists()


def test_what_is_mapped_may_be_changed_and_changes_no_file(folder, monkeypatch):
    monkeypatch.setattr(column_cache, "_PAGE", 0)
    first = opened(folder)
    again = opened(folder)
    again.catalog.content["vector"][:] = 7.0
    again.interactions("train").item[:] = 0
    check_same(contents(opened(folder)), contents(first))


@pytest.mark.parametrize("part", ["items", "users", "interactions_train"])
def test_every_byte_of_a_part_is_covered(folder, part, capsys):
    """Flipped, cut or missing anywhere, a part is made anew, and so it is said."""
    first = contents(opened(folder))
    for number, path in enumerate(sorted((folder / "cache" / "columns" / part).iterdir())):
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        # Another name of a column, and of the hash over all, is a damage like others.
        named = data.replace(b'"columns"', b'"colomns"'), data.replace(b"/", b"_", 1)
        unsealed = data.replace(b"self_sha256", b"self_shb256")
        ways = (flipped, data[:-3], None, *(way for way in (*named, unsealed) if way != data))
        for spoiled in ways if path.suffix == ".json" else [ways[number % 3]]:
            path.unlink()
            if spoiled is not None:
                path.write_bytes(spoiled)
            dataset = open_dataset(folder)
            assert path.read_bytes() == data
            said = capsys.readouterr().err
            assert f"columns/{part} cannot be used" in said and "records anew" in said, path
    check_same(contents(dataset), first)


def test_columns_of_another_dataset_are_not_taken(folder, tmp_path, capsys):
    opened(folder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["source"]["name"] = "another"
    write_sealed(other / "manifest.json", manifest)
    capsys.readouterr()
    check_same(contents(opened(other)), contents(opened(folder)))
    assert capsys.readouterr().err.count("it was made of other records") == len(PARTS)


def test_records_that_were_touched_are_read_again(folder):
    """Damage to the records is not hidden by what was made of them before."""
    opened(folder)
    path = sorted((folder / "users").iterdir())[0]
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(DatasetError, match="damaged at record"):
        opened(folder)


def test_where_nothing_can_be_kept_a_line_says_so(folder, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(column_cache.np, "save", full)
    first = contents(opened(folder))
    assert capsys.readouterr().err.count("No space left on device") == len(PARTS)
    assert not list((folder / "cache" / "columns").iterdir())
    check_same(contents(opened(folder)), first)
