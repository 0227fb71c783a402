"""The ranking model: it starts from retrieval's order, and learns from honest negatives."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import build_retrieval

from mmrec_tf import RankingModel, open_dataset
from mmrec_tf.config import ARCHITECTURES
from mmrec_tf.errors import ConfigError
from mmrec_tf.ranking import mining
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.training.optimizer import build_optimizer

ITEMS = tf.range(small_world.NUM_ITEMS)[None, :]


@pytest.fixture(scope="module")
def retrieval(dataset):
    """For reading only."""
    return build_retrieval(dataset)


def build(retrieval, dataset, **settings):
    config = small_world.config(**{**small_world.VECTORS, **settings})
    return RankingModel(config, dataset, retrieval=retrieval, initialize=False)


def moved(model):
    """All weights drawn anew, as if trained."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        if weight.shape.rank and weight is not model.factor:
            weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def request_of(retrieval, rows=8, *, time=0, history=None):
    user = tf.range(rows) % small_world.NUM_USERS
    history = tf.fill([rows, 4], -1) if history is None else history
    table = tf.constant(retrieval.embed_catalog().embedding)
    read = tf.gather(table, tf.maximum(history, 0))
    queries = retrieval.queries(retrieval.embed_users(user, read, history >= 0))
    return Request(
        queries, user, history, tf.fill([rows, 4], -1.0), tf.fill([rows], np.int64(time))
    )


def score(model, request, item, items=None, **settings):
    """The model's scores, given retrieval's."""
    items = items or model.items
    vector = tf.gather(model.items["vector"], item)
    retrieved = tf.einsum("bd,bcd->bc", request.queries, vector)
    return model.rank(request, item, items, retrieved, **settings).score.numpy()


def batch(dataset, size=64):
    return next(iter(dataset.batches("train", size, user=small_world.config().user)))


