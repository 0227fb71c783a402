"""One file a modality: raw form, preprocessing in the graph and encoder together.

Each of `text`, `image` and `audio` has

    prepare(raw) -> raw               on the host, once, when a dataset is made
    Encoder.preprocess(raw)           in the graph, in training and serving alike
    Encoder(content) -> vector        in the graph
    build_encoder(config, spec, ...)  the encoder that a config and a schema ask for

and `vector` all but `prepare`. What an encoder promises is written in `encoder`.
"""

from mmrec_tf.modalities import audio, image, text, vector

MODALITIES = {"text": text, "image": image, "audio": audio, "vector": vector}
