"""A user to a vector: the items of a history, a profile, an id and side features."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset import draws
from mmrec_tf.schema import Schema
from mmrec_tf.towers.embeddings import (
    NUM_GAPS,
    IdEmbedding,
    SideFeatures,
    gap_number,
    keep,
    unit,
)
from mmrec_tf.towers.masking import masked_softmax


def steps_from_newest(known: tf.Tensor) -> tf.Tensor:
    """How many known steps follow each step of a history.

    Args:
      known: <bool>[batch, step], oldest first.

    Returns:
      <int32>[batch, step]; 0 for the newest known step.
    """
    after = tf.cumsum(tf.cast(known, tf.int32), axis=1, exclusive=True, reverse=True)
    return tf.where(known, after, 0)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class SelfAttention(tf.keras.layers.Layer):
    """Causal self-attention over a history; the newest step's output (SASRec, Kang and McAuley
    2018). Norms stand before the sublayers (Xiong et al. 2020), and places are
    counted from the newest step, so that a short history reads like the end of a long one.

    Args:
      num_layers: int.
      num_heads: int, divides the width of the steps.
      num_steps: int. Steps of the longest history.
      dropout: share of units dropped in training.
    """

    def __init__(
        self,
        num_layers: int,
        num_heads: int,
        num_steps: int,
        *,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.num_steps = num_steps
        self.dropout = dropout

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_steps": self.num_steps,
            "dropout": self.dropout,
        }

    def build(self, input_shape: Any) -> None:
        dim = input_shape[-1]
        policy = {"dtype": self.dtype_policy}
        self.place = self.add_weight(
            name="place",
            shape=[self.num_steps, dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=0.02),
        )
        self.blocks = [
            {
                "norm": tf.keras.layers.LayerNormalization(name=f"norm_{i}", **policy),
                "attention": tf.keras.layers.MultiHeadAttention(
                    self.num_heads, dim // self.num_heads, name=f"attention_{i}", **policy
                ),
                "hidden_norm": tf.keras.layers.LayerNormalization(
                    name=f"hidden_norm_{i}", **policy
                ),
                "hidden": tf.keras.layers.Dense(
                    dim, activation="gelu", name=f"hidden_{i}", **policy
                ),
                "output": tf.keras.layers.Dense(dim, name=f"output_{i}", **policy),
            }
            for i in range(self.num_layers)
        ]
        self.norm = tf.keras.layers.LayerNormalization(name="norm", **policy)
        self.drop = draws.Dropout(self.dropout, **policy)
        super().build(input_shape)

    def call(self, history: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Reads histories.

        Args:
          history: <float32>[batch, step, dim], oldest first.
          known: <bool>[batch, step], False for steps to pass over.

        Returns:
          <float32>[batch, dim]; finite, and of no meaning, for a row without a known step.
        """
        newest = steps_from_newest(known)
        place = tf.gather(self.place, tf.minimum(newest, self.num_steps - 1))
        x = self.drop(history + tf.cast(place, history.dtype), training=training)
        allowed = known[:, None, :] & (newest[:, :, None] <= newest[:, None, :])
        for block in self.blocks:
            normed = block["norm"](x)
            attended = block["attention"](normed, normed, attention_mask=allowed)
            x += self.drop(attended, training=training)
            hidden = block["output"](block["hidden"](block["hidden_norm"](x)))
            x += self.drop(hidden, training=training)
        last = tf.cast(known & (newest == 0), x.dtype)
        return self.norm(tf.einsum("bs,bsd->bd", last, x))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class UserTower(tf.keras.layers.Layer):
    """Optional id embedding + history over item embeddings + optional profile and features.

    Args:
      num_users: int. Rows of the id embedding; 0 for a tower without ids.
      dim, history, num_layers, num_heads, interests, time_gaps, hidden, id_dropout, dropout: as in
        `mmrec_tf.config`.
      num_steps: int. Steps of a history.
      profile: bool. Whether an encoded profile text comes in.
      feature_sizes: as `SideFeatures.sizes_of`; empty for none.
    """

    def __init__(
        self,
        *,
        num_users: int,
        dim: int,
        history: str = "mean",
        num_steps: int = 50,
        num_layers: int = 1,
        num_heads: int = 1,
        interests: int = 1,
        time_gaps: bool = False,
        hidden: int = 0,
        id_dropout: float = 0.0,
        dropout: float = 0.0,
        profile: bool = False,
        feature_sizes: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {
            "num_users": num_users,
            "dim": dim,
            "history": history,
            "num_steps": num_steps,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "interests": interests,
            "time_gaps": time_gaps,
            "hidden": hidden,
            "id_dropout": id_dropout,
            "dropout": dropout,
            "profile": profile,
            "feature_sizes": dict(feature_sizes or {}),
        }
        policy = {"dtype": self.dtype_policy}
        self.dim = dim
        self.history = history
        self.interests = interests
        self.id_dropout = id_dropout
        self.id_embedding = (
            IdEmbedding(num_users, dim, name="id_embedding", **policy) if num_users else None
        )
        if history == "gru":
            # `GRU` would put a cuDNN operation into the export.
            self.gru = tf.keras.layers.RNN(
                tf.keras.layers.GRUCell(dim, **policy), name="gru", **policy
            )
        if history == "self_attention":
            self.attention = SelfAttention(
                num_layers, num_heads, num_steps, dropout=dropout, name="self_attention", **policy
            )
        self.num_steps = num_steps
        self.gaps = IdEmbedding(NUM_GAPS, dim, name="gaps", **policy) if time_gaps else None
        if history == "attention":
            self.recency = self.add_weight(name="recency", shape=[num_steps], initializer="zeros")
            self.score = tf.keras.Sequential(
                [
                    tf.keras.layers.Dense(dim, activation="tanh", **policy),
                    tf.keras.layers.Dense(interests, use_bias=False, **policy),
                ],
                name="score",
            )
        self.project = tf.keras.layers.Dense(dim, name="project", **policy)
        self.hidden = (
            tf.keras.Sequential(
                [
                    tf.keras.layers.Dense(hidden, activation="gelu", **policy),
                    tf.keras.layers.Dense(dim, use_bias=False, **policy),
                ],
                name="hidden",
            )
            if hidden
            else None
        )
        self.profile = (
            tf.keras.layers.Dense(dim, use_bias=False, name="profile", **policy)
            if profile
            else None
        )
        self.features = (
            SideFeatures(feature_sizes, dim, name="features", **policy) if feature_sizes else None
        )
        self.drop = draws.Dropout(dropout, **policy)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_experiment(cls, config: Config, schema: Schema, **kwargs: Any) -> "UserTower":
        """The user tower that a config asks for on a dataset's schema."""
        return cls(
            num_users=schema.num_users if config.user.id_embedding else 0,
            dim=config.dim,
            history=config.user.history,
            # Older places are not trained, and count as the oldest that is.
            num_steps=config.user.training_window or config.user.history_length,
            num_layers=config.user.num_layers,
            num_heads=config.user.num_heads,
            interests=config.user.interests,
            time_gaps=config.user.time_gaps,
            hidden=config.user.hidden,
            id_dropout=config.user.id_dropout,
            dropout=config.user.dropout,
            profile=config.user.profile and schema.profile,
            feature_sizes=SideFeatures.sizes_of(schema.user_features)
            if config.user.features
            else {},
            **kwargs,
        )

    def pool(self, history: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """<float32>[batch, step, dim], <bool>[batch, step] -> [batch, dim], or with several
        interests [batch, interest, dim]."""
        some = tf.reduce_any(known, axis=1, keepdims=True)
        if self.history == "gru":
            # A row without any step would be undefined for the fused kernels: give it one.
            first = tf.one_hot(tf.zeros_like(known[:, 0], tf.int32), tf.shape(known)[1]) > 0
            pooled = self.gru(history, mask=known | (first & ~some))
        elif self.history == "attention":
            weights = tf.cast(self.attention_weights(history, known), history.dtype)
            if self.interests > 1:
                pooled = tf.einsum("bis,bsd->bid", weights, history)
                some = some[:, None]
            else:
                pooled = tf.einsum("bs,bsd->bd", weights, history)
        elif self.history == "self_attention":
            pooled = self.attention(history, known, training=training)
        else:
            weights = tf.cast(known, history.dtype)
            weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
            pooled = tf.einsum("bs,bsd->bd", weights, history)
        return tf.where(some, pooled, tf.zeros_like(pooled))

    def attention_weights(self, history: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """What each step weighs in an "attention" history, as of `pool`: <float32>[batch, step], or
        with several interests, each of which weighs anew, <float32>[batch, interest, step] (Cen et
        al. 2020, eq. 6, with recency in place of places)."""
        newest = tf.minimum(steps_from_newest(known), self.num_steps - 1)
        recency = tf.gather(tf.cast(self.recency, tf.float32), newest)
        logits = tf.cast(self.score(history), tf.float32)
        if self.interests > 1:
            logits = tf.transpose(logits, [0, 2, 1]) + recency[:, None]
            return masked_softmax(logits, tf.broadcast_to(known[:, None], tf.shape(logits)))
        return masked_softmax(logits[..., 0] + recency, known)

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        """Embeds users.

        Args:
          inputs: dict of
            user: <int32>[batch], -1 for an unknown user;
            history: <float32>[batch, step, dim], embeddings of the items of the history;
            known: <bool>[batch, step], False for padding and for unknown items;
            gap: <float32>[batch, step], seconds from each item to the newest one of the history,
              below 0 where that is not known; only with time gaps;
            profile: <float32>[batch, features], zeros where missing; only with profile;
            features: by name, see `SideFeatures.call`; may be missing for a tower without.
          training: whether dropout of ids and units is on.

        Returns:
          <float32>[batch, dim], unit length; finite for a user of whom nothing is known. With
          several interests <float32>[batch, interest, dim], a vector each.
        """
        user = inputs["user"]
        if self.history == "none":
            pooled = tf.zeros([tf.shape(user)[0], self.dim], self.compute_dtype)
        else:
            history = tf.cast(inputs["history"], self.compute_dtype)
            if self.gaps is not None:
                history += self.gaps(gap_number(inputs["gap"]))
            pooled = self.pool(history, inputs["known"], training)
            pooled = self.drop(pooled, training=training)
        # The bias of this projection is where a user of whom nothing is known ends up.
        total = self.project(pooled)
        if self.hidden is not None:
            total += self.hidden(pooled)

        def shared(value: tf.Tensor) -> tf.Tensor:
            return value[:, None] if self.interests > 1 else value

        if self.id_embedding is not None:
            kept = keep(tf.shape(user), self.id_dropout, training)
            total += shared(self.id_embedding(tf.where(kept, user, -1)))
        if self.profile is not None:
            total += shared(self.profile(inputs["profile"]))
        if self.features is not None:
            total += shared(self.features(inputs["features"]))
        return unit(total)
