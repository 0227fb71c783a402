"""Scores taken apart: what is added sums to what the recommender says."""

import numpy as np
import pytest
import tensorflow as tf
from support import vector_world
from support.small_world import build_recommender

import mmrec_tf as mm
from mmrec_tf.ranking.attribution import TOLERANCE, integrated_gradients
from mmrec_tf.recommender.contributions import Explainer
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.towers import ItemTower

PEOPLE = ["u1", "u7", "nobody"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return mm.open_dataset(vector_world.write(tmp_path_factory.mktemp("world") / "dataset"))


def drawn(world, **settings):
    """A recommender without ranking whose weights are drawn anew, as if trained."""
    tf.keras.utils.set_random_seed(0)
    config = vector_world.config(**settings)
    model = mm.RetrievalModel(config, world, cache=None, initialize=False)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        if weight.shape.rank:
            weight.assign(0.5 * rng.normal(size=weight.shape))
    if model.item_tower.id_embedding is not None:
        # Not so long that it outweighs everything.
        table = model.item_tower.id_embedding.table
        table.assign(0.2 * table)
    model.popularity_weight.assign(0.7)
    return model


def serve(model):
    return mm.Recommender(model, None, model.dataset, history="train")


def head(model):
    """A head that leads from each item to the two before it."""
    layer = ItemHead(model.schema.num_items, 2)
    number = np.arange(model.schema.num_items)
    layer.neighbors.assign(np.stack([number - 1, number - 2], axis=1).clip(-1))
    layer.values.assign(np.stack([0.7 + 0.01 * number, 0.2 + 0 * number], axis=1))
    model.set_item_head(layer, None)


def place(model):
    """Makes cold items of some, and pulls them toward others; what they were before is returned."""
    warm = model.tables["warm"].numpy()
    warm[[6, 13]] = False
    confidence = np.where(warm, model.tables["confidence"], 0)
    model.state.tables = {**model.tables, "warm": tf.constant(warm), "confidence": confidence}
    before = model.embed_all()
    fit = model.fit_cold_items()
    model.set_cold_items(fit._replace(pull=0.6, offset=0.8, num_neighbors=4))
    return before


CONFIGS = {
    "gated": {"item__fusion": "gated", "user__history": "attention"},
    "concat": {"item__fusion": "concat", "user__hidden": 4, "user__id_embedding": True},
    "token": {"item__fusion": "bilinear", "item__missing": "token", "user__history": "gru"},
    "graph": {
        "graph__layers": 1,
        "graph__content_layers": 1,
        "retrieval__softmax": "full",
        "item__features": True,
        "user__features": True,
    },
    "interests": {"user__history": "attention", "user__interests": 3, "user__id_embedding": True},
    "ids": {"modalities": [], "user__id_embedding": True, "user__history": "none"},
    "head": {},
    "cold": {"cold_items__fit": True, "item__features": True},
    "cold, graph": {
        "cold_items__fit": True,
        "graph__layers": 1,
        "graph__content_layers": 1,
        "retrieval__softmax": "full",
    },
}


@pytest.mark.parametrize(
    "name",
    [
        # What towers sum is held by the towers' own tests, in every fusion and kind of history.
        pytest.param(name, marks=[pytest.mark.slow] if name in ("concat", "token") else [])
        for name in CONFIGS
    ],
)
def test_contributions_sum_to_the_score(world, name):
    model = drawn(world, **CONFIGS[name])
    if name == "head":
        head(model)
    if "cold" in name:
        before = place(model)
    recommender = serve(model)
    if "cold" in name:
        moved = np.abs(model.embed_all() - before).max(axis=1) > 1e-3
        np.testing.assert_array_equal(np.flatnonzero(moved), [6, 13])
    explainer = Explainer(recommender)
    retriever = recommender.retriever
    for user in PEOPLE:
        items = ["i0", "i6", "i13", "i20", "i47"]
        found = explainer.contributions(user, items)
        request, past = explainer.request(user)
        vectors = recommender.index.vectors.numpy()[explainer.numbers(items)]
        nobody = retriever.nobody(request)
        want = (retriever.queries(request, nobody).numpy() @ vectors.T)[0]
        if name == "interests":
            assert user == "nobody" or len(set(want.argmax(axis=0).tolist())) > 1
            want = want.max(axis=0)
        if name == "head":
            number = tf.constant(explainer.numbers(items)[None], tf.int32)
            want = want + model.item_head.score_items(tf.constant(past[None]), number).numpy()[0]
        for one, score in zip(found, want.tolist(), strict=True):
            assert one.total == pytest.approx(score, abs=1e-4)
            assert one.score == pytest.approx(score, abs=1e-5)
            assert sum(one.of_item.values()) == pytest.approx(score, abs=1e-4)
            assert sum(one.of_user.values()) == pytest.approx(score, abs=1e-4)
            assert one.known == (user != "nobody")
        if name == "head" and user != "nobody":
            assert any(one.head for one in explainer.contributions(user, world_items(world)))


def world_items(world):
    return world.catalog.item_id.tolist()


@pytest.mark.parametrize("name", ["gated", "interests"])
def test_what_is_served_names_the_modality_that_the_contributions_name(world, name):
    recommender = serve(drawn(world, **CONFIGS[name]))
    answer = recommender.recommend(PEOPLE, k=12)
    named = set()
    for row, user in enumerate(PEOPLE):
        found = Explainer(recommender).contributions(user, answer.item_id[row].tolist())
        assert [one.modality for one in found] == answer.modality[row].tolist()
        named |= {one.modality for one in found}
    assert named == {"taste", "noise", ""}


@pytest.mark.slow
def test_what_is_served_names_it_where_fusion_is_no_sum(world):
    settings = {"item__fusion": "bilinear", "graph__layers": 1, "retrieval__softmax": "full"}
    recommender = serve(drawn(world, **settings))
    answer = recommender.recommend(PEOPLE, k=12)
    for row, user in enumerate(PEOPLE):
        found = Explainer(recommender).contributions(user, answer.item_id[row].tolist())
        assert [one.modality for one in found] == answer.modality[row].tolist()


def test_a_modality_is_named_only_where_it_outweighs_the_id(world):
    """All else alike, a longer id takes the modality's place."""
    model = drawn(world)
    shares = []
    for factor in (1e-6, 1.0, 1e6):
        table = model.item_tower.id_embedding.table
        before = table.numpy()
        table.assign(before * factor)
        found = Explainer(serve(model)).contributions("u1", world.catalog.item_id.tolist())
        # Where the id speaks for it at all.
        for_it = [one for one in found if one.of_item["id"] > 0]
        shares.append(np.mean([one.modality != "" for one in for_it]))
        table.assign(before)
    assert shares[0] > shares[1] > shares[2] == 0.0


def test_the_history_is_dealt_out_and_given_ones_take_its_place(world):
    explainer = Explainer(serve(drawn(world)))
    one = explainer.contributions("nobody", ["i9"], history=["i0", "i3"])[0]
    assert list(one.of_history) == ["i0", "i3"]
    assert one.of_user["history"] == pytest.approx(sum(one.of_history.values()))
    alone = explainer.contributions("nobody", ["i9"], history=["i0"])[0]
    assert np.sign(alone.of_history["i0"]) == np.sign(one.of_history["i0"])
    plain = one.to_json()
    assert plain["score"] == one.score and plain["history"] == one.of_history
    with pytest.raises(mm.ConfigError, match="got 'i99'"):
        explainer.contributions("u1", ["i1", "i99"])


@pytest.mark.slow
def test_the_named_cause_is_the_planted_one(world):
    """Users follow taste: trained, taste is named, and an item of the history of that taste."""
    # Ids would learn so small a world by heart, and outweigh what it was made by.
    config = vector_world.config(item__id_embedding=False, training__epochs=15)
    model = mm.RetrievalModel(config, world, cache=None)
    mm.train(model, world)
    recommender = serve(model)
    users = [f"u{n}" for n in range(40)]
    answer = recommender.recommend(users, k=3)
    explainer, right = Explainer(recommender), []
    for row, user in enumerate(users):
        for one in explainer.contributions(user, answer.item_id[row].tolist()):
            cause = one.history_item
            cluster = vector_world.taste(int(cause[1:])) if cause else -1
            right.append(cluster == row % vector_world.NUM_CLUSTERS and one.modality == "taste")
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize("architecture", ["dcn", "dlrm"])
def test_integrated_gradients_are_complete(dataset, architecture):
    recommender = build_recommender(
        dataset,
        **VECTORS_AND_ALL,
        ranking__architecture=architecture,
    )
    explainer = Explainer(recommender)
    request, _ = explainer.request("u1")
    vectors = recommender.index.vectors.numpy()
    for item in (0, 7, 28):
        retrieved = float(request.queries.numpy()[0] @ vectors[item, :-1])
        found = integrated_gradients(
            recommender.ranking, request, item, retrieved, items=recommender.items
        )
        number = tf.constant([[item]])
        want = recommender.ranking.rank(
            request, number, recommender.items, tf.constant([[retrieved]])
        ).score[0, 0]
        assert found.score == pytest.approx(float(want), abs=1e-4)
        whole = found.score - found.baseline
        assert sum(found.values.values()) == pytest.approx(whole, abs=TOLERANCE * abs(whole))
        assert {"retrieval score", "user", "item", "vector", "history"} <= found.values.keys()
        assert found.history.sum() == pytest.approx(found.values["history"], abs=1e-4)


def test_a_linear_model_owes_each_thing_what_it_multiplies(dataset):
    """Heads of zeros leave the retrieval score times its factor."""
    recommender = build_recommender(dataset)
    model = recommender.ranking
    for layer in model.heads:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    model.factor.assign([2.5])
    request, _ = Explainer(recommender).request("u1")
    found = integrated_gradients(model, request, 3, 0.8)
    assert found.values.pop("retrieval score") == pytest.approx(2.0, abs=1e-5)
    assert all(abs(value) < 1e-6 for value in found.values.values())


VECTORS_AND_ALL = {
    "ranking__target_attention": True,
    "ranking__features": True,
    "ranking__context": ("hour",),
}


def test_a_tower_of_ones_own_is_served_and_not_explained(world):
    class Own(ItemTower):
        def call(self, inputs, training=False):
            return super().call(inputs, training=training)

    class Model(mm.RetrievalModel):
        def make_item_tower(self):
            return Own.from_experiment(self.config, self.schema, name="item_tower")

    recommender = serve(Model(vector_world.config(), world, cache=None))
    assert recommender.items["reasons"] == {}
    with pytest.raises(mm.ConfigError, match="got Own"):
        Explainer(recommender).contributions("u1", ["i1"])
