"""The `mmrec-tf` command: parses, calls, prints. Each command's body is one library call.

Exit status: 0; 2 for wrong usage or config; 1 for any other MmrecError, one line on stderr.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

import mmrec_tf
from mmrec_tf.config import Config, load_config
from mmrec_tf.errors import ConfigError, MmrecError


def _train(arguments) -> None:
    # Before TensorFlow is imported, so that a wrong config is answered at once.
    path = arguments.config
    if arguments.start and not path:
        path = os.path.join(arguments.start, "config.json")
    config = load_config(path) if path else Config()
    config = config.override(_settings(arguments.set))

    from mmrec_tf.training import train_run

    dataset = mmrec_tf.open_dataset(arguments.dataset, verify=arguments.verify)
    run = train_run(
        dataset, config, arguments.out, twin=arguments.twin, start=arguments.start or None
    )
    metrics = json.loads((run.directory / "metrics.json").read_text(encoding="utf-8"))
    _print_table(f"{run.directory}, valid split", metrics["valid"])


def _evaluate(arguments) -> None:
    from mmrec_tf.evaluation import evaluate_run

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    result = evaluate_run(
        run,
        split=arguments.split,
        ks=_numbers(arguments.k),
        stage=arguments.stage,
        baselines=() if arguments.baselines is None else arguments.baselines.split(","),
        slices=arguments.slices,
    )
    if arguments.json:
        print(json.dumps(result))
        return
    rows = {name: result[name] for name in ("model", "popularity", "id_only") if result[name]}
    rows |= result["baselines"]
    ceiling = run.dataset.ceiling(arguments.split)
    if ceiling is not None:
        rows["ceiling"] = ceiling
    _print_table(f"{arguments.run}, {result['split']} split, {result['users']} users", rows)
    shown = [name for name in result["model"] if name.startswith(("recall@", "ndcg@"))]
    differences = {
        name: {metric: _interval(*values[metric]) for metric in shown}
        for name, values in result["differences"].items()
    }
    _print_table("\nthe model minus each, with 95% intervals", differences, width=28)
    title = f"beyond accuracy; diversity of {result['diversity_of']}"
    _print_table(f"\n{title}", result["beyond_accuracy"])
    if arguments.slices:
        at = max(_numbers(arguments.k))
        slices = {
            name: {key: _at(value, f"recall@{at}") for key, value in values.items()}
            for name, values in result["slices"].items()
            if values["users"]
        }
        empty = len(result["slices"]) - len(slices)
        title = f"recall@{at} by slice of items ({empty} slices that no user asks for left out)"
        _print_table(f"\n{title}", slices)


def _ablate(arguments) -> None:
    from mmrec_tf.ablation import ablate_run

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    result = ablate_run(run, split=arguments.split, out=arguments.out, retrain=arguments.retrain)
    if arguments.json:
        print(json.dumps(result))
        return
    rows = {"model": {"value": result["model"]}}
    for name, ways in result["knock_outs"].items():
        rows |= {f"{name} {how}": figure for how, figure in ways.items()}
    rows |= {
        f"{figure['removed']:.0%} of all content absent": figure for figure in result["missing"]
    }
    rows |= {f"trained: {name}": figure for name, figure in (result["retrained"] or {}).items()}
    table = {
        name: {
            result["metric"]: figure["value"],
            "minus the model": _interval(figure["difference"], figure["low"], figure["high"])
            if "low" in figure
            else "",
        }
        for name, figure in rows.items()
    }
    title = f"{arguments.run}, {result['split']} split, {result['users']} users, 95% intervals"
    _print_table(title, table, width=28)
    print()
    for name, verdict in result["verdicts"].items():
        print(f"{name}: {verdict}")


def _recommend(arguments) -> None:
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    history = [arguments.history.split(",")] * len(arguments.user) if arguments.history else None
    answer = run.recommender().recommend(arguments.user, history=history, k=arguments.k)
    if arguments.json:
        users = [
            {"user": user, "item_id": list(ids), "score": [float(value) for value in scores]}
            for user, ids, scores in zip(arguments.user, *answer, strict=True)
        ]
        print(json.dumps({"users": users}))
        return
    for user, ids, scores in zip(arguments.user, *answer, strict=True):
        for rank, (item, score) in enumerate(zip(ids, scores, strict=True), start=1):
            if item:  # Fewer than k were left.
                print(f"{user}\t{rank}\t{item}\t{score:.4f}")


def _export(arguments) -> None:
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    for path in mmrec_tf.export(
        run.recommender(), arguments.out, version=arguments.version, k=arguments.k
    ):
        print(path)


def build_parser() -> argparse.ArgumentParser:
    """The command line, without importing TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="mmrec-tf",
        description="Two-stage recommendation from content and clicks. "
        'A dataset comes from "python -m data.prepare".',
    )
    parser.add_argument("--version", action="version", version=mmrec_tf.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train both stages into a run directory")
    command.add_argument("--dataset", required=True, metavar="DIR")
    command.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        help="go on from a finished run's weights, on a dataset that has grown or changed",
    )
    command.add_argument(
        "--config", metavar="FILE", help="JSON; defaults where left out, or the config of --from"
    )
    command.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    command.add_argument("--out", required=True, metavar="RUN")
    command.add_argument("--twin", action="store_true", help="also train the id-only twin")
    _add_verify(command)
    command.set_defaults(call=_train)

    command = _run_command(commands, "evaluate", "rank every item for every user of a split")
    command.add_argument("--split", choices=("valid", "test"), default="test")
    command.add_argument("--k", default="10,20", metavar="K,K", help="cut-offs")
    command.add_argument(
        "--stage",
        choices=("retrieval", "recommender"),
        default="retrieval",
        help="recommender: what is left after ranking too",
    )
    command.add_argument(
        "--baselines", metavar="NAMES", help='such as item_knn,ease; or "all" (docs/evaluation.md)'
    )
    command.add_argument(
        "--slices", action="store_true", help="also by popularity and content of the items"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_evaluate)

    command = _run_command(commands, "ablate", "measure what each modality is worth")
    command.add_argument("--split", choices=("valid", "test"), default="valid")
    command.add_argument("--out", metavar="DIR", help="for ablation.json and the runs of --retrain")
    command.add_argument(
        "--retrain", action="store_true", help="also train with fewer modalities, into --out"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_ablate)

    command = _run_command(commands, "recommend", "recommend items to users")
    command.add_argument("--user", required=True, action="append", metavar="ID")
    command.add_argument("--history", metavar="ID,ID", help="items, oldest first")
    command.add_argument("--k", type=int, default=10)
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_recommend)

    command = _run_command(commands, "export", "write SavedModels for TensorFlow Serving")
    command.add_argument("--out", required=True, metavar="EXPORT")
    command.add_argument("--version", type=int, required=True, metavar="N")
    command.add_argument("--k", type=int, default=50, help="items an answer holds")
    command.set_defaults(call=_export)
    return parser


