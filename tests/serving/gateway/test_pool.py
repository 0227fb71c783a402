"""Fresh items near a user."""

import gc

import numpy as np
import pytest

from serving.gateway.fresh.pool import MOST_SCORED, Embedded, nearest, rows_of
from serving.gateway.fresh.scores import rank_new_inputs
from serving.gateway.store.records import Candidate, Embedding, Shown

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


def embedding(item, number, **more):
    told = {"vector": [number, 0.0], "nearest": "", "modalities": [number, 1.0, number, 2.0]}
    told |= {"present": [True, number > 1], "weights": [0.5, number], "features": []}
    return Embedding(item=item, version=1, **{**told, **more})


def test_rank_new_is_asked_of_the_rows_of_what_was_chosen():
    ones = {
        "a": embedding("a", 1.0),
        "b": embedding("b", 2.0),
        "c": embedding("c", 3.0, features=["genre=x", "price=2"]),
    }
    vectors = np.array([one.vector for one in ones.values()], np.float32)
    embedded = Embedded(list(ones), vectors, ones, rows=rows_of(ones))
    asked = rank_new_inputs("u", ["h"], embedded, ["c", "a"])
    assert asked["embedding"].shape == (1, MOST_SCORED, 2)
    assert asked["embedding"][0, :3].tolist() == [[3, 0], [1, 0], [0, 0]]
    assert asked["modalities"][0, 0].tolist() == [[3, 1], [3, 2]]
    assert asked["present"][0, :3].tolist() == [[True, True], [True, False], [False, False]]
    assert asked["weights"][0, :2].tolist() == [[0.5, 3], [0.5, 1]]
    assert asked["features"][0, 0].tolist() == [b"", b"genre=x", b"price=2"]
    assert asked["features"][0, 1].tolist() == [b"", b"", b""]


def test_an_older_export_has_no_rows():
    ones = {"a": embedding("a", 1.0), "b": embedding("b", 2.0, modalities=[])}
    assert rows_of(ones) is None and rows_of({}) is None


def test_places_of_lists_are_nothing_to_the_garbage_collector():
    # Each list has dozens: tracked, they would call for it, and it goes through all of TensorFlow.
    assert not gc.is_tracked(Shown(item="a"))
    assert not gc.is_tracked(Candidate(item="a", score=1.0, propensity=0.5))
