import csv
import json
import math
import random
import shutil

import keras_tuner
import pytest

import mmrec_tf as mm
import tuning
from mmrec_tf.config import load_config
from mmrec_tf.errors import TuningError
from mmrec_tf.records.files import sealed
from tuning import oracle as oracles
from tuning import search as tuning_search
from tuning.trial import Diverged, TimedOut
from tuning.tuner import search as searches
from tuning.tuner import tuner as tuners
from tuning.tuner.search import Search, search

SPACE = {
    "training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
    "dim": {"choice": [16, 32, 64]},
    "item.fusion": {"choice": ["mean", "gated"]},
}
GRID = {name: rule for name, rule in SPACE.items() if "choice" in rule}


@pytest.fixture(autouse=True)
def no_files_for_people(monkeypatch):
    """The page and TensorBoard's files have tests of their own, and cost more than a stub."""
    monkeypatch.setattr("tuning.results.report.write_report", lambda *a, **k: None)
    monkeypatch.setattr("tuning.results.board.write_board", lambda *a, **k: None)


def quick(config, budget=None):
    """Best at a learning rate of 1e-2, dim 64 and gated fusion; more epochs are a little better."""
    distance = abs(math.log10(config.training.learning_rate) + 2)
    bonus = (config.dim == 64) + (config.item.fusion == "gated")
    epochs = (budget and budget.epochs) or config.training.epochs
    return {"retrieval.ndcg@10": 1 - 0.1 * distance + 0.1 * bonus + 0.001 * epochs}


def score(config):
    return quick(config)["retrieval.ndcg@10"]


def rows(out):
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def run(out, trial, **arguments):
    lines = []
    arguments = {"space": SPACE, "trials": 6, "max_epochs": 4, "strategy": "random"} | arguments
    if arguments["strategy"] == "grid" and arguments["space"] is SPACE:
        arguments["space"] = GRID
    best = search("data", mm.Config(), out=out, trial=trial, report=lines.append, **arguments)
    return best, lines


@pytest.mark.parametrize("strategy", ["random", pytest.param("bayesian", marks=pytest.mark.slow)])
def test_search_returns_the_best_of_its_trials(tmp_path, strategy):
    seen = []

    def trial(config, budget):
        seen.append(config)
        return quick(config, budget)

    best, lines = run(tmp_path, trial, strategy=strategy)

    assert len(seen) == len(lines) == len(rows(tmp_path)) == 6
    assert best == max(seen, key=score)
    assert load_config(tmp_path / "best_config.json") == best
    assert all(config.training.epochs == 4 for config in seen)
    assert len({config.training.learning_rate for config in seen}) == 6
    scores = [float(row["retrieval.ndcg@10"]) for row in rows(tmp_path)]
    assert scores == pytest.approx([score(config) for config in seen])
    assert {row["status"] for row in rows(tmp_path)} == {"completed"}
    assert not list(tmp_path.glob(".*"))


def test_hyperband_promotes_the_better_trials_from_their_checkpoints(tmp_path):
    trained = []

    def trial(config, budget):
        """Trains one epoch after the other, from what lies in its folder."""
        path = budget.folder / "epochs.txt"
        done = int(path.read_text()) if path.exists() else 0
        for epoch in range(done, budget.epochs):
            trained.append((config.training.learning_rate, epoch))
            path.write_text(str(epoch + 1))
        return quick(config, budget)

    best, _ = run(tmp_path, trial, strategy="hyperband", trials=None, max_epochs=9)

    table = {row["trial"]: row for row in rows(tmp_path)}
    promoted = [row for row in table.values() if row["from"]]
    assert {row["epochs"] for row in table.values()} == {"1", "3", "9"}
    assert len(promoted) > 3
    for row in promoted:
        before = table[row["from"]]
        assert row["training.learning_rate"] == before["training.learning_rate"]
        assert float(row["retrieval.ndcg@10"]) > float(before["retrieval.ndcg@10"])
    # No epoch of a config twice: what is promoted goes on.
    assert len(trained) == len(set(trained))
    # The first bracket's best is the one that went furthest.
    first = [row for row in table.values() if row["epochs"] == "1"]
    top = max(first, key=lambda row: float(row["retrieval.ndcg@10"]))
    assert (float(top["training.learning_rate"]), 8) in trained
    # The schedule of a rung is that of the whole.
    assert best.training.epochs == 9


