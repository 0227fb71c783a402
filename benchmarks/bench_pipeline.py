"""Do batches come as fast as training takes them, and what is the cache worth? Writes a JSON file.

    python -m benchmarks.bench_pipeline --dataset DATASET --out benchmarks/results/pipeline.json
    python -m benchmarks.bench_pipeline --out benchmarks/results/pipeline_order.json

Batches: how many a second `Dataset.batches("train")` makes on its own, against how many steps a
second Keras' `fit` takes on one batch that is there already; both in turn, `ROUNDS` times, and the
ratio is that of the medians.

Cache: examples a second of a whole epoch of `fit` on the vectors that frozen encoders left in the
cache, against steps that decode and encode the raw media of their distinct items with the same
encoders before they train on them. The latter are measured on `--steps` batches of the same
epoch, not on all of it, and nothing is extrapolated: rates are compared. How many distinct items a
batch holds is in the result; the more there are in the catalog, the more the cache is worth.

Order, which is all that is measured without a dataset: examples a second of two million made-up
interactions in batches of 8,192, by ids alone (a history of one item) and with histories of 50;
beside it the same from `tf.data`'s own shuffle and batch, which handle examples one at a time, and
how long each took to the first batch. About 3 minutes.

Tables: steps a second on one batch, vectors in memory against vectors in mapped files.

Without `--config` the encoders are a ResNet50 that sees 224 x 224 pixels, a BERT of MiniLM's size
that reads 128 tokens, and the sound network, all with random weights, which take as long as
trained ones. About 10 minutes on two cores.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf

from benchmarks.facts import facts
from mmrec_tf.dataset.batches import _surround, build_batches
from mmrec_tf.dataset.histories import Histories
from mmrec_tf.encoders.cache import encode, forward
from mmrec_tf.records import Interactions
from mmrec_tf.records.files import write_json
from mmrec_tf.retrieval.content_encoders import make_encoders
from mmrec_tf.retrieval.memory_estimate import estimate
from mmrec_tf.training.optimizer import build_optimizer

ROUNDS = 5
WINDOW_SECONDS = 5.0
ORDER = {"users": 50_000, "items": 100_000, "interactions": 2_000_000, "batch_size": 8192}
RANDOM = {
    "text": {
        "weights": "random",
        "max_tokens": 128,
        "hidden_size": 384,
        "num_layers": 6,
        "num_heads": 12,
    },
    "image": {"architecture": "ResNet50", "weights": "random"},
    "audio": {"trainable_layers": 0},
}


def batches_per_second(batches: tf.data.Dataset) -> float:
    """Takes batches, epoch after epoch, until the window is over."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < WINDOW_SECONDS:
        count += sum(1 for _ in batches)
    return count / (time.perf_counter() - start)


def steps_per_second(model: tf.keras.Model, batch: dict[str, tf.Tensor]) -> float:
    """Trains on one and the same batch, until the window is over."""
    steps = 20
    again = tf.data.Dataset.from_tensors(batch).repeat(steps)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < WINDOW_SECONDS:
        model.fit(again, verbose=0)
        count += steps
    return count / (time.perf_counter() - start)


def measure_batches(model: mm.RetrievalModel, dataset: mm.Dataset) -> dict[str, Any]:
    """Batches a second made, and batches a second wanted."""
    training, user = model.config.training, model.config.user
    batches = dataset.batches("train", training.batch_size, user=user, shuffle=True)
    (batch,) = batches.take(1)
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(5), verbose=0)
    made, wanted = [], []
    for _ in range(ROUNDS):
        made.append(batches_per_second(batches))
        wanted.append(steps_per_second(model, batch))
    return {
        "rounds": ROUNDS,
        "made_per_second": [round(value, 1) for value in made],
        "wanted_per_second": [round(value, 1) for value in wanted],
        "made_over_wanted": round(statistics.median(made) / statistics.median(wanted), 2),
    }


