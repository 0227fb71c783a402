"""Ids from the graph against those of transformers.BertTokenizerFast, one by one."""

import csv
import json
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import transformers
from tensorflow.core.protobuf import saved_model_pb2

from mmrec_tf.errors import ConfigError
from mmrec_tf.modalities.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# All that Unicode has assigned, and some of the rest: private planes and gaps.
CODES = [*range(0xD800), *range(0xE000, 0x32000), *range(0x32000, 0x110000, 101)]
CODE_POINTS = [chr(code) for code in CODES + list(range(0xE0000, 0xE0200))]
NASTY = [
    "",
    " ",
    " \t\r\n \u00a0\u3000\u2028 ",
    "The woodpecker's drumming, un-bird-like: 5.5\u20137.1 in!",
    "Crème brûlée, NAÏVE façade Ångström e\u0301 E\u0308\u0301 \u0301alone",
    "\ufb01nch o\ufb00er \u00bd \u00b2 \u2122 \u212b \u2126",
    "\u4e2d\u6587bird\u9ce5\u3042\u30ab\u30ad\u3099 \U00020000\uf900\ufa6e\u3400x",
    "\U0001f426\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "\ud55c\uad6d\uc5b4 \uac00\u1100\u1161\u11a8",
    "\u0e01\u0e33\u0e48 \u0915\u094d\u0937\u093f \u0627\u0644\u0637\u0650 \u05e9\u05c1",
    "soft\u00adhyphen zero\u200bwidth join\u200der\u200cs bom\ufeff \u202ertl",
    "nul\x00 bell\x07 del\x7f tab\tnew\nline\r\x0b\x0c\x1c\x85 next",
    "\u0130stanbul I\u0131 STRASSE stra\u00dfe \u1e9e \u039f\u03a3 \u03c3\u03c2 \u01c5",
    "a" * 100 + " " + "a" * 101 + " " + "e\u0301" * 100 + " bird",
    "bird" * 25 + " " + "bird" * 26 + " birdq birdsbirds",
    "[CLS] a [SEP] b [UNK] [MASK] [PAD] [cls]",
    "##ing # ## bird##s",
    "\u2260 \u2264 \u2211x\u221a2 \u226e 1\u20442 \u00d7\u00f7\u00b1",
    "a$b+c<d=e>f^g`h|i~j @k_l\\m \u00a7\u00b6\u00a1\u00bf\u037e \u2014\u2026\u00ab\u00bb",
    "\ufffd private \ue000\U000f0000 unassigned \u0378 noncharacter \uffff\U0010ffff",
    # Marks that take up space change places, but not across a mark of class zero.
    "a\U0001d165\ua953 a\U0001d16d\u0316\U0001d165 a\u302e\u0301\ua953 a\u302e\u0e31\ua953 \U0001d165\U00011c3f",
    # Newer than the tables that BertTokenizerFast goes by.
    "\u0c81\u08d4\u302e\U00011938\U0001e000\U00016ff0\u1715 \u2e4f \u166d\u1734\U0001171e",
    # Small letters known to no Unicode that Python 3.12 has.
    "\u1c89\ua7cb\ua7dc\U00010d50\U00016ea0",
]


