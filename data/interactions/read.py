"""The interactions table: who met what, when, how much they liked it, and in which split."""

import array
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.interactions import times
from data.interactions.splits import Events
from data.tables.ids import identifier
from data.tables.rows import BadRow, Row
from data.tables.scale import LARGEST
from data.tables.table import Skipped, Table, complete
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records.progress import show_progress
from mmrec_tf.schema import SPLITS

# Of a list that people look through; what is beyond is something else.
_LARGEST_POSITION = 9_999
_SPLIT_NAMES = {"val": "valid", "validation": "valid"}
# So many rows are parsed together: column by column, each distinct cell once. More would not fit
# into the processor's cache, and take longer.
_BATCH = 256


@dataclass(frozen=True)
class InteractionColumns:
    """The columns of the interactions table; None takes the default where the table has it.

    The defaults are `user`, `item`, `timestamp` (seconds since 1970 UTC), else `date` (ISO 8601,
    UTC unless it says otherwise), `rating`, `weight`, `event` (its type), `position` (in the list
    that the item was shown in, from 0; empty where unknown) and `split`.
    """

    user: str | None = None
    item: str | None = None
    timestamp: str | None = None
    date: str | None = None
    rating: str | None = None
    weight: str | None = None
    event: str | None = None
    position: str | None = None
    split: str | None = None


