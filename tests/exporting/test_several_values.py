"""Content as lists: an item's place is the mean of its distinct values, in training and served."""

import numpy as np
import pytest
import tensorflow as tf
from support import small_world, tiny_pictures
from support.small_world import build_retrieval

import mmrec_tf as mm
from mmrec_tf import open_dataset
from mmrec_tf.encoders import image
from mmrec_tf.encoders.vector import Encoder
from mmrec_tf.errors import ConfigError
from mmrec_tf.exporting.allowed_ops import ALLOWED
from mmrec_tf.exporting.servables import EncoderServable, RecommenderServable
from mmrec_tf.exporting.several_values import encode_values, rows_of_values, table_of_values
from mmrec_tf.recommender import occlusion
from mmrec_tf.recommender.contributions import Explainer
from mmrec_tf.reporting.explanation import Teller
from mmrec_tf.retrieval.item_inputs import item_inputs
from mmrec_tf.runs.explanation import explain


def operations(function):
    """The types of all operations of a graph and of the functions in it."""
    graph = function.get_concrete_function().graph
    inner = (node.op for f in graph._functions.values() for node in f.cached_definition.node_def)
    return {*inner, *(op.type for op in graph.get_operations())}


ONE, TWO, BAD, NONE = [1.0, 2.0], [3.0, 6.0], [np.nan, 0.0], [0.0, 0.0]


@pytest.mark.parametrize("block", [1, 2, 64])
def test_the_mean_of_distinct_values_by_hand(block):
    rows = [
        ([NONE, NONE, NONE], [0, 0], False, False),
        ([ONE, NONE, NONE], [1, 2], True, False),
        ([NONE, ONE, TWO], [2, 4], True, False),
        ([TWO, TWO, ONE], [2, 4], True, False),
        ([BAD, TWO, TWO], [3, 6], True, True),
        ([BAD, NONE, NONE], [0, 0], False, True),
    ]
    values, vectors, present, unreadable = zip(*rows, strict=True)
    encoder = Encoder(2)
    graph = tf.function(lambda v: encode_values(encoder, v, block=block))
    for run in (graph, graph.python_function):
        got = run(tf.constant(values, tf.float32))
        np.testing.assert_allclose(got.vector, vectors)
        assert got.present.numpy().tolist() == list(present)
        assert got.unreadable.numpy().tolist() == list(unreadable)
    for width in (0, 3):
        none = graph(tf.zeros([0 if width else 2, width, 2]))
        assert not none.present.numpy().any() and none.vector.shape[1] == 2


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galleries") / "dataset"
    return open_dataset(small_world.write(folder, galleries=True))


@pytest.fixture(scope="module")
def served(galleries):
    model = build_retrieval(galleries, modalities=["image", "vector"], item__features=False)
    return model, EncoderServable(model, galleries.catalog.item_id, k=5)


def lists(servable, dataset, rows):
    content = dataset.catalog.content
    return [
        table_of_values(spec, rows_of_values(content[spec.name], rows)) for spec in servable.specs
    ]


def ask(servable, *tables):
    tables = [tf.constant(t.tolist() if t.dtype == object else t) for t in tables]
    return {name: value.numpy() for name, value in servable.embed_item(*tables).items()}


def test_a_gallery_is_placed_as_in_training(galleries, served):
    model, servable = served
    rows = np.arange(small_world.NUM_ITEMS)
    pictures, vectors = lists(servable, galleries, rows)
    assert {np.count_nonzero(row) for row in pictures} == {0, 1, 2, 3}
    got = ask(servable, pictures, vectors)
    want = model.embed_catalog(content_only=True)
    np.testing.assert_allclose(got["embedding"], want.embedding, atol=1e-4)
    np.testing.assert_allclose(got["weights"], want.weights, atol=1e-4)
    assert (got["present"] == want.present).all() and not got["unreadable"].any()
    first = pictures.copy()
    first[:, 2:] = b""
    several = np.count_nonzero(pictures, axis=1) > 1
    apart = np.abs(ask(servable, first, vectors)["embedding"] - got["embedding"]).max(axis=1)
    assert (apart[several] > 1e-3).all() and apart[~several].max() < 1e-5


