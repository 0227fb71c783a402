"""What each positive is compared with, through the model: the general way beside the task of
TensorFlow Recommenders, and beside NumPy."""

import types

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.retrieval_steps import REPEATED, batch, gradients, logits_of
from support.small_world import build_retrieval

from mmrec_tf import open_dataset
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.retrieval import cached_histories
from mmrec_tf.schema import Schema

NUM_ITEMS = small_world.NUM_ITEMS
ITEM, HISTORY = REPEATED["item"].numpy(), REPEATED["history"].numpy()
# Beside the batch's [1, 7, 3, 1, 12, 7]: a positive, items that users know, one twice, a cold one.
UNIFORM = [12, 20, 4, 8, 8, 28]
# For each user; the cold 29, items of the user's history and the positive itself among them.
MINED = [[2, 29, 7], [7, 5, 0], [1, 3, 11], [12, -1, -1], [-1, -1, -1], [21, 22, 8]]
# Others of the batch chose some of these; the last one of row 2 and the first of row 3 are in the
# history and the positive of their own row.
DISLIKED = [[12, -1], [15, 16], [13, 12], [1, 14], [-1, -1], [3, -1]]


def build(dataset, **settings):
    return build_retrieval(dataset, item__id_dropout=0, user__id_dropout=0, **settings)


def of_retrieval(**settings):
    return {f"retrieval__{name}": value for name, value in settings.items()}


def build_disliking(dataset, *, disliked_weight=1.0, **settings):
    """A model that weighs disliked items; the small world has no ratings, so no config may do so,
    and dislikes stand beside by hand."""
    model = build(dataset, **of_retrieval(**settings))
    object.__setattr__(model.config.retrieval, "disliked_weight", disliked_weight)
    model.objective.log_dislike = float(np.log(disliked_weight or 1.0))
    return model


def stand_beside(model, monkeypatch, **names):
    """Has a step draw these items, and mine those."""
    if "mined" in names:
        model.state.mined = tf.constant(names.pop("mined"), tf.int32)
    if names:
        draw = model.objective.draw
        more = {name: tf.constant(value, tf.int32) for name, value in names.items()}
        monkeypatch.setattr(model.objective, "draw", lambda *args: draw(*args) | more)


def row_loss(positive, negatives, settings):
    """The loss of one row over the negatives that count."""
    negatives = np.sort(np.array(negatives, np.float64))
    if settings.num_hard_negatives and settings.softmax == "batch":
        negatives = negatives[-settings.num_hard_negatives :]
    if settings.loss == "bpr":
        return np.log1p(np.exp(negatives - positive)).mean() if len(negatives) else 0.0
    logits = np.append(negatives, positive)
    share = settings.label_smoothing
    target = np.full(len(logits), share / len(logits))
    target[-1] += 1 - share
    return -(target * (logits - np.log(np.exp(logits).sum()))).sum()


def want(model, *, uniform=(), mined=None, disliked=None, memory=((), [()] * 6)):
    """The mean loss of `REPEATED`, column by column.

    Args:
      uniform, mined, disliked: as `UNIFORM`, `MINED` and `DISLIKED`.
      memory: items <int>[n], and the scores <float>[batch, n] of their candidates.
    """
    settings = model.config.retrieval
    logits = logits_of(model, REPEATED).astype(np.float64)
    probability, warm = model.tables["probability"].numpy(), model.tables["warm"].numpy()
    if settings.sampling_correction == "streaming":
        probability = model.objective.frequency(tf.range(NUM_ITEMS)).numpy()
    count = (len(ITEM) + len(memory[0])) * probability + len(uniform) / NUM_ITEMS
    log_count = np.log(count) if settings.sampling_correction != "none" else 0 * count
    losses = []
    for row, own in enumerate(ITEM):
        known = set(HISTORY[row]) if settings.mask_history else set()
        hated = set(disliked[row]) if disliked else set()
        cold = set() if settings.cold_negatives else set(np.flatnonzero(~warm))
        pool = [(n, logits[row, n], n == own) for i, n in enumerate(ITEM) if i != row]
        if not settings.remove_accidental_hits:
            pool = [(n, score, False) for n, score, _ in pool]
        pool += [(n, logits[row, n], n == own) for n in uniform]
        pool += [(n, s, n == own) for n, s in zip(memory[0], memory[1][row], strict=True)]
        negatives = [
            score - log_count[n]
            for n, score, hit in pool
            if not hit and n not in known | hated | cold
        ]
        for n in mined[row] if mined else ():
            if n >= 0 and n not in {own} | known | hated | cold:
                negatives.append(logits[row, n])
        for n in disliked[row] if disliked and settings.disliked_weight else ():
            if n >= 0 and n not in {own} | known:
                negatives.append(logits[row, n] + np.log(settings.disliked_weight))
        losses.append(row_loss(logits[row, own] - log_count[own], negatives, settings))
    return np.mean(losses)


