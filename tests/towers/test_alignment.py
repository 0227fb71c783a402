"""One space for all modalities: what the projections promise, and what the losses pull together."""

import numpy as np
import pytest
import tensorflow as tf

import mmrec_tf.towers.alignment.closed_form as closed_form
from mmrec_tf.config import ALIGNMENTS, Config
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.schema import ModalitySpec, Schema
from mmrec_tf.towers import ItemTower
from mmrec_tf.towers.alignment import (
    Alignment,
    TranslationLoss,
    collaborative_loss,
    contrastive_loss,
)

CLOSED_FORMS = ("ridge", "cca", "procrustes")
ALL = np.ones([2, 2], bool)


def unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def draw(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=[rows, width]).astype(np.float32) for width in (5, 3)]


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_present_is_of_unit_length_and_absent_zero(kind):
    present = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1]], bool)
    features = draw()
    features[1][4] = 1e4
    lengths = np.linalg.norm(Alignment(4, kinds=[kind])(features, present), axis=-1)
    np.testing.assert_allclose(lengths, present, atol=1e-5)


def test_each_modality_has_a_projection_of_its_own():
    layer, features = Alignment(4, hidden=3), draw()
    before = layer(features, np.ones([6, 2], bool)).numpy()
    features[1] = features[1][::-1]
    after = layer(features, np.ones([6, 2], bool)).numpy()
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert np.abs(before[:, 1] - after[:, 1]).max() > 0.1


def test_a_hidden_layer_bends_the_projection():
    """A linear projection of x and -x, less that of 0, lies on one line; a bent one does not."""
    for hidden, straight in ((0, True), (8, False)):
        layer = Alignment(4, hidden=hidden)
        x = 2 * np.random.default_rng(0).normal(size=[1, 5]).astype(np.float32)
        layer([x], np.ones([1, 1], bool))
        project = layer.projections[0]
        up, down = project(x) - project(0 * x), project(-x) - project(0 * x)
        assert np.allclose(up, -down, atol=1e-5) == straight


def test_loss_of_two_items_by_hand():
    """Item 0: a at 0 degrees, b at 60; item 1: a at 90 degrees, b at 90. Temperature 1/2.

    Cosines a to b: [[1/2, 0], [sqrt(3)/2, 1]]; logits are twice that.
    """
    a = unit([[1, 0], [0, 1]])
    b = unit([[1, 3**0.5], [0, 1]])
    loss = contrastive_loss(np.stack([a, b], 1), ALL, temperature=tf.constant(0.5))
    e, r = np.exp, 3**0.5
    rows = [-np.log(e(1) / (e(1) + e(0))), -np.log(e(2) / (e(r) + e(2)))]
    columns = [-np.log(e(1) / (e(1) + e(r))), -np.log(e(2) / (e(0) + e(2)))]
    assert float(loss) == pytest.approx(np.mean(rows + columns), rel=1e-5)


def test_three_modalities_are_three_pairs():
    rng = np.random.default_rng(0)
    modalities = unit(rng.normal(size=[4, 3, 5]))
    present = np.ones([4, 3], bool)
    pairs = [
        float(contrastive_loss(modalities[:, pair], present[:, pair], temperature=0.2))
        for pair in ([0, 1], [0, 2], [1, 2])
    ]
    together = float(contrastive_loss(modalities, present, temperature=0.2))
    assert together == pytest.approx(np.mean(pairs), rel=1e-5)


def test_an_item_without_the_other_modality_is_neither_asked_nor_in_the_way():
    rng = np.random.default_rng(0)
    modalities = unit(rng.normal(size=[4, 2, 5]))
    present = np.array([[1, 1], [1, 1], [0, 1], [0, 0]], bool)
    # Item 2 has b and so stands among the b that items 0 and 1 must tell apart; its a does not.
    loss = float(contrastive_loss(modalities, present, temperature=0.2))
    logits = modalities[:, 0] @ modalities[:, 1].T / 0.2
    rows = [-logits[i, i] + np.log(np.exp(logits[i, :3]).sum()) for i in range(2)]
    columns = [-logits[i, i] + np.log(np.exp(logits[:2, i]).sum()) for i in range(2)]
    assert loss == pytest.approx(np.mean(rows + columns), rel=1e-5)


