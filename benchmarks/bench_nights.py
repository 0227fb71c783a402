"""Does the live layer learn from what it shows? Writes a JSON file.

    python -m benchmarks.bench_nights --work work/nights --out benchmarks/results/nights.json

About ten minutes on two idle cores. On a planted world people with known tastes ask a gateway for
lists and click, and now and then find an item by themselves. Three such gateways serve the same
people side by side:

- `learning`: every night the log is exported, the model trained on from the last run, compared with
  it, exported, checked, tried as a canary on half of the people, and promoted or rolled back;
- `frozen`: never trained again; it sees the same new items, and histories grow, too;
- `no_slot`: the same without the exploration slot.

Each day a few new items are put. After the last night all are asked for the same: of each user's
ten most probable items by the planted truth, of those that the user met in none of them, how many
are among the first ten. One more night is spoiled on purpose: its version has to be refused by the
gate and, when it is tried on people despite that, rolled back.

Given again after a kill, it goes on after the last step that was finished.
"""

import argparse
import csv
import http.client
import json
import pathlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import commands
from benchmarks.facts import facts
from benchmarks.processes import (
    Server,
    gateway,
    model_server,
    must,
    post,
    put_item,
    run_forked,
    wait_until,
)
from data.sources.synthetic.files import write_source
from data.sources.synthetic.world import Truth, World
from mmrec_tf.evaluation.metrics import paired_bootstrap
from mmrec_tf.records.files import read_json, write_json
from serving.gateway.night.labels import Labels
from serving.gateway.night.nightly import Nights, decide_parser, night_parser

K = 10
KNOWN_ITEMS = 4  # that each user met before the first day
# How far down people look: each place is looked at that much less often than the one above it.
EXAMINED = 0.93
# Of people in a round find an item by themselves, before they look at their list.
OWN_SHARE = 0.6
SHARES = "stable=0.5,canary=0.5"
SETTINGS = {
    "modalities": '["text"]',
    "dim": "32",
    "text.weights": "random",
    "text.trainable_layers": "-1",
    "text.hidden_size": "32",
    "text.num_layers": "1",
    "text.vocabulary_size": "1000",
    "text.max_tokens": "24",
    "item.id_dropout": "0.5",
    "retrieval.softmax": "full",
    "training.batch_size": "512",
    "training.learning_rate": "0.003",
    "training.epochs": "12",
    "ranking.epochs": "0",
}
# What no one would set: it ruins a run without stopping it.
SPOILED = {"training.learning_rate": "3.0", "training.patience": "0", "training.epochs": "1"}


class Arm(NamedTuple):
    """A gateway: its labels of versions with shares, and the share of uniform exploration."""

    shares: str
    exploration: float


ARMS = {
    "learning": Arm(SHARES, 0.2),
    "frozen": Arm("frozen=1", 0.2),
    "no_slot": Arm("frozen=1", 0.0),
}


class Planted(NamedTuple):
    """The world: its truth, words of the items, and which items come on which day.

    Attributes:
      truth: Truth.
      words: title and description by item.
      known: <bool>[user, item], met before the first day.
      day: <int64>[item], the day on which it is put, from 1; 0 for those that were there before.
    """

    truth: Truth
    words: list[tuple[str, str]]
    known: NDArray[np.bool_]
    day: NDArray[np.int64]


