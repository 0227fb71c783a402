"""What drift was found, on a terminal and as a page."""

import pathlib
from collections.abc import Mapping
from typing import Any

from mmrec_tf.errors import RunError
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.page import Section
from mmrec_tf.reporting.tables import print_table

_EXPLAINED = (
    "p is by permutation: how often chance alone makes at least such a difference. p corrected is "
    "times the number of tests (Bonferroni). An alarm is raised where a value is above its "
    "threshold and its corrected p, if it has one, is at most 0.01."
)
_KINDS = {
    "mean": "distance of the means of the vectors, of their spread",
    "covariance": "distance of their covariances, of the norm of that of all",
    "discrepancy": "squared maximum mean discrepancy of the vectors (Gretton et al. 2012)",
    "together": "the same, of two modalities of one item at once",
    "coherence": "change of how alike two items of one user are, as a cosine",
    "changed content": "share of the items that both know whose content is another one",
    "unknown items": "share of interactions with items that the reference does not know",
    "unknown users": "share of users whom the reference does not know",
    "popularity": "total variation between the shares of the most popular items",
    "score": "change of the mean score of the first item, of the spread of scores",
}


def print_drift(found: Mapping[str, Any]) -> None:
    """A table of what `mmrec_tf.evaluation.drift.measure` found."""
    rows = {
        _name(check): {
            "value": float(check["value"]),
            "threshold": float(check["threshold"]),
            "p": check["p"],
            "p corrected": check["p_corrected"],
            "": "ALARM" if check["alarm"] else "",
        }
        for check in found["checks"]
    }
    print_table(_title(found), rows)
    for said in found["left_out"]:
        print(f"left out: {said}")
    print(verdict(found))


def verdict(found: Mapping[str, Any]) -> str:
    """What was found, in a sentence."""
    loud = [_name(check) for check in found["checks"] if check["alarm"]]
    return f"alarm: {'; '.join(loud)}." if loud else "no alarm."


def write_drift(found: Mapping[str, Any], path: str | pathlib.Path) -> pathlib.Path:
    """A page of what `mmrec_tf.evaluation.drift.measure` found, written aside first.

    Raises:
      RunError: where no file can be written there.
    """
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"{path}: wanted a file in a folder that is there. Choose another --out.")
    said = verdict(found)
    mood = "bad" if found["alarm"] else "good"
    lead = page.join(
        [
            page.paragraph(_title(found), class_="soft"),
            page.paragraph(page.element("b", said, class_=mood)),
        ]
    )
    drawing = figures.bars(
        [_name(check) for check in found["checks"]],
        {
            said: [_ratio(check) if check["alarm"] == loud else None for check in found["checks"]]
            for said, loud in (("no alarm", False), ("alarm", True))
        },
        unit="value as a share of its threshold, at most 3",
        stacked=True,
    )
    rows = [
        [
            _name(check),
            page.element("b", "alarm", class_="bad") if check["alarm"] else "no",
            float(check["value"]),
            float(check["threshold"]),
            check["p"],
            check["p_corrected"],
        ]
        for check in found["checks"]
    ]
    header = ["", "alarm", "value", "threshold", "p", "p corrected"]
    told = [
        page.figures(
            page.figure(
                drawing,
                "What is above 1 is large enough to matter; it raises an alarm where it is also "
                "more than chance.",
            )
        ),
        page.table(header, rows),
        page.paragraph(_EXPLAINED, class_="soft"),
        *(page.paragraph(f"Left out: {why}", class_="soft") for why in found["left_out"]),
    ]
    kinds = dict.fromkeys(check["kind"] for check in found["checks"])
    meaning = page.definition({kind: _KINDS[kind] for kind in kinds})
    sections = [Section("What changed", page.join(told)), Section("What the values are", meaning)]
    page.write_page(path, f"Drift of {found['new']}", lead, sections)
    return path


def _ratio(check: Mapping[str, Any]) -> float:
    return min(max(check["value"], 0.0) / max(check["threshold"], 1e-12), 3.0)


def _name(check: Mapping[str, Any]) -> str:
    return f"{check['kind']}: {check['of']}" if check["of"] else str(check["kind"])


def _title(found: Mapping[str, Any]) -> str:
    first, second = found["users"]
    return (
        f"{found['new']} ({second:,} users compared) beside {found['reference']} ({first:,} users)"
    )
