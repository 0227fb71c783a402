"""The log of a Redis moves to a file: nothing is lost, and nothing is there twice."""

import asyncio
import itertools

import pytest

from mmrec_tf.errors import ConfigError
from serving.gateway.__main__ import main
from serving.gateway.night.drain import drain
from serving.gateway.store.drained_log import DrainedLog
from serving.gateway.store.records import Event
from serving.gateway.store.redis import RedisStore
from serving.gateway.store.store import StoreError

_numbers = itertools.count()


def event(number, user="u1"):
    return Event(id=f"e{number}", user=user, item=f"i{number}", type="click", time=1000 + number)


@pytest.fixture
def on(redis_url, tmp_path):
    """Runs a coroutine function on a store with a log, and on one that has none."""
    prefix = f"drain{next(_numbers)}:"

    def run(act):
        async def whole():
            with_log = RedisStore(redis_url, prefix=prefix, log=DrainedLog(tmp_path / "log.db"))
            without = RedisStore(redis_url, prefix=prefix)
            await with_log.open()
            await without.open()
            try:
                return await act(with_log, without)
            finally:
                await with_log.close()
                await without.close()

        return asyncio.run(whole())

    return run


async def ids(store, after=0, until=999, most=999):
    return [one.id for one in await store.events(after, until, most)]


def test_what_was_moved_is_read_from_the_file_and_the_rest_from_redis(on):
    async def act(store, bare):
        await bare.add_events([event(n) for n in range(5)])
        first = await drain(store, settled_seconds=0)
        await bare.add_events([event(n, user="u2") for n in range(3, 8)])
        here = [one.id for one in await store.events_here(0, 999, 99)]
        read = [await ids(store), await ids(store, 2, 6), await ids(store, 3, 999, 1)]
        with pytest.raises(ConfigError, match="up to place 5 was moved to a file.* from 1 on"):
            await ids(bare)
        later = await ids(bare, after=5)
        again = await drain(store, settled_seconds=0)
        counts = [await store.user_counts(user) for user in ("u1", "u2")]
        return first, here, read, later, again, counts, await ids(store), await store.history("u1")

    first, here, read, later, again, counts, whole, history = on(act)
    assert first == (5, 5, 0) and again == (3, 8, 0)
    assert here == later == ["e5", "e6", "e7"]  # The ids of the others are known still.
    assert read == [[f"e{n}" for n in range(5)], ["e2", "e3", "e4"], ["e3"]]
    assert [one["events"] for one in counts] == [5, 3]
    assert whole == [f"e{n}" for n in range(8)] and len(history.liked) == 5


def test_what_was_broken_off_is_there_once(on):
    async def act(store, bare):
        await bare.add_events([event(n) for n in range(6)])
        # Killed after the file had them, before Redis was told.
        store.log.add(await store.events_here(0, 4, 99))
        before = await ids(store)
        moved = await drain(store, settled_seconds=0)
        return before, moved, await ids(store), await store.events_here(0, 99, 99)

    before, moved, after, here = on(act)
    assert before == after == [f"e{n}" for n in range(6)] and moved == (6, 6, 0) and not here


def test_erased_users_leave_the_file_with_the_next_move(on):
    async def act(store, bare):
        await bare.add_events([event(1), event(2, user="u2")])
        await drain(store, settled_seconds=0)
        await bare.erase("u1", 5000)
        late = await bare.add_events([event(1)])
        told = await drain(store, settled_seconds=0)
        return late, told, await ids(store), (await store.user_counts("u1"))["events"]

    assert on(act) == ([False], (0, 2, 1), ["e2"], 0)


def test_a_log_of_another_state_is_not_mixed_in(on):
    async def act(store, bare):
        other = Event(
            **{**{f: getattr(event(9), f) for f in Event.__struct_fields__}, "sequence": 1}
        )
        store.log.add([other])
        await bare.add_events([event(1)])
        with pytest.raises(StoreError, match="place 1 holds the event 'e9', not 'e1'"):
            await drain(store, settled_seconds=0)
        return [one.id for one in await store.events_here(0, 9, 9)]

    assert on(act) == ["e1"]


def test_expired_lists_leave_nothing_of_their_users(on):
    from serving.gateway.store.records import ShownList

    async def act(store, bare):
        await store.add_list(ShownList(id="l1", user="u1", time=1, items=[]))
        await store.expire_lists(2)
        return (await store.user_counts("u1"))["lists"]

    assert on(act) == 0


def test_a_file_needs_no_log_beside(tmp_path, capsys):
    asked = ["drain", "--state", str(tmp_path / "state.db"), "--log", str(tmp_path / "log.db")]
    assert main(asked) == 2 and "no effect beside a SQLite state" in capsys.readouterr().err
    (tmp_path / "text").write_text("no log" * 500)
    with pytest.raises(ConfigError, match="wanted a log of a gateway"):
        DrainedLog(tmp_path / "text").open()
