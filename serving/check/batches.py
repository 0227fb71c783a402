"""The requests of `serving.check`: an export's examples, and their rows mixed with other rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.exporting.request_examples import Example, Examples

if TYPE_CHECKING:
    from serving.client.calls import Signature

Tensors = dict[str, NDArray[Any]]
DEFAULT = "serving_default"
_MOST_ROWS = 8


def for_default(examples: Examples, signatures: "Mapping[str, Signature]") -> list[Example]:
    """serving_default is a second name of another signature, so the examples of that one apply."""
    asked = {request.signature for request in examples.requests}
    if DEFAULT in asked or DEFAULT not in signatures:
        return []
    for name in sorted(asked):
        if signatures.get(name) == signatures[DEFAULT]:
            return [
                request._replace(signature=DEFAULT)
                for request in examples.requests
                if request.signature == name
            ]
    return []


def pools(requests: list[Example]) -> list[list[Tensors]]:
    """Groups the examples' rows by shape, as only those of one shape fit into one batch.

    Each group also gets a row of empty strings and zeros, an absent item or user, so that no row
    is only with rows like itself.
    """
    found: dict[tuple[Any, ...], list[Tensors]] = {}
    for request in requests:
        shape = tuple(sorted((name, array.shape[1:]) for name, array in request.inputs.items()))
        rows = found.setdefault(shape, [])
        num_rows = min(map(len, request.inputs.values()))
        for place in range(min(num_rows, _MOST_ROWS - len(rows))):
            rows.append({n: array[place : place + 1] for n, array in request.inputs.items()})
    for rows in found.values():
        if rows:
            rows.append({name: _blank(array) for name, array in rows[0].items()})
    return [rows for rows in found.values() if rows]


def _blank(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == object:
        return np.full(array.shape, b"", dtype=object)
    return np.zeros_like(array)


def stacked(rows: list[Tensors]) -> Tensors:
    """One batch of rows."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
