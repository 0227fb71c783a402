"""How do time and memory grow with the catalog? Writes a JSON file.

    python -m benchmarks.bench_growth --work work/growth --out benchmarks/results/growth.json

Catalogs of 10,000, 100,000 and 1,000,000 items (`--items`), each with a ready-made vector of 64
numbers, half as many users, and four interactions an item. Each stage runs in a process of its own,
of which the seconds of the stage alone and the peak of all its memory are told:

- `write`: the dataset directory, by `DatasetWriter`;
- `open first`, `open`: `open_dataset` with all splits read, before and after columns are cached;
- `adapt`: the retrieval model is made of it, its encoders run and its tables are filled;
- `step`: milliseconds of a training step of 1,024 examples, the first ones left out;
- `evaluate`: `NUM_ASKED` users rank the whole catalog;
- `index`: the index that an export chooses, with its recall;
- `export`: both servables, checked; `load`: one of them until its first answer.

The model is untrained: that changes no cost. Each finished stage is noted in `--work`, so that a
second call goes on where a killed one was. Beside each figure stands its growth: the power of the
number of items that it went with since the size before, 1 for linear.
"""

import argparse
import json
import math
import pathlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import tensorflow as tf

from benchmarks.facts import facts
from mmrec_tf.records import DatasetWriter
from mmrec_tf.records.files import read_json, write_json
from mmrec_tf.retrieval.index import build_index
from mmrec_tf.schema import SPLITS, ModalitySpec, Schema

SIZES = (10_000, 100_000, 1_000_000)
DIM, A_USER = 64, 8
NUM_ASKED, STEPS, WARM = 1024, 40, 5
SETTINGS = {"modalities": ["vector"], "training.batch_size": 1024, "ranking.epochs": 0}
SEED = 0


