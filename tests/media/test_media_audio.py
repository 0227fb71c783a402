import io
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from benchmarks import odd_media
from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.media import audio, audio_files

SOUNDFILE = f"soundfile {soundfile.__version__}"
FFMPEG = f"av {av.__version__}"


def tone(hz=440.0, *, rate_hz=16000, seconds=0.5, peak=0.5):
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def written(samples, rate_hz=16000, kind="WAV", subtype="PCM_16") -> bytes:
    """By soundfile, a second at a time: more at once makes its Vorbis crash."""
    out = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(out, "w", rate_hz, channels, subtype, format=kind) as file:
        for start in range(0, len(samples), rate_hz):
            file.write(samples[start : start + rate_hz])
    return out.getvalue()


def muxed(samples, rate_hz=16000, kind="mp4", codec="aac", film=False) -> bytes:
    """By FFmpeg, for what soundfile does not write."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        if film:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width = pictures.height = 64
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout, stream.bit_rate = "mono", 64000
        stream.codec_context.open()
        if film:
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        whole = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        whole.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format.name,
            layout="mono",
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size or None,
        )
        for frame in [*resampler.resample(whole), *resampler.resample(None), None]:
            container.mux(stream.encode(frame))
    return out.getvalue()


def read(data: bytes, rate_hz=16000) -> np.ndarray:
    """What the graph's decoder sees."""
    samples, rate = tf.audio.decode_wav(data)
    assert rate == rate_hz and samples.shape[1] == 1
    return samples.numpy()[:, 0]


def prepared(data: bytes, **options) -> np.ndarray:
    return read(audio.prepare(data, **options))


def test_samples_of_a_fitting_wav_stay_as_they_are():
    rng = np.random.default_rng(0)
    for size in (160, 8000, 160_000):
        pcm = rng.integers(-32768, 32768, size).astype(np.int16)
        data = audio.prepare(written(pcm))
        np.testing.assert_array_equal(read(data) * 32768, pcm)
        assert audio.prepare(data) == data


def assert_sounds_the_same(got, want, tolerance):
    """But for the silence that encoders put before a sound."""
    middle = want[2000:6000]
    shift = np.argmax(np.correlate(got, middle, "valid"))
    assert np.abs(got[shift:][:4000] - middle).max() < tolerance


