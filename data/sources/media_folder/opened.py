"""The tables that options name, opened: what each of them is, and what of it is read."""

from typing import NamedTuple

from data.interactions.read import find_fields
from data.items.content import Layout
from data.sources import checks
from data.sources.media_folder.options import MediaFolder
from data.tables import triples
from data.tables.entities import Entities
from data.tables.table import Table


class Opened(NamedTuple):
    """The tables.

    Attributes:
      items: of the items.
      interactions: of the interactions.
      users: of the users; None without one.
      graph: of a knowledge graph; None without one.
      layout: what an item's content is made of.
      has_split: whether interactions name their split.
      given: whether that split is followed.
      profile: the column of users' texts; None without one.
    """

    items: Entities
    interactions: Table
    users: Entities | None
    graph: Table | None
    layout: Layout
    has_split: bool
    given: bool
    profile: str | None

    @property
    def tables(self) -> dict[str, Table | None]:
        """They alone, by name."""
        return {
            "items": self.items.table,
            "interactions": self.interactions,
            "users": self.users.table if self.users is not None else None,
            "triples": self.graph,
        }

    @property
    def notes(self) -> list[str]:
        """What looks wrong in them before a row is read."""
        return checks.notes(self.tables, self.layout.root)


def open_tables(options: MediaFolder) -> Opened:
    """Opens the tables, and finds the columns that are read.

    Raises:
      ConfigError: for a column that a table lacks, or options of text without a table of text.
      DatasetError: for a table that cannot be read.
    """
    items = Entities(
        "items", options.open_table(options.items), options.columns.item, default="item"
    )
    interactions = options.open_table(options.interactions)
    users = (
        Entities("users", options.open_table(options.users), options.columns.user, default="user")
        if options.users is not None
        else None
    )
    graph = triples.open_table(options.triples, text=options.text_form)
    layout = Layout(items, options)
    has_split = (options.columns.split or "split") in interactions.columns
    if options.columns.split is not None:
        interactions.required_column(options.columns.split, "split")
    given = options.selection.rule(has_split=has_split) == "given"
    profile = None
    if users is not None:
        profile = users.table.column(options.profile, "profile")
        options.user_features.check(users.table)
    options.item_features.check(items.table)
    find_fields(
        interactions,
        options.columns,
        given=given,
        event_weights=options.selection.event_weights,
    )
    opened = Opened(items, interactions, users, graph, layout, has_split, given, profile)
    checks.check_text_options(options.text_form, opened.tables)
    return opened
