import collections
import functools

import numpy as np
import pytest

import mmrec_tf  # noqa: F401
from data.interactions import splits

TRAIN, VALID, TEST = range(3)


def events(*rows: tuple[int, ...]) -> splits.Events:
    """Rows of user, item, timestamp and split."""
    user, item, timestamp, split = np.array(rows, np.int64).reshape(-1, 4).T
    return splits.Events(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        timestamp=timestamp,
        rating=np.arange(len(rows), dtype=np.float32),  # tells rows apart
        weight=None,
        split=split.astype(np.int8),
    )


def test_the_earliest_of_a_pair_stays():
    given = events((0, 5, 30, 0), (0, 6, 10, 0), (0, 5, 20, 2), (1, 5, 30, 0), (0, 5, 20, 2))
    # User 0 met item 5 at 30, 20 and 20: the first row at 20 stays, whatever its split.
    assert splits.drop_duplicates(given).rating.tolist() == [1, 2, 3]


def test_without_times_the_earlier_split_stays():
    given = events((0, 5, 0, TEST), (0, 5, 0, TRAIN), (0, 5, 0, VALID), (0, 5, 0, TRAIN))
    assert splits.drop_duplicates(given).rating.tolist() == [1]


def test_nothing_has_no_duplicates():
    assert len(splits.drop_duplicates(events()).user) == 0


def test_leave_last_out():
    given = events(
        (0, 1, 40, 0),
        (0, 2, 10, 0),
        (0, 3, 30, 0),
        (0, 4, 20, 0),
        (1, 1, 5, 0),  # two interactions: all train
        (1, 2, 6, 0),
        (2, 1, 7, 0),  # three at the same time: by row
        (2, 2, 7, 0),
        (2, 3, 7, 0),
    )
    split = splits.leave_last_out(given).split
    assert split.tolist() == [TEST, TRAIN, VALID, TRAIN, TRAIN, TRAIN, TRAIN, VALID, TEST]


@pytest.mark.parametrize(
    ("rows", "follows"),
    [
        ([(0, 1, 10, TRAIN), (0, 2, 11, VALID), (0, 3, 12, TEST)], True),
        ([(0, 1, 10, TRAIN), (0, 2, 10, TEST)], True),  # in the same second
        ([(0, 1, 10, TRAIN), (0, 2, 9, VALID)], False),
        ([(0, 1, 10, TRAIN), (0, 2, 9, TEST), (0, 3, 12, VALID)], False),
        # Users are looked at one by one.
        ([(0, 1, 90, TRAIN), (0, 2, 91, TEST), (1, 1, 10, TRAIN), (1, 2, 11, TEST)], True),
        ([(0, 1, 0, TRAIN), (0, 2, 0, TEST)], False),  # no times
        ([(0, 1, 10, TRAIN), (1, 2, 11, TEST)], False),  # nobody has both
        ([], False),
    ],
)
def test_follows_time(rows, follows):
    assert splits.follows_time(events(*rows)) is follows


def pairs(num_users: int, num_items: int) -> splits.Events:
    """Some users with few interactions, some with many, in random order."""
    rng = np.random.default_rng(0)
    rows = [
        (user, item, 0, 0)
        for user in range(num_users)
        for item in rng.choice(num_items, rng.integers(1, num_items), replace=False)
    ]
    return events(*rng.permutation(rows))


def at_random(given: splits.Events, *, valid=0.1, test=0.1, seed=0, users=None, items=None):
    """The split by (user, item), by name."""
    users = users or [f"u{n}" for n in range(int(given.user.max()) + 1)]
    items = items or [f"i{n}" for n in range(int(given.item.max()) + 1)]
    done = splits.at_random(
        given, valid_share=valid, test_share=test, seed=seed, users=users, items=items
    )
    columns = (done.user.tolist(), done.item.tolist(), done.split.tolist())
    return {(users[u], items[i]): split for u, i, split in zip(*columns, strict=True)}


@pytest.mark.parametrize(("valid", "test"), [(0.1, 0.1), (0.0, 0.2), (0.25, 0.05)])
def test_random_shares_hold_for_each_user(valid, test):
    given = pairs(400, 30)
    found = at_random(given, valid=valid, test=test)
    by_user: dict[str, list[int]] = {}
    for (user, _), split in found.items():
        by_user.setdefault(user, []).append(split)
    for own in by_user.values():
        count = np.bincount(own, minlength=3)
        # Rounded up or down, but for the one that stays in train.
        assert abs(count[TEST] - len(own) * test) < 1 and abs(count[VALID] - len(own) * valid) < 1
        assert count[TRAIN] >= 1
    share = np.bincount(list(found.values()), minlength=3) / len(found)
    np.testing.assert_allclose(share[1:], [valid, test], atol=0.01)


def test_random_shares_hold_over_short_histories():
    # Each of 3000 users has three; rounded one by one, none would ever be held out.
    rows = [(user, item, 0, 0) for user in range(3000) for item in range(3)]
    found = list(at_random(events(*rows)).values())
    np.testing.assert_allclose(np.bincount(found) / len(found), [0.8, 0.1, 0.1], atol=0.01)


