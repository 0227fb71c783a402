"""One suite for all stores: what a gateway may count on."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys

import msgspec
import pytest

from mmrec_tf.errors import ConfigError
from serving.gateway.store.records import (
    MOST_HISTORY,
    Candidate,
    Embedding,
    Event,
    History,
    Item,
    Shown,
    ShownList,
)
from serving.gateway.store.redis import RedisStore
from serving.gateway.store.sqlite import SqliteStore
from serving.gateway.store.store import StoreError

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "redis"])
def make(request, tmp_path):
    """Makes stores on the same state."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "state.db", synchronous="normal")
    url = request.getfixturevalue("redis_url")
    prefix = f"test{next(_numbers)}:"
    return lambda: RedisStore(url, prefix=prefix)


@pytest.fixture
def on(make):
    """Runs a coroutine function on an open store."""

    def run(act):
        async def whole():
            store = make()
            await store.open()
            try:
                return await act(store)
            finally:
                await store.close()

        return asyncio.run(whole())

    return run


def event(number, *, user="u1", item=None, type="click", time=None, **more):
    return Event(
        id=f"e{number}",
        user=user,
        item=f"i{number}" if item is None else item,
        type=type,
        time=1000 + number if time is None else time,
        **more,
    )


def shown(number, *items, user="u1", answered=2, **more):
    places = [Shown(item=item, score=1.0, probability=0.5) for item in items]
    return ShownList(
        id=f"l{number}", user=user, time=1000 + number, items=places, answered=answered, **more
    )


def test_an_event_counts_once_however_often_it_is_sent(on):
    async def act(store):
        first = await store.add_events([event(1), event(2), event(1)])
        again = await store.add_events([event(2, item="another"), event(3)])
        return first, again, await store.events(0, 99, 99), await store.popular(9)

    first, again, log, popular = on(act)
    assert first == [True, True, False] and again == [False, True]
    assert [(one.id, one.item, one.sequence > 0) for one in log] == [
        ("e1", "i1", True),
        ("e2", "i2", True),
        ("e3", "i3", True),
    ]
    assert popular == [("i1", 1), ("i2", 1), ("i3", 1)]


def test_the_log_is_read_in_order_from_one_place_to_another(on):
    async def act(store):
        await store.add_events([event(n, list="l", position=n) for n in range(6)])
        last = await store.last_sequence()
        return await store.events(1, last - 1, 3), await store.events(last, 99, 9), last

    some, none, last = on(act)
    assert [one.id for one in some] == ["e1", "e2", "e3"] and none == [] and last == 6
    assert some[0] == msgspec.structs.replace(event(1, list="l", position=1), sequence=2)


def test_a_history_is_in_order_of_time_and_what_was_liked_again_moves_to_its_end(on):
    async def act(store):
        await store.add_events([event(1), event(3), event(2)])
        await store.add_events([event(4, item="i1"), event(0, item="i3", time=1)])
        await store.add_events([event(5, item="b", time=2000), event(6, item="a", time=2000)])
        await store.add_events([event(7, type="impression")])
        return await store.history("u1"), await store.history("nobody")

    assert on(act) == (History(["i2", "i3", "i1", "a", "b"], []), History())


def test_what_is_disliked_leaves_the_history_until_it_is_liked_again(on):
    async def act(store):
        await store.add_events([event(1), event(2), event(3, item="i1", type="dislike")])
        first = await store.history("u1")
        # Late news of something that happened before.
        await store.add_events([event(4, item="i1", time=1002)])
        second = await store.history("u1")
        await store.add_events([event(5, item="i1"), event(6, item="i2", type="hide", time=1002)])
        return first, second, await store.history("u1")

    assert on(act) == (
        History(["i2"], ["i1"]),
        History(["i2"], ["i1"]),
        History(["i1"], ["i2"]),
    )


def test_a_history_keeps_the_newest(on):
    async def act(store):
        for start in range(0, MOST_HISTORY + 5, 50):
            await store.add_events([event(n) for n in range(start, start + 50)])
        return (await store.history("u1")).liked

    liked = on(act)
    assert liked == [f"i{n}" for n in range(50, 250)] and len(liked) == MOST_HISTORY


