"""What is read of the tables, what is not, and what that may be: nothing goes without a word."""

import json

import cv2
import numpy as np
import pytest
from support.tables import WORDS, prepare, write, write_interactions, write_items

import mmrec_tf as mm
from data.interactions.options import SelectionOptions
from data.prepare import main


@pytest.fixture
def folder(tmp_path):
    write_items(tmp_path, range(5))
    write_interactions(tmp_path, range(5))
    return tmp_path


def command(folder, *more: str) -> list[str]:
    tables = ["--items", str(folder / "items.csv"), "--interactions"]
    tables += [str(folder / "interactions.csv"), "--out", str(folder / "d"), "--workers", "0"]
    return ["media-folder", *tables, *more]


def proposals(manifest) -> list[str]:
    """What is proposed: columns with the options that would read them."""
    said = [text for text in manifest["warnings"] if "nothing was read of the column" in text]
    return [text.partition("column ")[2].removesuffix(" be right?") for text in said]


def test_columns_that_were_not_read_are_listed(folder, capsys):
    write(folder, "items.csv", "item,title,size,color", *(f"{n},x{n},1,red" for n in range(5)))
    write(folder, "users.csv", "user,age", "u0,3", "u1,4", "u2,5")
    assert main(command(folder, "--users", str(folder / "users.csv"))) == 0
    said = capsys.readouterr().out
    assert "not read      items: size, color; users: age\n" in said and "warning" not in said
    arguments = ["--item-categorical", "color", "--item-numeric", "size", "--overwrite", "--json"]
    assert main(command(folder, *arguments)) == 0
    assert json.loads(capsys.readouterr().out)["not_read"] == {}