@pytest.mark.parametrize("present", [[[1, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 0], [1, 0]]])
def test_no_pair_no_loss(present):
    modalities = tf.constant(unit(np.random.default_rng(0).normal(size=[2, 2, 5])))
    with tf.GradientTape() as tape:
        tape.watch(modalities)
        loss = contrastive_loss(modalities, np.array(present, bool), temperature=0.1)
    assert float(loss) == 0
    assert not tf.convert_to_tensor(tape.gradient(loss, modalities)).numpy().any()


def test_a_repeated_item_is_no_negative_of_itself():
    one = unit(np.random.default_rng(0).normal(size=[3, 2, 5]))
    present = np.ones([5, 2], bool)
    twice = one[[0, 1, 2, 0, 0]]
    item = tf.constant([0, 1, 2, 0, 0])
    told = float(contrastive_loss(twice, present, temperature=0.1, item=item))
    untold = float(contrastive_loss(twice, present, temperature=0.1))
    # Item 0 counts three times, and is a negative three times to 1 and 2, but never to itself.
    logits = one[:, 0] @ one[:, 1].T / 0.1
    own = -2 * logits[0, 0] + np.log(np.exp(logits[0]).sum()) + np.log(np.exp(logits[:, 0]).sum())
    rest = 0.0
    for i in (1, 2):
        for line in (logits[i], logits[:, i]):
            rest += -logits[i, i] + np.log((np.exp(line) * [3, 1, 1]).sum())
    assert told == pytest.approx((3 * own + rest) / 10, rel=1e-4)
    assert untold > told + 0.1


def test_the_loss_pulls_modalities_of_one_item_together():
    layer, features = Alignment(4, temperature=0.2), draw(8)
    present = np.ones([8, 2], bool)
    optimizer = tf.keras.optimizers.Adam(0.05)

    def own_and_other():
        vectors = layer(features, present).numpy()
        cosine = vectors[:, 0] @ vectors[:, 1].T
        return np.diag(cosine).mean(), cosine[~np.eye(8, dtype=bool)].mean()

    before = own_and_other()
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = layer.loss(layer(features, present), present)
        weights = layer.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    after = own_and_other()
    assert after[0] - after[1] > before[0] - before[1] + 0.5


def test_temperature_starts_as_told_and_never_falls_below_a_hundredth():
    layer, features, present = Alignment(4, temperature=0.3), draw(), np.ones([6, 2], bool)
    vectors = layer(features, present)
    at = {
        value: float(contrastive_loss(vectors, present, temperature=value)) for value in (0.3, 0.01)
    }
    assert float(layer.loss(vectors, present)) == pytest.approx(at[0.3], rel=1e-5)
    layer.log_temperature.assign(-20.0)
    assert float(layer.loss(vectors, present)) == pytest.approx(at[0.01], rel=1e-5)


@pytest.mark.parametrize("kinds", [[], ["ridge"], ["procrustes", "graph"]])
def test_other_kinds_have_no_loss(kinds):
    layer, features, present = Alignment(4, kinds=kinds), draw(), np.ones([6, 2], bool)
    vectors = layer(features, present)
    assert float(layer.loss(vectors, present, item=np.arange(6))) == 0
    assert len(layer.weights) == 4


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_projections_may_start_fitted_and_be_pulled_together_by_a_loss(kind):
    """Each kind adds its part, and takes nothing away from the others."""
    features, present = draw(), np.ones([6, 2], bool)
    target, known = draw(6, 1)[0][:, :4], np.ones(6, bool)
    alone = Alignment(4, kinds=[kind])
    alone.fit(features, present, target, known)
    both = Alignment(4, kinds=[kind, "contrastive", "graph"], temperature=0.2)
    both.fit(features, present, target, known)
    vectors = both(features, present)
    np.testing.assert_array_equal(vectors, alone(features, present))
    want = contrastive_loss(vectors, present, temperature=0.2)
    assert float(both.loss(vectors, present)) == pytest.approx(float(want), rel=1e-5)
    assert len(both.trainable_weights) == 5


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="wanted kinds of contrastive, .*; got 'clip'"):
        Alignment(4, kinds=["clip"])
    with pytest.raises(ConfigError, match="at most one of ridge, .*; got ridge, cca"):
        Alignment(4, kinds=["ridge", "graph", "cca"])
    with pytest.raises(ConfigError, match="hidden 0 with 'cca'.*; got 8"):
        Alignment(4, kinds=["cca", "graph"], hidden=8)
    with pytest.raises(ConfigError, match="wanted one of ridge, .* to fit; got graph"):
        layer = Alignment(4, kinds=["graph"])
        layer.fit(draw(), np.ones([6, 2], bool), draw()[0], np.ones(6, bool))


