"""What a dataset takes: positives, distinct ones, the k-core, and their split."""

import argparse

import numpy as np
import pytest

import mmrec_tf as mm
from data.interactions import options as selection_options
from data.interactions import select as selection
from data.interactions import splits
from data.interactions.options import SelectionOptions
from data.interactions.read import InteractionColumns

TRAIN, VALID, TEST = range(3)
RULES = {
    "given": {"split": "given"},
    "random": {"split": "random"},
    "random, other shares": {"split": "random", "valid_share": 0.2, "test_share": 0.3},
    "leave-last-out": {"split": "leave-last-out"},
    "cold-items": {"split": "cold-items"},
    "cold-items, three shots": {"split": "cold-items", "shots": 3, "seed": 1},
    "time": {"split": "time"},
    "time, from dates": {
        "split": "time",
        "valid_from": "1970-01-01T00:10",
        "test_from": "1970-01-01 00:13+00:00",
    },
}


def events(*rows: tuple, ratings=None, weights=None, event_weights=None) -> splits.Events:
    """Rows of user, item, timestamp and, where it is given, split."""
    padded = [(*row, TRAIN)[:4] for row in rows]
    user, item, timestamp, split = np.array(padded, np.int64).reshape(-1, 4).T

    def column(values):
        return None if values is None else np.array(values, np.float32)

    return splits.Events(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        timestamp=timestamp,
        rating=column(ratings),
        weight=column(weights),
        split=split.astype(np.int8),
        event_weight=column(event_weights),
    )


def select(given: splits.Events, has_split=False, **options) -> selection.Selection:
    users = [f"u{n}" for n in range(int(given.user.max(initial=0)) + 1)]
    items = [f"i{n}" for n in range(int(given.item.max(initial=0)) + 1)]
    return selection.select(
        given, SelectionOptions(**options), has_split=has_split, users=users, items=items
    )


def log(number=4000, *, seed=0) -> splits.Events:
    """A log with repeats, ratings, types, and a split of its own; many fit no 3-core."""
    rng = np.random.default_rng(seed)
    rows = zip(
        (rng.zipf(1.4, number) % 300).tolist(),
        (rng.zipf(1.4, number) % 200).tolist(),
        rng.integers(1, 1000, number).tolist(),
        rng.choice(3, number, p=[0.8, 0.1, 0.1]).tolist(),
        strict=True,
    )
    return events(
        *rows,
        ratings=rng.integers(1, 6, number),
        weights=rng.integers(1, 3, number),
        event_weights=rng.choice([0, 1, 5], number),
    )


# All rules


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_lost_and_nothing_is_in_two_splits(rule):
    given = log()
    done = select(given, k_core=3, min_rating=2, event_weights={"any": 1}, **RULES[rule])
    kept = done.events
    assert len(kept.user) + sum(done.counts.values()) == len(given.user)
    assert all(number > 0 for number in done.counts.values())
    pairs = set(zip(kept.user.tolist(), kept.item.tolist(), strict=True))
    assert len(pairs) == len(kept.user)
    assert set(kept.split.tolist()) == {TRAIN, VALID, TEST}
    assert kept.rating.min() >= 2
    assert done.split == RULES[rule]["split"]
    # Each user and item that stays has three, counted over all splits; numbers have no gaps.
    for stays, numbers in ((done.users, kept.user), (done.items, kept.item)):
        count = np.bincount(numbers)
        assert count.min() >= 3 and len(count) == stays.sum() < len(stays)


@pytest.mark.parametrize("rule", RULES)
def test_those_that_stay_keep_their_interactions(rule):
    given = log()._replace(event_weight=None)
    done = select(given, k_core=3, min_rating=2, **RULES[rule])
    old_user, old_item = np.flatnonzero(done.users), np.flatnonzero(done.items)
    rows = {}
    columns = (given.user, given.item, given.timestamp, given.rating)
    for user, item, *rest in zip(*(c.tolist() for c in columns), strict=True):
        rows.setdefault((user, item), []).append(rest)
    columns = (old_user[done.events.user], old_item[done.events.item])
    columns += (done.events.timestamp, done.events.rating)
    for user, item, *rest in zip(*(c.tolist() for c in columns), strict=True):
        assert rest[0] == min(time for time, rating in rows[user, item] if rating >= 2)
        assert rest in rows[user, item]


