"""Drift: silent between halves of one world, loud when something has changed."""

import json

import numpy as np
import pytest
from support import vector_world

import mmrec_tf as mm
from mmrec_tf.evaluation.drift import Traffic, measure, read_requests, traffic_of, two_samples

NUM_ITEMS, NUM_USERS, CLUSTERS = 120, 150, 6


def world(seed, *, popularity=None):
    """Both halves of a world's traffic. Vectors show clusters, which users follow."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, CLUSTERS, NUM_ITEMS)
    vectors = {
        name: (2 * np.eye(8)[cluster] + rng.normal(size=[NUM_ITEMS, 8])).astype(np.float32)
        for name in ("text", "image")
    }
    present = {name: rng.random(NUM_ITEMS) < 0.9 for name in vectors}
    items = [f"i{n}" for n in range(NUM_ITEMS)]
    weight = rng.permutation(np.arange(1, NUM_ITEMS + 1) ** -0.7)
    users = [f"u{n}" for n in range(NUM_USERS)]

    def half(turned=False):
        met = []
        for user in range(NUM_USERS):
            chance = np.where(cluster == user % CLUSTERS, 1.0, 0.05)
            chance = chance * (1 / weight if turned else weight)
            drawn = rng.choice(NUM_ITEMS, 6, replace=False, p=chance / chance.sum())
            met.append([items[n] for n in drawn])
        return Traffic("half", users, met, items, vectors, present, rng.normal(size=NUM_USERS))

    return half(), half(), half(turned=True), rng


def alarms(reference, new):
    return {(c["kind"], c["of"]) for c in measure(reference, new)["checks"] if c["alarm"]}


def shuffled(traffic, name, rng):
    order = rng.permutation(NUM_ITEMS)
    vectors = {**traffic.vectors, name: traffic.vectors[name][order]}
    present = {**traffic.present, name: traffic.present[name][order]}
    return traffic._replace(vectors=vectors, present=present)


def renamed(traffic, share):
    """A share of the items has ids that nobody knows."""
    other = {f"i{n}": f"new{n}" for n in range(int(NUM_ITEMS * share))}
    met = [[other.get(item, item) for item in items] for items in traffic.met]
    return traffic._replace(met=met, items=[other.get(item, item) for item in traffic.items])


def test_no_alarm_between_halves_and_one_where_something_changed():
    first, second, turned, rng = world(0)
    found = measure(first, second)
    assert not found["alarm"], [c for c in found["checks"] if c["alarm"]]
    assert {c["kind"] for c in found["checks"]} == {
        *("mean", "covariance", "discrepancy", "together", "coherence", "changed content"),
        *("unknown items", "unknown users", "popularity", "score"),
    }
    json.dumps(found)
    assert ("popularity", "") in alarms(first, turned)
    known = alarms(first, shuffled(second, "image", rng))
    assert ("changed content", "image") in known and ("changed content", "text") not in known
    # Where no item is known by its id, what modalities say of one item and of one user tells.
    strangers = renamed(shuffled(second, "image", rng), 1.0)
    assert {("together", "text, image"), ("coherence", "image")} & alarms(first, strangers)
    assert ("unknown items", "") in alarms(first, renamed(second, 0.2))
    scored = second._replace(scores=second.scores + 1.0)
    assert alarms(first, scored) == {("score", "")}
    moved = {**second.vectors, "text": second.vectors["text"] * 0.5}
    moved_alarms = alarms(first, second._replace(vectors=moved))
    assert {("covariance", "text"), ("discrepancy", "text")} <= moved_alarms


@pytest.mark.slow
def test_at_most_one_false_alarm_in_twenty_worlds():
    loud = []
    for seed in range(20):
        first, second, turned, rng = world(100 + seed)
        if found := alarms(first, second):
            loud.append((seed, found))
        assert ("popularity", "") in alarms(first, turned)
        strangers = renamed(shuffled(second, "image", rng), 1.0)
        assert {("together", "text, image"), ("coherence", "image")} & alarms(first, strangers)
        assert ("unknown items", "") in alarms(first, renamed(second, 0.2))
    assert len(loud) <= 1, loud


def test_p_values_are_uniform_under_the_hypothesis_and_small_without_it():
    """Of 60 draws of one source a fifth is below 0.2, give or take; of two sources all are."""
    rng = np.random.default_rng(0)
    label = two_samples.deals(20, 20, rng)
    same, other = [], []
    for _ in range(60):
        both = two_samples.whiten(rng.normal(size=[20, 3]), rng.normal(size=[20, 3]))
        same.append(two_samples.discrepancy(two_samples.kernel(both), label).p)
    for _ in range(5):
        both = two_samples.whiten(rng.normal(size=[20, 3]), 2 + rng.normal(size=[20, 3]))
        other.append(two_samples.discrepancy(two_samples.kernel(both), label).p)
    assert 0.08 < np.mean(np.array(same) < 0.2) < 0.35
    assert max(other) < 0.001


def test_the_discrepancy_by_hand():
    """Two rows each: the mean of both pairs within, less twice the mean of the four between."""
    kernel = np.array(
        [[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.4], [0.2, 0.3, 1, 0.8], [0.1, 0.4, 0.8, 1]]
    )
    label = np.array([[True, True, False, False]])
    value = two_samples.discrepancy(kernel, label).value
    assert value == pytest.approx(0.9 + 0.8 - 2 * (0.2 + 0.1 + 0.3 + 0.4) / 4, abs=1e-6)


def test_requests_are_read_and_what_is_none_is_refused(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"user": "u1", "history": ["i1", ""], "score": 2}\n\n{"history": []}\n')
    found = read_requests(path)
    assert found.users == ["u1", ""] and found.met == [["i1"], []] and found.scores is None
    for line, why in (
        (b"[1]", "line 1: wanted an object"),
        (b"{", "line 1: wanted JSON"),
        (b"\xe9", "line 1: wanted JSON"),
        (b"[" * 100_000, "line 1: wanted JSON"),
        (b"", "there are none"),
    ):
        path.write_bytes(line + b"\n")
        with pytest.raises(mm.DatasetError, match=why):
            read_requests(path)


def test_traffic_of_a_dataset_and_the_command(tmp_path, capsys):
    from mmrec_tf.__main__ import main

    one = vector_world.write(tmp_path / "one", seed=0)
    traffic = traffic_of(mm.open_dataset(one))
    assert set(traffic.vectors) == {"taste", "noise"} and not traffic.present["noise"][6]
    assert len(traffic.met) == 60 and len(traffic.met[0]) == 7
    path = tmp_path / "requests.jsonl"
    rows = [{"user": u, "history": met} for u, met in zip(traffic.users, traffic.met, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["drift", "--reference", str(one), "--new", str(path)]
    page = tmp_path / "drift.html"
    assert main([*asked, "--out", str(page)]) == 0
    assert "no alarm" in capsys.readouterr().out and "<svg" in page.read_text()
    rows = [{"user": "u1", "history": ["strange"]}] * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*asked, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["alarm"]
