"""Both stages are plain Keras models, as docs/keras.md says."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

import mmrec_tf as mm
from mmrec_tf.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]
CALLBACKS = tf.keras.callbacks


def config(**settings):
    return small_world.config(**{**small_world.VECTORS, "training__epochs": 2, **settings})


@pytest.fixture(scope="module")
def retrieval(dataset):
    return mm.RetrievalModel(config(), dataset)


def differ(one, other):
    return any((a != b).any() for a, b in zip(one, other, strict=True))


def stage(name, dataset, retrieval=None, **settings):
    if name == "retrieval":
        return mm.RetrievalModel(config(**settings), dataset)
    return mm.RankingModel(config(**settings), dataset, retrieval=retrieval)


@pytest.fixture(params=["retrieval", "ranking"])
def model(request, dataset, retrieval):
    return stage(request.param, dataset, retrieval)


@pytest.mark.slow
def test_the_page_runs(dataset, tmp_path, monkeypatch):
    """All of its code in one go, on the small world."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/toy").symlink_to(dataset.directory)
    page = (ROOT / "docs/keras.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) > 8
    code = "\n\n".join(blocks)
    # Small: the page's own sizes are those of a real model.
    small = "small_world.config(modalities=['text', 'image'], user__profile=True)"
    code = code.replace('mm.Config(modalities=("text", "image"))', small)
    namespace: dict = {"small_world": small_world}
    exec(compile(code, "docs/keras.md", "exec"), namespace)  # noqa: S102
    assert (tmp_path / "work/logs").is_dir()
    first, second = (namespace[name].get_weights() for name in ("retrieval", "again"))
    assert [w.shape for w in first] == [w.shape for w in second]


def test_the_same_config_and_dataset_make_the_same_model(dataset):
    one, other = (mm.RetrievalModel(config(), dataset) for _ in range(2))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    another = mm.RetrievalModel(config(training__seed=1), dataset)
    assert any(
        (a != b).any() for a, b in zip(one.get_weights(), another.get_weights(), strict=True)
    )


@pytest.mark.parametrize("optimizer", [None, "sgd", tf.keras.optimizers.Adagrad(0.1)])
def test_any_optimizer_trains(dataset, optimizer):
    model = mm.RetrievalModel(config(), dataset)
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile(optimizer)
    history = model.fit(model.batches("train"), epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert any(
        (a != b.numpy()).any() for a, b in zip(before, model.trainable_variables, strict=True)
    )


def test_under_mixed_precision_an_optimizer_scales_the_loss(dataset):
    model = mm.RetrievalModel(config(training__mixed_precision=True), dataset)
    model.compile("adam")
    assert isinstance(model.optimizer, tf.keras.mixed_precision.LossScaleOptimizer)


@pytest.mark.parametrize("name", ["loss", "metrics", "weighted_metrics"])
def test_what_compile_would_not_read_is_refused(retrieval, name):
    with pytest.raises(ConfigError, match=f"wanted no {name}.*compute_loss"):
        retrieval.compile(**{name: ["mse"]})


def test_a_whole_save_is_refused_with_the_ways_on(model, tmp_path):
    with pytest.raises(ConfigError, match="save_weights.*export"):
        model.save(tmp_path / "model")


def test_weights_go_round(model, dataset, retrieval, tmp_path):
    model.compile()
    model.fit(epochs=1, verbose=0)
    model.save_weights(str(tmp_path / "weights"))
    other = stage(model.stage, dataset, retrieval, training__seed=7)
    assert any(
        (a != b).any() for a, b in zip(model.get_weights(), other.get_weights(), strict=True)
    )
    other.load_weights(str(tmp_path / "weights")).expect_partial()
    for a, b in zip(model.trainable_weights, other.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stock_callbacks(model, dataset, tmp_path):
    seen = []
    monitor = {"monitor": f"valid_{model.monitor}", "mode": "max"}
    callbacks = [
        mm.callbacks.Validation(dataset, patience=0),
        CALLBACKS.TensorBoard(tmp_path / "logs"),
        CALLBACKS.EarlyStopping(patience=5, **monitor),
        CALLBACKS.ModelCheckpoint(
            tmp_path / "best", save_weights_only=True, save_best_only=True, **monitor
        ),
        CALLBACKS.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
        CALLBACKS.CSVLogger(tmp_path / "log.csv"),
        CALLBACKS.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(sorted(logs))),
    ]
    model.compile()
    valid = model.batches("valid")
    history = model.fit(epochs=2, validation_data=valid, callbacks=callbacks, verbose=0)
    assert {"loss", "val_loss", f"valid_{model.monitor}"} <= set(history.history)
    assert len(seen) == 2 and f"valid_{model.monitor}" in seen[0]
    assert (tmp_path / "best.index").exists() and any((tmp_path / "logs").iterdir())
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_early_stopping_stops_on_what_validation_measured(dataset, monkeypatch):
    values = iter([0.9, 0.1, 0.1, 0.1])
    monkeypatch.setattr(mm.callbacks.Validation, "measure", lambda _: next(values))
    model = mm.RetrievalModel(config(), dataset)
    model.compile()
    stop = CALLBACKS.EarlyStopping("valid_ndcg@10", mode="max", patience=1)
    watched = [mm.callbacks.Validation(dataset, patience=0), stop]
    assert model.fit(epochs=9, callbacks=watched, verbose=0).epoch == [0, 1]


def test_predict_users_by_id_and_by_number(retrieval, dataset):
    ids = dataset.users.user_id[[3, 0]]
    by_id, by_number = retrieval.predict(ids), retrieval.predict([3, 0])
    np.testing.assert_array_equal(by_id, by_number)
    assert by_id.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(by_id, axis=1), 1, rtol=1e-5)
    top = retrieval.predict(ids, k=4)
    np.testing.assert_array_equal(top, retrieval.rank_items(dataset, np.array([3, 0]), k=4))
    assert retrieval.predict([]).shape == (0, 8)


def test_predict_on_batches_is_what_call_makes(model):
    batches = model.batches("valid", batch_size=16)
    want = np.concatenate([model(batch) for batch in batches])
    np.testing.assert_allclose(model.predict(batches, verbose=0), want, atol=1e-5)


def test_a_batch_of_users_is_embedded_as_predict_does(retrieval, dataset):
    """Under the valid split a history is the train split's, as for `predict`."""
    batch = next(iter(retrieval.batches("valid", batch_size=8)))
    np.testing.assert_allclose(retrieval(batch), retrieval.predict(batch["user"]), atol=1e-5)


@pytest.mark.parametrize(
    ("users", "k", "message"),
    [
        (["nobody"], None, "that are none, such as 'nobody'"),
        ([-1], None, "numbers of users from 0 to 39; got -1"),
        ([40], 3, "numbers of users from 0 to 39; got 40"),
        ([[1]], None, r"wanted users as \[n\]"),
        ([1], 0, "k: wanted 1 or more; got 0"),
    ],
)
def test_predict_refuses(retrieval, users, k, message):
    with pytest.raises(ConfigError, match=message):
        retrieval.predict(users, k=k)


def test_evaluate_a_dataset_or_batches(model, dataset):
    ranked = model.evaluate(dataset, split="valid", ks=[5])
    assert ranked == mm.evaluate(model, dataset, split="valid", ks=[5])
    model.compile()
    losses = model.evaluate(model.batches("valid"), return_dict=True, verbose=0)
    assert losses["loss"] > 0


def test_summary_names_what_is_frozen(model, capsys):
    model.summary()
    assert "Frozen, beside the weights above:" in capsys.readouterr().out


def test_a_ranking_model_is_measured_after_both_stages(dataset, retrieval):
    ranking = stage("ranking", dataset, retrieval)
    both = mm.Recommender(retrieval, ranking, dataset)
    assert ranking.evaluate(dataset, split="valid") == mm.evaluate(both, dataset, split="valid")
