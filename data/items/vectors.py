"""Ready-made vectors of items: matrices, and which row belongs to which item."""

import argparse
import functools
import itertools
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.items.vector_table import BLOCK, convert_parquet, row_error
from data.tables.ids import Sides, alike, identifier
from data.tables.scale import far_off
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import Quarantined, sha256

# What NumPy and SciPy raise at files that are cut, damaged or of another kind.
UNREADABLE = (
    *(OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, KeyError),
    *(ArithmeticError, MemoryError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile),
)
# More than this share of rows of unknown items is told.
_FEW = 0.05
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
        vector = as_stored(matrix[row])
        reason = ""
        if not np.isfinite(vector).all():
            reason = "numbers that are not finite"
        elif not np.isfinite(_squares(vector[None])).all():
            reason = "numbers too large to be squared"
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
      warnings: what to say of them.
    """

    matrix: Matrix
    dim: int
    row: Mapping[str, int]
    unknown: int
    warnings: list[str]


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
    ids = list(map(identifier, ids))
    row: dict[str, int] = {}
    for number, item in enumerate(ids):
        if not item:
            raise row_error(path, number, len(ids), "", "wanted an item id; got none", name)
        if row.setdefault(item, number) != number:
            reason = f"names an item that row {row[item] + 1} names, too"
            raise row_error(path, number, len(ids), item, reason, name)
    squares = _all_squares(loaded)
    broken = np.flatnonzero(~np.isfinite(squares))
    if len(broken):
        number = int(broken[0])
        finite = np.isfinite(as_stored(loaded[number])).all()
        got = "numbers too large to be squared" if finite else "NaN or infinity"
        reason = f"wanted finite numbers; got {got}"
        raise row_error(path, number, len(ids), ids[number], reason, name)
    known = {item: number for item, number in row.items() if item in items}
    if row and not known:
        sides = Sides("items", "the items", str(path), (*items, *row), len(items))
        raise DatasetError(
            f"{path}: wanted the ids of items, such as {next(iter(items), '')!r}; none of its "
            f"{len(row)} rows names one, such as {next(iter(row))!r}. "
            f"{alike(sides) or 'Name items as the other tables do.'}"
        )
    warnings = _warn_of_scale(name, path.name, squares, ids)
    unknown = len(row) - len(known)
    if unknown > _FEW * len(row):
        other = next(item for item in row if item not in known)
        warnings.append(
            f"{path}: {unknown} of {len(row)} rows name no item, such as {other!r}; an item is "
            f"{next(iter(items))!r}."
        )
    return ItemVectors(matrix, loaded.shape[1], known, unknown, warnings)


def check_matrix(name: str, file: str, *, num_items: int) -> tuple[int, list[str]]:
    """Looks through a matrix whose rows are the items.

    Args:
      name: of the modality.
      file: the matrix.
      num_items: how many rows it must have.

    Returns:
      How long its rows are, and what to warn of.

    Raises:
      DatasetError: when it cannot be read, or has another number of rows.
    """
    matrix = load_matrix(file, num_items=num_items)
    squares = _all_squares(matrix)
    ids = list(map(str, range(num_items)))
    return matrix.shape[1], _warn_of_scale(name, pathlib.Path(file).name, squares, ids)


def as_stored(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers as records hold them, <float32>; infinite where they are too large for that."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def _squares(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of squares of each row, <float32>[row]; not finite where no model can use the row."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares: NDArray[np.float32] = np.square(block).sum(axis=1)
        return squares


def _all_squares(matrix: NDArray[Any]) -> NDArray[Any]:
    blocks = [
        _squares(as_stored(matrix[start : start + BLOCK])) for start in range(0, len(matrix), BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _warn_of_scale(name: str, file: str, squares: NDArray[Any], ids: Sequence[str]) -> list[str]:
    """What to warn of where some vectors are so long that all others are nothing beside them."""
    usable = np.flatnonzero(np.isfinite(squares) & (squares > 0))
    length = np.sqrt(squares[usable], dtype=np.float64)
    far = far_off(length)
    if not far.any():
        return []
    row = int(usable[far][np.argmax(length[far])])
    return [
        f"{name}: {int(far.sum())} of {len(squares)} vectors are so long or so short that they set "
        f"the scale of all, such as row {row + 1} of {file} (item {ids[row]!r}) with a length of "
        f"{np.sqrt(squares[row]):g}; the others have {length[~far].min():g} to "
        f"{length[~far].max():g}. Leave such rows out, or set them to zeros."
    ]


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
    except UNREADABLE as error:
        said = str(error).rstrip(".") or type(error).__name__
        raise DatasetError(
            f"{path}: wanted a matrix as numpy.save writes it; {said}. Was the file cut, or is it "
            "another one? Save or copy it again."
        ) from error
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
