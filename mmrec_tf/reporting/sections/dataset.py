"""Facts of the dataset: counts, tails, gaps, what was set aside, and warnings."""

import pathlib
from typing import Any

import numpy as np

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Markup, Section
from mmrec_tf.reporting.showcase import data_uri, small_jpeg

TITLE = "Dataset"
_MOST_BYTES = 20 << 20  # of a file that was set aside and is looked at


def section(material: Material) -> Section:
    """What `python -m data.inspect` tells, in tables."""
    found, schema = material.inspection, material.dataset.schema
    counts, tail = found["counts"], found["long_tail"]
    facts: dict[str, Any] = {
        "source": f"{found['source']} (split: {found['split_rule']})",
        "users": counts["users"],
        "items": counts["items"],
        "interactions": ", ".join(f"{n:,} {split}" for split, n in counts["interactions"].items()),
        "density": f"{found['sparsity']['density']:.3%} of all pairs of a user and an item met",
        "per user": _spread(found["sparsity"]["per_user"]),
        "per item": _spread(found["sparsity"]["per_item"]),
        "long tail": f"the top tenth of the items has {tail['top_tenth']:.0%} of train; "
        f"{tail['half']:,} items have half of it; {tail['never']:,} have none; Gini "
        f"{tail['gini']:.2f}",
    }
    for split, period in found["times"].items():
        if period:
            facts[f"{split} times"] = f"{period['first']} to {period['last']} UTC"
    if schema.num_relations:
        graph = material.dataset.manifest["counts"]
        facts["knowledge graph"] = f"{graph['triples']:,} triples, {graph['entities']:,} entities"
    told: list[object] = [
        page.paragraph("Warning: ", text, class_="warn") for text in found["warnings"]
    ]
    told += [page.definition(facts), page.figures(*_drawings(material))]
    told.append(page.element("h3", "Content"))
    told += _modalities(found, schema.num_items)
    told.append(page.element("h3", "Set aside"))
    told += _quarantine(found)
    return Section(TITLE, page.join(told))


def _drawings(material: Material) -> list[Markup]:
    count = material.dataset.catalog.train_count
    if not count.any():
        return []
    lengths = np.bincount(material.dataset.interactions("train").user)
    return [
        page.figure(
            figures.counts_by_rank(each, across=f"{what}s by rank", up="train interactions"),
            f"Train interactions of each {what}, the most frequent first; both axes logarithmic.",
        )
        for what, each in (("item", count), ("user", lengths))
    ]


def _modalities(found: dict[str, Any], num_items: int) -> list[Markup]:
    if not found["modalities"]:
        return [page.paragraph("Items have no content: only ids and features.", class_="missing")]
    rows = []
    for name, said in found["modalities"].items():
        bar = Markup(f'<span class="bar" style="width:{90 * said["share"]:.0f}px"></span>')
        sizes = _sizes(said)
        rows.append(
            [
                name,
                page.join([bar, f"{said['share']:.0%}"], " "),
                f"{said['items']:,} of {num_items:,}",
                said["several_values"],
                said["repeated_content"],
                sizes,
            ]
        )
    header = ["modality", "share of items", "items", "have several", "repeated", "sizes"]
    return [
        page.table(header, rows, words=True),
        page.paragraph(
            "Items have ",
            ", ".join(f"{names} ({n:,})" for names, n in found["combinations"].items()),
            ".",
            class_="soft",
        ),
    ]


def _sizes(said: dict[str, Any]) -> str:
    parts = []
    for what, unit in (("characters", "characters"), ("seconds", "s"), ("frames", "frames")):
        if said.get(what):
            parts.append(f"{_spread(said[what])} {unit}")
    if said.get("width"):
        parts.append(f"median {said['width']['median']:.0f} x {said['height']['median']:.0f} px")
    if said.get("bytes"):
        parts.append(f"median {said['bytes']['median'] / 1024:.1f} KB")
    if scripts := said.get("scripts"):
        parts.append(", ".join(f"{script} {share:.0%}" for script, share in scripts.items()))
    return "; ".join(parts)


def _quarantine(found: dict[str, Any]) -> list[Markup]:
    rows = [
        [name, reason, number]
        for name, reasons in found["quarantine"].items()
        for reason, number in reasons.items()
    ]
    if not rows:
        return [page.paragraph("No file was set aside: all media could be read.", class_="missing")]
    told = [page.table(["modality", "reason", "files"], rows, words=True)]
    by_reason: dict[str, list[dict[str, str]]] = {}
    for row in found["quarantined_files"]:
        by_reason.setdefault(row.get("reason", ""), []).append(row)
    shown = sum(map(len, by_reason.values()))
    if shown:
        cards = [
            page.join(
                [
                    page.element("div", reason, class_="soft"),
                    page.element("div", *map(_set_aside, each), class_="strip"),
                ]
            )
            for reason, each in by_reason.items()
        ]
        told.append(
            page.element("details", page.element("summary", f"The first {shown} of them"), *cards)
        )
    return told


def _set_aside(row: dict[str, str]) -> Markup:
    """A medium that was set aside: what can be seen of it, its file and its item."""
    path = pathlib.Path(row.get("file") or "")
    seen = "no picture" if row.get("modality") != "image" else "cannot be shown"
    source = ""
    try:
        if not path.is_file():
            seen = "no longer there"
        elif path.stat().st_size <= _MOST_BYTES and row.get("modality") == "image":
            source = data_uri("image/jpeg", small_jpeg(path.read_bytes(), lenient=True))
    except OSError:
        seen = "cannot be read"
    top = Markup(f'<img src="{source}" alt="">') if source else None
    return page.element(
        "div",
        top or page.element("div", seen, class_="blank"),
        page.element("div", path.name or "no file"),
        page.element("div", f"item {row.get('item')}", class_="soft"),
        class_="item",
    )


def _spread(values: dict[str, float]) -> str:
    if not values:
        return "none"
    low, half, high = (
        f"{values[name]:,.0f}" if values[name] == int(values[name]) else f"{values[name]:,.1f}"
        for name in ("min", "median", "max")
    )
    return f"{low} to {high}, median {half}"
