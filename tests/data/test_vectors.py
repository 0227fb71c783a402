"""Ready-made vectors beside text and pictures: rows find their items, and bad rows are named."""

import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import mmrec_tf as mm
from data.interactions.read import InteractionColumns
from data.items.shards import runner
from data.prepare import main
from data.sources import media_folder
from data.sources.media_folder import MediaFolder
from mmrec_tf import records

ROWS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    """Three items in a table, and one that only an interaction names."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "items.csv").write_text("item,title\na,Wren\nb,Owl\nc,Kite\n")
    (folder / "interactions.csv").write_text("user,item,timestamp\nu,a,1\nu,b,2\nu,z,3\n")
    return folder


def save(path: pathlib.Path, ids=None, rows=ROWS) -> str:
    """A matrix, with the ids of its rows where there are some."""
    np.save(path, np.asarray(rows))
    if ids is not None:
        path.with_name(path.name + ".ids.txt").write_text("\n".join(ids) + "\n")
    return str(path)


def save_table(path: pathlib.Path, **columns) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def fixed(rows, width=2):
    return pyarrow.array(rows, pyarrow.list_(pyarrow.float32(), width))


def prepare(root: pathlib.Path, out: str = "d", **options) -> tuple[dict, dict[str, dict]]:
    """The manifest, and each item's content by id."""
    settings = {"items": str(root / "items.csv"), "interactions": str(root / "interactions.csv")}
    directory = root.parent / out
    manifest = media_folder.prepare(MediaFolder(**settings, **options), directory, run=runner(0))
    found = records.read_items(directory, records.read_schema(directory))
    return manifest, {item.item_id: item.content for item in found}


def style(content: dict[str, dict]) -> dict[str, list[float]]:
    return {
        name: values["style"][0].tolist() for name, values in content.items() if "style" in values
    }


def test_rows_find_their_items_by_id(root):
    path = save(root / "style.npy", ["c", "z", "nobody"])
    manifest, content = prepare(root, vectors={"style": path})
    assert style(content) == {"c": [1, 2], "z": [3, 4]}
    assert content["c"]["text"] == ["Kite"] and "style" not in content["a"]
    schema = records.read_schema(root.parent / "d")
    assert list(schema.modalities) == ["text", "style"]
    assert (schema.modalities["style"].kind, schema.modalities["style"].dim) == ("vector", 2)
    assert manifest["counts"]["present"] == {"text": 3, "style": 2}
    assert manifest["counts"]["dropped"]["style rows of unknown items"] == 1
    tables = manifest["source"]["tables"]
    assert tables["vector style"]["file"] == "style.npy"
    assert tables["vector style"]["rows"] == "by item id"
    assert tables["vector style ids"]["file"] == "style.npy.ids.txt"
    dataset = mm.open_dataset(root.parent / "d")
    assert dataset.catalog.present[:, 1].tolist() == [False, False, True, True]


def test_without_ids_rows_are_those_of_the_table(root):
    manifest, content = prepare(root, vectors={"style": save(root / "style.npy")})
    assert style(content) == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}
    assert manifest["source"]["tables"]["vector style"]["rows"] == "in the order of the items table"


@pytest.mark.parametrize(
    "columns",
    [
        {"item": ["b", "a"], "v": fixed([[1, 2], [3, 4]])},
        {"item_id": ["b", "a"], "v": [[1.0, 2.0], [3.0, 4.0]], "note": ["x", "y"]},
        {"item": ["b", "a"], "x": [1.0, 3.0], "y": [2.0, 4.0]},
    ],
)
def test_a_table_of_vectors(root, columns):
    path = save_table(root / "style.parquet", **columns)
    manifest, content = prepare(root, vectors={"style": path})
    assert style(content) == {"b": [1, 2], "a": [3, 4]}
    assert manifest["source"]["tables"]["vector style"]["rows"] == "by item id"


def test_numbers_as_ids_and_many_rows(root):
    """More rows than are read at a time; ids are what the items table calls them."""
    (root / "items.csv").write_text("movie,title\n" + "".join(f"{n},x\n" for n in range(9000)))
    (root / "interactions.csv").write_text("user,movie,timestamp\nu,8999,1\n")
    rows = np.arange(1, 18001, dtype=np.float32).reshape(9000, 2)[::-1]
    save_table(root / "style.parquet", movie=np.arange(9000)[::-1], v=list(rows))
    (root / "style.parquet").rename(root / "s.parquet")
    columns = InteractionColumns(item="movie")
    _, content = prepare(root, vectors={"style": str(root / "s.parquet")}, columns=columns)
    assert len(style(content)) == 9000
    assert style(content)["0"] == [1, 2] and style(content)["8999"] == [17999, 18000]


def test_all_zeros_say_nothing(root):
    path = save(root / "style.npy", ["a", "b"], [[0, 0], [1, 0]])
    manifest, content = prepare(root, vectors={"style": path})
    assert style(content) == {"b": [1, 0]}
    assert manifest["quarantine"] == {"style": {"all zeros": 1}}


