"""Settings of the ranking model and of the recommender."""

import json
from dataclasses import dataclass

from mmrec_tf.config.checks import at_least, list_metric, one_of, require, shapes_weights

ARCHITECTURES = ("dcn", "dlrm", "deepfm", "mlp", "bilinear")
SHARINGS = ("shared_bottom", "mmoe", "ple")
RANKING_LOSSES = ("listwise", "pairwise", "binary")
CONTEXTS = ("hour", "weekday")
SIGNALS = ("neighbors", "recency", "modalities", "head", "co_occurrence", "trend")
RANKING_METRICS = ("auc", "gauc", "rmse")
SERVES = ("auto", "always")
CALIBRATIONS = ("none", "temperature", "platt", "isotonic")


@dataclass(frozen=True)
class RankingConfig:
    """The ranking model over a user and a candidate.

    `architecture`: how features meet: "dcn" (cross layers, full or of rank `projection_dim`; Wang
    et al. 2021), "dlrm" (dot products, Naumov et al. 2019), "deepfm" (Guo et al. 2017), "mlp", or
    "bilinear", which is W1 user . W2 item and nothing else. `hidden` are the layers on top.
    `target_attention` reads the history with each candidate in view (DIN, Zhou et al. 2018).
    `fine_tune` trains a copy of user tower and item embeddings along; retrieval's own stay.
    `content` and `features` say whether modalities and side features come in, `context` what of
    the time of a request does (UTC). `signals` are further numbers of user and candidate, see
    `mmrec_tf.ranking.signals`: cosines with the history's items ("neighbors"), those weighted by
    how new they are ("recency"), cosines by modality ("modalities"), what a head of items against
    items adds ("head"), how often train users met both ("co_occurrence"), and whether an item is on
    the rise ("trend"). `position_bias` learns what the place in a list that an item
    was shown at adds, and leaves it out when recommending.

    `tasks`: "click", "rating" and names of the dataset's types of event. The first one's logit
    orders candidates, or the sum of all, weighted by `score_weights`. An interaction with a rating
    below `click_rating` is no click; null makes all of them clicks. Losses add up, weighted by
    `task_weights` (all 1 by default), or by learned `uncertainty` (Kendall et al. 2018). Hidden
    layers are shared by the tasks as `sharing` says: "shared_bottom", "mmoe" (Ma et al. 2018) or
    "ple" (Tang et al. 2020), the latter two with `num_experts` experts. `entire_space` has the
    probability of an event be that of a click times that of the event after one, both learned from
    all candidates (ESMM, Ma et al. 2018b).
    `loss` of clicks and events: "listwise" and "pairwise" learn the order of a user's candidates,
    "binary" the probability of each, positives counting `positive_weight` times, easy examples
    fading with `focal_gamma` (Lin et al. 2017).

    `num_negatives` items are drawn for each positive, the share `candidate_share` of them from
    what the retrieval model itself ranks highest (in a part of a large catalog, see
    `mmrec_tf.ranking.mining`), the rest at random. `num_disliked` of the user's
    own items that were rated below `click_rating` are added to them (with "binary" every one is an
    example of its own). `num_candidates` is how many items retrieval hands to ranking when
    recommending. `calibration` maps the click logit to a
    probability, fitted on the valid split. `monitor` says which epoch is kept: "auc" or "gauc" (of
    the split's interactions under `click_rating`, else of the candidates), "rmse" of ratings, a
    metric of lists such as "ndcg@10", or "" for `training.monitor`. `serve`: "auto" serves without
    ranking where no epoch was better than retrieval's own order, "always" with it all the same.
    """

    epochs: int = 3
    architecture: str = shapes_weights("dcn")
    num_cross_layers: int = shapes_weights(2)
    projection_dim: int = shapes_weights(0)
    hidden: tuple[int, ...] = shapes_weights((128, 64))
    dropout: float = 0.1
    target_attention: bool = shapes_weights(False)
    fine_tune: bool = shapes_weights(False)
    content: bool = shapes_weights(True)
    features: bool = shapes_weights(True)
    context: tuple[str, ...] = shapes_weights(())
    signals: tuple[str, ...] = shapes_weights(())
    position_bias: bool = shapes_weights(False)
    tasks: tuple[str, ...] = shapes_weights(("click",))
    click_rating: float | None = None
    score_weights: tuple[float, ...] = ()
    task_weights: tuple[float, ...] = ()
    uncertainty: bool = False
    sharing: str = shapes_weights("shared_bottom")
    num_experts: int = shapes_weights(4)
    entire_space: bool = False
    loss: str = shapes_weights("listwise")
    positive_weight: float = 1.0
    focal_gamma: float = 0.0
    num_negatives: int = 8
    num_disliked: int = 2
    candidate_share: float = 0.75
    num_candidates: int = 100
    learning_rate: float = 1e-3
    monitor: str = ""
    calibration: str = "platt"
    serve: str = "auto"

    def __post_init__(self) -> None:
        require(self.epochs >= 0, "ranking.epochs: wanted 0 (no ranking model) or more.")
        one_of("ranking.architecture", self.architecture, ARCHITECTURES)
        one_of("ranking.sharing", self.sharing, SHARINGS)
        one_of("ranking.loss", self.loss, RANKING_LOSSES)
        one_of("ranking.calibration", self.calibration, CALIBRATIONS)
        one_of("ranking.serve", self.serve, SERVES)
        require(
            self.monitor in ("", *RANKING_METRICS) or list_metric(self.monitor),
            f"ranking.monitor: wanted {', '.join(RANKING_METRICS)}, a metric such as ndcg@10, or "
            f'"" for training.monitor; got {self.monitor!r}.',
        )
        for name in self.context:
            one_of("ranking.context", name, CONTEXTS)
        for name in self.signals:
            one_of("ranking.signals", name, SIGNALS)
        require(
            len(set(self.signals)) == len(self.signals),
            f"ranking.signals: wanted each at most once; got {', '.join(self.signals)}.",
        )
        counts = {
            "num_negatives": 0,
            "num_disliked": 0,
            "num_candidates": 1,
            "hidden": 1,
            "num_experts": 1,
        }
        at_least(self, "ranking.", {**counts, "num_cross_layers": 0, "projection_dim": 0})
        at_least(self, "ranking.", {"focal_gamma": 0, "task_weights": 0})
        require(self.positive_weight > 0, "ranking.positive_weight: wanted above 0.")
        require(0 <= self.candidate_share <= 1, "ranking.candidate_share: wanted 0 to 1.")
        require(0 <= self.dropout < 1, "ranking.dropout: wanted 0 up to 1 (exclusive).")
        require(self.learning_rate > 0, "ranking.learning_rate: wanted above 0.")
        require(
            len(self.tasks) > 0 and len(set(self.tasks)) == len(self.tasks),
            f"ranking.tasks: wanted at least one, each once; got {json.dumps(self.tasks)}.",
        )
        for name in ("score_weights", "task_weights"):
            value = getattr(self, name)
            require(
                len(value) in (0, len(self.tasks)),
                f"ranking.{name}: wanted one number for each of {len(self.tasks)} tasks, or none; "
                f"got {len(value)}.",
            )
        require(
            self.num_negatives > 0
            or (self.click_rating is not None and (self.loss == "binary" or self.num_disliked > 0)),
            "ranking.num_negatives: wanted at least 1, as nothing else is no click; got 0. Draw "
            "some, or set ranking.click_rating.",
        )


@dataclass(frozen=True)
class RecommenderConfig:
    """What becomes of ranked candidates.

    `diversity` is what a candidate's likeness to the items before it takes away from its score
    (1 - lambda of maximal marginal relevance, Carbonell and Goldstein 1998): 0 keeps the order of
    scores, 1 shows the most different ones. `popularity_dampening` takes that many times the log
    frequency, among all that is known of users, off a score. `popular_diversity` is `diversity` for
    those of whom nothing is known, who are shown what is popular.
    """

    diversity: float = 0.0
    popularity_dampening: float = 0.0
    popular_diversity: float = 0.3

    def __post_init__(self) -> None:
        at_least(self, "recommender.", {"popularity_dampening": 0})
        for name in ("diversity", "popular_diversity"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"recommender.{name}: wanted 0 to 1; got {value}.")
