"""Two processes that train together do what one does, and one of them writes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf import RetrievalModel, open_dataset
from mmrec_tf.training.fit import train

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Two more processes that each load TensorFlow, train and wait for each other.
pytestmark = pytest.mark.slow
BATCH = 29
MEASURE = """
import mmrec_tf, sys
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
import test_workers

test_workers.measure(strategy, *sys.argv[1:])
"""


def measure(strategy, dataset, directory):
    """Prints what training comes to under a strategy, as a line of JSON."""
    losses = []
    dropout = {"item__id_dropout": 0, "user__id_dropout": 0}
    # The streaming estimate and the memory gather what all replicas have, and so does the loss.
    gathering = {
        "retrieval__sampling_correction": "streaming",
        "retrieval__memory_size": 40,
        "retrieval__label_smoothing": 0.1,
    }
    config = small_world.config(
        **{**small_world.VECTORS, **dropout, **gathering},
        training__epochs=2,
        training__batch_size=BATCH,
    )
    with strategy.scope():
        model = RetrievalModel(config, open_dataset(dataset))
        after = tf.keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]))
        )
        history = train(
            model, model.dataset, directory=pathlib.Path(directory), callbacks=[after]
        ).history
    found = {
        "replicas": strategy.num_replicas_in_sync,
        "losses": losses,
        "valid": history["valid_ndcg@10"],
        "weights": [float(tf.norm(weight)) for weight in model.trainable_variables],
    }
    print(json.dumps(found), flush=True)
    return found


def free_ports(number):
    held = [socket.create_server(("localhost", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_two_workers_train_as_one_and_the_chief_writes(dataset, tmp_path):
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE])),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TQDM_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    folders = [tmp_path / "chief", tmp_path / "other"]
    processes = []
    for index, folder in enumerate(folders):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", MEASURE, str(dataset.directory), str(folder)],
                env={**environment, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    one = measure(tf.distribute.get_strategy(), dataset.directory, tmp_path / "one")
    try:
        done = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, done, strict=True):
        assert process.returncode == 0, errors[-2000:]
    for text, _ in done:
        two = json.loads(text.splitlines()[-1])
        assert (one["replicas"], two["replicas"]) == (1, 2)
        assert len(one["losses"]) > 10 and np.ptp(one["losses"]) > 0.5
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
        np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-3)
        assert two["valid"] == pytest.approx(one["valid"], abs=1e-4)
    written = files(folders[0])
    assert {"history.csv", "best.json"} <= written
    assert not any(name.endswith((".csv", ".json")) for name in files(folders[1]))
    assert not [name for name in files(folders[1]) if name.startswith("best-")]
