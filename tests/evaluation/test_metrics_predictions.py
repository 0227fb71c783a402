"""Metrics of single predictions: known answers, and those of scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from mmrec_tf.errors import RunError
from mmrec_tf.evaluation import metrics


def draw(count, *, seed=0, steps=0):
    """Labels that follow probabilities, which crowd near 0; on `steps` places where that is set."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.5, 3, count)
    if steps:
        probabilities = np.round(probabilities * steps) / steps
    return (random.random(count) < probabilities).astype(int), probabilities


@pytest.mark.parametrize("ties", [False, True])
def test_auc_agrees_with_scikit_learn(ties):
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 500)
    scores = random.integers(0, 8, 500) if ties else random.normal(size=500)
    assert metrics.auc(labels, scores) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12
    )


def test_auc_by_hand():
    # Pairs (positive, negative): 0.8 > 0.5 wins, 0.5 = 0.5 half, 0.8 and 0.5 > 0.1 win: 3.5 / 4.
    assert metrics.auc(np.array([1, 1, 0, 0]), np.array([0.8, 0.5, 0.5, 0.1])) == 3.5 / 4
    with pytest.raises(ValueError, match="both"):
        metrics.auc(np.ones(3), np.arange(3))


def test_gauc_agrees_with_scikit_learn_group_by_group():
    random = np.random.default_rng(2)
    groups = random.integers(0, 40, 300) * 7
    labels = random.integers(0, 2, 300)
    scores = random.integers(0, 10, 300)
    areas, sizes = [], []
    for group in np.unique(groups):
        own = groups == group
        if 0 < labels[own].sum() < own.sum():
            areas.append(sklearn.metrics.roc_auc_score(labels[own], scores[own]))
            sizes.append(own.sum())
    assert metrics.gauc(labels, scores, groups=groups) == pytest.approx(
        np.average(areas, weights=sizes), abs=1e-12
    )
    with pytest.raises(ValueError, match="groups"):
        metrics.gauc(np.array([0, 1]), np.array([1, 2]), groups=np.array([0, 1]))


def test_log_loss_and_rmse_agree_with_scikit_learn():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 200)
    probabilities = random.uniform(0.01, 0.99, 200)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities), abs=1e-12
    )
    assert np.isfinite(metrics.log_loss(np.array([1, 0]), np.array([0.0, 1.0])))
    ratings, predictions = random.normal(size=50), random.normal(size=50)
    assert metrics.rmse(ratings, predictions) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(ratings, predictions), abs=1e-12
    )


def test_num_mixed_counts_what_gauc_counts():
    labels = np.array([0, 1, 1, 1, 0, 0, 1, 0, 0])
    groups = np.array([7, 7, 5, 5, 3, 3, 2, 2, 9])
    assert metrics.num_mixed(labels, groups=groups) == 2
    assert metrics.num_mixed(labels[2:6], groups=groups[2:6]) == 0


# At a threshold


def test_threshold_metrics_by_hand():
    labels, probabilities = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.6, 0.5, 0.4, 0.1])
    # From 0.5 on: three are called positive, two of them are; the two others are called right.
    assert metrics.threshold_metrics(labels, probabilities) == pytest.approx(
        {"accuracy": 4 / 5, "precision": 2 / 3, "recall": 2 / 2, "f1": 4 / 5}
    )
    assert metrics.threshold_metrics(labels, probabilities, threshold=0.55) == pytest.approx(
        {"accuracy": 3 / 5, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2}
    )


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_threshold_metrics_agree_with_scikit_learn(threshold, dtype):
    labels, probabilities = draw(300, steps=20)
    called = probabilities >= threshold
    theirs = sklearn.metrics.precision_recall_fscore_support(
        labels, called, average="binary", zero_division=0
    )
    want = {"accuracy": sklearn.metrics.accuracy_score(labels, called)}
    want |= dict(zip(("precision", "recall", "f1"), theirs, strict=False))
    got = metrics.threshold_metrics(labels.astype(dtype), probabilities, threshold=threshold)
    assert got == pytest.approx(want, abs=1e-12)
    assert all(type(value) is float for value in got.values())


