"""JSON objects, one a line."""

import contextlib
import itertools
import json
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.tables import opening
from data.tables.opening import check_columns, open_bytes
from data.tables.rows import BadRow, Row, text_of
from mmrec_tf.errors import DatasetError

# Objects whose names make the columns.
FIRST_OBJECTS = 1000


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
            with open_bytes(path):
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
                    if self.names is None and len(self.late) < opening.MOST_COLUMNS:
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


def _lines(path: pathlib.Path) -> Generator[tuple[int, bytes], None, None]:
    """Lines that are not blank, with their numbers, as bytes: a bad one must not cost the rest."""
    with open_bytes(path) as file:
        number = 0
        while line := file.readline(opening.LARGEST_ROW + 1):
            number += 1
            if len(line) > opening.LARGEST_ROW:
                raise DatasetError(
                    f"{path}: line {number}: wanted one JSON object a line; got a line of more "
                    f"than {opening.LARGEST_ROW >> 20} MiB."
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.isspace():
                yield number, line


def _holds_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_object, value))
    return isinstance(value, dict)
