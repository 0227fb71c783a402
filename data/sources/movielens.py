"""MovieLens, as GroupLens publishes it.

The archives are on https://grouplens.org/datasets/movielens/ and are unpacked by hand; nothing is
downloaded here. Their READMEs allow research, ask for a citation, and allow no commercial use
without permission; some forbid passing the data on.

Neither tags nor the tag genome are read: users write tags over the same years as they rate, so
that a tag of a movie may come from after the ratings that a model is tested on.
"""

import argparse
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.interactions.read import InteractionColumns
from data.items.shards import Run
from data.sources import media_folder, published
from data.sources.published import PublishedOptions
from data.tables.delimited import Lines
from data.tables.side_features import FeatureColumns
from data.tables.table import Derived, Table
from mmrec_tf.errors import DatasetError

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_USERS = ("userId", "gender", "age", "occupation", "zip")
_KNOWN = (
    "ratings.csv and movies.csv (ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m), or "
    "ratings.dat and movies.dat (ml-10m), with users.dat (ml-1m)"
)
_NO_GENRES = "(no genres listed)"
# "Shawshank Redemption, The (1994)"; and other names of a movie, in brackets after it.
_ARTICLE = re.compile(
    r"(?P<before>(?:^|\()(?:a\.k\.a\. )?)(?P<name>[^()]+), "
    r"(?P<article>The|An?|Le|La|Les|L'|Une?|Der|Die|Das|Eine?|El|Los|Las|Una|Il|Lo|I|Gli|"
    r"De[nt]?|Het|Ett?|En|Os?|As|Uma?)(?=\s*(?:[()]|$))"
)
# A series has "(2009-2012)" or "(2009- )".
_YEAR = re.compile(r"\((\d{4})(?:\s*[-–]\s*(?:\d{4})?\s*)?\)$")


@dataclass(frozen=True, kw_only=True)
class MovieLens(PublishedOptions):
    """Where an unpacked archive is, and how to read it.

    Attributes:
      folder: with `ratings` and `movies`, `.csv` or `.dat`.
      posters: a folder of pictures named by movieId, with any ending.

    The others are those of `PublishedOptions`.
    """

    folder: str
    posters: str | None = None


def prepare(
    options: MovieLens,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Makes a dataset directory.

    An item's text is its title with the article in front; its features are `genres` and `year`.
    Of ml-1m, users have the features `gender`, `age` and `occupation`, as published codes.

    Args:
      options: where the archive is, and how to read it.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: write nothing, and say what the first rows look like.

    Returns:
      The manifest, or under `dry_run` what `media_folder.prepare` then returns.

    Raises:
      DatasetError: when the folder is none of the known layouts, when a file cannot be read, or
        when `out` may not be written.
    """
    ratings, movies, users = _tables(published.folder(options.folder, known=_KNOWN))
    if options.posters is not None:
        published.folder(options.posters, known="posters named by movieId")
    of_users = ("gender", "age", "occupation") if users is not None else ()
    return media_folder.prepare(
        media_folder.MediaFolder(
            items=Derived(movies, (*_MOVIES, "year"), derive=_movie),
            interactions=ratings,
            users=users,
            columns=InteractionColumns(user="userId", item="movieId"),
            media_root=options.posters or options.folder,
            text=("title",),
            image="{movieId}.*" if options.posters is not None else "none",
            audio="none",
            item_features=FeatureColumns(categorical=("genres",), numeric=("year",)),
            user_features=FeatureColumns(categorical=of_users, separator=""),
            **options.shared(),
        ),
        out,
        overwrite=overwrite,
        run=run,
        dry_run=dry_run,
        source={"name": "movielens", "arguments": options.describe()},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `MovieLens` to a command."""
    parser.add_argument("--folder", required=True, metavar="FOLDER", help=f"with {_KNOWN}")
    parser.add_argument(
        "--posters", metavar="FOLDER", help="pictures named by movieId, with any ending"
    )
    published.add_arguments(parser)


def from_arguments(arguments: argparse.Namespace) -> MovieLens:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """
    return MovieLens(
        folder=arguments.folder,
        posters=arguments.posters,
        **published.from_arguments(arguments),
    )


def _tables(folder: pathlib.Path) -> tuple[Table, Table, Table | None]:
    """The ratings, the movies, and the users where there are any."""
    endings = [ending for ending in ("csv", "dat") if (folder / f"ratings.{ending}").is_file()]
    if len(endings) != 1:
        got = "both kinds of ratings" if endings else "no ratings"
        raise DatasetError(f"{folder}: wanted {_KNOWN}; got {got}.")
    ratings, movies = (folder / f"{name}.{endings[0]}" for name in ("ratings", "movies"))
    if not movies.is_file():
        raise DatasetError(f"{folder}: wanted {_KNOWN}; there is no {movies.name}.")
    if endings == ["csv"]:
        return published.table(ratings, _RATINGS), published.table(movies, _MOVIES), None
    users = folder / "users.dat"
    if not users.is_file():  # ml-10m, whose README says that it is UTF-8
        return Table(ratings, form=_dat(_RATINGS)), Table(movies, form=_dat(_MOVIES)), None
    return (
        Table(ratings, form=_dat(_RATINGS)),
        Table(movies, form=_dat(_MOVIES, encoding="latin-1")),
        Table(users, form=_dat(_USERS)),
    )


def _dat(names: tuple[str, ...], *, encoding: str = "utf-8") -> Lines:
    return Lines(names, "::", encoding=encoding)


def _movie(cells: Mapping[str, str]) -> dict[str, str]:
    title, genres = cells["title"], cells["genres"]
    year = _YEAR.search(title)
    return {
        "movieId": cells["movieId"],
        "title": _ARTICLE.sub(_to_front, title),
        "genres": "" if genres == _NO_GENRES else genres,
        "year": year[1] if year else "",
    }


def _to_front(match: re.Match[str]) -> str:
    article = match["article"]
    joint = "" if article.endswith("'") else " "
    return f"{match['before']}{article}{joint}{match['name']}"
