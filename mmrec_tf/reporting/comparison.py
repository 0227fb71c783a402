"""What comparing runs found, on a terminal and as a page."""

import pathlib
from collections.abc import Mapping
from typing import Any

from mmrec_tf.errors import RunError
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.page import Section
from mmrec_tf.reporting.tables import print_table

_EXPLAINED = (
    "Paired bootstrap over users, 95 % intervals. p is two-sided; with Holm's correction over all "
    "differences here it may be read together with the others. Significant: below 0.05 after it."
)


def print_comparison(found: Mapping[str, Any]) -> None:
    """Tables of what `mmrec_tf.runs.comparison.compare_runs` found."""
    shown = list(dict.fromkeys(entry["metric"] for entry in found["differences"]))
    rows = {name: {m: figures[m] for m in shown} for name, figures in found["runs"].items()}
    print_table(f"{_protocol(found)}", rows)
    table = {}
    for entry in found["differences"]:
        interval = f"{entry['mean']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
        row = f"{entry['run']} - {entry['other']}, {entry['metric']}"
        table[row] = {
            "difference": interval,
            "p, and Holm's": f"{entry['p']:.4f}, {entry['p_holm']:.4f}"
            + (" significant" if entry["significant"] else ""),
        }
    title = "\nwith 95% intervals; Holm's p is corrected over all of these"
    print_table(title, table, width=28)
    settings = found["settings"]
    if any(settings.values()):
        print("\nsettings that differ")
        for path in next(iter(settings.values())):
            said = ", ".join(f"{name} {values[path]}" for name, values in settings.items())
            print(f"{path}: {said}")
    else:
        print("\nno setting differs")


def write_comparison(found: Mapping[str, Any], path: str | pathlib.Path) -> pathlib.Path:
    """A page of what `mmrec_tf.runs.comparison.compare_runs` found, written aside first.

    Raises:
      RunError: where no file can be written there.
    """
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"{path}: wanted a file in a folder that is there. Choose another --out.")
    lead = page.paragraph(_protocol(found), class_="soft")
    sections = [_figures(found), _differences(found), _settings(found)]
    page.write_page(path, "Comparison of " + ", ".join(found["runs"]), lead, sections)
    return path


def _figures(found: Mapping[str, Any]) -> Section:
    metrics = [name for name in next(iter(found["runs"].values())) if name != "directory"]
    shown = list(dict.fromkeys(entry["metric"] for entry in found["differences"]))
    metrics = shown + [name for name in metrics if name not in shown]
    rows = [[name, *(said[m] for m in metrics)] for name, said in found["runs"].items()]
    drawing = figures.bars(
        shown,
        {name: [said[m] for m in shown] for name, said in found["runs"].items()},
        unit="mean over users; higher is better",
    )
    drawn = page.figures(page.figure(drawing, "The runs beside each other."))
    return Section("Figures", page.join([drawn, page.table(["run", *metrics], rows)]))


def _differences(found: Mapping[str, Any]) -> Section:
    rows, drawn = [], []
    for metric in dict.fromkeys(entry["metric"] for entry in found["differences"]):
        entries = [entry for entry in found["differences"] if entry["metric"] == metric]
        bounds = {f"{e['run']} - {e['other']}": [e["mean"], e["low"], e["high"]] for e in entries}
        drawing = figures.intervals(bounds, unit=f"difference in {metric}")
        drawn.append(page.figure(drawing, f"{metric}: right of 0 the first of the two is better."))
        rows += [
            [
                f"{e['run']} minus {e['other']}",
                metric,
                page.interval([e["mean"], e["low"], e["high"]]),
                f"{e['p']:.4f}",
                f"{e['p_holm']:.4f}",
                "significant" if e["significant"] else "no",
            ]
            for e in entries
        ]
    header = ["", "metric", "difference", "p", "p, Holm", "after correction"]
    told = [page.figures(*drawn), page.table(header, rows), page.paragraph(_EXPLAINED)]
    return Section("Differences", page.join(told))


def _settings(found: Mapping[str, Any]) -> Section:
    settings = found["settings"]
    paths = list(next(iter(settings.values())))
    if not paths:
        return page.missing("Settings that differ", "None: the configs are equal.")
    rows = [[path, *(str(values[path]) for values in settings.values())] for path in paths]
    return Section("Settings that differ", page.table(["setting", *settings], rows, words=True))


def _protocol(found: Mapping[str, Any]) -> str:
    stage = "after both stages" if found["stage"] == "recommender" else "retrieval alone"
    return (
        f"{found['dataset']}, {found['split']} split, history {found['history']}, "
        f"{found['users']} users, {stage}"
    )
