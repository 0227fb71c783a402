"""How large a request may be: checked in the graph, and refused in words."""

import pytest
import tensorflow as tf

from mmrec_tf.exporting.limits import Limits, check_limits


def test_a_request_within_its_limits_passes():
    inputs = {"user_id": tf.constant(["a", "b"]), "history": tf.constant([["x"], ["y"]])}
    got = check_limits(Limits(rows=2, width=1), inputs)
    assert [value.numpy().tolist() for value in got] == [[b"a", b"b"], [[b"x"], [b"y"]]]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"user_id": ["a"] * 3}, "user_id: wanted at most 2 rows in a request; got"),
        (
            {"user_id": ["a"], "history": [["x"] * 4]},
            "history: wanted lists of at most 3 entries; got",
        ),
        (
            {"user_id": ["a", "b"], "history": [["x"]]},
            "history: wanted as many rows as user_id has,",
        ),
    ],
)
def test_a_request_beyond_its_limits_is_refused(inputs, words):
    graph = tf.function(lambda inputs: check_limits(Limits(rows=2, width=3), inputs))
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        graph({name: tf.constant(value) for name, value in inputs.items()})
