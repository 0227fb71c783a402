"""Which models, versions and labels a server has, and how that changes under it."""

import contextlib
import json
import pathlib
import shutil
import threading

import grpc
import pytest
from google.protobuf import text_format
from support import toy_export
from support.toy_export import strings
from support.wire import CODE, WAIT_SECONDS, ask, publish, refusal, request, statuses, wait_for
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from mmrec_tf.errors import ConfigError, ServingError
from serving.local_server import LocalServer
from serving.local_server.models import models_config
from serving.local_server.models.models import Models
from serving.local_server.models.models_config import wanted_versions
from serving.local_server.refusals import Refusal

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "serving/deploy"


class Loaded:
    """Stands for a servable, so that these tests wait for no SavedModel."""

    def __init__(self, name, version, path):
        if (path / "broken").exists():
            raise Refusal(CODE.NOT_FOUND, "it is broken")
        self.name, self.version = name, version


def config(*models, **labels):
    """`(name, folder, policy)` of each; labels are those of the first."""
    made = model_server_config_pb2.ModelServerConfig()
    made.model_config_list.SetInParent()
    for name, folder, policy in models:
        one = made.model_config_list.config.add(
            name=name, base_path=str(folder), model_platform="tensorflow"
        )
        text_format.Parse(policy, one.model_version_policy)
    for label, version in labels.items():
        made.model_config_list.config[0].version_labels[label] = version
    return made


def folders(root, name, *versions):
    for version in versions:
        (root / name / str(version)).mkdir(parents=True)
    return root / name


def serve(made, **settings):
    models = Models(models_config.settings_of(made), Loaded, **settings)
    models.load()
    return models


def found(models, name, **choice):
    with models.hold(name, **choice) as servable:
        return servable.version


def refused(act, *arguments, **keywords):
    with pytest.raises(Refusal) as raised:
        act(*arguments, **keywords)
    return raised.value.code, raised.value.text


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", {9}),
        ("latest {}", {9}),
        ("latest { num_versions: 2 }", {4, 9}),
        ("latest { num_versions: 7 }", {0, 1, 4, 9}),
        ("all {}", {0, 1, 4, 9}),
        ("specific { versions: 1 versions: 4 versions: 5 }", {1, 4}),
        ("specific {}", set()),
    ],
)
def test_a_policy_says_which_versions_are_served(policy, wanted):
    made = config(("m", "/m", policy)).model_config_list.config[0].model_version_policy
    assert wanted_versions(made, [0, 9, 1, 4]) == wanted
    assert wanted_versions(made, []) == set()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            'config { name: "m" base_path: "/m" model_platform: "tensorflow" }',
            "Illegal to list model m multiple times in config list",
        ),
        (
            'config { name: "n" base_path: "n" model_platform: "tensorflow" }',
            "Expected model n to have an absolute path or URI; got base_path()=n",
        ),
        (
            'config { name: "n" base_path: "/n" model_platform: "caffe" }',
            "Model n requests unsupported platform caffe",
        ),
        (
            'config { name: "n" base_path: "/n" }',
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
    ],
)
def test_a_config_is_refused_with_the_real_text(tmp_path, change, text):
    made = config(("m", "/m", ""))
    text_format.Merge(change, made.model_config_list)
    assert refused(models_config.settings_of, made) == (CODE.INVALID_ARGUMENT, text)
    file = tmp_path / "models.config"
    file.write_text(text_format.MessageToString(made))
    with pytest.raises(ConfigError) as raised:
        LocalServer(model_config_file=file).start()
    assert text in str(raised.value) and str(file) in str(raised.value)


def test_a_platform_cannot_be_changed():
    made = config(("m", "/m", ""))
    made.model_config_list.config[0].model_platform = "caffe"
    assert refused(models_config.settings_of, made, known=["m"]) == (
        CODE.INVALID_ARGUMENT,
        "Illegal to change a model's platform. For model m platform was tensorflow and new "
        "platform requested is caffe",
    )


def test_what_is_no_list_of_models_is_refused():
    code, text = refused(models_config.settings_of, model_server_config_pb2.ModelServerConfig())
    assert code is CODE.INVALID_ARGUMENT and text.startswith("ServerModelConfig type not supported")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"model_config_list { config { nam: 'm' } }", 'wanted a ModelServerConfig.*"nam"'),
        (b"model_config_list {", "wanted a ModelServerConfig in text form; not so in line 1"),
        (b"model_config_list {}", "wanted a model; found none"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    file = tmp_path / "models.config"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"models.config.*{message}"):
        LocalServer(model_config_file=file).start()


@pytest.mark.parametrize("arguments", [{}, {"export": "e", "model_config_file": "f"}])
def test_either_an_export_or_a_file_is_served(arguments):
    with pytest.raises(ConfigError, match="either an export directory or a --model-config-file"):
        LocalServer(**arguments)


