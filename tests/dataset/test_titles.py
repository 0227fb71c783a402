"""What people call items: of names.json, of their text, or nothing."""

import numpy as np
import pytest

import mmrec_tf
from mmrec_tf.dataset import titles
from mmrec_tf.errors import DatasetError
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import ModalitySpec, Schema


def write(path, *, names=None):
    texts = ("An owl. It flies.", "", "A gull")
    with DatasetWriter(path) as writer:
        for number, text in enumerate(texts):
            writer.write_item(f"i{number}", content={"text": text} if text else {})
        writer.write_user("u")
        for item, split in enumerate(("train", "valid", "test")):
            writer.write_interactions(split, 0, item=[item], timestamp=[item])
        if names is not None:
            writer.write_json("names.json", names)
        schema = Schema(num_users=1, num_items=3, modalities={"text": ModalitySpec("text")})
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    return mmrec_tf.open_dataset(path)


def test_titles_are_first_sentences_and_nothing_where_there_is_no_text(tmp_path):
    dataset = write(tmp_path / "d")
    assert titles.titles(dataset, np.array([2, 1, 0])) == ["A gull", "", "An owl"]


def test_names_go_before_texts(tmp_path):
    dataset = write(tmp_path / "d", names={"i1": {"title": "Heron"}, "i2": {"title": "Gull"}})
    assert titles.titles(dataset, np.arange(3)) == ["An owl", "Heron", "Gull"]
    ids = np.array([["i2", "", "nobody"], ["i0", "i2", "i1"]], object)
    assert titles.titles_of_ids(dataset, ids).tolist() == [
        ["Gull", "", ""],
        ["An owl", "Gull", "Heron"],
    ]


def test_names_change_nothing_that_a_model_reads(tmp_path):
    bare = write(tmp_path / "a")
    named = write(tmp_path / "b", names={"i1": {"title": "Heron"}})
    assert bare.manifest["content"] == named.manifest["content"]
    assert not named.catalog.present[1].any()


def test_names_of_another_form_are_refused(tmp_path):
    dataset = write(tmp_path / "d", names={"i1": "Heron"})
    with pytest.raises(DatasetError, match="names.json: wanted titles by item id"):
        titles.titles(dataset, np.arange(3))
