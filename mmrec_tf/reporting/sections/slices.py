"""On which items it is good: warm and cold, popular and rare, with and without content."""

from collections.abc import Sequence
from typing import Any

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import KS, Material
from mmrec_tf.reporting.page import Section

TITLE = "Slices of items"
_WHO = {"model": "this run", "id_only": "id-only twin", "popularity": "most popular"}
_POPULARITY = ("warm", "cold", "head", "middle", "tail")


def section(material: Material) -> Section:
    """Recall by how often train met items, and by what content they have."""
    if material.evaluation is None:
        return page.missing(TITLE, f"Nothing could be measured: {material.why}")
    slices = material.evaluation["slices"]
    met = {name: found for name, found in slices.items() if found["users"]}
    metric = f"recall@{KS[-1]}"
    who = {key: name for key, name in _WHO.items() if material.evaluation[key]}
    popularity = [name for name in _POPULARITY if name in met]
    content = [
        name for name in met if name.endswith(" content") or name.startswith(("with ", "without "))
    ]
    # "with text" of a dataset in which all items have text says nothing.
    content = [name for name in content if "," not in name and not _whole(name, slices)]
    drawings = []
    for names, what in ((popularity, "how often train met it"), (content, "what content it has")):
        if not names:
            continue
        values = {label: [met[name][key][metric] for name in names] for key, label in who.items()}
        labels = [f"{name} ({met[name]['users']:,} users)" for name in names]
        drawings.append(
            page.figure(
                figures.bars(labels, values, unit=metric),
                f"{metric} of relevant items by {what}; users with such an item in parentheses.",
            )
        )
    header = ["slice", "items", "users", *who.values()]
    rows = [
        [name, found["items"], found["users"], *(found[key][metric] for key in who)]
        for name, found in met.items()
    ]
    told = [page.figures(*drawings)]
    if not content:
        told.append(
            page.paragraph(
                "By content: all items have the same modalities, so there is nothing to compare.",
                class_="missing",
            )
        )
    told.append(
        page.element(
            "details",
            page.element("summary", f"All {len(rows)} slices that a user asks for"),
            page.table(header, rows, caption=metric),
        )
    )
    if empty := len(slices) - len(met):
        told.append(
            page.paragraph(
                f"{empty} further slices have no relevant item on this split.", class_="soft"
            )
        )
    return Section(TITLE, page.join(told))


def _whole(name: str, slices: dict[str, Any]) -> bool:
    """Whether a slice holds all items."""
    sizes: Sequence[int] = [slices["warm"]["items"], slices["cold"]["items"]]
    return bool(slices[name]["items"] == sum(sizes))
