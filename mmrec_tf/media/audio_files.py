"""Sounds of any file, block by block: by soundfile, or by FFmpeg, which reads more kinds."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from mmrec_tf.errors import MediaError

BLOCKS_PER_SECOND = 10
MAX_RATE_HZ = 768_000
EARLY = "the file ends early"
_MAX_CHANNELS = 64
_SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size) *: *\d+ \(should be", re.M)
# What FFmpeg may open: sounds, and films for their sound; no lists that name other files.
_FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,rm,tak,tta,voc,w64,wav,wv,xwma"
)
# Containers whose header says how long their sound is; others guess it from their size.
_TIMED_FORMATS = ("mov", "asf", "avi", "flac", "aiff", "au", "caf", "w64")
# A sound may end so much before its header says, for what encoders put around it.
_SPARE_SECONDS = 0.25

# Blocks <float32>[frame, channel] of a tenth of a second from a frame on, the last one shorter,
# and the rate in Hz.
Blocks = Iterator[tuple[np.ndarray, int]]
Reader = Callable[[bytes, int], Blocks]


class _SoundFile(soundfile.SoundFile):
    """Reads on and on. The plain one seeks to where it is after every read, and MP3, whose frames
    lean on earlier ones, is spoiled by that."""

    def seekable(self) -> bool:
        return False

    def skip(self, num_frames: int, *, at_most: int) -> None:
        if super().seekable() and self.format != "MP3":
            self.seek(num_frames)
            return
        for skipped in range(0, num_frames, at_most):
            self.read(min(at_most, num_frames - skipped))


def read_with_soundfile(data: bytes, first: int) -> Blocks:
    """Reads from a frame on, and fails where less came than the file says."""
    with _SoundFile(io.BytesIO(data)) as file:
        rate = _plausible(file.samplerate, file.channels)
        size, num_frames = rate // BLOCKS_PER_SECOND, first
        file.skip(first, at_most=size)
        while True:
            block = file.read(size, dtype="float32", always_2d=True)
            num_frames += len(block)
            yield block, rate
            if len(block) < size:
                break
        # libsndfile takes a chunk that is longer than its file for what is left of it, and says so.
        if num_frames < file.frames or _SHORTENED.search(file.extra_info):
            raise EOFError(EARLY)


def read_with_ffmpeg(data: bytes, first: int) -> Blocks:
    """Reads all that can be read: damage ends nothing but the packet that it is in."""
    rest, rate, faults = np.zeros([0, 0], np.float32), 0, _Faults()
    for samples, rate in _ffmpeg_frames(data, faults):
        size = rate // BLOCKS_PER_SECOND
        part = samples[first:]
        rest = np.concatenate([rest, part]) if len(rest) else part
        first = max(0, first - len(samples))
        while len(rest) >= size:
            yield rest[:size], rate
            rest = rest[size:]
    if rate:
        yield rest, rate
    if faults.packets:
        raise EOFError(f"{faults.packets} damaged packets")
    if faults.missing_seconds > _SPARE_SECONDS:
        raise EOFError(EARLY)


@dataclass
class _Faults:
    """What FFmpeg passed over.

    Attributes:
      packets: how many could not be decoded.
      missing_seconds: how much less there is than the header says.
    """

    packets: int = 0
    missing_seconds: float = 0.0


def _ffmpeg_frames(data: bytes, faults: _Faults) -> Blocks:
    import av

    options = {"format_whitelist": _FFMPEG_FORMATS, "protocol_whitelist": "none"}
    with av.open(io.BytesIO(data), "r", options=options, metadata_errors="ignore") as container:
        stream, form, num_frames = container.streams.audio[0], (0, 0), 0
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        found = (frame.sample_rate, frame.layout.nb_channels)
                        if form[0] and found != form:  # another sound follows
                            return
                        form = (_plausible(*found), found[1])
                        num_frames += frame.samples
                        yield _channels(frame), form[0]
                except av.error.FFmpegError:
                    faults.packets += 1
        except av.error.FFmpegError:
            faults.packets += 1
        if form[0] and stream.duration and container.format.name.startswith(_TIMED_FORMATS):
            promised = float(stream.duration * (stream.time_base or 0))
            faults.missing_seconds = promised - num_frames / form[0]


def _channels(frame: Any) -> np.ndarray:
    """<float32>[frame, channel] in -1..1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float32) / 128 - 1  # 8 bits
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.T.astype(np.float32, copy=False)


def _plausible(rate: int, channels: int) -> int:
    """The rate, refused where a damaged header would ask for absurd amounts of memory."""
    if not 1000 <= rate <= MAX_RATE_HZ or not 1 <= channels <= _MAX_CHANNELS:
        raise MediaError(f"{channels} channels at {rate} Hz")
    return rate
