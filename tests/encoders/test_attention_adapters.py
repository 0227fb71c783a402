"""Low-rank updates of the attention of any model of the transformers library that has some."""

import numpy as np
import pytest
import tensorflow as tf
from support import tiny_models

from mmrec_tf.config import AudioConfig, ImageConfig, TextConfig
from mmrec_tf.encoders import audio, image, text
from mmrec_tf.encoders.adapters import LowRank
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

RANK = 3
RNG = np.random.default_rng(0)
CONTENT = {
    "image": tf.constant(RNG.integers(0, 256, (2, 32, 32, 3)), tf.uint8),
    "audio": tf.constant(RNG.normal(size=(2, 8000)), tf.float32),
}


def made(folder, model_type, **settings):
    """An encoder of a tiny model, and what it reads."""
    if model_type in ("vit", "swin", "convnext"):
        config = ImageConfig(family="transformers", weights=folder, size=32, **settings)
        return image.build_encoder(config, None), CONTENT["image"]
    if model_type in ("wav2vec2", "hubert", "whisper"):
        config = AudioConfig(family="transformers", weights=folder, clip_seconds=0.5, **settings)
        return audio.build_encoder(config, None), CONTENT["audio"]
    encoder = text.build_encoder(
        TextConfig(weights=folder, max_tokens=12, **settings), ModalitySpec("text")
    )
    return encoder, encoder.preprocess(tf.constant(["a small gray bird", "it sings"]))


def folder_of(path, model_type):
    kinds = {"vision": ("vit", "swin", "convnext"), "speech": ("wav2vec2", "hubert", "whisper")}
    kind = next((kind for kind, types in kinds.items() if model_type in types), "language")
    return getattr(tiny_models, kind)(path / model_type, model_type)


SLOW = ("swin", "wav2vec2", "hubert", "distilbert", "mpnet")
# Each way to freeze is tried with each run.
EACH = [
    *("vit", "whisper"),
    *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW),
]


@pytest.mark.parametrize("model_type", EACH)
def test_the_last_blocks_attention_is_adapted_and_nothing_else(tmp_path, model_type):
    folder = folder_of(tmp_path, model_type)
    lora = {"adaptation": "lora", "adaptation_rank": RANK}
    plain, content = made(folder, model_type, trainable_layers=0)
    encoder, _ = made(folder, model_type, trainable_layers=1, **lora)
    whole, _ = made(folder, model_type, trainable_layers=-1, **lora)
    # Before training it is the pretrained encoder.
    np.testing.assert_allclose(encoder(content), plain(content), rtol=1e-5, atol=1e-6)
    found = [layer for layer in encoder.model.submodules if isinstance(layer, LowRank)]
    assert len(found) == 2 and len({layer.name for layer in found}) == 2
    assert len(encoder.trainable_weights) == 4 and len(whole.trainable_weights) == 8
    assert not encoder.frozen
    # A step changes these, and what comes out, alone.
    before = {id(w): w.numpy() for w in encoder.weights}
    trained = {id(w) for w in encoder.trainable_weights}
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(content, training=True)[:, 0])
        weights = encoder.trainable_weights
        for weight, slope in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(10 * slope)
    for weight in encoder.weights:
        changed = np.abs(weight.numpy() - before[id(weight)]).max()
        assert changed > 0 if id(weight) in trained else changed == 0, weight.name
    assert np.abs(encoder(content) - plain(content)).max() > 1e-6
    # Copies, of the settings and of the files, are the same.
    copy = type(encoder).from_config(encoder.get_config())
    copy.set_weights(encoder.get_weights())
    np.testing.assert_allclose(copy(content), encoder(content), rtol=1e-5, atol=1e-6)
    assert copy.fingerprint() == encoder.fingerprint()
    tf.train.Checkpoint(encoder=encoder).write(str(tmp_path / "weights"))
    again, _ = made(folder, model_type, trainable_layers=1, **lora)
    tf.train.Checkpoint(encoder=again).read(str(tmp_path / "weights")).assert_consumed()
    np.testing.assert_allclose(again(content), encoder(content), rtol=1e-5, atol=1e-6)


def test_a_model_without_attention_is_refused_by_name(tmp_path):
    folder = folder_of(tmp_path, "convnext")
    with pytest.raises(ConfigError, match="image.adaptation: wanted full, as convnext has no att"):
        made(folder, "convnext", trainable_layers=1, adaptation="lora")
    with pytest.raises(ConfigError, match="audio.adaptation: wanted one of full, lora"):
        AudioConfig(family="transformers", weights="a/b", adaptation="adapter")
