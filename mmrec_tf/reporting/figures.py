"""Drawings as inline SVG, by matplotlib: one function a kind of drawing.

Text stays text, in the page's own font, so that it can be read, searched and scaled.
"""

import contextlib
import hashlib
import io
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from mmrec_tf.records.files import replace_file
from mmrec_tf.reporting.page import Markup

# Colors that people with any color vision tell apart (Okabe and Ito 2008), the strongest first.
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31"),
    *("#4d4d4d", "#b2df8a"),
)
_WIDTH_INCHES = 5.4  # of a drawing, which a page shows with 520 pixels at most
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmrec_tf",
    "font.size": 10.5,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e7eb",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


# Where drawings are collected, while they are.
_drawn: list[Figure] | None = None


def curves(
    panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]], *, best: int | None
) -> Markup:
    """Figures by epoch, one panel below the other.

    Args:
      panels: of each its name, and by name its values, one an epoch; NaN for none.
      best: the epoch whose weights were kept; None for none.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 0.6 + 1.7 * len(panels)), layout="constrained")
        axes = drawing.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axis, (title, lines) in zip(axes, panels, strict=True):
            for color, (name, values) in zip(COLORS, lines.items(), strict=False):
                few = len(values) < 30
                axis.plot(values, color=color, label=name, marker="o" if few else "", markersize=3)
            axis.set_title(title)
            if best is not None:
                axis.axvline(best, color="#888", linestyle=":", linewidth=1.2)
            if len(lines) > 1:
                axis.legend()
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
        return _svg(drawing)


def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    *,
    unit: str,
    stacked: bool = False,
) -> Markup:
    """Lying bars, some for each group.

    Args:
      groups: names, from the top.
      values: by name of the bar, one number a group; None for no bar.
      unit: what the numbers are.
      stacked: one behind the other, rather than below.
    """
    with mpl.rc_context(_STYLE):
        each = 0.3 if stacked else 0.19 * len(values) + 0.12
        height = 1.0 + each * len(groups) + 0.22 * ((len(values) + 1) // 2)
        drawing = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        axis = drawing.subplots()
        place, left = np.arange(len(groups)), np.zeros([len(groups)])
        thick = 0.7 if stacked else 0.8 / len(values)
        for row, (name, numbers) in enumerate(values.items()):
            drawn = np.array([0.0 if n is None else n for n in numbers])
            at = place if stacked else place + (row - (len(values) - 1) / 2) * thick
            color = COLORS[row % len(COLORS)]
            axis.barh(at, drawn, thick, left=left if stacked else None, color=color, label=name)
            left = left + drawn
        axis.set_yticks(place, [_escape(name) for name in groups])
        axis.set_ylim(len(groups) - 0.45, -0.55)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(unit)
        if len(values) > 1:
            drawing.legend(loc="outside upper left", ncols=2)
        return _svg(drawing)


def intervals(rows: Mapping[str, Sequence[float]], *, unit: str) -> Markup:
    """Differences with their intervals, one below the other, and where 0 is.

    Args:
      rows: by name `[mean, low, high]`.
      unit: what the numbers are.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 1.0 + 0.34 * len(rows)), layout="constrained")
        axis = drawing.subplots()
        for row, (mean, low, high) in enumerate(rows.values()):
            color = "#14743d" if low > 0 else "#b3261e" if high < 0 else "#5b6773"
            axis.plot([low, high], [row, row], color=color, linewidth=2.5, solid_capstyle="butt")
            axis.plot([mean], [row], marker="o", color=color, markersize=6)
        axis.axvline(0, color="#1d2733", linewidth=1)
        axis.set_yticks(range(len(rows)), [_escape(name) for name in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(unit)
        return _svg(drawing)


def shares(lines: Mapping[str, np.ndarray], *, across: str, up: str) -> Markup:
    """How unequally something falls on items: Lorenz curves from the most to the least.

    Args:
      lines: by name <int>[item], how much each has; one without anything is left out.
      across, up: what the axes are.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 3.6), layout="constrained")
        axis = drawing.subplots()
        for color, (name, count) in zip(COLORS, lines.items(), strict=False):
            if not count.sum():
                continue
            reached = np.concatenate([[0.0], np.cumsum(np.sort(count)[::-1]) / count.sum()])
            at = np.unique(np.linspace(0, len(count), 200).astype(int))
            axis.plot(100 * at / len(count), 100 * reached[at], color=color, label=name)
        axis.plot([0, 100], [0, 100], color="#888", linestyle=":", linewidth=1.2)
        axis.set(xlabel=across, ylabel=up, xlim=(0, 100), ylim=(0, 101))
        axis.legend(loc="lower right")
        return _svg(drawing)


def counts_by_rank(count: np.ndarray, *, across: str, up: str) -> Markup:
    """How often each item is met, the most frequent first, both axes logarithmic.

    Args:
      count: <int>[item]; items with 0 are left out.
      across, up: what the axes are.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 3.2), layout="constrained")
        axis = drawing.subplots()
        met = np.sort(count[count > 0])[::-1]
        at = np.unique(np.geomspace(1, len(met), 300).astype(int))
        few = len(met) < 30
        axis.plot(at, met[at - 1], color=COLORS[0], marker="o" if few else "", markersize=3)
        axis.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
        for part in (axis.xaxis, axis.yaxis):
            part.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}"))
            part.set_minor_formatter(mpl.ticker.NullFormatter())
        # Within one decade there would be one label, or none.
        if met[0] < 10 * met[-1]:
            axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        return _svg(drawing)


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Said and observed probabilities.

    Args:
      bins: of each the mean of what was said, the share of what came true, and its examples.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 3.6), layout="constrained")
        axis = drawing.subplots()
        said, seen = (100 * np.array([b[side] for b in bins]) for side in (0, 1))
        most = 1.08 * max(said.max(), seen.max(), 1e-3)
        axis.plot([0, most], [0, most], color="#888", linestyle=":", linewidth=1.2)
        axis.plot(said, seen, color=COLORS[0], marker="o", markersize=5)
        axis.set(xlabel="probability said, %", ylabel="chosen, %", xlim=(0, most), ylim=(0, most))
        return _svg(drawing)


