"""The `mmrec-tf` command: parses, calls, prints. Each command's body is one library call.

Exit status: 0; 2 for wrong usage or config; 1 for any other MmrecError, one line on stderr; 3 where
`drift` raises an alarm.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import mmrec_tf
from mmrec_tf.config import Config, load_config, read_settings
from mmrec_tf.errors import ConfigError, run_command
from mmrec_tf.reporting import tables

# The exit status of an alarm, which is no error.
DRIFTED = 3
# Items are numbered by 32 bits.
LARGEST_K = 2**31 - 1


def _train(arguments: argparse.Namespace) -> None:
    # Before TensorFlow is imported, so that a wrong config is answered at once.
    path = arguments.config
    if arguments.start and not path:
        path = os.path.join(arguments.start, "config.json")
    config = load_config(path) if path else Config()
    config = config.override(read_settings(arguments.set))

    from mmrec_tf.runs.train import train_run
    from mmrec_tf.training.devices import choose_devices
    from mmrec_tf.training.tracking import tracking

    strategy = choose_devices(arguments.devices)
    dataset = mmrec_tf.open_dataset(arguments.dataset, verify=arguments.verify)
    log = arguments.tensorboard
    if log == "":
        log = os.path.join(arguments.out, "tensorboard")
    began = time.monotonic()
    with (
        tracking(
            config,
            name=os.path.basename(os.path.normpath(arguments.out)),
            tensorboard=log,
            profile=_batches(arguments.profile),
            mlflow=arguments.mlflow,
            wandb=arguments.wandb,
        ) as callbacks,
        strategy.scope(),
    ):
        run = train_run(
            dataset,
            config,
            arguments.out,
            twin=arguments.twin,
            start=arguments.start or None,
            callbacks=callbacks,
        )
    cost = time.monotonic() - began
    metrics = run.metrics
    title = f"{run.directory}, valid split, history {metrics['history']}"
    tables.print_table(title, metrics["valid"])
    if config.ranking.epochs:
        print(tables.ranking_verdict(metrics["ranking"], served=run.serves_ranking))
    if log:
        from mmrec_tf.reporting.projector import write_projector

        write_projector(run, log)
        print(f'TensorBoard: "tensorboard --logdir {log}" shows it', file=sys.stderr)
    if arguments.report:
        from mmrec_tf.reporting.report import report_training

        report_training(run, seconds=cost)


def _card(arguments: argparse.Namespace) -> None:
    from mmrec_tf.runs.model_card import write_card

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    print(write_card(run, split=arguments.split))


def _batches(text: str | None) -> tuple[int, int] | None:
    """The first and the last batch to profile; None for none."""
    if text is None:
        return None
    first, _, last = text.partition(",")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise ConfigError(
            f"--profile: wanted a first and a last batch such as 10,20; got {text!r}."
        )
    return int(first), int(last)


def _report(arguments: argparse.Namespace) -> None:
    from mmrec_tf.reporting.report import write_report

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    names = None
    if arguments.baselines is not None:
        names = [name.strip() for name in arguments.baselines.split(",") if name.strip()]
    path = write_report(
        run,
        out=arguments.out,
        split=arguments.split,
        baselines=names,
        group=arguments.group,
        plots=arguments.plots,
    )
    print(path)


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
    knowable = None
    if ceiling is not None:
        knowable = run.dataset.ceiling(arguments.split, knowable=True)
        if knowable is None:
            print(f"no knowable ceiling: {tables.NO_KNOWABLE}", file=sys.stderr)
    tables.print_evaluation(arguments.run, result, ceiling=ceiling, knowable=knowable)
    if "ranking" in result and run.ranks:
        print("\n" + tables.ranking_verdict(result["ranking"], served=run.serves_ranking))


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

    if arguments.writer and not arguments.why:
        raise ConfigError("--writer: phrases what --why says; add --why.")
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    lists = {name: getattr(arguments, name) for name in ("history", "exclude", "allow", "deny")}
    split = {name: split_ids(value) for name, value in lists.items() if value}
    given = {name: [parts] * len(arguments.user) for name, parts in split.items()}
    time = [arguments.time] * len(arguments.user) if arguments.time else None
    recommender = run.recommender(
        unavailable=_lines_of(arguments.unavailable),
        history=arguments.stored_history,
        compiled=False,
    )
    answer = recommender.recommend(arguments.user, **given, time=time, k=arguments.k)
    catalog, users = set(run.dataset.catalog.item_id), set(run.dataset.users.user_id)
    for name in ("history", "exclude"):
        _tell_unknown(f"--{name}", [one for one in split.get(name, ()) if one not in catalog])
    by = "the history" if catalog & set(split.get("history", ())) else "what is popular"
    for user in arguments.user:
        if user not in users:
            print(f"--user: the dataset has no {user!r}; answered by {by}.", file=sys.stderr)
    columns = {name: part for name, part in answer._asdict().items() if part is not None}
    if arguments.why:
        from mmrec_tf.reporting.explanation import Teller, explain_answers, say_refused

        teller = Teller(run.dataset, writer=_writer(arguments.writer))
        history = split.get("history") or None
        whys = explain_answers(recommender, arguments.user, answer, teller=teller, history=history)
        say_refused(teller)
        tables.add_reasons(columns, whys, as_json=arguments.json)
    _print_answers("user", arguments.user, columns, run.dataset, as_json=arguments.json)


def _print_answers(
    asked: str,
    ids: Sequence[str],
    columns: dict[str, Any],
    dataset: "mmrec_tf.Dataset",
    *,
    as_json: bool,
) -> None:
    from mmrec_tf.dataset.titles import titles_of_ids

    named = {"title": "item_id", "history_title": "history_item"}
    named = {name: of for name, of in named.items() if of in columns}
    tables.print_answers(
        asked,
        ids,
        columns,
        titles={name: titles_of_ids(dataset, columns[of]) for name, of in named.items()},
        as_json=as_json,
    )


def _writer(path: str | None) -> Any:
    """What phrases reasons; None for templates."""
    if not path:
        return None
    from mmrec_tf.reporting.sentences import Writer

    return Writer(path)


def _explain(arguments: argparse.Namespace) -> None:
    from mmrec_tf.recommender.inputs import split_ids
    from mmrec_tf.reporting.explanation import Teller, say_refused, write_picture
    from mmrec_tf.runs.explanation import explain

    if arguments.picture and len(arguments.item) > 1:
        raise ConfigError("--picture: wanted one --item, of which it is one; got several.")
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    history = split_ids(arguments.history) if arguments.history else None
    catalog, users = set(run.dataset.catalog.item_id), set(run.dataset.users.user_id)
    _tell_unknown("--history", [one for one in history or () if one not in catalog])
    if arguments.user not in users:
        print(f"--user: the dataset has no {arguments.user!r}.", file=sys.stderr)
    teller = Teller(run.dataset, writer=_writer(arguments.writer))
    found = explain(
        run.recommender(history=arguments.stored_history),
        arguments.user,
        arguments.item,
        history=history,
        profile=arguments.profile or "",
        evidence=arguments.evidence,
    )
    if arguments.json:
        print(json.dumps({"explanations": [teller.to_json(one) for one in found]}))
    else:
        print("\n\n".join(teller.text(one) for one in found))
    say_refused(teller)
    if arguments.picture:
        print(write_picture(teller.picture(found[0]), arguments.picture), file=sys.stderr)


def _tell_unknown(option: str, ids: Sequence[str]) -> None:
    """Says which ids of a list had no effect."""
    if ids:
        print(f"{option}: no item has the id {', '.join(map(repr, ids))}.", file=sys.stderr)


def _tag(arguments: argparse.Namespace) -> None:
    from mmrec_tf.runs.labels import report_labels, require_heads, tag_items

    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    require_heads(run)
    if arguments.item or arguments.all:
        found = tag_items(run, arguments.item or None)
        tables.print_tags(found, k=arguments.k, as_json=arguments.json)
        return
    report = report_labels(run.retrieval)
    if arguments.json:
        print(json.dumps(report))
        return
    tables.print_labels(arguments.run, report)


def _drift(arguments: argparse.Namespace) -> int:
    from mmrec_tf.reporting.drift import print_drift, write_drift
    from mmrec_tf.runs.drift import measure_drift

    run = mmrec_tf.load_run(arguments.run) if arguments.run else None
    found = measure_drift(arguments.reference, arguments.new, run=run)
    if arguments.json:
        print(json.dumps(found))
    else:
        print_drift(found)
    if arguments.out:
        print(write_drift(found, arguments.out), file=sys.stderr)
    return DRIFTED if found["alarm"] else 0


def _similar(arguments: argparse.Namespace) -> None:
    run = mmrec_tf.load_run(arguments.run, dataset=arguments.dataset, verify=arguments.verify)
    recommender = run.recommender(unavailable=_lines_of(arguments.unavailable), compiled=False)
    unknown = set(arguments.item) - set(run.dataset.catalog.item_id)
    if unknown:
        raise ConfigError(f"--item: wanted ids of items of the dataset; got {min(unknown)!r}.")
    answer = recommender.similar_items(arguments.item, k=arguments.k)
    _print_answers("item", arguments.item, answer._asdict(), run.dataset, as_json=arguments.json)


def _encoders(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config) if arguments.config else Config()
    config = config.override(read_settings(arguments.set))

    from mmrec_tf.encoders.families import list_families

    families = [family._asdict() for family in list_families(config)]
    if arguments.json:
        print(json.dumps(families))
    else:
        tables.print_families(families)


def _lines_of(path: str | None) -> list[str]:
    """The ids of a file with one a line."""
    if not path:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: wanted ids in UTF-8, one a line; {error.reason}.") from error


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
    from mmrec_tf.runs.model_card import card_of

    card["about"] = card_of(run)
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
        "--devices",
        metavar="all|N",
        help="GPUs that share each batch; the first one if left out",
    )
    command.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        help="write neither RUN/report.html nor the card",
    )
    command.add_argument(
        "--tensorboard",
        nargs="?",
        const="",
        metavar="DIR",
        help="log scalars, settings and the items' map for TensorBoard (RUN/tensorboard)",
    )
    command.add_argument(
        "--profile", metavar="FIRST,LAST", help="batches to profile, seen in TensorBoard"
    )
    command.add_argument("--mlflow", action="store_true", help="log to MLflow, an extra")
    command.add_argument("--wandb", action="store_true", help="log to Weights & Biases, an extra")
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
    command.add_argument(
        "--group",
        metavar="FEATURE",
        help="of items, such as their provider: exposure against relevance by it",
    )
    command.add_argument(
        "--plots", choices=("svg", "png"), help="also write the drawings, into a folder beside it"
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
    _add_stored_history(command)
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
    command.add_argument(
        "--why", action="store_true", help="also why, in words; with --json what adds to each score"
    )
    _add_writer(command)
    _add_answer(command)
    command.set_defaults(call=_recommend)

    command = _run_command(commands, "explain", "take apart why a user is shown an item")
    command.add_argument("--user", required=True, metavar="ID")
    command.add_argument("--item", required=True, action="append", metavar="ID")
    command.add_argument("--history", metavar="ID,ID", help="items, oldest first")
    command.add_argument("--profile", metavar="TEXT", help="in place of the stored one")
    _add_stored_history(command)
    command.add_argument(
        "--no-evidence",
        dest="evidence",
        action="store_false",
        help="do not look for words, regions and spans, which runs the encoders",
    )
    command.add_argument("--picture", metavar="FILE", help="also as .svg or .png")
    _add_writer(command)
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_explain)

    command = _run_command(
        commands, "tag", "labels of items by their content, and how far they can be trusted"
    )
    command.add_argument("--item", action="append", metavar="ID", help="tag this item")
    command.add_argument("--all", action="store_true", help="tag all items; without either: report")
    command.add_argument("--k", type=int, default=5, help="labels an item (%(default)s)")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.set_defaults(call=_tag)

    command = commands.add_parser(
        "drift", help="whether what comes in still is what was trained on"
    )
    command.add_argument("--reference", required=True, metavar="DATASET")
    command.add_argument(
        "--new", required=True, metavar="DATASET", help="or a log of requests, .jsonl"
    )
    command.add_argument(
        "--run", metavar="RUN", help="compare vectors of its encoders, and its scores, too"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.add_argument("--out", metavar="FILE", help="also one HTML file")
    command.set_defaults(call=_drift)

    command = _run_command(commands, "similar", "items that are most alike")
    command.add_argument("--item", required=True, action="append", metavar="ID")
    _add_answer(command)
    command.set_defaults(call=_similar)

    command = commands.add_parser("encoders", help="list what can read text, pictures and sounds")
    command.add_argument(
        "--config", metavar="FILE", help="JSON; those that it chooses are measured"
    )
    command.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    command.add_argument("--json", action="store_true", help="one JSON array on stdout")
    command.set_defaults(call=_encoders)

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


def _add_stored_history(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stored-history",
        choices=("all", "train"),
        default="all",
        help="the dataset's interactions that are known: those of all splits, or of train alone "
        "(%(default)s)",
    )


def _add_writer(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--writer",
        metavar="DIR",
        help="a local causal language model that phrases the sentence, GPT-2 or the like",
    )


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


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > LARGEST_K:
        raise ConfigError(f"--k: wanted numbers of 1 to {LARGEST_K} such as 10,20; got {text!r}.")
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
