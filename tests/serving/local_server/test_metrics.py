"""What a server counts, as Prometheus reads it."""

import math
import pathlib
import re
import threading

import grpc
import pytest
from support import toy_export
from support.toy_export import strings
from support.wire import ask, refusal, request
from tensorflow_serving.apis import prediction_service_pb2_grpc

from mmrec_tf.errors import ConfigError
from serving.local_server import LocalServer, metrics
from serving.local_server.metrics import Counter, Histogram, Metrics

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "serving/deploy"

PATH = "/monitoring/prometheus/metrics"
SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\} (\S+)')


def read(text):
    """Every sample of a page by name and labels, and the type of every metric."""
    samples, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split()
            assert name not in types
            types[name] = kind
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        key = (name, *re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        assert key not in samples
        samples[key] = float(value)
    return samples, types


def test_counters_are_written_with_their_labels():
    counter = Counter("/a/b_c", "model_name", "status")
    assert counter.lines() == ["# TYPE :a:b_c counter"]
    for status in ("OK", "OK", "NOT_FOUND"):
        counter.add("m", status)
    counter.add('quo"te\\\n', "OK")
    assert counter.lines()[1:] == [
        ':a:b_c{model_name="m",status="NOT_FOUND"} 1',
        ':a:b_c{model_name="m",status="OK"} 2',
        ':a:b_c{model_name="quo\\"te\\\\\\n",status="OK"} 1',
    ]
    assert counter.total() == 4
    bare = Counter("/n")
    bare.add()
    assert bare.lines()[1:] == [":n{} 1"]


def test_histograms_count_what_lies_below_each_limit():
    histogram = Histogram("/t", "model_name", limits=[10, 18, 32.4])
    for value in (3, 10, 11, 32, 1000):
        histogram.observe(value, "m")
    assert histogram.lines() == [
        "# TYPE :t histogram",
        ':t_bucket{model_name="m",le="10"} 2',
        ':t_bucket{model_name="m",le="18"} 3',
        ':t_bucket{model_name="m",le="32.4"} 4',
        ':t_bucket{model_name="m",le="+Inf"} 5',
        ':t_sum{model_name="m"} 1056',
        ':t_count{model_name="m"} 5',
    ]
    bare = Histogram("/t", limits=[1])
    bare.observe(0.5)
    assert bare.lines()[1:] == [':t_bucket{le="1"} 1', ':t_bucket{le="+Inf"} 1', ":t_sum{} 0.5",
                                ":t_count{} 1"]  # fmt: skip


def test_all_metrics_are_named_as_the_real_server_names_them():
    samples, types = read(Metrics().text())
    assert samples == {}
    assert types == {
        ":tensorflow:cc:saved_model:load_attempt_count": "counter",
        ":tensorflow:serving:batching_session:queuing_latency": "histogram",
        ":tensorflow:serving:batching_session:wrapped_run_count": "counter",
        ":tensorflow:serving:model_warmup_latency": "histogram",
        ":tensorflow:serving:request_count": "counter",
        ":tensorflow:serving:request_latency": "histogram",
        ":tensorflow:serving:runtime_latency": "histogram",
    }
    assert list(types) == sorted(types)
    counts = Metrics()
    counts.request_count.add("m", "OK")
    assert counts.total("/tensorflow/serving/request_count") == 1
    assert counts.total("/tensorflow/serving/request_latency") == counts.total("x") == 0


def test_no_count_is_lost_between_threads():
    counts = Metrics()

    def count():
        for _ in range(500):
            counts.request_count.add("m", "OK")
            counts.request_latency.observe(1.0, "m", "Predict", "GRPC")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples, _ = read(counts.text())
    labels = (("model_name", "m"), ("API", "Predict"), ("entrypoint", "GRPC"))
    assert samples[":tensorflow:serving:request_latency_count", *labels] == 2000
    assert counts.request_count.total() == 2000


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", PATH),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ('prometheus_config { path: "/m" }', None),
        ("", None),
    ],
)
def test_the_file_says_where_they_are(tmp_path, text, path):
    file = tmp_path / "monitoring.config"
    file.write_text(text)
    assert metrics.read_path(file) == path


