"""The space that is searched: what tells items apart, and what only rounding does."""

import numpy as np
import pytest

from mmrec_tf.exporting.search_space import SearchSpace
from mmrec_tf.towers import TowerOutput


def output(modalities: np.ndarray) -> TowerOutput:
    present = np.ones(modalities.shape[:2], bool)
    return TowerOutput(modalities[:, 0], modalities, present, present.astype(np.float32))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("num_modalities", [1, 2])
def test_a_rounding_error_turns_no_answer(num_modalities):
    rng = np.random.default_rng(0)
    # What a collapsed encoder gives: the same for all items, but for the fifth digit.
    around = rng.normal(size=[1, num_modalities, 16]) + 1e-5 * rng.normal(
        size=[50, num_modalities, 16]
    )
    catalog = output(unit(around))
    space = SearchSpace(catalog)
    wrong = output(
        catalog.modalities * (1 + 3e-7 * rng.normal(size=around.shape)).astype(np.float32)
    )
    items = space(catalog).numpy()
    np.testing.assert_allclose(space(wrong).numpy() @ items.T, items @ items.T, atol=1e-4)


def test_what_differs_has_unit_length():
    rng = np.random.default_rng(0)
    catalog = output(unit(rng.normal(size=[50, 2, 16]) + 3 * rng.normal(size=[1, 2, 16])))
    length = np.linalg.norm(SearchSpace(catalog)(catalog).numpy(), axis=1)
    np.testing.assert_allclose(length, 1, atol=1e-6)
