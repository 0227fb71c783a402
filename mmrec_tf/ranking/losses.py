"""Ranking losses: what the logits of a list of candidates cost.

All are called with logits, labels and weights <float32>[batch, candidate] and return
<float32>[batch]. A candidate of weight 0 is padding: whatever its logit and label are, it costs
nothing, and no gradient reaches it. A row of padding alone costs 0.
"""

from collections.abc import Callable

import tensorflow as tf

from mmrec_tf.schema import LOWEST_SCORE


def listwise_softmax_loss(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the softmax over a row's candidates (ListNet with top-one probabilities,
    Cao et al. 2007).

    Args:
      logits: <float32>[batch, candidate].
      labels: <float32>[batch, candidate], 1 for a positive, else 0. Several positives share the
        target equally.
      weights: <float32>[batch, candidate], 0 for padding; otherwise what they are means nothing.

    Returns:
      <float32>[batch]; 0 for a row without a positive.
    """
    known = weights > 0
    positive = tf.where(known, labels, 0.0)
    count = tf.reduce_sum(positive, axis=1, keepdims=True)
    losses = tf.keras.losses.categorical_crossentropy(
        tf.math.divide_no_nan(positive, count),
        tf.where(known, logits, LOWEST_SCORE),
        from_logits=True,
    )
    # The gradient takes it that targets sum to 1, and is not 0 where they are all 0.
    return tf.where(count[:, 0] > 0, losses, 0.0)


def pairwise_logistic_loss(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """-log sigmoid(one - other), the mean over all pairs of which the one has the higher label
    (RankNet, Burges et al. 2005, eq. 3).

    Args:
      logits: <float32>[batch, candidate].
      labels: <float32>[batch, candidate], 1 for a positive, else 0.
      weights: <float32>[batch, candidate], 0 for padding; otherwise what they are means nothing.

    Returns:
      <float32>[batch]; 0 for a row without a pair.
    """
    known = weights > 0
    pair = known[:, :, None] & known[:, None, :] & (labels[:, :, None] > labels[:, None, :])
    apart = tf.where(pair, logits[:, :, None] - logits[:, None, :], 0.0)
    pair = tf.cast(pair, tf.float32)
    total = tf.reduce_sum(pair * tf.nn.softplus(-apart), axis=[1, 2])
    return tf.math.divide_no_nan(total, tf.reduce_sum(pair, axis=[1, 2]))


def binary_loss(
    logits: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    *,
    positive_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> tf.Tensor:
    """Cross-entropy of each candidate by itself, easy ones fading (focal loss, Lin et al. 2017,
    eq. 4): a candidate counts (1 - p)^`focal_gamma`, p the probability of what it is.

    Args:
      logits: <float32>[batch, candidate].
      labels: <float32>[batch, candidate], 1 for a positive, else 0.
      weights: <float32>[batch, candidate], how much each counts in the mean; 0 for padding.
      positive_weight: float. What a positive's loss is multiplied with; the mean is over the
        `weights` alone.
      focal_gamma: float. 0 for the plain cross-entropy.

    Returns:
      <float32>[batch], the weighted mean.
    """
    known = weights > 0
    logits, labels = tf.where(known, logits, 0.0), tf.where(known, labels, 0.0)
    # -log(1 - p) and -log p. The power is taken of their exponentials: that of a p that has been
    # rounded to 0 or 1 has no finite gradient.
    no, yes = tf.nn.softplus(logits), tf.nn.softplus(-logits)
    positive = labels * positive_weight * tf.exp(-focal_gamma * no) * yes
    negative = (1.0 - labels) * tf.exp(-focal_gamma * yes) * no
    return _mean(positive + negative, weights)


def squared_loss(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Squared error, for ratings.

    Args:
      logits: <float32>[batch, candidate], the predicted ratings.
      labels: <float32>[batch, candidate], the ratings.
      weights: <float32>[batch, candidate], how much each counts in the mean; 0 for padding, and
        where no rating is known.

    Returns:
      <float32>[batch], the weighted mean.
    """
    return _mean(tf.square(tf.where(weights > 0, logits - labels, 0.0)), weights)


def _mean(losses: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    total = tf.reduce_sum(weights * losses, axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, axis=1))


# By `ranking.loss`; each is called with logits, labels, weights and the settings of ranking.
LOSSES: dict[str, Callable] = {
    "listwise": lambda logits, labels, weights, settings: listwise_softmax_loss(
        logits, labels, weights
    ),
    "pairwise": lambda logits, labels, weights, settings: pairwise_logistic_loss(
        logits, labels, weights
    ),
    "binary": lambda logits, labels, weights, settings: binary_loss(
        logits,
        labels,
        weights,
        positive_weight=settings.positive_weight,
        focal_gamma=settings.focal_gamma,
    ),
}
