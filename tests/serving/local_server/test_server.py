"""The local server answers as TensorFlow Serving does, over real gRPC and HTTP on loopback."""

import base64
import gzip
import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from support import toy_export
from support.toy_export import strings
from support.wire import (
    CODE,
    LARGE,
    WAIT_SECONDS,
    ask,
    publish,
    refusal,
    request,
    status_request,
    statuses,
    wait_for,
)
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from mmrec_tf.errors import ServingError
from mmrec_tf.exporting.checksums import write_checksums
from serving import tensors
from serving.local_server import LocalServer
from serving.local_server.models.servable import WARMUP_FILE

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    (root / "table").mkdir()
    toy_export.save(toy_export.Table(), root / "table" / "7")
    # None of these is a version, and none is a model.
    (root / "table" / "v8").mkdir()
    (root / "table" / "9").write_text("a file")
    (root / "notes").mkdir()
    with LocalServer(root) as server:
        yield server


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    """The folders of two versions of one model, to be copied by the tests that publish them."""
    root = tmp_path_factory.mktemp("versions")
    return {n: toy_export.export(root, "recommender", n, toy_export.Recommender(n)) for n in (1, 2)}


@pytest.fixture(scope="module")
def stub(table):
    with grpc.insecure_channel(table.address, LARGE) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def f32(*values):
    return np.array(values, np.float32)


FEAT = np.ones((2, 3), np.float32)
THREE = {"feat": FEAT, "id": np.array([1, 2]), "name": strings(b"a", b"b")}
DAMAGED = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=b"123")
DAMAGED.tensor_shape.dim.add(size=2)
HUGE = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
HUGE.tensor_shape.dim.add(size=2**40)


@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        (request(None), CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
        (request(""), CODE.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (request("no"), CODE.NOT_FOUND, "Servable not found for request: Latest(no)"),
        (
            request(version=6),
            CODE.NOT_FOUND,
            "Servable not found for request: Specific(table, 6)",
        ),
        (
            request("no", version=0),
            CODE.NOT_FOUND,
            "Servable not found for request: Specific(no, 0)",
        ),
        (
            request(label="stable"),
            CODE.INVALID_ARGUMENT,
            "Unrecognized servable version label: stable",
        ),
        (
            request(signature="nope"),
            CODE.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            request(signature="three", id=THREE["id"], name=THREE["name"]),
            CODE.INVALID_ARGUMENT,
            "input size does not match signature: 2!=3 len({id,name}) != len({feat,id,name}). "
            "Sent extra: {}. Missing but required: {feat}.",
        ),
        (
            request(signature="add", x=f32(1), z=f32(1), q=f32(1)),
            CODE.INVALID_ARGUMENT,
            "input size does not match signature: 3!=2 len({q,x,z}) != len({x,z}). "
            "Sent extra: {q}. Missing but required: {}.",
        ),
        (
            request(z=FEAT),
            CODE.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {z}, or default input "
            "alias set: ",
        ),
        (request(x=DAMAGED), CODE.INVALID_ARGUMENT, "tensor parsing error: x"),
        (request(x=HUGE), CODE.INVALID_ARGUMENT, "tensor parsing error: x"),
        (
            request(x=FEAT.astype(np.int32)),
            CODE.INVALID_ARGUMENT,
            "Expects arg[0] to be float but int32 is provided",
        ),
        (
            request(signature="add", x=f32(1), z=np.array([1.0])),
            CODE.INVALID_ARGUMENT,
            "Expects arg[1] to be float but double is provided",
        ),
        (
            request(signature="add", x=f32(1, 2), z=f32(1, 2, 3)),
            CODE.INVALID_ARGUMENT,
            "Incompatible shapes: [2] vs. [3]\n\t [[{{node add}}]]",
        ),
        (
            request(signature="three", outputs=["zz"], **THREE),
            CODE.INVALID_ARGUMENT,
            "output tensor alias not found in signature: zz Outputs expected to be in the set "
            "{echo_bytes,neg,y}.",
        ),
        (
            request(signature="three", outputs=["y", "neg", "y"], **THREE),
            CODE.INVALID_ARGUMENT,
            "duplicate output tensor alias: y",
        ),
    ],
)
def test_predict_refuses_with_the_real_codes_and_texts(stub, made, code, text):
    assert refusal(stub.Predict, made) == (code, text)


