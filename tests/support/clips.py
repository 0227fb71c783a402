"""Small video files, written with PyAV."""

import fractions
import io

import av
import numpy as np


def film(
    frames: list[np.ndarray],
    *,
    form: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 10,
    tone_seconds: float = 0.0,
    times: list[int] | None = None,
) -> bytes:
    """The bytes of a file.

    Args:
      frames: <uint8>[height, width, 3], red first, of even sides.
      form: of the file, as FFmpeg calls it.
      codec: of the pictures.
      rate: frames a second.
      tone_seconds: of a tone beside them; 0 for no sound.
      times: when each frame is shown, in units of 1 / rate; by default one after the other.
    """
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate) if frames else None
        if stream is not None:
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
            stream.bit_rate = 4_000_000
            stream.gop_size = 4
        sound = container.add_stream("aac", rate=16000, layout="mono") if tone_seconds else None
        for place, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[place] if times else place
            frame.time_base = fractions.Fraction(1, rate)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
        if sound is not None:
            time = np.arange(round(16000 * tone_seconds)) / 16000
            wave = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate = 16000
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return out.getvalue()


def gray(levels: list[int], *, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Plain frames, one of each gray level."""
    return [np.full([height, width, 3], level, np.uint8) for level in levels]
