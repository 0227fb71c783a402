"""Retrieve, drop what the user has seen, rank: one graph, in Python and in the export."""

import types
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset import Dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.index import LOWEST, ExactIndex
from mmrec_tf.pipeline import Histories
from mmrec_tf.ranking import RankingModel
from mmrec_tf.retrieval import RetrievalModel


class Recommendations(NamedTuple):
    """What to show.

    Attributes:
      item_id: object[batch, k] of str, best first; "" behind the last one where fewer are left.
      score: <float32>[batch, k], higher is better; comparable within a row.
    """

    item_id: np.ndarray
    score: np.ndarray


class Recommender(tf.Module):
    """Users to items, by id.

    A request may bring a history; one without takes the user's train interactions. What the
    history holds and what the user met in training is never recommended. An unknown user without
    a history gets what the model gives a user of whom nothing is known.

    Args:
      retrieval: RetrievalModel, trained.
      ranking: RankingModel, trained; None recommends in the order of retrieval.
      dataset: Dataset, for ids and histories.
    """

    def __init__(self, retrieval: RetrievalModel, ranking: RankingModel | None, dataset: Dataset):
        super().__init__(name="recommender")
        # A namespace hides the models from tf.Module: what is exported must not carry the weights
        # of item tower and encoders.
        self.state = types.SimpleNamespace(retrieval=retrieval, ranking=ranking)
        self.dataset = dataset
        config = retrieval.config
        self.history_length = config.user.history_length
        self.num_candidates = config.ranking.num_candidates
        output = retrieval.embed_catalog()
        vectors = retrieval.candidates(
            tf.constant(output.embedding), retrieval.tables["log_frequency"]
        )
        self.index = ExactIndex(vectors, name="index")
        fixed = {"trainable": False}
        self.embedding = tf.Variable(output.embedding, name="embedding", **fixed)
        self.items = {"vector": self.index.vectors}
        if ranking is not None:
            self.items["modalities"] = tf.Variable(output.modalities, **fixed)
            self.items["present"] = tf.Variable(output.present, **fixed)
            self.items["weights"] = tf.Variable(output.weights, **fixed)
            self.items["features"] = {
                n: tf.Variable(v, **fixed) for n, v in retrieval.tables["item_features"].items()
            }
        self.item_id = tf.Variable(dataset.catalog.item_id.tolist(), name="item_id", **fixed)
        self.item_table = _number_of(dataset.catalog.item_id)
        self.user_table = _number_of(dataset.users.user_id)
        self.seen_items = StoredHistories(dataset.histories(), times=False)
        self.liked_items = self.seen_items
        if config.user.time_gaps or config.retrieval.disliked_below is not None:
            liked = dataset.histories(disliked_below=config.retrieval.disliked_below)
            self.liked_items = StoredHistories(liked, times=config.user.time_gaps)

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds candidates."""
        return self.state.retrieval

    @property
    def ranking(self) -> RankingModel | None:
        """The model that orders them; None keeps retrieval's order."""
        return self.state.ranking

    def read_history(self, user, history):
        """What the user tower reads, and what must not be recommended.

        Args:
          user: <int32>[batch].
          history: <string>[batch, step], oldest first; "" and unknown ids are passed over.

        Returns:
          What the tower reads, <int32>[batch, history_length], with <float32>[batch,
          history_length], the gaps of `Schema.batch_spec`, known of stored histories only; and what
          must not be recommended, <int32>[batch, any]. Items are padded with -1.
        """
        length = self.history_length
        given = self.item_table.lookup(history)
        batch, steps = tf.shape(given)[0], tf.shape(given)[1]
        # An item counts once, where it first stands: a server that batches requests of different
        # length fills the short ones up with their first element.
        order = tf.argsort(given, axis=1, stable=True)
        ordered = tf.gather(given, order, batch_dims=1)
        repeated = tf.pad(ordered[:, 1:] == ordered[:, :-1], [[0, 0], [1, 0]])[:, :steps]
        repeated = tf.gather(repeated, tf.argsort(order, axis=1), batch_dims=1)
        given = tf.where(repeated, -1, given)
        # The last `length` known ones, in their order.
        padded = tf.concat([tf.fill([batch, length], -1), given], axis=1)
        place = tf.where(padded >= 0, tf.range(1, length + steps + 1)[None, :], 0)
        _, last = tf.math.top_k(place, k=length)
        last = tf.gather(padded, tf.sort(last, axis=1), batch_dims=1)
        some = tf.reduce_any(given >= 0, axis=1, keepdims=True)
        stored, gap = self.liked_items.read(user, length=length)
        read, gap = tf.where(some, last, stored), tf.where(some, -1.0, gap)
        return read, gap, tf.concat([given, self.seen_items.read(user)[0]], axis=1)

    def query(self, user, history, gap):
        """<int32>[batch], two of [batch, step], <int32> and <float32> -> <float32>[batch, dim + 1],
        see `read_history`."""
        embedding = tf.gather(self.embedding, tf.maximum(history, 0))
        return self.retrieval.queries(
            self.retrieval.embed_users(user, embedding, history >= 0, gap=gap)
        )

    def order(self, queries, item, score):
        """The ranking model's scores of candidates; retrieval's own where there is none.

        Args:
          queries: <float32>[batch, dim + 1].
          item: <int32>[batch, candidate].
          score: <float32>[batch, candidate], retrieval's.

        Returns:
          <float32>[batch, candidate]; `LOWEST` stays.
        """
        if self.ranking is None:
            return score
        ranked = self.ranking.score(queries, item, self.items)
        return tf.where(score > LOWEST, ranked, LOWEST)

    def recommend_items(self, user, history, gap, exclude, *, k: int):
        """Item numbers <int32>[batch, k] (-1 for none) and scores <float32>[batch, k].

        Args:
          user: <int32>[batch].
          history: <int32>[batch, step], -1 for padding.
          gap: <float32>[batch, step], as in `read_history`.
          exclude: <int32>[batch, any].
          k: int. Cut to the number of items.
        """
        queries = self.query(user, history, gap)
        found, item = self.index.search(queries, max(self.num_candidates, k), exclude=exclude)
        # Equal scores stay in retrieval's order: top_k returns the lower place first.
        score, place = tf.math.top_k(self.order(queries, item, found), k=min(k, item.shape[1]))
        item = tf.gather(item, place, batch_dims=1)
        return tf.where(score > LOWEST, item, -1), score

    def recommend_ids(self, user_id, history, *, k: int):
        """The graph behind `recommend`, on ids.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step].
          k: int.

        Returns:
          Ids <string>[batch, k] ("" for none) and scores <float32>[batch, k].
        """
        user = self.user_table.lookup(user_id)
        read, gap, exclude = self.read_history(user, history)
        item, score = self.recommend_items(user, read, gap, exclude, k=k)
        ids = tf.gather(self.item_id, tf.maximum(item, 0))
        return tf.where(item >= 0, ids, ""), score

    def rank_ids(self, user_id, history, item_id):
        """The ranking model's scores of items that the caller names.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step].
          item_id: <string>[batch, candidate].

        Returns:
          <float32>[batch, candidate]; `LOWEST` for an unknown item.
        """
        user = self.user_table.lookup(user_id)
        read, gap, _ = self.read_history(user, history)
        item = self.item_table.lookup(item_id)
        row = tf.maximum(item, 0)
        queries = self.query(user, read, gap)
        score = tf.einsum("bd,bcd->bc", queries, tf.gather(self.index.vectors, row))
        return tf.where(item >= 0, self.order(queries, row, score), LOWEST)

    def recommend(
        self,
        user_id: Sequence[str],
        *,
        history: Sequence[Sequence[str]] | None = None,
        k: int = 10,
    ) -> Recommendations:
        """Recommends items to users.

        Args:
          user_id: ids; an unknown one is answered too.
          history: for each user the ids of items, oldest first; None or an empty one takes the
            user's train interactions.
          k: how many.

        Raises:
          ConfigError: when k is below 1 or a history is missing for a user.
        """
        if k < 1:
            raise ConfigError(f"k: wanted at least 1; got {k}.")
        if history is not None and len(history) != len(user_id):
            raise ConfigError(
                f"history: wanted one for each of {len(user_id)} users; got {len(history)}."
            )
        rows = [list(row) for row in history] if history else [[] for _ in user_id]
        widest = max((len(row) for row in rows), default=0)
        padded = [row + [""] * (widest - len(row)) for row in rows]
        ids, score = self.recommend_ids(
            tf.constant(list(user_id), tf.string, shape=[len(user_id)]),
            tf.constant(padded, tf.string, shape=[len(user_id), widest]),
            k=k,
        )
        decoded = [[value.decode() for value in row] for row in ids.numpy()]
        return Recommendations(np.array(decoded, object).reshape(ids.shape), score.numpy())


