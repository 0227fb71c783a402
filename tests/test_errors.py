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
        (KeyboardInterrupt(), None, 130, ""),
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


def test_did_you_mean():
    known = ["num_mels", "ResNet50", "dim"]
    assert did_you_mean("num_mel", known) == "; did you mean 'num_mels'?"
    assert did_you_mean("RESNET", iter(known)) == "; did you mean 'ResNet50'?"
    assert did_you_mean("zzz", known) == "; known: num_mels, ResNet50, dim."
    assert did_you_mean("zzz", known, otherwise=", such as dim.") == ", such as dim."
    # Of names that differ in case alone the first one.
    assert did_you_mean("dom", ["dim", "DIM"]) == "; did you mean 'dim'?"
