"""Tables as they lie on disk, read row by row, and which of their columns are read."""

import contextlib
import csv
import pathlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from data.tables.delimited import Csv
from data.tables.forms import form_of
from data.tables.json_lines import JsonLines
from data.tables.likely import likely_column
from data.tables.opening import undecodable
from data.tables.rows import BadRow, Form, Row
from mmrec_tf.errors import ConfigError, DatasetError


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

    def check_left(self, name: str, table: "Table") -> None:
        """To be called where no row of a table is left: says why.

        Raises:
          DatasetError: when rows were skipped.
        """
        if counts := self.counts.get(name):
            why = ", ".join(f"{number} {reason}" for reason, number in counts.items())
            raise DatasetError(
                f"{table.path}: wanted at least one row of {name}; all were skipped: {why}. Mend "
                "the rows."
            )


class Table:
    """A table of named columns that can be read again and again.

    Args:
      path: the file; text forms may be gzipped, as `.gz`.
      form: how it is read; by default by its ending: `.parquet`, `.tsv`, `.jsonl` or `.json` with
        one object a line, else CSV.
      text: how CSV and TSV are read, where the ending decides.

    Attributes:
      path: the file.
      columns: the names of the columns.
      read: the columns that somebody asked for, with what they are read as.
      beside: further tables that rows are made of, by name.

    Raises:
      DatasetError: when the file is missing, is no table, has no header, or names a column twice.
    """

    path: pathlib.Path
    columns: list[str]
    read: dict[str, list[str]]
    beside: Mapping[str, "Table"]

    def __init__(
        self,
        path: str | pathlib.Path,
        *,
        form: Form | None = None,
        text: Csv | None = None,
    ):
        self.path = pathlib.Path(path)
        self.read, self.beside = {}, {}
        with self._errors():
            self._form = form or form_of(self.path, text)
            self.columns = self._form.columns(self.path)
        counts = Counter(self.columns)
        twice = sorted(name for name, number in counts.items() if name and number > 1)
        if twice:
            raise DatasetError(f"{self.path}: names the column {twice[0]!r} twice.")

    def __iter__(self) -> Iterator[Row]:
        """Reads the rows; blank lines are none.

        Raises:
          DatasetError: where the file itself is damaged.
        """
        with self._errors():
            yield from self._form.rows(self.path, self.columns)

    @property
    def form(self) -> Form:
        """How it is read."""
        return self._form

    @property
    def unread(self) -> list[str]:
        """The columns that nobody asked for, those among them that only later rows have."""
        return [name for name in (*self.columns, *self.late) if name and name not in self.read]

    @property
    def late(self) -> Mapping[str, str]:
        """Columns that were not known when rows were read, with where they first stand."""
        return self.form.late if isinstance(self.form, JsonLines) else {}

    @property
    def notes(self) -> list[str]:
        """What was found out about how the file is read, or was not read of it."""
        found = []
        form = self.form
        if isinstance(form, Csv) and form.delimiter is None:
            sign = form.find_delimiter(self.path)
            if sign != ",":
                found.append(
                    f"{self.path}: read with {sign!r} between cells, as in its first line; "
                    "--delimiter says otherwise."
                )
        if self.late:
            some = ", ".join(f"{name!r} ({at})" for name, at in list(self.late.items())[:5])
            found.append(
                f"{self.path}: names that none of the first objects has were not read: {some}. Put "
                "an object with all names first."
            )
        return found

    def column(self, name: str | None, default: str, *, role: str | None = None) -> str | None:
        """Finds a column: the one asked for by name, else the default where the table has it.

        Raises:
          ConfigError: when the table lacks the column asked for.
        """
        if name is None and default not in self.columns:
            return None
        return self.required_column(name, default, role=role)

    def required_column(self, name: str | None, default: str, *, role: str | None = None) -> str:
        """Finds a column: the one asked for by name, else the default.

        Args:
          name: the name asked for.
          default: the name otherwise.
          role: what it is read as, where that is not the default.

        Raises:
          ConfigError: when the table lacks it.
        """
        wanted = default if name is None else name
        if wanted not in self.columns:
            likely = likely_column(default, self.columns)
            way = f"Is it {likely}?" if likely else "Name the column by option; see --help."
            raise ConfigError(
                f"{self.path}: wanted a column {wanted!r}; it has {', '.join(self.columns)}. {way}"
            )
        roles = self.read.setdefault(wanted, [])
        if (role or default) not in roles:
            roles.append(role or default)
        return wanted

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DatasetError(f"{self.path}: wanted a table; there is no such file.") from error
        except UnicodeDecodeError as error:
            encoding = getattr(self._form, "encoding", "utf-8")
            raise undecodable(self.path, encoding, error) from error
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
        self.read = {}
        self._table, self._derive = table, derive

    @property
    def form(self) -> Form:
        """How the other table is read."""
        return self._table.form

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
