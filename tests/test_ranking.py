"""The ranking model: it starts from retrieval's order, and learns from honest negatives."""

import numpy as np
import pytest
import small_world
import tensorflow as tf
from small_world import build_retrieval

from mmrec_tf import RankingModel
from mmrec_tf.errors import RunError
from mmrec_tf.training import build_optimizer

ITEMS = tf.range(small_world.NUM_ITEMS)[None, :]


@pytest.fixture(scope="module")
def retrieval(dataset):
    """For reading only."""
    return build_retrieval(dataset)


def build(retrieval, **settings):
    model = RankingModel(small_world.config(**{**small_world.VECTORS, **settings}), retrieval)
    model.adapt()
    model.build_weights()
    return model


def moved(model):
    """All weights drawn anew, as if trained."""
    rng = np.random.default_rng(1)
    for weight in model.network.weights + model.item_features.weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def queries_of(retrieval, rows=8):
    users = tf.range(rows) % small_world.NUM_USERS
    nothing = tf.zeros([rows, 4, 8]), tf.zeros([rows, 4], tf.bool)
    return retrieval.queries(retrieval.embed_users(users, *nothing))


def batch(dataset, size=64):
    return next(iter(dataset.batches("train", size, user=small_world.config().user)))


def test_untrained_it_gives_retrieval_s_scores(retrieval):
    model = build(retrieval)
    queries = queries_of(retrieval)
    score = model.score(queries, tf.repeat(ITEMS, 8, axis=0), model.items)
    want = tf.matmul(queries, model.items["vector"], transpose_b=True)
    np.testing.assert_allclose(score, want, atol=1e-5)
    assert np.ptp(score) > 1
    trained = moved(model).score(queries, tf.repeat(ITEMS, 8, axis=0), model.items)
    assert np.abs(trained - want).max() > 0.1


def test_scores_belong_to_the_pair_and_not_to_its_place(retrieval):
    model, queries = moved(build(retrieval)), queries_of(retrieval, 2)
    item = tf.constant([[3, 9, 27], [9, 0, 3]])
    score = model.score(queries, item, model.items).numpy()
    for row in range(2):
        for place in range(3):
            alone = model.score(
                queries[row : row + 1], item[row : row + 1, place : place + 1], model.items
            )
            np.testing.assert_allclose(alone, [[score[row, place]]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["vector", "modalities", "present", "weights", "price", "genre"])
def test_each_thing_known_of_an_item_counts(retrieval, part):
    model, queries = moved(build(retrieval)), queries_of(retrieval, 1)
    before = model.score(queries, ITEMS, model.items).numpy()
    items = {**model.items, "features": dict(model.items["features"])}
    place = items["features"] if part in items["features"] else items
    value = tf.convert_to_tensor(place[part]).numpy()
    value[5] = ~value[5] if part == "present" else [1, 0] if part == "genre" else value[5] + 1
    place[part] = tf.constant(value)
    changed = np.abs(model.score(queries, ITEMS, items) - before)[0] > 1e-4
    assert np.flatnonzero(changed).tolist() == [5]


@pytest.mark.parametrize("share, places", [(1.0, range(4)), (0.5, range(2, 4)), (0.0, range(0))])
def test_the_share_of_negatives_that_retrieval_finds(retrieval, share, places):
    model = build(retrieval, ranking__candidate_share=share, ranking__num_candidates=6)
    queries = queries_of(retrieval, 40)
    item = tf.range(40) % small_world.NUM_ITEMS
    history = tf.fill([40, 4], -1)
    drawn = [model.draw_negatives(queries, item, history)[0].numpy() for _ in range(20)]
    score = tf.matmul(queries, model.items["vector"], transpose_b=True).numpy()
    score[np.arange(40), item] = -np.inf
    top = np.argsort(-score, axis=1)[:, :6]
    found = np.stack([(n[:, :, None] == top[:, None, :]).any(axis=2) for n in drawn])
    assert found[:, :, list(places)].all()
    rest = [place for place in range(4) if place not in places]
    assert not rest or 0.1 < found[:, :, rest].mean() < 0.35
    assert len(np.unique(np.stack(drawn))) > 20


def test_no_negative_with_weight_is_the_positive_or_in_the_history(retrieval):
    model = build(retrieval, ranking__num_negatives=20)
    queries = queries_of(retrieval, 40)
    item = tf.range(40) % small_world.NUM_ITEMS
    history = tf.random.uniform([40, 10], -1, small_world.NUM_ITEMS, tf.int32)
    negative, weight = (part.numpy() for part in model.draw_negatives(queries, item, history))
    known = np.concatenate([item[:, None], history], axis=1)
    hit = (negative[:, :, None] == known[:, None, :]).any(axis=2)
    assert hit.any()
    np.testing.assert_array_equal(weight, ~hit)


def test_fewer_candidates_than_negatives(retrieval):
    model = build(
        retrieval,
        ranking__num_negatives=12,
        ranking__candidate_share=1.0,
        ranking__num_candidates=3,
    )
    item, history = tf.range(8), tf.fill([8, 4], -1)
    negative, weight = model.draw_negatives(queries_of(retrieval), item, history)
    assert negative.shape == weight.shape == (8, 12)


def test_loss_by_hand(dataset, retrieval, monkeypatch):
    model, inputs = build(retrieval), batch(dataset, 3)
    inputs["weight"] = tf.constant([1.0, 0.5, 0.0])
    negative = tf.constant([[3, 5], [7, 7], [1, 2]])
    known = tf.constant([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    monkeypatch.setattr(model, "draw_negatives", lambda *_: (negative, known))
    embedding = tf.constant(model.items["vector"][:, :8])
    history = inputs["history"]
    user = retrieval.embed_users(
        inputs["user"], tf.gather(embedding, tf.maximum(history, 0)), history >= 0
    )
    score = (retrieval.queries(user) @ tf.transpose(model.items["vector"])).numpy()
    item = inputs["item"].numpy()

    def loss(row, negatives):
        logits = score[row, [item[row], *negatives]]
        return np.log(np.exp(logits - logits[0]).sum())

    want = (loss(0, [3]) + 0.5 * loss(1, [7, 7])) / 3
    assert float(model.compute_loss(inputs)) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"mixed_precision": True}, {"jit_compile": True}])
def test_fit_trains_ranking_and_leaves_retrieval_alone(dataset, settings):
    settings = {f"training__{name}": value for name, value in settings.items()}
    retrieval = build_retrieval(dataset, **settings)
    model = build(retrieval, **settings)
    training = model.config.training
    model.compile(optimizer=build_optimizer(training), jit_compile=training.jit_compile)
    before = [weight.numpy() for weight in retrieval.weights]
    batches = dataset.batches("train", 78, user=model.config.user)
    history = model.fit(batches, epochs=6, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["positive_first"][-1] > history["positive_first"][0]
    for weight, old in zip(retrieval.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    ours = {id(weight) for weight in model.weights}
    assert not ours & {id(weight) for weight in retrieval.weights}


def test_gradient_reaches_every_weight(dataset, retrieval):
    model = moved(build(retrieval))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch(dataset))
    names = [weight.name for weight in model.trainable_variables]
    assert "factor:0" in names
    gradients = tape.gradient(loss, model.trainable_variables)
    largest = [np.abs(tf.convert_to_tensor(gradient)).max() for gradient in gradients]
    assert not [name for name, value in zip(names, largest, strict=True) if value < 1e-6]


def test_without_a_catalog_it_says_so(retrieval):
    model = RankingModel(small_world.config(**small_world.VECTORS), retrieval)
    with pytest.raises(RunError, match="call adapt"):
        model.build_weights()
