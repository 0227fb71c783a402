"""Settings of the retrieval model: alignment, towers, graph and loss."""

from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, one_of, require, shapes_weights

ALIGNMENTS = ("contrastive", "ridge", "cca", "procrustes", "graph")
# Projections that are solved for; each kind says where all of them start.
FITTED = ("ridge", "cca", "procrustes")
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
MISSING = ("skip", "token", "mean", "nearest", "mapped")
VALUES_POOLINGS = ("mean", "attention")
ID_INITS = ("random", "spectral")
HISTORIES = ("none", "mean", "gru", "attention", "self_attention")
HISTORY_CONTEXTS = ("auto", "past", "others")
HISTORY_EMBEDDINGS = ("trained", "cached")
LOSSES = ("softmax", "bpr", "gbce")
SOFTMAXES = ("batch", "full")
CORRECTIONS = ("none", "counts", "streaming")
ITEM_HEADS = ("none", "ease", "slist", "content")


@dataclass(frozen=True)
class AlignmentConfig:
    """Projection of an item's modalities to one space, and what pulls them together there.

    `kinds`: any of these together, but at most one of the three that are fitted; with none, the
    retrieval loss alone trains the projections.
      "contrastive": InfoNCE (van den Oord et al. 2018) among the modalities that an item has, and,
        `collaborative` times as strong, between each modality and the item's id embedding. In the
        total it counts `contrastive_weight` times; 0 turns it off. `temperature` is the initial
        value of a learnable scalar.
      "ridge", "cca", "procrustes": each projection is fitted in closed form to `target`; then it
        trains on, or stays as it is (`trainable`). `target` is the name of a modality, to whose
        principal components the others are mapped, or "" for the items' spectral embedding of the
        train interactions. `l2` is the ridge penalty, relative to the features' variance; None
        chooses it by generalized cross-validation (Golub et al. 1979) over the items that are
        fitted to.
      "graph": a translation loss over the dataset's knowledge graph (TransE, Bordes et al. 2013)
        with `margin`, which counts `graph_weight` times; a missing modality is filled from the
        item's neighbours in the graph.
    `hidden` is the width of a hidden layer of each projection, 0 for none.
    """

    kinds: tuple[str, ...] = shapes_weights(("contrastive",))
    contrastive_weight: float = 0.1
    collaborative: float = 0.0
    temperature: float = shapes_weights(0.1)
    hidden: int = shapes_weights(0)
    target: str = shapes_weights("")
    trainable: bool = True
    l2: float | None = shapes_weights(None)
    graph_weight: float = 0.1
    margin: float = 1.0

    def __post_init__(self) -> None:
        for kind in self.kinds:
            one_of("alignment.kinds", kind, ALIGNMENTS)
        require(
            len(set(self.kinds)) == len(self.kinds),
            f"alignment.kinds: wanted each at most once; got {', '.join(self.kinds)}.",
        )
        fitted = [kind for kind in self.kinds if kind in FITTED]
        require(
            len(fitted) <= 1,
            f"alignment.kinds: wanted at most one of {', '.join(FITTED)}, as each says where the "
            f"projections start; got {', '.join(fitted)}. Keep one of them.",
        )
        at_least(self, "alignment.", {"contrastive_weight": 0, "graph_weight": 0, "hidden": 0})
        at_least(self, "alignment.", {"collaborative": 0, "margin": 0})
        if self.l2 is not None:
            at_least(self, "alignment.", {"l2": 0})
        require(
            self.temperature > 0, f"alignment.temperature: wanted above 0; got {self.temperature}."
        )


