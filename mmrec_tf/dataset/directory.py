"""A dataset directory -> the catalog, the users, and tf.data batches per split."""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf import records
from mmrec_tf.config import RetrievalConfig, UserConfig
from mmrec_tf.dataset.batches import build_batches
from mmrec_tf.dataset.catalog import (
    Catalog,
    decode_ids,
    empty_features,
    encode_ids,
    fill_features,
    read_catalog,
)
from mmrec_tf.dataset.column_cache import Arrays, ColumnCache
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import ConfigError, DatasetError, did_you_mean
from mmrec_tf.records import Interactions, Triples
from mmrec_tf.records.files import read_json
from mmrec_tf.schema import HISTORIES, SPLITS

# The most items that a user dislikes which a row of a batch carries.
MOST_DISLIKED = 16


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


class Dataset:
    """A dataset directory, read.

    Attributes:
      directory: pathlib.Path.
      schema: Schema.
      manifest: the manifest as a dict.
      hash: str, SHA-256 of the manifest, which holds the hashes of all files.
      content_in_memory: bool, whether the catalog holds its content or reads it when asked.
      catalog: Catalog.
      users: Users.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        verify: bool = False,
        content_memory_mb: int = 1024,
    ):
        self.directory = pathlib.Path(directory)
        self.manifest = records.verify(self.directory, full=verify)
        self.hash = hashlib.sha256((self.directory / "manifest.json").read_bytes()).hexdigest()
        self.schema = records.read_schema(self.directory)
        self.content_in_memory = self.item_bytes <= content_memory_mb << 20
        self._columns = ColumnCache(
            self.directory, identity=self.hash, files=self.manifest["files"]
        )
        self._interactions: dict[str, Interactions] = {}
        self.catalog: Catalog = read_catalog(
            self.directory,
            self.schema,
            train_item=self.interactions("train").item,
            content_sha256=self.manifest["content"],
            in_memory=self.content_in_memory,
            cache=self._columns,
        )
        self.users = self._read_users()

    @property
    def item_bytes(self) -> int:
        """The size of the item shards, which hold all content."""
        files = self.manifest["files"].items()
        return sum(entry["bytes"] for name, entry in files if name.startswith("items/"))

    @property
    def cache(self) -> pathlib.Path:
        """The folder for the vectors of frozen encoders, and for columns of large datasets."""
        return self.directory / "cache"

    def interactions(self, split: str) -> Interactions:
        """The interactions of a split, by user and oldest first.

        Raises:
          DatasetError: for an unknown split.
        """
        if split not in SPLITS:
            raise DatasetError(f"split: wanted one of {', '.join(SPLITS)}; got {split!r}.")
        if split not in self._interactions:
            arrays = self._columns.read(
                f"interactions_{split}",
                f"interactions/{split}",
                lambda: records.read_interactions(self.directory, self.schema, split)._asdict(),
            )
            self._interactions[split] = Interactions(**arrays)
        return self._interactions[split]

    def known_interactions(self, history: str) -> Interactions:
        """The interactions that a history holds, by user and oldest first; of the same time, as
        where there are no times, those of train stand before those of valid, and these before
        those of test.

        Args:
          history: one of `mmrec_tf.schema.HISTORIES`: "train", "train+valid" or "all".

        Raises:
          ConfigError: for an unknown history.
        """
        if history not in HISTORIES:
            raise ConfigError(f"unknown history {history!r}{did_you_mean(history, HISTORIES)}")
        parts = [self.interactions(split) for split in HISTORIES[history]]
        if len(parts) == 1:
            return parts[0]
        joined = Interactions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        # Stable: what stands side by side in a split stays so.
        order = np.lexsort([joined.timestamp, joined.user])
        return Interactions(*(column[order] for column in joined))

    def known_count(self, history: str) -> np.ndarray:
        """How often a history holds each item, <int64>[item].

        Args:
          history: as for `known_interactions`.
        """
        item = self.known_interactions(history).item
        return np.bincount(item, minlength=self.schema.num_items)

    def ceiling(self, split: str, *, knowable: bool = False) -> dict[str, float] | None:
        """The best that the truth behind a planted world allows, by metric; None for real data.

        Beside the metrics of a ranking, `auc` and `log_loss` of telling liked interactions from
        others where the world has ratings.

        Args:
          split: "valid" or "test".
          knowable: what an estimator reaches instead that is told each item's cluster and otherwise
            reads train alone; metrics of a ranking only. None also for a planted world that was
            prepared before this was measured.

        Raises:
          DatasetError: for a file that cannot be read, or that lacks the split.
        """
        path = self.directory / "ceiling.json"
        if not path.exists():
            return None
        try:
            found = read_json(path)
            if knowable and "knowable" not in found:
                return None
            values = (found["knowable"] if knowable else found)[split]
            return {name: value for name, value in values.items() if name != "users"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}: wanted the best figures of {split}; {error}.") from error

    @functools.cached_property
    def triples(self) -> Triples:
        """The knowledge graph, whose nodes are the items, then its other entities; empty where
        the dataset has none.

        Raises:
          DatasetError: naming the shard that cannot be read.
        """
        return records.read_triples(self.directory, self.schema)

    def histories(
        self, *, disliked_below: float | None = None, history: str = "train"
    ) -> Histories:
        """What each user did.

        Args:
          disliked_below: items that the user rated lower are left out, as a history says what a
            user likes; None takes all, as what a user has seen does.
          history: as for `known_interactions`. Training and validation read train alone.

        Raises:
          ConfigError: for `disliked_below` where there are no ratings, or all are lower; for an
            unknown history.
        """
        data = self.known_interactions(history)
        return self._by_user(_select(data, ~self._rated_low(disliked_below, among=data)))

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        user: UserConfig | None = None,
        retrieval: RetrievalConfig | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_remainder: bool = False,
        deterministic: bool = True,
        data_service: str = "",
        keep_disliked: bool = False,
        unclicked_below: float | None = None,
    ) -> tf.data.Dataset:
        """Batches of a split's interactions, each with a history from the train split.

        A train example never finds itself in its own history. What else the history holds is
        `user.history_context`: the interactions before it, or all others. Under
        `user.training_window` a train example carries that many in a row of the last
        `user.history_length` before it, or of all others, drawn anew each time. Under
        `retrieval.next_items` n its history ends up to n - 1 items earlier, so that it is one of
        the next n.

        Under `retrieval.disliked_below` train interactions with a lower rating are no examples and
        stand in no history, whatever the split; up to 16 of the user's own go with each example as
        `disliked`, of more than that some in one epoch and some in the next.

        Args:
          split: "train", "valid" or "test".
          batch_size: int.
          user: UserConfig with `history_length`, `training_window` and `history_context`; None for
            the defaults.
          retrieval: RetrievalConfig with `item_balance`, `next_items`, `fading` and
            `disliked_below`; None for the defaults, which take each example once, as the next item,
            and dislike nothing. Under an `item_balance` above 0, examples are drawn with
            replacement, as many an epoch as there are, with probability proportional to count **
            -item_balance, count being how often the examples name the example's item: with 1, all
            items come equally often.
          shuffle: whether the order of examples is random, and another one in each pass over the
            batches: that of the n-th pass to begin follows from `seed` and n.
          seed: of the order and of the choice of history and of disliked items.
          drop_remainder: whether a last, smaller batch is left out.
          deterministic: whether the same seed gives the same batches in the same order; True by
            default, as it costs next to nothing compared with a training step. False hands out
            whichever batch is ready first.
          data_service: address of a tf.data service dispatcher that has batches made elsewhere,
            such as "grpc://localhost:5000"; "" makes them in this process. Each example comes once
            an epoch; when a worker fails, and batches with it, the epoch ends in TensorFlow's
            InvalidArgumentError. Batches come in the order in which workers finish them.
          keep_disliked: under `disliked_below`, whether train interactions with a lower rating are
            examples, too; in no history they stand all the same, so that such an example's holds
            what the user likes: before it, or all of it. It may be among its own `disliked`.
          unclicked_below: which train interactions go with examples as `disliked`, where that is
            not `disliked_below`, which goes on to say what a history holds.

        Returns:
          tf.data.Dataset with elements as `Schema.batch_spec`.

        Raises:
          DatasetError: for a split without interactions.
          ConfigError: for `disliked_below` where there are no ratings, or all of train are lower;
            for `next_items` above 1 where histories are not what lies before an example; when
            nothing answers at the address of the data service.
        """
        user, retrieval = user or UserConfig(), retrieval or RetrievalConfig()
        context = user.history_context
        if context == "auto":
            context = "past" if self.schema.ordered else "others"
        if retrieval.next_items > 1 and context != "past":
            raise ConfigError(
                "retrieval.next_items: wanted 1, as histories hold all other items of a user, and "
                f"nothing comes next; got {retrieval.next_items}. Set user.history_context to past."
            )
        trains = split == "train"
        length = user.history_length
        window = user.training_window if trains else 0
        data = self.interactions(split)
        if not len(data.user):
            raise DatasetError(f"{self.directory}: the {split} split has no interactions.")
        train = self.interactions("train")
        low = self._rated_low(retrieval.disliked_below)
        liked = _select(train, ~low)
        disliked, num_disliked = None, 0
        if unclicked_below is not None or retrieval.disliked_below is not None:
            apart = low
            if unclicked_below is not None:
                apart = self._rated_low(unclicked_below, setting="ranking.click_rating")
            disliked = self._by_user(_select(train, apart))
            num_disliked = min(int(np.diff(disliked.offset).max(initial=0)), MOST_DISLIKED)
        batches = build_batches(
            data if not trains or keep_disliked else liked,
            self._by_user(liked),
            batch_size=batch_size,
            length=length,
            context=context if trains else "last",
            window=window,
            next_items=retrieval.next_items,
            fading=retrieval.fading,
            among=~low if trains and keep_disliked else None,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
            deterministic=deterministic,
            item_balance=retrieval.item_balance,
            disliked=disliked,
            num_disliked=num_disliked,
            data_service=data_service,
        )
        spec = self.schema.batch_spec(
            batch_size if drop_remainder else None, window or length, num_disliked
        )
        if batches.element_spec != spec:
            raise DatasetError(f"batches: wanted {spec}; made {batches.element_spec}.")
        return batches

    def require_rated(self, rating: float | None, *, setting: str) -> None:
        """Refuses a rating that no train interaction reaches.

        Args:
          rating: None for none.
          setting: what asks for it, such as "ranking.click_rating".

        Raises:
          ConfigError: naming the setting.
        """
        self._rated_low(rating, setting=setting)

    def _rated_low(
        self,
        below: float | None,
        *,
        setting: str = "retrieval.disliked_below",
        among: Interactions | None = None,
    ) -> np.ndarray:
        """Which interactions are rated below, <bool>[interaction]; of train, unless others are
        given."""
        rating = (self.interactions("train") if among is None else among).rating
        if below is None:
            return np.zeros(len(rating), bool)
        if not self.schema.ratings:
            raise ConfigError(
                f"{setting}: wanted a dataset with ratings; {self.directory} has "
                "none. Set it to null, or write the dataset from interactions with ratings."
            )
        low = rating < below
        if low.all():
            raise ConfigError(
                f"{setting}: wanted train interactions rated {below:g} or "
                f"higher; got none of {len(low)}. Set it lower."
            )
        return low

    def _by_user(self, data: Interactions) -> Histories:
        """Interactions, by user and oldest first, as histories."""
        count = np.bincount(data.user, minlength=self.schema.num_users)
        offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        # As a source without times has 0 everywhere.
        known = self.interactions("train").timestamp.any()
        return Histories(data.item, offset, data.timestamp if known else None)

    def _read_users(self) -> Users:
        specs = self.schema.user_features
        arrays = self._columns.read("users", "users", self._parse_users)
        return Users(
            decode_ids(arrays["id"]),
            arrays["profile"],
            {name: arrays[f"feature/{name}"] for name in specs},
        )

    def _parse_users(self) -> Arrays:
        schema = self.schema
        user_id = np.empty(schema.num_users, object)
        profile = np.full(schema.num_users, b"", object)
        features = empty_features(schema.user_features, schema.num_users)
        for part in records.read_user_columns(self.directory, schema):
            user_id[part.number] = part.id
            count, values = part.column["profile"]
            profile[np.repeat(part.number, count)] = values
            fill_features(features, schema.user_features, part)
        arrays = {f"feature/{name}": values for name, values in features.items()}
        return {"id": encode_ids(user_id), "profile": profile, **arrays}


def _select(data: Interactions, where: np.ndarray) -> Interactions:
    """The interactions where a mask is True, as they are where that is everywhere."""
    return data if where.all() else Interactions(*(column[where] for column in data))


def open_dataset(
    directory: str | pathlib.Path, *, verify: bool = False, content_memory_mb: int = 1024
) -> Dataset:
    """Opens a dataset directory that `python -m data.prepare` wrote.

    Args:
      directory: its path.
      verify: compares the hashes of all files, not just their sizes.
      content_memory_mb: the catalog's content is kept in memory when the item shards are not
        larger, in MiB; else it is left on disk and read when asked for.

    The first opening of a large dataset keeps columns in its folder `cache`, with the content that
    is kept in memory, which the next ones map from disk.

    Raises:
      DatasetError: when it is missing, truncated or altered.
    """
    return Dataset(directory, verify=verify, content_memory_mb=content_memory_mb)