def test_how_a_server_fills_lists_up_changes_nothing(galleries, served):
    """With the first element of the request's tensor, and with values that are there already."""
    rows = [3, 7, 8, 11]
    pictures, vectors = lists(served[1], galleries, rows)
    want = ask(served[1], pictures, vectors)
    fill = np.full([len(rows), 3], pictures[0, 0], object)
    wide = np.concatenate([vectors, np.full([len(rows), 2, 6], vectors[0, 0, 0])], axis=1)
    got = ask(served[1], np.concatenate([pictures, fill], axis=1), wide)
    np.testing.assert_allclose(got["embedding"], want["embedding"], atol=1e-5)
    # A client of one row need not lead it with an empty value.
    alone = pictures[:1, 1:]
    again = np.concatenate([alone, np.full([1, 2], alone[0, 0], object)], axis=1)
    one = ask(served[1], again, vectors[:1])
    np.testing.assert_allclose(one["embedding"], want["embedding"][:1], atol=1e-5)


def test_attention_weighs_values_as_in_training(galleries, monkeypatch):
    """And says which of them counted most: that which the encoder and the pooling say by hand."""
    monkeypatch.setattr(image, "FAMILIES", tiny_pictures.FAMILIES)
    model = build_retrieval(
        galleries,
        modalities=["image", "vector"],
        item__features=False,
        item__values_pooling="attention",
    )
    # Nothing of the pictures' encoder trains, so a step reads vectors.
    assert not model.reads_raw and set(model.trained_encoders) == {"image"}
    assert model.tables["content"]["image"].shape == (30, 4, tiny_pictures.DIM + 1)
    servable = EncoderServable(model, galleries.catalog.item_id, k=5)
    pictures, vectors = lists(servable, galleries, np.arange(small_world.NUM_ITEMS))
    got, want = ask(servable, pictures, vectors), model.embed_catalog(content_only=True)
    np.testing.assert_allclose(got["embedding"], want.embedding, atol=1e-4)
    assert (got["present"] == want.present).all() and not got["unreadable"].any()
    encoder = model.encoders["image"]
    for row in (3, 7, 26):
        given = [value for value in pictures[row] if value]
        if not given:
            assert got["heaviest"][row, 0] == -1
            continue
        single = encoder(encoder.preprocess(tf.constant(given)))
        score = encoder.pooling.score(encoder.pooling.hidden(encoder.pooling.norm(single[None])))[0]
        assert got["heaviest"][row, 0] == 1 + int(np.argmax(score[:, 0]))
    assert (got["heaviest"][:, 1] == -1).all()
    # As Python says of the catalog.
    weights, there = model.value_weights("image"), got["heaviest"][:, 0] >= 0
    assert weights.shape == (30, 4) and model.value_weights("vector") is None
    np.testing.assert_allclose(weights[there].sum(axis=1), 1, rtol=1e-5)
    assert (weights.argmax(axis=1) == got["heaviest"][:, 0] - 1)[there].all()
    assert operations(servable.embed_item) <= set(ALLOWED)
    # What cannot be read has no weight.
    spoiled = pictures.copy()
    row, place = 7, got["heaviest"][7, 0]
    spoiled[row, place] = b"neither"
    again = ask(servable, spoiled, vectors)
    assert again["unreadable"][row, 0] and again["present"][row, 0]
    assert again["heaviest"][row, 0] not in (place, -1)


