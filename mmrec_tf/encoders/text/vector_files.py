"""Files of word vectors: GloVe's and word2vec's text, word2vec's binary form, each also as gzip."""

import gzip
import pathlib
import sys
import zlib
from collections.abc import Iterator, Set
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from mmrec_tf.errors import ConfigError

# No word vectors are longer, and no line or word is.
MAX_DIM = 4096
_MAX_LINE = 2**17
_MAX_WORD_BYTES = 1024


class WordVectors(NamedTuple):
    """Words with their vectors.

    Attributes:
      words: distinct, in the order of the file.
      vectors: <float32>[word, dim].
    """

    words: list[str]
    vectors: np.ndarray


def read_vectors(path: str | pathlib.Path, *, max_words: int, wanted: Set[str]) -> WordVectors:
    """Reads the first words of a file, and of the others those that are wanted.

    The form is seen from the content: a first line of two numbers is word2vec's header, and what
    follows it is binary where it is no line of text.

    Args:
      path: of the file; gzip where it begins as such.
      max_words: how many of its first words are read.
      wanted: words that are read wherever they stand.

    Raises:
      ConfigError: when it cannot be read, saying where it is damaged.
    """
    file_path = pathlib.Path(path).expanduser()
    words: list[str] = []
    vectors: list[np.ndarray] = []
    known: set[str] = set()
    unusable = 0
    try:
        with _open(file_path) as file:
            for number, (name, values) in enumerate(_entries(file, file_path)):
                word = _decoded(name)
                if word is None or word in known:
                    unusable += 1
                elif number < max_words or word in wanted:
                    vector = values()
                    if not np.isfinite(vector).all():
                        raise _damaged(file_path, number, "a vector of finite numbers")
                    words.append(word)
                    vectors.append(vector)
                    known.add(word)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"text.vectors: wanted a file of word vectors; {path} cannot be read ({reason})."
        ) from error
    if not words:
        raise ConfigError(f"text.vectors: wanted a file of word vectors; {path} has no word.")
    if unusable:
        tqdm.write(
            f"encoders: {unusable} words of {path} are left out, as they stand there twice, hold "
            "white space or are not UTF-8.",
            file=sys.stderr,
        )
    return WordVectors(words, np.stack(vectors))


def _open(path: pathlib.Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _entries(file: IO[bytes], path: pathlib.Path) -> Iterator[tuple[bytes, "_Values"]]:
    """The words as bytes, each with what reads its vector."""
    first = file.readline(_MAX_LINE)
    header = first.split()
    if len(header) == 2 and all(part.isdigit() for part in header):
        count, dim = map(int, header)
        if not 1 <= dim <= MAX_DIM:
            raise ConfigError(
                f"text.vectors: wanted vectors of 1 to {MAX_DIM} numbers; the first line of "
                f"{path} says {dim}."
            )
        start = file.tell()
        line = file.readline(_MAX_LINE)
        if _Values(line.rsplit(maxsplit=dim)[1:], path, 0, dim).sound():
            yield from _lines(file, path, dim, line)
        else:
            file.seek(start)
            yield from _binary(file, path, count, dim)
        return
    dim = len(header) - 1
    if not 1 <= dim <= MAX_DIM or not _Values(header[1:], path, 0, dim).sound():
        raise ConfigError(
            f"text.vectors: wanted lines of a word and its numbers, or word2vec's binary form; "
            f"{path} begins with {first[:40]!r}."
        )
    yield from _lines(file, path, dim, first)


class _Values:
    """The numbers of one line, read when they are asked for."""

    def __init__(self, parts: list[bytes], path: pathlib.Path, number: int, dim: int):
        self._parts, self._path, self._number, self._dim = parts, path, number, dim

    def sound(self) -> bool:
        try:
            return len(self._parts) == self._dim and bool(np.array(self._parts, np.float32).size)
        except ValueError:
            return False

    def __call__(self) -> np.ndarray:
        if not self.sound():
            raise _damaged(self._path, self._number, f"a word and {self._dim} numbers")
        return np.array(self._parts, np.float32)


def _lines(
    file: IO[bytes], path: pathlib.Path, dim: int, line: bytes
) -> Iterator[tuple[bytes, _Values]]:
    number = 0
    while line:
        # Some words of GloVe's hold spaces.
        word, *parts = line.rsplit(maxsplit=dim) or [b""]
        if word:
            yield word.strip(), _Values(parts, path, number, dim)
            number += 1
        line = file.readline(_MAX_LINE)


class _Floats(_Values):
    """Numbers in 4 bytes each, little end first."""

    def __init__(self, data: bytes):
        self._data = data

    def __call__(self) -> np.ndarray:
        return np.frombuffer(self._data, "<f4").astype(np.float32)


def _binary(
    file: IO[bytes], path: pathlib.Path, count: int, dim: int
) -> Iterator[tuple[bytes, _Values]]:
    for number in range(count):
        word = bytearray()
        while (character := file.read(1)) != b" ":
            if not character or len(word) > _MAX_WORD_BYTES:
                raise _damaged(path, number, f"{count} words with vectors of {dim} numbers")
            word += character
        data = file.read(4 * dim)
        if len(data) < 4 * dim:
            raise _damaged(path, number, f"{count} words with vectors of {dim} numbers")
        yield bytes(word).lstrip(b"\n"), _Floats(data)


def _decoded(word: bytes) -> str | None:
    """A word that a text can have, or None."""
    try:
        text = word.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.split() == [text] else None


def _damaged(path: pathlib.Path, number: int, wanted: str) -> ConfigError:
    return ConfigError(
        f"text.vectors: wanted {wanted}; {path} has none such at word {number + 1}. "
        "Download the file again."
    )