def reference(tokens, path, *, lower_case=True):
    (path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")
    return transformers.BertTokenizerFast(str(path / "vocab.txt"), do_lower_case=lower_case)


def wanted(tokenizer, texts, max_tokens):
    ids = tokenizer(
        texts,
        max_length=max_tokens,
        truncation=True,
        padding="max_length",
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return np.array(ids["input_ids"])


def assert_same(tokenizer, ours, texts):
    """Equal ids; the first text that differs is shown with its code points."""
    for start in range(0, len(texts), 4096):
        part = texts[start : start + 4096]
        got = ours(tf.constant([text.encode() for text in part])).numpy()
        expected = wanted(tokenizer, part, ours.max_tokens)
        for row in np.flatnonzero((got != expected).any(axis=1)):
            raise AssertionError(
                f"{ascii(part[row])}\n  got    {got[row].tolist()}\n"
                f"  wanted {expected[row].tolist()}"
            )


def learn(lower_case):
    learner = tokenizers.BertWordPieceTokenizer(lowercase=lower_case)
    corpus = [*NASTY, "a bird sings", "birds singing", "the Bird drums", "woodpeckers"] * 3
    learner.train_from_iterator(
        corpus, vocab_size=600, min_frequency=2, special_tokens=SPECIAL, show_progress=False
    )
    vocabulary = learner.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


@pytest.fixture(scope="module")
def learned():
    return learn(True)


@pytest.fixture(scope="module")
def characters():
    """One token for nearly every character that can come out, so that each one shows."""
    seen = [c for c in CODE_POINTS[:0x1F800] if unicodedata.category(c) not in ("Co", "Cc")]
    seen = [c for c in seen if not ("\u3500" < c < "\u9f00" or "\uac10" < c < "\ud7a3")]
    letters = [c for c in seen if not c.isspace()]
    return SPECIAL + letters + ["##" + letter for letter in letters]


@pytest.mark.parametrize("lower_case", [True, False])
def test_nasty_texts(tmp_path, lower_case):
    tokens = learn(lower_case)
    tokenizer = reference(tokens, tmp_path, lower_case=lower_case)
    for max_tokens in (2, 8, 512):
        ours = WordPiece(tokens, lower_case=lower_case, max_tokens=max_tokens)
        assert_same(tokenizer, ours, NASTY)


def test_ids_by_hand():
    tokens = [*SPECIAL, "un", "##bird", "##b", "##like", "bird", "'", "##"]
    ids = WordPiece(tokens, max_tokens=6)(
        tf.constant(["", "UnBirdLike", "bird's", "unx", "birdlik", "bird " * 9])
    )
    np.testing.assert_array_equal(
        ids,
        [
            [2, 3, 0, 0, 0, 0],
            [2, 5, 6, 8, 3, 0],
            [2, 9, 10, 1, 3, 0],
            [2, 1, 3, 0, 0, 0],
            [2, 1, 3, 0, 0, 0],
            [2, 9, 9, 9, 9, 3],
        ],
    )


@pytest.mark.parametrize("lower_case", [True, False])
def test_every_character(tmp_path, characters, lower_case):
    ours = WordPiece(characters, lower_case=lower_case, max_tokens=512)
    tokenizer = reference(characters, tmp_path, lower_case=lower_case)
    texts = [
        " ".join(f"a{character}b" for character in CODE_POINTS[start : start + 100])
        for start in range(0, len(CODE_POINTS), 100)
    ]
    assert_same(tokenizer, ours, texts)
    assert_same(tokenizer, ours, NASTY)

    # Assigned characters in any order, and marks upon marks.
    assigned = [c for c in CODE_POINTS if unicodedata.category(c) not in ("Cn", "Co")]
    marks = [c for c in assigned if unicodedata.category(c)[0] == "M"]
    spacing = [c for c in marks if unicodedata.category(c) == "Mc"]
    for pool in (assigned, CODE_POINTS[:0x3000], marks, [*spacing * 5, *marks, *"aé中 ,각" * 9]):
        fuzz = ["".join(random.choices(pool, k=random.randrange(60))) for _ in range(1500)]
        assert_same(tokenizer, ours, fuzz)


def test_long_and_repeated_words(tmp_path, learned):
    ours = WordPiece(learned, max_tokens=64)
    fuzz = ["".join(random.choices("bird s", k=random.randrange(400))) for _ in range(1000)]
    assert_same(reference(learned, tmp_path), ours, fuzz)


def test_bytes_that_are_not_text(tmp_path, characters):
    ours = WordPiece(characters, max_tokens=32)
    some = b"a \xe2\x82\xac\xff\xc3\xa9\xed\xa0\x80\xf0\x9f\x98\xf4\x90\xc0"
    raw = [bytes(random.choices(some, k=random.randrange(12))) for _ in range(3000)]
    texts = [value.decode("utf-8", "replace") for value in raw]
    expected = wanted(reference(characters, tmp_path), texts, 32)
    np.testing.assert_array_equal(ours(tf.constant(raw)), expected)


@pytest.mark.parametrize("lower_case", [True, False])
def test_real_texts_with_a_real_vocabulary(shared, tmp_path, lower_case):
    path = shared / "weights" / "text" / "minilm-l6-fp16" / "vocab.txt"
    tables = [shared / "data" / name / "items.csv" for name in ("birds", "ml_posters")]
    if not all(file.is_file() for file in [path, *tables]):
        pytest.skip("needs the MiniLM vocabulary and the item tables of birds and ml_posters")
    texts = list(NASTY)
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            texts += [value for row in csv.DictReader(file) for value in row.values()]
    assert len(texts) > 10_000
    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ours = WordPiece(tokens, lower_case=lower_case, max_tokens=128)
    assert_same(reference(tokens, tmp_path, lower_case=lower_case), ours, texts)


def test_rows_do_not_see_each_other(learned):
    ours = WordPiece(learned, max_tokens=16)
    together = ours(tf.constant(NASTY)).numpy()
    alone = np.concatenate([ours(tf.constant([text])).numpy() for text in NASTY])
    np.testing.assert_array_equal(together, alone)
    # A mark at the beginning of a text does not join what the text before ends with.
    pair = tf.constant(["a\u302e", "\ua953a"])
    np.testing.assert_array_equal(ours(pair)[::-1], ours(pair[::-1]))
    for size in (0, 1, 2):
        empty = np.zeros([size, 16], int) + [2, 3, *[0] * 14]
        np.testing.assert_array_equal(ours(tf.constant([""] * size, tf.string)), empty)


def test_in_a_pipeline(learned):
    ours = WordPiece(learned, max_tokens=16)
    dataset = tf.data.Dataset.from_tensor_slices(NASTY).batch(5).map(ours)
    assert dataset.element_spec == tf.TensorSpec([None, 16], tf.int32)
    batches = np.concatenate(list(dataset.as_numpy_iterator()))
    np.testing.assert_array_equal(batches, ours(tf.constant(NASTY)))


LOAD = """
import json, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
texts = json.load(sys.stdin)
print(json.dumps(serve(texts=tf.constant(texts))["ids"].numpy().tolist()))
assert serve(texts=tf.constant([], tf.string))["ids"].shape == (0, 16)
assert "mmrec_tf" not in sys.modules
"""


def test_saved_model_in_a_fresh_process(tmp_path, learned):
    ours = WordPiece(learned, max_tokens=16)
    module = tf.Module()
    # In two places, as in a model with an endpoint for one text and one for two.
    module.serve = tf.function(
        lambda texts: {"ids": ours(texts), "again": ours(texts)},
        input_signature=[tf.TensorSpec([None], tf.string, "texts")],
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)

    data = (tmp_path / "model" / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    operations = {node.op for node in nodes}
    assert "UnicodeDecode" in operations
    assert not [name for name in operations if "PyFunc" in name or "Table" in name]
    # 250 kB of tables are there once.
    assert len(data) < 600_000

    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model")],
        input=json.dumps(NASTY),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(json.loads(done.stdout), ours(tf.constant(NASTY)))


@pytest.mark.parametrize(
    "vocabulary, message",
    [
        ([], "begins with nothing and lacks \\[UNK\\], \\[CLS\\], \\[SEP\\]"),
        (["[UNK]", "[CLS]", "[SEP]", "[PAD]"], "begins with \\[UNK\\] and lacks none"),
        (["[PAD]", "[UNK]", "[CLS]"], "lacks \\[SEP\\]"),
    ],
)
def test_vocabularies_that_will_not_do(vocabulary, message):
    with pytest.raises(ConfigError, match=message):
        WordPiece(vocabulary, max_tokens=8)


def test_rows_too_short_for_the_special_tokens():
    with pytest.raises(ConfigError, match="at least 2, .*got 1"):
        WordPiece(SPECIAL, max_tokens=1)
