"""Writes a dataset directory aside and renames it into place."""

import csv
import importlib.metadata
import pathlib
import platform
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import FORMAT, content_sha256, read_manifest, sha256, write_json
from mmrec_tf.records.parts import (
    bytes_feature,
    floats_feature,
    integers_feature,
    side_features,
)
from mmrec_tf.records.shards import ShardWriter
from mmrec_tf.schema import SPLITS, Schema

SHARD_BYTES = 128 << 20
# What the bytes of a dataset can depend on.
_LIBRARIES = (
    "mmrec_tf",
    "numpy",
    "tensorflow",
    "opencv-python-headless",
    "librosa",
    "soundfile",
    "soxr",
    "scipy",
    "pyarrow",
)


class Quarantined(NamedTuple):
    """One medium that could not be used: a row of `quarantine.csv`."""

    item: str
    modality: str
    file: str
    reason: str
    decoder: str = ""


class DatasetWriter:
    """Writes one dataset directory; nothing stands at its place until `finish` renames it there.

        with DatasetWriter("work/toy") as writer:
            writer.write_item("i1", content={"text": "a lantern by the sea"})
            writer.write_user("u1")
            writer.write_interactions("train", 0, item=[0], timestamp=[0])
            writer.finish(schema, source={"name": "mine"}, split_rule="given")

    Args:
      directory: where the dataset is to stand.
      overwrite: replace the dataset directory that stands there.
      shard_bytes: the size at which the next shard begins, in bytes.

    Raises:
      DatasetError: when something stands at `directory` that may not be replaced.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
    ):
        # Resolved, because a link cannot be renamed over.
        self._directory = pathlib.Path(directory).resolve()
        self._shown = directory
        self._overwrite = overwrite
        self._shard_bytes = shard_bytes
        self._shards: dict[str, ShardWriter] = {}
        self._quarantine: list[Quarantined] = []
        self._present: Counter[str] = Counter()
        self._interactions: Counter[str] = Counter({split: 0 for split in SPLITS})
        self._finished = False
        self._refuse()
        # Beside the target, because a rename works only within one file system.
        self._partial = self._directory.with_name(
            f"{self._directory.name}.partial-{secrets.token_hex(4)}"
        )
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise DatasetError(
                f"{directory}: cannot be written; {error.strerror}. Name another directory."
            ) from error
        for folder, stem in (("items", "items"), ("users", "users")):
            self._add_shards(folder, stem)
        for split in SPLITS:
            self._add_shards(f"interactions/{split}", "part")

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if not self._finished:
            for writer in self._shards.values():
                writer.abandon()
            shutil.rmtree(self._partial, ignore_errors=True)

    @property
    def present(self) -> Counter[str]:
        """How many of the items written so far have each modality."""
        return self._present.copy()

    def write_item(
        self,
        item_id: str,
        *,
        content: Mapping[str, str | bytes | np.ndarray] | None = None,
        features: Mapping[str, Sequence[int] | float | None] | None = None,
    ) -> None:
        """Adds an item; it is numbered by the order of these calls.

        Args:
          item_id: unique.
          content: by modality: text as a string, picture or sound as bytes, or <float32>[dim].
            Modalities that the item lacks are left out.
          features: by name: numbers from `FeatureSpec.vocabulary` (2 + position; 1 unknown), or
            one standardised number; None where missing.
        """
        parts: dict[str, Any] = {"item_id": bytes_feature(item_id)}
        for name, value in (content or {}).items():
            parts[name] = (
                floats_feature(value) if isinstance(value, np.ndarray) else bytes_feature(value)
            )
            self._present[name] += 1
        self._write("items", parts | side_features(features))

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
        self._write("users", parts | side_features(features))

    def write_interactions(
        self,
        split: str,
        user: int,
        *,
        item: Sequence[int] | np.ndarray,
        timestamp: Sequence[int] | np.ndarray,
        rating: Sequence[float] | np.ndarray | None = None,
        weight: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        """Adds one user's interactions of one split; users must come in ascending order.

        Args:
          split: one of `mmrec_tf.schema.SPLITS`.
          user: the user's number.
          item: <int32>[interaction], items by number, oldest first.
          timestamp: <int64>[interaction], seconds since 1970 UTC.
          rating: <float32>[interaction], or None where there are none.
          weight: <float32>[interaction], or None where all are 1.
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
        self._write(f"interactions/{split}", parts)
        self._interactions[split] += len(item)

    def quarantine(self, row: Quarantined) -> None:
        """Notes a medium that could not be used."""
        self._quarantine.append(row._replace(reason=" ".join(row.reason.split())))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Adds a further JSON file, such as `ceiling.json`."""
        write_json(self._partial / name, value)

    def finish(
        self,
        schema: Schema,
        *,
        source: Mapping[str, Any],
        split_rule: str,
        duplicates: Mapping[str, int] | None = None,
        skipped_rows: Mapping[str, Mapping[str, int]] | None = None,
    ) -> dict[str, Any]:
        """Writes schema, quarantine and manifest, and renames the directory into place.

        Args:
          schema: must fit what was written.
          source: where the data comes from: `name`, `arguments` and `tables`.
          split_rule: how train, valid and test were told apart.
          duplicates: by table, how many repeated rows were dropped.
          skipped_rows: by table and reason, how many bad rows were passed over.

        Returns:
          The manifest.

        Raises:
          DatasetError: when the schema's counts are not those written, or when something else
            came to stand at the target meanwhile.
        """
        for name, number in (("items", schema.num_items), ("users", schema.num_users)):
            if self._shards[name].num_records != number:
                raise DatasetError(
                    f"{self._shown}: wanted the schema's {number} {name}; "
                    f"{self._shards[name].num_records} were written."
                )
        files: dict[str, dict[str, Any]] = {}
        for folder, writer in self._shards.items():
            files |= {f"{folder}/{name}": entry for name, entry in writer.close().items()}
        write_json(self._partial / "schema.json", schema.to_json())
        _write_quarantine(self._partial / "quarantine.csv", self._quarantine)
        for path in sorted(self._partial.glob("*.*")):
            files[path.name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        manifest = {
            "format": FORMAT,
            "sha256": content_sha256(files),
            "source": dict(source),
            "split_rule": split_rule,
            "counts": {
                "users": schema.num_users,
                "items": schema.num_items,
                "interactions": dict(self._interactions),
                "present": {name: self._present[name] for name in schema.modalities},
                "duplicates": dict(duplicates or {}),
                "skipped_rows": {name: dict(rows) for name, rows in (skipped_rows or {}).items()},
            },
            "quarantine": _by_reason(self._quarantine),
            "files": dict(sorted(files.items())),
            "versions": _versions(),
        }
        write_json(self._partial / "manifest.json", manifest)
        self._rename()
        self._finished = True
        return manifest

    def _add_shards(self, folder: str, stem: str) -> None:
        self._shards[folder] = ShardWriter(
            self._partial / folder, stem=stem, shard_bytes=self._shard_bytes
        )

    def _write(self, folder: str, parts: Mapping[str, Any]) -> None:
        import tensorflow as tf

        self._shards[folder].write(tf.train.Example(features=tf.train.Features(feature=parts)))

    def _refuse(self) -> None:
        """Refuses to replace what is not a dataset, or what was not asked to be replaced."""
        if not self._directory.exists():
            return
        if not self._directory.is_dir():
            raise DatasetError(f"{self._shown}: wanted a directory to write; it is a file.")
        if not any(self._directory.iterdir()):
            return
        try:
            read_manifest(self._directory)
        except DatasetError as error:
            # A dataset of another format may be replaced as well; anything else is not ours.
            if "of format" not in str(error):
                raise DatasetError(
                    f"{self._shown}: wanted a new or empty directory, or a dataset to replace; it "
                    "holds something else. Name another directory."
                ) from error
        if not self._overwrite:
            raise DatasetError(
                f"{self._shown}: a dataset stands there already. Name another directory, or "
                "replace it with --overwrite."
            )

    def _rename(self) -> None:
        self._refuse()
        if not self._directory.exists() or not any(self._directory.iterdir()):
            self._partial.rename(self._directory)
            return
        old = self._partial.with_name(self._partial.name.replace(".partial-", ".replaced-"))
        self._directory.rename(old)
        try:
            self._partial.rename(self._directory)
        except OSError:
            old.rename(self._directory)
            raise
        shutil.rmtree(old)


def _write_quarantine(path: pathlib.Path, rows: Iterable[Quarantined]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Quarantined._fields)
        writer.writerows(rows)


def _by_reason(rows: Iterable[Quarantined]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        # In parentheses stand the sizes and words of one file, which would make each a reason.
        counts.setdefault(row.modality, Counter())[row.reason.split(" (")[0]] += 1
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(counts.items())}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
