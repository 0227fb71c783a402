"""Videos to frames: which ones, of which files, and what is refused."""

import io
import pathlib

import numpy as np
import PIL.Image
import pytest
from support.clips import film, gray

from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.media import audio, video

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "video"


def levels(clip: bytes) -> list[int]:
    """The gray level in the middle of each frame."""
    return [round(float(middle(frame).mean())) for frame in video.split_frames(clip)]


def middle(frame: bytes) -> np.ndarray:
    pixels = np.asarray(PIL.Image.open(io.BytesIO(frame)).convert("RGB"), np.float32)
    height, width = pixels.shape[:2]
    return pixels[height // 4 : -(height // 4), width // 4 : -(width // 4)]


def animated(form: str, frames: list[np.ndarray], **options) -> bytes:
    out = io.BytesIO()
    first, *rest = map(PIL.Image.fromarray, frames)
    first.save(out, form, save_all=True, append_images=rest, duration=100, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "times, num_frames, want",
    [
        ([0, 1, 2], 4, [0, 1, 2]),
        # Whole 8: parts of 2, their middles 1, 3, 5 and 7.
        (list(range(8)), 4, [1, 3, 5, 7]),
        # Whole 11.25, middles 2.8 and 8.4: the frames shown then began at 2 and 8.
        ([0, 1, 2, 8, 9], 2, [2, 8]),
        # Whole 133, middles 22, 67 and 111: a frame that is wanted twice gives way to the next.
        ([0, 98, 99, 100], 3, [0, 98, 100]),
    ],
)
def test_frames_are_spread_over_time(times, num_frames, want):
    assert video.spread_times(times, num_frames) == want


def test_scenes_by_hand():
    changes = np.zeros(12)
    # Scenes of 3, 7 and 2 frames; the longest is cut where four are wanted.
    changes[[3, 10]] = 90, 40
    assert video.scene_frames(changes, 3) == [1, 6, 10]
    assert video.scene_frames(changes, 2) == [1, 7]
    assert video.scene_frames(changes, 4) == [1, 4, 7, 10]
    # Nothing changes: the clip is cut in halves.
    assert video.scene_frames(np.zeros(8), 2) == [1, 5]
    assert video.scene_frames(np.zeros(1), 4) == [0]


def test_a_clip_is_its_frames_one_after_the_other():
    frames = [video.image.encode(pixels, max_side=64) for pixels in gray([10, 200, 10])]
    assert video.split_frames(video.join_frames(frames)) == frames
    assert video.split_frames(b"") == []


@pytest.mark.parametrize("form", ["mp4", "matroska", "avi", "mov", "gif", "webp"])
def test_the_same_frames_of_every_form(form):
    shown = gray([20, 20, 90, 90, 160, 160, 230, 230])
    if form in ("gif", "webp"):
        data = animated(form, shown, **({"lossless": True} if form == "webp" else {}))
    else:
        data = film(shown, form=form)
    remarks = []
    found = levels(video.prepare(data, num_frames=4, remark=remarks.append))
    np.testing.assert_allclose(found, [20, 90, 160, 230], atol=4)
    assert not remarks
    scenes = levels(video.prepare(data, num_frames=4, pick="scenes"))
    np.testing.assert_allclose(scenes, [20, 90, 160, 230], atol=4)


def test_of_a_long_film_what_leads_to_a_frame_is_enough(monkeypatch):
    """Groups of four packets: of the first two groups and the last none is wanted."""
    data = film(gray(list(range(0, 240, 10))))
    decoded = []
    whole = video._frames
    monkeypatch.setattr(video, "_frames", lambda *a: (decoded.append(len(a[1])), whole(*a))[1])
    assert np.allclose(levels(video.prepare(data, num_frames=1)), [120], atol=3)
    assert sum(decoded) <= 5 < 24


def test_frames_are_turned_as_the_header_says():
    """The display matrix (ISO/IEC 14496-12, 6.2.2) turns x to y: a quarter with the clock."""
    pixels = np.zeros([32, 48, 3], np.uint8)
    pixels[:16, :24] = 255
    data = film([pixels] * 3)
    plain = np.zeros([3, 3], ">i4")
    plain[[0, 1, 2], [0, 1, 2]] = 1 << 16, 1 << 16, 1 << 30
    turned = plain.copy()
    turned[:2, :2] = [[0, 1 << 16], [-(1 << 16), 0]]
    # Twice in the file, of the movie and of its track; a player looks at the latter.
    at = data.rindex(plain.tobytes())
    data = data[:at] + turned.tobytes() + data[at + turned.nbytes :]
    (frame, *_) = video.split_frames(video.prepare(data, num_frames=1))
    found = np.asarray(PIL.Image.open(io.BytesIO(frame)).convert("L"))
    assert found.shape == (48, 32)
    corners = [found[:20, :12], found[:20, -12:], found[-20:, :12], found[-20:, -12:]]
    assert [bool(corner.mean() > 128) for corner in corners] == [False, True, False, False]


def test_large_frames_are_shrunk():
    clip = video.prepare(film(gray([50], height=40, width=80)), max_side=20)
    assert PIL.Image.open(io.BytesIO(clip)).size == (20, 10)


def test_a_cut_file_gives_what_is_left_and_says_so():
    shown = [np.random.default_rng(n).integers(0, 255, (32, 48, 3), np.uint8) for n in range(20)]
    data = film(shown, form="matroska")
    remarks = []
    clip = video.prepare(data[: len(data) // 2], remark=remarks.append)
    assert len(video.split_frames(clip)) == 8
    assert "the file ends early" in remarks[0]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"no video at all", "not a video"),
        (bytes(4096), "not a video"),
        (b"RIFF\x10\0\0\0WEBPVP8 \0\0", "not a video"),
        (lambda: film([], tone_seconds=0.2), "sound only"),
    ],
)
def test_what_is_no_video_is_refused(data, reason):
    with pytest.raises(MediaError, match=reason):
        video.prepare(data() if callable(data) else data)


