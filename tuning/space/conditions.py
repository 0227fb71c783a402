"""Where a setting has an effect: on which stage, and with which values of others in the space."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmrec_tf.config import Config, setting_paths
from mmrec_tf.config.dataset_rules import SchemaRule
from mmrec_tf.config.effects import rules_of
from mmrec_tf.config.rules import Rule
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import Schema

# What the search decides itself, and by what.
RESERVED = {
    "training.epochs": "--max-epochs",
    "training.seed": "--seeds",
}
# What no figure of a trial can show.
NO_EFFECT = {
    "training.data_service": "it says where batches are made, not what is in them",
    "training.catalog_memory_mb": "it says where content lies, not what is learned from it",
    "training.steps_per_execution": "it changes how long training takes, not what is learned",
    "training.jit_compile": "it changes how long training takes, not what is learned",
    "item_head.memory_mb": "it changes how the head is solved for, not its weights",
    "ranking.serve": "where it leaves ranking out, the lists are the same with it",
}
# The settings of the second stage that shape probabilities, not the order of a list.
PROBABILITIES = ("ranking.calibration",)
STAGES = ("retrieval", "ranking", "recommender")
# Ranges of whole numbers of at most so many are looked at one by one.
MOST_VALUES = 64


def stage_of(path: str) -> str:
    """The stage that a setting belongs to: "retrieval", "ranking" or "recommender", of which each
    reads what those before it made."""
    section = path.partition(".")[0]
    return section if section in ("ranking", "recommender") else "retrieval"


def require_known(path: str) -> None:
    """Refuses what is no setting, or none that a search can vary.

    Raises:
      ConfigError: naming the setting, and what decides instead.
    """
    known = setting_paths()
    if path in RESERVED:
        raise ConfigError(
            f"search space: {path} belongs to the search, which decides it by {RESERVED[path]}; "
            "leave it out."
        )
    if path in NO_EFFECT:
        raise ConfigError(
            f"search space: {path} has no effect on what is measured: {NO_EFFECT[path]}. Leave it "
            "out."
        )
    if path not in known:
        last = {name.rpartition(".")[2]: name for name in known}
        section, _, name = path.rpartition(".")
        near = {n.rpartition(".")[2] for n in known if n.rpartition(".")[0] == section}
        raise ConfigError(
            f"search space: unknown setting {path}"
            f"{did_you_mean(name or path, near or last, otherwise='; see docs/config.md.')}"
        )


class Effects:
    """Which settings of a space are read with which values of the others.

    Args:
      config: where the search starts; what the space does not vary stands there.
      schema: of the dataset; None where it is not known.
      candidates: by setting all its values, where these are few.
    """

    def __init__(
        self, config: Config, schema: Schema | None, candidates: Mapping[str, Sequence[Any]]
    ):
        self.schema = schema
        self.candidates = candidates
        self.base = config.parts({})
        self._views = {
            other: [config.parts({other: value}) for value in values]
            for other, values in candidates.items()
        }

    def conditions(self, path: str) -> dict[str, list[Any]]:
        """By other setting of the space those of its values with which this one is read; {} where
        it always is.

        Raises:
          ConfigError: for a setting that is read with none, saying what would make it count.
        """
        found: dict[str, list[Any]] = {}
        for rule in rules_of(path, self.base, self.schema):
            other = _decides(rule)
            if other == path:
                continue
            if other not in self.candidates:
                if not rule.read(self.base):
                    raise ConfigError(_without_effect(path, rule, self.base))
                continue
            if other in found:
                continue
            values, views = self.candidates[other], self._views[other]
            read = [
                v for v, view in zip(values, views, strict=True) if self._read(path, other, view)
            ]
            if not read:
                raise ConfigError(
                    f"{_without_effect(path, rule, self.base)} The space gives it no such value."
                )
            # Where the start has another value, all of the space's count.
            if len(read) < len(values) or not rule.read(self.base):
                found[other] = read
        return found

    def _read(self, path: str, other: str, view: Any) -> bool:
        """Whether a setting is read, as far as that is the other's to say."""
        rules = rules_of(path, view, self.schema)
        return all(rule.read(view) for rule in rules if _decides(rule) == other)


def _decides(rule: Rule | SchemaRule) -> str:
    return rule.other if isinstance(rule, Rule) else "modalities"


def _without_effect(path: str, rule: Rule | SchemaRule, parts: Any) -> str:
    return (
        f"search space: {path} has no effect {rule.because(parts)}. {rule.remedy()}, in the config "
        f"or in the space, or leave {path} out."
    )
