"""Spaces with a name, `--space NAME`: what is most worth varying of each part."""

import json
from collections.abc import Callable
from typing import Any

from mmrec_tf.config import ARCHITECTURES, FUSIONS, Config
from mmrec_tf.config.encoders import trains
from mmrec_tf.config.paths import value_at
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import Schema
from tuning.space.language import Space, scopes_of

_Ranges = dict[str, dict[str, object]]
# What others are tried with; with those of a start they may not go together.
DIMS = [32, 64, 128]
LENGTHS = [20, 50, 100]
# By setting and value (None for all of them) how many modalities have to have a frozen encoder,
# whose vectors are compared.
VECTORS_WANTED = {
    ("graph.content_layers", None): 1,
    ("graph.content_neighbors", None): 1,
    ("item_head.kind", "content"): 1,
    ("item.missing", "nearest"): 1,
    ("item.missing", "mapped"): 2,
}


def _training() -> _Ranges:
    return {
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
        "training.weight_decay": {"float": [1e-6, 1e-2], "log": True},
        "training.batch_size": {"choice": [256, 512, 1024]},
    }


def _retrieval() -> _Ranges:
    return {
        **_training(),
        "dim": {"choice": DIMS},
        "retrieval.temperature": {"float": [0.03, 0.3], "log": True},
        "retrieval.label_smoothing": {"choice": [0.0, 0.05, 0.1]},
        "retrieval.softmax": {"choice": ["batch", "full"]},
        "retrieval.num_uniform_negatives": {"choice": [0, 128, 512]},
        "retrieval.popularity_bias": {"choice": [True, False]},
        "user.history": {"choice": ["mean", "gru", "attention", "self_attention"]},
        "user.num_layers": {"int": [1, 2]},
        "user.num_heads": {"choice": [1, 2, 4], "when": {"dim": DIMS}},
        "user.time_gaps": {"choice": [False, True]},
        "user.interests": {"choice": [1, 2, 4]},
        "user.hidden": {"choice": [0, 128]},
        "user.dropout": {"float": [0.0, 0.5]},
        "user.id_embedding": {"choice": [False, True]},
        "user.id_dropout": {"float": [0.0, 0.5]},
        "item.id_dropout": {"float": [0.0, 0.5]},
        "item.dropout": {"float": [0.0, 0.3]},
        "graph.layers": {"int": [0, 2]},
        "graph.content_layers": {"int": [0, 1]},
        "item_head.kind": {"choice": ["none", "ease", "slist", "content"]},
        "item_head.l2": {"float": [10.0, 1000.0], "log": True},
        "retrieval.cold_negatives": {"choice": [True, False]},
        "training.average_epochs": {"choice": [1, 3]},
    }


def _sequence() -> _Ranges:
    return {
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
        "dim": {"choice": DIMS},
        "user.history": {"choice": ["mean", "gru", "attention", "self_attention"]},
        "user.num_layers": {"int": [1, 3]},
        "user.num_heads": {"choice": [1, 2, 4], "when": {"dim": DIMS}},
        "user.interests": {"choice": [1, 2, 4]},
        "user.time_gaps": {"choice": [False, True]},
        "user.dropout": {"float": [0.0, 0.5]},
        "user.history_length": {"choice": LENGTHS},
        "user.training_window": {"choice": [0, 10, 15], "when": {"user.history_length": LENGTHS}},
        "retrieval.next_items": {"choice": [1, 2, 4]},
        "retrieval.fading": {"float": [0.25, 1.0]},
        "retrieval.softmax": {"choice": ["batch", "full"]},
        # Of a batch it wants negatives that not every start has.
        "retrieval.loss": {"choice": ["softmax", "gbce"], "when": {"retrieval.softmax": ["full"]}},
        "retrieval.item_balance": {"float": [0.0, 0.5]},
        "item_head.kind": {"choice": ["none", "ease", "slist"]},
        "item_head.l2": {"float": [10.0, 1000.0], "log": True},
        "item_head.whole_share": {"float": [0.0, 0.9]},
        "item_head.history_decay": {"float": [2.0, 32.0], "log": True},
        "training.average_epochs": {"choice": [1, 3]},
    }


