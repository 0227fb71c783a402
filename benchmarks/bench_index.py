"""How soon, and how surely, does an index find the best items? Writes a JSON file.

    python -m benchmarks.bench_index --out benchmarks/results/index.json --run RUN

The best 100 items for 1 and for 64 queries, by TensorFlow Recommenders' `BruteForce`, by each kind
of index of this package and, where its library is installed, by ScaNN. All of them run as graphs
and take turns, `ROUNDS` times; told are the median of a method's rounds, and that of its quotients
with `BruteForce` in the same round. An inverted index reads as many lists as a recall of 0.95 takes
on half of the queries; recall is measured on the other half, by score. `excluding` is the same
search with 100 items left out for each query and 1 of 100 items withdrawn.

The sets:

- `clustered`: unit vectors of 64 numbers, Gaussians around 1,000 centers on the sphere, their noise
  0.7 times as long as a center; a bias and a column that no query reads follow. Queries are drawn
  likewise, 10 long.
- `trained`: what a two-tower model of the default config makes of a made-up world of 200,000 items
  with ready-made vectors (400 topics, as far apart as the items of one) and 100,000 users with 20
  interactions each, of 3 topics, after two epochs; queries are those of its users.
- `grown`: the vectors of `trained` five times over, each with Gaussian noise as long as the median
  distance to the nearest neighbor, and back to unit length.
- `grown from RUN`: likewise, as many times as it takes, those of a run that `--run` names.

About 20 minutes on two cores; the vectors of `trained` are kept in `--work`.
"""

import argparse
import importlib.metadata
import importlib.util
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from benchmarks.facts import facts
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import write_json
from mmrec_tf.retrieval.index import ExactIndex, ScannIndex, build_index, recall
from mmrec_tf.schema import ModalitySpec, Schema
from mmrec_tf.training.fit import train

K = 100
BATCHES = (1, 64)
SIZES = (10_000, 100_000, 200_000, 1_000_000)
DIM, CENTERS, NOISE, LENGTH = 64, 1000, 0.7, 10.0
NUM_ITEMS, NUM_TOPICS, NUM_USERS, NUM_TRAIN = 200_000, 400, 100_000, 20
NUM_QUERIES, NUM_EXCLUDED = 1024, 100
MIN_RECALL = 0.95
ROUNDS, SECONDS = 7, 0.3
SEED = 0

Set = tuple[str, np.ndarray, np.ndarray]


def unit(values: np.ndarray) -> np.ndarray:
    """<float>[n, dim] -> <float32>[n, dim] of length 1."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def clustered(num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors <float32>[item, dim + 2] and queries <float32>[query, dim + 2]."""
    rng = np.random.default_rng(SEED)
    center = unit(rng.normal(size=(CENTERS, DIM)))

    def draw(count: int) -> np.ndarray:
        noise = rng.normal(size=(count, DIM), scale=NOISE / DIM**0.5)
        return unit(center[rng.integers(CENTERS, size=count)] + noise)

    bias = rng.normal(size=(num_items, 1)).astype(np.float32)
    vectors = np.concatenate([draw(num_items), 0.3 * bias, bias], axis=1)
    queries = np.pad(LENGTH * draw(NUM_QUERIES), [[0, 0], [0, 2]])
    queries[:, DIM] = 1
    return vectors, queries


def write_world(folder: pathlib.Path) -> mm.Dataset:
    """The made-up world of `trained`."""
    rng = np.random.default_rng(SEED)
    topic = rng.integers(NUM_TOPICS, size=NUM_ITEMS)
    hidden = rng.normal(size=(NUM_TOPICS, 32))[topic] + rng.normal(size=(NUM_ITEMS, 32))
    content = (hidden @ rng.normal(size=(32, DIM)) / 32**0.5).astype(np.float32)
    order = np.argsort(topic, kind="stable")
    start = np.searchsorted(topic[order], np.arange(NUM_TOPICS + 1))
    with DatasetWriter(folder) as writer:
        for item in range(NUM_ITEMS):
            writer.write_item(f"i{item}", content={"vector": content[item]})
        for user in range(NUM_USERS):
            writer.write_user(f"u{user}")
        for user in range(NUM_USERS):
            liked = rng.integers(NUM_TOPICS, size=3)[rng.integers(3, size=NUM_TRAIN)]
            # The first items of a topic are met more often.
            place = rng.random(NUM_TRAIN) ** 2 * (start[liked + 1] - start[liked])
            items = order[start[liked] + place.astype(int)].tolist()
            times = list(range(NUM_TRAIN))
            writer.write_interactions("train", user, item=items[:-1], timestamp=times[:-1])
            if user < 500:
                writer.write_interactions("valid", user, item=items[-1:], timestamp=times[-1:])
        modalities = {"vector": ModalitySpec("vector", dim=DIM)}
        schema = Schema(num_users=NUM_USERS, num_items=NUM_ITEMS, modalities=modalities)
        writer.finish(schema, source={"name": "drawn"}, split_rule="given")
    return mm.open_dataset(folder)


