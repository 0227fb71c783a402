"""Searches for the config that ranks best on the valid split.

    python -m tuning.search --dataset work/toy --trials 20 --out work/search

To resume an interrupted search, give the same command again. Only one process at a time may search
in a folder.
"""

import argparse
import contextlib
import csv
import functools
import gc
import json
import math
import os
import pathlib
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import keras_tuner
from keras_tuner.engine import base_tuner

import mmrec_tf as mm
from mmrec_tf.errors import ConfigError, TuningError, run_command
from mmrec_tf.records.files import (
    hold_folder,
    read_json,
    read_sealed,
    replace_file,
    write_json,
    write_sealed,
    write_text,
)
from tuning import space as spaces

# Otherwise KerasTuner prints a traceback per failed trial; trials.csv has the reason, and
# trials/trial_*/trial.json the traceback.
keras_tuner.src.config.DEBUG = False

STRATEGIES = ("random", "bayesian", "hyperband")
DEFAULT_TRIALS = 20

Trial = Callable[[mm.Config], float]


def search(
    dataset_path: str | pathlib.Path,
    config: mm.Config,
    *,
    out: str | pathlib.Path,
    space: spaces.Space | None = None,
    strategy: str = "random",
    trials: int | None = None,
    max_epochs: int | None = None,
    seed: int = 0,
    trial: Trial | None = None,
    report: Callable[[str], None] = print,
) -> mm.Config:
    """Runs a search, or resumes the one in `out`.

    Args:
      dataset_path: a dataset directory; its test split is not read.
      config: where the search starts; `config.training.monitor` on the valid split is maximized.
      out: receives `best_config.json` and `trials.csv`, both rewritten after every trial.
      space: the settings to vary, as in `tuning.space`; None for `default_space(config)`.
      strategy: "random", "bayesian" (Gaussian process, upper confidence bound; Snoek et al. 2012)
        or "hyperband" (Li et al. 2018).
      trials: how many to run at most; None for 20, or as many as one round of Hyperband takes.
      max_epochs: epochs of a trial at most; None for `config.training.epochs`. Hyperband gives
        most trials fewer, and trains the promoted ones again from scratch.
      seed: of the search. The seed of the models is `config.training.seed`.
      trial: config -> score, higher is better; None trains a retrieval model.
      report: receives one line per trial.

    Returns:
      The config of the best trial, as it was trained.

    Raises:
      ConfigError: for an unusable space or argument.
      TuningError: when no trial completed, or `out` holds another search, or another process
        searches there.
    """
    max_epochs = config.training.epochs if max_epochs is None else max_epochs
    config = config.override({"training.epochs": max_epochs})
    space = spaces.default_space(config) if space is None else space
    hyperparameters = spaces.hyperparameters(space, config)
    if trials is None and strategy != "hyperband":
        trials = DEFAULT_TRIALS
    oracle = _oracle(strategy, hyperparameters, config, trials=trials, seed=seed)

    wanted = {
        "dataset": str(pathlib.Path(dataset_path).resolve()),
        "config": config.to_json(),
        "space": space,
        "strategy": strategy,
        "seed": seed,
    }
    if trial is None:
        dataset = mm.open_dataset(str(dataset_path))
        trial = functools.partial(valid_score, dataset)
        wanted["dataset_hash"] = dataset.hash
    out = pathlib.Path(out)
    with hold_folder(out, TuningError, "searches"):
        _same_search(out / "search.json", wanted)
        return _search_in(out, oracle, config, trial=trial, report=report)


def _search_in(
    out: pathlib.Path,
    oracle: keras_tuner.Oracle,
    config: mm.Config,
    *,
    trial: Trial,
    report: Callable[[str], None],
) -> mm.Config:
    """`search`, in a folder that is this process's and of this search."""
    _sweep(out / "trials")
    try:
        # KerasTuner prints to stdout when it resumes, and has no option to turn that off.
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            tuner = _Tuner(oracle, config, out, trial=trial, report=report)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise TuningError(
            f"{out / 'trials'}: the state of the search is damaged ({error}). "
            "Remove that folder to start again."
        ) from error
    with warnings.catch_warnings():
        # The Gaussian process of a Bayesian search warns often when there are few points to fit.
        warnings.filterwarnings("ignore", module="sklearn.gaussian_process")
        tuner.search(verbose=0)
    return tuner.finish()


def _sweep(trials: pathlib.Path) -> None:
    """Removes what a kill left: files that were being written, and a trial that was begun and that
    the search does not know, which would be counted beside the one that takes its place."""
    for left in trials.rglob(".*"):
        left.unlink()
    try:
        known = read_json(trials / "oracle.json")["start_order"] if trials.exists() else []
    except FileNotFoundError:
        known = []
    except (OSError, ValueError, KeyError, TypeError):
        return  # told when it is loaded
    for folder in trials.glob("trial_*"):
        if folder.name.removeprefix("trial_") not in known:
            shutil.rmtree(folder)


