"""`python -m serving.check`: parses and calls."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from mmrec_tf.errors import run_command
from serving.check.checks import Check, check, files
from serving.check.exported import newest_versions
from serving.client.options import connection, connection_options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.check",
        description="Replays an export's examples against a running server and checks what "
        "TensorFlow Serving needs of a model. Exit status 1 when a check fails.",
        parents=[
            connection_options(
                address=None, timeout_seconds=30.0, needed="without it a local server is started"
            )
        ],
    )
    parser.add_argument("export", metavar="EXPORT", help="holds recommender/1/, encoder/1/, ...")
    parser.add_argument(
        "--verbose", action="store_true", help="a line for each check that passed, too"
    )
    parser.add_argument("--rest-address", help="host:port of the REST, to replay there too")
    return parser


def _checks(options: argparse.Namespace) -> Iterator[Check]:
    if options.address is not None:
        newest_versions(options.export)
        print(
            "serving.check: sends no batch of 0 rows to --address: a server that batches never "
            "answers one.",
            file=sys.stderr,
        )
        yield from check(
            options.export,
            options.address,
            rest_address=options.rest_address,
            **connection(options),
        )
        return
    from serving.local_server import LocalServer

    # A server of its own would load what it serves, so that is looked at first.
    newest = newest_versions(options.export)
    found = [one for n, (version, path) in newest.items() for one in files(n, version, path)]
    if any(one.problem for one in found):
        yield from found
        return
    with LocalServer(options.export) as server:
        yield from check(
            options.export,
            server.address,
            rest_address=server.rest_address,
            empty=True,
            **connection(options),
        )


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each check that failed, and one for all; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.address and (options.rest_address or connection(options)["tls"]):
        parser.error("--rest-address and --tls-... need --address")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return run_command(
        lambda: _report(_checks(options), verbose=options.verbose), name="serving.check"
    )


def _report(checks: Iterable[Check], *, verbose: bool) -> int:
    passed, failed = 0, 0
    for one in checks:
        passed, failed = passed + (not one.problem), failed + bool(one.problem)
        if one.problem:
            print(f"FAIL  {one.name}: {one.problem}")
        elif verbose:
            print(f"ok    {one.name}")
    if failed:
        print(f"serving.check: {failed} of {passed + failed} checks failed")
        return 1
    more = "" if verbose else " (--verbose lists them)"
    print(f"serving.check: {passed} checks passed{more}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
