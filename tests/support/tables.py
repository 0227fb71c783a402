"""Small tables on disk, and what preparation makes and says of them."""

import pathlib
from typing import Any

from data.items.shards import runner
from data.sources import media_folder
from data.sources.media_folder import MediaFolder
from mmrec_tf import records

WORDS = ("red old lamp", "green slow lamp", "blue green lamp", "old large lamp", "new bright lamp")


def write_items(folder: pathlib.Path, ids, *, name: str = "items.csv", text: str = "title") -> None:
    rows = [f"{item},{WORDS[n % len(WORDS)]} {n}" for n, item in enumerate(ids)]
    write(folder, name, f"item,{text}", *rows)


def write_interactions(folder: pathlib.Path, items, *, users: int = 3, user: str = "u{}") -> None:
    """Each user meets all items, a second after the other, from another one on."""
    items = list(items)
    rows = [
        f"{user.format(u)},{items[(u + n) % len(items)]},{1_700_000_000 + 100 * u + n}"
        for u in range(users)
        for n in range(len(items))
    ]
    write(folder, "interactions.csv", "user,item,timestamp", *rows)


def write(folder: pathlib.Path, name: str, *lines: str, encoding: str = "utf-8") -> pathlib.Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def prepare(
    folder: pathlib.Path, out: str = "d", *, items: str = "items.csv", **options: Any
) -> dict[str, Any]:
    """The manifest of the tables in a folder, or with `dry_run` what they look like."""
    dry_run = options.pop("dry_run", False)
    tables = {"items": str(folder / items), "interactions": str(folder / "interactions.csv")}
    return media_folder.prepare(
        MediaFolder(**{**tables, **options}),
        folder / out,
        overwrite=True,
        run=runner(0),
        dry_run=dry_run,
    )


def item_ids(directory: pathlib.Path) -> list[str]:
    return [i.item_id for i in records.read_items(directory, records.read_schema(directory))]


def items_of(directory: pathlib.Path, split: str) -> list[list[str]]:
    """By user, the ids of the items in a split, in order."""
    schema, ids = records.read_schema(directory), item_ids(directory)
    found = records.read_interactions(directory, schema, split)
    return [
        [ids[item] for item in found.item[found.user == user]] for user in range(schema.num_users)
    ]
