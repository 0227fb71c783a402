"""Modality vectors and their presence -> one vector.

Every kind is a weighted sum over the modalities that an item has; they differ in where the
weights come from. An item with no modality at all gets zeros.
"""

import tensorflow as tf

from mmrec_tf.errors import ConfigError


def masked_softmax(logits, mask):
    """Softmax over the last axis among the entries that `mask` allows.

    Args:
      logits: <float32>[..., n].
      mask: <bool>[..., n].

    Returns:
      <float32>[..., n]; each row sums to 1, or is all zeros where the mask allows nothing.
    """
    logits = tf.where(mask, logits, tf.constant(-1e9, logits.dtype))
    weights = tf.nn.softmax(logits, axis=-1)
    return tf.where(mask, weights, tf.zeros_like(weights))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Mean(tf.keras.layers.Layer):
    """The plain average of the present modalities."""

    def logits(self, modalities):
        """<float32>[batch, modality]: how much each modality should count, before the mask."""
        return tf.zeros(tf.shape(modalities)[:2], tf.float32)

    def call(self, modalities, present):
        """Weighs an item's modalities into one vector.

        Args:
          modalities: <float32>[batch, modality, dim].
          present: <bool>[batch, modality], False where the item lacks that modality.

        Returns:
          The vector <float32>[batch, dim] (zeros for an item with no modality at all) and the
          weights <float32>[batch, modality] that made it.
        """
        modalities = tf.where(present[:, :, None], modalities, tf.zeros_like(modalities))
        weights = masked_softmax(tf.cast(self.logits(modalities), tf.float32), present)
        vector = tf.einsum("bm,bmd->bd", tf.cast(weights, modalities.dtype), modalities)
        return vector, weights


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Weighted(Mean):
    """One learned weight a modality, the same for every item."""

    def build(self, input_shape):
        self.weight = self.add_weight(
            name="weight", shape=[input_shape[1]], initializer="zeros", dtype=tf.float32
        )
        super().build(input_shape)

    def logits(self, modalities):
        return tf.broadcast_to(self.weight, tf.shape(modalities)[:2])


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Gated(Mean):
    """Weights from all of an item's modalities together (gated multimodal unit, Arevalo et al.
    2017, with a softmax over the modalities in place of independent gates)."""

    def build(self, input_shape):
        self.gate = tf.keras.layers.Dense(
            input_shape[1], kernel_initializer="zeros", dtype=self.dtype_policy, name="gate"
        )
        self.gate.build([None, input_shape[1] * input_shape[2]])
        super().build(input_shape)

    def logits(self, modalities):
        shape = modalities.shape
        return self.gate(tf.reshape(modalities, [-1, shape[1] * shape[2]]))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Attention(Mean):
    """Weights from a learned query over each modality's own vector (additive attention,
    Bahdanau et al. 2015): v . tanh(W m + b_modality)."""

    def build(self, input_shape):
        _, modality, dim = input_shape
        self.project = tf.keras.layers.Dense(dim, dtype=self.dtype_policy, name="project")
        self.project.build([None, modality, dim])
        self.kind = self.add_weight(name="kind", shape=[modality, dim], initializer="zeros")
        self.query = self.add_weight(name="query", shape=[dim], initializer="glorot_uniform")
        super().build(input_shape)

    def logits(self, modalities):
        hidden = self.project(modalities)
        hidden = tf.tanh(hidden + tf.cast(self.kind, hidden.dtype))
        return tf.einsum("bmd,d->bm", hidden, tf.cast(self.query, hidden.dtype))


FUSIONS = {"mean": Mean, "weighted": Weighted, "gated": Gated, "attention": Attention}


def build_fusion(kind: str, **arguments) -> Mean:
    """The fusion layer of that name.

    Raises:
      ConfigError: for an unknown name.
    """
    if kind not in FUSIONS:
        raise ConfigError(f"fusion: wanted one of {', '.join(FUSIONS)}; got {kind!r}.")
    return FUSIONS[kind](**arguments)
