"""Tables and media files of a dataset and of what the log adds to it."""

import csv
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mmrec_tf import records
from mmrec_tf.media.video import join_frames, split_frames
from serving.gateway.seeding import categories_of, price_of, split_title
from serving.gateway.store.records import DISLIKING, LIKING, Event, Item
from serving.gateway.store.store import Store

SEEDED = "seed"  # the type of an interaction that the dataset had before
_BLOCK = 1000
_ENDINGS = {"image": "jpg", "audio": "wav", "video": "mjpeg"}


class Content(NamedTuple):
    """An item and its files by "image" and "audio"; by "video" its frames."""

    item: Item
    files: dict[str, list[bytes]]


def dataset_items(dataset: Any) -> Iterator[Content]:
    """The items of a dataset, by no order."""
    kinds: dict[str, str] = {name: spec.kind for name, spec in dataset.schema.modalities.items()}
    specs = dataset.schema.item_features
    for found in records.read_items(dataset.directory, dataset.schema):
        files: dict[str, list[bytes]] = {"image": [], "audio": [], "video": []}
        words: list[str] = []
        content: dict[str, Any] = found.content
        for name, values in content.items():
            if kinds[name] == "text":
                words += [str(value) for value in values]
            elif kinds[name] == "video":
                files["video"] += [frame for clip in values for frame in split_frames(clip)]
            elif kinds[name] in files:
                files[kinds[name]] += values
        title, rest = split_title(" ".join(words))
        item = Item(
            id=found.item_id,
            title=title,
            text=rest,
            categories=categories_of(specs, found.features),
            price=price_of(specs, found.features),
        )
        yield Content(item, files)


async def put_items(store: Store, until: int) -> AsyncIterator[Content]:
    """The items that were put before a time (milliseconds), by id."""
    after = ""
    while page := await store.items(after, _BLOCK):
        for item in page:
            if item.digest and item.updated <= until:
                files: dict[str, list[bytes]] = {}
                kinds = (("image", item.images), ("audio", item.sounds), ("video", item.frames))
                for kind, count in kinds:
                    found = [await store.media(item.id, kind, n) for n in range(count)]
                    files[kind] = [data for data in found if data is not None]
                yield Content(item, files)
        after = page[-1].id


def write_items(folder: pathlib.Path, items: Sequence[Content]) -> list[str]:
    """Writes `items.csv` and its files; returns the names of the side features."""
    features = sorted({c.partition("=")[0] for one in items for c in one.item.categories})
    features += ["price"] if any(one.item.price is not None for one in items) else []
    with (folder / "items.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item", "title", "description", *_ENDINGS, *features])
        for number, (item, files) in enumerate(sorted(items, key=lambda one: one.item.id)):
            cells = [item.id, item.title, item.text]
            for kind in _ENDINGS:
                paths = []
                several: Sequence[bytes] = files.get(kind, ())
                if kind == "video" and several:
                    # A Motion JPEG stream, which preparation reads as any film.
                    several = [join_frames(several)]
                for place, data in enumerate(several):
                    path = f"{kind}/{number:07d}-{place}.{_ENDINGS[kind]}"
                    (folder / kind).mkdir(exist_ok=True)
                    (folder / path).write_bytes(data)
                    paths.append(path)
                cells.append("|".join(paths))
            values: dict[str, list[str]] = {}
            for category in item.categories:
                name, _, value = category.partition("=")
                values.setdefault(name, []).append(value)
            price = "" if item.price is None else f"{item.price:.10g}"
            values["price"] = values.get("price", [price] if price else [])
            writer.writerow([*cells, *("|".join(values.get(name, ())) for name in features)])
    return features


def dataset_rows(dataset: Any, gone: Callable[[str], bool]) -> Iterator[list[str]]:
    """The interactions of all splits, but for those of erased users."""
    users, items = dataset.users.user_id, dataset.catalog.item_id
    left_out = [gone(str(user)) for user in users]
    for split in ("train", "valid", "test"):
        found = dataset.interactions(split)
        for user, item, time in zip(found.user, found.item, found.timestamp, strict=True):
            if not left_out[user]:
                yield [str(users[user]), str(items[item]), str(time), SEEDED, "", ""]


async def event_rows(
    store: Store, until: int, gone: Callable[[Event], bool]
) -> AsyncIterator[list[str]]:
    """Events that say something of taste, up to a place in the log, but for those that erased
    users left before they were erased."""
    after = 0
    while block := await store.events(after, until, _BLOCK):
        for event in block:
            if event.type in (*LIKING, *DISLIKING) and not gone(event):
                position = "" if event.position < 0 else str(event.position)
                seconds = f"{event.time // 1000}.{event.time % 1000:03d}"
                yield [event.user, event.item, seconds, event.type, position, event.list]
        after = block[-1].sequence
