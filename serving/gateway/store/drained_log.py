"""A file of events that were moved out of a Redis, whose memory they would fill."""

import os
import pathlib
import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from mmrec_tf.errors import ConfigError
from serving.gateway.store.records import Event, user_hash
from serving.gateway.store.store import StoreError

_TABLES = """
CREATE TABLE IF NOT EXISTS drained (
  sequence INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  user TEXT NOT NULL,
  time INTEGER NOT NULL,
  content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS drained_user ON drained (user);
"""


class DrainedLog:
    """The older part of a log, in one SQLite file, which one process at a time writes.

    An event has the place that it had in the log: what is moved a second time, as the first time
    was broken off, is there once.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Describes it.

        Args:
          path: of the file, made by `open` where it is missing.
        """
        self._path = pathlib.Path(path)

    def open(self) -> None:
        """Opens it; raises ConfigError for a file that is something else."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(self._path)
            self._file.execute("PRAGMA journal_mode = WAL")
            # What is in here is nowhere else a moment later.
            self._file.execute("PRAGMA synchronous = full")
            self._file.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"--log {self._path}: wanted a log of a gateway; {error}.") from error

    def close(self) -> None:
        """Closes it."""
        self._file.close()

    def last(self) -> int:
        """The place of the newest event in it; 0 for an empty one."""
        return int(self._file.execute("SELECT MAX(sequence) FROM drained").fetchone()[0] or 0)

    def add(self, events: Sequence[Event]) -> None:
        """Adds events, durably.

        Raises:
          StoreError: when the file cannot be written, or holds other events in these places.
        """
        rows = [
            (one.sequence, one.id, one.user, one.time, msgspec.msgpack.encode(one))
            for one in events
        ]
        there = "SELECT id FROM drained WHERE sequence = ?"
        try:
            with self._file:
                for row in rows:
                    found = self._file.execute(there, row[:1]).fetchone()
                    if found is not None and found[0] != row[1]:
                        raise StoreError(
                            f"{self._path}: place {row[0]} holds the event {found[0]!r}, not "
                            f"{row[1]!r}: is it the log of another state, or was the Redis put "
                            "back to an older one? Name another file."
                        )
                put = "INSERT OR IGNORE INTO drained VALUES (?, ?, ?, ?, ?)"
                self._file.executemany(put, rows)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be written: {error}.") from error

    def events(self, after: int, until: int, most: int) -> list[Event]:
        """As `Store.events`."""
        rows = self._file.execute(
            "SELECT content FROM drained WHERE sequence > ? AND sequence <= ? "
            "ORDER BY sequence LIMIT ?",
            (after, until, most),
        ).fetchall()
        return [msgspec.msgpack.decode(row[0], type=Event) for row in rows]

    def forget(self, stones: Mapping[str, int], salt: str) -> int:
        """Removes what users did before they were erased; returns how many events.

        Args:
          stones: when, in milliseconds since 1970 UTC, by the hash of the user.
          salt: of the hashes.
        """
        users = [row[0] for row in self._file.execute("SELECT DISTINCT user FROM drained")]
        gone = [
            (user, stones[stone]) for user in users if (stone := user_hash(user, salt)) in stones
        ]
        with self._file:
            return sum(
                self._file.execute("DELETE FROM drained WHERE user = ? AND time <= ?", one).rowcount
                for one in gone
            )
