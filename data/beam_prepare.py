"""`data.prepare` for what outgrows one machine: items are prepared by an Apache Beam pipeline.

    python -m data.beam_prepare media-folder --items items.csv ... --out DIR --runner=DirectRunner

Sources and options are those of `data.prepare`; all others are Beam's own. The tables are read,
numbered and split where the command runs: they are small beside the media. The items then go
through the pipeline with the same functions, into the same shards with the same bytes.

The workers read the media and write the shards by path, so the media root and the folder that
holds DIR must be mounted under the same names on every machine of the runner (NFS, Filestore, a
bucket through FUSE). A file that takes its decoder down is the runner's to retry and to report.
"""

import functools
import sys
from collections.abc import Iterable, Iterator, Sequence

from data import prepare
from data.items.shards import ItemRow, ItemShards
from mmrec_tf.errors import ConfigError
from mmrec_tf.records import PreparedItem
from mmrec_tf.records.items import write_shard


def run_in_beam(shards: ItemShards, *, options: Sequence[str] = ()) -> None:
    """Writes the shards that wait by a Beam pipeline.

    Args:
      shards: ItemShards.
      options: Beam's own, as typed, such as `--runner=FlinkRunner`.

    Raises:
      ConfigError: when Apache Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ConfigError(
            'beam_prepare: wanted Apache Beam; install it with pip install "mmrec_tf[beam]".'
        ) from error
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        (
            pipeline
            | "shards" >> beam.Create(shards.waiting())
            | "rows" >> beam.FlatMap(functools.partial(_rows, shards))
            # Without it one machine would prepare all items of a shard.
            | "spread" >> beam.Reshuffle()
            | "prepare" >> beam.MapTuple(functools.partial(_prepare, shards))
            | "gather" >> beam.GroupByKey()
            | "write" >> beam.MapTuple(functools.partial(_write, shards))
        )


def _rows(shards: ItemShards, number: int) -> Iterator[tuple[int, ItemRow | None]]:
    # The first keeps a shard without rows from being lost.
    yield number, None
    for row in shards.rows(number):
        yield number, row


def _prepare(
    shards: ItemShards, number: int, row: ItemRow | None
) -> tuple[int, PreparedItem | None]:
    return number, None if row is None else shards.make(row, {}, _silent)


def _write(shards: ItemShards, number: int, items: Iterable[PreparedItem | None]) -> None:
    present = sorted((item for item in items if item is not None), key=lambda item: item.number)
    write_shard(shards.folder, shards.reports, present, number=number, count=len(shards.counts))


def _silent(name: str, done: int) -> None:
    """Nobody listens: progress is the runner's to show."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and calls; see `--help`."""
    return prepare.main(argv, run_others=run_in_beam)


if __name__ == "__main__":
    sys.exit(main())
