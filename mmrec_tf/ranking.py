"""The ranking model: orders the few candidates that retrieval found."""

import types

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.config import Config
from mmrec_tf.errors import RunError
from mmrec_tf.index import LOWEST, ExactIndex
from mmrec_tf.negatives import mean_over_replicas
from mmrec_tf.optimization import apply_step
from mmrec_tf.retrieval import RetrievalModel
from mmrec_tf.towers import SideFeatures

# Dot products of a retrieval model run to a few tens; the network likes inputs of order 1.
SCORE_SCALE = 0.1


@tf.keras.utils.register_keras_serializable("mmrec_tf")
class CrossNetwork(tf.keras.layers.Layer):
    """Deep and cross network, version 2, stacked (Wang et al. 2021, figure 1a), to one logit.

    It computes in float32 under any policy: it is small, and `Cross` cannot mix precisions.

    Args:
      num_cross_layers: int.
      projection_dim: int. Rank of the cross layers' weights; 0 for full rank.
      hidden: tuple of int. Units of the dense layers on top.
      dropout: float. Rate between the dense layers.
    """

    def __init__(
        self, *, num_cross_layers=2, projection_dim=0, hidden=(64,), dropout=0.0, **kwargs
    ):
        super().__init__(autocast=False, **kwargs)
        policy = {"dtype": "float32"}
        self.settings = {
            "num_cross_layers": num_cross_layers,
            "projection_dim": projection_dim,
            "hidden": tuple(hidden),
            "dropout": dropout,
        }
        self.crosses = [
            tfrs.layers.dcn.Cross(
                projection_dim=projection_dim or None, name=f"cross_{i}", **policy
            )
            for i in range(num_cross_layers)
        ]
        layers = []
        for units in hidden:
            layers.append(tf.keras.layers.Dense(units, activation="relu", **policy))
            layers.append(tf.keras.layers.Dropout(dropout, **policy))
        # Zeros: before training the order is the retrieval model's. No bias: it would add the same
        # to every candidate.
        last = {"use_bias": False, "kernel_initializer": "zeros"}
        layers.append(tf.keras.layers.Dense(1, **last, **policy))
        self.deep = tf.keras.Sequential(layers, name="deep")

    def get_config(self):
        return {**super().get_config(), **self.settings}

    def call(self, inputs, training=False):
        """<float32>[batch, features] -> <float32>[batch]."""
        crossed = inputs
        for cross in self.crosses:
            crossed = cross(inputs, crossed)
        return self.deep(crossed, training=training)[:, 0]


