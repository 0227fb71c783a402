"""Which models are served, from where, and which of their versions: a models.config, or a folder.

The messages and their refusals are TensorFlow Serving's: a ModelServerConfig with a
model_config_list, as `--model_config_file` and HandleReloadConfigRequest take it.
"""

import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from grpc import StatusCode
from tensorflow_serving.config import file_system_storage_path_source_pb2

from mmrec_tf.errors import ServingError
from serving.local_server import config_files
from serving.local_server.refusals import Refusal

PLATFORM = "tensorflow"
_LARGEST_INT64 = 2**63 - 1
_POLICY = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig


class ModelSettings(NamedTuple):
    """How one model is served.

    Attributes:
      name: the name in requests.
      base_path: the folder of its versions.
      policy: a ServableVersionPolicy; an empty one serves the highest version.
      labels: the version that each label stands for.
    """

    name: str
    base_path: pathlib.Path
    policy: Any = _POLICY.ServableVersionPolicy()
    labels: Mapping[str, int] = {}


def wanted_versions(policy: Any, versions: Collection[int]) -> set[int]:
    """Returns those of the versions on disk that a policy serves."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(versions)
    if choice == "specific":
        return set(versions) & set(policy.specific.versions)
    return set(sorted(versions)[-max(policy.latest.num_versions, 1) :])


def read(models_config: str | os.PathLike[str]) -> Any:
    """Reads a models.config.

    Returns:
      A ModelServerConfig, for `settings_of`.

    Raises:
      ConfigError: when the file is not a ModelServerConfig.
    """
    return config_files.read(models_config, "ModelServerConfig")


def settings_of(config: Any, *, known: Collection[str] = ()) -> list[ModelSettings]:
    """Checks a ModelServerConfig.

    Args:
      config: the message.
      known: names of the models that are served already.

    Raises:
      Refusal: with TensorFlow Serving's code and text.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise _invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    models = config.model_config_list.config
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise _invalid(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
    for model in models:
        # A URI is absolute, too, but only local files are supported here.
        if not os.path.isabs(model.base_path):
            raise _invalid(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
    for model in models:
        _check_platform(model, known)
    return [
        ModelSettings(
            model.name,
            pathlib.Path(model.base_path),
            model.model_version_policy,
            dict(model.version_labels),
        )
        for model in models
    ]


def _check_platform(model: Any, known: Collection[str]) -> None:
    if not model.model_platform:
        raise _invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    if model.model_platform == PLATFORM:
        return
    if model.name in known:
        raise _invalid(
            f"Illegal to change a model's platform. For model {model.name} platform was "
            f"{PLATFORM} and new platform requested is {model.model_platform}"
        )
    raise _invalid(f"Model {model.name} requests unsupported platform {model.model_platform}")


def folders_of(export: str | os.PathLike[str]) -> list[ModelSettings]:
    """Returns every model of an export directory, served in its highest version.

    Raises:
      ServingError: when the directory is missing or holds no `<model>/<number>/`.
    """
    root = pathlib.Path(export).absolute()
    if not root.is_dir():
        raise ServingError(
            f'{export}: no such directory. Write one with "mmrec-tf export RUN --out {export}".'
        )
    models = [
        ModelSettings(folder.name, folder)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and version_folders(folder)
    ]
    if not models:
        raise ServingError(
            f"{export}: wanted folders such as recommender/1/ below it; found none. "
            f'Write them with "mmrec-tf export RUN --out {export}".'
        )
    return models


def version_folders(base_path: str | os.PathLike[str]) -> dict[int, pathlib.Path]:
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


def _invalid(text: str) -> Refusal:
    return Refusal(StatusCode.INVALID_ARGUMENT, text)
