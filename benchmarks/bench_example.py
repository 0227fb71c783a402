"""How good is an example's config, beside its baselines? Writes benchmarks/results/NAME.json.

    python -m benchmarks.bench_example birds --dataset work/birds --work work/bench_birds

It trains what `mmrec-tf train --config examples/NAME.json --twin` trains, then the same config on
each modality alone (with ids), and ranks every item for every user of the valid and the test split.
Beside them stand the most popular items, item-kNN and EASE, which see interactions alone. It goes
on where it was stopped; birds and tiktok take 10 to 20 minutes each on two cores.
"""

import argparse
import json
import pathlib
import time

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np
import scipy.sparse

from benchmarks.facts import facts
from mmrec_tf.evaluation import evaluate_run, rank_items, relevant_items
from mmrec_tf.metrics import mean_metrics, retrieval_metrics, top_k
from mmrec_tf.records.manifest import write_json
from mmrec_tf.runs import load_run
from mmrec_tf.training import train_run

KS = (10, 20)
ROOT = pathlib.Path(__file__).parents[1]
EASE_LAMBDA = 50.0


def interactions(dataset) -> scipy.sparse.csr_matrix:
    """The train split as <float32>[user, item] of zeros and ones."""
    train = dataset.interactions("train")
    shape = (dataset.schema.num_users, dataset.schema.num_items)
    return scipy.sparse.csr_matrix(
        (np.ones(len(train.user), np.float32), (train.user, train.item)), shape
    )


def item_knn(train: scipy.sparse.csr_matrix) -> np.ndarray:
    """Cosine between items' columns (Sarwar et al. 2001), <float32>[item, item]."""
    norm = np.sqrt(np.maximum(np.asarray(train.sum(axis=0)).ravel(), 1))
    similarity = (train.T @ train).toarray() / norm[:, None] / norm[None, :]
    np.fill_diagonal(similarity, 0)
    return similarity.astype(np.float32)


def ease(train: scipy.sparse.csr_matrix) -> np.ndarray:
    """Embarrassingly shallow autoencoder (Steck 2019, eq. 8), <float32>[item, item]."""
    gram = (train.T @ train).toarray().astype(np.float64)
    inverse = np.linalg.inv(gram + EASE_LAMBDA * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def evaluate_linear(weights: np.ndarray, train, dataset, split: str) -> dict[str, float]:
    """Ranks by `train @ weights`, train items left out."""
    users, relevant = relevant_items(dataset, split)
    histories = dataset.histories()
    tops = []
    for start in range(0, len(users), 1024):
        some = users[start : start + 1024]
        scores = np.asarray(train[some] @ weights, np.float32)
        tops.append(top_k(scores, max(KS), exclude=histories.pairs(some)))
    return mean_metrics(retrieval_metrics(np.concatenate(tops), relevant, ks=KS))


def evaluate_cold(run, dataset, split: str) -> dict[str, float] | None:
    """Recall on the interactions with items that train never saw; None where there are none."""
    users, (offset, items) = relevant_items(dataset, split)
    row = np.repeat(np.arange(len(users)), np.diff(offset))
    cold = dataset.catalog.train_count[items] == 0
    if not cold.any():
        return None
    kept, count = np.unique(row[cold], return_counts=True)
    relevant = (np.concatenate([[0], np.cumsum(count)]), items[cold])
    top = rank_items(run.retrieval, dataset, users[kept], k=max(KS))
    return {"users": len(kept), **mean_metrics(retrieval_metrics(top, relevant, ks=KS))}


def trained(dataset, config, directory: pathlib.Path, *, twin: bool = False):
    """The run in that folder; trained first unless it is there already. Also its seconds."""
    start = time.perf_counter()
    if (directory / "run.json").exists() and json.loads(
        (directory / "run.json").read_text(encoding="utf-8")
    )["finished"]:
        return load_run(directory, dataset=dataset.directory), None
    run = train_run(dataset, config, directory, twin=twin)
    return run, round(time.perf_counter() - start, 1)


def measure(name: str, dataset_path: str, work: pathlib.Path) -> dict:
    """All figures of one example."""
    dataset = mm.open_dataset(dataset_path)
    config = mm.load_config(ROOT / "examples" / f"{name}.json")
    splits = [split for split in ("valid", "test") if len(dataset.interactions(split).user)]
    run, seconds = trained(dataset, config, work / "all", twin=True)
    result = {
        **facts(
            f"how good is examples/{name}.json, beside its baselines?",
            command=f"python -m benchmarks.bench_example {name} --dataset DATASET --work WORK",
        ),
        "config": config.to_json(),
        "dataset": {
            "hash": dataset.hash,
            "source": dataset.manifest["source"]["name"],
            "counts": dataset.manifest["counts"],
            "split_rule": dataset.manifest["split_rule"],
        },
        "train_seconds": seconds,
        "splits": {split: {} for split in splits},
    }
    modalities = dataset.schema.select(config.modalities)
    alone = {}
    if len(modalities) > 1:
        for modality in modalities:
            part = config.override({"modalities": [modality], "ranking.epochs": 0})
            alone[modality], _ = trained(dataset, part, work / modality)
    train = interactions(dataset)
    references = {"item_knn": item_knn(train), "ease": ease(train)}
    for split in splits:
        figures = result["splits"][split]
        both = evaluate_run(run, split=split, ks=KS)
        figures["users"] = both["users"]
        figures["model"] = both["model"]
        figures["id_only"] = both["id_only"]
        for modality, part in alone.items():
            figures[f"{modality}_and_id"] = mm.evaluate(part.retrieval, dataset, split=split, ks=KS)
        if run.ranking is not None:
            figures["both_stages"] = mm.evaluate(run.recommender(), dataset, split=split, ks=KS)
        figures["popularity"] = both["popularity"]
        for reference, weights in references.items():
            figures[reference] = evaluate_linear(weights, train, dataset, split)
        ceiling = dataset.ceiling(split)
        if ceiling is not None:
            figures["ceiling"] = ceiling
        figures["cold"] = evaluate_cold(run, dataset, split)
        if run.twin is not None and figures["cold"] is not None:
            figures["cold_id_only"] = evaluate_cold(run.twin, dataset, split)
    return result


def main() -> None:
    """Measures one example and writes its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="an example: examples/NAME.json")
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--work", required=True, metavar="DIR", help="where the runs are kept")
    parsed = parser.parse_args()
    result = measure(parsed.name, parsed.dataset, pathlib.Path(parsed.work))
    path = ROOT / "benchmarks" / "results" / f"{parsed.name}.json"
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
