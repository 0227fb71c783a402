"""How good is each kind of ranking model? Writes benchmarks/results/ranking_NAME.json.

    python -m benchmarks.bench_ranking posters --dataset work/posters --work work/ranking_posters

It trains the retrieval model of examples/NAME.json once, then ranking models that differ from the
example's in one thing each: the architecture, target attention, the content, the tasks, the loss.
Of every one the epoch that is best on the valid split is kept, and its calibration is fitted there.
`evaluate_ranking` says of both splits how good it is; which of them is "chosen" is said by NDCG@10
on the valid split alone, or where an effect is planted by the AUC of a click there. It goes on
where it was stopped.
"""

import argparse
import json
import pathlib
import time

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)


from benchmarks.facts import facts
from mmrec_tf.evaluation.calibration import Calibration, fit
from mmrec_tf.evaluation.metrics import (
    expected_calibration_error,
    paired_bootstrap,
    retrieval_metrics,
)
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.recommender.funnel import collect, evaluate_ranking, fit_calibration
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.records.files import write_json
from mmrec_tf.runs.ablation import trained_run
from mmrec_tf.runs.run import Run, load_weights, save_weights
from mmrec_tf.training.fit import train

ROOT = pathlib.Path(__file__).parents[1]
KS = (10, 20)
CHOICE = "ndcg@10"
VARIANTS: dict[str, dict] = {
    "dcn": {},
    "dlrm": {"ranking.architecture": "dlrm"},
    "deepfm": {"ranking.architecture": "deepfm"},
    "mlp": {"ranking.architecture": "mlp"},
    "bilinear": {"ranking.architecture": "bilinear"},
    # Attention over 50 steps for each of 33 candidates would take a quarter of an hour.
    "dcn, 8 negatives": {"ranking.num_negatives": 8},
    "dcn, 8 negatives, target attention": {
        "ranking.num_negatives": 8,
        "ranking.target_attention": True,
    },
    "dcn, fine-tuned embeddings": {"ranking.fine_tune": True},
    "dcn, without content": {"ranking.content": False},
    "dcn, pairwise": {"ranking.loss": "pairwise"},
    "dcn, binary": {"ranking.loss": "binary"},
    "dcn, full rank": {"ranking.projection_dim": 0},
}
RATED: dict[str, dict] = {
    "rating alone": {"ranking.tasks": ["rating"], "ranking.monitor": "rmse"},
    "click and rating": {"ranking.tasks": ["click", "rating"]},
    "click and rating, MMoE": {"ranking.tasks": ["click", "rating"], "ranking.sharing": "mmoe"},
    "click and rating, PLE": {"ranking.tasks": ["click", "rating"], "ranking.sharing": "ple"},
    "click and rating, uncertainty": {
        "ranking.tasks": ["click", "rating"],
        "ranking.uncertainty": True,
    },
}
# Where the effect is planted that no dot product can express: of these only.
PLANTED: dict[str, dict] = {
    "dcn": {},
    "dlrm": {"ranking.architecture": "dlrm"},
    "deepfm": {"ranking.architecture": "deepfm"},
    "mlp": {"ranking.architecture": "mlp"},
    "bilinear": {"ranking.architecture": "bilinear"},
    "dcn, without the hour": {"ranking.context": []},
}


def trained(run: Run, config: mm.Config, folder: pathlib.Path) -> tuple[RankingModel, float | None]:
    """A ranking model on a run's retrieval model, and the seconds that training it took; None for
    one that stands there already."""
    if (folder / "weights").exists():
        model = RankingModel(config, run.dataset, retrieval=run.retrieval, initialize=False)
        load_weights(folder / "weights", model=model)
        return model, None
    start = time.perf_counter()
    model = RankingModel(config, run.dataset, retrieval=run.retrieval)
    train(model, run.dataset)
    save_weights(folder / "weights", model=model)
    return model, round(time.perf_counter() - start, 1)


