"""What an index finds: exact against NumPy, inverted lists against exact, and what is left out."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.retrieval.index import (
    ExactIndex,
    IvfIndex,
    ScannIndex,
    build_index,
    clustering,
    exact,
    ivf,
    recall,
)
from mmrec_tf.retrieval.index import build as building
from mmrec_tf.retrieval.index.alike import first_alike
from mmrec_tf.retrieval.index.clustering import query_metric
from mmrec_tf.retrieval.index.interests import nearest_interest, one_an_item, score_rows
from mmrec_tf.schema import LOWEST_SCORE

KINDS = ("ivf", "ivf_int8", "ivf_pq")


def draw(num_items=1500, num_queries=40, dim=16, clusters=20, seed=0):
    """Clustered vectors as a recommender's index holds them: unit embedding, bias, and a column
    that no query reads."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim))

    def unit(count):
        values = centers[rng.integers(clusters, size=count)] + 0.3 * rng.normal(size=(count, dim))
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    bias = rng.normal(size=(num_items, 1))
    vectors = np.hstack([unit(num_items), 0.1 * bias, 9 * bias]).astype(np.float32)
    queries = np.pad(10 * unit(num_queries), [[0, 0], [0, 2]]).astype(np.float32)
    queries[:, -2] = 1
    return vectors, queries


@pytest.fixture(scope="module")
def drawn():
    return draw()


@pytest.fixture(scope="module")
def built(drawn):
    """One index a kind, reading a fourth of its lists."""
    return {kind: IvfIndex(*drawn, kind=kind, num_lists=40, num_probes=10) for kind in KINDS}


@pytest.fixture
def reading(built):
    """Gives an index that reads so many lists, and puts it back afterwards."""

    def index(kind, num_probes):
        built[kind].num_probes.assign(min(num_probes, built[kind].num_lists))
        return built[kind]

    yield index
    for value in built.values():
        value.num_probes.assign(10)


def best(vectors, queries, k, hidden=None):
    """Scores and items by a sort of all."""
    scores = queries @ vectors.T
    scores = scores if hidden is None else np.where(hidden, LOWEST_SCORE, scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def graph(index, k, **inputs):
    """The search as a graph in which no batch size is known."""
    names = list(inputs)
    one = {name: 1 if value.shape[0] == 1 else None for name, value in inputs.items()}
    specs = [tf.TensorSpec([one[name], None], inputs[name].dtype) for name in names]
    spec = tf.TensorSpec([None, index.vectors.shape[1]], tf.float32)

    @tf.function(input_signature=[spec, *specs])
    def search(queries, *values):
        return index.search(queries, k, **dict(zip(names, values, strict=True)))

    return lambda queries: [x.numpy() for x in search(queries, *inputs.values())]


# Exact.


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 6, 7])
def test_a_large_batch_is_searched_in_blocks_with_the_same_result(monkeypatch, batch, shared):
    vectors, queries = draw(num_items=60)
    rng = np.random.default_rng(1)
    exclude = tf.constant(rng.integers(-1, 60, size=(batch, 5)), tf.int32)
    allowed = tf.constant(rng.random(size=(1 if shared else batch, 60)) < 0.7)
    index = ExactIndex(vectors)
    whole = graph(index, 8, exclude=exclude, allowed=allowed)(queries[:batch])
    monkeypatch.setattr(exact, "MAX_SCORES", 3 * 60)
    held = []
    compare = index._compare
    monkeypatch.setattr(
        index,
        "_compare",
        lambda q, *rest, **options: held.append(q.shape[0]) or compare(q, *rest, **options),
    )
    parts = graph(index, 8, exclude=exclude, allowed=allowed)(queries[:batch])
    assert 3 in held
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5)
    hidden = np.zeros((batch, 61), bool)
    hidden[np.arange(batch)[:, None], exclude] = True
    hidden = hidden[:, :60] | ~allowed.numpy()
    scores, items = best(vectors, queries[:batch], 8, hidden)
    np.testing.assert_array_equal(whole[1], items)
    np.testing.assert_allclose(whole[0], scores, rtol=1e-5)


