"""Ranges of settings: read, checked, and made KerasTuner's."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras_tuner
from keras_tuner.src.engine.conditions import Parent

from mmrec_tf.config import Config, require_effect
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import Schema
from tuning.space.conditions import MOST_VALUES, RESERVED, Effects, require_known

Space: TypeAlias = Mapping[str, Mapping[str, Any]]
# As a search takes it.
AnySpace: TypeAlias = Space | keras_tuner.HyperParameters | Callable[[Any], Any]

_EXAMPLE = '{"float": [0.001, 0.1], "log": true}, {"int": [1, 4]} or {"choice": [32, 64]}'
_OPTIONS = ("log", "step", "when")
# KerasTuner carries values with all their digits; this many are enough, and can be read.
DIGITS = 6


def load_space(path: str | pathlib.Path) -> Space:
    """Reads a space from a JSON file.

    Raises:
      ConfigError: when the file is missing or is not a JSON object.
    """
    try:
        space = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: wanted a search space; {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: wanted JSON; {error}.") from error
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"{path}: wanted a JSON object such as {{setting: {_EXAMPLE}}}.")
    return space


def hyperparameters(
    space: AnySpace, config: Config, *, schema: Schema | None = None
) -> keras_tuner.HyperParameters:
    """The space in KerasTuner's form.

    A setting that is read only with some values of others in the space stands in their conditional
    scopes, so that no trial varies what has no effect; `"when": {setting: [values]}` narrows that
    further. Every choice, and both ends of every range, must be usable on top of `config`.

    Args:
      space: by setting its range; or hyperparameters named after settings, or a function that
        registers such ones, which bring their own conditional scopes.
      config: where the search starts.
      schema: of the dataset; None where it is not known.

    Raises:
      ConfigError: for an unknown setting, one without an effect, a malformed range or a value that
        cannot be used.
    """
    if isinstance(space, Mapping):
        return _from_mapping(space, config, schema)
    if isinstance(space, keras_tuner.HyperParameters):
        found = space
    else:
        found = keras_tuner.HyperParameters()
        space(found)
    if not found.space:
        raise ConfigError("search space: wanted at least one hyperparameter; got none.")
    for hp in found.space:
        require_known(hp.name)
        for value in _tried(hp):
            config.parts({hp.name: value})
    return found


def overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `Config.override` takes, from the values of a trial.

    Hyperband keeps its own bookkeeping among the values, as "tuner/epochs" and the like.
    """
    return {path: value for path, value in values.items() if not path.startswith("tuner/")}


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with as many digits as people read."""
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in values.items()
    }


def touched(hps: keras_tuner.HyperParameters) -> list[str]:
    """The settings of a space, each once."""
    return list(dict.fromkeys(hp.name for hp in hps.space))


def values_of(
    config: Config, hps: keras_tuner.HyperParameters
) -> tuple[dict[str, Any], dict[str, str]]:
    """A config as a trial of a space.

    Returns:
      The values of what is active, as KerasTuner holds them; and by setting why a value lies
      outside the space.
    """
    given = keras_tuner.HyperParameters()
    outside: dict[str, str] = {}
    for hp in hps.space:
        given.merge([hp])
        if not given.is_active(hp):
            continue
        value = _held(config, hp)
        if value is None:
            outside[hp.name] = f"{_setting(config, hp.name)!r} is none of {_said(hp)}"
        else:
            given.values[hp.name] = value
    return dict(given.values), outside


def differences(config: Config, other: Config) -> list[str]:
    """Settings in which two configs differ, apart from how long they train and from which seed."""
    found = []
    one, two = dataclasses.asdict(config), dataclasses.asdict(other)
    for section, value in one.items():
        if not isinstance(value, Mapping):
            found += [section] * (value != two[section])
            continue
        found += [f"{section}.{name}" for name, v in value.items() if v != two[section][name]]
    return [path for path in found if path not in RESERVED]


def _setting(config: Config, path: str) -> Any:
    value: Any = config.to_json()
    for name in path.split("."):
        value = value[name]
    return value


def _held(config: Config, hp: Any) -> Any:
    """The value of a config in the form that a hyperparameter has it; None outside its range."""
    value = _setting(config, hp.name)
    if isinstance(hp, keras_tuner.engine.hyperparameters.Choice):
        for choice in hp.values:
            if choice == value or (isinstance(choice, str) and _same(choice, value)):
                return choice
        return None
    if isinstance(hp, keras_tuner.engine.hyperparameters.Boolean):
        return value if isinstance(value, bool) else None
    if isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
        return hp.value if hp.value == value else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and hp.min_value <= value <= hp.max_value else None


def _same(text: str, value: Any) -> bool:
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False


def _said(hp: Any) -> str:
    if hasattr(hp, "min_value"):
        return f"{hp.min_value:g} to {hp.max_value:g}"
    return ", ".join(map(str, hp.values))


def _tried(hp: Any) -> list[Any]:
    """The values of a hyperparameter that are tried out: its ends, or all of them."""
    if hasattr(hp, "min_value"):
        return [hp.min_value, hp.max_value]
    return list(hp.values)


def _from_mapping(
    space: Space, config: Config, schema: Schema | None
) -> keras_tuner.HyperParameters:
    if not space:
        raise ConfigError(f"search space: wanted {{setting: {_EXAMPLE}}}; got no setting.")
    scopes, idle = scopes_of(space, config, schema)
    if idle:
        raise next(iter(idle.values()))
    result = keras_tuner.HyperParameters()
    for path in _parents_first(scopes):
        (hp,) = _registered(path, space[path]).space
        # `conditional_scope` wants each parent to stand in the scopes of those before it, which two
        # that have nothing to do with each other do not.
        hp.conditions = [
            Parent(other, _as_held(allowed, space[other]))
            for other, allowed in scopes[path].items()
        ]
        result.merge([hp])
    for path, rule in space.items():
        needed = _ancestors(path, scopes)
        for value in _read_range(path, rule):
            _try({**needed, path: value}, config, schema)
    return result


def scopes_of(
    space: Space, config: Config, schema: Schema | None = None
) -> tuple[dict[str, dict[str, list[Any]]], dict[str, ConfigError]]:
    """In which conditional scopes the settings of a space stand.

    Args: as of `hyperparameters`.

    Returns:
      By setting, other settings and those of their values with which it is read; and by setting
      that nothing reads the error that says why.

    Raises:
      ConfigError: for an unknown setting or a malformed range.
    """
    for path, rule in space.items():
        require_known(path)
        _read_range(path, rule)
    few = {path: values for path, rule in space.items() if (values := _few(rule)) is not None}
    effects = Effects(config, schema, few)
    scopes: dict[str, dict[str, list[Any]]] = {}
    idle: dict[str, ConfigError] = {}
    for path in space:
        try:
            scopes[path] = effects.conditions(path)
        except ConfigError as error:
            idle[path] = error
            continue
        for other, allowed in _when(path, space).items():
            before = scopes[path].get(other, allowed)
            scopes[path][other] = [value for value in allowed if value in before]
            if not scopes[path][other]:
                raise ConfigError(
                    f'search space: {path}: "when" leaves no value of {other} with which it is '
                    "read."
                )
    return scopes, idle


def _try(settings: Mapping[str, Any], config: Config, schema: Schema | None) -> None:
    changed = config.override(settings, schema=schema)
    if schema is not None:
        require_effect(changed, schema)


def _ancestors(path: str, scopes: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, Any]:
    """Values of others with which a setting is read."""
    found: dict[str, Any] = {}
    for other, allowed in scopes[path].items():
        found |= _ancestors(other, scopes)
        found[other] = allowed[0]
    return found


def _parents_first(scopes: Mapping[str, Mapping[str, list[Any]]]) -> list[str]:
    """Settings in an order in which whatever decides stands before what it decides."""
    order: list[str] = []

    def visit(path: str, trail: tuple[str, ...]) -> None:
        if path in trail:
            raise ConfigError(
                f"search space: {' and '.join(sorted(trail))} each decide whether the other is "
                "read. Leave one of them out."
            )
        for other in scopes[path]:
            visit(other, (*trail, path))
        if path not in order:
            order.append(path)

    for path in scopes:
        visit(path, ())
    return order


def _when(path: str, space: Space) -> dict[str, list[Any]]:
    when: Any = space[path].get("when", {})
    if not isinstance(when, dict):
        raise ConfigError(
            f'search space: {path}: "when": wanted {{setting: [values]}}; got {json.dumps(when)}.'
        )
    for other, allowed in when.items():
        values = _few(space.get(other, {}))
        if values is None or other == path:
            raise ConfigError(
                f'search space: {path}: "when": wanted another setting of the space that has few '
                f"values; got {other}."
            )
        unknown = [v for v in allowed if v not in values] if isinstance(allowed, list) else allowed
        if not isinstance(allowed, list) or not allowed or unknown:
            raise ConfigError(
                f'search space: {path}: "when": wanted some of {json.dumps(values)} of {other}; '
                f"got {json.dumps(allowed)}."
            )
    return when


def _few(rule: Any) -> list[Any] | None:
    """All values of a range where these are few."""
    if "choice" in rule:
        return list(rule["choice"])
    if "int" in rule:
        low, high = rule["int"]
        values = list(range(low, high + 1, rule.get("step", 1)))
        return values if len(values) <= MOST_VALUES else None
    return None


def _as_held(values: list[Any], rule: Mapping[str, Any]) -> list[Any]:
    """Values in the form that KerasTuner has them in."""
    if "choice" not in rule:
        return values
    held = _plain(rule["choice"])
    return [held[rule["choice"].index(value)] for value in values]


def _read_range(path: str, rule: Any) -> list[Any]:
    """Checks the form of a range; returns the values to be tried out."""
    kinds = [kind for kind in ("choice", "float", "int") if isinstance(rule, dict) and kind in rule]
    values = rule[kinds[0]] if len(kinds) == 1 else None
    if not isinstance(values, list) or not values or not set(rule) <= {*kinds, *_OPTIONS}:
        raise ConfigError(f"search space: {path}: wanted {_EXAMPLE}; got {json.dumps(rule)}.")
    log, step = rule.get("log", False), rule.get("step")
    if kinds == ["choice"]:
        for option in ("log", "step"):
            if option in rule:
                raise ConfigError(f'search space: {path}: "{option}" goes with "float" or "int".')
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ConfigError(
                f"search space: {path}: wanted each choice once; got {json.dumps(values)}."
            )
        return values
    number = int if kinds == ["int"] else float
    ends = [v for v in values if isinstance(v, int | number) and not isinstance(v, bool)]
    if len(values) != 2 or len(ends) != 2 or not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise ConfigError(
            f"search space: {path}: wanted [low, high] of {kinds[0]}s, low below high"
            f"{' and above 0' if log else ''}; got {json.dumps(values)}."
        )
    if step is not None:
        fits = isinstance(step, int | number) and not isinstance(step, bool) and step > 0
        if not fits or log:
            raise ConfigError(
                f'search space: {path}: "step": wanted {kinds[0]}s above 0, and no "log"; got '
                f"{json.dumps(step)}."
            )
    return ends


def _registered(path: str, rule: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """One setting, alone."""
    target = keras_tuner.HyperParameters()
    if "choice" in rule:
        target.Choice(path, _plain(rule["choice"]))
        return target
    sampling = "log" if rule.get("log") else "linear"
    if "int" in rule:
        low, high = rule["int"]
        target.Int(path, low, high, step=rule.get("step", 1), sampling=sampling)
    else:
        low, high = map(float, rule["float"])
        target.Float(path, low, high, step=rule.get("step"), sampling=sampling)
    return target


def _plain(values: list[Any]) -> list[Any]:
    """What KerasTuner can choose among: numbers or strings (of True it makes 1). Anything else
    travels as its JSON text, which `Config.override` reads."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return values if len(kinds) == 1 else [float(value) for value in values]
    return values if kinds == {str} else [json.dumps(value) for value in values]
