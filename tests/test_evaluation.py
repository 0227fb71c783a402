"""Evaluation: every item ranked for every user of the split, train items left out."""

import math

import numpy as np
import pytest
import small_world
import tensorflow as tf
from small_world import NUM_ITEMS, NUM_USERS, build_retrieval
from test_dataset import write

from mmrec_tf import RankingModel, Recommender, evaluate
from mmrec_tf.errors import DatasetError
from mmrec_tf.evaluation import (
    evaluate_run,
    evaluate_users,
    rank_by_popularity,
    rank_items,
    relevant_items,
)

EVERYONE = np.arange(NUM_USERS)


@pytest.fixture(scope="module")
def model(dataset):
    return build_retrieval(dataset)


def score_matrix(model, dataset):
    """Users against items one by one, by the formula; train items at minus infinity."""
    embedding = model.embed_catalog().embedding
    train = dataset.interactions("train")
    scores = np.zeros([NUM_USERS, NUM_ITEMS])
    for user in range(NUM_USERS):
        met = train.item[train.user == user]
        history = met[-4:]
        vector = model.embed_users(
            tf.constant([user]),
            tf.constant(embedding[history].reshape(1, len(history), 8)),
            tf.ones([1, len(history)], tf.bool),
        )
        scores[user] = embedding @ vector.numpy()[0] / 0.1
        scores[user] += 0.7 * dataset.catalog.log_frequency
        scores[user, met] = -np.inf
    return scores


def brute_force(scores, dataset, split, k):
    """Recall, NDCG and MRR of each user, one user and one place at a time."""
    data = dataset.interactions(split)
    found = []
    for user in range(len(scores)):
        wanted = set(data.item[data.user == user].tolist())
        if not wanted:
            continue
        order = [n for n in np.argsort(-scores[user], kind="stable") if scores[user, n] > -np.inf]
        hits = [place for place, item in enumerate(order[:k], start=1) if item in wanted]
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        found.append(
            (
                len(hits) / len(wanted),
                sum(1 / math.log2(place + 1) for place in hits) / ideal,
                1 / hits[0] if hits else 0,
            )
        )
    return np.array(found)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("k", [3, 10])
def test_it_agrees_with_brute_force(model, dataset, split, k):
    want = brute_force(score_matrix(model, dataset), dataset, split, k)
    got = evaluate_users(model, dataset, split=split, ks=[k])
    assert len(want) == NUM_USERS and 0.05 < want[:, 0].mean() < 0.95
    for column, name in enumerate(("recall", "ndcg", "mrr")):
        np.testing.assert_allclose(got[f"{name}@{k}"], want[:, column])
    means = evaluate(model, dataset, split=split, ks=[k])
    assert means[f"recall@{k}"] == pytest.approx(want[:, 0].mean())


def test_blocks_of_users_make_no_difference(model, dataset, monkeypatch):
    whole = rank_items(model, dataset, EVERYONE, k=5)
    monkeypatch.setattr("mmrec_tf.evaluation.BLOCK", 7)
    np.testing.assert_array_equal(rank_items(model, dataset, EVERYONE, k=5), whole)
    some = np.array([9, 3, 38])
    np.testing.assert_array_equal(rank_items(model, dataset, some, k=5), whole[some])


@pytest.mark.parametrize("ranked", [False, True])
def test_train_items_are_left_out_and_all_others_ranked(model, dataset, ranked):
    judged = model
    if ranked:
        ranking = RankingModel(model.config, model)
        ranking.adapt()
        ranking.build_weights()
        judged = Recommender(model, ranking, dataset)
    top = rank_items(judged, dataset, EVERYONE, k=NUM_ITEMS + 2)
    assert top.shape == (NUM_USERS, NUM_ITEMS + 2)
    train = dataset.interactions("train")
    for user in range(NUM_USERS):
        met = set(train.item[train.user == user].tolist())
        places = NUM_ITEMS - len(met)
        assert set(top[user, :places]) == set(range(NUM_ITEMS)) - met
        assert (top[user, places:] == -1).all()


def test_both_stages_are_measured_as_recommended(model, dataset):
    """With twelve candidates of thirty, what ranking never sees is not found."""
    ranking = RankingModel(model.config, model)
    ranking.adapt()
    ranking.build_weights()
    for weight in ranking.network.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    recommender = Recommender(model, ranking, dataset)
    answer = recommender.recommend([small_world.user_id(n) for n in EVERYONE], k=10)
    numbers = [[int(item[1:]) for item in row] for row in answer.item_id]
    np.testing.assert_array_equal(rank_items(recommender, dataset, EVERYONE, k=10), numbers)
    one, both = (evaluate(judged, dataset, ks=[10]) for judged in (model, recommender))
    assert one != both


def test_popularity_by_hand(tmp_path):
    """Item 0 was met by three, 1 by two, 2 by one, 3 and 4 by nobody."""
    dataset = write(
        tmp_path / "d",
        train=[[0, 1, 2], [1, 0], [0], []],
        valid=[[4], [2], [3, 1], []],
        num_items=5,
    )
    top = rank_by_popularity(dataset, np.arange(4), k=4)
    assert top.tolist() == [[3, 4, -1, -1], [2, 3, 4, -1], [1, 2, 3, 4], [0, 1, 2, 3]]
    metrics = evaluate(None, dataset, split="valid", ks=[1, 2])
    assert metrics["recall@1"] == pytest.approx((0 + 1 + 1 / 2) / 3)
    assert metrics["recall@2"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert metrics["mrr@2"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert metrics["hit_rate@1"] == pytest.approx(2 / 3)


def test_only_users_of_the_split_count(tmp_path):
    dataset = write(tmp_path / "d")
    users, (offsets, items) = relevant_items(dataset, "valid")
    assert users.tolist() == [0, 1, 2]
    assert offsets.tolist() == [0, 1, 2, 3] and items.tolist() == [5, 0, 1]
    with pytest.raises(DatasetError, match="the test split has no interactions"):
        evaluate(None, dataset, split="test")


def test_cut_offs_may_come_in_any_order_and_twice(model, dataset):
    one = evaluate(model, dataset, ks=(5, 2, 5))
    assert one == evaluate(model, dataset, ks=iter([2, 5]))
    assert one["recall@2"] == evaluate(model, dataset, ks=[2])["recall@2"]


def test_a_run_stands_beside_its_baselines(run, dataset):
    for stage in ("retrieval", "recommender"):
        found = evaluate_run(run, split="test", ks=[10], stage=stage)
        assert list(found) == ["split", "users", "model", "popularity", "id_only"]
        assert (found["split"], found["users"]) == ("test", NUM_USERS)
        own, twin = run, run.twin
        judged = [
            part.retrieval if stage == "retrieval" else part.recommender() for part in (own, twin)
        ]
        assert found["model"] == evaluate(judged[0], dataset, ks=[10])
        assert found["id_only"] == evaluate(judged[1], dataset, ks=[10])
        assert found["popularity"] == evaluate(None, dataset, ks=[10])
    assert evaluate_run(run.twin, split="valid", ks=[10])["id_only"] is None