def test_a_batch_that_is_known_to_be_small_costs_no_branch():
    vectors, queries = draw(num_items=60)
    index = ExactIndex(vectors)
    small = tf.function(lambda some: index.search(some, 3)).get_concrete_function(
        tf.TensorSpec([4, vectors.shape[1]])
    )
    assert not {"If", "StatelessIf", "While"} & {op.type for op in small.graph.get_operations()}


# Inverted lists.


@pytest.mark.parametrize("kind", KINDS)
def test_all_lists_find_what_an_exact_index_finds(reading, drawn, kind):
    vectors, queries = drawn
    got = graph(reading(kind, 10**6), 20)(queries)
    scores, items = best(vectors, queries, 20)
    if kind == "ivf":
        np.testing.assert_array_equal(got[1], items)
    assert recall(got[0], scores).mean() > 0.95
    # Whatever was found has its exact score, and stands in order.
    products = np.take_along_axis(queries @ vectors.T, got[1], axis=1)
    np.testing.assert_allclose(got[0], products, rtol=1e-4, atol=1e-4)
    assert (np.diff(got[0], axis=1) <= 0).all()
    assert got[0].dtype == np.float32 and got[1].dtype == np.int32


@pytest.mark.parametrize("kind", KINDS)
def test_more_lists_find_more(reading, drawn, kind):
    vectors, queries = drawn
    scores, _ = best(vectors, queries, 50)
    found = [recall(graph(reading(kind, n), 50)(queries)[0], scores).mean() for n in (1, 4, 16)]
    assert found == sorted(found) and found[0] < 0.8 < 0.9 < found[2]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_excluded_or_withdrawn_never_comes_up(built, drawn, kind):
    vectors, queries = drawn
    # The best ones of each row, hundreds of them, and padding between.
    _, top = best(vectors, queries, 300)
    exclude = np.full([len(queries), 700], -1, np.int32)
    exclude[:, 1:600:2] = top
    allowed = np.ones([1, len(vectors)], bool)
    allowed[0, ::3] = False
    inputs = {"exclude": tf.constant(exclude), "allowed": tf.constant(allowed)}
    scores, items = graph(built[kind], 30, **inputs)(queries)
    real = scores > LOWEST_SCORE
    assert real.mean() > 0.9
    hit = (items[:, :, None] == exclude[:, None, :]).any(axis=2) | ~allowed[0][items]
    assert not (real & hit).any()
    for row in range(len(queries)):
        assert len(set(items[row][real[row]])) == real[row].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_behind_the_last_one_stands_any_item_with_the_lowest_score(reading, drawn, kind):
    vectors, queries = drawn
    index = reading(kind, 1)
    for k in (1400, 5000):
        scores, items = graph(index, k)(queries)
        assert scores.shape == items.shape == (len(queries), min(k, 1500))
        real = scores > LOWEST_SCORE
        assert real.any(axis=1).all() and not real.all(axis=1).any()
        assert (scores[~real] == LOWEST_SCORE).all()
        for row in range(len(queries)):
            found = items[row][real[row]]
            assert len(set(found)) == len(found)
        assert items.min() >= 0 and items.max() < 1500
    nothing = tf.zeros([1, 1500], tf.bool)
    scores, items = graph(index, 9, allowed=nothing)(queries)
    assert (scores == LOWEST_SCORE).all() and items.min() >= 0
    everything = tf.tile(tf.range(1500)[None, :], [len(queries), 1])
    scores, _ = graph(index, 9, exclude=everything)(queries)
    assert (scores == LOWEST_SCORE).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_batch(built, drawn, kind):
    _, queries = drawn
    exclude = np.full([len(queries), 40], -1, np.int32)
    exclude[::2] = np.arange(40)
    whole = graph(built[kind], 25, exclude=tf.constant(exclude))(queries)
    for row in (0, 1, 7):
        alone = graph(built[kind], 25, exclude=tf.constant(exclude[row : row + 1]))(
            queries[row : row + 1]
        )
        np.testing.assert_array_equal(alone[0][0], whole[0][row])
        np.testing.assert_array_equal(alone[1][0], whole[1][row])


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_and_one_item(built, drawn, kind):
    _, queries = drawn
    scores, items = graph(built[kind], 7)(queries[:0])
    assert scores.shape == items.shape == (0, 7)
    scores, items = graph(IvfIndex(np.ones([1, 18]), queries, kind=kind), 7)(queries[:2])
    assert items.tolist() == [[0], [0]]
    np.testing.assert_allclose(scores[:, 0], queries[:2].sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_of_equal_scores_the_lower_number_comes_first(kind, value):
    """Items of which nothing is known are all alike; they fill a list that is cut up."""
    vectors, queries = draw(num_items=900)
    vectors[100:] = value
    index = IvfIndex(vectors, queries, kind=kind, num_lists=20, num_probes=3)
    assert index.widest <= clustering.WIDEST * 900 / 20
    index.num_probes.assign(index.num_lists)
    query = np.full([1, 18], 5.0, np.float32)
    scores, items = graph(index, 900)(query)
    for score in np.unique(scores):
        same = items[scores == score]
        assert (np.diff(same) > 0).all()
    alike = items[0][items[0] >= 100]
    assert alike.tolist() == list(range(100, 900))


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_equal_items_rounding_chooses_none(kind):
    """More of them than are asked for: which ones come is no matter of the machine."""
    vectors, queries = draw(num_items=300)
    vectors[100:200] = 3 * vectors[100]
    asked = np.concatenate([vectors[100:101], queries[:3]])
    index = IvfIndex(vectors, queries, kind=kind, num_lists=6, num_probes=6)
    _, items = graph(index, 7)(asked)
    assert items[0].tolist() == list(range(100, 107))
    rng = np.random.default_rng(0)
    for variable in [*index.codes.variables, index.means]:
        if variable.dtype.is_floating:
            noise = 1 + 1e-7 * rng.normal(size=variable.shape)
            variable.assign(variable * noise.astype(np.float32))
    _, other = graph(index, 7)(asked)
    np.testing.assert_array_equal(items, other)


def test_of_equal_lists_rounding_chooses_none():
    vectors, queries = np.ones([400, 4], np.float32), np.ones([3, 4], np.float32)
    index = IvfIndex(vectors, queries, num_lists=16, num_probes=2)
    index.means.assign(index.means * (1 + 1e-7 * np.arange(index.num_lists)[:, None]))
    _, items = graph(index, 5)(queries)
    assert items.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_with_few_probes_equal_items_still_come_in_order():
    vectors, queries = np.ones([400, 4], np.float32), np.ones([3, 4], np.float32)
    index = IvfIndex(vectors, queries, num_lists=16, num_probes=2)
    exclude = tf.constant([[0, 2, -1]] * 3)
    _, items = graph(index, 5, exclude=exclude)(queries)
    assert items.tolist() == [[1, 3, 4, 5, 6]] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_with_the_model_in_core_operations(built, drawn, kind, tmp_path):
    _, queries = drawn
    module = tf.Module()
    module.index = built[kind]
    inputs = [
        tf.TensorSpec([None, 18], tf.float32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([1, 1500], tf.bool),
    ]
    module.search = tf.function(
        lambda q, e, a: module.index.search(q, 9, exclude=e, allowed=a), input_signature=inputs
    )
    asked = queries, tf.tile([[3, -1]], [len(queries), 1]), tf.ones([1, 1500], tf.bool)
    want = module.search(*asked)
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    got = loaded.search(*asked)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[0], want[0])
    saved = (tmp_path / "saved" / "saved_model.pb").read_bytes()
    assert b"PyFunc" not in saved and b"Scann" not in saved


def test_codes_are_smaller(built):
    size = {
        kind: sum(v.dtype.size * v.shape.num_elements() for v in index.codes.variables)
        for kind, index in built.items()
    }
    vectors = 4 * built["ivf"].vectors.shape.num_elements()
    assert size["ivf_pq"] < size["ivf_int8"] < 0.5 * vectors


def test_lists_of_vectors_hold_no_vector_again(built):
    index = built["ivf"]
    distinct = {id(v): v.dtype.size * v.shape.num_elements() for v in index.variables}
    held = sum(distinct.values())
    assert held < 1.5 * 4 * index.vectors.shape.num_elements()


def test_every_item_lies_in_one_slot(built):
    for index in built.values():
        items = index.items.numpy().ravel()
        assert sorted(items[items >= 0]) == list(range(1500))
        bounds = index.bounds.numpy()
        assert bounds[0, 0] == 0 and bounds[-1, 1] == len(index.items.numpy())
        assert (bounds[1:, 0] == bounds[:-1, 1]).all() and (bounds[:, 1] > bounds[:, 0]).all()


def test_a_column_that_no_query_reads_does_not_count(monkeypatch):
    """It is the largest of all, so that without the metric lists would be made by it."""
    vectors, queries = draw()
    scores, _ = best(vectors, queries, 20)

    def found():
        index = IvfIndex(vectors, queries, num_lists=40, num_probes=6)
        return recall(graph(index, 20)(queries)[0], scores).mean()

    with_metric = found()
    monkeypatch.setattr(ivf, "query_metric", lambda q: np.eye(q.shape[1], dtype=np.float32))
    assert found() < 0.6 < 0.9 < with_metric


def test_a_list_counts_by_its_mean_and_by_how_much_its_products_differ(drawn):
    vectors, queries = drawn
    index = IvfIndex(vectors, queries, num_lists=40, num_probes=1)
    length = np.sqrt((queries**2).sum(axis=1).mean())
    for number, (begin, end) in enumerate(index.bounds.numpy()):
        items = index.items.numpy()[begin:end]
        inside = vectors[items[items >= 0]]
        np.testing.assert_allclose(index.means[number], inside.mean(axis=0), rtol=1e-4, atol=1e-6)
        error = (inside - inside.mean(axis=0)) @ queries.T
        wanted = ivf.SPREAD * np.sqrt((error**2).mean()) / length
        # Columns that no query reads count a little all the same.
        np.testing.assert_allclose(index.spread[number], wanted, rtol=0.02, atol=0.005)
    narrow = graph(index, 5)(queries)[1]
    index.spread.assign(tf.one_hot(7, index.num_lists, on_value=1e3))
    wide = graph(index, 5)(queries)[1]
    begin, end = index.bounds.numpy()[7]
    assert np.isin(wide, index.items.numpy()[begin:end]).all()
    assert not np.isin(narrow, wide).all()


def test_the_metric_is_the_root_of_the_second_moment():
    queries = np.random.default_rng(0).normal(size=(500, 3)) * [3.0, 1.0, 2.0]
    metric = query_metric(queries.astype(np.float32)).astype(np.float64)
    moment = queries.T @ queries / 500
    np.testing.assert_allclose(metric @ metric, moment, rtol=1e-4)
    # Where nothing was asked, all columns count alike.
    np.testing.assert_allclose(query_metric(np.zeros([2, 3], np.float32)), 1e-3 * np.eye(3))


def test_the_same_seed_makes_the_same_index(drawn):
    first, again, other = (
        IvfIndex(*drawn, kind="ivf_pq", num_lists=30, seed=seed) for seed in (0, 0, 1)
    )
    for one, two in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.means, other.means)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tree"}, "wanted ivf, ivf_int8, ivf_pq; got 'tree'"),
        ({"vectors": np.zeros([0, 18])}, "got 0 and 40"),
        ({"queries": np.zeros([0, 18])}, "got 1500 and 0"),
        ({"vectors": np.full([3, 18], np.nan)}, "wanted finite"),
    ],
)
def test_what_an_inverted_index_is_not_made_of(drawn, change, message):
    with pytest.raises(ConfigError, match=message):
        IvfIndex(**{"vectors": drawn[0], "queries": drawn[1], **change})


