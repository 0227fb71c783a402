"""The requests and answers of the service; the OpenAPI page is made of them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

MOST_EVENTS = 1000
MOST_K = 50
# Entries of a list in a request.
MOST_LISTED = 500
Id = Annotated[str, Meta(min_length=1, max_length=256)]
OptionalId = Annotated[str, Meta(max_length=256)]
Ids = Annotated[list[Id], Meta(max_length=MOST_LISTED)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class EventIn(_Strict, frozen=True):
    """One event: `time` in seconds since 1970 UTC, the server's own where it is left out."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    user: Id
    item: Id
    type: Annotated[str, Meta(min_length=1, max_length=32)]
    time: float | None = None
    list: OptionalId = ""
    position: Annotated[int, Meta(ge=0, le=9999)] | None = None


class EventsIn(_Strict, frozen=True):
    """Up to 1,000 events."""

    events: Annotated[list[EventIn], Meta(min_length=1, max_length=MOST_EVENTS)]


class RawEvents(_Strict, frozen=True):
    """The same with events not looked into yet, so that one that is wrong rejects itself alone."""

    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_EVENTS)]


class Rejected(msgspec.Struct, frozen=True):
    """An event that was not taken, by its place in the request; sending it again changes nothing,
    unless the reason says so."""

    index: int
    reason: str


class EventsOut(msgspec.Struct, frozen=True):
    """How many events are in the log now, how many were there before, and which were not taken."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class RecommendIn(_Strict, frozen=True):
    """Whom a list is for. Without `user` and `history` it is for a stranger; `history` replaces
    what is stored. With `cursor` the rest of an earlier list is answered, and `user` and `k` alone
    may be given beside it."""

    user: OptionalId = ""
    history: Ids | None = None
    k: Annotated[int, Meta(ge=1, le=MOST_K)] = 10
    allow: Ids = []
    deny: Ids = []
    exclude: Ids = []
    cursor: Annotated[str, Meta(max_length=128)] = ""


class Why(msgspec.Struct, frozen=True, gc=False):
    """The modality and the item of the history that weighed most; "" for none."""

    modality: str
    item: str


class RecommendedItem(msgspec.Struct, frozen=True, gc=False):
    """One place of a list. `slot` says why it stands here: "model", "fresh", "explore", "last" (the
    user's last list) or "popular"; the last two have no score."""

    item: str
    score: float | None
    probability: float | None
    slot: str
    why: Why


class RecommendOut(msgspec.Struct, frozen=True):
    """A list. `next` is the cursor of the next page, null after the last one; `degraded` says what
    the list had to do without: "model", "fresh", "history"."""

    list_id: str = msgspec.field(name="list")
    items: list[RecommendedItem]
    next: str | None
    version: int
    arm: str
    degraded: list[str]


class FoundItem(msgspec.Struct, frozen=True):
    """An item and how near it is, as a cosine."""

    item: str
    score: float


class FoundOut(msgspec.Struct, frozen=True):
    """Items found, the nearest first; `unreadable` names what was sent and could not be read."""

    items: list[FoundItem]
    version: int
    unreadable: list[str] = []
    degraded: list[str] = []


class ItemOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item. `state` is "catalog", "pending", "live", "published" or "withdrawn"; `weights` says
    how much each modality counts, `unused` what this model has no use for."""

    id: str
    state: str
    title: str = ""
    text: str = ""
    categories: list[str] = []
    price: float | None = None
    images: list[str] = []
    sounds: list[str] = []
    frames: list[str] = []
    weights: dict[str, float] = {}
    unreadable: list[str] = []
    unused: list[str] = []


class ItemsOut(msgspec.Struct, frozen=True):
    """Items by id, and the cursor of the next page."""

    items: list[ItemOut]
    next: str | None


class UserOut(msgspec.Struct, frozen=True):
    """What is kept of a user."""

    user: str
    history: list[str]
    disliked: list[str]
    events: int
    lists: int
    arm: str
    erased: bool


class ErasedOut(msgspec.Struct, frozen=True):
    """That a user is erased here, and what still holds the user until it is made anew."""

    erased: bool
    remains_in: list[str]


class Error(msgspec.Struct, frozen=True):
    """What is wrong: a code for programs, a message, and the field at fault."""

    code: str
    message: str
    field: str = ""


class ErrorOut(msgspec.Struct, frozen=True):
    """The body of every answer of 4xx and 5xx."""

    error: Error


def field_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """The field at fault, "" for the whole body, and what is wrong with it."""
    text, _, path = str(error).rpartition(" - at `")
    if not text:
        return "", str(error)
    return path.rstrip("`").removeprefix("$").lstrip("."), text


def json_schemas(types: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """JSON schemas of some messages, and what they refer to."""
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    return list(schemas), components
