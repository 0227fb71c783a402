"""TensorProto <-> NumPy, in both encodings.

TensorFlow Serving answers with typed fields (`float_val`, `string_val`, ...) or, when it was
started with `--enable_serialization_as_tensor_content`, with packed bytes (`tensor_content`).
TensorFlow's own `make_ndarray` cannot read strings in the second form, so both are read here.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

from mmrec_tf.exporting import request_examples as examples

# DataType -> (NumPy dtype, its typed field).
_FIELDS: dict[int, tuple[Any, str]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_HALF: (np.float16, "half_val"),
    types_pb2.DT_BFLOAT16: (ml_dtypes.bfloat16, "half_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_UINT16: (np.uint16, "int_val"),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val"),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
}
# Fields whose values are wider than the tensor's type may be.
_WIDE = {"int_val": np.int32}
_BY_DTYPE = {np.dtype(dtype): enum for enum, (dtype, _) in _FIELDS.items()}
# Only these are written by the REST interface; half, bfloat16 and uint16 are not.
JSON_TYPES = frozenset(
    {
        types_pb2.DT_FLOAT,
        types_pb2.DT_DOUBLE,
        types_pb2.DT_INT8,
        types_pb2.DT_INT16,
        types_pb2.DT_INT32,
        types_pb2.DT_INT64,
        types_pb2.DT_UINT8,
        types_pb2.DT_UINT32,
        types_pb2.DT_UINT64,
        types_pb2.DT_BOOL,
        types_pb2.DT_STRING,
    }
)
# Elements of a tensor: packed as bytes, with a value each, and strings, which take more and more.
_MOST_ELEMENTS = 2**26
_MOST_VALUES = 2**24
MOST_STRINGS = 2**22
# One value stands for a whole tensor, so a few bytes may claim any amount of memory: so many
# elements, and bytes of strings, are made of fewer values than there are elements.
_MOST_REPEATED = 2**22
_MOST_REPEATED_STRINGS = 2**20
_MOST_REPEATED_BYTES = 2**26


def type_name(enum: int) -> str:
    """Returns the name that TensorFlow's messages use: `float`, `double`, `half`, `string`..."""
    return str(types_pb2.DataType.Name(enum)).removeprefix("DT_").lower()


def numpy_dtype(enum: int) -> np.dtype[Any]:
    """Returns the NumPy dtype of a DataType; object for strings.

    Raises:
      ValueError: for a type without one here (complex, quantized, resource...).
    """
    if enum not in _FIELDS:
        raise ValueError(f"tensors of type {type_name(enum)} are not supported")
    return np.dtype(_FIELDS[enum][0])


def enum_of(array: NDArray[Any]) -> int:
    """Returns the DataType of an array; object arrays are strings.

    Raises:
      ValueError: for a dtype without one here.
    """
    try:
        return _BY_DTYPE[array.dtype]
    except KeyError:
        raise ValueError(f"arrays of {array.dtype} are not supported") from None


def as_array(value: Any) -> NDArray[Any]:
    """Makes an array of a caller's value as `tf.constant` would: float32 and strings of bytes.

    Args:
      value: an array, which keeps its dtype; or numbers, booleans, str or bytes, nested evenly.
        Python floats become float32 and integers int64.

    Raises:
      ValueError: for ragged nesting, or a mixture of types.
    """
    array = examples.as_array(value)
    if not isinstance(value, np.ndarray | np.generic) and array.dtype == np.float64:
        return array.astype(np.float32)
    return array


def to_proto(array: NDArray[Any], *, packed: bool = False) -> tensor_pb2.TensorProto:
    """Encodes an array.

    Args:
      array: any shape, a dtype of `numpy_dtype`; strings as an object array of bytes.
      packed: numbers as `tensor_content`, which is many times faster for large ones; strings
        always go as `string_val`, the only form that every decoder reads.

    Raises:
      ValueError: for a dtype that is not supported.
    """
    enum = enum_of(array)
    proto = tensor_pb2.TensorProto(dtype=enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _FIELDS[enum][1]
    if field == "string_val":
        proto.string_val.extend(array.ravel().tolist())
    elif packed:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        proto.tensor_content = np.ascontiguousarray(little).tobytes()
    elif field == "half_val":
        proto.half_val.extend(np.ascontiguousarray(array).view(np.uint16).ravel().tolist())
    else:
        getattr(proto, field).extend(array.ravel().tolist())
    return proto


def from_proto(proto: tensor_pb2.TensorProto) -> NDArray[Any]:
    """Decodes a TensorProto of either encoding.

    If there are too few typed values, the last one is repeated, as in TensorFlow: one value stands
    for the whole tensor.

    Returns:
      An array, never read-only; strings as an object array of bytes.

    Raises:
      ValueError: when the bytes do not fit the shape, or the type is not supported.
    """
    dtype = numpy_dtype(proto.dtype)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("the shape is not fully known")
    count = math.prod(shape)
    if count > _MOST_ELEMENTS:
        raise ValueError(f"{count} elements are too many")
    if proto.tensor_content:
        if dtype.kind == "O":
            return _unpack_strings(proto.tensor_content, count).reshape(shape)
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise ValueError(f"{len(proto.tensor_content)} bytes do not fit shape {shape}")
        packed = np.frombuffer(proto.tensor_content, dtype=dtype.newbyteorder("<"))
        return packed.astype(dtype).reshape(shape)
    return _unpack_values(proto, dtype, count).reshape(shape)


def _unpack_values(proto: tensor_pb2.TensorProto, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    field = _FIELDS[proto.dtype][1]
    given = len(getattr(proto, field))
    if count > (MOST_STRINGS if dtype.kind == "O" else _MOST_VALUES):
        raise ValueError(f"{count} values are too many")
    most = _MOST_REPEATED_STRINGS if dtype.kind == "O" else _MOST_REPEATED
    if given < count and count > most:
        raise ValueError(f"{given} values are too few for {count} elements")
    values = getattr(proto, field)[:count]
    if dtype.kind == "O" and values and (count - given) * len(values[-1]) > _MOST_REPEATED_BYTES:
        raise ValueError(f"{len(values[-1])} bytes are too many to repeat")
    array = np.empty(count, dtype=dtype)
    if field == "half_val":
        bits = np.array(values, dtype=np.uint16)
        filled, last = bits.view(dtype), dtype.type(0)
    elif dtype.kind == "O":
        filled, last = np.empty(len(values), dtype=object), b""
        filled[:] = values
    else:
        filled, last = np.array(values, _WIDE.get(field, dtype)).astype(dtype), dtype.type(0)
        # NumPy drops the bits of a number that do not fit.
        if field in _WIDE and (filled != values).any():
            raise ValueError(f"a value does not fit into {dtype}")
    array[: len(filled)] = filled
    array[len(filled) :] = filled[-1] if len(filled) else last
    return array


def _unpack_strings(content: bytes, count: int) -> NDArray[Any]:
    """Reads TensorFlow's packed strings: all lengths as varints, then all bytes."""
    lengths, place = [], 0
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if place >= len(content) or shift > 63:
                raise ValueError(f"{len(content)} bytes do not hold {count} strings")
            byte = content[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if place + sum(lengths) != len(content):
        raise ValueError(f"{len(content)} bytes do not hold {count} strings")
    strings = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        strings[index] = content[place : place + length]
        place += length
    return strings
