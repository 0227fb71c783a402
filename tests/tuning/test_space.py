import keras_tuner
import pytest
from support import small_world

import mmrec_tf as mm
from mmrec_tf.config import ALIGNMENTS, FUSIONS, setting_paths
from tuning import space as spaces
from tuning.objective import parse


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"training.learning_rat": {"float": [1, 2]}}, "did you mean 'learning_rate'"),
        ({"dim": {"choice": ["wide"]}}, "dim: wanted int"),
        ({"dim": {"choice": []}}, "wanted {"),
        ({"dim": {"choice": [8, 16, 8]}}, "wanted each choice once"),
        ({"dim": {"int": [1, 8]}}, "dim: wanted at least 2"),
        ({"dim": {"int": [8]}}, r"wanted \[low, high\]"),
        ({"dim": {"int": [8.5, 9]}}, r"wanted \[low, high\]"),
        ({"dim": {"int": [8, 4]}}, "low below high"),
        ({"dim": {"int": [4, 8], "steps": 2}}, "wanted {"),
        ({"dim": {"int": [4, 8], "step": 0}}, '"step": wanted ints above 0'),
        ({"dim": {"choice": [4], "int": [4, 8]}}, "wanted {"),
        ({"dim": [4, 8]}, "wanted {"),
        ({"dim": 4}, "wanted {"),
        ({"dim": {"choice": [4, 8], "log": True}}, '"log" goes with'),
        ({"item.dropout": {"float": [0, 0.5], "log": True}}, "above 0"),
        ({"training.epochs": {"int": [1, 5]}}, "belongs to the search.*--max-epochs"),
        ({"training.seed": {"int": [1, 5]}}, "belongs to the search.*--seeds"),
        ({"training.jit_compile": {"choice": [True, False]}}, "no effect on what is measured"),
        ({"user.num_layers": {"int": [1, 3]}}, 'no effect while user.history is "mean"'),
        (
            {"user.history": {"choice": ["mean", "gru"]}, "user.num_layers": {"int": [1, 3]}},
            "The space gives it no such value",
        ),
        ({"dim": {"choice": [8, 16], "when": {"item.fusion": ["mean"]}}}, '"when": wanted another'),
    ],
)
def test_an_unusable_space_is_refused(rule, message):
    with pytest.raises(mm.ConfigError, match=message):
        spaces.hyperparameters(rule, mm.Config())


def conditions(hps):
    return {hp.name: {c.name: c.values for c in hp.conditions} for hp in hps.space if hp.conditions}


def test_settings_stand_in_the_scopes_of_what_decides_whether_they_are_read():
    space = {
        "user.num_layers": {"int": [1, 3]},
        "ranking.num_experts": {"int": [2, 8]},
        "ranking.sharing": {"choice": ["shared_bottom", "mmoe", "ple"]},
        "graph.edge_dropout": {"float": [0.0, 0.3]},
        "graph.layers": {"int": [0, 2]},
        "user.history": {"choice": ["mean", "gru", "self_attention"]},
        "item.dropout": {"float": [0.0, 0.3], "when": {"user.history": ["gru"]}},
    }
    start = mm.Config().override(
        {"ranking.tasks": ["click", "rating"], "retrieval.softmax": "full"}
    )
    hps = spaces.hyperparameters(space, start)
    assert conditions(hps) == {
        "user.num_layers": {"user.history": ["self_attention"]},
        "ranking.num_experts": {"ranking.sharing": ["mmoe", "ple"]},
        "graph.edge_dropout": {"graph.layers": [1, 2]},
        "item.dropout": {"user.history": ["gru"]},
    }
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("x", "max"), hyperparameters=hps, seed=1
    )
    seen = set()
    for _ in range(60):
        values = oracle._random_values()
        # Each trial is a config without anything idle, or Config would refuse it.
        config = start.override(spaces.overrides(values))
        assert ("user.num_layers" in values) == (config.user.history == "self_attention")
        assert ("graph.edge_dropout" in values) == (config.graph.layers > 0)
        seen.add((config.user.history, config.ranking.sharing))
    assert len(seen) == 9


