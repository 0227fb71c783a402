"""The cache of encoded content: computed once, gone on with after a kill, one for each key."""

import errno
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import open_dataset
from mmrec_tf.encoders import cache as encoding
from mmrec_tf.encoders.cache import (
    build_encoders,
    carry_encoded,
    encode,
    encoded_bytes,
    encoded_spec,
    forward,
)
from mmrec_tf.encoders.vector import Encoder
from mmrec_tf.errors import ConfigError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import ModalitySpec, Schema

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VECTOR = {"vector": ModalitySpec("vector", dim=3)}


@pytest.fixture
def calls(monkeypatch):
    """How many rows were encoded, batch by batch."""
    seen = []
    forward = encoding.forward

    def counted(encoder):
        step = forward(encoder)

        def call(raw):
            seen.append(len(raw))
            return step(raw)

        return call

    monkeypatch.setattr(encoding, "forward", counted)
    return seen


@pytest.fixture(scope="module")
def encoders(dataset):
    """Of the small world, frozen; by modality."""
    specs = dataset.schema.modalities
    return build_encoders(small_world.config(), specs, dict(dataset.catalog.content))


@pytest.fixture(scope="module")
def streamed(dataset):
    """The same dataset, its content left on disk."""
    return open_dataset(dataset.directory, content_memory_mb=0)


def table(rows=100, seed=0):
    return np.random.default_rng(seed).normal(size=[rows, 3]).astype(np.float32)


def small_encoder(values):
    return build_encoders(small_world.config(), VECTOR, {"vector": values})["vector"]


# What it computes


@pytest.mark.parametrize("name", small_world.MODALITIES)
def test_a_frozen_encoder_s_vectors(dataset, encoders, name):
    encoder, values = encoders[name], dataset.catalog.content[name]
    got = encode(encoder, values, name=name, batch_size=7)
    raw = tf.constant(values.tolist() if values.dtype == object else values)
    want = encoder(encoder.preprocess(raw))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert got.dtype == np.float32 and got.nbytes == encoded_bytes(encoder, len(values))


def test_one_that_trains_is_only_prepared_for(dataset):
    specs = {"image": ModalitySpec("image")}
    values = dataset.catalog.content["image"]
    config = small_world.config(image__trainable_layers=-1)
    encoder = build_encoders(config, specs, {"image": values})["image"]
    got = encode(encoder, values, name="image", batch_size=7)
    want = encoder.preprocess(tf.constant(values.tolist()))
    np.testing.assert_array_equal(got, want)
    assert encoded_spec(encoder) == encoder.content_spec()
    assert got.nbytes == encoded_bytes(encoder, 30) == 30 * 32 * 32 * 3


@pytest.mark.parametrize("name", small_world.MODALITIES)
def test_content_on_disk_gives_what_content_in_memory_gives(dataset, streamed, encoders, name):
    held, left = (d.catalog.content[name] for d in (dataset, streamed))
    got = encode(encoders[name], left, name=name, batch_size=7)
    np.testing.assert_allclose(got, encode(encoders[name], held, name=name), rtol=1e-4, atol=1e-5)


