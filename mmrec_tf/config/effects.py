"""Which settings have an effect together with which others; those without one are refused.

A setting may always have its default. With another value it has to be read by something: a search
over a setting that does nothing costs as much as one over a setting that does, and a config that
names one says what is not so.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmrec_tf.config.encoders import FAMILIES, family_names, trains
from mmrec_tf.config.retrieval import FITTED
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import Schema


class Rule(NamedTuple):
    """Settings that are read in some combinations only.

    Attributes:
      settings: their paths.
      other: path of the setting that decides.
      wanted: what the other has to be for them to be read, in words.
      read: whether they are read, from a Config.
      reset: what they go back to where they are not, from a Config; None for their defaults.
    """

    settings: tuple[str, ...]
    other: str
    wanted: str
    read: Callable[[Any], bool]
    reset: Callable[[Any], Any] | None = None

    def because(self, config: Any) -> str:
        """Why they are not read."""
        return f"while {self.other} is {_text(value_at(config, self.other))}"

    def remedy(self) -> str:
        """What makes them count."""
        return f"Set {self.other} to {self.wanted}"


class SchemaRule(NamedTuple):
    """Settings that are read on some datasets only; attributes and methods as of `Rule`."""

    settings: tuple[str, ...]
    reason: str
    advice: str
    read: Callable[[Any], bool]
    reset: Callable[[Any], Any] | None = None

    def because(self, config: Any) -> str:
        return f"as {self.reason}"

    def remedy(self) -> str:
        return self.advice


def _under(section: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names)


# Training of an encoder, by the kind of its content.
TRAINING = {
    "text": _under(
        "text", "adaptation", "adaptation_rank", "word_dropout", "synonyms", "synonym_share"
    ),
    "image": _under("image", "flip", "crop", "color", "blur"),
    "audio": _under("audio", "mask_bins", "mask_frames", "noise_db", "shift_seconds"),
}


def _trains(config: Any, *, kind: str) -> bool:
    return trains(kind, getattr(config, kind))


RULES = (
    # Encoders
    Rule(
        _under("text", "vocabulary_size", "hidden_size", "num_layers", "num_heads"),
        "text.weights",
        '"random", for a fresh BERT',
        lambda c: c.text.family != "bert" or c.text.weights == "random",
    ),
    *(
        Rule(
            settings,
            f"{kind}.trainable_layers",
            "-1 (all) or a count, as a frozen encoder sees unchanged content once",
            functools.partial(_trains, kind=kind),
        )
        for kind, settings in TRAINING.items()
    ),
    Rule(
        ("text.adaptation_rank",),
        "text.adaptation",
        '"lora" or "adapter"',
        lambda c: c.text.adaptation != "full",
    ),
    Rule(
        ("video.pool_units",),
        "video.pool",
        '"gru" or "transformer"',
        lambda c: c.video.pool in ("gru", "transformer"),
    ),
    Rule(
        _under("video", "num_layers", "num_heads"),
        "video.pool",
        '"transformer"',
        lambda c: c.video.pool == "transformer",
    ),
    Rule(
        ("audio.num_mfcc",),
        "audio.features",
        '"mfcc"',
        lambda c: c.audio.features == "mfcc",
    ),
    Rule(("text.synonym_share",), "text.synonyms", "a file", lambda c: bool(c.text.synonyms)),
    # Alignment
    Rule(
        _under("alignment", "contrastive_weight", "collaborative", "temperature"),
        "alignment.kinds",
        'some with "contrastive"',
        lambda c: "contrastive" in c.alignment.kinds,
    ),
    Rule(
        ("alignment.collaborative",),
        "item.id_embedding",
        "true",
        lambda c: c.item.id_embedding,
    ),
    Rule(
        _under("alignment", "collaborative", "temperature"),
        "alignment.contrastive_weight",
        "above 0",
        lambda c: c.alignment.contrastive_weight > 0,
    ),
    Rule(
        _under("alignment", "graph_weight", "margin"),
        "alignment.kinds",
        'some with "graph"',
        lambda c: "graph" in c.alignment.kinds,
    ),
    Rule(
        ("alignment.margin",),
        "alignment.graph_weight",
        "above 0",
        lambda c: c.alignment.graph_weight > 0,
    ),
    Rule(
        ("alignment.hidden",),
        "alignment.kinds",
        "some without ridge, cca and procrustes, as projections that are fitted are linear",
        lambda c: not _fits(c),
    ),
    Rule(
        _under("alignment", "target", "trainable"),
        "alignment.kinds",
        "some with ridge, cca or procrustes, as other projections start at random and are learned",
        lambda c: _fits(c),
    ),
    Rule(
        ("alignment.l2",),
        "alignment.kinds",
        "some with ridge or cca",
        lambda c: not {"ridge", "cca"}.isdisjoint(c.alignment.kinds),
    ),
    Rule(
        ("alignment.target",),
        "modalities",
        "some with it and with others, which are mapped to it",
        lambda c: c.modalities is None or _is_target(c.alignment.target, c.modalities),
    ),
    # Item tower and graph
    Rule(
        _under("item", "id_init", "id_dropout"),
        "item.id_embedding",
        "true",
        lambda c: c.item.id_embedding,
    ),
    Rule(
        _under("labels", "weight", "hidden"),
        "labels.softmax",
        "a feature of the items (or labels.sigmoid)",
        lambda c: bool(c.labels.names),
    ),
    Rule(
        _under("labels", "softmax", "sigmoid"),
        "modalities",
        "one or more, as labels are foretold by content",
        lambda c: c.modalities != (),
    ),
    Rule(("graph.edge_dropout",), "graph.layers", "1 or more", lambda c: c.graph.layers > 0),
    Rule(
        ("graph.content_neighbors",),
        "graph.content_layers",
        "1 or more",
        lambda c: c.graph.content_layers > 0,
    ),
    Rule(
        (
            *_under("item", "fusion", "missing", "modality_dropout", "values_pooling"),
            *_under("alignment", "hidden", "target", "trainable", "l2"),
            *_under("alignment", "contrastive_weight", "collaborative", "temperature"),
            "ranking.content",
        ),
        "modalities",
        "one or more",
        lambda c: c.modalities != (),
    ),
    Rule(
        ("alignment.kinds",),
        "modalities",
        "one or more",
        lambda c: c.modalities != () or not _fits(c),
        # Over a graph there is still something to do.
        lambda c: tuple(kind for kind in c.alignment.kinds if kind not in FITTED),
    ),
    Rule(
        _under("alignment", "contrastive_weight", "temperature"),
        "modalities",
        "two or more, as the loss is among them",
        lambda c: _aligns(c, c.modalities),
    ),
    Rule(
        ("image.*", "audio.*", "video.*", "training.encoder_learning_rate_factor"),
        "modalities",
        "one or more",
        lambda c: c.modalities != (),
    ),
    Rule(
        ("text.*",),
        "modalities",
        "one or more",
        lambda c: c.modalities != () or c.user.profile,
    ),
    # User tower
    Rule(("user.id_dropout",), "user.id_embedding", "true", lambda c: c.user.id_embedding),
    Rule(
        _under("user", "num_layers", "num_heads"),
        "user.history",
        '"self_attention"',
        lambda c: c.user.history == "self_attention",
    ),
    Rule(
        _under("user", "time_gaps", "hidden", "dropout"),
        "user.history",
        "another kind than none",
        lambda c: c.user.history != "none",
    ),
    Rule(
        ("user.history_embedding",),
        "user.history",
        "another kind than none",
        lambda c: c.user.history != "none",
    ),
    Rule(
        ("user.history_embedding",),
        "retrieval.softmax",
        '"batch", as the full softmax embeds the whole catalog in each step',
        lambda c: c.retrieval.softmax == "batch",
    ),
    Rule(
        ("user.refresh_steps",),
        "user.history_embedding",
        '"cached"',
        lambda c: c.user.history_embedding == "cached",
    ),
    Rule(
        _under("user", "history_length", "history_context"),
        "user.history",
        "another kind than none",
        lambda c: (
            c.user.history != "none"
            or c.retrieval.mask_history
            or bool(c.ranking.epochs and c.ranking.target_attention)
        ),
    ),
    # Retrieval
    Rule(
        _under(
            "retrieval",
            "sampling_correction",
            "remove_accidental_hits",
            "num_hard_negatives",
            "num_uniform_negatives",
            "num_mined_negatives",
            "mining_epochs",
            "memory_size",
        ),
        "retrieval.softmax",
        '"batch"',
        lambda c: c.retrieval.softmax == "batch",
    ),
    Rule(
        ("retrieval.mining_epochs",),
        "retrieval.num_mined_negatives",
        "1 or more",
        lambda c: c.retrieval.num_mined_negatives > 0,
    ),
    Rule(
        ("retrieval.disliked_weight",),
        "retrieval.disliked_below",
        "a rating",
        lambda c: c.retrieval.disliked_below is not None,
    ),
    Rule(
        ("retrieval.label_smoothing",),
        "retrieval.loss",
        '"softmax", as bpr has no target to spread',
        lambda c: c.retrieval.loss == "softmax",
    ),
    # Head of items against items
    Rule(
        _under(
            "item_head",
            *("num_neighbors", "history_length", "l2", "min_count", "neighborhood", "memory_mb"),
            *("whole_share", "history_decay", "target_decay"),
        ),
        "item_head.kind",
        "another kind than none",
        lambda c: c.item_head.kind != "none",
    ),
    Rule(
        _under("item_head", "l2", "min_count", "neighborhood", "memory_mb"),
        "item_head.kind",
        '"ease" or "slist"',
        lambda c: c.item_head.kind in ("ease", "slist"),
    ),
    Rule(
        _under("item_head", "whole_share", "history_decay", "target_decay"),
        "item_head.kind",
        '"slist"',
        lambda c: c.item_head.kind == "slist",
    ),
    Rule(
        ("item_head.target_decay",),
        "item_head.whole_share",
        "below 1, as whole histories have no future",
        lambda c: c.item_head.whole_share < 1,
    ),
    Rule(
        ("item_head.kind",),
        "modalities",
        "one or more, as the head compares content",
        lambda c: c.modalities != () or c.item_head.kind != "content",
    ),
    # Cold items
    Rule(
        _under("cold_items", "num_neighbors", "hidden_share", "exposure", "pull"),
        "cold_items.fit",
        "true",
        lambda c: c.cold_items.fit,
    ),
    Rule(
        ("cold_items.fit",),
        "modalities",
        "one or more, as items that nobody met are alike by content",
        lambda c: c.modalities != (),
    ),
    # Ranking
    Rule(
        _under(
            "ranking",
            *("architecture", "num_cross_layers", "projection_dim", "hidden", "dropout"),
            *("target_attention", "fine_tune", "content", "features", "context"),
            *("position_bias", "tasks", "score_weights", "task_weights", "uncertainty"),
            *("sharing", "num_experts", "loss", "positive_weight", "focal_gamma"),
            *("num_negatives", "num_disliked", "candidate_share", "learning_rate", "monitor"),
            "serve",
        ),
        "ranking.epochs",
        "1 or more",
        lambda c: c.ranking.epochs > 0,
    ),
    Rule(
        _under("ranking", "num_cross_layers", "projection_dim"),
        "ranking.architecture",
        '"dcn"',
        lambda c: c.ranking.architecture == "dcn",
    ),
    Rule(
        ("ranking.projection_dim",),
        "ranking.num_cross_layers",
        "1 or more",
        lambda c: c.ranking.num_cross_layers > 0,
    ),
    Rule(
        _under(
            "ranking",
            *("hidden", "dropout", "target_attention", "content", "features", "context"),
            *("sharing", "num_experts"),
        ),
        "ranking.architecture",
        "another than bilinear, which reads the user's and the item's vector alone",
        lambda c: c.ranking.architecture != "bilinear",
    ),
    Rule(
        _under("ranking", "dropout", "sharing", "num_experts"),
        "ranking.hidden",
        "one layer or more",
        lambda c: len(c.ranking.hidden) > 0,
    ),
    Rule(
        ("ranking.sharing",),
        "ranking.tasks",
        "two or more",
        lambda c: len(c.ranking.tasks) > 1,
    ),
    Rule(
        ("ranking.num_experts",),
        "ranking.sharing",
        '"mmoe" or "ple"',
        lambda c: c.ranking.sharing != "shared_bottom",
    ),
    Rule(
        ("ranking.task_weights",),
        "ranking.uncertainty",
        "false",
        lambda c: not c.ranking.uncertainty,
    ),
    Rule(
        _under("ranking", "positive_weight", "focal_gamma", "position_bias"),
        "ranking.loss",
        '"binary", as order is all that the others see',
        lambda c: c.ranking.loss == "binary",
    ),
    Rule(
        _under(
            "ranking",
            *("loss", "positive_weight", "focal_gamma", "position_bias"),
            *("num_negatives", "num_disliked", "candidate_share"),
        ),
        "ranking.tasks",
        "other tasks beside rating",
        lambda c: c.ranking.tasks != ("rating",),
    ),
    Rule(
        ("ranking.num_disliked",),
        "ranking.tasks",
        "some with click",
        lambda c: "click" in c.ranking.tasks,
    ),
    Rule(
        ("ranking.num_disliked",),
        "ranking.click_rating",
        "a rating",
        lambda c: c.ranking.click_rating is not None or c.retrieval.disliked_below is not None,
    ),
    Rule(
        ("ranking.num_disliked",),
        "ranking.loss",
        '"listwise" or "pairwise"',
        lambda c: c.ranking.loss != "binary",
    ),
    Rule(
        ("ranking.candidate_share",),
        "ranking.num_negatives",
        "1 or more",
        lambda c: c.ranking.num_negatives > 0,
    ),
)


def _aligns(config: Any, modalities: tuple[str, ...] | None) -> bool:
    """Whether there is a contrastive loss among these modalities; None for unknown ones."""
    if "contrastive" not in config.alignment.kinds or modalities is None:
        return True
    return len(modalities) > 1 or (len(modalities) == 1 and config.alignment.collaborative > 0)


def _fits(config: Any) -> bool:
    """Whether projections are fitted."""
    return not set(FITTED).isdisjoint(config.alignment.kinds)


def _is_target(name: str, modalities: tuple[str, ...]) -> bool:
    """Whether a modality is there to map others to; "" always is, as no modality is meant."""
    return name == "" or (name in modalities and len(modalities) > 1)


def _family_rules(config: Any) -> Iterator[Rule]:
    """Settings of encoders that only other families read."""
    for kind, families in FAMILIES.items():
        part = getattr(config, kind)
        read = family_names(kind, part.family)
        for name in vars(part).keys() - read:
            owners = [other for other in families if name in family_names(kind, other)]
            path = (f"{kind}.{name}",)
            yield Rule(path, f"{kind}.family", " or ".join(owners), lambda c: False)


def schema_rules(config: Any, schema: Schema) -> Iterator[SchemaRule]:
    """What a dataset has no use for."""
    names = schema.select(config.modalities)
    kinds = {schema.modalities[name].kind for name in names}
    if config.user.profile and schema.profile and "text" not in kinds:
        yield SchemaRule(
            ("text.trainable_layers", *TRAINING["text"]),
            "only profile texts are read, always by a frozen encoder",
            "Choose a modality of text",
            lambda c: False,
        )
        kinds.add("text")
    of_frames = ("image.trainable_layers", *TRAINING["image"])
    if "video" in kinds and "image" not in kinds:
        yield SchemaRule(
            of_frames,
            "only frames of videos are read as image says, of which video.trainable_layers trains",
            "Set video.trainable_layers",
            lambda c: False,
        )
    yield SchemaRule(
        ("item.values_pooling",),
        "no item has several values of a modality that is read",
        "Choose one of which items have several (--max-images of the preparation)",
        lambda c: any(schema.modalities[name].max_values > 1 for name in names),
    )
    for kind in ("text", "image", "audio", "video"):
        # Frames of videos are pictures.
        if kind not in kinds and not (kind == "image" and "video" in kinds):
            yield SchemaRule(
                (f"{kind}.*",),
                f"no modality of kind {kind} is read ({', '.join(names) or 'none'})",
                "Choose one that the dataset has",
                lambda c: False,
            )
    if not any(trains(kind, getattr(config, kind)) for kind in kinds if kind != "vector"):
        yield SchemaRule(
            ("training.encoder_learning_rate_factor",),
            "no encoder trains",
            "Set trainable_layers of one",
            lambda c: False,
        )
    yield SchemaRule(
        _under("alignment", "contrastive_weight", "temperature"),
        f"the loss is among modalities, of which there are {len(names)}",
        "Choose two or more",
        lambda c: _aligns(c, names),
    )
    yield SchemaRule(
        ("cold_items.*",),
        "the dataset has no modality, by which items that nobody met would be alike",
        "Prepare it with content",
        lambda c: bool(names),
    )
    yield SchemaRule(
        ("alignment.target",),
        f"the modalities that are read are {', '.join(names) or 'none'}",
        "Choose one of two or more, to which the others are mapped",
        lambda c: _is_target(c.alignment.target, names),
    )


def idle_settings(config: Any, schema: Schema | None = None) -> dict[str, Rule | SchemaRule]:
    """The settings that differ from their default and that nothing reads, with the reason.

    Args:
      config: Config, or its parts under the same names.
      schema: of the dataset, where it is known.
    """
    rules: list[Rule | SchemaRule] = [*_family_rules(config), *RULES]
    if schema is not None:
        rules += schema_rules(config, schema)
    found: dict[str, Rule | SchemaRule] = {}
    for rule in rules:
        if rule.read(config):
            continue
        for path in _expanded(rule.settings, config):
            if path not in found and value_at(config, path) != default_at(config, path):
                found[path] = rule
    return found


def rules_of(path: str, config: Any, schema: Schema | None = None) -> list[Rule | SchemaRule]:
    """All rules that say whether a setting is read; it is where each of them says so.

    Args:
      path: of a setting, such as "user.num_layers".
      config, schema: as of `idle_settings`.
    """
    rules: list[Rule | SchemaRule] = [*_family_rules(config), *RULES]
    if schema is not None:
        rules += schema_rules(config, schema)
    return [rule for rule in rules if path in _expanded(rule.settings, config)]


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
    raise ConfigError(
        f"{path}: wanted {_text(default_at(config, path))} {rule.because(config)}, where it has no "
        f"effect; got {_text(value_at(config, path))}. {rule.remedy()}, or leave {path} out.{tail}"
    )


def value_at(config: Any, path: str) -> Any:
    """The value of a setting by its path, such as "training.epochs"."""
    return functools.reduce(getattr, path.split("."), config)


def default_at(config: Any, path: str) -> Any:
    """The default of a setting of a section."""
    section, name = path.rsplit(".", 1)
    return getattr(type(value_at(config, section)), name)


def _expanded(settings: tuple[str, ...], config: Any) -> Iterator[str]:
    """Paths, "*" being all settings of a section."""
    for path in settings:
        section, _, name = path.rpartition(".")
        if name != "*":
            yield path
            continue
        for field in vars(value_at(config, section)):
            yield f"{section}.{field}"


def _text(value: Any) -> str:
    return json.dumps(value)


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
