"""Versions: numbered once, described by a card, made of another catalog without training."""

import json

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.growth import grow
from support.small_world import build_recommender

import mmrec_tf
from mmrec_tf import export
from mmrec_tf.__main__ import main
from mmrec_tf.encoders import cache as encoding
from mmrec_tf.errors import ConfigError, ExportError
from mmrec_tf.exporting import publish as publishing
from mmrec_tf.exporting.publish import CARD_FILE, TAKEN_FILE
from mmrec_tf.exporting.request_examples import Example
from mmrec_tf.exporting.verify import predict_request
from mmrec_tf.records.files import hold_folder
from mmrec_tf.retrieval.index import build
from mmrec_tf.runs.train import train_run
from mmrec_tf.runs.warm_start import reembed
from mmrec_tf.schema import SPLITS

SLOW = pytest.mark.slow


@pytest.fixture
def quick(dataset, monkeypatch):
    """A recommender of which only what stands around the SavedModel is written."""

    def write(made, folders, cards):
        for folder, card in zip(folders, cards, strict=True):
            (folder / "card.json").write_text(json.dumps(card))

    monkeypatch.setattr(publishing, "_write", write)
    return build_recommender(dataset, ranking=False, item__features=False)


def numbers(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_without_a_number_the_next_one_is_taken(quick, tmp_path):
    for _ in range(2):
        export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == numbers(tmp_path / "encoder") == [1, 2]
    export(quick, tmp_path, version=7)
    export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == [1, 2, 7, 8]


@pytest.mark.slow
def test_a_number_is_not_used_again_after_its_folder_is_gone(quick, tmp_path):
    """A server that has had version 2 would not load another one of that number."""
    export(quick, tmp_path)
    export(quick, tmp_path)
    for name in ("recommender", "encoder"):
        folder = tmp_path / name / "2"
        (folder / "card.json").unlink()
        folder.rmdir()
    with pytest.raises(ExportError, match="wanted a version above 2"):
        export(quick, tmp_path, version=2)
    export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == [1, 3]


def test_the_number_of_one_servable_counts_for_both(quick, tmp_path):
    (tmp_path / "encoder/4").mkdir(parents=True)
    export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == [5]


def test_a_failure_spends_the_number(quick, tmp_path, monkeypatch):
    def fail(*_):
        raise ExportError("no")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_write", fail)
        with pytest.raises(ExportError):
            export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == []
    export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == [2]


def test_a_damaged_list_of_numbers_is_refused(quick, tmp_path):
    (tmp_path / "recommender").mkdir()
    (tmp_path / "recommender" / TAKEN_FILE).write_text("1\nx\n")
    with pytest.raises(ExportError, match="wanted a number a line; got 'x'"):
        export(quick, tmp_path)


def test_leftovers_of_a_killed_export_are_removed_by_the_next(quick, tmp_path):
    (tmp_path / "recommender/.1.partial-999").mkdir(parents=True)
    (tmp_path / "encoder/.1.partial-999/variables").mkdir(parents=True)
    export(quick, tmp_path)
    assert numbers(tmp_path / "recommender") == [1]
    for name in ("recommender", "encoder"):
        assert not list((tmp_path / name).glob(".*.partial*"))


def test_a_version_that_tensorflow_serving_cannot_read_is_refused(quick, tmp_path):
    for version in (2**63, 20261130025545123456):
        with pytest.raises(ConfigError, match=f"at most {2**63 - 1}, .* got {version}"):
            export(quick, tmp_path, version=version)
    assert not (tmp_path / "recommender").exists()
    (tmp_path / "recommender").mkdir()
    (tmp_path / "recommender" / TAKEN_FILE).write_text(f"{2**63 - 1}\n")
    with pytest.raises(ExportError, match="was taken, above which TensorFlow Serving sees none"):
        export(quick, tmp_path)


def test_a_second_export_there_is_refused_while_the_first_lives(quick, tmp_path):
    with (
        hold_folder(tmp_path, ExportError, "exports"),
        pytest.raises(ExportError, match="another process exports there"),
    ):
        export(quick, tmp_path)


def test_an_unknown_index_is_refused(quick, tmp_path):
    with pytest.raises(ConfigError, match="wanted one of"):
        export(quick, tmp_path, index="annoy")


def test_an_index_that_finds_too_little_is_refused(quick, tmp_path, monkeypatch):
    # So few items are all found, whatever the index.
    monkeypatch.setattr(build, "recall", lambda found, best: np.full(len(found), 0.5))
    with pytest.raises(ExportError, match="wanted a recall@50 of at least 0.9; got 0.5"):
        export(quick, tmp_path, index="ivf", min_recall=0.9)
    assert not (tmp_path / "recommender").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param("ivf", marks=SLOW), pytest.param("ivf_int8", marks=SLOW), "ivf_pq"]
)
def test_an_export_with_an_index_of_lists(dataset, tmp_path, kind):
    """Python, the SavedModel and gRPC agree, or it would not be written."""
    recommender = build_recommender(dataset, item__features=False)
    folder, _ = export(recommender, tmp_path, index=kind, min_recall=0.9, k=5)
    card = json.loads((folder / CARD_FILE).read_text())
    assert card["index"]["kind"] == kind and card["index"]["recall"] >= 0.9
    assert card["index"]["min_recall"] == 0.9
    assert not [op for op in card["ops"] if ">" in op or "PyFunc" in op]
    model = tf.saved_model.load(str(folder))
    assert similar(model, "i1")


