"""All models of a server: finding the one that a request means, and changing the set."""

import contextlib
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpc import StatusCode

from mmrec_tf.errors import ServingError
from serving.local_server.models import models_config
from serving.local_server.models.models_config import ModelSettings
from serving.local_server.models.servable import Servable
from serving.local_server.models.versions import Model, VersionStatus, not_found
from serving.local_server.refusals import Refusal

_log = logging.getLogger(__name__)


class Models:
    """The models that are served; every method may be called from many threads."""

    def __init__(
        self,
        settings: Sequence[ModelSettings],
        load: Callable[[str, int, pathlib.Path], Servable],
        *,
        labels_may_wait: bool = False,
    ):
        """Records the settings; loads nothing.

        Args:
          settings: of each model.
          load: makes a servable of a model's name, a version's number and its folder.
          labels_may_wait: whether a new label may name a version that is not available.
        """
        self._settings = settings
        self._load_servable = load
        self._labels_may_wait = labels_may_wait
        # Held while models or versions change; requests read the two tables without it, so these
        # are replaced, never changed.
        self._changing = threading.Lock()
        self._models: dict[str, Model] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._complaint = ""

    def load(self) -> None:
        """Loads what the settings ask for.

        Raises:
          ServingError: when a model cannot be served; the real server does not start then either.
        """
        try:
            with self._changing:
                failed = self._apply(self._settings)
        except Refusal as refusal:
            raise ServingError(
                f"Failed to start server. Error: {refusal.code.name}: {refusal.text}. "
                "Labels of versions that are yet to be loaded need "
                "--allow-version-labels-for-unavailable-models."
            ) from refusal
        if failed:
            raise ServingError(
                f"{len(failed)} servable(s) did not become available: {', '.join(failed)}. "
                "Export again under a higher version."
            )

    def poll(self) -> None:
        """Looks at every folder once; a failure is logged and leaves the old version serving."""
        with self._changing:
            for model in self._models.values():
                _poll(model)

    def reload(self, config: Any) -> None:
        """Replaces the set of models by that of a ModelServerConfig, and loads those new in it.

        Models that it leaves out are dropped. Labels move at once; a changed policy or folder of an
        existing model takes effect at the next poll.

        Raises:
          Refusal: with TensorFlow Serving's code and text. Nothing changes, unless a new model did
            not load.
        """
        with self._changing:
            served = [name for name, model in self._models.items() if model.settings is not None]
            failed = self._apply(models_config.settings_of(config, known=served))
        if failed:
            raise Refusal(
                StatusCode.UNKNOWN,
                f"{len(failed)} model(s) did not become available: "
                f"{{{''.join(f'{one}, ' for one in failed)}}}",
            )

    def reload_file(self, path: str | os.PathLike[str]) -> None:
        """Reads a models.config once more; one that cannot be used is logged and ignored."""
        try:
            self.reload(models_config.read(path))
            self._complaint = ""
        except Exception as error:  # The thread must survive whatever the file holds.
            complaint = f"{path} is ignored: {error}"
            if complaint != self._complaint:
                _log.error("%s", complaint)
            self._complaint = complaint

    def hold(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> contextlib.AbstractContextManager[Servable]:
        """Gives the servable that a ModelSpec asks for, and keeps it to the end of the block.

        Raises:
          Refusal: with TensorFlow Serving's code and text, here or when the block begins.
        """
        if not name:
            raise Refusal(StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            if version is None:
                raise Refusal(
                    StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
                )
        model = self._models.get(name)
        if model is None:
            raise not_found(name, version)
        return model.hold(version)

    def statuses(self, name: str, *, version: int | None = None) -> list[VersionStatus]:
        """Returns the versions of a model that were ever managed, the newest first.

        Raises:
          Refusal: when there is none.
        """
        model = self._models.get(name)
        statuses = model.statuses() if model is not None else []
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
            f"{name}/{version}"
            for name, model in self._models.items()
            for version in model.available()
        ]

    def _apply(self, settings: Sequence[ModelSettings]) -> list[str]:
        """Applies new settings; returns what failed to load of the new models."""
        labels = self._labels_of(settings)
        models = dict(self._models)
        added = []
        for one in settings:
            model = models.get(one.name)
            if model is None:
                model = models[one.name] = Model(one, self._load_servable)
            if model.settings is None or one.name not in self._models:
                added.append(model)
            model.settings = one
        dropped = [models[name] for name in models.keys() - {one.name for one in settings}]
        for model in dropped:
            model.settings = None
        self._models, self._labels = models, labels
        for model in [*added, *dropped]:
            _poll(model)
        return [text for model in added for text in _failures(model)]

    def _labels_of(self, settings: Sequence[ModelSettings]) -> dict[str, Mapping[str, int]]:
        for one in settings:
            model = self._models.get(one.name)
            available = model.available() if model is not None else []
            before = self._labels.get(one.name, {})
            for label, version in one.labels.items():
                may_wait = self._labels_may_wait and before.get(label, version) == version
                if version not in available and not may_wait:
                    raise Refusal(
                        StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {one.name}, which "
                        "is not currently available for inference",
                    )
        return {one.name: one.labels for one in settings}


def _poll(model: Model) -> None:
    try:
        model.poll()
    except Exception:  # The poll must survive any error in one folder.
        _log.exception("%s: the poll failed", model.name)


def _failures(model: Model) -> list[str]:
    failed = [
        f"{{{{name: {model.name} version: {status.version}}} due to error: "
        f"{status.code.name}: {status.text}}}"
        for status in model.statuses()
        if status.code is not StatusCode.OK
    ]
    if failed or model.available() or model.settings is None:
        return failed
    where = model.settings.base_path
    return [f"{{{{name: {model.name}}} due to error: NOT_FOUND: no version to serve in {where}}}"]
