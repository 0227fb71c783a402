"""The two sides of the retrieval model: an item to a vector, a user to a vector."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.alignment import Alignment
from mmrec_tf.config import Config
from mmrec_tf.fusion import MissingModality, build_fusion, masked_softmax
from mmrec_tf.schema import FeatureSpec, Schema

# Gaps from a second to 68 years, each number twice as long as the one before.
NUM_GAPS = 32


class TowerOutput(NamedTuple):
    """What the item tower makes of a batch of items.

    Attributes:
      embedding: <float32>[batch, dim], unit length.
      modalities: <float32>[batch, modality, dim] in the common space, zeros where absent.
      present: <bool>[batch, modality].
      weights: <float32>[batch, modality], what fusion gave each modality.
    """

    embedding: tf.Tensor
    modalities: tf.Tensor
    present: tf.Tensor
    weights: tf.Tensor


def unit(vectors):
    """Rows scaled to unit length; a row of zeros stays finite.

    Args:
      vectors: [..., dim].

    Returns:
      <float32>[..., dim].
    """
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1, epsilon=1e-8)


def keep(shape, rate: float, training):
    """<bool>[shape]: False for a random share `rate` while training, else True."""
    if not training or rate == 0.0:
        return tf.ones(shape, tf.bool)
    return tf.random.uniform(shape) >= rate


def gap_number(seconds):
    """The number of a time gap: 0 for less than a second, one more for each doubling.

    Args:
      seconds: <float32>[...], below 0 where the gap is not known.

    Returns:
      <int32>[...], 0 to `NUM_GAPS` - 1; -1 where the gap is not known.
    """
    doublings = tf.math.log1p(tf.maximum(seconds, 0.0)) / np.log(2.0)
    number = tf.minimum(tf.cast(doublings, tf.int32), NUM_GAPS - 1)
    return tf.where(seconds >= 0, number, -1)


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class IdEmbedding(tf.keras.layers.Layer):
    """A learned row for each known id, zeros for an unknown one (-1).

    Args:
      num_ids: int. Ids are numbered 0 to num_ids - 1.
      dim: int. Width of a row.
    """

    def __init__(self, num_ids: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.num_ids = num_ids
        self.dim = dim

    def get_config(self):
        return {**super().get_config(), "num_ids": self.num_ids, "dim": self.dim}

    def build(self, input_shape):
        self.table = self.add_weight(
            name="table",
            shape=[max(self.num_ids, 1), self.dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5 * 0.1),
        )
        super().build(input_shape)

    def call(self, ids):
        """<int32>[batch] -> <float32>[batch, dim]."""
        rows = tf.gather(self.table, tf.maximum(ids, 0))
        return tf.where((ids >= 0)[:, None], rows, tf.zeros_like(rows))


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class SideFeatures(tf.keras.layers.Layer):
    """Categorical and numeric side features summed into one vector.

    Args:
      sizes: name -> number of category rows (`FeatureSpec.num_categories`), 0
        for a numeric feature.
      dim: int. Width of the vector.
    """

    def __init__(self, sizes: Mapping[str, int], dim: int, **kwargs):
        super().__init__(**kwargs)
        self.sizes = dict(sizes)
        self.dim = dim

    def get_config(self):
        return {**super().get_config(), "sizes": self.sizes, "dim": self.dim}

    @staticmethod
    def sizes_of(features: Mapping[str, FeatureSpec]) -> dict[str, int]:
        """The `sizes` argument for a schema's features."""
        return {
            name: spec.num_categories if spec.kind == "categorical" else 0
            for name, spec in features.items()
        }

    def build(self, input_shape):
        self.tables = {
            name: self.add_weight(
                name=name,
                shape=[max(size, 1), self.dim],
                initializer=tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5 * 0.1),
            )
            for name, size in self.sizes.items()
        }
        super().build(input_shape)

    def call(self, features):
        """Sums the features' vectors.

        Args:
          features: by name, <int32>[batch, width] for a category (0: none, 1: out of
            vocabulary), <float32>[batch, 2] for a number (value, 1 where it is known).

        Returns:
          <float32>[batch, dim].
        """
        total = 0.0
        for name, size in self.sizes.items():
            table, value = self.tables[name], features[name]
            if size:
                rows = tf.gather(table, value)
                known = tf.cast(value > 0, rows.dtype)[..., None]
                total += tf.math.divide_no_nan(
                    tf.reduce_sum(rows * known, axis=1), tf.reduce_sum(known, axis=1)
                )
            else:
                total += tf.cast(value[:, :1] * value[:, 1:], self.compute_dtype) * table
        return total


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class ItemTower(tf.keras.layers.Layer):
    """Encoded modalities -> alignment -> fusion, plus id embedding and side features.

    Args:
      modalities: tuple of str. Names, in the order of `present`.
      num_items: int. Rows of the id embedding; 0 for a tower without ids.
      dim, fusion, missing, id_dropout, modality_dropout, dropout: as in `mmrec_tf.config`.
      alignment: settings of `Alignment`.
      feature_sizes: as `SideFeatures.sizes_of`; empty for none.
    """

    def __init__(
        self,
        modalities=(),
        *,
        num_items: int,
        dim: int,
        fusion: str = "gated",
        missing: str = "skip",
        id_dropout: float = 0.0,
        modality_dropout: float = 0.0,
        dropout: float = 0.0,
        alignment: Mapping[str, Any] | None = None,
        feature_sizes: Mapping[str, int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "modalities": tuple(modalities),
            "num_items": num_items,
            "dim": dim,
            "fusion": fusion,
            "missing": missing,
            "id_dropout": id_dropout,
            "modality_dropout": modality_dropout,
            "dropout": dropout,
            "alignment": dict(alignment or {}),
            "feature_sizes": dict(feature_sizes or {}),
        }
        policy = {"dtype": self.dtype_policy}
        self.modalities = tuple(modalities)
        self.dim = dim
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        if self.modalities:
            self.alignment = Alignment(dim, **(alignment or {}), name="alignment", **policy)
            self.missing = MissingModality(missing, name="missing", **policy)
            self.fusion = build_fusion(fusion, name="fusion", **policy)
        self.id_embedding = (
            IdEmbedding(num_items, dim, name="id_embedding", **policy) if num_items else None
        )
        self.features = (
            SideFeatures(feature_sizes, dim, name="features", **policy) if feature_sizes else None
        )
        self.drop = tf.keras.layers.Dropout(dropout, **policy)

    def get_config(self):
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_experiment(cls, config: Config, schema: Schema, **kwargs) -> "ItemTower":
        """The item tower that a config asks for on a dataset's schema."""
        return cls(
            schema.select(config.modalities),
            num_items=schema.num_items if config.item.id_embedding else 0,
            dim=config.dim,
            fusion=config.item.fusion,
            missing=config.item.missing,
            id_dropout=config.item.id_dropout,
            modality_dropout=config.item.modality_dropout,
            dropout=config.item.dropout,
            alignment={
                "kind": config.alignment.kind,
                "hidden": config.alignment.hidden,
                "temperature": config.alignment.temperature,
                "trainable_maps": config.alignment.trainable,
                "l2": config.alignment.l2,
                "collaborative": config.alignment.collaborative,
            },
            feature_sizes=SideFeatures.sizes_of(schema.item_features)
            if config.item.features
            else {},
            **kwargs,
        )

    def call(self, inputs, training=False) -> TowerOutput:
        """Embeds items.

        Args:
          inputs: dict of
            item: <int32>[batch], -1 for an item that is placed by its content alone;
            present: <bool>[batch, modality];
            encoded: by modality, <float32>[batch, features], what the encoders made of it;
            features: by name, see `SideFeatures.call`; may be missing for a tower without.
          training: whether dropout of ids, modalities and units is on.

        Returns:
          TowerOutput; finite for an item of which nothing is known.
        """
        item = inputs["item"]
        batch = tf.shape(item)[0]
        total = tf.zeros([batch, self.dim], self.compute_dtype)
        if self.modalities:
            present = inputs["present"]
            aligned = self.alignment([inputs["encoded"][n] for n in self.modalities], present)
            used = present & keep(tf.shape(present), self.modality_dropout, training)
            seen, usable = self.missing(aligned, present, used, training=training)
            fused, weights = self.fusion(seen, usable)
            total += tf.cast(fused, total.dtype)
        else:
            present = tf.zeros([batch, 0], tf.bool)
            aligned = tf.zeros([batch, 0, self.dim], tf.float32)
            weights = tf.zeros([batch, 0], tf.float32)
        if self.id_embedding is not None:
            kept = keep(tf.shape(item), self.id_dropout, training)
            total += self.id_embedding(tf.where(kept, item, -1))
        if self.features is not None:
            total += self.features(inputs["features"])
        total = self.drop(total, training=training)
        return TowerOutput(unit(total), aligned, present, weights)


def steps_from_newest(known):
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
    2018, eq. 1 to 6). Norms stand before the sublayers (Xiong et al. 2020), and places are
    counted from the newest step, so that a short history reads like the end of a long one.

    Args:
      num_layers: int.
      num_heads: int, divides the width of the steps.
      num_steps: int. Steps of the longest history.
      dropout: share of units dropped in training.
    """

    def __init__(self, num_layers: int, num_heads: int, num_steps: int, *, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.num_steps = num_steps
        self.dropout = dropout

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_steps": self.num_steps,
            "dropout": self.dropout,
        }

    def build(self, input_shape):
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
        self.drop = tf.keras.layers.Dropout(self.dropout, **policy)
        super().build(input_shape)

    def call(self, history, known, training=False):
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
      dim, history, num_layers, num_heads, time_gaps, hidden, id_dropout, dropout: as in
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
        time_gaps: bool = False,
        hidden: int = 0,
        id_dropout: float = 0.0,
        dropout: float = 0.0,
        profile: bool = False,
        feature_sizes: Mapping[str, int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "num_users": num_users,
            "dim": dim,
            "history": history,
            "num_steps": num_steps,
            "num_layers": num_layers,
            "num_heads": num_heads,
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
                    tf.keras.layers.Dense(1, use_bias=False, **policy),
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
        self.drop = tf.keras.layers.Dropout(dropout, **policy)

    def get_config(self):
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_experiment(cls, config: Config, schema: Schema, **kwargs) -> "UserTower":
        """The user tower that a config asks for on a dataset's schema."""
        return cls(
            num_users=schema.num_users if config.user.id_embedding else 0,
            dim=config.dim,
            history=config.user.history,
            num_steps=config.user.history_length,
            num_layers=config.user.num_layers,
            num_heads=config.user.num_heads,
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

    def pool(self, history, known, training=False):
        """<float32>[batch, step, dim], <bool>[batch, step] -> [batch, dim]."""
        some = tf.reduce_any(known, axis=1, keepdims=True)
        if self.history == "gru":
            # A row without any step would be undefined for the fused kernels: give it one.
            first = tf.one_hot(tf.zeros_like(known[:, 0], tf.int32), tf.shape(known)[1]) > 0
            pooled = self.gru(history, mask=known | (first & ~some))
        elif self.history == "attention":
            newest = tf.minimum(steps_from_newest(known), self.num_steps - 1)
            logits = tf.cast(self.score(history)[..., 0], tf.float32)
            logits += tf.gather(tf.cast(self.recency, tf.float32), newest)
            weights = masked_softmax(logits, known)
            pooled = tf.einsum("bs,bsd->bd", tf.cast(weights, history.dtype), history)
        elif self.history == "self_attention":
            pooled = self.attention(history, known, training=training)
        else:
            weights = tf.cast(known, history.dtype)
            weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
            pooled = tf.einsum("bs,bsd->bd", weights, history)
        return tf.where(some, pooled, tf.zeros_like(pooled))

    def call(self, inputs, training=False):
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
          <float32>[batch, dim], unit length; finite for a user of whom nothing is known.
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
        if self.id_embedding is not None:
            kept = keep(tf.shape(user), self.id_dropout, training)
            total += self.id_embedding(tf.where(kept, user, -1))
        if self.profile is not None:
            total += self.profile(inputs["profile"])
        if self.features is not None:
            total += self.features(inputs["features"])
        return unit(total)
