"""Numbers that say more of a user and a candidate than their vectors do (`ranking.signals`)."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.ranked import Request, Rows
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_similarity import fit_co_occurrence
from mmrec_tf.towers import unit
from mmrec_tf.towers.user import steps_from_newest

# Items that each item's co-occurrence is known with.
NUM_NEIGHBORS = 50
# What each item of a history counts less than the one after it, for recency.
DECAY = 0.8
# The share of train, by time, that says what is on the rise.
RECENT_SHARE = 0.1
# Logits of a head run to a few tens, as those of towers.
HEAD_SCALE = 0.1


class Signals(tf.Module):
    """The numbers that `ranking.signals` asks for, computed from what train holds.

    - "neighbors": the highest and the mean cosine of the candidate with the history's items;
    - "recency": its cosine with the newest of them, and the mean in which each counts `DECAY` times
      as much as the one after it;
    - "modalities": by modality, the cosine of the candidate with the mean of the history's items
      that have it;
    - "head": what the head of items against items adds to the score;
    - "co_occurrence": the sum over the history of how often train users met both, by the cosine
      count(h, i) / sqrt(count(h) count(i)) of the `NUM_NEIGHBORS` strongest of each h;
    - "trend": log of how often the last `RECENT_SHARE` of train by time met the item, against what
      its share of train lets expect, each and one more.

    Tables are variables, as constants would swell an exported graph. They follow from the dataset
    alone, so that no checkpoint holds them.

    Args:
      config: Config.
      dataset: Dataset.
      head: gives the retrieval model's head as it then is; None where it has none, or none of use.
      modalities: names of those that the model reads.

    Raises:
      ConfigError: for "trend" where train has no times.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        *,
        head: Callable[[], ItemHead | None],
        modalities: Sequence[str],
    ):
        super().__init__(name="signals")
        self.names = config.ranking.signals
        self.dim = config.dim
        self.modality_names = tuple(modalities)
        self._head_of = head
        self.together: ItemHead | None = None
        self.count: tf.Variable | None = None
        self.trend: tf.Variable | None = None
        if "co_occurrence" in self.names:
            found = fit_co_occurrence(config, dataset, count=NUM_NEIGHBORS)
            self.together = ItemHead(len(found.item), found.item.shape[1], name="together")
            self.together.neighbors.assign(found.item)
            self.together.values.assign(found.weight)
            liked = dataset.histories(disliked_below=config.retrieval.disliked_below).item
            count = np.bincount(liked, minlength=len(found.item)).astype(np.float32)
            self.count = tf.Variable(count, trainable=False, name="count")
        if "trend" in self.names:
            self.trend = tf.Variable(popularity_trend(dataset), trainable=False, name="trend")

    @property
    def tables(self) -> list[tf.Variable]:
        """What an export has to carry beside the models' own weights."""
        own = [] if self.together is None else self.together.variables
        return [*own, *(v for v in (self.count, self.trend) if v is not None)]

    def labels(self) -> list[str]:
        """What each number is of, in the order of `call`."""
        found = []
        for name in self.names:
            if name == "neighbors":
                found += ["nearest of history", "mean of history"]
            elif name == "recency":
                found += ["newest of history", "recent history"]
            elif name == "modalities":
                found += self.modality_names
            else:
                found.append({"head": "item head", "co_occurrence": "met together"}.get(name, name))
        return found

    def __call__(
        self,
        request: Request,
        item: tf.Tensor,
        rows: Rows,
        *,
        history: tf.Tensor,
        modalities: tf.Tensor,
        present: tf.Tensor,
        in_catalog: bool = True,
        training: bool = False,
    ) -> tf.Tensor:
        """The numbers.

        Args:
          request: Request.
          item: <int32>[batch, candidate].
          rows: what the candidates are.
          history: <float32>[batch, step, dim], retrieval's embeddings of `request.history`.
          modalities, present: the same items' <float32>[batch, step, modality, dim] and
            <bool>[batch, step, modality].
          in_catalog: whether `item` says which they are; of others train knows nothing.
          training: whether the first candidate is one that train knows the user met: it was then
            met together with each item of the history by one user less.

        Returns:
          <float32>[batch, candidate, number].
        """
        known = request.history >= 0
        shape = tf.shape(item)
        none = tf.zeros([shape[0], shape[1], 1])
        cosine = tf.zeros([0])
        if {"neighbors", "recency"} & set(self.names):
            # Both are unit vectors.
            cosine = tf.einsum("bcd,bsd->bcs", rows.vector[..., : self.dim], history)
        found = []
        for name in self.names:
            if name == "neighbors":
                found += self._neighbors(cosine, known)
            elif name == "recency":
                found += self._recency(cosine, known)
            elif name == "modalities":
                found.append(_by_modality(rows, modalities, present & known[..., None]))
            elif not in_catalog:
                found.append(none)
            elif name == "head":
                found.append(self._head(request, item, none))
            elif name == "co_occurrence":
                found.append(self._together(request, item, training=training))
            else:
                assert self.trend is not None
                found.append(tf.gather(self.trend, item)[..., None])
        return tf.concat(found, axis=-1)

    @staticmethod
    def _neighbors(cosine: tf.Tensor, known: tf.Tensor) -> list[tf.Tensor]:
        mask = tf.cast(known, tf.float32)[:, None]
        # A cosine is -1 at least.
        highest = tf.reduce_max(tf.where(known[:, None], cosine, -1.0), axis=2)
        some = tf.reduce_any(known, axis=1)[:, None]
        mean = tf.math.divide_no_nan(
            tf.reduce_sum(cosine * mask, axis=2), tf.reduce_sum(mask, axis=2)
        )
        return [tf.where(some, highest, 0.0)[..., None], mean[..., None]]

    @staticmethod
    def _recency(cosine: tf.Tensor, known: tf.Tensor) -> list[tf.Tensor]:
        age = tf.cast(steps_from_newest(known), tf.float32)
        mask = tf.cast(known, tf.float32)
        newest = tf.where(known & (age == 0), 1.0, 0.0)
        weight = mask * tf.pow(DECAY, age)
        weight = tf.math.divide_no_nan(weight, tf.reduce_sum(weight, axis=1, keepdims=True))
        return [tf.einsum("bcs,bs->bc", cosine, part)[..., None] for part in (newest, weight)]

    def _head(self, request: Request, item: tf.Tensor, none: tf.Tensor) -> tf.Tensor:
        head = self._head_of()
        if head is None:
            return none
        return HEAD_SCALE * head.score_items(request.whole, item)[..., None]

    def _together(self, request: Request, item: tf.Tensor, *, training: bool) -> tf.Tensor:
        assert self.together is not None and self.count is not None
        score = self.together.score_items(request.history, item)
        if training:
            # The example itself is one of the users who met both.
            count = tf.maximum(tf.gather(self.count, tf.maximum(request.history, 0)), 1.0)
            each = tf.where(request.history >= 0, tf.math.rsqrt(count), 0.0)
            own = tf.math.rsqrt(tf.maximum(tf.gather(self.count, item[:, 0]), 1.0))
            first = tf.maximum(score[:, 0] - tf.reduce_sum(each, axis=1) * own, 0.0)
            score = tf.concat([first[:, None], score[:, 1:]], axis=1)
        return score[..., None]