def test_a_failed_trial_is_not_promoted_and_does_not_stop_a_bracket(tmp_path):
    def trial(config, budget):
        if config.item.fusion == "mean":
            raise Diverged("loss is nan after epoch 1")
        return quick(config, budget)

    run(tmp_path, trial, strategy="hyperband", trials=None, max_epochs=9)
    table = {row["trial"]: row for row in rows(tmp_path)}
    failed = [row for row in table.values() if row["status"] == "failed"]
    assert failed and all("diverged: loss is nan" in row["reason"] for row in failed[:2])
    assert any(row["epochs"] == "9" and row["from"] for row in table.values())


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

    def trial(config, budget):
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
        run(tmp_path, lambda config, budget: {"retrieval.ndcg@10": math.nan}, trials=2)


def test_some_failed_and_the_search_goes_on(tmp_path):
    def trial(config, budget):
        if config.item.fusion == "gated":
            raise mm.ConfigError("gated: not here")
        return quick(config)

    best, lines = run(tmp_path, trial, trials=8)
    assert best.item.fusion == "mean"
    failed = [row for row in rows(tmp_path) if row["status"] == "failed"]
    assert 0 < len(failed) < 8
    assert failed[0]["reason"] == "ConfigError: gated: not here"
    assert any("failed: ConfigError: gated: not here" in line for line in lines)


@pytest.mark.parametrize("strategy", ["random", "grid", "hyperband"])
def test_an_interrupted_search_goes_on(tmp_path, strategy, capsys):
    calls = []

    def interrupted(config, budget):
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
        tmp_path,
        lambda config, budget: again.append(config) or quick(config, budget),
        strategy=strategy,
    )
    # The interrupted trial is repeated, the two completed ones are not.
    assert again[0] == calls[2]
    assert len(again) == 4 and len(rows(tmp_path)) == 6
    assert best == max(calls + again, key=score)
    assert capsys.readouterr().out == ""

    if strategy == "grid":
        return  # whose six points these were
    # A search that is over can be given more trials.
    more = []
    run(tmp_path, lambda c, budget: more.append(c) or quick(c, budget), strategy=strategy, trials=7)
    assert len(more) == 1


