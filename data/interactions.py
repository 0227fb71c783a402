"""The interactions table: who met what, when, how much they liked it, and in which split."""

import array
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from tqdm import tqdm

from data.splits import Events
from data.tables import BadRow, Row, Skipped, Table, complete
from mmrec_tf.schema import SPLITS

# Years as far as 5138; what is beyond was meant as milliseconds.
_LATEST_SECONDS = 100_000_000_000
_SPLIT_NAMES = {"val": "valid", "validation": "valid"}


@dataclass(frozen=True)
class InteractionColumns:
    """The columns of the interactions table; None takes the default where the table has it.

    The defaults are `user`, `item`, `timestamp` (seconds since 1970 UTC), else `date` (ISO 8601,
    UTC unless it says otherwise), `rating`, `weight` and `split`.
    """

    user: str | None = None
    item: str | None = None
    timestamp: str | None = None
    date: str | None = None
    rating: str | None = None
    weight: str | None = None
    split: str | None = None


def read_interactions(
    table: Table,
    columns: InteractionColumns,
    *,
    users: dict[str, int],
    items: dict[str, int],
    given: bool,
    skipped: Skipped,
) -> Events:
    """Reads the whole table.

    Args:
      table: the interactions.
      columns: where to find what.
      users: numbers by id; users seen for the first time are added.
      items: numbers by id; items seen for the first time are added.
      given: read the split, too; otherwise all is train.
      skipped: what to do with bad rows.

    Returns:
      One row for each row of the table, in its order.

    Raises:
      ConfigError: when the table lacks a column.
      DatasetError: for a bad row, unless such rows are skipped.
    """
    parse = _parser(table, columns, given=given)
    rated = table.column(columns.rating, "rating") is not None
    weighted = table.column(columns.weight, "weight") is not None
    store = tuple(array.array(code) for code in "iiqffb")
    for row in tqdm(table, desc="interactions", unit="row", disable=None):
        try:
            user, item, *numbers = parse(row)
        except BadRow as error:
            skipped.add("interactions", row, str(error))
            continue
        store[0].append(users.setdefault(user, len(users)))
        store[1].append(items.setdefault(item, len(items)))
        for column, number in zip(store[2:], numbers, strict=True):
            column.append(number)
    dtypes = (np.int32, np.int32, np.int64, np.float32, np.float32, np.int8)
    user, item, timestamp, rating, weight, split = (
        np.array(column, dtype) for column, dtype in zip(store, dtypes, strict=True)
    )
    return Events(
        user, item, timestamp, rating if rated else None, weight if weighted else None, split
    )


def _parser(
    table: Table, columns: InteractionColumns, *, given: bool
) -> Callable[[Row], tuple[str, str, int, float, float, int]]:
    """Finds the columns once, and returns what reads a row of them."""
    user = table.column(columns.user, "user", required=True)
    item = table.column(columns.item, "item", required=True)
    seconds = table.column(columns.timestamp, "timestamp") if columns.date is None else None
    date = table.column(columns.date, "date") if seconds is None else None
    rating = table.column(columns.rating, "rating")
    weight = table.column(columns.weight, "weight")
    split = table.column(columns.split, "split", required=True) if given else None

    def parse(row: Row) -> tuple[str, str, int, float, float, int]:
        complete(row, table.columns)
        cells = row.cells
        if not cells[user]:
            raise BadRow("no user id")
        if not cells[item]:
            raise BadRow("no item id")
        when = 0
        if seconds is not None:
            when = _seconds(cells[seconds])
        elif date is not None:
            when = _date_seconds(cells[date])
        return (
            cells[user],
            cells[item],
            when,
            1.0 if rating is None else _number("rating", cells[rating]),
            1.0 if weight is None else _weight(cells[weight]),
            0 if split is None else _split(cells[split]),
        )

    return parse


def _seconds(cell: str) -> int:
    try:
        value = int(cell)
    except ValueError:
        try:
            value = math.floor(float(cell))
        except (ValueError, OverflowError):
            raise BadRow(f"timestamp: wanted seconds since 1970; got {cell!r}") from None
    if abs(value) >= _LATEST_SECONDS:
        raise BadRow(f"timestamp: wanted seconds since 1970, not milliseconds; got {cell!r}")
    return value


def _date_seconds(cell: str) -> int:
    try:
        when = datetime.fromisoformat(cell)
    except ValueError:
        raise BadRow(f"date: wanted ISO 8601, such as 2021-04-30; got {cell!r}") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return math.floor(when.timestamp())


def _number(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRow(f"{name}: wanted a number; got {cell!r}")
    return value


def _weight(cell: str) -> float:
    value = _number("weight", cell)
    if value < 0:
        raise BadRow(f"weight: wanted 0 or more; got {cell!r}")
    return value


def _split(cell: str) -> int:
    name = cell.lower()
    name = _SPLIT_NAMES.get(name, name)
    if name not in SPLITS:
        raise BadRow(f"split: wanted train, valid (val) or test; got {cell!r}")
    return SPLITS.index(name)
