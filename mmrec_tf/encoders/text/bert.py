"""Text: UTF-8 on disk, WordPiece ids in the graph, BERT on top; or another language model."""

import json
import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders.adapters import adapt_bert
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text import language_model, wordpiece
from mmrec_tf.encoders.text.augmentation import hide_words, replace_words
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

# For `mmrec-tf encoders`.
NEEDS = "a pretrained model, or it trains from nothing (text.weights)"
EXPORTED = "with WordPiece tokens; RoBERTa and XLM-R no"

_BERT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "position_embedding_type",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "pad_token_id",
)

_SYNONYMS = "synonyms.json"
# Far more than `max_tokens` words take; the memory of a server goes with the length of a text.
MAX_BYTES = 16 * 2**10


class Encoder(ModalityEncoder):
    """WordPiece tokens through BERT (Devlin et al. 2019), pooled to one vector.

    Ids equal those of `transformers.BertTokenizerFast`, except that a special token spelled out
    in the text ("[SEP]") is plain text here.

    Args:
      vocabulary: one token a line, in the order of ids; holds [PAD] (id 0), [UNK], [CLS], [SEP].
      bert_config: `transformers.BertConfig` as JSON.
      lower_case: lower-cases and strips accents before tokens are looked up.
      max_tokens: the length of the content, [CLS] and [SEP] included.
      pooling: "mean" over the tokens or "cls".
      trainable_layers: 0 keeps BERT frozen, n trains the last n blocks, -1 trains all with the
        embeddings.
      adaptation: what trains in those blocks: "full", all of their weights; "lora", low-rank
        updates of the projections to queries and values (Hu et al. 2021); "adapter", bottlenecks
        after attention and feed-forward (Houlsby et al. 2019). The latter two leave BERT's own
        weights as they are.
      adaptation_rank: of the updates, or the width of the bottlenecks.
      word_dropout: share of the words that training replaces with [MASK], or with [UNK] where
        the vocabulary has no [MASK].
      synonyms: JSON of a dictionary from tokens that are words to lists of others; "" for none.
      synonym_share: share of those words that are replaced in training.

    Raises:
      ConfigError: when the vocabulary lacks a special token, or `max_tokens` is more than BERT
        has positions for.
    """

    augmentation = ("word_dropout", "synonyms", "synonym_share")

    def __init__(
        self,
        vocabulary: str,
        bert_config: str,
        *,
        lower_case: bool = True,
        max_tokens: int = 64,
        pooling: str = "mean",
        trainable_layers: int = 0,
        adaptation: str = "full",
        adaptation_rank: int = 8,
        word_dropout: float = 0.0,
        synonyms: str = "",
        synonym_share: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        import transformers

        self.vocabulary = vocabulary
        self.bert_config = bert_config
        self.lower_case = lower_case
        self.max_tokens = max_tokens
        self.pooling = pooling
        self.adaptation = adaptation
        self.adaptation_rank = adaptation_rank
        self.word_dropout = word_dropout
        self.synonyms = synonyms
        self.synonym_share = synonym_share
        tokens = vocabulary.split("\n")
        self._cls, self._sep = _special_ids(tokens)
        self._stand_in = tokens.index("[MASK]" if "[MASK]" in tokens else "[UNK]")
        self._continues = np.array([token.startswith("##") for token in tokens])
        self._begins = ~self._continues
        self._begins[[0, self._cls, self._sep]] = False
        self._synonyms, self._splits = _synonym_ids(tokens, synonyms)
        # Each word gives at least one token.
        self._tokenizer = wordpiece.Tokenizer(
            tokens, lower_case=lower_case, max_words=max_tokens - 2
        )
        settings = transformers.BertConfig.from_dict(json.loads(bert_config))
        if max_tokens > settings.max_position_embeddings:
            raise ConfigError(
                f"text.max_tokens: this BERT has {settings.max_position_embeddings} positions; "
                f"got {max_tokens}."
            )
        self.bert = transformers.TFBertModel(settings, add_pooling_layer=False, name="bert")
        self.bert(self.bert.dummy_inputs)
        main = self.bert.bert
        if self.frozen or adaptation == "full":
            self._freeze(main.encoder.layer, below=[main.embeddings])
        else:
            adapt_bert(main, trainable_layers, adaptation=adaptation, rank=adaptation_rank)

    @property
    def output_dim(self) -> int:
        return self.bert.config.hidden_size

    def content_spec(self) -> tf.TensorSpec:
        """<int32>[batch, max_tokens]."""
        return tf.TensorSpec([None, self.max_tokens], tf.int32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """UTF-8 to token ids.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped, and what lies beyond the first
            `MAX_BYTES` is not looked at.

        Returns:
          <int32>[batch, max_tokens], [CLS] ... [SEP], padded with zeros.
        """
        tokens = self._tokenizer(tf.strings.substr(raw, 0, MAX_BYTES))
        return wordpiece.frame(
            tokens, first=self._cls, last=self._sep, pad=0, length=self.max_tokens
        )

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<int32>[batch, max_tokens] to <float32>[batch, output_dim]; zeros where no token is."""
        if self._training(training):
            content = self._augment(content)
        present = tf.not_equal(content, 0)
        hidden = self.bert(
            input_ids=content,
            attention_mask=tf.cast(present, tf.int32),
            training=self._training(training),
        ).last_hidden_state
        hidden = tf.cast(hidden, tf.float32)
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = tf.cast(present, tf.float32)[:, :, tf.newaxis]
        return tf.math.divide_no_nan(
            tf.reduce_sum(hidden * weights, axis=1), tf.reduce_sum(weights, axis=1)
        )

    def _augment(self, ids: tf.Tensor) -> tf.Tensor:
        # What is off adds no operation, as each operation changes the seeds of those after it.
        if self.synonyms and self.synonym_share > 0:
            ids = replace_words(
                ids,
                self.synonym_share,
                continues=self._continues,
                synonyms=self._synonyms,
                splits=self._splits,
            )
        if self.word_dropout > 0:
            ids = hide_words(
                ids,
                self.word_dropout,
                begins=self._begins,
                continues=self._continues,
                stand_in=self._stand_in,
            )
        return ids

    def assets(self) -> dict[str, str]:
        """The vocabulary, BERT's sizes, how text is normalised, and synonyms if there are any."""
        assets = {
            "vocabulary.txt": self.vocabulary,
            "bert_config.json": self.bert_config,
            "tokenizer.json": json.dumps({"lower_case": self.lower_case}),
        }
        return {**assets, _SYNONYMS: self.synonyms} if self.synonyms else assets

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "bert_config": self.bert_config,
            "lower_case": self.lower_case,
            "max_tokens": self.max_tokens,
            "pooling": self.pooling,
            "adaptation": self.adaptation,
            "adaptation_rank": self.adaptation_rank,
            "word_dropout": self.word_dropout,
            "synonyms": self.synonyms,
            "synonym_share": self.synonym_share,
        }


def build_encoder(
    config: TextConfig,
    spec: ModalitySpec,
    *,
    values: Iterable[str | bytes] | None = None,
    assets: Mapping[str, str] | None = None,
) -> Encoder | language_model.Encoder:
    """Makes the encoder of one text modality.

    Args:
      config: the part `text` of a `Config`.
      spec: the modality's entry in the schema.
      values: the catalog's texts, from which a vocabulary is learned when `config.weights` is
        "random".
      assets: what `Encoder.assets` returned; nothing is then downloaded or learned, and weights
        are to be loaded afterwards.

    Raises:
      ConfigError: when `config.weights` cannot be loaded or is no WordPiece BERT, when there is
        no text to learn a vocabulary from, or when `config.synonyms` cannot be read or used.
    """
    settings: dict[str, Any] = {
        "max_tokens": config.max_tokens,
        "pooling": config.pooling,
        "trainable_layers": config.trainable_layers,
        "adaptation": config.adaptation,
        "adaptation_rank": config.adaptation_rank,
        "word_dropout": config.word_dropout,
        "synonym_share": config.synonym_share,
    }
    if assets is not None and "model_config.json" in assets:
        return language_model.Encoder(
            assets["model_config.json"],
            assets["tokenizer.json"],
            max_tokens=config.max_tokens,
            pooling=config.pooling,
            trainable_layers=config.trainable_layers,
            adaptation=config.adaptation,
            adaptation_rank=config.adaptation_rank,
        )
    if assets is not None:
        return Encoder(
            assets["vocabulary.txt"],
            assets["bert_config.json"],
            lower_case=json.loads(assets["tokenizer.json"])["lower_case"],
            synonyms=assets.get(_SYNONYMS, ""),
            **settings,
        )
    if config.weights != "random":
        if language_model.model_type_of(config.weights) in language_model.MODEL_TYPES:
            return language_model.load_encoder(config)
        return _pretrained(config, settings)
    vocabulary = wordpiece.learn_vocabulary(
        () if values is None else values, size=config.vocabulary_size
    )
    return Encoder(
        "\n".join(vocabulary),
        _fresh_bert(config, len(vocabulary)),
        synonyms=_usable_synonyms(config.synonyms, vocabulary, lower_case=True),
        **settings,
    )


def _fresh_bert(config: TextConfig, vocabulary_size: int) -> str:
    import transformers

    settings = transformers.BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=4 * config.hidden_size,
        max_position_embeddings=config.max_tokens,
    )
    return _sizes(settings)


