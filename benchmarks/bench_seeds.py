"""How much do an example's figures owe to its seed? Writes benchmarks/results/NAME_seeds.json.

    python -m benchmarks.bench_seeds small --dataset work/toy --work work/seeds_small

It trains the retrieval model of examples/NAME.json and its id-only twin with each of several seeds.
It ranks every item for every user of the valid split, and, once all are trained, of the test split,
there also with valid known (`--history train+valid`). Mean and standard deviation are over seeds.
What the config has over its twin, EASE and the most popular items is the difference of each user's
mean over seeds, with a paired 95 % interval over users. It goes on where it was stopped. A seed
takes what `mmrec-tf train --twin` does.

Another split of the same data, or other settings, have a result with a name of its own (`--result`,
`--set`). `--valid-only` prints the valid split alone and writes nothing, for who chooses settings.
"""

import argparse
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import numpy as np

from benchmarks.examples import command_of, example_parser, result_name, tell
from benchmarks.facts import ROOT, facts
from mmrec_tf.config import read_settings
from mmrec_tf.errors import ConfigError, RunError, run_command
from mmrec_tf.evaluation.baselines import BASELINES, rank_by
from mmrec_tf.evaluation.evaluate import evaluate_users, relevant_items
from mmrec_tf.evaluation.metrics import mean_metrics, paired_bootstrap, retrieval_metrics
from mmrec_tf.records.files import read_json, write_json
from mmrec_tf.runs.ablation import trained_run

KS = (10, 20)
# By the name in the result: the split, and what is known of users.
PROTOCOLS = {
    "valid": ("valid", "train"),
    "test": ("test", "train"),
    "test_after_valid": ("test", "train+valid"),
}
BASELINE_NAMES = ("popularity", "ease")
PRINTED = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")

PerUser = dict[str, np.ndarray]


def measure(
    name: str,
    dataset_path: str,
    work: pathlib.Path,
    *,
    seeds: Sequence[int],
    command: str = "",
    settings: Mapping[str, str] | None = None,
    protocols: Sequence[str] = tuple(PROTOCOLS),
) -> dict[str, Any]:
    """All figures of one example under several seeds.

    Args:
      name: of the example.
      dataset_path: where its dataset stands.
      work: where the runs are kept.
      seeds: at least two, each once.
      command: what makes the result; "" for that of the example as it is.
      settings: by path, what differs from the example's config.
      protocols: of `PROTOCOLS`; those of a split without interactions are passed over.

    Raises:
      ConfigError: for fewer than two seeds, or one that comes twice.
      RunError: where the folder holds runs of another config or dataset.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds: wanted at least two, each once, as a spread is asked for; got {list(seeds)}."
        )
    dataset = mm.open_dataset(dataset_path)
    config = mm.load_config(ROOT / "examples" / f"{name}.json")
    # Ranking changes nothing that is measured here.
    config = config.override({**(settings or {}), "ranking.epochs": 0}, schema=dataset.schema)
    runs, seconds = {}, {}
    for seed in seeds:
        folder = work / f"seed-{seed}"
        new, start = not folder.exists(), time.perf_counter()
        runs[seed] = trained_run(
            dataset, config.override({"training.seed": seed}), folder, twin=True
        )
        if runs[seed].twin is None:
            raise RunError(f"{folder}: wanted a run with its twin. Choose another --work.")
        # Told only of one that was trained without a break.
        taken = folder / "bench_seconds.json"
        if new:
            write_json(taken, {"seconds": round(time.perf_counter() - start, 1)})
        seconds[seed] = read_json(taken)["seconds"] if taken.exists() else None
    splits = {}
    for protocol in protocols:
        split, history = PROTOCOLS[protocol]
        if len(dataset.interactions(split).user):
            splits[protocol] = _measure(dataset, runs, split=split, history=history)
    return {
        **facts(
            f"how much do the figures of examples/{name}.json owe to its seed?",
            command=command
            or f"python -m benchmarks.bench_seeds {name} --dataset DATASET --work WORK",
        ),
        "config": config.to_json(),
        "dataset": {
            "hash": dataset.hash,
            "source": dataset.manifest["source"]["name"],
            "counts": dataset.manifest["counts"],
            "split_rule": dataset.manifest["split_rule"],
        },
        "seeds": list(seeds),
        "train_seconds": {str(seed): value for seed, value in seconds.items()},
        "splits": splits,
    }


def _measure(
    dataset: mm.Dataset, runs: Mapping[int, Any], *, split: str, history: str
) -> dict[str, Any]:
    """One split under one protocol."""
    users, relevant = relevant_items(dataset, split)

    def of_users(run: Any) -> PerUser:
        return evaluate_users(run.retrieval, dataset, split=split, ks=KS, history=history)

    by_seed = {
        "model": [of_users(run) for run in runs.values()],
        "id_only": [of_users(run.twin) for run in runs.values()],
    }
    fixed: dict[str, PerUser] = {}
    left_out: dict[str, str] = {}
    for name in BASELINE_NAMES:
        try:
            score = BASELINES[name](dataset, None, history=history)
        except ConfigError as error:  # too large a catalog
            left_out[name] = str(error)
            continue
        top = rank_by(score, dataset, users, k=max(KS), history=history)
        fixed[name] = retrieval_metrics(top, relevant, ks=KS)
    means = {name: _mean(of_seeds) for name, of_seeds in by_seed.items()} | fixed
    summary = {name: _spread(of_seeds) for name, of_seeds in by_seed.items()}
    summary |= {
        name: {metric: {"mean": value, "std": None} for metric, value in mean_metrics(of).items()}
        for name, of in fixed.items()
    }
    if history == "train":  # which ceilings are of
        for name, knowable in {"knowable": True, "ceiling": False}.items():
            best = dataset.ceiling(split, knowable=knowable)
            if best is not None:
                summary[name] = {
                    metric: {"mean": best[metric], "std": None}
                    for metric in summary["model"]
                    if metric in best
                }
    return {
        "split": split,
        "history": history,
        "users": len(users),
        "summary": summary,
        "by_seed": {
            str(seed): {name: mean_metrics(of[place]) for name, of in by_seed.items()}
            for place, seed in enumerate(runs)
        },
        "differences": {
            name: {
                metric: list(paired_bootstrap(means["model"][metric], values))
                for metric, values in of.items()
            }
            for name, of in means.items()
            if name != "model"
        },
        "left_out": left_out,
    }


def _mean(of_seeds: Sequence[PerUser]) -> PerUser:
    """Each user's mean over seeds."""
    return {metric: np.mean([of[metric] for of in of_seeds], axis=0) for metric in of_seeds[0]}


