"""The images of containers: named in serving/deploy/.env alone, from which the copies are written.

    make images        # says which are not pinned by a digest; fails when a copy says otherwise
    make pin-images    # looks the digests up, and writes them to .env and its copies

A tag can be moved to another image, a digest cannot. docker compose reads .env itself; manifests of
Kubernetes and Dockerfiles cannot, and hold copies. `--write` brings them in line with .env, for
example after another version was named there.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmrec_tf.errors import MmrecError, run_command
from mmrec_tf.records.files import write_text

DEPLOY = pathlib.Path(__file__).resolve().parents[1] / "serving/deploy"
SOURCE = ".env"
# Manifests and Dockerfiles with a copy of an image, by the variable that names it.
COPIES = {
    "SERVING_IMAGE": ("kubernetes/base/kustomization.yaml",),
    "SERVING_GPU_IMAGE": ("kubernetes/gpu/kustomization.yaml",),
    "REDIS_IMAGE": ("kubernetes/gateway/kustomization.yaml",),
    "PYTHON_IMAGE": ("gateway/Dockerfile", "tuning/Dockerfile"),
}
# What a registry is asked by, the first that is installed; the image comes last.
ASKED_BY = (
    ("crane", "digest"),
    ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"),
)
_LINE = re.compile(r"^(\w+_IMAGE)=([\w./-]+):([\w.-]+)(?:@(sha256:[0-9a-f]{64}))?$")


class Image(NamedTuple):
    """An image: its name, the tag that people read, and its digest; "" where none is known."""

    name: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


def read_images(folder: pathlib.Path = DEPLOY) -> dict[str, Image]:
    """The images that .env names, by variable.

    Raises:
      MmrecError: for a line that names none.
    """
    found = {}
    for line in (folder / SOURCE).read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.match(line)
        if parts is None:
            raise MmrecError(
                f"{folder / SOURCE}: wanted lines such as REDIS_IMAGE=redis:7.4.7, with "
                f"@sha256:... behind where the digest is known; got {line!r}."
            )
        found[parts[1]] = Image(parts[2], parts[3], parts[4] or "")
    return found


def copies(images: Mapping[str, Image], folder: pathlib.Path = DEPLOY) -> dict[pathlib.Path, str]:
    """What the files with a copy have to hold.

    Args:
      images: by variable.
      folder: where the files are.

    Raises:
      MmrecError: for a file that has no place for its image.
    """
    texts: dict[pathlib.Path, str] = {}
    for variable, names in COPIES.items():
        image = images[variable]
        for name in names:
            path = folder / name
            text = texts.get(path) or path.read_text(encoding="utf-8")
            if path.name == "Dockerfile":
                pattern, line = r"^FROM \S+$", f"FROM {image}"
            else:
                # No tag beside a digest, as kustomize keeps one where the other stands.
                pinned = f"digest: {image.digest}" if image.digest else f"newTag: {image.tag}"
                pattern = rf"^  - name: {re.escape(image.name)}\n    (?:newTag|digest): \S+$"
                line = f"  - name: {image.name}\n    {pinned}"
            texts[path], number = re.subn(pattern, line, text, flags=re.M)
            if number != 1:
                raise MmrecError(f"{path}: wanted one place for {image.name}; got {number}.")
    return texts


def differing(folder: pathlib.Path = DEPLOY) -> list[str]:
    """The copies that say something else than .env."""
    wanted = copies(read_images(folder), folder)
    return sorted(
        path.relative_to(folder).as_posix()
        for path, text in wanted.items()
        if path.read_text(encoding="utf-8") != text
    )


def look_up(image: Image) -> str:
    """The digest of what a registry has under a tag.

    Raises:
      MmrecError: where nothing that asks is installed, or the registry gives none.
    """
    installed = [how for how in ASKED_BY if shutil.which(how[0])]
    if not installed:
        raise MmrecError(
            "images: wanted crane, or docker with buildx, to ask registries; neither is installed."
        )
    asked = [*installed[0], f"{image.name}:{image.tag}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        said = (done.stderr.strip() or digest).splitlines() or ["it said nothing"]
        raise MmrecError(f"images: {' '.join(asked)} gave no digest ({said[-1]}).")
    return digest


def write(images: Mapping[str, Image], folder: pathlib.Path = DEPLOY) -> None:
    """Writes images to .env, and from there to the copies."""
    texts = copies(images, folder)
    path = folder / SOURCE
    lines = path.read_text(encoding="utf-8").splitlines()
    named = [(line, line.partition("=")[0]) for line in lines]
    new = [f"{name}={images[name]}" if name in images else line for line, name in named]
    for file, text in {path: "\n".join(new) + "\n", **texts}.items():
        write_text(file, text)


def _main(parsed: argparse.Namespace) -> int:
    images = read_images()
    if parsed.pin:
        images = {name: one._replace(digest=look_up(one)) for name, one in images.items()}
    if parsed.pin or parsed.write:
        write(images)
    other = differing()
    for path in other:
        print(
            f"images: serving/deploy/{path} says otherwise than .env, which counts; bring it in "
            "line with python -m release.images --write."
        )
    loose = [str(image) for image in images.values() if not image.digest]
    print(
        f"images: {len(loose)} of {len(images)} are not pinned by a digest ({', '.join(loose)}); "
        "make pin-images does it where a registry can be reached."
        if loose
        else f"images: all {len(images)} are pinned by their digests."
    )
    return int(bool(other) or (parsed.strict and bool(loose)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(prog="release.images", description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--pin", action="store_true", help="look the digests up and write them")
    action.add_argument("--write", action="store_true", help="write the copies from .env")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when one is not pinned")
    parsed = parser.parse_args(arguments)
    return run_command(lambda: _main(parsed), name="release.images")


if __name__ == "__main__":
    sys.exit(main())
