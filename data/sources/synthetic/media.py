"""The words, pictures and sounds of the planted world: each shows one attribute, and noise."""

import io
import wave

import numpy as np

SAMPLE_RATE_HZ = 16000
CLIP_SECONDS = 1.0
PICTURE_SIDE = 64  # pixels

_TOPICS = (
    "harbor tide sail anchor gull lighthouse reef salt wave pier boat shell",
    "forest moss pine fern owl trail bark acorn clearing deer canopy root",
    "kitchen bread butter oven spice ladle honey recipe pan dough basil feast",
    "city tram neon avenue subway skyline plaza taxi rooftop crowd bridge market",
    "rocket orbit comet planet lunar module galaxy gravity probe crater nebula launch",
    "winter frost sled icicle mitten glacier blizzard ember fireside skate snow pass",
    "garden rose tulip trellis bee orchard seedling compost hedge lavender petal spade",
)
_COMMON = (
    "a the and of with from under over near old new quiet bright long small last first slow "
    "hidden open lost story day night year people made found after before between across morning"
)
_ADJECTIVES = "Quiet Bright Old New Hidden Lost Slow Last First Open Small Long".split()


def words(topic: int, rng: np.random.Generator) -> tuple[str, str]:
    """Draws a title and a description: words of the topic, of another one, and common words."""
    own, common = _TOPICS[topic].split(), _COMMON.split()
    other = _TOPICS[rng.integers(len(_TOPICS))].split()
    first, second = rng.choice(own, 2, replace=False)
    title = f"{rng.choice(_ADJECTIVES)} {first.title()} and {second.title()}"
    pools = rng.choice(3, size=rng.integers(12, 19), p=(0.4, 0.1, 0.5))
    description = " ".join(str(rng.choice((own, other, common)[pool])) for pool in pools)
    return title, description.capitalize() + "."


# What stands for the words of a topic, in their order.
_PLACES = (
    "at sea",
    "in the woods",
    "in the kitchen",
    "in the city",
    "in space",
    "in the snow",
    "in the garden",
)
_HUES = ("red", "yellow", "green", "turquoise", "blue", "violet", "pink")
_WIDTHS = ("fine", "medium", "broad")
_PITCHES = ("deep", "low", "middle", "high", "very high")
_COLORS_OF_SOUND = ("soft", "warm", "bright")


def describe(topic: int, style: int, timbre: int, *, num_styles: int, num_timbres: int) -> str:
    """A sentence for people about what an item's words, picture and sound are drawn of.

    Encoders read the words, the picture and the sound themselves, and never this.
    """
    hue = _HUES[style * len(_HUES) // num_styles]
    pitch = _PITCHES[timbre * len(_PITCHES) // num_timbres]
    return (
        f"A story {_PLACES[topic]}; {_WIDTHS[style % 3]} {hue} stripes; "
        f"a {pitch}, {_COLORS_OF_SOUND[timbre % 3]} tone."
    )


def picture(style: int, num_styles: int, rng: np.random.Generator) -> bytes:
    """Draws stripes in the style's hue, direction and width.

    Returns:
      JPEG bytes, 64 x 64 pixels.
    """
    import cv2

    share = style / num_styles
    angle = np.pi * share + rng.normal(0, 0.05)
    wavelength = 6.0 + 4.0 * (style % 3)
    y, x = np.mgrid[:PICTURE_SIDE, :PICTURE_SIDE]
    phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength
    stripes = 0.5 + 0.5 * np.sin(phase + rng.uniform(0, 2 * np.pi))
    hsv = np.empty([PICTURE_SIDE, PICTURE_SIDE, 3], np.float32)
    hsv[..., 0] = 360 * ((share + rng.normal(0, 0.01)) % 1)
    hsv[..., 1] = 0.5 + 0.3 * stripes
    hsv[..., 2] = (0.45 + 0.45 * stripes) * rng.uniform(0.8, 1.1)
    pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) + rng.normal(0, 0.08, hsv.shape)
    done, data = cv2.imencode(".jpg", np.clip(pixels * 255, 0, 255).astype(np.uint8))
    assert done, "OpenCV is built with JPEG"
    return data.tobytes()


def sound(timbre: int, num_timbres: int, rng: np.random.Generator) -> bytes:
    """Draws a tone of the timbre's pitch, overtones and tremolo.

    Returns:
      WAV bytes, 1 s of 16-bit mono at 16 kHz.
    """
    time = np.arange(round(SAMPLE_RATE_HZ * CLIP_SECONDS)) / SAMPLE_RATE_HZ
    # Three octaves hold all timbres; an item is off its pitch by half a semitone at most.
    pitch_hz = 180 * 2 ** (3 * timbre / num_timbres + rng.uniform(-1, 1) / 24)
    decay = (0.3, 0.6, 0.9)[timbre % 3]
    tone = np.zeros_like(time)
    for overtone in range(1, 7):
        tone += decay ** (overtone - 1) * np.sin(
            2 * np.pi * overtone * pitch_hz * time + rng.uniform(0, 2 * np.pi)
        )
    tremolo_hz = 2 + 2 * timbre
    tone *= 1 + 0.5 * np.sin(2 * np.pi * tremolo_hz * time + rng.uniform(0, 2 * np.pi))
    samples = tone / np.abs(tone).max() * rng.uniform(0.4, 0.8) + rng.normal(0, 0.03, len(time))
    pcm = np.clip(samples * 32767, -32768, 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
    return out.getvalue()