# The task and the general way


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"sampling_correction": "none", "mask_history": False},
                {"sampling_correction": "none", "num_hard_negatives": 2},
                {"remove_accidental_hits": False},
            )
        ),
        {"remove_accidental_hits": False, "mask_history": False, "num_hard_negatives": 3},
        {"sampling_correction": "streaming", "num_hard_negatives": 99},
    ],
)
def test_the_general_way_is_the_task_where_both_can_go(dataset, settings):
    """A share of smoothing too small to show has the loss go the general way; its correction
    takes off the log of a count, and the task that of a probability, which is a constant less."""
    losses, found = zip(
        *(
            gradients(build(dataset, **of_retrieval(**settings, **more)), REPEATED)
            for more in ({}, {"label_smoothing": 1e-12})
        ),
        strict=True,
    )
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0] > 0.1
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "more", [{"uniform": [1, 7, 3, 12]}, {"mined": ITEM[:, None]}, {"disliked": [[-1]] * 6}]
)
def test_what_stands_beside_and_is_no_negative_changes_nothing(dataset, monkeypatch, more):
    """The four items of the batch drawn again are hits of their own rows only, so that they are
    masked by one history that names them all."""
    everyone = {**REPEATED, "history": tf.constant([[1, 7, 3, 12]] * 6)}
    settings = {"user__history": "none", **of_retrieval(sampling_correction="none")}
    plain = float(build(dataset, **settings).compute_loss(everyone))
    width = {"num_mined_negatives": 1} if "mined" in more else {}
    model = build(dataset, **settings, **of_retrieval(**width))
    stand_beside(model, monkeypatch, **more)
    assert float(model.compute_loss(everyone)) == pytest.approx(plain, abs=1e-6)


# Each kind of negative


BESIDE = {
    "uniform": {"uniform": UNIFORM},
    "mined": {"mined": MINED},
    "disliked": {"disliked": DISLIKED},
    "all": {"uniform": UNIFORM, "mined": MINED, "disliked": DISLIKED},
}


@pytest.mark.parametrize("names", BESIDE)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "bpr", "disliked_weight": 0.0},
        {"label_smoothing": 0.2, "disliked_weight": 0.0, "cold_negatives": False},
        {"sampling_correction": "none", "mask_history": False, "remove_accidental_hits": False},
        {"num_hard_negatives": 4, "disliked_weight": 3.0},
        {"sampling_correction": "streaming", "loss": "bpr", "disliked_weight": 3.0},
    ],
)
def test_what_stands_beside_is_compared_with(dataset, monkeypatch, names, settings):
    beside = BESIDE[names]
    counts = {"num_uniform_negatives": len(beside.get("uniform", ()))}
    counts["num_mined_negatives"] = 3 if "mined" in beside else 0
    model = build_disliking(dataset, **settings, **counts)
    if model.objective.frequency is not None:
        for items in ([1, 1, 7, 3, 12, 7], [8, 1, 20, 5, 5, 7]):
            model.objective.frequency.update(tf.constant(items))
    stand_beside(model, monkeypatch, **beside)
    got = float(model.compute_loss(REPEATED))
    assert got == pytest.approx(want(model, **beside), rel=1e-4)


def test_uniform_negatives_are_drawn_anew_and_from_all_items(dataset):
    model = build(dataset, **of_retrieval(num_uniform_negatives=3))
    drawn = [model.objective.draw(REPEATED, None)["uniform"].numpy() for _ in range(200)]
    assert {len(numbers) for numbers in drawn} == {3}
    assert set(np.concatenate(drawn)) == set(range(NUM_ITEMS))


