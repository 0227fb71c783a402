import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from support.saved_encoders import SPEC, TEXTS, save_model

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders.text import bert as text
from mmrec_tf.errors import ConfigError


def test_nothing_to_learn_from():
    with pytest.raises(ConfigError, match="no text to learn"):
        text.build_encoder(TextConfig(weights="random"), SPEC, values=["", " "])


@pytest.fixture(scope="module")
def encoder():
    config = TextConfig(
        weights="random",
        max_tokens=8,
        vocabulary_size=60,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
    )
    return text.build_encoder(config, SPEC, values=TEXTS)


def test_ids_by_hand(encoder):
    tokens = encoder.vocabulary.split("\n")
    ids = encoder.preprocess(tf.constant(["The BIRD", "", "q" * 101, "a " * 50])).numpy()
    spelled = [[tokens[i] for i in row] for row in ids]
    assert spelled[0] == ["[CLS]", "the", "bird", "[SEP]"] + 4 * ["[PAD]"]
    assert spelled[1] == ["[CLS]", "[SEP]"] + 6 * ["[PAD]"]
    assert spelled[2][:3] == ["[CLS]", "[UNK]", "[SEP]"]
    assert spelled[3] == ["[CLS]"] + 6 * ["a"] + ["[SEP]"]


def test_bytes_that_are_not_text_do_not_fail(encoder):
    assert np.isfinite(encoder(encoder.preprocess(tf.constant([b"\xff\xfe bird", b"\x00"])))).all()


def test_mean_pooling_averages_the_tokens_alone(encoder):
    ids = encoder.preprocess(tf.constant(["the bird"]))
    hidden = encoder.bert(ids, attention_mask=tf.cast(ids > 0, tf.int32)).last_hidden_state
    np.testing.assert_allclose(encoder(ids)[0], tf.reduce_mean(hidden[0, :4], 0), atol=1e-6)


def test_padding_changes_nothing(encoder):
    ids = encoder.preprocess(tf.constant(["the bird"]))
    np.testing.assert_allclose(encoder(ids), encoder(ids[:, :4]), atol=1e-6)


def test_more_tokens_than_positions(encoder):
    config = {**encoder.get_config(), "max_tokens": 9}
    with pytest.raises(ConfigError, match="8 positions"):
        text.Encoder(**config)


def test_vocabulary_without_special_tokens(encoder):
    config = {**encoder.get_config(), "vocabulary": "[UNK]\nbird"}
    with pytest.raises(ConfigError, match=r"lacks \[PAD\], \[CLS\], \[SEP\]"):
        text.Encoder(**config)


def test_local_folder_in_tensorflow_format(encoder, tmp_path):
    folder = save_model(encoder, tmp_path / "model")
    loaded = text.build_encoder(TextConfig(weights=str(folder), max_tokens=8), SPEC)
    assert loaded.fingerprint() == encoder_with(encoder, bert_config=loaded.bert_config)
    ids = encoder.preprocess(tf.constant(TEXTS))
    np.testing.assert_array_equal(loaded.preprocess(tf.constant(TEXTS)), ids)
    np.testing.assert_allclose(loaded(ids), encoder(ids), atol=1e-6)


def encoder_with(encoder, **config):
    copy = text.Encoder.from_config({**encoder.get_config(), **config})
    copy.set_weights(encoder.get_weights())
    return copy.fingerprint()


def test_letter_case_is_the_models_own(encoder, tmp_path):
    folder = save_model(encoder, tmp_path / "model", do_lower_case=False)
    cased = text.build_encoder(TextConfig(weights=str(folder), max_tokens=8), SPEC)
    unknown = encoder.vocabulary.split("\n").index("[UNK]")
    assert cased.preprocess(tf.constant(["The bird"]))[0, 1] == unknown
    assert encoder.preprocess(tf.constant(["The bird"]))[0, 1] != unknown
    assert json.loads(cased.assets()["tokenizer.json"]) == {"lower_case": False}


def test_models_that_cannot_be_used(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = save_model(encoder, tmp_path / "model")
    for weights in ("./missing", str(tmp_path / "missing")):
        with pytest.raises(ConfigError, match="wanted a folder"):
            text.build_encoder(TextConfig(weights=weights), SPEC)
    (folder / "tf_model.h5").unlink()
    with pytest.raises(ConfigError, match="could not load"):
        text.build_encoder(TextConfig(weights=str(folder)), SPEC)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ConfigError, match="could not load"):
        text.build_encoder(TextConfig(weights=str(folder)), SPEC)
    # The default, where no hub can be reached: the three ways on.
    with pytest.raises(ConfigError, match='a local folder.*"random".*another text.family'):
        text.build_encoder(TextConfig(), SPEC)


@pytest.fixture(scope="module")
def minilm(shared):
    folder = shared / "weights" / "text" / "minilm-l6-fp16"
    if not folder.is_dir():
        pytest.skip("needs shared/weights/text/minilm-l6-fp16, which is not here")
    config = TextConfig(weights=str(folder), max_tokens=64)
    return folder, text.build_encoder(config, SPEC)


def test_pretrained_half_precision_file(minilm):
    _, encoder = minilm
    assert {weight.dtype for weight in encoder.weights} == {tf.float32}
    assert encoder.output_dim == 384
    raw = tf.constant(["a red dress", "crimson gown", "kernel scheduler"])
    vectors = tf.math.l2_normalize(encoder(encoder.preprocess(raw)), axis=1)
    # The cosines that PyTorch gives for these weights.
    similar = tf.matmul(vectors, vectors, transpose_b=True).numpy()
    np.testing.assert_allclose(similar[0, 1:], [0.549, 0.032], atol=2e-3)


def test_reload_reads_no_model(minilm, monkeypatch):
    import transformers

    folder, encoder = minilm
    monkeypatch.setattr(transformers.TFBertModel, "from_pretrained", None)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", None)
    config = TextConfig(weights=str(folder), max_tokens=64)
    copy = text.build_encoder(config, SPEC, assets=encoder.assets())
    copy.set_weights(encoder.get_weights())
    assert copy.fingerprint() == encoder.fingerprint()
