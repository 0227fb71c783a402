"""Strategies: KerasTuner's oracles, such that a kill loses no trial and repeats none.

Each begins with the trials that it is given (the starting config, examples), and never proposes the
same one twice. What it proposes follows from its seed and from what it knows, not from the process
that asks, so that a search that was killed ends with the trials that it would have had.
"""

import collections
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from mmrec_tf.errors import ConfigError, TuningError
from mmrec_tf.records.files import read_json, write_text
from tuning.objective import Objective
from tuning.space import rounded
from tuning.trial import RESULT

STRATEGIES = ("random", "bayesian", "hyperband", "grid")
DEFAULT_TRIALS = 20
# If the first so many all fail, the next would most likely fail as well.
MOST_FAILED = 3
# A trial that so many workers have died in is not given to another.
MOST_DEATHS = 3
# A grid of more points is counted no further.
MOST_POINTS = 100_000
_Values = dict[str, Any]
_HPS = keras_tuner.engine.hyperparameters


class Kept(keras_tuner.Oracle):
    """An oracle whose state is written aside and renamed, and in which a trial ends once.

    Attributes:
      queue: values of the trials that come first.
      deadline: of `time.monotonic`, after which no trial begins; None for none.
      waits: whether workers wait until all trials have ended, as one may be given back.
      ended: is called with each trial that has ended.
    """

    queue: Sequence[Mapping[str, Any]] = ()
    deadline: float | None = None
    waits = False
    ended: Callable[[Any], None] | None = None
    trials: dict[str, Any]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.verbose = 0
        self.deaths: dict[str, int] = collections.defaultdict(int)

    def propose(self, trial_id: str) -> dict[str, Any]:
        """The next values, as KerasTuner's `populate_space`."""
        response: dict[str, Any] = super().populate_space(trial_id)
        return response

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """KerasTuner's; ends a search that is out of time, or of which the first trials all
        failed."""
        failed = [self.trials[name].status == TrialStatus.FAILED for name in self.end_order]
        hopeless = len(failed) >= MOST_FAILED and all(failed)
        late = self.deadline is not None and time.monotonic() > self.deadline
        if hopeless or late:
            return {"status": TrialStatus.STOPPED, "values": None}
        return self.propose(trial_id)

    def queued(self) -> _Values | None:
        """The next of the trials that come first; None where all have begun."""
        return next((dict(v) for v in self.queue if not self._duplicate(v)), None)

    def _random_values(self) -> _Values | None:
        queued = self.queued()
        if queued is not None:
            return queued
        values = super()._random_values()
        return None if values is None else rounded(values)

    @keras_tuner.synchronized  # type: ignore[untyped-decorator]
    def create_trial(self, tuner_id: str) -> Any:
        """KerasTuner's; a worker for whom nothing is left waits while another's trial, which may
        be given back, is going on."""
        trial = super().create_trial(tuner_id)
        late = self.deadline is not None and time.monotonic() > self.deadline
        if trial.status == TrialStatus.STOPPED and self.waits and self.ongoing_trials and not late:
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @keras_tuner.synchronized  # type: ignore[untyped-decorator]
    def end_trial(self, trial: Any) -> None:
        """KerasTuner's, once a trial: of two workers that both ran it the first counts."""
        name = trial.trial_id
        if name not in self.end_order:
            if name in self._retry_queue:
                self._retry_queue.remove(name)
            # What has been sent around may have lost digits, and its message.
            trial.hyperparameters = self.trials[name].hyperparameters
            trial.message = trial.message or self.result(name).get("reason")
            super().end_trial(trial)
            if self.ended is not None:
                self.ended(self.trials[name])
        for tuner_id in [t for t, other in self.ongoing_trials.items() if other.trial_id == name]:
            self.ongoing_trials.pop(tuner_id)

    @keras_tuner.synchronized  # type: ignore[untyped-decorator]
    def give_back(self, tuner_id: str, reason: str) -> str | None:
        """Hands the trial of a worker that died to the next one that asks.

        Args:
          tuner_id: of the worker.
          reason: how it died.

        Returns:
          The trial; None where it had none.
        """
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        name: str = trial.trial_id
        self.deaths[name] += 1
        if self.deaths[name] >= MOST_DEATHS:
            trial.status = TrialStatus.FAILED
            trial.message = (
                f"out of memory or worse: {self.deaths[name]} workers died in it, the last one: "
                f"{reason}"
            )
            self.end_trial(trial)
        else:
            self._retry_queue.append(name)
            self.save()
        return name

    @keras_tuner.synchronized  # type: ignore[untyped-decorator]
    def over(self) -> bool:
        """Whether all trials have ended and all workers have been told so."""
        return not (self.ongoing_trials or self._retry_queue or self.tuner_ids)

    def result(self, trial_id: str) -> dict[str, Any]:
        """What a trial found, see `tuning.trial.run_seeds`; {} where there is nothing yet."""
        path = pathlib.Path(self._get_trial_dir(trial_id)) / RESULT
        try:
            return dict(read_json(path)) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise TuningError(
                f"{path}: wanted what the trial found; {error}. Remove the folder of the search to "
                "start again."
            ) from error

    def score_trial(self, trial: Any) -> None:
        """KerasTuner's, with all digits where the score has been sent around."""
        super().score_trial(trial)
        trial.score = self.result(trial.trial_id).get("score", trial.score)

    def save(self) -> None:
        """Writes the oracle's own state; an ended trial is no longer one to repeat."""
        state = self.get_state()
        ended = set(state["end_order"])
        state["ongoing_trials"] = {
            tuner: trial for tuner, trial in state["ongoing_trials"].items() if trial not in ended
        }
        state["deaths"] = dict(self.deaths)
        write_text(pathlib.Path(self._get_oracle_fname()), json.dumps(state))

    def _save_trial(self, trial: Any) -> None:
        folder = pathlib.Path(self._get_trial_dir(trial.trial_id))
        write_text(folder / "trial.json", json.dumps(trial.get_state()))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """KerasTuner's."""
        super().set_state(state)
        self.deaths.update(state.get("deaths", {}))

    def reload(self) -> None:
        """KerasTuner's; a trial that ended as the kill came has ended."""
        super().reload()
        ended = (TrialStatus.COMPLETED, TrialStatus.FAILED)
        for name in [n for n in self._retry_queue if self.trials[n].status in ended]:
            self._retry_queue.remove(name)
            if name not in self.end_order:
                self.end_order.append(name)
        # The order decides what a Gaussian process makes of them.
        self.trials = {name: self.trials[name] for name in self.start_order}


