"""Ids of two tables: spelled alike they are the same, and tables that never meet are refused."""

import decimal
import unicodedata

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from support import tables
from support.tables import prepare, write, write_interactions, write_items

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.tables.ids import identifier


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("6", "6"),
        ("6.0", "6"),
        ("-6.000", "-6"),
        ("6.", "6"),
        ("6.50", "6.50"),
        ("1.0.0", "1.0.0"),
        ("007", "007"),
        ("a.0", "a.0"),
        (unicodedata.normalize("NFD", "Zürich"), "Zürich"),
        ("\u200bi1\ufeff", "i1"),
        ("\u200e\u00ad", ""),
        ("日本", "日本"),
    ],
)
def test_one_spelling(cell, name):
    assert identifier(cell) == name


@pytest.mark.parametrize(
    "spell",
    [
        lambda n: f"{n}.0",
        lambda n: f"\u200b{n}",
        lambda n: f" {n} ",
    ],
)
def test_ids_that_mean_the_same_meet(tmp_path, spell):
    write_items(tmp_path, range(5))
    write_interactions(tmp_path, map(spell, range(5)))
    manifest = prepare(tmp_path)
    assert tables.item_ids(tmp_path / "d") == list("01234")
    assert manifest["warnings"] == []


def test_forms_of_unicode_meet_in_all_tables(tmp_path):
    names = [f"Zürich {n}" for n in range(4)]
    apart = [unicodedata.normalize("NFD", name) for name in names]
    write_items(tmp_path, apart)
    write_interactions(tmp_path, names, user="Ö{}")
    write(tmp_path, "users.csv", "user,profile", *(f"O\u0308{n},likes lamps" for n in range(3)))
    write(tmp_path, "triples.csv", "head,relation,tail", *(f"{n},in,town" for n in apart))
    np.save(tmp_path / "v.npy", np.eye(4, 3) + 1)
    (tmp_path / "v.npy.ids.txt").write_text("\n".join(names) + "\n")
    manifest = prepare(
        tmp_path,
        users=str(tmp_path / "users.csv"),
        triples=str(tmp_path / "triples.csv"),
        vectors={"style": str(tmp_path / "v.npy")},
    )
    assert tables.item_ids(tmp_path / "d") == names
    counts = manifest["counts"]
    assert (counts["users"], counts["items"], counts["entities"]) == (3, 4, 1)
    assert counts["present"]["style"] == 4 and manifest["warnings"] == []


