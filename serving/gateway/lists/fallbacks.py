"""Lists for when the models do not answer: the user's last one, and what is popular."""

import itertools
import time
from collections.abc import Collection

import msgspec

from serving.gateway.lists.merging import fits
from serving.gateway.store.records import Shown
from serving.gateway.store.store import Store, StoreError

# For so long the popular items are taken from memory.
_FRESH_SECONDS = 5.0
_MOST = 500


class Fallbacks:
    """Makes lists from the store alone; without that, from what it last knew to be popular."""

    def __init__(self, store: Store):
        """Describes them."""
        self._store = store
        self._popular: list[Shown] = []
        self._read_at = -_FRESH_SECONDS

    async def items(
        self,
        user: str,
        *,
        hidden: Collection[str],
        allow: Collection[str],
        deny: Collection[str],
        most: int,
    ) -> list[Shown]:
        """At most so many items: of the user's last list, then popular ones."""
        last = await self._last(user)
        # Of items that have to fit, all come into question.
        wanted = _MOST + len(last) if allow or deny else most
        found: dict[str, Shown] = {}
        for one in itertools.chain(last, await self.popular()):
            if len(found) >= wanted:
                break
            if one.item not in hidden:
                found.setdefault(one.item, one)
        chosen = list(found.values())
        if allow or deny:
            chosen = await self._fitting(chosen, allow, deny)
        return chosen[:most]

    async def popular(self) -> list[Shown]:
        """Popular items, a few seconds old at most where the store answers."""
        if time.monotonic() - self._read_at >= _FRESH_SECONDS:
            try:
                popular = await self._store.popular(_MOST)
                self._popular = [Shown(item=item, slot="popular") for item, _ in popular]
                self._read_at = time.monotonic()
            except StoreError:
                pass
        return self._popular

    async def _last(self, user: str) -> list[Shown]:
        try:
            last = await self._store.last_list(user) if user else None
        except StoreError:
            return []
        blank = {"slot": "last", "score": None, "probability": None, "propensity": None}
        return [msgspec.structs.replace(one, **blank) for one in (last.items if last else [])]

    async def _fitting(
        self, chosen: list[Shown], allow: Collection[str], deny: Collection[str]
    ) -> list[Shown]:
        try:
            items = await self._store.items_of([one.item for one in chosen])
        except StoreError:
            return []  # What nothing is known of cannot be said to fit.
        return [one for one in chosen if fits(items.get(one.item), allow, deny)]
