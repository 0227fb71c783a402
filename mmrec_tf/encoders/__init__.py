"""Content to one vector: a folder a kind, a file a family of encoders.

A family's file holds raw form, preprocessing in the graph, and encoder together.

Each has

    Encoder.preprocess(raw)           in the graph, in training and serving alike
    Encoder(content) -> vector        in the graph
    build_encoder(config, spec, ...)  the encoder that a config and a schema ask for

What an encoder promises is written in `encoder`; what is done to media before, on the host and
once, in `mmrec_tf.media`.
"""

import logging

from mmrec_tf.encoders import audio, image, text, vector, video

MODALITIES = {"text": text, "image": image, "audio": audio, "video": video, "vector": vector}

# transformers is pinned below 5. That 5 will have no TensorFlow is nothing for users to act on.
logging.getLogger("transformers.modeling_tf_utils").addFilter(
    lambda record: "TensorFlow and JAX classes are deprecated" not in record.getMessage()
)
# `cache.forward` makes one function for each encoder, which TensorFlow takes for one in a loop.
logging.getLogger("tensorflow").addFilter(
    lambda record: "<function forward.<locals>.step" not in record.getMessage()
)
