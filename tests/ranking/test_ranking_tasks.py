"""What the ranking model learns: clicks, ratings and events, alone and together."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import EVENTS, NUM_ITEMS, NUM_USERS, build_retrieval

from mmrec_tf import RankingModel
from mmrec_tf.config import RANKING_LOSSES, RankingConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.training.optimizer import build_optimizer

TASKS = ["click", "rating", "buy"]


@pytest.fixture(scope="module")
def retrieval(labeled):
    """For reading only."""
    return build_retrieval(labeled)


def build(retrieval, labeled, **settings):
    tf.keras.utils.set_random_seed(0)
    named = {f"ranking__{name}": value for name, value in settings.items()}
    model = RankingModel(
        small_world.config(**{**small_world.VECTORS, **named}), labeled, retrieval=retrieval
    )
    return model


def fit(model, labeled, *, epochs=20, rate=0.02):
    model.compile(optimizer=build_optimizer(model.config.training, learning_rate=rate))
    batches = model.batches(batch_size=64, seed=0)
    return model.fit(batches, epochs=epochs, verbose=0).history


def said(model, user, item):
    """The model's logits of pairs, by task."""
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    vector = tf.gather(model.items["vector"], item)
    nothing = tf.fill([len(user), 4], -1)
    embedded = model.retrieval.embed_users(
        tf.constant(user), tf.zeros([len(user), 4, 8]), nothing >= 0
    )
    from mmrec_tf.recommender.ranked import Request

    queries = model.retrieval.queries(embedded)
    request = Request(
        queries,
        tf.constant(user),
        nothing,
        tf.cast(nothing, tf.float32),
        tf.zeros([len(user)], tf.int64),
    )
    score = tf.reduce_sum(queries * vector, axis=1, keepdims=True)
    ranked = model.rank(request, tf.constant(item[:, None]), model.items, score)
    return {name: value.numpy()[:, 0] for name, value in ranked.logits.items()}, ranked


