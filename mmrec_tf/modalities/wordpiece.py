"""BERT's WordPiece tokenizer in core TensorFlow operations, for one path from text to ids.

Text becomes ids in three steps, each a pass over all characters of the batch at once:

    normalize    a table says what each character turns into: nothing, a space, or letters
    split        at white space, and around punctuation and Chinese characters
    match        the longest piece that starts at each place, along a trie of the vocabulary

Nothing here needs TensorFlow Text, a lookup table to initialize, or Python while it runs, so an
exported graph loads in stock TensorFlow Serving.
"""

import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmrec_tf.errors import ConfigError

_MAX_WORD_CHARACTERS = 100
_CODE_POINTS = 0x110000
_BLOCK = 128

# What one character is when words are split, in the lowest bits of a packed character.
_DROPPED, _SPACE, _ALONE, _LETTER = range(4)
_KIND_BITS, _CLASS_BITS, _CODE_BITS = 2, 8, 21

# Rules that leave the character as it is. Their code point is zero, and the character's is added.
_KEPT = (_LETTER,)
_KEPT_ALONE = (_ALONE,)

# Hugging Face's tokenizers 0.22 knows categories from Unicode 8 and decompositions from Unicode 9.
# What is newer is a letter to it, whatever the Unicode of this Python says. Inside a range stand
# only letters and what is newer. With these, Unicode 14 to 18 give the same rules.
_NEWER = """
    5C8-5C9 61D 7FD 890-8E2 9FD-9FE A76 AFA-AFF B53-B55 C04-C3C C77 C84 D00 D3B-D3C D81 EBA ECE
    1715 180F-1886 1ABF-1AF0 1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C A8C5 A8FF A9BD 105C9-105E4
    10D24-10F89 11070-11074 110C2-110CD 111CF 1123E-11241 1133B 11383-1145E 11660-1166C 116B9
    1182F-11FFF 12FF1-13455 1611E-1612F 16D68-16F4F 16FE2-16FF1 1CF00-1D128 1D250-1D281
    1E000-1E6F5 1E944-1E95F
"""
# Of those, the marks of Unicode 9, which are put in canonical order all the same.
_NEWER_IN_ORDER = "8D4-8E1 1DFB 11442 11446 11C3F 1E000-1E02A 1E944-1E94A"
# Characters whose category changed since.
_OLD_CATEGORIES = {0x166D: "Po", 0x1734: "Mn", 0x111C9: "Po", 0x1171E: "Mn"}
# Capitals that are newer than Python's, yet known to it: first, last, distance to the small letter.
_NEWER_CAPITALS = (
    (0x1C89, 0x1C89, 1),
    (0xA7CB, 0xA7CB, 0x264 - 0xA7CB),
    (0xA7CC, 0xA7CC, 1),
    (0xA7CE, 0xA7CE, 1),
    (0xA7D2, 0xA7D2, 1),
    (0xA7D4, 0xA7D4, 1),
    (0xA7DA, 0xA7DA, 1),
    (0xA7DC, 0xA7DC, 0x19B - 0xA7DC),
    (0x10D50, 0x10D65, 0x20),
    (0x16EA0, 0x16EB8, 0x1B),
)
# The blocks that BERT takes for Chinese characters; the gap at 2B820 is that tokenizer's.
_CHINESE = "3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2B81F 2B920-2CEAF 2F800-2FA1F"