@pytest.mark.parametrize("name", ["recommender", "encoder"])
def test_a_version_carries_its_card(exported, run, name):
    folder = exported / name / "1"
    card = json.loads((folder / CARD_FILE).read_text())
    assert (card["servable"], card["version"]) == (name, 1)
    assert card["dataset"]["sha256"] == run.dataset.hash
    assert card["dataset"]["items"] == run.schema.num_items
    assert card["limits"]["k"] == 5
    assert card["modalities"] == list(run.retrieval.modalities)
    assert mmrec_tf.Config.from_json(card["config"]) == run.config
    assert card["index"]["kind"] == "exact"
    assert "MatMul" in card["ops"] and not [op for op in card["ops"] if ">" in op]
    if name == "recommender":
        counts = {split: len(run.dataset.interactions(split).user) for split in SPLITS}
        assert card["history"] == {"name": "all", "interactions": counts}


# Another catalog, without training


@pytest.fixture(scope="module")
def grown(dataset, tmp_path_factory):
    """The small world a while later: six items new, two gone."""
    return grow(dataset, tmp_path_factory.mktemp("grown") / "dataset")


@pytest.fixture(scope="module")
def start(dataset, tmp_path_factory):
    settings = {
        **small_world.VECTORS,
        "modalities": ["text", "vector"],
        "alignment__contrastive_weight": 0.1,
    }
    config = small_world.config(**settings, training__epochs=2, ranking__serve="always")
    return train_run(dataset, config, tmp_path_factory.mktemp("start") / "run")


