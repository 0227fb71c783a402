"""InfoNCE within an item: among its modalities, and between each of them and its id embedding."""

from collections.abc import Sequence

import tensorflow as tf

MIN_LOGIT = -1e9


def contrastive_loss(
    modalities: tf.Tensor,
    present: tf.Tensor,
    *,
    temperature: tf.Tensor,
    item: tf.Tensor | None = None,
) -> tf.Tensor:
    """InfoNCE among the present modalities of an item (van den Oord et al. 2018, eq. 4),
    symmetric over each pair of modalities as in CLIP (Radford et al. 2021).

    For a pair (a, b), an item that has both must find its own b among the b of all items of the
    batch that have one, by cosine, and the other way round.

    Args:
      modalities: <float32>[batch, modality, dim], unit length where present.
      present: <bool>[batch, modality].
      temperature: <float32>[].
      item: <int32>[batch] item numbers, where an item may stand in the batch more than once: its
        repetitions are no negatives of each other.

    Returns:
      <float32>[]: the mean over pairs and items; 0 where no item has two modalities.
    """
    num_modalities = modalities.shape[1]
    pairs = [
        _sides(
            modalities[:, a],
            modalities[:, b],
            present[:, a],
            present[:, b],
            temperature=temperature,
            item=item,
        )
        for a in range(num_modalities)
        for b in range(a + 1, num_modalities)
    ]
    return _mean(pairs)


def collaborative_loss(
    modalities: tf.Tensor,
    present: tf.Tensor,
    collaborative: tf.Tensor,
    has_collaborative: tf.Tensor,
    *,
    temperature: tf.Tensor,
    item: tf.Tensor | None = None,
) -> tf.Tensor:
    """InfoNCE between each present modality of an item and what interactions say of it (CLCRec,
    Wei et al. 2021), symmetric as `contrastive_loss`.

    No gradient reaches `collaborative`: it is the side that interactions teach, and that content
    learns to predict. Pulled the other way, id embeddings would give up what content cannot tell,
    and that is what an item has them for.

    Args:
      modalities: <float32>[batch, modality, dim], unit length where present.
      present: <bool>[batch, modality].
      collaborative: <float32>[batch, dim] of any length, the items' id embeddings.
      has_collaborative: <bool>[batch], False for an item without train interactions, whose id
        embedding says nothing.
      temperature: <float32>[].
      item: <int32>[batch], as in `contrastive_loss`.

    Returns:
      <float32>[]: the mean over modalities and items; 0 where no item has both sides.
    """
    target = tf.stop_gradient(tf.cast(collaborative, tf.float32))
    target = tf.math.l2_normalize(target, axis=-1, epsilon=1e-8)
    pairs = [
        _sides(
            modalities[:, a],
            target,
            present[:, a],
            has_collaborative,
            temperature=temperature,
            item=item,
        )
        for a in range(modalities.shape[1])
    ]
    return _mean(pairs)


def _sides(
    a: tf.Tensor,
    b: tf.Tensor,
    has_a: tf.Tensor,
    has_b: tf.Tensor,
    *,
    temperature: tf.Tensor,
    item: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both directions of InfoNCE between a and b, each <float32>[batch, dim]: the sum of the
    losses and how many they are, <float32>[] each."""
    batch = tf.shape(a)[0]
    same = tf.eye(batch, dtype=tf.bool)
    repeated = tf.zeros([batch, batch], tf.bool)
    if item is not None:
        repeated = tf.equal(item[:, None], item[None, :]) & ~same
    logits = tf.matmul(a, b, transpose_b=True) / temperature
    both = tf.cast(has_a & has_b, tf.float32)
    total = tf.constant(0.0)
    for values, candidate in ((logits, has_b), (tf.transpose(logits), has_a)):
        allowed = (candidate[None, :] & ~repeated) | same
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.range(batch), logits=tf.where(allowed, values, MIN_LOGIT)
        )
        total += tf.reduce_sum(loss * both)
    return total, 2 * tf.reduce_sum(both)


def _mean(pairs: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    total = tf.add_n([tf.constant(0.0), *(total for total, _ in pairs)])
    count = tf.add_n([tf.constant(0.0), *(count for _, count in pairs)])
    return tf.math.divide_no_nan(total, count)