class RandomSearch(Kept, keras_tuner.oracles.RandomSearchOracle):
    """Values at random."""


class Bayesian(Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process with an upper confidence bound (Snoek et al. 2012)."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """The most promising values; random ones where these were tried."""
        queued = self.queued()
        if queued is not None:
            return {"status": TrialStatus.RUNNING, "values": queued}
        # Of the trial's place, so that a search that was killed asks the same.
        self._random_state = np.random.RandomState([self.seed, len(self.trials)])
        response = super().propose(trial_id)
        if response["values"] is not None:
            response["values"] = rounded(response["values"])
            if self._duplicate(response["values"]):
                response = self._random_populate_space()
        return response


class Hyperband(Kept, keras_tuner.oracles.HyperbandOracle):
    """Many configs for few epochs, the better ones for more (Li et al. 2018)."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """The next config, or the best that may go on; one that failed is the worst."""
        failed = [t for t in self.trials.values() if t.status == TrialStatus.FAILED]
        worst = float("-inf") if self.objective.direction == "max" else float("inf")
        try:
            for trial in failed:
                trial.status, trial.score = TrialStatus.COMPLETED, worst
            return super().propose(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = TrialStatus.FAILED, None

    @property
    def num_trials(self) -> int:
        """How many trials one round takes."""
        return sum(
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )


class Grid(Kept):
    """Every combination once, the last setting of the space changing fastest."""

    def propose(self, trial_id: str) -> dict[str, Any]:
        """The first combination that has not been tried."""
        values = self.queued()
        if values is None:
            points = self.points()
            values = next((point for point in points if not self._duplicate(point)), None)
        status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
        return {"status": status, "values": values}

    def points(self) -> Iterator[_Values]:
        """All combinations of what is active together."""
        return _combine(self.hyperparameters.space, {})

    @property
    def num_trials(self) -> int:
        """How many there are; a start that lies between them comes on top."""
        return sum(1 for _, _ in zip(self.points(), range(MOST_POINTS), strict=False))


def _combine(space: Sequence[Any], values: _Values) -> Iterator[_Values]:
    if not space:
        yield dict(values)
        return
    hp, rest = space[0], space[1:]
    active = all(condition.is_active(values) for condition in hp.conditions)
    for value in _points(hp) if active else (None,):
        yield from _combine(rest, {**values, hp.name: value} if active else values)


def _points(hp: Any) -> list[Any]:
    """All values of a hyperparameter.

    Raises:
      ConfigError: for a range of numbers without a step.
    """
    if isinstance(hp, _HPS.Float):
        if hp.step is None:
            raise ConfigError(
                f'search space: {hp.name}: a grid wants few values; got a range. Give it a "step", '
                'or a "choice" of values.'
            )
        count = int((hp.max_value - hp.min_value) / hp.step + 1e-9) + 1
        return [float(f"{hp.min_value + place * hp.step:.6g}") for place in range(count)]
    if isinstance(hp, _HPS.Int):
        return list(range(hp.min_value, hp.max_value + 1, hp.step or 1))
    return list(hp.values)


def build_oracle(
    strategy: str,
    hyperparameters: keras_tuner.HyperParameters,
    objective: Objective,
    *,
    max_epochs: int,
    trials: int | None = None,
    seed: int = 0,
    queue: Sequence[Mapping[str, Any]] = (),
) -> Kept:
    """The oracle of a strategy.

    Args:
      strategy: one of `STRATEGIES`.
      hyperparameters: the space.
      objective: what is measured.
      max_epochs: what Hyperband gives its best trials.
      trials: how many begin at most; None for 20, all points of a grid, or a round of Hyperband.
      seed: of what is proposed.
      queue: values of the trials that come first.

    Raises:
      ConfigError: for an unknown strategy, or a grid of a range without a step.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"strategy: wanted one of {', '.join(STRATEGIES)}; got {strategy!r}.")
    arguments: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective.name, objective.direction),
        "hyperparameters": hyperparameters,
        "allow_new_entries": False,
        "seed": seed + 1,  # KerasTuner reads 0 as "any".
        # `populate_space` decides when failures end a search.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if trials is None and strategy in ("random", "bayesian"):
        trials = DEFAULT_TRIALS
    oracle: Kept
    if strategy == "random":
        oracle = RandomSearch(max_trials=trials, **arguments)
    elif strategy == "bayesian":
        # By default 3 random trials a setting come first: more than a short search has.
        first = min(3 * len(hyperparameters.space), max(3, (trials or DEFAULT_TRIALS) // 3))
        oracle = Bayesian(max_trials=trials, num_initial_points=first, **arguments)
    elif strategy == "hyperband":
        oracle = Hyperband(max_epochs=max_epochs, **arguments)
        oracle.max_trials = trials
    else:
        oracle = Grid(max_trials=trials, **arguments)
        for hp in hyperparameters.space:
            _points(hp)
    oracle.queue = tuple(queue)
    return oracle


def num_trials(oracle: Kept) -> int | None:
    """How many trials a search will have at most; None where nobody knows."""
    whole = oracle.num_trials if isinstance(oracle, Hyperband | Grid) else None
    known = [n for n in (oracle.max_trials, whole) if n]
    return min(known) if known else None
