"""Servers of a benchmark in processes of their own, and the HTTP that they are asked by.

They are forked off a process that has imported everything (`benchmarks.commands`), so that a server
is there within a second, and none outlives the benchmark.
"""

import ctypes
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.commands import Begun, begin, command


def dies_with_parent(call: Callable[[], int]) -> Callable[[], int]:
    """The same function, in a process that does not outlive this one."""

    def wrapped() -> int:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        return call()

    return wrapped


def run_forked(module: str, arguments: Sequence[str]) -> tuple[int, str]:
    """`python -m MODULE ARGUMENTS` in a fork of this process, as `serving.gateway night` calls
    commands: returns its status and what it printed."""
    start = time.monotonic()
    ended = begin(dies_with_parent(command(module, *arguments))).finish(timeout_seconds=900)
    print(f"  {module} {arguments[0]}: {time.monotonic() - start:.1f} s", flush=True)
    if ended.status not in (0, 3):
        print(ended.said[-3000:], flush=True)
    return ended.status, ended.out


def must(module: str, *arguments: object) -> str:
    """The same; ends all where it fails."""
    status, said = run_forked(module, list(map(str, arguments)))
    if status:
        raise SystemExit(f"{module} ended with {status}.\n{said}")
    return said


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    """Whether someone does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ready(port: int) -> bool:
    """Whether a gateway there takes requests."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_until(condition: Callable[[], bool], *, seconds: float = 180.0) -> None:
    """Waits; ends all where it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"something did not come about within {seconds:.0f} s.")
        time.sleep(0.05)


def post(connection: http.client.HTTPConnection, path: str, body: object) -> Any:
    """Posts JSON; returns the answer, which has to be a success."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    told = reply.read()
    if reply.status != 200:
        raise SystemExit(f"{path}: {reply.status} {told[:300]!r}")
    return json.loads(told)


def put_item(
    connection: http.client.HTTPConnection, item: str, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Puts an item of words; returns the answer, which has to say that it is live."""
    line = "mmrec-form"
    parts = [
        f'--{line}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
        if value
    ]
    body = ("".join(parts) + f"--{line}--\r\n").encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={line}"}
    connection.request("PUT", f"/v1/items/{item}", body, kind)
    reply = connection.getresponse()
    told = reply.read()
    if reply.status not in (200, 201):
        raise SystemExit(f"{item}: {reply.status} {told[:300]!r}")
    return dict(json.loads(told))


class Server:
    """A server on a port that it keeps when it is started again.

    Attributes:
      port: its port.
    """

    def __init__(self, start: Callable[[int], Begun], is_up: Callable[[int], bool]):
        """Describes it; `start` is called with the port, and `is_up` says whether it answers."""
        self.port = free_port()
        self._start, self._is_up = start, is_up
        self.process: Begun | None = None

    def start(self, *, wait: bool = True) -> "Server":
        """Starts it."""
        self.process = self._start(self.port)
        if wait:
            wait_until(self.up)
        return self

    def up(self) -> bool:
        """Whether it answers; ends all where it has ended by itself."""
        if self.process is None or self.process.poll():
            said = self.process.finish().said if self.process is not None else ""
            raise SystemExit(f"a server ended by itself.\n{said[-3000:]}")
        return self._is_up(self.port)

    def signal(self, number: int) -> None:
        """Sends a signal to it and all that it started."""
        if self.process is not None:
            os.killpg(self.process.process, number)

    def stop(self) -> None:
        """Kills it, and waits for its end."""
        if self.process is not None and not self.process.poll():
            self.process.kill()
            self.process.finish(timeout_seconds=20)
        self.process = None


def model_server(*arguments: object) -> Server:
    """A local server with such arguments."""

    def start(port: int) -> Begun:
        asked = ["--no-rest", "--port", port, *arguments]
        return begin(dies_with_parent(command("serving.local_server", *asked)))

    return Server(start, listens)


def gateway(*arguments: object) -> Server:
    """A gateway with such arguments."""

    def start(port: int) -> Begun:
        asked = ["--no-page", "--events-per-second", 0, "--port", port, *arguments]
        return begin(dies_with_parent(command("serving.gateway", *asked)))

    return Server(start, ready)


def redis_server(folder: pathlib.Path) -> Server:
    """A Redis that keeps its state in a folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def start(port: int) -> Begun:
        asked = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        asked += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        call = lambda: subprocess.call(asked, stdout=subprocess.DEVNULL)  # noqa: E731
        return begin(dies_with_parent(call))

    return Server(start, _answers_ping)


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as asked:
            asked.sendall(b"PING\r\n")
            return asked.recv(64).startswith(b"+PONG")
    except OSError:
        return False
