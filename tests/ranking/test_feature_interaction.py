"""How features meet, by hand and beside NumPy; what attention to a candidate weighs."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmrec_tf.config.ranking import ARCHITECTURES
from mmrec_tf.ranking.feature_interaction import (
    INTERACTIONS,
    BilinearProduct,
    Cross,
    DotInteraction,
    FactorizationMachine,
    Flattened,
    TargetAttention,
)

ROWS, FIELDS, DIM, NUMBERS = 6, 4, 5, 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def pair():
    return normal(ROWS, FIELDS, DIM), normal(ROWS, NUMBERS, seed=1)


def built(layer, inputs):
    """The layer with weights drawn anew."""
    layer(inputs)
    layer.set_weights([normal(*v.shape, seed=2 + i) for i, v in enumerate(layer.get_weights())])
    return layer


# Interactions


def test_there_is_one_for_each_name(pair):
    assert tuple(INTERACTIONS) == ARCHITECTURES
    for name, factory in INTERACTIONS.items():
        layer = factory(num_cross_layers=3, projection_dim=2, name="interaction")
        deep, wide = layer(pair)
        assert layer.name == "interaction"
        assert deep.shape[0] == wide.shape[0] == ROWS
        assert len(layer.weights) == {"dcn": 9, "dlrm": 2, "bilinear": 2}.get(name, 0)
        deep, wide = factory(num_cross_layers=1, projection_dim=0)((pair[0], pair[1][:, :0]))
        assert np.isfinite(deep).all() and np.isfinite(wide).all()


def test_flattened_is_all_side_by_side(pair):
    deep, wide = Flattened()(pair)
    np.testing.assert_array_equal(
        deep, np.concatenate([pair[0].reshape(ROWS, -1), pair[1]], axis=1)
    )
    assert wide.shape == (ROWS, 0)


@pytest.mark.parametrize("count, rank", [(0, 0), (1, 0), (3, 0), (2, 4)])
def test_cross_layers_written_out(pair, count, rank):
    layer = built(Cross(num_cross_layers=count, projection_dim=rank), pair)
    start = np.concatenate([pair[0].reshape(ROWS, -1), pair[1]], axis=1)
    x = start.astype(np.float64)
    for cross in layer.crosses:
        *maps, bias = cross.get_weights()
        assert len(maps) == (2 if rank else 1) and maps[0].shape[1] == (rank or start.shape[1])
        mapped = x
        for kernel in maps:
            mapped = mapped @ kernel
        x = start * (mapped + bias) + x
    deep, wide = layer(pair)
    np.testing.assert_allclose(deep, x, rtol=1e-4, atol=1e-3 * np.abs(x).max())
    assert wide.shape == (ROWS, 0)


def test_dot_products_by_hand():
    fields = tf.constant([[[1.0, 2.0], [3.0, 4.0], [-1.0, 1.0]]])
    layer = DotInteraction()
    layer((fields, tf.ones([1, 2])))
    layer.set_weights([np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.0, -5.0])])
    # The numbers (2, 1) become (3, 1 - 5), of which the second is cut off at 0.
    deep, wide = layer((fields, tf.constant([[2.0, 1.0]])))
    assert deep.numpy().tolist() == [[3, 0, 11, 1, 1, 3, 9, -3]]
    assert wide.shape == (1, 0)


def test_dot_products_are_those_of_tensorflow_recommenders(pair):
    layer = built(DotInteraction(), pair)
    deep, _ = layer(pair)
    numbers = np.maximum(pair[1] @ layer.bottom.get_weights()[0] + layer.bottom.get_weights()[1], 0)
    np.testing.assert_allclose(deep[:, :DIM], numbers, rtol=1e-5, atol=1e-6)
    plain = tfrs.layers.feature_interaction.DotInteraction()
    want = plain([*tf.unstack(pair[0], axis=1), tf.constant(numbers)])
    np.testing.assert_allclose(deep[:, DIM:], want, rtol=1e-4, atol=1e-5)
    assert deep.shape[1] == DIM + (FIELDS + 1) * FIELDS // 2


def test_factorization_machine_by_hand():
    fields = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    deep, wide = FactorizationMachine()((fields, tf.constant([[7.0]])))
    # 3 + 8, 5 + 12 and 15 + 24.
    assert wide.numpy().tolist() == [[67, 7]]
    assert deep.numpy().tolist() == [[1, 2, 3, 4, 5, 6, 7]]


def test_factorization_machine_is_the_sum_over_pairs(pair):
    _, wide = FactorizationMachine()(pair)
    want = sum((pair[0][:, i] * pair[0][:, j]).sum(axis=1) for i in range(FIELDS) for j in range(i))
    np.testing.assert_allclose(wide[:, 0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(wide[:, 1:], pair[1])


def test_bilinear_starts_as_the_dot_product(pair):
    deep, wide = BilinearProduct()(pair)
    np.testing.assert_allclose(wide, pair[0][:, 0] * pair[0][:, 1], rtol=1e-6)
    assert deep.shape == (ROWS, 0)


def test_bilinear_reads_user_and_item_and_nothing_else(pair):
    layer = built(BilinearProduct(), pair)
    one, other = layer.user.get_weights()[0], layer.item.get_weights()[0]
    want = (pair[0][:, 0] @ one) * (pair[0][:, 1] @ other)
    np.testing.assert_allclose(layer(pair)[1], want, rtol=1e-4, atol=1e-5)
    changed = pair[0].copy()
    changed[:, 2:] = 9
    np.testing.assert_array_equal(layer((changed, pair[1] + 1))[1], layer(pair)[1])


# Attention to a candidate

CANDIDATES, STEPS, HIDDEN = 3, 4, 6
KNOWN = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)


def attention_inputs(batch=4):
    return normal(batch, CANDIDATES, DIM), normal(batch, STEPS, DIM, seed=1), KNOWN[:batch]


def unit_written_out(candidate, step, kernel, bias, last, offset):
    """The activation unit of the paper, over all four parts side by side."""
    x = np.concatenate([step, candidate, step * candidate, step - candidate])
    return np.maximum(x @ kernel + bias, 0) @ last + offset


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("compiled", [False, True])
def test_target_attention_written_out(normalize, compiled):
    inputs = attention_inputs()
    layer = TargetAttention(HIDDEN, normalize=normalize)
    layer(inputs)
    parts = normal(4, DIM, HIDDEN, seed=2)
    bias, last = normal(HIDDEN, seed=3), normal(HIDDEN, seed=4)
    offset = 0.0 if normalize else 0.7
    layer.of_step.set_weights([parts[0] + parts[3], bias])
    layer.of_candidate.set_weights([parts[1] - parts[3]])
    layer.of_product.assign(parts[2])
    layer.logit.set_weights([last[:, None]] if normalize else [last[:, None], np.array([offset])])
    want = np.zeros([4, CANDIDATES, STEPS])
    for row, column in np.ndindex(4, CANDIDATES):
        logits = [
            unit_written_out(
                inputs[0][row, column], step, np.concatenate(parts), bias, last, offset
            )
            for step in inputs[1][row][KNOWN[row]]
        ]
        if normalize and logits:
            logits = np.exp(logits) / np.exp(logits).sum()
        want[row, column, KNOWN[row]] = logits
    pooled, weights = tf.function(layer, jit_compile=compiled)(inputs)
    np.testing.assert_allclose(weights, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooled, want @ inputs[1].astype(np.float64), rtol=1e-4, atol=1e-4)
    assert not np.any(pooled[3]) and not np.any(weights[3])


@pytest.mark.parametrize("normalize", [True, False])
def test_steps_that_are_not_known_are_not_read(normalize):
    candidate, history, known = attention_inputs()
    layer = built(TargetAttention(HIDDEN, normalize=normalize), (candidate, history, known))
    filled = tf.constant(np.where(known[:, :, None], history, np.float32(np.nan)))
    candidate = tf.constant(candidate)
    with tf.GradientTape() as tape:
        tape.watch([candidate, filled])
        pooled, weights = layer((candidate, filled, known))
        total = tf.reduce_sum(tf.square(pooled))
    gradients = tape.gradient(total, [candidate, filled, *layer.trainable_weights])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not gradients[1].numpy()[~known].any()
    for got, want in zip((pooled, weights), layer((candidate, history, known)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_step_that_stands_twice_weighs_twice():
    candidate, history, _ = attention_inputs()
    history[:, 1] = history[:, 0]
    three = np.tile([True, True, True, False], [4, 1])
    layer = built(TargetAttention(HIDDEN), (candidate, history, three))
    weights = layer((candidate, history, three))[1].numpy()
    np.testing.assert_allclose(weights[:, :, 0], weights[:, :, 1], rtol=1e-5)
    alone = layer((candidate, history, three & [True, False, True, True]))[1].numpy()
    np.testing.assert_allclose(
        weights[:, :, 0] / weights[:, :, 2], alone[:, :, 0] / alone[:, :, 2], rtol=1e-3
    )


def test_candidates_do_not_see_each_other():
    candidate, history, known = attention_inputs()
    layer = built(TargetAttention(HIDDEN), (candidate, history, known))
    together = layer((candidate, history, known))
    for place in range(CANDIDATES):
        alone = layer((candidate[:, place : place + 1], history, known))
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[:, 0], all_of_them[:, place], rtol=1e-4, atol=1e-6)
    # They differ in what they attend to.
    assert np.ptp(together[1][0], axis=0).max() > 0.05


@pytest.mark.parametrize("batch, candidates, steps", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
@pytest.mark.parametrize("normalize", [True, False])
def test_nothing_to_attend_to(batch, candidates, steps, normalize):
    layer = TargetAttention(HIDDEN, normalize=normalize)
    layer(attention_inputs())
    pooled, weights = layer(
        (
            tf.ones([batch, candidates, DIM]),
            tf.ones([batch, steps, DIM]),
            tf.ones([batch, steps], tf.bool),
        )
    )
    assert weights.shape == (batch, candidates, steps)
    assert pooled.shape == (batch, candidates, DIM)
    assert steps or not np.any(pooled)


def test_no_tensor_is_as_large_as_all_parts_of_all_pairs():
    """Gradients included: hidden units, and not dimensions, of each pair of candidate and step."""
    batch, candidates, steps, dim, hidden = 2, 9, 30, 16, 4
    layer = TargetAttention(hidden)

    @tf.function
    def gradients(candidate, history, known):
        with tf.GradientTape() as tape:
            tape.watch([candidate, history])
            pooled, _ = layer((candidate, history, known))
        return tape.gradient(pooled, [candidate, history, *layer.trainable_weights])

    inputs = [
        tf.zeros([batch, candidates, dim]),
        tf.zeros([batch, steps, dim]),
        tf.ones([batch, steps], tf.bool),
    ]
    graph = gradients.get_concrete_function(*inputs).graph
    tensors = [tensor for op in graph.get_operations() for tensor in op.outputs]
    largest = max(tensor.shape.num_elements() or 0 for tensor in tensors)
    assert largest == batch * candidates * steps * hidden


def test_it_learns_to_find_the_candidate_in_the_history():
    """The label says whether the candidate was met: the step that is the candidate has to weigh."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=[20, 8])
    items = tf.constant(items / np.linalg.norm(items, axis=1, keepdims=True), tf.float32)
    history = np.stack([rng.permutation(20)[:6] for _ in range(256)])
    met = np.arange(256) % 2 == 0
    absent = [rng.choice(np.setdiff1d(np.arange(20), row)) for row in history]
    candidate = np.where(met, history[:, 3], absent)
    inputs = (
        tf.gather(items, candidate)[:, None],
        tf.gather(items, history),
        tf.ones([256, 6], tf.bool),
    )
    tf.keras.utils.set_random_seed(0)
    layer, scale = TargetAttention(16), tf.Variable([5.0, -2.0])
    optimizer = tf.keras.optimizers.Adam(0.02)
    layer(inputs)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            pooled, weights = layer(inputs, training=True)
            likeness = tf.reduce_sum(pooled * inputs[0], axis=2)[:, 0]
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    tf.constant(met, tf.float32), scale[0] * likeness + scale[1]
                )
            )
        variables = [*layer.trainable_weights, scale]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return weights

    weighed = [step().numpy()[met, 0, 3].mean() for _ in range(120)]
    assert weighed[0] < 0.4 and weighed[-1] > 0.8
