"""TFRecord shards of bounded size, and errors that name the record."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.manifest import AGAIN, sha256

if TYPE_CHECKING:
    import tensorflow as tf


class ShardWriter:
    """Writes one folder of shards `STEM-00000-of-00003.tfrecord`.

    How many there are is known only at the end, so they are renamed when the folder is closed. A
    folder without records gets one empty shard: that nothing is there is said, not left open.
    """

    def __init__(self, folder: pathlib.Path, *, stem: str, shard_bytes: int):
        self._folder, self._stem, self._shard_bytes = folder, stem, shard_bytes
        self._records: list[int] = []
        self._bytes = 0
        folder.mkdir(parents=True)
        self._open()

    @property
    def num_records(self) -> int:
        return sum(self._records)

    def write(self, example: "tf.train.Example") -> None:
        # Maps serialize in any order unless told otherwise; equal input must give equal bytes.
        record = example.SerializeToString(deterministic=True)
        if self._records[-1] and self._bytes + len(record) > self._shard_bytes:
            with _writing(self._folder):
                self._writer.close()
            self._open()
        with _writing(self._folder):
            self._writer.write(record)
        self._bytes += len(record)
        self._records[-1] += 1

    def close(self) -> dict[str, dict[str, Any]]:
        """Closes the folder.

        Returns:
          By file name within the folder: `sha256`, `bytes` and `records`.
        """
        with _writing(self._folder):
            self._writer.close()
        files = {}
        for number, records in enumerate(self._records):
            name = f"{self._stem}-{number:05d}-of-{len(self._records):05d}.tfrecord"
            path = self._folder / name
            self._partial(number).rename(path)
            files[name] = {
                "sha256": sha256(path),
                "bytes": path.stat().st_size,
                "records": records,
            }
        return files

    def abandon(self) -> None:
        """Lets go of the open file; what it holds is of no use."""
        with contextlib.suppress(DatasetError), _writing(self._folder):
            self._writer.close()

    def _open(self) -> None:
        import tensorflow as tf

        self._records.append(0)
        self._bytes = 0
        self._writer = tf.io.TFRecordWriter(str(self._partial(len(self._records) - 1)))

    def _partial(self, number: int) -> pathlib.Path:
        return self._folder / f"{self._stem}-{number:05d}.partial"


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns TensorFlow's error, such as of a full disk, into ours."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DatasetError(f"{folder}: cannot be written; {error.message}.") from error


def shards(directory: pathlib.Path, manifest: Mapping[str, Any], folder: str) -> list[str]:
    """The shards of one folder of a dataset directory, in order."""
    names = sorted(n for n in manifest["files"] if n.startswith(folder + "/"))
    if not names:
        raise DatasetError(f"{directory / folder}: the manifest lists no shards here. {AGAIN}")
    return names


def read_batches(
    path: pathlib.Path, *, records: int, size: int, batch: int
) -> Iterator[list[bytes]]:
    """Reads one shard, `batch` records at a time.

    Args:
      path: the shard.
      records: how many records the manifest promises.
      size: how many bytes the manifest promises.
      batch: the most records to hold at once.

    Yields:
      Lists of serialized records.

    Raises:
      DatasetError: naming the first record that cannot be read.
    """
    import tensorflow as tf

    if not path.is_file():
        raise DatasetError(f"{path}: missing, though the manifest lists it. {AGAIN}")
    count = 0
    try:
        # Crossing from C++ to Python once a batch is about ten times as fast as once a record.
        for chunk in tf.data.TFRecordDataset(str(path)).batch(batch).as_numpy_iterator():
            count += len(chunk)
            if count > records:
                break
            yield chunk.tolist()
    except tf.errors.DataLossError as error:
        raise DatasetError(_damage(path, records)) from error
    except tf.errors.OpError as error:
        raise DatasetError(f"{path}: cannot be read; {error.message}. {AGAIN}") from error
    if count < records:
        raise DatasetError(f"{path}: ends early at record {count + 1} of {records}. {AGAIN}")
    if count > records:
        raise DatasetError(f"{path}: holds more than the manifest's {records} records. {AGAIN}")
    # Bytes behind the last record too short to be one are not read, so no error shows them.
    if path.stat().st_size != size:
        raise DatasetError(
            f"{path}: holds {path.stat().st_size} bytes; the manifest says {size}. {AGAIN}"
        )


def _damage(path: pathlib.Path, records: int) -> str:
    """Reads a damaged shard record by record, and says where it breaks."""
    import tensorflow as tf

    count = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            count += 1
    except tf.errors.DataLossError as error:
        if "truncated" in error.message:
            return f"{path}: ends early at record {count + 1} of {records}. {AGAIN}"
    return (
        f"{path}: damaged at record {count + 1} of {records} (its checksum does not fit). {AGAIN}"
    )
