"""How fast is the evaluation over the full catalog? Writes a JSON file.

    python -m benchmarks.bench_evaluate --out benchmarks/results/evaluate.json

Ours is `rank_items` and `retrieval_metrics`, as `evaluate` calls them: all items and users through
the towers, scores, train items left out, the first k in an order that ties cannot change, five
metrics at each cut-off. It is measured on users without train interactions, of whom nothing is
left out, and on as many users with `NUM_TRAIN` each. The others are handed the finished vectors of
the former and leave nothing out:

- `tfrs.metrics.FactorizedTopK` as in TFRS' tutorial on retrieval: candidates in a
  `tf.data.Dataset` in batches of 128, users in batches of 4096, its default cut-offs. It compares
  ids here, as its comparison of scores misses hits to rounding (the result says how many);
- the same with candidates in batches of 8192, and with the layer `BruteForce` in their place;
- NumPy: a product of matrices and `argpartition` in blocks of users, and hits counted. It does
  less: no order within the first k, ties fall as they like, nothing is masked.

TFRS is measured on two batches of users, against ours on the same users; NumPy on all. All must
count the same hits, NumPy at the last cut-off and the others at each, or this ends with an error.
They take turns, `ROUNDS` times; ratios are those of medians, of seconds on the clock and of
seconds of all processors. About 4 minutes on two cores.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from benchmarks.facts import facts
from mmrec_tf.evaluation.metrics import retrieval_metrics
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import write_json
from mmrec_tf.schema import Schema

KS = (1, 5, 10, 50, 100)
NUM_TRAIN = 20
BATCH, BLOCK = 4096, 1024
ROUNDS = 3
SEED = 0
SETTINGS = {
    "modalities": [],
    "user.id_embedding": True,
    "user.history": "mean",
    "user.history_length": NUM_TRAIN,
}
Hits = tuple[int, ...]


def write_dataset(folder: pathlib.Path, num_users: int, num_items: int) -> mm.Dataset:
    """Users without train interactions, then as many with some; each has one item in test."""
    rng = np.random.default_rng(SEED)
    with DatasetWriter(folder) as writer:
        for item in range(num_items):
            writer.write_item(f"i{item}")
        for user in range(2 * num_users):
            writer.write_user(f"u{user}")
        for user in range(num_users, 2 * num_users):
            items = rng.choice(num_items, NUM_TRAIN, replace=False).tolist()
            writer.write_interactions("train", user, item=items, timestamp=list(range(NUM_TRAIN)))
        for user, item in enumerate(rng.integers(0, num_items, 2 * num_users).tolist()):
            writer.write_interactions("test", user, item=[item], timestamp=[NUM_TRAIN])
        schema = Schema(num_users=2 * num_users, num_items=num_items)
        writer.finish(schema, source={"name": "random"}, split_rule="given")
    return mm.open_dataset(folder)


def build_model(dataset: mm.Dataset, dim: int) -> mm.RetrievalModel:
    """A model that finds some users' test items: each user's row is that item's, and noise."""
    tf.keras.utils.set_random_seed(SEED)
    model = mm.RetrievalModel(
        mm.Config().override({**SETTINGS, "dim": dim}), dataset, cache=None, initialize=False
    )
    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(dataset.schema.num_items, dim)).astype(np.float32)
    noise = rng.normal(size=(dataset.schema.num_users, dim)).astype(np.float32)
    model.item_tower.id_embedding.table.assign(rows)
    test = dataset.interactions("test")
    model.user_tower.id_embedding.table.assign(0.35 * rows[test.item] + noise)
    return model


def ours(model: mm.RetrievalModel, dataset: mm.Dataset, users: np.ndarray) -> Hits:
    """Users with a hit at each cut-off."""
    top = model.rank_items(dataset, users, k=KS[-1])
    item = dataset.interactions("test").item[users]
    metrics = retrieval_metrics(top, (np.arange(len(users) + 1), item), ks=KS)
    return tuple(int(metrics[f"hit_rate@{k}"].sum()) for k in KS)


