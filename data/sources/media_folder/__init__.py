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
from data.interactions.read import event_types, find_fields, read_interactions
from data.items.content import Layout, MediaItem
from data.items.shards import Run, spool, write_spooled
from data.items.vectors import describe_vectors, read_vectors
from data.sources import checks
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
    catalog = Entities(
        "items", options.open_table(options.items), options.columns.item, default="item"
    )
    interactions = options.open_table(options.interactions)
    users = (
        Entities("users", options.open_table(options.users), options.columns.user, default="user")
        if options.users is not None
        else None
    )
    graph = triples.open_table(options.triples, text=options.text_form)
    layout = Layout(catalog, options)
    tables = {
        "items": catalog.table,
        "interactions": interactions,
        "users": users.table if users is not None else None,
        "triples": graph,
    }
    has_split = (options.columns.split or "split") in interactions.columns
    if options.columns.split is not None:
        interactions.required_column(options.columns.split, "split")
    by_source = options.selection.rule(has_split=has_split) == "given"
    profile_column = None
    if users is not None:
        profile_column = users.table.column(options.profile, "profile")
        options.user_features.check(users.table)
    options.item_features.check(catalog.table)
    find_fields(
        interactions,
        options.columns,
        given=by_source,
        event_weights=options.selection.event_weights,
    )
    checks.check_text_options(options.text_form, tables)
    if dry_run:
        return {
            "tables": columns.preview(tables),
            "media": layout.preview(catalog.table),
            "warnings": checks.notes(tables, layout.root),
        }
    given = source or {"name": "media-folder", "arguments": settings(options)}
    source = dict(given) | {"tables": describe(tables) | describe_vectors(options.vectors)}
    job = {"source": source, "options": settings(options), "versions": versions()}
    with DatasetWriter(out, overwrite=overwrite, job=job) as writer:
        skipped = Skipped(options.skip_bad_rows)
        item_features = catalog.number(options.item_features, skipped)
        user_ids: dict[str, int] = {}
        user_features = FeatureEncoder(FeatureColumns(), {})
        if users is not None:
            user_features = users.number(options.user_features, skipped)
            user_ids = users.ids
        listed = len(catalog.ids), len(user_ids)
        events = read_interactions(
            interactions,
            options.columns,
            users=user_ids,
            items=catalog.ids,
            given=by_source,
            event_weights=options.selection.event_weights,
            skipped=skipped,
        )
        warnings = checks.notes(tables, layout.root)
        warnings += catalog.warnings + (users.warnings if users is not None else [])
        warnings += checks.check_ids(
            options.selection, interactions, catalog, users, user_ids, listed, events
        )
        warnings += checks.check_times(interactions, events)
        if not len(events.user):
            skipped.check_left("interactions", interactions)
        selected = selection.select(
            events,
            options.selection,
            has_split=has_split,
            users=user_ids,
            items=catalog.ids,
            num_listed_items=listed[0],
            num_listed_users=listed[1],
            time_hint=columns.time_hint(interactions),
        )
        warnings += selected.warnings
        known = triples.write(
            writer, graph, items=catalog.ids, stays=selected.items, skipped=skipped
        )
        whole = not catalog.duplicates and "items" not in skipped.counts
        vectors = {
            name: read_vectors(
                name,
                file,
                items=catalog.ids,
                num_listed=listed[0] if whole else None,
                id_column=catalog.column,
                folder=writer.work,
            )
            for name, file in options.vectors.items()
        }
        matrices = {name: found.matrix for name, found in vectors.items()}
        unknown = {name: found.unknown for name, found in vectors.items()}
        warnings += known.warnings
        for of_items in vectors.values():
            warnings += of_items.warnings
        specs = layout.specs | {
            name: ModalitySpec(kind="vector", dim=found.dim) for name, found in vectors.items()
        }
        spooled = spool(
            writer.work / "spool",
            layout.rows(catalog, item_features, selected.items, vectors=vectors),
            num_items=int(selected.items.sum()),
        )
        # A hundred bytes an item, for as long as all the items take, and nobody asks again.
        catalog.ids.clear()
        vectors.clear()
        write_spooled(
            writer,
            spooled,
            make=MediaItem(layout.media, matrices, layout.tracks, layout.speech),
            run=run,
        )
        profile = _write_users(
            writer, users, user_ids, user_features, profile_column, selected.users
        )
        splits.write(writer, selected.events)
        for name, value in (extra or {}).items():
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
            layout.warn_of_none(catalog.table, name, schema.num_items)
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
                "items": catalog.duplicates,
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
            not_read=columns.unread(tables),
            looked_for=(*layout.asked, *options.vectors),
            warnings=warnings,
        )


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
