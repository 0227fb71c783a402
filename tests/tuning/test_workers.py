"""KerasTuner's chief and workers, as threads of one process: what they say goes over gRPC."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support import small_world

import mmrec_tf as mm
from mmrec_tf.errors import TuningError
from tuning.tuner import chief, tuner
from tuning.tuner.search import Search, join

SPACE = {
    "dim": {"choice": [8, 16, 32, 64]},
    "item.fusion": {"choice": ["mean", "gated"]},
    "item.dropout": {"float": [0.0, 0.5]},
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr("tuning.results.report.write_report", lambda *a, **k: None)
    monkeypatch.setattr("tuning.results.board.write_board", lambda *a, **k: None)
    monkeypatch.setattr(tuner, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(tuner, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(chief, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(chief, "SILENT_SECONDS", 0.5)


@pytest.fixture
def member(tmp_path, monkeypatch):
    """Makes the chief and workers of one search, by their KERASTUNER_TUNER_ID."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = []

    def make(name, trial, **options):
        with monkeypatch.context() as patched:
            patched.setenv("KERASTUNER_TUNER_ID", name)
            patched.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
            patched.setenv("KERASTUNER_ORACLE_PORT", str(port))
            options = {"trials": 8, "space": SPACE, "report": lines.append, **options}
            return Search("data", mm.Config(), out=tmp_path, trial=trial, **options)

    make.lines = lines
    make.address = f"127.0.0.1:{port}"
    monkeypatch.setattr(chief, "chief_address", lambda: make.address)
    return make


def together(*searches):
    """Runs each in a thread of its own; raises what they raise."""
    raised = []

    def run(search):
        try:
            search.search()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=[search], daemon=True) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def rows(out):
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def scored(config):
    return {"retrieval.ndcg@10": config.dim / 64 + config.item.dropout / 3}


def test_two_workers_share_the_trials(tmp_path, member):
    done = {"worker0": [], "worker1": []}

    def trial(name):
        def run(config, budget):
            time.sleep(0.05)
            done[name].append(budget.folder.parent.name)
            if config.item.fusion == "mean":
                raise mm.ConfigError("not here")
            return scored(config)

        return run

    whole = member("chief", scored)
    together(whole, *(member(name, trial(name)) for name in done))
    ran = done["worker0"] + done["worker1"]
    # No trial twice, none left out, and neither of the two did all the work.
    assert len(ran) == len(set(ran)) == 8 and min(map(len, done.values())) > 1
    table = rows(tmp_path)
    assert len(table) == 8
    for row in table:
        # Scores come with all their digits, failures with their reason.
        if row["item.fusion"] == "mean":
            assert row["reason"] == "ConfigError: not here"
        else:
            assert (
                float(row["retrieval.ndcg@10"])
                == scored(
                    mm.Config().override(
                        {"dim": int(row["dim"]), "item.dropout": float(row["item.dropout"])}
                    )
                )["retrieval.ndcg@10"]
                or row["reason"]
            )
    assert whole.best_config.item.fusion == "gated"


def test_a_trial_of_a_worker_that_falls_silent_is_done_by_the_other(tmp_path, member, monkeypatch):
    ran = []
    stuck = threading.Event()

    def hangs(config, budget):
        ran.append(budget.folder.parent.name)
        stuck.wait(20)
        raise SystemExit

    def works(config, budget):
        ran.append(budget.folder.parent.name)
        return scored(config)

    ill, well = member("worker0", hangs), member("worker1", works)
    # Once, as it begins; then no more.
    beats = iter(range(3))
    ask = ill.oracle.get_trial

    def last_beats(trial_id):
        next(beats)
        return ask(trial_id)

    monkeypatch.setattr(ill.oracle, "get_trial", last_beats)
    whole = member("chief", scored)
    threading.Thread(target=lambda: _quietly(ill.search), daemon=True).start()
    while not ran:
        time.sleep(0.02)
        if not any(t.name == "served" for t in threading.enumerate()):
            threading.Thread(target=whole.search, daemon=True, name="served").start()
    together(well)
    for thread in threading.enumerate():
        if thread.name == "served":
            thread.join(30)
    stuck.set()
    assert len(rows(tmp_path)) == 8
    assert ran.count(ran[0]) == 2 and len(ran) == 9
    assert "worker0 died (silent for 0 s); trial 0 is given back" in member.lines


def _quietly(function):
    try:
        function()
    except BaseException:
        pass


def test_whoever_has_a_trial_next_is_not_silent_for_the_one_before(member):
    """A worker that had just been given a trial was given up at once, as nobody had spoken of it
    for a minute: the trial was handed out a third time, or called one that workers die in."""
    oracle = member("chief", scored)._known
    servicer, lines = chief.Servicer(oracle), []
    for number in range(2):
        assert oracle.create_trial(f"worker{number}").trial_id == "0"
        assert servicer.silent() == []
        servicer.heard["0"] = time.monotonic() - 100
        assert servicer.silent() == [f"worker{number}"]
        chief._give_back(servicer, f"worker{number}", "silent", lines.append)
    assert oracle.create_trial("worker2").trial_id == "0"
    assert servicer.silent() == [] and len(lines) == 2


def test_a_trial_that_workers_die_in_is_given_to_no_other(tmp_path, member):
    whole = member("chief", scored)
    oracle = whole._known
    for number in range(3):
        assert oracle.create_trial(f"worker{number}").trial_id == "0"
        assert oracle.give_back(f"worker{number}", "signal 9") == "0"
    assert oracle.create_trial("worker0").trial_id == "1"
    (tmp_path / "trials.csv").exists()
    assert whole.rows[0].reason == (
        "out of memory or worse: 3 workers died in it, the last one: signal 9"
    )


def test_a_taken_address_is_named(tmp_path, member):
    with socket.socket() as taken:
        host, _, port = member.address.rpartition(":")
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(TuningError, match="wanted a free address for the chief"):
            member("chief", scored).search()


def test_devices_are_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert chief._devices() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert chief._devices() == []


@pytest.mark.slow
def test_workers_of_one_machine_and_one_that_is_killed(tmp_path, dataset):
    """The command itself: three processes, of which one is killed -9 in the middle of a trial."""
    out = tmp_path / "out"
    (tmp_path / "space.json").write_text('{"dim": {"choice": [4, 8, 12, 16]}}')
    config = small_world.config(**small_world.VECTORS)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    command = [sys.executable, "-m", "tuning.search", "--dataset", str(dataset.directory)]
    command += ["--config", str(tmp_path / "config.json"), "--space", str(tmp_path / "space.json")]
    command += ["--strategy", "grid", "--workers", "2", "--out", str(out), "--max-epochs", "30"]
    process = subprocess.Popen(command, cwd=chief.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        while not list(out.glob("trials/trial_*/seed-0/retrieval/backup.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "died (signal 9)" in said
    table = rows(out)
    assert sorted(row["dim"] for row in table) == ["12", "16", "4", "8"]
    assert {row["status"] for row in table} == {"completed"}
    with pytest.raises(TuningError, match="wanted what is searched here"):
        join(tmp_path / "none")
