"""Which items have a category that a request asks for or turns down, against a plain loop."""

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.category_filter import CategoryFilter
from mmrec_tf.schema import FeatureSpec

SPECS = {
    "genre": FeatureSpec("categorical", vocabulary=("comedy", "drama", "grün"), width=2),
    "price": FeatureSpec("numeric"),
    # Two buckets for what is out of vocabulary; a value that another feature has, too.
    "mood": FeatureSpec("categorical", vocabulary=("drama", "calm"), oov_buckets=2),
}
# 0 is none, then the buckets, then the vocabulary.
FEATURES = {
    "genre": np.array([[2, 0], [3, 2], [0, 0], [1, 4], [3, 3], [0, 4]]),
    "price": np.array([1.0, 0.0, 2.0, 3.0, 4.0, 5.0]),
    "mood": np.array([[3], [1], [2], [4], [0], [3]]),
}
# The same, read by eye.
HAVE = [
    {"genre=comedy", "mood=drama"},
    {"genre=drama", "genre=comedy"},
    set(),
    {"genre=grün", "mood=calm"},
    {"genre=drama"},
    {"genre=grün", "mood=drama"},
]
NAMES = ["genre=comedy", "genre=drama", "genre=grün", "mood=drama", "mood=calm"]
ALL = [True] * len(HAVE)


@pytest.fixture(scope="module")
def categories():
    return CategoryFilter(SPECS, FEATURES)


def strings(rows):
    width = max(map(len, rows), default=0)
    padded = [row + [""] * (width - len(row)) for row in rows]
    return tf.constant(padded, tf.string, shape=[len(rows), width])


def shown(categories, allow, deny, available=ALL):
    allowed = categories(strings(allow), strings(deny), tf.constant(available)).numpy()
    # One row stands for all where none asks for anything.
    return np.broadcast_to(allowed, [len(allow), allowed.shape[1]])


def loop(allow, deny, available=ALL):
    """<bool>[row, item]."""
    table = np.zeros([len(allow), len(HAVE)], bool)
    for row, (some, none) in enumerate(zip(allow, deny, strict=True)):
        some = {name for name in some if name}
        for item, have in enumerate(HAVE):
            table[row, item] = available[item] and not have & set(none)
            table[row, item] &= not some or bool(have & some)
    return table


def test_the_names_are_those_of_categorical_features_in_their_order(categories):
    assert categories.names == NAMES


@pytest.mark.parametrize(
    ("allow", "deny", "want"),
    [
        ([], [], [0, 1, 2, 3, 4, 5]),
        (["genre=comedy"], [], [0, 1]),
        ([], ["genre=comedy"], [2, 3, 4, 5]),
        # A value is of its own feature only.
        (["mood=drama"], [], [0, 5]),
        (["genre=drama"], [], [1, 4]),
        # One of them is enough, and one of them too many.
        (["genre=grün", "mood=drama"], [], [0, 3, 5]),
        ([], ["genre=grün", "mood=drama"], [1, 2, 4]),
        # What is turned down weighs more than what is asked for.
        (["genre=drama"], ["genre=comedy"], [4]),
        (["genre=drama"], ["genre=drama"], []),
        # Nobody has an unknown one, so asking for it leaves nothing, beside another all of that.
        (["genre=opera"], [], []),
        (["genre=opera", "genre=comedy"], [], [0, 1]),
        ([], ["genre=opera"], [0, 1, 2, 3, 4, 5]),
        # Names are whole: no value alone, no feature alone, and numbers have none.
        (["drama"], [], []),
        (["genre="], [], []),
        (["price=1.0"], [], []),
        # "" is nothing at all.
        (["", ""], [""], [0, 1, 2, 3, 4, 5]),
        (["", "genre=comedy", ""], ["", ""], [0, 1]),
        (["genre=comedy", "genre=comedy"], ["mood=calm", "mood=calm"], [0, 1]),
    ],
)
def test_by_eye(categories, allow, deny, want):
    assert np.flatnonzero(shown(categories, [allow], [deny])[0]).tolist() == want


