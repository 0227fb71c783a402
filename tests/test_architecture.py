"""The folders are the drawing: imports run one way through it, and from the programs into it.

Imports are read from the syntax trees, those inside functions included; so are modules named in
`importlib.import_module("...")`.
"""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = "mmrec_tf"
HERE = pathlib.Path(__file__).name
PROGRAMS = ("data", "tuning", "serving")

# The folders from the ground up: each imports only what stands before it.
FOLDERS = (
    "errors schema config media records dataset encoders towers evaluation training "
    "retrieval recommender ranking runs exporting reporting __init__ __main__"
).split()
# What may stand at the top of a program, beside the folders that it needs.
TOPS = {
    "data": "__init__ README prepare beam_prepare inspect sources tables interactions items",
    "serving": "__init__ README client gateway check load_test local_server deploy tensors",
    "tuning": "__init__ README search space objective trial oracle tuner results",
}
MOST_FOLDERS, MOST_AT_TOP = 16, 9

# Pinned though nothing here imports them, as requirements.txt says.
INDIRECT = {
    *("setuptools", "tf-keras"),
    *("hiredis", "httptools", "python-multipart"),
}

# Imported where someone asks for it; extras in setup.cfg. implicit depends on threadpoolctl.
EXTRAS = {"apache_beam", "implicit", "threadpoolctl", "mlflow", "wandb", "pocketsphinx"}


def sources(root: pathlib.Path, packages: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """Dotted module names; a package under its own name, without `__init__`."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }


def imported(name: str, path: pathlib.Path, known: set[str]) -> set[str]:
    """What a module imports: names in `known` where they are ours, else as written."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                start = ".".join(parents + [start] * bool(start))
            for alias in node.names:
                submodule = f"{start}.{alias.name}"
                found.add(submodule if submodule in known else start)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(node.args[0].value)
    return found - {name}


def graph(root: pathlib.Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    files = sources(root, packages)
    return {name: imported(name, path, set(files)) for name, path in files.items()}


def folder_errors(imports: dict[str, set[str]]) -> list[str]:
    """Folders that the list lacks, names on the list without a folder, and imports that go up."""
    places = {word: place for place, word in enumerate(FOLDERS)}

    def word(module: str) -> str:
        return (module.split(".") + ["__init__"])[1]

    errors = []
    for module, targets in imports.items():
        if word(module) not in places:
            errors.append(f"{module} stands nowhere; give it a place in FOLDERS")
            continue
        for target in sorted(targets):
            if target.partition(".")[0] != LIBRARY or word(target) == word(module):
                continue
            if places.get(word(target), 99) > places[word(module)]:
                errors.append(f"{module} imports {target}, which stands above it")
    missing = places.keys() - {word(module) for module in imports}
    return errors + [f"{name} is in FOLDERS, but there is no such module" for name in missing]


def cycle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one cycle, in order; empty where there is none."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done or module not in imports:
            return []
        for target in sorted(imports[module]):
            if found := visit(target, [*trail, module]):
                return found
        done.add(module)
        return []

    for module in imports:
        if found := visit(module, []):
            return found
    return []


def program_errors(imports: dict[str, set[str]]) -> list[str]:
    """The library importing a program, a test or an example; a program importing another."""
    beside = {*PROGRAMS, "tests", "benchmarks", "examples"}
    return [
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in sorted(targets)
        if (top := target.partition(".")[0]) in beside and top != module.partition(".")[0]
    ]


def test_imports_go_up_the_list():
    assert folder_errors(graph(ROOT, (LIBRARY,))) == []


def names_at_top(folder: str) -> set[str]:
    paths = (ROOT / folder).iterdir()
    return {path.stem for path in paths if path.name != "py.typed" and path.stem != "__pycache__"}


def test_the_top_of_the_library_is_the_drawing():
    assert names_at_top(LIBRARY) == set(FOLDERS)
    assert len(set(FOLDERS) - {"__init__", "__main__"}) <= MOST_FOLDERS


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_top_of_each_program_is_short(program):
    found = names_at_top(program)
    assert found <= set(TOPS[program].split())
    assert len(found) <= MOST_AT_TOP


def test_each_package_says_in_one_line_what_it_is():
    for name, path in sources(ROOT, (LIBRARY, *PROGRAMS)).items():
        if path.name == "__init__.py":
            first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
            assert first and "\n" not in first, name


def test_no_cycles():
    assert cycle(graph(ROOT, (LIBRARY, *PROGRAMS))) == []


def test_programs_stand_beside():
    assert program_errors(graph(ROOT, (LIBRARY, *PROGRAMS))) == []


def write(root: pathlib.Path, **modules: str) -> dict[str, set[str]]:
    """A tree in which every name of FOLDERS exists, some with the code given here."""
    for name in {*FOLDERS, *modules}:
        path = root / LIBRARY / (name.replace("__dot__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(modules.get(name, ""))
    return graph(root, (LIBRARY,))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"errors": "from mmrec_tf.config import Config"}, "errors imports mmrec_tf.config"),
        ({"records": "def f():\n    import mmrec_tf.dataset"}, "imports mmrec_tf.dataset"),
        ({"towers": "from mmrec_tf import retrieval"}, "towers imports mmrec_tf.retrieval"),
        ({"towers": "from . import retrieval"}, "towers imports mmrec_tf.retrieval"),
        ({"towers": "from .retrieval import top"}, "towers imports mmrec_tf.retrieval"),
        ({"runs": "import mmrec_tf as mm"}, "runs imports mmrec_tf, which"),
        ({"runs": "from mmrec_tf import __version__"}, "runs imports mmrec_tf, which"),
        (
            {"encoders": "import importlib\nimportlib.import_module('mmrec_tf.towers')"},
            "encoders imports mmrec_tf.towers",
        ),
        ({"utils": ""}, "utils stands nowhere"),
        ({"encoders__dot__text": "import mmrec_tf.towers"}, "encoders.text imports"),
    ],
)
def test_the_test_of_imports_sees_what_it_should(tmp_path, modules, message):
    errors = folder_errors(write(tmp_path, **modules))
    assert len(errors) == 1 and message in errors[0]