def plant(world: World, folder: pathlib.Path, *, days: int, new_a_day: int) -> Planted:
    """Draws a world, and writes the tables of what is known before the first day."""
    folder.mkdir(parents=True)
    truth, drawn, _ = write_source(world, folder)
    with (folder / "items.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words = [(row["title"], row["description"]) for row in rows]
    rng = np.random.default_rng([world.seed, 1])
    # Of an item without words nobody could know anything.
    told = np.flatnonzero([bool(title or text) for title, text in words])
    day = np.zeros(world.num_items, np.int64)
    day[rng.choice(told, days * new_a_day, replace=False)] = np.repeat(
        np.arange(1, days + 1), new_a_day
    )
    known = np.zeros([world.num_users, world.num_items], bool)
    for met in drawn:
        for row, user in enumerate(range(met.users.start, met.users.stop)):
            items = met.items["train"][row].indices
            known[user, rng.permutation(items[day[items] == 0])[:KNOWN_ITEMS]] = True
    with (folder / "known_items.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item", "title", "description"])
        writer.writerows(
            [f"i{item}", *words[item]] for item in range(world.num_items) if day[item] == 0
        )
    with (folder / "known.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["user", "item", "timestamp"])
        for user, item in zip(*np.nonzero(known), strict=True):
            writer.writerow([f"u{user}", f"i{item}", 1_704_067_200 + int(rng.integers(10**7))])
    return Planted(truth, words, known, day)


class Simulation:
    """The world, its people, the servers, and what is known of each step.

    Attributes:
      told: the result so far.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.work = options, options.work.resolve()
        self.world = World(
            num_users=options.users,
            num_items=options.items,
            num_clusters=8,
            seed=options.seed,
            cold_share=0.0,
            popularity_exponent=0.5,
        )
        self.progress = self.work / "progress.json"
        self.told: dict[str, Any] = {"steps": [], "rounds": [], "nights": [], "clicked": {}}
        self.servers: list[Server] = []
        self.ports: dict[str, int] = {}

    def go(self) -> dict[str, Any]:
        """Everything; returns the result."""
        facts_of = {"commit": self.options.commit, "settings": self._settings()}
        if self.progress.exists():
            before = read_json(self.progress)
            if before["of"] == facts_of:
                self.told = before
                print(f"{self.progress}: going on after {before['steps'][-1:]}", flush=True)
        if self.told.get("of") != facts_of:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
            self.told["of"] = facts_of
        shutil.rmtree(self.work / "world", ignore_errors=True)
        self.planted = plant(
            self.world,
            self.work / "world",
            days=self.options.nights,
            new_a_day=self.options.new_items,
        )
        # A list is clicked as the truth says, relative to the best item of its user.
        all_users = self.planted.truth.probability(slice(None))
        self.taste = np.sqrt(all_users / all_users.max(axis=1, keepdims=True))
        self.step("base", self._base)
        try:
            self._serve()
            nights = self.options.nights
            for day in range(1, nights + 1):
                self.step(f"day {day}: morning", lambda day=day: self._morning(day))
                if day > 1:
                    self.step(f"day {day}: decision", self._decide)
                self.step(f"day {day}: evening", lambda day=day: self._round(f"d{day}b"))
                self.step(f"night {day}", self._night)
            self.step("last day", lambda: self._round(f"d{nights + 1}a"))
            self.step("last decision", self._decide)
            self.step("recall", self._recall)
            if not self.options.no_spoiled:
                self.step("spoiled night", self._spoiled)
                self.step("spoiled day", lambda: self._round("spoiled", only=("learning",)))
                self.step("spoiled decision", self._decide)
        finally:
            for server in self.servers:
                server.stop()
        return self._result()

    def _settings(self) -> dict[str, Any]:
        names = (
            "users",
            "items",
            "nights",
            "new_items",
            "seed",
            "epochs",
            "night_epochs",
            "no_spoiled",
        )
        return {name: getattr(self.options, name) for name in names}

    def step(self, name: str, act: Callable[[], None]) -> None:
        """Does a step once; what it changed is kept when it is done."""
        if name in self.told["steps"]:
            return
        start = time.monotonic()
        act()
        for arm in self.ports:
            _copy(self.work / f"{arm}.db", self.work / f"{arm}.kept.db")
        if (self.work / "models.config").exists():
            shutil.copy(self.work / "models.config", self.work / "models.kept")
        self.told["steps"].append(name)
        write_json(self.progress, self.told)
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)

    def _base(self) -> None:
        world, work = self.work / "world", self.work
        asked = ["--items", world / "known_items.csv", "--interactions", world / "known.csv"]
        asked += ["--image", "none", "--audio", "none", "--split", "leave-last-out"]
        must("data.prepare", "media-folder", *asked, "--out", work / "dataset", "--overwrite")
        settings = {**SETTINGS, "training.epochs": str(self.options.epochs)}
        sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        asked = ["--dataset", work / "dataset", "--out", work / "run", "--no-report"]
        must("mmrec_tf", "train", *asked, *sets)
        shutil.rmtree(work / "export", ignore_errors=True)
        must("mmrec_tf", "export", work / "run", "--out", work / "export", "--k", 50)
        labels = Labels(work / "models.config")
        labels.create(work / "export", stable=1, canary=1, frozen=1)

    def _serve(self) -> None:
        """Starts the server and the gateways, on what the last finished step left."""
        work = self.work
        if (work / "models.kept").exists():
            shutil.copy(work / "models.kept", work / "models.config")
        server = model_server(
            "--model-config-file",
            work / "models.config",
            "--model-config-file-poll-wait-seconds",
            0.5,
            "--allow-version-labels-for-unavailable-models",
        )
        self.servers.append(server.start())
        self.address = f"127.0.0.1:{server.port}"
        for name, arm in ARMS.items():
            state, kept = work / f"{name}.db", work / f"{name}.kept.db"
            for path in work.glob(f"{name}.db*"):
                path.unlink()
            if kept.exists():
                shutil.copy(kept, state)
            self._gateway(name, arm, arm.exploration)

    def _gateway(self, name: str, arm: Arm, exploration: float) -> None:
        asked = ["--address", self.address, "--state", self.work / f"{name}.db"]
        asked += ["--dataset", self.work / "dataset", "--arms", arm.shares]
        asked += ["--exploration", exploration, "--synchronous", "normal"]
        server = gateway(*asked, "--timeout-seconds", 5, "--encode-seconds", 20)
        self.servers.append(server.start())
        self.ports[name] = server.port

    def _put(self, name: str, items: Sequence[int]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name])
        for item in items:
            title, text = self.planted.words[item]
            put_item(connection, f"i{item}", {"title": title, "text": text})
        connection.close()

    def _morning(self, day: int) -> None:
        """New items come, and everyone looks once."""
        for name in ARMS:
            self._put(name, np.flatnonzero(self.planted.day == day).tolist())
        self._round(f"d{day}a")

    def _round(self, key: str, only: Sequence[str] = tuple(ARMS)) -> None:
        """Everyone asks each gateway for a list once, and clicks."""
        told: dict[str, Any] = {"round": key}
        for name in only:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[name])
            # The same chance for the same people in the same round, whatever they are shown.
            rng = np.random.default_rng([self.options.seed, *key.encode()])
            draws = rng.random([self.options.users, K])
            shown = np.zeros(3, np.int64)  # Impressions, those of new items, clicks.
            found = self._found_elsewhere(rng, key)
            for user in rng.permutation(self.options.users).tolist():
                if user in found:
                    event = {"id": f"{key}.u{user}.own", "user": f"u{user}", "type": "view"}
                    event["item"] = f"i{found[user]}"
                    post(connection, "/v1/events", {"events": [event]})
                    self._met(name, user, [found[user]])
                shown += self._look(connection, name, key, user, draws[user])
            connection.close()
            impressions, new, clicks = map(int, shown)
            told[name] = {"impressions": impressions, "of_new_items": new, "clicks": clicks}
        self.told["rounds"] = [one for one in self.told["rounds"] if one["round"] != key] + [told]

    def _look(
        self,
        connection: http.client.HTTPConnection,
        name: str,
        key: str,
        user: int,
        draws: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        shown = post(connection, "/v1/recommend", {"user": f"u{user}", "k": K})
        items = [int(one["item"][1:]) for one in shown["items"]]
        chance = self.taste[user, items] * EXAMINED ** np.arange(len(items))
        clicked = np.flatnonzero(draws[: len(items)] < chance).tolist()
        if clicked:
            events = [
                {
                    "id": f"{key}.u{user}.{place}",
                    "user": f"u{user}",
                    "item": f"i{items[place]}",
                    "type": "click",
                    "list": shown["list"],
                    "position": place,
                }
                for place in clicked
            ]
            post(connection, "/v1/events", {"events": events})
            self._met(name, user, [items[place] for place in clicked])
        return np.array([len(items), int((self.planted.day[items] > 0).sum()), len(clicked)])

    def _met(self, name: str, user: int, items: Sequence[int]) -> None:
        of_arm = self.told["clicked"].setdefault(name, {})
        of_arm[f"u{user}"] = sorted({*of_arm.get(f"u{user}", []), *items})

    def _found_elsewhere(self, rng: np.random.Generator, key: str) -> dict[int, int]:
        """What some users find by themselves, by the planted truth: the same in all gateways."""
        there = self.planted.day <= (self.options.nights if key == "spoiled" else int(key[1:-1]))
        chance = np.where(there, self.planted.truth.probability(slice(None)), 0.0)
        chance /= chance.sum(axis=1, keepdims=True)
        users = np.flatnonzero(rng.random(self.options.users) < OWN_SHARE).tolist()
        return {user: int(rng.choice(len(there), p=chance[user])) for user in users}

    def _nights(self, parser: argparse.ArgumentParser, *more: str) -> Nights:
        work = self.work
        asked = ["--state", str(work / "learning.db"), "--work", str(work / "nights")]
        asked += ["--models-config", str(work / "models.config"), "--address", self.address]
        return Nights(parser.parse_args([*asked, *more]), run_forked)

    def _asked(self) -> list[str]:
        work = self.work
        asked = ["--dataset", str(work / "dataset"), "--run", str(work / "run")]
        return [
            *asked,
            "--export",
            str(work / "export"),
            "--set",
            f"training.epochs={self.options.night_epochs}",
        ]

    def _night(self) -> None:
        start = time.monotonic()
        told = self._nights(night_parser(), *self._asked()).night()
        self._keep_night(told, seconds=round(time.monotonic() - start, 1))

    def _decide(self) -> None:
        if self.told["nights"][-1]["state"] != "canary":
            return  # The gate refused it.
        told = self._nights(decide_parser(), "--arms", SHARES).decide()
        self._keep_night(told)
        # The gateway learns of it by the next answer, and makes embeddings anew.
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["learning"])

        def settled() -> bool:
            wanted = Labels(self.work / "models.config").read()["stable"]
            lists = [post(connection, "/v1/recommend", {"user": f"u{user}"}) for user in range(9)]
            return all(one["version"] == wanted and not one["degraded"] for one in lists)

        wait_until(settled, seconds=60)

    def _keep_night(self, told: dict[str, Any], **more: Any) -> None:
        names = ("night", "state", "version", "stable", "gate", "canary", "log", "dataset_sha256")
        kept = {name: told[name] for name in names if name in told}
        kept["log"] = {name: kept["log"][name] for name in ("until", "seeded", "logged", "items")}
        before = [one for one in self.told["nights"] if one["night"] != told["night"]]
        old = next((one for one in self.told["nights"] if one["night"] == told["night"]), {})
        self.told["nights"] = [*before, {**old, **kept, **more}]

    def _spoiled(self) -> None:
        sets = [part for n, value in SPOILED.items() for part in ("--set", f"{n}={value}")]
        told = self._nights(night_parser(), *self._asked(), *sets, "--despite-gate").night()
        self._keep_night({**told}, spoiled=True)

    def _recall(self) -> None:
        """What each gateway finds of the truth, without the exploration slot."""
        met = self.planted.known.copy()
        for of_arm in self.told["clicked"].values():
            for user, items in of_arm.items():
                met[int(user[1:]), items] = True
        score = np.where(met, -1.0, self.planted.truth.probability(slice(None)))
        best = np.argsort(-score, axis=1, kind="stable")[:, :K]
        found: dict[str, NDArray[np.float64]] = {}
        for name in ("learning", "frozen"):
            self._gateway(f"{name}", ARMS[name], 0.0)
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[name])
            values = []
            for user in range(self.options.users):
                gone = [f"i{item}" for item in np.flatnonzero(met[user])]
                asked = {"user": f"u{user}", "k": K, "exclude": gone}
                items = [
                    int(o["item"][1:]) for o in post(connection, "/v1/recommend", asked)["items"]
                ]
                values.append(len({*items} & {*best[user].tolist()}) / K)
            connection.close()
            found[name] = np.array(values)
        mean, low, high = paired_bootstrap(found["learning"], found["frozen"])
        self.told["recall_of_the_truth"] = {
            **{name: float(values.mean()) for name, values in found.items()},
            "chance": K / self.options.items,
            "difference": [mean, low, high],
            "new_items_among_the_best": float((self.planted.day[best] > 0).mean()),
        }

    def _result(self) -> dict[str, Any]:
        rounds = [one for one in self.told["rounds"] if "frozen" in one]
        share = {
            name: sum(one[name]["of_new_items"] for one in rounds)
            / sum(one[name]["impressions"] for one in rounds)
            for name in ARMS
        }
        lists = self.options.users
        clicks = {name: [one[name]["clicks"] / lists for one in rounds] for name in ARMS}
        hashes = self.told["nights"][0]["dataset_sha256"]
        return {
            "settings": self._settings(),
            "dataset_sha256_of_the_first_night": hashes,
            "recall_of_the_truth": self.told["recall_of_the_truth"],
            "new_items_share_of_impressions": share,
            "clicks_a_list": clicks,
            "nights": self.told["nights"],
            "rounds": self.told["rounds"],
        }


def _copy(state: pathlib.Path, kept: pathlib.Path) -> None:
    """A consistent copy of a state that is in use, aside first."""
    partial = kept.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with sqlite3.connect(state) as source, sqlite3.connect(partial) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    partial.rename(kept)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--work", type=pathlib.Path, required=True, help="where it goes on from")
    made.add_argument("--out", type=pathlib.Path, required=True)
    made.add_argument("--users", type=int, default=240)
    made.add_argument("--items", type=int, default=240, help="in all (%(default)s)")
    made.add_argument("--new-items", type=int, default=8, help="of them, a day (%(default)s)")
    made.add_argument("--nights", type=int, default=5)
    made.add_argument("--epochs", type=int, default=12)
    made.add_argument("--night-epochs", type=int, default=8)
    made.add_argument("--no-spoiled", action="store_true", help="no spoiled night at the end")
    made.add_argument("--seed", type=int, default=0)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, and writes the result."""
    options = parser().parse_args(arguments)
    given = "python -m benchmarks.bench_nights --work WORK --out FILE"
    for name in ("users", "items", "new_items", "nights", "epochs", "night_epochs", "seed"):
        value = getattr(options, name)
        if value != parser().get_default(name):
            given += f" --{name.replace('_', '-')} {value}"
    head = facts("Does the live layer learn from what it shows?", command=given)
    options.commit = head["commit"]
    commands.imports()
    start = time.monotonic()
    found = Simulation(options).go()
    result = {**head, "seed": options.seed, **found}
    write_json(options.out, {**result, "seconds_since_started": round(time.monotonic() - start, 1)})
    told = ("recall_of_the_truth", "new_items_share_of_impressions", "clicks_a_list")
    print(json.dumps({name: found[name] for name in told}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
