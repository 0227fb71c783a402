"""Both stages together: who is shown what, and what nobody must be shown."""

import numpy as np
import pytest
import tensorflow as tf
from support.small_world import (
    NEWCOMER,
    NUM_ITEMS,
    NUM_USERS,
    build_recommender,
    build_retrieval,
    item_id,
    user_id,
)

from mmrec_tf import RankingModel, Recommender
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.recommender.inputs import pad_lists
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.retrieval.index import ExactIndex, IvfIndex
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.schema import LOWEST_SCORE, SPLITS

ALL = [item_id(n) for n in range(NUM_ITEMS)]


@pytest.fixture(scope="module")
def recommender(dataset):
    return build_recommender(dataset)


def train_items(dataset, user):
    histories = dataset.histories()
    return [item_id(n) for n in histories.pairs(np.array([user]))[1]]


def rank(recommender, user, history, item):
    strings = (tf.constant(part, tf.string) for part in ([user], [history], [item]))
    inputs = (*strings, tf.constant([0], tf.int64), *silent(1))
    return recommender.rank_ids(*inputs)["score"].numpy()[0]


def add_head(model):
    """A head that leads from each item to the two before it."""
    layer = ItemHead(NUM_ITEMS, 2)
    number = np.arange(NUM_ITEMS)
    layer.neighbors.assign(np.stack([number - 1, number - 2], axis=1).clip(-1))
    layer.values.assign(np.stack([0.7 + 0.01 * number, 0.2 + 0 * number], axis=1))
    model.set_item_head(layer, None)


def silent(num_users):
    """No profile and no side features."""
    return tf.fill([num_users], ""), tf.fill([num_users, 0], "")


# What is shown


def test_of_retrieval_alone_it_is_the_best_of_the_score(dataset):
    recommender = build_recommender(dataset, ranking=False)
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
    both = build_recommender(dataset).recommend(users, k=12)
    one = build_recommender(dataset, ranking=False).recommend(users, k=12)
    for row in range(40):
        assert set(both.item_id[row]) == set(one.item_id[row])
    assert (both.item_id != one.item_id).any()
    assert (np.diff(both.score, axis=1) <= 0).all()
    # Asked for more than that, retrieval hands on more.
    assert build_recommender(dataset).recommend(users, k=20).item_id.shape == (40, 20)


def test_untrained_ranking_keeps_retrieval_s_order(dataset):
    retrieval = build_retrieval(dataset)
    ranking = RankingModel(retrieval.config, dataset, retrieval=retrieval, initialize=False)
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
    assert (answer.score[0] > LOWEST_SCORE).tolist() == [True] * 24 + [False] * 6
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
    # Of a known user without a history the tower reads the side features, and so does ranking.
    settings = {"user__id_embedding": False, "user__features": False, "ranking__features": False}
    recommender = build_recommender(dataset, **settings)
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
    recommender = build_recommender(dataset, user__history=kind)
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
    recommender = build_recommender(dataset, user__history="gru")
    last = ["i1", "i2", "i3", "i5"]
    long = rank(recommender, "nobody", ["i8", "i9", *last, "x"], ALL)
    short = rank(recommender, "nobody", last, ALL)
    np.testing.assert_allclose(long, short, rtol=1e-4)
    embedding = recommender.retrieval.embed_catalog().embedding
    read = tf.constant([[embedding[ALL.index(item)] for item in last]])
    user = recommender.retrieval.embed_users(tf.constant([-1]), read, tf.ones([1, 4], tf.bool))
    queries = recommender.retrieval.queries(user)
    request = Request(
        queries,
        tf.constant([-1]),
        tf.constant([[ALL.index(item) for item in last]]),
        tf.fill([1, 4], -1.0),
        tf.zeros([1], tf.int64),
    )
    model = recommender.ranking
    retrieved = tf.matmul(queries, model.items["vector"], transpose_b=True)
    want = model.rank(request, tf.range(NUM_ITEMS)[None, :], model.items, retrieved)
    np.testing.assert_allclose(long, want.score[0], rtol=1e-4, atol=1e-4)
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
    nothing = tf.fill([2, 0], "")
    inputs = (users, history, nothing, nothing, nothing, tf.zeros([2], tf.int64), *silent(2))
    eager = recommender.recommend_ids(*inputs, k=5)
    graph = recommender.recommend([user_id(0), "nobody"], history=[[], ["i3", "i4"]], k=5)
    assert not eager["unread"].numpy().any()
    # No item of this world has several values that are weighed.
    assert graph.heaviest is None and "heaviest" not in eager
    for name, value in zip(graph._fields[:-1], graph[:-1], strict=True):
        if value.dtype == object:
            np.testing.assert_array_equal(np.char.decode(eager[name].numpy().astype(bytes)), value)
        else:
            np.testing.assert_allclose(eager[name], value, rtol=1e-4)


