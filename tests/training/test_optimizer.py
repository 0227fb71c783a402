"""The optimizer against NumPy: rows that stay as they are, schedules, groups, accumulation."""

import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import RetrievalModel
from mmrec_tf.config import TrainingConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.training.fit import train
from mmrec_tf.training.optimizer import AdamW, WarmupDecay, build_optimizer, sum_rows
from mmrec_tf.training.step import apply_step

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RATE, DECAY, EPSILON = 0.1, 0.05, 1e-7


def slices(values, rows, height=6):
    values, rows = tf.convert_to_tensor(values, tf.float32), tf.convert_to_tensor(rows, tf.int32)
    return tf.IndexedSlices(values, rows, tf.constant([height, 2]))


class Reference:
    """AdamW of one table in NumPy, as algorithm 2 of Loshchilov and Hutter has it, on some rows."""

    def __init__(self, value, rate=RATE, decay=DECAY):
        self.value, self.rate, self.decay = np.array(value, np.float64), rate, decay
        self.m, self.v, self.step = np.zeros_like(self.value), np.zeros_like(self.value), 0

    def update(self, gradient, rows=slice(None)):
        self.step += 1
        self.m[rows] = 0.9 * self.m[rows] + 0.1 * gradient
        self.v[rows] = 0.999 * self.v[rows] + 0.001 * np.square(gradient)
        m, v = self.m[rows] / (1 - 0.9**self.step), self.v[rows] / (1 - 0.999**self.step)
        change = m / (np.sqrt(v) + EPSILON / np.sqrt(1 - 0.999**self.step))
        self.value[rows] -= self.rate * (change + self.decay * self.value[rows])


def optimizer_of(**settings):
    return AdamW(**{"learning_rate": RATE, "weight_decay": DECAY, **settings})


def moments(optimizer):
    return [optimizer._momentums[0].numpy(), optimizer._velocities[0].numpy()]


def table(seed=0):
    return np.random.default_rng(seed).normal(size=(6, 2)).astype(np.float32)


# Rows


def test_dense_gradients_are_those_of_adamw():
    rng = np.random.default_rng(0)
    ours, theirs, want = tf.Variable(table()), tf.Variable(table()), Reference(table())
    one = optimizer_of(global_clipnorm=1.5)
    other = tf.keras.optimizers.AdamW(RATE, weight_decay=DECAY, global_clipnorm=1.5)
    for _ in range(4):
        gradient = rng.normal(size=(6, 2)).astype(np.float32)
        one.apply_gradients([(tf.constant(gradient), ours)])
        other.apply_gradients([(tf.constant(gradient), theirs)])
        want.update(gradient * min(1, 1.5 / np.linalg.norm(gradient)))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(ours, want.value, atol=1e-5)


@pytest.mark.parametrize("compiled", [None, False, True])
def test_rows_by_hand_and_no_other(compiled):
    """Duplicates are summed first; a row whose gradient is zero counts as not met."""
    variable, want = tf.Variable(table()), Reference(table())
    optimizer = optimizer_of()

    def step(values, rows):
        optimizer.apply_gradients([(slices(values, rows), variable)])

    if compiled is not None:
        optimizer.build([variable])
        step = tf.function(
            step,
            jit_compile=compiled,
            input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int32)],
        )
    step(tf.constant([[1.0, 2], [3, 4], [0, 0], [5, 6]]), tf.constant([4, 1, 0, 4]))
    want.update(np.array([[6, 8], [3, 4]]), [4, 1])
    np.testing.assert_allclose(variable, want.value, atol=1e-5)
    np.testing.assert_array_equal(variable.numpy()[[0, 2, 3, 5]], table()[[0, 2, 3, 5]])
    for have, wanted in zip(moments(optimizer), (want.m, want.v), strict=True):
        np.testing.assert_allclose(have, wanted, atol=1e-6)
    # Row 4 rests and row 1 goes on, though row 4 has momentum; row 0 comes in late.
    before = variable.numpy()[4]
    step(tf.constant([[1.0, -1], [2, 2], [-2, -2]]), tf.constant([0, 1, 1]))
    want.update(np.array([[1, -1]]), [0])
    np.testing.assert_array_equal(variable.numpy()[4], before)
    np.testing.assert_allclose(variable, want.value, atol=1e-5)
    # Nothing met at all, and no slice.
    step(tf.zeros([3, 2]), tf.constant([0, 5, 0]))
    step(tf.zeros([0, 2]), tf.zeros([0], tf.int32))
    np.testing.assert_allclose(variable, want.value, atol=1e-5)
    assert int(optimizer.iterations) == 4


