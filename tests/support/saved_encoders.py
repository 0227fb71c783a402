"""Encoders and language models, saved."""

import json

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mmrec_tf.schema import ModalitySpec

SPEC = ModalitySpec("text")
TEXTS = ["a small gray bird", "the bird sings", "the small woodpecker drums", "a gray day"] * 2


class Exported(tf.Module):
    """What an export does with an encoder.

    It holds the weights and not the layer, for which Keras would save its training graph too.
    """

    def __init__(self, encoder, raw):
        super().__init__()
        self.weights = list(encoder.weights)
        spec = tf.TensorSpec([None, *raw.shape[1:]], raw.dtype)
        self.embed = tf.function(lambda x: encoder(encoder.preprocess(x)), input_signature=[spec])


def saved_operations(path) -> set[str]:
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    functions = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *functions]}


def save_model(encoder, folder, **tokenizer):
    """A local folder such as a hub would give."""
    encoder.bert.save_pretrained(folder)
    (folder / "vocab.txt").write_text(encoder.vocabulary, encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **tokenizer}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
