"""What the pages say exists, does."""

import contextlib
import importlib.util
import io
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from mmrec_tf.__main__ import build_parser

ROOT = pathlib.Path(__file__).resolve().parents[1]
SKIPPED = {".venv", ".git", "work", "build", "dist", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts)
    and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    titles = re.findall(r"^#+ +(.+?) *$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of fenced blocks, continued ones joined, without comments and prompts."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).removeprefix("$ ").strip() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_named_in_commands_exist(page):
    modules = set(re.findall(r"python -m ([\w.]+\w)", page.read_text(encoding="utf-8")))
    assert {module for module in modules if importlib.util.find_spec(module) is None} == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_named_in_commands_exist(page):
    named = set(re.findall(r"\bexamples/[\w.-]+\.json", page.read_text(encoding="utf-8")))
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse(page):
    for line in commands(page.read_text(encoding="utf-8")):
        if not line.startswith("mmrec-tf ") or "--help" in line:
            continue
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                build_parser().parse_args(shlex.split(line)[1:])
            except SystemExit:
                pytest.fail(f"{line}: {said.getvalue()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_subcommands_named_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|[`$] ?)mmrec-tf ([a-z][\w-]*)", text, re.MULTILINE))
    action = next(a for a in build_parser()._actions if a.dest == "command")
    assert named - set(action.choices) == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page):
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_named_in_code_marks_exist(page):
    """`mmrec_tf/towers/fusion.py` and the like, from the root of the checkout or beside a page."""
    text = without_code(page.read_text(encoding="utf-8"))
    named = re.findall(r"`([\w.\-/]+/[\w.\-]+\.(?:py|md|json|cfg|sh|config|yml))`", text)
    missing = {
        path
        for path in named
        if "NAME" not in path
        and "KIND" not in path
        and path.split("/")[0] not in ("work", "shared")
        and not (ROOT / path).exists()
        and not (page.parent / path).exists()
    }
    assert missing == set()


def test_tables_are_those_of_the_committed_results():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
