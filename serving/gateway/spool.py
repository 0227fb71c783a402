"""Keeps events on the local disk while the shared store is out of reach."""

import asyncio
import logging
import os
from collections.abc import Sequence

from serving.gateway.store.records import Event
from serving.gateway.store.sqlite import SqliteStore
from serving.gateway.store.store import Store, StoreError

MOST_SPOOLED = 100_000
_BLOCK = 500
_SECONDS = 0.5
_log = logging.getLogger("gateway")


class Spool:
    """A bounded log of events beside a store, replayed by their ids when it is back."""

    def __init__(self, path: str | os.PathLike[str], store: Store, *, most: int = MOST_SPOOLED):
        """Describes it.

        Args:
          path: of a SQLite file.
          store: which the events are for.
          most: events that may wait; with more, `keep` refuses.
        """
        self._local = SqliteStore(path)
        self._store = store
        self._most = most
        self._replayed = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the file; what waits in it is replayed."""
        await self._local.open()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends; what waits stays in the file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._local.close()

    async def waiting(self) -> int:
        """How many events wait."""
        return await self._local.num_events()

    async def keep(self, events: Sequence[Event]) -> bool:
        """Keeps events; False where there is no room for all of them, or no disk."""
        if await self.waiting() + len(events) > self._most:
            return False
        try:
            await self._local.add_events(events)
        except StoreError:
            return False
        return True

    async def replay(self) -> int:
        """Hands on what waits, in order; returns how many events."""
        count = 0
        while events := await self._local.events(self._replayed, 2**62, _BLOCK):
            # Those that were handed on before count as duplicates there.
            await self._store.add_events(events)
            self._replayed = events[-1].sequence
            count += len(events)
        if count:
            await self._local.drop_events(self._replayed)
        return count

    async def _run(self) -> None:
        while True:
            try:
                if count := await self.replay():
                    _log.info("events replayed", extra={"count": count})
            except StoreError:
                pass
            await asyncio.sleep(_SECONDS)
