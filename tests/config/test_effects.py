"""Every pair of a setting and a mode: the setting changes something there, or it is refused.

What it changes is looked up in one of two ways: settings of towers, alignment, retrieval's loss and
ranking are tried out on a small model; of the others the function that reads them is named.
"""

import dataclasses
import inspect
import zlib

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import RankingModel, open_dataset
from mmrec_tf.config import FAMILIES, Config, LabelsConfig
from mmrec_tf.config.paths import value_at
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.encoders import cache
from mmrec_tf.encoders.audio import clips, mel_cnn, recurrent, saved_model
from mmrec_tf.encoders.audio import transformers as speech
from mmrec_tf.encoders.image import applications, descriptors, keras_model
from mmrec_tf.encoders.image import transformers as vision
from mmrec_tf.encoders.text import bag_of_words, bert, word_vectors
from mmrec_tf.encoders.video import frames
from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender import funnel
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval import (
    catalog_tables,
    cold_start,
    initial_weights,
    item_graph,
    item_similarity,
    model,
)
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.objective import Objective
from mmrec_tf.runs import train
from mmrec_tf.schema import Schema
from mmrec_tf.towers import ItemTower, UserTower
from mmrec_tf.towers.alignment import Alignment, TranslationLoss
from mmrec_tf.towers.labels import LabelHeads
from mmrec_tf.training import callbacks, optimizer, step
from mmrec_tf.training.stage import Stage

SCHEMA = small_world.schema_of(labels=True)
TRAINED = {"text.trainable_layers": -1}
TWO_TASKS = {"ranking.tasks": ["click", "buy"]}

