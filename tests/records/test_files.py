import os
import pathlib
import subprocess
import sys

import pytest

from mmrec_tf.errors import RunError
from mmrec_tf.records import files

ROOT = pathlib.Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json_is_the_same_bytes_for_the_same_value(tmp_path):
    files.write_json(tmp_path / "a.json", {"name": "é", "k": [1, 2.5]})
    assert (tmp_path / "a.json").read_bytes() == (
        '{\n  "name": "é",\n  "k": [\n    1,\n    2.5\n  ]\n}\n'.encode()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"k": float("nan")})
    assert "2.5" in (tmp_path / "a.json").read_text()
    assert names(tmp_path) == ["a.json"]


def test_a_file_changes_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with files.replace_file(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), files.replace_file(path) as new:
        new.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_changes_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep/weights"
    with files.replace_folder(path) as new:
        (new / "a").touch()
        assert not path.exists()
    with files.replace_folder(path) as new:
        assert names(new) == []
        (new / "b").touch()
        assert names(path) == ["a"]
    assert names(path) == ["b"]
    with pytest.raises(ValueError), files.replace_folder(path) as new:
        (new / "c").touch()
        raise ValueError
    assert names(path) == ["b"] and names(path.parent) == ["weights"]


def test_what_a_killed_process_left_does_not_get_in(tmp_path):
    path = tmp_path / "weights"
    for left in (path, files.aside(path), tmp_path / ".weights.replaced"):
        left.mkdir()
        (left / "left").touch()
    with files.replace_folder(path) as new:
        (new / "a").touch()
    assert names(path) == ["a"] and names(tmp_path) == ["weights"]


def test_what_killed_processes_left_is_swept_and_what_lives_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".a.json.{dead.pid}").touch()
    (tmp_path / f".a.json.{os.getppid()}").touch()
    (tmp_path / ".a.json.backup").touch()
    (tmp_path / f".weights.{dead.pid}").mkdir()
    files.write_text(tmp_path / "a.json", "{}")
    with files.replace_folder(tmp_path / "weights"):
        pass
    assert names(tmp_path) == [
        ".a.json." + str(os.getppid()),
        ".a.json.backup",
        "a.json",
        "weights",
    ]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "run"
    with files.hold_folder(path, RunError, "trains"):
        code = (
            "import pathlib, sys; from mmrec_tf import errors; from mmrec_tf.records import files\n"
        )
        code += "with files.hold_folder(pathlib.Path(sys.argv[1]), errors.RunError, 'trains'): pass"
        done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True)
        assert b"RunError" in done.stderr and b"another process trains there now" in done.stderr
    with files.hold_folder(path, RunError, "trains"):
        assert names(path) == []
    (tmp_path / "file").touch()
    refused = pytest.raises(RunError, match="file: wanted a folder to write to; File exists")
    with refused, files.hold_folder(tmp_path / "file", RunError, "trains"):
        pass


def test_a_changed_figure_is_told_from_a_written_one(tmp_path):
    path = tmp_path / "a.json"
    files.write_sealed(path, {"b": 0.1, "a": {"10": [1], "2": "é"}, "n": (1, 2)})
    value = files.read_sealed(path)
    assert value["b"] == 0.1 and files.sealed(value) == value
    text = path.read_text()
    for old, new in (("0.1", "0.2"), ("é", "e"), ('"b"', '"c"'), ("[\n      1", "[\n      7")):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match="not what was written"):
            files.read_sealed(path)
    files.write_json(path, {"b": 1})
    assert files.read_sealed(path) == {"b": 1}
    for other, said in (("[1]", "wanted a JSON object"), ("[" * 200_000, "nested too deeply")):
        path.write_text(other)
        with pytest.raises(ValueError, match=said):
            files.read_sealed(path)


def test_what_stood_there_comes_back_when_the_new_folder_cannot_be_moved(tmp_path):
    path = tmp_path / "weights"
    path.mkdir()
    (path / "a").touch()
    with pytest.raises(FileNotFoundError):
        files.move_folder(tmp_path / "missing", path)
    assert names(path) == ["a"] and names(tmp_path) == ["weights"]


def test_the_place_aside_is_hidden_and_of_this_process():
    assert files.aside(pathlib.Path("d/a.json")) == pathlib.Path(f"d/.a.json.{os.getpid()}")


def test_it_needs_no_tensorflow():
    code = "import sys, mmrec_tf.records.files; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
