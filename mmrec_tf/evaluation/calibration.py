"""From a logit to a probability that means what it says, fitted on examples held out of training.

calibration = fit("platt", logits, labels)  # of the valid split
probabilities = calibration(logits)
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq
from scipy.special import expit

from mmrec_tf.config import CALIBRATIONS
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.schema import LOWEST_SCORE

# From this logit on a probability is sure: `metrics.log_loss` sees no difference any more.
SURE = 16.0


@dataclass(frozen=True)
class Calibration:
    """A map from logits to probabilities that never turns an order around.

    Attributes:
      kind: one of `mmrec_tf.config.CALIBRATIONS`.
      slope: above 0; 1 / temperature, Platt's a, else 1.
      intercept: Platt's b, else 0.
      knots: isotonic only: (logit, probability) pairs with logits ascending and probabilities not
        descending. Between them the map is linear, beyond them constant.

    Raises:
      RunError: for numbers that are no such map.
    """

    kind: str = "none"
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        _require(self.kind in CALIBRATIONS, f"a kind of {', '.join(CALIBRATIONS)}", self.kind)
        for number in (self.slope, self.intercept, *(n for knot in self.knots for n in knot)):
            # JSON as Python reads it knows NaN and Infinity.
            real = isinstance(number, int | float) and not isinstance(number, bool)
            _require(real and math.isfinite(number), "finite numbers", number)
        _require(self.slope > 0, "a slope above 0", self.slope)
        straight = self.slope == 1 or self.kind in ("temperature", "platt")
        _require(straight, f"a slope of 1 for {self.kind}", self.slope)
        through = self.intercept == 0 or self.kind == "platt"
        _require(through, f"an intercept of 0 for {self.kind}", self.intercept)
        _require(
            (len(self.knots) > 0) == (self.kind == "isotonic"),
            "knots for isotonic, and for nothing else",
            f"{len(self.knots)} for {self.kind}",
        )
        for (logit, low), (after, high) in zip(self.knots, self.knots[1:], strict=False):
            _require(logit < after, "knots with ascending logits", f"{logit} before {after}")
            _require(low <= high, "knots that never descend", f"{low} before {high}")
        for _, probability in self.knots:
            _require(0 <= probability <= 1, "probabilities of 0 to 1", probability)

    def __call__(self, logits: tf.Tensor) -> tf.Tensor:
        """<float>[...] -> <float32>[...], probabilities.

        Logits of any size, `LOWEST_SCORE` among them, give a finite one; NaN gives NaN. It computes
        in float64, so that rounding turns no order around.
        """
        logits = tf.cast(logits, tf.float64)
        if self.knots:
            return tf.cast(self._interpolate(logits), tf.float32)
        return tf.cast(tf.sigmoid(self.slope * logits + self.intercept), tf.float32)

    def _interpolate(self, logits: tf.Tensor) -> tf.Tensor:
        """<float64>[...] -> <float64>[...]: on the lines between knots, constant beyond them."""
        at, probability = (tf.constant(side, tf.float64) for side in zip(*self.knots, strict=True))
        inside = tf.clip_by_value(logits, at[0], at[-1])
        last = len(self.knots) - 1
        above = tf.searchsorted(at, tf.reshape(inside, [-1]), side="right")
        left = tf.reshape(tf.clip_by_value(above - 1, 0, last), tf.shape(logits))
        right = tf.minimum(left + 1, last)
        start, width = tf.gather(at, left), tf.gather(at, right) - tf.gather(at, left)
        low, high = tf.gather(probability, left), tf.gather(probability, right)
        share = tf.math.divide_no_nan(inside - start, width)
        return tf.where(tf.math.is_nan(logits), logits, low + share * (high - low))

    def to_json(self) -> dict[str, Any]:
        """The calibration as plain dictionaries, lists and scalars."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """Reads what `to_json` wrote.

        Raises:
          RunError: for anything else.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        _require(isinstance(value, Mapping), "a JSON object", value)
        _require(set(value) == names, ", ".join(sorted(names)), ", ".join(sorted(value)))
        knots = value["knots"]
        pairs = isinstance(knots, list) and all(isinstance(k, list) and len(k) == 2 for k in knots)
        _require(pairs, "a list of [logit, probability] as knots", knots)
        return cls(**{**value, "knots": tuple((logit, p) for logit, p in knots)})