def test_against_a_plain_loop(categories):
    rng = np.random.default_rng(0)
    some = [*NAMES, "", "genre=opera"]
    allow, deny = (
        [rng.choice(some, rng.integers(0, 4)).tolist() for _ in range(200)] for _ in range(2)
    )
    available = [True, True, False, True, False, True]
    want = loop(allow, deny, available)
    assert 0.1 < want.mean() < 0.6
    np.testing.assert_array_equal(shown(categories, allow, deny, available), want)


def test_rows_stand_alone_however_they_are_padded(categories):
    """Also beside rows that ask for nothing, for which the whole batch may take a short cut."""
    allow = [[], ["mood=calm"], ["genre=opera"], [""]]
    deny = [["genre=grün"], [], [], []]
    together = shown(categories, allow, deny)
    for row in range(4):
        alone = shown(categories, allow[row : row + 1], deny[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])
    # As server batching widens rows that are led by "".
    widened = shown(categories, [["", *row, "", ""] for row in allow], [[""] * 3 + d for d in deny])
    np.testing.assert_array_equal(widened, together)
    np.testing.assert_array_equal(together, loop(allow, deny))


def test_what_is_withdrawn_stays_so(categories):
    available = [False, True, False, False, True, True]
    np.testing.assert_array_equal(shown(categories, [[], []], [[], []], available), [available] * 2)
    assert np.flatnonzero(shown(categories, [["genre=comedy"]], [[]], available)).tolist() == [1]
    assert not shown(categories, [[]], [[]], [False] * 6).any()


@pytest.mark.parametrize("width", [0, 2])
def test_no_rows(categories, width):
    nothing = tf.constant([], tf.string, shape=[0, width])
    # One row for all of them will do.
    allowed = categories(nothing, nothing, tf.constant(ALL))
    assert tf.where(allowed, tf.zeros([0, 6]), 1.0).shape == (0, 6)


@pytest.mark.parametrize("specs", [{}, {"price": SPECS["price"]}])
def test_without_categories_nothing_has_one(specs):
    categories = CategoryFilter(specs, {name: FEATURES[name] for name in specs})
    assert categories.names == []
    allow, deny = [[], ["genre=comedy"], []], [[], [], ["genre=comedy"]]
    want = [[True] * 6, [False] * 6, [True] * 6]
    np.testing.assert_array_equal(shown(categories, allow, deny), want)
    with pytest.raises(ConfigError, match="category 'genre=comedy': wanted NAME=VALUE"):
        categories.require(["genre=comedy"])


def test_a_feature_without_a_vocabulary_has_no_names():
    specs = {"genre": FeatureSpec("categorical")}
    categories = CategoryFilter(specs, {"genre": np.array([[1], [0], [1]])})
    assert categories.names == []
    assert shown(categories, [["genre=comedy"], []], [[], []], [True] * 3).sum() == 3


def test_in_a_graph_of_free_shape(categories):
    lists = tf.TensorSpec([None, None], tf.string)
    function = tf.function(
        lambda allow, deny: categories(allow, deny, tf.constant(ALL)),
        input_signature=[lists, lists],
    )
    allow, deny = [["genre=comedy"], [], ["mood=calm", "x"]], [[], ["mood=drama"], []]
    got = function(strings(allow), strings(deny))
    np.testing.assert_array_equal(got, loop(allow, deny))
    np.testing.assert_array_equal(function(strings([[]]), strings([[]])), [ALL])
    assert len(function._list_all_concrete_functions()) == 1


def test_names_that_no_category_has_are_refused(categories):
    categories.require([*NAMES, ""])
    with pytest.raises(ConfigError, match="'genre=comdy': .*did you mean 'genre=comedy'"):
        categories.require(["genre=drama", "genre=comdy"])
    with pytest.raises(ConfigError, match="'zzz': wanted NAME=VALUE of a side feature of items"):
        categories.require(["zzz"])
