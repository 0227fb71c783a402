"""Fills the tables of the README and of the examples' pages in from benchmarks/results/*.json.

    python -m benchmarks.report            rewrites the pages
    python -m benchmarks.report --check    says whether they are up to date (exit status 1 if not)

A table stands between `<!-- results NAME SPLIT -->` and `<!-- end -->`.
"""

import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("README.md", "examples/*.md")
COLUMNS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
MARK = re.compile(r"(<!-- results (\w+) (\w+) -->\n).*?(<!-- end -->)", re.S)
LABELS = {
    "model": "this config",
    "id_only": "its id-only twin",
    "both_stages": "this config, after ranking too",
    "popularity": "most popular",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "ceiling": "ceiling: the planted truth",
    "cold": "this config, on items without train interactions",
    "cold_id_only": "its twin, on items without train interactions",
}


def table(result: dict, split: str) -> str:
    """One split of a result as a Markdown table."""
    figures = result["splits"][split]
    lines = [
        f"| {split} split, {figures['users']} users | {' | '.join(COLUMNS)} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
    ]
    for name, values in figures.items():
        if isinstance(values, dict):
            label = LABELS.get(name, name.replace("_and_id", " alone, and ids"))
            if "users" in values:
                label += f" ({values['users']} users)"
            cells = " | ".join(f"{values[column]:.4f}" for column in COLUMNS)
            lines.append(f"| {label} | {cells} |")
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """A page with its tables made anew."""

    def fill(match: re.Match) -> str:
        path = ROOT / "benchmarks" / "results" / f"{match[2]}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        return f"{match[1]}{table(result, match[3])}{match[4]}"

    return MARK.sub(fill, text)


def main() -> int:
    """Rewrites or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parsed = parser.parse_args()
    stale = []
    for page in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page)
            if not parsed.check:
                page.write_text(filled(text), encoding="utf-8")
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'is out of date' if parsed.check else 'rewritten'}")
    return 1 if stale and parsed.check else 0


if __name__ == "__main__":
    sys.exit(main())
