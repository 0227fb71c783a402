"""The retrieval model: two towers that meet in one dot product."""

import concurrent.futures
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmrec_tf.config import Config, require_effect
from mmrec_tf.dataset.catalog import empty_features
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.encoders.encoder import ModalityEncoder, count_weights
from mmrec_tf.encoders.several import SeveralValues
from mmrec_tf.encoders.stored import LazyEncoders, known_encoder
from mmrec_tf.evaluation.baselines import BLOCK
from mmrec_tf.evaluation.evaluate import blocks
from mmrec_tf.evaluation.metrics import top_k
from mmrec_tf.retrieval import advice, auxiliary_losses, cached_histories
from mmrec_tf.retrieval.catalog_tables import (
    PROFILE,
    build_tables,
    gather,
)
from mmrec_tf.retrieval.cold_items import blended, near_items, place
from mmrec_tf.retrieval.cold_items_fit import ColdItemsFit
from mmrec_tf.retrieval.cold_start import fit_places
from mmrec_tf.retrieval.content_encoders import make_encoders, raw_content
from mmrec_tf.retrieval.index.interests import one_an_item, score_all
from mmrec_tf.retrieval.initial_weights import set_initial_weights
from mmrec_tf.retrieval.item_graph import CatalogGraph
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_head_fit import ItemHeadFit, Scored, fit_weights
from mmrec_tf.retrieval.item_inputs import item_inputs
from mmrec_tf.retrieval.item_similarity import fit_neighbors, frozen_modalities, require_item_head
from mmrec_tf.retrieval.losses import perturb, with_noise
from mmrec_tf.retrieval.memory_estimate import estimate
from mmrec_tf.retrieval.objective import Objective
from mmrec_tf.towers import ItemTower, TowerOutput, UserTower, unit
from mmrec_tf.towers.alignment import TranslationLoss
from mmrec_tf.towers.labels import LabelHeads
from mmrec_tf.training.callbacks import HistoryRefresh, Mining
from mmrec_tf.training.optimizer import build_optimizer
from mmrec_tf.training.stage import Stage
from mmrec_tf.training.step import mean_over_replicas

# Items that are embedded at a time: of the raw content that encoders which train read, few fit into
# memory.
FEW, MANY = 64, 8192


