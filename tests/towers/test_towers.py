"""The towers: what moves an embedding, and what must not."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf.config import HISTORIES
from mmrec_tf.schema import FeatureSpec
from mmrec_tf.towers import IdEmbedding, ItemTower, SideFeatures, UserTower, keep, unit

DIM = 4
PRESENT = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def items(**changes):
    return {
        "item": np.array([0, 1, 2, 3], np.int32),
        "present": PRESENT,
        "encoded": {"text": normal(4, 6), "image": normal(4, 2, seed=1)},
        **changes,
    }


def users(**changes):
    return {
        "user": np.array([0, 1, 2, -1], np.int32),
        "history": normal(4, 3, DIM),
        "known": np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool),
        **changes,
    }


def trained(tower, inputs):
    """Weights drawn anew, as if training had moved all of them."""
    tower(inputs)
    rng = np.random.default_rng(5)
    tower.set_weights([rng.normal(size=value.shape) for value in tower.get_weights()])
    return tower


def item_tower(**settings):
    settings = {"modalities": ("text", "image"), "num_items": 4, "dim": DIM, **settings}
    return trained(ItemTower(**settings), items(features=FEATURES))


def user_tower(**settings):
    settings = {"num_users": 3, "dim": DIM, **settings}
    return trained(UserTower(**settings), users(profile=normal(4, 5), features=FEATURES))


FEATURES = {
    "genre": np.array([[2, 3], [2, 0], [0, 0], [1, 0]], np.int32),
    "price": np.array([[0.5, 1], [0.5, 0], [-1.5, 1], [0, 1]], np.float32),
}
SIZES = {"genre": 4, "price": 0}


def test_each_interest_weighs_a_history_anew():
    inputs = users()
    tower = user_tower(num_users=0, history="attention", interests=2, num_steps=3)
    weights = tower.attention_weights(inputs["history"], inputs["known"]).numpy()
    assert weights.shape == (4, 2, 3)
    np.testing.assert_allclose(weights.sum(axis=2)[:3], 1, atol=1e-6)
    assert not weights[3].any() and not weights[:, :, ~inputs["known"][1]][1].any()
    assert np.abs(weights[0, 0] - weights[0, 1]).max() > 0.01
    # One alone, with the weights that are its own, makes the same vector.
    got = tower(inputs).numpy()
    for interest in range(2):
        one = user_tower(num_users=0, history="attention", num_steps=3)
        one.set_weights(
            [
                own[:, interest : interest + 1] if own.shape[-1] == 2 else own
                for own in tower.get_weights()
            ]
        )
        np.testing.assert_allclose(one(inputs), got[:, interest], atol=1e-6)


# Items


def test_embeddings_are_unit_vectors_and_nothing_known_is_finite():
    tower = item_tower()
    output = tower(items(item=np.array([0, 1, -1, -1], np.int32)))
    lengths = np.linalg.norm(output.embedding, axis=-1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0], atol=1e-5)
    with tf.GradientTape() as tape:
        embedding = tower(items(item=np.full([4], -1, np.int32))).embedding
        loss = tf.reduce_sum(embedding * normal(4, DIM))
    weights = tower.trainable_weights
    for gradient in tape.gradient(loss, weights, unconnected_gradients="zero"):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_absent_content_has_no_influence_and_present_content_has():
    tower = item_tower()
    for column, name in enumerate(("text", "image")):
        encoded = dict(items()["encoded"])
        encoded[name] = encoded[name] + 3
        moved = np.abs(tower(items(encoded=encoded)).embedding - tower(items()).embedding).max(1)
        assert (moved[PRESENT[:, column]] > 1e-3).all()
        assert (moved[~PRESENT[:, column]] == 0).all()


def test_a_cold_item_is_placed_by_its_content_alone():
    tower = item_tower()
    hidden = np.full([4], -1, np.int32)
    cold, warm = tower(items(item=hidden)).embedding, tower(items()).embedding
    assert np.abs(cold[0] - cold[1]).max() > 1e-3
    tower.id_embedding.table.assign(normal(4, DIM, seed=9))
    np.testing.assert_array_equal(cold, tower(items(item=hidden)).embedding)
    assert np.abs(warm - tower(items()).embedding).max(axis=1).min() > 1e-3


def test_id_dropout_hides_the_id_in_training_only():
    tower = item_tower(id_dropout=0.5, num_items=200)
    many = {
        "item": np.arange(200, dtype=np.int32),
        "present": np.ones([200, 2], bool),
        "encoded": {"text": normal(200, 6), "image": normal(200, 2, seed=1)},
    }
    trained_on = tower(many, training=True).embedding
    whole = tower(many).embedding
    without = tower({**many, "item": np.full([200], -1, np.int32)}).embedding
    is_hidden = np.isclose(trained_on, without, atol=1e-5).all(axis=1)
    is_whole = np.isclose(trained_on, whole, atol=1e-5).all(axis=1)
    assert (is_hidden ^ is_whole).all()
    assert 60 < is_hidden.sum() < 140
    np.testing.assert_array_equal(whole, tower(many, training=False).embedding)


def test_modality_dropout_hides_modalities_from_fusion_and_not_from_alignment():
    tower = item_tower(modality_dropout=0.5, num_items=0, fusion="mean")
    many = {
        "item": np.full([200], -1, np.int32),
        "present": np.ones([200, 2], bool),
        "encoded": {"text": normal(200, 6), "image": normal(200, 2, seed=1)},
    }
    output = tower(many, training=True)
    used = (output.weights.numpy() > 0).sum(axis=1)
    assert 25 < (used == 0).sum() < 80 and 25 < (used == 2).sum() < 80
    np.testing.assert_allclose(np.linalg.norm(output.modalities, axis=-1), 1, atol=1e-5)
    assert (tower(many).weights.numpy() == 0.5).all()


def test_modalities_and_weights_are_handed_on():
    output = item_tower()(items())
    lengths = np.linalg.norm(output.modalities, axis=-1)
    np.testing.assert_allclose(lengths, PRESENT, atol=1e-5)
    np.testing.assert_array_equal(output.present, PRESENT)
    np.testing.assert_array_equal(output.weights.numpy() > 0, PRESENT)


def test_without_modalities_only_the_id_counts():
    tower = item_tower(modalities=())
    output = tower(items())
    assert output.modalities.shape == (4, 0, DIM) and output.weights.shape == (4, 0)
    np.testing.assert_allclose(output.embedding, unit(tower.id_embedding.table), atol=1e-6)


def test_side_features_move_the_embedding():
    tower = item_tower(feature_sizes=SIZES)
    before = tower(items(features=FEATURES)).embedding
    for name, row in (("genre", 1), ("price", 2)):
        features = {key: value.copy() for key, value in FEATURES.items()}
        features[name][row, 0] += 1
        moved = np.abs(tower(items(features=features)).embedding - before).max(axis=1)
        assert np.flatnonzero(moved > 1e-4).tolist() == [row]


def test_missing_features_have_no_influence_and_several_categories_are_averaged():
    layer = SideFeatures(SIZES, DIM)
    vectors = layer(FEATURES).numpy()
    genre, price = (layer.tables[name].numpy() for name in ("genre", "price"))
    np.testing.assert_allclose(vectors[0], (genre[2] + genre[3]) / 2 + 0.5 * price[0], atol=1e-6)
    np.testing.assert_allclose(vectors[1], genre[2], atol=1e-6)
    np.testing.assert_allclose(vectors[2], -1.5 * price[0], atol=1e-6)
    # 1 is out of vocabulary, which is something known; 0 is not.
    np.testing.assert_allclose(vectors[3], genre[1], atol=1e-6)


def test_sizes_hold_padding_and_the_unknown():
    specs = {
        "genre": FeatureSpec("categorical", vocabulary=("a", "b")),
        "price": FeatureSpec("numeric"),
    }
    assert SideFeatures.sizes_of(specs) == SIZES


def test_an_unknown_id_is_zeros():
    layer = IdEmbedding(3, DIM)
    vectors = layer(tf.constant([-1, 0, 2])).numpy()
    np.testing.assert_array_equal(vectors[1:], layer.table.numpy()[[0, 2]])
    assert not vectors[0].any() and vectors[1].any()


# Users


@pytest.mark.parametrize("history", HISTORIES)
def test_any_user_is_a_unit_vector(history):
    tower = user_tower(history=history)
    known = np.zeros([4, 3], bool)
    for inputs in (users(), users(known=known, user=np.full([4], -1, np.int32))):
        np.testing.assert_allclose(np.linalg.norm(tower(inputs), axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("history", HISTORIES)
def test_padding_has_no_influence_and_the_history_has(history):
    tower = user_tower(history=history)
    known = users()["known"]
    before = tower(users())
    padded = np.where(known[:, :, None], users()["history"], 1e3 * normal(4, 3, DIM, seed=2))
    np.testing.assert_allclose(tower(users(history=padded)), before, atol=1e-6)
    moved = np.abs(tower(users(history=-users()["history"])) - before).max(axis=1)
    if history == "none":
        assert (moved == 0).all()
    else:
        assert (moved[:3] > 1e-3).all() and moved[3] == 0


@pytest.mark.parametrize("history", HISTORIES)
def test_longer_padding_changes_nothing(history):
    tower = user_tower(history=history)
    wider = users(
        history=np.concatenate([users()["history"], normal(4, 2, DIM, seed=3)], axis=1),
        known=np.pad(users()["known"], ((0, 0), (0, 2))),
    )
    np.testing.assert_allclose(tower(wider), tower(users()), atol=1e-6)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_gap_in_the_history_is_passed_over(history):
    tower = user_tower(history=history)
    known = np.tile([True, False, True], (4, 1))
    closed = users()["history"][:, [0, 2, 1]]
    gap = tower(users(known=known))
    np.testing.assert_allclose(
        gap, tower(users(history=closed, known=np.tile([True, True, False], (4, 1)))), atol=1e-6
    )


@pytest.mark.parametrize(
    "history, ordered",
    [("mean", False), ("attention", True), ("gru", True), ("self_attention", True)],
)
def test_all_but_the_mean_mind_the_order(history, ordered):
    tower = user_tower(history=history)
    backwards = users()["history"][0:1, ::-1]
    one = {"user": np.array([0], np.int32), "known": np.ones([1, 3], bool)}
    forth = tower({**one, "history": users()["history"][0:1]})
    back = tower({**one, "history": backwards})
    assert np.allclose(forth, back, atol=1e-5) != ordered


def test_attention_weighs_by_content_and_mean_does_not():
    history = np.repeat(np.eye(DIM, dtype=np.float32)[None, :3], 4, axis=0)
    known = np.ones([4, 3], bool)
    for kind, alike in (("mean", True), ("attention", False)):
        pooled = user_tower(history=kind).pool(tf.constant(history), tf.constant(known)).numpy()
        assert pooled[0].sum() == pytest.approx(1)
        assert np.allclose(pooled[0, :3], 1 / 3) == alike


def test_ids_profile_and_features_each_move_the_user():
    tower = user_tower(profile=True, feature_sizes=SIZES)
    profile = normal(4, 5)
    before = tower(users(profile=profile, features=FEATURES))

    def moved(**changes):
        changes = {"profile": profile, "features": FEATURES, **changes}
        return np.flatnonzero(np.abs(tower(users(**changes)) - before).max(axis=1) > 1e-4).tolist()

    assert moved() == []
    assert moved(user=np.array([1, 1, 2, -1], np.int32)) == [0]
    assert moved(profile=profile * np.array([[1], [-1], [1], [1]])) == [1]
    price = FEATURES["price"] + np.array([[0, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    assert moved(features={**FEATURES, "price": price}) == [2]


def test_a_hidden_layer_adds_to_the_linear_projection():
    tower = user_tower(history="mean", hidden=6)
    pooled = tower.pool(tf.constant(users()["history"]), tf.constant(users()["known"]))
    rows = tower.id_embedding(users()["user"])
    np.testing.assert_allclose(
        tower(users()), unit(tower.project(pooled) + tower.hidden(pooled) + rows), atol=1e-6
    )
    assert np.abs(tower.hidden(pooled)).max() > 1e-3


def test_user_id_dropout_hides_the_id_in_training_only():
    tower = user_tower(id_dropout=0.5, num_users=200)
    many = {
        "user": np.arange(200, dtype=np.int32),
        "history": normal(200, 3, DIM),
        "known": np.ones([200, 3], bool),
    }
    hidden = tower({**many, "user": np.full([200], -1, np.int32)})
    is_hidden = np.isclose(tower(many, training=True), hidden, atol=1e-5).all(axis=1)
    assert 60 < is_hidden.sum() < 140
    assert not np.isclose(tower(many), hidden, atol=1e-5).all(axis=1).any()


def test_keep_drops_the_share_it_is_told():
    assert keep([1000], 0.3, True).numpy().mean() == pytest.approx(0.7, abs=0.05)
    assert keep([1000], 0.3, False).numpy().all() and keep([1000], 0.0, True).numpy().all()


# From a config


def test_the_config_decides_what_the_towers_know(dataset):
    schema = dataset.schema
    item = ItemTower.from_experiment(small_world.config(), schema)
    assert item.modalities == small_world.MODALITIES
    assert item.id_embedding.num_ids == small_world.NUM_ITEMS
    assert item.features.sizes == {"genre": 4, "price": 0}
    bare = small_world.config(modalities=["vector"], item__id_embedding=False, item__features=False)
    item = ItemTower.from_experiment(bare, schema)
    assert item.modalities == ("vector",) and item.id_embedding is None and item.features is None

    user = UserTower.from_experiment(small_world.config(user__id_embedding=True), schema)
    assert user.id_embedding.num_ids == small_world.NUM_USERS
    assert user.profile is not None and user.features.sizes == {"age": 0}
    bare = small_world.config(user__profile=False, user__features=False)
    user = UserTower.from_experiment(bare, schema)
    assert user.id_embedding is None and user.profile is None and user.features is None
