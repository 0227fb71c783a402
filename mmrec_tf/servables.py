"""The two SavedModels that TensorFlow Serving runs: `recommender` and `encoder`.

`recommender` holds ids, user tower, index and ranking in core TensorFlow ops; `encoder` holds the
encoders and the item tower. Both hold core TensorFlow ops only. Every input and output is
batch-first, rows are independent, and names are public API.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mmrec_tf.answers import RECOMMEND_INPUTS
from mmrec_tf.catalog import Content
from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.examples import Example, examples_path, write_examples
from mmrec_tf.index import LOWEST, ExactIndex
from mmrec_tf.recommender import Recommender
from mmrec_tf.retrieval import RetrievalModel

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
NUM_EXAMPLES = 4
# So many users and items are looked through for them.
NUM_TRIED = 256
# Scores closer than this may change places with the size of a batch: no example is built on them.
NEAR = 1e-4


# A servable hides the models in a namespace and lists their variables and tables instead: tracked
# as such, Keras would write its own graph of each layer into the SavedModel.


class RecommenderServable(tf.Module):
    """`recommend`, `rank` and `similar_items`, in core TensorFlow ops.

    Args:
      recommender: Recommender.
      k: int. How many items an answer holds; the catalog may hold fewer.
    """

    name_on_disk = "recommender"

    def __init__(self, recommender: Recommender, *, k: int):
        super().__init__()
        self.state = types.SimpleNamespace(recommender=recommender)
        self.resources = [
            *recommender.variables,
            *recommender.retrieval.user_tower.variables,
            *recommender.retrieval.user_tables,
            recommender.retrieval.log_temperature,
            *(recommender.ranking.variables if recommender.ranking else []),
            recommender.item_table,
            recommender.user_table,
            recommender.filter.table,
        ]
        self.k = min(k, recommender.index.vectors.shape[0])

    @tf.function(input_signature=RECOMMEND_INPUTS)
    def recommend(self, user_id, history, exclude, allow, deny, time):
        """What `Recommender.recommend_ids` answers, each [batch, k]."""
        return self.state.recommender.recommend_ids(
            user_id, history, exclude, allow, deny, time, k=self.k
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, None], tf.string, name="history"),
            tf.TensorSpec([None, None], tf.string, name="item_id"),
            tf.TensorSpec([None], tf.int64, name="time"),
        ]
    )
    def rank(self, user_id, history, item_id, time):
        """score, -1e9 for an unknown item, and probability, <float32>[batch, candidate]."""
        return self.state.recommender.rank_ids(user_id, history, item_id, time)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="item_id")])
    def similar_items(self, item_id):
        """item_id <string>[batch, k], "" for none, and score <float32>[batch, k]."""
        return self.state.recommender.similar_ids(item_id, k=self.k)

    @property
    def signatures(self) -> dict:
        """The functions by the name under which they are served."""
        return {
            "serving_default": self.recommend,
            "recommend": self.recommend,
            "rank": self.rank,
            "similar_items": self.similar_items,
        }

    def examples(self) -> list[Example]:
        """Requests of known, unknown and returning users, and of items, with the answers of this
        process."""
        dataset = self.state.recommender.dataset
        users, items = dataset.users.user_id[:NUM_TRIED], dataset.catalog.item_id
        known = self._clear("recommend", self._request(users))
        plain = self._request(np.append(known["user_id"], ["nobody"]))
        told = self._clear("recommend", self._told(users))
        size = len(plain["user_id"])
        asked = {
            "user_id": plain["user_id"],
            "history": self._told(plain["user_id"])["history"],
            "item_id": np.array(
                [[*np.resize(np.roll(items, -row), 4), "unheard of"] for row in range(size)], object
            ),
            "time": plain["time"],
        }
        near = self._clear("similar_items", {"item_id": items[:NUM_TRIED]})["item_id"]
        requests = [
            Example("recommend", plain, {}),
            Example("recommend", told, {}),
            Example("rank", asked, {}),
            Example("similar_items", {"item_id": np.append(near, ["unheard of"])}, {}),
        ]
        return [_answered(self, request) for request in requests]

    @staticmethod
    def _request(user_id: np.ndarray) -> dict[str, np.ndarray]:
        """What leaves everything open but who asks; lists begin with "", as clients send them."""
        size = len(user_id)
        inputs = {"user_id": user_id, "history": np.full([size, 4], "", object)}
        inputs |= {name: np.full([size, 3], "", object) for name in ("exclude", "allow", "deny")}
        return {**inputs, "time": np.zeros([size], np.int64)}

    def _told(self, user_id: np.ndarray) -> dict[str, np.ndarray]:
        """What leaves nothing open: of each list some rows hold one, in every mix."""
        recommender, inputs = self.state.recommender, self._request(user_id)
        items, categories = recommender.dataset.catalog.item_id, recommender.filter.names
        for row in range(len(user_id)):
            inputs["history"][row, 1 : 1 + row % 3] = [items[row * 7 % len(items)], "unheard of"][
                : row % 3
            ]
            inputs["exclude"][row, 1:] = np.resize(np.roll(items, -row), 2)
            if categories:
                wish = inputs["deny" if row % 2 else "allow"]
                wish[row, 1] = categories[row // 2 % len(categories)]
        # Another hour each; that of the first is not known.
        return {**inputs, "time": 5 * 3600 * np.arange(len(user_id))}

    def _clear(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The first rows whose scores have no near ties; of all rows when there are none such."""
        score = _answered(self, Example(signature, inputs, {})).outputs["score"]
        rows = _without_near_ties(score)[:NUM_EXAMPLES]
        return {name: value[rows] for name, value in inputs.items()}


