"""Training: it goes on after a kill, keeps what was best, and never looks at the test split."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.tiny_dataset import write
from support.training_runs import EPOCHS, EXACT, Scripted, in_order, values

from mmrec_tf import RankingModel, Recommender, RetrievalModel, open_dataset
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import DatasetError, RunError
from mmrec_tf.runs.train import train_run
from mmrec_tf.training.callbacks import Progress
from mmrec_tf.training.fit import train
from mmrec_tf.training.optimizer import build_optimizer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
USERS = np.arange(small_world.NUM_USERS)


def model_of(dataset, **settings):
    return RetrievalModel(small_world.config(**{**small_world.VECTORS, **settings}), dataset)


def assert_equal(one, other, tolerance=0.0):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance)


def differ(one, other):
    return any(np.abs(left - right).max() > 1e-3 for left, right in zip(one, other, strict=True))


def epochs_of(path):
    with path.open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


# Going on after a kill

KILLED = """
import functools, json, os, sys
import mmrec_tf
from support import small_world, training_runs as tests
from mmrec_tf.runs import run as runs
from mmrec_tf.runs.train import train_run
from mmrec_tf.training.callbacks import Progress
from mmrec_tf.dataset.directory import Dataset

def die(*_, **__):
    os._exit(9)

def on_epoch_begin(callback, epoch, logs=None):
    if (callback.name, epoch) == (sys.argv[3], int(sys.argv[4])):
        die()
    begin(callback, epoch, logs)

begin = Progress.on_epoch_begin
Progress.on_epoch_begin = on_epoch_begin
if sys.argv[3] == "saving":
    runs.Run.save_retrieval = die
Dataset.batches = tests.in_order(Dataset.batches)
config = small_world.config(**{**tests.EXACT, **json.loads(sys.argv[5])})
train_run(mmrec_tf.open_dataset(sys.argv[1]), config, sys.argv[2])
"""


RANKED = {"ranking__epochs": 3, "ranking__dropout": 0}


def kill(dataset, directory, stage, epoch=0, **settings):
    """Trains in a process that dies as the epoch begins, or as the model is to be saved."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", HERE])),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    arguments = [dataset.directory, directory, stage, epoch, json.dumps(settings)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 9, done.stderr[-2000:]
    assert not (directory / "metrics.json").exists()


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The run that nobody killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "batches", in_order(Dataset.batches))
        return train_run(
            dataset, small_world.config(**EXACT), tmp_path_factory.mktemp("whole") / "run"
        )


