"""What tasks share: each kind beside NumPy, and which task reaches which expert."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config.ranking import SHARINGS as NAMES
from mmrec_tf.errors import ConfigError
from mmrec_tf.ranking.multitask import (
    PLE,
    SHARINGS,
    MMoE,
    SharedBottom,
    UncertaintyWeights,
    both_logit,
)

ROWS, WIDTH = 7, 5


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(layer, width=WIDTH):
    """The layer with weights drawn anew."""
    layer(tf.zeros([1, width]))
    layer.set_weights([normal(*v.shape, seed=2 + i) for i, v in enumerate(layer.get_weights())])
    return layer


def dense(layer, x):
    kernel, bias = layer.get_weights()
    return np.maximum(x @ kernel + bias, 0)


def gated(gate, x, outputs):
    logits = x @ gate.get_weights()[0].astype(np.float64)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return sum(weights[:, i, None] * output for i, output in enumerate(outputs))


def test_there_is_one_for_each_name():
    assert tuple(SHARINGS) == NAMES
    for name, factory in SHARINGS.items():
        layer = factory(num_tasks=3, num_experts=2, hidden=(4, 3), dropout=0.1, name="shared")
        outputs = layer(normal(ROWS, WIDTH))
        assert layer.name == "shared" and [part.shape for part in outputs] == [(ROWS, 3)] * 3
        # Shared by all; 2 experts and 3 gates; twice 8 experts and 3 gates, and one gate between.
        want = {"shared_bottom": 2 * 2, "mmoe": 2 * 2 * 2 + 3, "ple": 2 * (8 * 2 + 3) + 1}
        assert len(layer.weights) == want[name]
        names = [weight.name for weight in layer.weights]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_to_read_or_no_layers_the_inputs_pass(name):
    settings = {"num_tasks": 2, "num_experts": 2}
    for hidden, inputs in ((), normal(ROWS, WIDTH)), ((), normal(ROWS, 0)), ((4,), normal(ROWS, 0)):
        layer = SHARINGS[name](hidden=hidden, **settings)
        outputs = layer(inputs, training=True)
        assert len(outputs) == 2 and not layer.weights
        for part in outputs:
            np.testing.assert_array_equal(part, inputs)


def test_shared_bottom_written_out():
    layer, inputs = built(SharedBottom(2, hidden=(4, 3))), normal(ROWS, WIDTH)
    first, _, second, _ = layer.stack
    for part in layer(inputs):
        np.testing.assert_allclose(part, dense(second, dense(first, inputs)), rtol=1e-4, atol=1e-5)


def test_mmoe_written_out():
    layer = built(MMoE(2, num_experts=3, hidden=(4, 3)))
    inputs = normal(ROWS, WIDTH)
    outputs = [dense(second, dense(first, inputs)) for first, _, second, _ in layer.experts]
    got = layer(inputs)
    for part, gate in zip(got, layer.gates, strict=True):
        np.testing.assert_allclose(part, gated(gate, inputs, outputs), rtol=1e-4, atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 0.1


def test_mmoe_by_hand():
    """Two experts, of one unit that reads one input each; gates of log 3 on the first input."""
    layer = MMoE(2, num_experts=2, hidden=(1,))
    layer(tf.zeros([1, 2]))
    for expert, kernel in zip(layer.experts, ([[1.0], [0.0]], [[0.0], [1.0]]), strict=True):
        expert[0].set_weights([np.array(kernel), np.zeros(1)])
    layer.gates[0].set_weights([np.log([[3.0, 1.0], [1.0, 1.0]])])
    layer.gates[1].set_weights([np.zeros([2, 2])])
    one, other = layer(tf.constant([[1.0, 5.0], [2.0, 0.0]]))
    # The first task weighs them 3 to 1 in the first row and 9 to 1 in the second.
    assert one.numpy().ravel() == pytest.approx([0.75 * 1 + 0.25 * 5, 0.9 * 2])
    assert other.numpy().ravel() == pytest.approx([3, 1])


def test_one_expert_is_the_shared_bottom():
    inputs, shared = normal(ROWS, WIDTH), built(SharedBottom(2, hidden=(4, 3)))
    layer = built(MMoE(2, num_experts=1, hidden=(4, 3)))
    for one, other in zip(layer.experts[0][::2], shared.stack[::2], strict=True):
        one.set_weights(other.get_weights())
    for got, want in zip(layer(inputs), shared(inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_ple_written_out():
    layer = built(PLE(2, num_experts=2, num_shared=1, hidden=(4, 3)))
    inputs = normal(ROWS, WIDTH)
    task_0, task_1, shared = inputs, inputs, inputs
    for level, last in ((0, False), (1, True)):
        experts, gates = layer.experts[level], layer.gates[level]
        of_0, of_1, of_all = (
            [dense(expert[0], x) for expert in group]
            for group, x in zip(experts, (task_0, task_1, shared), strict=True)
        )
        task_0 = gated(gates[0], task_0, of_0 + of_all)
        task_1 = gated(gates[1], task_1, of_1 + of_all)
        if not last:
            # The shared gate weighs all, in the order of its columns.
            columns = of_all + of_0 + of_1
            assert gates[2].units == 5
            shared = gated(gates[2], shared, columns)
        else:
            assert len(gates) == 2 and gates[0].units == 3
    for got, want in zip(layer(inputs), (task_0, task_1), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def reached(layer, task):
    """Names of the weights that a task's output depends on."""
    with tf.GradientTape() as tape:
        outputs = layer(normal(ROWS, WIDTH))
        total = tf.reduce_sum(outputs[task] * normal(*outputs[task].shape, seed=9))
    found = tape.gradient(total, layer.trainable_weights)
    return {
        weight.name.rpartition(":")[0]
        for weight, gradient in zip(layer.trainable_weights, found, strict=True)
        if gradient is not None and np.abs(gradient).max() > 0
    }


