"""What benchmarks of an example are asked on the command line, and where their result goes."""

import argparse
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.facts import ROOT
from mmrec_tf.errors import ConfigError
from mmrec_tf.records.files import write_json


def example_parser(doc: str, *, result: str) -> argparse.ArgumentParser:
    """The options that all of them have.

    Args:
      doc: of the benchmark, whose first line is its description.
      result: what the result's file is named after by default.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("name", help="an example: examples/NAME.json")
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--work", required=True, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--result", metavar="NAME", help=f"of the result's file ({result})")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument(
        "--valid-only", action="store_true", help="print the valid split alone, and write nothing"
    )
    return parser


def result_name(parsed: argparse.Namespace, default: str) -> str:
    """What the result's file is called; `default` for the example as it is.

    Raises:
      ConfigError: for a name that is none, or other settings under the example's own.
    """
    name = str(parsed.result or default)
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"--result: wanted letters, digits and underscores; got {name!r}.")
    if parsed.set and name == default and not parsed.valid_only:
        raise ConfigError(
            f"--set: wanted --result NAME beside it, as benchmarks/results/{name}.json is that of "
            "the example as it is."
        )
    return name


def command_of(script: str, parsed: argparse.Namespace, default: str) -> str:
    """What makes the result, wherever dataset and runs are kept."""
    command = f"python -m benchmarks.{script} {parsed.name} --dataset DATASET --work WORK"
    if (name := result_name(parsed, default)) != default:
        command += f" --result {name}"
    return command + "".join(f" --set {shlex.quote(pair)}" for pair in parsed.set)


def tell(
    parsed: argparse.Namespace,
    result: Mapping[str, Any],
    name: str,
    summary: Callable[[Mapping[str, Any], str], str],
) -> None:
    """Prints each split, and writes the result unless valid alone was asked for."""
    for split in result["splits"]:
        print(summary(result, split), flush=True)
    if not parsed.valid_only:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        write_json(path, result)
        print(path)
