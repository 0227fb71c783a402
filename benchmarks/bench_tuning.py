"""Can a search be trusted? Writes benchmarks/results/tuning_PART.json.

    python -m benchmarks.bench_tuning kills --work work/tuning
    python -m benchmarks.bench_tuning hyperband --work work/tuning
    python -m benchmarks.bench_tuning workers --work work/tuning
    python -m benchmarks.bench_tuning machines --work work/tuning
    python -m benchmarks.bench_tuning context --dataset work/context --work work/tuning
    python -m benchmarks.bench_tuning bayesian small --dataset work/toy --work work/tuning

- `kills`: a search of each strategy is killed with SIGKILL at a random moment, 10 times, and given
  again. It has to end with the trials and the best config of one that is left alone; no trial may
  be there twice, and none that was done may be done again.
- `hyperband`: what each trial trained, epoch by epoch. The epochs of a promoted trial begin with
  those of the one that it goes on from, and the whole is what one training would have been.
- `workers`: a grid by one worker and by two, with the wall time of both; then one of two is killed
  in the middle of a trial, which another has to do.
- `machines`: a chief and two workers by KerasTuner's variables, as on three machines; one worker is
  killed and not started again, so that the other has to do its trial.
- `context`: a grid of `ranking.architecture` on the planted world where the hour says who likes
  what (`data.prepare synthetic --users 2000 --items 500 --context-effect 3`).
- `bayesian NAME`: from the default config, with the encoders of examples/NAME.json, a Gaussian
  process searches a ready-made space; the default is the first trial and the example the second.
  What the example sets and that space does not hold is added to it, and said. The best on valid is
  trained anew, and measured once on test. Retrieval alone is trained: of the example, too.

All but `kills` go on where they were stopped. The result is written when the part is done.
"""

import argparse
import contextlib
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

from benchmarks import commands, kills
from benchmarks.facts import ROOT, facts
from benchmarks.processes import free_port, must, wait_until
from mmrec_tf.config import read_settings
from mmrec_tf.records.files import write_json
from tuning import space as spaces

RESULTS = ROOT / "benchmarks" / "results"
STRATEGIES = ("random", "bayesian", "hyperband", "grid")
# What the default config cannot do without: what is read, by which encoders, and how it is judged.
READ = ("modalities", "text", "image", "audio", "video")
JUDGED = ("epochs", "monitor", "patience")
# A world whose trials take seconds.
WORLD = "--users 600 --items 300".split()
GRID = {
    "dim": {"choice": [16, 32]},
    "training.learning_rate": {"choice": [1e-3, 3e-3, 1e-2, 3e-2]},
}
# A small text model without ranking, that trains as long as it is told.
QUICK = {
    **{name: value for name, value in kills.SETTINGS.items() if not name.startswith("ranking.")},
    "ranking.epochs": "0",
    "training.patience": "0",
}
RUNGS = {"training.learning_rate": {"float": [1e-3, 1e-1], "log": True}}
NUM_RUNGS = 9


def head(part: str, question: str, options: str = "") -> dict[str, Any]:
    """What a result begins with."""
    command = f"python -m benchmarks.bench_tuning {part} --work WORK{options}"
    return facts(question, command=command)


def settings_of(given: Mapping[str, str]) -> list[str]:
    """Settings as arguments of a command."""
    return [part for name, value in given.items() for part in ("--set", f"{name}={value}")]