@pytest.mark.parametrize(
    "sharing",
    [
        "shared_bottom",
        pytest.param("mmoe", marks=pytest.mark.slow),
        pytest.param("ple", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("uncertainty", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_several_tasks_learn_together(labeled, retrieval, sharing, uncertainty):
    model = build(
        retrieval,
        labeled,
        tasks=TASKS,
        sharing=sharing,
        uncertainty=uncertainty,
        click_rating=4,
        loss="binary",
        **({} if sharing == "shared_bottom" else {"num_experts": 2}),
    )
    history = fit(model, labeled)
    for name in TASKS:
        assert history[f"{name}_loss"][-1] < 0.8 * history[f"{name}_loss"][0]
    train = labeled.interactions("train")
    logits, _ = said(model, train.user, train.item)
    rating = train.rating
    assert np.sqrt(np.mean((logits["rating"] - rating) ** 2)) < 0.8 * rating.std()
    assert logits["click"][rating >= 4].mean() > logits["click"][rating < 4].mean() + 1
    bought = train.events[:, EVENTS.index("buy")]
    assert logits["buy"][bought].mean() > logits["buy"][~bought].mean() + 0.5


@pytest.mark.parametrize(
    "loss",
    [
        # Their gradients are tried in test_ranking_losses.py.
        loss if loss == "binary" else pytest.param(loss, marks=pytest.mark.slow)
        for loss in RANKING_LOSSES
    ],
)
def test_every_loss_learns_clicks(labeled, retrieval, loss):
    model = build(retrieval, labeled, click_rating=4, loss=loss)
    history = fit(model, labeled)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    train = labeled.interactions("train")
    logits, _ = said(model, train.user, train.item)
    liked = train.rating >= 4
    assert logits["click"][liked].mean() > logits["click"][~liked].mean() + 1


def test_an_event_is_a_click_and_what_comes_after_one(labeled, retrieval, monkeypatch):
    settings = {"tasks": ["click", "buy"], "click_rating": 4, "loss": "binary"}
    model = build(retrieval, labeled, entire_space=True, **settings)
    batch = next(iter(model.batches(batch_size=64)))
    # Before training what is bought goes by the click alone, at the rate of those that were.
    lists = model._lists(batch)
    ranked = model.rank(lists.request, lists.item, model.items, lists.retrieved)
    click, buy = (1 / (1 + np.exp(-ranked.logits[name])) for name in ("click", "buy"))
    rate = buy / click
    np.testing.assert_allclose(rate, rate[0, 0], rtol=1e-4)
    whole = model._lists(next(iter(model.batches(batch_size=1024))))
    clicked = whole.labels["click"].numpy() > 0
    assert rate[0, 0] == pytest.approx(whole.labels["buy"].numpy()[clicked].mean(), abs=0.01)
    # Nothing is bought that is no click, whatever the dataset says.
    labels = {name: value.numpy() for name, value in lists.labels.items()}
    assert (labels["buy"] <= labels["click"]).all() and labels["buy"].any()
    # The loss is that of both probabilities, over all candidates.
    weight, want = lists.weight.numpy(), 0.0
    for name, said_of in (("click", click), ("buy", buy)):
        each = -np.where(labels[name] > 0, np.log(said_of), np.log(1 - said_of))
        want += np.mean((each * weight).sum(axis=1) / weight.sum(axis=1))
    monkeypatch.setattr(model, "_lists", lambda inputs: lists)
    assert float(model.compute_loss(batch)) == pytest.approx(want, rel=1e-4)
    monkeypatch.undo()
    history = fit(model, labeled)
    assert history["buy_loss"][-1] < 0.9 * history["buy_loss"][0]
    ranked = model.rank(lists.request, lists.item, model.items, lists.retrieved)
    assert (ranked.logits["buy"] <= ranked.logits["click"]).numpy().all()


def test_a_low_rating_is_no_click_and_a_negative_of_those_that_are(labeled, retrieval):
    batch = next(iter(build(retrieval, labeled, click_rating=4).batches(batch_size=500, seed=0)))
    assert (batch["rating"].numpy() < 4).any()
    model = build(retrieval, labeled, click_rating=4, num_negatives=3)
    lists = model._lists(batch)
    clicks = batch["rating"].numpy() >= 4
    np.testing.assert_array_equal(lists.labels["click"][:, 0], clicks)
    assert not np.asarray(lists.labels["click"][:, 1:]).any()
    # Drawn ones belong to a click; the low-rated ones stand behind them.
    assert (lists.weight.numpy()[~clicks, 1:4] == 0).all()
    disliked = batch["disliked"].numpy()[:, :2]
    np.testing.assert_array_equal(
        lists.weight.numpy()[:, 4:],
        (disliked >= 0) & (disliked != batch["item"].numpy()[:, None]),
    )
    # Alone, each is an example of its own, and is not named twice.
    alone = build(retrieval, labeled, click_rating=4, num_negatives=3, loss="binary")
    assert alone._lists(batch).item.shape[1] == 4


def test_a_binary_model_starts_at_the_level_of_the_clicks(labeled, retrieval):
    model = build(retrieval, labeled, loss="binary", num_negatives=6)
    lists = model._lists(next(iter(model.batches(batch_size=500, seed=3))))
    logits = lists.retrieved + model.heads[0].bias
    real = lists.weight.numpy() > 0
    mean = tf.sigmoid(logits).numpy()[real].mean()
    assert mean == pytest.approx(lists.labels["click"].numpy()[real].mean(), abs=0.03)


def test_a_disliked_item_says_nothing_of_other_tasks(labeled, retrieval):
    """It is no click, but may well have been bought."""
    settings = {"click_rating": 4, "num_negatives": 3, "dropout": 0.0}
    model = build(retrieval, labeled, tasks=["buy"], **settings)
    batch = next(iter(model.batches(batch_size=500, seed=0)))
    assert (batch["disliked"].numpy()[:, 0] >= 0).any()
    none = {**batch, "disliked": tf.fill(tf.shape(batch["disliked"]), -1)}

    def loss(model, batch):
        tf.random.set_seed(3)
        return model.compute_loss(batch).numpy()

    assert loss(model, batch) == loss(model, none)
    clicks = build(retrieval, labeled, tasks=["click"], **settings)
    assert loss(clicks, batch) != loss(clicks, none)


def test_the_shift_is_the_share_of_a_list_that_training_saw(labeled, retrieval):
    model = build(
        retrieval, labeled, loss="binary", num_negatives=8, candidate_share=0.5, num_candidates=12
    )
    assert model.click_shift == pytest.approx(np.log(4 / 12 + 4 / NUM_ITEMS))
    everything = build(retrieval, labeled, loss="binary", num_negatives=60, num_candidates=12)
    assert everything.click_shift == 0
    assert build(retrieval, labeled).click_shift == 0
    ratings = {"loss": "binary", "num_negatives": 0, "click_rating": 4}
    assert build(retrieval, labeled, **ratings).click_shift == 0


def test_scores_are_the_weighed_sum_of_tasks(labeled, retrieval):
    model = build(retrieval, labeled, tasks=TASKS, score_weights=[1.0, 2.0, 0.5], loss="binary")
    fit(model, labeled, epochs=1)
    logits, ranked = said(model, [1, 2, 3], [4, 5, 6])
    mean, std = model.rating_scale.numpy()
    want = logits["click"] + 2 * (logits["rating"] - mean) / std + 0.5 * logits["buy"]
    np.testing.assert_allclose(ranked.score[:, 0], want, rtol=1e-4)
    first = build(retrieval, labeled, tasks=["buy", "click"])
    logits, ranked = said(first, [1, 2, 3], [4, 5, 6])
    np.testing.assert_array_equal(ranked.score[:, 0], logits["buy"])
    train = labeled.interactions("train").rating
    assert model.rating_scale.numpy().tolist() == pytest.approx([train.mean(), train.std()])


def test_losses_are_weighed_by_task(labeled, retrieval):
    batch = next(iter(build(retrieval, labeled).batches(batch_size=64, seed=0)))

    def loss(**settings):
        tf.keras.utils.set_random_seed(1)
        return float(build(retrieval, labeled, num_negatives=0, **settings).compute_loss(batch))

    both = {"tasks": ["click", "rating"], "loss": "binary", "click_rating": 4}
    click = loss(**{**both, "task_weights": [1.0, 0.0]})
    rating = loss(**{**both, "task_weights": [0.0, 1.0]})
    assert click > 0.01 and rating > 0.01
    assert loss(**both) == pytest.approx(click + rating, rel=1e-5)
    assert loss(**both, task_weights=[0.5, 3.0]) == pytest.approx(
        0.5 * click + 3 * rating, rel=1e-5
    )


def test_the_position_bias_is_learned_and_left_out_when_recommending(labeled, retrieval):
    model = build(retrieval, labeled, position_bias=True, loss="binary", click_rating=4)
    fit(model, labeled, epochs=2)
    assert np.abs(model.position.table).max() > 0
    before, _ = said(model, [1, 2], [4, 5])
    batch = next(iter(model.batches(batch_size=64, seed=0)))
    without = float(model.compute_loss(batch, training=False))
    model.position.table.assign(model.position.table + 5)
    after, _ = said(model, [1, 2], [4, 5])
    np.testing.assert_array_equal(before["click"], after["click"])
    tf.keras.utils.set_random_seed(0)
    assert abs(float(model.compute_loss(batch, training=True)) - without) > 0.5


def test_fine_tuning_starts_from_retrieval_and_leaves_it_as_it_is(labeled, retrieval):
    model = build(retrieval, labeled, fine_tune=True, target_attention=True)
    before = [weight.numpy() for weight in retrieval.weights]
    catalog = tf.identity(model.items["vector"])
    for one, other in zip(model.user_tower.weights, retrieval.user_tower.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.any(model.item_shift)
    fit(model, labeled, epochs=2)
    assert np.any(model.item_shift)
    changed = [
        np.abs(one - other).max() > 0
        for one, other in zip(model.user_tower.weights, retrieval.user_tower.weights, strict=True)
    ]
    assert any(changed)
    for weight, old in zip(retrieval.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    np.testing.assert_array_equal(model.items["vector"], catalog)


def test_the_hour_is_learned(labeled, retrieval):
    """The small world's interactions are seconds apart: all at one hour, which is then known."""
    model = build(retrieval, labeled, context=["hour"])
    fit(model, labeled, epochs=2)
    used = np.abs(model.pairs.hour.table).max(axis=1) > 0
    assert used.any()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tasks": ["click", "sale"]}, "wanted some of click, rating, view, buy, .*'sale'"),
        ({"tasks": []}, "ranking.tasks: wanted at least one"),
        ({"tasks": ["click", "click"]}, "each once"),
        ({"score_weights": [1.0, 2.0]}, "wanted one number for each of 1 tasks, or none; got 2"),
        ({"sharing": "mmoe"}, "ranking.tasks to two or more"),
        ({"focal_gamma": 2.0}, 'Set ranking.loss to "binary"'),
        ({"num_negatives": 0}, "wanted at least 1, as nothing else is no click"),
        ({"monitor": "accuracy"}, "ranking.monitor: wanted auc, gauc, rmse"),
        ({"context": ["minute"]}, "ranking.context: wanted one of hour, weekday"),
    ],
)
def test_what_cannot_be_is_refused(labeled, retrieval, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(retrieval, labeled, **settings)


def test_labels_that_the_dataset_lacks_are_refused(dataset):
    plain = build_retrieval(dataset)
    for settings, message in (
        ({"tasks": ["rating"]}, "wanted some of click, which the dataset has; got 'rating'"),
        ({"click_rating": 4}, "wanted null, as the dataset has no ratings; got 4"),
        ({"position_bias": True, "loss": "binary"}, "does not say at which positions"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(plain, dataset, **settings)


@pytest.mark.slow
def test_all_architectures_learn(labeled, retrieval):
    for architecture in ("dlrm", "deepfm", "mlp", "bilinear"):
        model = build(retrieval, labeled, architecture=architecture, num_negatives=8)
        history = fit(model, labeled, epochs=6)
        assert history["loss"][-1] < 0.9 * history["loss"][0], architecture
    assert RankingConfig().architecture == "dcn"
    assert NUM_USERS == 40
