"""What one list is asked for, as the routes hand it on."""

import secrets
import time
from typing import NamedTuple


class Wish(NamedTuple):
    """Whom a list is for, and what it must and must not hold.

    Attributes:
      user: id; "" for a stranger.
      history: items instead of what is stored, oldest first; None for what is stored.
      k: how many items the first page has.
      allow, deny: categories such as "genre=comedy".
      exclude: further items that must not be shown.
    """

    user: str = ""
    history: tuple[str, ...] | None = None
    k: int = 10
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """An id of a list, which nobody guesses."""
    return secrets.token_urlsafe(16)


def cursor_of(list_id: str, place: int) -> str:
    """The cursor of the page that begins at a place of a list."""
    return f"{list_id}.{place}"


def read_cursor(cursor: str) -> tuple[str, int] | None:
    """The list and the place of a cursor; None for what is no cursor."""
    list_id, dot, place = cursor.rpartition(".")
    if not dot or not place.isascii() or not place.isdigit() or len(place) > 4:
        return None
    return list_id, int(place)
