"""Of what TensorFlow and transformers log, users see what concerns them."""

import logging

import pytest

import mmrec_tf.encoders  # noqa: F401 - it sets the filters


@pytest.mark.parametrize(
    "logger, said",
    [
        ("tensorflow", "5 out of the last 10 calls to <function forward.<locals>.step at 0x1>"),
        ("transformers.modeling_tf_utils", "TensorFlow and JAX classes are deprecated and"),
    ],
)
def test_what_nobody_can_act_on_is_not_said(logger, said):
    source = logging.getLogger(logger)

    def passes(text):
        return source.filter(source.makeRecord(logger, logging.WARNING, "f", 1, text, (), None))

    assert not passes(said)
    assert passes("out of memory")