def write(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """The dataset directory."""
    shutil.rmtree(folder / "dataset", ignore_errors=True)
    rng, users = np.random.default_rng(SEED), items // 2
    with DatasetWriter(folder / "dataset") as writer:
        for item in range(items):
            vector = rng.normal(size=DIM).astype(np.float32)
            writer.write_item(f"i{item}", content={"vector": vector}, features={})
        for user in range(users):
            writer.write_user(f"u{user}")
        # Few items are met by many.
        met = (items * rng.random([users, A_USER]) ** 2).astype(np.int64)
        for split, part in zip(SPLITS, (slice(0, -2), [-2], [-1]), strict=True):
            for user, row in enumerate(met[:, part].tolist()):
                row = list(dict.fromkeys(row))
                writer.write_interactions(split, user, item=row, timestamp=list(range(len(row))))
        schema = Schema(
            num_users=users, num_items=items, modalities={"vector": ModalitySpec("vector", dim=DIM)}
        )
        writer.finish(schema, source={"name": "random"}, split_rule="given")
    return {}


def open_first(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """`open_`, its columns not cached."""
    shutil.rmtree(folder / "dataset/cache", ignore_errors=True)
    return open_(items, folder)


def open_(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """The dataset with all that training reads of it."""
    dataset = mm.open_dataset(folder / "dataset")
    count = sum(len(dataset.interactions(split).user) for split in SPLITS)
    return {"items": len(dataset.catalog.item_id), "interactions": count}


def _model(folder: pathlib.Path) -> mm.RetrievalModel:
    config = mm.Config().override(SETTINGS)
    return mm.RetrievalModel(config, mm.open_dataset(folder / "dataset"))


def adapt(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """The model."""
    _model(folder)
    return {}


def step(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """Training steps."""
    model, ends = _model(folder), []
    model.compile()
    noted = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    model.fit(model.batches("train").take(STEPS), callbacks=[noted], verbose=0)
    return {"milliseconds": round(1000 * float(np.median(np.diff(ends[WARM:]))), 2)}


def evaluate(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """Users who rank the catalog."""
    model = _model(folder)
    began = time.perf_counter()
    model.rank_items(model.dataset, np.arange(min(NUM_ASKED, items // 2)), k=10)
    return {"seconds": time.perf_counter() - began}


def index(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """The index of random unit vectors, the hardest there are."""
    rng = np.random.default_rng(SEED)
    vectors = rng.normal(size=[items, DIM]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    began = time.perf_counter()
    _, found = build_index(vectors, vectors[rng.permutation(items)[:1024]], k=100, min_recall=0.5)
    return {"seconds": time.perf_counter() - began, "found": found}


def export(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """Both servables."""
    recommender = mm.Recommender(model := _model(folder), None, model.dataset)
    shutil.rmtree(folder / "export", ignore_errors=True)
    began = time.perf_counter()
    # Vectors of an untrained model lie anywhere: what is found of them says nothing.
    mm.export(recommender, folder / "export", k=50, min_recall=0.01)
    seconds = time.perf_counter() - began
    files = [path for path in (folder / "export").rglob("*") if path.is_file()]
    return {"seconds": seconds, "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 1)}


def load(items: int, folder: pathlib.Path) -> dict[str, Any]:
    """The recommender until its first answer."""
    servable = tf.saved_model.load(str(folder / "export/recommender/1"))
    servable.signatures["similar_items"](item_id=tf.constant(["i0"]))
    return {}


STAGES: dict[str, Callable[[int, pathlib.Path], dict[str, Any]]] = {
    "write": write,
    "open first": open_first,
    "open": open_,
    "adapt": adapt,
    "step": step,
    "evaluate": evaluate,
    "index": index,
    "export": export,
    "load": load,
}


def run_stage(name: str, items: int, folder: pathlib.Path) -> dict[str, Any]:
    """One stage in this process: what it says of itself, or its seconds; and its peak, with that of
    the processes that it started."""
    began = time.perf_counter()
    found = STAGES[name](items, folder)
    found.setdefault("seconds", time.perf_counter() - began)
    peak = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return {
        **found,
        "seconds": round(found["seconds"], 2),
        "peak_gib": round(max(peak) / 2**20, 2),
    }


def measure(sizes: list[int], work: pathlib.Path) -> list[dict[str, Any]]:
    """All stages of all sizes, those left out that an earlier call has finished."""
    rows: list[dict[str, Any]] = []
    for items in sizes:
        folder = work / str(items)
        folder.mkdir(parents=True, exist_ok=True)
        row: dict[str, Any] = {"items": items}
        for name in STAGES:
            noted = folder / f"{name.replace(' ', '_')}.json"
            if not noted.exists():
                stage = ["--stage", name, "--items", str(items), "--work", str(work)]
                command = [sys.executable, "-m", "benchmarks.bench_growth", *stage]
                subprocess.run([*command, "--out", str(noted)], check=True)
            row[name] = read_json(noted)
            print(items, name, json.dumps(row[name]), flush=True)
        if rows:
            row["growth"] = growth(rows[-1], row)
        rows.append(row)
    return rows


def growth(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """By stage, the power of the number of items that its time went with."""
    times = math.log(after["items"] / before["items"])
    found = {}
    for name in STAGES:
        unit = "milliseconds" if name == "step" else "seconds"
        one, other = (max(row[name][unit], 0.01) for row in (before, after))
        found[name] = round(math.log(other / one) / times, 2)
    return found


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--items", default=",".join(map(str, SIZES)), metavar="N,N,...")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    work, sizes = pathlib.Path(parsed.work), [int(size) for size in parsed.items.split(",")]
    if parsed.stage:
        (items,) = sizes
        write_json(pathlib.Path(parsed.out), run_stage(parsed.stage, items, work / str(items)))
        return
    command = "python -m benchmarks.bench_growth --work DIR --out FILE"
    head = facts("how do time and memory grow with the catalog?", command=command)
    write_json(pathlib.Path(parsed.out), {**head, "sizes": measure(sizes, work)})


if __name__ == "__main__":
    main()
