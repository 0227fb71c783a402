"""Several vectors to one: the frames of a clip, which have an order, or values, which have none."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

ORDERED = ("gru", "transformer")


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class AttentionPool(tf.keras.layers.Layer):
    """A weighted mean whose weights follow from the vectors themselves, whatever their order.

    Of vectors h_k the weights are softmax over k of w . tanh(V norm(h_k)) (Ilse et al. 2018, eq. 8,
    with layer normalization before, as encoders differ in scale by orders of magnitude). It starts
    close to the plain mean: w is small.

    Args:
      dim: of the vectors.
      units: rows of V.
    """

    def __init__(self, dim: int, units: int = 32, **kwargs: Any) -> None:
        # Not even mixed precision may round what weights follow from.
        super().__init__(autocast=False, **kwargs)
        self.dim = dim
        self.units = units
        self.norm = tf.keras.layers.LayerNormalization(name="norm", dtype="float32")
        self.hidden = tf.keras.layers.Dense(units, "tanh", name="hidden", dtype="float32")
        # An offset would be the same for all.
        small = tf.keras.initializers.RandomNormal(stddev=0.05)
        self.score = tf.keras.layers.Dense(
            1, use_bias=False, kernel_initializer=small, name="score", dtype="float32"
        )
        for layer, size in ((self.norm, dim), (self.hidden, dim), (self.score, units)):
            layer.build([None, None, size])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "units": self.units}

    def call(
        self, vectors: tf.Tensor, present: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Pools each row.

        Args:
          vectors: <float32>[batch, step, dim].
          present: <bool>[batch, step], which of them count; None for all.

        Returns:
          <float32>[batch, dim], zeros where none counts, and <float32>[batch, step], weights that
          add up to 1.
        """
        score = self.score(self.hidden(self.norm(vectors)))[..., 0]
        if present is None:
            weights = tf.nn.softmax(score, axis=1)
        else:
            score = tf.where(present, score, score.dtype.min)
            weights = tf.where(present, tf.nn.softmax(score, axis=1), 0.0)
            # Vectors that do not count may be anything.
            vectors = tf.where(present[..., None], vectors, 0.0)
        return tf.einsum("bs,bsd->bd", weights, vectors), weights


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class OrderedPool(tf.keras.layers.Layer):
    """Vectors in their order, each normalized first, to one.

    "gru": the last state of a gated recurrent unit (Cho et al. 2014). "transformer": learned
    positions are added, and the mean over pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020)
    is taken.

    Args:
      kind: one of `ORDERED`.
      dim: of the vectors.
      steps: how many there are.
      units: length of what comes out.
      num_layers, num_heads: of the transformer.
    """

    def __init__(
        self,
        kind: str,
        dim: int,
        steps: int,
        *,
        units: int,
        num_layers: int = 1,
        num_heads: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.settings = {
            "kind": kind,
            "dim": dim,
            "steps": steps,
            "units": units,
            "num_layers": num_layers,
            "num_heads": num_heads,
        }
        self.kind, self.steps, self.dim, self.units = kind, steps, dim, units
        policy: Mapping[str, Any] = {"dtype": "float32"}
        self.norm = tf.keras.layers.LayerNormalization(name="norm", **policy)
        self.norm.build([None, steps, dim])
        if kind == "gru":
            # `GRU` would put a cuDNN operation into the export, which XLA cannot compile.
            self.reader = tf.keras.layers.RNN(
                tf.keras.layers.GRUCell(units, **policy), name="gru", **policy
            )
            self.reader(tf.zeros([1, steps, dim]))
            return
        self.project = tf.keras.layers.Dense(units, name="project", **policy)
        self.project.build([None, steps, dim])
        self.position = self.add_weight(
            "position",
            [steps, units],
            tf.float32,
            initializer=tf.keras.initializers.RandomNormal(0, 0.5),
            experimental_autocast=False,
        )
        self.blocks = [
            _Block(units, num_heads, name=f"block_{n}", **policy) for n in range(num_layers)
        ]
        self.last_norm = tf.keras.layers.LayerNormalization(name="last_norm", **policy)
        self.last_norm.build([None, steps, units])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, step, dim] to <float32>[batch, units]."""
        vectors = self.norm(vectors)
        if self.kind == "gru":
            return self.reader(vectors)
        state = self.project(vectors) + self.position
        for block in self.blocks:
            state = block(state)
        return tf.reduce_mean(self.last_norm(state), axis=1)


class _Block(tf.keras.layers.Layer):
    """Self-attention and a feed-forward network, each with a residual connection."""

    def __init__(self, units: int, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        policy = {"dtype": "float32"}
        self.norms = [
            tf.keras.layers.LayerNormalization(name=f"norm_{n}", **policy) for n in range(2)
        ]
        self.attend = tf.keras.layers.MultiHeadAttention(
            num_heads, units // num_heads, name="attend", **policy
        )
        self.widen = tf.keras.layers.Dense(4 * units, "gelu", name="widen", **policy)
        self.narrow = tf.keras.layers.Dense(units, name="narrow", **policy)
        # Weights are made with the layer.
        self(tf.zeros([1, 1, units]))

    def call(self, state: tf.Tensor) -> tf.Tensor:
        normal = self.norms[0](state)
        state += self.attend(normal, normal)
        return state + self.narrow(self.widen(self.norms[1](state)))
