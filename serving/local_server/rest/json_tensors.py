"""JSON <-> NumPy, in the form of TensorFlow Serving's REST interface.

A request is either in row form, `{"instances": [...]}`, or columnar, `{"inputs": ...}`, and its
answer comes in the same form. Strings are JSON strings or `{"b64": "..."}`. Nothing of a request
reaches a protocol buffer's JSON parser.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from grpc import StatusCode
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from serving import tensors
from serving.local_server.limits import (
    MOST_DIMENSIONS,
    MOST_JSON_ELEMENTS,
    MOST_JSON_ROWS,
    MOST_TEXT_BYTES,
)
from serving.local_server.refusals import Refusal

_BINARY_SUFFIX = "_bytes"
_MOST_SHOWN_BYTES = 256
# Rows of an answer that are written at a time.
_ROWS = 1024
_NAMES = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
# What Python's parser complains of, as the real server's parser says it.
_REASONS = {
    "Expecting property name": "Missing a name for object member.",
    "Expecting ':'": "Missing a colon after a name of object member.",
    "Expecting ','": "Missing a comma or } after an object member.",
    "Illegal trailing comma": "Invalid value.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX": "Incorrect hex digit after \\u escape in string.",
}


class Request(NamedTuple):
    """A parsed body: `row` says which form it had, and so which form the answer takes."""

    signature_name: str
    document: dict[str, Any]


def parse(body: bytes) -> Request:
    """Reads a request's body; text after the closing brace does not count.

    Raises:
      Refusal: when it is no JSON object, or `signature_name` is no string.
    """
    # As bytes for as long as can be: a text with one rare character takes four times as much.
    if not body.strip():
        raise _invalid("JSON Parse error: The document is empty")
    _check_elements(body)
    if re.search(rb"\bInf\b", body):
        body = _spell_infinity(body)
    # Bytes that are no UTF-8 pass through as they are, as in the real server.
    text = body.lstrip().decode("utf-8", "surrogateescape")
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        reasons = (reason for start, reason in _REASONS.items() if error.msg.startswith(start))
        raise _invalid(
            f"JSON Parse error: {next(reasons, 'Invalid value.')} at offset: {error.pos}"
        ) from error
    except (RecursionError, ValueError) as error:  # Nested too deep; a number of too many digits.
        raise _invalid(f"JSON Parse error: {error} at offset: 0") from error
    if not isinstance(document, dict):
        raise _invalid(f"{_shown(document)} Is not object")
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise _invalid(
            f"{_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return Request(signature_name, document)


def read_inputs(
    document: Mapping[str, Any], dtypes: Mapping[str, int]
) -> tuple[dict[str, NDArray[Any]], bool]:
    """Makes the tensors of a request.

    Args:
      document: the parsed body.
      dtypes: the DataType of each of the signature's inputs.

    Returns:
      The tensors by name, and whether the request is in row form.

    Raises:
      Refusal: when the body does not fit the inputs.
    """
    row, columnar = "instances" in document, "inputs" in document
    if row and columnar:
        raise _invalid(
            f"{_shown(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if columnar:
        return _read_columns(document["inputs"], dtypes), False
    if not row:
        raise _invalid("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        raise _invalid(f"{_shown(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise _invalid(f"{_shown(document)} No values in 'instances' array")
    if len(instances) > MOST_JSON_ROWS:
        raise _invalid(f"More than {MOST_JSON_ROWS} values in 'instances' array")
    return _read_rows(instances, dtypes), True


def write_outputs(outputs: Mapping[str, NDArray[Any]], *, row: bool) -> bytes:
    """Writes an answer as `{"predictions": [...]}` or `{"outputs": ...}`.

    A signature with one output gives bare values, one with several gives objects.

    Raises:
      Refusal: when a dtype has no JSON form, or rows cannot be told apart.
    """
    for array in outputs.values():
        enum = tensors.enum_of(array)
        if enum not in tensors.JSON_TYPES:
            raise _invalid(f"Failed to write JSON value for tensor type: {tensors.type_name(enum)}")
    names = sorted(outputs)
    if not row:
        values = {name: _to_json(name, outputs[name]) for name in names}
        return to_bytes({"outputs": values[names[0]] if len(names) == 1 else values})
    _check_rows(outputs)
    bare = len(names) == 1
    rows = []
    for start in range(0, len(outputs[names[0]]), _ROWS):
        # Some at a time, as numbers and texts of Python take many times what is written of them.
        some = {name: _to_json(name, outputs[name][start : start + _ROWS]) for name in names}
        if bare:
            rows += [_on_a_line(value, 2) for value in some[names[0]]]
            continue
        rows += [
            b",".join(
                b"\n%s%s: %s" % (b" " * 12, _written(name), _on_a_line(value, 3))
                for name, value in zip(names, values_of_row, strict=True)
            )
            for values_of_row in zip(*some.values(), strict=True)
        ]
    return _written_rows(rows, bare=bare)


def to_bytes(document: Any, *, indent: int = 4) -> bytes:
    """Returns JSON as the server writes it, with bare NaN and infinities."""
    # Part by part: as one text, or as a list of all parts, it could take many times the memory.
    written = bytearray()
    for part in json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(document):
        written += part.encode("utf-8", "surrogateescape")
    return bytes(written)


def _read_columns(value: Any, dtypes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    if not _is_named(value):
        if len(dtypes) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        return {name: _dense(value, dtype) for name, dtype in dtypes.items()}
    arrays = {}
    for name, dtype in sorted(dtypes.items()):
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _dense(value[name], dtype)
    return arrays


def _read_rows(instances: list[Any], dtypes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    named = _is_named(instances[0])
    elements: dict[str, list[NDArray[Any]]] = {name: [] for name in dtypes}
    for place, instance in enumerate(instances):
        if named != _is_named(instance):
            raise _invalid(
                f"Expecting object but got list at item {place} of input list"
                if named
                else f"Expecting value/list but got object at item {place} of input list"
            )
        failed = f"Failed to process element: {place}"
        if not named:
            (name,) = dtypes
            _add_element(f"{failed} of 'instances' list.", name, instance, dtypes, elements)
            continue
        for name, value in instance.items():
            key = f"{failed} key: {name} of 'instances' list."
            _add_element(key, name, value, dtypes, elements)
        if set(instance) != set(dtypes):
            raise _invalid(
                f"{failed} of 'instances' list. JSON object: {_text(instance)} keys must be "
                f"equal to: {','.join(sorted(dtypes))}"
            )
    return {name: np.stack(arrays) for name, arrays in elements.items()}


def _add_element(
    failed: str,
    name: str,
    value: Any,
    dtypes: Mapping[str, int],
    elements: Mapping[str, list[NDArray[Any]]],
) -> None:
    try:
        if name not in dtypes:
            raise _invalid(f"JSON object: does not have named input: {name}")
        array = _dense(value, dtypes[name])
        if elements[name]:
            _check_like(array, elements[name][0])
    except Refusal as refusal:
        raise _invalid(f"{failed} Error: INVALID_ARGUMENT: {refusal.text}") from refusal
    elements[name].append(array)


def _check_like(array: NDArray[Any], first: NDArray[Any]) -> None:
    if array.size != first.size:
        raise _invalid(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        raise _invalid(f"Expecting shape {_shape(first)} but got: {_shape(array)}")


def _dense(value: Any, enum: int) -> NDArray[Any]:
    """Makes one tensor; the first element of each list says how long its neighbors must be."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    if len(shape) > MOST_DIMENSIONS:
        raise _invalid(f"A list is nested {len(shape)} deep; tensors have up to {MOST_DIMENSIONS}")
    flat: list[Any] = []
    _fill(value, enum, shape, 0, flat)
    dtype = tensors.numpy_dtype(enum)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=np.float64).astype(dtype).reshape(shape)
    array = np.empty(len(flat), dtype=dtype)
    array[:] = flat
    return array.reshape(shape)


