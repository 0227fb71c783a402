"""`python -m serving.gateway night` and `decide`: from the log to a canary, and what becomes of it.

Each night has a folder, whose steps are each done once: what was killed goes on where it was.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mmrec_tf.errors import ConfigError, ServingError
from mmrec_tf.records.files import hold_folder, read_json, replace_file, write_json
from serving.gateway.lists.requests import now_ms
from serving.gateway.night.labels import CANARY, MODELS, STABLE, Labels
from serving.gateway.store.records import DISLIKING, LIKING

# Calls a module with arguments, as `python -m` does; returns its status and what it printed.
Call = Callable[[str, Sequence[str]], tuple[int, str]]
_LOAD_SECONDS = 300.0
HELD_OUT = "interactions.split.csv"
# Of what users found by themselves, for valid and for test each; of fewer nothing can be said.
_HELD_OUT_SHARE = 0.15
_FEWEST_HELD_OUT = 30
_WEIGHTS = ",".join(
    [f"{name}=1" for name in ("seed", *LIKING)] + [f"{name}=0" for name in DISLIKING]
)


def night_parser() -> argparse.ArgumentParser:
    """The options of `night`."""
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway night",
        description="Exports the log, prepares it, trains from the run that is served, compares "
        "the two, exports and checks the new version, and labels it canary. A run that is worse "
        "goes no further. Given again after a kill, it goes on.",
    )
    _common(made)
    made.add_argument("--dataset", required=True, metavar="DIR", help="that seeded the state")
    made.add_argument("--run", required=True, metavar="RUN", help="served first of all")
    made.add_argument("--export", required=True, metavar="DIR", help="where versions are published")
    made.add_argument(
        "--until", type=int, metavar="N", help="the last place in the log that counts"
    )
    made.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="as of mmrec-tf train"
    )
    made.add_argument(
        "--prepare", action="append", default=[], metavar="OPTION", help="more for data.prepare"
    )
    made.add_argument("--tolerance", type=float, default=0.0, help="of the gate (%(default)s)")
    made.add_argument(
        "--despite-gate", action="store_true", help="try also a version that the gate refuses"
    )
    return made


def decide_parser() -> argparse.ArgumentParser:
    """The options of `decide`."""
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway decide",
        description="Compares the users of the canary with the others, since it is one: promotes "
        "it, or rolls back to the stable version where its users click less for certain.",
    )
    _common(made)
    made.add_argument("--arms", required=True, metavar="LABEL=SHARE,...", help="as of the gateway")
    return made


def _common(made: argparse.ArgumentParser) -> None:
    made.add_argument("--state", default="gateway.db", help="as of the gateway (%(default)s)")
    made.add_argument("--log", metavar="FILE", help="moves the log of a Redis here first")
    made.add_argument("--work", required=True, metavar="DIR", help="a folder for each night")
    made.add_argument("--models-config", required=True, metavar="FILE", help="of the server")
    made.add_argument("--address", required=True, metavar="HOST:PORT", help="of the server")


def run_night(options: argparse.Namespace) -> int:
    """Runs one night; returns 0, or 3 where the gate refused."""
    work = pathlib.Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    with hold_folder(work, ConfigError, "runs a night"):
        told = Nights(options, call).night()
    print(json.dumps(told))
    return 3 if told["state"] == "refused" else 0


def run_decide(options: argparse.Namespace) -> int:
    """Decides on the newest canary."""
    with hold_folder(pathlib.Path(options.work), ConfigError, "runs a night"):
        told = Nights(options, call).decide()
    print(json.dumps(told))
    return 0


def call(module: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs a command of this project in a process of its own; what it says passes through."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
    )
    return done.returncode, done.stdout


class Nights:
    """The folder of all nights: `001/`, `002/`..., each with `night.json`."""

    def __init__(self, options: argparse.Namespace, call: Call):
        """Describes it.

        Args:
          options: of `night_parser` or `decide_parser`.
          call: Call.
        """
        self._options, self._run = options, call
        self._work = pathlib.Path(options.work)
        self._labels = Labels(options.models_config)

    def told(self) -> list[dict[str, Any]]:
        """What is known of each night so far."""
        return [read_json(path) for path in sorted(self._work.glob("[0-9]*/night.json"))]

    def served(self) -> str:
        """The run behind the stable version."""
        promoted = [one["run"] for one in self.told() if one["state"] == "promoted"]
        return str(promoted[-1] if promoted else self._options.run)

    def night(self) -> dict[str, Any]:
        """Everything up to the canary; returns what `night.json` holds.

        Raises:
          ConfigError: while a canary waits for a decision, or without a stable version.
          ServingError: when a command fails, or the server does not load the version.
        """
        before = self.told()
        if before and before[-1]["state"] == CANARY:
            raise ConfigError(f"version {before[-1]['version']} is a canary still; decide first.")
        stable = self._labels.read().get(STABLE)
        if stable is None:
            raise ConfigError(
                f"{self._labels.path}: wanted the label {STABLE}, of the version that is served."
            )
        going = before and before[-1]["state"] == "begun"
        told: dict[str, Any] = {"night": len(before) + 1, "state": "begun"}
        if going:
            told = before[-1]
        folder = self._work / f"{told['night']:03d}"
        told |= {"run": str(folder / "run"), "incumbent": self.served(), "stable": stable}
        _keep(folder, told)
        self._learn(folder, told)
        status = self._gate(folder, told)
        if status and not self._options.despite_gate:
            return _keep(folder, {**told, "state": "refused"})
        self._publish(folder, told)
        self._labels.move(**{CANARY: told["version"]})
        return _keep(folder, {**told, "state": CANARY, "since": now_ms()})

    def _learn(self, folder: pathlib.Path, told: dict[str, Any]) -> None:
        options = self._options
        tables, dataset, run = (folder / name for name in ("tables", "dataset", "run"))
        if not tables.exists():
            if options.log is not None:
                asked = ["drain", "--state", options.state, "--log", options.log]
                self._must("serving.gateway", asked)
            asked = ["export", "--state", options.state, "--dataset", options.dataset]
            cut = [] if options.until is None else ["--until", str(options.until)]
            self._must("serving.gateway", [*asked, "--out", str(tables), *cut, *self._logged()])
        told["log"] = read_json(tables / "export.json")
        if not dataset.exists():
            hold_out(tables)
            asked = [*prepare_arguments(tables), *options.prepare, "--out", str(dataset)]
            self._must("data.prepare", asked)
        told["dataset_sha256"] = read_json(dataset / "manifest.json")["sha256"]
        if not (run / "metrics.json").exists():
            sets = [part for one in options.set for part in ("--set", one)]
            asked = ["train", "--dataset", str(dataset), "--from", told["incumbent"]]
            self._must("mmrec_tf", [*asked, "--out", str(run), "--no-report", *sets])

    def _gate(self, folder: pathlib.Path, told: dict[str, Any]) -> int:
        out = folder / "gate.json"
        if not out.exists():
            asked = ["gate", told["run"], "--incumbent", told["incumbent"], "--out", str(out)]
            asked += ["--tolerance", str(self._options.tolerance)]
            self._must("serving.gateway", asked, also=(3,))
        told["gate"] = read_json(out)
        return 0 if told["gate"]["passed"] else 3

    def _publish(self, folder: pathlib.Path, told: dict[str, Any]) -> None:
        export = pathlib.Path(self._options.export)
        if "version" not in told:
            # Taken down before it is written, so that a kill does not publish a second one.
            told["version"] = 1 + max(
                [int(p.name) for p in export.glob("*/*") if p.name.isdigit()], default=0
            )
            _keep(folder, told)
        version = told["version"]
        if not all((export / model / str(version)).exists() for model in MODELS):
            asked = ["export", told["run"], "--out", str(export), "--version", str(version)]
            withdrawn = folder / "tables" / "withdrawn.txt"
            if withdrawn.stat().st_size:
                asked += ["--unavailable", str(withdrawn)]
            self._must("mmrec_tf", asked)
        self._must("serving.check", [str(export)])
        self._labels.load(version)
        self._await(version)

    def _await(self, version: int) -> None:
        """Waits until the server has a version of both models loaded."""
        end = time.monotonic() + _LOAD_SECONDS
        wanted = {f"{model}/{version}\tAVAILABLE" for model in MODELS}
        while True:
            _, said = self._run("serving.client", ["status", "--address", self._options.address])
            if wanted <= {line.rstrip() for line in said.splitlines()}:
                return
            if time.monotonic() > end:
                raise ServingError(
                    f"{self._options.address}: wanted version {version} of both models within "
                    f"{_LOAD_SECONDS:.0f} seconds; it has\n{said}"
                )
            time.sleep(0.5)

    def decide(self) -> dict[str, Any]:
        """Promotes the canary, or rolls back; returns what `night.json` holds.

        Raises:
          ConfigError: without a canary, or as `estimate --arms` refuses a comparison.
        """
        before = self.told()
        if not before or before[-1]["state"] != CANARY:
            raise ConfigError("wanted a canary to decide on; run the night first.")
        told = before[-1]
        options = self._options
        asked = ["estimate", "--state", options.state, "--arms", options.arms, "--json"]
        asked += ["--since", str(told["since"]), *self._logged()]
        said = self._must("serving.gateway", asked)
        told["canary"] = json.loads(said)
        (compared,) = [one for one in told["canary"]["compared"] if one["name"] == CANARY]
        # Worse for certain; of two that are alike the one that knows more is kept.
        good = compared["high"] >= 0
        stable = told["version"] if good else told["stable"]
        self._labels.move(**{STABLE: stable, CANARY: stable})
        folder = self._work / f"{told['night']:03d}"
        return _keep(folder, {**told, "state": "promoted" if good else "rolled back"})

    def _logged(self) -> list[str]:
        return [] if self._options.log is None else ["--log", self._options.log]

    def _must(self, module: str, arguments: Sequence[str], *, also: Sequence[int] = ()) -> str:
        status, said = self._run(module, arguments)
        if status and status not in also:
            raise ServingError(
                f"python -m {module} {' '.join(arguments)} ended with {status}; it says why above."
                f"\n{said[-2000:]}".rstrip()
            )
        return said


def hold_out(tables: pathlib.Path) -> bool:
    """Writes the interactions with a split: the newest of what users found by themselves is valid
    and test.

    People click what they are shown, so clicks on lists favor the model that made the lists (Marlin
    and Zemel 2009): by them no other model would ever be better. What names no list, such as views
    from a search of the shop, does not. Pairs of a user and an item that stand there twice are
    train.

    Returns:
      Whether there are enough of them; else nothing is written, and time alone splits.
    """
    with (tables / "interactions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    times = Counter((row["user"], row["item"]) for row in rows)
    found = [
        place
        for place, row in enumerate(rows)
        if row["event"] in LIKING and not row["list"] and times[row["user"], row["item"]] == 1
    ]
    found.sort(key=lambda place: (float(rows[place]["timestamp"]), place))
    each = int(_HELD_OUT_SHARE * len(found))
    if each < _FEWEST_HELD_OUT:
        return False
    splits = dict.fromkeys(found[-2 * each : -each], "valid") | dict.fromkeys(found[-each:], "test")
    with (
        replace_file(tables / HELD_OUT) as aside,
        aside.open("w", encoding="utf-8", newline="") as f,
    ):
        names = ["user", "item", "timestamp", "event", "position", "split"]
        writer = csv.DictWriter(f, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**row, "split": splits.get(place, "train")} for place, row in enumerate(rows)
        )
    return True


def prepare_arguments(tables: pathlib.Path) -> list[str]:
    """What `data.prepare` is asked of the tables of an export of the log."""
    split = tables / HELD_OUT
    asked = ["media-folder", "--split", "given" if split.exists() else "time"]
    asked += ["--event-weights", _WEIGHTS, "--items", str(tables / "items.csv")]
    asked += ["--interactions", str(split if split.exists() else tables / "interactions.csv")]
    for kind in ("image", "audio", "video"):
        asked += [f"--{kind}", kind if (tables / kind).exists() else "none"]
    features = str(read_json(tables / "export.json")["features"])
    named = [name for name in features.split(",") if name]
    if categorical := [name for name in named if name != "price"]:
        asked += ["--item-categorical", ",".join(categorical)]
    if "price" in named:
        asked += ["--item-numeric", "price"]
    return asked


def _keep(folder: pathlib.Path, told: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "night.json", told)
    return told