def test_nothing_called_positive_and_nothing_positive():
    none = {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert metrics.threshold_metrics([0, 0], [0.1, 0.2]) == none
    assert metrics.threshold_metrics([0, 1], [0.1, 0.2]) == none | {"accuracy": 0.5}
    assert metrics.threshold_metrics([0, 0], [0.6, 0.7]) == none | {"accuracy": 0.0}


@pytest.mark.parametrize("steps", [0, 12])
def test_best_threshold_is_that_of_trying_all(steps):
    labels, probabilities = draw(200, seed=1, steps=steps)
    tried = {
        threshold: sklearn.metrics.f1_score(labels, probabilities >= threshold)
        for threshold in np.unique(probabilities)
    }
    best = max(tried.values())
    got = metrics.best_threshold(labels, probabilities)
    assert got == min(threshold for threshold, f1 in tried.items() if f1 == pytest.approx(best))
    at = metrics.threshold_metrics(labels, probabilities, threshold=got)
    assert at["f1"] == pytest.approx(best)


def test_best_threshold_of_equal_ones_is_the_lowest():
    # From 0.1, 0.2, 0.3, 0.4 on F1 is 4 / 6, 2 / 5, 2 / 4, 2 / 3: the ends are equal.
    assert metrics.best_threshold([1, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]) == 0.1
    assert metrics.best_threshold([1, 1, 1], [0.5, 0.25, 0.5]) == 0.25
    assert metrics.best_threshold([0, 1], [0.5, 0.5]) == 0.5
    # What half precision rounds is found again when it is compared.
    half = np.array([0.1, 0.7], np.float16)
    got = metrics.best_threshold([0, 1], half)
    assert metrics.threshold_metrics([0, 1], half, threshold=got)["f1"] == 1


# Calibration


def error_by_bins(labels, probabilities, bins):
    """The definition, bin by bin: a list of masks."""
    return sum(
        own.mean() * abs(labels[own].mean() - probabilities[own].mean())
        for own in bins
        if own.any()
    )


def test_calibration_error_by_hand():
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.1, 0.3, 0.8, 0.9])
    # Up to 0.5: means 0.2 and 1 / 2; beyond: 0.85 and 1 / 2. Half of the examples each.
    assert metrics.expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(0.325)
    assert metrics.expected_calibration_error(labels, probabilities, bins=1) == pytest.approx(0.025)
    # Three examples stand below 0.5, so the bins of two halve them elsewhere.
    probabilities[2] = 0.4
    wide = metrics.expected_calibration_error(labels, probabilities, bins=2)
    assert wide == pytest.approx(3 / 4 * (2 / 3 - 0.8 / 3) + 1 / 4 * 0.9)
    mass = metrics.expected_calibration_error(labels, probabilities, bins=2, equal_mass=True)
    assert mass == pytest.approx((1 / 2 - 0.2) / 2 + (0.65 - 1 / 2) / 2)
    # Equal ones stand where their middle does, so the first is alone.
    labels, probabilities = np.array([1, 0, 0, 0]), np.array([0.1, 0.3, 0.3, 0.3])
    mass = metrics.expected_calibration_error(labels, probabilities, bins=2, equal_mass=True)
    assert mass == pytest.approx((0.9 + 3 * 0.3) / 4)


