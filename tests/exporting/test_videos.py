"""Videos in the servable: a request's frames give what training made of the stored clip."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support import small_world, tiny_pictures
from support.small_world import build_retrieval

from mmrec_tf import open_dataset
from mmrec_tf.config import ImageConfig, VideoConfig
from mmrec_tf.encoders import video
from mmrec_tf.encoders.video import frames
from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.exporting.allowed_ops import ALLOWED
from mmrec_tf.exporting.servables import EncoderServable
from mmrec_tf.exporting.several_values import rows_of_values, table_of_values
from mmrec_tf.media.video import split_frames
from mmrec_tf.schema import ModalitySpec

ROWS = np.arange(small_world.NUM_ITEMS)
SCHEMA = small_world.schema_of(clips=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return open_dataset(small_world.write(tmp_path_factory.mktemp("clips") / "data", clips=True))


@pytest.fixture(autouse=True)
def tiny_frames(monkeypatch):
    monkeypatch.setattr(frames, "pictures", tiny_pictures)


def build(dataset, **settings):
    return build_retrieval(
        dataset,
        schema=SCHEMA,
        modalities=["video", "vector"],
        item__features=False,
        video__num_frames=3,
        **settings,
    )


def ask(servable, *tables):
    tables = [tf.constant(t.tolist() if t.dtype == object else t) for t in tables]
    return {name: value.numpy() for name, value in servable.embed_item(*tables).items()}


@pytest.mark.parametrize("pool", [pytest.param("mean", marks=pytest.mark.slow), "gru"])
def test_a_clip_is_placed_as_in_training(clips, pool):
    units = {"video__pool_units": 4} if pool == "gru" else {}
    model = build(clips, video__pool=pool, **units)
    shape = {"mean": (30, tiny_pictures.DIM), "gru": (30, 3, tiny_pictures.DIM)}[pool]
    assert model.tables["content"]["video"].shape == shape
    assert not model.reads_raw
    servable = EncoderServable(model, clips.catalog.item_id, k=5)
    content = clips.catalog.content
    shown, vectors = (
        table_of_values(
            spec, rows_of_values(content[spec.name], ROWS, kind=servable.kinds[spec.name])
        )
        for spec in servable.specs
    )
    assert np.count_nonzero(shown, axis=1).tolist() == [
        len(split_frames(clip)) for clip in content["video"]
    ]
    got, want = ask(servable, shown, vectors), model.embed_catalog(content_only=True)
    np.testing.assert_allclose(got["embedding"], want.embedding, atol=1e-4)
    assert (got["present"] == want.present).all() and not got["unreadable"].any()
    # A frame that cannot be read spoils its clip, and no other; one that is not looked at does not.
    spoiled = shown.copy()
    spoiled[4, 3] = spoiled[9, 2] = b"neither"
    again = ask(servable, spoiled, vectors)
    assert again["unreadable"][:, 0].nonzero()[0].tolist() == [4] and not again["present"][4, 0]
    rest = ROWS != 4
    np.testing.assert_allclose(again["embedding"][rest], got["embedding"][rest], atol=1e-5)
    # Order counts for a pooling that sees it; of odd numbers the same frames are read backwards.
    backwards, odd = shown[:, ::-1], np.count_nonzero(shown, axis=1) % 2 == 1
    moved = np.abs(ask(servable, backwards, vectors)["embedding"] - got["embedding"])[odd].max()
    assert moved > 1e-3 if pool == "gru" else moved < 1e-3
    assert operations(servable.embed_item) <= set(ALLOWED)


@pytest.mark.parametrize("pool", ["attention", "transformer"])
def test_every_pooling_exports_core_operations(pool):
    config = VideoConfig(num_frames=3, pool=pool, pool_units=8, num_heads=2)
    spec = SCHEMA.modalities["video"]
    encoder = video.build_encoder(config, spec, image=ImageConfig(weights="random"))
    content = tf.zeros([2, 3, 8, 8, 3], tf.uint8)
    np.testing.assert_allclose(
        encoder.from_stored(encoder.to_stored(content)), encoder(content), atol=1e-6
    )
    given = tf.TensorSpec([None, None], tf.string)

    @tf.function(input_signature=[given])
    def served(values):
        found, _ = encoder.preprocess_frames(values)
        return encoder(found)

    assert operations(served) <= set(ALLOWED)
    assert served(tf.zeros([0, 0], tf.string)).shape == (0, encoder.output_dim)


def operations(function):
    """The types of all operations of a graph and of the functions in it."""
    graph = function.get_concrete_function().graph
    inner = (node.op for f in graph._functions.values() for node in f.cached_definition.node_def)
    return {*inner, *(op.type for op in graph.get_operations())}


def test_only_the_pooling_trains_and_vectors_are_cached(clips, tmp_path):
    model = build(clips, video__pool="attention")
    encoder = model.encoders["video"]
    assert {w.name.split("/")[0] for w in encoder.trainable_weights} and not encoder.frozen
    assert encoder.pretrained_variables == []
    before = encoder.stored_fingerprint()
    for weight in encoder.trainable_weights:
        weight.assign_add(tf.ones_like(weight))
    assert encoder.stored_fingerprint() == before, "what is stored does not depend on the pooling"


def test_what_a_dataset_cannot_give_is_refused(clips):
    with pytest.raises(ConfigError, match="video.num_frames: wanted at most 5"):
        build_retrieval(clips, schema=SCHEMA, modalities=["video"], video__num_frames=6)
    with pytest.raises(ConfigError, match="image.trainable_layers: .* only frames of videos"):
        build_retrieval(clips, schema=SCHEMA, modalities=["video"], image__trainable_layers=1)
    with pytest.raises(DatasetError, match="one video an item"):
        ModalitySpec("video", max_values=2)
    spec = dataclasses.replace(SCHEMA.modalities["video"], num_frames=9)
    assert spec == SCHEMA.modalities["video"], "a model takes clips of any number of frames"
