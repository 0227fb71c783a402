"""Writes, for each Python, a lock file with the hash of every archive, and a bill of materials.

    make lock

pip resolves requirements.txt without installing anything; its report names each archive, with its
hash and license. The archives are those for the machine that this runs on: Linux on x86-64.
"""

import argparse
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from mmrec_tf.errors import ConfigError, MmrecError, run_command
from mmrec_tf.records.files import write_json, write_text

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent / "requirements.txt"
PYTHONS = ("3.11", "3.12")
LONGEST_LICENSE = 80


def lock_path(python: str) -> pathlib.Path:
    """The lock file of a Python, such as "3.11"."""
    return HERE / f"requirements-{python}.txt"


def bill_path(python: str) -> pathlib.Path:
    """The bill of materials of a Python, such as "3.11"."""
    return HERE / f"sbom-{python}.json"


def resolve(python: str, requirements: pathlib.Path) -> list[dict[str, Any]]:
    """What pip would install into an empty environment, as its report has it.

    Args:
      python: such as "3.11"; `python3.11` has to be there, with pip.
      requirements: file.

    Raises:
      ConfigError: where there is no such Python.
      MmrecError: where pip finds no set of archives.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        command = [f"python{python}", "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--only-binary=:all:", "--report", str(report)]
        try:
            done = subprocess.run(
                [*command, "-r", str(requirements)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise ConfigError(
                f"wanted python{python} on the PATH; {error.strerror}. Install it, or name those "
                "that are there with --python."
            ) from error
        if done.returncode:
            raise MmrecError(f"pip of Python {python}: {done.stderr.strip()}")
        installs: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return installs


def components(installs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """CycloneDX components of what pip reports, sorted by name.

    Raises:
      MmrecError: for an archive that is not an index's, or that has no hash.
    """
    found = []
    for install in installs:
        metadata, archive = install["metadata"], install["download_info"]
        name, version = metadata["name"].lower().replace("_", "-"), metadata["version"]
        sha256 = archive.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not archive["url"].startswith("https://") or not sha256:
            raise MmrecError(
                f"{name}: wanted an archive of an index, with its hash; got {archive['url']}. A "
                "copy on this machine may differ: run this without local indexes, as with "
                "PIP_CONFIG_FILE=/dev/null and without PIP_FIND_LINKS."
            )
        found.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name}@{version}",
                "hashes": [{"alg": "SHA-256", "content": sha256}],
                "licenses": _licenses(metadata),
            }
        )
    return sorted(found, key=lambda component: component["name"])


def _licenses(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """What a package says its license is: an SPDX expression, else a name; none if it is silent."""
    if expression := metadata.get("license_expression") or _installed_license(metadata):
        return [{"expression": expression}]
    # Some write the whole text there.
    said = (metadata.get("license") or "").strip()
    if said and "\n" not in said and len(said) <= LONGEST_LICENSE:
        return [{"license": {"name": said}}]
    classes = [c for c in metadata.get("classifier", []) if c.startswith("License ::")]
    return [{"license": {"name": c.rpartition(" :: ")[2]}} for c in classes]


def _installed_license(metadata: dict[str, Any]) -> str | None:
    """The expression of a package that is installed here in the same version, as reports of pip
    before 25 leave it out."""
    try:
        here = importlib.metadata.metadata(metadata["name"])
    except importlib.metadata.PackageNotFoundError:
        return None
    same = here["Version"] == metadata["version"] and "License-Expression" in here
    return here["License-Expression"] if same else None


def lock_text(python: str, found: Sequence[dict[str, Any]]) -> str:
    """The lines of a lock file."""
    head = (
        f"# What requirements.txt comes to on Python {python}, Linux on x86-64; by `make lock`.\n"
        "# To install: pip install --no-deps --require-hashes -r THIS_FILE\n"
    )
    return head + "".join(
        f"{c['name']}=={c['version']} \\\n    --hash=sha256:{c['hashes'][0]['content']}\n"
        for c in found
    )


def bill(python: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A bill of materials in CycloneDX 1.6, without a time: equal input gives equal text."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "library", "name": "mmrec_tf"},
            "properties": [{"name": "python", "value": python}],
        },
        "components": list(found),
    }


def _main(pythons: Sequence[str]) -> None:
    for python in pythons:
        found = components(resolve(python, REQUIREMENTS))
        write_text(lock_path(python), lock_text(python, found))
        write_json(bill_path(python), bill(python, found))
        silent = [component["name"] for component in found if not component["licenses"]]
        print(
            f"{lock_path(python).name}, {bill_path(python).name}: {len(found)} packages"
            + (f", no license said by {', '.join(silent)}" if silent else "")
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(prog="release.lock", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", action="append", choices=PYTHONS, help="only this one; all by default"
    )
    parsed = parser.parse_args(arguments)
    return run_command(lambda: _main(parsed.python or PYTHONS), name="release.lock")


if __name__ == "__main__":
    sys.exit(main())
