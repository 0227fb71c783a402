"""How good is an example's config, beside its baselines? Writes benchmarks/results/NAME.json.

    python -m benchmarks.bench_example birds --dataset work/birds --work work/bench_birds

It trains what `mmrec-tf train --config examples/NAME.json --twin` trains, then the same config on
each modality alone (with ids), and ranks every item for every user of the valid and the test split.
Beside them stand all of `mmrec_tf.evaluation.baselines`. It goes on where it was stopped; birds and
tiktok take 10 to 20 minutes each on two cores.
"""

import argparse
import pathlib
import time

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

from benchmarks.facts import facts
from mmrec_tf.records.files import write_json
from mmrec_tf.runs.ablation import trained_run
from mmrec_tf.runs.evaluate import evaluate_run

KS = (10, 20)
ROOT = pathlib.Path(__file__).parents[1]


def measure(name: str, dataset_path: str, work: pathlib.Path) -> dict:
    """All figures of one example."""
    dataset = mm.open_dataset(dataset_path)
    config = mm.load_config(ROOT / "examples" / f"{name}.json")
    splits = [split for split in ("valid", "test") if len(dataset.interactions(split).user)]
    start = time.perf_counter()
    new = not (work / "all").exists()
    run = trained_run(dataset, config, work / "all", twin=True)
    # Of a run that went on where it was stopped, or stands there already, nothing can be said.
    seconds = round(time.perf_counter() - start, 1) if new else None
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
            alone[modality] = trained_run(dataset, part, work / modality)
    for split in splits:
        figures = result["splits"][split]
        both = evaluate_run(run, split=split, ks=KS, baselines=["all"], slices=True)
        figures["users"] = both["users"]
        figures["model"] = both["model"]
        figures["id_only"] = both["id_only"]
        for modality, part in alone.items():
            figures[f"{modality}_and_id"] = mm.evaluate(part.retrieval, dataset, split=split, ks=KS)
        if run.ranking is not None:
            figures["both_stages"] = mm.evaluate(run.recommender(), dataset, split=split, ks=KS)
        figures["popularity"] = both["popularity"]
        figures |= both["baselines"]
        ceiling = dataset.ceiling(split)
        if ceiling is not None:
            figures["ceiling"] = ceiling
        cold = both["slices"]["cold"]
        for label, who in {"cold": "model", "cold_id_only": "id_only"}.items():
            figures[label] = (
                {"users": cold["users"], **cold[who]} if cold["users"] and who in cold else None
            )
        # Beside the figures, which are the rows of a table.
        for key in ("left_out", "differences", "beyond_accuracy", "slices"):
            result.setdefault(key, {})[split] = both[key]
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
