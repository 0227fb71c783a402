"""Text: UTF-8 on disk, the numbers of its words in the graph, counts of them on top."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text.words import WordIds, count_texts, inverse_frequency, split_texts
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "texts of train items"

# `build_encoder` takes the texts of train items beside those of all.
READS_TRAIN = True


class Encoder(ModalityEncoder):
    """Counts of a text's words, weighted, scaled to unit length and, optionally, projected.

    With `weighted` as TF-IDF (Salton and Buckley 1988, in the smoothed form of scikit-learn's
    `TfidfVectorizer`), without as a bag of words. A projection is that of a truncated SVD: latent
    semantic analysis (Deerwester et al. 1990). Nothing in it is trained: always frozen.

    Args:
      words: one a line.
      weighted: whether counts are multiplied by inverse document frequency.
      components: dimensions of the projection; 0 for none.
      max_tokens: how many words of a text that are in the list count.
      learned: JSON of what `facts` returns.
    """

    def __init__(
        self,
        words: str,
        *,
        weighted: bool,
        components: int = 0,
        max_tokens: int = 64,
        learned: str = "{}",
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=0, **kwargs)
        self.words = words
        self.weighted = weighted
        self.components = components
        self.max_tokens = max_tokens
        self.learned = learned
        known = words.split("\n")
        self._size = len(known)
        self._ids = WordIds(known, max_words=max_tokens)
        # By 1 + place; 0 is no word.
        self.weight = self._fixed("weight", [self._size + 1], "ones")
        self.projection = None
        if components:
            self.projection = self._fixed("projection", [self._size + 1, components], "zeros")

    def _fixed(self, name: str, shape: list[int], initializer: str) -> tf.Variable:
        # Not even mixed precision may round them.
        return self.add_weight(
            name,
            shape,
            tf.float32,
            initializer=initializer,
            trainable=False,
            experimental_autocast=False,
        )

    @property
    def output_dim(self) -> int:
        return self.components or self._size

    def content_spec(self) -> tf.TensorSpec:
        """<int32>[batch, max_tokens]."""
        return tf.TensorSpec([None, self.max_tokens], tf.int32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """UTF-8 to the numbers of its words <int32>[batch, max_tokens], 0 behind the last."""
        return self._ids(raw)

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<int32>[batch, max_tokens] to <float32>[batch, output_dim]; zeros without a word."""
        there = tf.cast(content > 0, tf.float32)
        weight = tf.gather(self.weight, content) * there
        # A word that stands there c times adds (c w)^2 = c times w^2 c to the squared length.
        equal = tf.equal(content[:, :, tf.newaxis], content[:, tf.newaxis, :])
        count = tf.reduce_sum(tf.cast(equal, tf.float32), axis=2)
        length = tf.sqrt(tf.reduce_sum(count * weight**2, axis=1, keepdims=True))
        weight = tf.math.divide_no_nan(weight, length)
        if self.projection is not None:
            # The whole row of counts is never made.
            return tf.einsum("bw,bwd->bd", weight, tf.gather(self.projection, content))
        rows = tf.shape(content)[0]
        cell = content + (self._size + 1) * tf.range(rows)[:, tf.newaxis]
        flat = tf.math.unsorted_segment_sum(
            tf.reshape(weight, [-1]), tf.reshape(cell, [-1]), rows * (self._size + 1)
        )
        return tf.reshape(flat, [rows, self._size + 1])[:, 1:]

    def facts(self) -> dict[str, Any]:
        return json.loads(self.learned)

    def assets(self) -> dict[str, str]:
        """The words, and what was learned of how many texts."""
        return {"words.txt": self.words, "learned.json": self.learned}

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "words": self.words,
            "weighted": self.weighted,
            "components": self.components,
            "max_tokens": self.max_tokens,
            "learned": self.learned,
        }
        del config["trainable_layers"]
        return config


def build_encoder(
    config: TextConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[str | bytes] | None = None,
    train_values: Iterable[str | bytes] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder:
    """Makes the encoder of one text modality.

    Args:
      config: the part `text` of a `Config`.
      spec: the modality's entry in the schema.
      values: unused; the words of items that train does not have are not learned from.
      train_values: texts of the items that train has, from which words, weights and projection
        are learned.
      assets: what `Encoder.assets` returned; weights are to be loaded afterwards.

    Raises:
      ConfigError: when too few texts have a word in common, or fewer words than
        `config.components`.
    """
    settings: dict[str, Any] = {
        "weighted": config.family == "tfidf",
        "components": config.components,
        "max_tokens": config.max_tokens,
    }
    if assets is not None:
        return Encoder(assets["words.txt"], learned=assets["learned.json"], **settings)
    texts = list(() if train_values is None else train_values)
    found, number = count_texts(texts)
    # Punctuation marks are words to the splitter.
    counts = {word: n for word, n in found.items() if any(map(str.isalnum, word))}
    # The most frequent first, equal ones by alphabet.
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    kept = [(word, n) for word, n in ranked if n >= config.min_items][: config.vocabulary_size]
    if not kept:
        raise ConfigError(
            f"text.min_items: wanted words that {config.min_items} texts of train items have; "
            f"got none, of {number} texts. Set it lower, or choose another text.family."
        )
    if config.components >= min(len(kept), number):
        raise ConfigError(
            f"text.components: wanted fewer than the {len(kept)} words and {number} texts that "
            f"there are to learn from; got {config.components}. Set it lower, or 0 for none."
        )
    words = [word for word, _ in kept]
    frequency = np.array([n for _, n in kept])
    weight = inverse_frequency(frequency, number) if settings["weighted"] else None
    facts: dict[str, Any] = {"num_texts": number, "num_words": len(words)}
    facts["words_left_out"] = len(counts) - len(words)
    projection = None
    if config.components:
        projection, facts["explained"] = _decompose(texts, words, weight, config.components)
    encoder = Encoder("\n".join(words), learned=json.dumps(facts), **settings)
    if weight is not None:
        encoder.weight.assign(np.append([1.0], weight))
    if projection is not None and encoder.projection is not None:
        encoder.projection.assign(np.vstack([np.zeros([1, config.components]), projection]))
    return encoder


def _decompose(
    texts: list[str | bytes], words: list[str], weight: np.ndarray | None, components: int
) -> tuple[np.ndarray, float]:
    """The right singular vectors <float>[word, component] of the sparse matrix of texts and words,
    and the share of its variance that they explain."""
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    place = {word: n for n, word in enumerate(words)}
    columns: list[int] = []
    ends = [0]
    for batch in split_texts(texts):
        for row in batch:
            columns += [place[word] for word in row if word in place]
            ends.append(len(columns))
    matrix = sparse.csr_matrix(
        (np.ones([len(columns)], np.float32), columns, ends), shape=(len(texts), len(words))
    )
    matrix.sum_duplicates()
    if weight is not None:
        matrix = matrix.multiply(weight[np.newaxis]).tocsr()
    svd = TruncatedSVD(components, random_state=0).fit(normalize(matrix))
    return svd.components_.T, float(svd.explained_variance_ratio_.sum())
