"""One space for an item's modalities: projections to it, and the loss that pulls them together."""

from collections.abc import Sequence

import tensorflow as tf

MIN_LOGIT = -1e9


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Alignment(tf.keras.layers.Layer):
    """Projects each modality to a common unit sphere.

    Args:
      dim: int. Width of the common space.
      hidden: int. Width of a hidden layer of each projection; 0 for a linear one.
      temperature: float. Initial temperature of the contrastive loss; learned, kept above 0.01
        as in CLIP (Radford et al. 2021).
    """

    def __init__(self, dim: int, *, hidden: int = 0, temperature: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.hidden = hidden
        self.temperature = temperature

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "hidden": self.hidden,
            "temperature": self.temperature,
        }

    def build(self, input_shape):
        self.projections = []
        for i, shape in enumerate(input_shape):
            layers = []
            if self.hidden:
                layers.append(
                    tf.keras.layers.Dense(
                        self.hidden, activation="gelu", dtype=self.dtype_policy, name=f"hidden_{i}"
                    )
                )
            layers.append(
                tf.keras.layers.Dense(self.dim, dtype=self.dtype_policy, name=f"project_{i}")
            )
            projection = tf.keras.Sequential(layers, name=f"projection_{i}")
            projection.build([None, shape[-1]])
            self.projections.append(projection)
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=[],
            initializer=tf.keras.initializers.Constant(float(tf.math.log(self.temperature))),
            dtype=tf.float32,
        )
        super().build(input_shape)

    def call(self, features: Sequence, present):
        """Projects features to unit vectors.

        Args:
          features: one <float32>[batch, features] per modality.
          present: <bool>[batch, modality].

        Returns:
          <float32>[batch, modality, dim]; unit length where present, zeros elsewhere.
        """
        vectors = [
            tf.cast(projection(value), tf.float32)
            for projection, value in zip(self.projections, features, strict=True)
        ]
        vectors = tf.math.l2_normalize(tf.stack(vectors, axis=1), axis=-1, epsilon=1e-8)
        return tf.where(present[:, :, None], vectors, tf.zeros_like(vectors))

    def loss(self, modalities, present, *, item=None):
        """`contrastive_loss` at the learned temperature."""
        temperature = tf.maximum(tf.exp(self.log_temperature), 0.01)
        return contrastive_loss(modalities, present, temperature=temperature, item=item)


def contrastive_loss(modalities, present, *, temperature, item=None):
    """InfoNCE among the present modalities of an item (van den Oord et al. 2018, eq. 4),
    symmetric over each pair of modalities as in CLIP (Radford et al. 2021).

    For a pair (a, b), an item that has both must find its own b among the b of all items of the
    batch that have one, by cosine, and the other way round.

    Args:
      modalities: <float32>[batch, modality, dim], unit length where present.
      present: <bool>[batch, modality].
      temperature: <float32>[].
      item: <int32>[batch] item numbers, where an item may stand in the batch more than once: its
        repetitions are no negatives of each other.

    Returns:
      <float32>[]: the mean over pairs and items; 0 where no item has two modalities.
    """
    num_modalities = modalities.shape[1]
    batch = tf.shape(modalities)[0]
    same = tf.eye(batch, dtype=tf.bool)
    repeated = tf.zeros([batch, batch], tf.bool)
    if item is not None:
        repeated = tf.equal(item[:, None], item[None, :]) & ~same
    total, count = tf.constant(0.0), tf.constant(0.0)
    for a in range(num_modalities):
        for b in range(a + 1, num_modalities):
            logits = tf.matmul(modalities[:, a], modalities[:, b], transpose_b=True) / temperature
            both = tf.cast(present[:, a] & present[:, b], tf.float32)
            for values, candidate in (
                (logits, present[:, b]),
                (tf.transpose(logits), present[:, a]),
            ):
                allowed = (candidate[None, :] & ~repeated) | same
                masked = tf.where(allowed, values, MIN_LOGIT)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=tf.range(batch), logits=masked
                )
                total += tf.reduce_sum(loss * both)
                count += tf.reduce_sum(both)
    return tf.math.divide_no_nan(total, count)
