"""A dataset directory -> the catalog, and tf.data batches per split."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf import records
from mmrec_tf.config import UserConfig
from mmrec_tf.errors import DatasetError
from mmrec_tf.records import Interactions
from mmrec_tf.schema import SPLITS, FeatureSpec


class Catalog(NamedTuple):
    """All items with their content.

    Attributes:
      item_id: object[item] of str.
      content: by modality, object[item] of bytes (empty where absent) or <float32>[item, dim]
        (zeros where absent).
      present: <bool>[item, modality], columns in the schema's order.
      features: by name, <int32>[item, width] (0: none, 1: out of vocabulary) or <float32>[item, 2]
        (value, 1 where known).
      train_count: <int64>[item], interactions in the train split.
      log_frequency: <float32>[item], log(count + 1) less the log of the mean of count + 1.
      probability: <float32>[item], share of the train interactions; an unseen item counts as one.
    """

    item_id: np.ndarray
    content: dict[str, np.ndarray]
    present: np.ndarray
    features: dict[str, np.ndarray]
    train_count: np.ndarray
    log_frequency: np.ndarray
    probability: np.ndarray


class Users(NamedTuple):
    """All users.

    Attributes:
      user_id: object[user] of str.
      profile: object[user] of bytes, empty where missing.
      features: as in `Catalog`.
    """

    user_id: np.ndarray
    profile: np.ndarray
    features: dict[str, np.ndarray]


class Histories(NamedTuple):
    """Each user's train items, oldest first, one user after the other.

    Attributes:
      item: <int32>[pair].
      offset: <int64>[user + 1]; user u has `item[offset[u]:offset[u + 1]]`.
    """

    item: np.ndarray
    offset: np.ndarray

    def last(self, users: np.ndarray, length: int) -> np.ndarray:
        """The most recent items of some users.

        Args:
          users: <int>[n].
          length: at most so many items each.

        Returns:
          <int32>[n, length], oldest first, padded with -1 behind.
        """
        start, end = self.offset[users], self.offset[users + 1]
        start = np.maximum(start, end - length)
        at = start[:, None] + np.arange(length)
        known = at < end[:, None]
        padded = np.append(self.item, np.int32(-1))
        return padded[np.where(known, at, len(self.item))].astype(np.int32)

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All train items of some users as (row in `users`, item), each <int>[pair]."""
        count = self.offset[users + 1] - self.offset[users]
        row = np.repeat(np.arange(len(users)), count)
        at = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.item[self.offset[users][row] + at]


