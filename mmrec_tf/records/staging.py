"""The folder where a dataset directory is written until it is whole."""

import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import move_folder, write_json
from mmrec_tf.records.manifest import read_manifest

# What an unfinished directory holds, beside JSON files.
_OURS = ("items", "users", "interactions", "graph", "work", "quarantine.csv", "mended.csv")


class PartialDirectory:
    """`DIRECTORY.partial`, held by one process at a time, kept from one to the next of one job.

    Args:
      directory: where the dataset is to stand.
      overwrite: replace the dataset directory that stands there.
      job: all that the content depends on, as JSON; None for a writing that cannot be resumed.

    Attributes:
      path: the folder.
      items: in it, the folder for item shards.
      work: in it, a folder for whatever else is to outlive a kill.

    Raises:
      DatasetError: when something stands at `directory` that may not be replaced, or another
        process writes there.
    """

    def __init__(
        self, directory: str | pathlib.Path, *, overwrite: bool, job: Mapping[str, Any] | None
    ):
        # Resolved, because a link cannot be renamed over.
        self._directory = pathlib.Path(directory).resolve()
        self._shown = directory
        self._overwrite = overwrite
        check_place(self._shown, overwrite=self._overwrite)
        # Beside the target, because a rename works only within one file system.
        self.path = self._directory.with_name(f"{self._directory.name}.partial")
        self.items = self.path / "items"
        self.work = self.path / "work"
        self._in_place = False
        self._lock = self._hold()
        self._clear(job)

    @property
    def reports(self) -> pathlib.Path:
        """The folder for the reports of item shards."""
        return self.work / "reports"

    def release(self) -> None:
        """Lets other processes in; what no job can go on with is removed."""
        try:
            # Once in place, a folder of this name is another process's.
            if not self._in_place and not any(self.reports.glob("*.json")):
                shutil.rmtree(self.path, ignore_errors=True)
        finally:
            os.close(self._lock)

    def _hold(self) -> int:
        """Makes the folder for what is not finished, and keeps other processes out of it.

        Returns:
          A file descriptor; the lock goes when it is closed, also by a kill.
        """
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # another process has just finished with it
            except OSError as error:
                raise DatasetError(
                    f"{self._shown}: cannot be written; {error.strerror}. Name another directory."
                ) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise DatasetError(
                    f"{self._shown}: another process writes there now. Wait for it, or name "
                    "another directory."
                ) from error
            if self.path.exists() and os.path.samestat(os.fstat(lock), self.path.stat()):
                return lock
            os.close(lock)

    def _clear(self, job: Mapping[str, Any] | None) -> None:
        """Removes what a killed process left, unless it can be gone on with."""
        if not all(path.name in _OURS or path.suffix == ".json" for path in self._left()):
            os.close(self._lock)
            raise DatasetError(
                f"{self.path}: wanted what an unfinished writing left, or nothing; it holds "
                "something else. Move it away, or name another directory."
            )
        state = self.work / "job.json"
        job = json.loads(json.dumps(job))  # as it will be read back
        try:
            resumed = bool(job) and json.loads(state.read_text(encoding="utf-8")) == job
        except (OSError, ValueError):
            resumed = False
        for path in self._left():
            if resumed and path in (self.items, self.work):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for folder in (self.items, self.reports):
            folder.mkdir(parents=True, exist_ok=True)
        if not resumed:
            write_json(state, job or {})
        self.sweep()

    def _left(self) -> list[pathlib.Path]:
        return [path for path in self.path.iterdir() if not path.name.startswith(".")]

    def sweep(self) -> None:
        """Removes the files aside of processes that were killed."""
        for path in self.path.rglob(".*"):
            path.unlink(missing_ok=True)

    def put_into_place(self) -> None:
        """Renames the folder to where it belongs."""
        check_place(self._shown, overwrite=self._overwrite)
        move_folder(self.path, self._directory)
        self._in_place = True


def check_place(directory: str | pathlib.Path, *, overwrite: bool) -> None:
    """Refuses to replace what is not a dataset, or what was not asked to be replaced.

    Raises:
      DatasetError: when nothing may be written at `directory`.
    """
    place = pathlib.Path(directory)
    if not place.exists():
        return
    if not place.is_dir():
        raise DatasetError(f"{directory}: wanted a directory to write; it is a file.")
    if not any(place.iterdir()):
        return
    try:
        read_manifest(place.resolve())
    except DatasetError as error:
        # A dataset of another format may be replaced as well; anything else is not ours.
        if "of format" not in str(error):
            raise DatasetError(
                f"{directory}: wanted a new or empty directory, or a dataset to replace; it "
                "holds something else. Name another directory."
            ) from error
    if not overwrite:
        raise DatasetError(
            f"{directory}: a dataset stands there already. Name another directory, or "
            "replace it with --overwrite."
        )
