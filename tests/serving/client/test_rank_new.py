"""New items are ranked by both clients, or refused in words."""

import asyncio

import numpy as np
import pytest
import tensorflow as tf
from support import toy_export

from mmrec_tf.errors import ConfigError
from serving.client import AsyncClient, Client, ItemEmbeddings, NewRanking
from serving.local_server import LocalServer

REQUEST = (
    "rank_new",
    {
        "user_id": toy_export.strings(b"u1", b"x", b"x"),
        "history": toy_export.strings([b"", b"i1"], [b"", b"i2"], [b"", b""]),
        "time": np.array([0, 9, 9]),
        "embedding": np.ones([3, 1, 2], np.float32),
        "modalities": np.ones([3, 1, 2, 2], np.float32),
        "present": np.ones([3, 1, 2], bool),
        "weights": np.ones([3, 1, 2], np.float32),
        "features": np.full([3, 1, 1], b"", object),
    },
)


class Recommender(toy_export.Recommender):
    """One that ranks new items."""

    @tf.function(
        input_signature=[
            toy_export.spec(toy_export.STRINGS, "user_id"),
            toy_export.spec(toy_export.LISTS, "history"),
            toy_export.spec(toy_export.TIMES, "time"),
            tf.TensorSpec([None, None, 2], tf.float32, name="embedding"),
            tf.TensorSpec([None, None, 2, 2], tf.float32, name="modalities"),
            tf.TensorSpec([None, None, 2], tf.bool, name="present"),
            tf.TensorSpec([None, None, 2], tf.float32, name="weights"),
            tf.TensorSpec([None, None, None], tf.string, name="features"),
        ]
    )
    def rank_new(self, user_id, history, time, embedding, modalities, present, weights, features):
        """The first of the embedding, half of the time, a quarter of the letters of the user's id,
        and the second of the modalities by their weights."""
        score = embedding[:, :, 0] + tf.cast(time, tf.float32)[:, None] / 2
        score += tf.cast(tf.strings.length(user_id), tf.float32)[:, None] / 4
        score += tf.reduce_sum(weights * modalities[..., 1], axis=2)
        real = tf.reduce_any(present, axis=2)
        last = tf.broadcast_to(history[:, -1:], tf.shape(real))
        return {
            "score": tf.where(real, score, -1e9),
            "probability": tf.where(real, tf.sigmoid(score), 0.0),
            "modality": tf.where(real, "text", ""),
            "history_item": tf.where(real, last, ""),
            "unread": tf.reduce_any((features != "") & (features != "genre=owl"), axis=2),
        }

    def signatures(self):
        return {**super().signatures(), "rank_new": self.rank_new}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        requests = [*toy_export.REQUESTS["recommender"], REQUEST]
        patch.setitem(toy_export.REQUESTS, "recommender", requests)
        toy_export.export(root, "recommender", 1, Recommender(1))
    with LocalServer(root, port=0, rest_port=None, poll_seconds=0) as running:
        yield running.address


def new_items(count, **more):
    """As `embed_item` answers; of the last one nothing could be read."""
    present = np.ones([count, 2], bool)
    present[-1] = False
    parts = {
        "embedding": np.arange(2.0 * count, dtype=np.float32).reshape(count, 2),
        "weights": np.full([count, 2], 0.5, np.float32),
        "present": present,
        "unreadable": ~present,
        "modalities": np.ones([count, 2, 2], np.float32),
    }
    return ItemEmbeddings(**{**parts, **more})


def ask(address, users, items, **more):
    """Both clients, which have to say the same."""

    async def whole():
        async with AsyncClient(address) as client:
            return await client.rank_new(users, items, **more)

    with Client(address) as client:
        found = client.rank_new(users, items, **more)
    assert isinstance(found, NewRanking)
    np.testing.assert_equal(asyncio.run(whole()), found)
    return found


def test_new_items_are_ranked_for_each_user(address):
    found = ask(
        address,
        ["u1", "long"],
        new_items(3),
        history=[["i4", "i7"], []],
        time=[4, 0],
        item_features=[["genre=owl"], [], []],
    )
    none = pytest.approx(-1e9)
    assert found.score.tolist() == [[3.5, 5.5, none], [2.0, 4.0, none]]
    assert found.modality.tolist() == [["text", "text", ""]] * 2
    assert found.history_item.tolist() == [["i7", "i7", ""], ["", "", ""]]
    assert found.probability[0, 2] == 0 and found.version == 1


def test_without_users_there_is_nothing_to_rank(address):
    found = ask(address, [], new_items(3))
    assert len(found.score) == len(found.modality) == 0


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        (new_items(2, modalities=None), {}, "wanted an answer of embed_item with modalities"),
        (new_items(2, weights=np.ones([3, 2])), {}, "items: wanted at least one item.*weights"),
        (new_items(1), {"item_features": []}, "item_features: wanted 1 rows"),
        (new_items(2), {"item_features": [[], ["genre=gull"]]}, r"item 1 has \['genre=gull'\]"),
    ],
)
def test_new_items_that_cannot_be_ranked_are_refused(address, items, more, message):
    with Client(address) as client, pytest.raises(ConfigError, match=message):
        client.rank_new(["u1"], items, **more)
