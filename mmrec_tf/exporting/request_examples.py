"""Example requests with their answers, as an export carries them and `serving.check` replays them.

One JSON file in each version folder, beside the warm-up records:

    EXPORT/recommender/1/assets.extra/examples.json
    {"servable": "recommender", "version": 1, "tolerance": {"rtol": 1e-4, "atol": 1e-5},
     "requests": [{"signature": "recommend", "inputs": {"user_id": TENSOR, ...},
                   "outputs": {"item_id": TENSOR, "score": TENSOR}}, ...]}

    TENSOR = {"dtype": "float32", "shape": [2, 10], "values": [...]}   row-major, flat

Strings are bytes to TensorFlow, so they stand as base64. A float32 is written as the double of
the same value and reads back bit for bit. half and bfloat16 have no form here, as they have none
in REST: an export must not answer with them.
"""

import base64
import binascii
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.errors import ExportError

EXAMPLES_FILE = "assets.extra/examples.json"
RTOL = 1e-4
ATOL = 1e-5

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float32", "float64")
_DTYPES = ("string", "bool", *_FLOATS, *_INTEGERS)
_MOST_SHOWN = 3


class Example(NamedTuple):
    """One request and the answer that the export gave when it was written.

    `inputs` and `outputs` map a tensor's public name to its array; strings are object arrays of
    bytes.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class Examples(NamedTuple):
    """What one `examples.json` holds."""

    servable: str
    version: int
    rtol: float
    atol: float
    requests: list[Example]


def as_array(value: Any) -> np.ndarray:
    """Makes an array in which strings are an object array of bytes.

    NumPy's own string forms would cut trailing zero bytes, and a picture may end in them.

    Args:
      value: an array, or numbers, booleans, str or bytes, nested evenly.

    Raises:
      ValueError: for ragged nesting, or a mixture of strings and anything else.
    """
    array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=object)
    if array.dtype.kind not in "OSU":
        return array
    elements = array.ravel().tolist()
    if not isinstance(value, np.ndarray) and not any(isinstance(e, str | bytes) for e in elements):
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.size:
            raise ValueError(f"wanted numbers, str or bytes; got {elements[0]!r:.60}")
        return array
    flat = np.empty(array.size, dtype=object)
    for place, element in enumerate(elements):
        is_text = isinstance(element, str)
        flat[place] = element.encode("utf-8", "surrogateescape") if is_text else element
        if not isinstance(flat[place], bytes):
            raise ValueError(f"wanted str or bytes; got {element!r:.60}")
    return flat.reshape(array.shape)


def encode_tensor(array: Any) -> dict[str, Any]:
    """Returns the JSON form of an array of numbers, booleans, str or bytes of any shape.

    Raises:
      ExportError: for a dtype without a JSON form, or a float that is not finite.
    """
    try:
        array = as_array(array)
    except ValueError as error:
        raise ExportError(f"a tensor cannot be made of this: {error}.") from error
    dtype = _dtype_name(array)
    if dtype not in _DTYPES:
        raise ExportError(
            f"a tensor of {dtype} has no JSON form; wanted one of {', '.join(_DTYPES)}. "
            "Cast it in the exported graph."
        )
    values = array.ravel().tolist()
    if dtype == "string":
        values = [base64.b64encode(value).decode("ascii") for value in values]
    elif dtype in _FLOATS and not all(map(math.isfinite, values)):
        raise ExportError(
            f"a tensor of {dtype}{list(array.shape)} holds NaN or infinity; an example needs "
            "finite numbers. Look for a division by zero or an empty mean in the exported graph."
        )
    return {"dtype": dtype, "shape": list(array.shape), "values": values}


def decode_tensor(tensor: Mapping[str, Any]) -> np.ndarray:
    """Returns the array of a tensor's JSON form; strings as an object array of bytes.

    Raises:
      ExportError: when the form is not exactly that of `encode_tensor`.
    """
    if not isinstance(tensor, Mapping) or set(tensor) != {"dtype", "shape", "values"}:
        keys = sorted(tensor) if isinstance(tensor, Mapping) else type(tensor).__name__
        raise ExportError(f"a tensor needs exactly dtype, shape and values; got {keys}.")
    dtype, shape, values = tensor["dtype"], tensor["shape"], tensor["values"]
    if dtype not in _DTYPES:
        raise ExportError(f"unknown dtype {dtype!r}; wanted one of {', '.join(_DTYPES)}.")
    if not isinstance(shape, list) or not all(_is_integer(size) and size >= 0 for size in shape):
        raise ExportError(f"a shape is a list of sizes; got {shape!r}.")
    if not isinstance(values, list) or len(values) != math.prod(shape):
        count = len(values) if isinstance(values, list) else type(values).__name__
        raise ExportError(f"shape {shape} needs {math.prod(shape)} values; got {count}.")
    if dtype == "string":
        array = np.empty(len(values), dtype=object)
        array[:] = [_decode_string(value) for value in values]
        return array.reshape(shape)
    fits = _is_bool if dtype == "bool" else _is_number if dtype in _FLOATS else _is_within
    wrong = [value for value in values if not fits(value, dtype)]
    if wrong:
        raise ExportError(f"{wrong[0]!r} is not a {dtype}.")
    return np.array(values, dtype=dtype).reshape(shape)


def examples_path(version_folder: str | os.PathLike) -> pathlib.Path:
    """Returns where a version folder (`EXPORT/recommender/1`) keeps its examples."""
    return pathlib.Path(version_folder) / EXAMPLES_FILE


def write_examples(
    path: str | os.PathLike,
    requests: Sequence[Example],
    *,
    servable: str,
    version: int,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    """Writes requests and answers as one JSON file; makes its folder.

    Raises:
      ExportError: for an answer without a JSON form; the message names the tensor.
    """
    document = {
        "servable": servable,
        "version": version,
        "tolerance": {"rtol": rtol, "atol": atol},
        "requests": [
            {
                "signature": request.signature,
                "inputs": _encode_all(request.inputs, f"{servable}/{request.signature}"),
                "outputs": _encode_all(request.outputs, f"{servable}/{request.signature}"),
            }
            for request in requests
        ],
    }
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")


def read_examples(path: str | os.PathLike) -> Examples:
    """Reads what `write_examples` wrote.

    Raises:
      ExportError: when the file is missing or damaged.
    """
    again = 'Export again with "mmrec-tf export".'
    try:
        document = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path}: no examples here. {again}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: wanted JSON; {error}. {again}") from error
    try:
        tolerance = document["tolerance"]
        return Examples(
            servable=str(document["servable"]),
            version=int(document["version"]),
            rtol=float(tolerance["rtol"]),
            atol=float(tolerance["atol"]),
            requests=[
                Example(
                    signature=str(request["signature"]),
                    inputs=_decode_all(request["inputs"]),
                    outputs=_decode_all(request["outputs"]),
                )
                for request in document["requests"]
            ],
        )
    except KeyError as error:
        raise ExportError(f"{path}: {error} is missing. {again}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ExportError(f"{path}: not the form of an examples file; {error}. {again}") from error
    except ExportError as error:
        raise ExportError(f"{path}: {error} {again}") from error


def compare(
    actual: Mapping[str, Any], expected: Mapping[str, Any], *, rtol: float, atol: float
) -> list[str]:
    """Says how an answer differs from the expected one.

    Floats may differ by `atol + rtol * |expected|`; everything else must be equal. Items of a list
    whose scores differ by no more than that may have changed places, and others of the same score
    may stand at the end of the list, where it cuts through them.

    Args:
      actual: the tensors that came, by name.
      expected: the tensors that were wanted, by name.
      rtol: relative tolerance of floats.
      atol: absolute tolerance of floats.

    Returns:
      One line for each tensor that differs; empty when all agree.
    """
    differences = []
    actual, expected = _without_ties(actual, expected, rtol=rtol, atol=atol)
    for name in sorted({*actual, *expected}):
        if name not in actual:
            differences.append(f"{name}: missing")
        elif name not in expected:
            differences.append(f"{name}: not wanted")
        else:
            difference = _compare_arrays(
                as_array(actual[name]), as_array(expected[name]), rtol=rtol, atol=atol
            )
            if difference:
                differences.append(f"{name}{difference}")
    return differences


def _without_ties(
    actual: Mapping[str, Any], expected: Mapping[str, Any], *, rtol: float, atol: float
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both answers, lists of items brought into one order where scores tie."""
    if not all({"item_id", "score"} <= set(answer) for answer in (actual, expected)):
        return actual, expected
    got, wanted = ({n: as_array(v) for n, v in answer.items()} for answer in (actual, expected))
    shape = wanted["item_id"].shape
    parts = [wanted["score"], got["item_id"], got["score"]]
    if len(shape) != 2 or any(part.shape != shape for part in parts):
        return actual, expected
    if not np.isclose(got["score"], wanted["score"], rtol=rtol, atol=atol).all():
        return actual, expected
    columns = [
        name
        for name in got.keys() & wanted.keys()
        if got[name].shape == wanted[name].shape == shape and got[name].dtype == wanted[name].dtype
    ]
    got = {name: value.copy() if name in columns else value for name, value in got.items()}
    for row in np.flatnonzero((got["item_id"] != wanted["item_id"]).any(axis=1)):
        for places in _tied(wanted["score"][row], rtol=rtol, atol=atol):
            last = wanted["score"][row, places].min() <= wanted["score"][row].min()
            ids, others = wanted["item_id"][row, places], got["item_id"][row, places]
            place_of = dict(zip(others.tolist(), places, strict=True))
            strangers = [place for place, one in zip(places, others, strict=True) if one not in ids]
            source = [place_of.get(one, -1) for one in ids.tolist()]
            if len(strangers) != source.count(-1) or (strangers and not (last and all(others))):
                continue
            moved = [strangers.pop() if place < 0 else place for place in source]
            for name in columns:
                got[name][row, places] = got[name][row, moved]
                # Nobody knows what would have been said of those.
                unknown = places[np.array(source) < 0]
                got[name][row, unknown] = wanted[name][row, unknown]
    return got, expected


