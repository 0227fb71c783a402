import gzip

import numpy as np
import pytest
import tensorflow as tf

from mmrec_tf.config import TextConfig
from mmrec_tf.encoders import text
from mmrec_tf.encoders.text.vector_files import read_vectors
from mmrec_tf.encoders.text.words import WordLookup
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec

VECTORS = {"the": [1, 0], "bird": [0, 1], "sings": [2, 2], "Paris": [4, 0]}
TEXT_FORM = "".join(f"{word} {x} {y}\n" for word, (x, y) in VECTORS.items()).encode()
BINARY_FORM = b"4 2\n" + b"".join(
    word.encode() + b" " + np.array(pair, "<f4").tobytes() + b"\n" for word, pair in VECTORS.items()
)


def build(path, values=("the bird", "a bird"), train_values=(), **settings):
    config = TextConfig(family="word_vectors", vectors=str(path), **settings)
    spec = ModalitySpec("text")
    return text.build_encoder(config, spec, values=values, train_values=train_values)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "vectors.txt").write_bytes(TEXT_FORM)
    return tmp_path / "vectors.txt"


@pytest.mark.parametrize(
    "data",
    [
        TEXT_FORM,
        b"4 2\n" + TEXT_FORM,
        BINARY_FORM,
        BINARY_FORM.replace(b"\nbird", b"bird"),  # some writers leave the line's end out
        gzip.compress(TEXT_FORM),
        gzip.compress(BINARY_FORM),
    ],
    ids=["glove", "word2vec", "binary", "binary_without_ends", "glove_gz", "binary_gz"],
)
def test_every_form_of_file_says_the_same(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    found = read_vectors(tmp_path / "file", max_words=9, wanted=set())
    assert found.words == list(VECTORS)
    np.testing.assert_array_equal(found.vectors, list(VECTORS.values()))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "begins with b''"),
        (b"hello world\n", "begins with b'hello world"),
        (TEXT_FORM + b"cat 1\n", "a word and 2 numbers; .* at word 5"),
        (TEXT_FORM + b"cat nan 1\n", "finite numbers; .* at word 5"),
        (BINARY_FORM[:-6], "4 words with vectors of 2 numbers; .* at word 4"),
        (b"4 99999\n" + TEXT_FORM, "says 99999"),
        (gzip.compress(TEXT_FORM, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_vectors(tmp_path / "file", max_words=9, wanted=set())
    with pytest.raises(ConfigError, match="No such file"):
        read_vectors(tmp_path / "other", max_words=9, wanted=set())


def test_the_first_words_are_kept_and_those_of_the_catalog(path):
    assert read_vectors(path, max_words=1, wanted={"sings"}).words == ["the", "sings"]
    assert build(path, values=["a bird in Paris"], max_words=1).words == "the\nbird\nParis"


def test_words_that_no_text_can_have_are_left_out_and_counted(tmp_path, capsys):
    (tmp_path / "file").write_bytes(TEXT_FORM + b". . 1 1\nthe 5 5\n\xff 1 1\n")
    found = read_vectors(tmp_path / "file", max_words=9, wanted=set())
    assert found.words == list(VECTORS)
    assert "3 words of" in capsys.readouterr().err


def test_a_text_is_the_mean_of_its_words_that_have_a_vector(path):
    encoder = build(path)
    vectors = encoder(
        encoder.preprocess(tf.constant(["The bird, unknown", "paris PARIS Paris", ""]))
    )
    # "paris" has no vector: words are looked up as written and in lower case.
    np.testing.assert_allclose(vectors, [[0.5, 0.5], [4, 0], [0, 0]])


def test_rare_words_weigh_more(path):
    encoder = build(path, train_values=["the bird", "the", "The the"], weighting="tfidf")
    # ln(4 / 4) + 1 and ln(4 / 2) + 1
    the, bird = 1.0, np.log(2) + 1
    (vector,) = encoder(encoder.preprocess(tf.constant(["the bird"])))
    np.testing.assert_allclose(vector, np.array([the, bird]) / (the + bird), rtol=1e-6)


def test_how_many_words_have_no_vector_is_said_and_kept(path, capsys):
    encoder = build(path, values=["the big bird", b"a bird"])
    assert "40.0% of the 5 words in the catalog's texts have no vector" in capsys.readouterr().err
    assert encoder.facts()["out_of_vocabulary"] == 0.4
    again = text.build_encoder(
        TextConfig(family="word_vectors", vectors="gone"),
        ModalitySpec("text"),
        assets=encoder.assets(),
    )
    assert again.facts() == encoder.facts()
    with pytest.raises(ConfigError, match="no word of the catalog's texts has a vector"):
        build(path, values=["xyzzy"])


def test_vectors_train_where_asked(path):
    encoder = build(path, trainable_layers=-1)
    content = encoder.preprocess(tf.constant(["the bird"]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(content, training=True))
    (gradient,) = tape.gradient(loss, encoder.trainable_weights)
    moved = tf.convert_to_tensor(gradient).numpy()
    np.testing.assert_allclose(moved, [[0, 0], [0.5, 0.5], [0.5, 0.5], [0, 0], [0, 0]])


def test_lookup_finds_words_and_nothing_else():
    lookup = WordLookup(["b", "a", "ö"])
    np.testing.assert_array_equal(lookup(tf.constant(["a", "", "ö", "b", "c"])), [1, -1, 2, 0, -1])
    with pytest.raises(ValueError, match="twice"):
        WordLookup(["a", "a"])


@pytest.mark.slow
def test_real_vectors_in_all_forms(shared):
    folder = shared / "weights/words"
    if not folder.is_dir():
        pytest.skip("needs word vectors under shared/weights/words")
    few = set()
    glove = read_vectors(folder / "glove.6B.50d.top20k.txt.gz", max_words=5000, wanted=few)
    binary = read_vectors(folder / "glove.6B.50d.top5k.w2v.bin", max_words=5000, wanted=few)
    assert glove.words == binary.words and len(glove.words) == 5000
    np.testing.assert_allclose(glove.vectors, binary.vectors)
    other = build(
        folder / "wink-sg.100d.top20k.word2vec.txt.gz", values=["a red dress", "a crimson gown"]
    )
    raw = tf.constant(["a red dress", "a crimson gown", "a kernel scheduler"])
    vectors = tf.math.l2_normalize(other(other.preprocess(raw)), axis=1)
    near, far = (tf.reduce_sum(vectors[0] * vectors[n]).numpy() for n in (1, 2))
    assert near > far + 0.1