def test_what_is_absent_is_encoded_once(dataset, encoders, calls):
    values = dataset.catalog.content["text"]
    got = encode(encoders["text"], values, name="text", batch_size=8)
    absent = np.array([not value for value in values])
    assert calls == [1, *[8] * (int((~absent).sum()) // 8), int((~absent).sum()) % 8]
    np.testing.assert_array_equal(got[absent], np.repeat(got[absent][:1], absent.sum(), axis=0))


def test_no_items_at_all(tmp_path):
    encoder = Encoder(3)
    for cache in (None, tmp_path):
        assert encode(encoder, np.zeros([0, 3], np.float32), name="v", cache=cache).shape == (0, 3)


def test_one_function_for_each_encoder_which_goes_with_it():
    encoder, other = Encoder(3), Encoder(3)
    assert forward(encoder) is forward(encoder) is not forward(other)
    for rows in (1, 2, 3, 5):
        forward(encoder)(tf.zeros([rows, 3]))
    # One for the first size, one for any.
    assert forward(encoder).experimental_get_tracing_count() <= 2
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None and other in encoding._FORWARD


# The cache


def test_a_frozen_encoder_runs_once(tmp_path, calls):
    values = table()
    encoder = small_encoder(values)
    first = encode(encoder, values, name="v", cache=tmp_path)
    assert sum(calls) == 100
    again = encode(encoder, values, name="v", cache=tmp_path)
    assert sum(calls) == 100
    np.testing.assert_array_equal(first, again)
    (path,) = tmp_path.glob("*.npy")
    assert path.name.startswith("v-") and path.suffix == ".npy"


def test_other_content_other_weights_and_another_hash_are_other_vectors(tmp_path, calls):
    values = table()
    encoder = small_encoder(values)
    first = encode(encoder, values, name="v", cache=tmp_path)
    other = encode(encoder, table(seed=1), name="v", cache=tmp_path)
    encoder.mean.assign_add([1.0, 1.0, 1.0])
    moved = encode(encoder, values, name="v", cache=tmp_path)
    assert len({array.tobytes() for array in (first, other, moved)}) == 3
    assert sum(calls) == 300
    for number in range(2):
        for _ in range(2):
            encode(encoder, values, name="v", cache=tmp_path, sha256=str(number))
        assert sum(calls) == 400 + 100 * number


def test_with_a_hash_at_hand_content_is_not_hashed(tmp_path, monkeypatch):
    def refuse(values):
        raise AssertionError("content was hashed")

    monkeypatch.setattr(encoding, "hash_values", refuse)
    encode(Encoder(3), table(), name="v", cache=tmp_path, sha256="abc")
    with pytest.raises(AssertionError, match="was hashed"):
        encode(Encoder(3), table(), name="v", cache=tmp_path)


def test_in_memory_or_on_disk_the_cache_is_the_same(dataset, streamed, encoders, tmp_path, calls):
    for one in (dataset, streamed, dataset):
        catalog = one.catalog
        encode(
            encoders["text"],
            catalog.content["text"],
            name="text",
            cache=tmp_path,
            sha256=catalog.content_sha256["text"],
        )
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".sha256"]
    assert sum(calls) == int(dataset.catalog.present[:, 0].sum()) + 1


@pytest.mark.parametrize("layers", [0, -1])
def test_mapped_it_stays_on_disk(dataset, tmp_path, layers):
    values = dataset.catalog.content["image"]
    config = small_world.config(image__trainable_layers=layers)
    encoder = build_encoders(config, {"image": ModalitySpec("image")}, {"image": values})["image"]
    held = encode(encoder, values, name="image", cache=tmp_path)
    # Preprocessed content is kept on disk only where it cannot be held.
    assert len(list(tmp_path.glob("*.npy"))) == (layers == 0)
    mapped = encode(encoder, values, name="image", cache=tmp_path, mapped=True)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".sha256"]
    np.testing.assert_array_equal(held, mapped)


def test_preprocessed_content_belongs_to_its_settings_and_not_to_weights(dataset, tmp_path, calls):
    values = dataset.catalog.content["image"]

    def prepare(**settings):
        settings = {"image__trainable_layers": -1, **settings}
        encoder = build_encoders(
            small_world.config(**settings), {"image": ModalitySpec("image")}, {"image": values}
        )["image"]
        before = len(calls)
        encode(encoder, values, name="image", cache=tmp_path, mapped=True)
        return len(calls) > before

    assert prepare()
    assert not prepare()  # whose random weights are others
    assert not prepare(image__flip=True)
    assert prepare(image__size=40)


@pytest.mark.parametrize(("layers", "said"), [(0, True), (-1, False)])
def test_a_frozen_encoder_that_has_learned_nothing_is_said(dataset, capsys, layers, said):
    """Once for each kind, as several encoders may read it."""
    encoding._warn_of_random.cache_clear()
    values = {"image": dataset.catalog.content["image"]}
    config = small_world.config(image__trainable_layers=layers)
    for _ in range(2):
        build_encoders(config, {"image": ModalitySpec("image")}, values)
    found = capsys.readouterr().err.count("image is read by a frozen encoder of random weights")
    assert found == said


def test_a_disk_that_cannot_be_written_only_warns(tmp_path):
    (tmp_path / "file").write_text("")
    values = table()
    encoder = small_encoder(values)
    with pytest.warns(UserWarning, match="not cached"):
        got = encode(encoder, values, name="v", cache=tmp_path / "file" / "cache", mapped=True)
    np.testing.assert_array_equal(got, encode(encoder, values, name="v"))


