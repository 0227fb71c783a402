"""The command that makes dataset directories: `python -m data.prepare SOURCE ... --out DIR`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from data.items.shards import ItemShards, runner
from data.sources import amazon, features, media_folder, microlens, movielens, synthetic
from mmrec_tf.errors import run_command

# Each has `add_arguments(parser)`, `from_arguments(arguments)` and `prepare(options, out, ...)`.
SOURCES = {
    "synthetic": (synthetic, "a planted world with a known answer"),
    "media-folder": (media_folder, "your tables and folders of pictures and sounds"),
    "features": (features, "matrices of interactions and ready-made vectors"),
    "movielens": (movielens, "MovieLens as unpacked, with posters if you have them"),
    "microlens": (microlens, "MicroLens as unpacked: titles, covers, sounds, interactions"),
    "amazon": (amazon, "Amazon Reviews of 2018 or 2023: reviews and metadata"),
}
# What `--json` prints of what `prepare` returns: of the manifest, or under `--dry-run`.
_SAID = (
    *("sha256", "source", "split_rule", "split_borders", "counts", "quarantine", "not_read"),
    *("tables", "matrices", "media", "warnings"),
)
_MOST_SHOWN = 40  # characters of a cell
# Like `data.items.shards.run_here`, but it takes the options that are not ours.
RunOthers = Callable[..., None]


def main(argv: Sequence[str] | None = None, *, run_others: RunOthers | None = None) -> int:
    """Parses and calls; see `--help`.

    Args:
      argv: the arguments; None for those of the process.
      run_others: what writes the item shards instead of processes here; options that this command
        does not know go to it.

    Returns:
      The exit status, as `mmrec_tf.errors.run_command` gives it.
    """
    parser = _parser(workers=run_others is None)
    arguments, others = parser.parse_known_args(argv)
    if others and run_others is None:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    source, _ = SOURCES[arguments.source]

    def run(shards: ItemShards) -> None:
        if run_others is None:
            runner(arguments.workers)(shards)
        else:
            run_others(shards, options=others)

    def prepare() -> None:
        done = source.prepare(
            source.from_arguments(arguments),
            arguments.out,
            overwrite=arguments.overwrite,
            run=run,
            dry_run=arguments.dry_run,
        )
        if arguments.json:
            said = {name: done[name] for name in _SAID if name in done}
            print(json.dumps({"out": arguments.out, **said}, indent=2, ensure_ascii=False))
        else:
            print(_preview(done) if arguments.dry_run else _summary(done, arguments.out))

    return run_command(prepare)


def _summary(manifest: dict[str, Any], out: str) -> str:
    counts = manifest["counts"]
    interactions = ", ".join(f"{n} {split}" for split, n in counts["interactions"].items())
    lines = [
        f"users         {counts['users']}",
        f"items         {counts['items']}",
        f"interactions  {interactions} (split: {manifest['split_rule']})",
    ]
    for name, number in counts["present"].items():
        several = counts["several_values"].get(name, 0)
        more = f" ({several} have several)" if several else ""
        lines.append(f"{name:<13} {number} of {counts['items']} items{more}")
    if "triples" in counts:
        nodes = f"{counts['entities']} entities, {counts['relations']} relations"
        lines.append(f"triples       {counts['triples']} ({nodes})")
    dropped = {name: n for name, n in counts["dropped"].items() if n}
    dropped |= {f"{name} (repeated)": n for name, n in counts["duplicates"].items() if n}
    for table, reasons in counts["skipped_rows"].items():
        dropped |= {f"{table} ({reason})": n for reason, n in reasons.items()}
    dropped |= {f"{name} beyond the maximum": n for name, n in counts["values_left_out"].items()}
    if dropped:
        lines.append("dropped       " + ", ".join(f"{n} {name}" for name, n in dropped.items()))
    repeated = {name: n for name, n in counts["repeated_content"].items() if n}
    if repeated:
        said = ", ".join(f"{n} {name}" for name, n in repeated.items())
        lines.append(f"equal content {said} (kept: equal to that of another item)")
    quarantined = sum(n for reasons in manifest["quarantine"].values() for n in reasons.values())
    where = f" (see {os.path.join(out, 'quarantine.csv')})" if quarantined else ""
    lines.append(f"quarantined   {quarantined} media{where}")
    if mended := manifest.get("mended"):
        said = "; ".join(
            f"{name}: {', '.join(f'{n} {reason}' for reason, n in reasons.items())}"
            for name, reasons in mended.items()
        )
        lines.append(f"mended        {said} (kept; see {os.path.join(out, 'mended.csv')})")
    if manifest["not_read"]:
        said = "; ".join(f"{name}: {', '.join(c)}" for name, c in manifest["not_read"].items())
        lines.append(f"not read      {said}")
    lines += _warnings(manifest)
    lines.append(f"written to    {out}")
    return "\n".join(lines)


def _preview(found: dict[str, Any]) -> str:
    """What `prepare` returns under `dry_run`, as lines."""
    lines = []
    for name, table in found["tables"].items():
        lines.append(f"{name:<13} {table['file']}")
        for column, what in table["columns"].items():
            role = f"as {', '.join(what['read_as'])}" if what["read_as"] else "not read"
            cells = ", ".join(repr(cell[:_MOST_SHOWN]) for cell in what["first"])
            lines.append(f"  {column:<11} {role}: {cells}")
    for name, shape in found.get("matrices", {}).items():
        lines.append(f"{name:<13} {' x '.join(map(str, shape))}")
    for name, place in found.get("media", {}).items():
        where = f"({place['place']})"
        lines.append(f"{name:<13} {place['items']} of the first {place['of']} items {where}")
    return "\n".join([*lines, *_warnings(found), "dry run       nothing was written"])


def _warnings(found: dict[str, Any]) -> list[str]:
    return [f"warning       {text}" for text in found["warnings"]]


def _parser(*, workers: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    sources = parser.add_subparsers(required=True, metavar="SOURCE", dest="source")
    for name, (source, what) in SOURCES.items():
        command = sources.add_parser(name, help=what)
        command.add_argument("--out", required=True, metavar="DIR", help="the dataset directory")
        command.add_argument(
            "--overwrite", action="store_true", help="replace the dataset that stands there"
        )
        command.add_argument(
            "--dry-run",
            action="store_true",
            help="write nothing, and print what would be read, from the first rows",
        )
        command.add_argument(
            "--json", action="store_true", help="print the summary, with its warnings, as JSON"
        )
        if workers:
            command.add_argument(
                "--workers",
                type=_count,
                metavar="N",
                help="processes that prepare items (default: one a CPU; 0: none but this one, "
                "which a damaged file may then take down)",
            )
        source.add_arguments(command)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted a whole number of 0 or more; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
