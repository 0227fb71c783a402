import math

import numba
import numpy as np
import pytest

from mmrec_tf.errors import RunError
from mmrec_tf.evaluation import metrics
from mmrec_tf.evaluation.metrics import beyond_accuracy, bootstrap

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
        for name in ("recall", "precision", "ndcg", "map", "mrr", "hit_rate")
        for k in (1, 3, 5)
    }


def average_precision(top, relevant, k):
    """The plain loop."""
    hits, total = 0, 0.0
    for rank, item in enumerate(top[:k], start=1):
        if item in relevant:
            hits += 1
            total += hits / rank
    return total / min(len(relevant), k)


def test_average_precision_by_hand_and_by_a_loop():
    # User 0 hits at 1 and 3 of two: (1/1 + 2/3) / 2. User 1 hits at 3 alone.
    per_user = metrics.retrieval_metrics(TOP, RELEVANT, ks=(1, 3))
    np.testing.assert_allclose(per_user["map@3"], [(1 + 2 / 3) / 2, 1 / 3, 0])
    # One place, so that one of two relevant items is all that can be had.
    np.testing.assert_allclose(per_user["map@1"], [1, 0, 0])
    random = np.random.default_rng(0)
    top = np.argsort(random.random((30, 40)), axis=1)[:, :20]
    top[3, 5:] = -1
    relevant = [random.choice(40, size=random.integers(1, 25), replace=False) for _ in range(30)]
    for k in (1, 5, 20):
        want = [
            average_precision(row, set(items), k) for row, items in zip(top, relevant, strict=True)
        ]
        found = metrics.retrieval_metrics(top, relevant, ks=(k,))
        np.testing.assert_allclose(found[f"map@{k}"], want)


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


