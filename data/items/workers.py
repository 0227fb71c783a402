"""Processes that work through tasks, and outlive what kills or hangs one of them.

A picture or a sound may take its decoder down, and the process with it. So each process says over
a pipe what it is about to touch: when it dies, or is silent for too long, that is what the task
has to do without, and the task is done again. The notes are progress as well.
"""

import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mmrec_tf.errors import DatasetError, MmrecError

TIMEOUT_SECONDS = 120.0
# Of address space, a process; libraries and what a file may take by the limits on its size.
_MEMORY_BYTES = 6 << 30
_QUIET_SECONDS = 0.1
_MOST_DEATHS = 3  # of one task without a word
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")

# Called with the name of a thing before it is touched, or with "" and how many are done.
Note = Callable[[str, int], object]
# The task, what to leave out of it and why, and where to say what comes next.
Work = Callable[[int, dict[str, str], Note], None]


class _Task(NamedTuple):
    number: int
    left_out: dict[str, str]


def run(
    work: Work,
    tasks: Sequence[int],
    *,
    workers: int,
    progress: Callable[[int], object],
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Does all tasks, in any order.

    Args:
      work: called with a task, the names that it must leave out with the reason for each, and a
        `Note`. Must be picklable.
      tasks: their numbers.
      workers: how many processes; 0 for none but this one, where nothing is outlived.
      progress: called with how many things were done since.
      timeout_seconds: how long a process may be busy with one thing.

    Raises:
      MmrecError: that `work` raised.
      DatasetError: when processes die without having touched anything.
    """
    if not workers:
        for number in tasks:
            work(number, {}, lambda name, done: progress(done))
        return
    waiting = [_Task(number, {}) for number in reversed(tasks)]
    busy = [_Worker(work) for _ in range(min(workers, len(tasks)))]
    deaths: dict[int, int] = {}
    try:
        while waiting or any(worker.task for worker in busy):
            for worker in busy:
                if worker.task is None and waiting:
                    worker.start(waiting.pop())
            ready = multiprocessing.connection.wait([w.connection for w in busy], timeout=1.0)
            for worker in busy:
                dead = not worker.alive  # asked first: what it said before is then all there
                if dead or worker.connection in ready:
                    worker.listen(progress)
                if worker.task is None:
                    continue
                reason = worker.fault(timeout_seconds)
                if reason:
                    task, name = worker.task, worker.at
                    worker.replace()
                    if name:
                        task.left_out[name] = reason
                    else:
                        deaths[task.number] = deaths.get(task.number, 0) + 1
                        if deaths[task.number] >= _MOST_DEATHS:
                            raise DatasetError(
                                f"a process that prepares items {reason} before it began, "
                                f"{_MOST_DEATHS} times. Look for a lack of memory, or try "
                                "--workers 1."
                            )
                    waiting.append(task)
    finally:
        for worker in busy:
            worker.stop()


class _Worker:
    """One process, and what is known of it."""

    def __init__(self, work: Work):
        self._work = work
        self.task: _Task | None = None
        self._open()

    def start(self, task: _Task) -> None:
        self.task, self.at, self._since = task, "", time.monotonic()
        self._heard = False
        # A process that is dead already is noticed when it is listened to.
        try:
            self.connection.send(task)
        except OSError:
            pass

    def listen(self, progress: Callable[[int], object]) -> None:
        """Takes in all that the process has said."""
        try:
            while self.connection.poll():
                said = self.connection.recv()
                if isinstance(said, BaseException):
                    raise said
                if said is None:
                    self.task = None
                    continue
                self.at, done = said
                self._heard = True
                self._since = time.monotonic()
                progress(done)
        except (EOFError, ConnectionResetError):
            self._process.join()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def fault(self, timeout_seconds: float) -> str:
        """Why the process is of no more use; "" where it may be."""
        if not self.alive:
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return f"ended its process ({how})"
        # Until it is heard of, a process loads its libraries.
        limit = timeout_seconds if self._heard else max(timeout_seconds, TIMEOUT_SECONDS)
        if time.monotonic() - self._since > limit:
            return f"took more than {limit:g} seconds"
        return ""

    def replace(self) -> None:
        self.stop()
        self.task = None
        self._open()

    def stop(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        # Ctrl-C goes to the whole group; while a worker is imported, it could not ignore it yet.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Held by the process alone, so that its death is the end of the pipe.
        theirs.close()


class _Teller:
    """A `Note` that tells at once what is touched, and now and then what is done."""

    def __init__(self, connection: Any):
        self._connection = connection
        self._done, self._last = 0, 0.0

    def __call__(self, name: str, done: int) -> None:
        self._done += done
        if name or time.monotonic() - self._last > _QUIET_SECONDS:
            self.tell(name)

    def tell(self, name: str) -> None:
        self._connection.send((name, self._done))
        self._done, self._last = 0, time.monotonic()


def _serve(connection: Any, work: Work) -> None:
    # One thread a process: there are as many processes as there are CPUs.
    os.environ.update(dict.fromkeys(_LIBRARIES, "1"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    try:
        while True:
            task = connection.recv()
            try:
                teller = _Teller(connection)
                teller.tell("")
                work(task.number, task.left_out, teller)
                teller.tell("")
            except MmrecError as error:
                connection.send(error)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:
                connection.send(RuntimeError(f"in a worker:\n{traceback.format_exc()}"))
            else:
                connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, and whoever comes next does what is left