def _run_command(commands, name: str, description: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=description, description=description)
    command.add_argument("run", metavar="RUN")
    command.add_argument("--dataset", metavar="DIR", help="where the dataset has moved")
    _add_verify(command)
    return command


def _add_verify(command) -> None:
    command.add_argument(
        "--verify", action="store_true", help="compare the hashes of all the dataset's files first"
    )


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: wanted PATH=VALUE such as training.epochs=5; got {pair!r}.")
        settings[path] = value
    return settings


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"--k: wanted numbers of at least 1 such as 10,20; got {text!r}.")
    return numbers


def _print_table(title: str, rows: Mapping[str, Mapping], *, width: int = 12) -> None:
    names = list(next(iter(rows.values())))
    first = max(map(len, rows))
    print(title)
    print(" " * first, *(f"{name:>{width}}" for name in names))
    for row, values in rows.items():
        print(f"{row:{first}}", *(f"{_cell(values.get(name)):>{width}}" for name in names))


def _cell(value) -> str:
    """Blank for what is not known."""
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _at(value, metric: str):
    """A number as it is, of metrics the one that is asked for."""
    return value[metric] if isinstance(value, dict) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    # TensorFlow's own start-up lines, errors about absent GPUs among them, say nothing to a user
    # of this command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parsed = build_parser().parse_args(arguments)
    try:
        parsed.call(parsed)
    except MmrecError as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
