"""The export: what is served answers as Python does, with TensorFlow's own operations only."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import (
    COLD,
    NUM_ITEMS,
    NUM_USERS,
    build_recommender,
    build_retrieval,
    item_id,
    user_id,
)
from tensorflow.python.framework import op_def_registry
from tensorflow_serving.apis import prediction_log_pb2

from mmrec_tf import Recommendations, Recommender, export
from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.exporting import servables
from mmrec_tf.exporting import verify as verification
from mmrec_tf.exporting.allowed_ops import read_ops
from mmrec_tf.exporting.publish import TAKEN_FILE, WARMUP_FILE
from mmrec_tf.exporting.request_examples import (
    Example,
    compare,
    examples_path,
    read_examples,
    write_examples,
)
from mmrec_tf.exporting.servables import EncoderServable, RecommenderServable
from mmrec_tf.exporting.verify import in_session, verify
from mmrec_tf.schema import LOWEST_SCORE

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
    tensors = {}
    for name, value in inputs.items():
        number = isinstance(value, np.ndarray) and value.dtype != object
        tensors[name] = tf.constant(value) if number else strings(value)
    return {n: value.numpy() for n, value in model.signatures[signature](**tensors).items()}


def padded(rows, *, lead=False):
    """Lists as a table, with "" behind, and in front too as the client sends them."""
    rows = [[""] * lead + list(row) for row in rows]
    width = max(map(len, rows), default=0)
    table = np.full([len(rows), width], "", object)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def silent(size):
    """No profile and no side features, as inputs of a signature."""
    return {"profile": [""] * size, "features": np.full([size, 1], "", object)}


def recommended(
    model, users, *, time=None, profile=None, lead=False, signature="recommend", **lists
):
    """What a SavedModel recommends, by the arguments of `Recommender.recommend`."""
    empty = [[]] * len(users)
    inputs = {
        name: padded(lists.get(name) or empty, lead=lead)
        for name in ("history", "exclude", "allow", "deny", "features")
    }
    time = np.array(time or [0] * len(users), np.int64)
    inputs = {n: tf.constant(v.tolist(), tf.string, shape=v.shape) for n, v in inputs.items()}
    answer = model.signatures[signature](
        user_id=tf.constant(users, tf.string, shape=[len(users)]),
        time=tf.constant(time),
        profile=tf.constant(profile or [""] * len(users), tf.string, shape=[len(users)]),
        **inputs,
    )
    assert not answer.pop("unread").numpy().any()
    parts = {}
    for name, value in answer.items():
        parts[name] = value.numpy()
        if value.dtype == tf.string:
            parts[name] = np.array(decoded(parts[name]), object).reshape(value.shape)
    return Recommendations(**parts)


def assert_equal(got, want):
    """To the last bit."""
    for name, value in want._asdict().items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)


def decoded(ids):
    return [[value.decode() for value in row] for row in ids]


def arrays(answer):
    """What an answer holds; of what the model does not answer there is nothing."""
    return {name: value for name, value in answer._asdict().items() if value is not None}


def contents(dataset, rows=slice(None)):
    """Lists of one value each, as inputs of the encoder."""
    return {
        name: value[rows][:, None].tolist() if value.dtype == object else value[rows][:, None]
        for name, value in dataset.catalog.content.items()
    }


def test_nobody_is_shown_what_they_have(loaded, dataset):
    """Of any split, without a history in the request and with one."""
    users, items = dataset.users.user_id.tolist(), dataset.catalog.item_id
    known = dataset.known_interactions("all")
    has = {(users[u], items[i]) for u, i in zip(known.user, known.item, strict=True)}
    for history in ([[]] * len(users), [["i1", "i2"]] * len(users)):
        shown = recommended(loaded["recommender"], users, history=history).item_id
        assert (shown != "").all()
        again = {(user, item) for user, row in zip(users, shown, strict=True) for item in row}
        assert not again & has


# What lies on disk


@pytest.mark.parametrize("name", NAMES)
def test_a_version_holds_model_examples_and_warm_up(exported, name):
    folder = exported / name / "1"
    assert {path.name for path in exported.iterdir()} == set(NAMES)
    assert {path.name for path in (exported / name).iterdir()} == {"1", TAKEN_FILE}
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
    assert_core(read_ops(exported / name / "1"))


def assert_core(ops):
    assert {"MatMul", "ReadVariableOp"} <= ops
    assert not [op for op in ops if op_def_registry.get(op) is None]
    # TF Text, tensorflow-io and others register theirs in this process, and mark them so.
    assert not [op for op in ops if ">" in op]
    assert not [op for op in ops if "PyFunc" in op or "Random" in op or "Save" in op[1:]]
    assert not [op for op in ops if op.startswith(("Wordpiece", "Normalize", "Regex", "Sentence"))]


@pytest.mark.parametrize("name", NAMES)
def test_limits_hold_in_a_session(exported, name):
    """What optimizes the whole graph must not take the checks for dead code."""
    folder = exported / name / "1"
    run = in_session(folder)
    for example in read_examples(examples_path(folder)).requests:
        many = {key: np.resize(v, (2000, *v.shape[1:])) for key, v in example.inputs.items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match="wanted at most .* rows"):
            run(example._replace(inputs=many))


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_batch_first(loaded, name):
    for signature in loaded[name].signatures.values():
        inputs = signature.structured_input_signature[1]
        for spec in [*inputs.values(), *signature.structured_outputs.values()]:
            assert spec.shape.rank and spec.shape[0] is None
            numbers = (tf.int64,) if spec.name == "time" else (tf.string, tf.float32, tf.bool)
            assert spec.dtype in numbers


def test_names_are_public(loaded):
    def names(model):
        return {
            key: (set(signature.structured_input_signature[1]), set(signature.structured_outputs))
            for key, signature in model.signatures.items()
        }

    who = {"user_id", "history", "time", "profile", "features"}
    answer = {"item_id", "score"}
    asked = who | {"exclude", "allow", "deny"}
    told = answer | {"probability", "modality", "history_item", "unread"}
    assert names(loaded["recommender"]) == {
        "serving_default": (asked, told),
        "recommend": (asked, told),
        "rank": (who | {"item_id"}, {"score", "probability", "unread"}),
        "similar_items": ({"item_id"}, answer),
        "embed_user": (who - {"time"}, {"embedding", "known", "unread"}),
        "rank_new": (
            {"user_id", "history", "time", "embedding", "features"}
            | {"modalities", "present", "weights"},
            told - {"item_id"},
        ),
    }
    content = set(small_world.MODALITIES)
    placed = {"embedding", "modalities", "weights", "present", "unreadable"}
    item = (content | {"features"}, placed | {"unread"})
    assert names(loaded["encoder"]) == {
        "serving_default": item,
        "embed_item": item,
        "search": (content, answer | {"unreadable"}),
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


def test_an_export_answers_as_its_run_does(run, loaded):
    recommender = run.recommender()
    for kind in (dict, some_history, some_times):
        asked = kind()
        got = recommended(loaded["recommender"], USERS, **asked)
        small_world.assert_same(got, recommender.recommend(USERS, **asked, k=K))
    default = recommended(loaded["recommender"], USERS, signature="serving_default", **asked)
    assert_equal(default, got)


def test_how_a_batching_server_fills_lists_up_changes_nothing(loaded):
    """With the first element of each request's tensor, which a client makes an empty one."""
    asked = everything()
    want = recommended(loaded["recommender"], USERS, **asked)
    assert_equal(recommended(loaded["recommender"], USERS, lead=True, **asked), want)
    # Of others that do not, no more than histories come through.
    histories = some_history()["history"]
    width = max(map(len, histories))
    filled = [row + row[:1] * (width - len(row)) for row in histories]
    want = recommended(loaded["recommender"], USERS, history=histories)
    assert_equal(recommended(loaded["recommender"], USERS, history=filled), want)


