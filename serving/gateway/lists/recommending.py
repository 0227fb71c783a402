"""Makes lists: asks the models, merges fresh items in, explores, and remembers what was shown."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from serving.client import Recommendations
from serving.gateway.fresh.pool import FreshPool, stand_ins
from serving.gateway.fresh.scores import FreshScores
from serving.gateway.lists.arms import Arms, arm_name
from serving.gateway.lists.exploration import MOST_POOL, PLACE, SHORTEST, draw, pool_of
from serving.gateway.lists.fallbacks import Fallbacks
from serving.gateway.lists.known import Known, read_known
from serving.gateway.lists.merging import fits, merge, shown_of
from serving.gateway.lists.requests import Wish, new_id, now_ms
from serving.gateway.models.servers import Servers, Unanswered
from serving.gateway.settings import Settings
from serving.gateway.store.records import Candidate, Shown, ShownList
from serving.gateway.store.store import Store, StoreError

# A request to the recommender holds at most 1,024 entries of a list.
_MOST_EXCLUDED = 1000
MOST_LISTED = 50
# Users for whom fresh items are scored before they ask, at a time.
_MOST_AHEAD = 4
# Fewer than open a breaker.
_WARM_UPS = 3


class _Asked(NamedTuple):
    """What the models said: their list, fresh items with scores, the version, and what failed."""

    model: list[Shown]
    fresh: list[Shown]
    version: int
    degraded: list[str]


class Recommending:
    """Makes lists for users.

    Attributes:
      arms: Arms.
    """

    def __init__(
        self,
        store: Store,
        servers: Servers,
        pool: FreshPool,
        settings: Settings,
        *,
        on_version: Callable[[str, int], None] = lambda arm, version: None,
        rng: random.Random | None = None,
    ):
        """Describes it.

        Args:
          store: Store.
          servers: Servers.
          pool: FreshPool.
          settings: Settings.
          on_version: told the arm and the version of each answer of a recommender.
          rng: of the exploration slot.
        """
        self._store, self._servers, self._pool, self._settings = store, servers, pool, settings
        self._scores = FreshScores(servers)
        self._fallbacks = Fallbacks(store)
        self._on_version = on_version
        self._rng = rng or random.SystemRandom()
        # The version that an arm answered with last; the next answer is most likely of it, too.
        self._versions: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.arms = Arms(settings.arms, salt=settings.arm_salt)

    async def warm_up(self) -> None:
        """Asks every arm for a stranger's list, which opens connections and tells the versions;
        servers that do not answer are found out by the first list."""
        for arm in self.arms.shares:
            for _ in range(_WARM_UPS):
                try:
                    answer = await self._servers.recommend(
                        arm, "", [], exclude=[], allow=[], deny=[]
                    )
                except Unanswered:
                    continue
                self._versions[arm] = answer.version
                self._on_version(arm, answer.version)
                break

    async def make(self, wish: Wish) -> ShownList:
        """Makes a list, and keeps it with its first page counted as shown."""
        known = await read_known(self._store, wish)
        degraded = list(known.degraded)
        try:
            await self._pool.refresh()
        except StoreError:
            degraded.append("withdrawn")  # What was withdrawn meanwhile is not known.
        arm = self.arms.of(wish.user)
        asked = await self._ask(arm, wish, known)
        degraded += asked.degraded
        try:
            # Once more, as something may have been withdrawn while the models were asked.
            await self._pool.refresh()
        except StoreError:
            pass
        hidden = known.hidden | frozenset(self._pool.withdrawn)
        model = [one for one in asked.model if one.item not in hidden]
        # A version of one arm may know what is fresh still to another's.
        listed = {one.item for one in model}
        fresh = [one for one in asked.fresh if one.item not in hidden and one.item not in listed]
        candidates: list[Candidate] = []
        if "model" in asked.degraded:
            items = await self._fallbacks.items(
                wish.user, hidden=hidden, allow=wish.allow, deny=wish.deny, most=MOST_LISTED
            )
        else:
            items = merge(model, fresh, share=self._settings.fresh_share)
            items, candidates = await self._explore(items, fresh, wish.k)
        items = items[:MOST_LISTED]
        shown = ShownList(
            id=new_id(),
            user=wish.user,
            time=now_ms(),
            items=items,
            version=asked.version,
            arm=arm_name(arm),
            degraded=sorted(set(degraded)),
            pool=candidates,
            answered=min(wish.k, len(items)),
        )
        try:
            await self._store.keep_list(shown)
        except StoreError:
            # Nobody can be asked for the rest of it, nor a click be joined with it.
            lost = sorted({*shown.degraded, "log"})
            shown = msgspec.structs.replace(shown, degraded=lost, items=items[: wish.k])
        return shown

    def ahead(self, user: str) -> None:
        """Has fresh items scored for a user who did something and will want a list; the next list
        finds the scores there. Where many do at once, some are left to their list."""
        if self._pool.fresh and user and len(self._tasks) < _MOST_AHEAD:
            task = asyncio.get_running_loop().create_task(self._score_ahead(user))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _score_ahead(self, user: str) -> None:
        wish, arm = Wish(user), self.arms.of(user)
        known = await read_known(self._store, wish)
        version = self._versions.get(arm, 0)
        try:
            embedded = await self._pool.embedded(version)
            history = stand_ins(known.history, embedded)
            await self._fresh(arm, wish, known, history, version)
        except (Unanswered, StoreError):
            pass  # The list will try for itself, and tell.

    async def close(self) -> None:
        """Leaves what was begun ahead."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def page(self, shown: ShownList, place: int, k: int) -> tuple[list[Shown], int | None]:
        """The page of a list that begins at a place, and where the next one begins; what was
        withdrawn, met or hidden meanwhile is left out."""
        await self._pool.refresh()
        history = await self._store.history(shown.user)
        gone = {*self._pool.withdrawn, *history.liked, *history.disliked}
        found: list[Shown] = []
        while place < len(shown.items) and len(found) < k:
            if shown.items[place].item not in gone:
                found.append(shown.items[place])
            place += 1
        await self._store.answer_more(shown.id, place)
        return found, place if place < len(shown.items) else None

    async def _ask(self, arm: str, wish: Wish, known: Known) -> _Asked:
        """Asks for the list and the scores of fresh items at the same time."""
        version = self._versions.get(arm, 0)
        embedded = await self._pool.embedded(version)
        history = stand_ins(known.history, embedded)
        hidden = [*dict.fromkeys([*known.hidden, *self._pool.withdrawn])][:_MOST_EXCLUDED]
        listing = self._servers.recommend(
            arm, known.user, history, exclude=hidden, allow=wish.allow, deny=wish.deny
        )
        listed: Recommendations | BaseException
        scored: list[Shown] | BaseException = []
        if self._pool.fresh:
            listed, scored = await asyncio.gather(
                listing, self._fresh(arm, wish, known, history, version), return_exceptions=True
            )
        else:
            try:
                listed = await listing
            except Unanswered as error:
                listed = error
        if isinstance(listed, BaseException):
            if not isinstance(listed, Unanswered):
                raise listed
            return _Asked([], [], 0, ["model"])
        if isinstance(scored, BaseException) and not isinstance(scored, Unanswered):
            raise scored
        if listed.version != version:
            self._versions[arm] = listed.version
            self._on_version(arm, listed.version)
            # Scores of another version are on another scale; the next list has them.
            late = bool(self._pool.fresh)
            return _Asked(shown_of(listed), [], listed.version, ["fresh"] if late else [])
        if isinstance(scored, BaseException):
            return _Asked(shown_of(listed), [], version, ["fresh"])
        return _Asked(shown_of(listed), scored, version, ["fresh"] if embedded.behind else [])

    async def _fresh(
        self, arm: str, wish: Wish, known: Known, history: Sequence[str], version: int
    ) -> list[Shown]:
        embedded = await self._pool.embedded(version)
        chosen = [item for item in embedded.items if item not in known.hidden]
        if wish.allow or wish.deny:
            fresh = self._pool.fresh
            chosen = [one for one in chosen if fits(fresh.get(one), wish.allow, wish.deny)]
        return await self._scores.of(
            arm, known.user, history, embedded, version=version, chosen=chosen
        )

    async def _explore(
        self, items: list[Shown], fresh: Sequence[Shown], k: int
    ) -> tuple[list[Shown], list[Candidate]]:
        """Puts what was drawn in its place; the list stays as it is where there is no choice."""
        place = min(k, len(items)) - 1 if k <= PLACE else PLACE
        if not self._settings.exploration or k < SHORTEST or place >= len(items):
            return items, []
        above = {one.item for one in items[:place]}
        rest = [one for one in items[place:] if one.slot == "model"]
        left = [one for one in fresh if one.item not in above]
        counts: Mapping[str, int] = {}
        if len(rest) + len(left) > MOST_POOL:  # Else all of them may be drawn.
            # Fresh items come first in any case; how often they were shown decides among too many.
            asked = rest if len(left) <= MOST_POOL else [*rest, *left]
            try:
                counts = await self._store.shown_counts([one.item for one in asked])
            except StoreError:
                return items, []
        pool = pool_of(rest, left, counts)
        if len(pool) < 2:
            return items, []
        newest = frozenset(one.item for one in left)
        settings = self._settings
        drawn, chance, logged = draw(
            pool,
            newest,
            exploration=settings.exploration,
            temperature=settings.temperature,
            rng=self._rng,
        )
        drawn = msgspec.structs.replace(drawn, slot="explore", propensity=chance)
        after = [one for one in items[place:] if one.item != drawn.item]
        return [*items[:place], drawn, *after], logged
