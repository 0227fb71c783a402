"""Text to vectors: one file a family of encoders, of which a config chooses one."""

from collections.abc import Iterable, Mapping

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders import clip
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text import bag_of_words, bert, tfidf, word_vectors
from mmrec_tf.schema import ModalitySpec

FAMILIES = {
    "bert": bert,
    "word_vectors": word_vectors,
    "tfidf": tfidf,
    "bag_of_words": bag_of_words,
    "clip": clip,
}


def build_encoder(
    config: TextConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[str | bytes] | None = None,
    train_values: Iterable[str | bytes] | None = None,
    assets: Mapping[str, str] | None = None,
) -> ModalityEncoder:
    """Makes the encoder of `config.family`; see the function of that name in its file."""
    family = FAMILIES[config.family]
    more = {"train_values": train_values} if getattr(family, "READS_TRAIN", False) else {}
    return family.build_encoder(config, spec, values=values, assets=assets, **more)
