"""Videos of the media folder: frames, the sound track, what is refused, and what is told of it."""

import csv
import io
import json
import wave

import PIL.Image
import pytest
from support.clips import film, gray

from data.inspect import main as inspect
from data.prepare import main as prepare
from mmrec_tf import open_dataset
from mmrec_tf.media.video import split_frames


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Items with sound in the video, beside it and none; without video; with what is none."""
    folder = tmp_path_factory.mktemp("source")
    clips = folder / "clips"
    clips.mkdir()
    (clips / "a.mp4").write_bytes(film(gray([20, 90, 160, 230] * 2), tone_seconds=0.5))
    (clips / "b.mkv").write_bytes(film(gray([20, 90]), form="matroska", tone_seconds=0.5))
    (clips / "d.mp4").write_bytes(b"this is no video")
    (clips / "e.mp4").write_bytes(film([], tone_seconds=0.5))
    (clips / "f.avi").write_bytes(film(gray([90] * 3), form="avi"))
    with wave.open(str(folder / "b.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\0\x10\0\xf0" * 800)
    rows = [
        ("item", "film", "audio"),
        ("a", "clips/a.mp4", ""),
        ("b", "clips/b.mkv", "b.wav"),
        ("c", "", ""),
        ("d", "clips/d.mp4", ""),
        ("e", "clips/e.mp4", ""),
        ("f", "clips/f.avi", ""),
    ]
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "interactions.csv").write_text("user,item\n" + "".join(f"u,{i}\n" for i in "abcdef"))
    return folder


def prepared(source, out, *more):
    tables = ["--items", str(source / "items.csv"), "--interactions"]
    tables += [str(source / "interactions.csv"), "--out", str(out), "--workers", "0"]
    assert prepare(["media-folder", *tables, "--split", "random", *more]) == 0
    return open_dataset(out)


def test_videos_become_frames_and_sounds(source, tmp_path, capsys):
    dataset = prepared(source, tmp_path / "d", "--video", "film", "--video-frames", "4")
    spec = dataset.schema.modalities["video"]
    assert (spec.kind, spec.num_frames, spec.max_values) == ("video", 4, 1)
    content = dataset.catalog.content
    at = dict(zip(dataset.catalog.item_id, content["video"], strict=True))
    counts = {item: len(split_frames(clip)) for item, clip in at.items()}
    assert counts == {"a": 4, "b": 2, "c": 0, "d": 0, "e": 0, "f": 3}
    assert PIL.Image.open(io.BytesIO(split_frames(at["a"])[0])).size == (48, 32)
    # That of a's video, the file of b, and none of what is no video or has no sound.
    sounds = dict(zip(dataset.catalog.item_id, content["audio"], strict=True))
    lengths = {item: _seconds(data) for item, data in sounds.items() if data}
    assert lengths == {"a": pytest.approx(0.5, abs=0.15), "b": pytest.approx(0.1, abs=0.01)}
    with (tmp_path / "d" / "quarantine.csv").open(newline="") as file:
        found = {row["item"]: (row["modality"], row["reason"]) for row in csv.DictReader(file)}
    assert found["d"][0] == "video" and found["d"][1].startswith("not a video")
    assert found["e"] == ("video", "no pictures in it (sound only)")
    assert set(found) == {"d", "e"}
    assert inspect([str(tmp_path / "d"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["modalities"]["video"]
    assert said["items"] == 3 and said["frames"]["max"] == 4 and said["width"]["median"] == 48
    assert inspect([str(tmp_path / "d")]) == 0
    assert "frames: 2 to 4 (median 3)" in capsys.readouterr().out


def test_the_sound_of_videos_may_be_left_out(source, tmp_path):
    dataset = prepared(source, tmp_path / "d", "--video", "film", "--audio", "none")
    assert list(dataset.schema.modalities) == ["video"]


def test_a_column_of_videos_is_proposed(source, tmp_path, capsys):
    prepared(source, tmp_path / "d")
    assert "would --video film be right?" in capsys.readouterr().out


def _seconds(data: bytes) -> float:
    with wave.open(io.BytesIO(data)) as file:
        return file.getnframes() / file.getframerate()
