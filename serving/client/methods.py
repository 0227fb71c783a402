"""The requests to the models of an export and how to read their answers, for both clients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError, ServingError
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
    best,
    output,
    to_str,
)
from serving.client.calls import (
    Calls,
    Metadata,
    Target,
    TensorSpec,
    VersionStatus,
)
from serving.client.exchange import Steps
from serving.client.inputs import (
    Lists,
    blank,
    column,
    new_inputs,
    pad_rows,
    require_read,
    rows_of,
    strings,
    times,
    user_inputs,
)


class Questions:
    """The methods of a client as generators; see `Client` for what each takes and returns."""

    def __init__(
        self,
        calls: Calls,
        *,
        recommender: str,
        encoder: str,
        version: int | None,
        label: str | None,
    ):
        """Describes them.

        Args:
          calls: Calls, to the server.
          recommender: the name under which the recommender is served.
          encoder: the name under which the encoder is served.
          version: of both; None for the newest, or for that of `label`.
          label: of the version of both; None for none.
        """
        self._calls = calls
        require_one(version, label)
        self._version, self._label = version, label
        self._recommender = self._target(recommender)
        self._encoder = self._target(encoder)
        self._inputs: dict[str, Mapping[str, TensorSpec]] = {}

    def recommend(
        self,
        user_id: Sequence[str],
        *,
        time: Sequence[int] | None,
        profile: Sequence[str] | None,
        k: int | None,
        **lists: Lists | None,
    ) -> Steps[Recommendations]:
        """As `Client.recommend`."""
        inputs = user_inputs(user_id, profile=profile, **lists)
        inputs["time"] = times(time, len(user_id))
        outputs = yield from self._rows(self._recommender, inputs, "recommend")
        require_read(
            outputs.get("unread"), "recommend", profile=profile, features=lists.get("features")
        )
        columns = [name for name in Recommendations._fields if name != "version"]
        if "heaviest" not in outputs:
            columns.remove("heaviest")
        return Recommendations(**best(outputs, columns, k, "recommend"), version=outputs.version)

    def rank(
        self,
        user_id: Sequence[str],
        item_id: Lists,
        *,
        history: Lists | None,
        time: Sequence[int] | None,
        profile: Sequence[str] | None,
        features: Lists | None,
    ) -> Steps[Ranking]:
        """As `Client.rank`."""
        inputs = user_inputs(user_id, profile=profile, history=history, features=features)
        inputs["time"] = times(time, len(user_id))
        rows = rows_of("item_id", item_id, len(user_id))
        width = max(map(len, rows), default=0)
        # A server that batches cannot widen what has no element to be filled up with.
        inputs["item_id"] = pad_rows(rows, max(width, 1))
        outputs = yield from self._rows(self._recommender, inputs, "rank")
        require_read(outputs.get("unread"), "rank", profile=profile, features=features)
        parts = {}
        for name in ("score", "probability"):
            # A server that batches may have padded this request to the widest one in its batch.
            parts[name] = np.array(output(outputs, name, "rank"))[:, :width]
            for place, row in enumerate(rows):
                parts[name][place, len(row) :] = np.nan
        return Ranking(to_str(inputs["item_id"][:, :width]), **parts, version=outputs.version)

    def rank_new(
        self,
        user_id: Sequence[str],
        items: ItemEmbeddings,
        *,
        history: Lists | None,
        time: Sequence[int] | None,
        item_features: Lists | None,
    ) -> Steps[NewRanking]:
        """As `Client.rank_new`."""
        users = user_inputs(user_id, profile=None, history=history)
        inputs = {name: users[name] for name in ("user_id", "history")}
        inputs["time"] = times(time, len(user_id))
        new = len(items.embedding)
        inputs |= new_inputs(
            *items[:1], items.modalities, items.present, items.weights, item_features, len(user_id)
        )
        outputs = yield from self._rows(self._recommender, inputs, "rank_new")
        unread = outputs.get("unread")
        if unread is not None and unread[:, :new].any():
            place = int(np.argwhere(unread[:, :new])[0][1])
            came = list(item_features[place]) if item_features is not None else []
            raise ConfigError(
                f"rank_new: wanted item_features as NAME=VALUE that the model reads; item {place} "
                f"has {came}. The model card says what it reads."
            )
        # A server that batches may have filled this request up to the widest one in its batch.
        columns = {
            name: output(outputs, name, "rank_new")[:, :new] for name in NewRanking._fields[:-1]
        }
        words = ("modality", "history_item")
        return NewRanking(
            **{name: to_str(part) if name in words else part for name, part in columns.items()},
            version=outputs.version,
        )

    def similar_items(self, item_id: Sequence[str], *, k: int | None) -> Steps[SimilarItems]:
        """As `Client.similar_items`."""
        inputs = {"item_id": strings("item_id", item_id)}
        outputs = yield from self._rows(self._recommender, inputs, "similar_items")
        columns = SimilarItems._fields[:-1]
        return SimilarItems(**best(outputs, columns, k, "similar_items"), version=outputs.version)

    def embed_user(
        self,
        user_id: Sequence[str],
        history: Lists | None,
        *,
        profile: Sequence[str] | None,
        features: Lists | None,
    ) -> Steps[UserEmbeddings]:
        """As `Client.embed_user`."""
        inputs = user_inputs(user_id, profile=profile, history=history, features=features)
        outputs = yield from self._rows(self._recommender, inputs, "embed_user")
        require_read(outputs.get("unread"), "embed_user", profile=profile, features=features)
        return UserEmbeddings(
            output(outputs, "embedding", "embed_user"),
            output(outputs, "known", "embed_user"),
            outputs.version,
        )

    def embed_item(self, content: Mapping[str, Any]) -> Steps[ItemEmbeddings]:
        """As `Client.embed_item`."""
        outputs = yield from self._ask_encoder("embed_item", content)
        features = content.get("features")
        require_read(outputs.get("unread"), "embed_item", profile=None, features=features)
        heaviest = outputs.get("heaviest")
        if heaviest is not None:
            # Each list was sent with nothing in front, see `lists`.
            heaviest = np.maximum(heaviest - 1, -1)
        return ItemEmbeddings(
            output(outputs, "embedding", "embed_item"),
            output(outputs, "weights", "embed_item"),
            outputs.get("present"),
            outputs.get("unreadable"),
            outputs.get("modalities"),
            outputs.version,
            heaviest,
        )

    def search(self, content: Mapping[str, Any], *, k: int | None) -> Steps[FoundItems]:
        """As `Client.search`."""
        outputs = yield from self._ask_encoder("search", content)
        found = best(outputs, ("item_id", "score"), k, "search")
        return FoundItems(**found, unreadable=outputs.get("unreadable"), version=outputs.version)

    def tag(self, content: Mapping[str, Any], *, k: int | None) -> Steps[ItemLabels]:
        """As `Client.tag`."""
        if k is not None and k < 1:
            raise ConfigError(f"k: wanted 1 or more; got {k}.")
        outputs = yield from self._ask_encoder("tag", content)
        probability = output(outputs, "probability", "tag")
        label = to_str(output(outputs, "label", "tag"))
        order = np.argsort(-probability, axis=1, kind="stable")[:, :k]
        probability = np.take_along_axis(probability, order, axis=1)
        label = np.take_along_axis(label, order, axis=1)
        label[probability < 0] = ""
        return ItemLabels(label, probability, outputs.get("unreadable"), outputs.version)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str,
        version: int | None,
        label: str | None,
        outputs: Sequence[str],
    ) -> Steps[Outputs]:
        """As `Client.predict`."""
        target = self._target(model, version, label)
        return (
            yield from self._calls.predict(target, inputs, signature=signature, outputs=outputs)
        )

    def metadata(self, model: str, *, version: int | None, label: str | None) -> Steps[Metadata]:
        """As `Client.metadata`."""
        return (yield from self._calls.metadata(self._target(model, version, label)))

    def status(self, model: str) -> Steps[list[VersionStatus]]:
        """As `Client.status`."""
        return (yield from self._calls.status(model))

    def _target(self, model: str, version: int | None = None, label: str | None = None) -> Target:
        require_one(version, label)
        if version is None and label is None:
            return Target(model, self._version, self._label)
        return Target(model, version, label)

    def _rows(
        self, target: Target, inputs: Mapping[str, NDArray[Any]], signature: str
    ) -> Steps[Outputs]:
        """Asks for a prediction. What has no rows is answered here, by the model's own signature:
        a server that batches would keep such a call to its deadline."""
        if len(next(iter(inputs.values()))):
            return (yield from self._calls.predict(target, inputs, signature=signature))
        signatures = (yield from self._calls.metadata(target)).signatures
        if signature not in signatures:
            # Its answer says what is wrong.
            return (yield from self._calls.predict(target, inputs, signature=signature))
        outputs = signatures[signature].outputs
        return Outputs({name: blank(0, spec) for name, spec in outputs.items()})

    def _ask_encoder(self, signature: str, content: Mapping[str, Any]) -> Steps[Outputs]:
        given = {name: values for name, values in content.items() if values is not None}
        if not given:
            raise ConfigError(
                f"{signature}: wanted at least one of {', '.join(content)}; got none."
            )
        if signature not in self._inputs:
            signatures = (yield from self._calls.metadata(self._encoder)).signatures
            if signature not in signatures:
                raise ServingError(
                    f"{self._encoder.model} has no signature {signature}; it has "
                    f"{', '.join(signatures)}. Export it with this version of mmrec_tf."
                )
            self._inputs[signature] = signatures[signature].inputs
        inputs = content_inputs(signature, given, self._inputs[signature])
        try:
            return (yield from self._rows(self._encoder, inputs, signature))
        except ServingError:
            # A version that was swapped in meanwhile may take other inputs: the next call asks.
            self._inputs.pop(signature, None)
            raise


def content_inputs(
    signature: str, given: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> dict[str, NDArray[Any]]:
    """Fills in absent content, as every modality's input must be sent; refuses unknown ones."""
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


def require_one(version: int | None, label: str | None) -> None:
    """Refuses a version and a label together, and values that are neither."""
    if version is not None and label is not None:
        raise ConfigError(
            f"wanted a version or a label; got both, version {version!r} and label {label!r}."
        )
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise ConfigError(f"version: wanted a whole number; got {version!r}.")
    if version is not None and not 0 <= version < 2**63:
        raise ConfigError(f"version: wanted 0 to 2^63 - 1; got {version}.")
    if label is not None and (not isinstance(label, str) or not label):
        raise ConfigError(f"label: wanted a name; got {label!r}.")