def test_untrained_it_gives_retrieval_s_scores(dataset, retrieval):
    for architecture in ARCHITECTURES:
        model = build(retrieval, dataset, ranking__architecture=architecture)
        request = request_of(retrieval)
        got = score(model, request, tf.repeat(ITEMS, 8, axis=0))
        want = tf.matmul(request.queries, model.items["vector"], transpose_b=True)
        np.testing.assert_allclose(got, want, atol=1e-5)
        assert np.ptp(got) > 1
        trained = score(moved(model), request, tf.repeat(ITEMS, 8, axis=0))
        assert np.abs(trained - want).max() > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_belong_to_the_pair_and_not_to_its_place(dataset, retrieval, architecture):
    settings = {"ranking__architecture": architecture}
    if architecture != "bilinear":
        settings |= {"ranking__target_attention": True, "ranking__context": ["hour", "weekday"]}
    model = moved(build(retrieval, dataset, **settings))
    history = tf.constant([[4, 5, -1, -1], [7, 8, 9, 10]])
    request = request_of(retrieval, 2, time=10**9, history=history)
    item = tf.constant([[3, 9, 27], [9, 0, 3]])
    got = score(model, request, item)
    for row in range(2):
        for place in range(3):
            one = Request(*(part[row : row + 1] for part in request[:5]))
            alone = score(model, one, item[row : row + 1, place : place + 1])
            np.testing.assert_allclose(alone, [[got[row, place]]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", ["vector", "modalities", "present", "weights", "price", "genre"])
def test_each_thing_known_of_an_item_counts(dataset, retrieval, part):
    model, request = moved(build(retrieval, dataset)), request_of(retrieval, 1)
    before = score(model, request, ITEMS)
    items = {**model.items, "features": dict(model.items["features"])}
    place = items["features"] if part in items["features"] else items
    value = tf.convert_to_tensor(place[part]).numpy()
    value[5] = ~value[5] if part == "present" else [1, 0] if part == "genre" else value[5] + 1
    place[part] = tf.constant(value)
    changed = np.abs(score(model, request, ITEMS, items) - before)[0] > 1e-4
    assert np.flatnonzero(changed).tolist() == [5]


def test_what_a_setting_leaves_out_does_not_count(dataset, retrieval):
    off = {"ranking__content": False, "ranking__features": False}
    model = moved(build(retrieval, dataset, **off))
    assert model.pairs.item_features is None and model.pairs.user_features is None
    request = request_of(retrieval, 1)
    items = {**model.items, "modalities": model.items["modalities"] + 1}
    np.testing.assert_array_equal(score(model, request, ITEMS), score(model, request, ITEMS, items))


def test_hour_and_weekday_count_and_no_time_is_none(dataset, retrieval):
    hour, day = 3600, 86400
    both = moved(build(retrieval, dataset, ranking__context=["hour", "weekday"]))
    by_hour = moved(build(retrieval, dataset, ranking__context=["hour"]))
    by_day = moved(build(retrieval, dataset, ranking__context=["weekday"]))

    def at(model, time):
        return score(model, request_of(retrieval, 1, time=time), ITEMS)

    for model, same, other in (
        (by_hour, 5 * day, 7 * hour),
        (by_day, 7 * day, 2 * day),
        (both, 7 * day, 3 * hour),
    ):
        start = 10 * day + 2 * hour
        np.testing.assert_array_equal(at(model, start), at(model, start + same))
        assert np.abs(at(model, start) - at(model, start + other)).max() > 1e-3
        assert np.abs(at(model, start) - at(model, 0)).max() > 1e-3
    # 1970 began on a Thursday.
    thursday = by_day.pairs.weekday(tf.constant([3]))
    by_day.pairs.weekday.table.assign(
        tf.where(tf.range(7)[:, None] == 3, by_day.pairs.weekday.table, 0.0)
    )
    assert np.abs(at(by_day, 3600) - at(by_day, 3600 + day)).max() > 1e-3
    np.testing.assert_array_equal(at(by_day, 3600 + day), at(by_day, 0))
    assert np.abs(thursday).max() > 0


def test_target_attention_reads_the_history(dataset, retrieval):
    model = moved(build(retrieval, dataset, ranking__target_attention=True))
    some = request_of(retrieval, 1, history=tf.constant([[4, 5, 6, -1]]))
    # The same user for retrieval, another history for attention.
    other = some._replace(history=tf.constant([[4, 5, 8, -1]]))
    ranked = model.rank(some, ITEMS, model.items, tf.zeros([1, small_world.NUM_ITEMS]))
    assert ranked.attention.shape == (1, small_world.NUM_ITEMS, 4)
    assert np.ptp(ranked.attention.numpy()[0, :, 0]) > 1e-3
    np.testing.assert_allclose(tf.reduce_sum(ranked.attention, axis=2), 1.0, rtol=1e-5)
    assert np.abs(score(model, some, ITEMS) - score(model, other, ITEMS)).max() > 1e-3


@pytest.mark.parametrize("share, places", [(1.0, range(4)), (0.5, range(2, 4)), (0.0, range(0))])
def test_the_share_of_negatives_that_retrieval_finds(dataset, retrieval, share, places):
    settings = {"ranking__candidate_share": share, "ranking__num_candidates": 6}
    model = build(retrieval, dataset, **settings)
    request = request_of(retrieval, 40)
    item = tf.range(40) % small_world.NUM_ITEMS
    drawn = [model.draw_negatives(request, item)[0].numpy() for _ in range(20)]
    score = tf.matmul(request.queries, model.items["vector"], transpose_b=True).numpy()
    score[np.arange(40), item] = -np.inf
    score[dataset.histories().pairs(np.arange(40))] = -np.inf
    top = np.argsort(-score, axis=1)[:, :6]
    found = np.stack([(n[:, :, None] == top[:, None, :]).any(axis=2) for n in drawn])
    assert found[:, :, list(places)].all()
    rest = [place for place in range(4) if place not in places]
    assert not rest or 0.1 < found[:, :, rest].mean() < 0.35
    assert len(np.unique(np.stack(drawn))) > 20


def test_of_a_large_catalog_a_part_is_searched(dataset, retrieval, monkeypatch):
    monkeypatch.setattr(mining, "SMALLEST_PART", 15)
    model = build(retrieval, dataset, ranking__candidate_share=1.0, ranking__num_candidates=8)
    request, item = request_of(retrieval, 40), tf.range(40) % small_world.NUM_ITEMS
    score = tf.matmul(request.queries, model.items["vector"], transpose_b=True).numpy()
    score[np.arange(40), item] = -np.inf
    met = dataset.histories().pairs(np.arange(40))
    score[met] = -np.inf
    rank = np.argsort(np.argsort(-score, axis=1), axis=1)
    drawn = [model.draw_negatives(request, item) for _ in range(20)]
    assert all(weight.numpy().all() for _, weight in drawn)
    ranks = np.concatenate([np.take_along_axis(rank, n.numpy(), axis=1) for n, _ in drawn])
    # Half of 23 that are left, and of each half the best four.
    assert (ranks < 8).mean() > 0.7 and (ranks >= 8).any()


def test_no_negative_with_weight_is_the_positive_or_met_in_train(dataset, retrieval):
    model = build(retrieval, dataset, ranking__num_negatives=20)
    item = tf.range(40) % small_world.NUM_ITEMS
    negative, weight = (
        part.numpy() for part in model.draw_negatives(request_of(retrieval, 40), item)
    )
    hit = negative == item.numpy()[:, None]
    for user in range(40):
        met = dataset.histories().pairs(np.array([user]))[1]
        hit[user] |= np.isin(negative[user], met)
    assert hit.any()
    np.testing.assert_array_equal(weight, ~hit)


def test_fewer_candidates_than_negatives(dataset, retrieval):
    model = build(
        retrieval,
        dataset,
        ranking__num_negatives=12,
        ranking__candidate_share=1.0,
        ranking__num_candidates=3,
    )
    negative, weight = model.draw_negatives(request_of(retrieval), tf.range(8))
    assert negative.shape == weight.shape == (8, 12)


def test_loss_by_hand(dataset, retrieval, monkeypatch):
    model, inputs = build(retrieval, dataset), batch(dataset, 3)
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


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mixed_precision": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_fit_trains_ranking_and_leaves_retrieval_alone(dataset, settings):
    settings = {f"training__{name}": value for name, value in settings.items()}
    retrieval = build_retrieval(dataset, **settings)
    model = build(retrieval, dataset, **settings)
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
    model = moved(build(retrieval, dataset))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch(dataset))
    names = [weight.name for weight in model.trainable_variables]
    assert "factor:0" in names
    gradients = tape.gradient(loss, model.trainable_variables)
    largest = [np.abs(tf.convert_to_tensor(gradient)).max() for gradient in gradients]
    assert not [name for name, value in zip(names, largest, strict=True) if value < 1e-6]


def test_a_retrieval_model_of_another_dataset_is_refused(retrieval, tmp_path):
    other = open_dataset(small_world.write(tmp_path / "other", seed=1))
    with pytest.raises(ConfigError, match="retrieval: wanted a model made from"):
        RankingModel(retrieval.config, other, retrieval=retrieval)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_of_several_interests_a_candidate_meets_the_one_it_is_scored_by(dataset, fine_tune):
    settings = {"user__history": "attention", "user__interests": 2, "user__history_length": 4}
    retrieval = build_retrieval(dataset, **settings)
    model = moved(build(retrieval, dataset, ranking__fine_tune=fine_tune, **settings))
    inputs = batch(dataset)
    request = model._request(inputs)
    item = tf.tile(tf.range(6)[None], [len(inputs["user"]), 1])
    vectors = tf.gather(model.items["vector"], item)
    each = np.einsum("bid,bcd->bci", request.queries, vectors)
    retrieved = model._retrieved(request, item)
    np.testing.assert_allclose(retrieved, each.max(axis=2), rtol=1e-4, atol=1e-4)
    fields = model.gather_pairs(request, item, model.items, retrieved)[0].numpy()
    if not fine_tune:
        nearest = each.argmax(axis=2)
        assert len(np.unique(nearest)) == 2
        queries = np.take_along_axis(request.queries.numpy(), nearest[:, :, None], axis=1)[..., :-1]
        want = queries / np.linalg.norm(queries, axis=2, keepdims=True)
        np.testing.assert_allclose(fields[:, :, 0], want, atol=1e-5)
    # A candidate is judged alike whatever stands beside it, and the tower learns where it trains.
    alone = model.rank(request, item[:, 2:3], model.items, retrieved[:, 2:3]).score
    whole = model.rank(request, item, model.items, retrieved).score
    np.testing.assert_allclose(whole[:, 2:3], alone, rtol=1e-4, atol=1e-4)
    if not fine_tune:
        return
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs)
    assert np.isfinite(float(loss))
    for gradient in tape.gradient(loss, model.user_tower.score.trainable_weights):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0
