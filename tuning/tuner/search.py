"""A search: a tuner over a dataset, its folder, and what is written there as trials end."""

import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import keras_tuner

import mmrec_tf as mm
from mmrec_tf.errors import ConfigError, TuningError
from mmrec_tf.records.files import hold_folder, read_sealed, write_sealed
from tuning import space as spaces
from tuning.objective import parse
from tuning.oracle import build_oracle, num_trials
from tuning.results import table
from tuning.results.table import Row
from tuning.trial import Recommenders, Trial, ValidDataset
from tuning.tuner import chief
from tuning.tuner.tuner import (
    HyperRecommender,
    RecommenderTuner,
    end_with_parent,
    require_positive,
    sweep,
)

# Otherwise KerasTuner prints a traceback per failed trial; trials.csv has the reason.
keras_tuner.src.config.DEBUG = False

# The page is written no more often than this while a search goes on.
PAGE_SECONDS = 60.0
FACTS = "search.json"


def say(line: str) -> None:
    """Prints a line at once, whoever reads it."""
    print(line, flush=True)


class Search(RecommenderTuner):
    """A search over a dataset: a KerasTuner tuner, whose `search()` runs it or goes on with it.

    `get_best_hyperparameters()`, `results_summary()` and `search_space_summary()` are KerasTuner's;
    `best_config` is the config of the best trial.

    Args:
      dataset: path of a dataset directory; its test split is not read.
      config: where the search starts; what the space does not vary keeps its value.
      space: what to vary: by setting its range, as in `tuning.space`; the name of a ready-made
        space; hyperparameters named after settings, or a function that registers such ones; None
        for the default space.
      out: folder for `best_config.json`, `trials.csv`, `report.html` and the state.
      objective: such as "recommender.ndcg@10", see `tuning.objective`; None for
        `training.monitor`, of retrieval or of the recommender's lists, as the space asks.
      strategy: "random", "bayesian" (Gaussian process), "hyperband" or "grid".
      trials: how many at most; None for 20, all points of a grid, or one round of Hyperband.
      hours: after how many no trial begins, counted from this call; None for no limit.
      max_epochs: of a trial, in the stage that the space varies first; None for what the config
        says. Hyperband gives most trials fewer.
      minutes: how long a trial may take, all seeds together; None for as long as it does.
      seeds: how many times each trial is trained, from `training.seed` on.
      seed: of the search.
      workers: processes on this machine; 0 runs trials in this one.
      start_from: configs that come first after the start; they may differ from it in settings that
        the space varies, within their ranges.
      trial: what trains and measures a config; None for `tuning.trial.Recommenders`.
      report: receives a line a trial.

    Raises:
      ConfigError: for an unusable space, objective or argument.
      DatasetError: for a dataset that is missing or damaged.
      TuningError: when `out` holds another search, or its state is damaged.
    """

    def __init__(
        self,
        dataset: str | pathlib.Path,
        config: mm.Config,
        space: spaces.AnySpace | str | None = None,
        *,
        out: str | pathlib.Path,
        objective: str | None = None,
        strategy: str = "random",
        trials: int | None = None,
        hours: float | None = None,
        max_epochs: int | None = None,
        minutes: float | None = None,
        seeds: int = 1,
        seed: int = 0,
        workers: int = 0,
        start_from: Sequence[mm.Config] = (),
        trial: Trial | None = None,
        report: Callable[[str], None] = say,
    ):
        for name, value in (("hours", hours), ("minutes", minutes)):
            require_positive(name, value)
        at_least = {"trials": (trials, 1), "seeds": (seeds, 1), "seed": (seed, 0)}
        for name, (number, least) in {**at_least, "workers": (workers, 0)}.items():
            if number is not None and number < least:
                wanted = "at least 1" if least else "0 or more"
                raise ConfigError(f"{name}: wanted {wanted}; got {number}.")
        if workers and trial is not None:
            raise ConfigError(
                "workers: wanted 0 with a trial of one's own, which they do not know."
            )
        self.out = pathlib.Path(out)
        self.hours, self.workers = hours, workers
        self._report = report
        data = None if trial is not None else ValidDataset(dataset)
        schema = None if data is None else data.schema
        if isinstance(space, str):
            space, left_out = spaces.ready_made(space, config, schema=schema)
            for path, reason in left_out.items():
                report(f"left out of the space: {path} {reason}")
        if space is None:
            space = spaces.default_space(config)
        self.space = spaces.hyperparameters(space, config, schema=schema)
        self.settings = spaces.touched(self.space)
        self.varied = sorted({spaces.stage_of(path) for path in self.settings})
        if strategy == "hyperband" and self.varied == ["recommender"]:
            raise ConfigError(
                "strategy: hyperband shares out epochs, and this space varies recommender.* alone, "
                "which is measured without training. Choose bayesian, random or grid."
            )
        stage = "retrieval" if "retrieval" in self.varied else self.varied[0]
        paced = "ranking" if self.varied[0] == "ranking" and stage != "retrieval" else "retrieval"
        epochs_of = "ranking.epochs" if paced == "ranking" else "training.epochs"
        if epochs_of in self.settings and (strategy == "hyperband" or max_epochs is not None):
            raise ConfigError(
                f"search space: {epochs_of} is what hyperband and --max-epochs decide; leave it "
                "out."
            )
        if max_epochs is not None:
            config = config.override({epochs_of: max_epochs})
        self.config = config
        goal = parse(objective, config, self.settings)
        queue = self._first_trials(start_from, strategy)
        oracle = build_oracle(
            strategy,
            self.space,
            goal,
            max_epochs=config.ranking.epochs if paced == "ranking" else config.training.epochs,
            trials=trials,
            seed=seed,
            queue=queue,
        )
        self.facts: dict[str, Any] = {
            "dataset": str(pathlib.Path(dataset).resolve()),
            "config": config.to_json(),
            "space": self.space.get_config(),
            "objective": goal.name,
            "strategy": strategy,
            "seed": seed,
            "seeds": seeds,
            "minutes": minutes,
            "first": queue,
        }
        if data is not None:
            self.facts["dataset_hash"] = data.hash
        if trial is None:
            assert data is not None
            trial = Recommenders(
                data,
                goal,
                shared=self.out / "shared",
                varied=self.varied,
                paced=paced,
                start=config,
            )
        self._began = time.monotonic()
        self._before = 0  # trials of earlier calls
        self._page_at = self._began
        self._same_search(write=False)
        super().__init__(
            HyperRecommender(data, config, self.space),
            oracle,
            objective=goal,
            trial=trial,
            directory=self.out,
            seeds=seeds,
            minutes=minutes,
            paced=strategy == "hyperband",
        )
        oracle.ended = self._trial_ended

    # The search

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the search, or goes on with it; in a worker (`KERASTUNER_TUNER_ID`), its trials.

        Raises:
          TuningError: when no trial completed, another process searches there, or workers die.
        """
        if self.is_worker:
            self._work()
            return
        with hold_folder(self.out, TuningError, "searches"):
            self._same_search(write=True)
            sweep(self.out / "trials")
            self.reload()
            self._began, self._before = time.monotonic(), len(self._known.end_order)
            if self.hours is not None:
                self._known.deadline = self._began + 3600 * self.hours
            try:
                self._run_trials()
            except KeyboardInterrupt:
                self._write_page()
                raise
            self._finish()

    def _run_trials(self) -> None:
        if self.is_chief:
            chief.serve(self._known, chief.chief_address(), report=self._report)
        elif self.workers:
            command = chief.worker_command(self.out)
            with chief.workers(self.workers, self.out, command) as (address, children):
                chief.serve(self._known, address, report=self._report, children=children)
        else:
            super().search()

    def _work(self) -> None:
        end_with_parent()
        try:
            super().search()
        except grpc.RpcError as error:
            raise TuningError(
                f"{chief.chief_address()}: wanted the chief of the search; it does not answer "
                f"({error.code().name}). Start it, and this worker again."
            ) from error

    @property
    def rows(self) -> list[Row]:
        """The trials that have ended, in that order."""
        oracle = self._known
        return [table.row_of(oracle.trials[n], oracle.result(n)) for n in oracle.end_order]

    @property
    def best(self) -> Row | None:
        """The best trial so far."""
        return table.best_row(self.rows, self.objective)

    @property
    def best_config(self) -> mm.Config:
        """The config of the best trial, as it was trained.

        Raises:
          TuningError: when no trial completed.
        """
        best = self.best
        if best is None:
            ended = self.rows
            reason = f"The last one: {ended[-1].reason}" if ended else "None was started."
            raise TuningError(
                f"{self.out}: wanted at least one completed trial; all {len(ended)} failed. "
                f"{reason}"
            )
        return self.hypermodel.config_of(best.settings)

    def _trial_ended(self, trial: Any) -> None:
        rows = self.rows
        row, best = rows[-1], table.best_row(rows, self.objective)
        self._write(rows, best)
        if row.completed:
            spread = "" if row.spread is None else f" ± {row.spread:.4f}"
            assert row.score is not None and best is not None and best.score is not None
            result = f"{self.objective.name} {row.score:.4f}{spread} (best {best.score:.4f})"
            from tuning.results.board import write_board

            write_board(self.out / "tensorboard", row, self.objective, self.settings)
        else:
            result = f"failed: {row.reason}"
        whole = num_trials(self._known)
        of = f" of {whole}" if whole else ""
        settings = " ".join(f"{k}={table.short(v)}" for k, v in row.settings.items())
        took = f"{row.seconds:.0f} s{self._left(len(rows), whole)}"
        self._report(f"trial {len(rows)}{of}: {result} in {took}, {settings}")
        if time.monotonic() - self._page_at > PAGE_SECONDS:
            self._write_page()

    def _left(self, done: int, whole: int | None) -> str:
        """How long the rest will take at the pace of this call; "" where nobody knows."""
        now, pace = time.monotonic(), None
        if done > self._before:
            pace = (now - self._began) / (done - self._before)
        left = None if pace is None or whole is None else max(whole - done, 0) * pace
        if self._known.deadline is not None:
            rest = max(self._known.deadline - now, 0.0)
            left = rest if left is None else min(left, rest)
        if left is None:
            return ""
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"

    def _write(self, rows: Sequence[Row], best: Row | None) -> None:
        if best is not None:
            table.write_best(
                self.out / "best_config.json", self.hypermodel.config_of(best.settings)
            )
        table.write_trials(
            self.out / "trials.csv", rows, self.objective, self.config, self.settings
        )

    def _write_page(self) -> None:
        from tuning.results.report import write_report

        self._page_at = time.monotonic()
        write_report(
            self.out / "report.html",
            self.rows,
            self.objective,
            self.settings,
            facts=self.facts,
            first=len(self.facts["first"]),
        )

    def _finish(self) -> None:
        rows = self.rows
        self._write(rows, table.best_row(rows, self.objective))
        if rows:
            self._write_page()
        self.best_config  # noqa: B018 - raises where no trial completed

    def _first_trials(self, start_from: Sequence[mm.Config], strategy: str) -> list[dict[str, Any]]:
        """Values of the start and of the configs that come after it.

        Raises:
          ConfigError: for a config that the space does not hold.
        """
        values, outside = spaces.values_of(self.config, self.space)
        queue = []
        if outside:
            said = "; ".join(f"{path} {reason}" for path, reason in outside.items())
            self._report(f"the start lies outside the space, and is no trial: {said}")
        else:
            queue.append(values)
        for config in start_from:
            values, outside = spaces.values_of(config, self.space)
            if outside:
                said = "; ".join(f"{path} {reason}" for path, reason in outside.items())
                raise ConfigError(
                    f"--start-from: wanted a config within the space; {said}. Widen the space."
                )
            reached = self.config.override(spaces.overrides(values))
            other = spaces.differences(config, reached)
            if other:
                raise ConfigError(
                    "--start-from: wanted a config that differs from the start only in what the "
                    f"space varies; it does also in {', '.join(other)}. Add these to the space, or "
                    "start with --config from it."
                )
            if values not in queue:
                queue.append(values)
        return queue

    def _same_search(self, *, write: bool) -> None:
        """Records what is searched; refuses to go on with a search for something else."""
        path = self.out / FACTS
        wanted = json.loads(json.dumps(self.facts))
        if not path.exists():
            if write:
                write_sealed(path, wanted)
            return
        found = read_facts(path)
        different = [name for name in wanted if found.get(name) != wanted[name]]
        if different:
            raise TuningError(
                f"{path.parent}: holds a search with another {' and '.join(different)}. "
                "Choose another --out, or remove it to start again."
            )


def read_facts(path: pathlib.Path) -> dict[str, Any]:
    """What is searched in a folder.

    Raises:
      TuningError: when nobody knows.
    """
    try:
        return read_sealed(path)
    except (OSError, ValueError) as error:
        raise TuningError(
            f"{path}: wanted what is searched here; {error}. Remove {path.parent} to start "
            "again, or choose another --out."
        ) from error


def search(
    dataset: str | pathlib.Path,
    config: mm.Config,
    *,
    out: str | pathlib.Path,
    **options: Any,
) -> mm.Config:
    """Runs a search, or goes on with the one in `out`; arguments are those of `Search`.

    Returns:
      The config of the best trial, as it was trained.

    Raises:
      ConfigError: for an unusable space or argument.
      TuningError: when no trial completed, or `out` holds another search, or another process
        searches there.
    """
    found = Search(dataset, config, out=out, **options)
    found.search()
    return found.best_config


def join(out: str | pathlib.Path, *, report: Callable[[str], None] = say) -> Search:
    """The search in a folder, as a worker of it runs it.

    Raises:
      TuningError: where there is none.
    """
    path = pathlib.Path(out) / FACTS
    facts = read_facts(path)
    try:
        return Search(
            facts["dataset"],
            mm.Config.from_json(facts["config"]),
            keras_tuner.HyperParameters.from_config(facts["space"]),
            out=out,
            objective=facts["objective"],
            strategy=facts["strategy"],
            seed=facts["seed"],
            seeds=facts["seeds"],
            minutes=facts["minutes"],
            start_from=[
                mm.Config.from_json(facts["config"]).override(spaces.overrides(values))
                for values in facts["first"]
            ],
            report=report,
        )
    except KeyError as error:
        raise TuningError(f"{path}: wanted {error} of the search. Start it again.") from error
