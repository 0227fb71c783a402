"""How to make it again: config, seed, versions, time and memory."""

import json

from mmrec_tf.records.files import read_json
from mmrec_tf.reporting import page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Section

TITLE = "How it was made"
# What the command that trained leaves of itself.
COST = "cost.json"


def section(material: Material) -> Section:
    """Where, with what, how long, and every setting."""
    run = material.run
    facts = {
        "run": run.directory.resolve(),
        "dataset": material.dataset.directory.resolve(),
        "dataset hash": run.facts["dataset_hash"],
        "seed": run.facts.get("seed", run.config.training.seed),
        "commit": run.facts.get("commit", "not recorded"),
        "versions": ", ".join(f"{name} {n}" for name, n in run.facts["versions"].items()),
    }
    if start := run.facts.get("start"):
        facts["went on from"] = start["run"]
    try:
        cost = read_json(run.directory / COST)
        facts["time"] = f"{cost['seconds']:,.0f} s, of the process that ended the training"
        facts["memory"] = f"{cost['peak_memory_mb']:,.0f} MB at most, likewise"
    except (OSError, ValueError, KeyError, TypeError):
        facts["time, memory"] = "not recorded"
    counts = run.metrics.get("parameters", {})
    parameters = [[name, number] for name, number in counts.items() if number]
    config = json.dumps(run.config.to_json(), indent=1, ensure_ascii=False)
    told = [page.definition(facts)]
    if parameters:
        told.append(page.table(["parameters of", "number"], parameters))
    told.append(
        page.element(
            "details", page.element("summary", "The whole config"), page.element("pre", config)
        )
    )
    return Section(TITLE, page.join(told))
