"""The planted world as real files, and as the dataset that the media folder makes of them."""

import argparse
import csv
import ctypes
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from data import media_folder, synthetic_media
from data.item_shards import Run
from data.planted import Met, Truth, World, best, draw_interactions, draw_truth
from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import write_json
from mmrec_tf.records.partial import check_place
from mmrec_tf.schema import SPLITS

_DAY_SECONDS = 86_400
_START_SECONDS = 1_704_067_200  # 2024-01-01
# In days from the start: train, then valid, then test.
_DAYS = {"train": (0, 180), "valid": (180, 200), "test": (200, 220)}
_MAKERS_PER_STYLE = 4


def write_source(world: World, folder: pathlib.Path) -> tuple[Truth, list[Met]]:
    """Writes a world as tables, pictures and sounds, as anyone's own data would lie there.

    `items.csv`, `interactions.csv`, `triples.csv`, `images/` and `audio/`; `truth.csv` beside them
    is what no model may read.

    Returns:
      The truth, and what `draw_interactions` yielded.
    """
    # Apart, so that a change to how pictures are drawn leaves the interactions as they were.
    seeds = np.random.SeedSequence(world.seed).spawn(4)
    truth_seed, met_seed, media_seed, triple_seed = seeds
    truth = draw_truth(world, np.random.default_rng(truth_seed))
    drawn = list(draw_interactions(truth, np.random.default_rng(met_seed)))
    _write_items(world, truth, folder, np.random.default_rng(media_seed))
    _write_table(
        folder / "truth.csv",
        ("item", "cluster", "topic", "style", "timbre", "popularity", "cold"),
        (
            (f"i{i}", c, *world.attributes(c), repr(float(p)), int(cold))
            for i, (c, p, cold) in enumerate(
                zip(truth.cluster.tolist(), truth.popularity, truth.cold, strict=True)
            )
        ),
    )
    _write_table(
        folder / "interactions.csv",
        ("user", "item", "timestamp", "split"),
        _interaction_rows(drawn, np.random.default_rng(met_seed.spawn(1)[0])),
    )
    _write_table(
        folder / "triples.csv",
        ("head", "relation", "tail"),
        _triple_rows(world, truth, np.random.default_rng(triple_seed)),
    )
    return truth, drawn


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """What the command makes.

    Attributes:
      world: its settings.
      keep_source: where the tables, pictures and sounds are kept; None for nowhere.
    """

    world: World
    keep_source: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Synthetic` to a command."""
    parser.add_argument("--users", type=int, default=2000, help="default: 2000")
    parser.add_argument("--items", type=int, default=500, help="default: 500")
    parser.add_argument(
        "--clusters", type=int, help="4 to 30 (default: one for 30 items, but 4 to 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--keep-source", metavar="DIR", help="keep the tables, pictures and sounds here"
    )


def from_arguments(arguments: argparse.Namespace) -> Synthetic:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for a world that cannot be.
    """
    world = World(
        num_users=arguments.users,
        num_items=arguments.items,
        num_clusters=arguments.clusters,
        seed=arguments.seed,
    )
    return Synthetic(world, arguments.keep_source)


def prepare(
    options: Synthetic,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
) -> dict[str, Any]:
    """Makes a dataset directory of a planted world, by way of real files.

    Those lie in `OUT.source` until the dataset stands, so that a killed process can be gone on
    with.

    Args:
      options: the world, and whether its source is kept.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.

    Returns:
      The manifest.

    Raises:
      DatasetError: when `keep_source` holds something, or `out` may not be written.
    """
    out, world = pathlib.Path(out), options.world
    folder = pathlib.Path(options.keep_source or out.with_name(f"{out.name}.source"))
    settings = dataclasses.asdict(world) | {"num_clusters": world.clusters}
    check_place(out, overwrite=overwrite)  # before much is drawn in vain
    ceiling = _source(world, folder, settings)
    _trim()
    manifest = media_folder.prepare(
        media_folder.MediaFolder(
            items=str(folder / "items.csv"),
            interactions=str(folder / "interactions.csv"),
            triples=str(folder / "triples.csv"),
            sample_rate_hz=synthetic_media.SAMPLE_RATE_HZ,
        ),
        out,
        overwrite=overwrite,
        run=run,
        source={"name": "synthetic", "arguments": settings},
        extra={"ceiling.json": ceiling},
    )
    if options.keep_source is None:
        shutil.rmtree(folder)
    return manifest


def _trim() -> None:
    """Has the C library give back what drawing a large world took and no longer needs."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


def _source(world: World, folder: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Writes the source, unless it stands there finished.

    Returns:
      The best figures that its truth allows.
    """
    state = folder / "world.json"
    begun = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    if begun.get("world") == settings and "ceiling" in begun:
        return begun["ceiling"]
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not begun:
        raise DatasetError(f"{folder}: wanted a new or empty folder to draw the world in.")
    write_json(state, {"world": settings})
    for name in ("images", "audio"):
        shutil.rmtree(folder / name, ignore_errors=True)
    ceiling = best(*write_source(world, folder))
    write_json(state, {"world": settings, "ceiling": ceiling})
    return ceiling


def _write_items(
    world: World, truth: Truth, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    for name in ("images", "audio"):
        (folder / name).mkdir()
    header = ("item", "title", "description", "image", "audio")
    _write_table(folder / "items.csv", header, _item_rows(world, truth, folder, rng))


def _item_rows(
    world: World, truth: Truth, folder: pathlib.Path, rng: np.random.Generator
) -> Iterator[list[str]]:
    present = rng.random([world.num_items, 3]) >= world.missing_share
    _, num_styles, num_timbres = world.num_attributes
    progress = tqdm(truth.cluster.tolist(), desc="drawing", unit="item", disable=None)
    for item, cluster in enumerate(progress):
        topic, style, timbre = world.attributes(cluster)
        # Drawn even where they are then left out, so that gaps do not change the other items.
        title, description = synthetic_media.words(topic, rng)
        image = synthetic_media.picture(style, num_styles, rng)
        audio = synthetic_media.sound(timbre, num_timbres, rng)
        has_text, has_image, has_audio = present[item]
        row = [f"i{item}", "", "", "", ""]
        if has_text:
            row[1:3] = title, description
        if has_image:
            row[3] = f"images/i{item}.jpg"
            (folder / row[3]).write_bytes(image)
        if has_audio:
            row[4] = f"audio/i{item}.wav"
            (folder / row[4]).write_bytes(audio)
        yield row


def _interaction_rows(
    drawn: Iterable[Met], rng: np.random.Generator
) -> Iterator[tuple[str, str, int, str]]:
    """Every interaction in the order of users and time; within a split, time is chance."""
    for met in drawn:
        for row, user in enumerate(range(met.users.start, met.users.stop)):
            for split in SPLITS:
                of = met.items[split]
                items = rng.permutation(of.indices[of.indptr[row] : of.indptr[row + 1]])
                first, last = (day * _DAY_SECONDS for day in _DAYS[split])
                seconds = np.sort(rng.integers(first, last, len(items))) + _START_SECONDS
                for item, second in zip(items.tolist(), seconds.tolist(), strict=True):
                    yield f"u{user}", f"i{item}", second, split


def _triple_rows(
    world: World, truth: Truth, rng: np.random.Generator
) -> Iterator[tuple[str, str, str]]:
    """Each item's topic, and a maker, who knows one style: together they name the cluster."""
    maker = rng.integers(_MAKERS_PER_STYLE, size=world.num_items).tolist()
    for item, cluster in enumerate(truth.cluster.tolist()):
        topic, style, _ = world.attributes(cluster)
        yield f"i{item}", "has_topic", f"topic{topic}"
        yield f"i{item}", "made_by", f"maker{style * _MAKERS_PER_STYLE + maker[item]}"


def _write_table(
    path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