@pytest.fixture(scope="module")
def weighed(galleries):
    """A model whose items are their content alone, of which attention weighs pictures."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image, "FAMILIES", tiny_pictures.FAMILIES)
        model = build_retrieval(
            galleries,
            modalities=["image", "vector"],
            item__features=False,
            item__id_embedding=False,
            item__values_pooling="attention",
        )
    # Far from the plain mean.
    kernel = model.encoders["image"].pooling.score.kernel
    kernel.assign(40 * kernel)
    return model, mm.Recommender(model, None, galleries, compiled=False)


def test_recommend_names_the_value_that_counts_most(galleries, weighed):
    model, recommender = weighed
    users = [f"u{n}" for n in range(small_world.NUM_USERS)]
    python = recommender.recommend(users, k=10)
    assert python.heaviest.dtype == np.int32
    weights = model.value_weights("image")
    number = {name: row for row, name in enumerate(galleries.catalog.item_id)}
    named = {"image": 0, "vector": 0, "": 0}
    for item, modality, place in zip(
        python.item_id.ravel(), python.modality.ravel(), python.heaviest.ravel(), strict=True
    ):
        named[modality] += 1
        assert place == (weights[number[item]].argmax() if modality == "image" else -1)
    assert named["image"] > 20 and python.heaviest.max() > 0
    # Some of them only, and one of nobody.
    np.testing.assert_array_equal(model.value_weights("image", np.array([7, 3])), weights[[7, 3]])
    # The graph of an export says the same, with nothing that a server does not know.
    servable = RecommenderServable(recommender, k=10)
    size = len(users)
    blank = {name: tf.fill([size, 1], "") for name in ("history", "exclude", "allow", "deny")}
    served = servable.recommend(
        tf.constant(users),
        *blank.values(),
        tf.zeros([size], tf.int64),
        tf.fill([size], ""),
        tf.fill([size, 1], ""),
    )
    np.testing.assert_array_equal(served["heaviest"], python.heaviest)
    assert operations(servable.recommend) <= set(ALLOWED)


def test_what_counts_alike_has_no_heaviest(galleries, served):
    recommender = mm.Recommender(served[0], None, galleries, compiled=False)
    assert "heaviest" not in recommender.items
    assert recommender.recommend(["u1"], k=2).heaviest is None


def test_an_explanation_weighs_values_and_looks_at_the_heaviest(galleries, weighed, monkeypatch):
    model, recommender = weighed
    weights = model.value_weights("image")
    several = np.flatnonzero((weights > 0).sum(axis=1) > 1)
    item = next(row for row in several if weights[row].argmax() > 0)
    why = explain(recommender, "u1", [galleries.catalog.item_id[item]])[0]
    count = int((weights[item] > 0).sum())
    np.testing.assert_allclose(why.values["image"], weights[item][:count])
    assert why.to_json()["values"] == why.values
    best = int(weights[item].argmax())
    seen = why.evidence[0]
    assert (seen.modality, seen.values, seen.looked_at) == ("image", count, best)
    text = Teller(galleries).text(why)
    assert f"image, {count} values: number {best + 1} counts most" in text
    assert f"; number {best + 1} of {count}" in text
    # By hand: the heaviest value is another picture, and may count less then.
    values, (other, *_) = rows_of_values(galleries.catalog.content["image"], [item, several[0]])
    monkeypatch.setitem(occlusion._PIECES, "image", lambda data: (data, [("", (), other)] * 2, 0))
    request, _ = Explainer(recommender).request("u1")
    pieces = occlusion.occlude(recommender, request, int(item), "image").pieces
    values[best] = other
    encoder = model.encoders["image"]
    single = encoder(encoder.preprocess(tf.constant(values)))[None]
    inputs = dict(item_inputs(model, tf.constant([item], tf.int32)))
    pooled = encoder.pool(single, tf.fill(single.shape[:2], True))[0]
    inputs["encoded"] = {**inputs["encoded"], "image": pooled}
    moved = model.embed_catalog().embedding[item] - model.item_tower(inputs).embedding[0].numpy()
    want = float(moved @ request.queries.numpy()[0, : model.config.dim])
    assert abs(want) > 1e-3
    assert [piece.weight for piece in pieces] == pytest.approx([want, want], abs=1e-4)


def test_attention_is_refused_where_no_item_has_several_values(galleries):
    with pytest.raises(ConfigError, match="item.values_pooling: wanted .*no item has several"):
        build_retrieval(galleries, modalities=["vector"], item__values_pooling="attention")


def test_too_many_values_are_refused(galleries, served):
    pictures, vectors = lists(served[1], galleries, [0, 1])
    many = np.full([2, 18], b"", object)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image: wanted at most 16 values"):
        ask(served[1], many, vectors)
    assert ask(served[1], many[:, :17], vectors)["embedding"].shape == (2, 8)


def test_the_examples_hold_galleries(galleries, served):
    catalog, servable = galleries.catalog, served[1]
    columns = [list(galleries.schema.modalities).index(name) for name in servable.modalities]
    examples = servable.examples_from(catalog.content, catalog.present[:, columns])
    assert {example.signature for example in examples} == {"embed_item", "search"}
    assert max(map(np.count_nonzero, examples[0].inputs["image"])) > 1
