"""One HTML file that needs nothing else: escaped text, tables, sections, style and a few lines of
script inside it."""

import html
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmrec_tf.records.files import replace_file

_STYLE = """
:root { --ink: #1d2733; --soft: #5b6773; --line: #dfe4ea; --wash: #f5f7f9; --accent: #0b6bcb; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 16px 20px 64px; }
h1 { font-size: 1.6em; line-height: 1.25; margin: .4em 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.25em; margin: 2em 0 .5em; padding-top: .5em; border-top: 1px solid var(--line); }
h3 { font-size: 1.02em; margin: 1.4em 0 .4em; }
p { max-width: 75ch; margin: .5em 0; }
.soft, figcaption { color: var(--soft); font-size: .88em; }
.missing { color: var(--soft); font-style: italic; }
nav { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: .9em; margin: .8em 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.wide { overflow-x: auto; margin: .6em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88em; }
th, td { padding: .28em .7em; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top; }
th { font-weight: 600; background: var(--wash); }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; min-width: 5.5em; }
.words td:first-child { overflow-wrap: normal; }
.words td:last-child { min-width: 11em; }
.figures { display: flex; flex-wrap: wrap; gap: 10px 24px; align-items: flex-start; }
figure { margin: .5em 0; max-width: 520px; flex: 1 1 430px; }
figure svg { width: 100%; height: auto; display: block; }
.cards { display: flex; flex-wrap: wrap; gap: 10px; margin: .8em 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .5em .9em; min-width: 150px;
  flex: 0 1 auto; }
.card b { display: block; font-size: 1.45em; line-height: 1.25; }
.bar { display: inline-block; height: .65em; background: var(--accent); vertical-align: baseline; }
.user { border: 1px solid var(--line); border-radius: 8px; padding: .3em .9em .8em;
  margin: .9em 0; }
.strip { display: flex; flex-wrap: wrap; gap: 8px; }
.item { width: 124px; font-size: .78em; line-height: 1.3; padding: 5px; border-radius: 6px;
  background: var(--wash); overflow-wrap: anywhere; }
.item.hit { outline: 2px solid #1a8f4c; }
.item img, .item .blank { width: 114px; height: 114px; object-fit: contain; display: block;
  background: #fff; margin-bottom: 4px; border-radius: 4px; }
.item .blank { display: flex; align-items: center; justify-content: center; color: var(--soft); }
.item audio { width: 114px; height: 28px; }
.map { position: relative; max-width: 760px; } .map svg { width: 100%; height: auto; }
.map circle { fill-opacity: .75; } .map circle:hover { stroke: #000; fill-opacity: 1; }
#tip { position: absolute; pointer-events: none; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; box-shadow: 0 2px 10px #0003; padding: 6px; font-size: .8em; width: 150px;
  display: none; z-index: 2; } #tip img { max-width: 100%; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: .85em; }
.legend i { display: inline-block; width: .75em; height: .75em; border-radius: 50%;
  margin-right: .35em; }
.warn { border-left: 4px solid #c77700; background: #fff7ea; padding: .4em .8em; max-width: 80ch; }
.good { color: #14743d; } .bad { color: #b3261e; }
pre { background: var(--wash); padding: .7em; overflow-x: auto; font-size: .8em; max-height: 30em; }
summary { cursor: pointer; color: var(--accent); }
@media (max-width: 600px) { main { padding: 8px 12px 48px; } .item { width: 109px; }
  .item img, .item .blank { width: 99px; height: 99px; }
  .item audio { width: 109px; margin-left: -5px; }
  .card { min-width: 0; flex: 1 1 40%; } th, td { padding: .28em .45em; }
  figure { flex-basis: 100%; } }
@media print { nav, audio { display: none; } h2 { break-after: avoid; } }
"""


class Markup(str):
    """Text that is HTML already; every other text is escaped when it enters a page."""


class Section(NamedTuple):
    """One part of a page; `body` is HTML."""

    title: str
    body: Markup

    @property
    def anchor(self) -> str:
        """What links to it name."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def escape(value: object) -> Markup:
    """Any value as text that a page shows as it is; `Markup` stays."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Parts one after the other, each escaped unless it is `Markup`."""
    return Markup(between.join(map(escape, parts)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element such as `<p class="soft">...</p>`; `class_` stands for the attribute `class`."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{join(children, '')}</{name}>")


def paragraph(*children: object, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", *children, class_=class_)


def missing(title: str, why: str) -> Section:
    """A section whose data is not there says so in one line."""
    return Section(title, paragraph(why, class_="missing"))


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = "",
    words: bool = False,
) -> Markup:
    """A table that scrolls sideways where it is too wide.

    Args:
      header: one cell a column; an empty one leaves the header out.
      rows: cells; numbers as `number` writes them.
      caption: what stands above it.
      words: whether cells hold words, and break, rather than numbers.
    """
    head = element("tr", *(element("th", cell) for cell in header)) if header else ""
    body = (element("tr", *(element("td", number(cell)) for cell in row)) for row in rows)
    # Not within the table, whose width it would then have where that is wider than the page.
    above = element("p", caption, class_="soft") if caption else Markup()
    whole = element("table", head, *body, class_="words" if words else None)
    return join([above, element("div", whole, class_="wide")], "")


def number(value: object) -> Markup:
    """Four digits behind the point, thousands apart, a dash for what is not known."""
    if value is None:
        return Markup("&ndash;")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(value)
    return Markup(f"{value:.4f}" if isinstance(value, float) else f"{value:,}")


def interval(values: Sequence[float]) -> Markup:
    """A difference with its interval, green or red where that lies on one side of 0."""
    mean, low, high = values
    kind = "good" if low > 0 else "bad" if high < 0 else None
    around = element("small", f"{low:+.4f} to {high:+.4f}")
    return element("span", f"{mean:+.4f}", Markup("<br>"), around, class_=kind)


def figure(drawing: Markup, caption: object) -> Markup:
    """A drawing with the words below it."""
    return element("figure", drawing, element("figcaption", caption))


def figures(*each: Markup) -> Markup:
    """Figures side by side where there is room."""
    return element("div", *each, class_="figures")


def definition(pairs: Mapping[str, Any]) -> Markup:
    """Names and what they stand for, as a table of two columns."""
    return table((), pairs.items(), words=True)


def write_page(path: pathlib.Path, title: str, lead: Markup, sections: Sequence[Section]) -> None:
    """Writes a page aside and renames it into place.

    Args:
      path: its file.
      title: what it is called.
      lead: what stands above the sections.
      sections: in order; each has a link at the top.
    """
    links = (element("a", section.title, href=f"#{section.anchor}") for section in sections)
    parts = [
        element("section", element("h2", section.title), section.body, id=section.anchor)
        for section in sections
    ]
    body = element("main", element("h1", title), lead, element("nav", *links), *parts)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Whatever stands in the data, nothing is asked of a network.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    with replace_file(path) as new:
        # Ids may hold what is no UTF-8 (PEP 383).
        new.write_text(page, encoding="utf-8", errors="replace")
