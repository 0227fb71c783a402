"""Retrieve, drop what must not be shown, rank, diversify: one graph, here and in the export."""

import copy
import functools
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.evaluation.evaluate import blocks
from mmrec_tf.recommender.candidates import Candidates
from mmrec_tf.recommender.diversity import diversify
from mmrec_tf.recommender.explanation import explain, heaviest_values
from mmrec_tf.recommender.inputs import RECOMMEND_INPUTS, pad_lists, require_k, to_array
from mmrec_tf.recommender.outputs import Recommendations, SimilarItems
from mmrec_tf.recommender.ranked import Ranked, Request, Rows
from mmrec_tf.recommender.retriever import Retriever
from mmrec_tf.recommender.ties import even_out
from mmrec_tf.retrieval.embedding_parts import reason_tables
from mmrec_tf.retrieval.index import ExactIndex
from mmrec_tf.retrieval.index.interests import one_an_item, score_rows
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import HISTORIES, LOWEST_SCORE


class RankingStage(Protocol):
    """What a recommender needs of a ranking model."""

    config: Config
    binary: list[str]

    @property
    def variables(self) -> list[tf.Variable]:
        """What an export has to carry."""

    @property
    def tables(self) -> list[tf.Variable]:
        """What it has to carry beside them."""

    @property
    def click_shift(self) -> float:
        """What to add to the logit of a click where negatives were drawn for training."""

    def rank(
        self,
        request: Request,
        item: tf.Tensor,
        items: dict,
        score: tf.Tensor,
        *,
        rows: Rows | None = None,
    ) -> Ranked:
        """Scores candidates, as `mmrec_tf.ranking.RankingModel.rank`."""


