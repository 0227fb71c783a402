"""What does each stage of a recommendation cost? Writes a JSON file.

    python -m benchmarks.bench_recommend --out benchmarks/results/recommend.json

Milliseconds a user, in one process and one graph a stage, for batches of 1 and 64 users and for 100
and 1,000 candidates (N):

- `retrieve`: histories read, the user tower, the dot product with every item, what was met left
  out, the first N;
- `rank`: the ranking model's scores of N candidates (the default config's: DCN-v2);
- `diversify`: the k of them that are shown, by maximal marginal relevance;
- `recommend`: all of it, ids to ids, with probabilities and reasons, as it is exported;
- `bare`: a product of matrices and `top_k` of N on finished queries, which is what a vector index
  alone would do.

Stages take turns, `ROUNDS` times, and the median of a stage's rounds is told. The models are
untrained: that changes no cost. About 3 minutes on two cores.

    python -m benchmarks.bench_recommend --head --out benchmarks/results/recommend_head.json

What the head of items against items adds: `recommend` for one user with a head of random neighbors
and without, in turn, in the order that alternates, as it is exported for so many items (an index
that looks at every item), with the default ranking and without; the median of `CALLS` calls each.

    python -m benchmarks.bench_recommend --run RUN --out FILE

What one answer of the command costs: CPU-seconds of `mmrec-tf recommend` and `similar` on a run,
beside those of a process that only imports TensorFlow, in turn.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf

from benchmarks.facts import facts
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import write_json
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_similarity import Neighbors
from mmrec_tf.schema import FeatureSpec, ModalitySpec, Schema

K = 10
BATCHES, CANDIDATES = (1, 64), (100, 1000)
NUM_USERS, NUM_TRAIN = 2048, 20
ROUNDS, SECONDS = 5, 0.4
SETTINGS = {"user.history_length": NUM_TRAIN, "recommender.diversity": 0.3}
CALLS, WARM_UP = 300, 5
SEED = 0


def write_dataset(folder: pathlib.Path, num_items: int) -> mm.Dataset:
    """Items with a ready-made vector and a category, users with a history."""
    rng = np.random.default_rng(SEED)
    with DatasetWriter(folder) as writer:
        for item in range(num_items):
            vector = rng.normal(size=64).astype(np.float32)
            content, features = {"vector": vector}, {"genre": [2 + item % 10]}
            writer.write_item(f"i{item}", content=content, features=features)
        for user in range(NUM_USERS):
            writer.write_user(f"u{user}")
        for user in range(NUM_USERS):
            items = rng.choice(num_items, NUM_TRAIN, replace=False).tolist()
            writer.write_interactions("train", user, item=items, timestamp=list(range(NUM_TRAIN)))
        genre = FeatureSpec("categorical", vocabulary=tuple(f"g{n}" for n in range(10)))
        schema = Schema(
            num_users=NUM_USERS,
            num_items=num_items,
            modalities={"vector": ModalitySpec("vector", dim=64)},
            item_features={"genre": genre},
        )
        writer.finish(schema, source={"name": "random"}, split_rule="given")
    return mm.open_dataset(folder)


def build(
    dataset: mm.Dataset, num_candidates: int, *, head: bool = False, ranks: bool = True
) -> mm.Recommender:
    """An untrained recommender of the default config, on request with a head of items against
    items, whose neighbors are random ones, or without ranking."""
    settings: dict = {**SETTINGS, "ranking.num_candidates": num_candidates}
    if head:
        # In neighborhoods, as the model would refuse to fit so many items against each other.
        settings |= {"item_head.kind": "ease", "item_head.neighborhood": 100}
    tf.keras.utils.set_random_seed(SEED)
    retrieval = mm.RetrievalModel(
        mm.Config().override(settings), dataset, cache=None, initialize=False
    )
    if head:
        rng, num_items = np.random.default_rng(SEED), dataset.schema.num_items
        shape = (num_items, min(retrieval.config.item_head.num_neighbors, num_items - 1))
        neighbors = Neighbors(
            rng.integers(num_items, size=shape, dtype=np.int32),
            rng.random(shape, dtype=np.float32),
        )
        retrieval.set_item_head(ItemHead.of(retrieval.config, num_items, neighbors), None)
    if not ranks:
        return mm.Recommender(retrieval, None, dataset)
    ranking = mm.RankingModel(retrieval.config, dataset, retrieval=retrieval, initialize=False)
    return mm.Recommender(retrieval, ranking, dataset)


def stages(recommender: mm.Recommender, num: int, batch: int) -> dict[str, Callable]:
    """Each stage as a graph over inputs that are ready."""
    users = tf.constant([f"u{n}" for n in range(batch)])
    lists = [tf.fill([batch, 0], "")] * 4
    times = tf.zeros([batch], tf.int64)
    available = tf.convert_to_tensor(recommender.available)[None, :]

    @tf.function
    def retrieve(user_id, history):
        user = recommender.retriever.user_table.lookup(user_id)
        read, gap, met = recommender.read_history(user, history)
        request = recommender.request(user, read, gap, times)
        queries = tf.pad(request.queries, [[0, 0], [0, 1]])
        found = recommender.index.search(queries, num, exclude=met, allowed=available)
        return request, *found

    @tf.function
    def rank(request, item, score):
        return recommender.rank(request, tf.zeros([batch], tf.bool), item, score)

    @tf.function
    def diversify(candidates):
        return recommender.order(candidates, K)

    @tf.function
    def bare(queries):
        scores = tf.matmul(queries, recommender.index.vectors, transpose_b=True)
        return tf.math.top_k(scores, num)

    request, score, item = retrieve(users, lists[0])
    ranked = rank(request, item, score)
    queries = tf.pad(request.queries, [[0, 0], [0, 1]])
    whole = tf.function(lambda *inputs: recommender.recommend_ids(*inputs, k=K))
    return {
        "retrieve": lambda: retrieve(users, lists[0]),
        "rank": lambda: rank(request, item, score),
        "diversify": lambda: diversify(ranked),
        "recommend": lambda: whole(users, *lists, times, tf.fill([batch], ""), lists[0]),
        "bare": lambda: bare(queries),
    }


def seconds_of(call: Callable) -> float:
    """The mean of as many calls as fit into `SECONDS`."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        # Waits for the result.
        for part in tf.nest.flatten(call()):
            if part is not None:
                part.numpy()
        count += 1
    return passed / count


