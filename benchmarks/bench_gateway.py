"""What does the live layer cost, and what does it lose? Writes a JSON file.

    python -m benchmarks.bench_gateway latency EXPORT --dataset DATASET --out work/gateway.json
    python -m benchmarks.bench_gateway kills --times 20 --out work/gateway_kills.json

`latency`: the direct asynchronous client and the gateway take turns, by the same histories on the
same local server, without fresh items and with 32; `POST /v1/events` beside the bare commit of a
store. All ratios are of one run.

`kills`: four senders send events with ids without a pause while the gateway is killed (SIGKILL) and
started anew; what got no answer is sent again. Every event with a 200 has to be in the log exactly
once.
"""

import argparse
import asyncio
import concurrent.futures
import http.client
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from benchmarks.facts import facts
from mmrec_tf.records.files import write_json
from serving.client import AsyncClient
from serving.gateway.store.records import Event
from serving.gateway.store.sqlite import SqliteStore

USERS, CALLS, FRESH = 200, 300, 32


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A gateway in a process of its own, and its port."""
    command = [sys.executable, "-m", "serving.gateway", "--port", "0", "--no-page"]
    process = subprocess.Popen(
        [*command, "--events-per-second", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = process.stdout.readline()
    return process, int(re.search(r":(\d+)$", line.strip())[1])


def post(connection: http.client.HTTPConnection, path: str, body: object) -> tuple[int, bytes]:
    """Posts JSON; returns the status and the body."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read()


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": 1000 * statistics.median(ordered), "p99_ms": 1000 * p99}


def clicks(user: str, number: int) -> dict:
    """The body of one click."""
    return {"events": [{"id": f"{user}.{number}", "user": user, "item": "i1", "type": "click"}]}


async def latency(export: str, dataset: str) -> dict:
    """See above."""
    server = subprocess.Popen(
        [sys.executable, "-m", "serving.local_server", export, "--no-rest", "--port", "8590"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    server.stdout.readline()
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        state = pathlib.Path(folder) / "state.db"
        arguments = ["--address", "127.0.0.1:8590", "--dataset", dataset, "--state", str(state)]
        process, port = start(*arguments, "--no-media", "--timeout-seconds", "5")
        store, bare = SqliteStore(state), SqliteStore(pathlib.Path(folder) / "bare.db")
        await store.open()
        await bare.open()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        async with AsyncClient("127.0.0.1:8590", timeout_seconds=5) as client:
            for name, fresh in (("without", 0), ("fresh", FRESH)):
                for number in range(fresh):
                    body = f"title=a+new+thing+{number}".encode()
                    kind = {"Content-Type": "application/x-www-form-urlencoded"}
                    connection.request("PUT", f"/v1/items/new{number}", body, kind)
                    connection.getresponse().read()
                took: dict[str, list[float]] = {
                    n: [] for n in ("direct", "gateway", "commit", "event")
                }
                for number in range(CALLS):
                    user = f"u{number % USERS}"
                    history = (await store.history(user)).liked
                    at = time.perf_counter()
                    await client.recommend([user], [history])
                    took["direct"].append(time.perf_counter() - at)
                    at = time.perf_counter()
                    post(connection, "/v1/recommend", {"user": user})
                    took["gateway"].append(time.perf_counter() - at)
                    event = Event(
                        id=f"{name}{number}", user=user, item="i1", type="click", time=number
                    )
                    at = time.perf_counter()
                    await bare.add_events([event])
                    took["commit"].append(time.perf_counter() - at)
                    at = time.perf_counter()
                    post(connection, "/v1/events", clicks(f"{name}{user}", number))
                    took["event"].append(time.perf_counter() - at)
                found[name] = {part: milliseconds(values) for part, values in took.items()}
        await store.close()
        await bare.close()
        for one in (process, server):
            one.terminate()
            one.wait()
    plain, fresh = found["without"], found["fresh"]
    ratios = {
        "recommend_p50": plain["gateway"]["p50_ms"] / plain["direct"]["p50_ms"],
        "recommend_p99": plain["gateway"]["p99_ms"] / plain["direct"]["p99_ms"],
        "fresh_p50": fresh["gateway"]["p50_ms"] / plain["gateway"]["p50_ms"],
        "event_p50": plain["event"]["p50_ms"] / plain["commit"]["p50_ms"],
    }
    return {"latency": found, "ratios": ratios}


def kills(times: int) -> dict:
    """See above."""
    told, lock, stop = set[str](), threading.Lock(), threading.Event()
    port = [0]

    def send(sender: int) -> int:
        number, tries = 0, 0
        while not stop.is_set():
            body, tries = clicks(f"s{sender}", number), tries + 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port[0], timeout=5)
                status, _ = post(connection, "/v1/events", body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status == 200:
                with lock:
                    told.add(body["events"][0]["id"])
                number += 1
        return tries

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        state = pathlib.Path(folder) / "state.db"
        # Events need no models: nothing listens there.
        arguments = ["--address", "127.0.0.1:9", "--state", str(state)]
        process, port[0] = start(*arguments)
        with concurrent.futures.ThreadPoolExecutor(4) as senders:
            running = [senders.submit(send, sender) for sender in range(4)]
            for _ in range(times):
                time.sleep(rng.uniform(0.2, 2.0))
                process.kill()
                process.wait()
                process, port[0] = start(*arguments)
            time.sleep(1.0)
            stop.set()
            tries = sum(one.result() for one in running)
        process.terminate()
        process.wait()

        async def read() -> list[str]:
            store = SqliteStore(state)
            await store.open()
            events = await store.events(0, 2**62, 2**31)
            await store.close()
            return [one.id for one in events]

        log = asyncio.run(read())
    return {
        "kills": times,
        "sent": tries,
        "acknowledged": len(told),
        "lost": len(told - set(log)),
        "twice": len(log) - len(set(log)),
    }


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measured = commands.add_parser("latency")
    measured.add_argument("export")
    measured.add_argument("--dataset", required=True)
    killed = commands.add_parser("kills")
    killed.add_argument("--times", type=int, default=20)
    for one in (measured, killed):
        one.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    if options.command == "latency":
        found = asyncio.run(latency(options.export, options.dataset))
    else:
        found = kills(options.times)
    command = f"python -m benchmarks.bench_gateway {options.command}"
    told = facts("What does the live layer cost, and what does it lose?", command=command)
    write_json(options.out, {**told, **found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
