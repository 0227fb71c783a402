"""What both stages say of the items that one request may be answered with."""

from typing import NamedTuple

import tensorflow as tf


class Candidates(NamedTuple):
    """What retrieval found and ranking says of it, in retrieval's order.

    Attributes:
      item: <int32>[batch, candidate].
      retrieved: <float32>[batch, candidate], retrieval's scores; `LOWEST_SCORE` for what must not
        be shown, and came up because nothing else was left.
      score: <float32>[batch, candidate], what orders them; `LOWEST_SCORE` stays.
      logit: <float32>[batch, candidate], of a click, not calibrated.
      rating: <float32>[batch, candidate], predicted; None for a model that predicts none.
      attention: as in `Ranked`.
      user: <float32>[batch, dim], the user's embedding, or with several interests <float32>[batch,
        candidate, dim], that which each candidate is scored by.
      nobody: <bool>[batch], whether nothing is known of the user.
    """

    item: tf.Tensor
    retrieved: tf.Tensor
    score: tf.Tensor
    logit: tf.Tensor
    rating: tf.Tensor | None
    attention: tf.Tensor | None
    user: tf.Tensor
    nobody: tf.Tensor