MODES = [
    {},
    {"modalities": []},
    {"modalities": ["vector"]},
    {"modalities": [], "user.profile": False},
    {"text.weights": "a/b"},
    TRAINED,
    {**TRAINED, "text.adaptation": "lora"},
    {**TRAINED, "text.adaptation": "adapter"},
    {**TRAINED, "text.synonyms": "words.tsv"},
    {"audio.family": "recurrent"},
    {"audio.family": "recurrent", "audio.features": "mfcc"},
    {"audio.family": "saved_model", "audio.model": "yamnet"},
    {"audio.family": "transformers", "audio.weights": "a/b"},
    {"audio.family": "transformers", "audio.weights": "a/b", "audio.adaptation": "lora"},
    {"image.family": "keras_model", "image.model": "net.keras"},
    {"image.family": "transformers", "image.weights": "a/b"},
    {
        "image.family": "transformers",
        "image.weights": "a/b",
        "image.trainable_layers": 1,
        "image.adaptation": "lora",
    },
    {"image.family": "descriptors"},
    {"text.family": "clip", "text.weights": "a/b", "text.max_tokens": 20},
    {"image.family": "clip", "image.weights": "a/b"},
    {"text.family": "word_vectors", "text.vectors": "glove.txt"},
    {"text.family": "tfidf"},
    {"text.family": "bag_of_words"},
    {"image.trainable_layers": -1},
    {"audio.trainable_layers": -1},
    *({"video.pool": pool} for pool in ("attention", "gru", "transformer")),
    *({"alignment.kinds": [k]} for k in ("ridge", "cca", "procrustes", "graph")),
    *(
        {"alignment.kinds": k}
        for k in ([], ["contrastive", "graph"], ["ridge", "contrastive"], ["cca", "graph"])
    ),
    {"alignment.kinds": ["ridge"], "alignment.target": "image"},
    {"alignment.kinds": ["procrustes", "contrastive"], "alignment.target": "image"},
    {"alignment.contrastive_weight": 0},
    {"alignment.kinds": ["contrastive", "graph"], "alignment.graph_weight": 0},
    {"alignment.collaborative": 0.5},
    {"item.id_embedding": False},
    {"labels.softmax": ["genre"]},
    *(
        {"item.fusion": k}
        for k in ("mean", "weighted", "attention", "concat", "transformer", "recurrent", "bilinear")
    ),
    *({"item.missing": k} for k in ("token", "mean", "nearest", "mapped")),
    {"graph.layers": 1, "retrieval.softmax": "full"},
    {"graph.content_layers": 1, "retrieval.softmax": "full"},
    {"user.id_embedding": True},
    *({"user.history": k} for k in ("none", "gru", "attention", "self_attention")),
    {"user.history": "none", "retrieval.mask_history": False},
    {"user.history_context": "past"},
    {"user.history_context": "past", "retrieval.next_items": 2},
    {"user.history_embedding": "cached"},
    {"retrieval.softmax": "full"},
    {"retrieval.loss": "bpr"},
    {"retrieval.softmax": "full", "retrieval.loss": "bpr"},
    {"retrieval.softmax": "full", "retrieval.loss": "gbce"},
    {"retrieval.loss": "gbce", "retrieval.num_uniform_negatives": 5},
    {
        "retrieval.loss": "gbce",
        "retrieval.num_uniform_negatives": 5,
        "retrieval.disliked_below": 3,
    },
    *({"retrieval.sampling_correction": k} for k in ("none", "streaming")),
    {"retrieval.num_mined_negatives": 2},
    {"retrieval.disliked_below": 3},
    {"retrieval.disliked_below": 3, "retrieval.softmax": "full"},
    *({"item_head.kind": k} for k in ("ease", "slist", "content")),
    {"item_head.kind": "slist", "item_head.whole_share": 1.0},
    {"cold_items.fit": True},
    {"ranking.epochs": 0},
    *({"ranking.architecture": k} for k in ("dlrm", "deepfm", "mlp", "bilinear")),
    {"ranking.num_cross_layers": 0},
    {"ranking.hidden": []},
    {"ranking.tasks": ["rating"]},
    {"ranking.tasks": ["buy"]},
    TWO_TASKS,
    *({**TWO_TASKS, "ranking.sharing": k} for k in ("mmoe", "ple")),
    {**TWO_TASKS, "ranking.loss": "binary"},
    {**TWO_TASKS, "ranking.loss": "binary", "ranking.entire_space": True},
    {"ranking.uncertainty": True},
    *({"ranking.loss": k} for k in ("pairwise", "binary")),
    {"ranking.click_rating": 3},
    {"ranking.click_rating": 3, "ranking.loss": "binary"},
    {"ranking.click_rating": 3, "ranking.loss": "binary", "ranking.num_negatives": 0},
    {"ranking.fine_tune": True},
    {"ranking.signals": ["recency"]},
    {"ranking.calibration": "none"},
    {"training.decay": "cosine"},
]

