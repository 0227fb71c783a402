"""How the features of a user and a candidate meet, and how a candidate reads a history.

Features come as fields, vectors of one width: the user, the item, then modalities, side features
and context; and as numbers beside them. Every interaction is called alike, with `(fields, dense)`,
and returns what the hidden layers read and what goes straight to the output units. All compute in
float32 under any policy: they are small, and `tfrs.layers.dcn.Cross` cannot mix precisions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.towers.masking import blank, masked_softmax

FLOAT32 = {"dtype": "float32"}


def flatten(fields: tf.Tensor, dense: tf.Tensor) -> tf.Tensor:
    """<float32>[batch, field * dim + n]: all of it side by side."""
    width = fields.shape[1] * fields.shape[2]
    return tf.concat([tf.reshape(fields, [-1, width]), dense], axis=1)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Flattened(tf.keras.layers.Layer):
    """All features side by side; how they meet is left to the hidden layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Lets the features of a pair meet.

        Args:
          inputs: the fields <float32>[batch, field, dim], of which the first is the user and the
            second the item, and numbers <float32>[batch, n].
          training: whether this is training; no interaction draws anything at random.

        Returns:
          deep <float32>[batch, ...], for the hidden layers, and wide <float32>[batch, ...], for the
          output units. Here all features, and 0 columns.
        """
        fields, dense = inputs
        return flatten(fields, dense), dense[:, :0]


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Cross(Flattened):
    """Cross layers of the deep and cross network, version 2 (Wang et al. 2021, eqs. 1 and 2).

    With the hidden layers on top it is the paper's stacked form (figure 1a).

    Args:
      num_cross_layers: int. Each one raises the degree of the crosses by one; 0 for none.
      projection_dim: int. Rank of the layers' weights; 0 for full rank.
    """

    def __init__(
        self, *, num_cross_layers: int = 2, projection_dim: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_cross_layers = num_cross_layers
        self.projection_dim = projection_dim
        self.crosses = [
            tfrs.layers.dcn.Cross(
                projection_dim=projection_dim or None, name=f"cross_{i}", **FLOAT32
            )
            for i in range(num_cross_layers)
        ]

    def get_config(self) -> dict[str, Any]:
        settings = {
            "num_cross_layers": self.num_cross_layers,
            "projection_dim": self.projection_dim,
        }
        return {**super().get_config(), **settings}

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Flattened.call`; deep is as wide as all features."""
        start, wide = super().call(inputs)
        crossed = start
        for cross in self.crosses:
            crossed = cross(start, crossed)
        return crossed, wide


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class DotInteraction(Flattened):
    """Dot products of all pairs of fields (DLRM, Naumov et al. 2019, section 2.1.3).

    The numbers pass through a hidden layer as wide as a field and are one more field.
    """

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][2]
        self.bottom = tf.keras.layers.Dense(dim, activation="relu", name="bottom", **FLOAT32)
        # Asked to gather, the layer takes a mask of its values apart, of a number that only they
        # know; the places of the pairs are known beforehand.
        self.dots = tfrs.layers.feature_interaction.DotInteraction(
            skip_gather=True, name="dots", **FLOAT32
        )
        super().build(input_shape)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Flattened.call`; deep is the numbers' field <float32>[batch, dim] and the dot
        products of field 1 with 0, 2 with 0, 2 with 1, and so on, the numbers' field last."""
        fields, dense = inputs
        numbers = self.bottom(dense)
        fields = [*tf.unstack(fields, axis=1), numbers]
        one, other = np.tril_indices(len(fields), -1)
        dots = tf.gather(self.dots(fields), one * len(fields) + other, axis=1)
        return tf.concat([numbers, dots], axis=1), dense[:, :0]


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class FactorizationMachine(Flattened):
    """A factorization machine beside the hidden layers (DeepFM, Guo et al. 2017, eq. 2).

    The dot products of all pairs of fields, summed, are ((sum of v)^2 - sum of v^2) / 2, summed
    over the dimensions (Rendle 2010, lemma 3.1).
    """

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Flattened.call`; wide is that sum and the numbers, <float32>[batch, 1 + n]."""
        fields, dense = inputs
        both = tf.square(tf.reduce_sum(fields, axis=1)) - tf.reduce_sum(tf.square(fields), axis=1)
        pairs = 0.5 * tf.reduce_sum(both, axis=1, keepdims=True)
        return flatten(fields, dense), tf.concat([pairs, dense], axis=1)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class BilinearProduct(Flattened):
    """W1 user * W2 item, dimension by dimension, and no other feature (two towers with a map each,
    Huang et al. 2013).

    Output units weigh the products; with all weights one, a unit is the plain dot product of the
    mapped vectors.
    """

    def build(self, input_shape: Any) -> None:
        # Retrieval's vectors lie in one space already: maps of chance would lose their order.
        settings = {"use_bias": False, "kernel_initializer": "identity", **FLOAT32}
        self.user = tf.keras.layers.Dense(input_shape[0][2], name="user", **settings)
        self.item = tf.keras.layers.Dense(input_shape[0][2], name="item", **settings)
        super().build(input_shape)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Flattened.call`; deep has 0 columns, wide is <float32>[batch, dim]."""
        fields, dense = inputs
        return dense[:, :0], self.user(fields[:, 0]) * self.item(fields[:, 1])


