"""How fast is a training step, and does it stay as fast with more items? Writes a JSON file.

    python -m benchmarks.bench_train --out benchmarks/results/train.json

Tutorial: examples a second of an epoch of the two towers of TensorFlow Recommenders' tutorial
"basic_retrieval" (string lookup and embeddings of width 32, Adagrad 0.1, batches of 8,192 that are
cached), as it stands, with `FactorizedTopK` measured in every step, and without its metrics;
against an id-only model of this package of the same width, on the same interactions, in batches of
the same size. The latter takes no histories, as the tutorial knows none; its loss is once the
tutorial's, and once this package's own (corrected for sampling, without accidental hits). All in
turn, `ROUNDS` times; ratios are those of the medians. Interactions are drawn in the shape of
MovieLens 100K: so many users, movies and ratings, the popular ones more often.

Catalog: seconds a step, of an id-only model with histories and all else as the config has it by
default, for catalogs of several sizes. Interactions name the same number of items in each, spread
over the catalog, so that a batch holds as many distinct ones. Beside it the same model under Keras'
AdamW, which moves and decays all rows in every step. About 5 minutes on two cores.
"""

import argparse
import pathlib
import statistics
import time
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from benchmarks.facts import facts
from mmrec_tf.catalog import Catalog, draw_probability
from mmrec_tf.optimization import build_optimizer
from mmrec_tf.pipeline import Histories, build_batches
from mmrec_tf.records import Interactions
from mmrec_tf.records.manifest import write_json
from mmrec_tf.schema import Schema

ROUNDS = 7
STEPS = 20
NUM_USERS, NUM_ITEMS, NUM_EXAMPLES = 943, 1664, 80_000
SIZES = (10_000, 100_000, 1_000_000)
IDS = {"user.id_embedding": True, "alignment.weight": 0.0}
# What the tutorial's loss is.
PLAIN = {
    "retrieval.mask_history": False,
    "retrieval.sampling_correction": "none",
    "retrieval.remove_accidental_hits": False,
    "retrieval.popularity_bias": False,
}
TUTORIAL = {**IDS, "dim": 32, "user.history": "none", "user.history_length": 1}
TUTORIAL |= {"training.batch_size": 8192, "retrieval.mask_history": False}


def draw(num_users: int, items: np.ndarray, num_examples: int) -> Interactions:
    """Interactions by user; the k-th of `items` is named in proportion to 1 / (k + 10)."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(len(items)) + 10)
    user = np.sort(rng.integers(0, num_users, num_examples)).astype(np.int32)
    item = rng.choice(items, num_examples, p=share / share.sum()).astype(np.int32)
    ones = np.ones([num_examples], np.float32)
    return Interactions(user, item, np.zeros([num_examples], np.int64), ones, ones)


def build(
    settings: dict[str, Any], data: Interactions, *, num_users: int, num_items: int
) -> tuple[mm.RetrievalModel, tf.data.Dataset]:
    """An id-only model with its catalog, and batches of a dataset that was never written."""
    config = mm.Config().override(settings)
    tf.keras.utils.set_random_seed(config.training.seed)
    model = mm.RetrievalModel(
        config, Schema(num_users=num_users, num_items=num_items, modalities={})
    )
    count = np.bincount(data.item, minlength=num_items)
    log_count = np.log(count + 1.0)
    catalog = Catalog(
        item_id=np.array([str(i) for i in range(num_items)], object),
        content={},
        present=np.zeros([num_items, 0], bool),
        features={},
        train_count=count,
        log_frequency=(log_count - np.log(np.mean(count + 1.0))).astype(np.float32),
        probability=draw_probability(count),
        content_sha256={},
    )
    model.adapt(catalog)
    model.build_weights()
    model.compile(optimizer=build_optimizer(config.training))
    offset = np.concatenate([[0], np.cumsum(np.bincount(data.user, minlength=num_users))])
    batches = build_batches(
        data,
        Histories(data.item, offset.astype(np.int64), None),
        batch_size=config.training.batch_size,
        length=config.user.history_length,
        context="others",
        shuffle=True,
    )
    return model, batches


class Tutorial(tfrs.Model):
    """The model of the tutorial, which the class follows line by line.

    Args:
      users, movies: object[n] of str, the vocabularies.
      metrics: whether the task measures `FactorizedTopK`, as the tutorial's does.
    """

    def __init__(self, users: np.ndarray, movies: np.ndarray, *, metrics: bool):
        super().__init__()
        self.user_model, self.movie_model = (
            tf.keras.Sequential(
                [
                    tf.keras.layers.StringLookup(vocabulary=vocabulary, mask_token=None),
                    tf.keras.layers.Embedding(len(vocabulary) + 1, 32),
                ]
            )
            for vocabulary in (users, movies)
        )
        candidates = tf.data.Dataset.from_tensor_slices(movies.astype(str)).batch(128)
        self.task = tfrs.tasks.Retrieval(
            metrics=tfrs.metrics.FactorizedTopK(candidates=candidates.map(self.movie_model))
            if metrics
            else None
        )

    def compute_loss(self, features, training=False):
        """The task computes the loss, and the metrics where it has some."""
        return self.task(
            self.user_model(features["user_id"]), self.movie_model(features["movie_title"])
        )


def tutorial(data: Interactions, *, metrics: bool) -> tuple[Tutorial, tf.data.Dataset]:
    """The tutorial's model and its batches."""
    users = np.array([f"{i}" for i in range(NUM_USERS)], object)
    movies = np.array([f"Movie {i} (1997)" for i in range(NUM_ITEMS)], object)
    tf.random.set_seed(42)
    model = Tutorial(users, movies, metrics=metrics)
    model.compile(optimizer=tf.keras.optimizers.Adagrad(learning_rate=0.1))
    names = {"user_id": users[data.user].astype(str), "movie_title": movies[data.item].astype(str)}
    train = tf.data.Dataset.from_tensor_slices(names)
    return model, train.shuffle(100_000).batch(8192).cache()


