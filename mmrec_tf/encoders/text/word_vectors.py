"""Text: UTF-8 on disk, the numbers of its words in the graph, the mean of their vectors on top."""

import collections
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text.vector_files import read_vectors
from mmrec_tf.encoders.text.words import WordIds, count_texts, inverse_frequency, split_texts
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a file of word vectors (text.vectors)"

# `build_encoder` takes the texts of train items beside those of all.
READS_TRAIN = True


class Encoder(ModalityEncoder):
    """The mean of the vectors of a text's words (GloVe, Pennington et al. 2014; word2vec, Mikolov
    et al. 2013), each weighted by its inverse document frequency where it has one.

    Words without a vector do not count.

    Args:
      words: one a line, distinct.
      dim: the length of their vectors.
      max_tokens: how many words of a text that have a vector count.
      trainable_layers: 0 keeps the vectors as they are, any other number trains them.
      learned: JSON of what `facts` returns.
    """

    def __init__(
        self,
        words: str,
        dim: int,
        *,
        max_tokens: int = 64,
        trainable_layers: int = 0,
        learned: str = "{}",
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.words = words
        self.dim = dim
        self.max_tokens = max_tokens
        self.learned = learned
        known = words.split("\n")
        self._ids = WordIds(known, max_words=max_tokens)
        # By 1 + place; 0 is no word. Not even mixed precision may round them.
        self.weight = self.add_weight(
            "weight",
            [len(known) + 1],
            tf.float32,
            initializer="ones",
            trainable=False,
            experimental_autocast=False,
        )
        self.vectors = self.add_weight(
            "vectors",
            [len(known) + 1, dim],
            tf.float32,
            initializer="zeros",
            trainable=not self.frozen,
            experimental_autocast=False,
        )

    @property
    def output_dim(self) -> int:
        return self.dim

    def content_spec(self) -> tf.TensorSpec:
        """<int32>[batch, max_tokens]."""
        return tf.TensorSpec([None, self.max_tokens], tf.int32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """UTF-8 to the numbers of its words <int32>[batch, max_tokens], 0 behind the last."""
        return self._ids(raw)

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<int32>[batch, max_tokens] to <float32>[batch, dim]; zeros without a word."""
        weight = tf.gather(self.weight, content) * tf.cast(content > 0, tf.float32)
        total = tf.einsum("bw,bwd->bd", weight, tf.gather(self.vectors, content))
        return tf.math.divide_no_nan(total, tf.reduce_sum(weight, axis=1, keepdims=True))

    def facts(self) -> dict[str, Any]:
        return json.loads(self.learned)

    def assets(self) -> dict[str, str]:
        """The words, the length of their vectors, and how much of the catalog they cover."""
        return {
            "words.txt": self.words,
            "vectors.json": json.dumps({"dim": self.dim}),
            "learned.json": self.learned,
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "words": self.words,
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            "learned": self.learned,
        }


def build_encoder(
    config: TextConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[str | bytes] | None = None,
    train_values: Iterable[str | bytes] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one text modality; says on stderr how many words have no vector.

    Args:
      config: the part `text` of a `Config`.
      spec: the modality's entry in the schema.
      values: the catalog's texts, whose words are kept however rare they are.
      train_values: texts of the items that train has, for the frequency of words.
      assets: what `Encoder.assets` returned; no file is read, and weights are to be loaded
        afterwards.

    Raises:
      ConfigError: when `config.vectors` cannot be read, or no word of the catalog has a vector.
    """
    settings = {"max_tokens": config.max_tokens, "trainable_layers": config.trainable_layers}
    if assets is not None:
        dim = json.loads(assets["vectors.json"])["dim"]
        return Encoder(assets["words.txt"], dim, learned=assets["learned.json"], **settings)
    counts: collections.Counter[str] = collections.Counter()
    for batch in split_texts(() if values is None else values, lower_case=False):
        for row in batch:
            counts.update(row)
    wanted = counts.keys() | set(map(str.lower, counts))
    found = read_vectors(config.vectors, max_words=config.max_words, wanted=wanted)
    facts = {
        "file": pathlib.Path(config.vectors).name,
        "num_words": len(found.words),
        **_coverage(counts, set(found.words), config.vectors),
    }
    encoder = Encoder(
        "\n".join(found.words), found.vectors.shape[1], learned=json.dumps(facts), **settings
    )
    encoder.vectors.assign(np.vstack([np.zeros_like(found.vectors[:1]), found.vectors]))
    if config.weighting == "tfidf":
        texts, number = count_texts(() if train_values is None else train_values)
        frequency = np.array([texts[word.lower()] for word in found.words])
        encoder.weight.assign(np.append([1.0], inverse_frequency(frequency, number)))
    return encoder


def _coverage(counts: Mapping[str, int], known: set[str], path: str) -> dict[str, Any]:
    """How many words of the catalog have no vector, counted as often as they occur."""
    if not counts:
        return {}
    without = {w: n for w, n in counts.items() if w not in known and w.lower() not in known}
    total, missing = sum(counts.values()), sum(without.values())
    if missing == total:
        raise ConfigError(
            f"text.vectors: no word of the catalog's texts has a vector in {path}. Choose vectors "
            "of the texts' language, or another text.family."
        )
    often = sorted(without, key=lambda word: (-without[word], word))[:3]
    such = f", such as {', '.join(map(repr, often))}" if often else ""
    tqdm.write(
        f"encoders: {missing / total:.1%} of the {total} words in the catalog's texts have no "
        f"vector in {path}{such}.",
        file=sys.stderr,
    )
    return {"catalog_words": total, "out_of_vocabulary": missing / total}
