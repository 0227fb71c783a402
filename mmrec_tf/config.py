"""All that an experiment may vary, as a tree of frozen dataclasses.

A `Config` is checked when it is made, strict when it is read from JSON (an unknown name is
refused with the nearest known one) and saved with every run. `override` is the one function
through which the command line (`--set`) and the tuner change a setting.
"""

import dataclasses
import difflib
import json
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrec_tf.errors import ConfigError

ALIGNMENTS = ("none", "contrastive", "ridge", "cca", "procrustes", "graph")
FUSIONS = (
    "mean",
    "weighted",
    "gated",
    "attention",
    "concat",
    "transformer",
    "recurrent",
    "bilinear",
)
MISSING = ("skip", "token", "mean", "nearest")
ID_INITS = ("random", "spectral")
HISTORIES = ("none", "mean", "gru", "attention", "self_attention")
HISTORY_CONTEXTS = ("auto", "past", "others")
POOLINGS = ("mean", "cls")
ADAPTATIONS = ("full", "lora", "adapter")
LOSSES = ("softmax", "bpr")
SOFTMAXES = ("batch", "full")
CORRECTIONS = ("none", "counts", "streaming")
DECAYS = ("none", "linear", "cosine")
METRICS = ("recall", "precision", "ndcg", "mrr", "hit_rate")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _at_least(part: object, prefix: str, bounds: Mapping[str, float]) -> None:
    """Refuses settings below their least value; each entry of a list counts."""
    for name, least in bounds.items():
        value = getattr(part, name)
        for number in value if isinstance(value, tuple) else (value,):
            _require(number >= least, f"{prefix}{name}: wanted at least {least:g}; got {number}.")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name}: wanted one of {', '.join(choices)}; got {value!r}.")


def _only_trained(
    part: "TextConfig | ImageConfig | AudioConfig", prefix: str, names: tuple[str, ...]
) -> None:
    """Refuses augmentation of a frozen encoder, which would do nothing."""
    for name in names:
        value, off = getattr(part, name), getattr(type(part), name)
        _require(
            part.trainable_layers != 0 or value == off,
            f"{prefix}{name}: wanted {json.dumps(off)} while {prefix}trainable_layers is 0, as a "
            f"frozen encoder's vectors are computed once, from unchanged content; got "
            f"{json.dumps(value)}. Set {prefix}trainable_layers to -1 (all) or a count, or leave "
            f"{prefix}{name} out.",
        )


@dataclass(frozen=True)
class TextConfig:
    """WordPiece tokens into BERT (Devlin et al. 2019).

    `weights` is a hub id or a local folder for `TFBertModel.from_pretrained`; empty for a fresh
    BERT of the sizes below with a vocabulary learned from the catalog.
    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `adaptation` says what trains in those blocks: all of their weights ("full"), low-rank updates
    of the attention's query and value projections ("lora", Hu et al. 2021) or bottlenecks behind
    attention and feed-forward ("adapter", Houlsby et al. 2019), both of width `adaptation_rank`.
    Augmentation, while an encoder trains: `word_dropout` is the share of words that are hidden;
    `synonyms` is a file of lines "word TAB synonym,synonym,...", and `synonym_share` the share of
    its words that are replaced where they occur (0.1 as in Wei and Zou 2019).
    """

    weights: str = ""
    trainable_layers: int = 0
    adaptation: str = "full"
    adaptation_rank: int = 8
    pooling: str = "mean"
    max_tokens: int = 64
    vocabulary_size: int = 4000
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 2
    word_dropout: float = 0.0
    synonyms: str = ""
    synonym_share: float = 0.1

    def __post_init__(self):
        _one_of("text.pooling", self.pooling, POOLINGS)
        _one_of("text.adaptation", self.adaptation, ADAPTATIONS)
        sizes = ("adaptation_rank", "vocabulary_size", "hidden_size", "num_layers", "num_heads")
        _at_least(self, "text.", dict.fromkeys(sizes, 1))
        _require(
            3 <= self.max_tokens <= 512, f"text.max_tokens: wanted 3 to 512; got {self.max_tokens}."
        )
        _require(
            self.hidden_size % self.num_heads == 0,
            f"text.hidden_size: wanted a multiple of text.num_heads ({self.num_heads}); "
            f"got {self.hidden_size}.",
        )
        _require(
            self.trainable_layers >= -1, "text.trainable_layers: wanted -1 (all), 0 or a count."
        )
        _require(
            0 <= self.word_dropout < 1,
            f"text.word_dropout: wanted 0 up to 1 (exclusive); got {self.word_dropout}.",
        )
        _require(
            0 <= self.synonym_share <= 1,
            f"text.synonym_share: wanted 0 to 1; got {self.synonym_share}.",
        )
        _require(
            self.adaptation == "full" or self.trainable_layers != 0,
            'text.adaptation: wanted "full" while text.trainable_layers is 0, as nothing trains; '
            f"got {json.dumps(self.adaptation)}. Set text.trainable_layers to -1 (all blocks) or a "
            "count, or leave text.adaptation out.",
        )
        _only_trained(self, "text.", ("word_dropout", "synonyms"))

    def frozen(self) -> "TextConfig":
        """The settings of the same encoder when it is not trained, and so not augmented."""
        return dataclasses.replace(
            self, trainable_layers=0, adaptation="full", word_dropout=0.0, synonyms=""
        )


