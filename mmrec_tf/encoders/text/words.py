"""Texts to words, and words to numbers, in core TensorFlow operations."""

import collections
import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

# All but planes without a character.
_CODE_POINTS = (*range(0x32400), *range(0xE0000, 0xE0200))
_PRIVATE_USE = 0xF0000
# The memory of a server goes with the length of a text.
MAX_BYTES = 64 * 2**10
_BATCH = 1024


class WordSplitter:
    """Text to words as BERT's normalizer and splitter have them: white space, punctuation and
    Chinese characters part words, control characters go.

    Args:
      lower_case: lower-cases and strips accents first.
    """

    def __init__(self, *, lower_case: bool):
        # Constants that only the CPU reads, shared by all graphs that call this.
        with tf.init_scope(), tf.device("CPU"):
            self._keys, self._values, self._blocks = map(tf.constant, _character_table(lower_case))

    def __call__(self, raw: tf.Tensor) -> tf.RaggedTensor:
        """UTF-8 to words.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped.

        Returns:
          <string>[batch, (word)].
        """
        codes = tf.strings.unicode_decode(raw, "UTF-8", errors="replace")
        return tf.strings.split(tf.strings.unicode_encode(self._map(codes), "UTF-8"))

    def _map(self, codes: tf.RaggedTensor) -> tf.RaggedTensor:
        """Code points <int32>[batch, (character)] to those that BERT looks up."""
        flat = codes.flat_values
        entry = tf.minimum(tf.searchsorted(self._keys, flat), tf.size(self._keys) - 1)
        listed = tf.equal(tf.gather(self._keys, entry), flat)
        column = flat[:, tf.newaxis]
        in_block = (column >= self._blocks[:, 0]) & (column < self._blocks[:, 1])
        edge = tf.where(tf.reduce_any(in_block, axis=1), ord(" "), -1)
        padding = [-tf.ones_like(flat)] * (self._values.shape[1] - 3)
        kept = tf.stack([edge, flat, edge, *padding], axis=1)
        mapped = tf.where(listed[:, tf.newaxis], tf.gather(self._values, entry), kept)
        there = (mapped >= 0) & (mapped < _PRIVATE_USE)
        ends = tf.cumsum(tf.math.count_nonzero(there, axis=1))
        splits = tf.gather(tf.concat([[0], ends], axis=0), codes.row_splits)
        return tf.RaggedTensor.from_row_splits(tf.boolean_mask(mapped, there), splits)


class WordLookup:
    """Words to their places in a list, by a 64-bit hash (FarmHash's fingerprint) and a search.

    A table would be a resource of the export; this is a constant. Words of the list that share a
    hash are refused, and another word meets the hash of one with a chance of its length in 2**63.

    Args:
      words: distinct.

    Raises:
      ValueError: when two of them have one hash.
    """

    def __init__(self, words: Sequence[str]):
        with tf.init_scope(), tf.device("CPU"):
            hashes = _hash(tf.constant(list(words), tf.string)).numpy()
            order = np.argsort(hashes, kind="stable")
            if len(np.unique(hashes)) != len(words):
                raise ValueError("two words have one hash, or one word stands there twice")
            self._hashes = tf.constant(hashes[order], tf.int64)
            self._places = tf.constant(order, tf.int32)

    def __call__(self, words: tf.Tensor) -> tf.Tensor:
        """<string>[word] to <int32>[word], -1 for a word that is not in the list."""
        hashes = _hash(words)
        at = tf.minimum(tf.searchsorted(self._hashes, hashes), tf.size(self._hashes) - 1)
        found = tf.equal(tf.gather(self._hashes, at), hashes)
        return tf.where(found, tf.gather(self._places, at), -1)


