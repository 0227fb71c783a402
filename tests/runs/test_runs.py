"""The run directory: it reads itself back, and refuses what does not fit."""

import csv
import json
import shutil
import types
import warnings

import numpy as np
import pytest
from support import small_world
from support.small_world import NUM_USERS, user_id

from mmrec_tf import load_run, open_dataset
from mmrec_tf.errors import ConfigError, DatasetError, RunError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import hold_folder, sealed
from mmrec_tf.runs import train as runs_train
from mmrec_tf.runs.evaluate import evaluate_run
from mmrec_tf.runs.run import Run, load_weights, save_weights
from mmrec_tf.runs.train import train_run
from mmrec_tf.schema import ModalitySpec, Schema

USERS = [user_id(user) for user in range(NUM_USERS)]
# After one epoch ranking may well be of no use, and is to be served all the same.
QUICK = {**small_world.VECTORS, "training__epochs": 1, "ranking__serve": "always"}


@pytest.fixture(scope="module")
def quick(dataset, tmp_path_factory):
    """A small run without encoders worth the name, to be copied and damaged."""
    config = small_world.config(**QUICK)
    return train_run(dataset, config, tmp_path_factory.mktemp("quick") / "run").directory


@pytest.fixture
def copy(quick, tmp_path):
    return shutil.copytree(quick, tmp_path / "copy")


def change(path, **values):
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(sealed({**facts, **values})))


def assert_same(one, other):
    """Two runs have the same weights, and recommend the same."""
    for part in ("retrieval", "ranking"):
        pairs = zip(getattr(one, part).weights, getattr(other, part).weights, strict=True)
        for weight, again in pairs:
            if "total" not in weight.name and "count" not in weight.name:
                np.testing.assert_array_equal(weight, again, weight.name)
    assert one.retrieval.encoders.keys() == other.retrieval.encoders.keys()
    for name, encoder in one.retrieval.encoders.items():
        assert encoder.fingerprint() == other.retrieval.encoders[name].fingerprint()
    answers = [run.recommender().recommend(USERS, k=10) for run in (one, other)]
    np.testing.assert_array_equal(answers[0].item_id, answers[1].item_id)
    np.testing.assert_allclose(answers[0].score, answers[1].score, rtol=1e-5)


def test_what_was_trained_reads_back(run):
    loaded = load_run(run.directory)
    assert (loaded.config, loaded.schema) == (run.config, run.dataset.schema)
    assert_same(run, loaded)
    assert_same(run.twin, loaded.twin)
    for stage in ("retrieval", "recommender"):
        one, other = (
            evaluate_run(part, split="test", ks=[5, 10], stage=stage) for part in (run, loaded)
        )
        assert one == other
        assert one["model"] != one["id_only"] != one["popularity"]


def test_a_finished_run_recommends_without_its_encoders(run):
    loaded, asked = load_run(run.directory), USERS[:4]
    recommender = loaded.recommender(compiled=False)
    answer, want = (r.recommend(asked, k=5) for r in (recommender, run.recommender()))
    recommender.similar_items(["i1"])
    assert not loaded.retrieval.encoders.loaded
    np.testing.assert_array_equal(answer.item_id, want.item_id)
    np.testing.assert_allclose(answer.score, want.score, rtol=1e-5)
    # A text that nobody has encoded yet needs one.
    recommender.recommend(asked, profile=["likes the sea"] * 4, k=5)
    assert loaded.retrieval.encoders.loaded


def test_what_its_dataset_has_not_cached_is_encoded_anew(run, tmp_path):
    """As where the folder was cleaned, or is a copy without `cache`."""
    folder = shutil.copytree(
        run.dataset.directory, tmp_path / "data", ignore=shutil.ignore_patterns("cache")
    )
    loaded = load_run(run.directory, dataset=folder)
    np.testing.assert_allclose(
        loaded.retrieval.embed_all(), run.retrieval.embed_all(), rtol=1e-4, atol=1e-5
    )
    assert loaded.retrieval.encoders.loaded


