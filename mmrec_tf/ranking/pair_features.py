"""What the ranking model knows of a user and a candidate, as fields and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.ranking.feature_interaction import TargetAttention
from mmrec_tf.schema import Schema
from mmrec_tf.towers import IdEmbedding, SideFeatures
from mmrec_tf.towers.embeddings import keep

# Dot products of a retrieval model run to a few tens; the network likes inputs of order 1.
SCORE_SCALE = 0.1
HOURS, DAYS = 24, 7
_HOUR_SECONDS = 3600


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class PairFeatures(tf.keras.layers.Layer):
    """Gathers the fields and the numbers of all pairs of a user and one of the user's candidates.

    It computes in float32 under any policy, as the interactions that read it do.

    Args:
      dim: int. Width of a field.
      content: whether the item's modalities come in.
      item_sizes, user_sizes: side features, as `SideFeatures.sizes_of`; empty for none.
      attention: whether the history comes in as each candidate sees it.
      context: of "hour" and "weekday" (UTC) those that come in.
      signals: what the numbers behind the first two are of, see `Signals.labels`.
      context_dropout: share of the examples whose time is hidden in training, so that a request
        without one is answered well.
    """

    def __init__(
        self,
        dim: int,
        *,
        content: bool = True,
        item_sizes: Mapping[str, int] | None = None,
        user_sizes: Mapping[str, int] | None = None,
        attention: bool = False,
        context: Sequence[str] = (),
        context_dropout: float = 0.1,
        signals: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.settings = {
            "dim": dim,
            "content": content,
            "item_sizes": dict(item_sizes or {}),
            "user_sizes": dict(user_sizes or {}),
            "attention": attention,
            "context": tuple(context),
            "context_dropout": context_dropout,
            "signals": tuple(signals),
        }
        plain: dict[str, Any] = {"dtype": "float32"}
        self.dim = dim
        self.content = content
        self.context_dropout = context_dropout
        self.signals = tuple(signals)
        self.item_features = (
            SideFeatures(item_sizes, dim, name="item_features", **plain) if item_sizes else None
        )
        self.user_features = (
            SideFeatures(user_sizes, dim, name="user_features", **plain) if user_sizes else None
        )
        self.attention = TargetAttention(name="attention", **plain) if attention else None
        self.hour = IdEmbedding(HOURS, dim, name="hour", **plain) if "hour" in context else None
        self.weekday = (
            IdEmbedding(DAYS, dim, name="weekday", **plain) if "weekday" in context else None
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_experiment(cls, config: Config, schema: Schema, **kwargs: Any) -> "PairFeatures":
        """The features that a config asks for on a dataset's schema."""
        settings = config.ranking
        return cls(
            config.dim,
            content=settings.content,
            item_sizes=SideFeatures.sizes_of(schema.item_features) if settings.features else {},
            user_sizes=SideFeatures.sizes_of(schema.user_features) if settings.features else {},
            attention=settings.target_attention,
            context=settings.context,
            **kwargs,
        )

    def labels(self, modalities: Sequence[str]) -> tuple[list[str], list[str]]:
        """What each field and each number that `call` returns is of, in their order.

        Args:
          modalities: their names.
        """
        content = list(modalities) if self.content else []
        fields = ["user", "item", *content]
        numbers = ["retrieval score", "popularity", *self.signals]
        # Its dot product with the user, whether it is present, and its weight.
        numbers += 3 * content
        fields += ["item features"] if self.item_features is not None else []
        fields += ["user features"] if self.user_features is not None else []
        if self.attention is not None:
            fields.append("history")
            numbers.append("history")
        fields += ["hour"] if self.hour is not None else []
        fields += ["weekday"] if self.weekday is not None else []
        return fields, numbers

    def call(
        self, inputs: Mapping[str, Any], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Gathers what is known.

        Args:
          inputs: dict of
            user: <float32>[batch, dim], or <float32>[batch, candidate, dim], what stands for the
              user beside each candidate;
            item: <float32>[batch, candidate, dim];
            numbers: <float32>[batch, candidate, any], the retrieval score first;
            modalities: <float32>[batch, candidate, modality, dim];
            present: <bool>[batch, candidate, modality];
            weights: <float32>[batch, candidate, modality], of the item's fusion;
            item_features: by name, [batch, candidate, ...], else as in `SideFeatures.call`;
            user_features: by name, as there;
            history: <float32>[batch, step, dim];
            known: <bool>[batch, step];
            time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
          training: whether times are hidden.

        Returns:
          Fields <float32>[batch, candidate, field, dim], numbers <float32>[batch, candidate, n] and
          attention <float32>[batch, candidate, step]; without a step where there is none.
        """
        user, item = inputs["user"], inputs["item"]
        shape = tf.shape(item)

        def repeated(value: tf.Tensor) -> tf.Tensor:
            return tf.repeat(value, shape[1], axis=0)

        def flat(value: tf.Tensor) -> tf.Tensor:
            return tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], axis=0))

        def wide(value: tf.Tensor, width: int) -> tf.Tensor:
            return tf.reshape(value, [-1, width])

        each = user.shape.rank == 3
        fields = [wide(user, self.dim) if each else repeated(user), wide(item, self.dim)]
        numbers = inputs["numbers"]
        scaled = tf.concat([numbers[..., :1] * SCORE_SCALE, numbers[..., 1:]], axis=-1)
        dense = [wide(scaled, numbers.shape[-1])]
        modalities = inputs["modalities"]
        if self.content and modalities.shape[2]:
            fields += [wide(part, self.dim) for part in tf.unstack(modalities, axis=2)]
            count = modalities.shape[2]
            dense += [
                wide(
                    tf.einsum(f"{'bcd' if each else 'bd'},bcmd->bcm", user, modalities),
                    count,
                ),
                tf.cast(wide(inputs["present"], count), tf.float32),
                wide(inputs["weights"], count),
            ]
        if self.item_features is not None:
            features = {
                name: flat(inputs["item_features"][name]) for name in self.item_features.sizes
            }
            fields.append(self.item_features(features))
        if self.user_features is not None:
            fields.append(repeated(self.user_features(inputs["user_features"])))
        if self.attention is None:
            attention = tf.zeros([shape[0], shape[1], 0])
        else:
            pooled, attention = self.attention((item, inputs["history"], inputs["known"]))
            fields.append(wide(pooled, self.dim))
            dense.append(tf.reduce_sum(fields[-1] * fields[1], axis=1, keepdims=True))
        known = inputs["time"] > 0
        known &= keep(tf.shape(known), self.context_dropout, training)
        hours = inputs["time"] // _HOUR_SECONDS
        for layer, number in (
            (self.hour, hours % HOURS),
            # 1970 began on a Thursday; Monday is 0.
            (self.weekday, (hours // HOURS + 3) % DAYS),
        ):
            if layer is not None:
                fields.append(repeated(layer(tf.where(known, tf.cast(number, tf.int32), -1))))
        stacked, beside = tf.stack(fields, axis=1), tf.concat(dense, axis=1)
        return (
            tf.reshape(stacked, [shape[0], shape[1], len(fields), self.dim]),
            tf.reshape(beside, [shape[0], shape[1], beside.shape[1]]),
            attention,
        )
