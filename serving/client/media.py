"""Files of pictures, sounds and videos, made into what `python -m data.prepare` makes of them."""

import os
import pathlib
from collections.abc import Callable

from mmrec_tf.errors import ConfigError, MediaError

MOST_CONTENT_BYTES = 16 * 2**20


def prepare_file(
    path: str | os.PathLike[str], kind: str, *, remark: Callable[[str], object] | None = None
) -> bytes:
    """What preparation, with its default options, makes of a file.

    Args:
      path: of the file.
      kind: "image" or "audio".
      remark: called with what was mended or left out of a sound.

    Returns:
      Bytes of a JPEG or of a WAV file.

    Raises:
      ConfigError: when it cannot be read, or preparation refuses it.
    """
    # Imported here because their decoders would delay --help, and whoever sends bytes needs none.
    from mmrec_tf.media import audio, image

    if kind not in ("image", "audio"):
        raise ConfigError(
            f"{path}: wanted the bytes of a file, as only those of image, audio and video are "
            f"prepared here; got a path for {kind}."
        )
    limit = image.MAX_BYTES if kind == "image" else audio.MAX_BYTES
    data = read_file(path, most_bytes=limit)
    try:
        return image.prepare(data) if kind == "image" else audio.prepare(data, remark=remark)
    except MediaError as error:
        what = "a picture" if kind == "image" else "a sound"
        raise ConfigError(f"{path}: wanted {what} that can be read; {error}.") from error


def frames(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None = None,
    pick: str = "spread",
    remark: Callable[[str], object] | None = None,
) -> list[bytes]:
    """What preparation, with its default options, makes of the pictures of a video's file.

    Args:
      path: of a video, or of an animated GIF or WebP.
      num_frames: the most frames; None for as many as preparation takes by default.
      pick: "spread" or "scenes", as `--video-pick` of the preparation.
      remark: called with what was left out.

    Returns:
      Bytes of JPEG files in the order of the clip, as `embed_item(video=[...])` takes them.

    Raises:
      ConfigError: when it cannot be read, or preparation refuses it.
    """
    from mmrec_tf.media import video

    data = read_file(path, most_bytes=video.MAX_BYTES)
    try:
        clip = video.prepare(
            data, num_frames=num_frames or video.NUM_FRAMES, pick=pick, remark=remark
        )
    except MediaError as error:
        raise ConfigError(f"{path}: wanted a video that can be read; {error}.") from error
    return video.split_frames(clip)


def sound_track(
    path: str | os.PathLike[str], *, remark: Callable[[str], object] | None = None
) -> bytes:
    """What preparation makes of the sound of a video's file, as `embed_item(audio=[...])` takes it.

    Returns:
      Bytes of a WAV file; b"" for a video without sound, or a silent one.

    Raises:
      ConfigError: when it cannot be read.
    """
    from mmrec_tf.media import audio, video

    data = read_file(path, most_bytes=video.MAX_BYTES)
    try:
        return video.sound_track(data, prepare=audio.prepare, remark=remark)
    except MediaError as error:
        if str(error).startswith(("silent", video.NO_SOUND)):
            return b""
        raise ConfigError(f"{path}: wanted a sound that can be read; {error}.") from error


def read_file(path: str | os.PathLike[str], *, most_bytes: int | None = None) -> bytes:
    """A file's bytes, as they are; by default no more than a server takes.

    Raises:
      ConfigError: when it cannot be read, or is too large.
    """
    most_bytes = MOST_CONTENT_BYTES if most_bytes is None else most_bytes
    try:
        with pathlib.Path(path).open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(content) > most_bytes:
        raise ConfigError(
            f"{path}: wanted at most {most_bytes // 2**20} MiB; it is larger. Make the "
            "picture smaller or the sound shorter: no model looks at so much."
        )
    return content
