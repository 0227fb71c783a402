"""One space for all modalities: what the projections promise, and what the loss pulls together."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.alignment import Alignment, contrastive_loss

ALL = np.ones([2, 2], bool)


def unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def draw(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=[rows, width]).astype(np.float32) for width in (5, 3)]


def test_present_is_of_unit_length_and_absent_zero():
    present = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1]], bool)
    features = draw()
    features[1][4] = 1e4
    lengths = np.linalg.norm(Alignment(4)(features, present), axis=-1)
    np.testing.assert_allclose(lengths, present, atol=1e-5)


def test_each_modality_has_a_projection_of_its_own():
    layer, features = Alignment(4, hidden=3), draw()
    before = layer(features, np.ones([6, 2], bool)).numpy()
    features[1] = features[1][::-1]
    after = layer(features, np.ones([6, 2], bool)).numpy()
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert np.abs(before[:, 1] - after[:, 1]).max() > 0.1


def test_a_hidden_layer_bends_the_projection():
    """A linear projection of x and -x, less that of 0, lies on one line; a bent one does not."""
    for hidden, straight in ((0, True), (8, False)):
        layer = Alignment(4, hidden=hidden)
        x = 2 * np.random.default_rng(0).normal(size=[1, 5]).astype(np.float32)
        layer([x], np.ones([1, 1], bool))
        project = layer.projections[0]
        up, down = project(x) - project(0 * x), project(-x) - project(0 * x)
        assert np.allclose(up, -down, atol=1e-5) == straight


def test_loss_of_two_items_by_hand():
    """Item 0: a at 0 degrees, b at 60; item 1: a at 90 degrees, b at 90. Temperature 1/2.

    Cosines a to b: [[1/2, 0], [sqrt(3)/2, 1]]; logits are twice that.
    """
    a = unit([[1, 0], [0, 1]])
    b = unit([[1, 3**0.5], [0, 1]])
    loss = contrastive_loss(np.stack([a, b], 1), ALL, temperature=tf.constant(0.5))
    e, r = np.exp, 3**0.5
    rows = [-np.log(e(1) / (e(1) + e(0))), -np.log(e(2) / (e(r) + e(2)))]
    columns = [-np.log(e(1) / (e(1) + e(r))), -np.log(e(2) / (e(0) + e(2)))]
    assert float(loss) == pytest.approx(np.mean(rows + columns), rel=1e-5)


def test_three_modalities_are_three_pairs():
    rng = np.random.default_rng(0)
    modalities = unit(rng.normal(size=[4, 3, 5]))
    present = np.ones([4, 3], bool)
    pairs = [
        float(contrastive_loss(modalities[:, pair], present[:, pair], temperature=0.2))
        for pair in ([0, 1], [0, 2], [1, 2])
    ]
    together = float(contrastive_loss(modalities, present, temperature=0.2))
    assert together == pytest.approx(np.mean(pairs), rel=1e-5)


def test_an_item_without_the_other_modality_is_neither_asked_nor_in_the_way():
    rng = np.random.default_rng(0)
    modalities = unit(rng.normal(size=[4, 2, 5]))
    present = np.array([[1, 1], [1, 1], [0, 1], [0, 0]], bool)
    # Item 2 has b and so stands among the b that items 0 and 1 must tell apart; its a does not.
    loss = float(contrastive_loss(modalities, present, temperature=0.2))
    logits = modalities[:, 0] @ modalities[:, 1].T / 0.2
    rows = [-logits[i, i] + np.log(np.exp(logits[i, :3]).sum()) for i in range(2)]
    columns = [-logits[i, i] + np.log(np.exp(logits[:2, i]).sum()) for i in range(2)]
    assert loss == pytest.approx(np.mean(rows + columns), rel=1e-5)


@pytest.mark.parametrize("present", [[[1, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 0], [1, 0]]])
def test_no_pair_no_loss(present):
    modalities = tf.constant(unit(np.random.default_rng(0).normal(size=[2, 2, 5])))
    with tf.GradientTape() as tape:
        tape.watch(modalities)
        loss = contrastive_loss(modalities, np.array(present, bool), temperature=0.1)
    assert float(loss) == 0
    assert not tf.convert_to_tensor(tape.gradient(loss, modalities)).numpy().any()


def test_a_repeated_item_is_no_negative_of_itself():
    one = unit(np.random.default_rng(0).normal(size=[3, 2, 5]))
    present = np.ones([5, 2], bool)
    twice = one[[0, 1, 2, 0, 0]]
    item = tf.constant([0, 1, 2, 0, 0])
    told = float(contrastive_loss(twice, present, temperature=0.1, item=item))
    untold = float(contrastive_loss(twice, present, temperature=0.1))
    # Item 0 counts three times, and is a negative three times to 1 and 2, but never to itself.
    logits = one[:, 0] @ one[:, 1].T / 0.1
    own = -2 * logits[0, 0] + np.log(np.exp(logits[0]).sum()) + np.log(np.exp(logits[:, 0]).sum())
    rest = 0.0
    for i in (1, 2):
        for line in (logits[i], logits[:, i]):
            rest += -logits[i, i] + np.log((np.exp(line) * [3, 1, 1]).sum())
    assert told == pytest.approx((3 * own + rest) / 10, rel=1e-4)
    assert untold > told + 0.1


def test_the_loss_pulls_modalities_of_one_item_together():
    layer, features = Alignment(4, temperature=0.2), draw(8)
    present = np.ones([8, 2], bool)
    optimizer = tf.keras.optimizers.Adam(0.05)

    def own_and_other():
        vectors = layer(features, present).numpy()
        cosine = vectors[:, 0] @ vectors[:, 1].T
        return np.diag(cosine).mean(), cosine[~np.eye(8, dtype=bool)].mean()

    before = own_and_other()
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = layer.loss(layer(features, present), present)
        weights = layer.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    after = own_and_other()
    assert after[0] - after[1] > before[0] - before[1] + 0.5


def test_temperature_starts_as_told_and_never_falls_below_a_hundredth():
    layer, features, present = Alignment(4, temperature=0.3), draw(), np.ones([6, 2], bool)
    vectors = layer(features, present)
    at = {
        value: float(contrastive_loss(vectors, present, temperature=value)) for value in (0.3, 0.01)
    }
    assert float(layer.loss(vectors, present)) == pytest.approx(at[0.3], rel=1e-5)
    layer.log_temperature.assign(-20.0)
    assert float(layer.loss(vectors, present)) == pytest.approx(at[0.01], rel=1e-5)