# Kills

SLOW = """
import sys, time
import mmrec_tf, numpy as np
import test_cache as tests
from mmrec_tf.encoders import cache as encoding

forward = encoding.forward

def slow(encoder):
    step = forward(encoder)
    def call(raw):
        time.sleep(0.01)
        return step(raw)
    return call

encoding.forward = slow
values = tests.table(6000)
encoding.encode(tests.small_encoder(values), values, name="v", cache=sys.argv[1])
"""


def start(cache):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE])),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.Popen([sys.executable, "-c", SLOW, str(cache)], env=environment)


def rows_done(cache):
    states = list(cache.glob(".*.done.npy"))
    try:
        return int(np.load(states[0]).sum()) if states else 0
    except (OSError, ValueError, EOFError):
        return 0


def wait_for(condition, timeout_seconds=60):
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_after_a_kill_it_goes_on_and_ends_the_same(tmp_path, calls):
    process = start(tmp_path)
    wait_for(lambda: rows_done(tmp_path) >= 1024)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = 6000 - rows_done(tmp_path)
    assert not list(tmp_path.glob("v-*")) and 0 < left < 6000
    values = table(6000)
    got = encode(small_encoder(values), values, name="v", cache=tmp_path)
    assert sum(calls) == left
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".sha256"]
    np.testing.assert_array_equal(got, encode(small_encoder(values), values, name="v"))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["cut", "cut to its head", "empty", "altered", "unhashed"])
def test_a_cache_that_is_not_what_was_written_is_made_anew_and_told(
    tmp_path, calls, capsys, kind, mapped
):
    values = table()
    encoder = small_encoder(values)
    whole = encode(encoder, values, name="v", cache=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    data = bytearray(path.read_bytes())
    if kind == "unhashed":
        path.with_suffix(".sha256").unlink()
    elif kind == "altered":
        data[-3] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[: {"cut": -7, "cut to its head": 90, "empty": 0}[kind]])
    calls.clear()
    for made in (100, 0):
        got = encode(encoder, values, name="v", cache=tmp_path, mapped=mapped)
        np.testing.assert_array_equal(got, whole)
        assert sum(calls) == made
        assert (f"{path}: its " in capsys.readouterr().err) == bool(made)
        calls.clear()