@pytest.mark.parametrize("kinds", [[], ["ridge"]])
def test_maps_that_are_not_trained_have_no_gradient(kinds):
    for trainable in (True, False):
        layer = Alignment(4, kinds=kinds, trainable_maps=trainable)
        layer(draw(), np.ones([6, 2], bool))
        assert len(layer.trainable_weights) == (4 if trainable else 0)
        assert len(layer.weights) == 4


def test_collaborative_loss_by_hand():
    """Item 0: modality at 0 degrees, id at 60 and of length 2; item 1: both at 90. Temperature 1/2.

    The cosines are those of `test_loss_of_two_items_by_hand`.
    """
    a = unit([[1, 0], [0, 1]])[:, None]
    ids = tf.constant([[1, 3**0.5], [0, 0.1]], tf.float32)
    loss = collaborative_loss(a, ALL[:, :1], ids, ALL[0], temperature=tf.constant(0.5))
    e, r = np.exp, 3**0.5
    rows = [-np.log(e(1) / (e(1) + e(0))), -np.log(e(2) / (e(r) + e(2)))]
    columns = [-np.log(e(1) / (e(1) + e(r))), -np.log(e(2) / (e(0) + e(2)))]
    assert float(loss) == pytest.approx(np.mean(rows + columns), rel=1e-5)


