"""Puts load on a server and measures it; `serving.load_test` is its command."""

import asyncio
import collections
import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tqdm import tqdm

from mmrec_tf.errors import ConfigError, ServingError
from serving.client.channels import open_channel

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_PERCENTS = (50, 90, 95, 99)
_PAUSE_SECONDS = 0.01
_TICK_SECONDS = 0.5


class Report(NamedTuple):
    """The result of a load test.

    Attributes:
      seconds: from the end of the warm-up to the last answer.
      requests: how many were due in that time.
      requests_per_second: how many of them were answered without an error, a second.
      latency_ms: of those, by "p50", "p90", "p95", "p99" and "max"; empty where there are none.
      late_ms: p99 of how late requests were sent. It is part of an open loop's latencies but
        caused by this program: if it is large, the sending machine is too busy.
      codes: how many requests ended with each gRPC status.
      texts: of each status but OK, the first text.
      versions: how many answers came from each version of the model.
      interrupted: whether it was ended before its time.
    """

    seconds: float
    requests: int
    requests_per_second: float
    latency_ms: dict[str, float]
    late_ms: float
    codes: dict[str, int]
    texts: dict[str, str]
    versions: dict[int, int]
    interrupted: bool

    @property
    def failed(self) -> int:
        """How many requests ended with an error."""
        return self.requests - self.codes.get("OK", 0)


def run(
    address: str,
    requests: Sequence[PredictRequest],
    *,
    rate: float | None = None,
    concurrency: int = 8,
    seconds: float = 10.0,
    warm_up_seconds: float = 1.0,
    seed: int = 0,
    timeout_seconds: float = 5.0,
    progress: bool = False,
    **settings: Any,
) -> Report:
    """Loads a server and measures.

    There are no retries. Ctrl-C ends it with the results so far.

    Args:
      address: `host:port` of the server's gRPC.
      requests: what is sent, in turn.
      rate: requests a second of an open loop; None for a closed one.
      concurrency: of a closed loop, how many requests run at once.
      seconds: how long it measures.
      warm_up_seconds: how long it loads before that.
      seed: of an open loop's random times.
      timeout_seconds: for one request.
      progress: whether to show progress on a terminal.
      **settings: `tls`, `compression` and `max_message_bytes` of `Client`.

    Raises:
      ServingError: when no server is there.
      ConfigError: for an argument that cannot be used.
    """
    if not requests:
        raise ConfigError("requests: wanted at least one; got none.")
    for name, value, least, fits in (
        ("rate", rate, "more than 0", rate is None or 0 < rate < np.inf),
        ("concurrency", concurrency, "1 or more", concurrency >= 1),
        ("seconds", seconds, "more than 0", 0 < seconds < np.inf),
        ("warm_up_seconds", warm_up_seconds, "0 or more", 0 <= warm_up_seconds < np.inf),
        ("timeout_seconds", timeout_seconds, "more than 0", 0 < timeout_seconds < np.inf),
    ):
        if not fits:
            raise ConfigError(f"{name}: wanted {least}; got {value}.")
    bodies = [request.SerializeToString() for request in requests]

    async def load() -> Report:
        async with open_channel(address, asynchronous=True, **settings) as channel:
            await _ready(channel, address, timeout_seconds)
            under_way = _Load(channel, bodies, warm_up_seconds, seconds, timeout_seconds)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(under_way.show(progress))
                    if rate is not None:
                        await under_way.open(group, rate, seed)
                    else:
                        for _ in range(concurrency):
                            group.create_task(under_way.closed())
            except asyncio.CancelledError:
                return under_way.report(interrupted=True)
            return under_way.report(interrupted=False)

    return asyncio.run(load())


async def _ready(channel: Any, address: str, timeout_seconds: float) -> None:
    try:
        await asyncio.wait_for(channel.channel_ready(), timeout_seconds)
    except TimeoutError:
        raise ServingError(
            f"no answer from {address} for {timeout_seconds:g} seconds. Check the address and "
            "whether the server wants TLS (--tls-ca)."
        ) from None


class _Load:
    """A running load test and its results so far."""

    def __init__(
        self,
        channel: Any,
        bodies: list[bytes],
        warm_up_seconds: float,
        seconds: float,
        timeout_seconds: float,
    ):
        # Bytes in and out: a request is encoded once, and an answer decoded after the clock stops.
        self._method = channel.unary_unary(_PREDICT)
        self._bodies = itertools.cycle(bodies)
        self._timeout_seconds = timeout_seconds
        self._start = self._last = time.perf_counter()
        self._counted = self._start + warm_up_seconds
        self._end = self._counted + seconds
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._codes: collections.Counter[str] = collections.Counter()
        self._texts: dict[str, str] = {}
        self._versions: collections.Counter[int] = collections.Counter()

    async def closed(self) -> None:
        while (now := time.perf_counter()) < self._end:
            if not await self._send(now):
                # A server that restarts should not find its cores taken by this program.
                await asyncio.sleep(_PAUSE_SECONDS)

    async def open(self, group: asyncio.TaskGroup, rate: float, seed: int) -> None:
        random = np.random.default_rng(seed)
        due = self._start
        while (due := due + random.exponential(1 / rate)) < self._end:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            group.create_task(self._send(due))

    async def _send(self, due: float) -> bool:
        sent, code, text, answer = time.perf_counter(), "OK", "", b""
        try:
            answer = await self._method(next(self._bodies), timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            code, text = error.code().name, error.details() or ""
        now = time.perf_counter()
        if due < self._counted:
            return code == "OK"
        self._last = now
        self._late.append(sent - due)
        self._codes[code] += 1
        if code == "OK":
            self._latencies.append(now - due)
            self._versions[PredictResponse.FromString(answer).model_spec.version.value] += 1
        else:
            self._texts.setdefault(code, text)
        return code == "OK"

    async def show(self, progress: bool) -> None:
        total = self._end - self._start
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        with tqdm(
            total=total, desc="load", bar_format=form, disable=None if progress else True
        ) as bar:
            while (now := time.perf_counter()) < self._end:
                bar.n = min(now - self._start, total)
                bar.set_postfix(dict(self._codes))
                await asyncio.sleep(min(_TICK_SECONDS, self._end - now))

    def report(self, *, interrupted: bool) -> Report:
        seconds = max(self._last - self._counted, 0.0)
        latency = {}
        if self._latencies:
            values = 1000 * np.percentile(self._latencies, [*_PERCENTS, 100])
            names = [*(f"p{percent}" for percent in _PERCENTS), "max"]
            latency = dict(zip(names, map(float, values), strict=True))
        return Report(
            seconds=seconds,
            requests=sum(self._codes.values()),
            requests_per_second=len(self._latencies) / seconds if seconds else 0.0,
            latency_ms=latency,
            late_ms=1000 * float(np.percentile(self._late, 99)) if self._late else 0.0,
            codes=dict(self._codes.most_common()),
            texts=self._texts,
            versions=dict(sorted(self._versions.items())),
            interrupted=interrupted,
        )
