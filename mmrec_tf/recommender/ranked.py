"""What a ranking model is asked, what it says, and what it learns from."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf


class Request(NamedTuple):
    """Whom candidates are ranked for.

    Attributes:
      queries: <float32>[batch, dim + 1], or with several interests <float32>[batch, interest,
        dim + 1], what `RetrievalModel.queries` returned.
      user: <int32>[batch], -1 for an unknown user.
      history: <int32>[batch, step], -1 for padding.
      gap: <float32>[batch, step], as in `Schema.batch_spec`.
      time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
      profile: <float32>[batch, features], encoded profile texts; None for the stored ones, or for
        a model that reads none.
      features: side features of the users by name, as in `SideFeatures.call`; None for the stored
        ones.
      past: <int32>[batch, any], what a head of items against items reads, -1 for padding; None for
        `history`.
    """

    queries: tf.Tensor
    user: tf.Tensor
    history: tf.Tensor
    gap: tf.Tensor
    time: tf.Tensor
    profile: tf.Tensor | None = None
    features: Mapping[str, tf.Tensor] | None = None
    past: tf.Tensor | None = None

    @property
    def whole(self) -> tf.Tensor:
        """<int32>[batch, any], all that is known of the histories."""
        return self.history if self.past is None else self.past


class Rows(NamedTuple):
    """Candidates that come with their own rows, as no table holds them.

    Attributes:
      vector: <float32>[batch, candidate, dim + 1], the embedding and the popularity bias, as
        `RetrievalModel.candidates` makes them.
      modalities: <float32>[batch, candidate, modality, dim].
      present: <bool>[batch, candidate, modality].
      weights: <float32>[batch, candidate, modality].
      features: side features by name, [batch, candidate, ...].
    """

    vector: tf.Tensor
    modalities: tf.Tensor
    present: tf.Tensor
    weights: tf.Tensor
    features: Mapping[str, tf.Tensor]


class Ranked(NamedTuple):
    """What is said of candidates.

    Attributes:
      score: <float32>[batch, candidate], what orders them.
      logits: by task, <float32>[batch, candidate]; of "rating" the rating itself.
      attention: <float32>[batch, candidate, step], how much each step of the history weighs; None
        for a model without target attention.
    """

    score: tf.Tensor
    logits: dict
    attention: tf.Tensor | None


class Lists(NamedTuple):
    """Training examples as lists of candidates, the example's own item first.

    Attributes:
      request: Request.
      item: <int32>[batch, candidate].
      retrieved: <float32>[batch, candidate], the retrieval model's scores.
      weight: <float32>[batch, candidate], 0 for what does not count.
      labels: by task, <float32>[batch, candidate].
    """

    request: Request
    item: tf.Tensor
    retrieved: tf.Tensor
    weight: tf.Tensor
    labels: dict
