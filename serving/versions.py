"""Which versions lie on disk, which of them are served, and the swap from one to the next.

    EXPORT/<model>/<number>/saved_model.pb

The policy is TensorFlow Serving's default one: serve the highest number. A new version is loaded
and warmed up first; only then is the old one dropped, and requests that hold it finish with it. A
number that failed to load is spent: the old version keeps serving until a higher one appears.
"""

import gc
import logging
import os
import pathlib
import re
import threading
from typing import NamedTuple

import grpc
from grpc import StatusCode

from mmrec_tf.errors import ServingError
from serving.servables import Refusal, Servable

_LARGEST_INT64 = 2**63 - 1
_log = logging.getLogger(__name__)


class VersionStatus(NamedTuple):
    """Where one version stands: START, LOADING, AVAILABLE, UNLOADING or END, and why."""

    version: int
    state: str
    code: grpc.StatusCode = StatusCode.OK
    text: str = ""


class Model:
    """One model's folder. `poll` is called by one thread; all else by many."""

    def __init__(self, name: str, base_path: pathlib.Path):
        self.name = name
        self.base_path = base_path
        self._lock = threading.Lock()
        self._statuses: dict[int, VersionStatus] = {}
        self._available: dict[int, Servable] = {}
        self._complaint = ""

    def poll(self) -> None:
        """Looks at the folder once, and loads and unloads what that asks for."""
        try:
            folders = version_folders(self.base_path)
        except OSError as error:
            self._complain(f"{self.name}: cannot read {self.base_path}: {error}")
            return
        self._complaint = ""
        if not folders:
            self._unload_all_but(None)
            return
        newest = max(folders)
        if newest not in self._available and not self._spent(newest):
            self._load(newest, folders[newest])
        if newest in self._available:
            self._unload_all_but(newest)

    def find(self, version: int | None) -> Servable:
        """Returns a version that is available; the highest for None."""
        with self._lock:
            chosen = max(self._available, default=None) if version is None else version
            servable = None if chosen is None else self._available.get(chosen)
        if servable is None:
            raise _not_found(self.name, version)
        return servable

    def statuses(self) -> list[VersionStatus]:
        """Returns every version ever managed, the newest first."""
        with self._lock:
            return [self._statuses[version] for version in sorted(self._statuses, reverse=True)]

    def _spent(self, version: int) -> bool:
        status = self._statuses.get(version)
        return status is not None and status.code is not StatusCode.OK

    def _load(self, version: int, path: pathlib.Path) -> None:
        self._set(VersionStatus(version, "LOADING"))
        try:
            servable = Servable(self.name, version, path)
        except Refusal as refusal:
            self._set(VersionStatus(version, "END", refusal.code, refusal.text))
            _log.error("%s/%d failed to load: %s", self.name, version, refusal.text)
            return
        except Exception as error:  # Whatever a folder holds, its number is spent, not retried.
            self._set(VersionStatus(version, "END", StatusCode.UNKNOWN, repr(error)))
            _log.exception("%s/%d failed to load", self.name, version)
            return
        with self._lock:
            self._available[version] = servable
            self._statuses[version] = VersionStatus(version, "AVAILABLE")
        _log.info("%s/%d is available", self.name, version)

    def _unload_all_but(self, kept: int | None) -> None:
        for version in [version for version in self._available if version != kept]:
            with self._lock:
                del self._available[version]
                self._statuses[version] = VersionStatus(version, "END")
            _log.info("%s/%d is unloaded", self.name, version)
            # A loaded model refers to itself; its memory would wait for the next full collection.
            gc.collect()

    def _set(self, status: VersionStatus) -> None:
        with self._lock:
            self._statuses[status.version] = status

    def _complain(self, complaint: str) -> None:
        """Logs what is wrong once, not once a poll."""
        if complaint != self._complaint:
            _log.error("%s", complaint)
        self._complaint = complaint


class Models:
    """All servable folders of an export directory."""

    def __init__(self, export: str | os.PathLike):
        """Finds the models; loads nothing.

        Raises:
          ServingError: when the directory is missing or holds no `<model>/<number>/`.
        """
        root = pathlib.Path(export).absolute()
        if not root.is_dir():
            raise ServingError(
                f'{export}: no such directory. Write one with "mmrec-tf export RUN --out {export}".'
            )
        self._models = {
            folder.name: Model(folder.name, folder)
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".") and version_folders(folder)
        }
        if not self._models:
            raise ServingError(
                f"{export}: wanted folders such as recommender/1/ below it; found none. "
                f'Write them with "mmrec-tf export RUN --out {export}".'
            )

    def load(self) -> None:
        """Loads the newest version of every model.

        Raises:
          ServingError: when one of them does not load, as the real server then does not start.
        """
        for model in self._models.values():
            model.poll()
        failed = [
            f"{{{{name: {model.name} version: {status.version}}} due to error: "
            f"{status.code.name}: {status.text}}}"
            for model in self._models.values()
            for status in model.statuses()
            if status.code is not StatusCode.OK
        ]
        if failed:
            raise ServingError(
                f"{len(failed)} servable(s) did not become available: {', '.join(failed)}. "
                "Export again under a higher version."
            )

    def poll(self) -> None:
        """Looks at every folder once; a failure is logged and leaves the old version serving."""
        for model in self._models.values():
            try:
                model.poll()
            except Exception:  # The poll must outlive whatever one folder does to it.
                _log.exception("%s: the poll failed", model.name)

    def find(self, name: str, *, version: int | None = None, label: str | None = None) -> Servable:
        """Returns the servable that a ModelSpec asks for.

        Raises:
          Refusal: with TensorFlow Serving's code and text.
        """
        if not name:
            raise Refusal(StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if label is not None:
            raise Refusal(
                StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
            )
        if name not in self._models:
            raise _not_found(name, version)
        return self._models[name].find(version)

    def statuses(self, name: str, *, version: int | None = None) -> list[VersionStatus]:
        """Returns the versions of a model that were ever managed, the newest first.

        Raises:
          Refusal: when there is none.
        """
        statuses = self._models[name].statuses() if name in self._models else []
        if version is not None:
            statuses = [status for status in statuses if status.version == version]
            if not statuses:
                raise Refusal(
                    StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}"
                )
        if not statuses:
            raise Refusal(StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        return statuses

    def names(self) -> list[str]:
        """Returns what is served now, as `recommender/1`."""
        return [
            f"{name}/{status.version}"
            for name, model in self._models.items()
            for status in model.statuses()
            if status.state == "AVAILABLE"
        ]


def version_folders(base_path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Returns the folders below `base_path` whose whole name is a number, by that number.

    Raises:
      OSError: when `base_path` cannot be read.
    """
    return {
        int(folder.name): folder
        for folder in sorted(pathlib.Path(base_path).iterdir())
        if re.fullmatch(r"[0-9]+", folder.name)
        and int(folder.name) <= _LARGEST_INT64
        and folder.is_dir()
    }


def _not_found(name: str, version: int | None) -> Refusal:
    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return Refusal(StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
