"""What both clients promise: the same answers, retries and errors, waited for or awaited."""

import asyncio
import contextlib
import inspect
import json
import socket
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from support import toy_export
from support.scripted_server import AWAY, BUSY, Script, answer

import serving.client.__main__ as command
from mmrec_tf.errors import ConfigError, ServingError
from mmrec_tf.exporting.request_examples import Example
from serving.check import checks, rest_call
from serving.client import AsyncClient, Client, FoundItems, media
from serving.client.calls import CallError
from serving.local_server import LocalServer

CODE = grpc.StatusCode
LISTS = toy_export.spec(toy_export.LISTS, "history")
USERS = toy_export.spec(toy_export.STRINGS, "user_id")
CONTENT = [toy_export.spec(toy_export.STRINGS, name) for name in ("text", "image")]


class Recommender(toy_export.Recommender):
    """One who says where users lie; of those whose id begins with u something is known."""

    @tf.function(input_signature=[USERS, LISTS, *toy_export.ABOUT])
    def embed_user(self, user_id, history, profile, features):
        known = tf.strings.regex_full_match(user_id, "u.*") | tf.reduce_any(history != "", axis=1)
        known |= profile != ""
        length = tf.cast(tf.strings.length(tf.strings.reduce_join(history, 1)), tf.float32)
        return {
            "embedding": tf.stack([length, tf.cast(known, tf.float32)], 1),
            "known": known,
            "unread": toy_export.unread(features),
        }

    def signatures(self):
        return {**super().signatures(), "embed_user": self.embed_user}


class Encoder(toy_export.Encoder):
    """One who says what it could not read: pictures that begin with "bad"."""

    @staticmethod
    def said(text, image):
        bad = tf.strings.regex_full_match(image, "bad.*")
        unreadable = tf.stack([tf.zeros_like(bad), bad], axis=1)
        return {
            "present": (tf.stack([text, image], axis=1) != "") & ~unreadable,
            "unreadable": unreadable,
        }

    @tf.function(input_signature=CONTENT)
    def embed_item(self, text, image):
        return {**super().embed_item(text, image), **self.said(text, image)}

    @tf.function(input_signature=CONTENT)
    def search(self, text, image):
        said, found = self.said(text, image), super().search(text, image)
        real = tf.reduce_any(said.pop("present"), axis=1, keepdims=True)
        return {
            "item_id": tf.where(real, found["item_id"], ""),
            "score": tf.where(real, found["score"], -1e9),
            **said,
        }


USER_REQUEST = (
    "embed_user",
    {
        "user_id": toy_export.strings(b"u1", b"x", b"x"),
        "history": toy_export.strings([b"", b"i1"], [b"", b"i2"], [b"", b""]),
        "profile": toy_export.strings(b"", b"", b"likes owls"),
        "features": toy_export.strings([b""], [b""], [b""]),
    },
)
BROKEN_REQUEST = (
    "embed_item",
    {
        "text": toy_export.strings(b"wren", b"wren", b""),
        "image": toy_export.strings(b"bad", b"\xff\xd8", b"bad"),
    },
)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        for name, request in (("recommender", USER_REQUEST), ("encoder", BROKEN_REQUEST)):
            more = [one for one in toy_export.REQUESTS[name] if one[0] != "embed_user"]
            patch.setitem(toy_export.REQUESTS, name, [*more, request])
        toy_export.export(root, "recommender", 1, Recommender(1))
        toy_export.export(root, "encoder", 1, Encoder())
    return root


@pytest.fixture(scope="module")
def server(export):
    with LocalServer(export) as running:
        yield running


def sync(address, call, **settings):
    with Client(address, **settings) as client:
        return call(client)


def asynchronous(address, call, **settings):
    async def ask():
        async with AsyncClient(address, **settings) as client:
            return await call(client)

    return asyncio.run(ask())


WAYS = pytest.mark.parametrize("ask", [sync, asynchronous])