def test_the_slices_of_all_rows_make_the_dense_step():
    rng = np.random.default_rng(0)
    one, other = tf.Variable(table()), tf.Variable(table())
    sparse, dense = optimizer_of(global_clipnorm=1.0), optimizer_of(global_clipnorm=1.0)
    for _ in range(3):
        gradient = rng.normal(size=(6, 2)).astype(np.float32)
        order = rng.permutation(6)
        # Each row in two parts, so that the norm of the parts is not that of the sum.
        values, rows = np.concatenate([3 * gradient[order], -2 * gradient]), [*order, *range(6)]
        sparse.apply_gradients([(slices(values, rows), one)])
        dense.apply_gradients([(tf.constant(gradient), other)])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_slices_of_numbers_and_of_matrices():
    for shape in ([6], [6, 2, 3]):
        value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        variable, want = tf.Variable(value), Reference(value)
        gradient = np.ones([2, *shape[1:]], np.float32)
        optimizer_of().apply_gradients([(tf.IndexedSlices(gradient, [3, 3]), variable)])
        want.update(2 * gradient[:1], [3])
        np.testing.assert_allclose(variable, want.value, atol=1e-5)


def test_sum_rows():
    got = sum_rows(slices([[1, 1], [2, 2], [4, 4]], [5, 0, 5]))
    np.testing.assert_array_equal(got.indices, [5, 0, 0])
    np.testing.assert_array_equal(got.values, [[5, 5], [2, 2], [0, 0]])
    assert sum_rows(slices(np.zeros([0, 2]), [])).values.shape == (0, 2)
    dense = tf.ones([3])
    assert sum_rows(dense) is dense


def test_nothing_in_a_step_is_as_tall_as_the_table():
    variable = tf.Variable(tf.ones([1000, 2]))
    optimizer = build_optimizer(TrainingConfig(clip_norm=1.0))
    optimizer.build([variable])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(variable, [3, 4, 3]) ** 2)
        gradients = tape.gradient(loss, [variable])
        optimizer.apply_gradients(zip(gradients, [variable], strict=True))

    operations = step.get_concrete_function().graph.get_operations()
    assert "ResourceScatterAdd" in {operation.type for operation in operations}
    outputs = [output for operation in operations for output in operation.outputs]
    assert not [output for output in outputs if 1000 in (output.shape or [])]


def test_loss_scaling_wraps_it():
    training = TrainingConfig(mixed_precision=True, learning_rate=RATE, weight_decay=DECAY)
    optimizer = build_optimizer(training)
    variable, want = tf.Variable(table()), Reference(table())
    scale = float(optimizer.loss_scale)
    for values in ([[1.0, 2], [3, 4]], [[np.inf, 1], [1, 1]]):
        gradients = optimizer.get_unscaled_gradients([slices(np.multiply(values, scale), [1, 1])])
        optimizer.apply_gradients(zip(gradients, [variable], strict=True))
    # The second is not finite: it is left out, and the scale is halved.
    want.update(np.array([[4, 6]]), [1])
    np.testing.assert_allclose(variable, want.value, atol=1e-5)
    assert float(optimizer.loss_scale) == scale / 2


# Groups and schedules


def test_groups_take_their_share_of_rate_and_decay():
    variables = [tf.Variable(table()) for _ in range(3)]
    optimizer = optimizer_of(factors=[(variables[1], 0.25), (variables[2], 0.25)])
    gradients = [tf.ones([6, 2]), tf.ones([6, 2]), slices([[1, 1]], [2])]
    for _ in range(2):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    groups = zip(variables, (1, 0.25, 0.25), (slice(6), slice(6), [2]), strict=True)
    for variable, rate, rows in groups:
        want = Reference(table(), rate=rate * RATE)
        want.update(np.ones([1, 2]), rows)
        want.update(np.ones([1, 2]), rows)
        np.testing.assert_allclose(variable, want.value, atol=1e-5)


