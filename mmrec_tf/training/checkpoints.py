"""Weights on disk: written aside and renamed, read back with an error that says what is wrong."""

import os
import pathlib
import shutil

import tensorflow as tf

from mmrec_tf.errors import RunError


def save_weights(prefix: pathlib.Path, **parts) -> None:
    """Writes a checkpoint of the named parts to the folder `prefix`, aside and renamed."""
    aside = prefix.with_name(f".{prefix.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tf.train.Checkpoint(**parts).write(str(aside / "weights"))
    if prefix.exists():
        stale = prefix.with_name(f".{prefix.name}.stale.{os.getpid()}")
        os.replace(prefix, stale)
        os.replace(aside, prefix)
        shutil.rmtree(stale)
    else:
        os.replace(aside, prefix)


def load_weights(prefix: pathlib.Path, **parts) -> None:
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
