"""The first stage in a graph: what a request asks for, to the items that retrieval finds."""

import copy
import types
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset.catalog import relative_log_frequency
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import StoredHistories, drop_repeats
from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.category_filter import CategoryFilter
from mmrec_tf.recommender.feature_entries import FeatureEntries, replace_features
from mmrec_tf.recommender.numbering import Numbering
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.retrieval.catalog_tables import PROFILE
from mmrec_tf.retrieval.index import Added, ExactIndex, best_of
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import LOWEST_SCORE
from mmrec_tf.towers import TowerOutput


class Retriever(tf.Module):
    """Finds candidates: who asks, what they met, and the items nearest to that.

    Args:
      retrieval: RetrievalModel, trained.
      dataset: Dataset, for ids and histories.
      catalog: TowerOutput, what `retrieval.embed_catalog` returned.
      config: Config of the model that is served.
      reads_features: whether either stage reads side features of users.
      unavailable: ids of items that are never found.
      history: what is known of users, as for `Dataset.known_interactions`.

    Raises:
      ConfigError: for an id of `unavailable` that the dataset does not have, or an unknown history.
    """

    def __init__(
        self,
        retrieval: RetrievalModel,
        dataset: Dataset,
        catalog: TowerOutput,
        *,
        config: Config,
        reads_features: bool,
        unavailable: Sequence[str] = (),
        history: str = "all",
    ):
        super().__init__(name="retriever")
        # A namespace hides the model from tf.Module: what is exported must not carry the weights
        # of item tower and encoders.
        self.state = types.SimpleNamespace(retrieval=retrieval, encode_texts=None)
        self.config = config
        self.dim = config.dim
        self.history_length = config.user.history_length
        vectors = retrieval.candidates(
            tf.constant(catalog.embedding), retrieval.tables["log_frequency"]
        )
        self._know(dataset, history, vectors)
        self.item_table = Numbering(dataset.catalog.item_id)
        self.user_table = Numbering(dataset.users.user_id)
        self.available = tf.Variable(
            find_available(dataset, unavailable), name="available", trainable=False
        )
        self.filter = CategoryFilter(dataset.schema.item_features, dataset.catalog.features)
        specs = dataset.schema.user_features if reads_features else {}
        self.feature_entries = FeatureEntries(specs)

    def _know(self, dataset: Dataset, history: str, vectors: tf.Tensor) -> None:
        """Takes in what is known of users: what they met and like, and what is popular.

        Args:
          dataset: Dataset.
          history: as for `Dataset.known_interactions`.
          vectors: <float32>[item, dim + 1], as `RetrievalModel.candidates` makes them. The bias in
            them is trained, and is that of train whatever is known.
        """
        popularity = relative_log_frequency(dataset.known_count(history))
        # One more column: what is popular is found by the same dot product.
        self.index = ExactIndex(tf.concat([vectors, popularity[:, None]], axis=1), name="index")
        self.seen_items = StoredHistories(dataset.histories(history=history), times=False)
        self.liked_items = self.seen_items
        time_gaps = self.config.user.time_gaps
        disliked_below = self.config.retrieval.disliked_below
        if time_gaps or disliked_below is not None:
            liked = dataset.histories(disliked_below=disliked_below, history=history)
            self.liked_items = StoredHistories(liked, times=time_gaps)

    def with_history(self, dataset: Dataset, history: str) -> "Retriever":
        """The same on other interactions, with an index that looks at every item."""
        other = copy.copy(self)
        other._know(dataset, history, self.index.vectors[:, :-1])
        return other

    @property
    def retrieval(self) -> RetrievalModel:
        """The model whose towers it searches with."""
        return self.state.retrieval

    @property
    def item_head(self) -> ItemHead | None:
        """What adds to the dot product; None for nothing."""
        return self.retrieval.item_head

    def with_index(self, index: ExactIndex) -> "Retriever":
        """The same with another index of the same vectors."""
        other = copy.copy(self)
        other.index = index
        return other

    def read_history(
        self, user: tf.Tensor, history: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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
        given = drop_repeats(given, blank=-1)
        # The last `length` known ones, in their order.
        whole = tf.concat([tf.fill([batch, length], -1), given], axis=1)
        place = tf.where(whole >= 0, tf.range(1, length + steps + 1)[None, :], 0)
        _, last = tf.math.top_k(place, k=length)
        last = tf.gather(whole, tf.sort(last, axis=1), batch_dims=1)
        some = tf.reduce_any(given >= 0, axis=1, keepdims=True)
        stored = self.liked_items.read(user, length=length)
        read, gap = tf.where(some, last, stored.item), tf.where(some, -1.0, stored.gap)
        return read, gap, tf.concat([given, self.seen_items.read(user).item], axis=1)

    def read_past(self, user: tf.Tensor, history: tf.Tensor | None = None) -> tf.Tensor | None:
        """What a head of items against items reads: as `read_history`, but all that the history
        holds and the user likes. <int32>[batch, any], oldest first, -1 for padding; None without a
        head."""
        if self.item_head is None:
            return None
        stored = self.liked_items.read(user).item
        if history is None:
            return stored
        given = drop_repeats(self.item_table.lookup(history), blank=-1)
        some = tf.reduce_any(given >= 0, axis=1, keepdims=True)
        width = tf.maximum(tf.shape(stored)[1], tf.shape(given)[1])
        stored, given = (
            tf.pad(part, [[0, 0], [0, width - tf.shape(part)[1]]], constant_values=-1)
            for part in (stored, given)
        )
        return tf.where(some, given, stored)

    def added(self, request: Request) -> Added | None:
        """What a head of items against items adds to the scores of all items."""
        return None if self.item_head is None else Added(self.item_head, request.whole)

    def score_items(self, request: Request, item: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
        """Scores of some items by the towers, <int32>[batch, any] and <float32>[batch, any] -> the
        same with what the head adds."""
        if self.item_head is None:
            return score
        return score + self.item_head.score_items(request.whole, item)

    @property
    def reads_profile(self) -> bool:
        """Whether profile texts have an effect."""
        return self.retrieval.user_tower.profile is not None

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
        """Whom candidates are for.

        Args:
          user, history, gap, time: as in `Request`; see `read_history`.
          profile: <string>[batch], texts that replace the stored ones; "" keeps those, as None
            does for all.
          features: <string>[batch, any], side features, see `FeatureEntries`; each replaces what is
            stored under its name.
          past: see `read_past`; None for `history`.
        """
        vectors = self._encode_profiles(user, profile) if self.reads_profile else None
        replaced = None
        if features is not None and self.feature_entries.specs:
            brought, _ = self.feature_entries(features)
            replaced = replace_features(self.retrieval.features_of(user), brought)
        embedding = self.index.gather(tf.maximum(history, 0))
        embedded = self.retrieval.embed_users(
            user,
            embedding[..., : self.dim],
            history >= 0,
            gap=gap,
            profile=vectors,
            features=replaced,
        )
        queries = self.retrieval.queries(embedded)
        return Request(queries, user, history, gap, time, vectors, replaced, past)

    def _encode_profiles(self, user: tf.Tensor, profile: tf.Tensor | None) -> tf.Tensor:
        """<float32>[batch, features]; the text encoder runs for brought texts only."""
        stored = self.retrieval.profiles_of(user)
        if profile is None:
            return stored
        row = tf.where(tf.strings.length(profile) > 0)[:, 0]

        def encode() -> tf.Tensor:
            vectors = tf.cast(self._encode_texts(tf.gather(profile, row)), stored.dtype)
            return tf.tensor_scatter_nd_update(stored, row[:, None], vectors)

        return tf.cond(tf.size(row) > 0, encode, lambda: stored)

    def _encode_texts(self, text: tf.Tensor) -> tf.Tensor:
        """<string>[text] -> <float32>[text, features], by one function of the graph, which all that
        recommends, ranks and embeds calls."""
        if self.state.encode_texts is None:

            def encode(text: tf.Tensor) -> tf.Tensor:
                encoder = self.retrieval.encoders[PROFILE]
                content, _ = encoder.preprocess_readable(text)
                return encoder(content, training=False)

            specs = [tf.TensorSpec([None], tf.string)]
            # Outside of whatever is traced just now, so that others may call it, too.
            with tf.init_scope():
                function = tf.function(encode, input_signature=specs, autograph=False)
                self.state.encode_texts = function.get_concrete_function()
        return self.state.encode_texts(text)

    def unread(self, profile: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        """Whether a request brings a profile or a side feature that the model passes over.

        Args:
          profile: <string>[batch].
          features: <string>[batch, any].

        Returns:
          <bool>[batch].
        """
        unread = tf.reduce_any(self.feature_entries(features)[1], axis=1)
        return unread if self.reads_profile else unread | (tf.strings.length(profile) > 0)

    def nobody(self, request: Request) -> tf.Tensor:
        """<bool>[batch], whether nothing is known of a user."""
        nobody = tf.reduce_all(request.history < 0, axis=1)
        tower = self.retrieval.user_tower
        if tower.profile is None and tower.features is None:
            return nobody
        known = request.user >= 0
        brought = [] if request.profile is None else [request.profile]
        if tower.features is not None and request.features is not None:
            brought += request.features.values()
        # Of an unknown user that is all zeros, but for what the request brought.
        for value in brought:
            known |= tf.reduce_any(value != 0, axis=1)
        return nobody & ~known

    def queries(self, request: Request, nobody: tf.Tensor) -> tf.Tensor:
        """<float32>[batch, dim + 2], for the index."""
        queries = tf.pad(request.queries, [[0, 0], [0, 1]])
        popular = tf.one_hot(self.dim + 1, self.dim + 2)
        return tf.where(nobody[:, None], popular[None, :], queries)

    def search(
        self,
        request: Request,
        nobody: tf.Tensor,
        exclude: tf.Tensor,
        *,
        num: int,
        wish: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The items nearest to users.

        An index that does not look at every item might miss what is popular, or of a category, as
        such items may lie anywhere: whoever asks for these is compared with every item.

        Args:
          request: Request.
          nobody: <bool>[batch], see `nobody`.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          num: int. How many, cut to the number of items.
          wish: the categories that are allowed and denied, see `CategoryFilter`; None for any.

        Returns:
          Scores <float32>[batch, num] and items <int32>[batch, num], see `ExactIndex.search`.
        """
        queries, added = self.queries(request, nobody), self.added(request)
        if self.index.exact:
            return self.index.exact_search(
                queries, num, exclude=exclude, allowed=self._allowed(wish), added=added
            )
        found = self.index.search(queries, num, exclude=exclude, allowed=self._allowed(None))
        if self.item_head is not None:
            found = self._unite(queries, request.whole, exclude, *found)
        whole = nobody if wish is None else nobody | self.filter.asks(*wish)

        def compare() -> list[tf.Tensor]:
            row = tf.where(whole)[:, 0]
            # Not `gather_nd`, which refuses lists without any entry.
            asked = None if wish is None else (tf.gather(wish[0], row), tf.gather(wish[1], row))
            exact = self.index.exact_search(
                tf.gather(queries, row),
                num,
                exclude=tf.gather(exclude, row),
                allowed=self._allowed(asked),
                added=added and added._replace(past=tf.gather(added.past, row)),
            )
            pairs = zip(found, exact, strict=True)
            return [tf.tensor_scatter_nd_update(old, row[:, None], new) for old, new in pairs]

        return tf.cond(tf.reduce_any(whole), compare, lambda: list(found))

    def _unite(
        self,
        queries: tf.Tensor,
        past: tf.Tensor,
        exclude: tf.Tensor,
        score: tf.Tensor,
        item: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What an index found by the dot product, and as many items that the head puts first, in
        the order of their sums.

        Args:
          queries: <float32>[batch, dim + 2].
          past: <int32>[batch, any], see `read_past`.
          exclude: <int32>[batch, any], items that must not be found; -1 for none.
          score, item: [batch, num], as the index found them.

        Returns:
          Scores <float32>[batch, num] and items <int32>[batch, num].
        """
        head, num = self.item_head, item.shape[1]
        assert head is not None
        may = tf.where(self.available, 1.0, 0.0)

        def unite(row: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
            query, read, counts, scale, hidden, score, item = row
            added = head.score(read, counts, scale)
            # What must not be found would take the place of what may.
            hide = tf.boolean_mask(hidden, hidden >= 0)[:, None]
            free = tf.tensor_scatter_nd_update(added * may, hide, tf.zeros([tf.shape(hide)[0]]))
            more = head.strongest(read, free, count=num, counts=counts)
            items = tf.concat([tf.boolean_mask(item, score > LOWEST_SCORE), more], axis=0)
            return best_of(
                self.index.vectors,
                query,
                tf.unique(items).y,
                hidden,
                k=num,
                first=self.index.first,
                added=added,
            )

        specs = (tf.TensorSpec([num], tf.float32), tf.TensorSpec([num], tf.int32))
        return tf.map_fn(
            unite,
            (queries, *head.read(past), exclude, score, item),
            fn_output_signature=specs,
        )

    def _allowed(self, wish: tuple[tf.Tensor, tf.Tensor] | None) -> tf.Tensor:
        """<bool>[batch or 1, item]."""
        available = tf.convert_to_tensor(self.available)
        return available[None, :] if wish is None else self.filter(*wish, available)


def find_available(dataset: Dataset, unavailable: Sequence[str]) -> np.ndarray:
    """Which items may be found, <bool>[item].

    Raises:
      ConfigError: for an id that no item has.
    """
    number = {name: row for row, name in enumerate(dataset.catalog.item_id)}
    unknown = [name for name in unavailable if name not in number]
    if unknown:
        raise ConfigError(
            f"unavailable: wanted ids of items of {dataset.directory}; got {len(unknown)} that are "
            f"none, such as {unknown[0]!r}."
        )
    available = np.ones([len(number)], bool)
    available[[number[name] for name in unavailable]] = False
    return available
