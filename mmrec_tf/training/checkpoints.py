"""Weights on disk: written aside and renamed, read back with an error that says what is wrong."""

import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import read_sealed, replace_folder, write_sealed


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


def keep_state(
    directory: pathlib.Path, name: str, epoch: int, facts: Mapping[str, Any], **parts: Any
) -> None:
    """Writes what training had come to after an epoch: `NAME.json`, and a checkpoint of the parts.

    The checkpoint has a folder of its own each time, so that a kill at any moment leaves one that
    is whole. All workers of a strategy must call it; the chief alone writes.
    """
    folder = f"{name}-{epoch}"
    save_weights(directory / folder, **parts)
    if not is_chief():
        return
    write_sealed(directory / f"{name}.json", {**facts, "epoch": epoch, "folder": folder})
    for old in [*directory.glob(f"{name}-*"), *directory.glob(f".{name}-*")]:
        if old.name != folder:
            shutil.rmtree(old)


def kept_state(directory: pathlib.Path, name: str) -> dict[str, Any] | None:
    """The facts that `keep_state` wrote, with "epoch" and "folder"; None where there are none.

    Raises:
      RunError: when they are damaged.
    """
    path = directory / f"{name}.json"
    if not path.exists():
        return None
    try:
        facts = read_sealed(path)
        facts["epoch"], facts["folder"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{path}: wanted what training had come to; {error}. Delete {directory} to train anew."
        ) from error
    return facts
