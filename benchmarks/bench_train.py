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
import tempfile
import time
from typing import Any, NamedTuple

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from benchmarks.facts import facts
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import write_json
from mmrec_tf.schema import Schema
from mmrec_tf.training.optimizer import build_optimizer

ROUNDS = 7
STEPS = 20
NUM_USERS, NUM_ITEMS, NUM_EXAMPLES = 943, 1664, 80_000
SIZES, NUM_DRAWN_USERS = (10_000, 100_000, 1_000_000), 20_000
IDS = {"user.id_embedding": True, "alignment.contrastive_weight": 0.0}
# What the tutorial's loss is.
PLAIN = {
    "retrieval.mask_history": False,
    "retrieval.sampling_correction": "none",
    "retrieval.remove_accidental_hits": False,
    "retrieval.popularity_bias": False,
}
TUTORIAL = {**IDS, "dim": 32, "user.history": "none", "user.history_length": 1}
TUTORIAL |= {"training.batch_size": 8192, "retrieval.mask_history": False}


def draw(num_users: int, items: np.ndarray, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Users in order and their items; the k-th of `items` comes in proportion to 1 / (k + 10)."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(len(items)) + 10)
    user = np.sort(rng.integers(0, num_users, num_examples))
    return user, rng.choice(items, num_examples, p=share / share.sum())


def write(folder: str, user: np.ndarray, item: np.ndarray, *, num_users: int, num_items: int):
    """Writes interactions, all of the train split but one, as a dataset without content."""
    with DatasetWriter(folder) as writer:
        for number in range(num_items):
            writer.write_item(str(number))
        for number in range(num_users):
            writer.write_user(str(number))
            items = item[slice(*np.searchsorted(user, [number, number + 1]))].tolist()
            if items:
                writer.write_interactions("train", number, item=items, timestamp=[0] * len(items))
        writer.write_interactions("valid", 0, item=[0], timestamp=[0])
        schema = Schema(num_users=num_users, num_items=num_items, modalities={})
        writer.finish(schema, source={"name": "drawn"}, split_rule="given")
    return mm.open_dataset(folder)


def build(
    settings: dict[str, Any], dataset: mm.Dataset
) -> tuple[mm.RetrievalModel, tf.data.Dataset]:
    """An id-only model with its catalog, and its batches."""
    config = mm.Config().override(settings)
    tf.keras.utils.set_random_seed(config.training.seed)
    model = mm.RetrievalModel(config, dataset, cache=None, initialize=False)
    model.compile(optimizer=build_optimizer(config.training))
    size = config.training.batch_size
    return model, dataset.batches("train", size, user=config.user, shuffle=True)


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


def tutorial(
    user: np.ndarray, item: np.ndarray, *, metrics: bool
) -> tuple[Tutorial, tf.data.Dataset]:
    """The tutorial's model and its batches."""
    users = np.array([f"{i}" for i in range(NUM_USERS)], object)
    movies = np.array([f"Movie {i} (1997)" for i in range(NUM_ITEMS)], object)
    tf.random.set_seed(42)
    model = Tutorial(users, movies, metrics=metrics)
    model.compile(optimizer=tf.keras.optimizers.Adagrad(learning_rate=0.1))
    names = {"user_id": users[user].astype(str), "movie_title": movies[item].astype(str)}
    train = tf.data.Dataset.from_tensor_slices(names)
    return model, train.shuffle(100_000).batch(8192).cache()


class Clock(tf.keras.callbacks.Callback):
    """Times an epoch: seconds on the wall, and of processors.

    Keras' `fit` itself returns later: where processors are short, taking a tf.data iterator down
    may wait for its tuner to wake up, which is no part of any step.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.wall, self.processor = time.perf_counter(), time.process_time()
        self.wall, self.processor = self.wall - self.start[0], self.processor - self.start[1]


class Times(NamedTuple):
    """Seconds of each round."""

    wall: list[float]
    processor: list[float]


def in_turn(cases: dict[str, tuple[tf.keras.Model, tf.data.Dataset]]) -> dict[str, Times]:
    """Times an epoch of each case, in rounds; a first epoch, which compiles, is left out."""
    times = {name: Times([], []) for name in cases}
    for number in range(ROUNDS + 1):
        for name, (model, batches) in cases.items():
            clock = Clock()
            model.fit(batches, callbacks=[clock], verbose=0)
            if number:
                times[name].wall.append(round(clock.wall, 3))
                times[name].processor.append(round(clock.processor, 3))
        print(f"round {number} of {ROUNDS}", flush=True)
    return times


def ratio(slower: list[float], faster: list[float]) -> float:
    """Of the medians."""
    return round(statistics.median(slower) / statistics.median(faster), 2)


def measure_tutorial(folder: str) -> dict[str, Any]:
    """Examples a second of the tutorial's model and of ours."""
    data = draw(NUM_USERS, np.arange(NUM_ITEMS), NUM_EXAMPLES)
    dataset = write(folder, *data, num_users=NUM_USERS, num_items=NUM_ITEMS)
    times = in_turn(
        {
            "tutorial": tutorial(*data, metrics=True),
            "tutorial_without_metrics": tutorial(*data, metrics=False),
            "ours": build(TUTORIAL, dataset),
            "ours_with_the_tutorial_loss": build({**TUTORIAL, **PLAIN}, dataset),
        }
    )
    compared = {
        "ours_over_tutorial": ("tutorial", "ours"),
        "ours_over_tutorial_without_metrics": ("tutorial_without_metrics", "ours"),
        "same_loss_over_tutorial_without_metrics": (
            "tutorial_without_metrics",
            "ours_with_the_tutorial_loss",
        ),
    }
    return {
        "users": NUM_USERS,
        "items": NUM_ITEMS,
        "examples_an_epoch": NUM_EXAMPLES,
        "settings": {"ours": TUTORIAL, "ours_with_the_tutorial_loss": {**TUTORIAL, **PLAIN}},
        "epoch_seconds": {name: taken.wall for name, taken in times.items()},
        "epoch_processor_seconds": {name: taken.processor for name, taken in times.items()},
        "examples_per_second": {
            name: round(NUM_EXAMPLES / statistics.median(taken.wall))
            for name, taken in times.items()
        },
        **{
            name: {
                "time": ratio(times[theirs].wall, times[ours].wall),
                "processor_time": ratio(times[theirs].processor, times[ours].processor),
            }
            for name, (theirs, ours) in compared.items()
        },
    }


def measure_catalog(folder: str) -> dict[str, Any]:
    """Seconds a step by size of the catalog, and of the same model under Keras' AdamW."""
    cases = {}
    for num_items in SIZES:
        rng = np.random.default_rng(1)
        known = rng.choice(num_items, min(SIZES), replace=False)
        print(f"catalog of {num_items} items", flush=True)
        data = draw(NUM_DRAWN_USERS, known, 400_000)
        path = f"{folder}/{num_items}"
        dataset = write(path, *data, num_users=NUM_DRAWN_USERS, num_items=num_items)
        for name in ("rows", "keras"):
            model, batches = build(IDS, dataset)
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
    times = in_turn(cases)
    result: dict[str, Any] = {"settings": IDS, "items_named": min(SIZES), "steps_a_round": STEPS}
    for name, label in (("rows", "ours"), ("keras", "keras_adamw")):
        walls = {size: times[f"{name}_{size}"].wall for size in SIZES}
        result[label] = {
            "step_milliseconds": {
                str(size): round(1000 * statistics.median(wall) / STEPS, 2)
                for size, wall in walls.items()
            },
            "largest_over_smallest": ratio(walls[max(SIZES)], walls[min(SIZES)]),
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
    }
    with tempfile.TemporaryDirectory() as folder:
        result["tutorial"] = measure_tutorial(f"{folder}/tutorial")
        result["catalog"] = measure_catalog(folder)
    path = pathlib.Path(parsed.out)
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
