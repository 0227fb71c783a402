"""Fresh items near a user."""

import numpy as np
import pytest

from serving.gateway.fresh.pool import Embedded, nearest

VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


@pytest.mark.parametrize(
    ("user", "want"),
    [
        ([1.0, 0.0], ["a", "c", "b"]),
        # Of several vectors of one user the nearest counts.
        ([[0.0, 1.0], [-1.0, 0.0]], ["b", "d", "c"]),
    ],
)
def test_the_nearest_fresh_items_come_first(user, want):
    embedded = Embedded(["a", "b", "c", "d"], VECTORS, {})
    found = nearest(embedded, np.array(user, np.float32), among={"a", "b", "c", "d"}, most=3)
    assert found == want
    assert nearest(embedded, np.array(user, np.float32), among={"c"}) == ["c"]
    assert nearest(embedded, np.array(user, np.float32), among=set()) == []
