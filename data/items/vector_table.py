"""A table of ready-made vectors in Parquet -> a matrix, and the ids of its rows."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.tables.rows import text_of
from mmrec_tf.errors import DatasetError

# So many rows are read at a time.
BLOCK = 4096


def convert_parquet(
    path: pathlib.Path, name: str, *, id_column: str, target: pathlib.Path
) -> list[str]:
    """Writes the vectors of a table as a matrix, as a row of Parquet cannot be read alone.

    Args:
      path: the table.
      name: of the modality, for messages.
      id_column: what the ids may be called, beside `item_id`.
      target: where the matrix is written, <float32>[row, dim] as `numpy.save` writes it.

    Returns:
      The id of each row.

    Raises:
      DatasetError: for a table with other columns, and naming a row that is not as long as the
        first.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: wanted a table of vectors; there is no such file.") from error
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{path}: wanted Parquet; {error}.") from error
    fields, total = list(file.schema_arrow), file.metadata.num_rows
    known = [field.name for field in fields]
    id_name = next((column for column in (id_column, "item_id") if column in known), None)
    lists = [field.name for field in fields if _is_list_of_numbers(field.type)]
    floats = [field.name for field in fields if pyarrow.types.is_floating(field.type)]
    columns = lists if lists else [column for column in floats if column != id_name]
    if id_name is None or len(lists) > 1 or (lists and floats) or not columns:
        raise DatasetError(
            f"{path}: wanted a column of ids named {id_column} or item_id, and one column of lists "
            f"of numbers or else columns of floats; it has {', '.join(known)}. Leave only these."
        )
    ids: list[str] = []
    matrix: NDArray[Any] | None = None
    for batch in _batches(path, file, [id_name, *columns]):
        start = len(ids)
        ids += [text_of(value) for value in batch.column(id_name).to_pylist()]
        rows = [batch.column(column) for column in columns]
        width = len(rows) if matrix is None else matrix.shape[1]
        if lists:
            lengths = _lengths(rows[0])
            width = max(lengths[0], 1) if matrix is None else width
            odd = np.flatnonzero(lengths != width)
            if len(odd):
                number = start + int(odd[0])
                got = "none" if lengths[odd[0]] < 0 else lengths[odd[0]]
                reason = f"wanted {width} numbers, as in the first row; got {got}"
                raise row_error(path, number, total, ids[number], reason, name)
            values = rows[0].flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        else:
            values = np.stack([row.to_numpy(zero_copy_only=False) for row in rows], axis=1)
        if matrix is None:
            create: Any = np.lib.format.open_memmap  # untyped in NumPy
            matrix = create(target, mode="w+", dtype=np.float32, shape=(total, width))
        matrix[start : len(ids)] = values
    if matrix is None:
        raise DatasetError(f"{path}: wanted one vector a row; there are no rows.")
    return ids


def _batches(path: pathlib.Path, file: Any, columns: list[str]) -> Iterator[Any]:
    """Some rows at a time."""
    import pyarrow

    start = 0
    try:
        for batch in file.iter_batches(batch_size=BLOCK, columns=columns):
            yield batch
            start += len(batch)
    except pyarrow.ArrowInvalid as error:
        # Arrow cannot read a list of fixed size that is missing, and does not say which.
        raise DatasetError(
            f"{path}: wanted a vector in each row; in rows {start + 1} to {start + BLOCK}: {error}."
            " Leave out the rows without one."
        ) from error


def _is_list_of_numbers(kind: Any) -> bool:
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list:
        return False
    return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _lengths(column: Any) -> NDArray[Any]:
    """How long each list is, <int64>[row]; -1 for none."""
    import pyarrow.compute

    lengths = pyarrow.compute.list_value_length(column).fill_null(-1)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def row_error(
    path: pathlib.Path, number: int, total: int, item: str, reason: str, name: str
) -> DatasetError:
    """The error of one row of a file of vectors: which, whose, and what to do."""
    whose = f" (item {item!r})" if item else ""
    return DatasetError(
        f"{path}: row {number + 1} of {total}{whose}: {reason}. Mend the row, or leave it out: an "
        f"item without a row lacks {name}."
    )
