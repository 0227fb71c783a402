"""The retrieval model: the score, the loss by its effects, and the ways to compute it."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.retrieval_steps import REPEATED, batch, gradients, logits_of, popular_world
from support.small_world import build_retrieval as build

from mmrec_tf import RetrievalModel
from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval import catalog_tables
from mmrec_tf.runs.train import modality_diagnostics

# The score


def test_queries_and_candidates_make_the_score(dataset):
    model = build(dataset)
    embedding = model.embed_catalog().embedding
    user = model.embed_users(REPEATED["user"], tf.zeros([6, 4, 8]), tf.zeros([6, 4], tf.bool))
    candidates = model.candidates(tf.constant(embedding), model.tables["log_frequency"])
    got = tf.matmul(model.queries(user), candidates, transpose_b=True)
    want = user.numpy() @ embedding.T / 0.1 + 0.7 * dataset.catalog.log_frequency
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert got.shape == (6, small_world.NUM_ITEMS)


def test_a_cold_item_is_placed_by_its_content_and_a_warm_one_by_its_id_too(dataset):
    model = build(dataset)
    before = model.embed_catalog()
    alone = model.embed_catalog(content_only=True)
    model.item_tower.id_embedding.table.assign_add(tf.ones([small_world.NUM_ITEMS, 8]))
    moved = np.abs(model.embed_catalog().embedding - before.embedding).max(axis=1)
    cold = np.isin(np.arange(small_world.NUM_ITEMS), small_world.COLD)
    np.testing.assert_array_equal(moved == 0, cold)
    same = model.embed_catalog(content_only=True).embedding
    np.testing.assert_array_equal(same, alone.embedding)
    np.testing.assert_array_equal(before.embedding[cold], alone.embedding[cold])


def test_an_unknown_user_is_one_of_whom_nothing_is_known(dataset):
    model = build(dataset)
    nothing = tf.zeros([2, 4, 8]), tf.zeros([2, 4], tf.bool)
    before = model.embed_users(tf.constant([-1, 3]), *nothing).numpy()
    # Number 0 is what an unknown user's row is read from: it must not shine through.
    model.user_tower.id_embedding.table.assign_add(tf.ones([small_world.NUM_USERS, 8]))
    tables = model.tables["user_features"]
    tables["age"] = tables["age"] + tf.constant([[3.0, 1.0]])
    after = model.embed_users(tf.constant([-1, 3]), *nothing).numpy()
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 1e-3


# The loss


@pytest.mark.parametrize(
    "correction, hits, mask, hard",
    itertools.product(["none", "counts"], [False, True], [False, True], [0, 2]),
)
def test_in_batch_loss_is_what_it_says(dataset, correction, hits, mask, hard):
    model = build(
        dataset,
        retrieval__sampling_correction=correction,
        retrieval__remove_accidental_hits=hits,
        retrieval__mask_history=mask,
        retrieval__num_hard_negatives=hard,
    )
    item, history = REPEATED["item"].numpy(), REPEATED["history"].numpy()
    logits = logits_of(model, REPEATED)[:, item]
    if correction == "counts":
        logits = logits - np.log(dataset.catalog.probability[item])
    losses = []
    for row in range(len(item)):
        negatives = [
            logits[row, other]
            for other in range(len(item))
            if other != row
            and not (hits and item[other] == item[row])
            and not (mask and item[other] in history[row])
        ]
        if hard:
            negatives = sorted(negatives)[-hard:]
        losses.append(np.log(np.exp([logits[row, row], *negatives]).sum()) - logits[row, row])
    assert float(model.compute_loss(REPEATED)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_interest_nearest_to_what_was_chosen_learns(dataset):
    settings = {"user__history": "attention", "user__interests": 3, "retrieval__softmax": "full"}
    model = build(dataset, **settings, retrieval__mask_history=False)
    logits = logits_of(model, REPEATED)
    assert logits.shape == (6, 3, small_world.NUM_ITEMS)
    item = REPEATED["item"].numpy()
    chosen = np.take_along_axis(logits, item[:, None, None], axis=2)[..., 0].argmax(axis=1)
    assert len(set(chosen.tolist())) > 1
    logits = np.take_along_axis(logits, chosen[:, None, None], axis=1)[:, 0]
    peak = logits.max(axis=1)
    wanted = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak - logits[np.arange(6), item]
    got = float(model.compute_loss(REPEATED))
    assert got == pytest.approx(wanted.mean(), rel=1e-4)
    # Of a history that tells them apart, what the others weigh by has no gradient.
    one = batch(item[:1], history=[[7, 3, 20, 4]])
    _, found = gradients(model, one)
    names = [weight.name for weight in model.trainable_variables]
    (last,) = (g for g, name in zip(found, names, strict=True) if g.shape == (8, 3))
    assert (np.abs(last).max(axis=0) > 0).sum() == 1


def test_full_loss_is_what_it_says(dataset):
    for mask in (False, True):
        model = build(dataset, retrieval__softmax="full", retrieval__mask_history=mask)
        item, history = REPEATED["item"].numpy(), REPEATED["history"].numpy()
        logits = logits_of(model, REPEATED)
        losses = []
        for row in range(len(item)):
            known = set(history[row]) - {-1, item[row]} if mask else set()
            others = [n for n in range(small_world.NUM_ITEMS) if n not in known]
            losses.append(np.log(np.exp(logits[row, others]).sum()) - logits[row, item[row]])
        assert float(model.compute_loss(REPEATED)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_batch_of_the_whole_catalog_is_the_full_softmax(dataset):
    order = np.random.default_rng(0).permutation(small_world.NUM_ITEMS)
    history = np.random.default_rng(1).integers(-1, small_world.NUM_ITEMS, [len(order), 4])
    everything = batch(order, history=history)
    found = [
        gradients(
            build(dataset, **{f"retrieval__{name}": value for name, value in settings.items()}),
            everything,
        )
        for settings in ({"sampling_correction": "none"}, {"softmax": "full"})
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "settings, want",
    [
        # Of what the batch holds, popular items are many: without a correction they are pushed
        # down as often as they are pulled up, and popularity is forgotten.
        ({"sampling_correction": "counts"}, 1),
        ({"sampling_correction": "streaming"}, 1),
        ({"sampling_correction": "counts", "num_uniform_negatives": 32}, 1),
        ({"sampling_correction": "counts", "memory_size": 64}, 1),
        ({"sampling_correction": "none"}, 0),
        # With the sign reversed they are pushed down twice as often.
        ({"sampling_correction": "counts", "reversed": True}, -1),
        ({"softmax": "full"}, 1),
    ],
)
def test_the_correction_gives_popular_items_their_due(tmp_path, settings, want):
    sign = -1 if settings.pop("reversed", False) else 1
    settings = {f"retrieval__{name}": value for name, value in settings.items()}
    dataset = popular_world(tmp_path / "d")
    model = build(
        dataset, modalities=[], user__history="none", retrieval__mask_history=False, **settings
    )
    model.item_tower.id_embedding.table.assign(tf.zeros([12, 8]))
    model.popularity_weight.assign(0.5)
    share = model.tables["probability"] ** sign
    model.tables["probability"] = share / tf.reduce_sum(share)
    optimizer = tf.keras.optimizers.Adam(0.05)

    @tf.function(reduce_retracing=True)
    def step(inputs):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, training=True)
        gradient = tape.gradient(loss, model.popularity_weight)
        optimizer.apply_gradients([(gradient, model.popularity_weight)])

    user = model.config.user
    for inputs in dataset.batches("train", 64, user=user, shuffle=True).repeat(4):
        step(inputs)
    assert float(model.popularity_weight) == pytest.approx(want, abs=0.25)


def test_an_accidental_hit_is_no_negative(dataset):
    twins = batch([5, 5, 5])
    loss = float(build(dataset).compute_loss(twins))
    assert loss == pytest.approx(0, abs=1e-6)
    loss = float(build(dataset, retrieval__remove_accidental_hits=False).compute_loss(twins))
    assert loss == pytest.approx(np.log(3), abs=1e-4)


def test_what_the_user_knows_is_not_pushed_away(dataset):
    """User 0 knows item 9, which user 1 chooses; the gradient on its row tells."""
    pair = batch([4, 9], history=[[9, -1, -1, -1], [-1] * 4], weight=[1, 0])
    for mask in (True, False):
        model = build(dataset, retrieval__mask_history=mask, user__history="none")
        with tf.GradientTape() as tape:
            loss = model.compute_loss(pair)
        table = model.item_tower.id_embedding.table
        gradient = tf.convert_to_tensor(tape.gradient(loss, table)).numpy()
        assert (np.abs(gradient[9]).max() < 1e-9) == mask


def test_cold_items_are_negatives_only_where_asked(dataset):
    cold = np.isin(np.arange(small_world.NUM_ITEMS), small_world.COLD)
    for negatives in (True, False):
        model = build(dataset, retrieval__softmax="full", retrieval__cold_negatives=negatives)
        logits = logits_of(model, REPEATED)
        allowed = ~cold if not negatives else np.ones_like(cold)
        model.popularity_weight.assign(0.0)
        bare = logits_of(model, REPEATED)
        model.popularity_weight.assign(0.7)
        popularity = (logits - bare)[0]
        if negatives:
            assert popularity[cold].max() < popularity[~cold].min()
        else:
            # That of the mean count, of which popularity is the logarithm.
            average = 0.7 * np.log(np.exp(popularity[~cold] / 0.7).mean())
            assert popularity[cold] == pytest.approx(average, abs=1e-4)
        losses = []
        for row, (item, history) in enumerate(
            zip(REPEATED["item"].numpy(), REPEATED["history"].numpy(), strict=True)
        ):
            known = np.isin(np.arange(small_world.NUM_ITEMS), history) & (
                np.arange(small_world.NUM_ITEMS) != item
            )
            others = logits[row, allowed & ~known]
            losses.append(np.log(np.exp(others).sum()) - logits[row, item])
        assert float(model.compute_loss(REPEATED)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_weights_scale_their_example_and_nothing_else(dataset):
    model = build(dataset)
    each = []
    for row in range(6):
        weight = np.zeros(6)
        weight[row] = 1
        each.append(
            float(model.compute_loss({**REPEATED, "weight": tf.constant(weight, tf.float32)}))
        )
    # An example without weight still stands among the others' negatives.
    assert min(each) > 0 and np.ptp(each) > 0.01
    weight = np.array([0.5, 2, 0, 1, 3, 1])
    loss = model.compute_loss({**REPEATED, "weight": tf.constant(weight, tf.float32)})
    assert float(loss) == pytest.approx(np.dot(weight, each), rel=1e-5)


def test_the_alignment_loss_is_added_with_its_weight(dataset):
    two = {"modalities": ["vector", "audio"], "audio__trainable_layers": 0}
    without = build(dataset, alignment__contrastive_weight=0, **two)
    plain = float(without.compute_loss(REPEATED))
    assert float(without.contrastive_tracker.result()) == 0
    model = build(dataset, alignment__contrastive_weight=0.5, **two)
    total = float(model.compute_loss(REPEATED))
    assert total == pytest.approx(plain + 0.5 * float(model.contrastive_tracker.result()), rel=1e-5)
    assert float(model.loss_tracker.result()) == pytest.approx(plain, rel=1e-5)
    assert total > plain + 0.01


# The ways to compute it


@pytest.mark.parametrize("history", ["mean", pytest.param("gru", marks=pytest.mark.slow)])
def test_compiled_by_xla_it_is_the_same_loss(dataset, history):
    """How many different items a batch holds is known only when it is there."""
    model = build(dataset, user__history=history)
    loss, found = gradients(model, REPEATED)
    model = build(dataset, user__history=history, training__jit_compile=True)
    compiled_loss, compiled = gradients(model, REPEATED, jit_compile=True)
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    for one, two in zip(found, compiled, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_mixed_precision_is_near(dataset):
    plain, half = build(dataset), build(dataset, training__mixed_precision=True)
    loss, found = gradients(plain, REPEATED)
    half_loss, half_found = gradients(half, REPEATED)
    assert half_loss == pytest.approx(loss, rel=0.02)
    assert half_loss != loss
    for one, two in zip(found, half_found, strict=True):
        assert two.dtype == np.float32
        np.testing.assert_allclose(one, two, atol=0.03 * max(1, np.abs(one).max()))
    for output in half.embed_catalog():
        assert output.dtype in (np.float32, bool)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"mixed_precision": True}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_fit_brings_the_loss_down(dataset, settings):
    from mmrec_tf.training.optimizer import build_optimizer

    model = build(dataset, **{f"training__{name}": value for name, value in settings.items()})
    training = model.config.training
    model.compile(optimizer=build_optimizer(training), jit_compile=training.jit_compile)
    batches = dataset.batches("train", 39, user=model.config.user, shuffle=True)
    history = model.fit(batches, epochs=4, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert model.evaluate(batches, verbose=0, return_dict=True)["loss"] < history["loss"][0]


def test_temperature_and_popularity_are_learned_only_where_asked(dataset):
    for learn in (True, False):
        model = build(dataset, retrieval__learn_temperature=learn, retrieval__popularity_bias=learn)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(REPEATED)
        learned = [model.log_temperature, model.popularity_weight]
        for weight in learned:
            assert (id(weight) in map(id, model.trainable_variables)) == learn
        if learn:
            found = tape.gradient(loss, learned)
            assert min(abs(float(gradient)) for gradient in found) > 1e-4


def test_an_encoder_that_trains_is_trained_and_a_frozen_one_is_not(dataset):
    for layers in (-1, 0):
        model = build(dataset, modalities=["audio"], audio__trainable_layers=layers)
        weights = model.encoders["audio"].weights
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = model.compute_loss(REPEATED, training=True)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            assert (id(weight) in map(id, model.trainable_variables)) == (layers == -1)
            assert (gradient is not None) == (layers == -1)


def test_a_batch_of_one_is_said_to_learn_nothing(dataset, capsys):
    batch = {"retrieval__softmax": "batch"}
    model = small_world.build_retrieval(dataset, **batch, training__batch_size=1)
    model.compile()
    model.fit(model.batches("train").take(1), verbose=0)
    assert "retrieval: a batch of one has no negatives" in capsys.readouterr().err
    for settings in (
        {**batch, "training__batch_size": 2},
        {**batch, "training__batch_size": 1, "retrieval__num_uniform_negatives": 3},
        {"retrieval__softmax": "full", "training__batch_size": 1},
    ):
        assert small_world.build_retrieval(dataset, **settings).remarks() == []


# Several kinds of alignment, and missing modalities that are mapped
TWO = {"modalities": ["vector", "audio"], "audio__trainable_layers": 0}


def test_a_missing_modality_is_what_train_items_say_that_it_would_be(dataset):
    model = build(dataset, item__missing="mapped", **TWO)
    columns = [list(dataset.schema.modalities).index(name) for name in model.modalities]
    had, now = dataset.catalog.present[:, columns], model.tables["present"].numpy()
    # One item has nothing to go by.
    np.testing.assert_array_equal(now, np.tile(had.any(axis=1)[:, None], 2))
    train = dataset.catalog.train_count > 0
    assert 0 < (~train & had.all(axis=1)).sum()
    for one in model.tables["maps"]:
        assert one.num_items == (train & had.all(axis=1)).sum() and 0 < one.explained < 1
        source, target = (model.modalities[n] for n in (one.source, one.target))
        rows = np.flatnonzero(now[:, one.target] & ~had[:, one.target])
        want = model.encode_catalog(source)[rows] @ one.kernel + one.bias
        np.testing.assert_allclose(model.encode_catalog(target)[rows], want, atol=1e-5)
    assert len(model.tables["maps"]) == 2


def test_what_cannot_be_mapped_is_said(dataset, monkeypatch):
    with pytest.raises(ConfigError, match="item.missing: wanted two or more .*; got vector of vec"):
        build(
            dataset,
            item__missing="mapped",
            modalities=["vector", "audio"],
            audio__trainable_layers=-1,
        )
    monkeypatch.setattr(catalog_tables, "fit_maps", lambda *_: [])
    with pytest.warns(UserWarning, match='"mapped": vector, audio stays missing where it is'):
        build(dataset, item__missing="mapped", **TWO)


def test_projections_are_fitted_to_a_modality_on_train_items_alone(dataset):
    config = small_world.config(
        **{**small_world.VECTORS, **TWO},
        alignment__kinds=["ridge", "contrastive"],
        alignment__target="vector",
        item__missing="mapped",
    )
    model = RetrievalModel(config, dataset, cache=None)
    had = dataset.catalog.present[:, [3, 2]] & (dataset.catalog.train_count > 0)[:, None]
    fits = model.state.fits
    assert (fits["vector"].num_items, fits["audio"].num_items) == (
        had[:, 0].sum(),
        had.all(axis=1).sum(),
    )
    assert fits["vector"].l2 is None and fits["audio"].l2 > 0
    found = modality_diagnostics(model)
    assert found["fitted"]["audio"] == fits["audio"]._asdict()
    assert set(found["maps"]) == {"vector-audio", "audio-vector"}
    vectors = model.embed_catalog().modalities[had.all(axis=1)]
    assert (vectors[:, 0] * vectors[:, 1]).sum(axis=1).mean() > 0.5


def test_a_projection_that_cannot_be_fitted_is_said(dataset, monkeypatch):
    catalog = dataset.catalog._replace(train_count=np.zeros(small_world.NUM_ITEMS, np.int64))
    monkeypatch.setattr(dataset, "catalog", catalog)
    settings = {"alignment__kinds": ["cca"], "alignment__target": "vector"}
    config = small_world.config(**{**small_world.VECTORS, **TWO}, **settings)
    with pytest.warns(UserWarning, match="vector, audio starts at random, .* have it and vector"):
        RetrievalModel(config, dataset, cache=None)
