"""The catalog's graph against dense algebra, and what smoothing means for a model."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import COLD, NUM_ITEMS, NUM_USERS, item_id, user_id
from support.small_world import build_retrieval as build

from mmrec_tf import Recommender, load_run
from mmrec_tf.exporting.servables import RecommenderServable
from mmrec_tf.retrieval import item_graph as graph
from mmrec_tf.retrieval.item_graph import (
    CatalogGraph,
    content_graph,
    interaction_graph,
    spectral_embedding,
)
from mmrec_tf.runs.train import train_run

EMPTY = np.zeros([0], np.int64)
GRAPH = {"graph__layers": 2, "graph__content_layers": 1, "graph__content_neighbors": 3}
FULL = {"retrieval__softmax": "full"}


def draw_interactions(seed=0, *, num_users=9, num_items=12, count=40):
    """Users and items, some pairs of them twice."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_users, count), rng.integers(0, num_items, count)


def dense_interactions(user, item, num_users, num_items):
    """Equation 3 of LightGCN, written out."""
    met = np.zeros([num_users, num_items])
    met[user, item] = 1
    of_user, of_item = met.sum(axis=1), met.sum(axis=0)
    links = np.zeros_like(met)
    for u, i in np.argwhere(met):
        links[u, i] = 1 / np.sqrt(of_user[u] * of_item[i])
    return links


def dense_content(encoded, present, num_neighbors):
    """Each pair of items on its own, in float64."""
    num_items = len(present)
    centered = [np.asarray(x, np.float64) - x[present[:, m]].mean(0) for m, x in enumerate(encoded)]
    links = np.zeros([num_items, num_items])
    for i in range(num_items):
        alike = []
        for j in range(num_items):
            both = np.flatnonzero(present[i] & present[j])
            cosines = []
            for m in both:
                a, b = centered[m][i], centered[m][j]
                length = np.linalg.norm(a) * np.linalg.norm(b)
                cosines.append(a @ b / length if length else 0.0)
            if j != i and cosines and np.mean(cosines) > 0:
                alike.append((-np.mean(cosines), j))
        nearest = [j for _, j in sorted(alike)[:num_neighbors]]
        links[i, nearest] = 1 / max(len(nearest), 1)
    return links


def dense_smoothing(embedding, *, links=None, layers=0, content=None, content_layers=0):
    """Sum over l of C^l E, then the mean over l of (R^T R)^l of that."""
    total = embedding.astype(np.float64)
    if content_layers:
        powers = [np.linalg.matrix_power(content, n) for n in range(content_layers + 1)]
        total = sum(powers) @ total
    if layers:
        powers = [np.linalg.matrix_power(links.T @ links, n) for n in range(layers + 1)]
        total = sum(powers) / (layers + 1) @ total
    return total


def normalized(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Interactions


def test_a_link_is_divided_by_the_roots_of_both_degrees():
    user, item = draw_interactions()
    got = interaction_graph(user, item, num_users=9, num_items=12)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.toarray(), dense_interactions(user, item, 9, 12), rtol=1e-6)


