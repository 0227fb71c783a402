"""Which odd and broken files does preparation read, and why does it refuse the others?

    python -m benchmarks.odd_media FOLDER [--json PATH]

FOLDER holds media and a `manifest.csv` with a line for each: `file`, `kind` (image or audio),
`what` is odd about it, and under the names of six decoders "ok ..." or "FAIL ..." for what each
made of it. All are prepared twice, each time in a process whose allocator (glibc's) fills memory
with another byte: what depends on memory that nobody wrote then differs, and ends this with status
1. Prints a Markdown table, the peak of resident memory, and the files that some decoder read and
that are refused here. It takes seconds.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import wave
from typing import Any

import PIL.Image

from benchmarks.facts import ROOT, facts
from mmrec_tf.errors import MediaError
from mmrec_tf.media import audio, image
from mmrec_tf.records.files import write_json

DECODERS = (
    "opencv_imdecode",
    "pillow",
    "tf_decode_image",
    "librosa_load",
    "soundfile",
    "tf_decode_wav",
)
REFUSED = "refused: "
# What glibc fills memory with that is asked for; and, inverted, that is given back.
FILLS = ("85", "170")


def prepare(data: bytes, kind: str) -> dict[str, str]:
    """What a file becomes, or why it is refused; and then what tried to decode it."""
    remarks: list[str] = []
    try:
        if kind == "image":
            prepared = image.prepare(data)
            width, height = PIL.Image.open(io.BytesIO(prepared)).size
            result = f"decoded {width} x {height}"
        else:
            prepared = audio.prepare(data, remark=remarks.append)
            with wave.open(io.BytesIO(prepared)) as sound:
                result = f"decoded {sound.getnframes() / sound.getframerate():.2f} s"
    except MediaError as error:
        return {"result": f"{REFUSED}{error}", "decoder": error.decoder, "sha256": ""}
    digest = hashlib.sha256(prepared).hexdigest()
    return {"result": "; ".join([result, *remarks]), "decoder": "", "sha256": digest}


def measure(folder: pathlib.Path) -> list[dict[str, str]]:
    """A row a file of the manifest, in its order."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = []
    for line in lines:
        result = prepare((folder / line["file"]).read_bytes(), line["kind"])
        verdicts = {name: line[name].split(" ")[0].lower() for name in DECODERS}
        rows.append({"file": line["file"], "what": line["what"]} | result | verdicts)
    return rows


def measure_filled(folder: pathlib.Path, fill: str) -> dict[str, Any]:
    """`files`, the rows, and `peak_resident_mib` of a process whose memory is filled so."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.odd_media", str(folder.resolve()), "--once"],
        cwd=ROOT,
        env={**os.environ, "MALLOC_PERTURB_": fill},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def differing(one: list[dict[str, str]], other: list[dict[str, str]]) -> list[str]:
    """The files of which two runs made two things."""
    return [a["file"] for a, b in zip(one, other, strict=True) if a != b]


def table(rows: list[dict[str, str]]) -> str:
    """The rows in Markdown."""
    lines = [
        f"| {' | '.join(('file', 'what', 'result', *DECODERS))} |",
        "|" + " --- |" * (3 + len(DECODERS)),
    ]
    for row in rows:
        decoder = f" ({row['decoder']})" if row["decoder"] else ""
        cells = (row["file"], row["what"], row["result"] + decoder, *(row[x] for x in DECODERS))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: list[dict[str, str]]) -> str:
    """How many were decoded, and which were refused though some decoder read them."""
    refused = [row for row in rows if row["result"].startswith(REFUSED)]
    lost = [
        f"{row['file']} ({row['result'].removeprefix(REFUSED)})"
        for row in refused
        if "ok" in (row[name] for name in DECODERS)
    ]
    return (
        f"{len(rows) - len(refused)} decoded, {len(refused)} refused. Refused though some decoder "
        f"read them: {'; '.join(lost) or 'none'}."
    )


def main() -> int:
    """Prints the table, and writes it where that is asked for; 1 where two runs differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="media and their manifest.csv")
    parser.add_argument("--json", type=pathlib.Path, metavar="PATH", help="where to write it all")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.once:
        rows = measure(parsed.folder)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"peak_resident_mib": peak_mib, "files": rows}))
        return 0
    runs = [measure_filled(parsed.folder, fill) for fill in FILLS]
    peak_mib = max(run["peak_resident_mib"] for run in runs)
    rows = runs[0]["files"]
    different = differing(rows, runs[1]["files"])
    print(table(rows))
    print(f"\nPeak of resident memory: {peak_mib} MiB.\n")
    print(summary(rows))
    print(f"Otherwise with other memory: {', '.join(different) or f'none of {len(rows)}'}.")
    if parsed.json:
        head = facts(
            "which odd and broken files does preparation read?",
            command="python -m benchmarks.odd_media FOLDER --json PATH",
        )
        result = {"peak_resident_mib": peak_mib, "different": different, "files": rows}
        write_json(parsed.json, {**head, **result})
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