def test_every_setting_can_be_searched_or_is_refused_for_a_reason():
    """Of each setting a value next to its default: a space holds it, or says why not."""
    start = mm.Config()
    refused = {}
    for path in setting_paths():
        value = start
        for name in path.split("."):
            value = getattr(value, name)
        if isinstance(value, bool):
            rule = {"choice": [True, False]}
        elif isinstance(value, int):
            rule = {"choice": [value, value + 1]}
        elif isinstance(value, float):
            rule = {"choice": [value, value / 2 + 0.01]}
        else:
            rule = {"choice": [value]}
        try:
            spaces.hyperparameters({path: rule}, start)
        except mm.ConfigError as error:
            refused[path] = str(error)
    assert {*spaces.RESERVED, *spaces.NO_EFFECT} <= refused.keys()
    for path, reason in refused.items():
        said = ("no effect", "belongs to the search", "wanted")
        assert path in reason and any(words in reason for words in said), reason
    # By far the most can be searched from the defaults alone.
    assert len(refused) < len(setting_paths()) / 2
    assert not {"dim", "ranking.architecture", "recommender.diversity", "item.fusion"} & {*refused}


def test_every_form_of_value_reaches_the_config():
    space = {
        "modalities": {"choice": [["text"], ["text", "image"], None]},
        "audio.filters": {"choice": [[8, 16]]},
        "training.mixed_precision": {"choice": [True]},
        "item.dropout": {"choice": [0, 0.5]},
        "user.history": {"choice": ["gru"]},
        "training.patience": {"int": [2, 3]},
        "audio.clip_seconds": {"float": [1, 2]},
    }
    hps = spaces.hyperparameters(space, mm.Config())
    config = mm.Config().override(spaces.overrides(hps.values))
    assert config.modalities == ("text",) and config.audio.filters == (8, 16)
    assert config.training.mixed_precision is True and config.user.history == "gru"
    # And back.
    values, outside = spaces.values_of(config, hps)
    assert values == hps.values and not outside


def test_a_space_in_python():
    def space(hp):
        hp.Float("training.learning_rate", 1e-4, 1e-2, sampling="log")
        hp.Choice("user.history", ["mean", "self_attention"])
        with hp.conditional_scope("user.history", ["self_attention"]):
            hp.Int("user.num_layers", 1, 2)

    hps = spaces.hyperparameters(space, mm.Config())
    assert conditions(hps) == {"user.num_layers": {"user.history": ["self_attention"]}}
    assert spaces.hyperparameters(hps, mm.Config()) is hps
    with pytest.raises(mm.ConfigError, match="unknown setting learning_rate"):
        spaces.hyperparameters(lambda hp: hp.Float("learning_rate", 0, 1), mm.Config())


@pytest.mark.parametrize("name", spaces.SPACES)
def test_ready_made_spaces(name):
    config, schema = small_world.config(), small_world.schema_of()
    space, left_out = spaces.ready_made(name, config, schema=schema)
    hps = spaces.hyperparameters(space, config, schema=schema)
    assert len(hps.space) >= 8
    assert all("has no effect" in why or "cannot be" in why for why in left_out.values())
    objective = parse(None, config, spaces.touched(hps))
    wanted = "recommender" if name in ("ranking", "whole") else "retrieval"
    assert objective.stage == wanted


GRAPH = {"retrieval.softmax": "full", "graph.layers": 1, "graph.content_layers": 1}
TRAINED = {"modalities": ["text", "image"], "text.trainable_layers": 1, "image.trainable_layers": 1}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("retrieval", GRAPH),
        ("sequence", GRAPH),
        ("whole", {**GRAPH, "item_head.kind": "slist", "ranking.signals": ["head"]}),
        ("sequence", {"user.history_context": "past", "user.history_length": 8}),
        ("ranking", {"ranking.num_negatives": 0, "ranking.click_rating": 4}),
        ("sequence", {"retrieval.loss": "gbce", "retrieval.softmax": "full"}),
        (
            "retrieval",
            {"retrieval.loss": "gbce", "retrieval.num_uniform_negatives": 5, "dim": 6},
        ),
        ("fusion", {"cold_items.fit": True, "alignment.kinds": ["ridge"]}),
        ("retrieval", TRAINED),
        ("fusion", TRAINED),
    ],
)
def test_whatever_the_start_a_ready_made_space_proposes_configs_that_can_be_trained(name, settings):
    schema = small_world.schema_of()
    start = small_world.config().override(settings, schema=schema)
    space, _ = spaces.ready_made(name, start, schema=schema)
    hps = spaces.hyperparameters(space, start, schema=schema)
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("x", "max"), hyperparameters=hps, seed=1
    )
    seen = set()
    for _ in range(10):
        values = oracle._random_values()
        config = start.override(spaces.overrides(values), schema=schema)
        seen.add(config)
        if config.graph.layers or config.graph.content_layers:
            assert config.retrieval.softmax == "full"
        if start.modalities:  # no encoder is frozen
            assert not config.graph.content_layers
            assert config.item.missing not in ("nearest", "mapped")
            assert config.item_head.kind != "content"
    assert len(seen) > 8