def test_limits_hold_before_anything_is_decoded(monkeypatch):
    data = film(gray([1, 2, 3]))
    monkeypatch.setattr(video, "_frames", lambda *a: pytest.fail("decoded"))
    for name, value, reason in (
        ("MAX_BYTES", len(data) - 1, "too many bytes"),
        ("MAX_PIXELS", 32 * 48 - 1, "too many pixels .48 x 32"),
        ("MAX_SECONDS", 0.1, "too long"),
        ("_MOST_PACKETS", 2, "too many frames"),
    ):
        with monkeypatch.context() as limited, pytest.raises(MediaError, match=reason):
            limited.setattr(video, name, value)
            video.prepare(data)
    with pytest.raises(ConfigError, match="one of spread, scenes"):
        video.prepare(data, pick="first")
    with pytest.raises(ConfigError, match="1 to 64"):
        video.prepare(data, num_frames=0)


def test_the_sound_track():
    wav = video.sound_track(film(gray([1] * 5), tone_seconds=0.5), prepare=audio.prepare)
    assert wav.startswith(b"RIFF")
    for data in (film(gray([1])), animated("webp", gray([1, 90]))):
        with pytest.raises(MediaError, match=video.NO_SOUND):
            video.sound_track(data, prepare=audio.prepare)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not part of the checkout")
def test_real_and_odd_files():
    """Every clip gives all frames, every odd file frames or a reason; nothing else is raised."""
    refused = set()
    for path in sorted(SHARED.glob("*/*")):
        try:
            count = len(video.split_frames(video.prepare(path.read_bytes())))
            assert path.parent.name == "odd" or count == 8, path.name
            assert 1 <= count <= 8
        except MediaError:
            refused.add(path.name)
    assert refused == {
        *("audio_only.mp4", "audio_only_opus.webm", "audio_only_xhe_aac.mp4", "zeros.mp4"),
        *("chunk_out_of_range.mp4", "empty.mp4", "encrypted_cenc.mp4", "text.mp4"),
        *("header_claims_1040_frames.mp4", "truncated_no_moov.mp4", "zero_frames.mp4"),
    }
