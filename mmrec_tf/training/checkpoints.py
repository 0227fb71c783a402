"""Weights on disk: written aside and renamed, read back with an error that says what is wrong."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import read_sealed, replace_folder, write_sealed


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


def keep_state(
    directory: pathlib.Path, name: str, epoch: int, facts: Mapping[str, Any], **parts: Any
) -> None:
    """Writes what training had come to after an epoch: `NAME.json`, and a checkpoint of the parts.

    The checkpoint has a folder of its own each time, so that a kill at any moment leaves one that
    is whole.
    """
    folder = f"{name}-{epoch}"
    save_weights(directory / folder, **parts)
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