def test_both_clients_have_the_same_methods():
    def methods(kind):
        return {
            name: inspect.signature(method)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)
    assert {"recommend", "rank", "similar_items", "embed_user"} < methods(Client).keys()
    assert inspect.signature(Client) == inspect.signature(AsyncClient)
    for name in methods(Client):
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend(["u1", "new"], [["i1"], []], exclude=[["i3"], []], time=[9, 0], k=3),
        lambda c: c.rank(["u1", "u2"], [["i3", "nope"], ["i5"]], history=[["i3"], []]),
        lambda c: c.similar_items(["i0", "nope"], k=2),
        lambda c: c.embed_user(["u1", "x"], [["i1", "i22"], []]),
        lambda c: c.embed_item(text=["robin", ""], image=[b"bad", b"\xff\xd8"]),
        lambda c: c.search(text=["robin"], k=2),
        lambda c: c.predict("encoder", {"text": ["ab"], "image": [""]}, outputs=["weights"]),
        lambda c: c.metadata("recommender"),
        lambda c: c.status("encoder"),
    ],
)
def test_both_clients_answer_alike(server, call):
    first, second = sync(server.address, call), asynchronous(server.address, call)
    assert type(first) is type(second)
    np.testing.assert_equal(second, first)


def test_many_calls_at_once_share_a_client(server):
    users = [f"u{n}" for n in range(40)]

    async def ask():
        async with AsyncClient(server.address, timeout_seconds=30) as client:
            return await asyncio.gather(*(client.recommend([user]) for user in users))

    together = sync(server.address, lambda c: c.recommend(users))
    assert [one.item_id[0].tolist() for one in asyncio.run(ask())] == together.item_id.tolist()


@WAYS
def test_a_busy_server_is_asked_again(ask):
    for trouble in (AWAY, BUSY):
        with Script(trouble, trouble, answer()) as script:
            assert ask(script.address, lambda c: c.recommend(["u1"])).item_id[0, 0] == "i1"
            assert len(script.requests) == 3


@WAYS
def test_other_refusals_are_not_asked_again(ask):
    with Script((CODE.INTERNAL, "no")) as script:
        with pytest.raises(CallError, match="refused recommender/recommend .INTERNAL.: no"):
            ask(script.address, lambda c: c.recommend(["u1"]))
        assert len(script.requests) == 1


@WAYS
def test_a_slow_server_is_given_up(ask):
    with Script(2.0) as script, pytest.raises(CallError, match="took longer than 0.2 seconds"):
        ask(script.address, lambda c: c.recommend(["u1"]), timeout_seconds=0.2)


@WAYS
def test_a_missing_server_model_or_signature_is_named(server, ask):
    with pytest.raises(ServingError, match="no answer from 127.0.0.1:1 .*local_server EXPORT"):
        ask("127.0.0.1:1", lambda c: c.status("recommender"), timeout_seconds=0.5)
    with pytest.raises(ServingError, match="does not serve nope: Servable not"):
        ask(server.address, lambda c: c.predict("nope", {}))
    with pytest.raises(ServingError, match=r"nope: .*embed_user, rank, recommend"):
        ask(server.address, lambda c: c.predict("recommender", {}, signature="nope"))
    with pytest.raises(ConfigError, match="user_id: wanted a list of strings"):
        ask(server.address, lambda c: c.recommend("u1"))


def test_an_awaited_call_can_be_given_up(server):
    """Its client goes on."""

    async def ask():
        async with AsyncClient(server.address) as client:
            with Script(1.0) as script:
                async with AsyncClient(script.address) as slow:
                    call = asyncio.create_task(slow.recommend(["u1"]))
                    while not script.requests:
                        await asyncio.sleep(0.01)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    script.steps[:] = [answer()]
                    assert (await slow.recommend(["u1"])).item_id[0, 0] == "i1"
            return await client.status("encoder")

    assert asyncio.run(ask())[0].version == 1


def test_the_async_client_belongs_to_an_event_loop():
    with pytest.raises(ConfigError, match="wanted to be made in a coroutine"):
        AsyncClient("localhost:1")


# Which version


@WAYS
def test_a_client_asks_for_its_version_or_label_unless_told_otherwise(ask):
    with Script(answer()) as script:
        for settings in ({"version": 3}, {"label": "canary"}, {"version": 0}, {}):
            ask(script.address, lambda c: c.recommend(["u1"]), **settings)
        ask(script.address, lambda c: c.predict("m", {}, label="old"), version=3)
        ask(script.address, lambda c: c.predict("m", {}), version=3)
    asked = [request.model_spec for request in script.requests]
    numbers = [s.version.value if s.HasField("version") else None for s in asked]
    assert numbers == [3, None, 0, None, None, 3]
    assert [spec.version_label for spec in asked] == ["", "canary", "", "", "old", ""]