@pytest.mark.slow  # that it ends to the digit as without the kill is held below
@pytest.mark.parametrize("stage, epoch", [("retrieval", 2), ("saving", EPOCHS)])
def test_after_a_kill_it_goes_on_where_it_was(dataset, whole, tmp_path, monkeypatch, stage, epoch):
    """As if nothing had happened: same epochs, same weights, which hold Adam's moments in them."""
    kill(dataset, tmp_path / "run", stage, epoch)
    begun = []
    begin = Progress.on_epoch_begin
    monkeypatch.setattr(
        Progress,
        "on_epoch_begin",
        lambda callback, epoch, logs=None: (begun.append(epoch), begin(callback, epoch, logs)),
    )
    monkeypatch.setattr(Dataset, "batches", in_order(Dataset.batches))
    run = train_run(dataset, small_world.config(**EXACT), tmp_path / "run")
    assert begun == list(range(epoch, EPOCHS))
    assert epochs_of(run.directory / "history.csv") == list(range(EPOCHS))
    assert_equal(values(run.retrieval), values(whole.retrieval), tolerance=1e-5)
    for directory in (run.directory, whole.directory):
        assert not (directory / "progress").exists()
    steps = -(-len(dataset.interactions("train").user) // run.config.training.batch_size)
    if begun:
        assert int(run.retrieval.optimizer.iterations) == EPOCHS * steps


@pytest.mark.slow
def test_after_a_kill_in_ranking_retrieval_is_not_trained_again(
    dataset, whole, tmp_path, monkeypatch
):
    kill(dataset, tmp_path / "run", "ranking", 1, **RANKED)
    begun = []
    begin = Progress.on_epoch_begin
    monkeypatch.setattr(
        Progress,
        "on_epoch_begin",
        lambda callback, epoch, logs=None: (
            begun.append((callback.name, epoch)),
            begin(callback, epoch, logs),
        ),
    )
    config = small_world.config(**{**EXACT, **RANKED})
    run = train_run(dataset, config, tmp_path / "run")
    assert begun == [("ranking", 1), ("ranking", 2)]
    assert epochs_of(run.directory / "ranking_history.csv") == [0, 1, 2]
    assert_equal(values(run.retrieval), values(whole.retrieval), tolerance=1e-5)


@pytest.mark.slow
def test_the_best_before_a_kill_stays_the_best(dataset, tmp_path, monkeypatch):
    """Here the kill is another process's: the second call knows only what lies on disk."""
    answers = Scripted(monkeypatch, [0.5, 0.9, 0.1, 0.2])
    train(model_of(dataset, training__epochs=2), dataset, directory=tmp_path / "progress")
    later = model_of(dataset, training__epochs=4)
    history = train(later, dataset, directory=tmp_path / "progress")
    assert history.epoch == [2, 3]
    assert_equal(values(later), answers.weights[1])
    facts = json.loads((tmp_path / "progress/best.json").read_text())
    assert {**facts, "self_sha256": ""} == {
        **{"best": 0.9, "epoch": 1, "folder": "best-1"},
        "self_sha256": "",
    }


@pytest.mark.slow
def test_a_kill_before_the_first_backup_starts_from_untrained_weights(dataset, tmp_path):
    """The best weights are written before the backup; they are no place to go on from."""
    progress = tmp_path / "progress"
    train(model_of(dataset, training__epochs=1), dataset, directory=progress)
    assert (progress / "best-0").is_dir()
    (progress / "backup.json").unlink()
    shutil.rmtree(progress / "backup-0")
    starts = []

    class Start(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            starts.append((epoch, values(self.model)))

    for directory in (progress, None):
        model = model_of(dataset, training__epochs=1)
        train(model, dataset, directory=directory, callbacks=[Start()])
    (one, again), (other, fresh) = starts
    assert (one, other) == (0, 0)
    assert_equal(again, fresh)


class Killed(BaseException):
    pass


class Die(tf.keras.callbacks.Callback):
    """Ends the first call as an epoch begins, and leaves the second alone."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


# Whatever draws at random in training, or keeps what earlier steps left behind.
RANDOM = {
    "dropout": {
        "item__dropout": 0.2,
        "user__dropout": 0.2,
        "user__history": "attention",
        "user__history_context": "others",
        "user__history_length": 2,
        "retrieval__item_balance": 0.5,
        "training__average_epochs": 2,
    },
    "past": {
        "user__history_context": "past",
        "user__training_window": 2,
        "user__history_length": 3,
        "retrieval__next_items": 3,
    },
    "in_batch": {
        "retrieval__softmax": "batch",
        "retrieval__num_uniform_negatives": 3,
        "retrieval__num_mined_negatives": 2,
        "retrieval__mining_epochs": 3,
        "retrieval__memory_size": 8,
        "user__history_embedding": "cached",
        "user__refresh_steps": 2,
        "retrieval__sampling_correction": "streaming",
        "training__accumulation_steps": 2,
        "training__warmup_steps": 3,
        "training__decay": "cosine",
    },
    "ranking": {"ranking__epochs": 4, "ranking__dropout": 0.3},
}


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "dropout" else pytest.param(kind, marks=pytest.mark.slow) for kind in RANDOM],
)
def test_a_resumed_training_equals_the_whole_one_to_the_digit(dataset, tmp_path, kind, capsys):
    settings = {**small_world.VECTORS, "training__epochs": 4, **RANDOM[kind]}

    def make():
        retrieval = model_of(dataset, **settings)
        if kind != "ranking":
            return retrieval
        return RankingModel(retrieval.config, dataset, retrieval=retrieval)

    model = make()
    train(model, dataset, directory=tmp_path / "whole")
    with pytest.raises(Killed):
        train(make(), dataset, directory=tmp_path / "killed", callbacks=[Die(2)])
    resumed = make()
    assert train(resumed, dataset, directory=tmp_path / "killed").epoch == [2, 3]
    rows = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "killed")]
    assert rows[0] == rows[1]
    assert_equal(model.get_weights(), resumed.get_weights())
    assert "after the interruption" not in capsys.readouterr().err


def test_training_that_had_stopped_early_is_over_after_a_kill(dataset, tmp_path, monkeypatch):
    Scripted(monkeypatch, [0.5, 0.4, 0.3, 0.9])
    settings = {"training__epochs": 9, "training__patience": 2}
    for epochs in ([0, 1, 2], []):
        history = train(model_of(dataset, **settings), dataset, directory=tmp_path / "progress")
        assert history.epoch == epochs


@pytest.mark.slow
def test_what_an_interruption_changes_is_said(dataset, tmp_path, capsys):
    """The layers of an encoder that trains are not ours: their draws are the process's."""
    settings = {"modalities": ["audio"], "audio__trainable_layers": -1, "audio__mask_bins": 2}

    def make():
        config = small_world.config(
            **{**small_world.VECTORS, **settings, "training__epochs": 2, "ranking__epochs": 0}
        )
        return RetrievalModel(config, dataset)

    with pytest.raises(Killed):
        train(make(), dataset, directory=tmp_path, callbacks=[Die(1)])
    assert "after the interruption" not in capsys.readouterr().err
    train(make(), dataset, directory=tmp_path)
    said = capsys.readouterr().err
    assert "retrieval: after the interruption, the audio encoder draws other numbers" in said


def test_a_changed_state_of_training_is_named(dataset, tmp_path):
    train(model_of(dataset, training__epochs=1), dataset, directory=tmp_path)
    path = tmp_path / "backup.json"
    for text in (path.read_text().replace('"epoch": 0', '"epoch": 1'), '{"epoch', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(RunError, match="backup.json: wanted what training had come to"):
            train(model_of(dataset, training__epochs=2), dataset, directory=tmp_path)


# The best


def test_early_stopping_leaves_the_best_weights(dataset, monkeypatch):
    answers = Scripted(monkeypatch, [0.1, 0.5, 0.3, 0.4, 0.2, 9.0])
    model = model_of(dataset, training__epochs=6, training__patience=3)
    history = train(model, dataset)
    # Epoch 1 was best; 2, 3 and 4 were not better.
    assert history.epoch == [0, 1, 2, 3, 4]
    assert history.history["valid_ndcg@10"] == [0.1, 0.5, 0.3, 0.4, 0.2]
    assert_equal(values(model), answers.weights[1])
    assert differ(answers.weights[1], answers.weights[4])


def test_the_mean_of_the_last_epochs_is_measured_and_kept_and_trained_on_is_not(
    dataset, monkeypatch
):
    plain = Scripted(monkeypatch, [0.1, 0.2, 0.3, 0.4])
    train(model_of(dataset, training__epochs=4), dataset)
    answers = Scripted(monkeypatch, [0.1, 0.2, 0.9, 0.4])
    model = model_of(dataset, training__epochs=4, training__average_epochs=2)
    last = []
    keep = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: last.append(values(model)))
    train(model, dataset, callbacks=[keep])
    for epoch, own in enumerate(plain.weights):
        # Training went on with its own weights, as without averaging.
        assert_equal(last[epoch], own)
        before = plain.weights[max(epoch - 1, 0)]
        mean = [(a.astype(np.float64) + b) / 2 for a, b in zip(own, before, strict=True)]
        assert_equal(answers.weights[epoch], mean, tolerance=1e-6)
    assert_equal(values(model), answers.weights[2])
    assert differ(answers.weights[2], plain.weights[2])


@pytest.mark.slow
def test_without_patience_it_never_stops(dataset, monkeypatch):
    answers = Scripted(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    model = model_of(dataset, training__epochs=4, training__patience=0)
    assert train(model, dataset).epoch == [0, 1, 2, 3]
    assert_equal(values(model), answers.weights[0])


@pytest.mark.slow
def test_ranking_that_gets_worse_is_not_kept(dataset, monkeypatch):
    retrieval = model_of(dataset)
    train(retrieval, dataset)
    ranking = RankingModel(retrieval.config, dataset, retrieval=retrieval)
    Scripted(monkeypatch, [0.5, *[0.4] * retrieval.config.ranking.epochs])
    train(ranking, dataset)
    users = [small_world.user_id(user) for user in range(small_world.NUM_USERS)]
    one, both = (Recommender(retrieval, model, dataset) for model in (None, ranking))
    np.testing.assert_array_equal(
        one.recommend(users, k=10).item_id, both.recommend(users, k=10).item_id
    )


def test_the_monitored_metric_is_that_of_evaluate_on_valid(dataset):
    from mmrec_tf import evaluate

    model = model_of(dataset, training__monitor="recall@5", training__epochs=1)
    history = train(model, dataset)
    (value,) = history.history["valid_recall@5"]
    assert value == evaluate(model, dataset, split="valid", ks=[5])["recall@5"]


# What it reads


def test_the_test_split_is_never_read(dataset, tmp_path, monkeypatch):
    fresh = open_dataset(dataset.directory)
    read = Dataset.interactions

    def interactions(self, split):
        assert split != "test", "training read the test split"
        return read(self, split)

    monkeypatch.setattr(Dataset, "interactions", interactions)
    config = small_world.config(**{**small_world.VECTORS, "training__epochs": 1})
    run = train_run(fresh, config, tmp_path / "run")
    with pytest.raises(AssertionError, match="read the test split"):
        run.retrieval.evaluate(fresh, split="test")


@pytest.mark.parametrize("lacking", ["train", "valid"])
def test_an_empty_split_is_refused_before_anything_is_written(tmp_path, lacking):
    dataset = write(
        tmp_path / "d",
        **{
            lacking: [[], []],
            "num_items": 6,
            **({"valid": [[1], [2]]} if lacking == "train" else {"train": [[1], [2]]}),
        },
    )
    with pytest.raises(DatasetError, match=f"{lacking} has none"):
        train_run(dataset, small_world.config(modalities=[]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_seed_decides(dataset):
    def trained(seed):
        model = model_of(dataset, training__seed=seed, user__history_length=2)
        train(model, dataset)
        return values(model)

    one = trained(0)
    assert_equal(one, trained(0))
    assert differ(one, trained(1))


def test_the_optimizer_is_what_the_config_says():
    settings = {"learning_rate": 0.5, "weight_decay": 0.25, "clip_norm": 2.0}
    config = small_world.config(**{f"training__{name}": value for name, value in settings.items()})
    optimizer = build_optimizer(config.training)
    assert isinstance(optimizer, tf.keras.optimizers.AdamW)
    assert float(optimizer.learning_rate) == 0.5
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.25, 2.0)
    assert build_optimizer(small_world.config().training).global_clipnorm is None
    half = small_world.config(training__mixed_precision=True).training
    wrapped = build_optimizer(half, learning_rate=0.125)
    assert isinstance(wrapped, tf.keras.mixed_precision.LossScaleOptimizer)
    assert float(wrapped.learning_rate) == 0.125


def test_histories_are_embedded_anew_as_an_epoch_begins_and_every_so_many_steps(dataset):
    settings = {
        **small_world.VECTORS,
        "user__history_embedding": "cached",
        "user__refresh_steps": 2,
        "retrieval__softmax": "batch",
        "training__epochs": 2,
        "training__batch_size": 48,
    }
    model = model_of(dataset, **settings)
    stale = []

    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            table = model.state.history_items.numpy()
            stale.append((batch, bool((table != model.embed_all()).any())))

    train(model, dataset, callbacks=[Watch()])
    # 234 examples make five batches.
    assert stale == 2 * [(0, False), (1, True), (2, False), (3, True), (4, False)]


@pytest.mark.slow
def test_several_steps_an_execution_train_the_same(dataset):
    settings = {"item__id_dropout": 0.3, "training__epochs": 2, "training__batch_size": 48}
    settings |= {"user__history_context": "past"}
    trained = []
    for steps in (1, 3):
        model = model_of(dataset, **settings, training__steps_per_execution=steps)
        heard = []
        told = tf.keras.callbacks.LambdaCallback(
            on_batch_end=lambda batch, logs, heard=heard: heard.append(batch)
        )
        train(model, dataset, callbacks=[told])
        trained.append(values(model))
        # Five batches an epoch.
        assert heard == 2 * {1: [0, 1, 2, 3, 4], 3: [2, 4]}[steps]
    assert_equal(*trained, tolerance=1e-6)


def test_mined_negatives_are_refreshed_every_so_many_epochs(dataset):
    settings = {"retrieval__num_mined_negatives": 4, "retrieval__mining_epochs": 2}
    config = small_world.config(
        **{**small_world.VECTORS, **settings, "training__epochs": 4, "training__patience": 0}
    )
    model = RetrievalModel(config, dataset)
    seen = []

    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                seen.append((model.state.mined.numpy(), model.rank_items(dataset, USERS, k=8)))

    train(model, dataset, callbacks=[Watch()])
    mined = [found for found, _ in seen]
    np.testing.assert_array_equal(mined[0], mined[1])
    np.testing.assert_array_equal(mined[2], mined[3])
    assert (mined[1] != mined[2]).any()
    for epoch in (0, 2):
        found, now = seen[epoch]
        np.testing.assert_array_equal(found[:, :8], now)
        rows, items = dataset.histories().pairs(USERS)
        assert not (found[rows] == items[:, None]).any()