class Recommender(tf.Module):
    """Users to items, by id.

    A request may bring a history; one without takes what is known of the user. What the history
    holds and what the user is known to have met is never recommended, nor what is withdrawn or
    what the request leaves out. An unknown user with a history is served by it. One of whom
    nothing is known, neither a history nor a profile or side features that the model reads, is
    shown what is popular, diversified.

    Args:
      retrieval: RetrievalModel, trained.
      ranking: RankingModel, trained; None recommends in the order of retrieval.
      dataset: Dataset, for ids and histories.
      calibration: Calibration of the logit of a click; None leaves it as it is.
      unavailable: ids of items that are never recommended.
      history: what is known of users: "all" interactions of the dataset, as who is served should
        find; "train", or "train+valid", see `mmrec_tf.schema.HISTORIES`. It decides what users
        have met, their histories, and what is popular, which strangers are shown and
        `recommender.popularity_dampening` takes off. What was trained stays that of train: items'
        embeddings, and the popularity bias within the score. Evaluation goes by the history that
        it is told, not by this one.
      compiled: whether answers come from graphs, as an export's do; False answers op by op, which
        is sooner for the few requests of one command. The last digits may differ.

    Raises:
      ConfigError: for an id of `unavailable` that the dataset does not have, or an unknown history.
    """

    def __init__(
        self,
        retrieval: RetrievalModel,
        ranking: RankingStage | None,
        dataset: Dataset,
        *,
        calibration: Calibration | None = None,
        unavailable: Sequence[str] = (),
        history: str = "all",
        compiled: bool = True,
    ):
        super().__init__(name="recommender")
        # A namespace hides the models from tf.Module: what is exported must not carry the weights
        # of item tower and encoders.
        self.state = types.SimpleNamespace(
            retrieval=retrieval,
            ranking=ranking,
            calibration=calibration or Calibration(),
            # By history, the same recommender.
            views={},
        )
        self.dataset = dataset
        self.history = history
        self.compiled = compiled
        config = retrieval.config if ranking is None else ranking.config
        self.config = config
        self.num_candidates = config.ranking.num_candidates
        catalog = retrieval.embed_catalog()
        self.retriever = Retriever(
            retrieval,
            dataset,
            catalog,
            config=config,
            reads_features=retrieval.user_tower.features is not None
            or (ranking is not None and config.ranking.features),
            unavailable=unavailable,
            history=history,
        )
        fixed = {"trainable": False}
        self.items = {
            "vector": self.index.vectors,
            "modalities": tf.Variable(catalog.modalities, **fixed),
            "present": tf.Variable(catalog.present, **fixed),
            "weights": tf.Variable(catalog.weights, **fixed),
            "features": {},
            "reasons": {
                n: tf.Variable(v, **fixed) for n, v in reason_tables(retrieval, catalog).items()
            },
        }
        if ranking is not None:
            self.items["features"] = {
                n: tf.Variable(v, **fixed) for n, v in retrieval.tables["item_features"].items()
            }
        heaviest = heaviest_values(retrieval)
        if heaviest is not None:
            self.items["heaviest"] = tf.Variable(heaviest, **fixed)
        self.modality_name = tf.Variable([*retrieval.modalities, ""], **fixed)
        self.graphs: dict[Hashable, Callable] = {}

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds candidates."""
        return self.state.retrieval

    @property
    def ranking(self) -> RankingStage | None:
        """The model that orders them; None keeps retrieval's order."""
        return self.state.ranking

    @property
    def calibration(self) -> Calibration:
        """What makes a probability of the logit of a click."""
        return self.state.calibration

    @property
    def item_head(self) -> ItemHead | None:
        """What adds to the towers' scores; None for nothing."""
        return self.retrieval.item_head

    @property
    def index(self) -> ExactIndex:
        """What finds candidates."""
        return self.retriever.index

    @property
    def item_id(self) -> tf.Variable:
        """<string>[item + 1], ids by number, and one that is "" at the end."""
        return self.retriever.item_table.ids

    @property
    def available(self) -> tf.Variable:
        """<bool>[item], False for what is never recommended."""
        return self.retriever.available

    def calibrate(self, calibration: Calibration) -> None:
        """Takes another calibration into use."""
        self.state.calibration = calibration
        self.state.views = {}
        self.graphs = {}

    def with_index(self, index: ExactIndex) -> "Recommender":
        """The same recommender with another index of the same vectors, such as one that does not
        look at every item."""
        other = copy.copy(self)
        other.retriever, other.graphs = self.retriever.with_index(index), {}
        other.items = {**self.items, "vector": index.vectors}
        return other

    @property
    def num_known(self) -> dict[str, int]:
        """How many interactions are known, by split."""
        splits = HISTORIES[self.history]
        return {split: len(self.dataset.interactions(split).user) for split in splits}

    def with_history(self, history: str) -> "Recommender":
        """The same recommender on other interactions, made once; itself where they are the same.

        Args:
          history: as in the constructor.

        Raises:
          ConfigError: for an unknown history, or where the index does not look at every item, as
            it holds what is popular.
        """
        if history == self.history:
            return self
        if not self.index.exact:
            raise ConfigError(
                f"history: wanted {self.history}, which the index was built with; got {history!r}. "
                "Choose the history first: recommender.with_history(...).with_index(...)."
            )
        if history not in self.state.views:
            other = copy.copy(self)
            other.history, other.graphs = history, {}
            other.retriever = self.retriever.with_history(self.dataset, history)
            other.items = {**self.items, "vector": other.index.vectors}
            self.state.views[history] = other
        return self.state.views[history]

    def graph(self, key: Hashable, function: Callable, inputs: Sequence[tf.TensorSpec]) -> Callable:
        """A function of this recommender as a graph, made once; itself where nothing is compiled.

        Args:
          key: what the function is called by.
          function: of tensors.
          inputs: their specs.
        """
        if not self.compiled:
            return function
        if key not in self.graphs:
            # Nothing of it branches on tensors in Python: AutoGraph, which would rewrite the source
            # of all that is called, takes most of the time until the first answer.
            self.graphs[key] = tf.function(function, input_signature=inputs, autograph=False)
        return self.graphs[key]

    def read_history(
        self, user: tf.Tensor, history: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As `Retriever.read_history`."""
        return self.retriever.read_history(user, history)

    def read_past(self, user: tf.Tensor, history: tf.Tensor | None = None) -> tf.Tensor | None:
        """As `Retriever.read_past`."""
        return self.retriever.read_past(user, history)

    def request(
        self,
        user: tf.Tensor,
        history: tf.Tensor,
        gap: tf.Tensor,
        time: tf.Tensor,
        *,
        profile: tf.Tensor | None = None,
        features: tf.Tensor | None = None,
        past: tf.Tensor | None = None,
    ) -> Request:
        """As `Retriever.request`."""
        return self.retriever.request(
            user, history, gap, time, profile=profile, features=features, past=past
        )

    def rank(
        self, request: Request, nobody: tf.Tensor, item: tf.Tensor, retrieved: tf.Tensor
    ) -> Candidates:
        """What ranking says of candidates; retrieval's own scores where there is none.

        Args:
          request: Request.
          nobody: <bool>[batch].
          item: <int32>[batch, candidate].
          retrieved: <float32>[batch, candidate].
        """
        vectors = self.index.gather(item)
        ranked = self.judge(request, nobody, item, retrieved, vectors)
        score = ranked.score
        if self.index.first is not None:
            score = even_out(score, tf.gather(tf.convert_to_tensor(self.index.first), item))
        score = tf.where(retrieved > LOWEST_SCORE, score, LOWEST_SCORE)
        return ranked._replace(score=score)

    def judge(
        self,
        request: Request,
        nobody: tf.Tensor,
        item: tf.Tensor,
        retrieved: tf.Tensor,
        vectors: tf.Tensor,
        *,
        rows: Rows | None = None,
    ) -> Candidates:
        """`rank` without regard to what must not be shown, and to items that are the same twice.

        Args:
          request: Request.
          nobody: <bool>[batch].
          item: <int32>[batch, candidate].
          retrieved: <float32>[batch, candidate].
          vectors: <float32>[batch, candidate, dim + 2], as the index holds them.
          rows: as in `RankingModel.rank`.
        """
        # What is popular was found by another number than the model's own.
        own = score_rows(request.queries, vectors[..., :-1])
        own = tf.where(nobody[:, None], own, retrieved)
        score, logit, rating, attention = retrieved, own, None, None
        if self.ranking is not None:
            ranked = self.ranking.rank(request, item, self.items, own, rows=rows)
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
        user = request.queries
        if user.shape.rank == 3:
            user = one_an_item(user, vectors[..., :-1])
        user = user[..., : self.config.dim]
        return Candidates(item, retrieved, score, logit, rating, attention, user, nobody)

    def candidates(
        self,
        request: Request,
        exclude: tf.Tensor,
        *,
        num: int,
        wish: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> Candidates:
        """Retrieves and ranks.

        Args:
          request: Request.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          num: int. How many, cut to the number of items.
          wish: the categories that are allowed and denied, see `CategoryFilter`; None for any.
        """
        nobody = self.retriever.nobody(request)
        retrieved, item = self.retriever.search(request, nobody, exclude, num=num, wish=wish)
        return self.rank(request, nobody, item, retrieved)

    def order(self, candidates: Candidates, k: int) -> tf.Tensor:
        """The places <int32>[batch, k] of candidates in the order in which they are shown; of
        equal scores that which retrieval found first: of items with the same vector that with the
        lower number."""
        score, place = tf.math.top_k(candidates.score, k=candidates.score.shape[1])
        settings = self.config.recommender
        if not settings.diversity and not settings.popular_diversity:
            return place[:, :k]
        strength = tf.where(
            candidates.nobody, settings.popular_diversity, float(settings.diversity)
        )

        def diversified() -> tf.Tensor:
            item = tf.gather(candidates.item, place, batch_dims=1)
            vectors = self.index.gather(item)[..., : self.config.dim]
            return tf.gather(place, diversify(score, vectors, strength, k), batch_dims=1)

        return tf.cond(tf.reduce_any(strength > 0), diversified, lambda: place[:, :k])

    def recommend_items(
        self,
        user: tf.Tensor,
        history: tf.Tensor,
        gap: tf.Tensor,
        exclude: tf.Tensor,
        *,
        k: int,
        time: tf.Tensor | None = None,
        profile: tf.Tensor | None = None,
        features: tf.Tensor | None = None,
        past: tf.Tensor | None = None,
        wish: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> Candidates:
        """Items for users, by number.

        Args:
          user: <int32>[batch].
          history: <int32>[batch, step], -1 for padding.
          gap: <float32>[batch, step], as in `read_history`.
          exclude: <int32>[batch, any].
          k: int. Cut to the number of items.
          time: <int64>[batch], as in `Request`; None where it is not known.
          profile, features, past: as in `Retriever.request`.
          wish: as in `candidates`.

        Returns:
          Candidates, cut to the k that are shown, in their order.
        """
        time = tf.zeros_like(user, tf.int64) if time is None else time
        request = self.request(
            user, history, gap, time, profile=profile, features=features, past=past
        )
        found = self.candidates(request, exclude, num=max(self.num_candidates, k), wish=wish)
        place = self.order(found, min(k, found.item.shape[1]))
        # Of several interests there is one a candidate.
        whole = ("nobody",) if found.user.shape.rank == 3 else ("user", "nobody")
        parts = {
            name: tf.gather(part, place, batch_dims=1)
            for name, part in found._asdict().items()
            if name not in whole and part is not None
        }
        return found._replace(**parts)

    def rank_items(
        self, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
    ) -> np.ndarray:
        """As `mmrec_tf.evaluation.evaluate.Ranker` has it, after both stages; on the history that
        is asked for, whatever `recommend` knows."""
        judged = self.with_history(history)

        def recommend(user: tf.Tensor) -> tf.Tensor:
            read, gap, met = judged.read_history(user)
            past = judged.read_past(user)
            shown = judged.recommend_items(user, read, gap, met, k=k, past=past)
            return tf.where(shown.score > LOWEST_SCORE, shown.item, -1)

        graph = judged.graph(("items", k), recommend, [tf.TensorSpec([None], tf.int32)])
        tops = [
            graph(tf.constant(users[block], tf.int32)).numpy()
            for block in blocks(len(users), dataset.schema.num_items)
        ]
        top = np.concatenate(tops)
        return np.pad(top, ((0, 0), (0, k - top.shape[1])), constant_values=-1)

    def recommend_ids(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        exclude: tf.Tensor,
        allow: tf.Tensor,
        deny: tf.Tensor,
        time: tf.Tensor,
        profile: tf.Tensor,
        features: tf.Tensor,
        *,
        k: int,
    ) -> dict[str, tf.Tensor]:
        """The graph of `recommend`, on ids.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step]; what the user is known to have met where none of them is
            known.
          exclude: <string>[batch, any], further items that must not be shown.
          allow, deny: <string>[batch, any], see `CategoryFilter`.
          time: <int64>[batch], seconds since 1970 UTC; 0 where it is not known.
          profile, features: <string>[batch] and <string>[batch, any], see `Retriever.request`.
          k: int.

        Returns:
          By the names of `Recommendations`, ids as <string>[batch, k], "heaviest" only where values
          are weighed; and "unread" <bool>[batch], see `Retriever.unread`.
        """
        user = self.retriever.user_table.lookup(user_id)
        read, gap, met = self.retriever.read_history(user, history)
        met = tf.concat([met, self.retriever.item_table.lookup(exclude)], axis=1)
        past = self.read_past(user, history)
        shown = self.recommend_items(
            user,
            read,
            gap,
            met,
            k=k,
            time=time,
            profile=profile,
            features=features,
            past=past,
            wish=(allow, deny),
        )
        modality, because = explain(shown, read, self.items)
        if self.item_head is not None:
            adds = self.item_head.reasons(past, shown.item)
            because = tf.where(adds >= 0, adds, because)
        real = shown.score > LOWEST_SCORE
        blank = tf.fill(tf.shape(real), "")
        names = tf.gather(self.item_id, tf.maximum(because, 0))
        probability = self.calibration(shown.logit)
        weighed = {}
        if "heaviest" in self.items:
            value = tf.gather(tf.gather(self.items["heaviest"], shown.item), modality, batch_dims=2)
            weighed["heaviest"] = tf.where(real, value, -1)
        return {
            **weighed,
            "item_id": tf.where(real, tf.gather(self.item_id, shown.item), blank),
            "score": shown.score,
            "probability": tf.where(real, probability, tf.zeros_like(probability)),
            "modality": tf.where(real, tf.gather(self.modality_name, modality), blank),
            "history_item": tf.where(real & (because >= 0), names, blank),
            "unread": self.retriever.unread(profile, features),
        }

    def rank_ids(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        item_id: tf.Tensor,
        time: tf.Tensor,
        profile: tf.Tensor,
        features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """What is said of items that the caller names, withdrawn and seen ones too.

        Args:
          user_id: <string>[batch].
          history: <string>[batch, step].
          item_id: <string>[batch, candidate].
          time, profile, features: as in `recommend_ids`.

        Returns:
          "score" and "probability", <float32>[batch, candidate]; `LOWEST_SCORE` and 0 for an
          unknown item; and "unread" as in `recommend_ids`.
        """
        user = self.retriever.user_table.lookup(user_id)
        read, gap, _ = self.retriever.read_history(user, history)
        past = self.read_past(user, history)
        request = self.request(user, read, gap, time, profile=profile, features=features, past=past)
        item = self.retriever.item_table.lookup(item_id)
        row, nobody = tf.maximum(item, 0), self.retriever.nobody(request)
        queries = self.retriever.queries(request, nobody)
        retrieved = score_rows(queries, self.index.gather(row))
        retrieved = self.retriever.score_items(request, row, retrieved)
        ranked = self.rank(request, nobody, row, retrieved)
        probability = self.calibration(ranked.logit)
        return {
            "score": tf.where(item >= 0, ranked.score, LOWEST_SCORE),
            "probability": tf.where(item >= 0, probability, tf.zeros_like(probability)),
            "unread": self.retriever.unread(profile, features),
        }

    def embed_user_ids(
        self, user_id: tf.Tensor, history: tf.Tensor, profile: tf.Tensor, features: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The graph of `embed_user`.

        Args:
          user_id: <string>[batch].
          history, profile, features: as in `recommend_ids`.

        Returns:
          "embedding" <float32>[batch, dim], of unit length, whose dot product with an item's is
          what retrieval goes by; with several interests <float32>[batch, interest, dim], of which
          the highest product counts; "known" <bool>[batch], whether anything is known of the user;
          and "unread" as in `recommend_ids`.
        """
        user = self.retriever.user_table.lookup(user_id)
        read, gap, _ = self.retriever.read_history(user, history)
        time = tf.zeros_like(user, tf.int64)
        request = self.request(user, read, gap, time, profile=profile, features=features)
        embedding = tf.math.l2_normalize(request.queries[..., : self.config.dim], axis=-1)
        return {
            "embedding": embedding,
            "known": ~self.retriever.nobody(request),
            "unread": self.retriever.unread(profile, features),
        }

    def similar_ids(self, item_id: tf.Tensor, *, k: int) -> dict[str, tf.Tensor]:
        """The graph behind `similar_items`: <string>[batch] -> "item_id" <string>[batch, k] and
        "score" <float32>[batch, k]."""
        item = self.retriever.item_table.lookup(item_id)
        embedding = self.index.gather(tf.maximum(item, 0))[:, : self.config.dim]
        score, near = self.index.search(
            tf.pad(embedding, [[0, 0], [0, 2]]),
            k,
            exclude=item[:, None],
            allowed=self.available[None, :],
        )
        real = (score > LOWEST_SCORE) & (item >= 0)[:, None]
        return {
            "item_id": tf.where(real, tf.gather(self.item_id, near), ""),
            "score": tf.where(real, score, LOWEST_SCORE),
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
        profile: Sequence[str] | None = None,
        features: Sequence[Sequence[str]] | None = None,
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
          profile: for each user a text, for a model that reads profiles; it replaces the stored
            one. None or "" for none.
          features: for each user side features such as "age=31" or "genre=comedy", for a model
            that reads them; each replaces what is stored under its name. None or an empty list for
            none.
          k: how many.

        Raises:
          ConfigError: when k is below 1, something is missing for a user, no item can have a
            category, or the model does not read a profile or a side feature.
        """
        require_k(k)
        size = len(user_id)
        named = {"history": history, "exclude": exclude, "allow": allow, "deny": deny}
        inputs = {name: pad_lists(name, rows, size) for name, rows in named.items()}
        for lists in (allow, deny):
            for row in () if lists is None else lists:
                self.retriever.filter.require(row)
        for row in () if features is None else features:
            self.retriever.feature_entries.require(row, of="users")
        if profile is not None and any(profile) and not self.retriever.reads_profile:
            raise ConfigError(
                "profile: wanted none, as this model reads no profile texts; got "
                f"{next(filter(None, profile))!r:.60}."
            )
        for name, column in (("time", time), ("profile", profile)):
            if column is not None and len(column) != size:
                raise ConfigError(
                    f"{name}: wanted one for each of {size} users; got {len(column)}."
                )
        inputs["time"] = tf.constant([0] * size if time is None else list(time), tf.int64, [size])
        texts = [""] * size if profile is None else list(profile)
        inputs["profile"] = tf.constant(texts, tf.string, [size])
        inputs["features"] = pad_lists("features", features, size)
        users = tf.constant(list(user_id), tf.string, shape=[size])
        # The graph that is exported, so that both give the same answers to the last bit.
        answer = self.graph(
            ("recommend", k), functools.partial(self.recommend_ids, k=k), RECOMMEND_INPUTS
        )(users, *inputs.values())
        answered = [name for name in Recommendations._fields if name in answer]
        return Recommendations(**{name: to_array(answer[name]) for name in answered})

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
        return SimilarItems(**{name: to_array(value) for name, value in answer.items()})
