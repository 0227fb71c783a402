"""The retrieval model: two towers that meet in one dot product."""

import types
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.catalog import Catalog, Content, draw_probability, empty_features
from mmrec_tf.config import Config
from mmrec_tf.dataset import Users
from mmrec_tf.encoding import build_encoders, encode, encoded_bytes
from mmrec_tf.errors import RunError
from mmrec_tf.losses import batch_history_mask, full_softmax_loss, history_mask
from mmrec_tf.memory import gather, held_content
from mmrec_tf.schema import ModalitySpec, Schema
from mmrec_tf.towers import ItemTower, TowerOutput, UserTower

PROFILE = "profile"


class RetrievalModel(tfrs.Model):
    """Two towers under a softmax over items.

    The score of an item for a user is

        user . item / temperature + w * log(train frequency)

    with unit vectors, and temperature and w learned (w only with `retrieval.popularity_bias`).
    `queries` and `candidates` fold all of it into vectors of `dim + 1` entries, so that serving
    is one dot product.

    The model holds the catalog's content as tables (`adapt`), and batches name items by number:
    content is gathered where it is needed, once for each distinct item of a batch. Tables above
    `training.catalog_memory_mb` stay on disk, mapped into memory.

    Args:
      config: Config.
      schema: Schema of the dataset.
    """

    def __init__(self, config: Config, schema: Schema, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.schema = schema
        self.modalities = schema.select(config.modalities)
        policy = "mixed_float16" if config.training.mixed_precision else "float32"
        self.item_tower = ItemTower.from_experiment(config, schema, name="item_tower", dtype=policy)
        self.user_tower = UserTower.from_experiment(config, schema, name="user_tower", dtype=policy)
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=[],
            initializer=tf.keras.initializers.Constant(np.log(config.retrieval.temperature)),
            trainable=config.retrieval.learn_temperature,
        )
        self.popularity_weight = self.add_weight(
            name="popularity_weight",
            shape=[],
            initializer="zeros",
            trainable=config.retrieval.popularity_bias,
        )
        self.task = tfrs.tasks.Retrieval(
            loss=tf.keras.losses.CategoricalCrossentropy(
                from_logits=True, reduction=tf.keras.losses.Reduction.NONE
            ),
            num_hard_negatives=config.retrieval.num_hard_negatives or None,
            remove_accidental_hits=config.retrieval.remove_accidental_hits,
        )
        self.loss_tracker = tf.keras.metrics.Mean(name="loss")
        self.alignment_tracker = tf.keras.metrics.Mean(name="alignment_loss")
        # Keras tracks layers in attributes and containers. A namespace hides the frozen encoders
        # and the tables from it: neither belongs into every epoch's checkpoint.
        self.state = types.SimpleNamespace(encoders={}, tables=None)

    @property
    def encoders(self) -> dict:
        """The encoders by modality; "profile" encodes the users' profile texts."""
        return self.state.encoders

    def raw_content(self, catalog: Catalog, users: Users | None) -> dict[str, np.ndarray | Content]:
        """The raw values that each encoder reads, by encoder."""
        values = {name: catalog.content[name] for name in self.modalities}
        if self.user_tower.profile is not None:
            if users is None:
                raise RunError("adapt: this model reads profile texts; pass the dataset's users.")
            values[PROFILE] = users.profile
        return values

    def make_encoders(self, catalog: Catalog, users: Users | None = None, *, assets=None) -> None:
        """Builds the encoders, with the weights that the config names or random ones.

        Args:
          catalog: Catalog, from whose texts a vocabulary may be learned.
          users: Users; None for a dataset without profiles.
          assets: by encoder, what its `assets()` returned, to rebuild those of a trained model
            without its pretrained weights at hand; None to make them as the config says.
        """
        specs = {name: self.schema.modalities[name] for name in self.modalities}
        if self.user_tower.profile is not None:
            specs[PROFILE] = ModalitySpec("text")
        values: dict[str, Iterable] = {}
        for name, value in self.raw_content(catalog, users).items():
            if isinstance(value, Content):
                values[name] = value.present_values()
            elif name == PROFILE:
                values[name] = value
            else:
                column = list(self.schema.modalities).index(name)
                values[name] = value[catalog.present[:, column]]
        self.state.encoders = build_encoders(self.config, specs, values, assets=assets)
        self.trained_encoders = {n: e for n, e in self.encoders.items() if not e.frozen}

    def adapt(self, catalog: Catalog, users: Users | None = None, *, cache=None) -> None:
        """Takes in the catalog: makes the encoders unless there are some, runs the frozen ones,
        fills the tables.

        Args:
          catalog: Catalog.
          users: Users; None for a dataset without profiles and user features.
          cache: folder for the frozen encoders' vectors, and for tables that do not fit into
            memory; None encodes anew, into memory.

        Raises:
          ConfigError: when a table does not fit into `training.catalog_memory_mb` and the config
            cannot do without.
        """
        if not self.encoders:
            self.make_encoders(catalog, users)
        sizes = {n: encoded_bytes(self.encoders[n], self.schema.num_items) for n in self.modalities}
        held = held_content(self.config, sizes)
        content = {}
        for name, value in self.raw_content(catalog, users).items():
            mapped = name in self.modalities and name not in held
            encoded = encode(
                self.encoders[name],
                value,
                name=name,
                cache=cache,
                sha256=catalog.content_sha256.get(name),
                mapped=mapped,
            )
            content[name] = encoded if mapped else tf.constant(encoded)
        columns = [list(self.schema.modalities).index(name) for name in self.modalities]
        warm = catalog.train_count > 0
        log_frequency = catalog.log_frequency
        if not self.config.retrieval.cold_negatives and warm.any():
            log_frequency = np.where(warm, log_frequency, log_frequency[warm].mean())
        tables = {
            "content": {name: content[name] for name in self.modalities},
            "present": tf.constant(catalog.present[:, columns]),
            "log_frequency": tf.constant(log_frequency, tf.float32),
            "probability": tf.constant(
                draw_probability(catalog.train_count, balance=self.config.retrieval.item_balance)
            ),
            "warm": tf.constant(warm),
            "item_features": {n: tf.constant(v) for n, v in catalog.features.items()},
            "user_features": {},
        }
        if self.user_tower.features is not None:
            if users is None:
                raise RunError("adapt: this model reads user features; pass the dataset's users.")
            tables["user_features"] = {
                n: tf.Variable(v, trainable=False) for n, v in users.features.items()
            }
        if self.user_tower.profile is not None:
            tables[PROFILE] = tf.Variable(content[PROFILE], trainable=False)
        self.state.tables = tables

    @property
    def tables(self) -> dict:
        """What `adapt` stored.

        Raises:
          RunError: when the model has not seen a catalog yet.
        """
        if self.state.tables is None:
            raise RunError("the model has no catalog yet: call adapt(dataset.catalog) first.")
        return self.state.tables

    @property
    def user_tables(self) -> list[tf.Variable]:
        """The tables of users: variables, as constants would swell an exported graph."""
        profile = [self.tables[PROFILE]] if PROFILE in self.tables else []
        return [*self.tables["user_features"].values(), *profile]

    def embed_items(self, item, *, training=False, content_only=False) -> TowerOutput:
        """The item tower's output for items of the catalog.

        Args:
          item: <int32>[batch], numbers of items. Those without a train interaction are placed by
            their content alone: their id's row was never trained.
          training: whether dropout is on.
          content_only: places every item by its content alone.

        Returns:
          TowerOutput.
        """
        tables = self.tables
        warm = tf.gather(tables["warm"], item) & (not content_only)
        encoded = {}
        for name in self.modalities:
            value = gather(tables["content"][name], item)
            encoder = self.encoders[name]
            encoded[name] = value if encoder.frozen else encoder(value, training=training)
        return self.item_tower(
            {
                "item": tf.where(warm, item, -1),
                "present": tf.gather(tables["present"], item),
                "encoded": encoded,
                "features": {n: tf.gather(v, item) for n, v in tables["item_features"].items()},
            },
            training=training,
        )

    def embed_users(self, user, history, known, *, training=False):
        """The user tower's output.

        Args:
          user: <int32>[batch], -1 for an unknown user.
          history: <float32>[batch, step, dim], embeddings of the history's items.
          known: <bool>[batch, step].

        Returns:
          <float32>[batch, dim].
        """
        inputs = {"user": user, "history": history, "known": known}
        row, is_known = tf.maximum(user, 0), user >= 0
        if self.user_tower.profile is not None:
            profile = tf.gather(self.tables[PROFILE], row)
            inputs["profile"] = tf.where(is_known[:, None], profile, tf.zeros_like(profile))
        if self.user_tower.features is not None:
            inputs["features"] = {}
            for name, table in self.tables["user_features"].items():
                value = tf.gather(table, row)
                inputs["features"][name] = tf.where(is_known[:, None], value, tf.zeros_like(value))
        return self.user_tower(inputs, training=training)

    def queries(self, user_embedding):
        """<float32>[batch, dim] -> <float32>[batch, dim + 1], ready for a dot product."""
        scaled = user_embedding * tf.exp(-self.log_temperature)
        return tf.concat([scaled, tf.ones_like(scaled[:, :1])], axis=-1)

    def candidates(self, item_embedding, log_frequency):
        """<float32>[batch, dim], <float32>[batch] -> <float32>[batch, dim + 1]."""
        bias = self.popularity_weight * log_frequency
        return tf.concat([item_embedding, bias[:, None]], axis=-1)

    def embed_catalog(self, *, content_only: bool = False) -> TowerOutput:
        """`embed_items` over the whole catalog, in blocks.

        Returns:
          TowerOutput of NumPy arrays with one row an item.
        """
        # Encoders that train run here over raw content, of which few fit into memory at once.
        block = 64 if self.trained_encoders else 1024
        parts = [
            self.embed_items(
                tf.range(start, min(start + block, self.schema.num_items)),
                content_only=content_only,
            )
            for start in range(0, self.schema.num_items, block)
        ]
        return TowerOutput(*(np.concatenate([part[i].numpy() for part in parts]) for i in range(4)))

    def compute_loss(self, inputs, training: bool = False):
        """The retrieval loss plus the weighted alignment loss of a batch.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.

        Returns:
          <float32>[], the mean over the batch's examples.
        """
        tables, settings = self.tables, self.config.retrieval
        item, history = inputs["item"], inputs["history"]
        batch, steps = tf.shape(history)[0], tf.shape(history)[1]
        history_row = tf.maximum(history, 0)
        if settings.softmax == "full":
            output = self.embed_items(tf.range(self.schema.num_items), training=training)
            item_row = item
        else:
            both = tf.concat([item, tf.reshape(history_row, [-1])], axis=0)
            if self.config.training.jit_compile:
                # The shape of tf.unique depends on the data; XLA mixes it up further down.
                ids, rows = both, tf.range(tf.size(both))
            else:
                ids, rows = tf.unique(both)
            output = self.embed_items(ids, training=training)
            item_row, history_row = rows[:batch], tf.reshape(rows[batch:], [batch, steps])
        user = self.embed_users(
            inputs["user"],
            tf.gather(output.embedding, history_row),
            history >= 0,
            training=training,
        )
        queries = self.queries(user)
        if settings.softmax == "full":
            logits = tf.matmul(
                queries,
                self.candidates(output.embedding, tables["log_frequency"]),
                transpose_b=True,
            )
            allowed = None
            if settings.mask_history:
                allowed = history_mask(history, item, num_items=self.schema.num_items)
            if not settings.cold_negatives:
                warm = tables["warm"][None, :]
                allowed = warm if allowed is None else allowed & warm
            losses = full_softmax_loss(logits, item, allowed=allowed) * inputs["weight"]
        else:
            losses = self.task(
                queries,
                self.candidates(
                    tf.gather(output.embedding, item_row), tf.gather(tables["log_frequency"], item)
                ),
                sample_weight=inputs["weight"],
                candidate_sampling_probability=tf.gather(tables["probability"], item)
                if settings.sampling_correction != "none"
                else None,
                candidate_ids=item if settings.remove_accidental_hits else None,
                score_mask=batch_history_mask(history, item) if settings.mask_history else None,
                compute_metrics=False,
            )
        loss = tf.reduce_mean(losses)
        self.loss_tracker.update_state(loss)
        if self.config.alignment.weight and len(self.modalities) > 1:
            aligned = self.item_tower.alignment.loss(
                tf.gather(output.modalities, item_row),
                tf.gather(output.present, item_row),
                item=item,
            )
            self.alignment_tracker.update_state(aligned)
            loss += self.config.alignment.weight * aligned
        return loss

    def train_step(self, inputs):
        """One step, see `apply_step`."""
        return apply_step(self, inputs)

    def test_step(self, inputs):
        """The losses of one batch without training."""
        self.compute_loss(inputs, training=False)
        return {metric.name: metric.result() for metric in self.metrics}

    def build_weights(self) -> None:
        """Creates all weights, as loading them from a file needs them to exist. Needs encoders."""
        steps, dim = self.config.user.history_length, self.config.dim
        encoded = {name: tf.zeros([1, e.output_dim]) for name, e in self.encoders.items()}
        self.item_tower(
            {
                "item": tf.constant([0]),
                "present": tf.zeros([1, len(self.modalities)], tf.bool),
                "encoded": {name: encoded[name] for name in self.modalities},
                "features": empty_features(self.schema.item_features, 1),
            }
        )
        user = {
            "user": tf.constant([-1]),
            "history": tf.zeros([1, steps, dim]),
            "known": tf.zeros([1, steps], tf.bool),
            "features": empty_features(self.schema.user_features, 1),
        }
        if PROFILE in encoded:
            user["profile"] = encoded[PROFILE]
        self.user_tower(user)


def apply_step(model: tfrs.Model, inputs) -> dict:
    """One training step of a model with `compute_loss`; unlike `tfrs.Model.train_step` it scales
    the loss for mixed precision and for the number of replicas, over which gradients are summed.

    Args:
      model: a compiled tfrs.Model.
      inputs: a batch.

    Returns:
      The model's metrics by name.
    """
    optimizer = model.optimizer
    scaled = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, training=True)
        loss += tf.add_n(model.losses) if model.losses else 0.0
        loss /= tf.distribute.get_strategy().num_replicas_in_sync
        target = optimizer.get_scaled_loss(loss) if scaled else loss
    variables = model.trainable_variables
    gradients = tape.gradient(target, variables)
    if scaled:
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(
        # A part that this config leaves out of the loss has no gradient.
        [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    )
    return {metric.name: metric.result() for metric in model.metrics}