def test_a_long_text_is_cut(stub):
    made = request(signature="refuse", s=strings(b"x" * 2000))
    code, text = refusal(stub.Predict, made)
    assert code is CODE.INVALID_ARGUMENT and text.startswith("assertion failed: ")
    assert len(text) == 1024 + len("...TRUNCATED") and text.endswith("...TRUNCATED")


def test_predict_answers_all_outputs_or_those_asked_for(stub):
    answer = stub.Predict(request(signature="three", **THREE))
    assert sorted(answer.outputs) == ["echo_bytes", "neg", "y"]
    assert list(answer.outputs["y"].float_val) == [4.0, 5.0]
    assert not answer.outputs["y"].tensor_content
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("table", 7, "three")
    answer = stub.Predict(request(signature="three", outputs=["neg"], version=7, **THREE))
    assert list(answer.outputs) == ["neg"]


def test_predict_takes_every_encoding(stub):
    assert stub.Predict(request(x=FEAT)).model_spec.signature_name == "serving_default"
    one = tf.make_tensor_proto(2.0, shape=[2, 3])
    assert len(one.float_val) == 1
    np.testing.assert_array_equal(
        tf.make_ndarray(stub.Predict(request(x=one)).outputs["y"]), 2 * FEAT
    )
    packed = tensors.to_proto(FEAT, packed=True)
    assert packed.tensor_content
    np.testing.assert_array_equal(
        tf.make_ndarray(stub.Predict(request(x=packed)).outputs["y"]), FEAT
    )


def test_strings_are_bytes_untouched(stub):
    values = strings(b"\x00\xff\x00", b"", "grün".encode())
    answer = stub.Predict(request(signature="echo", s=values))
    assert list(answer.outputs["t"].string_val) == values.tolist()


def test_no_rows_and_undeclared_shapes_are_fine(stub):
    for shape in [(0, 3), (2, 5), (4,)]:
        answer = stub.Predict(request(x=np.ones(shape, np.float32)))
        assert tf.make_ndarray(answer.outputs["y"]).shape == shape


def test_large_messages_pass(stub):
    large = np.ones((1_000_000, 3), np.float32)  # 12 MB there and back.
    answer = stub.Predict(request(x=tensors.to_proto(large, packed=True)))
    assert len(answer.outputs["y"].float_val) == large.size


def test_half_is_answered_over_grpc(stub):
    answer = stub.Predict(request(signature="half", x=f32(1.5, -2)))
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.SessionService/SessionRun",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_everything_else_is_unimplemented(table, method):
    with grpc.insecure_channel(table.address) as channel:
        call = channel.unary_unary(method)
        assert refusal(call, b"")[0] is CODE.UNIMPLEMENTED
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        made = classification_pb2.ClassificationRequest()
        assert refusal(stub.Classify, made)[0] is CODE.UNIMPLEMENTED


def metadata_request(model="table", fields=("signature_def",), version=None):
    made = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model is not None:
        made.model_spec.name = model
    if version is not None:
        made.model_spec.version.value = version
    return made


def test_metadata(stub):
    answer = stub.GetModelMetadata(metadata_request())
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("table", 7, "")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    three = signatures.signature_def["three"]
    assert three.inputs["feat"].name == "three_feat:0"
    assert [dim.size for dim in three.inputs["feat"].tensor_shape.dim] == [-1, 3]
    assert "__saved_model_init_op" in signatures.signature_def


