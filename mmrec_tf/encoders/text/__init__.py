"""Text to vectors: one file a family of encoders, of which a config chooses one."""

from collections.abc import Iterable, Mapping

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text import bert
from mmrec_tf.schema import ModalitySpec

FAMILIES = {"bert": bert}


def build_encoder(
    config: TextConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[str | bytes] | None = None,
    assets: Mapping[str, str] | None = None,
) -> ModalityEncoder:
    """Makes the encoder of `config.family`; see the function of that name in its file."""
    return FAMILIES[config.family].build_encoder(config, spec, values=values, assets=assets)
