"""The `mmrec-tf` command: parses, calls, prints. Each command's body is one library call.

Exit status: 0; 2 for wrong usage or config; 1 for any other MmrecError, one line on stderr.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence

import mmrec_tf
from mmrec_tf.config import Config, load_config
from mmrec_tf.errors import ConfigError, RunError, run_command
from mmrec_tf.reporting import tables


def _train(arguments: argparse.Namespace) -> None:
    # Before TensorFlow is imported, so that a wrong config is answered at once.
    path = arguments.config
    if arguments.start and not path:
        path = os.path.join(arguments.start, "config.json")
    config = load_config(path) if path else Config()
    config = config.override(_settings(arguments.set))

    from mmrec_tf.runs.train import train_run

    dataset = mmrec_tf.open_dataset(arguments.dataset, verify=arguments.verify)
    began = time.monotonic()
    run = train_run(
        dataset, config, arguments.out, twin=arguments.twin, start=arguments.start or None
    )
    cost = time.monotonic() - began
    metrics = run.metrics
    title = f"{run.directory}, valid split, history {metrics['history']}"
    tables.print_table(title, metrics["valid"])
    if config.ranking.epochs:
        print(tables.ranking_verdict(metrics["ranking"], served=run.serves_ranking))
    if arguments.report:
        from mmrec_tf.reporting.report import report_training

        report_training(run, seconds=cost)


def _card(arguments: argparse.Namespace) -> None:
    from mmrec_tf.runs.model_card import write_card

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    print(write_card(run, split=arguments.split))


def _report(arguments: argparse.Namespace) -> None:
    from mmrec_tf.reporting.report import write_report

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    names = None
    if arguments.baselines is not None:
        names = [name.strip() for name in arguments.baselines.split(",") if name.strip()]
    print(write_report(run, out=arguments.out, split=arguments.split, baselines=names))


def _evaluate(arguments: argparse.Namespace) -> None:
    from mmrec_tf.runs.evaluate import evaluate_run

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    result = evaluate_run(
        run,
        split=arguments.split,
        ks=_numbers(arguments.k),
        stage=arguments.stage,
        baselines=[name.strip() for name in (arguments.baselines or "").split(",") if name.strip()],
        slices=arguments.slices,
        history=arguments.history,
    )
    if arguments.stage == "recommender":
        from mmrec_tf.recommender.funnel import evaluate_ranking

        result["ranking"] = evaluate_ranking(
            run.recommender(history=arguments.history),
            run.dataset,
            split=arguments.split,
            ks=_numbers(arguments.k),
            history=arguments.history,
        )
    if arguments.json:
        print(json.dumps(result))
        return
    ceiling = run.dataset.ceiling(arguments.split)
    if ceiling is not None and arguments.history != "train":
        print("no ceiling: that of the dataset is of the history train", file=sys.stderr)
        ceiling = None
    tables.print_evaluation(arguments.run, result, ceiling=ceiling)
    if "ranking" in result and run.ranks:
        print(tables.ranking_verdict(result["ranking"], served=run.serves_ranking))


def _compare(arguments: argparse.Namespace) -> None:
    from mmrec_tf.reporting.comparison import print_comparison, write_comparison
    from mmrec_tf.runs.comparison import compare_runs

    runs = [
        mmrec_tf.load_run(path, dataset=arguments.dataset, verify=arguments.verify)
        for path in arguments.run
    ]
    found = compare_runs(
        runs,
        split=arguments.split,
        ks=_numbers(arguments.k),
        stage=arguments.stage,
        history=arguments.history,
    )
    if arguments.json:
        print(json.dumps(found))
    else:
        print_comparison(found)
    if arguments.out:
        print(write_comparison(found, arguments.out), file=sys.stderr)


def _ablate(arguments: argparse.Namespace) -> None:
    from mmrec_tf.runs.ablation import ablate_run

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    result = ablate_run(run, split=arguments.split, out=arguments.out, retrain=arguments.retrain)
    if arguments.json:
        print(json.dumps(result))
        return
    tables.print_ablation(arguments.run, result)


def _recommend(arguments: argparse.Namespace) -> None:
    from mmrec_tf.recommender.inputs import split_ids

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    lists = {name: getattr(arguments, name) for name in ("history", "exclude", "allow", "deny")}
    split = {name: split_ids(value) for name, value in lists.items() if value}
    given = {name: [parts] * len(arguments.user) for name, parts in split.items()}
    time = [arguments.time] * len(arguments.user) if arguments.time else None
    recommender = run.recommender(
        unavailable=_lines_of(arguments.unavailable), history=arguments.stored_history
    )
    answer = recommender.recommend(arguments.user, **given, time=time, k=arguments.k)
    catalog, users = set(run.dataset.catalog.item_id), set(run.dataset.users.user_id)
    for name in ("history", "exclude"):
        _tell_unknown(f"--{name}", [one for one in split.get(name, ()) if one not in catalog])
    by = "the history" if catalog & set(split.get("history", ())) else "what is popular"
    for user in arguments.user:
        if user not in users:
            print(f"--user: the dataset has no {user!r}; answered by {by}.", file=sys.stderr)
    _print_answers("user", arguments.user, answer, run.dataset, as_json=arguments.json)


def _print_answers(
    asked: str,
    ids: Sequence[str],
    answer: "mmrec_tf.Recommendations | mmrec_tf.SimilarItems",
    dataset: "mmrec_tf.Dataset",
    *,
    as_json: bool,
) -> None:
    from mmrec_tf.dataset.titles import titles_of_ids

    columns = answer._asdict()
    named = {"title": "item_id", "history_title": "history_item"}
    named = {name: of for name, of in named.items() if of in columns}
    tables.print_answers(
        asked,
        ids,
        columns,
        titles={name: titles_of_ids(dataset, columns[of]) for name, of in named.items()},
        as_json=as_json,
    )


def _tell_unknown(option: str, ids: Sequence[str]) -> None:
    """Says which ids of a list had no effect."""
    if ids:
        print(f"{option}: no item has the id {', '.join(map(repr, ids))}.", file=sys.stderr)


def _similar(arguments: argparse.Namespace) -> None:
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    recommender = run.recommender(unavailable=_lines_of(arguments.unavailable))
    unknown = set(arguments.item) - set(run.dataset.catalog.item_id)
    if unknown:
        raise ConfigError(f"--item: wanted ids of items of the dataset; got {min(unknown)!r}.")
    answer = recommender.similar_items(arguments.item, k=arguments.k)
    _print_answers("item", arguments.item, answer, run.dataset, as_json=arguments.json)


def _card_of(run: "mmrec_tf.runs.run.Run") -> dict[str, object]:
    """The model card of a run; made now where training left none."""
    from mmrec_tf.records.files import read_json
    from mmrec_tf.runs.model_card import FILE, describe_run

    path = run.directory / FILE
    if not path.exists():
        return describe_run(run)
    try:
        return dict(read_json(path))
    except (OSError, ValueError) as error:
        raise RunError(
            f'{path}: wanted the model card; {error}. "mmrec-tf card {run.directory}" writes it '
            "again."
        ) from error


def _lines_of(path: str | None) -> list[str]:
    """The ids of a file with one a line."""
    if not path:
        return []
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def _export(arguments: argparse.Namespace) -> None:
    unavailable = _lines_of(arguments.unavailable)
    card: dict[str, object] = {"run": arguments.run}
    if arguments.only_index:
        from mmrec_tf.runs.warm_start import reembed

        if not arguments.dataset:
            raise ConfigError("--only-index: wanted --dataset DIR, whose items are to be served.")
        run = mmrec_tf.load_run(arguments.run)
        dataset = mmrec_tf.open_dataset(arguments.dataset, verify=arguments.verify)
        recommender, counts = reembed(
            run, dataset, unavailable=unavailable, history=arguments.history
        )
        said = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"items: {said}; {len(unavailable)} withdrawn", file=sys.stderr)
        card["reembedded"] = counts
    else:
        run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
        recommender = run.recommender(unavailable=unavailable, history=arguments.history)
    card["about"] = _card_of(run)
    card["measured"] = {"split": "valid", "history": "train", **run.metrics["valid"]}
    for path in mmrec_tf.export(
        recommender,
        arguments.out,
        version=arguments.version,
        k=arguments.k,
        index=arguments.index,
        min_recall=arguments.min_recall,
        card=card,
    ):
        print(path)
    known = ", ".join(f"{count} {split}" for split, count in recommender.num_known.items())
    print(f"history {recommender.history}: {known} interactions", file=sys.stderr)


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
    command.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        help="write neither RUN/report.html nor the card",
    )
    _add_verify(command)
    command.set_defaults(call=_train)

    command = _run_command(commands, "evaluate", "rank every item for every user of a split")
    _add_measured(command, split="test", stage="retrieval")
    command.add_argument(
        "--baselines", metavar="NAMES", help='such as item_knn,ease; or "all" (docs/evaluation.md)'
    )
    command.add_argument(
        "--slices", action="store_true", help="also by popularity and content of the items"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_evaluate)

    command = _run_command(commands, "report", "write one HTML file about a run")
    command.add_argument("--out", metavar="FILE", help="default: report.html in the run directory")
    command.add_argument("--split", choices=("valid", "test"), default="valid")
    command.add_argument(
        "--baselines",
        metavar="NAMES",
        help='such as ials,bpr; "all"; "" for popularity alone (default: those that are quick)',
    )
    command.set_defaults(call=_report)

    command = _run_command(commands, "card", "write the model card: README.md, model_card.json")
    command.add_argument("--split", choices=("valid", "test"), default="valid")
    command.set_defaults(call=_card)

    command = commands.add_parser("compare", help="runs on one dataset side by side")
    command.add_argument("run", metavar="RUN", nargs="+")
    command.add_argument("--dataset", metavar="DIR", help="where the dataset has moved")
    _add_measured(command, split="valid", stage="recommender")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.add_argument("--out", metavar="FILE", help="also one HTML file")
    _add_verify(command)
    command.set_defaults(call=_compare)

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
    command.add_argument(
        "--stored-history",
        choices=("all", "train"),
        default="all",
        help="the dataset's interactions that are known: those of all splits, or of train alone "
        "(%(default)s)",
    )
    command.add_argument("--exclude", metavar="ID,ID", help="further items not to show")
    command.add_argument(
        "--allow", metavar="NAME=VALUE,...", help="categories of which an item has to have one"
    )
    command.add_argument(
        "--deny", metavar="NAME=VALUE,...", help="categories of which it must have none"
    )
    command.add_argument(
        "--time", type=int, metavar="SECONDS", help="of the request, since 1970 UTC"
    )
    _add_answer(command)
    command.set_defaults(call=_recommend)

    command = _run_command(commands, "similar", "items that are most alike")
    command.add_argument("--item", required=True, action="append", metavar="ID")
    _add_answer(command)
    command.set_defaults(call=_similar)

    command = _run_command(commands, "export", "write SavedModels for TensorFlow Serving")
    command.add_argument("--out", required=True, metavar="EXPORT")
    command.add_argument(
        "--version", type=int, metavar="N", help="above all that were taken there; or the next one"
    )
    command.add_argument("--k", type=int, default=50, help="items an answer holds")
    command.add_argument(
        "--index",
        choices=("auto", "exact", "ivf", "ivf_int8", "ivf_pq"),
        default="auto",
        help="auto: by the number of items (docs/item_index.md)",
    )
    command.add_argument(
        "--min-recall",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="refuse an index that finds less of what an exact one would (%(default)s)",
    )
    command.add_argument(
        "--only-index",
        action="store_true",
        help="serve the items of --dataset, new and changed ones too, without training",
    )
    command.add_argument(
        "--history",
        choices=("all", "train"),
        default="all",
        help="what is known of users: the interactions of all splits, or of train alone "
        "(%(default)s)",
    )
    _add_unavailable(command)
    command.set_defaults(call=_export)
    return parser


def _run_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, description: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=description, description=description)
    command.add_argument("run", metavar="RUN")
    command.add_argument("--dataset", metavar="DIR", help="where the dataset has moved")
    _add_verify(command)
    return command


def _add_answer(command: argparse.ArgumentParser) -> None:
    command.add_argument("--k", type=int, default=10)
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    _add_unavailable(command)


def _add_unavailable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--unavailable", metavar="FILE", help="ids of items that are never shown, one a line"
    )


def _add_measured(command: argparse.ArgumentParser, *, split: str, stage: str) -> None:
    """What is measured; `split` and `stage` are what it is without being told."""
    command.add_argument("--split", choices=("valid", "test"), default=split)
    command.add_argument("--k", default="10,20", metavar="K,K", help="cut-offs")
    command.add_argument(
        "--stage",
        choices=("retrieval", "recommender"),
        default=stage,
        help="recommender: what is left after ranking too (%(default)s)",
    )
    command.add_argument(
        "--history",
        choices=("train", "train+valid"),
        default="train",
        help="what is known of users, and left out; train+valid on the test split only "
        "(%(default)s)",
    )


def _add_verify(command: argparse.ArgumentParser) -> None:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    # TensorFlow's own start-up lines, errors about absent GPUs among them, say nothing to a user
    # of this command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Nor does how it traces what this package wrote.
    logging.getLogger("tensorflow").addFilter(
        lambda record: "triggered tf.function retracing" not in record.getMessage()
    )
    parsed = build_parser().parse_args(arguments)
    return run_command(lambda: parsed.call(parsed))


if __name__ == "__main__":
    sys.exit(main())
