"""Text: UTF-8 on disk, token ids in the graph, another language model than BERT on top: the family
`bert` for DistilBERT, ELECTRA, MPNet, RoBERTa and XLM-R."""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders import pretrained
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.text import wordpiece
from mmrec_tf.errors import ConfigError

MODEL_TYPES = ("distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
# Whose positions begin behind that of padding.
_OFFSET = {"mpnet": 2, "roberta": 2, "xlm-roberta": 2}
# Far more than `max_tokens` words take; the memory of a server goes with the length of a text.
MAX_BYTES = 16 * 2**10


class Encoder(ModalityEncoder):
    """Tokens through a language model of the transformers library, pooled to one vector.

    Where its tokens are WordPiece as BERT's are (DistilBERT, ELECTRA, MPNet), they are made by core
    operations. Others (RoBERTa, XLM-R) are made by the tokenizers library, which no export can
    hold.

    Args:
      model_config: `transformers.PretrainedConfig` as JSON.
      tokenizer: the tokenizers library's JSON ("backend"), and which tokens stand at the edges
        ("cls", "sep") and for nothing ("pad").
      max_tokens: the length of the content, the two at the edges included.
      pooling: "mean" over the tokens or "cls".
      trainable_layers: 0 keeps the model frozen, n trains the last n blocks, -1 trains all.
      adaptation: what trains in those blocks: "full", all of their weights, or "lora", low-rank
        updates of the attention's projections.
      adaptation_rank: of these.

    Raises:
      ConfigError: when `max_tokens` is more than the model has positions for.
    """

    def __init__(
        self,
        model_config: str,
        tokenizer: str,
        *,
        max_tokens: int = 64,
        pooling: str = "mean",
        trainable_layers: int = 0,
        adaptation: str = "full",
        adaptation_rank: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable_layers=trainable_layers, **kwargs)
        self.adaptation = adaptation
        self.adaptation_rank = adaptation_rank
        self.model_config = model_config
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.pooling = pooling
        settings = json.loads(model_config)
        kind = settings["model_type"]
        positions = settings["max_position_embeddings"] - _OFFSET.get(kind, 0)
        if max_tokens > positions:
            raise ConfigError(
                f"text.max_tokens: this {kind} has {positions} positions; got {max_tokens}."
            )
        marks = json.loads(tokenizer)
        backend = json.loads(marks["backend"])
        self._wordpiece = None
        vocabulary = backend["model"].get("vocab", {})
        if _is_wordpiece(backend):
            tokens = wordpiece.in_order(vocabulary)
            self._wordpiece = wordpiece.Tokenizer(
                tokens, lower_case=backend["normalizer"]["lowercase"], max_words=max_tokens - 2
            )
            self._cls, self._sep, self._pad = (
                tokens.index(marks[name]) for name in ("cls", "sep", "pad")
            )
        else:
            import tokenizers

            self._host = tokenizers.Tokenizer.from_str(marks["backend"])
            self._host.no_padding()
            self._host.enable_truncation(max_tokens)
            self._pad = self._host.token_to_id(marks["pad"])
        self.model = pretrained.build_model(model_config)
        main = getattr(self.model, self.model.base_model_prefix)
        pretrained.freeze(
            self.model,
            main,
            trainable_layers,
            adaptation=adaptation,
            rank=adaptation_rank,
            setting="text.adaptation",
        )

    @property
    def output_dim(self) -> int:
        return self.model.config.hidden_size

    @property
    def not_exported(self) -> str:
        if self._wordpiece is not None:
            return ""
        kind = json.loads(self.model_config)["model_type"]
        return f"the tokens of {kind} (family bert) are made by the tokenizers library"

    def content_spec(self) -> tf.TensorSpec:
        """<int32>[batch, max_tokens]."""
        return tf.TensorSpec([None, self.max_tokens], tf.int32)

    def preprocess(self, raw: tf.Tensor) -> tf.Tensor:
        """UTF-8 to token ids.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped, and what lies beyond the first
            `MAX_BYTES` is not looked at.

        Returns:
          <int32>[batch, max_tokens], with the two at the edges, padded.
        """
        raw = tf.strings.substr(raw, 0, MAX_BYTES)
        if self._wordpiece is None:
            ids = tf.numpy_function(self._tokenize, [raw], tf.int32)
            return tf.ensure_shape(ids, [None, self.max_tokens])
        return wordpiece.frame(
            self._wordpiece(raw),
            first=self._cls,
            last=self._sep,
            pad=self._pad,
            length=self.max_tokens,
        )

    def _tokenize(self, raw: np.ndarray) -> np.ndarray:
        """By the host."""
        ids = np.full([len(raw), self.max_tokens], self._pad, np.int32)
        texts = [text.decode("utf-8", "ignore") for text in raw]
        for row, found in enumerate(self._host.encode_batch(texts)):
            ids[row, : len(found.ids)] = found.ids
        return ids

    def call(self, content: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<int32>[batch, max_tokens] to <float32>[batch, output_dim]."""
        present = tf.not_equal(content, self._pad)
        states = self.model(
            input_ids=content,
            attention_mask=tf.cast(present, tf.int32),
            training=self._training(training),
        ).last_hidden_state
        states = tf.cast(states, tf.float32)
        if self.pooling == "cls":
            return states[:, 0]
        weights = tf.cast(present, tf.float32)[:, :, tf.newaxis]
        return tf.math.divide_no_nan(
            tf.reduce_sum(states * weights, axis=1), tf.reduce_sum(weights, axis=1)
        )

    def assets(self) -> dict[str, str]:
        """The model's configuration, and its tokenizer."""
        return {"model_config.json": self.model_config, "tokenizer.json": self.tokenizer}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model_config": self.model_config,
            "tokenizer": self.tokenizer,
            "max_tokens": self.max_tokens,
            "pooling": self.pooling,
            "adaptation": self.adaptation,
            "adaptation_rank": self.adaptation_rank,
        }


def model_type_of(weights: str) -> str:
    """What config.json says that a model is; "" where it cannot be had."""
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(
            pretrained.find(weights, setting="text.weights")
        ).model_type
    except (OSError, ValueError, KeyError, ConfigError):
        return ""


def load_encoder(config: TextConfig) -> Encoder:
    """Makes the encoder of a pretrained model of `MODEL_TYPES`.

    Raises:
      ConfigError: when it cannot be loaded, or for settings that only BERT has.
    """
    import transformers

    if config.adaptation == "adapter":
        raise ConfigError(
            "text.adaptation: wanted full or lora, as BERT alone takes bottlenecks and "
            f"{config.weights} is another model; got 'adapter'."
        )
    for name in ("word_dropout", "synonyms"):
        wanted, given = getattr(TextConfig, name), getattr(config, name)
        if given != wanted:
            raise ConfigError(
                f"text.{name}: wanted its default, {wanted!r}, as BERT alone has it and "
                f"{config.weights} is another model; got {given!r}."
            )
    found = pretrained.load(config.weights, setting="text.weights", model_types=MODEL_TYPES)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, use_fast=True)
        backend = tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"text.weights: wanted a model with a tokenizer.json; that of {config.weights} cannot "
            f"be read ({error})."
        ) from error
    marks = {
        "backend": backend,
        "cls": tokenizer.cls_token,
        "sep": tokenizer.sep_token,
        "pad": tokenizer.pad_token,
    }
    encoder = Encoder(
        found.config,
        json.dumps(marks),
        max_tokens=config.max_tokens,
        pooling=config.pooling,
        trainable_layers=config.trainable_layers,
        adaptation=config.adaptation,
        adaptation_rank=config.adaptation_rank,
    )
    pretrained.copy_weights(encoder.model, found.model)
    return encoder


def _is_wordpiece(backend: dict[str, Any]) -> bool:
    """Whether core operations give the same tokens."""
    model, normalizer = backend["model"], backend.get("normalizer") or {}
    return (
        model["type"] == "WordPiece"
        and model["unk_token"] == "[UNK]"
        and model.get("continuing_subword_prefix") == "##"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["strip_accents"] in (None, normalizer["lowercase"])
        and (backend.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
    )
