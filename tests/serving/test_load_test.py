"""The load test, against a scripted server and the local one."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import toy_export
from support.scripted_server import BUSY, CODE, Script, answer

from mmrec_tf.errors import ConfigError, ExportError, ServingError
from mmrec_tf.exporting.request_examples import Example, examples_path, write_examples
from serving.client.calls import Target, predict_request
from serving.load_test import __main__ as load_test
from serving.load_test import load
from serving.load_test.load import Report, run
from serving.local_server import LocalServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BRIEF = {"seconds": 0.3, "warm_up_seconds": 0.0}


def asked(*values):
    return [
        predict_request(Target("recommender"), {"x": [value]}, signature="recommend")
        for value in values
    ]


def of_version(number):
    made = answer()
    made.model_spec.version.value = number
    return made


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    toy_export.export(root, "recommender", 1, toy_export.Recommender(1))
    toy_export.export(root, "recommender", 2, toy_export.Recommender(2))
    toy_export.export(root, "encoder", 1, toy_export.Encoder())
    return root


def test_a_closed_loop_has_so_many_under_way_and_sends_all_in_turn():
    with Script(of_version(3)) as script:
        report = run(script.address, asked(1.0, 2.0), concurrency=3, **BRIEF)
        sent = [request.inputs["x"].float_val or request.inputs["x"] for request in script.requests]
    assert report.requests == len(sent) == report.codes["OK"] == report.versions[3] > 3
    values = [np.frombuffer(proto.tensor_content, "<f4")[0] for proto in sent]
    assert abs(values.count(1.0) - values.count(2.0)) <= 3
    assert list(report.latency_ms) == ["p50", "p90", "p95", "p99", "max"]
    ordered = list(report.latency_ms.values())
    assert ordered == sorted(ordered) and 0 < ordered[0]
    assert report.requests_per_second == pytest.approx(report.requests / report.seconds)
    assert report.failed == 0 and report.texts == {} and not report.interrupted


def test_a_closed_loop_sends_when_an_answer_has_come():
    with Script(0.1) as script:
        report = run(script.address, asked(1.0), concurrency=2, **BRIEF)
    assert 2 <= report.requests <= 8 and report.latency_ms["p50"] >= 100


def test_an_open_loop_counts_what_waited_for_others():
    """The server takes 50 ms and four at once: 200 a second are too many for it."""
    with Script(0.05) as script:
        report = run(script.address, asked(1.0), rate=200, **BRIEF)
    assert report.codes == {"OK": report.requests}
    # A closed loop of four would say 50 ms.
    assert report.latency_ms["p90"] > 100


def test_a_latency_counts_from_when_a_request_was_due():
    class Channel:
        def unary_unary(self, _):
            return self.answer

        async def answer(self, body, timeout):
            return of_version(1).SerializeToString()

    async def send_late():
        under_way = load._Load(Channel(), [b""], 0.0, 1.0, 1.0)
        due = time.perf_counter()
        await asyncio.sleep(0.05)
        assert await under_way._send(due)
        return under_way.report(interrupted=False)

    report = asyncio.run(send_late())
    assert report.latency_ms["max"] >= 50 and report.late_ms >= 50 and report.versions == {1: 1}


def test_an_open_loop_sends_at_the_rate_asked_for_and_so_again():
    with Script(answer()) as script:
        reports = [run(script.address, asked(1.0), rate=100, seed=s, **BRIEF) for s in (0, 0, 1)]
    assert reports[0].requests == reports[1].requests
    assert 10 <= reports[0].requests <= 60
    assert reports[0].late_ms > 0


def test_the_warm_up_is_not_counted():
    with Script(BUSY, of_version(1)) as script:
        report = run(script.address, asked(1.0), concurrency=1, seconds=0.2, warm_up_seconds=0.2)
        assert len(script.requests) > report.requests > 0
    assert report.codes == {"OK": report.requests}


def test_how_requests_ended_and_which_version_answered():
    refused = (CODE.INVALID_ARGUMENT, "too many\nrows")
    with Script(of_version(1), of_version(1), refused, BUSY, of_version(2)) as script:
        report = run(script.address, asked(1.0), concurrency=1, seconds=1.0, warm_up_seconds=0.0)
    assert report.codes["INVALID_ARGUMENT"] == report.codes["RESOURCE_EXHAUSTED"] == 1
    assert report.failed == 2 and report.requests == report.codes["OK"] + 2
    assert report.versions[1] == 2 and report.versions[2] == report.codes["OK"] - 2
    assert report.texts["INVALID_ARGUMENT"] == "too many\nrows"
    printed = load_test.lines(report)
    assert "INVALID_ARGUMENT: too many rows" in printed
    assert any(line.startswith("versions    1: 2  2: ") for line in printed)


def test_a_server_that_answers_nothing_has_no_latency():
    with Script((CODE.INTERNAL, "no")) as script:
        report = run(script.address, asked(1.0), concurrency=1, **BRIEF)
    assert report.latency_ms == {} and report.requests_per_second == 0
    assert report.failed == report.requests == report.codes["INTERNAL"] > 0
    assert "latency ms  none" in load_test.lines(report)
    json.dumps(report._asdict(), allow_nan=False)


def test_a_request_that_takes_too_long_is_given_up():
    with Script(1.0) as script:
        report = run(script.address, asked(1.0), rate=20, timeout_seconds=0.1, **BRIEF)
    assert set(report.codes) == {"DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, "rate: wanted more than 0; got 0"),
        ({"rate": float("inf")}, "rate: wanted more than 0; got inf"),
        ({"concurrency": 0}, "concurrency: wanted 1 or more; got 0"),
        ({"seconds": 0}, "seconds: wanted more than 0; got 0"),
        ({"warm_up_seconds": -1}, "warm_up_seconds: wanted 0 or more; got -1"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds: wanted more than 0; got nan"),
        ({"compression": "zip"}, "compression: wanted gzip"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        run("127.0.0.1:1", asked(1.0), **settings)


def test_a_missing_server_and_no_requests_are_named():
    with pytest.raises(ServingError, match="no answer from 127.0.0.1:1 for 0.2 seconds"):
        run("127.0.0.1:1", asked(1.0), timeout_seconds=0.2)
    with pytest.raises(ConfigError, match="requests: wanted at least one"):
        run("127.0.0.1:1", [])


# Requests from examples


def users(requests):
    return [list(request.inputs["user_id"].string_val) for request in requests]


def test_requests_are_an_export_s_examples(export):
    path = examples_path(export / "recommender" / "2")
    (request,) = load_test.example_requests(path)
    assert request.model_spec.name == "recommender"
    assert request.model_spec.signature_name == "recommend"
    assert users([request]) == [[b"u1", b"u2", b"u3"]]
    both = load_test.example_requests(path, signatures=["rank", "similar_items"], model="other")
    assert [one.model_spec.signature_name for one in both] == ["rank", "similar_items"]
    assert {one.model_spec.name for one in both} == {"other"}


def test_rows_are_cut_or_come_again(export):
    path = examples_path(export / "recommender" / "1")
    assert users(load_test.example_requests(path, rows=1)) == [[b"u1"], [b"u2"], [b"u3"]]
    assert users(load_test.example_requests(path, rows=5))[1] == [
        b"u2", b"u3", b"u1", b"u2", b"u3"
    ]  # fmt: skip
    (first, *_) = load_test.example_requests(path, rows=2)
    assert {tuple(d.size for d in p.tensor_shape.dim)[0] for p in first.inputs.values()} == {2}


def test_examples_that_cannot_be_used_are_named(export, tmp_path):
    path = examples_path(export / "encoder" / "1")
    with pytest.raises(ConfigError, match="an example of rank, nope; it has embed_item, search"):
        load_test.example_requests(path, signatures=["rank", "search", "nope"])
    with pytest.raises(ConfigError, match="rows: wanted 1 or more; got 0"):
        load_test.example_requests(path, rows=0)
    with pytest.raises(ExportError, match="no examples here"):
        load_test.example_requests(tmp_path / "none.json")
    write_examples(tmp_path / "no.json", [], servable="encoder", version=1)
    with pytest.raises(ConfigError, match="wanted an example of any signature; it has none"):
        load_test.example_requests(tmp_path / "no.json")
    empty = Example("search", {"text": np.empty([0], object)}, {})
    write_examples(tmp_path / "empty.json", [empty], servable="encoder", version=1)
    with pytest.raises(ConfigError, match="search: wanted an example with rows"):
        load_test.example_requests(tmp_path / "empty.json", rows=1)


# The command


def test_the_command_loads_the_newest_version(capsys, export):
    brief = ["--seconds", "0.3", "--warm-up-seconds", "0", "--batch", "2"]
    with LocalServer(export, rest_port=None) as server:
        arguments = ["--address", server.address, "--export", str(export), *brief]
        signatures = ["--signature", "rank", "similar_items"]
        assert load_test.main([*arguments, *signatures, "--concurrency", "2", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["versions"] == {"2": report["requests"]}
        assert set(report) == set(Report._fields)
        file = str(examples_path(export / "encoder" / "1"))
        arguments = ["--address", server.address, "--requests", file, *brief]
        assert load_test.main([*arguments, "--mode", "open", "--rate", "50"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in out] == [
            "requests/s", "latency", "late", "ended", "versions"
        ]  # fmt: skip
        assert load_test.main([*arguments, "--model", "nope"]) == 1
        assert "NOT_FOUND: Servable not found for request: Latest(nope)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--export", "e", "--requests", "f"],
        ["--export", "e", "--mode", "open"],
        ["--export", "e", "--rate", "5"],
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        load_test.main(arguments)
    assert raised.value.code == 2


def test_the_command_fails_in_one_line(capsys, export, tmp_path):
    there = ["--address", "127.0.0.1:1", "--timeout-seconds", "0.2"]
    for arguments, status in (
        (["--export", str(tmp_path)], 1),
        (["--export", str(export)], 1),
        (["--export", str(export), "--model", "nope"], 2),
        (["--requests", str(tmp_path / "none.json")], 1),
    ):
        assert load_test.main([*there, *arguments]) == status
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert captured.err.startswith("serving.load_test: ")


def test_ctrl_c_prints_what_there_is(export):
    # A shell starts what runs in its background with Ctrl-C ignored, and the tests may run there.
    code = (
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('serving.load_test', run_name='__main__', alter_sys=True)"
    )
    with Script(of_version(1)) as script:
        arguments = ["--address", script.address, "--export", str(export), "--json"]
        loading = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--seconds", "600",
             "--warm-up-seconds", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while len(script.requests) < 20 and time.monotonic() < until:
                time.sleep(0.05)
            loading.send_signal(signal.SIGINT)
            out, err = loading.communicate(timeout=60)
        finally:
            loading.kill()
    report = json.loads(out)
    assert loading.returncode == 130 and report["interrupted"] and report["codes"]["OK"] >= 10
    assert "Traceback" not in err


def test_help_needs_no_tensorflow():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('serving.load_test', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("0 False\n")