def test_each_present_modality_of_a_known_item_is_compared_with_its_id():
    rng = np.random.default_rng(0)
    modalities, ids = unit(rng.normal(size=[4, 2, 5])), unit(rng.normal(size=[4, 5]))
    present = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool)
    known = np.array([1, 1, 1, 0], bool)
    loss = float(collaborative_loss(modalities, present, ids, known, temperature=0.2))
    losses = []
    for m in range(2):
        logits = modalities[:, m] @ ids.T / 0.2
        for i in np.flatnonzero(present[:, m] & known):
            losses.append(-logits[i, i] + np.log(np.exp(logits[i, known]).sum()))
            losses.append(-logits[i, i] + np.log(np.exp(logits[present[:, m], i]).sum()))
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_id_is_a_target_and_does_not_move():
    modalities = tf.constant(unit(np.random.default_rng(0).normal(size=[2, 2, 5])))
    ids = tf.Variable(np.random.default_rng(1).normal(size=[2, 5]), dtype=tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(modalities)
        loss = collaborative_loss(modalities, ALL, ids, ALL[0], temperature=0.1)
    to_modalities, to_ids = tape.gradient(loss, [modalities, ids])
    assert np.abs(to_modalities).max() > 0.01 and to_ids is None


def test_without_a_known_item_there_is_no_collaborative_loss():
    modalities = tf.constant(unit(np.random.default_rng(0).normal(size=[2, 2, 5])))
    ids = tf.zeros([2, 5])
    with tf.GradientTape() as tape:
        tape.watch(modalities)
        loss = collaborative_loss(modalities, ALL, ids, ~ALL[0], temperature=0.1)
    assert float(loss) == 0
    assert not tf.convert_to_tensor(tape.gradient(loss, modalities)).numpy().any()


def test_the_collaborative_loss_counts_as_much_as_told():
    rng = np.random.default_rng(0)
    modalities, ids = unit(rng.normal(size=[6, 2, 4])), unit(rng.normal(size=[6, 4]))
    present, known, item = np.ones([6, 2], bool), np.ones(6, bool), np.array([0, 1, 2, 3, 3, 4])
    options = {"item": item, "collaborative": ids, "has_collaborative": known}

    def loss(weight, **options):
        layer = Alignment(4, temperature=0.2, collaborative=weight)
        layer(draw(), present)
        return float(layer.loss(modalities, present, **options))

    among = float(contrastive_loss(modalities, present, temperature=0.2, item=item))
    to_ids = collaborative_loss(modalities, present, ids, known, temperature=0.2, item=item)
    assert loss(3.0, **options) == pytest.approx(among + 3 * float(to_ids), rel=1e-5)
    assert loss(0.0, **options) == pytest.approx(among, rel=1e-5)
    assert loss(3.0, item=item) == pytest.approx(among, rel=1e-5)


def world(rows=60, width=7, dim=4, noise=0.5, seed=0):
    """Features of different scale and mean, and a target that they foretell in part."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[rows, width]) @ rng.normal(size=[width, width])
    y = 0.3 * x @ rng.normal(size=[width, dim]) + noise * rng.normal(size=[rows, dim]) + 1
    return (x * 10.0 ** rng.integers(-2, 3, width) + 5).astype(np.float32), y.astype(np.float32)


def counts(fits):
    return [fit.num_items for fit in fits]


def fitted(kind, x, y, **options):
    """Kernel and bias of a projection, fitted to all items."""
    layer = Alignment(y.shape[1], kinds=[kind], **options)
    everything = np.ones([len(x), 1], bool)
    assert counts(layer.fit([x], everything, y, everything[:, 0])) == [len(x)]
    return [value.astype(np.float64) for value in layer.projections[0].get_weights()]


def test_a_feature_alone_keeps_half_of_its_coefficient_at_penalty_one():
    """Features -1 and 1, targets -2 and 2, about means 3 and 1."""
    x, y = np.array([[2.0], [4.0]], np.float32), np.array([[-1.0, 1.0], [3.0, 1.0]], np.float32)
    for l2, coefficient in ((0.0, 2.0), (1.0, 1.0), (3.0, 0.5)):
        kernel, bias = fitted("ridge", x, y, l2=l2)
        np.testing.assert_allclose(kernel, [[coefficient, 0]], atol=1e-6)
        np.testing.assert_allclose(bias, [1 - 3 * coefficient, 1], atol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 0.1, 1.0])
def test_ridge_is_least_squares_with_rows_for_the_penalty(l2):
    x, y = world()
    standard = (x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64)
    matrix = np.concatenate([standard, (l2 * len(x)) ** 0.5 * np.eye(7)])
    centered = y - y.mean(0, np.float64)
    right = np.concatenate([centered, np.zeros([7, 4])])
    want = standard @ np.linalg.lstsq(matrix, right, rcond=None)[0] + y.mean(0, np.float64)
    kernel, bias = fitted("ridge", x, y, l2=l2)
    np.testing.assert_allclose(x @ kernel + bias, want, atol=1e-3)


@pytest.mark.parametrize(("rows", "noise"), [(40, 0.5), (12, 0.5), (300, 3.0), (60, 0.01)])
def test_the_penalty_is_that_of_ridge_regression_s_own_cross_validation(rows, noise):
    """By the hat matrix, whose diagonal is replaced with its mean; no item's target leaks in."""
    x, y = world(rows, noise=noise)
    of_rows = closed_form.moments(x, y, np.arange(rows))
    standard = (x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64)
    centered, errors = y - y.mean(0, np.float64), []
    for l2 in closed_form.PENALTIES:
        inverse = np.linalg.inv(standard.T @ standard + l2 * rows * np.eye(7))
        hat = standard @ inverse @ standard.T + 1 / rows
        residual = centered - hat @ centered
        errors.append(np.square(residual).sum() / rows / (1 - np.trace(hat) / rows) ** 2)
    l2, explained = closed_form.cross_validated_l2(of_rows)
    assert l2 == closed_form.PENALTIES[np.argmin(errors)]
    of_mean = np.square(centered).sum() / rows / (1 - 1 / rows) ** 2
    assert explained == pytest.approx(1 - min(errors) / of_mean, abs=1e-6)
    assert Alignment(4, kinds=["ridge"]).fit(
        [x], np.ones([rows, 1], bool), y, np.ones(rows, bool)
    ) == [(rows, l2)]


def test_features_that_say_nothing_explain_nothing_and_get_the_largest_penalty():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=[200, 30]), rng.normal(size=[200, 4])
    l2, explained = closed_form.cross_validated_l2(closed_form.moments(x, y, np.arange(200)))
    assert l2 > 1 and explained < 0.02
    for same in (closed_form.moments(x, 0 * y, np.arange(200)), closed_form.moments(x, y, [5, 5])):
        assert closed_form.cross_validated_l2(same) == (1e4, 0.0)


