"""How good is an example's config, beside its baselines? Writes benchmarks/results/NAME.json.

    python -m benchmarks.bench_example birds --dataset work/birds --work work/bench_birds

It trains what `mmrec-tf train --config examples/NAME.json --twin` trains, then the same config on
each modality alone (with ids), and ranks every item for every user of the valid and the test split.
Beside them stand all of `mmrec_tf.evaluation.baselines`. It goes on where it was stopped; birds and
tiktok take 10 to 20 minutes each on two cores.

Another split of the same data asks another question, such as what content is worth for items that
are new. Its result has a name of its own, and settings may differ:

    python -m data.prepare media-folder --split cold-items ... --out work/birds_cold
    python -m benchmarks.bench_example birds --dataset work/birds_cold --work work/bench_cold \
      --result birds_cold --set cold_items.fit=true

`--valid-only` prints the valid split alone and writes nothing, for who chooses settings.
"""

import argparse
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

from benchmarks.examples import command_of, example_parser, result_name, tell
from benchmarks.facts import ROOT, facts
from mmrec_tf.config import read_settings
from mmrec_tf.errors import run_command
from mmrec_tf.evaluation.evaluate import evaluate_users
from mmrec_tf.evaluation.metrics import mean_metrics, paired_bootstrap
from mmrec_tf.runs.ablation import trained_run
from mmrec_tf.runs.evaluate import evaluate_run
from mmrec_tf.runs.run import Run

KS = (10, 20)
# What is printed beside the model, where it is there.
BESIDE = ("id_only", "popularity", "content_knn", "unplaced")
PRINTED = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")


def measure(
    name: str,
    dataset_path: str,
    work: pathlib.Path,
    *,
    command: str = "",
    settings: Mapping[str, str] | None = None,
    splits: Sequence[str] = ("valid", "test"),
) -> dict[str, Any]:
    """All figures of one example.

    Args:
      name: of the example.
      dataset_path: where its dataset stands, in whatever split.
      work: where the runs are kept.
      command: what makes the result; "" for that of the example's own split.
      settings: by path, what differs from the example's config.
      splits: those that are measured, where the dataset has them. All is trained before the first.
    """
    dataset = mm.open_dataset(dataset_path)
    config = mm.load_config(ROOT / "examples" / f"{name}.json")
    config = config.override(settings or {}, schema=dataset.schema)
    splits = [split for split in splits if len(dataset.interactions(split).user)]
    start = time.perf_counter()
    new = not (work / "all").exists()
    run = trained_run(dataset, config, work / "all", twin=True)
    # Of a run that went on where it was stopped, or stands there already, nothing can be said.
    seconds = round(time.perf_counter() - start, 1) if new else None
    plain = f"python -m benchmarks.bench_example {name} --dataset DATASET --work WORK"
    result: dict[str, Any] = {
        **facts(
            f"how good is examples/{name}.json, beside its baselines?", command=command or plain
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
            fewer = {"modalities": [modality], "ranking.epochs": 0}
            part = config.override(fewer, schema=dataset.schema)
            alone[modality] = trained_run(dataset, part, work / modality)
    placed = run.cold_items_fit
    if placed is not None:
        result["cold_items"] = placed.to_json()
    for split in splits:
        figures = result["splits"][split]
        both = evaluate_run(run, split=split, ks=KS, baselines=["all"], slices=True)
        figures["users"] = both["users"]
        figures["model"] = both["model"]
        figures["id_only"] = both["id_only"]
        for modality, part in alone.items():
            figures[f"{modality}_and_id"] = mm.evaluate(part.retrieval, dataset, split=split, ks=KS)
        if placed is not None and placed.used:
            figures["unplaced"], both["differences"]["unplaced"] = _unplaced(run, split)
        if run.ranking is not None:
            figures["both_stages"] = mm.evaluate(run.recommender(), dataset, split=split, ks=KS)
        figures["popularity"] = both["popularity"]
        figures |= both["baselines"]
        for label, knowable in {"knowable": True, "ceiling": False}.items():
            best = dataset.ceiling(split, knowable=knowable)
            if best is not None:
                figures[label] = best
        cold = both["slices"]["cold"]
        for label, who in {"cold": "model", "cold_id_only": "id_only"}.items():
            figures[label] = (
                {"users": cold["users"], **cold[who]} if cold["users"] and who in cold else None
            )
        # Beside the figures, which are the rows of a table.
        for key in ("left_out", "differences", "beyond_accuracy", "slices"):
            result.setdefault(key, {})[split] = both[key]
    return result


def _unplaced(run: Run, split: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The same model with cold items where content alone places them, and what the fit adds."""
    model, fit = run.retrieval, run.retrieval.cold_items_fit
    placed = evaluate_users(model, run.dataset, split=split, ks=KS)
    model.set_cold_items(None)
    try:
        without = evaluate_users(model, run.dataset, split=split, ks=KS)
    finally:
        model.set_cold_items(fit)
    differences = {
        metric: list(paired_bootstrap(values, without[metric])) for metric, values in placed.items()
    }
    return mean_metrics(without), differences


def summary(result: Mapping[str, Any], split: str) -> str:
    """The model beside its twin and what it has to beat, with paired 95 % intervals of what it has
    over them; then by how often train met what was wanted."""
    figures, differences = result["splits"][split], result["differences"][split]
    lines = [f"{split}, {figures['users']} users" + "".join(f"{m:>12}" for m in PRINTED)]
    for name, values in figures.items():
        if isinstance(values, dict) and all(metric in values for metric in PRINTED):
            lines.append(f"{name:28.28}" + "".join(f"{values[m]:12.4f}" for m in PRINTED))
    lines.append("model less, 95 %")
    for name in BESIDE:
        if name in differences:
            cells = (
                "{:+.4f} ({:+.4f} to {:+.4f})".format(*differences[name][m]) for m in PRINTED[:3]
            )
            lines.append(f"{name:28}" + "  ".join(cells))
    who = ("model", *(name for name in BESIDE if name != "unplaced"))
    lines.append(f"{'recall@20 by train count':28}" + "".join(f"{name:>12}" for name in who))
    for name, found in result["slices"][split].items():
        if name.startswith(("cold", "met ")) and "," not in name and found["users"]:
            cells = (
                f"{found[one]['recall@20']:12.4f}" if one in found else f"{'':12}" for one in who
            )
            lines.append(f"{name:28}" + "".join(cells) + f"  {found['users']} users")
    return "\n".join(lines)


def main() -> int:
    """Measures one example and writes its result."""
    parsed = example_parser(__doc__, result="the example's").parse_args()
    return run_command(lambda: _run(parsed), name="bench_example")


def _run(parsed: argparse.Namespace) -> int:
    name = result_name(parsed, parsed.name)
    result = measure(
        parsed.name,
        parsed.dataset,
        pathlib.Path(parsed.work),
        command=command_of("bench_example", parsed, parsed.name),
        settings=read_settings(parsed.set),
        splits=("valid",) if parsed.valid_only else ("valid", "test"),
    )
    tell(parsed, result, name, summary)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
