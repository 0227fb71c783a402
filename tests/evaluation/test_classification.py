"""Precision, recall, F1 and confusion, worked out by hand."""

import numpy as np
import pytest

from mmrec_tf.evaluation.classification import class_report

NAMES = ("owl", "gull", "lark")


def test_single_classes_by_hand():
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 1, 1, 2]]
    truth = np.concatenate([truth, np.zeros([1, 3], bool)])  # one of which nothing is known
    taken = [0, 0, 1, 1, 0, 1, 2]
    probability = np.full([7, 3], 0.2)
    probability[np.arange(7), taken] = 0.6
    found = class_report(truth, probability, NAMES, single=True)
    assert found["items"] == 6
    owl, gull, lark = found["classes"].values()
    assert owl == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)} | {
        "f1": pytest.approx(2 / 3),
        "items": 3,
    }
    assert (gull["precision"], gull["recall"]) == (pytest.approx(1 / 3), 0.5)
    assert gull["f1"] == pytest.approx(0.4)
    # Never foretold: nothing to divide by.
    assert lark == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "items": 1}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.4) / 3)
    assert found["accuracy"] == found["micro_f1"] == pytest.approx(0.5)
    assert found["confusion"]["owl"] == {"owl": 2, "gull": 1, "lark": 0}
    assert found["confusion"]["lark"] == {"owl": 0, "gull": 1, "lark": 0}


def test_tags_by_hand():
    truth = np.array([[1, 1, 0], [0, 1, 0]], bool)
    probability = np.array([[0.9, 0.4, 0.1], [0.5, 0.7, 0.2]])
    found = class_report(truth, probability, NAMES, single=False)
    # Said: owl twice, once rightly; gull once, rightly, of two.
    assert found["classes"]["owl"]["precision"] == 0.5 and found["classes"]["owl"]["recall"] == 1
    assert found["classes"]["gull"]["precision"] == 1 and found["classes"]["gull"]["recall"] == 0.5
    assert found["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    # Of the classes that any item has.
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == 0 and "confusion" not in found


def test_of_no_items():
    found = class_report(np.zeros([2, 3], bool), np.zeros([2, 3]), NAMES, single=True)
    assert found["items"] == 0 and found["macro_f1"] == found["accuracy"] == 0
