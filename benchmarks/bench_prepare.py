"""How fast is preparation, and does its memory stay flat? Writes benchmarks/results/prepare.json.

    python -m benchmarks.bench_prepare --work work/bench_prepare

Speed: pictures, sounds and texts, each kind on its own, through `data.sources.media_folder` with
one process a CPU, against a loop that takes one file after the other with librosa, OpenCV and, for
texts, Python's own html.parser, and writes the same records with TensorFlow. Both make datasets of
the same files in the same run, in turn, `ROUNDS` times; the ratio is that of the medians. Ours
counts everything: reading the tables, starting the processes, hashing, the manifest. For texts
there is a second loop, with our own cleaning: what is left is what processes alone win.

Memory: `python -m data.prepare synthetic` of 1,000, 10,000 and 100,000 items, in a process of its
own; the sum over it and its children of what each holds resident, sampled while they run.
"""

import argparse
import csv
import functools
import html.parser
import io
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable

import numpy as np

from benchmarks.facts import facts
from data.items.shards import runner
from data.sources import media_folder
from mmrec_tf.media import text
from mmrec_tf.records.files import write_json

ROOT = pathlib.Path(__file__).parents[1]
ROUNDS = 3
MAX_SIDE, RATE_HZ, MAX_SECONDS = 320, 16000, 10.0
NUM_FILES = {"picture": 3000, "sound": 1500, "text": 60_000}
NUM_ITEMS = (1_000, 10_000, 100_000)