def _tied(score: np.ndarray, *, rtol: float, atol: float) -> list[np.ndarray]:
    """The places of a row by score: those in one array may have changed places."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order].astype(np.float64)
    apart = ordered[:-1] - ordered[1:] > 2 * (atol + rtol * np.abs(ordered[1:]))
    return np.split(order, np.flatnonzero(apart) + 1)


def _compare_arrays(actual: np.ndarray, expected: np.ndarray, *, rtol: float, atol: float) -> str:
    got, wanted = _dtype_name(actual), _dtype_name(expected)
    if got != wanted:
        return f": wanted {wanted}, got {got}"
    if actual.shape != expected.shape:
        return f": wanted shape {list(expected.shape)}, got {list(actual.shape)}"
    if wanted in _FLOATS:
        equal = np.isclose(actual, expected, rtol=rtol, atol=atol)
    else:
        equal = np.asarray(actual == expected, dtype=bool)
    if equal.all():
        return ""
    places = np.argwhere(~equal)
    shown = "; ".join(
        f"{list(map(int, place))}: wanted {_show(expected[tuple(place)])}, "
        f"got {_show(actual[tuple(place)])}"
        for place in places[:_MOST_SHOWN]
    )
    return f" differs at {len(places)} of {equal.size}: {shown}"


def _dtype_name(array: np.ndarray) -> str:
    return "string" if array.dtype == object else array.dtype.name


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "backslashreplace")[:60])
    return str(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_within(value: Any, dtype: str) -> bool:
    return _is_integer(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _is_number(value: Any, dtype: str) -> bool:
    return _is_integer(value) or isinstance(value, float)


def _is_bool(value: Any, dtype: str) -> bool:
    return isinstance(value, bool)


def _decode_string(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ExportError(f"{value!r:.60} is not base64.") from error


def _encode_all(tensors: Mapping[str, Any], place: str) -> dict[str, dict[str, Any]]:
    encoded = {}
    for name, array in tensors.items():
        try:
            encoded[name] = encode_tensor(array)
        except ExportError as error:
            raise ExportError(f"{place}: {name}: {error}") from error
    return encoded


def _decode_all(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    decoded = {}
    for name, tensor in tensors.items():
        try:
            decoded[name] = decode_tensor(tensor)
        except ExportError as error:
            raise ExportError(f"{name}: {error}") from error
    return decoded