# Another value of each setting than its default and that of the small world.
CHANGED = {
    "modalities": ["text"],
    "dim": 16,
    "text.weights": "c/d",
    "text.trainable_layers": 1,
    "text.adaptation": "lora",
    "text.adaptation_rank": 2,
    "text.pooling": "cls",
    "text.max_tokens": 9,
    "text.vocabulary_size": 60,
    "text.hidden_size": 16,
    "text.num_layers": 3,
    "text.num_heads": 4,
    "text.word_dropout": 0.5,
    "text.synonyms": "more.tsv",
    "text.synonym_share": 0.5,
    "text.vectors": "vectors.txt",
    "text.max_words": 9,
    "text.weighting": "tfidf",
    "text.min_items": 1,
    "text.components": 4,
    "image.architecture": "MobileNet",
    "image.weights": "pictures.h5",
    "image.trainable_layers": 1,
    "image.adaptation": "lora",
    "image.adaptation_rank": 2,
    "image.size": 48,
    "image.flip": True,
    "image.crop": 0.5,
    "image.color": 0.5,
    "image.blur": 1.0,
    "image.pooling": "max",
    "image.model": "other.keras",
    "image.layer": "last",
    "image.scaling": "unit",
    "image.bins": 3,
    "image.grid": 1,
    "audio.trainable_layers": 1,
    "audio.adaptation": "lora",
    "audio.adaptation_rank": 2,
    "audio.sample_rate_hz": 8000,
    "audio.clip_seconds": 0.5,
    "audio.num_mels": 20,
    "audio.fft_length": 128,
    "audio.hop_length": 64,
    "audio.fmax_hz": 1500.0,
    "audio.filters": [4],
    "audio.gru_units": 4,
    "audio.mask_bins": 2,
    "audio.mask_frames": 2,
    "audio.noise_db": -30.0,
    "audio.shift_seconds": 0.1,
    "audio.weights": "sounds.h5",
    "video.trainable_layers": 1,
    "video.num_frames": 4,
    "video.pool": "gru",
    "video.pool_units": 8,
    "video.num_layers": 2,
    "video.num_heads": 2,
    "audio.features": "mfcc",
    "audio.num_mfcc": 5,
    "audio.cell": "lstm",
    "audio.units": 6,
    "audio.model": "network.tflite",
    "audio.output": "scores",
    "alignment.kinds": ["ridge", "graph"],
    "alignment.contrastive_weight": 0.3,
    "alignment.collaborative": 0.7,
    "alignment.temperature": 0.5,
    "alignment.hidden": 4,
    "alignment.target": "vector",
    "alignment.trainable": False,
    "alignment.l2": 9.0,
    "alignment.graph_weight": 0.3,
    "alignment.margin": 3.0,
    "item.id_embedding": False,
    "item.id_init": "spectral",
    "item.id_dropout": 0.7,
    "item.modality_dropout": 0.7,
    "item.fusion": "mean",
    "item.missing": "token",
    "item.values_pooling": "attention",
    "item.features": False,
    "item.dropout": 0.5,
    "labels.softmax": ["genre"],
    "labels.sigmoid": ["genre"],
    "labels.weight": 0.3,
    "labels.hidden": 4,
    "graph.layers": 2,
    "graph.edge_dropout": 0.5,
    "graph.content_layers": 2,
    "graph.content_neighbors": 3,
    "user.id_embedding": True,
    "user.id_dropout": 0.7,
    "user.history": "gru",
    "user.history_length": 3,
    "user.history_context": "past",
    "user.history_embedding": "cached",
    "user.refresh_steps": 2,
    "user.num_layers": 2,
    "user.num_heads": 2,
    "user.interests": 2,
    "user.training_window": 1,
    "user.time_gaps": True,
    "user.hidden": 4,
    "user.profile": False,
    "user.features": False,
    "user.dropout": 0.5,
    "retrieval.loss": "bpr",
    "retrieval.softmax": "full",
    "retrieval.temperature": 0.5,
    "retrieval.learn_temperature": False,
    "retrieval.sampling_correction": "none",
    "retrieval.remove_accidental_hits": False,
    "retrieval.num_hard_negatives": 2,
    "retrieval.num_uniform_negatives": 4,
    "retrieval.num_mined_negatives": 3,
    "retrieval.mining_epochs": 2,
    "retrieval.memory_size": 6,
    "retrieval.mask_history": False,
    "retrieval.disliked_below": 4,
    "retrieval.disliked_weight": 3.0,
    "retrieval.label_smoothing": 0.3,
    "retrieval.embedding_noise": 0.3,
    "retrieval.adversarial": 0.3,
    "retrieval.popularity_bias": False,
    "retrieval.cold_negatives": False,
    "retrieval.item_balance": 0.5,
    "retrieval.next_items": 3,
    "retrieval.fading": 0.9,
    "retrieval.calibration": 0.25,
    "item_head.kind": "ease",
    "item_head.num_neighbors": 5,
    "item_head.history_length": 3,
    "item_head.l2": 9.0,
    "item_head.min_count": 2,
    "item_head.neighborhood": 4,
    "item_head.memory_mb": 9,
    "item_head.whole_share": 0.25,
    "item_head.history_decay": 2.0,
    "item_head.target_decay": 2.0,
    "cold_items.fit": True,
    "cold_items.num_neighbors": 5,
    "cold_items.hidden_share": 0.25,
    "cold_items.exposure": 2.0,
    "cold_items.pull": 0.5,
    "cold_items.warm_up": 8,
    "ranking.epochs": 2,
    "ranking.architecture": "mlp",
    "ranking.num_cross_layers": 3,
    "ranking.projection_dim": 2,
    "ranking.hidden": [6],
    "ranking.dropout": 0.6,
    "ranking.target_attention": True,
    "ranking.fine_tune": True,
    "ranking.content": False,
    "ranking.features": False,
    "ranking.context": ["hour"],
    "ranking.signals": ["neighbors", "co_occurrence"],
    "ranking.position_bias": True,
    "ranking.tasks": ["click", "view"],
    "ranking.click_rating": 4,
    "ranking.score_weights": [0.5],
    "ranking.task_weights": [0.5],
    "ranking.uncertainty": True,
    "ranking.sharing": "mmoe",
    "ranking.num_experts": 3,
    "ranking.entire_space": True,
    "ranking.loss": "pairwise",
    "ranking.positive_weight": 3.0,
    "ranking.focal_gamma": 2.0,
    "ranking.num_negatives": 6,
    "ranking.num_disliked": 0,
    "ranking.candidate_share": 0.25,
    "ranking.num_candidates": 5,
    "ranking.learning_rate": 0.1,
    "ranking.monitor": "auc",
    "ranking.calibration": "isotonic",
    "ranking.serve": "always",
    "recommender.diversity": 0.5,
    "recommender.popularity_dampening": 0.5,
    "recommender.popular_diversity": 0.5,
    "training.epochs": 3,
    "training.batch_size": 16,
    "training.learning_rate": 0.1,
    "training.weight_decay": 0.1,
    "training.clip_norm": 1.0,
    "training.warmup_steps": 5,
    "training.decay": "linear",
    "training.encoder_learning_rate_factor": 0.5,
    "training.accumulation_steps": 2,
    "training.steps_per_execution": 2,
    "training.average_epochs": 3,
    "training.monitor": "recall@20",
    "training.patience": 2,
    "training.mixed_precision": True,
    "training.jit_compile": True,
    "training.catalog_memory_mb": 10,
    "training.data_service": "grpc://localhost:1",
    "training.seed": 1,
}