def test_mined_negatives_are_wanted_before_the_first_step(dataset):
    model = build(dataset, **of_retrieval(num_mined_negatives=2))
    with pytest.raises(RunError, match="nothing was mined yet"):
        model.compute_loss(REPEATED)
    # An unknown user has none.
    stand_beside(model, None, mined=MINED)
    unknown = {**REPEATED, "user": tf.constant([-1] * 6)}
    plain = build(dataset).compute_loss(unknown)
    assert float(model.compute_loss(unknown)) == pytest.approx(float(plain), rel=1e-5)


# The memory


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "num_hard_negatives": 5}])
@pytest.mark.parametrize("size", [3, 8])
def test_the_memory_stands_beside_from_the_second_batch_on(dataset, settings, size):
    """Items 3 and 9 came before, then others; of 8 places 5 are taken. Their popularity is the one
    of now."""
    model = build(dataset, **of_retrieval(memory_size=size, **settings))
    first = float(model.compute_loss(REPEATED))
    assert first == pytest.approx(want(model), rel=1e-4)
    kept, vectors = [], np.zeros([0, 8])
    for items in ([3, 9], [15, 4, 21]):
        then = model.embed_catalog().embedding
        model.compute_loss(batch(items), training=True)
        kept = (items + kept)[:size]
        vectors = np.concatenate([then[items], vectors])[:size]
        # What is kept stays as it was.
        model.item_tower.id_embedding.table.assign_add(0.3 * tf.ones([NUM_ITEMS, 8]))
        model.popularity_weight.assign_add(0.2)
    embedding = model.embed_catalog().embedding
    user = model.embed_users(
        REPEATED["user"], tf.constant(embedding[np.maximum(HISTORY, 0)]), tf.constant(HISTORY >= 0)
    )
    popularity = model.popularity_weight * tf.gather(model.tables["log_frequency"], kept)
    scores = user.numpy() @ vectors.T / np.exp(model.log_temperature.numpy()) + popularity.numpy()
    memory = kept, scores
    got = float(model.compute_loss(REPEATED))
    assert got == pytest.approx(want(model, memory=memory), rel=1e-4)
    assert abs(got - want(model)) > 0.01


def test_no_gradient_reaches_an_item_through_the_memory(dataset):
    model = build(dataset, user__history="none", **of_retrieval(memory_size=4))
    model.compute_loss(batch([20, 21]), training=True)
    before = float(model.compute_loss(batch([4, 5])))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch([4, 5]))
    table = model.item_tower.id_embedding.table
    gradient = np.abs(tf.convert_to_tensor(tape.gradient(loss, table)).numpy()).max(axis=1)
    assert np.flatnonzero(gradient).tolist() == [4, 5]
    # And yet they are compared with.
    empty = build(dataset, user__history="none", **of_retrieval(memory_size=4))
    assert before > float(empty.compute_loss(batch([4, 5]))) + 0.01


def test_only_training_is_remembered_and_the_weights_hold_it(dataset):
    settings = of_retrieval(memory_size=4, sampling_correction="streaming")
    model, other = build(dataset, **settings), build(dataset, **settings)
    model.compute_loss(REPEATED)
    assert (model.objective.memory.read()[0].numpy() == -1).all()
    assert int(model.objective.frequency.examples) == 0
    model.compute_loss(REPEATED, training=True)
    assert model.objective.memory.read()[0].numpy().tolist() == [1, 7, 3, 1]
    assert int(model.objective.frequency.examples) == 6
    assert float(other.compute_loss(REPEATED)) != float(model.compute_loss(REPEATED))
    other.set_weights(model.get_weights())
    assert float(other.compute_loss(REPEATED)) == float(model.compute_loss(REPEATED))


@pytest.mark.parametrize(
    "idle", [{"memory_size": 4}, {"sampling_correction": "streaming"}, {"num_uniform_negatives": 3}]
)
def test_the_full_softmax_needs_no_memory_no_estimate_and_no_draws(idle):
    (name,) = idle
    with pytest.raises(ConfigError, match=f"retrieval.{name}: .*no effect"):
        small_world.config(**of_retrieval(softmax="full", **idle))


# The whole catalog