def calibrations(recommender: Recommender, dataset: mm.Dataset, split: str) -> dict:
    """ECE over the candidates of a split before and after each kind of calibration, fitted on
    valid."""
    examples = {}
    for name in {"valid", split}:
        pool = collect(recommender, dataset, split=name, k=1)
        labels, _, real = pool.examples()
        examples[name] = pool.logit[real], labels
    logits, labels = examples[split]
    found = {}
    for kind in ("none", "temperature", "platt", "isotonic"):
        calibration = Calibration() if kind == "none" else fit(kind, *examples["valid"])
        probabilities = calibration(logits).numpy()
        found[kind] = {
            "ece": expected_calibration_error(labels, probabilities),
            "ece_equal_mass": expected_calibration_error(labels, probabilities, equal_mass=True),
        }
    return found


def measure(name: str, dataset_path: str, work: pathlib.Path, only: list[str]) -> dict:
    """All figures of one example."""
    dataset = mm.open_dataset(dataset_path)
    config = mm.load_config(ROOT / "examples" / f"{name}.json")
    run = trained_run(dataset, config.override({"ranking.epochs": 0}), work / "retrieval")
    result = {
        **facts(
            f"how good is each kind of ranking model on {name}?",
            command=f"python -m benchmarks.bench_ranking {name} --dataset DATASET --work WORK",
        ),
        "dataset": {"hash": dataset.hash, "counts": dataset.manifest["counts"]},
        "config": config.to_json(),
        "ranking": {},
    }
    ceiling = {split: dataset.ceiling(split) for split in ("valid", "test")}
    planted = "auc" in (ceiling["valid"] or {})
    if planted:
        result["ceiling"] = ceiling
    rated = RATED if dataset.schema.ratings else {}
    variants = PLANTED if planted else {**VARIANTS, **rated}
    recommenders = {}
    for label, settings in variants.items():
        if only and label not in only:
            continue
        folder = work / label.replace(", ", "-").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        # Of the example's config: that of the run has no settings of ranking, as it has none.
        model, seconds = trained(run, config.override(settings), folder)
        seconds = _kept(folder / "seconds.json", seconds)
        recommender = Recommender(run.retrieval, model, dataset)
        recommender.calibrate(fit_calibration(recommender, dataset))
        recommenders[label] = recommender
        figures = {
            split: evaluate_ranking(recommender, dataset, split=split, ks=KS)
            for split in ("valid", "test")
        }
        result["ranking"][label] = {"settings": settings, "train_seconds": seconds, **figures}
        print(label, figures["valid"]["funnel"]["ranking"], flush=True)
    ranked = {
        label: entry["valid"]["shown"]["click"]["auc"]
        if planted
        else entry["valid"]["funnel"]["ranking"][CHOICE]
        for label, entry in result["ranking"].items()
        if label != "rating alone"
    }
    chosen = max(ranked, key=lambda label: ranked[label])
    result["chosen"] = chosen
    if {"dcn", "dcn, without content"} <= set(recommenders):
        result["content"] = {
            split: _less(recommenders["dcn"], recommenders["dcn, without content"], dataset, split)
            for split in ("valid", "test")
        }
    result["calibration"] = {
        label: calibrations(recommenders[label], dataset, "test")
        for label in dict.fromkeys([chosen, "dcn, binary"])
        if label in recommenders
    }
    return result


def _less(one: Recommender, other: Recommender, dataset: mm.Dataset, split: str) -> dict:
    """What one's ranking has over another's, `[mean, low, high]` by metric."""
    metrics = []
    for recommender in (one, other):
        pool = collect(recommender, dataset, split=split, k=KS[-1])
        metrics.append(retrieval_metrics(pool.shown, pool.relevant, ks=KS))
    return {n: list(paired_bootstrap(values, metrics[1][n])) for n, values in metrics[0].items()}


def _kept(path: pathlib.Path, seconds: float | None) -> float | None:
    """The seconds of a training that this or an earlier call saw."""
    if seconds is not None:
        write_json(path, {"seconds": seconds})
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.exists() else None


def main() -> None:
    """Measures one example and writes its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="an example: examples/NAME.json")
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--work", required=True, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--only", nargs="*", default=[], metavar="VARIANT")
    parser.add_argument(
        "--out", metavar="FILE", help="default: benchmarks/results/ranking_NAME.json"
    )
    parsed = parser.parse_args()
    result = measure(parsed.name, parsed.dataset, pathlib.Path(parsed.work), parsed.only)
    path = parsed.out or ROOT / "benchmarks" / "results" / f"ranking_{parsed.name}.json"
    write_json(pathlib.Path(path), result)
    print(path)


if __name__ == "__main__":
    main()