def _ranking() -> _Ranges:
    return {
        "ranking.architecture": {"choice": list(ARCHITECTURES)},
        "ranking.num_cross_layers": {"int": [1, 3]},
        "ranking.projection_dim": {"choice": [0, 16, 64]},
        "ranking.hidden": {"choice": [[64], [128, 64], [256, 128, 64]]},
        "ranking.dropout": {"float": [0.0, 0.3]},
        "ranking.target_attention": {"choice": [False, True]},
        "ranking.fine_tune": {"choice": [False, True]},
        "ranking.signals": {
            "choice": [[], ["neighbors", "recency"], ["neighbors", "co_occurrence", "trend"]]
        },
        "ranking.context": {"choice": [[], ["hour"], ["hour", "weekday"]]},
        "ranking.sharing": {"choice": ["shared_bottom", "mmoe", "ple"]},
        "ranking.num_experts": {"int": [2, 6]},
        "ranking.loss": {"choice": ["listwise", "pairwise", "binary"]},
        "ranking.num_negatives": {"int": [4, 16]},
        "ranking.candidate_share": {"float": [0.0, 1.0]},
        "ranking.learning_rate": {"float": [3e-4, 1e-2], "log": True},
    }


def _fusion() -> _Ranges:
    return {
        "item.fusion": {"choice": list(FUSIONS)},
        "item.missing": {"choice": ["skip", "token", "mean", "nearest", "mapped"]},
        "item.modality_dropout": {"float": [0.0, 0.4]},
        "item.id_dropout": {"float": [0.0, 0.5]},
        "alignment.kinds": {
            "choice": [[], ["contrastive"], ["ridge"], ["cca"], ["ridge", "contrastive"]]
        },
        "alignment.contrastive_weight": {"float": [0.01, 1.0], "log": True},
        "alignment.temperature": {"float": [0.03, 0.3], "log": True},
        "alignment.collaborative": {"choice": [0.0, 0.3, 1.0]},
        "alignment.hidden": {"choice": [0, 128]},
        "item.values_pooling": {"choice": ["mean", "attention"]},
        "graph.content_layers": {"int": [0, 2]},
        "graph.content_neighbors": {"choice": [5, 10, 20]},
        **_cold_items(),
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
    }


def _cold_items() -> _Ranges:
    return {
        "cold_items.fit": {"choice": [False, True]},
        "cold_items.num_neighbors": {"choice": [10, 20, 50]},
        "cold_items.exposure": {"float": [0.3, 3.0], "log": True},
    }


def _encoders() -> _Ranges:
    return {
        "text.pooling": {"choice": ["mean", "cls"]},
        "text.max_tokens": {"choice": [16, 32, 64]},
        "text.trainable_layers": {"choice": [0, 1, 2]},
        "text.adaptation": {"choice": ["full", "lora", "adapter"]},
        "text.adaptation_rank": {"choice": [4, 8, 16]},
        "text.word_dropout": {"float": [0.0, 0.3]},
        "image.trainable_layers": {"choice": [0, 4]},
        "image.flip": {"choice": [False, True]},
        "image.crop": {"float": [0.6, 1.0]},
        "image.color": {"float": [0.0, 0.4]},
        "audio.num_mels": {"choice": [64, 128]},
        "audio.filters": {"choice": [[16, 32, 64], [32, 64, 128]]},
        "audio.gru_units": {"choice": [0, 32]},
        "audio.mask_bins": {"int": [0, 16]},
        "audio.mask_frames": {"int": [0, 16]},
        "video.pool": {"choice": ["mean", "attention", "gru", "transformer"]},
        "video.pool_units": {"choice": [32, 64]},
        "training.encoder_learning_rate_factor": {"float": [0.01, 1.0], "log": True},
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
    }


def _whole() -> _Ranges:
    fusion = ("item.fusion", "item.missing", "item.modality_dropout", "alignment.kinds")
    ranking = ("architecture", "num_cross_layers", "hidden", "dropout", "loss", "learning_rate")
    return {
        **_retrieval(),
        **{path: _fusion()[path] for path in (*fusion, "alignment.contrastive_weight")},
        **_cold_items(),
        **{f"ranking.{name}": _ranking()[f"ranking.{name}"] for name in ranking},
        "recommender.popularity_dampening": {"float": [0.0, 0.3]},
    }