def want_full(model, *, disliked=None):
    settings, warm = model.config.retrieval, model.tables["warm"].numpy()
    logits = logits_of(model, REPEATED).astype(np.float64)
    losses = []
    for row, own in enumerate(ITEM):
        known = set(HISTORY[row]) if settings.mask_history else set()
        negatives = []
        for n in set(range(NUM_ITEMS)) - known - {own}:
            if not settings.cold_negatives and not warm[n]:
                continue
            hated = disliked is not None and n in disliked[row]
            weight = settings.disliked_weight if hated else 1.0
            if weight:
                negatives.append(logits[row, n] + np.log(weight))
        losses.append(row_loss(logits[row, own], negatives, settings))
    return np.mean(losses)


@pytest.mark.parametrize("loss", [{}, {"label_smoothing": 0.2}, {"loss": "bpr"}])
@pytest.mark.parametrize(
    "settings",
    [{}, {"disliked_weight": 0.0}, {"disliked_weight": 3.0, "cold_negatives": False}],
)
def test_full_losses_are_what_they_say(dataset, monkeypatch, loss, settings):
    model = build_disliking(dataset, softmax="full", **settings, **loss)
    assert float(model.compute_loss(REPEATED)) == pytest.approx(want_full(model), rel=1e-4)
    stand_beside(model, monkeypatch, disliked=DISLIKED)
    got = float(model.compute_loss(REPEATED))
    assert got == pytest.approx(want_full(model, disliked=DISLIKED), rel=1e-4)


def test_a_cold_positive_has_a_loss(dataset):
    """As in a valid split, where cold items are no negatives."""
    settings = of_retrieval(softmax="full", cold_negatives=False, popularity_bias=False)
    model = build(dataset, **settings)
    assert float(model.compute_loss(batch([28, 1]))) < 100


# Disliked items of a dataset


def rated_world(folder):
    """Half of the users like even items and dislike some odd ones, the others the reverse."""
    with DatasetWriter(folder) as writer:
        for item in range(12):
            writer.write_item(f"i{item}")
        for user in range(30):
            writer.write_user(f"u{user}")
            rng = np.random.default_rng(user)
            liked = rng.permutation(np.arange(user % 2, 12, 2))[:4]
            hated = rng.permutation(np.arange(1 - user % 2, 12, 2))[:2]
            items = np.concatenate([liked, hated]).tolist()
            writer.write_interactions(
                "train", user, item=items, timestamp=list(range(6)), rating=[5.0] * 4 + [1.0] * 2
            )
        schema = Schema(num_users=30, num_items=12, ratings=True)
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    return open_dataset(folder)


@pytest.mark.parametrize("softmax", ["batch", "full"])
def test_disliked_items_of_a_dataset_are_pushed_away(tmp_path, softmax):
    dataset = rated_world(tmp_path / "d")
    settings = of_retrieval(softmax=softmax, disliked_below=3.0, disliked_weight=10.0)
    model = build(dataset, modalities=[], user__history="none", **settings)
    retrieval = model.config.retrieval
    inputs = next(iter(dataset.batches("train", 120, user=model.config.user, retrieval=retrieval)))
    assert (inputs["rating"].numpy() == 5).all() and inputs["disliked"].shape == (120, 2)
    liked, hated = inputs["item"].numpy(), inputs["disliked"].numpy()
    embedding = model.embed_catalog().embedding

    def scores(item):
        nothing = tf.zeros([120, 4, 8]), tf.zeros([120, 4], tf.bool)
        user = model.embed_users(inputs["user"], *nothing).numpy()
        return (user[:, None] * embedding[item]).sum(axis=-1).mean()

    weight = model.user_tower.id_embedding.table
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs)
    gradient = tf.convert_to_tensor(tape.gradient(loss, weight))
    before = scores(liked[:, None]) - scores(hated)
    step = weight - gradient / tf.norm(gradient)
    weight.assign(step)
    assert scores(liked[:, None]) - scores(hated) > before + 0.01


# Noise and the worst perturbation


