"""One thread that writes a SQLite database; what comes together is committed together."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from serving.gateway.store.store import StoreError

Result = TypeVar("Result")
Act = Callable[[sqlite3.Connection], Any]
_MOST_TOGETHER = 256


class _Job(NamedTuple):
    act: Act
    future: "asyncio.Future[Any] | None"
    loop: asyncio.AbstractEventLoop
    done: Callable[[Exception | None], None] | None = None


class Writer:
    """Runs functions on a connection of its own, many to a commit.

    A commit waits for the disk. Requests that come while it does are committed by the next one
    together, so that a busy gateway waits as often as an idle one. A function that raises undoes
    what it did, and nothing of the others.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]):
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gateway-writer", daemon=True)
        self._closed = False
        # Jobs that are begun after what is at hand.
        self._later: list[_Job] = []

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def do(
        self,
        act: Callable[[sqlite3.Connection], Result],
        done: Callable[[Exception | None], None] | None = None,
    ) -> Result:
        """Runs a function in a transaction; returns what it returned once that is on the disk.

        Args:
          act: the function.
          done: as for `do_later`; called before this returns, and also where whoever asked is gone.

        Raises:
          StoreError: when the database cannot be written, such as on a full disk.
        """
        if self._closed:
            raise StoreError("the store is closed; nothing can be written any more.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._hand_over()
        self._jobs.put(_Job(act, future, loop, done))
        # Whoever asked may be gone; what was begun is written all the same.
        result: Result = await asyncio.shield(future)
        return result

    def do_later(
        self, act: Callable[[sqlite3.Connection], Any], done: Callable[[Exception | None], None]
    ) -> None:
        """Runs a function in a transaction, before those of requests that come after this one.

        It is begun after what is at hand, so that its thread takes no time from the answer.

        Args:
          act: the function.
          done: called in the event loop with what went wrong, None for nothing, once the outcome
            is known.

        Raises:
          StoreError: when the store is closed.
        """
        if self._closed:
            raise StoreError("the store is closed; nothing can be written any more.")
        loop = asyncio.get_running_loop()
        self._later.append(_Job(act, None, loop, done))
        loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        for job in self._later:
            self._jobs.put(job)
        self._later.clear()

    def close(self) -> None:
        """Writes what has come so far, and ends the thread."""
        self._closed = True
        self._hand_over()
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = self._connect()
        open_ = True
        while open_:
            jobs = [self._jobs.get()]
            while len(jobs) < _MOST_TOGETHER:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            open_ = None not in jobs
            self._commit(connection, [job for job in jobs if job is not None])
        connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        if not jobs:
            return
        outcomes: list[Any] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                outcomes.append(_try(connection, job.act))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = StoreError(f"the state cannot be written: {error}.")
            outcomes = [failure] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            try:
                job.loop.call_soon_threadsafe(_tell, job, outcome)
            except RuntimeError:
                pass  # The loop that asked has ended.


def _try(connection: sqlite3.Connection, act: Act) -> Any:
    connection.execute("SAVEPOINT job")
    try:
        outcome = act(connection)
    except Exception as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # The disk, which fails all of them.
        connection.execute("ROLLBACK TO job")
        outcome = error
    connection.execute("RELEASE job")
    return outcome


def _tell(job: _Job, outcome: Any) -> None:
    if job.done is not None:
        job.done(outcome if isinstance(outcome, Exception) else None)
    future = job.future
    if future is None or future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
