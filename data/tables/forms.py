"""How a file holds a table: CSV, TSV, other delimiters, JSON lines, Parquet."""

import contextlib
import csv
import decimal
import gzip
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any, BinaryIO, NamedTuple, Protocol

from mmrec_tf.errors import DatasetError

# Of a row, in characters of text and in bytes of JSON: what is longer is no row, and a small
# archive can hold gigabytes of it.
LARGEST_ROW = 1 << 24
MOST_COLUMNS = 10_000
# Objects of JSON lines whose names make the columns.
FIRST_OBJECTS = 1000
READ = "CSV, TSV or JSON lines (also .gz), or Parquet"
# What other files begin with, and what to do with them.
_OTHERS = {
    b"PK\x03\x04": "a zip archive or a sheet of Excel; unpack it, or save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "a sheet of Excel; save it as CSV in UTF-8",
    b"PAR1": "Parquet; end its name with .parquet",
    b"\x1f\x8b": "gzip; end its name with .gz",
    b"BZh": "bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it, or pack it with gzip",
    b"7z\xbc\xaf": "7z; unpack it, or pack it with gzip",
    b"ARROW1": "Feather; save it as Parquet",
    b"SQLite format": "a database; export its tables as CSV",
}
_DELIMITERS = (",", ";", "\t", "|")
_QUOTED = re.compile(r'"[^"]*"')


class Row(NamedTuple):
    """One row: its cells by column, stripped of blanks around them, and where it stands.

    Attributes:
      cells: by column; of a row that is too short, only those that it has.
      num_cells: how many it has, which may differ from how many the table has columns.
      where: file and line, for messages.
      fault: why it cannot be read at all, and so has no cells; "" where it can.
    """

    cells: dict[str, str]
    num_cells: int
    where: str
    fault: str = ""


class BadRow(Exception):
    """A row that cannot be used; its text is the reason, the same for all rows that share it."""