def test_bytes_and_decimals_of_parquet_are_ids_like_others(tmp_path):
    columns = {
        "item": [str(n).encode() for n in range(4)],
        "title": [f"lamp {n}".encode() for n in range(4)],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "items.parquet")
    numbers = [decimal.Decimal(n) for n in range(4)]
    columns = {"user": ["u"] * 4, "item": numbers, "timestamp": [10**9 + n for n in range(4)]}
    schema = pyarrow.schema(
        [
            ("user", pyarrow.string()),
            ("item", pyarrow.decimal128(9, 2)),
            ("timestamp", pyarrow.int64()),
        ]
    )
    path = tmp_path / "interactions.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)
    prepare(tmp_path, items="items.parquet", interactions=str(path))
    assert tables.item_ids(tmp_path / "d") == list("0123")
    content = mm.open_dataset(tmp_path / "d").catalog.content["text"]
    assert content[0] == b"lamp 0"
    columns = {"item": [b"\xff"], "title": [b"x"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "items.parquet")
    with pytest.raises(mm.DatasetError, match="row 1: wanted text; got bytes that are no UTF-8"):
        prepare(tmp_path, items="items.parquet", interactions=str(path))


@pytest.mark.parametrize(
    ("listed", "named", "hint"),
    [
        ([f"{n:05}" for n in range(5)], range(5), "alike without leading zeros"),
        ([f"B0{n}x" for n in range(5)], [f"b0{n}X" for n in range(5)], "alike in small letters"),
        (range(5), [f"item_{n}" for n in range(5)], "without what stands before the digits"),
        ([f"900719925474099{n}" for n in range(5)], ["9.007E+15"] * 3, "rounded by a spreadsheet"),
        (list("abcde"), list("vwxyz"), "Write the ids alike in both"),
    ],
)
def test_interactions_of_none_of_the_items_are_refused(tmp_path, listed, named, hint):
    write_items(tmp_path, listed)
    write_interactions(tmp_path, named)
    for options in ({}, {"selection": SelectionOptions(k_core=2)}):
        with pytest.raises(mm.DatasetError) as error:
            prepare(tmp_path, **options)
        said = str(error.value)
        assert f"lists, such as {str(list(listed)[0])!r}" in said
        assert f"but such as {str(list(named)[0])!r}" in said and hint in said
    assert not (tmp_path / "d").exists()


def test_users_whom_no_interaction_names_are_refused(tmp_path):
    write_items(tmp_path, range(5))
    write_interactions(tmp_path, range(5), user="{}")
    write(tmp_path, "users.csv", "user,profile", "000,x", "001,y")
    with pytest.raises(mm.DatasetError, match="wanted users that .*users.csv lists, such as '000'"):
        prepare(tmp_path, users=str(tmp_path / "users.csv"))


def test_many_that_are_not_listed_are_warned_of(tmp_path):
    write_items(tmp_path, range(4))
    write_interactions(tmp_path, [0, 1, "z", "y"])
    manifest = prepare(tmp_path)
    assert manifest["counts"]["items"] == 6
    (said,) = manifest["warnings"]
    assert "6 of 12 interactions name items that" in said and "'z'" in said and "'0'" in said
    assert said.endswith("--only-listed leaves them out.")
    # A few are nobody's worry.
    write_interactions(tmp_path, [*map(str, range(4))] * 10 + ["z"], users=1)
    assert prepare(tmp_path)["warnings"] == []


def test_only_those_that_are_listed(tmp_path):
    write_items(tmp_path, range(4))
    write_interactions(tmp_path, [0, 1, 2, "z", 3])
    write(tmp_path, "users.csv", "user,profile", "u0,x", "u1,y")
    selection = SelectionOptions(only_listed=True)
    manifest = prepare(tmp_path, selection=selection)
    assert tables.item_ids(tmp_path / "d") == list("0123")
    assert manifest["counts"]["dropped"]["interactions unlisted"] == 3
    assert manifest["warnings"] == [] and manifest["counts"]["users"] == 3
    # Where users are listed, others go as well.
    manifest = prepare(tmp_path, selection=selection, users=str(tmp_path / "users.csv"))
    assert manifest["counts"]["users"] == 2
    assert manifest["counts"]["dropped"]["interactions unlisted"] == 3 + 4


def test_a_graph_and_vectors_of_other_ids_say_so(tmp_path):
    write_items(tmp_path, [f"{n:03}" for n in range(20)])
    write_interactions(tmp_path, [f"{n:03}" for n in range(20)])
    graph = [f"{n},made_by,maker" for n in range(20)]
    path = write(tmp_path, "triples.csv", "head,relation,tail", *graph)
    with pytest.raises(mm.DatasetError, match="an item is '000', a head or tail '0'. They are"):
        prepare(tmp_path, triples=str(path))
    write(tmp_path, "triples.csv", "head,relation,tail", "000,made_by,maker", *graph[1:])
    (said,) = prepare(tmp_path, triples=str(path))["warnings"]
    assert "names 1 of 20 items; '001' is one that it does not name" in said
    assert "without leading zeros" in said
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(20, 3)))
    for names, message in (
        ([str(n) for n in range(20)], "none of its 20 rows names one, such as '0'. They are alike"),
        (["000", *map(str, range(1, 20))], None),
    ):
        (tmp_path / "v.npy.ids.txt").write_text("\n".join(names) + "\n")
        vectors = {"style": str(tmp_path / "v.npy")}
        if message:
            with pytest.raises(mm.DatasetError, match=message):
                prepare(tmp_path, vectors=vectors)
        else:
            (said,) = prepare(tmp_path, vectors=vectors)["warnings"]
            assert "19 of 20 rows name no item, such as '1'" in said


def test_a_table_of_nothing_is_said(tmp_path):
    write(tmp_path, "items.csv", "item,title", ",Wren", ",Owl")
    write_interactions(tmp_path, range(4))
    with pytest.raises(mm.DatasetError, match="items; all were skipped: 2 no item id"):
        prepare(tmp_path, skip_bad_rows=True)
    write(tmp_path, "items.csv", "item,title")
    assert prepare(tmp_path)["warnings"][0].endswith("items.csv: lists no items.")
