"""Your own tables and folders of pictures and sounds, as they are."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from data import media, splits
from data.entities import Entities
from data.interactions import InteractionColumns, read_interactions
from data.side_features import FeatureColumns, FeatureEncoder
from data.tables import Row, Skipped, Table, described
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.records import DatasetWriter, Quarantined
from mmrec_tf.schema import ModalitySpec, Schema


@dataclass(frozen=True)
class MediaFolder:
    """Where the tables and media are, and how to read them; None takes the default.

    Attributes:
      items: table of the items, CSV, TSV (also gzipped) or Parquet.
      interactions: table of the interactions.
      users: table of the users, with their profile text and side features.
      media_root: the folder that paths of media are relative to; by default that of `items`.
      split: "given" (the table's column) or "leave-last-out"; by default the former where the
        table has the column.
      columns: the columns of the interactions; `user` and `item` also name those of the other
        tables.
      text: the columns joined into an item's text, or ("none",); by default `title` and
        `description`, else `plot`.
      image: a column of paths, a template such as `images/{movieId}.jpg`, or "none".
      audio: as `image`.
      profile: the column of a user's profile text; by default `profile`.
      item_features: side features of the items.
      user_features: side features of the users.
      image_max_side: larger pictures are shrunk to this, in pixels.
      sample_rate_hz: sounds are resampled to this.
      max_seconds: longer sounds are cut.
      skip_bad_rows: pass over rows that cannot be used, and count them, instead of raising.
    """

    items: str
    interactions: str
    users: str | None = None
    media_root: str | None = None
    split: str | None = None
    columns: InteractionColumns = field(default_factory=InteractionColumns)
    text: tuple[str, ...] | None = None
    image: str | None = None
    audio: str | None = None
    profile: str | None = None
    item_features: FeatureColumns = field(default_factory=FeatureColumns)
    user_features: FeatureColumns = field(default_factory=FeatureColumns)
    image_max_side: int = 320
    sample_rate_hz: int = 16000
    max_seconds: float = 10.0
    skip_bad_rows: bool = False

    def __post_init__(self):
        if self.split not in (None, *splits.SPLIT_RULES):
            raise ConfigError(
                f"split: wanted one of {', '.join(splits.SPLIT_RULES)}; got {self.split!r}."
            )
        for name in ("image_max_side", "sample_rate_hz", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: wanted more than 0; got {getattr(self, name)}.")


def prepare(
    options: MediaFolder,
    out: str | pathlib.Path,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    source: Mapping[str, Any] | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Makes a dataset directory.

    Args:
      options: where the tables and media are, and how to read them.
      out: the dataset directory.
      overwrite: replace the dataset that stands there.
      workers: threads that decode media; by default one a CPU.
      source: what the manifest says of the source, where that is not `options`.
      extra: further JSON files for the directory, by name.

    Returns:
      The manifest.

    Raises:
      ConfigError: for a column that a table lacks.
      DatasetError: for a table that cannot be read, or when `out` may not be written.
    """
    skipped = Skipped(options.skip_bad_rows)
    catalog = Entities("items", Table(options.items), options.columns.item, default="item")
    interactions = Table(options.interactions)
    users = (
        Entities("users", Table(options.users), options.columns.user, default="user")
        if options.users is not None
        else None
    )
    contents = _Contents(options, catalog)
    with DatasetWriter(out, overwrite=overwrite) as writer:
        item_features = catalog.number(options.item_features, skipped)
        user_ids: dict[str, int] = {}
        user_features = FeatureEncoder(FeatureColumns(), {})
        if users is not None:
            user_features = users.number(options.user_features, skipped)
            user_ids = users.ids
        rule = options.split or _default_split(interactions, options.columns)
        num_named = len(catalog.ids)
        events = read_interactions(
            interactions,
            options.columns,
            users=user_ids,
            items=catalog.ids,
            given=rule == "given",
            skipped=skipped,
        )
        if not len(events.user):
            raise DatasetError(
                f"{options.interactions}: wanted at least one interaction; got none."
            )
        distinct = splits.drop_duplicates(events)
        if rule == "leave-last-out":
            distinct = splits.leave_last_out(distinct)
        _write_items(writer, catalog, contents, item_features, workers=workers)
        for item in list(catalog.ids)[num_named:]:
            writer.write_item(item, features=item_features.missing())
        profile = _write_users(writer, users, user_ids, user_features, options.profile)
        splits.write(writer, distinct)
        for name, value in (extra or {}).items():
            writer.write_json(name, value)
        schema = Schema(
            num_users=len(user_ids),
            num_items=len(catalog.ids),
            modalities={
                name: spec for name, spec in contents.specs.items() if writer.present[name]
            },
            item_features=item_features.specs,
            user_features=user_features.specs,
            profile=profile,
            ordered=rule == "leave-last-out" or splits.follows_time(distinct),
            ratings=distinct.rating is not None,
        )
        tables: dict[str, Table | None] = {
            "items": catalog.table,
            "interactions": interactions,
            "users": users.table if users is not None else None,
        }
        return writer.finish(
            schema,
            source=source or _described(options, tables),
            split_rule=rule,
            duplicates={
                "items": catalog.duplicates,
                "users": users.duplicates if users else 0,
                "interactions": len(events.user) - len(distinct.user),
            },
            skipped_rows=skipped.counts,
        )


class _Contents:
    """What is made of one row of the items: its content by modality."""

    def __init__(self, options: MediaFolder, catalog: Entities):
        from mmrec_tf.modalities import audio, image, text

        root = pathlib.Path(options.media_root or pathlib.Path(options.items).parent)
        media.check_root(root)
        self._prepare_text = text.prepare
        self._text = _text_columns(options.text, catalog.table)
        self._media = []
        prepare_image = functools.partial(image.prepare, max_side=options.image_max_side)
        prepare_audio = functools.partial(
            audio.prepare, sample_rate_hz=options.sample_rate_hz, max_seconds=options.max_seconds
        )
        for name, place, function, max_bytes in (
            ("image", options.image, prepare_image, image.MAX_BYTES),
            ("audio", options.audio, prepare_audio, audio.MAX_BYTES),
        ):
            place = place or media.default_place(name, catalog.table, root, item=catalog.column)
            if place in (None, media.ABSENT):
                continue
            locator = media.Locator(name, root, table=catalog.table, place=place)
            self._media.append(media.Medium(name, locator, function, max_bytes))
        self.specs = {
            "text": ModalitySpec(kind="text"),
            "image": ModalitySpec(kind="image"),
            "audio": ModalitySpec(kind="audio", sample_rate_hz=options.sample_rate_hz),
        }

    def load(self, item: str, row: Row) -> tuple[dict[str, str | bytes], list[Quarantined]]:
        """The content of one item by modality, and what could not be used of it."""
        found: dict[str, str | bytes] = {}
        quarantined = []
        text = self._prepare_text(_joined([row.cells[name] for name in self._text]))
        if text:
            found["text"] = text
        for medium in self._media:
            content = medium.load(item, row)
            if isinstance(content, Quarantined):
                quarantined.append(content)
            elif content is not None:
                found[medium.modality] = content
        return found, quarantined


def _write_items(
    writer: DatasetWriter,
    catalog: Entities,
    contents: _Contents,
    features: FeatureEncoder,
    *,
    workers: int | None,
) -> None:
    def work(value: tuple[str, Row]):
        item, row = value
        return item, contents.load(item, row), features.encode(row)

    done = media.in_order(work, catalog.rows(), workers=workers or os.cpu_count() or 1)
    progress = tqdm(done, desc="items", total=len(catalog.ids), unit="item", disable=None)
    for item, (content, quarantined), encoded in progress:
        writer.write_item(item, content=content, features=encoded)
        for row in quarantined:
            writer.quarantine(row)


def _write_users(
    writer: DatasetWriter,
    users: Entities | None,
    ids: Mapping[str, int],
    features: FeatureEncoder,
    column: str | None,
) -> bool:
    """Writes the users of the table, then those that only the interactions name.

    Returns:
      Whether any has profile text.
    """
    from mmrec_tf.modalities import text

    profiles, number = False, 0
    if users is not None:
        column = users.table.column(column, "profile")
        for name, row in users.rows():
            profile = text.prepare(row.cells[column]) if column else ""
            profiles |= bool(profile)
            writer.write_user(name, profile=profile or None, features=features.encode(row))
            number += 1
    for name in list(ids)[number:]:
        writer.write_user(name, features=features.missing())
    return profiles


def _text_columns(asked: tuple[str, ...] | None, table: Table) -> tuple[str, ...]:
    if asked == (media.ABSENT,):
        return ()
    if asked is not None:
        for name in asked:
            table.required_column(name, name)
        return asked
    longer = [name for name in ("description", "plot") if name in table.columns][:1]
    return tuple(name for name in ("title", *longer) if name in table.columns)


def _joined(parts: list[str]) -> str:
    """Parts of a text as sentences of one."""
    whole = ""
    for part in filter(None, parts):
        whole += (" " if whole.endswith((".", "!", "?")) else ". ") * bool(whole) + part
    return whole


def _default_split(table: Table, columns: InteractionColumns) -> str:
    return "given" if table.column(columns.split, "split") else "leave-last-out"


def _described(options: MediaFolder, tables: Mapping[str, Table | None]) -> dict[str, Any]:
    """For the manifest: the options that differ from their defaults, and the tables' hashes."""
    arguments = {
        item.name: _plain(getattr(options, item.name))
        for item in dataclasses.fields(options)
        if getattr(options, item.name) != _default(item)
    }
    return {"name": "media-folder", "arguments": arguments, "tables": described(tables)}


def _default(item: dataclasses.Field) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _plain(value: Any) -> Any:
    if isinstance(value, (InteractionColumns, FeatureColumns)):
        return dataclasses.asdict(value)
    return value
