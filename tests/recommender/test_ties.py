"""Items of equal content: in the order of the catalog, whatever the batch, in Python and served."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import NUM_CLUSTERS, NUM_ITEMS, NUM_USERS, build_recommender, user_id

from mmrec_tf import export, open_dataset
from mmrec_tf.exporting.request_examples import compare
from mmrec_tf.recommender.diversity import diversify
from mmrec_tf.recommender.ties import even_out
from serving.check.__main__ import main as check_command

CONTENT_ONLY = {"item__id_embedding": False, "item__features": False, "ranking__features": False}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The small world in which items of a cluster have the same content."""
    with pytest.MonkeyPatch.context() as patch:
        vectors = np.random.default_rng(0).normal(size=(NUM_CLUSTERS, 6)).astype(np.float32)
        patch.setattr(
            small_world, "content", lambda item, rng: {"vector": vectors[item % NUM_CLUSTERS]}
        )
        yield open_dataset(small_world.write(tmp_path_factory.mktemp("shop") / "dataset"))


@pytest.mark.parametrize("settings", [{}, {"recommender__diversity": 0.5}])
def test_the_company_of_a_user_changes_no_list(shop, settings):
    recommender = build_recommender(shop, **CONTENT_ONLY, **settings)
    first = recommender.index.first.numpy()
    assert len(set(first)) < NUM_ITEMS * 2 / 3
    users = [user_id(user) for user in range(NUM_USERS)]
    together = recommender.recommend(users, k=NUM_ITEMS // 2)
    for size in (1, 3):
        few = recommender.recommend(users[:size], k=NUM_ITEMS // 2)
        np.testing.assert_array_equal(few.item_id, together.item_id[:size])
    if not settings:
        # The same content met as often: one score, and so the order of the catalog.
        for row in together.item_id:
            met = [int(one[1:]) for one in row if one]
            for number in set(first):
                alike = [item for item in met if first[item] == number]
                assert alike == sorted(alike)


@pytest.mark.slow
def test_such_a_catalog_is_exported_and_passes_the_check(shop, tmp_path, capsys):
    recommender = build_recommender(shop, **CONTENT_ONLY)
    export(recommender, tmp_path, k=7)
    assert check_command([str(tmp_path)]) == 0, capsys.readouterr().out


def test_scores_that_differ_by_rounding_are_evened_out():
    alike = tf.constant([[4, 4, 4, 2, 2], [1, 2, 2, 1, 1]])
    score = tf.constant([[3.0, 3.000001, 2.5, 1.0, 0.999999], [1.0, 2.0, 2.0, 5.0, 5.00001]])
    evened = even_out(score, alike).numpy()
    np.testing.assert_array_equal(
        evened, np.float32([[3.0, 3.0, 2.5, 1.0, 1.0], [1.0, 2.0, 2.0, 5.0, 5.0]])
    )
    assert even_out(score[:0], alike[:0]).shape == (0, 5)


def test_of_candidates_that_are_the_same_the_first_is_picked():
    rng = np.random.default_rng(0)
    kinds = tf.math.l2_normalize(rng.normal(size=(4, 33)).astype(np.float32), axis=1).numpy()
    kind = np.sort(rng.integers(4, size=(5, 40)), axis=1)
    score = tf.constant(-kind.astype(np.float32))
    picked = diversify(score, tf.constant(kinds[kind]), tf.fill([5], 0.7), 20).numpy()
    for row, places in enumerate(picked):
        for number in range(4):
            met = [place for place in places if kind[row, place] == number]
            assert met == sorted(met)


def test_a_served_list_is_compared_up_to_its_ties():
    scores = np.float32([[1, 1, 1]])
    got, want = (np.array([[*ids]], object) for ids in ([b"b", b"c", b"d"], [b"a", b"b", b"c"]))
    answers = ({"item_id": ids, "score": scores} for ids in (got, want))
    assert compare(*answers, rtol=1e-4, atol=1e-5) == []
