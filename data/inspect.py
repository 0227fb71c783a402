"""Tells what is in a dataset directory, and warns of leaks: `python -m data.inspect DATASET`."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmrec_tf.errors import run_command
from mmrec_tf.records.inspection import inspect_dataset

_WIDTH = 14  # of the first column
_UNITS = {
    "characters": "characters",
    "seconds": "s",
    "width": "px",
    "height": "px",
    "frames": "frames",
    "bytes": "B",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and calls; see `--help`.

    Args:
      argv: the arguments; None for those of the process.

    Returns:
      The exit status, as `mmrec_tf.errors.run_command` gives it; warnings do not change it.
    """
    parser = argparse.ArgumentParser(prog="python -m data.inspect", description=__doc__)
    parser.add_argument("dataset", metavar="DATASET", help='what "python -m data.prepare" wrote')
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)

    def inspect() -> None:
        found = inspect_dataset(arguments.dataset)
        if arguments.json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            print("\n".join(_lines(found)))

    return run_command(inspect)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    counts, sparsity, tail = found["counts"], found["sparsity"], found["long_tail"]
    by_split = ", ".join(f"{n:,} {split}" for split, n in counts["interactions"].items())
    yield _row("dataset", f"{found['dataset']} (source: {found['source']})")
    yield _row("users", f"{counts['users']:,}, {_spread(sparsity['per_user'])} interactions each")
    yield _row("items", f"{counts['items']:,}, {_spread(sparsity['per_item'])} interactions each")
    yield _row("interactions", f"{by_split} (split: {found['split_rule']})")
    yield _row("density", f"{sparsity['density']:.3%} of all pairs of a user and an item met")
    yield _row(
        "long tail",
        f"the top tenth of the items has {tail['top_tenth']:.0%} of train, {tail['half']:,} items "
        f"have half of it, {tail['never']:,} have none; Gini {tail['gini']:.2f}",
    )
    for split, period in found["times"].items():
        said = f"{period['first']} to {period['last']} UTC" if period else "no times"
        yield _row(f"time {split}", said)
    for name, said in found["modalities"].items():
        yield from _modality(name, said, counts["items"])
    combined = ", ".join(f"{n:,} {names}" for names, n in found["combinations"].items())
    yield _row("items with", combined)
    for name, number in found["features"].items():
        yield _row(f"feature {name}", f"{number:,} of {counts['items']:,} items")
    for name, reasons in found["quarantine"].items():
        said = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
        yield _row("quarantined", f"{name}: {said}")
    for sample in found["samples"]:
        features = "; ".join(f"{n}: {', '.join(v)}" for n, v in sample["features"].items())
        said = " | ".join(filter(None, [sample["text"], features, ", ".join(sample["has"])]))
        yield _row(f"item {sample['item']}", said or "nothing")
    for text in found["warnings"]:
        yield _row("warning", text)
    if not found["warnings"]:
        yield _row("warnings", "none")


def _modality(name: str, said: Mapping[str, Any], num_items: int) -> Iterator[str]:
    more = [f"{said['items']:,} of {num_items:,} items ({said['share']:.0%})"]
    for key, words in (
        ("several_values", "have several"),
        ("repeated_content", "hold what another one holds, too"),
        ("unread", "values could not be opened"),
    ):
        if said[key]:
            more.append(f"{said[key]:,} {words}")
    yield _row(name, ", ".join(more))
    for what, unit in _UNITS.items():
        if said.get(what):
            yield _row("", f"{what}: {_spread(said[what], unit if unit != what else '')}")
    if scripts := said.get("scripts"):
        yield _row("", "letters: " + ", ".join(f"{s} {share:.0%}" for s, share in scripts.items()))


def _spread(values: Mapping[str, float], unit: str = "") -> str:
    if not values:
        return "no"
    low, half, high = (_number(values[name]) for name in ("min", "median", "max"))
    return f"{low} to {high}{f' {unit}' if unit else ''} (median {half})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def _row(head: str, said: str) -> str:
    return f"{head:<{_WIDTH}} {said}"


if __name__ == "__main__":
    sys.exit(main())
