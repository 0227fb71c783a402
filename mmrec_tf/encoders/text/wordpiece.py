"""Texts to WordPiece tokens (Wu et al. 2016) in the graph, as `transformers.BertTokenizerFast`.

All of it is core TensorFlow operations, so an export needs nothing that stock TensorFlow Serving
or a Python without TensorFlow Text lacks. (`tensorflow_text.FastBertTokenizer` also gives other ids
for common signs: it folds case and compatibility forms, so that an ellipsis is three dots and a
trade mark the letters "tm", where the vocabularies of BERT have entries for both.)
"""

import collections
import functools
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORD_CHARACTERS = 100
# All but planes without a character.
_CODE_POINTS = (*range(0x32400), *range(0xE0000, 0xE0200))
_PRIVATE_USE = 0xF0000
_EDGE = 2**21


class Tokenizer:
    """Text to token ids, without special tokens.

    Args:
      tokens: the vocabulary in the order of ids; "##" begins those that continue a word.
      lower_case: lower-cases and strips accents first.
      max_words: what lies beyond is not looked at.
    """

    def __init__(self, tokens: Sequence[str], *, lower_case: bool, max_words: int):
        self._max_words = max_words
        # Constants that only the CPU reads, shared by all graphs that call this.
        with tf.init_scope(), tf.device("CPU"):
            self._keys, self._values, self._blocks = map(tf.constant, _character_table(lower_case))
            self._match = LongestMatch(tokens)

    def __call__(self, raw: tf.Tensor) -> tf.RaggedTensor:
        """UTF-8 to ids.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped.

        Returns:
          <int32>[batch, (token)].
        """
        codes = tf.strings.unicode_decode(raw, "UTF-8", errors="replace")
        words = tf.strings.split(tf.strings.unicode_encode(self._map(codes), "UTF-8"))
        words = words[:, : self._max_words]
        too_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > MAX_WORD_CHARACTERS
        words = words.with_flat_values(tf.where(too_long, "[UNK]", words.flat_values))
        ids = self._match(words.flat_values)
        return words.with_flat_values(ids).merge_dims(1, 2)

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


