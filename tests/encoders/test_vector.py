import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.encoders import vector
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

SPEC = ModalitySpec("vector", dim=3)
TABLE = np.array([[0, 10, 5], [2, 20, 5], [4, 30, 5]], np.float32)


def test_columns_by_hand():
    encoder = vector.build_encoder(None, SPEC, values=TABLE)
    # Means 2, 20, 5; population deviations sqrt(8/3), sqrt(200/3), 0 (which is left alone).
    step = np.sqrt(1.5)
    want = [[-step, -step, 0], [0, 0, 0], [step, step, 0]]
    np.testing.assert_allclose(encoder(TABLE), want, atol=1e-6)
    np.testing.assert_allclose(
        encoder(tf.zeros([1, 3]))[0], [-step, -20 / np.sqrt(200 / 3), -5], 1e-6
    )


@pytest.mark.parametrize("values", [None, [], np.zeros([0, 3])])
def test_without_values_it_passes_through(values):
    encoder = vector.build_encoder(None, SPEC, values=values)
    np.testing.assert_array_equal(encoder(TABLE), TABLE)


def test_rows_may_come_one_by_one_and_in_half_precision():
    whole = vector.build_encoder(None, SPEC, values=TABLE)
    rows = vector.build_encoder(None, SPEC, values=(row for row in TABLE.astype(np.float16)))
    assert rows.fingerprint() == whole.fingerprint()


def test_reload_reads_no_values():
    encoder = vector.build_encoder(None, SPEC, values=TABLE, assets={})
    np.testing.assert_array_equal(encoder(TABLE), TABLE)


def test_always_frozen():
    encoder = vector.build_encoder(None, SPEC, values=TABLE)
    assert encoder.frozen and not encoder.trainable_weights
    assert encoder.content_spec() == tf.TensorSpec([None, 3], tf.float32)


def test_values_that_do_not_fit():
    with pytest.raises(ConfigError, match="rows of 3; got shape"):
        vector.build_encoder(None, SPEC, values=TABLE[:, :2])
    with pytest.raises(ConfigError, match="finite"):
        vector.build_encoder(None, SPEC, values=[[0, np.nan, 1]])


def test_many_rows_are_taken_some_at_a_time():
    table = np.random.default_rng(0).normal([1e3, 0, -7], [1, 5, 1e-3], [9000, 3])
    encoder = vector.build_encoder(None, SPEC, values=table)
    np.testing.assert_allclose(encoder.mean, table.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(encoder.std, table.std(axis=0), rtol=1e-6)
