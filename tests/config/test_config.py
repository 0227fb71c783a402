import dataclasses
import json
import pathlib
import re

import pytest

from mmrec_tf.config import (
    ALIGNMENTS,
    FAMILIES,
    FUSIONS,
    AlignmentConfig,
    Config,
    RetrievalConfig,
    TextConfig,
    load_config,
    require_effect,
    settled_paths,
)
from mmrec_tf.errors import ConfigError
from mmrec_tf.schema import ModalitySpec, Schema

ROOT = pathlib.Path(__file__).resolve().parents[2]


def settings(config, path=""):
    """Every setting by its path, such as `training.epochs`, with its value."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= settings(value, f"{path}{field.name}.")
        else:
            found[path + field.name] = value
    return found


DEFAULTS = settings(Config())

CHANGED = {
    "modalities": ("text", "image"),
    "dim": 48,
    "text.weights": "a/b",
    "audio.filters": (8, 8),
    "audio.clip_seconds": 1.5,
    "item.fusion": "attention",
    "item.id_embedding": False,
    "training.learning_rate": 1e-4,
    "training.monitor": "recall@20",
}

# Each new idea that can stand beside the others in one model.
EVERYTHING = {
    "text.trainable_layers": -1,
    "text.adaptation": "lora",
    "text.adaptation_rank": 2,
    "alignment.collaborative": 0.5,
    "item.id_init": "spectral",
    "item.fusion": "transformer",
    "item.missing": "token",
    "item.modality_dropout": 0.2,
    "graph.layers": 2,
    "graph.edge_dropout": 0.1,
    "graph.content_layers": 1,
    "user.history": "self_attention",
    "user.num_layers": 2,
    "user.time_gaps": True,
    "retrieval.loss": "bpr",
    "retrieval.softmax": "full",
    "retrieval.disliked_below": 3,
    "retrieval.embedding_noise": 0.1,
    "retrieval.adversarial": 0.1,
    "training.warmup_steps": 10,
    "training.decay": "cosine",
    "training.encoder_learning_rate_factor": 0.1,
    "training.accumulation_steps": 2,
}


def test_round_trip_of_the_defaults():
    assert Config.from_json(Config().to_json()) == Config()
    assert Config.from_json({}) == Config()


def test_round_trip_through_a_file(tmp_path):
    config = Config().override(CHANGED)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert load_config(path) == config
    assert {name: settings(config)[name] for name in CHANGED} == CHANGED
    others = {name: value for name, value in DEFAULTS.items() if name not in CHANGED}
    assert {name: settings(config)[name] for name in others} == others


def test_json_holds_plain_values_only():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, (str, int, float, bool))

    assert plain(Config().override(CHANGED).to_json())


def test_configs_are_frozen_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().dim = 3
    assert Config() == Config() != Config(dim=65)
    assert len({Config(), Config(), Config(dim=65)}) == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"dimm": 3}, "unknown setting dimm; did you mean 'dim'?"),
        ({"audio": {"num_mel": 3}}, "unknown setting audio.num_mel; did you mean 'num_mels'?"),
        ({"audio": {"zzz": 3}}, "unknown setting audio.zzz; known: sample_rate_hz"),
        ({"audio": 3}, "audio: wanted a JSON object; got 3"),
        ({"dim": "wide"}, "dim: wanted int; got 'wide'"),
        ({"dim": 2.5}, "dim: wanted int; got 2.5"),
        ({"training": {"seed": 2**63}}, f"training.seed: wanted int; got {2**63}"),
        ({"training": {"learning_rate": 1e300}}, "learning_rate: wanted float; got 1e"),
        ({"dim": True}, "dim: wanted int; got True"),
        ({"dim": None}, "dim: wanted int; got None"),
        ({"item": {"id_embedding": 1}}, "item.id_embedding: wanted bool; got 1"),
        ({"item": {"fusion": 3}}, "item.fusion: wanted str; got 3"),
        ({"item": {"fusion": "sum"}}, "item.fusion: wanted one of mean, weighted"),
        ({"modalities": 3}, "modalities: wanted a list; got 3"),
        ({"modalities": ["text", "text"]}, "modalities: each at most once"),
        ({"audio": {"filters": [1, "x"]}}, "audio.filters: wanted int; got 'x'"),
        ({"audio": {"filters": []}}, "audio.filters: wanted at least one"),
        ({"audio": {"fmax_hz": 9000}}, "audio.fmax_hz: wanted at most half"),
        ({"audio": {"clip_seconds": 0.01}}, "audio.clip_seconds"),
        ({"text": {"hidden_size": 63}}, "text.hidden_size: wanted a multiple"),
        ({"text": {"max_tokens": 2}}, "text.max_tokens: wanted 3 to 512"),
        ({"text": {"trainable_layers": -2}}, "text.trainable_layers"),
        ({"audio": {"family": "saved_model"}}, "audio.model: wanted the folder of a SavedModel"),
        ({"audio": {"family": "transformers"}}, "audio.weights: wanted a hub id or a local folder"),
        ({"audio": {"family": "recurrent", "cell": "rnn"}}, "audio.cell: wanted one of gru, lstm"),
        (
            {"audio": {"family": "recurrent", "features": "mfcc", "num_mfcc": 200}},
            "audio.num_mfcc: wanted 1 to audio.num_mels (128)",
        ),
        (
            {"audio": {"family": "recurrent", "num_mfcc": 9}},
            'audio.num_mfcc: wanted 13 while audio.features is "mel"',
        ),
        ({"image": {"family": "keras_model"}}, "image.model: wanted the path of a Keras model"),
        ({"image": {"family": "transformers"}}, "image.weights: wanted a hub id or a local folder"),
        ({"image": {"family": "descriptors", "size": 100}}, "image.size: wanted a multiple of 8"),
        ({"image": {"family": "descriptors", "grid": 99}}, "image.grid: wanted at most 27"),
        ({"image": {"pooling": "cls"}}, "image.pooling: wanted one of mean, max; got 'cls'"),
        ({"text": {"family": "word_vectors"}}, "text.vectors: wanted a file of word vectors"),
        ({"text": {"family": "tfidf", "min_items": 0}}, "text.min_items: wanted at least 1"),
        ({"item": {"dropout": 1.0}}, "item.dropout: wanted 0 up to 1"),
        ({"user": {"history": "lstm"}}, "user.history: wanted one of none, mean"),
        ({"retrieval": {"temperature": 0}}, "retrieval.temperature: wanted above 0"),
        (
            {"alignment": {"contrastive_weight": -1}},
            "alignment.contrastive_weight: wanted at least 0",
        ),
        ({"ranking": {"candidate_share": 2}}, "ranking.candidate_share: wanted 0 to 1"),
        ({"training": {"monitor": "loss"}}, "training.monitor: wanted a metric"),
        ({"training": {"monitor": "ndcg@x"}}, "training.monitor: wanted a metric"),
        ({"ranking": {"monitor": "loss@3"}}, "ranking.monitor: wanted"),
        ({"training": {"batch_size": 0}}, "training.batch_size: wanted at least 1"),
    ],
)
def test_unusable_trees_are_refused(tree, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config.from_json(tree)


def test_whole_numbers_serve_as_either_kind_of_number():
    config = Config.from_json({"dim": 32.0, "training": {"learning_rate": 1}})
    assert (config.dim, type(config.dim)) == (32, int)
    assert (config.training.learning_rate, type(config.training.learning_rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("path", "typed", "value"),
    [
        ("dim", "32", 32),
        ("training.learning_rate", "1e-4", 1e-4),
        ("retrieval.disliked_below", "3", 3.0),
        ("retrieval.disliked_below", "null", None),
        ("item.id_embedding", "false", False),
        ("item.fusion", "mean", "mean"),
        ("text.weights", "3", "3"),
        ("modalities", '["text"]', ("text",)),
        ("modalities", "text,image", ("text", "image")),
        ("modalities", "text", ("text",)),
        ("modalities", "null", None),
        ("modalities", "[]", ()),
        ("audio.filters", "[4, 8]", (4, 8)),
        ("audio.filters", "4,8", (4, 8)),
    ],
)
def test_override_reads_what_is_typed(path, typed, value):
    assert settings(Config().override({path: typed}))[path] == value


def test_override_takes_values_as_they_are():
    for path, value in CHANGED.items():
        assert settings(Config().override({path: value}))[path] == value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trainin.epochs", 1, "unknown setting trainin; did you mean 'training'?"),
        ("training.epoch", 1, "unknown setting training.epoch; did you mean 'epochs'?"),
        ("dim.size", 1, "unknown setting dim.size: dim has no parts"),
        ("training", 1, "training"),
        ("item.id_embedding", "yes", "item.id_embedding: wanted bool; got 'yes'"),
        ("dim", "1", "dim: wanted at least 2"),
    ],
)
def test_override_refuses(path, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config().override({path: value})


def test_what_an_override_makes_idle_goes_back_to_its_default_and_what_it_names_is_refused():
    config = Config().override({"retrieval.num_hard_negatives": 3, "retrieval.memory_size": 9})
    assert config.override({"retrieval.softmax": "full"}).retrieval == RetrievalConfig(
        softmax="full"
    )
    message = (
        'retrieval.num_hard_negatives: wanted 0 while retrieval.softmax is "full", where it has '
        'no effect; got 4. Set retrieval.softmax to "batch", or leave '
        "retrieval.num_hard_negatives out."
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.override({"retrieval.softmax": "full", "retrieval.num_hard_negatives": 4})


def test_what_a_dataset_has_no_use_for_is_refused_there():
    schema = Schema(num_users=1, num_items=1, modalities={"cover": ModalitySpec("image")})
    config = Config().override(
        {"image.size": 64, "text.max_tokens": 9, "alignment.contrastive_weight": 0.3}
    )
    with pytest.raises(ConfigError, match="text.max_tokens: wanted 64 as no modality of kind text"):
        require_effect(config, schema)
    fewer = config.override({}, schema=schema)
    assert fewer == Config().override({"image.size": 64})
    require_effect(fewer, schema)


def test_the_settings_that_weights_depend_on():
    assert set(settled_paths()) == {
        "dim",
        "text.family",
        "image.family",
        "audio.family",
        "text.weights",
        "text.adaptation",
        "text.adaptation_rank",
        "text.vocabulary_size",
        "text.hidden_size",
        "text.num_layers",
        "text.num_heads",
        "text.synonyms",
        "text.vectors",
        "text.max_words",
        "text.weighting",
        "text.min_items",
        "text.components",
        "image.architecture",
        "image.weights",
        "image.model",
        "image.layer",
        "image.adaptation",
        "image.adaptation_rank",
        "audio.adaptation",
        "audio.adaptation_rank",
        "audio.filters",
        "audio.gru_units",
        "audio.weights",
        "video.family",
        "video.num_frames",
        "video.pool",
        "video.pool_units",
        "video.num_layers",
        "video.num_heads",
        "audio.features",
        "audio.num_mfcc",
        "audio.cell",
        "audio.units",
        "audio.model",
        "audio.output",
        "alignment.kinds",
        "alignment.temperature",
        "alignment.hidden",
        "alignment.target",
        "alignment.l2",
        "item.id_embedding",
        "item.id_init",
        "item.fusion",
        "item.missing",
        "item.values_pooling",
        "item.features",
        "labels.softmax",
        "labels.sigmoid",
        "labels.hidden",
        "user.id_embedding",
        "user.history",
        "user.num_layers",
        "user.num_heads",
        "user.interests",
        "user.time_gaps",
        "user.hidden",
        "user.features",
        "retrieval.temperature",
        "ranking.architecture",
        "ranking.num_cross_layers",
        "ranking.projection_dim",
        "ranking.hidden",
        "ranking.target_attention",
        "ranking.fine_tune",
        "ranking.content",
        "ranking.features",
        "ranking.context",
        "ranking.signals",
        "ranking.position_bias",
        "ranking.tasks",
        "ranking.sharing",
        "ranking.num_experts",
        "ranking.loss",
    }


def test_settings_of_another_family_are_refused(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Words:
        max_tokens: int = 64

    monkeypatch.setitem(FAMILIES["text"], "words", Words)
    words = Config().override({"text.family": "words", "text.max_tokens": 9})
    with pytest.raises(ConfigError, match='text.pooling: .* text.family is "words".*to bert'):
        words.override({"text.pooling": "cls"})
    with pytest.raises(ConfigError, match="text.family: wanted one of bert, .*words; got 'elmo'"):
        Config().override({"text.family": "elmo"})


def test_a_setting_of_several_families_has_one_default():
    for kind, families in FAMILIES.items():
        for family in families.values():
            for field in dataclasses.fields(family):
                assert field.default == DEFAULTS[f"{kind}.{field.name}"], field.name


def test_override_leaves_the_original_alone():
    config = Config()
    assert config.override({"dim": 8}).dim == 8
    assert config == Config()


def test_settings_that_depend_on_each_other_change_together():
    sizes = {"text.hidden_size": 63, "text.num_heads": 3}
    config = Config().override({"text.weights": "random", **sizes})
    assert config.text == TextConfig(weights="random", hidden_size=63, num_heads=3)


def test_the_id_only_twin_knows_no_content():
    twin = Config().override({"user.id_embedding": True, "training.epochs": 3}).id_only()
    assert twin.modalities == ()
    assert twin.item.id_embedding and twin.item.id_dropout == 0
    assert not (twin.item.features or twin.user.profile or twin.user.features)
    assert twin.alignment == AlignmentConfig(kinds=())
    assert twin.user.id_embedding and twin.training.epochs == 3


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_the_id_only_twin_of_everything_knows_no_content_either(kind):
    config = Config().override(EVERYTHING).override({"alignment.kinds": [kind]})
    twin = config.id_only()
    assert twin.modalities == ()
    assert (twin.alignment, twin.graph.content_layers) == (AlignmentConfig(kinds=()), 0)
    assert twin.item.id_embedding and twin.item.id_dropout == 0
    assert not (twin.item.features or twin.user.profile or twin.user.features)
    # What interactions tell stays, so that content alone makes the difference.
    assert (twin.graph.layers, twin.item.id_init) == (2, "spectral")
    assert (twin.user.history, twin.user.time_gaps) == ("self_attention", True)
    # But for a rate of encoders that it does not have.
    training = dataclasses.replace(config.training, encoder_learning_rate_factor=1.0)
    assert (twin.retrieval, twin.training) == (config.retrieval, training)
    assert twin.id_only() == twin == Config.from_json(twin.to_json())


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "wanted a config file"), ("{", "wanted JSON"), ("[]", "wanted a JSON object")],
)
def test_an_unreadable_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_the_page_lists_every_setting_with_its_default():
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \|", text, re.MULTILINE))
    assert rows == {name: json.dumps(value) for name, value in DEFAULTS.items()}


def test_the_page_says_what_each_alignment_and_fusion_is():
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for setting, kinds in (("alignment.kinds", ALIGNMENTS), ("item.fusion", FUSIONS)):
        table = text.partition(f"\n| `{setting}` | what it does |")[2].partition("\n\n")[0]
        assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == kinds


def test_the_page_counts_the_weights_of_each_fusion():
    import tensorflow as tf

    from mmrec_tf.towers.fusion import build_fusion

    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| [^|]+ \| (\d+) \|$", text, re.MULTILINE)
    assert tuple(kind for kind, _ in rows) == FUSIONS
    for kind, count in rows:
        layer = build_fusion(kind)
        layer(tf.zeros([1, 3, 64]), tf.ones([1, 3], tf.bool))
        assert layer.count_params() == int(count), kind


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda p: p.stem)
def test_every_example_can_be_read(path):
    load_config(path)


@pytest.mark.parametrize(
    "setting, value",
    [
        ("text.num_heads", 0),
        ("audio.hop_length", 0),
        ("audio.filters", [0]),
        ("user.hidden", -1),
        ("ranking.hidden", [-1]),
        ("ranking.dropout", 1.5),
        ("ranking.learning_rate", 0),
        ("training.monitor", "ndcg@0"),
        ("training.seed", -1),
        ("training.patience", -1),
        ("text.adaptation", "prefix"),
        ("text.adaptation_rank", 0),
        ("alignment.kinds", ["graph", "cosine"]),
        ("alignment.kinds", ["none"]),
        ("alignment.kinds", ["graph", "graph"]),
        ("alignment.kinds", ["ridge", "cca"]),
        ("alignment.contrastive_weight", -1),
        ("alignment.graph_weight", -1),
        ("alignment.collaborative", -1),
        ("alignment.l2", -0.1),
        ("alignment.margin", -1),
        ("item.missing", "zeros"),
        ("item.id_init", "zeros"),
        ("graph.layers", -1),
        ("graph.edge_dropout", 1),
        ("graph.edge_dropout", -0.1),
        ("graph.content_layers", -1),
        ("graph.content_neighbors", 0),
        ("user.num_layers", 0),
        ("user.num_heads", 0),
        ("user.interests", 0),
        ("training.average_epochs", 0),
        ("user.training_window", -1),
        ("retrieval.next_items", 0),
        ("retrieval.calibration", 1.5),
        ("retrieval.fading", 0.0),
        ("retrieval.fading", 1.5),
        ("retrieval.loss", "hinge"),
        ("retrieval.sampling_correction", "true"),
        ("retrieval.num_uniform_negatives", -1),
        ("retrieval.num_mined_negatives", -1),
        ("retrieval.num_hard_negatives", -1),
        ("retrieval.mining_epochs", 0),
        ("retrieval.memory_size", -1),
        ("retrieval.disliked_weight", -1),
        ("retrieval.label_smoothing", 1),
        ("retrieval.label_smoothing", -0.1),
        ("retrieval.embedding_noise", -1),
        ("retrieval.adversarial", -1),
        ("training.warmup_steps", -1),
        ("training.decay", "exponential"),
        ("training.encoder_learning_rate_factor", 0),
        ("training.accumulation_steps", 0),
        ("dim", "Infinity"),
        ("dim", "NaN"),
    ],
)
def test_values_out_of_range_are_refused_when_the_config_is_made(setting, value):
    with pytest.raises(ConfigError, match=setting):
        Config().override({setting: value})


# Settings that go together, or do not


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"graph.layers": 1}, 'graph.layers: wanted 0 while retrieval.softmax is "batch"'),
        ({"graph.content_layers": 1}, 'Set retrieval.softmax to "full"'),
        (
            {
                "graph.layers": 1,
                "retrieval.softmax": "full",
                "training.jit_compile": True,
            },
            "graph: wanted training.jit_compile false",
        ),
        ({"user.history": "self_attention", "user.num_heads": 3}, "user.num_heads: wanted a"),
        (
            {"alignment.kinds": ["contrastive", "ridge"], "alignment.trainable": False},
            "alignment.trainable: wanted true with contrastive",
        ),
        (
            {"alignment.kinds": ["cca"], "alignment.target": "image", "modalities": ["image"]},
            'alignment.target: wanted "" while modalities is ["image"]',
        ),
        ({"alignment.kind": "graph"}, "alignment.kind is now alignment.kinds, a list"),
        ({"alignment.weight": 0.3}, "alignment.weight is now alignment.contrastive_weight and"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config().override(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"graph.layers": 1, "graph.content_layers": 1, "retrieval.softmax": "full"},
        *(
            {"alignment.kinds": [kind], "alignment.trainable": False}
            for kind in ("ridge", "cca", "procrustes")
        ),
        {"alignment.kinds": ["graph"], "alignment.hidden": 8},
        {"alignment.kinds": ["contrastive", "graph", "ridge"], "alignment.target": "image"},
        {"alignment.kinds": ["graph", "procrustes"], "alignment.trainable": False},
        {"text.adaptation": "adapter", "text.trainable_layers": 1},
        EVERYTHING,
    ],
)
def test_settings_that_go_together_are_taken(settings):
    config = Config().override(settings)
    assert Config.from_json(config.to_json()) == config != Config()


def test_without_modalities_the_kinds_that_need_none_stay():
    config = Config().override({"alignment.kinds": ["ridge", "graph"], "alignment.l2": 2.0})
    assert config.override({"modalities": []}).alignment == AlignmentConfig(kinds=("graph",))
    with pytest.raises(ConfigError, match="alignment.kinds: .* while modalities is \\[\\]"):
        Config().override({"alignment.kinds": ["ridge", "graph"], "modalities": []})


def test_a_modality_to_map_to_has_to_be_one_of_the_dataset():
    schema = Schema(
        num_users=1, num_items=1, modalities={n: ModalitySpec("text") for n in ("title", "plot")}
    )
    mapped = {"alignment.kinds": ["ridge"], "alignment.target": "plot"}
    require_effect(Config().override(mapped), schema)
    with pytest.raises(ConfigError, match='alignment.target: .* are title, plot.*; got "image"'):
        require_effect(Config().override({**mapped, "alignment.target": "image"}), schema)


def test_a_frozen_text_encoder_has_nothing_to_adapt():
    frozen = Config().override(EVERYTHING).text.frozen()
    assert (frozen.trainable_layers, frozen.adaptation) == (0, "full")
