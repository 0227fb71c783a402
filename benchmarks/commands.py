"""The commands as they are run thousands of times: forked off a process that has imported it all.

TensorFlow takes five seconds to import, in which a command writes nothing. A fork of a process that
has imported it, and has run nothing yet, begins where the command's own work does.
"""

import importlib
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

# What a kind of command is called by, and what it imports before it works.
MODULES = {
    "data.prepare": ("data.prepare",),
    "mmrec_tf": (
        "mmrec_tf.__main__",
        "mmrec_tf.runs.train",
        "mmrec_tf.runs.warm_start",
        "mmrec_tf.exporting.publish",
        "transformers.models.bert.modeling_tf_bert",
        "tensorflow_serving.apis.predict_pb2",
    ),
    "tuning.search": ("tuning.search",),
    "serving.check": ("serving.check.__main__", "serving.local_server"),
    "serving.local_server": ("serving.local_server.__main__", "serving.local_server.grpc.services"),
    "serving.client": ("serving.client.__main__", "serving.client.methods"),
    "benchmarks.event_ids": ("benchmarks.event_ids",),
    "serving.gateway": (
        "serving.gateway.__main__",
        "serving.gateway.serve",
        "serving.gateway.http.app",
        "serving.gateway.http.server",
        "serving.gateway.page.routes",
        "serving.gateway.estimates.command",
        "serving.gateway.night.command",
        "serving.gateway.night.drain",
        "serving.gateway.night.gate",
    ),
}
_POLL_SECONDS = 0.005


class Ended(NamedTuple):
    """How a command ended: its status, negative by a signal; stdout; all that was said; its CPU."""

    status: int
    out: str
    said: str
    cpu_seconds: float


class Begun:
    """A command that runs in a group of its own, so that all of it can be killed."""

    def __init__(self, process: int, out: int, said: int):
        self.process = process
        self._out, self._said = out, said
        self._status: int | None = None
        self._cpu_seconds = 0.0

    def poll(self) -> bool:
        """Whether it has ended."""
        if self._status is None:
            done, status, used = os.wait4(self.process, os.WNOHANG)
            if done:
                self._status = os.waitstatus_to_exitcode(status)
                self._cpu_seconds = used.ru_utime + used.ru_stime
        return self._status is not None

    def kill(self) -> None:
        """Ends it, and all that it started."""
        os.killpg(self.process, signal.SIGKILL)

    def finish(self, *, timeout_seconds: float = 900.0) -> Ended:
        """Waits for its end, and ends it when it does not come."""
        until = time.monotonic() + timeout_seconds
        while not self.poll():
            if time.monotonic() > until:
                self.kill()
            time.sleep(_POLL_SECONDS)
        said = _read(self._out), _read(self._said)
        return Ended(self._status or 0, *said, self._cpu_seconds)


def imports() -> None:
    """Imports what the commands import, so that `begin` need not."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["GRPC_VERBOSITY"] = "NONE"
    for names in MODULES.values():
        for name in names:
            importlib.import_module(name)


def begin(call: Callable[[], int]) -> Begun:
    """Starts a function in a fork of this process.

    Args:
      call: returns the status that the fork exits with.
    """
    out, said = (tempfile.TemporaryFile("w+b") for _ in range(2))
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        _become(call, out.fileno(), said.fileno())
    # In both processes, so that it is done before either goes on.
    _own_group(process)
    return Begun(process, os.dup(out.fileno()), os.dup(said.fileno()))


def command(name: str, *arguments: object) -> Callable[[], int]:
    """`python -m NAME ARGUMENTS` as a function."""
    given = list(map(str, arguments))
    return lambda: importlib.import_module(MODULES[name][0]).main(given)


def _become(call: Callable[[], int], out: int, said: int) -> None:
    """What the fork does; it never returns."""
    status = 70
    try:
        _own_group(0)
        os.chdir(pathlib.Path(__file__).parents[1])
        os.dup2(out, 1)
        os.dup2(said, 2)
        status = call()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _own_group(process: int) -> None:
    try:
        os.setpgid(process, 0)
    except (PermissionError, ProcessLookupError):
        pass  # it has one, or has ended


def _read(file: int) -> str:
    with os.fdopen(file, "rb") as stream:
        stream.seek(0)
        return stream.read().decode("utf-8", "backslashreplace")
