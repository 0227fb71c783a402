"""Modality vectors and their presence -> one vector.

`Mean`, `Weighted`, `Gated` and `Attention` are weighted sums over the modalities that an item has;
they differ in where the weights come from. The others compute a vector that is no such sum, and
weights that say how much of it each modality made. An item with no modality at all gets zeros.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.towers.masking import blank, masked_softmax


def zero_if_none(vector: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """[batch, dim] with zeros for an item that has no modality."""
    some = tf.reduce_any(present, axis=1, keepdims=True)
    return tf.where(some, vector, tf.zeros_like(vector))


def shares(contributions: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """How much of a vector each modality made, where the vector is no weighted sum of them.

    Args:
      contributions: <float32>[batch, modality, n], what each one did to the vector.
      present: <bool>[batch, modality].

    Returns:
      <float32>[batch, modality]: the length of a contribution over the sum of the lengths of all
      present ones; equal shares where all have length 0; zeros for an item with no modality. For
      people to read: no gradient goes through.
    """
    contributions = tf.stop_gradient(tf.cast(contributions, tf.float32))
    lengths = tf.where(present, tf.norm(contributions, axis=-1) + 1e-6, 0.0)
    return tf.math.divide_no_nan(lengths, tf.reduce_sum(lengths, axis=1, keepdims=True))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Mean(tf.keras.layers.Layer):
    """The plain average of the present modalities."""

    def logits(self, modalities: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, modality]: how much each modality should count, before the mask."""
        return tf.zeros(tf.shape(modalities)[:2], tf.float32)

    def call(self, modalities: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Weighs an item's modalities into one vector.

        Args:
          modalities: <float32>[batch, modality, dim].
          present: <bool>[batch, modality], False where the item lacks that modality.

        Returns:
          The vector <float32>[batch, dim] (zeros for an item with no modality at all) and the
          weights <float32>[batch, modality] that made it.
        """
        modalities = blank(modalities, present)
        weights = masked_softmax(tf.cast(self.logits(modalities), tf.float32), present)
        vector = tf.einsum("bm,bmd->bd", tf.cast(weights, modalities.dtype), modalities)
        return vector, weights


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Weighted(Mean):
    """One learned weight a modality, the same for every item."""

    def build(self, input_shape: Any) -> None:
        self.weight = self.add_weight(
            name="weight", shape=[input_shape[1]], initializer="zeros", dtype=tf.float32
        )
        super().build(input_shape)

    def logits(self, modalities: tf.Tensor) -> tf.Tensor:
        return tf.broadcast_to(self.weight, tf.shape(modalities)[:2])


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Gated(Mean):
    """Weights from all of an item's modalities together (gated multimodal unit, Arevalo et al.
    2017, with a softmax over the modalities in place of independent gates)."""

    def build(self, input_shape: Any) -> None:
        self.gate = tf.keras.layers.Dense(
            input_shape[1], kernel_initializer="zeros", dtype=self.dtype_policy, name="gate"
        )
        self.gate.build([None, input_shape[1] * input_shape[2]])
        super().build(input_shape)

    def logits(self, modalities: tf.Tensor) -> tf.Tensor:
        shape = modalities.shape
        return self.gate(tf.reshape(modalities, [-1, shape[1] * shape[2]]))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Attention(Mean):
    """Weights from a learned query over each modality's own vector (additive attention,
    Bahdanau et al. 2015): v . tanh(W m + b_modality)."""

    def build(self, input_shape: Any) -> None:
        _, modality, dim = input_shape
        self.project = tf.keras.layers.Dense(dim, dtype=self.dtype_policy, name="project")
        self.project.build([None, modality, dim])
        self.kind = self.add_weight(name="kind", shape=[modality, dim], initializer="zeros")
        self.query = self.add_weight(name="query", shape=[dim], initializer="glorot_uniform")
        super().build(input_shape)

    def logits(self, modalities: tf.Tensor) -> tf.Tensor:
        hidden = self.project(modalities)
        hidden = tf.tanh(hidden + tf.cast(self.kind, hidden.dtype))
        return tf.einsum("bmd,d->bm", hidden, tf.cast(self.query, hidden.dtype))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Concat(tf.keras.layers.Layer):
    """One linear map of all modalities side by side, with a bit for each one's presence.

    The vector is the sum over the present modalities of W_m x_m + p_m, plus a bias, so an absent
    modality is a row of zeros. modality * (dim + 1) * dim + dim parameters.
    """

    def build(self, input_shape: Any) -> None:
        _, modality, dim = input_shape
        self.kernel = self.add_weight(
            name="kernel", shape=[modality, dim, dim], initializer="glorot_uniform"
        )
        self.presence = self.add_weight(name="presence", shape=[modality, dim], initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=[dim], initializer="zeros")
        super().build(input_shape)

    def call(self, modalities: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Mean.call`; a weight is the `shares` of W_m x_m + p_m."""
        modalities = blank(modalities, present)
        added = tf.einsum("bmd,mde->bme", modalities, self.kernel) + self.presence
        added = blank(added, present)
        vector = tf.reduce_sum(added, axis=1) + self.bias
        return zero_if_none(vector, present), shares(added, present)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Transformer(tf.keras.layers.Layer):
    """One encoder block (Vaswani et al. 2017) over a learned query and the present modalities; the
    query's output.

    One head, norms before the sublayers (Xiong et al. 2020), a hidden layer as wide as the vectors.
    Only the query's row is computed, since nothing reads the others. 6 * dim * dim +
    (modality + 13) * dim parameters.
    """

    def build(self, input_shape: Any) -> None:
        _, modality, dim = input_shape
        policy = {"dtype": self.dtype_policy}
        layers = tf.keras.layers
        self.kind = self.add_weight(name="kind", shape=[modality, dim], initializer="zeros")
        self.query = self.add_weight(
            name="query", shape=[dim], initializer=tf.keras.initializers.RandomNormal(stddev=0.02)
        )
        self.token_norm = layers.LayerNormalization(name="token_norm", **policy)
        self.attention = layers.MultiHeadAttention(1, dim, name="attention", **policy)
        self.hidden_norm = layers.LayerNormalization(name="hidden_norm", **policy)
        self.hidden = layers.Dense(dim, activation="gelu", name="hidden", **policy)
        self.output_layer = layers.Dense(dim, name="output", **policy)
        # Starts at unit length, like a modality: next to an id embedding, sqrt(dim) would drown it.
        scale = tf.keras.initializers.Constant(dim**-0.5)
        self.norm = layers.LayerNormalization(name="norm", gamma_initializer=scale, **policy)
        super().build(input_shape)

    def call(self, modalities: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Mean.call`; a weight is what the query attends to a modality, of what it attends to
        all of them and not to itself."""
        modalities = blank(modalities, present) + self.kind
        start = tf.zeros_like(modalities[:, :1]) + self.query
        normed = self.token_norm(tf.concat([start, modalities], axis=1))
        allowed = tf.concat([tf.ones_like(present[:, :1]), present], axis=1)
        attended, scores = self.attention(
            normed[:, :1],
            normed,
            attention_mask=allowed[:, None, :],
            return_attention_scores=True,
        )
        x = (start + attended)[:, 0]
        x += self.output_layer(self.hidden(self.hidden_norm(x)))
        return zero_if_none(self.norm(x), present), shares(scores[:, 0, 0, 1:, None], present)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Recurrent(tf.keras.layers.Layer):
    """The last state of a GRU (Cho et al. 2014) that reads the present modalities in order; an
    absent one leaves the state as it is. 6 * dim * (dim + 1) parameters."""

    def build(self, input_shape: Any) -> None:
        dim = input_shape[2]
        # The cell and not `GRU`, which would put a cuDNN operation into the export.
        self.cell = tf.keras.layers.GRUCell(dim, name="cell", dtype=self.dtype_policy)
        self.cell.build([None, dim])
        super().build(input_shape)

    def call(self, modalities: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Mean.call`; a weight is the `shares` of the change that a modality made to the
        state. The vector is the sum of these changes."""
        modalities = blank(modalities, present)
        state = tf.zeros_like(modalities[:, 0])
        changes = []
        for i in range(modalities.shape[1]):
            after = tf.where(present[:, i, None], self.cell(modalities[:, i], [state])[0], state)
            changes.append(after - state)
            state = after
        return state, shares(tf.stack(changes, axis=1), present)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Bilinear(tf.keras.layers.Layer):
    """Products of the modalities (low-rank multimodal fusion, Liu et al. 2018).

    The vector is the sum over r of w_r * product over m of (W_mr [x_m; 1]), plus a bias. The 1 adds
    the products of fewer modalities to those of all; the factor of an absent modality
    is 1. modality * rank * (dim + 1) * dim + rank + dim parameters, with rank 4.
    """

    rank = 4

    def build(self, input_shape: Any) -> None:
        _, modality, dim = input_shape
        # A modality of unit length makes factors of variance 2, so the vector starts near unit
        # length; the small weights that are usual would multiply to nothing.
        self.factors = self.add_weight(
            name="factors",
            shape=[modality, self.rank, dim + 1, dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
        )
        scale = tf.keras.initializers.Constant((self.rank * dim * 2**modality) ** -0.5)
        self.mix = self.add_weight(name="mix", shape=[self.rank], initializer=scale)
        self.bias = self.add_weight(name="bias", shape=[dim], initializer="zeros")
        super().build(input_shape)

    def call(self, modalities: tf.Tensor, present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Mean.call`; a weight is the `shares` of how far the vector moves when the modality
        is taken away."""
        modalities = blank(modalities, present)
        augmented = tf.concat([modalities, tf.ones_like(modalities[:, :, :1])], axis=2)
        factors = tf.einsum("bmd,mrde->bmre", augmented, self.factors)
        factors = tf.where(present[:, :, None, None], factors, tf.ones_like(factors))
        factors = tf.unstack(factors, axis=1)

        def mixed(parts: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.einsum("bre,r->be", functools.reduce(tf.multiply, parts), self.mix)

        one = tf.ones_like(factors[0])
        whole = mixed(factors)
        moves = [whole - mixed([*factors[:i], one, *factors[i + 1 :]]) for i in range(len(factors))]
        return zero_if_none(whole + self.bias, present), shares(tf.stack(moves, axis=1), present)


FUSIONS = {
    "mean": Mean,
    "weighted": Weighted,
    "gated": Gated,
    "attention": Attention,
    "concat": Concat,
    "transformer": Transformer,
    "recurrent": Recurrent,
    "bilinear": Bilinear,
}


def build_fusion(kind: str, **arguments: Any) -> tf.keras.layers.Layer:
    """The fusion layer of that name.

    Raises:
      ConfigError: for an unknown name.
    """
    if kind not in FUSIONS:
        raise ConfigError(f"fusion: wanted one of {', '.join(FUSIONS)}; got {kind!r}.")
    return FUSIONS[kind](**arguments)
