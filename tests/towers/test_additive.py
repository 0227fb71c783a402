"""Embeddings as sums: parts that sum to the vector, and that are those of what was put there."""

import numpy as np
import pytest
import tensorflow as tf

import mmrec_tf as mm
from mmrec_tf.config import HISTORIES, MISSING
from mmrec_tf.towers import ItemTower, UserTower, shapley
from mmrec_tf.towers.additive import item_parts, user_parts
from mmrec_tf.towers.fusion import FUSIONS, build_fusion

DIM, STEPS = 4, 8
FEATURES = {
    "genre": np.array([[2, 3], [2, 0], [0, 0], [1, 0]], np.int32),
    "price": np.array([[0.5, 1], [0.5, 0], [-1.5, 1], [0, 1]], np.float32),
}
SIZES = {"genre": 4, "price": 0}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trained(tower, inputs):
    """Weights drawn anew, as if training had moved all of them."""
    tower(inputs)
    rng = np.random.default_rng(5)
    tower.set_weights([rng.normal(size=value.shape) for value in tower.get_weights()])
    return tower


def items():
    return {
        "item": np.array([0, 1, 2, -1], np.int32),
        "present": np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool),
        "encoded": {n: normal(4, 3 + i, seed=i) for i, n in enumerate(("text", "image", "audio"))},
        "features": FEATURES,
    }


def one_user(known=(1,) * STEPS):
    return {
        "user": np.array([1], np.int32),
        "history": normal(1, STEPS, DIM),
        "known": np.array([known], bool),
        "gap": np.arange(STEPS, dtype=np.float32)[None, ::-1] * 100,
        "profile": normal(1, 5, seed=2),
        "features": {name: value[:1] for name, value in FEATURES.items()},
    }


@pytest.mark.parametrize(
    ("fusion", "missing"),
    [*((name, "skip") for name in FUSIONS), ("gated", "token"), ("concat", "mean")],
)
def test_parts_of_an_item_sum_to_its_embedding_under_every_fusion(fusion, missing):
    assert missing in MISSING
    tower = ItemTower(
        ("text", "image", "audio"),
        num_items=4,
        dim=DIM,
        fusion=fusion,
        missing=missing,
        feature_sizes=SIZES,
    )
    trained(tower, items())
    parts = item_parts(tower, items())
    assert parts.names == ("text", "image", "audio", "id", "features", "constant")
    np.testing.assert_allclose(parts.vectors.sum(axis=1), tower(items()).embedding, atol=2e-6)
    # The last one has no id, and without a stand-in no content either.
    assert not parts.vectors[3, 3].any()
    lacking = parts.vectors[:, :3][~items()["present"]]
    assert not lacking.any() if missing == "skip" else lacking[0].any()


def test_a_part_is_what_was_put_there():
    """Plain averages of two modalities: half of each, and the id whole, all by one scale."""
    tower = ItemTower(("text", "image"), num_items=4, dim=DIM, fusion="mean")
    inputs = {**items(), "present": np.ones([4, 2], bool)}
    trained(tower, inputs)
    parts, output = item_parts(tower, inputs).vectors, tower(inputs)
    ids = tower.id_embedding(inputs["item"]).numpy()
    total = output.modalities.numpy().mean(axis=1) + ids
    length = np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(parts[:, 0], output.modalities[:, 0] / 2 / length, atol=1e-6)
    np.testing.assert_allclose(parts[:, 2], ids / length, atol=1e-6)


