"""Columns of a large dataset, kept beside its records and mapped from disk when it is opened again.

A part is a folder of `.npy` files and a `columns.json`, which names the records that it was made of
and holds the hash of each file.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from mmrec_tf.records import sha256
from mmrec_tf.records.files import SEAL, read_sealed, replace_folder, write_sealed

# Another form of the files, or of what is read into them, is another key.
VERSION = 1
# Records of fewer bytes are read as fast as columns.
LEAST_BYTES = 1 << 20
_PAGE = 4096

Arrays = dict[str, np.ndarray]


class ColumnCache:
    """The parts that are kept of one dataset directory.

    Args:
      directory: the dataset directory.
      identity: what all parts depend on beside their records: the dataset's hash.
      files: by path within the directory, the manifest's entries.
    """

    def __init__(
        self, directory: pathlib.Path, *, identity: str, files: Mapping[str, Mapping[str, Any]]
    ):
        self._directory = directory
        self._identity = identity
        self._files = files

    def read(self, part: str, folder: str, parse: Callable[[], Arrays]) -> Arrays:
        """The columns of a part: those that are kept, or what `parse` makes of the records.

        What was made of records that have changed since, or is damaged, is made anew; so it is on a
        disk that cannot be written to, each time. A line on stderr says either.

        Args:
          part: its name, a file name.
          folder: the dataset's folder with the records that it is made of.
          parse: reads these.

        Returns:
          Arrays by name; mapped ones may be written to, which changes no file. Arrays of bytes are
          object[n].
        """
        names = sorted(name for name in self._files if name.startswith(folder + "/"))
        if sum(self._files[name]["bytes"] for name in names) < LEAST_BYTES:
            return parse()
        path = self._directory / "cache" / "columns" / part
        key = self._key(names)
        if path.exists():
            try:
                return _load(path, key)
            except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
                tqdm.write(
                    f"open {folder}: reading the records anew, as {path} cannot be used: {error}",
                    file=sys.stderr,
                )
        arrays = parse()
        try:
            _save(path, arrays, key)
        except OSError as error:
            tqdm.write(
                f"open {folder}: the next opening will take as long; columns could not be kept in "
                f"{path}: {error.strerror or error}",
                file=sys.stderr,
            )
        return arrays

    def _key(self, names: list[str]) -> str:
        """What a part depends on: records that were touched may have been damaged."""
        touched = [(name, (self._directory / name).stat().st_mtime_ns) for name in names]
        return hashlib.sha256(json.dumps([VERSION, self._identity, touched]).encode()).hexdigest()


def _save(path: pathlib.Path, arrays: Mapping[str, np.ndarray], key: str) -> None:
    columns: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    with replace_folder(path) as aside:

        def write(array: np.ndarray) -> str:
            name = f"{len(hashes)}.npy"
            np.save(aside / name, array, allow_pickle=False)
            hashes[name] = sha256(aside / name)
            return name

        for column, array in arrays.items():
            if array.dtype == object:
                length = np.fromiter(map(len, array), np.int64, len(array))
                joined = np.frombuffer(b"".join(array.tolist()), np.uint8)
                columns[column] = [write(joined), write(np.cumsum(length))]
            else:
                columns[column] = [write(array)]
        write_sealed(aside / "columns.json", {"key": key, "columns": columns, "hashes": hashes})


def _load(path: pathlib.Path, key: str) -> Arrays:
    """Raises OSError, ValueError, KeyError, TypeError or EOFError where a part cannot be used."""
    facts = read_sealed(path / "columns.json")
    if SEAL not in facts:
        raise ValueError("columns.json is damaged, or of an earlier version")
    if facts["key"] != key:
        raise ValueError("it was made of other records")
    for name, expected in facts["hashes"].items():
        if sha256(path / name) != expected:
            raise ValueError(f"{name} is damaged")
    return {
        column: _bytes(*(_array(path / name) for name in names))
        if len(names) > 1
        else _array(path / names[0])
        for column, names in facts["columns"].items()
    }


def _array(path: pathlib.Path) -> np.ndarray:
    # What is smaller than a page, such as an array without entries, is not worth a mapping.
    if path.stat().st_size <= _PAGE:
        return np.load(path, allow_pickle=False)
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def _bytes(joined: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The values whose bytes stand one after the other, object[n] of bytes."""
    view, start = memoryview(joined.data), 0
    values = np.empty(len(end), object)
    for row, stop in enumerate(end.tolist()):
        values[row] = view[start:stop].tobytes()
        start = stop
    return values
