"""Real training: what a trial trains, what trials share, and that none reads the test split."""

import csv
import json
import types

import pytest
from support import small_world

import mmrec_tf as mm
from mmrec_tf.config import load_config
from mmrec_tf.errors import TuningError
from tuning.objective import parse
from tuning.results.retrain import retrain
from tuning.search import main
from tuning.trial import Budget, Recommenders, ValidDataset, _watch
from tuning.tuner.search import Search


def rows(out):
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def config(**settings):
    return small_world.config(**{**small_world.VECTORS, **settings})


def test_the_test_split_cannot_be_read(dataset):
    valid = ValidDataset(dataset.directory)
    assert valid.hash == dataset.hash and len(valid.interactions("valid").user)
    for read in (
        lambda: valid.interactions("test"),
        lambda: valid.batches("test", 8),
        lambda: valid.known_interactions("all"),
        lambda: valid.histories(history="all"),
        lambda: valid.ceiling("test"),
        lambda: valid.ceiling("test", knowable=True),
        lambda: mm.evaluate(None, valid, split="test"),
    ):
        with pytest.raises(TuningError, match="test split"):
            read()


@pytest.mark.slow
def test_a_search_over_both_stages(dataset, tmp_path, monkeypatch):
    """Ranking and the recommender, over one retrieval; then the page and TensorBoard."""
    made = []
    train = mm.train

    def counting(model, data, **options):
        assert isinstance(data, ValidDataset)
        made.append((model.stage, model.config.ranking.architecture))
        return train(model, data, **options)

    monkeypatch.setattr(mm, "train", counting, raising=False)
    space = {
        "ranking.architecture": {"choice": ["mlp", "bilinear"]},
        "recommender.popularity_dampening": {"choice": [0.0, 3.0]},
    }
    (tmp_path / "space.json").write_text(json.dumps(space))
    (tmp_path / "config.json").write_text(
        json.dumps(config(training__epochs=1, ranking__learning_rate=0.05).to_json())
    )
    out = tmp_path / "out"
    command = f"--dataset {dataset.directory} --config {tmp_path}/config.json --strategy grid "
    command += f"--space {tmp_path}/space.json --out {out} --objective ranking.auc+ndcg@5 "
    command += "--max-epochs 1 --trials 3"
    assert main(command.split()) == 0
    table = rows(out)
    assert len(table) == 3 and {row["status"] for row in table} == {"completed"}
    # One retrieval for all of them.
    assert [stage for stage, _ in made].count("retrieval") == 1
    scores = {
        (row["ranking.architecture"], row["recommender.popularity_dampening"]): row for row in table
    }
    auc = {key: row["ranking.auc"] for key, row in scores.items()}
    ndcg = {key: row["recommender.ndcg@5"] for key, row in scores.items()}
    # What a setting can influence is what is measured.
    assert auc["mlp", "0.0"] != auc["bilinear", "0.0"]
    assert ndcg["mlp", "0.0"] != ndcg["mlp", "3.0"]
    best = load_config(out / "best_config.json")
    assert best.ranking.architecture in ("mlp", "bilinear") and best.training.epochs == 1
    assert list(out.glob("tensorboard/trial_*/events.*"))
    page = (out / "report.html").read_text()
    assert page.count("Plotly.newPlot(") >= 2 and "ranking.architecture" in page
    # Goes on: nothing is left to do, and nothing is done again.
    made.clear()
    assert main(command.split()) == 0 and not made


@pytest.fixture
def retrained(dataset, tmp_path, monkeypatch):
    """A search of stubs that is over; what is trained is what is most popular."""
    trained = []

    def train_run(data, config, folder):
        trained.append((type(data), config.dim, folder.name))
        return types.SimpleNamespace(recommender=lambda history: None, retrieval=None)

    monkeypatch.setattr("mmrec_tf.runs.train.train_run", train_run)
    monkeypatch.setattr("tuning.results.report.write_report", lambda *a, **k: None)
    monkeypatch.setattr("tuning.results.board.write_board", lambda *a, **k: None)
    found = Search(
        dataset.directory,
        config(),
        {"dim": {"choice": [4, 8]}},
        out=tmp_path,
        strategy="grid",
        trial=lambda config, budget: {"retrieval.ndcg@10": config.dim / 8},
        report=lambda _: None,
    )
    found.search()
    return found, trained


