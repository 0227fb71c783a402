"""The items' map in TensorBoard: a row of each table an item, and its picture in the sprite."""

import numpy as np
import PIL.Image
from support.small_world import NUM_ITEMS

from mmrec_tf.reporting.projector import write_projector


def test_the_projector_shows_all_items_with_their_titles_and_pictures(run, tmp_path):
    config = write_projector(run, tmp_path / "log").read_text()
    rows = np.loadtxt(tmp_path / "log/items.tsv")
    np.testing.assert_allclose(rows, run.retrieval.embed_all(), atol=1e-5)
    lines = (tmp_path / "log/metadata.tsv").read_text().splitlines()
    assert lines[0] == "id\ttitle\tgenre\ttrain interactions" and len(lines) == NUM_ITEMS + 1
    assert lines[5].startswith("i4\tgull sea harbor 4\t")
    with PIL.Image.open(tmp_path / "log/sprite.png") as sprite:
        assert sprite.size == (6 * 48, 6 * 48)  # 30 items in rows of 6
        pixels = np.asarray(sprite)
    # i4 has a picture, blue; i26 has none.
    assert pixels[24, 4 * 48 + 24, 2] > pixels[24, 4 * 48 + 24, 0]
    assert set(pixels[4 * 48 + 24, 2 * 48 + 24].tolist()) == {0xD0, 0xD4, 0xD8}
    for word in ('"items.tsv"', '"metadata.tsv"', '"sprite.png"', "[48, 48]"):
        assert word in config
