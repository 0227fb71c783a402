"""Fusion: who has a say in an item's vector, and how much."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config import FUSIONS as NAMES
from mmrec_tf.errors import ConfigError
from mmrec_tf.towers.fusion import FUSIONS, build_fusion, shares
from mmrec_tf.towers.masking import masked_softmax
from mmrec_tf.towers.missing import MissingModality

SUMS = ("mean", "weighted", "gated", "attention")
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


def drawn(kind, modalities, present):
    """The layer with weights drawn anew, its weights by name, and what it answers."""
    layer = build_fusion(kind, name=kind)
    layer(modalities, present)
    rng = np.random.default_rng(1)
    layer.set_weights([0.7 * rng.normal(size=value.shape) for value in layer.get_weights()])
    weights = {weight.name.removesuffix(":0"): weight.numpy() for weight in layer.weights}
    vector, shared = layer(modalities, present)
    return weights, vector.numpy(), shared.numpy()


def lengths_shared(parts, present):
    """<float>[batch, modality, dim] -> the share of each part's length."""
    lengths = np.where(present, np.linalg.norm(parts, axis=-1), 0)
    return lengths / np.maximum(lengths.sum(axis=1, keepdims=True), 1e-9)


@pytest.mark.parametrize("kind", SUMS)
def test_the_vector_is_the_weighted_sum(kind):
    modalities = draw()
    _, vector, weights = drawn(kind, modalities, PRESENT)
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


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("mean", 0),
        ("weighted", 3),
        ("gated", 3 * 5 * 3 + 3),
        ("attention", 5 * 5 + 5 + 3 * 5 + 5),
        ("concat", 3 * (5 + 1) * 5 + 5),
        ("transformer", 6 * 5 * 5 + (3 + 13) * 5),
        ("recurrent", 6 * 5 * (5 + 1)),
        ("bilinear", 3 * 4 * (5 + 1) * 5 + 4 + 5),
    ],
)
def test_number_of_parameters(kind, count):
    layer = build_fusion(kind)
    layer(draw(), PRESENT)
    assert layer.count_params() == count


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_single_modality_has_all_the_weight(kind):
    modalities = draw()[:, :1]
    weights = drawn(kind, modalities, PRESENT[:, :1])[2]
    np.testing.assert_allclose(weights, [[1], [1], [0], [0]], atol=1e-6)


@pytest.mark.parametrize("kind", ["concat", "transformer", "recurrent", "bilinear"])
def test_untrained_the_vector_is_about_as_long_as_a_modality(kind):
    """So that it neither drowns an id embedding nor drowns beside it."""
    modalities = np.random.default_rng(0).normal(size=[100, 3, 64]).astype(np.float32)
    modalities /= np.linalg.norm(modalities, axis=-1, keepdims=True)
    tf.keras.utils.set_random_seed(0)
    vector = build_fusion(kind)(modalities, np.ones([100, 3], bool))[0]
    assert 0.1 < np.linalg.norm(vector, axis=1).mean() < 3


def test_concat_is_one_dense_layer_over_everything_and_the_bits():
    modalities = draw()
    weights, vector, shared = drawn("concat", modalities, PRESENT)
    side_by_side = np.concatenate(
        [(modalities * PRESENT[:, :, None]).reshape(4, 15), PRESENT.astype(float)], axis=1
    )
    matrix = np.concatenate([weights["concat/kernel"].reshape(15, 5), weights["concat/presence"]])
    dense = side_by_side @ matrix + weights["concat/bias"]
    np.testing.assert_allclose(vector[:3], dense[:3], atol=1e-5)
    # What each modality and its bit add to the row of item 1, which has 0 and 2.
    first = side_by_side[1, :5] @ matrix[:5] + matrix[15]
    last = side_by_side[1, 10:15] @ matrix[10:15] + matrix[17]
    parts = np.stack([first, np.zeros(5), last])
    want = lengths_shared(parts[None], PRESENT[1:2])
    np.testing.assert_allclose(shared[1:2], want, atol=1e-5)


