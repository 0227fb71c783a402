"""Training that goes on from a run: nothing learned is lost, and what is new is learned."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from support import small_world
from support.growth import GONE, NEW_ITEMS, grow
from support.small_world import NUM_ITEMS, NUM_USERS
from support.training_runs import EXACT, Scripted, in_order

from mmrec_tf import RankingModel, RetrievalModel, evaluate, load_run, open_dataset, records
from mmrec_tf.__main__ import main
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.records.files import sealed
from mmrec_tf.runs import warm_start as continuation
from mmrec_tf.runs.run import Run
from mmrec_tf.runs.train import train_run
from mmrec_tf.runs.warm_start import Rows, carry_rows, carry_weights, rows_of
from mmrec_tf.schema import SPLITS, FeatureSpec, ModalitySpec
from mmrec_tf.training.callbacks import Progress

SETTINGS = {**small_world.VECTORS, "training__epochs": 6, "training__patience": 0}


@pytest.fixture(scope="module")
def start(dataset, tmp_path_factory):
    # Few epochs in, ranking may be of no use, and is to be carried all the same.
    config = small_world.config(**SETTINGS, ranking__serve="always")
    return train_run(dataset, config, tmp_path_factory.mktemp("start") / "run")


@pytest.fixture(scope="module")
def quick(dataset, tmp_path_factory):
    """A run without encoders worth the name, and with the twin."""
    settings = {**small_world.VECTORS, "training__epochs": 1, "ranking__epochs": 0}
    config = small_world.config(**settings)
    return train_run(dataset, config, tmp_path_factory.mktemp("quick") / "run", twin=True)


@pytest.fixture(scope="module")
def grown(dataset, tmp_path_factory):
    return grow(dataset, tmp_path_factory.mktemp("grown") / "dataset")


@pytest.fixture(scope="module")
def gone_on(start, grown, tmp_path_factory):
    config = start.config.override({"training.epochs": 20})
    return train_run(grown, config, tmp_path_factory.mktemp("on") / "run", start=start)


def carried(start: Run, dataset: Dataset, **settings) -> RetrievalModel:
    """The model right after the start, before any step."""
    config = start.config.override({n.replace("__", "."): v for n, v in settings.items()})
    encoders = start.load_encoders(dataset)
    model = RetrievalModel(config, dataset, encoders=encoders, cache=None, initialize=False)
    carry_weights(model, start, dataset)
    return model


def numbers(ids, wanted) -> np.ndarray:
    place = {name: row for row, name in enumerate(ids)}
    return np.array([place[name] for name in wanted])


def scores(model: RetrievalModel, dataset: Dataset, users, history_of, items) -> np.ndarray:
    """<float32>[user, item] without the popularity bias; all by id."""
    catalog = dataset.catalog
    embedding = tf.constant(model.embed_catalog().embedding)
    history = numbers(catalog.item_id, history_of)[None].repeat(len(users), 0)
    rows = tf.gather(embedding, history)
    user = tf.constant(numbers(dataset.users.user_id, users), tf.int32)
    vectors = model.embed_users(user, rows, tf.ones(history.shape, tf.bool))
    queries = model.queries(vectors)[:, :-1]
    found = tf.gather(embedding, numbers(catalog.item_id, items))
    return tf.matmul(queries, found, transpose_b=True).numpy()


USERS = [small_world.user_id(user) for user in range(NUM_USERS) if user != small_world.NEWCOMER]
ITEMS = [small_world.item_id(n) for n in range(NUM_ITEMS) if n not in GONE]


# Rows


def test_rows_follow_their_names_by_hand():
    old = np.array([[1, 1], [2, 4], [9, 9], [3, 7]], np.float32)
    before = Rows(["a", "b", "c", "d"], np.array([True, True, False, True]))
    after = Rows(["new", "d", "c", "a"], np.zeros(4, bool))
    got = carry_rows(old, np.zeros([4, 2], np.float32), before=before, after=after)
    # The mean of a, b and d; c was never trained.
    np.testing.assert_array_equal(got, [[2, 4], [3, 7], [2, 4], [1, 1]])
    assert got.dtype == np.float32


def test_rows_of_which_none_was_trained_stay_fresh():
    fresh = np.array([[5.0, 6.0]], np.float32)
    nothing = Rows(["a"], np.array([False]))
    got = carry_rows(np.zeros([1, 2], np.float32), fresh, before=nothing, after=nothing)
    np.testing.assert_array_equal(got, fresh)


def test_entities_of_a_knowledge_graph_follow_their_names():
    graphs = [
        types.SimpleNamespace(entity_id=np.array(e, object), relation_id=np.array(r, object))
        for e, r in ((["owl", "sea"], ["shows"]), (["sea", "lark"], ["made by", "shows"]))
    ]
    datasets = [
        types.SimpleNamespace(triples=graph, catalog=None, users=None, schema=None)
        for graph in graphs
    ]
    for path, want in (
        ("translation.entities", [[3, 4], [2, 3]]),
        ("translation.relations", [[1, 2], [1, 2]]),
    ):
        before, after = (rows_of(path, dataset) for dataset in datasets)
        old = np.array([[1, 2], [3, 4]], np.float32)[: len(before.name)]
        got = carry_rows(old, np.zeros([2, 2], np.float32), before=before, after=after)
        np.testing.assert_array_equal(got, want)
    # A graph without entities still has a row.
    nothing = Rows(np.array([], object), np.ones(0, bool))
    fresh = np.ones([1, 2], np.float32)
    np.testing.assert_array_equal(carry_rows(old, fresh, before=before, after=nothing), fresh)


# Nothing is lost


def test_scores_of_what_was_known_are_the_same_right_after_the_start(start, dataset, grown):
    model = carried(start, grown)
    history = ["i6", "i1", "i24"]
    want = scores(start.retrieval, dataset, USERS, history, ITEMS)
    got = scores(model, grown, USERS, history, ITEMS)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.std(want, axis=1).min() > 0.1
    assert float(model.popularity_weight) == float(start.retrieval.popularity_weight) != 0


def test_without_a_change_even_the_ranking_is_the_same(start, dataset):
    """Popularity counts too, as nothing is counted anew. Only a user without a past has moved."""
    model = carried(start, dataset)
    everyone = np.delete(np.arange(NUM_USERS), small_world.NEWCOMER)
    np.testing.assert_array_equal(
        model.rank_items(dataset, everyone, k=10),
        start.retrieval.rank_items(dataset, everyone, k=10),
    )
    for path, weight in start.retrieval.get_weight_paths().items():
        if path.endswith("kernel") and not path.startswith("optimizer"):
            np.testing.assert_array_equal(model.get_weight_paths()[path], weight, path)


@pytest.mark.slow
def test_what_the_last_batches_left_behind_starts_anew(dataset, grown, tmp_path):
    """Items were numbered otherwise then."""
    settings = {"retrieval__sampling_correction": "streaming", "retrieval__memory_size": 40}
    config = small_world.config(
        **{**small_world.VECTORS, **settings, "training__epochs": 1, "ranking__epochs": 0}
    )
    before = train_run(dataset, config, tmp_path / "run")
    model = carried(before, grown)
    fresh = RetrievalModel(config, grown)
    pairs = zip(model.objective.variables, fresh.objective.variables, strict=True)
    assert model.objective.variables
    for weight, other in pairs:
        np.testing.assert_array_equal(weight, other)


def test_the_ranking_model_is_carried_too(start, dataset, grown, tmp_path):
    before = load_run(shutil.copytree(start.directory, tmp_path / "run"))
    rng = np.random.default_rng(0)
    for weight in before.ranking.trainable_variables:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    before.save_ranking(before.ranking)
    ranking = RankingModel(start.config, grown, retrieval=carried(before, grown), initialize=False)
    carry_weights(ranking, before, grown)
    queries = tf.constant(rng.normal(size=[3, 9]), tf.float32)
    answers = []
    for model, of in ((before.ranking, dataset), (ranking, grown)):
        item = numbers(of.catalog.item_id, ITEMS)[None].repeat(3, 0)
        # Popularity, the last column, is counted anew.
        vector = model.items["vector"] * tf.constant([1.0] * 8 + [0.0])
        items = {**model.items, "vector": vector}
        nothing = tf.fill([3, 4], -1)
        request = Request(
            queries, tf.fill([3], -1), nothing, -tf.ones([3, 4]), tf.zeros([3], tf.int64)
        )
        score = tf.einsum("bd,bcd->bc", queries, tf.gather(vector, item))
        ranked = model.rank(request, tf.constant(item, tf.int32), items, score)
        answers.append(ranked.score.numpy())
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3, atol=1e-3)
    assert answers[0].std(axis=1).min() > 0.1


@pytest.mark.slow
def test_what_fine_tuning_added_follows_the_items(dataset, grown, tmp_path):
    settings = {"ranking__fine_tune": True, "training__epochs": 1}
    config = small_world.config(**{**small_world.VECTORS, **settings})
    before = train_run(dataset, config, tmp_path / "run")
    shift = np.random.default_rng(0).normal(size=before.ranking.item_shift.shape)
    before.ranking.item_shift.assign(shift)
    before.save_ranking(before.ranking)
    ranking = RankingModel(config, grown, retrieval=carried(before, grown), initialize=False)
    carry_weights(ranking, before, grown)
    known = dict(zip(dataset.catalog.item_id, shift, strict=True))
    new = 0
    for name, row in zip(grown.catalog.item_id, ranking.item_shift.numpy(), strict=True):
        np.testing.assert_allclose(row, known.get(name, np.zeros(8)), rtol=1e-5)
        new += name not in known
    assert new


@pytest.mark.slow
def test_encoders_keep_their_words_and_weights(dataset, grown, tmp_path):
    """One of them trained, and so stands in two checkpoints."""
    settings = {"modalities": ["text", "vector"], "text__trainable_layers": -1}
    config = small_world.config(**settings, user__profile=False)
    before = Run.create(tmp_path / "run", config, dataset)
    trained = RetrievalModel(config, dataset, cache=None, initialize=False)
    trained.encoders["text"].weights[0].assign_add(
        tf.ones_like(trained.encoders["text"].weights[0])
    )
    before.save_retrieval(trained)
    before.finish({})
    model = carried(before, grown)
    for name, encoder in before.retrieval.encoders.items():
        assert model.encoders[name].fingerprint() == encoder.fingerprint()
        assert model.encoders[name].assets() == encoder.assets()
    fresh = RetrievalModel(before.config, grown, cache=None)
    assert fresh.encoders["text"].assets() != model.encoders["text"].assets()
    assert fresh.encoders["vector"].fingerprint() != model.encoders["vector"].fingerprint()
    want = scores(before.retrieval, dataset, USERS, ["i6", "i1"], ITEMS)
    got = scores(model, grown, USERS, ["i6", "i1"], ITEMS)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_rows_that_training_never_saw_start_at_the_mean(start, dataset, grown):
    model = carried(start, grown)
    old = start.retrieval.item_tower.id_embedding.table.numpy()
    new = model.item_tower.id_embedding.table.numpy()
    warm = dataset.catalog.train_count > 0
    assert (~warm).sum() >= 3
    mean = old[warm].mean(axis=0)
    unknown = [f"n{n}" for n in range(NEW_ITEMS)] + [f"i{n}" for n in small_world.COLD]
    for name in unknown:
        np.testing.assert_allclose(new[numbers(grown.catalog.item_id, [name])[0]], mean, atol=1e-6)
    users = start.retrieval.user_tower.id_embedding.table.numpy()
    mean = users[np.arange(NUM_USERS) != small_world.NEWCOMER].mean(axis=0)
    table = model.user_tower.id_embedding.table.numpy()
    for name in ("w0", small_world.user_id(small_world.NEWCOMER)):
        np.testing.assert_allclose(table[numbers(grown.users.user_id, [name])[0]], mean, atol=1e-6)


def test_categories_follow_their_values_and_prices_their_unit(start, grown):
    model = carried(start, grown)
    old, new = (one.item_tower.features.tables for one in (start.retrieval, model))
    genre = old["genre"].numpy()
    assert new["genre"].shape == (5, 8)
    # 0 and 1, none and the bucket, occur nowhere; evening is new; then day and night.
    mean = genre[2:].mean(axis=0)
    want = np.stack([mean, mean, mean, genre[3], genre[2]])
    np.testing.assert_allclose(new["genre"], want, atol=1e-6)
    np.testing.assert_allclose(new["price"], 2 * old["price"].numpy(), rtol=1e-6)


def test_side_features_may_come_and_go(start, dataset, tmp_path, capsys):
    """Those that are new change nothing until they are trained."""
    features = {
        "genre": FeatureSpec("numeric"),
        "price": FeatureSpec("numeric"),
        "year": FeatureSpec("numeric"),
    }
    path = tmp_path / "changed"
    with records.DatasetWriter(path) as writer:
        for item in sorted(
            records.read_items(dataset.directory, dataset.schema), key=lambda item: item.number
        ):
            writer.write_item(item.item_id, content=item.content, features={"year": 3.0})
        for user in records.read_users(dataset.directory, dataset.schema):
            writer.write_user(user.user_id, profile=user.profile)
        for split in SPLITS:
            for user in range(NUM_USERS):
                data = dataset.interactions(split)
                own = data.item[data.user == user].tolist()
                if own:
                    writer.write_interactions(
                        split, user, item=own, timestamp=list(range(len(own)))
                    )
        schema = dataclasses.replace(dataset.schema, item_features=features, user_features={})
        writer.finish(schema, source={"name": "changed"}, split_rule="given")
    model = carried(start, open_dataset(path))
    tables = model.item_tower.features.tables
    assert not np.any(tables["year"]) and not np.any(tables["genre"])
    assert np.any(tables["price"])
    assert model.user_tower.features is None
    said = capsys.readouterr().err
    assert "new: year" in said and "left out: age" in said
    assert "30 of 30 items known; 40 of 40 users known" in said


# What is new is learned


def pairs_found(model, dataset, wanted, *, k=10, split="valid") -> float:
    """The share of the split's interactions with some items that stand in the first k."""
    data = dataset.interactions(split)
    row = np.isin(dataset.catalog.item_id[data.item], wanted)
    users = np.unique(data.user[row])
    top = dict(zip(users, model.rank_items(dataset, users, k=k), strict=True))
    return np.mean([i in top[u] for u, i in zip(data.user[row], data.item[row], strict=True)])


