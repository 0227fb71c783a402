"""Settings of training, the whole experiment, and how it is read and changed."""

import dataclasses
import functools
import json
import math
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrec_tf.config.checks import at_least, list_metric, one_of, require, shapes_weights
from mmrec_tf.config.effects import require_effect, reset_idle
from mmrec_tf.config.encoders import AudioConfig, ImageConfig, TextConfig, VideoConfig
from mmrec_tf.config.ranking import RankingConfig, RecommenderConfig
from mmrec_tf.config.retrieval import (
    AlignmentConfig,
    ColdItemsConfig,
    GraphConfig,
    ItemConfig,
    ItemHeadConfig,
    LabelsConfig,
    RetrievalConfig,
    UserConfig,
)
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import Schema

DECAYS = ("none", "linear", "cosine")
# Settings of older configs, and what says the same now.
REPLACED = {
    "alignment.kind": 'is now alignment.kinds, a list such as ["contrastive", "graph"], or [] for '
    "none",
    "alignment.weight": "is now alignment.contrastive_weight and alignment.graph_weight, one for "
    "each loss",
}


@dataclass(frozen=True)
class TrainingConfig:
    """How `fit` runs. `patience` epochs without a better `monitor` on the valid split end it;
    0 never does. `monitor` is a metric of `evaluate`, such as "ndcg@10" or "recall@20".

    The learning rate rises over `warmup_steps`, then falls to 0 at the last step (`decay` "linear"
    or "cosine") or stays; encoders that train take `encoder_learning_rate_factor` of it.
    `accumulation_steps` batches make one update, `steps_per_execution` updates one call of the
    compiled step. `average_epochs` n has the mean of the weights after the last n epochs measured
    and kept (Izmailov et al. 2018), while training goes on with its own.

    `catalog_memory_mb` is room for the items' vectors or preprocessed content, in MiB; a modality
    that does not fit into what is left stays on disk, and a batch's items are read from there.
    `data_service` is the address of a tf.data service dispatcher that has batches made elsewhere,
    such as "grpc://localhost:5000"; empty to make them here.
    """

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    warmup_steps: int = 0
    decay: str = "none"
    encoder_learning_rate_factor: float = 1.0
    accumulation_steps: int = 1
    steps_per_execution: int = 1
    average_epochs: int = 1
    monitor: str = "ndcg@10"
    patience: int = 5
    mixed_precision: bool = False
    jit_compile: bool = False
    catalog_memory_mb: int = 4096
    data_service: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, "training.", {"epochs": 1, "batch_size": 1, "patience": 0, "seed": 0})
        at_least(self, "training.", {"weight_decay": 0, "clip_norm": 0, "catalog_memory_mb": 0})
        at_least(self, "training.", {"warmup_steps": 0, "accumulation_steps": 1})
        at_least(self, "training.", {"steps_per_execution": 1, "average_epochs": 1})
        require(
            self.encoder_learning_rate_factor > 0,
            "training.encoder_learning_rate_factor: wanted above 0; got "
            f"{self.encoder_learning_rate_factor}. To keep an encoder as it is, set its "
            "trainable_layers to 0.",
        )
        one_of("training.decay", self.decay, DECAYS)
        require(self.learning_rate > 0, "training.learning_rate: wanted above 0.")
        require(
            list_metric(self.monitor),
            "training.monitor: wanted a metric such as ndcg@10 or recall@20; "
            f"got {self.monitor!r}.",
        )


