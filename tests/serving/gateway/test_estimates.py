"""Estimates from logs whose truth is known."""

import asyncio
import json

import numpy as np
import pytest

from mmrec_tf.errors import ConfigError
from serving.gateway.__main__ import main
from serving.gateway.estimates import estimators
from serving.gateway.estimates.command import arms_report, policy_report
from serving.gateway.estimates.estimators import Draws
from serving.gateway.estimates.log_reading import Log, Policy, read_log
from serving.gateway.lists.exploration import MOST_POOL, draw, pool_of, propensities
from serving.gateway.store.records import Candidate, Event, Shown, ShownList
from serving.gateway.store.sqlite import SqliteStore

POOL = 8
LOGGED = Policy(0.5, 1.0)
TARGET = Policy(0.1, 0.5)


def clicks(score: np.ndarray) -> np.ndarray:
    """The truth, which no score tells exactly: a chance that peaks in between."""
    return 0.05 + 0.6 * np.exp(-((score - 0.7) ** 2))


def simulate(rng, number: int) -> tuple[Log, float]:
    """Logged draws, and what `TARGET` would really earn on the same pools."""
    lists, liked, truth = [], {}, []
    for place in range(number):
        score = rng.normal(size=POOL)
        logged = propensities(score, exploration=LOGGED[0], temperature=LOGGED[1])
        target = propensities(score, exploration=TARGET[0], temperature=TARGET[1])
        truth.append(float(target @ clicks(score)))
        drawn = rng.choice(POOL, p=logged)
        pool = [
            Candidate(item=f"i{n}", score=float(s), propensity=float(p))
            for n, (s, p) in enumerate(zip(score, logged, strict=True))
        ]
        one = Shown(item=f"i{drawn}", slot="explore", propensity=float(logged[drawn]))
        shown = ShownList(
            id=f"l{place}", user=f"u{place}", time=place, items=[one], pool=pool, answered=1
        )
        lists.append(shown)
        if rng.random() < clicks(score)[drawn]:
            liked[shown.id] = {one.item}
    return Log(lists, liked), float(np.mean(truth))


def test_estimates_find_the_truth_and_their_intervals_hold_it():
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(("ips", "snips", "doubly robust"), 0)
    errors = {name: [] for name in covered}
    for _ in range(40):
        log, truth = simulate(rng, 300)
        for one in policy_report(log, TARGET)["estimate"]:
            covered[one["name"]] += one["low"] <= truth <= one["high"]
            errors[one["name"]].append(one["mean"] - truth)
    for name, values in errors.items():
        # Unbiased, within three standard errors.
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)), name
        assert covered[name] >= 34, (name, covered)  # 38 of 40 are expected.
    # The logged mean is another figure: an estimate that returned it would be caught.
    assert abs(truth - policy_report(log, TARGET)["logged"]) > 0.03
    # The model takes variance away.
    assert np.std(errors["doubly robust"]) < np.std(errors["ips"])


def test_values_worked_out_by_hand():
    draws = Draws(
        reward=np.array([1.0, 0.0, 1.0, 0.0]),
        logged=np.array([0.5, 0.5, 0.25, 0.25]),
        target=np.array([0.25, 0.25, 0.5, 0.5]),
        predicted=np.array([0.5, 0.5, 0.5, 0.5]),
        expected=np.array([0.5, 0.5, 0.5, 0.5]),
    )
    # Weights .5, .5, 2, 2: sum 5, of squares 8.5.
    assert estimators.effective(estimators.weights(draws)) == pytest.approx(25 / 8.5)
    assert estimators.ips(draws).mean == pytest.approx((0.5 + 2) / 4)
    assert estimators.snips(draws).mean == pytest.approx(2.5 / 5)
    # .5 and .5 x .5, -.5 x .5, 2 x .5, -2 x .5, which sum to 0.
    assert estimators.doubly_robust(draws).mean == pytest.approx(0.5)


def test_too_little_information_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"effective sample size of 100 at least; got \d"):
        policy_report(simulate(rng, 120)[0], Policy(0.0, 0.1))
    with pytest.raises(ConfigError, match="wanted draws of the exploration slot in the log; got 0"):
        policy_report(Log([], {}), TARGET)


def arms(rng, counts, chances):
    lists, liked, number = [], {}, 0
    for (arm, count), chance in zip(counts.items(), chances, strict=True):
        for _ in range(count):
            number += 1
            for turn in range(2):
                shown = ShownList(
                    id=f"l{number}.{turn}",
                    user=f"u{number}",
                    time=number,
                    items=[Shown(item="a")],
                    answered=1,
                    version=1,
                    arm=arm,
                )
                lists.append(shown)
                if rng.random() < chance:
                    liked[shown.id] = {"a"}
    return Log(lists, liked)


