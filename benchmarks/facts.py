"""What every result states beside its figures: question, command, machine, versions and commit."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from mmrec_tf import records

ROOT = pathlib.Path(__file__).parents[1]
# Beside those that the bytes of a dataset can depend on.
_PACKAGES = ("tf-keras", "tensorflow-recommenders", "transformers", "tensorflow-io", "protobuf")


def facts(question: str, *, command: str) -> dict[str, Any]:
    """The head of a result.

    Args:
      question: that the benchmark answers.
      command: that makes the result.
    """
    commit = _git("describe", "--always")
    # Results of other benchmarks change nothing that is measured.
    if _git("status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"):
        commit += "-dirty"
    return {
        "question": question,
        "command": command,
        "commit": commit,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "versions": {
            **records.versions(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _git(*arguments: str) -> str:
    """What git prints; "" where there is none."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
