"""Server-side batching: requests that arrive together run together, as in TensorFlow Serving.

Requests of the same version, signature and outputs wait in one queue. A batch closes when it is
full, or when its first request has waited `batch_timeout_micros` and a thread is free; the threads
are shared by all queues. A run that fails fails all its requests.
"""

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from grpc import StatusCode
from numpy.typing import NDArray

from serving.local_server.batching import merging
from serving.local_server.batching.parameters import BatchingParameters
from serving.local_server.metrics import Metrics
from serving.local_server.refusals import Refusal

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], dict[str, NDArray[Any]]]
_log = logging.getLogger(__name__)


class _Task:
    """One request: its rows may be spread over several batches."""

    def __init__(self, arrays: Arrays, size: int, deadline: float):
        self.arrays = arrays
        self.size = size
        self.deadline = deadline
        self.queued = time.monotonic()
        self.done = threading.Event()
        self.outputs: list[dict[str, NDArray[Any]]] = []
        self.error: Refusal | None = None
        self.num_left = 1


class _Piece(NamedTuple):
    """Rows of a task that run in one batch."""

    task: _Task
    place: int
    arrays: Arrays
    size: int


class _Batch:
    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.size = 0
        self.opened = time.monotonic()

    def add(self, piece: _Piece) -> None:
        self.pieces.append(piece)
        self.size += piece.size


class _Queue:
    def __init__(self, run: Run):
        self.run = run
        # Only the last one still takes requests.
        self.batches: collections.deque[_Batch] = collections.deque()


