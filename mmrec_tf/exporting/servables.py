"""The two models that TensorFlow Serving runs: `recommender` and `encoder`.

`recommender` holds ids, user tower, index and ranking; `encoder` holds the encoders and the item
tower. Both hold core TensorFlow ops only. Every input and output is batch-first, rows are
independent, and names are public API.
"""

import types
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.dataset.catalog import Content
from mmrec_tf.encoders.several import SeveralValues
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.limits import Limits, check_limits
from mmrec_tf.exporting.request_examples import Example
from mmrec_tf.exporting.search_space import SearchSpace
from mmrec_tf.exporting.several_values import (
    Encoded,
    encode_values,
    rows_of_values,
    table_of_values,
    values_spec,
)
from mmrec_tf.recommender.feature_entries import FeatureEntries, replace_features
from mmrec_tf.recommender.inputs import RECOMMEND_INPUTS
from mmrec_tf.recommender.new_items import NewItems
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.catalog_tables import PROFILE
from mmrec_tf.retrieval.index import ExactIndex
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import LOWEST_SCORE, FeatureSpec, ModalitySpec
from mmrec_tf.towers import TowerOutput
from mmrec_tf.towers.labels import label_names
from mmrec_tf.towers.modality_maps import GraphMaps

NUM_EXAMPLES = 4
# So many users and items are looked through for them.
NUM_TRIED = 256
# Scores closer than this may change places with the size of a batch: no example is built on them.
NEAR = 1e-4
RECOMMENDER_LIMITS = Limits()
# Networks hold far more for a row than ids do.
ENCODER_LIMITS = Limits(rows=64)
# The input of side features, beside those of modalities.
FEATURES = "features"
UNREADABLE = b"neither a picture nor a sound"


# A servable hides the models in a namespace and lists their variables and tables instead: tracked
# as such, Keras would write its own graph of each layer into the SavedModel.


