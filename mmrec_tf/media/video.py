"""Videos of any kind -> some of their frames as JPEG bytes for the graph, on the host, once."""

import bisect
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.media import image
from mmrec_tf.media.audio_files import EARLY

MAX_BYTES = 512 * 2**20
MAX_PIXELS = 2**25  # of a frame: one of 7680 x 4320 fits
MAX_SECONDS = 4 * 3600.0
NUM_FRAMES = 8
MOST_FRAMES = 64
PICKS = ("spread", "scenes")
NO_SOUND = "no sound in it"

# What FFmpeg may open: films and animations, and single pictures under a film's name; no lists
# that name other files.
_FORMATS = (
    "asf,avi,flv,gif,h264,hevc,image2,jpeg_pipe,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,ogg,"
    "png_pipe,webm"
)
_MOST_PACKETS = 2**20
# Of all frames together, for scenes are looked for in each of them: some minutes of HD.
_SCENE_PIXELS = 2**34
# Frames whose small gray pictures are so far apart, on average in 0..255, are of two scenes.
_SCENE_CHANGE = 16.0
_THUMBNAIL = 16
# Pictures may end so much before their sound does, which the header may mean.
_SPARE_SECONDS, _SPARE_SHARE = 0.5, 0.2
_END, _START = b"\xff\xd9", b"\xff\xd8"


def join_frames(frames: Sequence[bytes]) -> bytes:
    """Frames as JPEG bytes to the one value that a dataset holds of a clip: a Motion JPEG stream,
    which is nothing but one JPEG after the other."""
    return b"".join(frames)


def split_frames(clip: bytes) -> list[bytes]:
    """The inverse of `join_frames`; [] for b"".

    A frame ends where an end marker is followed by a start marker, which coded data never holds
    (ITU-T T.81, B.1.1.2). `mmrec_tf.encoders.video.frames` cuts clips by the same rule.
    """
    if not clip:
        return []
    parts = clip.split(_END + _START)
    last = len(parts) - 1
    return [
        (_START if n else b"") + part + (_END if n < last else b"") for n, part in enumerate(parts)
    ]


def prepare(
    data: bytes,
    *,
    num_frames: int = NUM_FRAMES,
    max_side: int = 320,
    pick: str = "spread",
    remark: Callable[[str], object] | None = None,
) -> bytes:
    """Makes any video that FFmpeg reads, or an animated GIF or WebP, into frames for the graph.

    Frames are turned upright as the file's metadata says, laid over white where they are
    transparent, shrunk so that the longest side is at most `max_side` pixels, and written as JPEG.
    Of a long film only what leads to the wanted frames is decoded.

    Args:
      data: the bytes of a file.
      num_frames: the most frames returned; a clip that has fewer gives all of them.
      max_side: the longest side allowed, in pixels.
      pick: "spread", the frames shown in the middle of so many equal parts of the clip's time; or
        "scenes", the middle frame of each scene, of which the longest are cut where there are too
        few. Scenes begin where a frame differs most from the one before.
      remark: called with what was left out of a clip that is returned.

    Returns:
      The frames in order, as `join_frames`.

    Raises:
      ConfigError: for an unknown `pick`, or a number of frames out of range.
      MediaError: with a short reason when the bytes are empty, too many or no video, when frames
        are too large or the clip is too long, or when no frame can be decoded.
    """
    if pick not in PICKS:
        raise ConfigError(f"video frames: wanted one of {', '.join(PICKS)}; got {pick!r}.")
    if not 1 <= num_frames <= MOST_FRAMES:
        raise ConfigError(f"video frames: wanted 1 to {MOST_FRAMES}; got {num_frames}.")
    if not data:
        raise MediaError("empty file")
    if len(data) > MAX_BYTES:
        raise MediaError(f"too many bytes ({len(data):,}; at most {MAX_BYTES:,})")
    tell = remark or (lambda what: None)
    read = _read_with_pillow if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else _read_with_ffmpeg
    found = read(data, num_frames, max_side, pick, tell)
    return join_frames([image.encode(pixels, max_side=max_side) for pixels in found])


