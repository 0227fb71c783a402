"""Evaluation: every item ranked for every user of the split, known ones left out."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import NUM_ITEMS, NUM_USERS, build_retrieval
from support.tiny_dataset import write

from mmrec_tf import RankingModel, Recommender, evaluate
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.evaluation.evaluate import evaluate_users, rank_by_popularity, relevant_items
from mmrec_tf.evaluation.metrics import paired_bootstrap
from mmrec_tf.evaluation.slices import item_slices, slice_metrics
from mmrec_tf.runs.evaluate import beyond_accuracy, content_vectors, evaluate_run

EVERYONE = np.arange(NUM_USERS)


@pytest.fixture(scope="module")
def model(dataset):
    return build_retrieval(dataset)


def score_matrix(model, dataset, history):
    """Users against items one by one, by the formula; known items at minus infinity."""
    embedding = model.embed_catalog().embedding
    known = dataset.known_interactions(history)
    scores = np.zeros([NUM_USERS, NUM_ITEMS])
    for user in range(NUM_USERS):
        met = known.item[known.user == user]
        last = met[-4:]
        vector = model.embed_users(
            tf.constant([user]),
            tf.constant(embedding[last].reshape(1, len(last), 8)),
            tf.ones([1, len(last)], tf.bool),
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


@pytest.mark.parametrize(
    "split, history", [("valid", "train"), ("test", "train"), ("test", "train+valid")]
)
@pytest.mark.parametrize("k", [3, 10])
def test_it_agrees_with_brute_force(model, dataset, split, history, k):
    want = brute_force(score_matrix(model, dataset, history), dataset, split, k)
    got = evaluate_users(model, dataset, split=split, ks=[k], history=history)
    assert len(want) == NUM_USERS and 0.05 < want[:, 0].mean() < 0.95
    for column, name in enumerate(("recall", "ndcg", "mrr")):
        np.testing.assert_allclose(got[f"{name}@{k}"], want[:, column])
    means = evaluate(model, dataset, split=split, ks=[k], history=history)
    assert means[f"recall@{k}"] == pytest.approx(want[:, 0].mean())


def test_blocks_of_users_make_no_difference(model, dataset, monkeypatch):
    whole = model.rank_items(dataset, EVERYONE, k=5)
    monkeypatch.setattr("mmrec_tf.evaluation.evaluate.BLOCK", 7)
    np.testing.assert_array_equal(model.rank_items(dataset, EVERYONE, k=5), whole)
    some = np.array([9, 3, 38])
    np.testing.assert_array_equal(model.rank_items(dataset, some, k=5), whole[some])


@pytest.mark.parametrize("history", ["train", "train+valid"])
@pytest.mark.parametrize("ranked", [False, True])
def test_known_items_are_left_out_and_all_others_ranked(model, dataset, ranked, history):
    """Of a recommender that serves all that is known, too."""
    judged = model
    if ranked:
        ranking = RankingModel(model.config, dataset, retrieval=model, initialize=False)
        judged = Recommender(model, ranking, dataset)
    top = judged.rank_items(dataset, EVERYONE, k=NUM_ITEMS + 2, history=history)
    assert top.shape == (NUM_USERS, NUM_ITEMS + 2)
    known = dataset.known_interactions(history)
    for user in range(NUM_USERS):
        met = set(known.item[known.user == user].tolist())
        places = NUM_ITEMS - len(met)
        assert set(top[user, :places]) == set(range(NUM_ITEMS)) - met
        assert (top[user, places:] == -1).all()


def test_both_stages_are_measured_as_recommended(model, dataset):
    """With twelve candidates of thirty, what ranking never sees is not found."""
    ranking = RankingModel(model.config, dataset, retrieval=model, initialize=False)
    for weight in ranking.experts.weights + ranking.heads[0].weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    recommender = Recommender(model, ranking, dataset, history="train")
    answer = recommender.recommend([small_world.user_id(n) for n in EVERYONE], k=10)
    numbers = [[int(item[1:]) for item in row] for row in answer.item_id]
    np.testing.assert_array_equal(recommender.rank_items(dataset, EVERYONE, k=10), numbers)
    one, both = (evaluate(judged, dataset, ks=[10]) for judged in (model, recommender))
    assert one != both


def test_a_model_measures_itself_under_either_protocol(model, dataset):
    for history in ("train", "train+valid"):
        want = evaluate(model, dataset, ks=[10], history=history)
        assert model.evaluate(dataset, ks=[10], history=history) == want


@pytest.mark.parametrize(
    "split, history", [("valid", "train+valid"), ("valid", "all"), ("test", "all"), ("test", "x")]
)
def test_a_history_that_holds_what_is_asked_for_is_refused(model, dataset, split, history):
    for judged in (model, None):
        with pytest.raises(ConfigError, match=f"history: wanted train.*on the {split} split"):
            evaluate(judged, dataset, split=split, history=history)


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
        assert list(found)[:5] == ["split", "history", "users", "model", "popularity"]
        assert found["baselines"] == found["left_out"] == {} and "slices" not in found
        assert (found["split"], found["users"]) == ("test", NUM_USERS)
        own, twin = run, run.twin
        judged = [
            part.retrieval if stage == "retrieval" else part.recommender() for part in (own, twin)
        ]
        assert found["model"] == evaluate(judged[0], dataset, ks=[10])
        assert found["id_only"] == evaluate(judged[1], dataset, ks=[10])
        assert found["popularity"] == evaluate(None, dataset, ks=[10])
    assert evaluate_run(run.twin, split="valid", ks=[10])["id_only"] is None


def test_all_of_a_report_is_of_one_history(run, dataset):
    known = {"history": "train+valid"}
    found = evaluate_run(run, split="test", ks=[10], baselines=["ease"], **known)
    assert (found["split"], found["history"]) == ("test", "train+valid")
    assert found["model"] == evaluate(run.retrieval, dataset, ks=[10], **known)
    assert found["id_only"] == evaluate(run.twin.retrieval, dataset, ks=[10], **known)
    assert found["popularity"] == evaluate(None, dataset, ks=[10], **known)
    plain = evaluate_run(run, split="test", ks=[10], baselines=["ease"])
    assert plain["history"] == "train"
    for name in ("model", "popularity", "id_only"):
        assert plain[name] != found[name]
    assert plain["baselines"]["ease"] != found["baselines"]["ease"]
    with pytest.raises(ConfigError, match="history: wanted train on the valid split"):
        evaluate_run(run, split="valid", ks=[10], **known)


# Slices


def test_slices_by_hand(tmp_path):
    """Items were met 3, 2, 1, 1, 0 and 0 times."""
    dataset = write(
        tmp_path / "d", train=[[0, 1, 2], [1, 0], [0, 3]], valid=[[4], [2], [5]], num_items=6
    )
    found = {
        name: np.flatnonzero(members).tolist() for name, members in item_slices(dataset).items()
    }
    # A third of the way from 1, 1, 2, 3 lies 1, two thirds lie 2.
    assert found == {
        "warm": [0, 1, 2, 3],
        "cold": [4, 5],
        "tail": [2, 3],
        "middle": [1],
        "head": [0],
        "met 1 to 5 times": [0, 1, 2, 3],
        "met 6 to 20 times": [],
        "met more than 20 times": [],
    }


def test_slices_of_the_small_world(dataset):
    slices = item_slices(dataset)
    count, present = dataset.catalog.train_count, dataset.catalog.present
    popularity, content = ("cold", "tail", "middle", "head"), ("no", "some", "all")
    for names in (
        popularity,
        tuple(f"{c} content" for c in content),
        ("with text", "without text"),
    ):
        assert (np.sum([slices[name] for name in names], axis=0) == 1).all()
    assert np.flatnonzero(slices["cold"]).tolist() == sorted({*np.flatnonzero(count == 0)})
    assert {*small_world.COLD} <= {*np.flatnonzero(slices["cold"])}
    assert np.flatnonzero(slices["no content"]).tolist() == [small_world.BARE]
    assert np.flatnonzero(slices["without audio"]).tolist() == [
        n for n in range(NUM_ITEMS) if n % 5 == 2 or n == small_world.BARE
    ]
    assert count[slices["tail"]].max() < count[slices["middle"]].min()
    assert count[slices["middle"]].max() < count[slices["head"]].min()
    both = slices["cold, with image"]
    np.testing.assert_array_equal(both, (count == 0) & present[:, 1])
    met = [(name, members) for name, members in slices.items() if name.startswith("met ")]
    for (name, members), (low, high) in zip(met, [(1, 5), (6, 20), (21, count.max())], strict=True):
        np.testing.assert_array_equal(members, (count >= low) & (count <= high), name)
    assert len(slices) == 1 + 4 + 3 + 3 + 8 + 4 * (3 + 8)


def test_a_slice_counts_its_own_pairs_and_users(model, dataset):
    users, (offset, items) = relevant_items(dataset, "test")
    top = model.rank_items(dataset, users, k=10)
    members = np.zeros([NUM_ITEMS], bool)
    members[[5, 8, 28]] = True
    recalls = []
    for row in range(len(users)):
        wanted = {*items[offset[row] : offset[row + 1]].tolist()} & {5, 8, 28}
        if wanted:
            recalls.append(len(wanted & {*top[row].tolist()}) / len(wanted))
    found = slice_metrics(top, (offset, items), members, [10])
    assert 0 < len(recalls) < len(users)
    assert (found["users"], found["recall@10"]) == (len(recalls), pytest.approx(np.mean(recalls)))


def test_a_slice_of_everything_is_the_whole_and_of_nothing_has_no_figures(model, dataset):
    users, relevant = relevant_items(dataset, "test")
    top = model.rank_items(dataset, users, k=10)
    everything = slice_metrics(top, relevant, np.ones([NUM_ITEMS], bool), [10])
    assert everything == {"users": NUM_USERS, **evaluate(model, dataset, ks=[10])}
    assert slice_metrics(top, relevant, np.zeros([NUM_ITEMS], bool), [10]) == {"users": 0}


# The whole report


@pytest.fixture(scope="module")
def report(run):
    return evaluate_run(
        run, split="test", ks=[5, 10], baselines=["ease", "content_knn"], slices=True
    )


def test_baselines_are_asked_for_by_name(report, run, monkeypatch, capsys):
    assert list(report["baselines"]) == ["ease", "content_knn"] and report["left_out"] == {}
    for name in ("ease", "content_knn"):
        assert 0 < report["baselines"][name]["recall@10"] < 1
    with pytest.raises(ConfigError, match="unknown baseline 'eas'; did you mean 'ease'"):
        evaluate_run(run, split="test", ks=[10], baselines=["eas"])
    monkeypatch.setattr("mmrec_tf.evaluation.baselines.MAX_ITEMS", 3)
    found = evaluate_run(run.twin, split="test", ks=[10], baselines=["popularity", "ease"])
    assert found["baselines"] == {}
    assert found["left_out"]["ease"].startswith("ease: wanted at most 3 items")
    assert "left out: ease: wanted at most 3 items" in capsys.readouterr().err


def test_differences_are_those_of_the_same_users(report, run, dataset):
    own, other = (
        evaluate_users(judged, dataset, ks=[10])["ndcg@10"] for judged in (run.retrieval, None)
    )
    found = report["differences"]["popularity"]["ndcg@10"]
    assert found == list(paired_bootstrap(own, other))
    assert found[0] == pytest.approx(report["model"]["ndcg@10"] - report["popularity"]["ndcg@10"])
    assert list(report["differences"]) == ["popularity", "id_only", "ease", "content_knn"]


def test_the_slices_of_a_report(report):
    cold = report["slices"]["cold"]
    # Whoever ranks by interactions alone never finds them.
    assert cold["ease"]["recall@5"] == 0 and cold["users"] > 10 and cold["items"] >= 3
    assert set(cold) == {"items", "users", "model", *report["differences"]}
    assert set(cold["model"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    for found in report["slices"].values():
        assert bool(found["users"]) == bool(found["model"]) and found["items"] >= 0
    assert report["slices"]["no content"]["items"] == 1
    json.dumps(report, allow_nan=False)


def test_beyond_accuracy(report, run, dataset):
    assert report["diversity_of"] == "content"
    found = report["beyond_accuracy"]
    assert list(found) == ["model", *report["differences"]]
    assert found["popularity"]["novelty@5"] < found["model"]["novelty@5"]
    assert found["popularity"]["coverage@5"] < found["model"]["coverage@5"]
    assert found["popularity"]["gini@5"] > found["model"]["gini@5"]
    users, _ = relevant_items(dataset, "test")
    top = run.retrieval.rank_items(dataset, users, k=10)
    vectors = content_vectors(run.retrieval, dataset)
    assert found["model"] == beyond_accuracy(top, dataset, vectors, ks=[5, 10])


def test_vectors_are_those_of_frozen_encoders(run, dataset, monkeypatch):
    vectors = content_vectors(run.retrieval, dataset)
    assert list(vectors.values) == list(small_world.MODALITIES)
    np.testing.assert_array_equal(vectors.present, dataset.catalog.present)
    monkeypatch.setattr(run.retrieval.encoders["image"], "trainable_layers", -1)
    some = content_vectors(run.retrieval, dataset)
    assert list(some.values) == ["text", "audio", "vector"]
    np.testing.assert_array_equal(some.present, dataset.catalog.present[:, [0, 2, 3]])
    assert content_vectors(run.twin.retrieval, dataset) is None


def test_diversity_without_content_is_that_of_the_items_places(run):
    found = evaluate_run(run.twin, split="valid", ks=[1, 3])
    assert found["diversity_of"] == "item embeddings"
    # A list of one has no pair.
    assert found["beyond_accuracy"]["model"]["diversity@1"] is None
    assert 0 < found["beyond_accuracy"]["model"]["diversity@3"] < 2