def test_items_clicked_twice_in_one_list_count_once(on):
    async def act(store):
        twice = [event(n, item="i9", list="l1") for n in (1, 2)]
        await store.add_events([*twice, event(3, item="i9", list="l2"), event(4, item="i9")])
        await store.add_events([event(5, item="i8"), event(6, item="i7", type="hide")])
        return await store.popular(2)

    assert on(act) == [("i9", 3), ("i8", 1)]


def test_lists_are_found_by_id_and_user_and_count_as_shown_by_the_page(on):
    async def act(store):
        pool = [Candidate(item="c", score=0.5, propensity=0.25, fresh=True)]
        await store.add_list(shown(1, "a", "b", "c", arm="x", pool=pool, version=3))
        await store.add_list(shown(2, "a", "d", degraded=["model"]))
        before = await store.shown_counts(["a", "b", "c", "d", "e"])
        await store.answer_more("l1", 3)
        await store.answer_more("l1", 2)
        after = await store.shown_counts(["c", "b"])
        return before, after, await store.find_list("l1"), await store.last_list("u1")

    before, after, first, last = on(act)
    assert before == {"a": 2, "b": 1, "d": 1} and after == {"b": 1, "c": 1}
    assert first.answered == 3 and first.pool[0].fresh and first.version == 3
    assert last.id == "l2" and last.degraded == ["model"]


def test_a_list_that_is_kept_is_known_at_once_and_before_its_clicks(on):
    async def act(store):
        for number in range(3):
            await store.keep_list(shown(number, "a", "b"))
        found, last = await store.find_list("l0"), await store.last_list("u1")
        # Once an event is in the log, so are the lists before it.
        await store.add_events([event(1, list="l2")])
        counts = await store.user_counts("u1")
        lists = [one.id for one in await store.lists(0, 9)]
        await store.keep_list(shown(4, "c"))
        await store.erase("u1", 5000)
        gone = await store.find_list("l4"), await store.last_list("u1"), await store.lists(0, 9)
        await store.keep_list(shown(5, "c", user="u2"))
        return found, last, counts, lists, gone

    found, last, counts, lists, gone = on(act)
    assert found.id == "l0" and last.id == "l2" and counts == {"events": 1, "lists": 3}
    assert lists == ["l0", "l1", "l2"] and gone[:2] == (None, None) and list(gone[2]) == []

    async def look(store):
        return [one.id for one in await store.lists(0, 9)]

    assert on(look) == ["l5"]  # Written before the store was closed.


def test_after_a_list_that_could_not_be_kept_the_next_one_says_so(tmp_path):
    async def act():
        store = SqliteStore(tmp_path / "state.db", synchronous="normal")
        await store.open()
        await store._writer.do(lambda connection: connection.execute("DROP TABLE list"))
        await store.keep_list(shown(1, "a"))
        while store._waiting:
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match="cannot be written"):
            await store.keep_list(shown(2, "a"))
        await store.close()

    asyncio.run(act())


def test_lists_are_read_in_order_and_expire(on):
    async def act(store):
        for number in range(4):
            await store.add_list(shown(number, "a"))
        some = await store.lists(1, 2)
        gone = await store.expire_lists(1002)
        left = await store.lists(0, 9)
        return some, gone, left, await store.find_list("l0")

    some, gone, left, none = on(act)
    assert [(one.id, one.sequence) for one in some] == [("l1", 2), ("l2", 3)]
    assert gone == 2 and [one.id for one in left] == ["l2", "l3"] and none is None