@dataclass(frozen=True)
class ItemConfig:
    """The item tower. `id_dropout` hides the id of that share of items in each training step,
    so that content has to stand alone; `modality_dropout` does the same to each modality.
    `id_init`: where id embeddings start: at random, or at the items' spectral embedding of the
    train interactions. `missing`: what fusion sees in place of a modality that an item lacks:
    nothing ("skip"), a learned vector ("token"), the mean of the items that have it ("mean"), the
    modality of the item that is nearest in the modalities that both have ("nearest"), or what ridge
    regression on another modality of the item says that it is ("mapped"). `values_pooling`: what
    several values of a modality, such as a gallery's pictures, count together: all alike ("mean"),
    or as much as attention says that learns which of them tell the most ("attention", Ilse et al.
    2018)."""

    id_embedding: bool = shapes_weights(True)
    id_init: str = shapes_weights("random")
    id_dropout: float = 0.1
    modality_dropout: float = 0.0
    fusion: str = shapes_weights("gated")
    missing: str = shapes_weights("skip")
    values_pooling: str = shapes_weights("mean")
    features: bool = shapes_weights(True)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("item.fusion", self.fusion, FUSIONS)
        one_of("item.missing", self.missing, MISSING)
        one_of("item.values_pooling", self.values_pooling, VALUES_POOLINGS)
        one_of("item.id_init", self.id_init, ID_INITS)
        for name in ("id_dropout", "modality_dropout", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"item.{name}: wanted 0 up to 1 (exclusive); got {value}.")


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

    def __post_init__(self) -> None:
        at_least(self, "graph.", {"layers": 0, "content_layers": 0, "content_neighbors": 1})
        require(
            0 <= self.edge_dropout < 1,
            f"graph.edge_dropout: wanted 0 up to 1 (exclusive); got {self.edge_dropout}.",
        )


@dataclass(frozen=True)
class UserConfig:
    """The user tower. `history`: how the items of a history become one vector; "self_attention" is
    causal (SASRec, Kang and McAuley 2018), with `num_layers` blocks of `num_heads` heads.
    `time_gaps` tells the tower how long before the newest item of a history each one lies.
    `hidden` is the width of a hidden layer over the pooled history, in addition to the
    linear one; 0 for none. `history_context` says which of a user's train interactions surround a
    training example: those before it ("past"), all others ("others"), or "auto": past where the
    dataset's split follows time, others where it does not. `history_embedding` says how training
    embeds a history's items: "trained" runs each of them through the item tower, which learns from
    histories, too; "cached" reads a table of the whole catalog that is embedded anew as each epoch
    begins and every `refresh_steps` steps in between (0: never), so that a step embeds the items
    to be told apart, and of each history a few at most. `interests` is how many vectors an
    "attention" history becomes, each with attention of its own (ComiRec-SA, Cen et al. 2020): an
    item is scored by the one that is nearest to it, and training moves that which is nearest to the
    item that was chosen. `training_window` above 0 has training read so many items in a row of a
    history, drawn anew each time from the `history_length` that are read otherwise."""

    id_embedding: bool = shapes_weights(False)
    id_dropout: float = 0.1
    history: str = shapes_weights("mean")
    history_length: int = 50
    history_context: str = "auto"
    training_window: int = 0
    history_embedding: str = "trained"
    refresh_steps: int = 0
    num_layers: int = shapes_weights(1)
    num_heads: int = shapes_weights(1)
    interests: int = shapes_weights(1)
    time_gaps: bool = shapes_weights(False)
    hidden: int = shapes_weights(0)
    profile: bool = True
    features: bool = shapes_weights(True)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("user.history", self.history, HISTORIES)
        one_of("user.history_context", self.history_context, HISTORY_CONTEXTS)
        one_of("user.history_embedding", self.history_embedding, HISTORY_EMBEDDINGS)
        at_least(self, "user.", {"history_length": 1, "hidden": 0, "refresh_steps": 0})
        at_least(self, "user.", {"training_window": 0})
        at_least(self, "user.", {"num_layers": 1, "num_heads": 1, "interests": 1})
        for name in ("id_dropout", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"user.{name}: wanted 0 up to 1 (exclusive); got {value}.")


