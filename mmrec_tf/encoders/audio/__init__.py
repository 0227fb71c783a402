"""Sounds to vectors: one file a family of encoders, of which a config chooses one."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio import mel_cnn, recurrent, saved_model, transformers
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.schema import ModalitySpec

FAMILIES = {
    "mel_cnn": mel_cnn,
    "recurrent": recurrent,
    "saved_model": saved_model,
    "transformers": transformers,
}


def build_encoder(
    config: AudioConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[Any] | None = None,
    assets: Mapping[str, str] | None = None,
) -> ModalityEncoder:
    """Makes the encoder of `config.family`; see the function of that name in its file."""
    return FAMILIES[config.family].build_encoder(config, spec, values=values, assets=assets)
