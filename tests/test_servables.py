"""The export: what is served answers as Python does, with TensorFlow's own operations only."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import small_world
import tensorflow as tf
from small_world import COLD, NUM_ITEMS, NUM_USERS, build_retrieval, item_id, user_id
from tensorflow.python.framework import op_def_registry
from tensorflow_serving.apis import prediction_log_pb2

from mmrec_tf import Recommendations, Recommender, export, servables
from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.examples import Example, examples_path, read_examples, write_examples
from mmrec_tf.index import LOWEST
from mmrec_tf.servables import WARMUP_FILE, EncoderServable, RecommenderServable
from mmrec_tf.verification import read_ops, verify

K = 5
NAMES = ("recommender", "encoder")


@pytest.fixture(scope="module")
def loaded(exported):
    return {name: tf.saved_model.load(str(exported / name / "1")) for name in NAMES}


@pytest.fixture(scope="module")
def vectors(dataset):
    """A recommender whose export takes seconds."""
    return Recommender(build_retrieval(dataset, item__features=False), None, dataset)


def strings(values):
    return tf.constant(values, tf.string)


def ask(model, signature, **inputs):
    inputs = {
        name: value if isinstance(value, np.ndarray) and value.dtype != object else strings(value)
        for name, value in inputs.items()
    }
    return {
        name: value.numpy()
        for name, value in model.signatures[signature](
            **{name: tf.convert_to_tensor(value) for name, value in inputs.items()}
        ).items()
    }


def decoded(ids):
    return [[value.decode() for value in row] for row in ids]


def contents(dataset, rows=slice(None)):
    return {
        name: value[rows].tolist() if value.dtype == object else value[rows]
        for name, value in dataset.catalog.content.items()
    }


# What lies on disk


@pytest.mark.parametrize("name", NAMES)
def test_a_version_holds_model_examples_and_warm_up(exported, name):
    folder = exported / name / "1"
    assert {path.name for path in exported.iterdir()} == set(NAMES)
    assert [path.name for path in (exported / name).iterdir()] == ["1"]
    assert (folder / "saved_model.pb").is_file() and (folder / "variables").is_dir()
    examples = read_examples(examples_path(folder))
    assert (examples.servable, examples.version) == (name, 1)
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE))
    ]
    requests = [log.predict_log.request for log in logs]
    model = tf.saved_model.load(str(folder))
    signatures = {request.model_spec.signature_name for request in requests}
    assert signatures == set(model.signatures)
    assert {example.signature for example in examples.requests} == signatures - {"serving_default"}


@pytest.mark.parametrize("name", NAMES)
def test_all_operations_are_tensorflow_s_own(exported, name):
    ops = read_ops(exported / name / "1")
    assert {"MatMul", "ReadVariableOp"} <= ops
    assert not [op for op in ops if op_def_registry.get(op) is None]
    # TF Text, tensorflow-io and others register theirs in this process, and mark them so.
    assert not [op for op in ops if ">" in op]
    assert not [op for op in ops if "PyFunc" in op or "Random" in op or "Save" in op[1:]]
    assert not [op for op in ops if op.startswith(("Wordpiece", "Normalize", "Regex", "Sentence"))]


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_batch_first(loaded, name):
    for signature in loaded[name].signatures.values():
        inputs = signature.structured_input_signature[1]
        for spec in [*inputs.values(), *signature.structured_outputs.values()]:
            assert spec.shape.rank and spec.shape[0] is None
            assert spec.dtype in (tf.string, tf.float32)


def test_names_are_public(loaded):
    def names(model):
        return {
            key: (set(signature.structured_input_signature[1]), set(signature.structured_outputs))
            for key, signature in model.signatures.items()
        }

    who, answer = {"user_id", "history"}, {"item_id", "score"}
    assert names(loaded["recommender"]) == {
        "serving_default": (who, answer),
        "recommend": (who, answer),
        "rank": (who | {"item_id"}, {"score"}),
    }
    content, placed = set(small_world.MODALITIES), {"embedding", "weights"}
    assert names(loaded["encoder"]) == {
        "serving_default": (content, placed),
        "embed_item": (content, placed),
        "search": (content, answer),
    }


def test_the_recommender_carries_no_encoder(dataset):
    """Published in seconds: its weights are those of user tower, index and ranking."""
    retrieval = build_retrieval(dataset, modalities=["audio"], audio__trainable_layers=-1)
    recommender = Recommender(retrieval, None, dataset)
    held = {id(v) for v in RecommenderServable(recommender, k=K).variables}
    for part in (retrieval.encoders["audio"], retrieval.item_tower):
        assert not held & {id(variable) for variable in part.variables}
    assert held >= {id(variable) for variable in retrieval.user_tower.variables}


# What it answers


def test_recommend_answers_as_python_does(run, loaded):
    users = [*(user_id(user) for user in range(NUM_USERS)), "nobody"]
    histories = [[], ["i3"], ["i1", "unheard of", "i2", "i4", "i8", "i9"]]
    history = [histories[n % 3] for n in range(len(users))]
    want = run.recommender().recommend(users, history=history, k=K)
    width = max(map(len, history))
    padded = [row + [""] * (width - len(row)) for row in history]
    got = ask(loaded["recommender"], "recommend", user_id=users, history=padded)
    # As server batching fills short ones up: with the first element, where there is one.
    filled = [row + row[:1] * (width - len(row)) if row else [""] * width for row in history]
    also = ask(loaded["recommender"], "serving_default", user_id=users, history=filled)
    for answer in (got, also):
        ids = np.array(decoded(answer["item_id"]), object)
        small_world.assert_same(Recommendations(ids, answer["score"]), want)


def test_rows_of_any_number_stand_alone(run, loaded):
    users = [user_id(user) for user in range(6)]
    history = [["i1", "i2"]] * 6
    together = ask(loaded["recommender"], "recommend", user_id=users, history=history)
    for part in (slice(0, 0), slice(2, 3), slice(1, 6)):
        size = len(users[part])
        alone = ask(
            loaded["recommender"],
            "recommend",
            user_id=users[part],
            history=np.array(history[part], object).reshape(size, 2),
        )
        assert alone["item_id"].shape == (size, K)
        assert (alone["item_id"] == together["item_id"][part]).all()
        np.testing.assert_allclose(alone["score"], together["score"][part], rtol=1e-4, atol=1e-4)


def test_rank_answers_as_recommend_does(loaded):
    users, history = [user_id(2), "nobody"], [["", ""], ["i5", "i6"]]
    best = ask(loaded["recommender"], "recommend", user_id=users, history=history)
    asked = [[*row[::-1], b"unheard of"] for row in best["item_id"]]
    score = ask(loaded["recommender"], "rank", user_id=users, history=history, item_id=asked)[
        "score"
    ]
    np.testing.assert_allclose(score[:, :K], best["score"][:, ::-1], rtol=1e-4, atol=1e-4)
    assert (score[:, K] == LOWEST).all()


def test_raw_content_is_encoded_as_in_training(run, dataset, loaded):
    """The vectors that training read, cached, against the bytes through the exported graph."""
    retrieval, rows = run.retrieval, np.arange(NUM_ITEMS)
    features = {
        name: tf.zeros_like(value) for name, value in retrieval.tables["item_features"].items()
    }
    content, present = retrieval.tables["content"], retrieval.tables["present"]

    def want(shown):
        """Of items without id and side features, with some modalities shown."""
        return retrieval.item_tower(
            {
                "item": tf.fill([NUM_ITEMS], -1),
                "present": present & shown,
                "encoded": content,
                "features": features,
            }
        )

    for only in (*range(4), None):
        shown = np.arange(4) == only if only is not None else np.ones([4], bool)
        raw = contents(dataset, rows)
        for column, name in enumerate(small_world.MODALITIES):
            if not shown[column]:
                raw[name] = np.zeros([30, 6], np.float32) if name == "vector" else [b""] * 30
        got = ask(loaded["encoder"], "embed_item", **raw)
        expected = want(shown[None, :])
        np.testing.assert_allclose(got["embedding"], expected.embedding, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got["weights"], expected.weights, rtol=1e-3, atol=1e-4)
        some = expected.present.numpy().any(axis=1)
        assert np.ptp(got["embedding"][some], axis=0).max() > 0.01


def test_nothing_at_all_is_answered(loaded):
    raw = {name: [b""] for name in ("text", "image", "audio")}
    raw["vector"] = np.zeros([1, 6], np.float32)
    answer = ask(loaded["encoder"], "embed_item", **raw)
    assert np.isfinite(answer["embedding"]).all() and not answer["weights"].any()
    assert np.isfinite(ask(loaded["encoder"], "search", **raw)["score"]).all()


def test_an_item_is_found_by_its_own_content(vectors, dataset):
    """Cold ones too; with the content of one, another is at best as near."""
    servable = EncoderServable(vectors.retrieval, dataset.catalog.item_id, k=3)
    rows = [1, 9, COLD[0], COLD[2]]
    answer = servable.search(dataset.catalog.content["vector"][rows])
    assert [row[0] for row in decoded(answer["item_id"].numpy())] == [item_id(n) for n in rows]
    np.testing.assert_allclose(answer["score"].numpy()[:, 0], 1, atol=1e-4)


ALONE = """
import json, sys
import tensorflow as tf
for path, inputs in json.load(sys.stdin):
    model = tf.saved_model.load(path)
    answer = model.signatures["serving_default"](**{k: tf.constant(v) for k, v in inputs.items()})
    print(json.dumps([value.numpy().shape for _, value in sorted(answer.items())]))
