"""Fresh items in memory: who they are, what they look like to each version, who stands for them."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.gateway.store.records import Embedding, Item
from serving.gateway.store.store import Store

MOST_SCORED = 32


class Rows(NamedTuple):
    """Fresh items as `rank_new` takes them, made once for each change and not for each list.

    Attributes:
      place: of each item by id.
      modalities: <float32>[item, modality, dim].
      present: <bool>[item, modality].
      weights: <float32>[item, modality].
      features: side features of each item.
    """

    place: Mapping[str, int]
    modalities: NDArray[np.float32]
    present: NDArray[np.bool_]
    weights: NDArray[np.float32]
    features: list[list[bytes]]


class Embedded(NamedTuple):
    """Fresh items as one version of the encoder sees them.

    Attributes:
      items: ids.
      vectors: <float32>[item, dim].
      embeddings: by id.
      revision: of the store, when they were read.
      behind: whether a live item has no embedding of this version yet.
      rows: what `rank_new` is asked of them; None where some have no embedding of each modality, as
        those of an older export.
    """

    items: list[str]
    vectors: NDArray[np.float32]
    embeddings: Mapping[str, Embedding]
    revision: int = 0
    behind: bool = False
    rows: Rows | None = None


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
        behind = any(item.state == "live" and item.id not in found for item in fresh.values())
        return Embedded(list(found), vectors, found, revision, behind, rows_of(found))

    def forget(self, versions: Collection[int]) -> None:
        """Drops versions that are not served any more."""
        for version in versions:
            self._embedded.pop(version, None)

    def versions(self) -> list[int]:
        """Versions that were asked for."""
        return sorted(self._embedded)


def rows_of(embeddings: Mapping[str, Embedding]) -> Rows | None:
    """Embeddings as `Rows`; None where some have none of each modality."""
    ones = list(embeddings.values())
    if not ones or not all(one.modalities for one in ones):
        return None
    count, dim = len(ones[0].weights), len(ones[0].vector)
    modalities = np.array([one.modalities for one in ones], np.float32)
    return Rows(
        {item: place for place, item in enumerate(embeddings)},
        modalities.reshape(len(ones), count, dim),
        np.array([one.present for one in ones], np.bool_),
        np.array([one.weights for one in ones], np.float32),
        [[entry.encode() for entry in one.features] for one in ones],
    )


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
    # Not by BLAS, whose threads take milliseconds to meet where other processes are busy.
    products = np.einsum("nd,id->ni", embedded.vectors, np.atleast_2d(user))
    cosine = products.max(axis=1)[rows]
    order = np.argsort(-cosine, kind="stable")[:most]
    return [embedded.items[rows[place]] for place in order]
