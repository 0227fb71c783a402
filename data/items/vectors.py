"""Ready-made vectors of items: matrices, and which row belongs to which item."""

import argparse
import functools
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.items.vector_table import BLOCK, convert_parquet, row_error
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import Quarantined, sha256

# Parts of an item's record, and what the library calls the text of users.
_RESERVED = ("item", "item_id", "profile")


class Matrix(NamedTuple):
    """A matrix of vectors.

    Attributes:
      path: of the matrix as `numpy.save` writes it, [row, dim].
      file: what the source calls it.
    """

    path: str
    file: str

    def load(self, row: int, *, item_id: str, modality: str) -> NDArray[Any] | Quarantined:
        """One row as <float32>[dim], or why it says nothing."""
        status = pathlib.Path(self.path).stat()
        matrix = _open_once(self.path, (status.st_ino, status.st_mtime_ns, status.st_size))
        vector = np.asarray(matrix[row], np.float32)
        reason = ""
        if not np.isfinite(vector).all():
            reason = "numbers that are not finite"
        elif not vector.any():
            reason = "all zeros"
        return Quarantined(item_id, modality, f"{self.file}[{row}]", reason) if reason else vector


class ItemVectors(NamedTuple):
    """The vectors of one modality, and whose they are.

    Attributes:
      matrix: their rows.
      dim: how long each is.
      row: by item id, its row.
      unknown: how many rows belong to no item.
    """

    matrix: Matrix
    dim: int
    row: Mapping[str, int]
    unknown: int


def add_argument(parser: argparse._ActionsContainer, *, what: str) -> None:
    """Adds the option `--vector` to a command or a group; `vectors_by_name` reads it."""
    parser.add_argument(
        "--vector",
        dest="vectors",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help=f"{what}; may be given several times",
    )


