import csv
import json
import math
import shutil
import types

import pytest
from support import small_world

import mmrec_tf as mm
from mmrec_tf.config import ALIGNMENTS, FUSIONS, load_config
from mmrec_tf.errors import ConfigError, TuningError
from mmrec_tf.records.files import sealed
from tuning import search as tuning_search
from tuning import space as spaces
from tuning.search import search

SPACE = {
    "training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
    "dim": {"choice": [16, 32, 64]},
    "item.fusion": {"choice": ["mean", "gated"]},
}


def quick(config):
    """Best at a learning rate of 1e-2, dim 64 and gated fusion; more epochs are a little better."""
    distance = abs(math.log10(config.training.learning_rate) + 2)
    bonus = (config.dim == 64) + (config.item.fusion == "gated")
    return 1 - 0.1 * distance + 0.1 * bonus + 0.001 * config.training.epochs


def rows(out):
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def run(out, trial, **arguments):
    lines = []
    arguments = {"space": SPACE, "trials": 6, "max_epochs": 4} | arguments
    best = search("data", mm.Config(), out=out, trial=trial, report=lines.append, **arguments)
    return best, lines


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_search_returns_the_best_of_its_trials(tmp_path, strategy):
    seen = []

    def trial(config):
        seen.append(config)
        return quick(config)

    best, lines = run(tmp_path, trial, strategy=strategy)

    assert len(seen) == len(lines) == len(rows(tmp_path)) == 6
    assert best == max(seen, key=quick)
    assert load_config(tmp_path / "best_config.json") == best
    assert all(config.training.epochs == 4 for config in seen)
    assert len({config.training.learning_rate for config in seen}) == 6
    scores = [float(row["valid_ndcg@10"]) for row in rows(tmp_path)]
    assert scores == pytest.approx([quick(config) for config in seen])
    assert {row["status"] for row in rows(tmp_path)} == {"completed"}
    assert not list(tmp_path.glob(".*"))


def test_hyperband_promotes_the_better_trials(tmp_path):
    seen = []

    def trial(config):
        seen.append(config)
        return quick(config)

    best, _ = run(tmp_path, trial, strategy="hyperband", trials=None, max_epochs=9)

    epochs = [config.training.epochs for config in seen]
    assert set(epochs) == {1, 3, 9}
    assert epochs.count(1) > epochs[: epochs.index(9)].count(3)
    # Whatever was trained for 3 epochs in the first bracket was among the best after 1.
    first = seen[: epochs.index(3)]
    promoted = seen[epochs.index(3)].override({"training.epochs": 1})
    assert promoted == max(first, key=quick)
    assert best == max(seen, key=quick)
    assert [int(row["epochs"]) for row in rows(tmp_path)] == epochs


def test_hyperband_stops_at_trials(tmp_path):
    _, lines = run(tmp_path, quick, strategy="hyperband", trials=5, max_epochs=9)
    assert len(lines) == 5


def test_the_seed_decides_the_trials(tmp_path):
    def settings(name, seed):
        run(tmp_path / name, quick, seed=seed)
        return [row["training.learning_rate"] for row in rows(tmp_path / name)]

    assert settings("a", 0) == settings("b", 0)
    assert settings("c", 1) != settings("d", 2)


@pytest.mark.slow
def test_bayesian_uses_what_it_learned(tmp_path):
    space = {"training.learning_rate": SPACE["training.learning_rate"]}
    run(tmp_path, quick, strategy="bayesian", space=space, trials=12)
    rates = [float(row["training.learning_rate"]) for row in rows(tmp_path)]
    # Off by less than a factor of two from the optimum, of a range of a factor of 1000.
    assert min(abs(math.log10(rate) + 2) for rate in rates[4:]) < 0.3
    assert sum(1e-3 < rate for rate in rates[4:]) >= 5


