import csv
import gzip
import io
import os
import pathlib
import signal
import struct
import wave

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.interactions.read import InteractionColumns
from data.items.content import MediaItem
from data.items.files import Medium
from data.items.shards import ItemRow, runner, write_items
from data.prepare import main
from data.sources import media_folder
from data.sources.media_folder import MediaFolder
from data.tables.side_features import FeatureColumns
from mmrec_tf import records
from mmrec_tf.schema import ModalitySpec, Schema

ITEMS = """item,title,description,image,audio,genres,year
a,Wren,Small and loud,images/a.png,audio/a.wav,bird|small,2000
b,Owl,,,,bird,2010
c,,,images/c.png,,,
"""
INTERACTIONS = """user,item,timestamp,rating,split
u1,a,10,4,train
u1,b,20,3.5,val
u1,z,30,5,test
u2,b,10,1,train
"""


def picture(shade: int = 120) -> bytes:
    pixels = np.full([12, 16, 3], shade, np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def sound(seconds: float = 0.1, rate: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack("<hhhh", 9000, -3000, 0, 0) * round(seconds * rate / 2))
    return out.getvalue()


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    """Three items: one complete, one with words only, one with a picture only."""
    folder = tmp_path / "source"
    for name in ("images", "audio"):
        (folder / name).mkdir(parents=True)
    (folder / "items.csv").write_text(ITEMS)
    (folder / "interactions.csv").write_text(INTERACTIONS)
    (folder / "images" / "a.png").write_bytes(picture())
    (folder / "images" / "c.png").write_bytes(picture(40))
    (folder / "audio" / "a.wav").write_bytes(sound())
    return folder


def prepare(root: pathlib.Path, out: str = "d", **options) -> tuple[dict, pathlib.Path]:
    settings = {"items": root / "items.csv", "interactions": root / "interactions.csv", **options}
    for name in ("items", "interactions", "users", "media_root"):
        if settings.get(name) is not None:
            settings[name] = str(settings[name])
    manifest = media_folder.prepare(MediaFolder(**settings), root.parent / out, run=runner(0))
    return manifest, root.parent / out


def items(directory: pathlib.Path) -> dict[str, records.Item]:
    found = records.read_items(directory, records.read_schema(directory))
    return {item.item_id: item for item in found}


def present(directory: pathlib.Path) -> dict[str, str]:
    return {name: " ".join(item.content) for name, item in items(directory).items()}


def interactions(directory: pathlib.Path, split: str) -> list[tuple]:
    """User, item, timestamp and rating, by id."""
    schema = records.read_schema(directory)
    item_ids = [item.item_id for item in records.read_items(directory, schema)]
    user_ids = [user.user_id for user in records.read_users(directory, schema)]
    found = records.read_interactions(directory, schema, split)
    columns = (found.user, found.item, found.timestamp, found.rating)
    return [
        (user_ids[user], item_ids[item], timestamp, rating)
        for user, item, timestamp, rating in zip(*(c.tolist() for c in columns), strict=True)
    ]


def quarantine(directory: pathlib.Path) -> list[dict[str, str]]:
    with (directory / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rewrite(root: pathlib.Path, name: str, *lines: str) -> None:
    (root / name).write_text("\n".join(lines) + "\n")


def test_a_sound_that_breaks_off_is_kept_and_said_to_be_cut(root, capsys):
    whole = sound(1.0)
    (root / "audio" / "a.wav").write_bytes(whole[: len(whole) // 2])
    manifest, directory = prepare(root)
    assert manifest["mended"] == {"audio": {"cut off or damaged": 1}}
    assert "mended.csv" in manifest["files"] and present(directory)["a"] == "text image audio"
    with (directory / "mended.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["item"], row["file"]) == ("a", "audio/a.wav")
    assert row["reason"] == "cut off or damaged (read: 0.5 s; the file ends early)"
    tables = ("--items", str(root / "items.csv"), "--interactions", str(root / "interactions.csv"))
    assert main(["media-folder", *tables, "--out", str(root / "e"), "--workers", "0"]) == 0
    said = f"mended        audio: 1 cut off or damaged (kept; see {root / 'e'}/mended.csv)"
    assert said in capsys.readouterr().out.splitlines()


def test_tables_and_media_become_a_dataset(root):
    manifest, directory = prepare(root)

    schema = records.read_schema(directory)
    assert list(schema.modalities) == ["text", "image", "audio"]
    assert schema.modalities["audio"].sample_rate_hz == 16000
    assert schema.ratings and schema.ordered and not schema.profile
    assert (schema.num_users, schema.num_items) == (2, 4)
    # z is named by an interaction only.
    assert present(directory) == {"a": "text image audio", "b": "text", "c": "image", "z": ""}
    content = items(directory)["a"].content
    assert content["text"] == ["Wren. Small and loud"]
    assert cv2.imdecode(np.frombuffer(content["image"][0], np.uint8), 1).shape == (12, 16, 3)
    with wave.open(io.BytesIO(content["audio"][0])) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 16000, 2)
    assert interactions(directory, "train") == [("u1", "a", 10, 4), ("u2", "b", 10, 1)]
    assert interactions(directory, "valid") == [("u1", "b", 20, 3.5)]
    assert interactions(directory, "test") == [("u1", "z", 30, 5)]
    # An empty cell is no fault.
    assert quarantine(directory) == [] and manifest["quarantine"] == {}
    assert manifest["counts"]["present"] == {"text": 2, "image": 2, "audio": 1}
    assert manifest["split_rule"] == "given"


def test_same_input_same_bytes(root):
    first, _ = prepare(root, "one")
    second, _ = prepare(root, "two")
    assert first == second


def test_gzip_and_parquet_give_what_csv_gives(root):
    _, plain = prepare(root, "plain")
    for name in ("items", "interactions"):
        (root / f"{name}.csv.gz").write_bytes(gzip.compress((root / f"{name}.csv").read_bytes()))
        table = pyarrow.csv.read_csv(root / f"{name}.csv")
        pyarrow.parquet.write_table(table, root / f"{name}.parquet")
    for suffix in ("csv.gz", "parquet"):
        _, other = prepare(
            root,
            suffix,
            items=root / f"items.{suffix}",
            interactions=root / f"interactions.{suffix}",
        )
        files = [records.read_manifest(d)["files"] for d in (plain, other)]
        assert files[0] == files[1]


def test_media_that_cannot_be_used_cost_nothing_but_themselves(root):
    (root / "images" / "cut.png").write_bytes(picture()[:60])
    (root / "images" / "empty.png").write_bytes(b"")
    (root / "audio" / "page.wav").write_bytes(b"<html>not a sound</html>")
    (root / "audio" / "pipe.wav").unlink(missing_ok=True)
    os.mkfifo(root / "audio" / "pipe.wav")
    rewrite(
        root,
        "items.csv",
        "item,title,image,audio",
        "a,Wren,images/a.png,audio/a.wav",
        "b,Owl,images/missing.png,audio/page.wav",
        "c,Kite,images/cut.png,audio/pipe.wav",
        "d,Swan,images/empty.png,audio",
    )
    manifest, directory = prepare(root)
    assert present(directory) | {"z": ""} == {
        "a": "text image audio",
        "b": "text",
        "c": "text",
        "d": "text",
        "z": "",
    }
    rows = {(row["item"], row["modality"]): row for row in quarantine(directory)}
    assert len(rows) == 6
    assert rows["b", "image"]["reason"] == "no such file"
    assert rows["b", "image"]["file"] == "images/missing.png"
    assert rows["b", "image"]["decoder"] == ""
    assert rows["b", "audio"]["decoder"].startswith("soundfile ")
    assert rows["c", "image"]["reason"] == "damaged or cut off"
    assert rows["c", "audio"]["reason"] == "not a file"
    assert rows["d", "image"]["reason"] == "empty file"
    assert rows["d", "audio"]["reason"] == "not a file"
    assert sum(sum(reasons.values()) for reasons in manifest["quarantine"].values()) == 6


def test_paths_do_not_leave_the_media_root(root):
    secret = root.parent / "secret.png"
    secret.write_bytes(picture())
    os.symlink(secret, root / "images" / "link.png")
    os.symlink("loop.png", root / "images" / "loop.png")
    rewrite(
        root,
        "items.csv",
        "item,title,image",
        "a,Wren,../secret.png",
        f"b,Owl,{secret}",
        "c,Kite,images/link.png",
        "d,Swan,images/../images/a.png",
        "e,Rail,images/loop.png",
        f"f,Coot,{'x' * 300}.png",
    )
    _, directory = prepare(root, audio="none")
    reasons = {row["item"]: row["reason"] for row in quarantine(directory)}
    assert reasons.pop("e") and reasons.pop("f")
    assert reasons == dict.fromkeys("abc", "outside the media root")
    assert present(directory)["d"] == "text image"


def test_a_decoder_that_breaks_costs_one_file(root, monkeypatch):
    def breaks(data, **options):
        raise ZeroDivisionError("rate 0")

    monkeypatch.setattr("mmrec_tf.media.audio.prepare", breaks)
    _, directory = prepare(root)
    (row,) = quarantine(directory)
    assert row["reason"] == "unexpected ZeroDivisionError (rate 0)"
    assert present(directory)["a"] == "text image"


def fragile(data: bytes) -> bytes:
    """A decoder that takes its process along."""
    if data == b"bomb":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"greed":
        return bytes(1 << 40)
    return data


def test_a_decoder_that_ends_its_process_costs_one_file(tmp_path):
    for n in range(300):
        data = {7: b"bomb", 250: b"bomb", 251: b"greed"}.get(n, b"fine")
        (tmp_path / f"{n}.bin").write_bytes(data)
    bare = {"text": "", "vectors": {}, "features": {}}
    rows = (
        ItemRow(n, f"i{n}", {**bare, "media": {"image": [[[f"{n}.bin"]], 0]}}) for n in range(300)
    )
    make = MediaItem({"image": Medium("image", tmp_path, fragile, 100)})
    with records.DatasetWriter(tmp_path / "d") as writer:
        write_items(writer, rows, num_items=300, make=make, run=runner(2))
        schema = Schema(num_users=0, num_items=300, modalities={"image": ModalitySpec("image")})
        manifest = writer.finish(schema, source={"name": "test"}, split_rule="given")
    assert manifest["counts"]["present"] == {"image": 297}
    assert [(row["item"], row["reason"]) for row in quarantine(tmp_path / "d")] == [
        ("i7", "ended its process (SIGSEGV)"),
        ("i250", "ended its process (SIGSEGV)"),
        ("i251", "unexpected MemoryError ()"),
    ]


@pytest.mark.parametrize(
    ("place", "files", "found"),
    [
        # Where there is no column, the folder tells; several endings, the known one first.
        (None, {"images/7.txt": b"x", "images/7.png": picture()}, "text image"),
        (None, {"pictures/7.png": picture()}, "text"),
        ("pictures/{movieId}.png", {"pictures/7.png": picture()}, "text image"),
        ("pictures/{movieId}_{item}.*", {"pictures/7_a.png": picture()}, "text image"),
        ("none", {"images/7.png": picture()}, "text"),
    ],
)
def test_where_files_are_when_no_column_says(tmp_path, place, files, found):
    root = tmp_path / "source"
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    rewrite(root, "items.csv", "item,movieId,title", "a,7,Heat")
    rewrite(root, "interactions.csv", "user,item,timestamp", "u,a,1")
    _, directory = prepare(root, image=place)
    assert present(directory) == {"a": found}
    assert quarantine(directory) == []


def test_without_movie_id_files_are_named_by_item(root):
    rewrite(root, "items.csv", "item,title", "a,Wren", "b,Owl", "c,Kite")
    manifest, directory = prepare(root)
    assert present(directory) == {"a": "text image audio", "b": "text", "c": "text image", "z": ""}
    assert manifest["quarantine"] == {"image": {"no such file": 1}, "audio": {"no such file": 2}}
    assert quarantine(directory)[0]["file"] == "images/b.*"


def test_a_template_with_an_empty_column_is_no_fault(root):
    rewrite(root, "items.csv", "item,title,file", "a,Wren,a", "b,Owl,")
    _, directory = prepare(root, image="images/{file}.png", audio="none")
    assert present(directory)["b"] == "text"
    assert quarantine(directory) == []


def shades(item: records.Item) -> list[int]:
    """How bright each of an item's pictures is."""
    return [
        int(cv2.imdecode(np.frombuffer(data, np.uint8), 0).mean()) for data in item.content["image"]
    ]


GALLERY = {"7-a": 20, "7-b": 90, "7-c": 160, "71-a": 230, "8-a": 50, "8-b": None}


@pytest.mark.parametrize(
    ("place", "most", "beyond", "want"),
    [
        # By name; 71-a is another item's, and what cannot be read costs only itself.
        ("images/{movieId}-*.png", 2, 1, {"a": [20, 90], "b": [50]}),
        ("images/{movieId}-*.png", 9, 0, {"a": [20, 90, 160], "b": [50]}),
        ("images/{movieId}-*.png", 1, 3, {"a": [20], "b": [50]}),
        ("images/{movieId}-*.*", 9, 0, {"a": [20, 90, 160], "b": [50]}),
        # In the order of the cell.
        ("files", 2, 1, {"a": [160, 20], "b": [50]}),
    ],
)
def test_several_pictures_an_item(root, capsys, place, most, beyond, want):
    for name, shade in GALLERY.items():
        data = b"no picture" if shade is None else picture(shade)
        (root / "images" / f"{name}.png").write_bytes(data)
    files = "|".join(f"images/7-{letter}.png" for letter in "cab")
    rewrite(root, "items.csv", "item,movieId,files", f"a,7,{files}", "b,8,images/8-a.png", "c,9,")
    rewrite(root, "interactions.csv", "user,item,timestamp", "u,a,1", "u,b,2", "u,c,3")
    arguments = ["media-folder", "--items", str(root / "items.csv"), "--workers", "0"]
    arguments += ["--interactions", str(root / "interactions.csv"), "--image", place]
    arguments += ["--max-images", str(most), "--out", str(root.parent / "d")]
    assert main(arguments) == 0
    found = items(root.parent / "d")
    assert {name: shades(item) for name, item in found.items() if item.content} == want
    schema = records.read_schema(root.parent / "d")
    assert schema.modalities["image"].max_values == len(want["a"])
    counts = records.read_manifest(root.parent / "d")["counts"]
    assert counts["several_values"] == {"image": int(len(want["a"]) > 1)}
    assert counts["values_left_out"] == ({"image": beyond} if beyond else {})
    said = capsys.readouterr().out
    assert ("2 of 3 items (1 have several)" in said) == (len(want["a"]) > 1)
    assert (f"{beyond} image beyond the maximum" in said) == (beyond > 0)


def test_a_star_in_a_cell_means_just_that(root):
    rewrite(root, "items.csv", "item,title", "*,Any", "c,One")
    rewrite(root, "interactions.csv", "user,item,timestamp", "u,c,1")
    (root / "images" / "c-1.png").write_bytes(picture())
    _, directory = prepare(root, image="images/{item}-*.png")
    assert {
        name: shades(item) for name, item in items(directory).items() if item.content.get("image")
    } == {"c": [120]}


@pytest.mark.parametrize(
    "place",
    [
        "pictures",
        "images/*.png",
        "images/{cover}.png",
        "*/{item}.png",
        "{item}*.png",
        "*-{item}.png",
    ],
)
def test_a_place_that_is_none_is_refused(root, place):
    with pytest.raises(mm.ConfigError, match="wanted a"):
        prepare(root, image=place)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (None, "Heat. A plot"),
        (("title", "tags"), "Heat. Crime!"),
        (("tags", "plot"), "Crime! A plot"),
    ],
)
def test_text_is_joined_from_columns(root, columns, text):
    rewrite(root, "items.csv", "item,title,plot,tags", "a,Heat,A  plot ,Crime!")
    _, directory = prepare(root, text=columns, image="none", audio="none")
    assert items(directory)["a"].content == {"text": [text]}


def test_modalities_that_no_item_has_are_left_out(root):
    rewrite(root, "items.csv", "item,title,image", "a,,images/missing.png")
    _, directory = prepare(root, audio="none")
    assert records.read_schema(directory).modalities == {}


def test_side_features(root):
    rewrite(root, "users.csv", "user,profile,age,town", "u9,Likes <b>owls</b>,30,", "u1,,50,Ulm")
    rewrite(root, "interactions.csv", "user,item,timestamp", "u2,a,1", "u1,b,2", "u1,c,3", "u2,z,3")
    _, directory = prepare(
        root,
        users=root / "users.csv",
        item_features=FeatureColumns(categorical=("genres",), numeric=("year",)),
        user_features=FeatureColumns(categorical=("town",), numeric=("age",)),
    )
    schema = records.read_schema(directory)
    genres = schema.item_features["genres"]
    assert (genres.vocabulary, genres.width) == (("bird", "small"), 2)
    year = schema.item_features["year"]
    assert (year.mean, year.std) == (2005, 5)
    found = items(directory)
    assert found["a"].features["genres"].tolist() == [2, 3]
    assert found["a"].features["year"] == -1 and found["b"].features["year"] == 1
    for name in ("c", "z"):  # empty cells; in no table
        assert found[name].features["genres"].tolist() == [] and "year" not in found[name].features
    users = list(records.read_users(directory, schema))
    assert [user.user_id for user in users] == ["u9", "u1", "u2"]  # the table's first
    assert [user.profile for user in users] == ["Likes owls", None, None]
    assert [user.features.get("age") for user in users] == [-1, 1, None]
    assert [user.features["town"].tolist() for user in users] == [[], [2], []]
    assert schema.profile


def test_rare_categories_are_out_of_vocabulary(root):
    _, directory = prepare(
        root,
        item_features=FeatureColumns(categorical=("genres",), vocabulary_size=1),
    )
    assert items(directory)["a"].features["genres"].tolist() == [2, 1]


def test_what_is_out_of_vocabulary_is_spread_over_buckets(tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    lines = [f"i{n},{'common' if n % 2 else f'rare{n}'}" for n in range(80)]
    rewrite(root, "items.csv", "item,kind", *lines)
    rewrite(root, "interactions.csv", "user,item", "u,i0")
    columns = FeatureColumns(categorical=("kind",), vocabulary_size=1, oov_buckets=4)
    _, directory = prepare(root, item_features=columns)
    found = {n: items(directory)[f"i{n}"].features["kind"].tolist() for n in range(80)}
    assert all(found[n] == [5] for n in range(1, 80, 2))
    rare = [found[n][0] for n in range(0, 80, 2)]
    assert set(rare) == {1, 2, 3, 4} and max(map(rare.count, rare)) < 20
    spec = mm.open_dataset(directory).schema.item_features["kind"]
    assert (spec.oov_buckets, spec.num_categories) == (4, 6)


def test_a_number_that_is_none_costs_no_item(root):
    rewrite(root, "items.csv", "item,title,year", "a,Wren,old", "b,Owl,2000", "c,Kite,2002")
    features = FeatureColumns(numeric=("year",))
    with pytest.raises(mm.DatasetError, match="items.csv: line 2: year: wanted a number or noth"):
        prepare(root, item_features=features)
    manifest, directory = prepare(root, item_features=features, skip_bad_rows=True)
    assert "year" not in items(directory)["a"].features
    assert items(directory)["c"].features["year"] == 1
    assert manifest["counts"]["skipped_rows"] == {"items": {"year: wanted a number or nothing": 1}}


def test_duplicates_are_dropped_and_counted(root):
    rewrite(root, "items.csv", "item,title", "a,Wren", "b,Owl", "a,Eagle")
    rewrite(
        root,
        "interactions.csv",
        "user,item,timestamp,rating,split",
        "u,a,20,1,train",
        "u,a,10,2,train",
        "u,b,30,3,train",
        "u,a,40,4,test",
    )
    manifest, directory = prepare(root)
    assert items(directory)["a"].content["text"] == ["Wren"]
    assert interactions(directory, "train") == [("u", "a", 10, 2), ("u", "b", 30, 3)]
    assert interactions(directory, "test") == []
    assert manifest["counts"]["duplicates"] == {"items": 1, "users": 0, "interactions": 2}


BAD_ROWS = [
    (",a,1,1,train", "no user id"),
    ("u,,1,1,train", "no item id"),
    ("u,a,yesterday,1,train", "timestamp: wanted seconds since 1970; got 'yesterday'"),
    ("u,a,,1,train", "timestamp: wanted seconds since 1970; got ''"),
    ("u,a,nan,1,train", "timestamp: wanted seconds since 1970; got 'nan'"),
    ("u,a,1609459200000,1,train", "not milliseconds; got '1609459200000'"),
    ("u,a,1,good,train", "rating: wanted a number; got 'good'"),
    ("u,a,1,inf,train", "rating: wanted a number; got 'inf'"),
    ("u,a,1,1,dev", r"split: wanted train, valid \(val\) or test; got 'dev'"),
    ("u,a,1,1", "wanted 5 cells; got 4"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_named(root, row, reason):
    header = "user,item,timestamp,rating,split"
    rewrite(root, "interactions.csv", header, "u,b,1,1,train", row)
    with pytest.raises(mm.DatasetError, match=rf"interactions.csv: line 3: .*{reason}"):
        prepare(root)
    assert not (root.parent / "d").exists()


def test_bad_rows_are_counted_when_passed_over(root):
    header = "user,item,timestamp,rating,split"
    good = ["u,b,1,1,train", "u,a,2,1,test"]
    rewrite(root, "interactions.csv", header, good[0], *(row for row, _ in BAD_ROWS), good[1])
    (root / "items.csv").write_text(ITEMS + ",Nameless,,,,,\n")
    manifest, directory = prepare(root, skip_bad_rows=True)
    assert interactions(directory, "train") == [("u", "b", 1, 1)]
    assert interactions(directory, "test") == [("u", "a", 2, 1)]
    skipped = manifest["counts"]["skipped_rows"]
    assert skipped["items"] == {"no item id": 1}
    assert skipped["interactions"]["timestamp: wanted seconds since 1970"] == 3
    assert sum(skipped["interactions"].values()) == len(BAD_ROWS)
    # A row that was passed over numbers nobody.
    assert records.read_schema(directory).num_users == 1


def test_dates_are_utc(root):
    rewrite(
        root,
        "interactions.csv",
        "user,item,date,split",
        "u,a,1970-01-02,train",
        "u,b,1970-01-02T01:00:00+01:00,valid",
        "u,c,1970-01-02 00:00:01.5,test",
    )
    _, directory = prepare(root)
    times = [interactions(directory, split)[0][2] for split in ("train", "valid", "test")]
    assert times == [86400, 86400, 86401]
    rewrite(root, "interactions.csv", "user,item,date,split", "u,a,2.1.1970,train")
    with pytest.raises(mm.DatasetError, match="date: wanted ISO 8601"):
        prepare(root, "e")


def test_leave_last_out_by_default_where_no_split_is_given(root):
    rewrite(root, "interactions.csv", "user,item,timestamp", "u,a,30", "u,b,10", "u,c,20", "v,a,1")
    manifest, directory = prepare(root)
    assert interactions(directory, "train") == [("u", "b", 10, 1), ("v", "a", 1, 1)]
    assert interactions(directory, "valid") == [("u", "c", 20, 1)]
    assert interactions(directory, "test") == [("u", "a", 30, 1)]
    schema = records.read_schema(directory)
    assert schema.ordered and not schema.ratings
    assert manifest["split_rule"] == "leave-last-out"


def test_leave_last_out_passes_over_a_given_split(root):
    _, directory = prepare(root, selection=SelectionOptions(split="leave-last-out"))
    assert interactions(directory, "test") == [("u1", "z", 30, 5)]
    assert interactions(directory, "train") == [("u1", "a", 10, 4), ("u2", "b", 10, 1)]


def test_a_given_split_needs_its_column(root):
    rewrite(root, "interactions.csv", "user,item", "u,a")
    with pytest.raises(mm.ConfigError, match="wanted a column 'split'; it has user, item"):
        prepare(root, selection=SelectionOptions(split="given"))


def test_other_column_names(root):
    rewrite(root, "items.csv", "sku,title", "a,Wren")
    rewrite(root, "interactions.csv", "who,sku,at,w", "u,a,7,0.5")
    columns = InteractionColumns(user="who", item="sku", timestamp="at", weight="w")
    _, directory = prepare(root, columns=columns)
    schema = records.read_schema(directory)
    found = records.read_interactions(directory, schema, "train")
    assert (found.timestamp.tolist(), found.weight.tolist()) == ([7], [0.5])
    # Without a column of paths, pictures and sounds are looked for by the item's id.
    assert present(directory) == {"a": "text image audio"}


def test_types_and_positions_reach_the_dataset(root):
    rewrite(
        root,
        "interactions.csv",
        "user,item,timestamp,event,rank,split",
        "u1,a,20,buy,,train",
        "u1,a,10,view,3,train",
        "u1,b,30,view,,train",
        "u1,c,40,view,0,valid",
        "u1,c,50,buy,1,test",
        "u1,c,45,cart,1,valid",
        "u1,b,60,return,8,test",
    )
    manifest, directory = prepare(
        root,
        columns=InteractionColumns(position="rank"),
        selection=SelectionOptions(
            event_weights={"view": 1.0, "return": 0.0, "cart": 2.0, "buy": 5.0}
        ),
    )
    schema = records.read_schema(directory)
    assert (schema.events, schema.num_positions) == (("view", "cart", "buy"), 4)
    assert manifest["counts"]["dropped"]["interactions event_weight_0"] == 1
    train = records.read_interactions(directory, schema, "train")
    assert train.item.tolist() == [0, 1] and train.position.tolist() == [3, -1]
    assert train.events.tolist() == [[True, False, True], [True, False, False]]
    # It was put into the cart within valid, and bought in test only.
    valid = records.read_interactions(directory, schema, "valid")
    assert valid.events.tolist() == [[True, True, False]] and valid.position.tolist() == [0]
    assert valid.weight.tolist() == [2]


def test_positions_that_are_all_unknown_are_none(root):
    rewrite(root, "interactions.csv", "user,item,position", "u1,a,", "u2,b,")
    schema = records.read_schema(prepare(root)[1])
    assert schema.num_positions == 0
    # With no column at all, what is read is the same.
    one = records.read_interactions(root.parent / "d", schema, "train")
    rewrite(root, "interactions.csv", "user,item", "u1,a", "u2,b")
    other = records.read_interactions(prepare(root, "e")[1], schema, "train")
    for column, twin in zip(one, other, strict=True):
        np.testing.assert_array_equal(column, twin)
    for path in ("schema.json", "interactions/train/part-00000-of-00001.tfrecord"):
        assert (root.parent / "d" / path).read_bytes() == (root.parent / "e" / path).read_bytes()


def test_one_row_and_an_empty_table_of_items(root):
    rewrite(root, "items.csv", "item,title,image,audio")
    rewrite(root, "interactions.csv", "user,item", "u,a")
    _, directory = prepare(root)
    assert present(directory) == {"a": ""}
    assert interactions(directory, "train") == [("u", "a", 0, 1)]
    assert not records.read_schema(directory).modalities


def test_no_interactions_are_refused(root):
    rewrite(root, "interactions.csv", "user,item")
    with pytest.raises(mm.DatasetError, match="wanted at least one interaction"):
        prepare(root)
    assert [path.name for path in root.parent.iterdir()] == ["source"]


def test_a_media_root_that_is_none_is_refused(root):
    with pytest.raises(mm.DatasetError, match="wanted a folder with media"):
        prepare(root, media_root=root / "nowhere")


def test_any_ending_is_found_in_one_listing_of_a_folder(tmp_path, monkeypatch):
    root = tmp_path / "source"
    (root / "images").mkdir(parents=True)
    rewrite(root, "items.csv", "item,title", *(f"{n},Wren" for n in range(40)))
    rewrite(root, "interactions.csv", "user,item", "u,0")
    for n in range(0, 40, 2):  # of 1 there is none, though there are 10, 12, ...
        (root / "images" / f"{n}{['.PNG', '', '.old.png'][n % 3]}").write_bytes(picture(n))
    (root / "images" / "3.txt").write_text("not this one")
    (root / "images" / "3.png").write_bytes(picture(3))
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    manifest, directory = prepare(root)
    want = {str(n) for n in range(0, 40, 2) if n % 3 != 2} | {"3"}
    assert {name for name, item in items(directory).items() if "image" in item.content} == want
    assert listed.count(root.resolve() / "images") == 1


def test_birds(tmp_path, shared):
    folder = shared / "data" / "birds"
    if not folder.is_dir():
        pytest.skip("needs shared/data/birds")
    arguments = ["--items", str(folder / "items.csv"), "--out", str(tmp_path / "d")]
    arguments += ["--interactions", str(folder / "interactions.csv.gz")]
    assert main(["media-folder", *arguments, "--item-categorical", "order,family"]) == 0
    counts = records.verify(tmp_path / "d", full=True)["counts"]
    assert (counts["users"], counts["items"]) == (15262, 265)
    assert counts["interactions"] == {"train": 63594, "valid": 7915, "test": 7915}
    assert counts["present"] == {"text": 265, "image": 131, "audio": 102}
    assert sum(len(item.content) == 3 for item in items(tmp_path / "d").values()) >= 63
    schema = records.read_schema(tmp_path / "d")
    assert not schema.ordered and not schema.ratings
    assert "Passeriformes" in schema.item_features["order"].vocabulary
    assert quarantine(tmp_path / "d") == []


def test_ml_posters(tmp_path, shared):
    folder = shared / "data" / "ml_posters"
    if not folder.is_dir():
        pytest.skip("needs shared/data/ml_posters")
    arguments = ["--items", str(folder / "items.csv"), "--out", str(tmp_path / "d")]
    arguments += ["--interactions", str(folder / "ratings.csv.gz")]
    assert main(["media-folder", *arguments, "--item-categorical", "genres"]) == 0
    counts = records.verify(tmp_path / "d", full=True)["counts"]
    assert (counts["users"], counts["items"]) == (610, 1200)
    assert counts["interactions"] == {"train": 49997, "valid": 596, "test": 596}
    posters = len(list((folder / "images").iterdir()))
    assert counts["present"] == {"text": 1200, "image": posters}
    schema = records.read_schema(tmp_path / "d")
    assert schema.ordered and schema.ratings
    assert schema.item_features["genres"].width > 1


def test_odd_media_never_end_the_run(tmp_path, shared):
    folder = shared / "data" / "odd_media"
    if not folder.is_dir():
        pytest.skip("needs shared/data/odd_media")
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        files = [(row["file"], row["kind"]) for row in csv.DictReader(file)]
    lines = [
        f"{i},{','.join([name, ''][:: 1 if k == 'image' else -1])}"
        for i, (name, k) in enumerate(files)
    ]
    rewrite(tmp_path, "items.csv", "item,image,audio", *lines)
    rewrite(tmp_path, "interactions.csv", "user,item", "u,0")
    options = MediaFolder(
        items=str(tmp_path / "items.csv"),
        interactions=str(tmp_path / "interactions.csv"),
        media_root=str(folder),
    )
    manifest = media_folder.prepare(options, tmp_path / "d", run=runner(2))
    assert manifest["counts"]["items"] == len(files)
    used = sum(manifest["counts"]["present"].values())
    assert used > 0 and used + len(quarantine(tmp_path / "d")) == len(files)
    assert not [r for r in quarantine(tmp_path / "d") if r["reason"].startswith("unexpected")]
