"""Names, shapes and dtypes of users, items and batches: what a dataset directory promises."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmrec_tf.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import tensorflow as tf

MODALITY_KINDS = ("text", "image", "audio", "video", "vector")
SPLITS = ("train", "valid", "test")
# What may be known of users, by name: the splits whose interactions it holds.
HISTORIES = {"train": ("train",), "train+valid": ("train", "valid"), "all": SPLITS}
# A record holds an interaction's types as the bits of one integer.
MOST_EVENTS = 62
# The score of what must not be shown, or is not there: below all others, and finite, as an answer
# must be one that JSON can carry.
LOWEST_SCORE = -1e9


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of the items.

    `kind` says which form its content has on disk: "text" UTF-8, "image" JPEG or PNG bytes,
    "audio" 16-bit mono WAV bytes at `sample_rate_hz`, "video" the JPEG bytes of a clip's frames one
    after the other, at most `num_frames`, "vector" <float32>[dim]. `max_values` is the
    most values that any item has of it, such as the pictures of a gallery; an item's values are
    encoded each on its own and pooled. Of videos an item has one.

    Raises:
      DatasetError: for an unknown kind, or for less than one value, or for several videos.
    """

    kind: str
    dim: int = 0
    sample_rate_hz: int = 0
    # What is computed from the mean of several values fits items with any number of them.
    max_values: int = field(default=1, compare=False)
    # An encoder takes as many as it wants.
    num_frames: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.max_values < 1:
            raise DatasetError(f"max_values: wanted 1 or more; got {self.max_values}.")
        if self.kind == "video" and self.max_values > 1:
            raise DatasetError(
                f"max_values: wanted one video an item; got {self.max_values}. Join their frames."
            )
        if self.kind not in MODALITY_KINDS:
            raise DatasetError(
                f"modality kind: wanted one of {', '.join(MODALITY_KINDS)}; got {self.kind!r}."
            )


@dataclass(frozen=True)
class FeatureSpec:
    """One side feature of a user or an item.

    `kind` "categorical": one or several of `vocabulary` (learned from the table; anything else
    falls into one of `oov_buckets` by its hash), at most `width` values a row. "numeric": one
    number, standardised with `mean` and `std`; beyond `low` or `high`, where there are such, it
    counts as these.
    """

    kind: str
    vocabulary: tuple[str, ...] = ()
    width: int = 1
    mean: float = 0.0
    std: float = 1.0
    oov_buckets: int = 1
    low: float | None = None
    high: float | None = None

    @property
    def num_categories(self) -> int:
        """Numbers that a category may have: 0 for none, the buckets, then the vocabulary."""
        return 1 + self.oov_buckets + len(self.vocabulary)