@dataclass(frozen=True)
class Config:
    """One experiment.

    `modalities` names those of the dataset that the item tower uses, in this order everywhere;
    None takes all that the dataset has, () makes an id-only model.
    """

    modalities: tuple[str, ...] | None = None
    dim: int = shapes_weights(64)
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    item: ItemConfig = field(default_factory=ItemConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    user: UserConfig = field(default_factory=UserConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    item_head: ItemHeadConfig = field(default_factory=ItemHeadConfig)
    cold_items: ColdItemsConfig = field(default_factory=ColdItemsConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    recommender: RecommenderConfig = field(default_factory=RecommenderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        require(self.dim >= 2, f"dim: wanted at least 2; got {self.dim}.")
        if self.user.history == "self_attention":
            require(
                self.dim % self.user.num_heads == 0,
                f"user.num_heads: wanted a divisor of dim ({self.dim}); got {self.user.num_heads}.",
            )
        require(
            not (self.training.jit_compile and (self.graph.layers or self.graph.content_layers)),
            "graph: wanted training.jit_compile false, as smoothing needs sparse products; got "
            "true. Set graph.layers and graph.content_layers to 0, or change that.",
        )
        looked_up = [name for name in ("head", "co_occurrence") if name in self.ranking.signals]
        require(
            not (looked_up and self.training.jit_compile),
            f"ranking.signals: wanted no {' and '.join(looked_up)} with training.jit_compile, as "
            "what is looked up in a table of neighbors has no shape known beforehand. Leave it "
            "out, or set training.jit_compile to false.",
        )
        require(
            self.alignment.trainable or "contrastive" not in self.alignment.kinds,
            "alignment.trainable: wanted true with contrastive among alignment.kinds, which pulls "
            "modalities together by training the projections; got false. Leave one of them out.",
        )
        if self.modalities is not None:
            require(
                len(set(self.modalities)) == len(self.modalities),
                f"modalities: each at most once; got {', '.join(self.modalities)}.",
            )
        require_effect(self)

    def to_json(self) -> dict[str, Any]:
        """The config as plain dictionaries, lists and scalars."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """Reads what `to_json` wrote; missing settings take their defaults.

        Raises:
          ConfigError: for an unknown name, a value of the wrong type or out of range.
        """
        return _build(cls, value, "")

    def override(self, settings: Mapping[str, Any], *, schema: Schema | None = None) -> "Config":
        """A copy with settings changed, such as `{"training.epochs": 5}`.

        Values may be strings as typed on a command line: they are read as JSON where the field is
        not itself a string. Settings of this config that have no effect with the new ones go back
        to their defaults; new ones without effect are refused.

        Args:
          settings: values by path.
          schema: of the dataset, where what it has no use for is to go back to its default, too.
        """
        return self._changed(settings, keep=frozenset(settings), schema=schema)

    def id_only(self) -> "Config":
        """The twin of this experiment that knows ids and nothing else. A head of items against
        items stays, unless it is one of content: both are to know the same interactions."""
        head = self.item_head.kind
        return self._changed(
            {
                "item_head.kind": "none" if head == "content" else head,
                "modalities": (),
                "alignment.kinds": (),
                "item.id_embedding": True,
                "item.id_dropout": 0.0,
                "item.features": False,
                "labels.softmax": (),
                "labels.sigmoid": (),
                "graph.content_layers": 0,
                "cold_items.fit": False,
                "user.profile": False,
                "user.features": False,
                "ranking.content": False,
                "ranking.features": False,
            }
        )

    def parts(self, settings: Mapping[str, Any]) -> types.SimpleNamespace:
        """The parts of this config with settings changed, each checked by itself alone: what
        `mmrec_tf.config.effects` reads where nobody knows yet whether they go together.

        Args:
          settings: values by path, as for `override`.

        Raises:
          ConfigError: for an unknown setting, or a value that its part refuses.
        """
        return _parts(self._tree(settings))

    def _changed(
        self,
        settings: Mapping[str, Any],
        *,
        keep: frozenset[str] = frozenset(),
        schema: Schema | None = None,
    ) -> "Config":
        tree = self._tree(settings)
        reset_idle(tree, _parts(tree), keep=keep, schema=schema)
        return Config.from_json(tree)

    def _tree(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        tree = self.to_json()
        for path, value in settings.items():
            node, kind = tree, type(self)
            *parents, last = path.split(".")
            for i, name in enumerate(parents):
                kind = _field_type(kind, name, ".".join(parents[: i + 1]))
                if not dataclasses.is_dataclass(kind):
                    raise ConfigError(
                        f"unknown setting {path}: {'.'.join(parents[: i + 1])} has no parts."
                    )
                node = node[name]
            node[last] = _typed(_field_type(kind, last, path), value, path)
        return tree


def setting_paths() -> tuple[str, ...]:
    """All settings, such as "dim" and "text.hidden_size"."""
    return tuple(_paths(Config, "", settled=False))


def settled_paths() -> tuple[str, ...]:
    """The settings that weights depend on, such as "text.hidden_size": see `shapes_weights`."""
    return tuple(_paths(Config, "", settled=True))


def _paths(cls: Any, prefix: str, *, settled: bool) -> Iterator[str]:
    for part in dataclasses.fields(cls):
        kind = _hints(cls)[part.name]
        if dataclasses.is_dataclass(kind):
            yield from _paths(kind, f"{prefix}{part.name}.", settled=settled)
        elif not settled or part.metadata.get("shapes_weights"):
            yield prefix + part.name


def load_config(path: str | pathlib.Path) -> Config:
    """Reads a config from a JSON file.

    Raises:
      ConfigError: when the file is missing, is not JSON, or holds an unusable setting.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ConfigError(f"{path}: wanted JSON; nested too deeply.") from error
    except OSError as error:
        raise ConfigError(f"{path}: wanted a config file; {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: wanted JSON; {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: wanted a JSON object; got {type(value).__name__}.")
    try:
        return Config.from_json(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


_hints = functools.cache(typing.get_type_hints)


def _field_type(cls: Any, name: str, path: str) -> Any:
    hints = _hints(cls)
    if path in REPLACED:
        raise ConfigError(f"{path} {REPLACED[path]}.")
    if name not in hints:
        raise ConfigError(f"unknown setting {path}{did_you_mean(name, hints)}")
    return hints[name]


def _build(cls: Any, value: Any, path: str) -> Any:
    return cls(**_arguments(cls, value, path))


def _parts(tree: Mapping[str, Any]) -> types.SimpleNamespace:
    """The parts of a Config, each checked by itself alone."""
    defaults = {field.name: field.default_factory for field in dataclasses.fields(Config)}
    parts = {name: make() for name, make in defaults.items() if make is not dataclasses.MISSING}
    return types.SimpleNamespace(**parts | _arguments(Config, tree, ""))


def _arguments(cls: Any, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'config'}: wanted a JSON object; got {value!r}.")
    arguments = {}
    for name, part in value.items():
        at = f"{path}.{name}" if path else name
        kind = _field_type(cls, name, at)
        if dataclasses.is_dataclass(kind):
            arguments[name] = _build(kind, part, at)
        else:
            arguments[name] = _typed(kind, part, at)
    return arguments


def _finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and abs(value) < 2.0**128


def _typed(kind: Any, value: Any, path: str) -> Any:
    """`value` as the type of a field; strings from a command line are read as JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value)
        except RecursionError as error:
            raise ConfigError(f"{path}: wanted a value; it is nested too deeply.") from error
        except ValueError:
            value = (
                value.split(",") if tuple in (origin, *map(typing.get_origin, arguments)) else value
            )
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: wanted a list; got {value!r}.")
        return tuple(_typed(arguments[0], part, path) for part in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # No setting of more is a number to TensorFlow.
    number = number and (isinstance(value, int) and abs(value) < 2**63 or _finite(value))
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ConfigError(f"{path}: wanted {getattr(kind, '__name__', kind)}; got {value!r}.")