def normed(x, gamma, beta):
    centered = x - x.mean(axis=-1, keepdims=True)
    return gamma * centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-3) + beta


def test_transformer_is_an_encoder_block_read_at_the_query():
    """All rows of the block are computed here, absent modalities left out one item at a time."""
    modalities = draw()
    w, vector, shared = drawn("transformer", modalities, PRESENT)
    w = {name.removeprefix("transformer/"): value for name, value in w.items()}

    def norm(name, x):
        return normed(x, w[f"{name}/gamma"], w[f"{name}/beta"])

    def heads(name, x):
        return x @ w[f"attention/{name}/kernel"][:, 0] + w[f"attention/{name}/bias"][0]

    for i in range(3):
        tokens = (modalities[i] + w["kind"])[PRESENT[i]]
        x = np.concatenate([w["query"][None], tokens])
        n = norm("token_norm", x)
        scores = np.exp(heads("query", n) @ heads("key", n).T / 5**0.5)
        scores /= scores.sum(axis=1, keepdims=True)
        attended = scores @ heads("value", n) @ w["attention/attention_output/kernel"][0]
        x = x + attended + w["attention/attention_output/bias"]
        hidden = norm("hidden_norm", x) @ w["hidden/kernel"] + w["hidden/bias"]
        hidden = tf.nn.gelu(hidden).numpy()
        x = x + hidden @ w["output/kernel"] + w["output/bias"]
        np.testing.assert_allclose(vector[i], norm("norm", x)[0], atol=1e-4)
        want = scores[0, 1:] / scores[0, 1:].sum()
        np.testing.assert_allclose(shared[i][PRESENT[i]], want, atol=1e-4)


def test_transformer_does_not_depend_on_the_order_but_through_the_kind():
    modalities, order = draw(), [2, 0, 1]
    layer = build_fusion("transformer")
    before = layer(modalities, PRESENT)[0]
    after = layer(modalities[:, order], PRESENT[:, order])[0]
    np.testing.assert_allclose(before, after, atol=1e-5)
    layer.kind.assign(draw(3)[0])
    assert np.abs(layer(modalities, PRESENT)[0] - before).max() > 0.01


def test_recurrent_is_a_gru_over_what_is_present():
    modalities = draw()
    w, vector, shared = drawn("recurrent", modalities, PRESENT)
    kernel, recurrent, (bias, recurrent_bias) = (
        w[f"recurrent/{name}"] for name in ("kernel", "recurrent_kernel", "bias")
    )

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for i in range(3):
        state, parts = np.zeros(5), np.zeros([3, 5])
        for m in np.flatnonzero(PRESENT[i]):
            update, reset, new = np.split(modalities[i, m] @ kernel + bias, 3)
            its_update, its_reset, its_new = np.split(state @ recurrent + recurrent_bias, 3)
            z, r = sigmoid(update + its_update), sigmoid(reset + its_reset)
            after = z * state + (1 - z) * np.tanh(new + r * its_new)
            state, parts[m] = after, after - state
        np.testing.assert_allclose(vector[i], state, atol=1e-5)
        want = lengths_shared(parts[None], PRESENT[i : i + 1])[0]
        np.testing.assert_allclose(shared[i], want, atol=1e-4)


def test_bilinear_is_a_product_with_the_whole_tensor_of_modalities():
    """The weights' tensor over (modality 0, 1, 2, output) is made in full and contracted with the
    outer product of the modalities, each with its 1; an absent one is the 1 of the factor."""
    modalities = draw()
    w, vector, shared = drawn("bilinear", modalities, PRESENT)
    factors, mix, bias = (w[f"bilinear/{name}"] for name in ("factors", "mix", "bias"))
    x = np.concatenate([modalities, np.ones([4, 3, 1])], axis=2)

    def contract(i, present):
        letters = ["abc"[m] for m in range(3) if present[m]]
        shapes = ",".join(f"r{letter}o" for letter in letters)
        kept = [factors[m] for m in range(3) if present[m]]
        tensor = np.einsum(f"r,{shapes}->{''.join(letters)}o", mix, *kept)
        for m in np.flatnonzero(present):
            tensor = np.tensordot(x[i, m], tensor, axes=(0, 0))
        return tensor

    for i in range(3):
        whole = contract(i, PRESENT[i])
        np.testing.assert_allclose(vector[i], whole + bias, rtol=1e-4, atol=1e-4)
    moves = []
    for m in range(3):
        others = np.arange(3) != m
        moves.append(contract(0, [True] * 3) - contract(0, others))
    want = lengths_shared(np.array([moves]), PRESENT[:1])
    np.testing.assert_allclose(shared[:1], want, atol=1e-4)


