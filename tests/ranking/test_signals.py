"""Numbers of a user and a candidate: against NumPy, and what is not known."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world, tiny_dataset
from support.small_world import NUM_ITEMS, VECTORS, build_retrieval

from mmrec_tf import RankingModel
from mmrec_tf.config import SIGNALS, Config, ItemHeadConfig, RankingConfig, TrainingConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.ranking.signals import DECAY, HEAD_SCALE, NUM_NEIGHBORS, popularity_trend
from mmrec_tf.recommender.ranked import Request, Rows
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_similarity import fit_co_occurrence

# Histories, one with a gap and one of nothing, each beside three candidates.
HISTORY = np.array([[3, 7, 12, 4], [5, -1, 20, -1], [-1] * 4], np.int32)
ITEM = np.array([[11, 2, 26], [1, 20, 19], [0, 2, 29]], np.int32)


@pytest.fixture(scope="module")
def model(dataset):
    """With all signals and a head; for reading only."""
    retrieval = build_retrieval(dataset, item_head__kind="ease")
    head = ItemHead(NUM_ITEMS, 2)
    number = np.arange(NUM_ITEMS)
    head.neighbors.assign(np.stack([number - 1, number - 2], axis=1).clip(-1))
    head.values.assign(np.stack([0.7 + 0.01 * number, 0.2 + 0 * number], axis=1))
    retrieval.set_item_head(head, None)
    settings = {**VECTORS, "item_head__kind": "ease", "ranking__signals": list(SIGNALS)}
    config = small_world.config(**settings)
    return RankingModel(config, dataset, retrieval=retrieval, initialize=False)


def request_of(model):
    history = tf.constant(HISTORY)
    blank = tf.zeros([3, model.config.dim + 1]), tf.constant([4, 5, -1])
    return Request(*blank, history, tf.fill([3, 4], -1.0), tf.zeros([3], tf.int64))


def numbers(model, *, training=False, rows=None):
    """By name what stands behind score and popularity, each <float>[batch, candidate]."""
    score = tf.zeros([3, 3])
    _, dense, _ = model.gather_pairs(
        request_of(model), tf.constant(ITEM), model.items, score, training=training, rows=rows
    )
    names = model.pairs.labels(model.retrieval.modalities)[1]
    signals = model.state.signals.labels()
    assert names[2 : 2 + len(signals)] == signals
    return {name: dense.numpy()[..., 2 + n] for n, name in enumerate(signals)}


def together(dataset):
    """Users of both items over the root of the users of each, <float>[item, item]."""
    train = dataset.interactions("train")
    met = np.zeros([dataset.schema.num_users, NUM_ITEMS])
    met[train.user, train.item] = 1
    count = np.maximum(met.sum(axis=0), 1)
    cosine = met.T @ met / np.sqrt(count[:, None] * count)
    np.fill_diagonal(cosine, 0)
    return cosine, count


def test_cosines_with_the_history(model):
    found = numbers(model)
    vectors = model.items["vector"].numpy()[:, : model.config.dim]
    for row in range(2):
        steps = HISTORY[row][HISTORY[row] >= 0]
        cosine = vectors[ITEM[row]] @ vectors[steps].T
        weight = DECAY ** np.arange(len(steps))[::-1]
        want = {
            "nearest of history": cosine.max(axis=1),
            "mean of history": cosine.mean(axis=1),
            "newest of history": cosine[:, -1],
            "recent history": cosine @ weight / weight.sum(),
        }
        for name, value in want.items():
            np.testing.assert_allclose(found[name][row], value, atol=1e-5)
    for name in want:
        assert not found[name][2].any()


def test_cosines_by_modality(model):
    found = numbers(model)["vector"]
    content, there = (model.items[n].numpy()[:, 0] for n in ("modalities", "present"))
    for row in range(2):
        steps = [n for n in HISTORY[row] if n >= 0 and there[n]]
        liked = content[steps].sum(axis=0)
        want = content[ITEM[row]] @ liked / np.linalg.norm(liked)
        want /= np.maximum(np.linalg.norm(content[ITEM[row]], axis=1), 1e-9)
        np.testing.assert_allclose(found[row], np.where(there[ITEM[row]], want, 0), atol=1e-4)
    # Item 26 has no content at all.
    assert found[0, 2] == 0 and not found[2].any()


def test_what_the_head_adds_and_how_often_both_were_met(dataset, model):
    found, head = numbers(model), model.retrieval.item_head
    want = head.score_items(tf.constant(HISTORY), tf.constant(ITEM)).numpy()
    np.testing.assert_allclose(found["item head"], HEAD_SCALE * want, atol=1e-6)
    assert np.abs(want).max() > 0.1
    cosine, count = together(dataset)
    np.testing.assert_allclose(
        found["met together"],
        [[sum(cosine[h, i] for h in HISTORY[r] if h >= 0) for i in ITEM[r]] for r in range(3)],
        atol=1e-5,
    )
    # In training the example's own user is one of those who met both.
    less = numbers(model, training=True)["met together"]
    np.testing.assert_array_equal(less[:, 1:], found["met together"][:, 1:])
    own = [
        sum(1 / np.sqrt(count[h] * count[ITEM[r, 0]]) for h in HISTORY[r] if h >= 0)
        for r in range(3)
    ]
    want = np.maximum(found["met together"][:, 0] - own, 0)
    np.testing.assert_allclose(less[:, 0], want, atol=1e-5)


def test_only_the_strongest_pairs_are_kept(dataset):
    found = fit_co_occurrence(Config(), dataset, count=3)
    cosine, _ = together(dataset)
    for row in range(NUM_ITEMS):
        want = np.sort(cosine[row])[::-1][:3]
        np.testing.assert_allclose(found.weight[row], want, atol=1e-6)
        kept = found.item[row] >= 0
        np.testing.assert_allclose(cosine[row, found.item[row][kept]], want[kept], atol=1e-6)
    assert NUM_NEIGHBORS > NUM_ITEMS  # All of them, in the test before.


def test_what_is_on_the_rise(tmp_path):
    """Twenty interactions, of which the last two tell; item 5 stands in one of them."""
    train = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5]]
    times = list(range(5))
    dataset = tiny_dataset.write(tmp_path / "d", train=train, timestamp=times)
    got = popularity_trend(dataset)
    # Of equal times those of later users come last: 4 of the third user and 5 of the last.
    count, recent = np.array([4, 4, 4, 4, 3, 1]), np.array([0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(got, np.log((recent + 1) / (count * 0.1 + 1)), atol=1e-6)


def test_of_an_item_that_is_not_in_the_catalog_train_knows_nothing(model):
    item = tf.constant(ITEM)
    rows = Rows(
        model.items["vector"].numpy()[ITEM],
        *(tf.gather(model.items[n], item) for n in ("modalities", "present", "weights")),
        {n: tf.gather(v, item) for n, v in model.items["features"].items()},
    )
    inside, outside = numbers(model), numbers(model, rows=rows)
    for name, value in outside.items():
        if name in ("item head", "met together", "trend"):
            assert not value.any() and inside[name].any()
        else:
            np.testing.assert_allclose(value, inside[name], atol=1e-6)


def test_they_are_learned_from(dataset, model):
    batch = next(iter(model.batches("train", batch_size=64)))
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        if weight.shape.rank:
            weight.assign(0.3 * rng.normal(size=weight.shape))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    assert np.isfinite(float(loss))
    assert all(gradient is not None for gradient in tape.gradient(loss, model.interaction.weights))


def test_what_cannot_be_known_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match=r"ranking.signals: wanted \[\] while item_head.kind"):
        Config(ranking=RankingConfig(signals=("head",)))
    with pytest.raises(ConfigError, match=r"ranking.signals: wanted \[\] while modalities is \[\]"):
        Config(modalities=(), ranking=RankingConfig(signals=("modalities",), content=True))
    with pytest.raises(ConfigError, match="no co_occurrence with training.jit_compile"):
        ranking = RankingConfig(signals=("co_occurrence",))
        Config(ranking=ranking, training=TrainingConfig(jit_compile=True))
    with pytest.raises(ConfigError, match="each at most once; got trend, trend"):
        RankingConfig(signals=("trend", "trend"))
    with pytest.raises(ConfigError, match="ranking.signals: wanted one of"):
        RankingConfig(signals=("fame",))
    without = tiny_dataset.write(tmp_path / "d", timestamp=[0] * 99)
    with pytest.raises(ConfigError, match="needs times, as the dataset has none"):
        popularity_trend(without)
    # The twin without content, and a config without the head, do without what these say.
    config = Config(
        item_head=ItemHeadConfig(kind="content"),
        ranking=RankingConfig(signals=("trend", "modalities", "head")),
    )
    assert config.id_only().ranking.signals == ("trend",)
