"""The store that a command line names."""

import pathlib

from mmrec_tf.errors import ConfigError
from serving.gateway.store.drained_log import DrainedLog
from serving.gateway.store.sqlite import SqliteStore
from serving.gateway.store.store import Store

SYNCHRONOUS = ("full", "normal")


def read_state(state: str) -> str:
    """A state as it was named, or as the file says that was: `@FILE`, as a URL may hold a password.

    Raises:
      ConfigError: when that file cannot be read.
    """
    if not state.startswith("@"):
        return state
    try:
        return pathlib.Path(state[1:]).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--state: {state[1:]} cannot be read: {error}.") from error


def is_redis(state: str) -> bool:
    """Whether a state is in Redis."""
    return read_state(state).startswith(("redis://", "rediss://", "unix://"))


def require_state(state: str) -> None:
    """Refuses a state that is not there, where it is to be read: it would be made, and be empty.

    Raises:
      ConfigError: for a file that does not exist.
    """
    path = read_state(state)
    if "://" not in path and not pathlib.Path(path).is_file():
        raise ConfigError(f"--state: wanted the state of a gateway; there is no file {path}.")


def open_store(state: str, *, synchronous: str = "full", log: str | None = None) -> Store:
    """A store, not open yet.

    Args:
      state: the path of a SQLite file, the URL of a Redis, or `@` and a file that holds either.
      synchronous: as for `SqliteStore`.
      log: the file that the log of a Redis is moved to; None where nothing was.

    Raises:
      ConfigError: for a URL of something else, or a log beside a SQLite file.
    """
    state = read_state(state)
    if is_redis(state):
        from serving.gateway.store.redis import RedisStore

        return RedisStore(state, log=None if log is None else DrainedLog(log))
    if log is not None:
        raise ConfigError("--log: has no effect beside a SQLite state, whose log is in that file.")
    if "://" in state:
        raise ConfigError(
            f"--state: wanted a file, or redis://HOST:PORT/0; got {state.partition('://')[0]}://."
        )
    return SqliteStore(state, synchronous=synchronous)
