import numpy as np
import pytest

import mmrec_tf  # noqa: F401
from data import splits

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


class Written(list):
    """Stands in for a dataset writer."""

    def write_interactions(self, split, user, *, item, timestamp, rating, weight):
        self.append((split, user, item.tolist(), timestamp.tolist(), rating.tolist()))


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
