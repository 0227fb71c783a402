"""The recommender and the encoder of each arm."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mmrec_tf.errors import ServingError
from serving.client import (
    AsyncClient,
    FoundItems,
    ItemEmbeddings,
    Outputs,
    Ranking,
    Recommendations,
    SimilarItems,
    UserEmbeddings,
)
from serving.gateway.models.breaker import Breaker

Answer = TypeVar("Answer")
_PATIENCE = 1.04  # of the client's own deadline


class Unanswered(ServingError):
    """A model that did not answer in time, or at all."""


# A client of one label ("" for none), whose calls may take so many seconds.
MakeClient = Callable[[str, float], AsyncClient]
# What is told of each call: the signature, seconds, and "ok", "failed" or "left out".
Observe = Callable[[str, float, str], None]


class Servers:
    """Asks the models of each arm.

    Every call has a deadline. A breaker for each arm and model leaves a server alone that failed
    five times in a row; then calls fail at once.
    """

    def __init__(
        self,
        make_client: MakeClient,
        arms: Iterable[str],
        *,
        deadline_seconds: float,
        search_seconds: float,
        encode_seconds: float = 30.0,
        observe: Observe = lambda signature, seconds, outcome: None,
    ):
        """Opens the channels of all arms; to be called in the event loop.

        Args:
          make_client: MakeClient.
          arms: labels.
          deadline_seconds: of what a list asks.
          search_seconds: of `search`.
          encode_seconds: of `embed_item`, which may wait in a queue.
          observe: Observe.
        """
        self.arms = tuple(arms)
        seconds = {"list": deadline_seconds, "search": search_seconds, "encode": encode_seconds}
        self._seconds = seconds
        self._clients = {
            (arm, kind): make_client(arm, wait)
            for arm in self.arms
            for kind, wait in seconds.items()
        }
        self._breakers = {key: Breaker() for key in self._clients}
        self._observe = observe
        self._signatures: dict[tuple[str, str], Mapping[str, Any]] = {}

    async def close(self) -> None:
        """Closes all channels."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    def open_breakers(self) -> list[str]:
        """Which servers are left alone now, such as "canary/list"."""
        return [f"{arm}/{kind}" for (arm, kind), one in self._breakers.items() if one.open]

    async def recommend(
        self,
        arm: str,
        user: str,
        history: Sequence[str],
        *,
        exclude: Sequence[str],
        allow: Sequence[str],
        deny: Sequence[str],
    ) -> Recommendations:
        """Asks for the list of a user."""
        return await self._ask(
            arm,
            "list",
            "recommend",
            lambda c: c.recommend(
                [user], [history], exclude=[exclude], allow=[allow], deny=[deny], time=[_now()]
            ),
        )

    async def rank(
        self, arm: str, user: str, history: Sequence[str], items: Sequence[str]
    ) -> Ranking:
        """Asks for the scores of some items."""
        return await self._ask(
            arm, "list", "rank", lambda c: c.rank([user], [items], history=[history], time=[_now()])
        )

    async def embed_user(self, arm: str, user: str, history: Sequence[str]) -> UserEmbeddings:
        """Asks for a user's embedding."""
        return await self._ask(arm, "list", "embed_user", lambda c: c.embed_user([user], [history]))

    async def rank_new(self, arm: str, inputs: Mapping[str, Any]) -> Outputs:
        """Asks for the scores of items by their embeddings."""
        return await self._ask(
            arm,
            "list",
            "rank_new",
            lambda c: c.predict("recommender", inputs, signature="rank_new"),
        )

    async def similar(self, arm: str, item: str) -> SimilarItems:
        """Asks for the neighbors of an item."""
        return await self._ask(arm, "list", "similar_items", lambda c: c.similar_items([item]))

    async def search(self, arm: str, content: Mapping[str, Any]) -> FoundItems:
        """Asks for items near to some content."""
        return await self._ask(arm, "search", "search", lambda c: c.search(**content))

    async def embed_item(self, arm: str, content: Mapping[str, Any]) -> ItemEmbeddings:
        """Asks for the embedding of some content."""
        return await self._ask(arm, "encode", "embed_item", lambda c: c.embed_item(**content))

    async def nearest(self, arm: str, content: Mapping[str, Any]) -> FoundItems:
        """As `search`, with the patience of `embed_item`."""
        return await self._ask(arm, "encode", "search", lambda c: c.search(**content))

    async def signatures(self, arm: str, model: str, *, again: bool = False) -> Mapping[str, Any]:
        """The signatures of a model, asked for once; `again` after a new version."""
        key = (arm, model)
        if again or key not in self._signatures:
            found = await self._ask(arm, "search", "metadata", lambda c: c.metadata(model))
            self._signatures[key] = found.signatures
        return self._signatures[key]

    async def _ask(
        self, arm: str, kind: str, signature: str, call: Callable[[AsyncClient], Awaitable[Answer]]
    ) -> Answer:
        breaker = self._breakers[arm, kind]
        if not breaker.allows():
            self._observe(signature, 0.0, "left out")
            raise Unanswered(f"{signature}: the server is left alone, as it did not answer lately.")
        start = time.monotonic()
        try:
            # The client keeps to the deadline itself; this is for what it waits for before.
            async with asyncio.timeout(_PATIENCE * self._seconds[kind]):
                answer = await call(self._clients[arm, kind])
        except (ServingError, TimeoutError) as error:
            # A server that says no is there.
            if getattr(getattr(error, "code", None), "name", "") == "INVALID_ARGUMENT":
                breaker.succeeded()
            else:
                breaker.failed()
            self._observe(signature, time.monotonic() - start, "failed")
            raise Unanswered(f"{signature}: {error or 'no answer in time'}") from error
        breaker.succeeded()
        self._observe(signature, time.monotonic() - start, "ok")
        return answer


def _now() -> int:
    return int(time.time())
