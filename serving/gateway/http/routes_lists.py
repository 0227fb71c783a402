"""Events in, lists out."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.http.endpoint import Endpoint, answer, read_json
from serving.gateway.lists.requests import Wish, cursor_of, read_cursor
from serving.gateway.messages import (
    EventsIn,
    EventsOut,
    RawEvents,
    RecommendedItem,
    RecommendIn,
    RecommendOut,
    Why,
)
from serving.gateway.refusals import busy, invalid
from serving.gateway.service import Gateway
from serving.gateway.store.records import Shown, ShownList
from serving.gateway.store.store import StoreError


async def post_events(gateway: Gateway, request: Request) -> Response:
    """Takes events; answers after they are durable."""
    return answer(await gateway.events.add(await read_json(request, RawEvents)))


async def post_recommend(gateway: Gateway, request: Request) -> Response:
    """Answers with a list, or with the next page of one."""
    asked = await read_json(request, RecommendIn)
    if asked.cursor:
        return answer(await next_page(gateway, asked))
    history = None if asked.history is None else tuple(asked.history)
    lists = (tuple(part) for part in (asked.allow, asked.deny, asked.exclude))
    allow, deny, exclude = lists
    wish = Wish(asked.user, history, asked.k, allow=allow, deny=deny, exclude=exclude)
    return answer(await first_page(gateway, wish))


async def first_page(gateway: Gateway, wish: Wish) -> RecommendOut:
    """Makes a list, and answers with its first page."""
    shown = await gateway.recommending.make(wish)
    # Counted after the answer is on its way.
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: gateway.metrics.answered(shown, slice(0, wish.k), made=True))
    gateway.events.reflect(wish.user)
    more = len(shown.items) > wish.k
    return _page(shown, shown.items[: wish.k], wish.k if more else None)


async def next_page(gateway: Gateway, asked: RecommendIn) -> RecommendOut:
    """Answers with more of a list.

    Raises:
      Refusal: for a cursor that is none, or of a list that is gone, or of another user's.
    """
    for name in ("history", "allow", "deny", "exclude"):
        if getattr(asked, name):
            raise invalid(name, "has no effect beside a cursor; leave it out")
    at = read_cursor(asked.cursor)
    try:
        shown = None if at is None else await gateway.store.find_list(at[0])
        if at is None or shown is None or shown.user != asked.user:
            raise invalid("cursor", "is of no list of this user; ask for a new list")
        items, rest = await gateway.recommending.page(shown, at[1], asked.k)
    except StoreError as error:
        raise busy("lists cannot be looked up now; ask for a new one.") from error
    gateway.metrics.answered(shown, slice(at[1], rest), made=False)
    return _page(shown, items, rest)


def _page(shown: ShownList, items: list[Shown], rest: int | None) -> RecommendOut:
    return RecommendOut(
        list_id=shown.id,
        items=[
            RecommendedItem(
                one.item, one.score, one.probability, one.slot, Why(one.modality, one.because)
            )
            for one in items
        ],
        next=None if rest is None else cursor_of(shown.id, rest),
        version=shown.version,
        arm=shown.arm,
        degraded=shown.degraded,
    )


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/events",
        "Takes up to 1,000 events; an id that came before is a retry.",
        post_events,
        takes=EventsIn,
        gives=EventsOut,
        browser=True,
    ),
    Endpoint(
        "POST",
        "/v1/recommend",
        "Recommends items to a user.",
        post_recommend,
        takes=RecommendIn,
        gives=RecommendOut,
        browser=True,
    ),
)