class RecommenderServable(tf.Module):
    """`recommend`, `rank`, `similar_items`, `embed_user` and, where items have content, `rank_new`
    in core TensorFlow ops.

    Args:
      recommender: Recommender.
      k: int. How many items an answer holds; the catalog may hold fewer.
      limits: Limits of a request.
    """

    name_on_disk = "recommender"

    def __init__(self, recommender: Recommender, *, k: int, limits: Limits = RECOMMENDER_LIMITS):
        super().__init__()
        self.state = types.SimpleNamespace(recommender=recommender)
        reads_profile = recommender.retriever.reads_profile
        self.resources = [
            *recommender.variables,
            *recommender.index.variables,
            *recommender.retrieval.user_tower.variables,
            *recommender.retrieval.user_tables,
            recommender.retrieval.log_temperature,
            *(recommender.ranking.variables if recommender.ranking else []),
            *(recommender.item_head.variables if recommender.item_head else []),
            recommender.retriever.item_table,
            recommender.retriever.user_table,
            recommender.retriever.filter.table,
            *recommender.retriever.feature_entries.tables.values(),
            *(recommender.retrieval.encoders[PROFILE].variables if reads_profile else []),
        ]
        self.k = min(k, recommender.index.vectors.shape[0])
        self.limits = limits
        self.rank_new = None
        if recommender.retrieval.modalities:
            new_items = NewItems(recommender)
            self.state.new_items = new_items
            self.resources += new_items.entries.tables.values()
            self.rank_new = tf.function(
                self._rank_new, input_signature=new_items.specs(recommender), autograph=False
            )

    @tf.function(input_signature=RECOMMEND_INPUTS, autograph=False)
    def recommend(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        exclude: tf.Tensor,
        allow: tf.Tensor,
        deny: tf.Tensor,
        time: tf.Tensor,
        profile: tf.Tensor,
        features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """What `Recommender.recommend_ids` answers."""
        inputs = {"user_id": user_id, "history": history, "exclude": exclude}
        inputs |= {"allow": allow, "deny": deny, "time": time}
        inputs |= {"profile": profile, "features": features}
        return self.state.recommender.recommend_ids(*check_limits(self.limits, inputs), k=self.k)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, None], tf.string, name="history"),
            tf.TensorSpec([None, None], tf.string, name="item_id"),
            tf.TensorSpec([None], tf.int64, name="time"),
            tf.TensorSpec([None], tf.string, name="profile"),
            tf.TensorSpec([None, None], tf.string, name="features"),
        ],
        autograph=False,
    )
    def rank(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        item_id: tf.Tensor,
        time: tf.Tensor,
        profile: tf.Tensor,
        features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """score, -1e9 for an unknown item, and probability, <float32>[batch, candidate]; unread
        <bool>[batch]."""
        inputs = {"user_id": user_id, "history": history, "item_id": item_id, "time": time}
        inputs |= {"profile": profile, "features": features}
        return self.state.recommender.rank_ids(*check_limits(self.limits, inputs))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="item_id")], autograph=False
    )
    def similar_items(self, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """item_id <string>[batch, k], "" for none, and score <float32>[batch, k]."""
        return self.state.recommender.similar_ids(
            *check_limits(self.limits, {"item_id": item_id}), k=self.k
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, None], tf.string, name="history"),
            tf.TensorSpec([None], tf.string, name="profile"),
            tf.TensorSpec([None, None], tf.string, name="features"),
        ],
        autograph=False,
    )
    def embed_user(
        self, user_id: tf.Tensor, history: tf.Tensor, profile: tf.Tensor, features: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """embedding <float32>[batch, dim]; known and unread <bool>[batch]."""
        inputs = {"user_id": user_id, "history": history}
        inputs |= {"profile": profile, "features": features}
        return self.state.recommender.embed_user_ids(*check_limits(self.limits, inputs))

    def _rank_new(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `NewItems.rank` answers."""
        names = [spec.name for spec in self.state.new_items.specs(self.state.recommender)]
        checked = check_limits(self.limits, dict(zip(names, inputs, strict=True)))
        return self.state.new_items.rank(self.state.recommender, *checked)

    @property
    def signatures(self) -> dict:
        """The functions by the name under which they are served."""
        found = {
            "serving_default": self.recommend,
            "recommend": self.recommend,
            "rank": self.rank,
            "similar_items": self.similar_items,
            "embed_user": self.embed_user,
        }
        return found if self.rank_new is None else {**found, "rank_new": self.rank_new}

    def examples(self) -> list[Example]:
        """Requests of known, unknown and returning users, and of items, with the answers of this
        process."""
        dataset = self.state.recommender.dataset
        users, items = dataset.users.user_id[:NUM_TRIED], dataset.catalog.item_id
        known = self._without_ties("recommend", self._request(users))
        plain = self._request(np.append(known["user_id"], ["nobody"]))
        asking = self._without_ties("recommend", self._wishes(users))
        size = len(plain["user_id"])
        asked = {
            "user_id": plain["user_id"],
            "history": self._wishes(plain["user_id"])["history"],
            "item_id": np.array(
                [[*np.resize(np.roll(items, -row), 4), "unheard of"] for row in range(size)], object
            ),
            "time": plain["time"],
            **{name: self._wishes(plain["user_id"])[name] for name in ("profile", "features")},
        }
        near = self._without_ties("similar_items", {"item_id": items[:NUM_TRIED]})["item_id"]
        requests = [
            Example("recommend", plain, {}),
            Example("recommend", asking, {}),
            Example("rank", asked, {}),
            Example("similar_items", {"item_id": np.append(near, ["unheard of"])}, {}),
            Example(
                "embed_user",
                {name: asking[name] for name in ("user_id", "history", "profile", "features")},
                {},
            ),
        ]
        if self.rank_new is not None:
            requests.append(Example("rank_new", self._new_request(asking), {}))
        return [_answer(self, request) for request in requests]

    def _new_request(self, asking: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Items of the catalog as if they were new, the last one of each row none at all."""
        recommender = self.state.recommender
        size, count = len(asking["user_id"]), recommender.items["vector"].shape[0]
        place = (np.arange(3) + 3 * np.arange(size)[:, None]) % count
        tables = {n: recommender.items[n].numpy() for n in ("modalities", "present", "weights")}
        vectors = recommender.index.vectors.numpy()[:, : recommender.config.dim]
        rows = {"embedding": vectors[place], **{n: table[place] for n, table in tables.items()}}
        features = np.full([size, 3, 2], "", object)
        specs = self.state.new_items.entries.specs
        for row in range(size):
            entries = example_entries(specs, row)[:1]
            features[row, 0, 1 : 1 + len(entries)] = entries
        rows["present"][:, -1] = False
        return {
            **{n: asking[n] for n in ("user_id", "history", "time")},
            **rows,
            "features": features,
        }

    @staticmethod
    def _request(user_id: np.ndarray) -> dict[str, np.ndarray]:
        """What leaves everything open but who asks; lists begin with "", as clients send them."""
        size = len(user_id)
        inputs = {"user_id": user_id, "history": np.full([size, 4], "", object)}
        inputs |= {name: np.full([size, 3], "", object) for name in ("exclude", "allow", "deny")}
        inputs |= {"time": np.zeros([size], np.int64), "profile": np.full([size], "", object)}
        return {**inputs, "features": np.full([size, 3], "", object)}

    def _wishes(self, user_id: np.ndarray) -> dict[str, np.ndarray]:
        """What leaves nothing open: of each list some rows hold one, in every mix."""
        recommender, inputs = self.state.recommender, self._request(user_id)
        items, categories = recommender.dataset.catalog.item_id, recommender.retriever.filter.names
        for row in range(len(user_id)):
            inputs["history"][row, 1 : 1 + row % 3] = [items[row * 7 % len(items)], "unheard of"][
                : row % 3
            ]
            inputs["exclude"][row, 1:] = np.resize(np.roll(items, -row), 2)
            if categories:
                wish = inputs["deny" if row % 2 else "allow"]
                wish[row, 1] = categories[row // 2 % len(categories)]
        if recommender.retriever.reads_profile:
            inputs["profile"][::2] = "likes the sea"
        for row in range(0, len(user_id), 3):
            brought = example_entries(recommender.retriever.feature_entries.specs, row)[:2]
            inputs["features"][row, 1 : 1 + len(brought)] = brought
        # Another hour each; that of the first is not known.
        return {**inputs, "time": 5 * 3600 * np.arange(len(user_id))}

    def _without_ties(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The first rows whose scores have no near ties; of all rows when there are none such."""
        score = _answer(self, Example(signature, inputs, {})).outputs["score"]
        rows = _rows_without_ties(score)[:NUM_EXAMPLES]
        return {name: value[rows] for name, value in inputs.items()}


def example_entries(specs: Mapping[str, FeatureSpec], number: int) -> list[str]:
    """An entry for each side feature, others for each number."""
    entries = []
    for name, spec in specs.items():
        if spec.kind == "numeric":
            entries.append(f"{name}={spec.mean + spec.std * (number % 5 - 2):.4f}")
        elif spec.vocabulary:
            entries.append(f"{name}={spec.vocabulary[number % len(spec.vocabulary)]}")
    return entries


def _rows_without_ties(score: np.ndarray) -> list[int]:
    """Rows in which no two of the real scores <float32>[row, k] are near; all if there are none."""
    ordered = -np.sort(-score, axis=1)
    gap = np.where(ordered[:, 1:] > LOWEST_SCORE, ordered[:, :-1] - ordered[:, 1:], np.inf)
    rows = np.flatnonzero(gap.min(axis=1, initial=np.inf) > NEAR)
    return list(rows) or list(range(len(score)))


class EncoderServable(tf.Module):
    """`embed_item`, `search` and, of a model with labels, `tag`: raw content in, one input a
    modality.

    Texts, pictures and sounds come as <string>[batch, value], "" where absent; ready-made vectors
    as <float32>[batch, value, dim], zeros where absent. Of an item with several values the distinct
    ones count, as in training: their mean, or what attention makes of them, and `heaviest` then
    says which of them weighed most. A video comes as its frames, JPEG or PNG bytes in their order,
    all of which count. Content that cannot be read counts as absent, and the
    answer says so. `embed_item` of a model that reads side features of items takes these, too,
    as entries such as "genre=comedy" (see `FeatureEntries`).

    Args:
      retrieval: RetrievalModel, trained, with at least one modality.
      item_id: object[item] of str.
      k: int. How many items an answer holds; the catalog may hold fewer.
      build_index: from the catalog's vectors <float32>[item, dim] to what is searched.
      available: <bool>[item], which may be found; None for all.
      limits: Limits of a request.

    Raises:
      ConfigError: for a modality that has the name of another input.
    """

    name_on_disk = "encoder"

    def __init__(
        self,
        retrieval: RetrievalModel,
        item_id: np.ndarray,
        *,
        k: int,
        build_index: Callable[[np.ndarray], ExactIndex] = ExactIndex,
        available: np.ndarray | None = None,
        limits: Limits = ENCODER_LIMITS,
    ):
        super().__init__()
        self.modalities = retrieval.modalities
        if FEATURES in self.modalities:
            raise ConfigError(
                f"export: wanted no modality with the name {FEATURES!r}, under which side features "
                "come. Prepare the dataset with another name for it."
            )
        tower = retrieval.item_tower
        read = {} if tower.features is None else tower.features.sizes
        reads_features = bool(read)
        specs = retrieval.schema.item_features
        self.feature_entries = FeatureEntries({name: specs[name] for name in read})
        kinds = retrieval.schema.modalities
        self.specs = [values_spec(name, kinds[name]) for name in self.modalities]
        self.state = types.SimpleNamespace(
            encoders={name: retrieval.encoders[name] for name in self.modalities},
            item_tower=retrieval.item_tower,
            label_heads=retrieval.label_heads,
        )
        self.maps = GraphMaps(retrieval.tables.get("maps", ()))
        self.resources = [
            *retrieval.item_tower.variables,
            *(v for encoder in self.state.encoders.values() for v in encoder.variables),
            *self.maps.variables,
        ]
        self.labels = None
        if retrieval.label_heads is not None:
            self.resources += retrieval.label_heads.variables
            names = label_names(specs, retrieval.label_heads.forms)
            self.labels = tf.Variable(names, trainable=False, name="labels")
        self.item_id = tf.Variable(item_id.tolist(), trainable=False, name="item_id")
        self.features = {
            name: tf.zeros([1, *table.shape[1:]], table.dtype)
            for name, table in retrieval.tables["item_features"].items()
        }
        # An asked-for item has no id, so the catalog's are compared without theirs.
        catalog = retrieval.embed_catalog(content_only=True)
        self.space = SearchSpace(catalog)
        self.index = build_index(self.space(catalog).numpy())
        allowed = np.ones([len(item_id)], bool) if available is None else available
        self.available = tf.Variable(allowed, trainable=False, name="available")
        self.k = min(k, len(item_id))
        # What training had of an item, a request may have.
        most = max(limits.values, *(_most_values(kinds[name]) for name in self.modalities))
        self.limits = limits._replace(values=most)
        self.kinds = {name: kinds[name].kind for name in self.modalities}
        # One function of the graph, which all signatures call: it is most of an encoder's. Not the
        # `tf.function`, which would be traced again while the model is saved.
        encode = tf.function(self._encode, input_signature=self.specs, autograph=False)
        self.state.encode = encode.get_concrete_function()
        entries = [tf.TensorSpec([None, None], tf.string, name=FEATURES)] if reads_features else []
        self.embed_item = tf.function(
            self._embed_item, input_signature=[*self.specs, *entries], autograph=False
        )
        self.search = tf.function(self._search, input_signature=self.specs, autograph=False)
        self.tag = None
        if self.labels is not None:
            self.tag = tf.function(self._tag, input_signature=self.specs, autograph=False)

    def _encode(self, *given: tf.Tensor) -> dict[str, Encoded]:
        return {
            name: encode_values(self.state.encoders[name], values, block=self.limits.rows)
            for name, values in zip(self.modalities, given, strict=True)
        }

    def _tower(
        self, given: Sequence[tf.Tensor], features: Mapping[str, tf.Tensor]
    ) -> tuple[TowerOutput, tf.Tensor, tf.Tensor, tf.Tensor]:
        """TowerOutput; which modalities came and were read, and of which something came that could
        not be, <bool>[batch, modality]; and which value of each weighed most <int32>[batch,
        modality], as of `Encoded`."""
        encoded = self.state.encode(*given)
        batch = tf.shape(given[0])[0]
        stored = {name: tf.repeat(v, batch, axis=0) for name, v in self.features.items()}
        present = tf.stack([one.present for one in encoded.values()], axis=1)
        filled, now = self.maps([one.vector for one in encoded.values()], present)
        output = self.state.item_tower(
            {
                "item": tf.fill([batch], -1),
                "present": now,
                "encoded": dict(zip(self.modalities, filled, strict=True)),
                "features": replace_features(stored, features),
            }
        )
        unreadable = tf.stack([one.unreadable for one in encoded.values()], axis=1)
        heaviest = tf.stack([one.heaviest for one in encoded.values()], axis=1)
        return output, present, unreadable, heaviest

    def _embed_item(self, *raw: tf.Tensor) -> dict[str, tf.Tensor]:
        names = [*self.modalities, FEATURES][: len(raw)]
        inputs = dict(zip(names, raw, strict=True))
        given = check_limits(self.limits, inputs, content=self.modalities)
        features: dict[str, tf.Tensor] = {}
        unread: dict[str, tf.Tensor] = {}
        if len(raw) > len(self.modalities):
            features, passed_over = self.feature_entries(given.pop())
            unread = {"unread": tf.reduce_any(passed_over, axis=1)}
        output, present, unreadable, heaviest = self._tower(given, features)
        attends = any(isinstance(e, SeveralValues) for e in self.state.encoders.values())
        return {
            "embedding": output.embedding,
            "modalities": tf.cast(output.modalities, tf.float32),
            "weights": output.weights,
            "present": present,
            "unreadable": unreadable,
            **({"heaviest": heaviest} if attends else {}),
            **unread,
        }

    def _search(self, *raw: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = dict(zip(self.modalities, raw, strict=True))
        given = check_limits(self.limits, inputs, content=self.modalities)
        output, present, unreadable, _ = self._tower(given, {})
        score, item = self.index.search(
            self.space(output), self.k, allowed=tf.convert_to_tensor(self.available)[None, :]
        )
        # Without anything to go by, any item would do.
        real = (score > LOWEST_SCORE) & tf.reduce_any(present, axis=1, keepdims=True)
        return {
            "item_id": tf.where(real, tf.gather(self.item_id, item), ""),
            "score": tf.where(real, score, LOWEST_SCORE),
            "unreadable": unreadable,
        }

    def _tag(self, *raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """label <string>[batch, label], the same in each row, such as "genre=comedy"; probability
        <float32>[batch, label], -1 for a row with nothing to go by; unreadable
        <bool>[batch, modality]."""
        inputs = dict(zip(self.modalities, raw, strict=True))
        given = check_limits(self.limits, inputs, content=self.modalities)
        output, present, unreadable, _ = self._tower(given, {})
        found = self.state.label_heads.probabilities(output.embedding)
        probability = tf.concat([found[name] for name in self.state.label_heads.forms], axis=1)
        something = tf.reduce_any(present, axis=1, keepdims=True)
        batch = tf.shape(probability)[0]
        return {
            "label": tf.tile(tf.convert_to_tensor(self.labels)[None, :], [batch, 1]),
            "probability": tf.where(something, probability, -1.0),
            "unreadable": unreadable,
        }

    @property
    def signatures(self) -> dict:
        """The functions by the name under which they are served."""
        found = {
            "serving_default": self.embed_item,
            "embed_item": self.embed_item,
            "search": self.search,
        }
        return found if self.tag is None else {**found, "tag": self.tag}

    def examples_from(
        self, content: Mapping[str, np.ndarray | Content], present: np.ndarray
    ) -> list[Example]:
        """Some items of the catalog, each modality alone, one with nothing at all and one with
        what cannot be read.

        Args:
          content: as `Catalog.content`, of this model's modalities.
          present: <bool>[item, modality].
        """
        rows = np.argsort(-present.sum(axis=1), kind="stable")[:NUM_EXAMPLES]
        inputs = {}
        for column, (name, spec) in enumerate(zip(self.modalities, self.specs, strict=True)):
            asked = [*rows, *np.flatnonzero(present[:, column])[:1]]
            values = rows_of_values(content[name], asked, kind=self.kinds[name])
            broken = [UNREADABLE] if spec.dtype == tf.string else values[0]
            alone = [
                values[len(rows)] if column == other else []
                for other in range(len(self.modalities))
                if present[:, other].any()
            ]
            lists = [*values[: len(rows)], *alone, [], broken]
            inputs[name] = table_of_values(spec, lists)
        # Of near ties the order may change with the size of a batch: the row farthest from any.
        score = _answer(self, Example("search", inputs, {})).outputs["score"]
        gap = (score[:, :-1] - score[:, 1:]).min(axis=1, initial=np.inf)
        row = int(np.argmax(np.where(score[:, 0] > LOWEST_SCORE, gap, -1)))
        entries = {}
        if self.feature_entries.specs:
            listed = np.full([len(next(iter(inputs.values()))), 3], "", object)
            for place in range(1, len(listed), 2):
                brought = example_entries(self.feature_entries.specs, place)[:2]
                listed[place, 1 : 1 + len(brought)] = brought
            entries = {FEATURES: listed}
        requests = [
            Example("embed_item", {**inputs, **entries}, {}),
            Example("search", {n: v[row : row + 1] for n, v in inputs.items()}, {}),
        ]
        if self.tag is not None:
            requests.append(Example("tag", inputs, {}))
        return [_answer(self, request) for request in requests]


def _most_values(spec: ModalitySpec) -> int:
    """So many values of an item training may have had."""
    return max(spec.max_values, spec.num_frames)


def _answer(servable: RecommenderServable | EncoderServable, example: Example) -> Example:
    """The example with the answer of this process."""
    inputs = [
        tf.constant(value.tolist(), tf.string, shape=value.shape)
        if value.dtype == object
        else tf.constant(value)
        for value in example.inputs.values()
    ]
    # The Python function, not its graph: the answer must not come from what is being checked.
    answer = servable.signatures[example.signature].python_function(*inputs)
    return example._replace(outputs={name: value.numpy() for name, value in answer.items()})
