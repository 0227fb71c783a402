"""The labels `stable` and `canary` in a `models.config`, which a server reads again and again."""

import pathlib
import re
from collections.abc import Mapping, Sequence

from mmrec_tf.errors import ConfigError
from mmrec_tf.records.files import write_text

MODELS = ("recommender", "encoder")
STABLE, CANARY = "stable", "canary"
_MODEL = re.compile(r'name:\s*"([^"]+)"\s*base_path:\s*"([^"]+)"')
_LABEL = re.compile(r'version_labels\s*{\s*key:\s*"([^"]+)"\s*value:\s*(\d+)\s*}')


class Labels:
    """Which versions are served, and under which labels; both models have the same.

    A label moves only to a version that is loaded, so `load` comes first, and `move` after the
    server says that it is there. Without a canary its label stands for the stable version: a caller
    that asks for it is answered all the same. Other labels in the file stay as they are; comments
    do not.
    """

    def __init__(self, path: str | pathlib.Path):
        """Describes them.

        Args:
          path: of the `models.config`.
        """
        self.path = pathlib.Path(path)

    def create(self, models: str | pathlib.Path, **versions: int) -> None:
        """Writes a file where there is none.

        Args:
          models: the folder of `recommender/` and `encoder/` as the server sees it.
          **versions: by label.
        """
        places = [(name, f"{str(models).rstrip('/')}/{name}") for name in MODELS]
        self._write(places, versions, [])

    def read(self) -> dict[str, int]:
        """Versions by label.

        Raises:
          ConfigError: when the file cannot be read, or the models do not have the same labels.
        """
        return self._read()[1]

    def load(self, version: int) -> None:
        """Has a version loaded beside those that have labels."""
        places, labels = self._read()
        self._write(places, labels, [version])

    def move(self, **versions: int) -> None:
        """Moves labels; a version that has none any more is unloaded."""
        places, labels = self._read()
        self._write(places, {**labels, **versions}, [])

    def _read(self) -> tuple[list[tuple[str, str]], dict[str, int]]:
        try:
            text = self.path.read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}.") from error
        text = re.sub(r"#.*", "", text)
        places = _MODEL.findall(text)
        found = [
            {name: int(number) for name, number in _LABEL.findall(part)}
            for part in re.split(r"\bconfig\s*{", text)[1:]
        ]
        if sorted(name for name, _ in places) != sorted(MODELS) or found[0] != found[1]:
            raise ConfigError(
                f"{self.path}: wanted name, base_path and the same version_labels of "
                f"{' and '.join(MODELS)}; got {found}. See docs/rollout.md for the form."
            )
        return places, found[0]

    def _write(
        self, places: Sequence[tuple[str, str]], labels: Mapping[str, int], more: Sequence[int]
    ) -> None:
        chosen = " ".join(f"versions: {n}" for n in sorted({*labels.values(), *more}))
        lines = ["model_config_list {"]
        for model, base_path in places:
            lines += [
                "  config {",
                f'    name: "{model}"',
                f'    base_path: "{base_path}"',
                '    model_platform: "tensorflow"',
                f"    model_version_policy {{ specific {{ {chosen} }} }}",
                *(
                    f'    version_labels {{ key: "{label}" value: {number} }}'
                    for label, number in sorted(labels.items())
                ),
                "  }",
            ]
        write_text(self.path, "\n".join([*lines, "}", ""]))