# Scores on request


def test_rank_gives_the_scores_of_recommend_and_lowest_for_the_unknown(recommender):
    answer = recommender.recommend([user_id(2)], k=10)
    asked = [*answer.item_id[0][::-1], "unheard of", ""]
    score = rank(recommender, user_id(2), [], asked)
    np.testing.assert_allclose(score[:10], answer.score[0][::-1], rtol=1e-4, atol=1e-4)
    assert score[10:].tolist() == [LOWEST_SCORE, LOWEST_SCORE]


def test_rank_scores_what_the_user_has_met_too(dataset, recommender):
    met = train_items(dataset, 2)
    assert (rank(recommender, user_id(2), [], met) > LOWEST_SCORE).all()


# The index


def test_equal_scores_stand_by_number_and_what_is_excluded_last():
    index = ExactIndex(np.array([[1.0], [2.0], [2.0], [0.5]]))
    query = tf.constant([[1.0], [1.0]])
    score, item = index.search(query, 3, exclude=tf.constant([[-1, -1], [1, 0]]))
    assert item.numpy().tolist() == [[1, 2, 0], [2, 3, 0]]
    np.testing.assert_allclose(score, [[2, 2, 1], [2, 0.5, LOWEST_SCORE]])
    assert index.search(query, 99)[1].shape == (2, 4)


# What is refused


def test_wrong_arguments_are_refused(recommender):
    with pytest.raises(ConfigError, match="k: wanted at least 1; got 0"):
        recommender.recommend(["u1"], k=0)
    with pytest.raises(ConfigError, match="one for each of 2 users; got 1"):
        recommender.recommend(["u1", "u2"], history=[["i1"]])


# What a request leaves out


def test_filters_exclusions_and_what_is_withdrawn(dataset):
    recommender = build_recommender(dataset, ranking__num_candidates=NUM_ITEMS)
    nights = {ALL[n] for n in range(NUM_ITEMS) if n % 4 and n % 2 == 0}
    days = {ALL[n] for n in range(NUM_ITEMS) if n % 4}
    everything = recommender.recommend(["u3"], k=NUM_ITEMS).item_id[0]
    shown = [item for item in everything if item]

    def ask(**lists):
        answer = recommender.recommend(["u3"], **{n: [v] for n, v in lists.items()}, k=NUM_ITEMS)
        return [item for item in answer.item_id[0] if item]

    assert ask(allow=["genre=night"]) == [item for item in shown if item in nights]
    assert ask(allow=["genre=night", "genre=day"]) == [item for item in shown if item in days]
    assert ask(deny=["genre=day"]) == [item for item in shown if item not in days]
    assert ask(allow=["genre=day"], deny=["genre=night"]) == [
        item for item in shown if item in days - nights
    ]
    assert ask(exclude=[shown[0], "unheard of", shown[3]]) == shown[1:3] + shown[4:]
    with pytest.raises(ConfigError, match="did you mean 'genre=night'"):
        ask(allow=["genre=nigth"])
    stages = recommender.retrieval, recommender.ranking, dataset
    withdrawn = Recommender(*stages, unavailable=shown[:2], history="train")
    answer = withdrawn.recommend(["u3"], k=NUM_ITEMS).item_id[0]
    assert [item for item in answer if item] == shown[2:]
    assert not {*shown[:2]} & {*withdrawn.similar_items([shown[2]], k=NUM_ITEMS).item_id[0]}
    # What the caller names is scored all the same.
    assert rank(withdrawn, "u3", [], shown[:2]).min() > LOWEST_SCORE
    with pytest.raises(ConfigError, match="1 that are none, such as 'x'"):
        Recommender(recommender.retrieval, None, dataset, unavailable=["x", "i1"])


