import io

import librosa
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from mmrec_tf.config import AudioConfig
from mmrec_tf.encoders.audio import mel_cnn as audio
from mmrec_tf.encoders.audio.augmentation import hide_bands
from mmrec_tf.encoders.audio.spectrogram import log_mel, mel_spectrogram, mel_weights, resample
from mmrec_tf.errors import ConfigError
from mmrec_tf.media.audio import prepare
from mmrec_tf.schema import ModalitySpec

SPEC = ModalitySpec("audio", sample_rate_hz=16000)


def tone(hz=440.0, *, rate_hz=16000, seconds=0.5, peak=0.5):
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def written(samples, rate_hz=16000, kind="WAV", subtype="PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize("settings", [(16000, 128, 1024, 8000.0), (22050, 40, 512, 6000.0)])
def test_mel_weights_are_librosas(settings):
    rate_hz, num_mels, fft_length, fmax_hz = settings
    want = librosa.filters.mel(sr=rate_hz, n_mels=num_mels, n_fft=fft_length, fmax=fmax_hz)
    np.testing.assert_allclose(mel_weights(*settings), want.T, atol=1e-7)


def waveforms():
    rng = np.random.default_rng(0)
    return np.stack([tone(seconds=1), rng.normal(0, 0.1, 16000), tone(3000, seconds=1) * 1e-3])


@pytest.mark.parametrize("hop_length, fft_length", [(256, 1024), (160, 400)])
def test_spectrogram_is_librosas(hop_length, fft_length):
    for waveform in waveforms().astype(np.float32):
        settings = {"num_mels": 64, "fft_length": fft_length, "hop_length": hop_length}
        got = mel_spectrogram(waveform[None], sample_rate_hz=16000, **settings)[0]
        want = librosa.feature.melspectrogram(
            y=waveform, sr=16000, n_mels=64, n_fft=fft_length, hop_length=hop_length, fmax=8000
        ).T
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.max())
        got = log_mel(waveform[None], sample_rate_hz=16000, **settings)[0]
        want = librosa.power_to_db(want, ref=np.max, top_db=80) / 80 + 1
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_spectrogram_of_a_real_call_is_librosas(shared):
    calls = sorted((shared / "data" / "birds" / "audio").glob("*.wav"))[:5]
    if not calls:
        pytest.skip("needs shared/data/birds/audio, which is not here")
    for call in calls:
        waveform, rate_hz = librosa.load(call, sr=None)
        got = mel_spectrogram(waveform[None], sample_rate_hz=16000)[0]
        want = librosa.feature.melspectrogram(
            y=waveform, sr=rate_hz, n_fft=1024, hop_length=256, n_mels=128, fmax=8000
        ).T
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_silence_is_zeros():
    assert not log_mel(tf.zeros([1, 4000]), sample_rate_hz=16000).numpy().any()


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 44100, 48000])
def test_resampling_in_the_graph(rate_hz):
    got = resample(tone(700, rate_hz=rate_hz), tf.constant(rate_hz), 16000).numpy()
    assert got.size in (8000, 8001)
    assert np.abs(got[:8000] - tone(700))[400:-400].max() < 5e-3


@pytest.fixture(scope="module")
def encoder():
    config = AudioConfig(clip_seconds=0.5, num_mels=32, filters=(8, 16), mask_frames=4)
    return audio.build_encoder(config, SPEC)


def spectrograms(encoder, *clips):
    return encoder.preprocess(tf.constant([written(clip) for clip in clips]))


def test_read_clip(encoder):
    stereo = np.stack([tone(), 0 * tone()], axis=1)
    raw = [written(tone(seconds=2)), written(tone(seconds=0.1)), written(stereo), b""]
    clips = encoder.read_clip(tf.constant(raw)).numpy()
    np.testing.assert_allclose(clips[0], tone(), atol=1e-4)
    np.testing.assert_allclose(clips[1, :1600], tone()[:1600], atol=1e-4)
    assert not clips[1, 1600:].any() and not clips[3].any()
    np.testing.assert_allclose(clips[2], tone() / 2, atol=1e-4)


def test_preparation_and_graph_resample_alike(encoder):
    """A server may be sent a WAV that was never prepared."""
    call = written(tone(700, rate_hz=44100) + tone(2500, rate_hz=44100), 44100)
    prepared, raw = encoder.read_clip(tf.constant([prepare(call), call])).numpy()
    assert np.abs(prepared - raw)[200:-200].max() < 5e-3


def test_pitch_is_not_averaged_away(encoder):
    """Without a channel for height the average would see the same shape at any pitch."""
    low, high = encoder(spectrograms(encoder, tone(1000), tone(3000)))
    assert np.abs(low - high).max() > 0.05 * np.abs(low).max()


def test_masks_hide_bands_and_frames_anew_for_each_clip():
    tf.random.set_seed(0)
    ones = tf.ones([16, 40, 32])
    for bins, frames in [(8, 6), (8, 0), (0, 6)]:
        hidden = hide_bands(ones, bins=bins, frames=frames).numpy() == 0
        whole_bins, whole_frames = hidden.all(axis=1), hidden.all(axis=2)
        np.testing.assert_array_equal(hidden, whole_bins[:, None, :] | whole_frames[:, :, None])
        assert whole_bins.sum(1).max() <= bins and whole_frames.sum(1).max() <= frames
        assert hidden.any()
        assert len({row.tobytes() for row in hidden}) > 8
    assert hide_bands(ones, bins=0, frames=0) is ones
    assert np.isfinite(hide_bands(ones, bins=99, frames=99)).all()


def test_masks_act_in_training_alone(encoder):
    clips = spectrograms(encoder, tone(), tone(900))
    np.testing.assert_array_equal(encoder(clips), encoder(clips, training=False))
    assert np.abs(encoder(clips, training=True) - encoder(clips, training=True)).max() > 0


def test_weights_file(encoder, tmp_path):
    path = tmp_path / "audio.weights.h5"
    encoder.network.save_weights(path)
    config = AudioConfig(
        clip_seconds=0.5, num_mels=32, filters=(8, 16), mask_frames=4, weights=str(path)
    )
    assert audio.build_encoder(config, SPEC).fingerprint() == encoder.fingerprint()
    assert audio.build_encoder(config, SPEC, assets={}).fingerprint() != encoder.fingerprint()
    wrong = AudioConfig(clip_seconds=0.5, num_mels=32, filters=(8, 8), weights=str(path))
    with pytest.raises(ConfigError, match="could not load"):
        audio.build_encoder(wrong, SPEC)
    with pytest.raises(ConfigError, match="there is no file"):
        audio.build_encoder(AudioConfig(weights=str(tmp_path / "none.h5")), SPEC)