def measure_order() -> dict[str, Any]:
    """Examples a second in batches that are gathered whole, and one example at a time."""
    rng = np.random.default_rng(0)
    size = ORDER["interactions"]
    user = np.sort(rng.integers(0, ORDER["users"], size)).astype(np.int32)
    item = rng.integers(0, ORDER["items"], size).astype(np.int32)
    one = np.ones([size], np.float32)
    time_ = np.arange(size, dtype=np.int64)
    data = Interactions(user, item, time_, one, one, np.zeros([size, 0], bool), item * 0 - 1)
    offset = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=ORDER["users"]))])
    histories = Histories(item, offset.astype(np.int64), time_)
    columns = {**data._asdict(), "time": time_, "at": time_}
    del columns["timestamp"]
    result = {}
    for name, length in (("ids", 1), ("histories_of_50", 50)):
        options = {"length": length, "context": "past"}
        around = _surround(histories, **options, among=None, seed=0)
        rows = tf.data.Dataset.from_tensor_slices(columns).shuffle(1_000_000, seed=0)
        rows = rows.batch(ORDER["batch_size"])
        number = tf.constant(0, tf.int64)
        ways = {
            "whole_batches": build_batches(
                data, histories, batch_size=ORDER["batch_size"], shuffle=True, **options
            ),
            "one_at_a_time": rows.map(
                lambda batch: around(batch, number),  # noqa: B023
                num_parallel_calls=tf.data.AUTOTUNE,
            ).prefetch(tf.data.AUTOTUNE),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        first: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, batches in ways.items():
                found = examples_per_second(batches)
                first[way].append(round(found[0], 2))
                rates[way].append(round(found[1], -3))
        medians = {way: statistics.median(values) for way, values in rates.items()}
        result[name] = {
            "examples_per_second": rates,
            "seconds_to_the_first_batch": first,
            "whole_batches_over_one_at_a_time": round(
                medians["whole_batches"] / medians["one_at_a_time"], 1
            ),
        }
    return {"world": ORDER, "rounds": ROUNDS, **result}


def examples_per_second(batches: tf.data.Dataset) -> tuple[float, float]:
    """Seconds to the first batch, and from then on examples a second, until the window is over."""
    begun = time.perf_counter()
    iterator = iter(batches)
    next(iterator)
    start, count = time.perf_counter(), 0
    for batch in iterator:
        count += len(batch["user"])
        if time.perf_counter() - start > WINDOW_SECONDS:
            break
    return start - begun, count / (time.perf_counter() - start)


def measure_tables(model: mm.RetrievalModel, dataset: mm.Dataset) -> dict[str, Any]:
    """Steps a second with the vectors in memory, and with all of them in mapped files."""
    config = model.config.override({"training.catalog_memory_mb": 0})
    mapped = mm.RetrievalModel(config, dataset, encoders=model.encoders)
    mapped.compile(optimizer=build_optimizer(config.training))
    (batch,) = dataset.batches("train", config.training.batch_size, user=config.user).take(1)
    rates: dict[str, list[float]] = {"in_memory": [], "mapped": []}
    for part in (model, mapped):
        part.fit(tf.data.Dataset.from_tensors(batch).repeat(5), verbose=0)
    for _ in range(ROUNDS):
        rates["in_memory"].append(steps_per_second(model, batch))
        rates["mapped"].append(steps_per_second(mapped, batch))
    found = {name: [round(value, 1) for value in values] for name, values in rates.items()}
    ratio = statistics.median(rates["mapped"]) / statistics.median(rates["in_memory"])
    return {"steps_per_second": found, "mapped_over_in_memory": round(ratio, 2)}


def encode_items(model: mm.RetrievalModel, dataset: mm.Dataset, items: np.ndarray) -> None:
    """Decodes and encodes the raw media of some items, as `encode` does, into the tables."""
    for column, name in enumerate(dataset.schema.modalities):
        if name not in model.modalities:
            continue
        rows = items[dataset.catalog.present[items, column]]
        raw = dataset.catalog.content[name][rows]
        for start in range(0, len(rows), 32):
            part = raw[start : start + 32]
            vectors = forward(model.encoders[name])(
                tf.constant(part.tolist() if part.dtype == object else part)
            )
            model.tables["content"][name].scatter_nd_update(rows[start : start + 32, None], vectors)


def measure_cache(model: mm.RetrievalModel, dataset: mm.Dataset, steps: int) -> dict[str, Any]:
    """Examples a second with the cache and without it."""
    training, user = model.config.training, model.config.user
    batches = dataset.batches("train", training.batch_size, user=user, shuffle=True)
    total = len(dataset.interactions("train").user)
    model.fit(batches, verbose=0)
    epochs = [seconds(lambda: model.fit(batches, verbose=0)) for _ in range(ROUNDS)]
    # Vectors that change need a table that can.
    model.tables["content"].update(
        {name: tf.Variable(table) for name, table in model.tables["content"].items()}
    )
    step = model.make_train_function(force=True)
    distinct, spent, examples = [], 0.0, 0
    for number, batch in enumerate(batches.take(steps + 1)):
        known = tf.concat([batch["item"], tf.reshape(batch["history"], [-1])], axis=0)
        items = np.unique(known[known >= 0])

        def train(batch=batch, items=items):
            encode_items(model, dataset, items)
            step(iter(tf.data.Dataset.from_tensors(batch)))

        taken = seconds(train)
        print(f"without the cache: batch {number} of {steps}, {taken:.1f} s", flush=True)
        if number:  # The first one compiles.
            spent += taken
            examples += len(batch["item"])
            distinct.append(len(items))
    with_cache, without = total / statistics.median(epochs), examples / spent
    return {
        "with_cache": {
            "epochs": ROUNDS,
            "examples_an_epoch": total,
            "epoch_seconds": [round(value, 2) for value in epochs],
            "examples_per_second": round(with_cache, 1),
        },
        "without_cache": {
            "batches": steps,
            "examples": examples,
            "distinct_items_a_batch": round(statistics.mean(distinct), 1),
            "seconds": round(spent, 1),
            "examples_per_second": round(without, 2),
        },
        "ratio": round(with_cache / without, 1),
    }


def measure_encoding(encoders: Mapping[str, Any], dataset: mm.Dataset) -> dict[str, Any]:
    """Seconds that filling the cache takes, once, and reading it back, by modality."""
    result = {}
    with tempfile.TemporaryDirectory(dir=dataset.directory.parent) as cache:
        for column, name in enumerate(dataset.schema.modalities):
            if name not in encoders:
                continue
            encoder, values = encoders[name], dataset.catalog.content[name]
            options = {"cache": cache, "sha256": dataset.catalog.content_sha256[name]}
            first, again = (
                seconds(lambda: encode(encoder, values, name=name, **options))  # noqa: B023
                for _ in range(2)
            )
            result[name] = {
                "items": int(dataset.catalog.present[:, column].sum()),
                "seconds": round(first, 2),
                "seconds_from_the_cache": round(again, 4),
            }
    return result


def seconds(act: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def measure(dataset_path: str, config: mm.Config, steps: int) -> dict[str, Any]:
    """All figures."""
    opened = time.perf_counter()
    dataset = mm.open_dataset(dataset_path)
    opened = time.perf_counter() - opened
    tf.keras.utils.set_random_seed(config.training.seed)
    encoders = make_encoders(config, dataset)
    trained = [name for name, encoder in encoders.items() if not encoder.frozen]
    if trained:
        raise SystemExit(f"{', '.join(trained)}: wanted frozen encoders only.")
    encoding = measure_encoding(encoders, dataset)
    model = mm.RetrievalModel(config, dataset, encoders=encoders)
    model.compile(optimizer=build_optimizer(config.training))
    memory, disk = estimate(model, dataset)
    return {
        "config": config.to_json(),
        "seed": config.training.seed,
        "dataset": {
            "hash": dataset.hash,
            "source": dataset.manifest["source"]["name"],
            "counts": dataset.manifest["counts"],
            "item_bytes": dataset.item_bytes,
        },
        "random_weights": [n for n in model.modalities if not weights_of(config, model, n)],
        "open_seconds": round(opened, 2),
        "encoding": encoding,
        "estimate_bytes": {"memory": memory, "disk": disk},
        "batches": measure_batches(model, dataset),
        "tables": measure_tables(model, dataset),
        "cache": measure_cache(model, dataset, steps),
    }


def weights_of(config: mm.Config, model: mm.RetrievalModel, name: str) -> str:
    """Where an encoder's weights come from; "" for random ones."""
    kind = model.schema.modalities[name].kind
    return getattr(config, kind).weights if kind != "vector" else "the catalog"


def main() -> None:
    """Measures all and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", metavar="DIR", help="left out: the order alone")
    parser.add_argument("--config", metavar="FILE", help="JSON, with frozen encoders")
    parser.add_argument("--steps", type=int, default=3, help="batches without the cache")
    parser.add_argument("--out", required=True, metavar="FILE")
    parsed = parser.parse_args()
    config = mm.load_config(parsed.config) if parsed.config else mm.Config.from_json(RANDOM)
    place = " --dataset DATASET" if parsed.dataset else ""
    result = {
        **facts(
            "do batches come as fast as training takes them, and what is the cache worth?",
            command=f"python -m benchmarks.bench_pipeline{place} --out FILE",
        ),
        "order": measure_order(),
        **(measure(parsed.dataset, config, parsed.steps) if parsed.dataset else {}),
    }
    path = pathlib.Path(parsed.out)
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
