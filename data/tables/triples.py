"""The table of a knowledge graph: which items and other entities stand in which relation."""

import argparse
import array
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.tables.delimited import Csv
from data.tables.ids import Sides, alike, identifier
from data.tables.rows import BadRow
from data.tables.table import Skipped, Table, complete
from mmrec_tf.errors import DatasetError
from mmrec_tf.records import DatasetWriter, Triples

_COLUMNS = ("head", "relation", "tail")
# When triples name less than this share of the items, that is told.
_FEW = 0.1


class Written(NamedTuple):
    """What was written of a knowledge graph.

    Attributes:
      num_entities: nodes that are no items.
      num_relations: kinds of triples.
      duplicates: how many repeated triples were dropped, by table.
      dropped: how many triples were dropped with their items, by reason.
      warnings: what to say of the table.
    """

    num_entities: int = 0
    num_relations: int = 0
    duplicates: Mapping[str, int] = {}
    dropped: Mapping[str, int] = {}
    warnings: Sequence[str] = ()


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Adds the option that names the table to a command or to a group."""
    parser.add_argument(
        "--triples",
        metavar="FILE",
        help="knowledge graph: a table with the columns head, relation and tail",
    )


def open_table(table: str | Table | None, *, text: Csv | None = None) -> Table | None:
    """Opens the table; None where there is none.

    Args:
      table: the table, or its path.
      text: how CSV and TSV are read, where that was said.

    Raises:
      DatasetError: when there is no such file, or it lacks a column.
    """
    if table is None:
        return None
    found = Table(table, text=text) if isinstance(table, str) else table
    if missing := [name for name in _COLUMNS if name not in found.columns]:
        raise DatasetError(
            f"{found.path}: wanted the columns {', '.join(_COLUMNS)}; there is no {missing[0]} "
            f"among {', '.join(found.columns)}. Name them so in the first line."
        )
    for name in _COLUMNS:
        found.required_column(name, name)
    return found


def write(
    writer: DatasetWriter,
    table: Table | None,
    *,
    items: Mapping[str, int],
    stays: NDArray[np.bool_],
    skipped: Skipped,
) -> Written:
    """Writes distinct triples to a dataset, less those of items that it leaves out.

    A head or a tail that is the id of an item is that item, anything else another entity. Entities
    and relations are numbered as the table first names them, less those that no triple is left of.

    Args:
      writer: of the dataset.
      table: as `open_table` returns it; None writes nothing.
      items: numbers by id, of all items of the source.
      stays: <bool>[item], which of them the dataset takes.
      skipped: what to do with bad rows.

    Raises:
      DatasetError: for a bad row, unless such rows are skipped, or when no triple names an item.
    """
    if table is None:
        return Written()
    triple, entities, relations = _read(table, items, skipped)
    distinct = np.unique(triple, axis=0)
    if len(distinct) and distinct[:, [0, 2]].min() >= len(items):
        way = alike(_sides(table, items, entities)) or "Name items there as the other tables do."
        raise DatasetError(
            f"{table.path}: wanted heads or tails that are ids of items; got none in "
            f"{len(triple)} triples; an item is {next(iter(items), '')!r}, a head or tail "
            f"{next(iter(entities))!r}. {way}"
        )
    warnings = _warn_of_few(table, distinct, items, entities, stays)
    # What is no item stays in any case.
    stays = np.concatenate([stays, np.ones(len(entities), bool)])
    kept = distinct[stays[distinct[:, 0]] & stays[distinct[:, 2]]]
    stays[len(items) :] = False
    stays[kept[:, [0, 2]]] = True
    node = (np.cumsum(stays) - 1)[kept[:, [0, 2]]]
    used, relation = np.unique(kept[:, 1], return_inverse=True)
    entity_id = np.array(list(entities), object)[stays[len(items) :]]
    writer.write_triples(
        Triples(
            head=node[:, 0].astype(np.int32),
            relation=relation.astype(np.int32),
            tail=node[:, 1].astype(np.int32),
            entity_id=entity_id,
            relation_id=np.array(list(relations), object)[used],
        )
    )
    return Written(
        num_entities=len(entity_id),
        num_relations=len(used),
        duplicates={"triples": len(triple) - len(distinct)},
        dropped={"triples left_out": len(distinct) - len(kept)},
        warnings=warnings,
    )


def _sides(table: Table, items: Mapping[str, int], entities: Mapping[str, int]) -> Sides:
    return Sides("items", "the items", str(table.path), (*items, *entities), len(items))


def _warn_of_few(
    table: Table,
    triple: NDArray[Any],
    items: Mapping[str, int],
    entities: Mapping[str, int],
    stays: NDArray[np.bool_],
) -> list[str]:
    """What to warn of where the triples name few of the items that stay."""
    named = np.zeros(len(items), bool)
    nodes = triple[:, [0, 2]].ravel()
    named[nodes[nodes < len(items)]] = True
    lacking = np.flatnonzero(stays & ~named)
    if not len(nodes) or not entities or len(lacking) <= (1 - _FEW) * stays.sum():
        return []
    item = next(itertools.islice(items, int(lacking[0]), None))
    return [
        f"{table.path}: names {int((stays & named).sum())} of {int(stays.sum())} items; {item!r} "
        f"is one that it does not name, {next(iter(entities))!r} a name there that is no item. "
        f"{alike(_sides(table, items, entities))}".strip()
    ]


def _read(
    table: Table, items: Mapping[str, int], skipped: Skipped
) -> tuple[NDArray[Any], dict[str, int], dict[str, int]]:
    """The rows as <int64>[triple, 3] with entities after the items; and both names by number."""
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    # An array rather than a list: a triple is 12 bytes, not 100.
    numbers = array.array("i")
    for row in table:
        try:
            complete(row, table.columns)
            names = [identifier(row.cells[name]) for name in _COLUMNS]
            if "" in names:
                raise BadRow(f"no {_COLUMNS[names.index('')]}")
        except BadRow as error:
            skipped.add("triples", row, str(error))
            continue
        head, relation, tail = names
        numbers.append(_node(head, items, entities))
        numbers.append(relations.setdefault(relation, len(relations)))
        numbers.append(_node(tail, items, entities))
    return np.asarray(numbers, np.int64).reshape(-1, 3), entities, relations


def _node(name: str, items: Mapping[str, int], entities: dict[str, int]) -> int:
    number = items.get(name)
    if number is None:
        number = len(items) + entities.setdefault(name, len(entities))
    return number
