"""Sends requests to a server for a while and reports latencies and errors.

    python -m serving.load_test --export EXPORT --mode closed --concurrency 8 --seconds 10
    python -m serving.load_test --export EXPORT --mode open --rate 200

A closed loop sends the next request after an answer, which shows how much a server can do. An open
loop sends requests at random times (a Poisson process), whether or not the server keeps up, which
shows how long users wait at a given rate. There, latency is measured from when a request was due,
so requests that had to wait for others do not look faster than they were.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ConfigError, run_command
from mmrec_tf.exporting.request_examples import Example, examples_path, read_examples
from serving.client.options import connection, connection_options

if TYPE_CHECKING:
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    from serving.load_test.load import Report


def example_requests(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    signatures: Sequence[str] = (),
    rows: int | None = None,
) -> "list[PredictRequest]":
    """Requests from a file of examples, such as an export's.

    Args:
      path: the file, in the form of `mmrec_tf.exporting.request_examples`.
      model: the name under which it is served; None for the one in the file.
      signatures: of which the examples are taken; none for the first one's.
      rows: of each request. An example gives as many requests as it has rows, each starting with
        another row; rows are repeated if there are too few. None for the examples as they are.

    Raises:
      ExportError: when the file is missing or damaged.
      ConfigError: for a signature without an example, or an example without rows.
    """
    from serving.client.calls import Target, predict_request

    if rows is not None and rows < 1:
        raise ConfigError(f"rows: wanted 1 or more; got {rows}.")
    examples = read_examples(path)
    known = list(dict.fromkeys(example.signature for example in examples.requests))
    lacking = [name for name in signatures if name not in known]
    if lacking or not known:
        raise ConfigError(
            f"{path}: wanted an example of {', '.join(lacking) or 'any signature'}; it has "
            f"{', '.join(known) or 'none'}."
        )
    target = Target(model or examples.servable)
    return [
        predict_request(target, inputs, signature=example.signature)
        for example in examples.requests
        if example.signature in (signatures or known[:1])
        for inputs in _with_rows(example, rows)
    ]


def _with_rows(example: Example, rows: int | None) -> list[dict[str, NDArray[Any]]]:
    if rows is None:
        return [example.inputs]
    given = min(map(len, example.inputs.values()))
    if not given:
        raise ConfigError(f"{example.signature}: wanted an example with rows; it has none.")
    return [
        {name: array[(first + np.arange(rows)) % given] for name, array in example.inputs.items()}
        for first in range(given)
    ]


def lines(report: "Report") -> list[str]:
    """The lines that the command prints."""
    answered = report.codes.get("OK", 0)
    latency = "  ".join(f"{name} {value:.2f}" for name, value in report.latency_ms.items())
    codes = "  ".join(f"{code} {count}" for code, count in report.codes.items())
    versions = "  ".join(f"{version}: {count}" for version, count in report.versions.items())
    return [
        f"requests/s  {report.requests_per_second:.1f}  "
        f"({answered} of {report.requests} answered in {report.seconds:.1f} s"
        f"{', interrupted' if report.interrupted else ''})",
        f"latency ms  {latency or 'none'}",
        f"late ms     p99 {report.late_ms:.2f}",
        f"ended       {codes or 'none'}",
        f"versions    {versions or 'none'}",
        *(f"{code}: {' '.join(text.split())}" for code, text in report.texts.items()),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.load_test",
        description="Asks a server again and again over gRPC and prints requests a second, "
        "latencies, and how the requests ended. Exit status 1 when one of them failed.",
        parents=[connection_options(address="localhost:8500", timeout_seconds=5.0)],
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--export", help="takes the examples of its newest version")
    source.add_argument("--requests", metavar="FILE", help="a file of examples")
    parser.add_argument("--model", help="the name under which it is served (recommender)")
    parser.add_argument(
        "--signature",
        nargs="+",
        default=[],
        metavar="NAME",
        help="whose examples are sent, in turn (the first in the file)",
    )
    parser.add_argument("--batch", type=int, metavar="ROWS", help="of a request (as the examples)")
    parser.add_argument(
        "--mode",
        choices=("closed", "open"),
        default="closed",
        help="send when an answer has come, or at random times (%(default)s)",
    )
    parser.add_argument(
        "--concurrency", type=int, default=8, help="of --mode closed, at once (%(default)s)"
    )
    parser.add_argument("--rate", type=float, help="of --mode open, requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure (%(default)s)")
    parser.add_argument(
        "--warm-up-seconds", type=float, default=1.0, help="before that, not counted (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --mode open (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _examples_file(options: argparse.Namespace) -> str | pathlib.Path:
    if options.requests is not None:
        return str(options.requests)
    from serving.check.exported import newest_versions

    versions = newest_versions(options.export)
    model = options.model or "recommender"
    if model not in versions:
        raise ConfigError(f"{options.export}: wanted {model}; it has {', '.join(versions)}.")
    return examples_path(versions[model][1])


def main(arguments: list[str] | None = None) -> int:
    """Loads a server and prints the report; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.mode == "open") != (options.rate is not None):
        parser.error("--rate belongs to --mode open, which needs it")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return run_command(lambda: _load(options), name="serving.load_test")


def _load(options: argparse.Namespace) -> int:
    # Imported here because TensorFlow's protocol buffers would delay --help.
    from serving.load_test.load import run

    report = run(
        options.address,
        example_requests(
            _examples_file(options),
            model=options.model,
            signatures=options.signature,
            rows=options.batch,
        ),
        rate=options.rate,
        concurrency=options.concurrency,
        seconds=options.seconds,
        warm_up_seconds=options.warm_up_seconds,
        seed=options.seed,
        progress=True,
        **connection(options),
    )
    print(json.dumps(report._asdict()) if options.json else "\n".join(lines(report)))
    return 130 if report.interrupted else int(report.failed > 0 or not report.requests)


if __name__ == "__main__":
    sys.exit(main())