def _sizes(settings: Any) -> str:
    """What makes the architecture, without where it was found and what wrote it."""
    return json.dumps({name: getattr(settings, name) for name in _BERT_SIZES}, indent=1)


def _pretrained(config: TextConfig, settings: dict[str, Any]) -> Encoder:
    import transformers

    weights = config.weights
    path = pathlib.Path(weights).expanduser()
    if not path.is_dir() and (weights[0] in "./~" or weights.count("/") > 1):
        raise ConfigError(f"text.weights: wanted a folder with a BERT model; {weights} is none.")
    source = str(path) if path.is_dir() else weights
    # transformers reports each weight that BERT has and this encoder leaves out, the pooler's.
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        if not isinstance(tokenizer, transformers.BertTokenizerFast):
            raise ConfigError(
                f"text.weights: wanted a BERT with a WordPiece vocabulary; {weights} has a "
                f"{type(tokenizer).__name__}."
            )
        model, report = _load_bert(source)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"text.weights: could not load {weights!r} ({reason}). The id of a BERT model wants "
            "the Hugging Face hub to be reachable, or the model in its cache. Else there are three "
            "ways on: a local folder with config.json, vocab.txt and model.safetensors or "
            'tf_model.h5; "random" for a fresh BERT of the sizes in text.*, which is best trained '
            "(text.trainable_layers -1); or another text.family."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if report["missing_keys"]:
        raise ConfigError(
            f"text.weights: {weights} is no BERT, or a damaged one: it lacks "
            f"{len(report['missing_keys'])} weights, such as {min(report['missing_keys'])}."
        )
    vocabulary = wordpiece.in_order(tokenizer.get_vocab())
    lower_case = _lower_case(tokenizer, weights)
    encoder = Encoder(
        "\n".join(vocabulary),
        _sizes(model.config),
        lower_case=lower_case,
        synonyms=_usable_synonyms(config.synonyms, vocabulary, lower_case=lower_case),
        **settings,
    )
    # By name, as what trains and what does not changes the order of weights.
    own = {weight.name.partition("/")[2]: weight for weight in encoder.bert.weights}
    for weight in model.weights:
        own[weight.name.partition("/")[2]].assign(tf.cast(weight, tf.float32))
    return encoder


