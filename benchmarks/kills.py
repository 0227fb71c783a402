"""Is anything torn by a kill, or read as if it were whole? Writes benchmarks/results/kills.json.

    python -m benchmarks.kills [--kills 20] [--mutations 200] [--only prepare,train,mutations]

Kills: each of `data.prepare`, `mmrec-tf train`, `tuning.search`, `mmrec-tf export` and `export
--only-index` is killed with SIGKILL at a random moment of its usual time, with all its children,
and given again until it ends. What it then has written is compared with what it writes when it is
left alone: the dataset's hash; history, figures and weights of the run; trials and best config of
the search; the export's answers. Nothing may be left over that is not there otherwise, also beside
the dataset, whose cache it fills; and no trial may be there twice.

Two at once: the same command twice in one folder; the second has to be refused in words.

Mutations: `benchmarks.mutations`.

What is known is written after each step. The same command, given again, goes on from there.
"""

import argparse
import concurrent.futures
import csv
import hashlib
import json
import multiprocessing
import pathlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import commands
from benchmarks.commands import begin, command
from benchmarks.facts import ROOT, facts
from benchmarks.mutations import mutate
from mmrec_tf.exporting.request_examples import examples_path
from mmrec_tf.records.files import write_json

PARTS = ("prepare", "train", "search", "export", "only_index", "mutations")
WORLD = "--users 60 --items 40".split()
SETTINGS = {
    "modalities": '["text"]',
    "text.weights": "random",
    "text.hidden_size": "16",
    "text.num_layers": "1",
    "training.epochs": "2",
    "ranking.epochs": "1",
    "ranking.architecture": "bilinear",
    "item.dropout": "0.1",
}
SPACE = {"training.learning_rate": {"float": [1e-3, 1e-1], "log": True}}
# By command a search of each strategy, for `benchmarks.bench_tuning`: its space, and what it takes
# for the strategy to come into its own (a Gaussian process after three trials at random, Hyperband
# with promotions).
SEARCHES: dict[str, tuple[dict[str, dict], list[object]]] = {
    "search_random": (SPACE, ["--strategy", "random", "--trials", 3, "--max-epochs", 1]),
    "search_bayesian": (SPACE, ["--strategy", "bayesian", "--trials", 5, "--max-epochs", 1]),
    "search_hyperband": (SPACE, ["--strategy", "hyperband", "--max-epochs", 3]),
    "search_grid": (
        {"training.learning_rate": {"choice": [1e-3, 1e-2, 3e-2]}},
        ["--strategy", "grid", "--max-epochs", 1],
    ),
}
# A command among others takes longer than it does alone.
SLOWER = 1.3
# What no finished command leaves: hidden, partial, or of a training.
KNOWN = {".versions"}


class Command(NamedTuple):
    """A command that writes a folder, and what it comes to there.

    `call` takes the dataset, which it may keep a cache beside, and the folder.
    """

    call: Callable[[pathlib.Path, pathlib.Path], Callable[[], int]]
    result: Callable[[pathlib.Path], Any]


def verified_here(call: Callable[[], int]) -> Callable[[], int]:
    """An export that replays its examples in its own process.

    It does so in a fresh one, which takes longer to import TensorFlow than all the rest, and which
    writes nothing that a kill could tear.
    """

    def run() -> int:
        from mmrec_tf.exporting import publish, verify

        publish._verify = lambda folders: [verify.verify(folder) for folder in folders.values()]
        return call()

    return run


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
        # How long a trial took is another figure each time.
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return [rows, json.loads((out / "best_config.json").read_text(encoding="utf-8"))]


def done_trials(out: pathlib.Path) -> dict[str, str]:
    """By trial of a search the hash of what it found, which says how many seconds it took: one
    that was lost or done again has another."""
    found = (out / "trials").glob("trial_*/result.json")
    return {path.parent.name: digest(path) for path in found}