@pytest.mark.parametrize("softmax", ["batch", "full"])
def test_noise_and_perturbation_are_of_training(dataset, softmax):
    settings = {"softmax": softmax}
    plain = float(build(dataset, **of_retrieval(**settings)).compute_loss(REPEATED, training=True))
    for more in ({"embedding_noise": 0.5}, {"adversarial": 0.2}):
        model = build(dataset, **of_retrieval(**settings, **more))
        assert float(model.compute_loss(REPEATED)) == pytest.approx(plain, rel=1e-5)
        one, other = (float(model.compute_loss(REPEATED, training=True)) for _ in range(2))
        if "adversarial" in more:
            assert one == other > 2.1 * plain
        else:
            assert one != other and abs(one - plain) > 0.01


def test_no_step_of_that_length_is_worse(dataset):
    """To first order: the loss grows by the length of each row's gradient, times the radius."""
    radius = 1e-3
    plain = build(dataset, user__history="none")
    model = build(dataset, user__history="none", **of_retrieval(adversarial=radius))
    loss = float(plain.compute_loss(REPEATED, training=True))
    worst = float(model.compute_loss(REPEATED, training=True)) - loss
    ids = tf.constant([1, 7, 3, 12])
    place = [0, 1, 2, 0, 3, 1]
    with tf.GradientTape() as tape:
        user = plain.embed_users(REPEATED["user"], tf.zeros([6, 4, 8]), tf.zeros([6, 4], tf.bool))
        embedding = plain.embed_items(ids).embedding
        tape.watch([user, embedding])
        log_frequency = tf.gather(plain.tables["log_frequency"], ids)
        rows = {"item": tf.constant(place)}
        losses = plain.objective(
            REPEATED,
            plain.queries(user),
            plain.candidates(embedding, log_frequency),
            numbers={"item": REPEATED["item"], "history": REPEATED["history"]},
            rows=rows,
            tables=plain.tables,
        )
        mean = tf.reduce_mean(losses)
    assert float(mean) == pytest.approx(loss, rel=1e-5)
    found = map(tf.convert_to_tensor, tape.gradient(mean, [user, embedding]))
    length = sum(np.linalg.norm(gradient, axis=1).sum() for gradient in found)
    assert worst - loss == pytest.approx(radius * length, rel=0.05)


# The ways to compute it


def test_compiled_by_xla_everything_is_the_same_loss(dataset, monkeypatch):
    settings = of_retrieval(
        num_uniform_negatives=6,
        num_mined_negatives=3,
        memory_size=4,
        num_hard_negatives=7,
        label_smoothing=0.1,
        sampling_correction="streaming",
    )
    found = []
    for options in ({}, {"jit_compile": True}):
        model = build(dataset, **settings, training__jit_compile=bool(options))
        stand_beside(model, monkeypatch, **BESIDE["all"])
        step = tf.function(
            lambda model=model: model.compute_loss(REPEATED, training=True), **options
        )
        found.append([float(step()) for _ in range(3)] + [model.objective.memory.read()[1].numpy()])
    np.testing.assert_allclose(found[1][:3], found[0][:3], rtol=1e-4)
    np.testing.assert_allclose(found[1][3], found[0][3], atol=1e-5)
    assert len(set(found[0][:3])) == 3


def test_cached_histories_give_the_same_loss_and_embed_few_of_their_items(dataset, monkeypatch):
    def learned(model):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(REPEATED, training=True)
        table = model.item_tower.id_embedding.table
        gradient = tf.convert_to_tensor(tape.gradient(loss, table)).numpy()
        return float(loss), gradient

    whole, cached = (build(dataset, user__history_embedding=k) for k in ("trained", "cached"))
    with pytest.raises(RunError, match="not embedded yet"):
        cached.compute_loss(REPEATED, training=True)
    cached.refresh_histories()
    monkeypatch.setattr(cached_histories, "NUM_READ", 0)
    (loss, all_of_it), (same, own) = learned(whole), learned(cached)
    assert same == pytest.approx(loss, rel=1e-5)
    chosen = np.unique(ITEM)
    assert set(np.flatnonzero(np.abs(own).sum(axis=1))) == set(chosen)
    assert set(np.flatnonzero(np.abs(all_of_it).sum(axis=1))) > set(chosen)
    # Wherever they stand, in others' histories, too.
    np.testing.assert_allclose(own[chosen], all_of_it[chosen], atol=1e-6)
    monkeypatch.setattr(cached_histories, "NUM_READ", 2)
    (same, more) = learned(cached)
    assert same == pytest.approx(loss, rel=1e-5)
    read = np.flatnonzero(np.abs(more).sum(axis=1))
    assert set(chosen) < set(read) <= {*chosen, *HISTORY[HISTORY >= 0]}
    np.testing.assert_allclose(more[read], all_of_it[read], atol=1e-6)
    # Without training they are as they are now, not as they were.
    cached.state.history_items.assign(tf.zeros_like(cached.state.history_items))
    assert float(cached.compute_loss(REPEATED)) == pytest.approx(loss, rel=1e-5)