def _load_bert(source: str) -> tuple[Any, dict[str, Any]]:
    """The model, and which weights were missing."""
    import transformers

    try:
        return transformers.TFBertModel.from_pretrained(
            source, add_pooling_layer=False, output_loading_info=True
        )
    except TypeError as error:
        # transformers 4.55 to 4.57 iterate over PyTorch's safetensors, which cannot be iterated
        # (huggingface/transformers issue 40028).
        if "safe_open" not in str(error):
            raise
    import safetensors
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    settings = transformers.BertConfig.from_pretrained(source)
    path = transformers.utils.cached_file(source, "model.safetensors")
    with safetensors.safe_open(path, framework="tf") as archive:
        values = {name: archive.get_tensor(name) for name in archive.keys()}
    return load_pytorch_state_dict_in_tf2_model(
        transformers.TFBertModel(settings, add_pooling_layer=False),
        values,
        allow_missing_keys=True,
        output_loading_info=True,
    )


def _lower_case(tokenizer: Any, weights: str) -> bool:
    normalizer = json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"]
    lower_case = normalizer["lowercase"]
    # None means "as lowercase says"; the graph's tokenizer knows no other combination.
    if normalizer["strip_accents"] not in (None, lower_case):
        raise ConfigError(
            f"text.weights: {weights} strips accents without lower-casing, or the reverse, which "
            "the tokenizer in the graph cannot do. Choose another model."
        )
    return lower_case


