"""Why an item is shown: the modality and the item of the history that weighed most."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.recommender.candidates import Candidates
from mmrec_tf.retrieval.index import gather_rows
from mmrec_tf.schema import LOWEST_SCORE


def explain(
    shown: Candidates, history: tf.Tensor, items: Mapping[str, Any]
) -> tuple[tf.Tensor, tf.Tensor]:
    """What weighed most for each of some candidates.

    Args:
      shown: Candidates.
      history: <int32>[batch, step], -1 for padding.
      items: tables with one row an item: "vector" <float32>[item, at least dim], which begins with
        the item's embedding, "modalities" <float32>[item, modality, dim], "weights"
        <float32>[item, modality] and "present" <bool>[item, modality].

    Returns:
      The modality's place <int32>[batch, candidate], after the last one where there is none: that
      with the highest product of its weight in the item's fusion and its dot product with the
      user. And the history's item <int32>[batch, candidate], -1 for none: that with the highest
      target attention, or without such, the one that is most alike.
    """
    item = shown.item
    content = {n: tf.gather(items[n], item) for n in ("modalities", "weights", "present")}
    vectors = items["vector"]
    return explain_rows(shown, history, vectors, gather_rows(vectors, item), **content)


def explain_rows(
    shown: Candidates,
    history: tf.Tensor,
    catalog: tf.Tensor,
    vectors: tf.Tensor,
    *,
    modalities: tf.Tensor,
    weights: tf.Tensor,
    present: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same for candidates that come with their own rows, which may be in no table.

    Args:
      shown: Candidates.
      history: <int32>[batch, step], -1 for padding.
      catalog: <float32>[item, at least dim], whose rows begin with the items' embeddings.
      vectors: <float32>[batch, candidate, at least dim], the candidates' own.
      modalities: <float32>[batch, candidate, modality, dim].
      weights: <float32>[batch, candidate, modality].
      present: <bool>[batch, candidate, modality].

    Returns:
      As `explain`.
    """
    share = tf.einsum("bd,bcmd->bcm", shown.user, modalities) * weights
    share = tf.where(present & ~shown.nobody[:, None, None], share, LOWEST_SCORE)
    # Where the highest is none that is present, it is this one.
    none = tf.fill(tf.shape(vectors)[:2], 0.5 * LOWEST_SCORE)[..., None]
    share = tf.concat([share, none], axis=2)
    weight = shown.attention
    if weight is None:
        dim = shown.user.shape[1]
        read = gather_rows(catalog, tf.maximum(history, 0))[..., :dim]
        weight = tf.einsum("bcd,bsd->bcs", vectors[..., :dim], read)
    step = tf.argmax(tf.where(history[:, None, :] >= 0, weight, LOWEST_SCORE), axis=2)
    because = tf.gather(history, step, batch_dims=1)
    return tf.argmax(share, axis=2, output_type=tf.int32), because
