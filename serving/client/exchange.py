"""A call as steps, so that both clients share everything but the waiting.

A method is a generator. It yields the next step, a `Call` or a `Wait`, and is sent the result or
thrown the `grpc.RpcError`; it returns the answer. Retries and errors therefore need not know about
threads or event loops.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar


class Call(NamedTuple):
    """A message to send: the gRPC method, the request, and how long to wait for its answer."""

    method: str
    request: Any
    timeout_seconds: float


class Wait(NamedTuple):
    """A pause before a retry."""

    seconds: float


Answer = TypeVar("Answer")
Steps = Generator[Call | Wait, Any, Answer]
