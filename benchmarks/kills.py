"""Is anything torn by a kill, or read as if it were whole? Writes benchmarks/results/kills.json.

    python -m benchmarks.kills --work work/kills [--kills 20] [--mutations 200] [--only NAME,NAME]

Kills: each of `data.prepare`, `mmrec-tf train`, `tuning.search`, `mmrec-tf export` and `export
--only-index` is killed with SIGKILL at a random moment of its usual time, with all its children,
and given again until it ends. What it then has written is compared with what it writes when it is
left alone: the dataset's hash; history, figures and weights of the run; trials and best config of
the search; hashes of the export's answers. Nothing may be left over that is not there otherwise,
and no trial may be there twice.

Two at once: the same command twice in one folder; the second has to be refused in words.

Mutations: one byte flipped, or the end cut off, in a random file of dataset, cache, run and export
that a command reads. Silent is a command that ends with 0 and says nothing of that file.
"""

import argparse
import csv
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.facts import facts
from mmrec_tf.exporting.request_examples import examples_path
from mmrec_tf.records.files import write_json

ROOT = pathlib.Path(__file__).parents[1]
WORLD = "--users 60 --items 40".split()
SETTINGS = {
    "modalities": '["text"]',
    "text.weights": "random",
    "text.hidden_size": "16",
    "text.num_layers": "1",
    "training.epochs": "4",
    "ranking.epochs": "1",
    "item.dropout": "0.1",
}
SPACE = {"training.learning_rate": {"float": [1e-3, 1e-1], "log": True}}


class Command(NamedTuple):
    """A command that writes `out`, and what it comes to there."""

    arguments: list[str]
    out: pathlib.Path
    result: Callable[[pathlib.Path], Any]


def python(*arguments: object) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", *map(str, arguments)]


def begin(arguments: list[str]) -> subprocess.Popen:
    """Starts a command in a group of its own, so that all of it can be killed."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1"}
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Waits; returns the status, and all that was said."""
    said, _ = process.communicate()
    return process.returncode, said


def must(arguments: list[str]) -> str:
    """What a command says that has to end well."""
    status, said = finish(begin(arguments))
    if status:
        raise SystemExit(f"{' '.join(arguments)}: ended with {status}.\n{said}")
    return said


def digest(path: pathlib.Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_dataset(out: pathlib.Path) -> Any:
    """The hash of all its files."""
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))["sha256"]


def of_run(out: pathlib.Path) -> Any:
    """Figures to the digit, and weights by their hashes."""
    names = ("history.csv", "ranking_history.csv", "metrics.json", "calibration.json")
    return [digest(out / name) for name in names] + [
        digest(path) for path in sorted(out.glob("weights/*/*.data-*"))
    ]


