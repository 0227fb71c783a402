"""What augmentation does to content. That it keeps the promises of all encoders is shown by the
grid in `test_modalities`."""

import json
import re
import warnings

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config import AudioConfig, Config, ImageConfig, TextConfig
from mmrec_tf.encoders.audio import augmentation as sounds_changed
from mmrec_tf.encoders.audio import mel_cnn as audio
from mmrec_tf.encoders.audio.spectrogram import log_mel, mel_spectrogram
from mmrec_tf.encoders.image import augmentation as pictures_changed
from mmrec_tf.encoders.text import bert as text
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] owl gull lark calls wood ##pecker ##s at dawn".split()
BERT = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
SYNONYMS = {"wood": ["dawn"], "owl": ["gull", "lark"]}


def text_encoder(words=WORDS, **settings):
    settings = {"max_tokens": 12, "trainable_layers": -1, **settings}
    return text.Encoder("\n".join(words), json.dumps(BERT), **settings)


def augmented(encoder, sentence, *, rows):
    """The tokens of a sentence, and those that BERT is given instead, <str>[row, token]."""
    tokens = np.array(encoder.vocabulary.split("\n"))
    ids = encoder.preprocess(tf.constant([sentence] * rows))
    return tokens[ids[0]], tokens[encoder._augment(ids)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_share_of_hidden_words(share):
    encoder = text_encoder(word_dropout=share)
    tokens, changed = augmented(encoder, "owl calls at dawn", rows=2000)
    hidden = changed == "[MASK]"
    words = slice(1, 5)
    assert abs(hidden[:, words].mean() - share) < 0.02
    # Rows and words stand alone: each column has the share, and two at once its square.
    np.testing.assert_allclose(hidden[:, words].mean(0), share, atol=0.04)
    assert abs((hidden[:, 1] & hidden[:, 2]).mean() - share**2) < 0.04
    np.testing.assert_array_equal(changed[~hidden], np.tile(tokens, (2000, 1))[~hidden])


def test_words_are_hidden_with_all_their_pieces_and_special_tokens_never():
    tokens, changed = augmented(text_encoder(word_dropout=0.5), "woodpeckers owl woods", rows=300)
    assert tokens[:8].tolist() == "[CLS] wood ##pecker ##s owl wood ##s [SEP]".split()
    hidden = changed == "[MASK]"
    for first, *others in ([1, 2, 3], [5, 6]):
        for other in others:
            np.testing.assert_array_equal(hidden[:, first], hidden[:, other])
    assert len({row.tobytes() for row in hidden}) == 8, "three words, each hidden or not"
    np.testing.assert_array_equal(changed[:, [0, 7]], [["[CLS]", "[SEP]"]] * 300)
    assert (changed[:, 8:] == "[PAD]").all()


def test_a_vocabulary_without_mask_hides_behind_unk():
    words = [word for word in WORDS if word != "[MASK]"]
    _, changed = augmented(text_encoder(words, word_dropout=0.9), "owl calls", rows=50)
    assert set(changed.flat) == {"[CLS]", "[SEP]", "[PAD]", "[UNK]", "owl", "calls"}


def test_synonyms_stand_in_for_whole_words_alone():
    encoder = text_encoder(synonyms=json.dumps(SYNONYMS), synonym_share=0.6)
    tokens, changed = augmented(encoder, "owl woodpecker wood calls", rows=2000)
    assert tokens[:7].tolist() == "[CLS] owl wood ##pecker wood calls [SEP]".split()
    shares = {word: (changed[:, 1] == word).mean() for word in ("owl", "gull", "lark")}
    assert shares == pytest.approx({"owl": 0.4, "gull": 0.3, "lark": 0.3}, abs=0.04)
    assert (changed[:, 2] == "wood").all(), "the beginning of another word"
    assert (changed[:, 4] == "dawn").mean() == pytest.approx(0.6, abs=0.04)
    others = [0, 2, 3, 5, *range(6, 12)]
    np.testing.assert_array_equal(changed[:, others], np.tile(tokens, (2000, 1))[:, others])


def test_a_word_in_the_last_column_has_a_synonym_too():
    ids = tf.constant([[9, 5]])
    settings = {"continues": np.zeros(14, bool), "synonyms": np.array([6], np.int32)}
    splits = np.array([0] * 6 + [1] * 9, np.int32)
    changed = text.replace_words(ids, 1.0, splits=splits, **settings)
    np.testing.assert_array_equal(changed, [[9, 6]])


def build_text(path, **settings):
    """Learns a vocabulary that has the words of the sentence, and no others, as one token."""
    config = TextConfig(
        weights="random",
        max_tokens=8,
        vocabulary_size=200,
        hidden_size=8,
        num_layers=1,
        trainable_layers=-1,
        synonyms=str(path),
        **settings,
    )
    return text.build_encoder(config, ModalitySpec("text"), values=["owl gull calls at dusk"] * 9)


def test_file_of_synonyms(tmp_path):
    path = tmp_path / "synonyms.tsv"
    lines = ["Owl\tgull, dawn chorus,OWL", "", "calls\tsings", "owls\tgull", "owl\tcalls"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    message = re.escape("1 of the 4 words in") + ".*'dawn chorus', are left out, 3 of 8"
    with pytest.warns(UserWarning, match=message) as said:
        encoder = build_text(path)
    assert len([warning for warning in said if "text.synonyms" in str(warning.message)]) == 1
    assert json.loads(encoder.synonyms) == {"owl": ["gull", "calls"]}
    _, changed = augmented(encoder, "owl at dusk", rows=300)
    assert set(changed[:, 1]) == {"owl", "gull", "calls"}


def test_a_run_does_not_need_the_file_again(tmp_path):
    path = tmp_path / "synonyms.tsv"
    path.write_text("owl\tgull\n")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "text.synonyms")
        encoder = build_text(path, synonym_share=1.0)
        path.unlink()
        config = TextConfig(max_tokens=8, trainable_layers=-1, synonyms=str(path), synonym_share=1)
        copy = text.build_encoder(config, ModalitySpec("text"), assets=encoder.assets())
    for one in (encoder, copy, text.Encoder.from_config(encoder.get_config())):
        assert set(augmented(one, "owl at dusk", rows=9)[1][:, 1]) == {"gull"}


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "synonyms.tsv: wanted a file of synonyms; No such file"),
        (b"owl\tgull\nowl gull\n", "synonyms.tsv, line 2: wanted a word, one tab"),
        (b"owl\tgull\tlark", "line 1: wanted a word, one tab, and synonyms"),
        (b"\tgull", "line 1: wanted a word"),
        (b"owl\t", "line 1: wanted a word"),
        (b"owl\tgull,,lark", "line 1: wanted a word"),
        (b"owl\tgull\n\ncaf\xe9\tbar", "synonyms.tsv, line 3: wanted UTF-8"),
        (b"", "none of the 0 words"),
        ("owl\tOwl\nkäuzchen\towl\nat\tin the\n".encode(), "none of the 3 words"),
    ],
)
def test_files_of_synonyms_that_cannot_be_used(tmp_path, data, message):
    path = tmp_path / "synonyms.tsv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        build_text(path)


