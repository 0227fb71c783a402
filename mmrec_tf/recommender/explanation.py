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
    share = tf.einsum("bd,bcmd->bcm", shown.user, tf.gather(items["modalities"], item))
    share *= tf.gather(items["weights"], item)
    present = tf.gather(items["present"], item) & ~shown.nobody[:, None, None]
    share = tf.where(present, share, LOWEST_SCORE)
    # Where the highest is none that is present, it is this one.
    none = tf.fill(tf.shape(item), 0.5 * LOWEST_SCORE)[..., None]
    share = tf.concat([share, none], axis=2)
    weight = shown.attention
    if weight is None:
        dim = shown.user.shape[1]
        embedding = gather_rows(items["vector"], item)[..., :dim]
        read = gather_rows(items["vector"], tf.maximum(history, 0))[..., :dim]
        weight = tf.einsum("bcd,bsd->bcs", embedding, read)
    step = tf.argmax(tf.where(history[:, None, :] >= 0, weight, LOWEST_SCORE), axis=2)
    because = tf.gather(history, step, batch_dims=1)
    return tf.argmax(share, axis=2, output_type=tf.int32), because
