"""Which columns of the tables are read and which are not, what those may be, and the first rows."""

import itertools
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data.tables.likely import likely_column, likely_media, likely_time, option
from data.tables.rows import Row
from data.tables.table import Table

# So many rows are looked at.
FIRST_ROWS = 100
_MOST_FOLDERS = 200
# What is proposed of each table, where nothing is read as it.
_ROLES = {
    "items": ("text",),
    "interactions": ("rating", "event", "position"),
    "users": ("profile",),
}


def unread(tables: Mapping[str, Table | None]) -> dict[str, list[str]]:
    """By table, the columns that nobody asked for; tables without such are left out."""
    named = {name: table for name, table in tables.items() if table is not None}
    return {name: table.unread for name, table in named.items() if table.unread}


def first_rows(table: Table) -> list[Row]:
    """The first rows, without those that cannot be read.

    Raises:
      DatasetError: where the file itself is damaged.
    """
    return [row for row in itertools.islice(table, FIRST_ROWS) if not row.fault]


def propose(name: str, table: Table, *, root: pathlib.Path | None = None) -> list[str]:
    """What the columns that nothing was read of may be, and the options that would read them.

    Args:
      name: of the table: "items", "interactions", "users" or "triples".
      table: the table, of which all that is wanted has been asked for.
      root: the media root, of a table of items.
    """
    if not table.unread or name not in _ROLES:
        return []
    roles = {role for found in table.read.values() for role in found}
    cells = _cells(table, table.unread)
    found = []
    if root is not None:
        for column in table.unread:
            kind = likely_media(cells[column])
            if kind and kind not in roles:
                found.append((column, place_of(kind, column, cells[column], root)))
                roles.add(kind)
    if name == "interactions" and not roles & {"timestamp", "date"}:
        found += [
            (column, way) for column in table.unread if (way := likely_time(column, cells[column]))
        ][:1]
    for role in _ROLES[name]:
        taken = {column for column, _ in found}
        left = [column for column in table.unread if column not in taken]
        way = "" if role in roles else likely_column(role, left)
        if not way and role == "text" and role not in roles:
            way = next((option("--text", name) for name in left if _is_prose(cells[name])), "")
        if way:
            more = ", with --event-weights" if role == "event" else ""
            found.append((way.split(" ", 1)[1].strip('"'), way + more))
    return [
        f"{table.path}: nothing was read of the column {column!r}; would {way} be right?"
        for column, way in found
    ]


def time_hint(table: Table) -> str:
    """The option that would read times of a column that is not read; "" where none may hold any."""
    cells = _cells(table, table.unread)
    ways = (likely_time(column, cells[column]) for column in table.unread)
    return next(filter(None, ways), "")


def place_of(kind: str, column: str, cells: Sequence[str], root: pathlib.Path) -> str:
    """The option that finds the files which a column names.

    Args:
      kind: "image", "audio" or "video".
      column: its name.
      cells: some of its cells.
      root: the media root.
    """
    names = [cell for cell in cells if cell]
    if any("://" in name for name in names):
        return f"--{kind}, once the files are fetched (it holds addresses),"
    if any(_is_file(root / name) for name in names):
        return option(f"--{kind}", column)
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())[:_MOST_FOLDERS]
    for folder in folders:
        if any(_is_file(root / folder / os.path.basename(name)) for name in names):
            return option(f"--{kind}", f"{folder}/{{{column}}}")
    return f"{option(f'--{kind}', column)}, with --media-root where its files are,"


def preview(tables: Mapping[str, Table | None]) -> dict[str, dict[str, Any]]:
    """By table: its `file`, and by column what it is `read_as` (none: not read) and its `first`
    cells."""
    found = {}
    for name, table in tables.items():
        if table is not None:
            cells = _cells(table, table.columns)
            found[name] = {
                "file": str(table.path),
                "columns": {
                    column: {"read_as": table.read.get(column, []), "first": cells[column][:3]}
                    for column in table.columns
                },
            }
    return found


def _cells(table: Table, columns: Collection[str]) -> dict[str, list[str]]:
    rows = first_rows(table) if columns else []
    return {column: [row.cells.get(column, "") for row in rows] for column in columns}


def _is_prose(cells: Sequence[str]) -> bool:
    """Whether most cells have several words."""
    cells = [cell for cell in cells if cell]
    several = sum(len([w for w in cell.split() if w[:1].isalpha()]) > 1 for cell in cells)
    return several > len(cells) / 2


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
