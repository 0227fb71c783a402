"""The interactions table, read by the batch: as row by row, faults and all."""

import gzip
import pathlib

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import mmrec_tf as mm
from data.interactions import read as interactions
from data.interactions.read import InteractionColumns, event_types, read_interactions
from data.tables.table import Skipped, Table

HEADER = "user,item,timestamp,rating,weight,event,split"
WEIGHTS = {"view": 1.0, "purchase": 5.0, "return": 0.0}
TRAIN, VALID, TEST = range(3)


def write(folder: pathlib.Path, *rows: str, header: str = HEADER) -> Table:
    (folder / "interactions.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Table(folder / "interactions.csv")


def read(table: Table, *, skip=False, given=True, event_weights=WEIGHTS, **columns):
    """The events, and by whom: users, items and what was skipped."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    skipped = Skipped(skip)
    events = read_interactions(
        table,
        InteractionColumns(**columns),
        users=users,
        items=items,
        given=given,
        skipped=skipped,
        event_weights=event_weights,
    )
    return events, list(users), list(items), skipped.counts.get("interactions", {})


def test_every_column(tmp_path):
    table = write(
        tmp_path,
        "u2, a ,10,4.5,1,view,train",
        "u1,b,11.9,-1,0.5,purchase,val",
        "",
        "u2,b,-5,3,0,return,Test",
    )
    events, users, items, _ = read(table)
    assert (users, items) == (["u2", "u1"], ["a", "b"])
    assert events.user.tolist() == [0, 1, 0] and events.user.dtype == np.int32
    assert events.item.tolist() == [0, 1, 1] and events.item.dtype == np.int32
    assert events.timestamp.tolist() == [10, 11, -5] and events.timestamp.dtype == np.int64
    assert events.rating.tolist() == [4.5, -1, 3] and events.rating.dtype == np.float32
    assert events.weight.tolist() == [1, 0.5, 0] and events.weight.dtype == np.float32
    assert events.event_weight.tolist() == [1, 5, 0] and events.event_weight.dtype == np.float32
    assert events.split.tolist() == [TRAIN, VALID, TEST] and events.split.dtype == np.int8
    # A type of weight 0, whose interactions are dropped, has no column.
    assert events.events.tolist() == [[True, False], [False, True], [False, False]]
    assert events.events.dtype == bool
    assert events.position is None


def test_columns_that_are_not_there(tmp_path):
    events, _, _, _ = read(
        write(tmp_path, "u,a", header="user,item"), given=False, event_weights={}
    )
    assert events.timestamp.tolist() == [0] and events.timestamp.dtype == np.int64
    assert events.split.tolist() == [0] and events.split.dtype == np.int8
    assert events.rating is None and events.weight is None and events.event_weight is None
    assert events.events is None and events.position is None


def test_types_have_columns_in_the_order_of_their_weights(tmp_path):
    weights = {"return": 0.0, "buy": 5.0, "rare": 0.0, "view": 1.0}
    rows = [f"u,i{n},1,1,1,{name},train" for n, name in enumerate(weights)]
    found = read(write(tmp_path, *rows), event_weights=weights)[0].events
    assert np.argwhere(found).tolist() == [[1, 0], [3, 1]]
    assert event_types(weights) == ("buy", "view") and event_types({}) == ()


def test_positions(tmp_path):
    rows = ["u,a,0", "u,b,", "u,c,17", "u,d,3.0", "u,e,9999"]
    for name, columns in (("position", {}), ("slot", {"position": "slot"})):
        table = write(tmp_path, *rows, header=f"user,item,{name}")
        events = read(table, given=False, event_weights={}, **columns)[0]
        assert events.position.tolist() == [0, -1, 17, 3, 9999]
        assert events.position.dtype == np.int32
    # Of another name it is not looked for.
    assert read(table, given=False, event_weights={})[0].position is None
    with pytest.raises(mm.ConfigError, match="wanted a column 'rank'"):
        read(table, given=False, event_weights={}, position="rank")


@pytest.mark.parametrize("cell", ["-1", "first", "1.5", "10000", "nan", "inf"])
def test_a_position_that_is_none_is_named(tmp_path, cell):
    table = write(tmp_path, "u,a,1", f"u,b,{cell}", "u,c,2", header="user,item,position")
    with pytest.raises(
        mm.DatasetError, match=rf"line 3: position: wanted a .*number.*; got '{cell}'"
    ):
        read(table, given=False, event_weights={})
    events, _, items, skipped = read(table, given=False, event_weights={}, skip=True)
    assert events.position.tolist() == [1, 2] and items == ["a", "c"]
    assert list(skipped.values()) == [1]


def test_users_and_items_known_before_keep_their_numbers(tmp_path):
    users, items = {"v": 0, "u": 1}, {"b": 0}
    events = read_interactions(
        write(tmp_path, "u,a", "w,b", header="user,item"),
        InteractionColumns(),
        users=users,
        items=items,
        given=False,
        skipped=Skipped(),
    )
    assert events.user.tolist() == [1, 2] and events.item.tolist() == [1, 0]
    assert users == {"v": 0, "u": 1, "w": 2} and items == {"b": 0, "a": 1}


def test_types_are_read_only_when_they_have_weights(tmp_path):
    table = write(tmp_path, "u,a,1,1,1,click,train")
    assert read(table, event_weights={})[0].event_weight is None
    with pytest.raises(
        mm.DatasetError,
        match=r"line 2: event: wanted a type that the event weights list \(view, purchase, return; "
        r"a weight of 0 would drop it\); got 'click'",
    ):
        read(table)
    with pytest.raises(mm.ConfigError, match="event column 'event': wanted event weights"):
        read(table, event_weights={}, event="event")
    with pytest.raises(mm.ConfigError, match="wanted a column 'event'"):
        read(write(tmp_path, "u,a", header="user,item"), given=False)


def many(number: int) -> list[str]:
    """So many good rows; half of them name users that nobody else is."""
    return [f"u{n if n % 2 else 0},i{n % 7},{n},{n % 10 / 2},1,view,train" for n in range(number)]


BAD = {
    0: ("u,a,1,1,1,view", "wanted 7 cells"),
    5: (",a,yesterday,1,1,view,train", "no user id"),
    6: ("bad,,1,1,1,view,train", "no item id"),
    255: ("bad,bad,1609459200000,1,1,view,train", "timestamp: wanted seconds since 1970, not"),
    256: ("bad,bad,1,good,-1,view,train", "rating: wanted a number"),
    257: ("bad,bad,1,1,-1,view,train", "weight: wanted 0 or more"),
    700: ("bad,bad,1,1,1,view,dev", "split: wanted train, valid"),
}


def test_bad_rows_are_passed_over_wherever_they_stand(tmp_path):
    good = many(900)
    want = read(write(tmp_path, *good))
    rows = list(good)
    for at, (row, _) in BAD.items():
        rows.insert(at, row)
    got = read(write(tmp_path, *rows), skip=True)
    for one, other in zip(got[0], want[0], strict=True):
        np.testing.assert_array_equal(one, other)
    # A row that was passed over numbers nobody.
    assert got[1:3] == want[1:3]
    assert list(got[3].values()) == [1] * len(BAD)
    for reason, (_, start) in zip(got[3], BAD.values(), strict=True):
        assert reason.startswith(start)


@pytest.mark.parametrize("at", list(BAD))
def test_the_first_bad_row_is_named(tmp_path, at):
    rows = many(900)
    row, reason = BAD[at]
    rows[at] = row
    rows[-1] = ",,,"
    with pytest.raises(mm.DatasetError, match=rf"interactions.csv: line {at + 2}: {reason}"):
        read(write(tmp_path, *rows))


def test_of_a_bad_row_and_damage_behind_it_the_row_is_named(tmp_path):
    table = write(tmp_path, "u,a,1,1,1,view,train", ",a,1,1,1,view,train", 'u,"a,1,1')
    with pytest.raises(mm.DatasetError, match="line 3: no user id"):
        read(table)
    with pytest.raises(mm.DatasetError, match="line 4: wanted a row of CSV"):
        read(table, skip=True)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_size_of_a_batch_makes_no_difference(tmp_path, monkeypatch, size):
    rows = many(40)
    rows[7] = rows[20] = ",a,1,1,1,view,train"
    want = read(write(tmp_path, *rows), skip=True)
    monkeypatch.setattr(interactions, "_BATCH", size)
    got = read(write(tmp_path, *rows), skip=True)
    for one, other in zip(got[0], want[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert got[1:] == want[1:]


def test_forms_of_a_table_agree(tmp_path):
    table = write(tmp_path, *many(600))
    want = read(table)
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress(table.path.read_bytes()))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(table.path), tmp_path / "i.parquet")
    for name in ("i.csv.gz", "i.parquet"):
        got = read(Table(tmp_path / name))
        for one, other in zip(got[0], want[0], strict=True):
            np.testing.assert_array_equal(one, other)
        assert got[1:] == want[1:]


def test_dates(tmp_path):
    rows = ["u,a,1970-01-02", "u,b,1970-01-02T01:00:00+01:00", "u,c,1970-01-02 00:00:01.5"]
    table = write(tmp_path, *rows, header="user,item,date")
    assert read(table, given=False, event_weights={})[0].timestamp.tolist() == [86400, 86400, 86401]
