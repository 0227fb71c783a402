"""The versions of one model: which are on disk, which are served, and how they are swapped.

    BASE_PATH/<number>/saved_model.pb

A new version is loaded and warmed up first; only then are the versions dropped that the policy no
longer wants, each after its last request. A number that failed to load is not tried again: the old
version keeps serving until another one appears.
"""

import collections
import contextlib
import gc
import logging
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grpc
from grpc import StatusCode

from serving.local_server.models.models_config import (
    ModelSettings,
    version_folders,
    wanted_versions,
)
from serving.local_server.models.servable import Servable
from serving.local_server.refusals import Refusal

_log = logging.getLogger(__name__)


class VersionStatus(NamedTuple):
    """The state of one version: START, LOADING, AVAILABLE, UNLOADING or END, and why."""

    version: int
    state: str
    code: grpc.StatusCode = StatusCode.OK
    text: str = ""


class Model:
    """One model's versions. `poll` is called by one thread at a time; all else by many.

    Attributes:
      settings: may be replaced; the next `poll` applies it. None drops all versions.
    """

    def __init__(self, settings: ModelSettings, load: Callable[[str, int, pathlib.Path], Servable]):
        self.name = settings.name
        self.settings: ModelSettings | None = settings
        self._load_servable = load
        self._lock = threading.Lock()
        self._statuses: dict[int, VersionStatus] = {}
        self._available: dict[int, Servable] = {}
        # Dropped, but still held by requests; and how many requests hold each version.
        self._unloading: dict[int, Servable] = {}
        self._held: collections.Counter[int] = collections.Counter()
        self._has_garbage = False
        self._complaint = ""

    def poll(self) -> None:
        """Looks at the folder once, and loads and unloads versions accordingly."""
        wanted: dict[int, pathlib.Path] = {}
        if self.settings is not None:
            try:
                folders = version_folders(self.settings.base_path)
            except OSError as error:
                self._complain(f"{self.name}: cannot read {self.settings.base_path}: {error}")
                return
            chosen = wanted_versions(self.settings.policy, folders)
            wanted = {version: folders[version] for version in sorted(chosen, reverse=True)}
        self._complaint = ""
        missing = [version for version in wanted if self._may_load(version)]
        for version in missing:
            self._set(VersionStatus(version, "START"))
        for version in missing:
            self._load(version, wanted[version])
        # A version that fails to load must not replace one that serves.
        if not wanted or wanted.keys() & self._available.keys():
            self._unload_all_but(wanted.keys())
        if self._has_garbage:
            self._has_garbage = False
            # A loaded model refers to itself; its memory would wait for the next full collection.
            gc.collect()

    @contextlib.contextmanager
    def hold(self, version: int | None) -> Iterator[Servable]:
        """Yields an available version, the highest for None, and keeps it to the end of the block.

        Raises:
          Refusal: when there is none.
        """
        with self._lock:
            chosen = max(self._available, default=-1) if version is None else version
            servable = self._available.get(chosen)
            if servable is None:
                raise not_found(self.name, version)
            self._held[chosen] += 1
        try:
            yield servable
        finally:
            with self._lock:
                self._held[chosen] -= 1
                if chosen in self._unloading and not self._held[chosen]:
                    self._end(chosen)

    def statuses(self) -> list[VersionStatus]:
        """Returns every version ever managed, the newest first."""
        with self._lock:
            return [self._statuses[version] for version in sorted(self._statuses, reverse=True)]

    def available(self) -> list[int]:
        """Returns the versions that are served, the newest first."""
        with self._lock:
            return sorted(self._available, reverse=True)

    def _may_load(self, version: int) -> bool:
        if version in self._available or version in self._unloading:
            return False
        status = self._statuses.get(version)
        return status is None or status.code is StatusCode.OK

    def _load(self, version: int, path: pathlib.Path) -> None:
        self._set(VersionStatus(version, "LOADING"))
        try:
            servable = self._load_servable(self.name, version, path)
        except Refusal as refusal:
            self._set(VersionStatus(version, "END", refusal.code, refusal.text))
            _log.error("%s/%d failed to load: %s", self.name, version, refusal.text)
            return
        except Exception as error:  # Whatever the error, the number is not tried again.
            self._set(VersionStatus(version, "END", StatusCode.UNKNOWN, repr(error)))
            _log.exception("%s/%d failed to load", self.name, version)
            return
        with self._lock:
            self._available[version] = servable
            self._statuses[version] = VersionStatus(version, "AVAILABLE")
        _log.info("%s/%d is available", self.name, version)

    def _unload_all_but(self, kept: collections.abc.Set[int]) -> None:
        with self._lock:
            for version in self._available.keys() - kept:
                self._unloading[version] = self._available.pop(version)
                self._statuses[version] = VersionStatus(version, "UNLOADING")
                if not self._held[version]:
                    self._end(version)

    def _end(self, version: int) -> None:
        """Drops what no request holds; the lock is held."""
        del self._unloading[version], self._held[version]
        self._statuses[version] = VersionStatus(version, "END")
        self._has_garbage = True
        _log.info("%s/%d is unloaded", self.name, version)

    def _set(self, status: VersionStatus) -> None:
        with self._lock:
            self._statuses[status.version] = status

    def _complain(self, complaint: str) -> None:
        """Logs a problem once, not at every poll."""
        if complaint != self._complaint:
            _log.error("%s", complaint)
        self._complaint = complaint


def not_found(name: str, version: int | None) -> Refusal:
    """Returns the refusal of a request for a model or a version that is not served."""
    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return Refusal(StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
