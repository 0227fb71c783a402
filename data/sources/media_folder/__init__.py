"""Your own tables and folders of pictures and sounds, as they are."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.interactions import select as selection
from data.interactions import splits
from data.interactions.read import event_types, read_interactions
from data.items.content import MediaItem
from data.items.shards import Run, spool, write_spooled
from data.items.vectors import ItemVectors, describe_vectors, read_vectors
from data.sources import checks
from data.sources.media_folder.opened import Opened, open_tables
from data.sources.media_folder.options import MediaFolder, add_arguments, from_arguments
from data.sources.provenance import settings
from data.tables import columns, triples
from data.tables.entities import Entities
from data.tables.side_features import FeatureColumns, FeatureEncoder
from data.tables.table import Skipped, describe
from mmrec_tf.media import text
from mmrec_tf.records import DatasetWriter, versions
from mmrec_tf.schema import ModalitySpec, Schema

__all__ = ["MediaFolder", "add_arguments", "from_arguments", "prepare"]


def prepare(
    options: MediaFolder,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    run: Run | None = None,
    dry_run: bool = False,
    source: Mapping[str, Any] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Makes a dataset directory.

    Args:
      options: where the tables and media are, and how to read them.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      run: what writes the item shards; by default processes here, one a CPU.
      dry_run: write nothing, and say what the first rows look like.
      source: what the manifest says of the source, where that is not `options`.
      extra: further JSON files for the directory, by name.

    Returns:
      The manifest; under `dry_run` the `tables` with their columns, the places of `media`, and
      `warnings`.

    Raises:
      ConfigError: for a column that a table lacks, or a split that the interactions have no times
        for.
      DatasetError: for a table that cannot be read, or when `out` may not be written.
    """
    opened = open_tables(options)
    if dry_run:
        return {
            "tables": columns.preview(opened.tables),
            "media": opened.layout.preview(opened.items.table),
            "warnings": opened.notes,
        }
    given = source or {"name": "media-folder", "arguments": settings(options)}
    source = dict(given) | {"tables": describe(opened.tables) | describe_vectors(options.vectors)}
    job = {"source": source, "options": settings(options), "versions": versions()}
    with DatasetWriter(out, overwrite=overwrite, job=job) as writer:
        return _write(writer, opened, options, source=source, run=run, extra=extra or {})


