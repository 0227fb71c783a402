import numpy as np
import pytest
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer

from mmrec_tf.config import Config, TextConfig
from mmrec_tf.encoders import text
from mmrec_tf.encoders.text.words import split_texts
from mmrec_tf.errors import ConfigError
from mmrec_tf.retrieval.content_encoders import make_encoders
from mmrec_tf.schema import ModalitySpec

TRAIN = ["the small gray bird", "The bird sings, the bird drums", "a gray day", "small gray trees"]
ASKED = ["the gray gray BIRD of trees", "nothing known", ""]


def build(family="tfidf", train_values=TRAIN, **settings):
    config = TextConfig(**{"family": family, "components": 0, "min_items": 1, **settings})
    spec = ModalitySpec("text")
    return text.build_encoder(config, spec, values=["other words"], train_values=train_values)


def encode(encoder, raw):
    return encoder(encoder.preprocess(tf.constant(raw))).numpy()


@pytest.mark.parametrize("family, weighted", [("tfidf", True), ("bag_of_words", False)])
def test_equals_scikit_learn(family, weighted):
    encoder = build(family)
    reference = TfidfVectorizer(use_idf=weighted, token_pattern=r"\w+").fit(TRAIN)
    words = encoder.words.split("\n")
    assert set(words) == set(reference.vocabulary_)
    want = reference.transform(ASKED).toarray()[:, [reference.vocabulary_[w] for w in words]]
    np.testing.assert_allclose(encode(encoder, ASKED), want, atol=1e-6)


def test_a_projection_is_that_of_the_sparse_matrix():
    encoder, whole = build(components=2), build()
    matrix = encode(whole, TRAIN)
    singular = np.linalg.svd(matrix)[2][:2]
    got, want = encode(encoder, TRAIN), matrix @ singular.T
    # The sign of a singular vector is free.
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-5)
    assert 0 < encoder.facts()["explained"] < 1
    assert encoder.output_dim == 2


def test_the_most_frequent_words_are_kept():
    assert build(vocabulary_size=2).words == "gray\nbird"
    assert build(min_items=3).words == "gray"
    assert build().facts() == {"num_texts": 4, "num_words": 9, "words_left_out": 0}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"min_items": 9}, "text.min_items: wanted words that 9 texts of train items have"),
        ({"train_values": []}, "got none, of 0 texts"),
        ({"components": 4}, "text.components: wanted fewer than the 9 words and 4 texts"),
    ],
)
def test_too_little_to_learn_from_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(**settings)


@pytest.mark.parametrize("family", ["tfidf", "bag_of_words", "word_vectors"])
def test_what_only_other_items_have_teaches_nothing(dataset, tmp_path, family):
    """Words and their frequency are those of items that train has."""
    settings = {"family": family, "components": 0, "min_items": 1}
    if family == "word_vectors":
        rows = "".join(f"{word} 1\n" for word in dict.fromkeys(words_of(dataset)))
        (tmp_path / "vectors.txt").write_text(rows)
        settings = {
            "vectors": str(tmp_path / "vectors.txt"),
            "weighting": "tfidf",
            "family": family,
        }
    config = Config().override(
        {
            "modalities": ["text"],
            **{f"text.{name}": value for name, value in settings.items()},
        }
    )
    met = dataset.catalog.train_count > 0
    raw = dataset.catalog.content["text"]
    (encoder,) = (e for name, e in make_encoders(config, dataset).items() if name == "text")
    (cold,) = [raw[(~met) & (raw != b"")]]
    assert len(cold), "the small world has no cold item with a text"
    number = int((met & (raw != b"")).sum())
    counted = {
        w: sum(w in set(row) for row in rows_of(raw[met & (raw != b"")])) for w in words_of(dataset)
    }
    if family == "bag_of_words":
        assert set(encoder.words.split("\n")) == {w for w, n in counted.items() if n}
        return
    for word, weight in zip(encoder.words.split("\n"), encoder.weight.numpy()[1:], strict=True):
        assert weight == pytest.approx(np.log((1 + number) / (1 + counted[word])) + 1), word


def rows_of(texts):
    return [row for batch in split_texts(texts) for row in batch]


def words_of(dataset):
    raw = dataset.catalog.content["text"]
    return sorted({word for row in rows_of(raw[raw != b""]) for word in row})
