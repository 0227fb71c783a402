"""Searches for the config that does best on the valid split.

    python -m tuning.search --dataset work/toy --space whole --trials 20 --out work/search

To resume an interrupted search, give the same command again. Only one process at a time may search
in a folder; with --workers it has others help it.
"""

import argparse
import os
import sys

import mmrec_tf as mm
from mmrec_tf.config import read_settings
from mmrec_tf.errors import ConfigError, did_you_mean, run_command
from tuning import space as spaces
from tuning.oracle import STRATEGIES
from tuning.results.retrain import retrain
from tuning.tuner.search import Search, join


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m tuning.search`; returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.join is not None:
        return run_command(lambda: join(options.join).search())
    return run_command(lambda: _search(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuning.search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dataset", metavar="DIR")
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--config", metavar="FILE", help="where to start (default: all defaults)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one setting of the start, such as training.batch_size=256",
    )
    parser.add_argument(
        "--space",
        metavar="NAME",
        help=f"what to vary: {', '.join(spaces.SPACES)}, or a JSON file (default: see the README)",
    )
    parser.add_argument(
        "--objective",
        metavar="METRIC",
        help="such as recommender.ndcg@10, ranking.auc, or a weighted sum (default: "
        "training.monitor)",
    )
    parser.add_argument("--strategy", choices=STRATEGIES, default="random")
    parser.add_argument("--trials", type=int, metavar="N", help="at most (default: 20)")
    parser.add_argument("--hours", type=float, metavar="H", help="after which no trial begins")
    parser.add_argument("--max-epochs", type=int, metavar="N", help="of one trial")
    parser.add_argument("--trial-minutes", type=float, metavar="M", help="of one trial at most")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of a trial")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument(
        "--start-from",
        action="append",
        default=[],
        metavar="FILE",
        help="a config that is tried first, after the start",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes on this machine"
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train the best config at last, and evaluate it once on test",
    )
    parser.add_argument(
        "--join", metavar="DIR", help="as a worker of the search there (KERASTUNER_* say which)"
    )
    return parser


def _search(options: argparse.Namespace) -> None:
    for name in ("dataset", "out"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name}: wanted a folder; got none.")
    config = mm.load_config(options.config) if options.config else mm.Config()
    try:
        found = Search(
            options.dataset,
            config.override(read_settings(options.set)),
            _space(options.space),
            out=options.out,
            objective=options.objective,
            strategy=options.strategy,
            trials=options.trials,
            hours=options.hours,
            max_epochs=options.max_epochs,
            minutes=options.trial_minutes,
            seeds=options.seeds,
            seed=options.seed,
            workers=options.workers,
            start_from=[mm.load_config(path) for path in options.start_from],
        )
        found.search()
        if found.is_worker:
            return
        if options.retrain:
            retrain(found)
    except KeyboardInterrupt:
        print("give the same command again to go on", file=sys.stderr)
        raise
    print(f"{found.out / 'report.html'}: what was found")
    best = found.out / "best_config.json"
    if not options.retrain:
        print(f"mmrec-tf train --dataset {options.dataset} --config {best} --out RUN")


def _space(given: str | None) -> spaces.Space | str | None:
    """A space by its name, or from its file."""
    if given is None or given in spaces.SPACES:
        return given
    if os.sep not in given and "." not in given and not os.path.exists(given):
        raise ConfigError(
            f"--space: wanted a file or one of {', '.join(spaces.SPACES)}; got {given!r}"
            f"{did_you_mean(given, spaces.SPACES, otherwise='.')}"
        )
    return spaces.load_space(given)


if __name__ == "__main__":
    sys.exit(main())
