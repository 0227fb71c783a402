import numpy as np
import pytest
import tensorflow as tf
import transformers
from support import tiny_models
from support.saved_encoders import Exported, saved_operations

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders import text
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.allowed_ops import other_ops
from mmrec_tf.schema import ModalitySpec

TEXTS = ["a small gray bird", "The bird sings on trees!", "", "xyz drums " * 20]
# One is tried with each run; the others are slow to make.
EACH = ["distilbert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("electra", "mpnet"))]


def build(*, assets=None, **settings):
    config = TextConfig(**{"max_tokens": 12, **settings})
    return text.build_encoder(config, ModalitySpec("text"), assets=assets)


def reference(folder, pooling="mean"):
    """The library's own way from texts to vectors."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.TFAutoModel.from_pretrained(folder)
    given = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="np"
    )
    mask = given["attention_mask"]
    states = model(
        input_ids=tf.constant(given["input_ids"]), attention_mask=tf.constant(mask)
    ).last_hidden_state.numpy()
    mean = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    return given["input_ids"], states[:, 0] if pooling == "cls" else mean


@pytest.mark.parametrize("model_type", EACH)
def test_word_pieces_of_other_models_are_made_in_core_operations(tmp_path, model_type):
    folder = tiny_models.language(tmp_path / "model", model_type)
    encoder = build(weights=folder)
    ids, want = reference(folder)
    raw = tf.constant(TEXTS)
    np.testing.assert_array_equal(encoder.preprocess(raw), ids)
    np.testing.assert_allclose(encoder(encoder.preprocess(raw)), want, rtol=1e-4, atol=1e-5)
    assert not encoder.not_exported
    copy = build(weights="gone", assets=encoder.assets())
    copy.set_weights(encoder.get_weights())
    assert copy.fingerprint() == encoder.fingerprint()
    with pytest.raises(ConfigError, match="text.adaptation: wanted full or lora, as BERT alone"):
        build(weights=folder, trainable_layers=1, adaptation="adapter")
    with pytest.raises(ConfigError, match="text.max_tokens: this .* positions"):
        build(weights=folder, max_tokens=30)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["distilbert", "electra", "mpnet"])
def test_other_models_train_and_are_exported(tmp_path, model_type):
    folder = tiny_models.language(tmp_path / "model", model_type)
    encoder = build(weights=folder)
    raw = tf.constant(TEXTS)
    want = encoder(encoder.preprocess(raw))
    tf.saved_model.save(Exported(encoder, raw), str(tmp_path / "saved"))
    assert not other_ops(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.embed(raw), want, rtol=1e-4, atol=1e-5)
    last = build(weights=folder, trainable_layers=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(last(last.preprocess(raw), training=True) ** 2)
    assert 0 < len(last.trainable_weights) < len(last.weights) / 2
    assert all(g is not None for g in tape.gradient(loss, last.trainable_weights))


@pytest.mark.slow
def test_other_tokens_are_made_by_the_host_and_refused_in_an_export(tmp_path):
    folder = tiny_models.language(tmp_path / "model", "roberta")
    encoder = build(weights=folder, pooling="cls")
    ids, want = reference(folder, "cls")
    raw = tf.constant(TEXTS)
    content = tf.function(encoder.preprocess)(raw)
    np.testing.assert_array_equal(content, ids)
    np.testing.assert_allclose(encoder(content), want, rtol=1e-4, atol=1e-5)
    assert "roberta" in encoder.not_exported
    tf.saved_model.save(Exported(encoder, raw), str(tmp_path / "saved"))
    assert "PyFunc" in "".join(saved_operations(tmp_path / "saved"))
    whole = build(weights=folder, trainable_layers=-1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(whole(content, training=True) ** 2)
    assert all(g is not None for g in tape.gradient(loss, whole.trainable_weights))
