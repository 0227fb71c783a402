"""The gateway in front of a server that speaks gRPC, with hand-made models."""

import asyncio
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from support import asgi, toy_export
from support.gateway_models import picture

from serving.client import AsyncClient
from serving.gateway.http.app import build_app
from serving.gateway.http.keys import Keys
from serving.gateway.service import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store.sqlite import SqliteStore
from serving.local_server import LocalServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    toy_export.export(root, "recommender", 1, toy_export.Recommender(1))
    toy_export.export(root, "encoder", 1, toy_export.Encoder())
    with LocalServer(root, port=0, rest_port=None, poll_seconds=0) as found:
        found.root = root
        yield found


@pytest.mark.slow
def test_one_command_serves_an_export_and_leaves_nothing_behind(server, tmp_path):
    """Through SIGTERM, in processes of its own."""
    command = [sys.executable, "-m", "serving.gateway", str(server.root), "--port", "0"]
    command += ["--state", str(tmp_path / "state.db")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address = re.search(r"on (http://\S+)", process.stdout.readline())[1]
        body = json.dumps({"user": "u1"}).encode()
        with urllib.request.urlopen(f"{address}/v1/recommend", body) as reply:
            shown = json.load(reply)
        with urllib.request.urlopen(f"{address}/?user=u1") as reply:
            page = reply.read().decode()
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=60)
    assert len(shown["items"]) == 4 and "For you" in page
    assert process.returncode == 0, logged
    (child,) = children.split()
    assert not pathlib.Path(f"/proc/{child}").exists()
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    assert "/v1/recommend" in [line.get("route") for line in lines]


def run(tmp_path, address, act, **settings):
    def client(label, seconds):
        return AsyncClient(address, timeout_seconds=seconds, retries=1, label=label or None)

    async def whole():
        store = SqliteStore(tmp_path / "state.db", synchronous="normal")
        gateway = Gateway(store, client, Settings(exploration=0.0, **settings))
        async with asgi.running(build_app(gateway, Keys(None))) as call:
            return await act(call, gateway)

    return asyncio.run(whole())


def test_lists_new_items_and_search(server, tmp_path):
    async def act(call, gateway):
        asked = {"user": "u1", "history": ["i1"], "allow": ["parity=even"], "k": 3}
        first = await call("POST", "/v1/recommend", json_=asked)
        files = [("image", "a.jpg", picture())]
        put = await call("PUT", "/v1/items/new", form={"text": "robin"}, files=files)
        again = await call("POST", "/v1/recommend", json_={"user": "u1", "k": 10})
        found = await call("POST", "/v1/search", form={"text": "robin"})
        near = await call("GET", "/v1/items/i3/similar")
        return [reply.json() for reply in (first, put, again, found, near)], put.status

    (first, put, again, found, near), status = run(
        tmp_path, server.address, act, deadline_seconds=5.0
    )
    assert first["version"] == 1 and first["degraded"] == []
    assert {int(one["item"][1:]) % 2 for one in first["items"]} == {0}
    assert first["items"][0]["why"]["item"] in ("", "i1")
    assert status == 201 and put["state"] == "live" and len(put["weights"]) == 2
    assert "new" in [one["item"] for one in again["items"] if one["slot"] == "fresh"]
    assert found["items"][0]["item"] == "i5" and near["items"][0]["item"] in ("i2", "i4")


def test_nothing_fails_where_nobody_answers(tmp_path):
    async def act(call, gateway):
        took, seen = [], []
        for _ in range(12):
            start = time.monotonic()
            reply = await call("POST", "/v1/recommend", json_={"user": "u1"})
            took.append(time.monotonic() - start)
            seen.append((reply.status, reply.json()["degraded"]))
        return took, seen

    # Nothing listens there.
    took, seen = run(tmp_path, "127.0.0.1:9", act, deadline_seconds=0.25)
    assert seen == [(200, ["model"])] * 12
    assert max(took) < 0.25 * 1.1 + 0.2 and sorted(took[6:])[2] < 0.05