def vectors_by_name(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What was typed for `--vector`: files by modality.

    Raises:
      ConfigError: for a name that is given twice.
    """
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"vector: wanted each name once; got {name!r} twice. Rename one.")
    return dict(pairs)


def check_names(names: Iterable[str], *, taken: Sequence[str] = ()) -> None:
    """Checks that modalities of vectors have names that nothing else has.

    Raises:
      ConfigError: naming one that no modality can have.
    """
    for name in names:
        if not name.isidentifier() or name in (*_RESERVED, *taken):
            raise ConfigError(
                f"vector: wanted a name such as {'style' if taken else 'image'}, one word and none "
                f"of {', '.join((*_RESERVED, *taken))}; got {name!r}."
            )


def describe_vectors(vectors: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """For the manifest: each file with its hash, and how its rows find their items.

    Raises:
      DatasetError: when there is no such file.
    """
    found = {}
    for name, file in vectors.items():
        path = pathlib.Path(file)
        if not path.is_file():
            raise DatasetError(f"{path}: wanted a matrix of vectors; there is no such file.")
        ids = _ids_path(path)
        by_id = path.suffix.lower() in (".parquet", ".pq") or ids.is_file()
        rows = "by item id" if by_id else "in the order of the items table"
        found[f"vector {name}"] = {"file": path.name, "sha256": sha256(path), "rows": rows}
        if ids.is_file():
            found[f"vector {name} ids"] = {"file": ids.name, "sha256": sha256(ids)}
    return found


def read_vectors(
    name: str,
    file: str,
    *,
    items: Mapping[str, int],
    num_listed: int | None,
    id_column: str,
    folder: pathlib.Path,
) -> ItemVectors:
    """Reads whose vectors a file holds, and checks all of them.

    Args:
      name: of the modality.
      file: a matrix `.npy`, with the ids of its rows in `FILE.ids.txt`, one a line, or without, as
        the rows of the items table; or a table `.parquet` with a column of ids and either one
        column of lists or several of floats.
      items: numbers by id; those of the table come first.
      num_listed: how many items the table has; None where its rows are not one an item.
      id_column: what the table calls the ids.
      folder: where the matrix of a table is written.

    Raises:
      DatasetError: for a file that cannot be read, and naming a row that is not as long as the
        others, whose numbers are not finite, or whose item is named twice or not at all.
    """
    path = pathlib.Path(file)
    if path.suffix.lower() in (".parquet", ".pq"):
        target = folder / f"vectors-{name}.npy"
        ids = convert_parquet(path, name, id_column=id_column, target=target)
        matrix, loaded = Matrix(str(target), path.name), load_matrix(str(target))
    else:
        loaded = load_matrix(file)
        matrix, ids = Matrix(file, path.name), _read_ids(path, len(loaded), items, num_listed)
    row: dict[str, int] = {}
    for number, item in enumerate(ids):
        if not item:
            raise row_error(path, number, len(ids), "", "wanted an item id; got none", name)
        if row.setdefault(item, number) != number:
            reason = f"names an item that row {row[item] + 1} names, too"
            raise row_error(path, number, len(ids), item, reason, name)
    for start in range(0, len(ids), BLOCK):
        block = np.asarray(loaded[start : start + BLOCK], np.float32)
        broken = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(broken):
            number, reason = start + int(broken[0]), "wanted finite numbers; got NaN or infinity"
            raise row_error(path, number, len(ids), ids[number], reason, name)
    known = {item: number for item, number in row.items() if item in items}
    if row and not known:
        raise DatasetError(
            f"{path}: wanted the ids of items, such as {next(iter(items), '')!r}; none of its "
            f"{len(row)} rows names one, such as {next(iter(row))!r}. Name items as the other "
            "tables do."
        )
    return ItemVectors(matrix, loaded.shape[1], known, len(row) - len(known))


def load_matrix(path: str, *, num_items: int | None = None) -> NDArray[Any]:
    """Opens a matrix [row, dim] as `numpy.save` writes it.

    Args:
      path: the file.
      num_items: how many rows it must have; None for any number.

    Raises:
      DatasetError: when it is none, or has another number of rows.
    """
    try:
        # Mapped, not read: a matrix may be larger than the memory.
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: wanted a matrix of vectors; there is no such file.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: wanted a matrix as numpy.save writes it; {error}.") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise DatasetError(f"{path}: wanted one matrix of numbers, [item, dim].")
    wanted = matrix.shape[0] if num_items is None else num_items
    if matrix.shape[0] != wanted or not matrix.shape[1]:
        raise DatasetError(
            f"{path}: wanted {wanted} rows, one an item; got the shape "
            f"{' x '.join(map(str, matrix.shape))}."
        )
    return matrix


@functools.lru_cache(maxsize=64)
def _open_once(path: str, status: tuple[int, ...]) -> NDArray[Any]:
    """The matrix, opened once a process, and again where another file came to stand there."""
    return load_matrix(path)


def _ids_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.ids.txt")


def _read_ids(
    path: pathlib.Path, num_rows: int, items: Mapping[str, int], num_listed: int | None
) -> list[str]:
    """The id of each row of a matrix."""
    file = _ids_path(path)
    if not file.is_file():
        if num_rows == num_listed:
            return list(itertools.islice(items, num_listed))
        table = "that has repeated or bad rows" if num_listed is None else f"of {num_listed} rows"
        raise DatasetError(
            f"{path}: wanted one row for each row of the items table, or the ids of its rows in "
            f"{file.name}, one a line; got {num_rows} rows and a table {table}. Write {file.name}."
        )
    try:
        ids = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: wanted UTF-8; {error.reason}.") from error
    if len(ids) != num_rows:
        raise DatasetError(
            f"{file}: wanted {num_rows} ids, one a line, as {path.name} has rows; got {len(ids)}."
        )
    return ids


def _pair(typed: str) -> tuple[str, str]:
    name, separator, path = typed.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"wanted NAME=FILE; got {typed!r}")
    return name, path
