"""When interactions were: what orders them, to the microsecond, and what looks like no time."""

import pytest
from support import tables
from support.tables import prepare, write, write_items

import mmrec_tf as mm
from data.interactions import times
from data.interactions.options import SelectionOptions
from data.sources.published import seconds as from_milliseconds
from data.tables.rows import BadRow
from mmrec_tf import records

IN_ORDER = SelectionOptions(rows_in_order=True)


@pytest.fixture
def folder(tmp_path):
    write_items(tmp_path, range(6))
    return tmp_path


def meet(folder, *cells: str, column: str = "timestamp", more: str = "") -> None:
    """Users 0 and 1 meet items 0, 1, ... at the moments of some cells."""
    rows = [f"u{user},{n},{cell}{more}" for user in range(2) for n, cell in enumerate(cells)]
    write(folder, "interactions.csv", f"user,item,{column}", *rows)


def ordered(folder) -> bool:
    return records.read_schema(folder / "d").ordered


@pytest.mark.parametrize(
    ("cell", "micros"),
    [
        ("11", 11_000_000),
        ("11.9", 11_900_000),
        ("-0.5", -500_000),
        ("1700000000.000001", 1_700_000_000_000_001),
        ("1e3", 1_000_000_000),
    ],
)
def test_seconds_to_the_microsecond(cell, micros):
    assert times.parse_seconds(cell) == micros


def test_dates_to_the_microsecond():
    assert times.parse_date("1970-01-01 00:00:01.25") == 1_250_000
    assert times.parse_date("1969-12-31T23:59:59.999999Z") == -1


def test_milliseconds_keep_their_thousandths():
    assert from_milliseconds(1583378629552) == "1583378629.552"
    assert from_milliseconds("1583378629000") == "1583378629"


def test_a_date_among_seconds_names_the_option():
    for cell in ("2021-04-30", "2021-04-30T12:00:00+02:00"):
        with pytest.raises(BadRow, match=f"got '{cell[:10]}.*--date-column"):
            times.parse_seconds(cell)
    with pytest.raises(BadRow, match="got 'soon'$"):
        times.parse_seconds("soon")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("timestamp", [f"1700000000.{n}" for n in (9, 7, 5, 3)]),
        ("date", [f"2024-01-01T00:00:00.{n}" for n in (9, 7, 5, 3)]),
    ],
)
def test_within_a_second_the_fraction_decides(folder, column, cells):
    meet(folder, *cells, column=column)
    prepare(folder)
    # Item 0 stands first and came last.
    assert tables.items_of(folder / "d", "test") == [["0"], ["0"]]
    assert tables.items_of(folder / "d", "valid") == [["1"], ["1"]]
    assert tables.items_of(folder / "d", "train") == [["3", "2"], ["3", "2"]]
    found = records.read_interactions(folder / "d", records.read_schema(folder / "d"), "train")
    assert len(set(found.timestamp.tolist())) == 1 and found.timestamp.dtype == "int64"
    assert ordered(folder)


def test_of_repeats_within_a_second_the_earlier_stays(folder):
    rows = ["u,0,1700000000.9,1", "u,0,1700000000.1,2", "u,1,1700000001,3"]
    write(folder, "interactions.csv", "user,item,timestamp,rating", *rows)
    prepare(folder)
    schema = records.read_schema(folder / "d")
    assert records.read_interactions(folder / "d", schema, "train").rating.tolist() == [2, 3]


def test_a_given_split_is_ordered_to_the_fraction(folder):
    for train, valid, follows in ((1, 9, True), (9, 1, False)):
        rows = [f"u,0,1700000000.{train},train", f"u,1,1700000000.{valid},valid"]
        write(folder, "interactions.csv", "user,item,timestamp,split", *rows)
        prepare(folder)
        assert ordered(folder) is follows


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        (None, "", "these have none. Name the column of the times, choose"),
        ("timestamp", ["1700000000"] * 4, "their times are equal"),
        (
            "time",
            ["1700000000", "1", "2", "3"],
            "these have none. Name the column of the times, ch",
        ),
        ("time", [f"170000000{n}" for n in range(4)], r"the times \(--timestamp-column time\)"),
        ("bought_at", [f"2024-01-0{n + 1}" for n in range(4)], r"\(--date-column bought_at\)"),
        ("created", [f"2024-01-01 0{n}:00" for n in range(4)], r"\(--date-column created\)"),
        ("ts", [f"170000000{n}000" for n in range(4)], "once 'ts' is in seconds and not in milli"),
        ("order date", [f"{n + 1}.4.2024" for n in range(4)], "once 'order date' is in ISO 8601"),
    ],
)
def test_without_times_nobody_knows_who_was_last(folder, column, cells, message):
    if column is None:
        rows = [f"u{user},{n}" for user in range(2) for n in range(4)]
        write(folder, "interactions.csv", "user,item", *rows)
    else:
        meet(folder, *cells, column=column)
    with pytest.raises(mm.ConfigError, match=f"leave-last-out: wanted .* {message}"):
        prepare(folder)
    # Told that rows are in order, it goes by them; and other splits do not ask.
    manifest = prepare(folder, selection=IN_ORDER)
    assert tables.items_of(folder / "d", "test") == [["3"], ["3"]] and ordered(folder)
    assert manifest["source"]["arguments"]["selection"] == {"rows_in_order": True}
    shares = SelectionOptions(split="random", valid_share=0.3, test_share=0.3)
    prepare(folder, selection=shares)
    assert not ordered(folder)


def test_where_nobody_is_held_out_no_time_is_asked_for(folder):
    write(folder, "interactions.csv", "user,item", "u,0", "u,1")
    manifest = prepare(folder)
    assert manifest["counts"]["interactions"] == {"train": 2, "valid": 0, "test": 0}
    assert not ordered(folder)


def test_some_users_without_an_order_are_warned_of(folder):
    rows = [f"u,{n},{10**9 + n}" for n in range(4)] + [f"v,{n},{10**9}" for n in range(4)]
    write(folder, "interactions.csv", "user,item,timestamp", *rows)
    (said,) = prepare(folder)["warnings"]
    assert "of 1 of 2 users the last interactions came at the same time" in said
    assert prepare(folder, selection=IN_ORDER)["warnings"] == []


def test_rows_in_order_belong_to_leave_last_out(folder):
    with pytest.raises(mm.ConfigError, match="rows_in_order: belongs to .*; got random"):
        SelectionOptions(split="random", rows_in_order=True)
    write(folder, "interactions.csv", "user,item,split", "u,0,train", "u,1,test")
    with pytest.raises(mm.ConfigError, match="rows_in_order: .*; got given, which the inter"):
        prepare(folder, selection=IN_ORDER)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["20240131", "20240229", "20231224"], "dates without hyphens, such as 20231224.*--date-c"),
        (["86400", "86401", "99999"], "all times lie from 1970-01-02 to 1970-01-02"),
        (["0", "1700000000", "1700000001"], "2 of 6 times are 0, the start of 1970"),
    ],
)
def test_times_that_look_like_none_are_warned_of(folder, cells, message):
    import re

    meet(folder, *cells)
    (said,) = prepare(folder)["warnings"]
    assert re.search(message, said)


def test_dates_without_hyphens_are_dates(folder):
    meet(folder, "20240131", "20240229", "20231224")
    from data.interactions.read import InteractionColumns

    columns = InteractionColumns(date="timestamp")
    assert prepare(folder, columns=columns)["warnings"] == []
    found = records.read_interactions(folder / "d", records.read_schema(folder / "d"), "test")
    assert found.timestamp.tolist() == [1709164800] * 2  # 2024-02-29
