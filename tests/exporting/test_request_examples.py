"""The examples file: what is written reads back bit for bit, and damage is named."""

import json
import re

import numpy as np
import pytest

from mmrec_tf.errors import ExportError
from mmrec_tf.exporting.request_examples import (
    Example,
    compare,
    decode_tensor,
    encode_tensor,
    examples_path,
    read_examples,
    write_examples,
)


def strings(*values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    "array",
    [
        strings([b"\x00\xff", b"z\x00"], [b"", "grün".encode()]),
        np.array([[0.1, -1e-30], [3e38, 2.0]], np.float32),
        np.array([0.1, 1e300]),
        np.array([True, False]),
        np.array([-128, 127], np.int8),
        np.array([2**64 - 1], np.uint64),
        np.array(-(2**63), np.int64),
        np.zeros((0, 3), np.float32),
        np.full((2, 0), b"", dtype=object),
    ],
)
def test_a_tensor_reads_back_bit_for_bit(array):
    read = decode_tensor(json.loads(json.dumps(encode_tensor(array))))
    assert read.dtype == array.dtype and read.shape == array.shape
    assert read.tolist() == array.tolist()


def test_strings_are_base64_of_their_bytes():
    assert encode_tensor(["ab", b"\xff"]) == {
        "dtype": "string",
        "shape": [2],
        "values": ["YWI=", "/w=="],
    }
    assert decode_tensor(encode_tensor([b"z\x00"])).tolist() == [b"z\x00"]


@pytest.mark.parametrize(
    "array", [np.zeros(2, np.float16), np.zeros(2, np.complex64), [1j], [None]]
)
def test_what_has_no_form_is_refused(array):
    with pytest.raises(ExportError):
        encode_tensor(array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_refused(tmp_path, value):
    answer = Example("rank", {}, {"score": np.array([value], np.float32)})
    with pytest.raises(ExportError, match="recommender/rank: score: .*NaN or infinity"):
        write_examples(tmp_path / "e.json", [answer], servable="recommender", version=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0]}, "needs 2 values; got 1"),
        ({"values": [1.0, "x"]}, "'x' is not a float32"),
        ({"values": [1.0, True]}, "True is not a float32"),
        ({"dtype": "int8"}, "1.0 is not a int8"),
        ({"dtype": "int8", "values": [1, 300]}, "300 is not a int8"),
        ({"dtype": "string"}, "1.0 is not base64"),
        ({"dtype": "string", "values": ["YWI=", "?"]}, "is not base64"),
        ({"dtype": "object"}, "unknown dtype 'object'"),
        ({"shape": [-2]}, "shape"),
        ({"shape": 2}, "shape"),
        ({"extra": 1}, "exactly dtype, shape and values"),
    ],
)
def test_a_damaged_tensor_is_refused(change, message):
    tensor = {"dtype": "float32", "shape": [2], "values": [1.0, 2.0], **change}
    with pytest.raises(ExportError, match=message):
        decode_tensor(tensor)


def test_a_file_reads_back(tmp_path):
    path = examples_path(tmp_path / "recommender" / "3")
    request = Example(
        "recommend",
        {"user_id": strings(b"u1"), "history": strings([b"", b"i2"])},
        {"item_id": strings([b"i3", b"i1"]), "score": np.array([[0.9, 0.1]], np.float32)},
    )
    write_examples(path, [request], servable="recommender", version=3, rtol=1e-3)
    read = read_examples(path)
    assert path.parts[-2:] == ("assets.extra", "examples.json")
    assert (read.servable, read.version, read.rtol, read.atol) == ("recommender", 3, 1e-3, 1e-5)
    (back,) = read.requests
    assert back.signature == "recommend"
    assert compare(back.inputs, request.inputs, rtol=0, atol=0) == []
    assert compare(back.outputs, request.outputs, rtol=0, atol=0) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted JSON"),
        ("[]", "not the form"),
        ("{}", "'tolerance' is missing"),
        ('{"tolerance": {"rtol": "x"}, "servable": "a", "version": 1}', "not the form"),
        (
            '{"tolerance": {"rtol": 1, "atol": 1}, "servable": "a", "version": 1, "requests": '
            '[{"signature": "s", "inputs": {"x": {"dtype": "q"}}, "outputs": {}}]}',
            "x: a tensor needs exactly",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "examples.json"
    path.write_text(text)
    with pytest.raises(ExportError, match=message) as raised:
        read_examples(path)
    assert str(path) in str(raised.value) and "mmrec-tf export" in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match="no examples here"):
        read_examples(tmp_path / "none.json")


