"""One file a modality: raw form, preprocessing in the graph and encoder together.

Each has

    Encoder.preprocess(raw)           in the graph, in training and serving alike
    Encoder(content) -> vector        in the graph
    build_encoder(config, spec, ...)  the encoder that a config and a schema ask for

What an encoder promises is written in `encoder`; what is done to media before, on the host and
once, in `mmrec_tf.media`.
"""

from mmrec_tf.encoders import vector
from mmrec_tf.encoders.audio import mel_cnn as audio
from mmrec_tf.encoders.image import applications as image
from mmrec_tf.encoders.text import bert as text

MODALITIES = {"text": text, "image": image, "audio": audio, "vector": vector}
