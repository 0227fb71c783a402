"""The Tuner and the HyperModel: what a KerasTuner user knows, around whole recommenders."""

import contextlib
import io
import os
import pathlib
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.src.distribute import utils as dist_utils

import mmrec_tf as mm
from mmrec_tf.errors import ConfigError, TuningError
from mmrec_tf.records.files import read_json, read_sealed, write_sealed
from tuning import space as spaces
from tuning.objective import Objective
from tuning.oracle import Kept
from tuning.trial import RESULT, Trial, run_seeds, why

# How often a worker says that it is alive, and how often one for whom nothing is left asks again.
BEAT_SECONDS = 5.0
IDLE_SECONDS = 0.3
# What a process of `--workers` was started by.
PARENT = "MMREC_TUNING_PARENT"


class HyperRecommender(keras_tuner.HyperModel):
    """A KerasTuner hypermodel: hyperparameters named after settings -> a model of them.

    Args:
      dataset: Dataset.
      config: where the search starts.
      hyperparameters: the space.
    """

    def __init__(
        self,
        dataset: mm.Dataset | None,
        config: mm.Config,
        hyperparameters: keras_tuner.HyperParameters,
    ):
        super().__init__(name="recommender")
        self.dataset = dataset
        self.config = config
        self.space = hyperparameters

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """KerasTuner's: registers the space."""
        hp.merge(self.space.space)

    def config_of(self, hp: keras_tuner.HyperParameters | Mapping[str, Any]) -> mm.Config:
        """The config with the values of a trial.

        Raises:
          ConfigError: for values that do not go together.
        """
        values = hp if isinstance(hp, Mapping) else hp.values
        schema = None if self.dataset is None else self.dataset.schema
        return self.config.override(spaces.overrides(values), schema=schema)

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        """The retrieval model of a trial, whole and compiled, not yet trained."""
        if self.dataset is None:
            raise TuningError("build: wanted a search over a dataset; got one over a function.")
        model = mm.RetrievalModel(self.config_of(hp), self.dataset)
        model.compile()
        return model

    def fit(self, hp: keras_tuner.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains it as its config says; further arguments are those of `mmrec_tf.train`."""
        return mm.train(model, self.dataset, *args, **kwargs)


class RecommenderTuner(base_tuner.BaseTuner):
    """KerasTuner's loop around a function that maps a config to metrics.

    `search`, `get_best_hyperparameters`, `results_summary` and `search_space_summary` are
    KerasTuner's. `run_trial` is written anew because the stock one builds and saves Keras 3 models
    only.

    Args:
      hypermodel: HyperRecommender.
      oracle: Kept, see `tuning.oracle`.
      objective: what is measured.
      trial: what trains and measures a config.
      directory: of the search; trials lie in its folder `trials`.
      seeds: how many times each trial is trained.
      minutes: how long a trial may take; None for as long as it does.
      paced: whether trials are given epochs and go on from one another, as in Hyperband.
    """

    def __init__(
        self,
        hypermodel: HyperRecommender,
        oracle: Kept,
        *,
        objective: Objective,
        trial: Trial,
        directory: pathlib.Path,
        seeds: int = 1,
        minutes: float | None = None,
        paced: bool = False,
    ):
        self.objective = objective
        self.seeds = seeds
        self.minutes = minutes
        self.paced = paced
        self._trial = trial
        self.is_chief = dist_utils.is_chief_oracle()
        self.is_worker = dist_utils.has_chief_oracle() and not self.is_chief
        self._known: Kept = oracle
        try:
            # KerasTuner prints when it resumes, and has no option to turn that off.
            with contextlib.redirect_stdout(io.StringIO()):
                super().__init__(
                    oracle,
                    hypermodel,
                    directory=str(directory),
                    project_name="trials",
                    overwrite=False,
                )
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise self._damaged(error) from error

    # KerasTuner's

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs trials until none is left; of a worker, those that its chief hands out."""
        with quiet():
            self.on_search_begin()
            while True:
                self.pre_create_trial()
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == TrialStatus.STOPPED:
                    break
                if trial.status == TrialStatus.IDLE:
                    time.sleep(IDLE_SECONDS)
                    continue
                with self._beating(trial.trial_id):
                    self.on_trial_begin(trial)
                    self._try_run_and_update_trial(trial, *fit_args, **fit_kwargs)
                    self.on_trial_end(trial)
            self.on_search_end()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains and measures one config; what it found is in the trial's folder, too.

        Raises:
          FailedTrialError: whatever goes wrong, with the reason in one line.
        """
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        path = folder / RESULT
        if path.exists():  # before a kill, or by a worker that was given up
            found = read_sealed(path)
        else:
            begun = time.monotonic()
            try:
                found = self._run(trial, folder)
            except Exception as error:
                found = {"reason": why(error), "seconds": time.monotonic() - begun}
            write_sealed(path, found)
        if "reason" in found:
            raise keras_tuner.errors.FailedTrialError(found["reason"])
        return {self.objective.name: found["score"]}

    def _run(self, trial: Any, folder: pathlib.Path) -> dict[str, Any]:
        values = trial.hyperparameters.values
        past = None
        if values.get("tuner/trial_id"):
            past = pathlib.Path(self.get_trial_dir(values["tuner/trial_id"]))
            if "reason" in read_sealed(past / RESULT):
                raise TuningError(
                    f"trial {values['tuner/trial_id']}, which it goes on from, failed"
                )
        return run_seeds(
            self._trial,
            self.hypermodel.config_of(spaces.rounded(values)),
            self.objective,
            folder=folder,
            seeds=self.seeds,
            epochs=values.get("tuner/epochs") if self.paced else None,
            past=past,
            minutes=self.minutes,
        )

    def on_trial_end(self, trial: Any) -> None:
        """KerasTuner's; drops what only a kill would have needed."""
        super().on_trial_end(trial)
        if not self.paced:
            for folder in pathlib.Path(self.get_trial_dir(trial.trial_id)).glob("seed-*"):
                for stage in ("retrieval", "ranking"):
                    shutil.rmtree(folder / stage, ignore_errors=True)

    def load_model(self, trial: Any) -> Any:
        """Refuses: trials keep figures, not models.

        Raises:
          TuningError: always, saying how to come to the model.
        """
        raise TuningError(
            "get_best_models: trials keep no models. Train the best config: mm.train_run, "
            "`mmrec-tf train --config best_config.json`, or --retrain."
        )

    def _populate_initial_space(self) -> None:
        """Nothing: the oracle was given the space, and building models would take minutes."""

    def _is_worker(self) -> bool:
        return self.is_worker

    def _get_tuner_fname(self) -> str:
        # Whether there is a search to go on with is the oracle's to say.
        return self.oracle_path.as_posix()

    @property
    def oracle_path(self) -> pathlib.Path:
        """Where the oracle's state lies."""
        return pathlib.Path(self.directory, self.project_name, "oracle.json")

    def save(self) -> None:
        """Writes the state; of a worker, nothing."""
        if not self.is_worker:
            self.oracle.save()

    def reload(self) -> None:
        """Reads the state again.

        Raises:
          TuningError: when it is damaged.
        """
        if self.is_worker or not self.oracle_path.exists():
            return
        self._known.trials = {}
        try:
            self._known.reload()
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TuningError:
        return TuningError(
            f"{pathlib.Path(self.directory) / 'trials'}: the state of the search is damaged "
            f"({error}). Remove that folder to start again."
        )

    @contextlib.contextmanager
    def _beating(self, trial_id: str) -> Iterator[None]:
        """Of a worker: says every few seconds that its trial goes on, and ends with the process
        that started it."""
        if not self.is_worker:
            yield
            return
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with contextlib.suppress(Exception):  # the chief may be starting anew
                    self.oracle.get_trial(trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def sweep(trials: pathlib.Path) -> None:
    """Removes what a kill left: files that were being written, and a trial that was begun and that
    the search does not know, which would be counted beside the one that takes its place."""
    for left in trials.glob(".*"):
        left.unlink()
    for left in trials.glob("trial_*/.*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
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


def end_with_parent() -> None:
    """Of a process of `--workers`: ends it as soon as the one that started it is gone."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps out of sight what KerasTuner and a Gaussian process of few points have to say."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn.gaussian_process")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def require_positive(name: str, value: float | None) -> None:
    """Refuses a budget of nothing.

    Raises:
      ConfigError: naming it.
    """
    if value is not None and not value > 0:
        raise ConfigError(f"{name}: wanted above 0; got {value:g}.")


Report = Callable[[str], None]
