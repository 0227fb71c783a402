"""How it was trained: curves of both stages, time and memory."""

import csv
import math
import pathlib

from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Markup, Section

TITLE = "Training curves"
_STAGES = {"retrieval": "history.csv", "ranking": "ranking_history.csv"}


def section(material: Material) -> Section:
    """Losses and the watched metric by epoch."""
    drawn: list[Markup] = []
    said: list[Markup] = []
    for stage, file in _STAGES.items():
        history = read_history(material.run.directory / file)
        if not history:
            said.append(page.paragraph(f"{stage}: no {file} in this run.", class_="missing"))
            continue
        losses = {n: v for n, v in history.items() if n.endswith("loss") and any(v)}
        watched = {n: v for n, v in history.items() if n.startswith("valid_")}
        others = {
            n: v for n, v in history.items() if n not in {*losses, *watched, "epoch"} and any(v)
        }
        panels = [("loss of train", {"loss": losses.pop("loss")})] if "loss" in losses else []
        # Beside the whole, its parts are of another size.
        panels += [(f"part of it: {n}", {n: v}) for n, v in losses.items()]
        panels += [(n.replace("_", " "), {n: v}) for n, v in {**others, **watched}.items()]
        best = _best(list(watched.values()))
        epochs = len(history["epoch"])
        kept = f"; the dotted line is the best one, {best}, whose weights are kept"
        if stage == "ranking" and _kept_order(material):
            best, kept = None, "; none beats retrieval's own order, which is kept"
        elif best is None:
            kept = ""
        drawn.append(
            page.figure(
                figures.curves(panels, best=best),
                f"{stage}: {epochs} epochs, from 0 on{kept}. Valid is measured after each.",
            )
        )
    return Section(TITLE, page.join([page.figures(*drawn), *said]))


def _kept_order(material: Material) -> bool:
    """Whether ranking leaves all lists as retrieval has them."""
    differences = material.run.metrics.get("ranking", {}).get("differences", {})
    found = differences.get("ranking", {}).values()
    return bool(found) and not any(number for interval in found for number in interval)


def read_history(path: pathlib.Path) -> dict[str, list[float]]:
    """The columns of a history, NaN for an empty cell; {} without the file, or without rows."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    return {name: [_cell(row[name]) for row in rows] for name in rows[0]}


def _cell(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _best(watched: list[list[float]]) -> int | None:
    """The epoch with the highest value: metrics that rise, as training watches them."""
    if not watched or all(map(math.isnan, watched[0])):
        return None
    return max(range(len(watched[0])), key=lambda n: (watched[0][n], -n))