@pytest.mark.parametrize("rule", ["time", "time, from dates"])
def test_time_never_runs_backwards(rule):
    done = select(log(), **RULES[rule])
    times = [done.events.timestamp[done.events.split == split] for split in range(3)]
    assert times[0].max() < done.borders[0] <= times[1].min()
    assert times[1].max() < done.borders[1] <= times[2].min()
    assert done.ordered
    if rule == "time":
        share = np.bincount(done.events.split) / len(done.events.split)
        np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.01)
    else:
        assert done.borders == (600, 780)


def test_leave_last_out_follows_the_time_of_each_user():
    done = select(log(), split="leave-last-out")
    for user in range(int(done.events.user.max()) + 1):
        own = done.events.user == user
        split, time = done.events.split[own], done.events.timestamp[own]
        held_out = 1 if own.sum() >= 3 else 0
        assert (split == VALID).sum() == (split == TEST).sum() == held_out
        if held_out:
            assert time[split == TRAIN].max() <= time[split == VALID] <= time[split == TEST]
    assert done.ordered and done.borders is None


def test_random_shares():
    done = select(log(), split="random", valid_share=0.2, test_share=0.3)
    share = np.bincount(done.events.split) / len(done.events.split)
    # Somewhat less than asked, as the only interaction of a user stays in train.
    np.testing.assert_allclose(share, [0.5, 0.2, 0.3], atol=0.04)
    assert not done.ordered and done.borders is None
    train = done.events.user[done.events.split == TRAIN]
    assert set(train) == set(done.events.user)


def test_users_whose_every_item_is_cold_are_told_of():
    # One item in three is test, and nobody took more than one.
    done = select(events((0, 0, 1), (1, 1, 2), (2, 2, 3)), split="cold-items", valid_share=0.0)
    assert np.bincount(done.events.split).tolist() == [2, 0, 1]
    assert done.warnings == [
        "split cold-items: of 1 of 3 users all interactions are held out, so that they are "
        "measured as strangers."
    ]


def test_the_order_of_rows_makes_no_difference():
    given = log(500)
    order = np.random.default_rng(0).permutation(len(given.user))

    def rows(done):
        columns = (done.events.user, done.events.item, done.events.timestamp, done.events.split)
        return set(zip(*(c.tolist() for c in columns), strict=True))

    for rule in ("random", "time", "cold-items, three shots"):
        options = {**RULES[rule], "k_core": 2}
        assert rows(select(given.take(order), **options)) == rows(select(given, **options))


def test_the_split_by_default():
    given = events((0, 1, 10, TRAIN), (0, 2, 20, TEST), (0, 3, 30, TRAIN))
    done = select(given, has_split=True)
    assert (done.split, done.events.split.tolist()) == ("given", [TRAIN, TEST, TRAIN])
    assert not done.ordered  # looked up
    done = select(given)
    assert (done.split, done.events.split.tolist()) == ("leave-last-out", [TRAIN, VALID, TEST])
    # One that is asked for passes over what the source says.
    assert select(given, has_split=True, split="leave-last-out").split == "leave-last-out"


def test_a_given_split_that_follows_time_is_ordered():
    assert select(events((0, 1, 10, TRAIN), (0, 2, 20, TEST)), has_split=True).ordered


# What counts


def test_rated_below_is_dropped_before_repeats_are():
    given = events((0, 1, 10), (0, 1, 20), (0, 2, 30), (0, 3, 40), ratings=[1, 4, 3.5, 3.4])
    done = select(given, min_rating=3.5)
    assert done.events.rating.tolist() == [4, 3.5]
    assert done.events.timestamp.tolist() == [20, 30]
    assert done.counts == {
        "below_min_rating": 2,
        "event_weight_0": 0,
        "repeated": 0,
        "outside_k_core": 0,
    }


def test_types_multiply_weights_and_zero_drops():
    given = events(
        (0, 1, 10),
        (0, 2, 20),
        (0, 3, 30),
        (1, 1, 40),
        weights=[2, 2, 0, 1],
        event_weights=[1, 5, 1, 0],
    )
    done = select(given, event_weights={"any": 1})
    assert done.events.weight.tolist() == [2, 10, 0]
    assert done.counts["event_weight_0"] == 1
    assert done.events.event_weight is None


def test_of_repeated_events_the_time_is_the_first_and_the_weight_the_largest():
    given = events((0, 1, 20), (0, 1, 10), (0, 1, 30), (1, 1, 5), event_weights=[5, 1, 2, 2])
    done = select(given, event_weights={"any": 1})
    assert done.events.timestamp.tolist() == [10, 5]
    assert done.events.weight.tolist() == [5, 2]
    assert done.counts["repeated"] == 2