class RankingModel(tfrs.Model):
    """Scores (user, candidate) pairs on embeddings, content, side features and retrieval score.

    The logit is the retrieval score times a learned factor plus what the network adds, so that
    ranking starts from retrieval's order. Embeddings come from a trained retrieval model, which
    stays as it is.

    Args:
      config: Config.
      retrieval: RetrievalModel, trained, with its catalog.
    """

    def __init__(self, config: Config, retrieval: RetrievalModel, **kwargs):
        super().__init__(**kwargs)
        settings = config.ranking
        self.config = config
        # A namespace hides the retrieval model from Keras, which would train and save it again.
        self.state = types.SimpleNamespace(retrieval=retrieval, items=None, index=None)
        self.network = CrossNetwork(
            num_cross_layers=settings.num_cross_layers,
            projection_dim=settings.projection_dim,
            hidden=settings.hidden,
            dropout=settings.dropout,
            name="network",
        )
        schema, width = retrieval.schema, max(4, config.dim // 4)
        self.item_features = (
            SideFeatures(SideFeatures.sizes_of(schema.item_features), width, name="item_features")
            if schema.item_features and config.item.features
            else None
        )
        self.factor = self.add_weight(name="factor", shape=[], initializer="ones")
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.CategoricalCrossentropy(
                from_logits=True, reduction=tf.keras.losses.Reduction.NONE
            )
        )
        self.loss_tracker = tf.keras.metrics.Mean(name="loss")
        self.first_tracker = tf.keras.metrics.Mean(name="positive_first")

    @property
    def retrieval(self) -> RetrievalModel:
        """The model that finds what this one orders."""
        return self.state.retrieval

    def adapt(self) -> None:
        """Takes in the retrieval model's catalog: embeds all items once."""
        retrieval = self.retrieval
        output = retrieval.embed_catalog()
        log_frequency = retrieval.tables["log_frequency"]
        vectors = retrieval.candidates(tf.constant(output.embedding), log_frequency)
        self.state.index = ExactIndex(vectors)
        self.state.items = {
            "vector": self.state.index.vectors,
            "modalities": tf.constant(output.modalities),
            "present": tf.constant(output.present),
            "weights": tf.constant(output.weights),
            "features": retrieval.tables["item_features"],
        }

    @property
    def items(self) -> dict:
        """What `adapt` stored.

        Raises:
          RunError: when it was not called.
        """
        if self.state.items is None:
            raise RunError("the ranking model has no catalog yet: call adapt() first.")
        return self.state.items

    def score(self, queries, item, items, *, training=False):
        """Logits of candidates.

        Args:
          queries: <float32>[batch, dim + 1], what `RetrievalModel.queries` returned.
          item: <int32>[batch, candidate], numbers of items.
          items: what `items` holds, tables with one row an item.

        Returns:
          <float32>[batch, candidate].
        """
        shape = tf.shape(item)
        flat = tf.reshape(item, [-1])
        dim = self.config.dim
        vector = tf.gather(items["vector"], flat)
        query = tf.repeat(queries, shape[1], axis=0)
        score = tf.reduce_sum(query * vector, axis=-1)
        user = tf.math.l2_normalize(query[:, :dim], axis=-1, epsilon=1e-8)
        modalities = tf.gather(items["modalities"], flat)
        inputs = [
            user,
            vector[:, :dim],
            user * vector[:, :dim],
            vector[:, dim:],
            score[:, None] * SCORE_SCALE,
            tf.reshape(modalities, [shape[0] * shape[1], modalities.shape[1] * dim]),
            tf.einsum("bd,bmd->bm", user, modalities),
            tf.cast(tf.gather(items["present"], flat), tf.float32),
            tf.gather(items["weights"], flat),
        ]
        if self.item_features is not None:
            features = {n: tf.gather(v, flat) for n, v in items["features"].items()}
            inputs.append(self.item_features(features))
        logits = self.network(tf.concat(inputs, axis=-1), training=training)
        return tf.reshape(self.factor * score + logits, shape)

    def draw_negatives(self, queries, item, history):
        """Items to tell the positive from: some that retrieval ranks highest, some at random.

        Args:
          queries: <float32>[batch, dim + 1].
          item: <int32>[batch], the positives.
          history: <int32>[batch, step], -1 for padding.

        Returns:
          <int32>[batch, negative] and their weights <float32>[batch, negative], 0 where a draw hit
          the positive or the history.
        """
        settings = self.config.ranking
        num_items = self.state.index.vectors.shape[0]
        num_found = min(
            round(settings.candidate_share * settings.num_negatives),
            settings.num_candidates,
            num_items,
        )
        num_random = settings.num_negatives - num_found
        batch = tf.shape(item)[0]
        known = tf.concat([item[:, None], history], axis=1)
        drawn = [tf.random.uniform([batch, num_random], maxval=num_items, dtype=tf.int32)]
        if num_found:
            _, top = self.state.index.search(queries, settings.num_candidates, exclude=known)
            _, place = tf.math.top_k(tf.random.uniform(tf.shape(top)), k=num_found)
            drawn.append(tf.gather(top, place, batch_dims=1))
        negative = tf.concat(drawn, axis=1)
        hit = tf.reduce_any(tf.equal(negative[:, :, None], known[:, None, :]), axis=2)
        return negative, tf.cast(~hit, tf.float32)

    def compute_loss(self, inputs, training: bool = False):
        """Softmax cross-entropy of each positive against its drawn negatives (ListNet with one
        relevant item, Cao et al. 2007), which keeps to what ranking is for: the order within one
        user's candidates.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.

        Returns:
          <float32>[], the mean over the batch's examples.
        """
        items, item, history = self.items, inputs["item"], inputs["history"]
        retrieval = self.retrieval
        embedding = items["vector"][:, : self.config.dim]
        user = retrieval.embed_users(
            inputs["user"],
            tf.gather(embedding, tf.maximum(history, 0)),
            history >= 0,
            gap=inputs["gap"],
        )
        queries = tf.stop_gradient(retrieval.queries(user))
        negative, known = self.draw_negatives(queries, item, history)
        candidates = tf.concat([item[:, None], negative], axis=1)
        labels = tf.concat([tf.ones_like(known[:, :1]), tf.zeros_like(known)], axis=1)
        weights = tf.concat([tf.ones_like(known[:, :1]), known], axis=1)
        logits = self.score(queries, candidates, items, training=training)
        logits = tf.where(weights > 0, logits, LOWEST)
        losses = self.task(labels=labels, predictions=logits, sample_weight=inputs["weight"])
        loss = mean_over_replicas(losses)
        self.loss_tracker.update_state(loss)
        self.first_tracker.update_state(tf.argmax(logits, axis=1) == 0)
        return loss

    def train_step(self, inputs):
        """One step, see `apply_step`."""
        return apply_step(self, inputs)

    def test_step(self, inputs):
        """The loss of one batch without training."""
        self.compute_loss(inputs, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    def build_weights(self) -> None:
        """Creates all weights, as loading them from a file needs them to exist."""
        self.score(tf.zeros([1, self.config.dim + 1]), tf.zeros([1, 1], tf.int32), self.items)
