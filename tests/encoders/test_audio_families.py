import types

import librosa
import numpy as np
import pytest
import tensorflow as tf
from support import tiny_models

import mmrec_tf
from mmrec_tf.config import AudioConfig, Config
from mmrec_tf.encoders import audio
from mmrec_tf.encoders.audio.clips import mean_of_sound
from mmrec_tf.encoders.audio.spectrogram import log_mel, mfcc
from mmrec_tf.encoders.audio.transformers import _standardized, whisper_features
from mmrec_tf.encoders.cache import build_encoders
from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.schema import ModalitySpec

# Half a second of which the last eighth is silence.
CLIPS = np.zeros([2, 8000], np.float32)
CLIPS[:, :7000] = np.random.default_rng(0).normal(0, 0.1, (2, 7000))


def build(*, assets=None, **settings):
    return audio.build_encoder(AudioConfig(clip_seconds=0.5, **settings), None, assets=assets)


def assert_copies(encoder, **settings):
    copy = build(**settings, assets=encoder.assets())
    copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(copy(CLIPS), encoder(CLIPS))
    assert copy.fingerprint() == encoder.fingerprint()


def test_cepstral_coefficients_are_librosas():
    spectrogram = log_mel(tf.constant(CLIPS), sample_rate_hz=16000, num_mels=40)
    power = librosa.feature.melspectrogram(
        y=CLIPS, sr=16000, n_fft=1024, hop_length=256, n_mels=40, fmax=8000
    )
    for row in range(2):
        decibels = librosa.power_to_db(power[row], ref=np.max)
        want = librosa.feature.mfcc(S=decibels, n_mfcc=13).T
        got = mfcc(spectrogram, 13)[row]
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_the_mean_is_over_frames_that_begin_within_the_sound():
    clip = tf.constant([[1.0, 1, 1, 1, 1, 0, 0, 0], [0] * 8])
    frames = tf.constant([[[1.0], [2], [3], [4]]] * 2)
    # Frames begin at 0, 2, 4 and 6; the sound ends with 4. Of silence the first one is left.
    np.testing.assert_allclose(mean_of_sound(frames, clip), [[2], [1]])


@pytest.mark.parametrize("features, cell", [("mel", "lstm"), ("mfcc", "gru")])
def test_recurrent_reads_what_it_is_told(features, cell):
    encoder = build(family="recurrent", features=features, cell=cell, units=5, num_mfcc=7)
    content = encoder.of_clip(tf.constant(CLIPS))
    width = 7 if features == "mfcc" else 128
    assert encoder.network.input_shape == (None, encoder.num_frames, width)
    assert encoder(content).shape == (2, 5)
    # The order of frames counts.
    assert np.abs(encoder(content) - encoder(content[:, ::-1])).max() > 1e-4


# SavedModels and TFLite


def test_a_saved_model_is_taken_out_with_its_weights(tmp_path):
    settings = {"family": "saved_model", "model": tiny_models.saved_sound(tmp_path / "network")}
    encoder = build(**settings)
    loaded = tf.saved_model.load(settings["model"])
    for row in range(2):
        frames = loaded.signatures["serving_default"](waveform=tf.constant(CLIPS[row]))
        # Of 20 frames of 400 samples, 18 begin before the sound ends.
        want = tf.reduce_mean(frames["embeddings"][:18], axis=0)
        np.testing.assert_allclose(encoder(CLIPS)[row], want, rtol=1e-5)
    assert encoder.frozen and not encoder.not_exported
    assert_copies(encoder, **settings)
    scores = build(**settings, output="scores")
    np.testing.assert_allclose(tf.reduce_sum(scores(CLIPS), axis=1), 1, rtol=1e-5)
    with pytest.raises(ConfigError, match="audio.output: .*no output 'score'; did you mean"):
        build(**settings, output="score")
    with pytest.raises(ConfigError, match="audio.model: wanted the folder of a SavedModel"):
        build(family="saved_model", model=str(tmp_path / "gone"))


