"""Fresh items in memory: who they are, what they look like to each version, who stands for them."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.gateway.store.records import Embedding, Item
from serving.gateway.store.store import Store

MOST_SCORED = 32


class Embedded(NamedTuple):
    """Fresh items as one version of the encoder sees them.

    Attributes:
      items: ids.
      vectors: <float32>[item, dim].
      embeddings: by id.
      revision: of the store, when they were read.
    """

    items: list[str]
    vectors: NDArray[np.float32]
    embeddings: Mapping[str, Embedding]
    revision: int = 0


class FreshPool:
    """What the store says of fresh and withdrawn items, read again when its revision grows.

    Attributes:
      withdrawn: ids of items that must not be shown.
      fresh: items that were put and are neither withdrawn nor published, by id.
    """

    def __init__(self, store: Store):
        """Describes it, empty until `refresh`."""
        self._store = store
        self._revision = -1
        self._embedded: dict[int, Embedded] = {}
        self.withdrawn: Collection[str] = frozenset()
        self.fresh: Mapping[str, Item] = {}

    async def refresh(self) -> None:
        """Reads what changed; nothing is read where nothing did."""
        revision = await self._store.revision()
        if revision == self._revision:
            return
        # The revision is read first: what changes meanwhile is read by the next call.
        withdrawn = await self._store.withdrawn()
        fresh = {item.id: item for item in await self._store.fresh_items()}
        embedded = {
            version: await self._read(version, fresh, revision) for version in self._embedded
        }
        self.withdrawn, self.fresh, self._embedded = withdrawn, fresh, embedded
        self._revision = revision

    async def embedded(self, version: int) -> Embedded:
        """Fresh items that have an embedding of a version."""
        if version not in self._embedded:
            self._embedded[version] = await self._read(version, self.fresh, self._revision)
        return self._embedded[version]

    async def _read(self, version: int, fresh: Mapping[str, Item], revision: int) -> Embedded:
        found = {
            one.item: one for one in await self._store.embeddings(version) if one.item in fresh
        }
        vectors = np.array([one.vector for one in found.values()], np.float32)
        return Embedded(list(found), vectors, found, revision)

    def forget(self, versions: Collection[int]) -> None:
        """Drops versions that are not served any more."""
        for version in versions:
            self._embedded.pop(version, None)

    def versions(self) -> list[int]:
        """Versions that were asked for."""
        return sorted(self._embedded)


def stand_ins(items: Sequence[str], embedded: Embedded) -> list[str]:
    """A history as a model can read it: in place of each fresh item its nearest of the catalog."""
    return [
        embedded.embeddings[item].nearest or item if item in embedded.embeddings else item
        for item in items
    ]


def nearest(
    embedded: Embedded,
    user: NDArray[np.float32],
    *,
    among: Collection[str],
    most: int = MOST_SCORED,
) -> list[str]:
    """The fresh items nearest to a user, the nearest first.

    Args:
      embedded: Embedded.
      user: <float32>[dim], the user's embedding, or <float32>[interest, dim], of which the nearest
        one counts.
      among: ids that come into question.
      most: how many.
    """
    rows = [row for row, item in enumerate(embedded.items) if item in among]
    if not rows:
        return []
    cosine = (embedded.vectors[rows] @ np.atleast_2d(user).T).max(axis=1)
    order = np.argsort(-cosine, kind="stable")[:most]
    return [embedded.items[rows[place]] for place in order]
