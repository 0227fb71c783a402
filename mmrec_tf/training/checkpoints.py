"""Weights on disk: written aside and renamed, read back with an error that says what is wrong."""

import pathlib
import tempfile
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import replace_folder


def is_chief() -> bool:
    """Whether this process is the one of its strategy's workers that writes files; True where
    there are no workers."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if resolver.task_type == "chief":
        return True
    alone = "chief" not in resolver.cluster_spec().jobs
    return bool(alone and resolver.task_type == "worker" and resolver.task_id == 0)


def save_weights(prefix: pathlib.Path, **parts: Any) -> None:
    """Writes a checkpoint of the named parts to the folder `prefix`, aside and renamed.

    All workers of a strategy must call it, as they have parts of some weights each; what others
    than the chief write is dropped.
    """
    if is_chief():
        with replace_folder(prefix) as aside:
            tf.train.Checkpoint(**parts).write(str(aside / "weights"))
    else:
        with tempfile.TemporaryDirectory() as aside:
            tf.train.Checkpoint(**parts).write(str(pathlib.Path(aside) / "weights"))


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
