"""Preparation killed at any moment ends, when it is run again, as if nothing had happened."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from data.items.shards import ItemRow, ItemShards, runner, spool, write_items
from mmrec_tf import records
from mmrec_tf.records.items import num_shards, shard_of
from mmrec_tf.schema import ModalitySpec, Schema

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(out: pathlib.Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "data.prepare", *arguments, "--out", str(out)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(out: pathlib.Path, *arguments: str) -> tuple[dict, float]:
    """Runs to the end; returns the manifest and the seconds that it took."""
    begin = time.monotonic()
    process = start(out, *arguments)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return records.verify(out, full=True), time.monotonic() - begin


def kills(folder: pathlib.Path, *arguments: str, number: int) -> None:
    """Kills `number` runs, each at a random moment, and compares what the next run makes of it."""
    whole, seconds = finish(folder / "whole", *arguments)
    moments = random.Random(0)
    kept = 0
    for i in range(number):
        out = folder / f"d{i}"
        process = start(out, *arguments)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reports = out.with_name(f"{out.name}.partial") / "work/reports"
        kept += len(list(reports.glob("*.json"))) if reports.exists() else 0
        # A run that had finished may not be replaced unasked.
        again = [*arguments, "--overwrite"] if out.exists() else arguments
        manifest, _ = finish(out, *again)
        assert manifest == whole
        assert not [p for p in folder.iterdir() if p.name.startswith(f"{out.name}.")]
    print(f"{number} kills, {kept} shards kept from them, {number} equal results")


@pytest.mark.slow
def test_killed_twice(tmp_path):
    kills(tmp_path, "synthetic", "--users", "20", "--items", "300", number=2)


@pytest.mark.slow
def test_twenty_kills_of_a_synthetic_world(tmp_path):
    kills(tmp_path, "synthetic", "--users", "100", "--items", "3000", number=20)


@pytest.mark.slow
def test_twenty_kills_of_ml_posters(tmp_path, shared):
    folder = shared / "data" / "ml_posters"
    if not folder.is_dir():
        pytest.skip("needs shared/data/ml_posters")
    arguments = ["--items", str(folder / "items.csv")]
    arguments += ["--interactions", str(folder / "ratings.csv.gz")]
    kills(tmp_path, "media-folder", *arguments, number=20)


def shout(row, left_out, note):
    return records.PreparedItem(row.number, row.item_id, {"text": row.cells.upper()})


def rows(number: int) -> list[ItemRow]:
    return [ItemRow(n, f"i{n}", f"wren {n % 7}") for n in range(number)]


def write(directory, number, run) -> dict:
    schema = Schema(num_users=0, num_items=number, modalities={"text": ModalitySpec("text")})
    with records.DatasetWriter(directory, job={"number": number}) as writer:
        write_items(writer, rows(number), num_items=number, make=shout, run=run)
        return writer.finish(schema, source={"name": "test"}, split_rule="given")


@pytest.mark.parametrize("number", [0, 1, 300])
def test_how_many_work_changes_nothing(tmp_path, number):
    manifests = [write(tmp_path / str(n), number, runner(n)) for n in (0, 1, 2)]
    assert manifests[0] == manifests[1] == manifests[2]
    items = list(records.read_items(tmp_path / "0", records.read_schema(tmp_path / "0")))
    found = {item.number: (item.item_id, item.content["text"][0]) for item in items}
    assert found == {n: (f"i{n}", f"WREN {n % 7}") for n in range(number)}
    assert manifests[0]["counts"]["repeated_content"] == {"text": max(0, number - 7)}


def test_a_shard_is_written_once(tmp_path):
    class Killed(Exception):
        pass

    def half(shards: ItemShards):
        for number in shards.waiting()[:2]:
            shards.write(number, {}, lambda *said: None)
        raise Killed

    with pytest.raises(Killed):
        write(tmp_path / "d", 500, half)
    written = []

    def rest(shards: ItemShards):
        written.extend(shards.waiting())
        runner(0)(shards)

    assert write(tmp_path / "d", 500, rest) == write(tmp_path / "whole", 500, runner(0))
    assert written == [2, 3]


def test_the_shard_of_an_item_is_the_same_for_ever():
    assert [shard_of(item, 1000) for item in ("", "i1", "Zaunkönig")] == [876, 466, 829]


def test_shards_are_about_equal():
    count = num_shards(10_000)
    sizes = [0] * count
    for n in range(10_000):
        sizes[shard_of(f"i{n}", count)] += 1
    assert count == 79 and 80 < min(sizes) and max(sizes) < 180
    assert (num_shards(0), num_shards(1), num_shards(10**7)) == (1, 1, 1024)


def test_rows_are_laid_out_once(tmp_path):
    counts = spool(tmp_path / "s", rows(300), num_items=300)
    assert sum(counts) == 300
    (tmp_path / "s" / "counts.json").unlink()
    (tmp_path / "s" / "00000.jsonl").write_text("half a row")  # from before a kill
    assert spool(tmp_path / "s", rows(300), num_items=300) == counts
    assert spool(tmp_path / "s", iter(()), num_items=300) == counts