def test_rows_of_any_number_stand_alone(loaded):
    users = [user_id(user) for user in range(6)]
    asked = {
        "history": [["i1", "i2"]] * 6,
        "allow": [["genre=day"], [], [], [], ["genre=night"], []],
        "deny": [[], ["genre=day"], [], [], [], []],
        "time": [5000 * row for row in range(6)],
    }
    together = recommended(loaded["recommender"], users, **asked)
    for part in (slice(0, 0), slice(2, 3), slice(1, 6)):
        alone = recommended(
            loaded["recommender"],
            users[part],
            **{name: value[part] for name, value in asked.items()},
        )
        assert alone.item_id.shape == (len(users[part]), K)
        for name, value in arrays(alone).items():
            want = getattr(together, name)[part]
            if value.dtype == object:
                np.testing.assert_array_equal(value, want)
            else:
                np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-4)


def test_rank_answers_as_recommend_does(loaded):
    users, history = [user_id(2), "nobody"], [[], ["i5", "i6"]]
    best = recommended(loaded["recommender"], users, history=history)
    asked = [[*row[::-1], "unheard of", ""] for row in best.item_id]
    answer = ask(
        loaded["recommender"],
        "rank",
        user_id=users,
        history=padded(history).tolist(),
        item_id=asked,
        time=np.zeros([2], np.int64),
        **silent(2),
    )
    for name in ("score", "probability"):
        want = getattr(best, name)[:, ::-1]
        np.testing.assert_allclose(answer[name][:, :K], want, rtol=1e-4, atol=1e-4)
    assert (answer["score"][:, K:] == LOWEST_SCORE).all() and not answer["probability"][:, K:].any()


