"""The chain end to end: raw words, pictures and sounds in, recommendations over gRPC out."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from support import small_world

from data import prepare
from mmrec_tf import RetrievalModel, evaluate, load_config, load_run, open_dataset, train
from mmrec_tf.__main__ import main
from mmrec_tf.config import ALIGNMENTS, FUSIONS
from mmrec_tf.records import DatasetWriter, Triples
from mmrec_tf.retrieval.content_encoders import make_encoders
from mmrec_tf.training.checkpoints import load_weights, save_weights
from serving.check import checks
from serving.client import Client
from serving.local_server import LocalServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_USERS, NUM_ITEMS, K = 150, 60, 10
# Each alignment, and some together, with the default fusion, and each fusion with the default
# alignment.
SEVERAL = {"alignment.kinds": ["contrastive", "graph", "ridge"]}
GRID = [
    *({"alignment.kinds": kinds} for kinds in ([], *([kind] for kind in ALIGNMENTS))),
    SEVERAL,
    *({"item.fusion": kind} for kind in FUSIONS if kind != "gated"),
    {"item.missing": "mapped"},
]


def succeed(command, *arguments):
    assert command([str(argument) for argument in arguments]) == 0


def assert_checked(export, server):
    found = list(checks.check(export, server.address, rest_address=server.rest_address))
    assert len(found) > 20
    assert [check for check in found if check.problem] == []


# A small planted world, as `make demo` does it


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Dataset, run and export, each made by its command."""
    work = tmp_path_factory.mktemp("chain")
    config = small_world.config(
        text__max_tokens=24,
        audio__sample_rate_hz=16000,
        audio__fmax_hz=8000,
        audio__fft_length=512,
        audio__hop_length=512,
        training__epochs=3,
    )
    (work / "config.json").write_text(json.dumps(config.to_json()))
    world = ["--users", NUM_USERS, "--items", NUM_ITEMS, "--seed", 0]
    succeed(prepare.main, "synthetic", "--out", work / "data", *world)
    succeed(
        main,
        *("train", "--dataset", work / "data", "--out", work / "run", "--no-report"),
        *("--config", work / "config.json"),
    )
    succeed(main, "export", work / "run", "--out", work / "export", "--version", 1, "--k", K)
    return work


@pytest.fixture(scope="module")
def server(work):
    with LocalServer(work / "export") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address, timeout_seconds=60) as made:
        yield made


@pytest.fixture(scope="module")
def run(work):
    """Read back from disk."""
    return load_run(work / "run")


def test_training_learned_something(run):
    metrics = json.loads((run.directory / "metrics.json").read_text())["valid"]
    assert metrics["retrieval"]["ndcg@10"] > metrics["popularity"]["ndcg@10"]
    assert run.dataset.manifest["counts"]["items"] == NUM_ITEMS
    assert all(0 < column.mean() < 1 for column in run.dataset.catalog.present.T)


def test_recommendations_over_grpc_are_python_s(run, client):
    users = [*run.dataset.users.user_id, "nobody", "nobody"]
    history = [[], ["i3"], ["i1", "i2", "unheard of", "i5", "i8", "i9"]]
    rows = [history[n % 3] for n in range(len(users))]
    got = client.recommend(users, rows)
    want = run.recommender().recommend(users, history=rows, k=K)
    small_world.assert_same(got, want)
    assert len({tuple(row) for row in got.item_id}) > NUM_USERS // 2
    first = client.recommend(users, rows, k=3)
    np.testing.assert_array_equal(first.item_id, got.item_id[:, :3])


def test_scores_over_grpc_are_those_of_recommend(client):
    best = client.recommend(["u1", "u2"], k=5)
    ranked = client.rank(["u1", "u2"], [row[::-1].tolist() for row in best.item_id])
    np.testing.assert_allclose(ranked.score, best.score[:, ::-1], rtol=1e-4, atol=1e-4)


def test_raw_content_over_grpc_is_placed_as_in_training(run, client):
    catalog = run.dataset.catalog
    rows = np.flatnonzero(catalog.present.any(axis=1))
    raw = {name: catalog.content[name][rows].tolist() for name in ("text", "image", "audio")}
    got = client.embed_item(**raw)
    want = run.retrieval.embed_catalog(content_only=True)
    np.testing.assert_allclose(got.embedding, want.embedding[rows], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got.weights, want.weights[rows], rtol=1e-3, atol=1e-3)
    # So an item is found by its own content, unless another shows exactly the same.
    found = client.search(**raw, k=1)
    own = catalog.item_id[rows]
    near = found.score[:, 0] > 0.999
    assert near.all() and (found.item_id[:, 0] == own).mean() > 0.8


