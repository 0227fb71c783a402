"""Files as people have them: what is served is what was trained on, or is flagged."""

from collections import Counter

import pytest

from benchmarks import media_skew
from benchmarks.media_skew import ABSENT, EQUAL, FLAGGED


@pytest.fixture(scope="module")
def rows():
    return media_skew.measure()


def test_every_kind_is_read_alike_or_flagged(rows):
    assert [row for row in rows if row["verdict"] not in (EQUAL, ABSENT, FLAGGED)] == []
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["image"] >= 20 and kinds["audio"] >= 10
    assert len(media_skew.table(rows).splitlines()) == len(rows) + 2


@pytest.mark.parametrize(
    "what",
    [
        "half transparent PNG",
        "JPEG with EXIF's orientation 6",
        "PNG with orientation 6",
        "WAV that begins with 4 s of silence",
        "WAV of 25 s with a short loud part",
        "WAV of opposite phases",
    ],
)
def test_what_people_have_is_read_and_not_just_flagged(rows, what):
    (row,) = (row for row in rows if row["what"] == what)
    assert row["verdict"] == EQUAL


def test_the_kinds_do_differ_from_each_other():
    """Else the comparison could not fail."""
    upright, turned = media_skew.pixels(), media_skew.pixels()[::-1]
    assert abs(upright.astype(int) - turned).mean() > 10 * media_skew.TOLERANCE["image"]
