"""Pieces of HTML; whatever comes from outside is escaped here."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote, urlencode

from serving.gateway.store.records import Item, Shown

_SLOTS = {
    "fresh": ("New", "Added after the model was trained"),
    "explore": ("Trying out", "Drawn to find out whether people like it"),
    "last": ("From your last list", "The model does not answer just now"),
    "popular": ("Popular", "The model does not answer just now"),
}
_MODALITIES = {
    "text": "its words",
    "image": "its picture",
    "audio": "its sound",
    "video": "its video",
}


def tag(name: str, inner: str = "", /, **attributes: str | bool | None) -> str:
    """An element; `class_` and the like lose their underline, `data_x` becomes `data-x`.

    Args:
      name: such as "p".
      inner: HTML.
      attributes: True for one without a value; False and None leave it out.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(value)}"')
    opened = f"<{' '.join(parts)}>"
    return opened if name in ("input", "img", "meta", "link") else f"{opened}{inner}</{name}>"


def link(text: str, path: str, query: Mapping[str, str], **attributes: str | bool | None) -> str:
    """A link within the page."""
    return tag("a", escape(text), href=f"{path}?{urlencode(query)}", **attributes)


def form(
    action: str, fields: Mapping[str, str], inner: str, *, upload: bool = False, **more: str
) -> str:
    """A form that is posted, with hidden fields. The user stands in the address, too, which can be
    read where the rest is refused."""
    hidden = "".join(tag("input", type="hidden", name=k, value=v) for k, v in fields.items())
    if "user" in fields:
        action += f"?{urlencode({'user': fields['user']})}"
    kind = "multipart/form-data" if upload else None
    return tag(
        "form", hidden + inner, method="post", action=action, enctype=kind, data_live=True, **more
    )


def item_name(item: Item | None, item_id: str) -> str:
    """What an item is called: its title, the begin of its words, or its id."""
    if item is None:
        return item_id
    words = item.title or item.text
    return (words if len(words) <= 60 else words[:59].rstrip() + "…") or item_id


def meters(weights: Mapping[str, float]) -> str:
    """How much each modality counts, as bars with numbers."""
    rows = []
    for name, weight in weights.items():
        bar = tag(
            "meter", "", min="0", max="1", value=f"{weight:.3f}", aria_label=f"weight of {name}"
        )
        rows.append(tag("dt", escape(name)) + tag("dd", bar + f" {100 * weight:.0f}&nbsp;%"))
    return tag("dl", "".join(rows), class_="meters") if rows else ""


def media(item: Item | None, item_id: str) -> str:
    """The item's first picture, else the first frame of its video, or a blank one."""
    if item is None or not (item.images or item.frames):
        return tag("div", "no picture", class_="blank", aria_hidden="true")
    kind = "image" if item.images else "video"
    source = f"/v1/items/{quote(item_id, safe='')}/{kind}/0"
    return tag("img", src=source, alt="", loading="lazy", width="320", height="240")


def filmed(paths: Sequence[str]) -> str:
    """What was taken of a clip: its frames, in order; nothing where there are none."""
    if not paths:
        return ""
    pictures = (
        tag("img", src=path, alt=f"Frame {place} of the clip", loading="lazy", width="160")
        for place, path in enumerate(paths, 1)
    )
    heading = tag("h2", f"{len(paths)} frames of the clip count")
    return heading + listed(pictures, class_="frames")


def sound(item: Item | None, item_id: str) -> str:
    """A player of the item's first sound; nothing where it has none."""
    if item is None or not item.sounds:
        return ""
    source = f"/v1/items/{quote(item_id, safe='')}/audio/0"
    name = f"Sound of {item_name(item, item_id)}"
    return tag("audio", "", controls=True, preload="none", src=source, aria_label=name)


def facts(item: Item | None) -> str:
    """Price and categories."""
    if item is None:
        return ""
    told = [] if item.price is None else [f"{item.price:,.2f}"]
    told += [part.partition("=")[2] for part in item.categories]
    return tag("p", escape(" · ".join(told)), class_="facts") if told else ""


def why(shown: Shown, names: Mapping[str, str]) -> str:
    """Why an item stands in the list."""
    told = []
    if shown.because:
        told.append(f"Because of {names.get(shown.because, shown.because)}")
    if shown.modality:
        told.append(f"mostly {_MODALITIES.get(shown.modality, shown.modality)}")
    text = escape(", ".join(told) or "Nothing is known of you yet" if not told else ", ".join(told))
    if shown.slot in _SLOTS:
        label, meaning = _SLOTS[shown.slot]
        text = tag("span", label, class_=f"slot {shown.slot}") + " " + (text if told else meaning)
    return tag("p", text, class_="why")


def chance(shown: Shown) -> str:
    """How probable a click is, as a bar with a number."""
    if shown.probability is None:
        return ""
    value = shown.probability
    bar = tag("meter", "", min="0", max="1", value=f"{value:.3f}", aria_label="chance of a click")
    return tag("p", bar + f" {100 * value:.0f}&nbsp;% chance of a click", class_="chance")


def listed(rows: Iterable[str], **attributes: str | bool | None) -> str:
    """An ordered list."""
    return tag("ol", "".join(tag("li", row) for row in rows), **attributes)


def field(label: str, name: str, **attributes: str | bool | None) -> str:
    """A labeled input."""
    return tag("label", tag("span", escape(label)) + tag("input", name=name, **attributes))


def uploads(taken: Collection[str] | None, *, most_bytes: int, several: bool) -> str:
    """Fields of a picture, a sound and a clip.

    Args:
      taken: what the model takes of "image", "audio" and "video"; None where that is not known.
      most_bytes: of a file, which the script says before it is sent.
      several: whether pictures and sounds may be several.
    """
    fields = ""
    for name, label, accept in (
        ("image", "Picture", "image/*"),
        ("audio", "Sound", "audio/*"),
        ("video", "Clip", "video/*,image/gif,image/webp"),
    ):
        if taken is None or name in taken:
            many = several and name != "video"
            fields += field(
                label + "s" * many,
                name,
                type="file",
                accept=accept,
                multiple=many,
                data_record=name == "audio",
                data_most_bytes=str(most_bytes),
            )
    return fields


def notes(lines: Sequence[str]) -> str:
    """What is said to people, a paragraph each."""
    return "".join(tag("p", escape(line)) for line in lines)
