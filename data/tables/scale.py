"""Numbers whose scale a few of them would set alone, such as 999999999 for a missing price."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What a float32 holds.
LARGEST = float(np.finfo(np.float32).max)
# Some values set the scale when, without the hundredth that is farthest off, it is ten times finer.
_SHARE = 100
_TIMES = 10


def far_off(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some numbers set the scale of all the others.

    The farthest hundredth from the median, at least one, and all that are as far, so that one value
    may come often; none where the standard deviation of the rest is of the same order, or where
    they are half of all.

    Args:
      values: <float>[n], finite.

    Returns:
      <bool>[n].
    """
    nobody = np.zeros(len(values), bool)
    if len(values) < 4:
        return nobody
    values = np.asarray(values, np.float64)
    apart: NDArray[np.float64] = np.abs(values - np.median(values))
    count = max(1, len(values) // _SHARE)
    far: NDArray[np.bool_] = apart >= np.partition(apart, -count)[-count]
    rest = values[~far].std() if far.sum() * 2 < len(values) else 0.0
    if not 0 < _TIMES * rest < values.std():
        return nobody
    far &= apart > _TIMES * rest
    return far


def warn_far_off(name: str, values: NDArray[Any] | None) -> list[str]:
    """What to warn of where some weights or ratings <float>[n] set the scale of all."""
    if values is None or not (far := far_off(values)).any():
        return []
    value = float(values[far][np.argmax(np.abs(values[far]))])
    near = values[~far]
    return [
        f"{name}: {int(far.sum())} of {len(values)} numbers lie so far off that they set the scale "
        f"of all, such as {value:.10g}; the others lie from {near.min():g} to {near.max():g}. All "
        "stay as they are; mend the rows if they are wrong."
    ]
