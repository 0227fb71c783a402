"""Parquet, read in batches."""

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.tables.rows import BadRow, Row, text_of
from mmrec_tf.errors import DatasetError


@dataclass(frozen=True)
class Parquet:
    """Parquet, read in batches; lists are joined with "|"."""

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names in the file."""
        return list(self._open(path).schema_arrow.names)

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """All rows."""
        number = 0
        for batch in self._open(path).iter_batches(batch_size=4096):
            for values in batch.to_pylist():
                number += 1
                where = f"{path}: row {number}"
                try:
                    cells = {name: text_of(value) for name, value in values.items()}
                except BadRow as error:
                    yield Row({}, 0, where, str(error))
                else:
                    yield Row(cells, len(cells), where)

    def _open(self, path: pathlib.Path) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise DatasetError(f"{path}: wanted Parquet; {error}.") from error
