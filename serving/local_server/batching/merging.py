"""Requests merged into one batch, and its outputs cut into theirs.

Error texts and padding are TensorFlow Serving's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from grpc import StatusCode
from numpy.typing import NDArray

from serving.local_server.refusals import Refusal

Arrays = Mapping[str, NDArray[Any]]


def num_rows(arrays: Arrays) -> int:
    """Returns how many rows a request has.

    Raises:
      Refusal: when its inputs have different numbers of rows, or there are none to count.
    """
    if not arrays:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor"
        )
    if any(array.ndim == 0 for array in arrays.values()):
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            "Batching Run() input tensors must have at least one dimension",
        )
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) > 1:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT,
            "Batching Run() input tensors must have equal 0th-dimension size",
        )
    return sizes.pop()


def cut(size: int, free: int, most: int) -> Iterator[int]:
    """Returns the sizes of a request's pieces: first one for the open batch, then full batches.

    Args:
      size: rows of the request, at least 1.
      free: rows that the open batch still takes, which may be 0.
      most: rows of a batch.
    """
    if size <= free:
        yield size
        return
    if free:
        yield free
    left = size - free
    while left > 0:
        yield min(left, most)
        left -= most


def merge(parts: Sequence[Arrays], *, size: int, pad: bool) -> dict[str, NDArray[Any]]:
    """Concatenates the rows of several requests.

    Args:
      parts: the inputs of each request, by name.
      size: rows of the batch; it is padded with the first row of the last request that has any.
      pad: whether rows of different shape are padded, with the first element of their own
        request's tensor.

    Raises:
      Refusal: when the rows have different shapes and are not padded, or cannot be.
    """
    return {name: _merge_one(name, [part[name] for part in parts], size, pad) for name in parts[0]}


def _merge_one(name: str, arrays: list[NDArray[Any]], size: int, pad: bool) -> NDArray[Any]:
    if len({array.shape[1:] for array in arrays}) > 1:
        if not pad or len({array.ndim for array in arrays}) > 1:
            raise Refusal(
                StatusCode.FAILED_PRECONDITION,
                f"Tensors with name '{name}' from different tasks have different shapes and "
                "padding is turned off.Set pad_variable_length_inputs to true, or ensure that all "
                "tensors with the same namehave equal dimensions starting with the first dim.",
            )
        longest = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_padded(array, longest) for array in arrays]
    missing = size - sum(map(len, arrays))
    last = next((array for array in reversed(arrays) if len(array)), None)
    if missing > 0 and last is not None:
        arrays = [*arrays, np.repeat(last[:1], missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded(array: NDArray[Any], longest: NDArray[Any]) -> NDArray[Any]:
    shape = (len(array), *longest.tolist())
    if array.shape == shape or not len(array):
        return array.reshape(shape)
    if not array.size:
        raise Refusal(
            StatusCode.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors."
        )
    padded = np.full(shape, array.flat[0], dtype=array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded


def split(outputs: Arrays, sizes: Sequence[int], merged: Arrays) -> list[dict[str, NDArray[Any]]]:
    """Splits the outputs of a batch into those of its requests.

    Args:
      outputs: of the run, by name.
      sizes: rows of each request.
      merged: what ran, which may have more rows.

    Raises:
      Refusal: when an output does not have a row for each of the inputs.
    """
    wanted = len(next(iter(merged.values())))
    for array in outputs.values():
        if array.ndim == 0:
            raise Refusal(StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != wanted:
            raise Refusal(
                StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
                "sizes of the input tensors",
            )
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]


def joined(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Puts the outputs of a request's pieces together again."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
