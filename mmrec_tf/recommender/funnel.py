"""What each stage does: candidates retrieved, ranked, and what is left of them in a short list.

Two kinds of example say how good a ranking model's numbers are. *Candidates* are the items that
retrieval hands over for each user of a split, which is what the model sees when it recommends:
those that the user chose in the split are positives, all others negatives. *Shown* are the split's
own interactions, each with its rating, types of event and time.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.evaluation.calibration import Calibration, fit
from mmrec_tf.evaluation.evaluate import blocks, relevant_items, require_history
from mmrec_tf.evaluation.metrics import (
    auc,
    best_threshold,
    expected_calibration_error,
    gauc,
    log_loss,
    mean_metrics,
    num_mixed,
    paired_bootstrap,
    retrieval_metrics,
    rmse,
    threshold_metrics,
)
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.index.interests import score_rows
from mmrec_tf.schema import LOWEST_SCORE

# Users, or interactions, that are ranked at once.
BLOCK = 256


class Pool(NamedTuple):
    """The candidates of a split's users.

    Attributes:
      users: <int64>[user].
      relevant: as `relevant_items` returns it.
      item: <int32>[user, candidate], in retrieval's order; -1 for none.
      retrieved, score, logit: <float32>[user, candidate], of retrieval, of ranking, and of a click
        before calibration.
      shown: <int32>[user, k], what is recommended.
    """

    users: np.ndarray
    relevant: tuple[np.ndarray, np.ndarray]
    item: np.ndarray
    retrieved: np.ndarray
    score: np.ndarray
    logit: np.ndarray
    shown: np.ndarray

    def examples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every candidate: its label <bool>[n], its user's row <int64>[n], and which entries of the
        arrays it is in, <bool>[user, candidate]."""
        offset, items = self.relevant
        width = int(max(self.item.max(initial=0), items.max(initial=0))) + 1
        row = np.repeat(np.arange(len(self.users)), np.diff(offset))
        chosen = np.isin(
            np.arange(len(self.users))[:, None] * width + self.item, row * width + items
        )
        real = self.item >= 0
        return chosen[real], np.nonzero(real)[0], real


def collect(
    recommender: Recommender, dataset: Dataset, *, split: str, k: int, history: str = "train"
) -> Pool:
    """Retrieves, ranks and recommends for everyone with a click in a split, at no known time.

    Args:
      recommender: Recommender.
      dataset: Dataset.
      split: "valid" or "test".
      k: how many are recommended, cut to the number of candidates.
      history: what is known of users, as for `mmrec_tf.evaluation.evaluate.evaluate`, whatever
        the recommender itself knows.

    Raises:
      DatasetError: for a split without clicks.
      ConfigError: for a history that holds the split.
    """
    require_history(split, history)
    recommender = recommender.with_history(history)
    settings = recommender.config.ranking
    users, relevant = relevant_items(dataset, split, min_rating=settings.click_rating)
    num = min(settings.num_candidates, dataset.schema.num_items)

    def find(user: tf.Tensor) -> tuple[tf.Tensor, ...]:
        read, gap, met = recommender.read_history(user)
        past = recommender.read_past(user)
        request = recommender.request(user, read, gap, tf.zeros_like(user, tf.int64), past=past)
        found = recommender.candidates(request, met, num=num)
        place = recommender.order(found, min(k, num))
        shown = tf.gather(found.item, place, batch_dims=1)
        real = tf.gather(found.score, place, batch_dims=1) > LOWEST_SCORE
        item = tf.where(found.retrieved > LOWEST_SCORE, found.item, -1)
        return item, found.retrieved, found.score, found.logit, tf.where(real, shown, -1)

    graph = recommender.graph(("pool", k), find, [tf.TensorSpec([None], tf.int32)])
    parts = []
    for block in blocks(len(users), dataset.schema.num_items, most=BLOCK):
        parts.append([part.numpy() for part in graph(tf.constant(users[block], tf.int32))])
    item, retrieved, score, logit, shown = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Pool(users, relevant, item, retrieved, score, logit, shown)


def fit_calibration(recommender: Recommender, dataset: Dataset) -> Calibration:
    """The calibration that the config asks for, fitted on the valid split's candidates; none where
    these are all of one kind."""
    kind = recommender.config.ranking.calibration
    if kind == "none":
        return Calibration()
    pool = collect(recommender, dataset, split="valid", k=1)
    labels, _, real = pool.examples()
    if labels.all() or not labels.any():
        return Calibration()
    return fit(kind, pool.logit[real], labels)


