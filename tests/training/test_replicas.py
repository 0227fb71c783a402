"""Several replicas train as one does, and half precision as single: losses step by step."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import RetrievalModel, open_dataset
from mmrec_tf.training.fit import train
from mmrec_tf.training.optimizer import AdamW
from mmrec_tf.training.step import gather_replicas, mean_over_replicas

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Processes of several replicas take minutes on two cores.
pytestmark = pytest.mark.slow
# Of two replicas each takes 15 and 14 examples of a batch; of an epoch's last 2, one takes none.
BATCH, REST = 29, 2
STEADY = {**small_world.VECTORS, "item__id_dropout": 0, "user__id_dropout": 0}
EPOCH = {"training__epochs": 1, "training__batch_size": BATCH}
TRAINED = {
    "batch": {},
    "memory": {
        "retrieval__sampling_correction": "streaming",
        "retrieval__memory_size": 40,
        "retrieval__label_smoothing": 0.1,
    },
    "full": {"retrieval__softmax": "full"},
}
MEASURE = """
import mmrec_tf, sys
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import test_replicas

test_replicas.measure(sys.argv[1])
"""


# What runs in a process of its own


def measure(path):
    """Prints what one and two replicas make of the same, as a line of JSON."""
    dataset = open_dataset(path)
    strategies = [tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])]
    found = {"gathered": [gathered(strategies[1], cut) for cut in (3, 4, 5)]}
    for name, settings in TRAINED.items():
        found[name] = [trained(strategy, dataset, settings) for strategy in strategies]
    print(json.dumps(found))


def rows():
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def contrast(weight, own, everything):
    """Losses of rows that are each other's negatives, through a weight."""
    logits = tf.matmul(own @ weight, everything @ weight, transpose_b=True)
    return tf.reduce_logsumexp(logits, axis=1)


def gathered(strategy, cut):
    """Of `contrast` with the rows before `cut` on one replica and the others on the next: the mean,
    its gradient, and the numbers of all rows as each replica sees them."""
    parts = [slice(0, cut), slice(cut, 5)]
    with strategy.scope():
        weight = tf.Variable(tf.eye(3))

    @tf.function
    def run(x, number):
        def on_each(x, number):
            with tf.GradientTape() as tape:
                # As embeddings are, what is gathered depends on the weight.
                (everything,) = gather_replicas(x @ weight)
                logits = tf.matmul(x @ weight, everything, transpose_b=True)
                loss = mean_over_replicas(tf.reduce_logsumexp(logits, axis=1))
            gradient = tape.gradient(loss, weight)
            context = tf.distribute.get_replica_context()
            return (
                context.all_reduce("mean", loss),
                context.all_reduce("mean", gradient),
                gather_replicas(number)[0],
            )

        return strategy.run(on_each, args=(x, number))

    x, number = (
        strategy.experimental_distribute_values_from_function(
            lambda context, value=value: tf.constant(value[parts[context.replica_id_in_sync_group]])
        )
        for value in (rows(), np.arange(5, dtype=np.int32))
    )
    loss, gradient, numbers = map(strategy.experimental_local_results, run(x, number))
    return {
        "loss": float(loss[0]),
        "gradient": gradient[0].numpy().tolist(),
        "numbers": [value.numpy().tolist() for value in numbers],
    }


def trained(strategy, dataset, settings):
    """The loss after each step, and what the memory of each replica holds in the end."""
    losses = []
    config = small_world.config(**{**STEADY, **EPOCH, **settings})
    with strategy.scope():
        model = RetrievalModel(config, dataset)
        after = tf.keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
        )
        history = train(model, dataset, callbacks=[after]).history
    memory = []
    if model.objective.memory is not None:
        memory = [
            value.numpy().tolist()
            for value in strategy.experimental_local_results(model.objective.memory.items)
        ]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "losses": losses,
        "valid": history["valid_ndcg@10"],
        "memory": memory,
    }


@pytest.fixture(scope="module")
def measured(dataset):
    """Devices are counted once a process, and one such strategy works in each."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE])),
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TQDM_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(dataset.directory)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# Two replicas


@pytest.mark.parametrize("case", [0, 1, 2])
def test_negatives_of_all_replicas_pass_their_gradient_back(measured, case):
    """Three and two rows, four and one, five and none."""
    weight = tf.Variable(tf.eye(3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(contrast(weight, rows(), rows()))
    found = measured["gathered"][case]
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(found["gradient"], tape.gradient(loss, weight), atol=1e-5)
    assert found["numbers"] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("name", TRAINED)
def test_two_replicas_train_as_one(measured, dataset, name):
    one, two = measured[name]
    examples = len(dataset.interactions("train").item)
    assert examples % BATCH == REST
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert len(one["losses"]) == len(two["losses"]) == examples // BATCH + 1
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    assert np.ptp(one["losses"]) > 0.5
    assert two["valid"] == pytest.approx(one["valid"], abs=1e-4)


def test_every_replica_remembers_what_one_does(measured):
    one, two = (part["memory"] for part in measured["memory"])
    assert two == one * 2
    assert min(one[0]) >= 0


# Half precision


@pytest.mark.parametrize("softmax", ["batch", "full"])
def test_half_precision_trains_as_single(dataset, softmax):
    """45 steps, from one and the same start; the loss of the last epoch within a hundredth."""
    last = []
    for half in (False, True):
        model = small_world.build_retrieval(
            dataset,
            **{**STEADY, "retrieval__softmax": softmax, "training__mixed_precision": half},
        )
        optimizer = AdamW(learning_rate=0.01)
        if half:
            # From a scale at which no step overflows: each one that does is left out.
            optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=256)
        model.compile(optimizer=optimizer)
        batches = dataset.batches("train", BATCH, user=model.config.user, shuffle=True)
        losses = model.fit(batches, epochs=5, verbose=0).history["loss"]
        assert losses[-1] < 0.7 * losses[0]
        assert not half or float(optimizer.loss_scale) == 256
        last.append(losses[-1])
    assert last[1] == pytest.approx(last[0], rel=0.01)
    assert last[1] != last[0]