def test_arrays_do_as_well_as_lists(recommender):
    lists = {"history": [["i4"], ["i5"]], "deny": [["genre=night"], [""]], "exclude": [["i1"]] * 2}
    one = recommender.recommend(["u1", "u2"], **lists, time=[5, 6], k=5)
    arrays = {name: np.array(rows) for name, rows in lists.items()}
    two = recommender.recommend(np.array(["u1", "u2"]), **arrays, time=np.array([5, 6]), k=5)
    np.testing.assert_array_equal(one.item_id, two.item_id)


def test_rows_have_filters_of_their_own(dataset, recommender):
    users = ["u1", "u1", "u1"]
    answer = recommender.recommend(users, allow=[["genre=night"], [], ["genre=day"]], k=5)
    plain = recommender.recommend(["u1"], k=5)
    assert answer.item_id[1].tolist() == plain.item_id[0].tolist()
    assert answer.item_id[0].tolist() != answer.item_id[2].tolist()
    with pytest.raises(ConfigError, match="allow: wanted one for each of 3 users; got 1"):
        recommender.recommend(users, allow=[[]])
    with pytest.raises(ConfigError, match="time: wanted one for each of 3 users; got 2"):
        recommender.recommend(users, time=[1, 2])


# What a request says of its user


PROFILES = {"user__profile": True, "ranking__target_attention": True}


@pytest.fixture(
    scope="module",
    params=[{}, pytest.param({"ranking__fine_tune": True}, marks=pytest.mark.slow)],
    ids=["", "fine_tune"],
)
def reading(request, dataset):
    """A recommender that reads profiles and side features."""
    return build_recommender(dataset, **PROFILES, **request.param)


def test_a_stranger_s_profile_and_features_do_what_stored_ones_do(dataset, reading):
    """Of a user whose age is not known."""
    number = next(n for n in range(1, 40, 2) if n % 5 == 0)
    profile = dataset.users.profile[number].decode()
    user = build_recommender(dataset, user__id_embedding=False, **PROFILES)
    met = train_items(dataset, number)
    known = user.recommend([user_id(number)], k=NUM_ITEMS)
    stranger = user.recommend(["nobody"], history=[met], profile=[profile], k=NUM_ITEMS)
    np.testing.assert_array_equal(known.item_id, stranger.item_id)
    np.testing.assert_allclose(known.score, stranger.score, rtol=1e-4, atol=1e-4)
    without = user.recommend(["nobody"], history=[met], k=NUM_ITEMS)
    assert not np.allclose(without.score, stranger.score, rtol=1e-3)


@pytest.mark.parametrize("brought", [{"profile": ["likes the owl"]}, {"features": [["age=1.5"]]}])
def test_by_a_profile_or_a_feature_alone_a_stranger_is_known(reading, brought):
    stranger = reading.recommend(["nobody"], **brought, k=5)
    nothing = reading.recommend(["nobody"], k=5)
    assert stranger.item_id.tolist() != nothing.item_id.tolist()
    assert set(nothing.modality[0]) == {""} != set(stranger.modality[0])


def test_of_a_known_user_what_is_brought_replaces_what_is_stored(dataset, reading):
    row = next(n for n in range(1, 40, 2) if n % 5)
    age = float(dataset.users.features["age"][row, 0])
    same = {"profile": [dataset.users.profile[row].decode()], "features": [[f"age={age:.7f}"]]}
    stored = reading.recommend([user_id(row)], k=8)
    again = reading.recommend([user_id(row)], **same, k=8)
    np.testing.assert_array_equal(stored.item_id, again.item_id)
    np.testing.assert_allclose(stored.score, again.score, rtol=1e-4, atol=1e-4)
    for other in ({"profile": ["gull gull gull"]}, {"features": [["age=-7.5"]]}):
        changed = reading.recommend([user_id(row)], **other, k=8)
        assert not np.allclose(stored.score, changed.score, rtol=1e-3)
    # Rows stand alone.
    both = reading.recommend(
        [user_id(row), "u2"], profile=["", "gull"], features=[[], ["age=-7.5"]], k=8
    )
    np.testing.assert_array_equal(both.item_id[0], stored.item_id[0])