def test_arms_are_compared_by_user():
    rng = np.random.default_rng(0)
    log = arms(rng, {"stable": 900, "canary": 300}, [0.3, 0.4])
    told = arms_report(log, {"stable": 0.75, "canary": 0.25})
    (found,) = told["compared"]
    assert 0 < found["low"] < found["difference"] < found["high"] < 0.3
    assert told["sample_ratio_p"] > 0.9
    same = arms_report(arms(rng, {"a": 400, "b": 400}, [0.3, 0.3]), {"a": 0.5, "b": 0.5})
    assert same["compared"][0]["low"] < 0 < same["compared"][0]["high"]


def test_the_interval_of_a_difference_holds_the_truth():
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        control, treated = rng.normal(0.3, 1.0, 200), rng.normal(0.5, 2.0, 300)
        found = estimators.compare("b", control, treated)
        held += found.low <= 0.2 <= found.high
    assert 276 <= held <= 295  # 285 are expected.


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [
        ({"a": 500, "b": 400}, {"a": 0.5, "b": 0.5}, "happens by chance with p = 0.00086"),
        ({"a": 500, "b": 50}, {"a": 0.9, "b": 0.1}, "100 users of each arm at least; got a 500"),
        ({"a": 200, "b": 200, "c": 9}, {"a": 0.5, "b": 0.5}, "has users of c, too"),
        ({"a": 200}, {"a": 1.0}, "wanted two arms at least"),
    ],
)
def test_arms_that_tell_nothing_are_refused(counts, shares, message):
    log = arms(np.random.default_rng(0), counts, [0.3] * len(counts))
    with pytest.raises(ConfigError, match=message):
        arms_report(log, shares)


def test_propensities_are_those_of_the_formula():
    got = propensities([0.0, np.log(3.0)], exploration=0.2, temperature=1.0)
    # .1 each, and .8 times one and three quarters.
    np.testing.assert_allclose(got, [0.1 + 0.2, 0.1 + 0.6])
    assert propensities([1e4, -1e4], exploration=0.0, temperature=0.01).tolist() == [1.0, 0.0]


def test_draws_are_as_often_as_logged():
    import random

    pool = [Shown(item=name, score=score) for name, score in (("a", 0.0), ("b", 1.0), ("c", 2.0))]
    rng, counts = random.Random(0), {}
    for _ in range(4000):
        drawn, _, logged = draw(pool, frozenset("a"), exploration=0.3, temperature=1.0, rng=rng)
        counts[drawn.item] = counts.get(drawn.item, 0) + 1
    for one in logged:
        assert counts[one.item] / 4000 == pytest.approx(one.propensity, abs=0.03)
        assert one.fresh == (one.item == "a")


def test_the_pool_holds_fresh_items_and_those_shown_least():
    rest = [Shown(item=f"i{n:03d}", score=float(n)) for n in range(100)]
    counts = {one.item: place for place, one in enumerate(rest)}
    pool = pool_of(rest, [Shown(item="new", score=0.0)], counts)
    assert len(pool) == MOST_POOL
    assert [one.item for one in pool] == [*(f"i{n:03d}" for n in range(49)), "new"]


def test_the_command_reads_a_state(tmp_path, capsys):
    log, truth = simulate(np.random.default_rng(1), 300)
    state = tmp_path / "gateway.db"

    async def fill():
        store = SqliteStore(state, synchronous="normal")
        await store.open()
        await asyncio.gather(*(store.add_list(shown) for shown in log.lists))
        for number, (list_id, items) in enumerate(log.liked.items()):
            for again in range(2):  # The same click twice, with ids of their own.
                one = Event(
                    id=f"e{number}.{again}",
                    user=f"u{list_id[1:]}",
                    item=min(items),
                    type="click",
                    time=number,
                    list=list_id,
                )
                await store.add_events([one])
        found = await read_log(store)
        await store.close()
        return found

    found = asyncio.run(fill())
    assert found.liked == log.liked and len(found.lists) == 300
    asked = ["estimate", "--state", str(state), "--exploration", "0.1", "--temperature", "0.5"]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["draws"] == 300 and told["effective"] > 100
    assert all(one["low"] < truth < one["high"] for one in told["estimate"])
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[0] == "draws\t300"
    assert main(["estimate", "--state", str(state), "--arms", "a=0.5,b=0.5"]) == 2
    assert main(["estimate", "--state", str(state), "--exploration", "2"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("command", [["estimate"], ["export", "--out", "tables"]])
def test_a_state_that_is_not_there_is_named_and_not_made(tmp_path, monkeypatch, capsys, command):
    """A typing error would be answered by the figures, or the tables, of an empty log."""
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--state", "gatway.db"]) == 2
    assert "wanted the state of a gateway; there is no file gatway.db" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
