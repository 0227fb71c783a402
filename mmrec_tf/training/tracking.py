"""Where the figures of a training go beside its run directory: TensorBoard, MLflow, Weights &
Biases, each by Keras callbacks."""

import contextlib
import importlib
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.errors import ConfigError

# From a stage's name to the callbacks that log it.
Callbacks = Callable[[str], list[tf.keras.callbacks.Callback]]


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting by its path, such as "training.epochs", as trackers take parameters."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, f"{path}.{name}" if path else name)
        elif isinstance(value, bool | int | float | str):
            found[path] = value
        else:
            found[path] = "none" if value is None else ", ".join(map(str, value)) or "none"

    walk(config.to_json(), "")
    return found


class TensorBoardLog(tf.keras.callbacks.TensorBoard):
    """Scalars of each epoch under "epoch_NAME", those of `Validation` among them, and the config as
    hyperparameters of TensorBoard's HParams.

    Args:
      directory: of the log; one of the stage is made in it.
      stage: "retrieval" or "ranking".
      config: Config.
      profile: first and last batch to profile; None for none.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        stage: str,
        config: Config,
        *,
        profile: tuple[int, int] | None = None,
    ):
        super().__init__(
            str(pathlib.Path(directory) / stage), profile_batch=profile or 0, write_graph=False
        )
        self._config, self._stage = config, stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        # Where it is asked for, as it takes half a second.
        from tensorboard.plugins.hparams import api

        super().on_train_begin(logs)
        with self._train_writer.as_default():
            api.hparams(settings_of(self._config), trial_id=self._stage)


class _Tracker(tf.keras.callbacks.Callback):
    """Hands each epoch's figures to a function of name, value and epoch."""

    def __init__(self, stage: str, log: Callable[[dict[str, float], int], None]):
        super().__init__()
        self.stage, self.log = stage, log

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        figures = {f"{self.stage}/{name}": float(value) for name, value in (logs or {}).items()}
        self.log(figures, epoch)


def _package(name: str, option: str) -> types.ModuleType:
    """An optional package.

    Raises:
      ConfigError: where it is not installed.
    """
    try:
        if name == "mlflow":
            return importlib.import_module("mlflow")
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"{option}: wanted the package {name}, which is not installed ({error}). Install "
            f'"mmrec_tf[{name}]", or leave the option out.'
        ) from error


@contextlib.contextmanager
def tracking(
    config: Config,
    *,
    name: str,
    tensorboard: str | pathlib.Path | None = None,
    profile: tuple[int, int] | None = None,
    mlflow: bool = False,
    wandb: bool = False,
) -> Iterator[Callbacks]:
    """The trackers of one training, which are closed at its end, as failed where it failed.

    Args:
      config: Config, logged as parameters.
      name: of the run.
      tensorboard: folder for TensorBoard's log; None for none.
      profile: first and last batch of each stage that TensorFlow's profiler looks at.
      mlflow: whether MLflow logs it: in its active run where there is one, else in a new one, at
        the place that MLFLOW_TRACKING_URI names. A metric's "@" is written "_at_", which MLflow
        does not allow.
      wandb: likewise Weights & Biases, as its own settings and environment say.

    Yields:
      From a stage's name to its callbacks, for `mmrec_tf.runs.train.train_run`.

    Raises:
      ConfigError: where a package is not installed, or there is something to profile and no
        TensorBoard.
    """
    if profile is not None and tensorboard is None:
        raise ConfigError("--profile: is shown in TensorBoard; add --tensorboard.")
    logs: list[Callable[[dict[str, float], int], None]] = []
    with contextlib.ExitStack() as stack:
        if mlflow:
            logs.append(_log_to_mlflow(_package("mlflow", "--mlflow"), config, name, stack))
        if wandb:
            logs.append(_log_to_wandb(_package("wandb", "--wandb"), config, name, stack))

        def callbacks(stage: str) -> list[tf.keras.callbacks.Callback]:
            found: list[tf.keras.callbacks.Callback] = [_Tracker(stage, log) for log in logs]
            if tensorboard is not None:
                found.append(TensorBoardLog(tensorboard, stage, config, profile=profile))
            return found

        yield callbacks


def _log_to_mlflow(
    package: Any, config: Config, name: str, stack: contextlib.ExitStack
) -> Callable[[dict[str, float], int], None]:
    if package.active_run() is None:
        stack.enter_context(package.start_run(run_name=name))
    parameters = settings_of(config)
    rows = list(parameters.items())
    # It takes no more at a time.
    for start in range(0, len(rows), 100):
        package.log_params(dict(rows[start : start + 100]))

    def log(figures: dict[str, float], epoch: int) -> None:
        plain = {name.replace("@", "_at_"): value for name, value in figures.items()}
        package.log_metrics(plain, step=epoch)

    return log


def _log_to_wandb(
    package: Any, config: Config, name: str, stack: contextlib.ExitStack
) -> Callable[[dict[str, float], int], None]:
    if package.run is None:
        stack.enter_context(package.init(name=name, config=settings_of(config)))
    else:
        package.config.update(settings_of(config))

    def log(figures: dict[str, float], epoch: int) -> None:
        # Each stage begins at epoch 0 again, so that an epoch is a figure and no step.
        stage = next(iter(figures), "/").partition("/")[0]
        package.log({**figures, f"{stage}/epoch": epoch})

    return log