@pytest.mark.parametrize(
    ("warmup", "decay", "want"),
    [
        (0, "none", [1, 1, 1, 1, 1, 1, 1]),
        (4, "none", [0.25, 0.5, 0.75, 1, 1, 1, 1]),
        (0, "linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
        (2, "linear", [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        (2, "cosine", [0.5, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
    ],
)
def test_schedules_by_hand(warmup, decay, want):
    schedule = WarmupDecay(2.0, warmup_steps=warmup, decay=decay, steps=6)
    got = [float(schedule(tf.constant(step, tf.int64))) for step in range(8)]
    np.testing.assert_allclose(got, 2 * np.array([*want, want[-1]]), atol=1e-6)
    assert WarmupDecay(**schedule.get_config()).get_config() == schedule.get_config()


def test_the_schedule_is_followed_update_by_update():
    training = TrainingConfig(
        learning_rate=RATE, weight_decay=DECAY, warmup_steps=2, decay="linear"
    )
    optimizer = build_optimizer(training, steps=4)
    variable, want = tf.Variable(table()), Reference(table())
    for rate in (0.5, 1, 1, 0.5, 0):
        optimizer.apply_gradients([(tf.ones([6, 2]), variable)])
        want.rate = rate * RATE
        want.update(np.ones([6, 2]))
    np.testing.assert_allclose(variable, want.value, atol=1e-5)


def test_a_warm_up_longer_than_the_training_is_refused():
    training = TrainingConfig(warmup_steps=10)
    with pytest.raises(
        ConfigError, match="fewer than the 10 updates of the whole training; got 10"
    ):
        build_optimizer(training, steps=10)
    with pytest.raises(ConfigError, match="number of updates"):
        build_optimizer(TrainingConfig(decay="linear"))
    # A rate of one's own is constant.
    assert float(build_optimizer(training, learning_rate=0.5).learning_rate) == 0.5
    with pytest.raises(ConfigError, match="wanted above 0; got 0"):
        TrainingConfig(encoder_learning_rate_factor=0.0)


# Training


def model_of(dataset, **settings):
    settings = {**small_world.VECTORS, **settings}
    return RetrievalModel(small_world.config(**settings), dataset)


class Rates(tf.keras.callbacks.Callback):
    """Notes the rate of each update, and dies when told."""

    def __init__(self, die_in=None):
        super().__init__()
        self.rates, self.updates, self.die_in = [], [], die_in

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.die_in:
            raise InterruptedError

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.updates.append(int(self.model.optimizer.iterations))


@pytest.mark.slow
def test_after_a_kill_the_schedule_goes_on(dataset, tmp_path):
    """234 examples in batches of 32 twice make 4 updates an epoch."""
    examples = len(dataset.interactions("train").user)
    an_epoch = -(-examples // 64)
    settings = {
        "training__epochs": 3,
        "training__accumulation_steps": 2,
        "training__warmup_steps": 2,
        "training__decay": "linear",
        "training__patience": 0,
    }
    whole = Rates()
    train(model_of(dataset, **settings), dataset, callbacks=[whole])
    steps = 3 * an_epoch
    want = [0.5, *(1 - max(step - 2, 0) / (steps - 2) for step in range(1, steps))]
    np.testing.assert_allclose(whole.rates, 0.02 * np.array(want), rtol=1e-5)
    assert whole.updates == list(range(1, steps + 1))
    killed, later = Rates(die_in=2), Rates()
    with pytest.raises(InterruptedError):
        train(model_of(dataset, **settings), dataset, directory=tmp_path, callbacks=[killed])
    train(model_of(dataset, **settings), dataset, directory=tmp_path, callbacks=[later])
    assert killed.rates + later.rates == whole.rates
    assert killed.updates + later.updates == whole.updates


@pytest.mark.slow
def test_encoders_take_their_share_of_the_rate(dataset):
    model = model_of(
        dataset,
        modalities=["audio"],
        audio__trainable_layers=1,
        training__epochs=1,
        training__encoder_learning_rate_factor=0.5,
    )
    train(model, dataset)
    encoder = model.encoders["audio"]
    keys = {model.optimizer._var_key(weight) for weight in encoder.trainable_weights}
    assert keys and model.optimizer._factors == dict.fromkeys(keys, 0.5)
    assert len(model.trainable_variables) > len(keys)


class Toy(tf.keras.Model):
    """A dense weight and a table under squared errors; the mean over the examples, as it is with
    losses without negatives."""

    def __init__(self, accumulation_steps, **training):
        super().__init__()
        self.config = small_world.config(
            training__accumulation_steps=accumulation_steps, **training
        )
        self.table = self.add_weight(name="table", shape=[6, 2], initializer="ones")
        self.kernel = self.add_weight(name="kernel", shape=[2], initializer="ones")
        self.unused = self.add_weight(name="unused", shape=[2], initializer="ones")
        self.sizes = []

    def compute_loss(self, inputs, training=False):
        self.sizes.append(inputs["row"].shape[0])
        rows = tf.gather(self.table, inputs["row"])
        return tf.reduce_mean(tf.square(tf.reduce_sum(rows * self.kernel, axis=1) - inputs["y"]))

    def train_step(self, inputs):
        return apply_step(self, inputs)


def toy_batch(size):
    rng = np.random.default_rng(size)
    row = rng.integers(0, 5, size).astype(np.int32)
    return {"row": tf.constant(row), "y": tf.constant(rng.normal(size=size), tf.float32)}


@pytest.mark.parametrize("size", [8, 7, 3, 1])
@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"mixed_precision": True}])
def test_parts_make_the_update_of_the_whole(size, settings):
    """Each example counts the same, in parts of unequal size and in parts of none too."""
    after = []
    for accumulation_steps in (1, 4):
        training = TrainingConfig(learning_rate=0.1, clip_norm=1.0, **settings)
        model = Toy(accumulation_steps)
        model.compile(optimizer=build_optimizer(training), jit_compile=training.jit_compile)
        data = tf.data.Dataset.from_tensors(toy_batch(size)).repeat(3)
        model.fit(data, verbose=0)
        after.append([weight.numpy() for weight in model.trainable_variables])
        assert int(model.optimizer.iterations) == 3
    for one, other in zip(*after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(after[0][0] - 1).max() > 0.01
    # The row that no example met.
    np.testing.assert_array_equal(after[1][0][5], [1, 1])
    np.testing.assert_array_equal(after[1][2], [1, 1])


def test_parts_have_the_size_of_a_batch():
    model = Toy(3)
    model.compile(optimizer=build_optimizer(TrainingConfig()), run_eagerly=True)
    for size, want in [(9, [3, 3, 3]), (8, [2, 3, 3]), (2, [1, 1, 1])]:
        model.sizes.clear()
        model.train_step(toy_batch(size))
        assert model.sizes == want


def test_parts_go_one_after_the_other():
    """What one part's forward pass needs waits for the gradients of the part before."""
    model = Toy(2)
    optimizer = build_optimizer(TrainingConfig())
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    graph = tf.function(model.train_step).get_concrete_function(toy_batch(4)).graph
    gathers = [op for op in graph.get_operations() if op.type == "ResourceGather"]
    first, second = [op for op in gathers if op.inputs[0] is gathers[0].inputs[0]][:2]
    assert not first.control_inputs
    assert second.control_inputs


@pytest.mark.slow
def test_a_model_trains_in_parts(dataset):
    losses = []
    for accumulation_steps in (1, 3):
        model = small_world.build_retrieval(
            dataset, training__accumulation_steps=accumulation_steps
        )
        model.compile(optimizer=build_optimizer(model.config.training))
        size = 39 * accumulation_steps
        batches = dataset.batches("train", size, user=model.config.user, shuffle=True)
        losses.append(model.fit(batches, epochs=6, verbose=0).history["loss"])
    assert all(np.isfinite(losses).ravel())
    assert all(found[-1] < 0.9 * found[0] for found in losses)


MIRRORED = """
import mmrec_tf, sys
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import test_optimizer as tests
from mmrec_tf.config import TrainingConfig
from mmrec_tf.training.optimizer import build_optimizer

training = TrainingConfig(
    learning_rate=0.1, clip_norm=1.0, warmup_steps=2, mixed_precision=sys.argv[1] == "mixed"
)
after = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        model = tests.Toy(2)
        model.compile(optimizer=build_optimizer(training, steps=9))
    data = tf.data.Dataset.from_tensors(tests.toy_batch(8)).unbatch().batch(8).repeat(3)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    model.fit(data.with_options(options), verbose=0)
    after.append([weight.numpy() for weight in model.trainable_variables])
    print(strategy.num_replicas_in_sync, int(model.optimizer.iterations.numpy()))
for one, two in zip(*after):
    tf.debugging.assert_near(one, two, 1e-5, 1e-5)
assert abs(after[0][0] - 1).max() > 0.01
"""


@pytest.mark.parametrize("precision", ["single", pytest.param("mixed", marks=pytest.mark.slow)])
def test_two_replicas_make_the_step_of_one(precision):
    """In a process of its own: devices are counted once, and one such strategy works in each."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE])),
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, precision],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "3", "2", "3"]
