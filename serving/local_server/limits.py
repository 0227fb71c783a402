"""How much of anything one caller may cost the local server.

A server for demos still listens: whoever reaches its port must not be able to stop it or to fill
its memory. What comes is counted before it is unpacked, decoded or run, and refused with a status.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator

from grpc import StatusCode

from serving.local_server.refusals import Refusal

# Of a request over REST, as it comes and unpacked. The largest picture or sound that an encoder
# reads has 16 MiB, and a third more in base64.
MOST_BODY_BYTES = 24 * 2**20
# Of a message over gRPC.
MOST_MESSAGE_BYTES = 64 * 2**20
# Values and lists of a JSON document: a full list for each row of a full request.
MOST_JSON_ELEMENTS = 2**20
# Rows of a JSON document that has one object, or value, a row: each is a tensor for a while.
MOST_JSON_ROWS = 2**16
# Of a text in a JSON document, as UTF-8: Python holds up to four times as much, several times over.
# Pictures and sounds come as base64, of which a character takes one byte.
MOST_TEXT_BYTES = 2 * 2**20
# Dimensions of a tensor, and levels of a JSON document beside them: what NumPy can hold.
MOST_DIMENSIONS = 32
# HTTP connections at once; one more takes the place of the one that has been silent longest.
MOST_CONNECTIONS = 128
# HTTP requests that run at once; more of them wait.
MOST_RUNNING = 16
# A connection without a request, a request from its first byte to its last, a request's turn.
IDLE_SECONDS = 60.0
RECEIVE_SECONDS = 20.0
WAIT_SECONDS = 5.0

# Requests of up to so many bytes are never held back, and larger ones by their sum.
_SMALL_BYTES = 64 * 2**10
_BUDGET_BYTES = 8 * 2**20
# After a request of so many bytes, what it took is given back to the system.
_LARGE_BYTES = 2**20


class Budget:
    """The bytes of large requests that are worked on at once, over all ports.

    A decoded request takes many times its bytes, so that a few large ones together would take more
    memory than any of them may.
    """

    def __init__(
        self, most_bytes: int = _BUDGET_BYTES, *, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Describes it.

        Args:
          most_bytes: of all large requests together; a larger one runs when there is no other.
          wait_seconds: how long a request waits for its turn.
        """
        self._most_bytes = most_bytes
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._free = most_bytes

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Takes a request's bytes for the block.

        Raises:
          Refusal: when others kept them for too long.
        """
        if size <= _SMALL_BYTES:
            yield
            return
        size = min(size, self._most_bytes)
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= size, self._wait_seconds):
                raise Refusal(
                    StatusCode.RESOURCE_EXHAUSTED, "Too many large requests at once; try again"
                )
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
            if size >= _LARGE_BYTES:
                _give_back()


def _give_back() -> None:
    """Returns freed memory, which the C library would keep for each thread, to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
