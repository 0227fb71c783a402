"""Side features as a request brings them: what is read, and what is passed over."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.feature_entries import FeatureEntries, replace_features
from mmrec_tf.schema import FeatureSpec

SPECS = {
    "genre": FeatureSpec("categorical", vocabulary=("comedy", "grün"), width=2),
    "home": FeatureSpec("categorical", vocabulary=("sea",), oov_buckets=3),
    "age": FeatureSpec("numeric", mean=30.0, std=10.0),
    "price": FeatureSpec("numeric", mean=5.0, std=2.0, low=1.0, high=9.0),
}


@pytest.fixture(scope="module")
def entries():
    return FeatureEntries(SPECS)


def read(entries, row):
    found, unread = entries(tf.constant([row], tf.string, shape=[1, len(row)]))
    plain = {name: value.numpy()[0].tolist() for name, value in found.items()}
    plain["genre"] = [number for number in plain["genre"] if number]
    plain["home"] = [number for number in plain["home"] if number]
    return plain, unread.numpy()[0].tolist()


NOTHING = {"genre": [], "home": [], "age": [0.0, 0.0], "price": [0.0, 0.0]}


@pytest.mark.parametrize(
    ("row", "want", "unread"),
    [
        ([], {}, []),
        (["", ""], {}, [False, False]),
        # 1 is out of vocabulary, of which all share one number; 2 and 3 are the vocabulary.
        (["genre=comedy"], {"genre": [2]}, [False]),
        (["genre=grün", "genre=opera"], {"genre": [3, 1]}, [False, False]),
        # Which of three numbers an unknown home has cannot be known.
        (["home=sea", "home=moon"], {"home": [4]}, [False, True]),
        (["age=35"], {"age": [0.5, 1.0]}, [False]),
        (["age=-1.5e1"], {"age": [-4.5, 1.0]}, [False]),
        # Beyond the bounds it counts as these, as in preparation.
        (["price=999999999"], {"price": [2.0, 1.0]}, [False]),
        (["price=-1"], {"price": [-2.0, 1.0]}, [False]),
        # The first number counts, and what is no number does not.
        (["age=old", "age=20", "age=40"], {"age": [-1.0, 1.0]}, [True, False, False]),
        (["age=1e999", "age=inf", "age=", "age=3 "], {}, [True] * 4),
        (["agee=35", "35", "genre=", "=comedy"], {}, [True] * 4),
        (["age=35", "genre=grün"], {"age": [0.5, 1.0], "genre": [3]}, [False, False]),
        # As a server that batches widens lists.
        (["genre=grün", "genre=comedy", "genre=grün"], {"genre": [3, 2]}, [False] * 3),
        (["age=35", "genre=grün", "age=35"], {"age": [0.5, 1.0], "genre": [3]}, [False] * 3),
    ],
)
def test_what_is_read(entries, row, want, unread):
    assert read(entries, row) == ({**NOTHING, **want}, unread)


def test_what_is_brought_replaces_what_is_stored_under_its_name(entries):
    stored = {
        "genre": tf.constant([[2, 3], [2, 3]]),
        "home": tf.constant([[4], [4]]),
        "age": tf.constant([[0.1, 1.0], [0.1, 1.0]]),
        "price": tf.zeros([2, 2]),
    }
    brought, _ = entries(tf.constant([["genre=opera", "age=40"], ["", ""]]))
    replaced = replace_features(stored, brought)
    numbers = [[n for n in row if n] for row in replaced["genre"].numpy().tolist()]
    assert numbers == [[1], [2, 3]]
    assert [[n for n in row if n] for row in replaced["home"].numpy().tolist()] == [[4], [4]]
    np.testing.assert_allclose(replaced["age"], [[1.0, 1.0], [0.1, 1.0]])


def test_what_would_be_passed_over_is_refused(entries):
    entries.require(["genre=opera", "home=sea", "age=+3.5", ""], of="users")
    for entry, words in (
        ("agee=3", "of users that the model reads; got 'agee=3'; did you mean 'age'?"),
        ("age=old", "wanted a number, as in age=31; got 'age=old'"),
        ("home=moon", "wanted a value of home that the dataset has; got 'home=moon'"),
        ("genre=", "wanted a value of genre"),
    ):
        with pytest.raises(ConfigError, match="features: ") as error:
            entries.require([entry], of="users")
        assert words in str(error.value)
    with pytest.raises(ConfigError, match="it reads none"):
        FeatureEntries({}).require(["age=3"], of="items")