class Shown(NamedTuple):
    """What a model says of the split's own interactions, each <float32>[interaction]."""

    retrieved: np.ndarray
    logits: dict[str, np.ndarray]


def rank_shown(
    recommender: Recommender, dataset: Dataset, *, split: str, history: str = "train"
) -> Shown:
    """Ranks each interaction of a split by itself, at its own time.

    Args:
      recommender: Recommender with a ranking model.
      dataset: Dataset.
      split: "valid" or "test".
      history: as for `collect`.

    Raises:
      ConfigError: for a Recommender without a ranking model, or a history that holds the split.
    """
    require_history(split, history)
    recommender = recommender.with_history(history)
    data, ranking = dataset.interactions(split), recommender.ranking
    if ranking is None:
        raise ConfigError(
            "rank_shown: wanted a Recommender with a ranking model; got one of retrieval alone. "
            "Train that model, and make the Recommender of both."
        )

    def rank(
        user: tf.Tensor, item: tf.Tensor, time: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        read, gap, _ = recommender.read_history(user)
        past = recommender.read_past(user)
        request = recommender.request(user, read, gap, time, past=past)
        vector = recommender.index.gather(item)[:, :-1]
        if request.queries.shape.rank == 2:
            retrieved = tf.reduce_sum(request.queries * vector, axis=1, keepdims=True)
        else:
            retrieved = score_rows(request.queries, vector[:, None])
        retrieved = recommender.retriever.score_items(request, item[:, None], retrieved)
        ranked = ranking.rank(request, item[:, None], recommender.items, retrieved)
        logits = {name: value[:, 0] for name, value in ranked.logits.items()}
        return retrieved[:, 0], logits

    specs = [tf.TensorSpec([None], dtype) for dtype in (tf.int32, tf.int32, tf.int64)]
    graph = recommender.graph("shown", rank, specs)
    parts = [
        graph(*(tf.constant(c[block]) for c in (data.user, data.item, data.timestamp)))
        for block in blocks(len(data.user), 1, most=BLOCK * 8)
    ]
    names = parts[0][1]
    return Shown(
        np.concatenate([part[0].numpy() for part in parts]),
        {name: np.concatenate([part[1][name].numpy() for part in parts]) for name in names},
    )


def ranking_metric(recommender: Recommender, dataset: Dataset, metric: str) -> float:
    """One of `mmrec_tf.config.RANKING_METRICS` on the valid split, so that higher is better: of the
    interactions where these have both labels, else of the candidates.

    Raises:
      DatasetError: for a split on which it is not defined.
    """
    if metric == "rmse":
        return -_shown(recommender, dataset, "valid")["rating"]["rmse"]
    shown = _shown(recommender, dataset, "valid").get("click")
    if shown is None:
        pool = collect(recommender, dataset, split="valid", k=1)
        shown = _candidates(recommender, dataset, pool, pool)["ranking"]
    if metric not in shown:
        raise DatasetError(
            f"{dataset.directory}: ranking.monitor {metric} wants clicks and others of one user in "
            "the valid split; there are none. Choose another monitor."
        )
    return shown[metric]


def evaluate_ranking(
    recommender: Recommender,
    dataset: Dataset,
    *,
    split: str = "test",
    ks: Iterable[int] = (10, 20),
    history: str = "train",
) -> dict:
    """How good a ranking model is, and what each stage leaves over.

    Args:
      recommender: Recommender.
      dataset: Dataset.
      split: "valid" or "test".
      ks: cut-offs of the short list; cut to the number of candidates.
      history: as for `collect`; the threshold is chosen on valid, and so on train.

    Returns:
      dict of

      - "split", "history", "users", and "num_candidates", how many each of them is handed over;
      - "candidates": of retrieval and of ranking "auc" and "gauc" over candidates; of ranking also
        "log_loss" and "ece" (equal-mass bins) with and without calibration ("uncalibrated_..."),
        and accuracy, precision, recall and F1 at the "threshold" that was best on valid;
      - "shown": over the split's interactions, "click" (where ratings make one) and each type of
        event with "auc", and "rating" with "rmse" beside that of the mean rating of train; each
        where the dataset has it and the model learned it;
      - "funnel": "retrieved", recall at the number of candidates, then recall and NDCG at each
        cut-off of "retrieval" alone, of "ranking", and of what is "recommended";
      - "differences": of "ranking" and of "recommended" minus retrieval, by metric, `[mean, low,
        high]`, see `paired_bootstrap`.

    Raises:
      DatasetError: for a split without clicks.
      ConfigError: for a history that holds the split.
    """
    most = min(recommender.num_candidates, dataset.schema.num_items)
    ks = sorted({min(k, most) for k in ks})
    pool = collect(recommender, dataset, split=split, k=ks[-1], history=history)
    valid = pool if split == "valid" else collect(recommender, dataset, split="valid", k=1)
    result = {
        "split": split,
        "history": history,
        "users": len(pool.users),
        "num_candidates": pool.item.shape[1],
        "candidates": _candidates(recommender, dataset, pool, valid),
        "shown": {},
    }
    if recommender.ranking is not None:
        result["shown"] = _shown(recommender, dataset, split, history)
    tops = {
        "retrieval": np.where(pool.retrieved > LOWEST_SCORE, pool.item, -1)[:, : ks[-1]],
        "ranking": _by_score(pool)[:, : ks[-1]],
        "recommended": pool.shown,
    }
    num = pool.item.shape[1]
    recall = retrieval_metrics(pool.item, pool.relevant, ks=[num])[f"recall@{num}"]
    per_user = {n: retrieval_metrics(top, pool.relevant, ks=ks) for n, top in tops.items()}
    result["funnel"] = {
        "retrieved": {f"recall@{num}": float(recall.mean())},
        **{name: mean_metrics(values) for name, values in per_user.items()},
    }
    result["differences"] = {
        name: {
            metric: list(paired_bootstrap(values, per_user["retrieval"][metric]))
            for metric, values in per_user[name].items()
        }
        for name in ("ranking", "recommended")
    }
    return result


def _by_score(pool: Pool) -> np.ndarray:
    order = np.argsort(-pool.score, axis=1, kind="stable")
    return np.take_along_axis(pool.item, order, axis=1)


def _candidates(recommender: Recommender, dataset: Dataset, pool: Pool, valid: Pool) -> dict:
    """Metrics of the candidates as single examples; those that need both classes only with both."""
    labels, row, real = pool.examples()
    found: dict = {
        "examples": len(labels),
        "positives": int(labels.sum()),
        "users_with_both": num_mixed(labels, groups=row),
    }
    for name, score in (("retrieval", pool.retrieved), ("ranking", pool.score)):
        figures: dict = {}
        if labels.any() and not labels.all():
            figures["auc"] = auc(labels, score[real])
        if found["users_with_both"]:
            figures["gauc"] = gauc(labels, score[real], groups=row)
        found[name] = figures
    logits = pool.logit[real]
    calibrated = recommender.calibration(logits).numpy()
    probabilities = {"": calibrated, "uncalibrated_": Calibration()(logits).numpy()}
    for name, values in probabilities.items():
        found["ranking"] |= {
            f"{name}log_loss": log_loss(labels, values),
            f"{name}ece": expected_calibration_error(labels, values, equal_mass=True),
        }
    chosen, _, real = valid.examples()
    if chosen.any():
        threshold = best_threshold(chosen, recommender.calibration(valid.logit[real]).numpy())
        found["ranking"] |= {
            "threshold": threshold,
            **threshold_metrics(labels, calibrated, threshold=threshold),
        }
    return found


def _shown(recommender: Recommender, dataset: Dataset, split: str, history: str = "train") -> dict:
    """Metrics of the split's interactions."""
    data, settings = dataset.interactions(split), recommender.config.ranking
    said = rank_shown(recommender, dataset, split=split, history=history)
    labels = {name: data.events[:, n] for n, name in enumerate(dataset.schema.events)}
    if settings.click_rating is not None:
        labels["click"] = data.rating >= settings.click_rating
    found: dict = {}
    for name, label in labels.items():
        if name in said.logits and label.any() and not label.all():
            logits = said.logits[name]
            found[name] = {
                "interactions": len(label),
                "auc": auc(label, logits),
                "retrieval_auc": auc(label, said.retrieved),
            }
            if num_mixed(label, groups=data.user):
                found[name]["gauc"] = gauc(label, logits, groups=data.user)
    if "rating" in said.logits:
        mean = np.full(len(data.rating), dataset.interactions("train").rating.mean())
        found["rating"] = {
            "interactions": len(data.rating),
            "rmse": rmse(data.rating, said.logits["rating"]),
            "rmse_of_the_mean": rmse(data.rating, mean),
        }
    return found