@pytest.mark.slow
def test_items_that_are_new_are_served_without_training(start, grown, tmp_path, capsys):
    out = tmp_path / "export"
    assert main(["export", str(start.directory), "--out", str(out), "--k", "40"]) == 0
    (tmp_path / "gone.txt").write_text("i5\n")
    arguments = ["export", str(start.directory), "--out", str(out), "--k", "40", "--only-index"]
    arguments += ["--dataset", str(grown.directory), "--unavailable", str(tmp_path / "gone.txt")]
    weights = {p: p.stat().st_mtime_ns for p in start.directory.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "items: 2 gone, 6 new, 0 changed, 28 unchanged; 1 withdrawn" in said.err
    assert said.out.split() == [str(out / name / "2") for name in ("recommender", "encoder")]
    assert {p: p.stat().st_mtime_ns for p in weights} == weights
    before, after = (tf.saved_model.load(str(out / "recommender" / n)) for n in ("1", "2"))
    assert set(similar(after, "i1")) - set(similar(before, "i1")) >= {f"n{n}" for n in range(6)}
    assert "i5" in similar(before, "i1")
    assert not {"i5", "i3", "i12"} & set(similar(after, "i1"))
    # So does search, by words alone.
    encoder = tf.saved_model.load(str(out / "encoder/2"))
    found = encoder.signatures["search"](text=tf.constant(["owl"]), vector=tf.zeros([1, 6]))
    ids = set(found["item_id"].numpy()[0].astype(str))
    assert {f"n{n}" for n in range(6)} <= ids and not {"i5", "i3"} & ids
    card = json.loads((out / "recommender/2" / CARD_FILE).read_text())
    assert card["reembedded"] == {"gone": 2, "new": 6, "changed": 0, "unchanged": 28}
    assert card["dataset"]["withdrawn_items"] == 1
    assert card["measured"]["split"] == "valid" and "retrieval" in card["measured"]


def similar(model, item):
    answer = model.signatures["similar_items"](item_id=tf.constant([item]))
    return answer["item_id"].numpy()[0].astype(str).tolist()


@pytest.mark.slow
def test_only_what_is_new_or_changed_goes_through_frozen_encoders(
    start, dataset, tmp_path, monkeypatch
):
    """And what comes out is what encoding everything anew gives."""
    folder = grow(dataset, tmp_path / "dataset").directory
    changed = mmrec_tf.open_dataset(folder)
    asked = []
    forward = encoding.forward

    def counted(encoder):
        step = forward(encoder)

        def call(raw):
            asked.append(len(raw))
            return step(raw)

        return call

    monkeypatch.setattr(encoding, "forward", counted)
    recommender, counts = reembed(start, changed)
    assert counts["new"] == 6
    # Six new texts, and once the blank one, which some lack; ready-made vectors go through as well.
    assert sum(asked) <= 2 * (6 + 1)
    monkeypatch.setattr(encoding, "forward", forward)
    for path in changed.cache.iterdir():
        path.unlink()
    again, _ = reembed(start, changed)
    np.testing.assert_array_equal(recommender.index.vectors.numpy(), again.index.vectors.numpy())


def test_the_same_dataset_gives_the_same_answers(start, dataset):
    recommender, counts = reembed(start, dataset)
    assert counts == {"gone": 0, "new": 0, "changed": 0, "unchanged": small_world.NUM_ITEMS}
    users = dataset.users.user_id.tolist()
    got, want = recommender.recommend(users, k=5), start.recommender().recommend(users, k=5)
    np.testing.assert_array_equal(got.item_id, want.item_id)
    np.testing.assert_array_equal(got.score, want.score)


def test_what_users_did_in_another_dataset_is_known(start, grown):
    changed = mmrec_tf.open_dataset(grown.directory)
    recommender, _ = reembed(start, changed)
    users, items = changed.users.user_id.tolist(), changed.catalog.item_id
    answer = recommender.recommend(users, k=9)
    train, _ = reembed(start, changed, history="train")
    less = train.recommend(users, k=9)
    known = changed.known_interactions("all")
    pairs = {(users[u], items[i]) for u, i in zip(known.user, known.item, strict=True)}
    again = [
        sum((users[row], item) in pairs for row in range(len(users)) for item in found.item_id[row])
        for found in (answer, less)
    ]
    assert again[0] == 0 < again[1]


def test_only_index_wants_a_dataset(start, tmp_path, capsys):
    assert main(["export", str(start.directory), "--out", str(tmp_path), "--only-index"]) == 2
    assert "wanted --dataset DIR" in capsys.readouterr().err


def test_a_dataset_of_other_modalities_is_refused(start, dataset, tmp_path):
    other = grow(dataset, tmp_path / "dataset", modalities=("vector",))
    with pytest.raises(ConfigError, match="text"):
        reembed(start, other)


def test_a_request_without_rows_keeps_its_types():
    empty = Example("recommend", {"user_id": np.zeros([0], object), "x": np.zeros([0, 2])}, {})
    request = predict_request("recommender", empty)
    found = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
    assert (found["user_id"].dtype, found["user_id"].shape) == (np.dtype(object), (0,))
    assert (found["x"].dtype, found["x"].shape) == (np.float64, (0, 2))
