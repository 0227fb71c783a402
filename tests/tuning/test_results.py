import csv
import re

import numpy as np
import pytest

import mmrec_tf as mm
from tuning.objective import parse
from tuning.results import report
from tuning.results.importance import importances
from tuning.results.table import Row, best_row, write_trials

OBJECTIVE = parse("retrieval.ndcg@10", mm.Config(), ["dim"])
SETTINGS = ["training.learning_rate", "item.fusion", "user.num_layers", "dim"]
FACTS = {
    "dataset": "work/<toy>",
    "objective": OBJECTIVE.name,
    "strategy": "random",
    "seed": 0,
    "seeds": 2,
    "config": mm.Config().to_json(),
    "first": [{}],
}


def row(number, score, *, reason="", spread=0.01, **settings):
    return Row(
        trial=str(number),
        completed=score is not None,
        score=score,
        spread=spread if score is not None else None,
        scores=() if score is None else (score, score),
        metrics={},
        settings=settings,
        epochs=None,
        goes_on="",
        seconds=1.5,
        reason=reason,
    )


def planted(number):
    """Scores in which fusion decides, the learning rate says little, and dim nothing."""
    rng = np.random.default_rng(number)
    rows = []
    for n in range(30):
        fusion, rate = rng.choice(["mean", "gated", "attention"]), float(10 ** rng.uniform(-4, -1))
        layers = {"user.num_layers": int(rng.integers(1, 4))} if rng.random() < 0.5 else {}
        score = 0.3 * (fusion == "gated") - 0.02 * abs(np.log10(rate) + 2)
        settings = {
            "training.learning_rate": rate,
            "item.fusion": str(fusion),
            "dim": int(rng.choice([16, 32])),
        }
        rows.append(row(n, float(score), **settings, **layers))
    return rows


def test_the_importance_of_what_decides():
    forest = importances(planted(0), SETTINGS)
    found = {entry.setting: entry.mean for entry in forest.settings}
    assert forest.settings[0].setting == "item.fusion"
    assert found["item.fusion"] > 0.5 > 0.2 > found["training.learning_rate"]
    assert abs(found["dim"]) < 0.02 and abs(found["user.num_layers"]) < 0.02
    assert forest.explained > 0.8


def test_a_forest_of_few_trials_says_nothing():
    rows = planted(0)
    assert importances(rows[:7], SETTINGS) is None
    assert importances([r._replace(score=0.5) for r in rows], SETTINGS) is None


def test_the_best_of_rows():
    rows = [row(0, 0.2), row(1, None, reason="no"), row(2, 0.3), row(3, 0.3)]
    assert best_row(rows, OBJECTIVE).trial == "2"
    assert best_row(rows, parse("ranking.rmse", mm.Config(), ["dim"])).trial == "0"
    assert best_row(rows[1:2], OBJECTIVE) is None


def test_the_table_holds_failures_and_what_was_not_active(tmp_path):
    rows = [row(0, 0.25, dim=8), row(1, None, reason="diverged: loss is nan")]
    write_trials(tmp_path / "t.csv", rows, OBJECTIVE, mm.Config(), ["dim", "user.num_layers"])
    with open(tmp_path / "t.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["retrieval.ndcg@10"], first["spread"], first["seeds"]) == ("0.25", "0.01", "2")
    assert (first["dim"], first["user.num_layers"], first["reason"]) == ("8", "", "")
    assert (second["status"], second["reason"]) == ("failed", "diverged: loss is nan")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = planted(1)
    bad = "</script><script>alert(1)</script>"
    rows += [row(30, None, reason=bad, dim=16), row(31, 0.9, **{"item.fusion": bad})]
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write_report(path, rows, OBJECTIVE, SETTINGS, facts=FACTS, first=1)
    return path


def test_the_page_needs_nothing_else_and_shows_text_as_text(page):
    text = page.read_text(encoding="utf-8")
    # The three drawings, and plotly's own script once.
    assert text.count("Plotly.newPlot(") >= 3
    assert not re.search(r'<(script|img|link)[^>]+(src|href)="http', text)
    assert "alert(1)" in text and "<script>alert" not in text
    for said in ("Score over time", "Settings and scores", "The best configs", "trial 31"):
        assert said in text
    assert "work/&lt;toy&gt;" in text and not list(page.parent.glob(".*"))
    assert "differ by" in text  # spread beside the differences


def test_a_search_of_which_nothing_came_has_a_page(tmp_path):
    path = tmp_path / "r.html"
    report.write_report(
        path, [row(0, None, reason="DatasetError: gone")], OBJECTIVE, ["dim"], facts=FACTS
    )
    text = path.read_text(encoding="utf-8")
    assert "No trial has completed" in text and "DatasetError: gone" in text
    assert "Wanted eight completed trials" in text


def test_of_many_settings_the_most_important_ones_have_an_axis(tmp_path):
    many = [f"ranking.a_setting_{n}" for n in range(12)]
    rows = [
        r._replace(settings={**r.settings, **dict.fromkeys(many, n % 2)})
        for n, r in enumerate(planted(1))
    ]
    path = tmp_path / "r.html"
    report.write_report(path, rows, OBJECTIVE, [*many, "item.fusion"], facts=FACTS)
    text = path.read_text(encoding="utf-8")
    assert "Of 13 settings the 8 most important ones are shown" in text
    drawn = text[
        text.index("Settings and scores</h2>") : text.index("Importance of each setting</h2>")
    ]
    assert "item.\\u003cbr\\u003efusion" in drawn


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("dim", "dim"),
        ("user.num_heads", "user.<br>num_heads"),
        ("retrieval.num_uniform_negatives", "retrieval.<br>num_uniform_<br>negatives"),
    ],
)
def test_names_above_axes_are_broken(name, lines):
    assert report._lines(name) == lines


def test_epochs_that_differ_are_a_setting_of_the_page(tmp_path):
    """Of Hyperband, where most of a score is how long a trial was trained."""
    rows = [
        row(n, 0.1 * (1 + n % 3) + 0.001 * n, **{"item.dropout": 0.01 * n})._replace(
            epochs=3 ** (n % 3)
        )
        for n in range(24)
    ]
    path = tmp_path / "r.html"
    report.write_report(path, rows, OBJECTIVE, ["item.dropout"], facts=FACTS)
    text = path.read_text(encoding="utf-8")
    drawn = text[
        text.index("Importance of each setting</h2>") : text.index("The best configs</h2>")
    ]
    assert drawn.index("epochs given") < drawn.index("item.dropout")
    assert "too little for these bars" not in drawn