@dataclass(frozen=True)
class RetrievalConfig:
    """The retrieval loss.

    `loss`: "softmax"; "bpr" (Rendle et al. 2009), each positive against each negative; or "gbce",
    binary cross-entropy against `num_uniform_negatives` items alone, or under "full" all of them,
    where the positive counts as much as `calibration` says (gSASRec, Petrov and Macdonald 2023): 0
    for plain cross-entropy, 1 for probabilities that are right among all items.
    `softmax`: "batch" compares with the batch's other items (sampled softmax), "full" with the
    whole catalog. In-batch only:
      `sampling_correction` subtracts the log of the sampling probability from the logits (logQ, Yi
      et al. 2019): from exact counts, from the streaming estimate of its algorithm 2, or not;
      `num_uniform_negatives` items drawn from the whole catalog are added to the batch's (mixed
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
    False, nobody could have it yet, so it is no negative, and is given average popularity.
    `item_balance` draws a training example with probability proportional to
    count(item) ** -item_balance: 0 takes each example once an epoch, 1 all items equally often.
    `next_items` n makes an example one of the n items that come after its history, each of them
    `fading` times as often as the one before (in expectation the loss of all n with fading
    weights): its history ends up to n - 1 items earlier, drawn anew in each epoch.
    """

    loss: str = "softmax"
    softmax: str = "batch"
    temperature: float = shapes_weights(0.1)
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
    next_items: int = 1
    fading: float = 0.5
    calibration: float = 0.75

    def __post_init__(self) -> None:
        one_of("retrieval.loss", self.loss, LOSSES)
        one_of("retrieval.softmax", self.softmax, SOFTMAXES)
        one_of("retrieval.sampling_correction", self.sampling_correction, CORRECTIONS)
        counts = ("num_hard_negatives", "num_uniform_negatives", "num_mined_negatives")
        at_least(self, "retrieval.", dict.fromkeys((*counts, "memory_size"), 0))
        at_least(self, "retrieval.", {"mining_epochs": 1, "disliked_weight": 0, "next_items": 1})
        require(
            0 <= self.calibration <= 1,
            f"retrieval.calibration: wanted 0 to 1; got {self.calibration:g}.",
        )
        require(
            self.loss != "gbce" or self.softmax == "full" or self.num_uniform_negatives > 0,
            "retrieval.num_uniform_negatives: wanted 1 or more with retrieval.loss gbce, which "
            "compares with them alone; got 0. A few hundred do well.",
        )
        require(
            0 < self.fading <= 1, f"retrieval.fading: wanted above 0, up to 1; got {self.fading:g}."
        )
        at_least(self, "retrieval.", {"embedding_noise": 0, "adversarial": 0})
        require(
            0 <= self.label_smoothing < 1,
            f"retrieval.label_smoothing: wanted 0 up to 1 (exclusive); got {self.label_smoothing}.",
        )
        require(
            self.temperature > 0, f"retrieval.temperature: wanted above 0; got {self.temperature}."
        )
        require(
            0 <= self.item_balance <= 1,
            f"retrieval.item_balance: wanted 0 to 1; got {self.item_balance}.",
        )


