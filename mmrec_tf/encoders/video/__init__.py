"""Videos to vectors: one file a family of encoders, of which a config chooses one."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmrec_tf.config import ImageConfig, VideoConfig
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.video import frames
from mmrec_tf.schema import ModalitySpec

FAMILIES = {"frames": frames}


def build_encoder(
    config: VideoConfig,
    spec: ModalitySpec,
    *,
    image: ImageConfig,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> ModalityEncoder:
    """Makes the encoder of `config.family`; see the function of that name in its file."""
    family = FAMILIES[config.family]
    return family.build_encoder(config, spec, image=image, values=values, assets=assets)
