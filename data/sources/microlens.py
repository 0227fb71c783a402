"""MicroLens, as Westlake University publishes it: short videos by title, cover and sound.

The folders are linked from https://github.com/westlake-repl/MicroLens and are fetched, and their
archives unpacked, by hand; nothing is downloaded here. The authors ask for a citation and forbid
offering altered copies for download.

`..._likes_and_views.txt` and the comments are not read: likes, views and comments were counted
after the interactions that a model is tested on.
"""

import argparse
import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.items.shards import Run
from data.sources import media_folder, published
from data.sources.published import PublishedOptions
from data.tables.delimited import Csv, Lines
from data.tables.rows import BadRow
from data.tables.side_features import FeatureColumns
from data.tables.table import Derived, Skipped, Table, complete
from mmrec_tf.errors import DatasetError

_PAIRS = ("user", "item", "timestamp")
_KNOWN = (
    "MicroLens-..._pairs.csv and MicroLens-..._titles.csv (50k), ..._title_en.csv (100k) or "
    "..._title.csv (1M)"
)


@dataclass(frozen=True, kw_only=True)
class MicroLens(PublishedOptions):
    """Where a folder of MicroLens is, and how to read it.

    Attributes:
      folder: with `..._pairs.csv` and `..._titles.csv`; where there are such, also the folders
        `..._covers` and `..._audio` with files named by item, and `tags_to_summary.csv`.
      titles: the file of titles, where the folder has several.

    The others are those of `PublishedOptions`.
    """

    folder: str
    titles: str | None = None


def prepare(
    options: MicroLens,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Makes a dataset directory.

    An item's text is its title; its feature is `category`, where there is `tags_to_summary.csv`.

    Args:
      options: where the folder is, and how to read it.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: write nothing, and say what the first rows look like.

    Returns:
      The manifest, or under `dry_run` what `media_folder.prepare` then returns.

    Raises:
      DatasetError: when the folder lacks a file or leaves open which is meant, when a file cannot
        be read, or when `out` may not be written.
    """
    folder = published.folder(options.folder, known=_KNOWN)
    pairs, videos = _pairs(folder), _titles(folder, options.titles)
    covers = published.only(folder, ["*covers"], folders=True)
    sounds = published.only(folder, ["*audio", "*audios"], folders=True)
    tags = published.only(folder, ["*tags_to_summary.csv"])
    if tags is not None:
        videos = _with_categories(videos, tags, Skipped(options.skip_bad_rows))
    categorical = ("category",) if tags is not None else ()
    return media_folder.prepare(
        media_folder.MediaFolder(
            items=videos,
            interactions=pairs,
            media_root=options.folder,
            text=("title",),
            image=f"{covers.name}/{{item}}.*" if covers else "none",
            audio=f"{sounds.name}/{{item}}.*" if sounds else "none",
            item_features=FeatureColumns(categorical=categorical, separator=""),
            **options.shared(),
        ),
        out,
        overwrite=overwrite,
        run=run,
        dry_run=dry_run,
        source={"name": "microlens", "arguments": options.describe()},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `MicroLens` to a command."""
    parser.add_argument("--folder", required=True, metavar="FOLDER", help=f"with {_KNOWN}")
    parser.add_argument(
        "--titles", metavar="FILE", help="the file of titles, where the folder has several"
    )
    published.add_arguments(parser)


def from_arguments(arguments: argparse.Namespace) -> MicroLens:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """
    return MicroLens(
        folder=arguments.folder,
        titles=arguments.titles,
        **published.from_arguments(arguments),
    )


def _pairs(folder: pathlib.Path) -> Table:
    path = published.only(folder, ["*pairs.csv"])
    if path is None:
        without_times = published.only(folder, ["*pairs.tsv"])
        got = f"{without_times.name}, which has no times" if without_times else "none"
        raise DatasetError(f"{folder}: wanted {_KNOWN}; got {got} of ..._pairs.csv.")
    pairs = Table(path, form=Csv(names=_PAIRS))
    first = next(iter(pairs), None)
    if first is None or not first.cells.get("timestamp", "").isdecimal():  # that is a header
        pairs = Table(path)
    if len(pairs.columns) != len(_PAIRS):
        raise DatasetError(
            f"{path}: wanted the columns {', '.join(_PAIRS)}; it has {', '.join(pairs.columns)}."
        )
    return Derived(pairs, _PAIRS, derive=_pair)


def _pair(cells: Mapping[str, str]) -> dict[str, str]:
    # By their order, since the READMEs name them otherwise than the files.
    user, item, milliseconds = cells.values()
    return {"user": user, "item": item, "timestamp": published.seconds(milliseconds)}


def _titles(folder: pathlib.Path, name: str | None) -> Table:
    path = pathlib.Path(name) if name else published.only(folder, ["*title*.csv"])
    if path is None:
        raise DatasetError(f"{folder}: wanted {_KNOWN}; there are no titles.")
    # Those of 100k and 1M have neither a header nor balanced quotes.
    bare = Table(path, form=Lines(("item", "title"), ",", rest=True))
    first = next(iter(bare), None)
    if first is not None and first.cells["item"].isdecimal():
        return Derived(bare, bare.columns, derive=_unquoted)
    return published.table(path, ("item", "title"))


def _unquoted(cells: Mapping[str, str]) -> dict[str, str]:
    title = cells["title"]
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1].replace('""', '"')
    return {"item": cells["item"], "title": title}


def _with_categories(videos: Table, path: pathlib.Path, skipped: Skipped) -> Table:
    tags = Table(path, form=Lines(("item", "category"), ",", rest=True))
    categories: dict[str, str] = {}
    for row in tags:
        try:
            complete(row, tags.columns)
        except BadRow as error:
            skipped.add("tags", row, str(error))
        else:
            categories.setdefault(row.cells["item"], row.cells["category"])
    return Derived(
        videos,
        (*videos.columns, "category"),
        derive=functools.partial(_video, categories),
        beside={"tags": tags},
    )


def _video(categories: Mapping[str, str], cells: Mapping[str, str]) -> dict[str, str]:
    return {**cells, "category": categories.get(cells["item"], "")}
