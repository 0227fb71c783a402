"""The hashes of an export's files, in the form of `sha256sum`: `SHA256SUMS` in a version folder.

A container that has no Python compares them with `sha256sum --check`. Whoever can write the files
can write the hashes, too: against such a one the file itself has to be signed (SECURITY.md).
"""

import pathlib
import re

from mmrec_tf.errors import ExportError
from mmrec_tf.records.files import write_text
from mmrec_tf.records.manifest import sha256

CHECKSUMS_FILE = "SHA256SUMS"
# A signature of the file stands beside it: SHA256SUMS.sig, .asc, .pem.
_BESIDE = re.compile(r"SHA256SUMS(\.\w+)?")


def write_checksums(folder: pathlib.Path) -> pathlib.Path:
    """Writes the hashes of all files of a version folder; returns where."""
    path = folder / CHECKSUMS_FILE
    write_text(path, "".join(f"{sha256(folder / name)}  {name}\n" for name in _files(folder)))
    return path


def compare_checksums(folder: str | pathlib.Path) -> list[str]:
    """What of a version folder is not as it was published: a line for each file.

    Raises:
      ExportError: when it has no hashes, or they cannot be read.
    """
    folder = pathlib.Path(folder)
    path = folder / CHECKSUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read: {error}.") from error
    wanted = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None:
            raise ExportError(f"{path}: wanted lines as of sha256sum; got {line!r:.80}.")
        wanted[match[2]] = match[1]
    found = _files(folder)
    changed = [name for name in found if name in wanted and sha256(folder / name) != wanted[name]]
    return [
        *(f"{name}: has changed" for name in changed),
        *(f"{name}: is missing" for name in sorted(wanted.keys() - set(found))),
        *(f"{name}: is not of this export" for name in found if name not in wanted),
    ]


def _files(folder: pathlib.Path) -> list[str]:
    """Everything in it that is no folder, by its path."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir())
        and not (path.parent == folder and _BESIDE.fullmatch(path.name))
    )
