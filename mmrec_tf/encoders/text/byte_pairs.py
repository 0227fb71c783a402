"""Texts to byte-level pairs (Sennrich et al. 2016; Radford et al. 2019) in the graph, as CLIP's
tokenizer makes them."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

# Of a word in bytes; what lies beyond is left out.
MAX_WORD_BYTES = 96
_SPLIT = r"('s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{Z}\p{L}\p{N}]+)"
_NEVER = 2**30
_EDGE = 2**24


class BytePairs:
    """Text to token ids, without special tokens.

    All words are merged together, each by its best pair a step: the pair that was learned first,
    and of several the leftmost.

    Args:
      vocabulary: ids by token; the last token of a word ends with "</w>".
      merges: pairs of tokens, in the order in which they were learned.
      max_words: what lies beyond is not looked at.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[Sequence[str]],
        *,
        max_words: int,
    ):
        self._max_words = max_words
        letters = _letters_of_bytes()
        rows = {
            vocabulary[left] * _EDGE + vocabulary[right]: (rank, vocabulary[left + right])
            for rank, (left, right) in reversed(list(enumerate(merges)))
        }
        keys = sorted(rows)
        with tf.init_scope(), tf.device("CPU"):
            self._inner = tf.constant([vocabulary[letter] for letter in letters], tf.int32)
            self._last = tf.constant([vocabulary[f"{letter}</w>"] for letter in letters], tf.int32)
            self._keys = tf.constant(keys or [-1], tf.int64)
            self._ranks = tf.constant([rows[key][0] for key in keys] or [_NEVER], tf.int32)
            self._merged = tf.constant([rows[key][1] for key in keys] or [0], tf.int32)

    def __call__(self, raw: tf.Tensor) -> tf.RaggedTensor:
        """UTF-8 to ids.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped.

        Returns:
          <int32>[batch, (token)].
        """
        text = tf.strings.unicode_transcode(raw, "UTF-8", "UTF-8", errors="ignore")
        text = tf.strings.lower(text, "utf-8")
        words = tf.strings.split(tf.strings.regex_replace(text, _SPLIT, r"\1 "))
        words = words[:, : self._max_words]
        ids = self._merge(words.flat_values)
        there = ids >= 0
        pieces = tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(ids, there), tf.math.count_nonzero(there, axis=1)
        )
        return words.with_flat_values(pieces).merge_dims(1, 2)

    def _merge(self, words: tf.Tensor) -> tf.Tensor:
        """<string>[word] to <int32>[word, token], -1 behind the last."""
        data = tf.io.decode_raw(words, tf.uint8, fixed_length=MAX_WORD_BYTES)
        data = tf.cast(tf.reshape(data, [-1, MAX_WORD_BYTES]), tf.int32)
        length = tf.minimum(tf.strings.length(words), MAX_WORD_BYTES)[:, tf.newaxis]
        place = tf.range(MAX_WORD_BYTES)[tf.newaxis]
        last = tf.equal(place, length - 1)
        ids = tf.where(last, tf.gather(self._last, data), tf.gather(self._inner, data))
        ids = tf.where(place < length, ids, -1)

        def merges(ids: tf.Tensor, going: tf.Tensor) -> tf.Tensor:
            return going

        def step(ids: tf.Tensor, going: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            after = tf.pad(ids[:, 1:], [[0, 0], [0, 1]], constant_values=-1)
            key = tf.cast(ids, tf.int64) * _EDGE + tf.cast(after, tf.int64)
            key = tf.where(after >= 0, key, -2)
            at = tf.minimum(
                tf.searchsorted(self._keys, tf.reshape(key, [-1])), tf.size(self._keys) - 1
            )
            at = tf.reshape(at, tf.shape(key))
            known = tf.equal(tf.gather(self._keys, at), key)
            rank = tf.where(known, tf.gather(self._ranks, at), _NEVER)
            best = tf.argmin(rank, axis=1, output_type=tf.int32)[:, tf.newaxis]
            found = tf.reduce_min(rank, axis=1, keepdims=True) < _NEVER
            into = tf.gather(self._merged, tf.gather(at, best, batch_dims=1))
            merged = tf.where(tf.equal(place, best), into, tf.where(place < best, ids, after))
            ids = tf.where(found, merged, ids)
            return ids, tf.reduce_any(found)

        ids, _ = tf.while_loop(
            merges,
            step,
            [ids, tf.size(words) > 0],
            shape_invariants=[tf.TensorShape([None, MAX_WORD_BYTES]), tf.TensorShape([])],
        )
        return ids


def _letters_of_bytes() -> list[str]:
    """What stands for each byte in vocabularies of byte-level pairs: itself where it can be seen,
    else the next letter from 256 on (Radford et al. 2019)."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in np.arange(256).tolist()]
