"""The files for Kubernetes hold together, and say what the command understands."""

import pathlib

import pytest
import yaml

from tuning import search
from tuning.space import SPACES

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "serving/deploy/kubernetes/tuning"


def read(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


PODS = {name: read(name)["spec"]["template"] for name in ("chief", "workers")}


def variables(name):
    (container,) = PODS[name]["spec"]["containers"]
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_chief_and_workers_run_one_search():
    commands = [pod["spec"]["containers"][0]["args"] for pod in PODS.values()]
    assert commands[0] == commands[1]
    options = search._parser().parse_args(commands[0])
    assert options.space in SPACES
    # What both write lies where both see it.
    for pod in PODS.values():
        (mount,) = (m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "work")
        assert options.out.startswith(mount["mountPath"] + "/")
        assert options.dataset.startswith(mount["mountPath"] + "/")


def test_workers_find_their_chief():
    chief, worker = variables("chief"), variables("workers")
    service, policy = read("service"), read("networkpolicy")["spec"]
    assert "chief" in chief["KERASTUNER_TUNER_ID"]
    assert worker["KERASTUNER_TUNER_ID"] == "worker$(INDEX)" and "INDEX" in worker
    assert worker["KERASTUNER_ORACLE_IP"] == service["metadata"]["name"]
    labels = PODS["chief"]["metadata"]["labels"]
    assert service["spec"]["selector"] == policy["podSelector"]["matchLabels"] == labels
    (port,) = service["spec"]["ports"]
    assert chief["KERASTUNER_ORACLE_PORT"] == worker["KERASTUNER_ORACLE_PORT"] == str(port["port"])
    (rule,) = policy["ingress"]
    assert rule["ports"][0]["port"] == port["port"]
    assert rule["from"][0]["podSelector"]["matchLabels"] == PODS["workers"]["metadata"]["labels"]
    assert read("workers")["spec"]["completionMode"] == "Indexed"


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_little(name):
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_kustomization_names_all_files():
    listed = set(read("kustomization")["resources"])
    assert listed == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
