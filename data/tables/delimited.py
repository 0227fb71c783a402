"""Rows of text: CSV, TSV, other delimiters, with quotes or without."""

import csv
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from data.tables.opening import LARGEST_ROW, BoundedLines, check_columns, open_text
from data.tables.rows import Row
from mmrec_tf.errors import DatasetError

_DELIMITERS = (",", ";", "\t", "|")
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True)
class Csv:
    """Rows of cells that may be quoted; a quoted cell may span lines.

    Attributes:
      delimiter: one character; None for a comma, or where the header has none, for the semicolon,
        tab or bar that it has.
      names: the columns of a file without a header.
      encoding: of the file.
      quoted: whether quotes hold a cell together; else they are characters like any other.
    """

    delimiter: str | None = ","
    names: tuple[str, ...] | None = None
    encoding: str = "utf-8-sig"
    quoted: bool = True

    @property
    def has_defaults(self) -> bool:
        """Whether nobody said how files are read."""
        return self == Csv(None)

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names given, else those of the header."""
        if self.names is not None:
            return list(self.names)
        with self._open(path) as file:
            header: list[str] = next(
                self._reader(BoundedLines(file, path), self.find_delimiter(path)), []
            )
        columns = [name.strip() for name in header]
        if not any(columns):
            raise DatasetError(f"{path}: wanted a header with the columns' names; it is empty.")
        check_columns(path, len(columns))
        if any("\0" in name for name in columns):
            raise DatasetError(
                f"{path}: wanted UTF-8; got zero bytes, as UTF-16 has them. Name it with "
                "--encoding utf-16, or convert it: iconv -f utf-16 -t utf-8."
            )
        return columns

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """The rows after the header."""
        delimiter = self.find_delimiter(path)
        with self._open(path) as file:
            lines = BoundedLines(file, path)
            reader = self._reader(lines, delimiter)
            if self.names is None:
                next(reader, None)
                lines.used = 0
            # A cell may span lines, so that only the reader knows where its row begins.
            line = reader.line_num + 1
            place = f"{path}: line "  # a path takes longer to print than a row to read
            try:
                for values in reader:
                    lines.used = 0
                    if values:
                        # To say strict=False takes a tenth of the time of the whole row.
                        cells = dict(zip(columns, map(str.strip, values)))  # noqa: B905
                        yield Row(cells, len(values), f"{place}{line}")
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DatasetError(
                    f"{path}: line {line}: wanted a row of CSV; {error}. {_way_out(lines.last)}"
                ) from error

    def find_delimiter(self, path: pathlib.Path) -> str:
        """The delimiter given, else that of the first line."""
        if self.delimiter is not None:
            return self.delimiter
        with self._open(path) as file:
            first = _QUOTED.sub("", next(BoundedLines(file, path), ""))
        return next((sign for sign in _DELIMITERS if sign in first), ",")

    def _reader(self, lines: BoundedLines, delimiter: str) -> Any:
        csv.field_size_limit(LARGEST_ROW)
        # Strict, because otherwise a quote left open swallows every row after it.
        if self.quoted:
            return csv.reader(lines, delimiter=delimiter, strict=True)
        return csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)

    def _open(self, path: pathlib.Path) -> IO[str]:
        return open_text(path, encoding=self.encoding, newline="")


@dataclass(frozen=True)
class Lines:
    """One row a line, without a header and without quotes.

    Attributes:
      names: the columns.
      delimiter: one character or several.
      encoding: of the file.
      rest: the last cell is all that is left of the line, delimiters included.
    """

    names: tuple[str, ...]
    delimiter: str
    encoding: str = "utf-8-sig"
    rest: bool = False

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names given."""
        with self._open(path):
            return list(self.names)

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """All lines."""
        most = len(columns) - 1 if self.rest else -1
        place = f"{path}: line "
        with self._open(path) as file:
            lines = BoundedLines(file, path)
            for number, line in enumerate(lines, 1):
                lines.used = 0
                if not line.isspace():
                    values = line.split(self.delimiter, most)
                    cells = dict(zip(columns, map(str.strip, values), strict=False))
                    yield Row(cells, len(values), f"{place}{number}")

    def _open(self, path: pathlib.Path) -> IO[str]:
        return open_text(path, encoding=self.encoding)


def _way_out(line: str) -> str:
    """What to do about a line that is no CSV."""
    stays = " --skip-bad-rows cannot help, as nobody knows where such a row ends."
    if '\\"' in line:
        return (
            "Its quotes are escaped by backslashes, which CSV doubles instead: write the table "
            f'with "" in place of \\".{stays}'
        )
    return (
        "A quote is left open, or stands within a cell. Where quotes mean nothing, read them as "
        f"they are with --quoting none; else double them.{stays}"
    )