def test_retraining_without_a_test_split_says_so(retrained, monkeypatch):
    read = mm.Dataset.interactions

    def without_test(self, split):
        found = read(self, split)
        return type(found)(*(a[:0] for a in found)) if split == "test" else found

    monkeypatch.setattr(mm.Dataset, "interactions", without_test)
    found, _ = retrained
    for _ in range(2):
        lines = []
        figures = retrain(found, lines.append)
        assert figures["test"] is None and figures["valid"]["recall@10"] > 0
        assert [line.partition(":")[0] for line in lines] == ["valid", "test"]
        assert "the dataset has no such split" in lines[1]


def test_retraining_reads_the_test_split_once(dataset, retrained):
    found, trained = retrained
    lines = []
    figures = retrain(found, lines.append)
    assert trained == [(mm.Dataset, 8, "best")]
    assert figures["test"] == mm.evaluate(None, dataset, split="test")
    assert "this was the one time that the test split was read" in lines[0]
    lines.clear()
    again = retrain(found, lines.append)
    assert again["test"] == figures["test"] and len(trained) == 1
    assert "was read once before, and is not read again" in lines[0]


@pytest.mark.slow
def test_a_real_search(dataset, tmp_path):
    """Two trials of real training, of which nothing but figures is left."""
    space = {"training.learning_rate": {"choice": [0.02, 0.05]}}
    arguments = {"out": tmp_path, "strategy": "grid", "max_epochs": 1, "report": lambda _: None}
    found = Search(dataset.directory, config(), space, **arguments)
    found.search()
    assert found.best_config == load_config(tmp_path / "best_config.json")
    assert found.best_config.training.epochs == 1
    scores = {float(row["retrieval.ndcg@10"]) for row in rows(tmp_path)}
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)
    assert not list(tmp_path.glob("trials/trial_*/seed-*/retrieval"))


@pytest.mark.slow
def test_a_promoted_trial_ends_where_one_training_would(dataset, tmp_path):
    """Hyperband's rungs, with a schedule of the learning rate and history epoch by epoch."""
    start = config(training__epochs=3, training__decay="linear", training__patience=0)
    data = ValidDataset(dataset.directory)
    objective = parse(None, start, ["dim"])
    trial = Recommenders(
        data,
        objective,
        shared=tmp_path / "shared",
        varied=["retrieval"],
        paced="retrieval",
        start=start,
    )
    rungs = [trial(start, Budget(tmp_path / "a", epochs))["retrieval.ndcg@10"] for epochs in (1, 3)]
    whole = trial(start, Budget(tmp_path / "b", None))["retrieval.ndcg@10"]
    assert rungs[-1] == whole
    traces = [(tmp_path / name / "retrieval/history.csv").read_text() for name in ("a", "b")]
    assert traces[0] == traces[1] and traces[0].count("\n") == 4


@pytest.mark.slow
def test_training_that_diverges_or_takes_too_long_ends(dataset, tmp_path):
    start = config(training__learning_rate=1e30, training__epochs=3)
    data = ValidDataset(dataset.directory)
    found = Search(
        data.directory,
        start,
        {"training.learning_rate": {"choice": [1e30, 0.01]}},
        out=tmp_path,
        strategy="grid",
        report=lambda _: None,
    )
    found.search()
    first = next(row for row in rows(tmp_path) if row["training.learning_rate"] == "1e+30")
    assert first["status"] == "failed" and first["reason"].startswith("diverged: ")
    assert found.best_config.training.learning_rate == 0.01
    watch = _watch(deadline=0.0)
    watch.set_model(type("Model", (), {"stage": "retrieval"}))
    with pytest.raises(TuningError, match="in retrieval, after 3 batches"):
        watch.on_train_batch_end(2)
