"""The interactions table: who met what, when, how much they liked it, and in which split."""

import array
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

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
    # Arrays rather than lists: a hundred million rows are 25 bytes each, not 300.
    user, item, timestamp = array.array("i"), array.array("i"), array.array("q")
    rating, weight, split = array.array("f"), array.array("f"), array.array("b")
    for row in tqdm(table, desc="interactions", unit="row", disable=None):
        try:
            parsed = parse(row)
        except BadRow as error:
            skipped.add("interactions", row, str(error))
            continue
        user.append(users.setdefault(parsed.user, len(users)))
        item.append(items.setdefault(parsed.item, len(items)))
        timestamp.append(parsed.timestamp)
        rating.append(parsed.rating)
        weight.append(parsed.weight)
        split.append(parsed.split)
    return Events(
        user=np.asarray(user, np.int32),
        item=np.asarray(item, np.int32),
        timestamp=np.asarray(timestamp, np.int64),
        rating=np.asarray(rating, np.float32) if rated else None,
        weight=np.asarray(weight, np.float32) if weighted else None,
        split=np.asarray(split, np.int8),
    )


class _Parsed(NamedTuple):
    """One row of the table; `split` is a position in `mmrec_tf.schema.SPLITS`."""

    user: str
    item: str
    timestamp: int
    rating: float
    weight: float
    split: int


def _parser(table: Table, columns: InteractionColumns, *, given: bool) -> Callable[[Row], _Parsed]:
    """Finds the columns once, and returns what reads a row of them."""
    user = table.required_column(columns.user, "user")
    item = table.required_column(columns.item, "item")
    seconds = table.column(columns.timestamp, "timestamp") if columns.date is None else None
    date = table.column(columns.date, "date") if seconds is None else None
    rating = table.column(columns.rating, "rating")
    weight = table.column(columns.weight, "weight")
    split = table.required_column(columns.split, "split") if given else None

    def parse(row: Row) -> _Parsed:
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
        return _Parsed(
            user=cells[user],
            item=cells[item],
            timestamp=when,
            rating=1.0 if rating is None else _number("rating", cells[rating]),
            weight=1.0 if weight is None else _weight(cells[weight]),
            split=0 if split is None else _split(cells[split]),
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