def test_items_are_put_read_page_by_page_and_withdrawn(on):
    async def act(store):
        item = Item(id="n1", title="ä", categories=["genre=x"], images=1, state="live")
        new = await store.put_item(item, {"image": [b"one", b"two"], "audio": [b"wav"]})
        revision = await store.revision()
        again = await store.put_item(msgspec.structs.replace(item, title="b"))
        assert await store.revision() > revision
        await store.put_item(Item(id="n2", state="pending"))
        await store.put_item(Item(id="n3"))
        files = [await store.media("n1", "image", n) for n in (0, 1, 2)]
        pages = [[one.id for one in await store.items(after, 2)] for after in ("", "n2", "n3")]
        fresh = [one.id for one in await store.fresh_items()]
        await store.withdraw("n1")
        await store.withdraw("unheard")
        some = await store.items_of(["n1", "n2", "none"])
        assert await store.item("none") is None
        return (
            new,
            again,
            files,
            pages,
            fresh,
            some,
            await store.withdrawn(),
            await store.fresh_items(),
        )

    new, again, files, pages, fresh, some, withdrawn, left = on(act)
    assert (new, again) == (True, False) and files == [b"one", b"two", None]
    assert pages == [["n1", "n2"], ["n3"], []] and fresh == ["n1", "n2"]
    assert {name: (one.title, one.withdrawn) for name, one in some.items()} == {
        "n1": ("b", True),
        "n2": ("", False),
    }
    assert withdrawn == {"n1", "unheard"} and [one.id for one in left] == ["n2"]


def test_an_item_put_again_is_no_longer_withdrawn(on):
    async def act(store):
        await store.withdraw("n1")
        await store.put_item(Item(id="n1", state="live"))
        return await store.withdrawn(), (await store.item("n1")).withdrawn

    assert on(act) == (set(), False)


def test_embeddings_are_kept_by_version(on):
    async def act(store):
        one = Embedding(item="n1", version=1, vector=[0.5, 1.0], nearest="i3", weights=[1.0])
        other = msgspec.structs.replace(one, version=2, vector=[2.0, 0.0])
        await store.put_embeddings([one, other, msgspec.structs.replace(one, item="n0")])
        found = await store.embeddings(1)
        await store.drop_embeddings([1])
        return found, await store.embeddings(1), await store.embeddings(2)

    found, none, second = on(act)
    assert [one.item for one in found] == ["n0", "n1"] and found[1].vector == [0.5, 1.0]
    assert none == [] and second[0].vector == [2.0, 0.0]


def test_an_erased_user_leaves_a_tombstone_and_nothing_else(on):
    async def act(store):
        await store.add_events([event(1), event(2, user="u2")])
        await store.add_list(shown(1, "a", "b"))
        await store.add_list(shown(2, "a", user="u2", answered=1))
        await store.erase("u1", 5000)
        # A late retry of what was erased.
        late = await store.add_events([event(1)])
        stones = await store.tombstones()
        return (
            late,
            await store.history("u1"),
            [one.id for one in await store.events(0, 99, 9)],
            [one.id for one in await store.lists(0, 9)],
            (await store.find_list("l1"), await store.last_list("u1")),
            await store.user_counts("u1"),
            await store.user_counts("u2"),
            [await store.erased(user) for user in ("u1", "u2")],
            [stone.time for stone in stones],
            "u1" in str(stones),
        )

    assert on(act) == (
        [False],
        History(),
        ["e2"],
        ["l2"],
        (None, None),
        {"events": 0, "lists": 0},
        {"events": 1, "lists": 1},
        [True, False],
        [5000],
        False,
    )


def test_a_seed_is_taken_once_and_without_the_erased(on):
    async def act(store):
        await store.erase("gone", 1)
        seed = {"histories": [("u1", [("a", 5), ("b", 3)]), ("gone", [("a", 1)])]}
        assert not await store.seeded("world")
        first = await store.seed("world", **seed, counts={"a": 2, "b": 1})
        assert await store.seeded("world") and not await store.seeded("another")
        again = await store.seed("world", **seed, counts={"a": 2, "b": 1})
        await store.add_events([event(1, item="c", time=4)])
        histories = [await store.history(user) for user in ("u1", "gone")]
        return first, again, histories, await store.popular(9)

    first, again, histories, popular = on(act)
    assert (first, again) == (True, False)
    assert histories == [History(["b", "c", "a"]), History()]
    assert popular == [("a", 2), ("b", 1), ("c", 1)]


def test_what_was_kept_is_there_after_a_restart(on):
    async def fill(store):
        await store.add_events([event(1)])
        await store.erase("u9", 7)
        return await store.salt()

    async def look(store):
        new = await store.add_events([event(1)])
        return new, await store.salt(), await store.erased("u9"), await store.history("u1")

    salt = on(fill)
    assert on(look) == ([False], salt, True, History(["i1"]))


