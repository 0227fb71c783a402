"""An item to a vector: encoded modalities, aligned and fused, its id and its side features."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mmrec_tf.config import FITTED, SHARED, Config
from mmrec_tf.dataset import draws
from mmrec_tf.schema import Schema
from mmrec_tf.towers.alignment import Alignment
from mmrec_tf.towers.embeddings import IdEmbedding, SideFeatures, keep, unit
from mmrec_tf.towers.fusion import build_fusion
from mmrec_tf.towers.missing import MissingModality


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
        modalities: Sequence[str] = (),
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
        **kwargs: Any,
    ) -> None:
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
        self.drop = draws.Dropout(dropout, **policy)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_experiment(cls, config: Config, schema: Schema, **kwargs: Any) -> "ItemTower":
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
                "kinds": config.alignment.kinds,
                "hidden": config.alignment.hidden,
                "temperature": config.alignment.temperature,
                "trainable_maps": config.alignment.trainable,
                "l2": config.alignment.l2,
                "collaborative": config.alignment.collaborative,
                "shares": _shared_projections(config, schema),
            },
            # What is to be foretold is not read.
            feature_sizes=SideFeatures.sizes_of(
                {n: s for n, s in schema.item_features.items() if n not in config.labels.names}
            )
            if config.item.features
            else {},
            **kwargs,
        )

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> TowerOutput:
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


def _shared_projections(config: Config, schema: Schema) -> tuple[int, ...] | None:
    """The `shares` of `Alignment`: modalities whose encoder is one, such as CLIP's two halves, lie
    in one space already, which one projection keeps."""
    names = schema.select(config.modalities)
    kinds = [schema.modalities[name].kind for name in names]
    together = [kind in SHARED and getattr(config, kind).family in SHARED[kind] for kind in kinds]
    if sum(together) < 2 or not set(FITTED).isdisjoint(config.alignment.kinds):
        return None
    first = together.index(True)
    return tuple(first if one else place for place, one in enumerate(together))