# To the last bit


def some_history():
    """None, one, and a long one with an unknown item and one that comes twice."""
    rows = [[], ["i3"], ["i1", "unheard of", "i2", "i4", "i2", "i8", "i9"], ["unheard of"]]
    return {"history": [rows[n % 4] for n in range(len(USERS))]}


def some_excluded():
    rows = [["i3", "i4"], [], ["unheard of", "", "i0", "i0"], [item_id(n) for n in range(28)]]
    return {"exclude": [rows[n % 4] for n in range(len(USERS))]}


def some_allowed():
    rows = [["genre=day"], [], ["genre=opera"], ["", "genre=night", "genre=opera"]]
    return {"allow": [rows[n % 4] for n in range(len(USERS))]}


def some_denied():
    rows = [["genre=day"], [], ["genre=opera"], ["genre=night", "genre=night", "genre=day"]]
    return {"deny": [rows[n % 4] for n in range(len(USERS))]}


def some_times():
    return {"time": [n % 3 * 3600 * (n + 1) for n in range(len(USERS))]}


def some_features():
    rows = [["age=0.5"], [], ["", "age=-2"], ["age=1", "age=3"]]
    return {"features": [rows[n % 4] for n in range(len(USERS))]}


def everything():
    parts = {}
    for place, kind in enumerate(
        (some_history, some_excluded, some_allowed, some_denied, some_times, some_features)
    ):
        for name, rows in kind().items():
            # Each list's kinds of rows beside others of the rest.
            parts[name] = [rows[n // 3**place % len(rows)] for n in range(len(USERS))]
    return parts


# Python refuses categories that it does not know; a request that holds some is answered.
UNKNOWN = "genre=opera"
USERS = [*(user_id(user) for user in range(NUM_USERS)), "nobody", "a stranger"]
REQUESTS = {
    "plain": dict,
    "history": some_history,
    "exclude": some_excluded,
    "allow": some_allowed,
    "deny": some_denied,
    "time": some_times,
    "features": some_features,
    "everything": everything,
}


def tie(recommender):
    """Makes items alike by fives, in all that a model knows of them."""
    leader = np.arange(NUM_ITEMS) // 5 * 5
    tables = [v for v in recommender.items.values() if not isinstance(v, dict)]
    for table in [*tables, *recommender.items["features"].values()]:
        table.assign(tf.gather(table, leader))
    return recommender


WITHDRAWN = ("i0", "i7", "i27")
KINDS = {
    # name: whether the dataset has ratings and types of events, and arguments of `build`.
    "ranking": (False, {"recommender__popular_diversity": 0.0}),
    "retrieval": (False, {"ranking": False, "unavailable": WITHDRAWN}),
    "diverse": (
        False,
        {
            "recommender__diversity": 0.4,
            "recommender__popular_diversity": 0.6,
            "recommender__popularity_dampening": 0.3,
            "user__history": "attention",
            "user__interests": 2,
            "ranking__signals": ["neighbors", "recency", "modalities", "co_occurrence", "trend"],
            "unavailable": WITHDRAWN,
        },
    ),
    "tasks": (
        True,
        {
            "user__history": "gru",
            "user__time_gaps": True,
            "retrieval__disliked_below": 3.0,
            "ranking__target_attention": True,
            "ranking__fine_tune": True,
            "ranking__context": ["hour", "weekday"],
            "ranking__tasks": ["click", "rating", "buy"],
            "ranking__score_weights": [1.0, 0.5, 0.2],
            "ranking__sharing": "mmoe",
            "ranking__num_experts": 2,
            "ranking__loss": "binary",
            "calibration": Calibration("isotonic", knots=((-2.0, 0.1), (0.0, 0.3), (3.0, 0.9))),
        },
    ),
    "tied retrieval": (False, {"ranking": False, "recommender__popular_diversity": 0.0}),
    "tied and diverse": (False, {"recommender__diversity": 0.4}),
}


@pytest.fixture(
    scope="module",
    params=[
        # Ranking is in "tasks" as well, without ranking is "tied retrieval", without some items and
        # with diversity is "diverse".
        kind
        if kind in ("diverse", "tasks", "tied retrieval")
        else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def both(request, dataset, labeled, tmp_path_factory):
    """A recommender of one kind, and what its SavedModel reads back as."""
    with_labels, arguments = KINDS[request.param]
    recommender = build_recommender(labeled if with_labels else dataset, **arguments)
    if request.param.startswith("tied"):
        tie(recommender)
    folder = tmp_path_factory.mktemp("both")
    servable = RecommenderServable(recommender, k=K)
    tf.saved_model.save(servable, str(folder), signatures=servable.signatures)
    return request.param, recommender, tf.saved_model.load(str(folder)), folder


def known(asked):
    """A request without categories that Python refuses, which leave none to show."""
    return {
        name: [[c for c in row if c != UNKNOWN] for row in rows]
        if name in ("allow", "deny")
        else rows
        for name, rows in asked.items()
    }


@pytest.mark.parametrize("kind", REQUESTS)
def test_recommend_answers_every_user_as_python_does(both, kind):
    _, recommender, model, _ = both
    asked = known(REQUESTS[kind]())
    want = recommender.recommend(USERS, **asked, k=K)
    assert_equal(recommended(model, USERS, **asked), want)
    assert (want.item_id != "").mean() > 0.4


def test_unknown_categories_are_nobody_s(both):
    _, _, model, _ = both
    got = recommended(model, USERS, **some_allowed())
    only = np.arange(len(USERS)) % 4 == 2
    assert (got.item_id[only] == "").all() and (got.score[only] == LOWEST_SCORE).all()
    assert not got.probability[only].any() and (got.modality[only] == "").all()
    want = recommended(model, USERS, **known(some_allowed()))
    for name, value in arrays(want).items():
        np.testing.assert_array_equal(getattr(got, name)[~only], value[~only])


def test_similar_items_answers_as_python_does(both):
    kind, recommender, model, _ = both
    asked = [*(item_id(item) for item in range(NUM_ITEMS)), "unheard of", ""]
    want = recommender.similar_items(asked, k=K)
    got = ask(model, "similar_items", item_id=asked)
    np.testing.assert_array_equal(decoded(got["item_id"]), want.item_id)
    np.testing.assert_array_equal(got["score"], want.score)
    assert (want.item_id[-2:] == "").all() and (want.score[-2:] == LOWEST_SCORE).all()
    for item, found in zip(asked[:-2], want.item_id[:-2], strict=True):
        assert item not in found and "" not in found
        if kind in ("retrieval", "diverse"):
            assert not {*WITHDRAWN} & {*found}


def test_withdrawn_items_are_never_shown_but_ranked(both):
    kind, _, model, _ = both
    shown = {
        item
        for asked in REQUESTS.values()
        for item in recommended(model, USERS, **asked()).item_id.ravel()
    }
    withdrawn = kind in ("retrieval", "diverse")
    assert bool({*WITHDRAWN} & shown) != withdrawn
    answer = ask(
        model,
        "rank",
        user_id=["nobody"],
        history=[["i0"]],
        item_id=[[*WITHDRAWN]],
        time=np.zeros([1], np.int64),
        **silent(1),
    )
    assert (answer["score"] > LOWEST_SCORE).all() and (answer["probability"] > 0).all()


def test_the_ops_of_every_kind_are_core(both):
    ops = read_ops(both[3])
    assert_core(ops)
    assert {"SparseTensorDenseMatMul", "TopKV2", "LookupTableFindV2"} <= ops


def test_ties_do_occur_and_stand_by_number(both):
    kind, _, model, _ = both
    answer = recommended(model, USERS)
    number = {item_id(item): item for item in range(NUM_ITEMS)}
    items = np.vectorize(number.get)(answer.item_id)
    tied = answer.score[:, 1:] == answer.score[:, :-1]
    # Of nobody all that is known is what is popular, which several items are alike.
    assert tied[-2:].any()
    assert tied[:-2].mean() > 0.3 or not kind.startswith("tied")
    if kind in ("ranking", "tied retrieval"):
        assert not (tied & (items[:, 1:] < items[:, :-1])).any()


def test_the_examples_of_every_kind_are_answered(both):
    _, recommender, model, _ = both
    examples = RecommenderServable(recommender, k=K).examples()
    assert {example.signature for example in examples} == set(model.signatures) - {
        "serving_default"
    }
    told = examples[1]
    assert all((told.inputs[name] != "").any() for name in ("history", "exclude", "allow", "deny"))
    assert (told.outputs["item_id"] != b"").mean() > 0.4
    for example in examples:
        got = ask(model, example.signature, **example.inputs)
        assert compare(got, example.outputs, rtol=1e-4, atol=1e-5) == []


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
                raw[name] = np.zeros([30, 1, 6], np.float32) if name == "vector" else [[b""]] * 30
        entries = np.full([NUM_ITEMS, 1], "", object)
        got = ask(loaded["encoder"], "embed_item", **raw, features=entries)
        expected = want(shown[None, :])
        np.testing.assert_allclose(got["embedding"], expected.embedding, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got["weights"], expected.weights, rtol=1e-3, atol=1e-4)
        some = expected.present.numpy().any(axis=1)
        assert np.ptp(got["embedding"][some], axis=0).max() > 0.01


def test_nothing_at_all_is_answered(loaded):
    raw = {name: [[b""]] for name in ("text", "image", "audio")}
    raw["vector"] = np.zeros([1, 1, 6], np.float32)
    answer = ask(loaded["encoder"], "embed_item", **raw, features=[[""]])
    assert np.isfinite(answer["embedding"]).all() and not answer["weights"].any()
    assert np.isfinite(ask(loaded["encoder"], "search", **raw)["score"]).all()


@pytest.mark.slow
def test_a_stranger_s_profile_and_features_come_through_the_export(dataset, tmp_path):
    recommender = build_recommender(dataset, user__profile=True)
    servable = RecommenderServable(recommender, k=K)
    tf.saved_model.save(servable, str(tmp_path), signatures=servable.signatures)
    model = tf.saved_model.load(str(tmp_path))
    # The text encoder is in it.
    assert_core(read_ops(tmp_path))
    users = ["nobody", "a stranger", user_id(3), "nothing"]
    about = {
        "profile": ["likes the owl night", "", "gull sea", ""],
        "features": [[], ["age=1.5"], ["age=-2"], []],
    }
    got = recommended(model, users, **about)
    assert_equal(got, recommender.recommend(users, **about, k=K))
    plain = recommended(model, users)
    differs = (got.item_id != plain.item_id) | ~np.isclose(got.score, plain.score, rtol=1e-4)
    assert differs.any(axis=1).tolist() == [True, True, True, False]
    said = ask(
        model,
        "embed_user",
        user_id=users,
        history=[[""]] * 4,
        profile=about["profile"],
        features=padded([["age=old"], *about["features"][1:]]),
    )
    assert said["known"].tolist() == [True, True, True, False]
    assert said["unread"].tolist() == [True, False, False, False]


@pytest.mark.slow  # tests/recommender/test_new_items.py holds the same without an export
def test_a_new_item_scores_as_the_same_item_published(run, dataset, loaded):
    """Cold items of the catalog, as raw content through the encoder, beside `rank` by their ids."""
    rows = [n for n in COLD if n % 5 < 4]  # with what `dataset` says of each
    raw = contents(dataset, rows)
    price = dataset.catalog.features["price"]
    genre = dataset.catalog.features["genre"]
    names = [None, None, *dataset.schema.item_features["genre"].vocabulary]
    entries = []
    for row in rows:
        spec = dataset.schema.item_features["price"]
        value = price[row, 0] * spec.std + spec.mean
        one = [f"genre={names[n]}" for n in genre[row] if n > 1]
        entries.append(["", *one, *([f"price={value:.7f}"] if price[row, 1] else [])])
    made = ask(loaded["encoder"], "embed_item", **raw, features=padded(entries))
    # Not one of whom nothing is known: by the history of all splits these items are popular.
    users, history = [user_id(0), user_id(7), "stranger"], [["", ""], ["i1", "i4"], ["i2", ""]]
    size = len(users)
    parts = ("embedding", "modalities", "present", "weights")
    new = {n: np.repeat(made[n][None], size, axis=0) for n in parts}
    got = ask(
        loaded["recommender"],
        "rank_new",
        user_id=users,
        history=history,
        time=np.zeros([size], np.int64),
        features=np.repeat(padded(entries)[None], size, axis=0),
        **new,
    )
    want = ask(
        loaded["recommender"],
        "rank",
        user_id=users,
        history=history,
        item_id=[[item_id(n) for n in rows]] * size,
        time=np.zeros([size], np.int64),
        **silent(size),
    )
    np.testing.assert_allclose(got["score"], want["score"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["probability"], want["probability"], rtol=1e-4, atol=1e-4)
    assert got["score"].std() > 1e-3


def test_side_features_of_an_asked_for_item_count(run, dataset, loaded):
    """An item of the catalog placed by its content alone, its own features brought by name."""
    rows = [n for n in range(NUM_ITEMS) if n % 4][:6]
    price = dataset.catalog.features["price"]
    entries = [
        [f"genre={name}" for name in ["night", "day"][row % 2 :]]
        + ([f"price={price[row, 0]:.7f}"] if price[row, 1] else [])
        for row in rows
    ]
    raw = contents(dataset, rows)
    got = ask(loaded["encoder"], "embed_item", **raw, features=padded(entries, lead=True))
    want = run.retrieval.embed_catalog(content_only=True).embedding[rows]
    np.testing.assert_allclose(got["embedding"], want, rtol=1e-3, atol=1e-4)
    assert not got["unread"].any()
    plain = ask(loaded["encoder"], "embed_item", **raw, features=np.full([6, 1], "", object))
    assert np.abs(plain["embedding"] - got["embedding"]).max(axis=1).min() > 1e-3
    odd = ask(loaded["encoder"], "embed_item", **raw, features=[["genre="]] * 5 + [["genre=day"]])
    assert odd["unread"].tolist() == [True] * 5 + [False]


def test_an_item_is_found_by_its_own_content(vectors, dataset):
    """Cold ones too; with the content of one, another is at best as near."""
    servable = EncoderServable(vectors.retrieval, dataset.catalog.item_id, k=3)
    rows = [1, 9, COLD[0], COLD[2]]
    answer = servable.search(dataset.catalog.content["vector"][rows][:, None])
    assert [row[0] for row in decoded(answer["item_id"].numpy())] == [item_id(n) for n in rows]
    np.testing.assert_allclose(answer["score"].numpy()[:, 0], 1, atol=1e-4)


ALONE = """
import json, sys
import tensorflow as tf
for path, inputs in json.load(sys.stdin):
    served = tf.saved_model.load(path).signatures["serving_default"]
    specs = served.structured_input_signature[1]
    answer = served(**{k: tf.constant(v, specs[k].dtype) for k, v in inputs.items()})
    print(json.dumps([value.numpy().shape for _, value in sorted(answer.items())]))
others = ("tf_keras", "mmrec_tf", "tensorflow_text", "tensorflow_io", "transformers")
print([name for name in others if name in sys.modules])
"""


def test_a_process_with_tensorflow_alone_can_run_it(exported, tmp_path):
    requests = [
        (
            str(exported / "recommender/1"),
            {
                "user_id": ["u1"],
                "history": [["i1"]],
                **{name: [[""]] for name in ("exclude", "allow", "deny", "features")},
                "time": [0],
                "profile": [""],
            },
        ),
        (
            str(exported / "encoder/1"),
            {
                "text": [["owl"]],
                "image": [[""]],
                "audio": [[""]],
                "vector": [[[0.0] * 6]],
                "features": [[""]],
            },
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
    recommended = str([*[[1, K]] * 5, [1]])
    embedded = "[[1, 8], [1, 4, 8], [1, 4], [1], [1, 4], [1, 4]]"
    assert done.stdout.splitlines() == [recommended, embedded, "[]"]


# Models of other kinds


def test_an_answer_holds_at_most_the_catalog(vectors):
    servable = RecommenderServable(vectors, k=1000)
    nothing = [strings([[""]])] * 4
    answer = servable.recommend(
        strings(["u1"]), *nothing, tf.constant([0], tf.int64), *silent(1).values()
    )
    assert answer["item_id"].shape == (1, NUM_ITEMS)
    assert (
        answer["item_id"].numpy()[0, -1] == b"" and answer["score"].numpy()[0, -1] == LOWEST_SCORE
    )


# What is refused


@pytest.mark.parametrize("version", [1, 3])
def test_a_version_must_be_above_all_there(vectors, tmp_path, version):
    (tmp_path / "encoder/3").mkdir(parents=True)
    with pytest.raises(ExportError, match=f"wanted a version above 3, .* got {version}"):
        export(vectors, tmp_path, version=version)
    assert [path.name for path in (tmp_path / "recommender").iterdir()] == [TAKEN_FILE]


@pytest.mark.parametrize("wrong", [{"version": 0}, {"version": 1, "k": 0}])
def test_wrong_numbers_are_refused(vectors, tmp_path, wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        export(vectors, tmp_path / "export", **wrong)
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_a_wrong_answer_is_noticed_and_nothing_is_left(vectors, tmp_path, monkeypatch):
    """The encoder's examples say otherwise than it does; the recommender, written before, goes
    with it."""
    (tmp_path / "recommender/1").mkdir(parents=True)
    honest = servables._answer

    def lie(servable, example):
        answer = honest(servable, example)
        if servable.name_on_disk == "encoder" and "score" in answer.outputs:
            return answer._replace(outputs={**answer.outputs, "score": answer.outputs["score"] + 1})
        return answer

    monkeypatch.setattr(servables, "_answer", lie)
    with pytest.raises(ExportError, match="encoder: .*answers example .*score differs"):
        export(vectors, tmp_path, version=2)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"{name}/{TAKEN_FILE}" for name in NAMES}
    # The number is spent all the same.
    assert {path.name for path in (tmp_path / "recommender").iterdir()} == {"1", TAKEN_FILE}
    assert (tmp_path / "encoder" / TAKEN_FILE).read_text() == "2\n"


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


def test_an_encoder_is_traced_once_for_examples_and_all_signatures(dataset, tmp_path, monkeypatch):
    traced = []
    honest = servables.encode_values

    def encode_values(*args, **kwargs):
        traced.append(args)
        return honest(*args, **kwargs)

    monkeypatch.setattr(servables, "encode_values", encode_values)
    catalog = dataset.catalog
    servable = EncoderServable(build_retrieval(dataset), catalog.item_id, k=5)
    column = list(dataset.schema.modalities).index("vector")
    servable.examples_from(
        {"vector": catalog.content["vector"]}, catalog.present[:, column : column + 1]
    )
    tf.saved_model.save(servable, str(tmp_path / "1"), signatures=servable.signatures)
    assert len(traced) == 1


def test_verification_replays_the_examples(tmp_path):
    ops = verify(save(tmp_path / "good", lambda x: 2 * x, [2, 4]))
    assert "Mul" in ops and ops == sorted(ops)
    with pytest.raises(ExportError, match=r"example 0 \(double\) .*y differs at 1 of 2"):
        verify(save(tmp_path / "bad", lambda x: 2 * x, [2, 5]))


@pytest.mark.parametrize(("way", "said"), [("in_session", "in a session"), ("_Loopback", "gRPC")])
def test_verification_asks_in_every_way(tmp_path, monkeypatch, way, said):
    class Wrong:
        def __init__(self, _):
            pass

        def __call__(self, *_):
            return {"y": np.float32([2, 5])}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(verification, way, Wrong)
    with pytest.raises(ExportError, match=rf"{said}, answers example 0 .*y differs at 1 of 2"):
        verify(save(tmp_path / "good", lambda x: 2 * x, [2, 4]))


def test_verification_refuses_what_calls_back_into_python(tmp_path):
    def through_numpy(x):
        return tf.ensure_shape(tf.numpy_function(lambda v: 2 * v, [x], tf.float32), [None])

    folder = save(tmp_path / "numpy", through_numpy, [2, 4])
    with pytest.raises(
        ExportError, match="wanted the ops of an export, which only compute; got PyFunc"
    ):
        verify(folder)


def test_numbers_that_are_none_count_as_absent(vectors):
    """Else one NaN would spread over the embedding, which REST could not even write."""
    servable = EncoderServable(vectors.retrieval, vectors.dataset.catalog.item_id, k=K)
    rows = np.array([[np.nan] * 6, [0] * 6, [1, 2, 3, np.inf, 5, 6]], np.float32)
    embedding = servable.embed_item(tf.constant(rows[:, None]))["embedding"].numpy()
    assert np.isfinite(embedding).all()
    np.testing.assert_array_equal(embedding[0], embedding[1])
    np.testing.assert_array_equal(embedding[2], embedding[1])


def test_examples_of_a_catalog_smaller_than_they_are_long(vectors, monkeypatch):
    few = vectors.dataset.catalog._replace(item_id=vectors.dataset.catalog.item_id[:3])
    monkeypatch.setattr(vectors.dataset, "catalog", few)
    requests = RecommenderServable(vectors, k=K).examples()
    (asked,) = (request for request in requests if request.signature == "rank")
    assert asked.inputs["item_id"].shape[1] == 5


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


def test_what_a_request_leaves_out_is_mapped_as_in_the_catalog(dataset):
    """The embedding is that of the catalog; what came is told as it came."""
    model = small_world.build_retrieval(
        dataset,
        modalities=["audio", "vector"],
        audio__trainable_layers=0,
        item__features=False,
        item__missing="mapped",
    )
    servable = EncoderServable(model, dataset.catalog.item_id, k=3)
    content, present = dataset.catalog.content, dataset.catalog.present[:, 2:]
    want = model.embed_catalog(content_only=True)
    rows = np.flatnonzero(want.present.any(axis=1))
    got = servable.embed_item(
        tf.constant(content["audio"][rows].tolist())[:, None],
        tf.constant(content["vector"][rows])[:, None],
    )
    np.testing.assert_allclose(got["embedding"], want.embedding[rows], atol=1e-4)
    np.testing.assert_allclose(got["weights"], want.weights[rows], atol=1e-4)
    np.testing.assert_array_equal(got["present"], present[rows])
    assert not present[rows].all() and want.present[rows].all()
