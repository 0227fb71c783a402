"""Whole pages."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import NamedTuple

from mmrec_tf.media.audio import MAX_SECONDS
from mmrec_tf.media.video import NUM_FRAMES
from serving.gateway.http.forms import MOST_BODY_BYTES, MOST_FILE_BYTES, MOST_FILES
from serving.gateway.messages import FoundOut, ItemOut
from serving.gateway.page.elements import (
    chance,
    facts,
    field,
    filmed,
    form,
    item_name,
    link,
    listed,
    media,
    meters,
    notes,
    sound,
    tag,
    uploads,
    why,
)
from serving.gateway.store.records import History, Item, Shown, ShownList

MOST_HISTORY_SHOWN = 8


class Home(NamedTuple):
    """What the first page shows.

    Attributes:
      user: id.
      shown: the list.
      page: its first places.
      items: what is known of all items that are named, by id.
      history: of the user.
      said: what happened, a sentence each.
      taken: what the model takes of words, "image", "audio" and "video"; None where that is not
        known.
    """

    user: str
    shown: ShownList
    page: Sequence[Shown]
    items: Mapping[str, Item]
    history: History
    said: Sequence[str]
    taken: Collection[str] | None = None


def document(title: str, main: str, *, user: str) -> str:
    """A document around what it shows."""
    head = "".join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", escape(title)),
            tag("link", rel="stylesheet", href="/page/style.css"),
            tag("link", rel="icon", href="/page/icon.svg", type="image/svg+xml"),
            tag("script", "", type="module", src="/page/page.mjs"),
        ]
    )
    who = tag(
        "form",
        field("You are", "user", value=user, maxlength="256", required=True, autocomplete="off")
        + tag("button", "Switch"),
        action="/",
        class_="who",
        data_live=True,
    )
    name = link("Live recommendations", "/", {"user": user}, class_="name")
    header = tag("header", tag("p", name) + who)
    skip = tag("a", "To the list", href="#list", class_="skip")
    record = tag(
        "template",
        tag("button", "Record a sound", type="button", class_="record"),
        id="record",
    )
    body = skip + header + tag("main", main, id="live") + record
    return "<!doctype html>" + tag("html", tag("head", head) + tag("body", body), lang="en")


def home(view: Home) -> str:
    """The list, what it goes by, search, and a form for new items."""
    names = {item_id: item_name(item, item_id) for item_id, item in view.items.items()}
    cards = listed(
        (card(view, one, place, names) for place, one in enumerate(view.page)), class_="cards"
    )
    if not view.page:
        cards = tag("p", "There is nothing to show: no item fits, or none is known yet.")
    told = [f"Version {view.shown.version}"] if view.shown.version else []
    told += [f"arm {view.shown.arm}"] if view.shown.arm != "default" else []
    told += [f"without: {', '.join(view.shown.degraded)}"] if view.shown.degraded else []
    heading = tag("h1", "For you", id="list", tabindex="-1")
    below = tag("p", escape(" · ".join(told)), class_="facts") if told else ""
    # On narrow screens both stand below all cards.
    ways = tag("a", "Search", href="#search") + " " + tag("a", "Add an item", href="#add")
    jump = tag("p", ways, class_="jump")
    main = tag("section", heading + jump + below + cards, aria_labelledby="list")
    side = status(view.said) + history(view, names)
    side += search_form(view.user, view.taken) + add_form(view.user, view.taken)
    return document("For you", main + tag("aside", side), user=view.user)


def card(view: Home, shown: Shown, place: int, names: Mapping[str, str]) -> str:
    """One item of the list, with what can be done with it."""
    item = view.items.get(shown.item)
    name = names.get(shown.item, shown.item)
    fields = {"user": view.user, "item": shown.item, "list": view.shown.id, "position": str(place)}
    buttons = "".join(
        form(
            "/page/event",
            {**fields, "type": kind},
            tag("button", label, aria_label=f"{label}: {name}", class_=kind),
        )
        for kind, label in (("like", "Like"), ("hide", "Not for me"))
    )
    more = link(
        "Similar",
        "/similar",
        {"user": view.user, "item": shown.item},
        aria_label=f"Similar to {name}",
    )
    body = tag("h2", escape(name)) + facts(item) + sound(item, shown.item)
    body += why(shown, names) + chance(shown)
    acts = tag("div", buttons + more, class_="acts")
    return tag("article", media(item, shown.item) + tag("div", body + acts, class_="body"))


def status(said: Sequence[str]) -> str:
    """What happened, read out by screen readers."""
    inner = tag("h2", "What changed") + (notes(said) or tag("p", "Nothing yet."))
    return tag("section", inner, role="status", aria_live="polite", id="status", class_="panel")


def history(view: Home, names: Mapping[str, str]) -> str:
    """What the list goes by."""
    liked = list(reversed(view.history.liked))
    rows = [escape(names.get(one, one)) for one in liked[:MOST_HISTORY_SHOWN]]
    inner = listed(rows) if rows else tag("p", "Empty: like something.")
    if len(liked) > MOST_HISTORY_SHOWN:
        inner += tag("p", f"and {len(liked) - MOST_HISTORY_SHOWN} before", class_="facts")
    if view.history.disliked:
        hidden = ", ".join(names.get(one, one) for one in view.history.disliked[-5:])
        inner += tag("p", "Not for you: " + escape(hidden), class_="facts")
    inner += form("/page/forget", {"user": view.user}, tag("button", "Forget me", class_="quiet"))
    return tag("section", tag("h2", "Your history, newest first") + inner, class_="panel")


def search_form(user: str, taken: Collection[str] | None, words: str = "") -> str:
    """Search by words, a picture, a sound or a clip."""
    inner = field("Words", "text", type="search", value=words, maxlength="500")
    inner += uploads(taken, most_bytes=MOST_FILE_BYTES, several=False)
    inner += tag("button", "Search")
    shown = form("/search", {"user": user}, inner, upload=True)
    return tag("section", tag("h2", "Search") + shown, class_="panel", id="search")


def add_form(user: str, taken: Collection[str] | None) -> str:
    """A form for a new item."""
    inner = field("Id", "id", required=True, maxlength="100", autocomplete="off")
    inner += field("Title", "title", maxlength="200", autocomplete="off")
    inner += field("Description", "text", maxlength="2000", autocomplete="off")
    inner += field("Categories, such as genre=comedy", "categories", autocomplete="off")
    inner += field("Price", "price", inputmode="decimal", autocomplete="off")
    inner += uploads(taken, most_bytes=MOST_FILE_BYTES, several=True)
    inner += tag("p", escape(" ".join(limits(taken))), class_="facts")
    inner += tag("button", "Add")
    shown = form("/page/items", {"user": user}, inner, upload=True)
    return tag("section", tag("h2", "Add an item") + shown, class_="panel", id="add")


def limits(taken: Collection[str] | None) -> list[str]:
    """What is read of files, and what is not, in sentences."""

    def reads(name: str) -> bool:
        return taken is None or name in taken

    kinds = {"image": "pictures", "audio": "sounds", "video": "clips"}
    lines = []
    if any(reads(name) for name in kinds):
        lines.append(
            f"A file may have {MOST_FILE_BYTES // 2**20} MiB, all together "
            f"{MOST_BODY_BYTES // 2**20} MiB; at most {MOST_FILES} files of a kind, one clip."
        )
    if reads("audio"):
        lines.append(f"Of a sound the loudest {MAX_SECONDS:g} seconds are read.")
    if reads("video"):
        own = ", and not its sound: add that as a sound" if reads("audio") else ""
        lines.append(f"Of a clip {NUM_FRAMES} frames are read{own}.")
    if missing := [text for name, text in kinds.items() if not reads(name)]:
        lines.append(f"This model was trained without {' and '.join(missing)}.")
    return lines


def found(
    user: str,
    title: str,
    answer: FoundOut,
    items: Mapping[str, Item],
    *,
    taken: Collection[str] | None,
    words: str = "",
) -> str:
    """Items that a search found, or that are similar to one."""
    rows = []
    for one in answer.items:
        item = items.get(one.item)
        name = item_name(item, one.item)
        near = tag("p", f"Nearness {one.score:.2f}", class_="chance")
        fields = {"user": user, "item": one.item, "type": "like"}
        like = form("/page/event", fields, tag("button", "Like", aria_label=f"Like: {name}"))
        more = link("Similar", "/similar", {"user": user, "item": one.item})
        body = tag("h2", escape(name)) + facts(item) + sound(item, one.item) + near
        body += tag("div", like + more, class_="acts")
        rows.append(tag("article", media(item, one.item) + tag("div", body, class_="body")))
    inner = listed(rows, class_="cards") if rows else tag("p", "Nothing was found.")
    said = [f"{len(rows)} items found."] + [f"Not read: {one}." for one in answer.unreadable]
    main = tag("section", tag("h1", escape(title), id="list", tabindex="-1") + inner)
    side = status(said) + search_form(user, taken, words)
    return document(title, main + tag("aside", side), user=user)


def added(user: str, item: ItemOut) -> str:
    """An item that was just put."""
    states = {"live": "It is in the lists from now on.", "pending": "The encoder is busy: soon."}
    said = [f"{item.title or item.id} was added. {states.get(item.state, '')}"]
    said += [f"Not read: {one}." for one in item.unreadable]
    said += [f"This model has no use for: {', '.join(item.unused)}."] if item.unused else []
    inner = tag("h1", "Added", id="list", tabindex="-1") + notes(said)
    picture = tag("img", src=item.images[0], alt="", width="320") if item.images else ""
    picture += filmed(item.frames)
    counts = tag("h2", "What counts") + meters(item.weights) if item.weights else ""
    query = {"user": user, "item": item.id}
    links = link("Back to your list", "/", {"user": user}) + " "
    links += link("Similar items", "/similar", query)
    withdraw = form("/page/withdraw", query, tag("button", "Withdraw it", class_="quiet"))
    return document(
        "Added", tag("section", inner + picture + counts + tag("p", links) + withdraw), user=user
    )


def failed(user: str, message: str) -> str:
    """What went wrong, and the way back."""
    inner = tag("h1", "That did not work", id="list", tabindex="-1")
    inner += tag("p", escape(message), role="alert")
    inner += tag("p", link("Back to your list", "/", {"user": user}))
    return document("That did not work", tag("section", inner), user=user)
