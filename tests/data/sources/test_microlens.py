import pathlib
import struct
import wave

import cv2
import numpy as np
import pytest

import mmrec_tf as mm
from data.items.shards import runner
from data.prepare import main
from data.sources import microlens
from mmrec_tf import records

PAIRS = """user,item,timestamp
1,20,1662983732429
1,3,1583378629552
1,7,1583378630000
2,3,1583378629552
"""
TITLES_50K = '''item,title
3,"Gu long song, even ""three"" hundred # comic"
7,KnifeTooth Death Row 37 # Anime
20,"""never"""
'''
# Without a header, with a blank behind the comma, or a quote that is never closed.
TITLES_100K = '3, Gu long song gaga bad\n7, "Anime" # Knife, Tooth\n20, say "never\n'
TITLES_1M = '3,十二生肖，谁最强\n7,"say ""hi"", all"\n20,"never closed\n'
TAGS = "3,Anime\n20,Film, TV\n"


def write(folder: pathlib.Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def small(tmp_path) -> pathlib.Path:
    """As MicroLens-50k is published, without media."""
    folder = tmp_path / "MicroLens-50k"
    write(folder, "MicroLens-50k_pairs.csv", PAIRS)
    write(folder, "MicroLens-50k_pairs.tsv", "1\t3 7 20\n2\t3\n")
    write(folder, "MicroLens-50k_titles.csv", TITLES_50K)
    write(folder, "MicroLens-50k_likes_and_views.txt", "3\t10\t200\n7\t1\t20\n20\t2\t30\n")
    write(folder, "readme.txt", "In MicroLens-50k_pairs.tsv ...\n")
    return folder


def prepare(folder: pathlib.Path, **options) -> tuple[dict, pathlib.Path]:
    options = microlens.MicroLens(folder=str(folder), **options)
    out = folder.parent / "d"
    return microlens.prepare(options, out, overwrite=True, run=runner(0)), out


def texts(directory: pathlib.Path) -> dict[str, str | None]:
    found = records.read_items(directory, records.read_schema(directory))
    return {item.item_id: item.content.get("text", [None])[0] for item in found}


def add_media(folder: pathlib.Path, covers: str, sounds: str) -> None:
    for name in (covers, sounds):
        (folder / name).mkdir()
    for item in (3, 7):
        picture = np.full([12, 16, 3], 10 * item, np.uint8)
        cv2.imwrite(str(folder / covers / f"{item}.jpg"), picture)
    with wave.open(str(folder / sounds / "3.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<hh", 9000, -9000) * 400)


def test_a_folder_becomes_a_dataset(small):
    add_media(small, "MicroLens-50k_covers", "MicroLens-50k_audio")
    manifest, out = prepare(small)
    assert texts(out) == {
        "3": 'Gu long song, even "three" hundred # comic',
        "7": "KnifeTooth Death Row 37 # Anime",
        "20": '"never"',
    }
    assert manifest["counts"]["present"] == {"text": 3, "image": 2, "audio": 1}
    assert manifest["source"]["name"] == "microlens"
    assert manifest["source"]["arguments"] == {"folder": str(small)}
    dataset = mm.open_dataset(out)
    assert list(dataset.schema.modalities) == ["text", "image", "audio"]
    assert not dataset.schema.item_features and not dataset.schema.ratings
    # User 1 met 3, then 7, then 20; in seconds.
    for split, item, timestamp in (
        ("train", "3", 1583378629),
        ("valid", "7", 1583378630),
        ("test", "20", 1662983732),
    ):
        found = dataset.interactions(split)
        first = found.user == 0
        assert [list(texts(out))[i] for i in found.item[first]] == [item]
        assert found.timestamp[first] == [timestamp]


@pytest.mark.parametrize(
    ("name", "titles", "wanted"),
    [
        (
            "MicroLens-100k_title_en.csv",
            TITLES_100K,
            ["Gu long song gaga bad", '"Anime" # Knife, Tooth', 'say "never'],
        ),
        (
            "MicroLens-1M_title.csv",
            TITLES_1M,
            ["十二生肖，谁最强", 'say "hi", all', '"never closed'],
        ),
        ("MicroLens-1M_title.csv", TITLES_1M.replace("\n", "\r\n"), None),
    ],
)
def test_titles_without_a_header_are_split_at_the_first_comma(small, name, titles, wanted):
    (small / "MicroLens-50k_titles.csv").unlink()
    (small / name).write_text(titles, encoding="utf-8", newline="")
    _, out = prepare(small)
    assert list(texts(out).values()) == (
        wanted or ["十二生肖，谁最强", 'say "hi", all', '"never closed']
    )


def test_categories_of_100k_are_a_feature(small):
    write(small, "tags_to_summary.csv", TAGS)
    manifest, out = prepare(small)
    schema = records.read_schema(out)
    assert schema.item_features["category"].vocabulary == ("Anime", "Film, TV")
    features = [item.features["category"] for item in records.read_items(out, schema)]
    assert [list(numbers) for numbers in features] == [[2], [], [3]]
    assert manifest["source"]["tables"]["tags"]["file"] == "tags_to_summary.csv"

    write(small, "tags_to_summary.csv", TAGS + "7\n")
    with pytest.raises(mm.DatasetError, match="tags_to_summary.csv: line 3: wanted 2 cells"):
        prepare(small)
    _, out = prepare(small, skip_bad_rows=True)


def test_pairs_without_a_header_are_read_by_order(small):
    # User and item may have the same number.
    write(small, "MicroLens-50k_pairs.csv", "7,7,1583378629552\n" + PAIRS.partition("\n")[2])
    manifest, _ = prepare(small)
    assert sum(manifest["counts"]["interactions"].values()) == 5
    write(small, "MicroLens-50k_pairs.csv", PAIRS.replace("user,item", "userID,videoID"))
    _, other = prepare(small)
    assert texts(other).keys() == {"3", "7", "20"}


def test_within_a_second_the_milliseconds_decide(small):
    rows = [f"1,{item},158337862955{n}" for n, item in zip((9, 5, 1), (3, 7, 20), strict=True)]
    write(small, "MicroLens-50k_pairs.csv", "user,item,timestamp\n" + "\n".join(rows) + "\n")
    _, out = prepare(small)
    dataset = mm.open_dataset(out)
    ids = dataset.catalog.item_id
    for split, item in (("train", "20"), ("valid", "7"), ("test", "3")):
        found = dataset.interactions(split)
        assert (ids[found.item].tolist(), found.timestamp.tolist()) == ([item], [1583378629])


def test_damaged_rows_end_the_run_or_are_counted(small):
    write(
        small,
        "MicroLens-50k_pairs.csv",
        PAIRS + "2,7\n2,20,yesterday\n3,20,1583378629\n",
    )
    with pytest.raises(mm.DatasetError, match="pairs.csv: line 6: wanted 3 cells; got 2. Mend"):
        prepare(small)
    manifest, _ = prepare(small, skip_bad_rows=True)
    assert manifest["counts"]["skipped_rows"] == {
        "interactions": {
            "wanted 3 cells": 1,
            "timestamp: wanted milliseconds since 1970": 1,
            "timestamp: wanted milliseconds since 1970, not seconds": 1,
        }
    }


def test_what_is_missing_or_meant_twice_is_refused(small, tmp_path):
    with pytest.raises(mm.DatasetError, match="nowhere: wanted a folder with MicroLens"):
        prepare(tmp_path / "nowhere")
    write(small, "MicroLens-100k_title_en.csv", TITLES_100K)
    with pytest.raises(mm.DatasetError, match="got MicroLens-100k_title_en.csv, MicroLens-50k_ti"):
        prepare(small)
    _, out = prepare(small, titles=str(small / "MicroLens-100k_title_en.csv"))
    assert texts(out)["3"] == "Gu long song gaga bad"
    for name in ("MicroLens-100k_title_en.csv", "MicroLens-50k_titles.csv"):
        (small / name).unlink()
    with pytest.raises(mm.DatasetError, match="wanted MicroLens-..._pairs.csv and .*no titles"):
        prepare(small)
    (small / "MicroLens-50k_pairs.csv").unlink()
    with pytest.raises(mm.DatasetError, match="got MicroLens-50k_pairs.tsv, which has no times"):
        prepare(small)
    (small / "MicroLens-50k_pairs.tsv").unlink()
    with pytest.raises(mm.DatasetError, match="got none of ..._pairs.csv"):
        prepare(small)


def test_other_columns_are_refused(small):
    write(small, "MicroLens-50k_pairs.csv", "user,item\n1,3\n")
    with pytest.raises(mm.DatasetError, match="wanted the columns user, item, timestamp; it has"):
        prepare(small)
    write(small, "MicroLens-50k_pairs.csv", PAIRS)
    write(small, "MicroLens-50k_titles.csv", "id,name\n3,a\n")
    with pytest.raises(mm.DatasetError, match="wanted the columns item, title; there is no item"):
        prepare(small)


def test_the_command_makes_a_dataset(small, tmp_path):
    add_media(small, "MicroLens-50k_covers", "MicroLens-50k_audio")
    titles = str(small / "MicroLens-50k_titles.csv")
    arguments = ["--folder", str(small), "--titles", titles, "--out", str(tmp_path / "d")]
    more = ["--workers", "0", "--sample-rate-hz", "8000", "--image-max-side", "8"]
    assert main(["microlens", *arguments, *more, "--skip-bad-rows"]) == 0
    assert records.read_schema(tmp_path / "d").modalities["audio"].sample_rate_hz == 8000
    assert records.read_manifest(tmp_path / "d")["source"]["arguments"] == {
        "folder": str(small),
        "titles": titles,
        "sample_rate_hz": 8000,
        "image_max_side": 8,
        "skip_bad_rows": True,
    }