def test_a_profile_or_feature_without_an_effect_is_refused(recommender, reading):
    with pytest.raises(ConfigError, match="profile: wanted none, as this model reads no profile"):
        recommender.recommend(["u1"], profile=["likes owls"])
    recommender.recommend(["u1"], profile=[""], features=[[""]])
    with pytest.raises(ConfigError, match="got 'agee=3'; did you mean 'age'"):
        reading.recommend(["u1"], features=[["agee=3"]])
    with pytest.raises(ConfigError, match="features: wanted one for each of 2 users; got 1"):
        reading.recommend(["u1", "u2"], features=[[]])


# Of whom nothing is known


@pytest.fixture(scope="module")
def knowing(dataset):
    """A recommender that knows all that users did."""
    return build_recommender(dataset, history="all", recommender__popular_diversity=0.0)


def test_what_users_did_in_any_split_is_known(dataset, knowing):
    users = [user_id(n) for n in range(NUM_USERS)]
    answer = knowing.recommend(users, k=NUM_ITEMS)
    for user in range(NUM_USERS):
        met = set()
        for split in SPLITS:
            data = dataset.interactions(split)
            met |= {item_id(n) for n in data.item[data.user == user]}
        assert set(answer.item_id[user]) == {*ALL} - met | {""}
    # The one without a train interaction has a history by now.
    assert answer.history_item[NEWCOMER, 0]
    assert knowing.num_known == {n: len(dataset.interactions(n).user) for n in SPLITS}
    counts = np.sum([np.bincount(dataset.interactions(n).item, minlength=30) for n in SPLITS], 0)
    popular = knowing.recommend(["nobody"], k=NUM_ITEMS).item_id[0]
    assert popular.tolist() == [ALL[n] for n in np.argsort(-counts, kind="stable")]


def test_weights_and_bias_stay_those_of_train(dataset, knowing):
    plain = knowing.with_history("train")
    assert plain.with_history("train") is plain is knowing.with_history("train")
    mine, trained = (r.index.vectors.numpy() for r in (knowing, plain))
    np.testing.assert_array_equal(mine[:, :-1], trained[:, :-1])
    np.testing.assert_array_equal(trained[:, -1], dataset.catalog.log_frequency)
    assert (mine[:, -1] != trained[:, -1]).any()
    # And with other interactions it is another recommender's equal.
    users = [user_id(n) for n in range(NUM_USERS)] + ["nobody"]
    want = build_recommender(dataset, recommender__popular_diversity=0.0).recommend(users, k=9)
    got = plain.recommend(users, k=9)
    np.testing.assert_array_equal(got.item_id, want.item_id)
    np.testing.assert_array_equal(got.score, want.score)


def test_an_index_of_lists_was_built_with_its_history(probing):
    with pytest.raises(ConfigError, match="history: wanted train, which the index was built with"):
        probing[1].with_history("all")


