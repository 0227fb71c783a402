"""Requests that mean harm: each is refused with a status, and the next plain one is answered."""

import gzip
import http.client
import json
import socket
import threading

import grpc
import numpy as np
import pytest
from support import toy_export
from support.wire import CODE, LARGE, WAIT_SECONDS, ask, refusal, request
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving import tensors
from serving.local_server import LocalServer, limits
from serving.local_server.limits import Budget
from serving.local_server.metrics import Counter
from serving.local_server.refusals import Refusal
from serving.local_server.rest import connections, json_tensors

PREDICT = "/v1/models/table:predict"
MIB = 2**20


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    (root / "table").mkdir()
    toy_export.save(toy_export.Table(), root / "table" / "7")
    with LocalServer(root) as server:
        yield server


@pytest.fixture(autouse=True)
def answers_the_next_one(table):
    """Whatever a test sent, the next plain requests are answered, over both ports."""
    yield
    assert ask(table, "POST", PREDICT, {"instances": [1, 2]})[0] == 200
    with grpc.insecure_channel(table.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(request(x=np.ones([1, 3], np.float32)), timeout=WAIT_SECONDS)


def sent(table, body, **headers):
    code, answer = ask(table, "POST", PREDICT, body, headers)
    return code, json.loads(answer).get("error", "") if answer else ""


# Bodies

QUOTES = b'{"Inf":' + b'"\\"' * 100_000


@pytest.mark.parametrize(
    "body",
    [
        QUOTES,
        b'{"Inf":' + b'"\\\n' * 100_000,
        b'{"a": Inf, "b": "' + b"\\" * 300_001,
        b'{"inputs": [' + b'"Inf", ' * 100_000,
        b'{"Inf":' + b'"\\"' * 8_000_000,
    ],
)
def test_no_text_takes_the_square_of_its_length(table, body):
    """Looked at once from each quotation mark to the end it would take minutes."""
    code, error = sent(table, body)
    assert code == 400 and error.startswith("JSON Parse error")


def test_infinity_is_still_told_from_words(table):
    words = b'["Inf", "a\\"Inf", "\\\\", "Inf"]'
    body = b'{"signature_name": "echo", "inputs": ' + words + b', "more": [Inf, -Inf]}'
    outputs = json.loads(ask(table, "POST", PREDICT, body)[1])["outputs"]
    assert outputs == ["Inf", 'a"Inf', "\\", "Inf"]
    parsed = json_tensors.parse(body).document
    assert parsed["more"] == [float("inf"), -float("inf")]


@pytest.mark.parametrize("size", [limits.MOST_BODY_BYTES + 1, 100 * MIB])
def test_a_small_body_that_unpacks_to_a_large_one(table, size):
    packed = gzip.compress(bytes(size), 9)
    assert len(packed) < MIB
    code, error = sent(table, packed, **{"Content-Encoding": "gzip"})
    assert code == 400 and f"more than {limits.MOST_BODY_BYTES} bytes unpacked" in error


def test_what_unpacks_to_an_honest_size_is_read(table):
    body = json.dumps({"signature_name": "echo", "instances": ["x" * 2 * MIB]}).encode()
    assert sent(table, gzip.compress(body), **{"Content-Encoding": "gzip"})[0] == 200


def test_a_body_that_is_too_long_is_not_read(table):
    connection = http.client.HTTPConnection(table.rest_address, timeout=WAIT_SECONDS)
    connection.putrequest("POST", PREDICT)
    connection.putheader("Content-Length", str(limits.MOST_BODY_BYTES + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 400 and b"is not 0 to 25165824" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"inputs": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}", "tensors have up to 32"),
        (b'{"instances": [' + b"[" * 40 + b"]" * 40 + b"]}", "tensors have up to 32"),
        (b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "JSON Parse error"),
        (b'{"a": ' * 50_000, "JSON Parse error"),
        (b'{"inputs": [' + b"{}," * 2**20 + b"1]}", "more than 1048576 elements"),
        (b'{"inputs": [' + b"[]," * 2**20 + b"1]}", "more than 1048576 elements"),
    ],
)
def test_what_is_deep_or_has_many_parts(table, body, text):
    code, error = sent(table, body)
    assert code == 400 and text in error


def test_commas_in_words_are_no_elements():
    text = json.dumps({"instances": ["," * (2**20 + 1)]}).encode()
    assert json_tensors.parse(text).document["instances"][0].count(",") == 2**20 + 1


def test_an_error_shows_the_start_of_a_large_document_without_writing_all_of_it(monkeypatch):
    parts = []

    class Encoder(json.JSONEncoder):
        def iterencode(self, value, _one_shot=False):
            for part in super().iterencode(value, _one_shot):
                parts.append(part)
                yield part

    monkeypatch.setattr(json_tensors.json, "JSONEncoder", Encoder)
    with pytest.raises(Refusal) as raised:
        json_tensors.parse(b"[" + b"1," * 100_000 + b"1]")
    assert raised.value.text.startswith("JSON Value: [\n    1,\n") and len(parts) < 1000