class Form(Protocol):
    """How a file holds a table."""

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names of the columns."""

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """The rows, blank lines left out."""


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
                self._reader(_BoundedLines(file, path), self.find_delimiter(path)), []
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
            lines = _BoundedLines(file, path)
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
            first = _QUOTED.sub("", next(_BoundedLines(file, path), ""))
        return next((sign for sign in _DELIMITERS if sign in first), ",")

    def _reader(self, lines: "_BoundedLines", delimiter: str) -> Any:
        csv.field_size_limit(LARGEST_ROW)
        # Strict, because otherwise a quote left open swallows every row after it.
        if self.quoted:
            return csv.reader(lines, delimiter=delimiter, strict=True)
        return csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)

    def _open(self, path: pathlib.Path) -> IO[str]:
        return _open_text(path, encoding=self.encoding, newline="")


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
            lines = _BoundedLines(file, path)
            for number, line in enumerate(lines, 1):
                lines.used = 0
                if not line.isspace():
                    values = line.split(self.delimiter, most)
                    cells = dict(zip(columns, map(str.strip, values), strict=False))
                    yield Row(cells, len(values), f"{place}{number}")

    def _open(self, path: pathlib.Path) -> IO[str]:
        return _open_text(path, encoding=self.encoding)


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, in UTF-8.

    Names that are missing, and null, give empty cells.

    Attributes:
      names: the columns wanted; an object within one of them makes the row bad. By default all
        names in the first 1,000 objects; objects within objects, which nobody asked for, then stay
        JSON.
      joiners: by column, what lists are joined with; by default "|".
      flatten: makes one object into the one that is read instead; may raise `BadRow`.
      late: names that only later objects had, with where the first one stands; filled as rows are
        read.
    """

    names: tuple[str, ...] | None = None
    joiners: Mapping[str, str] = field(default_factory=dict)
    flatten: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    late: dict[str, str] = field(default_factory=dict, compare=False)

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names given, else those in the first objects, in the order in which they come."""
        if self.names is not None:
            with _open_bytes(path):
                return list(self.names)
        found: dict[str, None] = {}
        with contextlib.closing(_lines(path)) as lines:
            for number, line in itertools.islice(lines, FIRST_OBJECTS):
                try:
                    found |= dict.fromkeys(self._object(line))
                except BadRow as error:
                    if not found:
                        raise DatasetError(f"{path}: line {number}: {error}.") from error
                check_columns(path, len(found))
        if not found:
            raise DatasetError(f"{path}: wanted one JSON object a line; it is empty.")
        return list(found)

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """All lines; one that is no JSON object is a row with a fault."""
        known = set(columns)
        with contextlib.closing(_lines(path)) as lines:
            for number, line in lines:
                where = f"{path}: line {number}"
                try:
                    values = self._object(line)
                    if self.names is None and len(self.late) < MOST_COLUMNS:
                        for name in values.keys() - known:
                            self.late.setdefault(name, f"line {number}")
                    cells = {name: self._cell(name, values.get(name)) for name in columns}
                except BadRow as error:
                    yield Row({}, 0, where, str(error))
                else:
                    yield Row(cells, len(columns), where)

    def _object(self, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadRow(f"wanted UTF-8; got {error.reason}") from error
        except (ValueError, RecursionError) as error:
            got: object = error
            if line.startswith(b"{'"):
                got = "a dict of Python, as older releases have"
            elif line.lstrip().startswith(b"["):
                got = "the start of an array; write its objects one a line, as jq -c '.[]' does"
            raise BadRow(f"wanted one JSON object a line; got {got}") from error
        if not isinstance(value, dict):
            raise BadRow(f"wanted one JSON object a line; got a {type(value).__name__}")
        return value if self.flatten is None else self.flatten(value)

    def _cell(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            cell = value.strip()
        elif _holds_object(value):
            if self.names is not None:
                raise BadRow(f"{name}: wanted text, a number or a list of them; got an object")
            cell = json.dumps(value, ensure_ascii=False)
        else:
            cell = text_of(value, self.joiners.get(name, "|"))
        # JSON can write half of a surrogate pair, which no file can hold.
        return cell if cell.isascii() else cell.encode("utf-8", "replace").decode("utf-8")


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


class _BoundedLines:
    """The lines of a text, refusing what no row can be.

    Attributes:
      used: characters since somebody set it to 0, as a quoted cell makes one row of many lines.
      last: the line read last.
    """

    def __init__(self, file: IO[str], path: pathlib.Path):
        self._file, self._path = file, path
        self._number = self.used = 0
        self.last = ""

    def __iter__(self) -> "_BoundedLines":
        return self

    def __next__(self) -> str:
        self.last = self._file.readline(LARGEST_ROW + 1)
        if not self.last:
            raise StopIteration
        self._number += 1
        self.used += len(self.last)
        if self.used > LARGEST_ROW:
            raise DatasetError(
                f"{self._path}: line {self._number}: wanted rows of at most {LARGEST_ROW:,} "
                "characters; got a longer one. Is a quote left open, or is this another file?"
            )
        return self.last


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


def check_columns(path: pathlib.Path, number: int) -> None:
    """Refuses a table of more columns than anybody has.

    Raises:
      DatasetError: when there are more than `MOST_COLUMNS`.
    """
    if number > MOST_COLUMNS:
        raise DatasetError(
            f"{path}: wanted at most {MOST_COLUMNS:,} columns; got {number:,}. Is this the right "
            "file? A matrix of vectors is read by --vector."
        )


def undecodable(path: pathlib.Path, encoding: str, error: UnicodeDecodeError) -> DatasetError:
    """The error of a text in another encoding: the line, the byte, and what to do."""
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    where, byte = "", error.object[error.start]
    with _open_bytes(path) as file:
        start = file.read(2)
        file.seek(0)
        if name == "UTF-8" and start in (b"\xff\xfe", b"\xfe\xff"):
            return DatasetError(
                f"{path}: wanted UTF-8; got UTF-16. Name it with --encoding utf-16, or convert it: "
                "iconv -f utf-16 -t utf-8."
            )
        number = 0
        while name == "UTF-8" and (line := file.readline(4 * LARGEST_ROW)):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                where, byte = f"line {number}: ", found.object[found.start]
                break
    return DatasetError(
        f"{path}: {where}wanted {name}; got the byte 0x{byte:02X} ({error.reason}). Name the "
        "encoding, such as --encoding cp1252 (Windows) or latin-1, or convert the file: iconv -f "
        "cp1252 -t utf-8."
    )


def form_of(path: pathlib.Path, text: Csv | None = None) -> Form:
    """How a file is read, by the ending of its name.

    Args:
      path: the file.
      text: how CSV and TSV are read, where that was said.

    Raises:
      DatasetError: for a file that is no table of these.
    """
    text = text or Csv(None)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    if suffixes[-1:] not in ([".parquet"], [".pq"]) and path.is_file():
        with _open_bytes(path) as file:
            start = file.read(16)
        for sign, got in _OTHERS.items():
            if start.startswith(sign):
                raise DatasetError(f"{path}: wanted {READ}; got {got}.")
        if suffixes[-1:] in ([".xlsx"], [".xls"], [".ods"]):
            raise DatasetError(
                f"{path}: wanted {READ}; got the ending {suffixes[-1]}. Save the sheet as CSV."
            )
    match suffixes[-1:]:
        case [".parquet" | ".pq"]:
            return Parquet()
        case [".jsonl" | ".json"]:
            return JsonLines()
        case [".tsv"]:
            return replace(text, delimiter=text.delimiter or "\t")
    return text


def _open_text(path: pathlib.Path, *, encoding: str, newline: str | None = None) -> IO[str]:
    if _is_gzipped(path):
        return gzip.open(path, "rt", encoding=encoding, newline=newline)
    return path.open(encoding=encoding, newline=newline)


def _open_bytes(path: pathlib.Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if _is_gzipped(path) else path.open("rb")


def _is_gzipped(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".gz"


def _lines(path: pathlib.Path) -> Generator[tuple[int, bytes], None, None]:
    """Lines that are not blank, with their numbers, as bytes: a bad one must not cost the rest."""
    with _open_bytes(path) as file:
        number = 0
        while line := file.readline(LARGEST_ROW + 1):
            number += 1
            if len(line) > LARGEST_ROW:
                raise DatasetError(
                    f"{path}: line {number}: wanted one JSON object a line; got a line of more "
                    f"than {LARGEST_ROW >> 20} MiB."
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.isspace():
                yield number, line


def _holds_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_object, value))
    return isinstance(value, dict)


def text_of(value: Any, joiner: str = "|") -> str:
    """A value of Parquet or JSON as a CSV would hold it.

    Raises:
      BadRow: for bytes that are no UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadRow(f"wanted text; got bytes that are no UTF-8 ({error.reason})") from error
    if isinstance(value, decimal.Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if whole else str(value)
    if isinstance(value, float):
        # Integers beside missing values come as floats; "3.0" would be another item than "3".
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return joiner.join(text_of(part, joiner) for part in value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value).strip()
