"""Sounds of any kind -> mono 16-bit WAV bytes for the graph, on the host, once."""

import contextlib
import importlib
import io
import wave
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmrec_tf.errors import ConfigError, MediaError
from mmrec_tf.media.audio_files import (
    BLOCKS_PER_SECOND,
    EARLY,
    Blocks,
    Reader,
    read_with_ffmpeg,
    read_with_soundfile,
)

MAX_BYTES = 512 * 2**20
MIN_SECONDS = 0.01
MAX_SECONDS = 10.0
SEARCH_SECONDS = 15 * 60
WINDOWS = ("start", "center", "loudest")
_PCM_SCALE = 32768
_HELD_FRAMES = 2**22  # 95 s at 44.1 kHz, 16 MB; what comes later is read again if it is wanted

# A sound whose samples lie no farther apart, a step of 16 bits to either side, is silence.
QUIET = 2 / _PCM_SCALE
# A mean of channels with less than this share of their power is one of opposites, not a sound.
OPPOSITE = 1e-3
# A peak so many times as high as all but a thousandth of the samples is a glitch.
_GLITCH = 32
_LOUD_SHARE = 0.999


def prepare(
    data: bytes,
    *,
    sample_rate_hz: int = 16000,
    max_seconds: float = MAX_SECONDS,
    window: str = "loudest",
    remark: Callable[[str], object] | None = None,
) -> bytes:
    """Makes any sound that soundfile or FFmpeg reads into mono 16-bit WAV bytes for the graph.

    Channels are averaged; where they cancel each other out, as those of opposite phase do, the
    loudest is taken. The rate is changed with librosa (soxr), and a sound louder than full scale is
    turned down to it. A glitch, a peak far above all else, is cut off first. The samples of a mono
    16-bit WAV at the right rate, and no longer than `max_seconds`, stay as they are. A sound with
    damage in it is kept as far as it can be read.

    Args:
      data: the bytes of a file.
      sample_rate_hz: the rate wanted.
      max_seconds: the longest sound returned.
      window: which part of a longer sound is taken: "start", "center", or "loudest", the earliest
        with the most energy, to a tenth of a second. Of a sound longer than 15 minutes only
        these count.
      remark: called with what was mended or left out of a sound that is returned: that it was cut
        off, or a glitch.

    Returns:
      WAV bytes that `tf.audio.decode_wav` reads.

    Raises:
      ConfigError: for an unknown `window`.
      MediaError: with a short reason when the bytes are empty, too many, damaged or not a sound,
        or when the sound is silent, constant, too short or not finite.
    """
    if window not in WINDOWS:
        raise ConfigError(f"window: wanted one of {', '.join(WINDOWS)}; got {window!r}.")
    if not data:
        raise MediaError("empty file")
    if len(data) > MAX_BYTES:
        raise MediaError(f"too many bytes ({len(data):,}; at most {MAX_BYTES:,})")
    samples, rate, decoder, damage = _decode(data, max_seconds, window)
    if len(samples) < max(1.0, MIN_SECONDS * rate):
        raise MediaError(f"too short ({len(samples)} samples at {rate} Hz)", decoder=decoder)
    if np.ptp(samples) < QUIET:
        quiet = np.abs(samples).max() < QUIET
        raise MediaError("silent" if quiet else "silent (a constant)", decoder=decoder)
    samples, glitch = _without_glitch(samples)
    if rate != sample_rate_hz:
        import librosa

        samples = librosa.resample(samples, orig_sr=rate, target_sr=sample_rate_hz)
    samples = samples[: round(max_seconds * sample_rate_hz)]
    peak = np.abs(samples).max(initial=0)
    if peak < 1 / _PCM_SCALE:
        raise MediaError("silent", decoder=decoder)
    pcm = np.rint(samples / max(peak, 1) * _PCM_SCALE)
    pcm = np.clip(pcm, -_PCM_SCALE, _PCM_SCALE - 1).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(pcm.tobytes())
    for what in filter(None, (damage, glitch)):
        if remark is not None:
            remark(what)
    return out.getvalue()


def _without_glitch(samples: np.ndarray) -> tuple[np.ndarray, str]:
    """The samples without a peak that would turn all else down to nothing, and what was done."""
    peak = float(np.abs(samples).max())
    loud = float(np.quantile(np.abs(samples), _LOUD_SHARE))
    if peak <= 1 or peak <= _GLITCH * loud:
        return samples, ""
    full = max(1.0, loud)
    return np.clip(samples, -full, full), f"glitch cut off (a peak of {peak:.3g} times full scale)"


class _Survey(NamedTuple):
    """What one reading of a sound found, without holding all of it.

    Attributes:
      start: <float32>[sample], the first frames.
      rate_hz: 0 when nothing could be read.
      num_frames: of all that was read.
      energies: <float64>[block], without what is constant in a block.
      powers: <float64>[channel], the same over all blocks.
      damage: why the reader gave up; "" when it did not.
    """

    start: np.ndarray
    rate_hz: int
    num_frames: int
    energies: np.ndarray
    powers: np.ndarray
    damage: str