# Who reads a setting, whatever the mode, once it is not refused there.
READERS = {
    "modalities": Schema.select,
    "text": bert.build_encoder,
    "text.vectors": word_vectors.build_encoder,
    "text.max_words": word_vectors.build_encoder,
    "text.weighting": word_vectors.build_encoder,
    "text.min_items": bag_of_words.build_encoder,
    "text.components": bag_of_words.build_encoder,
    "text.vocabulary_size": bert.build_encoder,
    "text.hidden_size": bert._fresh_bert,
    "text.num_layers": bert._fresh_bert,
    "text.num_heads": bert._fresh_bert,
    "image": applications.build_encoder,
    "image.model": keras_model.build_encoder,
    "image.layer": keras_model.build_encoder,
    "image.scaling": keras_model.build_encoder,
    **dict.fromkeys(("image.adaptation", "image.adaptation_rank"), vision.build_encoder),
    **dict.fromkeys(("audio.adaptation", "audio.adaptation_rank"), speech.build_encoder),
    "image.bins": descriptors.build_encoder,
    "image.grid": descriptors.build_encoder,
    "audio": clips.spectrogram_settings,
    **dict.fromkeys(("audio.filters", "audio.gru_units", "audio.weights"), mel_cnn.build_encoder),
    "video": frames.build_encoder,
    "item.values_pooling": cache.build_encoders,
    **dict.fromkeys(
        ("audio.features", "audio.num_mfcc", "audio.cell", "audio.units"), recurrent.build_encoder
    ),
    "audio.model": saved_model.build_encoder,
    "audio.output": saved_model.build_encoder,
    "item.id_init": initial_weights.set_initial_weights,
    "labels": LabelHeads.from_experiment,
    "labels.softmax": LabelsConfig.names.fget,
    "labels.sigmoid": LabelsConfig.names.fget,
    "labels.weight": model.RetrievalModel.compute_loss,
    "graph": item_graph.CatalogGraph.from_experiment,
    "user.history_context": Dataset.batches,
    "user.training_window": Dataset.batches,
    "user.history_embedding": model.RetrievalModel.caches_histories.fget,
    "user.refresh_steps": callbacks.HistoryRefresh.on_train_batch_end,
    "retrieval.learn_temperature": model.RetrievalModel.__init__,
    "retrieval.temperature": model.RetrievalModel.__init__,
    "retrieval.popularity_bias": model.RetrievalModel.__init__,
    "retrieval.embedding_noise": model.RetrievalModel.compute_loss,
    "retrieval.adversarial": model.RetrievalModel.compute_loss,
    "retrieval.mining_epochs": callbacks.Mining.on_epoch_begin,
    "retrieval.num_mined_negatives": Objective.draw,
    "retrieval.disliked_below": Dataset.batches,
    "retrieval.cold_negatives": catalog_tables.cold_log_frequency,
    "retrieval.next_items": Dataset.batches,
    "retrieval.fading": Dataset.batches,
    "retrieval.item_balance": catalog_tables._counted,
    "item_head": item_similarity.fit_neighbors,
    "item_head.history_length": ItemHead.of,
    "item_head.l2": item_similarity._fit_whole,
    "item_head.min_count": item_similarity._fitted_items,
    "item_head.memory_mb": item_similarity._fitted_items,
    "item_head.whole_share": item_similarity._fit_whole,
    "item_head.history_decay": item_similarity._split_histories,
    "item_head.target_decay": item_similarity._split_histories,
    "cold_items": cold_start.fit_places,
    "cold_items.warm_up": catalog_tables.confidence,
    "cold_items.fit": model.RetrievalModel.fit_cold_items,
    "ranking.epochs": RankingModel.epochs.fget,
    "ranking.click_rating": RankingModel.batches,
    "ranking.num_candidates": Recommender.__init__,
    "ranking.learning_rate": RankingModel.default_optimizer,
    "ranking.monitor": RankingModel.monitor.fget,
    "ranking.calibration": funnel.fit_calibration,
    "ranking.serve": train._learned_nothing,
    "recommender": Recommender.order,
    "recommender.popularity_dampening": Recommender.judge,
    "training": optimizer.build_optimizer,
    "training.epochs": Stage.epochs.fget,
    "training.batch_size": Stage._split_batches,
    "training.accumulation_steps": step.apply_step,
    "training.monitor": Stage.monitor.fget,
    "training.average_epochs": callbacks.Validation.on_train_begin,
    "training.patience": callbacks.Validation.set_model,
    "training.steps_per_execution": Stage.compile,
    "training.jit_compile": Stage.compile,
    "training.catalog_memory_mb": catalog_tables.held_content,
    "training.data_service": Stage._split_batches,
    "training.seed": Stage.__init__,
}


