"""Tables as they are opened: packed or not, in which encoding, and how large one may be."""

import gzip
import pathlib
from typing import IO, BinaryIO

from mmrec_tf.errors import DatasetError

# Of a row, in characters of text and in bytes of JSON: what is longer is no row, and a small
# archive can hold gigabytes of it.
LARGEST_ROW = 1 << 24
MOST_COLUMNS = 10_000


def open_text(path: pathlib.Path, *, encoding: str, newline: str | None = None) -> IO[str]:
    """Opens a text, packed by gzip where its name says so."""
    if _is_gzipped(path):
        return gzip.open(path, "rt", encoding=encoding, newline=newline)
    return path.open(encoding=encoding, newline=newline)


def open_bytes(path: pathlib.Path) -> BinaryIO | gzip.GzipFile:
    """Opens the bytes of a table, unpacked."""
    return gzip.open(path, "rb") if _is_gzipped(path) else path.open("rb")


def _is_gzipped(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".gz"


class BoundedLines:
    """The lines of a text, refusing what no row can be.

    Attributes:
      used: characters since somebody set it to 0, as a quoted cell makes one row of many lines.
      last: the line read last.
    """

    def __init__(self, file: IO[str], path: pathlib.Path):
        self._file, self._path = file, path
        self._number = self.used = 0
        self.last = ""

    def __iter__(self) -> "BoundedLines":
        return self

    def __next__(self) -> str:
        self.last = self._file.readline(LARGEST_ROW + 1)
        if not self.last:
            raise StopIteration
        self._number += 1
        self.used += len(self.last)
        if self.used > LARGEST_ROW:
            raise DatasetError(
                f"{self._path}: line {self._number}: wanted rows of at most {LARGEST_ROW:,} "
                "characters; got a longer one. Is a quote left open, or is this another file?"
            )
        return self.last


def check_columns(path: pathlib.Path, number: int) -> None:
    """Refuses a table of more columns than anybody has.

    Raises:
      DatasetError: when there are more than `MOST_COLUMNS`.
    """
    if number > MOST_COLUMNS:
        raise DatasetError(
            f"{path}: wanted at most {MOST_COLUMNS:,} columns; got {number:,}. Is this the right "
            "file? A matrix of vectors is read by --vector."
        )


def undecodable(path: pathlib.Path, encoding: str, error: UnicodeDecodeError) -> DatasetError:
    """The error of a text in another encoding: the line, the byte, and what to do."""
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    where, byte = "", error.object[error.start]
    with open_bytes(path) as file:
        start = file.read(2)
        file.seek(0)
        if name == "UTF-8" and start in (b"\xff\xfe", b"\xfe\xff"):
            return DatasetError(
                f"{path}: wanted UTF-8; got UTF-16. Name it with --encoding utf-16, or convert it: "
                "iconv -f utf-16 -t utf-8."
            )
        number = 0
        while name == "UTF-8" and (line := file.readline(4 * LARGEST_ROW)):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                where, byte = f"line {number}: ", found.object[found.start]
                break
    return DatasetError(
        f"{path}: {where}wanted {name}; got the byte 0x{byte:02X} ({error.reason}). Name the "
        "encoding, such as --encoding cp1252 (Windows) or latin-1, or convert the file: iconv -f "
        "cp1252 -t utf-8."
    )
