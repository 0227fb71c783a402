"""A typed client for the models of an export, and a command (`__main__`).

    python -m serving.client recommend --address localhost:8500 --user u42 --k 10
    python -m serving.client recommend --user u42 --exclude i3 --allow genre=comedy,genre=drama
    python -m serving.client rank --user u42 --items i1,i2,i3
    python -m serving.client similar --item i7
    python -m serving.client embed-item --text "a small grey bird" --image bird.jpg
    python -m serving.client search --audio call.wav --k 5
    python -m serving.client status

It speaks to stock TensorFlow Serving and to `serving.local_server` alike.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec_tf.errors import ConfigError, ServingError
from serving.client.answers import (
    ItemEmbeddings,
    Ranking,
    Recommendations,
    SimilarItems,
    best,
    output,
    to_str,
)
from serving.client.inputs import (
    Lists,
    Strings,
    blank,
    column,
    padded,
    rows_of,
    strings,
    user_inputs,
)

if TYPE_CHECKING:
    from serving.client.calls import Metadata, TensorSpec, VersionStatus

CONTENT = ("text", "image", "audio")


class Client:
    """Asks one server, over one channel; safe to share among threads.

    Calls are tried again, after growing waits, when the server is busy (RESOURCE_EXHAUSTED) or
    away (UNAVAILABLE), and never for longer than `timeout_seconds` in all.

    Example:

        with Client("localhost:8500") as client:
            print(client.recommend(["u42"], [["i7", "i9"]], k=10).item_id)

    All methods raise ServingError when no server, model or signature answers (its child
    `serving.client.calls.CallError` carries the gRPC `code`), and ConfigError for arguments that
    cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 5.0,
        retries: int = 5,
        recommender: str = "recommender",
        encoder: str = "encoder",
    ):
        """Opens a channel; nothing is sent before the first call.

        Args:
          address: `host:port` of the server's gRPC.
          timeout_seconds: for one call with all its retries.
          retries: how often a call is tried again at most.
          recommender: the name under which the recommender is served.
          encoder: the name under which the encoder is served.
        """
        if timeout_seconds <= 0:
            raise ConfigError(f"timeout_seconds: wanted more than 0; got {timeout_seconds}.")
        if retries < 0:
            raise ConfigError(f"retries: wanted 0 or more; got {retries}.")
        # TensorFlow's protocol buffers come in here, so that --help does not wait for them.
        from serving.client.calls import Channel

        self._channel = Channel(address, timeout_seconds=timeout_seconds, retries=retries)
        self._recommender = recommender
        self._encoder = encoder
        self._inputs: dict[str, Mapping[str, TensorSpec]] = {}

    def close(self) -> None:
        """Closes the channel."""
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
        k: int | None = None,
    ) -> Recommendations:
        """Recommends items to users.

        Args:
          user_id: [batch]; an id that the model does not know is a new user.
          history: [batch, step], the items of each user, oldest first; rows may differ in length.
            None or an empty row takes what the user met in training.
          exclude: [batch, any], further items that must not be shown.
          allow: [batch, any], categories such as "genre=comedy" of which an item has to have one;
            None or an empty row for any. What no item has leaves none to show.
          deny: [batch, any], categories of which an item must have none.
          time: [batch], when each is asked for, in seconds since 1970 UTC; 0 or None where that is
            not known.
          k: how many items; None for as many as the export was made for.

        Returns:
          [batch, k] items, scores and reasons.
        """
        inputs = user_inputs(
            user_id, time, history=history, exclude=exclude, allow=allow, deny=deny
        )
        outputs = self._channel.predict(self._recommender, inputs, signature="recommend")
        parts = best(outputs, Recommendations._fields, k, "recommend")
        return Recommendations(**parts)

    def similar_items(self, item_id: Sequence[str], *, k: int | None = None) -> SimilarItems:
        """Finds the items that lie nearest to others.

        Args:
          item_id: [batch]; to an id that the model does not know nothing is similar.
          k: how many items; None for as many as the export was made for.

        Returns:
          [batch, k] items and scores; none is similar to itself.
        """
        inputs = {"item_id": strings("item_id", item_id)}
        outputs = self._channel.predict(self._recommender, inputs, signature="similar_items")
        return SimilarItems(**best(outputs, SimilarItems._fields, k, "similar_items"))

    def rank(
        self,
        user_id: Sequence[str],
        item_id: Lists,
        *,
        history: Lists | None = None,
        time: Sequence[int] | None = None,
    ) -> Ranking:
        """Scores given items for users.

        Args:
          user_id: [batch].
          item_id: [batch, candidate]; rows may differ in length.
          history: as in `recommend`.
          time: as in `recommend`.

        Returns:
          [batch, candidate] items as given, their scores and probabilities.
        """
        inputs = user_inputs(user_id, time, history=history)
        rows = rows_of("item_id", item_id, len(user_id))
        width = max(map(len, rows), default=0)
        inputs["item_id"] = padded(rows, width)
        outputs = self._channel.predict(self._recommender, inputs, signature="rank")
        parts = {}
        for name in ("score", "probability"):
            # A server that batches may have widened this request to its widest neighbor.
            parts[name] = np.array(output(outputs, name, "rank"))[:, :width]
            for place, row in enumerate(rows):
                parts[name][place, len(row) :] = np.nan
        return Ranking(to_str(inputs["item_id"]), **parts)

    def embed_item(
        self,
        *,
        text: Strings | None = None,
        image: Strings | None = None,
        audio: Strings | None = None,
        **vectors: np.ndarray,
    ) -> ItemEmbeddings:
        """Embeds items by their content.

        Args:
          text: [batch] words; "" where an item has none.
          image: [batch] bytes of a JPEG or PNG file; b"" where an item has none.
          audio: [batch] bytes of a 16-bit PCM WAV file; b"" where an item has none.
          **vectors: <float32>[batch, dim] for each modality of ready-made vectors, by its name
            ("image" and "audio" too, where the model was trained on such); zeros for none.

        Returns:
          [batch, dim] embeddings and [batch, modality] weights.
        """
        content = {"text": text, "image": image, "audio": audio, **vectors}
        inputs = self._content("embed_item", content)
        outputs = self._channel.predict(self._encoder, inputs, signature="embed_item")
        return ItemEmbeddings(
            output(outputs, "embedding", "embed_item"), output(outputs, "weights", "embed_item")
        )

    def search(
        self,
        *,
        text: Strings | None = None,
        image: Strings | None = None,
        audio: Strings | None = None,
        k: int | None = None,
        **vectors: np.ndarray,
    ) -> SimilarItems:
        """Finds the catalog's items that lie nearest to words, a picture or a sound.

        Args:
          text: [batch]; as in `embed_item`.
          image: [batch].
          audio: [batch].
          k: how many items; None for as many as the export was made for.
          **vectors: as in `embed_item`.

        Returns:
          [batch, k] items and scores.
        """
        inputs = self._content("search", {"text": text, "image": image, "audio": audio, **vectors})
        outputs = self._channel.predict(self._encoder, inputs, signature="search")
        return SimilarItems(**best(outputs, SimilarItems._fields, k, "search"))

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        version: int | None = None,
        outputs: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Asks any signature of any model.

        Args:
          model: the model's name.
          inputs: by public name; arrays keep their dtype, Python floats become float32 and
            integers int64.
          signature: the signature's name.
          version: None for the newest that is available.
          outputs: the names wanted; none for all.

        Returns:
          The outputs by public name; strings as object arrays of bytes.
        """
        return self._channel.predict(
            model, inputs, signature=signature, version=version, outputs=outputs
        )

    def metadata(self, model: str, *, version: int | None = None) -> "Metadata":
        """Returns the signatures of a served model."""
        return self._channel.metadata(model, version=version)

    def status(self, model: str) -> "list[VersionStatus]":
        """Returns where every version of a model stands, the newest first."""
        return self._channel.status(model)

    def _content(self, signature: str, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Fills in what is absent: the model has an input for each of its modalities, no more."""
        given = {name: values for name, values in given.items() if values is not None}
        if not given:
            raise ConfigError(
                f"{signature}: wanted at least one of {', '.join(CONTENT)}; got none."
            )
        specs = self._input_specs(signature)
        unknown = [name for name in given if name not in specs]
        if unknown:
            raise ConfigError(
                f"{signature}: this encoder has no input {', '.join(unknown)}; "
                f"it takes {', '.join(sorted(specs))}."
            )
        columns = {name: column(name, values, specs[name]) for name, values in given.items()}
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"{signature}: wanted as many of each; got {sizes}.")
        rows = next(iter(sizes.values()))
        return {
            name: columns[name] if name in columns else blank(rows, spec)
            for name, spec in specs.items()
        }

    def _input_specs(self, signature: str) -> "Mapping[str, TensorSpec]":
        if signature not in self._inputs:
            signatures = self.metadata(self._encoder).signatures
            if signature not in signatures:
                raise ServingError(
                    f"{self._encoder} has no signature {signature}; it has "
                    f"{', '.join(signatures)}. Export it with this version of mmrec_tf."
                )
            self._inputs[signature] = signatures[signature].inputs
        return self._inputs[signature]
