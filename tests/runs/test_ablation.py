"""Ablation: what is taken away is gone, the model is itself again, and verdicts follow figures."""

import json
import re

import numpy as np
import pytest
from support import small_world
from support.small_world import MODALITIES, NUM_ITEMS, NUM_USERS, build_retrieval

from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.evaluation.evaluate import evaluate, evaluate_users
from mmrec_tf.evaluation.metrics import paired_bootstrap
from mmrec_tf.runs import ablation
from mmrec_tf.runs.ablation import (
    ablate_run,
    knock_out,
    replaced,
    trained_run,
    verdict,
)
from mmrec_tf.runs.train import train_run

SETTINGS = {**small_world.VECTORS, "user__id_embedding": False, "ranking__epochs": 0}


@pytest.fixture(scope="module")
def model(dataset):
    """Of two modalities, one of which has an encoder that trains."""
    return build_retrieval(
        dataset, modalities=["audio", "vector"], audio__trainable_layers=-1, audio__gru_units=3
    )


@pytest.fixture(scope="module")
def vector_run(dataset, tmp_path_factory):
    """A run that knows items by their vectors alone; for reading only."""
    config = small_world.config(
        **SETTINGS, item__id_embedding=False, item__features=False, training__epochs=8
    )
    return train_run(dataset, config, tmp_path_factory.mktemp("ablation") / "run")


# What is taken away


def encoded(model):
    return {name: model.encode_catalog(name) for name in model.modalities}


def test_encoded_content_is_what_the_tower_reads(model):
    """So a model reads no otherwise, whether its encoders run or have run."""
    content = encoded(model)
    sizes = {name: model.encoders[name].output_dim for name in ("audio", "vector")}
    assert {name: values.shape for name, values in content.items()} == {
        name: (NUM_ITEMS, size) for name, size in sizes.items()
    }
    own = model.embed_catalog().embedding
    with replaced(model, content, np.asarray(model.tables["present"])):
        np.testing.assert_allclose(model.embed_catalog().embedding, own, atol=1e-6)


def test_the_model_is_itself_again_even_after_an_error(model):
    tables, encoders = model.tables, model.encoders
    own = model.embed_catalog().embedding
    content, nothing = encoded(model), np.zeros([NUM_ITEMS, 2], bool)
    with pytest.raises(KeyError), replaced(model, content, nothing):
        assert np.abs(model.embed_catalog().embedding - own).max() > 0.1
        raise KeyError
    assert model.tables is tables and model.encoders is encoders
    np.testing.assert_array_equal(model.embed_catalog().embedding, own)


def test_absent_content_says_nothing(model):
    """Whatever its vectors are; and the other modality stays what it was."""
    content, present = encoded(model), np.asarray(model.tables["present"])
    changed, left = knock_out(content, present, "audio", how="absent")
    assert not left[:, 0].any() and present[:, 0].any()
    np.testing.assert_array_equal(left[:, 1], present[:, 1])
    with replaced(model, changed, left):
        absent = model.embed_catalog()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=content["audio"].shape).astype(np.float32)
    with replaced(model, {**content, "audio": noise}, left):
        np.testing.assert_array_equal(model.embed_catalog().embedding, absent.embedding)
    own = model.embed_catalog()
    moved = np.abs(own.embedding - absent.embedding).max(axis=1) > 1e-3
    np.testing.assert_array_equal(moved, present[:, 0])


def test_shuffled_content_is_that_of_others(model):
    content, present = encoded(model), np.asarray(model.tables["present"])
    before = content["vector"].copy()
    changed, left = knock_out(content, present, "vector", how="shuffled")
    has = present[:, 1]
    assert left is present and changed["audio"] is content["audio"]
    np.testing.assert_array_equal(content["vector"], before)
    np.testing.assert_array_equal(changed["vector"][~has], before[~has])
    # Each vector comes once, and nowhere where it was.
    sort = np.lexsort
    got, want = changed["vector"][has], before[has]
    np.testing.assert_array_equal(got[sort(got.T)], want[sort(want.T)])
    assert (got != want).any(axis=1).all()


def test_noise_has_the_moments_of_content():
    rng = np.random.default_rng(0)
    values = rng.normal([1, -2, 0], [0.5, 3, 0], [4000, 3]).astype(np.float32)
    present = rng.random([4000, 1]) < 0.7
    values[~present[:, 0]] = 100
    changed, left = knock_out({"vector": values}, present, "vector", how="noise")
    noise, had = changed["vector"][present[:, 0]], values[present[:, 0]]
    assert left is present and noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean(axis=0), had.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(noise.std(axis=0), had.std(axis=0), rtol=0.05, atol=1e-6)
    assert abs(np.corrcoef(noise[:, 1], had[:, 1])[0, 1]) < 0.1
    assert (changed["vector"][~present[:, 0]] == 100).all()


@pytest.mark.parametrize("how", ["absent", "shuffled", "noise"])
def test_what_nobody_or_one_item_has_can_be_taken_away(how):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    for rows in ([], [1]):
        present = np.zeros([3, 1], bool)
        present[rows] = True
        changed, _ = knock_out({"vector": values}, present, "vector", how=how)
        np.testing.assert_array_equal(changed["vector"], values)


# Figures and verdicts


