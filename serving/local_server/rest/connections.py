"""The connections of the REST port: how many there are, and how long each may be silent."""

import io
import socket
import socketserver
import threading
import time
from typing import Any

from serving.local_server.limits import IDLE_SECONDS, MOST_CONNECTIONS, RECEIVE_SECONDS

_TURNED_AWAY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Received(io.RawIOBase):
    """What comes over a connection, with an end to waiting for it.

    A socket's own timeout begins anew with each byte, so that a byte a minute would keep a
    connection for good.

    Attributes:
      silent_since: since when it is waited for a byte, in seconds of `time.monotonic`; None while
        a request is worked on.
    """

    def __init__(self, connection: socket.socket):
        super().__init__()
        self._connection = connection
        self.silent_since: float | None = None
        self.expect()

    def expect(self) -> None:
        """A new request may come."""
        self._has_begun = False
        self._deadline = time.monotonic() + IDLE_SECONDS

    def buffered(self) -> io.BufferedReader:
        """As a file."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for some bytes.

        Raises:
          TimeoutError: when they are late.
        """
        now = time.monotonic()
        if now >= self._deadline:
            raise TimeoutError("the request came too slowly")
        self._connection.settimeout(self._deadline - now)
        self.silent_since = now
        try:
            count = self._connection.recv_into(buffer)
        finally:
            self.silent_since = None
        if not self._has_begun:
            self._has_begun = True
            self._deadline = time.monotonic() + RECEIVE_SECONDS
        return count


class Connections(socketserver.BaseServer):
    """A server that holds a bounded number of connections.

    One more than that takes the place of the one that has been silent longest, so that whoever
    opens many and says nothing locks nobody out; while all are worked on it is turned away.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self._lock = threading.Lock()
        self._open: dict[socket.socket, Received | None] = {}
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begins a connection, if there is room."""
        with self._lock:
            has_room = len(self._open) < MOST_CONNECTIONS or self._end_silent()
            if has_room:
                self._open[request] = None
        if has_room:
            super().process_request(request, client_address)
            return
        try:
            request.settimeout(0.1)
            request.sendall(_TURNED_AWAY)
        except OSError:
            pass
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def opened(self, connection: socket.socket, received: Received) -> None:
        """Says what a connection is read by."""
        with self._lock:
            if connection in self._open:
                self._open[connection] = received

    def _end_silent(self) -> bool:
        """Ends the connection that has been silent longest; the lock is held."""
        silent = [
            (received.silent_since, connection)
            for connection, received in self._open.items()
            if received is not None and received.silent_since is not None
        ]
        if not silent:
            return False
        _, connection = min(silent, key=lambda pair: pair[0])
        del self._open[connection]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return True