def test_all_failed_raises_and_says_why(tmp_path):
    calls = []

    def trial(config):
        calls.append(config)
        raise ValueError("no picture\nin any item")

    with pytest.raises(TuningError, match="all 3 failed.*ValueError: no picture in any item"):
        run(tmp_path, trial)
    # The third says that the next would fail as well.
    assert len(calls) == 3
    assert {row["status"] for row in rows(tmp_path)} == {"failed"}
    assert {row["reason"] for row in rows(tmp_path)} == {"ValueError: no picture in any item"}
    assert not (tmp_path / "best_config.json").exists()


def test_a_score_that_is_no_number_is_a_failure(tmp_path):
    with pytest.raises(TuningError, match="the score is nan"):
        run(tmp_path, lambda config: math.nan, trials=2)


def test_some_failed_and_the_search_goes_on(tmp_path):
    def trial(config):
        if config.item.fusion == "gated":
            raise mm.ConfigError("gated: not here")
        return quick(config)

    best, lines = run(tmp_path, trial, trials=8)
    assert best.item.fusion == "mean"
    failed = [row for row in rows(tmp_path) if row["status"] == "failed"]
    assert 0 < len(failed) < 8
    assert failed[0]["reason"] == "ConfigError: gated: not here"
    assert any("failed: ConfigError: gated: not here" in line for line in lines)


@pytest.mark.parametrize("strategy", ["random", "bayesian", "hyperband"])
def test_an_interrupted_search_goes_on(tmp_path, strategy, capsys):
    calls = []

    def interrupted(config):
        calls.append(config)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return quick(config)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupted, strategy=strategy)
    assert len(rows(tmp_path)) == 2
    assert (tmp_path / "best_config.json").exists()

    again = []
    best, lines = run(
        tmp_path, lambda config: again.append(config) or quick(config), strategy=strategy
    )
    # The interrupted trial is repeated, the two completed ones are not.
    assert again[0] == calls[2]
    assert len(again) == 4 and len(rows(tmp_path)) == 6
    assert best == max(calls + again, key=quick)
    assert capsys.readouterr().out == ""

    # A search that is over can be given more trials.
    more = []
    run(tmp_path, lambda c: more.append(c) or quick(c), strategy=strategy, trials=7)
    assert len(more) == 1


