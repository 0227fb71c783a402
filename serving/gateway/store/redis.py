"""A store for several gateways: one Redis, version 7 or later."""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from mmrec_tf.errors import ConfigError
from serving.gateway.store.drained_log import DrainedLog
from serving.gateway.store.records import (
    DISLIKING,
    LIKING,
    MOST_HISTORY,
    Event,
    History,
    ShownList,
    Tombstone,
    user_hash,
)
from serving.gateway.store.redis_connection import reaching
from serving.gateway.store.redis_items import RedisItems
from serving.gateway.store.redis_scripts import ADD_EVENT

# For how long ids of events are told from new ones, and lists are kept.
REMEMBERED_SECONDS = 30 * 24 * 3600
_BLOCK = 500


class RedisStore(RedisItems):
    """A `Store` in Redis.

    How durable an answer is depends on the server: with `appendfsync everysec` a power failure may
    take the last second, with `always` nothing. The log lies in its memory until it is moved to a
    file (`serving.gateway.night.drain`).

    Attributes:
      log: what was moved; None where that is not at hand.
    """

    def __init__(self, url: str, *, prefix: str = "mmrec:", log: DrainedLog | None = None):
        """As `RedisConnection`, and

        Args:
          log: the file that events are moved to, for `events`.
        """
        super().__init__(url, prefix=prefix)
        self.log = log
        self._add = self._redis.register_script(ADD_EVENT)
        self._salt = ""

    @reaching
    async def open(self) -> None:
        await self._redis.set(self.key("salt"), secrets.token_hex(16), nx=True)
        self._salt = (await self._redis.get(self.key("salt"))).decode()
        if self.log is not None:
            self.log.open()

    async def close(self) -> None:
        if self.log is not None:
            self.log.close()
        await self._redis.aclose()

    @reaching
    async def add_events(self, events: Sequence[Event]) -> list[bool]:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            liked = "1" if event.type in LIKING else "0" if event.type in DISLIKING else ""
            keys = [
                self.key("event", event.id),
                self.key("sequence"),
                self.key("log"),
                self.key("liked", event.user),
                self.key("disliked", event.user),
                self.key("met"),
                self.key("userlog", event.user),
                self.key("counted", event.list),
            ]
            values = [event.id, event.user, event.item, event.type, str(event.time), event.list]
            values += [str(event.position), liked, str(MOST_HISTORY), str(REMEMBERED_SECONDS)]
            await self._add(keys=keys, args=values, client=pipeline)
        return [bool(new) for new in await pipeline.execute()]

    @reaching
    async def history(self, user: str) -> History:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.zrange(self.key("liked", user), 0, -1)
        pipeline.zrange(self.key("disliked", user), 0, -1)
        return History(*([one.decode() for one in part] for part in await pipeline.execute()))

    @reaching
    async def add_list(self, shown: ShownList) -> None:
        sequence = await self._redis.incr(self.key("list-sequence"))
        kept = msgspec.structs.replace(shown, sequence=sequence)
        pipeline = self._redis.pipeline(transaction=True)
        name = self.key("list", shown.id)
        pipeline.set(name, msgspec.msgpack.encode(kept), ex=REMEMBERED_SECONDS)
        pipeline.set(self.key("answered", shown.id), shown.answered, ex=REMEMBERED_SECONDS)
        pipeline.set(self.key("last", shown.user), shown.id, ex=REMEMBERED_SECONDS)
        pipeline.rpush(self.key("userlists", shown.user), f"{shown.id} {sequence}")
        entry = {"id": shown.id, "time": shown.time, "user": shown.user}
        pipeline.xadd(self.key("lists"), entry, id=f"{sequence}-0")
        for one in shown.items[: shown.answered]:
            pipeline.hincrby(self.key("shown"), one.item, 1)
        await pipeline.execute()

    async def keep_list(self, shown: ShownList) -> None:
        # Another gateway may be asked for its next page.
        await self.add_list(shown)

    @reaching
    async def answer_more(self, list_id: str, answered: int) -> None:
        shown = await self._list(list_id)
        if shown is None or answered <= shown.answered:
            return
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(self.key("answered", list_id), answered, ex=REMEMBERED_SECONDS)
        for one in shown.items[shown.answered : answered]:
            pipeline.hincrby(self.key("shown"), one.item, 1)
        await pipeline.execute()

    @reaching
    async def find_list(self, list_id: str) -> ShownList | None:
        return await self._list(list_id)

    async def _list(self, list_id: str) -> ShownList | None:
        names = [self.key("list", list_id), self.key("answered", list_id)]
        content, answered = await self._redis.mget(names)
        if content is None:
            return None
        shown = msgspec.msgpack.decode(content, type=ShownList)
        return msgspec.structs.replace(shown, answered=int(answered or shown.answered))

    @reaching
    async def last_list(self, user: str) -> ShownList | None:
        list_id = await self._redis.get(self.key("last", user))
        return None if list_id is None else await self._list(list_id.decode())

    @reaching
    async def lists(self, after: int, most: int) -> Sequence[ShownList]:
        first = f"{after + 1}-0"
        entries = await self._redis.xrange(self.key("lists"), min=first, max="+", count=most)
        found = [await self._list(entry[b"id"].decode()) for _, entry in entries]
        return [shown for shown in found if shown is not None]

    @reaching
    async def expire_lists(self, before: int) -> int:
        count = 0
        while entries := await self._redis.xrange(self.key("lists"), count=_BLOCK):
            old = [(place, entry) for place, entry in entries if int(entry[b"time"]) < before]
            for place, entry in old:
                list_id = entry[b"id"].decode()
                names = (self.key("list", list_id), self.key("answered", list_id))
                await self._redis.delete(*names)
                await self._redis.xdel(self.key("lists"), place)
                mine = f"{list_id} {place.partition(b'-')[0].decode()}"
                lists = self.key("userlists", entry.get(b"user", b"").decode())
                await self._redis.lrem(lists, 1, mine)
            count += len(old)
            if len(old) < len(entries):
                break
        return count

    @reaching
    async def popular(self, most: int) -> Sequence[tuple[str, int]]:
        # Counted downwards, so that equal ones come by id.
        found = await self._redis.zrange(self.key("met"), 0, most - 1, withscores=True)
        return [(item.decode(), -int(score)) for item, score in found]

    @reaching
    async def shown_counts(self, items: Collection[str]) -> Mapping[str, int]:
        names = list(items)
        counts = await self._redis.hmget(self.key("shown"), names) if names else []
        return {name: int(n) for name, n in zip(names, counts, strict=True) if n is not None}

    @reaching
    async def erase(self, user: str, time: int) -> None:
        await self._redis.hset(self.key("erased"), user_hash(user, self._salt), time)
        places = await self._redis.lrange(self.key("userlog", user), 0, -1)
        lists = await self._redis.lrange(self.key("userlists", user), 0, -1)
        pipeline = self._redis.pipeline(transaction=True)
        for place in places:
            pipeline.xdel(self.key("log"), f"{int(place)}-0")
        for entry in lists:
            list_id, sequence = entry.decode().split()
            pipeline.delete(self.key("list", list_id), self.key("answered", list_id))
            pipeline.xdel(self.key("lists"), f"{sequence}-0")
        for kind in ("liked", "disliked", "last", "userlog", "userlists"):
            pipeline.delete(self.key(kind, user))
        pipeline.hdel(self.key("drained-of"), user)
        await pipeline.execute()

    @reaching
    async def erased(self, user: str) -> bool:
        stone = user_hash(user, self._salt)
        return bool(await self._redis.hexists(self.key("erased"), stone))

    @reaching
    async def tombstones(self) -> Sequence[Tombstone]:
        found = await self._redis.hgetall(self.key("erased"))
        return [Tombstone(user.decode(), int(found[user])) for user in sorted(found)]

    async def salt(self) -> str:
        return self._salt

    async def events(self, after: int, until: int, most: int) -> Sequence[Event]:
        drained = await self.drained()
        if after >= min(drained, until):
            found = await self.events_here(after, until, most)
            # Some may have been moved between the two questions.
            if await self.drained() <= after:
                return found
            return await self.events(after, until, most)
        if self.log is None:
            raise ConfigError(
                f"the log up to place {drained} was moved to a file (python -m serving.gateway "
                f"drain): name that by --log; it was to be read from {after + 1} on."
            )
        # What was moved and is in Redis still, as moving was broken off, is read there.
        moved = self.log.events(after, min(until, drained), most)
        return moved or await self.events(drained, until, most)

    @reaching
    async def drained(self) -> int:
        """Up to which place the log was moved to a file."""
        return int(await self._redis.get(self.key("drained")) or 0)

    @reaching
    async def drop_events(self, events: Sequence[Event]) -> None:
        """Takes events out of the log, which are in a file by now: the oldest, without a gap."""
        last = events[-1].sequence
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(self.key("drained"), last)
        pipeline.xtrim(self.key("log"), minid=f"{last + 1}-0", approximate=False)
        for event in events:
            pipeline.lrem(self.key("userlog", event.user), 1, event.sequence)
            pipeline.hincrby(self.key("drained-of"), event.user, 1)
        await pipeline.execute()

    @reaching
    async def events_here(self, after: int, until: int, most: int) -> Sequence[Event]:
        """As `events`, of what is in Redis still."""
        entries = await self._redis.xrange(
            self.key("log"), min=f"{after + 1}-0", max=f"{until}-0", count=most
        )
        events = []
        for place, entry in entries:
            row = {name.decode(): value.decode() for name, value in entry.items()}
            row |= {"sequence": place.partition(b"-")[0].decode()}
            events.append(msgspec.convert(row, Event, strict=False))
        return events

    @reaching
    async def user_counts(self, user: str) -> Mapping[str, int]:
        return {
            "events": await self._redis.llen(self.key("userlog", user))
            + int(await self._redis.hget(self.key("drained-of"), user) or 0),
            "lists": await self._redis.llen(self.key("userlists", user)),
        }

    @reaching
    async def last_sequence(self) -> int:
        return int(await self._redis.get(self.key("sequence")) or 0)

    @reaching
    async def seeded(self, name: str) -> bool:
        return bool(await self._redis.exists(self.key("seed", name)))

    @reaching
    async def seed(
        self,
        name: str,
        *,
        histories: Iterable[tuple[str, Sequence[tuple[str, int]]]],
        counts: Mapping[str, int],
    ) -> bool:
        done = self.key("seed", name)
        if await self._redis.exists(done):
            return False
        gone = {stone.decode() for stone in await self._redis.hkeys(self.key("erased"))}
        for user, met in histories:
            if met and user_hash(user, self._salt) not in gone:
                liked = self.key("liked", user)
                await self._redis.zadd(liked, dict(met), gt=True)
                await self._redis.zremrangebyrank(liked, 0, -(MOST_HISTORY + 1))
        # Of several gateways that seed at once, one counts.
        if not await self._redis.set(done, 1, nx=True):
            return False
        pipeline = self._redis.pipeline(transaction=True)
        for item, count in counts.items():
            pipeline.zincrby(self.key("met"), -count, item)
        await pipeline.execute()
        return True