def _decode(data: bytes, max_seconds: float, window: str) -> tuple[np.ndarray, int, str, str]:
    """The window as <float32>[sample], its rate in Hz, what read it, and where it breaks off."""
    searched_seconds = max_seconds if window == "start" else max(max_seconds, SEARCH_SECONDS)
    survey, read, decoder = _most_read(
        data, kept_seconds=max_seconds, searched_seconds=searched_seconds
    )
    channel = None
    if survey.energies.sum() < OPPOSITE * survey.powers.mean():
        channel = int(np.argmax(survey.powers))
        survey = _survey(
            read(data, 0),
            kept_seconds=max_seconds,
            searched_seconds=searched_seconds,
            channel=channel,
        )
    wanted = _num_frames(max_seconds, survey.rate_hz)
    first = 0
    if window == "center":
        first = max(0, survey.num_frames - wanted) // 2
    elif window == "loudest":
        first = _loudest(survey, wanted)
    samples = survey.start[first : first + wanted]
    if len(samples) < min(wanted, survey.num_frames):
        samples = _part(read(data, first), wanted, channel)
    damage = survey.damage
    if damage:
        seconds = survey.num_frames / survey.rate_hz
        damage = f"cut off or damaged (read: {seconds:.1f} s; {damage})"
    return samples, survey.rate_hz, decoder, damage


def _most_read(
    data: bytes, *, kept_seconds: float, searched_seconds: float
) -> tuple[_Survey, Reader, str]:
    """The reader that reads all, or the one that reads more than the other."""
    readers: dict[str, Reader] = {"soundfile": read_with_soundfile, "av": read_with_ffmpeg}
    found = []
    for library, read in readers.items():
        decoder = f"{library} {importlib.import_module(library).__version__}"
        try:
            survey = _survey(
                read(data, 0), kept_seconds=kept_seconds, searched_seconds=searched_seconds
            )
        except MediaError as error:
            error.decoder = decoder
            raise
        found.append((survey, read, decoder))
        if not survey.damage:
            break
    survey, read, decoder = max(found, key=lambda entry: entry[0].num_frames)
    if not survey.rate_hz:
        tried = ", ".join(decoder for _, _, decoder in found)
        raise MediaError(f"not decodable ({found[0][0].damage})", decoder=tried)
    # One that reads a little more may not notice that the end is missing.
    if any(other.damage == EARLY for other, _, _ in found):
        survey = survey._replace(damage=survey.damage or EARLY)
    return survey, read, decoder


def _survey(
    blocks: Blocks, *, kept_seconds: float, searched_seconds: float, channel: int | None = None
) -> _Survey:
    """Reads blocks, whose channels are averaged or of which one is taken."""
    kept: list[np.ndarray] = [np.zeros(0, np.float32)]
    energies: list[float] = []
    num_frames, rate, powers, damage = 0, 0, np.zeros(1), ""
    try:
        for channels, rate in blocks:
            held = max(_num_frames(kept_seconds, rate), _HELD_FRAMES)
            channels = channels[: _num_frames(searched_seconds, rate) - num_frames]
            if not np.isfinite(channels).all():
                raise MediaError("samples that are not finite")
            block = _mono(channels, channel)
            energies.append(float(_energies(block)))
            powers = powers + _energies(channels)
            if num_frames < held:
                kept.append(block[: held - num_frames])
            num_frames += len(block)
            if num_frames == _num_frames(searched_seconds, rate):
                break
    except MediaError:
        raise
    except Exception as error:  # the readers raise whatever they like on damaged files
        damage = str(error).split(": ")[-1].rstrip(".") or type(error).__name__
    return _Survey(np.concatenate(kept), rate, num_frames, np.array(energies), powers, damage)


def _mono(channels: np.ndarray, channel: int | None) -> np.ndarray:
    """<float32>[frame, channel] to <float32>[frame]: the mean, or one of them."""
    if channel is not None:
        return channels[:, channel]
    return channels @ np.full(channels.shape[1], 1 / channels.shape[1], np.float32)


def _energies(block: np.ndarray) -> np.ndarray:
    """The energy of a block [frame, ...] without what is constant in it, <float64>[...]."""
    return len(block) * np.var(block, axis=0, dtype=np.float64) if len(block) else np.zeros(())


def _num_frames(seconds: float, rate_hz: int) -> int:
    return max(1, round(seconds * rate_hz))


def _loudest(survey: _Survey, wanted: int) -> int:
    """The first frame of the earliest window with the most energy."""
    if survey.num_frames <= wanted:
        return 0
    block = survey.rate_hz // BLOCKS_PER_SECOND
    num_blocks = max(1, round(wanted / block))
    until = np.concatenate([[0], np.cumsum(survey.energies)])
    energies = until[num_blocks:] - until[:-num_blocks]
    # Sums of the same numbers differ in their last digits.
    first = int(np.argmax(energies >= energies.max() * (1 - 1e-9)))
    return min(first * block, survey.num_frames - wanted)


def _part(blocks: Blocks, wanted: int, channel: int | None) -> np.ndarray:
    """The first `wanted` frames, or fewer."""
    part, num_frames = [np.zeros(0, np.float32)], 0
    # The survey has met all damage, and the part was chosen from what it could read before.
    with contextlib.suppress(Exception):
        for block, _ in blocks:
            part.append(_mono(block, channel))
            num_frames += len(block)
            if num_frames >= wanted:
                break
    return np.concatenate(part)[:wanted]
