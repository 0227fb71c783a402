"""`python -m serving.gateway drain`: moves the log of a Redis to a file."""

import argparse
import asyncio

from mmrec_tf.errors import ConfigError
from serving.gateway.store.redis import RedisStore
from serving.gateway.stores import open_store

# So long a Redis with `appendfsync everysec` may take to have on its disk what it answered for.
SETTLED_SECONDS = 2.0
_BLOCK = 1000


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway drain",
        description="Moves the log of events out of the memory of a Redis into a file, which "
        "`export`, `estimate` and `night` then read by --log. Gateways go on meanwhile.",
    )
    made.add_argument("--state", required=True, help="of a Redis, as of the gateway")
    made.add_argument("--log", required=True, metavar="FILE", help="where events are moved to")
    return made


def run(options: argparse.Namespace) -> int:
    """Moves what is there now; prints how many events, and up to which place."""
    moved, until, forgotten = asyncio.run(_drain(options.state, options.log))
    print(f"moved\t{moved}\nuntil\t{until}\nforgotten\t{forgotten}")
    return 0


async def _drain(state: str, log: str) -> tuple[int, int, int]:
    store = open_store(state, log=log)
    if not isinstance(store, RedisStore):
        raise ConfigError("--state: wanted a Redis; a SQLite state is a file already.")
    await store.open()
    try:
        return await drain(store)
    finally:
        await store.close()


async def drain(
    store: RedisStore, *, settled_seconds: float = SETTLED_SECONDS
) -> tuple[int, int, int]:
    """Moves events from a Redis to its log file, each first to the file and then out of Redis.

    Args:
      store: RedisStore with a log, open.
      settled_seconds: for how long events are left where they are: were one moved that the Redis
        then loses in a power failure, another would get its place.

    Returns:
      How many were moved, the place of the last one, and how many of erased users were removed
      from the file.
    """
    if store.log is None:
        raise ConfigError("--log: wanted a file to move events to.")
    until = await store.last_sequence()
    await asyncio.sleep(settled_seconds)
    moved, after = 0, await store.drained()
    while block := await store.events_here(after, until, _BLOCK):
        store.log.add(block)
        await store.drop_events(block)
        moved, after = moved + len(block), block[-1].sequence
    stones = {stone.user: stone.time for stone in await store.tombstones()}
    return moved, after, store.log.forget(stones, await store.salt())