def fit(kind: str, logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Learns how probable what a logit stands for is.

    - `none`: sigmoid(z), whatever the examples;
    - `temperature`: sigmoid(z / T) with the T above 0 of least log loss (Guo et al. 2017, section
      4.2);
    - `platt`: sigmoid(a z + b) with a above 0, fitted to labels that are as sure as their number
      allows: (positives + 1) / (positives + 2) and 1 / (negatives + 2) (Platt 1999, section 2.2);
    - `isotonic`: the rising steps of least squared error, joined by lines (Zadrozny and Elkan
      2002).

    Where a higher logit means a lower probability, no rising map fits, and it comes out all but
    flat. Where logits split positives from negatives without a mistake, `temperature` stops where
    the example nearest to the border is sure.

    Args:
      kind: one of `mmrec_tf.config.CALIBRATIONS`.
      logits: <float>[example], without those of excluded candidates (`LOWEST_SCORE`).
      labels: <bool or 0/1>[example].

    Raises:
      ConfigError: for another kind.
      RunError: for examples without a positive or without a negative, or logits that are not finite
        in float32.
      ValueError: for sizes that differ, labels other than 0 and 1, or the logit `LOWEST_SCORE`.
    """
    if kind not in CALIBRATIONS:
        raise ConfigError(f"calibration: wanted one of {', '.join(CALIBRATIONS)}; got {kind!r}.")
    if kind == "none":
        return Calibration()
    logits, labels = _checked(kind, logits, labels)
    if kind == "temperature":
        return Calibration(kind, slope=_temperature_slope(logits, labels))
    if kind == "platt":
        slope, intercept = _platt(logits, labels)
        return Calibration(kind, slope=slope, intercept=intercept)
    # Half a second, which most runs need not wait for.
    from sklearn.isotonic import IsotonicRegression

    # By place, as only order counts: it takes numbers that differ by less than 1e-15 for one.
    values, place = np.unique(logits, return_inverse=True)
    steps = IsotonicRegression(y_min=0, y_max=1).fit(place, labels)
    at = values[steps.X_thresholds_.astype(np.int64)]
    knots = zip(at.tolist(), steps.y_thresholds_.tolist(), strict=True)
    return Calibration(kind, knots=tuple(knots))


def downsampling_shift(rate: float) -> float:
    """What to add to a logit that was learned on some of all negatives: the log of their share.

    A probability p so becomes p / (p + (1 - p) / rate) (He et al. 2014, section 6.3).

    Args:
      rate: share of the negatives that training saw, above 0, up to 1.

    Raises:
      ConfigError: for another rate.
    """
    if not 0 < rate <= 1:
        raise ConfigError(f"rate: wanted above 0, up to 1; got {rate}.")
    return math.log(rate)


def level(logits: np.ndarray, labels: np.ndarray) -> float:
    """What to add to logits so that their probabilities' mean is the labels'.

    Labels that are all alike ask for no finite number; they count as if half an example of the
    other kind stood beside them.

    Args:
      logits: <float>[example].
      labels: <float>[example], 0 or 1.
    """
    least = 0.5 / (len(labels) + 1)
    return _level(logits, float(np.clip(np.mean(labels), least, 1 - least)))


def _level(logits: np.ndarray, share: float) -> float:
    """What to add to logits so that their probabilities' mean is `share`."""
    base = math.log(share / (1 - share))
    # With all logits at the one end or at the other, it would be one of these.
    low, high = base - logits.max(), base - logits.min()
    return _root(lambda b: expit(logits + b).mean() - share, low, high)


def _require(condition: bool, wanted: str, got: object) -> None:
    if not condition:
        raise RunError(f"calibration: wanted {wanted}; got {got}. Train the ranking model again.")


def _checked(kind: str, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as <float64>[example], logits as float32 knows them."""
    with np.errstate(over="ignore"):
        logits = np.asarray(logits).astype(np.float32).astype(np.float64)
    labels = np.asarray(labels, np.float64)
    if labels.ndim != 1 or labels.shape != logits.shape:
        raise ValueError(
            "logits, labels: wanted one of each for every example; "
            f"got {logits.shape} and {labels.shape}."
        )
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError("labels: wanted 0 or 1; got others.")
    if not np.isfinite(logits).all():
        raise RunError(
            f"logits: wanted finite numbers; got {logits[~np.isfinite(logits)][0]}, so the model "
            "diverged. Lower training.learning_rate, or set training.clip_norm."
        )
    if (logits == LOWEST_SCORE).any():
        raise ValueError(f"logits: wanted none of {LOWEST_SCORE:g}, which marks what is excluded.")
    num_positive = int(labels.sum())
    if num_positive in (0, len(labels)):
        raise RunError(
            f"{kind} calibration: wanted examples with a positive and a negative; got "
            f"{num_positive} positives of {len(labels)}. Hold out more interactions, or set "
            "ranking.calibration to none."
        )
    return logits, labels


def _temperature_slope(logits: np.ndarray, labels: np.ndarray) -> float:
    """1 / T of least log loss, whose derivative by it rises."""

    def derivative(slope: float) -> float:
        return np.mean((expit(slope * logits) - labels) * logits)

    size = np.abs(logits)
    return _slope(derivative, size.max(), size[size > 0].min(initial=np.inf))


def _platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least cross-entropy with Platt's targets.

    It is convex in both, so with the best intercept for each slope it is convex in the slope.
    """
    num_positive = labels.sum()
    num_negative = len(labels) - num_positive
    surest = (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2)
    targets = np.where(labels > 0, *surest)
    # Around their mean, slope and intercept depend little on each other.
    mean = logits.mean()
    logits = logits - mean
    share = targets.mean()

    def intercept(slope: float) -> float:
        return _level(slope * logits, share)

    def derivative(slope: float) -> float:
        return np.mean((expit(slope * logits + intercept(slope)) - targets) * logits)

    gaps = np.diff(np.unique(logits))
    slope = _slope(derivative, np.ptp(logits), gaps.min(initial=np.inf))
    return slope, float(intercept(slope) - slope * mean)


def _slope(derivative: Callable[[float], float], widest: float, narrowest: float) -> float:
    """Where a rising function crosses 0, between all but flat and as steep as examples can tell.

    Args:
      derivative: of the loss by the slope, for a slope above 0.
      widest, narrowest: the farthest and the nearest that logits are apart; a slope of 1 where all
        are the same.
    """
    if not 0 < narrowest < np.inf:
        return 1.0
    low, high = math.log(1e-3 / widest), math.log(SURE / narrowest)
    return math.exp(_root(lambda log: derivative(math.exp(log)), low, high))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0; the nearer bound where it does not."""
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    return brentq(rising, low, high, xtol=1e-12)