@dataclass(frozen=True)
class ImageConfig:
    """A network of `tf.keras.applications` without its top, averaged over space.

    `weights`: empty for random ones, "imagenet" (downloads), or the path of a weights file.
    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n layers, -1 trains all.
    Augmentation, while an encoder trains: `flip` mirrors half of the pictures; `crop` is the least
    share of each side that is kept, 1 keeps all; `color` is how far brightness, contrast and
    saturation may depart from 1; `blur` is the largest standard deviation of a Gaussian, in pixels.
    """

    architecture: str = "ResNet50"
    weights: str = ""
    trainable_layers: int = 0
    size: int = 224
    flip: bool = False
    crop: float = 1.0
    color: float = 0.0
    blur: float = 0.0

    def __post_init__(self):
        _require(32 <= self.size <= 1024, f"image.size: wanted 32 to 1024; got {self.size}.")
        _require(
            self.trainable_layers >= -1, "image.trainable_layers: wanted -1 (all), 0 or a count."
        )
        _require(0 < self.crop <= 1, f"image.crop: wanted above 0, up to 1; got {self.crop}.")
        _require(0 <= self.color <= 1, f"image.color: wanted 0 to 1; got {self.color}.")
        _at_least(self, "image.", {"blur": 0})
        _only_trained(self, "image.", ("flip", "crop", "color", "blur"))


@dataclass(frozen=True)
class AudioConfig:
    """A log-mel spectrogram into a small convolutional network, optionally a GRU over time.

    `trainable_layers`: 0 keeps the encoder frozen, n trains the last n blocks, -1 trains all.
    `mask_bins` and `mask_frames` are the widest bands that SpecAugment (Park et al. 2019) hides
    while an encoder trains. `noise_db` is the loudest white noise added, relative to a clip's own
    peak; -80, the floor of the spectrogram, adds none. `shift_seconds` is how far a clip may move
    in either direction.
    """

    trainable_layers: int = -1
    sample_rate_hz: int = 16000
    clip_seconds: float = 3.0
    num_mels: int = 128
    fft_length: int = 1024
    hop_length: int = 256
    fmax_hz: float = 8000.0
    filters: tuple[int, ...] = (16, 32, 64)
    gru_units: int = 0
    mask_bins: int = 8
    mask_frames: int = 8
    noise_db: float = -80.0
    shift_seconds: float = 0.0
    weights: str = ""

    def __post_init__(self):
        sizes = ("sample_rate_hz", "num_mels", "fft_length", "hop_length", "filters")
        _at_least(self, "audio.", dict.fromkeys(sizes, 1))
        _at_least(self, "audio.", dict.fromkeys(("gru_units", "mask_bins", "mask_frames"), 0))
        _require(
            0 < self.fmax_hz <= self.sample_rate_hz / 2,
            f"audio.fmax_hz: wanted at most half of audio.sample_rate_hz "
            f"({self.sample_rate_hz / 2:g}); got {self.fmax_hz:g}.",
        )
        _require(
            self.clip_seconds * self.sample_rate_hz >= self.fft_length,
            "audio.clip_seconds: wanted at least one window of audio.fft_length samples.",
        )
        _require(len(self.filters) > 0, "audio.filters: wanted at least one block.")
        _require(
            self.trainable_layers >= -1, "audio.trainable_layers: wanted -1 (all), 0 or a count."
        )
        _require(
            -80 <= self.noise_db <= 0,
            f"audio.noise_db: wanted -80 (none) to 0; got {self.noise_db}.",
        )
        hop_seconds = self.hop_length / self.sample_rate_hz
        _require(
            self.shift_seconds == 0 or hop_seconds <= self.shift_seconds < self.clip_seconds,
            f"audio.shift_seconds: wanted 0 (none), or from one hop ({hop_seconds:g}) up to "
            f"audio.clip_seconds ({self.clip_seconds:g}); got {self.shift_seconds}.",
        )
        _only_trained(self, "audio.", ("noise_db", "shift_seconds"))