def _fill(value: Any, enum: int, shape: list[int], level: int, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise _invalid(
                f"{_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        flat.append(_leaf(value, enum))
        return
    if level >= len(shape):
        raise _invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, enum, shape, level + 1, flat)


def _leaf(value: Any, enum: int) -> Any:
    if enum == types_pb2.DT_STRING:
        if isinstance(value, dict):
            return _from_base64(value)
        fits = isinstance(value, str)
    elif enum == types_pb2.DT_BOOL:
        fits = isinstance(value, bool)
    elif enum in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif enum in tensors.JSON_TYPES:
        limits = np.iinfo(tensors.numpy_dtype(enum))
        fits = isinstance(value, int) and not isinstance(value, bool)
        fits = fits and limits.min <= value <= limits.max
    else:
        raise Refusal(
            StatusCode.UNIMPLEMENTED,
            f"Conversion of {_shown(value)} to type: {tensors.type_name(enum)}",
        )
    if not fits:
        raise _invalid(
            f"{_shown(value)} Type: {_type(value)} is not of expected type: "
            f"{tensors.type_name(enum)}"
        )
    if enum == types_pb2.DT_STRING:
        return _from_text(value)
    # An integer beyond a double's range is infinite in JSON's own number type.
    if isinstance(value, int) and abs(value) > 2**1023 and not isinstance(value, bool):
        return math.copysign(math.inf, value)
    return value


def _from_text(value: str) -> bytes:
    if len(value) <= MOST_TEXT_BYTES:  # Before it is copied.
        try:
            encoded = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise _invalid(
                "JSON Parse error: The surrogate pair in string is invalid. at offset: 0"
            ) from error
        if len(encoded) <= MOST_TEXT_BYTES:
            return encoded
    raise _invalid(
        f"A string has more than {MOST_TEXT_BYTES} bytes; larger content is sent as base64"
    )


def _from_base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise _invalid(f"{_shown(value)} not formatted correctly for base64 data")
    packed = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _written_rows(rows: list[bytes], *, bare: bool) -> bytes:
    """Rows as the real server lays them out: the lists of each on one line."""
    if bare:
        text = b", ".join(rows)
    else:
        text = b",".join(b"\n%s{%s\n%s}" % (b" " * 8, row, b" " * 8) for row in rows)
    end = b"\n" + b" " * 4 if rows else b""
    return b'{\n%s"predictions": [%s%s]\n}' % (b" " * 4, text, end)


def _on_a_line(value: Any, level: int) -> bytes:
    """A value of a row; an object, such as that of bytes, takes lines all the same."""
    if isinstance(value, list):
        return b"[%s]" % b", ".join(_on_a_line(one, level + 1) for one in value)
    if isinstance(value, dict):
        inner, outer = b" " * 4 * (level + 1), b" " * 4 * level
        (name,) = value
        return b"{\n%s%s: %s\n%s}" % (inner, _written(name), _written(value[name]), outer)
    return _written(value)


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _check_rows(outputs: Mapping[str, NDArray[Any]]) -> None:
    expected = None
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        if expected is not None and len(array) != expected:
            raise _invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {expected}"
            )
        expected = len(array)


