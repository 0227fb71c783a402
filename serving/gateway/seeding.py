"""Takes over what a dataset directory knows: items as people see them, and who met what."""

import asyncio
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from serving.gateway.lists.requests import now_ms
from serving.gateway.store.records import MOST_HISTORY, Item
from serving.gateway.store.store import Store

_TOGETHER = 200
_LONGEST_TITLE = 80


class Seeded(NamedTuple):
    """What was taken over: the dataset's hash, items, users; and whether any of it is new."""

    name: str
    items: int
    users: int
    new: bool


async def seed(store: Store, directory: str | pathlib.Path, *, media: bool = True) -> Seeded:
    """Takes over items and all interactions of a dataset, as exports know them, once.

    Args:
      store: Store, open.
      directory: a dataset directory.
      media: whether pictures and sounds are kept for the page; they take as much room as there.

    Raises:
      DatasetError: when it cannot be read.
    """
    import mmrec_tf

    dataset = mmrec_tf.open_dataset(directory, content_memory_mb=0)
    known = dataset.histories(history="all")
    users = dataset.users.user_id
    items = dataset.catalog.item_id
    counts = Counter(items[known.item].tolist())

    def histories() -> Iterator[tuple[str, Sequence[tuple[str, int]]]]:
        ends = known.offset
        for number, user in enumerate(users):
            rows = slice(max(ends[number], ends[number + 1] - MOST_HISTORY), ends[number + 1])
            names = items[known.item[rows]].tolist()
            # Of a dataset without times, all of them are equal.
            times = [0] * len(names) if known.time is None else known.time[rows].tolist()
            # Of the same second, the order of the dataset counts.
            yield (
                str(user),
                [
                    (name, 1000 * time + place)
                    for place, (name, time) in enumerate(zip(names, times, strict=True))
                ],
            )

    # Marked as done after the last item, so that a seed that was broken off is taken up again.
    fresh = not await store.seeded(f"{dataset.hash} {media}")
    if fresh:
        await _put_items(store, dataset, media=media)
    new = await store.seed(dataset.hash, histories=histories(), counts=counts)
    await store.seed(f"{dataset.hash} {media}", histories=(), counts={})
    return Seeded(dataset.hash, len(items), len(users), new or fresh)


async def _put_items(store: Store, dataset: Any, *, media: bool) -> None:
    from mmrec_tf import records

    schema = dataset.schema
    waiting: list[Any] = []
    for found in records.read_items(dataset.directory, schema):
        waiting.append(found)
        if len(waiting) == _TOGETHER:
            await asyncio.gather(*(_put(store, schema, one, media=media) for one in waiting))
            waiting.clear()
    await asyncio.gather(*(_put(store, schema, one, media=media) for one in waiting))


async def _put(store: Store, schema: Any, found: Any, *, media: bool) -> None:
    from mmrec_tf.media.video import split_frames

    there = await store.item(found.item_id)
    if there is not None and (there.digest or there.withdrawn):
        return  # Someone put it, or withdrew it, and knows better.
    kinds = {name: spec.kind for name, spec in schema.modalities.items()}
    files: dict[str, list[bytes]] = {"image": [], "audio": [], "video": []}
    words: list[str] = []
    for name, values in found.content.items():
        if kinds[name] == "text":
            words += values
        elif kinds[name] == "video" and media:
            files["video"] += [frame for clip in values for frame in split_frames(clip)]
        elif kinds[name] in files and media:
            files[kinds[name]] += values
    title, rest = split_title(" ".join(words))
    item = Item(
        id=found.item_id,
        title=title,
        text=rest,
        categories=categories_of(schema.item_features, found.features),
        price=price_of(schema.item_features, found.features),
        images=len(files["image"]),
        sounds=len(files["audio"]),
        frames=len(files["video"]),
        updated=now_ms(),
    )
    await store.put_item(item, files)


def split_title(text: str) -> tuple[str, str]:
    """A text without a title of its own: its first sentence, where that is short, and the rest."""
    for place, letter in enumerate(text[:_LONGEST_TITLE]):
        if letter in ".!?" and text[place + 1 : place + 2] == " ":
            return text[:place] if letter == "." else text[: place + 1], text[place + 2 :]
    return (text, "") if len(text) <= _LONGEST_TITLE else ("", text)


def categories_of(specs: Mapping[str, Any], features: Mapping[str, Any]) -> list[str]:
    """Numbers of categories as such as "genre=comedy"; those out of vocabulary have no name."""
    found = []
    for name, spec in specs.items():
        if spec.kind == "categorical":
            for number in features[name]:
                place = int(number) - 1 - spec.oov_buckets
                if place >= 0:
                    found.append(f"{name}={spec.vocabulary[place]}")
    return sorted(found)


def price_of(specs: Mapping[str, Any], features: Mapping[str, Any]) -> float | None:
    """The side feature `price`, as it was before it was standardized; None for none."""
    spec = specs.get("price")
    if spec is None or spec.kind != "numeric" or "price" not in features:
        return None
    return round(float(features["price"]) * float(spec.std) + float(spec.mean), 2)
