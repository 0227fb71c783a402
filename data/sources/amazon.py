"""Amazon reviews and product metadata, as the McAuley Lab publishes them.

The files of one category are on https://amazon-reviews-2023.github.io/ (2023) and
https://nijianmo.github.io/amazon/ (2018) and are fetched by hand; nothing is downloaded here,
pictures neither. Both sites ask for a citation.

Of the reviews only who, what, when and the rating are read: their text is written after the
purchase that a model is to foresee. So are the average rating, the number of ratings, the sales
rank and what was also bought.
"""

import argparse
import html
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from data.interactions.read import InteractionColumns
from data.items.shards import Run
from data.sources import media_folder, published
from data.sources.published import PublishedOptions
from data.tables.json_lines import JsonLines
from data.tables.side_features import FeatureColumns
from data.tables.table import Table
from mmrec_tf.errors import DatasetError

_TEXT = ("title", "description", "features")
_CATEGORICAL = ("categories", "brand", "main_category")
# "$12.99", "$9.99 - $14.99", "from 14.99"; anything else is scraps of the page.
_PRICE = re.compile(r"(?:from )?\$?([\d,]+(?:\.\d+)?)(?: ?- ?\$?[\d,]+(?:\.\d+)?)?")


@dataclass(frozen=True, kw_only=True)
class Amazon(PublishedOptions):
    """Where the files of one category are, and how to read them.

    Attributes:
      reviews: such as `All_Beauty.jsonl.gz` (2023) or `All_Beauty_5.json.gz` (2018).
      metadata: such as `meta_All_Beauty.jsonl.gz` or `meta_All_Beauty.json.gz`.
      images: a folder of pictures named by parent_asin (2023) or asin (2018), with any ending.

    The others are those of `PublishedOptions`.
    """

    reviews: str
    metadata: str
    images: str | None = None


class _Release(NamedTuple):
    """How one release names what is read.

    Attributes:
      reviews: user, item, rating and time stamp of a review.
      item: the id of a product.
      names: what is read of a product besides, by the name that it has here.
      flatten: makes a review into the one that is read; None where it is read as it is.
    """

    reviews: tuple[str, str, str, str]
    item: str
    names: Mapping[str, str]
    flatten: Callable[[dict[str, Any]], dict[str, Any]] | None

    @property
    def metadata(self) -> tuple[str, ...]:
        """What tells a product from a review."""
        return self.item, "title", "price"


def prepare(
    options: Amazon,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Makes a dataset directory.

    An item's text is its title, description and features (the list of its points); its features
    are `categories`, `brand` (the store), `main_category` and `price` in dollars.

    Args:
      options: where the files are, and how to read them.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: write nothing, and say what the first rows look like.

    Returns:
      The manifest, or under `dry_run` what `media_folder.prepare` then returns.

    Raises:
      DatasetError: when a file is missing, is of no known release or of another than the other
        file, when it cannot be read, or when `out` may not be written.
    """
    release = _release(options.reviews, options.metadata)
    if options.images is not None:
        published.folder(options.images, known=f"pictures named by {release.item}")
    user, item, rating, timestamp = release.reviews
    return media_folder.prepare(
        media_folder.MediaFolder(
            items=Table(
                options.metadata,
                form=JsonLines(
                    (release.item, *release.names, "price"),
                    joiners={"description": " ", "features": " "},
                    flatten=_Product(release),
                ),
            ),
            interactions=Table(
                options.reviews, form=JsonLines(release.reviews, flatten=release.flatten)
            ),
            columns=InteractionColumns(user=user, item=item, rating=rating, timestamp=timestamp),
            media_root=options.images or str(pathlib.Path(options.metadata).parent),
            text=_TEXT,
            image=f"{{{item}}}.*" if options.images is not None else "none",
            audio="none",
            item_features=FeatureColumns(categorical=_CATEGORICAL, numeric=("price",)),
            **options.shared(),
        ),
        out,
        overwrite=overwrite,
        run=run,
        dry_run=dry_run,
        source={"name": "amazon", "arguments": options.describe()},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Amazon` to a command."""
    parser.add_argument(
        "--reviews", required=True, metavar="FILE", help="such as All_Beauty.jsonl.gz"
    )
    parser.add_argument(
        "--metadata", required=True, metavar="FILE", help="such as meta_All_Beauty.jsonl.gz"
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="pictures named by parent_asin (2023) or asin (2018), with any ending",
    )
    published.add_arguments(parser)


def from_arguments(arguments: argparse.Namespace) -> Amazon:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """
    return Amazon(
        reviews=arguments.reviews,
        metadata=arguments.metadata,
        images=arguments.images,
        **published.from_arguments(arguments),
    )


@dataclass(frozen=True)
class _Product:
    """Makes a product of a release into one with the names here."""

    release: _Release

    def __call__(self, product: dict[str, Any]) -> dict[str, Any]:
        release = self.release
        found = {here: product.get(there) for here, there in release.names.items()}
        found |= {name: _names(found[name]) for name in _CATEGORICAL}
        if "getTime" in str(found["title"]):  # a script of the page stands where the title should
            found["title"] = ""
        return found | {
            release.item: product.get(release.item),
            "price": _price(product.get("price")),
        }


def _review_2023(review: dict[str, Any]) -> dict[str, Any]:
    return review | {"timestamp": published.seconds(review.get("timestamp"))}


_RELEASES = {
    "2023": _Release(
        reviews=("user_id", "parent_asin", "rating", "timestamp"),
        item="parent_asin",
        names={
            "title": "title",
            "description": "description",
            "features": "features",
            "categories": "categories",
            "brand": "store",
            "main_category": "main_category",
        },
        flatten=_review_2023,
    ),
    "2018": _Release(
        reviews=("reviewerID", "asin", "overall", "unixReviewTime"),
        item="asin",
        names={
            "title": "title",
            "description": "description",
            "features": "feature",
            "categories": "category",
            "brand": "brand",
            "main_category": "main_cat",
        },
        flatten=None,
    ),
}


def _release(reviews: str, metadata: str) -> _Release:
    """The release that both files are of, by the names in their first objects."""
    of_reviews = _release_of(reviews, {name: r.reviews for name, r in _RELEASES.items()})
    of_metadata = _release_of(metadata, {name: r.metadata for name, r in _RELEASES.items()})
    if of_reviews != of_metadata:
        raise DatasetError(
            f"{metadata}: wanted metadata of {of_reviews}, as {reviews}; got that of {of_metadata}."
        )
    return _RELEASES[of_reviews]


def _release_of(path: str, wanted: Mapping[str, tuple[str, ...]]) -> str:
    first = Table(path, form=JsonLines()).columns
    for release, names in wanted.items():
        if set(names) <= set(first):
            return release
    known = " or ".join(f"{', '.join(names)} ({release})" for release, names in wanted.items())
    raise DatasetError(
        f"{path}: wanted one JSON object a line with {known}; the first has {', '.join(first)}."
    )


def _names(value: Any) -> Any:
    """A category or a list of them; escaped as on the page they are others than unescaped."""
    if isinstance(value, list):
        return [_names(part) for part in value]
    # What stands between several of them must not stand in one.
    return html.unescape(value).replace("|", "/") if isinstance(value, str) else value


def _price(value: Any) -> str:
    """Dollars, of a range the lower end; "" where there is no price."""
    match = _PRICE.fullmatch(str(value).strip())
    return match[1].replace(",", "") if match else ""