def _to_json(name: str, array: NDArray[Any]) -> Any:
    flat = array.ravel()
    values: list[Any]
    if array.dtype == object and name.endswith(_BINARY_SUFFIX):
        values = [{"b64": base64.b64encode(value).decode("ascii")} for value in flat]
    elif array.dtype == object:
        values = [value.decode("utf-8", "surrogateescape") for value in flat]
    elif array.dtype == np.float32:
        # The shortest digits that read back as this float32; as a double it would show noise.
        values = [float(digits) for digits in flat.astype(str)]
    else:
        values = flat.tolist()
    nested = np.empty(len(values), dtype=object)
    nested[:] = values
    return nested.reshape(array.shape).tolist()


def _check_elements(text: bytes) -> None:
    """Refuses a document of too many parts, each of which takes far more memory than its text."""

    def count(text: bytes) -> int:
        return sum(text.count(sign) for sign in (b",", b"[", b"{"))

    most = MOST_JSON_ELEMENTS
    many = text.count(b"\\") > 2 * most or text.count(b'"') > 8 * most
    # Commas within strings, which are none, are told apart only where it matters.
    if many or (count(text) > most and count(b"".join(_by_quotes(text)[::2])) > most):
        raise _invalid(f"JSON Parse error: more than {most} elements at offset: 0")


def _by_quotes(text: bytes) -> list[bytes]:
    """Text between quotation marks, and within them in every second place, with another sign for
    what a backslash escapes. Each step reads the text once: a pattern that tries from every
    quotation mark to the end would take the square of its length."""
    return text.replace(b"\\\\", b"\0\0").replace(b'\\"', b"\0\0").split(b'"')


def _spell_infinity(text: bytes) -> bytes:
    """Writes Inf, where it is no part of a string, as Python's parser reads it."""
    written, end = [], 0
    for place, part in enumerate(_by_quotes(text)):
        start, end = end, end + len(part) + 1
        whole = text[start:end]
        if place % 2 == 0 and b"Inf" in part:
            whole = re.sub(rb"\bInf\b", b"Infinity", whole)
        written.append(whole)
    return b"".join(written)


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    return _NAMES.get(type(value), "Number")


def _text(value: Any) -> str:
    """Returns a value for a message, cut as the real server cuts it."""
    written = b""
    # Part by part, as all of a large document would take long to write.
    for part in json.JSONEncoder(ensure_ascii=False, indent=4).iterencode(value):
        written += part[:_MOST_SHOWN_BYTES].encode("utf-8", "replace")
        if len(written) >= _MOST_SHOWN_BYTES:
            break
    return written[:_MOST_SHOWN_BYTES].decode("utf-8", "ignore")


def _shown(value: Any) -> str:
    return f"JSON Value: {_text(value)}"


def _shape(array: NDArray[Any]) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _invalid(text: str) -> Refusal:
    return Refusal(StatusCode.INVALID_ARGUMENT, text)