class Dataset:
    """A dataset directory, read.

    Attributes:
      directory: pathlib.Path.
      schema: Schema.
      manifest: the manifest as a dict.
      hash: str, SHA-256 of the manifest, which holds the hashes of all files.
      catalog: Catalog.
      users: Users.
    """

    def __init__(self, directory: str | pathlib.Path, *, verify: bool = False):
        self.directory = pathlib.Path(directory)
        self.manifest = records.verify(self.directory, full=verify)
        self.hash = hashlib.sha256((self.directory / "manifest.json").read_bytes()).hexdigest()
        self.schema = records.read_schema(self.directory)
        self._interactions: dict[str, Interactions] = {}
        self.catalog = self._read_catalog()
        self.users = self._read_users()

    @property
    def cache(self) -> pathlib.Path:
        """The folder for the vectors of frozen encoders."""
        return self.directory / "cache"

    def interactions(self, split: str) -> Interactions:
        """The interactions of a split, by user and oldest first.

        Raises:
          DatasetError: for an unknown split.
        """
        if split not in SPLITS:
            raise DatasetError(f"split: wanted one of {', '.join(SPLITS)}; got {split!r}.")
        if split not in self._interactions:
            self._interactions[split] = records.read_interactions(
                self.directory, self.schema, split
            )
        return self._interactions[split]

    def ceiling(self, split: str) -> dict[str, float] | None:
        """The best that the truth behind a planted world allows, by metric; None for real data."""
        path = self.directory / "ceiling.json"
        if not path.exists():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))[split]
        return {name: value for name, value in values.items() if "@" in name}

    def histories(self) -> Histories:
        """Each user's train items."""
        train = self.interactions("train")
        count = np.bincount(train.user, minlength=self.schema.num_users)
        return Histories(train.item, np.concatenate([[0], np.cumsum(count)]).astype(np.int64))

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        user: UserConfig | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
    ) -> tf.data.Dataset:
        """Batches of a split's interactions, each with a history from the train split.

        A train example never finds itself in its own history. What else the history holds is
        `user.history_context`: the interactions before it, or all others.

        Args:
          split: "train", "valid" or "test".
          batch_size: int.
          user: UserConfig with `history_length` and `history_context`; None for the defaults.
          shuffle: whether the order of examples is random, and another one in each epoch.
          seed: of the order and of the choice of history.
          drop_remainder: whether a last, smaller batch is left out.

        Returns:
          tf.data.Dataset with elements as `Schema.batch_spec`.

        Raises:
          DatasetError: for a split without interactions.
        """
        user = user or UserConfig()
        length = user.history_length
        context = user.history_context
        if context == "auto":
            context = "past" if self.schema.ordered else "others"
        data = self.interactions(split)
        if not len(data.user):
            raise DatasetError(f"{self.directory}: the {split} split has no interactions.")
        histories = self.histories()
        columns = {
            "user": data.user,
            "item": data.item,
            "rating": data.rating,
            "weight": data.weight,
            "at": np.arange(len(data.user), dtype=np.int64),
        }
        tables = {
            "item": tf.constant(np.append(histories.item, np.int32(-1))),
            "offset": tf.constant(histories.offset),
        }

        def with_history(batch, number):
            start = tf.gather(tables["offset"], batch["user"])
            count = tf.gather(tables["offset"], batch["user"] + 1) - start
            step = tf.range(length, dtype=tf.int64)[None, :]
            if split != "train":
                first = tf.maximum(count - length, 0)[:, None]
                position, known = first + step, first + step < count[:, None]
            elif context == "past":
                own = (batch.pop("at") - start)[:, None]
                first = tf.maximum(own - length, 0)
                position, known = first + step, first + step < own
            else:
                # All others of the user, in a window that starts anywhere and wraps around, so
                # that a history longer than the window is seen in parts, epoch after epoch.
                own = (batch.pop("at") - start)[:, None]
                others = tf.maximum(count - 1, 1)[:, None]
                first = tf.random.stateless_uniform(
                    tf.shape(own), [seed, number], maxval=2**31 - 1, dtype=tf.int64
                )
                first = tf.where(others > length, first % others, 0)
                position = (first + step) % others
                position += tf.cast(position >= own, tf.int64)
                known = step < (count - 1)[:, None]
            row = tf.where(known, start[:, None] + position, len(histories.item))
            return {
                "user": batch["user"],
                "history": tf.ensure_shape(tf.gather(tables["item"], row), [None, length]),
                "item": batch["item"],
                "rating": batch["rating"],
                "weight": batch["weight"],
            }

        batches = tf.data.Dataset.from_tensor_slices(columns)
        if shuffle:
            batches = batches.shuffle(
                min(len(data.user), 1_000_000), seed=seed, reshuffle_each_iteration=True
            )
        batches = batches.batch(batch_size, drop_remainder=drop_remainder)
        # A number a batch, as batches are made side by side: a random op would give its numbers to
        # whichever comes first.
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        batches = tf.data.Dataset.zip(batches, numbers)
        batches = batches.map(with_history, num_parallel_calls=tf.data.AUTOTUNE)
        batches = batches.prefetch(tf.data.AUTOTUNE)
        spec = self.schema.batch_spec(batch_size if drop_remainder else None, length)
        if batches.element_spec != spec:
            raise DatasetError(f"batches: wanted {spec}; made {batches.element_spec}.")
        return batches

    def _read_catalog(self) -> Catalog:
        schema = self.schema
        item_id = np.empty(schema.num_items, object)
        present = np.zeros([schema.num_items, len(schema.modalities)], bool)
        content: dict[str, np.ndarray] = {}
        for name, spec in schema.modalities.items():
            if spec.kind == "vector":
                content[name] = np.zeros([schema.num_items, spec.dim], np.float32)
            else:
                content[name] = np.full(schema.num_items, b"", object)
        features = _empty_features(schema.item_features, schema.num_items)
        for row, item in enumerate(records.read_items(self.directory, schema)):
            item_id[row] = item.item_id
            for column, name in enumerate(schema.modalities):
                value = item.content.get(name)
                if value is not None:
                    present[row, column] = True
                    content[name][row] = value.encode() if isinstance(value, str) else value
            _fill_features(features, schema.item_features, row, item.features)
        count = np.bincount(self.interactions("train").item, minlength=schema.num_items)
        log_count = np.log(count + 1.0)
        seen = np.maximum(count, 1)
        return Catalog(
            item_id=item_id,
            content=content,
            present=present,
            features=features,
            train_count=count,
            log_frequency=(log_count - np.log(np.mean(count + 1.0))).astype(np.float32),
            probability=(seen / seen.sum()).astype(np.float32),
        )

    def _read_users(self) -> Users:
        schema = self.schema
        user_id = np.empty(schema.num_users, object)
        profile = np.full(schema.num_users, b"", object)
        features = _empty_features(schema.user_features, schema.num_users)
        for row, user in enumerate(records.read_users(self.directory, schema)):
            user_id[row] = user.user_id
            if user.profile is not None:
                profile[row] = user.profile.encode()
            _fill_features(features, schema.user_features, row, user.features)
        return Users(user_id, profile, features)


def _empty_features(specs: Mapping[str, FeatureSpec], rows: int) -> dict[str, np.ndarray]:
    return {
        name: np.zeros([rows, spec.width], np.int32)
        if spec.kind == "categorical"
        else np.zeros([rows, 2], np.float32)
        for name, spec in specs.items()
    }


def _fill_features(features, specs: Mapping[str, FeatureSpec], row: int, values) -> None:
    for name, spec in specs.items():
        value = values.get(name)
        if value is None:
            continue
        if spec.kind == "categorical":
            features[name][row, : len(value)] = value
        else:
            features[name][row] = (value, 1.0)


def open_dataset(directory: str | pathlib.Path, *, verify: bool = False) -> Dataset:
    """Opens a dataset directory that `python -m data.prepare` wrote.

    Args:
      directory: its path.
      verify: compares the hashes of all files, not just their sizes.

    Raises:
      DatasetError: when it is missing, truncated or altered.
    """
    return Dataset(directory, verify=verify)
