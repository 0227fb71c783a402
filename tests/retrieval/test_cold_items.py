"""Cold items: placed by hand, found by a simulated cold start, on disk, served and exported."""

import json

import numpy as np
import pytest
import tensorflow as tf
from support import small_world, vector_world
from support.small_world import COLD, build_retrieval

from mmrec_tf import Recommender, RetrievalModel, load_run, open_dataset
from mmrec_tf.config import Config
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.exporting.allowed_ops import other_ops
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.recommender.new_items import NewItems
from mmrec_tf.retrieval import cold_items_fit
from mmrec_tf.retrieval.cold_items import (
    blended,
    near_items,
    nearest,
    place,
    pulled,
    pulled_parts,
)
from mmrec_tf.retrieval.cold_items_fit import ColdItemsFit, Found, Lists, Simulation
from mmrec_tf.retrieval.cold_start import simulated_lists
from mmrec_tf.retrieval.embedding_parts import catalog_parts
from mmrec_tf.retrieval.item_graph import CatalogGraph, interaction_graph
from mmrec_tf.runs.train import train_run
from mmrec_tf.runs.warm_start import reembed
from mmrec_tf.training.stage import Stage

FIT = ColdItemsFit(
    3, 0.6, 0.8, "recall@10", 4, 20, 30, 0.1, Found(0.1, 0.5, 0.0), Found(0.2, 0.4, 0.1)
)
# Nobody met them in train, and they have the one modality that the model reads.
PLACED = [n for n in COLD if n % 5 != 3]


