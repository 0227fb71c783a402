"""What is asked of tables before a dataset is made of them: columns, ids, times that make sense."""

import pathlib
from collections.abc import Mapping

from data.interactions import times
from data.interactions.options import SelectionOptions
from data.interactions.splits import Events
from data.tables import columns
from data.tables.delimited import Csv
from data.tables.entities import Entities
from data.tables.ids import Sides, check_overlap
from data.tables.table import Table
from mmrec_tf.errors import ConfigError


def notes(tables: Mapping[str, Table | None], root: pathlib.Path) -> list[str]:
    """What to say of the columns of the tables, and of how they are read."""
    found: list[str] = []
    for name, table in tables.items():
        if table is not None:
            found += table.notes
            found += columns.propose(name, table, root=root if name == "items" else None)
    return found


def check_text_options(form: Csv, tables: Mapping[str, Table | None]) -> None:
    """Refuses options of CSV where no table is one.

    Raises:
      ConfigError: when that is so.
    """
    forms = [table.form for table in tables.values() if table is not None]
    if not form.has_defaults and not any(isinstance(other, Csv) for other in forms):
        raise ConfigError(
            "delimiter, encoding and quoting: belong to CSV and TSV; no table is one. Leave them "
            "out."
        )


def check_ids(
    options: SelectionOptions,
    interactions: Table,
    catalog: Entities,
    users: Entities | None,
    user_ids: Mapping[str, int],
    listed: tuple[int, int],
    events: Events,
) -> list[str]:
    """Refuses interactions that name nothing which the other tables list.

    Args:
      options: whether others are dropped.
      interactions: the table.
      catalog: the items of their table, then those that only interactions name.
      users: the table of the users, if there is one.
      user_ids: numbers by id, of those of the table first.
      listed: how many items and users the tables list.
      events: what the interactions say.

    Returns:
      What to warn of.

    Raises:
      DatasetError: when no interaction names an item, or a user, that is listed.
    """
    found: list[str] = []
    for entities, ids, number, named in (
        (catalog, catalog.ids, listed[0], events.item),
        (users, user_ids, listed[1], events.user),
    ):
        if entities is not None:
            paths = str(entities.table.path), str(interactions.path)
            sides = Sides(entities.name, *paths, ids, number)
            found += check_overlap(sides, named=len(named), met=int((named < number).sum()))
    # Who has them left out knows of them; the summary counts them.
    return [] if options.only_listed else found


def check_times(interactions: Table, events: Events) -> list[str]:
    """What to warn of where times look like none."""
    for column, roles in interactions.read.items():
        if {"timestamp", "date"} & set(roles):
            return times.doubtful(events.timestamp, column)
    return []
