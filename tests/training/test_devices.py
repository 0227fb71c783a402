"""The devices that a training takes, chosen by a word; what it says of them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from mmrec_tf.config import TrainingConfig
from mmrec_tf.errors import ConfigError
from mmrec_tf.training import devices

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = """
import mmrec_tf, sys
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from mmrec_tf.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("wanted", ["none", "0", "-1", "2", "1.5", ""])
def test_devices_that_are_not_there_are_refused(wanted):
    with pytest.raises(ConfigError, match="--devices: wanted all, or a number from 1 to 1"):
        devices.choose_devices(wanted)


def test_several_workers_are_refused_for_a_run(monkeypatch):
    cluster = {"cluster": {"worker": ["one:1", "two:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ConfigError, match="wanted one worker.*got 2"):
        devices.choose_devices(None)
    monkeypatch.setenv("TF_CONFIG", "[")
    with pytest.raises(ConfigError, match="TF_CONFIG: wanted JSON"):
        devices.choose_devices(None)


def test_what_training_runs_on_is_said():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    said = devices.describe_devices(strategy, TrainingConfig(mixed_precision=True))
    assert said.startswith("devices: 1 CPU device; towers in mixed_float16")


def test_a_gpu_that_tensorflow_does_not_see_is_told(monkeypatch, tmp_path):
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA's libraries are missing" in devices.unseen_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES hides it" in devices.unseen_gpu()


@pytest.mark.slow
def test_two_devices_train_a_run_as_one_does(dataset, tmp_path):
    settings = {
        **small_world.VECTORS,
        "item__id_dropout": 0,
        "user__id_dropout": 0,
        "ranking__epochs": 0,
        "alignment__kinds": [],
        "training__epochs": 2,
        "training__batch_size": 29,
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small_world.config(**settings).to_json()))
    losses = []
    for number in ("1", "2"):
        out = tmp_path / number
        command = ["train", "--dataset", dataset.directory, "--config", config, "--out", out]
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *command, "--no-report", "--devices", number],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        assert f"devices: {number} CPU device" in done.stderr
        rows = (out / "history.csv").read_text().splitlines()
        column = rows[0].split(",").index("loss")
        losses.append([float(row.split(",")[column]) for row in rows[1:]])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)