@contextlib.contextmanager
def telling(out: pathlib.Path) -> Iterator[None]:
    """Prints once a minute how far a search is."""
    over = threading.Event()
    start = time.monotonic()

    def tell() -> None:
        while not over.wait(60):
            done = len(list((out / "trials").glob("trial_*/result.json")))
            minutes = (time.monotonic() - start) / 60
            print(f"{out.name}: {done} trials after {minutes:.0f} min", flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def trial_rows(out: pathlib.Path) -> list[dict[str, str]]:
    """The rows of `trials.csv`."""
    with (out / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Kills


def run_kills(parsed: argparse.Namespace) -> dict[str, Any]:
    """Each strategy killed at random moments."""
    result = head("kills", "Does a killed search lose a trial, or repeat one?")
    work = parsed.work / "kills"
    work.mkdir(parents=True, exist_ok=True)
    path, seed = RESULTS / "tuning_kills.json", 0
    each: dict[str, dict[str, Any]] = {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["commit"] == result["commit"]:
            each = before["each"]
    kills.make_base("prepare", work, result["commit"], keep=False)
    strategies: dict[str, Any] = {}
    for strategy in STRATEGIES:
        name = f"search_{strategy}"
        usual = kills.make_base(name, work, result["commit"], keep=False)["seconds"]
        trials = len(trial_rows(work / "base" / name))
        print(f"{name}: {trials} trials in {usual:.1f} s", flush=True)
        known = each.setdefault(strategy, {})
        for number in range(parsed.kills):
            if str(number) not in known:
                known[str(number)] = kills.kill(name, work, usual * kills.SLOWER, number, seed)
                print(f"{strategy} {number}: {known[str(number)]}", flush=True)
            found = list(known.values())
            strategies[strategy] = {
                "trials": trials,
                "usual_seconds": round(usual, 1),
                "kills": len(found),
                "killed_before_its_end": sum(not one["ended_before"] for one in found),
                "same_trials_and_best": sum(one["equal"] for one in found),
                **{
                    what: sum(one.get(what, 0) for one in found)
                    for what in ("trials_done_before", "trials_done_again", "duplicate_trials")
                },
                "left_over": sum(len(one["left_over"]) for one in found),
            }
            write_json(path, {**result, "strategies": strategies, "each": each})
    return {**result, "strategies": strategies, "each": each}


# Hyperband


def small_world(work: pathlib.Path) -> pathlib.Path:
    """A planted world, prepared where it is not there."""
    dataset = work / "world"
    if not (dataset / "manifest.json").exists():
        must("data.prepare", "synthetic", *WORLD, "--out", dataset)
    return dataset


def run_hyperband(parsed: argparse.Namespace) -> dict[str, Any]:
    """The epochs of each trial, and those of the same config in one go."""
    result = head("hyperband", "Do promoted trials of Hyperband go on from their checkpoints?")
    dataset, out = small_world(parsed.work), parsed.work / "hyperband"
    space = parsed.work / "space_hyperband.json"
    write_json(space, RUNGS)
    given = settings_of(QUICK)
    with telling(out):
        options = ["--strategy", "hyperband", "--max-epochs", NUM_RUNGS, *given]
        must("tuning.search", "--dataset", dataset, "--out", out, "--space", space, *options)
    trace: list[dict[str, Any]] = []
    histories: dict[str, list[dict[str, str]]] = {}
    for row in trial_rows(out):
        folder = out / "trials" / f"trial_{row['trial']}" / "seed-0" / "retrieval"
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            epochs = list(csv.DictReader(file))
        histories[row["trial"]] = epochs
        before = histories.get(row["from"], [])
        trace.append(
            {
                "trial": row["trial"],
                "learning_rate": float(row["training.learning_rate"]),
                "goes_on_from": row["from"],
                "epochs_given": int(row["epochs"]),
                "begins_with_its_epochs": epochs[: len(before)] == before,
                "epochs_trained_here": len(epochs) - len(before),
                "epochs": [
                    {"epoch": int(e["epoch"]) + 1, **_figures(e, "loss", "valid_ndcg@10")}
                    for e in epochs
                ],
            }
        )
    whole = []
    for row in trace:
        if row["goes_on_from"] and row["epochs_given"] == NUM_RUNGS:
            alone = parsed.work / "hyperband_alone" / row["trial"]
            if not (alone / "metrics.json").exists():
                shutil.rmtree(alone, ignore_errors=True)
                rate = ("--set", f"training.learning_rate={row['learning_rate']!r}")
                epochs_of = ("--set", f"training.epochs={NUM_RUNGS}")
                options = ["--no-report", *given, *rate, *epochs_of]
                must("mmrec_tf", "train", "--dataset", dataset, "--out", alone, *options)
            with (alone / "history.csv").open(newline="", encoding="utf-8") as file:
                same = list(csv.DictReader(file)) == histories[row["trial"]]
            whole.append({"trial": row["trial"], "equal_to_one_training": same})
    promoted = [row for row in trace if row["goes_on_from"]]
    return {
        **result,
        "summary": {
            "trials": len(trace),
            "promoted": len(promoted),
            "promoted_that_go_on": sum(
                row["begins_with_its_epochs"] and 0 < row["epochs_trained_here"] for row in promoted
            ),
            "epochs_trained": sum(row["epochs_trained_here"] for row in trace),
            "epochs_if_each_began_anew": sum(len(row["epochs"]) for row in trace),
            "finalists": len(whole),
            "finalists_equal_to_one_training": sum(one["equal_to_one_training"] for one in whole),
        },
        "finalists": whole,
        "trace": trace,
    }


def _figures(row: Mapping[str, str], *names: str) -> dict[str, float]:
    return {name: round(float(row[name]), 6) for name in names}


# Workers


class Watched:
    """A search with workers as a command, and which worker had which trial."""

    def __init__(
        self,
        out: pathlib.Path,
        arguments: Sequence[object],
        *,
        environment: Mapping[str, str] | None = None,
    ):
        shutil.rmtree(out, ignore_errors=True)
        self.out = out
        command = [sys.executable, "-m", "tuning.search", "--out", out, *arguments]
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.joined: dict[str, subprocess.Popen] = {}
        self.held: dict[str, list[str]] = {}

    def join(self, name: str, environment: Mapping[str, str]) -> None:
        """Starts a worker as another machine would."""
        self.joined[name] = subprocess.Popen(
            [sys.executable, "-m", "tuning.search", "--join", str(self.out)],
            cwd=ROOT,
            env={**os.environ, **environment, "KERASTUNER_TUNER_ID": name},
        )

    def look(self) -> dict[str, str]:
        """By worker the trial that it has; each change of hands is noted."""
        try:
            state = json.loads((self.out / "trials" / "oracle.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        ongoing: dict[str, str] = state["ongoing_trials"]
        processes = self.processes()
        for worker, trial in ongoing.items():
            if worker in processes:
                who = f"{worker} (process {processes[worker]})"
                had = self.held.setdefault(trial, [])
                if who not in had:
                    had.append(who)
        return ongoing

    def half_done(self) -> str:
        """Waits for a trial that has an epoch behind it and is going on; its id."""
        while self.process.poll() is None:
            found = self.out.glob("trials/trial_*/seed-0/retrieval/backup.json")
            trials = {path.parents[2].name.removeprefix("trial_") for path in found}
            going_on = trials & set(self.look().values())
            if going_on:
                return min(going_on)
            time.sleep(0.02)
        raise SystemExit(f"{self.out}: the search ended before a worker could be killed.")

    def kill_worker(self) -> dict[str, Any]:
        """Kills the worker of a trial that is half done."""
        trial = self.half_done()
        holder = next(worker for worker, held in self.look().items() if held == trial)
        process = self.processes()[holder]
        os.kill(process, signal.SIGKILL)
        return {"worker": holder, "process": process, "trial": trial}

    def processes(self) -> dict[str, int]:
        """By worker its process."""
        found = {name: process.pid for name, process in self.joined.items()}
        task = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            for process in task.read_text().split():
                said = pathlib.Path(f"/proc/{process}/environ").read_bytes().decode()
                name = re.search(r"KERASTUNER_TUNER_ID=(\w+)", said)
                if name is not None:
                    found[name[1]] = int(process)
        return found

    def finish(self) -> dict[str, Any]:
        """Waits for the end, looking; what came out."""
        while self.process.poll() is None:
            self.look()
            time.sleep(0.05)
        seconds = time.monotonic() - self.start
        said, _ = self.process.communicate()
        if self.process.returncode:
            raise SystemExit(f"{self.out}: ended with {self.process.returncode}.\n{said}")
        rows = trial_rows(self.out)
        names = [row["trial"] for row in rows]
        return {
            "wall_seconds": round(seconds, 1),
            "trial_seconds": round(sum(float(row["seconds"]) for row in rows), 1),
            "trials": len(rows),
            "completed": sum(row["status"] == "completed" for row in rows),
            "trials_twice": len(names) - len(set(names)),
            "settings_twice": len(rows) - len({tuple(row[name] for name in GRID) for row in rows}),
            "given_to": {name: self.held[name] for name in sorted(self.held)},
            "said": [line for line in said.splitlines() if "died" in line],
        }


def run_workers(parsed: argparse.Namespace) -> dict[str, Any]:
    """One worker, two, and two of which one is killed."""
    result = head("workers", "Do workers share trials, and what becomes of one that dies?")
    options = grid_options(small_world(parsed.work), parsed)
    found: dict[str, Any] = {}
    for number in (1, 2):
        name = f"{number}_at_once"
        found[name] = Watched(parsed.work / f"workers_{number}", [*options, "--workers", number])
        with telling(found[name].out):
            found[name] = found[name].finish()
        print(f"{number} workers: {found[name]['wall_seconds']} s", flush=True)
    killed = Watched(parsed.work / "workers_killed", [*options, "--workers", 2])
    result["killed"] = killed.kill_worker()
    found["killed"] = killed.finish()
    result["killed"] |= taken_over(killed, result["killed"], parsed.work / "workers_1")
    one, two = found["1_at_once"], found["2_at_once"]
    return {
        **result,
        "epochs": parsed.epochs,
        "load_before": parsed.load,
        "one_over_two": round(one["wall_seconds"] / two["wall_seconds"], 2),
        "searches": found,
    }


def taken_over(
    watched: Watched, killed: Mapping[str, Any], undisturbed: pathlib.Path
) -> dict[str, Any]:
    """Who did the trial of a worker that was killed, and whether what came out is the same as in a
    search of the same trials where nobody was."""
    trial, process = killed["trial"], killed["process"]
    taken = watched.held[trial]
    rows = {row["trial"]: row for row in trial_rows(watched.out)}
    metric = "retrieval.ndcg@10"
    others = {tuple(row[n] for n in GRID): row[metric] for row in trial_rows(undisturbed)}
    return {
        "done_by": taken[-1],
        "done_by_another_process": f"process {process})" not in taken[-1] and len(taken) > 1,
        "status": rows[trial]["status"],
        "same_score_as_undisturbed": others[tuple(rows[trial][n] for n in GRID)]
        == rows[trial][metric],
    }


def grid_options(dataset: pathlib.Path, parsed: argparse.Namespace) -> list[object]:
    """What all searches of workers have in common."""
    space = parsed.work / "space_workers.json"
    write_json(space, GRID)
    options: list[object] = ["--dataset", dataset, "--space", space, "--strategy", "grid"]
    return [*options, *settings_of(QUICK), "--max-epochs", parsed.epochs]


def run_machines(parsed: argparse.Namespace) -> dict[str, Any]:
    """A chief and two workers by KerasTuner's variables, of which one is killed for good."""
    result = head("machines", "Is a trial of a worker that is gone done by the other one?")
    undisturbed = parsed.work / "workers_1"
    if not (undisturbed / "report.html").exists():
        raise SystemExit("machines: run the part workers first, with the same --work.")
    options = grid_options(small_world(parsed.work), parsed)
    port = str(free_port())
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    out = parsed.work / "machines"
    chief = Watched(out, options, environment={**address, "KERASTUNER_TUNER_ID": "chief"})
    wait_until(lambda: (out / "search.json").exists())
    for number in range(2):
        chief.join(f"worker{number}", address)
    with telling(out):
        result["killed"] = chief.kill_worker()
        found = chief.finish()
    for process in chief.joined.values():
        process.wait(60)
    result["killed"] |= taken_over(chief, result["killed"], undisturbed)
    return {**result, "epochs": parsed.epochs, "search": found}


# Context


def run_context(parsed: argparse.Namespace) -> dict[str, Any]:
    """Which architecture a search finds where only the hour tells."""
    fewer = "".join(f" --set {pair}" for pair in parsed.set)
    result = head(
        "context",
        "Does a search find a ranking model that sees the hour?",
        f" --dataset DATASET{fewer}",
    )
    from mmrec_tf.config import ARCHITECTURES

    out, space = parsed.work / "context", parsed.work / "space_context.json"
    write_json(space, {"ranking.architecture": {"choice": list(ARCHITECTURES)}})
    with telling(out):
        example = ROOT / "examples" / "context.json"
        options = ["--config", example, "--strategy", "grid", "--objective", "ranking.auc"]
        options += [part for pair in parsed.set for part in ("--set", pair)]
        command = [sys.executable, "-m", "tuning.search", "--dataset", parsed.dataset, "--out", out]
        command += ["--space", space, *options]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    rows = {
        row["ranking.architecture"]: {
            "status": row["status"],
            "auc": float(row["ranking.auc"]),
            "seconds": float(row["seconds"]),
        }
        for row in trial_rows(out)
    }
    best = mm.load_config(out / "best_config.json")
    dataset = mm.open_dataset(parsed.dataset)
    truth = dataset.ceiling("valid") or {}
    return {
        **result,
        "dataset": dataset.hash,
        "split": "valid",
        "ceiling_auc": truth.get("auc"),
        "chosen": best.ranking.architecture,
        "architectures": rows,
    }


# Bayesian


def of_retrieval(config: mm.Config) -> mm.Config:
    """A config without a second stage, of which nothing is left."""
    tree = {**config.to_json(), "ranking": {"epochs": 0}, "recommender": {}}
    return mm.Config.from_json(tree)


def start_of(example: mm.Config) -> mm.Config:
    """The default config, with what an example reads and how it is judged."""
    tree, given = mm.Config().to_json(), example.to_json()
    for name in READ:
        tree[name] = given[name]
    for name in JUDGED:
        tree["training"][name] = given["training"][name]
    return of_retrieval(mm.Config.from_json(tree))


def widened(
    space: spaces.Space, start: mm.Config, example: mm.Config, schema: mm.Schema
) -> tuple[spaces.Space, dict[str, str]]:
    """A space that holds an example, and by setting what had to be added for that."""
    hps = spaces.hyperparameters(space, start, schema=schema)
    values, outside = spaces.values_of(example, hps)
    reached = start.override(spaces.overrides(values), schema=schema)
    missing = [path for path in spaces.differences(example, reached) if path not in outside]
    added = {path: f"its range: {reason}" for path, reason in outside.items()}
    added |= {path: "it is not in the space" for path in missing}
    wide: dict[str, Any] = dict(space)
    for path in added:
        had = wide.get(path, {"choice": [_value(start, path)]})
        value = _value(example, path)
        kind = next(iter(set(had) & {"choice", "float", "int"}))
        if kind == "choice":
            wide[path] = {**had, kind: [*had[kind], value]}
        else:
            low, high = had[kind]
            wide[path] = {**had, kind: [min(low, value), max(high, value)]}
    return wide, added


def _value(config: mm.Config, path: str) -> Any:
    value: Any = config.to_json()
    for name in path.split("."):
        value = value[name]
    return value


def run_bayesian(parsed: argparse.Namespace) -> dict[str, Any]:
    """Bayesian search from the default config, beside an example."""
    from tuning.results.retrain import retrain
    from tuning.tuner.search import Search

    name = parsed.name
    extra = f" --space {parsed.space} --trials {parsed.trials} --max-epochs {parsed.max_epochs}"
    extra += "".join(f" --set {pair}" for pair in parsed.set)
    result = head(
        f"bayesian {name}",
        f"Does a search from the default config come up to examples/{name}.json?",
        f" --dataset DATASET{extra}",
    )
    dataset = mm.open_dataset(parsed.dataset)
    settings = read_settings(parsed.set)
    example = of_retrieval(mm.load_config(ROOT / "examples" / f"{name}.json"))
    example = example.override(settings, schema=dataset.schema)
    start = start_of(example)
    ready, left_out = spaces.ready_made(parsed.space, start, schema=dataset.schema)
    space, added = widened(ready, start, example, dataset.schema)
    # As both are trained in the search.
    example = example.override({"training.epochs": parsed.max_epochs})
    out = parsed.work / f"bayesian_{name}"
    found = Search(
        parsed.dataset,
        start,
        space,
        out=out,
        strategy="bayesian",
        trials=parsed.trials,
        max_epochs=parsed.max_epochs,
        minutes=parsed.trial_minutes,
        hours=None if parsed.minutes is None else parsed.minutes / 60,
        start_from=[example],
    )
    began = time.monotonic()
    with telling(out):
        found.search()
        minutes = (time.monotonic() - began) / 60
        figures = retrain(found)
    rows, best = found.rows, found.best
    assert best is not None
    shipped = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    metric = found.objective.name.partition(".")[2]
    return {
        **result,
        "dataset": {"hash": dataset.hash, "counts": dataset.manifest["counts"]},
        "objective": found.objective.name,
        "budget": {
            "trials": parsed.trials,
            "max_epochs": parsed.max_epochs,
            "trial_minutes": parsed.trial_minutes,
            "minutes": parsed.minutes,
            "minutes_of_this_call": round(minutes, 1),
        },
        "space": {
            "name": parsed.space,
            "settings": list(space),
            "left_out": left_out,
            "added_for_the_example": added,
        },
        "example_inside_the_ready_made_space": not added,
        "example_inside_the_space_searched": spaces.values_of(example, found.space)[1] == {},
        "valid": {
            "default": rows[0].score,
            "example": next(
                (row.score for row in rows if found.hypermodel.config_of(row.settings) == example),
                None,
            ),
            "best": best.score,
            "best_trial": best.trial,
        },
        "chosen": best.settings,
        "retrained": {split: figures[split] for split in ("valid", "test")},
        "example_as_it_is_shipped": {
            "valid": shipped["splits"]["valid"]["model"][metric],
            "commit": shipped["commit"],
            "same_dataset": shipped["dataset"]["hash"] == dataset.hash,
        },
        "trials": [
            {
                "trial": row.trial,
                "score": row.score,
                "seconds": round(row.seconds, 1),
                "reason": row.reason,
                "settings": row.settings,
            }
            for row in rows
        ],
    }


PARTS = {
    "kills": run_kills,
    "hyperband": run_hyperband,
    "workers": run_workers,
    "machines": run_machines,
    "context": run_context,
    "bayesian": run_bayesian,
}


def main() -> None:
    """Runs one part and writes its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    of = {name: parts.add_parser(name) for name in PARTS}
    for part in of.values():
        part.add_argument("--work", type=pathlib.Path, default=ROOT / "work/tuning")
    of["kills"].add_argument("--kills", type=int, default=10, help="of each strategy")
    for name in ("workers", "machines"):
        of[name].add_argument("--epochs", type=int, default=20, help="of each trial")
    of["bayesian"].add_argument("name", help="an example: examples/NAME.json")
    of["bayesian"].add_argument("--space", default="retrieval", choices=spaces.SPACES)
    of["bayesian"].add_argument("--trials", type=int, default=20)
    of["bayesian"].add_argument("--max-epochs", type=int, default=5, help="of each trial")
    of["bayesian"].add_argument("--trial-minutes", type=float, help="of each trial at most")
    of["bayesian"].add_argument("--minutes", type=float, help="after which no trial begins")
    for name in ("context", "bayesian"):
        of[name].add_argument("--dataset", required=True, metavar="DIR")
        of[name].add_argument(
            "--set", action="append", default=[], metavar="PATH=VALUE", help="of start and example"
        )
    parsed = parser.parse_args()
    parsed.load = round(os.getloadavg()[0], 1)
    parsed.work = parsed.work.resolve()
    parsed.work.mkdir(parents=True, exist_ok=True)
    if parsed.part != "bayesian":
        commands.imports()
    result = PARTS[parsed.part](parsed)
    name = parsed.name if parsed.part == "bayesian" else parsed.part
    path = RESULTS / f"tuning_{name}.json"
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