def test_training_goes_on(start, gone_on, grown):
    """The weights that it began with count as the best until an epoch is better."""
    metrics = json.loads((gone_on.directory / "metrics.json").read_text())["valid"]["retrieval"]
    model = carried(start, grown)
    assert metrics["ndcg@10"] >= evaluate(model, grown, split="valid", ks=[10])["ndcg@10"]
    new = [f"n{n}" for n in range(NEW_ITEMS)]
    assert pairs_found(gone_on.retrieval, grown, ITEMS) >= pairs_found(model, grown, ITEMS) - 0.05
    assert pairs_found(gone_on.retrieval, grown, new) >= pairs_found(model, grown, new) + 0.25
    facts = json.loads((gone_on.directory / "run.json").read_text())["start"]
    assert facts == {"run": str(start.directory), "dataset_hash": start.dataset.hash}


def test_it_reads_back_without_its_start(gone_on, grown, start):
    loaded = load_run(gone_on.directory)
    everyone = np.arange(len(grown.users.user_id))
    for part in (loaded.retrieval, loaded.recommender()):
        pair = gone_on.retrieval if part is loaded.retrieval else gone_on.recommender()
        np.testing.assert_array_equal(
            part.rank_items(grown, everyone, k=5), pair.rank_items(grown, everyone, k=5)
        )


