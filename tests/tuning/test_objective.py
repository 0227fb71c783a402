import pytest

import mmrec_tf as mm
from tuning.objective import parse

LISTS = ["dim"]
BOTH = ["dim", "ranking.architecture"]


@pytest.mark.parametrize(
    ("text", "paths", "name", "direction", "stage"),
    [
        (None, LISTS, "retrieval.ndcg@10", "max", "retrieval"),
        (None, BOTH, "recommender.ndcg@10", "max", "recommender"),
        (None, ["recommender.diversity"], "recommender.ndcg@10", "max", "recommender"),
        ("recall@20", LISTS, "retrieval.recall@20", "max", "retrieval"),
        ("auc", BOTH, "ranking.auc", "max", "ranking"),
        ("rmse", BOTH, "ranking.rmse", "min", "ranking"),
        ("gini@10", LISTS, "recommender.gini@10", "min", "recommender"),
        (
            "ndcg@10 + 0.2*coverage@10",
            BOTH,
            "recommender.ndcg@10 + 0.2*recommender.coverage@10",
            "max",
            "recommender",
        ),
    ],
)
def test_what_is_measured_and_which_way_is_better(text, paths, name, direction, stage):
    found = parse(text, mm.Config(), paths)
    assert (found.name, found.direction, found.stage) == (name, direction, stage)
    # As a search writes it down, and a worker reads it.
    assert parse(found.name, mm.Config(), paths) == found


def test_a_sum_takes_off_what_is_better_lower():
    found = parse("2*retrieval.ndcg@10 + 0.5*recommender.gini@5", mm.Config(), LISTS)
    assert found.score({"retrieval.ndcg@10": 0.3, "recommender.gini@5": 0.4}) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("text", "paths", "message"),
    [
        ("retrieval.ndcg@10", BOTH, "ranking.architecture has no effect on retrieval.ndcg@10"),
        ("ranking.auc", ["recommender.diversity"], "recommender.diversity has no effect on"),
        ("ndcg@10", ["ranking.calibration"], "changes probabilities and no order"),
        ("ndgc@10", LISTS, "unknown metric 'ndgc@10'"),
        ("ndcg", LISTS, "with a cut-off"),
        ("ranking.ndcg@10", BOTH, "unknown metric 'ndcg@10' of ranking"),
        ("rankin.auc", BOTH, "did you mean 'ranking'"),
        ("-1*auc", BOTH, "wanted a weight above 0"),
        ("auc + auc", BOTH, "each metric once"),
        (None, ["training.monitor"], "wanted one by name"),
    ],
)
def test_an_objective_that_shows_nothing_is_refused(text, paths, message):
    with pytest.raises(mm.ConfigError, match=message):
        parse(text, mm.Config(), paths)


def test_calibration_is_shown_by_probabilities():
    parse("ranking.log_loss", mm.Config(), ["ranking.calibration"])
    with pytest.raises(mm.ConfigError, match="ranking.epochs is 0"):
        parse("ranking.auc", mm.Config().override({"ranking.epochs": 0}), LISTS)