STRATEGIES = ["random", pytest.param("bayesian", marks=pytest.mark.slow), "hyperband", "grid"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_trial_is_counted_once_wherever_the_search_was_killed(tmp_path, strategy, monkeypatch):
    """The state on disk is copied as each of its files has changed, as a kill would leave it."""
    states = []
    write_text, write_sealed = oracles.write_text, tuners.write_sealed

    def copying(write):
        def both(path, content):
            # A kill as it is written leaves what has begun aside.
            path.with_name(f".{path.name}.999999").write_text("{")
            states.append(shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{len(states)}"))
            path.with_name(f".{path.name}.999999").unlink()
            write(path, content)
            states.append(shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{len(states)}"))

        return both

    with monkeypatch.context() as patched:
        patched.setattr(oracles, "write_text", copying(write_text))
        patched.setattr(tuners, "write_sealed", copying(write_sealed))
        run(tmp_path / "whole", quick, strategy=strategy, trials=5)
    assert len(states) > 20
    wanted = [{**row, "seconds": ""} for row in rows(tmp_path / "whole")]
    for state in random.sample(states, 10):
        done = len(list(state.glob("trials/trial_*/result.json")))
        again = []
        run(
            state,
            lambda config, budget, again=again: again.append(config) or quick(config, budget),
            strategy=strategy,
            trials=5,
        )
        assert [{**row, "seconds": ""} for row in rows(state)] == wanted
        # What was done before is not done again.
        assert len(again) == 5 - done
        assert not list(state.rglob(".*"))


def test_a_search_is_of_one_dataset_and_one_process(tmp_path, dataset, monkeypatch):
    there = shutil.copytree(dataset.directory, tmp_path / "d")
    monkeypatch.setattr(
        searches, "Recommenders", lambda *a, **k: lambda config, budget: quick(config)
    )
    arguments = {"out": tmp_path / "s", "space": SPACE, "trials": 1, "report": lambda _: None}
    search(there, mm.Config(), **arguments)
    facts = json.loads((tmp_path / "s/search.json").read_text())
    assert facts["dataset_hash"] == mm.open_dataset(there).hash
    manifest = json.loads((there / "manifest.json").read_text())
    manifest = sealed({**manifest, "split_rule": "another"})
    (there / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TuningError, match="another dataset_hash"):
        search(there, mm.Config(), **arguments)

    def second(config, budget):
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


def test_the_first_trials_are_the_start_and_what_is_given(tmp_path):
    start = mm.Config().override({"dim": 32})
    example = mm.Config().override({"dim": 16, "training.learning_rate": 0.05})
    lines = []
    seen = []
    search(
        "data",
        start,
        out=tmp_path,
        space=SPACE,
        trials=3,
        start_from=[example],
        trial=lambda config, budget: seen.append(config) or quick(config),
        report=lines.append,
    )
    assert seen[:2] == [start, example] and len(seen) == 3
    with pytest.raises(mm.ConfigError, match="0.5 is none of 0.0001 to 0.1"):
        other = mm.Config().override({"training.learning_rate": 0.5})
        Search("data", start, SPACE, out=tmp_path, start_from=[other], trial=quick)
    with pytest.raises(mm.ConfigError, match="it does also in user.history"):
        other = start.override({"user.history": "gru"})
        Search("data", start, SPACE, out=tmp_path, start_from=[other], trial=quick)
    Search("data", mm.Config(dim=8), SPACE, out=tmp_path / "b", trial=quick, report=lines.append)
    assert "the start lies outside the space, and is no trial: dim 8 is none of 16" in lines[-1]


def test_several_seeds_give_a_mean_and_a_spread(tmp_path):
    seen = []

    def trial(config, budget):
        seen.append(config.training.seed)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return {"retrieval.ndcg@10": 0.5 + 0.1 * config.training.seed}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, trial, trials=2, seeds=3)
    best, lines = run(tmp_path, trial, trials=2, seeds=3)
    # The seed that was interrupted again, those before it not.
    assert seen == [0, 1, 2, 0, 1, 1, 2]
    for row in rows(tmp_path):
        assert float(row["retrieval.ndcg@10"]) == pytest.approx(0.6)
        assert float(row["spread"]) == pytest.approx(0.1)
        assert row["seeds"] == "3"
    assert "0.6000 ± 0.1000" in lines[-1] and best.training.seed == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory: no more could be had"),
        (Diverged("loss is nan after epoch 2"), "diverged: loss is nan after epoch 2"),
        (TimedOut("in retrieval"), "timed out: in retrieval"),
        (mm.ConfigError("no"), "ConfigError: no"),
    ],
)
def test_a_failure_is_recorded_with_its_reason(tmp_path, error, reason):
    def trial(config, budget):
        if config.item.fusion == "mean":
            raise error
        return quick(config)

    run(tmp_path, trial, space=GRID, strategy="grid")
    found = {row["item.fusion"]: row["reason"] for row in rows(tmp_path)}
    assert found == {"mean": reason, "gated": ""}


def test_a_metric_of_which_less_is_better(tmp_path):
    def trial(config, budget):
        assert budget.deadline is not None
        return {"ranking.rmse": 2 - score(config)}

    best, _ = run(tmp_path, trial, objective="ranking.rmse", strategy="grid", minutes=5)
    assert (best.dim, best.item.fusion) == (64, "gated")