def _spread(of_seeds: Sequence[PerUser]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds, of a sample."""
    figures = [mean_metrics(of) for of in of_seeds]
    return {
        metric: {
            "mean": float(np.mean([one[metric] for one in figures])),
            "std": float(np.std([one[metric] for one in figures], ddof=1)),
        }
        for metric in figures[0]
    }


def summary(result: Mapping[str, Any], protocol: str) -> str:
    """One split as lines to print."""
    found = result["splits"][protocol]
    head = f"{found['split']}, history {found['history']}, {found['users']} users"
    lines = [f"{head:40}" + "".join(f"{metric:>18}" for metric in PRINTED)]
    for name, metrics in found["summary"].items():
        cells = [
            f"{one['mean']:.4f}" + ("" if one["std"] is None else f" ± {one['std']:.4f}")
            for one in (metrics[metric] for metric in PRINTED)
        ]
        lines.append(f"{name:40}" + "".join(f"{cell:>18}" for cell in cells))
    for name, metrics in found["differences"].items():
        cells = ["{:+.4f} ({:+.4f} to {:+.4f})".format(*metrics[m]) for m in PRINTED]
        lines.append(f"less {name}: " + ", ".join(cells))
    lines += [f"left out: {reason}" for reason in found["left_out"].values()]
    return "\n".join(lines)


def main() -> int:
    """Measures one example and writes its result."""
    parser = example_parser(__doc__, result="NAME_seeds")
    parser.add_argument("--seeds", default="0,1,2,3,4", metavar="N,N", help="default: 0,1,2,3,4")
    parsed = parser.parse_args()
    return run_command(lambda: _run(parsed), name="bench_seeds")


def _run(parsed: argparse.Namespace) -> int:
    default = f"{parsed.name}_seeds"
    name = result_name(parsed, default)
    if not re.fullmatch(r"\d+(,\d+)*", parsed.seeds):
        raise ConfigError(f"--seeds: wanted numbers with commas between; got {parsed.seeds!r}.")
    result = measure(
        parsed.name,
        parsed.dataset,
        pathlib.Path(parsed.work),
        seeds=[int(seed) for seed in parsed.seeds.split(",")],
        command=f"{command_of('bench_seeds', parsed, default)} --seeds {parsed.seeds}",
        settings=read_settings(parsed.set),
        protocols=("valid",) if parsed.valid_only else tuple(PROTOCOLS),
    )
    tell(parsed, result, name, summary)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
