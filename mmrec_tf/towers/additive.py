"""Embeddings as sums: what each modality, id, feature and item of a history adds to a vector.

Both towers end in a sum that is scaled to unit length. The scale is the same for all that was
summed, so that each of it, scaled likewise, adds to the embedding, and its dot product with the
other side to the score (layer-wise linear decomposition, as of Kobayashi et al. 2020 for norms of
attention). Before the sum,

- "mean", "weighted", "gated" and "attention" fusion are sums of weighted modalities, and "concat"
  one of maps of them and a constant: these are the parts, with the weights that were given;
- any other fusion is no sum; its parts are the Shapley values of the modalities, exact, over the
  vector that it makes of each subset (Shapley 1953; Lundberg and Lee 2017, for models), with more
  than six modalities over drawn orders;
- "mean" and "attention" histories without a hidden layer are sums over their steps;
- any other history is no sum; its parts are Shapley values of the steps, exact for up to six, else
  over drawn orders, whose sum is exact (`mmrec_tf.towers.shapley`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.towers import shapley
from mmrec_tf.towers.embeddings import gap_number
from mmrec_tf.towers.fusion import Concat, Mean
from mmrec_tf.towers.item import ItemTower
from mmrec_tf.towers.masking import blank
from mmrec_tf.towers.user import UserTower

ID, FEATURES, CONSTANT, PROFILE = "id", "features", "constant", "profile"
# As of `unit`.
_EPSILON = 1e-8


class Parts(NamedTuple):
    """What an embedding is the sum of.

    Attributes:
      names: of the parts.
      vectors: <float32>[batch, part, dim], which sum to the embedding.
    """

    names: tuple[str, ...]
    vectors: np.ndarray


def scaled_parts(parts: np.ndarray) -> np.ndarray:
    """Parts <float>[batch, part, dim] of what is summed -> of its unit vector, as `unit` scales."""
    parts = np.asarray(parts, np.float64)
    square = np.square(parts.sum(axis=1)).sum(axis=-1)
    return parts / np.sqrt(np.maximum(square, _EPSILON))[:, None, None]


def is_weighted_sum(fusion: tf.keras.layers.Layer) -> bool:
    """Whether a fusion's vector is the sum of the modalities, each times its weight."""
    return isinstance(fusion, Mean)


