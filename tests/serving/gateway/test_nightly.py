"""A night's steps, the labels that it moves, and what becomes of a canary; commands are made up."""

import argparse
import csv
import json
import pathlib
import subprocess
import sys

import pytest

from mmrec_tf.errors import ConfigError, ServingError
from serving.gateway.night.labels import Labels
from serving.gateway.night.nightly import (
    HELD_OUT,
    Nights,
    decide_parser,
    hold_out,
    night_parser,
    prepare_arguments,
)
from serving.local_server.models import models_config


def write(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def after(arguments, flag):
    return pathlib.Path(arguments[list(arguments).index(flag) + 1])


def write_interactions(folder, rows):
    names = ["user", "item", "timestamp", "event", "position", "list"]
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    (folder / "interactions.csv").write_text("\n".join([*lines, ""]))


class Commands:
    """Does what the commands leave behind; `fails` names one that ends with 1.

    Attributes:
      called: names of the commands, in order.
      passes: what the gate says.
      difference: of the canary's users, low and high.
    """

    def __init__(self):
        self.called = []
        self.fails = ""
        self.passes = True
        self.difference = (-0.1, 0.3)
        self.rows = ()

    def __call__(self, module, arguments):
        name = arguments[0] if module in ("serving.gateway", "mmrec_tf") else module
        name = "publish" if (module, name) == ("mmrec_tf", "export") else name
        self.called.append(name)
        if name == self.fails:
            return 1, "it says why"
        return getattr(self, name.replace(".", "_"))(arguments) or (0, "")

    def export(self, arguments):
        out = after(arguments, "--out")
        write(out / "export.json", {"until": 7, "features": "genre,price", "sha256": "s"})
        write_interactions(out, self.rows)
        (out / "image").mkdir()
        (out / "withdrawn.txt").write_text("i2\n")

    def data_prepare(self, arguments):
        write(after(arguments, "--out") / "manifest.json", {"sha256": "d"})

    def train(self, arguments):
        self.trained_from = str(after(arguments, "--from"))
        write(after(arguments, "--out") / "metrics.json", {})

    def gate(self, arguments):
        write(after(arguments, "--out"), {"passed": self.passes})
        return (0 if self.passes else 3), ""

    def publish(self, arguments):
        assert after(arguments, "--unavailable").read_text() == "i2\n"
        for model in ("recommender", "encoder"):
            version = arguments[arguments.index("--version") + 1]
            (after(arguments, "--out") / model / version).mkdir(parents=True)

    def serving_check(self, arguments):
        pass

    def serving_client(self, arguments):
        labels = pathlib.Path(self.config).read_text()
        versions = {int(part) for part in labels.replace("}", " ").split() if part.isdigit()}
        return 0, "".join(
            f"{model}/{n}\tAVAILABLE\n" for model in ("recommender", "encoder") for n in versions
        )

    def estimate(self, arguments):
        low, high = self.difference
        compared = {"name": "canary", "difference": (low + high) / 2, "low": low, "high": high}
        return 0, json.dumps(
            {"since": int(after(arguments, "--since").name), "compared": [compared]}
        )


@pytest.fixture
def world(tmp_path):
    commands, export = Commands(), tmp_path / "export"
    for model in ("recommender", "encoder"):
        (export / model / "1").mkdir(parents=True)
    commands.config = tmp_path / "models.config"
    Labels(commands.config).create("/models", stable=1, canary=1, pinned=1)

    def nights(parser=night_parser, *more):
        asked = ["--work", str(tmp_path / "nights"), "--models-config", str(commands.config)]
        asked += ["--address", "localhost:1"]
        if parser is night_parser:
            asked += ["--dataset", "seeded", "--run", "first", "--export", str(export)]
        else:
            asked += ["--arms", "stable=0.5,canary=0.5"]
        options: argparse.Namespace = parser().parse_args([*asked, *more])
        return Nights(options, commands)

    return commands, nights, Labels(commands.config)


def test_a_night_ends_in_a_canary_that_is_promoted_and_trained_on(world):
    commands, nights, labels = world
    told = nights().night()
    assert commands.called == (
        ["export", "data.prepare", "train", "gate", "publish", "serving.check", "serving.client"]
    )
    assert told["state"] == "canary" and told["version"] == 2 and commands.trained_from == "first"
    assert labels.read() == {"stable": 1, "canary": 2, "pinned": 1}
    with pytest.raises(ConfigError, match="version 2 is a canary still; decide first"):
        nights().night()
    told = nights(decide_parser).decide()
    # Only lists since it was a canary count.
    assert told["state"] == "promoted" and told["canary"]["since"] == told["since"] > 1e12
    assert labels.read() == {"stable": 2, "canary": 2, "pinned": 1}
    with pytest.raises(ConfigError, match="wanted a canary to decide on"):
        nights(decide_parser).decide()
    nights().night()
    assert commands.trained_from.endswith("001/run") and labels.read()["canary"] == 3


def test_a_canary_whose_users_click_less_is_rolled_back(world):
    commands, nights, labels = world
    nights().night()
    commands.difference = (-0.4, -0.1)
    assert nights(decide_parser).decide()["state"] == "rolled back"
    assert labels.read() == {"stable": 1, "canary": 1, "pinned": 1}
    nights().night()
    assert commands.trained_from == "first" and labels.read()["canary"] == 3


def test_what_the_gate_refuses_is_not_published(world):
    commands, nights, labels = world
    commands.passes = False
    assert nights().night()["state"] == "refused"
    assert "publish" not in commands.called and labels.read()["canary"] == 1
    # As if nobody had looked.
    assert nights(night_parser, "--despite-gate").night()["state"] == "canary"
    assert labels.read()["canary"] == 2


@pytest.mark.parametrize("name", ["data.prepare", "train", "gate", "publish", "serving.check"])
def test_a_night_that_was_broken_off_goes_on(world, name):
    commands, nights, labels = world
    commands.fails = name
    with pytest.raises(ServingError, match="ended with 1; it says why above.\nit says why"):
        nights().night()
    assert labels.read()["canary"] == 1
    before, commands.fails, commands.called = len(commands.called), "", []
    told = nights().night()
    # What was done is not done again; the check is.
    assert commands.called[0] == name and told["night"] == 1 and told["version"] == 2
    assert before + len(commands.called) - 1 == 7


def test_the_local_server_reads_the_labels(world, tmp_path):
    _, _, labels = world
    labels.load(4)
    (settings, encoder) = models_config.settings_of(models_config.read(labels.path))
    assert (settings.name, str(settings.base_path)) == ("recommender", "/models/recommender")
    assert settings.labels == {"stable": 1, "canary": 1, "pinned": 1} == encoder.labels
    assert models_config.wanted_versions(settings.policy, {1, 2, 4}) == {1, 4}
    labels.path.write_text(labels.path.read_text().replace("value: 1", "value: 2", 1))
    with pytest.raises(ConfigError, match="the same version_labels of recommender and encoder"):
        labels.read()
    with pytest.raises(ConfigError, match="none.config: cannot be read"):
        Labels(tmp_path / "none.config").read()


def test_the_canary_file_of_the_repository_can_be_moved(tmp_path):
    """With its comments, and the version that is loaded beside."""
    source = pathlib.Path(__file__).resolve().parents[3] / "serving/deploy/models.canary.config"
    path = tmp_path / "models.config"
    path.write_text(source.read_text())
    labels = Labels(path)
    assert labels.read() == {"stable": 1, "canary": 2}
    labels.move(stable=2)
    assert labels.read() == {"stable": 2, "canary": 2} and "/models/encoder" in path.read_text()


def test_tables_are_prepared_with_what_they_hold(tmp_path):
    Commands().export(["export", "--out", str(tmp_path)])
    asked = prepare_arguments(tmp_path)
    assert asked[asked.index("--image") + 1] == "image"
    assert asked[asked.index("--audio") + 1] == "none"
    assert asked[asked.index("--item-categorical") + 1] == "genre"
    assert asked[asked.index("--item-numeric") + 1] == "price"
    weights = asked[asked.index("--event-weights") + 1]
    assert "seed=1" in weights and "hide=0" in weights and "buy=1" in weights


def test_what_users_found_by_themselves_is_held_out(tmp_path):
    seeded = [("u1", f"i{n}", 1, "seed", "", "") for n in range(50)]
    # The newest of all, but on a list; and one that stands there twice.
    listed = [("u1", f"j{n}", 999, "click", 0, "l") for n in range(50)]
    twice = [("u2", "i0", 900 + n, "view", "", "") for n in range(2)]
    own = [("u3", f"i{n}", 100 + n, "view", "", "") for n in range(200)]
    write_interactions(
        tmp_path, [*own, *seeded, *listed, *twice, ("u4", "i1", 950, "hide", "", "")]
    )
    assert hold_out(tmp_path)
    with (tmp_path / HELD_OUT).open(newline="") as file:
        rows = list(csv.DictReader(file))
    held = {
        split: [row["item"] for row in rows if row["split"] == split] for split in ("valid", "test")
    }
    assert held["valid"] == [f"i{n}" for n in range(140, 170)]
    assert held["test"] == [f"i{n}" for n in range(170, 200)]
    assert len(rows) == 303 and {row["user"] for row in rows if row["split"] != "train"} == {"u3"}
    (tmp_path / "export.json").write_text('{"features": ""}')
    asked = prepare_arguments(tmp_path)
    assert asked[:3] == ["media-folder", "--split", "given"] and str(tmp_path / HELD_OUT) in asked


def test_of_few_time_alone_splits(tmp_path):
    write_interactions(tmp_path, [("u3", f"i{n}", 100 + n, "view", "", "") for n in range(150)])
    assert not hold_out(tmp_path) and not (tmp_path / HELD_OUT).exists()


@pytest.mark.slow
def test_the_loop_learns_in_small(tmp_path):
    """One night of the benchmark, through real commands, servers and a gateway."""
    out = tmp_path / "nights.json"
    asked = ["--work", str(tmp_path / "work"), "--out", str(out), "--users", "220", "--items"]
    asked += ["60", "--new-items", "4", "--nights", "1", "--epochs", "1", "--no-spoiled"]
    # It forks, which a process that has run TensorFlow must not.
    command = [sys.executable, "-m", "benchmarks.bench_nights", *asked]
    subprocess.run(command, cwd=pathlib.Path(__file__).resolve().parents[3], check=True)
    told = json.loads(out.read_text())
    assert [night["state"] for night in told["nights"]][0] in ("promoted", "rolled back", "refused")
    assert told["new_items_share_of_impressions"]["learning"] > 0
    assert 0 < told["recall_of_the_truth"]["frozen"] <= 1
