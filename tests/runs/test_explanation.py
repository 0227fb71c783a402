"""`mmrec-tf explain`, and why what `recommend` answers is shown."""

import json
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf
from support.small_world import item_id

import mmrec_tf as mm
from mmrec_tf.__main__ import main
from mmrec_tf.ranking.attribution import TOLERANCE
from mmrec_tf.recommender.contributions import Contributions, Explainer
from mmrec_tf.recommender.occlusion import CELLS, SPANS, occlude
from mmrec_tf.reporting.explanation import Teller, write_picture
from mmrec_tf.reporting.sentences import Writer, refusal, sentence
from mmrec_tf.retrieval.item_inputs import item_inputs
from mmrec_tf.runs.explanation import explain


@pytest.fixture(scope="module")
def found(run):
    """Of an item with all content, for a user with a history."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recommender = run.recommender()
        return recommender, explain(recommender, "u1", [item_id(4)])[0]


def test_both_stages_and_the_content_are_taken_apart(found, run):
    recommender, why = found
    one, ranking = why.contributions, why.ranking
    assert one.total == pytest.approx(one.score, abs=1e-4)
    whole = ranking.score - ranking.baseline
    assert sum(ranking.values.values()) == pytest.approx(whole, abs=TOLERANCE * abs(whole))
    number = recommender.rank_ids(
        *(tf.constant(x) for x in (["u1"], [[""]], [["i4"]])),
        tf.constant([0], tf.int64),
        tf.constant([""]),
        tf.constant([[""]]),
    )
    assert why.score == pytest.approx(float(number["score"][0, 0]), abs=1e-4)
    kinds = {seen.modality: seen for seen in why.evidence}
    # The vector has no pieces that mean anything; i4 lacks nothing else.
    assert set(kinds) == {"text", "image", "audio"}
    assert {piece.name for piece in kinds["text"].pieces} == {"gull", "sea", "harbor", "4"}
    assert len(kinds["image"].pieces) == CELLS**2 and len(kinds["audio"].pieces) == SPANS
    for seen in why.evidence:
        weights = [piece.weight for piece in seen.pieces]
        assert weights == sorted(weights, reverse=True) and any(weights)


def test_a_piece_weighs_what_the_score_loses(found):
    """As much as when the item had the text without that word."""
    recommender, _ = found
    request, _ = Explainer(recommender).request("u1")
    seen = occlude(recommender, request, 4, "text")
    word = next(piece for piece in seen.pieces if piece.name == "gull")
    retrieval = recommender.retrieval
    encoder = retrieval.encoders["text"]
    inputs = item_inputs(retrieval, tf.constant([4]))
    scores = []
    for text in ("gull sea harbor 4", "  sea harbor 4"):
        encoded = {**inputs["encoded"], "text": encoder(encoder.preprocess(tf.constant([text])))}
        embedding = retrieval.item_tower({**inputs, "encoded": encoded}).embedding[0]
        scores.append(float(tf.reduce_sum(embedding * request.queries[0, :8])))
    assert word.weight == pytest.approx(scores[0] - scores[1], abs=1e-4)


def test_of_a_stranger_popularity_is_all(found):
    recommender, _ = found
    why = explain(recommender, "nobody", ["i1"])[0]
    assert why.ranking is None and not why.evidence
    assert why.contributions.of_item["popularity"] == pytest.approx(why.score, abs=1e-5)
    said = Teller(recommender.dataset).sentence(why.contributions)
    assert said == "Because it is popular: nothing is known of you yet."


def test_an_explanation_as_text_as_json_and_as_a_picture(found, tmp_path):
    recommender, why = found
    teller = Teller(recommender.dataset)
    text = teller.text(why)
    assert "retrieval score" in text and "what weighed most: " in text
    told = json.loads(json.dumps(teller.to_json(why)))
    assert told["titles"]["i4"] == "gull sea harbor 4"
    assert told["retrieval"]["item"].keys() >= {"text", "image", "audio", "vector", "id"}
    drawing = teller.picture(why)
    drawn = write_picture(drawing, tmp_path / "why.svg")
    words = "".join(ElementTree.parse(drawn).getroot().itertext())
    assert "text: what weighed most" in words and "[gull]" in words
    assert write_picture(drawing, tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(mm.ConfigError, match="wanted a name in .svg or .png"):
        write_picture(drawing, tmp_path / "why.bmp")


def test_the_command_explains_and_recommend_says_why(run, found, capsys, monkeypatch):
    # Loaded once is enough.
    monkeypatch.setattr(mm, "load_run", lambda *_, **__: run)
    monkeypatch.setattr(run, "recommender", lambda **_: found[0], raising=False)
    assert main(["explain", str(run.directory), "--user", "u1", "--item", "i4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["explanations"][0]
    assert told["sentence"].startswith("Because ") and told["evidence"]
    again = ["recommend", str(run.directory), "--user", "u1", "--k", "2", "--why"]
    assert main(again) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and all(row.split("\t")[-1].startswith("Because ") for row in rows)
    assert main([*again[:-1], "--writer", "gpt"]) == 2
    assert "add --why" in capsys.readouterr().err
    assert main(["explain", str(run.directory), "--user", "u1", "--item", "i99"]) == 2
    assert "got 'i99'" in capsys.readouterr().err


# Sentences


def made(*, modality=0.0, of_id=0.0, because=1.0, head=0.0, popularity=0.0, profile=0.0):
    """Contributions of one history item, one modality and an id."""
    table = np.zeros([5, 4])
    table[0, :2] = [modality * (because > 0), of_id]
    table[2, 3] = profile
    return Contributions(
        user_id="u",
        item_id="i",
        score=1.0,
        modalities=("image",),
        present=np.array([True]),
        rows=("a", "user id", "profile", "user features", "constant"),
        columns=("image", "id", "features", "constant"),
        table=table,
        popularity=popularity,
        head={"a": head} if head else {},
        known=True,
    )


@pytest.mark.parametrize(
    ("added", "want"),
    [
        ({"modality": 1.0, "of_id": 0.5}, "Because you liked A, and it looks alike."),
        ({"modality": 0.5, "of_id": 1.0}, "Because people who liked A like it, too."),
        ({"modality": 0.5, "head": 1.0}, "Because people who liked A like it, too."),
        (
            {"modality": 0.5, "popularity": 1.0},
            "Because you liked A, it looks alike, and it is popular.",
        ),
        ({"popularity": 1.0}, "Because it is popular."),
        ({"profile": 1.0}, "Because it fits your profile."),
        ({"of_id": -1.0}, "Nothing speaks for it in particular."),
    ],
)
def test_sentences_name_what_weighs(added, want):
    assert sentence(made(**added), kinds={"image": "image"}, title=str.upper) == want


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("You liked Owl at Night, so here is another bird.", ""),
        ("Here is another bird.", "it does not name 'Owl at Night'"),
        ("You liked Owl at Night and Gull!", "it names 'Gull', which is no reason"),
        ("You liked Owl at Night, and i7.", "it names 'i7', which is no reason"),
        ('You liked Owl at Night, and "The Sea".', "it quotes what is no title"),
        ("", "it says nothing"),
    ],
)
def test_a_phrase_names_no_item_that_is_not_there(said, why):
    others = ["i7", "Gull", "Owl at Night", "it"]
    assert refusal(said, named=["Owl at Night"], others=others) == why


def tiny_writer(folder):
    """A causal language model of random weights with a vocabulary of bytes."""
    import tokenizers
    from transformers import GPT2Config, PreTrainedTokenizerFast, TFGPT2LMHeadModel

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: n for n, letter in enumerate(["<end>", *letters])}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token=None))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=160, n_embd=8, n_layer=1, n_head=1, eos_token_id=0
    )
    written = TFGPT2LMHeadModel(config)
    written(tf.constant([[0]]))
    written.save_pretrained(folder)
    return folder


def test_a_writer_of_ones_own_is_not_trusted(tmp_path):
    """Random weights phrase nothing that names the item: the template stays, and it is said why."""
    writer = Writer(tiny_writer(tmp_path / "writer"))
    template = "Because you liked Owl at Night."
    said, why = writer.phrase(template, named=["Owl at Night"], others=["Gull"])
    assert said == template and "does not name" in why
    with pytest.raises(mm.ConfigError, match="has no config.json"):
        Writer(tmp_path)
    (tmp_path / "writer" / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(mm.ConfigError, match="wanted a causal language model"):
        Writer(tmp_path / "writer")