@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        (metadata_request(None), CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            metadata_request("no", ()),
            CODE.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata_request("no", ("signature_def", "x")),
            CODE.INVALID_ARGUMENT,
            "Metadata field x is not supported",
        ),
        (metadata_request("no"), CODE.NOT_FOUND, "Servable not found for request: Latest(no)"),
        (
            metadata_request(version=1),
            CODE.NOT_FOUND,
            "Servable not found for request: Specific(table, 1)",
        ),
        (metadata_request(""), CODE.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_metadata_refuses(stub, made, code, text):
    assert refusal(stub.GetModelMetadata, made) == (code, text)


def test_status(table):
    assert statuses(table.address) == [(7, 30, 0, "")]


@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        (status_request(None), CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
        (status_request("no"), CODE.NOT_FOUND, "Could not find any versions of model no"),
        (status_request(""), CODE.NOT_FOUND, "Could not find any versions of model "),
        (status_request(version=2), CODE.NOT_FOUND, "Could not find version 2 of model table"),
    ],
)
def test_status_refuses(table, made, code, text):
    with grpc.insecure_channel(table.address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert refusal(stub.GetModelStatus, made) == (code, text)


# REST


def predict(server, body, path="/v1/models/table:predict"):
    code, text = ask(server, "POST", path, body)
    return code, json.loads(text)


ROW = {"feat": [1, 2.5, 3], "id": 1, "name": "a"}
ELEMENT = "Failed to process element: "


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{ nope", "JSON Parse error: Missing a name for object member. at offset: 2"),
        (b'{"a": tru}', "JSON Parse error: Invalid value. at offset: 6"),
        (b"3.5", "JSON Value: 3.5 Is not object"),
        (b'"' + b"x" * 400 + b'"', f'JSON Value: "{"x" * 255} Is not object'),
        ({}, "Missing 'inputs' or 'instances' key"),
        (
            {"inputs": 1, "instances": 2},
            'JSON Value: {\n    "inputs": 1,\n    "instances": 2\n} Not formatted correctly '
            "expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            {"instances": 2},
            "JSON Value: {\n    \"instances\": 2\n} Expecting 'instances' to be an list/array",
        ),
        (
            {"instances": []},
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            {"signature_name": 3},
            'JSON Value: {\n    "signature_name": 3\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            {"signature_name": "zz", "instances": [1]},
            'Serving signature name: "zz" not found in signature def',
        ),
        ({"inputs": ["a"]}, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"inputs": [True]}, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [None]}, "JSON Value: null Type: Null is not of expected type: float"),
        (
            {"signature_name": "count", "inputs": [1.0]},
            "JSON Value: 1.0 Type: Number is not of expected type: int32",
        ),
        (
            {"signature_name": "count", "inputs": [2**31]},
            "JSON Value: 2147483648 Type: Number is not of expected type: int32",
        ),
        (
            {"instances": [[1.0], ["a"]]},
            f"{ELEMENT}1 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            {"instances": [[1, 2, 3, 4], [1, 2]]},
            f"{ELEMENT}1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 4 but got: 2",
        ),
        (
            {"instances": [[[1, 2], [3, 4]], [[1, 2, 3, 4]]]},
            f"{ELEMENT}1 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [2,2] but got: [1,4]",
        ),
        (
            {"instances": [[[1, 2], [3]]]},
            f"{ELEMENT}0 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ({"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        (
            {"inputs": [[1.0], 2.0]},
            "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            {"signature_name": "three", "instances": [{"id": 1}]},
            f"{ELEMENT}0 of 'instances' list. JSON object: {{\n    \"id\": 1\n}} keys must be "
            "equal to: feat,id,name",
        ),
        (
            {"signature_name": "three", "instances": [{**ROW, "z": 1}]},
            f"{ELEMENT}0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does "
            "not have named input: z",
        ),
        (
            {"signature_name": "three", "instances": [{**ROW, "id": "x"}]},
            f"{ELEMENT}0 key: id of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "x" Type: String is not of expected type: int64',
        ),
        (
            {"signature_name": "three", "instances": [ROW, [1]]},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            {"instances": [[1], {"x": [1]}]},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            {"signature_name": "three", "instances": [[1]]},
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            {"signature_name": "three", "inputs": [[1]]},
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            {"signature_name": "three", "inputs": {"feat": [[1, 2, 3]], "name": ["a"]}},
            "Missing named input: id in 'inputs' object.",
        ),
        ({"signature_name": "echo", "inputs": [{"b64": "?"}]}, "Unable to base64 decode"),
        (
            {"signature_name": "echo", "inputs": [{"b65": "?"}]},
            'JSON Value: {\n    "b65": "?"\n} not formatted correctly for base64 data',
        ),
        (
            {"signature_name": "half", "instances": [1.0]},
            "Failed to write JSON value for tensor type: half",
        ),
        (
            {"signature_name": "total", "instances": [1.0]},
            "Tensor name: y has no shape information ",
        ),
        (
            {"signature_name": "uneven", "instances": [1.0, 2.0]},
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        (b"[" * 100_000, "JSON Parse error: maximum recursion depth exceeded while decoding a "),
    ],
)
def test_rest_refuses_with_the_real_texts(table, body, text):
    code, answer = predict(table, body)
    assert code == 400
    assert answer["error"] == text or (text.endswith("a ") and answer["error"].startswith(text))


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        (
            "/v1/models/table/versions/1:predict",
            404,
            "Servable not found for request: Specific(table, 1)",
        ),
        (
            "/v1/models/table/labels/new:predict",
            400,
            "Unrecognized servable version label: new",
        ),
    ],
)
def test_rest_refuses_unknown_models(table, path, code, text):
    assert predict(table, {"instances": [1]}, path) == (code, {"error": text})
    # JSON is parsed before the model is looked up.
    assert predict(table, b"x", path)[1]["error"].startswith("JSON Parse error")


