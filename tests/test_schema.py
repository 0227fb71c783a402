import dataclasses
import json

import pytest

from mmrec_tf.errors import ConfigError, DatasetError
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema

SCHEMA = Schema(
    num_users=3,
    num_items=5,
    modalities={
        "text": ModalitySpec("text"),
        "image": ModalitySpec("image"),
        "call": ModalitySpec("audio", sample_rate_hz=16000),
        "clip": ModalitySpec("vector", dim=128),
    },
    item_features={
        "genre": FeatureSpec("categorical", vocabulary=("drama", "war"), width=3),
        "year": FeatureSpec("numeric", mean=1990.0, std=12.5),
    },
    user_features={"age": FeatureSpec("numeric", mean=30.0, std=9.0)},
    profile=True,
    ordered=True,
)


def test_round_trip_through_json():
    text = json.dumps(SCHEMA.to_json())
    assert Schema.from_json(json.loads(text)) == SCHEMA
    # The order of the modalities is that of the columns of `present`.
    assert list(Schema.from_json(json.loads(text)).modalities) == ["text", "image", "call", "clip"]


def test_bounds_of_a_number_are_said_only_where_there_are_some():
    tree = SCHEMA.to_json()
    assert "low" not in tree["item_features"]["year"]
    year = FeatureSpec("numeric", low=1900.0, high=2030.0)
    bounded = dataclasses.replace(SCHEMA, item_features={"year": year})
    tree = json.loads(json.dumps(bounded.to_json()))
    assert tree["item_features"]["year"]["low"] == 1900 and Schema.from_json(tree) == bounded


def test_round_trip_of_the_smallest():
    schema = Schema(num_users=1, num_items=1)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("num_items"),
        lambda tree: tree.pop("modalities"),
        lambda tree: tree.update(colour="red"),
        lambda tree: tree["modalities"]["text"].update(size=3),
        lambda tree: tree["item_features"]["genre"].pop("vocabulary"),
        lambda tree: tree["item_features"]["genre"].pop("kind"),
    ],
)
def test_a_missing_or_unknown_name_is_refused(change):
    tree = json.loads(json.dumps(SCHEMA.to_json()))
    change(tree)
    with pytest.raises(DatasetError, match="Write the dataset again"):
        Schema.from_json(tree)


def test_a_schema_from_before_there_were_graphs_has_none():
    tree = json.loads(json.dumps(SCHEMA.to_json()))
    del tree["num_entities"], tree["num_relations"]
    assert Schema.from_json(tree) == SCHEMA


def test_without_events_and_positions_the_json_says_nothing_of_them():
    assert not {"events", "num_positions"} & set(SCHEMA.to_json())
    schema = dataclasses.replace(SCHEMA, events=("view", "buy"), num_positions=7)
    tree = json.loads(json.dumps(schema.to_json()))
    assert (tree["events"], tree["num_positions"]) == (["view", "buy"], 7)
    assert Schema.from_json(tree) == schema


def test_no_more_types_of_events_than_an_integer_has_bits():
    names = tuple(f"e{n}" for n in range(63))
    assert len(dataclasses.replace(SCHEMA, events=names[:62]).events) == 62
    with pytest.raises(ConfigError, match="events: wanted at most 62 types; got 63"):
        dataclasses.replace(SCHEMA, events=names)


def test_how_many_values_an_item_has_at_most_goes_through_json():
    gallery = ModalitySpec("image", max_values=4)
    schema = dataclasses.replace(SCHEMA, modalities={"image": gallery})
    tree = json.loads(json.dumps(schema.to_json()))
    assert Schema.from_json(tree).modalities["image"].max_values == 4
    # Of a run from before there were several values.
    del tree["modalities"]["image"]["max_values"]
    assert Schema.from_json(tree).modalities["image"].max_values == 1
    # A model of one fits a dataset of the other.
    assert gallery == ModalitySpec("image") != ModalitySpec("text")
    with pytest.raises(DatasetError, match="max_values: wanted 1 or more; got 0"):
        ModalitySpec("image", max_values=0)


def test_an_unknown_kind_of_modality_is_refused():
    with pytest.raises(
        DatasetError, match="wanted one of text, image, audio, video, vector; got 'smell'"
    ):
        ModalitySpec("smell")


def test_select():
    assert SCHEMA.select(None) == ("text", "image", "call", "clip")
    assert SCHEMA.select(("clip", "text")) == ("clip", "text")
    assert SCHEMA.select(()) == ()
    with pytest.raises(ConfigError, match="no 'audio'; it has text, image, call, clip"):
        SCHEMA.select(("text", "audio"))
    with pytest.raises(ConfigError, match="it has none"):
        Schema(num_users=1, num_items=1).select(("text",))


def test_batch_spec():
    spec = SCHEMA.batch_spec(8, 20)
    assert {name: (part.shape.as_list(), part.dtype.name) for name, part in spec.items()} == {
        "user": ([8], "int32"),
        "history": ([8, 20], "int32"),
        "gap": ([8, 20], "float32"),
        "item": ([8], "int32"),
        "time": ([8], "int64"),
        "rating": ([8], "float32"),
        "weight": ([8], "float32"),
        "events": ([8, 0], "float32"),
        "position": ([8], "int32"),
        "disliked": ([8, 0], "int32"),
    }
    assert SCHEMA.batch_spec(8, 20, 3)["disliked"].shape.as_list() == [8, 3]
    typed = dataclasses.replace(SCHEMA, events=("view", "buy"))
    assert typed.batch_spec(8, 20)["events"].shape.as_list() == [8, 2]
    assert SCHEMA.batch_spec(None, 20)["history"].shape.as_list() == [None, 20]