class WordIds:
    """Text to the numbers of its words.

    A word is looked up as it is written and then in lower case, so that lists with and without
    upper case serve.

    Args:
      words: distinct.
      max_words: how many of the words of a text that are in the list count.
    """

    def __init__(self, words: Sequence[str], *, max_words: int):
        self._split = WordSplitter(lower_case=False)
        self._lookup = WordLookup(words)
        self._max_words = max_words

    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        """<string>[batch] to <int32>[batch, max_words], 1 + the word's place, 0 behind the last;
        what lies beyond the first `MAX_BYTES` of a text is not looked at."""
        words = self._split(tf.strings.substr(raw, 0, MAX_BYTES))
        flat = words.flat_values
        place = self._lookup(flat)
        place = tf.where(place < 0, self._lookup(tf.strings.lower(flat, "utf-8")), place)
        known = tf.ragged.boolean_mask(
            words.with_flat_values(place), words.with_flat_values(place >= 0)
        )
        return tf.cast(
            (known + 1).to_tensor(default_value=0, shape=[None, self._max_words]), tf.int32
        )


def split_texts(
    values: Iterable[str | bytes], *, lower_case: bool = True
) -> Iterator[list[list[str]]]:
    """The words of texts as `WordIds` splits them, some texts at a time."""
    split = WordSplitter(lower_case=False)
    texts = iter(values)
    while batch := list(itertools.islice(texts, _BATCH)):
        data = [text.encode() if isinstance(text, str) else text for text in batch]
        words = split(tf.strings.substr(tf.constant(data, tf.string), 0, MAX_BYTES))
        if lower_case:
            # Not by Python, whose rules differ in a few letters.
            words = words.with_flat_values(tf.strings.lower(words.flat_values, "utf-8"))
        yield [[word.decode() for word in row] for row in words.to_list()]


def count_texts(values: Iterable[str | bytes]) -> tuple[collections.Counter[str], int]:
    """In how many texts each lower-case word is, and how many texts there are."""
    counts: collections.Counter[str] = collections.Counter()
    number = 0
    for batch in split_texts(values):
        for row in batch:
            counts.update(set(row))
            number += 1
    return counts, number


def inverse_frequency(counts: np.ndarray, number: int) -> np.ndarray:
    """ln((1 + n) / (1 + count)) + 1, smoothed as if one more text had every word (the form of
    scikit-learn's `TfidfTransformer`).

    Args:
      counts: <int>[word], the texts that have it.
      number: of texts, n.

    Returns:
      <float32>[word].
    """
    return (np.log((1 + number) / (1 + counts)) + 1).astype(np.float32)


def _hash(words: tf.Tensor) -> tf.Tensor:
    """<string>[word] to <int64>[word], 0 to 2**63 - 2."""
    return tf.strings.to_hash_bucket_fast(words, 2**63 - 1)


@functools.cache
def _character_table(lower_case: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asks the normalizer and the word splitter of BERT about every character once.

    Returns:
      <int32>[entry], the code points that do not stay as they are, sorted;
      <int32>[entry, width], those that they become, padded with -1;
      <int32>[block, 2], start and end (exclusive) of long runs (Chinese, mostly) in which
      every character is a word of its own; these are not listed.
    """
    import tokenizers

    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower_case)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()

    @functools.cache
    def spaced(character: str) -> str:
        """A sign that is a word of its own, between spaces."""
        words = splitter.pre_tokenize_str(f"a{character}")
        return character if len(words) == 1 else f" {character} "

    def mapped(character: str) -> str:
        normal = normalizer.normalize_str(character)
        return "".join(c if c.isalnum() else spaced(c) for c in normal)

    table, alone = {}, []
    for code in _CODE_POINTS:
        character = chr(code)
        if unicodedata.category(character) != "Cs" and (to := mapped(character)) != character:
            table[code] = [ord(c) for c in to]
            if to == f" {character} ":
                alone.append(code)
    gaps = np.flatnonzero(np.diff(alone) > 1) + 1
    blocks = [(run[0], run[-1] + 1) for run in np.split(alone, gaps) if len(run) > 256]
    for first, end in blocks:
        for code in range(first, end):
            del table[code]
    width = max(3, *map(len, table.values()))
    values = [to + [-1] * (width - len(to)) for to in table.values()]
    return (
        np.array(list(table), np.int32),
        np.array(values, np.int32),
        np.array(blocks, np.int32),
    )
