"""The asyncio client."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from numpy.typing import NDArray

from serving.client.answers import (
    FoundItems,
    ItemEmbeddings,
    ItemLabels,
    NewRanking,
    Outputs,
    Ranking,
    Recommendations,
    SimilarItems,
    UserEmbeddings,
)
from serving.client.base import BaseClient
from serving.client.exchange import Answer, Call, Steps, Wait
from serving.client.inputs import Lists, Values

if TYPE_CHECKING:
    from serving.client.calls import Metadata, VersionStatus


class AsyncClient(BaseClient):
    """The methods of `Client`, with the same arguments, as coroutines.

    Create it inside a coroutine, because its channel belongs to the event loop.

    Example:

        async with AsyncClient("localhost:8500") as client:
            users, items = await asyncio.gather(
                client.recommend(["u42"], k=10), client.similar_items(["i7"])
            )
    """

    _asynchronous = True

    async def close(self) -> None:
        """Closes the channel; calls after this fail."""
        await self._channel.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def recommend(
        self,
        user_id: Sequence[str],
        history: Lists | None = None,
        *,
        exclude: Lists | None = None,
        allow: Lists | None = None,
        deny: Lists | None = None,
        time: Sequence[int] | None = None,
        profile: Sequence[str] | None = None,
        features: Lists | None = None,
        k: int | None = None,
    ) -> Recommendations:
        """As `Client.recommend`."""
        return await self._ask(
            self._questions.recommend(
                user_id,
                history=history,
                exclude=exclude,
                allow=allow,
                deny=deny,
                time=time,
                profile=profile,
                features=features,
                k=k,
            )
        )

    async def similar_items(self, item_id: Sequence[str], *, k: int | None = None) -> SimilarItems:
        """As `Client.similar_items`."""
        return await self._ask(self._questions.similar_items(item_id, k=k))

    async def rank(
        self,
        user_id: Sequence[str],
        item_id: Lists,
        *,
        history: Lists | None = None,
        time: Sequence[int] | None = None,
        profile: Sequence[str] | None = None,
        features: Lists | None = None,
    ) -> Ranking:
        """As `Client.rank`."""
        return await self._ask(
            self._questions.rank(
                user_id, item_id, history=history, time=time, profile=profile, features=features
            )
        )

    async def rank_new(
        self,
        user_id: Sequence[str],
        items: ItemEmbeddings,
        *,
        history: Lists | None = None,
        time: Sequence[int] | None = None,
        item_features: Lists | None = None,
    ) -> NewRanking:
        """As `Client.rank_new`."""
        return await self._ask(
            self._questions.rank_new(
                user_id, items, history=history, time=time, item_features=item_features
            )
        )

    async def embed_user(
        self,
        user_id: Sequence[str],
        history: Lists | None = None,
        *,
        profile: Sequence[str] | None = None,
        features: Lists | None = None,
    ) -> UserEmbeddings:
        """As `Client.embed_user`."""
        return await self._ask(
            self._questions.embed_user(user_id, history, profile=profile, features=features)
        )

    async def embed_item(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        features: Lists | None = None,
        **vectors: NDArray[Any],
    ) -> ItemEmbeddings:
        """As `Client.embed_item`."""
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        content["features"] = features
        return await self._ask(self._questions.embed_item(content))

    async def search(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        k: int | None = None,
        **vectors: NDArray[Any],
    ) -> FoundItems:
        """As `Client.search`."""
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        return await self._ask(self._questions.search(content, k=k))

    async def tag(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        k: int | None = None,
        **vectors: NDArray[Any],
    ) -> ItemLabels:
        """As `Client.tag`."""
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        return await self._ask(self._questions.tag(content, k=k))

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
    ) -> Outputs:
        """As `Client.predict`."""
        return await self._ask(
            self._questions.predict(
                model, inputs, signature=signature, version=version, label=label, outputs=outputs
            )
        )

    async def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None
    ) -> "Metadata":
        """As `Client.metadata`."""
        return await self._ask(self._questions.metadata(model, version=version, label=label))

    async def status(self, model: str) -> "list[VersionStatus]":
        """As `Client.status`."""
        return await self._ask(self._questions.status(model))

    async def _ask(self, steps: Steps[Answer]) -> Answer:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._take(step)
                except grpc.RpcError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    async def _take(self, step: Call | Wait) -> Any:
        if isinstance(step, Wait):
            return await asyncio.sleep(step.seconds)
        return await self._methods[step.method](step.request, timeout=step.timeout_seconds)
