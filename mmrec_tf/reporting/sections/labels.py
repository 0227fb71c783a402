"""What items are called: how well it is foretold by their content."""

from typing import Any

from mmrec_tf.reporting import page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Section
from mmrec_tf.runs.labels import report_labels

TITLE = "Labels"
_GROUPS = {
    "new": "items that train never met, whose labels the heads have not seen",
    "train": "items that train met, whose labels the heads have learned",
}
# Beyond so many classes the rest is for `mmrec-tf tag`.
_MOST_CLASSES = 40


def section(material: Material) -> Section:
    """Precision, recall and F1 by class, and which class is taken for which."""
    model = material.run.retrieval
    if model.label_heads is None:
        return page.missing(
            TITLE, "This run foretells no label (labels.softmax and labels.sigmoid are empty)."
        )
    told = []
    for name, found in report_labels(model).items():
        for group, words in _GROUPS.items():
            report = found[group]
            if report is None:
                told.append(page.paragraph(f"{name}: there are no {words}.", class_="missing"))
                continue
            told += _tables(name, found["form"], report, words)
    return Section(TITLE, page.join(told))


def _tables(name: str, form: str, report: dict[str, Any], words: str) -> list[page.Markup]:
    classes = sorted(report["classes"].items(), key=lambda pair: -pair[1]["items"])
    columns = ("items", "precision", "recall", "f1")
    rows = [[label, *(figures[c] for c in columns)] for label, figures in classes[:_MOST_CLASSES]]
    caption = (
        f"{name} ({form}), {report['items']:,} {words}: macro F1 {report['macro_f1']:.3f}, "
        f"micro F1 {report['micro_f1']:.3f}, accuracy {report['accuracy']:.3f}"
    )
    told = [page.table(["class", *columns], rows, caption=caption)]
    left = len(classes) - len(rows)
    if left:
        told.append(page.paragraph(f"{left} rarer classes are left out.", class_="soft"))
    if "confusion" in report:
        names = list(report["confusion"])
        told.append(
            page.element(
                "details",
                page.element("summary", f"{name}: which class is taken for which"),
                page.table(
                    ["true class", *names],
                    [[label, *found.values()] for label, found in report["confusion"].items()],
                    caption="true classes by row, foretold ones by column",
                ),
            )
        )
    return told
