"""Searches for a config: `python -m tuning.search`. Reads the valid split, never the test split."""

import importlib
import os
from typing import Any

# Both before keras_tuner, which imports TensorFlow: its start-up lines are noise to the user, and
# mmrec_tf chooses Keras 2.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mmrec_tf.errors import answer_interrupts

answer_interrupts("tuning")

_NAMES = {
    "HyperRecommender": "tuner.tuner",
    "RecommenderTuner": "tuner.tuner",
    "Search": "tuner.search",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tuning.{_NAMES[name]}"), name)