def _without_near_ties(score: np.ndarray) -> list[int]:
    """Rows in which no two of the real scores <float32>[row, k] are near; all if there are none."""
    ordered = -np.sort(-score, axis=1)
    gap = np.where(ordered[:, 1:] > LOWEST, ordered[:, :-1] - ordered[:, 1:], np.inf)
    rows = np.flatnonzero(gap.min(axis=1, initial=np.inf) > NEAR)
    return list(rows) or list(range(len(score)))


class EncoderServable(tf.Module):
    """`embed_item` and `search`: raw content in, one input a modality.

    Texts, pictures and sounds come as <string>[batch], "" where absent; ready-made vectors as
    <float32>[batch, dim], zeros where absent.

    Args:
      retrieval: RetrievalModel, trained, with at least one modality.
      item_id: object[item] of str.
      k: int. How many items an answer holds; the catalog may hold fewer.
    """

    name_on_disk = "encoder"

    def __init__(self, retrieval: RetrievalModel, item_id: np.ndarray, *, k: int):
        super().__init__()
        self.modalities = retrieval.modalities
        self.state = types.SimpleNamespace(
            encoders={name: retrieval.encoders[name] for name in self.modalities},
            item_tower=retrieval.item_tower,
        )
        self.resources = [
            *retrieval.item_tower.variables,
            *(v for encoder in self.state.encoders.values() for v in encoder.variables),
        ]
        self.item_id = tf.Variable(item_id.tolist(), trainable=False, name="item_id")
        self.features = {
            name: tf.zeros([1, *table.shape[1:]], table.dtype)
            for name, table in retrieval.tables["item_features"].items()
        }
        # An asked-for item has no id, so the catalog's are compared without theirs.
        content = retrieval.embed_catalog(content_only=True)
        self.index = ExactIndex(content.embedding)
        self.k = min(k, len(item_id))
        specs = []
        for name in self.modalities:
            spec = retrieval.schema.modalities[name]
            if spec.kind == "vector":
                specs.append(tf.TensorSpec([None, spec.dim], tf.float32, name=name))
            else:
                specs.append(tf.TensorSpec([None], tf.string, name=name))
        self.embed_item = tf.function(self._embed_item, input_signature=specs)
        self.search = tf.function(self._search, input_signature=specs)

    def _tower(self, raw):
        present, encoded = [], {}
        for name, value in zip(self.modalities, raw, strict=True):
            encoder = self.state.encoders[name]
            if value.dtype == tf.string:
                present.append(tf.strings.length(value) > 0)
            else:
                # Anything but a number would spread to the whole embedding.
                finite = tf.reduce_all(tf.math.is_finite(value), axis=-1)
                value = tf.where(finite[:, None], value, tf.zeros_like(value))
                present.append(tf.reduce_any(value != 0, axis=-1))
            encoded[name] = encoder(encoder.preprocess(value), training=False)
        batch = tf.shape(raw[0])[0]
        return self.state.item_tower(
            {
                "item": tf.fill([batch], -1),
                "present": tf.stack(present, axis=1),
                "encoded": encoded,
                "features": {n: tf.repeat(v, batch, axis=0) for n, v in self.features.items()},
            }
        )

    def _embed_item(self, *raw):
        output = self._tower(raw)
        return {"embedding": output.embedding, "weights": output.weights}

    def _search(self, *raw):
        score, item = self.index.search(self._tower(raw).embedding, self.k)
        return {"item_id": tf.gather(self.item_id, item), "score": score}

    @property
    def signatures(self) -> dict:
        """The functions by the name under which they are served."""
        return {
            "serving_default": self.embed_item,
            "embed_item": self.embed_item,
            "search": self.search,
        }

    def examples_from(
        self, content: Mapping[str, np.ndarray | Content], present: np.ndarray
    ) -> list[Example]:
        """Some items of the catalog, each modality alone, and one with nothing at all.

        Args:
          content: as `Catalog.content`, of this model's modalities.
          present: <bool>[item, modality].
        """
        rows = np.argsort(-present.sum(axis=1), kind="stable")[:NUM_EXAMPLES]
        inputs = {}
        for column, name in enumerate(self.modalities):
            values = content[name][np.append(rows, np.flatnonzero(present[:, column])[:1])]
            blank = np.array([b""], object) if values.dtype == object else values[:1] * 0
            alone = [
                values[len(rows) :] if column == other else blank
                for other in range(len(self.modalities))
                if present[:, other].any()
            ]
            inputs[name] = np.concatenate([values[: len(rows)], *alone, blank])
        # Of near ties the order may change with the size of a batch: the row farthest from any.
        score = _answered(self, Example("search", inputs, {})).outputs["score"]
        row = int(np.argmax((score[:, :-1] - score[:, 1:]).min(axis=1, initial=np.inf)))
        return [
            _answered(self, Example("embed_item", inputs, {})),
            _answered(
                self, Example("search", {n: v[row : row + 1] for n, v in inputs.items()}, {})
            ),
        ]


