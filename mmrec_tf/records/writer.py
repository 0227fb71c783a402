"""Writes a dataset directory aside and renames it into place."""

import csv
import importlib.metadata
import operator
import pathlib
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import sealed, write_json
from mmrec_tf.records.items import Contents, PreparedItem, Quarantined, read_report
from mmrec_tf.records.manifest import FORMAT, content_sha256, sha256
from mmrec_tf.records.record_proto import (
    Content,
    bytes_feature,
    floats_feature,
    integers_feature,
    item_record,
    serialize,
    side_features,
)
from mmrec_tf.records.shards import ShardWriter
from mmrec_tf.records.staging import PartialDirectory
from mmrec_tf.records.triples import FOLDERS, Triples, triple_records
from mmrec_tf.schema import SPLITS, Schema

SHARD_BYTES = 128 << 20
# What the bytes of a dataset can depend on.
_LIBRARIES = (
    "mmrec_tf",
    "numpy",
    "tensorflow",
    "opencv-python-headless",
    "pillow",
    "av",
    "librosa",
    "soundfile",
    "soxr",
    "scipy",
    "pyarrow",
)


class DatasetWriter:
    """Writes one dataset directory; nothing stands at its place until `finish` renames it there.

        with DatasetWriter("work/toy") as writer:
            writer.write_item("i1", content={"text": "a lantern by the sea"})
            writer.write_user("u1")
            writer.write_interactions("train", 0, item=[0], timestamp=[0])
            writer.finish(schema, source={"name": "mine"}, split_rule="given")

    Until then all of it lies in `DIRECTORY.partial`, which only one process at a time may hold.
    Item shards that were written there by `records.items.write_shard` for the same `job` before a
    kill are kept.

    Args:
      directory: where the dataset is to stand.
      overwrite: replace the dataset directory that stands there.
      job: all that the content depends on, as JSON; None for a writing that cannot be resumed.
      shard_bytes: the size at which the next shard begins, in bytes.

    Attributes:
      items: the folder for item shards.
      reports: the folder for their reports.
      work: a folder for whatever else is to outlive a kill; gone when the writing is finished.

    Raises:
      DatasetError: when something stands at `directory` that may not be replaced, or another
        process writes there.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        overwrite: bool = False,
        job: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ):
        self._shown = directory
        self._shard_bytes = shard_bytes
        self._shards: dict[str, ShardWriter] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._contents = Contents()
        self._interactions: Counter[str] = Counter({split: 0 for split in SPLITS})
        self._graph: dict[str, int] = {}
        self._partial = PartialDirectory(directory, overwrite=overwrite, job=job)
        self.items, self.work = self._partial.items, self._partial.work
        self.reports = self._partial.reports

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._shards.values():
            writer.abandon()
        self._partial.release()

    def present(self, name: str) -> int:
        """How many of the items written so far have a modality."""
        return self._contents.present(name)

    def max_values(self, name: str) -> int:
        """The most values of a modality that one of the items written so far has; at least 1."""
        return max(1, self._contents.most[name])

    def write_item(
        self,
        item_id: str,
        *,
        content: Mapping[str, Content] | None = None,
        features: Mapping[str, Sequence[int] | float | None] | None = None,
        quarantined: Sequence[Quarantined] = (),
    ) -> None:
        """Adds an item; it is numbered by the order of these calls.

        Arguments are those of `PreparedItem`. A modality's content is one value, or a list.
        """
        item = PreparedItem(
            self._contents.num_items, item_id, content or {}, features or {}, quarantined
        )
        record = item_record(item.number, item_id, content=item.content, features=item.features)
        self._folder("items", "items").write(record)
        self._contents.add(item)

    def add_item_shards(self, count: int) -> None:
        """Takes in all item shards, which stand finished in `items` with their reports."""
        for number in range(count):
            report = read_report(self.reports, number)
            self._files[f"items/{report['name']}"] = report["entry"]
            self._contents.add_json(report["contents"])

    def write_user(
        self,
        user_id: str,
        *,
        profile: str | None = None,
        features: Mapping[str, Sequence[int] | float | None] | None = None,
    ) -> None:
        """Adds a user; it is numbered by the order of these calls. Arguments as for items."""
        parts: dict[str, Any] = {"user_id": bytes_feature(user_id)}
        if profile:
            parts["profile"] = bytes_feature(profile)
        self._folder("users", "users").write(serialize(parts | side_features(features)))

    def write_interactions(
        self,
        split: str,
        user: int,
        *,
        item: Sequence[int] | np.ndarray,
        timestamp: Sequence[int] | np.ndarray,
        rating: Sequence[float] | np.ndarray | None = None,
        weight: Sequence[float] | np.ndarray | None = None,
        events: Sequence[Sequence[bool]] | np.ndarray | None = None,
        position: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Adds one user's interactions of one split; users must come in ascending order.

        Args:
          split: one of `mmrec_tf.schema.SPLITS`.
          user: the user's number.
          item: <int32>[interaction], items by number, oldest first.
          timestamp: <int64>[interaction], seconds since 1970 UTC.
          rating: <float32>[interaction], or None where there are none.
          weight: <float32>[interaction], or None where all are 1.
          events: <bool>[interaction, event], of which types it was, in the order of the schema's
            `events`; None where the schema has none.
          position: <int32>[interaction], in the list that the item was shown in, -1 where unknown,
            or None where all are.
        """
        parts: dict[str, Any] = {
            "user": integers_feature([user]),
            "item": integers_feature(item),
            "timestamp": integers_feature(timestamp),
        }
        if rating is not None:
            parts["rating"] = floats_feature(rating)
        if weight is not None and not np.all(np.asarray(weight) == 1):
            parts["weight"] = floats_feature(weight)
        if events is not None and np.shape(events)[1]:
            parts["events"] = integers_feature(
                np.asarray(events) @ (1 << np.arange(len(events[0])))
            )
        if position is not None and not np.all(np.asarray(position) == -1):
            parts["position"] = integers_feature(position)
        self._folder(f"interactions/{split}", "part").write(serialize(parts))
        self._interactions[split] += len(item)

    def write_triples(self, triples: Triples) -> None:
        """Adds the knowledge graph, all of it at once.

        Args:
          triples: distinct ones; items are numbered as in the dataset.
        """
        self._graph = triples.counts
        for folder, stem in FOLDERS.items():
            self._folder(folder, stem)
        for folder, record in triple_records(triples):
            self._folder(folder, FOLDERS[folder]).write(record)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Adds a further JSON file, such as `ceiling.json`."""
        write_json(self._partial.path / name, value)

    def finish(
        self,
        schema: Schema,
        *,
        source: Mapping[str, Any],
        split_rule: str,
        borders: tuple[int, int] | None = None,
        duplicates: Mapping[str, int] | None = None,
        dropped: Mapping[str, int] | None = None,
        skipped_rows: Mapping[str, Mapping[str, int]] | None = None,
        not_read: Mapping[str, Sequence[str]] | None = None,
        looked_for: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Writes schema, quarantine and manifest, and renames the directory into place.

        Args:
          schema: must fit what was written.
          source: where the data comes from: `name`, `arguments` and `tables`.
          split_rule: how train, valid and test were told apart.
          borders: the first seconds of valid and of test, where moments tell them apart.
          duplicates: by table, how many repeated rows were dropped.
          dropped: by reason, what the source has and the dataset was told to leave out.
          skipped_rows: by table and reason, how many bad rows were passed over.
          not_read: by table, the columns that nothing was read of.
          looked_for: modalities that the source was asked for, whether or not an item has them.
          warnings: what whoever trains on this should know; what can be told from the dataset alone
            is added here.

        Returns:
          The manifest.

        Raises:
          DatasetError: when the schema's counts are not those written, or when something else
            came to stand at the target meanwhile.
        """
        folders = {"users": "users"} | {f"interactions/{split}": "part" for split in SPLITS}
        if not self._files:
            folders["items"] = "items"
        for folder, stem in folders.items():
            self._folder(folder, stem)
        users = self._shards["users"].num_records
        for name, written, number in (
            ("items", self._contents.num_items, schema.num_items),
            ("users", users, schema.num_users),
            ("entities", self._graph.get("entities", 0), schema.num_entities),
            ("relations", self._graph.get("relations", 0), schema.num_relations),
        ):
            if written != number:
                raise DatasetError(
                    f"{self._shown}: wanted the schema's {number} {name}; {written} were written."
                )
        for name, spec in schema.modalities.items():
            if self.max_values(name) > spec.max_values:
                raise DatasetError(
                    f"{self._shown}: wanted the schema's max_values of {name}, {spec.max_values}; "
                    f"an item with {self.max_values(name)} was written. Set it to that."
                )
        files = dict(self._files)
        for folder, writer in self._shards.items():
            files |= {f"{folder}/{name}": entry for name, entry in writer.close().items()}
        self._partial.sweep()
        write_json(self._partial.path / "schema.json", schema.to_json())
        quarantined, mended = (
            [row for _, row in sorted(rows, key=operator.itemgetter(0))]
            for rows in (self._contents.quarantined, self._contents.mended)
        )
        _write_media(self._partial.path / "quarantine.csv", quarantined)
        if mended:
            _write_media(self._partial.path / "mended.csv", mended)
        for path in sorted(self._partial.path.glob("*.*")):
            files[path.name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        manifest = {
            "format": FORMAT,
            "sha256": content_sha256(files),
            "source": dict(source),
            "split_rule": split_rule,
            **({"split_borders": list(borders)} if borders else {}),
            "counts": {
                "users": schema.num_users,
                "items": schema.num_items,
                "interactions": dict(self._interactions),
                **self._graph,
                "present": {
                    name: self.present(name)
                    for name in dict.fromkeys((*schema.modalities, *looked_for))
                },
                "several_values": {
                    name: self._contents.several[name] for name in schema.modalities
                },
                "values_left_out": dict(sorted(self._contents.beyond.items())),
                "repeated_content": {
                    name: self._contents.duplicates(name) for name in schema.modalities
                },
                "duplicates": dict(duplicates or {}),
                "dropped": dict(dropped or {}),
                "skipped_rows": {name: dict(rows) for name, rows in (skipped_rows or {}).items()},
            },
            "not_read": {name: list(columns) for name, columns in (not_read or {}).items()},
            "warnings": [*warnings, *self._warnings(schema, looked_for, warnings)],
            "quarantine": _count_reasons(quarantined),
            # A dataset in which all media are kept as they came has the bytes that it had before.
            **({"mended": _count_reasons(mended)} if mended else {}),
            "content": {name: self._contents.sha256(name) for name in schema.modalities},
            "files": dict(sorted(files.items())),
            "versions": versions(),
        }
        shutil.rmtree(self.work)
        manifest = sealed(manifest)
        write_json(self._partial.path / "manifest.json", manifest)
        self._partial.put_into_place()
        return manifest

    def _warnings(
        self, schema: Schema, looked_for: Sequence[str], said: Sequence[str]
    ) -> list[str]:
        """What can be told from the dataset alone, and was not said yet."""
        found = [
            f"{split}: no interactions, so that nothing can be measured on it."
            for split in ("valid", "test")
            if not self._interactions[split]
        ]
        found += [
            f"{name}: no item has any."
            for name in looked_for
            if not self.present(name) and not any(text.startswith(f"{name}: ") for text in said)
        ]
        if not schema.modalities:
            found.append("no item has any content: models can learn from ids and features only.")
        for name in schema.modalities:
            number = self.present(name)
            if number > 1 and self._contents.duplicates(name) == number - 1:
                found.append(
                    f"{name}: all {number} items that have it have the same, which tells none from "
                    "another."
                )
        return found

    def _folder(self, folder: str, stem: str) -> ShardWriter:
        """The shards of one folder, opened on first use."""
        if folder not in self._shards:
            path = self._partial.path / folder
            path.mkdir(parents=True, exist_ok=True)
            self._shards[folder] = ShardWriter(path, stem=stem, shard_bytes=self._shard_bytes)
        return self._shards[folder]


def _write_media(path: pathlib.Path, rows: Iterable[Quarantined]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Quarantined._fields)
        writer.writerows(rows)


def _count_reasons(rows: Iterable[Quarantined]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        # In parentheses stand the sizes and words of one file, which would make each a reason.
        counts.setdefault(row.modality, Counter())[row.reason.split(" (")[0]] += 1
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(counts.items())}


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a dataset's bytes can depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
