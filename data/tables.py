"""Tables as they lie on disk: CSV or TSV, plain or gzipped, and Parquet, read row by row."""

import contextlib
import csv
import gzip
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import sha256

_LARGEST_CELL = 1 << 26  # characters


class Row(NamedTuple):
    """One row: its cells by column, stripped of blanks around them, and where it stands.

    Attributes:
      cells: by column; of a CSV row that is too short, only those that it has.
      num_cells: how many it has, which may differ from how many the header has.
      where: file and line, for messages.
    """

    cells: dict[str, str]
    num_cells: int
    where: str


class BadRow(Exception):
    """A row that cannot be used; its text is the reason, the same for all rows that share it."""


@dataclass
class Skipped:
    """What to do with bad rows: raise at the first, or pass over them and count.

    Attributes:
      allowed: pass over them.
      counts: by table and reason.
    """

    allowed: bool = False
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, table: str, row: Row, reason: str) -> None:
        """Counts one bad row.

        Raises:
          DatasetError: when bad rows are not allowed.
        """
        if not self.allowed:
            raise DatasetError(
                f"{row.where}: {reason}. Mend the row, or pass over such rows with --skip-bad-rows."
            )
        reasons = self.counts.setdefault(table, {})
        # What came differs from row to row; what was wanted is what there are few of.
        reason = reason.split("; got ")[0]
        reasons[reason] = reasons.get(reason, 0) + 1


class Table:
    """A table of named columns that can be read again and again.

    Args:
      path: `.csv` or `.tsv` (also `.gz`), or `.parquet`.

    Raises:
      DatasetError: when the file is missing, has no header, or names a column twice.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        self._parquet = bool(suffixes) and suffixes[-1] in (".parquet", ".pq")
        self._gzip = bool(suffixes) and suffixes[-1] == ".gz"
        self._delimiter = "\t" if ".tsv" in suffixes[-2:] else ","
        with self._errors():
            self.columns = self._read_columns()
        twice = sorted({name for name in self.columns if name and self.columns.count(name) > 1})
        if twice:
            raise DatasetError(f"{self.path}: names the column {twice[0]!r} twice.")

    def __iter__(self) -> Iterator[Row]:
        """Reads the rows; blank lines are none.

        Raises:
          DatasetError: where the file itself is damaged.
        """
        with self._errors():
            yield from self._read_parquet() if self._parquet else self._read_csv()

    def column(self, name: str | None, default: str) -> str | None:
        """Finds a column: the one asked for by name, else the default where the table has it.

        Raises:
          ConfigError: when the table lacks the column asked for.
        """
        if name is None and default not in self.columns:
            return None
        return self.required_column(name, default)

    def required_column(self, name: str | None, default: str) -> str:
        """Finds a column: the one asked for by name, else the default.

        Raises:
          ConfigError: when the table lacks it.
        """
        wanted = default if name is None else name
        if wanted not in self.columns:
            raise ConfigError(
                f"{self.path}: wanted a column {wanted!r}; it has {', '.join(self.columns)}. "
                "Name the column by option; see --help."
            )
        return wanted

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DatasetError(f"{self.path}: wanted a table; there is no such file.") from error
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.path}: wanted UTF-8; {error.reason}.") from error
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise DatasetError(f"{self.path}: wanted a table; {error}.") from error

    def _read_columns(self) -> list[str]:
        if self._parquet:
            return list(self._open_parquet().schema_arrow.names)
        with self._open_csv() as file:
            header = next(csv.reader(file, delimiter=self._delimiter, strict=True), [])
        columns = [name.strip() for name in header]
        if not any(columns):
            raise DatasetError(
                f"{self.path}: wanted a header with the columns' names; it is empty."
            )
        return columns

    def _open_csv(self) -> TextIO:
        csv.field_size_limit(_LARGEST_CELL)
        opener: Any = gzip.open if self._gzip else open
        return opener(self.path, "rt", encoding="utf-8-sig", newline="")

    def _read_csv(self) -> Iterator[Row]:
        with self._open_csv() as file:
            # Strict, because otherwise a quote left open swallows every row behind it.
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            next(reader, None)
            while True:
                # A cell may span lines, so that only the reader knows where its row begins.
                where = f"{self.path}: line {reader.line_num + 1}"
                try:
                    values = next(reader, None)
                except csv.Error as error:
                    raise DatasetError(f"{where}: wanted a row of CSV; {error}.") from error
                if values is None:
                    return
                if values:
                    pairs = zip(self.columns, values, strict=False)  # checked by `complete`
                    cells = {name: value.strip() for name, value in pairs}
                    yield Row(cells, len(values), where)

    def _open_parquet(self):
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except pyarrow.ArrowInvalid as error:
            raise DatasetError(f"{self.path}: wanted Parquet; {error}.") from error

    def _read_parquet(self) -> Iterator[Row]:
        number = 0
        for batch in self._open_parquet().iter_batches(batch_size=4096):
            for values in batch.to_pylist():
                number += 1
                cells = {name: _text(value) for name, value in values.items()}
                yield Row(cells, len(cells), f"{self.path}: row {number}")


def complete(row: Row, columns: list[str]) -> None:
    """Checks that a row has as many cells as the header.

    Raises:
      BadRow: when it has not.
    """
    if row.num_cells != len(columns):
        raise BadRow(f"wanted {len(columns)} cells; got {row.num_cells}")


def described(tables: Mapping[str, Table | None]) -> dict[str, dict[str, str]]:
    """For the manifest: the path and the SHA-256 of each table that was read."""
    return {
        name: {"file": table.path.name, "sha256": sha256(table.path)}
        for name, table in tables.items()
        if table is not None
    }


def _text(value: Any) -> str:
    """A Parquet value as a CSV would hold it."""
    if value is None:
        return ""
    if isinstance(value, float):
        # Integers beside missing values come as floats; "3.0" would be another item than "3".
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return "|".join(map(_text, value))
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value).strip()