def draw_picture(rng: np.random.Generator) -> bytes:
    """A photo-like JPEG of 1280 x 960: soft shapes and grain."""
    import cv2

    soft = rng.integers(0, 255, (12, 16, 3), np.uint8)
    pixels = cv2.resize(soft, (1280, 960), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    pixels += rng.integers(-12, 13, pixels.shape, np.int16)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def draw_sound(rng: np.random.Generator) -> bytes:
    """30 s of stereo at 44.1 kHz, as Ogg Vorbis."""
    import soundfile

    time_ = np.arange(30 * 44100) / 44100
    left = np.sin(2 * np.pi * rng.uniform(100, 2000) * time_) * np.hanning(len(time_))
    samples = 0.5 * np.stack([left, np.roll(left, 400)], axis=1)
    out = io.BytesIO()
    soundfile.write(out, samples + rng.normal(0, 0.01, samples.shape), 44100, format="OGG")
    return out.getvalue()


def draw_text(rng: np.random.Generator) -> str:
    """A product page's description: about 3,000 characters with some markup and entities."""
    words = rng.choice(["lantern", "caf&eacute;", "<b>bright</b>", "harbor", "na\u00efve,"], 450)
    return f"<div class='d'><p>{' '.join(words)}</p><br/>&nbsp;A &amp; B</div>"


def draw(folder: pathlib.Path, kind: str, number: int) -> None:
    """Makes the source of one kind: tables, and files where the kind has some."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for item in range(number):
        if kind == "text":
            rows.append([item, draw_text(rng)])
            continue
        suffix, make = {"picture": (".jpg", draw_picture), "sound": (".ogg", draw_sound)}[kind]
        # Drawn once in a while and copied: drawing is slow, and equal bytes decode as slowly.
        path = folder / f"{item}{suffix}"
        if item % 100 == 0:
            data = make(rng)
        path.write_bytes(data)
        rows.append([item, path.name])
    column = {"picture": "image", "sound": "audio", "text": "description"}[kind]
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["item", column], *rows])
    (folder / "interactions.csv").write_text("user,item\nu,0\n", encoding="utf-8")


def ours(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Preparation as the command does it."""
    options = media_folder.MediaFolder(
        items=str(folder / "items.csv"),
        interactions=str(folder / "interactions.csv"),
        image_max_side=MAX_SIDE,
        sample_rate_hz=RATE_HZ,
        max_seconds=MAX_SECONDS,
        audio_window="start",  # what librosa.load with a duration decodes
    )
    media_folder.prepare(options, out, overwrite=True, run=runner(None))


class Words(html.parser.HTMLParser):
    """What stands between tags."""

    def __init__(self):
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def text_in_loop(raw: str) -> str:
    """One text: without markup, without control characters, normalized, not over-long."""
    parser = Words()
    parser.feed(raw)
    parser.close()
    said = "".join(c for c in " ".join(parser.parts) if unicodedata.category(c) != "Cc")
    return unicodedata.normalize("NFC", " ".join(said.split()))[:5000]


def one_at_a_time(
    folder: pathlib.Path, out: pathlib.Path, *, clean: Callable[[str], str] = text_in_loop
) -> None:
    """The loop that anyone would write first."""
    import tensorflow as tf

    def feature(data: bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    with (
        (folder / "items.csv").open(newline="", encoding="utf-8") as file,
        tf.io.TFRecordWriter(str(out)) as writer,
    ):
        for row in csv.DictReader(file):
            parts = {"item_id": feature(row["item"].encode())}
            if "image" in row:
                parts["image"] = feature(picture_in_loop(folder / row["image"]))
            if "audio" in row:
                parts["audio"] = feature(sound_in_loop(folder / row["audio"]))
            if "description" in row:
                parts["text"] = feature(clean(row["description"]).encode())
            example = tf.train.Example(features=tf.train.Features(feature=parts))
            writer.write(example.SerializeToString())


def picture_in_loop(path: pathlib.Path) -> bytes:
    """One picture with OpenCV."""
    import cv2

    pixels = cv2.imread(str(path))
    scale = MAX_SIDE / max(pixels.shape)
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def sound_in_loop(path: pathlib.Path) -> bytes:
    """One sound with librosa."""
    import librosa
    import soundfile

    samples, _ = librosa.load(path, sr=RATE_HZ, mono=True, duration=MAX_SECONDS)
    out = io.BytesIO()
    soundfile.write(out, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


def seconds(act: Callable[[], None]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def measure_speed(work: pathlib.Path) -> dict[str, dict]:
    """Files a second of both, by kind."""
    result = {}
    for kind, number in NUM_FILES.items():
        folder = work / kind
        if not (folder / "interactions.csv").exists():
            draw(folder, kind, number)
        loop, here = [], []
        same: list[float] = []
        record = work / "loop.tfrecord"
        for _ in range(ROUNDS):
            loop.append(seconds(lambda: one_at_a_time(folder, record)))  # noqa: B023
            here.append(seconds(lambda: ours(folder, work / "dataset")))  # noqa: B023
            if kind == "text":
                act = functools.partial(one_at_a_time, folder, record, clean=text.prepare)
                same.append(seconds(act))
        rates = [round(number / statistics.median(times), 1) for times in (loop, here)]
        result[kind] = {
            "files": number,
            "one_at_a_time_files_per_second": rates[0],
            "ours_files_per_second": rates[1],
            "ratio": round(statistics.median(loop) / statistics.median(here), 2),
            "one_at_a_time_seconds": [round(value, 2) for value in loop],
            "ours_seconds": [round(value, 2) for value in here],
        }
        if same:
            ratio = statistics.median(same) / statistics.median(here)
            result[kind]["ratio_to_a_loop_of_our_own_cleaning"] = round(ratio, 2)
        print(kind, result[kind], flush=True)
    return result


def family(process: int) -> list[int]:
    """A process and all its descendants."""
    found = [process]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def resident_bytes(process: int) -> int:
    """What one process holds in memory of its own; shared libraries count once for all."""
    try:
        lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def measure_memory(work: pathlib.Path) -> dict[str, dict]:
    """Peak memory of preparing synthetic worlds of several sizes."""
    result = {}
    for number in NUM_ITEMS:
        out = work / "world"
        command = [sys.executable, "-m", "data.prepare", "synthetic", "--out", str(out)]
        command += ["--overwrite", "--items", str(number), "--users", "50"]
        start, peak = time.perf_counter(), 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = max(peak, sum(map(resident_bytes, family(process.pid))))
                time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
        result[str(number)] = {
            "peak_mebibytes": round(peak / 2**20, 1),
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(number, result[str(number)], flush=True)
        shutil.rmtree(out)
    peaks = [sizes["peak_mebibytes"] for sizes in result.values()]
    return {**result, "largest_over_smallest": round(max(peaks) / min(peaks), 3)}


def main() -> None:
    """Measures both, or one, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, metavar="DIR", help="for files and datasets")
    parser.add_argument("--part", choices=PARTS, help="only this one; the other stays as it is")
    parsed = parser.parse_args()
    work = pathlib.Path(parsed.work)
    work.mkdir(parents=True, exist_ok=True)
    path = ROOT / "benchmarks" / "results" / "prepare.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if parsed.part and path.exists() else {}
    result = facts(
        "how fast is preparation, and does its memory stay flat?",
        command="python -m benchmarks.bench_prepare --work WORK",
    )
    for part, measure in PARTS.items():
        if parsed.part in (None, part):
            kept[part] = {"commit": result["commit"], **measure(work)}
    write_json(path, {**result, "rounds": ROUNDS, **{part: kept[part] for part in PARTS}})
    print(path)


PARTS = {"speed": measure_speed, "memory": measure_memory}


if __name__ == "__main__":
    main()