def test_one_modality_is_mapped_to_the_other():
    """Words and pictures show the same causes; the map of the train items that have both holds for
    the others, and no other item has a part in it."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=[200, 4])
    text, image = (
        (causes @ rng.normal(size=[4, width]) + 0.05 * rng.normal(size=[200, width])).astype("f4")
        for width in (9, 6)
    )
    known, present = np.arange(200) < 100, np.ones([200, 2], bool)
    present[:20, 0], present[20:30, 1] = False, False
    layer = Alignment(5, kinds=["ridge"])
    fits = layer.fit_to_modality([text, image], present, 1, known)
    assert counts(fits) == [70, 90] and fits[0].l2 <= 0.1 and fits[1].l2 is None
    kernel, bias = layer.projections[1].get_weights()
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(5), atol=1e-5)
    rows = known & present[:, 1]
    centered = image[rows] - image[rows].mean(axis=0)
    variance = np.square(np.linalg.svd(centered)[1][:5]).sum()
    assert np.square(image[rows] @ kernel + bias).sum() == pytest.approx(variance, rel=1e-4)
    vectors = layer([text, image], np.ones([200, 2], bool)).numpy()[100:]
    cosine = vectors[:, 0] @ vectors[:, 1].T
    assert np.diag(cosine).mean() > 0.95 and (cosine.argmax(axis=1) == np.arange(100)).mean() > 0.8

    want = layer.get_weights()
    text[~known | ~present.all(axis=1)], image[~rows] = np.nan, np.nan
    layer.fit_to_modality([text, image], present, 1, known)
    for got, other in zip(layer.get_weights(), want, strict=True):
        np.testing.assert_array_equal(got, other)
    few = layer.fit_to_modality([text, image], present, 1, np.arange(200) == 50)
    assert counts(few) == [0, 0]


def test_a_wide_space_holds_a_narrow_modality():
    """With more dimensions than components, the others are 0."""
    x, y = world(width=3)
    layer = Alignment(8, kinds=["cca"])
    layer.fit_to_modality([x, y], np.ones([60, 2], bool), 0, np.ones(60, bool))
    vectors = layer([x, y], np.ones([60, 2], bool)).numpy()
    assert np.isfinite(vectors).all() and not vectors[:, :, 3:].any()


def test_cca_predicts_through_canonical_variates():
    """Variates by QR (Björck and Golub 1973), which needs no covariance."""
    x, y = world()
    (q_x, _), (q_y, r_y) = (np.linalg.qr(v - v.mean(0, np.float64)) for v in (x, y))
    left, c, right = np.linalg.svd(q_x.T @ q_y)
    assert 0.1 < c.min() and c.max() < 0.999
    counts = c**2 / (c**2 + (1 - c**2) * 7 / 60)
    want = q_x @ left[:, :4] * (c * counts) @ right @ r_y + y.mean(0, np.float64)
    kernel, bias = fitted("cca", x, y, l2=0.0)
    np.testing.assert_allclose(x @ kernel + bias, want, atol=1e-3)
    ridge = fitted("ridge", x, y, l2=0.0)
    assert np.abs(x @ ridge[0] + ridge[1] - want).max() > 0.01


@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_cca_with_many_items_is_ridge(l2):
    x, y = world()
    x, y = np.tile(x, [1000, 1]), np.tile(y, [1000, 1])
    (kernel, bias), (other, its) = (fitted(kind, x, y, l2=l2) for kind in ("cca", "ridge"))
    np.testing.assert_allclose(x[:60] @ kernel + bias, x[:60] @ other + its, atol=5e-3)


def test_procrustes_finds_the_rotation_the_scale_and_the_shift():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=[4, 4]))[0]
    x = rng.normal(size=[30, 4]).astype(np.float32) + 3
    kernel, bias = fitted("procrustes", x, (0.2 * x @ rotation - 1).astype(np.float32))
    np.testing.assert_allclose(kernel, 0.2 * rotation, atol=1e-5)
    np.testing.assert_allclose(bias, -np.ones(4), atol=1e-5)


def test_procrustes_of_equal_widths_is_that_of_scipy():
    from scipy.linalg import orthogonal_procrustes

    x, y = world(width=4)
    centered = [v - v.mean(0, np.float64) for v in (x, y)]
    rotation, _ = orthogonal_procrustes(*centered)
    turned = centered[0] @ rotation
    scale = (turned * centered[1]).sum() / (turned**2).sum()
    kernel, _ = fitted("procrustes", x, y)
    np.testing.assert_allclose(kernel, scale * rotation, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("width", [3, 4, 9])
@pytest.mark.parametrize("rows", [3, 60])
def test_procrustes_is_semi_orthogonal(width, rows):
    kernel, _ = fitted("procrustes", *world(rows, width=width))
    product = kernel @ kernel.T if width < 4 else kernel.T @ kernel
    np.testing.assert_allclose(product / product[0, 0], np.eye(len(product)), atol=1e-4)


@pytest.mark.parametrize("kind", ["ridge", "cca"])
def test_the_unit_of_a_feature_does_not_matter(kind):
    x, y = world()
    other = x * np.float32([8, 1, 0.25, 1, 64, 1, 1]) - np.float32(16)
    answers = [x_ @ kernel + bias for x_ in (x, other) for kernel, bias in [fitted(kind, x_, y)]]
    np.testing.assert_allclose(*answers, atol=2e-3)


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_only_items_that_are_known_and_have_the_modality_count(kind):
    x, y = world()
    want = fitted(kind, x[:25], y[:25])
    present, known = np.ones([60, 1], bool), np.ones(60, bool)
    present[25:40], known[40:] = False, False
    x[25:40], y[40:] = np.nan, np.nan
    layer = Alignment(4, kinds=[kind])
    assert counts(layer.fit([x], present, y, known)) == [25]
    for got, other in zip(layer.projections[0].get_weights(), want, strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_blocks_make_no_difference(kind, monkeypatch):
    whole = fitted(kind, *world())
    monkeypatch.setattr(closed_form, "BLOCK", 7)
    for got, want in zip(fitted(kind, *world()), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 1.0])
@pytest.mark.parametrize("kind", CLOSED_FORMS)
@pytest.mark.parametrize("rows", [2, 3, 6])
def test_few_items_give_something_finite(kind, rows, l2):
    x, y = world(rows)
    kernel, bias = fitted(kind, x, y, l2=l2)
    assert np.isfinite(kernel).all() and np.isfinite(bias).all() and kernel.any()
    if l2 == 0 and kind != "procrustes":
        # Fewer items than features are met exactly; no canonical correlation of 1 is doubted.
        np.testing.assert_allclose(x @ kernel + bias, y, atol=1e-2)


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_fewer_than_two_items_leave_a_projection_as_it_was(kind):
    features = draw()
    present = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, 0]], bool)
    known = np.array([1, 1, 1, 0, 1, 1], bool)
    layer = Alignment(4, kinds=[kind])
    layer(features, present)
    before = [projection.get_weights() for projection in layer.projections]
    assert counts(layer.fit(features, present, draw(6, 1)[0][:, :4], known)) == [3, 0]
    after = [projection.get_weights() for projection in layer.projections]
    assert not np.allclose(before[0][0], after[0][0])
    for one, other in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert counts(layer.fit(features, present, draw(6, 1)[0][:, :4], ~ALL[[0] * 6, 0])) == [0, 0]


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_what_does_not_vary_says_nothing(kind):
    x, y = world()
    x[:, 2] = 0.1
    kernel, bias = fitted(kind, x, y)
    assert np.isfinite(kernel).all() and np.isfinite(bias).all()
    if kind != "procrustes":
        assert not kernel[2].any()
    kernel, bias = fitted(kind, np.full_like(x, 0.1), y)
    np.testing.assert_allclose(kernel, 0, atol=1e-5)
    np.testing.assert_allclose(bias, y.mean(axis=0), rtol=1e-4)
    kernel, bias = fitted(kind, x, np.full_like(y, 0.1))
    np.testing.assert_allclose(x @ kernel + bias, 0.1, atol=1e-4)


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_a_number_that_is_none_is_refused(kind):
    x, y = world()
    x[17, 3] = np.inf
    with pytest.raises(RunError, match="wanted finite numbers .*item number 17"):
        fitted(kind, x, y)


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_fitted_modalities_of_one_item_meet_in_the_target(kind):
    """Two modalities that see the same 4 causes; the maps know half of the items."""
    rng = np.random.default_rng(0)
    target = unit(rng.normal(size=[200, 4]))
    features = [
        (target @ np.linalg.qr(rng.normal(size=[width, 4]))[0].T).astype(np.float32)
        + 0.05 * rng.normal(size=[200, width]).astype(np.float32)
        for width in (9, 6)
    ]
    layer, present = Alignment(4, kinds=[kind], l2=0.1), np.ones([200, 2], bool)
    before = layer(features, present).numpy()
    layer.fit(features, present, target, np.arange(200) < 100)
    after = layer(features, present).numpy()[100:]
    assert (before[:, 0] * before[:, 1]).sum(axis=-1).mean() < 0.5
    assert (after[:, 0] * after[:, 1]).sum(axis=-1).mean() > 0.9
    assert (after * target[100:, None]).sum(axis=-1).mean() > 0.9


def test_maps_are_fitted_in_full_under_half_precision():
    x, y = world()
    layer = Alignment(4, kinds=["ridge"], dtype="mixed_float16")
    layer.fit([x], np.ones([60, 1], bool), y, np.ones(60, bool))
    for got, want in zip(layer.get_weights(), fitted("ridge", x, y), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def translation(margin=1.0):
    """Three items at 0, 90 and 180 degrees, an entity at 270; relation 0 leads from 0 to 90."""
    layer = TranslationLoss(1, 2, 2, margin)
    layer.set_weights([np.array([[0.0, -3.0]]), np.array([[-1.0, 1.0], [0.0, 0.0]])])
    return layer, tf.constant([[2.0, 0], [0, 1], [-1, 0]])


def test_translation_loss_by_hand():
    """Nodes are scaled to unit length. Triples: 0 -0-> 1 is exact, with tail 2 it is off by
    |(0, 1) - (-1, 0)|; 1 -1-> entity is off by 2, with tail 0 by sqrt 2."""
    layer, items = translation()
    head, relation, tail, corrupted = [0, 1], [0, 1], [1, 3], [2, 0]
    nodes = [layer.nodes(items, 3, tf.constant(node)) for node in (head, tail)]
    np.testing.assert_allclose(nodes[1], [[0, 1], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(layer(nodes[0], relation, nodes[1]), [0, 2], atol=1e-5)
    loss = layer.loss(items, 3, *(tf.constant(x) for x in (head, relation, tail, corrupted)))
    assert float(loss) == pytest.approx((0 + 1 + 2 - 2**0.5) / 2, abs=1e-5)
    layer.margin = 2.0
    loss = layer.loss(items, 3, *(tf.constant(x) for x in (head, relation, tail, corrupted)))
    assert float(loss) == pytest.approx((2 - 2**0.5 + 2 + 2 - 2**0.5) / 2, abs=1e-5)


def test_a_wrong_tail_that_is_the_right_one_does_not_count():
    layer, items = translation()
    head, relation, tail = (tf.constant(x) for x in ([0, 1], [0, 1], [1, 3]))
    one = layer.loss(items, 3, head[1:], relation[1:], tail[1:], tf.constant([0]))
    both = layer.loss(items, 3, head, relation, tail, tf.constant([1, 0]))
    assert float(one) == float(both) > 0
    assert float(layer.loss(items, 3, head, relation, tail, tail)) == 0


def test_no_triple_no_loss():
    none = tf.zeros([0], tf.int32)
    layer, items = translation()
    assert float(layer.loss(items, 3, none, none, none, none)) == 0


def test_translation_reaches_items_entities_and_relations():
    """Also where an item's vector is zeros, and where a triple holds exactly."""
    layer, items = translation(margin=5.0)
    layer.entities.assign([[1.0, -3.0]])
    items = tf.Variable(items)
    items.scatter_nd_update([[2]], [[0.0, 0.0]])
    triples = [tf.constant(x) for x in ([0, 1, 2], [0, 1, 1], [1, 3, 0], [2, 0, 3])]
    with tf.GradientTape() as tape:
        loss = layer.loss(items, 3, *triples)
    for gradient in tape.gradient(loss, [items, layer.entities, layer.relations]):
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.01


