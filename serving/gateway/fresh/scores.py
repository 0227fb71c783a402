"""What the model says of fresh items, on the scale of its own list."""

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.schema import LOWEST_SCORE
from serving.client import Outputs
from serving.gateway.fresh.pool import MOST_SCORED, Embedded, nearest
from serving.gateway.models.servers import Servers
from serving.gateway.store.records import Shown

# Scores are asked for again after so long, as models may know the hour of the day.
_KEPT_SECONDS = 60.0
_MOST_KEPT = 10_000


class FreshScores:
    """Scores fresh items for a user.

    What was asked for once is kept until something that it depends on changes: the version, the
    history, or which fresh items come into question. Whoever asks for what is being asked for
    already waits for that answer.

    A recommender with the signature `rank_new` ranks them by their own embeddings. Of an older
    export, each is given what its nearest item of the catalog gets from `rank`: that is on the
    right scale, but says of two fresh items with one neighbor the same.
    """

    def __init__(self, servers: Servers):
        """Describes it."""
        self._servers = servers
        self._ranks_new: dict[tuple[str, int], bool] = {}
        self._kept: dict[Hashable, tuple[float, list[Shown]]] = {}
        self._asked: dict[Hashable, asyncio.Task[list[Shown]]] = {}

    async def of(
        self,
        arm: str,
        user: str,
        history: Sequence[str],
        embedded: Embedded,
        *,
        version: int,
        chosen: list[str],
    ) -> list[Shown]:
        """The best fresh items of a user, at most `MOST_SCORED`.

        Args:
          arm: whose models are asked.
          user: id.
          history: items of the catalog, oldest first.
          embedded: the fresh items as `version` sees them.
          version: of the models.
          chosen: ids of it that come into question, in its order.

        Raises:
          Unanswered: when a model did not answer.
        """
        if not chosen:
            return []
        key = (arm, version, user, tuple(history), tuple(chosen), embedded.revision)
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept[0] < _KEPT_SECONDS:
            return kept[1]
        asked = self._asked.get(key)
        if asked is None:
            asking = self._ask(arm, user, history, embedded, chosen, version=version)
            asked = self._asked[key] = asyncio.get_running_loop().create_task(asking)
            asked.add_done_callback(lambda task: self._told(key, task))
        # One of several that wait may go away.
        return await asyncio.shield(asked)

    def _told(self, key: Hashable, task: "asyncio.Task[list[Shown]]") -> None:
        del self._asked[key]
        # Looked at here, as whoever asked may be gone.
        if not task.cancelled() and task.exception() is None:
            self._kept.pop(key, None)
            self._kept[key] = (time.monotonic(), task.result())
            if len(self._kept) > _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))

    async def _ask(
        self,
        arm: str,
        user: str,
        history: Sequence[str],
        embedded: Embedded,
        chosen: list[str],
        *,
        version: int,
    ) -> list[Shown]:
        if len(chosen) > MOST_SCORED:
            answer = await self._servers.embed_user(arm, user, history)
            if not answer.known[0]:
                # Nothing is known, so nothing is near: the newest will do.
                chosen = chosen[-MOST_SCORED:]
            else:
                chosen = nearest(embedded, answer.embedding[0], among={*chosen})
        if embedded.rows is not None and await self._has_rank_new(arm, version):
            return await self._rank_new(arm, user, history, embedded, chosen)
        return await self._rank_neighbors(arm, user, history, embedded, chosen)

    async def _has_rank_new(self, arm: str, version: int) -> bool:
        if (arm, version) not in self._ranks_new:
            signatures = await self._servers.signatures(arm, "recommender", again=True)
            self._ranks_new[arm, version] = "rank_new" in signatures
        return self._ranks_new[arm, version]

    async def _rank_neighbors(
        self, arm: str, user: str, history: Sequence[str], embedded: Embedded, chosen: Sequence[str]
    ) -> list[Shown]:
        neighbors = {item: embedded.embeddings[item].nearest for item in chosen}
        asked = sorted({one for one in neighbors.values() if one})
        if not asked:
            return []
        answer = await self._servers.rank(arm, user, history, asked)
        told = {
            one: (float(score), float(probability))
            for one, score, probability in zip(
                asked, answer.score[0], answer.probability[0], strict=True
            )
            if score > LOWEST_SCORE
        }
        return [
            Shown(item=item, score=told[one][0], probability=told[one][1], slot="fresh")
            for item, one in neighbors.items()
            if one in told
        ]

    async def _rank_new(
        self, arm: str, user: str, history: Sequence[str], embedded: Embedded, chosen: Sequence[str]
    ) -> list[Shown]:
        inputs = rank_new_inputs(user, history, embedded, chosen)
        return shown_of_new(await self._servers.rank_new(arm, inputs), chosen)


def rank_new_inputs(
    user: str, history: Sequence[str], embedded: Embedded, chosen: Sequence[str]
) -> dict[str, Any]:
    """What `rank_new` is asked: always `MOST_SCORED` rows, so that requests have one shape; those
    that stand for nothing have no modality.

    Args:
      user: id.
      history: items, oldest first.
      embedded: with rows.
      chosen: at least one of its items.
    """
    rows = embedded.rows
    assert rows is not None
    places = [rows.place[item] for item in chosen]

    def filled(table: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros([1, MOST_SCORED, *table.shape[1:]], table.dtype)
        whole[0, : len(places)] = table[places]
        return whole

    listed = [rows.features[place] for place in places]
    width = 1 + max(map(len, listed))
    # Each list begins with "", as a server that batches fills short ones up with the first element.
    features = np.full([1, MOST_SCORED, width], b"", object)
    for place, entries in enumerate(listed):
        features[0, place, 1 : 1 + len(entries)] = entries
    return {
        "user_id": np.array([user.encode()], object),
        "history": np.array([[b"", *(item.encode() for item in history)]], object),
        "time": np.array([int(time.time())], np.int64),
        "embedding": filled(embedded.vectors),
        "modalities": filled(rows.modalities),
        "present": filled(rows.present),
        "weights": filled(rows.weights),
        "features": features,
    }


def shown_of_new(outputs: Outputs | Mapping[str, Any], chosen: Sequence[str]) -> list[Shown]:
    """What `rank_new` said of the first rows."""

    def words(name: str, place: int) -> str:
        value = outputs[name][0][place]
        return value.decode() if isinstance(value, bytes) else str(value)

    return [
        Shown(
            item=item,
            score=float(outputs["score"][0][place]),
            probability=float(outputs["probability"][0][place]),
            modality=words("modality", place),
            because=words("history_item", place),
            slot="fresh",
        )
        for place, item in enumerate(chosen)
    ]
