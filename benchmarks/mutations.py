"""Is a damaged file read as if it were whole? One mutation at a time, of a copy of what was made.

A byte is flipped, or the end cut off; half of the time the file keeps its time stamp, as it does
when a disk decays. A command that reads the file then has to end with another status than 0, or to
name the file. One that does neither and gives the same answer has read nothing that meant anything:
that is harmless. One that does neither and gives another answer is silent.
"""

import os
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.commands import Ended, begin, command

KINDS = ("dataset", "cache", "run", "export")
# Of what a process that is killed leaves beside a folder, and what only export reads.
_NOT_READ = (".versions",)


class Reader(NamedTuple):
    """A command that reads a kind of file, and whether its stdout is its answer."""

    name: str
    call: Callable[[], int]


def readers(kind: str, folder: pathlib.Path) -> list[Reader]:
    """The commands that read a kind of file.

    Args:
      kind: one of `KINDS`.
      folder: holds `prepare`, `train` and `export`.
    """
    if kind == "export":
        export = folder / "export"
        return [
            Reader("serving.check", command("serving.check", export)),
            Reader("serving.local_server", lambda: _serve(export)),
        ]
    run = [folder / "train", "--dataset", folder / "prepare", "--json"]
    asked = [part for user in range(5) for part in ("--user", f"u{user}")]
    return [
        Reader("recommend", command("mmrec_tf", "recommend", *run, *asked, "--k", 5)),
        Reader("evaluate", command("mmrec_tf", "evaluate", *run, "--stage", "recommender")),
    ]


def _serve(export: pathlib.Path) -> int:
    """Loads an export and asks it something."""
    from mmrec_tf.errors import run_command
    from serving.client import Client
    from serving.local_server import LocalServer

    def ask() -> None:
        with LocalServer(export) as server, Client(server.address) as client:
            print(client.recommend(["u0", "u1"], k=3)._asdict())
            print(client.search(text=["a"], k=3)._asdict())

    return run_command(ask)


def mutate(base: pathlib.Path, work: pathlib.Path, number: int, seed: int) -> dict[str, Any]:
    """Damages one file, lets a command read it, and says what came of it.

    Args:
      base: the folders that were made; they stay as they are.
      work: a folder for a copy of them.
      number: of the mutation, which decides its kind.
      seed: of all draws.
    """
    draw = random.Random(f"{seed} mutation {number}")
    kind = KINDS[number % len(KINDS)]
    folder = work / f"mutated_{number}"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("prepare", "train", "export"):
        shutil.copytree(base / name, folder / name)
    try:
        path = draw.choice(_files(kind, folder))
        what = _damage(path, draw)
        which = draw.randrange(2)
        reader = readers(kind, folder)[which]
        ended = begin(reader.call).finish()
        whole = _answer_of_whole(base, work, kind, which)
        told = ended.status != 0 or path.name in ended.said + ended.out
        equal = ended.status == 0 and _plain(ended, folder) == whole
        return {
            "number": number,
            "kind": kind,
            "file": path.relative_to(folder).as_posix(),
            "what": what,
            "read_by": reader.name,
            "status": ended.status,
            "result": "told" if told else "harmless" if equal else "silent",
            # A signal, or an error that is no one line.
            "traceback": ended.status < 0 or "Traceback" in ended.said,
            "said": _line_of(path, ended).replace(f"{folder}/", "") if told else "",
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(kind: str, folder: pathlib.Path) -> list[pathlib.Path]:
    root = {"cache": "prepare/cache", "dataset": "prepare", "run": "train"}.get(kind, kind)
    files = [path for path in sorted((folder / root).rglob("*")) if path.is_file()]
    if kind == "dataset":
        files = [path for path in files if "cache" not in path.relative_to(folder).parts]
    return [path for path in files if path.stat().st_size and path.name not in _NOT_READ]


def _damage(path: pathlib.Path, draw: random.Random) -> str:
    data, stat = path.read_bytes(), path.stat()
    if draw.random() < 0.5:
        place = draw.randrange(len(data))
        what = f"byte {place} of {len(data)} flipped"
        bad = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
    else:
        bad = data[: draw.randrange(len(data))]
        what = f"cut to {len(bad)} of {len(data)} bytes"
    path.write_bytes(bad)
    if draw.random() < 0.5:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        what += ", time stamp kept"
    return what


def _answer_of_whole(base: pathlib.Path, work: pathlib.Path, kind: str, which: int) -> str:
    """What the command answers when nothing is damaged; asked once."""
    reader = readers(kind, base)[which]
    path = work / f"whole_{reader.name}.txt"
    if not path.exists():
        ended = begin(reader.call).finish()
        if ended.status:
            raise SystemExit(f"{reader.name}: ended with {ended.status}.\n{ended.said}")
        path.write_text(_plain(ended, base), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _plain(ended: Ended, folder: pathlib.Path) -> str:
    """The answer, wherever the files stand."""
    return ended.out.replace(str(folder), "")


def _line_of(path: pathlib.Path, ended: Ended) -> str:
    """The last line that names the file, or else the last one."""
    lines = [line for line in (ended.out + ended.said).strip().splitlines() if line]
    naming = [line for line in lines if path.name in line and not line.startswith("ok ")]
    return (naming or lines or [""])[-1][:300]