def test_translation_is_compiled_and_the_same_in_half_precision():
    layer, items = translation()
    half = TranslationLoss(1, 2, 2, dtype="mixed_float16")
    half.set_weights(layer.get_weights())
    triples = [tf.constant(x) for x in ([0, 1], [0, 1], [1, 3], [2, 0])]
    plain = layer.loss(items, 3, *triples)
    compiled = tf.function(layer.loss, jit_compile=True)(items, 3, *triples)
    assert float(compiled) == pytest.approx(float(plain), rel=1e-5)
    assert float(half.loss(items, 3, *triples)) == float(plain)


def test_tables_start_at_random_and_apart():
    layer = TranslationLoss(50, 50, 8)
    assert np.abs(layer.entities - layer.relations).min(axis=1).max() > 0.01
    lengths = np.linalg.norm(layer.relations, axis=1)
    assert 0.5 < lengths.mean() < 1.5


def test_the_graph_pulls_items_of_one_entity_together():
    """Six items, two entities, "belongs to": by training, items of one entity become alike."""
    rng = np.random.default_rng(0)
    items = tf.Variable(unit(rng.normal(size=[6, 4])))
    layer = TranslationLoss(2, 1, 4)
    head = tf.range(6)
    tail = tf.constant([6, 6, 6, 7, 7, 7])
    corrupted, relation = 13 - tail, tf.zeros([6], tf.int32)
    optimizer = tf.keras.optimizers.Adam(0.05)

    def own_and_other():
        vectors = unit(items.numpy())
        cosine = vectors @ vectors.T
        own = (tail.numpy()[:, None] == tail.numpy()) & ~np.eye(6, dtype=bool)
        return cosine[own].mean() - cosine[~own & ~np.eye(6, dtype=bool)].mean()

    before = own_and_other()
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = layer.loss(items, 6, head, relation, tail, corrupted)
        weights = [items, *layer.trainable_weights]
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    assert own_and_other() > before + 0.5


