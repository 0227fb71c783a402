"""The server's metrics, in Prometheus' text format, under TensorFlow Serving's names.

A `/` in a name becomes `:`. Prometheus' own client library cannot write these counters: it ends the
name of each with `_total`.
"""

import bisect
import os
import threading
from collections.abc import Iterable

from serving.local_server import config_files

# Callers choose the names of models that they ask for; behind so many all others count together.
_MOST_CELLS = 1000
_OTHER = "(other)"
DEFAULT_PATH = "/monitoring/prometheus/metrics"


class Counter:
    """How often something happened, for each combination of its labels."""

    def __init__(self, name: str, *labels: str):
        self.name = name.replace("/", ":")
        self._labels = labels
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *values: str) -> None:
        """Counts one, under the values of the labels."""
        with self._lock:
            if values not in self._counts and len(self._counts) >= _MOST_CELLS:
                values = (_OTHER,) * len(values)
            self._counts[values] = self._counts.get(values, 0) + 1

    def total(self) -> int:
        """Returns the sum over all labels."""
        with self._lock:
            return sum(self._counts.values())

    def lines(self) -> list[str]:
        """Returns the metric as it is written."""
        with self._lock:
            counts = sorted(self._counts.items())
        return [
            f"# TYPE {self.name} counter",
            *(f"{self.name}{{{_written(self._labels, key)}}} {count}" for key, count in counts),
        ]


class Histogram:
    """A histogram: how often a value fell below each limit, and the sum of all values."""

    def __init__(self, name: str, *labels: str, limits: Iterable[float]):
        self.name = name.replace("/", ":")
        self._labels = labels
        self._limits = list(limits)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *values: str) -> None:
        """Counts a value, under the values of the labels."""
        place = bisect.bisect_left(self._limits, value)
        with self._lock:
            counts = self._counts.setdefault(values, [0] * (len(self._limits) + 1))
            counts[place] += 1
            self._sums[values] = self._sums.get(values, 0.0) + value

    def lines(self) -> list[str]:
        """Returns the metric as it is written."""
        with self._lock:
            cells = [(key, [*row], self._sums[key]) for key, row in sorted(self._counts.items())]
        lines = [f"# TYPE {self.name} histogram"]
        limits = [*(f"{limit:g}" for limit in self._limits), "+Inf"]
        for key, counts, total in cells:
            written = _written(self._labels, key)
            below = 0
            for limit, count in zip(limits, counts, strict=True):
                below += count
                cell = f'{written},le="{limit}"' if written else f'le="{limit}"'
                lines.append(f"{self.name}_bucket{{{cell}}} {below}")
            lines.append(f"{self.name}_sum{{{written}}} {total:.9g}")
            lines.append(f"{self.name}_count{{{written}}} {below}")
        return lines


class Metrics:
    """All metrics of one server. Latencies are in microseconds."""

    def __init__(self) -> None:
        latencies = [10 * 1.8**power for power in range(33)]  # Up to about 20 minutes.
        waits = [100 * 1.2**power for power in range(52)]  # Up to about a second.
        self.load_attempt_count = Counter(
            "/tensorflow/cc/saved_model/load_attempt_count", "model_path", "status"
        )
        self.batching_queuing_latency = Histogram(
            "/tensorflow/serving/batching_session/queuing_latency", "thread_pool_name", limits=waits
        )
        self.batching_run_count = Counter("/tensorflow/serving/batching_session/wrapped_run_count")
        self.model_warmup_latency = Histogram(
            "/tensorflow/serving/model_warmup_latency", "model_path", "status", limits=latencies
        )
        self.request_count = Counter("/tensorflow/serving/request_count", "model_name", "status")
        self.request_latency = Histogram(
            "/tensorflow/serving/request_latency",
            "model_name",
            "API",
            "entrypoint",
            limits=latencies,
        )
        self.runtime_latency = Histogram(
            "/tensorflow/serving/runtime_latency",
            "model_name",
            "API",
            "runtime",
            limits=latencies,
        )

    def total(self, name: str) -> int:
        """Returns the sum of a counter, asked for with `/` in its name; 0 for all other names."""
        return sum(
            metric.total()
            for metric in vars(self).values()
            if isinstance(metric, Counter) and metric.name == name.replace("/", ":")
        )

    def text(self) -> str:
        """Returns the page that Prometheus reads."""
        metrics: list[Counter | Histogram] = list(vars(self).values())
        metrics.sort(key=lambda metric: metric.name)
        return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def read_path(monitoring_config: str | os.PathLike[str]) -> str | None:
    """Reads the path of the metrics; None if they are off.

    Raises:
      ConfigError: when the file is no MonitoringConfig.
    """
    prometheus = config_files.read(monitoring_config, "MonitoringConfig").prometheus_config
    return (prometheus.path or DEFAULT_PATH) if prometheus.enable else None


def _written(labels: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(
        f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
