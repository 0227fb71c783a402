"""Trials as rows, and the files that are rewritten after each of them."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import mmrec_tf as mm
from mmrec_tf.records.files import replace_file, write_json
from tuning.objective import Objective
from tuning.space import overrides, rounded


class Row(NamedTuple):
    """One trial that has ended.

    Attributes:
      trial: its id.
      completed: whether it has a score.
      score: mean over seeds; None for a trial that failed.
      spread: standard deviation over seeds; None of one seed.
      scores: of each seed.
      metrics: each metric of the objective, mean over seeds.
      settings: the values of what was varied and active.
      epochs: it was given; None for all of the config.
      goes_on: from which trial; "" for none.
      seconds: it took.
      reason: why it failed; "" for one that did not.
    """

    trial: str
    completed: bool
    score: float | None
    spread: float | None
    scores: tuple[float, ...]
    metrics: dict[str, float]
    settings: dict[str, Any]
    epochs: int | None
    goes_on: str
    seconds: float
    reason: str


def row_of(trial: Any, result: dict[str, Any]) -> Row:
    """A row of KerasTuner's trial and of what is in its folder."""
    values = trial.hyperparameters.values
    completed = trial.status == "COMPLETED"
    return Row(
        trial=trial.trial_id,
        completed=completed,
        score=result.get("score", trial.score) if completed else None,
        spread=result.get("spread"),
        scores=tuple(entry["score"] for entry in result.get("seeds", ())),
        metrics=result.get("metrics", {}),
        settings=overrides(rounded(values)),
        epochs=values.get("tuner/epochs"),
        goes_on=values.get("tuner/trial_id") or "",
        seconds=result.get("seconds", 0.0),
        reason="" if completed else _reason(trial, result),
    )


def best_row(rows: Sequence[Row], objective: Objective) -> Row | None:
    """The completed row with the best score, the first of equal ones."""
    found: Row | None = None
    for row in rows:
        if row.score is None or not row.completed:
            continue
        if found is None or found.score is None or objective.better(row.score, found.score):
            found = row
    return found


def write_trials(
    path: pathlib.Path,
    rows: Sequence[Row],
    objective: Objective,
    config: mm.Config,
    settings: Sequence[str],
) -> None:
    """Writes `trials.csv`: a row a trial.

    Args:
      path: the file.
      rows: in the order in which they ended.
      objective: names the column of scores.
      config: says how many epochs a trial has that was given no number.
      settings: the columns of what is varied.
    """
    terms = [term.name for term in objective.terms] if len(objective.terms) > 1 else []
    with (
        replace_file(path) as new,
        new.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        columns = ["trial", "status", objective.name, "spread", "seeds", *terms]
        writer.writerow([*columns, "epochs", "from", "seconds", *settings, "reason"])
        for row in rows:
            epochs = row.epochs or config.training.epochs
            writer.writerow(
                [
                    row.trial,
                    "completed" if row.completed else "failed",
                    _blank(row.score),
                    _blank(row.spread),
                    len(row.scores),
                    *(row.metrics.get(name, "") for name in terms),
                    epochs,
                    row.goes_on,
                    f"{row.seconds:.1f}",
                    *(row.settings.get(name, "") for name in settings),
                    row.reason,
                ]
            )


def write_best(path: pathlib.Path, config: mm.Config) -> None:
    """Writes `best_config.json`."""
    write_json(path, config.to_json())


def short(value: Any) -> str:
    """A value of a setting in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _blank(value: Any) -> Any:
    return "" if value is None else value


def _reason(trial: Any, result: dict[str, Any]) -> str:
    """Why a trial failed: what it said, else the last line of the recorded traceback."""
    if "reason" in result:
        return str(result["reason"])
    lines = (trial.message or "it gave no score").strip().splitlines()
    return str(lines[-1]).removeprefix("keras_tuner.src.errors.FailedTrialError: ")
