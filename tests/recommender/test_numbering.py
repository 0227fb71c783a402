"""Ids have numbers, here and in an export, whose graph does not hold them."""

import numpy as np
import tensorflow as tf

from mmrec_tf.exporting.allowed_ops import other_ops
from mmrec_tf.recommender.numbering import Numbering


def test_ids_have_numbers():
    table = Numbering(np.array(["i0", "ü", "b"], object))
    asked = tf.constant([["ü", "", "b"], ["u", "i0", "I0"]])
    assert table.lookup(asked).numpy().tolist() == [[1, -1, 2], [-1, 0, -1]]
    assert Numbering([]).lookup(tf.constant(["x"])).numpy().tolist() == [-1]


class Servable(tf.Module):
    def __init__(self, numbering):
        super().__init__()
        self.numbering = numbering

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="id")])
    def number(self, id):
        return {"number": self.numbering.lookup(id)}


def test_a_saved_graph_finds_its_ids_in_the_checkpoint(tmp_path):
    ids = [f"an item with the long name {number}" for number in range(1000)]
    servable = Servable(Numbering(ids))
    tf.saved_model.save(servable, tmp_path, signatures=servable.number)
    graph = (tmp_path / "saved_model.pb").read_bytes()
    assert b"with the long name" not in graph
    assert other_ops(tmp_path) == []
    asked = [ids[999], "", "nothing", ids[0]]
    want = [999, -1, -1, 0]
    loaded = tf.saved_model.load(tmp_path).signatures["serving_default"]
    assert loaded(tf.constant(asked))["number"].numpy().tolist() == want
    # As TensorFlow Serving loads it: variables, then what a graph is begun with.
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        found = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path))
        served = found.signature_def["serving_default"]
        answer = session.run(
            served.outputs["number"].name, {served.inputs["id"].name: np.array(asked, object)}
        )
    assert answer.tolist() == want
