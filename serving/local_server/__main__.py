"""The command `python -m serving.local_server`."""

import argparse
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from mmrec_tf.errors import run_command
from serving.local_server import LocalServer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="Serves the models of an export directory as TensorFlow Serving would, newest "
        "versions, swapped as new ones appear. For demos and tests; production is stock "
        "TensorFlow Serving (serving/deploy/docker-compose.yml) on the same directory. Flags that "
        "name files take the same files as the real server's of that name.",
    )
    parser.add_argument(
        "export", metavar="EXPORT", nargs="?", help="holds recommender/1/, encoder/1/, ..."
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=8500, help="for gRPC (%(default)s); 0: any")
    parser.add_argument(
        "--rest-port", type=int, default=8501, help="for REST (%(default)s); 0: any"
    )
    parser.add_argument("--no-rest", action="store_true", help="answer gRPC only")
    parser.add_argument(
        "--file-system-poll-wait-seconds",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="how often to look for new versions (%(default)s); 0: never",
    )
    parser.add_argument(
        "--model-config-file",
        metavar="FILE",
        help="instead of EXPORT: models, their folders, policies and labels",
    )
    parser.add_argument(
        "--model-config-file-poll-wait-seconds",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="how often to read that file again (%(default)s: never)",
    )
    parser.add_argument(
        "--allow-version-labels-for-unavailable-models",
        action="store_true",
        help="take labels of versions that are not loaded yet, as all are at the start",
    )
    parser.add_argument(
        "--enable-batching",
        action="store_true",
        help="run requests together that come together",
    )
    parser.add_argument("--batching-parameters-file", metavar="FILE", help="how to batch")
    parser.add_argument(
        "--monitoring-config-file", metavar="FILE", help="where REST shows Prometheus' metrics"
    )
    parser.add_argument(
        "--ssl-config-file", metavar="FILE", help="contents of PEM files for TLS, of gRPC only"
    )
    parser.add_argument(
        "--enable-grpc-healthcheck-service",
        action="store_true",
        help="answer grpc.health.v1.Health",
    )
    parser.add_argument(
        "--grpc-max-threads",
        metavar="N",
        type=int,
        default=16,
        help="gRPC calls answered at once; more of them wait (%(default)s)",
    )
    parser.add_argument(
        "--allow-other-ops",
        action="store_true",
        help="load models with ops that no export has, which may read and write files: only those "
        "that you trust like a program (SECURITY.md)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; returns the exit status."""
    settings = vars(_parser().parse_args(arguments))
    if settings.pop("no_rest"):
        settings["rest_port"] = None
    settings["poll_seconds"] = settings.pop("file_system_poll_wait_seconds")
    # Set before TensorFlow is imported: its start-up notes would bury the one line that counts.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="serving.local_server: %(message)s")
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    return run_command(lambda: _serve(settings), name="serving.local_server")


def _serve(settings: Mapping[str, Any]) -> None:
    # All that TensorFlow brings along stays to the end. Were it not set aside, each swap would
    # look through it for what is left of the old version, and answer nobody for half a second.
    importlib.import_module("serving.local_server.grpc.services")
    gc.freeze()
    server = LocalServer(**settings).start()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rest = f" and http://{server.rest_address} (REST)" if server.rest_port is not None else ""
    print(
        f"serving.local_server: {', '.join(server.models)} ready on {server.address} (gRPC){rest}. "
        "For demos and tests; production is stock TensorFlow Serving.",
        flush=True,
    )
    # The kernel may hand the signal to any thread, and Python's handler runs in this one: without a
    # timeout it could sleep on and never know.
    while not stop.wait(0.5):
        pass
    server.stop()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A run that outlasted the grace would keep an orderly exit waiting for its thread.
    os._exit(status)
