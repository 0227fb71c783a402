"""Tables as they lie on disk, read row by row: CSV, TSV, other delimiters, JSON lines, Parquet."""

import contextlib
import csv
import gzip
import json
import pathlib
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, NamedTuple, Protocol

from mmrec_tf.errors import ConfigError, DatasetError

_LARGEST_CELL = 1 << 26  # characters
_LARGEST_LINE = 1 << 26  # bytes


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


class Form(Protocol):
    """How a file holds a table."""

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names of the columns."""

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """The rows, blank lines left out."""


@dataclass(frozen=True)
class Csv:
    """Rows of cells that may be quoted, in UTF-8; a quoted cell may span lines.

    Attributes:
      delimiter: one character.
      names: the columns of a file without a header.
    """

    delimiter: str = ","
    names: tuple[str, ...] | None = None

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names given, else those of the header."""
        if self.names is not None:
            return list(self.names)
        with self._open(path) as file:
            header = next(csv.reader(file, delimiter=self.delimiter, strict=True), [])
        columns = [name.strip() for name in header]
        if not any(columns):
            raise DatasetError(f"{path}: wanted a header with the columns' names; it is empty.")
        if any("\0" in name for name in columns):
            raise DatasetError(f"{path}: wanted UTF-8; got zero bytes, as UTF-16 has them.")
        return columns

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """The rows after the header."""
        with self._open(path) as file:
            # Strict, because otherwise a quote left open swallows every row after it.
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            if self.names is None:
                next(reader, None)
            # A cell may span lines, so that only the reader knows where its row begins.
            line = reader.line_num + 1
            place = f"{path}: line "  # a path takes longer to print than a row to read
            try:
                for values in reader:
                    if values:
                        # To say strict=False takes a tenth of the time of the whole row.
                        cells = dict(zip(columns, map(str.strip, values)))  # noqa: B905
                        yield Row(cells, len(values), f"{place}{line}")
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DatasetError(f"{path}: line {line}: wanted a row of CSV; {error}.") from error

    def _open(self, path: pathlib.Path) -> IO[str]:
        csv.field_size_limit(_LARGEST_CELL)
        return _open_text(path, encoding="utf-8-sig", newline="")


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
            for number, line in enumerate(file, 1):
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
      names: the columns wanted; an object within one of them makes the row bad. By default the
        names in the first object; objects within objects, which nobody asked for, then stay JSON.
      joiners: by column, what lists are joined with; by default "|".
      flatten: makes one object into the one that is read instead; may raise `BadRow`.
    """

    names: tuple[str, ...] | None = None
    joiners: Mapping[str, str] = field(default_factory=dict)
    flatten: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def columns(self, path: pathlib.Path) -> list[str]:
        """The names given, else those in the first object."""
        if self.names is not None:
            with _open_bytes(path):
                return list(self.names)
        with contextlib.closing(_lines(path)) as lines:
            for number, line in lines:
                try:
                    return list(self._object(line))
                except BadRow as error:
                    raise DatasetError(f"{path}: line {number}: {error}.") from error
        raise DatasetError(f"{path}: wanted one JSON object a line; it is empty.")

    def rows(self, path: pathlib.Path, columns: list[str]) -> Iterator[Row]:
        """All lines; one that is no JSON object is a row with a fault."""
        with contextlib.closing(_lines(path)) as lines:
            for number, line in lines:
                where = f"{path}: line {number}"
                try:
                    values = self._object(line)
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
            got = "a dict of Python, as older releases have" if line.startswith(b"{'") else error
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
                cells = {name: text_of(value) for name, value in values.items()}
                yield Row(cells, len(cells), f"{path}: row {number}")

    def _open(self, path: pathlib.Path) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise DatasetError(f"{path}: wanted Parquet; {error}.") from error


class Table:
    """A table of named columns that can be read again and again.

    Args:
      path: the file; text forms may be gzipped, as `.gz`.
      form: how it is read; by default by its ending: `.parquet`, `.tsv`, `.jsonl` or `.json` with
        one object a line, else CSV.

    Attributes:
      path: the file.
      columns: the names of the columns.
      beside: further tables that rows are made of, by name.

    Raises:
      DatasetError: when the file is missing, has no header, or names a column twice.
    """

    path: pathlib.Path
    columns: list[str]
    beside: Mapping[str, "Table"]

    def __init__(self, path: str | pathlib.Path, *, form: Form | None = None):
        self.path = pathlib.Path(path)
        self.beside = {}
        self._form = form or _form(self.path)
        with self._errors():
            self.columns = self._form.columns(self.path)
        twice = sorted({name for name in self.columns if name and self.columns.count(name) > 1})
        if twice:
            raise DatasetError(f"{self.path}: names the column {twice[0]!r} twice.")

    def __iter__(self) -> Iterator[Row]:
        """Reads the rows; blank lines are none.

        Raises:
          DatasetError: where the file itself is damaged.
        """
        with self._errors():
            yield from self._form.rows(self.path, self.columns)

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


class Derived(Table):
    """A table made from another, row by row.

    Args:
      table: what is read.
      columns: those of this table.
      derive: from the cells of one row, as many as `table` has columns, to the cells of the row
        here; may raise `BadRow`.
      beside: further tables that `derive` knows, by name, for the manifest.
    """

    def __init__(
        self,
        table: Table,
        columns: Iterable[str],
        *,
        derive: Callable[[dict[str, str]], dict[str, str]],
        beside: Mapping[str, Table] | None = None,
    ):
        self.path, self.columns, self.beside = table.path, list(columns), beside or {}
        self._table, self._derive = table, derive

    def __iter__(self) -> Iterator[Row]:
        """Reads the rows of the other table; one that is bad there is bad here."""
        for row in self._table:
            try:
                complete(row, self._table.columns)
                cells = self._derive(row.cells)
            except BadRow as error:
                yield Row({}, 0, row.where, str(error))
            else:
                yield Row(cells, len(self.columns), row.where)


def complete(row: Row, columns: list[str]) -> None:
    """Checks that a row could be read, and has as many cells as the table has columns.

    Raises:
      BadRow: when it has not.
    """
    if row.fault:
        raise BadRow(row.fault)
    if row.num_cells != len(columns):
        raise BadRow(f"wanted {len(columns)} cells; got {row.num_cells}")


def describe(tables: Mapping[str, Table | None]) -> dict[str, dict[str, str]]:
    """For the manifest: the path and the SHA-256 of each table that was read."""
    from mmrec_tf.records import sha256

    found = {}
    for name, table in tables.items():
        if table is not None:
            found[name] = {"file": table.path.name, "sha256": sha256(table.path)}
            found |= describe(table.beside)
    return found


def _form(path: pathlib.Path) -> Form:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    match suffixes[-1:]:
        case [".parquet" | ".pq"]:
            return Parquet()
        case [".jsonl" | ".json"]:
            return JsonLines()
        case [".tsv"]:
            return Csv("\t")
    return Csv()


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
        while line := file.readline(_LARGEST_LINE + 1):
            number += 1
            if len(line) > _LARGEST_LINE:
                raise DatasetError(
                    f"{path}: line {number}: wanted one JSON object a line; got a line of more "
                    f"than {_LARGEST_LINE >> 20} MiB."
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
    """A value of Parquet or JSON as a CSV would hold it."""
    if value is None:
        return ""
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
