"""A call as steps, so that both clients share all but the waiting.

A question is a generator. It yields what has to be done, a `Call` or a `Wait`, and is sent what
came of it, or is thrown the `grpc.RpcError`; what it returns is the answer. So retries and errors
say nothing of threads or of an event loop.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar


class Call(NamedTuple):
    """A message to send: the gRPC method, the request, and how long to wait for its answer."""

    method: str
    request: Any
    timeout_seconds: float


class Wait(NamedTuple):
    """A pause before a call is tried again."""

    seconds: float


Answer = TypeVar("Answer")
Steps = Generator[Call | Wait, Any, Answer]