def band(
    place: Sequence[float],
    value: Sequence[float],
    *,
    low: Sequence[float],
    high: Sequence[float],
    across: str,
    up: str,
) -> Markup:
    """A curve with the interval around it.

    Args:
      place, value: of its points.
      low, high: of the interval at each.
      across, up: what the axes are.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(_WIDTH_INCHES, 3.2), layout="constrained")
        axis = drawing.subplots()
        axis.fill_between(place, low, high, color=COLORS[0], alpha=0.18, linewidth=0)
        axis.plot(place, value, color=COLORS[0], marker="o", markersize=4)
        axis.set(xlabel=across, ylabel=up)
        return _svg(drawing)


def signed(rows: Mapping[str, float], *, unit: str, heading: str = "") -> Figure:
    """What things add, and take off, one lying bar each.

    Args:
      rows: by name, from the top.
      unit: what the numbers are.
      heading: what stands above.
    """
    with mpl.rc_context(_STYLE):
        height = 1.1 + 0.3 * max(len(rows), 1)
        drawing = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        draw_signed(drawing.subplots(), rows, unit=unit, heading=heading)
        return drawing


def draw_signed(axis: Any, rows: Mapping[str, float], *, unit: str, heading: str = "") -> None:
    """The bars of `signed` on an axis of matplotlib."""
    values = list(rows.values())
    color = [COLORS[0] if value >= 0 else COLORS[1] for value in values]
    axis.barh(range(len(values)), values, 0.7, color=color)
    axis.axvline(0, color="#1d2733", linewidth=1)
    axis.set_yticks(range(len(values)), [_escape(name) for name in rows])
    axis.set_ylim(max(len(values), 1) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(unit)
    if heading:
        axis.set_title(heading)
    low, high = min([*values, 0.0]), max([*values, 0.0])
    room = 0.16 * max(high - low, 1e-9)
    axis.set_xlim(low - (room if low < 0 else 0), high + (room if high > 0 else 0))
    for row, value in enumerate(values):
        side = "left" if value >= 0 else "right"
        axis.text(value, row, f" {value:+.2f} ", va="center", ha=side, fontsize=8.5)


def style() -> Any:
    """A context in which matplotlib draws as this package does."""
    return mpl.rc_context(_STYLE)


@contextlib.contextmanager
def collected() -> Iterator[list[Figure]]:
    """The drawings that are made while the context lasts, for files of their own."""
    global _drawn
    before, _drawn = _drawn, []
    try:
        yield _drawn
    finally:
        _drawn = before


def write_drawing(drawing: Figure, path: pathlib.Path) -> None:
    """Writes a drawing as SVG or PNG, by its file's suffix, aside and then into place."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with replace_file(path) as new, new.open("wb") as file, mpl.rc_context(_STYLE):
        drawing.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata)


def _escape(text: str) -> str:
    """A name as matplotlib draws it: it takes what stands between dollars for mathematics."""
    shown = text if len(text) <= 28 else text[:27] + "…"
    return shown.replace("$", r"\$")


def _svg(drawing: Figure) -> Markup:
    if _drawn is not None:
        _drawn.append(drawing)
    out = io.StringIO()
    drawing.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # One page may hold each id once: those of groups go, others get the drawing's own.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    own = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", text)
    # The width that the page gives it, not one in points.
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1, flags=re.DOTALL)
    return Markup(text)