class Batcher:
    """Queues, and the threads that empty them."""

    def __init__(self, parameters: BatchingParameters, metrics: Metrics):
        self._parameters = parameters
        self._metrics = metrics
        self._changed = threading.Condition()
        # In the order of their turns; an empty one is dropped.
        self._queues: collections.OrderedDict[Hashable, _Queue] = collections.OrderedDict()
        self._closed = False
        self._threads = [
            threading.Thread(
                target=self._work, name=f"{parameters.thread_pool_name}_{number}", daemon=True
            )
            for number in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(
        self, key: Hashable, run: Run, arrays: Arrays, *, deadline: float = math.inf
    ) -> dict[str, NDArray[Any]]:
        """Runs a request together with others of the same key, and returns its own rows.

        Args:
          key: what may run together: version, signature and outputs.
          run: runs merged inputs.
          arrays: the request's inputs, with the same number of rows.
          deadline: in seconds of `time.monotonic`.

        Raises:
          Refusal: with TensorFlow Serving's code and text.
        """
        task = _Task(arrays, merging.num_rows(arrays), deadline)
        if not task.size:
            # The real server waits with such a call until its deadline, and so many of them stop
            # it. Its caller sees the same status here, but nobody waits.
            raise Refusal(StatusCode.DEADLINE_EXCEEDED, "A request of 0 rows is never batched")
        with self._changed:
            if self._closed:
                raise Refusal(StatusCode.UNAVAILABLE, "The server is shutting down")
            queue = self._queues.get(key) or _Queue(run)
            self._enqueue(queue, task)
            self._queues[key] = queue
            self._changed.notify()
        left = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
        if not task.done.wait(left):
            raise Refusal(StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        if task.error is not None:
            raise Refusal(task.error.code, task.error.text)
        return merging.joined(task.outputs)

    def close(self, grace_seconds: float) -> None:
        """Takes no more requests, and waits for the threads to run what is queued."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + grace_seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _enqueue(self, queue: _Queue, task: _Task) -> None:
        parameters, batches = self._parameters, queue.batches
        self._check_capacity(queue, task)
        most = parameters.max_execution_batch_size
        sizes = [task.size]
        if parameters.enable_large_batch_splitting:
            free = most - batches[-1].size if batches else most
            sizes = list(merging.cut(task.size, free, most))
        task.num_left = len(sizes)
        task.outputs = [{}] * len(sizes)
        start = 0
        for place, size in enumerate(sizes):
            rows = task.arrays
            if len(sizes) > 1:
                rows = {name: array[start : start + size] for name, array in rows.items()}
            if not batches or batches[-1].size + size > most:
                batches.append(_Batch())
            batches[-1].add(_Piece(task, place, rows, size))
            start += size

    def _check_capacity(self, queue: _Queue, task: _Task) -> None:
        parameters, batches = self._parameters, queue.batches
        most = parameters.max_execution_batch_size
        # The real server counts the open batch even if it is empty.
        num_batches = max(len(batches), 1)
        open_size = batches[-1].size if batches else 0
        full = "The batch scheduling queue to which this task was submitted is full; "
        largest = parameters.max_request_size
        if task.size > largest and (
            parameters.max_batch_size is not None or not parameters.enable_large_batch_splitting
        ):
            raise Refusal(
                StatusCode.INVALID_ARGUMENT,
                f"Task size {task.size} is larger than maximum input batch size {largest}",
            )
        if parameters.enable_large_batch_splitting:
            free = (parameters.max_enqueued_batches - num_batches) * most + most - open_size
            if task.size > free:
                raise Refusal(
                    StatusCode.UNAVAILABLE,
                    f"{full}task size is {task.size} but scheduling capacity is only {free} "
                    f"(num_enqueued_batches={num_batches}, "
                    f"max_enqueued_batches={parameters.max_enqueued_batches}, "
                    f"open_batch_size={open_size}, max_execution_batch_size={most})",
                )
            return
        if open_size + task.size > most and num_batches >= parameters.max_enqueued_batches:
            raise Refusal(
                StatusCode.UNAVAILABLE,
                f"{full}currently {num_batches} batches enqueued and max_enqueued_batches is "
                f"{parameters.max_enqueued_batches}",
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                found = self._take()
                while found is None:
                    if self._closed and not self._queues:
                        return
                    self._changed.wait(self._wait_seconds())
                    found = self._take()
                if self._queues:
                    # One request may fill several batches; another thread takes the rest.
                    self._changed.notify()
            self._process(*found)
            # Otherwise this thread would hold on to the last version that it ran.
            del found

    def _take(self) -> tuple[Run, _Batch] | None:
        """Takes a batch that is full or has waited long enough; the lock is held."""
        now = time.monotonic()
        for key, queue in self._queues.items():
            if len(queue.batches) > 1 or self._due(queue.batches[0]) <= now:
                batch = queue.batches.popleft()
                if queue.batches:
                    self._queues.move_to_end(key)
                else:
                    del self._queues[key]
                return queue.run, batch
        return None

    def _due(self, batch: _Batch) -> float:
        if batch.size >= self._parameters.max_execution_batch_size or self._closed:
            return -math.inf
        return batch.opened + self._parameters.batch_timeout_seconds

    def _wait_seconds(self) -> float | None:
        """How long until a batch is due; None to wait for another request."""
        due = min((self._due(queue.batches[0]) for queue in self._queues.values()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _process(self, run: Run, batch: _Batch) -> None:
        now = time.monotonic()
        pieces = list(self._alive(batch, now))
        if not pieces:
            return
        error, outputs = None, []
        try:
            parameters = self._parameters
            merged = merging.merge(
                [piece.arrays for piece in pieces],
                size=parameters.padded(sum(piece.size for piece in pieces)),
                pad=parameters.pad_variable_length_inputs,
            )
            self._metrics.batching_run_count.add()
            outputs = merging.split(run(merged), [piece.size for piece in pieces], merged)
        except Refusal as refusal:
            error = refusal
        except Exception as failure:  # Its callers must not wait forever.
            _log.exception("a batch failed")
            error = Refusal(StatusCode.INTERNAL, f"{type(failure).__name__}: {failure}")
        for number, piece in enumerate(pieces):
            self._settle(piece, error, {} if error else outputs[number])

    def _alive(self, batch: _Batch, now: float) -> Iterator[_Piece]:
        """Refuses those whose deadline passed in the queue; returns the others."""
        for piece in batch.pieces:
            waited = (now - piece.task.queued) * 1e6
            self._metrics.batching_queuing_latency.observe(
                waited, self._parameters.thread_pool_name
            )
            if piece.task.deadline <= now:
                text = "Run() timeout exceeded while waiting in batching queue"
                self._settle(piece, Refusal(StatusCode.RESOURCE_EXHAUSTED, text), {})
            else:
                yield piece

    def _settle(
        self, piece: _Piece, error: Refusal | None, outputs: dict[str, NDArray[Any]]
    ) -> None:
        task = piece.task
        with self._changed:
            task.outputs[piece.place] = outputs
            task.error = task.error or error
            task.num_left -= 1
            if not task.num_left:
                task.done.set()
