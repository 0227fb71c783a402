"""Items and embeddings in Redis."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from serving.gateway.store.records import Embedding, Item
from serving.gateway.store.redis_connection import RedisConnection, reaching


class RedisItems(RedisConnection):
    """The methods of a `Store` that are about items."""

    @reaching
    async def put_item(
        self, item: Item, media: Mapping[str, Sequence[bytes]] | None = None
    ) -> bool:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hset(self.key("item"), item.id, msgspec.msgpack.encode(item))
        pipeline.zadd(self.key("item-ids"), {item.id: 0})
        mark = pipeline.sadd if item.withdrawn else pipeline.srem
        mark(self.key("withdrawn"), item.id)
        mark = pipeline.sadd if item.state in ("pending", "live") else pipeline.srem
        mark(self.key("fresh"), item.id)
        pipeline.incr(self.key("revision"))
        if media is not None:
            name = self.key("media", item.id)
            pipeline.delete(name)
            for kind, files in media.items():
                for place, data in enumerate(files):
                    pipeline.hset(name, f"{kind}:{place}", data)
        return bool((await pipeline.execute())[0])

    @reaching
    async def item(self, item_id: str) -> Item | None:
        return (await self._items([item_id])).get(item_id)

    @reaching
    async def items_of(self, item_ids: Collection[str]) -> Mapping[str, Item]:
        return await self._items(list(item_ids))

    async def _items(self, ids: Sequence[str]) -> dict[str, Item]:
        if not ids:
            return {}
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(self.key("item"), ids)
        pipeline.smismember(self.key("withdrawn"), ids)
        contents, marks = await pipeline.execute()
        return {
            item_id: msgspec.structs.replace(
                msgspec.msgpack.decode(content, type=Item), withdrawn=bool(mark)
            )
            for item_id, content, mark in zip(ids, contents, marks, strict=True)
            if content is not None
        }

    @reaching
    async def items(self, after: str, most: int) -> Sequence[Item]:
        least = f"({after}" if after else "-"
        ids = await self._redis.zrangebylex(self.key("item-ids"), least, "+", 0, most)
        return list((await self._items([one.decode() for one in ids])).values())

    @reaching
    async def media(self, item_id: str, kind: str, place: int) -> bytes | None:
        found = await self._redis.hget(self.key("media", item_id), f"{kind}:{place}")
        return None if found is None else bytes(found)

    @reaching
    async def withdraw(self, item_id: str) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.sadd(self.key("withdrawn"), item_id)
        pipeline.hsetnx(self.key("item"), item_id, msgspec.msgpack.encode(Item(id=item_id)))
        pipeline.zadd(self.key("item-ids"), {item_id: 0})
        pipeline.incr(self.key("revision"))
        await pipeline.execute()

    @reaching
    async def withdrawn(self) -> Collection[str]:
        return {one.decode() for one in await self._redis.smembers(self.key("withdrawn"))}

    @reaching
    async def fresh_items(self) -> Sequence[Item]:
        ids = sorted(one.decode() for one in await self._redis.smembers(self.key("fresh")))
        return [item for item in (await self._items(ids)).values() if not item.withdrawn]

    @reaching
    async def revision(self) -> int:
        return int(await self._redis.get(self.key("revision")) or 0)

    @reaching
    async def put_embeddings(self, embeddings: Sequence[Embedding]) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for one in embeddings:
            name = self.key("embedding", one.version)
            pipeline.hset(name, one.item, msgspec.msgpack.encode(one))
        pipeline.incr(self.key("revision"))
        await pipeline.execute()

    @reaching
    async def embeddings(self, version: int) -> Sequence[Embedding]:
        found = await self._redis.hgetall(self.key("embedding", version))
        return [msgspec.msgpack.decode(found[name], type=Embedding) for name in sorted(found)]

    @reaching
    async def drop_embeddings(self, versions: Collection[int]) -> None:
        for version in versions:
            await self._redis.delete(self.key("embedding", version))
