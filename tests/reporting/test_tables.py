"""What commands print: verdicts, and titles beside ids."""

import json

import numpy as np
import pytest

from mmrec_tf.reporting import tables


@pytest.mark.parametrize(
    "interval, said",
    [
        ([0.02, 0.01, 0.03], "ranking adds +0.0200 (+0.0100 to +0.0300) ndcg@10"),
        ([-0.02, -0.03, -0.01], "ranking costs -0.0200 (-0.0300 to -0.0100) ndcg@10"),
        ([0.01, -0.01, 0.03], "ranking neither adds nor costs measurably: +0.0100"),
        ([0.0, 0.0, 0.0], "ranking neither adds nor costs measurably: +0.0000"),
    ],
)
def test_the_verdict_on_ranking_goes_by_its_interval(interval, said):
    found = {
        "differences": {"recommended": {"auc": [1, 1, 1], "ndcg@10": interval}},
        "split": "valid",
        "history": "train",
    }
    assert tables.ranking_verdict(found, served=True).startswith(said)


def test_ranking_that_is_not_served_adds_nothing():
    assert tables.ranking_verdict({}, served=False).startswith("ranking adds nothing here")


ANSWER = {
    "item_id": np.array([["i1", "i2", ""]], object),
    "score": np.array([[2.0, 1.0, -1e9]], np.float32),
}


def test_titles_are_the_last_columns(capsys):
    titles = {"title": np.array([["Owl", "", ""]], object)}
    tables.print_answers("user", ["u"], ANSWER, titles=titles, as_json=False)
    assert capsys.readouterr().out == "u\t1\ti1\t2.0000\tOwl\nu\t2\ti2\t1.0000\t-\n"
    tables.print_answers("user", ["u"], ANSWER, titles=titles, as_json=True)
    assert json.loads(capsys.readouterr().out)["users"][0]["title"] == ["Owl", "", ""]


def test_without_any_title_there_is_no_such_column(capsys):
    titles = {"title": np.array([["", "", ""]], object)}
    tables.print_answers("user", ["u"], ANSWER, titles=titles, as_json=False)
    assert capsys.readouterr().out == "u\t1\ti1\t2.0000\nu\t2\ti2\t1.0000\n"
