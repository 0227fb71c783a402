"""Settings by their paths, such as "training.epochs"."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mmrec_tf.errors import ConfigError


def read_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Settings of a command line, `--set PATH=VALUE`, as `Config.override` takes them.

    Raises:
      ConfigError: for one without a value.
    """
    settings = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: wanted PATH=VALUE such as training.epochs=5; got {pair!r}.")
        settings[path] = value
    return settings


def under(section: str, *names: str) -> tuple[str, ...]:
    """The paths of some settings of a section."""
    return tuple(f"{section}.{name}" for name in names)


def value_at(config: Any, path: str) -> Any:
    """The value of a setting by its path, such as "training.epochs"."""
    return functools.reduce(getattr, path.split("."), config)


def default_at(config: Any, path: str) -> Any:
    """The default of a setting of a section."""
    section, name = path.rsplit(".", 1)
    return getattr(type(value_at(config, section)), name)


def expanded(settings: tuple[str, ...], config: Any) -> Iterator[str]:
    """Paths, "*" being all settings of a section."""
    for path in settings:
        section, _, name = path.rpartition(".")
        if name != "*":
            yield path
            continue
        for field in vars(value_at(config, section)):
            yield f"{section}.{field}"


def text_of(value: Any) -> str:
    """A value as a config file holds it."""
    return json.dumps(value)