@pytest.mark.slow
def test_another_kind_of_model_reads_back(dataset, tmp_path):
    """An encoder that trained, a GRU, half precision."""
    settings = {
        "modalities": ["audio"],
        "audio__trainable_layers": -1,
        "user__history": "gru",
        "training__mixed_precision": True,
    }
    run = train_run(dataset, small_world.config(**{**QUICK, **settings}), tmp_path / "run")
    assert_same(run, load_run(tmp_path / "run"))


def test_the_directory_explains_itself(run):
    names = {path.name for path in run.directory.iterdir()}
    assert names == {
        "run.json",
        "config.json",
        "schema.json",
        "calibration.json",
        "ranking.json",
        "encoders.json",
        "assets",
        "weights",
        "history.csv",
        "ranking_history.csv",
        "metrics.json",
        "twin",
    }
    with (run.directory / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {"loss", "contrastive_loss", "valid_ndcg@10"} <= set(rows[0])
    metrics = json.loads((run.directory / "metrics.json").read_text())
    assert metrics["seed"] == 0 and metrics["dataset_hash"] == run.dataset.hash
    assert {"tensorflow", "numpy"} <= set(metrics["versions"])
    assert set(metrics["valid"]) == {"retrieval", "recommender", "id_only", "popularity"}
    best = max(float(row["valid_ndcg@10"]) for row in rows)
    assert metrics["valid"]["retrieval"]["ndcg@10"] == pytest.approx(best)
    assert set(json.loads((run.directory / "run.json").read_text())) >= {"dataset", "dataset_hash"}


@pytest.mark.slow
def test_a_ranking_that_learns_nothing_is_told(dataset, tmp_path, capsys):
    settings = {**QUICK, "ranking__serve": "auto", "ranking__learning_rate": 1e-12}
    config = small_world.config(**settings)
    run = train_run(dataset, config, tmp_path / "run")
    retrieval = json.loads((tmp_path / "run/metrics.json").read_text())["valid"]["retrieval"]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "no epoch" in line]
    assert said == (
        "ranking: no epoch beats retrieval's own order on valid "
        f"(ndcg@10 {retrieval['ndcg@10']:.4f}), so that order is kept. "
        "It is served without ranking; ranking.serve always would serve it with."
    )
    loaded = load_run(tmp_path / "run")
    assert loaded.ranks and not loaded.serves_ranking and loaded.recommender().ranking is None
    assert loaded.metrics["ranking_served"] is False
    lists = [part.rank_items(dataset, np.arange(9), k=5) for part in (run.retrieval, run.ranking)]
    np.testing.assert_array_equal(*lists)


def test_a_ranking_of_no_use_is_served_where_it_is_told_to(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runs_train, "kept_state", lambda *_: {"epoch": -1, "best": 0.25})

    def learned_nothing(**settings):
        config = small_world.config(**settings)
        ranking = types.SimpleNamespace(config=config, monitor="ndcg@10")
        return runs_train._learned_nothing(ranking, tmp_path, None)

    assert learned_nothing()
    assert "served without ranking" in capsys.readouterr().err
    assert not learned_nothing(ranking__serve="always")
    assert "(ndcg@10 0.2500), so that order is kept. ranking.epochs 0" in capsys.readouterr().err
    # A level that nothing else gives to probabilities is kept.
    assert learned_nothing(ranking__loss="binary")
    assert not learned_nothing(ranking__loss="binary", ranking__calibration="none")
    monkeypatch.setattr(runs_train, "kept_state", lambda *_: {"epoch": 0, "best": 0.25})
    assert not learned_nothing()


@pytest.mark.parametrize("text", ["{}", '{"served": 1}', "[]", "{"])
def test_what_is_served_is_read_strictly(copy, text):
    change(copy / "run.json", files={})
    (copy / "ranking.json").write_text(text)
    with pytest.raises(RunError, match="ranking.json: wanted .*served"):
        load_run(copy).recommender()
    (copy / "ranking.json").unlink()
    # A run of before it was written.
    assert load_run(copy).serves_ranking


# Another dataset


def test_a_dataset_that_moved_is_named(dataset, copy, tmp_path):
    change(copy / "run.json", dataset=str(tmp_path / "gone"))
    with pytest.raises(DatasetError, match="gone"):
        load_run(copy).recommender()
    there = load_run(copy, dataset=dataset.directory)
    assert there.recommender().recommend(["u1"], k=3).item_id.shape == (1, 3)


