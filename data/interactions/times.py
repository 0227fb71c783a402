"""When interactions were: cells read to the microsecond, and what looks like no time."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.tables.likely import is_date, looks_compact
from data.tables.rows import BadRow

MICROSECONDS = 1_000_000
# Years as far as 5138; what is beyond was meant as milliseconds.
LATEST_SECONDS = 100_000_000_000
# 1980: no log of interactions is older.
_EARLIEST_SECONDS = 315_532_800
# Dates without hyphens, read as numbers.
_COMPACT = (19_000_101, 20_991_231)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_seconds(cell: str) -> int:
    """Microseconds since 1970 from seconds.

    Raises:
      BadRow: when it is something else.
    """
    micros = 0
    try:
        value = int(cell)
    except ValueError:
        try:
            number = float(cell)
            value = math.floor(number)
            micros = min(round((number - value) * MICROSECONDS), MICROSECONDS - 1)
        except (ValueError, OverflowError):
            way = "; it is a date: name its column with --date-column" if is_date(cell) else ""
            raise BadRow(f"timestamp: wanted seconds since 1970; got {cell!r}{way}") from None
    if abs(value) >= LATEST_SECONDS:
        raise BadRow(f"timestamp: wanted seconds since 1970, not milliseconds; got {cell!r}")
    return value * MICROSECONDS + micros


def parse_date(cell: str) -> int:
    """Microseconds since 1970 from a date in ISO 8601, UTC unless it says otherwise.

    Raises:
      BadRow: when it is something else.
    """
    try:
        when = datetime.fromisoformat(cell)
    except ValueError:
        raise BadRow(f"date: wanted ISO 8601, such as 2021-04-30; got {cell!r}") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - _EPOCH) // timedelta(microseconds=1)


def doubtful(seconds: NDArray[Any], column: str) -> list[str]:
    """What to warn of where times look like none.

    Args:
      seconds: <int64>[interaction], seconds since 1970 UTC.
      column: what they were read from.
    """
    zeros = int((seconds == 0).sum())
    if not len(seconds) or zeros == len(seconds):
        return []
    found = []
    if zeros:
        found.append(
            f"{column}: {zeros} of {len(seconds)} times are 0, the start of 1970, as where a time "
            "is missing; such interactions count as the oldest."
        )
    first, last = int(seconds.min()), int(seconds.max())
    if (
        _COMPACT[0] <= seconds[seconds != 0].min()
        and last <= _COMPACT[1]
        and all(looks_compact(str(value)) for value in np.unique(seconds[seconds != 0]).tolist())
    ):
        found.append(
            f"{column}: all times look like dates without hyphens, such as {first}, and were read "
            "as seconds: their order is right, but gaps, hours and weekdays are not. Read them "
            f"with --date-column {column}."
        )
    elif last < _EARLIEST_SECONDS:
        found.append(
            f"{column}: all times lie from {_day(first)} to {_day(last)}; are they seconds since "
            "1970?"
        )
    return found


def _day(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=max(seconds, -60_000_000_000))).date().isoformat()