@dataclass(frozen=True)
class AlignmentConfig:
    """Projection of an item's modalities to one space, and what pulls them together there.

    `kind`:
      "none": the projections alone, trained by the retrieval loss.
      "contrastive": InfoNCE (van den Oord et al. 2018) among the modalities that an item has, and,
        `collaborative` times as strong, between each modality and the item's id embedding.
      "ridge", "cca", "procrustes": each projection is fitted in closed form, from a modality to the
        items' spectral embedding of the train interactions; then it trains on, or stays as it is
        (`trainable`). `l2` is the ridge penalty, relative to the features' variance.
      "graph": a translation loss over the dataset's knowledge graph (TransE, Bordes et al. 2013)
        with `margin`; a missing modality is filled from the item's neighbours in the graph.
    `weight` scales the loss in the total; 0 turns it off. `temperature` is the initial value of a
    learnable scalar. `hidden` is the width of a hidden layer of each projection, 0 for none.
    """

    kind: str = "contrastive"
    weight: float = 0.1
    collaborative: float = 0.0
    temperature: float = 0.1
    hidden: int = 0
    trainable: bool = True
    l2: float = 1.0
    margin: float = 1.0

    def __post_init__(self):
        _one_of("alignment.kind", self.kind, ALIGNMENTS)
        _at_least(self, "alignment.", {"weight": 0, "hidden": 0, "collaborative": 0})
        _at_least(self, "alignment.", {"l2": 0, "margin": 0})
        fitted = self.kind in ("ridge", "cca", "procrustes")
        _require(
            self.trainable or fitted,
            f"alignment.trainable: wanted true with alignment.kind {self.kind!r}, whose "
            "projections are learned; got false. Set it to true, or choose ridge, cca or "
            "procrustes.",
        )
        if fitted:
            _require(
                self.hidden == 0,
                f"alignment.hidden: wanted 0 with alignment.kind {self.kind!r}, whose projections "
                f"are linear; got {self.hidden}.",
            )
        _require(
            self.temperature > 0, f"alignment.temperature: wanted above 0; got {self.temperature}."
        )


@dataclass(frozen=True)
class ItemConfig:
    """The item tower. `id_dropout` hides the id of that share of items in each training step,
    so that content has to stand alone; `modality_dropout` does the same to each modality.
    `id_init`: where id embeddings start: at random, or at the items' spectral embedding of the
    train interactions. `missing`: what fusion sees in place of a modality that an item lacks:
    nothing ("skip"), a learned vector ("token"), the mean of the items that have it ("mean"), or
    the modality of the item that is nearest in the modalities that both have ("nearest")."""

    id_embedding: bool = True
    id_init: str = "random"
    id_dropout: float = 0.1
    modality_dropout: float = 0.0
    fusion: str = "gated"
    missing: str = "skip"
    features: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        _one_of("item.fusion", self.fusion, FUSIONS)
        _one_of("item.missing", self.missing, MISSING)
        _one_of("item.id_init", self.id_init, ID_INITS)
        for name in ("id_dropout", "modality_dropout", "dropout"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"item.{name}: wanted 0 up to 1 (exclusive); got {value}.")


@dataclass(frozen=True)
class GraphConfig:
    """Smoothing of the item embeddings over the catalog's graph, in training and in the index.

    `layers` over the user-item graph (LightGCN, He et al. 2020), `content_layers` over each item's
    `content_neighbors` most alike items by the content of frozen encoders; 0 for none.
    `edge_dropout` is the share of user-item links that a training step leaves out.
    """

    layers: int = 0
    edge_dropout: float = 0.0
    content_layers: int = 0
    content_neighbors: int = 10

    def __post_init__(self):
        _at_least(self, "graph.", {"layers": 0, "content_layers": 0, "content_neighbors": 1})
        _require(
            0 <= self.edge_dropout < 1,
            f"graph.edge_dropout: wanted 0 up to 1 (exclusive); got {self.edge_dropout}.",
        )


