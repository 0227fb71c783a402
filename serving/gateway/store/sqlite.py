"""The default store: one SQLite file, for one gateway."""

import os
import pathlib
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import TypeVar

import msgspec

from mmrec_tf.errors import ConfigError
from serving.gateway.store import sqlite_acts as acts
from serving.gateway.store import sqlite_tables as sql
from serving.gateway.store.records import (
    Embedding,
    Event,
    History,
    Item,
    ShownList,
    Tombstone,
    user_hash,
)
from serving.gateway.store.writer import Writer

Result = TypeVar("Result")
_EVENT = "SELECT id, user, item, type, time, list, position, sequence FROM event"
# Lists that wait for the writer; with more, whoever asks for one waits, too.
_MOST_WAITING = 256
# How long it may take to learn of what another process changed in the file.
_OTHERS_SECONDS = 1.0
# SQLite takes so many values in one statement at least.
_MOST_VALUES = 900


class SqliteStore:
    """A `Store` in one file, in WAL mode.

    Reads happen in the caller's thread: each is a look-up by index of some microseconds, and in
    WAL mode the writer is never in the way. Writes go to one thread (`Writer`).
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "full"):
        """Describes it.

        Args:
          path: of the file, which is made where it is missing.
          synchronous: "full" for commits that a power failure does not undo; "normal" for those
            that outlive the end of the process only, which are quicker.

        Raises:
          ConfigError: for another `synchronous`.
        """
        if synchronous not in ("full", "normal"):
            raise ConfigError(f"synchronous: wanted full or normal; got {synchronous!r}.")
        self._path = pathlib.Path(path)
        self._synchronous = synchronous
        self._writer = Writer(self._connect)
        self._salt = ""
        # Lists on their way to the file, by id; and whether the last one got there.
        self._waiting: dict[str, ShownList] = {}
        # Read again after a change of this process, and now and then for those of others.
        self._revision, self._stones, self._read_at = 0, frozenset[str](), -_OTHERS_SECONDS
        self._read_once = False
        self._writable = True

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    async def open(self) -> None:
        """As `Store.open`; raises ConfigError for a file that is not a state."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._read = self._connect()
            self._read.executescript(sql.TABLES)
            with self._read:
                put = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING"
                self._read.execute(put, ("format", str(sql.FORMAT)))
                self._read.execute(put, ("salt", secrets.token_hex(16)))
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self._path}: wanted a state of the gateway; {error}.") from error
        found = self._meta("format")
        if found != str(sql.FORMAT):
            raise ConfigError(
                f"{self._path}: wanted a state of format {sql.FORMAT}; got {found}. Use the "
                "version of mmrec_tf that wrote it, or another file."
            )
        self._salt = self._meta("salt") or ""
        self._writer.start()

    async def close(self) -> None:
        self._writer.close()
        self._read.close()

    def _meta(self, name: str) -> str | None:
        row = self._read.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    async def add_events(self, events: Sequence[Event]) -> list[bool]:
        return await self._writer.do(
            lambda connection: [acts.add_event(connection, e) for e in events]
        )

    async def history(self, user: str) -> History:
        rows = self._read.execute(
            "SELECT item, liked FROM history WHERE user = ? ORDER BY time, item", (user,)
        ).fetchall()
        return History(
            [item for item, liked in rows if liked], [item for item, liked in rows if not liked]
        )

    async def add_list(self, shown: ShownList) -> None:
        await self._writer.do(lambda connection: acts.add_list(connection, shown))
        self._writable = True

    async def keep_list(self, shown: ShownList) -> None:
        if len(self._waiting) >= _MOST_WAITING or not self._writable:
            return await self.add_list(shown)

        def done(error: Exception | None) -> None:
            self._waiting.pop(shown.id, None)
            # Of the next one it can be said that it is not kept.
            self._writable = error is None

        self._writer.do_later(lambda connection: acts.add_list(connection, shown), done)
        self._waiting[shown.id] = shown

    async def answer_more(self, list_id: str, answered: int) -> None:
        def act(connection: sqlite3.Connection) -> None:
            shown = acts.one_list(connection, list_id)
            if shown is not None and answered > shown.answered:
                connection.execute("UPDATE list SET answered = ? WHERE id = ?", (answered, list_id))
                acts.count_shown(connection, shown, shown.answered, answered)

        await self._writer.do(act)

    async def find_list(self, list_id: str) -> ShownList | None:
        return self._waiting.get(list_id) or acts.one_list(self._read, list_id)

    async def last_list(self, user: str) -> ShownList | None:
        for shown in reversed(self._waiting.values()):
            if shown.user == user:
                return shown
        row = self._read.execute(
            "SELECT sequence, answered, content FROM list WHERE user = ? "
            "ORDER BY sequence DESC LIMIT 1",
            (user,),
        ).fetchone()
        return None if row is None else acts.list_of(*row)

    async def lists(self, after: int, most: int) -> Sequence[ShownList]:
        rows = self._read.execute(
            "SELECT sequence, answered, content FROM list WHERE sequence > ? "
            "ORDER BY sequence LIMIT ?",
            (after, most),
        ).fetchall()
        return [acts.list_of(*row) for row in rows]

    async def expire_lists(self, before: int) -> int:
        def act(connection: sqlite3.Connection) -> int:
            old = "SELECT id FROM list WHERE time < ?"
            connection.execute(f"DELETE FROM shown WHERE list IN ({old})", (before,))
            return connection.execute("DELETE FROM list WHERE time < ?", (before,)).rowcount

        return await self._writer.do(act)

    async def popular(self, most: int) -> Sequence[tuple[str, int]]:
        return self._read.execute(
            "SELECT item, met FROM item_count WHERE met > 0 ORDER BY met DESC, item LIMIT ?",
            (most,),
        ).fetchall()

    async def shown_counts(self, items: Collection[str]) -> Mapping[str, int]:
        ids = tuple(items)[:_MOST_VALUES]
        marks = ",".join("?" * len(ids))
        query = f"SELECT item, shown FROM item_count WHERE item IN ({marks})"
        return dict(self._read.execute(query, ids).fetchall())

    async def put_item(
        self, item: Item, media: Mapping[str, Sequence[bytes]] | None = None
    ) -> bool:
        return await self._revise(lambda connection: acts.put_item(connection, item, media))

    async def item(self, item_id: str) -> Item | None:
        row = self._read.execute("SELECT content FROM item WHERE id = ?", (item_id,)).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=Item)

    async def items_of(self, item_ids: Collection[str]) -> Mapping[str, Item]:
        ids = tuple(item_ids)[:_MOST_VALUES]
        marks = ",".join("?" * len(ids))
        found = self._items(f"SELECT content FROM item WHERE id IN ({marks})", ids)
        return {item.id: item for item in found}

    async def items(self, after: str, most: int) -> Sequence[Item]:
        query = "SELECT content FROM item WHERE id > ? ORDER BY id LIMIT ?"
        return self._items(query, (after, most))

    def _items(self, query: str, values: tuple[object, ...]) -> Sequence[Item]:
        rows = self._read.execute(query, values).fetchall()
        return [msgspec.msgpack.decode(row[0], type=Item) for row in rows]

    async def media(self, item_id: str, kind: str, place: int) -> bytes | None:
        row = self._read.execute(
            "SELECT data FROM media WHERE item = ? AND kind = ? AND place = ?",
            (item_id, kind, place),
        ).fetchone()
        return None if row is None else bytes(row[0])

    async def withdraw(self, item_id: str) -> None:
        await self._revise(lambda connection: acts.withdraw(connection, item_id))

    async def withdrawn(self) -> Collection[str]:
        rows = self._read.execute("SELECT id FROM item WHERE withdrawn = 1").fetchall()
        return {row[0] for row in rows}

    async def fresh_items(self) -> Sequence[Item]:
        return self._items(
            "SELECT content FROM item WHERE state IN ('pending', 'live') AND withdrawn = 0 "
            "ORDER BY id",
            (),
        )

    async def revision(self) -> int:
        self._look()
        return self._revision

    def _look(self) -> None:
        """Reads what every list asks for, where it may have changed."""
        if monotonic() - self._read_at < _OTHERS_SECONDS:
            return
        self._read_at = monotonic()
        revision = int(self._meta("revision") or 0)
        if revision != self._revision or not self._read_once:
            rows = self._read.execute("SELECT user FROM erased").fetchall()
            self._stones = frozenset(row[0] for row in rows)
        self._revision, self._read_once = revision, True

    async def _revise(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        """Writes what changes the revision."""

        def done(error: Exception | None) -> None:
            self._read_at = -_OTHERS_SECONDS

        return await self._writer.do(act, done)

    async def put_embeddings(self, embeddings: Sequence[Embedding]) -> None:
        rows = [(one.item, one.version, msgspec.msgpack.encode(one)) for one in embeddings]

        def act(connection: sqlite3.Connection) -> None:
            put = "INSERT OR REPLACE INTO embedding (item, version, content) VALUES (?, ?, ?)"
            connection.executemany(put, rows)
            acts.revise(connection)

        await self._revise(act)

    async def embeddings(self, version: int) -> Sequence[Embedding]:
        rows = self._read.execute(
            "SELECT content FROM embedding WHERE version = ? ORDER BY item", (version,)
        ).fetchall()
        return [msgspec.msgpack.decode(row[0], type=Embedding) for row in rows]

    async def drop_embeddings(self, versions: Collection[int]) -> None:
        rows = [(version,) for version in versions]
        await self._writer.do(
            lambda connection: connection.executemany(
                "DELETE FROM embedding WHERE version = ?", rows
            )
        )

    async def erase(self, user: str, time: int) -> None:
        stone = user_hash(user, self._salt)
        await self._revise(lambda connection: acts.erase(connection, user, stone, time))

    async def erased(self, user: str) -> bool:
        self._look()
        return bool(self._stones) and user_hash(user, self._salt) in self._stones

    async def tombstones(self) -> Sequence[Tombstone]:
        rows = self._read.execute("SELECT user, time FROM erased ORDER BY user").fetchall()
        return [Tombstone(*row) for row in rows]

    async def salt(self) -> str:
        return self._salt

    async def events(self, after: int, until: int, most: int) -> Sequence[Event]:
        rows = self._read.execute(
            f"{_EVENT} WHERE sequence > ? AND sequence <= ? AND type <> 'erased' "
            "ORDER BY sequence LIMIT ?",
            (after, until, most),
        ).fetchall()
        names = Event.__struct_fields__
        return [Event(**dict(zip(names, row, strict=True))) for row in rows]

    async def num_events(self) -> int:
        """How many events are in the log."""
        return int(self._read.execute("SELECT COUNT(*) FROM event").fetchone()[0])

    async def drop_events(self, until: int) -> None:
        """Forgets events with a sequence up to `until`, as a spool does with what it handed on."""
        await self._writer.do(
            lambda connection: connection.execute("DELETE FROM event WHERE sequence <= ?", (until,))
        )

    async def user_counts(self, user: str) -> Mapping[str, int]:
        def act(connection: sqlite3.Connection) -> Mapping[str, int]:
            return {
                f"{table}s": connection.execute(
                    f"SELECT COUNT(*) FROM {table} WHERE user = ?", (user,)
                ).fetchone()[0]
                for table in ("event", "list")
            }

        # By the writer, after the lists that wait for it.
        return await self._writer.do(act)

    async def last_sequence(self) -> int:
        return int(self._read.execute("SELECT MAX(sequence) FROM event").fetchone()[0] or 0)

    async def seeded(self, name: str) -> bool:
        return self._meta(f"seed {name}") is not None

    async def seed(
        self,
        name: str,
        *,
        histories: Iterable[tuple[str, Sequence[tuple[str, int]]]],
        counts: Mapping[str, int],
    ) -> bool:
        return await self._writer.do(
            lambda connection: acts.seed(connection, name, self._salt, histories, counts)
        )