def _write(
    writer: DatasetWriter,
    opened: Opened,
    options: MediaFolder,
    *,
    source: Mapping[str, Any],
    run: Run | None,
    extra: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Reads the tables, each once, and writes what they come to; returns the manifest."""
    skipped = Skipped(options.skip_bad_rows)
    items, users, layout = opened.items, opened.users, opened.layout
    item_features = items.number(options.item_features, skipped)
    user_ids: dict[str, int] = {}
    user_features = FeatureEncoder(FeatureColumns(), {})
    if users is not None:
        user_features = users.number(options.user_features, skipped)
        user_ids = users.ids
    listed = len(items.ids), len(user_ids)
    events = read_interactions(
        opened.interactions,
        options.columns,
        users=user_ids,
        items=items.ids,
        given=opened.given,
        event_weights=options.selection.event_weights,
        skipped=skipped,
    )
    warnings = opened.notes
    warnings += items.warnings + (users.warnings if users is not None else [])
    warnings += checks.check_ids(
        options.selection, opened.interactions, items, users, user_ids, listed, events
    )
    warnings += checks.check_times(opened.interactions, events)
    if not len(events.user):
        skipped.check_left("interactions", opened.interactions)
    selected = selection.select(
        events,
        options.selection,
        has_split=opened.has_split,
        users=user_ids,
        items=items.ids,
        num_listed_items=listed[0],
        num_listed_users=listed[1],
        time_hint=columns.time_hint(opened.interactions),
    )
    known = triples.write(
        writer, opened.graph, items=items.ids, stays=selected.items, skipped=skipped
    )
    vectors = _read_vectors(writer, items, options, listed[0], skipped)
    warnings += [*selected.warnings, *known.warnings]
    unknown = {name: found.unknown for name, found in vectors.items()}
    specs = dict(layout.specs)
    for name, found in vectors.items():
        warnings += found.warnings
        specs[name] = ModalitySpec(kind="vector", dim=found.dim)
    _write_items(writer, opened, item_features, selected.items, vectors, run)
    profile = _write_users(writer, users, user_ids, user_features, opened.profile, selected.users)
    splits.write(writer, selected.events)
    for name, value in extra.items():
        writer.write_json(name, value)
    position = selected.events.position
    schema = Schema(
        num_users=int(selected.users.sum()),
        num_items=int(selected.items.sum()),
        modalities={
            name: dataclasses.replace(spec, max_values=writer.max_values(name))
            for name, spec in specs.items()
            if writer.present(name)
        },
        item_features=item_features.specs,
        user_features=user_features.specs,
        profile=profile,
        ordered=selected.ordered,
        ratings=selected.events.rating is not None,
        num_entities=known.num_entities,
        num_relations=known.num_relations,
        events=event_types(options.selection.event_weights),
        num_positions=0 if position is None else int(position.max()) + 1,
    )
    warnings += [
        layout.warn_of_none(items.table, name, schema.num_items)
        for name in layout.places
        if not writer.present(name)
    ]
    dropped = {name: number for name, number in selected.counts.items() if name != "repeated"}
    return writer.finish(
        schema,
        source=source,
        split_rule=selected.split,
        borders=selected.borders,
        duplicates={
            "items": items.duplicates,
            "users": users.duplicates if users else 0,
            "interactions": selected.counts["repeated"],
            **known.duplicates,
        },
        dropped={
            **{f"interactions {name}": number for name, number in dropped.items()},
            "items left_out": int((~selected.items).sum()),
            "users left_out": int((~selected.users).sum()),
            **known.dropped,
            **{f"{name} rows of unknown items": number for name, number in unknown.items()},
        },
        skipped_rows=skipped.counts,
        not_read=columns.unread(opened.tables),
        looked_for=(*layout.asked, *options.vectors),
        warnings=warnings,
    )


def _read_vectors(
    writer: DatasetWriter,
    items: Entities,
    options: MediaFolder,
    num_listed: int,
    skipped: Skipped,
) -> dict[str, ItemVectors]:
    """Ready-made vectors by modality, which may stand in the order of the items table if that is
    whole."""
    whole = not items.duplicates and "items" not in skipped.counts
    return {
        name: read_vectors(
            name,
            file,
            items=items.ids,
            num_listed=num_listed if whole else None,
            id_column=items.column,
            folder=writer.work,
        )
        for name, file in options.vectors.items()
    }


def _write_items(
    writer: DatasetWriter,
    opened: Opened,
    features: FeatureEncoder,
    stays: NDArray[np.bool_],
    vectors: dict[str, ItemVectors],
    run: Run | None,
) -> None:
    """Writes the items that stay, with their content; `items.ids` and `vectors` are then empty."""
    layout = opened.layout
    matrices = {name: found.matrix for name, found in vectors.items()}
    spooled = spool(
        writer.work / "spool",
        layout.rows(opened.items, features, stays, vectors=vectors),
        num_items=int(stays.sum()),
    )
    # A hundred bytes an item, for as long as all the items take, and nobody asks again.
    opened.items.ids.clear()
    vectors.clear()
    make = MediaItem(layout.media, matrices, layout.tracks, layout.speech)
    write_spooled(writer, spooled, make=make, run=run)


def _write_users(
    writer: DatasetWriter,
    users: Entities | None,
    ids: Mapping[str, int],
    features: FeatureEncoder,
    column: str | None,
    stays: NDArray[np.bool_],
) -> bool:
    """Writes the users of the table, then those that only the interactions name.

    Returns:
      Whether any has profile text.
    """
    profiles, listed = False, 0
    if users is not None:
        for listed, (name, row) in enumerate(users.rows(), 1):
            if stays[listed - 1]:
                profile = text.prepare(row.cells[column]) if column else ""
                profiles |= bool(profile)
                writer.write_user(name, profile=profile or None, features=features.encode(row))
    for name in itertools.compress(itertools.islice(ids, listed, None), stays[listed:]):
        writer.write_user(name, features=features.missing())
    return profiles