def test_rest_errors_are_pretty_printed(table):
    answer = ask(table, "POST", "/v1/models/table:predict", b"")[1]
    assert answer == b'{\n    "error": "JSON Parse error: The document is empty"\n}'


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [[1, 2.5], [3, 4]]}, {"predictions": [[1.0, 2.5], [3.0, 4.0]]}),
        ({"instances": [{"x": 1}, {"x": 2}]}, {"predictions": [1.0, 2.0]}),
        ({"inputs": [[0.1, 1e-9]]}, {"outputs": [[0.1, 1e-9]]}),
        ({"inputs": {"x": [1.0], "unknown": 3}}, {"outputs": [1.0]}),
        ({"inputs": 5}, {"outputs": 5.0}),
        ({"inputs": []}, {"outputs": []}),
        (
            {"signature_name": "three", "instances": [ROW, ROW]},
            {"predictions": [{"echo_bytes": {"b64": "YQ=="}, "neg": -6.5, "y": 7.5}] * 2},
        ),
        (
            {
                "signature_name": "three",
                "inputs": {"feat": [[1, 2, 3]], "id": [1], "name": ["a"]},
            },
            {"outputs": {"echo_bytes": [{"b64": "YQ=="}], "neg": [-6.0], "y": [7.0]}},
        ),
        (
            {"signature_name": "echo", "instances": ["grün", {"b64": "YWI"}, {"b64": "YQ=="}]},
            {"predictions": ["grün", "ab", "a"]},
        ),
        (
            {"signature_name": "count", "inputs": [-2, 3]},
            {"outputs": {"big": [-6_000_000_000, 9_000_000_000], "even": [True, False]}},
        ),
        ({"signature_name": "total", "inputs": [1, 2]}, {"outputs": 3.0}),
        (b'{"inputs": [1e999, -Infinity, Inf, -Inf]} trailing', None),
    ],
)
def test_rest_predicts(table, body, answer):
    code, got = predict(table, body)
    assert code == 200
    inf = float("inf")
    assert got == (answer or {"outputs": [inf, -inf, inf, -inf]})


def test_rest_numbers_are_short_and_nan_stands_bare(table):
    body = b'{"inputs": [0.1, 3, 1e20, NaN, -Infinity]}'
    text = ask(table, "POST", "/v1/models/table:predict", body)[1]
    assert text.split() == b'{ "outputs": [ 0.1, 3.0, 1e+20, NaN, -Infinity ] }'.split()


def test_rest_lays_rows_out_as_the_real_server_does(table):
    def text(body):
        return ask(table, "POST", "/v1/models/table:predict", body)[1].decode()

    assert text({"instances": [[1, 2], [3, 4]]}) == (
        '{\n    "predictions": [[1.0, 2.0], [3.0, 4.0]\n    ]\n}'
    )
    assert text({"instances": [2.5, 3]}) == '{\n    "predictions": [2.5, 3.0\n    ]\n}'
    assert text({"signature_name": "three", "instances": [ROW]}) == (
        '{\n    "predictions": [\n        {\n'
        '            "echo_bytes": {\n                "b64": "YQ=="\n            },\n'
        '            "neg": -6.5,\n            "y": 7.5\n        }\n    ]\n}'
    )
    # The columnar form gives each value a line.
    assert text({"inputs": [[1]]}) == (
        '{\n    "outputs": [\n        [\n            1.0\n        ]\n    ]\n}'
    )


def test_rest_strings_that_are_no_utf8_come_back_as_they_are(table):
    packed = base64.b64encode(b"\xff\x00").decode()
    body = {"signature_name": "echo", "inputs": [{"b64": packed}]}
    assert b'"\xff\\u0000"' in ask(table, "POST", "/v1/models/table:predict", body)[1]


@pytest.mark.parametrize(
    ("method", "path", "code", "text"),
    [
        ("GET", "/v1/models/table:predict", 400, "Malformed request: GET /v1/models/table:predict"),
        ("POST", "/v1/models/table", 400, "Malformed request: POST /v1/models/table"),
        ("PUT", "/v1/models/table", 400, "Malformed request: PUT /v1/models/table"),
        ("GET", "/v1/models/table/", 400, "Malformed request: GET /v1/models/table/"),
        # A query belongs to the name, and fits no other route.
        ("GET", "/v1/models/no?a=1", 404, "Could not find any versions of model no?a=1"),
        ("GET", "/v1/models/table?a=1", 404, "Could not find any versions of model table?a=1"),
        (
            "POST",
            "/v1/models/table:predict?a=1",
            400,
            "Malformed request: POST /v1/models/table:predict?a=1",
        ),
        (
            "POST",
            "/v1/models/table:PREDICT",
            400,
            "Malformed request: POST /v1/models/table:PREDICT",
        ),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/table/versions/3", 404, "Could not find version 3 of model table"),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
    ],
)
def test_rest_routes_refuse(table, method, path, code, text):
    status, body = ask(table, method, path)
    assert (status, json.loads(body)) == (code, {"error": text})