@pytest.mark.parametrize(
    "strategy", ["random", pytest.param("bayesian", marks=pytest.mark.slow), "hyperband"]
)
def test_a_trial_is_counted_once_wherever_the_search_was_killed(tmp_path, strategy, monkeypatch):
    """The state on disk is copied as each of its files has changed, as a kill would leave it."""
    states = []
    write_text = tuning_search.write_text

    def copying(path, text):
        # A kill as it is written leaves what has begun aside.
        path.with_name(f".{path.name}.999999").write_text(text[: len(text) // 2])
        states.append(shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{len(states)}"))
        path.with_name(f".{path.name}.999999").unlink()
        write_text(path, text)
        states.append(shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{len(states)}"))

    monkeypatch.setattr(tuning_search, "write_text", copying)
    run(tmp_path / "whole", quick, strategy=strategy, trials=4)
    monkeypatch.undo()
    assert len(states) > 16
    wanted = rows(tmp_path / "whole")
    for state in states:
        run(state, quick, strategy=strategy, trials=4)
        assert rows(state) == wanted
        assert len(list((state / "trials").glob("trial_*"))) == 4
        assert not list(state.rglob(".*"))


def test_a_search_is_of_one_dataset_and_one_process(tmp_path, dataset, monkeypatch):
    there = shutil.copytree(dataset.directory, tmp_path / "d")
    monkeypatch.setattr(tuning_search, "valid_score", lambda dataset, config: quick(config))
    arguments = {"out": tmp_path / "s", "space": SPACE, "trials": 1, "report": lambda _: None}
    search(there, mm.Config(), **arguments)
    facts = json.loads((tmp_path / "s/search.json").read_text())
    assert facts["dataset_hash"] == mm.open_dataset(there).hash
    manifest = json.loads((there / "manifest.json").read_text())
    manifest = sealed({**manifest, "split_rule": "another"})
    (there / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TuningError, match="another dataset_hash"):
        search(there, mm.Config(), **arguments)

    def second(config):
        with pytest.raises(TuningError, match="another process searches there now"):
            run(tmp_path / "two", quick, trials=1)
        return quick(config)

    run(tmp_path / "two", second, trials=1)


@pytest.mark.parametrize("how", [lambda text: text[:50], lambda text: text.replace("0", "1")])
def test_a_damaged_search_json_is_named(tmp_path, how):
    run(tmp_path, quick, trials=1)
    path = tmp_path / "search.json"
    path.write_text(how(path.read_text()))
    with pytest.raises(TuningError, match="search.json: wanted what is searched here"):
        run(tmp_path, quick, trials=1)


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    run(tmp_path, quick, trials=2)
    with pytest.raises(TuningError, match="another strategy and seed"):
        run(tmp_path, quick, trials=2, strategy="bayesian", seed=1)
    with pytest.raises(TuningError, match="another config"):
        run(tmp_path, quick, trials=2, max_epochs=5)


def test_a_damaged_state_is_named(tmp_path):
    run(tmp_path, quick, trials=2)
    (tmp_path / "trials" / "oracle.json").write_text('{"ongoing')
    with pytest.raises(TuningError, match="damaged"):
        run(tmp_path, quick, trials=3)


def test_monitor_names_the_objective(tmp_path):
    config = mm.Config().override({"training.monitor": "recall@20"})
    search("data", config, out=tmp_path, space=SPACE, trials=1, trial=quick, report=lambda _: None)
    assert "valid_recall@20" in rows(tmp_path)[0]


def test_the_default_trial_reads_the_valid_split_and_takes_the_best_epoch(monkeypatch):
    class History:
        history = {"valid_recall@20": [0.1, 0.3, 0.2], "test_recall@20": [0.9]}

    def train(model, dataset):
        assert model.made_of == ("recall@20", "dataset") and dataset == "dataset"
        return History

    monkeypatch.setattr(
        mm,
        "RetrievalModel",
        lambda config, dataset: types.SimpleNamespace(
            made_of=(config.training.monitor, dataset), item_head_fit=None
        ),
        raising=False,
    )
    monkeypatch.setattr(mm, "train", train, raising=False)
    config = mm.Config().override({"training.monitor": "recall@20"})
    assert tuning_search.valid_score("dataset", config) == 0.3


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"training.learning_rat": {"float": [1, 2]}}, "did you mean 'learning_rate'"),
        ({"dim": {"choice": ["wide"]}}, "dim: wanted int"),
        ({"dim": {"choice": []}}, "wanted {"),
        ({"dim": {"int": [1, 8]}}, "dim: wanted at least 2"),
        ({"dim": {"int": [8]}}, r"wanted \[low, high\]"),
        ({"dim": {"int": [8.5, 9]}}, r"wanted \[low, high\]"),
        ({"dim": {"int": [8, 4]}}, "low below high"),
        ({"dim": {"int": [4, 8], "step": 2}}, "wanted {"),
        ({"dim": {"choice": [4], "int": [4, 8]}}, "wanted {"),
        ({"dim": [4, 8]}, "wanted {"),
        ({"dim": 4}, "wanted {"),
        ({"dim": {"choice": [4, 8], "log": True}}, '"log" goes with'),
        ({"item.dropout": {"float": [0, 0.5], "log": True}}, "above 0"),
        ({"training.epochs": {"int": [1, 5]}}, "belongs to the search"),
        ({"training.monitor": {"choice": ["recall@20"]}}, "belongs to the search"),
    ],
)
def test_an_unusable_space_is_refused(rule, message):
    with pytest.raises(ConfigError, match=message):
        spaces.hyperparameters(rule, mm.Config())


