import csv
import random
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import transformers

from mmrec_tf.encoders.text import wordpiece
from mmrec_tf.errors import ConfigError

TEXTS = ["a small gray bird", "the bird sings", "the small woodpecker drums", "a gray day"] * 2
TOKENS = [
    *wordpiece.SPECIAL_TOKENS,
    *"abcd",
    *(f"##{c}" for c in "abcd"),
    "ab",
    "##cd",
    "##bcda",
]


@pytest.fixture
def make():
    """Makes tokenizers as graph functions."""

    def make(tokens, lower_case=True, max_words=1000):
        tokenizer = wordpiece.Tokenizer(tokens, lower_case=lower_case, max_words=max_words)
        spec = tf.TensorSpec([None], tf.string)
        return tf.function(tokenizer.__call__, input_signature=[spec])

    return make


@pytest.mark.parametrize(
    "raw, pieces",
    [
        ("ab", ["ab"]),
        # The longest piece first: "ab", not "a".
        ("abcd", ["ab", "##cd"]),
        # "##bcda" is tried and ends too early: back to where "##b" ended.
        ("dbcd", ["d", "##b", "##cd"]),
        ("dbcda", ["d", "##bcda"]),
        ("cab", ["c", "##a", "##b"]),
        # One character that no piece has makes the whole word unknown.
        ("abcdxab ab", ["[UNK]", "ab"]),
        ("  AB\t\u00e1b  ", ["ab", "ab"]),
        ("a" * 100, ["a"] + 99 * ["##a"]),
        ("a" * 101, ["[UNK]"]),
        ("[PAD]", ["[UNK]", "[UNK]", "[UNK]"]),
        ("", []),
    ],
)
def test_pieces_by_hand(make, raw, pieces):
    ids = make(TOKENS)(tf.constant([raw, "d"]))
    assert [TOKENS[i] for i in ids[0].numpy()] == pieces
    assert [TOKENS[i] for i in ids[1].numpy()] == ["d"]


def test_no_rows(make):
    assert make(TOKENS)(tf.zeros([0], tf.string)).shape[0] == 0


def test_words_beyond_the_last_are_not_looked_at(make):
    ids = make(TOKENS, max_words=2)(tf.constant(["a b c", "d"]))
    assert ids.to_list() == [[5, 6], [8]]


def everything_readable():
    return [
        chr(code)
        for code in (*range(1, 0x32400), *range(0xE0000, 0xE0200), 0xF0001)
        if unicodedata.category(chr(code)) not in ("Cs", "Cn")
    ]


@pytest.mark.parametrize("lower_case", [True, False])
def test_every_character_as_in_tokenizers(make, lower_case):
    characters = everything_readable()
    draw = random.Random(0)
    texts = [f"ab{character}cd" for character in characters[::7]]
    texts += ["".join(draw.choices(characters, k=40)) for _ in range(500)]
    alphabet = characters[::3]
    tokens = [*wordpiece.SPECIAL_TOKENS, *alphabet, *(f"##{c}" for c in alphabet)]
    tokens = list(dict.fromkeys(tokens))
    reference = tokenizers.BertWordPieceTokenizer(
        {token: number for number, token in enumerate(tokens)}, lowercase=lower_case
    )
    want = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    assert make(tokens, lower_case)(tf.constant(texts)).to_list() == want


def test_real_texts_get_the_ids_of_transformers(make, shared):
    folder = shared / "weights" / "text" / "minilm-l6-fp16"
    tables = [shared / "data" / name / "items.csv" for name in ("birds", "ml_posters")]
    if not folder.is_dir() or not all(table.is_file() for table in tables):
        pytest.skip("needs shared/weights/text and shared/data, which are not here")
    texts = []
    for table in tables:
        with table.open(encoding="utf-8") as file:
            texts += [" ".join(row.values()) for row in csv.DictReader(file)]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    want = reference(texts, add_special_tokens=False)["input_ids"]
    tokens = wordpiece.in_order(reference.get_vocab())
    assert make(tokens)(tf.constant(texts)).to_list() == want


def test_learned_vocabulary_is_small_ordered_and_spells_every_word(make):
    tokens = wordpiece.learn_vocabulary(TEXTS, size=60)
    assert tuple(tokens[:5]) == wordpiece.SPECIAL_TOKENS
    assert {"bird", "small", "the"} <= set(tokens)
    assert len(tokens) == len(set(tokens)) <= 60
    assert 1 not in make(tokens)(tf.constant(TEXTS)).flat_values


def test_learned_vocabulary_is_always_the_same():
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(200)]
    texts = [" ".join(draw.choices(words, k=20)) for _ in range(50)]
    first = wordpiece.learn_vocabulary(texts, size=300)
    for _ in range(5):
        assert wordpiece.learn_vocabulary([t.encode() for t in texts], size=300) == first


@pytest.mark.parametrize("values", [[], ["", " "], np.array([b"", b"\n"])])
def test_nothing_to_learn_from(values):
    with pytest.raises(ConfigError, match="no text to learn a vocabulary from"):
        wordpiece.learn_vocabulary(values, size=60)
