"""What settings are checked with; each refuses with a message that says what was wanted."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from mmrec_tf.errors import ConfigError

LIST_METRICS = ("recall", "precision", "ndcg", "map", "mrr", "hit_rate")


def shapes_weights(default: Any) -> Any:
    """The field of a setting that shapes weights, or that is spent when weights are made: who goes
    on from the weights of a run has to keep it."""
    return field(default=default, metadata={"shapes_weights": True})


def require(condition: bool, message: str) -> None:
    """Raises ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def at_least(part: object, prefix: str, bounds: Mapping[str, float]) -> None:
    """Refuses settings below their least value; each entry of a list counts."""
    for name, least in bounds.items():
        value = getattr(part, name)
        for number in value if isinstance(value, tuple) else (value,):
            require(number >= least, f"{prefix}{name}: wanted at least {least:g}; got {number}.")


def named(name: str, value: str, wanted: str) -> None:
    """Refuses an empty name."""
    require(bool(value), f'{name}: wanted {wanted}; got "".')


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is none of the choices."""
    require(value in choices, f"{name}: wanted one of {', '.join(choices)}; got {value!r}.")


def list_metric(value: str) -> bool:
    """Whether a value names a metric of ranked lists, such as "ndcg@10"."""
    metric, _, k = value.partition("@")
    return metric in LIST_METRICS and k.isdecimal() and int(k) >= 1
