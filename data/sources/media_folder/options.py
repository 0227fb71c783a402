"""Where one's own tables and media are, and how they are read: the options."""

import argparse
from dataclasses import dataclass, field

from data.interactions import options as selection_options
from data.interactions.options import SelectionOptions
from data.interactions.read import InteractionColumns
from data.items import content as item_content
from data.items.content import ContentOptions
from data.tables import triples
from data.tables.delimited import Csv
from data.tables.side_features import FeatureColumns
from data.tables.table import Table
from mmrec_tf.errors import ConfigError

QUOTINGS = ("csv", "none")


@dataclass(frozen=True, kw_only=True)
class MediaFolder(ContentOptions):
    """Where the tables and media are, and how to read them; None takes the default.

    Attributes:
      items: table of the items, CSV, TSV (also gzipped), JSON lines or Parquet.
      interactions: table of the interactions.
      users: table of the users, with their profile text and side features.
      triples: table of a knowledge graph, with the columns `head`, `relation` and `tail`.
      columns: the columns of the interactions; `user` and `item` also name those of the other
        tables.
      selection: which interactions count, and how they are split.
      profile: the column of a user's profile text; by default `profile`.
      item_features: side features of the items.
      user_features: side features of the users.
      skip_bad_rows: pass over rows that cannot be used, and count them, instead of raising.
      delimiter: between the cells of CSV; by default as the first line has it.
      encoding: of CSV and TSV; by default UTF-8.
      quoting: "csv", or "none" where quotes are characters like any other.

    The others are those of `ContentOptions`.
    """

    items: str | Table
    interactions: str | Table
    users: str | Table | None = None
    triples: str | Table | None = None
    columns: InteractionColumns = field(default_factory=InteractionColumns)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    profile: str | None = None
    item_features: FeatureColumns = field(default_factory=FeatureColumns)
    user_features: FeatureColumns = field(default_factory=FeatureColumns)
    skip_bad_rows: bool = False
    delimiter: str | None = None
    encoding: str | None = None
    quoting: str = "csv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quoting not in QUOTINGS:
            raise ConfigError(
                f"quoting: wanted one of {', '.join(QUOTINGS)}; got {self.quoting!r}."
            )
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ConfigError(f"delimiter: wanted one character; got {self.delimiter!r}.")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise ConfigError(
                    f"encoding: wanted one that Python knows, such as cp1252 or utf-16; got "
                    f"{self.encoding!r}."
                ) from None

    def open_table(self, table: str | Table) -> Table:
        """Opens a table as these options say.

        Raises:
          DatasetError: when it cannot be read.
        """
        return Table(table, text=self.text_form) if isinstance(table, str) else table

    @property
    def text_form(self) -> Csv:
        """How CSV and TSV are read."""
        return Csv(
            self.delimiter, encoding=self.encoding or "utf-8-sig", quoted=self.quoting == "csv"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `MediaFolder` to a command."""
    tables = parser.add_argument_group("tables (CSV, TSV, JSON lines, also .gz; Parquet)")
    tables.add_argument("--items", required=True, metavar="FILE")
    tables.add_argument("--interactions", required=True, metavar="FILE")
    tables.add_argument("--users", metavar="FILE")
    triples.add_argument(tables)
    tables.add_argument(
        "--skip-bad-rows", action="store_true", help="pass over rows that cannot be used, and count"
    )
    tables.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="SIGN",
        help="between the cells of CSV; tab for a tab (default: a comma, else the semicolon, tab "
        "or bar of the first line)",
    )
    tables.add_argument("--encoding", help="of CSV and TSV, such as cp1252 (default: UTF-8)")
    tables.add_argument(
        "--quoting",
        choices=QUOTINGS,
        default="csv",
        help="none: quotes are characters like any other (default: csv)",
    )
    named = parser.add_argument_group("columns")
    selection_options.add_column_arguments(named)
    named.add_argument(
        "--profile-column", metavar="COLUMN", help="a user's text (default: profile)"
    )
    selection_options.add_arguments(parser)
    item_content.add_arguments(parser)
    features = parser.add_argument_group("side features")
    for side in ("item", "user"):
        for kind in ("categorical", "numeric"):
            features.add_argument(
                f"--{side}-{kind}", type=item_content.names, default=(), metavar="COLUMN,..."
            )
    features.add_argument(
        "--separator", default="|", help="between several categories in one cell (default: |)"
    )
    features.add_argument(
        "--vocabulary-size",
        type=int,
        default=10_000,
        help="the most categories to keep of a column (default: 10000)",
    )
    features.add_argument(
        "--oov-buckets", type=int, default=1, help="that all other categories share (default: 1)"
    )


def from_arguments(arguments: argparse.Namespace) -> MediaFolder:
    """What was typed for the options of `add_arguments`.

    Raises:
      ConfigError: for values that cannot be used, or not together.
    """

    def features(side: str) -> FeatureColumns:
        return FeatureColumns(
            categorical=getattr(arguments, f"{side}_categorical"),
            numeric=getattr(arguments, f"{side}_numeric"),
            separator=arguments.separator,
            vocabulary_size=arguments.vocabulary_size,
            oov_buckets=arguments.oov_buckets,
        )

    return MediaFolder(
        items=arguments.items,
        interactions=arguments.interactions,
        users=arguments.users,
        triples=arguments.triples,
        columns=selection_options.columns_from_arguments(arguments),
        selection=selection_options.from_arguments(arguments),
        profile=arguments.profile_column,
        item_features=features("item"),
        user_features=features("user"),
        skip_bad_rows=arguments.skip_bad_rows,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        quoting=arguments.quoting,
        **item_content.from_arguments(arguments),
    )


def _delimiter(typed: str) -> str:
    return "\t" if typed in ("tab", "\\t") else typed
