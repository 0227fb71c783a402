"""What a search makes better: a metric of either stage or of finished lists, or a weighted sum.

A metric is named after where it is measured, always on the valid split:

    retrieval.ndcg@10       every item ranked by retrieval alone; all of `mmrec_tf.evaluate`
    ranking.auc             single examples, as `ranking.monitor` has them; gauc, rmse; log_loss and
                            ece of the candidates, calibrated
    recommender.ndcg@10     the lists that people would be shown, after both stages; also coverage,
                            gini, novelty and diversity

`recommender.ndcg@10 + 0.1*recommender.coverage@10` is a sum; a metric of which less is better, such
as rmse, is taken off it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import mmrec_tf as mm
from mmrec_tf.config.checks import LIST_METRICS, list_metric
from mmrec_tf.errors import ConfigError, TuningError, did_you_mean
from tuning.space import stage_of
from tuning.space.conditions import PROBABILITIES, STAGES

# By metric of single examples, which way is better.
EXAMPLES = {"auc": "max", "gauc": "max", "rmse": "min", "log_loss": "min", "ece": "min"}
# What else can be said of lists.
BEYOND = {"coverage": "max", "gini": "min", "novelty": "max", "diversity": "max"}
# Of these, what ranking.calibration makes of a logit.
CALIBRATED = ("log_loss", "ece")


class Term(NamedTuple):
    """One metric of a sum."""

    weight: float
    stage: str
    metric: str

    @property
    def name(self) -> str:
        """Such as "ranking.auc"."""
        return f"{self.stage}.{self.metric}"

    @property
    def direction(self) -> str:
        """ "max" or "min"."""
        kind = self.metric.partition("@")[0]
        return {**EXAMPLES, **BEYOND}.get(kind, "max")


class Objective(NamedTuple):
    """What is measured of a trial, and which way is better.

    Attributes:
      terms: of the sum; one for a single metric.
    """

    terms: tuple[Term, ...]

    @property
    def name(self) -> str:
        """As it is given: "retrieval.ndcg@10", or a sum."""
        if len(self.terms) == 1:
            return self.terms[0].name
        return " + ".join(
            term.name if term.weight == 1 else f"{term.weight:g}*{term.name}" for term in self.terms
        )

    @property
    def direction(self) -> str:
        """ "max" or "min"; of a sum "max", as what is better lower is taken off it."""
        return self.terms[0].direction if len(self.terms) == 1 else "max"

    @property
    def stage(self) -> str:
        """How far a trial goes: "retrieval", "ranking" or "recommender"."""
        return max((term.stage for term in self.terms), key=STAGES.index)

    def score(self, metrics: Mapping[str, float]) -> float:
        """The sum of metrics by name, or the one."""
        if len(self.terms) == 1:
            return metrics[self.terms[0].name]
        return sum(
            term.weight * metrics[term.name] * (1 if term.direction == "max" else -1)
            for term in self.terms
        )

    def better(self, score: float, other: float) -> bool:
        """Whether a score is better than another."""
        return score > other if self.direction == "max" else score < other

    def best(self, scores: Iterable[float]) -> float:
        """The best of scores."""
        return max(scores) if self.direction == "max" else min(scores)

    def require_influence(self, paths: Iterable[str]) -> None:
        """Refuses settings that the objective cannot show.

        Raises:
          ConfigError: naming the setting and an objective that shows it.
        """
        for path in paths:
            stage = stage_of(path)
            if STAGES.index(stage) > STAGES.index(self.stage):
                example = {"ranking": "recommender.ndcg@10 or ranking.auc"}
                raise ConfigError(
                    f"search space: {path} has no effect on {self.name}, which is measured before "
                    f"that setting is read. Choose an objective such as "
                    f"{example.get(stage, 'recommender.ndcg@10')}, or leave {path} out."
                )
            if path in PROBABILITIES and not any(t.metric in CALIBRATED for t in self.terms):
                raise ConfigError(
                    f"search space: {path} has no effect on {self.name}, as it changes "
                    "probabilities and no order. Choose ranking.log_loss or ranking.ece, or leave "
                    f"{path} out."
                )


def parse(text: str | None, config: mm.Config, paths: Iterable[str]) -> Objective:
    """Reads an objective, and refuses one that cannot show what is varied.

    Args:
      text: such as "ranking.auc" or "ndcg@10 + 0.2*coverage@10"; a metric of lists without its
        stage is that of retrieval where the space varies nothing beyond, else of the recommender's
        lists. None for `training.monitor` so measured.
      config: where the search starts.
      paths: what the space varies.

    Raises:
      ConfigError: for an unknown metric, a weight that is none, or a setting without influence.
    """
    paths = list(paths)
    lists = "retrieval" if all(stage_of(p) == "retrieval" for p in paths) else "recommender"
    if text is None:
        if "training.monitor" in paths:
            raise ConfigError(
                "objective: wanted one by name, as the space varies training.monitor, by which "
                "trials could not be compared. Add --objective, such as retrieval.ndcg@10."
            )
        text = config.training.monitor
    terms = tuple(_term(part.strip(), lists) for part in text.split("+"))
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ConfigError(f"objective: wanted each metric once; got {text}.")
    objective = Objective(terms)
    if objective.stage == "ranking" and not config.ranking.epochs:
        raise ConfigError(
            f"objective: {objective.name} is of the ranking model, and ranking.epochs is 0. Set it "
            "to 1 or more."
        )
    objective.require_influence(paths)
    return objective


def _term(text: str, lists: str) -> Term:
    weight_text, star, name = text.rpartition("*")
    try:
        weight = float(weight_text) if star else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ConfigError(
            f"objective: wanted a weight above 0 before *; got {weight_text.strip()!r}. What is "
            "better lower is taken off the sum by itself."
        )
    stage, dot, metric = name.strip().rpartition(".")
    kind, at, _ = metric.partition("@")
    if not dot:
        stage = "ranking" if metric in EXAMPLES else "recommender" if kind in BEYOND else lists
    known = {
        "retrieval": [*LIST_METRICS, *BEYOND],
        "ranking": [*EXAMPLES],
        "recommender": [*LIST_METRICS, *BEYOND],
    }
    if stage not in known:
        raise ConfigError(f"objective: unknown stage {stage!r}{did_you_mean(stage, known)}")
    right = (
        metric in EXAMPLES
        if stage == "ranking"
        else list_metric(metric)
        or (kind in BEYOND and re.fullmatch(r"[1-9]\d*", metric.partition("@")[2]) is not None)
    )
    if not right:
        wanted = "one of " if stage == "ranking" else "one of these with a cut-off, as in ndcg@10: "
        raise ConfigError(
            f"objective: unknown metric {metric!r} of {stage}; wanted {wanted}"
            f"{', '.join(known[stage])}."
        )
    return Term(weight, stage, metric)


def measure(
    objective: Objective,
    dataset: Any,
    *,
    retrieval: Any,
    recommender: Any = None,
) -> dict[str, float]:
    """Each metric of an objective on the valid split.

    Args:
      objective: Objective.
      dataset: Dataset.
      retrieval: RetrievalModel.
      recommender: Recommender of both stages; None where no term asks for it.

    Raises:
      TuningError: for a metric that is not defined here, as AUC without both kinds of example.
    """
    found: dict[str, float] = {}
    for stage, model in (("retrieval", retrieval), ("recommender", recommender)):
        wanted = [term.metric for term in objective.terms if term.stage == stage]
        if wanted:
            values = _of_lists(model, dataset, wanted, retrieval)
            found |= {f"{stage}.{name}": values[name] for name in wanted}
    examples = [term.metric for term in objective.terms if term.stage == "ranking"]
    if examples:
        values = _of_examples(recommender, dataset, examples)
        found |= {f"ranking.{name}": values[name] for name in examples}
    return found


def _of_lists(model: Any, dataset: Any, wanted: list[str], retrieval: Any) -> dict[str, float]:
    from mmrec_tf.evaluation.evaluate import relevant_items
    from mmrec_tf.evaluation.metrics import ItemVectors, mean_metrics, retrieval_metrics
    from mmrec_tf.runs.evaluate import beyond_accuracy, content_vectors

    ks = sorted({int(name.partition("@")[2]) for name in wanted})
    users, relevant = relevant_items(dataset, "valid")
    top = model.rank_items(dataset, users, k=ks[-1], history="train")
    values: dict[str, Any] = mean_metrics(retrieval_metrics(top, relevant, ks=ks))
    if any(name.partition("@")[0] in BEYOND for name in wanted):
        vectors = content_vectors(retrieval, dataset)
        if vectors is None:
            import numpy as np

            embedding = retrieval.embed_all()
            vectors = ItemVectors({"embedding": embedding}, np.ones([len(embedding), 1], bool))
        values |= beyond_accuracy(top, dataset, vectors, ks=ks)
    for name in wanted:
        if values[name] is None:
            raise TuningError(f"{name} is not defined here: no list holds two items to compare.")
    return {name: float(values[name]) for name in wanted}


def _of_examples(recommender: Any, dataset: Any, wanted: list[str]) -> dict[str, float]:
    from mmrec_tf.recommender.funnel import evaluate_ranking, fit_calibration, ranking_metric

    found: dict[str, float] = {}
    for name in wanted:
        if name in CALIBRATED:
            continue
        value = ranking_metric(recommender, dataset, name)
        found[name] = -value if name == "rmse" else value
    if any(name in CALIBRATED for name in wanted):
        recommender.calibrate(fit_calibration(recommender, dataset))
        figures = evaluate_ranking(recommender, dataset, split="valid", ks=[10])
        found |= {name: figures["candidates"]["ranking"][name] for name in CALIBRATED}
    return found