@dataclass(frozen=True)
class UserConfig:
    """The user tower. `history`: how the items of a history become one vector; "self_attention" is
    causal (SASRec, Kang and McAuley 2018), with `num_layers` blocks of `num_heads` heads.
    `time_gaps` tells the tower how long before the newest item of a history each one lies.
    `hidden` is the width of a hidden layer over the pooled history, beside the
    linear one; 0 for none. `history_context` says which of a user's train interactions surround a
    training example: those before it ("past"), all others ("others"), or "auto": past where the
    dataset's split follows time, others where it does not."""

    id_embedding: bool = False
    id_dropout: float = 0.1
    history: str = "mean"
    history_length: int = 50
    history_context: str = "auto"
    num_layers: int = 1
    num_heads: int = 1
    time_gaps: bool = False
    hidden: int = 0
    profile: bool = True
    features: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        _one_of("user.history", self.history, HISTORIES)
        _one_of("user.history_context", self.history_context, HISTORY_CONTEXTS)
        _at_least(self, "user.", {"history_length": 1, "hidden": 0})
        _at_least(self, "user.", {"num_layers": 1, "num_heads": 1})
        for name in ("id_dropout", "dropout"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"user.{name}: wanted 0 up to 1 (exclusive); got {value}.")


@dataclass(frozen=True)
class RetrievalConfig:
    """The retrieval loss.

    `loss`: "softmax", or "bpr" (Rendle et al. 2009), each positive against each negative.
    `softmax`: "batch" compares with the batch's other items (sampled softmax), "full" with the
    whole catalog. In-batch only:
      `sampling_correction` subtracts the log of the sampling probability from the logits (logQ, Yi
      et al. 2019): from exact counts, from the streaming estimate of its algorithm 2, or not;
      `num_uniform_negatives` items drawn from the whole catalog stand beside the batch's (mixed
      negative sampling, Yang et al. 2020);
      `memory_size` items of the batches before, as they were then (Wang et al. 2020);
      `num_mined_negatives` for each example, from what the model itself ranked highest for the
      user at the last refresh, every `mining_epochs` epochs;
      `num_hard_negatives` keeps that many of the highest negatives (0: all).
    `mask_history` leaves the items of the example's history out of the negatives.
    `disliked_below`: train interactions with a lower rating are no positives; they are negatives
    that count `disliked_weight` times; null for none. `label_smoothing` is the share of the target
    that is spread over all candidates. `embedding_noise` is the standard deviation of noise on
    each coordinate of user and item, relative to 1 / sqrt(dim). `adversarial` adds the loss under
    the worst perturbation of that length (He et al. 2018). `popularity_bias` adds a learned
    multiple of the log train frequency to a score.
    `cold_negatives` says what an item without any train interaction means: True, nobody wants it;
    False, nobody could have it yet, so it is no negative and counts as averagely popular.
    `item_balance` draws a training example with probability proportional to
    count(item) ** -item_balance: 0 takes each example once an epoch, 1 all items equally often.
    """

    loss: str = "softmax"
    softmax: str = "batch"
    temperature: float = 0.1
    learn_temperature: bool = True
    sampling_correction: str = "counts"
    remove_accidental_hits: bool = True
    num_hard_negatives: int = 0
    num_uniform_negatives: int = 0
    num_mined_negatives: int = 0
    mining_epochs: int = 1
    memory_size: int = 0
    mask_history: bool = True
    disliked_below: float | None = None
    disliked_weight: float = 1.0
    label_smoothing: float = 0.0
    embedding_noise: float = 0.0
    adversarial: float = 0.0
    popularity_bias: bool = True
    cold_negatives: bool = True
    item_balance: float = 0.0

    def __post_init__(self):
        _one_of("retrieval.loss", self.loss, LOSSES)
        _one_of("retrieval.softmax", self.softmax, SOFTMAXES)
        _one_of("retrieval.sampling_correction", self.sampling_correction, CORRECTIONS)
        counts = ("num_hard_negatives", "num_uniform_negatives", "num_mined_negatives")
        _at_least(self, "retrieval.", dict.fromkeys((*counts, "memory_size"), 0))
        _at_least(self, "retrieval.", {"mining_epochs": 1, "disliked_weight": 0})
        _at_least(self, "retrieval.", {"embedding_noise": 0, "adversarial": 0})
        _require(
            0 <= self.label_smoothing < 1,
            f"retrieval.label_smoothing: wanted 0 up to 1 (exclusive); got {self.label_smoothing}.",
        )
        _require(
            self.loss == "softmax" or not self.label_smoothing,
            "retrieval.label_smoothing: wanted 0 with retrieval.loss bpr, which has no target to "
            f"spread; got {self.label_smoothing}.",
        )
        _require(
            self.temperature > 0, f"retrieval.temperature: wanted above 0; got {self.temperature}."
        )
        _require(
            0 <= self.item_balance <= 1,
            f"retrieval.item_balance: wanted 0 to 1; got {self.item_balance}.",
        )


