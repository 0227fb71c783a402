"""Where figures of a training go: TensorBoard's log, and trackers that stand in for real ones."""

import contextlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from support import vector_world
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mmrec_tf as mm
from mmrec_tf.training.tracking import settings_of, tracking


class Recorded(types.ModuleType):
    """A tracker of either kind that remembers what it was told."""

    def __init__(self, name):
        super().__init__(name)
        self.run, self.told, self.parameters, self.ended = None, [], {}, []
        self.config = types.SimpleNamespace(update=self.parameters.update)

    def active_run(self):
        return self.run

    @contextlib.contextmanager
    def start_run(self, run_name):
        self.run = run_name
        try:
            yield
        finally:
            self.ended.append(sys.exc_info()[0])

    def init(self, name, config):
        self.parameters.update(config)
        return self.start_run(name)

    def log_params(self, parameters):
        assert len(parameters) <= 100
        self.parameters.update(parameters)

    def log_metrics(self, figures, step):
        self.told.append((step, figures))

    def log(self, figures):
        self.told.append((figures["retrieval/epoch"], figures))


def test_scalars_settings_and_trackers_of_a_training(tmp_path, monkeypatch):
    fakes = {name: Recorded(name) for name in ("mlflow", "wandb")}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    config = vector_world.config(training__epochs=2)

    class Measured(tf.keras.callbacks.Callback):
        """As `Validation` tells the callbacks after it."""

        def on_epoch_end(self, epoch, logs=None):
            logs["valid_ndcg@10"] = 0.1 * (epoch + 1)

    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(loss="mse")
    rows = np.ones([4, 2]), np.ones([4])
    with tracking(config, name="r", tensorboard=tmp_path, mlflow=True, wandb=True) as callbacks:
        watched = [Measured(), *callbacks("retrieval")]
        history = model.fit(*rows, epochs=2, verbose=0, callbacks=watched).history
    log = EventAccumulator(str(tmp_path / "retrieval/train"), size_guidance={"tensors": 0})
    log.Reload()
    tags = log.Tags()["tensors"]
    assert {"epoch_loss", "epoch_valid_ndcg@10"} <= set(tags)
    assert [event.step for event in log.Tensors("epoch_loss")] == [0, 1]
    assert "_hparams_/session_start_info" in log.summary_metadata
    want = history["valid_ndcg@10"]
    for name, key in (("mlflow", "valid_ndcg_at_10"), ("wandb", "valid_ndcg@10")):
        told = fakes[name].told
        assert [step for step, _ in told] == [0, 1] and fakes[name].run == "r"
        np.testing.assert_allclose([f[f"retrieval/{key}"] for _, f in told], want)
        assert fakes[name].parameters["training.epochs"] == 2 and fakes[name].ended == [None]


def test_a_training_that_fails_is_logged_as_failed(monkeypatch):
    fake = Recorded("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with pytest.raises(RuntimeError), tracking(vector_world.config(), name="r", mlflow=True):
        raise RuntimeError
    assert fake.ended == [RuntimeError]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_said(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    wanted = rf"--{name}: wanted the package {name}.*mmrec_tf\[{name}\]"
    with pytest.raises(mm.ConfigError, match=wanted):
        with tracking(vector_world.config(), name="r", **{name: True}):
            pass
    with pytest.raises(mm.ConfigError, match="add --tensorboard"):
        with tracking(vector_world.config(), name="r", profile=(1, 2)):
            pass


def test_settings_are_plain():
    found = settings_of(vector_world.config())
    assert found["modalities"] == "taste, noise" and found["training.epochs"] == 6
    assert all(isinstance(value, bool | int | float | str) for value in found.values())
