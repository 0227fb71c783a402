"""All families of encoders: what each needs, whether it can be exported, and what it takes."""

from typing import Any, NamedTuple

from mmrec_tf.config import FAMILIES, Config, random_weights, trains
from mmrec_tf.encoders import MODALITIES
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec


class Family(NamedTuple):
    """One family of encoders.

    Attributes:
      kind: of content.
      name: of the family.
      chosen: whether the config at hand chooses it.
      needs: what has to be there, in words.
      exported: whether an export can hold it, in words.
      trains: whether it trains, with the settings at hand.
      weight_bytes: of its weights; None where it cannot be made without what it needs.
      vector_length: how many numbers an item has of it; None as well.
      reason: why it could not be made; "" where it was.
    """

    kind: str
    name: str
    chosen: bool
    needs: str
    exported: str
    trains: bool
    weight_bytes: int | None
    vector_length: int | None
    reason: str


def list_families(config: Config | None = None) -> list[Family]:
    """Makes each family once and measures it: those that a config chooses as it says, the others
    with their defaults, and with random weights in place of those that would be downloaded.

    Args:
      config: None for the defaults.
    """
    config = config or Config()
    return [
        _measured(config, kind, name) for kind, families in FAMILIES.items() for name in families
    ]


def _measured(config: Config, kind: str, name: str) -> Family:
    module = MODALITIES[kind].FAMILIES[name]
    part = getattr(config, kind)
    chosen = part.family == name
    weight_bytes = vector_length = None
    exported, reason, learns = getattr(module, "EXPORTED", "yes"), "", False
    try:
        if not chosen or part == type(part)():
            part = _defaults(part, name)
        learns = trains(kind, part)
        if part.family == "bert" and random_weights(kind, part):
            raise ConfigError("its vocabulary is learned from a dataset")
        more = {}
        if kind == "video":
            # Frames are read as the section says; by default without a download.
            image = config.image
            more["image"] = _defaults(image, image.family) if image == type(image)() else image
        encoder = module.build_encoder(part, ModalitySpec(kind), **more)
        weight_bytes = sum(w.shape.num_elements() * w.dtype.size for w in encoder.weights)
        vector_length = encoder.output_dim
        exported = "no: " + encoder.not_exported if encoder.not_exported else exported
    except ConfigError as error:
        reason = str(error)
    return Family(
        kind=kind,
        name=name,
        chosen=chosen,
        needs=getattr(module, "NEEDS", ""),
        exported=exported,
        trains=learns,
        weight_bytes=weight_bytes,
        vector_length=vector_length,
        reason=reason,
    )


def _defaults(part: Any, name: str) -> Any:
    """The settings of a family, without a download."""
    random = {"weights": "random"} if name in ("bert", "applications") else {}
    return type(part)(family=name, **random)
