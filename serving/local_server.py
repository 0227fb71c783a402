"""TensorFlow Serving's gRPC and REST answers from an export, in Python.

    python -m serving.local_server EXPORT --port 8500 --rest-port 8501

The embedded default for demos and tests, where no TensorFlow Serving is at hand. It answers
PredictionService Predict and GetModelMetadata, ModelService GetModelStatus, and the REST routes
predict, status and metadata, with TensorFlow Serving's codes and texts; all else is UNIMPLEMENTED.
It neither batches nor authenticates. Production is stock TensorFlow Serving on the same directory.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from mmrec_tf.errors import ConfigError, MmrecError, ServingError

if TYPE_CHECKING:
    from serving.rest import RestServer
    from serving.rpc import RpcServer
    from serving.versions import Models


class LocalServer:
    """Serves every model below an export directory; newest versions, swapped as they appear.

    Example:

        with LocalServer("work/export") as server:
            with Client(server.address) as client:
                print(client.recommend(["u42"], k=10))
    """

    def __init__(
        self,
        export: str | os.PathLike,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_port: int | None = 0,
        poll_seconds: float = 1.0,
    ):
        """Describes a server; `start`, or a `with` block, loads the models and opens the ports.

        Args:
          export: the directory that holds `<model>/<number>/`.
          host: the address to listen on.
          port: for gRPC; 0 for any free one.
          rest_port: for REST; 0 for any free one, None for no REST.
          poll_seconds: how often the directory is looked at for new versions.
        """
        self._export = export
        self._host = host
        self._port = port
        self._rest_port = rest_port
        self._poll_seconds = poll_seconds
        self._models: Models | None = None
        self._rpc: RpcServer | None = None
        self._rest: RestServer | None = None
        self._poller: threading.Thread | None = None
        self._stopping = threading.Event()
        self._stopped = threading.Event()

    @property
    def address(self) -> str:
        """Where gRPC answers: `127.0.0.1:8500`."""
        return f"{_bracketed(self._host)}:{self._port}"

    @property
    def rest_port(self) -> int | None:
        """Where REST answers; None where it does not."""
        return self._rest_port

    @property
    def rest_address(self) -> str:
        """Where REST answers: `127.0.0.1:8501`."""
        return f"{_bracketed(self._host)}:{self._rest_port}"

    @property
    def models(self) -> list[str]:
        """What is served now: `["encoder/1", "recommender/1"]`."""
        return self._models.names() if self._models else []

    def start(self) -> "LocalServer":
        """Loads and warms up every model, then opens the ports; an open port is a ready server.

        Raises:
          ServingError: when there is nothing to serve, a model does not load, or a port is taken.
        """
        # TensorFlow comes in here, so that --help does not wait for it.
        from serving.rest import RestServer
        from serving.rpc import RpcServer
        from serving.versions import Models

        if self._models is not None:
            raise ServingError("this server was started before; make another one.")
        self._models = Models(self._export)
        self._models.load()
        host = _bracketed(self._host)
        self._rpc = RpcServer(self._models, host, self._port)
        self._port = self._rpc.port
        if self._rest_port is not None:
            try:
                self._rest = RestServer(self._models, self._host, self._rest_port)
            except ServingError:
                self.stop(grace_seconds=0.0)
                raise
            self._rest_port = self._rest.port
            self._rest.start()
        self._rpc.start()
        self._poller = threading.Thread(target=self._poll, args=[self._models], daemon=True)
        self._poller.start()
        return self

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Blocks until `stop` has ended the server, or for `timeout_seconds`.

        Returns:
          Whether it has ended.
        """
        return self._stopped.wait(timeout_seconds)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Takes no more requests, waits up to `grace_seconds` for those begun, closes the ports."""
        self._stopping.set()
        if self._rpc is not None:
            self._rpc.stop(grace_seconds)
        if self._rest is not None:
            self._rest.stop()
        if self._poller is not None:
            # A version that is just being loaded may take long; its thread dies with the process.
            self._poller.join(grace_seconds)
        self._stopped.set()

    def __enter__(self) -> "LocalServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _poll(self, models: "Models") -> None:
        while not self._stopping.wait(self._poll_seconds):
            models.poll()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="Serves the models of an export directory as TensorFlow Serving would, newest "
        "versions, swapped as new ones appear. For demos and tests; production is stock "
        "TensorFlow Serving (serving/docker-compose.yml) on the same directory.",
    )
    parser.add_argument("export", metavar="EXPORT", help="holds recommender/1/, encoder/1/, ...")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=8500, help="for gRPC (%(default)s); 0: any")
    parser.add_argument(
        "--rest-port", type=int, default=8501, help="for REST (%(default)s); 0: any"
    )
    parser.add_argument("--no-rest", action="store_true", help="answer gRPC only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Set before TensorFlow is imported: its start-up notes would bury the one line that counts.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="serving.local_server: %(message)s")
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    server = LocalServer(
        options.export,
        host=options.host,
        port=options.port,
        rest_port=None if options.no_rest else options.rest_port,
    )
    try:
        server.start()
    except MmrecError as error:
        print(f"serving.local_server: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
