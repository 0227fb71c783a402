"""The routes of the page."""

import asyncio
import hashlib
import pathlib
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mmrec_tf.errors import ConfigError
from serving.gateway.http.app import observed, refuse_other_origins
from serving.gateway.http.endpoint import Handler
from serving.gateway.http.forms import MOST_BODY_BYTES, Form, content_of, one_of, read_form
from serving.gateway.http.routes_items import find, item_out, search, similar
from serving.gateway.lists.requests import Wish
from serving.gateway.messages import RawEvents
from serving.gateway.page import views
from serving.gateway.page.elements import item_name
from serving.gateway.refusals import Refusal, invalid
from serving.gateway.service import Gateway
from serving.gateway.store.records import EVENT_TYPES, History, Item, ShownList
from serving.gateway.store.store import StoreError

_FILES = {
    "style.css": "text/css; charset=utf-8",
    "page.mjs": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_K = 10
_STRANGER = "guest"
# A browser reads no answer before it has sent all that it wanted to: so much is passed over, that a
# page may say what is wrong with it.
_MOST_PASSED_OVER = 2**30
# How long a page waits to hear what the model takes; else it offers everything.
_TAKES_SECONDS = 0.25
_SAID = {
    "like": "You like {}.",
    "hide": "{} is not shown to you again.",
    "withdraw": "{} was withdrawn.",
    "forget": "You were forgotten: history, lists and clicks are gone.",
}


def page_routes(gateway: Gateway) -> list[Route]:
    """All routes of the page."""

    def route(path: str, handler: Handler, method: str, most: int = MOST_BODY_BYTES) -> Route:
        async def serve(request: Request) -> Response:
            refuse_other_origins(request)
            return await _shown(gateway, request, handler)

        told = observed(gateway, path, serve)
        return Route(path, told, methods=[method], max_body_size=most)

    return [
        route("/", get_home, "GET"),
        route("/similar", get_similar, "GET"),
        route("/search", post_search, "POST", _MOST_PASSED_OVER),
        route("/page/event", post_event, "POST"),
        route("/page/items", post_item, "POST", _MOST_PASSED_OVER),
        route("/page/withdraw", post_withdraw, "POST"),
        route("/page/forget", post_forget, "POST"),
        route("/page/{file}", get_file, "GET"),
    ]


async def _shown(gateway: Gateway, request: Request, handler: Handler) -> Response:
    """An answer with the headers of the page; what goes wrong as a page."""
    try:
        response = await handler(gateway, request)
    except (Refusal, ConfigError, StoreError) as error:
        status = error.status if isinstance(error, Refusal) else 503
        user = request.query_params.get("user", "") or _STRANGER
        response = HTMLResponse(views.failed(user[:256], str(error)), status)
    response.headers.update(
        {name: value for name, value in _HEADERS.items() if name.lower() not in response.headers}
    )
    return response


def user_of(values: Mapping[str, str]) -> str:
    """Whom the page is for."""
    return values.get("user", "").strip()[:256] or _STRANGER


async def get_home(gateway: Gateway, request: Request) -> Response:
    """The list of a user, and what changed since the last one."""
    user = user_of(request.query_params)
    store = gateway.store
    before = await store.last_list(user)
    shown = await gateway.recommending.make(Wish(user=user, k=_K))
    gateway.metrics.answered(shown, slice(0, _K), made=True)
    gateway.events.reflect(user)
    page = shown.items[:_K]
    history = await store.history(user)
    items = await store.items_of(_named(shown, history))
    did, item = request.query_params.get("did", ""), request.query_params.get("item", "")[:256]
    said = []
    if did in _SAID:
        said.append(_SAID[did].format(item_name(items.get(item) or await store.item(item), item)))
    said += changes(before, shown, items)
    view = views.Home(user, shown, page, items, history, said, await _taken(gateway))
    return HTMLResponse(views.home(view))


async def _taken(gateway: Gateway) -> set[str] | None:
    """What the model takes; None while that is not known."""
    try:
        async with asyncio.timeout(_TAKES_SECONDS):
            return await gateway.intake.takes()
    except TimeoutError:
        return None


async def _read_upload(request: Request, *, words: tuple[str, ...]) -> Form:
    """A form with files.

    Raises:
      Refusal: as `read_form`; for one that is too large, once all of it has come.
    """
    declared = request.headers.get("content-length", "")
    if not declared.isdigit():
        raise Refusal(411, "length_required", "wanted a Content-Length.")
    if int(declared) > MOST_BODY_BYTES:
        async for _ in request.stream():
            pass
        raise Refusal(
            413,
            "too_large",
            f"All files together: wanted at most {MOST_BODY_BYTES // 2**20} MiB; got "
            f"{int(declared) / 2**20:,.1f} MiB.",
        )
    return await read_form(request, words=words)


def _named(shown: ShownList, history: History) -> set[str]:
    """The items that the page names."""
    named = {*history.liked[-views.MOST_HISTORY_SHOWN :], *history.disliked[-5:]}
    for one in shown.items[:_K]:
        named |= {one.item, one.because}
    return named - {""}


def changes(before: ShownList | None, now: ShownList, items: Mapping[str, Item]) -> list[str]:
    """What is new in a list, and what is gone, in words."""
    if before is None:
        return ["This is your first list."]
    was = [one.item for one in before.items[:_K]]
    is_now = [one.item for one in now.items[:_K]]
    came = [item_name(items.get(one), one) for one in is_now if one not in was]
    gone = len(set(was) - set(is_now))
    if not came and not gone:
        same = was == is_now
        return ["The list is as it was." if same else "The same items, in another order."]
    told = [f"New in the list: {', '.join(came)}."] if came else []
    return [*told, f"{gone} of {len(was)} left it."] if gone else told


async def get_similar(gateway: Gateway, request: Request) -> Response:
    """Items near to one."""
    user, item = user_of(request.query_params), request.query_params.get("item", "")
    found = await similar(gateway, item, _K)
    items = await gateway.store.items_of([item, *(one.item for one in found.items)])
    title = f"Similar to {item_name(items.get(item), item)}"
    taken = await _taken(gateway)
    return HTMLResponse(views.found(user, title, found, items, taken=taken))


async def post_search(gateway: Gateway, request: Request) -> Response:
    """Items near to words, a picture, a sound or a clip."""
    form = await _read_upload(request, words=("user", "text"))
    words = one_of(form, "text").strip()
    content = content_of(form)
    found = await search(gateway, content._replace(title="", text=words), _K)
    items = await gateway.store.items_of([one.item for one in found.items])
    what = [f"“{words}”"] * bool(words) + ["a picture"] * bool(content.images)
    what += ["a sound"] * bool(content.sounds) + ["a clip"] * bool(content.videos)
    title, user = f"Found for {' and '.join(what)}", one_of(form, "user") or _STRANGER
    taken = await _taken(gateway)
    return HTMLResponse(views.found(user, title, found, items, taken=taken, words=words))


async def post_event(gateway: Gateway, request: Request) -> Response:
    """Takes a click, and shows the next list."""
    form = await read_form(request, words=("user", "item", "list", "position", "type"))
    given = {name: one_of(form, name) for name in ("user", "item", "list", "type")}
    if given["type"] not in EVENT_TYPES:
        raise invalid("type", f"unknown type {given['type'][:40]!r}")
    event: dict[str, str | int] = {"id": secrets.token_urlsafe(16), **given}
    place = one_of(form, "position")
    if place.isascii() and place.isdigit():
        event["position"] = int(place[:5])
    taken = await gateway.events.add(RawEvents(events=[msgspec.Raw(msgspec.json.encode(event))]))
    if taken.rejected:
        raise invalid("event", taken.rejected[0].reason)
    return _see(given["user"], given["type"], given["item"])


async def post_item(gateway: Gateway, request: Request) -> Response:
    """Puts an item."""
    words = ("user", "id", "title", "text", "categories", "price")
    form = await _read_upload(request, words=words)
    item_id = one_of(form, "id").strip()
    if not item_id or len(item_id) > 256:
        raise invalid("id", "wanted 1 to 256 characters")
    taken = await gateway.intake.put(item_id, content_of(form))
    told = item_out(gateway, taken.item, unused=taken.unused)
    return HTMLResponse(views.added(one_of(form, "user") or _STRANGER, told))


async def post_withdraw(gateway: Gateway, request: Request) -> Response:
    """Withdraws an item."""
    form = await read_form(request, words=("user", "item"))
    await find(gateway, one_of(form, "item"))
    await gateway.store.withdraw(one_of(form, "item"))
    return _see(one_of(form, "user"), "withdraw", one_of(form, "item"))


async def post_forget(gateway: Gateway, request: Request) -> Response:
    """Erases a user."""
    form = await read_form(request, words=("user",))
    user = one_of(form, "user")
    await gateway.erase(user)
    return _see(user, "forget", "")


def _see(user: str, did: str, item: str) -> Response:
    query = {"user": user, "did": did} | ({"item": item} if item else {})
    return RedirectResponse(f"/?{urlencode(query)}", 303)


async def get_file(gateway: Gateway, request: Request) -> Response:
    """The style, the script and the icon."""
    name = request.path_params["file"]
    if name not in _FILES:
        raise Refusal(404, "not_found", "there is no such file.")
    data = (pathlib.Path(__file__).parent / name).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_FILES[name], headers=headers)
