"""Files for compose, Kubernetes and Prometheus that have to fit the gateway."""

import pathlib
import re

import pytest
import yaml

from mmrec_tf.errors import ConfigError
from serving.gateway import serve
from serving.gateway.http.metrics import Metrics
from serving.gateway.night import command
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
    assert job[0] == "export" and command.parser().parse_args(job[1:]).overwrite


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_more_rights_than_they_need(name):
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Secrets come as files.
    assert "env" not in container and "secrets" in [v["name"] for v in container["volumeMounts"]]


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


def test_alerts_use_metrics_that_are_written():
    text = Metrics().text(fresh=0, waiting=0, broken=0).decode()
    written = set(re.findall(r"# TYPE (\S+) ", text))
    written |= {f"{name}_bucket" for name in written}
    rules = [rule for group in read("gateway/alerts.yml")["groups"] for rule in group["rules"]]
    for rule in rules:
        named = set(re.findall(r"mmrec_gateway_\w+", rule["expr"]))
        assert named - written == set() and (named or "up{" in rule["expr"])
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
