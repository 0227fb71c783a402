"""`manifest.json` and `schema.json`: what a dataset directory says of itself, and if it holds."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import read_sealed
from mmrec_tf.schema import Schema

FORMAT = 3
# Titles and descriptions for people, by item id; no model reads them.
NAMES = "names.json"
AGAIN = 'Write the dataset again with "python -m data.prepare".'


def read_manifest(directory: str | pathlib.Path) -> dict[str, Any]:
    """Reads `manifest.json`: `format`, `sha256`, `source`, `split_rule`, `counts`, `quarantine`,
    `content`, `files` and `versions`, as `docs/dataset_format.md` describes them.

    Raises:
      DatasetError: when the directory holds no dataset, or one of another format.
    """
    directory = pathlib.Path(directory)
    manifest = _read_json(directory, "manifest.json")
    if manifest.get("format") != FORMAT:
        raise DatasetError(
            f"{directory}: wanted a dataset of format {FORMAT}; got format "
            f"{manifest.get('format')!r}. Prepare it again from its source with "
            '"python -m data.prepare".'
        )
    if not isinstance(manifest.get("files"), dict):
        raise DatasetError(f"{directory / 'manifest.json'}: lists no files. {AGAIN}")
    return manifest


def read_schema(directory: str | pathlib.Path) -> Schema:
    """Reads `schema.json`.

    Raises:
      DatasetError: when it is missing or does not fit `mmrec_tf.schema.Schema`.
    """
    directory = pathlib.Path(directory)
    value = _read_json(directory, "schema.json")
    try:
        return Schema.from_json(value)
    except DatasetError as error:
        raise DatasetError(f"{directory / 'schema.json'}: {error}") from error


def verify(directory: str | pathlib.Path, *, full: bool = False) -> dict[str, Any]:
    """Checks that the files of a dataset directory are those that its manifest lists.

    Args:
      directory: a dataset directory.
      full: also hash every byte; otherwise only presence and sizes are compared, and the hashes of
        the files beside the shards, whose records carry checksums of their own.

    Returns:
      The manifest.

    Raises:
      DatasetError: naming the first file that is missing, has another size or other content.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    for name, entry in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise DatasetError(f"{path}: missing, though the manifest lists it. {AGAIN}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DatasetError(
                f"{path}: holds {size} bytes; the manifest says {entry['bytes']}. {AGAIN}"
            )
        if (full or "/" not in name) and sha256(path) != entry["sha256"]:
            raise DatasetError(
                f"{path}: its content is not what was written (another sha256). {AGAIN}"
            )
    return manifest


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One SHA-256 for a whole directory, from the names and hashes of its files."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]['sha256']}\n".encode())
    return digest.hexdigest()


def _read_json(directory: pathlib.Path, name: str) -> dict[str, Any]:
    path = directory / name
    try:
        value = read_sealed(path)
    except OSError as error:
        raise DatasetError(
            f"{directory}: wanted a dataset directory; {name}: {error.strerror}. "
            'Make one with "python -m data.prepare".'
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path}: wanted JSON; {error}. {AGAIN}") from error
    return value