def test_who_is_allowed_what_is_not_for_inverted_lists(built, drawn):
    with pytest.raises(ValueError, match="one row for all queries"):
        built["ivf"].search(drawn[1][:2], 3, allowed=tf.ones([2, 1500], tf.bool))


# Building.


def test_recall_counts_by_score():
    best_scores = np.array(
        [[5.0, 4.0, 4.0], [5.0, 4.0, LOWEST_SCORE], [LOWEST_SCORE] * 3, [9.0, 8.0, 7.0]], np.float32
    )
    found = np.array(
        [
            [4.0, 4.0, 4.0],
            [5.0, 3.9, LOWEST_SCORE],
            [LOWEST_SCORE] * 3,
            [9.0, 7.0 - 1e-6, LOWEST_SCORE],
        ],
        np.float32,
    )
    np.testing.assert_allclose(recall(found, best_scores), [1.0, 0.5, 1.0, 2 / 3])


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_as_few_lists_as_the_recall_takes(kind):
    vectors, queries = draw(num_queries=200)
    index, facts = build_index(vectors, queries, kind=kind, k=20, min_recall=0.9)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kind"] == kind == index.kind and (facts["items"], facts["dim"]) == (1500, 18)
    assert 1 < facts["probes"] == int(index.num_probes) < facts["lists"] / 2
    assert facts["bytes_an_item"]["vectors"] == 72 and facts["queries"] == 200
    scores, _ = best(vectors, queries, 20)
    found = graph(index, 20)(queries[1::2])[0]
    assert facts["recall"] == round(float(recall(found, scores[1::2]).mean()), 4) >= 0.9
    index.num_probes.assign(facts["probes"] - 1)
    values = recall(graph(index, 20)(queries[::2])[0], scores[::2])
    assert values.mean() - 2 * values.std(ddof=1) / 10 < 0.9