def test_the_summary_as_json(folder, capsys):
    write(folder, "items.csv", "item,color", *(f"{n},red" for n in range(5)))
    assert main(command(folder, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    manifest = json.loads((folder / "d" / "manifest.json").read_text())
    assert said["out"] == str(folder / "d")
    for name in ("counts", "warnings", "not_read", "split_rule", "sha256"):
        assert said[name] == manifest[name]
    assert said["warnings"] == [
        "no item has any content: models can learn from ids and features only."
    ]
    assert main(command(folder)) == 0 or "replace it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "cells", "proposal"),
    [
        ("name", WORDS, "'name'; would --text name"),
        ("Product Title", WORDS, "'Product Title'; would --text \"Product Title\""),
        ("blurb", WORDS, "'blurb'; would --text blurb"),
        ("color", ["red"] * 5, None),
    ],
)
def test_likely_text_is_proposed(folder, column, cells, proposal):
    write(folder, "items.csv", f"item,{column}", *(f"{n},{c}" for n, c in enumerate(cells)))
    manifest = prepare(folder)
    assert proposals(manifest) == ([] if proposal is None else [proposal])
    assert "no item has any content" in manifest["warnings"][-1]


@pytest.mark.parametrize(
    ("column", "cells", "proposal"),
    [
        ("score", "5 4 3 2 1", "'score'; would --rating-column score"),
        (
            "action",
            "view buy view view buy",
            "'action'; would --event-column action, with --ev",
        ),
        ("rank", "1 2 3 4 5", "'rank'; would --position-column rank"),
        ("shop", "1 2 3 4 5", None),
    ],
)
def test_likely_columns_of_interactions_are_proposed(folder, column, cells, proposal):
    rows = [f"u,{n},{10**9 + n},{cell}" for n, cell in enumerate(cells.split())]
    write(folder, "interactions.csv", f"user,item,timestamp,{column}", *rows)
    found = proposals(prepare(folder))
    assert len(found) == (proposal is not None) and all(f.startswith(proposal) for f in found)


def test_times_under_another_name_are_proposed_under_any_split(folder):
    rows = [f"u{u},{n},2024-01-0{n + 1}" for n in range(5) for u in range(3)]
    write(folder, "interactions.csv", "user,item,bought_at", *rows)
    manifest = prepare(folder, selection=SelectionOptions(split="random"))
    assert proposals(manifest) == ["'bought_at'; would --date-column bought_at"]


def test_a_profile_is_proposed(folder):
    write(folder, "users.csv", "user,bio", *(f"u{n},likes lamps" for n in range(3)))
    manifest = prepare(folder, users=str(folder / "users.csv"))
    assert proposals(manifest) == ["'bio'; would --profile-column bio"]


def test_pictures_are_looked_for(folder, capsys):
    photos = folder / "photos"
    photos.mkdir()
    for n in range(5):
        cv2.imwrite(str(photos / f"p{n}.png"), np.full([8, 8, 3], 40 * n + 20, np.uint8))
    rows = [f"{n},{words},p{n}.png" for n, words in enumerate(WORDS)]
    # Under another name, the column and its folder are proposed.
    write(folder, "items.csv", "item,title,photo", *rows)
    place = "photos/{photo}"
    assert proposals(prepare(folder)) == [f"'photo'; would --image \"{place}\""]
    assert prepare(folder, image=place)["counts"]["present"]["image"] == 5
    # Under the right one, that no file was found.
    write(folder, "items.csv", "item,title,image", *rows)
    assert main(command(folder, "--overwrite")) == 0
    said = capsys.readouterr().out
    assert "image         0 of 5 items\n" in said
    assert "warning       image: 0 of 5 items have any; no file that 'image' names could" in said
    assert 'would --image "photos/{image}" be right?' in said
    assert prepare(folder, media_root=str(photos))["warnings"] == []
    # Addresses are no files.
    rows = [f"{n},{words},https://x.org/p{n}.png" for n, words in enumerate(WORDS)]
    write(folder, "items.csv", "item,title,photo", *rows)
    assert "once the files are fetched" in proposals(prepare(folder))[0]
    write(folder, "items.csv", "item,title,image", *(f"{n},x y {n}," for n in range(5)))
    assert "names no files" in prepare(folder)["warnings"][0]


def test_objects_that_come_later_have_columns_too(folder):
    lines = [{"item": 0}, *({"item": n, "title": WORDS[n]} for n in range(1, 5))]
    write(folder, "items.jsonl", *map(json.dumps, lines))
    manifest = prepare(folder, items="items.jsonl")
    assert manifest["counts"]["present"] == {"text": 4} and manifest["warnings"] == []


def test_a_dry_run_writes_nothing(folder, capsys):
    write(folder, "items.csv", "item,name,image", *(f"{n},{WORDS[n]},x{n}.png" for n in range(5)))
    (folder / "x3.png").write_bytes(b"x")
    before = sorted(folder.iterdir())
    assert main(command(folder, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert sorted(folder.iterdir()) == before
    assert "  item        as item: '0', '1', '2'\n" in said
    assert "  name        not read: 'red old lamp', 'green slow lamp', 'blue green lamp'\n" in said
    assert "  timestamp   as timestamp: '1700000000'," in said
    assert "image         1 of the first 5 items (image)\n" in said
    assert "would --text name be right?\n" in said and said.endswith("nothing was written\n")
    assert main(command(folder, "--dry-run", "--json")) == 0
    columns = json.loads(capsys.readouterr().out)["tables"]["items"]["columns"]
    assert columns["name"] == {"read_as": [], "first": list(WORDS[:3])}
    # What is refused later is refused now.
    assert main(command(folder, "--dry-run", "--text", "titel")) == 2
    assert main(["synthetic", "--out", str(folder / "d"), "--dry-run"]) == 2


def test_options_of_csv(folder, capsys):
    lines = ["item;title", *(f"{n};lampe à huile" for n in range(5))]
    write(folder, "items.csv", *lines, encoding="cp1252")
    text = (folder / "interactions.csv").read_text()
    (folder / "interactions.csv").write_text(text.replace(",", ";"), encoding="cp1252")
    assert main(command(folder)) == 1
    assert "--encoding cp1252" in capsys.readouterr().err
    assert main(command(folder, "--encoding", "cp1252", "--delimiter", ";")) == 0
    assert mm.open_dataset(folder / "d").catalog.content["text"][0] == "lampe à huile".encode()
    assert "warning       text: all 5 items" in capsys.readouterr().out
    for option, value in (("--encoding", "klingon"), ("--delimiter", "::")):
        assert main(command(folder, option, value)) == 2
        assert f"{option.strip('-')}: wanted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command(folder, "--quoting", "some"))


def test_options_of_csv_without_a_csv_are_refused(folder):
    lines = [{"item": n, "title": f"lamp {n}"} for n in range(5)]
    write(folder, "items.jsonl", *map(json.dumps, lines))
    rows = [{"user": "u", "item": n, "timestamp": 10**9 + n} for n in range(5)]
    path = write(folder, "interactions.jsonl", *map(json.dumps, rows))
    with pytest.raises(mm.ConfigError, match="delimiter, encoding and quoting: belong to CSV"):
        prepare(folder, items="items.jsonl", interactions=str(path), quoting="none")


def test_when_all_rows_are_skipped_the_reasons_are_said(folder):
    write(folder, "interactions.csv", "user,item,timestamp", "u,0,soon", ",1,3", "u,2,later")
    with pytest.raises(mm.DatasetError, match="all were skipped: 2 timestamp: wanted .*1 no"):
        prepare(folder, skip_bad_rows=True)


def test_a_column_of_text_without_any_is_warned_of(folder, capsys):
    write(folder, "items.csv", "item,title,color", *(f"{n},,red" for n in range(5)))
    assert main(command(folder)) == 0
    said = capsys.readouterr().out
    assert "text          0 of 5 items\n" in said
    assert "warning       text: no item has any.\n" in said


def test_empty_splits_are_warned_of(folder):
    rows = [f"u,{n},{10**9 + n},{'test' if n > 3 else 'train'}" for n in range(5)]
    write(folder, "interactions.csv", "user,item,timestamp,split", *rows)
    assert prepare(folder)["warnings"] == [
        "valid: no interactions, so that nothing can be measured on it."
    ]