def test_the_file_of_the_checkout_can_be_read():
    file = DEPLOY / "models.config"
    settings = models_config.settings_of(models_config.read(file))
    assert [one.name for one in settings] == ["recommender", "encoder"]


def test_policies_and_the_next_poll(tmp_path):
    m = folders(tmp_path, "m", 1, 2, 3)
    n = folders(tmp_path, "n", 7)
    models = serve(config(("m", m, "latest { num_versions: 2 }"), ("n", n, "")))
    assert models.names() == ["m/3", "m/2", "n/7"]
    assert found(models, "m") == 3 and found(models, "m", version=2) == 2
    assert refused(found, models, "m", version=1) == (
        CODE.NOT_FOUND,
        "Servable not found for request: Specific(m, 1)",
    )
    folders(tmp_path, "m", 4)
    models.poll()
    assert models.names() == ["m/4", "m/3", "n/7"]
    # A version that does not load takes nothing away but its own place.
    folders(tmp_path, "n", 8)
    (n / "8" / "broken").touch()
    models.poll()
    assert models.names() == ["m/4", "m/3", "n/7"]
    assert [status.state for status in models.statuses("n")] == ["END", "AVAILABLE"]
    shutil.rmtree(m)
    models.poll()  # The whole folder is gone, which is not to say that nothing is wanted.
    assert models.names() == ["m/4", "m/3", "n/7"]


def test_a_start_without_a_version_or_with_a_broken_one_fails(tmp_path):
    m = folders(tmp_path, "m", 1)
    (m / "1" / "broken").touch()
    with pytest.raises(ServingError, match=r"\{\{name: m version: 1\} due to error: NOT_FOUND: it"):
        serve(config(("m", m, "")))
    for made in (config(("n", tmp_path / "n", "")), config(("m", m, "specific { versions: 2 }"))):
        with pytest.raises(ServingError, match="1 servable.*no version to serve in"):
            serve(made)


def test_labels_stand_for_versions_that_are_there(tmp_path):
    m = folders(tmp_path, "m", 1, 2)
    first = config(("m", m, "all {}"), stable=1)
    with pytest.raises(ServingError, match="version 1 of model m, which is not currently avail"):
        serve(first)
    models = serve(first, labels_may_wait=True)
    assert found(models, "m", label="stable") == 1
    assert refused(found, models, "m", label="new") == (
        CODE.INVALID_ARGUMENT,
        "Unrecognized servable version label: new",
    )
    models.reload(config(("m", m, "all {}"), stable=2, new=2))
    assert found(models, "m", label="stable") == found(models, "m", label="new") == 2
    # One that is there may not move to a version that is not; a new one may.
    lost = config(("m", m, "all {}"), stable=3)
    assert refused(models.reload, lost) == (
        CODE.FAILED_PRECONDITION,
        "Request to assign label to version 3 of model m, which is not currently available for "
        "inference",
    )
    assert found(models, "m", label="stable") == 2
    models.reload(config(("m", m, "all {}"), next=3))
    assert refused(found, models, "m", label="stable")[0] is CODE.INVALID_ARGUMENT
    assert refused(found, models, "m", label="next") == (
        CODE.NOT_FOUND,
        "Servable not found for request: Specific(m, 3)",
    )
    folders(tmp_path, "m", 3)
    models.poll()
    assert found(models, "m", label="next") == 3


def test_a_reload_replaces_the_set_of_models(tmp_path):
    m, n = folders(tmp_path, "m", 1), folders(tmp_path, "n", 1)
    models = serve(config(("m", m, "")))
    models.reload(config(("n", n, "")))
    assert models.names() == ["n/1"]
    assert refused(found, models, "m")[1] == "Servable not found for request: Latest(m)"
    assert [status.state for status in models.statuses("m")] == ["END"]
    models.reload(config(("n", n, ""), ("m", m, "")))
    assert sorted(models.names()) == ["m/1", "n/1"]
    broken = folders(tmp_path, "bad", 1)
    (broken / "1" / "broken").touch()
    assert refused(models.reload, config(("n", n, ""), ("bad", broken, ""))) == (
        CODE.UNKNOWN,
        "1 model(s) did not become available: {{{name: bad version: 1} due to error: NOT_FOUND: "
        "it is broken}, }",
    )
    models.reload(config())
    assert models.names() == []


def test_a_file_that_turns_bad_is_ignored(tmp_path, caplog):
    m = folders(tmp_path, "m", 1, 2)
    file = tmp_path / "models.config"
    models = serve(config(("m", m, "all {}")))
    file.write_text("model_config_list { config {")
    for _ in range(2):
        models.reload_file(file)
    assert models.names() == ["m/2", "m/1"]
    assert len([record for record in caplog.records if "is ignored" in record.message]) == 1
    file.write_text(text_format.MessageToString(config(("m", m, "latest {}"))))
    models.reload_file(file)
    models.poll()
    assert models.names() == ["m/2"]


