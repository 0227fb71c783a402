"""What does the live layer cost and lose, and how soon does it follow? Writes a JSON file.

    python -m benchmarks.bench_gateway --work work/gateway --out benchmarks/results/gateway.json

Below ten minutes on two idle cores. Without EXPORT and DATASET a small made-up world is trained
first. Given again for the same commit, it goes on with the parts that are missing; `--only` names
some of them:

- `latency`: the direct asynchronous client and two gateways on the same local server take turns
  with the same histories, one gateway without fresh items and one with 256; `POST /v1/events` takes
  turns with the bare commit of a store. All ratios are of one run;
- `clicks`: people click what they are shown, and items are withdrawn: how many of 10,000 lists
  that follow a click still hold what was clicked, or anything that was withdrawn before;
- `fresh`: how long after `PUT` an item is in a list, beside `embed_item` alone;
- `down`: lists while the model server is stopped, then while the breaker is open;
- `kills_redis`, `kills_sqlite`: `benchmarks.gateway_kills`;
- `suites`: the tests of the stores and of the page, in a browser.
"""

import argparse
import asyncio
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import commands
from benchmarks.commands import begin
from benchmarks.facts import ROOT, facts
from benchmarks.gateway_kills import kills
from benchmarks.processes import (
    Server,
    dies_with_parent,
    gateway,
    model_server,
    must,
    post,
    put_item,
    wait_until,
)
from mmrec_tf.records.files import read_json, write_json

WORLD = "--users 400 --items 300".split()
SETTINGS = {
    "modalities": '["text"]',
    "text.weights": "random",
    "text.hidden_size": "32",
    "text.num_layers": "1",
    "training.epochs": "4",
    "ranking.epochs": "1",
}
USERS, FRESH, K = 200, 256, 10
MOST_KILLS = 20
# Before anything is measured: connections, and what a first call of its kind compiles.
WARM_UPS = 20
# Between a click and the next list; people take longer.
PAUSE_SECONDS = 0.05
SUITES = ("tests/serving/gateway/test_stores.py", "tests/serving/gateway/test_page.py")
# What should be reached, by the name of the figure.
TARGETS = {
    "recommend_p50": 1.25,
    "recommend_p99": 1.5,
    "fresh_p50": 1.10,
    "event_p50": 3.0,
    "clicks_not_reflected": 0,
    "withdrawn_shown": 0,
    "fresh_worst_beyond_seconds": 0.0,
    "down_p99_seconds": 0.275,
    "open_p50": 0.1,
    "answers_5xx": 0,
    "events_lost": 0,
    "events_twice": 0,
    "datasets_that_differ": 0,
    "kills_left_out": 0,
    "tests_failed": 0,
}


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": 1000 * statistics.median(ordered), "p99_ms": 1000 * p99}


def connect(server: Server) -> http.client.HTTPConnection:
    """A connection that is kept."""
    return http.client.HTTPConnection("127.0.0.1", server.port)


def put_fresh(server: Server, count: int) -> None:
    """Puts new items of words."""
    connection = connect(server)
    for number in range(count):
        put_item(connection, f"new{number}", {"title": f"a new thing {number}"})
    connection.close()