@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_a_text_longer_than_any_that_is_read(table, form):
    """With one rare character Python would hold four bytes for each of it, several times."""
    for text in (
        "x" * (limits.MOST_TEXT_BYTES + 1),
        "\U0001f600" * (limits.MOST_TEXT_BYTES // 4 + 1),
    ):
        body = json.dumps({"signature_name": "echo", form: [text]}, ensure_ascii=False).encode()
        code, error = sent(table, body)
        assert code == 400 and "more than 2097152 bytes; larger content is sent as base64" in error
    packed = {"b64": "eHh4" * (limits.MOST_TEXT_BYTES // 2)}
    body = json.dumps({"signature_name": "echo", form: [packed]}).encode()
    assert sent(table, body)[0] == 200


def test_more_rows_than_any_request_has(table):
    most = limits.MOST_JSON_ROWS
    body = json.dumps({"signature_name": "echo", "instances": ["x"] * (most + 1)}).encode()
    code, error = sent(table, body)
    assert code == 400 and f"More than {most} values" in error
    body = json.dumps({"signature_name": "echo", "inputs": ["\U0001f600"] * (most + 1)}).encode()
    answer = json.loads(ask(table, "POST", PREDICT, body)[1])["outputs"]
    assert answer == ["\U0001f600"] * (most + 1)


# Who asks, and how


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://page.example", 403),
        ("http://page.example:8501", 403),
        ("http://localhost.page.example", 403),
        ("http://[", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1", 200),
    ],
)
def test_a_page_of_elsewhere_may_not_post(table, origin, code):
    body = json.dumps({"instances": [1]})
    found, error = sent(table, body, Origin=origin)
    assert found == code and (code == 200 or "Origin: wanted a page of localhost" in error)


def test_silent_connections_lock_nobody_out(table, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 6)
    silent = []
    try:
        for number in range(20):
            opened = socket.create_connection(("127.0.0.1", table.rest_port), WAIT_SECONDS)
            # Some say nothing, some begin a request.
            opened.sendall(
                [b"", b"POST /v1/models/table:predict HT", b"GET / HTTP/1.1\r\nA: b"][number % 3]
            )
            silent.append(opened)
            assert ask(table, "GET", "/v1/models/table")[0] == 200
        assert len(table._rest._server._open) <= 6
        # The first ones made room.
        assert silent[0].recv(1) == b""
    finally:
        for opened in silent:
            opened.close()


def test_one_connection_too_many_is_turned_away(table, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 0)
    assert ask(table, "GET", "/v1/models/table") == (429, b"")


def test_a_request_that_comes_byte_by_byte_is_ended(table, monkeypatch):
    monkeypatch.setattr(connections, "RECEIVE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", table.rest_port), WAIT_SECONDS) as opened:
        opened.sendall(b"POST /v1/models/table:predict HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{")
        ended = threading.Event()

        def drip():
            while not ended.wait(0.05):
                try:
                    opened.sendall(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        answer = b""
        while b"too slowly" not in answer:
            answer += opened.recv(10_000) or pytest.fail(f"ended with {answer!r}")
        ended.set()
        dripping.join(WAIT_SECONDS)
    assert answer.startswith(b"HTTP/1.1 408")


def test_names_of_models_do_not_fill_the_metrics():
    counter = Counter("/a", "model_name", "status")
    for number in range(5000):
        counter.add(f"m{number}", "NOT_FOUND")
    assert len(counter.lines()) <= 1002 and counter.total() == 5000


# The budget


def test_large_requests_wait_for_each_other_and_small_ones_do_not():
    budget = Budget(MIB, wait_seconds=0.05)
    with budget.hold(MIB // 2), budget.hold(MIB // 2):
        with budget.hold(1000):
            pass
        with pytest.raises(Refusal) as raised, budget.hold(MIB // 2):
            pass
        assert raised.value.code is CODE.RESOURCE_EXHAUSTED
    # One that is larger than all of it runs alone.
    with budget.hold(100 * MIB), pytest.raises(Refusal), budget.hold(MIB // 2):
        pass
    with budget.hold(MIB):
        pass


# Messages


def claim(dtype, shape, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        claim(types_pb2.DT_STRING, [2**26], string_val=[b"x"]),
        claim(types_pb2.DT_STRING, [2**21]),
        claim(types_pb2.DT_STRING, [2**19], string_val=[b"x" * 1000]),
        claim(types_pb2.DT_FLOAT, [2**26], float_val=[1.0]),
        claim(types_pb2.DT_INT64, [2**13, 2**13]),
        claim(types_pb2.DT_STRING, [2**26], tensor_content=b"\x00" * 100),
        claim(types_pb2.DT_FLOAT, [1] * 70, float_val=[1.0]),
        claim(types_pb2.DT_FLOAT, [0, 2**62, 2**62]),
    ],
)
def test_a_tensor_that_claims_more_than_it_brings(table, proto):
    with pytest.raises(ValueError):
        tensors.from_proto(proto)
    with grpc.insecure_channel(table.address, LARGE) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert refusal(stub.Predict, request(x=proto)) == (
            CODE.INVALID_ARGUMENT,
            "tensor parsing error: x",
        )


def test_a_message_of_millions_of_strings_is_not_decoded(table):
    many = claim(types_pb2.DT_STRING, [2**22 + 1], string_val=[b""] * (2**22 + 1))
    with grpc.insecure_channel(table.address, LARGE) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        code, text = refusal(stub.Predict, request(signature="echo", s=many))
    assert (code, text) == (CODE.INVALID_ARGUMENT, "too many strings in one message")


def test_what_a_full_request_repeats_is_read():
    rows = claim(types_pb2.DT_STRING, [1024, 1024], string_val=[b"i1"])
    assert tensors.from_proto(rows).shape == (1024, 1024)


def test_bytes_that_are_no_message_are_refused(table):
    with grpc.insecure_channel(table.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        assert refusal(call, b"\xff" * 100)[0] is CODE.INTERNAL


def test_a_message_over_the_limit_is_not_decoded(table, monkeypatch):
    large = tensors.to_proto(np.ones(limits.MOST_MESSAGE_BYTES // 4 + 1, np.float32), packed=True)
    with grpc.insecure_channel(table.address, LARGE) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        code, text = refusal(stub.Predict, request(x=large))
    assert code is CODE.RESOURCE_EXHAUSTED and "larger than max" in text
