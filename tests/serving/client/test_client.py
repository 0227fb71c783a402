"""The client, its command and serving.check, against the local server and a scripted one."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import cv2
import grpc
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from google.protobuf import text_format
from support import toy_export
from support.clips import film, gray
from support.scripted_server import AWAY, BUSY, Script, answer
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.config import model_server_config_pb2

import serving.client.__main__ as command
from mmrec_tf.errors import ConfigError, ServingError
from mmrec_tf.exporting.request_examples import examples_path, read_examples, write_examples
from mmrec_tf.media import audio as media_audio
from mmrec_tf.media import image as media_image
from mmrec_tf.media import video as media_video
from serving.check import __main__ as check_command
from serving.check import checks
from serving.client import Client, FoundItems, Outputs, answers, frames, sound_track
from serving.client.calls import CallError, TensorSpec
from serving.client.methods import Questions, content_inputs
from serving.client.printing import lines_of
from serving.local_server import LocalServer
from serving.local_server.models.servable import WARMUP_FILE

ROOT = pathlib.Path(__file__).resolve().parents[3]
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    toy_export.export(root, "recommender", 1, toy_export.Recommender(1))
    toy_export.export(root, "encoder", 1, toy_export.Encoder())
    return root


@pytest.fixture(scope="module")
def server(export):
    with LocalServer(export) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as made:
        yield made


def test_recommend_gives_items_best_first(client):
    found = client.recommend(["u1", "u2", "new"], k=3)
    assert found.item_id.shape == found.score.shape == (3, 3)
    assert found.score.dtype == np.float32 and isinstance(found.item_id[0, 0], str)
    assert (np.diff(found.score, axis=1) <= 0).all()
    assert client.recommend(["u1"]).item_id.shape == (1, toy_export.K)


def test_histories_of_any_length_do_what_each_does_alone(client):
    users, histories = ["u1", "u2", "u3"], [["i1", "i2", "i3"], [], ["i5"]]
    together = client.recommend(users, histories)
    for place, (user, history) in enumerate(zip(users, histories, strict=True)):
        alone = client.recommend([user], [history])
        assert alone.item_id.tolist() == together.item_id[place : place + 1].tolist()
        assert not {*alone.item_id[0]} & {*history}


def test_every_list_is_led_by_an_empty_id():
    """A batching server pads with a tensor's first element, which must be no item and no
    category."""
    with Script(answer()) as script, Client(script.address) as client:
        client.recommend(["u1", "u2"], [["i1", "i2"], ["i3"]])
        client.recommend(["u1"])
        client.rank(["u1"], [["i1"]])
        client.recommend(
            ["u1", "u2"],
            exclude=[["i1"], []],
            allow=[[], ["genre=a", "genre=b"]],
            deny=[["genre=ü"], ["genre=a"]],
            time=[7, np.int64(8)],
            profile=["likes owls", ""],
            features=[[], ["age=31"]],
        )
    sent = [
        {name: tf.make_ndarray(value).tolist() for name, value in request.inputs.items()}
        for request in script.requests
    ]
    assert sent[0]["history"] == [[b"", b"i1", b"i2"], [b"", b"i3", b""]]
    lists = ("history", "exclude", "allow", "deny", "features")
    nothing = {name: [[b""]] for name in lists}
    who = {"user_id": [b"u1"], "time": [0], "profile": [b""]}
    assert sent[1] == {**who, **nothing}
    assert sent[2] == {**who, "history": [[b""]], "features": [[b""]], "item_id": [[b"i1"]]}
    assert sent[3] == {
        "user_id": [b"u1", b"u2"],
        "history": [[b""], [b""]],
        "exclude": [[b"", b"i1"], [b"", b""]],
        "allow": [[b"", b"", b""], [b"", b"genre=a", b"genre=b"]],
        "deny": [[b"", "genre=ü".encode()], [b"", b"genre=a"]],
        "time": [7, 8],
        "profile": [b"likes owls", b""],
        "features": [[b"", b""], [b"", b"age=31"]],
    }


def test_what_a_request_leaves_out_is_not_shown(client):
    users, odd = ["u1", "u2"], {"i1", "i3", "i5", "i7", "i9", "i11"}
    plain = client.recommend(users).item_id
    first = [[row[0]] for row in plain]
    found = client.recommend(users, exclude=first)
    assert found.item_id[:, :-1].tolist() == plain[:, 1:].tolist()
    found = client.recommend(users, allow=[["parity=odd"], []], deny=[[], ["parity=odd"]])
    assert {*found.item_id[0]} <= odd and not {*found.item_id[1]} & odd
    found = client.recommend(users, allow=[["parity=none"], []])
    assert found.item_id[0].tolist() == [""] * toy_export.K and (found.score[0] == -1e9).all()
    assert found.item_id[1].tolist() == plain[1].tolist()


def test_what_is_said_of_a_user_counts_and_what_the_model_does_not_read_is_refused(client):
    plain = client.recommend(["x", "y"])
    found = client.recommend(["x", "y"], profile=["i9", ""], features=[["age=31"], []])
    assert found.item_id[0, 0] == "i9" and found.item_id[1].tolist() == plain.item_id[1].tolist()
    score = client.rank(["x"], [["i9"]], profile=["i9"]).score - client.rank(["x"], [["i9"]]).score
    np.testing.assert_allclose(score, [[7]], rtol=1e-5)
    message = r"recommend: wanted features as NAME=VALUE.*row 1 has the features \['agee=3'\]"
    with pytest.raises(ConfigError, match=message):
        client.recommend(["x", "y"], features=[["age=31"], ["agee=3"]])
    with pytest.raises(ConfigError, match="rank: wanted features as NAME=VALUE"):
        client.rank(["x"], [["i9"]], features=[["age=old"]])
    with pytest.raises(ConfigError, match="profile: wanted 2, one a user; got 1"):
        client.recommend(["x", "y"], profile=["i9"])


def test_lists_of_content_are_led_by_an_empty_one_and_filled_in():
    specs = {"text": WORDS, "features": TensorSpec("string", (None, None))}
    given = {"text": ["a", "b"], "features": [["genre=comedy"], []]}
    inputs = content_inputs("embed_item", given, specs)
    assert inputs["features"].tolist() == [[b"", b"genre=comedy"], [b"", b""]]
    inputs = content_inputs("embed_item", {"text": ["a", "b"]}, specs)
    assert inputs["features"].tolist() == [[b""], [b""]]
    with pytest.raises(ConfigError, match="this encoder has no input features; it takes text"):
        content_inputs("embed_item", given, {"text": WORDS})


LISTED = {
    "image": TensorSpec("string", (None, None)),
    "style": TensorSpec("float32", (None, None, 2)),
}


def test_content_comes_as_lists_of_one_or_several():
    """Of one shape whatever an item has, led by an empty value."""
    inputs = content_inputs("embed_item", {"image": [b"a", [b"b", b"c"], [], ""]}, LISTED)
    assert inputs["image"].tolist() == [
        [b"", b"a", b""],
        [b"", b"b", b"c"],
        [b"", b"", b""],
        [b"", b"", b""],
    ]
    assert inputs["style"].tolist() == [[[0, 0]]] * 4
    inputs = content_inputs("embed_item", {"style": [[1, 2], [[3, 4], [5, 6]], []]}, LISTED)
    assert inputs["style"].dtype == np.float32
    assert inputs["style"].tolist() == [
        [[0, 0], [1, 2], [0, 0]],
        [[0, 0], [3, 4], [5, 6]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    assert inputs["image"].tolist() == [[b""]] * 3
    for given, message in (
        ({"style": [[1, 2, 3]]}, r"style: wanted vectors of 2 numbers.*shape \[3\] at 0"),
        ({"style": [b"picture"]}, "takes ready-made vectors of 2 numbers"),
        ({"image": b"picture"}, "image: wanted one value or list an item"),
        ({"image": [[b"a"], [3]]}, "image: wanted strings; got 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            content_inputs("search", given, LISTED)


def test_an_export_without_lists_takes_one_value():
    inputs = content_inputs("search", {"text": [["a"], [], "b"]}, {"text": WORDS})
    assert inputs["text"].tolist() == [b"a", b"", b"b"]
    with pytest.raises(ConfigError, match="text: wanted one value an item.* got 2"):
        content_inputs("search", {"text": [["a", "b"]]}, {"text": WORDS})


def files_of_people(folder):
    """A transparent picture, and a sound of a second in stereo, as others write them."""
    pixels = np.zeros([40, 60, 4], np.uint8)
    (folder / "p.webp").write_bytes(cv2.imencode(".webp", pixels)[1].tobytes())
    tone = np.sin(np.arange(44100) / 9)
    soundfile.write(folder / "s.flac", np.stack([tone, -tone], axis=1), 44100)
    return folder / "p.webp", folder / "s.flac"


def test_files_are_prepared_as_a_catalog_s_are_and_bytes_are_sent_as_they_are(tmp_path):
    picture, sound = files_of_people(tmp_path)
    specs = {"image": LISTED["image"], "audio": LISTED["image"]}
    given = {"image": [[picture, b"raw"]], "audio": [sound]}
    inputs = content_inputs("embed_item", given, specs)
    want = media_image.prepare(picture.read_bytes())
    assert inputs["image"].tolist() == [[b"", want, b"raw"]]
    assert inputs["audio"].tolist() == [[b"", media_audio.prepare(sound.read_bytes())]]
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    for given, message in (
        ({"image": [tmp_path / "bad.jpg"]}, "bad.jpg: wanted a picture that can be read; not a"),
        ({"audio": [tmp_path / "none.wav"]}, "none.wav: cannot be read: No such file"),
        ({"image": [tmp_path / "bad.jpg"]}, "wanted the bytes of a file"),
    ):
        name = "cover" if "bytes" in message else next(iter(given))
        with pytest.raises(ConfigError, match=message):
            content_inputs("search", {name: next(iter(given.values()))}, {name: LISTED["image"]})


def test_labels_come_with_the_most_probable_first(monkeypatch):
    outputs = Outputs(
        {
            "label": np.array([[b"genre=a", b"genre=b", b"tag=c"]] * 2, object),
            "probability": np.array([[0.2, 0.8, 0.5], [-1, -1, -1]], np.float32),
            "unreadable": np.array([[False], [True]]),
        }
    )
    outputs.version = 3

    def answered(self, signature, content):
        assert (signature, content) == ("tag", {"text": ["x", ""]})
        return outputs
        yield

    monkeypatch.setattr(Questions, "_ask_encoder", answered)
    steps = Questions.__new__(Questions).tag({"text": ["x", ""]}, k=2)
    with pytest.raises(StopIteration) as end:
        next(steps)
    found = end.value.value
    assert found.label.tolist() == [["genre=b", "tag=c"], ["", ""]]
    np.testing.assert_allclose(found.probability[0], [0.8, 0.5])
    assert found.version == 3 and found.unreadable[1, 0]
    assert list(lines_of(found)) == ["   1\tgenre=b\t0.8000", "   2\ttag=c\t0.5000"]
    with pytest.raises(ConfigError, match="k: wanted 1 or more; got 0"):
        next(Questions.__new__(Questions).tag({}, k=0))


def test_the_file_of_a_video_is_sent_as_its_frames(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(film(gray([20, 90, 160]), tone_seconds=0.5))
    want = media_video.split_frames(media_video.prepare(path.read_bytes()))
    assert len(want) == 3 and frames(path) == want and frames(path, num_frames=1) == [want[1]]
    inputs = content_inputs(
        "embed_item", {"video": [path, [b"1", b"2"]]}, {"video": LISTED["image"]}
    )
    assert inputs["video"].tolist() == [[b"", *want], [b"", b"1", b"2", b""]]
    assert sound_track(path).startswith(b"RIFF")
    path.write_bytes(film(gray([20])))
    assert sound_track(path) == b""
    path.write_bytes(b"<html>")
    with pytest.raises(ConfigError, match="clip.mp4: wanted a video that can be read; not a video"):
        frames(path)


def test_the_command_prepares_files_unless_told_not_to(capsys, server, tmp_path):
    picture, _ = files_of_people(tmp_path)
    sizes = {}
    for more in ((), ("--as-is",)):
        code, out, err = run(capsys, server, "embed-item", "--image", str(picture), "--json", *more)
        assert (code, err) == (0, "")
        sizes[more] = json.loads(out)["embedding"][0][1]
    assert sizes[()] == len(media_image.prepare(picture.read_bytes()))
    assert sizes[("--as-is",)] == len(picture.read_bytes())
    picture.write_bytes(picture.read_bytes()[:30])
    code, out, err = run(capsys, server, "embed-item", "--image", str(picture))
    assert (code, out) == (2, "") and "p.webp: wanted a picture that can be read; " in err
    assert err.count("\n") == 1


def test_an_answer_says_why_and_how_probable(client):
    found = client.recommend(["u1"], [["i1", "i2"]], k=3)
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-found.score)), rtol=1e-6)
    want = ["text" if int(item[1:]) % 3 else "" for item in found.item_id[0]]
    assert found.modality[0].tolist() == want
    assert found.history_item.tolist() == [["i2"] * 3]


def test_each_answer_names_the_version_that_gave_it(client):
    assert client.recommend(["u1"]).version == 1
    assert client.rank(["u1"], [["i1"]]).version == 1
    assert client.similar_items(["i1"]).version == 1
    assert client.embed_item(text=["robin"]).version == 1
    assert client.search(text=["robin"]).version == 1
    assert (
        client.predict("recommender", {"item_id": ["i1"]}, signature="similar_items").version == 1
    )
    assert client.recommend([]).version == 0  # Nobody was asked.


def test_the_time_comes_with_each_user(client):
    nine = 9 * 3600
    best = client.recommend(["u1", "u1", "u1"], time=[nine, nine + 86400, nine + 3600]).item_id
    assert best[:2, 0].tolist() == ["i0", "i0"] and best[2, 0] != "i0"
    at, before = (client.rank(["u1"], [["i0", "i1"]], time=[time]).score[0] for time in (nine, 0))
    np.testing.assert_allclose(at - before, [9, 0], atol=1e-5)


def test_similar_items(client):
    found = client.similar_items(["i0", "nope", "i5"], k=2)
    assert found.item_id.tolist() == [["i1", "i2"], ["", ""], ["i4", "i6"]]
    assert found.score.tolist() == [[-1, -2], [-1e9, -1e9], [-1, -1]]
    assert client.similar_items(["i0"]).item_id.shape == (1, toy_export.K)
    assert client.similar_items([]).item_id.shape == (0, toy_export.K)


def test_rank_scores_the_given_items(client):
    found = client.rank(["u1", "u2"], [["i3", "nope"], ["i5"]], history=[["i3"], []])
    assert found.item_id.tolist() == [["i3", "nope"], ["i5", ""]]
    assert found.score[0].tolist() == [-10.0, -1e9]
    assert found.probability[0, 0] == pytest.approx(1 / (1 + np.exp(10)))
    assert found.probability[0, 1] == 0
    for part in (found.score, found.probability):
        assert np.isfinite(part[1, 0]) and np.isnan(part[1, 1])


def test_rank_cuts_what_a_batching_server_widened():
    widened = predict_pb2.PredictResponse()
    widened.outputs["score"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0, 9.0, 9.0]]))
    widened.outputs["probability"].CopyFrom(tf.make_tensor_proto([[0.5, 0.25, 0.9, 0.9]]))
    with Script(widened) as script, Client(script.address) as client:
        found = client.rank(["u1"], [["i1", "i2"]])
    assert found.score.tolist() == [[1.0, 2.0]] and found.probability.tolist() == [[0.5, 0.25]]


def test_rank_of_no_items_sends_a_blank_one():
    """A tensor without elements would fail all requests of its batch."""
    one = predict_pb2.PredictResponse()
    for name in ("score", "probability"):
        one.outputs[name].CopyFrom(tf.make_tensor_proto([[-1e9]]))
    with Script(one) as script, Client(script.address) as client:
        found = client.rank(["u1"], [[]])
        sent = tf.make_ndarray(script.requests[0].inputs["item_id"])
    assert sent.tolist() == [[b""]]
    assert found.item_id.shape == found.score.shape == found.probability.shape == (1, 0)


def test_an_answer_of_another_kind_of_model_is_named():
    old = answer()
    del old.outputs["probability"]
    with Script(old) as script, Client(script.address) as client:
        with pytest.raises(ServingError, match="recommend: wanted an output probability"):
            client.recommend(["u1"])
        with pytest.raises(ServingError, match="rank: wanted an output probability"):
            client.rank(["u1"], [["i1", "i2", "i3"]])


def test_embed_item_and_search_fill_in_what_is_absent(client):
    embedded = client.embed_item(text=["robin", ""], image=[b"", b"\xff\x00\xd8"])
    assert embedded.embedding.tolist() == [[5, 0, 1, 0], [0, 3, 0, 1]]
    assert embedded.weights.tolist() == [[1, 0], [0, 1]]
    assert client.embed_item(image=[b"12"]).weights.tolist() == [[0, 1]]
    found = client.search(text=["robin"], k=2)
    assert isinstance(found, FoundItems) and found.item_id[0, 0] == "i5"


def test_predict_metadata_and_status(client):
    got = client.predict("encoder", {"text": ["ab"], "image": [""]}, outputs=["weights"])
    assert list(got) == ["weights"]
    metadata = client.metadata("recommender")
    assert (metadata.model, metadata.version) == ("recommender", 1)
    assert sorted(metadata.signatures) == ["rank", "recommend", "serving_default", "similar_items"]
    recommend = metadata.signatures["recommend"]
    assert recommend.inputs["history"] == ("string", (None, None))
    assert recommend.inputs["time"] == ("int64", (None,))
    assert recommend.outputs["score"] == ("float32", (None, toy_export.K))
    assert client.status("encoder") == [(1, "AVAILABLE", "OK", "")]


def test_both_encodings_are_read():
    with Script(answer(), answer(packed=True)) as script, Client(script.address) as client:
        for _ in range(2):
            found = client.recommend(["u1"])
            assert found.item_id.tolist() == [["i1", "grün", ""]]
            assert found.score.tolist() == [[0.5, 0.25, 0.0]]
            assert found.probability.tolist() == [[0.75, 0.5, 0.0]]
            assert found.modality.tolist() == found.history_item.tolist()
            assert found.modality.tolist() == [["text", "grün", ""]]


@pytest.mark.parametrize("trouble", [AWAY, BUSY])
def test_a_busy_server_is_asked_again(trouble):
    with Script(trouble, trouble, answer()) as script, Client(script.address) as client:
        assert client.recommend(["u1"]).item_id[0, 0] == "i1"
        assert len(script.requests) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        (CODE.INVALID_ARGUMENT, "no"),
        (CODE.INTERNAL, "no"),
        (CODE.DEADLINE_EXCEEDED, "no"),
        (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)"),
    ],
)
def test_other_refusals_are_not_asked_again(trouble):
    with Script(trouble) as script, Client(script.address) as client:
        with pytest.raises(CallError) as raised:
            client.recommend(["u1"])
        assert raised.value.code is trouble[0] and len(script.requests) == 1


def test_retries_end():
    with Script(BUSY) as script, Client(script.address, retries=2) as client:
        with pytest.raises(CallError, match="too busy for recommender/recommend after 3 attempts"):
            client.recommend(["u1"])
        assert len(script.requests) == 3


def test_retries_stay_within_the_deadline():
    with Script(AWAY) as script, Client(script.address, timeout_seconds=0.6, retries=99) as client:
        start = time.monotonic()
        with pytest.raises(CallError):
            client.recommend(["u1"])
        assert time.monotonic() - start < 2 and 2 <= len(script.requests) <= 8


def test_a_slow_server_is_given_up():
    with Script(2.0) as script, Client(script.address, timeout_seconds=0.2) as client:
        with pytest.raises(CallError, match="took longer than 0.2 seconds.*timeout_seconds"):
            client.recommend(["u1"])


def test_a_missing_server_model_or_signature_is_named(client, server):
    with Client("127.0.0.1:1", timeout_seconds=0.5) as nowhere:
        with pytest.raises(ServingError, match="no answer from 127.0.0.1:1 .*local_server EXPORT"):
            nowhere.recommend(["u1"])
    with pytest.raises(ServingError, match=f"{server.address} does not serve nope: Servable not"):
        client.predict("nope", {})
    with pytest.raises(ServingError, match=r"recommender/nope: .*rank, recommend, serving_defau"):
        client.predict("recommender", {}, signature="nope")
    with pytest.raises(
        ServingError, match="refused recommender/rank .INVALID_ARGUMENT.: input siz"
    ):
        client.predict("recommender", {}, signature="rank")
    with Client(server.rest_address, timeout_seconds=0.5) as wrong_port:
        with pytest.raises(ServingError, match=server.rest_address):
            wrong_port.status("recommender")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.recommend("u1"), "user_id: wanted a list of strings; got the string 'u1'"),
        (lambda c: c.recommend([1]), "user_id: wanted strings; got 1 at 0"),
        (lambda c: c.recommend(["u1"], []), "history: wanted 1 rows, one a user; got 0"),
        (lambda c: c.recommend(["u1"], ["i1"]), "history: wanted a list of strings; got the str"),
        (lambda c: c.recommend(["u1"], exclude=[]), "exclude: wanted 1 rows, one a user; got 0"),
        (lambda c: c.recommend(["u1"], allow="genre=a"), "allow: wanted a list of strings for eac"),
        (
            lambda c: c.recommend(["u1"], deny=["genre=a"]),
            "deny: wanted a list of strings; got the",
        ),
        (lambda c: c.recommend(["u1"], time=[]), "time: wanted 1, one a user; got 0"),
        (lambda c: c.recommend(["u1"], time=[0.5]), "time: wanted whole seconds .* got 0.5 at 0"),
        (lambda c: c.recommend(["u1"], time=[2**63]), "time: wanted whole seconds .* got 9223372"),
        (lambda c: c.rank(["u1"], [["i1"]], time=["x"]), "time: wanted whole seconds .* got 'x'"),
        (lambda c: c.similar_items("i1"), "item_id: wanted a list of strings; got the string 'i1'"),
        (lambda c: c.similar_items(["i1"], k=5), "k: wanted 1 to 4"),
        (lambda c: c.recommend(["u1"], k=5), "k: wanted 1 to 4"),
        (lambda c: c.recommend(["u1"], k=0), "k: wanted 1 to 4"),
        (lambda c: c.rank(["u1"], "i1"), "item_id: wanted a list of strings for each user"),
        (lambda c: c.embed_item(), "at least one of text, image, audio"),
        (lambda c: c.embed_item(text=["a"], image=[]), "wanted as many of each"),
        (lambda c: c.search(audio=[b"RIFF"]), "no input audio; it takes image, text"),
        (lambda c: c.predict("encoder", {"text": [["a"], []]}), "encoder/serving_default: input t"),
    ],
)
def test_unusable_arguments_are_named(client, call, message):
    with pytest.raises(ConfigError, match=message):
        call(client)


def test_the_page_s_requests_are_answered_over_rest(server):
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", page, re.M | re.S)]
    requests = [block for block in blocks if "signature_name" in block]
    assert [("instances" in one, "inputs" in one) for one in requests] == [
        (True, False),
        (False, True),
    ]
    answers = []
    for body in requests:
        url = f"http://{server.rest_address}/v1/models/recommender:predict"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=30) as answer:
            answers.append(json.load(answer))
    (block,) = (block for block in blocks if "predictions" in block)
    assert set(answers[0]["predictions"][0]) == set(block["predictions"][0])
    assert set(answers[1]["outputs"]) == set(block["predictions"][0])


# The command


def run(capsys, server, *arguments):
    code = command.main([*arguments, "--address", server.address])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_answers(capsys, server, tmp_path):
    code, out, err = run(capsys, server, "recommend", "--user", "u1", "--k", "2", "--json")
    found = json.loads(out)
    assert code == 0 and err == "" and out.count("\n") == 1
    assert len(found["item_id"][0]) == len(found["score"][0]) == 2
    code, out, _ = run(capsys, server, "recommend", "--user", "u1", "--history", "i1,i2")
    assert code == 0 and len(out.splitlines()) == toy_export.K
    code, out, _ = run(capsys, server, "rank", "--user", "u1", "--items", "nope,i2,i3")
    scores = [float(line.split()[2]) for line in out.splitlines()]
    assert code == 0 and len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert [line.split("\t")[3] for line in out.splitlines()][-1] == "0.0000"
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"\xff\xd8\x00")
    code, out, _ = run(
        capsys, server, "embed-item", "--text", "a", "--image", str(picture), "--as-is", "--json"
    )
    assert code == 0 and json.loads(out)["embedding"][0][:2] == [1, 3]
    assert run(capsys, server, "embed-item", "--text", "a")[1].startswith("embedding\t1.0000 ")
    assert run(capsys, server, "search", "--text", "robin", "--k", "1")[1].split()[:2] == [
        "1",
        "i5",
    ]
    assert run(capsys, server, "similar", "--item", "i0", "--k", "2")[1] == (
        "   1\ti1\t-1.0000\n   2\ti2\t-2.0000\n"
    )
    code, out, _ = run(capsys, server, "status")
    assert out.splitlines() == ["recommender/1\tAVAILABLE", "encoder/1\tAVAILABLE"]
    assert json.loads(run(capsys, server, "status", "--json")[1])["encoder"][0]["version"] == 1


def columns(out):
    return [line.split("\t") for line in out.splitlines()]


def test_recommend_prints_columns_with_reasons(capsys, server, client):
    _, out, _ = run(capsys, server, "recommend", "--user", "u1", "--history", "i1,i2")
    found = client.recommend(["u1"], [["i1", "i2"]])
    assert columns(out) == [
        [f"{place + 1:4d}", item, f"{score:.4f}", f"{probability:.4f}", modality or "-", "i2"]
        for place, (item, score, probability, modality, _) in enumerate(
            zip(*(part[0] for part in found[:5]), strict=True)
        )
    ]
    # Of nothing known, too, no column is empty.
    _, out, _ = run(capsys, server, "recommend", "--user", "u1")
    assert {row[5] for row in columns(out)} == {"-"}


def test_recommend_takes_what_must_and_must_not_be_shown(capsys, server):
    def items(*options):
        return [
            row[1] for row in columns(run(capsys, server, "recommend", "--user", "u1", *options)[1])
        ]

    plain = items()
    assert items("--exclude", ",".join(plain[:2]))[:2] == plain[2:]
    assert {int(item[1:]) % 2 for item in items("--allow", "parity=odd")} == {1}
    assert {int(item[1:]) % 2 for item in items("--deny", "parity=odd,parity=none")} == {0}
    code, out, err = run(capsys, server, "recommend", "--user", "u1", "--allow", "parity=none")
    assert (code, out) == (0, "") and err == "serving.client: there is no such item.\n"


@pytest.mark.parametrize(
    "time",
    ["32400", "1970-01-02T09:59", "2024-05-31T09:00:00Z", "2024-05-31T11:30+02:00"],
)
def test_a_time_is_seconds_or_iso_8601(capsys, server, time):
    """By UTC all of these are in the hour of i0."""
    best = columns(run(capsys, server, "recommend", "--user", "u1", "--time", time)[1])[0][1]
    ranked = run(capsys, server, "rank", "--user", "u1", "--items", "i0,i1", "--time", time)[1]
    assert best == columns(ranked)[0][1] == "i0"
    assert columns(run(capsys, server, "recommend", "--user", "u1")[1])[0][1] != "i0"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["recommend", "--user", "u1", "--k", "99"], 2),
        (["recommend", "--user", "u1", "--time", "noon"], 2),
        (["embed-item", "--image", "no-such-file.jpg"], 2),
        (["search", "--audio", __file__], 2),
        (["status", "--timeout-seconds", "0"], 2),
    ],
)
def test_the_command_fails_in_one_line(capsys, server, arguments, status):
    code, out, err = run(capsys, server, *arguments)
    assert code == status and out == "" and err.count("\n") == 1
    assert err.startswith("serving.client: ")


def test_the_command_without_a_server_exits_with_1_and_one_line():
    arguments = ["status", "--address", "127.0.0.1:1", "--timeout-seconds", "0.3"]
    result = subprocess.run(
        [sys.executable, "-m", "serving.client", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("serving.client: no answer from 127.0.0.1:1")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["recommend"], ["similar"], ["search"], ["nope"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2


@pytest.mark.parametrize("program", ["serving.client", "serving.check", "serving.local_server"])
def test_help_needs_no_tensorflow(program):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('{program}', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("0 False\n")


# The check


def checked(export, server, **options):
    found = list(checks.check(export, server.address, **options))
    return found, [one for one in found if one.problem]


def test_a_good_export_passes(export, server):
    found, failed = checked(export, server, rest_address=server.rest_address, empty=True)
    assert failed == []
    names = [one.name for one in found]
    for part in (
        "recommender/1 is served, and the newest on disk",
        "recommender/1 has the signature serving_default",
        "recommender/1 serving_default: example 4 of 4 agrees over gRPC",
        "recommender/1 rank: example 2 of 4 agrees over REST, row form",
        "recommender/1 similar_items: example 3 of 4 agrees over REST, columnar form",
        "recommender/1 recommend: group 1, 4 different rows: batch of 32, rows independent",
        "encoder/1 embed_item: example 1 of 3 agrees over REST, columnar form",
        "encoder/1 search: group 1, 2 different rows: batch of 32, rows independent",
        "encoder/1 search: group 1, 2 different rows: batch of 0",
        "encoder/1 answers with finite numbers",
    ):
        assert part in names
    (ops,) = [one for one in names if one.startswith("encoder/1 has ops of an export only: ")]
    assert ops.endswith(", TopKV2")


def test_a_server_that_batches_is_sent_no_batch_of_0(export):
    with LocalServer(export, enable_batching=True) as server:
        found, failed = checked(export, server)
    assert failed == [] and not [one for one in found if one.name.endswith("batch of 0")]


def test_what_has_no_rows_is_answered_without_a_prediction(export):
    """A server that batches would keep it to the deadline."""
    with LocalServer(export, enable_batching=True) as server, Client(server.address) as client:
        for answer in (
            client.recommend([]),
            client.recommend([], [], time=[], k=2),
            client.similar_items([]),
            client.search(text=[]),
        ):
            k = 2 if answer.score.shape[1] == 2 else toy_export.K
            assert answer.item_id.shape == answer.score.shape == (0, k)
            assert answer.score.dtype == np.float32
        assert client.rank([], []).score.shape == (0, 0)
        assert len(client.embed_item(text=[]).embedding) == 0


def broken(tmp_path, change):
    """Serves one changed recommender; returns the problems that the check finds in it."""
    change(tmp_path)
    with LocalServer(tmp_path, allow_other_ops=True) as server:
        _, failed = checked(tmp_path, server, rest_address=server.rest_address)
    return [f"{one.name}: {one.problem}" for one in failed]


def test_a_wrong_answer_fails(tmp_path):
    def change(root):
        folder = toy_export.export(root, "recommender", 1, toy_export.Recommender(1))
        path = examples_path(folder)
        examples = read_examples(path)
        wrong = examples.requests[1].outputs["score"]
        wrong[0, 1] += 0.01
        write_examples(path, examples.requests, servable="recommender", version=1)

    problems = broken(tmp_path, change)
    assert len(problems) == 3  # gRPC, REST in rows, REST in columns.
    assert all("rank: example 2" in one and "score differs at 1 of 6" in one for one in problems)


def test_a_model_that_mixes_rows_fails(tmp_path):
    def change(root):
        module = toy_export.Recommender(1, mixes_rows=True)
        toy_export.export(root, "recommender", 1, module)

    problems = broken(tmp_path, change)
    assert any(
        "batch of 32, rows independent: " in one and "score differs" in one for one in problems
    )
    assert not any("example" in one for one in problems)


def test_what_else_is_missing_fails(tmp_path):
    class Fixed(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name="x")])
        def shrink(self, x):
            return {"total": tf.reduce_sum(x), "half": tf.cast(x, tf.float16)}

        def signatures(self):
            return {"shrink": self.shrink}

    def change(root):
        (root / "recommender").mkdir()
        toy_export.save(Fixed(), root / "recommender" / "1")

    text = "\n".join(broken(tmp_path, change))
    assert "has the signature serving_default: it has shrink" in text
    assert "shrink: every input and output has a free first dimension: fixed or scalar: x" in text
    assert "shrink: every output has a JSON form: none, so no REST: half (float16)" in text
    assert f"warm-up records for each signature: there is no {WARMUP_FILE}" in text
    assert "has examples: " in text and "mmrec-tf export" in text


def test_a_damaged_model_fails(tmp_path, export, server):
    shutil.copytree(export, tmp_path / "copy")
    (tmp_path / "copy/encoder/1/saved_model.pb").write_bytes(b"no model")
    _, failed = checked(tmp_path / "copy", server)
    assert [one.name for one in failed] == ["encoder/1 has a SavedModel"]
    assert "Export again" in failed[0].problem


def test_an_op_that_calls_python_fails(tmp_path):
    class Calls(toy_export.Encoder):
        @tf.function(
            input_signature=[
                toy_export.spec(toy_export.STRINGS, "text"),
                toy_export.spec(toy_export.STRINGS, "image"),
            ]
        )
        def embed_item(self, text, image):
            answer = toy_export.Encoder.embed_item.python_function(self, text, image)
            weights = tf.numpy_function(lambda value: value, [answer["weights"]], tf.float32)
            return {**answer, "weights": tf.ensure_shape(weights, answer["weights"].shape)}

    problems = broken(tmp_path, lambda root: toy_export.export(root, "encoder", 1, Calls()))
    assert [one for one in problems if "has ops of an export only: " in one] == [problems[0]]
    assert problems[0].endswith(": others: PyFunc")


def test_an_answer_that_is_not_finite_fails(tmp_path):
    class NaN(toy_export.Encoder):
        @tf.function(
            input_signature=[
                toy_export.spec(toy_export.STRINGS, "text"),
                toy_export.spec(toy_export.STRINGS, "image"),
            ]
        )
        def embed_item(self, text, image):
            # As a mean over no modalities would, for an item with nothing.
            length = tf.cast(tf.strings.length(text) + tf.strings.length(image), tf.float32)
            return {"embedding": length[:, None] / length[:, None], "weights": length[:, None]}

    problems = broken(tmp_path, lambda root: toy_export.export(root, "encoder", 1, NaN()))
    assert any("NaN or infinity in embedding" in one for one in problems)


def test_an_old_version_still_served_fails(tmp_path, export, server):
    shutil.copytree(export, tmp_path / "copy")
    os.rename(tmp_path / "copy" / "encoder" / "1", tmp_path / "copy" / "encoder" / "2")
    _, failed = checked(tmp_path / "copy", server)
    assert [one.name for one in failed] == ["encoder/2 is served, and the newest on disk"]


def test_the_check_command(capsys, export, server, tmp_path):
    assert check_command.main([str(export), "--address", server.address, "--verbose"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok    ") for line in out[:-1])
    assert "has ops of an export only: " in "\n".join(out)
    assert out[-1] == f"serving.check: {len(out) - 1} checks passed"
    assert check_command.main([str(export), "--address", server.address]) == 0
    (said,) = capsys.readouterr().out.splitlines()
    assert said == f"serving.check: {len(out) - 1} checks passed (--verbose lists them)"
    # It starts a local server, REST included.
    assert check_command.main([str(export), "--verbose"]) == 0
    assert "REST, row form" in capsys.readouterr().out
    shutil.copytree(export / "encoder" / "1", tmp_path / "encoder" / "1")
    examples_path(tmp_path / "encoder" / "1").unlink()
    assert check_command.main([str(tmp_path), "--address", server.address]) == 1
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"serving.check: 1 of \d+ checks failed", out[-1]) and len(out) == 2
    assert sum(line.startswith("FAIL  ") for line in out) == 1
    assert check_command.main([str(tmp_path / "none"), "--address", server.address]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_titles_stand_behind_the_other_columns():
    row = np.array([["i2", "i1"]], object)
    number = np.array([[2.0, 1.0]], np.float32)
    answer = answers.Recommendations(
        row, number, number, np.array([["text", ""]], object), np.array([["i9", ""]], object)
    )
    called = {"i2": "Gull", "i9": "Heron"}
    lines = list(lines_of(answer, lambda ids: [called.get(one, "") for one in ids]))
    assert lines == [
        "   1\ti2\t2.0000\t2.0000\ttext\ti9\tGull\tHeron",
        "   2\ti1\t1.0000\t1.0000\t-\t-\t-\t-",
    ]
    weighed = answer._replace(version=3, heaviest=np.array([[1, -1]], np.int32))
    assert list(lines_of(weighed)) == [
        "   1\ti2\t2.0000\t2.0000\ttext\ti9\t1",
        "   2\ti1\t1.0000\t1.0000\t-\t-\t-",
    ]
    found = answers.SimilarItems(row, number)
    assert list(lines_of(found, lambda ids: [called.get(one, "") for one in ids])) == [
        "   1\ti2\t2.0000\tGull",
        "   2\ti1\t1.0000\t-",
    ]
    assert list(lines_of(found)) == ["   1\ti2\t2.0000", "   2\ti1\t1.0000"]


# The files for stock TensorFlow Serving


def test_the_model_configuration_is_one():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((ROOT / "serving/deploy/models.config").read_text(), config)
    models = config.model_config_list.config
    assert {model.name: model.base_path for model in models} == {
        "recommender": "/models/recommender",
        "encoder": "/models/encoder",
    }
    assert {model.model_platform for model in models} == {"tensorflow"}


def test_the_compose_file_names_files_that_exist():
    text = (ROOT / "serving/deploy/docker-compose.yml").read_text()
    for name in ("models.config", "batching.config", "monitoring.config"):
        assert f"./{name}:" in text and (ROOT / "serving/deploy" / name).exists()


VECTOR = TensorSpec("float32", (None, 3))
WORDS = TensorSpec("string", (None,))


def test_vectors_are_filled_in_and_checked():
    specs = {"image": VECTOR, "text": WORDS}
    given = content_inputs("embed_item", {"text": ["a", "b"]}, specs)
    assert given["image"].tolist() == [[0, 0, 0], [0, 0, 0]]
    given = content_inputs("embed_item", {"image": [[1, 2, 3]]}, specs)
    assert given["image"].dtype == np.float32 and given["text"].tolist() == [b""]
    with pytest.raises(ConfigError, match="wanted vectors"):
        content_inputs("embed_item", {"image": [[1, 2]]}, specs)
    with pytest.raises(ConfigError, match="takes ready-made vectors"):
        content_inputs("embed_item", {"image": [b"picture"]}, specs)
