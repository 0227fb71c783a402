"""Retrieve, drop what must not be shown, rank, diversify: one graph, here and in the export."""

import copy
import functools
import types
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import StoredHistories
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.ranking import RankingModel, Request
from mmrec_tf.recommender.category_filter import CategoryFilter, number_of
from mmrec_tf.recommender.diversity import diversify
from mmrec_tf.recommender.inputs import RECOMMEND_INPUTS, decoded, padded, require_k
from mmrec_tf.recommender.outputs import Recommendations, SimilarItems
from mmrec_tf.retrieval.index import LOWEST, ExactIndex, IvfIndex
from mmrec_tf.retrieval.model import RetrievalModel


class Candidates(NamedTuple):
    """What retrieval found and ranking says of it, in retrieval's order.

    Attributes:
      item: <int32>[batch, candidate].
      retrieved: <float32>[batch, candidate], retrieval's scores; `LOWEST` for what must not be
        shown, and came up because nothing else was left.
      score: <float32>[batch, candidate], what orders them; `LOWEST` stays.
      logit: <float32>[batch, candidate], of a click, not calibrated.
      rating: <float32>[batch, candidate], predicted; None for a model that predicts none.
      attention: as in `Ranked`.
      user: <float32>[batch, dim], the user's embedding.
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


class Recommender(tf.Module):
    """Users to items, by id.

    A request may bring a history; one without takes the user's train interactions. What the
    history holds and what the user met in training is never recommended, nor what is withdrawn or
    what the request leaves out. An unknown user with a history is served by it. One of whom
    nothing is known, neither a history nor a profile or side features that the model reads, is
    shown what is popular, diversified.

    Args:
      retrieval: RetrievalModel, trained.
      ranking: RankingModel, trained; None recommends in the order of retrieval.
      dataset: Dataset, for ids and histories.
      calibration: Calibration of the logit of a click; None leaves it as it is.
      unavailable: ids of items that are never recommended.

    Raises:
      ConfigError: for an id of `unavailable` that the dataset does not have.
    """

    def __init__(
        self,
        retrieval: RetrievalModel,
        ranking: RankingModel | None,
        dataset: Dataset,
        *,
        calibration: Calibration | None = None,
        unavailable: Sequence[str] = (),
    ):
        super().__init__(name="recommender")
        # A namespace hides the models from tf.Module: what is exported must not carry the weights
        # of item tower and encoders.
        self.state = types.SimpleNamespace(
            retrieval=retrieval, ranking=ranking, calibration=calibration or Calibration()
        )
        self.dataset = dataset
        config = retrieval.config if ranking is None else ranking.config
        self.config = config
        self.history_length = config.user.history_length
        self.num_candidates = config.ranking.num_candidates
        output = retrieval.embed_catalog()
        log_frequency = tf.constant(dataset.catalog.log_frequency)
        vectors = retrieval.candidates(
            tf.constant(output.embedding), retrieval.tables["log_frequency"]
        )
        # One more column: what is popular is found by the same dot product.
        self.index = ExactIndex(tf.concat([vectors, log_frequency[:, None]], axis=1), name="index")
        fixed = {"trainable": False}
        self.items = {
            "vector": self.index.vectors,
            "modalities": tf.Variable(output.modalities, **fixed),
            "present": tf.Variable(output.present, **fixed),
            "weights": tf.Variable(output.weights, **fixed),
            "features": {},
        }
        if ranking is not None:
            self.items["features"] = {
                n: tf.Variable(v, **fixed) for n, v in retrieval.tables["item_features"].items()
            }
        self.modality_name = tf.Variable([*retrieval.modalities, ""], **fixed)
        self.item_id = tf.Variable(dataset.catalog.item_id.tolist(), name="item_id", **fixed)
        self.item_table = number_of(dataset.catalog.item_id)
        self.user_table = number_of(dataset.users.user_id)
        self.available = tf.Variable(self._available(unavailable), name="available", **fixed)
        self.filter = CategoryFilter(dataset.schema.item_features, dataset.catalog.features)
        self.seen_items = StoredHistories(dataset.histories(), times=False)
        self.liked_items = self.seen_items
        if config.user.time_gaps or config.retrieval.disliked_below is not None:
            liked = dataset.histories(disliked_below=config.retrieval.disliked_below)
            self.liked_items = StoredHistories(liked, times=config.user.time_gaps)
        self.graphs: dict[Hashable, Callable] = {}

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds candidates."""
        return self.state.retrieval

    @property
    def ranking(self) -> RankingModel | None:
        """The model that orders them; None keeps retrieval's order."""
        return self.state.ranking

    @property
    def calibration(self) -> Calibration:
        """What makes a probability of the logit of a click."""
        return self.state.calibration

    def calibrate(self, calibration: Calibration) -> None:
        """Takes another calibration into use."""
        self.state.calibration = calibration
        self.graphs = {}

    def with_index(self, index: ExactIndex) -> "Recommender":
        """The same recommender with another index of the same vectors, such as one that does not
        look at every item."""
        other = copy.copy(self)
        other.index, other.graphs = index, {}
        other.items = {**self.items, "vector": index.vectors}
        return other

    def graph(self, key: Hashable, function: Callable, inputs: Sequence[tf.TensorSpec]) -> Callable:
        """A function of this recommender as a graph, made once.

        Args:
          key: what the function is called by.
          function: of tensors.
          inputs: their specs.
        """
        if key not in self.graphs:
            self.graphs[key] = tf.function(function, input_signature=inputs)
        return self.graphs[key]

    def _available(self, unavailable: Sequence[str]) -> np.ndarray:
        """<bool>[item]."""
        number = {name: row for row, name in enumerate(self.dataset.catalog.item_id)}
        unknown = [name for name in unavailable if name not in number]
        if unknown:
            raise ConfigError(
                f"unavailable: wanted ids of items of {self.dataset.directory}; got "
                f"{len(unknown)} that are none, such as {unknown[0]!r}."
            )
        available = np.ones([len(number)], bool)
        available[[number[name] for name in unavailable]] = False
        return available

    def read_history(self, user, history=None):
        """What the user tower reads, and what must not be recommended.

        Args:
          user: <int32>[batch].
          history: <string>[batch, step], oldest first; "" and unknown ids are passed over. None for
            the stored one of everyone.

        Returns:
          What the tower reads, <int32>[batch, history_length], with <float32>[batch,
          history_length], the gaps of `Schema.batch_spec`, known of stored histories only; and what
          must not be recommended, <int32>[batch, any]. Items are padded with -1.
        """
        length = self.history_length
        if history is None:
            history = tf.fill([tf.shape(user)[0], 0], "")
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
        whole = tf.concat([tf.fill([batch, length], -1), given], axis=1)
        place = tf.where(whole >= 0, tf.range(1, length + steps + 1)[None, :], 0)
        _, last = tf.math.top_k(place, k=length)
        last = tf.gather(whole, tf.sort(last, axis=1), batch_dims=1)
        some = tf.reduce_any(given >= 0, axis=1, keepdims=True)
        stored = self.liked_items.read(user, length=length)
        read = tf.where(some, last, stored.item)
        gap = tf.where(some, -1.0, stored.gap)
        return read, gap, tf.concat([given, self.seen_items.read(user).item], axis=1)

    def request(self, user, history, gap, time) -> Request:
        """Whom candidates are for; see `read_history` and `Request`."""
        embedding = tf.gather(self.index.vectors, tf.maximum(history, 0))
        embedded = self.retrieval.embed_users(
            user, embedding[..., : self.config.dim], history >= 0, gap=gap
        )
        return Request(self.retrieval.queries(embedded), user, history, gap, time)

    def _nobody(self, request: Request):
        """<bool>[batch], whether nothing is known of a user."""
        nobody = tf.reduce_all(request.history < 0, axis=1)
        tower = self.retrieval.user_tower
        if tower.profile is None and tower.features is None:
            return nobody
        return nobody & (request.user < 0)

    def _queries(self, request: Request, nobody):
        """<float32>[batch, dim + 2], for the index."""
        queries = tf.pad(request.queries, [[0, 0], [0, 1]])
        popular = tf.one_hot(self.config.dim + 1, self.config.dim + 2)
        return tf.where(nobody[:, None], popular[None, :], queries)

    def rank(self, request: Request, nobody, item, retrieved) -> Candidates:
        """What ranking says of candidates; retrieval's own scores where there is none.

        Args:
          request: Request.
          nobody: <bool>[batch].
          item: <int32>[batch, candidate].
          retrieved: <float32>[batch, candidate].
        """
        # What is popular was found by another number than the model's own.
        vectors = tf.gather(self.index.vectors, item)
        own = tf.einsum("bd,bcd->bc", request.queries, vectors[..., :-1])
        own = tf.where(nobody[:, None], own, retrieved)
        score, logit, rating, attention = retrieved, own, None, None
        if self.ranking is not None:
            ranked = self.ranking.rank(request, item, self.items, own)
            # Those of whom nothing is known are shown what is popular, in this order.
            score = tf.where(nobody[:, None], retrieved, ranked.score)
            binary = [name for name in self.ranking.binary if name == "click"]
            names = binary or self.ranking.binary
            logit = ranked.logits[names[0]] if names else ranked.score
            logit += self.ranking.click_shift
            rating, attention = ranked.logits.get("rating"), ranked.attention
        if self.config.recommender.popularity_dampening:
            less = self.config.recommender.popularity_dampening * vectors[..., -1]
            score = tf.where(nobody[:, None], score, score - less)
        score = tf.where(retrieved > LOWEST, score, LOWEST)
        user = request.queries[:, : self.config.dim]
        return Candidates(item, retrieved, score, logit, rating, attention, user, nobody)

    def candidates(self, request: Request, exclude, *, num: int, wish=None) -> Candidates:
        """Retrieves and ranks.

        Args:
          request: Request.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          num: int. How many, cut to the number of items.
          wish: the categories that are allowed and denied, see `CategoryFilter`; None for any.
        """
        nobody = self._nobody(request)
        queries = self._queries(request, nobody)
        if isinstance(self.index, IvfIndex):
            retrieved, item = self._probe(self.index, queries, nobody, exclude, wish, num)
        else:
            allowed = self._allowed(wish)
            retrieved, item = self.index.search(queries, num, exclude=exclude, allowed=allowed)
        return self.rank(request, nobody, item, retrieved)

    def _allowed(self, wish):
        """<bool>[batch or 1, item]."""
        available = tf.convert_to_tensor(self.available)
        return available[None, :] if wish is None else self.filter(*wish, available)

    def _probe(self, index: IvfIndex, queries, nobody, exclude, wish, num: int):
        """`IvfIndex.search`; but what is popular, or of a category, may lie in any list, so that
        whoever asks for such is compared with every item."""
        found = index.search(queries, num, exclude=exclude, allowed=self._allowed(None))
        whole = nobody if wish is None else nobody | self.filter.wanted(*wish)

        def compared():
            row = tf.where(whole)
            asked = None if wish is None else [tf.gather_nd(part, row) for part in wish]
            exact = ExactIndex.search(
                index,
                tf.gather_nd(queries, row),
                num,
                exclude=tf.gather_nd(exclude, row),
                allowed=self._allowed(asked),
            )
            pairs = zip(found, exact, strict=True)
            return [tf.tensor_scatter_nd_update(old, row, new) for old, new in pairs]

        return tf.cond(tf.reduce_any(whole), compared, lambda: list(found))

    def order(self, candidates: Candidates, k: int):
        """The places <int32>[batch, k] of candidates in the order in which they are shown; of
        equal scores that which retrieval found first."""
        score, place = tf.math.top_k(candidates.score, k=candidates.score.shape[1])
        settings = self.config.recommender
        if not settings.diversity and not settings.popular_diversity:
            return place[:, :k]
        strength = tf.where(
            candidates.nobody, settings.popular_diversity, float(settings.diversity)
        )

        def diversified():
            item = tf.gather(candidates.item, place, batch_dims=1)
            vectors = tf.gather(self.index.vectors, item)[..., : self.config.dim]
            return tf.gather(place, diversify(score, vectors, strength, k), batch_dims=1)

        return tf.cond(tf.reduce_any(strength > 0), diversified, lambda: place[:, :k])

    def recommend_items(self, user, history, gap, exclude, *, k: int, time=None, wish=None):
        """Items for users, by number.

        Args:
          user: <int32>[batch].
          history: <int32>[batch, step], -1 for padding.
          gap: <float32>[batch, step], as in `read_history`.
          exclude: <int32>[batch, any].
          k: int. Cut to the number of items.
          time: <int64>[batch], as in `Request`; None where it is not known.
          wish: as in `candidates`.

        Returns:
          Candidates, cut to the k that are shown, in their order.
        """
        time = tf.zeros_like(user, tf.int64) if time is None else time
        request = self.request(user, history, gap, time)
        found = self.candidates(request, exclude, num=max(self.num_candidates, k), wish=wish)
        place = self.order(found, min(k, found.item.shape[1]))
        parts = {
            name: tf.gather(part, place, batch_dims=1)
            for name, part in found._asdict().items()
            if name not in ("user", "nobody") and part is not None
        }
        return found._replace(**parts)

    def explain(self, shown: Candidates, history):
        """What weighed most for each of some candidates.

        Args:
          shown: Candidates.
          history: <int32>[batch, step], -1 for padding.

        Returns:
          The modality's place <int32>[batch, candidate], behind the last one where there is none:
          that with the highest product of its weight in the item's fusion and its dot product with
          the user. And the history's item <int32>[batch, candidate], -1 for none: that with the
          highest target attention, or without such, the one that is most alike.
        """
        item = shown.item
        modalities = tf.gather(self.items["modalities"], item)
        share = tf.einsum("bd,bcmd->bcm", shown.user, modalities)
        share *= tf.gather(self.items["weights"], item)
        present = tf.gather(self.items["present"], item) & ~shown.nobody[:, None, None]
        share = tf.where(present, share, LOWEST)
        # Where the highest is none that is present, it is this one.
        none = tf.fill(tf.shape(item), 0.5 * LOWEST)[..., None]
        share = tf.concat([share, none], axis=2)
        known = history >= 0
        weight = shown.attention
        if weight is None:
            dim = self.config.dim
            read = tf.gather(self.index.vectors, tf.maximum(history, 0))[..., :dim]
            weight = tf.einsum("bcd,bsd->bcs", tf.gather(self.index.vectors, item)[..., :dim], read)
        step = tf.argmax(tf.where(known[:, None, :], weight, LOWEST), axis=2)
        because = tf.gather(history, step, batch_dims=1)
        return tf.argmax(share, axis=2, output_type=tf.int32), because

    def recommend_ids(self, user_id, history, exclude, allow, deny, time, *, k: int) -> dict:
        """The graph behind `recommend`, on ids.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step]; the user's train items where none of them is known.
          exclude: <string>[batch, any], further items that must not be shown.
          allow, deny: <string>[batch, any], see `CategoryFilter`.
          time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
          k: int.

        Returns:
          By the names of `Recommendations`, ids as <string>[batch, k].
        """
        user = self.user_table.lookup(user_id)
        read, gap, met = self.read_history(user, history)
        met = tf.concat([met, self.item_table.lookup(exclude)], axis=1)
        shown = self.recommend_items(user, read, gap, met, k=k, time=time, wish=(allow, deny))
        modality, because = self.explain(shown, read)
        real = shown.score > LOWEST
        blank = tf.fill(tf.shape(real), "")
        names = tf.gather(self.item_id, tf.maximum(because, 0))
        probability = self.calibration(shown.logit)
        return {
            "item_id": tf.where(real, tf.gather(self.item_id, shown.item), blank),
            "score": shown.score,
            "probability": tf.where(real, probability, tf.zeros_like(probability)),
            "modality": tf.where(real, tf.gather(self.modality_name, modality), blank),
            "history_item": tf.where(real & (because >= 0), names, blank),
        }

    def rank_ids(self, user_id, history, item_id, time) -> dict:
        """What is said of items that the caller names, withdrawn and seen ones too.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step].
          item_id: <string>[batch, candidate].
          time: <int64>[batch], as in `recommend_ids`.

        Returns:
          "score" and "probability", <float32>[batch, candidate]; `LOWEST` and 0 for an unknown
          item.
        """
        user = self.user_table.lookup(user_id)
        read, gap, _ = self.read_history(user, history)
        request = self.request(user, read, gap, time)
        item = self.item_table.lookup(item_id)
        row, nobody = tf.maximum(item, 0), self._nobody(request)
        queries, vectors = self._queries(request, nobody), tf.gather(self.index.vectors, row)
        ranked = self.rank(request, nobody, row, tf.einsum("bd,bcd->bc", queries, vectors))
        probability = self.calibration(ranked.logit)
        return {
            "score": tf.where(item >= 0, ranked.score, LOWEST),
            "probability": tf.where(item >= 0, probability, tf.zeros_like(probability)),
        }

    def embed_user_ids(self, user_id, history) -> dict:
        """The graph behind `embed_user`.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step], as in `recommend_ids`.

        Returns:
          "embedding" <float32>[batch, dim], of unit length, whose dot product with an item's is
          what retrieval goes by, and "known" <bool>[batch], whether anything is known of the user.
        """
        user = self.user_table.lookup(user_id)
        read, gap, _ = self.read_history(user, history)
        request = self.request(user, read, gap, tf.zeros_like(user, tf.int64))
        embedding = tf.math.l2_normalize(request.queries[:, : self.config.dim], axis=1)
        return {"embedding": embedding, "known": ~self._nobody(request)}

    def similar_ids(self, item_id, *, k: int) -> dict:
        """The graph behind `similar_items`: <string>[batch] -> "item_id" <string>[batch, k] and
        "score" <float32>[batch, k]."""
        item = self.item_table.lookup(item_id)
        embedding = tf.gather(self.index.vectors, tf.maximum(item, 0))[:, : self.config.dim]
        score, near = self.index.search(
            tf.pad(embedding, [[0, 0], [0, 2]]),
            k,
            exclude=item[:, None],
            allowed=self.available[None, :],
        )
        real = (score > LOWEST) & (item >= 0)[:, None]
        return {
            "item_id": tf.where(real, tf.gather(self.item_id, near), ""),
            "score": tf.where(real, score, LOWEST),
        }

    def recommend(
        self,
        user_id: Sequence[str],
        *,
        history: Sequence[Sequence[str]] | None = None,
        exclude: Sequence[Sequence[str]] | None = None,
        allow: Sequence[Sequence[str]] | None = None,
        deny: Sequence[Sequence[str]] | None = None,
        time: Sequence[int] | None = None,
        k: int = 10,
    ) -> Recommendations:
        """Recommends items to users.

        Args:
          user_id: ids; an unknown one is answered too.
          history: for each user the ids of items, oldest first; None or an empty one takes the
            user's train interactions.
          exclude: for each user ids of further items that must not be shown; unknown ones are
            passed over.
          allow: for each user categories such as "genre=comedy", of which an item has to have one;
            None or an empty list for any.
          deny: likewise, categories of which it must have none.
          time: for each user the time of the request, seconds since 1970 UTC, for a model that
            reads it; 0 or None where it is not known.
          k: how many.

        Raises:
          ConfigError: when k is below 1, something is missing for a user, or no item can have a
            category.
        """
        require_k(k)
        named = {"history": history, "exclude": exclude, "allow": allow, "deny": deny}
        inputs = {name: padded(name, rows, len(user_id)) for name, rows in named.items()}
        for lists in (allow, deny):
            for row in () if lists is None else lists:
                self.filter.require(row)
        if time is not None and len(time) != len(user_id):
            raise ConfigError(
                f"time: wanted one for each of {len(user_id)} users; got {len(time)}."
            )
        times = [0] * len(user_id) if time is None else list(time)
        when = tf.constant(times, tf.int64, shape=[len(user_id)])
        users = tf.constant(list(user_id), tf.string, shape=[len(user_id)])
        # The graph that is exported, so that both give the same answers to the last bit.
        answer = self.graph(
            ("recommend", k), functools.partial(self.recommend_ids, k=k), RECOMMEND_INPUTS
        )(users, *inputs.values(), when)
        return Recommendations(**{name: decoded(value) for name, value in answer.items()})

    def similar_items(self, item_id: Sequence[str], *, k: int = 10) -> SimilarItems:
        """Items whose embeddings are nearest to those of others.

        Args:
          item_id: ids; to an unknown one nothing is similar.
          k: how many.

        Raises:
          ConfigError: when k is below 1.
        """
        require_k(k)
        ids = tf.constant(list(item_id), tf.string, shape=[len(item_id)])
        answer = self.similar_ids(ids, k=k)
        return SimilarItems(**{name: decoded(value) for name, value in answer.items()})
