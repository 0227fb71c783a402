"""What does each part of an example's config contribute? Writes benchmarks/results/parts_NAME.json.

    python -m benchmarks.bench_parts tiktok --dataset work/tiktok --work work/parts_tiktok

It trains the retrieval model of examples/NAME.json and its id-only twin with each of a few seeds,
and then, with the first seed, the config with one part removed at a time: a modality, or a setting
of the model back at its default. All are measured on the valid split, which also stops training.
It goes on where it was stopped.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Iterator

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np

from benchmarks.facts import facts
from mmrec_tf.config import Config
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.evaluate import evaluate_users
from mmrec_tf.evaluation.metrics import mean_metrics, paired_bootstrap
from mmrec_tf.records.files import write_json
from mmrec_tf.runs.ablation import trained_run

KS = (10, 20)
ROOT = pathlib.Path(__file__).parents[1]
# What an encoder is, and how long and in which order it is trained, is no part of the model.
NOT_PARTS = ("training", "text", "image", "audio", "ranking", "modalities")


def parts(example: dict, config: Config, modalities: tuple[str, ...]) -> Iterator[tuple]:
    """Name, config and folder of the example with one part removed; a part that the others need
    is left out."""
    for name in modalities if len(modalities) > 1 else ():
        rest = [other for other in modalities if other != name]
        yield f"without {name}", config.override({"modalities": rest}), f"without-{name}"
    defaults = Config().to_json()
    settings = [("dim",)] if "dim" in example else []
    for section, values in example.items():
        if section not in NOT_PARTS and isinstance(values, dict):
            settings += [(section, name) for name in values]
    if modalities and config.alignment.kinds and "kinds" not in example.get("alignment", {}):
        changed = config.override({"alignment.kinds": []})
        yield "without alignment", changed, "without-alignment"
    for path in settings:
        default = defaults[path[0]] if len(path) == 1 else defaults[path[0]][path[1]]
        name = ".".join(path)
        try:
            changed = config.override({name: default})
        except ConfigError:
            continue
        if changed != config:
            yield f"{name} at its default, {json.dumps(default)}", changed, name


def measure(name: str, dataset_path: str, work: pathlib.Path, seeds: list[int]) -> dict:
    """All runs of one example."""
    dataset = mm.open_dataset(dataset_path)
    path = ROOT / "examples" / f"{name}.json"
    example = json.loads(path.read_text(encoding="utf-8"))
    whole = mm.load_config(path).override({"ranking.epochs": 0})
    runs: dict[str, dict] = {}
    per_user: dict[str, np.ndarray] = {}
    monitor = whole.training.monitor

    def add(label: str, config: Config, folder: str) -> None:
        start, new = time.perf_counter(), not (work / folder).exists()
        run = trained_run(dataset, config, work / folder)
        seconds = round(time.perf_counter() - start, 1) if new else None
        values = evaluate_users(run.retrieval, dataset, split="valid", ks=KS)
        per_user[label] = values[monitor]
        runs[label] = {"valid": mean_metrics(values), "train_seconds": seconds}

    for seed in seeds:
        for label, config in {"whole": whole, "id_only": whole.id_only()}.items():
            add(
                f"{label}, seed {seed}", config.override({"training.seed": seed}), f"{label}-{seed}"
            )
    first = f"whole, seed {seeds[0]}"
    base = whole.override({"training.seed": seeds[0]})
    for label, config, folder in parts(example, base, dataset.schema.select(whole.modalities)):
        add(label, config, folder)
    for label, run in runs.items():
        if label != first and len(per_user[label]) == len(per_user[first]):
            run[f"{monitor} less that of {first}"] = paired_bootstrap(
                per_user[label], per_user[first]
            )._asdict()
    summary = {}
    for label in ("whole", "id_only"):
        figures = [runs[f"{label}, seed {seed}"]["valid"] for seed in seeds]
        summary[label] = {
            metric: {
                "mean": float(np.mean([f[metric] for f in figures])),
                "std": float(np.std([f[metric] for f in figures], ddof=1)) if seeds[1:] else None,
            }
            for metric in figures[0]
        }
    return {
        **facts(
            f"what does each part of examples/{name}.json contribute, on the valid split?",
            command=f"python -m benchmarks.bench_parts {name} --dataset DATASET --work WORK",
        ),
        "config": whole.to_json(),
        "dataset": {"hash": dataset.hash, "split_rule": dataset.manifest["split_rule"]},
        "seeds": seeds,
        "summary": summary,
        "runs": runs,
    }


def main() -> None:
    """Measures one example and writes its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="an example: examples/NAME.json")
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--work", required=True, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N")
    parsed = parser.parse_args()
    seeds = [int(seed) for seed in parsed.seeds.split(",")]
    result = measure(parsed.name, parsed.dataset, pathlib.Path(parsed.work), seeds)
    path = ROOT / "benchmarks" / "results" / f"parts_{parsed.name}.json"
    write_json(path, result)
    print(path)


if __name__ == "__main__":
    main()
