"""What a gateway knows of a user when a list is made."""

from typing import NamedTuple

from serving.gateway.lists.requests import Wish
from serving.gateway.store.store import Store, StoreError


class Known(NamedTuple):
    """Of a user.

    Attributes:
      user: the id to ask the models by; "" for a user who was erased, whom an older version may
        still know.
      history: items, oldest first.
      hidden: items that must not be shown: met, not wanted, or excluded by the request.
      degraded: reasons why this is not all.
    """

    user: str
    history: list[str]
    hidden: frozenset[str]
    degraded: list[str]


async def read_known(store: Store, wish: Wish) -> Known:
    """Reads it; without the store a list is made without a history."""
    liked, disliked, erased, degraded = list(wish.history or ()), list[str](), False, list[str]()
    if wish.user:
        try:
            erased = await store.erased(wish.user)
            stored = await store.history(wish.user)
        except StoreError:
            degraded.append("history")
        else:
            disliked = stored.disliked
            liked = stored.liked if wish.history is None else liked
    hidden = frozenset([*liked, *disliked, *wish.exclude])
    return Known("" if erased else wish.user, liked, hidden, degraded)