def test_every_form_of_value_reaches_the_config(tmp_path):
    space = {
        "modalities": {"choice": [["text"], ["text", "image"], None]},
        "audio.filters": {"choice": [[8, 16]]},
        "training.mixed_precision": {"choice": [True]},
        "item.dropout": {"choice": [0, 0.5]},
        "user.history": {"choice": ["gru"]},
        "training.patience": {"int": [2, 3]},
        "audio.clip_seconds": {"float": [1, 2]},
    }
    seen = []
    best, _ = run(tmp_path, lambda config: seen.append(config) or 1.0, space=space, trials=12)
    assert {config.modalities for config in seen} == {("text",), ("text", "image"), None}
    assert best.audio.filters == (8, 16)
    assert best.training.mixed_precision is True
    assert {config.item.dropout for config in seen} == {0.0, 0.5}
    assert best.user.history == "gru"
    assert {config.training.patience for config in seen} == {2, 3}
    assert all(1 <= config.audio.clip_seconds <= 2 for config in seen)


def test_default_space_fits_the_default_config():
    values = spaces.hyperparameters(spaces.default_space(mm.Config()), mm.Config()).values
    assert "item.fusion" in values
    assert "item.fusion" not in spaces.default_space(mm.Config(modalities=()))
    assert spaces.default_space(mm.Config())["item.fusion"] == {"choice": list(FUSIONS)}


@pytest.mark.parametrize("kinds", [[], *([k] for k in ALIGNMENTS), ["graph", "contrastive"]])
def test_the_default_space_weighs_a_loss_only_where_there_is_one(kinds):
    config = mm.Config().override({"alignment.kinds": kinds})
    space = spaces.default_space(config)
    for kind in ("contrastive", "graph"):
        assert (f"alignment.{kind}_weight" in space) == (kind in kinds)
    spaces.hyperparameters(space, config)


def test_bookkeeping_of_hyperband_is_no_setting():
    values = {"dim": 32, "tuner/epochs": 3, "tuner/trial_id": "0001"}
    assert spaces.overrides(values) == {"dim": 32}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--trials", "0"], 2, "trials: wanted at least 1"),
        (["--set", "dim"], 2, "wanted PATH=VALUE"),
        (["--set", "dimm=3"], 2, "did you mean 'dim'"),
        (["--space", "missing.json"], 2, "wanted a search space"),
        (["--config", "missing.json"], 2, "wanted a config file"),
        (["--seed", "-1"], 2, "seed: wanted 0 or more"),
        ([], 1, "DatasetError"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, capsys, arguments, status, message):
    common = ["--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert tuning_search.main(common + arguments) == status
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_command_hands_its_options_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "config.json").write_text('{"dim": 48}')
    given = {}
    monkeypatch.setattr(tuning_search, "search", lambda *a, **k: given.update(k, positional=a))
    files = f"--config {tmp_path}/config.json --space {tmp_path}/space.json"
    status = tuning_search.main(
        f"--dataset data --out out {files} --set training.batch_size=64 "
        "--strategy bayesian --trials 7 --max-epochs 3 --seed 5".split()
    )
    assert status == 0
    dataset, config = given.pop("positional")
    assert (dataset, config.dim, config.training.batch_size) == ("data", 48, 64)
    assert given == {
        "out": "out",
        "space": SPACE,
        "strategy": "bayesian",
        "trials": 7,
        "max_epochs": 3,
        "seed": 5,
    }
    assert "best_config.json" in capsys.readouterr().out


def test_a_real_search(dataset, tmp_path):
    """Two trials of real training, on the valid split alone."""
    config = small_world.config(**small_world.VECTORS)
    space = {"training.learning_rate": {"choice": [0.001, 0.05]}}
    arguments = {"space": space, "strategy": "random", "trials": 2, "max_epochs": 2, "seed": 1}
    best = search(dataset.directory, config, out=tmp_path / "search", **arguments)
    assert best == load_config(tmp_path / "search" / "best_config.json")
    assert best.training.learning_rate in (0.001, 0.05)
    with (tmp_path / "search" / "trials.csv").open() as file:
        scores = [float(row["valid_ndcg@10"]) for row in csv.DictReader(file)]
    assert len(scores) == 2 and len(set(scores)) == 2