def _usable_synonyms(path: str, vocabulary: list[str], *, lower_case: bool) -> str:
    """What `Encoder` takes as `synonyms`, from a file; says how much of it cannot be used."""
    if not path:
        return ""
    table = wordpiece.read_synonyms(path)
    words = dict.fromkeys(word for entry in table.items() for word in (entry[0], *entry[1]))
    tokens = wordpiece.single_tokens(words, vocabulary, lower_case=lower_case)
    usable: dict[str, dict[str, None]] = {}
    for word, synonyms in table.items():
        others = {tokens[other]: None for other in synonyms if other in tokens}
        if word in tokens and others.keys() - {tokens[word]}:
            usable.setdefault(tokens[word], {}).update(others)
    for token, others in usable.items():
        others.pop(token, None)
    if not usable:
        raise ConfigError(
            f"text.synonyms: none of the {len(table)} words in {path} can be used: wanted at least "
            "one that is a single token of the vocabulary, with a synonym that is one too."
        )
    unused = [word for word in words if word not in tokens]
    if unused:
        warnings.warn(
            f"text.synonyms: {len(usable)} of the {len(table)} words in {path} can be used. Words "
            f"and synonyms that are no single token of the vocabulary, such as {unused[0]!r}, are "
            f"left out, {len(unused)} of {len(words)}.",
            stacklevel=2,
        )
    return json.dumps({word: list(others) for word, others in usable.items()}, ensure_ascii=False)


def _synonym_ids(tokens: list[str], synonyms: str) -> tuple[np.ndarray, np.ndarray]:
    """The `synonyms` and `splits` of `replace_words`."""
    ids = {token: i for i, token in enumerate(tokens)}
    table = {
        ids[word]: [ids[other] for other in others]
        for word, others in json.loads(synonyms or "{}").items()
    }
    rows = [table.get(i, []) for i in range(len(tokens))]
    splits = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return np.array([i for row in rows for i in row], np.int32), splits


def _special_ids(tokens: list[str]) -> tuple[int, int]:
    missing = [token for token in wordpiece.SPECIAL_TOKENS[:4] if token not in tokens]
    if missing or tokens[0] != "[PAD]":
        raise ConfigError(
            "text: wanted a vocabulary that begins with [PAD] and has [UNK], [CLS] and [SEP]; "
            f"got one that begins with {tokens[0]} and lacks {', '.join(missing) or 'none'}."
        )
    return tokens.index("[CLS]"), tokens.index("[SEP]")