def test_another_dataset_is_refused(copy, tmp_path):
    other = small_world.write(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match="not the dataset .* Name that one with --dataset"):
        load_run(copy, dataset=other).recommender()


def test_an_altered_dataset_is_refused(dataset, copy, tmp_path):
    altered = shutil.copytree(dataset.directory, tmp_path / "altered")
    run = load_run(copy, dataset=altered)
    change(altered / "manifest.json", split_rule="leave-last-out")
    with pytest.raises(RunError, match="not the dataset"):
        run.retrieval  # noqa: B018


# Another run


def test_a_finished_run_is_not_trained_again(dataset, copy):
    with pytest.raises(RunError, match="a finished run stands there"):
        train_run(dataset, small_world.config(**QUICK), copy)


def test_an_unfinished_run_of_another_experiment_is_left_alone(dataset, copy, tmp_path):
    change(copy / "run.json", finished=False)
    with pytest.raises(RunError, match="another config or dataset"):
        train_run(dataset, small_world.config(**{**QUICK, "dim": 16}), copy)
    change(copy / "run.json", dataset_hash="0")
    with pytest.raises(RunError, match="another config or dataset"):
        train_run(dataset, small_world.config(**QUICK), copy)


def test_a_setting_that_is_refused_leaves_nothing_in_the_way_of_the_mended_one(dataset, tmp_path):
    """The encoder is made once the run is there, and only then is its file looked for."""
    bad = small_world.config(**{**QUICK, "modalities": ["text"], "text__weights": str(tmp_path)})
    with pytest.raises(ConfigError, match="text.weights"):
        train_run(dataset, bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # What had been begun before stays, so that it can go on.
    Run.create(tmp_path / "run", bad, dataset)
    with pytest.raises(ConfigError, match="text.weights"):
        train_run(dataset, bad, tmp_path / "run")
    assert (tmp_path / "run/run.json").exists()


def test_an_unfinished_run_is_not_opened(copy):
    change(copy / "run.json", finished=False)
    with pytest.raises(RunError, match='Go on with the same "mmrec-tf train"'):
        load_run(copy)


def test_somebody_s_files_are_left_alone(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="other files stand there"):
        Run.create(tmp_path, small_world.config(), dataset)
    with pytest.raises(RunError, match="notes.txt"):
        Run.create(tmp_path / "notes.txt", small_world.config(), dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_modality_that_is_the_same_for_all_is_told(tmp_path):
    schema = Schema(12, 12, modalities={"vector": ModalitySpec("vector", dim=3)})
    with DatasetWriter(tmp_path / "d") as writer:
        for item in range(12):
            writer.write_item(f"i{item}", content={"vector": np.float32([1, 2, 3])})
        for user in range(12):
            writer.write_user(f"u{user}")
        for split, shift in (("train", 0), ("valid", 1), ("test", 2)):
            for user in range(12):
                writer.write_interactions(
                    split, user, item=[(user + shift) % 12], timestamp=[shift]
                )
        manifest = writer.finish(schema, source={"name": "test"}, split_rule="given")
    assert manifest["warnings"] == [
        "vector: all 12 items that have it have the same, which tells none from another."
    ]
    settings = {**QUICK, "ranking__serve": "auto", "ranking__epochs": 0}
    config = small_world.config(schema=schema, **settings)
    # An error ends the run before anything is trained.
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="vector: the encoder gives"):
        warnings.filterwarnings("error", "vector: the encoder gives all items the same vector")
        train_run(open_dataset(tmp_path / "d"), config, tmp_path / "run")


def test_a_run_killed_while_it_was_made_starts_anew(dataset, tmp_path):
    config = small_world.config()
    Run.create(tmp_path / "run", config, dataset)
    (tmp_path / "run/run.json").unlink()
    assert not Run.create(tmp_path / "run", config, dataset).finished


# Damage


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}'])
def test_what_is_no_run_is_refused(copy, text):
    (copy / "run.json").write_text(text)
    with pytest.raises(RunError, match="wanted (a )?run"):
        load_run(copy)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(RunError, match='wanted a run directory, as "mmrec-tf train" writes it'):
        load_run(tmp_path / "nowhere")


