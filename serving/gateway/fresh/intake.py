"""Takes items in: kept at once, embedded within seconds, shown from then on."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, NamedTuple

import msgspec

from mmrec_tf.errors import ConfigError, MmrecError
from mmrec_tf.schema import LOWEST_SCORE
from serving.gateway.fresh.content import PutContent, encoder_inputs, entries_of, prepare
from serving.gateway.fresh.pool import FreshPool
from serving.gateway.lists.requests import now_ms
from serving.gateway.models.servers import Servers, Unanswered
from serving.gateway.refusals import busy, invalid
from serving.gateway.store.records import Embedding, Item
from serving.gateway.store.store import Store, StoreError

MOST_WAITING = 64
_RETRY_SECONDS = 1.0
# Items that `rank` is asked for at once, whether it knows them.
_BLOCK = 500
_log = logging.getLogger("gateway")


class Taken(NamedTuple):
    """What became of an item: as it is kept, whether it is new, and what the encoder does not
    take."""

    item: Item
    created: bool
    unused: list[str]


class Intake:
    """Puts items into the store and their embeddings beside them.

    An item is kept before the encoder is asked. If that does not answer in time, the item waits in
    a queue, which outlives a restart, as its items are marked as pending.
    """

    def __init__(self, store: Store, servers: Servers, pool: FreshPool, *, wait_seconds: float):
        """Describes it; `start` begins to work the queue.

        Args:
          store: Store.
          servers: Servers.
          pool: FreshPool.
          wait_seconds: how long `put` waits for the encoder.
        """
        self._store, self._servers, self._pool = store, servers, pool
        self._wait_seconds = wait_seconds
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._versions: dict[str, int] = {}
        self._unused: dict[str, list[str]] = {}

    @property
    def waiting(self) -> int:
        """How many items wait for the encoder."""
        return len(self._waiting)

    async def start(self) -> None:
        """Begins to work the queue, with what was pending when the last gateway ended."""
        for item in await self._store.fresh_items():
            if item.state == "pending":
                self._waiting[item.id] = None
        self._run(self._work())
        self._wake.set()

    async def close(self) -> None:
        """Ends; what waits is found by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def put(self, item_id: str, content: PutContent) -> Taken:
        """Takes an item in; the same content again changes nothing.

        Raises:
          Refusal: when nothing of it can be read, or too many items wait.
        """
        digest = content.digest()
        before = await self._store.item(item_id)
        same = before is not None and before.digest == digest and not before.withdrawn
        if same and before is not None and before.state != "pending":
            return Taken(before, False, self._unused.get(item_id, []))
        if len(self._waiting) >= MOST_WAITING and item_id not in self._waiting:
            raise busy(f"{MOST_WAITING} items wait for the encoder; send this one again later.")
        if content.videos:
            await self.require_videos()
        prepared = await prepare(content)
        if prepared.empty:
            told = "; ".join(prepared.unreadable) or "nothing came"
            raise invalid(
                content.named,
                f"wanted words, a picture, a sound or a video that can be read; {told}.",
            )
        item = Item(
            id=item_id,
            title=prepared.title,
            text=prepared.text,
            categories=sorted(set(content.categories)),
            price=content.price,
            images=len(prepared.images),
            sounds=len(prepared.sounds),
            frames=len(prepared.frames),
            state="pending",
            digest=digest,
            unreadable=prepared.unreadable,
            updated=now_ms(),
        )
        files = {"image": prepared.images, "audio": prepared.sounds, "video": prepared.frames}
        created = await self._store.put_item(item, files)
        self._waiting[item_id] = None
        embedding = asyncio.get_running_loop().create_task(self._embed_all(item))
        try:
            # Goes on behind a 202.
            async with asyncio.timeout(self._wait_seconds):
                item = await asyncio.shield(embedding)
        except TimeoutError:
            self._tasks.add(embedding)
            embedding.add_done_callback(self._late)
        except Unanswered:
            self._wake.set()
        except MmrecError:
            # No encoder will ever take it.
            self._waiting.pop(item_id, None)
            await self._store.withdraw(item_id)
            raise
        return Taken(item, created, self._unused.get(item_id, []))

    async def require_videos(self) -> None:
        """Refuses videos where no model takes them; while the encoder does not answer, they are
        taken on trust.

        Raises:
          Refusal: a 400.
        """
        takes = await self.takes()
        if takes is not None and "video" not in takes:
            # Another version may have been published since that was asked.
            takes = await self.takes(again=True)
        if takes is not None and "video" not in takes:
            raise invalid(
                "video",
                "this model takes no videos, as it was trained without; it takes "
                f"{', '.join(sorted(takes - {'features'}))}",
            )

    async def takes(self, *, again: bool = False) -> set[str] | None:
        """What the encoders take, such as "text" and "image"; None where one does not answer.

        Args:
          again: asks them even where their answer is known.
        """
        found: set[str] = set()
        for arm in self._servers.arms:
            try:
                signatures = await self._servers.signatures(arm, "encoder", again=again)
            except Unanswered:
                return None
            found |= set(signatures["embed_item"].inputs)
        return found

    def _late(self, task: "asyncio.Task[Item]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._wake.set()

    async def _embed_all(self, item: Item) -> Item:
        """Embeds an item for every arm; returns it as it is kept then."""
        weights: list[float] = []
        for arm in self._servers.arms:
            embedding = await self._embed(arm, item)
            weights = weights or embedding.weights
        live = msgspec.structs.replace(item, state="live", weights=weights)
        now = await self._store.item(item.id)
        if now is None or now.digest != item.digest or now.withdrawn:
            return now or item  # Another one was put meanwhile, or it was withdrawn.
        await self._store.put_item(live)
        self._waiting.pop(item.id, None)
        return live

    async def _embed(self, arm: str, item: Item) -> Embedding:
        content, self._unused[item.id] = await self._inputs(arm, item)
        if not content:
            raise invalid("text", f"wanted content that this model reads; got {item.unreadable}.")
        try:
            answer = await self._servers.embed_item(arm, content)
        except ConfigError:
            # Side features that the model does not read.
            if content.pop("features", None) is None:
                raise
            self._unused[item.id].append("features")
            answer = await self._servers.embed_item(arm, content)
        content.pop("features", None)
        near = await self._servers.nearest(arm, {**content, "k": 1})
        embedding = Embedding(
            item=item.id,
            version=answer.version,
            vector=[float(value) for value in answer.embedding[0]],
            nearest=str(near.item_id[0][0]),
            modalities=_flat(answer.modalities),
            present=_row(answer.present),
            weights=[float(value) for value in answer.weights[0]],
            features=entries_of(item),
        )
        await self._store.put_embeddings([embedding])
        return embedding

    async def _inputs(self, arm: str, item: Item) -> tuple[dict[str, object], list[str]]:
        files: dict[str, list[bytes]] = {}
        kinds = (("image", item.images), ("audio", item.sounds), ("video", item.frames))
        for kind, count in kinds:
            found = [await self._store.media(item.id, kind, n) for n in range(count)]
            files[kind] = [data for data in found if data is not None]
        signatures = await self._servers.signatures(arm, "encoder")
        return encoder_inputs(item, files, signatures["embed_item"].inputs)

    async def _work(self) -> None:
        """Embeds what waits, over and over until it works."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for item_id in list(self._waiting):
                item = await self._store.item(item_id)
                if item is None or item.withdrawn or item.state != "pending":
                    self._waiting.pop(item_id, None)
                    continue
                try:
                    await self._embed_all(item)
                except (Unanswered, StoreError) as error:
                    _log.warning("item waits for the encoder", extra={"reason": str(error)})
                    break
                except Exception as error:  # One that no encoder takes must not hold up the rest.
                    _log.warning("item given up", extra={"item": item_id, "reason": str(error)})
                    self._waiting.pop(item_id, None)
            if self._waiting:
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    def version_seen(self, arm: str, version: int) -> None:
        """A recommender answered with another version than before: makes embeddings for it, and
        finds out which items it knows by now."""
        if self._versions.get(arm) != version:
            self._versions[arm] = version
            self._run(self._renew(arm, version))

    async def _renew(self, arm: str, version: int) -> None:
        try:
            await self._pool.refresh()
            fresh = [item for item in self._pool.fresh.values() if item.state == "live"]
            ids = [item.id for item in fresh]
            known = set(ids)
            for one in self._servers.arms:
                known &= await self._known(one, ids)
            there = (await self._pool.embedded(version)).embeddings
            for item in fresh:
                if item.id in known:
                    now = await self._store.item(item.id)
                    if now is not None and now.digest == item.digest and not now.withdrawn:
                        published = msgspec.structs.replace(now, state="published")
                        await self._store.put_item(published)
                elif item.id not in there:
                    await self._servers.signatures(arm, "encoder", again=True)
                    await self._embed(arm, item)
            served = set(self._versions.values())
            old = [one for one in self._pool.versions() if one not in served and one]
            await self._store.drop_embeddings(old)
            self._pool.forget(old)
        except (Unanswered, StoreError) as error:
            _log.warning("embeddings are not renewed yet", extra={"reason": str(error)})
            with contextlib.suppress(KeyError):
                del self._versions[arm]
            await asyncio.sleep(_RETRY_SECONDS)
            self.version_seen(arm, version)

    async def _known(self, arm: str, items: list[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            answer = await self._servers.rank(arm, "", [], block)
            scores = zip(block, answer.score[0], strict=True)
            known |= {item for item, score in scores if score > LOWEST_SCORE}
        return known


def _flat(values: Any) -> list[float]:
    return [] if values is None else [float(value) for value in values[0].ravel()]


def _row(values: Any) -> list[bool]:
    return [] if values is None else [bool(value) for value in values[0]]
