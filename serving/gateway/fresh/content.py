"""What was put of an item -> what is kept, and what the encoder is asked."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmrec_tf.errors import MediaError
from mmrec_tf.media import audio, image, text, video
from serving.gateway.store.records import Item


class PutContent(NamedTuple):
    """What came with an item.

    Attributes:
      title, text: words.
      categories: such as "genre=comedy".
      price: None for none.
      images, sounds, videos: files as they came; at most one video.
    """

    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    images: tuple[bytes, ...] = ()
    sounds: tuple[bytes, ...] = ()
    videos: tuple[bytes, ...] = ()

    @property
    def named(self) -> str:
        """The field of whatever files came; "text" where none did."""
        kinds = {"image": self.images, "audio": self.sounds, "video": self.videos}
        return next((name for name, files in kinds.items() if files), "text")

    def digest(self) -> str:
        """A hash of all of it."""
        hashed = hashlib.blake2b(digest_size=16)
        words = [self.title, self.text, repr(self.price), *sorted(self.categories)]
        parts = [part.encode("utf-8", "surrogateescape") for part in words]
        files = [b"images", *self.images, b"sounds", *self.sounds]
        files += [b"videos", *self.videos] if self.videos else []
        for part in [*parts, *files]:
            hashed.update(len(part).to_bytes(8, "little") + part)
        return hashed.hexdigest()


class Prepared(NamedTuple):
    """The same as `data.prepare` would have made it, a video as its frames, and what could not be
    read."""

    title: str
    text: str
    images: list[bytes]
    sounds: list[bytes]
    frames: list[bytes]
    unreadable: list[str]

    @property
    def empty(self) -> bool:
        """Whether nothing could be read."""
        return not any(self[:-1])


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
    frames = list[bytes]()
    for place, data in enumerate(content.videos):
        try:
            frames += video.split_frames(video.prepare(data))
        except MediaError as error:
            unreadable.append(f"video {place + 1}: {error}")
    title, words = text.prepare(content.title), text.prepare(content.text)
    return Prepared(title, words, images, sounds, frames, unreadable)


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
      files: its pictures, sounds and frames, by "image", "audio" and "video".
      takes: the inputs of the signature.
    """
    words = item_text(item)
    has: dict[str, Any] = {
        "text": [words] if words else [],
        "image": list(files.get("image", ())),
        "audio": list(files.get("audio", ())),
        "video": list(files.get("video", ())),
        "features": entries_of(item),
    }
    given = {name: [values] for name, values in has.items() if values and name in takes}
    unused = [name for name, values in has.items() if values and name not in takes]
    return given, unused