@WAYS
def test_a_version_that_is_not_there_is_named_with_those_that_are(server, ask):
    with pytest.raises(ServingError, match=r"not serve this version of recommender: .*serves .1.,"):
        ask(server.address, lambda c: c.recommend(["u1"]), version=7)
    with pytest.raises(ServingError, match="no such label of encoder: .* label: old. Set it in"):
        ask(server.address, lambda c: c.metadata("encoder", label="old"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 1, "label": "old"}, "wanted a version or a label; got both, version 1"),
        ({"version": -1}, "version: wanted 0 to"),
        ({"version": 2**63}, "version: wanted 0 to"),
        ({"version": True}, "version: wanted a whole number; got True"),
        ({"version": "3"}, "version: wanted a whole number; got '3'"),
        ({"label": ""}, "label: wanted a name; got ''"),
    ],
)
def test_a_version_or_label_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Client("localhost:1", **settings)
    with Client("localhost:1") as client, pytest.raises(ConfigError, match=message):
        client.predict("m", {}, **settings)


# The channel


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds: wanted more than 0; got 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds: wanted more than 0; got nan"),
        ({"retries": -1}, "retries: wanted 0 or more; got -1"),
        ({"compression": "zip"}, "compression: wanted gzip, deflate or None; got 'zip'"),
        ({"max_message_bytes": 0}, "max_message_bytes: wanted 1 or more; got 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Client("localhost:1", **settings)


@WAYS
def test_a_message_over_the_limit_is_not_sent_again(ask):
    with Script(answer()) as script:
        with pytest.raises(CallError, match=r"larger than max .*max_message_bytes"):
            ask(script.address, lambda c: c.recommend(["u" * 999]), max_message_bytes=500)
        assert script.requests == []
        with pytest.raises(CallError, match=r"larger than max .*max_message_bytes"):
            ask(script.address, lambda c: c.predict("m", {}), max_message_bytes=60)
        assert len(script.requests) == 1


def sent_bytes(ask, **settings):
    """How many bytes a client sends over the wire for one large request."""
    sent = []

    def pass_on(source, target, sizes):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sizes.append(len(piece))
                target.sendall(piece)

    def stand_between(listener, address):
        here, _ = listener.accept()
        host, port = address.split(":")
        with here, socket.create_connection((host, int(port))) as there:
            back = threading.Thread(target=pass_on, args=[there, here, []], daemon=True)
            back.start()
            pass_on(here, there, sent)

    with Script(answer()) as script, socket.create_server(("127.0.0.1", 0)) as listener:
        between = threading.Thread(
            target=stand_between, args=[listener, script.address], daemon=True
        )
        between.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ask(address, lambda c: c.recommend(["u" * 40_000]), **settings)
        assert script.requests[0].inputs["user_id"].string_val[0] == b"u" * 40_000
    return sum(sent)


@WAYS
def test_requests_are_compressed_where_that_is_asked_for(ask):
    assert sent_bytes(ask) > 40_000
    for kind in ("gzip", "deflate"):
        assert sent_bytes(ask, compression=kind) < 4_000


@WAYS
def test_a_server_reads_what_was_compressed(server, ask):
    plain = ask(server.address, lambda c: c.recommend(["u1"]))
    for kind in ("gzip", "deflate"):
        found = ask(server.address, lambda c: c.recommend(["u1"]), compression=kind)
        assert found.item_id.tolist() == plain.item_id.tolist()


# Users, and content that cannot be read


@WAYS
def test_users_are_embedded(server, ask):
    found = ask(
        server.address, lambda c: c.embed_user(["u1", "x", "x"], [["i1", "i2"], ["i3"], []])
    )
    assert found.embedding.tolist() == [[4, 1], [2, 1], [0, 0]]
    assert found.known.dtype == np.bool_ and found.known.tolist() == [True, True, False]
    assert ask(server.address, lambda c: c.embed_user([])).embedding.shape == (0, 2)
    assert ask(server.address, lambda c: c.embed_user(["u1"])).embedding.tolist() == [[0, 1]]
    with pytest.raises(ConfigError, match="history: wanted 1 rows"):
        ask(server.address, lambda c: c.embed_user(["u1"], []))


@WAYS
def test_what_could_not_be_read_is_said(server, ask):
    call = lambda c: c.embed_item(text=["wren", "wren"], image=[b"bad", b"\xff\xd8"])  # noqa: E731
    embedded = ask(server.address, call)
    assert embedded.unreadable.tolist() == [[False, True], [False, False]]
    assert embedded.present.tolist() == [[True, False], [True, True]]
    found = ask(server.address, lambda c: c.search(image=[b"bad", b"\xff\xd8"], k=2))
    assert found.unreadable.tolist() == [[False, True], [False, False]]
    assert found.item_id[0].tolist() == ["", ""] and (found.score[0] == -1e9).all()
    assert found.item_id[1, 0] != ""


@WAYS
def test_an_older_export_says_nothing_of_it(tmp_path, ask):
    (tmp_path / "encoder").mkdir()
    toy_export.save(toy_export.Encoder(), tmp_path / "encoder" / "1")
    with LocalServer(tmp_path, rest_port=None) as old:
        embedded = ask(old.address, lambda c: c.embed_item(text=["a"]))
        assert embedded.weights.shape == (1, 2)
        assert (embedded.present, embedded.unreadable) == (None, None)
        assert ask(old.address, lambda c: c.search(text=["a"])).unreadable is None


def run(capsys, server, *arguments):
    code = command.main([*arguments, "--address", server.address])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_warns_of_what_could_not_be_read(capsys, server, tmp_path):
    broken, whole = tmp_path / "broken.jpg", tmp_path / "whole.jpg"
    broken.write_bytes(b"bad")
    whole.write_bytes(b"\xff\xd8")
    sent = ("--as-is",)
    warning = "serving.client: image: could not be read; answered without it.\n"
    code, out, err = run(
        capsys, server, "embed-item", *sent, "--text", "wren", "--image", str(broken)
    )
    assert (code, err) == (0, warning)
    assert out.splitlines()[2:] == ["present\ttrue false", "unreadable\tfalse true"]
    code, out, err = run(capsys, server, "search", *sent, "--image", str(broken))
    assert (code, out, err) == (0, "", warning + "serving.client: there is no such item.\n")
    code, out, err = run(capsys, server, "search", *sent, "--image", str(whole), "--json")
    assert (code, err) == (0, "") and json.loads(out)["unreadable"] == [[False, False]]


def test_of_several_that_came_the_command_does_not_guess():
    answered = FoundItems(
        np.array([["i1"]], object), np.ones([1, 1]), np.array([[False, True, False]])
    )
    warnings = command.warnings_of
    assert warnings(answered, ["image", "audio"]) == [
        "1 of image, audio: could not be read; answered without it."
    ]
    answered = answered._replace(unreadable=np.array([[True, True, False]]))
    assert warnings(answered, ["image", "audio"]) == [
        "image and audio: could not be read; answered without it."
    ]
    assert warnings(answered._replace(unreadable=None), ["image"]) == []


def test_the_command_embeds_a_user(capsys, server):
    code, out, err = run(capsys, server, "embed-user", "--user", "u1", "--history", "i1,i2")
    assert (code, out, err) == (0, "embedding\t4.0000 1.0000\nknown\ttrue\n", "")
    code, out, err = run(capsys, server, "embed-user", "--user", "x", "--json")
    assert code == 0 and json.loads(out) == {
        "embedding": [[0.0, 0.0]],
        "known": [False],
        "version": 1,
    }
    assert err == "serving.client: nothing is known of this user; the embedding says nothing.\n"


def test_the_command_prints_metadata(capsys, server):
    _, out, _ = run(capsys, server, "metadata")
    lines = [line.split("\t") for line in out.splitlines()]
    assert ["recommender/1", "embed_user", "in", "history", "string", "[any, any]"] in lines
    assert ["encoder/1", "search", "out", "unreadable", "bool", "[any, 2]"] in lines
    _, out, _ = run(capsys, server, "metadata", "--model", "encoder", "--json")
    signatures = json.loads(out)["encoder"]["signatures"]
    assert signatures["search"]["inputs"]["text"] == {"dtype": "string", "shape": [None]}


def test_the_command_asks_another_name_version_or_label(capsys, server):
    asked = ["recommend", "--user", "u1"]
    assert run(capsys, server, *asked, "--version", "1")[0] == 0
    for more, text in (
        (["--version", "9"], "does not serve this version of recommender"),
        (["--label", "old"], "has no such label of recommender"),
        (["--model", "other"], "does not serve other"),
    ):
        code, out, err = run(capsys, server, *asked, *more)
        assert (code, out) == (1, "") and text in err and err.count("\n") == 1
    assert run(capsys, server, *asked, "--version", "1", "--label", "old")[0] == 2
    assert run(capsys, server, "status", "--model", "other")[0] == 1


def test_content_that_is_too_large_is_not_sent(capsys, monkeypatch, server, tmp_path):
    monkeypatch.setattr(media, "MOST_CONTENT_BYTES", 2**20)
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(2**20))
    asked = ("embed-item", "--as-is", "--image", str(large))
    assert run(capsys, server, *asked)[0] == 0
    large.write_bytes(bytes(2**20 + 1))
    code, out, err = run(capsys, server, *asked)
    assert (code, out) == (2, "") and "large.jpg: wanted at most 1 MiB; it is larger" in err