@pytest.mark.parametrize(
    "kind, subtype, tolerance",
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_24", 1e-4),
        ("WAV", "PCM_32", 1e-4),
        ("WAV", "FLOAT", 1e-4),
        ("WAV", "DOUBLE", 1e-4),
        ("WAV", "ULAW", 0.05),
        ("WAV", "ALAW", 0.05),
        ("WAV", "IMA_ADPCM", 0.05),
        ("WAVEX", "PCM_16", 1e-4),
        ("RF64", "PCM_24", 1e-4),
        ("W64", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("AU", "PCM_16", 1e-4),
        ("CAF", "ALAC_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_other_forms_sound_the_same(kind, subtype, tolerance):
    data = audio.prepare(written(tone(), 16000, kind, subtype))
    assert audio.prepare(data) == data
    assert_sounds_the_same(read(data), tone(), tolerance)


@pytest.mark.parametrize(
    "kind, codec, tolerance",
    [
        ("mp4", "aac", 0.05),
        ("adts", "aac", 0.05),
        ("asf", "wmav2", 0.05),
        ("webm", "libopus", 0.05),
        ("matroska", "pcm_s16le", 1e-4),
        ("mov", "pcm_s24le", 1e-4),
        ("mov", "pcm_u8", 0.01),
        ("avi", "pcm_f32le", 1e-4),
        ("mp4", "alac", 1e-4),
        ("mpegts", "mp2", 0.05),
    ],
)
def test_what_ffmpeg_alone_reads_sounds_the_same(kind, codec, tolerance):
    data = audio.prepare(muxed(tone(), 16000, kind, codec))
    assert audio.prepare(data) == data
    assert_sounds_the_same(read(data), tone(), tolerance)


def test_the_sound_of_a_film():
    assert_sounds_the_same(prepared(muxed(tone(), film=True)), tone(), 0.05)


@pytest.mark.parametrize("kind, subtype", [("WAV", "PCM_16"), ("CAF", "ALAC_16")])
def test_stereo_at_another_rate(kind, subtype):
    left, right = tone(440, rate_hz=44100), tone(1000, rate_hz=44100)
    got = prepared(written(np.stack([left, right], axis=1), 44100, kind, subtype))
    want = (tone(440) + tone(1000)) / 2
    assert got.shape == want.shape
    assert np.abs(got - want)[200:-200].max() < 2e-3


def test_both_readers_hear_the_same():
    """From any first frame on, whatever the depth and the number of channels."""
    rng = np.random.default_rng(0)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        for channels in (1, 2, 6):
            data = written(rng.uniform(-1, 1, (5000, channels)), 8000, subtype=subtype)
            for first in (0, 1, 800, 3333, 4999):
                one, other = (
                    np.concatenate([block.mean(axis=1) for block, rate in reader(data, first)])
                    for reader in (audio_files.read_with_soundfile, audio_files.read_with_ffmpeg)
                )
                assert one.size == 5000 - first
                np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "kind, subtype",
    [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")],
)
def test_reading_in_blocks_is_reading_at_once(kind, subtype):
    data = written(tone(seconds=3), 16000, kind, subtype)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        want = file.read(10**6, dtype="float32")
    for first in (0, 800, 20_000):
        got = np.concatenate([block for block, _ in audio_files.read_with_soundfile(data, first)])[
            :, 0
        ]
        np.testing.assert_array_equal(got, want[first:])


def test_what_lies_above_half_the_rate_is_gone():
    both = tone(440, rate_hz=48000) + tone(11000, rate_hz=48000)
    assert np.abs(prepared(written(both, 48000)) - tone(440))[200:-200].max() < 2e-3


def clicks(levels, rate_hz=8000):
    """A tone of each level for a second each."""
    return np.concatenate([tone(1000, rate_hz=rate_hz, seconds=1, peak=x) for x in levels])


FORMS = {
    "wav": lambda samples, rate_hz: written(samples, rate_hz),
    "gsm": lambda samples, rate_hz: written(samples, rate_hz, "WAV", "GSM610"),  # cannot seek
    "mp3": lambda samples, rate_hz: written(samples, rate_hz, "MP3", "MPEG_LAYER_III"),
    "ogg": lambda samples, rate_hz: written(samples, rate_hz, "OGG", "VORBIS"),
    "m4a": lambda samples, rate_hz: muxed(samples, rate_hz),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "levels, window, want",
    [
        ([0.1, 0.2, 0.5, 0.2, 0.1, 0.1], "start", [0.1, 0.2]),
        ([0.1, 0.2, 0.5, 0.2, 0.1, 0.1], "center", [0.5, 0.2]),
        ([0.1, 0.3, 0.5, 0.2, 0.1, 0.1], "loudest", [0.3, 0.5]),
        ([0.1, 0.1, 0.1, 0.1, 0.2, 0.5], "loudest", [0.2, 0.5]),
        ([0.3, 0.2], "loudest", [0.3, 0.2]),
    ],
)
@pytest.mark.parametrize("held", [0, 2**22])
def test_window(form, levels, window, want, held, monkeypatch):
    monkeypatch.setattr(audio, "_HELD_FRAMES", held)
    data = FORMS[form](clicks(levels), 8000)
    got = prepared(data, max_seconds=2.0, window=window)
    assert got.size == 32000
    # Encoders shift a sound by up to a few hundredths of a second.
    peaks = [np.abs(got[start : start + 8000]).max() for start in (4000, 20000)]
    np.testing.assert_allclose(peaks, want, rtol=0.2)


def test_the_earliest_of_equally_loud_windows():
    beeps = np.tile(np.concatenate([tone(1000, seconds=0.5), np.zeros(8000, np.float32)]), 10)
    np.testing.assert_allclose(prepared(written(beeps), max_seconds=0.5), beeps[:8000], atol=1e-4)
    steady = tone(1000, seconds=20)
    np.testing.assert_allclose(prepared(written(steady)), steady[:160_000], atol=1e-4)


def test_loudest_at_a_rate_without_whole_tenths():
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 11025 * 7 + 77).astype(np.float32)
    noise[-11025:] *= 5  # the very end, which is no whole number of blocks
    got = prepared(written(noise, 11025), max_seconds=1.0)
    end = prepared(written(noise[-11025:], 11025), max_seconds=1.0)
    assert got.std() == pytest.approx(end.std(), rel=0.05)


def test_of_a_very_long_sound_the_beginning_counts(monkeypatch):
    monkeypatch.setattr(audio, "SEARCH_SECONDS", 3)
    data = written(clicks([0.1, 0.2, 0.1, 0.5, 0.5, 0.5]), 8000)
    for window in ("center", "loudest"):
        got = prepared(data, max_seconds=1.0, window=window)
        assert np.abs(got).max() == pytest.approx(0.2, abs=0.01)
    assert prepared(data, max_seconds=5.0).size == 80_000


@pytest.mark.parametrize("form", ["wav", "m4a"])
def test_long_sounds_are_never_held_whole(form, monkeypatch):
    """16 MB at its rate, of which one second is wanted."""
    monkeypatch.setattr(audio, "_HELD_FRAMES", 100_000)
    data = FORMS[form](clicks(np.linspace(0.1, 0.5, 80), rate_hz=48000), 48000)
    audio.prepare(data, max_seconds=1.0)
    tracemalloc.start()
    audio.prepare(data, max_seconds=1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_the_start_of_a_long_sound_is_read_no_further(monkeypatch):
    data = written(tone(seconds=30.0, rate_hz=8000), 8000)
    frames = []
    plain = soundfile.SoundFile.read

    def counted(file, num, **options):
        frames.append(num)
        return plain(file, num, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert prepared(data, max_seconds=2.0, window="start").size == 32000
    assert sum(frames) == 16000


def test_unknown_window():
    with pytest.raises(ConfigError, match="wanted one of start, center, loudest; got 'end'"):
        audio.prepare(written(tone()), window="end")


def test_too_loud_is_turned_down_not_clipped():
    got = prepared(written(tone(peak=4.0), subtype="FLOAT"))
    assert np.abs(got - tone(peak=1.0)).max() < 1e-3


@pytest.mark.parametrize(
    "data, reason, decoder",
    [
        (b"", "empty file", ""),
        (b"RIFF", "not decodable (", f"{SOUNDFILE}, {FFMPEG}"),
        (bytes(range(256)) * 16, "not decodable (Format not recognised)", f"{SOUNDFILE}, {FFMPEG}"),
        (b"<html>404</html>", "not decodable (", f"{SOUNDFILE}, {FFMPEG}"),
        (written(tone())[:40], "not decodable (", f"{SOUNDFILE}, {FFMPEG}"),
        (written(np.zeros(16000)), "silent", SOUNDFILE),
        (written(np.full(16000, 1e-6), subtype="FLOAT"), "silent", SOUNDFILE),
        (muxed(np.zeros(16000, np.float32)), "silent", FFMPEG),
        (written(tone(seconds=0)), "too short (0 samples at 16000 Hz)", SOUNDFILE),
        (written(tone()[:3]), "too short (3 samples at 16000 Hz)", SOUNDFILE),
        (
            written(np.array([0.1, np.nan] * 4000), subtype="FLOAT"),
            "samples that are not finite",
            SOUNDFILE,
        ),
        (
            written(np.array([0.1, np.inf] * 4000), subtype="DOUBLE"),
            "samples that are not finite",
            SOUNDFILE,
        ),
        (written(tone(), 100), "1 channels at 100 Hz", SOUNDFILE),
    ],
)
def test_what_is_no_sound(data, reason, decoder):
    with pytest.raises(MediaError) as caught:
        audio.prepare(data)
    assert str(caught.value).startswith(reason) and len(str(caught.value)) < 100
    assert caught.value.decoder == decoder


def test_too_many_bytes(monkeypatch):
    monkeypatch.setattr(audio, "MAX_BYTES", 1000)
    with pytest.raises(MediaError, match=r"too many bytes \(16,044; at most 1,000\)"):
        audio.prepare(written(tone()))


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_that_cancel_each_other_out_are_heard(channels):
    """Their mean is silence, though each is loud."""
    left = tone() + 0.01 * tone(1000)
    opposite = np.stack([left, -left, *[left * 0] * (channels - 2)], axis=1)
    np.testing.assert_allclose(prepared(written(opposite)), left, atol=1e-4)
    # From any part of a longer sound.
    quiet = np.concatenate([0.1 * opposite, opposite])
    got = prepared(written(quiet), max_seconds=0.5)
    np.testing.assert_allclose(got, left, atol=1e-4)


@pytest.mark.parametrize("level", [0.25, -1.0, 1.0])
def test_a_constant_is_silence(level):
    for data in (
        written(np.full(16000, level), subtype="FLOAT"),
        written(np.full((16000, 2), [level, level / 2]), 8000, "AIFF"),
    ):
        with pytest.raises(MediaError, match=r"silent \(a constant\)"):
            audio.prepare(data)
    assert prepared(written(0.2 * tone() + level / 2)).size == 8000


def test_a_constant_does_not_choose_the_loudest_part():
    shifted = clicks([0.1, 0.4, 0.1])
    shifted[:8000] += 0.5
    got = prepared(written(shifted, 8000), max_seconds=1.0)
    assert np.abs(got)[200:-200].max() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("height", [30.0, 1e6, -1e30])
def test_a_glitch_leaves_the_sound_as_loud_as_it_is(height):
    samples = tone(rate_hz=8000)
    samples[1234] = height
    said = []
    got = read(audio.prepare(written(samples, 8000, subtype="FLOAT"), remark=said.append))
    want = prepared(written(tone(rate_hz=8000), 8000))
    away = np.abs(np.arange(len(got)) - 2 * 1234) > 200
    assert np.abs(got - want)[away].max() < 1e-2
    assert said == [f"glitch cut off (a peak of {abs(height):.3g} times full scale)"]
    # What is loud throughout is no glitch.
    audio.prepare(written(tone(peak=9.0), subtype="FLOAT"), remark=said.append)
    assert len(said) == 1


def cut_off(data: bytes) -> bytes:
    return data[: len(data) * 3 // 5]


@pytest.mark.parametrize("form", ["WAV", "AIFF", "AU", "FLAC", "MP3", "mp4", "mov", "asf"])
def test_a_sound_that_breaks_off_is_said_to(form):
    """If its form says how long it was to be."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    if form.islower():
        codec = {"mp4": "alac", "mov": "pcm_s16le", "asf": "wmav2"}[form]
        data = muxed(noise, kind=form, codec=codec)
    else:
        data = written(noise, kind=form, subtype="MPEG_LAYER_III" if form == "MP3" else "PCM_16")
    said = []
    whole = read(audio.prepare(data, remark=said.append))
    assert said == []
    try:
        got = read(audio.prepare(cut_off(data), remark=said.append))
    except MediaError:
        assert form in ("mp4", "mov")  # whose index is at the end
        return
    assert 16_000 < got.size < whole.size
    (remark,) = said
    assert remark.startswith(f"cut off or damaged (read: {got.size / 16000:.1f} s; ")


def test_lists_that_name_other_files_are_not_followed(tmp_path):
    path = tmp_path / "sound.wav"
    path.write_bytes(written(tone()))
    for text in (
        f"ffconcat version 1.0\nfile '{path}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
    ):
        with pytest.raises(MediaError, match="not decodable"):
            audio.prepare(text.encode())


def test_cut_wav_keeps_what_is_there():
    got = prepared(written(tone())[:8044])
    np.testing.assert_allclose(got, tone()[:4000], atol=1e-4)


def test_cut_flac_keeps_what_is_there():
    """soundfile reads less of it, or nothing."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    data = written(noise, kind="FLAC")
    got = prepared(data[: len(data) // 2])
    assert 16_000 <= got.size < 20_000
    np.testing.assert_allclose(got, noise[: got.size], atol=1e-4)


@pytest.mark.parametrize("kind, subtype", [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_damage_inside_costs_little_more_than_itself(kind, subtype):
    data = bytearray(written(np.tile(tone(seconds=1), 6), kind=kind, subtype=subtype))
    at = len(data) // 2
    data[at : at + 50] = bytes(50)
    assert prepared(bytes(data)).size > 80_000


@pytest.mark.parametrize("form", [*FORMS, "flac", "noise"])
def test_damage_raises_nothing_else(form):
    rng = np.random.default_rng(0)
    if form == "flac":
        data = written(tone(seconds=2), kind="FLAC")
    else:
        data = rng.bytes(20_000) if form == "noise" else FORMS[form](clicks([0.1, 0.5]), 16000)
    for trial in range(60):
        damaged = bytearray(data)
        end = 300 if trial % 2 else len(data)
        for at in rng.integers(0, end, rng.integers(1, 8)):
            damaged[at] = rng.integers(256)
        if trial % 3 == 0:
            del damaged[rng.integers(1, len(data)) :]
        try:
            got = audio.prepare(bytes(damaged))
        except MediaError as error:
            assert 0 < len(str(error)) < 100
        else:
            assert audio.prepare(got) == got


def test_odd_media(shared):
    folder = shared / "data" / "odd_media" / "audio"
    if not folder.is_dir():
        pytest.skip("needs shared/data/odd_media, which is not here")
    refused = {}
    for path in sorted(folder.iterdir()):
        try:
            samples = prepared(path.read_bytes())
        except MediaError as error:
            refused[path.name[:3]] = str(error)
        else:
            assert 160 <= samples.size <= 160_000 and np.abs(samples).max() > 1e-4
    assert refused == {
        "069": "too short (4 samples at 11025 Hz)",
        "070": "too short (4 samples at 44100 Hz)",
        "072": "too short (4 samples at 192000 Hz)",
        "074": "too short (4 samples at 44100 Hz)",
        "075": "too short (1 samples at 48000 Hz)",
        "077": "not decodable (Error in WAV file. No 'data' chunk marker)",
        "079": "too short (4 samples at 44100 Hz)",
        "080": "empty file",
        "084": "silent",
        "087": "silent",
        "089": "silent",
        "090": "silent",
        "094": "not decodable (Internal psf_fseek() failed)",
        "095": "silent",
        "099": "silent",
        "100": "silent",
        "102": "silent",
        "104": "too short (0 samples at 16000 Hz)",
        "127": "not decodable (Error in WAV file. No 'data' chunk marker)",
        "130": "too short (9 samples at 8000 Hz)",
        "132": "too short (5 samples at 8000 Hz)",
        "134": "too short (10 samples at 1234 Hz)",
        "144": "silent",
        "145": "too short (1 samples at 16000 Hz)",
    }


def test_table_of_odd_media(tmp_path):
    (tmp_path / "fine.wav").write_bytes(written(tone()))
    (tmp_path / "short.wav").write_bytes(written(tone()[:3]))
    (tmp_path / "fine.ppm").write_bytes(b"P6 9 7 255\n" + bytes(189))
    (tmp_path / "manifest.csv").write_text(
        f"file,kind,what,{','.join(odd_media.DECODERS)}\n"
        "fine.wav,audio,a tone,,,,ok n=8000,FAIL None,ok\n"
        "short.wav,audio,three samples,,,,ok n=3,ok,ok\n"
        "fine.ppm,image,black,ok,ok,FAIL None,,,\n"
    )
    rows, again = (odd_media.measure_filled(tmp_path, f)["files"] for f in odd_media.FILLS)
    assert odd_media.differing(rows, again) == []
    assert odd_media.differing(rows, [*again[:2], again[2] | {"sha256": "0"}]) == ["fine.ppm"]
    reason = "too short (3 samples at 16000 Hz)"
    assert odd_media.table(rows).splitlines()[2:] == [
        "| fine.wav | a tone | decoded 0.50 s |  |  |  | ok | fail | ok |",
        f"| short.wav | three samples | refused: {reason} ({SOUNDFILE}) |  |  |  | ok | ok | ok |",
        "| fine.ppm | black | decoded 9 x 7 | ok | ok | fail |  |  |  |",
    ]
    assert odd_media.summary(rows) == (
        f"2 decoded, 1 refused. Refused though some decoder read them: short.wav ({reason})."
    )
