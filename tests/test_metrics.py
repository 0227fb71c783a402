import math

import numba
import numpy as np
import pytest
import sklearn.metrics

from mmrec_tf import metrics
from mmrec_tf.errors import RunError

# Users rank five items; user 0 chose {3, 7}, user 1 chose {1}, user 2 chose {8, 9, 0}.
TOP = np.array([[3, 1, 7, 2, 0], [0, 2, 1, 3, 4], [4, 5, 6, 7, 1]], np.int32)
RELEVANT = [np.array([7, 3]), np.array([1]), np.array([8, 9, 0])]


def test_hand_worked_case():
    per_user = metrics.retrieval_metrics(TOP, RELEVANT, ks=(1, 3, 5))

    # User 0 hits at ranks 1 and 3, user 1 at rank 3, user 2 nowhere.
    np.testing.assert_allclose(per_user["recall@1"], [1 / 2, 0, 0])
    np.testing.assert_allclose(per_user["recall@3"], [2 / 2, 1 / 1, 0 / 3])
    np.testing.assert_allclose(per_user["precision@3"], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(per_user["precision@5"], [2 / 5, 1 / 5, 0])
    np.testing.assert_allclose(per_user["mrr@1"], [1, 0, 0])
    np.testing.assert_allclose(per_user["mrr@3"], [1, 1 / 3, 0])
    np.testing.assert_allclose(per_user["hit_rate@1"], [1, 0, 0])
    np.testing.assert_allclose(per_user["hit_rate@3"], [1, 1, 0])
    # User 0 at 3: DCG = 1/log2(2) + 1/log2(4) = 1.5, ideal = 1/log2(2) + 1/log2(3).
    # User 1 at 3: DCG = 1/log2(4) = 0.5, ideal = 1 (one relevant item).
    ideal = 1 + 1 / math.log2(3)
    np.testing.assert_allclose(per_user["ndcg@3"], [1.5 / ideal, 0.5, 0])
    # User 0 at 1: only one place, so the ideal is 1 although two items are relevant.
    np.testing.assert_allclose(per_user["ndcg@1"], [1, 0, 0])

    means = metrics.mean_metrics(per_user)
    assert means["recall@3"] == pytest.approx((1 + 1 + 0) / 3)
    assert means["hit_rate@1"] == pytest.approx(1 / 3)
    assert set(means) == {
        f"{name}@{k}"
        for name in ("recall", "precision", "ndcg", "mrr", "hit_rate")
        for k in (1, 3, 5)
    }


def test_offsets_and_lists_agree():
    offsets, items = np.array([0, 2, 3, 6]), np.array([7, 3, 1, 8, 9, 0])
    by_list = metrics.retrieval_metrics(TOP, RELEVANT, ks=(3,))
    by_offsets = metrics.retrieval_metrics(TOP, (offsets, items), ks=(3,))
    for name, values in by_list.items():
        np.testing.assert_array_equal(values, by_offsets[name])


def test_an_item_named_twice_counts_once():
    twice = [np.array([7, 3, 7]), np.array([1, 1]), np.array([8, 9, 0])]
    once = metrics.retrieval_metrics(TOP, RELEVANT, ks=(3,))
    for name, values in metrics.retrieval_metrics(TOP, twice, ks=(3,)).items():
        np.testing.assert_array_equal(values, once[name])


def test_missing_entries_are_never_hits():
    # Item 9 of user 0 and "none" of user 1 are neighbors in the flattened numbering.
    top = np.array([[9, -1], [-1, -1]])
    per_user = metrics.retrieval_metrics(top, [np.array([9]), np.array([0])], ks=(2,))
    np.testing.assert_array_equal(per_user["recall@2"], [1, 0])
    np.testing.assert_array_equal(per_user["precision@2"], [0.5, 0])


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_agrees_with_ranx(seed, monkeypatch):
    # Compiling ranx takes 45 seconds; interpreted it answers in 2.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    import ranx

    random = np.random.default_rng(seed)
    num_users, num_items = 40, 60
    scores = random.normal(size=(num_users, num_items)).astype(np.float32)
    relevant = [
        random.choice(num_items, size=random.integers(1, 30), replace=False)
        for _ in range(num_users)
    ]
    ks = (1, 5, 10, 20)
    ours = metrics.retrieval_metrics(metrics.top_k(scores, 20), relevant, ks=ks)

    qrels = ranx.Qrels(
        {f"u{u:03d}": {f"i{i}": 1 for i in items} for u, items in enumerate(relevant)}
    )
    run = ranx.Run(
        {
            f"u{u:03d}": {f"i{i}": float(score) for i, score in enumerate(row)}
            for u, row in enumerate(scores)
        }
    )
    names = [
        f"{name}@{k}" for name in ("recall", "precision", "ndcg", "mrr", "hit_rate") for k in ks
    ]
    theirs = ranx.evaluate(qrels, run, names, return_mean=False, make_comparable=True)
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-9, err_msg=name)