def test_the_command_takes_lists_as_people_type_them_and_names_unknown_ids(capsys, server):
    _, plain, _ = run(capsys, server, "recommend", "--user", "u1", "--exclude", "i1,i2")
    code, out, err = run(capsys, server, "recommend", "--user", "u1", "--exclude", " i1, i2 ,")
    assert (code, out, err) == (0, plain, "")
    _, out, err = run(
        capsys,
        server,
        "recommend",
        "--user",
        "u1",
        "--exclude",
        "i1, i2, nope",
        "--history",
        "never",
    )
    assert err.splitlines() == [
        "serving.client: --history: no item has the id 'never'.",
        "serving.client: --exclude: no item has the id 'nope'.",
    ]
    _, _, err = run(capsys, server, "rank", "--user", "u1", "--items", "i1, gone")
    assert err == "serving.client: --items: no item has the id 'gone'.\n"
    _, _, err = run(capsys, server, "recommend", "--user", "stranger")
    told = "serving.client: --user: nothing is known of 'stranger'; answered by what is popular.\n"
    assert err == told
    _, _, err = run(capsys, server, "recommend", "--user", "stranger", "--history", "i1")
    assert err == told.replace("what is popular", "what was sent")


# The check


def test_the_check_takes_truths_and_covers_users(export, server):
    found = list(checks.check(export, server.address, rest_address=server.rest_address))
    assert [one for one in found if one.problem] == []
    names = [one.name for one in found]
    for part in (
        "recommender/1 embed_user: example 4 of 5 agrees over REST, row form",
        "recommender/1 embed_user: group 1, 4 different rows: batch of 32, rows independent",
        "encoder/1 embed_item: example 3 of 5 agrees over REST, columnar form",
    ):
        assert part in names


def test_a_signature_whose_examples_have_no_rows_is_not_covered(export, server, monkeypatch):
    whole = checks.read_examples

    def without_rows(path):
        examples = whole(path)
        requests = [
            Example(r.signature, *({n: v[:0] for n, v in part.items()} for part in r[1:]))
            if r.signature == "embed_user"
            else r
            for r in examples.requests
        ]
        return examples._replace(requests=requests)

    monkeypatch.setattr(checks, "read_examples", without_rows)
    found = checks.check(export, server.address)
    assert [(one.name, one.problem) for one in found if one.problem] == [
        ("recommender/1 has an example for each signature", "none for embed_user")
    ]


def test_only_true_and_false_are_truths_over_rest():
    kind = np.dtype(bool)
    assert rest_call._from_json("known", [True, False], kind).tolist() == [True, False]
    assert rest_call._from_json("known", [], kind).dtype == kind
    for values in ([1, 0], ["true"], [None]):
        with pytest.raises(ValueError, match="known: wanted true and false"):
            rest_call._from_json("known", values, kind)
