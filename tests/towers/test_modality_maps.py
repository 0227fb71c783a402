"""Missing modalities from maps between modalities: which map, fitted to what, and applied where."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.errors import RunError
from mmrec_tf.towers.modality_maps import GraphMaps, ModalityMap, fill_mapped, fit_maps


def world(rows=120, seed=0):
    """Words and pictures show four causes, words in full, pictures with noise; sounds are noise."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=[rows, 4])
    encoded = [
        causes @ rng.normal(size=[4, 8]),
        causes @ rng.normal(size=[4, 6]) + rng.normal(size=[rows, 6]),
        rng.normal(size=[rows, 3]),
        causes + 0.01 * rng.normal(size=[rows, 4]),
    ]
    present = rng.random([rows, 4]) < 0.8
    return [values.astype(np.float32) for values in encoded], present


def identity(source, target, shift):
    """A map that adds a shift."""
    return ModalityMap(source, target, np.eye(2, dtype="f4"), np.full(2, shift, "f4"), 9, 1.0, 0.5)


def test_the_best_map_comes_first_and_noise_has_none():
    encoded, present = world()
    maps = fit_maps(encoded, present, np.ones(120, bool))
    found = [(one.source, one.target) for one in maps if one.explained > 0.1]
    assert set(found) == {(s, t) for s in (0, 1, 3) for t in (0, 1, 3) if s != t}
    assert [one.explained for one in maps] == sorted((o.explained for o in maps), reverse=True)
    # Words tell the causes better than pictures do.
    assert found.index((0, 3)) < found.index((1, 3))


def test_a_map_holds_for_items_that_it_was_not_fitted_to():
    encoded, present = world(400)
    known = np.arange(400) < 200
    one = next(o for o in fit_maps(encoded, present, known) if (o.source, o.target) == (0, 3))
    assert one.num_items == (present[:, 0] & present[:, 3] & known).sum()
    others = encoded[3][200:]
    residual = others - (encoded[0][200:] @ one.kernel + one.bias)
    explained = 1 - np.square(residual).sum() / np.square(others - others.mean(axis=0)).sum()
    assert explained == pytest.approx(one.explained, abs=0.02) and explained > 0.9


def test_only_train_items_that_have_both_count():
    encoded, present = world()
    known = np.arange(120) < 70
    want = fit_maps(encoded, present, known)
    for m, values in enumerate(encoded):
        values[~present[:, m] | ~known] = np.nan
    for got, other in zip(fit_maps(encoded, present, known), want, strict=True):
        np.testing.assert_array_equal(got.kernel, other.kernel)
    encoded[0][np.flatnonzero(present[:, 0] & present[:, 1] & known)[0]] = np.inf
    with pytest.raises(RunError, match="wanted finite numbers"):
        fit_maps(encoded, present, known)
    assert fit_maps(encoded, present, ~known & known) == []


def test_the_first_map_whose_source_is_there_fills():
    """Item 0 lacks modality 2 and has both others; 1 has the second only; 2 has nothing."""
    encoded = [np.full([4, 2], value, np.float32) for value in (10, 20, 30)]
    present = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    maps = [identity(0, 2, 0.5), identity(1, 2, 0.25), identity(2, 0, 7)]
    filled, now = fill_mapped(encoded, present, maps)
    np.testing.assert_array_equal(filled[2][:, 0], [10.5, 20.25, 30, 30])
    # Nothing is mapped on: item 1 has no modality of its own that leads to the first.
    np.testing.assert_array_equal(now, [[1, 1, 1], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    assert filled[0] is encoded[0] and (encoded[2] == 30).all() and not present.all()


def test_the_graph_fills_as_numpy_does():
    encoded, present = world()
    maps = fit_maps(encoded, present, np.ones(120, bool))
    want, now = fill_mapped(encoded, present, maps)
    assert now.sum() > present.sum() + 20
    for rows in (slice(0, 120), slice(3, 4), slice(0, 0)):
        filled, there = tf.function(GraphMaps(maps))(
            [tf.constant(values[rows]) for values in encoded], tf.constant(present[rows])
        )
        np.testing.assert_array_equal(there, now[rows])
        for m, values in enumerate(filled):
            here = now[rows, m]
            np.testing.assert_allclose(values.numpy()[here], want[m][rows][here], atol=1e-4)


def test_without_maps_nothing_changes():
    encoded, present = world(5)
    filled, now = GraphMaps([])(encoded, tf.constant(present))
    assert all(one is other for one, other in zip(filled, encoded, strict=True))
    np.testing.assert_array_equal(now, present)