class RetrievalModel(Stage):
    """Two towers under a softmax over items.

    The score of an item for a user is

        user . item / temperature + w * log(train frequency)

    with unit vectors, and temperature and w learned (w only with `retrieval.popularity_bias`).
    `queries` and `candidates` fold all of it into vectors of `dim + 1` entries, so that serving
    is one dot product. A head of items against items (`item_head`), which `fit_item_head` makes
    when the towers are trained, adds its own score. Items without train interactions are placed by
    their content alone, or as `fit_cold_items` found (`cold_items`). A user may have several
    vectors (`user.interests`), of which the highest score counts.

    The model holds the catalog's content as tables, and batches name items by number:
    content is gathered where it is needed, once for each distinct item of a batch. Tables above
    `training.catalog_memory_mb` stay on disk, mapped into memory.

    To change a part, override the method that makes it (`make_user_tower`, `make_item_tower`,
    `make_objective`) or `compute_loss`; see docs/keras.md.

    Args:
      config: Config.
      dataset: Dataset, whose catalog and users the model takes in: frozen encoders run over its
        content.
      encoders: by modality, and "profile", encoders that were made or loaded before, see
        `make_encoders`; None makes them as the config says.
      cache: folder for the frozen encoders' vectors, and for tables that do not fit into memory;
        "dataset" for that in the dataset directory, None encodes anew, into memory.
      initialize: whether weights that do not start at random are set: id embeddings with
        `item.id_init` spectral, and projections that are fitted. False where weights are loaded.

    Raises:
      ConfigError: when a table does not fit into `training.catalog_memory_mb` and the config
        cannot do without, or when the config asks for what the dataset does not have.
    """

    stage = "retrieval"

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        *,
        encoders: Mapping[str, Any] | LazyEncoders | None = None,
        cache: str | pathlib.Path | None = "dataset",
        initialize: bool = True,
        **kwargs: Any,
    ):
        require_effect(config, dataset.schema)
        require_item_head(config, dataset)
        super().__init__(config, dataset, **kwargs)
        schema = self.schema
        self.modalities = schema.select(config.modalities)
        self.item_tower = self.make_item_tower()
        self.user_tower = self.make_user_tower()
        kinds, weight = config.alignment.kinds, config.alignment.contrastive_weight
        # What the contrastive loss is between: modalities, or modalities and ids.
        among = len(self.modalities) > 1 or bool(self.modalities and config.alignment.collaborative)
        self.contrasts = "contrastive" in kinds and among and weight > 0
        self.translation = None
        if "graph" in kinds:
            self.translation = TranslationLoss(
                schema.num_entities,
                schema.num_relations,
                config.dim,
                config.alignment.margin,
                name="translation",
            )
        self.label_heads = LabelHeads.from_experiment(
            config.labels, schema, config.dim, name="label_heads"
        )
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
        self.intercept = None
        if config.retrieval.loss == "gbce":
            # Probabilities of single items have a level, which the order of items knows nothing of:
            # no score holds it. It starts where all are as probable.
            self.intercept = self.add_weight(
                name="intercept",
                shape=[],
                initializer=tf.keras.initializers.Constant(-np.log(schema.num_items)),
            )
        self.objective = self.make_objective()
        self.loss_tracker = tf.keras.metrics.Mean(name="loss")
        self.contrastive_tracker = tf.keras.metrics.Mean(name="contrastive_loss")
        self.graph_tracker = tf.keras.metrics.Mean(name="graph_loss")
        if self.label_heads is not None:
            self.label_tracker = tf.keras.metrics.Mean(name="label_loss")
        if encoders is None:
            encoders = make_encoders(config, dataset)
            # Anew, as encoders that are made here have drawn numbers, and loaded ones did not.
            tf.keras.utils.set_random_seed(config.training.seed)
        lazy = isinstance(encoders, LazyEncoders)
        self.state.encoders, self.state.mined = encoders if lazy else dict(encoders), None
        self.state.history_items = None
        self.state.fits = {}
        # In the namespace, as it is fitted when all else is trained: no epoch's checkpoint has it.
        self.state.item_head = self.state.item_head_fit = self.state.item_head_graph = None
        self.state.cold_items_fit = None
        known = {name: known_encoder(encoders, name) for name in encoders}
        self.trained_encoders = {
            n: e for n, e in known.items() if isinstance(e, ModalityEncoder) and not e.frozen
        }
        self._make_weights()
        self.state.tables, self.state.graph = build_tables(
            dataset,
            config,
            raw=raw_content(config, dataset),
            encoders=known,
            cache=dataset.cache if cache == "dataset" else cache,
        )
        if initialize:
            set_initial_weights(self)
        self.built = True

    # Parts, for subclasses to replace

    @property
    def policy(self) -> str:
        """The dtype policy of the towers."""
        return "mixed_float16" if self.config.training.mixed_precision else "float32"

    def make_item_tower(self) -> ItemTower:
        """The item tower; called once, by the constructor."""
        return ItemTower.from_experiment(
            self.config, self.schema, name="item_tower", dtype=self.policy
        )

    def make_user_tower(self) -> tf.keras.layers.Layer:
        """The user tower, a layer that takes what `UserTower.call` takes; called once, by the
        constructor."""
        return UserTower.from_experiment(
            self.config, self.schema, name="user_tower", dtype=self.policy
        )

    def make_objective(self) -> Objective:
        """What each positive is compared with, and the loss of it; called once, by the
        constructor."""
        return Objective(
            self.config.retrieval,
            num_items=self.schema.num_items,
            dim=self.config.dim,
            static_shapes=self.config.training.jit_compile,
            name="objective",
        )

    def default_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer that the config asks for, over `epochs` epochs."""
        training = self.config.training
        encoders = self.trained_encoders.values()
        return build_optimizer(
            training,
            steps=len(self.batches("train")) * self.epochs,
            encoder_variables=[weight for e in encoders for weight in e.pretrained_variables],
        )

    def batches(
        self, split: str = "train", *, batch_size: int | None = None, seed: int | None = None
    ) -> tf.data.Dataset:
        """As `Stage.batches`."""
        return self._split_batches(split, batch_size, seed)

    def callbacks(self) -> list[tf.keras.callbacks.Callback]:
        """Mining, where the config draws mined negatives, and what keeps the embeddings of
        histories' items up to date, where it reads them from a table."""
        mining = [Mining(self.dataset)] if self.config.retrieval.num_mined_negatives else []
        return [*mining, HistoryRefresh()] if self.caches_histories else mining

    @property
    def caches_histories(self) -> bool:
        """Whether training reads the embeddings of histories' items from a table."""
        return self.config.user.history_embedding == "cached"

    def refresh_histories(self) -> None:
        """Embeds the catalog for the histories of the steps that follow."""
        embedding = self.embed_all()
        if self.state.history_items is None:
            # A variable, as the step is traced once.
            self.state.history_items = tf.Variable(embedding, trainable=False)
        else:
            self.state.history_items.assign(embedding)

    def frozen_layers(self) -> dict[str, tf.keras.layers.Layer]:
        """The encoders that do not train."""
        return {f"{name}_encoder": e for name, e in self.encoders.items() if e.frozen}

    def memory_estimate(self) -> str:
        """See `mmrec_tf.retrieval.memory_estimate.estimate`."""
        return str(estimate(self, self.dataset))

    def remarks(self) -> list[str]:
        """As `Stage.remarks`, see `mmrec_tf.retrieval.advice`."""
        return advice.remarks(self)

    def not_repeated(self) -> list[str]:
        """As `Stage.not_repeated`; also of encoders that train."""
        return [*super().not_repeated(), *advice.not_repeated(self)]

    @property
    def reads_raw(self) -> bool:
        """Whether a step runs content through whole networks, and not vectors that are stored."""
        return any(not encoder.stores_vectors for encoder in self.trained_encoders.values())

    @property
    def needs_autograph(self) -> bool:
        """As `Stage.needs_autograph`; also where a step runs networks of other packages."""
        return super().needs_autograph or self.reads_raw

    @property
    def encoders(self) -> Mapping:
        """The encoders by modality; "profile" encodes the users' profile texts."""
        return self.state.encoders

    def encode_catalog(self, name: str) -> np.ndarray:
        """One modality of all items through its encoder, as it is now, <float32>[item, features];
        of no meaning where absent."""
        table, encoder = self.tables["content"][name], known_encoder(self.encoders, name)
        if encoder.frozen:
            return np.asarray(table)
        rows = (
            gather(table, tf.range(start, min(start + FEW, self.schema.num_items)))
            for start in range(0, self.schema.num_items, FEW)
        )
        return np.concatenate([encoder.from_stored(value).numpy() for value in rows])

    def value_weights(self, name: str, items: np.ndarray | None = None) -> np.ndarray | None:
        """How much each value of a modality counts in each item, such as the pictures of a gallery:
        <float32>[item, value], each item's in the order of its distinct values and adding up to 1,
        zeros behind them; None where all count alike (`item.values_pooling`).

        Args:
          name: of the modality.
          items: numbers of items; None for all.
        """
        encoder = known_encoder(self.encoders, name)
        if not isinstance(encoder, SeveralValues):
            return None
        items = np.arange(self.schema.num_items) if items is None else items
        parts = [np.zeros([0, encoder.most], np.float32)]
        for start in range(0, len(items), MANY):
            rows = tf.constant(items[start : start + MANY], tf.int32)
            stored = gather(self.tables["content"][name], rows)
            parts.append(encoder.weigh(stored).numpy())
        return np.concatenate(parts)

    @property
    def graph(self) -> CatalogGraph | None:
        """What smooths the catalog's embeddings; None without."""
        return self.state.graph

    @property
    def tables(self) -> dict:
        """The catalog's content and what is known of users, see `build_tables`."""
        return self.state.tables

    @property
    def user_tables(self) -> list[tf.Variable]:
        """The tables of users: variables, as constants would swell an exported graph."""
        profile = [self.tables[PROFILE]] if PROFILE in self.tables else []
        return [*self.tables["user_features"].values(), *profile]

    def parameter_counts(self) -> dict[str, int]:
        """How many weights each part has, frozen encoders among them; what two modalities share
        counts with the first."""
        tower = self.item_tower
        layers = {
            "alignment": getattr(tower, "alignment", None),
            "missing": getattr(tower, "missing", None),
            "fusion": getattr(tower, "fusion", None),
            "item_id_embedding": tower.id_embedding,
            "item_features": tower.features,
            "user_tower": self.user_tower,
            "translation": self.translation,
            "label_heads": self.label_heads,
            **{f"{name}_encoder": encoder for name, encoder in self.encoders.items()},
        }
        return count_weights({name: layer for name, layer in layers.items() if layer is not None})

    def embed_items(
        self, item: tf.Tensor, *, training: bool = False, content_only: bool = False
    ) -> TowerOutput:
        """The item tower's output for items of the catalog.

        Args:
          item: <int32>[batch], numbers of items. Those without a train interaction are placed by
            their content alone: their id's row was never trained.
          training: whether dropout is on.
          content_only: places every item by its content alone.

        Returns:
          TowerOutput.
        """
        inputs = item_inputs(self, item, training=training, content_only=content_only)
        return self.item_tower(inputs, training=training)

    def features_of(self, user: tf.Tensor) -> dict[str, tf.Tensor]:
        """Side features of users, <int32>[batch], -1 for an unknown one: by name as in
        `SideFeatures.call`, zeros where nothing is known."""
        row, known = tf.maximum(user, 0), (user >= 0)[:, None]
        found = {}
        for name, table in self.tables["user_features"].items():
            value = tf.gather(table, row)
            found[name] = tf.where(known, value, tf.zeros_like(value))
        return found

    def profiles_of(self, user: tf.Tensor) -> tf.Tensor:
        """Encoded profile texts of users, <int32>[batch], -1 for an unknown one:
        <float32>[batch, features], zeros for those."""
        profile = tf.gather(self.tables[PROFILE], tf.maximum(user, 0))
        return tf.where((user >= 0)[:, None], profile, tf.zeros_like(profile))

    def embed_users(
        self,
        user: tf.Tensor,
        history: tf.Tensor,
        known: tf.Tensor,
        *,
        gap: tf.Tensor | None = None,
        profile: tf.Tensor | None = None,
        features: Mapping[str, tf.Tensor] | None = None,
        training: bool = False,
        tower: UserTower | None = None,
    ) -> tf.Tensor:
        """The user tower's output.

        Args:
          user: <int32>[batch], -1 for an unknown user.
          history: <float32>[batch, step, dim], embeddings of the history's items.
          known: <bool>[batch, step].
          gap: <float32>[batch, step], as in `Schema.batch_spec`; None where it is not known.
          profile: as `profiles_of` returns it, in place of what is stored; None for that.
          features: as `features_of` returns them, in place of what is stored; None for that.
          training: whether dropout is on.
          tower: a UserTower of this config; None for the model's own.

        Returns:
          <float32>[batch, dim], or with several interests <float32>[batch, interest, dim].
        """
        if gap is None:
            gap = tf.fill(tf.shape(known), -1.0)
        inputs = {"user": user, "history": history, "known": known, "gap": gap}
        tower = tower or self.user_tower
        if tower.profile is not None:
            inputs["profile"] = self.profiles_of(user) if profile is None else profile
        if tower.features is not None:
            inputs["features"] = self.features_of(user) if features is None else features
        return tower(inputs, training=training)

    def queries(self, user_embedding: tf.Tensor) -> tf.Tensor:
        """<float32>[..., dim] -> <float32>[..., dim + 1], ready for a dot product."""
        scaled = user_embedding * tf.exp(-self.log_temperature)
        return tf.concat([scaled, tf.ones_like(scaled[..., :1])], axis=-1)

    def candidates(self, item_embedding: tf.Tensor, log_frequency: tf.Tensor) -> tf.Tensor:
        """<float32>[..., dim], <float32>[...] -> <float32>[..., dim + 1]."""
        bias = self.popularity_weight * log_frequency
        return tf.concat([item_embedding, bias[..., None]], axis=-1)

    def catalog_candidates(self, embedding: np.ndarray | tf.Tensor) -> tf.Tensor:
        """`candidates` of the whole catalog, as it is ranked: with what is added to the scores of
        cold items, where that was fitted. <float32>[item, dim] -> <float32>[item, dim + 1]."""
        vectors = self.candidates(tf.constant(embedding), self.tables["log_frequency"])
        fit = self.cold_items_fit
        if fit is None:
            return vectors
        # An item that is not quite warm has as much of the popularity of one that is cold.
        rarer = self.tables["cold_log_frequency"] - self.tables["log_frequency"]
        as_cold = rarer * self.popularity_weight + fit.offset
        doubt = np.where(self.placed_items(), 1 - self.tables["confidence"], 0.0)
        added = tf.constant(doubt, tf.float32) * as_cold
        return vectors + tf.pad(added[:, None], [[0, 0], [self.config.dim, 0]])

    def smooth(self, embedding: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Embeddings of the whole catalog, smoothed as the config says, <float32>[item, dim]."""
        if self.graph is None:
            return embedding
        return unit(self.graph.smooth(embedding, training=training))

    def embed_catalog(self, *, content_only: bool = False) -> TowerOutput:
        """`embed_items` over the whole catalog, in blocks, then `smooth`; cold items as
        `fit_cold_items` found.

        Args:
          content_only: places every item by its own content alone, unsmoothed and where its
            content lies, as the tower places an item that is not in the catalog.

        Returns:
          TowerOutput of NumPy arrays with one row an item.
        """
        block = FEW if self.reads_raw else MANY
        parts = [
            self.embed_items(
                tf.range(start, min(start + block, self.schema.num_items)),
                content_only=content_only,
            )
            for start in range(0, self.schema.num_items, block)
        ]
        whole = TowerOutput(*(np.concatenate([p[i].numpy() for p in parts]) for i in range(4)))
        if content_only:
            return whole
        return whole._replace(embedding=self._finished(whole.embedding))

    def embed_all(self) -> np.ndarray:
        """The embeddings of `embed_catalog` alone, <float32>[item, dim], which take less memory."""
        return self._finished(self.embed_rows(np.arange(self.schema.num_items)))

    def embed_rows(self, rows: np.ndarray, *, content_only: bool = False) -> np.ndarray:
        """`embed_items` of some items <int>[row], in blocks, <float32>[row, dim]."""
        block = FEW if self.reads_raw else MANY
        embedding = np.empty([len(rows), self.config.dim], np.float32)
        for start in range(0, len(rows), block):
            some = tf.constant(rows[start : start + block], tf.int32)
            output = self.embed_items(some, content_only=content_only)
            embedding[start : start + block] = output.embedding
        return embedding

    def _finished(self, own: np.ndarray) -> np.ndarray:
        """Embeddings of the whole catalog as `embed_items` makes them, smoothed, with cold items
        where they were found to belong, <float32>[item, dim]."""
        smooth = np.asarray(self.smooth(tf.constant(own)))
        fit = self.cold_items_fit
        if fit is None or not self.places_items:
            return smooth
        cold, warm = np.flatnonzero(self.placed_items()), np.flatnonzero(self.near_items())
        placed = place(
            smooth,
            self.by_content(own, np.flatnonzero(self.tables["warm"].numpy() & self.has_content())),
            cold,
            warm,
            num_neighbors=fit.num_neighbors,
            pull=fit.pull,
        )
        smooth = np.array(smooth)
        smooth[cold] = blended(smooth[cold], placed, self.tables["confidence"][cold])
        return smooth

    def by_content(self, own: np.ndarray, warm: np.ndarray) -> np.ndarray:
        """Where content alone places items, unsmoothed, <float32>[item, dim]: of `own` as
        `embed_items` makes it all but the warm ones stand there already, <int>[warm]."""
        if self.item_tower.id_embedding is None:
            return own
        content = own.copy()
        content[warm] = self.embed_rows(warm, content_only=True)
        return content

    def embed_named(
        self, numbers: Mapping[str, tf.Tensor], *, training: bool = False
    ) -> tuple[tf.Tensor, TowerOutput, dict[str, tf.Tensor]]:
        """Embeds the items that a step names, each distinct one once; smoothed, where the whole
        catalog is in the step.

        Args:
          numbers: by name, <int32>[...] numbers of items, below 0 for none.
          training: whether dropout is on.

        Returns:
          The items' numbers <int32>[row], TowerOutput with these rows, and by name the rows
          <int32>[...] of the items; any row for none.
        """
        numbers = {name: tf.maximum(value, 0) for name, value in numbers.items()}
        if self.config.retrieval.softmax == "full":
            ids = tf.range(self.schema.num_items)
            output = self.embed_items(ids, training=training)
            smooth = self.smooth(output.embedding, training=training)
            return ids, output._replace(embedding=smooth), numbers
        flat = tf.concat([tf.reshape(value, [-1]) for value in numbers.values()], axis=0)
        if self.config.training.jit_compile:
            # The shape of tf.unique depends on the data; XLA mixes it up further down.
            ids, rows = flat, tf.range(tf.size(flat))
        else:
            ids, rows = tf.unique(flat)
        parts = tf.split(rows, [tf.size(value) for value in numbers.values()])
        return (
            ids,
            self.embed_items(ids, training=training),
            {
                name: tf.reshape(part, tf.shape(value))
                for part, (name, value) in zip(parts, numbers.items(), strict=True)
            },
        )

    def compute_loss(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The retrieval loss plus the weighted alignment losses of a batch.

        Args:
          inputs: a batch as `Schema.batch_spec` describes.

        Returns:
          <float32>[], the mean over the batch's examples.
        """
        settings, alignment = self.config.retrieval, self.config.alignment
        item = inputs["item"]
        triples = auxiliary_losses.draw_triples(self, tf.shape(item)[0])
        cached = training and self.caches_histories
        embedded = inputs["history"]
        if self.config.user.history == "none":
            # A tower without histories reads no embedding of them.
            embedded = embedded[:, :0]
        elif cached:
            count = 0 if self.reads_raw else cached_histories.NUM_READ
            embedded = cached_histories.draw_known(embedded, count)
        numbers = {
            "item": item,
            "history": embedded,
            **self.objective.draw(inputs, self.state.mined),
        }
        if triples is not None:
            # The other nodes of the graph have vectors elsewhere.
            numbers["nodes"] = tf.where(triples < self.schema.num_items, triples, -1)
        ids, output, rows = self.embed_named(numbers, training=training)
        log_frequency = tf.gather(self.tables["log_frequency"], ids)
        user = self.embed_users(
            inputs["user"],
            cached_histories.read_cached(
                self.state.history_items, inputs["history"], ids, output.embedding
            )
            if cached
            else tf.gather(output.embedding, rows["history"]),
            inputs["history"] >= 0,
            gap=inputs.get("gap"),
            training=training,
        )
        embedding = output.embedding
        if self.config.user.interests > 1:
            # The interest that is nearest to what was chosen learns from it, and is compared with
            # all the rest (Cen et al. 2020, eq. 7 and 8).
            chosen = tf.gather(embedding, rows["item"])[:, None]
            user = one_an_item(user, chosen)[:, 0]
        if training and settings.embedding_noise:
            user, embedding = (with_noise(x, settings.embedding_noise) for x in (user, embedding))

        remembered = None
        if self.objective.memory is not None:
            # Embeddings as they were then, popularity as it counts now: its weight learns from all
            # that is compared with, or popular items would be pulled up more than pushed down.
            kept, vectors = self.objective.memory.read()
            popularity = tf.gather(self.tables["log_frequency"], tf.maximum(kept, 0))
            remembered = kept, self.candidates(vectors, popularity)

        def loss_of(user: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
            candidates = self.candidates(embedding, log_frequency)
            if self.intercept is not None:
                candidates += self.intercept * tf.one_hot(self.config.dim, self.config.dim + 1)
            losses = self.objective(
                inputs,
                self.queries(user),
                candidates,
                numbers=numbers,
                rows=rows,
                tables=self.tables,
                remembered=remembered,
            )
            return mean_over_replicas(losses * inputs["weight"])

        if training and settings.adversarial:
            with tf.GradientTape() as tape:
                tape.watch([user, embedding])
                loss = loss_of(user, embedding)
            gradients = tape.gradient(loss, [user, embedding])
            loss += loss_of(
                *(
                    perturb(x, tf.convert_to_tensor(gradient), settings.adversarial)
                    for x, gradient in zip([user, embedding], gradients, strict=True)
                )
            )
        else:
            loss = loss_of(user, embedding)
        if training:
            self.objective.remember(item, tf.gather(output.embedding, rows["item"]))
        self.loss_tracker.update_state(loss)
        if self.contrasts:
            contrastive = auxiliary_losses.contrastive_loss(self, output, rows, item)
            self.contrastive_tracker.update_state(contrastive)
            loss += alignment.contrastive_weight * contrastive
        if self.label_heads is not None:
            of_labels = auxiliary_losses.label_loss(
                self, self.label_heads, output, rows, item, training=training
            )
            self.label_tracker.update_state(of_labels)
            loss += self.config.labels.weight * of_labels
        if self.translation is not None and triples is not None and alignment.graph_weight:
            of_graph = auxiliary_losses.graph_loss(self, self.translation, output, rows, triples)
            self.graph_tracker.update_state(of_graph)
            loss += alignment.graph_weight * of_graph
        return loss

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The users of a batch.

        Args:
          inputs: "user" and "history", and "gap" where it is known, as in `Schema.batch_spec`.
          training: whether dropout is on.

        Returns:
          <float32>[batch, dim], unit vectors; with several interests <float32>[batch, interest,
          dim].
        """
        history = inputs["history"]
        _, output, rows = self.embed_named({"history": history}, training=training)
        return self.embed_users(
            inputs["user"],
            tf.gather(output.embedding, rows["history"]),
            history >= 0,
            gap=inputs.get("gap"),
            training=training,
        )

    def embed(self, users: np.ndarray) -> np.ndarray:
        """The embeddings of users with their train histories, <int>[n] -> <float32>[n, dim]; with
        several interests <float32>[n, interest, dim]."""
        liked = self.liked_histories()
        embedding = tf.constant(self.embed_all())
        parts = [
            self.embed_histories(liked, embedding, users[start : start + BLOCK]).numpy()
            for start in range(0, len(users), BLOCK)
        ]
        interests = self.config.user.interests
        shape = [0, self.config.dim] if interests == 1 else [0, interests, self.config.dim]
        return np.concatenate(parts) if parts else np.zeros(shape, np.float32)

    def liked_histories(self, dataset: Dataset | None = None, history: str = "train") -> Histories:
        """What the user tower reads of users' histories: what they liked.

        Args:
          dataset: Dataset with the model's items; None for the model's own.
          history: as of `Dataset.histories`.
        """
        disliked_below = self.config.retrieval.disliked_below
        return (dataset or self.dataset).histories(disliked_below=disliked_below, history=history)

    def embed_histories(
        self, liked: Histories, embedding: tf.Tensor, users: np.ndarray
    ) -> tf.Tensor:
        """What `embed_users` makes of users <int>[n], given all users' histories and the items'
        embeddings <float32>[item, dim]."""
        history, gap, known = map(tf.constant, liked.read(users, self.config.user.history_length))
        return self.embed_users(
            tf.constant(users, tf.int32),
            tf.gather(embedding, tf.maximum(history, 0)),
            known,
            gap=gap,
        )

    # The head beside the towers

    @property
    def item_head(self) -> ItemHead | None:
        """What adds to the towers' scores; None without a head, and before it is fitted."""
        return self.state.item_head

    @property
    def item_head_fit(self) -> ItemHeadFit | None:
        """What was found when the head was fitted, also where it is of no use."""
        return self.state.item_head_fit

    def head_scores(self, liked: Histories, users: np.ndarray) -> np.ndarray | None:
        """What the head adds to the scores of users <int>[n], given all users' histories:
        <float32>[n, item]; None without a head."""
        if self.state.item_head_graph is None:
            return None
        longest = int((liked.offset[users + 1] - liked.offset[users]).max(initial=0))
        return self.state.item_head_graph(tf.constant(liked.last(users, longest))).numpy()

    def make_item_head(self, dataset: Dataset | None = None) -> ItemHead:
        """The head that the config asks for, its matrix fitted to train, of weight 1.

        Args:
          dataset: Dataset with the model's items; None for the model's own.
        """
        dataset = dataset or self.dataset
        encoded, present = [], None
        if self.config.item_head.kind == "content":
            names = frozen_modalities(self.config, self.schema)
            encoded = [self.encode_catalog(name) for name in names]
            # Not the model's own table, in which absent content may have been filled in.
            columns = [list(self.schema.modalities).index(name) for name in names]
            present = dataset.catalog.present[:, columns]
        neighbors = fit_neighbors(self.config, dataset, encoded=encoded, present=present)
        return ItemHead.of(self.config, self.schema.num_items, neighbors)

    def fit_item_head(self, *, monitor: str | None = None) -> ItemHeadFit | None:
        """Fits the head to train, and its weights to valid; done once the towers are trained, whose
        scores it adds to from then on. Where no weight beats the towers alone it is left out.

        Args:
          monitor: the metric; None for `training.monitor`.

        Returns:
          ItemHeadFit; None where the config asks for none.

        Raises:
          ConfigError: as `require_item_head`.
          DatasetError: where valid is empty.
        """
        self.set_item_head(None, None)
        if self.config.item_head.kind == "none":
            return None
        head = self.make_item_head()
        self.set_item_head(head, None)
        embedding = self.embed_all()
        fit = fit_weights(
            head,
            self.dataset,
            lambda users: self._scored(self.dataset, users, "train", embedding),
            liked=self.liked_histories(),
            settings=self.config.item_head,
            monitor=monitor or self.config.training.monitor,
        )
        self.set_item_head(head, fit)
        return fit

    def fit(self, *args: Any, **kwargs: Any) -> tf.keras.callbacks.History:
        """As `Stage.fit`. A head from before is dropped, and where cold items were placed, as both
        were fitted to other towers; `fit_item_head` and `fit_cold_items` do it anew."""
        self.set_item_head(None, None)
        self.set_cold_items(None)
        return super().fit(*args, **kwargs)

    def finish(self) -> None:
        """As `Stage.finish`: the head of items against items, and where cold items are placed, each
        with a line on stderr."""
        # A head is fitted to towers as they are, whatever was placed before.
        self.set_cold_items(None)
        for fit in (self.fit_item_head(), self.fit_cold_items()):
            if fit is not None:
                tqdm.write(str(fit), file=sys.stderr)

    def set_item_head(self, head: ItemHead | None, fit: ItemHeadFit | None) -> None:
        """Takes a head into use, with the weights that were fitted; None for none. One that is of
        no use is remembered and not asked."""
        if fit is not None and head is not None:
            head.scale.assign(fit.scale())
        if fit is not None and not fit.used:
            head = None
        known = head is not None and head is self.state.item_head
        self.state.item_head, self.state.item_head_fit = head, fit
        if not known:
            self.state.item_head_graph = None
        if head is not None and not known:
            spec = tf.TensorSpec([None, None], tf.int32)
            self.state.item_head_graph = tf.function(
                head.__call__, input_signature=[spec], autograph=False
            )

    # Items without train interactions

    @property
    def cold_items_fit(self) -> ColdItemsFit | None:
        """Where a simulated cold start places such items, also where that changes nothing; None
        where the config does not ask, and before it is fitted."""
        return self.state.cold_items_fit

    def set_cold_items(self, fit: ColdItemsFit | None) -> None:
        """Takes what was fitted into use; None for nothing."""
        self.state.cold_items_fit = fit

    def placed_items(self) -> np.ndarray:
        """The items that are placed: with content, but without train interactions, or with fewer
        than `cold_items.warm_up`; <bool>[item]."""
        return (self.tables["confidence"] < 1) & self.has_content()

    def near_items(self) -> np.ndarray:
        """The items that they may be pulled toward: the others with content, <bool>[item]."""
        return (self.tables["confidence"] == 1) & self.has_content()

    def has_content(self) -> np.ndarray:
        """Whether any content of an item is there, <bool>[item]."""
        return np.asarray(self.tables["present"]).any(axis=1)

    @property
    def places_items(self) -> bool:
        """Whether the vectors of `placed_items` are others than ids and content make them."""
        fit = self.cold_items_fit
        # Without anything that is warm there is nothing to be near to.
        if fit is None or not self.near_items().any():
            return False
        return fit.pull > 0 or bool((self.placed_items() & self.tables["warm"].numpy()).any())

    def cold_neighbors(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The items of `placed_items` with those that they are pulled toward, in blocks, as of
        `mmrec_tf.retrieval.cold_items.near_items`; nothing unless `places_items`."""
        fit = self.cold_items_fit
        if fit is None or not self.places_items:
            return
        cold, warm = np.flatnonzero(self.placed_items()), np.flatnonzero(self.near_items())
        content = np.zeros([self.schema.num_items, self.config.dim], np.float32)
        for rows in (cold, warm):
            content[rows] = self.embed_rows(rows, content_only=True)
        yield from near_items(content, cold, warm, fit.num_neighbors)

    def fit_cold_items(self, *, monitor: str | None = None) -> ColdItemsFit | None:
        """Finds where items without train interactions belong, by a simulated cold start on train
        (`mmrec_tf.retrieval.cold_start`), and places them there from then on; done once the
        towers are trained, and the head is fitted.

        Args:
          monitor: the metric whose cut-off counts; None for `training.monitor`.

        Returns:
          ColdItemsFit; None where the config asks for none.
        """
        self.set_cold_items(None)
        if not self.config.cold_items.fit:
            return None
        fit = fit_places(self, monitor=monitor or self.config.training.monitor)
        self.set_cold_items(fit)
        return fit

    # Lists of whole catalogs

    def _scored(
        self, dataset: Dataset, users: np.ndarray, history: str, embedded: np.ndarray | None = None
    ) -> Iterator[Scored]:
        """The scores of all items for users <int>[n], in blocks; of a catalog that was embedded
        before, <float32>[item, dim], or is embedded now."""
        histories, liked = (
            dataset.histories(history=history),
            self.liked_histories(dataset, history),
        )
        embedding = tf.constant(self.embed_all() if embedded is None else embedded)
        vectors = self.catalog_candidates(embedding)
        for block in blocks(len(users), dataset.schema.num_items):
            some = users[block]
            queries = self.queries(self.embed_histories(liked, embedding, some))
            # A copy, so it may be written to.
            towers = score_all(queries, vectors).numpy()
            head = self.head_scores(liked, some)
            yield Scored(block, towers, head, histories.pairs(some))

    def rank_items(
        self, dataset: Dataset, users: np.ndarray, *, k: int, history: str = "train"
    ) -> np.ndarray:
        """As `mmrec_tf.evaluation.evaluate.Ranker` has it."""
        tops: list[concurrent.futures.Future] = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for part in self._scored(dataset, users, history):
                scores = part.total()
                scores[part.met] = -np.inf
                # One block is sorted while the next one is scored; no more of them stay in memory.
                concurrent.futures.wait(tops[-1:])
                tops.append(pool.submit(top_k, scores, k))
        return np.concatenate([top.result() for top in tops])

    def _make_weights(self) -> None:
        """Creates all weights of the towers."""
        steps, dim = self.config.user.history_length, self.config.dim
        encoded = {
            name: tf.zeros([1, known_encoder(self.encoders, name).output_dim])
            for name in self.encoders
        }
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
            "gap": tf.zeros([1, steps]),
            "features": empty_features(self.schema.user_features, 1),
        }
        if PROFILE in encoded:
            user["profile"] = encoded[PROFILE]
        self.user_tower(user)