def epoch_seconds(model: tf.keras.Model, batches: tf.data.Dataset) -> float:
    """How long an epoch of `fit` takes."""
    start = time.perf_counter()
    model.fit(batches, verbose=0)
    return time.perf_counter() - start


def in_turn(cases: dict[str, tuple[tf.keras.Model, tf.data.Dataset]]) -> dict[str, list[float]]:
    """Seconds of an epoch of each case, in rounds; a first epoch, which compiles, is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            taken = epoch_seconds(*case)
            if number:
                seconds[name].append(taken)
        print(f"round {number} of {ROUNDS}", flush=True)
    return seconds


def measure_tutorial() -> dict[str, Any]:
    """Examples a second of the tutorial's model and of ours."""
    data = draw(NUM_USERS, np.arange(NUM_ITEMS), NUM_EXAMPLES)
    sizes = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}
    seconds = in_turn(
        {
            "tutorial": tutorial(data, metrics=True),
            "tutorial_without_metrics": tutorial(data, metrics=False),
            "ours": build(TUTORIAL, data, **sizes),
            "ours_with_the_tutorial_loss": build({**TUTORIAL, **PLAIN}, data, **sizes),
        }
    )
    rate = {name: NUM_EXAMPLES / statistics.median(values) for name, values in seconds.items()}
    return {
        "users": NUM_USERS,
        "items": NUM_ITEMS,
        "examples_an_epoch": NUM_EXAMPLES,
        "settings": {"ours": TUTORIAL, "ours_with_the_tutorial_loss": {**TUTORIAL, **PLAIN}},
        "epoch_seconds": {n: [round(v, 3) for v in values] for n, values in seconds.items()},
        "examples_per_second": {name: round(value) for name, value in rate.items()},
        "ours_over_tutorial": round(rate["ours"] / rate["tutorial"], 2),
        "ours_over_tutorial_without_metrics": round(
            rate["ours"] / rate["tutorial_without_metrics"], 2
        ),
        "same_loss_over_tutorial_without_metrics": round(
            rate["ours_with_the_tutorial_loss"] / rate["tutorial_without_metrics"], 2
        ),
    }


def measure_catalog() -> dict[str, Any]:
    """Seconds a step by size of the catalog, and of the same model under Keras' AdamW."""
    cases = {}
    for num_items in SIZES:
        rng = np.random.default_rng(1)
        known = rng.choice(num_items, min(SIZES), replace=False)
        data = draw(20_000, known, 400_000)
        for name in ("rows", "keras"):
            model, batches = build(IDS, data, num_users=20_000, num_items=num_items)
            if name == "keras":
                training = model.config.training
                model.compile(
                    optimizer=tf.keras.optimizers.AdamW(
                        training.learning_rate, weight_decay=training.weight_decay
                    )
                )
            (batch,) = batches.take(1)
            cases[f"{name}_{num_items}"] = (
                model,
                tf.data.Dataset.from_tensors(batch).repeat(STEPS),
            )
    found = in_turn(cases)
    step = {name: statistics.median(values) / STEPS for name, values in found.items()}
    result: dict[str, Any] = {"settings": IDS, "items_named": min(SIZES), "steps_a_round": STEPS}
    for name, label in (("rows", "ours"), ("keras", "keras_adamw")):
        times = {size: step[f"{name}_{size}"] for size in SIZES}
        result[label] = {
            "step_milliseconds": {f"{s}": round(1000 * value, 2) for s, value in times.items()},
            "largest_over_smallest": round(times[max(SIZES)] / times[min(SIZES)], 2),
        }
    return result


def main() -> None:
    """Measures all and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="FILE")
    parsed = parser.parse_args()
    result = {
        **facts(
            "how fast is a training step, and does it stay as fast with more items?",
            command="python -m benchmarks.bench_train --out FILE",
        ),
        "rounds": ROUNDS,
        "tutorial": measure_tutorial(),
        "catalog": measure_catalog(),
    }
    path = pathlib.Path(parsed.out)
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
