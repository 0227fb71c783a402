"""What each modality is worth, where the run was ablated, and what is left without content."""

from typing import Any

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import read_json
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Markup, Section

TITLE = "What content is worth"
NAME = "ablation.json"


def section(material: Material) -> Section:
    """What `mmrec-tf ablate` left in the run directory."""
    run = material.run
    if not run.retrieval.modalities:
        return page.missing(TITLE, "This run reads no modality: there is nothing to take away.")
    path = run.directory / NAME
    if not path.exists():
        return page.missing(
            TITLE,
            f'Not measured. "mmrec-tf ablate {run.directory} --out {run.directory}" takes each '
            "modality away in turn; the next report shows it.",
        )
    try:
        found = read_json(path)
        return Section(TITLE, page.join(_told(found)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: wanted what ablate writes; {error!r}. Run ablate again, or delete it."
        ) from error


def _told(found: dict[str, Any]) -> list[Markup]:
    metric = found["metric"]
    rows = {
        f"{name}, {how}": figure
        for name, ways in found["knock_outs"].items()
        for how, figure in ways.items()
    }
    rows |= {f"trained {name}": figure for name, figure in (found["retrained"] or {}).items()}
    differences = {n: [f["difference"], f["low"], f["high"]] for n, f in rows.items()}
    drawings = [
        page.figure(
            figures.intervals(differences, unit=f"{metric} without, minus {found['model']:.4f}"),
            "What is lost. Left of 0 the model is worse without; an interval across 0 cannot tell. "
            "Absent: as if no item had it; shuffled: items have each other's; noise: of the same "
            "mean and spread.",
        )
    ]
    if len(found["missing"]) > 1:
        removed = [100 * figure["removed"] for figure in found["missing"]]
        drawings.append(
            page.figure(
                figures.band(
                    removed,
                    [figure["value"] for figure in found["missing"]],
                    low=[found["model"] + figure["low"] for figure in found["missing"]],
                    high=[found["model"] + figure["high"] for figure in found["missing"]],
                    across="of all content removed at random, %",
                    up=metric,
                ),
                "The missing-modality curve: what is left as content goes missing, with the "
                "interval of its difference from the whole model.",
            )
        )
    table = [
        [
            name,
            figure["value"],
            page.interval([figure["difference"], figure["low"], figure["high"]]),
        ]
        for name, figure in rows.items()
    ]
    lead = (
        f"Retrieval alone on the {found['split']} split, {found['users']:,} users, history "
        f"{found['history']}, 95 % intervals."
    )
    verdicts = [[name, said] for name, said in found["verdicts"].items()]
    return [
        page.paragraph(lead),
        page.table(["modality", "verdict, and what it adds"], verdicts, words=True),
        page.figures(*drawings),
        page.element(
            "details",
            page.element("summary", f"All {len(table)} figures"),
            page.table(["", metric, "difference"], table),
        ),
    ]
