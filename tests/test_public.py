"""What `import mmrec_tf` and the `mmrec-tf` command show, and what they must not do."""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import types
import zipfile

import pytest

import mmrec_tf
from mmrec_tf import errors

ROOT = pathlib.Path(__file__).resolve().parents[1]


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a process of its own, in which nothing has chosen a Keras yet."""
    ours = ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")
    clean = {k: v for k, v in os.environ.items() if k not in ours}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", mmrec_tf.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name):
    assert getattr(mmrec_tf, name).__doc__


def test_all_is_what_the_namespace_shows():
    for name in mmrec_tf.__all__:
        getattr(mmrec_tf, name)
    shown = {
        name
        for name, value in vars(mmrec_tf).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    } | {"callbacks"}  # A module, and public.
    assert shown == set(mmrec_tf.__all__) == set(dir(mmrec_tf))
    assert mmrec_tf.__all__ == sorted(mmrec_tf.__all__)


def test_no_public_name_is_that_of_a_module():
    # Importing a submodule sets it on the package, and would replace the function.
    for name in mmrec_tf.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"mmrec_tf.{name}")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = mmrec_tf.trian


def test_errors_are_public_and_have_one_parent():
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MmrecError)
    }
    assert tree == {name for name in mmrec_tf.__all__ if name.endswith("Error")}
    for name in tree:
        assert name in errors.__doc__


def test_import_is_silent_and_loads_no_tensorflow():
    done = python("import mmrec_tf, sys; assert not {'tensorflow', 'keras'} & set(sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_config_needs_no_tensorflow():
    done = python(
        "import mmrec_tf, sys; mmrec_tf.Config().override({'dim': 32}); mmrec_tf.DatasetError;"
        "assert 'tensorflow' not in sys.modules"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_keras_2_is_chosen():
    done = python("import mmrec_tf; import tensorflow as tf; print(tf.keras.Model.__module__)")
    assert done.stdout.startswith("tf_keras."), done.stderr


def test_tensorflow_with_keras_3_first_is_refused():
    done = python("import tensorflow; import mmrec_tf")
    assert done.returncode == 1
    assert "ImportError: mmrec_tf needs Keras 2" in done.stderr
    done = python("import tensorflow; import mmrec_tf", TF_USE_LEGACY_KERAS="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["recommend", "--help"],
        ["export", "--help"],
    ],
    ids=" ".join,
)
def test_help_answers_without_tensorflow(arguments):
    done = python(
        "import sys\nfrom mmrec_tf.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr


def test_wrong_usage_and_wrong_config_exit_with_2(tmp_path):
    code = "import sys\nfrom mmrec_tf.__main__ import main\nsys.exit(main({!r}))"
    assert python(code.format(["trian"])).returncode == 2
    (tmp_path / "config.json").write_text('{"dimm": 3}')
    done = python(
        code.format(
            ["train", "--dataset", "d", "--out", "o", "--config", str(tmp_path / "config.json")]
        )
    )
    assert done.returncode == 2
    assert "did you mean 'dim'" in done.stderr and done.stderr.count("\n") == 1


def test_the_wheel_holds_the_library_alone(tmp_path):
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("mmrec_tf", "data", "tuning", "serving", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "mmrec_tf",
        f"mmrec_tf-{mmrec_tf.__version__}.dist-info",
    }
    assert {"mmrec_tf/py.typed", "mmrec_tf/encoders/__init__.py"} <= set(names)
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "mmrec_tf").rglob("*.py")}
    assert sources <= set(names)
