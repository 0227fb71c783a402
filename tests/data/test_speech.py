"""Speech to text at preparation: what is said becomes a text of its own, silence nothing."""

import csv
import io
import pathlib
import re
import wave

import numpy as np
import pytest

from data.items import speech
from data.prepare import main as prepare
from mmrec_tf import open_dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.media import audio

SHARED = pathlib.Path(__file__).parents[3] / "shared"
MODEL = SHARED / "weights" / "speech" / "whisper-tiny-en-fp16"


def tone(seconds: float, rate: int = 16000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        samples = 9000 * np.sin(np.arange(round(seconds * rate)) / 9)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


@pytest.fixture
def source(tmp_path):
    for name, seconds in (("a", 0.3), ("b", 0.6)):
        (tmp_path / f"{name}.wav").write_bytes(tone(seconds))
    (tmp_path / "items.csv").write_text("item,title,audio\na,Wren,a.wav\nb,Owl,b.wav\nc,Jay,\n")
    (tmp_path / "interactions.csv").write_text("user,item\nu,a\nu,b\nu,c\n")
    return tmp_path


def command(source, *more):
    tables = ["--items", str(source / "items.csv"), "--interactions"]
    tables += [
        str(source / "interactions.csv"),
        "--out",
        str(source / "d"),
        "--workers",
        "0",
        "--split",
        "random",
    ]
    return prepare(["media-folder", *tables, *more])


class Listener:
    """Hears how long a sound is, and nothing in long ones."""

    def transcribe(self, samples):
        assert samples.dtype == np.float32 and np.abs(samples).max() <= 1
        return "" if len(samples) > 8000 else f" said in {len(samples)} samples "


def test_what_is_said_is_a_text_beside_the_sound(source, monkeypatch):
    monkeypatch.setattr(speech, "_model", lambda folder: Listener())
    monkeypatch.setattr(speech.Transcriber, "check", lambda self: None)
    assert command(source, "--transcribe", "audio", "--speech-model", "m") == 0
    dataset = open_dataset(source / "d")
    assert list(dataset.schema.modalities) == ["text", "audio", "speech"]
    assert dataset.schema.modalities["speech"].kind == "text"
    said = dict(zip(dataset.catalog.item_id, dataset.catalog.content["speech"], strict=True))
    assert said == {"a": b"said in 4800 samples", "b": b"", "c": b""}


@pytest.mark.parametrize(
    "more, message",
    [
        (["--transcribe", "audio"], "wanted --speech-model DIR, .* or pocketsphinx"),
        (["--speech-model", "m"], "no effect without --transcribe audio"),
        (["--transcribe", "audio", "--speech-model", "m"], "m lacks config.json"),
    ],
)
def test_half_of_it_is_refused(source, capsys, monkeypatch, more, message):
    monkeypatch.setattr(speech.importlib.util, "find_spec", lambda name: None)
    assert command(source, *more) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_sounds_there_is_nothing_to_transcribe(source, monkeypatch, capsys):
    monkeypatch.setattr(speech.Transcriber, "check", lambda self: None)
    more = ("--audio", "none", "--transcribe", "audio", "--speech-model", "m")
    assert command(source, *more) == 2
    assert "wanted items with sounds" in capsys.readouterr().err


def test_a_sound_of_any_rate_is_heard_at_sixteen_kilohertz():
    samples = speech._samples(tone(0.5, rate=8000))
    assert len(samples) == 8000 and samples.dtype == np.float32
    assert speech._repeats("and then " * 30) and not speech._repeats("seven of clubs")


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="lacks config.json, generation_config.json"):
        speech.Transcriber(str(tmp_path)).check()


@pytest.mark.parametrize(
    "said, seconds, kept",
    [
        ("seven of clubs", 1.5, True),
        ("he might have been made amiable", 3.0, True),
        # As of a dog, of a bird, of another bird, and of one that repeats itself.
        ("what", 0.3, False),
        ("and in the english", 3.0, False),
        ("oh ling ling ling ling ling oh", 3.0, False),
    ],
)
def test_words_without_speech_are_none(said, seconds, kept):
    assert speech._as_speech(said.split(), seconds) == kept


def test_without_a_model_pocketsphinx_listens(source, monkeypatch):
    monkeypatch.setattr(speech.Transcriber, "check", lambda self: None)
    asked = []
    monkeypatch.setattr(speech, "_model", lambda folder: asked.append(folder) or Listener())
    assert command(source, "--transcribe", "audio") == 0
    assert set(asked) == {""} and "speech" in open_dataset(source / "d").schema.modalities


@pytest.mark.slow
def test_pocketsphinx_hears_speech_and_nothing_else():
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx")
    if not (SHARED / "data" / "speech").is_dir():
        pytest.skip("the sounds are not part of the checkout")
    hear = speech.Transcriber()
    hear.check()
    for name, wanted in (("001.wav", "ten of clubs"), ("003.wav", "seven of clubs")):
        (path,) = (SHARED / "data" / "speech").rglob(name)
        assert hear(audio.prepare(path.read_bytes())) == wanted
    assert hear(audio.prepare(tone(3.0))) == ""
    for path in sorted((SHARED / "data" / "sound_events").glob("*.wav")):
        assert hear(audio.prepare(path.read_bytes())) == "", path


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_dir(), reason="the weights are not part of the checkout")
def test_real_speech():
    """At most a fifth of the words of ten clips are wrong; what is no speech says nothing."""
    hear = speech.Transcriber(str(MODEL))
    hear.check()
    folder = SHARED / "data" / "speech"
    wrong = total = 0
    with (folder / "transcripts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = words(hear(audio.prepare((folder / row["file"]).read_bytes())))
            wanted = words(row["transcript"])
            wrong += distance(found, wanted)
            total += len(wanted)
    assert wrong < 0.2 * total
    assert hear(audio.prepare(tone(3.0))) == ""
    for path in sorted((SHARED / "data" / "sound_events").glob("*.wav")):
        assert hear(audio.prepare(path.read_bytes())) == "", path.name


def words(text: str) -> list[str]:
    text = text.lower().replace("10", "ten").replace("7", "seven").replace("4", "four")
    return re.findall("[a-z]+", text.replace("mr.", "mister"))


def distance(one: list[str], other: list[str]) -> int:
    """Words to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for n, word in enumerate(one, 1):
        before, row[0] = row[0], n
        for m, wanted in enumerate(other, 1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (word != wanted))
    return row[-1]
