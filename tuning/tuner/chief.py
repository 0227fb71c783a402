"""KerasTuner's chief: hands trials to workers over gRPC, and takes back those of workers that died.

The protocol is KerasTuner's own, so that `KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP` and
`KERASTUNER_ORACLE_PORT` mean what they mean there. Beyond it, a worker asks for its own trial every
few seconds, which says that it is alive.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.src.distribute import oracle_chief

from mmrec_tf.errors import TuningError
from tuning.oracle import Kept
from tuning.tuner.tuner import PARENT, quiet

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A worker that has been silent for so long is given up.
SILENT_SECONDS = 60.0
# How often the chief looks, and how long it waits for workers that were told to end.
LOOK_SECONDS = 0.2
GRACE_SECONDS = 20.0
# So many deaths of workers in a row without a trial that ended, for each of them.
MOST_DEATHS = 4


class Servicer(oracle_chief.OracleServicer):
    """KerasTuner's, which notes when a trial was last asked for."""

    def __init__(self, oracle: Kept):
        super().__init__(oracle)
        self.heard: dict[str, float] = {}

    def GetTrial(self, request: Any, context: Any) -> Any:
        """KerasTuner's; the pulse of a worker."""
        self.heard[request.trial_id] = time.monotonic()
        return super().GetTrial(request, context)

    def silent(self) -> list[str]:
        """Workers that have said nothing for too long; of KerasTuner's own, who never say that they
        are alive, nothing is known."""
        now = time.monotonic()
        return [
            tuner_id
            for tuner_id, trial in dict(self.oracle.ongoing_trials).items()
            if now - self.heard.get(trial.trial_id, now) > SILENT_SECONDS
        ]


def serve(
    oracle: Kept,
    address: str,
    *,
    report: Callable[[str], None],
    children: "Children | None" = None,
) -> None:
    """Hands out trials until none is left.

    Args:
      oracle: Kept.
      address: host and port to listen at.
      report: receives a line on each worker that died.
      children: the workers that this process started; None where others do.

    Raises:
      TuningError: where the address is taken, or workers die one after the other.
    """
    oracle.waits = True
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = Servicer(oracle)
    oracle_chief.protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        taken = server.add_insecure_port(address) == 0
    except RuntimeError:
        taken = True
    if taken:
        raise TuningError(
            f"{address}: wanted a free address for the chief. Set KERASTUNER_ORACLE_IP to one of "
            "this machine, and KERASTUNER_ORACLE_PORT to another port."
        )
    with quiet():
        server.start()
        try:
            _serve(oracle, servicer, report, children)
        finally:
            server.stop(grace=1).wait()


def _serve(
    oracle: Kept, servicer: Servicer, report: Callable[[str], None], children: "Children | None"
) -> None:
    last = time.monotonic()
    while True:
        time.sleep(LOOK_SECONDS)
        for tuner_id in servicer.silent():
            _give_back(servicer, tuner_id, f"silent for {SILENT_SECONDS:.0f} s", report)
        if children is not None:
            for tuner_id, reason in children.died():
                _give_back(servicer, tuner_id, reason, report)
                if not servicer.stop_triggered:
                    children.again(tuner_id, len(oracle.end_order))
        if not servicer.stop_triggered or oracle.ongoing_trials:
            last = time.monotonic()
        elif oracle.over() or time.monotonic() - last > GRACE_SECONDS:
            return


def _give_back(
    servicer: Servicer, tuner_id: str, reason: str, report: Callable[[str], None]
) -> None:
    trial = servicer.oracle.give_back(tuner_id, reason)
    if trial is not None:
        # Or whoever has it next would seem to have been silent for as long.
        servicer.heard.pop(trial, None)
    what = "" if trial is None else f"; trial {trial} is given back"
    report(f"{tuner_id} died ({reason}){what}")


class Children:
    """Workers on this machine, one device each where there are several.

    Args:
      num: how many.
      address: of the chief.
      out: folder of the search; what they print is in its folder `workers`.
      command: what each runs.
    """

    def __init__(self, num: int, address: str, out: pathlib.Path, command: Sequence[str]):
        self.address = address
        self.out = out
        self.command = list(command)
        self.devices = _devices()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths, self.done = 0, 0
        for number in range(num):
            self._start(f"worker{number}", number)

    def _start(self, tuner_id: str, number: int) -> None:
        host, _, port = self.address.rpartition(":")
        environment = {
            **os.environ,
            "KERASTUNER_TUNER_ID": tuner_id,
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
            PARENT: str(os.getpid()),
        }
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[number % len(self.devices)]
            # Of several on one device none takes all its memory.
            environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        folder = self.out / "workers"
        folder.mkdir(exist_ok=True)
        with (folder / f"{tuner_id}.log").open("ab") as log:
            self.processes[tuner_id] = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is the chief's to pass on.
                start_new_session=True,
            )

    def died(self) -> list[tuple[str, str]]:
        """Those that ended otherwise than by being told so, and how."""
        found = []
        for tuner_id, process in list(self.processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self.processes[tuner_id]
            if status:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                found.append((tuner_id, how))
        return found

    def again(self, tuner_id: str, done: int) -> None:
        """Starts one anew.

        Raises:
          TuningError: when they die one after the other and no trial ends.
        """
        self.deaths = 1 if done > self.done else self.deaths + 1
        self.done = done
        if self.deaths >= MOST_DEATHS:
            raise TuningError(
                f"{self.out}: {self.deaths} workers died one after the other, and no trial ended. "
                f"The last one said: {self._last_words(tuner_id)}"
            )
        self._start(tuner_id, int(tuner_id.removeprefix("worker")))

    def _last_words(self, tuner_id: str) -> str:
        path = self.out / "workers" / f"{tuner_id}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"

    def end(self) -> None:
        """Interrupts those that still run, as Ctrl-C would; kills those that do not listen."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def workers(num: int, out: pathlib.Path, command: Sequence[str]) -> Iterator[tuple[str, Children]]:
    """Starts workers on this machine; they end with the block.

    Args: as of `Children`.

    Yields:
      The address that the chief is to listen at, and the workers.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = Children(num, address, out, command)
    try:
        yield address, children
    finally:
        children.end()


def worker_command(out: pathlib.Path) -> list[str]:
    """What joins the search in a folder."""
    return [sys.executable, "-m", "tuning.search", "--join", str(out.resolve())]


def chief_address(environment: Mapping[str, str] = os.environ) -> str:
    """Where KerasTuner's variables say that the chief is."""
    return f"{environment['KERASTUNER_ORACLE_IP']}:{environment['KERASTUNER_ORACLE_PORT']}"


def _devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for each worker; [] where there is at most one device."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = [name.strip() for name in named.split(",") if name.strip()]
    else:
        import tensorflow as tf

        devices = [str(n) for n, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    return devices if len(devices) > 1 else []
