"""A store that is out of reach, and servers that do not answer."""

import asyncio

from support import asgi

from serving.gateway.http.app import build_app
from serving.gateway.http.keys import Keys
from serving.gateway.http.rates import Rates
from serving.gateway.models.breaker import Breaker
from serving.gateway.service import Gateway
from serving.gateway.settings import Settings
from serving.gateway.spool import Spool
from serving.gateway.store.records import Event
from serving.gateway.store.sqlite import SqliteStore
from serving.gateway.store.store import StoreError


class Away:
    """A store that is out of reach while it is told to be."""

    def __init__(self, store):
        self.store, self.away = store, False

    def __getattr__(self, name):
        method = getattr(self.store, name)

        async def ask(*arguments, **named):
            if self.away and name != "close":
                raise StoreError("out of reach")
            return await method(*arguments, **named)

        return ask


def events(*numbers):
    return {
        "events": [
            {"id": f"e{n}", "user": "u1", "item": f"i{n:02d}", "type": "click"} for n in numbers
        ]
    }


def run(shop, act, *, spool=None):
    async def whole():
        store = Away(SqliteStore(shop.path, synchronous="normal"))
        gateway = Gateway(store, shop.world.client, Settings(exploration=0.0), spool_path=spool)
        async with asgi.running(build_app(gateway, Keys(None))) as call:
            await shop.seed(store)
            return await act(call, store)

    return asyncio.run(whole())


def test_events_wait_on_disk_and_are_replayed_once(shop, tmp_path):
    async def act(call, store):
        store.away = True
        taken = await call("POST", "/v1/events", json_=events(2, 3))
        again = await call("POST", "/v1/events", json_=events(3))
        ready = await call("GET", "/readyz")
        shown = await call("POST", "/v1/recommend", json_={"user": "u1"})
        store.away = False
        for _ in range(100):
            await asyncio.sleep(0.05)
            log = await store.events(0, 99, 99)
            if len(log) == 2:
                break
        late = await call("POST", "/v1/events", json_=events(2))
        return (
            taken,
            again,
            ready,
            shown,
            [one.id for one in log],
            late.json(),
            await store.history("u1"),
        )

    spool = str(tmp_path / "spool.db")
    taken, again, ready, shown, log, late, history = run(shop, act, spool=spool)
    assert taken.status == again.status == 200 and taken.json()["accepted"] == 2
    assert ready.status == 503
    assert shown.status == 200
    assert shown.json()["degraded"] == ["history", "log", "withdrawn"] and shown.json()["items"]
    assert log == ["e2", "e3"] and late["duplicates"] == 1
    assert history.liked == ["i00", "i01", "i02", "i03"]


def test_without_a_spool_nothing_is_acknowledged(shop):
    async def act(call, store):
        store.away = True
        refused = [
            await call("POST", "/v1/events", json_=events(2)),
            await call("PUT", "/v1/items/n", form={"title": "gull"}),
            await call("DELETE", "/v1/items/i01"),
            await call("DELETE", "/v1/users/u1"),
        ]
        store.away = False
        return refused, await store.events(0, 9, 9)

    refused, log = run(shop, act)
    assert [one.status for one in refused] == [503] * 4 and log == []
    assert all(one.headers["retry-after"] == "1" for one in refused)


def test_a_full_spool_refuses_and_what_waits_outlives_a_restart(tmp_path):
    store = Away(SqliteStore(tmp_path / "state.db", synchronous="normal"))

    def event(number):
        return Event(id=f"e{number}", user="u", item="i", type="click", time=number)

    async def fill():
        await store.open()
        store.away = True
        spool = Spool(tmp_path / "spool.db", store, most=2)
        await spool.open()
        kept = [await spool.keep([event(n)]) for n in range(3)]
        await spool.close()
        return kept

    async def replay():
        store.away = False
        spool = Spool(tmp_path / "spool.db", store, most=2)
        await spool.open()
        for _ in range(100):
            if not await spool.waiting():
                break
            await asyncio.sleep(0.02)
        room = await spool.keep([event(9)])
        await spool.close()
        log = [one.id for one in await store.events(0, 9, 9)]
        await store.close()
        return room, log

    async def both():
        return await fill(), await replay()

    kept, (room, log) = asyncio.run(both())
    assert kept == [True, True, False] and room and log[:2] == ["e0", "e1"]


def test_a_breaker_lets_one_call_through_now_and_then():
    now = [0.0]
    breaker = Breaker(most_failures=2, first_seconds=1.0, longest_seconds=3.0, clock=lambda: now[0])
    for _ in range(2):
        assert breaker.allows() and not breaker.open
        breaker.failed()
    assert breaker.open and not breaker.allows()
    waits = []
    for _ in range(4):
        start = now[0]
        while not breaker.allows():
            now[0] += 0.5
        waits.append(now[0] - start)
        assert not breaker.allows()  # The others wait for what it finds.
        breaker.failed()
    assert waits == [1.0, 2.0, 3.0, 3.0]
    now[0] += 3.0
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.open and breaker.allows() and breaker.allows()


def test_a_bucket_fills_up_again():
    now = [0.0]
    rates = Rates(2.0, 4.0, clock=lambda: now[0])
    assert [rates.allows("a") for _ in range(5)] == [True] * 4 + [False]
    assert rates.allows("b")
    now[0] = 1.0
    assert [rates.allows("a") for _ in range(3)] == [True, True, False]
    assert all(Rates(0, 0).allows("a") for _ in range(9))