def test_a_graph_by_hand():
    """User 0 met items 0 and 1, user 1 item 1, twice; nobody met item 2."""
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    got = interaction_graph(user, item, num_users=2, num_items=3).toarray()
    half = 0.5**0.5
    np.testing.assert_allclose(got, [[half, 0.5, 0], [0, half, 0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_a_graph_without_a_link(shape):
    num_users, num_items = shape
    got = interaction_graph(EMPTY, EMPTY, num_users=num_users, num_items=num_items)
    assert got.shape == shape and got.nnz == 0
    np.testing.assert_array_equal(spectral_embedding(got, 2), np.zeros([num_items, 2]))


# Content


def draw_content(seed=0, num_items=20):
    """Three modalities; each lacks some items, and items 3 and 4 lack all."""
    rng = np.random.default_rng(seed)
    present = rng.random([num_items, 3]) < 0.7
    present[3:5] = False
    encoded = [rng.normal(size=[num_items, width]).astype(np.float32) + 2 for width in (5, 3, 8)]
    return encoded, present


@pytest.mark.parametrize("num_neighbors", [1, 4, 100])
def test_neighbors_are_those_of_alike_content(num_neighbors):
    encoded, present = draw_content()
    got = content_graph(encoded, present, num_neighbors=num_neighbors)
    assert got.dtype == np.float32
    want = dense_content(encoded, present, num_neighbors)
    np.testing.assert_allclose(got.toarray(), want, rtol=1e-6)
    assert (want[3:5] == 0).all() and (want[:, 3:5] == 0).all()
    np.testing.assert_allclose(want.sum(axis=1)[:3], 1)


def test_what_stands_where_a_modality_is_absent_is_of_no_matter():
    encoded, present = draw_content()
    before = content_graph(encoded, present, num_neighbors=4).toarray()
    for m, values in enumerate(encoded):
        values[~present[:, m]] = np.nan
    after = content_graph(encoded, present, num_neighbors=4).toarray()
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("cells", [1, 20, 70, 139])
def test_blocks_of_any_size_find_the_same(monkeypatch, cells):
    encoded, present = draw_content()
    want = content_graph(encoded, present, num_neighbors=4).toarray()
    monkeypatch.setattr(graph, "MAX_CELLS", cells)
    got = content_graph(encoded, present, num_neighbors=4).toarray()
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_links_may_weigh_what_the_cosine_is():
    values = np.random.default_rng(0).normal(size=[8, 3]).astype(np.float32)
    everywhere = np.ones([8, 1], bool)
    plain = content_graph([values], everywhere, num_neighbors=2).toarray()
    alike = content_graph([values], everywhere, num_neighbors=2, cosines=True).toarray()
    centered = values - values.mean(axis=0)
    units = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    np.testing.assert_allclose(alike, np.where(plain > 0, units @ units.T, 0), atol=1e-6)


def test_of_equal_ones_the_lower_number_comes_first():
    values = np.array([[1, 0]] * 3 + [[-1, 0]] * 3, np.float32)
    got = content_graph([values], np.ones([6, 1], bool), num_neighbors=1).toarray()
    assert got.argmax(axis=1).tolist() == [1, 0, 0, 4, 3, 3]
    both = content_graph([values], np.ones([6, 1], bool), num_neighbors=5).toarray()
    # Those on the other side are no neighbors, however few there are.
    np.testing.assert_array_equal(both, np.kron(np.eye(2), (1 - np.eye(3)) / 2))


def test_content_that_is_the_same_everywhere_makes_no_neighbors():
    values = np.ones([5, 3], np.float32)
    assert content_graph([values], np.ones([5, 1], bool), num_neighbors=2).nnz == 0


@pytest.mark.parametrize("num_items", [0, 1])
def test_content_of_hardly_any_items(num_items):
    encoded, present = [np.ones([num_items, 3], np.float32)], np.ones([num_items, 1], bool)
    got = content_graph(encoded, present, num_neighbors=2)
    assert got.shape == (num_items, num_items) and got.nnz == 0


def test_content_of_no_modality_at_all():
    got = content_graph([], np.zeros([4, 0], bool), num_neighbors=2)
    assert got.shape == (4, 4) and got.nnz == 0


# Where items stand


@pytest.mark.parametrize("shape", [(9, 12), (30, 12)])
def test_the_spectral_embedding_is_that_of_the_decomposition(shape):
    num_users, num_items = shape
    # Nobody met the last item.
    user, item = draw_interactions(num_users=num_users, num_items=num_items - 1, count=50)
    found = interaction_graph(user, item, num_users=num_users, num_items=num_items)
    got = spectral_embedding(found, 5)
    _, values, vectors = np.linalg.svd(found.toarray().astype(np.float64))
    vectors = vectors[:5]
    strongest = np.abs(vectors).argmax(axis=1)
    vectors *= np.sign(vectors[range(5), strongest])[:, None]
    want = (vectors * np.sqrt(values[:5, None])).T
    # Equal singular values would leave a direction to chance.
    assert np.diff(values[:6]).max() < -1e-3
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (got[-1] == 0).all() and (np.linalg.norm(got[item], axis=1) > 0).all()
    np.testing.assert_array_equal(spectral_embedding(found, 5), got)


def test_more_directions_than_the_graph_has_are_zeros():
    """Two groups of users, each with items of its own: two directions."""
    user, item = np.repeat(np.arange(6), 2), np.array([0, 1] * 3 + [2, 3] * 3)
    found = interaction_graph(user, item, num_users=6, num_items=5)
    got = spectral_embedding(found, 8)
    assert got.shape == (5, 8)
    np.testing.assert_allclose(got[:, 2:], 0, atol=1e-6)
    # Both values are 1, so only what the two directions span is certain.
    want = np.zeros([5, 5])
    want[:2, :2] = want[2:4, 2:4] = 0.5
    np.testing.assert_allclose(got @ got.T, want, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_hardly_any_items_or_users_stay_finite(shape):
    links = np.zeros([2], np.int64), np.array([0, shape[1] - 1])
    found = interaction_graph(*links, num_users=shape[0], num_items=shape[1])
    got = spectral_embedding(found, 3)
    assert got.shape == (shape[1], 3) and np.isfinite(got).all()


# Smoothing


def smoother(*, layers=0, content_layers=0, edge_dropout=0.0):
    """A graph of 12 items, of which nobody met the last one, and its two parts, dense."""
    user, item = draw_interactions(num_items=11)
    encoded, present = draw_content(num_items=12)
    links = interaction_graph(user, item, num_users=9, num_items=12)
    content = content_graph(encoded, present, num_neighbors=3)
    made = CatalogGraph(
        interactions=links,
        layers=layers,
        content=content,
        content_layers=content_layers,
        edge_dropout=edge_dropout,
    )
    return made, links.toarray(), content.toarray()


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("content_layers", [0, 1, 2])
def test_smoothing_is_what_it_says(layers, content_layers):
    made, links, content = smoother(layers=layers, content_layers=content_layers)
    embedding = np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32)
    settings = {"layers": layers, "content_layers": content_layers}
    want = dense_smoothing(embedding, links=links, content=content, **settings)
    np.testing.assert_allclose(made.smooth(tf.constant(embedding)), want, atol=1e-5)
    in_graph = tf.function(made.smooth)(tf.constant(embedding), training=True)
    np.testing.assert_allclose(in_graph, want, atol=1e-5)


def test_the_gradient_goes_back_the_same_way():
    made, links, content = smoother(layers=2, content_layers=1)
    settings = {"layers": 2, "content_layers": 1}
    whole = dense_smoothing(np.eye(12), links=links, content=content, **settings)
    rng = np.random.default_rng(0)
    embedding, weights = (tf.constant(rng.normal(size=[12, 6]), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(embedding)
        total = tf.reduce_sum(weights * made.smooth(embedding))
    got = tape.gradient(total, embedding)
    np.testing.assert_allclose(got, whole.T @ weights.numpy(), atol=1e-5)


def test_by_hand_what_one_user_has_in_common():
    """User 0 met items 0 and 1, nobody met item 2."""
    links = interaction_graph(np.array([0, 0]), np.array([0, 1]), num_users=1, num_items=3)
    made = CatalogGraph(interactions=links, layers=1)
    got = made.smooth(tf.constant([[4.0], [0.0], [6.0]]))
    # (E + R^T R E) / 2, with 1/2 everywhere in R^T R for the first two.
    np.testing.assert_allclose(got, [[3], [1], [3]], atol=1e-6)


def test_an_item_without_links_keeps_its_direction():
    made, _, content = smoother(layers=2)
    embedding = np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32)
    got = made.smooth(tf.constant(embedding)).numpy()
    np.testing.assert_allclose(got[11], embedding[11] / 3, rtol=1e-5)
    made, _, content = smoother(content_layers=2)
    got = made.smooth(tf.constant(embedding)).numpy()
    assert (content[3:5] == 0).all()
    np.testing.assert_allclose(got[3:5], embedding[3:5], rtol=1e-5)


def test_a_graph_without_a_link_leaves_directions_as_they_are():
    links = interaction_graph(EMPTY, EMPTY, num_users=3, num_items=2)
    content = content_graph([], np.zeros([2, 0], bool), num_neighbors=2)
    made = CatalogGraph(interactions=links, layers=1, content=content, content_layers=1)
    embedding = tf.constant([[1.0, 2.0], [3.0, -4.0]])
    np.testing.assert_allclose(made.smooth(embedding), embedding / 2)
    one = interaction_graph(np.array([0]), np.array([0]), num_users=1, num_items=1)
    alone = CatalogGraph(interactions=one, layers=2)
    np.testing.assert_allclose(alone.smooth(tf.constant([[5.0]])), [[5.0]])


def test_links_are_dropped_in_training_only():
    made, links, _ = smoother(layers=1, edge_dropout=0.4)
    every = tf.eye(12)
    want = dense_smoothing(np.eye(12), links=links, layers=1)
    np.testing.assert_allclose(made.smooth(every), want, atol=1e-6)
    drawn = np.stack([made.smooth(every, training=True).numpy() for _ in range(1500)])
    assert np.abs(drawn[0] - want).max() > 1e-2 and np.abs(drawn[0] - drawn[1]).max() > 1e-2
    deviation = drawn.std(axis=0) / np.sqrt(len(drawn)) + 1e-6
    # Also from an item to itself, to and fro over one link.
    assert (np.abs(drawn.mean(axis=0) - want) < 5 * deviation).all()


# In a model


def parts(dataset, model):
    """Dense links and content of the small world, from nothing of the model but its vectors."""
    train = dataset.interactions("train")
    links = dense_interactions(train.user, train.item, NUM_USERS, NUM_ITEMS)
    column = list(dataset.schema.modalities).index("vector")
    present = dataset.catalog.present[:, [column]]
    content = dense_content([model.encode_catalog("vector")], present, 3)
    return {"links": links, "content": content}


@pytest.mark.parametrize("layers, content_layers", [(2, 1), (1, 0), (0, 2)])
def test_the_catalog_is_smoothed_and_scaled(dataset, layers, content_layers):
    settings = {"layers": layers, "content_layers": content_layers}
    counts = {f"graph__{name}": value for name, value in settings.items()}
    if content_layers:
        counts["graph__content_neighbors"] = GRAPH["graph__content_neighbors"]
    model = build(dataset, **FULL, **counts)
    plain = model.embed_items(tf.range(NUM_ITEMS))
    want = normalized(dense_smoothing(plain.embedding.numpy(), **parts(dataset, model), **settings))
    got = model.embed_catalog()
    np.testing.assert_allclose(got.embedding, want, atol=1e-5)
    assert np.abs(got.embedding - plain.embedding).max() > 0.1
    for one, other in zip(got[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_item_that_is_placed_by_its_content_is_not_smoothed(dataset):
    model, plain = build(dataset, **FULL, **GRAPH), build(dataset, **FULL)
    got, want = (m.embed_catalog(content_only=True).embedding for m in (model, plain))
    np.testing.assert_array_equal(got, want)
    assert np.abs(model.embed_catalog().embedding - plain.embed_catalog().embedding).max() > 0.1


def test_a_cold_item_takes_in_the_ids_of_its_neighbors(dataset):
    model = build(dataset, **{**FULL, **GRAPH, "graph__layers": 0})
    content = parts(dataset, model)["content"]
    cold = COLD[0]
    neighbor = int(content[cold].argmax())
    assert content[cold, neighbor] > 0 and neighbor not in COLD
    table = model.item_tower.id_embedding.table
    before = model.embed_catalog().embedding
    table.scatter_nd_add([[neighbor]], tf.ones([1, model.config.dim]))
    moved = np.abs(model.embed_catalog().embedding - before).max(axis=1) > 1e-6
    linked = content[:, neighbor] > 0
    linked[neighbor] = True
    np.testing.assert_array_equal(moved, linked)


def test_over_users_alone_a_cold_item_stays_where_it_is(dataset):
    settings = {"graph__layers": GRAPH["graph__layers"]}
    got, want = (build(dataset, **FULL, **s).embed_catalog().embedding for s in (settings, {}))
    np.testing.assert_allclose(got[list(COLD)], want[list(COLD)], atol=1e-6)
    assert (np.abs(got - want).max(axis=1) > 1e-3).sum() >= NUM_ITEMS - len(COLD) - 1


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_reads_smoothed_items_on_both_sides(dataset, mixed):
    model = build(
        dataset, **FULL, **GRAPH, retrieval__mask_history=False, training__mixed_precision=mixed
    )
    item, user = np.array([1, 7, 3, 27]), np.arange(4)
    history = np.array([[7, 3, 20, -1], [-1] * 4, [12, 1, 1, 5], [28, -1, -1, -1]])
    embedding = model.embed_catalog().embedding
    users = model.embed_users(
        tf.constant(user), tf.constant(embedding[np.maximum(history, 0)]), tf.constant(history >= 0)
    )
    logits = users.numpy() @ embedding.T / 0.1 + 0.7 * model.tables["log_frequency"].numpy()
    want = np.log(np.exp(logits).sum(axis=1)) - logits[range(4), item]
    batch = {
        "user": tf.constant(user, tf.int32),
        "item": tf.constant(item, tf.int32),
        "history": tf.constant(history, tf.int32),
        "gap": tf.fill([4, 4], -1.0),
        "rating": tf.ones([4]),
        "weight": tf.ones([4]),
        "disliked": tf.zeros([4, 0], tf.int32),
    }
    tolerance = 3e-2 if mixed else 1e-4
    assert float(model.compute_loss(batch)) == pytest.approx(want.mean(), rel=tolerance)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    gradient = tape.gradient(loss, model.item_tower.id_embedding.table)
    assert np.isfinite(float(loss))
    # What the batch does not name is compared with, and teaches its neighbors.
    gradient = tf.convert_to_tensor(gradient).numpy()
    assert np.isfinite(gradient).all() and (np.abs(gradient).max(axis=1) > 0).sum() > len(item)


@pytest.mark.slow
def test_python_and_the_export_recommend_by_the_smoothed_catalog(dataset, tmp_path):
    model = build(dataset, **FULL, **GRAPH)
    recommender = Recommender(model, None, dataset, history="train")
    # Smoothed with NumPy, and the users' histories with it.
    plain = model.embed_items(tf.range(NUM_ITEMS)).embedding.numpy()
    settings = {"layers": 2, "content_layers": 1}
    smooth = normalized(dense_smoothing(plain, **parts(dataset, model), **settings))
    smooth = smooth.astype(np.float32)
    history = dataset.histories().last(np.arange(NUM_USERS), 4)
    users = model.embed_users(
        tf.range(NUM_USERS),
        tf.constant(smooth[np.maximum(history, 0)]),
        tf.constant(history >= 0),
    )
    score = users.numpy() @ smooth.T / 0.1 + 0.7 * model.tables["log_frequency"].numpy()
    score[dataset.histories().pairs(np.arange(NUM_USERS))] = -np.inf
    order = np.argsort(-score, axis=1)[:, :5]
    ids = [user_id(n) for n in range(NUM_USERS)]
    got = recommender.recommend(ids, k=5)
    items = np.array([item_id(n) for n in range(NUM_ITEMS)], object)
    small_world.assert_same(
        got, got._replace(item_id=items[order], score=np.take_along_axis(score, order, axis=1))
    )

    servable = RecommenderServable(recommender, k=5)
    tf.saved_model.save(servable, str(tmp_path), signatures=servable.signatures)
    lists = ("history", "exclude", "allow", "deny", "features")
    served = tf.saved_model.load(str(tmp_path)).signatures["recommend"](
        user_id=tf.constant(ids),
        time=tf.zeros([len(ids)], tf.int64),
        profile=tf.fill([len(ids)], ""),
        **{name: tf.fill([len(ids), 0], "") for name in lists},
    )
    np.testing.assert_array_equal(served["item_id"].numpy().astype(str), got.item_id)
    np.testing.assert_allclose(served["score"], got.score, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_that_is_read_back_smooths_as_before(dataset, tmp_path):
    settings = {**FULL, **GRAPH, "graph__edge_dropout": 0.2, "item__id_init": "spectral"}
    config = small_world.config(
        **small_world.VECTORS, **settings, training__epochs=1, ranking__epochs=0
    )
    made = train_run(dataset, config, tmp_path / "run").retrieval
    read = load_run(tmp_path / "run").retrieval
    for one, other in zip(made.embed_catalog(), read.embed_catalog(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