def test_the_kind_follows_from_the_number_of_items(monkeypatch, drawn):
    index, facts = build_index(*drawn, k=5)
    assert type(index) is ExactIndex
    assert facts == {
        "kind": "exact",
        "items": 1500,
        "dim": 18,
        "k": 5,
        "bytes_an_item": {"vectors": 72.0, "lists": 0.0},
    }
    monkeypatch.setattr(building, "FEW", 1500)
    index, facts = build_index(*drawn, k=5)
    assert type(index) is IvfIndex and facts["kind"] == "ivf"
    index, _ = build_index(drawn[0], drawn[1][:0], kind="exact", k=5)
    assert type(index) is ExactIndex


def test_recall_is_that_among_what_is_available(drawn):
    vectors, queries = drawn
    available = np.zeros([1500], bool)
    available[:30] = True
    _, facts = build_index(vectors, queries, kind="ivf", k=10, available=available)
    # Of few items the best ten lie in many lists.
    _, whole = build_index(vectors, queries, kind="ivf", k=10)
    assert facts["recall"] >= 0.95 and facts["probes"] > 2 * whole["probes"]
    _, none = build_index(vectors, queries, kind="ivf", k=10, available=~np.ones([1500], bool))
    assert none["recall"] == 1 and none["probes"] == 1


