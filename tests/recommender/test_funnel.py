"""What each stage leaves, and how good the ranking model's numbers are, against plain loops."""

import copy
import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from support import small_world
from support.small_world import EVENTS, NUM_ITEMS, build_retrieval

import mmrec_tf
from mmrec_tf import RankingModel, Recommender
from mmrec_tf.errors import DatasetError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.evaluation.evaluate import relevant_items
from mmrec_tf.recommender.funnel import (
    collect,
    evaluate_ranking,
    fit_calibration,
    rank_shown,
    ranking_metric,
)
from mmrec_tf.runs.train import train_run

TASKS = {"ranking__tasks": ["click", "rating", "buy"], "ranking__loss": "binary"}


def build(data, **settings):
    retrieval = build_retrieval(data, **settings)
    model = RankingModel(retrieval.config, data, retrieval=retrieval)
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        if weight.shape.rank == 2:
            weight.assign(0.3 * rng.normal(size=weight.shape))
    return Recommender(retrieval, model, data, history="train")


@pytest.fixture(scope="module")
def labeled_recommender(labeled):
    return build(labeled, ranking__click_rating=4, **TASKS)


def by_hand(recommender, data, split):
    """Of each user the candidates, their scores and whether they were clicked."""
    users, (offset, items) = relevant_items(
        data, split, min_rating=recommender.config.ranking.click_rating
    )
    rows = []
    for row, user in enumerate(users):
        known, gap, met = recommender.read_history(
            tf.constant([user], tf.int32), tf.fill([1, 0], "")
        )
        request = recommender.request(
            tf.constant([user], tf.int32), known, gap, tf.zeros([1], tf.int64)
        )
        vectors = recommender.index.vectors.numpy()
        score = vectors[:, :-1] @ request.queries[0].numpy()
        score[[n for n in met.numpy()[0] if n >= 0]] = -np.inf
        order = np.argsort(-score, kind="stable")[: recommender.num_candidates]
        order = order[np.isfinite(score[order])]
        found = recommender.rank(
            request,
            tf.constant([False]),
            tf.constant(order[None, :].astype(np.int32)),
            tf.constant(score[None, order].astype(np.float32)),
        )
        clicked = np.isin(order, items[offset[row] : offset[row + 1]])
        missed = offset[row + 1] - offset[row]
        rows.append(
            (order, score[order], found.score.numpy()[0], found.logit.numpy()[0], clicked, missed)
        )
    return rows


@pytest.mark.parametrize("split", ["valid", "test"])
def test_candidates_by_hand_and_by_scikit_learn(labeled, labeled_recommender, split):
    recommender = labeled_recommender
    rows = by_hand(recommender, labeled, split)
    got = evaluate_ranking(recommender, labeled, split=split, ks=[3, 5])
    label, retrieved, score, logit = (
        np.concatenate([row[part] for row in rows]) for part in (4, 1, 2, 3)
    )
    found = got["candidates"]
    assert (got["users"], got["num_candidates"]) == (len(rows), 12)
    assert (found["examples"], found["positives"]) == (len(label), label.sum())
    assert found["retrieval"]["auc"] == pytest.approx(roc_auc_score(label, retrieved))
    assert found["ranking"]["auc"] == pytest.approx(roc_auc_score(label, score))
    both = [row for row in rows if 0 < row[4].sum() < len(row[4])]
    gauc = np.average(
        [roc_auc_score(row[4], row[2]) for row in both], weights=[len(row[4]) for row in both]
    )
    assert found["users_with_both"] == len(both)
    assert found["ranking"]["gauc"] == pytest.approx(gauc)
    probability = Calibration()(logit).numpy()
    assert found["ranking"]["log_loss"] == pytest.approx(log_loss(label, probability), rel=1e-4)
    threshold = found["ranking"]["threshold"]
    assert found["ranking"]["f1"] == pytest.approx(f1_score(label, probability >= threshold - 1e-6))


def test_the_funnel_by_hand(labeled, labeled_recommender):
    rows = by_hand(labeled_recommender, labeled, "valid")
    got = evaluate_ranking(labeled_recommender, labeled, split="valid", ks=[3, 5])
    recall = [row[4].sum() / row[5] for row in rows]
    assert got["funnel"]["retrieved"]["recall@12"] == pytest.approx(np.mean(recall))
    ndcg = {"retrieval": [], "ranking": []}
    for order, retrieved, score, _, clicked, relevant in rows:
        assert len(order)
        for name, by in (("retrieval", retrieved), ("ranking", score)):
            hits = clicked[np.argsort(-by, kind="stable")][:3]
            gain = sum(1 / math.log2(rank + 2) for rank in np.flatnonzero(hits))
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(relevant, 3)))
            ndcg[name].append(gain / ideal)
    for name, values in ndcg.items():
        assert got["funnel"][name]["ndcg@3"] == pytest.approx(np.mean(values))
    assert got["funnel"]["recommended"] == got["funnel"]["ranking"]
    mean, low, high = got["differences"]["ranking"]["ndcg@3"]
    assert mean == pytest.approx(np.mean(ndcg["ranking"]) - np.mean(ndcg["retrieval"]))
    assert low <= mean <= high
    diverse = build(labeled, ranking__click_rating=4, recommender__diversity=0.8, **TASKS)
    other = evaluate_ranking(diverse, labeled, split="valid", ks=[3, 5])["funnel"]
    assert other["ranking"] == got["funnel"]["ranking"]
    assert other["recommended"] != other["ranking"]


