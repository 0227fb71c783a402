"""Spaces with a name, `--space NAME`: what is most worth varying of each part."""

from collections.abc import Callable

from mmrec_tf.config import ARCHITECTURES, FUSIONS, Config
from mmrec_tf.errors import ConfigError, did_you_mean
from mmrec_tf.schema import Schema
from tuning.space.language import Space, scopes_of

_Ranges = dict[str, dict[str, object]]


def _training() -> _Ranges:
    return {
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
        "training.weight_decay": {"float": [1e-6, 1e-2], "log": True},
        "training.batch_size": {"choice": [256, 512, 1024]},
    }


def _retrieval() -> _Ranges:
    return {
        **_training(),
        "dim": {"choice": [32, 64, 128]},
        "retrieval.temperature": {"float": [0.03, 0.3], "log": True},
        "retrieval.label_smoothing": {"choice": [0.0, 0.05, 0.1]},
        "retrieval.softmax": {"choice": ["batch", "full"]},
        "retrieval.num_uniform_negatives": {"choice": [0, 128, 512]},
        "retrieval.popularity_bias": {"choice": [True, False]},
        "user.history": {"choice": ["mean", "gru", "attention", "self_attention"]},
        "user.num_layers": {"int": [1, 2]},
        "user.num_heads": {"choice": [1, 2, 4]},
        "user.time_gaps": {"choice": [False, True]},
        "user.hidden": {"choice": [0, 128]},
        "user.id_embedding": {"choice": [False, True]},
        "user.id_dropout": {"float": [0.0, 0.5]},
        "item.id_dropout": {"float": [0.0, 0.5]},
        "item.dropout": {"float": [0.0, 0.3]},
    }


def _ranking() -> _Ranges:
    return {
        "ranking.architecture": {"choice": list(ARCHITECTURES)},
        "ranking.num_cross_layers": {"int": [1, 3]},
        "ranking.projection_dim": {"choice": [0, 16, 64]},
        "ranking.hidden": {"choice": [[64], [128, 64], [256, 128, 64]]},
        "ranking.dropout": {"float": [0.0, 0.3]},
        "ranking.target_attention": {"choice": [False, True]},
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
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
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
        "image.color": {"float": [0.0, 0.4]},
        "audio.num_mels": {"choice": [64, 128]},
        "audio.filters": {"choice": [[16, 32, 64], [32, 64, 128]]},
        "audio.gru_units": {"choice": [0, 32]},
        "audio.mask_bins": {"int": [0, 16]},
        "audio.mask_frames": {"int": [0, 16]},
        "training.encoder_learning_rate_factor": {"float": [0.01, 1.0], "log": True},
        "training.learning_rate": {"float": [3e-4, 3e-2], "log": True},
    }


def _whole() -> _Ranges:
    fusion = ("item.fusion", "item.missing", "item.modality_dropout", "alignment.kinds")
    ranking = ("architecture", "num_cross_layers", "hidden", "dropout", "loss", "learning_rate")
    return {
        **_retrieval(),
        **{path: _fusion()[path] for path in (*fusion, "alignment.contrastive_weight")},
        "item_head.kind": {"choice": ["none", "ease", "slist"]},
        "item_head.l2": {"float": [10.0, 1000.0], "log": True},
        **{f"ranking.{name}": _ranking()[f"ranking.{name}"] for name in ranking},
        "recommender.popularity_dampening": {"float": [0.0, 0.3]},
    }


SPACES: dict[str, Callable[[], _Ranges]] = {
    "retrieval": _retrieval,
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
      name: one of `SPACES`: "retrieval" (loss, towers, history), "ranking" (the second stage),
        "fusion" (fusion and alignment), "encoders", "whole" (all but encoders).
      config: where the search starts.
      schema: of the dataset; None where it is not known.

    Returns:
      The space; and by setting why it was left out, as it has no effect on this config or dataset.

    Raises:
      ConfigError: for an unknown name, or where nothing is left.
    """
    if name not in SPACES:
        raise ConfigError(f"unknown search space {name!r}{did_you_mean(name, SPACES)}")
    space, left_out = SPACES[name](), {}
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
    return space, left_out


def default_space(config: Config) -> Space:
    """The settings of retrieval most worth varying; those of content are left out for an id-only
    config."""
    space: dict[str, dict[str, object]] = {
        **_training(),
        "dim": {"choice": [32, 64, 128]},
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
