"""The ranking model: orders the few candidates that retrieval found."""

import dataclasses
import types

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.config import Config
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import StoredHistories
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.evaluation.calibration import downsampling_shift, level
from mmrec_tf.ranking.feature_interaction import INTERACTIONS
from mmrec_tf.ranking.losses import (
    binary_loss,
    listwise_softmax_loss,
    pairwise_logistic_loss,
    squared_loss,
)
from mmrec_tf.ranking.multitask import SHARINGS, UncertaintyWeights
from mmrec_tf.ranking.pair_features import PairFeatures
from mmrec_tf.recommender.ranked import Lists, Ranked, Request
from mmrec_tf.retrieval.index import ExactIndex
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.retrieval.negatives import mean_over_replicas
from mmrec_tf.schema import Schema
from mmrec_tf.towers import IdEmbedding, UserTower, unit
from mmrec_tf.training.optimizer import apply_step


class RankingModel(tfrs.Model):
    """Scores (user, candidate) pairs on embeddings, content, side features, context and retrieval
    score.

    The logit of a click or an event is the retrieval score times a learned factor plus what the
    network adds, so that ranking starts from retrieval's order. Embeddings come from a trained
    retrieval model, which stays as it is.

    Args:
      config: Config.
      retrieval: RetrievalModel, trained, with its catalog.

    Raises:
      ConfigError: for a task, a rating or a position that the dataset does not have.
    """

    def __init__(self, config: Config, retrieval: RetrievalModel, **kwargs):
        super().__init__(**kwargs)
        settings, schema, dim = config.ranking, retrieval.schema, config.dim
        _require_labels(config, schema)
        self.config = config
        # A namespace hides the retrieval model from Keras, which would train and save it again.
        self.state = types.SimpleNamespace(retrieval=retrieval, items=None, index=None, seen=None)
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
        self.factor = self.add_weight(name="factor", shape=[len(self.binary)], initializer="ones")
        self.rating_scale = self.add_weight(
            name="rating_scale",
            shape=[2],
            initializer=tf.keras.initializers.Constant([0.0, 1.0]),
            trainable=False,
        )
        self.pairs = PairFeatures.from_experiment(config, schema, name="pairs")
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

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds what this one orders."""
        return self.state.retrieval

    @property
    def click_shift(self) -> float:
        """What to add to the logit of a click where negatives were drawn for training: the log of
        the share of a user's candidates that were, see `downsampling_shift`."""
        settings, num_items = self.config.ranking, self.retrieval.schema.num_items
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

    def adapt(self, dataset: Dataset) -> None:
        """Takes in the retrieval model's catalog, embedded once, and who met what.

        Args:
          dataset: Dataset.
        """
        retrieval = self.retrieval
        output = retrieval.embed_catalog()
        log_frequency = retrieval.tables["log_frequency"]
        vectors = retrieval.candidates(tf.constant(output.embedding), log_frequency)
        self.state.index = ExactIndex(vectors)
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

    def initialize(self, dataset: Dataset) -> None:
        """Sets what a new model does not start at random: where ratings lie, and the level of the
        logits, so that on average they say how often a candidate is chosen. Needs `adapt`.

        Args:
          dataset: Dataset.
        """
        train = dataset.interactions("train")
        if "rating" in self.tasks:
            rating = train.rating
            self.rating_scale.assign([rating.mean(), max(float(rating.std()), 1e-6)])
        if self.config.ranking.loss != "binary":
            return
        batches = self.batches(dataset, batch_size=1024, seed=self.config.training.seed)
        lists = self._lists(next(iter(batches)))
        for place, name in enumerate(self.tasks):
            if name in self.binary:
                score, label, weight = (
                    part.numpy().ravel()
                    for part in (lists.retrieved, lists.labels[name], lists.weight)
                )
                self.heads[place].bias.assign([level(score[weight > 0], label[weight > 0])])

    def batches(self, dataset: Dataset, batch_size: int, *, seed: int, data_service: str = ""):
        """The train split as this model learns from it; see `Dataset.batches`."""
        # Ranking learns from a user's own candidates, popular ones too.
        retrieval = dataclasses.replace(self.config.retrieval, item_balance=0.0)
        click_rating = self.config.ranking.click_rating
        return dataset.batches(
            "train",
            batch_size,
            user=self.config.user,
            retrieval=retrieval,
            keep_disliked=click_rating is not None,
            unclicked_below=click_rating,
            shuffle=True,
            seed=seed,
            data_service=data_service,
        )

    @property
    def items(self) -> dict:
        """What `adapt` stored.

        Raises:
          RunError: when it was not called.
        """
        if self.state.items is None:
            raise RunError("the ranking model has no catalog yet: call adapt(dataset) first.")
        return self.state.items

    def _embed_items(self, item, items):
        """<int32>[...] -> <float32>[..., dim]."""
        vector = tf.gather(items["vector"], item)[..., : self.config.dim]
        if self.item_shift is None:
            return vector
        return unit(vector + tf.gather(self.item_shift, item))

    def _embed_users(self, request: Request, items, training=False):
        """<float32>[batch, dim], unit vectors."""
        if self.user_tower is None:
            return unit(request.queries[:, : self.config.dim])
        return self.retrieval.embed_users(
            request.user,
            self._embed_items(tf.maximum(request.history, 0), items),
            request.history >= 0,
            gap=request.gap,
            training=training,
            tower=self.user_tower,
        )

    def rank(self, request: Request, item, items, score, *, training=False) -> Ranked:
        """What the model says of candidates.

        Args:
          request: Request.
          item: <int32>[batch, candidate], numbers of items.
          items: what `items` holds, tables with one row an item.
          score: <float32>[batch, candidate], the retrieval model's.
          training: whether dropout is on.

        Returns:
          Ranked.
        """
        vector = tf.gather(items["vector"], item)
        bias = vector[..., self.config.dim : self.config.dim + 1]
        fields, dense, attention = self.pairs(
            {
                "user": self._embed_users(request, items, training),
                "item": self._embed_items(item, items),
                "numbers": tf.concat([score[..., None], bias], axis=-1),
                **{n: tf.gather(items[n], item) for n in ("modalities", "present", "weights")},
                "item_features": {n: tf.gather(v, item) for n, v in items["features"].items()},
                "user_features": self.retrieval.features_of(request.user),
                "history": self._embed_items(tf.maximum(request.history, 0), items),
                "known": request.history >= 0,
                "time": request.time,
            },
            training=training,
        )
        if self.pairs.attention is None:
            attention = None
        pairs = [tf.reshape(x, [-1, *x.shape[2:]]) for x in (fields, dense)]
        deep, wide = self.interaction(pairs, training=training)
        logits, shape = {}, tf.shape(item)
        parts = self.experts(deep, training=training)
        for name, head, part in zip(self.tasks, self.heads, parts, strict=True):
            out = tf.reshape(head(tf.concat([part, wide], axis=1)), shape)
            if name == "rating":
                logits[name] = self.rating_scale[0] + self.rating_scale[1] * out
            else:
                logits[name] = self.factor[self.binary.index(name)] * score + out
        weights = self.config.ranking.score_weights
        if not weights:
            return Ranked(logits[self.tasks[0]], logits, attention)
        total = tf.zeros_like(score)
        for name, weight in zip(self.tasks, weights, strict=True):
            value = logits[name]
            if name == "rating":
                value = (value - self.rating_scale[0]) / self.rating_scale[1]
            total += weight * value
        return Ranked(total, logits, attention)

    def draw_negatives(self, request: Request, item):
        """Items to tell the positive from: some that retrieval ranks highest, some at random.

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
        drawn = [tf.random.uniform([batch, num_random], maxval=num_items, dtype=tf.int32)]
        if self._num_found:
            _, top = self.state.index.search(
                request.queries, settings.num_candidates, exclude=known
            )
            _, place = tf.math.top_k(tf.random.uniform(tf.shape(top)), k=self._num_found)
            drawn.append(tf.gather(top, place, batch_dims=1))
        negative = tf.concat(drawn, axis=1)
        hit = tf.reduce_any(tf.equal(negative[:, :, None], known[:, None, :]), axis=2)
        return negative, tf.cast(~hit, tf.float32)

    def _lists(self, inputs) -> Lists:
        """The candidates of each example with their labels."""
        items, item, history = self.items, inputs["item"], inputs["history"]
        settings, retrieval, dim = self.config.ranking, self.retrieval, self.config.dim
        user = retrieval.embed_users(
            inputs["user"],
            tf.gather(items["vector"], tf.maximum(history, 0))[..., :dim],
            history >= 0,
            gap=inputs["gap"],
        )
        queries = tf.stop_gradient(retrieval.queries(user))
        request = Request(queries, inputs["user"], history, inputs["gap"], inputs["time"])
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
                *zip(retrieval.schema.events, tf.unstack(inputs["events"], axis=1), strict=True),
            )
            if name in self.tasks
        }
        retrieved = tf.einsum("bd,bcd->bc", queries, tf.gather(items["vector"], candidates))
        weight = tf.concat([tf.ones_like(click)[:, None], weight], axis=1)
        return Lists(request, candidates, retrieved, weight, labels)

    def compute_loss(self, inputs, training: bool = False):
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
                each = self._binary_task(logits, labels, weight)
            losses.append(mean_over_replicas(each * inputs["weight"]))
        for tracker, loss in zip(self.task_trackers, losses, strict=False):
            tracker.update_state(loss)
        if self.weigh is not None:
            loss = self.weigh(losses)
        else:
            weights = settings.task_weights or (1.0,) * len(losses)
            loss = tf.add_n([w * each for w, each in zip(weights, losses, strict=True)])
        self.loss_tracker.update_state(loss)
        shown = tf.where(lists.weight > 0, ranked.score, ranked.score.dtype.min)
        self.first_tracker.update_state(tf.argmax(shown, axis=1) == 0)
        return loss

    def _binary_task(self, logits, labels, weight):
        settings = self.config.ranking
        if settings.loss == "listwise":
            return listwise_softmax_loss(logits, labels, weight)
        if settings.loss == "pairwise":
            return pairwise_logistic_loss(logits, labels, weight)
        return binary_loss(
            logits,
            labels,
            weight,
            positive_weight=settings.positive_weight,
            focal_gamma=settings.focal_gamma,
        )

    def train_step(self, inputs):
        """One step, see `apply_step`."""
        return apply_step(self, inputs)

    def test_step(self, inputs):
        """The loss of one batch without training."""
        self.compute_loss(inputs, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    def _blank_request(self) -> Request:
        steps = self.config.user.history_length
        return Request(
            tf.zeros([1, self.config.dim + 1]),
            tf.constant([-1]),
            tf.fill([1, steps], -1),
            tf.fill([1, steps], -1.0),
            tf.zeros([1], tf.int64),
        )

    def build_weights(self) -> None:
        """Creates all weights, as loading them from a file needs them to exist."""
        self.rank(self._blank_request(), tf.zeros([1, 1], tf.int32), self.items, tf.zeros([1, 1]))
        if self.position is not None:
            self.position(tf.constant([-1]))
        if self.weigh is not None:
            self.weigh([tf.zeros([])] * len(self.tasks))


def _require_labels(config: Config, schema: Schema) -> None:
    """Refuses settings that need what the dataset does not have."""
    settings = config.ranking
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
    if settings.position_bias and not schema.num_positions:
        raise ConfigError(
            "ranking.position_bias: wanted false, as the dataset does not say at which positions "
            "items were shown; got true."
        )
