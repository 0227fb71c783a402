import multiprocessing
import os
import pathlib
import signal
import sys
import time

import pytest

from data.items import workers
from mmrec_tf.errors import DatasetError


class Things:
    """Work on the things 0 to 4 of each task; what is done to "TASK.THING" can be chosen.

    Each thing that is done leaves a file behind, so that other processes can be watched.
    """

    def __init__(self, folder: pathlib.Path, **tricks):
        self.folder, self.tricks = folder, {key.lstrip("_"): v for key, v in tricks.items()}

    def __call__(self, task, left_out, note):
        if trick := self.tricks.get(f"{task}"):
            trick()
        for thing in range(5):
            name = f"{task}.{thing}"
            if name in left_out:
                (self.folder / name).write_text(left_out[name])
                continue
            note(name, 0)
            if trick := self.tricks.get(name.replace(".", "_")):
                trick()
            (self.folder / name).write_text(str(os.getpid()))
            note("", 1)

    def done(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir()}


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def leave():
    os._exit(3)


def hang():
    time.sleep(600)


def refuse():
    raise DatasetError("no more room.")


def slip():
    raise KeyError("a mistake")


def ask_for_too_much():
    bytearray(1 << 40)


def run(things, *, num_workers=2, num_tasks=4, **options) -> int:
    done = []
    workers.run(things, range(num_tasks), workers=num_workers, progress=done.append, **options)
    return sum(done)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 9])
def test_all_is_done_once(tmp_path, num_workers):
    things = Things(tmp_path)
    assert run(things, num_workers=num_workers) == 20
    done = things.done()
    assert sorted(done) == [f"{task}.{thing}" for task in range(4) for thing in range(5)]
    assert (str(os.getpid()) in done.values()) == (num_workers == 0)
    assert not multiprocessing.active_children()


def test_nothing_to_do(tmp_path):
    assert run(Things(tmp_path), num_tasks=0) == 0


def test_what_ends_or_hangs_its_process_is_left_out_and_all_else_done(tmp_path):
    things = Things(tmp_path, _0_3=crash, _2_0=leave, _2_4=crash, _3_1=hang)
    run(things, timeout_seconds=3)
    left_out = {name: said for name, said in things.done().items() if not said.isdecimal()}
    assert left_out == {
        "0.3": "ended its process (SIGSEGV)",
        "2.0": "ended its process (exit status 3)",
        "2.4": "ended its process (SIGSEGV)",
        "3.1": "took more than 3 seconds",
    }
    assert len(things.done()) == 20


def test_errors_of_ours_come_through(tmp_path):
    with pytest.raises(DatasetError, match="no more room"):
        run(Things(tmp_path, _1_2=refuse))
    assert not multiprocessing.active_children()


def test_mistakes_come_through_with_their_place(tmp_path):
    with pytest.raises(RuntimeError, match="in slip(.|\n)*a mistake"):
        run(Things(tmp_path, _1_2=slip))


def test_a_process_that_cannot_begin_ends_the_run(tmp_path):
    with pytest.raises(DatasetError, match=r"ended its process \(exit status 3\) before it began"):
        run(Things(tmp_path, _1=leave))


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space are Linux's")
def test_memory_has_a_limit(tmp_path):
    with pytest.raises(RuntimeError, match="MemoryError"):
        run(Things(tmp_path, _0_0=ask_for_too_much))