def pictures(count=64, size=24):
    """Smooth ones: noise of a quarter of the size, enlarged."""
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (count, size // 4, size // 4, 3)).astype(np.float32)
    return tf.image.resize(small, [size, size])


def gradient(count=64, size=24):
    """Left to right from 50 to 73, one a pixel; each channel the same."""
    row = np.arange(50, 50 + size, dtype=np.float32)
    return tf.constant(np.broadcast_to(row[:, np.newaxis], (count, size, size, 3)))


def test_flip_mirrors_half_of_the_pictures():
    before = pictures(200).numpy()
    after = pictures_changed.flip(before).numpy()
    mirrored = (after == before[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (after == before).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_crop_of_a_gradient_stays_within_its_range_and_keeps_the_share_asked():
    after = pictures_changed.crop(gradient(300), 0.6).numpy()
    assert after.min() >= 50 and after.max() <= 73
    # Upright, nothing varies; across, the slope is the share of the width that was kept.
    assert np.ptp(after, axis=1).max() < 1e-3
    slope = np.diff(after[:, 0, 4:-4, 0], axis=1).mean(axis=1)
    assert slope.min() == pytest.approx(0.6, abs=0.02) and slope.max() == pytest.approx(1, abs=0.02)
    # Places vary from the very left to the very right.
    assert after[:, 0, 0, 0].min() < 50.5 and after[:, 0, -1, 0].max() > 72.5
    assert len(np.unique(after[:, 0, 0, 0])) > 200


def test_height_and_width_are_cropped_apart():
    across = gradient(100)
    both = across + tf.transpose(across, [0, 2, 1, 3])
    after = pictures_changed.crop(both, 0.5).numpy()
    shares = [np.ptp(after[:, 8:16, 12, 0], axis=1), np.ptp(after[:, 12, 8:16, 0], axis=1)]
    assert abs(np.corrcoef(shares)[0, 1]) < 0.3


def test_crop_that_keeps_all_changes_nothing():
    before = pictures()
    np.testing.assert_allclose(pictures_changed.crop(before, 1.0), before, rtol=1e-5)


def test_blur_lowers_variance_and_keeps_the_mean():
    before = tf.constant(np.random.default_rng(0).uniform(0, 255, (100, 24, 24, 3)), tf.float32)
    after = pictures_changed.blur(before, 1.5).numpy()
    variance = after.var(axis=(1, 2, 3)) / before.numpy().var(axis=(1, 2, 3))
    assert variance.max() <= 1 + 1e-5
    # Independent pixels under a Gaussian of sigma 1.5: 1 / (4 pi sigma^2) remains.
    assert 0.03 < variance.min() < 0.045
    assert len(np.unique(variance)) > 80, "each has its own, but for the sharpest"
    np.testing.assert_allclose(after.mean((1, 2)), before.numpy().mean((1, 2)), rtol=0.05)
    flat = tf.fill([8, 24, 24, 3], 200.0)
    np.testing.assert_allclose(pictures_changed.blur(flat, 3.0), flat, rtol=1e-5)


def test_color_moves_brightness_contrast_and_saturation_within_0_to_255():
    before = 80 + 0.3 * pictures(300)
    after = pictures_changed.recolor(before, 0.3).numpy()
    before = before.numpy()
    gray = [pixels @ np.array([0.299, 0.587, 0.114]) for pixels in (before, after)]
    brightness = gray[1].mean((1, 2)) / gray[0].mean((1, 2))
    contrast = gray[1].std((1, 2)) / gray[0].std((1, 2)) / brightness
    colors = [
        (p - g[..., np.newaxis]).std((1, 2, 3)) for p, g in zip((before, after), gray, strict=True)
    ]
    saturation = colors[1] / colors[0] / brightness / contrast
    for factor in (brightness, contrast, saturation):
        assert 0.7 <= factor.min() < 0.72 and 1.28 < factor.max() <= 1.3
    assert np.abs(np.corrcoef([brightness, contrast, saturation]) - np.eye(3)).max() < 0.2
    extreme = pictures_changed.recolor(pictures(300), 1.0).numpy()
    assert extreme.min() == 0 and extreme.max() == 255


def white(level, seconds=1.0, seed=0):
    return level * np.random.default_rng(seed).normal(size=round(16000 * seconds))


def whistle(seconds=1.0):
    """A tone in the middle tenth of a second, and silence around it."""
    time = np.arange(round(16000 * seconds)) / 16000
    inside = np.abs(time - seconds / 2) < 0.05
    return 0.5 * np.sin(2 * np.pi * 1500 * time) * inside


def spectrogram(waveform, rows):
    one = log_mel(tf.constant(waveform[np.newaxis], tf.float32), sample_rate_hz=16000)
    return tf.repeat(one, rows, axis=0)


def test_noise_raises_the_floor_up_to_the_level_asked():
    before = spectrogram(whistle(), rows=300)
    after = sounds_changed.add_noise(before, -20.0).numpy()
    floors_db = 80 * (after[:, 0].mean(axis=1) - 1)
    # Relative to the peak of sound and noise together, -20 dB is 0.04 dB lower.
    assert -20.3 < floors_db.max() <= -20
    # Noise as strong as the floor itself doubles its power: 3 dB.
    assert -77.1 < floors_db.min() < -75
    assert abs(np.median(floors_db) + 50) < 5, "levels are spread evenly"
    assert np.ptp(after[:, 0], axis=1).max() < 1e-5, "silence is equally loud in all bands"
    np.testing.assert_allclose(after.max(axis=(1, 2)), 1, atol=1e-6)
    assert after.min() >= 0


def test_noise_is_what_the_spectrogram_of_sound_and_noise_shows_on_average():
    noises = [white(0.05, seed=seed) for seed in range(60)]
    waveforms = tf.constant([whistle(), *noises, *(whistle() + n for n in noises)], tf.float32)
    power = mel_spectrogram(waveforms, sample_rate_hz=16000).numpy()
    level_db = 10 * np.log10(power[1:61].mean() / power[0].max())
    want = power[61:].mean(axis=0)
    want_db = 10 * np.log10(want / want.max())
    # Of many clips, the one whose noise is the loudest.
    clips = sounds_changed.add_noise(spectrogram(whistle(), rows=500), level_db).numpy()
    got_db = 80 * (clips[clips[:, 0, 0].argmax()] - 1)
    assert -45 < level_db < -30
    # At both ends, half of a window lies outside of the clip.
    apart_db = np.abs(got_db - want_db)[2:-2]
    assert apart_db.max() < 3
    assert apart_db.mean() < 0.6


def test_shift_moves_the_peak_by_at_most_the_frames_asked():
    before = spectrogram(whistle(), rows=300)
    middle = before[0].numpy().mean(axis=1).argmax()
    after = sounds_changed.shift(before, 5).numpy()
    moves = after.mean(axis=2).argmax(axis=1) - middle
    assert set(moves) == set(range(-5, 6))
    ones = sounds_changed.shift(tf.ones([300, 20, 3]), 5).numpy()
    for row in ones:
        silent = np.flatnonzero(~row.any(axis=1))
        assert len(silent) <= 5
        assert set(silent) in ({*range(len(silent))}, {*range(20 - len(silent), 20)})
    np.testing.assert_array_equal(sounds_changed.shift(before, 0), before)


def test_shift_is_asked_for_in_seconds():
    # A hop is 0.016 s: 0.1 s are six of them, and a rest.
    encoder = audio.Encoder(
        clip_seconds=1.0, filters=(4,), mask_bins=0, mask_frames=0, shift_seconds=0.1
    )
    before = spectrogram(whistle(), rows=300)
    after = encoder._augment(before).numpy()
    moves = after.mean(axis=2).argmax(axis=1) - before[0].numpy().mean(axis=1).argmax()
    assert set(moves) == set(range(-6, 7))


EVERYTHING = {
    "text.word_dropout": 0.1,
    "text.synonyms": "synonyms.tsv",
    "image.flip": True,
    "image.crop": 0.8,
    "image.color": 0.2,
    "image.blur": 1.0,
    "audio.noise_db": -20.0,
    "audio.shift_seconds": 0.1,
}


@pytest.mark.parametrize("path", EVERYTHING)
def test_augmentation_of_a_frozen_encoder_is_refused(path):
    kind = path.partition(".")[0]
    for layers in (-1, 2):
        Config().override({path: EVERYTHING[path], f"{kind}.trainable_layers": layers})
    message = re.escape(f"{path}: wanted ") + f".* Set {kind}.trainable_layers to -1"
    with pytest.raises(ConfigError, match=message):
        Config().override({path: EVERYTHING[path], f"{kind}.trainable_layers": 0})


def test_what_rests_in_a_frozen_encoder_is_not_refused():
    assert Config(audio=AudioConfig(trainable_layers=0)).audio.mask_bins > 0


def test_the_frozen_twin_of_a_text_encoder_is_not_augmented():
    config = TextConfig(trainable_layers=2, word_dropout=0.1, synonyms="a.tsv", max_tokens=9)
    assert config.frozen() == TextConfig(max_tokens=9)


@pytest.mark.parametrize(
    "part, setting",
    [
        (TextConfig, {"word_dropout": 1.0}),
        (TextConfig, {"synonym_share": 1.1}),
        (ImageConfig, {"crop": 0.0}),
        (ImageConfig, {"crop": 1.1}),
        (ImageConfig, {"color": -0.1}),
        (ImageConfig, {"blur": -1.0}),
        (AudioConfig, {"noise_db": 3.0}),
        (AudioConfig, {"noise_db": -90.0}),
        (AudioConfig, {"shift_seconds": 0.01}),
        (AudioConfig, {"shift_seconds": 3.0}),
    ],
)
def test_values_out_of_range(part, setting):
    with pytest.raises(ConfigError, match=f"{next(iter(setting))}: wanted"):
        part(trainable_layers=-1, **setting)