def test_shares_are_lengths_of_what_is_present():
    parts = np.array([[[3, 4], [0, 15], [9, 9]], [[0, 0], [0, 0], [1, 0]]], np.float32)
    present = np.array([[1, 1, 0], [1, 1, 0]], bool)
    want = [[0.25, 0.75, 0], [0.5, 0.5, 0]]
    np.testing.assert_allclose(shares(parts, present), want, atol=1e-6)


def test_no_gradient_goes_through_shares():
    parts = tf.zeros([1, 2, 3])
    with tf.GradientTape() as tape:
        tape.watch(parts)
        total = tf.reduce_sum(shares(parts, np.array([[True, True]])))
    assert tape.gradient(total, parts) is None


USED = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)


def test_an_unknown_stand_in_is_refused():
    with pytest.raises(ConfigError, match="wanted one of skip, .*; got 'zeros'"):
        MissingModality("zeros")


@pytest.mark.parametrize("kind", ["skip", "nearest"])
def test_nothing_stands_in(kind):
    modalities, usable = MissingModality(kind)(draw(), PRESENT, USED, training=True)
    np.testing.assert_array_equal(modalities, draw())
    np.testing.assert_array_equal(usable, USED)


def test_a_learned_vector_stands_in():
    layer = MissingModality("token")
    modalities, usable = layer(draw(), PRESENT, USED)
    # Item 2 has a modality, which dropout hid: it is left with nothing, as item 3.
    np.testing.assert_array_equal(usable, [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    for i, m in np.ndindex(4, 3):
        want = draw()[i, m] if USED[i, m] else layer.token[m]
        np.testing.assert_array_equal(modalities[i, m], want)
    assert layer.count_params() == 3 * 5 and len(layer.trainable_weights) == 1


def test_the_mean_of_the_others_stands_in():
    layer, modalities = MissingModality("mean"), draw()
    modalities[~PRESENT] = np.nan
    present = PRESENT & [True, False, True]
    modalities[~present] = np.nan
    for _ in range(2):
        filled, usable = layer(modalities, present, USED & present, training=True)
    # After two steps: 1 - 0.99 ** 2 of the way from zeros. Nobody has modality 1.
    means = [modalities[:2, 0].mean(axis=0), np.zeros(5), modalities[:3, 2].mean(axis=0)]
    want = (1 - 0.99**2) * np.stack(means)
    np.testing.assert_allclose(layer.mean, want, atol=1e-6)
    np.testing.assert_allclose(filled[0, 1], want[1], atol=1e-6)
    np.testing.assert_allclose(filled[1, 2], want[2], atol=1e-6)
    np.testing.assert_array_equal(filled[0, 0], modalities[0, 0])
    np.testing.assert_array_equal(usable[:, 0], [True, True, False, False])
    assert np.isfinite(filled).all()
    assert not layer.trainable_weights


def test_the_mean_moves_in_training_only():
    layer = MissingModality("mean")
    layer(draw(), PRESENT, USED)
    assert not layer.mean.numpy().any()
    step = tf.function(lambda: layer(draw(), PRESENT, USED, training=True), jit_compile=True)
    step()
    assert layer.mean.numpy().all()


def test_an_item_without_content_gets_no_stand_in():
    for kind in ("token", "mean"):
        modalities, usable = MissingModality(kind)(draw(), PRESENT, PRESENT)
        vector, weights = build_fusion("mean")(modalities, usable)
        assert not vector[3].numpy().any() and not weights[3].numpy().any()
        assert weights[2].numpy().all()