@pytest.mark.parametrize(
    "hidden, through",
    # On the first of two levels, what all share weighs every task's experts.
    [((16,), set()), ((16, 16), {"level_0_task_1_0_0/kernel", "level_0_task_1_0_0/bias"})],
)
def test_a_task_does_not_reach_what_is_another_s(hidden, through):
    layer = built(PLE(2, num_experts=1, hidden=hidden))
    names = {name.partition("/")[2] for name in reached(layer, 0)}
    others = {weight.name.partition("/")[2].rpartition(":")[0] for weight in layer.weights} - names
    assert {name for name in names if "task_1" in name} == through
    assert all("task_1" in name for name in others)
    names = {name.partition("/")[2] for name in reached(built(MMoE(2, hidden=hidden)), 0)}
    assert "gate_0/kernel" in names and "gate_1/kernel" not in names


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_for_training(name):
    tf.keras.utils.set_random_seed(0)
    layer = built(SHARINGS[name](num_tasks=2, num_experts=2, hidden=(4, 64), dropout=0.5))
    inputs = normal(ROWS, WIDTH)
    for one, other in zip(layer(inputs), layer(inputs, training=False), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = layer(inputs, training=True)[0], layer(inputs, training=True)[0]
    assert np.abs(first - second).max() > 0.1


# Losses


def test_uncertainty_by_hand():
    layer = UncertaintyWeights(["binary", "regression"])
    losses = [tf.constant(3.0), tf.constant(8.0)]
    assert layer(losses).numpy() == pytest.approx(3 + 8 / 2)
    layer.log_variance.assign(np.log([2.0, 16.0]))
    # A half of 3 and a thirty-second of 8, and the logs of the deviations.
    want = 3 / 2 + 8 / 32 + np.log(2) / 2 + np.log(16) / 2
    assert layer(losses).numpy() == pytest.approx(want)
    assert layer([loss * tf.ones([2]) for loss in losses]).numpy() == pytest.approx([want] * 2)


def test_uncertainty_is_least_where_the_variance_is_that_of_the_errors():
    """Of a squared error that is the loss itself (eq. 7), of a cross-entropy twice it (eq. 10)."""
    layer = UncertaintyWeights(("binary", "regression"))
    losses = [tf.constant(0.7), tf.constant(2.5)]
    layer(losses)
    layer.log_variance.assign(np.log([2 * 0.7, 2.5]))
    with tf.GradientTape() as tape:
        total = layer(losses)
    np.testing.assert_allclose(tape.gradient(total, layer.log_variance), [0, 0], atol=1e-6)
    for move in ([0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]):
        layer.log_variance.assign_add(move)
        assert layer(losses) > total
        layer.log_variance.assign_sub(move)


def test_uncertainty_refuses():
    with pytest.raises(ConfigError, match="wanted some of binary, regression; got 'click'"):
        UncertaintyWeights(["binary", "click"])
    layer = UncertaintyWeights(["binary", "regression"])
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"one for each of 2 tasks; got {count}"):
            layer([tf.constant(1.0)] * count)


# The entire space


def test_the_logit_of_both_is_that_of_the_product():
    first, second = normal(50) * 3, normal(50, seed=1) * 3

    def sigmoid(x):
        return 1 / (1 + np.exp(-x.astype(np.float64)))

    product = sigmoid(first) * sigmoid(second)
    got = both_logit(tf.constant(first), tf.constant(second))
    np.testing.assert_allclose(got, np.log(product / (1 - product)), atol=1e-5)
    # Where a difference to 1 would be all rounding, and where both are nearly sure or nearly out.
    far = both_logit(tf.constant([-60.0, 40.0, 90.0]), tf.constant([-50.0, 40.0, 20.0]))
    np.testing.assert_allclose(far, [-110.0, 40.0 - np.log(2), 20.0], rtol=1e-6)
