"""Why an item is shown: the modality, its value, and the item of the history that weighed most.

In the graph, for all that is shown; `mmrec_tf.recommender.contributions` takes single scores apart.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.recommender.candidates import Candidates
from mmrec_tf.retrieval.index import gather_rows
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import LOWEST_SCORE


def heaviest_values(retrieval: RetrievalModel) -> np.ndarray | None:
    """Which of its values, such as the pictures of a gallery, counts most in each item.

    That follows from the item alone, whoever asks, so that it is looked up and not computed.

    Returns:
      <int32>[item, modality + 1], the place among the item's distinct values, the first of equal
      ones; -1 where the item has none, where all count alike, and in the last column, which stands
      for no modality. None where all of all modalities count alike (`item.values_pooling`).
    """
    weights = {
        place: found
        for place, name in enumerate(retrieval.modalities)
        if (found := retrieval.value_weights(name)) is not None
    }
    if not weights:
        return None
    table = np.full([retrieval.schema.num_items, len(retrieval.modalities) + 1], -1, np.int32)
    for place, each in weights.items():
        table[:, place] = np.where(each.any(axis=1), each.argmax(axis=1), -1)
    return table


def explain(
    shown: Candidates, history: tf.Tensor, items: Mapping[str, Any]
) -> tuple[tf.Tensor, tf.Tensor]:
    """What weighed most for each of some candidates.

    Args:
      shown: Candidates.
      history: <int32>[batch, step], -1 for padding.
      items: tables with one row an item: "vector" <float32>[item, at least dim], which begins with
        the item's embedding, "modalities" <float32>[item, modality, dim], "weights"
        <float32>[item, modality] and "present" <bool>[item, modality]; and "reasons", tables as
        `mmrec_tf.retrieval.embedding_parts.reason_tables` has them; without any of these no id is
        known to weigh anything.

    Returns:
      The modality's place <int32>[batch, candidate], after the last one where none is named: that
      which adds the most to the dot product with the user, if the id adds less, and it adds
      anything at all. And the history's item <int32>[batch, candidate], -1 for none: that with the
      highest target attention, or without such, the one that is most alike.
    """
    item, vectors, reasons = shown.item, items["vector"], items["reasons"]
    weight: tf.Tensor | float = 1.0
    if "parts" in reasons:
        vector = tf.gather(reasons["parts"], item)
    else:
        vector = tf.gather(items["modalities"], item)
        weight = tf.gather(items["weights"], item)
        if "scale" in reasons:
            weight *= tf.gather(reasons["scale"], item)[..., None]
    of_id = None
    if "id" in reasons:
        of_id = _products(shown.user, tf.gather(reasons["id"], item))
    return explain_rows(
        shown,
        history,
        vectors,
        gather_rows(vectors, item),
        modalities=vector,
        weights=weight,
        present=tf.gather(items["present"], item),
        of_id=of_id,
    )


def explain_rows(
    shown: Candidates,
    history: tf.Tensor,
    catalog: tf.Tensor,
    vectors: tf.Tensor,
    *,
    modalities: tf.Tensor,
    weights: tf.Tensor | float,
    present: tf.Tensor,
    of_id: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same for candidates that come with their own rows, which may be in no table.

    Args:
      shown: Candidates.
      history: <int32>[batch, step], -1 for padding.
      catalog: <float32>[item, at least dim], whose rows begin with the items' embeddings.
      vectors: <float32>[batch, candidate, at least dim], the candidates' own.
      modalities: <float32>[batch, candidate, modality, dim].
      weights: <float32>[batch, candidate, modality], or one for all.
      present: <bool>[batch, candidate, modality].
      of_id: <float32>[batch, candidate], what the id adds to the dot product; None for nothing.

    Returns:
      As `explain`.
    """
    share = _products(shown.user, modalities) * weights
    none = tf.zeros(tf.shape(vectors)[:2])
    if of_id is not None:
        none = tf.maximum(none, of_id)
    named = present & (share > none[..., None]) & ~shown.nobody[:, None, None]
    share = tf.where(named, share, LOWEST_SCORE)
    # Where the highest is none that may be named, it is this one.
    last = tf.fill(tf.shape(none), 0.5 * LOWEST_SCORE)[..., None]
    share = tf.concat([share, last], axis=2)
    weight = shown.attention
    if weight is None:
        dim = shown.user.shape[-1]
        read = gather_rows(catalog, tf.maximum(history, 0))[..., :dim]
        weight = tf.einsum("bcd,bsd->bcs", vectors[..., :dim], read)
    step = tf.argmax(tf.where(history[:, None, :] >= 0, weight, LOWEST_SCORE), axis=2)
    because = tf.gather(history, step, batch_dims=1)
    return tf.argmax(share, axis=2, output_type=tf.int32), because


def _products(user: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
    """The dot products of users, as `Candidates.user` has them, with what candidates consist of,
    <float32>[batch, candidate, ..., dim] -> <float32>[batch, candidate, ...]."""
    left = "bcd" if user.shape.rank == 3 else "bd"
    more = "m" if parts.shape.rank == 4 else ""
    return tf.einsum(f"{left},bc{more}d->bc{more}", user, parts)