def test_random_leaves_one_in_train_however_large_the_shares():
    found = at_random(events((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)), valid=0.4, test=0.59)
    assert found["u0", "i0"] == TRAIN
    assert sorted([found["u1", "i0"], found["u1", "i1"]])[0] == TRAIN


def test_random_does_not_depend_on_the_order_of_rows():
    given = pairs(50, 20)
    order = np.random.default_rng(1).permutation(len(given.user))
    found = at_random(given)
    # Numbered as first seen, ids get other numbers, too.
    users, user = np.unique(given.user[order][::-1], return_inverse=True)
    renamed = given.take(order[::-1])._replace(user=(len(users) - 1 - user).astype(np.int32))
    names = [f"u{n}" for n in users[::-1]]
    assert at_random(renamed, users=names) == found
    # Nor on who else is there.
    alone = given.take(given.user == 7)
    assert at_random(alone).items() <= found.items()


def test_random_depends_on_the_seed_alone():
    given = pairs(50, 20)
    assert at_random(given, seed=3) == at_random(given, seed=3)
    assert at_random(given, seed=3) != at_random(given, seed=4)


def cold(given: splits.Events, *, valid=0.1, test=0.2, shots=0, seed=0):
    """The split of each (user, item)."""
    done = splits.cold_items(
        given,
        valid_share=valid,
        test_share=test,
        shots=shots,
        seed=seed,
        users=[f"u{n}" for n in range(int(given.user.max()) + 1)],
        items=[f"i{n}" for n in range(int(given.item.max()) + 1)],
    )
    columns = (done.user.tolist(), done.item.tolist(), done.split.tolist())
    return {(user, item): split for user, item, split in zip(*columns, strict=True)}


def everyone_took_all(num_users: int, num_items: int) -> splits.Events:
    return events(*((user, item, 0, 0) for user in range(num_users) for item in range(num_items)))


def test_cold_items_are_held_out_whole():
    found = cold(everyone_took_all(40, 30))
    splits_of = {item: {found[user, item] for user in range(40)} for item in range(30)}
    assert all(len(own) == 1 for own in splits_of.values())
    assert np.bincount([min(own) for own in splits_of.values()]).tolist() == [21, 3, 6]


def test_of_cold_items_the_earliest_shots_stay_in_train():
    rng = np.random.default_rng(0)
    given = everyone_took_all(40, 30)._replace(timestamp=rng.permutation(1200))
    whole, some = cold(given), cold(given, shots=5)
    time = given.timestamp.reshape(40, 30)
    for item in range(30):
        order = sorted(range(40), key=lambda user: time[user, item])
        own = [some[user, item] for user in order]
        assert own[:5] == [TRAIN] * 5 and set(own[5:]) == {whole[0, item]}
    # An item that fewer have found stays in train.
    assert set(cold(given.take(given.user < 5), shots=5).values()) == {TRAIN}


def test_cold_items_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    given = pairs(40, 30)
    order = np.random.default_rng(1).permutation(len(given.user))
    assert cold(given.take(order), shots=3) == cold(given, shots=3)
    assert cold(given, seed=1) != cold(given)


@pytest.mark.parametrize(("items", "counts"), [(1, [1]), (2, [1, 0, 1]), (3, [1, 1, 1])])
def test_of_few_items_one_is_held_out_and_one_left(items, counts):
    found = cold(events(*((0, item, 0, 0) for item in range(items))))
    assert np.bincount(list(found.values())).tolist() == counts


def test_a_random_split_stays_what_it_was():
    # Hashes of ids must not change between versions and machines.
    found = at_random(events(*((0, item, 0, 0) for item in range(10))), valid=0.2, test=0.2)
    assert [found["u0", f"i{n}"] for n in range(10)] == [0, 1, 0, 1, 0, 2, 0, 0, 2, 0]


def test_time_borders_by_hand():
    times = np.array([50, 10, 30, 20, 40, 60, 70, 80, 90, 100])
    borders = functools.partial(splits.time_borders, times)
    assert borders(valid_share=0.2, test_share=0.1) == (80, 100)
    assert borders(valid_share=0.0, test_share=0.3) == (80, 80)
    valid, test = borders(valid_share=0.1, test_share=0.0)
    assert valid == 100 and test > 100
    # Of three at 8 one would do for test; they stay together, in the later split.
    times = np.array([1, 2, 3, 4, 5, 6, 7, 8, 8, 8])
    assert splits.time_borders(times, valid_share=0.2, test_share=0.1) == (8, 8)
    assert splits.time_borders(times, valid_share=0.3, test_share=0.1) == (7, 8)


def test_by_time():
    given = events((0, 1, 9, 0), (0, 2, 10, 0), (1, 1, 19, 0), (0, 3, 20, 0), (1, 2, 99, 0))
    assert splits.by_time(given, (10, 20)).split.tolist() == [TRAIN, VALID, VALID, TEST, TEST]
    assert splits.by_time(given, (10, 10)).split.tolist() == [TRAIN, TEST, TEST, TEST, TEST]