def _by_modality(rows: Rows, modalities: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """<float32>[batch, candidate, modality]; 0 where the candidate or all of a history lacks it."""
    mask = tf.cast(present, tf.float32)[..., None]
    # The length of a mean makes no difference to a cosine.
    liked = unit(tf.reduce_sum(modalities * mask, axis=1))
    own = unit(tf.where(rows.present[..., None], rows.modalities, 0.0))
    return tf.einsum("bmd,bcmd->bcm", liked, own)


def popularity_trend(dataset: Dataset) -> np.ndarray:
    """How much more often than before train met each item lately, <float32>[item]; see `Signals`.

    Raises:
      ConfigError: where train has no times.
    """
    train, num_items = dataset.interactions("train"), dataset.schema.num_items
    if not train.timestamp.any():
        raise ConfigError(
            'ranking.signals: wanted none that needs times, as the dataset has none; got "trend". '
            "Leave it out, or prepare the dataset with times."
        )
    order = np.argsort(train.timestamp, kind="stable")
    lately = order[len(order) - max(round(RECENT_SHARE * len(order)), 1) :]
    count = np.bincount(train.item, minlength=num_items)
    recent = np.bincount(train.item[lately], minlength=num_items)
    expected = count * (len(lately) / len(order))
    return np.log((recent + 1.0) / (expected + 1.0)).astype(np.float32)