@pytest.mark.parametrize(
    "difference, low, high, words",
    [
        (-0.012, -0.02, -0.004, "helps (+0.0120, 0.0040 to 0.0200)"),
        (-0.012, -0.03, 0.001, "no measurable effect (+0.0120, -0.0010 to 0.0300)"),
        (0.02, 0.01, 0.03, "hurts (-0.0200, -0.0300 to -0.0100)"),
        (0.0, 0.0, 0.0, "no measurable effect (+0.0000, 0.0000 to 0.0000)"),
    ],
)
def test_verdicts(difference, low, high, words):
    assert verdict({"value": 0.5, "difference": difference, "low": low, "high": high}) == words


@pytest.mark.slow
def test_what_a_model_lives_on_helps(vector_run, dataset, tmp_path):
    found = ablate_run(vector_run, out=tmp_path / "a")
    metric = "ndcg@10"
    own = evaluate_users(vector_run.retrieval, dataset, split="valid", ks=[10])[metric]
    assert (found["split"], found["metric"], found["users"]) == ("valid", metric, NUM_USERS)
    assert found["model"] == pytest.approx(own.mean())
    for figure in found["knock_outs"]["vector"].values():
        assert figure["high"] < 0 and figure["value"] < 0.8 * found["model"]
        assert figure["value"] - found["model"] == pytest.approx(figure["difference"])
    assert re.match(r"helps \(\+0\.", found["verdicts"]["vector"])
    # Without any content all items look alike.
    none = found["missing"][-1]
    assert none == {"removed": 1.0, **found["knock_outs"]["vector"]["absent"]}
    assert json.loads((tmp_path / "a/ablation.json").read_text()) == found
    # Afterwards it is itself.
    again = evaluate(vector_run.retrieval, dataset, split="valid", ks=[10])[metric]
    assert again == pytest.approx(own.mean())


def test_the_curve_of_missing_content(run):
    found = ablate_run(run)
    assert [point["removed"] for point in found["missing"]] == [0, 0.25, 0.5, 0.75, 1]
    whole = found["missing"][0]
    assert whole == {"removed": 0, "value": found["model"], "difference": 0, "low": 0, "high": 0}
    assert list(found["knock_outs"]) == list(found["verdicts"]) == list(MODALITIES)
    assert found["retrained"] is None
    assert found == ablate_run(run)


def test_what_is_removed_once_stays_removed(run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ablation,
        "evaluate_users",
        lambda model, *_, **__: (
            seen.append(np.asarray(model.tables["present"])) or {"ndcg@10": np.ones(3)}
        ),
    )
    ablate_run(run)
    whole, curve = seen[0], seen[-5:]
    np.testing.assert_array_equal(curve[0], whole)
    for more, less in zip(curve, curve[1:], strict=False):
        assert (less <= more).all() and less.sum() < more.sum()
    assert curve[2].sum() == pytest.approx(whole.sum() / 2, rel=0.25) and not curve[4].any()


# Trained anew


@pytest.mark.slow
def test_a_retrained_run_is_compared_and_found_again(vector_run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_run, "config", vector_run.config.override({"training.epochs": 1}))
    found = ablate_run(vector_run, out=tmp_path, retrain=True)
    assert list(found["retrained"]) == ["without vector", "id_only"]
    assert {path.name for path in tmp_path.iterdir()} == {"ablation.json", "none", "id_only"}
    own, other = (
        evaluate_users(part.retrieval, dataset, split="valid", ks=[10])["ndcg@10"]
        for part in (vector_run, ablation.load_run(tmp_path / "id_only"))
    )
    figure = found["retrained"]["id_only"]
    assert figure["value"] == pytest.approx(other.mean())
    assert figure["low"] == paired_bootstrap(other, own).low
    assert found["verdicts"]["vector"] == verdict(found["retrained"]["without vector"])
    monkeypatch.setattr(ablation, "train_run", lambda *_: pytest.fail("trained again"))
    assert ablate_run(vector_run, out=tmp_path, retrain=True) == found


def test_which_runs_are_trained(run, tmp_path, monkeypatch):
    asked = {}

    def trained(dataset, config, directory):
        asked[directory.name] = config
        return run.twin

    monkeypatch.setattr(ablation, "trained_run", trained)
    names = [name for name, _ in ablation._retrained(run, tmp_path)]
    assert names == [*(f"{m} alone" for m in MODALITIES), *(f"without {m}" for m in MODALITIES)] + [
        "id_only"
    ]
    assert asked["image"].modalities == ("image",)
    assert asked["text-audio-vector"].modalities == ("text", "audio", "vector")
    assert all(config.ranking.epochs == 0 for config in asked.values())
    alone = {"modalities": ["image"], "ranking.epochs": 0}
    assert asked["image"] == run.config.override(alone, schema=run.schema)
    assert asked["image"].training == run.config.training
    # The run has its twin already.
    assert len(asked) == 8 and "id_only" not in asked


def test_another_run_in_the_folder_is_refused(vector_run, dataset):
    config = vector_run.config
    assert trained_run(dataset, config, vector_run.directory).config == config
    with pytest.raises(RunError, match="a run of another config or dataset stands there"):
        trained_run(dataset, config.override({"dim": 4}), vector_run.directory)


def test_what_cannot_be_ablated(run, vector_run):
    with pytest.raises(RunError, match="wanted a model with modalities to take away"):
        ablate_run(run.twin)
    with pytest.raises(ConfigError, match="--retrain: wanted a folder for the runs"):
        ablate_run(vector_run, retrain=True)