def test_weights_worse_than_the_start_are_not_kept(start, dataset, tmp_path, monkeypatch):
    answers = Scripted(monkeypatch, [0.5, 0.4, 0.3])
    config = start.config.override({"training.epochs": 2, "ranking.epochs": 0})
    run = train_run(dataset, config, tmp_path / "run", start=str(start.directory))
    assert len(answers.weights) == 3
    everyone = np.delete(np.arange(NUM_USERS), small_world.NEWCOMER)
    np.testing.assert_array_equal(
        run.retrieval.rank_items(dataset, everyone, k=5),
        start.retrieval.rank_items(dataset, everyone, k=5),
    )
    assert run.ranking is None


@pytest.mark.slow
def test_after_a_kill_the_same_call_goes_on(quick, grown, tmp_path, monkeypatch):
    config = small_world.config(**EXACT)
    base = train_run(quick.dataset, config.override({"training.epochs": 1}), tmp_path / "base")
    monkeypatch.setattr(Dataset, "batches", in_order(Dataset.batches))
    begun, begin = [], Progress.on_epoch_begin

    def on_epoch_begin(callback, epoch, logs=None):
        if epoch == 2 and not begun:
            raise KeyboardInterrupt
        begun.append(epoch)
        begin(callback, epoch, logs)

    begun.append("whole")
    monkeypatch.setattr(Progress, "on_epoch_begin", on_epoch_begin)
    whole = train_run(grown, config, tmp_path / "whole", start=base)
    begun.clear()

    def until_two(callback, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(callback, epoch, logs)

    monkeypatch.setattr(Progress, "on_epoch_begin", until_two)
    with pytest.raises(KeyboardInterrupt):
        train_run(grown, config, tmp_path / "run", start=base)
    begun.append("again")
    monkeypatch.setattr(Progress, "on_epoch_begin", on_epoch_begin)
    for other in (None, quick):
        with pytest.raises((RunError, ConfigError)):
            train_run(grown, config, tmp_path / "run", start=other)
    run = train_run(grown, config, tmp_path / "run", start=base)
    assert begun == ["again", 2, 3]
    for one, other in zip(run.retrieval.weights, whole.retrieval.weights, strict=True):
        if "total" not in one.name and "count" not in one.name:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_twin_goes_on_too(quick, grown, tmp_path):
    run = train_run(grown, quick.config, tmp_path / "run", twin=True, start=quick)
    facts = json.loads((run.directory / "twin/run.json").read_text())["start"]
    assert facts["run"] == str(quick.directory / "twin")
    with pytest.raises(RunError, match="has no twin"):
        train_run(grown, quick.twin.config, tmp_path / "no", twin=True, start=quick.twin)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_the_command(quick, grown, tmp_path, capsys):
    """The config is that of the run that it goes on from."""
    arguments = ["train", "--from", quick.directory, "--dataset", grown.directory]
    arguments += ["--out", tmp_path / "run", "--set", "training.epochs=2"]
    assert main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert "retrieval" in out and "28 of 34 items known; 40 of 52 users known" in err
    config = load_run(tmp_path / "run").config
    assert config == quick.config.override({"training.epochs": 2})
    arguments[2], arguments[-1] = tmp_path / "nowhere", "dim=16"
    assert main([str(argument) for argument in arguments]) == 2
    arguments[2] = quick.directory
    assert main([str(argument) for argument in arguments]) == 2
    assert "dim: wanted 8, as in" in capsys.readouterr().err


# What is refused, before anything is written


def refused(dataset, config, out, start, *, error=ConfigError, match):
    with pytest.raises(error, match=match):
        train_run(dataset, config, out, start=start)
    assert not out.exists()


@pytest.mark.parametrize(
    "setting, value",
    [
        ("dim", 16),
        ("item.fusion", "mean"),
        ("user.history", "gru"),
        ("item.features", False),
        ("retrieval.temperature", 0.5),
        ("ranking.hidden", [4]),
    ],
)
def test_settings_that_weights_depend_on_are_refused(start, grown, tmp_path, setting, value):
    config = start.config.override({setting: value})
    refused(grown, config, tmp_path / "run", start, match=f"^{setting}: wanted .* as in ")


def test_weights_that_do_not_fit_are_named(start, grown, monkeypatch):
    """Should a setting be forgotten in the list."""
    with pytest.raises(ConfigError, match=r"item_tower.fusion.*differ: item.fusion\. Keep"):
        carried(start, grown, item__fusion="mean", training__epochs=1)
    with pytest.raises(ConfigError, match=r"user_tower.project.kernel.*differ: dim\."):
        carried(start, grown, dim=16)


def test_modalities_are_those_of_the_start(start, dataset, grown, tmp_path):
    without = grow(dataset, tmp_path / "without", modalities=["text", "image"])
    refused(without, start.config, tmp_path / "run", start, match="the dataset has no 'vector'")
    everything = start.config.override({"modalities": None})
    refused(grown, everything, tmp_path / "run", start, match=r'^modalities: wanted \["vector"\]')
    other = {**dataset.schema.modalities, "vector": ModalitySpec("text")}
    with pytest.raises(ConfigError, match="'vector' as .* knows it"):
        schema = dataclasses.replace(dataset.schema, modalities=other)
        continuation.check_start(start, start.config, schema)


def test_profiles_are_read_by_both_or_by_neither(start, dataset):
    config = start.config.override({"user.profile": True})
    with pytest.raises(ConfigError, match="user.profile: wanted profile texts not to be read"):
        continuation.check_start(start, config, dataset.schema)
    # What is not there is not read, whatever the setting.
    continuation.check_start(start, config, dataclasses.replace(dataset.schema, profile=False))


def test_a_start_that_is_not_there_or_not_finished(quick, grown, tmp_path):
    out = tmp_path / "run"
    refused(grown, quick.config, out, tmp_path / "no", error=RunError, match="wanted a run")
    copy = shutil.copytree(quick.directory, tmp_path / "copy")
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(sealed({**facts, "finished": False})))
    refused(grown, quick.config, out, copy, error=RunError, match="not finished")
    refused(grown, quick.config, out, Run(copy), error=RunError, match="wanted a finished run")
    (copy / "run.json").write_text(json.dumps(sealed({**facts, "dataset": str(tmp_path / "away")})))
    refused(grown, quick.config, out, copy, error=RunError, match="missing or another one by now")
    moved = load_run(copy, dataset=quick.dataset.directory)
    assert train_run(grown, quick.config, out, start=moved).finished


def test_damaged_weights_are_refused(quick, grown, tmp_path):
    copy = shutil.copytree(quick.directory, tmp_path / "copy")
    (data,) = (copy / "weights/retrieval").glob("*.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(RunError, match="weights/retrieval.* is not what training wrote"):
        train_run(grown, quick.config, tmp_path / "run", start=copy)
    shutil.rmtree(copy / "weights/retrieval")
    with pytest.raises(RunError, match="weights/retrieval"):
        train_run(grown, quick.config, tmp_path / "run", start=copy)
