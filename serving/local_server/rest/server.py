"""HTTP/1.1 for the local server's REST routes: bodies, compression, graceful shutdown."""

import contextlib
import http.server
import logging
import re
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

from grpc import StatusCode

from mmrec_tf.errors import ServingError
from serving.local_server.limits import (
    IDLE_SECONDS,
    MOST_BODY_BYTES,
    MOST_RUNNING,
    WAIT_SECONDS,
    Budget,
)
from serving.local_server.refusals import Refusal
from serving.local_server.rest.connections import Connections, Received
from serving.local_server.rest.routes import Answer, Site, refused

# Unpacked before the budget is asked for the rest.
_FIRST_BYTES = 64 * 2**10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger(__name__)


class RestServer:
    """Serves a site over HTTP/1.1 in threads of its own."""

    def __init__(self, site: Site, host: str, port: int, *, budget: Budget | None = None):
        """Takes the port, but answers only after `start`.

        Args:
          site: what is served.
          host: the address to listen on.
          port: 0 for any free one.
          budget: of the bytes that are worked on; None for one of its own.

        Raises:
          ServingError: when the port is taken.
        """
        self._begun = _Begun()
        shared = {
            "site": site,
            "begun": self._begun,
            "budget": budget or Budget(),
            "turns": threading.BoundedSemaphore(MOST_RUNNING),
            "own_hosts": (*_LOOPBACK, host),
        }
        handler = type("Handler", (_Handler,), shared)
        try:
            self._server = _ThreadingServer((host, port), handler)
        except OSError as error:
            raise ServingError(
                f"cannot listen on {host}:{port} for REST: {error}. Choose another --rest-port."
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def refuse(self) -> None:
        """Answers 503 from now on; running requests go on."""
        self._begun.refuse()

    def stop(self, grace_seconds: float) -> None:
        """Takes no more requests, waits for the running ones, then closes the port."""
        self._begun.refuse()
        self._begun.wait(grace_seconds)
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Begun:
    """Counts the running requests; once told to refuse, lets no more begin."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._refuses = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A request.

        Raises:
          Refusal: when it comes too late.
        """
        with self._changed:
            if self._refuses:
                raise Refusal(StatusCode.UNAVAILABLE, "The server is shutting down")
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def refuse(self) -> None:
        with self._changed:
            self._refuses = True

    def wait(self, grace_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._count, grace_seconds)


class _ThreadingServer(Connections, http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Of a burst of new connections, the default backlog of 5 would let some wait a second.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""
        _log.debug("REST connection from %s ended", client_address, exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mmrec_tf"
    disable_nagle_algorithm = True
    site: Site
    begun: _Begun
    budget: Budget
    turns: threading.BoundedSemaphore
    own_hosts: tuple[str, ...]
    server: _ThreadingServer

    def __getattr__(self, name: str) -> Any:
        # Every method comes here: the real server never answers 405 or 501 by itself.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._received = Received(self.connection)
        self.server.opened(self.connection, self._received)
        self.rfile = self._received.buffered()

    def handle_one_request(self) -> None:
        self._received.expect()
        super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged one by one."""
        _log.debug(format, *args)

    def _handle(self) -> None:
        try:
            with self.begun.one(), contextlib.ExitStack() as held:
                self._respond(held)
        except Refusal as refusal:
            self.close_connection = True  # The rest of the body could be mistaken for a request.
            self._send(refused(refusal))
        except TimeoutError:
            self.close_connection = True
            self._send(refused(Refusal(StatusCode.ABORTED, "The request came too slowly"), 408))

    def _respond(self, held: contextlib.ExitStack) -> None:
        if self.command == "POST":
            self._require_own_origin()
        body = self._body(held)
        if self.command == "OPTIONS":
            origin = self.headers.get("Origin", "")
            self._send(Answer(200 if origin.startswith(("http://", "https://")) else 400, b""))
            return
        if not self.turns.acquire(timeout=WAIT_SECONDS):
            raise Refusal(StatusCode.RESOURCE_EXHAUSTED, "Too many requests at once; try again")
        try:
            answered = self.site.answer(self.command, self.path, body)
        except Exception as error:  # One request must not cost the connection its answer.
            _log.exception("%s %s failed", self.command, self.path)
            answered = refused(Refusal(StatusCode.INTERNAL, f"{type(error).__name__}: {error}"))
        finally:
            self.turns.release()
        self._send(answered)

    def _require_own_origin(self) -> None:
        """Refuses what a page of elsewhere makes its reader's browser send.

        Raises:
          Refusal: naming the origin.
        """
        origin = self.headers.get("Origin")
        if origin is None:  # No browser.
            return
        try:
            host = urllib.parse.urlsplit(origin).hostname
        except ValueError:
            host = None
        if host not in self.own_hosts:
            raise Refusal(
                StatusCode.PERMISSION_DENIED,
                f"Origin: wanted a page of {', '.join(dict.fromkeys(self.own_hosts))}, or none; "
                f"got {origin[:100]}",
            )

    def _body(self, held: contextlib.ExitStack) -> bytes:
        """The body, unpacked; a large one takes its share of the budget until `held` ends."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            raise Refusal(
                StatusCode.INVALID_ARGUMENT, "Chunked bodies are not read; send Content-Length."
            )
        length = self.headers.get("Content-Length", "0").strip()
        if not re.fullmatch(r"[0-9]{1,12}", length) or int(length) > MOST_BODY_BYTES:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"Content-Length: {length[:30]} is not 0 to {MOST_BODY_BYTES}.",
            )
        packed = self.headers.get("Content-Encoding", "").strip().lower() == "gzip"
        held.enter_context(self.budget.hold(int(length)))
        body = self.rfile.read(int(length))
        if not packed:
            return body
        unpacker = zlib.decompressobj(wbits=31)
        with contextlib.suppress(zlib.error):
            unpacked = unpacker.decompress(body, _FIRST_BYTES)
            if not unpacker.eof:
                # What is held is given back first: two that wait for each other would never end.
                held.close()
                held.enter_context(self.budget.hold(MOST_BODY_BYTES))
                rest = unpacker.decompress(
                    unpacker.unconsumed_tail, MOST_BODY_BYTES - len(unpacked)
                )
                unpacked += rest
            if unpacker.eof:
                return unpacked
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            f"The body is not gzip, or more than {MOST_BODY_BYTES} bytes unpacked.",
        )

    def _send(self, answered: Answer) -> None:
        self.connection.settimeout(IDLE_SECONDS)
        self.send_response(answered.code)
        self.send_header("Content-Type", answered.content_type)
        self.send_header("Content-Length", str(len(answered.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answered.body)
