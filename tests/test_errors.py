import os
import pathlib
import re
import subprocess
import sys

import pytest

from mmrec_tf.errors import ConfigError, DatasetError, did_you_mean, run_command


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "name", "status", "line"),
    [
        (ConfigError("k: wanted 1 or more."), None, 2, "ConfigError: k: wanted 1 or more.\n"),
        (DatasetError("d: missing."), None, 1, "DatasetError: d: missing.\n"),
        (DatasetError("d: missing."), "serving.check", 1, "serving.check: d: missing.\n"),
        (DatasetError("d: missing."), "", 1, "d: missing.\n"),
        (DatasetError("two\n  lines,  'a  b'\n"), "", 1, "two lines,  'a  b'\n"),
        (FileNotFoundError(2, "No such file", "a.json"), None, 1, "a.json: No such file\n"),
        (OSError(28, "No space left"), "serving.check", 1, "serving.check: No space left\n"),
        (KeyboardInterrupt(), None, 130, "interrupted.\n"),
        (KeyboardInterrupt(), "serving.check", 130, "serving.check: interrupted.\n"),
        (MemoryError(), None, 1, "out of memory; no more could be had.\n"),
        (MemoryError("9 GB"), "data.prepare", 1, "data.prepare: out of memory; 9 GB.\n"),
        (OverflowError("too large"), None, 2, "wanted numbers of up to 64 bits; too large.\n"),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"),
            "data.inspect",
            1,
            "data.inspect: wanted text in UTF-8; got the byte 0xFF (invalid start byte).\n",
        ),
        (
            UnicodeEncodeError("ascii", "Z\xfc", 1, 2, "ordinal not in range(128)"),
            None,
            1,
            "the output's encoding, ascii, has no '\\xfc'; set PYTHONUTF8=1.\n",
        ),
        (
            UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
            None,
            2,
            "wanted arguments in UTF-8; an id or a text has bytes that are none: '\\udcff'.\n",
        ),
        (RecursionError(), None, 1, "an input is nested too deeply, which nobody meant.\n"),
    ],
)
def test_an_error_is_one_line_and_a_status(capsys, error, name, status, line):
    assert run_command(failing(error), name=name) == status
    assert capsys.readouterr() == ("", line)


def test_what_a_command_returns_is_its_status(capsys):
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 3) == 3
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_raised():
    with pytest.raises(ZeroDivisionError):
        run_command(failing(ZeroDivisionError()))


def test_a_full_disk_is_one_line_though_tensorflow_says_it_in_its_own_way(capsys, tmp_path):
    import tensorflow as tf

    (tmp_path / "file").touch()
    full = "weights.data; No space left on device\n\t [[node SaveV2]]"
    assert run_command(failing(tf.errors.ResourceExhaustedError(None, None, full))) == 1
    assert capsys.readouterr().err == "weights.data; No space left on device\n"
    assert run_command(lambda: tf.constant(["\udcff"]) and None) == 2
    assert capsys.readouterr().err.startswith("wanted arguments in UTF-8; an id or a text")
    with pytest.raises(tf.errors.InvalidArgumentError):
        run_command(failing(tf.errors.InvalidArgumentError(None, None, "shapes")))


@pytest.mark.parametrize(
    ("sink", "said"), [("/dev/full", "No space left on device\n"), ("| true", "")]
)
def test_what_cannot_be_printed_is_told_in_one_line(sink, said):
    code = "import sys, time; from mmrec_tf.errors import run_command; "
    code += "sys.exit(run_command(lambda: (time.sleep(0.3), print('x' * 9)) and None))"
    to = sink if sink.startswith("|") else f"> {sink}"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" {to}; exit ${{PIPESTATUS[0]}}'],
        cwd=pathlib.Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize(
    "how",
    [
        "raise KeyboardInterrupt",
        "try: raise KeyboardInterrupt\nexcept BaseException: raise ImportError('no C')",
    ],
)
@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("mmrec_tf train --dataset d --out r", "tensorflow"),
        ("data.prepare synthetic --out d", "numpy"),
        ("tuning.search --dataset d --out s", "keras_tuner"),
        ("serving.client status", "grpc"),
        ("serving.check export", "numpy"),
        ("serving.load_test --export e", "numpy"),
        ("serving.local_server export", "grpc"),
    ],
)
def test_a_command_is_interrupted_as_it_is_imported(tmp_path, command, module, how):
    """By a module that ends as Ctrl-C would end it, some of which make another error of it."""
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text(how, encoding="utf-8")
    root = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root)))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130 and done.stdout == ""
    assert re.fullmatch(r"(serving\.\w+: )?interrupted\.\n", done.stderr)


def test_other_programs_answer_themselves(tmp_path):
    (tmp_path / "program.py").write_text(
        "import data, serving, mmrec_tf, sys; assert sys.excepthook is sys.__excepthook__"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{pathlib.Path(__file__).parents[1]}"}
    command = [sys.executable, "-m", "program", "-m", "data"]
    subprocess.run(command, env=environment, check=True)


def test_did_you_mean():
    known = ["num_mels", "ResNet50", "dim"]
    assert did_you_mean("num_mel", known) == "; did you mean 'num_mels'?"
    assert did_you_mean("RESNET", iter(known)) == "; did you mean 'ResNet50'?"
    assert did_you_mean("zzz", known) == "; known: num_mels, ResNet50, dim."
    assert did_you_mean("zzz", known, otherwise=", such as dim.") == ", such as dim."
    # Of names that differ in case alone the first one.
    assert did_you_mean("dom", ["dim", "DIM"]) == "; did you mean 'dim'?"
