"""The store that a command line names."""

from mmrec_tf.errors import ConfigError
from serving.gateway.store.sqlite import SqliteStore
from serving.gateway.store.store import Store

SYNCHRONOUS = ("full", "normal")


def is_redis(state: str) -> bool:
    """Whether a state is in Redis."""
    return state.startswith(("redis://", "rediss://", "unix://"))


def open_store(state: str, *, synchronous: str = "full") -> Store:
    """A store, not open yet.

    Args:
      state: the path of a SQLite file, or the URL of a Redis.
      synchronous: as for `SqliteStore`.

    Raises:
      ConfigError: for a URL of something else.
    """
    if is_redis(state):
        from serving.gateway.store.redis import RedisStore

        return RedisStore(state)
    if "://" in state:
        raise ConfigError(f"--state: wanted a file, or redis://HOST:PORT/0; got {state!r}.")
    return SqliteStore(state, synchronous=synchronous)
