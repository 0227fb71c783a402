"""The projections of an item's modalities to one unit sphere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import ALIGNMENTS
from mmrec_tf.errors import ConfigError
from mmrec_tf.towers.alignment.closed_form import CLOSED_FORMS, moments
from mmrec_tf.towers.alignment.contrastive import collaborative_loss, contrastive_loss


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Alignment(tf.keras.layers.Layer):
    """Projects each modality to a common unit sphere.

    Args:
      dim: int. Width of the common space.
      kind: str, as in `mmrec_tf.config`. "ridge", "cca" and "procrustes" ask for a call of `fit`;
        "graph" has its loss in `TranslationLoss`.
      hidden: int. Width of a hidden layer of each projection; 0 for a linear one.
      temperature: float. Initial temperature of the contrastive losses; learned, kept above 0.01
        as in CLIP (Radford et al. 2021).
      trainable_maps: bool. Whether gradients change the projections.
      l2: float. Penalty of "ridge" and "cca" in units of a feature's variance.
      collaborative: float. Weight of `collaborative_loss` beside `contrastive_loss`.

    Raises:
      ConfigError: for an unknown kind, or a hidden layer in a projection that is to be fitted.
    """

    def __init__(
        self,
        dim: int,
        *,
        kind: str = "contrastive",
        hidden: int = 0,
        temperature: float = 0.1,
        trainable_maps: bool = True,
        l2: float = 1.0,
        collaborative: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in ALIGNMENTS:
            raise ConfigError(f"alignment: wanted one of {', '.join(ALIGNMENTS)}; got {kind!r}.")
        if kind in CLOSED_FORMS and hidden:
            raise ConfigError(
                f"alignment: wanted hidden 0 with kind {kind!r}, whose projections are linear; "
                f"got {hidden}."
            )
        self.dim = dim
        self.kind = kind
        self.hidden = hidden
        self.temperature = temperature
        self.trainable_maps = trainable_maps
        self.l2 = l2
        self.collaborative = collaborative

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "kind": self.kind,
            "hidden": self.hidden,
            "temperature": self.temperature,
            "trainable_maps": self.trainable_maps,
            "l2": self.l2,
            "collaborative": self.collaborative,
        }

    def build(self, input_shape: Any) -> None:
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
            projection.trainable = self.trainable_maps
            self.projections.append(projection)
        if self.kind == "contrastive":
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
    ) -> np.ndarray:
        """Sets each projection to the closed form that `kind` names, see `closed_form`.

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
          <int64>[modality], how many items each projection was fitted to; 0 where it stayed.

        Raises:
          ConfigError: for a kind that is not fitted.
          RunError: for a feature or a target that is not finite.
        """
        if self.kind not in CLOSED_FORMS:
            raise ConfigError(
                f"alignment: wanted kind {', '.join(CLOSED_FORMS)} to fit; got {self.kind!r}."
            )
        if not self.built:
            self.build([value.shape for value in features])
        counts = []
        for i, (projection, values) in enumerate(zip(self.projections, features, strict=True)):
            rows = np.flatnonzero(present[:, i] & known)
            if len(rows) < 2:
                counts.append(0)
                continue
            of_rows = moments(values, target, rows)
            kernel = CLOSED_FORMS[self.kind](of_rows, l2=self.l2)
            projection.set_weights([kernel, of_rows.target_mean - of_rows.feature_mean @ kernel])
            counts.append(len(rows))
        return np.array(counts, np.int64)

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
          <float32>[]: `contrastive_loss` plus `collaborative` times `collaborative_loss`; 0 for any
          other kind than "contrastive".
        """
        if self.kind != "contrastive":
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
