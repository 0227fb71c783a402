"""Tensors on the wire, in both of TensorFlow's encodings."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving import tensors

NUMBERS = [
    *(np.array([[0, 1, 2], [3, 4, 127]], kind) for kind in ("int8", "int16", "int32", "int64")),
    *(np.array([[0, 1, 255]], kind) for kind in ("uint8", "uint16", "uint32", "uint64")),
    *(np.array([0.0, -1.5, 2.25], kind) for kind in ("float16", "float32", "float64")),
    np.array([0.0, -1.5, 2.25], tf.bfloat16.as_numpy_dtype),
    np.array([[True], [False]]),
    np.array(7.5, np.float32),
    np.zeros([0, 3], np.int64),
    np.zeros([2, 0], np.float32),
    np.array([2**63 - 1, -(2**63)]),
    np.array([2**64 - 1], np.uint64),
]
WORDS = [
    np.array([[b"i1", b""], ["grün".encode(), b"\xff\x00\xd8"]], object),
    np.array([b"x" * 300, b""], object),
    np.array([b"", b""], object),
    np.zeros([0], object),
    np.array(b"alone", object),
]
IDS = [f"{one.dtype}{list(one.shape)}" for one in NUMBERS]


def equal(found, wanted):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tolist() == wanted.tolist()
    assert found.flags.writeable


def packed_strings(array):
    """As TensorFlow packs them: all lengths as varints, then all bytes."""
    content = b""
    for value in array.ravel().tolist():
        length = len(value)
        while length > 127:
            content += bytes([length & 127 | 128])
            length >>= 7
        content += bytes([length])
    return content + b"".join(array.ravel().tolist())


@pytest.mark.parametrize("array", NUMBERS, ids=IDS)
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_are_read_as_written_and_as_tensorflow_reads_them(array, packed):
    proto = tensors.to_proto(array, packed=packed)
    assert bool(proto.tensor_content) == (packed and array.size > 0)
    equal(tensors.from_proto(proto), array)
    assert tf.make_ndarray(proto).tolist() == array.tolist()


@pytest.mark.parametrize("array", NUMBERS, ids=IDS)
def test_what_tensorflow_writes_is_read(array):
    equal(tensors.from_proto(tf.make_tensor_proto(array)), array)


@pytest.mark.parametrize("array", WORDS, ids=lambda one: str(list(one.shape)))
def test_strings_are_read_in_both_forms(array):
    proto = tensors.to_proto(array, packed=True)
    assert not proto.tensor_content
    equal(tensors.from_proto(proto), array)
    del proto.string_val[:]
    proto.tensor_content = packed_strings(array)
    equal(tensors.from_proto(proto), array)


def test_one_value_stands_for_all():
    for proto, wanted in (
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[2.5]), [2.5, 2.5, 2.5]),
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT), [0, 0, 0]),
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"]), [b"a"] * 3),
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING), [b""] * 3),
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_BOOL, bool_val=[True]), [True] * 3),
        (tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, int64_val=[1, 2]), [1, 2, 2]),
    ):
        proto.tensor_shape.dim.add(size=3)
        assert tensors.from_proto(proto).tolist() == wanted


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        ({"dtype": types_pb2.DT_FLOAT, "tensor_content": b"12345"}, "5 bytes do not fit shape .2."),
        ({"dtype": types_pb2.DT_STRING, "tensor_content": b"\1"}, "1 bytes do not hold 2 strings"),
        ({"dtype": types_pb2.DT_STRING, "tensor_content": b"\1\1a"}, "do not hold 2 strings"),
        ({"dtype": types_pb2.DT_STRING, "tensor_content": b"\1\1abc"}, "do not hold 2 strings"),
        ({"dtype": types_pb2.DT_STRING, "tensor_content": b"\xff" * 20}, "do not hold 2 strings"),
        ({"dtype": types_pb2.DT_UINT8, "int_val": [256, 0]}, "does not fit into uint8"),
        ({"dtype": types_pb2.DT_COMPLEX64}, "type complex64 are not supported"),
        ({"dtype": types_pb2.DT_INVALID}, "type invalid are not supported"),
    ],
)
def test_what_is_damaged_is_refused(proto, message):
    damaged = tensor_pb2.TensorProto(**proto)
    damaged.tensor_shape.dim.add(size=2)
    with pytest.raises(ValueError, match=message):
        tensors.from_proto(damaged)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([-1], "not fully known"), ([2**20, 2**20], "1099511627776 elements are too many")],
)
def test_a_few_bytes_cannot_claim_much_memory(sizes, message):
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.0])
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ValueError, match=message):
        tensors.from_proto(proto)


def test_a_caller_s_values_become_what_tensorflow_would_make_of_them():
    for value, dtype in (
        ([0.5, 1], np.float32),
        ([1, 2], np.int64),
        ([True], np.bool_),
        (["a", b"b"], np.object_),
        (np.array([0.5]), np.float64),
        (np.array(["a"]), np.object_),
    ):
        assert tensors.as_array(value).dtype == dtype
    with pytest.raises(ValueError):
        tensors.as_array([[1], [1, 2]])
    with pytest.raises(ValueError, match="complex64 are not supported"):
        tensors.to_proto(np.zeros([1], np.complex64))