def test_the_check_passes(work, server):
    assert_checked(work / "export", server)


# Every way to make one vector of an item's modalities


class WriterWithGraph(DatasetWriter):
    """Adds a knowledge graph to the small world: every item belongs to its cluster."""

    def finish(self, schema, **arguments):
        items = np.arange(schema.num_items, dtype=np.int32)
        clusters = small_world.NUM_CLUSTERS
        entity_id = np.array([f"cluster{n}" for n in range(clusters)], object)
        tail = schema.num_items + items % clusters
        triples = Triples(items, 0 * items, tail, entity_id, np.array(["of"], object))
        self.write_triples(triples)
        counts = {"num_entities": clusters, "num_relations": 1}
        return super().finish(dataclasses.replace(schema, **counts), **arguments)


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """The small world with a knowledge graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_world, "DatasetWriter", WriterWithGraph)
        return open_dataset(small_world.write(tmp_path_factory.mktemp("linked") / "data"))


@pytest.fixture
def eager():
    """A few steps of so many models take less time than to compile them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
@pytest.mark.parametrize(
    "settings",
    [
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in GRID
            if settings != SEVERAL
        ),
        SEVERAL,
        {"alignment.kinds": ["contrastive", "procrustes"], "alignment.target": "vector"},
    ],
    ids=str,
)
def test_every_alignment_and_fusion_learns_and_is_read_back(linked, eager, tmp_path, settings):
    config = small_world.config(
        modalities=["audio", "vector"], user__profile=False, training__batch_size=48
    ).override(settings)
    model = RetrievalModel(config, linked)
    history = train(model, linked).history
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    for kind in ("contrastive", "graph"):
        assert all(
            (loss > 0) == (kind in config.alignment.kinds) for loss in history[f"{kind}_loss"]
        )
    want = model.embed_catalog()
    assert all(np.isfinite(part).all() for part in want)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert len(np.unique(want.embedding, axis=0)) == small_world.NUM_ITEMS

    save_weights(tmp_path / "weights", model=model, **model.encoders)
    encoders = make_encoders(config.override({"training.seed": 1}), linked)
    load_weights(tmp_path / "weights", **encoders)
    config = config.override({"training.seed": 1})
    other = RetrievalModel(config, linked, encoders=encoders, initialize=False)
    load_weights(tmp_path / "weights", model=other)
    for one, two in zip(want, other.embed_catalog(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_each_loss_counts_with_its_own_weight(linked, eager):
    config = small_world.config(
        **{**small_world.VECTORS, "modalities": ["audio", "vector"]},
        alignment__kinds=["contrastive", "graph"],
        alignment__contrastive_weight=0.5,
        alignment__graph_weight=0.25,
    )
    model = RetrievalModel(config, linked, cache=None)
    total = float(model.compute_loss(next(iter(model.batches("train")))))
    parts = [model.loss_tracker, model.contrastive_tracker, model.graph_tracker]
    plain, contrastive, of_graph = (float(part.result()) for part in parts)
    assert min(contrastive, of_graph) > 0.1
    assert total == pytest.approx(plain + 0.5 * contrastive + 0.25 * of_graph, rel=1e-5)


# Learning


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A world in which words, pictures and sounds each say something, and together all."""
    folder = tmp_path_factory.mktemp("planted")
    world = ["--users", 1500, "--items", 300, "--seed", 0]
    succeed(prepare.main, "synthetic", "--out", folder / "data", *world)
    return open_dataset(folder / "data")


@pytest.fixture(scope="module")
def learned(planted):
    """By name, a model of each modality alone, of all together, and of ids alone."""
    config = load_config(ROOT / "examples/small.json")
    config = config.override({"training.epochs": 6, "training.batch_size": 512})
    content = config.override({"item.id_embedding": False})
    configs = {
        **{
            name: content.override({"modalities": [name], "alignment.contrastive_weight": 0})
            for name in planted.schema.modalities
        },
        "all": content,
        "ids": config.id_only(),
    }
    models = {}
    for name, settings in configs.items():
        models[name] = RetrievalModel(settings, planted)
        train(models[name], planted)
    return models


@pytest.mark.slow
def test_each_modality_beats_popularity_and_all_together_each(planted, learned):
    recall = {
        name: evaluate(model, planted, ks=[10])["recall@10"]
        for name, model in {**learned, "popularity": None}.items()
    }
    alone = [recall[name] for name in planted.schema.modalities]
    assert min(alone) > 1.2 * recall["popularity"], recall
    # Words alone say most of it after so few epochs.
    assert recall["all"] > 1.02 * max(alone), recall


@pytest.mark.slow
def test_cold_items_are_found_by_their_content_only(planted, learned):
    cold = np.flatnonzero(planted.catalog.train_count == 0)
    data = planted.interactions("test")
    wanted = np.isin(data.item, cold)
    users, items = data.user[wanted], data.item[wanted]
    assert len(cold) > 10 and len(items) > 50

    def recall(name):
        top = learned[name].rank_items(planted, users, k=20)
        return (top == items[:, None]).any(axis=1).mean()

    assert recall("ids") < 0.02
    assert recall("all") > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("settings", GRID, ids=str)
def test_every_alignment_and_fusion_beats_popularity_by_content_alone(planted, settings):
    """Under frozen encoders, so that nothing else can learn what modalities say."""
    config = load_config(ROOT / "examples/small.json").override(
        {
            "text.trainable_layers": 0,
            "audio.trainable_layers": 0,
            "item.id_embedding": False,
            "training.epochs": 4,
            "training.batch_size": 256,
            **settings,
        }
    )
    model = RetrievalModel(config, planted)
    loss = train(model, planted).history["loss"]
    assert np.isfinite(loss).all() and loss[-1] < loss[0]
    recall, popular = (evaluate(m, planted, ks=[10])["recall@10"] for m in (model, None))
    assert recall > 1.4 * popular


# Real data


def chain(work, monkeypatch, *, example, epochs):
    """Train on `work/data` as an example does, briefly; measure, export, serve and check."""
    monkeypatch.chdir(ROOT)
    succeed(
        main,
        *("train", "--dataset", work / "data", "--out", work / "run", "--no-report"),
        *("--config", ROOT / f"examples/{example}.json"),
        *("--set", f"training.epochs={epochs}", "--set", "ranking.epochs=1"),
    )
    succeed(main, "export", work / "run", "--out", work / "export", "--version", 1)
    with LocalServer(work / "export") as server:
        assert_checked(work / "export", server)
        run = load_run(work / "run")
        users = run.dataset.users.user_id[:20].tolist()
        with Client(server.address, timeout_seconds=60) as client:
            got = client.recommend(users, k=10)
        want = run.recommender().recommend(users, k=10)
        small_world.assert_same(got, want)
    return json.loads((work / "run/metrics.json").read_text())["valid"]


@pytest.mark.slow
def test_birds(shared, tmp_path, monkeypatch):
    folder = shared / "data/birds"
    if not folder.is_dir() or not (shared / "weights/text/minilm-l6-fp16").is_dir():
        pytest.skip("needs data/birds and weights/text/minilm-l6-fp16 in shared/")
    succeed(
        prepare.main,
        *("media-folder", "--out", tmp_path / "data", "--media-root", folder),
        *("--items", folder / "items.csv", "--interactions", folder / "interactions.csv.gz"),
    )
    metrics = chain(tmp_path, monkeypatch, example="birds", epochs=2)
    assert metrics["retrieval"]["recall@10"] > 0.9 * metrics["popularity"]["recall@10"]


@pytest.mark.slow
def test_tiktok(shared, tmp_path, monkeypatch):
    folder = shared / "data/tiktok"
    if not folder.is_dir():
        pytest.skip("needs data/tiktok in shared/")
    succeed(
        prepare.main,
        *("features", "--out", tmp_path / "data"),
        *("--train", folder / "train.npz", "--valid", folder / "val.npz"),
        *("--vector", f"image={folder / 'image_feat.npy'}"),
        *("--vector", f"audio={folder / 'audio_feat.npy'}"),
    )
    metrics = chain(tmp_path, monkeypatch, example="tiktok", epochs=2)
    assert metrics["retrieval"]["recall@20"] > 0.9 * metrics["popularity"]["recall@20"]
