"""Runs side by side: what is measured, what is corrected, what is refused, and how it is shown."""

import json
import types

import numpy as np
import pytest
from support import small_world

from benchmarks import bench_seeds
from mmrec_tf.__main__ import main
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.evaluate import evaluate
from mmrec_tf.evaluation.metrics import holm, paired_bootstrap, paired_p_value
from mmrec_tf.reporting.comparison import write_comparison
from mmrec_tf.runs.comparison import compare_runs
from mmrec_tf.runs.evaluate import evaluate_run


def test_holm_by_hand():
    """Ascending 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, none lower than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_p_values_fall_evenly_where_nothing_differs():
    rng = np.random.default_rng(0)
    found = [
        paired_p_value(*rng.normal(size=(2, 200)), num_resamples=400, seed=seed)
        for seed in range(200)
    ]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
    assert 0.4 < np.mean(found) < 0.6


def test_a_p_value_agrees_with_its_interval():
    rng = np.random.default_rng(1)
    a = rng.normal(size=300)
    for shift in (0.0, 0.05, 0.3):
        b = a - shift + rng.normal(size=300)
        _, low, high = paired_bootstrap(a, b, num_resamples=10_000)
        p = paired_p_value(a, b)
        assert (p < 0.05) == (low > 0 or high < 0) or 0.03 < p < 0.07
    assert paired_p_value(a, a) == 1.0
    assert paired_p_value(a + 1, a) == pytest.approx(1 / 10_001)
    with pytest.raises(ValueError, match="wanted one value a user"):
        paired_p_value([], [])


def test_a_run_beside_its_twin(run):
    found = compare_runs([run, run.twin], ks=(5, 10), stage="retrieval")
    assert (found["split"], found["users"]) == ("valid", small_world.NUM_USERS)
    measured = evaluate(run.retrieval, run.dataset, split="valid", ks=(5, 10))
    name, other = found["runs"]
    assert other == "twin"
    assert {m: found["runs"][name][m] for m in measured} == measured
    entries = found["differences"]
    metrics = ["recall@5", "ndcg@5", "recall@10", "ndcg@10"]
    assert [entry["metric"] for entry in entries] == metrics
    assert {(entry["run"], entry["other"]) for entry in entries} == {(name, other)}
    for entry in entries:
        metric = entry["metric"]
        mean = found["runs"][name][metric] - found["runs"][other][metric]
        assert entry["mean"] == pytest.approx(mean, abs=1e-12)
        assert entry["low"] <= entry["mean"] <= entry["high"]
    assert [e["p_holm"] for e in entries] == holm([e["p"] for e in entries])
    assert [e["significant"] for e in entries] == [e["p_holm"] < 0.05 for e in entries]
    assert found["settings"][name]["modalities"] is None
    assert found["settings"][other]["modalities"] == []
    assert "dim" not in found["settings"][name]


def test_the_command_prints_tables_json_and_a_page(run, tmp_path, capsys):
    page = tmp_path / "compare.html"
    asked = ["compare", str(run.directory), str(run.directory / "twin"), "--k", "10"]
    asked += ["--stage", "retrieval", "--out", str(page)]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert "40 users, retrieval alone" in out and "settings that differ" in out
    assert f"{run.directory.name} - twin, recall@10" in out and err.endswith(f"{page}\n")
    text = page.read_text("utf-8")
    assert text.count("<svg") == 3 and "modalities" in text and "Holm" in text
    assert " src=" not in text
    assert main([*asked[:-2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["differences"]) == 2


def fake(directory, dataset_hash="a"):
    facts = {"dataset_hash": dataset_hash, "dataset": f"/data/{dataset_hash}"}
    return types.SimpleNamespace(directory=directory, facts=facts)


def test_runs_of_different_datasets_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="x was trained on /data/a, y on another: /data/b"):
        compare_runs([fake(tmp_path / "x"), fake(tmp_path / "y", "b")])


@pytest.mark.parametrize(
    "names, message",
    [(["x"], "two or more runs; got 1"), (["x", "x"], "different runs; got .* tw")],
)
def test_fewer_than_two_runs_are_refused(tmp_path, names, message):
    with pytest.raises(ConfigError, match=message):
        compare_runs([fake(tmp_path / name) for name in names])


def test_a_page_shows_names_as_text(tmp_path):
    name = "<script>"
    entry = {"run": name, "other": "b", "metric": "recall@10", "mean": 0.1, "low": 0.0, "high": 0.2}
    found = {
        **{"dataset": name, "split": "valid", "history": "train", "stage": "retrieval"},
        "users": 3,
        "runs": {n: {"directory": n, "recall@10": 0.5} for n in (name, "b")},
        "settings": {name: {}, "b": {}},
        "differences": [{**entry, "p": 0.5, "p_holm": 1.0, "significant": False}],
    }
    text = write_comparison(found, tmp_path / "c.html").read_text("utf-8")
    assert name not in text and "None: the configs are equal." in text


@pytest.mark.parametrize("protocol", ["valid", "test_after_valid"])
def test_the_benchmark_of_seeds_tells_what_evaluation_does(run, protocol):
    """One run twice, which no seed tells apart."""
    split, history = bench_seeds.PROTOCOLS[protocol]
    found = bench_seeds._measure(run.dataset, {3: run, 4: run}, split=split, history=history)
    wanted = evaluate_run(run, split=split, ks=bench_seeds.KS, baselines=["ease"], history=history)
    assert found["users"] == wanted["users"] and list(found["by_seed"]) == ["3", "4"]
    assert found["left_out"] == wanted["left_out"] == {}
    rows = {name: wanted[name] for name in ("model", "id_only", "popularity")}
    for name, metrics in (rows | wanted["baselines"]).items():
        summary = found["summary"][name]
        assert {metric: one["mean"] for metric, one in summary.items()} == pytest.approx(metrics)
        # What learns nothing from a seed has no spread.
        spread = 0.0 if name in ("model", "id_only") else None
        assert {one["std"] for one in summary.values()} == {spread}
    for name, metrics in found["differences"].items():
        for metric, values in metrics.items():
            assert values == pytest.approx(wanted["differences"][name][metric])
    assert "ceiling" not in found["summary"] and "knowable" not in found["summary"]
