"""The blocking client."""

import time as clock
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


class Client(BaseClient):
    """A client of one server, over one channel; threads may share it.

    Calls are retried with exponential backoff when the server is busy (RESOURCE_EXHAUSTED) or
    unavailable (UNAVAILABLE), but never for longer than `timeout_seconds` in all.

    Example:

        with Client("localhost:8500") as client:
            print(client.recommend(["u42"], [["i7", "i9"]], k=10).item_id)

    All methods raise ServingError when no server, model or signature answers (its child
    `serving.client.calls.CallError` carries the gRPC `code`), and ConfigError for arguments that
    cannot be used.
    """

    def close(self) -> None:
        """Closes the channel; calls after this fail."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def recommend(
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
        """Recommends items to users.

        Args:
          user_id: [batch]; an id that the model does not know is a new user.
          history: [batch, step], the items of each user, oldest first; rows may differ in length.
            None or an empty row uses the user's train interactions.
          exclude: [batch, any], further items that must not be shown.
          allow: [batch, any], categories such as "genre=comedy" of which an item has to have one;
            None or an empty row for any. A category that no item has leaves no items.
          deny: [batch, any], categories of which an item must have none.
          time: [batch], when each is asked for, in seconds since 1970 UTC; 0 or None where that is
            not known.
          profile: [batch], a text about each user, for a model that reads such; it replaces what
            the model was trained with. None or "" for none.
          features: [batch, any], side features such as "age=31" or "genre=comedy", likewise. What
            the model does not read is refused.
          k: how many items; None for as many as the export was made for.

        Returns:
          [batch, k] items, scores and reasons.
        """
        return self._ask(
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

    def similar_items(self, item_id: Sequence[str], *, k: int | None = None) -> SimilarItems:
        """Finds the items most similar to others.

        Args:
          item_id: [batch]; nothing is similar to an id that the model does not know.
          k: how many items; None for as many as the export was made for.

        Returns:
          [batch, k] items and scores, without the item itself.
        """
        return self._ask(self._questions.similar_items(item_id, k=k))

    def rank(
        self,
        user_id: Sequence[str],
        item_id: Lists,
        *,
        history: Lists | None = None,
        time: Sequence[int] | None = None,
        profile: Sequence[str] | None = None,
        features: Lists | None = None,
    ) -> Ranking:
        """Scores given items for users.

        Args:
          user_id: [batch].
          item_id: [batch, candidate]; rows may differ in length.
          history: as in `recommend`.
          time, profile, features: as in `recommend`.

        Returns:
          [batch, candidate] items as given, their scores and probabilities.
        """
        return self._ask(
            self._questions.rank(
                user_id, item_id, history=history, time=time, profile=profile, features=features
            )
        )

    def rank_new(
        self,
        user_id: Sequence[str],
        items: ItemEmbeddings,
        *,
        history: Lists | None = None,
        time: Sequence[int] | None = None,
        item_features: Lists | None = None,
    ) -> NewRanking:
        """Scores items that are in no catalog yet, as `rank` will once they are published.

        Args:
          user_id: [batch].
          items: of `embed_item`, [new] items of the same version of the model; the same for each
            user.
          history: as in `recommend`.
          time: as in `recommend`.
          item_features: [new, any], side features such as "genre=comedy"; what the model does not
            read is refused.

        Returns:
          [batch, new] scores, probabilities and reasons.
        """
        return self._ask(
            self._questions.rank_new(
                user_id, items, history=history, time=time, item_features=item_features
            )
        )

    def embed_user(
        self,
        user_id: Sequence[str],
        history: Lists | None = None,
        *,
        profile: Sequence[str] | None = None,
        features: Lists | None = None,
    ) -> UserEmbeddings:
        """Embeds users where items lie.

        Args:
          user_id: [batch]; as in `recommend`.
          history, profile, features: as in `recommend`.

        Returns:
          [batch, dim] embeddings, and which users anything is known about.
        """
        return self._ask(
            self._questions.embed_user(user_id, history, profile=profile, features=features)
        )

    def embed_item(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        features: Lists | None = None,
        **vectors: NDArray[Any],
    ) -> ItemEmbeddings:
        """Embeds items by their content.

        Args:
          text: [batch] words; "" where an item has none. Here as in the others an item may have a
            list of several, of which the distinct ones count alike.
          image: [batch] paths of pictures, which are prepared as `python -m data.prepare` does, or
            bytes of JPEG or PNG files, which are sent as they are; b"" where an item has none.
          audio: [batch] paths of sounds, likewise, or bytes of 16-bit PCM WAV files.
          video: [batch] paths of videos, likewise, or lists of their frames as bytes of JPEG or PNG
            files in order, see `frames`.
          features: [batch, any], side features such as "genre=comedy" or "price=9.5", for a model
            that reads such. What the model does not read is refused.
          **vectors: <float32>[batch, dim], or a list of such rows for each item, for each modality
            of ready-made vectors, by its name ("image" and "audio" too, where the model was trained
            on such); zeros for none.

        Returns:
          [batch, dim] embeddings; [batch, modality] weights, and which content was readable.
        """
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        content["features"] = features
        return self._ask(self._questions.embed_item(content))

    def search(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        k: int | None = None,
        **vectors: NDArray[Any],
    ) -> FoundItems:
        """Finds the catalog's items that are most similar to words, a picture or a sound.

        Args:
          text: [batch]; as in `embed_item`.
          image: [batch].
          audio: [batch].
          video: [batch].
          k: how many items; None for as many as the export was made for.
          **vectors: as in `embed_item`.

        Returns:
          [batch, k] items and scores; no items for a row with nothing to search by.
        """
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        return self._ask(self._questions.search(content, k=k))

    def tag(
        self,
        *,
        text: Values | None = None,
        image: Values | None = None,
        audio: Values | None = None,
        video: Values | None = None,
        k: int | None = None,
        **vectors: NDArray[Any],
    ) -> ItemLabels:
        """Labels of items by their content, of a model that was trained with such.

        Args:
          text: [batch]; as in `embed_item`.
          image: [batch].
          audio: [batch].
          video: [batch].
          k: how many labels of each; None for all.
          **vectors: as in `embed_item`.

        Returns:
          [batch, k] labels and probabilities, the most probable first.
        """
        content = {"text": text, "image": image, "audio": audio, "video": video, **vectors}
        return self._ask(self._questions.tag(content, k=k))

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
    ) -> Outputs:
        """Calls any signature of any model.

        Args:
          model: the model's name.
          inputs: by public name; arrays keep their dtype, Python floats become float32 and
            integers int64.
          signature: the signature's name.
          version: None, and no label, for what the client was made with.
          label: the same by a label of the server's `models.config`.
          outputs: the names wanted; none for all.

        Returns:
          The outputs by public name; strings as object arrays of bytes. The dictionary's `version`
          is the one that answered.
        """
        return self._ask(
            self._questions.predict(
                model, inputs, signature=signature, version=version, label=label, outputs=outputs
            )
        )

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None
    ) -> "Metadata":
        """Returns the signatures of a served model; version and label as in `predict`."""
        return self._ask(self._questions.metadata(model, version=version, label=label))

    def status(self, model: str) -> "list[VersionStatus]":
        """Returns the state of every version of a model, the newest first."""
        return self._ask(self._questions.status(model))

    def _ask(self, steps: Steps[Answer]) -> Answer:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._take(step)
                except grpc.RpcError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    def _take(self, step: Call | Wait) -> Any:
        if isinstance(step, Wait):
            return clock.sleep(step.seconds)
        return self._methods[step.method](step.request, timeout=step.timeout_seconds)