def test_of_whom_nothing_is_known_is_shown_what_is_popular(dataset):
    recommender = build_recommender(dataset, recommender__popular_diversity=0.0)
    answer = recommender.recommend(["nobody"], k=NUM_ITEMS)
    count = dataset.catalog.train_count
    popular = np.argsort(-count, kind="stable")
    assert answer.item_id[0].tolist() == [ALL[n] for n in popular]
    assert set(answer.modality[0]) == set(answer.history_item[0]) == {""}
    # The probability is the ranking model's all the same.
    own = recommender.rank_ids(
        tf.constant(["nobody"]),
        tf.fill([1, 0], ""),
        tf.constant(answer.item_id.tolist()),
        tf.zeros([1], tf.int64),
        *silent(1),
    )
    np.testing.assert_allclose(answer.probability, own["probability"], rtol=1e-5)
    stranger = recommender.request(
        tf.constant([-1]), tf.fill([1, 4], -1), tf.fill([1, 4], -1.0), tf.zeros([1], tf.int64)
    )
    items = tf.constant([[ALL.index(item) for item in answer.item_id[0]]])
    retrieved = tf.einsum(
        "bd,bcd->bc", stranger.queries, tf.gather(recommender.index.vectors, items)[..., :-1]
    )
    ranked = recommender.ranking.rank(stranger, items, recommender.items, retrieved)
    np.testing.assert_allclose(answer.probability, tf.sigmoid(ranked.score), rtol=1e-4)
    # An excluded item is left out of that, too.
    less = recommender.recommend(["nobody"], exclude=[[ALL[popular[0]]]], k=3)
    assert less.item_id[0].tolist() == [ALL[n] for n in popular[1:4]]
    diversified = build_recommender(dataset, recommender__popular_diversity=0.9)
    other = diversified.recommend(["nobody"], k=10)
    assert other.item_id[0, 0] == ALL[popular[0]]
    assert other.item_id[0].tolist() != answer.item_id[0, :10].tolist()
    # Those of whom something is known are not diversified by it.
    np.testing.assert_array_equal(
        diversified.recommend(["u1"], k=10).item_id, recommender.recommend(["u1"], k=10).item_id
    )
    # A known user without a history has side features that the tower reads.
    known = recommender.recommend([user_id(NEWCOMER)], k=10)
    assert known.item_id[0].tolist() != answer.item_id[0, :10].tolist()


# What is said of it


def test_the_history_s_item_that_is_most_alike(dataset):
    recommender = build_recommender(dataset)
    history = [ALL[n] for n in (4, 9, 14)]
    answer = recommender.recommend(["nobody"], history=[history], k=8)
    embedding = recommender.retrieval.embed_catalog().embedding
    for item, because in zip(answer.item_id[0], answer.history_item[0], strict=True):
        likeness = [embedding[ALL.index(item)] @ embedding[ALL.index(h)] for h in history]
        assert because == history[int(np.argmax(likeness))]
    assert len(set(answer.history_item[0])) > 1


def test_with_target_attention_it_is_the_one_that_weighed_most(dataset):
    recommender = build_recommender(dataset, ranking__target_attention=True)
    for weight in recommender.ranking.pairs.attention.weights:
        weight.assign(np.random.default_rng(2).normal(size=weight.shape))
    history = [4, 9, 14]
    answer = recommender.recommend(["nobody"], history=[[ALL[n] for n in history]], k=8)
    items = tf.constant([[ALL.index(item) for item in answer.item_id[0]]])
    request = recommender.request(
        tf.constant([-1]),
        tf.constant([[*history, -1]]),
        tf.fill([1, 4], -1.0),
        tf.zeros([1], tf.int64),
    )
    ranked = recommender.ranking.rank(request, items, recommender.items, tf.zeros([1, 8]))
    want = [ALL[history[step]] for step in np.argmax(ranked.attention[0], axis=1)]
    assert answer.history_item[0].tolist() == want


def test_the_modality_that_drew_user_and_item_together(dataset):
    settings = {"modalities": ["vector", "text"], "alignment__contrastive_weight": 0.1}
    recommender = build_recommender(dataset, **settings)
    rng = np.random.default_rng(3)
    modalities = rng.normal(size=[NUM_ITEMS, 2, 8]).astype(np.float32)
    recommender.items["modalities"].assign(modalities)
    answer = recommender.recommend(["u1"], k=12)
    read, gap, _ = recommender.read_history(tf.constant([1]), tf.fill([1, 0], ""))
    request = recommender.request(tf.constant([1]), read, gap, tf.zeros([1], tf.int64))
    user = request.queries[0, :8].numpy()
    present, weights = (recommender.items[name].numpy() for name in ("present", "weights"))
    scale, ids = (recommender.items["reasons"][name].numpy() for name in ("scale", "id"))
    seen = set()
    for item, name in zip(answer.item_id[0], answer.modality[0], strict=True):
        number = ALL.index(item)
        share = weights[number] * (modalities[number] @ user) * scale[number]
        share = np.where(present[number], share, -np.inf)
        best = int(np.argmax(share))
        # Not where the id weighs more, or where nothing speaks for it.
        want = ["vector", "text"][best] if share[best] > max(ids[number] @ user, 0) else ""
        assert name == want
        seen.add(name)
    assert seen == {"vector", "text", ""}