def test_the_command_takes_several_and_says_what_it_dropped(root, capsys):
    arguments = ["media-folder", "--items", str(root / "items.csv"), "--workers", "0"]
    arguments += ["--interactions", str(root / "interactions.csv"), "--out", str(root.parent / "d")]
    arguments += ["--vector", f"style={save(root / 'style.npy', ['a', 'x', 'y'])}"]
    path = save_table(root / "mood.parquet", item=["b"], v=fixed([[7, 8, 9]], 3))
    arguments += ["--vector", f"mood={path}"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 style rows of unknown items" in said
    assert "style         1 of 4 items" in said and "mood          1 of 4 items" in said
    assert main([*arguments, "--overwrite", "--vector", f"mood={path}"]) == 2
    assert "got 'mood' twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("style", {"ids": "ab"}, r"style.npy.ids.txt: wanted 3 ids.*as style.npy has rows; got 2"),
        ("style", {"rows": ROWS[:2]}, r"ids of its rows in style.npy.ids.txt.*got 2 rows .* of 3"),
        ("style", {"ids": "aba"}, r"row 3 of 3 \(item 'a'\): names an item that row 1 names"),
        ("style", {"ids": ["a", "", "c"]}, "row 2 of 3: wanted an item id; got none. Mend"),
        ("style", {"ids": "xyw"}, "wanted the ids of items, such as 'a'; none of its 3 rows"),
        (
            "style",
            {"ids": "abc", "rows": [[1, 2], [3, np.nan], [5, 6]]},
            r"style.npy: row 2 of 3 \(item 'b'\): wanted finite numbers; got NaN.*lacks style",
        ),
        ("style", {"rows": ROWS[0]}, "wanted one matrix of numbers"),
        ("image", {}, "wanted a name such as style, one word and none of .*image.*; got 'image'"),
        ("my style", {}, "wanted a name such as style, .* got 'my style'"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(root, name, options, message):
    path = save(root / "style.npy", **options)
    with pytest.raises(mm.MmrecError, match=message):
        prepare(root, vectors={name: path})
    assert not (root.parent / "d").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"item": ["a", "b"], "v": [[1.0, 2.0], [3.0]]},
            r"row 2 of 2 \(item 'b'\): wanted 2 numbers, as in the first row; got 1. Mend",
        ),
        ({"item": ["a", "b"], "v": [[1.0, 2.0], None]}, "row 2 of 2 .* got none"),
        ({"item": ["a", "b"], "v": fixed([[1, 2], None])}, "in rows 1 to .* Leave out the rows"),
        ({"item": ["a"], "v": [[1.0, None]]}, r"row 1 of 1 \(item 'a'\): wanted finite numbers"),
        ({"item": ["a", "a"], "x": [1.0, 2.0]}, "row 2 of 2 .*: names an item that row 1 names"),
        ({"id": ["a"], "v": [[1.0]]}, "a column of ids named item or item_id.* it has id, v"),
        ({"item": ["a"], "v": [[1.0]], "w": [[1.0]]}, "one column of lists of numbers"),
        ({"item": ["a"], "v": [[1.0]], "x": [1.0]}, "one column of lists of numbers"),
        ({"item": ["a"], "n": [1]}, "one column of lists of numbers or else columns of floats"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(root, columns, message):
    path = save_table(root / "style.parquet", **columns)
    with pytest.raises(mm.DatasetError, match=message):
        prepare(root, vectors={"style": path})


def test_a_cut_matrix_is_named(root):
    whole = pathlib.Path(save(root / "style.npy")).read_bytes()
    for length in (0, 5, 9, 60, 127, len(whole) - 1):
        (root / "style.npy").write_bytes(whole[:length])
        with pytest.raises(
            mm.DatasetError, match="style.npy: wanted a matrix as .* Was the file cut"
        ):
            prepare(root, vectors={"style": str(root / "style.npy")})
    # A header that ends within a bracket is another kind of error to NumPy.
    (root / "style.npy").write_bytes(whole[:10] + whole[10:].replace(b"}", b"(", 1))
    with pytest.raises(mm.DatasetError, match="style.npy: wanted a matrix as .* Was the file cut"):
        prepare(root, vectors={"style": str(root / "style.npy")})


def test_without_ids_a_table_with_repeated_rows_is_refused(root):
    with (root / "items.csv").open("a") as file:
        file.write("a,Wren again\n")
    with pytest.raises(mm.DatasetError, match="a table that has repeated or bad rows"):
        prepare(root, vectors={"style": save(root / "style.npy")})


@pytest.mark.parametrize("name", ["style.npy", "style.parquet"])
def test_a_file_that_is_missing_is_named(root, name):
    with pytest.raises(mm.DatasetError, match=f"{name}: wanted a matrix of vectors; there is no"):
        prepare(root, vectors={"style": str(root / name)})
