"""The rows of the items table -> item shards, in as many processes as there are CPUs.

Rows are first laid out by shard in files (`spool`), so that each shard can be written on its own,
wherever and whenever: again after a kill, or on another machine.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from data.items import workers as processes
from mmrec_tf.errors import DatasetError
from mmrec_tf.records import DatasetWriter, PreparedItem
from mmrec_tf.records.files import read_sealed, write_sealed
from mmrec_tf.records.items import num_shards, report_path, shard_of, write_shard
from mmrec_tf.records.progress import show_progress

_BUFFER_CHARACTERS = 1 << 20


class ItemRow(NamedTuple):
    """One item before it is prepared.

    Attributes:
      number: 0 to the number of items - 1.
      item_id: unique.
      cells: what the source says of it, as JSON can hold it; None for an item that only the
        interactions name.
    """

    number: int
    item_id: str
    cells: Any


class Maker(Protocol):
    """What makes an item of a row: the per-item function of a source. Picklable."""

    def __call__(
        self, row: ItemRow, left_out: Mapping[str, str], note: processes.Note
    ) -> PreparedItem:
        """Prepares one item.

        Args:
          row: of the item.
          left_out: by name of a medium, why it must not be touched.
          note: to be called with the name of each medium before it is touched.
        """


class ItemShards(NamedTuple):
    """The shards to be written; equal on every machine that shares the folders.

    Attributes:
      folder: where shards stand.
      reports: where their reports stand.
      spool: where the rows stand.
      counts: how many rows each shard has.
      make: what makes an item of a row.
    """

    folder: pathlib.Path
    reports: pathlib.Path
    spool: pathlib.Path
    counts: list[int]
    make: Maker

    def waiting(self) -> list[int]:
        """The shards that are not finished."""
        return [n for n in range(len(self.counts)) if not report_path(self.reports, n).exists()]

    def write(self, number: int, left_out: Mapping[str, str], note: processes.Note) -> None:
        """Writes one shard."""
        write_shard(
            self.folder,
            self.reports,
            self._items(number, left_out, note),
            number=number,
            count=len(self.counts),
        )

    def rows(self, number: int) -> Iterator[ItemRow]:
        """The rows of one shard, by number."""
        if self.counts[number]:
            with _spool_path(self.spool, number).open(encoding="utf-8") as file:
                for line in file:
                    yield ItemRow(*json.loads(line))

    def _items(
        self, number: int, left_out: Mapping[str, str], note: processes.Note
    ) -> Iterator[PreparedItem]:
        for row in self.rows(number):
            yield self.make(row, left_out, note)
            note("", 1)


# What writes the shards that wait: here, or on other machines.
Run = Callable[[ItemShards], None]


def write_items(
    writer: DatasetWriter,
    rows: Iterable[ItemRow],
    *,
    num_items: int,
    make: Maker,
    run: Run | None = None,
) -> None:
    """Writes all items of a dataset, less what stands finished from before a kill.

    Args:
      writer: of the dataset.
      rows: by ascending number.
      num_items: how many there are.
      make: what makes an item of a row.
      run: what writes the shards; by default processes here, one a CPU.
    """
    counts = spool(writer.work / "spool", rows, num_items=num_items)
    write_spooled(writer, counts, make=make, run=run)


def write_spooled(
    writer: DatasetWriter, counts: list[int], *, make: Maker, run: Run | None = None
) -> None:
    """Writes all items of a dataset whose rows `spool` has laid out in its folder `work/spool`.

    Args:
      writer: of the dataset.
      counts: what `spool` returned.
      make: what makes an item of a row.
      run: what writes the shards; by default processes here, one a CPU.
    """
    shards = ItemShards(writer.items, writer.reports, writer.work / "spool", counts, make)
    (run or run_here)(shards)
    writer.add_item_shards(len(counts))


def spool(folder: pathlib.Path, rows: Iterable[ItemRow], *, num_items: int) -> list[int]:
    """Lays rows out by shard; what stands there from an earlier run is not laid out again.

    Args:
      folder: a new folder, or that of the same rows.
      rows: by ascending number; not read where they stand already.
      num_items: how many there are.

    Returns:
      How many rows each shard has.
    """
    done = folder / "counts.json"
    if done.exists():
        try:
            known: list[int] = read_sealed(done)["counts"]
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(
                f"{done}: wanted how many rows each shard has; {error}. Delete the folder "
                f"{folder.parent.parent} to prepare anew."
            ) from error
        return known
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    counts = [0] * num_shards(num_items)
    lines: dict[int, list[str]] = {}
    size = 0
    for row in rows:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        shard = shard_of(row.item_id, len(counts))
        lines.setdefault(shard, []).append(line)
        counts[shard] += 1
        size += len(line)
        if size > _BUFFER_CHARACTERS:
            _append(folder, lines)
            size = 0
    _append(folder, lines)
    write_sealed(done, {"counts": counts})
    return counts


def run_here(shards: ItemShards, *, workers: int | None = None) -> None:
    """Writes the shards that wait in processes of this machine.

    Args:
      shards: ItemShards.
      workers: how many processes; None for one a CPU, 0 for none but this one.
    """
    waiting = shards.waiting()
    left = sum(shards.counts[number] for number in waiting)
    total = sum(shards.counts)
    with show_progress(total=total, initial=total - left, desc="items", unit="item") as progress:
        processes.run(
            shards.write,
            waiting,
            workers=len(os.sched_getaffinity(0)) if workers is None else workers,
            progress=lambda done: progress.update(done),
        )


def runner(workers: int | None) -> Run:
    """`run_here` with its workers."""
    return functools.partial(run_here, workers=workers)


def _append(folder: pathlib.Path, lines: dict[int, list[str]]) -> None:
    for number, some in lines.items():
        with _spool_path(folder, number).open("a", encoding="utf-8") as file:
            file.writelines(some)
    lines.clear()


def _spool_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:05d}.jsonl"