def test_no_trial_begins_after_the_hours(tmp_path):
    with pytest.raises(TuningError, match="None was started"):
        run(tmp_path, quick, hours=1e-12, trials=6)
    best, lines = run(tmp_path, quick, hours=1, trials=2)
    assert len(lines) == 2 and "s left" in lines[0]


def test_grid_takes_each_combination_of_what_is_active_once(tmp_path):
    space = {
        "user.history": {"choice": ["mean", "self_attention"]},
        "user.num_layers": {"int": [1, 3]},
        "item.dropout": {"float": [0.0, 0.2], "step": 0.1},
    }
    seen = []
    run(
        tmp_path,
        lambda config, budget: seen.append(config) or quick(config),
        space=space,
        strategy="grid",
        trials=None,
    )
    found = {(c.user.history, c.user.num_layers, c.item.dropout) for c in seen}
    assert len(seen) == len(found) == 12
    with pytest.raises(mm.ConfigError, match="learning_rate: a grid wants few values"):
        search("data", mm.Config(), out=tmp_path / "b", space=SPACE, strategy="grid", trial=quick)


def test_a_search_is_a_keras_tuner_tuner(tmp_path, capsys):
    tuner = tuning.Search(
        "data",
        mm.Config(),
        SPACE,
        out=tmp_path,
        trials=4,
        trial=quick,
        report=lambda _: None,
    )
    assert isinstance(tuner, keras_tuner.engine.base_tuner.BaseTuner)
    assert isinstance(tuner.hypermodel, keras_tuner.HyperModel)
    tuner.search()
    best = tuner.get_best_hyperparameters()[0]
    assert tuner.hypermodel.config_of(best) == tuner.best_config
    assert tuner.remaining_trials == 0
    tuner.results_summary()
    tuner.search_space_summary()
    said = capsys.readouterr().out
    assert "training.learning_rate" in said and "Score: " in said
    # Another process reads what is there.
    again = tuning.Search(
        "data", mm.Config(), SPACE, out=tmp_path, trials=4, trial=quick, report=lambda _: None
    )
    assert again.get_best_hyperparameters()[0].values == best.values
    with pytest.raises(TuningError, match="trials keep no models"):
        again.get_best_models()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--trials", "0"], 2, "trials: wanted at least 1"),
        (["--set", "dim"], 2, "wanted PATH=VALUE"),
        (["--set", "dimm=3"], 2, "did you mean 'dim'"),
        (["--space", "missing.json"], 2, "wanted a search space"),
        (["--space", "rankin"], 2, "did you mean 'ranking'"),
        (["--workers", "-1"], 2, "workers: wanted 0 or more"),
        (["--hours", "0"], 2, "hours: wanted above 0"),
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

    class Stub:
        is_worker, out = False, tmp_path

        def __init__(self, *positional, **named):
            given.update(named, positional=positional)

        def search(self):
            pass

    monkeypatch.setattr(tuning_search, "Search", Stub)
    files = f"--config {tmp_path}/config.json --space {tmp_path}/space.json"
    status = tuning_search.main(
        f"--dataset data --out out {files} --set training.batch_size=64 --objective ranking.auc "
        "--strategy bayesian --trials 7 --max-epochs 3 --seed 5 --seeds 2 --hours 1.5 --workers 2 "
        f"--trial-minutes 9 --start-from {tmp_path}/config.json".split()
    )
    assert status == 0
    dataset, config, space = given.pop("positional")
    assert (dataset, config.dim, config.training.batch_size) == ("data", 48, 64)
    assert space == SPACE
    assert given == {
        "out": "out",
        "objective": "ranking.auc",
        "strategy": "bayesian",
        "trials": 7,
        "max_epochs": 3,
        "seed": 5,
        "seeds": 2,
        "hours": 1.5,
        "minutes": 9.0,
        "workers": 2,
        "start_from": [mm.Config(dim=48)],
    }
    assert "best_config.json" in capsys.readouterr().out
