"""A typed client for the models of an export, and a command (`__main__`).

    python -m serving.client recommend --address localhost:8500 --user u42 --k 10
    python -m serving.client rank --user u42 --items i1,i2,i3
    python -m serving.client embed-item --text "a small grey bird" --image bird.jpg
    python -m serving.client search --audio call.wav --k 5
    python -m serving.client status

It speaks to stock TensorFlow Serving and to `serving.local_server` alike.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmrec_tf.errors import ConfigError, ServingError

if TYPE_CHECKING:
    from serving.client.calls import Metadata, TensorSpec, VersionStatus

Strings = Sequence[str | bytes]
CONTENT = ("text", "image", "audio")


class Recommendations(NamedTuple):
    """Items, the best first.

    `item_id`: object array of str, [batch, k]; "" where there were fewer than k items to show.
    `score`: <float32>[batch, k].
    """

    item_id: np.ndarray
    score: np.ndarray


class Ranking(NamedTuple):
    """Scores of given items, in the order given.

    `item_id`: object array of str, [batch, candidate]; "" where a row had fewer candidates.
    `score`: <float32>[batch, candidate]; NaN there.
    """

    item_id: np.ndarray
    score: np.ndarray


class ItemEmbeddings(NamedTuple):
    """Where items lie, and how much each modality counted.

    `embedding`: <float32>[batch, dim].
    `weights`: <float32>[batch, modality].
    """

    embedding: np.ndarray
    weights: np.ndarray


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
        history: Sequence[Sequence[str]] | None = None,
        *,
        k: int | None = None,
    ) -> Recommendations:
        """Recommends items to users.

        Args:
          user_id: [batch]; an id that the model does not know is a new user.
          history: [batch, step], the items of each user, oldest first; rows may differ in length.
            None where nothing is known but the id.
          k: how many items; None for as many as the export was made for.

        Returns:
          [batch, k] items and scores.
        """
        outputs = self._channel.predict(
            self._recommender, _user_inputs(user_id, history), signature="recommend"
        )
        return _best(outputs, k, "recommend")

    def rank(
        self,
        user_id: Sequence[str],
        item_id: Sequence[Sequence[str]],
        *,
        history: Sequence[Sequence[str]] | None = None,
    ) -> Ranking:
        """Scores given items for users.

        Args:
          user_id: [batch].
          item_id: [batch, candidate]; rows may differ in length.
          history: as in `recommend`.

        Returns:
          [batch, candidate] items as given, and their scores.
        """
        inputs = _user_inputs(user_id, history)
        rows = _rows("item_id", item_id, len(user_id))
        width = max(map(len, rows), default=0)
        inputs["item_id"] = _padded(rows, width)
        outputs = self._channel.predict(self._recommender, inputs, signature="rank")
        # A server that batches may have widened this request to its widest neighbor.
        score = np.array(_output(outputs, "score", "rank"))[:, :width]
        for place, row in enumerate(rows):
            score[place, len(row) :] = np.nan
        return Ranking(_to_str(inputs["item_id"]), score)

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
            _output(outputs, "embedding", "embed_item"), _output(outputs, "weights", "embed_item")
        )

    def search(
        self,
        *,
        text: Strings | None = None,
        image: Strings | None = None,
        audio: Strings | None = None,
        k: int | None = None,
        **vectors: np.ndarray,
    ) -> Recommendations:
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
        return _best(self._channel.predict(self._encoder, inputs, signature="search"), k, "search")

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
        columns = {name: _column(name, values, specs[name]) for name, values in given.items()}
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"{signature}: wanted as many of each; got {sizes}.")
        rows = next(iter(sizes.values()))
        return {
            name: columns[name] if name in columns else _blank(rows, spec)
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


def _column(name: str, values: Any, spec: "TensorSpec") -> np.ndarray:
    if spec.dtype == "string":
        return _strings(name, values)
    shape = spec.shape or ()
    try:
        vectors = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}: this encoder takes ready-made vectors {list(shape)}; {error}."
        ) from error
    if vectors.ndim != len(shape) or vectors.shape[1:] != shape[1:]:
        raise ConfigError(f"{name}: wanted vectors {list(shape)}; got shape {list(vectors.shape)}.")
    return vectors


def _blank(rows: int, spec: "TensorSpec") -> np.ndarray:
    if spec.dtype == "string":
        return np.full(rows, b"", dtype=object)
    return np.zeros([rows, *(size or 0 for size in (spec.shape or ())[1:])], np.float32)


def _user_inputs(
    user_id: Sequence[str], history: Sequence[Sequence[str]] | None
) -> dict[str, np.ndarray]:
    users = _strings("user_id", user_id)
    rows = _rows("history", [[]] * len(users) if history is None else history, len(users))
    # An empty id is no item. It also leads every row, because a server that batches requests of
    # different lengths pads each with the first element of its tensor.
    rows = [np.concatenate([_strings("history", [""]), row]) for row in rows]
    return {"user_id": users, "history": _padded(rows, max(map(len, rows), default=1))}


def _rows(name: str, values: Sequence[Sequence[str]], num_rows: int) -> list[np.ndarray]:
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name}: wanted a list of ids for each user; got {values!r}.")
    if len(values) != num_rows:
        raise ConfigError(f"{name}: wanted {num_rows} rows, one a user; got {len(values)}.")
    return [_strings(name, row) for row in values]


def _padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    padded = np.full((len(rows), width), b"", dtype=object)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def _strings(name: str, values: Strings) -> np.ndarray:
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name}: wanted a list of strings; got the string {values!r:.60}.")
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        if not isinstance(value, str | bytes):
            raise ConfigError(f"{name}: wanted strings; got {value!r:.60} at {place}.")
        array[place] = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return array


def _to_str(array: np.ndarray) -> np.ndarray:
    decoded = np.empty(array.shape, dtype=object)
    for place, value in np.ndenumerate(array):
        decoded[place] = value.decode("utf-8", "surrogateescape")
    return decoded


def _output(outputs: Mapping[str, np.ndarray], name: str, signature: str) -> np.ndarray:
    if name not in outputs:
        raise ServingError(
            f"{signature}: wanted an output {name}; the model answered with "
            f"{', '.join(sorted(outputs))}. Is it an export of mmrec_tf?"
        )
    return outputs[name]


def _best(outputs: Mapping[str, np.ndarray], k: int | None, signature: str) -> Recommendations:
    item_id = _output(outputs, "item_id", signature)
    score = _output(outputs, "score", signature)
    most = item_id.shape[1]
    if k is not None and not 1 <= k <= most:
        raise ConfigError(
            f"k: wanted 1 to {most}, which the export was made for; got {k}. "
            "Export again with a larger k for more."
        )
    return Recommendations(_to_str(item_id[:, :k]), score[:, :k])
