"""Tiny hand-made SavedModels with the public signatures of an export, for the serving tests."""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from mmrec_tf.exporting.request_examples import Example, examples_path, write_examples
from serving.local_server.models.servable import WARMUP_FILE

NUM_ITEMS = 12
K = 4
STRINGS = tf.TensorSpec([None], tf.string)
LISTS = tf.TensorSpec([None, None], tf.string)
FLOATS = tf.TensorSpec([None], tf.float32)
TIMES = tf.TensorSpec([None], tf.int64)


def spec(like: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(like.shape, like.dtype, name=name)


ABOUT = (spec(STRINGS, "profile"), spec(LISTS, "features"))


def unread(features):
    """Of side features there is the age alone."""
    age = tf.strings.regex_full_match(features, "age=[0-9]+")
    return tf.reduce_any(~age & (features != ""), axis=1)


class Recommender(tf.Module):
    """Scores are a fixed function of user and item, plus the version, so answers tell it."""

    def __init__(self, version: int, mixes_rows: bool = False):
        super().__init__()
        self.ids = tf.constant([f"i{n}" for n in range(NUM_ITEMS)])
        initializer = tf.lookup.KeyValueTensorInitializer(self.ids, tf.range(NUM_ITEMS))
        self.index = tf.lookup.StaticHashTable(initializer, -1)
        self.version = tf.Variable(float(version))
        self.mixes_rows = mixes_rows

    def scores(self, user_id, history, time, profile):
        bucket = tf.cast(tf.strings.to_hash_bucket_fast(user_id, 97), tf.float32)
        scores = tf.sin(bucket[:, None] * tf.range(1.0, NUM_ITEMS + 1)) + self.version
        # Nine o'clock is the hour of i0.
        scores += tf.where((time[:, None] // 3600 % 24 == 9) & (self.ids == "i0"), 9.0, 0.0)
        # A profile is the name of an item that the user likes.
        scores += tf.where(profile[:, None] == self.ids, 7.0, 0.0)
        if self.mixes_rows:
            scores -= tf.reduce_mean(scores, axis=0)
        return tf.where(self.named(history), -10.0, scores)

    def named(self, ids):
        """Which items stand in each row, <bool>[batch, item]."""
        return tf.reduce_any(tf.equal(ids[:, :, None], self.ids), axis=1)

    @tf.function(
        input_signature=[
            spec(STRINGS, "user_id"),
            *(spec(LISTS, name) for name in ("history", "exclude", "allow", "deny")),
            spec(TIMES, "time"),
            *ABOUT,
        ]
    )
    def recommend(self, user_id, history, exclude, allow, deny, time, profile, features):
        """Items are of the category parity=even or of parity=odd, by their number."""
        parity = tf.constant(["parity=even", "parity=odd"] * (NUM_ITEMS // 2))

        def have(categories):
            return tf.reduce_any(tf.equal(categories[:, :, None], parity), axis=1)

        wanted = have(allow) | tf.reduce_all(allow == "", axis=1, keepdims=True)
        real = wanted & ~have(deny) & ~self.named(exclude)
        best = tf.math.top_k(tf.where(real, self.scores(user_id, history, time, profile), -1e9), K)
        real = best.values > -1e9
        blank = tf.fill(tf.shape(real), "")
        last = tf.broadcast_to(history[:, -1:], tf.shape(real))
        return {
            "item_id": tf.where(real, tf.gather(self.ids, best.indices), blank),
            "score": best.values,
            "probability": tf.where(real, tf.sigmoid(best.values), 0.0),
            "modality": tf.where(real & (best.indices % 3 > 0), "text", blank),
            "history_item": tf.where(real, last, blank),
            "unread": unread(features),
        }

    @tf.function(
        input_signature=[
            spec(STRINGS, "user_id"),
            spec(LISTS, "history"),
            spec(LISTS, "item_id"),
            spec(TIMES, "time"),
            *ABOUT,
        ]
    )
    def rank(self, user_id, history, item_id, time, profile, features):
        index = self.index.lookup(item_id)
        scores = self.scores(user_id, history, time, profile)
        found = tf.gather(scores, tf.maximum(index, 0), batch_dims=1)
        score = tf.where(index < 0, -1e9, found)
        probability = tf.where(index < 0, 0.0, tf.sigmoid(score))
        return {"score": score, "probability": probability, "unread": unread(features)}

    @tf.function(input_signature=[spec(STRINGS, "item_id")])
    def similar_items(self, item_id):
        """The nearer by number, the more alike."""
        index = self.index.lookup(item_id)
        apart = tf.cast(tf.abs(index[:, None] - tf.range(NUM_ITEMS)), tf.float32)
        apart = tf.where(apart == 0, 1e9, apart)
        best = tf.math.top_k(tf.where(index[:, None] < 0, -1e9, -apart), K)
        item_id = tf.where(index[:, None] < 0, "", tf.gather(self.ids, best.indices))
        return {"item_id": item_id, "score": best.values}

    def signatures(self):
        return {
            "serving_default": self.recommend,
            "recommend": self.recommend,
            "rank": self.rank,
            "similar_items": self.similar_items,
        }


class Encoder(tf.Module):
    """Takes words and pictures, no sounds."""

    def __init__(self):
        super().__init__()
        self.ids = tf.constant([f"i{n}" for n in range(NUM_ITEMS)])

    @tf.function(input_signature=[spec(STRINGS, "text"), spec(STRINGS, "image")])
    def embed_item(self, text, image):
        lengths = tf.stack([tf.strings.length(text), tf.strings.length(image)], axis=1)
        lengths = tf.cast(lengths, tf.float32)
        weights = lengths / tf.maximum(tf.reduce_sum(lengths, axis=1, keepdims=True), 1.0)
        return {"embedding": tf.concat([lengths, weights], axis=1), "weights": weights}

    @tf.function(input_signature=[spec(STRINGS, "text"), spec(STRINGS, "image")])
    def search(self, text, image):
        lengths = tf.cast(tf.strings.length(text) + tf.strings.length(image), tf.float32)
        best = tf.math.top_k(-tf.abs(lengths[:, None] - tf.range(0.1, NUM_ITEMS)), K)
        return {"item_id": tf.gather(self.ids, best.indices), "score": best.values}

    def signatures(self):
        return {
            "serving_default": self.embed_item,
            "embed_item": self.embed_item,
            "search": self.search,
        }


class Table(tf.Module):
    """One signature for each kind of request that is answered or refused."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="feat"),
            tf.TensorSpec([None], tf.int64, name="id"),
            tf.TensorSpec([None], tf.string, name="name"),
        ]
    )
    def three(self, feat, id, name):
        neg = -tf.reduce_sum(feat, axis=1)
        return {"y": tf.cast(id, tf.float32) - neg, "neg": neg, "echo_bytes": name}

    @tf.function(input_signature=[spec(FLOATS, "x"), spec(FLOATS, "z")])
    def add(self, x, z):
        return {"y": x + z}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def same(self, x):
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[spec(STRINGS, "s")])
    def echo(self, s):
        return {"t": tf.identity(s)}

    @tf.function(input_signature=[spec(FLOATS, "x")])
    def half(self, x):
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[spec(FLOATS, "x")])
    def total(self, x):
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[spec(FLOATS, "x")])
    def uneven(self, x):
        return {"a": x, "b": x[:1]}

    @tf.function(input_signature=[spec(STRINGS, "s")])
    def refuse(self, s):
        with tf.control_dependencies([tf.debugging.Assert(tf.size(s) > 99, [s], summarize=99)]):
            return {"t": tf.identity(s)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="n")])
    def count(self, n):
        return {"big": tf.cast(n, tf.int64) * 3_000_000_000, "even": tf.equal(n % 2, 0)}

    def signatures(self):
        names = "three add same echo half total uneven refuse count".split()
        return {"serving_default": self.same, **{name: getattr(self, name) for name in names}}


class Gate(tf.Module):
    """Answers its version when a file exists, so a test holds a request for as long as it likes."""

    def __init__(self, version: int):
        super().__init__()
        self.version = tf.Variable(version)

    @tf.function(input_signature=[spec(STRINGS, "path")])
    def wait(self, path):
        def is_closed(_):
            return tf.size(tf.io.matching_files(path)) == 0

        tries = tf.while_loop(is_closed, lambda tries: (tries + 1,), [tf.constant(0)])[0]
        with tf.control_dependencies([tries]):
            return {"version": tf.fill(tf.shape(path), tf.identity(self.version))}

    def signatures(self):
        return {"serving_default": self.wait}


def save(module: tf.Module, folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder` whole, as an exporter does: beside it first, then renamed."""
    aside = folder.with_name(f".{folder.name}-writing")
    tf.saved_model.save(module, str(aside), signatures=module.signatures())
    os.rename(aside, folder)
    return folder


def strings(*values) -> np.ndarray:
    return np.array(values, dtype=object)


def warm_up(folder: pathlib.Path, requests: list[Example]) -> None:
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            predict = predict_pb2.PredictRequest()
            predict.model_spec.signature_name = request.signature
            for name, array in request.inputs.items():
                predict.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=predict)
            )
            writer.write(log.SerializeToString())


REQUESTS = {
    "recommender": [
        (
            "recommend",
            {
                "user_id": strings(b"u1", b"u2", b"u3"),
                "history": strings([b"", b"i1"], [b"", b"i2"], [b"", b""]),
                "exclude": strings([b"", b"i7"], [b"", b""], [b"", b""]),
                "allow": strings([b"", b""], [b"", b"parity=odd"], [b"", b""]),
                "deny": strings([b""], [b""], [b"parity=odd"]),
                "time": np.array([0, 9 * 3600, 9 * 3600], np.int64),
                "profile": strings(b"", b"i3", b""),
                "features": strings([b"", b""], [b"", b"age=31"], [b"", b""]),
            },
        ),
        (
            "rank",
            {
                "user_id": strings(b"u1", b"u2"),
                "history": strings([b"", b"i1"], [b"", b""]),
                "item_id": strings([b"i1", b"i5", b"i7"], [b"i0", b"nope", b"i3"]),
                "time": np.zeros([2], np.int64),
                "profile": strings(b"", b"i3"),
                "features": strings([b""], [b""]),
            },
        ),
        ("similar_items", {"item_id": strings(b"i3", b"nope")}),
    ],
    "encoder": [
        ("embed_item", {"text": strings(b"robin", b""), "image": strings(b"", b"\xff\x00\xd8")}),
        ("search", {"text": strings(b"robin"), "image": strings(b"")}),
    ],
}


def export(
    root: pathlib.Path, name: str, version: int, module: tf.Module, **changes
) -> pathlib.Path:
    """Writes a servable with examples and warm-up; `changes` replaces answers, for broken ones."""
    folder = root / name / str(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{version}-whole")
    save(module, aside)
    answers = []
    for signature, inputs in REQUESTS[name]:
        outputs = getattr(module, signature)(**{k: tf.constant(v) for k, v in inputs.items()})
        outputs = {key: value.numpy() for key, value in outputs.items()}
        outputs.update({k: v for k, v in changes.items() if k in outputs})
        answers.append(Example(signature, inputs, outputs))
    write_examples(examples_path(aside), answers, servable=name, version=version)
    warm_up(aside, [*answers, answers[0]._replace(signature="")])
    os.rename(aside, folder)
    return folder


def copy(folder: pathlib.Path, version: int) -> pathlib.Path:
    """Publishes a version that holds the same model."""
    aside = folder.with_name(f".{version}-copy")
    shutil.copytree(folder, aside)
    os.rename(aside, folder.with_name(str(version)))
    return folder.with_name(str(version))
