"""What a table consists of: rows of cells, and what reads them from a file."""

import decimal
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol


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
