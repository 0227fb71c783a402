"""Text: UTF-8 on disk, the numbers of its words in the graph, TF-IDF on top: the encoder of
`bag_of_words`, its counts weighted by inverse document frequency."""

from mmrec_tf.encoders.text.bag_of_words import NEEDS, READS_TRAIN, Encoder, build_encoder

__all__ = ["NEEDS", "READS_TRAIN", "Encoder", "build_encoder"]
