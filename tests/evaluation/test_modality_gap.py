"""Diagnostics of modalities: known answers, and nothing where there is none."""

import numpy as np
import pytest

from mmrec_tf.evaluation import modality_gap as diagnostics
from mmrec_tf.evaluation.modality_gap import diagnose, linear_cka, own_ranks, uniformity

NAMES = ("text", "image")


def circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def rotation(dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[dim, dim]))[0]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def cka_by_covariances(x, y):
    """Kornblith et al. 2019, eq. 3: over features instead of items."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    squares = [np.square(a.T @ b).sum() for a, b in ((y, x), (x, x), (y, y))]
    return squares[0] / np.sqrt(squares[1] * squares[2])


def test_cka_is_that_of_covariances():
    x, y = draw(50, 6), draw(50, 4, seed=1)
    y[:, :3] += x[:, :3]
    got = linear_cka(x, y)
    assert got == pytest.approx(cka_by_covariances(x, y), rel=1e-6)
    assert 0.2 < got < 0.9


def test_cka_sees_no_rotation_scale_or_shift():
    x = draw(50, 6)
    assert linear_cka(x, 1e-3 * x @ rotation(6) + 5) == pytest.approx(1)
    assert linear_cka(1e30 * x, x) == pytest.approx(1)
    assert linear_cka(x, x * [9, 1, 1, 1, 1, 1]) < 0.8


def test_cka_of_what_has_nothing_in_common_falls_with_items():
    assert linear_cka(draw(2000, 4), draw(2000, 4, seed=1)) < 0.01


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_cka_of_what_does_not_vary_is_none(constant):
    assert linear_cka(np.full([9, 3], constant), draw(9, 4)) is None
    assert linear_cka(draw(9, 4), np.full([9, 3], np.float32(constant))) is None


def test_two_items_by_hand():
    """Text at 0 and 90 degrees, image at 60 and 90, of other lengths."""
    vectors = np.stack([3 * circle(0, 90), 0.5 * circle(60, 90)], 1)
    got = diagnose(vectors, np.ones([2, 2], bool), NAMES)
    r = 3**0.5
    want = {
        "cka/text-image": 1,  # Two points lie on a line in any space.
        "cosine/text-image": (1 / 2 + 1) / 2,
        "alignment/text-image": (1 + 0) / 2,
        "gap/text-image": np.hypot(1 / 2 - 1 / 4, 1 / 2 - (r / 2 + 1) / 2),
        "rank/text-image": 1,
        "accuracy@1/text-image": 1,
        # Image 0 is nearer to text 1 (30 degrees) than to its own (60).
        "rank/image-text": 1.5,
        "accuracy@1/image-text": 0.5,
        "uniformity/text": -4,
        "uniformity/image": -2 * (2 - r),
    }
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=1e-5), name
        assert type(got[name]) is float


def test_three_modalities_are_three_pairs_on_the_items_that_have_both():
    vectors, names = draw(30, 3, 4), ("text", "image", "audio")
    present = np.random.default_rng(1).random([30, 3]) < 0.7
    got = diagnose(vectors, present, names)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = present[:, a] & present[:, b]
        pair = vectors[rows][:, [a, b]]
        alone = diagnose(pair, np.ones([rows.sum(), 2], bool), (names[a], names[b]))
        for name in alone.keys() - {f"uniformity/{names[a]}", f"uniformity/{names[b]}"}:
            assert got[name] == pytest.approx(alone[name]), name
    assert len(got) == 3 * 8 + 3


def test_what_is_absent_does_not_matter():
    vectors, present = draw(20, 2, 4), np.random.default_rng(1).random([20, 2]) < 0.6
    dirty = np.where(present[:, :, None], vectors, np.nan)
    assert diagnose(dirty, present, NAMES) == diagnose(vectors, present, NAMES)


def test_of_spaces_of_their_own_cka_compares_and_uniformity_speaks_of_each():
    for width in (5, 3):
        raw = [draw(20, width), draw(20, 3, seed=1)]
        got = diagnose(raw, np.ones([20, 2], bool), NAMES)
        assert got["cka/text-image"] == pytest.approx(cka_by_covariances(*raw))
        assert got.keys() == {"cka/text-image", "uniformity/text", "uniformity/image"}
        assert diagnostics.collapsed(got) == []


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_vectors_that_are_all_alike_have_collapsed(value):
    raw = [np.full([20, 5], value, np.float32), draw(20, 3)]
    got = diagnose(raw, np.ones([20, 2], bool), NAMES)
    assert got["uniformity/text"] == pytest.approx(0, abs=1e-6)
    assert diagnostics.collapsed(got) == ["text"]


@pytest.mark.parametrize(
    ("present", "names"),
    [
        ([], []),
        ([[1, 1]], []),
        ([[1, 0], [1, 0], [0, 1], [0, 1]], ["uniformity/text", "uniformity/image"]),
        ([[1, 1], [1, 0], [0, 0]], ["uniformity/text"]),
        ([[0, 0], [0, 0]], []),
    ],
)
def test_fewer_than_two_items_have_no_figures(present, names):
    present = np.array(present, bool).reshape(-1, 2)
    assert list(diagnose(draw(len(present), 2, 3), present, NAMES)) == names


def test_no_figure_is_ever_no_number():
    """All alike, zeros, and both."""
    for vectors in (np.ones([6, 2, 3]), np.zeros([6, 2, 3]), np.stack([np.ones([6, 3])] * 2, 1)):
        got = diagnose(vectors.astype(np.float32), np.ones([6, 2], bool), NAMES)
        assert "cka/text-image" not in got
        assert len(got) == 9 and np.isfinite(list(got.values())).all()


def test_a_space_that_collapsed_finds_nothing():
    vectors = np.broadcast_to(draw(1, 1, 64).astype(np.float32), [7, 2, 64])
    got = diagnose(vectors, np.ones([7, 2], bool), NAMES)
    assert got["accuracy@1/text-image"] == 0
    assert got["rank/text-image"] == 4
    assert got["uniformity/text"] == pytest.approx(0, abs=1e-6)


def test_a_gap_between_modalities_is_seen_though_each_finds_its_own():
    """Liang et al. 2022: two cones, alike inside."""
    shape = 0.1 * draw(50, 8)
    vectors = np.stack([shape + np.eye(8)[0], shape - np.eye(8)[0]], 1)
    got = diagnose(vectors, np.ones([50, 2], bool), NAMES)
    assert got["gap/text-image"] > 1.5
    assert got["cka/text-image"] == pytest.approx(1)
    assert got["cosine/text-image"] < -0.5


def test_uniformity_of_four_points_on_a_circle():
    """Four pairs at squared distance 2, two at 4."""
    want = np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6)
    assert uniformity(circle(0, 90, 180, 270)) == pytest.approx(want, abs=1e-5)


def test_equal_scores_share_their_places():
    scores = np.array([[1, 0, 2], [3, 3, 3], [0, 5, 5]], float)
    np.testing.assert_array_equal(own_ranks(scores), [2, 2, 1.5])


def test_many_items_are_sampled_the_same_way_each_time(monkeypatch):
    vectors, present = draw(300, 2, 4), np.ones([300, 2], bool)
    whole = diagnose(vectors, present, NAMES)
    monkeypatch.setattr(diagnostics, "MAX_ITEMS", 100)
    part = diagnose(vectors, present, NAMES)
    assert part == diagnose(vectors, present, NAMES) != whole
    assert part["rank/text-image"] <= 100 < whole["rank/text-image"]
    assert part["uniformity/text"] == pytest.approx(whole["uniformity/text"], abs=0.1)


def test_items_and_names_have_to_fit():
    with pytest.raises(ValueError, match=r"2 modalities and 1 names; got shape \(4, 2\)"):
        diagnose(draw(4, 2, 3), np.ones([4, 2], bool), ("text",))
    with pytest.raises(ValueError, match=r"got shape \(5, 2\)"):
        diagnose(draw(4, 2, 3), np.ones([5, 2], bool), NAMES)