class LongestMatch:
    """The longest piece first (Wu et al. 2016), in core operations.

    All words walk through one tree of the vocabulary's characters together, a character a step.
    An edge is one sorted number, node * 2**21 + code point. Node 0 begins words, node 1 continues
    them.

    Args:
      tokens: the vocabulary in the order of ids.
    """

    def __init__(self, tokens: Sequence[str]):
        edges: dict[tuple[int, str], int] = {}
        ends = [-1, -1]
        for number, token in enumerate(tokens):
            node, rest = (1, token[2:]) if token.startswith("##") else (0, token)
            for character in rest:
                if (node, character) not in edges:
                    edges[node, character] = len(ends)
                    ends.append(-1)
                node = edges[node, character]
            if node > 1:
                ends[node] = number
        listed = sorted((node * _EDGE + ord(c), child) for (node, c), child in edges.items())
        self._unknown = tokens.index("[UNK]")
        self._edges = tf.constant([edge for edge, _ in listed], tf.int64)
        self._children = tf.constant([child for _, child in listed], tf.int32)
        self._ends = tf.constant(ends, tf.int32)

    def __call__(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Words to ids.

        Args:
          words: <string>[word], in the vocabulary's letter case.

        Returns:
          <int32>[word, (token)]; [UNK] alone for a word that the vocabulary cannot spell.
        """
        ragged = tf.strings.unicode_decode(words, "UTF-8")
        # An empty column after the longest word, where every walk ends.
        codes = tf.pad(ragged.to_tensor(default_value=0), [[0, 0], [0, 1]])
        lengths = tf.cast(ragged.row_lengths(), tf.int32)
        zeros = tf.zeros_like(lengths)

        def unfinished(
            step: tf.Tensor,
            out: tf.TensorArray,
            at: tf.Tensor,
            node: tf.Tensor,
            last: tf.Tensor,
            token: tf.Tensor,
            failed: tf.Tensor,
        ) -> tf.Tensor:
            return tf.reduce_any(at < lengths)

        def walk(
            step: tf.Tensor,
            out: tf.TensorArray,
            at: tf.Tensor,
            node: tf.Tensor,
            last: tf.Tensor,
            token: tf.Tensor,
            failed: tf.Tensor,
        ) -> tuple[
            tf.Tensor, tf.TensorArray, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor
        ]:
            # A piece that may end a word is remembered; stuck, the walk goes back to its end.
            child = self._child(node, tf.gather(codes, at, batch_dims=1))
            end = tf.gather(self._ends, tf.maximum(child, 0))
            accepts = (child >= 0) & (end >= 0)
            last, token = tf.where(accepts, at + 1, last), tf.where(accepts, end, token)
            running = at < lengths
            stuck = running & ((child < 0) | (at + 1 >= lengths))
            emits = stuck & (token >= 0)
            out = out.write(step, tf.where(emits, token, -1))
            failed = failed | (stuck & (token < 0))
            at = tf.where(emits, last, tf.where(running, at + 1, at))
            at = tf.where(failed, lengths, at)
            node = tf.where(stuck, 1, child)
            return step + 1, out, at, node, last, tf.where(stuck, -1, token), failed

        out = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[None])
        # No words, no steps: an array without an element could not be stacked.
        out = out.write(0, zeros - 1)
        state = (1, out, zeros, zeros, zeros, zeros - 1, zeros > 0)
        _, out, *_, failed = tf.while_loop(unfinished, walk, state)
        ids = tf.transpose(out.stack())
        unknown = tf.where(tf.range(tf.shape(ids)[1]) > 0, -1, self._unknown)
        ids = tf.where(failed[:, tf.newaxis], unknown, ids)
        there = ids >= 0
        return tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(ids, there), tf.math.count_nonzero(there, axis=1)
        )

    def _child(self, node: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
        """<int32>[word], the node that a character leads to; -1 for none."""
        edge = tf.cast(node, tf.int64) * _EDGE + tf.cast(code, tf.int64)
        place = tf.minimum(tf.searchsorted(self._edges, edge), tf.size(self._edges) - 1)
        return tf.where(
            tf.equal(tf.gather(self._edges, place), edge), tf.gather(self._children, place), -1
        )


def learn_vocabulary(values: Iterable[str | bytes], *, size: int) -> list[str]:
    """Learns a lower-case vocabulary from texts; the same texts always give the same one.

    Args:
      values: texts, UTF-8 where they are bytes.
      size: the largest number of tokens.

    Returns:
      Tokens in the order of their ids, `SPECIAL_TOKENS` first.

    Raises:
      ConfigError: when no text is there to learn from.
    """
    import tokenizers

    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
    tokenizer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        counts.update(word for word, _ in words)
    if not counts:
        raise ConfigError(
            "text.weights: empty, and the catalog has no text to learn a vocabulary from. "
            "Set text.weights to a BERT model, or leave text out of modalities."
        )
    # The trainer numbers characters in the random order of a hash table, and breaks ties between
    # merges by number; given as special tokens, they come in this order.
    alphabet = sorted({character for word in counts for character in word})
    inside = sorted({f"##{character}" for word in counts for character in word[1:]})
    tokenizer.train_from_iterator(
        texts,
        vocab_size=size,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *inside],
        show_progress=False,
    )
    return in_order(tokenizer.get_vocab())


def read_synonyms(path: str | pathlib.Path) -> dict[str, list[str]]:
    """Reads a table of synonyms: lines "word TAB synonym,synonym,..." in UTF-8.

    Args:
      path: of the file. Blank lines are allowed, and so are several for one word.

    Returns:
      The synonyms of each word, as they are written.

    Raises:
      ConfigError: when the file cannot be read; naming the line when one has another form.
    """
    try:
        data = pathlib.Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: wanted a file of synonyms; {error.strerror}.") from error
    table: dict[str, list[str]] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            word, *rest = line.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}, line {number}: wanted UTF-8; {error.reason}.") from error
        synonyms = [synonym.strip() for part in rest for synonym in part.split(",")]
        if len(rest) != 1 or not word.strip() or not all(synonyms):
            raise ConfigError(
                f"{path}, line {number}: wanted a word, one tab, and synonyms with commas between "
                f"them; got {line.decode('utf-8')!r}."
            )
        table.setdefault(word.strip(), []).extend(synonyms)
    return table


def single_tokens(
    words: Iterable[str], tokens: Sequence[str], *, lower_case: bool
) -> dict[str, str]:
    """The token of each word that the vocabulary has as a whole; other words are left out.

    Args:
      words: in any letter case.
      tokens: the vocabulary in the order of ids.
      lower_case: as for `Tokenizer`.
    """
    words = list(words)
    if not words:
        return {}
    # Two words are enough to see that something is not one.
    ids = Tokenizer(tokens, lower_case=lower_case, max_words=2)(tf.constant(words)).to_list()
    spelled = {word: [tokens[i] for i in row] for word, row in zip(words, ids, strict=True)}
    return {word: row[0] for word, row in spelled.items() if len(row) == 1 and row[0] != "[UNK]"}


def in_order(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens of a mapping to ids, by id."""
    return sorted(vocabulary, key=lambda token: vocabulary[token])


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