def vectors_of(
    model: mm.RetrievalModel, dataset: mm.Dataset, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What ours multiplies for users without a history, <float32>[user or item, dim + 1]."""
    output = model.embed_catalog()
    items = model.catalog_candidates(output.embedding)
    history = tf.zeros([len(users), NUM_TRAIN, model.config.dim])
    known = tf.zeros([len(users), NUM_TRAIN], tf.bool)
    user = model.embed_users(tf.constant(users, tf.int32), history, known)
    return model.queries(user).numpy(), items.numpy()


def in_numpy(queries: np.ndarray, items: np.ndarray, wanted: np.ndarray) -> int:
    """Users with a hit at the last cut-off."""
    hits, k = 0, KS[-1]
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ items.T
        top = np.argpartition(scores, -k, axis=1)[:, -k:]
        hits += int((top == wanted[start : start + BLOCK, None]).any(axis=1).sum())
    return hits


def factorized(
    candidates, queries: np.ndarray, items: np.ndarray, wanted: np.ndarray, *, by_id: bool = True
) -> Callable[[], Hits]:
    """The metric of TFRS in a compiled function, as Keras' `evaluate` would call it."""
    metric = tfrs.metrics.FactorizedTopK(candidates, ks=KS)
    # Tensors beforehand: copying them is not what is measured.
    batches = [
        (tf.constant(queries[at]), tf.constant(items[wanted[at]]), tf.constant(wanted[at]))
        for at in (slice(start, start + BATCH) for start in range(0, len(queries), BATCH))
    ]

    @tf.function(reduce_retracing=True)
    def step(user, true, number):
        metric.update_state(user, true, true_candidate_ids=number if by_id else None)

    def hits() -> Hits:
        metric.reset_states()
        for batch in batches:
            step(*batch)
        return tuple(round(float(value) * len(queries)) for value in metric.result())

    step.get_concrete_function(*batches[0])  # Tracing is not measured either.
    return hits


def candidate_batches(items: np.ndarray, batch: int, *, by_id: bool = True) -> tf.data.Dataset:
    """Vectors of items, numbered or not, kept in memory."""
    vectors = tf.data.Dataset.from_tensor_slices(items)
    if by_id:
        numbers = tf.data.Dataset.range(len(items), output_type=tf.int32)
        vectors = tf.data.Dataset.zip((numbers, vectors))
    return vectors.batch(batch).cache()


def compare(acts: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each answers, and how long each takes, also against the first; they take turns."""
    answers: dict[str, Any] = {}
    clocks = {"seconds": time.perf_counter, "processor_seconds": time.process_time}
    times: dict[str, Any] = {clock: {name: [] for name in acts} for clock in clocks}
    for _ in range(ROUNDS):
        for name, act in acts.items():
            start = {clock: now() for clock, now in clocks.items()}
            answers[name] = act()
            for clock, now in clocks.items():
                times[clock][name].append(round(now() - start[clock], 3))
    first = next(iter(acts))
    for clock in clocks:
        medians = {name: statistics.median(values) for name, values in times[clock].items()}
        times[f"{clock}_over_{first}"] = {
            name: round(median / medians[first], 2) for name, median in medians.items()
        }
    return answers, times


def require_same(one: Any, other: Any, name: str) -> None:
    """Ends the benchmark where two count different hits."""
    if one != other:
        raise SystemExit(f"{name}: wanted the hits of ours, {one}; got {other}.")


def measure(num_users: int, num_items: int, dim: int, folder: pathlib.Path) -> dict[str, Any]:
    """All figures."""
    dataset = write_dataset(folder / "dataset", num_users, num_items)
    model = build_model(dataset, dim)
    users = np.arange(num_users)
    some = users[: 2 * BATCH]
    queries, items = vectors_of(model, dataset, users)
    wanted = dataset.interactions("test").item.astype(np.int32)
    ours(model, dataset, some)  # Compiles what there is to compile, and warms the memory up.

    first = queries[: len(some)], items, wanted[: len(some)]
    brute = tfrs.layers.factorized_top_k.BruteForce(k=KS[-1])
    brute.index(items, np.arange(num_items, dtype=np.int32))
    hits, times = compare(
        {
            "ours": lambda: ours(model, dataset, some),
            "tutorial": factorized(candidate_batches(items, 128), *first),
            "large_batches": factorized(candidate_batches(items, 8192), *first),
            "brute_force": factorized(brute, *first),
        }
    )
    for name in hits:
        require_same(hits["ours"], hits[name], name)
    # As the tutorial has it, to say what the comparison of scores costs in hits.
    plain = factorized(candidate_batches(items, 128, by_id=False), *first, by_id=False)()
    tfrs_part = {
        "users": len(some),
        "hits": dict(zip(KS, hits["ours"], strict=True)),
        "hits_that_comparing_scores_finds": dict(zip(KS, plain, strict=True)),
        **times,
    }
    hits, times = compare(
        {
            "ours": lambda: ours(model, dataset, users),
            "ours_with_train_items_left_out": lambda: ours(model, dataset, users + num_users),
            "numpy": lambda: in_numpy(queries, items, wanted[:num_users]),
        }
    )
    require_same(hits["ours"][-1], hits["numpy"], "numpy")
    return {
        "seed": SEED,
        "users": num_users,
        "items": num_items,
        "dim": dim,
        "cut_offs": KS,
        "tfrs": tfrs_part,
        "numpy": {
            "users": num_users,
            "hits": dict(zip(KS, hits["ours"], strict=True)),
            **times,
        },
    }


def main() -> None:
    """Measures all and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--out", required=True, metavar="FILE")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            **facts(
                "how fast is the evaluation over the full catalog?",
                command="python -m benchmarks.bench_evaluate --out FILE",
            ),
            **measure(parsed.users, parsed.items, parsed.dim, pathlib.Path(folder)),
        }
    path = pathlib.Path(parsed.out)
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
