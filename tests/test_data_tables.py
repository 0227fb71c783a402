import gzip
import pathlib

import pyarrow as pa
import pyarrow.parquet
import pytest

import mmrec_tf as mm
from data.tables import BadRow, Row, Skipped, Table, complete

TEXT = 'item,title,year\n1,"Wren, the\nsmall one",1999\n\n2, Zaunkönig ,\n'
CELLS = [
    {"item": "1", "title": "Wren, the\nsmall one", "year": "1999"},
    {"item": "2", "title": "Zaunkönig", "year": ""},
]


def cells(path: pathlib.Path) -> list[dict[str, str]]:
    return [row.cells for row in Table(path)]


def write_parquet(path: pathlib.Path, **columns) -> pathlib.Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def test_forms_of_a_table_agree(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT, encoding="utf-8")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "bom.csv").write_text(TEXT, encoding="utf-8-sig")
    (tmp_path / "t.tsv").write_text(TEXT.replace(",", "\t").replace("Wren\t", "Wren,"))
    titles = [row["title"] for row in CELLS]
    write_parquet(tmp_path / "t.parquet", item=[1, 2], title=titles, year=[1999, None])
    for name in ("t.csv", "t.csv.gz", "bom.csv", "t.tsv", "t.parquet"):
        assert cells(tmp_path / name) == CELLS, name


def test_parquet_values_are_as_a_csv_would_hold_them(tmp_path):
    import datetime

    path = write_parquet(
        tmp_path / "t.parquet",
        item=[3.0, None],
        day=[datetime.date(2021, 4, 30), None],
        rating=[3.5, float("nan")],
        genres=[["a", "b"], []],
    )
    assert cells(path) == [
        {"item": "3", "day": "2021-04-30", "rating": "3.5", "genres": "a|b"},
        {"item": "", "day": "", "rating": "", "genres": ""},
    ]


def test_rows_say_where_they_stand(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT, encoding="utf-8")
    # The first row covers lines 2 and 3, line 4 is blank.
    assert [row.where for row in Table(tmp_path / "t.csv")] == [
        f"{tmp_path}/t.csv: line 2",
        f"{tmp_path}/t.csv: line 5",
    ]
    path = write_parquet(tmp_path / "t.parquet", item=["a", "b"])
    assert [row.where for row in Table(path)] == [f"{path}: row 1", f"{path}: row 2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "wanted a header"),
        ("t.csv", b"a,b,a\n", "names the column 'a' twice"),
        ("t.csv", b'a\n1\n"2\n', "line 3: wanted a row of CSV"),
        ("t.csv", b"a\n\xff\n", "wanted UTF-8"),
        ("t.csv.gz", b"a\n1\n", "wanted a table"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"1\n" * 999)[:-9], "wanted a table"),
        ("t.parquet", b"a\n1\n", "wanted Parquet"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(mm.DatasetError, match=f"{name}.*{message}"):
        list(Table(tmp_path / name))


def test_a_missing_table_is_refused(tmp_path):
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        with pytest.raises(mm.DatasetError, match=f"{name}: wanted a table; there is no such"):
            Table(tmp_path / name)


def test_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("item,title\n")
    assert cells(tmp_path / "t.csv") == []


def test_cells_longer_than_pythons_limit(tmp_path):
    long = "x" * 200_000
    (tmp_path / "t.csv").write_text(f"item\n{long}\n")
    assert cells(tmp_path / "t.csv") == [{"item": long}]


def test_columns_are_found(tmp_path):
    (tmp_path / "t.csv").write_text("item,what\n")
    table = Table(tmp_path / "t.csv")
    assert table.column(None, "item") == "item"
    assert table.column("what", "item") == "what"
    assert table.column(None, "title") is None
    with pytest.raises(mm.ConfigError, match="wanted a column 'tilte'; it has item, what"):
        table.column("tilte", "title")
    with pytest.raises(mm.ConfigError, match="wanted a column 'title'"):
        table.required_column(None, "title")


@pytest.mark.parametrize("line", ["1", "1,2,3"])
def test_rows_of_another_length_are_bad(tmp_path, line):
    (tmp_path / "t.csv").write_text(f"a,b\n{line}\n")
    table = Table(tmp_path / "t.csv")
    (row,) = table
    with pytest.raises(BadRow, match=f"wanted 2 cells; got {len(line.split(','))}"):
        complete(row, table.columns)


def test_bad_rows_raise_or_are_counted():
    row = Row({}, 0, "t.csv: line 3")
    with pytest.raises(mm.DatasetError, match="t.csv: line 3: rating: wanted a number; got 'x'"):
        Skipped().add("interactions", row, "rating: wanted a number; got 'x'")
    skipped = Skipped(allowed=True)
    skipped.add("interactions", row, "rating: wanted a number; got 'x'")
    skipped.add("interactions", row, "rating: wanted a number; got 'y'")
    skipped.add("items", row, "no item id")
    assert skipped.counts == {
        "interactions": {"rating: wanted a number": 2},
        "items": {"no item id": 1},
    }