def test_rest_routes_without_json(table):
    code, body = ask(table, "GET", "/elsewhere")
    assert code == 404 and b"<H1>Not Found</H1>" in body
    assert ask(table, "GET", f"/v1/models/table/versions/{2**63}") == (400, b"")
    assert ask(table, "OPTIONS", "/v1/models/table") == (400, b"")
    origin = {"Origin": "http://page.example"}
    assert ask(table, "OPTIONS", "/v1/models/table", headers=origin) == (200, b"")
    assert ask(table, "POST", "/v1/models/table:classify", {"examples": []})[0] == 501


def test_rest_status_and_metadata(table):
    code, body = ask(table, "GET", "/V1/Models/%74able/versions/7")
    assert code == 200 and json.loads(body) == {
        "model_version_status": [
            {
                "version": "7",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert body.startswith(b'{\n "model_version_status": [')
    assert ask(table, "GET", "/v1/models/table/labels/any")[0] == 200
    code, body = ask(table, "GET", "/v1/models/table/metadata")
    metadata = json.loads(body)
    assert metadata["model_spec"] == {"name": "table", "signature_name": "", "version": "7"}
    three = metadata["metadata"]["signature_def"]["signature_def"]["three"]
    assert three["inputs"]["feat"]["dtype"] == "DT_FLOAT"
    dims = three["inputs"]["feat"]["tensor_shape"]["dim"]
    assert dims == [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]


def test_rest_takes_gzip_and_keeps_the_connection(table):
    connection = http.client.HTTPConnection(table.rest_address, timeout=WAIT_SECONDS)
    body = gzip.compress(b'{"instances": [1, 2]}')
    for _ in range(3):
        connection.request("POST", "/v1/models/table:predict", body, {"Content-Encoding": "gzip"})
        response = connection.getresponse()
        assert json.loads(response.read()) == {"predictions": [1.0, 2.0]}
    connection.request("POST", "/v1/models/table:predict", b"x", {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    connection.close()


# Versions


class Load(threading.Thread):
    """Asks without a pause; keeps what failed, and the versions that answered."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.failures, self.versions, self.ending = [], [], threading.Event()

    def run(self):
        made = request(
            "recommender",
            "rank",
            user_id=strings(b"u"),
            history=strings([b""]),
            item_id=strings([b"i1"]),
            time=np.zeros([1], np.int64),
            profile=strings(b""),
            features=strings([b""]),
        )
        expected = None
        with grpc.insecure_channel(self.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self.ending.is_set():
                try:
                    answer = stub.Predict(made, timeout=WAIT_SECONDS)
                except grpc.RpcError as error:
                    self.failures.append(error)
                    continue
                version = answer.model_spec.version.value
                score = answer.outputs["score"].float_val[0] - version
                expected = score if expected is None else expected
                if abs(score - expected) > 1e-3:
                    self.failures.append((version, score))
                self.versions.append(version)


def test_versions_are_swapped_without_a_failed_or_mixed_answer(tmp_path, recommender):
    model = tmp_path / "recommender"
    publish(recommender[1], model, 1)
    with LocalServer(tmp_path, rest_port=None, poll_seconds=0.05) as server:
        assert server.models == ["recommender/1"]
        callers = [Load(server.address) for _ in range(3)]
        for caller in callers:
            caller.start()
        wait_for(lambda: all(caller.versions for caller in callers))

        second = publish(recommender[2], model, 2)
        wait_for(lambda: server.models == ["recommender/2"])
        wait_for(lambda: all(caller.versions[-1] == 2 for caller in callers))
        assert statuses(server.address, "recommender") == [(2, 30, 0, ""), (1, 50, 0, "")]

        # A version that does not load leaves the old one serving, and its number is spent.
        (model / "3").mkdir()
        wait_for(lambda: statuses(server.address, "recommender")[0][:2] == (3, 50))
        (_, _, code, text), *rest = statuses(server.address, "recommender")
        assert code == CODE.NOT_FOUND.value[0] and "does not appear to contain" in text
        assert rest[0] == (2, 30, 0, "")
        shutil.rmtree(model / "3")

        # The newest folder is removed: the one before comes back.
        shutil.rmtree(second)
        wait_for(lambda: server.models == ["recommender/1"])
        wait_for(lambda: all(caller.versions[-1] == 1 for caller in callers))

        for caller in callers:
            caller.ending.set()
            caller.join()
        assert [caller.failures for caller in callers] == [[], [], []]

        shutil.rmtree(model / "1")
        wait_for(lambda: not server.models)
        with grpc.insecure_channel(server.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert refusal(stub.Predict, request("recommender")) == (
                CODE.NOT_FOUND,
                "Servable not found for request: Latest(recommender)",
            )


def spoil(folder, records):
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([b"\x0a\xff garbage"], "Failed to parse warmup record: "),
        ([b""] * 1001, "Number of warmup records exceeds the maximum (1000) at "),
    ],
)
def test_a_version_whose_warm_up_fails_is_not_served(tmp_path, recommender, records, text):
    folder = publish(recommender[1], tmp_path / "recommender", 4)
    spoil(folder, records)
    server = LocalServer(tmp_path)
    with pytest.raises(ServingError) as raised:
        server.start()
    assert "{{name: recommender version: 4} due to error: INVALID_ARGUMENT" in str(raised.value)
    assert text in str(raised.value)


def test_a_version_that_is_not_as_it_was_published_is_not_served(tmp_path, recommender):
    folder = publish(recommender[1], tmp_path / "recommender", 4)
    write_checksums(folder)
    path = next((folder / "variables").glob("*.data-*"))
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ServingError) as raised:
        LocalServer(tmp_path).start()
    assert "version: 4} due to error: DATA_LOSS" in str(raised.value)
    assert f"{folder}: variables/{path.name}: has changed, by SHA256SUMS" in str(raised.value)
    path.write_bytes(data)
    with LocalServer(tmp_path) as server:
        assert server.models == ["recommender/4"]
    (folder / "SHA256SUMS").write_text("no hash\n")
    with pytest.raises(ServingError, match="wanted lines as of sha256sum"):
        LocalServer(tmp_path).start()


def test_a_failing_warm_up_request_fails_the_load(tmp_path, recommender):
    folder = publish(recommender[1], tmp_path / "recommender", 1)
    toy_export.warm_up(folder, [toy_export.Example("rank", {"user_id": strings(b"u")}, {})])
    with pytest.raises(ServingError, match="input size does not match signature: 1!=6"):
        LocalServer(tmp_path).start()


def test_an_empty_warm_up_record_is_skipped(tmp_path, recommender):
    spoil(publish(recommender[1], tmp_path / "recommender", 1), [b""])
    with LocalServer(tmp_path) as server:
        assert server.models == ["recommender/1"]


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_directory_without_models_is_refused(tmp_path, name):
    with pytest.raises(ServingError, match="mmrec-tf export"):
        LocalServer(tmp_path / name).start()


def test_a_port_that_is_taken_is_named(tmp_path, recommender):
    publish(recommender[1], tmp_path / "recommender", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"127.0.0.1:{port}.*--port"):
            LocalServer(tmp_path, port=port).start()
        with pytest.raises(ServingError, match=f"127.0.0.1:{port}.*--rest-port"):
            LocalServer(tmp_path, rest_port=port).start()


def test_many_callers_at_once_get_their_own_answers(stub):
    wrong = []

    def call(number):
        rng = np.random.default_rng(number)
        for _ in range(15):
            rows = rng.random((int(rng.integers(1, 40)), 3), np.float32)
            answer = stub.Predict(request(x=rows), timeout=WAIT_SECONDS)
            if not np.array_equal(tf.make_ndarray(answer.outputs["y"]), rows):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_command_serves_until_it_is_told_to_stop(tmp_path, recommender):
    publish(recommender[1], tmp_path / "recommender", 1)
    command = [sys.executable, "-m", "serving.local_server", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--port", "0", "--rest-port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert "recommender/1 ready on 127.0.0.1:" in line and "TensorFlow Serving" in line
            address = line.split("ready on ")[1].split()[0]
            assert statuses(address, "recommender") == [(1, 30, 0, "")]
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 0
        finally:
            # Else a failure above would wait for the server, which waits to be told to stop.
            process.kill()
        assert process.stdout.read() == ""