def test_a_fusion_that_is_no_sum_deals_out_what_modalities_do_together():
    """With two modalities the value is the mean of what one adds first and what it adds last."""
    fusion = build_fusion("bilinear")
    x, both = normal(1, 2, DIM), np.ones([1, 2], bool)
    made = {}
    for name, present in (("both", [[1, 1]]), ("a", [[1, 0]]), ("b", [[0, 1]])):
        made[name] = fusion(x, np.array(present, bool))[0].numpy()
    from mmrec_tf.towers.additive import fusion_parts

    parts, constant = fusion_parts(fusion, tf.constant(x), tf.constant(both))
    want = (made["a"] + made["both"] - made["b"]) / 2
    np.testing.assert_allclose(parts[:, 0], want, atol=1e-6)
    assert not constant.any()


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("history", HISTORIES)
def test_parts_of_a_user_sum_to_the_embedding_under_every_history(history, hidden):
    tower = UserTower(
        num_users=3,
        dim=DIM,
        history=history,
        num_steps=STEPS,
        time_gaps=history != "none",
        hidden=hidden,
        profile=True,
        feature_sizes=SIZES,
    )
    trained(tower, one_user())
    for known in ([1] * STEPS, [1, 0, 1, 1] + [0] * (STEPS - 4), [0] * STEPS):
        inputs = one_user(known)
        parts = user_parts(tower, inputs)
        assert parts.names[-4:] == ("id", "profile", "features", "constant")
        np.testing.assert_allclose(parts.vectors.sum(axis=1), tower(inputs), atol=5e-6)
        steps = parts.vectors[0, :STEPS]
        assert not steps[~inputs["known"][0]].any()
        assert (np.abs(steps).sum(axis=1)[inputs["known"][0]] > 0).all() == (
            history != "none" or not any(known)
        )


@pytest.mark.parametrize("hidden", [0, 6])
def test_parts_of_each_interest_sum_to_its_own_vector(hidden):
    tower = UserTower(
        num_users=3, dim=DIM, history="attention", num_steps=STEPS, interests=2, hidden=hidden
    )
    trained(tower, one_user())
    inputs = one_user([1, 0, 1, 1] + [0] * (STEPS - 4))
    vectors = np.asarray(tower(inputs))[0]
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1
    for interest, want in enumerate(vectors):
        parts = user_parts(tower, inputs, interest=interest).vectors[0]
        np.testing.assert_allclose(parts.sum(axis=0), want, atol=5e-6)


def test_steps_of_a_mean_have_each_its_own_share():
    tower = trained(UserTower(num_users=0, dim=DIM, num_steps=STEPS), one_user())
    inputs = one_user([1, 1] + [0] * (STEPS - 2))
    parts = user_parts(tower, inputs).vectors[0]
    kernel, bias = tower.project.get_weights()
    added = inputs["history"][0, :2] @ kernel / 2
    length = np.linalg.norm(added.sum(axis=0) + bias)
    np.testing.assert_allclose(parts[:2], added / length, atol=1e-6)
    np.testing.assert_allclose(parts[-1], bias / length, atol=1e-6)


def test_shapley_values_by_hand():
    """The glove game: two left gloves and one right one, of which a pair is worth 1."""
    value = np.zeros([8])
    for number in range(8):
        left, right = (number & 1) + (number >> 1 & 1), number >> 2
        value[number] = min(left, right)
    np.testing.assert_allclose(shapley.exact(value), [1 / 6, 1 / 6, 2 / 3])


def test_drawn_orders_sum_exactly_and_come_near():
    players = shapley.MOST_EXACT + 3
    weight = np.random.default_rng(0).normal(size=players)

    def value(sets):
        total = sets @ weight
        return total + 0.1 * total**2

    found = shapley.estimate(value, players)
    ones = np.ones([1, players], bool)
    np.testing.assert_allclose(found.sum(), value(ones)[0] - value(~ones)[0], atol=1e-12)
    np.testing.assert_allclose(found, shapley.exact(value(shapley.subsets(players))), atol=0.05)


def test_a_tower_of_ones_own_is_refused():
    class Own(ItemTower):
        def call(self, inputs, training=False):
            return super().call(inputs, training=training)

    with pytest.raises(mm.ConfigError, match="got Own"):
        item_parts(Own(("text",), num_items=0, dim=DIM), items())
