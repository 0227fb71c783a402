"""Which settings are read on some datasets only."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmrec_tf.config.encoders import trains
from mmrec_tf.config.paths import under
from mmrec_tf.config.rules import TRAINING, aligns, is_target
from mmrec_tf.schema import Schema


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
        ("ranking.signals",),
        "there is no modality to compare by",
        "Leave modalities out of them",
        lambda c: bool(names) or "modalities" not in c.ranking.signals,
        lambda c: tuple(name for name in c.ranking.signals if name != "modalities"),
    )
    yield SchemaRule(
        under("retrieval", "next_items", "fading"),
        "the dataset's split does not follow time, so that histories hold all else of a user",
        "Set user.history_context to past",
        lambda c: schema.ordered or c.user.history_context == "past",
    )
    yield SchemaRule(
        under("alignment", "contrastive_weight", "temperature"),
        f"the loss is among modalities, of which there are {len(names)}",
        "Choose two or more",
        lambda c: aligns(c, names),
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
        lambda c: is_target(c.alignment.target, names),
    )