def _plain(layer: type[tf.keras.layers.Layer]) -> Callable[..., tf.keras.layers.Layer]:
    """A factory for a kind to which the settings of `Cross` mean nothing."""

    def build(
        *, num_cross_layers: int = 2, projection_dim: int = 0, **kwargs: Any
    ) -> tf.keras.layers.Layer:
        return layer(**kwargs)

    return build


# Called with the settings of `Cross`, and with those of any layer.
INTERACTIONS: dict[str, Callable] = {
    "dcn": Cross,
    "dlrm": _plain(DotInteraction),
    "deepfm": _plain(FactorizationMachine),
    "mlp": _plain(Flattened),
    "bilinear": _plain(BilinearProduct),
}


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class TargetAttention(tf.keras.layers.Layer):
    """A history as each candidate sees it (deep interest network, Zhou et al. 2018, section 4.3).

    An activation unit of one hidden layer (ReLU) reads a step h, a candidate c, their product and
    their difference, and says how much the step counts for the candidate.

    Args:
      hidden: int. Units of the activation unit.
      normalize: bool. Whether the weights of a history sum to 1 (a softmax over its known steps);
        False for the sum of the paper, in which a longer history weighs more.
    """

    def __init__(self, hidden: int = 32, *, normalize: bool = True, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.hidden = hidden
        self.normalize = normalize
        # A softmax takes out again what is added to all logits alike.
        self.logit = tf.keras.layers.Dense(1, use_bias=not normalize, name="logit", **FLOAT32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden, "normalize": self.normalize}

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][2]
        dense = tf.keras.layers.Dense
        self.of_candidate = dense(self.hidden, use_bias=False, name="of_candidate", **FLOAT32)
        self.of_step = dense(self.hidden, name="of_step", **FLOAT32)
        # Products of unit vectors' coordinates are of order 1 / dim: with the small weights that
        # are usual they would not be heard beside the vectors themselves.
        self.of_product = self.add_weight(
            name="of_product",
            shape=[dim, self.hidden],
            initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
            dtype=tf.float32,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Pools a history for each candidate.

        Args:
          inputs: the candidates <float32>[batch, candidate, dim], the history <float32>[batch,
            step, dim], and which of its steps are known, <bool>[batch, step].
          training: whether this is training; nothing is drawn at random.

        Returns:
          The pooled history <float32>[batch, candidate, dim] and the weights <float32>[batch,
          candidate, step] that made it; both all zeros for a row without a known step.
        """
        candidate, history, known = inputs
        history = blank(history, known)
        # The first linear map is taken apart: W [h, c, h * c, h - c] is (W_h + W_d) h +
        # (W_c - W_d) c + W_p (h * c), so the difference needs no map of its own, h and c are
        # mapped once each, and the product is a product of h with W_p c. Nothing of the shape
        # [batch, candidate, step, 4 * dim] comes to be: the largest tensors are [batch, candidate,
        # step, hidden] and, whatever the number of steps, [batch, candidate, dim, hidden].
        scaled = candidate[:, :, :, None] * self.of_product
        hidden = tf.einsum("bsd,bcdh->bcsh", history, scaled)
        hidden += self.of_step(history)[:, None] + self.of_candidate(candidate)[:, :, None]
        logits = tf.squeeze(self.logit(tf.nn.relu(hidden)), axis=-1)
        if self.normalize:
            weights = masked_softmax(logits, known[:, None, :])
        else:
            weights = tf.where(known[:, None, :], logits, 0.0)
        return tf.einsum("bcs,bsd->bcd", weights, history), weights
