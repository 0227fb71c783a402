"""Items: put, read, withdrawn; their neighbors, and search."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import LOWEST_SCORE
from serving.client import FoundItems, SimilarItems
from serving.gateway.fresh.content import PutContent, prepare
from serving.gateway.http.endpoint import Endpoint, answer, whole_number
from serving.gateway.http.forms import content_of, one_of, read_form
from serving.gateway.messages import FoundItem, FoundOut, ItemOut, ItemsOut
from serving.gateway.models.servers import Unanswered
from serving.gateway.refusals import Refusal, busy, invalid
from serving.gateway.service import Gateway
from serving.gateway.store.records import Item

ITEM_FIELDS = (
    ("title", "words"),
    ("text", "words"),
    ("categories", "such as genre=comedy, several with commas between them"),
    ("price", "a number"),
    ("image", "a picture, may come several times"),
    ("audio", "a sound, may come several times"),
    ("video", "a video, such as MP4, or an animated GIF or WebP; of a model that takes them"),
)
SEARCH_FIELDS = (
    ("text", "words"),
    ("image", "a picture"),
    ("audio", "a sound"),
    ("video", "a video"),
    ("k", "at most"),
)
_PAGE = 100
_K = 10
_TYPES = {"image": "image/jpeg", "audio": "audio/wav", "video": "image/jpeg"}


def item_id(request: Request) -> str:
    """The id in the path."""
    found = str(request.path_params["id"])
    if len(found) > 256:
        raise invalid("id", f"wanted at most 256 characters; got {len(found)}")
    return found


async def put_item(gateway: Gateway, request: Request) -> Response:
    """Takes an item in; the same content again changes nothing."""
    form = await read_form(request, words=("title", "text", "categories", "price"))
    taken = await gateway.intake.put(item_id(request), content_of(form))
    status = 202 if taken.item.state == "pending" else 201 if taken.created else 200
    return answer(item_out(gateway, taken.item, unused=taken.unused), status=status)


async def get_item(gateway: Gateway, request: Request) -> Response:
    """One item."""
    return answer(item_out(gateway, await find(gateway, item_id(request))))


async def find(gateway: Gateway, item: str) -> Item:
    """An item; raises Refusal, a 404, where there is none."""
    found = await gateway.store.item(item)
    if found is None:
        raise Refusal(404, "not_found", f"no item has the id {item!r}.", field="id")
    return found


async def delete_item(gateway: Gateway, request: Request) -> Response:
    """Withdraws an item: from the answer on it is in no list."""
    await gateway.store.withdraw(item_id(request))
    return Response(status_code=204)


async def get_items(gateway: Gateway, request: Request) -> Response:
    """Items by id, a page at a time."""
    most = whole_number(request, "limit", least=1, most=_PAGE, default=_PAGE)
    items = await gateway.store.items(request.query_params.get("cursor", ""), most)
    rest = items[-1].id if len(items) == most else None
    return answer(ItemsOut([item_out(gateway, item) for item in items], rest))


async def get_media(gateway: Gateway, request: Request) -> Response:
    """A picture, a sound or a frame of an item, as the model is given it."""
    kind, place = request.path_params["kind"], int(request.path_params["place"])
    data = await gateway.store.media(item_id(request), kind, place) if kind in _TYPES else None
    if data is None:
        raise Refusal(404, "not_found", "there is no such file.")
    headers = {"Cache-Control": "private, max-age=60", "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type=_TYPES[kind], headers=headers)


async def get_similar(gateway: Gateway, request: Request) -> Response:
    """Neighbors of an item; of one that is fresh, those of its content."""
    k = whole_number(request, "k", least=1, most=50, default=_K)
    return answer(await similar(gateway, item_id(request), k))


async def similar(gateway: Gateway, item: str, k: int) -> FoundOut:
    """As `get_similar`."""
    await gateway.pool.refresh()
    asked = item
    for version in gateway.pool.versions():
        embedding = (await gateway.pool.embedded(version)).embeddings.get(item)
        asked = embedding.nearest if embedding else asked
    try:
        answered = await gateway.servers.similar(gateway.servers.arms[0], asked)
    except Unanswered:
        return FoundOut([], 0, degraded=["model"])
    found = _found(gateway, answered, k, without=item)
    if asked != item:  # What stands for it is the nearest of all.
        found = [FoundItem(asked, 1.0), *found][:k]
    return FoundOut(found, answered.version)


async def post_search(gateway: Gateway, request: Request) -> Response:
    """Items near to words, a picture or a sound."""
    form = await read_form(request, words=("text", "k"))
    k = one_of(form, "k") or str(_K)
    if not (k.isascii() and k.isdigit() and 1 <= int(k[:9]) <= 50):
        raise invalid("k", f"wanted a whole number from 1 to 50; got {k[:40]!r}")
    files = form.files
    content = PutContent(
        text=one_of(form, "text"),
        images=tuple(files.get("image", ())),
        sounds=tuple(files.get("audio", ())),
        videos=tuple(files.get("video", ())),
    )
    return answer(await search(gateway, content, int(k)))


async def search(gateway: Gateway, content: PutContent, k: int) -> FoundOut:
    """As `post_search`.

    Raises:
      Refusal: where there is nothing to search by, or the encoder does not take it.
    """
    if content.videos:
        await gateway.intake.require_videos()
    prepared = await prepare(content)
    asked: Mapping[str, Any] = {
        name: [values]
        for name, values in (
            ("text", [prepared.text] if prepared.text else []),
            ("image", prepared.images),
            ("audio", prepared.sounds),
            ("video", prepared.frames),
        )
        if values
    }
    if not asked:
        told = "; ".join(prepared.unreadable) or "nothing came"
        raise invalid(
            content.named, f"wanted words, a picture, a sound or a video that can be read; {told}"
        )
    try:
        found = await gateway.servers.search(gateway.servers.arms[0], asked)
    except Unanswered as error:
        raise busy("the encoder does not answer now; search again later.") from error
    except ConfigError as error:
        raise invalid(next(iter(asked)), str(error)) from error
    await gateway.pool.refresh()
    items = _found(gateway, found, k)
    return FoundOut(items, found.version, unreadable=prepared.unreadable)


def _found(
    gateway: Gateway, answered: FoundItems | SimilarItems, k: int, *, without: str = ""
) -> list[FoundItem]:
    rows = zip(answered.item_id[0], np.asarray(answered.score[0]), strict=True)
    return [
        FoundItem(str(item), float(score))
        for item, score in rows
        if item and score > LOWEST_SCORE and item not in gateway.pool.withdrawn and item != without
    ][:k]


def item_out(gateway: Gateway, item: Item, *, unused: list[str] | None = None) -> ItemOut:
    """An item as it is answered."""
    names = gateway.modalities
    if len(names) != len(item.weights):
        names = [f"modality {place}" for place in range(len(item.weights))]
    path = quote(item.id, safe="")
    return ItemOut(
        id=item.id,
        state="withdrawn" if item.withdrawn else item.state,
        title=item.title,
        text=item.text,
        categories=item.categories,
        price=item.price,
        images=[f"/v1/items/{path}/image/{place}" for place in range(item.images)],
        sounds=[f"/v1/items/{path}/audio/{place}" for place in range(item.sounds)],
        frames=[f"/v1/items/{path}/video/{place}" for place in range(item.frames)],
        weights=dict(zip(names, item.weights, strict=True)),
        unreadable=item.unreadable,
        unused=unused or [],
    )


# An id may hold a slash, so what is below an item comes before the item.
ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/items/{id:path}/similar",
        "Items near to an item.",
        get_similar,
        gives=FoundOut,
        browser=True,
        query=(("k", "at most 50"),),
    ),
    Endpoint(
        "GET",
        "/v1/items/{id:path}/{kind}/{place:int}",
        "A file of an item.",
        get_media,
        browser=None,
    ),
    Endpoint(
        "PUT",
        "/v1/items/{id:path}",
        "Puts an item, which is shown from then on; 202 while the encoder is slow.",
        put_item,
        gives=ItemOut,
        status=201,
        form=ITEM_FIELDS,
    ),
    Endpoint("GET", "/v1/items/{id:path}", "An item.", get_item, gives=ItemOut, browser=True),
    Endpoint(
        "DELETE", "/v1/items/{id:path}", "Withdraws an item at once.", delete_item, status=204
    ),
    Endpoint(
        "GET",
        "/v1/items",
        "Items by id.",
        get_items,
        gives=ItemsOut,
        browser=True,
        query=(("cursor", "`next` of the page before"), ("limit", "at most 100")),
    ),
    Endpoint(
        "POST",
        "/v1/search",
        "Items near to words, a picture or a sound.",
        post_search,
        gives=FoundOut,
        browser=True,
        form=SEARCH_FIELDS,
    ),
)