def test_a_setting_that_the_start_leaves_idle_is_tried_with_what_the_space_sets():
    start = mm.Config().override(
        {"ranking.num_negatives": 0, "ranking.loss": "binary", "ranking.click_rating": 4}
    )
    space = {
        "ranking.candidate_share": {"float": [0.0, 1.0]},
        "ranking.num_negatives": {"int": [4, 6]},
    }
    hps = spaces.hyperparameters(space, start)
    assert conditions(hps) == {"ranking.candidate_share": {"ranking.num_negatives": [4, 5, 6]}}


def test_a_setting_stands_in_the_scopes_of_two_that_do_not_depend_on_each_other():
    space = {
        "user.history": {"choice": ["mean", "self_attention"]},
        "dim": {"choice": [16, 32]},
        "user.num_heads": {"choice": [1, 2], "when": {"dim": [32]}},
    }
    hps = spaces.hyperparameters(space, mm.Config())
    assert conditions(hps) == {"user.num_heads": {"user.history": ["self_attention"], "dim": [32]}}
    again = keras_tuner.HyperParameters.from_config(hps.get_config())
    assert conditions(again) == conditions(hps)


def test_what_a_space_adds_is_worth_searching():
    """Of each part of the model something is in a ready-made space."""
    config, schema = mm.Config(), small_world.schema_of()
    held = set()
    for name in spaces.SPACES:
        held |= spaces.ready_made(name, config, schema=schema)[0].keys()
    sections = {path.partition(".")[0] for path in setting_paths()}
    # Labels need the names of features, which no space knows; videos are no part of this world.
    assert {path.partition(".")[0] for path in held} == sections - {"modalities", "labels", "video"}


def test_a_ready_made_space_leaves_out_what_a_dataset_has_no_use_for():
    config = small_world.config(**small_world.VECTORS)
    space, left_out = spaces.ready_made("encoders", config, schema=small_world.schema_of())
    assert {"text.pooling", "image.flip", "audio.num_mels"} <= left_out.keys()
    assert set(space) == {"training.learning_rate"}
    with pytest.raises(mm.ConfigError, match="did you mean 'fusion'"):
        spaces.ready_made("fusoin", config)


def test_default_space_fits_the_default_config():
    values = spaces.hyperparameters(spaces.default_space(mm.Config()), mm.Config()).values
    assert "item.fusion" in values
    assert "item.fusion" not in spaces.default_space(mm.Config(modalities=()))
    assert spaces.default_space(mm.Config())["item.fusion"] == {"choice": list(FUSIONS)}


@pytest.mark.parametrize("kinds", [[], *([k] for k in ALIGNMENTS), ["graph", "contrastive"]])
def test_the_default_space_weighs_a_loss_only_where_there_is_one(kinds):
    config = mm.Config().override({"alignment.kinds": kinds})
    space = spaces.default_space(config)
    for kind in ("contrastive", "graph"):
        assert (f"alignment.{kind}_weight" in space) == (kind in kinds)
    spaces.hyperparameters(space, config)


def test_bookkeeping_of_hyperband_is_no_setting():
    values = {"dim": 32, "tuner/epochs": 3, "tuner/trial_id": "0001"}
    assert spaces.overrides(values) == {"dim": 32}
