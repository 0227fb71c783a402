"""The way to a Redis, and what goes wrong on it."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from serving.gateway.store.store import StoreError

_TIMEOUT_SECONDS = 2.0
# A Redis works through one command after another: more connections than this
# only wait in its queue instead of in ours.
_MOST_CONNECTIONS = 16
# Waiting for one of them says that many ask, not that Redis is out of reach.
_QUEUE_SECONDS = 30.0

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Own = TypeVar("Own", bound="RedisConnection")


def reaching(
    method: Callable[Concatenate[Own, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Own, Arguments], Coroutine[Any, Any, Result]]:
    """Turns what goes wrong on the way to Redis into a StoreError."""

    async def reach(self: Own, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        import redis

        try:
            return await method(self, *arguments, **named)
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise StoreError(f"Redis at {self.where} cannot be asked: {error}.") from error

    functools.update_wrapper(reach, method)
    return reach


class RedisConnection:
    """A pool of connections, and the names of keys."""

    def __init__(self, url: str, *, prefix: str = "mmrec:"):
        """Describes it.

        Args:
          url: such as `redis://localhost:6379/0`, or `unix:///run/redis.sock`.
          prefix: of all keys.
        """
        import redis.asyncio

        # Without the password that may stand in it.
        self.where = url.rpartition("@")[2].partition("://")[2] or url.rpartition("@")[2]
        self._prefix = prefix
        # Whoever finds all connections busy waits for one.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST_CONNECTIONS,
            timeout=_QUEUE_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
        )
        self._redis: Any = redis.asyncio.Redis.from_pool(pool)

    def key(self, *parts: object) -> str:
        return self._prefix + ":".join(map(str, parts))