def test_a_version_in_use_is_dropped_when_the_last_request_is_over(tmp_path):
    m = folders(tmp_path, "m", 1)
    models = serve(config(("m", m, "")))
    with models.hold("m") as first, models.hold("m") as again:
        assert first is again and first.version == 1
        folders(tmp_path, "m", 2)
        models.poll()
        assert found(models, "m") == 2
        states = [(status.version, status.state) for status in models.statuses("m")]
        assert states == [(2, "AVAILABLE"), (1, "UNLOADING")]
        shutil.rmtree(m / "2")
        models.poll()  # It will come back, but is still on its way out; the other one stays.
        assert [status.state for status in models.statuses("m")] == ["AVAILABLE", "UNLOADING"]
    assert [status.state for status in models.statuses("m")] == ["AVAILABLE", "END"]
    models.poll()
    assert models.names() == ["m/1"] and found(models, "m") == 1


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    root = tmp_path_factory.mktemp("gates")
    return {n: toy_export.save(toy_export.Gate(n), root / f"{n}") for n in (1, 2)}


def write_config(file, made):
    aside = file.with_suffix(".new")
    aside.write_text(text_format.MessageToString(made))
    aside.rename(file)


def test_labels_are_asked_for_and_moved_over_both_interfaces(tmp_path, gates):
    model = tmp_path / "gate"
    publish(gates[1], model, 1)
    publish(gates[2], model, 2)
    is_open = tmp_path / "open"
    is_open.touch()
    file = tmp_path / "models.config"
    write_config(file, config(("gate", model, "all {}"), stable=1))
    with LocalServer(
        model_config_file=file,
        model_config_file_poll_wait_seconds=0.05,
        allow_version_labels_for_unavailable_models=True,
        allow_other_ops=True,
    ) as server:
        assert server.models == ["gate/2", "gate/1"]
        with grpc.insecure_channel(server.address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
            made = request("gate", label="stable", path=strings(str(is_open)))

            def over_grpc():
                answer = predict(made, timeout=WAIT_SECONDS)
                version = answer.model_spec.version.value
                assert not answer.model_spec.version_label
                assert list(answer.outputs["version"].int_val) == [version]
                return version

            def over_rest():
                body = {"instances": [str(is_open)]}
                code, text = ask(server, "POST", "/v1/models/gate/labels/stable:predict", body)
                return code, json.loads(text)

            assert over_grpc() == 1 and over_rest() == (200, {"predictions": [1]})
            write_config(file, config(("gate", model, "all {}"), stable=2))
            wait_for(lambda: over_grpc() == 2)
            assert over_rest() == (200, {"predictions": [2]})

            # A message does the same as the file, until the file is read again.
            counted = "/tensorflow/serving/request_count"
            answer = reload(
                model_management_pb2.ReloadConfigRequest(
                    config=config(("gate", model, "all {}"), stable=1), metric_names=[counted, "x"]
                )
            )
            assert answer.status.error_code == 0
            assert [one.name for one in answer.metric] == [counted, "x"]
            wrong = model_management_pb2.ReloadConfigRequest(config=config(("gate", "gate", "")))
            assert refusal(reload, wrong) == (
                CODE.INVALID_ARGUMENT,
                "Expected model gate to have an absolute path or URI; got base_path()=gate",
            )


def test_a_request_under_way_ends_with_the_version_it_began_with(tmp_path, gates):
    model = tmp_path / "gate"
    publish(gates[1], model, 1)
    is_open = tmp_path / "open"
    with (
        LocalServer(tmp_path, rest_port=None, poll_seconds=0.05, allow_other_ops=True) as server,
        grpc.insecure_channel(server.address) as channel,
        contextlib.ExitStack() as opening,
    ):
        opening.callback(is_open.touch)
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        under_way = predict.future(request("gate", path=strings(str(is_open))))
        wait_for(lambda: is_held(server))
        publish(gates[2], model, 2)
        wait_for(lambda: server.models == ["gate/2"])
        assert [one[:2] for one in statuses(server.address, "gate")] == [(2, 30), (1, 40)]
        is_open.touch()
        answer = under_way.result(WAIT_SECONDS)
        assert answer.model_spec.version.value == 1
        assert list(answer.outputs["version"].int_val) == [1]
        assert predict(request("gate", path=strings(str(is_open)))).model_spec.version.value == 2
        wait_for(lambda: [one[1] for one in statuses(server.address, "gate")] == [30, 50])


def is_held(server):
    return any(model._held.total() for model in server._models._models.values())


def test_changes_and_requests_at_once(tmp_path):
    m = folders(tmp_path, "m", 1)
    models = serve(config(("m", m, "")))
    failures, is_over = [], threading.Event()

    def hold():
        while not is_over.is_set():
            try:
                with models.hold("m") as servable:
                    assert servable.version >= 1
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(2, 6):
        folders(tmp_path, "m", version)
        models.poll()
        models.reload(config(("m", m, "latest { num_versions: 2 }" * (version % 2))))
    is_over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    models.poll()
    assert found(models, "m") == 5
