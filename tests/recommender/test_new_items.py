"""New items: scored as they will be once they are published."""

import numpy as np
import pytest
import tensorflow as tf
from support.small_world import COLD, build_recommender, item_id, user_id

from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.recommender.new_items import NewItems
from mmrec_tf.schema import LOWEST_SCORE

USERS = [user_id(0), user_id(7), "stranger", "nobody"]
HISTORY = [["", ""], ["i1", "i4"], ["i2", "i8"], ["", ""]]
TIME = [0, 5 * 3600, 0, 0]
# Nobody met them in train, and they have the one modality that the model reads.
NEW = [n for n in COLD if n % 5 != 3]


def rows_of(recommender, items):
    """What the catalog holds of some items, the same for each of the users."""
    tables = {n: recommender.items[n].numpy() for n in ("modalities", "present", "weights")}
    vectors = recommender.index.vectors.numpy()[:, : recommender.config.dim]
    found = {"embedding": vectors[items], **{n: table[items] for n, table in tables.items()}}
    return {n: np.repeat(value[None], len(USERS), axis=0) for n, value in found.items()}


def new(recommender, rows, *, features=None, users=USERS, history=HISTORY):
    size, count = rows["embedding"].shape[:2]
    if features is None:
        features = np.full([size, count, 1], "", object)
    answer = NewItems(recommender).rank(
        recommender,
        tf.constant(users, tf.string),
        tf.constant(history, tf.string),
        tf.constant(TIME, tf.int64),
        *(tf.constant(rows[n]) for n in ("embedding", "modalities", "present", "weights")),
        tf.constant(features.tolist(), tf.string, shape=features.shape),
    )
    return {name: value.numpy() for name, value in answer.items()}


def published(recommender, items):
    answer = recommender.rank_ids(
        tf.constant(USERS, tf.string),
        tf.constant(HISTORY, tf.string),
        tf.constant([[item_id(n) for n in items]] * len(USERS), tf.string),
        tf.constant(TIME, tf.int64),
        tf.fill([len(USERS)], ""),
        tf.fill([len(USERS), 0], ""),
    )
    return {name: value.numpy() for name, value in answer.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"ranking": False},
        {"ranking__features": False},
        {"ranking__features": False, "ranking__target_attention": True},
        {"ranking__features": False, "retrieval__cold_negatives": True},
        {"ranking__features": False, "recommender__popularity_dampening": 0.5, "history": "all"},
    ],
    ids=["retrieval alone", "both stages", "target attention", "cold negatives", "dampening"],
)
def test_a_cold_item_scores_the_same_as_in_the_catalog(dataset, settings):
    recommender = build_recommender(
        dataset,
        calibration=Calibration("platt", slope=0.7, intercept=-0.2),
        item__features=False,
        **settings,
    )
    got, want = new(recommender, rows_of(recommender, NEW)), published(recommender, NEW)
    # What was met in valid and test is dampened for that; a new item was not.
    met = dataset.known_count(recommender.history)[NEW]
    dampening = recommender.config.recommender.popularity_dampening
    known = slice(0, 3) if dampening else slice(None)  # Strangers are shown what is popular.
    expected = want["score"] + dampening * np.log(met + 1.0)
    np.testing.assert_allclose(got["score"][known], expected[known], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["probability"], want["probability"], rtol=1e-4, atol=1e-5)
    assert np.ptp(got["score"]) > 0.01 and (met > 0).any() == bool(dampening)


def test_it_is_said_why(dataset):
    recommender = build_recommender(dataset, item__features=False, ranking__features=False)
    got = new(recommender, rows_of(recommender, NEW))
    # Where the vector speaks against it, it is no reason.
    assert set(got["modality"][0].tolist()) == {b"vector", b""}
    assert set(got["history_item"][1]) <= {b"i1", b"i4"} and set(got["history_item"][3]) == {b""}
    assert got["modality"][3].tolist() == [b""] * 2


def test_a_row_without_a_modality_stands_for_no_item(dataset):
    recommender = build_recommender(dataset, item__features=False, ranking__features=False)
    rows = rows_of(recommender, NEW)
    whole = new(recommender, rows)
    blank = {name: value.copy() for name, value in rows.items()}
    blank["present"][:, 0] = False
    blank["embedding"][:, 0] = np.nan
    got = new(recommender, blank)
    assert (got["score"][:, 0] == LOWEST_SCORE).all() and (got["probability"][:, 0] == 0).all()
    assert (got["modality"][:, 0] == b"").all() and (got["history_item"][:, 0] == b"").all()
    for name in ("score", "probability"):
        np.testing.assert_allclose(got[name][:, 1], whole[name][:, 1], rtol=1e-5)


def test_side_features_count_where_ranking_reads_them(dataset):
    recommender = build_recommender(dataset, item__features=False, ranking__features=True)
    rows = rows_of(recommender, NEW)
    entries = np.full([len(USERS), 2, 2], "", object)
    plain = new(recommender, rows, features=entries)
    entries[:, 1] = ["genre=night", "price=3.5"]
    told = new(recommender, rows, features=entries)
    assert not told["unread"].any()
    known = ~np.isclose(told["score"], plain["score"], rtol=1e-4)
    assert known[:3].tolist() == [[False, True]] * 3
    entries[0, 0, 0] = "color=red"
    assert new(recommender, rows, features=entries)["unread"].tolist() == [
        [True, False],
        *[[False, False]] * 3,
    ]