def test_probability_is_the_calibrated_logit(dataset):
    plain = build_recommender(dataset)
    calibrated = Recommender(
        plain.retrieval,
        plain.ranking,
        dataset,
        calibration=Calibration("platt", slope=0.5, intercept=-1.0),
        history="train",
    )
    one, two = (r.recommend(["u1", "u2"], k=NUM_ITEMS) for r in (plain, calibrated))
    np.testing.assert_array_equal(one.item_id, two.item_id)
    real = one.item_id != ""
    expit = lambda z: 1 / (1 + np.exp(-z.astype(np.float64)))  # noqa: E731
    np.testing.assert_allclose(one.probability[real], expit(one.score)[real], rtol=1e-4)
    want = expit(0.5 * two.score - 1)[real]
    np.testing.assert_allclose(two.probability[real], want, rtol=1e-4)
    assert (one.probability[~real] == 0).all() and not real.all()


def test_a_model_of_ids_alone_names_no_modality(dataset):
    recommender = build_recommender(dataset, modalities=[])
    answer = recommender.recommend(["u1", "u2"], k=4)
    assert set(answer.modality.ravel()) == {""}
    assert (answer.history_item != "").all()


# Diversity and popularity


def test_diversity_makes_neighbors_less_alike_and_keeps_the_first(dataset):
    users = [user_id(n) for n in range(20)]
    embedding = build_retrieval(dataset).embed_catalog().embedding

    def likeness(answer):
        rows = np.array([[ALL.index(item) for item in row] for row in answer.item_id])
        cosine = np.einsum("bid,bjd->bij", embedding[rows], embedding[rows])
        return cosine[:, ~np.eye(5, dtype=bool)].mean()

    plain = build_recommender(dataset).recommend(users, k=5)
    diverse = build_recommender(dataset, recommender__diversity=0.6).recommend(users, k=5)
    assert likeness(diverse) < likeness(plain) - 0.1
    np.testing.assert_array_equal(plain.item_id[:, 0], diverse.item_id[:, 0])
    assert (np.diff(diverse.score, axis=1) > 0).any()


def test_dampening_takes_popularity_off_the_score(dataset):
    plain, damped = (
        build_recommender(dataset),
        build_recommender(dataset, recommender__popularity_dampening=2.0),
    )
    asked = ALL[:10]
    less = 2.0 * dataset.catalog.log_frequency[:10]
    np.testing.assert_allclose(
        rank(damped, "u1", [], asked), rank(plain, "u1", [], asked) - less, rtol=1e-4, atol=1e-4
    )


# Similar items


def test_similar_items_are_those_with_the_nearest_embeddings(dataset, recommender):
    answer = recommender.similar_items(["i4", "unheard of", "i9"], k=NUM_ITEMS)
    embedding = recommender.retrieval.embed_catalog().embedding
    for row, number in ((0, 4), (2, 9)):
        cosine = embedding @ embedding[number]
        cosine[number] = -np.inf
        order = np.argsort(-cosine, kind="stable")[:-1]
        assert answer.item_id[row].tolist() == [*(ALL[n] for n in order), ""]
        np.testing.assert_allclose(answer.score[row, :-1], cosine[order], rtol=1e-4, atol=1e-5)
    assert set(answer.item_id[1]) == {""} and (answer.score[1] == LOWEST_SCORE).all()
    assert recommender.similar_items([], k=2).item_id.shape == (0, 2)
    with pytest.raises(ConfigError, match="k: wanted at least 1"):
        recommender.similar_items(["i4"], k=0)


# With an index that does not look at every item


