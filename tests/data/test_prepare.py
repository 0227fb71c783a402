import json
import os
import pathlib
import subprocess
import sys

import pytest

from data.prepare import main
from mmrec_tf import records

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP")}
    return subprocess.run(
        [sys.executable, "-m", "data.prepare", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_tables(folder: pathlib.Path, interactions: str = "user,item\nu,a\nu,b\n") -> list[str]:
    (folder / "items.csv").write_text("item,title\na,Wren\nb,Owl\nb,Eagle\n")
    (folder / "interactions.csv").write_text(interactions)
    return [
        "media-folder",
        "--items",
        str(folder / "items.csv"),
        "--interactions",
        str(folder / "interactions.csv"),
        "--out",
        str(folder / "d"),
    ]


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from data.prepare import main\n"
        "try: main(['media-folder', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'cv2', 'pyarrow', 'librosa', 'av'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--media-root" in done.stdout


def test_a_failure_is_one_line(tmp_path):
    arguments = write_tables(tmp_path, "user,item,rating\nu,a,good\n")
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"DatasetError: {tmp_path}/interactions.csv: line 2: rating: ")


def test_a_success_is_a_summary(tmp_path, capsys):
    arguments = write_tables(tmp_path)
    assert main([*arguments, "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        "users         1",
        "items         2",
        "interactions  2 train, 0 valid, 0 test (split: leave-last-out)",
        "text          2 of 2 items",
        "dropped       1 items (repeated)",
        "quarantined   0 media",
        "warning       valid: no interactions, so that nothing can be measured on it.",
        "warning       test: no interactions, so that nothing can be measured on it.",
        f"written to    {tmp_path}/d",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["synthetic"],
        ["synthetic", "--out", "d", "--workers", "-1"],
        ["synthetic", "--out", "d", "--users", "many"],
        ["features", "--out", "d", "--train", "t.npz", "--vector", "image"],
        ["media-folder", "--items", "a", "--interactions", "b", "--out", "d", "--split", "luck"],
    ],
)
def test_wrong_usage_is_2(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--item-column", "sku"], "wanted a column 'sku'"),
        (["--image", "pictures"], "image: wanted a column"),
        (["--item-numeric", "year"], "wanted a column 'year'"),
        (["--text", "titel"], "wanted a column 'titel'"),
        (["--max-seconds", "nan"], "max_seconds: wanted more than 0"),
        (["--image-max-side", "0"], "image_max_side: wanted more than 0"),
        (["--vocabulary-size", "0"], "vocabulary_size: wanted 1 or more"),
        (
            ["--valid-share", "0.2"],
            "valid_share: belongs to the splits random, time",
        ),
        (["--min-rating", "4"], "min_rating: wanted interactions with ratings"),
    ],
)
def test_unusable_settings_are_2(tmp_path, capsys, extra, message):
    assert main([*write_tables(tmp_path), *extra]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_a_dataset_is_replaced_only_when_asked(tmp_path, capsys):
    arguments = write_tables(tmp_path)
    assert main(arguments) == 0
    (tmp_path / "interactions.csv").write_text("user,item\nu,a\n")
    assert main(arguments) == 1
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert records.verify(tmp_path / "d")["counts"]["interactions"]["train"] == 1


def test_options_reach_the_manifest(tmp_path):
    arguments = write_tables(tmp_path, "who,item,rating\nu,a,good\nu,b,2\n")
    arguments += ["--user-column", "who", "--skip-bad-rows", "--text", "title", "--audio", "none"]
    assert main(arguments) == 0
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    settings = manifest["source"]["arguments"]
    assert settings["text"] == ["title"] and settings["columns"]["user"] == "who"
    assert "max_seconds" not in settings  # as by default
    assert manifest["counts"]["skipped_rows"] == {"interactions": {"rating: wanted a number": 1}}


def test_synthetic_from_the_command_line(tmp_path, capsys):
    arguments = ["synthetic", "--out", str(tmp_path / "d"), "--users", "5", "--items", "12"]
    assert main([*arguments, "--clusters", "4", "--keep-source", str(tmp_path / "s")]) == 0
    assert (tmp_path / "s" / "items.csv").is_file()
    assert "items         12" in capsys.readouterr().out
    assert records.read_manifest(tmp_path / "d")["source"]["arguments"]["num_clusters"] == 4