def test_top_k_sorts_and_breaks_ties_by_item_number():
    scores = np.array([[1, 3, 3, 2, 3, 0], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0]], np.float32)
    np.testing.assert_array_equal(
        metrics.top_k(scores, 4), [[1, 2, 4, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    )
    # Two of the three that score 3: the cut goes through the tie.
    np.testing.assert_array_equal(metrics.top_k(scores, 2)[0], [1, 2])
    # Zero has two signs and one value.
    np.testing.assert_array_equal(metrics.top_k(np.array([[-0.0, 0.0, -0.0]]), 3), [[0, 1, 2]])


def test_top_k_equals_a_plain_sort():
    random = np.random.default_rng(0)
    scores = random.integers(0, 5, size=(50, 30)).astype(np.float32)  # full of ties
    plain = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 7, 29, 30):
        top = metrics.top_k(scores, k)
        assert top.dtype == np.int32
        np.testing.assert_array_equal(top, plain[:, :k])


def test_top_k_excludes_and_pads():
    scores = np.array([[4, 3, 2, 1], [1, 2, 3, 4]], np.float32)
    before = scores.copy()
    exclude = (np.array([0, 1, 1, 1]), np.array([0, 1, 2, 3]))
    np.testing.assert_array_equal(
        metrics.top_k(scores, 3, exclude=exclude), [[1, 2, 3], [0, -1, -1]]
    )
    np.testing.assert_array_equal(scores, before)
    # A catalog of four asked for six.
    np.testing.assert_array_equal(
        metrics.top_k(scores, 6, exclude=exclude), [[1, 2, 3, -1, -1, -1], [0] + [-1] * 5]
    )
    nothing = metrics.top_k(np.full((1, 2), -np.inf, np.float32), 2)
    np.testing.assert_array_equal(nothing, [[-1, -1]])


def test_refusals():
    with pytest.raises(ValueError, match="user 1 has none"):
        metrics.retrieval_metrics(TOP[:2], [np.array([1]), np.array([], int)], ks=(1,))
    with pytest.raises(ValueError, match="wanted 1 to 5"):
        metrics.retrieval_metrics(TOP, RELEVANT, ks=(6,))
    with pytest.raises(ValueError, match="wanted 3 users"):
        metrics.retrieval_metrics(TOP, RELEVANT[:2], ks=(1,))
    with pytest.raises(ValueError, match="offsets"):
        metrics.retrieval_metrics(TOP, (np.array([0, 2]), np.array([7, 3])), ks=(1,))
    with pytest.raises(ValueError, match="at least 1"):
        metrics.top_k(np.zeros((1, 2)), 0)
    with pytest.raises(RunError, match="diverged"):
        metrics.top_k(np.array([[0.0, np.nan]]), 1)
    with pytest.raises(ValueError, match="at least one user"):
        metrics.mean_metrics({"recall@1": np.zeros(0)})


@pytest.mark.parametrize("ties", [False, True])
def test_auc_agrees_with_scikit_learn(ties):
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 500)
    scores = random.integers(0, 8, 500) if ties else random.normal(size=500)
    assert metrics.auc(labels, scores) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12
    )


def test_auc_by_hand():
    # Pairs (positive, negative): 0.8 > 0.5 wins, 0.5 = 0.5 half, 0.8 and 0.5 > 0.1 win: 3.5 / 4.
    assert metrics.auc(np.array([1, 1, 0, 0]), np.array([0.8, 0.5, 0.5, 0.1])) == 3.5 / 4
    with pytest.raises(ValueError, match="both"):
        metrics.auc(np.ones(3), np.arange(3))


def test_gauc_agrees_with_scikit_learn_group_by_group():
    random = np.random.default_rng(2)
    groups = random.integers(0, 40, 300) * 7
    labels = random.integers(0, 2, 300)
    scores = random.integers(0, 10, 300)
    areas, sizes = [], []
    for group in np.unique(groups):
        own = groups == group
        if 0 < labels[own].sum() < own.sum():
            areas.append(sklearn.metrics.roc_auc_score(labels[own], scores[own]))
            sizes.append(own.sum())
    assert metrics.gauc(labels, scores, groups=groups) == pytest.approx(
        np.average(areas, weights=sizes), abs=1e-12
    )
    with pytest.raises(ValueError, match="groups"):
        metrics.gauc(np.array([0, 1]), np.array([1, 2]), groups=np.array([0, 1]))


def test_log_loss_and_rmse_agree_with_scikit_learn():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 200)
    probabilities = random.uniform(0.01, 0.99, 200)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities), abs=1e-12
    )
    assert np.isfinite(metrics.log_loss(np.array([1, 0]), np.array([0.0, 1.0])))
    ratings, predictions = random.normal(size=50), random.normal(size=50)
    assert metrics.rmse(ratings, predictions) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(ratings, predictions), abs=1e-12
    )
