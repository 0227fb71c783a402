"""Takes events in: checked one by one, logged once, and only then acknowledged."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mmrec_tf.errors import did_you_mean
from serving.gateway.http.metrics import Metrics
from serving.gateway.http.rates import Rates
from serving.gateway.lists.requests import now_ms
from serving.gateway.messages import EventIn, EventsOut, RawEvents, Rejected, field_of
from serving.gateway.refusals import busy
from serving.gateway.spool import Spool
from serving.gateway.store.records import EVENT_TYPES, LIKING, Event, ShownList
from serving.gateway.store.store import Store, StoreError

# The server's clock rules: what is older, or lies further ahead, is rejected.
OLDEST_SECONDS = 24 * 3600.0
AHEAD_SECONDS = 5.0
# Users whose next list is waited for, for the metrics.
_MOST_CLICKED = 10_000
# A request with events of more users is a copy of some log, and nobody waits for a list.
_MOST_AHEAD = 5


class Events:
    """Checks events and adds them to the log."""

    def __init__(
        self,
        store: Store,
        rates: Rates,
        *,
        spool: Spool | None = None,
        metrics: Metrics,
        on_liked: Callable[[str], None] = lambda user: None,
    ):
        """Describes it.

        Args:
          store: Store.
          rates: how many events of one user are taken.
          spool: takes events while the store is out of reach; None refuses them then.
          metrics: Metrics.
          on_liked: told the users whose histories grew, once for each request.
        """
        self._store, self._rates, self._spool, self._metrics = store, rates, spool, metrics
        self._on_liked = on_liked
        self._clicked: dict[str, float] = {}

    async def add(self, raw: RawEvents) -> EventsOut:
        """Adds events; what is counted as accepted is durable.

        Raises:
          Refusal: a 503, when it cannot be; then nothing is known to be added, and sending all of
            it again does no harm.
        """
        now = now_ms()
        events, places, rejected = list[Event](), list[int](), list[Rejected]()
        for index, one in enumerate(raw.events):
            # Without times of their own they lie a millisecond apart, the last one now.
            event = self._read(one, now=now, default=now - (len(raw.events) - 1 - index))
            if isinstance(event, str):
                rejected.append(Rejected(index, event))
            else:
                events.append(event)
                places.append(index)
        lists = await self._lists(events)
        events, places = _of_own(lists, events, places, rejected)
        new = await self._add(events) if events else []
        for event, is_new in zip(events, new, strict=True):
            self._metrics.event(event.type, "accepted" if is_new else "duplicate")
            if is_new and event.type in LIKING:
                self._clicked[event.user] = time.monotonic()
                if event.list in lists:
                    self._metrics.click(event, lists[event.list])
        liked = {e.user for e, is_new in zip(events, new, strict=True) if is_new}
        for user in liked if len(liked) < _MOST_AHEAD else ():
            self._on_liked(user)
        while len(self._clicked) > _MOST_CLICKED:
            self._clicked.pop(next(iter(self._clicked)))
        for _ in rejected:
            self._metrics.event("", "rejected")
        rejected.sort(key=lambda one: one.index)
        return EventsOut(sum(new), len(new) - sum(new), rejected)

    def reflect(self, user: str) -> None:
        """A list of a user was made: tells the metrics how long after the newest click."""
        clicked = self._clicked.pop(user, None)
        if clicked is not None:
            self._metrics.reflected(time.monotonic() - clicked)

    async def _add(self, events: Sequence[Event]) -> list[bool]:
        try:
            return await self._store.add_events(events)
        except StoreError as error:
            if self._spool is None or not await self._spool.keep(events):
                raise busy(
                    "events cannot be kept now; send them again with the same ids."
                ) from error
            return [True] * len(events)

    def _read(self, raw: msgspec.Raw, *, now: int, default: int) -> Event | str:
        """One event, or why it is rejected."""
        try:
            given = msgspec.json.decode(raw, type=EventIn)
        except msgspec.ValidationError as error:
            field, text = field_of(error)
            return f"{field}: {text}" if field else text
        except msgspec.DecodeError as error:
            return str(error)
        if given.type not in EVENT_TYPES:
            return f"type: unknown type {given.type!r}{did_you_mean(given.type, EVENT_TYPES)}"
        when = default
        if given.time is not None:
            if not now / 1000 - OLDEST_SECONDS <= given.time <= now / 1000 + AHEAD_SECONDS:
                return (
                    "time: wanted seconds since 1970 UTC, at most a day ago and 5 seconds ahead; "
                    f"got {given.time}, where it is {time.time():.0f} now"
                )
            when = min(round(given.time * 1000), now)
        if not self._rates.allows(f"user {given.user}"):
            return "user: too many events of this user at once; send this one again later"
        position = -1 if given.position is None else given.position
        return Event(
            id=given.id,
            user=given.user,
            item=given.item,
            type=given.type,
            time=when,
            list=given.list,
            position=position,
        )

    async def _lists(self, events: Sequence[Event]) -> dict[str, ShownList]:
        """The lists that events name, by id; those that are gone or unheard of left out."""
        found = {}
        for list_id in {event.list for event in events if event.list}:
            try:
                shown = await self._store.find_list(list_id)
            except StoreError:
                break  # Whoever reads the log can tell.
            if shown is not None:
                found[list_id] = shown
        return found


def _of_own(
    lists: Mapping[str, ShownList],
    events: Sequence[Event],
    places: Sequence[int],
    rejected: list[Rejected],
) -> tuple[list[Event], list[int]]:
    """Without events that name a list that was made for another user."""
    kept, at = list[Event](), list[int]()
    for event, place in zip(events, places, strict=True):
        owner = lists[event.list].user if event.list in lists else event.user
        if owner in (event.user, ""):
            kept.append(event)
            at.append(place)
        else:
            rejected.append(Rejected(place, "list: was made for another user"))
    return kept, at
