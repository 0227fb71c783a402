import gzip
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet
import pytest

import mmrec_tf as mm
from data.tables.delimited import Csv, Lines
from data.tables.json_lines import JsonLines
from data.tables.rows import BadRow, Row
from data.tables.table import Derived, Skipped, Table, complete

TEXT = 'item,title,year\n1,"Wren, the\nsmall one",1999\n\n2, Zaunkönig ,\n'
CELLS = [
    {"item": "1", "title": "Wren, the\nsmall one", "year": "1999"},
    {"item": "2", "title": "Zaunkönig", "year": ""},
]


def cells(path: pathlib.Path) -> list[dict[str, str]]:
    return [row.cells for row in Table(path)]


def faults(table: Table) -> list[str]:
    """Why each row cannot be used; "" for those that can."""
    found = []
    for row in table:
        try:
            complete(row, table.columns)
            found.append("")
        except BadRow as error:
            found.append(str(error))
    return found


def write_lines(path: pathlib.Path, *values) -> pathlib.Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def write_parquet(path: pathlib.Path, **columns) -> pathlib.Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def test_forms_of_a_table_agree(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT, encoding="utf-8")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "bom.csv").write_text(TEXT, encoding="utf-8-sig")
    (tmp_path / "t.tsv").write_text(TEXT.replace(",", "\t").replace("Wren\t", "Wren,"))
    (tmp_path / "crlf.csv").write_bytes(
        TEXT.replace("\n", "\r\n").replace("the\r\n", "the\n").encode()
    )
    titles = [row["title"] for row in CELLS]
    write_parquet(tmp_path / "t.parquet", item=[1, 2], title=titles, year=[1999, None])
    rows = zip([1, 2], titles, [1999, None], strict=True)
    values = [dict(zip(CELLS[0], row, strict=True)) for row in rows]
    text = "".join(f"{json.dumps(value)}\r\n\r\n" for value in values)
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8-sig", newline="")
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(text.encode()))
    for name in (
        *("t.csv", "t.csv.gz", "bom.csv", "crlf.csv", "t.tsv", "t.parquet", "t.jsonl", "t.json.gz"),
    ):
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
        ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "wanted UTF-8; got zero bytes"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "wanted UTF-8"),
        ("t.csv.gz", b"a\n1\n", "wanted a table"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"1\n" * 999, mtime=0)[:-9], "wanted a table"),
        ("t.parquet", b"a\n1\n", "wanted Parquet"),
        ("t.jsonl", b"\n", "wanted one JSON object a line; it is empty"),
        ("t.jsonl", b'\n[{"a": 1}]\n', "line 2: wanted one JSON object a line; got a list"),
        ("t.jsonl", b"{'a': 1}\n", "line 1: wanted one JSON object a line; got a dict of Python"),
        ("t.json", b'[\n{"a": 1},\n{"a": 2}]\n', "got the start of an array; write its objects on"),
        ("t.json.gz", b'{"a": 1}\n', "wanted a table"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(mm.DatasetError, match=f"{name}.*{message}"):
        list(Table(tmp_path / name))


def test_a_missing_table_is_refused(tmp_path):
    for name in ("t.csv", "t.csv.gz", "t.parquet", "t.jsonl", "t.jsonl.gz"):
        with pytest.raises(mm.DatasetError, match=f"{name}: wanted a table; there is no such"):
            Table(tmp_path / name)
    for form in (Lines(("a",), "::"), JsonLines(("a",))):
        with pytest.raises(mm.DatasetError, match="t.dat: wanted a table; there is no such"):
            Table(tmp_path / "t.dat", form=form)


def test_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("item,title\n")
    assert cells(tmp_path / "t.csv") == []


def test_cells_longer_than_pythons_limit(tmp_path):
    long = "x" * 200_000
    (tmp_path / "t.csv").write_text(f"item\n{long}\n")
    assert cells(tmp_path / "t.csv") == [{"item": long}]


def test_zero_bytes_within_a_cell_are_a_cells_own(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"item,title\n1,a\0b\n")
    assert cells(tmp_path / "t.csv") == [{"item": "1", "title": "a\0b"}]


def test_tables_without_a_header(tmp_path):
    (tmp_path / "t.csv").write_text('1,"a, b"\n')
    table = Table(tmp_path / "t.csv", form=Csv(names=("item", "title")))
    assert [row.cells for row in table] == [{"item": "1", "title": "a, b"}]
    assert next(iter(table)).where == f"{tmp_path}/t.csv: line 1"


def test_lines_are_split_and_never_quoted(tmp_path):
    path = tmp_path / "t.dat"
    path.write_bytes('1::"Misérables::x\r\n\n2:: a \n3\n'.encode("latin-1"))
    table = Table(path, form=Lines(("item", "title"), "::", encoding="latin-1"))
    assert [row.where for row in table] == [f"{path}: line {line}" for line in (1, 3, 4)]
    assert faults(table) == ["wanted 2 cells; got 3", "", "wanted 2 cells; got 1"]
    assert [row.cells for row in table][1] == {"item": "2", "title": "a"}
    table = Table(path, form=Lines(("item", "rest"), "::", encoding="latin-1", rest=True))
    assert next(iter(table)).cells == {"item": "1", "rest": '"Misérables::x'}
    with pytest.raises(mm.DatasetError, match="t.dat: line 1: wanted UTF-8"):
        list(Table(path, form=Lines(("item", "title"), "::")))


def test_json_values_are_as_a_csv_would_hold_them(tmp_path):
    path = write_lines(
        tmp_path / "t.jsonl",
        {
            "item": 3,
            "rating": 3.5,
            "genres": ["a", " b"],
            "text": ["One.", "Two."],
            "far": {"x": 1},
        },
        {"item": 4.0, "rating": float("nan"), "genres": [], "text": None, "new": 1},
        {"item": " 5 ", "text": "cut emoji \ud83d", "far": "é"},
    )
    form = JsonLines(("item", "rating", "genres", "text"), joiners={"text": " "})
    assert [list(row.cells.values()) for row in Table(path, form=form)] == [
        ["3", "3.5", "a|b", "One. Two."],
        ["4", "", "", ""],
        ["5", "", "", "cut emoji ?"],
    ]
    # By default the columns are those of all objects, and objects stay what they are.
    assert Table(path).columns == ["item", "rating", "genres", "text", "far", "new"]
    assert [row.cells["far"] for row in Table(path)] == ['{"x": 1}', "", "é"]


def test_bad_lines_of_json_are_bad_rows(tmp_path):
    path = tmp_path / "t.jsonl"
    good = b'{"item": 1, "title": "a"}\n'
    path.write_bytes(
        good
        + b'{"item": 2,\n[3]\n{"item": "\xff"}\n{"item": {"id": 5}}\n'
        + b"[" * 99_999
        + b"\n"
        + good
    )
    table = Table(path, form=JsonLines(("item", "title")))
    assert [fault.split("; got")[0] for fault in faults(table)] == [
        "",
        "wanted one JSON object a line",
        "wanted one JSON object a line",
        "wanted UTF-8",
        "item: wanted text, a number or a list of them",
        "wanted one JSON object a line",
        "",
    ]
    assert [row.where for row in table][1] == f"{path}: line 2"


def test_a_caller_makes_objects_flat(tmp_path):
    def flatten(value):
        if "id" not in value:
            raise BadRow("no id")
        return {"item": value["id"]["asin"]}

    path = write_lines(tmp_path / "t.jsonl", {"id": {"asin": "a"}}, {}, {"id": {"asin": "b"}})
    table = Table(path, form=JsonLines(("item",), flatten=flatten))
    assert [row.cells for row in table] == [{"item": "a"}, {}, {"item": "b"}]
    assert faults(table) == ["", "no id", ""]


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data.tables.opening.LARGEST_ROW", 30)
    path = write_lines(tmp_path / "t.jsonl", {"item": "x" * 9}, {"item": "x" * 30})
    with pytest.raises(mm.DatasetError, match="line 2: wanted one JSON object a line; got a line"):
        list(Table(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a,b\n1,2\n" + b"," * 99, "line 3: wanted rows of at most 60 characters"),
        ("t.csv", b"," * 99, "line 1: wanted rows of at most 60"),
        ("t.csv", b'a,b\n"' + b"1\n" * 60, "line 31: wanted rows of at most 60"),
        ("t.csv", b"a,b\n" + b'"\n",,' * 30, "line 1.: wanted rows of at most 60"),
        ("t.csv.gz", gzip.compress(b"a,b\n" + b"," * 10**6), "line 2: wanted rows of at most 60"),
        ("t.tsv", b"\t".join(b"%d" % n for n in range(9)), "wanted at most 5 columns; got 9"),
        ("t.jsonl", b'{"a":1,"b":2}\n{"c":1,"d":2}\n{"e":1,"f":1}\n', "at most 5 columns; got 6"),
        ("t.json", b'{"a": "' + b"x" * 60 + b'"}\n', "line 1: wanted one JSON object a line; got"),
    ],
)
def test_rows_and_columns_are_bounded(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr("data.tables.opening.LARGEST_ROW", 60)
    monkeypatch.setattr("data.tables.opening.MOST_COLUMNS", 5)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(mm.DatasetError, match=message):
        list(Table(tmp_path / name))


def test_lines_without_quotes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("data.tables.opening.LARGEST_ROW", 60)
    (tmp_path / "t.dat").write_text("1::a\n" * 30 + "2::" + "b" * 60)
    with pytest.raises(mm.DatasetError, match="line 31: wanted rows of at most 60 characters"):
        list(Table(tmp_path / "t.dat", form=Lines(("item", "title"), "::")))


@pytest.mark.parametrize(
    ("header", "line"),
    [("item;title", "1;a, b"), ("item\ttitle", "1\ta, b"), ("item|title", "1|a, b")],
)
def test_the_first_line_says_what_stands_between_cells(tmp_path, header, line):
    (tmp_path / "t.csv").write_text(f"{header}\n{line}\n")
    table = Table(tmp_path / "t.csv")
    assert [row.cells for row in table] == [{"item": "1", "title": "a, b"}]
    assert len(table.notes) == 1 and f"read with {header[4]!r} between cells" in table.notes[0]
    # One that is said is not guessed; and a comma is no news.
    table = Table(tmp_path / "t.csv", text=Csv(header[4]))
    assert table.columns == ["item", "title"] and table.notes == []
    (tmp_path / "t.csv").write_text('item,"a; b; c"\n1,2\n')
    assert Table(tmp_path / "t.csv").columns == ["item", "a; b; c"]
    assert Table(tmp_path / "t.csv").notes == []


def test_quotes_may_be_characters_like_others(tmp_path):
    (tmp_path / "t.tsv").write_text('item\ttitle\n1\t"new" the film\n2\t"open\n')
    with pytest.raises(mm.DatasetError, match="line 2: wanted a row of CSV; .* --quoting none; "):
        list(Table(tmp_path / "t.tsv"))
    table = Table(tmp_path / "t.tsv", text=Csv(None, quoted=False))
    assert [row.cells["title"] for row in table] == ['"new" the film', '"open']
    (tmp_path / "t.csv").write_text('item,title\n1,"the \\"red\\" lamp, new"\n')
    with pytest.raises(mm.DatasetError, match="escaped by backslashes, which CSV doubles"):
        list(Table(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", "line 3: wanted UTF-8; got the byte 0xE9 .* --encoding cp1252"),
        ("utf-16", "wanted UTF-8; got UTF-16. Name it with --encoding utf-16"),
    ],
)
def test_other_encodings_are_named_and_read(tmp_path, encoding, message):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("item,title\n1,a\n2,é\n".encode(encoding)))
    with pytest.raises(mm.DatasetError, match=message):
        list(Table(path))
    table = Table(path, text=Csv(None, encoding=encoding))
    assert [row.cells["title"] for row in table] == ["a", "é"]
    with pytest.raises(mm.DatasetError, match="wanted ascii; got the byte"):
        list(Table(path, text=Csv(None, encoding="ascii")))


@pytest.mark.parametrize(
    ("name", "start", "got"),
    [
        (
            "t.xlsx",
            b"PK\x03\x04",
            "a zip archive or a sheet of Excel; unpack it, or save",
        ),
        ("t.csv", b"PK\x03\x04", "a zip archive"),
        ("t.xls", b"\xd0\xcf\x11\xe0", "a sheet of Excel; save it as CSV"),
        ("t.ods", b"", "the ending .ods. Save the sheet as CSV"),
        ("t.csv", b"\x1f\x8b", "gzip; end its name with .gz"),
        ("t.csv", b"PAR1", "Parquet; end its name with .parquet"),
        ("t.csv.xz", b"\xfd7zXZ", "xz; unpack it"),
        ("t.feather", b"ARROW1", "Feather; save it as Parquet"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, start, got):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(mm.DatasetError, match=f"{name}: wanted CSV, TSV or JSON li.*; got {got}"):
        Table(tmp_path / name)


def test_names_that_only_later_objects_have(tmp_path, monkeypatch):
    monkeypatch.setattr("data.tables.json_lines.FIRST_OBJECTS", 2)
    path = write_lines(tmp_path / "t.jsonl", {"item": 0}, {"item": 1, "a": "x"}, {"b": 2}, {"b": 3})
    table = Table(path)
    assert table.columns == ["item", "a"] and table.notes == []
    assert [row.cells for row in table][1] == {"item": "1", "a": "x"}
    assert "none of the first objects has were not read: 'b' (line 3)" in table.notes[0]
    assert table.unread == ["item", "a", "b"]


def test_what_a_column_of_another_name_may_be(tmp_path):
    (tmp_path / "t.csv").write_text("product_id,customer,name\n")
    table = Table(tmp_path / "t.csv")
    for wanted, option in (
        ("item", "--item-column product_id"),
        ("user", "--user-column customer"),
    ):
        with pytest.raises(mm.ConfigError, match=f"wanted a column '{wanted}'; .* Is it {option}?"):
            table.required_column(None, wanted)


def test_derived_tables_change_rows_and_keep_bad_ones_bad(tmp_path):
    def derive(cells):
        if not cells["b"]:
            raise BadRow("no b")
        return {"sum": str(int(cells["a"]) + int(cells["b"]))}

    (tmp_path / "t.csv").write_text("a,b\n1,2\n1\n1,\n")
    table = Derived(Table(tmp_path / "t.csv"), ["sum"], derive=derive)
    assert (table.columns, table.path) == (["sum"], tmp_path / "t.csv")
    for _ in range(2):
        assert faults(table) == ["", "wanted 2 cells; got 1", "no b"]
    assert next(iter(table)) == ({"sum": "3"}, 1, f"{tmp_path}/t.csv: line 2", "")
    assert table.required_column(None, "sum") == "sum"


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