def test_many_at_once_lose_nothing_and_count_nothing_twice(on):
    async def act(store):
        # Each event is sent twice, at the same time.
        sent = [store.add_events([event(n % 100, user=f"u{n % 7}")]) for n in range(200)]
        new = await asyncio.gather(*sent)
        log = await store.events(0, 999, 999)
        return sum(map(sum, new)), len(log), len({one.id for one in log})

    assert on(act) == (100, 100, 100)


def test_two_gateways_on_one_redis_agree(redis_url):
    async def act():
        stores = [RedisStore(redis_url, prefix="agree:") for _ in range(2)]
        for store in stores:
            await store.open()
        one, other = stores
        new = await asyncio.gather(*(store.add_events([event(1)]) for store in stores))
        await one.withdraw("i9")
        await other.add_list(shown(1, "a"))
        seen = (
            await other.withdrawn(),
            await one.last_list("u1"),
            await one.history("u1") == await other.history("u1"),
            await one.salt() == await other.salt(),
        )
        for store in stores:
            await store.close()
        return sum(map(sum, new)), seen

    count, (withdrawn, last, alike, salted) = asyncio.run(act())
    assert count == 1 and withdrawn == {"i9"} and last.id == "l1" and alike and salted


def test_a_redis_out_of_reach_is_named_without_its_password(tmp_path):
    async def act():
        store = RedisStore(f"unix://user:secret@{tmp_path}/none.sock")
        with pytest.raises(StoreError) as caught:
            await store.add_events([event(1)])
        await store.close()
        return str(caught.value)

    told = asyncio.run(act())
    assert "none.sock" in told and "secret" not in told


def test_a_file_that_is_no_state_is_refused(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"something else" * 999)
    with pytest.raises(ConfigError, match=r"state.db: wanted a state of the gateway"):
        asyncio.run(SqliteStore(path).open())
    with pytest.raises(ConfigError, match="wanted full or normal; got 'off'"):
        SqliteStore(path, synchronous="off")


def test_a_state_of_another_format_is_refused(tmp_path):
    async def act():
        store = SqliteStore(tmp_path / "state.db")
        await store.open()
        await store.close()

    asyncio.run(act())
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    with pytest.raises(ConfigError, match="wanted a state of format 1; got 99"):
        asyncio.run(act())


def test_one_job_that_fails_undoes_nothing_of_the_others(tmp_path):
    async def act():
        store = SqliteStore(tmp_path / "state.db")
        await store.open()

        def broken(connection):
            connection.execute("INSERT INTO meta VALUES ('half', 'done')")
            raise ValueError("on purpose")

        results = await asyncio.gather(
            store.add_events([event(1)]),
            store._writer.do(broken),
            store.add_events([event(2)]),
            return_exceptions=True,
        )
        found = store._meta("half"), len(await store.events(0, 9, 9))
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.add_events([event(3)])
        return results, found

    (first, error, second), found = asyncio.run(act())
    assert first == second == [True] and isinstance(error, ValueError) and found == (None, 2)


KILLED = """
import asyncio, os, sys
from serving.gateway.store.records import Event
from serving.gateway.store.sqlite import SqliteStore

async def act():
    store = SqliteStore(sys.argv[1])
    await store.open()
    for n in range(100_000):
        await store.add_events([Event(id=f"e{n}", user="u", item="i", type="click", time=n)])
        os.write(1, f"e{n}\\n".encode())

asyncio.run(act())
"""


def test_what_was_acknowledged_outlives_a_kill(tmp_path):
    path = tmp_path / "state.db"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        told = [process.stdout.readline().strip() for _ in range(50)]
        process.kill()
        told += process.stdout.read().split()

    async def read():
        store = SqliteStore(path)
        await store.open()
        events = await store.events(0, 10**9, 10**9)
        await store.close()
        return [one.id for one in events]

    log = asyncio.run(read())
    # The last one may be in the log without that anyone was told.
    assert log[: len(told)] == told and len(log) - len(told) in (0, 1)
