"""Fusion: who has a say in an item's vector, and how much."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config import FUSIONS as NAMES
from mmrec_tf.errors import ConfigError
from mmrec_tf.fusion import FUSIONS, build_fusion, masked_softmax

PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)


def draw(seed=0):
    return np.random.default_rng(seed).normal(size=[4, 3, 5]).astype(np.float32)


@pytest.fixture(params=list(FUSIONS))
def fusion(request):
    """With weights drawn anew, as after training."""
    layer = build_fusion(request.param)
    layer(draw(), PRESENT)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=value.shape) for value in layer.get_weights()])
    return layer


def test_config_and_layers_know_the_same_names():
    assert tuple(FUSIONS) == NAMES


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="wanted one of mean, .*; got 'median'"):
        build_fusion("median")


def test_the_vector_is_the_weighted_sum(fusion):
    modalities = draw()
    vector, weights = fusion(modalities, PRESENT)
    np.testing.assert_allclose(vector, np.einsum("bm,bmd->bd", weights, modalities), atol=1e-6)


def test_weights_are_shared_out_among_what_is_present(fusion):
    weights = fusion(draw(), PRESENT)[1].numpy()
    assert (weights[~PRESENT] == 0).all()
    assert (weights[PRESENT] > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0], atol=1e-6)


def test_an_absent_modality_has_no_influence(fusion):
    before, other = draw(), draw(2)
    after = np.where(PRESENT[:, :, None], before, 1e6 * other)
    assert not np.array_equal(before, after)
    for one, two in zip(fusion(before, PRESENT), fusion(after, PRESENT), strict=True):
        np.testing.assert_array_equal(one, two)


def test_not_even_what_is_no_number(fusion):
    after = np.where(PRESENT[:, :, None], draw(), np.nan).astype(np.float32)
    assert all(np.isfinite(part).all() for part in fusion(after, PRESENT))


def test_an_item_without_content_is_zeros(fusion):
    vector, weights = fusion(draw(), PRESENT)
    assert not vector[3].numpy().any() and not weights[3].numpy().any()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fusion(draw(), np.zeros_like(PRESENT))[0])
    weights = fusion.trainable_weights
    for gradient in tape.gradient(loss, weights, unconnected_gradients="zero"):
        assert np.isfinite(gradient).all()


def test_mean_is_the_mean_of_what_is_present():
    modalities = draw()
    vector, _ = build_fusion("mean")(modalities, PRESENT)
    np.testing.assert_allclose(vector[1], modalities[1, [0, 2]].mean(axis=0), atol=1e-6)


def test_weighted_gives_each_item_the_same_weights():
    layer = build_fusion("weighted")
    layer(draw(), PRESENT)
    layer.set_weights([np.log([1.0, 2.0, 5.0])])
    weights = layer(draw(), PRESENT)[1].numpy()
    np.testing.assert_allclose(weights[0], [1 / 8, 2 / 8, 5 / 8], atol=1e-6)
    np.testing.assert_allclose(weights[1], [1 / 6, 0, 5 / 6], atol=1e-6)


@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_weights_follow_the_content(kind):
    layer = build_fusion(kind)
    everything = np.ones_like(PRESENT)
    layer(draw(), everything)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=value.shape) for value in layer.get_weights()])
    weights = layer(draw(), everything)[1].numpy()
    assert np.ptp(weights, axis=0).min() > 0.1


@pytest.mark.parametrize("kind", ["weighted", "gated"])
def test_before_training_all_count_alike(kind):
    weights = build_fusion(kind)(draw(), PRESENT)[1]
    np.testing.assert_allclose(weights, PRESENT / np.maximum(PRESENT.sum(1, keepdims=True), 1))


def test_a_masked_logit_takes_no_share_however_high():
    weights = masked_softmax(tf.constant([[50.0, 0.0, 0.0]]), tf.constant([[False, True, True]]))
    np.testing.assert_allclose(weights, [[0, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_logits_are_no_harm(shift):
    logits = tf.constant([[0.0, np.log(3.0), 9.0]]) + shift
    weights = masked_softmax(logits, tf.constant([[True, True, False]]))
    np.testing.assert_allclose(weights, [[0.25, 0.75, 0]], atol=1e-3)
