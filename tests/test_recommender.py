"""Both stages together: who is shown what, and what nobody must be shown."""

import numpy as np
import pytest
import tensorflow as tf
from small_world import NEWCOMER, NUM_ITEMS, build_retrieval, item_id, user_id

from mmrec_tf import RankingModel, Recommender
from mmrec_tf.errors import ConfigError
from mmrec_tf.index import LOWEST, ExactIndex

ALL = [item_id(n) for n in range(NUM_ITEMS)]


def build(dataset, *, ranking=True, **settings):
    retrieval = build_retrieval(dataset, **settings)
    model = None
    if ranking:
        model = RankingModel(retrieval.config, retrieval)
        model.adapt()
        model.build_weights()
        rng = np.random.default_rng(1)
        for weight in model.network.weights:
            weight.assign(0.3 * rng.normal(size=weight.shape))
    return Recommender(retrieval, model, dataset)


@pytest.fixture(scope="module")
def recommender(dataset):
    return build(dataset)


def train_items(dataset, user):
    histories = dataset.histories()
    return [item_id(n) for n in histories.pairs(np.array([user]))[1]]


def rank(recommender, user, history, item):
    strings = (tf.constant(part, tf.string) for part in ([user], [history], [item]))
    return recommender.rank_ids(*strings).numpy()[0]


# What is shown


def test_of_retrieval_alone_it_is_the_best_of_the_score(dataset):
    recommender = build(dataset, ranking=False)
    retrieval = recommender.retrieval
    output = retrieval.embed_catalog()
    history = dataset.histories().last(np.arange(40), 4)
    user = retrieval.embed_users(
        tf.range(40), tf.gather(output.embedding, np.maximum(history, 0)), tf.constant(history >= 0)
    )
    score = user.numpy() @ output.embedding.T / 0.1 + 0.7 * dataset.catalog.log_frequency
    score[dataset.histories().pairs(np.arange(40))] = -np.inf
    order = np.argsort(-score, axis=1)[:, :5]
    answer = recommender.recommend([user_id(n) for n in range(40)], k=5)
    np.testing.assert_array_equal(answer.item_id, np.array(ALL)[order])
    np.testing.assert_allclose(
        answer.score, np.take_along_axis(score, order, axis=1), rtol=1e-4, atol=1e-4
    )


def test_ranking_orders_what_retrieval_found(dataset):
    """Twelve candidates go to ranking; it changes their order, but brings in no others."""
    users = [user_id(n) for n in range(40)]
    both = build(dataset).recommend(users, k=12)
    one = build(dataset, ranking=False).recommend(users, k=12)
    for row in range(40):
        assert set(both.item_id[row]) == set(one.item_id[row])
    assert (both.item_id != one.item_id).any()
    assert (np.diff(both.score, axis=1) <= 0).all()
    # Asked for more than that, retrieval hands on more.
    assert build(dataset).recommend(users, k=20).item_id.shape == (40, 20)


def test_untrained_ranking_keeps_retrieval_s_order(dataset):
    retrieval = build_retrieval(dataset)
    ranking = RankingModel(retrieval.config, retrieval)
    ranking.adapt()
    ranking.build_weights()
    users = [user_id(n) for n in range(40)]
    one = Recommender(retrieval, None, dataset).recommend(users, k=10)
    both = Recommender(retrieval, ranking, dataset).recommend(users, k=10)
    np.testing.assert_array_equal(one.item_id, both.item_id)


def test_nobody_is_shown_what_they_met_or_said_they_met(dataset, recommender):
    users = [user_id(n) for n in range(40)]
    history = [[ALL[n % 30], ALL[(n * 7 + 1) % 30]] for n in range(40)]
    answer = recommender.recommend(users, history=history, k=NUM_ITEMS)
    for row in range(40):
        met = {*train_items(dataset, row), *history[row]}
        shown = [item for item in answer.item_id[row] if item]
        assert set(shown) == set(ALL) - met
        assert len(shown) == NUM_ITEMS - len(met)


