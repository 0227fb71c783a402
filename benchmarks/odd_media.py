"""Which odd and broken files does preparation read, and why does it refuse the others?

    python -m benchmarks.odd_media FOLDER [--json PATH]

FOLDER holds media and a `manifest.csv` with a line for each: `file`, `kind` (image or audio),
`what` is odd about it, and under the names of six decoders "ok ..." or "FAIL ..." for what each
made of it. Prints a Markdown table, the peak of resident memory, and the files that some decoder
read and that are refused here. It takes seconds.
"""

import argparse
import csv
import io
import pathlib
import resource
import wave

import PIL.Image

from benchmarks.facts import facts
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


def prepare(data: bytes, kind: str) -> tuple[str, str]:
    """What a file becomes, or why it is refused; and then what tried to decode it."""
    try:
        if kind == "image":
            width, height = PIL.Image.open(io.BytesIO(image.prepare(data))).size
            return f"decoded {width} x {height}", ""
        with wave.open(io.BytesIO(audio.prepare(data))) as sound:
            return f"decoded {sound.getnframes() / sound.getframerate():.2f} s", ""
    except MediaError as error:
        return f"{REFUSED}{error}", error.decoder


def measure(folder: pathlib.Path) -> list[dict[str, str]]:
    """A row a file of the manifest, in its order."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = []
    for line in lines:
        result, decoder = prepare((folder / line["file"]).read_bytes(), line["kind"])
        verdicts = {name: line[name].split(" ")[0].lower() for name in DECODERS}
        row = {"file": line["file"], "what": line["what"], "result": result, "decoder": decoder}
        rows.append(row | verdicts)
    return rows


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


def main() -> None:
    """Prints the table, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="media and their manifest.csv")
    parser.add_argument("--json", type=pathlib.Path, metavar="PATH", help="where to write it all")
    parsed = parser.parse_args()
    rows = measure(parsed.folder)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(table(rows))
    print(f"\nPeak of resident memory: {peak_mib} MiB.\n")
    print(summary(rows))
    if parsed.json:
        head = facts(
            "which odd and broken files does preparation read?",
            command="python -m benchmarks.odd_media FOLDER --json PATH",
        )
        write_json(parsed.json, {**head, "peak_resident_mib": peak_mib, "files": rows})


if __name__ == "__main__":
    main()