class _Kept:
    """An oracle whose state is written aside and renamed, so that a kill leaves one that is whole,
    and in which a trial ends once."""

    def save(self) -> None:
        """Writes the oracle's own state; an ended trial is no longer one to repeat."""
        state = self.get_state()  # type: ignore[attr-defined]
        ended = set(state["end_order"])
        state["ongoing_trials"] = {
            tuner: trial for tuner, trial in state["ongoing_trials"].items() if trial not in ended
        }
        write_text(pathlib.Path(self._get_oracle_fname()), json.dumps(state))  # type: ignore[attr-defined]

    def _save_trial(self, trial: Any) -> None:
        folder = pathlib.Path(self._get_trial_dir(trial.trial_id))  # type: ignore[attr-defined]
        write_text(folder / "trial.json", json.dumps(trial.get_state()))


class _Random(_Kept, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(_Kept, keras_tuner.oracles.HyperbandOracle):
    pass


def valid_score(dataset: mm.Dataset, config: mm.Config) -> float:
    """Trains a retrieval model and returns its best `training.monitor` on the valid split, with the
    head of items against items that its config asks for.

    Raises:
      MmrecError: whatever the model or its training refuses.
    """
    import tensorflow as tf

    # A search builds many models in one process, and Keras keeps all their graphs until told.
    tf.keras.backend.clear_session()
    gc.collect()
    model = mm.RetrievalModel(config, dataset)
    history = mm.train(model, dataset)
    if model.item_head_fit is not None:
        return float(model.item_head_fit.with_head)
    return float(max(history.history[_objective(config)]))


class _Tuner(base_tuner.BaseTuner):
    """KerasTuner's loop around a function that maps a config to a score.

    `run_trial` is overridden because the stock one builds and saves Keras 3 models only.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        config: mm.Config,
        out: pathlib.Path,
        *,
        trial: Trial,
        report: Callable[[str], None],
    ):
        super().__init__(oracle, directory=str(out), project_name="trials", overwrite=False)
        self._config = config
        self._out = out
        self._trial = trial
        self._report = report

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        start = time.monotonic()
        try:
            score = float(self._trial(self._trial_config(trial)))
            if not math.isfinite(score):
                raise TuningError(f"the score is {score}")
        except Exception as error:
            # On one line, which `_reason` finds again even after a resume.
            said = " ".join(str(error).split())
            raise keras_tuner.errors.FailedTrialError(f"{type(error).__name__}: {said}") from error
        finally:
            self._seconds = time.monotonic() - start
        return {self.oracle.objective.name: score}

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        self._write()
        trial = self.oracle.get_trial(trial.trial_id)
        done = len(self.oracle.end_order)
        of = f" of {self.oracle.max_trials}" if self.oracle.max_trials else ""
        settings = " ".join(f"{k}={_short(v)}" for k, v in _settings(trial).items())
        best = self._best()
        result = (
            f"{self.oracle.objective.name} {trial.score:.4f} (best {best.score:.4f})"
            if trial.status == "COMPLETED"
            else f"failed: {_reason(trial)}"
        )
        self._report(f"trial {done}{of}: {result} in {self._seconds:.0f} s, {settings}")
        # If the first three all fail, the next would most likely fail as well.
        if best is None and done >= 3:
            self._no_trial_completed()

    def finish(self) -> mm.Config:
        """The config of the best trial, once the search is over."""
        best = self._best()
        if best is None:
            self._no_trial_completed()
        self._write()
        return self._trial_config(best)

    def _trial_config(self, trial: Any) -> mm.Config:
        settings = spaces.overrides(trial.hyperparameters.values)
        if "tuner/epochs" in trial.hyperparameters.values:
            settings["training.epochs"] = trial.hyperparameters.values["tuner/epochs"]
        return self._config.override(settings)

    def _ended(self) -> list[Any]:
        return [self.oracle.get_trial(trial_id) for trial_id in self.oracle.end_order]

    def _best(self) -> Any:
        completed = [trial for trial in self._ended() if trial.status == "COMPLETED"]
        return max(completed, key=lambda trial: trial.score, default=None)

    def _no_trial_completed(self) -> NoReturn:
        ended = self._ended()
        reason = f"The last one: {_reason(ended[-1])}" if ended else "None was started."
        raise TuningError(
            f"{self._out}: wanted at least one completed trial; all {len(ended)} failed. {reason}"
        )

    def _write(self) -> None:
        best = self._best()
        if best is not None:
            write_json(self._out / "best_config.json", self._trial_config(best).to_json())
        paths = [hp.name for hp in self.oracle.hyperparameters.space]
        with (
            replace_file(self._out / "trials.csv") as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(
                ["trial", "status", self.oracle.objective.name, "epochs", *paths, "reason"]
            )
            for trial in self._ended():
                settings = _settings(trial)
                writer.writerow(
                    [
                        trial.trial_id,
                        trial.status.lower(),
                        "" if trial.score is None else trial.score,
                        trial.hyperparameters.values.get(
                            "tuner/epochs", self._config.training.epochs
                        ),
                        *(settings.get(path, "") for path in paths),
                        "" if trial.status == "COMPLETED" else _reason(trial),
                    ]
                )


def _oracle(
    strategy: str,
    hyperparameters: keras_tuner.HyperParameters,
    config: mm.Config,
    *,
    trials: int | None,
    seed: int,
) -> keras_tuner.Oracle:
    if trials is not None and trials < 1:
        raise ConfigError(f"trials: wanted at least 1; got {trials}.")
    if seed < 0:
        raise ConfigError(f"seed: wanted 0 or more; got {seed}.")
    arguments: dict[str, Any] = {
        "objective": keras_tuner.Objective(_objective(config), "max"),
        "hyperparameters": hyperparameters,
        "allow_new_entries": False,
        "seed": seed + 1,  # KerasTuner reads 0 as "any".
        # _Tuner.on_trial_end decides when failures end a search.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if strategy == "random":
        return _Random(max_trials=trials, **arguments)
    if strategy == "bayesian":
        # By default 3 random trials a setting come first: more than a short search has.
        first = min(3 * len(hyperparameters.space), max(3, (trials or DEFAULT_TRIALS) // 3))
        return _Bayesian(max_trials=trials, num_initial_points=first, **arguments)
    if strategy == "hyperband":
        oracle = _Hyperband(max_epochs=config.training.epochs, **arguments)
        oracle.max_trials = trials
        return oracle
    raise ConfigError(f"strategy: wanted one of {', '.join(STRATEGIES)}; got {strategy!r}.")


def _objective(config: mm.Config) -> str:
    return f"valid_{config.training.monitor}"


def _settings(trial: Any) -> dict[str, Any]:
    return spaces.overrides(trial.hyperparameters.values)


def _reason(trial: Any) -> str:
    """Why a trial failed: what `run_trial` said, the last line of the recorded traceback."""
    lines = (trial.message or "it gave no score").strip().splitlines()
    return lines[-1].removeprefix("keras_tuner.src.errors.FailedTrialError: ")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _same_search(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Records what is searched; refuses to go on with a search for something else."""
    wanted = json.loads(json.dumps(wanted))
    if path.exists():
        try:
            found = read_sealed(path)
        except (OSError, ValueError) as error:
            raise TuningError(
                f"{path}: wanted what is searched here; {error}. Remove {path.parent} to start "
                "again, or choose another --out."
            ) from error
        different = [name for name in wanted if found.get(name) != wanted[name]]
        if different:
            raise TuningError(
                f"{path.parent}: holds a search with another {' and '.join(different)}. "
                "Choose another --out, or remove it to start again."
            )
    else:
        write_sealed(path, wanted)


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m tuning.search`; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tuning.search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--config", metavar="FILE", help="where to start (default: all defaults)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one setting of the start, such as training.batch_size=256",
    )
    parser.add_argument("--space", metavar="FILE", help="what to vary (default: see the README)")
    parser.add_argument("--strategy", choices=STRATEGIES, default="random")
    parser.add_argument(
        "--trials", type=int, metavar="N", help=f"at most (default: {DEFAULT_TRIALS})"
    )
    parser.add_argument("--max-epochs", type=int, metavar="N", help="of one trial")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return run_command(lambda: _search(options))


def _search(options: argparse.Namespace) -> None:
    config = mm.load_config(options.config) if options.config else mm.Config()
    try:
        search(
            options.dataset,
            config.override(_assignments(options.set)),
            out=options.out,
            space=spaces.load_space(options.space) if options.space else None,
            strategy=options.strategy,
            trials=options.trials,
            max_epochs=options.max_epochs,
            seed=options.seed,
        )
    except KeyboardInterrupt:
        print("give the same command again to go on", file=sys.stderr)
        raise
    best = pathlib.Path(options.out) / "best_config.json"
    print(f"mmrec-tf train --dataset {options.dataset} --config {best} --out RUN")


def _assignments(texts: list[str]) -> dict[str, str]:
    """`--set` arguments as `Config.override` takes them."""
    result = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set: wanted PATH=VALUE; got {text!r}.")
        result[path] = value
    return result


if __name__ == "__main__":
    sys.exit(main())
