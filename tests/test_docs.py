"""What the pages say exists, does."""

import argparse
import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import io
import itertools
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import report
from mmrec_tf.__main__ import build_parser
from mmrec_tf.config import FAMILIES, load_config, setting_paths

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


def known_settings() -> set[str]:
    """All settings of all families; and what is written alike and is none."""
    found = {*setting_paths(), "ranking.auc", "ranking.log_loss"}
    for kind, families in FAMILIES.items():
        for family in families.values():
            found |= {f"{kind}.{field.name}" for field in dataclasses.fields(family)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_that_pages_name_exist(page):
    known = known_settings()
    sections = {path.partition(".")[0] for path in known if "." in path}
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        pytest.skip("names settings as they were called then")
    named = {
        f"{section}.{last}"
        for section, last in re.findall(r"`([a-z]\w*)\.(\w+)`", text)
        if section in sections and last != "json"
    }
    assert not named - known


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


class _Parsed(Exception):
    """A program has taken its arguments."""


def arguments_of(line: str) -> list[str] | None:
    """The words of a command up to a pipe, `&` and the like; None where it is no whole command."""
    # What may be left out stands in brackets, and is tried.
    bare = re.sub(r"\[(--[^\]]*)\]", r"\1", line)
    if "..." in bare or "..=" in bare:
        return None
    lexer = shlex.shlex(bare, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(itertools.takewhile(lambda word: word[0] not in "|&;<>", filter(None, lexer)))
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)  # a variable of the environment
    return words


def module_commands() -> list[tuple[str, list[str]]]:
    found = {}
    for page in PAGES:
        for line in commands(page.read_text(encoding="utf-8")):
            words = arguments_of(line) if "python -m" in line or "python examples/" in line else []
            if words and words[0] == "python" and words[-1] != "--help":
                found.setdefault(" ".join(words), (name(page), words[1:]))
    return [(page, words) for page, words in found.values()]


def test_programs_take_the_options_that_pages_give_them(monkeypatch, capsys):
    """Each `python -m PROGRAM ...` of a page reaches the end of the program's own parser."""
    take, within = argparse.ArgumentParser.parse_known_args, []

    def parse(self, *args, **kwargs):
        within.append(self)
        try:
            found = take(self, *args, **kwargs)
        finally:
            within.pop()
        if within:  # the parser of a subcommand
            return found
        if found[1]:
            self.error(f"unrecognized arguments: {' '.join(found[1])}")
        raise _Parsed

    # What parse_args calls, too; nothing of a program runs.
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    wrong, seen = [], set()
    for page, words in module_commands():
        if words[0] == "-m":
            module, given = words[1], words[2:]
            package = module.partition(".")[0]
            if package not in ("data", "tuning", "serving", "release"):
                continue  # benchmarks import TensorFlow before they parse
            folder = (ROOT / module.replace(".", "/")).is_dir()
            main = importlib.import_module(f"{module}.__main__" if folder else module).main
        else:
            module, given = words[0], words[1:]
            main = script(ROOT / module).main
        monkeypatch.setattr(sys, "argv", [module, *given])
        try:
            main()
            wrong.append(f"{page}: {' '.join(words)}: was not parsed")
        except _Parsed:
            seen.add(module)
        except SystemExit:
            said = capsys.readouterr().err.strip().splitlines()[-1:]
            wrong.append(f"{page}: {' '.join(words)}: {said}")
    assert wrong == []
    assert seen >= {"data.prepare", "data.inspect", "serving.client", "examples/scenarios.py"}


def script(path: pathlib.Path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_and_json_of_pages_can_be_read(page):
    for language, text in re.findall(
        r"^```(python|json)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        ast.parse(text) if language == "python" else json.loads(text)


def test_each_scenario_has_a_page_and_a_config_that_loads():
    scenarios = script(ROOT / "examples/scenarios.py").SCENARIOS
    assert {path.stem for path in (ROOT / "examples/scenarios").glob("*.json")} == set(scenarios)
    pages = {path.stem for path in (ROOT / "docs/scenarios").glob("*.md")} - {"index"}
    assert pages == set(scenarios)
    for scenario in scenarios:
        load_config(ROOT / f"examples/scenarios/{scenario}.json")
        text = (ROOT / f"docs/scenarios/{scenario}.md").read_text(encoding="utf-8")
        assert f"--config examples/scenarios/{scenario}.json" in text


def test_the_tables_that_the_tutorial_shows_are_those_that_are_drawn(tmp_path, capsys):
    script(ROOT / "examples/scenarios.py").main(["shop", "--out", str(tmp_path / "shop")])
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    for table in ("items", "interactions"):
        first = (tmp_path / f"shop/{table}.csv").read_text(encoding="utf-8").splitlines()[:2]
        assert "\n".join(first) in page


def test_all_pages_are_on_the_site():
    """Strict building tells, too; this is quicker, and needs no mkdocs."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:: |- )([\w/]+\.md)$", text, re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - named == set()
    assert {page for page in named - pages if not (ROOT / page).exists()} == set()


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebooks_are_kept_without_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))


# Minutes long: what pages say to do is done.


def environment() -> dict[str, str]:
    bin_folder = str(pathlib.Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "TQDM_DISABLE": "",
    }


def follow(page: pathlib.Path, work: pathlib.Path) -> str:
    """Runs all commands of a page as they stand, with another folder for what they write; returns
    what they said."""
    lines = [line for line in commands(page.read_text(encoding="utf-8")) if line]
    lines = [line for line in lines if line.startswith(("python ", "mmrec-tf ", "kill "))]
    text = "\n".join(["set -e", *lines]).replace("work/", f"{work}/")
    ports = re.findall(r"--(?:rest-)?port (\d+)", text)
    for port in ports:
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    if ports:  # a new user reads on until the server is there
        server = re.compile(r"^(python -m serving.local_server .*--port (\d+) .*&)$", re.MULTILINE)
        wait = (
            "for _ in $(seq 300); do (exec 3<>/dev/tcp/localhost/{0}) 2>&- && break; sleep 1; done"
        )
        text = server.sub(lambda found: f"{found[0]}\n{wait.format(found[2])}", text)
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(tmp_path):
    follow(ROOT / "docs/tutorial.md", tmp_path)
    assert (tmp_path / "shop_run/report.html").exists()
    assert (tmp_path / "shop_run/README.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted(set((ROOT / "docs/scenarios").glob("*.md"))), ids=lambda page: page.stem
)
def test_a_scenario_runs(page, tmp_path):
    follow(page, tmp_path)


@pytest.mark.slow
def test_a_classifier_answers_with_probabilities(tmp_path):
    said = follow(ROOT / "docs/howto/classification.md", tmp_path)
    rows = re.findall(r"^ *\d\t(video-00[12])\t-?\d+\.\d+\t(\d\.\d+)$", said, re.MULTILINE)
    assert {item for item, _ in rows} == {"video-001", "video-002"}
    assert all(0 < float(probability) < 1 for _, probability in rows)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("WORK", str(tmp_path))
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    cells = nbformat.read(notebook, 4)
    NotebookClient(
        cells, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**environment(), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "index.html").exists() and (tmp_path / "data/index.html").exists()


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


def test_tests_that_pages_name_exist():
    """As pytest names them, without the parameters; those of the page on faults above all."""
    faults = (ROOT / "docs/hardening.md").read_text(encoding="utf-8")
    kinds = re.findall(r"^\| ([A-I]\d?) ", faults, re.MULTILINE)
    assert set(kinds) == {f"A{n}" for n in range(1, 7)} | set("BCDEFGHI")
    # A row is worth what its test is.
    rows = [line for line in faults.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row for row in rows if "`tests/" not in row and "held by" not in row] == []
    named: dict[str, set[str]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
            named.setdefault(path, set()).add(test)
    for path, tests in named.items():
        assert (ROOT / path).is_file(), path
        body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert tests - {n.name for n in body if isinstance(n, ast.FunctionDef)} == set(), path


def test_tables_are_those_of_the_committed_results():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_of_a_result_that_is_not_there_yet_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    page = "<!-- results cold test_content{} -->\nold\n<!-- end -->\n"
    with pytest.raises(FileNotFoundError):
        report.filled(page.format(""))
    assert "*Not measured yet.*\n<!-- end -->" in report.filled(page.format(" later"))
    figures = {"recall@10": 0.5, "ndcg@10": 0.25, "recall@20": 0.75}
    result = {
        "splits": {
            "test": {"users": 3, "model": figures, "id_only": figures, "image_and_id": figures}
        },
        "differences": {"test": {"id_only": {m: [0.01, -0.02, 0.03] for m in figures}}},
        "slices": {
            "test": {
                name: {"items": 2, "users": users, "model": figures, "id_only": figures}
                for name, users in (("cold", 3), ("met 1 to 5 times", 1), ("met 6 to 20 times", 0))
            }
        },
    }
    folder = tmp_path / "benchmarks/results"
    folder.mkdir(parents=True)
    (folder / "cold.json").write_text(json.dumps(result))
    found = report.filled(page.format(" later")).splitlines()
    assert found[3] == "| this config | 0.5000 |  | 0.2500 |  |"
    less = "+0.0100 (-0.0200 to +0.0300)"
    assert found[4] == f"| its id-only twin | 0.5000 | {less} | 0.2500 | {less} |"
    assert found[5].startswith("| image alone, and ids | 0.5000 |  |")
    met = report.filled(page.format("").replace("test_content", "test_met")).splitlines()
    assert met[3:5] == [
        "| cold | 2 | 3 | 0.7500 | 0.7500 |",
        "| met 1 to 5 times | 2 | 1 | 0.7500 | 0.7500 |",
    ]
    assert len(met) == 6


@pytest.mark.parametrize("script", ["bench_example", "bench_seeds"])
@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--set", "training.epochs=1"], "--set: wanted --result NAME beside it"),
        (["--result", "a/b"], "--result: wanted letters, digits and underscores"),
        (["--set", "epochs", "--result", "other"], "--set: wanted PATH=VALUE"),
    ],
)
def test_a_result_is_not_written_over_by_other_settings(script, more, wanted, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{script}")
    arguments = [script, "posters", "--dataset", "none", "--work", "none", *more]
    monkeypatch.setattr(sys, "argv", arguments)
    assert module.main() == 2
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["3", "1,1", "1,x"])
def test_a_spread_wants_several_seeds(seeds, monkeypatch, capsys):
    from benchmarks import bench_seeds

    arguments = ["bench_seeds", "posters", "--dataset", "none", "--work", "none", "--seeds", seeds]
    monkeypatch.setattr(sys, "argv", arguments)
    assert bench_seeds.main() == 2
    assert capsys.readouterr().err.startswith("bench_seeds: --seeds: wanted ")


def test_seeds_are_told_by_mean_and_deviation():
    from benchmarks import bench_seeds

    metrics = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
    seeds = [{m: np.array([0.0, value]) for m in metrics} for value in (0.2, 0.4)]
    summary = {"model": bench_seeds._spread(seeds)}
    # Of 0.1 and 0.2: the mean 0.15, the deviation of a sample 0.1 / sqrt(2).
    assert summary["model"]["ndcg@20"] == pytest.approx({"mean": 0.15, "std": 0.0707107})
    np.testing.assert_allclose(bench_seeds._mean(seeds)["ndcg@20"], [0, 0.3])
    summary["ease"] = {m: {"mean": 0.1, "std": None} for m in metrics}
    found = {
        "split": "test",
        "history": "train",
        "users": 2,
        "summary": summary,
        "differences": {"ease": {m: [0.05, -0.1, 0.2] for m in metrics}},
    }
    rows = report.seeds_table({"seeds": [0, 1], "splits": {"test": found}}, "test").splitlines()
    assert rows[0].startswith("| test split, history train, 2 users, 2 seeds | recall@10 |")
    assert rows[2] == "| this config |" + " 0.1500 ± 0.0707 |" * 4
    assert rows[3] == "| EASE |" + " 0.1000 |" * 4
    assert rows[4] == "| this config less EASE, 95 % |" + " +0.0500 (-0.1000 to +0.2000) |" * 4
