"""The planted world as the dataset that the media folder makes of its real files."""

import argparse
import ctypes
import dataclasses
import pathlib
import shutil
from typing import Any

from data.items.shards import Run
from data.sources import media_folder
from data.sources.synthetic import media as synthetic_media
from data.sources.synthetic.files import write_source
from data.sources.synthetic.world import World, best
from data.tables.side_features import FeatureColumns
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records.files import hold_folder, read_json, read_sealed, write_sealed
from mmrec_tf.records.manifest import NAMES
from mmrec_tf.records.staging import check_place

_STATE = "world.json"


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
        "--context-effect",
        type=float,
        default=0.0,
        metavar="B",
        help="rate interactions by user, item and hour of the day together, with odds of exp(B) to "
        "1 (default: 0, without ratings)",
    )
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
        context_effect=arguments.context_effect,
    )
    return Synthetic(world, arguments.keep_source)


def prepare(
    options: Synthetic,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Makes a dataset directory of a planted world, by way of real files.

    Those lie in `OUT.source` until the dataset stands, so that a killed process can be gone on
    with.

    Args:
      options: the world, and whether its source is kept.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: refused, as there is nothing to read.

    Returns:
      The manifest.

    Raises:
      ConfigError: for `dry_run`.
      DatasetError: when `keep_source` holds something, or `out` may not be written.
    """
    if dry_run:
        raise ConfigError(
            "dry_run: synthetic draws its own tables, so there is nothing to look at."
        )
    out, world = pathlib.Path(out), options.world
    folder = pathlib.Path(options.keep_source or out.with_name(f"{out.name}.source"))
    settings = dataclasses.asdict(world) | {"num_clusters": world.clusters}
    rated = world.context_effect > 0
    if not rated:  # a world without it has the bytes that it had before there was such
        del settings["context_effect"]
    with hold_folder(folder, DatasetError, "draws its world"):
        try:
            check_place(out, overwrite=overwrite)  # before much is drawn in vain
        except DatasetError:
            ours = (folder / _STATE).exists() or not any(folder.iterdir())
            if options.keep_source is None and ours:
                shutil.rmtree(folder)  # left by a kill that came as the dataset stood
            raise
        ceiling = _source(world, folder, settings)
        _trim()
        manifest = media_folder.prepare(
            media_folder.MediaFolder(
                items=str(folder / "items.csv"),
                interactions=str(folder / "interactions.csv"),
                users=str(folder / "users.csv") if rated else None,
                user_features=FeatureColumns(categorical=("shift",) if rated else ()),
                triples=str(folder / "triples.csv"),
                sample_rate_hz=synthetic_media.SAMPLE_RATE_HZ,
            ),
            out,
            overwrite=overwrite,
            run=run,
            source={"name": "synthetic", "arguments": settings},
            extra={"ceiling.json": ceiling, NAMES: read_json(folder / NAMES)},
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
    state = folder / _STATE
    try:
        begun = read_sealed(state) if state.exists() else {}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{state}: wanted which world is drawn here; {error}. Delete {folder}."
        ) from error
    ceiling = dict(begun.get("ceiling", {}))
    # Whatever drew it before there was a knowable one draws it again.
    if begun.get("world") == settings and "knowable" in ceiling and (folder / NAMES).exists():
        return ceiling
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not begun:
        raise DatasetError(f"{folder}: wanted a new or empty folder to draw the world in.")
    write_sealed(state, {"world": settings})
    for name in ("images", "audio"):
        shutil.rmtree(folder / name, ignore_errors=True)
    ceiling = best(*write_source(world, folder))
    write_sealed(state, {"world": settings, "ceiling": ceiling})
    return ceiling
