"""A models.config that is read again and again, by a server that is asked without a pause."""

import os
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from support import toy_export
from support.wire import CODE, WAIT_SECONDS, request, statuses, wait_for
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.local_server import LocalServer

X = np.zeros([1], np.float32)


class Number(tf.Module):
    """Adds its own number, so that an answer tells the version that gave it."""

    def __init__(self, number: int):
        super().__init__()
        self.number = tf.Variable(float(number))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def add(self, x):
        return {"y": x + self.number}

    def signatures(self):
        return {"serving_default": self.add}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    root = tmp_path_factory.mktemp("numbers")
    return {n: toy_export.save(Number(n), root / str(n)) for n in range(1, 5)}


@pytest.fixture
def publish(numbers, tmp_path):
    def into(model: str, *versions: int):
        (tmp_path / model).mkdir(exist_ok=True)
        for version in versions:
            (tmp_path / model / str(version)).symlink_to(numbers[version])
        return tmp_path / model

    return into


def entry(name, base_path, *, policy="", **labels):
    labels = [f'version_labels {{ key: "{key}" value: {at} }}' for key, at in labels.items()]
    policy = policy and f"model_version_policy {{ {policy} }}"
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" '
        f"{policy} {' '.join(labels)} }}"
    )


def write(path, *entries):
    """Renamed into place, so that no reader meets half of it."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    os.rename(aside, path)
    return path


def serve(file, **settings):
    return LocalServer(
        model_config_file=file,
        model_config_file_poll_wait_seconds=0.02,
        poll_seconds=0.02,
        rest_port=None,
        **settings,
    )


def ask(server, model="m", **choice):
    """The number of the version that answered, which its own report has to name; or the refusal."""
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            answer = stub.Predict(request(model, x=X, **choice), timeout=WAIT_SECONDS)
        except grpc.RpcError as error:
            return error.code(), error.details()
    assert answer.outputs["y"].float_val[0] == answer.model_spec.version.value
    return answer.model_spec.version.value


def not_found(asked):
    return CODE.NOT_FOUND, f"Servable not found for request: {asked}"


class Caller(threading.Thread):
    """Keeps every refusal, and every answer that is not that of the version it names."""

    def __init__(self, address, **choice):
        super().__init__(daemon=True)
        self.address, self.made = address, request("m", x=X, **choice)
        self.wrong, self.versions, self.ending = [], [], threading.Event()

    def run(self):
        with grpc.insecure_channel(self.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self.ending.is_set():
                try:
                    answer = stub.Predict(self.made, timeout=WAIT_SECONDS)
                except grpc.RpcError as error:
                    self.wrong.append((error.code(), error.details()))
                    continue
                version = answer.model_spec.version.value
                if answer.outputs["y"].float_val[0] != version:
                    self.wrong.append((version, answer.outputs["y"].float_val[0]))
                self.versions.append(version)


def test_swaps_and_moves_of_labels_cost_no_request_and_mix_no_answer(tmp_path, publish):
    folder, file = publish("m", 1, 2), tmp_path / "models.config"

    def follow(*versions, stable):
        policy = f"specific {{ {' '.join(f'versions: {n}' for n in versions)} }}"
        return write(file, entry("m", folder, policy=policy, stable=stable))

    follow(1, 2, stable=1)
    with serve(file, allow_version_labels_for_unavailable_models=True) as server:
        newest = [Caller(server.address) for _ in range(2)]
        labeled = [Caller(server.address, label="stable") for _ in range(2)]
        for caller in newest + labeled:
            caller.start()

        def reach(callers, version):
            wait_for(lambda: {caller.versions[-1:] == [version] for caller in callers} == {True})

        reach(newest, 2)
        reach(labeled, 1)
        follow(1, 2, stable=2)
        reach(labeled, 2)
        publish("m", 3, 4)
        follow(2, 3, stable=2)
        reach(newest, 3)
        follow(2, 3, stable=3)
        reach(labeled, 3)
        follow(3, 4, stable=3)
        reach(newest, 4)
        follow(3, 4, stable=4)
        reach(labeled, 4)
        follow(4, stable=4)
        wait_for(lambda: server.models == ["m/4"])
        end(labeled)
        # Back to another one alone: what goes is the only one there, and waits for what comes.
        follow(1, stable=4)
        reach(newest, 1)
        end(newest)
        assert [caller.wrong for caller in newest + labeled] == [[]] * 4
        states = [(4, 50), (3, 50), (2, 50), (1, 30)]
        wait_for(lambda: [one[:2] for one in statuses(server.address, "m")] == states)


def end(callers):
    for caller in callers:
        caller.ending.set()
        caller.join()


def test_models_come_and_go_and_none_waits_for_another(tmp_path, publish, caplog):
    first, second = entry("m", publish("m", 1)), entry("n", publish("n", 2))
    file = write(tmp_path / "models.config", first)
    with serve(file) as server:
        assert ask(server, "n") == not_found("Latest(n)")
        write(file, first, second)
        wait_for(lambda: ask(server, "n") == 2)
        write(file, second)
        wait_for(lambda: ask(server, "m") == not_found("Latest(m)"))
        assert ask(server, "n") == 2
        write(file, first, second)
        wait_for(lambda: ask(server, "m") == 1)

        write(file, first, second, entry("late", tmp_path / "late"))
        wait_for(lambda: "late" in caplog.text)
        publish("m", 3)
        wait_for(lambda: ask(server, "m") == 3)
        publish("late", 4)
        wait_for(lambda: ask(server, "late") == 4)


def test_another_policy_is_followed(tmp_path, publish):
    folder = publish("m", 1, 2, 3)
    file = write(tmp_path / "models.config", entry("m", folder))
    with serve(file) as server:
        for policy, served in (
            ("all {}", [3, 2, 1]),
            ("specific { versions: 2 }", [2]),
            # It is not there, and so nothing is served.
            ("specific { versions: 9 }", []),
            ("latest { num_versions: 2 }", [3, 2]),
        ):
            write(file, entry("m", folder, policy=policy))
            wait_for(lambda served=served: server.models == [f"m/{n}" for n in served])
        assert ask(server) == 3 and ask(server, version=2) == 2
        assert ask(server, version=1) == not_found("Specific(m, 1)")


def test_a_file_that_is_spoiled_or_gone_changes_nothing(tmp_path, publish, caplog):
    folder = publish("m", 1, 2)
    file = write(tmp_path / "models.config", entry("m", folder))
    with serve(file) as server:
        for spoil, said in (
            (lambda: file.write_text("model_config_list { oops"), "ModelServerConfig"),
            (lambda: file.write_bytes(b"\xff\xfe"), "utf-8"),
            (file.unlink, "No such file"),
            (lambda: write(file, *[entry("m", folder)] * 2), "multiple times"),
            (lambda: write(file, entry("m", folder, new=9)), "assign label to version 9"),
        ):
            caplog.clear()
            spoil()
            wait_for(lambda said=said: said in caplog.text)
            assert server.models == ["m/2"] and ask(server) == 2
        write(file, entry("m", folder, policy="all {}"))
        wait_for(lambda: server.models == ["m/2", "m/1"])


def test_a_label_that_comes_too_early_is_taken_when_its_version_is_there(tmp_path, publish, caplog):
    folder = publish("m", 1)
    file = write(tmp_path / "models.config", entry("m", folder))
    with serve(file) as server:
        write(file, entry("m", folder, stable=3))
        refused = "Request to assign label to version 3 of model m, which is not currently"
        wait_for(lambda: refused in caplog.text)
        unknown = CODE.INVALID_ARGUMENT, "Unrecognized servable version label: stable"
        assert ask(server, label="stable") == unknown
        publish("m", 3)
        wait_for(lambda: ask(server, label="stable") == 3)
        # Said once, though it was tried at every look.
        assert caplog.text.count(refused) == 1


def test_without_waiting_the_file_is_read_once(tmp_path, publish):
    file = write(tmp_path / "models.config", entry("m", publish("m", 1)))
    with LocalServer(model_config_file=file, rest_port=None, poll_seconds=0.02) as server:
        write(file, entry("n", publish("n", 2)))
        publish("m", 3)
        wait_for(lambda: ask(server) == 3)
        assert server.models == ["m/3"]