def read_interactions(
    table: Table,
    columns: InteractionColumns,
    *,
    users: dict[str, int],
    items: dict[str, int],
    given: bool,
    skipped: Skipped,
    event_weights: Mapping[str, float] | None = None,
) -> Events:
    """Reads the whole table.

    Args:
      table: the interactions.
      columns: where to find what.
      users: numbers by id; users seen for the first time are added.
      items: numbers by id; items seen for the first time are added.
      given: read the split, too; otherwise all is train.
      skipped: what to do with bad rows.
      event_weights: by type of event, what it counts for; a row of another type is bad. None or
        empty: types are not read.

    Returns:
      One row for each row of the table, in its order.

    Raises:
      ConfigError: when the table lacks a column.
      DatasetError: for a bad row, unless such rows are skipped.
    """
    user_column = table.required_column(columns.user, "user")
    item_column = table.required_column(columns.item, "item")
    fields = find_fields(table, columns, given=given, event_weights=event_weights)
    # Arrays rather than lists: a hundred million rows are 25 bytes each, not 300.
    user, item = array.array("i"), array.array("i")

    def add(rows: list[Row]) -> None:
        try:
            for row in rows:
                complete(row, table.columns)
            cells = [row.cells for row in rows]
            user_ids = _ids(cells, user_column, "user")
            item_ids = _ids(cells, item_column, "item")
            values = [_values(cells, field) for field in fields.values()]
        except BadRow as error:
            if len(rows) > 1:
                # Halves, and halves of halves, until the bad row stands alone.
                add(rows[: len(rows) // 2])
                add(rows[len(rows) // 2 :])
            else:
                skipped.add("interactions", rows[0], str(error))
            return
        user.extend(_numbers(user_ids, users))
        item.extend(_numbers(item_ids, items))
        for field, parsed in zip(fields.values(), values, strict=True):
            field.values.extend(parsed)

    with show_progress(desc="interactions", unit="row") as progress:
        for rows in _batches(table):
            add(rows)
            progress.update(len(rows))

    def column(name: str, dtype: type) -> NDArray[Any] | None:
        return np.asarray(fields[name].values, dtype) if name in fields else None

    micros, split = column("timestamp", np.int64), column("split", np.int8)
    seconds, fraction = np.zeros([len(user)], np.int64), None
    if micros is not None:
        seconds, fraction = np.divmod(micros, times.MICROSECONDS)
    event, number = column("event", np.int8), len(event_types(event_weights or {}))
    return Events(
        user=np.asarray(user, np.int32),
        item=np.asarray(item, np.int32),
        timestamp=seconds,
        rating=column("rating", np.float32),
        weight=column("weight", np.float32),
        split=np.zeros([len(user)], np.int8) if split is None else split,
        event_weight=column("event_weight", np.float32),
        events=None if event is None else event[:, None] == np.arange(number, dtype=np.int8),
        position=column("position", np.int32),
        fraction=fraction.astype(np.int32) if fraction is not None and fraction.any() else None,
    )


def event_types(event_weights: Mapping[str, float]) -> tuple[str, ...]:
    """The types of event that count, in the order of the weights: a weight of 0 drops a type."""
    return tuple(name for name, weight in event_weights.items() if weight > 0)


class _Field(NamedTuple):
    """A column beside the ids: how a cell of it is parsed, and what was read so far."""

    column: str
    parse: Callable[[str], float]
    values: "array.array[Any]"


def find_fields(
    table: Table,
    columns: InteractionColumns,
    *,
    given: bool,
    event_weights: Mapping[str, float] | None,
) -> dict[str, _Field]:
    """The columns to read by the names of `Events`, in the order in which they are checked.

    Raises:
      ConfigError: when the table lacks one.
    """
    for name, default in ((columns.user, "user"), (columns.item, "item")):
        table.required_column(name, default)
    fields = {}
    seconds = table.column(columns.timestamp, "timestamp") if columns.date is None else None
    date = table.column(columns.date, "date") if seconds is None else None
    if seconds is not None:
        fields["timestamp"] = _Field(seconds, times.parse_seconds, array.array("q"))
    elif date is not None:
        fields["timestamp"] = _Field(date, times.parse_date, array.array("q"))
    rating = table.column(columns.rating, "rating")
    if rating is not None:
        fields["rating"] = _Field(rating, functools.partial(_number, "rating"), array.array("f"))
    weight = table.column(columns.weight, "weight")
    if weight is not None:
        fields["weight"] = _Field(weight, _weight, array.array("f"))
    if event_weights:
        event = table.required_column(columns.event, "event")
        parse = functools.partial(_event_weight, event_weights)
        fields["event_weight"] = _Field(event, parse, array.array("f"))
        types = {name: number for number, name in enumerate(event_types(event_weights))}
        # Of others the interactions are dropped.
        fields["event"] = _Field(event, lambda cell: types.get(cell, -1), array.array("b"))
    elif columns.event is not None:
        raise ConfigError(
            f"event column {columns.event!r}: wanted event weights beside it; got none. Say what "
            "each type counts for with --event-weights, or leave the column out."
        )
    position = table.column(columns.position, "position")
    if position is not None:
        fields["position"] = _Field(position, _position, array.array("i"))
    if given:
        split = table.required_column(columns.split, "split")
        fields["split"] = _Field(split, _split, array.array("b"))
    return fields


def _batches(table: Table) -> Iterator[list[Row]]:
    rows = iter(table)
    batch: list[Row] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except DatasetError:
        # A row before the damage may be bad, and is then the first thing to mend.
        yield batch
        raise
    if batch:
        yield batch


def _ids(cells: list[dict[str, str]], column: str, who: str) -> list[str]:
    ids = [row[column] for row in cells]
    # One of unseen marks alone is none either.
    if "" in ids or any(not name.isascii() and not identifier(name) for name in ids):
        raise BadRow(f"no {who} id")
    return ids


def _numbers(ids: list[str], known: dict[str, int]) -> list[int]:
    """The numbers of ids, new ones for those seen for the first time."""
    found = []
    for name in ids:
        number = known.get(name)
        # Known ones are spelled as they should be; so most need no second look.
        if number is None:
            number = known.setdefault(identifier(name), len(known))
        found.append(number)
    return found


def _values(cells: list[dict[str, str]], field: _Field) -> list[float]:
    texts = [row[field.column] for row in cells]
    parsed = {text: field.parse(text) for text in set(texts)}
    return [parsed[text] for text in texts]


def _number(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    # As it is stored; what no float32 holds would be infinite.
    if not abs(value) <= LARGEST:
        raise BadRow(f"{name}: wanted a number; got {cell!r}")
    return value


def _weight(cell: str) -> float:
    value = _number("weight", cell)
    if value < 0:
        raise BadRow(f"weight: wanted 0 or more; got {cell!r}")
    return value


def _event_weight(weights: Mapping[str, float], cell: str) -> float:
    if cell not in weights:
        raise BadRow(
            f"event: wanted a type that the event weights list ({', '.join(weights)}; a weight of "
            f"0 would drop it); got {cell!r}"
        )
    return weights[cell]


def _position(cell: str) -> int:
    if not cell:
        return -1
    value = _number("position", cell)
    # Beside empty cells some programs write a whole number as "3.0".
    if not (value.is_integer() and 0 <= value <= _LARGEST_POSITION):
        raise BadRow(
            f"position: wanted a whole number from 0 to {_LARGEST_POSITION}, or nothing; got "
            f"{cell!r}"
        )
    return int(value)


def _split(cell: str) -> int:
    name = cell.lower()
    name = _SPLIT_NAMES.get(name, name)
    if name not in SPLITS:
        raise BadRow(f"split: wanted train, valid (val) or test; got {cell!r}")
    return SPLITS.index(name)