def test_a_shared_projection_keeps_what_lies_together():
    layer = Alignment(4, shares=(0, 1, 0))
    features = [tf.random.stateless_normal([5, 8], [seed, 0]) for seed in (0, 1)]
    vectors = layer([*features, features[0]], tf.ones([5, 3], tf.bool)).numpy()
    np.testing.assert_allclose(vectors[:, 2], vectors[:, 0], atol=1e-6)
    assert np.abs(vectors[:, 1] - vectors[:, 0]).max() > 0.1
    # One kernel and bias less, and a temperature.
    assert len(layer.trainable_weights) == 2 * 2 + 1
    again = Alignment.from_config(layer.get_config())
    again.build([[None, 8]] * 3)
    assert again.projections[2] is again.projections[0]


def test_two_kinds_of_one_encoder_share_a_projection():
    schema = Schema(
        num_users=1,
        num_items=3,
        modalities={
            "vector": ModalitySpec("vector", dim=2),
            "title": ModalitySpec("text"),
            "cover": ModalitySpec("image"),
        },
    )
    both = {
        **{"text.family": "clip", "image.family": "clip"},
        **{"text.weights": "a/b", "image.weights": "a/b"},
    }
    config = Config().override(both)
    assert ItemTower.from_experiment(config, schema).alignment.shares == (0, 1, 1)
    fitted = config.override({"alignment.kinds": ["ridge"]})
    assert ItemTower.from_experiment(fitted, schema).alignment.shares is None
    assert ItemTower.from_experiment(Config(), schema).alignment.shares is None
