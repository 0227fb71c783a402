"""The errors that mmrec_tf raises on purpose.

    MmrecError            anything below; a command prints it in one line and exits with 1
    +-- ConfigError       a setting or an argument that cannot be used (exit status 2)
    +-- DatasetError      a dataset directory, or a source table, that is missing or damaged
    +-- MediaError        one picture, sound or text that cannot be decoded
    +-- RunError          a run directory that is missing or does not fit
    +-- TuningError       a search without a completed trial
    +-- ExportError       an export that failed its own checks
    +-- ServingError      a server that is missing, or that refused a request

Every message says what was wanted, what came, and what to do. `run_command` turns an error into
what a command prints and the status with which it exits, `answer_interrupts` a Ctrl-C that comes
before it is called, as a command is imported; `did_you_mean` ends a message about an
unknown name.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from types import TracebackType


class MmrecError(Exception):
    """The parent of all errors raised on purpose."""


class ConfigError(MmrecError):
    """A setting or an argument that cannot be used."""


class DatasetError(MmrecError):
    """A dataset directory, or a source table, that is missing or damaged."""


class MediaError(MmrecError):
    """One picture, sound or text that cannot be decoded.

    Attributes:
      decoder: what tried to, such as "opencv 4.11.0, pillow 12.3.0"; "" where nothing had to.
    """

    def __init__(self, message: str, *, decoder: str = ""):
        super().__init__(message)
        self.decoder = decoder


class RunError(MmrecError):
    """A run directory that is missing or does not fit."""


class TuningError(MmrecError):
    """A search without a completed trial."""


class ExportError(MmrecError):
    """An export that failed its own checks."""


class ServingError(MmrecError):
    """A server that is missing, or that refused a request."""


def run_command(function: Callable[[], int | None], *, name: str | None = None) -> int:
    """Calls what a command does, and turns an error into one line on stderr.

    Args:
      function: returns the exit status; None for 0.
      name: what the line begins with, such as "serving.check"; None for the error's class; "" for
        the message alone.

    Returns:
      The status of `function`; 2 after a ConfigError, or an argument that nothing here can hold,
      such as a number or bytes that are no text; 1 after another MmrecError or an error of the
      system, such as a missing file, a full disk or too little memory, or a file that is no text;
      130 when it was interrupted. All other errors are bugs, and are raised.
    """
    try:
        status = function() or 0
        sys.stdout.flush()  # a full disk behind it is to be told here, not as Python ends
        return status
    except MmrecError as error:
        head = type(error).__name__ if name is None else name
        return _say(2 if isinstance(error, ConfigError) else 1, head, str(error))
    except BrokenPipeError:
        # Whoever read has read enough. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(1, name, str(error.filename or ""), error.strerror or str(error))
    except MemoryError as error:
        return _say(1, name, f"out of memory; {str(error) or 'no more could be had'}.")
    except OverflowError as error:
        return _say(2, name, f"wanted numbers of up to 64 bits; {error}.")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return _say(1, name, f"wanted text in UTF-8; got the byte 0x{byte:02X} ({error.reason}).")
    except UnicodeEncodeError as error:
        return _say(*_unwritable(error, name))
    except RecursionError:
        return _say(1, name, "an input is nested too deeply, which nobody meant.")
    except KeyboardInterrupt:
        return _say(130, name, "interrupted.")
    except Exception as error:
        if _interrupted(error):
            return _say(130, name, "interrupted.")
        if _NO_TEXT in str(error):
            return _say(2, name, f"{_WANTED_TEXT}.")
        reason = _of_the_system(error)
        if reason is None:
            raise
        return _say(1, name, reason)


def answer_interrupts(program: str, *, script: str | None = None) -> None:
    """Ends a program in one line and with the status 130 when Ctrl-C comes as it is imported.

    Nothing happens in any other process that imports the package: notebooks, tests and programs of
    others answer themselves.

    Args:
      program: the package that `python -m` was given, or the parent of the module that it was.
      script: the name of its script, where it has one.
    """
    given = sys.orig_argv[1:]
    # So it stands there as long as Python looks for the module that it was given.
    module = given[given.index("-m") + 1] if sys.argv[:1] == ["-m"] and "-m" in given[:-1] else ""
    ours = module == program or module.startswith(f"{program}.")
    if not ours and (script is None or script not in map(os.path.basename, given[:1])):
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _interrupted(error):
            usual(kind, error, trace)
            return
        _say(130, "interrupted.")
        sys.stdout.flush()
        # As an exception ends a process with a status of Python's own.
        os._exit(130)

    sys.excepthook = hook


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind an error: modules that are being imported make others of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


# What TensorFlow says of a text that it cannot hold.
_NO_TEXT = "Error converting unicode string"
_WANTED_TEXT = "wanted arguments in UTF-8; an id or a text has bytes that are none"


def _unwritable(error: UnicodeEncodeError, name: str | None) -> tuple[int, str | None, str]:
    """The status, the name and what is said of a text that cannot be written."""
    found = error.object[error.start : error.end]
    # As Python holds bytes of a command line that are no UTF-8.
    if any("\ud800" <= sign <= "\udfff" for sign in found):
        return 2, name, f"{_WANTED_TEXT}: {found!a}."
    return 1, name, f"the output's encoding, {error.encoding}, has no {found!a}; set PYTHONUTF8=1."


def _say(status: int, *parts: str | None) -> int:
    """Prints parts of a message on stderr, in one line."""
    text = ": ".join(filter(None, parts))
    print(" ".join(filter(None, map(str.strip, text.splitlines()))), file=sys.stderr)
    return status


# How TensorFlow, which has errors of its own, words what the system refused.
_REFUSALS = (
    "No space left on device",
    "Read-only file system",
    "Permission denied",
    "Disk quota exceeded",
    "File too large",
    "OOM when allocating",
)


def _of_the_system(error: Exception) -> str | None:
    """What the system refused to TensorFlow; None for any other error."""
    if not type(error).__module__.startswith("tensorflow."):
        return None
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(words in line for words in _REFUSALS)), None)


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """The end of a message about an unknown name.

    Args:
      name: what was asked for.
      known: what could have been asked for.
      otherwise: how the message ends where nothing is near; None to list all that is known.

    Returns:
      Such as "; did you mean 'num_mels'?", whatever the case of the letters.
    """
    known = list(known)
    lower = {other.lower(): other for other in reversed(known)}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    if near:
        return f"; did you mean {lower[near[0]]!r}?"
    return f"; known: {', '.join(known)}." if otherwise is None else otherwise
