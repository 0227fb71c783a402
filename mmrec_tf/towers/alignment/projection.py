"""The projections of an item's modalities to one unit sphere."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.config import ALIGNMENTS, FITTED
from mmrec_tf.errors import ConfigError
from mmrec_tf.towers.alignment.closed_form import (
    CLOSED_FORMS,
    cross_validated_l2,
    moments,
    principal_components,
)
from mmrec_tf.towers.alignment.contrastive import collaborative_loss, contrastive_loss


class Fit(NamedTuple):
    """How a projection was fitted.

    Attributes:
      num_items: to how many items; 0 where the projection stayed as it was.
      l2: the penalty, in units of a feature's variance; None where none was used.
    """

    num_items: int
    l2: float | None


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Alignment(tf.keras.layers.Layer):
    """Projects each modality to a common unit sphere.

    Args:
      dim: int. Width of the common space.
      kinds: tuple of str, as in `mmrec_tf.config`. "ridge", "cca" and "procrustes" ask for a call
        of `fit` or `fit_to_modality`; "graph" has its loss in `TranslationLoss`.
      hidden: int. Width of a hidden layer of each projection; 0 for a linear one.
      temperature: float. Initial temperature of the contrastive losses; learned, kept above 0.01
        as in CLIP (Radford et al. 2021).
      trainable_maps: bool. Whether gradients change the projections.
      l2: float. Penalty of "ridge" and "cca" in units of a feature's variance; None for that of
        `cross_validated_l2`.
      collaborative: float. Weight of `collaborative_loss` beside `contrastive_loss`.
      shares: for each modality the place of the one whose projection it has, its own or an earlier
        one's of the same width; None for one of its own for each. What lies near each other before
        a shared projection does so behind it. Not with a kind that is fitted, which finds a
        projection for each.

    Raises:
      ConfigError: for an unknown kind, two that are fitted, or a hidden layer in a projection that
        is to be fitted.
    """

    def __init__(
        self,
        dim: int,
        *,
        kinds: Sequence[str] = ("contrastive",),
        hidden: int = 0,
        temperature: float = 0.1,
        trainable_maps: bool = True,
        l2: float | None = None,
        collaborative: float = 0.0,
        shares: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for kind in kinds:
            if kind not in ALIGNMENTS:
                raise ConfigError(
                    f"alignment: wanted kinds of {', '.join(ALIGNMENTS)}; got {kind!r}."
                )
        fitted = [kind for kind in kinds if kind in FITTED]
        if len(fitted) > 1:
            raise ConfigError(
                f"alignment: wanted at most one of {', '.join(FITTED)}; got {', '.join(fitted)}."
            )
        if fitted and hidden:
            raise ConfigError(
                f"alignment: wanted hidden 0 with {fitted[0]!r}, whose projections are linear; "
                f"got {hidden}."
            )
        self.dim = dim
        self.kinds = tuple(kinds)
        self.fitted = fitted[0] if fitted else None
        self.hidden = hidden
        self.temperature = temperature
        self.trainable_maps = trainable_maps
        self.l2 = l2
        self.collaborative = collaborative
        self.shares = None if shares is None else tuple(shares)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "kinds": self.kinds,
            "hidden": self.hidden,
            "temperature": self.temperature,
            "trainable_maps": self.trainable_maps,
            "l2": self.l2,
            "collaborative": self.collaborative,
            "shares": self.shares,
        }

    def build(self, input_shape: Any) -> None:
        self.projections: list[Any] = []
        for i, shape in enumerate(input_shape):
            if self.shares is not None and self.shares[i] != i:
                self.projections.append(self.projections[self.shares[i]])
                continue
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
            projection.trainable = self.trainable_maps
            self.projections.append(projection)
        if "contrastive" in self.kinds:
            self.log_temperature = self.add_weight(
                name="log_temperature",
                shape=[],
                initializer=tf.keras.initializers.Constant(float(tf.math.log(self.temperature))),
                dtype=tf.float32,
            )
        super().build(input_shape)

    def call(self, features: Sequence, present: tf.Tensor) -> tf.Tensor:
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

    def fit(
        self,
        features: Sequence[np.ndarray],
        present: np.ndarray,
        target: np.ndarray,
        known: np.ndarray,
    ) -> list[Fit]:
        """Sets each projection to the closed form that `kinds` names, see `closed_form`.

        Any number of items gives finite weights. A modality that fewer than two known items have
        has no covariance with anything: its projection stays as it was. With few items "ridge" and
        "cca" lean on `l2`, "procrustes" on a rotation that is partly arbitrary. Where no feature
        varies, every item is placed at the target's mean.

        Args:
          features: one <float32>[item, features] per modality.
          present: <bool>[item, modality].
          target: <float32>[item, dim].
          known: <bool>[item], items whose target means something: those with train interactions.

        Returns:
          A Fit for each modality.

        Raises:
          ConfigError: where no kind is fitted.
          RunError: for a feature or a target that is not finite.
        """
        self._prepare_to_fit(features)
        return [
            self._fit_one(i, values, target, np.flatnonzero(present[:, i] & known))
            for i, values in enumerate(features)
        ]

    def fit_to_modality(
        self,
        features: Sequence[np.ndarray],
        present: np.ndarray,
        index: int,
        known: np.ndarray,
    ) -> list[Fit]:
        """Maps the modalities to one of them (Lazaridou et al. 2014), each over the items that have
        both: that one is projected to its principal components, and the others are fitted to what
        it became, as by `fit`.

        Args:
          features: one <float32>[item, features] per modality.
          present: <bool>[item, modality].
          index: the modality that the others are mapped to.
          known: <bool>[item], items to fit to: those with train interactions.

        Returns, raises: as `fit`.
        """
        self._prepare_to_fit(features)
        both = known & present[:, index]
        rows, values = np.flatnonzero(both), features[index]
        if len(rows) < 2:
            return [Fit(0, None)] * len(features)
        # Of a target without columns, as only the features' moments are read.
        of_rows = moments(values, values[:, :0], rows)
        kernel = principal_components(of_rows, self.dim)
        bias = -of_rows.feature_mean @ kernel
        self.projections[index].set_weights([kernel, bias])
        target = (values @ kernel.astype(np.float32)) + bias.astype(np.float32)
        return [
            Fit(len(rows), None)
            if i == index
            else self._fit_one(i, values, target, np.flatnonzero(present[:, i] & both))
            for i, values in enumerate(features)
        ]

    def _prepare_to_fit(self, features: Sequence[np.ndarray]) -> None:
        if self.fitted is None:
            raise ConfigError(
                f"alignment: wanted one of {', '.join(FITTED)} among the kinds to fit; got "
                f"{', '.join(self.kinds) or 'none'}."
            )
        if not self.built:
            self.build([value.shape for value in features])

    def _fit_one(self, index: int, values: np.ndarray, target: np.ndarray, rows: np.ndarray) -> Fit:
        """Fits the projection of a modality to the target of some items."""
        if len(rows) < 2:
            return Fit(0, None)
        of_rows = moments(values, target, rows)
        l2 = self.l2
        if self.fitted == "procrustes":
            l2 = None
        elif l2 is None:
            l2, _ = cross_validated_l2(of_rows)
        kernel = CLOSED_FORMS[str(self.fitted)](of_rows, l2=l2)
        bias = of_rows.target_mean - of_rows.feature_mean @ kernel
        self.projections[index].set_weights([kernel, bias])
        return Fit(len(rows), l2)

    def loss(
        self,
        modalities: tf.Tensor,
        present: tf.Tensor,
        *,
        item: tf.Tensor | None = None,
        collaborative: tf.Tensor | None = None,
        has_collaborative: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What pulls the modalities of an item together, at the learned temperature.

        Args:
          modalities, present, item: as in `contrastive_loss`.
          collaborative, has_collaborative: as in `collaborative_loss`; None for without.

        Returns:
          <float32>[]: `contrastive_loss` plus `collaborative` times `collaborative_loss`; 0 without
          "contrastive" among the kinds.
        """
        if "contrastive" not in self.kinds:
            return tf.constant(0.0)
        temperature = tf.maximum(tf.exp(self.log_temperature), 0.01)
        loss = contrastive_loss(modalities, present, temperature=temperature, item=item)
        if collaborative is not None and self.collaborative:
            loss += self.collaborative * collaborative_loss(
                modalities,
                present,
                collaborative,
                has_collaborative,
                temperature=temperature,
                item=item,
            )
        return loss