def _answered(servable, example: Example) -> Example:
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


def write_warmup(folder: pathlib.Path, servable: str, requests: list[Example]) -> None:
    """Writes requests that TensorFlow Serving replays before it takes a version into use."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    default = requests[0]._replace(signature="serving_default")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in [default, *requests]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = servable
            request.model_spec.signature_name = example.signature
            for name, value in example.inputs.items():
                request.inputs[name].CopyFrom(
                    tf.make_tensor_proto(value.tolist(), shape=value.shape)
                    if value.dtype == object
                    else tf.make_tensor_proto(value)
                )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _write(servable, requests: list[Example], folder: pathlib.Path, version: int) -> None:
    tf.saved_model.save(
        servable,
        str(folder),
        signatures=servable.signatures,
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    write_examples(examples_path(folder), requests, servable=servable.name_on_disk, version=version)
    write_warmup(folder, servable.name_on_disk, requests)
    command = [sys.executable, "-m", "mmrec_tf.verification", str(folder)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    package = str(pathlib.Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(
        [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ExportError(f"{servable.name_on_disk}: {reason[0]}")


def export(
    recommender: Recommender,
    directory: str | pathlib.Path,
    *,
    version: int,
    k: int = 50,
) -> list[pathlib.Path]:
    """Writes `recommender/VERSION` and `encoder/VERSION`, checked, aside and renamed into place.

    Each is reloaded in a fresh process that imports TensorFlow only, and must give the answers
    that this process gives. A model without modalities has no encoder.

    Args:
      recommender: Recommender.
      directory: where the servables stand; may hold earlier versions.
      version: above all versions there, as TensorFlow Serving never loads a number twice.
      k: how many items an answer holds.

    Returns:
      The version folders.

    Raises:
      ConfigError: for a version or a k below 1.
      ExportError: when the version is not above those there, or a check fails; nothing is left.
    """
    if version < 1 or k < 1:
        raise ConfigError(f"export: wanted a version and a k of at least 1; got {version}, {k}.")
    directory = pathlib.Path(directory)
    retrieval, catalog = recommender.retrieval, recommender.dataset.catalog
    servables = [RecommenderServable(recommender, k=k)]
    requests = [servables[0].examples()]
    if retrieval.modalities:
        encoder = EncoderServable(retrieval, catalog.item_id, k=k)
        columns = [list(retrieval.schema.modalities).index(n) for n in retrieval.modalities]
        content = {name: catalog.content[name] for name in retrieval.modalities}
        servables.append(encoder)
        requests.append(encoder.examples_from(content, catalog.present[:, columns]))
    finals = [directory / servable.name_on_disk / str(version) for servable in servables]
    for final in finals:
        taken = [int(path.name) for path in final.parent.glob("*") if path.name.isdigit()]
        if taken and version <= max(taken):
            raise ExportError(
                f"{final.parent}: wanted a version above {max(taken)}, the newest there; "
                f"got {version}. Numbers are never used again."
            )
    asides = [final.with_name(f".{version}.partial-{os.getpid()}") for final in finals]
    try:
        for servable, some, aside in zip(servables, requests, asides, strict=True):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _write(servable, some, aside, version)
        for aside, final in zip(asides, finals, strict=True):
            os.rename(aside, final)
    finally:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)
    return finals