def of_export(out: pathlib.Path) -> Any:
    """The answers to the examples of each servable's newest version."""
    found = {}
    for servable in sorted(path for path in out.iterdir() if path.is_dir()):
        newest = max((p for p in servable.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        document = json.loads(examples_path(newest).read_text(encoding="utf-8"))
        found[servable.name] = document["requests"]
    return found


def left_over(folder: pathlib.Path) -> list[str]:
    """What is there that no finished command leaves."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.name.startswith(".") and path.name not in KNOWN)
        or path.name.endswith((".partial", ".source"))
        or path.name == "progress"
    )


def known_commands(work: pathlib.Path) -> dict[str, Command]:
    """The commands by name; each reads what those before it made in `work/base`."""
    base = work / "base"
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    world = ["synthetic", *WORLD, "--workers", 1]
    export = ["export", base / "train", "--k", 5]

    def mmrec_tf(*given: object) -> Callable[[pathlib.Path, pathlib.Path], Callable[[], int]]:
        return lambda dataset, out: command("mmrec_tf", *given, "--dataset", dataset, "--out", out)

    def exported(*given: object) -> Callable[[pathlib.Path, pathlib.Path], Callable[[], int]]:
        call = mmrec_tf(*given)
        return lambda dataset, out: verified_here(call(dataset, out))

    def searched(name: str, space: dict[str, dict], given: list[object]) -> Command:
        path = work / f"space_{name}.json"
        write_json(path, space)
        options = ["--space", path, *given, *settings]
        return Command(
            lambda dataset, out: command(
                "tuning.search", *options, "--dataset", dataset, "--out", out
            ),
            of_search,
        )

    return {
        "prepare": Command(
            lambda dataset, out: command("data.prepare", *world, "--out", out), of_dataset
        ),
        "train": Command(mmrec_tf("train", "--no-report", *settings), of_run),
        "search": searched("search", SPACE, ["--trials", 3, "--max-epochs", 1]),
        **{name: searched(name, *given) for name, given in SEARCHES.items()},
        "export": Command(exported(*export), of_export),
        "only_index": Command(exported(*export, "--only-index"), of_export),
    }


def make_base(name: str, work: pathlib.Path, commit: str, *, keep: bool) -> dict[str, float]:
    """What a command writes when it is left alone; returns how long it took, and of a CPU.

    It is made once for each commit; with `keep` once.
    """
    note, out = work / "base" / f"{name}.json", work / "base" / name
    if note.exists():
        told = json.loads(note.read_text(encoding="utf-8"))
        if keep or (told["commit"] == commit and not commit.endswith("-dirty")):
            return told
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    ended = begin(known_commands(work)[name].call(work / "base" / "prepare", out)).finish()
    if ended.status:
        raise SystemExit(f"{name}: ended with {ended.status}.\n{ended.out}{ended.said}")
    seconds = time.monotonic() - start
    told = {"commit": commit, "seconds": seconds, "cpu_seconds": ended.cpu_seconds}
    write_json(note, told)
    return told


def _folder(work: pathlib.Path, what: str) -> tuple[pathlib.Path, pathlib.Path]:
    """A folder for one try, and in it the dataset without its cache."""
    folder = work / what
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dataset = folder / "dataset"
    shutil.copytree(work / "base" / "prepare", dataset, ignore=shutil.ignore_patterns("cache"))
    return folder, dataset


def kill(name: str, work: pathlib.Path, seconds: float, number: int, seed: int) -> dict[str, Any]:
    """Kills one command once, gives it again, and compares."""
    commands_of, base = known_commands(work)[name], work / "base" / name
    folder, dataset = _folder(work, f"killed_{name}_{number}")
    out = folder / name
    call = commands_of.call(dataset, out)
    moment = random.Random(f"{seed} {name} {number}").uniform(0, seconds)
    process = begin(call)
    time.sleep(moment)
    ended = process.poll()
    if not ended:
        process.kill()
    process.finish()
    before = done_trials(out)
    again = begin(call).finish()
    said = again.out + again.said
    # What was finished as it was killed is refused, or, by export, done once more.
    done = any(words in said for words in ("a finished run stands there", "stands there already"))
    result: dict[str, Any] = {"at_seconds": round(moment, 2), "ended_before": ended}
    result["status"] = again.status
    try:
        result["equal"] = bool(
            (again.status == 0 or done) and commands_of.result(out) == commands_of.result(base)
        )
        result["left_over"] = left_over(folder)
        if name.startswith("search"):
            trials = [row["trial"] for row in commands_of.result(out)[0]]
            folders = len(list((out / "trials").glob("trial_*")))
            result["duplicate_trials"] = len(trials) - len(set(trials)) + folders - len(trials)
            after = done_trials(out)
            result["trials_done_before"] = len(before)
            result["trials_done_again"] = sum(
                after.get(trial) != found for trial, found in before.items()
            )
    except (OSError, ValueError, KeyError) as error:
        result |= {"equal": False, "left_over": left_over(folder), "why": repr(error)}
    if not result["equal"]:
        result["said"] = said[-500:]
    if result["equal"] and not result["left_over"]:
        shutil.rmtree(folder)
    return result


def two_at_once(name: str, work: pathlib.Path) -> dict[str, Any]:
    """Starts a command twice; one of the two has to be refused in words."""
    folder, dataset = _folder(work, f"two_{name}")
    call = known_commands(work)[name].call(dataset, folder / name)
    both = [begin(call) for _ in range(2)]
    ends = sorted((process.finish() for process in both), key=lambda end: end.status)
    said = "".join((ends[1].out + ends[1].said).strip().splitlines()[-1:])
    words = ("another process", "stands there")
    statuses = [end.status for end in ends]
    refused = statuses == [0, 1] and any(word in said for word in words)
    result = {"refused": refused, "statuses": statuses, "said": said.replace(f"{folder}/", "")}
    return {**result, "left_over": left_over(folder)}


class Task(NamedTuple):
    """One thing to do, and where its result belongs."""

    part: str
    number: int
    function: Callable[..., dict[str, Any]]
    arguments: tuple


def tasks(
    parts: list[str], work: pathlib.Path, usual: dict[str, float], parsed: argparse.Namespace
) -> Iterator[Task]:
    """All that is to be done, in turn from all parts, so that a part of the time gives of each."""
    for number in range(max(parsed.kills, parsed.mutations)):
        for part in parts:
            if part == "mutations":
                if number < parsed.mutations:
                    yield Task(part, number, mutate, (work / "base", work, number, parsed.seed))
            elif number < parsed.kills:
                arguments = (part, work, usual[part] * SLOWER, number, parsed.seed)
                yield Task(part, number, kill, arguments)


def summary(each: dict[str, dict[str, Any]], usual: dict[str, float]) -> dict[str, Any]:
    """The figures of all that was done."""
    kills, found = {}, [*each.get("mutations", {}).values()]
    for name in PARTS[:-1]:
        done = list(each.get(name, {}).values())
        if done:
            kills[name] = {
                "usual_seconds": round(usual[name], 1),
                "kills": len(done),
                "equal": sum(one["equal"] for one in done),
                "left_over": sum(len(one["left_over"]) for one in done),
                "duplicate_trials": sum(one.get("duplicate_trials", 0) for one in done),
            }
    counts = {
        what: sum(one["result"] == what for one in found) for what in ("told", "harmless", "silent")
    }
    tracebacks = sum(one["traceback"] for one in found)
    return {"kills": kills, "mutations": {**counts, "tracebacks": tracebacks}}


def bad(part: str, one: dict[str, Any]) -> bool:
    """Whether a result is one that should not be."""
    if part == "mutations":
        return one["result"] == "silent" or one["traceback"]
    repeated = one.get("duplicate_trials", 0) + one.get("trials_done_again", 0)
    return not one["equal"] or bool(one["left_over"]) or bool(repeated)


def main() -> None:
    """Runs what is wanted and not known yet, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "work/kills")
    parser.add_argument("--kills", type=int, default=20, help="of each command (%(default)s)")
    parser.add_argument("--mutations", type=int, default=200, help="in all (%(default)s)")
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", action="store_true", help="take what the commands wrote for another commit"
    )
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks/results/kills.json")
    parsed = parser.parse_args()
    parts = parsed.only.split(",") if parsed.only else list(PARTS)
    if set(parts) - set(PARTS):
        parser.error(f"--only: wanted some of {','.join(PARTS)}; got {parsed.only}")
    work = parsed.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob("whole_*.txt"):
        left.unlink()
    result: dict[str, Any] = facts(
        "is anything torn by a kill, or read as if it were whole?",
        command=f"python -m benchmarks.kills --kills {parsed.kills} --mutations {parsed.mutations}",
    )
    result |= {"summary": {}, "two_at_once": {}, "each": {}}
    known = {**result, "seed": parsed.seed}
    if parsed.out.exists():
        before = json.loads(parsed.out.read_text(encoding="utf-8"))
        if before.get("commit") == result["commit"] and before.get("seed") == parsed.seed:
            known |= {name: before[name] for name in ("two_at_once", "each")}
            print(f"{parsed.out}: going on", flush=True)

    commands.imports()
    usual: dict[str, float] = {}
    for name in PARTS[:-1]:
        told = make_base(name, work, result["commit"], keep=parsed.keep)
        usual[name] = told["seconds"]
        print(f"{name}: {usual[name]:.1f} s ({told['cpu_seconds']:.1f} of a CPU)", flush=True)

    def save() -> None:
        known["summary"] = summary(known["each"], usual)
        write_json(parsed.out, known)

    for name in parts:
        if name != "mutations" and name not in known["two_at_once"]:
            known["two_at_once"][name] = two_at_once(name, work)
            print(f"{name}, two at once: {known['two_at_once'][name]}", flush=True)
            save()
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(parsed.jobs, mp_context=context) as pool:
        waiting = {
            pool.submit(task.function, *task.arguments): task
            for task in tasks(parts, work, usual, parsed)
            if str(task.number) not in known["each"].get(task.part, {})
        }
        for future in concurrent.futures.as_completed(waiting):
            task, one = waiting[future], future.result()
            known["each"].setdefault(task.part, {})[str(task.number)] = one
            if bad(task.part, one):
                print(f"{task.part} {task.number}: {one}", flush=True)
            save()
    print(json.dumps(known["summary"], indent=1))


if __name__ == "__main__":
    main()