def test_the_file_of_the_checkout_is_read():
    assert metrics.read_path(DEPLOY / "monitoring.config") == PATH


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enabled: true }")
    server = LocalServer(tmp_path, monitoring_config_file=file)
    with pytest.raises(ConfigError, match='monitoring.config.*MonitoringConfig.*"enabled"'):
        server.start()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    root = tmp_path_factory.mktemp("counted")
    (root / "table").mkdir()
    toy_export.save(toy_export.Table(), root / "table" / "1")
    toy_export.export(root, "encoder", 1, toy_export.Encoder())
    return root


def test_a_server_counts_what_it_is_asked(tmp_path, export):
    file = tmp_path / "monitoring.config"
    file.write_text('prometheus_config { enable: true path: "/counts" }')
    batching = tmp_path / "batching.config"
    batching.write_text('thread_pool_name { value: "pool" }')
    with (
        LocalServer(
            export,
            monitoring_config_file=file,
            enable_batching=True,
            batching_parameters_file=batching,
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        for _ in range(3):
            predict(request("table", "echo", s=strings(b"a")))
        refusal(predict, request("table", "nope"))
        refusal(predict, request("none"))
        ask(server, "POST", "/v1/models/table:predict", {"instances": [1]})
        ask(server, "GET", "/v1/models/table")
        ask(server, "GET", "/v1/models/none")
        ask(server, "POST", "/v1/models/table:classify", {})
        code, body = ask(server, "GET", "/counts")
        assert code == 200
        assert ask(server, "POST", "/counts", {})[0] == 404
        assert ask(server, "GET", PATH)[0] == 404
    samples, _ = read(body.decode())
    serving = ":tensorflow:serving:"
    wanted = {
        ("table", "OK"): 5,
        ("table", "FAILED_PRECONDITION"): 1,
        ("table", "UNIMPLEMENTED"): 1,
        ("none", "NOT_FOUND"): 2,
    }
    assert {
        (key[1][1], key[2][1]): count
        for key, count in samples.items()
        if key[0] == f"{serving}request_count"
    } == wanted

    def of(name, *labels):
        return {
            key[1:]: value
            for key, value in samples.items()
            if key[0] == serving + name and {value for _, value in key[1:]} >= set(labels)
        }

    (over_grpc,) = of("request_latency_count", "table", "Predict", "GRPC").values()
    (over_rest,) = of("request_latency_count", "table", "predict", "REST").values()
    assert (over_grpc, over_rest) == (3, 1)  # Only what was answered.
    (total,) = of("request_latency_sum", "Predict").values()
    assert 0 < total < math.inf
    assert of("runtime_latency_count", "table", "Predict", "TF1")
    (path,) = {dict(key)["model_path"] for key in of("model_warmup_latency_count", "OK")}
    assert path == str(export / "encoder" / "1")
    runs = samples[f"{serving}batching_session:wrapped_run_count",]
    (waits,) = of("batching_session:queuing_latency_count", "pool").values()
    assert 4 < runs <= waits
    loads = {key[2]: count for key, count in samples.items() if "load_attempt_count" in key[0]}
    assert loads == {("status", "success"): 1}


def test_a_load_that_fails_is_counted(tmp_path, export):
    from serving.local_server.models.servable import Servable
    from serving.local_server.refusals import Refusal

    counts = Metrics()
    with pytest.raises(Refusal):
        Servable("m", 1, tmp_path, metrics=counts)
    assert f'{{model_path="{tmp_path}",status="fail"}} 1' in counts.text()


def test_without_the_file_there_is_no_page(export):
    with LocalServer(export) as server:
        assert ask(server, "GET", PATH)[0] == 404
