"""Searches for a config: `python -m tuning.search`. Reads the valid split, never the test split."""

# Here, so that it comes before keras_tuner wherever that is imported: mmrec_tf chooses Keras 2.
import mmrec_tf  # noqa: F401
