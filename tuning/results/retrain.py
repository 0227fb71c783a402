"""What the best config is worth: trained anew, and measured once on the test split."""

from collections.abc import Callable
from typing import Any

import mmrec_tf as mm
from mmrec_tf.errors import TuningError
from mmrec_tf.records.files import write_sealed
from tuning.tuner.search import Search, read_facts, say


def retrain(found: Search, report: Callable[[str], None] = say) -> dict[str, Any]:
    """Trains the best config into the folder `best` and evaluates it once on test.

    Args:
      found: a search that is over.
      report: receives what was measured.

    Returns:
      What is in `test.json`: "valid" and "test", of each metric by name; "test" is null of a
      dataset without such a split. Of a later call what the first one measured.
    """
    from mmrec_tf.evaluation.evaluate import evaluate
    from mmrec_tf.runs.run import Run, load_run
    from mmrec_tf.runs.train import train_run

    path = found.out / "test.json"
    if path.exists():
        figures = read_facts(path)
        if figures["test"] is not None:
            report(f"{path}: the test split was read once before, and is not read again.")
    else:
        config = found.best_config
        dataset = mm.open_dataset(found.facts["dataset"])
        folder = found.out / "best"
        run = None
        if (folder / "run.json").exists() and Run(folder).finished:
            run = load_run(folder, dataset=dataset.directory)
            if run.config != config:
                raise TuningError(
                    f"{folder}: holds a run of another config than the best one by now. Remove it "
                    "to train that."
                )
            run.share_dataset(dataset)
        if run is None:
            run = train_run(dataset, config, folder)
        model: Any = run.recommender(history="train") if config.ranking.epochs else run.retrieval
        there = len(dataset.interactions("test").user) > 0
        figures = {
            "valid": evaluate(model, dataset, split="valid"),
            "test": evaluate(model, dataset, split="test") if there else None,
        }
        write_sealed(path, {**figures, "config": config.to_json()})
        if there:
            report(f"{path}: this was the one time that the test split was read.")
    for split in ("valid", "test"):
        if figures[split] is None:
            report(
                f"{split}: the dataset has no such split, so that nobody knows how good this is."
            )
            continue
        said = ", ".join(f"{name} {value:.4f}" for name, value in figures[split].items())
        report(f"{split}: {said}")
    return figures