def test_every_file_of_a_run_is_covered(copy):
    """One byte changed, or the last one cut off, in each file there is."""
    for path in sorted(p for p in copy.rglob("*") if p.is_file()):
        data = path.read_bytes()
        altered = bytearray(data or b" ")
        altered[len(data) // 3] ^= 1
        for bad in (bytes(altered), data[: len(data) // 2] if data else b" "):
            path.write_bytes(bad)
            with pytest.raises(
                RunError, match="run.json" if path.name == "run.json" else path.name
            ):
                load_run(copy)
        path.write_bytes(data)
    load_run(copy)


def test_a_second_training_there_is_refused_while_the_first_lives(dataset, tmp_path):
    with (
        hold_folder(tmp_path / "run", RunError, "trains"),
        pytest.raises(RunError, match="another process trains"),
    ):
        train_run(dataset, small_world.config(**QUICK), tmp_path / "run")


def test_what_a_kill_left_as_training_had_ended_goes(dataset, copy):
    (copy / "progress/retrieval").mkdir(parents=True)
    with pytest.raises(RunError, match="a finished run stands there"):
        train_run(dataset, small_world.config(**QUICK), copy)
    assert not (copy / "progress").exists()


@pytest.mark.parametrize("part", ["encoders", "retrieval", "ranking"])
def test_damaged_weights_are_refused(copy, part):
    (data,) = (copy / "weights" / part).glob("*.data-*")
    if part == "encoders" and not data.stat().st_size:
        pytest.skip("no weights to damage")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(RunError, match=f"{part}/weights.data.*not what training wrote"):
        load_run(copy)
    # A run of before files were hashed says so as it reads them.
    change(copy / "run.json", files={})
    with pytest.raises(RunError, match=f"{part}: wanted the weights of this run"):
        load_run(copy).recommender()


def test_missing_weights_are_refused(copy):
    shutil.rmtree(copy / "weights/retrieval")
    with pytest.raises(RunError, match="retrieval/.*: wanted the file of this run"):
        load_run(copy)
    change(copy / "run.json", files={})
    with pytest.raises(RunError, match="retrieval: wanted the weights of this run"):
        load_run(copy).recommender()


def test_weights_of_another_model_are_refused(dataset, tmp_path):
    one = small_world.build_retrieval(dataset)
    other = small_world.build_retrieval(dataset, dim=16)
    save_weights(tmp_path / "weights", model=one)
    with pytest.raises(RunError, match="wanted the weights of this run"):
        load_weights(tmp_path / "weights", model=other)


def test_saving_again_replaces(dataset, tmp_path):
    model = small_world.build_retrieval(dataset)
    for value in (1.0, 2.0):
        model.popularity_weight.assign(value)
        save_weights(tmp_path / "weights", model=model)
    model.popularity_weight.assign(0.0)
    load_weights(tmp_path / "weights", model=model)
    assert float(model.popularity_weight) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_copy_without_empty_folders_reads_back(quick, copy):
    """Version control and object stores keep files only."""
    folders = [folder for folder in (copy / "assets").iterdir() if not any(folder.iterdir())]
    assert folders
    for folder in folders:
        folder.rmdir()
    assert_same(Run(copy), Run(quick))


@pytest.mark.parametrize("setting", ["ranking.click_rating", "retrieval.disliked_below"])
def test_a_rating_that_nothing_reaches_is_named_before_anything_trains(labeled, tmp_path, setting):
    settings = {**small_world.VECTORS, setting: 6}
    config = small_world.config(schema=labeled.schema, **settings)
    with pytest.raises(ConfigError, match=f"^{setting}: wanted train interactions rated 6 or"):
        train_run(labeled, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_that_the_dataset_lacks_is_named_before_anything_trains(labeled, tmp_path):
    config = small_world.config(
        schema=labeled.schema, **small_world.VECTORS, ranking__tasks=["click", "share"]
    )
    with pytest.raises(
        ConfigError, match="^ranking.tasks: wanted some of click, rating, view, buy"
    ):
        train_run(labeled, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