def test_an_index_that_finds_too_little_is_not_returned(monkeypatch):
    # Noise, of which a code of a few bytes keeps little.
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 32)).astype(np.float32)
    monkeypatch.setitem(ivf.RESCORED, "ivf_pq", 1)
    with pytest.raises(ExportError, match=r"wanted a recall@50 of at least 0.99; got 0\.\d+ from"):
        build_index(vectors, vectors[:40], kind="ivf_pq", k=50, min_recall=0.99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hnsw"}, "wanted one of auto, exact, ivf, ivf_int8, ivf_pq; got 'hnsw'"),
        ({"kind": "ivf", "queries": np.zeros([1, 18])}, "wanted sample queries"),
        ({"min_recall": 0.0}, "a recall above 0, up to 1; got 5, 0.0"),
        ({"min_recall": 1.5}, "a recall above 0, up to 1; got 5, 1.5"),
        ({"k": 0}, "a k of at least 1"),
    ],
)
def test_what_cannot_be_built(drawn, change, message):
    inputs = {"vectors": drawn[0], "queries": drawn[1], "k": 5, **change}
    with pytest.raises(ConfigError, match=message):
        build_index(**inputs)


# ScaNN.


def test_scann_is_an_extra(monkeypatch, drawn):
    from tensorflow_recommenders.layers import factorized_top_k

    monkeypatch.setattr(factorized_top_k, "_HAVE_SCANN", False)
    with pytest.raises(ConfigError, match=r'pip install "mmrec_tf\[scann\]"'):
        ScannIndex(*drawn)


