"""Texts to WordPiece tokens (Wu et al. 2016) in the graph, as `transformers.BertTokenizerFast`.

All of it is core TensorFlow operations, so an export needs nothing that stock TensorFlow Serving
or a Python without TensorFlow Text lacks. (`tensorflow_text.FastBertTokenizer` also gives other ids
for common signs: it folds case and compatibility forms, so that an ellipsis is three dots and a
trade mark the letters "tm", where the vocabularies of BERT have entries for both.)
"""

import collections
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from mmrec_tf.encoders.text.words import WordSplitter
from mmrec_tf.errors import ConfigError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORD_CHARACTERS = 100
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
            self._split = WordSplitter(lower_case=lower_case)
            self._match = LongestMatch(tokens)

    def __call__(self, raw: tf.Tensor) -> tf.RaggedTensor:
        """UTF-8 to ids.

        Args:
          raw: <string>[batch]; bytes that are not UTF-8 are dropped.

        Returns:
          <int32>[batch, (token)].
        """
        words = self._split(raw)[:, : self._max_words]
        too_long = tf.strings.length(words.flat_values, "UTF8_CHAR") > MAX_WORD_CHARACTERS
        words = words.with_flat_values(tf.where(too_long, "[UNK]", words.flat_values))
        ids = self._match(words.flat_values)
        return words.with_flat_values(ids).merge_dims(1, 2)


def frame(tokens: tf.RaggedTensor, *, first: int, last: int, pad: int, length: int) -> tf.Tensor:
    """Token ids between the two that a model begins and ends a text with.

    Args:
      tokens: <int32>[batch, (token)], cut to fit.
      first: such as that of [CLS].
      last: such as that of [SEP].
      pad: fills up.
      length: with both.

    Returns:
      <int32>[batch, length].
    """
    edge = tf.ones([tokens.nrows(tf.int32), 1], tf.int32)
    ids = tf.concat([first * edge, tokens[:, : length - 2], last * edge], axis=1)
    return ids.to_tensor(default_value=pad, shape=[None, length])


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
