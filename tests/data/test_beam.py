"""Items prepared by Apache Beam are those prepared here."""

import hashlib
import pathlib
import sys

import pytest
import tensorflow as tf

from data import beam_prepare, prepare
from mmrec_tf import records

beam = pytest.importorskip("apache_beam")


def hash_of_sorted_records(directory: pathlib.Path, folder: str) -> str:
    shards = sorted(str(path) for path in (directory / folder).rglob("*.tfrecord"))
    found = sorted(tf.data.TFRecordDataset(shards).as_numpy_iterator())
    assert found
    return hashlib.sha256(b"".join(hashlib.sha256(record).digest() for record in found)).hexdigest()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Pictures and sounds of 200 items; one picture is none."""
    folder = tmp_path_factory.mktemp("source")
    arguments = ["synthetic", "--users", "10", "--items", "200", "--out", str(folder / "world")]
    assert prepare.main([*arguments, "--keep-source", str(folder / "kept"), "--workers", "0"]) == 0
    picture = next((folder / "kept/images").iterdir())
    picture.write_bytes(b"<html>404</html>")
    return folder / "kept"


def arguments(source: pathlib.Path, out: pathlib.Path) -> list[str]:
    tables = ["--items", str(source / "items.csv")]
    tables += ["--interactions", str(source / "interactions.csv")]
    return ["media-folder", *tables, "--out", str(out)]


def test_beam_writes_what_is_written_here(source, tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    assert prepare.main([*arguments(source, here), "--workers", "0"]) == 0
    assert beam_prepare.main([*arguments(source, there), "--runner=DirectRunner"]) == 0
    assert "200" in capsys.readouterr().out
    for folder in ("items", "users", "interactions"):
        assert hash_of_sorted_records(here, folder) == hash_of_sorted_records(there, folder)
    # More than equal contents: equal bytes, in equal shards.
    assert records.verify(here, full=True) == records.verify(there, full=True)
    assert records.read_manifest(there)["quarantine"]["image"]


def test_beam_goes_on_where_another_stopped(source, tmp_path):
    """What is finished stays, whoever wrote it."""
    out = tmp_path / "d"

    def half(shards, **options):
        shards.write(1, {}, lambda *said: None)
        raise KeyboardInterrupt

    assert prepare.main(arguments(source, out), run_others=half) == 130
    waiting = []

    def rest(shards, *, options):
        waiting.extend(shards.waiting())
        beam_prepare.run_in_beam(shards, options=options)

    assert prepare.main(arguments(source, out), run_others=rest) == 0
    assert waiting == [0]
    assert prepare.main([*arguments(source, tmp_path / "whole"), "--workers", "0"]) == 0
    assert records.read_manifest(out) == records.read_manifest(tmp_path / "whole")


def test_beam_is_an_extra(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert beam_prepare.main(arguments(source, tmp_path / "d")) == 2
    assert 'pip install "mmrec_tf[beam]"' in capsys.readouterr().err