@dataclass(frozen=True)
class RankingConfig:
    """The ranking model: deep and cross network (Wang et al. 2021) over a user and an item.

    `num_negatives` items are drawn for each positive, the share `candidate_share` of them from
    what the retrieval model itself ranks highest, the rest at random. `num_candidates` is how many
    items retrieval hands to ranking when recommending.
    """

    epochs: int = 3
    num_cross_layers: int = 2
    projection_dim: int = 0
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.1
    num_negatives: int = 8
    candidate_share: float = 0.75
    num_candidates: int = 100
    learning_rate: float = 1e-3

    def __post_init__(self):
        _require(self.epochs >= 0, "ranking.epochs: wanted 0 (no ranking model) or more.")
        counts = {"num_negatives": 1, "num_candidates": 1, "hidden": 1}
        _at_least(self, "ranking.", {**counts, "num_cross_layers": 0, "projection_dim": 0})
        _require(0 <= self.candidate_share <= 1, "ranking.candidate_share: wanted 0 to 1.")
        _require(0 <= self.dropout < 1, "ranking.dropout: wanted 0 up to 1 (exclusive).")
        _require(self.learning_rate > 0, "ranking.learning_rate: wanted above 0.")


@dataclass(frozen=True)
class TrainingConfig:
    """How `fit` runs. `patience` epochs without a better `monitor` on the valid split end it;
    0 never does. `monitor` is a metric of `evaluate`, such as "ndcg@10" or "recall@20".

    The learning rate rises over `warmup_steps`, then falls to 0 at the last step (`decay` "linear"
    or "cosine") or stays; encoders that train take `encoder_learning_rate_factor` of it.
    `accumulation_steps` batches make one update.

    `catalog_memory_mb` is room for the items' vectors or preprocessed content, in MiB; a modality
    that does not fit into what is left stays on disk, and a batch's items are read from there.
    `data_service` is the address of a tf.data service dispatcher that has batches made elsewhere,
    such as "grpc://localhost:5000"; empty to make them here.
    """

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    warmup_steps: int = 0
    decay: str = "none"
    encoder_learning_rate_factor: float = 1.0
    accumulation_steps: int = 1
    monitor: str = "ndcg@10"
    patience: int = 5
    mixed_precision: bool = False
    jit_compile: bool = False
    catalog_memory_mb: int = 4096
    data_service: str = ""
    seed: int = 0

    def __post_init__(self):
        _at_least(self, "training.", {"epochs": 1, "batch_size": 1, "patience": 0, "seed": 0})
        _at_least(self, "training.", {"weight_decay": 0, "clip_norm": 0, "catalog_memory_mb": 0})
        _at_least(self, "training.", {"warmup_steps": 0, "accumulation_steps": 1})
        _require(
            self.encoder_learning_rate_factor > 0,
            "training.encoder_learning_rate_factor: wanted above 0; got "
            f"{self.encoder_learning_rate_factor}. To keep an encoder as it is, set its "
            "trainable_layers to 0.",
        )
        _one_of("training.decay", self.decay, DECAYS)
        _require(self.learning_rate > 0, "training.learning_rate: wanted above 0.")
        metric, _, k = self.monitor.partition("@")
        _require(
            metric in METRICS and k.isdigit() and int(k) >= 1,
            "training.monitor: wanted a metric such as ndcg@10 or recall@20; "
            f"got {self.monitor!r}.",
        )


