"""`python -m serving.gateway export`: the log as tables that `data.prepare media-folder` reads."""

import argparse
import asyncio
import csv
import hashlib
import os
import pathlib
import sys
from typing import Any

from mmrec_tf.errors import ConfigError
from mmrec_tf.records.files import replace_folder, write_json, write_text
from serving.gateway.night.tables import (
    Content,
    dataset_items,
    dataset_rows,
    event_rows,
    put_items,
    write_items,
)
from serving.gateway.store.records import Event, user_hash
from serving.gateway.store.store import Store
from serving.gateway.stores import open_store, require_state

_MOST_TIME = 2**62


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m serving.gateway export",
        description="Writes items.csv, interactions.csv, withdrawn.txt and media files: what the "
        "dataset held and what the log adds, without users who were erased. The same cut of the "
        "same log gives the same bytes.",
    )
    made.add_argument("--state", default="gateway.db", help="as of the gateway (%(default)s)")
    made.add_argument("--log", metavar="FILE", help="that `drain` moved the log of a Redis to")
    made.add_argument("--dataset", metavar="DIR", help="which the state was seeded from")
    made.add_argument("--out", required=True, metavar="DIR", help="where it is written")
    made.add_argument(
        "--until", type=int, metavar="N", help="the last place in the log that counts (the end)"
    )
    made.add_argument("--overwrite", action="store_true", help="replace what is there")
    return made


def run(options: argparse.Namespace) -> int:
    """Writes the tables."""
    out = pathlib.Path(options.out)
    if out.exists() and not options.overwrite:
        raise ConfigError(f"{out}: is there already; name another folder, or --overwrite.")
    dataset = None
    if options.dataset is not None:
        # Before TensorFlow is imported, whose start-up notes are of no use here.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import mmrec_tf

        dataset = mmrec_tf.open_dataset(options.dataset, content_memory_mb=0)
    told = asyncio.run(_export(options, dataset, out))
    for line in _lost(dataset):
        print(f"serving.gateway: {line}", file=sys.stderr)
    for name, value in told.items():
        print(f"{name}\t{value}")
    return 0


async def _export(options: argparse.Namespace, dataset: Any, out: pathlib.Path) -> dict[str, Any]:
    require_state(options.state)
    store, until = open_store(options.state, log=options.log), options.until
    await store.open()
    try:
        last = await store.last_sequence()
        if until is not None and not 0 <= until <= last:
            raise ConfigError(f"--until: wanted 0 to {last}, where the log ends; got {until}.")
        return await export(store, dataset, out, last if until is None else until)
    finally:
        await store.close()


async def export(store: Store, dataset: Any, out: pathlib.Path, until: int) -> dict[str, Any]:
    """Writes the tables, aside first.

    Args:
      store: Store, open.
      dataset: mmrec_tf's Dataset that the state was seeded from; None for none.
      out: the folder.
      until: the last place in the log that counts. Items that were put after it are left out.

    Returns:
      What was written, by name; also in `export.json`.
    """
    salt = await store.salt()
    stones = {stone.user: stone.time for stone in await store.tombstones()}
    cut = await _time_of(store, until)

    def gone(event: Event) -> bool:
        return event.time <= stones.get(user_hash(event.user, salt), -1)

    contents: dict[str, Content] = {}
    if dataset is not None:
        contents = {one.item.id: one for one in dataset_items(dataset)}
    contents |= {one.item.id: one async for one in put_items(store, cut)}
    withdrawn = sorted(item for item in await store.withdrawn() if item in contents)
    rows = {"seeded": 0, "logged": 0}
    with replace_folder(out) as folder:
        features = write_items(folder, list(contents.values()))
        with (folder / "interactions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["user", "item", "timestamp", "event", "position", "list"])
            if dataset is not None:
                for row in dataset_rows(dataset, lambda user: user_hash(user, salt) in stones):
                    writer.writerow(row)
                    rows["seeded"] += 1
            async for row in event_rows(store, until, gone):
                writer.writerow(row)
                rows["logged"] += 1
        write_text(folder / "withdrawn.txt", "".join(f"{item}\n" for item in withdrawn))
        told = {
            "until": until,
            "items": len(contents),
            **rows,
            "erased_users": len(stones),
            "withdrawn": len(withdrawn),
            "features": ",".join(features),
            "sha256": _sha256(folder),
        }
        write_json(folder / "export.json", told)
    return told


async def _time_of(store: Store, until: int) -> int:
    """When the event at a place in the log happened; the end of time for the end of the log."""
    if until >= await store.last_sequence():
        return _MOST_TIME
    found = await store.events(until - 1, until, 1) if until else []
    return found[0].time if found else 0


def _sha256(folder: pathlib.Path) -> str:
    """One hash of all files, by name."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder)} {digest}\n".encode())
    return whole.hexdigest()


def _lost(dataset: Any) -> list[str]:
    """What the tables do not carry over from a dataset."""
    if dataset is None:
        return []
    schema = dataset.schema
    lost = [f"vectors {name}" for name, spec in schema.modalities.items() if spec.kind == "vector"]
    lost += [f"the users' {name}" for name in schema.user_features]
    lost += ["profiles"] if schema.profile else []
    lost += [
        f"the items' {name}"
        for name, spec in schema.item_features.items()
        if spec.kind == "numeric" and name != "price"
    ]
    lost += ["ratings"] if schema.ratings else []
    lost += ["the knowledge graph"] if schema.num_entities else []
    return [f"not carried over from the dataset: {', '.join(lost)}."] if lost else []
