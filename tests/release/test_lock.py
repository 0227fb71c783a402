"""Lock files and bills of materials: what they hold, and that they belong to requirements.txt."""

import importlib.metadata
import json
import pathlib
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmrec_tf.errors import MmrecError
from release import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]


def install(name="Some_Thing", *, url="https://x/y.whl", sha256="ab", **metadata):
    return {
        "metadata": {"name": name, "version": "1.2"} | metadata,
        "download_info": {"url": url, "archive_info": {"hashes": {"sha256": sha256}}},
    }


def test_a_package_becomes_a_line_and_a_component():
    found = lock.components(
        [install("b", license="MIT"), install(license_expression="BSD-3-Clause")]
    )
    assert [one["purl"] for one in found] == ["pkg:pypi/b@1.2", "pkg:pypi/some-thing@1.2"]
    assert found[1]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert found[0]["licenses"] == [{"license": {"name": "MIT"}}]
    lines = lock.lock_text("3.11", found).splitlines()
    assert lines[2:4] == ["b==1.2 \\", "    --hash=sha256:ab"]
    made = lock.bill("3.11", found)
    assert made["components"] == found and made == lock.bill("3.11", found)


@pytest.mark.parametrize(
    ("metadata", "licenses"),
    [
        ({}, []),
        ({"license": "a\nwhole text"}, []),
        (
            {"license": "x" * 99, "classifier": ["License :: OSI Approved :: MIT License"]},
            [{"license": {"name": "MIT License"}}],
        ),
    ],
)
def test_a_license_is_a_name_or_none(metadata, licenses):
    (one,) = lock.components([install(**metadata)])
    assert one["licenses"] == licenses


def test_a_license_that_pip_leaves_out_is_that_of_the_installed_package():
    version = importlib.metadata.version("av")
    (one,) = lock.components([install("av", version=version)])
    assert one["licenses"] == [{"expression": "BSD-3-Clause"}]
    (other,) = lock.components([install("av")])
    assert other["licenses"] == []


@pytest.mark.parametrize("change", [{"url": "file:///opt/y.whl"}, {"sha256": None}])
def test_an_archive_of_this_machine_is_refused(change):
    with pytest.raises(MmrecError, match="some-thing: wanted an archive.*PIP_FIND_LINKS"):
        lock.components([install(**change)])


def test_a_python_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert lock.main(["--python", "3.12"]) == 2
    assert "wanted python3.12 on the PATH" in capsys.readouterr().err


@pytest.mark.parametrize("python", lock.PYTHONS)
def test_the_lock_files_are_those_of_the_requirements(python):
    """Else `make lock` was forgotten."""
    text = lock.lock_path(python).read_text(encoding="utf-8")
    locked = dict(
        re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    )
    assert len(locked) == text.count("==") == text.count("--hash")
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = [
        Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()
    ]
    for one in asked:
        assert f"=={locked[canonicalize_name(one.name)]}" == str(one.specifier), one.name
    made = json.loads(lock.bill_path(python).read_text(encoding="utf-8"))
    assert {one["name"]: one["version"] for one in made["components"]} == locked
    hashes = [one["hashes"][0]["content"] for one in made["components"]]
    assert re.findall(r"sha256:(\w+)", text) == hashes


def test_the_page_says_under_which_license_ffmpeg_comes():
    import av

    text = (ROOT / "release/README.md").read_text(encoding="utf-8")
    (said,) = {library["license"] for library in av._core.library_meta.values()}
    assert f"| FFmpeg (libavcodec and the other libav libraries) | {said}, as" in text