def test_empty_places_stand_behind(dataset, recommender):
    answer = recommender.recommend([user_id(0), user_id(NEWCOMER)], k=NUM_ITEMS)
    assert (answer.item_id[0] != "").tolist() == [True] * 24 + [False] * 6
    assert (answer.score[0] > LOWEST).tolist() == [True] * 24 + [False] * 6
    assert (answer.item_id[1] != "").all()
    assert np.isfinite(answer.score).all()
    everything = recommender.recommend(["nobody"], history=[ALL], k=3)
    assert everything.item_id.tolist() == [["", "", ""]]


def test_more_than_the_catalog_is_cut_to_it(recommender):
    answer = recommender.recommend([user_id(3)], k=1000)
    assert answer.item_id.shape == answer.score.shape == (1, NUM_ITEMS)


# Who asks


def test_a_request_s_own_history_is_what_counts(dataset, recommender):
    known, others = [user_id(0)], [ALL[1], ALL[4], ALL[7]]
    own = recommender.recommend(known, k=10)
    given = recommender.recommend(known, history=[others], k=10)
    assert own.item_id.tolist() != given.item_id.tolist()
    again = recommender.recommend(known, history=[train_items(dataset, 0)], k=10)
    assert own.item_id.tolist() == again.item_id.tolist()
    for nothing in ([], [""], ["unheard of"]):
        answer = recommender.recommend(known, history=[nothing], k=10)
        np.testing.assert_array_equal(answer.item_id, own.item_id)
        np.testing.assert_allclose(answer.score, own.score, rtol=1e-5)


def test_an_unknown_user_is_served_by_history_alone(dataset):
    recommender = build(dataset, user__id_embedding=False, user__features=False)
    history = train_items(dataset, 6)
    known = recommender.recommend([user_id(6)], k=10)
    stranger = recommender.recommend(["nobody"], history=[history], k=10)
    np.testing.assert_array_equal(known.item_id, stranger.item_id)
    without = recommender.recommend(["nobody"], k=10)
    assert without.item_id.tolist() != stranger.item_id.tolist()
    assert (without.item_id != "").all() and np.isfinite(without.score).all()
    # The newcomer is a known user without a past, and then so is a stranger.
    newcomer = recommender.recommend([user_id(NEWCOMER)], k=10)
    np.testing.assert_array_equal(without.item_id, newcomer.item_id)


def test_a_name_is_bytes_and_not_ascii(recommender):
    one = recommender.recommend(["ü7"], k=3)
    assert one.item_id.tolist() != recommender.recommend(["u7"], k=3).item_id.tolist()


def test_unknown_items_of_a_history_are_passed_over(recommender):
    plain = recommender.recommend(["nobody"], history=[["i4", "i9"]], k=10)
    mixed = recommender.recommend(["nobody"], history=[["x", "i4", "", "y", "i9", "x"]], k=10)
    np.testing.assert_array_equal(plain.item_id, mixed.item_id)
    np.testing.assert_allclose(plain.score, mixed.score, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "gru"])
def test_a_repeated_item_counts_once(dataset, kind):
    """A server that batches fills short histories up with their first item: it changes nothing."""
    recommender = build(dataset, user__history=kind)
    short, long = ["i4", "i9"], ["i1", "i2", "i3", "i5", "i6", "i7", "i8"]
    alone = recommender.recommend(["nobody"], history=[short], k=10)
    filled = [short + short[:1] * 5, long]
    together = recommender.recommend(["nobody", "nobody"], history=filled, k=10)
    np.testing.assert_array_equal(alone.item_id[0], together.item_id[0])
    np.testing.assert_allclose(alone.score[0], together.score[0], rtol=1e-4)
    # Not so if it stood once more in another place among fewer.
    other = recommender.recommend(["nobody"], history=[["i4"]], k=10)
    assert not np.allclose(other.score, alone.score, rtol=1e-3)