def test_histories_through_an_encoder_that_trains_are_told(dataset):
    settings = {"modalities": ["vector"], "user__profile": False, "training__batch_size": 64}
    model = build(dataset, **settings)
    assert not model.remarks()
    model.trained_encoders = {"vector": types.SimpleNamespace(stores_vectors=False)}
    (remark,) = model.remarks()
    assert "320 items" in remark and "cached leaves 64" in remark
    model = build(dataset, **settings, user__history_embedding="cached")
    model.trained_encoders = {"vector": types.SimpleNamespace(stores_vectors=False)}
    assert not model.remarks()


# Binary cross-entropy


def binary_loss(model, negatives, *, power):
    """The mean gBCE of `REPEATED`, with the negatives of each row as (item, weight)."""
    logits = logits_of(model, REPEATED) - np.log(NUM_ITEMS)
    losses = []
    for row, own in enumerate(ITEM):
        pairs = [(n, w) for n, w in negatives(row, own) if w]
        against = sum(w * np.log1p(np.exp(logits[row, n])) for n, w in pairs)
        total = power * np.log1p(np.exp(-logits[row, own])) + against
        losses.append(total / (1 + sum(w for _, w in pairs)))
    return np.mean(losses)


@pytest.mark.parametrize("dislikes", [False, True])
@pytest.mark.parametrize("cold", [True, False])
def test_binary_cross_entropy_compares_with_uniform_negatives_alone(
    dataset, monkeypatch, cold, dislikes
):
    settings = {"loss": "gbce", "num_uniform_negatives": 6, "cold_negatives": cold}
    model = build_disliking(dataset, disliked_weight=2.5, **settings)
    beside = {"disliked": DISLIKED} if dislikes else {}
    stand_beside(model, monkeypatch, uniform=UNIFORM, **beside)

    def negatives(row, own):
        hated = set(DISLIKED[row]) if dislikes else set()
        left_out = set(HISTORY[row]) | hated | (set() if cold else set(small_world.COLD))
        found = [(n, 1.0) for n in UNIFORM if n not in left_out | {own}]
        if dislikes:
            known = {own, -1} | set(HISTORY[row])
            found += [(n, 2.5) for n in DISLIKED[row] if n not in known]
        return found

    alpha = 6 / (NUM_ITEMS - 1)
    power = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
    loss, found = gradients(model, REPEATED)
    assert loss == pytest.approx(binary_loss(model, negatives, power=power), rel=1e-4)
    named = dict(zip([w.name for w in model.trainable_variables], found, strict=True))
    assert np.abs(named["intercept:0"]) > 1e-4


def test_binary_cross_entropy_over_all_items(dataset):
    model = build(dataset, **of_retrieval(loss="gbce", softmax="full"))

    def negatives(row, own):
        return [(n, 1.0) for n in range(NUM_ITEMS) if n not in {*HISTORY[row], own}]

    got = float(model.compute_loss(REPEATED))
    assert got == pytest.approx(binary_loss(model, negatives, power=1.0), rel=1e-4)
    # The level of probabilities is in no score.
    before = model.rank_items(dataset, np.arange(9), k=5)
    model.intercept.assign_add(3.0)
    np.testing.assert_array_equal(model.rank_items(dataset, np.arange(9), k=5), before)
    assert float(model.compute_loss(REPEATED)) != pytest.approx(got, rel=1e-3)


def test_binary_cross_entropy_wants_negatives(dataset):
    with pytest.raises(ConfigError, match="num_uniform_negatives: wanted 1 or more with"):
        build(dataset, **of_retrieval(loss="gbce"))
