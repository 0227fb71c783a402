"""TFRecord shards of bounded size, and errors that name the record."""

import contextlib
import hashlib
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c

from mmrec_tf.errors import DatasetError
from mmrec_tf.records.files import aside
from mmrec_tf.records.manifest import AGAIN


class RecordFile:
    """One TFRecord file, hashed as it is written; nothing stands at `path` until it is closed.

    Each record is framed by its length and two masked CRC-32C sums, as TensorFlow's
    `record_writer.cc` does it.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._aside = aside(path)
        self._digest = hashlib.sha256()
        self.bytes = self.records = 0
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._aside.open("wb", buffering=1 << 20)

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        frame = b"".join((length, masked_crc(length), record, masked_crc(record)))
        self._digest.update(frame)
        self.bytes += len(frame)
        self.records += 1
        with _writing(self._path):
            self._file.write(frame)

    def close(self, path: pathlib.Path | None = None) -> dict[str, Any]:
        """Closes the file and renames it into place.

        Args:
          path: its place, where that was not known before.

        Returns:
          Its `sha256`, `bytes` and `records`.
        """
        self.stop()
        with _writing(self._path):
            self._aside.replace(path or self._path)
        return {"sha256": self._digest.hexdigest(), "bytes": self.bytes, "records": self.records}

    def stop(self) -> None:
        """Closes the file and leaves it aside."""
        with _writing(self._path):
            self._file.close()


class ShardWriter:
    """Writes one folder of shards `STEM-00000-of-00003.tfrecord`, one after the other.

    How many there are is known only at the end, so they are renamed when the folder is closed. A
    folder without records gets one empty shard: that nothing is there is said, not left open.
    """

    def __init__(self, folder: pathlib.Path, *, stem: str, shard_bytes: int):
        self._folder, self._stem, self._shard_bytes = folder, stem, shard_bytes
        self._full: list[RecordFile] = []
        self._open()

    @property
    def num_records(self) -> int:
        return sum(file.records for file in self._full)

    def write(self, record: bytes) -> None:
        if self._file.records and self._file.bytes + len(record) > self._shard_bytes:
            self._file.stop()
            self._open()
        self._file.write(record)

    def close(self) -> dict[str, dict[str, Any]]:
        """Closes the folder.

        Returns:
          By file name within the folder: `sha256`, `bytes` and `records`.
        """
        files = {}
        for number, file in enumerate(self._full):
            name = shard_name(self._stem, number, len(self._full))
            files[name] = file.close(self._folder / name)
        return files

    def abandon(self) -> None:
        """Lets go of the open file; what it holds is of no use."""
        with contextlib.suppress(DatasetError):
            self._file.stop()

    def _open(self) -> None:
        self._file = RecordFile(self._folder / f"{self._stem}-{len(self._full):05d}")
        self._full.append(self._file)


def shard_name(stem: str, number: int, count: int) -> str:
    """The file name of a shard, such as `items-00000-of-00003.tfrecord`."""
    return f"{stem}-{number:05d}-of-{count:05d}.tfrecord"


def masked_crc(data: bytes) -> bytes:
    """The checksum of TensorFlow's record files: CRC-32C, turned and shifted (`crc32c.h`)."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    """Turns the system's error, such as of a full disk, into ours."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written; {error.strerror}.") from error


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
    # Bytes after the last record that are too short to be one are not read, so no error shows them.
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
