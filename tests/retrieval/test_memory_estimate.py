"""Content that does not fit stays on disk: the results are the same, and the estimate is right."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import Recommender, RetrievalModel, evaluate, export
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.allowed_ops import read_ops
from mmrec_tf.retrieval.catalog_tables import fitting, gather
from mmrec_tf.retrieval.memory_estimate import estimate
from mmrec_tf.training.fit import train

# Nothing is drawn in training but the order of the examples.
EXACT = {
    "modalities": ["audio", "vector"],
    "item__id_dropout": 0,
}
UNMASKED = {"audio__mask_bins": 0, "audio__mask_frames": 0}
ON_DISK = {"training__catalog_memory_mb": 0}


def trained(dataset, cache, monkeypatch, **settings):
    monkeypatch.setattr(type(dataset), "cache", property(lambda _: cache))
    model = RetrievalModel(small_world.config(**EXACT, **settings), dataset)
    return model, train(model, dataset).history


def places(model):
    return {name: isinstance(v, np.memmap) for name, v in model.tables["content"].items()}


# Where a table is


def test_each_takes_its_room_in_turn():
    sizes = {"text": 40, "image": 90, "audio": 60, "vector": 1}
    assert fitting(sizes, 100) == {"text", "audio"}
    assert fitting(sizes, 101) == {"text", "audio", "vector"}
    assert fitting(sizes, 0) == set()
    assert fitting(sizes, 191) == set(sizes)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_rows_are_the_same_from_anywhere(tmp_path, dtype):
    np.save(tmp_path / "t.npy", np.arange(24).reshape(6, 2, 2).astype(dtype))
    mapped = np.load(tmp_path / "t.npy", mmap_mode="r")
    rows = tf.constant([5, 0, 0, 3])
    want = tf.gather(tf.constant(mapped), rows)
    graph = tf.function(lambda rows: gather(mapped, rows))
    for got in (gather(mapped, rows), graph(rows), gather(tf.Variable(mapped), rows)):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype
    spec = graph.get_concrete_function(tf.TensorSpec([None], tf.int32)).structured_outputs
    assert spec.shape.as_list() == [None, 2, 2]
    assert gather(mapped, tf.zeros([0], tf.int32)).shape == (0, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [0, -1])
def test_on_disk_or_in_memory_it_learns_the_same(dataset, tmp_path, monkeypatch, layers):
    """An encoder that trains reads its preprocessed content from there, a frozen one vectors."""
    settings = {"audio__trainable_layers": layers}
    if layers:
        settings |= UNMASKED
    held, losses = trained(dataset, tmp_path / "a", monkeypatch, **settings)
    left, again = trained(dataset, tmp_path / "b", monkeypatch, **settings, **ON_DISK)
    assert places(held) == {"audio": False, "vector": False}
    assert places(left) == {"audio": True, "vector": True}
    assert losses.keys() == again.keys() and len(losses["loss"]) == 2
    for name, values in losses.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-5, err_msg=name)
    for one, other in zip(held.trainable_weights, left.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=one.name)
    assert evaluate(left, dataset, split="test") == evaluate(held, dataset, split="test")


@pytest.mark.slow
def test_only_what_does_not_fit_stays_on_disk(dataset, tmp_path):
    """Thirty pictures of 128 pixels a side are more than a MiB, their sounds are less."""
    config = small_world.config(
        modalities=["image", "audio"],
        user__profile=False,
        image__size=128,
        image__trainable_layers=-1,
        training__catalog_memory_mb=1,
    )
    model = RetrievalModel(config, dataset, cache=tmp_path, initialize=False)
    assert places(model) == {"image": True, "audio": False}
    table = model.tables["content"]["image"]
    assert (table.dtype, table.shape) == (np.uint8, (30, 128, 128, 3))
    assert np.isfinite(model.embed_catalog().embedding).all()


def test_without_a_cache_it_is_held_and_the_results_are_the_same(dataset):
    models = [small_world.build_retrieval(dataset, **settings) for settings in ({}, ON_DISK)]
    one, other = (model.embed_catalog().embedding for model in models)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "setting, value", [("training.jit_compile", True), ("retrieval.softmax", "full")]
)
def test_what_cannot_read_from_disk_is_refused(dataset, setting, value):
    config = small_world.config(**small_world.VECTORS, **ON_DISK).override({setting: value})
    with pytest.raises(ConfigError, match=rf"vector takes 1 of 0 MiB.*{setting}.*at least 1"):
        RetrievalModel(config, dataset, cache=None)
    config = config.override({"training.catalog_memory_mb": 1})
    RetrievalModel(config, dataset, cache=None)


def test_there_is_no_less_room_than_none():
    with pytest.raises(ConfigError, match="training.catalog_memory_mb: wanted at least 0"):
        small_world.config(training__catalog_memory_mb=-1)


@pytest.mark.slow
def test_no_export_reads_a_table_on_disk(dataset, tmp_path):
    settings = {**small_world.VECTORS, **ON_DISK, "item__features": False}
    model = RetrievalModel(
        small_world.config(**settings), dataset, cache=tmp_path / "cache", initialize=False
    )
    assert places(model) == {"vector": True}
    batch = next(iter(dataset.batches("train", 8, user=model.config.user)))
    graph = tf.function(model.compute_loss).get_concrete_function(batch).graph
    assert [op for op in graph.get_operations() if "PyFunc" in op.type]  # There is one to find.
    for folder in export(Recommender(model, None, dataset), tmp_path / "export", version=1):
        ops = read_ops(folder)
        assert {"MatMul"} <= ops and not [op for op in ops if "PyFunc" in op]


# The estimate


def nbytes(values):
    return sum(np.asarray(value).nbytes for value in values)


@pytest.mark.slow
def test_the_estimate_is_what_there_is_afterwards(dataset, tmp_path, monkeypatch):
    settings = {
        "audio__trainable_layers": -1,
        **UNMASKED,
        "modalities": ["text", "audio", "vector"],
    }
    monkeypatch.setattr(type(dataset), "cache", property(lambda _: tmp_path))
    model = RetrievalModel(small_world.config(**{**EXACT, **settings}), dataset)
    memory, disk = estimate(model, dataset)
    train(model, dataset)
    tables = model.tables
    assert disk == {}
    for name in model.modalities:
        assert memory[name] == nbytes([tables["content"][name]])
    known = [tables[name] for name in ("present", "log_frequency", "probability", "warm")]
    assert memory["items"] == nbytes([*known, *tables["item_features"].values()])
    assert memory["users"] == nbytes(model.user_tables)
    frozen = [w for name in ("text", "vector", "profile") for w in model.encoders[name].weights]
    assert memory["encoders"] == nbytes(frozen)
    assert memory["weights"] == nbytes(model.weights)
    moments = [v for v in model.optimizer.variables if v.shape.rank or "Adam" in v.name]
    assert memory["optimizer"] == nbytes(moments)
    splits = [dataset.interactions(split) for split in ("train", "valid")]
    made = next(iter(dataset.batches("train", 9**9, user=model.config.user)))
    names = ("user", "item", "rating", "weight", "time", "position")
    made = [made[name] for name in names]
    histories = dataset.histories()
    place = np.arange(len(splits[0].user), dtype=np.int64)
    assert memory["interactions"] == (
        sum(map(nbytes, splits)) + nbytes([*made, place, *histories]) + 12  # The padding.
    )
    shards = (dataset.directory / "items").iterdir()
    assert memory["raw content"] == sum(path.stat().st_size for path in shards)


@pytest.mark.slow
def test_what_is_left_on_disk_is_said_apart(dataset, tmp_path, monkeypatch):
    settings = {"audio__trainable_layers": -1, **UNMASKED, **ON_DISK}
    model = RetrievalModel(small_world.config(**EXACT, **settings), dataset, cache=tmp_path)
    found = estimate(model, dataset)
    tables = model.tables["content"]
    assert found.disk == {name: tables[name].nbytes for name in ("audio", "vector")}
    assert not {"audio", "vector"} & found.memory.keys()
    assert "; on disk: audio " in str(found)


@pytest.mark.slow
def test_it_is_printed_before_training(dataset, tmp_path, monkeypatch, capsys):
    trained(dataset, tmp_path, monkeypatch, **ON_DISK)
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "memory: about" in line]
    assert line.startswith("retrieval: ") and "interactions" in line and "on disk: audio" in line
    assert out == ""


def test_epochs_that_are_averaged_take_room(dataset):
    plain, averaged = (
        estimate(
            RetrievalModel(small_world.config(**small_world.VECTORS, **settings), dataset), dataset
        ).memory
        for settings in ({}, {"training__average_epochs": 3})
    )
    assert plain["averages"] == 0 and averaged["averages"] == 1.5 * averaged["optimizer"]
