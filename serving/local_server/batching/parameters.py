"""The settings of server-side batching, by the keys of TensorFlow Serving's BatchingParameters."""

import os
from typing import NamedTuple

from mmrec_tf.errors import ConfigError
from serving.local_server import config_files


class BatchingParameters(NamedTuple):
    """How requests are put into batches.

    Attributes:
      max_batch_size: rows of a request; more are refused, split or not. None for those of a batch.
      max_execution_batch_size: rows of a batch.
      batch_timeout_seconds: how long the first request of a batch waits for others.
      num_batch_threads: how many batches run at once.
      max_enqueued_batches: of one queue; more are refused.
      allowed_batch_sizes: a batch is padded to the next of these; none for no padding.
      pad_variable_length_inputs: whether rows of different shape may run together.
      enable_large_batch_splitting: whether a request of more rows than a batch is split.
      thread_pool_name: the name of the threads, also in metrics.
    """

    max_execution_batch_size: int = 1000
    batch_timeout_seconds: float = 0.0
    num_batch_threads: int = os.cpu_count() or 1
    max_enqueued_batches: int = 10
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    thread_pool_name: str = "batch_threads"
    max_batch_size: int | None = None

    @property
    def max_request_size(self) -> int:
        """Rows of a request."""
        if self.max_batch_size is None or not self.enable_large_batch_splitting:
            return self.max_execution_batch_size
        return self.max_batch_size

    def padded(self, size: int) -> int:
        """Returns the smallest allowed size of a batch that holds `size` rows."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def read(batching_parameters_file: str | os.PathLike[str]) -> BatchingParameters:
    """Reads a batching.config.

    Raises:
      ConfigError: when the file is no BatchingParameters, or its values do not go together.
    """
    message = config_files.read(batching_parameters_file, "BatchingParameters")

    def value(key: str, default: int, least: int = 1) -> int:
        found = getattr(message, key).value if message.HasField(key) else default
        if found < least:
            raise ConfigError(
                f"{batching_parameters_file}: {key}: wanted {least} or more; got {found}."
            )
        return found

    defaults = BatchingParameters()
    splitting = message.enable_large_batch_splitting.value
    largest = value("max_batch_size", defaults.max_execution_batch_size)
    limits = {"max_batch_size": largest}
    if splitting and message.HasField("max_execution_batch_size"):
        limits["max_execution_batch_size"] = value("max_execution_batch_size", largest)
    most = min(limits.values())
    sizes = tuple(message.allowed_batch_sizes)
    for limit, expected in limits.items():
        if sizes and sizes[-1] != expected:
            raise ConfigError(
                f"{batching_parameters_file}: Last entry in allowed_batch_sizes must match "
                f"{limit}; last entry was {sizes[-1]}; expected {expected}. To have larger "
                "requests split, leave allowed_batch_sizes out."
            )
    if sizes and (sizes[0] < 1 or list(sizes) != sorted(set(sizes))):
        raise ConfigError(
            f"{batching_parameters_file}: allowed_batch_sizes: wanted numbers from 1 that grow; "
            f"got {', '.join(map(str, sizes))}."
        )
    return BatchingParameters(
        max_batch_size=largest,
        max_execution_batch_size=most,
        batch_timeout_seconds=value("batch_timeout_micros", 0, least=0) / 1e6,
        num_batch_threads=value("num_batch_threads", defaults.num_batch_threads),
        max_enqueued_batches=value("max_enqueued_batches", defaults.max_enqueued_batches),
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        enable_large_batch_splitting=splitting,
        thread_pool_name=message.thread_pool_name.value or defaults.thread_pool_name,
    )
