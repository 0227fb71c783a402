"""The interface of all stores."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from mmrec_tf.errors import ServingError
from serving.gateway.store.records import (
    Embedding,
    Event,
    History,
    Item,
    ShownList,
    Tombstone,
)


class StoreError(ServingError):
    """A store that is out of reach; what was asked for did not happen, or is not known to have."""


class Store(Protocol):
    """Keeps what a gateway must not forget.

    What a method was given to keep is durable when it returns, and is seen by the next call, of
    whichever gateway. Methods raise StoreError when the store is out of reach.
    """

    async def open(self) -> None:
        """Connects; nothing else is called before."""

    async def close(self) -> None:
        """Finishes what was begun, and lets go."""

    async def add_events(self, events: Sequence[Event]) -> list[bool]:
        """Logs events, those of an id that is in the log already left out; histories and counts
        follow.

        Returns:
          For each whether it is new.
        """

    async def history(self, user: str) -> History:
        """What a user did lately, at most `MOST_HISTORY` of each kind."""

    async def add_list(self, shown: ShownList) -> None:
        """Keeps a list, its first `answered` places as shown."""

    async def keep_list(self, shown: ShownList) -> None:
        """As `add_list`, but may return before the list is durable, where this gateway alone asks
        for it: `find_list` and `last_list` know it at once, and no event that is added later is in
        the log without it. The end of the process within that moment may lose the list."""

    async def answer_more(self, list_id: str, answered: int) -> None:
        """Counts more places of a list as shown: the first `answered`."""

    async def find_list(self, list_id: str) -> ShownList | None:
        """A list by its id."""

    async def last_list(self, user: str) -> ShownList | None:
        """The newest list of a user."""

    async def lists(self, after: int, most: int) -> Sequence[ShownList]:
        """Lists with a sequence above `after`, ascending, at most so many."""

    async def expire_lists(self, before: int) -> int:
        """Forgets lists that were made before a time (milliseconds); returns how many."""

    async def popular(self, most: int) -> Sequence[tuple[str, int]]:
        """Items with the most interactions, and how many; of equal ones, by id. The same item
        liked twice from one list counts once."""

    async def shown_counts(self, items: Collection[str]) -> Mapping[str, int]:
        """How often each was shown; items never shown may be left out."""

    async def put_item(
        self, item: Item, media: Mapping[str, Sequence[bytes]] | None = None
    ) -> bool:
        """Keeps an item in place of the one of the same id.

        Args:
          item: Item.
          media: by "image", "audio" and "video" (frames), the files to keep; None leaves those
            that are kept.

        Returns:
          Whether there was none of this id.
        """

    async def item(self, item_id: str) -> Item | None:
        """An item, withdrawn ones too."""

    async def items_of(self, item_ids: Collection[str]) -> Mapping[str, Item]:
        """Several by id; unknown ones are left out."""

    async def items(self, after: str, most: int) -> Sequence[Item]:
        """Items with an id above `after`, ascending, at most so many."""

    async def media(self, item_id: str, kind: str, place: int) -> bytes | None:
        """A file of an item."""

    async def withdraw(self, item_id: str) -> None:
        """From now on the item is withdrawn, also one that the store did not know."""

    async def withdrawn(self) -> Collection[str]:
        """All withdrawn items."""

    async def fresh_items(self) -> Sequence[Item]:
        """Items that were put, pending or live, and not withdrawn, by id."""

    async def revision(self) -> int:
        """A number that grows with every change of items or embeddings."""

    async def put_embeddings(self, embeddings: Sequence[Embedding]) -> None:
        """Keeps embeddings in place of those of the same item and version."""

    async def embeddings(self, version: int) -> Sequence[Embedding]:
        """All embeddings of a version, by item."""

    async def drop_embeddings(self, versions: Collection[int]) -> None:
        """Forgets the embeddings of versions that are not served any more."""

    async def erase(self, user: str, time: int) -> None:
        """Forgets a user: history, lists and events go, a tombstone stays."""

    async def erased(self, user: str) -> bool:
        """Whether there is a tombstone of the user."""

    async def tombstones(self) -> Sequence[Tombstone]:
        """All tombstones, by hash; `salt` tells whom they are of."""

    async def salt(self) -> str:
        """What ids of users are hashed with, made once for each store."""

    async def events(self, after: int, until: int, most: int) -> Sequence[Event]:
        """Events with a sequence above `after` up to `until`, ascending, at most so many."""

    async def user_counts(self, user: str) -> Mapping[str, int]:
        """How many events and lists of a user are kept."""

    async def last_sequence(self) -> int:
        """The sequence of the newest event; 0 for an empty log."""

    async def seeded(self, name: str) -> bool:
        """Whether `seed` took over what has this name."""

    async def seed(
        self,
        name: str,
        *,
        histories: Iterable[tuple[str, Sequence[tuple[str, int]]]],
        counts: Mapping[str, int],
    ) -> bool:
        """Takes over what a dataset knows, once for each name; erased users are left out.

        Args:
          name: of the dataset, such as its hash.
          histories: users with their items and times (milliseconds).
          counts: how often each item was met.

        Returns:
          False where this name was seeded before, so that nothing happened.
        """
