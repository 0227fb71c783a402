"""Which settings have an effect together with which others; those without one are refused.

A setting may always have its default. With another value it has to be read by something: a search
over a setting that does nothing costs as much as one over a setting that does, and a config that
names one says what is not so.
"""

import dataclasses
from typing import Any

from mmrec_tf.config.dataset_rules import SchemaRule, schema_rules
from mmrec_tf.config.paths import default_at, expanded, text_of, value_at
from mmrec_tf.config.rules import RULES, Rule, family_rules
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import Schema


def idle_settings(config: Any, schema: Schema | None = None) -> dict[str, Rule | SchemaRule]:
    """The settings that differ from their default and that nothing reads, with the reason.

    Args:
      config: Config, or its parts under the same names.
      schema: of the dataset, where it is known.
    """
    rules: list[Rule | SchemaRule] = [*family_rules(config), *RULES]
    if schema is not None:
        rules += schema_rules(config, schema)
    found: dict[str, Rule | SchemaRule] = {}
    for rule in rules:
        if rule.read(config):
            continue
        for path in expanded(rule.settings, config):
            if path not in found and value_at(config, path) != default_at(config, path):
                found[path] = rule
    return found


def rules_of(path: str, config: Any, schema: Schema | None = None) -> list[Rule | SchemaRule]:
    """All rules that say whether a setting is read; it is where each of them says so.

    Args:
      path: of a setting, such as "user.num_layers".
      config, schema: as of `idle_settings`.
    """
    rules: list[Rule | SchemaRule] = [*family_rules(config), *RULES]
    if schema is not None:
        rules += schema_rules(config, schema)
    return [rule for rule in rules if path in expanded(rule.settings, config)]


def require_effect(config: Any, schema: Schema | None = None) -> None:
    """Refuses settings that nothing reads.

    Args: as of `idle_settings`.

    Raises:
      ConfigError: naming the first, the setting that leaves it without effect, and all others.
    """
    found = idle_settings(config, schema)
    if not found:
        return
    path, rule = next(iter(found.items()))
    others = [name for name in found if name != path]
    tail = f" Without effect are also {', '.join(others)}." if others else ""
    wanted, got = text_of(default_at(config, path)), text_of(value_at(config, path))
    raise ConfigError(
        f"{path}: wanted {wanted} {rule.because(config)}, where it has no effect; got {got}. "
        f"{rule.remedy()}, or leave {path} out.{tail}"
    )


def reset_idle(
    tree: dict[str, Any],
    config: Any,
    *,
    keep: frozenset[str] = frozenset(),
    schema: Schema | None = None,
) -> None:
    """Gives settings that nothing reads their defaults, and with them those that are then idle.

    Args:
      tree: of a config in JSON; changed in place.
      config: the parts of the same.
      keep: paths that stay as they are.
      schema: as of `idle_settings`.
    """

    def idle() -> dict[str, Rule | SchemaRule]:
        found = idle_settings(config, schema)
        return {path: rule for path, rule in found.items() if path not in keep}

    while found := idle():
        for path, rule in found.items():
            section, name = path.rsplit(".", 1)
            tree[section][name] = rule.reset(config) if rule.reset else default_at(config, path)
            part = dataclasses.replace(getattr(config, section), **{name: tree[section][name]})
            setattr(config, section, part)
