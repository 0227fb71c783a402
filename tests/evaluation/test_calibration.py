"""Calibration: the answers of SciPy and scikit-learn, cases by hand, and what must not break."""

import json
import math

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mmrec_tf.config import CALIBRATIONS
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.evaluation.calibration import Calibration, downsampling_shift, fit, level
from mmrec_tf.evaluation.metrics import expected_calibration_error, log_loss
from mmrec_tf.schema import LOWEST_SCORE

FITTED = CALIBRATIONS[1:]
KNOTS = ((-2.0, 0.0), (0.0, 0.25), (1.0, 0.25), (3.0, 1.0))


def draw(count=400, *, seed=0, slope=0.4, intercept=-1.0):
    """Logits, and labels of probability sigmoid(slope * logit + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=count).astype(np.float32)
    return logits, rng.random(count) < expit(slope * logits + intercept)


def test_the_kinds_are_these():
    assert CALIBRATIONS == ("none", "temperature", "platt", "isotonic")


# What is fitted


def test_none_is_the_sigmoid_whatever_the_examples():
    calibration = fit("none", np.zeros(0), np.zeros(0))
    assert calibration == Calibration()
    logits = draw()[0]
    np.testing.assert_allclose(calibration(logits), expit(logits), rtol=1e-6)


@pytest.mark.parametrize("slope", [0.05, 0.4, 1.0, 6.0])
def test_temperature_has_the_least_log_loss(slope):
    logits, labels = draw(slope=slope, intercept=0)
    calibration = fit("temperature", logits, labels)

    def loss(log_slope):
        return sklearn.metrics.log_loss(labels, expit(math.exp(log_slope) * logits.astype(float)))

    want = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    assert calibration.slope == pytest.approx(math.exp(want.x), rel=1e-5)
    assert calibration.intercept == 0
    want = expit(calibration.slope * logits)
    np.testing.assert_allclose(calibration(logits), want, rtol=1e-5)


def test_temperature_by_hand():
    # Three of four are right at a distance of 2: sigmoid(2 / T) = 3 / 4.
    calibration = fit("temperature", [2, 2, -2, -2], [1, 1, 0, 1])
    assert calibration.slope == pytest.approx(math.log(3) / 2)
    np.testing.assert_allclose(calibration([2.0, -2.0]), [0.75, 0.25], rtol=1e-6)
    # A logit of 0 says the same at any temperature.
    assert fit("temperature", [2, 2, -2, -2, 0], [1, 1, 0, 1, 1]) == calibration


def platt_of_scikit_learn(logits, labels):
    """Logistic regression on each example as a positive and as a negative, weighed by target."""
    positives, negatives = labels.sum(), (~labels).sum()
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    twice = np.tile(logits, 2)[:, None].astype(float)
    as_what = np.repeat([1, 0], len(labels))
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    model.fit(twice, as_what, sample_weight=np.concatenate([target, 1 - target]))
    return model.coef_[0, 0], model.intercept_[0]


@pytest.mark.parametrize("count", [12, 400])
@pytest.mark.parametrize("slope, intercept", [(0.4, -1.0), (2.0, 3.0), (0.1, 0.0)])
def test_platt_is_logistic_regression_on_his_targets(count, slope, intercept):
    logits, labels = draw(count, slope=slope, intercept=intercept)
    calibration = fit("platt", logits, labels)
    want = platt_of_scikit_learn(logits, labels)
    assert (calibration.slope, calibration.intercept) == pytest.approx(want, rel=1e-3, abs=1e-4)
    want = expit(calibration.slope * logits + calibration.intercept)
    np.testing.assert_allclose(calibration(logits), want, rtol=1e-5)


def test_platt_may_be_steep_where_logits_lie_close():
    logits = np.repeat([-1, 0.99, 1.01], [20, 500, 500]).astype(np.float32)
    labels = logits > 1
    calibration = fit("platt", logits, labels)
    want = platt_of_scikit_learn(logits, labels)
    assert calibration.slope > 100
    assert (calibration.slope, calibration.intercept) == pytest.approx(want, rel=1e-3)


def test_platt_by_hand():
    # Two places with one positive and one negative each way: targets of 3 / 4 (two positives) and
    # 1 / 4; at 5 stand two positives, at 1 two negatives.
    calibration = fit("platt", [5, 5, 1, 1], [1, 1, 0, 0])
    assert calibration.slope == pytest.approx(2 * math.log(3) / 4)
    assert calibration.intercept == pytest.approx(-math.log(3) - calibration.slope)
    np.testing.assert_allclose(calibration([5.0, 1.0, 3.0]), [0.75, 0.25, 0.5], rtol=1e-6)


@pytest.mark.parametrize("places", [None, 7])
def test_isotonic_is_that_of_scikit_learn(places):
    logits, labels = draw()
    if places:
        logits = np.round(logits * places / 9)
    calibration = fit("isotonic", logits, labels)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits.astype(float), labels)
    asked = np.concatenate([logits, np.linspace(-20, 20, 301), [LOWEST_SCORE, -LOWEST_SCORE]])
    asked = asked.astype(np.float32)
    np.testing.assert_allclose(calibration(asked), theirs.predict(asked.astype(float)), atol=1e-6)
    assert 2 < len(calibration.knots) < len(logits) / 4


def test_isotonic_by_hand():
    # 1 before 0 is pooled at 0 and 1; the two at 4 share a mean.
    calibration = fit("isotonic", [-2, 0, 1, 4, 4], [0, 1, 0, 1, 1])
    assert calibration.knots == ((-2, 0), (0, 0.5), (1, 0.5), (4, 1))
    asked = [-9.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.5, 4.0, 9.0]
    want = [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1]
    np.testing.assert_allclose(calibration(asked), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_probabilities_come_to_mean_what_they_say(kind):
    calibration = fit(kind, *draw(20000))
    logits, labels = draw(20000, seed=1)
    raw, better = expit(logits), calibration(logits).numpy()
    assert expected_calibration_error(labels, raw) > 0.2
    assert expected_calibration_error(labels, better) < 0.02
    best = log_loss(labels, expit(0.4 * logits - 1))
    assert log_loss(labels, better) == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("kind", FITTED)
def test_the_same_examples_in_another_order_or_twice(kind):
    logits, labels = draw()
    calibration = fit(kind, logits, labels)
    order = np.random.default_rng(1).permutation(len(labels))
    np.testing.assert_allclose(
        fit(kind, logits[order], labels[order])(logits), calibration(logits), rtol=1e-5
    )
    twice = fit(kind, np.tile(logits, 2), np.tile(labels, 2))
    # Platt's targets are surer of more examples.
    atol = 0.02 if kind == "platt" else 1e-6
    np.testing.assert_allclose(twice(logits), calibration(logits), atol=atol)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_logits_and_labels_of_other_types(kind, dtype):
    logits, labels = draw()
    logits = logits.astype(np.float16)
    want = fit(kind, logits.astype(np.float32), labels)
    assert fit(kind, logits.astype(dtype), labels.astype(np.int32)) == want
    given = want(tf.constant(logits))
    assert given.dtype == tf.float32
    np.testing.assert_array_equal(given, want(logits.astype(np.float32)))


# What is hard to fit


@pytest.mark.parametrize("kind", FITTED)
def test_all_logits_the_same_give_the_share_of_positives(kind):
    calibration = fit(kind, [1.5] * 4, [1, 0, 1, 1])
    # Platt's targets: three of 4 / 5 and one of 1 / 3.
    want = (3 * 4 / 5 + 1 / 3) / 4 if kind == "platt" else 3 / 4
    assert calibration(1.5).numpy() == pytest.approx(want)
    assert fit("temperature", [0.0] * 4, [1, 0, 1, 1]) == Calibration("temperature")


@pytest.mark.parametrize("kind", FITTED)
def test_logits_without_a_mistake_stay_finite(kind):
    logits = np.array([-3, -2, -1, 1, 2, 3], np.float32)
    calibration = fit(kind, logits, logits > 0)
    got = calibration(logits).numpy()
    assert (np.diff(got) >= 0).all() and got[2] < 0.4 and got[3] > 0.6
    if kind == "temperature":
        assert calibration.slope == pytest.approx(16)


@pytest.mark.parametrize("kind", FITTED)
def test_logits_the_wrong_way_round_come_out_flat_not_turned(kind):
    logits = np.linspace(-5, 5, 200)
    labels = np.random.default_rng(0).random(200) < expit(-1 - logits)
    got = fit(kind, logits, labels)(logits).numpy()
    assert (np.diff(got) >= 0).all() and np.ptp(got) < 1e-3
    want = 0.5 if kind == "temperature" else labels.mean()
    assert got.mean() == pytest.approx(want, abs=0.01)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e30])
def test_the_scale_of_logits_does_not_matter(kind, scale):
    logits, labels = draw()
    scaled = (logits * scale).astype(np.float32)
    want = fit(kind, logits, labels)(logits)
    np.testing.assert_allclose(fit(kind, scaled, labels)(scaled), want, atol=1e-5)


@pytest.mark.parametrize("kind", FITTED)
def test_a_logit_far_out_does_not_stop_the_search(kind):
    logits, labels = draw()
    far, sure = np.append(logits, [1e8, -1e38]), np.append(labels, [True, False])
    got = fit(kind, far, sure)(far).numpy()
    assert np.isfinite(got).all() and got[-1] < 0.1
    if kind != "platt":  # whose targets leave doubt, which weighs as much as a logit is far
        np.testing.assert_allclose(got[:-2], fit(kind, logits, labels)(logits), atol=1e-3)


# What is applied


def some(kind):
    return fit(kind, *draw()) if kind != "none" else Calibration()


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_excluded_and_extreme_logits_are_finite(kind):
    extremes = np.array(
        [-np.inf, -3e38, LOWEST_SCORE, -0.0, 0.0, -LOWEST_SCORE, 3e38, np.inf], np.float32
    )
    got = some(kind)(extremes).numpy()
    assert got.dtype == np.float32
    assert np.isfinite(got).all() and (got >= 0).all() and (got <= 1).all()
    assert (np.diff(got) >= 0).all() and got[2] < 0.05


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_a_model_that_diverged_shows(kind, compiled):
    got = tf.function(some(kind).__call__, jit_compile=compiled)(tf.constant([np.nan, 1.0]))
    np.testing.assert_array_equal(np.isnan(got), [True, False])


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_no_order_is_turned_around(kind):
    """Not even by rounding: among neighbors in float32, at and between the knots."""
    calibration = some(kind)
    random = np.random.default_rng(0).normal(scale=5, size=2000).astype(np.float32)
    at = np.concatenate([random, np.array([knot[0] for knot in calibration.knots], np.float32)])
    near = [at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))]
    logits = np.unique(np.concatenate(near))
    assert (np.diff(calibration(logits)) >= 0).all()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 3)])
@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_any_shape(kind, shape):
    logits = np.random.default_rng(0).normal(scale=4, size=shape).astype(np.float32)
    calibration = some(kind)
    got = calibration(logits)
    assert got.shape == shape
    want = [calibration([logit]).numpy()[0] for logit in logits.ravel()]
    np.testing.assert_array_equal(got.numpy().ravel(), np.array(want, np.float32))


def test_a_single_knot_is_the_same_for_all():
    calibration = Calibration("isotonic", knots=((1.0, 0.3),))
    np.testing.assert_allclose(calibration([-5.0, 1.0, 7.0, LOWEST_SCORE]), [0.3] * 4, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_in_a_graph_of_any_size(kind, compiled):
    calibration = some(kind)
    spec = tf.TensorSpec([None, None], tf.float32)
    graph = tf.function(calibration.__call__, input_signature=[spec], jit_compile=compiled)
    logits = np.append(draw(23)[0], np.float32(LOWEST_SCORE)).reshape(6, 4)
    np.testing.assert_allclose(graph(logits), calibration(logits), rtol=1e-5, atol=1e-12)
    assert graph(logits[:0]).shape == (0, 4)


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_in_a_saved_model(kind, tmp_path):
    calibration, logits = some(kind), draw()[0]
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32)
    module.serve = tf.function(calibration.__call__, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.serve(logits), calibration(logits))


# On disk


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_json_and_back(kind):
    calibration = some(kind)
    text = json.dumps(calibration.to_json(), allow_nan=False)
    again = Calibration.from_json(json.loads(text))
    assert again == calibration and hash(again) == hash(calibration)
    np.testing.assert_array_equal(again(draw()[0]), calibration(draw()[0]))


def test_the_form_on_disk():
    assert Calibration("isotonic", knots=KNOTS[:2]).to_json() == {
        "kind": "isotonic",
        "slope": 1.0,
        "intercept": 0.0,
        "knots": [[-2.0, 0.0], [0.0, 0.25]],
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "sigmoid"}, "wanted a kind of none, temperature, platt, isotonic; got sigmoid"),
        ({"slope": 0.0}, "slope above 0; got 0.0"),
        ({"slope": -1}, "slope above 0; got -1"),
        ({"slope": math.nan}, "finite numbers; got nan"),
        ({"slope": "1"}, "finite numbers; got 1"),
        ({"slope": True}, "finite numbers; got True"),
        ({"intercept": math.inf}, "finite numbers; got inf"),
        ({"intercept": None}, "finite numbers; got None"),
        ({"kind": "none"}, "slope of 1 for none; got 2"),
        ({"kind": "temperature"}, "intercept of 0 for temperature; got 3"),
        ({"knots": [[0, 0.5]]}, "knots for isotonic, and for nothing else; got 1 for platt"),
        ({"kind": "isotonic", "slope": 1, "intercept": 0}, "knots for isotonic.*got 0"),
        ({"knots": 3}, r"list of \[logit, probability\] as knots; got 3"),
        ({"knots": [[1, 2, 3]]}, r"list of \[logit, probability\]"),
        ({"more": 1}, "wanted intercept, kind, knots, slope; got intercept, kind, knots, more"),
    ],
)
def test_what_is_no_calibration_is_refused(changes, message):
    value = {"kind": "platt", "slope": 2, "intercept": 3, "knots": []}
    assert Calibration.from_json(value) == Calibration("platt", 2.0, 3.0)
    with pytest.raises(RunError, match=message):
        Calibration.from_json({**value, **changes})


def test_what_lacks_a_name_or_is_no_object_is_refused():
    with pytest.raises(RunError, match="wanted intercept, kind, knots, slope; got kind"):
        Calibration.from_json({"kind": "none"})
    with pytest.raises(RunError, match="wanted a JSON object"):
        Calibration.from_json([["kind", "none"]])


@pytest.mark.parametrize(
    "knots, message",
    [
        (((0.0, 0.5), (0.0, 0.6)), "ascending logits; got 0.0 before 0.0"),
        (((1.0, 0.5), (0.0, 0.6)), "ascending logits"),
        (((0.0, 0.5), (1.0, 0.4)), "never descend; got 0.5 before 0.4"),
        (((0.0, -0.1), (1.0, 0.4)), "probabilities of 0 to 1; got -0.1"),
        (((0.0, 0.1), (1.0, 1.1)), "probabilities of 0 to 1; got 1.1"),
        (((0.0, math.nan),), "finite numbers; got nan"),
    ],
)
def test_knots_that_do_not_rise_are_refused(knots, message):
    with pytest.raises(RunError, match=message):
        Calibration("isotonic", knots=knots)


# Refusals


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="wanted one of none, temp.*; got 'beta'"):
        fit("beta", *draw())


@pytest.mark.parametrize("kind", FITTED)
def test_examples_that_teach_nothing_are_refused(kind):
    with pytest.raises(RunError, match=f"{kind} calibration: .*got 3 positives of 3.*none"):
        fit(kind, [1.0, 2.0, 3.0], [1, 1, 1])
    with pytest.raises(RunError, match="got 0 positives of 2"):
        fit(kind, [1.0, 2.0], [0, 0])
    with pytest.raises(RunError, match="got 0 positives of 0"):
        fit(kind, [], [])


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_logits_of_a_model_that_diverged_are_refused(kind, number):
    with pytest.raises(RunError, match="wanted finite numbers; got (nan|-?inf).*diverged"):
        fit(kind, np.array([0.0, number]), [0, 1])


@pytest.mark.parametrize("kind", FITTED)
def test_examples_that_are_none_are_refused(kind):
    with pytest.raises(ValueError, match="excluded"):
        fit(kind, [LOWEST_SCORE, 0.0, 1.0], [0, 0, 1])
    with pytest.raises(ValueError, match="labels: wanted 0 or 1"):
        fit(kind, [0.0, 1.0], [1, 5])
    for logits, labels in (([0.0, 1.0], [1]), ([[0.0, 1.0]], [[0, 1]])):
        with pytest.raises(ValueError, match="wanted one of each for every example"):
            fit(kind, logits, labels)


# Down-sampled negatives


@pytest.mark.parametrize("rate", [1e-6, 0.025, 0.5, 1.0])
def test_the_shift_is_the_formula_of_the_paper(rate):
    p = np.array([0.001, 0.2, 0.5, 0.99])
    logits = np.log(p / (1 - p))
    want = p / (p + (1 - p) / rate)
    np.testing.assert_allclose(expit(logits + downsampling_shift(rate)), want, rtol=1e-9)


def test_the_shift_undoes_the_sampling():
    """One positive in 1000; with 1 % of the negatives, about one in 11."""
    sampled = math.log(1 / 9.99)
    assert expit(sampled + downsampling_shift(0.01)) == pytest.approx(1 / 1000)
    assert downsampling_shift(1) == 0


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, math.nan])
def test_what_is_no_share_is_refused(rate):
    with pytest.raises(ConfigError, match="rate: wanted above 0, up to 1"):
        downsampling_shift(rate)


@pytest.mark.parametrize("labels", ([0, 1, 1, 0, 0], [1, 0, 0, 0, 0]))
def test_level_makes_the_mean_probability_the_share(labels):
    logits = np.array([-3.0, 0.5, 2.0, 40.0, -7.0])
    shift = level(logits, np.array(labels, np.float32))
    assert (1 / (1 + np.exp(-(logits + shift)))).mean() == pytest.approx(np.mean(labels))


@pytest.mark.parametrize("label", (0.0, 1.0))
def test_level_of_labels_that_are_all_alike_is_moderate(label):
    """The bias of a task would start where no gradient can bring it back from."""
    shift = level(np.zeros(9, np.float32), np.full(9, label))
    assert shift == pytest.approx((2 * label - 1) * np.log(19))
