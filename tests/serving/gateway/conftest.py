"""What the tests of the gateway share: a Redis of their own, where there is one."""

import asyncio
import random
import shutil
import subprocess
import time

import pytest
from support import asgi
from support.gateway_models import DIM, MODALITIES, NUM_ITEMS, WORDS, World, item_id

from serving.gateway.http.app import build_app
from serving.gateway.http.keys import Keys
from serving.gateway.page.routes import page_routes
from serving.gateway.service import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store.records import Item
from serving.gateway.store.sqlite import SqliteStore


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A Redis on a socket in a folder of its own; tests are skipped where none is installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server on the PATH: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    server = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    for _ in range(100):
        if socket.exists():
            break
        time.sleep(0.05)
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)


class Shop:
    """A gateway with models of dictionaries, for one test."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "state.db"
        self.world = World()

    def run(self, act, *, keys=None, seeded=True, page=False, **settings):
        """Runs `act(call, gateway)` on a running gateway."""

        async def whole():
            gateway = self.gateway(**settings)
            app = build_app(gateway, Keys(keys), more=page_routes(gateway) if page else ())
            async with asgi.running(app) as call:
                if seeded:
                    await self.seed(gateway.store)
                return await act(call, gateway)

        return asyncio.run(whole())

    def gateway(self, **settings):
        settings = {"exploration": 0.0, "encode_seconds": 0.5, **settings}
        return Gateway(
            SqliteStore(self.path, synchronous="normal"),
            self.world.client,
            Settings(**settings),
            modalities=MODALITIES,
            remains_in=["the dataset"],
            rng=random.Random(1),
        )

    async def seed(self, store):
        """u1 met an owl (i00) and then a gull (i01); items are popular by their number."""
        if await store.seed(
            "world",
            histories=[("u1", [("i00", 1000), ("i01", 2000)])],
            counts={item_id(n): 100 - n for n in range(NUM_ITEMS)},
        ):
            for number in range(NUM_ITEMS):
                genre = "genre=odd" if number % 2 else "genre=even"
                words = list(WORDS)[number % DIM]
                await store.put_item(
                    Item(id=item_id(number), title=f"{words} {number}", categories=[genre])
                )


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


async def until(condition, *, seconds=5.0):
    """Waits until a coroutine function says yes."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.02)