@dataclass(frozen=True)
class Schema:
    """What a dataset directory holds.

    Attributes:
      num_users: users are numbered 0 to num_users - 1.
      num_items: items are numbered 0 to num_items - 1.
      modalities: by name, in the order of the columns of `present`.
      item_features: side features of items by name.
      user_features: side features of users by name.
      profile: whether users have profile text.
      ordered: whether the split follows time, so that a user's history lies before the target.
      ratings: whether interactions carry ratings.
      num_entities: nodes of the knowledge graph that are no items; see `records.Triples`.
      num_relations: kinds of its triples; 0 where there is no knowledge graph.
      events: names of the types that interactions may be of, such as "view" and "purchase"; at
        most 62, none where types are unknown.
      num_positions: positions in the list that an item was shown in are numbered 0 to
        num_positions - 1; 0 where they are unknown.

    Raises:
      ConfigError: for more types of events than a record can hold.
    """

    num_users: int
    num_items: int
    modalities: Mapping[str, ModalitySpec] = field(default_factory=dict)
    item_features: Mapping[str, FeatureSpec] = field(default_factory=dict)
    user_features: Mapping[str, FeatureSpec] = field(default_factory=dict)
    profile: bool = False
    ordered: bool = False
    ratings: bool = False
    num_entities: int = 0
    num_relations: int = 0
    events: tuple[str, ...] = ()
    num_positions: int = 0

    def __post_init__(self) -> None:
        if len(self.events) > MOST_EVENTS:
            raise ConfigError(
                f"events: wanted at most {MOST_EVENTS} types; got {len(self.events)}. Leave rare "
                "ones out."
            )

    def to_json(self) -> dict[str, Any]:
        """The schema as plain dictionaries, lists and scalars."""
        parts = dataclasses.asdict(self)
        # A dataset without either has the bytes that it had before there were such.
        for name in ("events", "num_positions"):
            if not parts[name]:
                del parts[name]
        for spec in parts["modalities"].values():
            if not spec["num_frames"]:
                del spec["num_frames"]
        for spec in (*parts["item_features"].values(), *parts["user_features"].values()):
            for name in ("low", "high"):
                if spec[name] is None:
                    del spec[name]
        return parts

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Schema":
        """Reads what `to_json` wrote.

        Raises:
          DatasetError: for a missing or unknown name.
        """
        try:
            parts = dict(value)
            parts["modalities"] = {n: ModalitySpec(**v) for n, v in parts["modalities"].items()}
            for side in ("item_features", "user_features"):
                parts[side] = {
                    n: FeatureSpec(**{**v, "vocabulary": tuple(v["vocabulary"])})
                    for n, v in parts[side].items()
                }
            parts["events"] = tuple(parts.get("events", ()))
            return cls(**parts)
        except (KeyError, TypeError) as error:
            raise DatasetError(
                f"schema: wanted the fields of mmrec_tf.schema.Schema; {error}. "
                'Write the dataset again with "python -m data.prepare".'
            ) from error

    def select(self, modalities: tuple[str, ...] | None) -> tuple[str, ...]:
        """The modalities that a config asks for, checked against those of the dataset.

        Raises:
          ConfigError: when the dataset lacks one of them.
        """
        if modalities is None:
            return tuple(self.modalities)
        for name in modalities:
            if name not in self.modalities:
                raise ConfigError(
                    f"modalities: the dataset has no {name!r}; it has "
                    f"{', '.join(self.modalities) or 'none'}. Change the config's modalities."
                )
        return modalities

    def batch_spec(
        self, batch_size: int | None, history_length: int, num_disliked: int = 0
    ) -> "dict[str, tf.TensorSpec]":
        """The element spec of `Dataset.batches`.

        Returns:
          dict of tf.TensorSpec: `user` <int32>[batch] (-1 unknown), `history`
          <int32>[batch, step] (oldest first, padded on the right with -1), `gap`
          <float32>[batch, step] (seconds from that item of the history to the newest one in it, so
          0 for the newest; -1 for padding, and where times are unknown), `item` <int32>[batch],
          `time` <int64>[batch] (seconds since 1970 UTC, 0 where unknown), `rating`
          <float32>[batch] (1 where there are none), `weight` <float32>[batch], `events`
          <float32>[batch, event] (1 for each type that the interaction was of, in the order of the
          schema's `events`), `position` <int32>[batch] (in the list that the item was shown in; -1
          unknown), `disliked` <int32>[batch, num_disliked] (train items that the user rated
          low, padded on the right with -1).
        """
        import tensorflow as tf

        return {
            "user": tf.TensorSpec([batch_size], tf.int32),
            "history": tf.TensorSpec([batch_size, history_length], tf.int32),
            "gap": tf.TensorSpec([batch_size, history_length], tf.float32),
            "item": tf.TensorSpec([batch_size], tf.int32),
            "time": tf.TensorSpec([batch_size], tf.int64),
            "rating": tf.TensorSpec([batch_size], tf.float32),
            "weight": tf.TensorSpec([batch_size], tf.float32),
            "events": tf.TensorSpec([batch_size, len(self.events)], tf.float32),
            "position": tf.TensorSpec([batch_size], tf.int32),
            "disliked": tf.TensorSpec([batch_size, num_disliked], tf.int32),
        }