def test_a_saved_model_that_reads_files_is_not_loaded(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def call(waveform):
        secret = tf.strings.length(tf.io.read_file("/etc/hostname"))
        return {"embeddings": waveform[None] + tf.cast(secret, tf.float32)}

    module = tf.Module()
    module.call = call
    tf.saved_model.save(module, str(tmp_path), signatures=call)
    with pytest.raises(ConfigError, match="only computes; .* has the ops ReadFile"):
        build(family="saved_model", model=str(tmp_path))


def test_tflite_runs_here_and_is_refused_in_an_export(tmp_path, capsys):
    settings = {
        "family": "saved_model",
        "model": tiny_models.lite_sound(tmp_path / "network.tflite"),
    }
    encoder = build(**settings)
    kernel = tf.random.stateless_normal([800, 3], [0, 1]).numpy()
    # Of 10 windows 9 begin before the sound ends.
    want = (CLIPS.reshape(2, 10, 800) @ kernel)[:, :9].mean(axis=1)
    np.testing.assert_allclose(encoder(CLIPS), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tf.function(encoder)(CLIPS), want, rtol=1e-4, atol=1e-5)
    assert tf.function(encoder)(CLIPS[:0]).shape == (0, 3)
    assert_copies(encoder, **settings)
    recommender = types.SimpleNamespace(retrieval=types.SimpleNamespace(encoders={"call": encoder}))
    with pytest.raises(ExportError, match="encoder of call cannot be exported: .* TFLite"):
        mmrec_tf.export(recommender, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    # Said before training, too.
    config = Config().override(
        {"audio.clip_seconds": 0.5, **{f"audio.{name}": value for name, value in settings.items()}}
    )
    build_encoders(config, {"call": ModalitySpec("audio")}, {"call": ()})
    assert "cannot be exported: TensorFlow has no core op" in capsys.readouterr().err
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is no TFLite network"):
        build(family="saved_model", model=str(tmp_path / "bad.tflite"))


@pytest.mark.slow
def test_yamnet_hears_a_bird(shared):
    """Real weights: equal to the SavedModel called by itself, and its classes make sense."""
    path = shared / "weights/sound/yamnet_savedmodel"
    if not path.is_dir():
        pytest.skip("needs YAMNet under shared/weights/sound")
    settings = {"family": "saved_model", "model": str(path)}
    time = np.arange(8000) / 16000
    whistle = 0.5 * np.sin(2 * np.pi * (3000 + 500 * np.sin(2 * np.pi * 8 * time)))
    clips = tf.constant(whistle[np.newaxis], tf.float32)
    encoder = build(**settings)
    assert encoder.output_dim == 1024 and not encoder.not_exported
    _, embeddings, _ = tf.saved_model.load(str(path))(clips[0])
    np.testing.assert_allclose(
        encoder(clips)[0], tf.reduce_mean(embeddings, axis=0), rtol=1e-3, atol=1e-3
    )
    assert build(**settings, output="scores")(clips).shape == (1, 521)


# Models of the transformers library


def test_features_are_those_of_the_library():
    import transformers

    reference = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    want = reference([*CLIPS], sampling_rate=16000, return_tensors="np").input_features
    got = whisper_features(tf.pad(CLIPS, [[0, 0], [0, 8000]]), 16)
    np.testing.assert_allclose(got, want, atol=1e-4)
    speech = transformers.Wav2Vec2FeatureExtractor()
    want = speech([*CLIPS[:, :7000]], sampling_rate=16000, return_tensors="np").input_values
    np.testing.assert_allclose(_standardized(tf.constant(CLIPS))[:, :7000], want, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "whisper"])
def test_speech_models(tmp_path, model_type, capsys):
    settings = {
        "family": "transformers",
        "weights": tiny_models.speech(tmp_path / model_type, model_type),
    }
    encoder = build(**settings, trainable_layers=0)
    assert encoder(CLIPS).shape == (2, 8)
    assert_copies(encoder, **settings, trainable_layers=0)
    last = build(**settings, trainable_layers=1)
    whole = build(**settings)
    assert "trains (audio.trainable_layers -1)" in capsys.readouterr().err
    assert 0 < len(last.trainable_weights) < len(whole.trainable_weights)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(whole(CLIPS, training=True) ** 2)
    assert all(g is not None for g in tape.gradient(loss, whole.trainable_weights))
    with pytest.raises(ConfigError, match="audio.sample_rate_hz: wanted 16000"):
        build(**settings, sample_rate_hz=8000)


@pytest.mark.slow
def test_whispers_encoder(shared):
    path = shared / "weights/speech/whisper-tiny-en-fp16"
    if not path.is_dir():
        pytest.skip("needs Whisper under shared/weights/speech")
    import transformers

    encoder = build(family="transformers", weights=str(path), trainable_layers=0)
    model = transformers.TFWhisperModel.from_pretrained(path)
    features = transformers.WhisperFeatureExtractor.from_pretrained(path)
    given = features(CLIPS[0], sampling_rate=16000, return_tensors="np").input_features
    states = model.model.encoder(tf.constant(given)).last_hidden_state
    # 320 samples a state, 22 of which begin before the sound ends.
    want = tf.reduce_mean(states[0, :22], axis=0)
    np.testing.assert_allclose(encoder(CLIPS)[0], want, rtol=1e-2, atol=1e-2)