@pytest.fixture(scope="module")
def probing(dataset):
    """The same recommender twice: its other index reads one list of twelve."""
    recommender = build_recommender(
        dataset, item__features=False, recommender__popular_diversity=0.0
    )
    vectors = recommender.index.vectors.numpy()
    index = IvfIndex(vectors, np.pad(vectors[:, :-1], [[0, 0], [0, 1]]), num_lists=12, num_probes=1)
    return recommender, recommender.with_index(index)


def test_a_recommender_takes_any_index(probing):
    exact, other = probing
    users = [user_id(n) for n in range(20)]
    few, all_of_them = other.recommend(users, k=12), exact.recommend(users, k=12)
    # One list does not hold twelve items that nobody has met.
    assert ((few.item_id == "").sum(axis=1) > 0).all()
    assert ((all_of_them.item_id == "").sum(axis=1) == 0).all()
    for row in range(20):
        found = few.item_id[row][few.item_id[row] != ""]
        assert not set(found) & set(train_items(exact.dataset, row))
    everything = exact.with_index(probing[1].index)
    everything.index.num_probes.assign(everything.index.num_lists)
    try:
        whole = everything.recommend(users, k=12)
    finally:
        everything.index.num_probes.assign(1)
    np.testing.assert_array_equal(whole.item_id, all_of_them.item_id)
    np.testing.assert_allclose(whole.score, all_of_them.score, rtol=1e-5)


def test_who_asks_for_a_category_or_is_nobody_is_compared_with_every_item(probing):
    exact, other = probing
    users = ["u1", "u2", "nobody", "u3"]
    lists = {"allow": [["genre=night"], [], [], []], "deny": [[], [], [], ["genre=day"]]}
    got, want = (r.recommend(users, **lists, k=8) for r in (other, exact))
    for row in (0, 2, 3):
        np.testing.assert_array_equal(got.item_id[row], want.item_id[row])
    # Who asks for nothing is answered as in any other company.
    alone = other.recommend(["u2"], k=8)
    np.testing.assert_array_equal(got.item_id[1], alone.item_id[0])
    np.testing.assert_array_equal(got.score[1], alone.score[0])
    assert (got.item_id[1] != want.item_id[1]).any()


def test_a_stranger_without_any_list_is_compared_with_every_item(probing):
    """The lists of such a request have no entry at all."""
    exact, other = probing
    for users in (["nobody"], ["u1", "nobody"]):
        got, want = other.recommend(users, k=8), exact.recommend(users, k=8)
        np.testing.assert_array_equal(got.item_id[-1], want.item_id[-1])
        np.testing.assert_array_equal(got.score[-1], want.score[-1])


