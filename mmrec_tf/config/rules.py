"""Which settings are read in some combinations only: a table, of which `effects` makes use."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mmrec_tf.config.encoders import FAMILIES, family_names, trains
from mmrec_tf.config.paths import text_of, under, value_at
from mmrec_tf.config.retrieval import FITTED


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
        return f"while {self.other} is {text_of(value_at(config, self.other))}"

    def remedy(self) -> str:
        """What makes them count."""
        return f"Set {self.other} to {self.wanted}"


# Training of an encoder, by the kind of its content.
TRAINING = {
    "text": under(
        "text", "adaptation", "adaptation_rank", "word_dropout", "synonyms", "synonym_share"
    ),
    "image": under("image", "adaptation", "adaptation_rank", "flip", "crop", "color", "blur"),
    "audio": under(
        "audio",
        "adaptation",
        "adaptation_rank",
        "mask_bins",
        "mask_frames",
        "noise_db",
        "shift_seconds",
    ),
}


def _trains(config: Any, *, kind: str) -> bool:
    return trains(kind, getattr(config, kind))


def _adapts(config: Any, *, kind: str) -> bool:
    return bool(getattr(config, kind).adaptation != "full")


RULES = (
    # Encoders
    Rule(
        under("text", "vocabulary_size", "hidden_size", "num_layers", "num_heads"),
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
    *(
        Rule(
            (f"{kind}.adaptation_rank",),
            f"{kind}.adaptation",
            '"lora"',
            functools.partial(_adapts, kind=kind),
        )
        for kind in ("image", "audio")
    ),
    Rule(
        ("video.pool_units",),
        "video.pool",
        '"gru" or "transformer"',
        lambda c: c.video.pool in ("gru", "transformer"),
    ),
    Rule(
        under("video", "num_layers", "num_heads"),
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
        under("alignment", "contrastive_weight", "collaborative", "temperature"),
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
        under("alignment", "collaborative", "temperature"),
        "alignment.contrastive_weight",
        "above 0",
        lambda c: c.alignment.contrastive_weight > 0,
    ),
    Rule(
        under("alignment", "graph_weight", "margin"),
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
        under("alignment", "target", "trainable"),
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
        lambda c: c.modalities is None or is_target(c.alignment.target, c.modalities),
    ),
    # Item tower and graph
    Rule(
        under("item", "id_init", "id_dropout"),
        "item.id_embedding",
        "true",
        lambda c: c.item.id_embedding,
    ),
    Rule(
        under("labels", "weight", "hidden"),
        "labels.softmax",
        "a feature of the items (or labels.sigmoid)",
        lambda c: bool(c.labels.names),
    ),
    Rule(
        under("labels", "softmax", "sigmoid"),
        "modalities",
        "one or more, as labels are foretold by content",
        lambda c: c.modalities != (),
    ),
    Rule(
        under("graph", "layers", "content_layers"),
        "retrieval.softmax",
        '"full", as smoothing needs all items in every step',
        lambda c: c.retrieval.softmax == "full",
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
            *under("item", "fusion", "missing", "modality_dropout", "values_pooling"),
            *under("alignment", "hidden", "target", "trainable", "l2"),
            *under("alignment", "contrastive_weight", "collaborative", "temperature"),
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
        under("alignment", "contrastive_weight", "temperature"),
        "modalities",
        "two or more, as the loss is among them",
        lambda c: aligns(c, c.modalities),
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
        under("user", "num_layers", "num_heads"),
        "user.history",
        '"self_attention"',
        lambda c: c.user.history == "self_attention",
    ),
    Rule(
        under("user", "time_gaps", "hidden", "dropout"),
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
        ("user.interests",),
        "user.history",
        '"attention"',
        lambda c: c.user.history == "attention",
    ),
    Rule(
        under("user", "history_length", "history_context"),
        "user.history",
        "another kind than none",
        lambda c: (
            c.user.history != "none"
            or c.retrieval.mask_history
            or bool(c.ranking.epochs and c.ranking.target_attention)
        ),
    ),
    Rule(
        under("user", "training_window"),
        "user.history",
        "another kind than none",
        lambda c: c.user.history != "none",
    ),
    Rule(
        ("user.training_window",),
        "user.history_length",
        "more than the window",
        lambda c: c.user.training_window < c.user.history_length,
    ),
    Rule(
        under("retrieval", "next_items", "fading"),
        "user.history",
        "another kind than none",
        lambda c: c.user.history != "none",
    ),
    Rule(
        under("retrieval", "next_items", "fading"),
        "user.history_context",
        '"past" (or "auto", where the split follows time)',
        lambda c: c.user.history_context != "others",
    ),
    Rule(
        ("retrieval.fading",),
        "retrieval.next_items",
        "2 or more",
        lambda c: c.retrieval.next_items > 1,
    ),
    # Retrieval
    Rule(
        under(
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
        under(
            "retrieval",
            "sampling_correction",
            "remove_accidental_hits",
            "num_hard_negatives",
            "num_mined_negatives",
            "mining_epochs",
            "memory_size",
        ),
        "retrieval.loss",
        '"softmax" or "bpr", as gbce compares with num_uniform_negatives alone',
        lambda c: c.retrieval.loss != "gbce",
    ),
    Rule(
        ("retrieval.calibration",),
        "retrieval.loss",
        '"gbce"',
        lambda c: c.retrieval.loss == "gbce",
    ),
    Rule(
        ("retrieval.calibration",),
        "retrieval.softmax",
        '"batch", as among all items there is nothing to calibrate',
        lambda c: c.retrieval.softmax == "batch",
    ),
    Rule(
        ("retrieval.label_smoothing",),
        "retrieval.loss",
        '"softmax", as the others have no target to spread',
        lambda c: c.retrieval.loss == "softmax",
    ),
    # Head of items against items
    Rule(
        under(
            "item_head",
            *("num_neighbors", "history_length", "l2", "min_count", "neighborhood", "memory_mb"),
            *("whole_share", "history_decay", "target_decay"),
        ),
        "item_head.kind",
        "another kind than none",
        lambda c: c.item_head.kind != "none",
    ),
    Rule(
        under("item_head", "l2", "min_count", "neighborhood", "memory_mb"),
        "item_head.kind",
        '"ease" or "slist"',
        lambda c: c.item_head.kind in ("ease", "slist"),
    ),
    Rule(
        under("item_head", "whole_share", "history_decay", "target_decay"),
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
        under("cold_items", "num_neighbors", "hidden_share", "exposure", "pull", "warm_up"),
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
        under(
            "ranking",
            *("architecture", "num_cross_layers", "projection_dim", "hidden", "dropout"),
            *("target_attention", "fine_tune", "content", "features", "context", "signals"),
            *("position_bias", "tasks", "score_weights", "task_weights", "uncertainty"),
            *("sharing", "num_experts", "entire_space"),
            *("loss", "positive_weight", "focal_gamma"),
            *("num_negatives", "num_disliked", "candidate_share", "learning_rate", "monitor"),
            "serve",
        ),
        "ranking.epochs",
        "1 or more",
        lambda c: c.ranking.epochs > 0,
    ),
    Rule(
        under("ranking", "num_cross_layers", "projection_dim"),
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
        under(
            "ranking",
            *("hidden", "dropout", "target_attention", "content", "features", "context"),
            *("signals", "sharing", "num_experts"),
        ),
        "ranking.architecture",
        "another than bilinear, which reads the user's and the item's vector alone",
        lambda c: c.ranking.architecture != "bilinear",
    ),
    Rule(
        ("ranking.signals",),
        "item_head.kind",
        "another kind than none, or leave head out of them",
        lambda c: "head" not in c.ranking.signals or c.item_head.kind != "none",
        lambda c: tuple(name for name in c.ranking.signals if name != "head"),
    ),
    Rule(
        ("ranking.signals",),
        "modalities",
        "one or more, or leave modalities out of them",
        lambda c: "modalities" not in c.ranking.signals or c.modalities != (),
        lambda c: tuple(name for name in c.ranking.signals if name != "modalities"),
    ),
    Rule(
        under("ranking", "dropout", "sharing", "num_experts"),
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
        ("ranking.entire_space",),
        "ranking.tasks",
        "click and a type of event",
        lambda c: (
            "click" in c.ranking.tasks and not {"click", "rating"}.issuperset(c.ranking.tasks)
        ),
    ),
    Rule(
        ("ranking.entire_space",),
        "ranking.loss",
        '"binary", as the order of candidates tells no probability to multiply',
        lambda c: c.ranking.loss == "binary",
    ),
    Rule(
        ("ranking.task_weights",),
        "ranking.uncertainty",
        "false",
        lambda c: not c.ranking.uncertainty,
    ),
    Rule(
        under("ranking", "positive_weight", "focal_gamma", "position_bias"),
        "ranking.loss",
        '"binary", as order is all that the others see',
        lambda c: c.ranking.loss == "binary",
    ),
    Rule(
        under(
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


def aligns(config: Any, modalities: tuple[str, ...] | None) -> bool:
    """Whether there is a contrastive loss among these modalities; None for unknown ones."""
    if "contrastive" not in config.alignment.kinds or modalities is None:
        return True
    return len(modalities) > 1 or (len(modalities) == 1 and config.alignment.collaborative > 0)


def _fits(config: Any) -> bool:
    """Whether projections are fitted."""
    return not set(FITTED).isdisjoint(config.alignment.kinds)


def is_target(name: str, modalities: tuple[str, ...]) -> bool:
    """Whether a modality is there to map others to; "" always is, as no modality is meant."""
    return name == "" or (name in modalities and len(modalities) > 1)


def family_rules(config: Any) -> Iterator[Rule]:
    """Settings of encoders that only other families read."""
    for kind, families in FAMILIES.items():
        part = getattr(config, kind)
        read = family_names(kind, part.family)
        for name in vars(part).keys() - read:
            owners = [other for other in families if name in family_names(kind, other)]
            path = (f"{kind}.{name}",)
            yield Rule(path, f"{kind}.family", " or ".join(owners), lambda c: False)
