"""The ports of the local server: health, TLS, deadlines, and how they close."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading

import grpc
import pytest
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import toy_export
from support.certificates import Authority
from support.toy_export import strings
from support.wire import CODE, WAIT_SECONDS, ask, refusal, request, statuses, wait_for
from tensorflow_serving.apis import prediction_service_pb2_grpc

from mmrec_tf.errors import ConfigError, ServingError
from serving.client import Client, Tls
from serving.local_server import LocalServer, config_files
from serving.local_server.grpc import tls

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    root = tmp_path_factory.mktemp("ports")
    (root / "gate").mkdir()
    toy_export.save(toy_export.Gate(3), root / "gate" / "3")
    return root


@pytest.fixture
def is_open(tmp_path):
    """The file that opens the gate, which is opened in the end whatever happens."""
    path = tmp_path / "open"
    yield path
    path.touch()


def predict_stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict


def gate_request(path):
    return request("gate", path=strings(str(path)))


def held(server):
    return sum(model._held.total() for model in server._models._models.values())


def counts(server):
    return ask(server, "GET", "/monitoring/prometheus/metrics")[1].decode()


def check(channel, name):
    made = health_pb2.HealthCheckRequest(service=name)
    return health_pb2_grpc.HealthStub(channel).Check(made, timeout=WAIT_SECONDS).status


def test_health(export):
    with (
        LocalServer(
            export, allow_other_ops=True, rest_port=None, enable_grpc_healthcheck_service=True
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for name in ("", "ModelService", "PredictionService"):
            assert check(channel, name) == SERVING
        made = health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService")
        assert refusal(health_pb2_grpc.HealthStub(channel).Check, made)[0] is CODE.NOT_FOUND


def test_who_watches_the_health_hears_of_the_end(export):
    server = LocalServer(
        export, allow_other_ops=True, rest_port=None, enable_grpc_healthcheck_service=True
    ).start()
    with grpc.insecure_channel(server.address) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == SERVING
        ending = threading.Thread(target=server.stop, kwargs={"grace_seconds": 0.2})
        ending.start()
        assert next(watched).status == NOT_SERVING
        ending.join(WAIT_SECONDS)
        assert server.wait(0)


def test_what_has_begun_is_answered_and_nothing_new_begins(export, is_open):
    server = LocalServer(export, allow_other_ops=True).start()
    kept = http.client.HTTPConnection(server.rest_address, timeout=WAIT_SECONDS)
    kept.request("GET", "/v1/models/gate")
    assert kept.getresponse().read()
    over_rest = []

    def ask_rest():
        connection = http.client.HTTPConnection(server.rest_address, timeout=WAIT_SECONDS)
        body = json.dumps({"instances": [str(is_open)]})
        connection.request("POST", "/v1/models/gate:predict", body)
        over_rest.append(json.loads(connection.getresponse().read()))

    with grpc.insecure_channel(server.address) as channel:
        predict = predict_stub(channel)
        over_grpc = predict.future(gate_request(is_open))
        asking = threading.Thread(target=ask_rest)
        asking.start()
        wait_for(lambda: held(server) == 2)
        ending = threading.Thread(target=server.stop, kwargs={"grace_seconds": WAIT_SECONDS})
        ending.start()
        wait_for(lambda: server._rest._begun._refuses)
        kept.request("GET", "/v1/models/gate")
        late = kept.getresponse()
        assert late.status == 503 and b"shutting down" in late.read()
        assert late.getheader("Connection") == "close"
        with grpc.insecure_channel(server.address) as other:
            wait_for(lambda: is_refused(predict_stub(other), is_open))
        assert not server.wait(0)
        is_open.touch()
        assert list(over_grpc.result(WAIT_SECONDS).outputs["version"].int_val) == [3]
        asking.join(WAIT_SECONDS)
        ending.join(WAIT_SECONDS)
    assert over_rest == [{"predictions": [3]}] and server.wait(0)


def is_refused(predict, path):
    try:
        predict(gate_request(path), timeout=1)
    except grpc.RpcError as error:
        return error.code() is CODE.UNAVAILABLE
    return False


def test_the_grace_is_an_end(export, is_open):
    server = LocalServer(export, allow_other_ops=True).start()
    with grpc.insecure_channel(server.address) as channel:
        under_way = predict_stub(channel).future(gate_request(is_open))
        wait_for(lambda: held(server) == 1)
        server.stop(grace_seconds=0.1)
        assert under_way.code() in (CODE.CANCELLED, CODE.UNAVAILABLE)


def test_sigterm_lets_what_has_begun_end(export, is_open):
    command = [
        sys.executable,
        "-m",
        "serving.local_server",
        str(export),
        "--allow-other-ops",
        "--port",
        "0",
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [*command, "--no-rest"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            address = process.stdout.readline().split("ready on ")[1].split()[0]
            with grpc.insecure_channel(address) as channel:
                under_way = predict_stub(channel).future(gate_request(is_open))
                # Answered by another thread, after the one above took its own.
                assert statuses(address, "gate") == [(3, 30, 0, "")]
                process.send_signal(signal.SIGTERM)
                with grpc.insecure_channel(address) as other:
                    wait_for(lambda: is_refused(predict_stub(other), is_open))
                is_open.touch()
                assert under_way.result(WAIT_SECONDS).model_spec.version.value == 3
            assert process.wait(WAIT_SECONDS) == 0
        finally:
            process.kill()


def test_calls_beyond_the_threads_wait_until_their_deadline(export, is_open, tmp_path):
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    with (
        LocalServer(
            export, allow_other_ops=True, monitoring_config_file=file, grpc_max_threads=1
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        predict = predict_stub(channel)
        first = predict.future(gate_request(is_open))
        wait_for(lambda: held(server) == 1)
        patient = predict.future(gate_request(is_open), timeout=WAIT_SECONDS)
        hasty = predict.future(gate_request(is_open), timeout=0.1)
        assert hasty.code() is CODE.DEADLINE_EXCEEDED
        is_open.touch()
        assert first.result(WAIT_SECONDS) == patient.result(WAIT_SECONDS)
        assert predict(gate_request(is_open)) == first.result()
        # The hasty one did not run when its turn came.
        assert 'request_count{model_name="gate",status="OK"} 3' in counts(server)


@pytest.mark.parametrize("number", [0, -3])
def test_no_threads_are_refused(export, number):
    with pytest.raises(ConfigError, match=f"--grpc-max-threads: wanted 1 or more; got {number}"):
        LocalServer(export, allow_other_ops=True, grpc_max_threads=number)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pems(authority):
    return {name: authority.issue(name) for name in ("server", "client")}


def ssl_config(folder, **keys):
    message = config_files._MESSAGES["SSLConfig"](**keys)
    file = folder / "ssl.config"
    file.write_text(text_format.MessageToString(message))
    return file


def of_server(pems):
    certificate, key = (path.read_text() for path in pems["server"])
    return {"server_key": key, "server_cert": certificate}


def ask_status(address, **settings):
    with Client(address, timeout_seconds=2, retries=0, **settings) as client:
        return [status.version for status in client.status("gate")]


def test_tls(export, authority, pems, tmp_path):
    file = ssl_config(tmp_path, **of_server(pems))
    with LocalServer(export, allow_other_ops=True, rest_port=None, ssl_config_file=file) as server:
        assert ask_status(server.address, tls=Tls(authority.path)) == [3]
        with pytest.raises(ServingError):
            ask_status(server.address)


def test_mutual_tls(export, authority, pems, tmp_path):
    own = {"custom_ca": authority.path.read_text(), "client_verify": True}
    file = ssl_config(tmp_path, **of_server(pems), **own)
    with LocalServer(export, allow_other_ops=True, rest_port=None, ssl_config_file=file) as server:
        assert ask_status(server.address, tls=Tls(authority.path, *pems["client"])) == [3]
        with pytest.raises(ServingError):
            ask_status(server.address, tls=Tls(authority.path))


def test_an_ssl_file_that_cannot_be_used_is_named_without_its_keys(pems, tmp_path):
    good = of_server(pems)
    for keys, message in (
        ({}, "wanted the contents of a PEM file in server_key; got none"),
        ({"server_key": good["server_key"]}, "in server_cert; got none"),
        ({**good, "client_verify": True}, "client_verify wants custom_ca"),
        ({**good, "server_cert": "words"}, "gRPC cannot use what came"),
    ):
        with pytest.raises(ConfigError, match=message):
            tls.read_credentials(ssl_config(tmp_path, **keys))
    file = tmp_path / "ssl.config"
    file.write_text(f'server_key: "{good["server_key"]}"')  # Lines that no backslash joins.
    with pytest.raises(ConfigError, match="ssl.config: wanted a SSLConfig.*line 1") as raised:
        tls.read_credentials(file)
    secret = good["server_key"].splitlines()[1]
    assert secret not in str(raised.value) and raised.value.__cause__ is None