def draw(weights):
    """Weights drawn by their names, so that one more elsewhere changes none of them."""
    for path, weight in weights:
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        if weight.dtype.is_floating:
            weight.assign(0.5 * rng.normal(size=weight.shape))


def numbers(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


def rounded(*values):
    return [np.round(np.asarray(value, np.float64), 4).tolist() for value in values]


def user_tower(config):
    tower = UserTower.from_experiment(config, SCHEMA)
    steps = config.user.history_length
    known = np.zeros([16, steps], bool)
    for row in range(16):
        known[row, : row % steps + 1] = True
    inputs = {
        "user": tf.range(16),
        "history": numbers(16, steps, config.dim),
        "known": tf.constant(known),
        "gap": 1000 * tf.abs(numbers(16, steps)),
        "profile": numbers(16, 5),
        "features": {"age": numbers(16, 2)},
    }
    tower(inputs)
    draw((weight.name, weight) for weight in tower.weights)
    tf.keras.utils.set_random_seed(0)
    return steps, rounded(tower(inputs), tower(inputs, training=True))


def item_tower(config):
    names = SCHEMA.select(config.modalities)
    tower = ItemTower.from_experiment(config, SCHEMA)
    present = np.arange(16)[:, None] % 5 != np.arange(len(names))
    inputs = {
        "item": tf.range(16),
        "present": tf.constant(present),
        "encoded": {name: numbers(16, 6) + len(name) for name in names},
        "features": {
            "genre": tf.ones([16, 2], tf.int32) * 2,
            "price": tf.ones([16, 2]),
        },
    }
    tower(inputs)
    draw((weight.name, weight) for weight in tower.weights)
    tf.keras.utils.set_random_seed(0)
    output = tower(inputs)
    again = tower(inputs, training=True).embedding
    # What fills in before training is no part of the tower.
    return config.item.missing, rounded(output.embedding, output.weights, again)


def alignment(config):
    settings, names = config.alignment, SCHEMA.select(config.modalities)
    of_graph = []
    if "graph" in settings.kinds:
        graph = TranslationLoss(2, 1, 4, settings.margin)
        draw((weight.name, weight) for weight in graph.weights)
        triples = tf.constant([0, 1, 2]), tf.constant([0, 0, 0]), tf.constant([4, 5, 5])
        loss = graph.loss(numbers(4, 4), 4, *triples, tf.constant([1, 2, 3]))
        of_graph = rounded(settings.graph_weight * loss)
    if not names:
        return of_graph
    tower = ItemTower.from_experiment(config, SCHEMA)
    layer: Alignment = tower.alignment
    features = [numbers(16, 6) * (i + 1) + numbers(6, 16).numpy().T + i for i in range(len(names))]
    present = tf.ones([16, len(names)], tf.bool)
    layer(features, present)
    tf.keras.utils.set_random_seed(0)
    temperature = getattr(layer, "log_temperature", None)
    kept = None if temperature is None else temperature.numpy()
    draw((weight.name, weight) for weight in layer.weights)
    if kept is not None:
        temperature.assign(kept)
    if layer.fitted:
        values, there, known = [f.numpy() for f in features], present.numpy(), np.ones(16, bool)
        if settings.target:
            layer.fit_to_modality(values, there, names.index(settings.target), known)
        else:
            layer.fit(values, there, numbers(16, 8).numpy(), known)
    vectors = layer(features, present)
    sides = (
        {}
        if tower.id_embedding is None
        else {"collaborative": numbers(16, 8), "has_collaborative": tf.ones([16], tf.bool)}
    )
    loss = layer.loss(vectors, present, **sides)
    weighed = rounded(vectors, settings.contrastive_weight * loss)
    return len(layer.trainable_weights), weighed, of_graph


def objective(config):
    settings, num, dim = config.retrieval, 12, 4
    rng = np.random.default_rng(1)
    made = Objective(settings, num_items=num, dim=dim)
    inputs = {
        "user": tf.range(8),
        "item": tf.constant([0, 1, 2, 3, 4, 5, 0, 1]),
        "history": tf.constant(rng.integers(0, num, (8, 3)), tf.int32),
        "disliked": tf.constant(rng.integers(0, num, (8, 2)), tf.int32),
    }
    mined = tf.constant(rng.integers(0, num, (8, 5)), tf.int32)
    tf.keras.utils.set_random_seed(0)
    named = {"item": inputs["item"], "history": inputs["history"], **made.draw(inputs, mined)}
    probability = rng.random(num)
    tables = {
        "probability": tf.constant(probability / probability.sum(), tf.float32),
        "warm": tf.constant(np.arange(num) < 9),
    }
    remembered = None
    if made.frequency is not None:
        made.frequency.update(inputs["item"])
    if made.memory is not None:
        made.memory.write(tf.constant([9, 8, 7, 6]), numbers(4, dim))
        kept, vectors = made.memory.read()
        remembered = kept, tf.pad(vectors, [[0, 0], [0, 1]])
    losses = made(
        inputs,
        numbers(8, dim + 1),
        numbers(num, dim + 1)[::-1],
        numbers=named,
        rows=named,
        tables=tables,
        remembered=remembered,
    )
    return rounded(losses)


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory):
    folder = small_world.write(tmp_path_factory.mktemp("data") / "labeled", labels=True)
    dataset = open_dataset(folder)
    made = small_world.build_retrieval(dataset)
    batch = next(
        iter(
            dataset.batches(
                "train",
                16,
                user=made.config.user,
                keep_disliked=True,
                unclicked_below=3.0,
                shuffle=True,
            )
        )
    )
    return made, batch