def test_every_index_says_whether_it_is_exact_and_can_be(probing):
    exact, other = probing
    assert exact.index.exact and not other.index.exact
    query = tf.constant(exact.index.vectors[:3])
    for got, want in zip(
        other.index.exact_search(query, 5), exact.index.search(query, 5), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_exclusions_hold_in_any_index(probing):
    _, other = probing
    first = other.recommend(["u1"], k=3).item_id[0]
    again = other.recommend(["u1"], exclude=[[first[0]]], k=3).item_id[0]
    assert again[:2].tolist() == first[1:].tolist() or first[0] not in again


# Where a user lies


def test_the_embedding_of_a_user_is_what_retrieval_goes_by(dataset):
    recommender = build_recommender(dataset, ranking=False)
    users = ["u1", "u2", "nobody", "a stranger"]
    history = [[], ["i3", "i4"], [], ["i8"]]
    placed = recommender.embed_user_ids(
        tf.constant(users), pad_lists("history", history, 4), *silent(4)
    )
    embedding = placed["embedding"].numpy()
    np.testing.assert_allclose(np.linalg.norm(embedding[[0, 1, 3]], axis=1), 1, rtol=1e-5)
    assert placed["known"].numpy().tolist() == [True, True, False, True]
    cosine = embedding @ recommender.index.vectors.numpy()[:, : embedding.shape[1]].T
    bias = recommender.index.vectors.numpy()[:, embedding.shape[1]]
    scale = np.exp(-recommender.retrieval.log_temperature.numpy())
    answer = recommender.recommend(users, history=history, k=5)
    for row in (0, 1, 3):
        own = {name: scale * cosine[row, n] + bias[n] for n, name in enumerate(ALL)}
        np.testing.assert_allclose(
            answer.score[row], [own[name] for name in answer.item_id[row]], rtol=1e-4
        )


# Speed


def test_the_index_is_never_read_row_by_row_sparsely(recommender, monkeypatch):
    """After one such read TensorFlow copies the whole table before every search."""
    index = ExactIndex(recommender.index.vectors.numpy())
    fresh, found = recommender.with_index(index), []
    plain = type(index.vectors).sparse_read

    def sparse_read(variable, *arguments, **options):
        found.append(variable is index.vectors)
        return plain(variable, *arguments, **options)

    monkeypatch.setattr(type(index.vectors), "sparse_read", sparse_read)
    fresh.recommend([user_id(0)], k=3)
    fresh.similar_items([item_id(0)])
    rank(fresh, user_id(0), [item_id(1)], [item_id(2)])
    assert found and not any(found)


# Several interests


INTERESTS = {"user__history": "attention", "user__interests": 3}


@pytest.fixture(scope="module")
def interested(dataset):
    return build_recommender(dataset, ranking=False, **INTERESTS)


def test_of_several_interests_the_nearest_counts_in_every_way_of_asking(dataset, interested):
    retrieval, users = interested.retrieval, np.arange(NUM_USERS)
    vectors = retrieval.embed(users)
    assert vectors.shape == (NUM_USERS, 3, retrieval.config.dim)
    products = np.einsum("uid,nd->uin", vectors, retrieval.embed_all()) / 0.1
    assert len(np.unique(products.argmax(axis=1)[~np.isin(users, NEWCOMER)])) == 3
    score = products.max(axis=1) + 0.7 * dataset.catalog.log_frequency
    user = 4
    told = rank(interested, user_id(user), [], ALL)
    np.testing.assert_allclose(told, score[user], rtol=1e-4, atol=1e-4)
    met = dataset.histories().pairs(users)
    score[met] = -np.inf
    best = np.argsort(-score, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(retrieval.rank_items(dataset, users, k=10), best)
    known = users[users != NEWCOMER]
    answer = interested.recommend([user_id(n) for n in known], k=10)
    assert answer.item_id.tolist() == [[item_id(n) for n in row] for row in best[known].tolist()]
    # A served user is all of these vectors.
    given = tf.constant([user_id(user)]), tf.fill([1, 0], ""), *silent(1)
    np.testing.assert_allclose(
        interested.embed_user_ids(*given)["embedding"][0], vectors[user], atol=1e-5
    )


@pytest.mark.parametrize("head", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lists_are_read_for_each_interest(dataset, interested, head):
    recommender = build_recommender(dataset, ranking=False, **INTERESTS) if head else interested
    if head:
        add_head(recommender.retrieval)
    index = recommender.index
    asked = recommender.retrieval.queries(recommender.retrieval.embed(np.arange(NUM_USERS)))
    queries = np.pad(asked.numpy().reshape([-1, asked.shape[2]]), [[0, 0], [0, 1]])
    whole = IvfIndex(index.vectors.numpy(), queries, num_lists=5, num_probes=5)
    people = [user_id(n) for n in range(NUM_USERS)] + ["nobody"]
    want = recommender.recommend(people, k=6)
    got = recommender.with_index(whole).recommend(people, k=6)
    np.testing.assert_array_equal(got.item_id, want.item_id)
    np.testing.assert_allclose(got.score, want.score, rtol=1e-4, atol=1e-4)
    few = IvfIndex(index.vectors.numpy(), queries, num_lists=5, num_probes=1)
    found = recommender.with_index(few).recommend(people, k=6)
    # A list an interest, and each item once.
    assert (found.score[:-1] <= want.score[:-1] + 1e-4).all()
    for row in found.item_id.tolist():
        shown = [one for one in row if one]
        assert len(set(shown)) == len(shown) > 0