class Bench:
    """The parts, on one export and dataset."""

    def __init__(self, options: argparse.Namespace, export: pathlib.Path, dataset: pathlib.Path):
        """Describes it."""
        self.options, self.export, self.dataset = options, export, dataset
        self.folder = options.work / "states"

    def _gateway(self, models: Server, name: str, *more: object) -> Server:
        state = self.folder / f"{name}.db"
        for path in self.folder.glob(f"{name}.db*"):
            path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = ["--address", f"127.0.0.1:{models.port}", "--state", state, "--no-media"]
        return gateway(*asked, "--dataset", self.dataset, *more)

    def latency(self) -> dict[str, Any]:
        """See above."""
        models = model_server(self.export).start()
        plain = self._gateway(models, "plain", "--timeout-seconds", 5).start()
        fresh = self._gateway(models, "fresh", "--timeout-seconds", 5).start()
        put_fresh(fresh, FRESH)
        # gRPC and TensorFlow's messages are not for a process that forks others.
        told = self._forked(lambda: asyncio.run(self._turns(models, plain, fresh)))
        for server in (plain, fresh, models):
            server.stop()
        return told

    def _forked(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        out = self.options.work / "part.json"

        def call() -> int:
            write_json(out, act())
            return 0

        ended = begin(dies_with_parent(call)).finish(timeout_seconds=600)
        if ended.status:
            raise SystemExit(ended.said[-3000:])
        return dict(read_json(out))

    async def _turns(self, models: Server, plain: Server, fresh: Server) -> dict[str, Any]:
        from serving.client import AsyncClient
        from serving.gateway.store.records import Event
        from serving.gateway.store.sqlite import SqliteStore

        store = SqliteStore(self.folder / "plain.db")
        bare = SqliteStore(self.folder / "bare.db")
        await store.open()
        await bare.open()
        names = ("direct", "plain", "plain_paused", "fresh_at_once", "fresh_again")
        names += ("fresh_paused", "commit", "event")
        took: dict[str, list[float]] = {name: [] for name in names}
        lists, news = connect(plain), connect(fresh)

        def timed(name: str, connection: http.client.HTTPConnection, user: str) -> None:
            at = time.perf_counter()
            post(connection, "/v1/recommend", {"user": user, "k": K})
            took[name].append(time.perf_counter() - at)

        async with AsyncClient(f"127.0.0.1:{models.port}", timeout_seconds=5) as client:
            for number in range(WARM_UPS + self.options.calls):
                if number == WARM_UPS:
                    for values in took.values():
                        values.clear()
                user = f"u{number % USERS}"
                history = (await store.history(user)).liked
                at = time.perf_counter()
                await client.recommend([user], [history], exclude=[history], k=K)
                took["direct"].append(time.perf_counter() - at)
                timed("plain", lists, user)
                # At once after a click, again, and a moment after a click; after the same pause
                # without fresh items, too, as whoever sleeps wakes up slowly.
                click = {"user": user, "item": f"i{number % 200}", "type": "click"}
                click["id"] = f"turn.{number}"
                post(news, "/v1/events", {"events": [click]})
                timed("fresh_at_once", news, user)
                timed("fresh_again", news, user)
                post(news, "/v1/events", {"events": [{**click, "id": f"turn.{number}b"}]})
                await asyncio.sleep(PAUSE_SECONDS)
                timed("fresh_paused", news, user)
                await asyncio.sleep(PAUSE_SECONDS)
                timed("plain_paused", lists, user)
                event = Event(id=str(number), user=user, item="i1", type="click", time=number)
                at = time.perf_counter()
                await bare.add_events([event])
                took["commit"].append(time.perf_counter() - at)
                one = {"id": f"e{number}", "user": f"e{user}", "item": "i1", "type": "click"}
                at = time.perf_counter()
                post(lists, "/v1/events", {"events": [one]})
                took["event"].append(time.perf_counter() - at)
        await store.close()
        await bare.close()
        found = {name: milliseconds(values) for name, values in took.items()}
        ratio = {
            "recommend_p50": found["plain"]["p50_ms"] / found["direct"]["p50_ms"],
            "recommend_p99": found["plain"]["p99_ms"] / found["direct"]["p99_ms"],
            # Some time after a click, at once after one, and again.
            "fresh_p50": found["fresh_paused"]["p50_ms"] / found["plain_paused"]["p50_ms"],
            "fresh_at_once_p50": found["fresh_at_once"]["p50_ms"] / found["plain"]["p50_ms"],
            "fresh_again_p50": found["fresh_again"]["p50_ms"] / found["plain"]["p50_ms"],
            "event_p50": found["event"]["p50_ms"] / found["commit"]["p50_ms"],
        }
        return {"milliseconds": found, "calls": self.options.calls, "ratios": ratio}

    def clicks(self) -> dict[str, Any]:
        """See above."""
        models = model_server(self.export).start()
        server = self._gateway(models, "clicks", "--timeout-seconds", 5).start()
        put_fresh(server, 20)
        # No thread is left when the next process is forked.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            gone: set[str] = set()
            each = self.options.lists // 4
            parts = list(pool.map(lambda n: self._click(server, n, each, gone), range(4)))
        server.stop()
        models.stop()
        names = ("lists", "clicks", "not_reflected", "withdrawn_shown", "degraded")
        told = {name: sum(part[name] for part in parts) for name in names}
        return {**told, "withdrawn": len(gone)}

    def _click(self, server: Server, thread: int, count: int, gone: set[str]) -> dict[str, int]:
        connection = connect(server)
        told = dict.fromkeys(("lists", "clicks", "not_reflected", "withdrawn_shown", "degraded"), 0)
        rng = random.Random(thread)
        # Each user is of one thread. A click is withdrawn from the pool of the user's lists, and
        # after some dozens another user begins.
        user, met, clicked = "", set[str](), ""
        for number in range(count):
            if number % 40 == 0:
                user, met, clicked = f"c{thread}.{number}", set(), ""
            before = frozenset(gone)  # What a 200 was answered for before the list is asked for.
            shown = post(connection, "/v1/recommend", {"user": user, "k": K})
            items = [one["item"] for one in shown["items"]]
            told["lists"] += 1
            told["degraded"] += bool(set(shown["degraded"]) - {"fresh"})
            told["withdrawn_shown"] += len(before & {*items})
            # The newest click, and those before, are out of the list, and known of the user.
            told["not_reflected"] += bool(met & {*items})
            if number % 100 == 7 and len(gone) < 100:
                item = rng.choice(items)
                connection.request("DELETE", f"/v1/items/{item}")
                reply = connection.getresponse()
                reply.read()
                if reply.status != 204:
                    raise SystemExit(f"DELETE {item}: {reply.status}")
                gone.add(item)
            clicked = rng.choice(items)
            event = {"id": f"{user}.{number}", "user": user, "item": clicked, "type": "click"}
            event |= {"list": shown["list"], "position": items.index(clicked)}
            answer = post(connection, "/v1/events", {"events": [event]})
            if answer["accepted"] != 1:
                raise SystemExit(f"{event}: {answer}")
            told["clicks"] += 1
            met.add(clicked)
        connection.close()
        return told

    def fresh(self) -> dict[str, Any]:
        """See above."""
        models = model_server(self.export).start()
        server = self._gateway(models, "seconds", "--timeout-seconds", 5).start()
        told = self._forked(lambda: asyncio.run(self._eligible(models, server)))
        server.stop()
        models.stop()
        return told

    async def _eligible(self, models: Server, server: Server) -> dict[str, Any]:
        from serving.client import AsyncClient

        connection = connect(server)
        alone, eligible = list[float](), list[float]()
        async with AsyncClient(f"127.0.0.1:{models.port}", timeout_seconds=30) as client:
            for number in range(40):
                at = time.perf_counter()
                await client.embed_item(text=[f"a thing {number} alone"])
                alone.append(time.perf_counter() - at)
                at = time.perf_counter()
                mark = f"batch=b{number}"
                put_item(
                    connection, f"n{number}", {"title": f"a thing {number}", "categories": mark}
                )
                while True:
                    asked = {"user": f"u{number}", "allow": [mark], "k": 3}
                    shown = post(connection, "/v1/recommend", asked)
                    if f"n{number}" in [one["item"] for one in shown["items"]]:
                        break
                eligible.append(time.perf_counter() - at)
        worst, p50 = max(eligible), statistics.median(alone)
        return {
            "embed_item": milliseconds(alone),
            "eligible": milliseconds(eligible),
            "worst_seconds": worst,
            "allowed_seconds": 2 * p50 + 0.2,
            "worst_beyond_seconds": max(0.0, worst - 2 * p50 - 0.2),
        }

    def down(self) -> dict[str, Any]:
        """See above."""
        models = model_server(self.export).start()
        server = self._gateway(models, "down").start()
        connection, status = connect(server), dict[int, int]()

        def ask(number: int) -> tuple[float, list[str]]:
            body = json.dumps({"user": f"u{number % USERS}", "k": K})
            at = time.perf_counter()
            connection.request("POST", "/v1/recommend", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            told = reply.read()
            took = time.perf_counter() - at
            status[reply.status] = status.get(reply.status, 0) + 1
            return took, json.loads(told)["degraded"]

        normal = [ask(number)[0] for number in range(WARM_UPS + 200)][WARM_UPS:]
        # It is there still, and does not answer.
        models.signal(signal.SIGSTOP)
        stopped = [ask(number)[0] for number in range(60)]
        slow = [seconds for seconds in stopped if seconds > 0.1]
        open_ = sorted(ask(number)[0] for number in range(400))
        models.signal(signal.SIGCONT)
        models.stop()
        # Gone: calls are refused.
        gone = [ask(number)[0] for number in range(200)]
        models.start()
        connection.close()  # Idle connections are closed by the server, too.
        back = time.perf_counter()
        wait_until(lambda: ask(1)[1] == [], seconds=30)
        recovered = time.perf_counter() - back
        server.stop()
        models.stop()
        return {
            "normal": milliseconds(normal),
            "stopped": {**milliseconds(stopped), "lists_that_waited": len(slow)},
            "breaker_open": milliseconds(open_),
            "gone": milliseconds(gone),
            "recovered_seconds": recovered,
            "worst_seconds": max([*stopped, *open_, *gone]),
            "p99_seconds": milliseconds(stopped)["p99_ms"] / 1000,
            "open_p50": milliseconds(open_)["p50_ms"] / milliseconds(normal)["p50_ms"],
            "statuses": {str(code): count for code, count in sorted(status.items())},
            "answers_5xx": sum(count for code, count in status.items() if code >= 500),
        }

    def kills_redis(self) -> dict[str, Any]:
        """See above."""
        if shutil.which("redis-server") is None:
            return {"left_out": "needs redis-server on the PATH: apt-get install redis-server"}
        return self._kills(redis=True)

    def kills_sqlite(self) -> dict[str, Any]:
        """See above."""
        return self._kills(redis=False)

    def _kills(self, *, redis: bool) -> dict[str, Any]:
        folder = self.options.work / f"kills_{'redis' if redis else 'sqlite'}"
        shutil.rmtree(folder, ignore_errors=True)
        return kills(
            self.options.times,
            export=self.export,
            dataset=self.dataset,
            folder=folder,
            redis=redis,
        )

    def suites(self) -> dict[str, Any]:
        """See above."""
        command = [sys.executable, "-m", "pytest", "-q", "-rs", *SUITES]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ}, timeout=600
        )
        lines = done.stdout.strip().splitlines()
        counts = {
            name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped)", lines[-1])
        }
        skipped = [line for line in lines if line.startswith("SKIPPED")]
        return {"command": " ".join(["pytest", *SUITES]), **counts, "skipped_because": skipped}


