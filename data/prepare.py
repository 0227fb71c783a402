"""The command that makes dataset directories: `python -m data.prepare SOURCE ... --out DIR`."""

import argparse
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
        manifest = source.prepare(
            source.from_arguments(arguments),
            arguments.out,
            overwrite=arguments.overwrite,
            run=run,
        )
        print(_summary(manifest, arguments.out))

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
        several = counts["several_values"][name]
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
    lines.append(f"written to    {out}")
    return "\n".join(lines)


def _parser(*, workers: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    sources = parser.add_subparsers(required=True, metavar="SOURCE", dest="source")
    for name, (source, what) in SOURCES.items():
        command = sources.add_parser(name, help=what)
        command.add_argument("--out", required=True, metavar="DIR", help="the dataset directory")
        command.add_argument(
            "--overwrite", action="store_true", help="replace the dataset that stands there"
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
