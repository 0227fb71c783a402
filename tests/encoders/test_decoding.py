"""What a request brings that cannot be read: its row counts as absent, and no other one is hurt."""

import io
import struct
import wave
import zlib

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.small_world import build_retrieval

from mmrec_tf.encoders import vector
from mmrec_tf.encoders.audio import mel_cnn as audio
from mmrec_tf.encoders.audio import reading as sounds
from mmrec_tf.encoders.image import applications as image
from mmrec_tf.encoders.image import reading
from mmrec_tf.encoders.text import bert as text
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.media.image import prepare
from mmrec_tf.schema import LOWEST_SCORE

SIZE = 32


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size, with hardly any pixels in it."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def wav(samples: np.ndarray, rate: int = 4000, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


JPEG = small_world.picture(0, np.random.default_rng(0))
PNG = tf.io.encode_png(np.full([5, 7, 3], 9, np.uint8)).numpy()
HUGE_JPEG = tf.io.encode_jpeg(np.zeros([4097, 4097, 3], np.uint8), quality=5).numpy()
SOUND = wav(1000 * np.sin(np.arange(1000)))
PICTURES = {
    "a jpeg": (JPEG, True),
    "a png": (PNG, True),
    "nothing": (b"", True),
    "half a jpeg": (JPEG[: len(JPEG) // 2], False),
    "the first bytes of a jpeg": (JPEG[:3], False),
    "the first bytes of a png": (PNG[:20], False),
    "a png without its end": (PNG[:-20], False),
    "a png that claims 60,000 x 60,000": (png(60_000, 60_000), False),
    "a png that claims 2^32 - 1 x 2^32 - 1": (png(2**32 - 1, 2**32 - 1), False),
    "a png of no width": (png(0, 5), False),
    "a png with too few pixels": (png(500, 500), False),
    "a jpeg of too many pixels": (HUGE_JPEG, False),
    "a gif": (b"GIF89a" + bytes(100), False),
    "words": (b"no picture at all", False),
    "random bytes": (np.random.default_rng(1).bytes(5000), False),
    "too many bytes": (JPEG + bytes(reading.MAX_BYTES), False),
}
SOUNDS = {
    "a sound": (SOUND, True),
    "nothing": (b"", True),
    "half a sound": (SOUND[: len(SOUND) // 2], False),
    "a header alone": (SOUND[:44], False),
    "silence": (wav(np.zeros(1000)), False),
    "no sample": (wav(np.zeros(0)), False),
    "8 bits": (wav(np.arange(1000), width=1), False),
    "words": (b"no sound at all", False),
    "random bytes": (np.random.default_rng(1).bytes(5000), False),
    "too many bytes": (SOUND + bytes(sounds.MAX_BYTES), False),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data


def form(channels=1, rate=8000, bits=16, code=1, more=b"") -> bytes:
    width = channels * bits // 8
    fields = struct.pack("<HHIIHH", code, channels, rate, rate * width, width, bits)
    return chunk(b"fmt ", fields + more)


def riff(*chunks: bytes) -> bytes:
    data = b"".join(chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data


DATA = chunk(b"data", bytes(range(40)))
WAVS = {
    "plain": riff(form(), DATA),
    "stereo": riff(form(channels=2), DATA),
    "a longer format": riff(form(more=bytes(2)), DATA),
    "a format of 40 bytes": riff(form(more=bytes(24)), DATA),
    "chunks before, between and behind": riff(
        chunk(b"JUNK", bytes(6)), form(), chunk(b"fact", bytes(4)), DATA, chunk(b"LIST", b"abcd")
    ),
    "an unknown chunk before the format": riff(chunk(b"LIST", bytes(4)), form(), DATA),
    "data before the format": riff(DATA, form()),
    "data twice": riff(form(), DATA, DATA),
    "frames that do not come out": riff(form(channels=3), chunk(b"data", bytes(43))),
    "a byte too many": riff(form(), DATA) + b"\0",
    "floats": riff(form(code=3, bits=32), DATA),
    "24 bits": riff(form(bits=24), DATA),
    "no rate": riff(form(rate=0), DATA),
    "no data": riff(form()),
    "no sample": riff(form(), chunk(b"data", b"")),
    "data that claims 2 GB": riff(form(), b"data\xff\xff\xff\x7f"),
    "a last chunk that claims 2 GB": riff(form(), DATA, b"LIST\xff\xff\xff\x7f"),
    "a last chunk that claims 4 GB": riff(form(), DATA, b"LIST\xff\xff\xff\xff"),
    "an end after a chunk's name": riff(form(), DATA, b"LIST"),
    "an end within the format": riff(form(), DATA)[:30],
    "RIFF alone": b"RIFF",
    "another form": riff(form(), DATA).replace(b"WAVE", b"AVI "),
}


@pytest.fixture(scope="module")
def walk():
    return tf.function(sounds._is_wav, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("name", [*WAVS, *SOUNDS])
def test_the_decoder_of_sounds_never_fails(walk, name):
    """Where it does, a server logs a line with bytes of whatever was sent."""
    data = WAVS[name] if name in WAVS else SOUNDS[name][0]
    try:
        tf.audio.decode_wav(data)
        decodable = True
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # of bytes in the message
        decodable = False
    assert bool(walk(tf.constant(data))) == decodable


@pytest.fixture(scope="module")
def encoders():
    return {
        "image": (image.Encoder("MobileNetV2", SIZE), PICTURES),
        "audio": (
            audio.Encoder(
                sample_rate_hz=4000, clip_seconds=0.25, num_mels=8, fft_length=256, fmax_hz=2000.0
            ),
            SOUNDS,
        ),
    }


@pytest.mark.parametrize("name", ["image", "audio"])
def test_what_cannot_be_read_is_absent_and_hurts_nobody(encoders, name):
    encoder, cases = encoders[name]
    raw = [data for data, _ in cases.values()]
    read = tf.function(
        encoder.preprocess_readable, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    content, unreadable = read(tf.constant(raw))
    found = dict(zip(cases, (~unreadable).numpy().tolist(), strict=True))
    assert found == {case: readable for case, (_, readable) in cases.items()}
    blank = encoder.preprocess(tf.constant([b""]))[0]
    for row, (data, readable) in enumerate(cases.values()):
        # What training reads; or what it reads for no content.
        want = encoder.preprocess(tf.constant([data]))[0] if readable else blank
        np.testing.assert_allclose(content[row], want, atol=1e-6)
    empty, nothing = read(tf.constant([], tf.string))
    assert empty.shape == (0, *content.shape[1:]) and nothing.shape == (0,)
    only, flags = read(tf.constant([b"junk"]))
    np.testing.assert_array_equal(only[0], blank)
    assert flags.numpy().tolist() == [True]


@pytest.mark.parametrize("name", ["image", "audio"])
def test_in_training_it_is_an_error(encoders, name):
    encoder, cases = encoders[name]
    with pytest.raises(tf.errors.InvalidArgumentError):
        encoder.preprocess(tf.constant([next(iter(cases.values()))[0], b"junk"]))


def test_the_size_is_read_before_memory_is_asked_for(encoders):
    with pytest.raises(tf.errors.InvalidArgumentError, match="wanted at most 16777216 pixels"):
        encoders["image"][0].preprocess(tf.constant([png(60_000, 60_000)]))


def bombs():
    """PNGs of few bytes that would take a decoder much memory, or much time."""
    whole = png(5, 5)
    for kind in (b"tEXt", b"zTXt", b"sPLT", b"IDAT"):
        yield kind.decode(), whole[:33] + struct.pack(">I", 10**9) + kind + bytes(12)
    text = b"a\0\0" + zlib.compress(bytes(100))
    text = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(text))
    yield "texts", PNG[:33] + text * 40 + PNG[33:]
    yield "chunks", PNG[:33] + (bytes(4) + b"abCd" + bytes(4)) * 5000 + PNG[33:]


@pytest.mark.parametrize(("name", "data"), bombs())
def test_chunks_are_checked_before_they_are_decoded(name, data, encoders):
    """A decoder makes room for what a chunk claims to hold, and then finds that it is not there."""
    read = tf.function(encoders["image"][0].preprocess)
    want = "at most 8 texts" if name == "texts" else "all its chunks"
    with pytest.raises(tf.errors.InvalidArgumentError, match=want):
        read(tf.constant([data]))


def test_exif_of_any_bytes_is_read_or_passed_over(encoders):
    """By the same rule as in preparation, whatever stands in it."""
    rng = np.random.default_rng(0)
    start = b"\xff\xe1\0\x30Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\1\0\0\0a\0\0\0"
    exif = start + b"\x12\x01\x03\0\1\0\0\0\6\0\0\0" + bytes(6)
    cases = []
    for trial in range(200):
        part = bytearray(exif)
        for at in rng.integers(10, len(part), trial % 4):
            part[at] = rng.integers(256) if trial % 3 else rng.integers(10)
        cases.append(JPEG[:2] + bytes(part) + JPEG[2:])
    read = tf.function(encoders["image"][0].preprocess)
    got = read(tf.constant(cases)).numpy().astype(int)
    want = read(tf.constant(list(map(prepare, cases)))).numpy()
    assert np.abs(got - want).mean(axis=(1, 2, 3)).max() < 8
    turned = sum(data != prepare(data) for data in cases)
    assert 50 < turned < 200


def test_of_vectors_what_is_no_number_is_unreadable():
    encoder = vector.Encoder(3)
    raw = tf.constant([[1.0, 2, 3], [np.nan, 2, 3], [1, np.inf, 3], [0, 0, 0]])
    content, unreadable = encoder.preprocess_readable(raw)
    assert unreadable.numpy().tolist() == [False, True, True, False]
    np.testing.assert_array_equal(content, [[1, 2, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_a_text_of_any_length_is_read():
    vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nowl\nbird"
    encoder = text.Encoder(vocabulary, text._fresh_bert(TEXT, 6), max_tokens=12)
    long = "owl " + "bird " * 4_000_000
    content, unreadable = encoder.preprocess_readable(tf.constant([long, "owl bird", "\ufffd", ""]))
    assert not unreadable.numpy().any()
    assert content[0, :3].numpy().tolist() == [2, 4, 5]
    # Cut in the middle of a character.
    wide = b"owl" + "\N{OWL}".encode() * text.MAX_BYTES
    assert np.isfinite(encoder.preprocess(tf.constant([wide])).numpy()).all()


TEXT = small_world.config().text


# The servable


@pytest.fixture(scope="module")
def servable(dataset):
    settings = {"modalities": list(small_world.MODALITIES), "alignment__contrastive_weight": 0.1}
    retrieval = build_retrieval(dataset, **settings)
    return EncoderServable(retrieval, dataset.catalog.item_id, k=5)


def entries(size):
    """No side features, which `embed_item` of this model takes as well."""
    return [tf.fill([size, 0], "")]


def asked(servable, **content):
    """One row a value; other modalities blank."""
    size = len(next(iter(content.values())))
    inputs = [
        tf.constant(content[name])[:, None]
        if name in content
        else tf.zeros([size, 1, 6])
        if name == "vector"
        else tf.fill([size, 1], "")
        for name in servable.modalities
    ]
    return inputs


@pytest.mark.slow
def test_a_bad_picture_leaves_the_other_rows_and_modalities_as_they_are(servable):
    texts = ["a night owl", "a night owl", "", "a sea"]
    good = asked(servable, text=texts, image=[b"", b"", b"", JPEG])
    bad = asked(servable, text=texts, image=[b"", b"no picture", PICTURES["half a jpeg"][0], JPEG])
    names = list(servable.modalities)
    for signature, more in (("embed_item", entries(4)), ("search", [])):
        want = {n: v.numpy() for n, v in servable.signatures[signature](*good, *more).items()}
        got = {n: v.numpy() for n, v in servable.signatures[signature](*bad, *more).items()}
        flags = got.pop("unreadable")
        assert flags.shape == (4, len(names)) and not want.pop("unreadable").any()
        assert np.argwhere(flags).tolist() == [[1, names.index("image")], [2, names.index("image")]]
        for name, value in want.items():
            if value.dtype == object:
                np.testing.assert_array_equal(got[name], value, err_msg=name)
            else:
                np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_what_counts_as_present_is_said(servable):
    rows = asked(servable, text=["owl", ""], audio=[b"junk", SOUND])
    present = servable.embed_item(*rows, *entries(2))["present"].numpy()
    want = {"text": [True, False], "audio": [False, True]}
    for column, name in enumerate(servable.modalities):
        assert present[:, column].tolist() == want.get(name, [False, False])


def test_with_nothing_to_go_by_nothing_is_found(servable):
    answer = servable.search(*asked(servable, text=["", "owl"], image=[b"junk", b""]))
    assert set(answer["item_id"].numpy()[0]) == {b""}
    assert (answer["score"].numpy()[0] == LOWEST_SCORE).all()
    assert b"" not in answer["item_id"].numpy()[1] and (answer["score"].numpy()[1] <= 1).all()


def test_withdrawn_items_are_not_found(servable, dataset):
    available = np.ones(small_world.NUM_ITEMS, bool)
    ids = servable.search(*asked(servable, text=["owl"]))["item_id"].numpy()[0].astype(str)
    row = dataset.catalog.item_id.tolist().index(ids[0])
    available[row] = False
    other = EncoderServable.__new__(EncoderServable)
    other.__dict__.update(servable.__dict__)
    other.available = tf.Variable(available, trainable=False)
    found = other._search(*asked(servable, text=["owl"]))["item_id"].numpy()[0].astype(str)
    assert found.tolist()[:4] == ids.tolist()[1:]


def test_a_single_row_of_one_input_is_not_spread_over_all(servable):
    inputs = asked(servable, text=["owl", "sea"])
    inputs[1] = inputs[1][:1]
    with pytest.raises(tf.errors.InvalidArgumentError, match="wanted as many rows"):
        servable.embed_item(*inputs, *entries(2))
