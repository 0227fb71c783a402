"""Searches for a config: `python -m tuning.search`. Reads the valid split, never the test split."""

import os

# Both before keras_tuner, which imports TensorFlow: its start-up lines are noise to the user, and
# mmrec_tf chooses Keras 2.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mmrec_tf.errors import answer_interrupts

answer_interrupts("tuning")
