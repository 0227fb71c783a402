"""The versions in an export directory."""

import os
import pathlib

from mmrec_tf.errors import ServingError


def newest_versions(export: str | os.PathLike[str]) -> dict[str, tuple[int, pathlib.Path]]:
    """The newest version of every servable of an export, with its folder.

    Raises:
      ServingError: when there is none.
    """
    # Imported here because loading TensorFlow would delay --help.
    from serving.local_server.models.models_config import version_folders

    root = pathlib.Path(export)
    found = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        versions = version_folders(folder) if folder.is_dir() else {}
        if versions and not folder.name.startswith("."):
            found[folder.name] = (max(versions), versions[max(versions)])
    if not found:
        raise ServingError(
            f"{export}: wanted folders such as recommender/1/ below it; found none. "
            f'Write them with "mmrec-tf export RUN --out {export}".'
        )
    return found