def test_scann_finds_what_an_exact_index_finds(drawn):
    pytest.importorskip("scann")
    vectors, queries = drawn
    index = ScannIndex(vectors, queries, num_lists=20, num_probes=20)
    scores, items = graph(index, 20)(queries)
    assert recall(scores, best(vectors, queries, 20)[0]).mean() > 0.95
    allowed = np.arange(1500)[None, :] % 3 > 0
    exclude = items[:, :5]
    inputs = {"exclude": tf.constant(exclude), "allowed": tf.constant(allowed)}
    scores, items = graph(index, 1000, **inputs)(queries)
    real = scores > LOWEST_SCORE
    hit = (items[:, :, None] == exclude[:, None, :]).any(axis=2) | ~allowed[0][items]
    assert (real.sum(axis=1) > 900).all() and not (real & hit).any()
    assert graph(index, 4)(queries[:0])[0].shape == (0, 4)
    with pytest.raises(ConfigError, match="at least 16 items"):
        ScannIndex(vectors[:15], queries)


# Items with the same vector


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_items_with_the_same_vector_come_in_the_order_of_their_numbers(kind):
    """Whatever the batch, and though an encoder gave each of them another last bit."""
    vectors, queries = draw(num_items=900)
    rng = np.random.default_rng(1)
    same = vectors[rng.integers(60, size=len(vectors))]
    vectors = (same * (1 + 1e-7 * rng.normal(size=same.shape))).astype(np.float32)
    index = ExactIndex(vectors) if kind == "exact" else IvfIndex(vectors, queries, kind=kind)
    assert index.first is not None
    if kind != "exact":
        index.num_probes.assign(index.num_lists)
    search = tf.function(lambda some: index.search(some, 20))
    whole = [part.numpy() for part in search(tf.constant(queries))]
    for size in (1, 3, 7):
        scores, items = (part.numpy() for part in search(tf.constant(queries[:size])))
        np.testing.assert_array_equal(items, whole[1][:size])
        for score, item in zip(scores, items, strict=True):
            assert (np.diff(score) <= 0).all()
            # None of the same is passed over for one of a higher number.
            for vector in {same[n].tobytes() for n in item}:
                everyone = [n for n in range(len(same)) if same[n].tobytes() == vector]
                met = [n for n in item if same[n].tobytes() == vector]
                assert met == everyone[: len(met)]


def test_vectors_that_differ_cost_nothing():
    vectors, _ = draw(num_items=200)
    assert ExactIndex(vectors).first is None and first_alike(vectors) is None
    assert first_alike(vectors[[0, 1, 0, 2, 1]]).tolist() == [0, 1, 0, 3, 1]
    assert first_alike(np.zeros([3, 2], np.float32)).tolist() == [0, 0, 0]
    assert first_alike(np.zeros([0, 2], np.float32)) is None
    assert first_alike(np.float32([[np.nan], [np.nan]])) is None


def test_of_several_queries_of_one_user_the_best_counts(drawn, monkeypatch):
    vectors, queries = drawn
    several = queries[:24].reshape([8, 3, -1])
    asked = tf.constant(several)
    index, exclude = ExactIndex(vectors), tf.constant([[0, 5, -1]] * 8)
    want = (several @ vectors.T).max(axis=1)
    want[:, [0, 5]] = LOWEST_SCORE
    best = np.argsort(-want, axis=1, kind="stable")[:, :10]
    for room in (exact.MAX_SCORES, 7 * len(vectors)):
        # In one piece, and in blocks of two users.
        monkeypatch.setattr(exact, "MAX_SCORES", room)
        search = tf.function(lambda some: index.exact_search(some, 10, exclude=exclude))
        spec = tf.TensorSpec([None, *several.shape[1:]], tf.float32)
        score, item = search.get_concrete_function(spec)(asked)
        np.testing.assert_array_equal(item, best)
        np.testing.assert_allclose(score, np.take_along_axis(want, best, axis=1), rtol=1e-5)
    # The same of some items alone.
    rows = tf.constant(vectors[np.arange(40).reshape(8, 5)])
    products = np.einsum("bid,bcd->bci", several, rows)
    np.testing.assert_allclose(score_rows(asked, rows), products.max(axis=2), rtol=1e-5)
    np.testing.assert_array_equal(nearest_interest(asked, rows), products.argmax(axis=2))
    taken = np.take_along_axis(several, products.argmax(axis=2)[:, :, None], axis=1)
    np.testing.assert_array_equal(one_an_item(asked, rows), taken)
