"""Weights on disk: written aside and renamed, read back with an error that says what is wrong."""

import pathlib
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import replace_folder


def save_weights(prefix: pathlib.Path, **parts: Any) -> None:
    """Writes a checkpoint of the named parts to the folder `prefix`, aside and renamed."""
    with replace_folder(prefix) as aside:
        tf.train.Checkpoint(**parts).write(str(aside / "weights"))


def load_weights(prefix: pathlib.Path, **parts: Any) -> None:
    """Reads what `save_weights` wrote into parts whose weights exist.

    Raises:
      RunError: when the checkpoint is missing, damaged or of another model.
    """
    try:
        status = tf.train.Checkpoint(**parts).read(str(prefix / "weights"))
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{prefix}: wanted the weights of this run; {reason}. Train again."
        ) from error