others = ("tf_keras", "mmrec_tf", "tensorflow_text", "tensorflow_io", "transformers")
print([name for name in others if name in sys.modules])
"""


def test_a_process_with_tensorflow_alone_can_run_it(exported, tmp_path):
    requests = [
        (str(exported / "recommender/1"), {"user_id": ["u1"], "history": [["i1"]]}),
        (
            str(exported / "encoder/1"),
            {"text": ["owl"], "image": [""], "audio": [""], "vector": [[0.0] * 6]},
        ),
    ]
    ours = ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        input=json.dumps(requests),
        cwd=tmp_path,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["[[1, 5], [1, 5]]", "[[1, 8], [1, 4]]", "[]"]


# Models of other kinds


def test_an_answer_holds_at_most_the_catalog(vectors):
    servable = RecommenderServable(vectors, k=1000)
    answer = servable.recommend(strings(["u1"]), strings([[""]]))
    assert answer["item_id"].shape == (1, NUM_ITEMS)
    assert answer["item_id"].numpy()[0, -1] == b"" and answer["score"].numpy()[0, -1] == LOWEST


# What is refused


@pytest.mark.parametrize("version", [1, 3])
def test_a_version_must_be_above_all_there(vectors, tmp_path, version):
    (tmp_path / "encoder/3").mkdir(parents=True)
    with pytest.raises(ExportError, match=f"wanted a version above 3, .* got {version}"):
        export(vectors, tmp_path, version=version)
    assert not (tmp_path / "recommender").exists()


@pytest.mark.parametrize("wrong", [{"version": 0}, {"version": 1, "k": 0}])
def test_wrong_numbers_are_refused(vectors, tmp_path, wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        export(vectors, tmp_path / "export", **wrong)
    assert not (tmp_path / "export").exists()


def test_a_wrong_answer_is_noticed_and_nothing_is_left(vectors, tmp_path, monkeypatch):
    """The encoder's examples say otherwise than it does; the recommender, written before, goes
    with it."""
    (tmp_path / "recommender/1").mkdir(parents=True)
    honest = servables._answered

    def lie(servable, example):
        answer = honest(servable, example)
        if servable.name_on_disk == "encoder" and "score" in answer.outputs:
            return answer._replace(outputs={**answer.outputs, "score": answer.outputs["score"] + 1})
        return answer

    monkeypatch.setattr(servables, "_answered", lie)
    with pytest.raises(ExportError, match="encoder: .*answers example .*score differs"):
        export(vectors, tmp_path, version=2)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set()
    assert [path.name for path in (tmp_path / "recommender").iterdir()] == ["1"]


def save(folder, function, answer, *, signature="double"):
    """A SavedModel of one function of x, with an example."""
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"y": function(x)}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder), signatures={signature: module.call})
    example = Example(
        signature, {"x": np.array([1, 2], np.float32)}, {"y": np.array(answer, np.float32)}
    )
    write_examples(examples_path(folder), [example], servable="toy", version=1)
    return folder


def test_verification_replays_the_examples(tmp_path):
    ops = verify(save(tmp_path / "good", lambda x: 2 * x, [2, 4]))
    assert "Mul" in ops and ops == sorted(ops)
    with pytest.raises(ExportError, match=r"example 0 \(double\) .*y differs at 1 of 2"):
        verify(save(tmp_path / "bad", lambda x: 2 * x, [2, 5]))


def test_verification_refuses_what_calls_back_into_python(tmp_path):
    def through_numpy(x):
        return tf.ensure_shape(tf.numpy_function(lambda v: 2 * v, [x], tf.float32), [None])

    folder = save(tmp_path / "numpy", through_numpy, [2, 4])
    with pytest.raises(ExportError, match="wanted ops of TensorFlow only; got PyFunc"):
        verify(folder)


def test_numbers_that_are_none_count_as_absent(vectors):
    """Else one NaN would spread over the embedding, which REST could not even write."""
    servable = EncoderServable(vectors.retrieval, vectors.dataset.catalog.item_id, k=K)
    rows = np.array([[np.nan] * 6, [0] * 6, [1, 2, 3, np.inf, 5, 6]], np.float32)
    embedding = servable.embed_item(tf.constant(rows))["embedding"].numpy()
    assert np.isfinite(embedding).all()
    np.testing.assert_array_equal(embedding[0], embedding[1])
    np.testing.assert_array_equal(embedding[2], embedding[1])


def test_examples_of_a_catalog_smaller_than_they_are_long(vectors, monkeypatch):
    few = vectors.dataset.catalog._replace(item_id=vectors.dataset.catalog.item_id[:3])
    monkeypatch.setattr(vectors.dataset, "catalog", few)
    requests = RecommenderServable(vectors, k=K).examples()
    assert requests[1].inputs["item_id"].shape[1] == 5


def test_the_table_of_profiles_is_a_variable(run, exported):
    """As a constant it would swell the graph, which may hold 2 GB at most."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((exported / "recommender/1/saved_model.pb").read_bytes())
    library = saved.meta_graphs[0].graph_def.library
    users = run.schema.num_users
    shapes = [
        [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]
        for function in library.function
        for node in function.node_def
        if node.op == "Const"
    ]
    assert not [shape for shape in shapes if len(shape) == 2 and shape[0] == users]
