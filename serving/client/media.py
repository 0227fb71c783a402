"""Files of pictures and sounds, prepared as `python -m data.prepare` prepares a catalog's."""

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
            f"{path}: wanted the bytes of a file, as only those of image and audio are prepared "
            f"here; got a path for {kind}."
        )
    limit = image.MAX_BYTES if kind == "image" else audio.MAX_BYTES
    data = read_file(path, most_bytes=limit)
    try:
        return image.prepare(data) if kind == "image" else audio.prepare(data, remark=remark)
    except MediaError as error:
        what = "a picture" if kind == "image" else "a sound"
        raise ConfigError(f"{path}: wanted {what} that can be read; {error}.") from error


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
