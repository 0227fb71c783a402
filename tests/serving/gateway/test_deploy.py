"""Files for compose, Kubernetes and Prometheus that have to fit the gateway."""

import json
import pathlib
import re

import pytest
import yaml

from mmrec_tf.errors import ConfigError
from serving.gateway import serve
from serving.gateway.http.metrics import Metrics
from serving.gateway.night import command, drain
from serving.gateway.stores import is_redis, open_store

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "serving/deploy"


def read(path: str):
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


COMPOSE = read("gateway/docker-compose.yml")["services"]
PODS = {
    "deployment": read("kubernetes/gateway/deployment.yaml")["spec"]["template"]["spec"],
    "redis": read("kubernetes/gateway/redis-statefulset.yaml")["spec"]["template"]["spec"],
    "cronjob": read("kubernetes/gateway/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ],
}


def test_flags_are_those_of_the_command():
    kubernetes = PODS["deployment"]["containers"][0]["args"]
    compose = COMPOSE["gateway"]["command"]
    for flags in (kubernetes, compose):
        options = serve.parser().parse_args(flags)
        assert options.keys and options.host == "0.0.0.0" and options.state == "@/secrets/redis-url"
    # The same but for the address.
    assert kubernetes[1:] == compose[1:]
    job = PODS["cronjob"]["containers"][0]["args"]
    exported = command.parser().parse_args(job[1:])
    (moving,) = PODS["cronjob"]["initContainers"]
    moved = drain.parser().parse_args(moving["args"][1:])
    assert job[0] == "export" and moving["args"][0] == "drain" and exported.overwrite
    assert (moved.state, moved.log) == (exported.state, exported.log)


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_more_rights_than_they_need(name):
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # Secrets come as files.
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        assert "env" not in container and "secrets" in mounts


@pytest.mark.parametrize("name", ["gateway", "redis"])
def test_services_of_compose_have_no_more_rights_than_they_need(name):
    service = COMPOSE[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert int(service["user"].split(":")[0]) > 0 and "environment" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_policies_let_through_what_is_asked():
    policy = read("kubernetes/gateway/networkpolicy.yaml")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {8500, 6379, 53} and policy["policyTypes"] == ["Ingress", "Egress"]
    assert read("kubernetes/gateway/redis-networkpolicy.yaml")["spec"]["egress"] == []
    labels = read("kubernetes/gateway/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert labels["mmrec-serving/client"] == "true"


def test_the_dashboard_uses_metrics_that_are_written():
    board = json.loads((DEPLOY / "grafana/gateway.json").read_text("utf-8"))
    text = " ".join(t["expr"] for p in board["panels"] for t in p.get("targets", ()))
    asked = set(re.findall(r"mmrec_gateway_\w+", text))
    assert len(asked) >= 8 and asked <= written()
    titles = [panel["title"] for panel in board["panels"]]
    assert len({*titles}) == len(titles) and board["uid"] == "mmrec-tf-gateway"
    sources = {t["datasource"]["uid"] for p in board["panels"] for t in p.get("targets", ())}
    (source,) = read("grafana/datasources.yml")["datasources"]
    assert sources == {source["uid"]}
    mounted = [volume.split(":")[0] for volume in COMPOSE["grafana"]["volumes"]]
    assert mounted == ["./grafana/gateway.json"]


def written() -> set[str]:
    text = Metrics().text(fresh=0, waiting=0, broken=0).decode()
    names = set(re.findall(r"# TYPE (\S+) ", text))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


def test_alerts_use_metrics_that_are_written():
    rules = [rule for group in read("gateway/alerts.yml")["groups"] for rule in group["rules"]]
    for rule in rules:
        named = set(re.findall(r"mmrec_gateway_\w+", rule["expr"]))
        assert named - written() == set() and (named or "up{" in rule["expr"])
        assert rule["labels"]["severity"] in ("page", "ticket")
    jobs = [job["job_name"] for job in read("gateway/prometheus.yml")["scrape_configs"]]
    assert jobs == ["tensorflow-serving", "mmrec-gateway"]


def test_a_state_may_be_named_by_a_file(tmp_path):
    path = tmp_path / "redis-url"
    path.write_text("redis://:secret@host:6379/0\n")
    assert is_redis(f"@{path}") and open_store(f"@{path}").where == "host:6379/0"
    with pytest.raises(ConfigError, match="cannot be read"):
        open_store(f"@{tmp_path}/none")
    with pytest.raises(ConfigError, match="wanted a file, or redis") as caught:
        open_store("mysql://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EXPORT", "--host", "0.0.0.0"], "wanted loopback where no --keys are asked for"),
        (["EXPORT", "--address", "a:1"], "wanted an EXPORT to serve, or the --address"),
        ([], "wanted an EXPORT to serve, or the --address"),
        (["EXPORT", "--arms", "a=0.5,b=0.5"], "labels are of a server's models.config"),
        (["--address", "a:1", "--arms", "a=0.5,b=0.6"], "wanted shares above 0 that sum to 1"),
        (["--address", "a:1", "--arms", "stable"], "wanted a share of users for each label"),
        (["EXPORT", "--spool", "s.db"], "--spool: has no effect beside a SQLite file"),
        (["EXPORT", "--keys", "k.json", "--page"], "--page: has no keys to send"),
        (["EXPORT", "--exploration", "2"], "exploration: wanted 0 to 1; got 2.0"),
        (["EXPORT", "--temperature", "0"], "temperature: wanted more than 0; got 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        serve.run(serve.parser().parse_args(arguments))