def fusion_parts(
    fusion: tf.keras.layers.Layer, modalities: tf.Tensor, present: tf.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """What each modality adds to what a fusion makes.

    Args:
      fusion: of `mmrec_tf.towers.fusion.FUSIONS`, built.
      modalities: <float32>[batch, modality, dim].
      present: <bool>[batch, modality].

    Returns:
      <float64>[batch, modality, dim], zeros where absent, and what no modality adds, a constant,
      <float64>[batch, dim].
    """
    if is_weighted_sum(fusion):
        weights = tf.cast(fusion(modalities, present)[1], tf.float32)
        added = weights[..., None] * tf.cast(blank(modalities, present), tf.float32)
        return np.asarray(added, np.float64), np.zeros([len(added), added.shape[2]])
    if isinstance(fusion, Concat):
        added = tf.einsum("bmd,mde->bme", blank(modalities, present), fusion.kernel)
        added = blank(added + fusion.presence, present)
        some = tf.cast(tf.reduce_any(present, axis=1, keepdims=True), tf.float32)
        return np.asarray(added, np.float64), np.asarray(some * fusion.bias, np.float64)

    def value(sets: np.ndarray) -> np.ndarray:
        """<bool>[set, modality] -> <float64>[set, batch, dim]."""
        made = [fusion(modalities, present & members[None, :])[0] for members in sets]
        return np.stack([np.asarray(vector, np.float64) for vector in made])

    # Without any modality a fusion makes zeros, so there is no constant.
    found = np.moveaxis(shapley.estimate(value, int(modalities.shape[1])), 0, 1)
    return found, np.zeros([found.shape[0], found.shape[2]])


def item_parts(
    tower: ItemTower, inputs: Mapping[str, Any], *, aligned: tf.Tensor | None = None
) -> Parts:
    """What an item's embedding is the sum of.

    Args:
      tower: ItemTower.
      inputs: as for its call; without "encoded" where `aligned` is given.
      aligned: <float32>[batch, modality, dim], `TowerOutput.modalities` of the items; None to
        align what was encoded.

    Returns:
      Parts: each modality by name; a modality that an item lacks has what stands in for it, zeros
      without such; then "id", "features" and "constant", all three always.

    Raises:
      ConfigError: for a tower that is not called as `ItemTower` is, of which nothing is known.
    """
    require_plain(tower, ItemTower)
    batch, dim = len(inputs["item"]), tower.dim
    zeros = np.zeros([batch, dim])
    modalities, constant, ids, features = np.zeros([batch, 0, dim]), zeros, zeros, zeros
    if tower.modalities:
        present = tf.convert_to_tensor(inputs["present"])
        if aligned is None:
            aligned = tower.alignment([inputs["encoded"][n] for n in tower.modalities], present)
        seen, usable = tower.missing(aligned, present, present, training=False)
        modalities, constant = fusion_parts(tower.fusion, seen, usable)
    if tower.id_embedding is not None:
        ids = np.asarray(tower.id_embedding(inputs["item"]), np.float64)
    if tower.features is not None:
        features = np.asarray(tower.features(inputs["features"]), np.float64)
    parts = np.concatenate([modalities, np.stack([ids, features, constant], axis=1)], axis=1)
    names = (*tower.modalities, ID, FEATURES, CONSTANT)
    return Parts(names, scaled_parts(parts).astype(np.float32))


def user_parts(tower: UserTower, inputs: Mapping[str, Any], *, interest: int = 0) -> Parts:
    """What the embedding of one user is the sum of.

    Args:
      tower: UserTower.
      inputs: as for its call, of a batch of one.
      interest: which of the tower's vectors, where it makes several.

    Returns:
      Parts: each step of the history, by its place as a string, zeros where there is none; then
      "id", "profile", "features" and "constant", where a user of whom nothing is known ends up.

    Raises:
      ConfigError: for another tower, of which nothing is known, or another number of users.
    """
    require_plain(tower, UserTower)
    if len(inputs["user"]) != 1:
        raise ConfigError(f"user_parts: wanted one user; got {len(inputs['user'])}.")
    steps = int(inputs["known"].shape[1])
    pooled_zero = tf.zeros([1, tower.dim], tower.compute_dtype)
    constant = np.asarray(_projected(tower, pooled_zero), np.float64)[0]
    history = np.zeros([steps, tower.dim])
    if tower.history != "none":
        read = tf.cast(inputs["history"], tower.compute_dtype)
        if tower.gaps is not None:
            read += tower.gaps(gap_number(inputs["gap"]))
        known = np.asarray(inputs["known"])[0]
        history[known] = _history_parts(tower, read, known, interest)
    more = [np.zeros([tower.dim])] * 3
    if tower.id_embedding is not None:
        more[0] = np.asarray(tower.id_embedding(inputs["user"]), np.float64)[0]
    if tower.profile is not None:
        more[1] = np.asarray(tower.profile(inputs["profile"]), np.float64)[0]
    if tower.features is not None:
        more[2] = np.asarray(tower.features(inputs["features"]), np.float64)[0]
    parts = np.concatenate([history, np.stack([*more, constant])])
    names = (*map(str, range(steps)), ID, PROFILE, FEATURES, CONSTANT)
    return Parts(names, scaled_parts(parts[None]).astype(np.float32))


def _projected(tower: UserTower, pooled: tf.Tensor) -> tf.Tensor:
    total = tower.project(pooled)
    return total if tower.hidden is None else total + tower.hidden(pooled)


def _history_parts(
    tower: UserTower, read: tf.Tensor, known: np.ndarray, interest: int
) -> np.ndarray:
    """What each known step of one history adds, <float64>[known step, dim]."""
    places = np.flatnonzero(known)

    def value(members: np.ndarray) -> np.ndarray:
        """The vectors that some of the steps make, <bool>[set, step] -> <float>[set, dim]."""
        shown = np.zeros([len(members), len(known)], bool)
        shown[:, places] = members
        repeated = tf.repeat(read, len(members), axis=0)
        pooled = tower.pool(repeated, tf.constant(shown))
        if tower.interests > 1:
            pooled = pooled[:, interest]
        return np.asarray(_projected(tower, pooled), np.float64)

    if tower.hidden is not None or tower.history not in ("mean", "attention"):
        return shapley.estimate(value, len(places))
    weight = np.full([len(places)], 1.0 / max(len(places), 1))
    if tower.history == "attention":
        weights = np.asarray(tower.attention_weights(read, tf.constant(known[None])))[0]
        weight = (weights[interest] if tower.interests > 1 else weights)[places]
    # The projection without its bias, which is the constant.
    kernel = np.asarray(tower.project.kernel, np.float64)
    return weight[:, None] * (np.asarray(read, np.float64)[0][places] @ kernel)


def is_plain(tower: tf.keras.layers.Layer, kind: type) -> bool:
    """Whether a tower is called as `kind`, ItemTower or UserTower, is."""
    return getattr(type(tower), "call", None) is kind.call  # type: ignore[attr-defined]


def require_plain(tower: tf.keras.layers.Layer, kind: type) -> None:
    """Refuses a tower that someone has written anew.

    Raises:
      ConfigError: for one that is called otherwise than `kind`.
    """
    if not is_plain(tower, kind):
        raise ConfigError(
            f"explain: wanted a tower that is called as {kind.__name__} is, whose parts are known; "
            f"got {type(tower).__name__}. Explain a model without a tower of your own."
        )
