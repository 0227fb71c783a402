"""What does a hostile request cost the server? Writes benchmarks/results/hostile.json.

    python -m benchmarks.hostile EXPORT [--out FILE]

EXPORT is an export with text, pictures and sounds, such as that of `make demo`. The local server
runs in a process of its own. Each request is sent while plain ones are asked over both ports: it
has to be answered or refused, the plain ones within a second, and the server may at no time hold a
gigabyte more than it did at rest. What reaches the graph is then run in a session, as TensorFlow
Serving does, which may not take a gigabyte more than before. Ends with status 1 where any of it
does not hold. It takes a minute or two.
"""

import argparse
import gzip
import http.client
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mmrec_tf  # noqa: F401  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.facts import ROOT, facts
from mmrec_tf.exporting.request_examples import Example, examples_path, read_examples
from mmrec_tf.exporting.verify import in_session, predict_request
from mmrec_tf.records.files import write_json

MOST_SECONDS, MOST_BYTES = 1.0, 2**30
# How long a request that is refused may take; beyond that it counts as never answered.
WAIT_SECONDS = 120.0
PATH = "/v1/models/recommender:predict"
ROWS = 64


class Sent(NamedTuple):
    """A hostile request: what it is, over what it comes, and what sends it and gives the answer."""

    what: str
    over: str
    send: Callable[["Server"], str]