def test_the_test_of_imports_allows_what_it_should(tmp_path):
    imports = write(
        tmp_path,
        config="from mmrec_tf.errors import ConfigError\nimport json",
        encoders__dot__text="from mmrec_tf.encoders import encoder",
        encoders__dot__encoder="from mmrec_tf.schema import Schema",
        __main__="import mmrec_tf\nfrom mmrec_tf import records",
    )
    assert folder_errors(imports) == []
    assert cycle(imports) == []


def test_the_cycle_test_sees_cycles(tmp_path):
    for name, text in {"a": "import data.b", "b": "def f():\n    from data import a"}.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.py").write_text(text)
    assert cycle(graph(tmp_path, ("data",))) == ["data.a", "data.b", "data.a"]


def test_the_program_test_sees_programs():
    assert program_errors(
        {"mmrec_tf.runs.run": {"serving.client"}, "data.prepare": {"data.csv"}}
    ) == ["mmrec_tf.runs.run imports serving.client"]
    assert program_errors({"tuning.search": {"data"}}) == ["tuning.search imports data"]


def distributions(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Third-party top-level names -> the distributions that may provide them."""
    ours = {LIBRARY, *PROGRAMS}
    tops = {target.partition(".")[0] for targets in imports.values() for target in targets}
    provided = importlib.metadata.packages_distributions()
    return {
        top: {canonicalize_name(name) for name in provided.get(top, [])}
        for top in tops - ours - set(sys.stdlib_module_names) - {"__future__", ""}
    }


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line.partition("#")[0]) for line in lines if re.match(r"\w", line)]
    for requirement in requirements:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), f"{requirement} is no pin"
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


def ranges() -> dict[str, Requirement]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"].split("\n")
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_all_that_is_imported_is_pinned_and_the_reverse():
    wanted = distributions(graph(ROOT, (LIBRARY, *PROGRAMS)))
    pinned = pins()
    assert {top for top, names in wanted.items() if not names & pinned.keys()} == EXTRAS
    used = set().union(*wanted.values())
    assert pinned.keys() - used - INDIRECT == set()


def test_the_wheel_asks_for_what_the_library_imports_around_the_pins():
    wanted = distributions(graph(ROOT, (LIBRARY,)))
    asked, pinned = ranges(), pins()
    assert {top for top, names in wanted.items() if not names & asked.keys()} - EXTRAS == set()
    for name, requirement in asked.items():
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, pin {pinned[name]}"


# Where modules lay before the folders were the drawing; neither code nor pages may speak of them.
OLD = (
    r"mmrec_tf[./](?:modalities|encoding|pipeline|catalog|histories|imputation|fusion|alignment|"
    r"diagnostics|baselines|funnel|metrics|calibration|optimization|memory|negatives|objective|"
    r"losses|graph|tables|index|answers|requests|reranking|filters|experts|interaction|"
    r"ranking_losses|continuation|ablation|publishing|servables|verification|examples)\b"
    r"|data[./](?:item_shards|item_content|media_files|workers|selection_options|planted|ceiling)\b"
    r"|serving[./](?:rpc|rest_server|merging|batching_parameters|refusals|versions|models\.config)\b"
)


def test_old_paths_leave_no_trace():
    found = {}
    for folder in (LIBRARY, *PROGRAMS, "tests", "benchmarks", "docs", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".sh", ".yml", ".yaml") and path.name != HERE:
                if names := re.findall(OLD, path.read_text("utf-8")):
                    found[str(path.relative_to(ROOT))] = sorted(set(names))
    assert found == {}