@dataclass(frozen=True)
class ItemHeadConfig:
    """A sparse matrix of items against items beside the towers, fitted in closed form to train. Its
    score, summed over a user's history, is added to the towers', with a weight that is fitted on
    valid.

    `kind`: "none"; "ease" (Steck 2019); "slist" (Choi et al. 2021), which reads the order of
    histories; or "content", each item's most alike ones by the content of frozen encoders (Zhou and
    Shen 2023). Each item keeps its `num_neighbors` strongest weights. `history_length` is how many
    of a user's latest items are summed over, null for all.

    Of "ease" and "slist", `l2` is the ridge penalty; items with fewer than `min_count` train
    interactions are left out; `neighborhood` above 0 fits each item to that many others, those it
    was met with most often, where a whole matrix would not fit into `memory_mb`. Of "slist",
    `whole_share` (alpha of the paper) is what whole histories count beside those that are cut into
    past and future; a past item counts exp(-age / `history_decay`), a future one
    exp(-age / `target_decay`), ages in items.
    """

    kind: str = "none"
    num_neighbors: int = 100
    history_length: int | None = None
    l2: float = 100.0
    min_count: int = 1
    neighborhood: int = 0
    memory_mb: int = 4096
    whole_share: float = 0.5
    history_decay: float = 8.0
    target_decay: float = 8.0

    def __post_init__(self) -> None:
        one_of("item_head.kind", self.kind, ITEM_HEADS)
        counts = {"num_neighbors": 1, "min_count": 1, "neighborhood": 0, "memory_mb": 1}
        at_least(self, "item_head.", counts)
        if self.history_length is not None:
            at_least(self, "item_head.", {"history_length": 1})
        for name in ("l2", "history_decay", "target_decay"):
            value = getattr(self, name)
            require(value > 0, f"item_head.{name}: wanted above 0; got {value:g}.")
        require(
            0 <= self.whole_share <= 1,
            f"item_head.whole_share: wanted 0 to 1; got {self.whole_share:g}.",
        )


@dataclass(frozen=True)
class ColdItemsConfig:
    """Where items without train interactions are placed, new ones too. With `fit` their vectors are
    pulled toward the `num_neighbors` nearest warm items by content, and their scores take an offset
    (Heater, Zhu et al. 2020; DropoutNet, Volkovs et al. 2017; CLCRec, Wei et al. 2021). How far and
    how much is found when the towers are trained, by a simulated cold start on train that hides
    `hidden_share` of the warm items: these are to take `exposure` times as large a share of the
    places of a list as they have of the train interactions. `pull` gives the pull, 0 to 1, of which
    the offset alone is then found; null finds both.

    An item with n train interactions, fewer than `warm_up`, stands between both: n / warm_up of
    where its id and clicks place it, the rest of where it would be without any (a linear ramp of
    confidence, as warm-up embeddings learn it: Pan et al. 2019, Zhu et al. 2021)."""

    fit: bool = False
    num_neighbors: int = 20
    pull: float | None = None
    hidden_share: float = 0.1
    exposure: float = 1.0
    warm_up: int = 0

    def __post_init__(self) -> None:
        at_least(self, "cold_items.", {"num_neighbors": 1, "warm_up": 0})
        require(
            0 < self.hidden_share <= 0.5,
            f"cold_items.hidden_share: wanted above 0, at most 0.5; got {self.hidden_share:g}.",
        )
        require(self.exposure > 0, f"cold_items.exposure: wanted above 0; got {self.exposure:g}.")
        require(
            self.pull is None or 0 <= self.pull <= 1,
            f"cold_items.pull: wanted null or 0 to 1; got {self.pull}.",
        )


@dataclass(frozen=True)
class LabelsConfig:
    """Heads on the item tower that foretell what items are called, from a categorical side feature
    each, which the tower then does not read. They regularize what content says, and tag new items.

    `softmax` names features of which an item has one category, `sigmoid` those of which it may have
    any number (tags). Their loss on the step's items, placed by content alone, counts `weight`
    times. `hidden` is the width of a hidden layer before them, 0 for none.
    """

    softmax: tuple[str, ...] = shapes_weights(())
    sigmoid: tuple[str, ...] = shapes_weights(())
    weight: float = 0.1
    hidden: int = shapes_weights(0)

    def __post_init__(self) -> None:
        at_least(self, "labels.", {"hidden": 0})
        names = self.names
        require(
            len(set(names)) == len(names),
            "labels.softmax and labels.sigmoid: wanted each feature once, in one of them; got "
            f"{', '.join(names)}.",
        )
        require(self.weight > 0, f"labels.weight: wanted above 0; got {self.weight:g}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The features that are foretold."""
        return (*self.softmax, *self.sigmoid)