def units(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def placed(dataset):
    """A model of drawn weights that places cold items."""
    model = build_retrieval(dataset, cold_items__fit=True, item__features=False)
    model.set_cold_items(FIT)
    return model


# Neighbors


def test_neighbors_weigh_by_how_much_nearer_they_are_than_the_next_item():
    angle = np.array([0.0, 0.1, 0.2, 0.3, 1.0])
    warm = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    row, weight = nearest(tf.constant([[1.0, 0.0]]), tf.constant(warm), 3)
    np.testing.assert_array_equal(row, [[0, 1, 2]])
    nearer = np.cos(angle[:3]) - np.cos(angle[3])
    np.testing.assert_allclose(weight[0], nearer / nearer.sum(), rtol=1e-3)


def test_where_the_last_neighbor_changes_nothing_jumps():
    """A hair nearer or farther than the next item, the last one counts next to nothing."""
    angle, vectors = np.array([0.0, 0.3, 0.3001, 1.0]), units(4, 2)
    warm = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    found = []
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        row, weight = nearest(tf.constant([[1.0, 0.0]]), tf.constant(warm), 2)
        own = tf.constant([[1.0, 0.0]])
        found.append(pulled(own, tf.gather(vectors[order], row), weight, 0.9).numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_of_fewer_warm_items_all_count_and_of_equal_ones_alike():
    row, weight = nearest(tf.constant(units(2, 4)), tf.constant(units(3, 4, seed=1)), 20)
    assert row.shape == weight.shape == (2, 3)
    np.testing.assert_allclose(tf.reduce_sum(weight, axis=1), [1, 1], rtol=1e-6)
    same = tf.constant(np.repeat(units(1, 4), 5, axis=0))
    np.testing.assert_allclose(nearest(same[:1], same, 4)[1], [[0.25] * 4], rtol=1e-3)


def test_a_pull_goes_from_the_own_vector_to_the_mean_of_the_neighbors():
    own, vectors = tf.constant(units(3, 4)), tf.constant(units(3, 5, 4, seed=1))
    weight = tf.constant(np.full([3, 5], 0.2, np.float32))
    np.testing.assert_allclose(pulled(own, vectors, weight, 0.0), own, rtol=1e-5)
    mean = vectors.numpy().mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(pulled(own, vectors, weight, 1.0), mean, rtol=1e-4)
    half = pulled(own, vectors, weight, 0.5).numpy()
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.einsum("bd,bd->b", half, own - mean), 0, atol=1e-5)


def test_parts_are_pulled_as_their_sums_are():
    rng = np.random.default_rng(0)
    parts, own = rng.normal(size=(3, 5, 2, 4)), rng.normal(size=(3, 2, 4))
    for each in (parts, own):
        each /= np.linalg.norm(each.sum(axis=-2), axis=-1)[..., None, None]
    weight = rng.dirichlet(np.ones(5), size=3).astype(np.float32)
    found = pulled_parts(own, parts, weight, 0.7)
    sums = [tf.constant(each.sum(axis=-2), tf.float32) for each in (own, parts)]
    want = pulled(*sums, tf.constant(weight), 0.7)
    np.testing.assert_allclose(found.sum(axis=1), want, atol=1e-5)


def test_confidence_is_the_share_of_the_own_vector():
    own, placed = units(3, 4, seed=1), units(3, 4, seed=2)
    confidence = np.array([0, 0.25, 1], np.float32)
    got = blended(own, placed, confidence)
    np.testing.assert_array_equal(got[0], placed[0])
    mixed = 0.25 * own[1] + 0.75 * placed[1]
    np.testing.assert_allclose(got[1], mixed / np.linalg.norm(mixed), atol=1e-6)
    np.testing.assert_allclose(got[2], own[2], atol=1e-6)
    halves = blended(*(np.stack([v / 4, 3 * v / 4], axis=1) for v in (own, placed)), confidence)
    np.testing.assert_allclose(halves.sum(axis=1), got, atol=1e-6)


def test_a_catalog_is_gone_through_in_blocks(monkeypatch):
    content, vectors = units(9, 4), units(9, 4, seed=1)
    items, among = np.array([0, 3, 8]), np.array([1, 2, 4, 5])
    whole = place(vectors, content, items, among, num_neighbors=2, pull=0.5)
    monkeypatch.setattr("mmrec_tf.retrieval.cold_items.MAX_CELLS", 4)
    assert len(list(near_items(content, items, among, 2))) == 3
    parts = place(vectors, content, items, among, num_neighbors=2, pull=0.5)
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    assert place(vectors, content, items[:0], among, num_neighbors=2, pull=0.5).shape == (0, 4)


# The simulation


def histories(*users):
    offset = np.concatenate([[0], np.cumsum([len(items) for items in users])])
    return Histories(np.concatenate(users).astype(np.int32), offset, None)


def test_what_is_asked_for_is_in_no_history():
    liked = histories([0, 1, 2, 3], [3, 4, 0], [], [5, 1])
    may = np.array([True, True, True, True, True, False])
    drawn = cold_items_fit.simulate(liked, may, share=0.4, seed=3)
    assert drawn.hidden.sum() == 2 and not drawn.hidden[5]
    for at, user in enumerate(drawn.users.tolist()):
        wanted = drawn.wanted[drawn.offset[at] : drawn.offset[at + 1]].tolist()
        left = drawn.histories.of(user).tolist()
        assert sorted([*wanted, *left]) == sorted(liked.of(user).tolist())
        assert wanted and left and not drawn.hidden[left].any()
        assert set(np.flatnonzero(drawn.hidden)) & set(liked.of(user).tolist()) <= set(wanted)
    theirs = np.concatenate([liked.of(user) for user in drawn.users])
    assert drawn.share == pytest.approx(drawn.hidden[theirs].mean())


def test_the_same_seed_hides_the_same_and_few_items_hide_none():
    liked, may = histories([0, 1, 2], [2, 3, 4]), np.ones(5, bool)
    one, two = (cold_items_fit.simulate(liked, may, share=0.4, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one.hidden, two.hidden)
    np.testing.assert_array_equal(one.wanted, two.wanted)
    few = cold_items_fit.simulate(liked, np.arange(5) < 2, share=0.4, seed=1)
    assert not few.hidden.any() and not len(few.users)


def simulation(hidden, wanted, num_items):
    offset = np.concatenate([[0], np.cumsum([len(items) for items in wanted])])
    cold = np.isin(np.arange(num_items), hidden)
    users, all_wanted = np.arange(len(wanted)), np.concatenate(wanted)
    return Simulation(cold, histories(*[[] for _ in wanted]), users, offset, all_wanted, 0.5)


def test_counts_are_those_of_lists_that_are_sorted():
    """Whatever the offset, the hits and the places are those of the whole list's first k."""
    rng = np.random.default_rng(0)
    hidden, warm = np.array([1, 4, 6]), np.array([0, 2, 3, 5, 7, 8])
    drawn = simulation(hidden, [[1, 2], [4, 6, 0], [8]], 9)
    lists = Lists(0, rng.normal(size=(3, 6)), [rng.normal(size=(3, 3)) for _ in range(2)])
    lists.warm[0, 4] = -np.inf
    offsets = np.array([-3.0, -0.4, 0.0, 0.7, 3.0])
    found = cold_items_fit.count(lists, drawn, offsets, warm, k=3)
    for pull in range(2):
        for at, offset in enumerate(offsets.tolist()):
            scores = np.zeros([3, 9])
            scores[:, warm], scores[:, hidden] = lists.warm, lists.hidden[pull] + offset
            top = np.argsort(-scores, axis=1)[:, :3]
            assert found.shown[pull, at] == np.isin(top, hidden).sum()
            row = np.repeat(np.arange(3), np.diff(drawn.offset))
            want = [item in top[user] for user, item in zip(row, drawn.wanted, strict=True)]
            np.testing.assert_array_equal(found.hits[pull, at], want)
    recalls = cold_items_fit.recalls(found.hits, drawn)
    hits = found.hits[0, 2].astype(float)
    np.testing.assert_allclose(recalls[0, 0, 2], np.mean([hits[0], hits[2:4].mean()]))
    np.testing.assert_allclose(recalls[1, 0, 2], np.mean([hits[1], hits[4], hits[5]]))


def test_hidden_items_take_no_more_places_than_they_may():
    found = np.zeros([3, 2, 3])
    found[0] = [[0.1, 0.2, 0.9], [0.3, 0.5, 0.8]]
    found[2] = [[0.0, 0.1, 0.5], [0.05, 0.2, 0.6]]
    offsets = np.array([-1.0, 0.0, 1.0])
    assert cold_items_fit.choose(found, offsets, most=0.1) == (1, 0)
    assert cold_items_fit.choose(found, offsets, most=0.5) == (0, 2)
    # Always too many: the lowest.
    assert cold_items_fit.choose(found, offsets, most=-1) == (1, 0)


def test_a_graph_forgets_who_met_hidden_items():
    user, item = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    whole = interaction_graph(user, item, num_users=3, num_items=3)
    graph = CatalogGraph(interactions=whole, layers=1)
    kept = item != 1
    less = interaction_graph(user[kept], item[kept], num_users=3, num_items=3)
    vectors = tf.constant(units(3, 4))
    got = graph.without(np.array([False, True, False])).smooth(vectors)
    np.testing.assert_allclose(
        got, CatalogGraph(interactions=less, layers=1).smooth(vectors), rtol=1e-6
    )
    assert np.abs(got - graph.smooth(vectors)).max() > 0.01


@pytest.mark.parametrize(
    ("head", "interests"), [("none", 1), ("none", 2), ("ease", 1), ("content", 1)]
)
def test_simulated_scores_are_those_of_a_catalog_that_never_met_the_items(world, head, interests):
    """The same towers on tables in which the hidden items are cold; of a head, none of what it
    learned of them, but what their content says."""
    config = vector_world.config(
        cold_items__fit=True,
        item_head__kind=head,
        graph__layers=1,
        retrieval__softmax="full",
        **({"user__interests": 2, "user__history": "attention"} if interests == 2 else {}),
    )
    model = RetrievalModel(config, world, cache=None)
    model.item_tower.id_embedding.table.assign(0.5 * units(48, 8))
    model.popularity_weight.assign(0.7)
    if head != "none":
        model.set_item_head(model.make_item_head(), None)
    liked = world.histories()
    drawn = cold_items_fit.simulate(liked, model.near_items(), share=0.2, seed=1)
    hidden, warm = np.flatnonzero(drawn.hidden), np.flatnonzero(~drawn.hidden)
    found = list(simulated_lists(model, drawn))
    (warm_scores,), (cold_scores,) = ([part.warm for part in found], [p.hidden[0] for p in found])

    count = np.bincount(liked.item[~drawn.hidden[liked.item]], minlength=48)
    rare = np.log(1.0) - np.log(np.mean(count + 1.0))
    frequency = np.where(drawn.hidden, rare, model.tables["log_frequency"].numpy())
    model.state.tables = {
        **model.tables,
        "warm": tf.constant(~drawn.hidden),
        "log_frequency": tf.constant(frequency, tf.float32),
    }
    model.state.graph = model.state.graph.without(drawn.hidden)
    embedding = tf.constant(model.embed_all())
    queries = model.queries(model.embed_histories(drawn.histories, embedding, drawn.users))
    want = queries.numpy() @ model.catalog_candidates(embedding).numpy().T
    # Of several vectors of a user the nearest counts.
    want = want.reshape(len(want), -1, want.shape[-1]).max(axis=1)
    if head != "none":
        past = tf.constant(drawn.histories.last(drawn.users, 7))
        added = model.item_head(past).numpy()
        want += added if head == "content" else np.where(drawn.hidden, 0, added)
    known = np.zeros(want.shape, bool)
    known[drawn.histories.pairs(drawn.users)] = True
    assert known.any() and not known[:, hidden].any()
    np.testing.assert_allclose(cold_scores, want[:, hidden], atol=1e-4)
    np.testing.assert_allclose(warm_scores, np.where(known, -np.inf, want)[:, warm], atol=1e-4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return open_dataset(vector_world.write(tmp_path_factory.mktemp("cold") / "dataset"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    config = vector_world.config(
        training__epochs=2,
        cold_items__fit=True,
        cold_items__num_neighbors=4,
        cold_items__hidden_share=0.25,
    )
    return train_run(world, config, tmp_path_factory.mktemp("cold") / "run")


def test_a_fit_leaves_the_model_as_it_was(run):
    """What was hidden is there again, bit for bit."""
    model = run.retrieval
    fit = model.cold_items_fit
    model.set_cold_items(None)
    before = model.catalog_candidates(model.embed_all()).numpy()
    found = model.fit_cold_items()
    assert found == fit
    model.set_cold_items(None)
    np.testing.assert_array_equal(model.catalog_candidates(model.embed_all()), before)
    model.set_cold_items(fit)


def test_a_fit_finds_hidden_items_and_says_so(run, capsys):
    fit = run.retrieval.cold_items_fit
    # A quarter of 48 warm items.
    assert (fit.num_hidden, fit.num_warm, fit.monitor) == (12, 36, "recall@10")
    assert 0.2 < fit.wanted < 0.3 and fit.users > 30
    assert fit.with_fit.hidden >= fit.without.hidden or fit.without.shown > fit.wanted
    assert fit.with_fit.shown <= fit.wanted + 1e-9
    assert f"pull {fit.pull:g} toward 4 neighbors" in str(fit)
    assert run.metrics["cold_items"] == fit.to_json()
    run.retrieval.finish()
    assert "cold items (12 of 48 warm items hidden" in capsys.readouterr().err


def test_a_higher_exposure_gives_more_places(run):
    model = run.retrieval
    fit, config = model.cold_items_fit, model.config
    try:
        model.config = config.override({"cold_items.exposure": 2.5})
        more = model.fit_cold_items()
    finally:
        model.config = config
        model.set_cold_items(fit)
    assert fit.with_fit.shown < more.with_fit.shown <= 2.5 * fit.wanted + 1e-9


def test_a_pull_that_is_given_is_kept(run):
    model = run.retrieval
    fit, config = model.cold_items_fit, model.config
    try:
        model.config = config.override({"cold_items.pull": 0.4})
        given = model.fit_cold_items()
    finally:
        model.config = config
        model.set_cold_items(fit)
    assert given.pull == 0.4 and given.without == fit.without
    assert given.with_fit.shown <= fit.wanted + 1e-9


def test_neither_valid_nor_test_is_read(run, world, monkeypatch):
    wanted = type(world).interactions

    def interactions(dataset, split):
        assert split == "train"
        return wanted(dataset, split)

    monkeypatch.setattr(type(world), "interactions", interactions)
    assert run.retrieval.fit_cold_items() is not None


def test_a_run_is_loaded_with_it(run, world, tmp_path):
    loaded = load_run(run.directory)
    assert loaded.cold_items_fit == run.retrieval.cold_items_fit
    model = loaded.retrieval
    np.testing.assert_allclose(model.embed_all(), run.retrieval.embed_all(), atol=1e-6)
    recommender, _ = reembed(
        loaded, open_dataset(vector_world.write(tmp_path / "more", num_items=50))
    )
    assert recommender.retrieval.cold_items_fit == model.cold_items_fit


@pytest.mark.parametrize("change", [{"pull": 2}, {"num_neighbors": 0}, {"other": 1}])
def test_a_damaged_fit_is_named(change):
    assert ColdItemsFit.from_json(FIT.to_json()) == FIT
    with pytest.raises(RunError, match="cold items: wanted"):
        ColdItemsFit.from_json({**FIT.to_json(), **change})


def test_training_drops_what_was_fitted_before(placed, monkeypatch):
    monkeypatch.setattr(Stage, "fit", lambda model, *args, **kwargs: None)
    try:
        placed.fit()
        assert placed.cold_items_fit is None
    finally:
        placed.set_cold_items(FIT)


# Where it counts


def test_cold_items_with_content_move_and_no_others(placed, dataset):
    plain = build_retrieval(dataset, item__features=False)
    moved = np.abs(placed.embed_all() - plain.embed_all()).max(axis=1) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(moved), PLACED)
    np.testing.assert_allclose(placed.embed_catalog().embedding, placed.embed_all(), atol=1e-6)
    vectors, before = (m.catalog_candidates(m.embed_all()).numpy() for m in (placed, plain))
    lifted = vectors[:, -1] - before[:, -1]
    np.testing.assert_allclose(lifted[PLACED], FIT.offset, rtol=1e-5)
    assert not np.delete(lifted, PLACED).any()
    # By content alone they stand where their content lies.
    one, two = (m.embed_catalog(content_only=True).embedding for m in (placed, plain))
    np.testing.assert_array_equal(one, two)


def met(dataset):
    """How often train met each item, and how often more than two in five of those that it met."""
    count = np.bincount(dataset.histories().item, minlength=len(dataset.catalog.item_id))
    return count, int(np.quantile(count[count > 0], 0.4)) + 1


def test_an_item_of_few_interactions_stands_between_both(dataset):
    """Where its id and clicks place it, and where it would be without any."""
    settings = {"cold_items__fit": True, "item__features": False}
    plain = build_retrieval(dataset, **settings)
    count, few = met(dataset)
    model = build_retrieval(dataset, **settings, cold_items__warm_up=few)
    rare = np.flatnonzero((count > 0) & (count < few) & model.has_content())
    known = np.flatnonzero(count >= few)
    assert len(rare) > 2 and len(known) > 3
    for one in (plain, model):
        one.popularity_weight.assign(0.7)
        one.set_cold_items(FIT)
    np.testing.assert_allclose(model.tables["confidence"][rare], count[rare] / few, atol=1e-6)
    own, embedding = plain.embed_all(), model.embed_all()
    np.testing.assert_array_equal(embedding[known], own[known])
    content = model.embed_catalog(content_only=True).embedding
    near = np.flatnonzero(model.near_items())
    assert set(near) <= set(known)
    placed = place(own, content, rare, near, num_neighbors=3, pull=0.6)
    share = (count[rare] / few)[:, None]
    want = share * own[rare] + (1 - share) * placed
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding[rare], want, atol=1e-5)
    bias, before = (m.catalog_candidates(m.embed_all()).numpy()[:, -1] for m in (model, plain))
    as_cold = before[PLACED[0]]
    want = share[:, 0] * before[rare] + (1 - share[:, 0]) * as_cold
    np.testing.assert_allclose(bias[rare], want, atol=1e-5)
    np.testing.assert_allclose(np.delete(bias, rare), np.delete(before, rare), atol=1e-6)
    catalog = model.embed_catalog()
    np.testing.assert_allclose(catalog.embedding, embedding, atol=1e-6)
    parts = catalog_parts(model, catalog)
    np.testing.assert_allclose(parts.sum(axis=1), embedding, atol=1e-5)
    np.testing.assert_allclose(catalog_parts(model, catalog, rare), parts[rare], atol=1e-6)


def test_without_a_pull_few_interactions_still_count_by_their_number(dataset):
    warm_up = met(dataset)[1]
    model = build_retrieval(dataset, cold_items__fit=True, cold_items__warm_up=warm_up)
    model.set_cold_items(FIT._replace(pull=0.0, offset=0.0))
    assert model.places_items
    plain = build_retrieval(dataset, cold_items__fit=True)
    plain.set_cold_items(FIT._replace(pull=0.0, offset=0.0))
    assert not plain.places_items
    moved = np.abs(model.embed_all() - plain.embed_all()).max(axis=1) > 1e-4
    confidence = model.tables["confidence"]
    assert moved.any() and not moved[(confidence == 0) | (confidence == 1)].any()


def test_evaluation_and_lists_go_by_it(placed, dataset):
    users = np.arange(12)
    recommender = Recommender(placed, None, dataset, history="train")
    top = placed.rank_items(dataset, users, k=10)
    np.testing.assert_array_equal(recommender.rank_items(dataset, users, k=10), top)
    placed.set_cold_items(None)
    without = placed.rank_items(dataset, users, k=10)
    placed.set_cold_items(FIT)
    assert np.isin(top, PLACED).sum() > np.isin(without, PLACED).sum()


def contents(dataset, rows):
    return tf.constant(dataset.catalog.content["vector"][rows][:, None])


def test_a_fresh_item_is_where_and_what_it_will_be_once_it_is_published(placed, dataset):
    recommender = Recommender(placed, None, dataset, history="train")
    encoder = EncoderServable(placed, dataset.catalog.item_id, k=3)
    fresh = encoder.embed_item(contents(dataset, PLACED))
    vectors = recommender.index.vectors.numpy()
    np.testing.assert_allclose(fresh["embedding"], vectors[PLACED, :-2], atol=1e-5)
    users, size = [small_world.user_id(0), "stranger"], len(PLACED)
    history = tf.constant([["", ""], ["i1", "i4"]])
    tables = ("embedding", "modalities", "present", "weights")
    got = NewItems(recommender).rank(
        recommender,
        tf.constant(users),
        history,
        tf.zeros([2], tf.int64),
        *(tf.repeat(fresh[name][None], 2, axis=0) for name in tables),
        tf.fill([2, size, 1], ""),
    )
    want = recommender.rank_ids(
        tf.constant(users),
        history,
        tf.constant([[small_world.item_id(n) for n in PLACED]] * 2),
        tf.zeros([2], tf.int64),
        tf.fill([2], ""),
        tf.fill([2, 0], ""),
    )
    np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)


def test_an_item_without_content_stays(placed, dataset):
    encoder = EncoderServable(placed, dataset.catalog.item_id, k=3)
    nothing = encoder.embed_item(tf.zeros([1, 1, 6]))
    plain = build_retrieval(dataset, item__features=False)
    want = EncoderServable(plain, dataset.catalog.item_id, k=3).embed_item(tf.zeros([1, 1, 6]))
    np.testing.assert_array_equal(nothing["embedding"], want["embedding"])


def test_the_export_answers_as_python_does_with_core_ops_alone(placed, dataset, tmp_path):
    servable = EncoderServable(placed, dataset.catalog.item_id, k=3)
    signatures = {"embed_item": servable.embed_item}
    tf.saved_model.save(servable, str(tmp_path), signatures=signatures)
    assert not other_ops(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path)).signatures["embed_item"]
    raw = contents(dataset, [*PLACED, 3])
    got, want = loaded(vector=raw), servable.embed_item(raw)
    np.testing.assert_allclose(got["embedding"], want["embedding"], atol=1e-6)
    alone = loaded(vector=raw[:1])["embedding"]
    np.testing.assert_allclose(alone, got["embedding"][:1], atol=1e-6)


# Settings


def test_it_is_refused_where_it_has_no_effect():
    with pytest.raises(ConfigError, match=r"cold_items.num_neighbors: .* while cold_items.fit"):
        Config().override({"cold_items.num_neighbors": 5})
    with pytest.raises(ConfigError, match=r"cold_items.fit: wanted false while modalities"):
        Config().override({"modalities": [], "cold_items.fit": True})
    for name, value in {
        "num_neighbors": 0,
        "hidden_share": 0.0,
        "exposure": 0.0,
        "pull": 1.5,
    }.items():
        with pytest.raises(ConfigError, match=f"cold_items.{name}: wanted"):
            Config().override({"cold_items.fit": True, f"cold_items.{name}": value})
    config = Config().override({"cold_items.fit": True, "cold_items.warm_up": 5})
    assert config.id_only().cold_items == Config().cold_items


def test_what_the_simulation_cannot_know_is_said(dataset):
    settings = {"retrieval__softmax": "full", "cold_items__fit": True}
    said = build_retrieval(dataset, **settings).remarks()
    assert any("cold_negatives true" in line for line in said)
    said = build_retrieval(dataset, **settings, retrieval__cold_negatives=False).remarks()
    assert not any("cold_negatives true" in line for line in said)
    many = build_retrieval(dataset, **settings, cold_items__warm_up=10_000)
    assert any("cold_items.warm_up: no item" in line for line in many.remarks())
    few = build_retrieval(dataset, **settings, cold_items__warm_up=2)
    assert not any("cold_items.warm_up" in line for line in few.remarks())


def test_the_fit_is_plain_json():
    assert json.loads(json.dumps(FIT.to_json()))["without"]["others"] == 0.5
