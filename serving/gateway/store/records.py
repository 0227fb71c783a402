"""What a store keeps, as messages that msgspec reads and writes."""

import hashlib

import msgspec

# What moves an item into its user's history, and what says that the item is not wanted. Other
# types are logged and change nothing.
LIKING = ("view", "click", "play", "like", "buy")
DISLIKING = ("dislike", "hide")
EVENT_TYPES = (*LIKING, *DISLIKING, "impression")
# How much of a history is kept of each user; a request to a model holds at most 1,024 entries.
MOST_HISTORY = 200


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a user did.

    Attributes:
      id: chosen by whoever sends it; a second event of the same id is a retry.
      user, item: ids.
      type: one of `EVENT_TYPES`.
      time: milliseconds since 1970 UTC.
      list: the id of the list in which the item was shown; "" for none.
      position: in that list, from 0; -1 where unknown.
      sequence: the place in the log, from 1; 0 before the event is in it.
    """

    id: str
    user: str
    item: str
    type: str
    time: int
    list: str = ""
    position: int = -1
    sequence: int = 0


class History(msgspec.Struct, frozen=True):
    """What a user did lately: items liked, oldest first (of the same time, by id), and items that
    are not wanted."""

    liked: list[str] = []
    disliked: list[str] = []


# A list has dozens of these, of texts and numbers only, which no cycle can pass through: the
# garbage collector need not look at them, nor be called for because of them.
class Shown(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One place of a list.

    Attributes:
      item: id.
      score, probability: as the model says; None where no model was asked.
      slot: why it stands here: "model", "fresh", "explore", "last" or "popular".
      modality, because: what the model says weighed most; "" for none.
      propensity: the probability with which this item was drawn here; None where nothing was.
    """

    item: str
    score: float | None = None
    probability: float | None = None
    slot: str = "model"
    modality: str = ""
    because: str = ""
    propensity: float | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One item of the pool that an exploration slot was drawn from."""

    item: str
    score: float
    propensity: float
    fresh: bool = False


class ShownList(msgspec.Struct, frozen=True, kw_only=True):
    """A list as it was made; people are shown it in pages.

    Attributes:
      id: unguessable.
      user: id; "" for nobody.
      time: milliseconds since 1970 UTC.
      items: all places, the best first.
      version: of the recommender; 0 where it did not answer.
      arm: of the experiment.
      degraded: reasons why the list is not what it could be.
      pool: what the exploration slot was drawn from; empty where there was no such slot.
      answered: how many of `items` were answered so far.
      sequence: the place among all lists, from 1; 0 before it is stored.
    """

    id: str
    user: str
    time: int
    items: list[Shown]
    version: int = 0
    arm: str = ""
    degraded: list[str] = []
    pool: list[Candidate] = []
    answered: int = 0
    sequence: int = 0


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item as people see it.

    Attributes:
      id: unique.
      title, text: words; "" for none.
      categories: such as "genre=comedy".
      price: None where it has none.
      images, sounds: how many of each are kept.
      frames: how many of its video are kept.
      state: "catalog": came with the dataset; "pending": put, not yet embedded; "live": put and
        embedded; "published": put, and by now a version of the model knows it.
      withdrawn: never to be shown.
      digest: of what was put, so that the same content put again changes nothing.
      weights: how much each modality counts, in the model's order; empty where not known.
      unreadable: what was sent and could not be read.
      updated: milliseconds since 1970 UTC.
    """

    id: str
    title: str = ""
    text: str = ""
    categories: list[str] = []
    price: float | None = None
    images: int = 0
    sounds: int = 0
    frames: int = 0
    state: str = "catalog"
    withdrawn: bool = False
    digest: str = ""
    weights: list[float] = []
    unreadable: list[str] = []
    updated: int = 0


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """What one version of the encoder makes of an item.

    Attributes:
      item: id.
      version: of the encoder.
      vector: <float32>[dim].
      nearest: the item of the catalog that stands for it in histories; "" for none.
      modalities: <float32>[modality, dim], flat; empty from an export that does not say.
      present: which modalities it has.
      weights: how much each counts.
      features: its side features, such as "genre=comedy".
    """

    item: str
    version: int
    vector: list[float]
    nearest: str = ""
    modalities: list[float] = []
    present: list[bool] = []
    weights: list[float] = []
    features: list[str] = []


class Tombstone(msgspec.Struct, frozen=True):
    """That a user was erased: a hash of the id, and when, in milliseconds since 1970 UTC."""

    user: str
    time: int


def user_hash(user: str, salt: str) -> str:
    """The hash by which a store knows an erased user, salted so that ids cannot be looked up."""
    return hashlib.blake2b(user.encode("utf-8"), key=salt.encode(), digest_size=16).hexdigest()