def test_of_a_long_history_the_last_are_read_in_their_order(dataset):
    recommender = build(dataset, user__history="gru")
    last = ["i1", "i2", "i3", "i5"]
    long = rank(recommender, "nobody", ["i8", "i9", *last, "x"], ALL)
    short = rank(recommender, "nobody", last, ALL)
    np.testing.assert_allclose(long, short, rtol=1e-4)
    embedding = recommender.retrieval.embed_catalog().embedding
    read = tf.constant([[embedding[ALL.index(item)] for item in last]])
    user = recommender.retrieval.embed_users(tf.constant([-1]), read, tf.ones([1, 4], tf.bool))
    queries = recommender.retrieval.queries(user)
    want = recommender.ranking.score(
        queries, tf.range(NUM_ITEMS)[None, :], recommender.ranking.items
    )
    np.testing.assert_allclose(long, want[0], rtol=1e-4, atol=1e-4)
    turned = rank(recommender, "nobody", last[::-1], ALL)
    assert not np.allclose(long, turned, rtol=1e-3)
    # What is not read is not shown all the same.
    shown = recommender.recommend(["nobody"], history=[["i8", "i9", *last]], k=NUM_ITEMS).item_id
    assert not {"i8", "i9", *last} & set(shown[0])


def test_rows_stand_alone(recommender):
    users = [user_id(0), "nobody", user_id(NEWCOMER), user_id(5)]
    history = [[], ["i3"], ["i1", "i2", "i3", "i4", "i5", "i6"], ["nothing"]]
    together = recommender.recommend(users, history=history, k=10)
    for row in range(4):
        alone = recommender.recommend(users[row : row + 1], history=history[row : row + 1], k=10)
        np.testing.assert_array_equal(alone.item_id[0], together.item_id[row])
        np.testing.assert_allclose(alone.score[0], together.score[row], rtol=1e-4, atol=1e-4)


def test_an_empty_batch_and_the_same_answer_twice(recommender):
    empty = recommender.recommend([], k=4)
    assert empty.item_id.shape == empty.score.shape == (0, 4)
    one, two = (recommender.recommend([user_id(1), "nobody"], k=10) for _ in range(2))
    np.testing.assert_array_equal(one.item_id, two.item_id)
    np.testing.assert_array_equal(one.score, two.score)


def test_the_graph_answers_as_eager_does(recommender):
    users = tf.constant([user_id(0), "nobody"])
    history = tf.constant([["", ""], ["i3", "i4"]])
    eager = recommender.recommend_ids(users, history, k=5)
    graph = tf.function(lambda *inputs: recommender.recommend_ids(*inputs, k=5))(users, history)
    np.testing.assert_array_equal(eager[0], graph[0])
    np.testing.assert_allclose(eager[1], graph[1], rtol=1e-5)


# Scores on request


def test_rank_gives_the_scores_of_recommend_and_lowest_for_the_unknown(recommender):
    answer = recommender.recommend([user_id(2)], k=10)
    asked = [*answer.item_id[0][::-1], "unheard of", ""]
    score = rank(recommender, user_id(2), [], asked)
    np.testing.assert_allclose(score[:10], answer.score[0][::-1], rtol=1e-4, atol=1e-4)
    assert score[10:].tolist() == [LOWEST, LOWEST]


def test_rank_scores_what_the_user_has_met_too(dataset, recommender):
    met = train_items(dataset, 2)
    assert (rank(recommender, user_id(2), [], met) > LOWEST).all()


# The index


def test_equal_scores_stand_by_number_and_what_is_excluded_last():
    index = ExactIndex(np.array([[1.0], [2.0], [2.0], [0.5]]))
    query = tf.constant([[1.0], [1.0]])
    score, item = index.search(query, 3, exclude=tf.constant([[-1, -1], [1, 0]]))
    assert item.numpy().tolist() == [[1, 2, 0], [2, 3, 0]]
    np.testing.assert_allclose(score, [[2, 2, 1], [2, 0.5, LOWEST]])
    assert index.search(query, 99)[1].shape == (2, 4)


# What is refused


def test_wrong_arguments_are_refused(recommender):
    with pytest.raises(ConfigError, match="k: wanted at least 1; got 0"):
        recommender.recommend(["u1"], k=0)
    with pytest.raises(ConfigError, match="one for each of 2 users; got 1"):
        recommender.recommend(["u1", "u2"], history=[["i1"]])