def test_without_types_the_earliest_row_decides_the_weight():
    done = select(events((0, 1, 20), (0, 1, 10), weights=[5, 1]))
    assert done.events.weight.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        # Seen at 10, bought at 50, when test had begun: train knows only that it was seen.
        ({"split": "time", "valid_from": 30, "test_from": 40}, [1, 1, 1]),
        ({"split": "time", "valid_from": 30, "test_from": 60}, [1, 1, 5]),
        ({"split": "time", "valid_from": 51, "test_from": 60}, [5, 1, 5]),
        ({"split": "given"}, [1, 1, 1]),
        # The last one is test, and nothing comes after that.
        ({"split": "leave-last-out"}, [1, 1, 5]),
        # Drawn at random, a pair takes all its events along.
        ({"split": "random", "valid_share": 0, "test_share": 0}, [5, 1, 5]),
    ],
)
def test_train_does_not_know_of_later_events(options, weights):
    given = events(
        (0, 1, 10, TRAIN),
        (0, 2, 20, VALID),
        (0, 3, 30, VALID),
        (0, 1, 50, TEST),
        (0, 3, 50, TEST),
        event_weights=[1, 1, 1, 5, 5],
    )
    done = select(given, event_weights={"any": 1}, **options)
    assert done.events.item.tolist() == [1, 2, 3]
    assert done.events.weight.tolist() == weights
    # Nor do its types tell train of them: one for what weighs 1, another for what weighs 5.
    given = given._replace(events=np.eye(2, dtype=bool)[[0, 0, 0, 1, 1]])
    done = select(given, event_weights={"any": 1}, **options)
    assert done.events.events.tolist() == [[True, weight == 5] for weight in weights]


def test_the_position_is_that_of_the_row_that_stays():
    rows = ((0, 1, 20), (0, 1, 10), (0, 2, 30), (0, 3, 5))
    given = events(*rows)._replace(position=np.int32([4, 2, -1, 0]))
    assert select(given).events.position.tolist() == [2, -1, 0]
    # Where none that is left has one, there are none.
    assert select(given._replace(position=np.int32([4, -1, -1, -1]))).events.position is None
    assert select(events(*rows)).events.position is None


# Who stays


def test_without_a_core_those_that_are_listed_stay():
    given = events((0, 4, 10), (2, 1, 20), (3, 2, 30), ratings=[5, 5, 1])
    users, items = list("abcd"), list("vwxyz")
    done = selection.select(
        given,
        SelectionOptions(min_rating=2),
        has_split=False,
        users=users,
        items=items,
        num_listed_users=2,
        num_listed_items=1,
    )
    # User 1 and item 0 are listed; user 3 and item 2 were named in a row that is gone.
    assert done.users.tolist() == [True, True, True, False]
    assert done.items.tolist() == [True, True, False, False, True]
    assert done.events.user.tolist() == [0, 2] and done.events.item.tolist() == [2, 1]


def test_with_a_core_only_those_in_it_stay():
    given = events(*((user, item, 10) for user in range(1, 3) for item in range(1, 3)), (3, 3, 10))
    done = select(given, k_core=2)
    assert done.users.tolist() == [False, True, True, False]
    assert done.items.tolist() == [False, True, True, False]
    assert done.events.user.tolist() == [0, 0, 1, 1]
    assert done.counts["outside_k_core"] == 1