def sound_track(
    data: bytes,
    *,
    prepare: Callable[..., bytes],
    remark: Callable[[str], object] | None = None,
) -> bytes:
    """The sound of a video.

    Args:
      data: the bytes of a file.
      prepare: `mmrec_tf.media.audio.prepare`, with its options.
      remark: as there.

    Raises:
      MediaError: as there; its reason begins with `NO_SOUND` where the file has none.
    """
    import av

    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(data), "r", options=options, metadata_errors="ignore") as container:
            silent = not container.streams.audio
    except av.error.FFmpegError:
        silent = True  # an animated picture, as a film would have been refused before
    if silent:
        raise MediaError(NO_SOUND)
    return prepare(data, remark=remark)


def spread_times(times: Sequence[int], num_frames: int) -> list[int]:
    """Of the times at which frames are shown, ascending, those in the middle of equal parts.

    The last frame counts as long as the others do on average.
    """
    if len(times) <= num_frames:
        return list(times)
    whole = (times[-1] - times[0]) * len(times) / (len(times) - 1)
    wanted = [times[0] + (n + 0.5) * whole / num_frames for n in range(num_frames)]
    found = [bisect.bisect_right(times, time) - 1 for time in wanted]
    # Where frames are rare and the clip has others, a frame that is wanted twice gives way.
    for n in range(1, num_frames):
        found[n] = max(found[n], found[n - 1] + 1)
    for n in range(num_frames - 1, -1, -1):
        found[n] = min(found[n], len(times) - num_frames + n)
    return [times[n] for n in found]


def scene_frames(changes: np.ndarray, num_frames: int) -> list[int]:
    """The frames in the middle of scenes.

    Args:
      changes: <float>[frame], how far each frame is from the one before; the first counts nothing.
      num_frames: how many are wanted; fewer where there are fewer frames.

    Returns:
      Their numbers, ascending.
    """
    count = len(changes)
    num_frames = min(num_frames, count)
    order = 1 + np.argsort(-changes[1:], kind="stable")[: num_frames - 1]
    cuts = sorted(int(n) for n in order if changes[n] > _SCENE_CHANGE)
    scenes = list(zip([0, *cuts], [*cuts, count], strict=True))
    while len(scenes) < num_frames:
        longest = max(range(len(scenes)), key=lambda n: scenes[n][1] - scenes[n][0])
        start, end = scenes[longest]
        middle = (start + end) // 2
        scenes[longest : longest + 1] = [(start, middle), (middle, end)]
    return [(start + end - 1) // 2 for start, end in scenes]


class _Timeline(NamedTuple):
    """The packets of a film's pictures, none of them decoded.

    Attributes:
      packets: in the order of the file.
      times: of each, in the stream's unit; its place where the file says none.
      timed: whether the file says.
      damage: why reading ended early; "" when it did not.
    """

    packets: list[Any]
    times: list[int]
    timed: bool
    damage: str


def _read_with_ffmpeg(
    data: bytes, num_frames: int, max_side: int, pick: str, tell: Callable[[str], object]
) -> list[np.ndarray]:
    """Frames <uint8>[height, width, 3 or 4], blue first, of about the size wanted."""
    import av

    decoder = f"av {av.__version__}"
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(io.BytesIO(data), "r", options=options, metadata_errors="ignore")
    except av.error.FFmpegError as error:
        raise MediaError(f"not a video, or cut off ({_reason(error)})", decoder=decoder) from error
    with container:
        try:
            stream = _pictures(container)
            timeline = _timeline(container, stream)
            if pick == "scenes":
                size = stream.codec_context.width * stream.codec_context.height
                if len(timeline.packets) * size > _SCENE_PIXELS:
                    tell("too long to look for scenes; frames are spread instead")
                    pick = "spread"
            if pick == "scenes":
                wanted = _scenes(stream, timeline, num_frames)
            else:
                wanted = spread_times(sorted(set(timeline.times)), num_frames)
            found, bad = _decode(stream, timeline, wanted, max_side)
        except MediaError as error:
            error.decoder = decoder
            raise
        except av.error.FFmpegError as error:
            raise MediaError(f"damaged ({_reason(error)})", decoder=decoder) from error
    if not found:
        raise MediaError(
            "no frame could be decoded (damaged, encrypted or cut off)", decoder=decoder
        )
    if timeline.damage or len(found) < len(wanted) or bad:
        reason = timeline.damage or f"{bad} damaged frames" if bad else timeline.damage
        tell(
            f"cut off or damaged (read: {len(found)} of {len(wanted)} frames"
            + (f"; {reason})" if reason else ")")
        )
    return found


def _pictures(container: Any) -> Any:
    """The first stream of pictures that is no cover of a record, its limits checked."""
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        raise MediaError("no pictures in it (sound only)")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise MediaError("of a codec that is not known")
    _check_size(context.width, context.height)
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    _check_seconds(seconds)
    context.thread_count = 1  # preparation runs in a process for each CPU
    return stream


def _is_cover(stream: Any) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"too many pixels ({width} x {height}; at most {MAX_PIXELS:,} a frame)")


