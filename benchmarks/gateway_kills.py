"""What the live layer loses when its parts are killed: a part of `benchmarks.bench_gateway`.

Senders in processes of their own send events with ids without a pause, and send again what got no
answer, while the gateway, its Redis and its model server are killed (SIGKILL) at random moments and
started anew. Every event with a 200 has to be in the log exactly once, and the log has to give the
same dataset twice.
"""

import http.client
import json
import os
import pathlib
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.commands import begin
from benchmarks.processes import (
    Server,
    dies_with_parent,
    gateway,
    model_server,
    must,
    redis_server,
    wait_until,
)
from mmrec_tf.records.files import read_json

SENDERS, LISTERS = 4, 1
_LONGEST_SECONDS = 300.0


def sender(name: str, port: int, items: Sequence[str], folder: pathlib.Path) -> Callable[[], int]:
    """Sends events until a file `stop` is there; writes the ids of those with a 200 down."""

    def send() -> int:
        number, tries = 0, 0
        log = os.open(folder / f"{name}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while not (folder / "stop").exists():
            # Two events a request: all or nothing of it may be told.
            ids = [f"{name}.{number}.{place}" for place in range(2)]
            body = {
                "events": [
                    {
                        "id": one,
                        "user": f"u{(number + place) % 50}",
                        "item": items[(7 * number + place) % len(items)],
                        "type": "click",
                    }
                    for place, one in enumerate(ids)
                ]
            }
            tries += 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                kind = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/events", json.dumps(body), kind)
                reply = connection.getresponse()
                told = reply.read()
                connection.close()
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            if reply.status == 200:
                answer = json.loads(told)
                if answer["rejected"] or answer["accepted"] + answer["duplicates"] != len(ids):
                    raise SystemExit(f"{ids}: {answer}")
                os.write(log, "".join(f"{one}\n" for one in ids).encode())
                number += 1
        (folder / f"{name}.tries").write_text(str(tries), "utf-8")
        return 0

    return send


def lister(name: str, port: int, folder: pathlib.Path) -> Callable[[], int]:
    """Asks for lists until a file `stop` is there; counts what was answered, by status."""

    def ask() -> int:
        counts: dict[str, int] = {}
        number = 0
        while not (folder / "stop").exists():
            number += 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                body, kind = {"user": f"u{number % 50}"}, {"Content-Type": "application/json"}
                connection.request("POST", "/v1/recommend", json.dumps(body), kind)
                reply = connection.getresponse()
                reply.read()
                connection.close()
                outcome = str(reply.status)
            except (OSError, http.client.HTTPException):
                outcome = "no answer"  # The gateway is what was killed.
                time.sleep(0.02)
            counts[outcome] = counts.get(outcome, 0) + 1
        (folder / f"{name}.lists").write_text(json.dumps(counts), "utf-8")
        return 0

    return ask


def kills(
    times: int, *, export: pathlib.Path, dataset: pathlib.Path, folder: pathlib.Path, redis: bool
) -> dict[str, Any]:
    """Kills each part so many times under load; with `redis` false the state is SQLite's."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    items = [f"i{number}" for number in range(40)]
    models = model_server(export).start()
    victims: dict[str, Server] = {"model server": models}
    state, more = str(folder / "state.db"), []
    if redis:
        victims["redis"] = redis_server(folder / "redis").start()
        state = f"redis://127.0.0.1:{victims['redis'].port}/0"
        more = ["--spool", folder / "spool.db"]
    asked = ["--address", f"127.0.0.1:{models.port}", "--state", state, *more]
    # Seeded once, not by each start.
    victims["gateway"] = gateway(*asked)
    first = gateway(*asked, "--dataset", dataset, "--no-media").start()
    first.stop()
    port = victims["gateway"].start().port
    load = [
        begin(dies_with_parent(sender(f"s{n}", port, items, folder))) for n in range(SENDERS)
    ] + [begin(dies_with_parent(lister(f"l{n}", port, folder))) for n in range(LISTERS)]
    # Down from a kill until it answers again; others are killed meanwhile.
    left = dict.fromkeys(victims, times)
    down: dict[str, float] = {}
    end = time.monotonic() + _LONGEST_SECONDS
    while any(left.values()) and time.monotonic() < end:
        for name in list(down):
            # One that ended, as its Redis was away just then, is started again by whoever keeps it.
            if victims[name].process is None or victims[name].process.poll():
                victims[name].start(wait=False)
            elif victims[name].up():
                del down[name]
        ready = [name for name, count in left.items() if count and name not in down]
        if ready:
            name = rng.choice(ready)
            victims[name].stop()
            victims[name].start(wait=False)
            down[name] = time.monotonic()
            left[name] -= 1
        time.sleep(rng.uniform(0.05, 0.4))
    while down:
        for name in list(down):
            if victims[name].process is None or victims[name].process.poll():
                victims[name].start(wait=False)
            elif victims[name].up():
                del down[name]
        time.sleep(0.05)
    time.sleep(1.0)
    (folder / "stop").touch()
    for one in load:
        ended = one.finish(timeout_seconds=30)
        if ended.status:
            raise SystemExit(f"a sender ended with {ended.status}: {ended.said[-2000:]}")
    if redis:
        _await_spool(victims["gateway"].port)
    victims["gateway"].stop()
    models.stop()
    told = _replayed(state, dataset, folder)
    if redis:
        victims["redis"].stop()
    acknowledged = [
        line for path in folder.glob("*.acknowledged") for line in path.read_text("utf-8").split()
    ]
    log = told.pop("log")
    lists: dict[str, int] = {}
    for path in folder.glob("*.lists"):
        for outcome, count in json.loads(path.read_text("utf-8")).items():
            lists[outcome] = lists.get(outcome, 0) + count
    return {
        "kills": {name: times - count for name, count in left.items()},
        "requests": sum(int(path.read_text("utf-8")) for path in folder.glob("*.tries")),
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - set(log)),
        "twice": len(log) - len(set(log)),
        "lists": lists,
        **told,
    }


def _await_spool(port: int) -> None:
    """Until nothing waits in the spool."""

    def empty() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        found = re.search(r"^mmrec_gateway_spooled_events ([\d.e+]+)$", text, re.M)
        return found is not None and float(found[1]) == 0

    wait_until(empty, seconds=60)


def _replayed(state: str, dataset: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """The ids in the log, and whether it gives the same dataset when it is replayed twice."""
    ids = must("benchmarks.event_ids", state).split()
    hashes = []
    for name in ("once", "again"):
        tables, prepared = folder / f"tables-{name}", folder / f"dataset-{name}"
        must("serving.gateway", "export", "--state", state, "--dataset", dataset, "--out", tables)
        asked = ["--items", tables / "items.csv", "--interactions", tables / "interactions.csv"]
        asked += ["--image", "none", "--audio", "none", "--split", "time"]
        asked += ["--event-weights", "seed=1,click=1"]
        must("data.prepare", "media-folder", *asked, "--out", prepared)
        hashes.append(read_json(prepared / "manifest.json")["sha256"])
    return {"log": ids, "events": len(ids), "same_dataset_twice": hashes[0] == hashes[1]}