SPACES: dict[str, Callable[[], _Ranges]] = {
    "retrieval": _retrieval,
    "sequence": _sequence,
    "ranking": _ranking,
    "fusion": _fusion,
    "encoders": _encoders,
    "whole": _whole,
}


def ready_made(
    name: str, config: Config, *, schema: Schema | None = None
) -> tuple[Space, dict[str, str]]:
    """A space by its name.

    Args:
      name: one of `SPACES`: "retrieval" (loss, towers, history, graph, head of items), "sequence"
        (what reads a history in its order), "ranking" (the second stage), "fusion" (fusion,
        alignment, cold items), "encoders", "whole" (all but encoders).
      config: where the search starts.
      schema: of the dataset; None where it is not known.

    Returns:
      The space; and by setting why it was left out, wholly or with some of its values, as it has no
      effect on this config or dataset, or cannot be used there.

    Raises:
      ConfigError: for an unknown name, or where nothing is left.
    """
    if name not in SPACES:
        raise ConfigError(f"unknown search space {name!r}{did_you_mean(name, SPACES)}")
    space = SPACES[name]()
    left_out = _refused(space, config)
    while True:
        _, idle = scopes_of(space, config, schema)
        if not idle:
            break
        # What they decided may have no effect then, either.
        for path, error in idle.items():
            left_out[path] = str(error).removeprefix(f"search space: {path} ")
            del space[path]
        if not space:
            raise ConfigError(
                f"search space {name}: none of its settings has an effect on this config and "
                f"dataset: {path} {left_out[path]}"
            )
    left_out |= _without_vectors(space, config, schema)
    return space, left_out


def _refused(space: _Ranges, config: Config) -> dict[str, str]:
    """Takes out values that the rest of the config excludes; returns why.

    A setting of which one value is left is taken out; what it decides by "when" stays where the
    config has such a value.
    """
    left_out = {}
    for path in list(space):
        values, usable = list(_choices(space[path])), []
        for value in values:
            try:
                config.parts({path: value})
            except ConfigError as error:
                left_out[path] = f"cannot be {json.dumps(value)}: {error}"
            else:
                usable.append(value)
        if len(usable) < min(2, len(values)):
            del space[path]
        elif len(usable) < len(values):
            space[path] = {**space[path], "choice": usable}
    for path in list(space):
        when: Any = space[path].get("when", {})
        gone = when.keys() - space.keys()
        if any(value_at(config, other) not in when[other] for other in gone):
            del space[path]
        elif gone:
            space[path] = {**space[path], "when": {o: v for o, v in when.items() if o not in gone}}
    return left_out


def _choices(rule: Any) -> list[Any]:
    return list(rule.get("choice", ()))


def _without_vectors(space: _Ranges, config: Config, schema: Schema | None) -> dict[str, str]:
    """Takes out what compares content by the vectors of frozen encoders, where too few are frozen;
    returns why."""
    if schema is None:
        return {}
    kinds = [schema.modalities[name].kind for name in schema.select(config.modalities)]
    frozen = sum(kind == "vector" or not trains(kind, getattr(config, kind)) for kind in kinds)
    left_out = {}
    for (path, value), least in VECTORS_WANTED.items():
        values = _choices(space.get(path, {}))
        if frozen >= least or (value is not None and value not in values):
            continue
        said = "" if value is None else f'with "{value}" '
        reason = f"{said}compares vectors of {least} frozen encoders or more; there are {frozen}"
        if value is None and space.pop(path, None) is not None:
            left_out[path] = reason
        elif value is not None:
            space[path] = {**space[path], "choice": [one for one in values if one != value]}
            left_out.setdefault(path, reason)
    return left_out


def default_space(config: Config) -> Space:
    """The settings of retrieval most worth varying; those of content are left out for an id-only
    config."""
    space: dict[str, dict[str, object]] = {
        **_training(),
        "dim": {"choice": DIMS},
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
