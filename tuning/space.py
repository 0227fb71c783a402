"""The settings that a search may vary, as KerasTuner hyperparameters and back as overrides.

A space maps the path of a setting to its range, in JSON as here:

    {"training.learning_rate": {"float": [1e-4, 1e-2], "log": true},
     "training.patience": {"int": [2, 8]},
     "item.fusion": {"choice": ["mean", "gated"]}}
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras_tuner

from mmrec_tf.config import FUSIONS, Config
from mmrec_tf.errors import ConfigError

Space = Mapping[str, Mapping[str, Any]]

# The search sets the first itself; trials with different monitors cannot be compared.
_RESERVED = ("training.epochs", "training.monitor")
_EXAMPLE = '{"float": [0.001, 0.1], "log": true}, {"int": [1, 4]} or {"choice": [32, 64]}'


def default_space(config: Config) -> Space:
    """The settings most worth varying; those of content are left out for an id-only config."""
    space: dict[str, Mapping[str, Any]] = {
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
        "training.weight_decay": {"float": [1e-6, 1e-2], "log": True},
        "training.batch_size": {"choice": [256, 512, 1024]},
        "dim": {"choice": [32, 64, 128]},
        "retrieval.temperature": {"float": [0.03, 0.3], "log": True},
    }
    if config.modalities != ():
        space["item.fusion"] = {"choice": list(FUSIONS)}
        space["item.id_dropout"] = {"float": [0.0, 0.5]}
        # The other kinds have no loss to weigh.
        for kind in ("contrastive", "graph"):
            if kind in config.alignment.kinds:
                space[f"alignment.{kind}_weight"] = {"choice": [0.0, 0.03, 0.1, 0.3]}
    return space


def load_space(path: str | pathlib.Path) -> Space:
    """Reads a space from a JSON file.

    Raises:
      ConfigError: when the file is missing or is not a JSON object.
    """
    try:
        space = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: wanted a search space; {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: wanted JSON; {error}.") from error
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"{path}: wanted a JSON object such as {{setting: {_EXAMPLE}}}.")
    return space


def hyperparameters(space: Space, config: Config) -> keras_tuner.HyperParameters:
    """The space in KerasTuner's form.

    Every choice, and both ends of every range, must be usable on their own on top of `config`.

    Raises:
      ConfigError: for an unknown setting, a malformed range or a value that cannot be used.
    """
    result = keras_tuner.HyperParameters()
    for path, rule in space.items():
        if path in _RESERVED:
            raise ConfigError(f"search space: {path} belongs to the search; leave it out.")
        for value in _register(result, path, rule):
            config.override({path: value})
    return result


def overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `Config.override` takes, from the values of a trial.

    Hyperband keeps its own bookkeeping among the values, as "tuner/epochs" and the like.
    """
    return {path: value for path, value in values.items() if not path.startswith("tuner/")}


def _register(target: keras_tuner.HyperParameters, path: str, rule: Any) -> list[Any]:
    """Adds one setting; returns the values to be tried out."""
    kinds = [kind for kind in ("choice", "float", "int") if isinstance(rule, dict) and kind in rule]
    values = rule[kinds[0]] if len(kinds) == 1 else None
    if not isinstance(values, list) or not values or not set(rule) <= {*kinds, "log"}:
        raise ConfigError(f"search space: {path}: wanted {_EXAMPLE}; got {json.dumps(rule)}.")
    log = rule.get("log", False)
    if kinds == ["choice"]:
        if "log" in rule:
            raise ConfigError(f'search space: {path}: "log" goes with "float" or "int".')
        target.Choice(path, _plain(values))
        return values

    number = int if kinds == ["int"] else float
    ends = [v for v in values if isinstance(v, (int, number)) and not isinstance(v, bool)]
    if len(values) != 2 or len(ends) != 2 or not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise ConfigError(
            f"search space: {path}: wanted [low, high] of {kinds[0]}s, low below high"
            f"{' and above 0' if log else ''}; got {json.dumps(values)}."
        )
    sampling = "log" if log else "linear"
    if number is int:
        target.Int(path, ends[0], ends[1], sampling=sampling)
    else:
        target.Float(path, float(ends[0]), float(ends[1]), sampling=sampling)
    return ends


def _plain(values: list[Any]) -> list[Any]:
    """What KerasTuner can choose among: numbers or strings (of True it makes 1). Anything else
    travels as its JSON text, which `Config.override` reads."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return values if len(kinds) == 1 else [float(value) for value in values]
    return values if kinds == {str} else [json.dumps(value) for value in values]
