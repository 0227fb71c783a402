"""What was put of an item -> what is kept, and what the encoder is asked."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmrec_tf.errors import MediaError
from mmrec_tf.media import audio, image, text
from serving.gateway.store.records import Item


class PutContent(NamedTuple):
    """What came with an item.

    Attributes:
      title, text: words.
      categories: such as "genre=comedy".
      price: None for none.
      images, sounds: files as they came.
    """

    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    images: tuple[bytes, ...] = ()
    sounds: tuple[bytes, ...] = ()

    def digest(self) -> str:
        """A hash of all of it."""
        hashed = hashlib.blake2b(digest_size=16)
        words = [self.title, self.text, repr(self.price), *sorted(self.categories)]
        parts = [part.encode("utf-8", "surrogateescape") for part in words]
        for part in [*parts, b"images", *self.images, b"sounds", *self.sounds]:
            hashed.update(len(part).to_bytes(8, "little") + part)
        return hashed.hexdigest()


class Prepared(NamedTuple):
    """The same as `data.prepare` would have made it, and what could not be read."""

    title: str
    text: str
    images: list[bytes]
    sounds: list[bytes]
    unreadable: list[str]


async def prepare(content: PutContent) -> Prepared:
    """Prepares words, pictures and sounds, in a thread: decoding takes a while."""
    return await asyncio.to_thread(_prepare, content)


def _prepare(content: PutContent) -> Prepared:
    images, sounds, unreadable = list[bytes](), list[bytes](), list[str]()
    for kind, files, kept in (
        ("image", content.images, images),
        ("audio", content.sounds, sounds),
    ):
        for place, data in enumerate(files):
            try:
                kept.append(image.prepare(data) if kind == "image" else audio.prepare(data))
            except MediaError as error:
                unreadable.append(f"{kind} {place + 1}: {error}")
    title, words = text.prepare(content.title), text.prepare(content.text)
    return Prepared(title, words, images, sounds, unreadable)


def item_text(item: Item) -> str:
    """The words that an encoder reads, joined as `data.prepare` joins columns."""
    whole = ""
    for part in filter(None, (item.title, item.text)):
        whole += (" " if whole.endswith((".", "!", "?")) else ". ") * bool(whole) + part
    return whole


def entries_of(item: Item) -> list[str]:
    """Side features as a model reads them: "genre=comedy", "price=9.5"."""
    return [*item.categories, *([] if item.price is None else [f"price={item.price:.10g}"])]


def encoder_inputs(
    item: Item, files: Mapping[str, Sequence[bytes]], takes: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """What `embed_item` is asked of an item, and what it has that this encoder does not take.

    Args:
      item: Item.
      files: its pictures and sounds, by "image" and "audio".
      takes: the inputs of the signature.
    """
    words = item_text(item)
    has: dict[str, Any] = {
        "text": [words] if words else [],
        "image": list(files.get("image", ())),
        "audio": list(files.get("audio", ())),
        "features": entries_of(item),
    }
    given = {name: [values] for name, values in has.items() if values and name in takes}
    unused = [name for name, values in has.items() if values and name not in takes]
    return given, unused
