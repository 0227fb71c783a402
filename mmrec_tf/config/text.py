"""Settings of the families of encoders that read text."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, named, one_of, require, shapes_weights

POOLINGS = ("mean", "cls")
ADAPTATIONS = ("full", "lora", "adapter")
WEIGHTINGS = ("mean", "tfidf")


@dataclass(frozen=True)
class BertConfig:
    """WordPiece tokens into BERT (Devlin et al. 2019).

    `weights` is a hub id or a local folder for `TFBertModel.from_pretrained`; "random" for a fresh
    BERT of the sizes below with a vocabulary learned from the catalog.
    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `adaptation` says what trains in those blocks: all of their weights ("full"), low-rank updates
    of the attention's query and value projections ("lora", Hu et al. 2021) or bottlenecks after
    attention and feed-forward ("adapter", Houlsby et al. 2019), both of width `adaptation_rank`.
    Augmentation, while an encoder trains: `word_dropout` is the share of words that are hidden;
    `synonyms` is a file of lines "word TAB synonym,synonym,...", and `synonym_share` the share of
    its words that are replaced where they occur (0.1 as in Wei and Zou 2019).
    """

    weights: str = shapes_weights("google-bert/bert-base-uncased")
    trainable_layers: int = 0
    adaptation: str = shapes_weights("full")
    adaptation_rank: int = shapes_weights(8)
    pooling: str = "mean"
    max_tokens: int = 64
    vocabulary_size: int = shapes_weights(4000)
    hidden_size: int = shapes_weights(64)
    num_layers: int = shapes_weights(2)
    num_heads: int = shapes_weights(2)
    word_dropout: float = 0.0
    synonyms: str = shapes_weights("")
    synonym_share: float = 0.1

    def __post_init__(self) -> None:
        named("text.weights", self.weights, 'a hub id, a local folder or "random"')
        one_of("text.pooling", self.pooling, POOLINGS)
        one_of("text.adaptation", self.adaptation, ADAPTATIONS)
        sizes = ("adaptation_rank", "vocabulary_size", "hidden_size", "num_layers", "num_heads")
        at_least(self, "text.", dict.fromkeys(sizes, 1))
        require(
            3 <= self.max_tokens <= 512, f"text.max_tokens: wanted 3 to 512; got {self.max_tokens}."
        )
        require(
            self.hidden_size % self.num_heads == 0,
            f"text.hidden_size: wanted a multiple of text.num_heads ({self.num_heads}); "
            f"got {self.hidden_size}.",
        )
        require(
            self.trainable_layers >= -1, "text.trainable_layers: wanted -1 (all), 0 or a count."
        )
        require(
            0 <= self.word_dropout < 1,
            f"text.word_dropout: wanted 0 up to 1 (exclusive); got {self.word_dropout}.",
        )
        require(
            0 <= self.synonym_share <= 1,
            f"text.synonym_share: wanted 0 to 1; got {self.synonym_share}.",
        )


@dataclass(frozen=True)
class ClipTextConfig:
    """The half of CLIP (Radford et al. 2021) that reads texts.

    `weights`: a hub id or a local folder, the same as of pictures where these are read by it too.
    `trainable_layers`: 0 keeps it frozen, n trains the last n blocks of each half, -1 trains all.
    """

    weights: str = shapes_weights("google-bert/bert-base-uncased")
    trainable_layers: int = 0
    max_tokens: int = 64

    def __post_init__(self) -> None:
        default = type(self).weights
        require(
            self.weights not in ("", "random", default),
            "text.weights: wanted a hub id or a local folder with a CLIP, such as "
            f"openai/clip-vit-base-patch32; got {self.weights!r}.",
        )
        require(
            3 <= self.max_tokens <= 77, f"text.max_tokens: wanted 3 to 77; got {self.max_tokens}."
        )
        require(
            self.trainable_layers >= -1, "text.trainable_layers: wanted -1 (all), 0 or a count."
        )


@dataclass(frozen=True)
class WordVectorsConfig:
    """Vectors of words, averaged over a text.

    `vectors` is a file of word vectors: GloVe's or word2vec's text, or word2vec's binary form, each
    also as `.gz`. `max_words` of them are kept, the first of the file, which are the most frequent,
    and beside these all that the catalog's texts have. `weighting` "tfidf" weighs each word by its
    inverse document frequency among the texts of train items.
    """

    vectors: str = shapes_weights("")
    max_words: int = shapes_weights(50000)
    weighting: str = shapes_weights("mean")
    max_tokens: int = 64
    trainable_layers: int = 0

    def __post_init__(self) -> None:
        named("text.vectors", self.vectors, "a file of word vectors, GloVe's or word2vec's")
        one_of("text.weighting", self.weighting, WEIGHTINGS)
        at_least(self, "text.", {"max_words": 1})
        _check_tokens(self.max_tokens)
        require(
            self.trainable_layers in (0, -1),
            "text.trainable_layers: wanted 0, or -1 to train the vectors, which are one layer; "
            f"got {self.trainable_layers}.",
        )


@dataclass(frozen=True)
class BagOfWordsConfig:
    """Counts of words, plain or weighted by inverse document frequency.

    The vocabulary is learned from train items alone: the `vocabulary_size` words that most of their
    texts have, of those that at least `min_items` have. `components` is the number of dimensions
    that a truncated SVD, fitted to the same texts, leaves (latent semantic analysis, Deerwester et
    al. 1990); 0 keeps the counts themselves.
    """

    vocabulary_size: int = shapes_weights(4000)
    min_items: int = shapes_weights(2)
    components: int = shapes_weights(128)
    max_tokens: int = 64

    def __post_init__(self) -> None:
        at_least(self, "text.", {"vocabulary_size": 1, "min_items": 1, "components": 0})
        _check_tokens(self.max_tokens)


def _check_tokens(max_tokens: int) -> None:
    require(1 <= max_tokens <= 512, f"text.max_tokens: wanted 1 to 512; got {max_tokens}.")
