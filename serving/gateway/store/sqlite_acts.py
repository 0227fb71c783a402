"""What the writer of a SQLite store does, each in one transaction."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from serving.gateway.store import sqlite_tables as sql
from serving.gateway.store.records import (
    DISLIKING,
    LIKING,
    MOST_HISTORY,
    Event,
    Item,
    ShownList,
    user_hash,
)


def add_event(connection: sqlite3.Connection, event: Event) -> bool:
    """Logs one event; returns whether it is new."""
    row = msgspec.structs.asdict(event)
    found = connection.execute(
        "INSERT INTO event (id, user, item, type, time, list, position) "
        "VALUES (:id, :user, :item, :type, :time, :list, :position) ON CONFLICT DO NOTHING "
        "RETURNING sequence",
        row,
    ).fetchone()
    if found is None:
        return False
    if event.type in LIKING or event.type in DISLIKING:
        row |= {"liked": int(event.type in LIKING), "most": MOST_HISTORY, "sequence": found[0]}
        connection.execute(sql.REMEMBER, row)
        connection.execute(sql.TRIM, row)
        if row["liked"]:
            connection.execute(sql.COUNT, row)
    return True


def add_list(connection: sqlite3.Connection, shown: ShownList) -> None:
    """As `Store.add_list`."""
    connection.execute(
        "INSERT INTO list (id, user, time, answered, content) VALUES (?, ?, ?, ?, ?)",
        (shown.id, shown.user, shown.time, shown.answered, msgspec.msgpack.encode(shown)),
    )
    count_shown(connection, shown, 0, shown.answered)


def count_shown(connection: sqlite3.Connection, shown: ShownList, start: int, stop: int) -> None:
    """Counts places `start` to `stop` of a list as shown."""
    places = list(enumerate(shown.items))[start:stop]
    connection.executemany(
        "INSERT OR REPLACE INTO shown (list, position, item, slot, propensity) "
        "VALUES (?, ?, ?, ?, ?)",
        [(shown.id, place, one.item, one.slot, one.propensity) for place, one in places],
    )
    connection.executemany(
        "INSERT INTO item_count (item, shown) VALUES (?, 1) "
        "ON CONFLICT (item) DO UPDATE SET shown = shown + 1",
        [(one.item,) for _, one in places],
    )


def one_list(connection: sqlite3.Connection, list_id: str) -> ShownList | None:
    """A list by its id."""
    query = "SELECT sequence, answered, content FROM list WHERE id = ?"
    row = connection.execute(query, (list_id,)).fetchone()
    return None if row is None else list_of(*row)


def list_of(sequence: int, answered: int, content: bytes) -> ShownList:
    """A row as a list."""
    shown = msgspec.msgpack.decode(content, type=ShownList)
    return msgspec.structs.replace(shown, sequence=sequence, answered=answered)


def revise(connection: sqlite3.Connection) -> None:
    """Counts a change of items, embeddings or tombstones."""
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('revision', '1') "
        "ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
    )


def put_item(
    connection: sqlite3.Connection, item: Item, media: Mapping[str, Sequence[bytes]] | None
) -> bool:
    """As `Store.put_item`."""
    there = connection.execute("SELECT 1 FROM item WHERE id = ?", (item.id,)).fetchone()
    _keep_item(connection, item)
    if media is not None:
        connection.execute("DELETE FROM media WHERE item = ?", (item.id,))
        connection.executemany(
            "INSERT INTO media (item, kind, place, data) VALUES (?, ?, ?, ?)",
            [
                (item.id, kind, place, data)
                for kind, files in media.items()
                for place, data in enumerate(files)
            ],
        )
    return there is None


def withdraw(connection: sqlite3.Connection, item_id: str) -> None:
    """As `Store.withdraw`."""
    row = connection.execute("SELECT content FROM item WHERE id = ?", (item_id,)).fetchone()
    item = Item(id=item_id) if row is None else msgspec.msgpack.decode(row[0], type=Item)
    _keep_item(connection, msgspec.structs.replace(item, withdrawn=True))


def _keep_item(connection: sqlite3.Connection, item: Item) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO item (id, state, withdrawn, content) VALUES (?, ?, ?, ?)",
        (item.id, item.state, item.withdrawn, msgspec.msgpack.encode(item)),
    )
    revise(connection)


def erase(connection: sqlite3.Connection, user: str, stone: str, time: int) -> None:
    """Forgets a user; `stone` is what the tombstone holds of the id."""
    # The ids stay, so that a late retry does not bring an erased event back.
    connection.execute(
        "UPDATE event SET user = '', item = '', list = '', type = 'erased', position = -1 "
        "WHERE user = ?",
        (user,),
    )
    lists = "SELECT id FROM list WHERE user = ?"
    connection.execute(f"DELETE FROM shown WHERE list IN ({lists})", (user,))
    connection.execute("DELETE FROM list WHERE user = ?", (user,))
    connection.execute("DELETE FROM history WHERE user = ?", (user,))
    connection.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (stone, time))
    revise(connection)


def seed(
    connection: sqlite3.Connection,
    name: str,
    salt: str,
    histories: Iterable[tuple[str, Sequence[tuple[str, int]]]],
    counts: Mapping[str, int],
) -> bool:
    """As `Store.seed`."""
    done = f"seed {name}"
    if connection.execute("SELECT 1 FROM meta WHERE name = ?", (done,)).fetchone():
        return False
    gone = {row[0] for row in connection.execute("SELECT user FROM erased")}
    for user, met in histories:
        if user_hash(user, salt) not in gone:
            rows = [{"user": user, "item": item, "time": time, "liked": 1} for item, time in met]
            connection.executemany(sql.REMEMBER, rows)
            connection.execute(sql.TRIM, {"user": user, "liked": 1, "most": MOST_HISTORY})
    connection.executemany(
        "INSERT INTO item_count (item, met) VALUES (?, ?) "
        "ON CONFLICT (item) DO UPDATE SET met = met + excluded.met",
        counts.items(),
    )
    connection.execute("INSERT INTO meta (name, value) VALUES (?, '1')", (done,))
    return True