class Server:
    """The local server in a process of its own."""

    def __init__(self, export: pathlib.Path):
        line = [sys.executable, "-m", "serving.local_server", str(export), "--port", "0"]
        self.process = subprocess.Popen(
            [*line, "--rest-port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        found = re.search(r"ready on (\S+) \(gRPC\) and http://(\S+) \(REST\)", ready)
        if found is None:
            raise SystemExit(f"the server did not start: {ready!r}")
        self.address, self.rest_address = found[1], found[2]
        limit = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(self.address, options=limit)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def close(self) -> None:
        """Ends it."""
        self.channel.close()
        self.process.terminate()
        self.process.wait()

    def predict(self, request: predict_pb2.PredictRequest) -> str:
        """Asks over gRPC; the name of the status."""
        try:
            self.stub.Predict(request, timeout=WAIT_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def post(self, body: bytes, **headers: str) -> str:
        """Posts a body; the status."""
        connection = http.client.HTTPConnection(self.rest_address, timeout=WAIT_SECONDS)
        try:
            connection.request("POST", PATH, body, headers)
            return str(connection.getresponse().status)
        finally:
            connection.close()


def peak(process: int | str) -> int:
    """The most bytes that a process held since `start_over`."""
    status = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def start_over(process: int | str) -> int:
    """Lets a peak be counted from now on; returns what is held now."""
    pathlib.Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")
    return peak(process)


# Requests


def png(name: bytes = b"tEXt", claim: int = 10**9) -> bytes:
    """A PNG of 57 bytes, one chunk of which claims to be a gigabyte."""
    fields = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + b"IHDR" + fields
    head += struct.pack(">I", zlib.crc32(b"IHDR" + fields))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", claim) + name + bytes(16)


def large_png(side: int) -> bytes:
    """A PNG of few bytes that claims side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    fields = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", fields) + chunk(b"IDAT", zlib.compress(bytes(10**6), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def wav(claim: int) -> bytes:
    """A WAV of 100 bytes that claims to hold more."""
    form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    data = b"data" + struct.pack("<I", claim) + bytes(56)
    return b"RIFF" + struct.pack("<I", claim) + b"WAVEfmt " + struct.pack("<I", 16) + form + data


def over_rest() -> Iterator[Sent]:
    """Bodies, and how they are sent."""

    def posted(body: bytes, **headers: str) -> Callable[[Server], str]:
        return lambda server: server.post(body, **headers)

    quotes = b'{"Inf":' + b'"\\"' * 17_000
    yield Sent("50 KB of quotes behind Inf", "REST", posted(quotes))
    yield Sent("24 MB of quotes behind Inf", "REST", posted(b'{"Inf":' + b'"\\"' * 8_000_000))
    packed = gzip.compress(bytes(100_000_000), 9)
    what = f"{len(packed) // 1000} KB of gzip that unpack to 100 MB"
    yield Sent(what, "REST", posted(packed, **{"Content-Encoding": "gzip"}))
    yield Sent("50,000 lists, one within the other", "REST", posted(b'{"inputs": ' + b"[" * 50_000))
    yield Sent("50,000 objects, likewise", "REST", posted(b'{"a": ' * 50_000))
    many = b'{"inputs": [' + b"{}," * 2**20 + b"1]}"
    yield Sent("a million objects", "REST", posted(many))
    rows = json.dumps({"instances": ["x"] * 70_000}).encode()
    yield Sent("70,000 rows", "REST", posted(rows))
    text = json.dumps({"inputs": {"user_id": ["\U0001f600" * 10**6]}}, ensure_ascii=False).encode()
    yield Sent("a text of 4 MB of rare characters", "REST", posted(text))
    yield Sent("a page of elsewhere", "REST", posted(b"{}", Origin="http://page.example"))
    yield Sent("a body of 100 MB", "REST", posted(bytes(100_000_000)))
    yield Sent("500 connections that say nothing", "REST", _silent)


def _silent(server: Server) -> str:
    host, _, port = server.rest_address.rpartition(":")
    opened = []
    try:
        for number in range(500):
            one = socket.create_connection((host, int(port)), WAIT_SECONDS)
            opened.append(one)
            one.sendall(b"POST " if number % 2 else b"")
        time.sleep(0.5)
    finally:
        for one in opened:
            one.close()
    return "kept open"


def over_grpc() -> Iterator[Sent]:
    """Messages."""

    def asked(name: str, dtype: int, shape: list[int], **values: Any) -> Callable[[Server], str]:
        proto = tensor_pb2.TensorProto(dtype=dtype, **values)
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "recommender"
        request.model_spec.signature_name = "recommend"
        request.inputs[name].CopyFrom(proto)
        return lambda server: server.predict(request)

    text = types_pb2.DT_STRING
    claims = asked("user_id", text, [2**26], string_val=[b"x"])
    yield Sent("one string that claims to be 2^26", "gRPC", claims)
    long = asked("user_id", text, [2**19], string_val=[b"x" * 1000])
    yield Sent("one of 1 KB that claims to be 2^19", "gRPC", long)
    floats = asked("user_id", types_pb2.DT_FLOAT, [2**28], float_val=[1.0])
    yield Sent("one number that claims to be 2^28", "gRPC", floats)
    millions = asked("user_id", text, [2**22 + 1], string_val=[b""] * (2**22 + 1))
    yield Sent("4,194,305 strings", "gRPC", millions)
    empty = asked("user_id", types_pb2.DT_INT64, [0, 2**62, 2**62])
    yield Sent("a shape of 0 x 2^62 x 2^62", "gRPC", empty)
    large = asked("user_id", types_pb2.DT_FLOAT, [2**25], tensor_content=bytes(2**27))
    yield Sent("a message of 128 MB", "gRPC", large)
    yield Sent("bytes that are no message", "gRPC", _no_message)


def _no_message(server: Server) -> str:
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    try:
        call(b"\xff" * 1000, timeout=WAIT_SECONDS)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def in_graph(export: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, Example]]:
    """What it is, the version folder that it is for, and the request."""
    for servable, signature in (("recommender", "recommend"), ("encoder", "search")):
        versions = [path for path in (export / servable).glob("*") if path.name.isdigit()]
        if not versions:
            continue
        folder = max(versions, key=lambda path: int(path.name))
        plain = next(
            one
            for one in read_examples(examples_path(folder)).requests
            if one.signature == signature and len(next(iter(one.inputs.values())))
        )
        for what, inputs in _asked(servable, plain.inputs):
            yield what, folder, plain._replace(inputs=inputs)


def _asked(servable: str, plain: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, Any]]]:
    def blank(rows: int) -> dict[str, np.ndarray]:
        return {
            name: np.full([rows, *[1] * (value.ndim - 1)], b"", object)
            if value.dtype == object
            else np.zeros([rows, *value.shape[1:]], value.dtype)
            for name, value in plain.items()
        }

    if servable == "recommender":
        yield "10,000 rows", blank(10_000)
        wide = np.full([1, 10**6], b"i1", object)
        yield "a history of a million items", blank(1) | {"history": wide}
        long = np.array([b"u" * 10**7], object)
        yield "a user id of 10 MB", blank(1) | {"user_id": long}
        return
    kinds = {
        "text": (("a text of 20 MB", b"word " * 4 * 10**6),),
        "image": (
            ("a PNG of 57 bytes, with a text of 1 GB", png()),
            ("a PNG of 57 bytes, with pixels of 1 GB", png(b"IDAT")),
            ("a PNG that claims 60,000 x 60,000", large_png(60_000)),
            ("a PNG that claims 4,000 x 4,000", large_png(4_000)),
        ),
        "audio": (("a WAV that claims 4 GB", wav(2**32 - 10)), ("16 MB of noise", _noise())),
    }
    for kind, contents in kinds.items():
        if kind not in plain:
            continue
        for what, data in contents:
            rows = ROWS if len(data) < 10**6 else 1
            yield f"{what}, {rows} times", blank(rows) | {kind: np.full([rows, 1], data, object)}
    yield "10,000 rows", blank(10_000)


def _noise() -> bytes:
    return np.random.default_rng(0).bytes(2**24)


# What it costs


class Plain:
    """Asks plain requests in a process of its own, from when it is made until `finish`."""

    def __init__(self, server: Server, request: pathlib.Path):
        asked = [server.address, server.rest_address, str(request)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain_requests", *asked],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "asking\n":
            raise SystemExit("plain requests could not be asked.")

    def finish(self) -> dict[str, Any]:
        """Has one more asked; returns how long the slowest took, and how many were refused."""
        out, _ = self.process.communicate(timeout=WAIT_SECONDS)
        told: dict[str, Any] = json.loads(out)
        return told


def at_server(server: Server, sent: Sent, plain: pathlib.Path, *, rest: int) -> dict[str, Any]:
    """Sends one, beside plain requests; `rest` is what the server held before all of them."""
    start_over(server.process.pid)
    beside = Plain(server, plain)
    start = time.monotonic()
    try:
        answer = sent.send(server)
    except OSError:
        answer = "closed"  # before all was read
    seconds = time.monotonic() - start
    told = beside.finish()
    most = peak(server.process.pid)
    return {
        "what": sent.what,
        "over": sent.over,
        "answer": answer,
        "seconds": round(seconds, 2),
        **told,
        "more_mb": round((most - rest) / 2**20),
        "peak_mb": round(most / 2**20),
    }


def at_session(run: Callable[[Example], Any], what: str, example: Example) -> dict[str, Any]:
    """Runs one in a session of this process."""
    before = start_over("self")
    start = time.monotonic()
    try:
        run(example)
        answer = "OK"
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # of bytes in the message
        answer = type(error).__name__
    seconds = round(time.monotonic() - start, 2)
    more = round((peak("self") - before) / 2**20)
    return {
        "what": what,
        "over": "session",
        "answer": answer,
        "seconds": seconds,
        "more_mb": more,
    }


def bad(row: dict[str, Any]) -> bool:
    """Whether a request cost what it may not."""
    slow = row.get("slowest_plain_seconds", 0.0) >= MOST_SECONDS
    large = row["more_mb"] * 2**20 >= MOST_BYTES
    return slow or large or bool(row.get("plain_refused"))


def measure(export: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each request, each printed as it is known."""
    graph = list(in_graph(export))
    plain_example = next(
        one._replace(inputs={name: value[:1] for name, value in one.inputs.items()})
        for _, folder, one in graph
        if folder.parent.name == "recommender"
    )
    request = predict_request("recommender", plain_example)
    request.inputs["user_id"].CopyFrom(tf.make_tensor_proto(["u1"]))
    rows: list[dict[str, Any]] = []

    def told(row: dict[str, Any]) -> None:
        rows.append(row)
        print(("BAD " if bad(row) else "ok  ") + json.dumps(row), flush=True)

    work = tempfile.TemporaryDirectory()
    plain = pathlib.Path(work.name) / "plain"
    plain.write_bytes(request.SerializeToString())
    server = Server(export)
    try:
        Plain(server, plain).finish()  # The first one of all takes longer.
        rest = start_over(server.process.pid)
        for sent in [*over_rest(), *over_grpc()]:
            told(at_server(server, sent, plain, rest=rest))
        for what, folder, example in graph:
            asked = predict_request(folder.parent.name, example)
            sent = Sent(what, "gRPC", lambda server, asked=asked: server.predict(asked))
            told(at_server(server, sent, plain, rest=rest))
    finally:
        server.close()
        work.cleanup()
    sessions: dict[pathlib.Path, Callable[[Example], Any]] = {}
    for what, folder, example in graph:
        if folder not in sessions:
            sessions[folder] = in_session(folder)
            known = read_examples(examples_path(folder)).requests
            # The first run of a signature also optimizes its graph.
            sessions[folder](next(one for one in known if one.signature == example.signature))
        told(at_session(sessions[folder], what, example))
    return rows


def main() -> int:
    """Measures, writes and says whether all of it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=pathlib.Path, metavar="EXPORT")
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "benchmarks/results/hostile.json"
    )
    parsed = parser.parse_args()
    rows = measure(parsed.export)
    told = facts(
        __doc__.splitlines()[0].partition(" Writes")[0],
        command="python -m benchmarks.hostile EXPORT",
    )
    summary = {
        "requests": len(rows),
        "slowest_plain_seconds": max(row.get("slowest_plain_seconds", 0.0) for row in rows),
        "server_peak_mb": max(row.get("peak_mb", 0) for row in rows),
        "more_mb": max(row["more_mb"] for row in rows if row["over"] != "session"),
        "more_mb_in_session": max(row["more_mb"] for row in rows if row["over"] == "session"),
        "bad": sum(map(bad, rows)),
    }
    write_json(parsed.out, {**told, "summary": summary, "each": rows})
    print(json.dumps(summary, indent=1))
    return int(summary["bad"] > 0)


if __name__ == "__main__":
    sys.exit(main())
