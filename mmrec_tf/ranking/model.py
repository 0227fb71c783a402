"""The ranking model: orders the few candidates that retrieval found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mmrec_tf.config import Config
from mmrec_tf.dataset import draws
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import StoredHistories
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.calibration import downsampling_shift, level
from mmrec_tf.evaluation.evaluate import evaluate
from mmrec_tf.ranking.feature_interaction import INTERACTIONS
from mmrec_tf.ranking.losses import LOSSES, squared_loss
from mmrec_tf.ranking.mining import part_stride, search_part
from mmrec_tf.ranking.multitask import SHARINGS, UncertaintyWeights, both_logit
from mmrec_tf.ranking.pair_features import PairFeatures
from mmrec_tf.ranking.signals import Signals
from mmrec_tf.recommender.funnel import ranking_metric
from mmrec_tf.recommender.ranked import Lists, Ranked, Request, Rows
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.index import Added, ExactIndex, gather_rows
from mmrec_tf.retrieval.index.interests import one_an_item, score_rows
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import LOWEST_SCORE
from mmrec_tf.towers import IdEmbedding, UserTower, unit
from mmrec_tf.training.optimizer import build_optimizer
from mmrec_tf.training.stage import Stage
from mmrec_tf.training.step import mean_over_replicas


class RankingModel(Stage):
    """Scores (user, candidate) pairs on embeddings, content, side features, context and retrieval
    score.

    The logit of a click or an event is the retrieval score times a learned factor plus what the
    network adds, so that ranking starts from retrieval's order. Embeddings come from a trained
    retrieval model, which stays as it is.

    Args:
      config: Config.
      dataset: Dataset, the one of `retrieval`.
      retrieval: RetrievalModel, trained.
      initialize: whether the level of logits and ratings is set from the train split, so that on
        average they say how often a candidate is chosen. False where weights are loaded.

    Raises:
      ConfigError: for a task, a rating or a position that the dataset does not have, or when
        `retrieval` was made from another dataset.
    """

    stage = "ranking"

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        *,
        retrieval: RetrievalModel,
        initialize: bool = True,
        **kwargs: Any,
    ):
        super().__init__(config, dataset, **kwargs)
        settings, schema, dim = config.ranking, self.schema, config.dim
        if retrieval.dataset.hash != dataset.hash:
            raise ConfigError(
                f"retrieval: wanted a model made from {dataset.directory}, whose items ranking "
                f"orders; got one made from {retrieval.dataset.directory}. Make both from one."
            )
        require_labels(config, dataset)
        # The namespace hides the retrieval model from Keras, which would train and save it again.
        self.state.retrieval = retrieval
        self.tasks = settings.tasks
        # Of a rating nothing is known by the retrieval score.
        self.binary = [name for name in self.tasks if name != "rating"]
        self.interaction = INTERACTIONS[settings.architecture](
            num_cross_layers=settings.num_cross_layers,
            projection_dim=settings.projection_dim,
            name="interaction",
        )
        hidden = () if settings.architecture == "bilinear" else settings.hidden
        self.experts = SHARINGS[settings.sharing](
            num_tasks=len(self.tasks),
            num_experts=settings.num_experts,
            hidden=hidden,
            dropout=settings.dropout,
            name="experts",
        )
        # Zeros: before training the order is the retrieval model's. A bias adds the same to every
        # candidate, which tells where each stands alone.
        self.heads = [
            tf.keras.layers.Dense(
                1,
                use_bias=name == "rating" or settings.loss == "binary",
                kernel_initializer="zeros",
                dtype="float32",
                name=f"{name}_head",
            )
            for name in self.tasks
        ]
        # Where an event is one after a click, retrieval's score says how probable the click is.
        factors = [float(not settings.entire_space or name == "click") for name in self.binary]
        self.factor = self.add_weight(
            name="factor",
            shape=[len(self.binary)],
            initializer=tf.keras.initializers.Constant(factors),
        )
        self.rating_scale = self.add_weight(
            name="rating_scale",
            shape=[2],
            initializer=tf.keras.initializers.Constant([0.0, 1.0]),
            trainable=False,
        )
        # In the namespace, too: their tables follow from the dataset.
        self.state.signals = Signals(
            config, dataset, head=lambda: retrieval.item_head, modalities=retrieval.modalities
        )
        self.pairs = PairFeatures.from_experiment(
            config, schema, name="pairs", signals=self.state.signals.labels()
        )
        self.position = (
            IdEmbedding(schema.num_positions, 1, name="position")
            if settings.position_bias
            else None
        )
        self.user_tower = self.item_shift = None
        if settings.fine_tune:
            self.user_tower = UserTower.from_experiment(config, schema, name="user_tower")
            # What training adds to an item's embedding: nothing to one that it never met.
            self.item_shift = self.add_weight(
                name="item_shift", shape=[schema.num_items, dim], initializer="zeros"
            )
        self.weigh = (
            UncertaintyWeights(
                ["regression" if name == "rating" else "binary" for name in self.tasks],
                name="uncertainty",
            )
            if settings.uncertainty
            else None
        )
        self.loss_tracker = tf.keras.metrics.Mean(name="loss")
        self.first_tracker = tf.keras.metrics.Mean(name="positive_first")
        self.task_trackers = (
            [tf.keras.metrics.Mean(name=f"{name}_loss") for name in self.tasks]
            if len(self.tasks) > 1
            else []
        )
        self._take_in()
        self._make_weights()
        if initialize:
            self._initialize()
        self.built = True

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds what this one orders."""
        return self.state.retrieval

    @property
    def tables(self) -> list[tf.Variable]:
        """What it looks up beside its weights and the retrieval model's, for an export."""
        return self.state.signals.tables

    @property
    def click_shift(self) -> float:
        """What to add to the logit of a click where negatives were drawn for training: the log of
        the share of a user's candidates that were, see `downsampling_shift`."""
        settings, num_items = self.config.ranking, self.schema.num_items
        if settings.loss != "binary" or not settings.num_negatives:
            return 0.0
        drawn = self._num_found / min(settings.num_candidates, num_items)
        drawn += (settings.num_negatives - self._num_found) / num_items
        return downsampling_shift(min(drawn, 1.0))

    @property
    def _num_found(self) -> int:
        """How many negatives are drawn from what retrieval ranks highest."""
        settings = self.config.ranking
        wanted = round(settings.candidate_share * settings.num_negatives)
        return min(wanted, settings.num_candidates, self.retrieval.schema.num_items)

    def _take_in(self) -> None:
        """The retrieval model's catalog, embedded once, and who met what."""
        retrieval, dataset = self.retrieval, self.dataset
        output = retrieval.embed_catalog()
        self.state.index = ExactIndex(retrieval.catalog_candidates(output.embedding))
        self.state.recommender = None
        self.state.seen = StoredHistories(dataset.histories(), times=False)
        self.state.items = {
            "vector": self.state.index.vectors,
            "modalities": tf.constant(output.modalities),
            "present": tf.constant(output.present),
            "weights": tf.constant(output.weights),
            "features": retrieval.tables["item_features"],
        }
        if self.user_tower is not None:
            self._embed_users(self._blank_request(), self.items)
            self.user_tower.set_weights(retrieval.user_tower.get_weights())

    def _initialize(self) -> None:
        """Sets what a new model does not start at random: where ratings lie, and the level of the
        logits."""
        train = self.dataset.interactions("train")
        if "rating" in self.tasks:
            rating = train.rating
            self.rating_scale.assign([rating.mean(), max(float(rating.std()), 1e-6)])
        settings = self.config.ranking
        if settings.loss != "binary":
            return
        lists = self._lists(next(iter(self.batches("train", batch_size=1024))))
        for place, name in enumerate(self.tasks):
            if name in self.binary:
                score, label, weight = (
                    part.numpy().ravel()
                    for part in (lists.retrieved, lists.labels[name], lists.weight)
                )
                if settings.entire_space and name != "click":
                    # Among clicks, and not by the score.
                    click = lists.labels["click"].numpy().ravel()
                    weight, score = weight * click, np.zeros_like(score)
                    if not weight.any():
                        continue
                self.heads[place].bias.assign([level(score[weight > 0], label[weight > 0])])

    @property
    def epochs(self) -> int:
        """How many epochs the config asks for."""
        return self.config.ranking.epochs

    @property
    def monitor(self) -> str:
        """What the config wants to be best on the valid split."""
        return self.config.ranking.monitor or self.config.training.monitor

    @property
    def measure_start(self) -> bool:
        """True: an untrained ranking model keeps retrieval's order, which training has to beat."""
        return True

    def default_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer that the config asks for. Its rate stays as it is: few epochs of a small
        network that starts from zeros."""
        return build_optimizer(
            self.config.training, learning_rate=self.config.ranking.learning_rate
        )

    def batches(
        self, split: str = "train", *, batch_size: int | None = None, seed: int | None = None
    ) -> tf.data.Dataset:
        """As `Stage.batches`, with what users did not click as `disliked`."""
        click_rating = self.config.ranking.click_rating
        return self._split_batches(
            split,
            batch_size,
            seed,
            # Ranking learns from a user's own candidates, popular ones too.
            as_served=True,
            keep_disliked=click_rating is not None,
            unclicked_below=click_rating,
        )

    @property
    def recommender(self) -> Recommender:
        """Both stages together, as they are measured, on what train knows: this model's weights as
        they are now. It embeds the catalog once, which ranking does not change."""
        if self.state.recommender is None:
            self.state.recommender = Recommender(
                self.retrieval, self, self.dataset, history="train"
            )
        return self.state.recommender

    def rank_items(
        self, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
    ) -> np.ndarray:
        """As `mmrec_tf.evaluation.evaluate.Ranker` has it, after both stages."""
        return self.recommender.rank_items(dataset, users, k=k, history=history)

    def embed(self, users: np.ndarray) -> np.ndarray:
        """The retrieval model's embeddings of users, <int>[n] -> <float32>[n, dim]."""
        return self.retrieval.embed(users)

    def measure(self, dataset: Dataset, monitor: str) -> float:
        """One metric of both stages on the valid split; higher is better."""
        metric, _, k = monitor.partition("@")
        if not k:
            return ranking_metric(self.recommender, dataset, metric)
        clicked = self.config.ranking.click_rating
        return evaluate(self, dataset, split="valid", ks=[int(k)], min_rating=clicked)[monitor]

    def frozen_layers(self) -> dict[str, tf.keras.layers.Layer]:
        """The retrieval model, which ranking leaves as it is."""
        return {"retrieval": self.retrieval}

    @property
    def items(self) -> dict:
        """The catalog as ranking reads it, tables with one row an item."""
        return self.state.items

    def _embed_items(self, item: tf.Tensor, items: Mapping[str, Any]) -> tf.Tensor:
        """<int32>[...] -> <float32>[..., dim]."""
        vector = gather_rows(items["vector"], item)[..., : self.config.dim]
        if self.item_shift is None:
            return vector
        return unit(vector + tf.gather(self.item_shift, item))

    def _embed_users(
        self, request: Request, items: Mapping[str, Any], training: bool = False
    ) -> tf.Tensor:
        """<float32>[batch, dim], or with several interests <float32>[batch, interest, dim], unit
        vectors."""
        if self.user_tower is None:
            return unit(request.queries[..., : self.config.dim])
        return self.retrieval.embed_users(
            request.user,
            self._embed_items(tf.maximum(request.history, 0), items),
            request.history >= 0,
            gap=request.gap,
            profile=request.profile,
            features=request.features,
            training=training,
            tower=self.user_tower,
        )

    def rank(
        self,
        request: Request,
        item: tf.Tensor,
        items: Mapping[str, Any],
        score: tf.Tensor,
        *,
        training: bool = False,
        rows: Rows | None = None,
    ) -> Ranked:
        """What the model says of candidates.

        Args:
          request: Request.
          item: <int32>[batch, candidate], numbers of items.
          items: what `items` holds, tables with one row an item.
          score: <float32>[batch, candidate], the retrieval model's.
          training: whether dropout is on.
          rows: the candidates themselves, where they are in no table; `item` then only says how
            many there are. None takes the tables' rows.

        Returns:
          Ranked.
        """
        fields, dense, attention = self.gather_pairs(
            request, item, items, score, training=training, rows=rows
        )
        ranked = self.score_pairs(fields, dense, score, training=training)
        return ranked if self.pairs.attention is None else ranked._replace(attention=attention)

    def gather_pairs(
        self,
        request: Request,
        item: tf.Tensor,
        items: Mapping[str, Any],
        score: tf.Tensor,
        *,
        training: bool = False,
        rows: Rows | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What the network reads of candidates, arguments as for `rank`: what `PairFeatures.call`
        returns."""
        in_catalog = rows is None
        if rows is None:
            rows = Rows(
                vector=gather_rows(items["vector"], item),
                modalities=tf.gather(items["modalities"], item),
                present=tf.gather(items["present"], item),
                weights=tf.gather(items["weights"], item),
                features={n: tf.gather(v, item) for n, v in items["features"].items()},
            )
            embedding = self._embed_items(item, items)
        else:
            # Training shifts no item that it never met.
            embedding = rows.vector[..., : self.config.dim]
        bias = rows.vector[..., self.config.dim : self.config.dim + 1]
        numbers = [score[..., None], bias]
        if self.state.signals.names:
            met = tf.maximum(request.history, 0)
            numbers.append(
                self.state.signals(
                    request,
                    item,
                    rows,
                    history=gather_rows(items["vector"], met)[..., : self.config.dim],
                    modalities=tf.gather(items["modalities"], met),
                    present=tf.gather(items["present"], met),
                    in_catalog=in_catalog,
                    training=training,
                )
            )
        user = self._embed_users(request, items, training)
        if user.shape.rank == 3:
            user = one_an_item(user, embedding)
        return self.pairs(
            {
                "user": user,
                "item": embedding,
                "numbers": tf.concat(numbers, axis=-1),
                "modalities": rows.modalities,
                "present": rows.present,
                "weights": rows.weights,
                "item_features": rows.features,
                "user_features": self.retrieval.features_of(request.user)
                if request.features is None
                else request.features,
                "history": self._embed_items(tf.maximum(request.history, 0), items),
                "known": request.history >= 0,
                "time": request.time,
            },
            training=training,
        )

    def score_pairs(
        self, fields: tf.Tensor, dense: tf.Tensor, score: tf.Tensor, *, training: bool = False
    ) -> Ranked:
        """What the network says of what it reads.

        Args:
          fields, dense: as `PairFeatures.call` returns them.
          score: <float32>[batch, candidate], the retrieval model's.
          training: whether dropout is on.

        Returns:
          Ranked, without attention.
        """
        pairs = [tf.reshape(x, [-1, *x.shape[2:]]) for x in (fields, dense)]
        deep, wide = self.interaction(pairs, training=training)
        logits, shape = {}, tf.shape(score)
        parts = self.experts(deep, training=training)
        for name, head, part in zip(self.tasks, self.heads, parts, strict=True):
            out = tf.reshape(head(tf.concat([part, wide], axis=1)), shape)
            if name == "rating":
                logits[name] = self.rating_scale[0] + self.rating_scale[1] * out
            else:
                logits[name] = self.factor[self.binary.index(name)] * score + out
        if self.config.ranking.entire_space:
            for name in self.binary:
                if name != "click":
                    logits[name] = both_logit(logits["click"], logits[name])
        weights = self.config.ranking.score_weights
        if not weights:
            return Ranked(logits[self.tasks[0]], logits, None)
        total = tf.zeros_like(score)
        for name, weight in zip(self.tasks, weights, strict=True):
            value = logits[name]
            if name == "rating":
                value = (value - self.rating_scale[0]) / self.rating_scale[1]
            total += weight * value
        return Ranked(total, logits, None)

    def draw_negatives(self, request: Request, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Items to tell the positive from: some that retrieval ranks highest, in a large catalog
        of a part that is drawn for the step (`mmrec_tf.ranking.mining`), and some at random.

        Args:
          request: Request.
          item: <int32>[batch], the positives.

        Returns:
          <int32>[batch, negative] and their weights <float32>[batch, negative], 0 where a draw hit
          the positive or another train item of the user.
        """
        settings = self.config.ranking
        num_items = self.state.index.vectors.shape[0]
        num_random = settings.num_negatives - self._num_found
        batch = tf.shape(item)[0]
        known = tf.concat([item[:, None], self.state.seen.read(request.user).item], axis=1)
        drawn = [draws.uniform([batch, num_random], maxval=num_items, dtype=tf.int32)]
        if self._num_found:
            top = self._find(request, known)
            _, place = tf.math.top_k(draws.uniform(tf.shape(top)), k=self._num_found)
            drawn.append(tf.gather(top, place, batch_dims=1))
        negative = tf.concat(drawn, axis=1)
        hit = tf.reduce_any(tf.equal(negative[:, :, None], known[:, None, :]), axis=2)
        return negative, tf.cast(~hit, tf.float32)

    def _find(self, request: Request, known: tf.Tensor) -> tf.Tensor:
        """Some of what retrieval ranks highest and users do not know, <int32>[batch, any].

        In a part of a large catalog by the towers alone: a head scores all items of it at once.
        """
        settings, index = self.config.ranking, self.state.index
        num_items = index.vectors.shape[0]
        stride = part_stride(num_items, settings.num_candidates, self._num_found)
        if stride == 1:
            head = self.retrieval.item_head
            added = None if head is None else Added(head, request.whole)
            k = settings.num_candidates
            return index.exact_search(request.queries, k, exclude=known, added=added)[1]
        k = max(self._num_found, round(settings.num_candidates / stride))
        vectors = tf.convert_to_tensor(index.vectors)
        return search_part(vectors, request.queries, known, stride=stride, k=k)

    def _lists(self, inputs: Mapping[str, tf.Tensor]) -> Lists:
        """The candidates of each example with their labels."""
        item, settings = inputs["item"], self.config.ranking
        request = self._request(inputs)
        click = tf.ones_like(inputs["rating"])
        if settings.click_rating is not None:
            click = tf.cast(inputs["rating"] >= settings.click_rating, tf.float32)
        negative, weight = self.draw_negatives(request, item)
        # A list is of a click; one without makes an example of its own item alone.
        weight *= click[:, None]
        if settings.loss != "binary":
            # They come as any window over the user's, another one in each epoch.
            disliked = inputs["disliked"][:, : settings.num_disliked]
            negative = tf.concat([negative, tf.maximum(disliked, 0)], axis=1)
            counts = (disliked >= 0) & (disliked != item[:, None])
            weight = tf.concat([weight, tf.cast(counts, tf.float32)], axis=1)
        candidates = tf.concat([item[:, None], negative], axis=1)
        blank = tf.zeros_like(weight)
        labels = {
            name: tf.concat([value[:, None], blank], axis=1)
            for name, value in (
                ("click", click),
                ("rating", inputs["rating"]),
                *zip(self.schema.events, tf.unstack(inputs["events"], axis=1), strict=True),
            )
            if name in self.tasks
        }
        if settings.entire_space:
            for name in self.binary:
                labels[name] *= labels["click"]
        retrieved = self._retrieved(request, candidates)
        weight = tf.concat([tf.ones_like(click)[:, None], weight], axis=1)
        return Lists(request, candidates, retrieved, weight, labels)

    def compute_loss(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The loss of each positive against its drawn negatives, summed over the tasks.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.

        Returns:
          <float32>[], the mean over the batch's examples.
        """
        settings = self.config.ranking
        lists = self._lists(inputs)
        ranked = self.rank(
            lists.request, lists.item, self.items, lists.retrieved, training=training
        )
        losses = []
        for name in self.tasks:
            logits, labels, weight = ranked.logits[name], lists.labels[name], lists.weight
            if name == "rating":
                # Nobody rated what was drawn.
                scaled = (x[:, :1] - self.rating_scale[0] for x in (logits, labels))
                first, second = (x / self.rating_scale[1] for x in scaled)
                each = squared_loss(first, second, tf.ones_like(first))
            else:
                if self.position is not None and training:
                    # All candidates as if shown where the example's item was.
                    logits += self.position(inputs["position"])
                if name != "click":
                    # A disliked item is no click, but may well have been bought.
                    drawn = 1 + settings.num_negatives
                    logits, labels, weight = (x[:, :drawn] for x in (logits, labels, weight))
                each = LOSSES[settings.loss](logits, labels, weight, settings)
            losses.append(mean_over_replicas(each * inputs["weight"]))
        for tracker, loss in zip(self.task_trackers, losses, strict=False):
            tracker.update_state(loss)
        if self.weigh is not None:
            loss = self.weigh(losses)
        else:
            weights = settings.task_weights or (1.0,) * len(losses)
            loss = tf.add_n([w * each for w, each in zip(weights, losses, strict=True)])
        self.loss_tracker.update_state(loss)
        shown = tf.where(lists.weight > 0, ranked.score, LOWEST_SCORE)
        self.first_tracker.update_state(tf.argmax(shown, axis=1) == 0)
        return loss

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The scores of the items that a batch names.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.
          training: whether dropout is on.

        Returns:
          <float32>[batch], what orders candidates.
        """
        request = self._request(inputs)
        item = inputs["item"][:, None]
        retrieved = self._retrieved(request, item)
        return self.rank(request, item, self.items, retrieved, training=training).score[:, 0]

    def _retrieved(self, request: Request, item: tf.Tensor) -> tf.Tensor:
        """The retrieval model's scores of items, <int32>[batch, any] -> <float32>[batch, any]."""
        vectors = gather_rows(self.items["vector"], item)
        score = score_rows(request.queries, vectors)
        head = self.retrieval.item_head
        return score if head is None else score + head.score_items(request.whole, item)

    def _request(self, inputs: Mapping[str, tf.Tensor]) -> Request:
        """Whom a batch's examples are of."""
        history = inputs["history"]
        rows = gather_rows(self.items["vector"], tf.maximum(history, 0))[..., : self.config.dim]
        user = self.retrieval.embed_users(inputs["user"], rows, history >= 0, gap=inputs["gap"])
        queries = tf.stop_gradient(self.retrieval.queries(user))
        return Request(queries, inputs["user"], history, inputs["gap"], inputs["time"])

    def _blank_request(self) -> Request:
        steps, interests = self.config.user.history_length, self.config.user.interests
        return Request(
            tf.zeros([1, *([interests] if interests > 1 else []), self.config.dim + 1]),
            tf.constant([-1]),
            tf.fill([1, steps], -1),
            tf.fill([1, steps], -1.0),
            tf.zeros([1], tf.int64),
        )

    def _make_weights(self) -> None:
        """Creates all weights."""
        self.rank(self._blank_request(), tf.zeros([1, 1], tf.int32), self.items, tf.zeros([1, 1]))
        if self.position is not None:
            self.position(tf.constant([-1]))
        if self.weigh is not None:
            self.weigh([tf.zeros([])] * len(self.tasks))


def require_labels(config: Config, dataset: Dataset) -> None:
    """Refuses settings of ranking that need what the dataset does not have.

    Raises:
      ConfigError: naming the setting.
    """
    settings, schema = config.ranking, dataset.schema
    known = ["click", *(["rating"] if schema.ratings else []), *schema.events]
    for name in settings.tasks:
        if name not in known:
            raise ConfigError(
                f"ranking.tasks: wanted some of {', '.join(known)}, which the dataset has; got "
                f"{name!r}. Leave it out, or prepare the dataset with ratings or types of event."
            )
    if settings.click_rating is not None and not schema.ratings:
        raise ConfigError(
            f"ranking.click_rating: wanted null, as the dataset has no ratings; got "
            f"{settings.click_rating:g}."
        )
    dataset.require_rated(settings.click_rating, setting="ranking.click_rating")
    if settings.position_bias and not schema.num_positions:
        raise ConfigError(
            "ranking.position_bias: wanted false, as the dataset does not say at which positions "
            "items were shown; got true."
        )