def ranking(config, retrieval):
    found, batch = retrieval
    tf.keras.utils.set_random_seed(0)
    changed = {"ranking": config.ranking, "retrieval": config.retrieval}
    config = dataclasses.replace(found.config, **changed)
    made = RankingModel(config, found.dataset, retrieval=found, initialize=False)
    draw(made.get_weight_paths().items())
    made.rating_scale.assign([3.0, 1.5])
    tf.keras.utils.set_random_seed(0)
    loss = made.compute_loss(batch, training=True)
    lists = made._lists(batch)
    ranked = made.rank(lists.request, lists.item[:, :1], made.items, lists.retrieved[:, :1])
    shown = ranked.logits.values()
    return rounded(loss, ranked.score, made.click_shift, *shown)


# What is built to see an effect, and the settings beside those of the section that it depends on.
PROBES = {
    "alignment": (alignment, ("modalities", "item.id_embedding")),
    "item": (item_tower, ("modalities",)),
    "user": (user_tower, ()),
    "retrieval": (objective, ()),
    "ranking": (ranking, ("retrieval.disliked_below",)),
}


def all_settings(config, path=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from all_settings(value, f"{path}{field.name}.")
        else:
            yield path + field.name


def test_every_setting_is_named_here():
    # Families are modes.
    families = {f"{kind}.family" for kind in FAMILIES}
    assert set(CHANGED) == set(all_settings(Config())) - families


# A family that reads a file is chosen together with one; here with two, one after the other.
NAMED = ("audio.model", "image.model", "text.vectors")


def changed(plain, base, mode, path, value):
    """The config of a mode with another value of a setting; None where that is refused."""
    section, name = path.rsplit(".", 1) if "." in path else (None, path)
    value = tuple(value) if isinstance(value, list) else value
    try:
        if section is None:
            return dataclasses.replace(plain, **{name: value})
        part = dataclasses.replace(getattr(plain, section), **{name: value})
        return dataclasses.replace(plain, **{section: part})
    except ConfigError as error:
        if str(error).startswith(f"{path}:"):
            return None
    try:
        # What the small world itself sets may be idle now.
        return base.override({**mode, path: value})
    except ConfigError as error:
        # It says which setting it is, or that two modes exclude each other.
        assert path in str(error) or str(error).startswith(("graph:", "alignment.", "ranking.num"))
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        sorted({path.partition(".")[0] for path in CHANGED} - {"dim", "ranking"}),
        ["ranking"],
    ],
    ids=["all_but_ranking", "ranking"],
)
def test_every_pair_of_a_setting_and_a_mode_has_an_effect_or_is_refused(sections, retrieval):
    known = {}

    def probed(section, config):
        probe, beside = PROBES[section]
        values = {path: value_at(config, path) for path in beside}
        key = (getattr(config, section), *values.values())
        if key not in known:
            # Of all else it has the defaults, so that most pairs are a pair seen before.
            least = Config(dim=8, modalities=config.modalities).override(values)
            least = dataclasses.replace(least, **{section: getattr(config, section)})
            known[key] = probe(least, retrieval) if section == "ranking" else probe(least)
        return known[key]

    base = small_world.config(schema=SCHEMA)
    settings = {p: v for p, v in CHANGED.items() if p.partition(".")[0] in sections}
    without, taken = {}, set()
    for mode in MODES:
        plain = base.override(mode)
        for path, value in settings.items():
            fixed = path in mode and path not in NAMED
            other = None if fixed else changed(plain, base, mode, path, value)
            if other is None:
                continue
            taken.add(path)
            section = path.partition(".")[0]
            reader = READERS.get(path, None if section in PROBES else READERS.get(section))
            if reader is not None:
                effect = path.rpartition(".")[2] in inspect.getsource(reader)
            else:
                effect = probed(section, other) != probed(section, plain)
            if not effect:
                without.setdefault(path, []).append(mode)
    assert not without
    assert taken == set(settings)
