"""Files and folders that appear whole or not at all: written aside, then renamed into place.

JSON that a later command believes is sealed: one of its entries is the hash of all others, so that
a changed figure is told from a written one.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from mmrec_tf.errors import MmrecError

SEAL = "self_sha256"


def aside(path: pathlib.Path) -> pathlib.Path:
    """Where this process writes what is to stand at `path`: hidden, in the same folder.

    In the same folder, because a rename works only within one file system; with the process's
    number, because a killed process may live on for a moment.
    """
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextlib.contextmanager
def replace_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which takes the place of `path` when the block ends without an error."""
    new = aside(path)
    sweep_asides(path)
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder to fill, which takes the place of `path` when the block ends without an
    error."""
    new = aside(path)
    sweep_asides(path)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        move_folder(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sweep_asides(path: pathlib.Path) -> None:
    """Removes what processes that are gone left where they wrote what was to stand at `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and not _runs(int(number)):
            remove(left)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, or nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def hold_folder(path: pathlib.Path, error: type[MmrecError], does: str) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if need be, while the block lasts.

    The lock goes with the process, also by a kill, and leaves no file behind.

    Args:
      path: of the folder.
      error: what is raised.
      does: what whoever holds it does there, such as "trains".

    Raises:
      MmrecError: `error`, when another process, or another block of this one, holds the folder, or
        when there can be no such folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as reason:
        raise error(
            f"{path}: wanted a folder to write to; {reason.strerror}. Name another folder."
        ) from reason
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as reason:
            raise error(
                f"{path}: another process {does} there now. Wait for it, or name another folder."
            ) from reason
        yield
    finally:
        os.close(lock)


def move_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a folder to `path` and removes the folder that stood there before.

    Raises:
      OSError: when it cannot be renamed; what stood at `path` stands there still.
    """
    old = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)  # left by a kill between the lines below
    replaced = path.exists()
    if replaced:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if replaced:
            old.rename(path)
        raise
    if replaced:
        shutil.rmtree(old)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file of UTF-8."""
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object; equal values give equal bytes.

    Raises:
      ValueError: when it holds NaN or infinity, which JSON has no form for.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
      OSError: when it cannot be read.
      ValueError: when it is no JSON, or nested so deeply that nobody meant it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_sealed(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object together with the hash of it."""
    write_json(path, sealed(value))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the hash of all its other entries; an earlier one is replaced."""
    rest = {name: entry for name, entry in value.items() if name != SEAL}
    rest = json.loads(json.dumps(rest, allow_nan=False))  # as it will be read back
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return {**rest, SEAL: hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote; what was written without a hash is taken as it is.

    Raises:
      OSError: when it cannot be read.
      ValueError: when it is no JSON object, or not the one that was written.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"wanted a JSON object; got {type(value).__name__}")
    if SEAL in value and sealed(value) != value:
        raise ValueError("its content is not what was written (another sha256)")
    return value
