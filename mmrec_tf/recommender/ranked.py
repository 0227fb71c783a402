"""What a ranking model is asked, what it says, and what it learns from."""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from mmrec_tf.config import Config


class Request(NamedTuple):
    """Whom candidates are ranked for.

    Attributes:
      queries: <float32>[batch, dim + 1], what `RetrievalModel.queries` returned.
      user: <int32>[batch], -1 for an unknown user.
      history: <int32>[batch, step], -1 for padding.
      gap: <float32>[batch, step], as in `Schema.batch_spec`.
      time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
    """

    queries: tf.Tensor
    user: tf.Tensor
    history: tf.Tensor
    gap: tf.Tensor
    time: tf.Tensor


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


class Ranking(Protocol):
    """What a recommender needs of a ranking model.

    Attributes:
      config: Config.
      variables: the weights, which an export holds.
      binary: names of the tasks whose output is a logit.
      click_shift: float, what to add to the logit of a click where negatives were drawn.
    """

    config: Config
    binary: list[str]
    variables: list

    @property
    def click_shift(self) -> float: ...

    def rank(self, request: Request, item: Any, items: dict, score: Any) -> Ranked:
        """What the model says of candidates, see `mmrec_tf.ranking.RankingModel.rank`."""
        ...