def of_search(out: pathlib.Path) -> Any:
    """Trials and the best config."""
    with (out / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((out / "best_config.json").read_text(encoding="utf-8"))


def of_export(out: pathlib.Path) -> Any:
    """The answers to the examples of each servable's newest version."""
    found = {}
    for servable in sorted(path for path in out.iterdir() if path.is_dir()):
        newest = max((p for p in servable.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        document = json.loads(examples_path(newest).read_text(encoding="utf-8"))
        found[servable.name] = document["requests"]
    return found


def left_over(folder: pathlib.Path) -> list[str]:
    """What is there that no finished command leaves: hidden, partial, or of a training."""
    known = {".versions"}
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.name.startswith(".") and path.name not in known)
        or path.name.endswith((".partial", ".source"))
        or path.name == "progress"
    )


def commands(work: pathlib.Path) -> dict[str, Command]:
    """The commands by name; each reads what those before it made in `work/base`."""
    base, space = work / "base", work / "space.json"
    write_json(space, SPACE)
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    world = python("data.prepare", "synthetic", *WORLD, "--workers", 1, "--out")
    train = ["--dataset", base / "prepare", *settings, "--out"]
    search = ["--dataset", base / "prepare", "--space", space, "--trials", 3, *settings]
    search += ["--max-epochs", 1, "--out"]
    export = ["export", base / "train", "--k", 5]
    grown = [*export, "--only-index", "--dataset", base / "prepare", "--out"]
    made = {
        "prepare": (world, of_dataset),
        "train": (python("mmrec_tf", "train", *train), of_run),
        "search": (python("tuning.search", *search), of_search),
        "export": (python("mmrec_tf", *export, "--out"), of_export),
        "only_index": (python("mmrec_tf", *grown), of_export),
    }
    return {name: Command(call, base / name, result) for name, (call, result) in made.items()}


def kill(
    name: str, command: Command, work: pathlib.Path, seconds: float, draw: random.Random
) -> dict:
    """Kills one command once, gives it again, and compares."""
    folder = work / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = folder / name
    moment = draw.uniform(0, seconds)
    process = begin([*command.arguments, str(out)])
    time.sleep(moment)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    status, said = finish(begin([*command.arguments, str(out)]))
    # What was finished as it was killed is refused, or, by export, done once more.
    done = any(words in said for words in ("a finished run stands there", "stands there already"))
    result = {"at_seconds": round(moment, 2), "ended_before": ended, "status": status}
    result["equal"] = (status == 0 or done) and command.result(out) == command.result(command.out)
    result["left_over"] = left_over(folder)
    if not result["equal"]:
        result["said"] = said[-500:]
    if name == "search":
        trials = [row["trial"] for row in command.result(out)[0]]
        folders = len(list((out / "trials").glob("trial_*")))
        result["duplicate_trials"] = len(trials) - len(set(trials)) + folders - len(trials)
    return result


def two_at_once(name: str, command: Command, work: pathlib.Path) -> dict:
    """Starts a command twice; one of the two has to be refused in words."""
    folder = work / "two"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    both = [begin([*command.arguments, str(folder / name)]) for _ in range(2)]
    ends = sorted((finish(process) for process in both), key=lambda end: end[0])
    said = ends[1][1].strip().splitlines()[-1:]
    words = ("another process", "stands there")
    refused = [end[0] for end in ends] == [0, 1] and any(word in "".join(said) for word in words)
    return {"refused": refused, "said": "".join(said), "left_over": left_over(folder)}


def readers(work: pathlib.Path) -> dict[str, tuple[pathlib.Path, list[str]]]:
    """By what is mutated, its folder and a command that reads it."""
    base = work / "base"
    recommend = python("mmrec_tf", "recommend", base / "train", "--user", "u0", "--k", 3)
    return {
        "dataset": (base / "prepare", recommend),
        "cache": (base / "prepare" / "cache", recommend),
        "run": (base / "train", recommend),
        "export": (base / "export", python("serving.check", base / "export")),
    }


def files_of(kind: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Those that the command reads."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    if kind == "dataset":
        files = [p for p in files if "cache" not in p.relative_to(folder).parts]
    return [path for path in files if path.name != ".versions"]


def mutations(work: pathlib.Path, count: int, draw: random.Random) -> Iterator[dict]:
    """Flips a byte, or cuts the end off, and looks whether the command tells."""
    known = readers(work)
    for number in range(count):
        kind = list(known)[number % len(known)]
        folder, command = known[kind]
        path = draw.choice(files_of(kind, folder))
        data = path.read_bytes()
        if draw.random() < 0.5:
            place = draw.randrange(len(data))
            what = f"byte {place} of {len(data)} flipped"
            bad = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
        else:
            bad = data[: draw.randrange(len(data))]
            what = f"cut to {len(bad)} of {len(data)} bytes"
        path.write_bytes(bad)
        try:
            status, said = finish(begin(command))
        finally:
            rebuilt = path.read_bytes() != bad
            path.write_bytes(data)
        told = status != 0 or path.name in said
        yield {
            "kind": kind,
            "file": path.relative_to(folder).as_posix(),
            "what": what,
            "status": status,
            "told": told,
            "traceback": "Traceback" in said,
            "rebuilt": rebuilt,
            "said": said.strip().splitlines()[-1][:300] if told and said.strip() else "",
        }


def main() -> None:
    """Runs it all and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=20, help="of each command (%(default)s)")
    parser.add_argument("--mutations", type=int, default=200, help="in all (%(default)s)")
    parser.add_argument("--only", help="names of commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks/results/kills.json")
    parsed = parser.parse_args()
    draw = random.Random(parsed.seed)
    work = parsed.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    known = commands(work)
    wanted = parsed.only.split(",") if parsed.only else list(known)
    shutil.rmtree(work / "base", ignore_errors=True)
    result: dict[str, Any] = facts(
        "is anything torn by a kill, or read as if it were whole?",
        command="python -m benchmarks.kills --work work/kills",
    )
    result |= {"kills": {}, "two_at_once": {}, "mutations": []}
    for name, command in known.items():
        start = time.monotonic()
        must([*command.arguments, str(command.out)])
        seconds = time.monotonic() - start
        print(f"{name}: {seconds:.0f} s", flush=True)
        if name not in wanted:
            continue
        kills = []
        for _ in range(parsed.kills):
            kills.append(kill(name, command, work, seconds, draw))
            print(f"{name}: {kills[-1]}", flush=True)
        result["kills"][name] = {
            "usual_seconds": round(seconds, 1),
            "kills": len(kills),
            "equal": sum(one["equal"] for one in kills),
            "left_over": sum(len(one["left_over"]) for one in kills),
            "duplicate_trials": sum(one.get("duplicate_trials", 0) for one in kills),
            "each": kills,
        }
        if parsed.kills:
            result["two_at_once"][name] = two_at_once(name, command, work)
            print(f"{name}, two at once: {result['two_at_once'][name]}", flush=True)
        write_json(parsed.out, result)
    for one in mutations(work, parsed.mutations, draw):
        result["mutations"].append(one)
        if not one["told"] or one["traceback"]:
            print(f"mutation: {one}", flush=True)
    told = [one for one in result["mutations"] if one["told"]]
    result["silent"] = len(result["mutations"]) - len(told)
    result["tracebacks"] = sum(one["traceback"] for one in result["mutations"])
    print(f"{len(result['mutations'])} mutations, {result['silent']} silent", flush=True)
    write_json(parsed.out, result)


if __name__ == "__main__":
    main()