def test_last_borders():
    given = splits.leave_last_out(
        events((1, 1, 10, 0), (1, 2, 30, 0), (1, 3, 20, 0), (0, 1, 5, 0), (1, 4, 5, 0))
    )
    borders = splits.last_borders(given, num_users=3)
    assert borders[1].tolist() == [20, 30]
    assert (borders[[0, 2]] > 10**15).all()


def test_the_k_core_by_hand():
    # Item 3 has one interaction; without it user 2 has one, and without that item 2 has one.
    user = np.array([0, 0, 1, 1, 2, 2, 0])
    item = np.array([0, 1, 0, 1, 2, 3, 2])
    assert splits.k_core(user, item, 1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert splits.k_core(user, item, 2).tolist() == [0, 1, 2, 3]
    assert splits.k_core(user, item, 3).tolist() == []
    assert splits.k_core(user[:0], item[:0], 2).tolist() == []


@pytest.mark.parametrize("k", [2, 4, 6])
def test_the_k_core_is_a_core_and_the_largest(k):
    rng = np.random.default_rng(0)
    pair = np.unique(np.stack([rng.zipf(1.5, 4000) % 300, rng.zipf(1.5, 4000) % 200]), axis=1)
    user, item = pair
    kept = splits.k_core(user, item, k)
    assert 0 < len(kept) < len(user)
    for ids in (user[kept], item[kept]):
        assert np.unique(ids, return_counts=True)[1].min() >= k
    # Peeled one by one instead of all at once.
    left = set(zip(user.tolist(), item.tolist(), strict=True))
    while True:
        count = [collections.Counter(p[side] for p in left) for side in (0, 1)]
        few = next((p for p in left if min(count[0][p[0]], count[1][p[1]]) < k), None)
        if few is None:
            break
        left.remove(few)
    assert {(u, i) for u, i in zip(user[kept].tolist(), item[kept].tolist(), strict=True)} == left


def test_the_largest_weight_and_all_types_of_events_that_came_in_time():
    given = events((0, 5, 10, 0), (0, 5, 20, 0), (0, 5, 30, 0), (0, 6, 10, 0), (0, 6, 10, 0))
    given = given._replace(
        weight=np.float32([1, 3, 5, 2, 4]),
        events=np.eye(4, dtype=bool)[[0, 2, 1, 3, 3]],
        position=np.int32([7, 8, 9, -1, 3]),
    )
    distinct = splits.drop_duplicates(given)
    assert distinct.weight.tolist() == [1, 2]
    split = np.zeros(5, np.int8)

    def merged(distinct):
        done = splits.merge(distinct, given, begun=split)
        # Of all else, the position among it, the row that stays decides.
        for name in ("user", "item", "timestamp", "rating", "split", "position"):
            assert getattr(done, name).tolist() == getattr(distinct, name).tolist()
        return done.weight.tolist(), [np.flatnonzero(row).tolist() for row in done.events]

    assert merged(distinct) == ([5, 4], [[0, 1, 2], [3]])
    split[2] = VALID
    assert merged(distinct) == ([3, 4], [[0, 2], [3]])
    # Of a pair that is no longer there, nothing.
    assert merged(distinct.take([1])) == ([4], [[3]])
    # What was given stays as it was.
    assert distinct.weight.tolist() == [1, 2] and distinct.events.sum() == 2
    assert splits.merge(distinct._replace(events=None), given, begun=split).events is None


def test_numbers_without_gaps():
    stays, numbers = splits.renumber(np.array([4, 1, 4]), 6, num_listed=1)
    assert stays.tolist() == [True, True, False, False, True, False]
    assert numbers.tolist() == [2, 1, 2] and numbers.dtype == np.int32
    stays, numbers = splits.renumber(np.array([4, 1, 4]), 6, num_listed=None)
    assert stays.all() and numbers.tolist() == [4, 1, 4]


class Written(list):
    """Stands in for a dataset writer."""

    def write_interactions(self, split, user, *, item, timestamp, rating, **more):
        self.append((split, user, item.tolist(), timestamp.tolist(), rating.tolist()))
        self.more = more


def test_written_by_user_oldest_first():
    given = events(
        (1, 1, 20, TRAIN), (0, 1, 5, TEST), (1, 2, 10, TRAIN), (0, 2, 3, TRAIN), (1, 3, 10, TRAIN)
    )
    written = Written()
    splits.write(written, given)
    assert written == [
        ("train", 0, [2], [3], [3]),
        ("train", 1, [2, 3, 1], [10, 10, 20], [2, 4, 0]),
        ("test", 0, [1], [5], [1]),
    ]
    assert written.more == {"weight": None, "events": None, "position": None}
    given = given._replace(events=np.eye(5, dtype=bool), position=3 * np.arange(5, dtype=np.int32))
    splits.write(written, given)
    more = {
        name: None if column is None else column.tolist() for name, column in written.more.items()
    }
    assert more == {"weight": None, "events": [[0, 1, 0, 0, 0]], "position": [3]}
