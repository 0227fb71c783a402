"""A gateway, put together: what the routes ask."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence

from serving.gateway.events import Events
from serving.gateway.fresh.intake import Intake
from serving.gateway.fresh.pool import FreshPool
from serving.gateway.http.metrics import Metrics
from serving.gateway.http.rates import Rates
from serving.gateway.lists.recommending import Recommending
from serving.gateway.lists.requests import now_ms
from serving.gateway.models.servers import MakeClient, Servers
from serving.gateway.settings import Settings
from serving.gateway.spool import Spool
from serving.gateway.store.store import Store, StoreError

_HOUSEKEEPING_SECONDS = 3600.0
_DAY_MS = 24 * 3600 * 1000
_log = logging.getLogger("gateway")


class Gateway:
    """All parts of one gateway.

    Attributes:
      settings, store, metrics: as given.
      modalities: names in the order of weights; empty where not known.
      remains_in: what still holds an erased user, such as the dataset that was trained on.
      servers, pool, intake, recommending, events, rates: there once it is open.
      ready: whether it takes requests.
    """

    def __init__(
        self,
        store: Store,
        make_client: MakeClient,
        settings: Settings,
        *,
        spool_path: str | None = None,
        modalities: Sequence[str] = (),
        remains_in: Sequence[str] = (),
        rng: random.Random | None = None,
    ):
        """Describes it; `open` connects.

        Args:
          store: Store, not open yet.
          make_client: MakeClient.
          settings: Settings.
          spool_path: of a file for events while the store is out of reach; None for none.
          modalities: in the order of the model card.
          remains_in: as above.
          rng: of the exploration slot.
        """
        self.settings, self.store = settings, store
        self.modalities, self.remains_in = list(modalities), list(remains_in)
        self.metrics = Metrics()
        self._make_client, self._rng = make_client, rng
        self._spool = None if spool_path is None else Spool(spool_path, store)
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

    async def open(self) -> None:
        """Opens the store and the channels; called in the event loop that serves."""
        settings = self.settings
        await self.store.open()
        if self._spool is not None:
            await self._spool.open()
        self.servers = Servers(
            self._make_client,
            settings.arms,
            deadline_seconds=settings.deadline_seconds,
            search_seconds=settings.search_seconds,
            observe=self.metrics.asked,
        )
        self.pool = FreshPool(self.store)
        self.intake = Intake(
            self.store, self.servers, self.pool, wait_seconds=settings.encode_seconds
        )
        self.recommending = Recommending(
            self.store,
            self.servers,
            self.pool,
            settings,
            on_version=self.intake.version_seen,
            rng=self._rng,
        )
        of_user = Rates(settings.events_per_second, 20 * settings.events_per_second)
        self.rates = Rates(settings.requests_per_second, 2 * settings.requests_per_second)
        self.events = Events(
            self.store,
            of_user,
            spool=self._spool,
            metrics=self.metrics,
            on_liked=self.recommending.ahead,
        )
        await self.intake.start()
        await self.recommending.warm_up()
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._keep_house()))
        self.ready = True

    async def close(self) -> None:
        """Lets go of everything, after the last request was answered."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.intake.close()
        await self.recommending.close()
        await self.servers.close()
        if self._spool is not None:
            await self._spool.close()
        await self.store.close()

    async def erase(self, user: str) -> None:
        """Forgets a user."""
        await self.store.erase(user, now_ms())

    async def metrics_text(self) -> bytes:
        """What Prometheus is shown."""
        return self.metrics.text(
            spooled=0 if self._spool is None else await self._spool.waiting(),
            fresh=len(self.pool.fresh),
            waiting=self.intake.waiting,
            broken=len(self.servers.open_breakers()),
        )

    async def _keep_house(self) -> None:
        while True:
            if self.settings.list_days:
                before = now_ms() - int(self.settings.list_days * _DAY_MS)
                with contextlib.suppress(StoreError):
                    if count := await self.store.expire_lists(before):
                        _log.info("old lists forgotten", extra={"count": count})
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
