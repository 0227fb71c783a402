"""Images of containers: one file names them, and what holds copies is written from it."""

import re
import shutil
import types

import pytest

from mmrec_tf.errors import MmrecError
from release import images

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path):
    """A copy of the files that name images."""
    for name in (images.SOURCE, *(name for names in images.COPIES.values() for name in names)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images.DEPLOY / name, tmp_path / name)
    return tmp_path


def test_a_copy_that_says_otherwise_is_named_and_brought_in_line(folder):
    path = folder / images.SOURCE
    path.write_text(re.sub("REDIS_IMAGE=.*", "REDIS_IMAGE=redis:7.4.8", path.read_text()))
    assert images.differing(folder) == ["kubernetes/gateway/kustomization.yaml"]
    images.write(images.read_images(folder), folder)
    assert images.differing(folder) == []
    assert "newTag: 7.4.8" in (folder / "kubernetes/gateway/kustomization.yaml").read_text()


def test_a_digest_takes_the_place_of_the_tag(folder):
    before = (folder / images.SOURCE).read_text().splitlines()
    pinned = {n: one._replace(digest=DIGEST) for n, one in images.read_images(folder).items()}
    images.write(pinned, folder)
    assert images.read_images(folder) == pinned and images.differing(folder) == []
    base = (folder / "kubernetes/base/kustomization.yaml").read_text()
    assert f"digest: {DIGEST}" in base and "newTag" not in base
    assert f"\nFROM {pinned['PYTHON_IMAGE']}\n" in (folder / "tuning/Dockerfile").read_text()
    # Comments and their order stay.
    after = (folder / images.SOURCE).read_text().splitlines()
    bare = [line.partition("@sha256")[0] if line[0] != "#" else line for line in before]
    assert [line.removesuffix(f"@{DIGEST}") for line in after] == bare


@pytest.mark.parametrize("line", ["REDIS_IMAGE=redis", "REDIS_IMAGE=redis:7@sha256:1", "redis:7"])
def test_a_line_that_names_no_image_is_refused(folder, line):
    (folder / images.SOURCE).write_text(f"# images\n\n{line}\n")
    with pytest.raises(MmrecError, match="wanted lines such as REDIS_IMAGE=redis:7.4.7"):
        images.read_images(folder)


def test_registries_are_asked_by_what_is_installed(monkeypatch):
    image, asked = images.Image("redis", "7.4.7"), []
    answers = {"crane": DIGEST + "\n", "docker": "no such image\n"}

    def run(command, **_):
        asked.append(command)
        return types.SimpleNamespace(returncode=0, stdout=answers[command[0]], stderr="")

    monkeypatch.setattr(images.subprocess, "run", run)
    monkeypatch.setattr(images.shutil, "which", lambda program: program)
    assert images.look_up(image) == DIGEST and asked == [["crane", "digest", "redis:7.4.7"]]
    monkeypatch.setattr(images.shutil, "which", lambda program: program == "docker" or None)
    with pytest.raises(MmrecError, match=r"7.4.7 gave no digest \(no such image\)"):
        images.look_up(image)
    monkeypatch.setattr(images.shutil, "which", lambda _: None)
    with pytest.raises(MmrecError, match="neither is installed"):
        images.look_up(image)


def test_what_is_not_pinned_is_said_and_fails_only_where_asked(capsys):
    loose = [one for one in images.read_images().values() if not one.digest]
    assert images.main([]) == 0
    said = capsys.readouterr().out
    assert all(str(one) in said for one in loose)
    assert images.main(["--strict"]) == int(bool(loose))
