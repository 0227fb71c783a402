"""Files for TensorFlow Serving, Prometheus, Grafana and Kubernetes that have to say the same."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from mmrec_tf.exporting.checksums import write_checksums
from mmrec_tf.exporting.servables import ENCODER_LIMITS, RECOMMENDER_LIMITS
from release import images
from serving.local_server import config_files, metrics
from serving.local_server.batching import parameters as batching_parameters

SERVING = pathlib.Path(__file__).resolve().parents[2] / "serving/deploy"
KUBERNETES = SERVING / "kubernetes"
BASE = KUBERNETES / "base"
COMPOSE = yaml.safe_load((SERVING / "docker-compose.yml").read_text("utf-8"))
ALERTS = yaml.safe_load((SERVING / "alerts.yml").read_text("utf-8"))
DASHBOARD = json.loads((SERVING / "grafana/dashboard.json").read_text("utf-8"))
MANIFESTS = sorted(KUBERNETES.rglob("*.yaml"))

# Of TensorFlow Serving 2.19. It starts with a flag that it does not know, without a word of it.
FLAGS = {
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
    "enable_grpc_healthcheck_service",
    "enable_model_warmup",
    "enable_per_model_batching_parameters",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "grpc_socket_path",
    "load_retry_interval_micros",
    "max_num_load_retries",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "num_load_threads",
    "num_request_iterations_for_warmup",
    "num_unload_threads",
    "port",
    "rest_api_enable_cors_support",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "ssl_config_file",
    "tensorflow_inter_op_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_session_parallelism",
}
# Those that it writes, with their labels; a histogram's are those of its parts.
COUNTERS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:batching_session:wrapped_run_count": set(),
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}
HISTOGRAMS = {
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:model_warmup_latency": {"model_path", "status"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
}
METRICS = COUNTERS | {
    name + part: labels | ({"le"} if part == "_bucket" else set())
    for name, labels in HISTOGRAMS.items()
    for part in ("_bucket", "_sum", "_count")
}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(SERVING))


def manifest(path: str) -> dict:
    return yaml.safe_load((KUBERNETES / path).read_text("utf-8"))


def deployment() -> dict:
    return manifest("base/deployment.yaml")


def pod() -> dict:
    return deployment()["spec"]["template"]


def container() -> dict:
    (only,) = pod()["spec"]["containers"]
    return only


def values(flags: list[str]) -> dict[str, str]:
    pairs = [re.fullmatch(r"--(\w+)=(.+)", flag) for flag in flags]
    assert None not in pairs, f"wanted --flag=value; got {flags}"
    found = {pair[1]: pair[2] for pair in pairs}
    assert len(found) == len(flags), f"a flag twice in {flags}"
    return found


COMMANDS = {
    "serving": COMPOSE["services"]["serving"]["command"],
    "serving-batching": COMPOSE["services"]["serving-batching"]["command"],
    "kubernetes": container()["args"],
}


def gpu_patch() -> list[dict]:
    (patch,) = manifest("gpu/kustomization.yaml")["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": deployment()["metadata"]["name"]}
    return yaml.safe_load(patch["patch"])


def gpu_args() -> list[str]:
    path = "/spec/template/spec/containers/0/args/-"
    return [step["value"] for step in gpu_patch() if step["path"] == path]


# Flags.


@pytest.mark.parametrize("where", COMMANDS)
def test_flags_are_known(where):
    assert set(values(COMMANDS[where])) - FLAGS == set()


def test_kubernetes_has_the_flags_of_compose():
    assert COMMANDS["kubernetes"] == COMMANDS["serving"]


def test_batching_adds_its_flags_and_changes_none():
    plain = COMMANDS["serving"]
    assert COMMANDS["serving-batching"][: len(plain)] == plain
    added = values(COMMANDS["serving-batching"][len(plain) :])
    assert added == {
        "enable_batching": "true",
        "batching_parameters_file": "/config/batching.config",
    }


def test_gpus_get_the_flags_of_batching():
    assert COMMANDS["kubernetes"] + gpu_args() == COMMANDS["serving-batching"]


def test_flags_name_files_that_are_mounted():
    mounted = {
        volume.split(":")[1]
        for volume in COMPOSE["services"]["serving-batching"]["volumes"]
        if volume.startswith("./")
    }
    given = values(COMMANDS["serving-batching"])
    assert {value for value in given.values() if value.startswith("/")} <= mounted
    (made,) = manifest("base/kustomization.yaml")["configMapGenerator"]
    assert {f"/config/{pathlib.Path(file).name}" for file in made["files"]} == mounted


def test_one_bad_version_does_not_hold_the_others():
    given = values(COMMANDS["serving"])
    assert int(given["num_load_threads"]) >= 2
    waits = int(given["max_num_load_retries"]) * int(given["load_retry_interval_micros"])
    assert waits <= 60e6


# Text protos.


@pytest.mark.parametrize("file", ["models.config", "models.canary.config"])
def test_models_config(file):
    message = config_files.read(SERVING / file, "ModelServerConfig")
    models = message.model_config_list.config
    assert [model.name for model in models] == ["recommender", "encoder"]
    for model in models:
        assert model.base_path == f"/models/{model.name}"
        assert model.model_platform == "tensorflow"


def test_a_fresh_export_starts_without_labels():
    message = config_files.read(SERVING / "models.config", "ModelServerConfig")
    for model in message.model_config_list.config:
        assert not model.version_labels
        assert not model.HasField("model_version_policy")


def test_labels_of_the_canary_name_versions_that_are_loaded():
    message = config_files.read(SERVING / "models.canary.config", "ModelServerConfig")
    for model in message.model_config_list.config:
        assert set(model.version_labels) == {"stable", "canary"}
        loaded = set(model.model_version_policy.specific.versions)
        assert set(model.version_labels.values()) == loaded
        assert len(loaded) == 2


def test_batching_config():
    read = batching_parameters.read(SERVING / "batching.config")
    assert read.pad_variable_length_inputs
    assert read.enable_large_batch_splitting
    message = config_files.read(SERVING / "batching.config", "BatchingParameters")
    # A batch is refused as a whole where it has more rows than a model takes, and so is a request
    # that is not split; the last of the sizes would have to equal both.
    limits = (RECOMMENDER_LIMITS.rows, ENCODER_LIMITS.rows)
    assert read.max_execution_batch_size <= min(limits)
    assert read.max_request_size == max(limits)
    assert not message.allowed_batch_sizes


def test_monitoring_is_where_everyone_looks():
    path = metrics.read_path(SERVING / "monitoring.config")
    scrape = yaml.safe_load((SERVING / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert [job["metrics_path"] for job in scrape] == [path]
    annotations = pod()["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert annotations["prometheus.io/port"] == values(COMMANDS["kubernetes"])["rest_api_port"]


# Compose.


def test_images_are_named_in_one_place():
    """By a version; compose reads them there, and copies are as `release.images` writes them."""
    named = images.read_images()
    for image in named.values():
        assert re.match(r"v?\d+\.\d+\.\d+", image.tag), image
    asked = [service["image"] for service in COMPOSE["services"].values()]
    gateway = yaml.safe_load((SERVING / "gateway/docker-compose.yml").read_text("utf-8"))
    asked += [gateway["services"]["redis"]["image"]]
    pattern = re.compile(r"\$\{(\w+):\?is in serving/deploy/\.env\}")
    variables = {pattern.fullmatch(image)[1] for image in asked}
    assert variables | set(images.COPIES) == set(named)
    assert images.differing() == []
    # No tag beside it, as kustomize would keep that one where a digest stands.
    assert container()["image"] == "tensorflow/serving"


def test_no_image_is_named_elsewhere():
    """What is built here has no version; everything else is one of those in .env."""
    named = images.read_images().values()
    known = {one.name for one in named} | set(map(str, named))
    known |= {"mmrec-gateway", "mmrec-gateway:latest", "mmrec-tuning"}
    for path in [*MANIFESTS, *SERVING.rglob("docker-compose.yml"), *SERVING.rglob("Dockerfile")]:
        text = path.read_text("utf-8")
        for found in re.findall(r"^(?:FROM|\s*(?:- )?image:) (\S+)", text, re.MULTILINE):
            assert found in known or found.startswith("${"), (path.name, found)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_of_compose_have_no_more_rights_than_they_need(name):
    service = COMPOSE["services"][name]
    user, _, _ = service["user"].partition(":")
    assert int(user) > 0
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True and service.get("privileged", False) is False
    assert service["mem_limit"] and service["pids_limit"] > 0
    assert any(mount.startswith("/tmp:size=") for mount in service["tmpfs"])
    assert set(service["networks"]) == {"serving", "published"}
    # Beside a volume of its own, a service writes to memory only.
    volumes = [v for v in service["volumes"] if not v.endswith(":ro")]
    assert set(volumes) <= {f"{volume}:/{volume}" for volume in COMPOSE["volumes"]}


def test_compose_gives_the_server_the_rights_of_the_pod():
    rights, service = pod()["spec"]["securityContext"], COMPOSE["services"]["serving"]
    assert service["user"] == f"{rights['runAsUser']}:{rights['runAsGroup']}"
    memory = container()["resources"]["limits"]["memory"]
    assert service["mem_limit"] == memory.lower().removesuffix("i")


def test_nothing_calls_out():
    policy = manifest("base/networkpolicy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == []
    networks = COMPOSE["networks"]
    assert networks["serving"] == {"internal": True}
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    assert networks["published"]["driver_opts"] == {masquerade: "false"}


def test_files_that_compose_mounts_exist():
    mounted = [v for s in COMPOSE["services"].values() for v in s["volumes"] if v[:2] == "./"]
    assert len(mounted) > 6
    missing = {v for v in mounted if not (SERVING / v.split(":")[0]).is_file()}
    assert missing == set()


def test_compose_listens_on_loopback_only():
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_asks_the_servers():
    services = COMPOSE["services"]
    (job,) = yaml.safe_load((SERVING / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in services
    assert port == values(COMMANDS["serving"])["rest_api_port"]
    assert host in services["serving-batching"]["networks"]["serving"]["aliases"]


def test_grafana_finds_prometheus_and_the_dashboard():
    (source,) = yaml.safe_load((SERVING / "grafana/datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE["services"]
    used = set(re.findall(r'"uid": "([^"]+)"', json.dumps(DASHBOARD["panels"])))
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((SERVING / "grafana/dashboards.yml").read_text())["providers"]
    targets = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/dashboard.json" in targets


# Alerts and the dashboard.


def queries() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]}
    for panel in DASHBOARD["panels"]:
        for number, target in enumerate(panel.get("targets", [])):
            found[f"{panel['title']} {number}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        found[variable["name"]] = variable["query"]["query"]
    return found


QUERIES = queries()


def test_alerts_and_panels_have_names_of_their_own():
    alerts = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    panels = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(alerts)) == len(alerts) >= 5
    assert len(set(panels)) == len(panels) >= 10


@pytest.mark.parametrize("query", QUERIES)
def test_queries_use_metrics_that_are_written(query):
    text = QUERIES[query]
    named = set(re.findall(r":[a-z][\w:]*", re.sub(r'"[^"]*"', "", text)))
    assert named - set(METRICS) == set()
    assert named or re.search(r"\bup\{", text)


@pytest.mark.parametrize("query", QUERIES)
def test_queries_use_labels_that_the_metric_has(query):
    text = QUERIES[query]
    for metric, matchers in re.findall(r"(:[a-z][\w:]*)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+) *[=!]~?", matchers)) - METRICS[metric] == set(), metric
    of_all = set().union(*(METRICS[m] for m in re.findall(r":[a-z][\w:]*", text)), {"instance"})
    for labels in re.findall(r"by \(([^)]*)\)", text):
        assert {label.strip() for label in labels.split(",")} - of_all == set()


@pytest.mark.parametrize("query", QUERIES)
def test_brackets_close(query):
    text = QUERIES[query]
    for opening, closing in ("()", "[]", "{}"):
        assert text.count(opening) == text.count(closing)


@pytest.mark.parametrize("query", [q for q in QUERIES if "histogram_quantile" in QUERIES[q]])
def test_quantiles_are_of_buckets(query):
    assert re.search(r"sum by \(le\b", QUERIES[query])
    assert set(re.findall(r":[a-z][\w:]*", QUERIES[query])) <= {f"{m}_bucket" for m in HISTOGRAMS}


def test_a_counter_is_only_asked_for_its_growth():
    """But for `_count` of what happens once a version, which is shown or compared as it is."""
    once = ("load_attempt_count", "model_warmup_latency")
    for title, text in QUERIES.items():
        for place in re.finditer(r":[a-z][\w:]*", text):
            if title == "model" or any(metric in place[0] for metric in once):
                continue
            assert text[: place.start()].endswith("rate("), title


def test_the_local_server_writes_the_same_metrics():
    lines = re.findall(r"# TYPE (\S+) (\w+)", metrics.Metrics().text())
    written = dict(lines)
    assert {name for name, kind in written.items() if kind == "counter"} >= set(COUNTERS)
    assert {name for name, kind in written.items() if kind == "histogram"} >= set(HISTOGRAMS)


def test_alerts_name_models_that_are_configured():
    message = config_files.read(SERVING / "models.config", "ModelServerConfig")
    models = "|".join(model.name for model in message.model_config_list.config)
    named = [m for q in QUERIES.values() for m in re.findall(r'model_name=~"([^"$]+)"', q)]
    assert named
    assert set(named) == {models}


def test_alerts_look_at_the_job_that_is_scraped():
    (job,) = yaml.safe_load((SERVING / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    named = [j for q in QUERIES.values() for j in re.findall(r'\bjob="([^"]+)"', q)]
    assert set(named) == {job["job_name"]}


def test_alerts_say_how_bad_and_what():
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert set(rule["annotations"]) == {"summary", "description"}


# Kubernetes.


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_manifests_are_one_object_each(path):
    (document,) = yaml.safe_load_all(path.read_text("utf-8"))
    assert document["apiVersion"] and document["kind"]


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_manifests_are_reachable(path):
    if path.name == "kustomization.yaml":
        return
    kustomization = yaml.safe_load((path.parent / "kustomization.yaml").read_text("utf-8"))
    assert path.name in kustomization["resources"]


@pytest.mark.parametrize("variant", ["base", "cpu", "gpu"])
def test_what_kustomizations_name_exists(variant):
    kustomization = manifest(f"{variant}/kustomization.yaml")
    files = [f for made in kustomization.get("configMapGenerator", []) for f in made["files"]]
    for path in [*kustomization["resources"], *files]:
        assert (KUBERNETES / variant / path).exists(), path


def test_configs_are_the_files_themselves():
    """No copy that could differ: the map is made of the files that compose mounts."""
    (made,) = manifest("base/kustomization.yaml")["configMapGenerator"]
    files = {(BASE / file).resolve() for file in made["files"]}
    assert files == {
        SERVING / "models.config",
        SERVING / "batching.config",
        SERVING / "monitoring.config",
    }
    assert not [path for path in MANIFESTS if "kind: ConfigMap" in path.read_text("utf-8")]


def test_a_moved_label_does_not_replace_the_pods():
    kustomization = manifest("base/kustomization.yaml")
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}
    (made,) = kustomization["configMapGenerator"]
    sources = {v["name"]: v for v in pod()["spec"]["volumes"]}
    assert sources["config"]["configMap"]["name"] == made["name"]
    assert not [mount for mount in container()["volumeMounts"] if "subPath" in mount]


def test_selectors_match_the_pods():
    labels = pod()["metadata"]["labels"].items()
    spec = deployment()["spec"]
    selectors = [
        spec["selector"]["matchLabels"],
        *(c["labelSelector"]["matchLabels"] for c in pod()["spec"]["topologySpreadConstraints"]),
        manifest("base/service.yaml")["spec"]["selector"],
        manifest("base/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("base/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_autoscaler_scales_the_deployment():
    spec = manifest("cpu/horizontalpodautoscaler.yaml")["spec"]
    made = deployment()
    assert spec["scaleTargetRef"] == {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": made["metadata"]["name"],
    }
    # An autoscaler and a fixed number would undo each other at every apply.
    assert "replicas" not in made["spec"]
    # A share of the requested cores, so that these have to be named.
    assert container()["resources"]["requests"]["cpu"]


def test_gpus_are_asked_for():
    steps = {step["path"]: step["value"] for step in gpu_patch()}
    assert steps["/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu"] == 1
    assert {"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"} in steps[
        "/spec/template/spec/containers/0/env"
    ]
    # `add` would replace these, were they there.
    assert "env" not in container()
    assert "tolerations" not in pod()["spec"]
    (replicas,) = manifest("gpu/kustomization.yaml")["replicas"]
    assert replicas == {"name": deployment()["metadata"]["name"], "count": 2}


def test_ports_are_those_of_the_flags():
    given = values(COMMANDS["kubernetes"])
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": int(given["port"]), "rest": int(given["rest_api_port"])}
    service = {p["port"]: p["targetPort"] for p in manifest("base/service.yaml")["spec"]["ports"]}
    assert {port: ports[target] for port, target in service.items()} == {8500: 8500, 8501: 8501}
    allowed = {
        port["port"]
        for rule in manifest("base/networkpolicy.yaml")["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert allowed == set(ports.values())
    for published in COMPOSE["services"]["serving"]["ports"]:
        assert int(published.rsplit(":")[-1]) in ports.values()


def test_probes():
    """All ask for an answer: a server whose threads are all held still takes connections."""
    made = container()
    assert values(made["args"])["enable_grpc_healthcheck_service"] == "true"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert made[probe]["grpc"] == {"port": made["ports"][0]["containerPort"]}
    # A busy server may refuse a call: that must not end it.
    patience = made["livenessProbe"]
    assert patience["failureThreshold"] * patience["periodSeconds"] >= 120


def test_nobody_is_cut_off_by_an_update():
    rolling = deployment()["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0
    assert rolling["maxSurge"] >= 1
    command, seconds = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert int(seconds) < pod()["spec"]["terminationGracePeriodSeconds"]
    given = values(container()["args"])["grpc_channel_arguments"].split(",")
    age = {key: int(value) / 1000 for key, value in (pair.split("=") for pair in given)}
    # gRPC spreads the age by a tenth.
    lasts = 1.1 * age["grpc.max_connection_age_ms"] + age["grpc.max_connection_age_grace_ms"]
    assert lasts < int(seconds)


def test_the_server_has_no_more_rights_than_it_needs():
    assert pod()["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod()["spec"]["securityContext"]["runAsUser"] > 0
    assert pod()["spec"]["automountServiceAccountToken"] is False
    rights = container()["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}


def test_volumes():
    claim = manifest("base/persistentvolumeclaim.yaml")["metadata"]["name"]
    volumes = {volume["name"]: volume for volume in pod()["spec"]["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    assert set(mounts) == set(volumes)
    message = config_files.read(SERVING / "models.config", "ModelServerConfig")
    for model in message.model_config_list.config:
        assert model.base_path.startswith(mounts["models"]["mountPath"] + "/")
    memory = container()["resources"]
    assert memory["requests"]["memory"] == memory["limits"]["memory"]


def verifying() -> dict:
    (patch,) = manifest("verified/kustomization.yaml")["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": deployment()["metadata"]["name"]}
    (step,) = yaml.safe_load(patch["patch"])
    (made,) = step["value"]
    return made


def test_the_container_that_verifies_has_the_server_s_image_and_rights():
    made, server = verifying(), container()
    assert made["image"] == server["image"]
    # `base` gives a tag to what it holds itself; this container comes later.
    (copied,) = manifest("verified/kustomization.yaml")["replacements"]
    assert copied["source"]["fieldPath"] == "spec.template.spec.containers.0.image"
    assert copied["targets"][0]["fieldPaths"] == ["spec.template.spec.initContainers.0.image"]
    assert made["securityContext"] == server["securityContext"]
    (mount,) = made["volumeMounts"]
    assert mount in server["volumeMounts"] and mount["readOnly"]


def test_it_stops_a_server_whose_export_is_not_as_it_was_published(tmp_path):
    folder = tmp_path / "encoder" / "3"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"a model")
    (folder / "variables" / "data file").write_bytes(b"numbers")
    write_checksums(folder)
    (folder / "SHA256SUMS.sig").write_bytes(b"a signature")
    (tmp_path / "encoder" / ".versions").write_text("3\n")
    (tmp_path / "encoder" / ".4.partial").mkdir()
    made = verifying()

    def run() -> subprocess.CompletedProcess[str]:
        command = [*made["command"], *made["args"]]
        environment = {**os.environ, "MODELS": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    (folder / "saved_model.cpb").write_bytes(b"another model")
    done = run()
    assert done.returncode == 1 and "other files than SHA256SUMS lists" in done.stderr
    (folder / "saved_model.cpb").unlink()
    (folder / "saved_model.pb").write_bytes(b"b model")
    assert run().returncode == 1
    (folder / "SHA256SUMS").unlink()
    assert run().returncode == 1