def test_compare_lets_floats_differ_within_tolerance_only():
    expected = {"score": np.array([1.0, 100.0, 0.0], np.float32)}
    near = {"score": np.array([1.00005, 100.005, 0.000009], np.float32)}
    assert compare(near, expected, rtol=1e-4, atol=1e-5) == []
    far = {"score": np.array([1.0, 100.02, 0.0], np.float32)}
    (line,) = compare(far, expected, rtol=1e-4, atol=1e-5)
    assert line.startswith("score differs at 1 of 3: [1]: wanted 100.0, got 100.02")


@pytest.mark.parametrize(
    ("actual", "line"),
    [
        ({}, "x: missing"),
        ({"x": np.zeros(2, np.float32), "y": np.zeros(1)}, "y: not wanted"),
        ({"x": np.zeros(2)}, "x: wanted float32, got float64"),
        ({"x": np.zeros((2, 1), np.float32)}, r"x: wanted shape \[2\], got \[2, 1\]"),
        (
            {"x": np.array([0, np.nan], np.float32)},
            r"x differs at 1 of 2: \[1\]: wanted 0.0, got n",
        ),
    ],
)
def test_compare_says_what_differs(actual, line):
    differences = compare(actual, {"x": np.zeros(2, np.float32)}, rtol=1, atol=1)
    assert len(differences) == 1
    assert re.match(line, differences[0])


def test_compare_wants_strings_equal_and_in_order():
    expected = {"item_id": strings([b"a", b"b"])}
    assert compare({"item_id": [["a", "b"]]}, expected, rtol=0, atol=0) == []
    (line,) = compare({"item_id": strings([b"b", b"a"])}, expected, rtol=1, atol=1)
    assert (
        line
        == "item_id differs at 2 of 2: [0, 0]: wanted 'a', got 'b'; [0, 1]: wanted 'b', got 'a'"
    )


def answer(ids, scores, **more):
    return {
        "item_id": strings([one.encode() for one in ids]),
        "score": np.float32([scores]),
        **more,
    }


@pytest.mark.parametrize(
    ("ids", "scores"),
    [
        ("abcd", [3, 2, 2, 1]),
        ("acbd", [3, 2, 2, 1]),
        ("acbd", [3, 2.00001, 2, 1]),
        # What ties with the last one may lie behind the end of the list.
        ("abce", [3, 2, 2, 1]),
    ],
)
def test_items_of_one_score_may_change_places(ids, scores):
    expected = answer("abcd", [3, 2, 2, 1])
    assert compare(answer(ids, scores), expected, rtol=1e-4, atol=1e-5) == []


@pytest.mark.parametrize(
    ("ids", "scores", "what"),
    [
        ("bacd", [3, 2, 2, 1], "item_id"),
        ("abbd", [3, 2, 2, 1], "item_id"),
        ("aebd", [3, 2, 2, 1], "item_id"),
        ("abdc", [3, 2, 2, 1], "item_id"),
        ("abc", [3, 2, 2], "item_id"),
        ("acbd", [3, 2.1, 2, 1], "item_id"),
    ],
)
def test_others_may_not(ids, scores, what):
    expected = answer("abcd", [3, 2, 2, 1])
    found = compare(answer(ids, scores), expected, rtol=1e-4, atol=1e-5)
    assert found and found[0].startswith(what)


def test_what_is_said_of_tied_items_goes_with_them():
    expected = answer("abc", [2, 2, 1], modality=strings([b"text", b"image", b"text"]))
    swapped = answer("bac", [2, 2, 1], modality=strings([b"image", b"text", b"text"]))
    assert compare(swapped, expected, rtol=1e-4, atol=1e-5) == []
    wrong = answer("bac", [2, 2, 1], modality=strings([b"text", b"image", b"text"]))
    (line,) = compare(wrong, expected, rtol=1e-4, atol=1e-5)
    assert line.startswith("modality differs at 2 of 3")


def test_a_list_that_has_ended_has_no_ties_behind_its_end():
    scores = np.float32([[2, 1, -1e9]])
    expected = {"item_id": strings([b"a", b"b", b""]), "score": scores}
    wrong = {**expected, "item_id": strings([b"a", b"c", b""])}
    assert compare(wrong, expected, rtol=1e-4, atol=1e-5)