@dataclass(frozen=True)
class Config:
    """One experiment.

    `modalities` names those of the dataset that the item tower uses, in this order everywhere;
    None takes all that the dataset has, () makes an id-only model.
    """

    modalities: tuple[str, ...] | None = None
    dim: int = 64
    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    item: ItemConfig = field(default_factory=ItemConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    user: UserConfig = field(default_factory=UserConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        _require(self.dim >= 2, f"dim: wanted at least 2; got {self.dim}.")
        if self.user.history == "self_attention":
            _require(
                self.dim % self.user.num_heads == 0,
                f"user.num_heads: wanted a divisor of dim ({self.dim}); got {self.user.num_heads}.",
            )
        if self.graph.layers or self.graph.content_layers:
            _require(
                self.retrieval.softmax == "full" and not self.training.jit_compile,
                "graph: wanted retrieval.softmax full and training.jit_compile false, as smoothing "
                "needs all items in every step and sparse products; got "
                f"{self.retrieval.softmax} and {json.dumps(self.training.jit_compile)}. Set "
                "graph.layers and graph.content_layers to 0, or change those.",
            )
        if self.modalities is not None:
            _require(
                len(set(self.modalities)) == len(self.modalities),
                f"modalities: each at most once; got {', '.join(self.modalities)}.",
            )

    def to_json(self) -> dict[str, Any]:
        """The config as plain dictionaries, lists and scalars."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """Reads what `to_json` wrote; missing settings take their defaults.

        Raises:
          ConfigError: for an unknown name, a value of the wrong type or out of range.
        """
        return _build(cls, value, "")

    def override(self, settings: Mapping[str, Any]) -> "Config":
        """A copy with settings changed, such as `{"training.epochs": 5}`.

        Values may be strings as typed on a command line: they are read as JSON where the field is
        not itself a string.
        """
        tree = self.to_json()
        for path, value in settings.items():
            node, kind = tree, type(self)
            *parents, last = path.split(".")
            for i, name in enumerate(parents):
                kind = _field_type(kind, name, ".".join(parents[: i + 1]))
                if not dataclasses.is_dataclass(kind):
                    raise ConfigError(
                        f"unknown setting {path}: {'.'.join(parents[: i + 1])} has no parts."
                    )
                node = node[name]
            node[last] = _typed(_field_type(kind, last, path), value, path)
        return Config.from_json(tree)

    def id_only(self) -> "Config":
        """The twin of this experiment that knows ids and nothing else."""
        return dataclasses.replace(
            self,
            modalities=(),
            alignment=AlignmentConfig(kind="none", weight=0.0),
            item=dataclasses.replace(self.item, id_embedding=True, id_dropout=0.0, features=False),
            graph=dataclasses.replace(self.graph, content_layers=0),
            user=dataclasses.replace(self.user, profile=False, features=False),
        )


def load_config(path: str | pathlib.Path) -> Config:
    """Reads a config from a JSON file.

    Raises:
      ConfigError: when the file is missing, is not JSON, or holds an unusable setting.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: wanted a config file; {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: wanted JSON; {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: wanted a JSON object; got {type(value).__name__}.")
    try:
        return Config.from_json(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _field_type(cls, name: str, path: str):
    hints = typing.get_type_hints(cls)
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(hints)}."
        raise ConfigError(f"unknown setting {path}{hint}")
    return hints[name]


def _build(cls, value: Any, path: str):
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'config'}: wanted a JSON object; got {value!r}.")
    arguments = {}
    for name, part in value.items():
        at = f"{path}.{name}" if path else name
        kind = _field_type(cls, name, at)
        if dataclasses.is_dataclass(kind):
            arguments[name] = _build(kind, part, at)
        else:
            arguments[name] = _typed(kind, part, at)
    return cls(**arguments)


def _typed(kind, value: Any, path: str):
    """`value` as the type of a field; strings from a command line are read as JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value)
        except ValueError:
            value = (
                value.split(",") if tuple in (origin, *map(typing.get_origin, arguments)) else value
            )
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: wanted a list; got {value!r}.")
        return tuple(_typed(arguments[0], part, path) for part in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = number and math.isfinite(value)
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise ConfigError(f"{path}: wanted {getattr(kind, '__name__', kind)}; got {value!r}.")