class WordPiece:
    """Turns texts into token ids as BERT does (Devlin et al. 2019, after Wu et al. 2016).

    Ids equal those of `transformers.BertTokenizerFast` with `split_special_tokens=True`: a special
    token spelled out in a text, such as "[SEP]", is plain text, so nobody can end a text from
    inside it.

    Every place of a word asks for the longest piece that starts there, and all places walk the
    trie of the vocabulary side by side, so the number of steps depends on the longest piece and
    not on the texts. (Song et al. 2021 reach linear time with failure links, one word at a time.)

    Args:
      vocabulary: tokens in the order of their ids, those inside a word with "##" in front; holds
        [PAD] (id 0), [UNK], [CLS], [SEP]. Of a token that is there twice, the last counts.
      lower_case: lower-cases and strips accents before tokens are looked up.
      max_tokens: the length of a row, [CLS] and [SEP] included.

    Raises:
      ConfigError: when the vocabulary lacks a special token or does not begin with [PAD], or when
        [CLS] and [SEP] do not fit into `max_tokens`.
    """

    def __init__(self, vocabulary: Sequence[str], *, lower_case: bool = True, max_tokens: int):
        missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
        if missing or vocabulary[0] != "[PAD]":
            raise ConfigError(
                "text: wanted a vocabulary that begins with [PAD] and has [UNK], [CLS] and [SEP]; "
                f"got one that begins with {''.join(vocabulary[:1]) or 'nothing'} and lacks "
                f"{', '.join(missing) or 'none'}."
            )
        if max_tokens < 2:
            raise ConfigError(
                f"text.max_tokens: wanted at least 2, for [CLS] and [SEP]; got {max_tokens}."
            )
        self.lower_case = lower_case
        self.max_tokens = max_tokens
        ids = {token: index for index, token in enumerate(vocabulary)}
        self._unk, self._cls, self._sep = (ids[token] for token in ("[UNK]", "[CLS]", "[SEP]"))
        self._rules = _rules(lower_case)
        self._trie = _trie(ids)
        # One function for all callers: a graph that tokenizes in several places holds it once.
        self._tokenize = tf.function(
            self._graph, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
        )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """UTF-8 to token ids.

        Args:
          texts: <string>[batch]; bytes that are not UTF-8 are left out.

        Returns:
          <int32>[batch, max_tokens], [CLS] ... [SEP] and zeros behind.
        """
        return self._tokenize(texts)

    def _graph(self, texts: tf.Tensor) -> tf.Tensor:
        # Strings live on the CPU, and what follows are many small steps.
        with tf.device("CPU"):
            batch = tf.shape(texts)[0]
            packed, text = self._normalize(texts)
            words = _split(packed, text, batch=batch, limit=self.max_tokens - 2)
            ids, text = self._match(words)
            return self._frame(ids, text, batch=batch)

    def _normalize(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts to packed characters <int32>[character] and each one's text <int32>[character]."""
        decoded = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
        code = decoded.flat_values
        block = tf.cast(tf.gather(self._rules.blocks, code // _BLOCK), tf.int32)
        rule = tf.gather(self._rules.table.reshape(-1), block * _BLOCK + code % _BLOCK)
        rule = tf.cast(rule, tf.int32)
        lengths = tf.cast(self._rules.lengths, tf.int64)
        rules = tf.RaggedTensor.from_row_lengths(self._rules.values, lengths, validate=False)
        became = tf.gather(rules, rule)
        origin = _owners(became.row_lengths())
        kept = tf.where(rule < 2, tf.bitwise.left_shift(code, _KIND_BITS + _CLASS_BITS), 0)
        packed = became.flat_values + tf.gather(kept, origin)
        text = tf.gather(_owners(decoded.row_lengths()), origin)
        if self.lower_case:
            packed = _in_canonical_order(packed, text)
        seen = tf.not_equal(_kind(packed), _DROPPED)
        return tf.boolean_mask(packed, seen), tf.boolean_mask(text, seen)

    def _match(self, words: "_Words") -> tuple[tf.Tensor, tf.Tensor]:
        """Words to ids <int32>[piece] and each one's text <int32>[piece]."""
        edges = _edges(self._trie)
        # A word that is too long gets no place to go, and so no piece.
        too_long = words.end - words.start > _MAX_WORD_CHARACTERS
        end = tf.where(too_long, words.start, words.end)
        stop, ids = _longest(edges, words.codes, start=words.start, end=end, node=0)
        known = stop > words.start

        # Most words are one piece. The others ask at every place behind their first.
        several = known & (stop < end)
        places = tf.range(tf.size(words.codes))
        behind = tf.gather(several, words.of) & (places >= tf.gather(stop, words.of))
        place = tf.boolean_mask(places, behind)
        place_end = tf.gather(end, tf.boolean_mask(words.of, behind))
        place_stop, place_ids = _longest(
            edges, words.codes, start=place, end=place_end, node=self._trie.inside
        )
        stops = tf.tensor_scatter_nd_update(places, place[:, tf.newaxis], place_stop)
        reached, stuck = _follow(
            stops, tf.boolean_mask(stop, several), end=tf.boolean_mask(end, several)
        )

        # A word that gets stuck anywhere is unknown as a whole.
        known &= ~tf.scatter_nd(tf.where(several), stuck, tf.shape(known, tf.int64))
        all_ids = tf.concat([tf.where(known, ids, self._unk), place_ids], 0)
        at = tf.concat([words.start, place], 0)
        all_ids = tf.scatter_nd(at[:, tf.newaxis], all_ids, tf.shape(places))
        pieces = words.begins | (reached & tf.gather(known, words.of))
        return (
            tf.boolean_mask(all_ids, pieces),
            tf.gather(words.text, tf.boolean_mask(words.of, pieces)),
        )

    def _frame(self, ids: tf.Tensor, text: tf.Tensor, *, batch: tf.Tensor) -> tf.Tensor:
        """Puts each text's first pieces between [CLS] and [SEP]."""
        counts = _counts(text, batch)
        before = tf.cumsum(counts, exclusive=True)
        column = tf.range(tf.size(ids)) - tf.gather(before, text) + 1
        last = tf.minimum(counts, self.max_tokens - 2) + 1
        fits = column < self.max_tokens - 1
        row = tf.range(batch)
        rows = tf.concat([row, tf.boolean_mask(text, fits), row], 0)
        columns = tf.concat([tf.zeros_like(row), tf.boolean_mask(column, fits), last], 0)
        ids = tf.concat(
            [tf.fill([batch], self._cls), tf.boolean_mask(ids, fits), tf.fill([batch], self._sep)],
            0,
        )
        return tf.scatter_nd(tf.stack([rows, columns], 1), ids, [batch, self.max_tokens])


class _Words(NamedTuple):
    """All words of a batch, one behind the other."""

    codes: tf.Tensor  # <int32>[character], code points
    begins: tf.Tensor  # <bool>[character], True where a word begins
    of: tf.Tensor  # <int32>[character], the word that each belongs to
    start: tf.Tensor  # <int32>[word]
    end: tf.Tensor  # <int32>[word]
    text: tf.Tensor  # <int32>[word]


def _kind(packed: tf.Tensor) -> tf.Tensor:
    return packed & ((1 << _KIND_BITS) - 1)


def _counts(owners: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """<int32>[size], how often each of 0, 1, ... is there."""
    return tf.math.unsorted_segment_sum(tf.ones_like(owners), owners, size)


def _owners(lengths: tf.Tensor) -> tf.Tensor:
    """<int32>[sum of lengths], 0 as often as the first length says, then 1, and so on.

    `tf.repeat` and `RaggedTensor.value_rowids` do the same by way of a matrix of all rows by the
    longest, which one long text blows up.
    """
    ends = tf.cumsum(tf.cast(lengths, tf.int32))
    total = tf.reduce_max(tf.concat([[0], ends], 0))
    return tf.cumsum(_counts(ends, total + 1))[:total]


def _changes(values: tf.Tensor) -> tf.Tensor:
    """<bool>[n], True at the first element and where one differs from the one before."""
    ahead = tf.not_equal(values[1:], values[:-1])
    return tf.concat([tf.ones_like(values[:1], tf.bool), ahead], 0)


def _in_canonical_order(packed: tf.Tensor, text: tf.Tensor) -> tf.Tensor:
    """Sorts the marks behind a letter by their class, as normal form D wants.

    Only marks that take up space are left by now. Two of them in a row are so rare that the sort
    is skipped for nearly all batches.
    """
    order = tf.bitwise.right_shift(packed, _KIND_BITS) & ((1 << _CLASS_BITS) - 1)

    def ordered():
        begins = tf.equal(order, 0) | _changes(text)
        group = tf.cumsum(tf.cast(begins, tf.int64))
        key = tf.bitwise.left_shift(group, _CLASS_BITS) + tf.cast(order, tf.int64)
        return tf.gather(packed, tf.argsort(key, stable=True))

    return tf.cond(tf.reduce_any(order > 0), ordered, lambda: packed)


def _split(packed: tf.Tensor, text: tf.Tensor, *, batch: tf.Tensor, limit: int) -> _Words:
    """Cuts characters into words, and keeps the first `limit` of each text.

    A word has one piece at least, so what comes later could never be seen.
    """
    kind = _kind(packed)
    divides = tf.not_equal(kind, _LETTER)
    after = tf.concat([tf.ones_like(divides[:1]), divides[:-1]], 0)
    seen = tf.not_equal(kind, _SPACE)
    begins = seen & (divides | after | _changes(text))
    before = tf.cumsum(_counts(tf.boolean_mask(text, begins), batch), exclusive=True)
    place = tf.cumsum(tf.cast(begins, tf.int32)) - tf.gather(before, text)
    seen &= place <= limit

    begins = tf.boolean_mask(begins, seen)
    start = tf.cast(tf.where(begins)[:, 0], tf.int32)
    return _Words(
        codes=tf.bitwise.right_shift(tf.boolean_mask(packed, seen), _KIND_BITS + _CLASS_BITS),
        begins=begins,
        of=tf.cumsum(tf.cast(begins, tf.int32)) - 1,
        start=start,
        end=tf.concat([start[1:], tf.shape(begins)], 0),
        text=tf.gather(tf.boolean_mask(text, seen), start),
    )


def _longest(
    edges: "_Edges", codes: tf.Tensor, *, start: tf.Tensor, end: tf.Tensor, node: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The longest piece at each of some places.

    Args:
      edges: the trie.
      codes: <int32>[character].
      start: <int32>[place], where a piece begins.
      end: <int32>[place], where the word ends.
      node: where in the trie the walk begins.

    Returns:
      <int32>[place], where the piece ends, `start` where there is none; <int32>[place], its id, 0
      where there is none.
    """

    def step(depth, walker, node, found):
        at = tf.gather(start, walker) + depth
        key = _key(node, tf.gather(codes, at))
        edge = tf.searchsorted(edges.keys, key)
        edge = tf.minimum(edge, tf.size(edges.keys) - 1)
        exists = tf.equal(tf.gather(edges.keys, edge), key)
        walker, at = tf.boolean_mask(walker, exists), tf.boolean_mask(at, exists) + 1
        node = tf.boolean_mask(edge, exists) + 1
        ids = tf.gather(edges.ids, node)
        found = tf.tensor_scatter_nd_update(
            found,
            tf.boolean_mask(walker, ids > 0)[:, tf.newaxis],
            tf.boolean_mask(tf.stack([at, ids], 1), ids > 0),
        )
        on = at < tf.gather(end, walker)
        return depth + 1, tf.boolean_mask(walker, on), tf.boolean_mask(node, on), found

    walker = tf.boolean_mask(tf.range(tf.size(start)), start < end)
    found = tf.while_loop(
        lambda depth, walker, node, found: tf.size(walker) > 0,
        step,
        [0, walker, tf.fill(tf.shape(walker), node), tf.stack([start, tf.zeros_like(start)], 1)],
        shape_invariants=[tf.TensorShape(shape) for shape in ([], [None], [None], [None, 2])],
    )[-1]
    return found[:, 0], found[:, 1]


def _follow(stops: tf.Tensor, place: tf.Tensor, *, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Goes from piece to piece through the words that have several.

    Args:
      stops: <int32>[character], where the piece that starts there ends; itself where none does.
      place: <int32>[word], where the second piece of each should start.
      end: <int32>[word].

    Returns:
      <bool>[character], True where a piece should start; <bool>[word], True where one of them
      does not.
    """

    def step(word, place, reached, stuck):
        here = tf.ones_like(place, tf.bool)
        reached = tf.tensor_scatter_nd_update(reached, place[:, tf.newaxis], here)
        stop = tf.gather(stops, place)
        none = tf.equal(stop, place)
        stuck = tf.tensor_scatter_nd_update(stuck, word[:, tf.newaxis], none)
        on = ~none & (stop < tf.gather(end, word))
        return tf.boolean_mask(word, on), tf.boolean_mask(stop, on), reached, stuck

    flags = tf.zeros_like(stops, tf.bool), tf.zeros_like(place, tf.bool)
    _, _, reached, stuck = tf.while_loop(
        lambda word, place, reached, stuck: tf.size(word) > 0,
        step,
        [tf.range(tf.size(place)), place, *flags],
        shape_invariants=[tf.TensorShape([None])] * 4,
    )
    return reached, stuck


class _Trie(NamedTuple):
    """The beginnings of all tokens, shorter ones first, then by code points; "" is node 0.

    An edge's number and that of the node below it differ by one.
    """

    children: np.ndarray  # [node], how many edges go down
    codes: np.ndarray  # [edge], code points
    ids: np.ndarray  # [node], the token that ends here, 0 for none
    inside: int  # the node of "##"


def _trie(ids: dict[str, int]) -> _Trie:
    beginnings = {token[:length] for token in [*ids, "##"] for length in range(len(token) + 1)}
    nodes = sorted(beginnings, key=lambda beginning: (len(beginning), beginning))
    places = {beginning: place for place, beginning in enumerate(nodes)}
    parents = [places[beginning[:-1]] for beginning in nodes[1:]]
    return _Trie(
        children=_smallest(np.bincount(parents, minlength=len(nodes))),
        codes=_smallest([ord(beginning[-1]) for beginning in nodes[1:]]),
        ids=_smallest([ids.get(beginning, 0) for beginning in nodes]),
        inside=places["##"],
    )


class _Edges(NamedTuple):
    """The trie in the graph."""

    keys: tf.Tensor  # <int64>[edge], the upper node and a code point; rising
    ids: tf.Tensor  # <int32>[node], the token that ends here, 0 for none


def _edges(trie: _Trie) -> _Edges:
    """Made in the graph, because what it is made from takes half the space."""
    return _Edges(
        keys=_key(_owners(trie.children), tf.cast(trie.codes, tf.int32)),
        ids=tf.cast(trie.ids, tf.int32),
    )


def _key(node: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
    node, code = tf.cast(node, tf.int64), tf.cast(code, tf.int64)
    return tf.bitwise.left_shift(node, _CODE_BITS) + code


class _Rules(NamedTuple):
    """What each character turns into: a number of packed characters, often shared by many."""

    blocks: np.ndarray  # [code point // _BLOCK], a row of `table`
    table: np.ndarray  # [row, code point % _BLOCK], a rule; 0 and 1 keep the character
    lengths: np.ndarray  # [rule]
    values: np.ndarray  # <int32>[sum of lengths]: code point, combining class, kind


@functools.cache
def _rules(lower_case: bool) -> _Rules:
    newer, in_order, chinese = map(_ranges, (_NEWER, _NEWER_IN_ORDER, _CHINESE))
    capitals = {
        code: code + shift
        for first, last, shift in _NEWER_CAPITALS
        for code in range(first, last + 1)
    }

    def category(code: int) -> str:
        return "" if code in newer else _OLD_CATEGORIES.get(code) or unicodedata.category(chr(code))

    def rule(code: int) -> tuple[int, ...]:
        character, group = chr(code), category(code)
        if group[:1] == "Z" or character in "\t\n\r":
            return (_SPACE,)
        if group in ("Cc", "Cf", "Co") or character == "\ufffd":
            return ()
        parts = character
        if lower_case and code not in newer:
            parts = unicodedata.normalize("NFD", character)
        return tuple(value for part in map(ord, parts) for value in spell(part, code))

    def spell(part: int, code: int) -> tuple[int, ...]:
        order = 0
        if lower_case and (part not in newer or part in in_order):
            order = unicodedata.combining(chr(part))
        if lower_case and category(part) == "Mn":
            # Others may change places across a mark, but not across one of class zero.
            return () if order else (_DROPPED,)
        lowered = part
        if lower_case:
            lowered = capitals.get(part) or ord(chr(part).lower())
        ascii_sign = 32 < lowered < 127 and not chr(lowered).isalnum()
        alone = code in chinese or ascii_sign or category(lowered)[:1] == "P"
        kind = _ALONE if alone else _LETTER
        shown = 0 if (lowered, order) == (code, 0) else lowered
        return ((((shown << _CLASS_BITS) | order) << _KIND_BITS) | kind,)

    # Whole planes are unassigned, private or Chinese; asking for each would take a second.
    plain: dict[str, tuple[int, ...]] = {"Cn": _KEPT, "Cs": _KEPT, "Co": ()}
    rules: dict[tuple[int, ...], int] = {_KEPT: 0, _KEPT_ALONE: 1}
    table = np.zeros(_CODE_POINTS, np.uint16)
    for code, character in enumerate(map(chr, range(_CODE_POINTS))):
        values = plain.get(unicodedata.category(character))
        if code in chinese and not unicodedata.decomposition(character):
            values = _KEPT_ALONE
        elif values is None or code in capitals:
            values = rule(code)
        table[code] = rules.setdefault(values, len(rules))
    rows: dict[bytes, int] = {}
    blocks = [rows.setdefault(row.tobytes(), len(rows)) for row in table.reshape(-1, _BLOCK)]
    return _Rules(
        blocks=_smallest(blocks),
        table=np.frombuffer(b"".join(rows), np.uint16).reshape(-1, _BLOCK),
        lengths=_smallest([len(values) for values in rules]),
        values=np.array([value for values in rules for value in values], np.int32),
    )


def _ranges(spelled: str) -> frozenset[int]:
    """Code points from their hexadecimal ranges, ends included."""
    ends = [part.partition("-") for part in spelled.split()]
    return frozenset(
        code
        for first, _, last in ends
        for code in range(int(first, 16), int(last or first, 16) + 1)
    )


def _smallest(values) -> np.ndarray:
    """The values in the smallest type that holds them, so that an exported graph stays small."""
    values = np.asarray(values)
    return values.astype(np.uint16 if values.max() < 1 << 16 else np.int32)
