"""New weights beside dense layers that stay as they are: large networks, adapted with few.

Each layer here takes the place of a `Dense`, holds it, and is that layer as long as nothing has
been trained.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import ConfigError

# What projects to queries and to values, by the names that models of the transformers library have
# for them: BERT, ViT, DeiT, Swin, ELECTRA and RoBERTa; CLIP, wav2vec 2.0, HuBERT and Whisper;
# DistilBERT; MPNet.
_QUERY_VALUE = (("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q", "v"))


class LowRank(tf.keras.layers.Layer):
    """A dense layer plus an update of low rank: W x + b + B A x (LoRA, Hu et al. 2021, equation 3).

    B starts at zero. The paper's factor alpha / rank is 1.

    Args:
      dense: the layer, built.
      rank: rows of A.
    """

    def __init__(self, dense: tf.keras.layers.Dense, rank: int, **kwargs: Any) -> None:
        super().__init__(name=dense.name, **kwargs)
        self.dense = dense
        # As the paper's code draws A: uniform, up to 1 / sqrt(width).
        drawn = tf.keras.initializers.VarianceScaling(1 / 3, distribution="uniform")
        self.down = tf.keras.layers.Dense(
            rank, use_bias=False, kernel_initializer=drawn, name="down"
        )
        self.up = tf.keras.layers.Dense(
            dense.units, use_bias=False, kernel_initializer="zeros", name="up"
        )

    def build(self, input_shape: Any) -> None:
        self.down.build(input_shape)
        self.up.build([*input_shape[:-1], self.down.units])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., width] -> [..., units]."""
        return self.dense(inputs) + self.up(self.down(inputs))


class Bottleneck(tf.keras.layers.Layer):
    """A dense layer followed by an adapter: h + U gelu(D h + d) + u, where h = W x + b (Houlsby
    et al. 2019, figure 2).

    U and u start at zero. Unlike in the paper, layer norms are not trained.

    Args:
      dense: the layer, built.
      rank: width of the bottleneck.
    """

    def __init__(self, dense: tf.keras.layers.Dense, rank: int, **kwargs: Any) -> None:
        super().__init__(name=dense.name, **kwargs)
        self.dense = dense
        self.down = tf.keras.layers.Dense(rank, activation="gelu", name="down")
        self.up = tf.keras.layers.Dense(dense.units, kernel_initializer="zeros", name="up")

    def build(self, input_shape: Any) -> None:
        self.down.build([*input_shape[:-1], self.dense.units])
        self.up.build([*input_shape[:-1], self.down.units])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., width] -> [..., units]."""
        hidden = self.dense(inputs)
        return hidden + self.up(self.down(hidden))


def adapt_bert(main: tf.keras.layers.Layer, num_blocks: int, *, adaptation: str, rank: int) -> None:
    """Freezes a BERT, and gives its last blocks new weights that train.

    Args:
      main: transformers' `TFBertMainLayer`, built.
      num_blocks: how many blocks; a negative number for all.
      adaptation: "lora", on the projections to queries and values, or "adapter", after attention
        and feed-forward.
      rank: of the updates, or the width of the bottlenecks.
    """
    main.embeddings.trainable = False
    blocks = main.encoder.layer
    for block in blocks:
        # Not the block as a whole: Keras would freeze what is put into it, too.
        for layer in block.submodules:
            if isinstance(layer, (tf.keras.layers.Dense, tf.keras.layers.LayerNormalization)):
                layer.trainable = False
    first = len(blocks) - num_blocks if 0 <= num_blocks <= len(blocks) else 0
    for block in blocks[first:]:
        attention = block.attention
        if adaptation == "lora":
            _replace(LowRank, attention.self_attention, "query", rank)
            _replace(LowRank, attention.self_attention, "value", rank)
        else:
            _replace(Bottleneck, attention.dense_output, "dense", rank)
            _replace(Bottleneck, block.bert_output, "dense", rank)


def adapt_attention(
    model: tf.keras.layers.Layer,
    blocks: Sequence[tf.keras.layers.Layer],
    num_blocks: int,
    *,
    rank: int,
    setting: str,
) -> None:
    """Freezes a model of the transformers library, and gives the attention of its last blocks
    low-rank updates that train, on the projections to queries and values.

    Args:
      model: built.
      blocks: those of its encoder, from the input upwards.
      num_blocks: how many blocks; a negative number for all.
      rank: of the updates.
      setting: what asks for it, for messages.

    Raises:
      ConfigError: for a model without such projections, such as a ConvNeXt.
    """
    first = len(blocks) - num_blocks if 0 <= num_blocks <= len(blocks) else 0
    found = [place for block in blocks[first:] for place in _projections(block)]
    if not found:
        raise ConfigError(
            f"{setting}: wanted full, as {model.config.model_type} has no attention whose queries "
            'and values are projected; got "lora".'
        )
    # Weight by weight: a layer that is frozen as a whole would freeze what is put into it, too.
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.Layer):
            layer._non_trainable_weights.extend(layer._trainable_weights)
            layer._trainable_weights.clear()
    for holder, name in found:
        _replace(LowRank, holder, name, rank)


def new_weights(model: tf.keras.layers.Layer) -> list[tf.Variable]:
    """What adaptation has put into a model."""
    kinds = (LowRank, Bottleneck)
    layers = [layer for layer in model.submodules if isinstance(layer, kinds)]
    return [w for layer in layers for part in (layer.down, layer.up) for w in part.weights]


def _projections(block: tf.keras.layers.Layer) -> Iterator[tuple[tf.keras.layers.Layer, str]]:
    """The layers of a block that hold projections, with the name of each."""
    for holder in block.submodules:
        for names in _QUERY_VALUE:
            if all(isinstance(getattr(holder, n, None), tf.keras.layers.Dense) for n in names):
                yield from ((holder, name) for name in names)


def _replace(kind: type, holder: tf.keras.layers.Layer, name: str, rank: int) -> None:
    dense = getattr(holder, name)
    layer = kind(dense, rank)
    layer.build([None, None, dense.kernel.shape[0]])
    setattr(holder, name, layer)
