"""The two sides of the retrieval model: an item to a vector, a user to a vector."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from mmrec_tf.alignment import Alignment
from mmrec_tf.config import Config
from mmrec_tf.fusion import build_fusion, masked_softmax
from mmrec_tf.schema import FeatureSpec, Schema


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
      dim, fusion, id_dropout, modality_dropout, dropout, alignment_hidden,
      alignment_temperature: as in `mmrec_tf.config`.
      feature_sizes: as `SideFeatures.sizes_of`; empty for none.
    """

    def __init__(
        self,
        modalities=(),
        *,
        num_items: int,
        dim: int,
        fusion: str = "gated",
        id_dropout: float = 0.0,
        modality_dropout: float = 0.0,
        dropout: float = 0.0,
        alignment_hidden: int = 0,
        alignment_temperature: float = 0.1,
        feature_sizes: Mapping[str, int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "modalities": tuple(modalities),
            "num_items": num_items,
            "dim": dim,
            "fusion": fusion,
            "id_dropout": id_dropout,
            "modality_dropout": modality_dropout,
            "dropout": dropout,
            "alignment_hidden": alignment_hidden,
            "alignment_temperature": alignment_temperature,
            "feature_sizes": dict(feature_sizes or {}),
        }
        policy = {"dtype": self.dtype_policy}
        self.modalities = tuple(modalities)
        self.dim = dim
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        if self.modalities:
            self.alignment = Alignment(
                dim,
                hidden=alignment_hidden,
                temperature=alignment_temperature,
                name="alignment",
                **policy,
            )
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
            id_dropout=config.item.id_dropout,
            modality_dropout=config.item.modality_dropout,
            dropout=config.item.dropout,
            alignment_hidden=config.alignment.hidden,
            alignment_temperature=config.alignment.temperature,
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
            fused, weights = self.fusion(aligned, used)
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


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class UserTower(tf.keras.layers.Layer):
    """Optional id embedding + history over item embeddings + optional profile and features.

    Args:
      num_users: int. Rows of the id embedding; 0 for a tower without ids.
      dim, history, hidden, id_dropout, dropout: as in `mmrec_tf.config`.
      profile: bool. Whether an encoded profile text comes in.
      feature_sizes: as `SideFeatures.sizes_of`; empty for none.
    """

    def __init__(
        self,
        *,
        num_users: int,
        dim: int,
        history: str = "mean",
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
        if history == "attention":
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
            hidden=config.user.hidden,
            id_dropout=config.user.id_dropout,
            dropout=config.user.dropout,
            profile=config.user.profile and schema.profile,
            feature_sizes=SideFeatures.sizes_of(schema.user_features)
            if config.user.features
            else {},
            **kwargs,
        )

    def pool(self, history, known):
        """<float32>[batch, step, dim], <bool>[batch, step] -> [batch, dim]."""
        some = tf.reduce_any(known, axis=1, keepdims=True)
        if self.history == "gru":
            # A row without any step would be undefined for the fused kernels: give it one.
            first = tf.one_hot(tf.zeros_like(known[:, 0], tf.int32), tf.shape(known)[1]) > 0
            pooled = self.gru(history, mask=known | (first & ~some))
        elif self.history == "attention":
            weights = masked_softmax(tf.cast(self.score(history)[..., 0], tf.float32), known)
            pooled = tf.einsum("bs,bsd->bd", tf.cast(weights, history.dtype), history)
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
            pooled = self.drop(self.pool(history, inputs["known"]), training=training)
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
