"""What stands in one record: the parts of a `tf.train.Example`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def bytes_feature(value: str | bytes):
    """One string, as UTF-8, or one run of bytes."""
    import tensorflow as tf

    data = value.encode("utf-8") if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))


def integers_feature(values: Sequence[int] | np.ndarray):
    """Integers, <int64>[value]."""
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.asarray(values, np.int64)))


def floats_feature(values: Sequence[float] | np.ndarray):
    """Numbers, <float32>[value]."""
    import tensorflow as tf

    return tf.train.Feature(float_list=tf.train.FloatList(value=np.asarray(values, np.float32)))


def side_features(features: Mapping[str, Sequence[int] | float | None] | None) -> dict[str, Any]:
    """Side features as parts of a record; a missing number is left out."""
    parts = {}
    for name, value in (features or {}).items():
        if isinstance(value, (int, float, np.floating)):
            parts[f"feature/{name}"] = floats_feature([value])
        elif value is not None:
            parts[f"feature/{name}"] = integers_feature(value)
    return parts