def measure(num_items: int) -> dict:
    """All figures."""
    result: dict = {
        **facts(
            "what does each stage of a recommendation cost?",
            command="python -m benchmarks.bench_recommend --out FILE",
        ),
        "items": num_items,
        "k": K,
        "settings": SETTINGS,
        "milliseconds_a_user": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(pathlib.Path(folder) / "dataset", num_items)
        for num in CANDIDATES:
            recommender = build(dataset, num)
            for batch in BATCHES:
                calls = stages(recommender, num, batch)
                for call in calls.values():
                    call()
                rounds = [{n: seconds_of(call) for n, call in calls.items()} for _ in range(ROUNDS)]
                figures = {
                    name: 1000 * statistics.median(r[name] for r in rounds) / batch
                    for name in calls
                }
                result["milliseconds_a_user"].append(
                    {
                        "batch": batch,
                        "candidates": num,
                        **{name: round(value, 4) for name, value in figures.items()},
                        "recommend_to_bare": round(
                            statistics.median(r["recommend"] / r["bare"] for r in rounds), 2
                        ),
                    }
                )
                print(result["milliseconds_a_user"][-1], flush=True)
    return result


def measure_head(num_items: int) -> dict:
    """What one answer costs with a head of items against items, and without."""
    result: dict = {
        **facts(
            "what does the head of items against items add to a recommendation?",
            command="python -m benchmarks.bench_recommend --head --out FILE",
        ),
        "items": num_items,
        "k": K,
        "settings": SETTINGS,
        "calls": CALLS,
        "milliseconds": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(pathlib.Path(folder) / "dataset", num_items)
        for label, ranks in {"retrieval": False, "retrieval and ranking": True}.items():
            calls = {
                name: ask_one(build(dataset, CANDIDATES[0], head=head, ranks=ranks))
                for name, head in {"without": False, "with_head": True}.items()
            }
            spent: dict[str, list[float]] = {name: [] for name in calls}
            for number in range(-WARM_UP, CALLS):
                for name in sorted(calls, reverse=bool(number % 2)):
                    start = time.perf_counter()
                    calls[name](number)
                    if number >= 0:
                        spent[name].append(1000 * (time.perf_counter() - start))
            p50 = {name: statistics.median(each) for name, each in spent.items()}
            result["milliseconds"][label] = {
                **{f"{name}_p50": round(value, 4) for name, value in p50.items()},
                **{
                    f"{name}_p95": round(float(np.quantile(each, 0.95)), 4)
                    for name, each in spent.items()
                },
                "ratio_of_p50": round(p50["with_head"] / p50["without"], 3),
            }
            print(label, result["milliseconds"][label], flush=True)
    return result


def ask_one(recommender: mm.Recommender) -> Callable[[int], None]:
    """Recommends to one user after another, by one graph."""
    graph = tf.function(lambda *inputs: recommender.recommend_ids(*inputs, k=K))
    lists = [tf.fill([1, 0], "")] * 4
    more = (tf.zeros([1], tf.int64), tf.fill([1], ""), lists[0])

    def ask(number: int) -> None:
        user = tf.constant([f"u{number % NUM_USERS}"])
        graph(user, *lists, *more)["item_id"].numpy()

    return ask


def cpu_seconds(command: list[str]) -> float:
    """What a process takes of all cores, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_command(run: str) -> dict:
    """What the first answers on a run cost."""
    dataset = mm.load_run(run).dataset
    ask = ["-m", "mmrec_tf"]
    user, item = dataset.users.user_id[0], dataset.catalog.item_id[0]
    commands = {
        "import": ["-c", "import tensorflow"],
        "recommend": [*ask, "recommend", run, "--user", str(user)],
        "similar": [*ask, "similar", run, "--item", str(item)],
    }
    rounds = [{n: cpu_seconds(c) for n, c in commands.items()} for _ in range(ROUNDS)]
    return {
        **facts(
            "what does one answer of the command cost?",
            command="python -m benchmarks.bench_recommend --run RUN --out FILE",
        ),
        "items": dataset.schema.num_items,
        "cpu_seconds": {
            name: round(statistics.median(r[name] for r in rounds), 2) for name in commands
        },
        "to_import": {
            name: round(statistics.median(r[name] / r["import"] for r in rounds), 2)
            for name in ("recommend", "similar")
        },
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--run", help="a finished run whose commands are measured instead")
    parser.add_argument(
        "--head", action="store_true", help="what the head of items against items adds"
    )
    parsed = parser.parse_args()
    if parsed.run and parsed.head:
        parser.error("--head: wanted alone; got --run beside it")
    if parsed.run:
        found = measure_command(parsed.run)
    else:
        found = (measure_head if parsed.head else measure)(parsed.items)
    write_json(pathlib.Path(parsed.out), found)


if __name__ == "__main__":
    main()
