import json

from mmrec_tf.__main__ import main
from mmrec_tf.config import FAMILIES, Config
from mmrec_tf.encoders.families import list_families
from mmrec_tf.reporting.tables import print_families


def test_every_family_is_listed_and_measured_where_it_can_be(capsys, tmp_path):
    (tmp_path / "words.txt").write_text("the 1 2 3\nbird 4 5 6\n")
    config = Config().override(
        {
            "text.family": "word_vectors",
            "text.vectors": str(tmp_path / "words.txt"),
            "image.family": "descriptors",
            "image.size": 32,
            "audio.filters": [4],
        }
    )
    found = {(one.kind, one.name): one for one in list_families(config)}
    assert list(found) == [(kind, name) for kind in FAMILIES for name in FAMILIES[kind]]
    assert all(one.needs and one.exported for one in found.values())
    words = found["text", "word_vectors"]
    # Two words and none: three vectors of 3 numbers, and their weights.
    assert (words.chosen, words.weight_bytes, words.vector_length) == (True, 4 * 3 * 4, 3)
    assert found["image", "descriptors"].weight_bytes == 0
    cnn = found["audio", "mel_cnn"]
    # 3 x 3 filters of 2 channels, scale and offset.
    assert cnn.trains and cnn.weight_bytes == 4 * (3 * 3 * 2 * 4 + 4 + 4)
    assert found["audio", "recurrent"].weight_bytes > 0
    # Frames are averaged: what a picture takes, and nothing of their own.
    assert found["video", "frames"].vector_length == found["image", "descriptors"].vector_length
    saved = found["audio", "saved_model"]
    assert saved.weight_bytes is None and saved.reason.startswith("audio.model: wanted")
    print_families([one._asdict() for one in found.values()])
    shown = capsys.readouterr().out
    assert "word_vectors *" in shown and "audio.saved_model: audio.model: wanted" in shown


def test_the_command_prints_json(capsys, monkeypatch):
    from mmrec_tf.encoders import families

    made = families.Family("text", "bert", True, "a model", "yes", False, 4, 2, "")
    monkeypatch.setattr(families, "list_families", lambda config: [made])
    assert main(["encoders", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [made._asdict()]
    assert main(["encoders", "--set", "text.familie=bert"]) == 2