def test_what_a_kill_left_in_another_form_is_made_anew(tmp_path, calls):
    values = table()
    encoder = small_encoder(values)
    encode(encoder, values, name="v", cache=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.unlink()
    for left in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        before = sum(calls)
        for ending in ("partial", "done"):
            (tmp_path / f".{path.stem}.{ending}.npy").write_bytes(left)
        got = encode(encoder, values, name="v", cache=tmp_path)
        assert sum(calls) == before + 100
        assert {file.stem for file in tmp_path.iterdir()} == {path.stem}
        np.testing.assert_array_equal(got, encode(encoder, values, name="v"))
        path.unlink()
        calls.clear()


def test_rows_that_are_done_belong_to_the_file_that_they_are_in(tmp_path, calls):
    """Without the vectors, that they were made once is worth nothing."""
    values = table()
    encoder = small_encoder(values)
    encode(encoder, values, name="v", cache=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.unlink()
    np.save(tmp_path / f".{path.stem}.done.npy", np.ones([100], bool))
    got = encode(encoder, values, name="v", cache=tmp_path)
    assert sum(calls) == 200
    np.testing.assert_array_equal(got, encode(encoder, values, name="v"))


def test_a_full_disk_only_warns_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    values = table()
    encoder = small_encoder(values)
    with pytest.warns(UserWarning, match="not cached.*No space left"):
        got = encode(encoder, values, name="v", cache=tmp_path)
    np.testing.assert_array_equal(got, encode(encoder, values, name="v"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_do_it_once(tmp_path, calls, capsys):
    process = start(tmp_path)
    wait_for(lambda: rows_done(tmp_path) >= 1024)
    values = table(6000)
    got = encode(small_encoder(values), values, name="v", cache=tmp_path)
    assert process.wait(timeout=60) == 0
    assert "encode v: another process is at it" in capsys.readouterr().err
    assert calls == []
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".sha256"]
    np.testing.assert_array_equal(got, encode(small_encoder(values), values, name="v"))


# Several values of an item


def gallery(folder, pictures):
    """Items with these vectors each: a list a item, empty for none."""
    most = max(map(len, pictures))
    schema = Schema(
        num_users=0,
        num_items=len(pictures),
        modalities={"vector": ModalitySpec("vector", dim=3, max_values=most)},
    )
    with DatasetWriter(folder) as writer:
        for number, vectors in enumerate(pictures):
            writer.write_item(f"i{number}", content={"vector": vectors})
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    return [open_dataset(folder, content_memory_mb=room).catalog for room in (1024, 0)]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_vectors_of_an_item_s_values_are_averaged(tmp_path, batch_size):
    rng = np.random.default_rng(0)
    pictures = [rng.normal(size=[count, 3]).astype(np.float32) for count in (2, 0, 1, 5, 1)]
    encoder = Encoder(3)
    want = [vectors.mean(axis=0) if len(vectors) else np.zeros(3) for vectors in pictures]
    for catalog in gallery(tmp_path / "d", pictures):
        content = catalog.content["vector"]
        assert len(content) == 5 and catalog.present[:, 0].tolist() == [True, False, *[True] * 3]
        got = encode(encoder, content, name="v", batch_size=batch_size)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
        # A single value passes unchanged.
        np.testing.assert_array_equal(got[[2, 4]], [pictures[2][0], pictures[4][0]])
        # Of a request, which holds one, the first.
        np.testing.assert_array_equal(content[[3, 1]], [pictures[3][0], np.zeros(3)])
        assert len(list(content.present_values())) == 9


def test_what_is_cached_depends_on_how_many_values_each_item_has(tmp_path, calls):
    """The same three vectors, shared out among two items in two ways."""
    vectors, encoder = table(3), small_encoder(table())
    ways = ([vectors[:2], vectors[2:]], [vectors[:1], vectors[1:]])
    results = []
    for number, way in enumerate(ways):
        held, disk = gallery(tmp_path / str(number), way)
        assert held.content_sha256 == disk.content_sha256
        for catalog in (held, disk):
            content = catalog.content["vector"]
            for sha256 in (None, catalog.content_sha256["vector"]):
                got = encode(encoder, content, name="v", cache=tmp_path / "cache", sha256=sha256)
                results.append(got)
    # Twice each: by the manifest's hash and by the content's own.
    assert len(list((tmp_path / "cache").glob("*.npy"))) == len(calls) == 4
    assert not np.allclose(results[0], results[-1])
    for one, other in zip(results[:4], results[4:], strict=True):
        np.testing.assert_array_equal(one, results[0])
        np.testing.assert_array_equal(other, results[4])


def test_carried_vectors_are_those_of_items_whose_values_are_all_the_same(tmp_path):
    vectors, encoder = table(5), small_encoder(table())
    before, _ = gallery(tmp_path / "before", [vectors[:2], vectors[2:4], vectors[4:]])
    after, disk = gallery(tmp_path / "after", [vectors[2:4], vectors[1::-1], vectors[4:]])
    sides = (before.content["vector"], after.content["vector"])
    hashes = (before.content_sha256["vector"], after.content_sha256["vector"])
    encode(encoder, sides[0], name="v", cache=tmp_path / "a", sha256=hashes[0])
    same = carry_encoded(
        encoder,
        *sides,
        np.array([1, 0, 2]),
        name="v",
        caches=(tmp_path / "a", tmp_path / "b"),
        sha256=hashes,
    )
    assert same.tolist() == [True, False, True]  # The second has its values in another order.
    got = encode(encoder, disk.content["vector"], name="v", cache=tmp_path / "b", sha256=hashes[1])
    np.testing.assert_allclose(got, encode(encoder, sides[1], name="v"), rtol=1e-6)


def test_an_encoder_that_trains_takes_one_value_an_item(dataset):
    specs = {"image": ModalitySpec("image", max_values=4)}
    values = {"image": dataset.catalog.content["image"]}
    build_encoders(small_world.config(), specs, values)
    with pytest.raises(ConfigError, match=r"image\.trainable_layers: wanted 0.*max_values.*Freeze"):
        build_encoders(small_world.config(image__trainable_layers=-1), specs, values)