PARTS = (
    "latency",
    "fresh",
    "down",
    "clicks",
    "kills_redis",
    "kills_sqlite",
    "suites",
)


def figures(parts: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, beside what was reached; figures that are missing are left out."""
    found: dict[str, Any] = dict(parts.get("latency", {}).get("ratios", {}))
    if "clicks" in parts:
        found["clicks_not_reflected"] = parts["clicks"]["not_reflected"]
        found["withdrawn_shown"] = parts["clicks"]["withdrawn_shown"]
    if "fresh" in parts:
        found["fresh_worst_beyond_seconds"] = parts["fresh"]["worst_beyond_seconds"]
    if "down" in parts:
        found["down_p99_seconds"] = parts["down"]["p99_seconds"]
        found["open_p50"] = parts["down"]["open_p50"]
        found["answers_5xx"] = parts["down"]["answers_5xx"]
    killed = [
        parts[name] for name in ("kills_redis", "kills_sqlite") if "lost" in parts.get(name, {})
    ]
    if killed:
        found["events_lost"] = sum(one["lost"] for one in killed)
        found["events_twice"] = sum(one["twice"] for one in killed)
        found["datasets_that_differ"] = sum(not one["same_dataset_twice"] for one in killed)
        # Of 20 of each part; fewer where the machine was too slow for them.
        found["kills_left_out"] = sum(
            max(0, MOST_KILLS - count) for one in killed for count in one["kills"].values()
        )
    if "passed" in parts.get("suites", {}):
        found["tests_failed"] = parts["suites"].get("failed", 0)
    return {
        name: {"wanted": TARGETS[name], "found": value, "reached": value <= TARGETS[name]}
        if name in TARGETS
        else {"found": value}
        for name, value in found.items()
    }


def make_world(work: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A small made-up world: its export and its dataset, made once."""
    dataset, run, export = (work / name for name in ("dataset", "run", "export"))
    if not dataset.exists():
        must("data.prepare", "synthetic", "--out", dataset, *WORLD)
    sets = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    if not (run / "metrics.json").exists():
        must("mmrec_tf", "train", "--dataset", dataset, "--out", run, "--no-report", *sets)
    if not (export / "encoder" / "1").exists() or not (export / "recommender" / "1").exists():
        shutil.rmtree(export, ignore_errors=True)
        must("mmrec_tf", "export", run, "--out", export)
    return export, dataset


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--work", type=pathlib.Path, required=True, help="for states and the world")
    made.add_argument("--out", type=pathlib.Path, required=True)
    made.add_argument("--export", type=pathlib.Path, help="instead of a made-up world's")
    made.add_argument("--dataset", type=pathlib.Path, help="that of the export")
    made.add_argument("--only", help=f"some of {','.join(PARTS)}, separated by commas")
    made.add_argument("--calls", type=int, default=400, help="of each kind (%(default)s)")
    made.add_argument("--lists", type=int, default=10_000, help="of clicks (%(default)s)")
    made.add_argument(
        "--times", type=int, default=MOST_KILLS, help="each part is killed (%(default)s)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that are missing, and writes the result after each."""
    given = parser()
    options = given.parse_args(arguments)
    names = options.only.split(",") if options.only else list(PARTS)
    if set(names) - set(PARTS):
        given.error(f"--only: wanted some of {','.join(PARTS)}; got {options.only}")
    if (options.export is None) != (options.dataset is None):
        given.error("--export, --dataset: wanted both or neither")
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks.bench_gateway --work WORK --out FILE"
    changed = {
        name: getattr(options, name)
        for name in ("calls", "lists", "times")
        if getattr(options, name) != given.get_default(name)
    }
    command += "".join(f" --{name} {value}" for name, value in changed.items())
    result: dict[str, Any] = facts(
        "What does the live layer cost and lose, and how soon does it follow?",
        command=command,
    )
    result |= {"seed": 0, "figures": {}, "seconds": {}, "parts": {}}
    if options.out.exists():
        before = read_json(options.out)
        same = all(before.get(name) == result[name] for name in ("commit", "command"))
        if same and not result["commit"].endswith("-dirty"):
            result |= {name: before[name] for name in ("figures", "seconds", "parts")}
            print(f"{options.out}: going on", flush=True)
    commands.imports()
    if options.export is None:
        export, dataset = make_world(options.work)
    else:
        export, dataset = options.export.resolve(), options.dataset.resolve()
    bench = Bench(options, export, dataset)
    for name in names:
        if name in result["parts"]:
            continue
        start = time.monotonic()
        result["parts"][name] = getattr(bench, name)()
        result["seconds"][name] = round(time.monotonic() - start, 1)
        result["figures"] = figures(result["parts"])
        write_json(options.out, result)
        print(f"{name}: {result['seconds'][name]} s", flush=True)
    print(json.dumps(result["figures"], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