def test_what_was_shown_is_ranked_by_itself(labeled, labeled_recommender):
    data = labeled.interactions("valid")
    said = rank_shown(labeled_recommender, labeled, split="valid")
    got = evaluate_ranking(labeled_recommender, labeled, split="valid")["shown"]
    assert set(got) == {"click", "buy", "rating"}
    clicked, bought = data.rating >= 4, data.events[:, EVENTS.index("buy")]
    assert got["click"]["auc"] == pytest.approx(roc_auc_score(clicked, said.logits["click"]))
    assert got["click"]["retrieval_auc"] == pytest.approx(roc_auc_score(clicked, said.retrieved))
    assert got["buy"]["auc"] == pytest.approx(roc_auc_score(bought, said.logits["buy"]))
    error = data.rating - said.logits["rating"]
    assert got["rating"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    mean = labeled.interactions("train").rating.mean()
    assert got["rating"]["rmse_of_the_mean"] == pytest.approx(
        np.sqrt(np.mean((data.rating - mean) ** 2)), rel=1e-5
    )
    # One by hand.
    user, item = int(data.user[5]), int(data.item[5])
    name = lambda n: small_world.item_id(n)  # noqa: E731
    answer = labeled_recommender.rank_ids(
        tf.constant([small_world.user_id(user)]),
        tf.fill([1, 0], ""),
        tf.constant([[name(item)]]),
        tf.constant([int(data.timestamp[5])], tf.int64),
        tf.constant([""]),
        tf.fill([1, 0], ""),
    )
    np.testing.assert_allclose(said.logits["click"][5], answer["score"][0, 0], rtol=1e-4)


@pytest.mark.parametrize(
    "kind",
    [
        "platt",
        pytest.param("temperature", marks=pytest.mark.slow),
        pytest.param("isotonic", marks=pytest.mark.slow),
    ],
)
def test_calibration_is_fitted_on_valid_and_makes_probabilities_true(
    labeled, labeled_recommender, kind
):
    def calibrated(kind):
        other = copy.copy(labeled_recommender)
        other.config = other.config.override({"ranking.calibration": kind})
        return other

    plain = calibrated(kind)
    calibration = fit_calibration(plain, labeled)
    assert calibration.kind == kind
    stages = plain.retrieval, plain.ranking, labeled
    fitted = Recommender(*stages, calibration=calibration, history="train")
    got = evaluate_ranking(fitted, labeled, split="valid")["candidates"]["ranking"]
    assert got["log_loss"] < got["uncalibrated_log_loss"]
    # A temperature alone cannot move the level.
    assert kind == "temperature" or got["ece"] < 0.5 * got["uncalibrated_ece"]
    pool = collect(fitted, labeled, split="valid", k=1)
    clicked, _, real = pool.examples()
    mean = calibration(pool.logit[real]).numpy().mean()
    if kind != "temperature":
        assert mean == pytest.approx(clicked.mean(), abs=0.02)
    assert fit_calibration(calibrated("none"), labeled) == Calibration()


def test_monitors(labeled, labeled_recommender):
    shown = evaluate_ranking(labeled_recommender, labeled, split="valid")["shown"]
    for name in ("auc", "gauc"):
        assert ranking_metric(labeled_recommender, labeled, name) == shown["click"][name]
    assert ranking_metric(labeled_recommender, labeled, "rmse") == -shown["rating"]["rmse"]
    # Without ratings that make a click, the candidates tell.
    plain = build(labeled)
    found = evaluate_ranking(plain, labeled, split="valid", ks=[5])["candidates"]["ranking"]
    assert ranking_metric(plain, labeled, "auc") == found["auc"]


@pytest.mark.slow
def test_a_monitor_keeps_the_epoch_that_is_best_by_it(labeled, tmp_path):
    config = small_world.config(
        **small_world.VECTORS,
        **TASKS,
        ranking__click_rating=4,
        ranking__monitor="auc",
        ranking__epochs=3,
        ranking__learning_rate=0.02,
    )
    run = train_run(labeled, config, tmp_path / "run")
    rows = (run.directory / "ranking_history.csv").read_text(encoding="utf-8").splitlines()
    assert "valid_auc" in rows[0]
    column = rows[0].split(",").index("valid_auc")
    best = max(float(row.split(",")[column]) for row in rows[1:])
    got = evaluate_ranking(run.recommender(), labeled, split="valid")["shown"]["click"]["auc"]
    assert got == pytest.approx(best, abs=1e-6)
    assert run.calibration.kind == "platt"
    again = mmrec_tf.load_run(run.directory)
    assert again.calibration == run.calibration
    one, two = (r.recommender().recommend(["u1"], k=5) for r in (run, again))
    np.testing.assert_array_equal(one.item_id, two.item_id)
    np.testing.assert_allclose(one.probability, two.probability, rtol=1e-5)


def test_a_split_without_clicks_is_refused(labeled):
    strict = build(labeled, ranking__click_rating=4)
    with pytest.raises(DatasetError, match="no interactions rated 9 or higher"):
        relevant_items(labeled, "valid", min_rating=9)
    assert strict.num_candidates == 12 <= NUM_ITEMS
