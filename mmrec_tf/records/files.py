"""Files and folders that appear whole or not at all: written aside, then renamed into place."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any


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
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        move_folder(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


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