def asked(recommender: mm.Recommender) -> tuple[np.ndarray, np.ndarray]:
    """What a recommender's index holds, and what some of its users ask it."""
    met = np.flatnonzero(np.diff(recommender.retriever.seen_items.offset.numpy()[:-1]) > 0)
    user = np.random.default_rng(SEED).permutation(met)[:NUM_QUERIES]
    user = tf.constant(user, tf.int32)
    read, gap, _ = recommender.read_history(user)
    request = recommender.request(user, read, gap, tf.zeros_like(user, tf.int64))
    queries = np.pad(request.queries.numpy(), [[0, 0], [0, 1]])
    return recommender.index.vectors.numpy(), queries


def trained(work: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and queries of a model that is trained here, or was."""
    path = work / "trained.npz"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            dataset = write_world(pathlib.Path(folder) / "dataset")
            model = mm.RetrievalModel(mm.Config().override({"training.epochs": 2}), dataset)
            train(model, dataset)
            vectors, queries = asked(mm.Recommender(model, None, dataset))
        work.mkdir(parents=True, exist_ok=True)
        np.savez(work / "aside.npz", vectors=vectors, queries=queries)
        (work / "aside.npz").rename(path)
    with np.load(path) as held:
        return held["vectors"], held["queries"]


def grow(vectors: np.ndarray, num_items: int) -> np.ndarray:
    """Copies of vectors with noise as long as the median distance to the nearest neighbor."""
    rng = np.random.default_rng(SEED)
    embedding = vectors[:, :-2]
    some = rng.permutation(len(embedding))[:1024]
    product = embedding[some] @ embedding.T
    product[np.arange(len(some)), some] = -1
    apart = np.median(np.sqrt(np.maximum(2 - 2 * product.max(axis=1), 0)))
    item = rng.permutation(np.arange(num_items) % len(vectors))
    noise = rng.normal(
        size=(num_items, embedding.shape[1]), scale=apart / embedding.shape[1] ** 0.5
    )
    return np.concatenate([unit(embedding[item] + noise), vectors[item, -2:]], axis=1)


def sets(work: pathlib.Path, run: str | None, most: int) -> Iterator[Set]:
    """The sets of vectors, small ones first, none of more than `most` items."""
    for size in SIZES:
        if size <= most:
            yield "clustered", *clustered(size)
    if most >= NUM_ITEMS:
        vectors, queries = trained(work)
        yield "trained", vectors, queries
        if most >= SIZES[-1]:
            yield "grown", grow(vectors, SIZES[-1]), queries
    if run is not None and most >= SIZES[-1]:
        vectors, queries = asked(mm.load_run(run).recommender())
        yield f"grown from {run}", grow(vectors, SIZES[-1]), queries


def brute_force(vectors: np.ndarray) -> tf.Module:
    """TensorFlow Recommenders' layer, with `search` of its own."""
    module = tf.Module()
    module.layer = tfrs.layers.factorized_top_k.BruteForce(k=K).index(tf.constant(vectors))
    module.search = lambda queries, k: module.layer(queries, k=k)
    return module


def scann(vectors: np.ndarray, queries: np.ndarray, num_probes: int) -> tuple[ScannIndex, dict]:
    """ScaNN, reading as many lists as the recall takes, by powers of 4 times the first number."""
    best = answers(graph(ExactIndex(vectors)), queries[::2])
    while True:
        index = ScannIndex(vectors, queries, num_probes=num_probes)
        reached = recall(answers(graph(index), queries[::2]), best).mean()
        if reached >= MIN_RECALL or index.num_probes == index.num_lists:
            return index, {"lists": index.num_lists, "probes": index.num_probes}
        num_probes *= 4


def graph(index: tf.Module, *, excluding: bool = False) -> Callable:
    """Queries to scores and items, as a graph for any batch."""
    inputs = {}
    if excluding:
        rng, num_items = np.random.default_rng(SEED), index.vectors.shape[0]
        excluded = tf.constant(rng.integers(num_items, size=NUM_EXCLUDED), tf.int32)[None, :]
        inputs["allowed"] = tf.constant(rng.random(size=(1, num_items)) < 0.99)

    def search(queries):
        if excluding:
            inputs["exclude"] = tf.repeat(excluded, tf.shape(queries)[0], axis=0)
        return index.search(queries, K, **inputs)

    return tf.function(search, reduce_retracing=True)


def answers(search: Callable, queries: np.ndarray) -> np.ndarray:
    """Scores, <float32>[query, k]."""
    return np.concatenate(
        [search(tf.constant(queries[n : n + 64]))[0].numpy() for n in range(0, len(queries), 64)]
    )


def contestants(vectors: np.ndarray, queries: np.ndarray) -> Iterator[tuple[str, tf.Module, dict]]:
    """The indexes by name, and what is known of each."""
    start = 1
    yield "tfrs BruteForce", brute_force(vectors), {}
    for kind in ("exact", "ivf", "ivf_int8", "ivf_pq"):
        try:
            index, about = build_index(vectors, queries, kind=kind, k=K, min_recall=MIN_RECALL)
        except mm.ExportError as error:
            print(f"{kind}: {error}", flush=True)
            continue
        names = ("lists", "probes", "widest_list", "bytes_an_item")
        yield kind, index, {name: about[name] for name in names if name in about}
        if kind == "ivf":
            start = -(-about["probes"] // 2)
    if importlib.util.find_spec("scann"):
        index, about = scann(vectors, queries, start)
        held = sum(v.dtype.size * v.shape.num_elements() for v in index.layer.variables)
        size = {"vectors": 4.0 * vectors.shape[1], "lists": round(held / len(vectors), 1)}
        yield "scann", index, {**about, "bytes_an_item": size}


def seconds_of(call: Callable) -> float:
    """The mean of as many calls as fit into `SECONDS`, after one that warms the caches."""
    call()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        call()
        count += 1
    return passed / count


def compare(name: str, vectors: np.ndarray, queries: np.ndarray) -> dict:
    """All figures of one set."""
    made, methods = {}, {}
    begun = time.perf_counter()
    for method, index, about in contestants(vectors, queries):
        about = {"build_seconds": round(time.perf_counter() - begun, 1), **about}
        made[method, "plain"] = graph(index)
        if isinstance(index, ExactIndex):
            made[method, "excluding"] = graph(index, excluding=True)
        methods[method] = about
        begun = time.perf_counter()
    held = queries[1::2]
    best = answers(made["exact", "plain"], held)
    for method, about in methods.items():
        about["recall"] = round(float(recall(answers(made[method, "plain"], held), best).mean()), 4)
    for batch in BATCHES:
        asking = tf.constant(queries[:batch])

        def call(search: Callable, asking=asking) -> Callable:
            return lambda: [part.numpy() for part in search(asking)]

        calls = {key: call(search) for key, search in made.items()}
        rounds = [{key: seconds_of(c) for key, c in calls.items()} for _ in range(ROUNDS)]
        for method, request in calls:
            seconds = [r[method, request] for r in rounds]
            brute = [r["tfrs BruteForce", "plain"] for r in rounds]
            figures = methods[method].setdefault(request, {})
            figures[f"milliseconds_of_{batch}"] = round(1000 * statistics.median(seconds), 3)
            quotients = [b / s for b, s in zip(brute, seconds, strict=True)]
            figures[f"times_brute_force_of_{batch}"] = round(statistics.median(quotients), 2)
    result = {"set": name, "items": len(vectors), "dim": vectors.shape[1], "queries": len(queries)}
    for method, about in methods.items():
        print(name, len(vectors), method, about, flush=True)
    return {**result, "methods": methods}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--work", default="work/bench_index", metavar="DIR")
    parser.add_argument("--run", metavar="RUN", help="a finished run, whose vectors are grown")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="items of the largest set")
    parsed = parser.parse_args()
    command = "python -m benchmarks.bench_index --out FILE"
    result: dict = {
        **facts(
            "how soon, and how surely, does an index find the best items?",
            command=command + (f" --run {parsed.run}" if parsed.run else ""),
        ),
        "k": K,
        "min_recall": MIN_RECALL,
    }
    installed = importlib.util.find_spec("scann") is not None
    result["versions"]["scann"] = importlib.metadata.version("scann") if installed else None
    result["sets"] = [
        compare(*some) for some in sets(pathlib.Path(parsed.work), parsed.run, parsed.most)
    ]
    write_json(pathlib.Path(parsed.out), result)


if __name__ == "__main__":
    main()