class StoredHistories(tf.Module):
    """Each user's train items, in a graph.

    Args:
      histories: Histories.
      times: whether `read` tells the gaps.
    """

    def __init__(self, histories: Histories, *, times: bool):
        super().__init__()
        fixed = {"trainable": False}
        self.item = tf.Variable(np.append(histories.item, np.int32(-1)), name="item", **fixed)
        # One more user, with nothing, stands for all unknown ones.
        offset = np.append(histories.offset, histories.offset[-1])
        self.offset = tf.Variable(offset, name="offset", **fixed)
        self.time = None
        if times and histories.time is not None:
            # What stands for padding is older than anything, so that it is nowhere the newest.
            time = np.append(histories.time, np.iinfo(np.int64).min)
            self.time = tf.Variable(time, name="time", **fixed)

    def read(self, user, *, length: int | None = None):
        """Items of users, with the gaps of `Schema.batch_spec`.

        Args:
          user: <int32>[batch], -1 for an unknown user.
          length: only the last so many; None for all.

        Returns:
          <int32>[batch, any or length], oldest first, padded with -1 behind, and
          <float32>[batch, any or length]; -1 for gaps where they are not told.
        """
        row = tf.where(user >= 0, user, self.offset.shape[0] - 2)
        start, end = tf.gather(self.offset, row), tf.gather(self.offset, row + 1)
        if length is None:
            width = tf.reduce_max(tf.concat([end - start, [0]], axis=0))
        else:
            width = tf.constant(length, tf.int64)
            start = tf.maximum(start, end - width)
        at = start[:, None] + tf.range(width)[None, :]
        at = tf.where(at < end[:, None], at, self.item.shape[0] - 1)
        item = tf.gather(self.item, at)
        if self.time is None:
            return item, tf.fill(tf.shape(item), -1.0)
        time = tf.gather(self.time, at)
        newest = tf.reduce_max(time, axis=1, keepdims=True)
        return item, tf.where(item >= 0, tf.cast(newest - time, tf.float32), -1.0)


def _number_of(ids: np.ndarray) -> tf.lookup.StaticHashTable:
    """A table from an id to its number; -1 for an unknown one and for ""."""
    keys = tf.constant(ids.tolist(), tf.string, shape=[len(ids)])
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.range(len(ids)))
    return tf.lookup.StaticHashTable(initializer, default_value=-1)