def test_a_core_counts_given_splits_together():
    given = events((0, 0, 1, TRAIN), (0, 1, 2, TEST), (1, 0, 1, VALID), (1, 1, 2, TRAIN))
    done = select(given, has_split=True, k_core=2)
    assert done.events.split.tolist() == [TRAIN, TEST, VALID, TRAIN]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "by-user"}, "split: wanted one of given, random, .*; got 'by-user'"),
        (
            {"valid_share": 0.2},
            "valid_share: belongs to the splits random, time and .*; got no split",
        ),
        ({"split": "given", "test_share": 0.0}, "test_share: belongs to .*; got given"),
        ({"split": "random", "valid_from": 3, "test_from": 4}, "valid_from: belongs to .* time"),
        (
            {"split": "time", "seed": 3},
            "seed: belongs to the splits .*; got time",
        ),
        ({"split": "random", "shots": 2}, "shots: belongs to the split cold-items; got random"),
        ({"split": "cold-items", "shots": -1}, "shots: wanted 0 or more; got -1"),
        ({"split": "time", "valid_share": 1.0}, "valid_share: wanted 0 up to 1"),
        ({"split": "time", "test_share": -0.1}, "test_share: wanted 0 up to 1"),
        ({"split": "random", "test_share": float("nan")}, "test_share: wanted 0 up to 1"),
        ({"split": "random", "valid_share": 0.9}, r"less than 1 together; got 0.9 \+ 0.1"),
        ({"split": "time", "valid_from": 30}, "wanted both or neither; got 30 and None"),
        ({"split": "time", "valid_from": 31, "test_from": 30}, "no later than test_from"),
        (
            {"split": "time", "valid_from": "2021-05-01", "test_from": "2021-04-30"},
            "no later than test_from, which is 2021-04-30; got 2021-05-01",
        ),
        ({"split": "time", "valid_from": 3, "test_from": "May"}, "test_from: .* got 'May'"),
        (
            {"split": "time", "valid_from": 3, "test_from": "1609459200000"},
            "test_from: wanted seconds since 1970, not milliseconds",
        ),
        (
            {"split": "time", "valid_from": 3, "test_from": 4, "valid_share": 0.1},
            "wanted shares, or valid_from and test_from; got both",
        ),
        ({"k_core": 0}, "k_core: wanted 1 or more; got 0"),
        ({"min_rating": float("inf")}, "min_rating: wanted a number"),
        ({"event_weights": {"view": -1.0}}, "wanted types with weights of 0 or more; got view=-1"),
        ({"event_weights": {"": 1.0}}, "wanted types with weights"),
        ({"event_weights": {"view": 0.0}}, "wanted one above 0"),
        (
            {"event_weights": {f"e{n}": 1.0 for n in range(63)} | {"none": 0.0}},
            "event_weights: wanted at most 62 types above 0; got 63",
        ),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(mm.ConfigError, match=message):
        SelectionOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "time"}, "split time: wanted interactions with times; these have none"),
        ({"min_rating": 3}, "min_rating: wanted interactions with ratings; these have none"),
        ({"event_weights": {"view": 1}}, "event_weights: wanted interactions with types"),
    ],
)
def test_options_that_the_interactions_do_not_fit(options, message):
    with pytest.raises(mm.ConfigError, match=message):
        select(events((0, 1, 0), (0, 2, 0)), **options)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {"split": "time"}, "wanted at least one interaction; got none of 0[.]"),
        (
            [(0, 1, 10), (0, 1, 20), (1, 1, 30)],
            {"k_core": 2},
            r"got none of 3 \(dropped: 1 repeated, 2 outside_k_core\)",
        ),
        (
            [(0, 1, 10), (0, 2, 20)],
            {"split": "time", "valid_from": 5, "test_from": 15},
            "split time: wanted at least one interaction in train; all 2 are in valid and test",
        ),
        ([(0, 1, 10, TEST)], {"split": "given"}, "split given: .* in train"),
        ([(0, n, 10) for n in range(9)], {"split": "time"}, "split time: .* in train"),
    ],
)
def test_nothing_left_is_refused(rows, options, message):
    with pytest.raises(mm.DatasetError, match=message):
        select(events(*rows), **options)


# On the command line


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    selection_options.add_arguments(parser)
    selection_options.add_column_arguments(parser.add_argument_group("columns"))
    return parser.parse_args(words)


def test_arguments_by_default_are_the_options_by_default():
    assert selection_options.from_arguments(parse()) == SelectionOptions()
    assert selection_options.columns_from_arguments(parse()) == InteractionColumns()


def test_arguments_become_options():
    words = "--split random --valid-share 0.2 --test-share 0.3 --split-seed 7 --k-core 5"
    words += " --min-rating 3.5 --event-weights view=1,purchase=5,a=b=0 --event-column kind"
    arguments = parse(*words.split(), "--split-column", "part", "--position-column", "rank")
    assert selection_options.from_arguments(arguments) == SelectionOptions(
        split="random",
        valid_share=0.2,
        test_share=0.3,
        seed=7,
        k_core=5,
        min_rating=3.5,
        event_weights={"view": 1.0, "purchase": 5.0, "a=b": 0.0},
    )
    columns = selection_options.columns_from_arguments(arguments)
    assert columns == InteractionColumns(event="kind", split="part", position="rank")
    arguments = parse("--split", "time", "--valid-from", "1970-01-02", "--test-from", "90000")
    assert selection_options.from_arguments(arguments).borders == (86400, 90000)


@pytest.mark.parametrize(
    "words", ["--split by-user", "--event-weights view", "--event-weights view=much", "--k-core x"]
)
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit):
        parse(*words.split())
    assert "wanted TYPE=WEIGHT" in capsys.readouterr().err or "event" not in words