def test_bins_of_equal_width_hold_their_upper_end():
    probabilities, labels = np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.array([1, 0, 1, 0, 1])
    # 0 and 0.25 share a bin; so does nothing else.
    got = metrics.expected_calibration_error(labels, probabilities, bins=4)
    assert got == pytest.approx((abs(0.25 - 1) + 0.5 + 0.75 + 0) / 5)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_that_of_its_definition(bins):
    labels, probabilities = draw(600)
    edges = np.linspace(0, 1, bins + 1)
    edges[0] = -1
    pairs = zip(edges[:-1], edges[1:], strict=True)
    wide = [(probabilities > low) & (probabilities <= high) for low, high in pairs]
    got = metrics.expected_calibration_error(labels, probabilities, bins=bins)
    assert got == pytest.approx(error_by_bins(labels, probabilities, wide), abs=1e-12)
    mass = np.zeros([bins, 600], bool)
    for own, rows in zip(mass, np.array_split(np.argsort(probabilities), bins), strict=True):
        own[rows] = True
    got = metrics.expected_calibration_error(labels, probabilities, bins=bins, equal_mass=True)
    assert got == pytest.approx(error_by_bins(labels, probabilities, mass), abs=1e-12)


def test_equal_mass_sees_what_equal_width_lumps_together():
    """All probabilities lie in the first bin, and are right on average only."""
    labels, probabilities = np.zeros(1000, int), np.full(1000, 0.02)
    labels[:30], probabilities[500:] = 1, 0.04
    wide = metrics.expected_calibration_error(labels, probabilities)
    assert wide == pytest.approx(0, abs=1e-12)
    mass = metrics.expected_calibration_error(labels, probabilities, equal_mass=True)
    assert mass == pytest.approx((0.06 - 0.02) / 2 + 0.04 / 2)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibration_error_knows_no_order_and_no_more_bins_than_values(equal_mass):
    labels, probabilities = draw(500, steps=8)
    settings = {"bins": 400, "equal_mass": equal_mass}
    got = metrics.expected_calibration_error(labels, probabilities, **settings)
    order = np.random.default_rng(1).permutation(500)
    again = metrics.expected_calibration_error(labels[order], probabilities[order], **settings)
    assert again == pytest.approx(got, abs=1e-12)
    masks = [probabilities == value for value in np.unique(probabilities)]
    assert got == pytest.approx(error_by_bins(labels, probabilities, masks), abs=1e-12)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibration_error_of_one_class_and_of_one_example(equal_mass):
    settings = {"equal_mass": equal_mass}
    assert metrics.expected_calibration_error([0, 0], [0.0, 0.0], **settings) == 0
    assert metrics.expected_calibration_error([1, 1, 1], [0.0, 0.0, 0.0], **settings) == 1
    assert metrics.expected_calibration_error([1], [0.75], **settings) == 0.25


# Refusals

OF_PROBABILITIES = [
    metrics.log_loss,
    metrics.threshold_metrics,
    metrics.best_threshold,
    metrics.expected_calibration_error,
]


@pytest.mark.parametrize("metric", [*OF_PROBABILITIES, metrics.rmse, metrics.auc])
def test_nothing_and_what_does_not_match_is_refused(metric):
    for labels, predictions in (([], []), ([0, 1], [0.5]), ([[0, 1]], [[0.5, 0.5]])):
        with pytest.raises(ValueError, match="wanted one of each"):
            metric(np.array(labels), np.array(predictions))


@pytest.mark.parametrize("metric", [*OF_PROBABILITIES, metrics.rmse, metrics.auc])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_model_that_diverged_is_refused(metric, number):
    with pytest.raises(RunError, match=f"got {number}.*diverged"):
        metric(np.array([0, 1, 1]), np.array([0.5, number, 0.5]))


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_what_is_no_probability_is_refused(metric):
    for predictions in ([-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ValueError, match="probabilities: wanted 0 to 1"):
            metric(np.array([0, 1]), np.array(predictions))


@pytest.mark.parametrize("metric", [*OF_PROBABILITIES, metrics.auc])
def test_labels_of_another_kind_are_refused(metric):
    with pytest.raises(ValueError, match="labels: wanted 0 or 1; got 0.5 to 4"):
        metric(np.array([0.5, 4.0]), np.array([0.5, 0.5]))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least one positive"):
        metrics.best_threshold([0, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="bins: wanted at least 1; got 0"):
        metrics.expected_calibration_error([0, 1], [0.1, 0.2], bins=0)
    with pytest.raises(ValueError, match="wanted one of each"):
        metrics.num_mixed([], groups=[])
