"""What content is like, without an encoder: few numbers of a text, a picture, a sound.

They tell one source of content from another. What an encoder would see that these do not is told
by the encoder's own vectors.
"""

import io
import re
import warnings
import wave
import zlib
from collections.abc import Callable

import numpy as np
import PIL.Image

_BUCKETS, _SIDE, _BANDS = 48, 4, 24


def describe_text(data: bytes) -> np.ndarray:
    """<float32>[48]: the words, hashed (Weinberger et al. 2009), scaled to unit length."""
    found = np.zeros([_BUCKETS], np.float32)
    for word in re.findall(rb"\w+", data.lower()):
        number = zlib.crc32(word)
        found[number % _BUCKETS] += 1.0 if number >> 16 & 1 else -1.0
    return found / max(float(np.linalg.norm(found)), 1e-6)


def describe_image(data: bytes) -> np.ndarray:
    """<float32>[48]: the picture in 4 by 4 pixels of three colors, 0 to 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is strange but legible
        with PIL.Image.open(io.BytesIO(data)) as opened:
            small = opened.convert("RGB").resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255.0


def describe_audio(data: bytes) -> np.ndarray:
    """<float32>[24]: the logarithm of the mean power in bands of equal ratio, up to 8 kHz."""
    with wave.open(io.BytesIO(data)) as file:
        depth, rate = file.getsampwidth(), file.getframerate()
        kind = {1: np.uint8, 2: np.int16, 4: np.int32}[depth]
        signal = np.frombuffer(file.readframes(file.getnframes()), kind)[:: file.getnchannels()]
    power = np.square(np.abs(np.fft.rfft(signal.astype(np.float64) / 2.0 ** (8 * depth - 1))))
    hz = np.arange(len(power)) * rate / max(len(signal), 1)
    edges = np.geomspace(60.0, 8000.0, _BANDS + 1)
    place = np.digitize(hz, edges)
    total = np.bincount(place, power, _BANDS + 2)[1:-1]
    number = np.bincount(place, minlength=_BANDS + 2)[1:-1]
    return np.log(total / np.maximum(number, 1) + 1e-6).astype(np.float32)


DESCRIBED: dict[str, Callable[[bytes], np.ndarray]] = {
    "text": describe_text,
    "image": describe_image,
    "audio": describe_audio,
}