@pytest.mark.parametrize("ties", [False, True])
def test_top_k_of_many_items_is_exact(ties):
    """Items are looked at in groups: of sizes that do and do not divide their number, with the
    best ones in one group, and with infinities."""
    random = np.random.default_rng(0)
    for num_items in (1, 2, 97, 1000, 1023, 1024, 5000):
        scores = random.normal(size=(6, num_items)).astype(np.float32)
        if ties:
            scores = np.round(2 * scores)
        scores[1] = np.sort(scores[1])
        scores[2] = np.sort(scores[2])[::-1]
        scores[3, :: max(num_items // 20, 1)] += 50
        scores[4, random.random(num_items) < 0.9] = -np.inf
        scores[5, random.random(num_items) < 0.2] = np.inf
        for k in (1, 20, 100):
            left = np.isneginf(scores).sum(axis=1)
            plain = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
            for row, count in enumerate(left):
                plain[row, num_items - count :] = -1
            want = np.pad(plain, ((0, 0), (0, k)), constant_values=-1)[:, :k]
            for given in (scores, np.asfortranarray(scores), scores.astype(np.float64)):
                np.testing.assert_array_equal(metrics.top_k(given, k), want)


def test_top_k_of_nobody_and_of_nothing():
    assert metrics.top_k(np.zeros((0, 5)), 3).shape == (0, 3)
    np.testing.assert_array_equal(metrics.top_k(np.zeros((2, 0)), 2), np.full((2, 2), -1))


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
    with pytest.raises(RunError, match="diverged"):
        excluded = np.array([0]), np.array([1])
        metrics.top_k(np.array([[0.0, np.nan]]), 1, exclude=excluded)
    with pytest.raises(ValueError, match="at least one user"):
        metrics.mean_metrics({"recall@1": np.zeros(0)})


# Differences


def test_an_interval_whose_resamples_can_be_counted():
    """Of two users one gains 1: resamples have a mean of 0, 1/2 or 1, at 1/4, 1/2 and 1/4."""
    found = metrics.paired_bootstrap([1, 3], [1, 2])
    assert found == (0.5, 0.0, 1.0)
    # A quarter lies below each of these bounds' place, so both stand in the middle.
    assert metrics.paired_bootstrap([1, 3], [1, 2], confidence=0.4) == (0.5, 0.5, 0.5)


def test_the_interval_is_that_of_resampling_users_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.random([2, 150])
    resamples = (a - b)[rng.integers(0, 150, [20000, 150])].mean(axis=1)
    found = metrics.paired_bootstrap(a, b, num_resamples=20000)
    assert found.mean == pytest.approx((a - b).mean())
    want = np.quantile(resamples, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], want, atol=0.004)
    # The width of the classic interval, from the deviation of the mean.
    width = 2 * 1.96 * (a - b).std() / np.sqrt(150)
    assert found.high - found.low == pytest.approx(width, rel=0.05)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(300):
        # Recall with one item a user: 0 or 1; the first ranking finds it 10 % more often.
        both = rng.random([200, 1]) < [[0.5, 0.4]]
        low, high = metrics.paired_bootstrap(*both.T, num_resamples=300, seed=seed)[1:]
        inside += low <= 0.1 <= high
    assert 0.90 < inside / 300 < 0.99


def test_pairs_matter():
    """What is hard for both cancels out: the same two samples in another order say less."""
    rng = np.random.default_rng(0)
    b = rng.random(100)
    a = b + 0.01
    together = metrics.paired_bootstrap(a, b)
    apart = metrics.paired_bootstrap(rng.permutation(a), b)
    assert together.low == pytest.approx(0.01) and together.high == pytest.approx(0.01)
    assert apart.low < 0 < apart.high


def test_a_seed_gives_one_interval_whatever_the_block(monkeypatch):
    a, b = np.random.default_rng(0).random([2, 60])
    whole = metrics.paired_bootstrap(a, b, seed=3)
    monkeypatch.setattr(bootstrap, "RESAMPLED", 200)
    assert metrics.paired_bootstrap(a, b, seed=3) == pytest.approx(whole)
    assert metrics.paired_bootstrap(a, b, seed=4) != pytest.approx(whole)
    # A user's number does not matter, only what belongs to the same one.
    assert metrics.paired_bootstrap(a[::-1], b[::-1], seed=3) == pytest.approx(whole)


@pytest.mark.parametrize(
    "a, b, settings",
    [
        ([], [], {}),
        ([1, 2], [1], {}),
        ([[1], [2]], [[1], [2]], {}),
        ([1], [1], {"num_resamples": 0}),
        ([1], [1], {"confidence": 1}),
    ],
)
def test_what_cannot_be_resampled_is_refused(a, b, settings):
    with pytest.raises(ValueError, match="wanted"):
        metrics.paired_bootstrap(a, b, **settings)


# Beyond accuracy


def test_coverage_gini_and_novelty_by_hand():
    """Items 0 and 1 are recommended twice and once, 2 and 3 never."""
    top = np.array([[0, 1], [0, -1]])
    assert metrics.coverage(top, num_items=4) == 0.5
    # In ascending order 0, 0, 1, 2: (-3 * 0 - 1 * 0 + 1 * 1 + 3 * 2) / (4 * 3).
    assert metrics.gini(top, num_items=4) == pytest.approx(7 / 12)
    # 2 bits twice, 1 bit once.
    probability = np.array([0.25, 0.5, 0.125, 0.125], np.float32)
    assert metrics.novelty(top, probability=probability) == pytest.approx(5 / 3)


def test_gini_is_the_mean_difference_of_any_two_items():
    top = np.random.default_rng(0).integers(0, 12, [30, 5])
    exposure = np.bincount(top.ravel(), minlength=15)
    pairs = np.abs(exposure[:, None] - exposure).mean() / (2 * exposure.mean())
    assert metrics.gini(top, num_items=15) == pytest.approx(pairs)
    assert metrics.gini(np.arange(6)[None], num_items=6) == pytest.approx(0)
    assert metrics.gini(np.zeros([3, 1], int), num_items=6) == pytest.approx(5 / 6)


def test_nothing_recommended_is_finite():
    nothing = np.full([3, 4], -1)
    assert metrics.coverage(nothing, num_items=5) == 0
    assert metrics.gini(nothing, num_items=5) == 0
    assert metrics.novelty(nothing, probability=np.ones(5)) == 0
    vectors = metrics.ItemVectors({"text": np.ones([5, 2], np.float32)}, np.ones([5, 1], bool))
    assert metrics.diversity(nothing, vectors=vectors) is None
    assert metrics.diversity(nothing[:0], vectors=vectors) is None


def item_vectors(dtype=np.float32):
    """Seven items of two modalities; 4 has the first only, 5 the second only, 6 none."""
    rng = np.random.default_rng(0)
    values = {"text": rng.normal(size=[7, 3]), "image": rng.normal(size=[7, 5])}
    present = np.array([[1, 1]] * 4 + [[1, 0], [0, 1], [0, 0]], bool)
    return metrics.ItemVectors({n: v.astype(dtype) for n, v in values.items()}, present)


def alike(vectors, i, j):
    """The mean cosine over what two items share, and whether they share anything."""
    cosines = [
        float(v[i] @ v[j] / np.linalg.norm(v[i]) / np.linalg.norm(v[j]))
        for v, has in zip(vectors.values.values(), vectors.present.T, strict=True)
        if has[i] and has[j]
    ]
    return (np.mean(cosines), True) if cosines else (0.0, False)


def test_similarity_is_the_mean_cosine_of_what_both_have():
    vectors = item_vectors()
    cosine, shared = vectors.similarity(np.arange(7))
    want = [[alike(vectors, i, j) for j in range(7)] for i in range(7)]
    np.testing.assert_allclose(cosine, [[pair[0] for pair in row] for row in want], atol=1e-6)
    np.testing.assert_array_equal(shared, [[pair[1] for pair in row] for row in want])
    assert shared[4, 3] and not shared[4, 5] and not shared[6].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_diversity_is_a_mean_over_pairs_then_users(dtype, monkeypatch):
    vectors = item_vectors(dtype)
    # The third user's items share nothing, the fourth has a single one.
    top = np.array([[0, 1, 2], [4, 3, 5], [4, 5, 6], [0, -1, -1]])
    means = []
    for row in top[:2]:
        pairs = [alike(vectors, i, j) for i in row for j in row if i < j]
        means.append(np.mean([1 - cosine for cosine, shared in pairs if shared]))
    want = pytest.approx(np.mean(means), rel=1e-5 if dtype == np.float32 else 1e-2)
    assert metrics.diversity(top, vectors=vectors) == want
    monkeypatch.setattr(beyond_accuracy, "COMPARED", 3)
    assert metrics.diversity(top, vectors=vectors) == want


def test_a_vector_of_zeros_is_like_nothing():
    vectors = metrics.ItemVectors({"v": np.zeros([2, 3], np.float32)}, np.ones([2, 1], bool))
    assert metrics.diversity(np.array([[0, 1]]), vectors=vectors) == 1.0
