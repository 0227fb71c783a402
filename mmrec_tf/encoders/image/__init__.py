"""Pictures to vectors: one file a family of encoders, of which a config chooses one."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmrec_tf.config import ImageConfig
from mmrec_tf.encoders import clip
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.image import applications, descriptors, keras_model, transformers
from mmrec_tf.schema import ModalitySpec

FAMILIES = {
    "applications": applications,
    "keras_model": keras_model,
    "transformers": transformers,
    "descriptors": descriptors,
    "clip": clip,
}


def build_encoder(
    config: ImageConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> ModalityEncoder:
    """Makes the encoder of `config.family`; see the function of that name in its file."""
    return FAMILIES[config.family].build_encoder(config, spec, values=values, assets=assets)