def _check_seconds(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise MediaError(f"too long ({seconds:,.0f} s; at most {MAX_SECONDS:,.0f})")


def _timeline(container: Any, stream: Any) -> _Timeline:
    import av

    packets, damage = [], ""
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(packet)
            if len(packets) > _MOST_PACKETS:
                raise MediaError(f"too many frames (more than {_MOST_PACKETS:,})")
    except av.error.FFmpegError as error:
        damage = _reason(error)
    times = [packet.dts if packet.pts is None else packet.pts for packet in packets]
    timed = all(time is not None for time in times)
    if not timed:
        times = list(range(len(packets)))
    elif times and stream.time_base:
        _check_seconds(float((max(times) - min(times)) * stream.time_base))
        if not damage and _ends_early(container, stream, packets, times):
            damage = EARLY
    return _Timeline(packets, times, timed, damage)


def _ends_early(container: Any, stream: Any, packets: Sequence[Any], times: Sequence[int]) -> bool:
    """Whether the header promises much more than there is."""
    unit = float(stream.time_base)
    until = max(time + (p.duration or 0) for time, p in zip(times, packets, strict=True))
    there = (until - min(times)) * unit
    promised = stream.duration * unit if stream.duration else (container.duration or 0) / 1e6
    return promised - there > max(_SPARE_SECONDS, _SPARE_SHARE * promised)


def _decode(
    stream: Any, timeline: _Timeline, wanted: Sequence[int], max_side: int
) -> tuple[list[np.ndarray], int]:
    """The frames at some times, ascending, and how many of them the decoder calls damaged.

    Where a frame cannot be had, the next one that can be stands for it; none stands there twice.
    """
    found, bad = [], 0
    for some in _groups(timeline, wanted):
        left = [time for time in wanted if some.first <= time < some.until]
        last: Any = None
        for place, frame in enumerate(_frames(stream, timeline.packets[some.start : some.end])):
            time = frame.pts if timeline.timed and frame.pts is not None else some.start + place
            last = frame
            if left and time >= left[0]:
                # One frame for all the times before it.
                left = [later for later in left if later > time]
                found.append(_pixels(frame, max_side))
                bad += bool(frame.is_corrupt)
                last = None
            if not left:
                break
        if left and last is not None:
            found.append(_pixels(last, max_side))
            bad += bool(last.is_corrupt)
    return found, bad


class _Group(NamedTuple):
    """Packets that can be decoded without those before, `start` to `end`, and the times of the
    frames that are theirs, `first` up to `until`."""

    start: int
    end: int
    first: float
    until: float


def _groups(timeline: _Timeline, wanted: Sequence[int]) -> Iterator[_Group]:
    """The groups of packets that hold wanted frames."""
    times = timeline.times
    keys = [n for n, packet in enumerate(timeline.packets) if packet.is_keyframe]
    # A key frame that is shown before an earlier one leads nothing that can be told apart.
    starts = [0]
    for key in keys:
        if key > 0 and times[key] > times[starts[-1]]:
            starts.append(key)
    first = [float("-inf"), *(times[n] for n in starts[1:])]
    until = [*first[1:], float("inf")]
    for n, start in enumerate(starts):
        if any(first[n] <= time < until[n] for time in wanted):
            # What is shown before the next key frame may stand behind it in the file.
            end = len(times) if n + 1 == len(starts) else starts[n + 1]
            while end < len(times) and end > starts[n] and times[end] < until[n]:
                end += 1
            yield _Group(start, end, first[n], until[n])


def _frames(stream: Any, packets: Sequence[Any]) -> Iterator[Any]:
    """The frames of some packets, in the order in which they are shown; damage costs what it is
    in."""
    import av

    context = stream.codec_context
    context.flush_buffers()
    for packet in [*packets, None]:
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError:
            continue
        for frame in frames:
            _check_size(frame.width, frame.height)
            yield frame
    context.flush_buffers()


def _pixels(frame: Any, max_side: int) -> np.ndarray:
    """<uint8>[height, width, 3 or 4] of at most `max_side`, upright."""
    scale = min(1.0, max_side / max(frame.width, frame.height))
    form = "bgra" if any(part.is_alpha for part in frame.format.components) else "bgr24"
    pixels = frame.reformat(
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        format=form,
        interpolation="AREA",
    ).to_ndarray()
    # FFmpeg counts against the clock.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _scenes(stream: Any, timeline: _Timeline, num_frames: int) -> list[int]:
    """The times of the frames in the middle of scenes."""
    times, changes, before = [], [], None
    for place, frame in enumerate(_frames(stream, timeline.packets)):
        small = frame.reformat(width=_THUMBNAIL, height=_THUMBNAIL, format="gray").to_ndarray()
        small = small.astype(np.float32)
        changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
        times.append(frame.pts if timeline.timed and frame.pts is not None else place)
        before = small
    return sorted({times[n] for n in scene_frames(np.array(changes), num_frames)}) if times else []


def _read_with_pillow(
    data: bytes, num_frames: int, max_side: int, pick: str, tell: Callable[[str], object]
) -> list[np.ndarray]:
    """The same of an animated WebP, which this FFmpeg does not decode."""
    decoder = f"pillow {PIL.__version__}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = PIL.Image.open(io.BytesIO(data), formats=["WEBP"])
        except Exception as error:  # damaged headers raise anything
            raise MediaError("not a video, or cut off", decoder=decoder) from error
        _check_size(*picture.size)
        count = getattr(picture, "n_frames", 1)
        if count * picture.width * picture.height > _SCENE_PIXELS:
            raise MediaError(f"too many frames ({count:,} of {picture.width} x {picture.height})")
        kept: list[np.ndarray] = []
        times, changes, before, time = [], [], None, 0
        with contextlib.suppress(EOFError, OSError, ValueError):
            for number in range(count):
                picture.seek(number)
                shown = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
                small = np.asarray(shown.convert("L").resize([_THUMBNAIL, _THUMBNAIL]), np.float32)
                changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
                times.append(time)
                time, before = time + max(1, int(picture.info.get("duration", 100))), small
                # A frame is small once it is shrunk, so that all of them may be kept.
                shown.thumbnail((max_side, max_side))
                pixels = np.asarray(shown)
                order = [2, 1, 0, 3][: pixels.shape[2]]
                kept.append(np.ascontiguousarray(pixels[:, :, order]))
    if not kept:
        raise MediaError("no frame could be decoded (damaged or cut off)", decoder=decoder)
    if len(kept) < count:
        tell(f"cut off or damaged (read: {len(kept)} of {count} frames)")
    _check_seconds(time / 1000)
    if pick == "scenes":
        return [kept[n] for n in scene_frames(np.array(changes), num_frames)]
    wanted = set(spread_times(times, num_frames))
    return [pixels for at, pixels in zip(times, kept, strict=True) if at in wanted]


def _reason(error: Exception) -> str:
    """What a reader says, without its number and the file's name."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.split(": ")[0].rstrip(".")
